//! `doctor`: traces a data point from Clipper to the dashboard and reports the first failure.
//!
//! It writes one probe and removes it at the end, even after an interruption.

mod grafana;
mod influxdb;

use std::time::{Duration, Instant};

use clap::Args;

use super::context::Context;
use super::session::{self, Access};
use super::terminal::{interrupted, unless_interrupted};
use crate::engine::Forward;
use crate::error::{Error, Exit, Result};
use crate::influxdb::Influxdb;
use crate::model::address::{ServerUrl, bracketed, unbracketed};
use crate::model::clipper_file::{self, ClipperTarget};
use crate::model::diagnosis::{Check, CheckOutcome, CheckResult, Diagnosis};
use crate::model::event::{Event, Listener};
use crate::model::observed::{Observed, ServerResponse};
use crate::model::plan::{self, UpOptions};
use crate::model::reports::{self, Reports, SKEW, span};
use crate::model::results::Document;
use crate::model::role::Role;
use crate::model::server_status::{ServerState, actual_url};
use crate::model::stack::Stack;
use crate::model::status::named_models;
use crate::model::text::count;
use crate::output::Output;
use crate::reconcile::{Connections, Depth, Session};

const CLIPPER_SETTINGS: Check = Check::new("clipper_settings", "Clipper's settings");
const REPORTS: Check = Check::new("reports", "Clipper's reports");

/// The deadline of each step of the clean-up.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Default, Args)]
pub(crate) struct DoctorArguments {
    /// Run the InfluxDB checks from inside this container's network
    #[arg(long, value_name = "CONTAINER")]
    pub(crate) from: Option<String>,
}

pub(crate) async fn run(context: &Context<'_>, arguments: &DoctorArguments) -> Result<Exit> {
    let session = unless_interrupted(session::open(context, Access::ReadOnly)).await?;
    let diagnosis = doctor(&session, arguments.from.as_deref(), interrupted()).await?;
    context.print(Output::Result(Document::Diagnosed(&diagnosis)))?;
    Ok(if diagnosis.healthy { Exit::Done } else { Exit::Differs })
}

/// Makes every check.
///
/// # Errors
/// [`Error::Interrupted`] if `stop` completes first, [`Error::Docker`] if the engine does not answer,
/// [`Error::Absent`] if the container of `--from` is not running, and [`Error::Blocked`] if required settings are lost.
/// Other faults of the stack are findings.
async fn doctor(session: &Session, from: Option<&str>, stop: impl Future<Output = ()>) -> Result<Diagnosis> {
    crate::reconcile::expect_known_settings(session.stack())?;
    let mut examination = Examination {
        session,
        connections: session.connect(),
        from,
        id: format!("{}-{}", crate::clock::now(), std::process::id()),
        results: Vec::new(),
        helper: format!("{}-doctor-{}-{}", session.stack().instance, crate::clock::now(), std::process::id()),
        forward: None,
        written: None,
    };
    let result = tokio::select! {
        result = examination.run(session.listener()) => result,
        () = stop => Err(Error::Interrupted { hint: "nothing was changed: run the same command again".into() }),
    };
    examination.clean_up(session.listener()).await;
    result?;
    Ok(Diagnosis::new(session.stack().instance.clone(), examination.results))
}

/// Where Clipper writes, as far as that is known.
struct WriteTarget {
    url: ServerUrl,
    database: String,
    /// Clipper's file names it.
    from_file: bool,
    /// The address in Clipper's file, if it names InfluxDB's container, which only other containers can resolve.
    inside: Option<String>,
}

impl WriteTarget {
    fn new(stack: &Stack, seen: &Observed, from: Option<&str>) -> Self {
        // Inside the instance's network, InfluxDB is reached by its container's name and its own port.
        let inside = from.and_then(|_| stack.container(Role::Influxdb));
        match &stack.clipper {
            Some(file) => {
                let database = if file.database.is_empty() { &stack.database } else { &file.database }.clone();
                let url = ServerUrl::http(unbracketed(&file.host), file.port);
                if from.is_none() && file.names_container(stack) && file.reaches(stack) {
                    let inside = Some(format!("{}:{}", file.host, file.port));
                    let url = actual_url(stack, Role::Influxdb, &seen.influxdb);
                    return Self { url, database, from_file: false, inside };
                }
                Self { url, database, from_file: true, inside: None }
            }
            None => Self {
                inside: None,
                url: inside.map_or_else(
                    || actual_url(stack, Role::Influxdb, &seen.influxdb),
                    |spec| ServerUrl::http(&spec.name, Role::Influxdb.port()),
                ),
                database: stack.database.clone(),
                from_file: false,
            },
        }
    }

