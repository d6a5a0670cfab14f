//! Plans one server: a container or an external server, and its steps by phase.
//!
//! A plan ends after a step that reveals a fact on which its other steps depend: a pulled image, the content of a
//! volume that only a container shows, or the answer of Grafana. Its other steps are then a prediction.

use super::blockers::{failing, managed_server, not_the_container, refused, unusable_server};
use super::container::{container, needs_content};
use super::{BlockReason, Blocker, Finding, Item, Phase, Resource, Step, UpOptions};
use crate::model::last_run::LastRun;
use crate::model::observed::{
    ContainerState, ManagedServer, ObservedServer, OurContainer, RunState, ServerResponse, VolumeState,
};
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, Service, Stack};
use crate::model::upgrade::Upgrade;
use crate::model::volume_content::VolumeContent;

/// The input for planning one server.
pub(super) struct ServerContext<'a> {
    pub(super) stack: &'a Stack,
    pub(super) spec: &'a DesiredContainer,
    pub(super) seen: &'a ObservedServer,
    pub(super) options: UpOptions,
    /// Whether the container is removed first because the other role needs its port.
    pub(super) frees_port_first: bool,
    /// A pending upgrade of Grafana.
    pub(super) upgrade: Option<&'a Upgrade>,
    /// The last run on Grafana's volume.
    pub(super) last: LastRun,
    /// The time of the snapshot, in microseconds since 1970.
    pub(super) time: u128,
}

impl ServerContext<'_> {
    /// Whether the previous database must be restored before the desired image starts.
    pub(super) fn rolls_back(&self) -> bool {
        let is_kept = self.seen.volume != VolumeState::Absent;
        is_kept && self.upgrade.is_some_and(|upgrade| upgrade.must_roll_back(&self.spec.config.image))
    }

    /// Whether only a container can show the content of Grafana's volume.
    pub(super) fn needs_container(&self) -> bool {
        let is_kept = matches!(self.seen.volume, VolumeState::Ours { .. });
        self.spec.role == Role::Grafana && is_kept && self.seen.container == ContainerState::Absent
    }

    /// Whether the content of Grafana's volume is needed and could not be read through its container.
    pub(super) fn is_unread(&self, actual: &OurContainer) -> bool {
        let is_read = self.seen.content.is_some();
        self.spec.role == Role::Grafana
            && !is_read
            && needs_content(self.stack, actual, self.seen.image.as_ref(), self.upgrade)
    }

    /// The steps that remove the container.
    pub(super) fn removal(&self, actual: &OurContainer) -> Vec<Step> {
        removal(self.spec.role, actual, self.seen.content.as_ref())
    }
}

/// Whether a version is intended for a container that was never started, and has migrated nothing.
pub(super) fn has_unused_intended_version(actual: &OurContainer, content: Option<&VolumeContent>) -> bool {
    actual.run == RunState::Created && content.is_some_and(|content| content.files.is_intended_for(&actual.id))
}

/// The steps that remove a container.
pub(super) fn removal(role: Role, actual: &OurContainer, content: Option<&VolumeContent>) -> Vec<Step> {
    let mut steps = Vec::new();
    if has_unused_intended_version(actual, content) {
        steps.push(Step::ClearIntendedVersion);
    }
    steps.push(Step::RemoveContainer(role));
    steps
}

/// The finding about one server, and its steps by phase.
pub(super) struct ServerPlan {
    pub(super) finding: Finding,
    pub(super) steps: Vec<(Phase, Step)>,
    pub(super) until: Phase,
}

impl ServerPlan {
    pub(super) const fn new(finding: Finding) -> Self {
        Self { finding, steps: vec![], until: Phase::End }
    }

    pub(super) fn blocked(blocker: Blocker) -> Self {
        Self::new(Finding::Blocked(blocker))
    }

