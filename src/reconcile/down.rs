//! The command down: removes the instance, and its objects in an external Grafana.

use super::connection::Connections;
use super::retries::Retries;
use super::status::summarize;
use super::{Depth, Outcome, Preview, Session, expect_known_settings, not_read, warn_about_restore};
use crate::error::{Error, Result};
use crate::model::event::{Event, ExecutedStep};
use crate::model::hints;
use crate::model::observed::{Observed, ServerResponse};
use crate::model::plan::{self, Finding, Plan, Resource, Step, UpOptions};
use crate::model::role::Role;
use crate::model::stack::Stack;
use crate::model::text;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DownOptions {
    /// Delete the volumes, with all data and settings.
    pub(crate) volumes: bool,
    /// Remove this instance's objects from an external Grafana.
    pub(crate) deregister: bool,
}

/// Removes the instance. `confirm` is called before volumes are deleted.
///
/// # Errors
/// [`Error::Blocked`] if the user has to act first, the error from `confirm`, otherwise the error of a step.
pub(crate) async fn down(
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
        if let Some((resource, blocker)) = plan.blocker() {
            return Err(Error::Blocked { resource, blocker: blocker.clone() });
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
            let stack = session.stack().after(executed.iter().map(|done| &done.step));
            let up = plan::up(&stack, &seen, UpOptions::default());
            let mut status = summarize(session, &connections, &seen, &up, false).await?;
            for kept in hints::kept(&plan) {
                session.listener().on(Event::Warning(&kept));
                status.hints.push(kept);
            }
            return Ok(Outcome { executed, status });
        }
        match session.apply(&plan, &mut connections, &mut executed).await {
            Ok(()) => retries.spend(still_there(session.stack(), &plan))?,
            Err(error) => retries.after(error).await?,
        }
    }
}

/// Removes this instance's objects from an external Grafana.
async fn deregister(session: &Session, connections: &mut Connections, executed: &mut Vec<ExecutedStep>) -> Result<()> {
    for hint in hints::unreadable_dashboards(session.stack()) {
        session.listener().on(Event::Warning(&hint));
    }
    let mut retries = Retries::new(session.listener());
    let (plan, seen) = loop {
        let (plan, seen) = plan_deregister(session, connections).await?;
        if let Some((resource, blocker)) = plan.blocker() {
            return Err(Error::Blocked { resource, blocker: blocker.clone() });
        }
        match session.apply(&plan, connections, executed).await {
            Ok(()) => break (plan, seen),
            Err(error) => retries.after(error).await?,
        }
    };
    if plan.items.iter().all(|item| item.finding == Finding::Missing) {
        session.listener().on(Event::Note(&hints::none_in_grafana(session.stack(), &seen)));
    }
    // A resource reports kept objects only after the removable ones are gone.
    let rest = if plan.is_idle() { plan.clone() } else { plan_deregister(session, connections).await?.0 };
    hints::kept(&rest).for_each(|kept| session.listener().on(Event::Warning(&kept)));
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

async fn plan_deregister(session: &Session, connections: &mut Connections) -> Result<(Plan, Observed)> {
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
    let absent =
        |what: String, hint: &str| Error::Absent { what: format!("nothing was removed: {what}"), hint: hint.into() };
    let plan = plan::deregister(stack, &seen).ok_or_else(|| match &seen.grafana.response {
        ServerResponse::Refusing(message) => {
            let blocker = plan::refused(stack, Role::Grafana, &url, message);
            Error::Blocked { resource: Resource::Server(Role::Grafana), blocker }
        }
        ServerResponse::Failing(why) => not_read(stack, why),
        ServerResponse::Silent(why) | ServerResponse::Starting(why) => {
            absent(format!("Grafana does not answer at {url}: {why}"), "check that it runs, or omit --deregister")
        }
        ServerResponse::Unusable(what) => absent(
            format!("Grafana is expected at {url}, but {what} answers there"),
            "correct --grafana-url, or omit --deregister",
        ),
        _ => absent(format!("Grafana does not answer at {url}"), "check that it runs, or omit --deregister"),
    })?;
    Ok((plan, seen))
}

/// The data that is lost with volumes.
#[must_use]
fn deletion(volumes: &[String]) -> String {
    let verb = if volumes.len() == 1 { "is" } else { "are" };
    format!("{} {verb} deleted, with all metrics, users and dashboards", text::volumes(volumes))
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
pub(crate) async fn plan_down(session: &Session, options: DownOptions) -> Result<Preview> {
    let mut connections = session.connect();
    let mut items =
        if options.deregister { plan_deregister(session, &mut connections).await?.0.items } else { Vec::new() };
    let seen = session.observe(&mut connections, Depth::EngineOnly).await?;
    items.extend(plan::down(session.stack(), &seen, options.volumes).items);
    let plan = Plan::new(items);
    let up = plan::up(session.stack(), &seen, UpOptions::default());
    let mut status = summarize(session, &connections, &seen, &up, false).await?;
    status.hints.extend(hints::kept(&plan));
    let volumes = volumes_to_delete(session.stack(), &plan);
    let questions = if volumes.is_empty() || plan.blocker().is_some() { vec![] } else { vec![deletion(&volumes)] };
    Ok(Preview { plan, questions, status })
}
