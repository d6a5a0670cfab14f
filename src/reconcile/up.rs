//! The command up: observe, plan, apply, and observe again until the stack is in sync.

use std::time::Instant;

use super::apply::RunFailure;
use super::connection::Connections;
use super::retries::Retries;
use super::status::summarize;
use super::{Depth, Outcome, Preview, Session, not_read};
use crate::backoff::pause;
use crate::error::{Error, Result};
use crate::model::event::{Event, ExecutedStep, Listener};
use crate::model::hints;
use crate::model::observed::{Observed, RunState};
use crate::model::plan::{self, FailureCause, Phase, Plan, Question, Step, UpOptions};
use crate::model::role::Role;
use crate::model::stack::Stack;
use crate::model::upgrade::UpgradeState;

/// The number of plans that only reveal the facts for the next one.
const MAX_PREPARATIONS: usize = 12;

/// Brings the stack up and verifies it. `confirm` is called with a question before data is
/// deleted. If a new image of Grafana fails, the previous one is restored with its database.
///
/// # Errors
/// [`Error::Blocked`] if the user has to act first, [`Error::NotConverged`] if a difference
/// remains, [`Error::UpgradeUndone`] if the new image failed, otherwise the error of a step.
pub(crate) async fn up(
    session: &Session,
    options: UpOptions,
    confirm: impl AsyncFn(&Question) -> Result<()>,
) -> Result<Outcome> {
    begin(session.stack(), options, session.listener())?;
    match Box::pin(converge(session, options, &confirm)).await {
        Err(failure) => Err(Box::pin(undo_upgrade(session, failure, &confirm)).await),
        Ok(outcome) => Ok(outcome),
    }
}

/// Rejects invalid options and prints warnings.
fn begin(stack: &Stack, options: UpOptions, listener: &dyn Listener) -> Result<()> {
    if options.reset_password {
        check_reset(stack)?;
    }
    let hints = hints::open_access(stack).chain(hints::unreadable_dashboards(stack)).chain(hints::failed_image(stack));
    let hints = hints.chain(hints::left_organisation(stack));
    for hint in hints {
        listener.on(Event::Warning(&hint));
    }
    Ok(())
}

/// Grafana's command resets the password of its first administrator, whatever account signs in.
fn check_reset(stack: &Stack) -> Result<()> {
    let hint = match stack.container(Role::Grafana) {
        Some(_) if stack.login.is_admin() => return Ok(()),
        Some(_) => "omit --grafana-user and the token (--grafana-user '' removes a remembered user)",
        None => "change the password in Grafana, then supply it with --grafana-password-file",
    };
    Err(Error::usage("--reset-grafana-password sets the password of admin, in a managed container only", hint))
}

/// Rolls back to the previous image if another one is being tried, and returns the error to report.
async fn undo_upgrade(
    session: &Session,
    failure: RunFailure,
    confirm: &impl AsyncFn(&Question) -> Result<()>,
) -> Error {
    let rollback = session.roll_back(&failure).await;
    let error = failure.error;
    let (before, upgrade) = match rollback {
        Ok(Some(rollback)) => rollback,
        Ok(None) => return error,
        Err(other) => {
            session.listener().on(Event::Warning(&format!("the previous image could not be restored: {other}")));
            return error;
        }
    };
    let (from, to) = (&upgrade.from.name, &upgrade.to.name);
    session.listener().on(Event::Warning(&format!("{to} failed; rolling back to {from} and its database")));
    // On the heap, because nested plans need more stack than some systems provide.
    let undone = Box::pin(converge(&before, UpOptions::default(), confirm));
    let undone = undone.await.map(drop).map_err(|failure| Box::new(failure.error));
    // The settings were saved before the image was tried; repeating its option would try it again.
    let saved = session.stack().invocation.saved();
    let rest = saved.command("up");
    let again = match upgrade.state {
        UpgradeState::Postponed => rest.clone(),
        _ => saved.command(&format!("up --grafana-image {to}")),
    };
    Error::UpgradeUndone { upgrade: Box::new(upgrade), source: Box::new(error), undone, again, rest }
}