    fn address(&self) -> String {
        format!("{}:{}", bracketed(&self.url.host), self.url.port)
    }
}

/// The checks in progress, and the objects that must be removed afterwards.
struct Examination<'a> {
    session: &'a Session,
    connections: Connections,
    from: Option<&'a str>,
    /// Distinguishes the probe of this run.
    id: String,
    results: Vec<CheckResult>,
    /// The name of the container that `--from` starts.
    helper: String,
    forward: Option<Forward>,
    /// The server and database that may contain the probe.
    written: Option<(Influxdb, String)>,
}

impl Examination<'_> {
    async fn run(&mut self, listener: &dyn Listener) -> Result<()> {
        let session = self.session;
        let stack = session.stack();
        let started = Instant::now();
        let seen = session.observe(&mut self.connections, Depth::Servers).await?;
        crate::reconcile::expect_restored(stack, &seen)?;
        let plan = plan::up(stack, &seen, UpOptions::default());
        let status = crate::reconcile::summarize(session, &self.connections, &seen, &plan, false).await?;
        let observing = started.elapsed();
        status.exposures.iter().for_each(|warning| listener.on(Event::Warning(warning)));
        let target = WriteTarget::new(stack, &seen, self.from);
        let named = named_models(stack, &seen);

        let (settings, may_write) = clipper_settings(stack, &target, &named);
        self.note(CLIPPER_SETTINGS, settings, Duration::ZERO);
        let is_other =
            seen.influxdb.response == ServerResponse::NotTheContainer && !target.from_file && self.from.is_none();
        if is_other {
            let blocker = plan::not_the_container(stack, Role::Influxdb, &target.url.to_string());
            self.note(influxdb::INFLUXDB, CheckOutcome::failed(blocker.why, blocker.hint), Duration::ZERO);
        }
        let is_stored = may_write && !is_other && self.follow_to_influxdb(&target, &status).await?;
        let has_database = seen.influxdb_state().is_some_and(|stored| stored.has_database);
        if has_database {
            let influxdb = session.influxdb(&self.connections.influxdb);
            self.timed(influxdb::FIELD_TYPES, influxdb::field_types(&influxdb, stack)).await;
        }
        self.note(grafana::GRAFANA, grafana::grafana(&status, &plan, stack), observing);
        if status.servers.grafana.state == ServerState::Answering && seen.has_organisation() {
            self.follow_through_grafana(&target, &status, is_stored).await;
        }
        self.note(REPORTS, clipper_reports(&status.reports, stack, &target, &named), Duration::ZERO);
        Ok(())
    }

    fn note(&mut self, check: Check, outcome: CheckOutcome, time: Duration) {
        self.results.push(CheckResult::new(check, outcome, time));
    }

    async fn timed(&mut self, check: Check, asking: impl Future<Output = CheckOutcome>) -> bool {
        let started = Instant::now();
        let outcome = asking.await;
        let passed = outcome.is_passed();
        self.note(check, outcome, started.elapsed());
        passed
    }

    /// Removes the probe, which may be reached only as long as the container of `--from` lives.
    async fn remove_probe(&mut self) {
        let Some((influxdb, database)) = &self.written else { return };
        let removing = influxdb.remove_probes(database, &self.id, crate::clock::now());
        let why = match tokio::time::timeout(CLEAN_UP_TIMEOUT, removing).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".into()),
        };
        if let Some(why) = why {
            let remains = format!("a probe may remain in database {database} ({why}); the next run removes it");
            self.session.listener().on(Event::Warning(&remains));
        }
        self.written = None;
    }

    /// Removes the probe and the container.
    async fn clean_up(&mut self, listener: &dyn Listener) {
        self.remove_probe().await;
        if let (Some(_), Ok(docker)) = (self.from, self.session.docker()) {
            self.forward = None;
            let removing = async {
                docker.finish_changes().await;
                docker.remove_helper(&self.helper).await
            };
            if !matches!(tokio::time::timeout(CLEAN_UP_TIMEOUT, removing).await, Ok(Ok(()))) {
                let remove = self.session.stack().invocation.docker(&format!("rm --force {}", self.helper));
                listener.on(Event::Warning(&format!(
                    "the container {} may remain: remove it with `{remove}`; if it runs, it stops by itself within two minutes",
                    self.helper
                )));
            }
        }
    }
}

