//! Plans a new container on a volume that may contain data: what is fetched and verified, what the new container
//! replaces, and its start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::blockers::foreign;
use super::login::{
    LoginTask, is_in_place, new_source, private_start, store, task, unsafe_default, unverifiable, write_first_password,
};
use super::running::start;
use super::server::{ServerContext, ServerPlan, removal_phase};
use super::{Blocker, ContainerUse, Finding, NewContainer, Phase, Step, upgrade};
use crate::model::address::collide;
use crate::model::container_config::{ContainerConfig, PasswordSource};
use crate::model::observed::{OurContainer, RunState, VolumeState};
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, EngineLocation};
use crate::model::upgrade::Upgrade;

/// Plans a new container in place of the actual one, if there is one.
pub(super) fn rebuild(
    context: &ServerContext<'_>,
    finding: Finding,
    actual: Option<&OurContainer>,
) -> Result<ServerPlan, Blocker> {
    let role = context.spec.role;
    if actual.is_some_and(|actual| actual.name_taken) {
        return Err(foreign("container", &context.spec.name, context.stack));
    }
    let task = task(context, actual);
    let mut plan = fetch(context, finding, actual);
    if let (Some(actual), Some(task)) = (actual, task) {
        if let Some(blocker) = unsafe_default(context, actual, task) {
            return Err(blocker);
        }
        if let EngineLocation::Elsewhere(host) = &context.stack.engine
            && !is_in_place(context, actual, task)
        {
            return verify_without_loopback(context, plan, actual, task, host);
        }
        verify(context, &mut plan, actual, task)?;
    }
    replace(context, &mut plan, actual, task);
    let password = new_source(context, actual, task);
    plan.add(Phase::Changes, [service(context, password)]);
    plan.add(Phase::Changes, write_first_password(context, password));
    plan.add(Phase::Changes, upgrade::before_start(context, &upgrade::desired_image(context)));
    plan.add(Phase::Changes, [Step::StartContainer(role), Step::AwaitAnswer(role)]);
    Ok(plan)
}

/// Pulls a missing image, and checks the address.
fn fetch(context: &ServerContext<'_>, finding: Finding, actual: Option<&OurContainer>) -> ServerPlan {
    ServerPlan::new(finding)
        .with(Phase::Preparation, pull(context))
        .with(Phase::Preparation, address_check(context, actual))
}

fn pull(context: &ServerContext<'_>) -> Option<Step> {
    let is_needed = context.seen.image.is_none() || context.options.pull;
    is_needed.then_some(Step::PullImage(context.spec.role))
}

/// Another process can hold the new port, and the engine's host may have lost the address: only the
/// engine can find out.
fn address_check(context: &ServerContext<'_>, actual: Option<&OurContainer>) -> Option<Step> {
    let ServerContext { spec, seen, .. } = context;
    let desired = spec.config.publish;
    let made = actual.and_then(|actual| actual.config.as_ref()).map(|made| made.publish);
    let is_always_there = desired.ip().is_unspecified() || desired.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST);
    let moves = made.is_some_and(|made| made != desired);
    let holds = |at: SocketAddr| collide(at, desired);
    let is_held = seen.port_holder.is_some()
        || actual.is_some_and(|actual| !matches!(actual.run, RunState::Created | RunState::Exited(_)))
            && made.is_none_or(holds);
    let port = if is_held { 0 } else { desired.port() };
    let is_needed = !is_always_there || (moves && !is_held);
    is_needed.then(|| Step::CheckAddress(spec.role, SocketAddr::new(desired.ip(), port)))
}

/// Verifies Grafana's login where no other host can reach it.
fn verify(
    context: &ServerContext<'_>,
    plan: &mut ServerPlan,
    actual: &OurContainer,
    task: LoginTask,
) -> Result<(), Blocker> {
    if context.is_unread(actual) {
        return Ok(());
    }
    plan.add(Phase::Trial, private_start(context, actual, task)?);
    // On a private Grafana, the accepted login decides what is left to do.
    if task == LoginTask::Try || is_in_place(context, actual, task) {
        plan.add(Phase::Trial, task.steps(context));
    } else if task == LoginTask::Reset {
        plan.add(Phase::Changes, task.steps(context));
    }
    Ok(())
}

