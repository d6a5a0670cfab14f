//! Decides what happens to a managed container: it is kept, started, unpaused, replaced or refused, in an order that
//! loses no data and never publishes a Grafana with the default password.

use super::blockers::{blocker, never_pulled, short};
use super::login::{source_in_force, task};
use super::rebuild::{create_to_read, rebuild, roll_back_database};
use super::running::{paused, running, start_again};
use super::server::{ServerContext, ServerPlan};
use super::{Blocker, Finding, Phase, Step};
use crate::model::container_config::{ContainerConfig, Difference};
use crate::model::observed::{ContainerState, Image, OurContainer, RunState, ServerResponse};
use crate::model::role::Role;
use crate::model::stack::{EngineLocation, Stack};
use crate::model::upgrade::Upgrade;

/// Plans a managed container: its differences, and its steps.
pub(super) fn container(context: &ServerContext<'_>) -> Result<ServerPlan, Blocker> {
    let ServerContext { stack, spec, options, .. } = context;
    if let Some(blocker) = blocker(context) {
        return Err(blocker);
    }
    let mut plan = decide(context)?;
    let pulls = plan.steps.iter().any(|(_, step)| *step == Step::PullImage(spec.role));
    if (pulls || options.pull)
        && let Some(blocker) = never_pulled(stack, spec)
    {
        return Err(blocker);
    }
    if options.pull && !pulls {
        plan.steps.insert(0, (Phase::Preparation, Step::PullImage(spec.role)));
    }
    plan.finding = match plan.finding {
        Finding::InSync if options.pull => Finding::Requested("--pull always"),
        Finding::Differs(differences) if differences.is_empty() => {
            Finding::Requested("the other server needs its port")
        }
        finding => finding,
    };
    Ok(plan)
}

/// The decision, from the container's state and its differences.
fn decide(context: &ServerContext<'_>) -> Result<ServerPlan, Blocker> {
    let ContainerState::Ours(actual) = &context.seen.container else {
        return if context.needs_container() {
            Ok(create_to_read(context))
        } else {
            rebuild(context, Finding::Missing, None)
        };
    };
    if unpauses_first(context, actual) {
        return Ok(unpause_first(context, actual));
    }
    if waits_for_answer(context, actual) {
        let wait = [Step::AwaitAnswer(context.spec.role)];
        return Ok(ServerPlan::new(Finding::Silent("it is starting".into())).with(Phase::Preparation, wait));
    }
    if context.rolls_back() {
        return roll_back_database(context, actual);
    }
    let differences = differences(context, actual);
    if !differences.is_empty() || context.frees_port_first {
        return rebuild(context, Finding::Differs(differences), Some(actual));
    }
    match actual.run {
        RunState::Running => running(context),
        RunState::Paused => Ok(paused(context)),
        RunState::Restarting => rebuild(context, Finding::Stopped("keeps crashing".into()), Some(actual)),
        RunState::Dead => rebuild(context, Finding::Stopped("dead".into()), Some(actual)),
        RunState::Created => start_or_rebuild(context, Finding::Stopped("created, but never started".into()), actual),
        RunState::Exited(code) => {
            start_or_rebuild(context, Finding::Stopped(format!("stopped (exit code {code})")), actual)
        }
    }
}

/// Starts a container that matches its configuration, unless Grafana's login needs work first.
fn start_or_rebuild(
    context: &ServerContext<'_>,
    finding: Finding,
    actual: &OurContainer,
) -> Result<ServerPlan, Blocker> {
    match task(context, Some(actual)) {
        Some(_) => rebuild(context, finding, Some(actual)),
        None => Ok(start_again(context, finding, actual)),
    }
}

/// Whether Grafana is unpaused before the next plan decides: the content of its volume and its login are then known.
fn unpauses_first(context: &ServerContext<'_>, actual: &OurContainer) -> bool {
    let ServerContext { stack, spec, options, frees_port_first, .. } = context;
    let changes = *frees_port_first || options.reset_password || !differences(context, actual).is_empty();
    spec.role == Role::Grafana && can_unpause(stack, actual) && changes && !context.rolls_back() && !actual.name_taken
}

/// Unpauses Grafana; the other steps are a prediction.
fn unpause_first(context: &ServerContext<'_>, actual: &OurContainer) -> ServerPlan {
    let role = context.spec.role;
    let mut plan = ServerPlan::new(Finding::Stopped("paused".into()))
        .with(Phase::Preparation, [Step::UnpauseContainer(role), Step::AwaitAnswer(role)]);
    let prediction = rebuild(context, Finding::Unknown, Some(actual)).map_or_else(|_| vec![], |plan| plan.steps);
    plan.steps.extend(prediction.into_iter().filter(|(phase, _)| *phase > Phase::Trial));
    plan
}

/// Whether a running Grafana that does not answer yet must answer before the next plan decides: if it rejects a
/// supplied login, nothing may have changed, and a private one was just created. One that started long ago is replaced.
fn waits_for_answer(context: &ServerContext<'_>, actual: &OurContainer) -> bool {
    let ServerContext { stack, spec, seen, options, frees_port_first, .. } = context;
    let is_silent = matches!(
        seen.response,
        ServerResponse::Unasked | ServerResponse::Silent(_) | ServerResponse::Starting(_) | ServerResponse::Failing(_)
    );
    let changes = *frees_port_first || !differences(context, actual).is_empty();
    let decides = (stack.login.is_untried && !options.reset_password) || actual.is_private();
    let is_starting = actual.run == RunState::Running && actual.has_just_started && actual.published.is_some();
    spec.role == Role::Grafana
        && is_starting
        && is_silent
        && changes
        && decides
        && !is_out_of_reach(stack, actual)
        && !actual.crashes_repeatedly
        && !context.rolls_back()
}

