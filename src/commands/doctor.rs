//! `doctor`: why a graph is empty. Follows a number from Clipper to the panels and finds the first thing
//! that breaks its way.
//!
//! Changes nothing but a probe of its own, which is removed in the end, also when interrupted. Must not
//! know how a diagnosis is shown.

use std::time::{Duration, Instant};

use crate::core::address::{ServerUrl, bracketed};
use crate::core::diagnosis::{
    Check, CheckOutcome, CheckResult, Diagnosis, PanelAnswer, PanelContent, VariableAnswer, VariableContent,
    WriteFailure,
};
use crate::core::event::{Event, Listener};
use crate::core::observed::{Observed, Probe};
use crate::core::plan::{self, UpOptions};
use crate::core::reports::{self, Reports, SKEW, span};
use crate::core::role::Role;
use crate::core::stack::{DashboardId, EngineLocation, Stack};
use crate::core::status::{self, ObjectState, QueryState, ServerState, Status};
use crate::core::text::count;
use crate::error::{Error, Result};
use crate::systems::docker::Forward;
use crate::systems::grafana::panels::Opened;
use crate::systems::influxdb::probe::probe_question;
use crate::systems::influxdb::{Influxdb, PROBE_TIMEOUT};
use crate::systems::{Depth, Systems};

/// How long each thing that cleans up may take.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// What the user asked of `doctor`.
#[derive(Debug, Clone, Default)]
pub struct DoctorOptions {
    /// A container from whose network InfluxDB is asked, as a Clipper inside would.
    pub from: Option<String>,
}

/// Makes every check.
///
/// # Errors
/// [`Error::Interrupted`] when `stop` comes first, [`Error::Docker`] when the engine does not answer, and
/// [`Error::Absent`] when the container of `--from` does not run. What is wrong with the stack is no error.
pub async fn doctor(
    systems: &Systems,
    options: &DoctorOptions,
    listener: &dyn Listener,
    stop: impl Future<Output = ()>,
) -> Result<Diagnosis> {
    let mut examination = Examination {
        systems,
        from: options.from.as_deref(),
        id: format!("{}-{}", super::now(), std::process::id()),
        results: Vec::new(),
        helper: format!("{}-doctor-{}-{}", systems.stack().instance, super::now(), std::process::id()),
        forward: None,
        written: None,
    };
    let result = tokio::select! {
        result = examination.run() => result,
        () = stop => Err(Error::Interrupted { hint: "nothing was changed: run the same command again".into() }),
    };
    examination.clean_up(listener).await;
    result?;
    Ok(Diagnosis { instance: systems.stack().instance.clone(), results: examination.results })
}

/// Where Clipper writes, as far as it is known.
struct Target {
    url: ServerUrl,
    database: String,
    /// Clipper's file says so.
    of_file: bool,
}

impl Target {
    fn new(stack: &Stack, seen: &Observed, from: Option<&str>) -> Self {
        // Inside the instance's network, InfluxDB has its container's name and its own port.
        let inside = from.and_then(|_| stack.container(Role::Influxdb));
        match &stack.clipper {
            Some(file) => {
                let database = if file.database.is_empty() { &stack.database } else { &file.database };
                Self { url: ServerUrl::http(&file.host, file.port), database: database.clone(), of_file: true }
            }
            None => Self {
                url: inside.map_or_else(
                    || status::actual_url(stack, Role::Influxdb, &seen.influxdb),
                    |spec| ServerUrl::http(&spec.name, Role::Influxdb.port()),
                ),
                database: stack.database.clone(),
                of_file: false,
            },
        }
    }

    fn address(&self) -> String {
        format!("{}:{}", bracketed(&self.url.host), self.url.port)
    }
}

/// Checks on their way, and what must be cleaned up after them.
struct Examination<'a> {
    systems: &'a Systems,
    from: Option<&'a str>,
    /// Tells this run's probe from others.
    id: String,
    results: Vec<CheckResult>,
    /// The name of the container that `--from` starts, if it does.
    helper: String,
    forward: Option<Forward>,
    /// Where the probe may be.
    written: Option<(Influxdb, String)>,
}

