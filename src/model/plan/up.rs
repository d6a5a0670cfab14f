//! Plans `up`: all resources of a stack, in display order.

use std::time::Instant;

use super::network::network;
use super::server::{self, PlanInputs, server};
use super::settings::{before_record, settings, unknown_settings};
use super::{Contradictions, FailureCause, Finding, Item, Phase, Plan, Resource, Step, UpOptions, grafana, unfinished};
use crate::model::container_config::Difference;
use crate::model::observed::{InfluxdbState, Observed, PortHolder, RunState, VolumeState};
use crate::model::role::{PerRole, Role};
use crate::model::stack::{DashboardId, Stack};
use crate::model::upgrade::{Upgrade, UpgradeState};

/// The plan that turns the observed state into the desired state.
#[must_use]
pub fn up(stack: &Stack, seen: &Observed, options: UpOptions) -> Plan {
    let mut items = Vec::new();
    let upgrade = seen.settings.upgrade.as_ref();
    let inputs = PlanInputs { stack, options, upgrade, time: seen.time };
    let servers =
        PerRole::from_fn(|role| server(&inputs, role, seen.server(role), frees_port_first(stack, seen, role)));
    let needs_address = |(_, step): &(Phase, Step)| matches!(step, Step::StartContainer(_) | Step::CheckAddress(..));
    let network = network(stack, seen, servers.iter().any(|item| item.steps.iter().any(needs_address)));
    // A server's blocker is more specific, so it is reported first.
    let (foreign, network) = match network {
        Some(item) if matches!(item.finding, Finding::Blocked(_)) => (Some(item), None),
        network => (None, network),
    };
    items.extend(network);
    let is_known = unknown_settings(stack).is_none();
    let is_kept = |role| is_known && keeps_content(servers.get(role));
    let kept_influxdb = seen.influxdb_state().filter(|_| is_kept(Role::Influxdb));
    let kept_grafana = seen.grafana_state().filter(|_| is_kept(Role::Grafana));
    let database = database(stack, kept_influxdb);
    let retention = retention(stack, kept_influxdb);
    let keeps_retention = !is_retention_settled(stack, seen, &database, retention.as_ref());
    items.extend(match unfinished(stack, seen) {
        Some(blocker) => Some(Item::new(Resource::Settings, blocker.into(), vec![])),
        None => settings(stack, seen, keeps_retention),
    });
    let inside = grafana::inside(stack, kept_grafana, options);
    let query = grafana::query(kept_grafana, &database, &inside, options);
    // Without the right organisation, a query proves nothing.
    let is_unreadable = grafana::is_undecidable(kept_grafana, &inside);
    items.extend(servers.into_iter());
    items.extend(foreign);
    items.push(database);
    items.extend(retention);
    items.extend(inside);
    items.push(query);
    let mut plan = Plan::new(items);
    let is_early_record = |(phase, step): &(Phase, Step)| *phase < Phase::Settings && is_record(step);
    if plan.items.iter().any(|item| item.steps.iter().any(is_early_record))
        && let Some(save) = before_record(stack, seen)
        && let Some(settings) = plan.items.iter_mut().find(|item| item.resource == Resource::Settings)
        && !matches!(settings.finding, Finding::Blocked(_))
    {
        settings.steps = vec![(Phase::Trial, save)];
    }
    if stack.container(Role::Grafana).is_some() && !plan.rolls_back() {
        // After the query, because accepting a new version also queries through the data source.
        let edited = plan.finding(Resource::Dashboard(DashboardId::Bundled)) == Some(&Finding::Edited);
        // A new record replaces the observed one.
        let is_replaced = plan.steps().any(|(step, _)| is_record(step));
        // The next plan shows whether Grafana stored them unchanged.
        let saves = plan.steps().any(|(step, _)| matches!(step, Step::SaveDashboard { .. }));
        let is_decided = !is_unreadable && !is_replaced && !saves;
        plan.items.extend(upgrade.filter(|_| is_decided).and_then(|upgrade| finish_upgrade(upgrade, edited)));
    }
    plan
}

/// Whether a step writes the record of an upgrade.
const fn is_record(step: &Step) -> bool {
    matches!(step, Step::RecordUpgrade(_) | Step::EndUpgrade(_))
}