/// Whether the container is published only on the loopback of another machine.
fn is_out_of_reach(stack: &Stack, actual: &OurContainer) -> bool {
    matches!(stack.engine, EngineLocation::Elsewhere(_)) && actual.is_on_loopback()
}

/// Whether a paused container is unpaused and answers before anything is decided about it.
fn can_unpause(stack: &Stack, actual: &OurContainer) -> bool {
    actual.run == RunState::Paused && actual.on_network && actual.published.is_some() && !is_out_of_reach(stack, actual)
}

/// Whether the next plan depends on the content of Grafana's volume: on its passwords if the container was never
/// started or a login was supplied, and on the versions that ran if a container may be created or started.
#[must_use]
pub fn needs_content(stack: &Stack, actual: &OurContainer, image: Option<&Image>, upgrade: Option<&Upgrade>) -> bool {
    let Some(spec) = stack.container(Role::Grafana) else { return actual.run == RunState::Created };
    let is_same = actual.config.as_ref().is_some_and(|made| {
        let desired = ContainerConfig { password: made.password, ..spec.config.clone() };
        *made == desired
    });
    if can_unpause(stack, actual) {
        return false;
    }
    let runs = actual.run == RunState::Running;
    let is_same_image = image.is_some_and(|image| image.id == actual.image_id);
    let is_upgrading = upgrade.is_some_and(Upgrade::is_pending);
    !(runs && is_same && is_same_image && actual.on_network) || is_upgrading || stack.login.is_untried
}

/// Compares the container's configuration with the desired one.
pub(super) fn differences(context: &ServerContext<'_>, actual: &OurContainer) -> Vec<Difference> {
    let ServerContext { stack, spec, seen, .. } = context;
    let Some(config) = &actual.config else {
        return vec![Difference {
            field: "specification".into(),
            actual: "unreadable".into(),
            desired: "this version's".into(),
        }];
    };
    let desired = ContainerConfig { password: source_in_force(context, Some(actual)), ..spec.config.clone() };
    let mut differences = Difference::between(&config.fields(), &desired.fields());
    if !actual.on_network {
        differences.push(Difference {
            field: "network".into(),
            actual: "none, or a removed network".into(),
            desired: stack.instance.clone(),
        });
    }
    if let Some(image) = &seen.image
        && image.id != actual.image_id
        && differences.iter().all(|difference| difference.field != "image")
    {
        differences.push(Difference {
            field: Difference::IMAGE_ID.into(),
            actual: short(&actual.image_id),
            desired: short(&image.id),
        });
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::Observed;
    use crate::model::plan::{self, Resource, UpOptions};
    use crate::model::stack::Pull;
    use crate::model::volume_content::VolumeContent;
    use crate::samples::{self, container_of, plan_with};

    #[test]
    fn with_pull_never_only_work_that_needs_a_missing_image_is_blocked() {
        let desired = Stack { pull: Pull::Never, ..samples::stack() };
        let in_sync = plan_with(&desired, |seen| seen.influxdb.image = None);
        assert!(in_sync.blocker().is_none() && in_sync.is_idle(), "{in_sync:?}");
        let stopped = plan_with(&desired, |seen| {
            seen.influxdb.image = None;
            container_of(seen, Role::Influxdb).run = RunState::Exited(0);
        });
        assert!(stopped.blocker().is_none() && !stopped.is_idle(), "{stopped:?}");
        let changes: [fn(&mut Observed); 2] = [
            |seen| seen.influxdb.container = ContainerState::Absent,
            |seen| container_of(seen, Role::Influxdb).on_network = false,
        ];
        for change in changes {
            let plan = plan_with(&desired, |seen| {
                seen.influxdb.image = None;
                change(seen);
            });
            let (_, blocker) = plan.blocker().unwrap();
            assert!(blocker.why.contains("--pull never"), "{}", blocker.why);
        }
    }

    #[test]
    fn no_image_is_pulled_for_a_blocked_server() {
        let mut seen = samples::in_sync();
        let actual = container_of(&mut seen, Role::Influxdb);
        (actual.name_taken, actual.on_network) = (true, false);
        let plan = plan::up(&samples::stack(), &seen, UpOptions { pull: true, ..UpOptions::default() });
        assert_eq!(plan.blocker().map(|(resource, _)| resource), Some(Resource::Server(Role::Influxdb)));
        assert!(!plan.steps().any(|(step, _)| *step == Step::PullImage(Role::Influxdb)), "{plan}");
    }

    #[test]
    fn a_private_grafana_that_is_slow_to_answer_is_not_created_again() {
        let slow = plan_with(&samples::stack_off_loopback(), |seen| {
            let actual = container_of(seen, Role::Grafana);
            actual.config.as_mut().unwrap().publish.set_port(0);
            (actual.published, actual.has_just_started) = (Some(([127, 0, 0, 1], 32_000).into()), true);
            seen.grafana.content = Some(VolumeContent::default());
            seen.grafana.response = ServerResponse::Silent("slow".into());
        });
        assert_eq!(slow.executable().collect::<Vec<_>>(), [&Step::AwaitAnswer(Role::Grafana)], "{slow:?}");
    }
}
