//! Plans `up`: all resources of a stack, in display order.

use super::network::network;
use super::server::{self, PlanInputs, server};
use super::settings::{settings, unknown_settings};
use super::{FailureCause, Finding, Item, Phase, Plan, Resource, Step, UpOptions, grafana, unfinished};
use crate::model::container_config::Difference;
use crate::model::observed::{InfluxdbState, Observed, PortHolder, RunState, VolumeState};
use crate::model::role::{PerRole, Role};
use crate::model::stack::{DashboardId, Stack};
use crate::model::upgrade::{Upgrade, UpgradeState};

/// The plan that turns the observed state into the desired state.
#[must_use]
pub fn up(stack: &Stack, seen: &Observed, options: UpOptions) -> Plan {
    let mut items = Vec::new();
    let network = network(stack, seen);
    // A server's blocker is more specific, so it is reported first.
    let (foreign, network) = match network {
        Some(item) if matches!(item.finding, Finding::Blocked(_)) => (Some(item), None),
        network => (None, network),
    };
    items.extend(network);
    let upgrade = seen.settings.upgrade.as_ref();
    let inputs = PlanInputs { stack, options, upgrade, time: seen.time };
    let servers =
        PerRole::from_fn(|role| server(&inputs, role, seen.server(role), frees_port_first(stack, seen, role)));
    let is_known = unknown_settings(stack).is_none();
    let is_kept = |role| is_known && keeps_content(servers.get(role));
    let kept_influxdb = seen.influxdb_state().filter(|_| is_kept(Role::Influxdb));
    let kept_grafana = seen.grafana_state().filter(|_| is_kept(Role::Grafana));
    let database = database(stack, kept_influxdb);
    let retention = retention(stack, kept_influxdb);
    let keeps_retention = !is_retention_settled(stack, seen, &database, retention.as_ref());
    items.extend(match unfinished(stack, seen) {
        Some(blocker) => Some(Item::new(Resource::Settings, blocker.into(), vec![])),
        None => settings(stack, &seen.settings, keeps_retention),
    });
    let inside = grafana::inside(stack, kept_grafana, options);
    let query = grafana::query(kept_grafana, &database, &inside);
    items.extend(servers.into_iter());
    items.extend(foreign);
    items.push(database);
    items.extend(retention);
    items.extend(inside);
    items.push(query);
    let mut plan = Plan::new(items);
    if stack.container(Role::Grafana).is_some() && !plan.rolls_back() {
        // After the query, because accepting a new version also queries through the data source.
        let edited = plan.finding(Resource::Dashboard(DashboardId::Bundled)) == Some(&Finding::Edited);
        // Without the right organisation, a query proves nothing.
        let is_unreadable = kept_grafana.is_some_and(grafana::holds_unreadable);
        plan.items.extend(upgrade.filter(|_| !is_unreadable).and_then(|upgrade| finish_upgrade(upgrade, edited)));
    }
    plan
}

/// Accepts the new image once it answers the dashboard's queries, and then deletes the copy of the database.
fn finish_upgrade(upgrade: &Upgrade, edited: bool) -> Option<Item> {
    let accepted = Upgrade { state: UpgradeState::Accepted, ..upgrade.clone() };
    let accept = vec![Step::ProveDashboard { edited }, Step::RecordUpgrade(Box::new(accepted))];
    let (finding, mut steps) = match upgrade.state {
        UpgradeState::Unproven => ("the new image is not accepted yet", accept),
        UpgradeState::Accepted => ("the copy of the previous database is not deleted yet", vec![]),
        UpgradeState::Refused | UpgradeState::Postponed | UpgradeState::Undone | UpgradeState::Ended => return None,
    };
    steps.extend([Step::DeleteDatabaseCopy, Step::EndUpgrade(None)]);
    let steps = steps.into_iter().map(|step| (Phase::End, step)).collect();
    Some(Item { steps, ..Item::new(Resource::Upgrade, Finding::Requested(finding), vec![]) })
}

/// Removes the container that a run created only to read Grafana's volume, before the run ends with a blocker.
/// `executed` are the steps of that run.
#[must_use]
pub fn withdraw<'a>(seen: &Observed, executed: impl DoubleEndedIterator<Item = &'a Step>) -> Option<Plan> {
    let creates = |step: &Step| matches!(step, Step::CreateContainer(new) if new.role == Role::Grafana);
    let starts = |step: &Step| *step == Step::StartContainer(Role::Grafana);
    executed.rev().find(|step| creates(step) || starts(step)).filter(|last| creates(last))?;
    let actual = seen.grafana.container.ours().filter(|actual| actual.run == RunState::Created)?;
    let steps = server::removal(Role::Grafana, actual, seen.grafana.content.as_ref());
    let finding = Finding::Requested("not needed any more");
    Some(Plan::new(vec![Item::new(Resource::Server(Role::Grafana), finding, steps)]))
}

/// Withdraws the announced version of a Grafana whose start failed before it ran.
#[must_use]
pub fn withdraw_announcement(step: Option<&Step>, cause: FailureCause) -> Option<Plan> {
    let has_not_run = step == Some(&Step::StartContainer(Role::Grafana)) && cause == FailureCause::Unpublished;
    let finding = Finding::Requested("it was not started");
    let item = Item::new(Resource::Server(Role::Grafana), finding, vec![Step::ClearIntendedVersion]);
    has_not_run.then(|| Plan::new(vec![item]))
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

/// Compares the retention period only if one is set. A missing database is created with it; while
/// the current period is unreadable, it is not changed.
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
