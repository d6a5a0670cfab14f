//! Decides whether a run that failed with a new image of Grafana goes back to the previous image.

use super::settings::before_record;
use super::{BlockReason, Finding, Item, Plan, Resource, Step};
use crate::model::observed::Observed;
use crate::model::refusal::Refusal;
use crate::model::role::Role;
use crate::model::stack::Stack;
use crate::model::upgrade::{Upgrade, UpgradeState};

/// The kind of error that ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// A server did not become ready or did not answer, or a difference remained.
    NotReady,
    /// A server answered with this HTTP status.
    Answer(u16),
    /// The engine returned an error.
    Engine(Refusal),
    /// The address of a container could not be published.
    Unpublished,
    /// The user has to act first.
    Blocked(Resource, BlockReason),
    /// Anything else, such as a rejected login.
    Other,
}

/// What must be observed for the decision about a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RollbackNeeds {
    Engine,
    /// InfluxDB's answer, too: without it, no image answers a query.
    Influxdb,
}

/// The upgrade to give up, and the plan that records this.
#[derive(Debug)]
pub struct Rollback {
    pub upgrade: Upgrade,
    pub plan: Plan,
}

/// The rollback of a run that failed with `cause` in `step`, if the new image caused the failure or could not be tried.
/// An image that has been in use for long is kept, because users' changes would be lost.
#[must_use]
pub fn roll_back(stack: &Stack, seen: &Observed, step: Option<&Step>, cause: FailureCause) -> Option<Rollback> {
    let (state, needs) = verdict(step, cause)?;
    if needs == RollbackNeeds::Influxdb && seen.influxdb.version.is_none() {
        return None;
    }
    let upgrade = Upgrade { state, ..tried(stack, seen)?.clone() };
    let record = Step::RecordUpgrade(Box::new(upgrade.clone()));
    let steps = before_record(stack, seen).into_iter().chain([record]).collect();
    let item = Item::new(Resource::Upgrade, Finding::Requested("the new image failed"), steps);
    Some(Rollback { upgrade, plan: Plan::new(vec![item]) })
}

/// The state of an upgrade after a failure: failed if the new image does not work, postponed if it could not be tried.
/// `None` if the failure says nothing about the image, such as a start that would fail with every image.
#[must_use]
pub(crate) fn verdict(step: Option<&Step>, cause: FailureCause) -> Option<(UpgradeState, RollbackNeeds)> {
    use FailureCause::{Answer, Blocked, Engine, NotReady};
    use Refusal::{Architecture, Denied, Disk, NoSuchProgram, Other, UnexpectedFile, Unrunnable};
    let is_of_server = match cause {
        NotReady | Blocked(Resource::Server(Role::Grafana), BlockReason::Server) => true,
        Answer(status) => status >= 500,
        _ => false,
    };
    let has_failed = match step {
        // The plan was blocked. A run that ended after its steps blames no image.
        None => is_of_server && matches!(cause, Blocked(..)),
        Some(Step::CopyGrafanaDatabase { .. }) => cause == Engine(UnexpectedFile),
        Some(Step::StartContainer(Role::Grafana)) => {
            is_of_server || matches!(cause, Engine(NoSuchProgram | Architecture | Unrunnable))
        }
        Some(
            Step::AwaitAnswer(Role::Grafana)
            | Step::WriteVersion { .. }
            | Step::SaveDataSource { .. }
            | Step::SaveDashboard { .. }
            | Step::RecordDashboard { .. }
            | Step::VerifyQuery { .. }
            | Step::ProveDashboard { .. },
        ) => is_of_server,
        Some(_) => false,
    };
    // Without a copy of the database, the new image is not started.
    let is_untried = matches!(step, Some(Step::CopyGrafanaDatabase { .. }))
        && (is_of_server || matches!(cause, Engine(Denied | Disk | Other)));
    let state = if has_failed { Some(UpgradeState::Failed) } else { is_untried.then_some(UpgradeState::Postponed) };
    let is_query = matches!(step, Some(Step::VerifyQuery { .. } | Step::ProveDashboard { .. }));
    Some((state?, if is_query { RollbackNeeds::Influxdb } else { RollbackNeeds::Engine }))
}

