//! The commands up, down and status: observe, plan, apply, and observe again.

use std::fmt;
use std::time::{Duration, Instant};

use super::apply::FailedStep;
use super::connection::{Connection, Connections};
use super::exposure::exposures;
use super::{Depth, Session};
use crate::backoff::pause;
use crate::clock::now;
use crate::engine::address_of_this_machine;
use crate::error::{Again, Error, Refusal, Result};
use crate::model::container_config::PasswordSource;
use crate::model::event::{Event, ExecutedStep, Listener};
use crate::model::observed::{Observed, RunState, ServerResponse, SignedInAccount, Unreadable};
use crate::model::plan::{self, Finding, Phase, Plan, Resource, Step, UpOptions};
use crate::model::reports::{self, Reports};
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::stack::Stack;
use crate::model::status::{self, AccountStatus, Status};
use crate::model::upgrade::UpgradeState;

/// The number of plans made because another process changed the engine meanwhile.
const MAX_ATTEMPTS: usize = 6;
/// The number of plans that only reveal the facts for the next one.
const MAX_PREPARATIONS: usize = 12;

/// The result of a command that changes an instance.
#[derive(Debug)]
pub struct Outcome {
    /// The executed steps.
    pub executed: Vec<ExecutedStep>,
    /// The status afterwards.
    pub status: Status,
}

/// Options of `down`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DownOptions {
    /// Delete the volumes, with all data and settings.
    pub volumes: bool,
    /// Remove this instance's objects from an external Grafana.
    pub deregister: bool,
}

/// Brings the stack up and verifies it. `confirm` is called with a description before data is
/// deleted. If a new image of Grafana fails, the previous one is restored with its database.
///
/// # Errors
/// [`Error::Blocked`] if the user has to act first, [`Error::NotConverged`] if a difference
/// remains, [`Error::UpgradeUndone`] if the new image failed, otherwise the error of a step.
pub async fn up(session: &Session, options: UpOptions, confirm: impl AsyncFn(&str) -> Result<()>) -> Result<Outcome> {
    begin(session.stack(), options, session.listener())?;
    match Box::pin(converge(session, options, &confirm)).await {
        Err(failure) => Err(Box::pin(undo_upgrade(session, failure, &confirm)).await),
        Ok(outcome) => Ok(outcome),
    }
}

/// The end of a run that did not converge.
#[derive(Debug)]
pub(super) struct Failure {
    /// The step that failed; `None` if the plan was blocked, or no step was.
    pub(super) step: Option<Step>,
    /// Its error.
    pub(super) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { step: None, error }
    }
}

/// Rejects invalid options and prints warnings.
fn begin(stack: &Stack, options: UpOptions, listener: &dyn Listener) -> Result<()> {
    check_reset(stack, options)?;
    warn_about_open_access(stack, listener);
    for hint in status::unreadable_dashboards(stack).into_iter().chain(status::refused_image(stack)) {
        listener.on(Event::Warning(&hint));
    }
    Ok(())
}

/// Rolls back to the previous image if another one is being tried, and returns the error to report.
async fn undo_upgrade(session: &Session, failure: Failure, confirm: &impl AsyncFn(&str) -> Result<()>) -> Error {
    let refused = session.refuse_upgrade(&failure).await;
    let error = failure.error;
    let (before, upgrade) = match refused {
        Ok(Some(refused)) => refused,
        Ok(None) => return error,
        Err(other) => {
            session.listener().on(Event::Warning(&format!("the previous image could not be restored: {other}")));
            return error;
        }
    };
    let (from, to) = (upgrade.from.name.to_string(), upgrade.to.name.to_string());
    session.listener().on(Event::Warning(&format!("{to} failed; rolling back to {from} and its database")));
    // On the heap, because nested plans need more stack than some systems provide.
    let undone = Box::pin(converge(&before, UpOptions::default(), confirm));
    let undone = undone.await.map(drop).map_err(|failure| Box::new(failure.error));
    // The settings were saved before the image was tried; repeating its option would try it again.
    let saved = session.stack().invocation.saved();
    let rest = saved.command("up");
    let again = if upgrade.state == UpgradeState::Postponed {
        Again::Automatic(rest.clone())
    } else {
        Again::Named(saved.command(&format!("up --grafana-image {to}")))
    };
    Error::UpgradeUndone { from, to, source: Box::new(error), undone, again, rest }
}

