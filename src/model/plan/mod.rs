//! Compares the stack with the observed state: findings for `status` and steps for `up` come from
//! one comparison.
//!
//! Every step is idempotent, so a plan from a stale or partial snapshot is safe: a step stays in
//! the plan while its need is unknown.

mod blockers;
mod container;
mod grafana;
mod login;
mod rebuild;
mod restore;
mod running;
mod server;
mod step;
mod upgrade;

use std::collections::BTreeMap;
use std::fmt;

use self::blockers::foreign;
pub use self::blockers::{managed_server, not_the_container, unusable_server};
pub use self::container::needs_content;
pub use self::restore::{
    begin_restore, finish_restore, make_for_restore, remove_unfinished, unfinished, without_instance,
};
pub use self::step::{ContainerUse, NewContainer, Phase, Step};
use super::container_config::Difference;
use super::login::Credential;
use super::observed::{
    ContainerState, InfluxdbState, Network, Observed, ObservedServer, PortHolder, RunState, StoredSettings, Unreadable,
    VolumeState,
};
use super::retention::Retention;
use super::role::Role;
use super::stack::{DashboardId, Loss, Remembered, Stack, UnknownSetting};
use super::text::attached;
use super::upgrade::{Upgrade, UpgradeState};

/// Options of `up` beyond the stack itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpOptions {
    /// Replace edited dashboards and alert rules.
    pub overwrite_dashboard: bool,
    /// Move the instance's objects in an external Grafana to another InfluxDB or database.
    pub move_data_source: bool,
    /// Set the administrator's password inside Grafana's container.
    pub reset_password: bool,
    /// Pull images even if they are on the engine.
    pub pull: bool,
}

/// One item per resource, in display order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The items.
    pub items: Vec<Item>,
    /// The login of the steps in Grafana; `None` if only an observation reveals it.
    pub login: Option<Credential>,
}

/// The finding about one resource and the steps for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The resource.
    pub resource: Resource,
    /// The comparison's result.
    pub finding: Finding,
    /// The steps that bring it in sync, by phase; empty if none are needed or possible.
    pub steps: Vec<(Phase, Step)>,
    /// The last phase before the next observation, which its later steps depend on.
    until: Phase,
}

/// The resources of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The network of the containers.
    Network,
    /// The remembered settings.
    Settings,
    /// A server: its image, volume and container, or an external server.
    Server(Role),
    /// A data volume, listed separately only in `down`.
    Volume(Role),
    /// The InfluxDB database.
    Database,
    /// The database's retention period.
    Retention,
    /// Grafana's organisation.
    Organisation,
    /// Grafana's folder.
    Folder,
    /// A dashboard in Grafana.
    Dashboard(DashboardId),
    /// Grafana's data source.
    DataSource,
    /// The alert rules.
    Alerts,
    /// A query through the data source.
    Query,
    /// A pending change of Grafana's image.
    Upgrade,
}

/// The state of a resource compared with the stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Nothing to do.
    InSync,
    /// Edited by a user, and therefore kept.
    Edited,
    /// Not needed, but kept because something else uses it.
    Kept(Kept),
    /// It does not exist.
    Missing,
    /// It exists and differs.
    Differs(Vec<Difference>),
    /// It matches but does not run; its state.
    Stopped(String),
    /// It runs but does not answer; the reason.
    Silent(String),
    /// The settings are correct, but the answer contradicts them; the reason.
    Contradicts(String),
    /// Unknown until an earlier step has run.
    Unknown,
    /// Its server answers but failed to return it.
    Unreadable(Unreadable),
    /// The user has to act first.
    Blocked(Blocker),
    /// The user asked for a change or a removal.
    Requested(&'static str),
}

/// The reason why the user has to act, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// What kind of obstacle it is.
    pub kind: BlockReason,
    /// The reason, with the object's name.
    pub why: String,
    /// The next command to type.
    pub hint: String,
}

/// The reason why an unneeded object is kept, and how to remove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The reason, with the object's name.
    pub why: String,
    /// The command that removes it.
    pub hint: String,
}

impl From<Blocker> for Finding {
    fn from(blocked: Blocker) -> Self {
        Self::Blocked(blocked)
    }
}