    /// Work on a running server, which may answer differently afterwards.
    pub(super) fn changing(finding: Finding, steps: Vec<Step>) -> Self {
        let until = if steps.is_empty() { Phase::End } else { Phase::Changes };
        Self::new(finding).with(Phase::Changes, steps).until(until)
    }

    pub(super) fn with(mut self, phase: Phase, steps: impl IntoIterator<Item = Step>) -> Self {
        self.add(phase, steps);
        self
    }

    pub(super) fn add(&mut self, phase: Phase, steps: impl IntoIterator<Item = Step>) {
        self.steps.extend(steps.into_iter().map(|step| (phase, step)));
    }

    /// The last phase before the server is observed again.
    pub(super) fn until(mut self, phase: Phase) -> Self {
        self.until = self.until.min(phase);
        self
    }
}

/// The phase in which a container is removed: before the other role starts, if that role needs its port.
pub(super) const fn removal_phase(frees_port_first: bool) -> Phase {
    if frees_port_first { Phase::Release } else { Phase::Changes }
}

/// Everything that is planned for both servers.
pub(super) struct PlanInputs<'a> {
    pub(super) stack: &'a Stack,
    pub(super) options: UpOptions,
    pub(super) upgrade: Option<&'a Upgrade>,
    pub(super) time: u128,
}

/// Plans one server.
pub(super) fn server(inputs: &PlanInputs<'_>, role: Role, seen: &ObservedServer, frees_port_first: bool) -> Item {
    let &PlanInputs { stack, options, upgrade, time } = inputs;
    let planned = match stack.service(role) {
        Service::External { url } => external(stack, role, &url.to_string(), seen, frees_port_first),
        Service::Container(spec) => {
            let upgrade = upgrade.filter(|_| role == Role::Grafana);
            let last = LastRun::of(seen, upgrade);
            container(&ServerContext { stack, spec, seen, options, frees_port_first, upgrade, last, time })
        }
    };
    let ServerPlan { finding, steps, until } = planned.unwrap_or_else(ServerPlan::blocked);
    // No step depends on what only a running InfluxDB reveals.
    let until = if role == Role::Grafana { until } else { Phase::End };
    Item { resource: Resource::Server(role), finding, steps, until }
}