/// Accepts the new image once it answers the dashboard's queries, and then deletes the copy of the database.
fn finish_upgrade(upgrade: &Upgrade, edited: bool) -> Option<Item> {
    let accepted = Upgrade { state: UpgradeState::Accepted, ..upgrade.clone() };
    let accept = vec![Step::ProveDashboard { edited }, Step::RecordUpgrade(Box::new(accepted))];
    let (finding, mut steps) = match upgrade.state {
        UpgradeState::Unproven => ("the new image is not accepted yet", accept),
        UpgradeState::Accepted => ("the copy of the previous database is not deleted yet", vec![]),
        UpgradeState::Failed | UpgradeState::Postponed | UpgradeState::Undone | UpgradeState::Ended => return None,
    };
    steps.extend([Step::DeleteDatabaseCopy, Step::EndUpgrade(None)]);
    let steps = steps.into_iter().map(|step| (Phase::End, step)).collect();
    Some(Item { steps, ..Item::new(Resource::Upgrade, Finding::Requested(finding), vec![]) })
}

/// Removes the container that a run created only to read Grafana's volume, before the run ends with a blocker.
/// `executed` are the steps of that run.
#[must_use]
pub(crate) fn withdraw<'a>(seen: &Observed, executed: impl DoubleEndedIterator<Item = &'a Step>) -> Option<Plan> {
    let creates = |step: &Step| matches!(step, Step::CreateContainer(new) if new.role == Role::Grafana);
    let starts = |step: &Step| *step == Step::StartContainer(Role::Grafana);
    executed.rev().find(|step| creates(step) || starts(step)).filter(|last| creates(last))?;
    let actual = seen.grafana.container.ours().filter(|actual| actual.run == RunState::Created)?;
    let steps = server::removal(Role::Grafana, actual, seen.grafana.content.as_ref());
    let finding = Finding::Requested("not needed any more");
    Some(Plan::new(vec![Item::new(Resource::Server(Role::Grafana), finding, steps)]))
}

/// Whether a run may have recorded the intended version of a Grafana that it could not start.
#[must_use]
pub(crate) fn may_leave_intended_version(step: Option<&Step>, cause: FailureCause) -> bool {
    step == Some(&Step::StartContainer(Role::Grafana)) && cause == FailureCause::Unpublished
}

/// Clears the intended version of a container that has never run.
#[must_use]
pub(crate) fn clear_intended_version(seen: &Observed) -> Option<Plan> {
    let actual = seen.grafana.container.ours()?;
    let finding = Finding::Requested("it was not started");
    let item = Item::new(Resource::Server(Role::Grafana), finding, vec![Step::ClearIntendedVersion]);
    server::has_unused_intended_version(actual, seen.grafana.content.as_ref()).then(|| Plan::new(vec![item]))
}

impl UpOptions {
    /// The options that are left for the next plan after this one was executed.
    #[must_use]
    pub fn after(self, plan: &Plan) -> Self {
        if plan.until() == Phase::End {
            return Self::default();
        }
        let sets_password = |step: &Step| matches!(step, Step::ResetPassword(_) | Step::WriteFirstPassword(_));
        Self {
            pull: self.pull && !plan.executable().any(|step| matches!(step, Step::PullImage(_))),
            reset_password: self.reset_password && !plan.executable().any(sets_password),
            ..self
        }
    }

    /// The options that are left after this plan was executed up to its query, whose answer contradicts the data source.
    #[must_use]
    pub fn after_contradiction(self, plan: &Plan, since: Instant) -> Self {
        let contradictions = Contradictions { count: self.contradictions.count + 1, since: Some(since) };
        Self { contradictions, ..self.after(plan) }
    }
}

/// Whether the role's container holds the port of another role and is removed first.
fn frees_port_first(stack: &Stack, seen: &Observed, role: Role) -> bool {
    let needs = |other: &Role| {
        stack.container(*other).is_some() && seen.server(*other).port_holder == Some(PortHolder::OtherRole(role))
    };
    Role::ALL.iter().any(needs)
}

/// Whether the retention period can be remembered: the database has it or will get it in this plan,
/// and any loss of data is confirmed first.
fn is_retention_settled(stack: &Stack, seen: &Observed, database: &Item, retention: Option<&Item>) -> bool {
    let is_new = stack.container(Role::Influxdb).is_some() && seen.influxdb.volume == VolumeState::Absent;
    is_new || database.finding == Finding::Missing || retention.is_none_or(|item| item.finding != Finding::Unknown)
}

/// Whether the server's content is still valid when its steps run: a server that is started or
/// replaced may come back empty.
fn keeps_content(server: &Item) -> bool {
    let replaced = server.steps.iter().any(|(_, step)| matches!(step, Step::CreateContainer(_)));
    matches!(server.finding, Finding::InSync | Finding::Requested(_)) && !replaced
}