async fn converge(
    session: &Session,
    options: UpOptions,
    confirm: &impl AsyncFn(&str) -> Result<()>,
) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let mut options = options;
    let mut confirmed: Vec<Question> = Vec::new();
    let mut executed: Vec<ExecutedStep> = Vec::new();
    let mut retries = Retries::new(session.listener());
    let mut preparations = 0;
    let mut waiting: Option<Instant> = None;
    let mut connections = session.connect();
    loop {
        let seen = session.observe(&mut connections, Depth::Servers).await?;
        let plan = plan::up(session.stack(), &seen, options);
        if let Some((resource, blocked)) = plan.blocked() {
            let blocked = Error::Blocked { resource, blocked: blocked.clone() };
            if let Some(plan) = plan::withdraw(&seen).filter(|_| has_only_created(&executed))
                && let Err(FailedStep { error, .. }) = session.apply(&plan, &mut connections, &mut executed).await
            {
                session
                    .listener()
                    .on(Event::Warning(&format!("Grafana's container, which was not started, remains: {error}")));
            }
            return Err(blocked.into());
        }
        if plan.in_sync() {
            status::kept(&plan).for_each(|kept| session.listener().on(Event::Warning(&kept)));
            let starts = executed.iter().any(|done| matches!(done.step, Step::StartContainer(_)));
            if let Some(warning) = status::exposed_loopback(session.stack(), &seen).filter(|_| starts) {
                session.listener().on(Event::Warning(&warning));
            }
            let status = summarize(session, &mut connections, &seen, &plan, false).await?;
            return Ok(Outcome { executed, status });
        }
        if let (Some(unreadable), true) = (plan.unreadable(), plan.is_idle()) {
            retries.after(not_read(session.stack(), unreadable)).await?;
            continue;
        }
        for question in questions(session.stack(), &seen, &plan) {
            if !confirmed.iter().any(|answered| answered.covers(&question)) {
                confirm(&question.to_string()).await?;
                confirmed.push(question);
            }
        }
        for role in starting(&plan, &seen) {
            if !executed.iter().any(|done| done.step == Step::StartContainer(role)) {
                session.warn_about_ipv6(role).await;
            }
        }
        match session.apply(&plan, &mut connections, &mut executed).await {
            Ok(()) => {
                options = options.after(&plan);
                if plan.only_waits() {
                    // The server answers, but not every request.
                    if waiting.get_or_insert_with(Instant::now).elapsed() >= session.stack().timeout {
                        let step = plan.executable().find(|step| matches!(step, Step::AwaitAnswer(_))).cloned();
                        return Err(Failure { step, error: not_converged(session.stack(), &plan, started) });
                    }
                    pause(&mut retries.backoff).await;
                    continue;
                }
                waiting = None;
                preparations += 1;
                if plan.until() == Phase::End || preparations > MAX_PREPARATIONS {
                    retries.spend(not_converged(session.stack(), &plan, started))?;
                }
            }
            Err(FailedStep { step, error }) => {
                retries.after(error).await.map_err(|error| Failure { step: Some(step), error })?;
            }
        }
    }
}

/// Whether this run has created Grafana's container and not started it.
fn has_only_created(executed: &[ExecutedStep]) -> bool {
    let creates = |step: &Step| matches!(step, Step::CreateContainer(new) if new.role == Role::Grafana);
    let starts = |step: &Step| *step == Step::StartContainer(Role::Grafana);
    executed.iter().rev().map(|done| &done.step).find(|step| creates(step) || starts(step)).is_some_and(creates)
}

/// The roles whose containers do not run and are started by a plan.
fn starting(plan: &Plan, seen: &Observed) -> Vec<Role> {
    let runs = |role: Role| {
        let container = match role {
            Role::Influxdb => &seen.influxdb.container,
            Role::Grafana => &seen.grafana.container,
        };
        container.ours().is_some_and(|actual| actual.run == RunState::Running)
    };
    let starts = |role: Role| plan.executable().any(|step| *step == Step::StartContainer(role));
    Role::ALL.into_iter().filter(move |role| starts(*role) && !runs(*role)).collect()
}

/// The error after all possible steps, if Grafana failed to return a resource.
fn not_read(stack: &Stack, unreadable: &Unreadable) -> Error {
    let Unreadable { doing, status, why } = unreadable.clone();
    Error::Answer { doing, url: stack.url(Role::Grafana).to_string(), status, why }
}