/// The upgrade whose new image the run has tried.
fn tried<'a>(stack: &Stack, seen: &'a Observed) -> Option<&'a Upgrade> {
    let pending = seen.settings.upgrade.as_ref().filter(|upgrade| upgrade.state == UpgradeState::Unproven)?;
    let desired = &stack.container(Role::Grafana)?.config.image;
    // If both images have the same name and no id is known, they cannot be distinguished.
    let is_known = pending.from.name != pending.to.name || pending.from.id.is_some();
    // If it differs, the image that failed is the previous one, on which a login was tried.
    let made = seen.grafana.container.ours()?.config.as_ref()?;
    let is_tried = pending.to.name == *desired && made.image == pending.to.name;
    Some(pending).filter(|pending| is_known && is_tried && pending.is_recent(seen.time, stack.timeout))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::image::ImageRef;
    use crate::model::observed::ContainerState;
    use crate::model::stack::{DashboardId, DesiredContainer, Service};
    use crate::model::upgrade::NamedImage;
    use crate::samples;

    const NOT_READY: FailureCause = FailureCause::NotReady;

    fn copy() -> Step {
        Step::CopyGrafanaDatabase { upgrade: "1".into() }
    }

    #[test]
    fn the_step_and_the_cause_show_whether_the_image_failed() {
        use FailureCause::{Answer, Blocked, Engine, Other};
        let (failed, postponed) = (Some(UpgradeState::Failed), Some(UpgradeState::Postponed));
        let start = || Some(Step::StartContainer(Role::Grafana));
        let wait = || Some(Step::AwaitAnswer(Role::Grafana));
        let save = || Some(Step::SaveDashboard { id: DashboardId::Bundled, title: String::new(), replaces: None });
        let server = Blocked(Resource::Server(Role::Grafana), BlockReason::Server);
        for (step, cause, expected) in [
            // The image does not start.
            (start(), Engine(Refusal::NoSuchProgram), failed),
            (start(), Engine(Refusal::Architecture), failed),
            (start(), Engine(Refusal::Unrunnable), failed),
            (Some(Step::StartContainer(Role::Influxdb)), Engine(Refusal::Unrunnable), None),
            // Such a start fails with every image.
            (start(), Engine(Refusal::Firewall), None),
            (start(), Engine(Refusal::PrivilegedPort), None),
            (start(), Engine(Refusal::Cgroups), None),
            (start(), Engine(Refusal::AddressPools), None),
            (start(), Engine(Refusal::Disk), None),
            (start(), Engine(Refusal::Gone), None),
            (start(), Engine(Refusal::Denied), None),
            (start(), Engine(Refusal::Other), None),
            (wait(), Engine(Refusal::NoSuchProgram), None),
            (wait(), Engine(Refusal::Architecture), None),
            (wait(), Engine(Refusal::Unrunnable), None),
            // It starts and does not work.
            (start(), NOT_READY, failed),
            (wait(), NOT_READY, failed),
            (wait(), server, failed),
            (wait(), Other, None),
            (Some(Step::AwaitAnswer(Role::Influxdb)), NOT_READY, None),
            (save(), Answer(500), failed),
            (save(), Answer(403), None),
            (Some(Step::SaveDataSource { replaces: None, becomes_default: true }), Answer(503), failed),
            (Some(Step::VerifyQuery { saves_left: 3, since: None }), NOT_READY, failed),
            (Some(Step::ProveDashboard { edited: false }), NOT_READY, failed),
            (Some(Step::SetHome { uid: "x".into() }), Answer(500), None),
            // It was not started, because its database could not be copied.
            (Some(copy()), Engine(Refusal::Disk), postponed),
            (Some(copy()), Engine(Refusal::Denied), postponed),
            (Some(copy()), Engine(Refusal::Other), postponed),
            (Some(copy()), NOT_READY, postponed),
            (Some(copy()), Engine(Refusal::UnexpectedFile), failed),
            (Some(copy()), Engine(Refusal::Gone), None),
            // No step failed.
            (None, server, failed),
            (None, Blocked(Resource::Server(Role::Influxdb), BlockReason::Server), None),
            (None, Blocked(Resource::Server(Role::Grafana), BlockReason::Refused), None),
            (None, NOT_READY, None),
        ] {
            assert_eq!(verdict(step.as_ref(), cause).map(|(state, _)| state), expected, "{step:?} {cause:?}");
        }
    }

    fn image(tag: &str, id: Option<&str>) -> NamedImage {
        let name = ImageRef::parse(&format!("grafana/grafana:{tag}")).unwrap();
        NamedImage { name, id: id.map(String::from) }
    }

    /// A stack and an observation in which Grafana runs from the new image of a pending upgrade.
    fn upgrading(from: NamedImage, to: NamedImage) -> (Stack, Observed) {
        let desired = samples::desired_container(Role::Grafana);
        let mut actual = samples::our_container(Role::Grafana);
        actual.config.as_mut().unwrap().image = to.name.clone();
        let mut config = desired.config.clone();
        config.image = to.name.clone();
        let grafana = Service::Container(Box::new(DesiredContainer { config, ..desired }));
        let mut seen = samples::observed();
        seen.grafana.container = ContainerState::Ours(Box::new(actual));
        seen.settings.upgrade = Some(Upgrade { id: "1".into(), from, to, state: UpgradeState::Unproven });
        seen.influxdb.version = Some("1.12.4".into());
        let mut stack = samples::stack();
        stack.services.grafana = grafana;
        (stack, seen)
    }

    fn rolls_back(stack: &Stack, seen: &Observed, step: &Step) -> bool {
        roll_back(stack, seen, Some(step), NOT_READY).is_some()
    }

    #[test]
    fn an_unproven_upgrade_to_the_failed_image_is_recorded_as_given_up() {
        let (stack, seen) = upgrading(image("12.4.10", None), image("13.0.0", None));
        let wait = Step::AwaitAnswer(Role::Grafana);
        let Rollback { upgrade, plan } = roll_back(&stack, &seen, Some(&wait), NOT_READY).unwrap();
        let pending = seen.settings.upgrade.clone().unwrap();
        assert_eq!(upgrade, Upgrade { state: UpgradeState::Failed, ..pending.clone() });
        let record = Step::RecordUpgrade(Box::new(upgrade));
        let save = Step::SaveSettings { values: BTreeMap::new(), replaces: None };
        assert_eq!(plan.executable().collect::<Vec<_>>(), [&save, &record], "no settings are stored");
        let mut saved = seen.clone();
        saved.settings.values = Some(BTreeMap::new());
        let plan = roll_back(&stack, &saved, Some(&wait), NOT_READY).unwrap().plan;
        assert_eq!(plan.executable().collect::<Vec<_>>(), [&record]);
        let postponed = roll_back(&stack, &seen, Some(&copy()), NOT_READY).unwrap().upgrade;
        assert_eq!(postponed.state, UpgradeState::Postponed);
        for state in [UpgradeState::Failed, UpgradeState::Postponed, UpgradeState::Undone, UpgradeState::Ended] {
            let mut seen = seen.clone();
            seen.settings.upgrade = Some(Upgrade { state, ..pending.clone() });
            assert!(!rolls_back(&stack, &seen, &wait), "{state:?}");
        }
    }

    #[test]
    fn an_image_is_kept_if_another_one_failed_or_it_was_in_use_for_long() {
        let wait = Step::AwaitAnswer(Role::Grafana);
        let (stack, seen) = upgrading(image("12.4.10", None), image("13.0.0", None));
        let late = Observed { time: 3_700_000_000, ..seen.clone() };
        assert!(!rolls_back(&stack, &late, &wait), "users may have stored something");
        let mut other = seen.clone();
        other.grafana.container = ContainerState::Ours(Box::new(samples::our_container(Role::Grafana)));
        assert!(!rolls_back(&stack, &other, &wait), "the previous image failed");
        assert!(!rolls_back(&samples::stack(), &seen, &wait), "this run does not try the new image");
        let (stack, seen) = upgrading(image("latest", None), image("latest", Some("2")));
        assert!(!rolls_back(&stack, &seen, &wait), "the images cannot be distinguished");
        let (stack, seen) = upgrading(image("latest", Some("1")), image("latest", Some("2")));
        assert!(rolls_back(&stack, &seen, &wait));
    }

    #[test]
    fn a_query_blames_no_image_while_influxdb_does_not_answer() {
        let (stack, mut seen) = upgrading(image("12.4.10", None), image("13.0.0", None));
        seen.influxdb.version = None;
        for (step, expected) in [
            (Step::VerifyQuery { saves_left: 3, since: None }, false),
            (Step::ProveDashboard { edited: false }, false),
            (Step::AwaitAnswer(Role::Grafana), true),
        ] {
            assert_eq!(rolls_back(&stack, &seen, &step), expected, "{step}");
        }
    }
}
