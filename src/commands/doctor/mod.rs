//! `doctor`: why a graph is empty. Follows a number from Clipper to the panels and finds the first thing
//! that breaks its way.
//!
//! Changes nothing but a probe of its own, which is removed in the end, also when interrupted. Must not
//! know how a diagnosis is shown.

mod grafana;
mod influxdb;

use std::time::{Duration, Instant};

use clap::Args;

use super::Context;
use super::session::{Purpose, Session};
use super::terminal::{interrupted, unless_interrupted};
use crate::engine::Forward;
use crate::error::{Error, Exit, Result};
use crate::influxdb::Influxdb;
use crate::model::address::{ServerUrl, bracketed};
use crate::model::diagnosis::{Check, CheckOutcome, CheckResult, Diagnosis};
use crate::model::event::{Event, Listener};
use crate::model::observed::{Observed, Probe};
use crate::model::plan::{self, UpOptions};
use crate::model::reports::{self, Reports, SKEW, span};
use crate::model::role::Role;
use crate::model::stack::Stack;
use crate::model::status::{self, ServerState};
use crate::model::text::count;
use crate::output::Output;
use crate::reconcile::{Depth, Systems};

/// How long each thing that cleans up may take.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Options of `doctor`.
#[derive(Debug, Default, Args)]
pub struct Doctor {
    /// Run the InfluxDB checks from inside this container's network
    #[arg(long, value_name = "CONTAINER")]
    pub from: Option<String>,
}

/// Runs `doctor`.
pub(crate) async fn run(context: &Context<'_>, verb: &Doctor) -> Result<Exit> {
    let session = unless_interrupted(Session::open(context, Purpose::Whole, false)).await?;
    let listener = session.listener.as_ref();
    let diagnosis = doctor(&session.systems, verb.from.as_deref(), listener, interrupted()).await?;
    let _ = context.report.answer(&Output::Diagnosed(&diagnosis));
    Ok(if diagnosis.culprit().is_none() { Exit::Done } else { Exit::Differs })
}

/// Makes every check.
///
/// # Errors
/// [`Error::Interrupted`] when `stop` comes first, [`Error::Docker`] when the engine does not answer, and
/// [`Error::Absent`] when the container of `--from` does not run, and [`Error::Blocked`] when settings that it needs
/// are lost. What else is wrong with the stack is no error.
pub(super) async fn doctor(
    systems: &Systems,
    from: Option<&str>,
    listener: &dyn Listener,
    stop: impl Future<Output = ()>,
) -> Result<Diagnosis> {
    crate::reconcile::expect_known_settings(systems.stack())?;
    let mut examination = Examination {
        systems,
        from,
        id: format!("{}-{}", crate::reconcile::now(), std::process::id()),
        results: Vec::new(),
        helper: format!("{}-doctor-{}-{}", systems.stack().instance, crate::reconcile::now(), std::process::id()),
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
        crate::reconcile::expect_restored(stack, &seen)?;
        let plan = plan::up(stack, &seen, UpOptions::default());
        let status = crate::reconcile::summarize(systems, &seen, &plan, false).await?;
        let observing = started.elapsed();
        let target = Target::new(stack, &seen, self.from);
        let named = status::named_models(stack, &seen);

        let (settings, may_write) = clipper_settings(stack, &target, &named);
        self.note(Check::ClipperSettings, settings, Duration::ZERO);
        let is_other = seen.influxdb.probe == Probe::NotTheContainer && !target.of_file && self.from.is_none();
        if is_other {
            let blocked = plan::not_the_container(stack, Role::Influxdb, &target.url.to_string());
            self.note(Check::Influxdb, CheckOutcome::failed(blocked.why, blocked.hint), Duration::ZERO);
        }
        let is_stored = may_write && !is_other && self.follow_to_influxdb(&target, &status).await?;
        let has_database = seen.influxdb.probe.stored().is_some_and(|stored| stored.has_database);
        if has_database {
            self.timed(Check::FieldTypes, influxdb::field_types(&systems.influxdb(), stack)).await;
        }
        self.note(Check::Grafana, grafana::grafana(&status, stack), observing);
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

    /// Leaves nothing behind.
    async fn clean_up(&mut self, listener: &dyn Listener) {
        if let Some((influxdb, database)) = self.written.take() {
            let removing = influxdb.remove_probes(&database, &self.id, crate::reconcile::now());
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

/// Where to look for what a server says.
fn look_at(stack: &Stack, role: Role) -> String {
    match stack.container(role) {
        Some(_) => format!("`{}` shows what it says", stack.command(&format!("logs {role}"))),
        None => format!("check that {} runs there, its log, and the firewall between", role.title()),
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