/// Kinds of blockers, so that reports do not depend on sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockReason {
    /// An object with this instance's name that clipper-metrics did not create.
    Foreign,
    /// An object of an instance with this name, created for another InfluxDB or database.
    Conflict,
    /// The login is rejected.
    Refused,
    /// The published address is taken.
    PortTaken,
    /// The image is unavailable or cannot use the volume.
    Image,
    /// The server cannot be used, or it is external and does not answer.
    Server,
    /// A required setting is missing.
    Settings,
    /// A login cannot be verified from here, or the server at the container's address is another one.
    Unverifiable,
    /// A restore is incomplete.
    Unfinished,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network => f.write_str("network"),
            Self::Settings => f.write_str("settings"),
            Self::Server(role) => f.write_str(role.name()),
            Self::Volume(role) => write!(f, "volume of {role}"),
            Self::Database => f.write_str("database"),
            Self::Retention => f.write_str("retention"),
            Self::Organisation => f.write_str("organisation"),
            Self::Folder => f.write_str("folder"),
            Self::Dashboard(DashboardId::Bundled) => f.write_str("dashboard"),
            Self::Dashboard(DashboardId::User(index)) => write!(f, "user dashboard {}", index + 1),
            Self::DataSource => f.write_str("data source"),
            Self::Alerts => f.write_str("alerts"),
            Self::Query => f.write_str("query"),
            Self::Upgrade => f.write_str("upgrade"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InSync => f.write_str("in sync"),
            Self::Edited => f.write_str("edited"),
            Self::Kept(kept) => f.write_str(&kept.why),
            Self::Missing => f.write_str("missing"),
            Self::Differs(differences) => {
                for (index, difference) in differences.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{difference}")?;
                }
                Ok(())
            }
            Self::Stopped(state) => f.write_str(state),
            Self::Silent(why) => write!(f, "not answering: {why}"),
            Self::Contradicts(why) => write!(f, "fails although its settings are correct: {why}"),
            Self::Unknown => f.write_str("not known yet"),
            Self::Unreadable(unreadable) => unreadable.fmt(f),
            Self::Blocked(blocked) => f.write_str(&blocked.why),
            Self::Requested(what) => f.write_str(what),
        }
    }
}

impl Item {
    /// An item whose steps run in their own phases.
    #[must_use]
    pub fn new(resource: Resource, finding: Finding, steps: Vec<Step>) -> Self {
        let steps = steps.into_iter().map(|step| (step.phase(), step)).collect();
        Self { resource, finding, steps, until: Phase::End }
    }

    /// An item with one step, which is needed unless the resource is in sync or blocked.
    fn with_step(resource: Resource, finding: Finding, step: Step) -> Self {
        let steps = match finding {
            Finding::InSync | Finding::Blocked(_) | Finding::Unreadable(_) => vec![],
            _ => vec![step],
        };
        Self::new(resource, finding, steps)
    }

    /// The last phase of its steps that can be executed without another observation.
    fn until(&self) -> Phase {
        let reveals = |(phase, step): &(Phase, Step)| match phase {
            Phase::Preparation => !matches!(step, Step::CheckAddress(..)),
            Phase::Trial => true,
            _ => false,
        };
        let revealing = self.steps.iter().filter(|step| reveals(step)).map(|(phase, _)| *phase);
        revealing.min().unwrap_or(Phase::End).min(self.until)
    }
}

impl Plan {
    /// A plan whose steps all depend on known facts.
    #[must_use]
    pub const fn new(items: Vec<Item>) -> Self {
        Self { items, login: None }
    }