/// If the engine's loopback is out of reach, no login can be tried. The remaining work is to start
/// a container that was verified when it was created.
fn verify_without_loopback(
    context: &ServerContext<'_>,
    plan: ServerPlan,
    actual: &OurContainer,
    task: LoginTask,
    host: &str,
) -> Result<ServerPlan, Blocker> {
    if task == LoginTask::Try && matches!(actual.run, RunState::Exited(_)) && actual.on_network {
        return Ok(plan.with(Phase::Trial, start(context, actual)).with(Phase::Trial, task.steps(context)));
    }
    Err(unverifiable(context.stack, host, task))
}

/// Removes the actual container, and creates a missing volume.
fn replace(context: &ServerContext<'_>, plan: &mut ServerPlan, actual: Option<&OurContainer>, task: Option<LoginTask>) {
    let role = context.spec.role;
    let is_new = context.seen.volume == VolumeState::Absent;
    if is_new {
        plan.add(Phase::Changes, [Step::CreateVolume(role)]);
    }
    let is_unread = actual.is_some_and(|actual| context.is_unread(actual));
    // The next plan reads the volume, before the settings are saved.
    let phase = if is_unread { Phase::Trial } else { removal_phase(context.frees_port_first) };
    if role == Role::Grafana && task.is_none() {
        plan.add(phase, store(context));
    }
    plan.add(phase, actual.map(|actual| context.removal(actual)).into_iter().flatten());
    if is_new && context.upgrade.is_some_and(Upgrade::is_pending) {
        // Its copy is gone together with the volume.
        plan.add(Phase::Changes, [Step::EndUpgrade(None)]);
    }
}

/// Creates a container, without starting it, that shows the content of Grafana's volume. It is private if a login
/// has to be verified before Grafana is published.
pub(super) fn create_to_read(context: &ServerContext<'_>) -> ServerPlan {
    let ServerContext { spec, .. } = context;
    let is_private = context.rolls_back() || task(context, None).is_some();
    let (config, usage) = if is_private {
        (private(spec), ContainerUse::Login)
    } else {
        let config = ContainerConfig { password: PasswordSource::Default, ..spec.config.clone() };
        (config, ContainerUse::Service)
    };
    let new = NewContainer { role: Role::Grafana, config, image_id: spec.pinned_image.clone(), usage };
    let (grafana, image) = (Role::Grafana, upgrade::desired_image(context));
    let finding = if context.rolls_back() { Finding::Requested(ROLLS_BACK) } else { Finding::Missing };
    let work = fetch(context, finding, None);
    let start = [Step::StartContainer(grafana), Step::AwaitAnswer(grafana)];
    if context.seen.image.is_none() || context.options.pull {
        // Whether the image suits the volume is known after the pull.
        return work.with(Phase::Changes, [Step::CreateContainer(Box::new(new))]).with(Phase::Changes, start);
    }
    let work = work.with(Phase::Preparation, [Step::CreateContainer(Box::new(new))]);
    match task(context, None) {
        _ if context.rolls_back() => work
            .with(Phase::Changes, [Step::RollBackDatabase, Step::RemoveContainer(grafana)])
            .with(Phase::Changes, [service(context, spec.config.password)])
            .with(Phase::Changes, start),
        Some(task) => work
            .with(Phase::Trial, start.clone())
            // Whether the default password is in force is known after the start.
            .with(Phase::Trial, if task == LoginTask::Secure { vec![] } else { task.steps(context) })
            .with(Phase::Changes, [Step::RemoveContainer(grafana), service(context, PasswordSource::File)])
            .with(Phase::Changes, upgrade::before_start(context, &image))
            .with(Phase::Changes, start),
        None => work.with(Phase::Changes, upgrade::before_start(context, &image)).with(Phase::Changes, start),
    }
}

/// Creates the container as specified.
fn service(context: &ServerContext<'_>, password: PasswordSource) -> Step {
    let ServerContext { spec, .. } = context;
    let config = ContainerConfig { password, ..spec.config.clone() };
    let image_id = spec.pinned_image.clone();
    Step::CreateContainer(Box::new(NewContainer { role: spec.role, config, image_id, usage: ContainerUse::Service }))
}