impl Examination<'_> {
    async fn run(&mut self) -> Result<()> {
        let systems = self.systems;
        let stack = systems.stack();
        let started = Instant::now();
        let seen = systems.observe(Depth::Servers).await?;
        let plan = plan::up(stack, &seen, UpOptions::default());
        let status = super::summarize(systems, &seen, &plan, false).await?;
        let observing = started.elapsed();
        let target = Target::new(stack, &seen, self.from);
        let named = status::named_models(stack, &seen);

        let (settings, may_write) = clipper_settings(stack, &target, &named);
        self.note(Check::ClipperSettings, settings, Duration::ZERO);
        let is_stored = if may_write { self.follow_to_influxdb(&target, &status).await? } else { false };
        let has_database = seen.influxdb.probe.stored().is_some_and(|stored| stored.has_database);
        if has_database {
            self.timed(Check::FieldTypes, field_types(&systems.influxdb(), stack)).await;
        }
        self.note(Check::Grafana, grafana(&status, stack), observing);
        if status.grafana.state == ServerState::Answering {
            self.follow_through_grafana(&target, &status, is_stored).await;
        }
        self.note(Check::Reports, clipper_reports(&status.reports, stack, &target, &named), Duration::ZERO);
        Ok(())
    }

    fn note(&mut self, check: Check, outcome: CheckOutcome, time: Duration) {
        self.results.push(CheckResult { check, outcome, time });
    }

    async fn timed(&mut self, check: Check, asking: impl Future<Output = CheckOutcome>) -> bool {
        let started = Instant::now();
        let outcome = asking.await;
        let passed = outcome.is_passed();
        self.note(check, outcome, started.elapsed());
        passed
    }

    /// From Clipper into the database; whether a probe is stored there.
    async fn follow_to_influxdb(&mut self, target: &Target, status: &Status) -> Result<bool> {
        let stack = self.systems.stack();
        let is_far = target.url.is_loopback() && stack.container(Role::Influxdb).is_some();
        if let (EngineLocation::Elsewhere(host), true, None) = (&stack.engine, is_far, self.from) {
            let why = format!(
                "{} is the loopback of {host}: run this command there, or give a container of that engine with --from",
                target.address()
            );
            self.note(Check::Influxdb, CheckOutcome::Skipped(why), Duration::ZERO);
            return Ok(false);
        }
        let influxdb = match self.from {
            Some(container) => self.ask_from_inside(container, target).await?,
            None if target.of_file => self.systems.influxdb_at(&target.url)?,
            None => self.systems.influxdb(),
        };
        let started = Instant::now();
        let (probe, version) = influxdb.observe(&target.database, PROBE_TIMEOUT).await;
        let has_database = probe.stored().map(|stored| stored.has_database);
        let outcome = match probe {
            Probe::Answering(_) => CheckOutcome::Passed(format!(
                "version {} answers at {}",
                version.unwrap_or_default(),
                self.place(target)
            )),
            Probe::Refusing(message) => CheckOutcome::failed(
                format!("InfluxDB at {} wants a login ({message}), and Clipper sends none", target.address()),
                "turn authentication off there, or put a proxy in between that adds it",
            ),
            Probe::Unusable(what) => CheckOutcome::failed(
                format!("{} answers at {}", what.trim_end_matches(','), self.place(target)),
                self.correct_address(target, status, "run InfluxDB 1.x there"),
            ),
            Probe::Silent(why) | Probe::Starting(why) => {
                if let Some(why) = self.forward.as_ref().and_then(Forward::fault) {
                    return Err(Error::Absent {
                        what: format!("--from cannot ask from inside a container: {why}"),
                        hint: "it needs bash and sleep in InfluxDB's image, which the official one has".into(),
                    });
                }
                self.silent(target, status, &why)
            }
            Probe::Unasked => CheckOutcome::Skipped("it was not asked".into()),
        };
        self.note(Check::Influxdb, outcome, started.elapsed());
        let Some(has_database) = has_database else { return Ok(false) };
        let outcome = database(has_database, target, stack, status, &influxdb).await;
        if !self.timed(Check::Database, std::future::ready(outcome)).await {
            return Ok(false);
        }
        let started = Instant::now();
        let now = super::now();
        self.written = Some((influxdb.clone(), target.database.clone()));
        let written = influxdb.write_probe(&target.database, &self.id, now).await;
        let is_written = written.is_ok();
        let outcome = match written {
            Ok(()) => CheckOutcome::Passed("a point is accepted as Clipper writes it".into()),
            Err((failure, why)) => refused_write(failure, &why, target, stack, &influxdb).await,
        };
        self.note(Check::Write, outcome, started.elapsed());
        let mut is_stored = false;
        if is_written {
            let outcome = self.read_back(&influxdb, target, status).await;
            is_stored = self.timed(Check::ReadBack, std::future::ready(outcome)).await;
        }
        let clocks = self.clocks(&influxdb, status);
        let (started, outcome) = (Instant::now(), clocks.await);
        self.note(Check::Clocks, outcome, started.elapsed());
        Ok(is_stored)
    }

    /// InfluxDB as it is seen from inside a container's network.
    async fn ask_from_inside(&mut self, container: &str, target: &Target) -> Result<Influxdb> {
        let stack = self.systems.stack();
        let docker = self.systems.docker()?;
        let image = match stack.container(Role::Influxdb) {
            Some(spec) => docker.image(spec).await?.map(|image| image.id),
            None => None,
        };
        let image = image.ok_or_else(|| Error::Absent {
            what: "--from starts a container of this instance's InfluxDB image, and there is none on that engine"
                .into(),
            hint: "omit --from, or use it where InfluxDB is a container of clipper-metrics".into(),
        })?;
        let (host, port) = (target.url.host.as_str(), target.url.port);
        let forward = docker.forward(&stack.instance, &self.helper, &image, container, host, port).await?;
        let influxdb = self.systems.influxdb_through(Some(forward.port()), &target.url);
        self.forward = Some(forward);
        influxdb
    }

    /// The address that was asked, and from where.
    fn place(&self, target: &Target) -> String {
        match self.from {
            Some(container) => format!("{}, seen from container {container}", target.address()),
            None => target.address(),
        }
    }

    /// Nothing answers where Clipper writes.
    fn silent(&self, target: &Target, status: &Status, why: &str) -> CheckOutcome {
        let stack = self.systems.stack();
        if let Some(container) = self.from {
            let inside = self.forward.as_ref().and_then(Forward::failure).unwrap_or_else(|| why.to_string());
            let itself = if target.url.is_loopback() { ": there, that is the container itself" } else { "" };
            return CheckOutcome::failed(
                format!("nothing answers at {} in container {container} ({inside}){itself}", target.address()),
                match stack.container(Role::Influxdb) {
                    Some(spec) => format!(
                        "attach it with `docker network connect {} {container}` and set influx_ip = \"{}\", influx_port = {}",
                        stack.instance,
                        spec.name,
                        Role::Influxdb.port()
                    ),
                    None => "set influx_ip to an address that the container can reach".into(),
                },
            );
        }
        let state = match status.influxdb.state {
            ServerState::Absent => Some("is not running".to_string()),
            ServerState::Stopped => {
                let detail = status.influxdb.detail.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                Some(format!("is stopped{detail}"))
            }
            _ => None,
        };
        if let Some(state) = state {
            return CheckOutcome::failed(format!("InfluxDB {state}"), format!("`{}` starts it", stack.command("up")));
        }
        let logs = look_at(stack, Role::Influxdb);
        CheckOutcome::failed(
            format!("nothing answers at {} ({why})", self.place(target)),
            self.correct_address(target, status, &logs),
        )
    }

    /// What to do about an address of Clipper's file where the right server is not.
    fn correct_address(&self, target: &Target, status: &Status, otherwise: &str) -> String {
        let stack = self.systems.stack();
        let real = stack.url(Role::Influxdb);
        let answers = status.influxdb.state == ServerState::Answering;
        if target.of_file && answers && status.influxdb.url != target.url.to_string() {
            return format!(
                "InfluxDB answers at {}: set influx_ip and influx_port in Clipper's file to that",
                status.influxdb.url
            );
        }
        if target.of_file && target.url.to_string() != real.to_string() {
            return format!(
                "set influx_ip and influx_port in Clipper's file to {}:{}",
                bracketed(&real.host),
                real.port
            );
        }
        otherwise.into()
    }

    /// The probe is where the dashboard looks.
    async fn read_back(&self, influxdb: &Influxdb, target: &Target, status: &Status) -> CheckOutcome {
        let found = |influxdb: Influxdb| async move { influxdb.has_probe(&target.database, &self.id).await };
        let own = if status.influxdb.state == ServerState::Answering {
            found(self.systems.influxdb()).await
        } else {
            found(influxdb.clone()).await
        };
        match own {
            Ok(true) => return CheckOutcome::Passed("the point is there".into()),
            // Another InfluxDB need not have that database.
            Ok(false) | Err(Error::Answer { .. }) => {}
            Err(error) => return CheckOutcome::failed(error.to_string(), "-v shows every request"),
        }
        match found(influxdb.clone()).await {
            Ok(true) => another_influxdb(target, status),
            Ok(false) => dropped(influxdb, target).await,
            Err(error) => CheckOutcome::failed(error.to_string(), "-v shows every request"),
        }
    }

    /// This machine, InfluxDB and Grafana agree on the time.
    async fn clocks(&self, influxdb: &Influxdb, status: &Status) -> CheckOutcome {
        let here = super::now();
        let mut clocks = vec![("InfluxDB", influxdb.clock().await.ok().flatten())];
        if status.grafana.state == ServerState::Answering
            && let Ok(grafana) = self.systems.grafana().await
        {
            clocks.push(("Grafana", grafana.clock().await.ok().flatten()));
        }
        for (name, clock) in &clocks {
            let Some(clock) = clock else { continue };
            let apart = clock - here;
            if apart.abs() > SKEW {
                let (place, distance) = (if apart > 0 { "ahead of" } else { "behind" }, span(apart.abs()));
                return CheckOutcome::failed(
                    format!("{name}'s clock is {distance} {place} this machine's"),
                    "set both clocks: Clipper dates its reports, and panels ask for the time of InfluxDB and of the browser",
                );
            }
        }
        if clocks.iter().all(|(_, clock)| clock.is_none()) {
            return CheckOutcome::Skipped("no server says what time it is".into());
        }
        CheckOutcome::Passed("they agree".into())
    }

    /// From the database to the panels.
    async fn follow_through_grafana(&mut self, target: &Target, status: &Status, is_stored: bool) {
        let stack = self.systems.stack();
        let grafana = match self.systems.grafana().await {
            Ok(grafana) => grafana,
            Err(error) => {
                let outcome = CheckOutcome::failed(error.to_string(), error.hint(&stack.invocation));
                return self.note(Check::Plugin, outcome, Duration::ZERO);
            }
        };
        let plugin = async {
            match grafana.has_plugin().await {
                Ok(Some(true)) => CheckOutcome::Passed("it is there".into()),
                Ok(Some(false)) => CheckOutcome::failed(
                    "Grafana has no InfluxDB plugin, without which the data source cannot work",
                    "install it (grafana cli plugins install influxdb) and restart Grafana, or use an image that has it",
                ),
                Ok(None) => CheckOutcome::Skipped("this account may not see Grafana's plugins".into()),
                Err(error) => CheckOutcome::failed(error.to_string(), "-v shows every request"),
            }
        };
        self.timed(Check::Plugin, plugin).await;
        let is_there = !matches!(status.data_source.state, ObjectState::Missing | ObjectState::Unknown);
        self.note(Check::DataSource, data_source(status, stack), Duration::ZERO);
        let query = self.query(&grafana, target, status, is_stored && is_there);
        let (started, outcome) = (Instant::now(), query.await);
        self.note(Check::Query, outcome, started.elapsed());
        for id in stack.dashboards() {
            let (uid, title, _) = stack.dashboard_identity(id);
            self.note(Check::Dashboard, dashboard(status, stack, id), Duration::ZERO);
            match grafana.open_dashboard(uid, super::now()).await {
                Ok(Some(opened)) => self.note_dashboard(id, opened, &status.reports),
                Ok(None) => {}
                Err(error) => {
                    let why = format!("the queries of dashboard {title:?} cannot be asked: {error}");
                    let outcome = CheckOutcome::failed(why, look_at(stack, Role::Grafana));
                    self.note(Check::Dashboard, outcome, Duration::ZERO);
                }
            }
        }
    }

    async fn query(
        &self,
        grafana: &crate::systems::grafana::Grafana,
        target: &Target,
        status: &Status,
        is_askable: bool,
    ) -> CheckOutcome {
        let stack = self.systems.stack();
        if let QueryState::Failing(why) = &status.query {
            let hint = if status.data_source.state == ObjectState::InSync {
                format!(
                    "if Grafana uses other settings than it shows, `{}` saves them once more; else give the address under \
                     which Grafana's server reaches InfluxDB with --data-source-url",
                    stack.command("up")
                )
            } else {
                format!("`{}` corrects the data source", stack.command("up"))
            };
            return CheckOutcome::failed(format!("Grafana's data source does not reach the database: {why}"), hint);
        }
        if matches!(status.influxdb.state, ServerState::Absent | ServerState::Stopped) {
            return CheckOutcome::Skipped("InfluxDB does not run".into());
        }
        if !is_askable {
            return CheckOutcome::Skipped("there is no point to ask for, or nothing to ask with".into());
        }
        match grafana.finds_probe(&stack.data_source.uid, &probe_question(&self.id), super::now()).await {
            Ok(true) => CheckOutcome::Passed("the point is found through the data source".into()),
            Ok(false) => CheckOutcome::failed(
                format!(
                    "Grafana's data source reads another database than Clipper writes to ({} at {})",
                    target.database,
                    target.address()
                ),
                format!("`{}` corrects the data source", stack.command("up")),
            ),
            Err(error) => CheckOutcome::failed(
                format!("Grafana's data source does not answer: {error}"),
                look_at(stack, Role::Grafana),
            ),
        }
    }

    fn note_dashboard(&mut self, id: DashboardId, opened: Opened, reports: &Reports) {
        let stack = self.systems.stack();
        let hint = edit_hint(stack, id);
        // Where there are several, a panel is named with its dashboard.
        let of = match id {
            DashboardId::Bundled => String::new(),
            DashboardId::User(_) => format!(" of {:?}", stack.dashboard_identity(id).1),
        };
        let has_models = !reports.models.is_empty();
        for VariableAnswer { name, content, time } in opened.variables {
            let outcome = match content {
                VariableContent::Values(0) if !has_models => CheckOutcome::Skipped("no model has reported yet".into()),
                VariableContent::Unchecked(why) => CheckOutcome::Skipped(why),
                VariableContent::Values(number @ 1..) => CheckOutcome::Passed(count(number, "value")),
                VariableContent::Values(0) => {
                    CheckOutcome::failed(format!("the dashboard's variable {name}{of} finds nothing"), &hint)
                }
                VariableContent::Failed(why) => {
                    CheckOutcome::failed(format!("the dashboard's variable {name}{of} fails: {why}"), &hint)
                }
            };
            self.note(Check::Variable(name), outcome, time);
        }
        let is_blank =
            opened.panels.iter().all(|panel| matches!(panel.content, PanelContent::Empty | PanelContent::Elsewhere(_)));
        let asks = opened.panels.iter().any(|panel| panel.content == PanelContent::Empty);
        if is_blank && asks && reports.reporting == Some(true) && id == DashboardId::Bundled {
            let outcome = CheckOutcome::failed(
                "Clipper reports, and no panel shows a point in the dashboard's time range",
                "choose a time range that holds the last minutes, and save the dashboard with it",
            );
            self.note(Check::Dashboard, outcome, Duration::ZERO);
        }
        for PanelAnswer { title, content, time } in opened.panels {
            let outcome = match content {
                PanelContent::Points(points) => CheckOutcome::Passed(count(points, "point")),
                PanelContent::Empty => CheckOutcome::Passed("answers, no points in its time range".into()),
                PanelContent::Elsewhere(what) => CheckOutcome::Skipped(format!("it asks {what}")),
                PanelContent::UnknownField { field, source } => CheckOutcome::failed(
                    format!("panel {title:?}{of} asks for the field {field:?}, which no measurement of {source} has"),
                    &hint,
                ),
                PanelContent::Failed(why) => CheckOutcome::failed(format!("panel {title:?}{of} fails: {why}"), &hint),
            };
            self.note(Check::Panel(title), outcome, time);
        }
    }

    /// Leaves nothing behind.
    async fn clean_up(&mut self, listener: &dyn Listener) {
        if let Some((influxdb, database)) = self.written.take() {
            let removing = influxdb.remove_probes(&database, &self.id, super::now());
            let why = match tokio::time::timeout(CLEAN_UP_TIMEOUT, removing).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer in time".into()),
            };
            if let Some(why) = why {
                listener.on(Event::Warning(&format!(
                    "a probe may be left in database {database} ({why}); the next run removes it"
                )));
            }
        }
        if let (Some(_), Ok(docker)) = (self.from, self.systems.docker()) {
            self.forward = None;
            let removing = docker.remove_helper(&self.helper);
            if !matches!(tokio::time::timeout(CLEAN_UP_TIMEOUT, removing).await, Ok(Ok(()))) {
                let remove = self.systems.stack().invocation.docker(&format!("rm --force {}", self.helper));
                listener.on(Event::Warning(&format!(
                    "the container {} could not be removed; it ends by itself within two minutes, or remove it with `{remove}`",
                    self.helper
                )));
            }
        }
    }
}