    /// All steps with their reasons, in the order of execution. Those after [`Self::until`] are a prediction.
    pub fn steps(&self) -> impl Iterator<Item = (&Step, &Finding)> + '_ {
        Phase::ALL.into_iter().flat_map(|phase| self.phase(phase))
    }

    /// The steps of one phase, in display order.
    pub fn phase(&self, phase: Phase) -> impl Iterator<Item = (&Step, &Finding)> + '_ {
        self.items.iter().flat_map(move |item| {
            let steps = item.steps.iter().filter(move |(at, _)| *at == phase);
            steps.map(move |(_, step)| (step, &item.finding))
        })
    }

    /// The steps of one phase that run in sequence, in parallel with those of the other role.
    pub fn lane(&self, phase: Phase, role: Role) -> impl Iterator<Item = (&Step, &Finding)> + '_ {
        self.phase(phase).filter(move |(step, _)| step.role() == role)
    }

    /// The last phase that is executed; then the next plan is made from what it revealed.
    #[must_use]
    pub fn until(&self) -> Phase {
        self.items.iter().map(Item::until).min().unwrap_or(Phase::End)
    }

    /// Whether it only waits for servers, so that the next plan may be the same.
    #[must_use]
    pub fn only_waits(&self) -> bool {
        self.executable().all(|step| matches!(step, Step::AwaitAnswer(_) | Step::CheckAddress(..)))
    }

    /// The steps that are executed.
    pub fn executable(&self) -> impl Iterator<Item = &Step> + '_ {
        let until = self.until();
        let phases = Phase::ALL.into_iter().filter(move |phase| *phase <= until);
        phases.flat_map(|phase| self.phase(phase)).map(|(step, _)| step)
    }

    /// The same plan reduced to the selected steps.
    #[must_use]
    pub fn only(&self, is_kept: impl Fn(&Step) -> bool) -> Self {
        let items = self.items.iter().map(|item| Item {
            steps: item.steps.iter().filter(|(_, step)| is_kept(step)).cloned().collect(),
            ..item.clone()
        });
        Self { items: items.collect(), login: self.login }
    }

    /// Whether it restores the previous database.
    #[must_use]
    pub fn restores(&self) -> bool {
        self.steps().any(|(step, _)| *step == Step::RestoreDatabase)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.items.iter().all(|item| item.steps.is_empty())
    }

    /// Whether there is nothing to do and no blocker.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        let is_left_alone = |item: &Item| matches!(item.finding, Finding::InSync | Finding::Edited | Finding::Kept(_));
        self.is_idle() && self.items.iter().all(is_left_alone)
    }

    /// The objects that are kept although they are not needed.
    pub fn kept(&self) -> impl Iterator<Item = &Kept> + '_ {
        self.items.iter().filter_map(|item| match &item.finding {
            Finding::Kept(kept) => Some(kept),
            _ => None,
        })
    }

    /// The first blocker; while there is one, nothing is done.
    #[must_use]
    pub fn blocked(&self) -> Option<(Resource, &Blocker)> {
        self.items.iter().find_map(|item| match &item.finding {
            Finding::Blocked(blocked) => Some((item.resource, blocked)),
            _ => None,
        })
    }

    /// The first item that its server failed to return, so that its needs are unknown.
    #[must_use]
    pub fn unreadable(&self) -> Option<&Unreadable> {
        self.items.iter().find_map(|item| match &item.finding {
            Finding::Unreadable(unreadable) => Some(unreadable),
            _ => None,
        })
    }

    /// The finding about `resource`, if it is in the plan.
    #[must_use]
    pub fn finding(&self, resource: Resource) -> Option<&Finding> {
        self.items.iter().find(|item| item.resource == resource).map(|item| &item.finding)
    }
}

/// The findings, then the steps by phase with their data. A line separates the steps that only the next observation
/// confirms.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "{}: {}", item.resource, item.finding)?;
        }
        let until = self.until();
        for phase in Phase::ALL {
            for (step, _) in self.phase(phase) {
                writeln!(f, "  {phase:?}: {step}{}", step.data())?;
            }
            if phase == until && until != Phase::End {
                writeln!(f, "  -- observe again --")?;
            }
        }
        Ok(())
    }
}

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
    let inputs = server::Inputs { stack, options, upgrade, time: seen.time };
    let frees_port_first = |role| frees_port_first_for(stack, seen, role);
    let (influxdb, _) = server::server(&inputs, Role::Influxdb, &seen.influxdb, frees_port_first(Role::Influxdb));
    let (grafana, first_login) = server::server(&inputs, Role::Grafana, &seen.grafana, frees_port_first(Role::Grafana));
    let is_known = unknown_settings(stack).is_none();
    let influxdb_stores = stored(&influxdb, &seen.influxdb).filter(|_| is_known);
    let grafana_stores = stored(&grafana, &seen.grafana).filter(|_| is_known);
    let database = database(influxdb_stores);
    let retention = retention(stack, influxdb_stores);
    let keeps_retention = !is_retention_settled(stack, seen, &database, retention.as_ref());
    items.extend(match unfinished(stack, seen) {
        Some(blocked) => Some(Item::new(Resource::Settings, blocked.into(), vec![])),
        None => settings(stack, &seen.settings, keeps_retention),
    });
    let is_fresh = stack.container(Role::Grafana).is_some()
        && seen.grafana.volume == VolumeState::Absent
        && seen.grafana.container == ContainerState::Absent;
    let inside = grafana::inside(stack, grafana_stores, options, is_fresh);
    let query = grafana::query(grafana_stores, &database, &inside);
    items.extend([influxdb, grafana]);
    items.extend(foreign);
    items.push(database);
    items.extend(retention);
    items.extend(inside);
    items.push(query);
    let mut plan = Plan { items, login: seen.grafana.login.accepted.or(first_login) };
    if stack.container(Role::Grafana).is_some() && !plan.restores() {
        // After the query, because accepting a new version also queries through the data source.
        plan.items.extend(upgrade.and_then(finish_upgrade));
    }
    plan
}