/// Checks where Clipper's file leads, and whether a write there makes sense.
fn clipper_settings(stack: &Stack, target: &WriteTarget, named: &[String]) -> (CheckOutcome, bool) {
    // The address in the file may be a proxy that Clipper can use.
    if let Some(why) = clipper_file::beyond_clipper(stack).filter(|_| !target.from_file) {
        let hint = "pass Clipper's file with -c if it names a proxy, or omit --influxdb-url to use a container";
        return (CheckOutcome::failed(why, hint), false);
    }
    if let Some(host) = stack.clipper.as_ref().and_then(ClipperTarget::unusable_host) {
        let outcome = CheckOutcome::failed(
            format!("Clipper cannot use influx_ip = {host:?}, because it inserts the host into a URL"),
            format!("set influx_ip in Clipper's file to {:?}", bracketed(host)),
        );
        return (outcome, target.database == stack.database);
    }
    if target.database != stack.database {
        let outcome = CheckOutcome::failed(
            format!("Clipper's file names database {}, but the dashboard shows {}", target.database, stack.database),
            format!("set influx_dbname in Clipper's file to {}", stack.database),
        );
        return (outcome, false);
    }
    if let Some(name) = named.iter().find(|name| reports::is_unreportable(name)) {
        let outcome = CheckOutcome::failed(
            format!("Clipper cannot write the reports of model {name:?}: InfluxDB rejects the comma in its name"),
            "rename the model in Clipper's file",
        );
        return (outcome, true);
    }
    let place = match &target.inside {
        Some(inside) => format!("{inside}, which this machine reaches at {}", target.address()),
        None => target.address(),
    };
    (CheckOutcome::Passed(format!("Clipper writes to {place}, database {}", target.database)), true)
}

/// The hint that leads to a server's log.
fn log_hint(stack: &Stack, role: Role) -> String {
    match stack.container(role) {
        Some(_) => format!("check its log with `{}`", stack.command(&format!("logs {role}"))),
        None => format!("check that {} is running there, its log, and the firewall in between", role.title()),
    }
}

/// Checks the reports that Clipper has sent.
fn clipper_reports(reports: &Reports, stack: &Stack, target: &WriteTarget, named: &[String]) -> CheckOutcome {
    let check_clipper = || {
        format!(
            "check that Clipper is running and writes to {}; if it runs in a container: `{}`",
            target.inside.clone().unwrap_or_else(|| target.address()),
            stack.command("doctor --from CONTAINER")
        )
    };
    let ago = |at: i64| span(reports.at - at);
    match (reports.reporting, reports.last_report) {
        (None, _) => CheckOutcome::Skipped("InfluxDB could not be queried".into()),
        (Some(_), Some(at)) if at > reports.at + SKEW => CheckOutcome::failed(
            format!("Clipper's newest report is dated {} in the future", span(at - reports.at)),
            "set the clocks of Clipper's host and of this machine",
        ),
        (Some(true), Some(at)) => match reports::never_reported(&reports.models, named) {
            missing if missing.is_empty() => {
                let is_named = |model: &str| named.iter().any(|name| reports::written_name(name) == model);
                let silent = reports.models.iter().find(|model| !model.reporting && is_named(&model.name));
                if let Some(silent) = silent {
                    let since = silent.last_report.map(|at| format!(" for {}", ago(at))).unwrap_or_default();
                    return CheckOutcome::failed(
                        format!("model {} has not reported{since}, but others have", silent.name),
                        "check that its container is running and that Clipper's file contains its address",
                    );
                }
                let reporting = reports.models.iter().filter(|model| model.reporting).count();
                CheckOutcome::Passed(format!(
                    "{} reporting, the newest report {} ago",
                    count(reporting, "model"),
                    ago(at)
                ))
            }
            missing => CheckOutcome::failed(
                format!("Clipper's file names models that have never reported: {}", missing.join(", ")),
                "check that their containers are running and that Clipper's file contains their addresses",
            ),
        },
        (Some(_), Some(at)) => {
            CheckOutcome::failed(format!("Clipper's last report was {} ago", ago(at)), check_clipper())
        }
        // If a file describes a Clipper, demo data does not replace its reports.
        (Some(_), None) if reports.demo && stack.clipper.is_none() => CheckOutcome::Passed("demo data only".into()),
        (Some(_), None) => match reports.elsewhere.first() {
            Some(other) => CheckOutcome::failed(
                format!("database {} contains no reports, but {} does", stack.database, reports.elsewhere.join(", ")),
                format!("set influx_dbname in Clipper's file to {}, or use --database {other}", stack.database),
            ),
            None => CheckOutcome::failed(
                format!("Clipper has never reported to database {}", stack.database),
                check_clipper(),
            ),
        },
    }
}