/// A confirmation that `up` requests before it deletes data.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    /// A shorter retention period deletes data.
    Retention { database: String, from: Option<Retention>, to: Retention },
    /// Grafana's database from before this upgrade replaces the current one.
    Restore { tried: String },
}

impl Question {
    /// Whether confirming this question confirms the other, too.
    fn covers(&self, other: &Self) -> bool {
        let is_open = |question: &Self| matches!(question, Self::Retention { from: None, .. });
        self == other || (is_open(self) && matches!(other, Self::Retention { .. }))
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retention { database, from: Some(from), to } => {
                write!(f, "changing the retention period of database {database} ({from}) to {to} deletes older data")
            }
            Self::Retention { database, from: None, to } => {
                write!(
                    f,
                    "changing the retention period of database {database} (unknown) to {to} may delete older data"
                )
            }
            Self::Restore { tried } => write!(
                f,
                "restoring the database that precedes the upgrade to {tried} loses all data stored in Grafana \
                 since then"
            ),
        }
    }
}

/// The confirmations needed before a plan is executed. A database that was copied just now is
/// restored without one.
fn questions(stack: &Stack, seen: &Observed, plan: &Plan) -> Vec<Question> {
    let retention = plan::shortened_retention(stack, plan).map(|from| Question::Retention {
        database: stack.database.clone(),
        from,
        to: stack.retention.unwrap_or(Retention::Forever),
    });
    let upgrade = seen.settings.upgrade.as_ref().filter(|_| plan.restores());
    let upgrade = upgrade.filter(|upgrade| !upgrade.is_recent(seen.time, stack.timeout));
    let restore = upgrade.map(|upgrade| Question::Restore { tried: upgrade.to.name.to_string() });
    retention.into_iter().chain(restore).collect()
}

/// Grafana's command resets the password of its first administrator, whatever account signs in.
fn check_reset(stack: &Stack, options: UpOptions) -> Result<()> {
    if !options.reset_password || (stack.login.is_admin() && stack.container(Role::Grafana).is_some()) {
        return Ok(());
    }
    Err(Error::usage(
        "--reset-grafana-password sets the password of admin, in a managed container only",
        "omit --grafana-user, the token and --grafana-url (--grafana-user '' removes a remembered one)",
    ))
}

/// Decides whether to plan again.
struct Retries<'a> {
    listener: &'a dyn Listener,
    left: usize,
    backoff: Duration,
    refused: bool,
}

impl<'a> Retries<'a> {
    const fn new(listener: &'a dyn Listener) -> Self {
        Self { listener, left: MAX_ATTEMPTS, backoff: Duration::from_millis(50), refused: false }
    }

    /// Uses up one attempt; returns the error if none is left.
    fn spend(&mut self, error: Error) -> Result<()> {
        self.left -= 1;
        if self.left == 0 { Err(error) } else { Ok(()) }
    }

    /// Continues after a race, and after one rejected login: an interrupted run may have left
    /// another password in the volume. A rejected login is not tried again.
    async fn after(&mut self, error: Error) -> Result<()> {
        let is_login = matches!(error, Error::Refused { role: Role::Grafana, .. });
        if is_race(&error) {
            self.listener.on(Event::Note(&format!("{error}; retrying")));
            pause(&mut self.backoff).await;
        } else if is_login && !self.refused {
            self.refused = true;
        } else {
            return Err(error);
        }
        self.spend(error)
    }
}

/// Whether another process changed the same object, so that a new plan is needed. Grafana 7.5
/// answers 500 to one of two simultaneous saves of the same object.
const fn is_race(error: &Error) -> bool {
    matches!(
        error,
        Error::Raced { .. }
            | Error::Docker { refusal: Refusal::Conflict | Refusal::NotFound | Refusal::Overwritten, .. }
            | Error::Answer { status: 500..=599, .. }
    )
}

fn not_converged(stack: &Stack, plan: &Plan, started: Instant) -> Error {
    let is_executed = |step: &Step| plan.executable().any(|one| one == step);
    let rest = plan.steps().filter(|(step, _)| is_executed(step));
    let rest: Vec<String> = rest.map(|(step, finding)| format!("{step} ({finding})")).collect();
    Error::NotConverged {
        rest: rest.join(", "),
        after: Some(started.elapsed()),
        hint: format!(
            "`{}` shows what differs; another process may be changing the same objects",
            stack.command("status")
        ),
    }
}