/// The finding about a Grafana whose database is restored first.
const ROLLS_BACK: &str = "the previous database is restored";

/// Restores the previous database through a private container that is not started: the passwords of that database
/// decide how Grafana is published.
pub(super) fn roll_back_database(context: &ServerContext<'_>, actual: &OurContainer) -> Result<ServerPlan, Blocker> {
    let finding = Finding::Requested(ROLLS_BACK);
    if actual.name_taken {
        return Err(foreign("container", &context.spec.name, context.stack));
    }
    if actual.run == RunState::Created && actual.is_private() && !context.is_unread(actual) {
        return Ok(ServerPlan::changing(finding, upgrade::roll_back_database(context)));
    }
    Ok(ServerPlan::new(finding)
        .with(Phase::Preparation, pull(context))
        .with(Phase::Trial, context.removal(actual))
        .with(Phase::Changes, [Step::RollBackDatabase, service(context, context.spec.config.password)])
        .with(Phase::Changes, [Step::StartContainer(Role::Grafana), Step::AwaitAnswer(Role::Grafana)]))
}

/// The configuration with a loopback port that the engine chooses.
pub(super) fn private(spec: &DesiredContainer) -> ContainerConfig {
    let publish = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    ContainerConfig { publish, password: PasswordSource::Default, ..spec.config.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::login::Credential;
    use crate::model::observed::{ContainerState, ServerResponse};
    use crate::model::plan::BlockReason;
    use crate::model::stack::Stack;
    use crate::samples::{self, container_of, plan_with, steps};

    #[test]
    fn without_the_engines_loopback_nothing_unverified_is_published() {
        let engine = EngineLocation::Elsewhere("far".into());
        let mut desired = Stack { engine, ..samples::stack_off_loopback() };
        // A container that is not started is used to see whether the volume contains data.
        let plan = plan_with(&desired, |seen| seen.grafana.container = ContainerState::Absent);
        let is_private = |step: &Step| matches!(step, Step::CreateContainer(new) if new.usage == ContainerUse::Login);
        assert!(plan.executable().any(is_private), "{plan:?}");
        assert!(!plan.executable().any(|step| *step == Step::StartContainer(Role::Grafana)), "{plan:?}");
        let made = |has_data: bool| {
            plan_with(&desired, |seen| {
                let actual = container_of(seen, Role::Grafana);
                (actual.run, actual.has_data) = (RunState::Created, Some(has_data));
                seen.grafana.response = ServerResponse::Unasked;
            })
        };
        assert_eq!(made(true).blocker().map(|(_, blocker)| blocker.kind), Some(BlockReason::Unverifiable));
        let empty = made(false);
        assert!(empty.blocker().is_none(), "{empty:?}");
        assert!(steps(&empty).contains(&Step::WriteFirstPassword(Credential::Generated)), "{empty:?}");
        // A stopped container that was verified when it was created is started unchanged, and the login
        // is tried on it.
        (desired.login.is_untried, desired.login.supplies_password) = (true, true);
        let stopped = plan_with(&desired, |seen| {
            let actual = container_of(seen, Role::Grafana);
            actual.run = RunState::Exited(0);
            actual.config = Some(desired.container(Role::Grafana).unwrap().config.clone());
            seen.grafana.response = ServerResponse::Unasked;
        });
        let order = steps(&stopped);
        let at = |step| order.iter().position(|one| *one == step);
        assert!(at(Step::StartContainer(Role::Grafana)) < at(Step::TryLogin(Credential::Supplied)), "{stopped:?}");
        assert!(at(Step::TryLogin(Credential::Supplied)).is_some() && stopped.blocker().is_none(), "{stopped:?}");
        (desired.login.is_untried, desired.login.supplies_password) = (false, false);
        // On a new volume, there is nothing to verify.
        let plan = plan_with(&desired, |seen| {
            seen.grafana.container = ContainerState::Absent;
            seen.grafana.volume = VolumeState::Absent;
        });
        assert!(plan.blocker().is_none(), "{plan:?}");
    }
}