/// Accepts the new image once it answers the dashboard's queries.
fn finish_upgrade(upgrade: &Upgrade) -> Option<Item> {
    let finding = Finding::Requested("the new image is not accepted yet");
    let steps = [Step::ProveDashboard, Step::EndUpgrade(None)].map(|step| (Phase::End, step));
    let is_tried = upgrade.state == UpgradeState::Unproven;
    is_tried.then(|| Item { steps: steps.into(), ..Item::new(Resource::Upgrade, finding, vec![]) })
}

/// Removes the container that a run created only to read Grafana's volume, before the run ends with a blocker.
#[must_use]
pub fn withdraw(seen: &Observed) -> Option<Plan> {
    let actual = seen.grafana.container.ours().filter(|actual| actual.run == RunState::Created)?;
    let steps = server::removal(Role::Grafana, actual, seen.grafana.content.as_ref());
    let finding = Finding::Requested("not needed any more");
    Some(Plan::new(vec![Item::new(Resource::Server(Role::Grafana), finding, steps)]))
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

/// Whether the other role's container holds this role's port and is removed first.
fn frees_port_first_for(stack: &Stack, seen: &Observed, role: Role) -> bool {
    let (other, holder) = match role {
        Role::Influxdb => (Role::Grafana, &seen.grafana.port_holder),
        Role::Grafana => (Role::Influxdb, &seen.influxdb.port_holder),
    };
    stack.container(other).is_some() && *holder == Some(PortHolder::OtherRole(role))
}

fn network(stack: &Stack, seen: &Observed) -> Option<Item> {
    let (finding, steps) = match &seen.network {
        Network::Ours(_) if !stack.needs_engine() => {
            return Some(unneeded_network(stack, seen, "no container needs it"));
        }
        _ if !stack.needs_engine() => return None,
        Network::Ours(ids) if ids.len() > 1 => {
            let difference =
                Difference { field: "networks".into(), actual: ids.len().to_string(), desired: "1".into() };
            (Finding::Differs(vec![difference]), vec![Step::RemoveSpareNetworks])
        }
        Network::Ours(_) => (Finding::InSync, vec![]),
        Network::Free => (Finding::Missing, vec![Step::CreateNetwork]),
        Network::Foreign => (foreign("network", &stack.instance, stack).into(), vec![]),
    };
    Some(Item::new(Resource::Network, finding, steps))
}

/// The instance's network when it is to be removed. A network that other containers use is kept.
fn unneeded_network(stack: &Stack, seen: &Observed, reason: &'static str) -> Item {
    let (instance, users) = (&stack.instance, &seen.network_users);
    if users.is_empty() {
        return Item::new(Resource::Network, Finding::Requested(reason), vec![Step::RemoveNetwork]);
    }
    let docker = |arguments: String| stack.invocation.docker(&arguments);
    let commands = users.iter().map(|user| docker(format!("network disconnect {instance} {user}")));
    let commands: Vec<String> = commands.chain([docker(format!("network rm {instance}"))]).collect();
    let kept = Kept {
        why: format!("network {instance} is kept: {}", attached(users)),
        hint: format!("`{}` removes it", commands.join(" && ")),
    };
    Item::new(Resource::Network, Finding::Kept(kept), vec![])
}

/// Whether the retention period can be remembered: the database has it or will get it in this plan,
/// and any loss of data is confirmed first.
fn is_retention_settled(stack: &Stack, seen: &Observed, database: &Item, retention: Option<&Item>) -> bool {
    let is_new = stack.container(Role::Influxdb).is_some() && seen.influxdb.volume == VolumeState::Absent;
    is_new || database.finding == Finding::Missing || retention.is_none_or(|item| item.finding != Finding::Unknown)
}

fn settings(stack: &Stack, stored: &StoredSettings, keeps_retention: bool) -> Option<Item> {
    let settings = stack.settings.as_ref()?;
    let finding = match (&settings.lost, &stored.values) {
        (_, Some(values)) if *values == settings.values && stored.numbers.len() == 1 => Finding::InSync,
        (Some(lost), _) => match unknown_settings(stack) {
            Some(blocked) => blocked.into(),
            None => Finding::Stopped(lost.cause.to_string()),
        },
        (None, None) => Finding::Missing,
        (None, Some(values)) => {
            let differences = Difference::between(&texts(values), &texts(&settings.values));
            if !differences.is_empty() {
                Finding::Differs(differences)
            } else if *values != settings.values {
                Finding::Requested("they now come from another source")
            } else {
                Finding::Requested("an older copy exists")
            }
        }
    };
    let kept = keeps_retention.then(|| stored.keep_retention(&settings.values));
    if kept.is_some() && kept == stored.values && stored.numbers.len() == 1 {
        // Only the retention period is left, which a later plan saves.
        return Some(Item::new(Resource::Settings, finding, vec![]));
    }
    Some(Item::with_step(Resource::Settings, finding, Step::SaveSettings { keeps_retention }))
}

/// The blocker of commands that depend on remembered settings that were lost and cannot be derived.
#[must_use]
pub fn unknown_settings(stack: &Stack) -> Option<Blocker> {
    let lost = stack.settings.as_ref()?.lost.as_ref().filter(|lost| !lost.unknown.is_empty())?;
    let options = |value: fn(&UnknownSetting) -> &str| -> String {
        let typed = |one: &UnknownSetting| {
            if one.is_flag { format!(" --{}=false", one.option) } else { format!(" --{} {}", one.option, value(one)) }
        };
        lost.unknown.iter().map(typed).collect()
    };
    let again = stack.command(&format!("up{}", options(|one| one.value_name)));
    let instance = &stack.instance;
    let (why, hint) = if lost.cause == Loss::Values {
        let values = lost
            .unknown
            .iter()
            .map(|one| format!("--{} is {:?}", one.option, one.stored.as_deref().unwrap_or_default()));
        let none = stack.command(&format!("up{}", options(|_| "''")));
        (
            format!("remembered settings of {instance} cannot be used: {}", values.collect::<Vec<_>>().join(", ")),
            format!("supply them again with `{again}`, or remove them with `{none}`"),
        )
    } else {
        let is_server = lost.unknown.iter().any(|one| one.is_server);
        let names: Vec<String> = lost.unknown.iter().map(|one| format!("--{}", one.option)).collect();
        let empty = if is_server { " (an empty URL, '', stands for a container)" } else { "" };
        (
            format!("the settings of {instance} are {}, and {} cannot be determined", lost.cause, names.join(", ")),
            format!(
                "supply them again: `{again}`{empty}; after a restore that was killed, run `{}` and restore again",
                stack.command("down --volumes")
            ),
        )
    };
    Some(Blocker { kind: BlockReason::Settings, why, hint })
}

fn texts(values: &BTreeMap<String, Remembered>) -> BTreeMap<String, String> {
    values.iter().map(|(name, remembered)| (name.clone(), remembered.value.clone())).collect()
}

/// The server's content, if it is known and still valid when its steps run: a server that is
/// started or replaced may come back empty.
fn stored<'a, S>(server: &Item, seen: &'a ObservedServer<S>) -> Option<&'a S> {
    let keeps = matches!(server.finding, Finding::InSync | Finding::Requested(_));
    let replaced = server.steps.iter().any(|(_, step)| matches!(step, Step::CreateContainer(_)));
    if keeps && !replaced { seen.probe.state() } else { None }
}