/// The effect of a command with `--dry-run`.
#[derive(Debug)]
pub struct Preview {
    /// The steps.
    pub plan: Plan,
    /// The confirmations that the command requests before it begins.
    pub questions: Vec<String>,
    /// The current status.
    pub status: Status,
}

/// Returns what `up` would do.
///
/// # Errors
/// [`Error::Usage`] if `up` rejects its options, [`Error::Docker`] if the engine does not answer.
pub async fn plan_up(session: &Session, options: UpOptions) -> Result<Preview> {
    let stack = session.stack();
    begin(stack, options, session.listener())?;
    let mut connections = session.connect();
    let seen = session.observe(&mut connections, Depth::Servers).await?;
    let plan = plan::up(stack, &seen, options);
    // No confirmation is requested while there is a blocker.
    let questions = if plan.blocked().is_none() { questions(stack, &seen, &plan) } else { Vec::new() };
    let status = summarize(session, &mut connections, &seen, &plan, false).await?;
    Ok(Preview { plan, questions: questions.iter().map(Question::to_string).collect(), status })
}

/// Warns about published addresses that other hosts can reach.
fn warn_about_open_access(stack: &Stack, listener: &dyn Listener) {
    let open = |role| {
        let config = &stack.container(role)?.config;
        config.is_open().then_some(config.publish)
    };
    if let Some(at) = open(Role::Influxdb) {
        listener.on(Event::Warning(&format!(
            "InfluxDB listens on {at} without authentication: every host that reaches that address can read and write \
             metrics"
        )));
    }
    if let Some(at) = open(Role::Grafana) {
        listener.on(Event::Warning(&format!(
            "Grafana listens on {at} over plain HTTP: passwords can be read on the network"
        )));
    }
}

/// Removes the instance. `confirm` is called before volumes are deleted.
///
/// # Errors
/// [`Error::Blocked`] if the user has to act first, the error from `confirm`, otherwise the error of a step.
pub async fn down(
    session: &Session,
    options: DownOptions,
    confirm: impl AsyncFnOnce(&[String]) -> Result<()>,
) -> Result<Outcome> {
    let mut executed = Vec::new();
    let mut retries = Retries::new(session.listener());
    let mut confirm = Some(confirm);
    let mut deregisters = options.deregister;
    let mut connections = session.connect();
    loop {
        let depth = if options.deregister { Depth::Servers } else { Depth::EngineOnly };
        let seen = session.observe(&mut connections, depth).await?;
        let plan = plan::down(session.stack(), &seen, options.volumes);
        if let Some((resource, blocked)) = plan.blocked() {
            return Err(Error::Blocked { resource, blocked: blocked.clone() });
        }
        let volumes = volumes_to_delete(session.stack(), &plan);
        if !volumes.is_empty()
            && let Some(confirm) = confirm.take()
        {
            confirm(&volumes).await?;
        }
        // Only after every deletion was confirmed.
        if std::mem::take(&mut deregisters) {
            deregister(session, &mut connections, &mut executed).await?;
            continue;
        }
        if plan.is_idle() {
            warn_about_restore(session.stack(), &seen, session.listener());
            let up = plan::up(session.stack(), &seen, UpOptions::default());
            let mut status = summarize(session, &mut connections, &seen, &up, false).await?;
            for kept in status::kept(&plan) {
                session.listener().on(Event::Warning(&kept));
                status.hints.push(kept);
            }
            return Ok(Outcome { executed, status });
        }
        match session.apply(&plan, &mut connections, &mut executed).await {
            Ok(()) => retries.spend(still_there(session.stack(), &plan))?,
            Err(failed) => retries.after(failed.error).await?,
        }
    }
}