fn database(stack: &Stack, stored: Option<&InfluxdbState>) -> Item {
    let finding = match stored {
        None => Finding::Unknown,
        Some(influxdb) if influxdb.has_database => Finding::InSync,
        Some(_) => Finding::Missing,
    };
    let step = Step::CreateDatabase { name: stack.database.clone(), retention: stack.retention };
    Item::with_step(Resource::Database, finding, step)
}

/// Compares the retention period only if one is set. A missing database is created with it.
fn retention(stack: &Stack, stored: Option<&InfluxdbState>) -> Option<Item> {
    let desired = stack.retention?;
    let Some(actual) = stored.filter(|influxdb| influxdb.has_database).map(|influxdb| influxdb.retention) else {
        return Some(Item::new(Resource::Retention, Finding::Unknown, vec![]));
    };
    if actual == Some(desired) {
        return Some(Item::new(Resource::Retention, Finding::InSync, vec![]));
    }
    let difference = Difference {
        field: "retention".into(),
        actual: actual.map(|actual| actual.to_string()).unwrap_or_default(),
        desired: desired.to_string(),
    };
    let step = Step::SetRetention { database: stack.database.clone(), from: actual, to: desired };
    Some(Item::new(Resource::Retention, Finding::Differs(vec![difference]), vec![step]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container_config::PasswordSource;
    use crate::model::image::ImageRef;
    use crate::model::observed::{ContainerState, DashboardState, GrafanaState, OrganisationState, ServerResponse};
    use crate::model::stack::Login;
    use crate::model::upgrade::NamedImage;
    use crate::model::volume_content::VolumeContent;
    use crate::samples::{self, config_of, container_of, content_of, plan_with, steps};

    const START: Step = Step::StartContainer(Role::Grafana);

    #[test]
    fn an_instance_in_sync_is_not_changed() {
        let plan = plan_with(&samples::stack(), |_| {});
        assert!(plan.in_sync(), "{plan}");
    }

    #[test]
    fn roles_that_swap_ports_release_both_before_either_uses_one() {
        let mut desired = samples::stack();
        config_of(&mut desired, Role::Influxdb).publish.set_port(3000);
        config_of(&mut desired, Role::Grafana).publish.set_port(8086);
        let plan = plan_with(&desired, |seen| {
            seen.influxdb.port_holder = Some(PortHolder::OtherRole(Role::Grafana));
            seen.grafana.port_holder = Some(PortHolder::OtherRole(Role::Influxdb));
            seen.grafana.content = Some(VolumeContent::default());
        });
        assert!(plan.blocker().is_none(), "{plan:?}");
        let at = |one: Step| plan.executable().position(|step| *step == one).unwrap();
        for role in Role::ALL {
            let released = plan.lane(Phase::Release, role).map(|(step, _)| step.clone());
            assert_eq!(released.collect::<Vec<_>>(), [Step::RemoveContainer(role)], "{plan:?}");
            for other in Role::ALL {
                assert!(at(Step::RemoveContainer(role)) < at(Step::StartContainer(other)), "{plan:?}");
            }
        }
    }

    #[test]
    fn options_survive_a_plan_that_prepares_the_next_one() {
        let login = Login { supplies_password: true, is_untried: true, ..samples::stack().login };
        let mut desired = Stack { login, ..samples::stack() };
        let config = config_of(&mut desired, Role::Grafana);
        config.publish.set_port(4000);
        config.password = PasswordSource::File;
        let options = UpOptions { pull: true, overwrite_dashboard: true, reset_password: true, ..UpOptions::default() };
        let mut seen = samples::in_sync();
        container_of(&mut seen, Role::Grafana).run = RunState::Paused;
        seen.grafana.response = ServerResponse::Silent("starting".into());
        let paused = up(&desired, &seen, options);
        assert!(paused.executable().any(|step| *step == Step::PullImage(Role::Grafana)), "{paused:?}");
        let next = options.after(&paused);
        assert!(!next.pull && next.overwrite_dashboard && next.reset_password, "{next:?}");
    }

    #[test]
    fn only_a_container_that_was_created_and_not_started_is_withdrawn() {
        let mut seen = samples::in_sync();
        samples::intend_start(&mut seen);
        let create = plan_with(&samples::stack(), |seen| seen.grafana.container = ContainerState::Absent);
        let created: Vec<Step> = steps(&create).into_iter().take_while(|step| *step != START).collect();
        let both = [Step::ClearIntendedVersion, Step::RemoveContainer(Role::Grafana)];
        assert_eq!(steps(&withdraw(&seen, created.iter()).unwrap()), both);
        let started = [created, vec![START]].concat();
        assert!(withdraw(&seen, started.iter()).is_none() && withdraw(&seen, [].iter()).is_none());
    }

    #[test]
    fn only_a_start_that_failed_before_grafana_ran_clears_its_intended_version() {
        let may_leave = |step: &Step, cause| may_leave_intended_version(Some(step), cause);
        assert!(may_leave(&START, FailureCause::Unpublished));
        assert!(!may_leave(&START, FailureCause::NotReady));
        assert!(!may_leave(&Step::StartContainer(Role::Influxdb), FailureCause::Unpublished));
        assert!(!may_leave(&Step::AwaitAnswer(Role::Grafana), FailureCause::Unpublished));
        let mut seen = samples::in_sync();
        samples::intend_start(&mut seen);
        assert_eq!(steps(&clear_intended_version(&seen).unwrap()), [Step::ClearIntendedVersion]);
        container_of(&mut seen, Role::Grafana).run = RunState::Running;
        assert!(clear_intended_version(&seen).is_none(), "it has run");
        samples::intend_start(&mut seen);
        seen.grafana.content = Some(VolumeContent::default());
        assert!(clear_intended_version(&seen).is_none(), "no version is intended");
    }

    fn image(name: &str, id: &str) -> NamedImage {
        NamedImage { name: ImageRef::parse(name).unwrap(), id: Some(id.into()) }
    }

    #[test]
    fn the_copy_of_an_accepted_upgrade_is_deleted_unless_another_upgrade_replaces_its_record() {
        let (from, to) = (image("grafana/grafana:1.2.0", "2"), image("grafana/grafana:1.3.0", "3"));
        let accepted = Upgrade { id: "2".into(), from, to: to.clone(), state: UpgradeState::Accepted };
        let planned = |name: &str| {
            let mut desired = samples::stack();
            config_of(&mut desired, Role::Grafana).image = ImageRef::parse(name).unwrap();
            let plan = plan_with(&desired, |seen| {
                let actual = container_of(seen, Role::Grafana);
                (actual.config.as_mut().unwrap().image, actual.image_id) = (to.name.clone(), "3".into());
                seen.grafana.image.as_mut().unwrap().id = "3".into();
                seen.grafana.content = Some(VolumeContent::default());
                seen.settings.upgrade = Some(accepted.clone());
            });
            steps(&plan)
        };
        let is_deletion = |step: &Step| matches!(step, Step::DeleteDatabaseCopy | Step::EndUpgrade(_));
        let ends = planned("grafana/grafana:1.3.0");
        assert!(ends.ends_with(&[Step::DeleteDatabaseCopy, Step::EndUpgrade(None)]), "{ends:?}");
        let newer = planned("grafana/grafana:1.4.0");
        let is_record = |step: &Step| matches!(step, Step::RecordUpgrade(new) if new.from == to);
        assert!(newer.iter().any(is_record) && !newer.iter().any(is_deletion), "{newer:?}");
    }

    #[test]
    fn a_new_image_is_judged_once_the_organisation_is_readable_and_the_dashboards_are_stored() {
        let (from, to) = (image("grafana/grafana:1.2.0", "2"), image("grafana/grafana:1.3.0", "3"));
        let mut desired = Stack { organisation: Some("Team".into()), ..samples::stack() };
        config_of(&mut desired, Role::Grafana).image = to.name.clone();
        let stored = || DashboardState::Present(samples::actual_dashboard("new"));
        let proves = |organisation: OrganisationState, dashboard: DashboardState| {
            let plan = plan_with(&desired, |seen| {
                container_of(seen, Role::Grafana).config.as_mut().unwrap().image = to.name.clone();
                let (id, from, to) = ("2".into(), from.clone(), to.clone());
                seen.settings.upgrade = Some(Upgrade { id, from, to, state: UpgradeState::Unproven });
                *content_of(seen) = GrafanaState { organisation, dashboard, ..samples::grafana_state() };
            });
            plan.steps().any(|(step, _)| matches!(step, Step::ProveDashboard { .. } | Step::DeleteDatabaseCopy))
        };
        assert!(!proves(OrganisationState::Unreadable(samples::unreadable()), stored()));
        assert!(!proves(OrganisationState::Present, DashboardState::Missing));
        assert!(proves(OrganisationState::Present, stored()));
    }
}