/// What Clipper's file says can be written to at all.
/// Also whether it makes sense to try.
fn clipper_settings(stack: &Stack, target: &Target, named: &[String]) -> (CheckOutcome, bool) {
    // What the file names may be a proxy that Clipper can use.
    if let Some(why) = status::beyond_clipper(stack).filter(|_| !target.of_file) {
        let hint = "give Clipper's file with -c if it names a proxy, or omit --influxdb-url for a container";
        return (CheckOutcome::failed(why, hint), false);
    }
    if target.database != stack.database {
        let outcome = CheckOutcome::failed(
            format!("Clipper's file says database {}, but the dashboard shows {}", target.database, stack.database),
            format!("set influx_dbname in Clipper's file to {}", stack.database),
        );
        return (outcome, false);
    }
    if let Some(name) = named.iter().find(|name| reports::is_unreportable(name)) {
        let outcome = CheckOutcome::failed(
            format!("Clipper cannot write the reports of model {name:?}: InfluxDB refuses the comma in its name"),
            "rename the model in Clipper's file",
        );
        return (outcome, true);
    }
    (CheckOutcome::Passed(format!("it writes to {}, database {}", target.address(), target.database)), true)
}

async fn database(
    is_there: bool,
    target: &Target,
    stack: &Stack,
    status: &Status,
    influxdb: &Influxdb,
) -> CheckOutcome {
    if is_there {
        return CheckOutcome::Passed(format!("{} exists", target.database));
    }
    if stack.clipper.as_ref().is_some_and(|file| !file.reaches(stack)) && status.database.state == ObjectState::InSync {
        return another_influxdb(target, status);
    }
    let elsewhere = influxdb.elsewhere(&target.database).await.unwrap_or_default();
    let what = format!("there is no database {} at {}", target.database, target.address());
    if elsewhere.is_empty() {
        return CheckOutcome::failed(what, format!("`{}` creates it", stack.command("up")));
    }
    let names = elsewhere.join(", ");
    CheckOutcome::failed(
        format!("{what}; Clipper's reports are in {names}"),
        format!("set influx_dbname in Clipper's file to {}, or create it with `{}`", elsewhere[0], stack.command("up")),
    )
}