async fn converge(
    session: &Session,
    options: UpOptions,
    confirm: &impl AsyncFn(&Question) -> Result<()>,
) -> Result<Outcome, RunFailure> {
    let started = Instant::now();
    let mut options = options;
    let mut confirmed: Vec<Question> = Vec::new();
    let mut executed: Vec<ExecutedStep> = Vec::new();
    let mut retries = Retries::new(session.listener());
    let (mut is_first, mut preparations) = (true, 0);
    let mut waiting: Option<Instant> = None;
    let mut connections = session.connect();
    loop {
        let seen = session.observe(&mut connections, Depth::Servers).await?;
        let stack = &session.stack().after(executed.iter().map(|done| &done.step));
        let plan = plan::up(stack, &seen, options);
        if let Some((resource, blocker)) = plan.blocker() {
            withdraw(session, &mut connections, &seen, &mut executed).await;
            return Err(Error::Blocked { resource, blocker: blocker.clone() }.into());
        }
        if std::mem::take(&mut is_first) {
            warn_about_lost_volumes(session, &seen, &plan);
        }
        if plan.in_sync() {
            warn_at_end(session, &seen, &plan, &executed);
            let mut status = summarize(session, &connections, &seen, &plan, false).await?;
            let creates = |step: &Step| matches!(step, Step::SaveDataSource { replaces: None, .. });
            if let Some(chosen) =
                hints::chosen_organisation(&seen).filter(|_| executed.iter().any(|done| creates(&done.step)))
            {
                session.listener().on(Event::Note(&chosen));
                status.hints.push(chosen);
            }
            return Ok(Outcome { executed, status });
        }
        if let (Some(unreadable), true) = (plan.unreadable(), plan.is_idle()) {
            retries.after(not_read(stack, unreadable)).await?;
            continue;
        }
        if request_confirmations(plan::questions(stack, &seen, &plan), &mut confirmed, confirm).await? {
            // The answer may have taken long.
            continue;
        }
        for role in starting(&plan, &seen) {
            if !executed.iter().any(|done| done.step == Step::StartContainer(role)) {
                session.warn_about_ipv6(role).await;
            }
        }
        if let Err(RunFailure { step, error }) = session.try_apply(&plan, &mut connections, &mut executed).await {
            if let Error::Contradicted { since, .. } = error {
                options = options.after_contradiction(&plan, since);
                continue;
            }
            if plan::may_leave_intended_version(step.as_ref(), FailureCause::from(&error)) {
                // If this fails, the next plan clears it.
                clear_intended_version(session, &mut connections).await.ok();
            }
            retries.after(error).await.map_err(|error| RunFailure { step, error })?;
            continue;
        }
        options = options.after(&plan);
        if plan.only_waits() {
            // The server answers, but not every request.
            if waiting.get_or_insert_with(Instant::now).elapsed() >= stack.timeout {
                let step = plan.executable().find(|step| matches!(step, Step::AwaitAnswer(_))).cloned();
                return Err(RunFailure { step, error: not_converged(stack, &plan, started) });
            }
            pause(&mut retries.backoff).await;
            continue;
        }
        waiting = None;
        preparations += 1;
        if plan.until() == Phase::End || preparations > MAX_PREPARATIONS {
            retries.spend(not_converged(stack, &plan, started))?;
        }
    }
}

/// Removes a container of Grafana that this run created only to read its volume, before it ends with a blocker.
async fn withdraw(session: &Session, connections: &mut Connections, seen: &Observed, executed: &mut Vec<ExecutedStep>) {
    if let Some(plan) = plan::withdraw(seen, executed.iter().map(|done| &done.step))
        && let Err(error) = session.apply(&plan, connections, executed).await
    {
        session.listener().on(Event::Warning(&format!("Grafana's container, which was not started, remains: {error}")));
    }
}

/// Clears the intended version of a Grafana that this run could not start.
async fn clear_intended_version(session: &Session, connections: &mut Connections) -> Result<()> {
    let seen = session.observe(connections, Depth::EngineOnly).await?;
    match plan::clear_intended_version(&seen) {
        Some(plan) => session.apply(&plan, connections, &mut Vec::new()).await,
        None => Ok(()),
    }
}

fn warn_about_lost_volumes(session: &Session, seen: &Observed, plan: &Plan) {
    for lost in hints::lost_volumes(session.stack(), seen, plan) {
        session.listener().on(Event::Warning(&lost));
    }
}

/// Warns about objects that are kept, and about a loopback that this run exposed to neighbours.
fn warn_at_end(session: &Session, seen: &Observed, plan: &Plan, executed: &[ExecutedStep]) {
    hints::kept(plan).for_each(|kept| session.listener().on(Event::Warning(&kept)));
    let starts = executed.iter().any(|done| matches!(done.step, Step::StartContainer(_)));
    if let Some(warning) = hints::exposed_loopback(session.stack(), seen).filter(|_| starts) {
        session.listener().on(Event::Warning(&warning));
    }
}

/// Asks the user every question that no earlier confirmation covers. Returns whether there was one.
async fn request_confirmations(
    questions: Vec<Question>,
    confirmed: &mut Vec<Question>,
    confirm: &impl AsyncFn(&Question) -> Result<()>,
) -> Result<bool> {
    let before = confirmed.len();
    for question in questions {
        if !confirmed.iter().any(|answered| answered.covers(&question)) {
            confirm(&question).await?;
            confirmed.push(question);
        }
    }
    Ok(confirmed.len() > before)
}

/// The roles whose containers do not run and are started by a plan.
fn starting(plan: &Plan, seen: &Observed) -> Vec<Role> {
    let runs = |role: Role| seen.server(role).container.ours().is_some_and(|actual| actual.run == RunState::Running);
    let starts = |role: Role| plan.executable().any(|step| *step == Step::StartContainer(role));
    Role::ALL.into_iter().filter(move |role| starts(*role) && !runs(*role)).collect()
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

/// Returns what `up` would do.
///
/// # Errors
/// [`Error::Usage`] if `up` rejects its options, [`Error::Docker`] if the engine does not answer.
pub(crate) async fn plan_up(session: &Session, options: UpOptions) -> Result<Preview> {
    let stack = session.stack();
    begin(stack, options, session.listener())?;
    let mut connections = session.connect();
    let seen = session.observe(&mut connections, Depth::Servers).await?;
    let plan = plan::up(stack, &seen, options);
    warn_about_lost_volumes(session, &seen, &plan);
    // No confirmation is requested while there is a blocker.
    let questions = if plan.blocker().is_none() { plan::questions(stack, &seen, &plan) } else { Vec::new() };
    let status = summarize(session, &connections, &seen, &plan, false).await?;
    Ok(Preview { plan, questions: questions.iter().map(Question::to_string).collect(), status })
}