fn database(stored: Option<&InfluxdbState>) -> Item {
    let finding = match stored {
        None => Finding::Unknown,
        Some(influxdb) if influxdb.has_database => Finding::InSync,
        Some(_) => Finding::Missing,
    };
    Item::with_step(Resource::Database, finding, Step::CreateDatabase)
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
    let step = Step::SetRetention { from: actual };
    Some(Item::new(Resource::Retention, Finding::Differs(vec![difference]), vec![step]))
}

/// The current retention period, if the plan shortens it; the inner `None` means unknown.
#[must_use]
pub fn shortened_retention(stack: &Stack, plan: &Plan) -> Option<Option<Retention>> {
    let desired = stack.retention?;
    let from = plan.steps().find_map(|(step, _)| match step {
        Step::SetRetention { from } => Some(*from),
        _ => None,
    })?;
    from.is_none_or(|from| desired.is_shorter_than(from)).then_some(from)
}

/// The plan that removes the instance; volumes and settings are kept unless requested.
#[must_use]
pub fn down(stack: &Stack, seen: &Observed, volumes: bool) -> Plan {
    let mut items = Vec::new();
    for role in [Role::Grafana, Role::Influxdb] {
        let (container, volume, behind) = match role {
            Role::Influxdb => (&seen.influxdb.container, &seen.influxdb.volume, &seen.influxdb.managed_behind),
            Role::Grafana => (&seen.grafana.container, &seen.grafana.volume, &seen.grafana.managed_behind),
        };
        // A server that the settings call external is kept, so an own container behind its URL must
        // be reported first.
        let own = behind.as_ref().filter(|managed| managed.is_own && managed.runs);
        items.push(match (container, own) {
            (ContainerState::Ours(_), Some(own)) => {
                let url = stack.url(role).to_string();
                let blocked = managed_server(stack, role, &url, own, "down");
                Item::new(Resource::Server(role), blocked.into(), vec![])
            }
            (ContainerState::Duplicated(names), _) => {
                Item::new(Resource::Server(role), blockers::duplicated(stack, role, names).into(), vec![])
            }
            (ContainerState::Ours(actual), None) => {
                let content = seen.grafana.content.as_ref().filter(|_| role == Role::Grafana);
                let steps = server::removal(role, actual, content);
                Item::new(Resource::Server(role), Finding::Requested("to be removed"), steps)
            }
            (ContainerState::Absent | ContainerState::Foreign, _) => {
                Item::new(Resource::Server(role), Finding::Missing, vec![])
            }
        });
        if volumes {
            let found = matches!(volume, VolumeState::Ours { .. });
            items.push(removal(Resource::Volume(role), found, Step::RemoveVolume(role)));
        }
    }
    items.push(match seen.network {
        Network::Ours(_) => unneeded_network(stack, seen, "to be removed"),
        Network::Free | Network::Foreign => Item::new(Resource::Network, Finding::Missing, vec![]),
    });
    if volumes {
        items.push(removal(Resource::Settings, !seen.settings.numbers.is_empty(), Step::RemoveSettings));
    }
    Plan::new(items)
}