/// What to do about a write that InfluxDB refused.
async fn refused_write(
    failure: WriteFailure,
    why: &str,
    target: &Target,
    stack: &Stack,
    influxdb: &Influxdb,
) -> CheckOutcome {
    let database = &target.database;
    match failure {
        WriteFailure::NoDatabase => CheckOutcome::failed(
            format!("there is no database {database} at {}", target.address()),
            format!("`{}` creates it", stack.command("up")),
        ),
        WriteFailure::DiskFull => CheckOutcome::failed(
            "InfluxDB's disk is full, so it refuses every report",
            "free space there (docker system df), or keep reports for a shorter time with a retention policy",
        ),
        WriteFailure::TooManySeries => CheckOutcome::failed(
            format!("database {database} holds as many series as InfluxDB allows (max-series-per-database)"),
            "raise the limit in InfluxDB's configuration (0 is none), or drop series that are not needed",
        ),
        WriteFailure::BeyondRetention => retention(influxdb, target).await,
        WriteFailure::FieldType => CheckOutcome::failed(
            format!("database {database} holds a field of another type than is written: {why}"),
            "drop the measurement that InfluxDB names, with its points",
        ),
        WriteFailure::Login => CheckOutcome::failed(
            format!("InfluxDB at {} wants a login, and Clipper sends none", target.address()),
            "turn authentication off there, or put a proxy in between that adds it",
        ),
        WriteFailure::Unreachable | WriteFailure::Other => {
            CheckOutcome::failed(format!("InfluxDB refuses a point: {why}"), look_at(stack, Role::Influxdb))
        }
    }
}