/// Plans an external server. A managed container that it replaces is removed once the server has answered.
fn external(
    stack: &Stack,
    role: Role,
    url: &str,
    seen: &ObservedServer,
    frees_port_first: bool,
) -> Result<ServerPlan, Blocker> {
    // If a container does not run, another server may answer at its address.
    let is_silent = matches!(seen.response, ServerResponse::Silent(_));
    let leads_to = |managed: &&ManagedServer| managed.runs || (managed.is_own && is_silent);
    if let Some(managed) = seen.managed_behind.as_ref().filter(leads_to) {
        return Err(managed_server(stack, role, url, managed, "up"));
    }
    match &seen.response {
        ServerResponse::Answering(_) => Ok(match &seen.container {
            ContainerState::Ours(actual) => {
                let finding = Finding::Requested("an external server replaces the container");
                let steps = removal(role, actual, seen.content.as_ref());
                ServerPlan::new(finding).with(removal_phase(frees_port_first), steps)
            }
            _ => ServerPlan::new(Finding::InSync),
        }),
        ServerResponse::Unasked => Ok(ServerPlan::changing(Finding::Unknown, vec![Step::AwaitAnswer(role)])),
        ServerResponse::Starting(why) => {
            Ok(ServerPlan::changing(Finding::Silent(why.clone()), vec![Step::AwaitAnswer(role)]))
        }
        ServerResponse::Silent(why) => Err(Blocker {
            kind: BlockReason::Server,
            why: format!("{} at {url} does not answer: {why}", role.title()),
            hint: format!(
                "start {}, correct --{role}-url, or omit it to use a container (--{role}-url '' removes a remembered URL)",
                role.title()
            ),
        }),
        ServerResponse::Failing(why) => Err(failing(stack, role, url, why)),
        ServerResponse::Unusable(what) => Err(unusable_server(stack, role, url, what)),
        ServerResponse::Refusing(message) => Err(refused(stack, role, url, message)),
        ServerResponse::NotTheContainer => Err(not_the_container(stack, role, url)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::Observed;
    use crate::model::plan;
    use crate::model::role::PerRole;
    use crate::samples::{self, external, plan_with, steps};

    #[test]
    fn a_container_is_removed_once_its_external_replacement_has_answered() {
        let mut desired = samples::stack();
        desired.services.influxdb = external("db", 8086);
        let answering = plan_with(&desired, |_| {});
        assert_eq!(steps(&answering), [Step::RemoveContainer(Role::Influxdb)]);
        let silent = plan_with(&desired, |seen| seen.influxdb.response = ServerResponse::Silent("down".into()));
        assert!(silent.blocker().is_some() && !steps(&silent).contains(&Step::RemoveContainer(Role::Influxdb)));
        desired.services.grafana = external("g", 3000);
        let both = steps(&plan_with(&desired, |_| {}));
        assert!(both.contains(&Step::RemoveContainer(Role::Grafana)), "{both:?}");
    }

    #[test]
    fn a_managed_container_is_not_an_external_server_and_nothing_is_changed() {
        let services = PerRole { influxdb: external("db", 8086), grafana: external("g", 3000) };
        let desired = Stack { services, ..samples::stack() };
        let influxdb = [
            samples::in_sync().influxdb.response,
            ServerResponse::Unasked,
            ServerResponse::Starting("soon".into()),
            ServerResponse::Silent("down".into()),
            ServerResponse::Refusing("no".into()),
        ];
        let worlds = influxdb.into_iter().map(|response| {
            let mut seen = samples::in_sync();
            if !matches!(response, ServerResponse::Answering(_)) {
                seen.grafana.response = ServerResponse::Unasked;
            }
            seen.influxdb.response = response;
            seen
        });
        for seen in worlds {
            for role in Role::ALL {
                for (is_own, runs) in [(true, true), (false, true), (true, false), (false, false)] {
                    managed_behind(&desired, seen.clone(), role, is_own, runs);
                }
            }
        }
    }

    /// Checks the plans if the role's URL leads to a container of this or another instance.
    fn managed_behind(desired: &Stack, mut seen: Observed, role: Role, is_own: bool, runs: bool) {
        let (instance, container) = (if is_own { "x" } else { "y" }.to_string(), "c".to_string());
        let is_silent = matches!(seen.server(role).response, ServerResponse::Silent(_));
        seen.server_mut(role).managed_behind = Some(ManagedServer { container, instance, is_own, runs });
        let plan = plan::up(desired, &seen, UpOptions::default());
        let expected = match (is_own, runs) {
            (_, true) => true,
            // Another server may have the address of a stopped container.
            (true, false) => is_silent,
            (false, false) => false,
        };
        let is_refused = matches!(
            plan.finding(Resource::Server(role)),
            Some(Finding::Blocked(blocker)) if blocker.kind == BlockReason::Settings
        );
        assert_eq!(is_refused, expected, "{role} {is_own} {runs}: {plan:?}");
        for volumes in [false, true] {
            let down = plan::down(desired, &seen, volumes);
            assert_eq!(down.blocker().is_some(), is_own && runs, "{role} {is_own} {runs}: {down:?}");
        }
    }

    #[test]
    fn a_start_that_did_not_happen_is_withdrawn_with_its_container() {
        let both = [Step::ClearIntendedVersion, Step::RemoveContainer(Role::Grafana)];
        let mut desired = samples::stack();
        let mut seen = samples::in_sync();
        samples::intend_start(&mut seen);
        assert!(steps(&plan::down(&desired, &seen, false)).starts_with(&both));
        desired.services.grafana = external("g", 3000);
        let replaced = plan_with(&desired, samples::intend_start);
        assert!(steps(&replaced).windows(2).any(|pair| pair == both), "{replaced:?}");
    }
}