/// The plan that removes this instance's objects from an external Grafana; `None` if that Grafana
/// does not answer.
#[must_use]
pub fn deregister(stack: &Stack, seen: &Observed) -> Option<Plan> {
    let items = grafana::deregistration(stack, seen.grafana.probe.state()?);
    Some(Plan { items, login: seen.grafana.login.accepted })
}

fn removal(resource: Resource, found: bool, step: Step) -> Item {
    let finding = if found { Finding::Requested("to be removed") } else { Finding::Missing };
    Item::new(resource, finding, found.then_some(step).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::stack::{Lost, Settings};
    use crate::samples;

    fn values(all: &[(&str, &str)]) -> BTreeMap<String, Remembered> {
        let remembered = |value: &str| Remembered { value: value.into(), from_file: false };
        all.iter().map(|(name, value)| (name.to_string(), remembered(value))).collect()
    }

    fn stored(numbers: &[u64], values: BTreeMap<String, Remembered>) -> StoredSettings {
        StoredSettings { numbers: numbers.to_vec(), values: Some(values), ..StoredSettings::default() }
    }

    fn finding(desired: &[(&str, &str)], lost: Option<Lost>, stored: &StoredSettings) -> Finding {
        let stack = Stack { settings: Some(Settings { values: values(desired), lost }), ..samples::stack() };
        settings(&stack, stored, false).unwrap().finding
    }

    #[test]
    fn settings_are_in_sync_only_with_one_copy_of_the_same_values_from_the_same_source() {
        let one = [("database", "d")];
        assert_eq!(finding(&one, None, &stored(&[3], values(&one))), Finding::InSync);
        assert_eq!(finding(&one, None, &StoredSettings::default()), Finding::Missing);
        let older = Finding::Requested("an older copy exists");
        assert_eq!(finding(&one, None, &stored(&[3, 4], values(&one))), older);
        let mut from_file = values(&one);
        from_file.get_mut("database").unwrap().from_file = true;
        let source = Finding::Requested("they now come from another source");
        assert_eq!(finding(&one, None, &stored(&[3], from_file)), source);
        let derived = Some(Lost { cause: Loss::Gone, unknown: vec![] });
        assert_eq!(finding(&one, derived, &StoredSettings::default()), Finding::Stopped("lost".into()));
        let Finding::Differs(differences) = finding(&one, None, &stored(&[3], values(&[("pull", "never")]))) else {
            panic!("they differ")
        };
        let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["database: (none) -> d", "pull: never -> (none)"]);
    }

    #[test]
    fn a_retention_that_a_later_plan_saves_is_no_step() {
        let desired = Settings { values: values(&[("database", "d"), (Retention::SETTING, "2d")]), lost: None };
        let stack = Stack { settings: Some(desired), ..samples::stack() };
        let steps =
            |before: &[(&str, &str)]| settings(&stack, &stored(&[1], values(before)), true).unwrap().steps.len();
        assert_eq!(steps(&[("database", "d")]), 0);
        assert_eq!(steps(&[("database", "d"), (Retention::SETTING, "90d")]), 0);
        assert_eq!(steps(&[("database", "other")]), 1);
    }

    #[test]
    fn the_command_for_lost_settings_contains_all_of_them() {
        let unknown = |option, value_name, is_server, is_flag, stored: Option<&str>| UnknownSetting {
            option,
            value_name,
            is_server,
            is_flag,
            stored: stored.map(String::from),
        };
        let blocker = |cause, unknown| {
            let settings = Settings { lost: Some(Lost { cause, unknown }), ..Settings::default() };
            unknown_settings(&Stack { settings: Some(settings), ..samples::stack() })
        };
        let url = unknown("grafana-url", "URL", true, false, None);
        let lost = blocker(Loss::Gone, vec![url, unknown("alerts", "", false, true, None)]).unwrap();
        assert_eq!(lost.why, "the settings of x are lost, and --grafana-url, --alerts cannot be determined");
        let command = "supply them again: `clipper-metrics up --grafana-url URL --alerts=false` (an empty URL, '', \
                       stands for a container); after a restore that was killed, run `clipper-metrics down --volumes` \
                       and restore again";
        assert_eq!(lost.hint, command);
        let invalid = blocker(Loss::Values, vec![unknown("pull", "WHEN", false, false, Some("soon"))]).unwrap();
        assert_eq!(invalid.why, "remembered settings of x cannot be used: --pull is \"soon\"");
        let command = "supply them again with `clipper-metrics up --pull WHEN`, or remove them with `clipper-metrics up \
                       --pull ''`";
        assert_eq!(invalid.hint, command);
        assert_eq!(blocker(Loss::Gone, vec![]), None);
    }

    #[test]
    fn a_retention_is_shortened_unless_the_actual_period_is_known_to_be_no_longer() {
        let days = |days: u64| Retention::For(Duration::from_secs(days * 86_400));
        let shortened = |desired, from| {
            let step = Step::SetRetention { from };
            let item = Item::new(Resource::Retention, Finding::Differs(vec![]), vec![step]);
            let stack = Stack { retention: desired, ..samples::stack() };
            shortened_retention(&stack, &Plan::new(vec![item]))
        };
        assert_eq!(shortened(Some(days(2)), Some(days(90))), Some(Some(days(90))));
        assert_eq!(shortened(Some(days(2)), Some(Retention::Forever)), Some(Some(Retention::Forever)));
        assert_eq!(shortened(Some(days(2)), None), Some(None), "an unknown period may be longer");
        for (desired, from) in
            [(Some(days(90)), Some(days(2))), (Some(days(2)), Some(days(2))), (Some(Retention::Forever), Some(days(2)))]
        {
            assert_eq!(shortened(desired, from), None, "{desired:?} {from:?}");
        }
        assert_eq!(shortened(None, Some(days(2))), None);
    }
}