/// Where to look for what a server says.
fn look_at(stack: &Stack, role: Role) -> String {
    match stack.container(role) {
        Some(_) => format!("`{}` shows what it says", stack.command(&format!("logs {role}"))),
        None => format!("check that {} runs there, its log, and the firewall between", role.title()),
    }
}

fn another_influxdb(target: &Target, status: &Status) -> CheckOutcome {
    CheckOutcome::failed(
        format!(
            "Clipper writes to another InfluxDB: the one at {} is not the one that Grafana shows, at {}",
            target.address(),
            status.influxdb.url
        ),
        "set influx_ip and influx_port in Clipper's file to the one that Grafana shows",
    )
}

/// Points of now are beyond what the default retention policy keeps.
async fn retention(influxdb: &Influxdb, target: &Target) -> CheckOutcome {
    let policy = influxdb.default_retention(&target.database).await.ok().flatten();
    let (name, duration) = policy.map_or_else(
        || ("the default one".to_string(), String::from("an unknown time")),
        |policy| (policy.name, policy.duration),
    );
    CheckOutcome::failed(
        format!(
            "the retention policy {name} of database {} keeps points for {duration} and drops what is dated now",
            target.database
        ),
        format!(
            "lengthen it (ALTER RETENTION POLICY \"{name}\" ON \"{}\" DURATION INF), and check the clocks",
            target.database
        ),
    )
}