/// Removes this instance's objects from an external Grafana.
async fn deregister(session: &Session, connections: &mut Connections, executed: &mut Vec<ExecutedStep>) -> Result<()> {
    for hint in status::unreadable_dashboards(session.stack()) {
        session.listener().on(Event::Warning(&hint));
    }
    let plan = plan_deregister(session, connections).await?;
    if let Some((resource, blocked)) = plan.blocked() {
        return Err(Error::Blocked { resource, blocked: blocked.clone() });
    }
    session.apply(&plan, connections, executed).await.map_err(FailedStep::into_error)?;
    // Objects of one resource that were removed hid those that cannot be.
    let rest = if plan.is_idle() { plan.clone() } else { plan_deregister(session, connections).await? };
    status::kept(&rest).for_each(|kept| session.listener().on(Event::Warning(&kept)));
    if plan.finding(Resource::DataSource) == Some(&Finding::Edited) {
        session.listener().on(Event::Warning(&format!(
            "the data source {:?} was edited and is kept: delete it in Grafana if no dashboard needs it",
            session.stack().data_source.name
        )));
    }
    match plan.unreadable() {
        Some(unreadable) => Err(not_read(session.stack(), unreadable)),
        None => Ok(()),
    }
}

async fn plan_deregister(session: &Session, connections: &mut Connections) -> Result<Plan> {
    let stack = session.stack();
    expect_known_settings(stack)?;
    if stack.container(Role::Grafana).is_some() {
        return Err(Error::usage(
            "--deregister is for an external Grafana, but this one is a container, which is removed as a whole",
            format!("omit it; `{}` also deletes its data", stack.command("down --volumes")),
        ));
    }
    let seen = session.observe(connections, Depth::Servers).await?;
    let url = stack.url(Role::Grafana).to_string();
    match plan::deregister(stack, &seen) {
        Some(plan) => Ok(plan),
        None => Err(match seen.grafana.probe {
            ServerResponse::Refusing(message) => Error::Refused { role: Role::Grafana, url, message },
            _ => Error::Absent {
                what: format!("nothing was removed: Grafana does not answer at {url}"),
                hint: "check that it runs, or omit --deregister".into(),
            },
        }),
    }
}

/// Stops if a restore of the instance is unfinished.
pub(crate) fn expect_restored(stack: &Stack, seen: &Observed) -> Result<()> {
    match plan::unfinished(stack, seen) {
        Some(blocked) => Err(Error::Blocked { resource: Resource::Settings, blocked }),
        None => Ok(()),
    }
}

/// Only warns about it, for commands that do not need the data.
pub(crate) fn warn_about_restore(stack: &Stack, seen: &Observed, listener: &dyn Listener) {
    if let Some(unfinished) = plan::unfinished(stack, seen) {
        listener.on(Event::Warning(&format!("{}: {}", unfinished.why, unfinished.hint)));
    }
}

/// The data that is lost with volumes.
#[must_use]
pub fn deletion(volumes: &[String]) -> String {
    format!("the volumes {} are deleted, with all metrics, users and dashboards in them", volumes.join(" and "))
}

fn volumes_to_delete(stack: &Stack, plan: &Plan) -> Vec<String> {
    plan.steps()
        .filter_map(|(step, _)| match step {
            Step::RemoveVolume(role) => Some(role.object_name(&stack.instance)),
            _ => None,
        })
        .collect()
}

fn still_there(stack: &Stack, plan: &Plan) -> Error {
    Error::NotConverged {
        rest: plan.steps().map(|(step, _)| step.to_string()).collect::<Vec<_>>().join(", "),
        after: None,
        hint: format!(
            "other containers use them: `{}` and `{}` show which",
            stack.invocation.docker("ps -a"),
            stack.invocation.docker(&format!("network inspect {}", stack.instance))
        ),
    }
}

/// Returns what `down` would do.
///
/// # Errors
/// [`Error::Docker`] if the engine does not answer.
pub async fn plan_down(session: &Session, options: DownOptions) -> Result<Preview> {
    let mut connections = session.connect();
    let mut items =
        if options.deregister { plan_deregister(session, &mut connections).await?.items } else { Vec::new() };
    let seen = session.observe(&mut connections, Depth::EngineOnly).await?;
    items.extend(plan::down(session.stack(), &seen, options.volumes).items);
    let plan = Plan::new(items);
    let up = plan::up(session.stack(), &seen, UpOptions::default());
    let mut status = summarize(session, &mut connections, &seen, &up, false).await?;
    status.hints.extend(status::kept(&plan));
    let volumes = volumes_to_delete(session.stack(), &plan);
    let questions = if volumes.is_empty() || plan.blocked().is_some() { vec![] } else { vec![deletion(&volumes)] };
    Ok(Preview { plan, questions, status })
}