/// InfluxDB said yes to a point and has none.
async fn dropped(influxdb: &Influxdb, target: &Target) -> CheckOutcome {
    match influxdb.default_retention(&target.database).await {
        Ok(Some(policy)) if policy.duration != "0s" => retention(influxdb, target).await,
        _ => CheckOutcome::failed(
            format!("InfluxDB at {} accepted a point and does not have it", target.address()),
            "check its log, and whether something between drops writes",
        ),
    }
}

async fn field_types(influxdb: &Influxdb, stack: &Stack) -> CheckOutcome {
    let database = &stack.database;
    match influxdb.conflicting_field(database).await {
        Ok((Some((measurement, field, kind)), _)) => CheckOutcome::failed(
            format!(
                "the field {field:?} of {measurement} is of type {kind}, so InfluxDB refuses Clipper's numbers (field type \
                 conflict)"
            ),
            format!("drop the measurement with its points: DROP MEASUREMENT \"{measurement}\" in database {database}"),
        ),
        Ok((None, true)) => CheckOutcome::Passed("numbers, as Clipper writes them".into()),
        Ok((None, false)) => CheckOutcome::Passed("there are none yet".into()),
        Err(error) => CheckOutcome::failed(error.to_string(), "-v shows every request"),
    }
}

fn grafana(status: &Status, stack: &Stack) -> CheckOutcome {
    let server = &status.grafana;
    let detail = server.detail.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let obstacle = || status.obstacle.as_ref().map(|(_, hint)| hint.clone());
    match server.state {
        ServerState::Answering => CheckOutcome::Passed(format!(
            "version {} answers at {}",
            server.version.as_deref().unwrap_or("unknown"),
            server.url
        )),
        ServerState::Absent | ServerState::Stopped => CheckOutcome::failed(
            format!("Grafana is not running{detail}"),
            format!("`{}` starts it", stack.command("up")),
        ),
        ServerState::Refusing => {
            let error = Error::Refused {
                role: Role::Grafana,
                url: server.url.clone(),
                message: server.detail.clone().unwrap_or_default(),
            };
            CheckOutcome::failed(error.to_string(), error.hint(&stack.invocation))
        }
        ServerState::Foreign => CheckOutcome::failed(
            format!("what answers in Grafana's place cannot be used{detail}"),
            obstacle().unwrap_or_else(|| "choose another address".into()),
        ),
        ServerState::Starting | ServerState::Unknown => CheckOutcome::failed(
            format!("Grafana does not answer at {}{detail}", server.url),
            look_at(stack, Role::Grafana),
        ),
    }
}