/// Returns the current state and its differences from the settings.
///
/// # Errors
/// [`Error::Docker`] if the engine does not answer.
pub async fn status(session: &Session, show_secrets: bool) -> Result<Status> {
    status_through(session, &mut session.connect(), show_secrets).await
}

async fn status_through(session: &Session, connections: &mut Connections, show_secrets: bool) -> Result<Status> {
    let seen = session.observe(connections, Depth::Servers).await?;
    let plan = plan::up(session.stack(), &seen, UpOptions::default());
    summarize(session, connections, &seen, &plan, show_secrets).await
}

/// The interval of `status --watch`.
const WATCH: Duration = Duration::from_secs(3);

/// Shows the status repeatedly until `show` returns false.
///
/// # Errors
/// [`Error::Docker`] if the engine does not answer.
pub async fn watch(session: &Session, show_secrets: bool, mut show: impl FnMut(&Status) -> bool) -> Result<()> {
    let mut ticks = tokio::time::interval(WATCH);
    let mut connections = session.connect();
    loop {
        ticks.tick().await;
        if !show(&status_through(session, &mut connections, show_secrets).await?) {
            return Ok(());
        }
    }
}

/// Reopens a stream after the engine restarts: reports the interruption once, and retries until the
/// engine answers.
///
/// # Errors
/// Any error that does not come from the engine.
pub async fn reopen<T, F: Future<Output = Result<T>>>(
    error: Error,
    open: impl Fn() -> F,
    tell: impl Fn(&Error),
) -> Result<T> {
    let passes = |error: &Error| matches!(error, Error::Engine { .. } | Error::Docker { .. } | Error::Raced { .. });
    if !passes(&error) {
        return Err(error);
    }
    tell(&error);
    let mut ticks = tokio::time::interval(WATCH);
    loop {
        ticks.tick().await;
        match open().await {
            Err(error) if passes(&error) => {}
            result => return result,
        }
    }
}

/// Stops a command that depends on remembered settings if they are lost.
pub(crate) fn expect_known_settings(stack: &Stack) -> Result<()> {
    plan::unknown_settings(stack)
        .map_or(Ok(()), |blocked| Err(Error::Blocked { resource: Resource::Settings, blocked }))
}

pub(crate) async fn summarize(
    session: &Session,
    connections: &mut Connections,
    seen: &Observed,
    plan: &Plan,
    show_secrets: bool,
) -> Result<Status> {
    let reports = reports(session, &connections.influxdb, seen).await;
    let account = account(session, &mut connections.grafana, seen, show_secrets).await?;
    let mut status = status::summarize(session.stack(), seen, plan, reports, account);
    if let Some(own) = address_of_this_machine() {
        status.exposures = exposures(session.stack(), seen, own, &session.listener).await;
        status.hints.extend(status.exposures.iter().cloned());
    }
    Ok(status)
}

/// Clipper's reports, as far as InfluxDB can be queried. An error here is not an error of the stack.
async fn reports(session: &Session, influxdb: &Connection, seen: &Observed) -> Reports {
    let stack = session.stack();
    let is_known = plan::unknown_settings(stack).is_none();
    if !is_known || seen.influxdb.probe.state().is_none_or(|influxdb| !influxdb.has_database) {
        return Reports::default();
    }
    match session.influxdb(influxdb).activity(&stack.database).await {
        Ok(activity) => {
            let (objective, named) = (status::objective(stack, seen), status::named_models(stack, seen));
            reports::analyse(&activity, stack, objective, &named, now())
        }
        Err(error) => Reports { hints: vec![error.to_string()], ..Reports::default() },
    }
}

async fn account(
    session: &Session,
    grafana: &mut Connection,
    seen: &Observed,
    show_secrets: bool,
) -> Result<AccountStatus> {
    let stack = session.stack();
    let is_known = stack.container(Role::Grafana).is_some();
    let actual = seen.grafana.container.ours().filter(|_| is_known);
    let is_default = match seen.grafana.login.account {
        SignedInAccount::DefaultPassword => true,
        SignedInAccount::OwnPassword | SignedInAccount::Other => false,
        SignedInAccount::SignedOut => actual.is_none_or(|actual| {
            actual.config.as_ref().is_none_or(|config| config.password == PasswordSource::Default)
        }),
    };
    let password =
        if show_secrets && actual.is_some() { session.grafana_password(grafana, actual).await? } else { None };
    Ok(AccountStatus { user: stack.login.user.clone(), password, is_default, is_known })
}