fn data_source(status: &Status, stack: &Stack) -> CheckOutcome {
    let name = &stack.data_source.name;
    let up = || format!("`{}` corrects it", stack.command("up"));
    match status.data_source.state {
        ObjectState::InSync | ObjectState::Edited => CheckOutcome::Passed(format!("{name:?} is as it must be")),
        ObjectState::Missing => CheckOutcome::failed(
            format!("Grafana has no data source {name:?}"),
            format!("`{}` creates it", stack.command("up")),
        ),
        ObjectState::Differs => {
            let differences: Vec<String> = status.data_source.differences.iter().map(ToString::to_string).collect();
            CheckOutcome::failed(format!("Grafana's data source {name:?} differs: {}", differences.join(", ")), up())
        }
        ObjectState::Foreign | ObjectState::Unknown => match &status.obstacle {
            Some((why, hint)) => CheckOutcome::failed(why.clone(), hint.clone()),
            None => CheckOutcome::Skipped("it could not be looked at".into()),
        },
    }
}

fn dashboard(status: &Status, stack: &Stack, id: DashboardId) -> CheckOutcome {
    let (_, title, _) = stack.dashboard_identity(id);
    let state = match id {
        DashboardId::Bundled => status.dashboard.state,
        DashboardId::User(index) => status.user_dashboards[index].object.state,
    };
    match state {
        ObjectState::InSync => CheckOutcome::Passed(format!("{title:?} is there")),
        ObjectState::Edited => CheckOutcome::Passed(format!("{title:?} is there, edited by somebody")),
        ObjectState::Differs => CheckOutcome::Passed(format!(
            "{title:?} is there, of another edition; `{}` brings the newest",
            stack.command("up")
        )),
        ObjectState::Missing => CheckOutcome::failed(
            format!("Grafana has no dashboard {title:?}"),
            format!("`{}` imports it", stack.command("up")),
        ),
        ObjectState::Foreign | ObjectState::Unknown => match &status.obstacle {
            Some((why, hint)) => CheckOutcome::failed(why.clone(), hint.clone()),
            None => CheckOutcome::Skipped("it could not be looked at".into()),
        },
    }
}

fn edit_hint(stack: &Stack, id: DashboardId) -> String {
    match id {
        DashboardId::Bundled => format!(
            "correct it in Grafana, or restore the whole dashboard with `{}`",
            stack.command("up --overwrite-dashboard")
        ),
        DashboardId::User(index) => format!(
            "correct it in {} and import it with `{}`, or in Grafana",
            stack.user_dashboards[index].path,
            stack.command("up --overwrite-dashboard")
        ),
    }
}

/// What Clipper itself has sent; where only its reports are missing, everything else works.
fn clipper_reports(reports: &Reports, stack: &Stack, target: &Target, named: &[String]) -> CheckOutcome {
    let check_clipper = || {
        format!(
            "check that Clipper runs and writes to {}; if it runs in a container: `{}`",
            target.address(),
            stack.command("doctor --from CONTAINER")
        )
    };
    let ago = |at: i64| span(reports.at - at);
    match (reports.reporting, reports.last_report) {
        (None, _) => CheckOutcome::Skipped("InfluxDB could not be asked".into()),
        (Some(_), Some(at)) if at > reports.at + SKEW => CheckOutcome::failed(
            format!("Clipper's newest report is dated {} in the future", span(at - reports.at)),
            "set the clock of Clipper's machine",
        ),
        (Some(true), Some(at)) => match reports::never_reported(&reports.models, named) {
            missing if missing.is_empty() => {
                let is_named = |model: &str| named.iter().any(|name| reports::written_name(name) == model);
                let silent = reports.models.iter().find(|model| !model.reporting && is_named(&model.name));
                if let Some(silent) = silent {
                    let since = silent.last_report.map(|at| format!(" for {}", ago(at))).unwrap_or_default();
                    return CheckOutcome::failed(
                        format!("model {} has not reported{since}, and others do", silent.name),
                        "check that its container runs and that Clipper's file has its address",
                    );
                }
                let reporting = reports.models.iter().filter(|model| model.reporting).count();
                CheckOutcome::Passed(format!("of {}, the newest {} ago", count(reporting, "model"), ago(at)))
            }
            missing => CheckOutcome::failed(
                format!("Clipper's file names models that have never reported: {}", missing.join(", ")),
                "check that their containers run and that Clipper's file has their addresses",
            ),
        },
        (Some(_), Some(at)) => {
            CheckOutcome::failed(format!("Clipper reported {} ago and not since", ago(at)), check_clipper())
        }
        // Where a file says that there is a Clipper, demo data does not stand in for it.
        (Some(_), None) if reports.demo && !target.of_file => CheckOutcome::Passed("demo data only".into()),
        (Some(_), None) => match reports.elsewhere.first() {
            Some(other) => CheckOutcome::failed(
                format!("database {} holds no reports, but {} does", stack.database, reports.elsewhere.join(", ")),
                format!("set influx_dbname in Clipper's file to {}, or give --database {other}", stack.database),
            ),
            None => CheckOutcome::failed(
                format!("Clipper has never reported to database {}", stack.database),
                check_clipper(),
            ),
        },
    }
}
