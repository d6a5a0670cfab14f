//! Wanted against observed: findings for `status`, steps for `up`, both from one comparison.
//!
//! Every step is idempotent, so a plan made on a stale or partial snapshot is safe: what cannot be
//! known yet keeps its step. Must not know how a step is carried out.

mod container;
mod step;

use std::fmt;

pub use self::container::{unusable_server, version, volume_of_another_user};
pub use self::step::{Lane, Step};
use super::observed::{
    Container, Dashboard, DataSource, Grafana, Influxdb, Network, Observed, Query, SeenDashboard, Server, Volume,
};
use super::stack::{self, Difference, Role, Stack};

/// What the user asked for beyond the stack itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Replace a dashboard that somebody edited.
    pub overwrite_dashboard: bool,
    /// Set Grafana's administrator's password inside the container.
    pub reset_password: bool,
}

/// One line per resource, in the order in which they are reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(pub Vec<Item>);

/// What was found about one resource and what would be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The resource.
    pub resource: Resource,
    /// How it compares.
    pub finding: Finding,
    /// What brings it in sync; empty if nothing is needed or nothing can be done.
    pub steps: Vec<Step>,
}

/// Things that a stack consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The network of the containers.
    Network,
    /// A server: its image, volume and container, or a server that is already there.
    Server(Role),
    /// A data volume, on its own only in `down`.
    Volume(Role),
    /// The InfluxDB database.
    Database,
    /// Grafana's organisation.
    Organisation,
    /// Grafana's folder.
    Folder,
    /// Grafana's dashboard.
    Dashboard,
    /// Grafana's data source.
    DataSource,
    /// A question asked through the data source.
    Query,
}

/// How a resource compares with what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As wanted.
    InSync,
    /// As a person made it, and left alone for that.
    Edited,
    /// Not there.
    Missing,
    /// There, but not as wanted.
    Differs(Vec<Difference>),
    /// As wanted, but not running; what state it is in.
    Stopped(String),
    /// Running, but not answering (yet); why.
    Silent(String),
    /// Settings are right, yet the answer contradicts them; why.
    Contradicts(String),
    /// Cannot be told before an earlier step has run.
    Unknown,
    /// Somebody has to act; we never do.
    Blocked(Blocked),
    /// The user wants it removed or changed.
    Asked(&'static str),
}

/// Why nothing can be done without the user, and what the user can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// What kind of obstacle it is.
    pub kind: Obstacle,
    /// Why, with the object's name.
    pub why: String,
    /// What to type next.
    pub hint: String,
}

/// Kinds of obstacles, so that reports need not read sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Something with our name that is not ours.
    Foreign,
    /// Credentials are refused.
    Refused,
    /// The published address is taken.
    PortTaken,
    /// The image cannot be had or cannot use the volume.
    Image,
    /// A server that we cannot use, or that does not answer and is not ours to start.
    Server,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network => f.write_str("network"),
            Self::Server(role) => f.write_str(role.name()),
            Self::Volume(role) => write!(f, "volume of {role}"),
            Self::Database => f.write_str("database"),
            Self::Organisation => f.write_str("organisation"),
            Self::Folder => f.write_str("folder"),
            Self::Dashboard => f.write_str("dashboard"),
            Self::DataSource => f.write_str("data source"),
            Self::Query => f.write_str("query"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InSync => f.write_str("in sync"),
            Self::Edited => f.write_str("edited"),
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
            Self::Contradicts(why) => write!(f, "fails although its settings are right: {why}"),
            Self::Unknown => f.write_str("not known yet"),
            Self::Blocked(blocked) => f.write_str(&blocked.why),
            Self::Asked(what) => f.write_str(what),
        }
    }
}

impl Plan {
    /// The steps of all items with the reason for each, in order.
    pub fn steps(&self) -> impl Iterator<Item = (Step, &Finding)> + '_ {
        self.0.iter().flat_map(|item| item.steps.iter().map(|step| (*step, &item.finding)))
    }

    /// Nothing to do and nothing in the way.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.0.iter().all(|item| matches!(item.finding, Finding::InSync | Finding::Edited) && item.steps.is_empty())
    }

    /// The first item that needs a human; `up` refuses to start while there is one.
    #[must_use]
    pub fn blocked(&self) -> Option<(Resource, &Blocked)> {
        self.0.iter().find_map(|item| match &item.finding {
            Finding::Blocked(blocked) => Some((item.resource, blocked)),
            _ => None,
        })
    }

    /// What was found about `resource`, if the plan speaks of it.
    #[must_use]
    pub fn finding(&self, resource: Resource) -> Option<&Finding> {
        self.0.iter().find(|item| item.resource == resource).map(|item| &item.finding)
    }
}

/// What would make the observed state the wanted one.
#[must_use]
pub fn up(want: &Stack, seen: &Observed, wishes: Wishes) -> Plan {
    let mut items = Vec::new();
    if want.needs_engine() {
        items.push(network(want, &seen.network));
    }
    let influxdb = container::server(want, Role::Influxdb, &seen.influxdb, wishes);
    let grafana = container::server(want, Role::Grafana, &seen.grafana, wishes);
    let database = database(stored(&influxdb, &seen.influxdb));
    let inside = inside_grafana(want, stored(&grafana, &seen.grafana), wishes);
    let query = query(stored(&grafana, &seen.grafana), &database, &inside);
    items.extend([influxdb, grafana, database]);
    items.extend(inside);
    items.push(query);
    Plan(items)
}

fn network(want: &Stack, seen: &Network) -> Item {
    let (finding, steps) = match seen {
        Network::Ours(ids) if ids.len() > 1 => {
            let difference = Difference { field: "networks".into(), have: ids.len().to_string(), want: "1".into() };
            (Finding::Differs(vec![difference]), vec![Step::RemoveSpareNetworks])
        }
        Network::Ours(_) => (Finding::InSync, vec![]),
        Network::Free => (Finding::Missing, vec![Step::CreateNetwork]),
        Network::Foreign => (foreign("network", &want.instance, &want.instance), vec![]),
    };
    Item { resource: Resource::Network, finding, steps }
}

/// What the server stores, if that is known and will still hold when its turn comes: a server that
/// is about to be started or replaced may come back empty.
fn stored<'a, S>(server: &Item, seen: &'a Server<S>) -> Option<&'a S> {
    if server.steps.is_empty() { seen.answer.stored() } else { None }
}

fn database(stored: Option<&Influxdb>) -> Item {
    let finding = match stored {
        None => Finding::Unknown,
        Some(influxdb) if influxdb.has_database => Finding::InSync,
        Some(_) => Finding::Missing,
    };
    with_step(Resource::Database, finding, Step::CreateDatabase)
}

/// The things inside Grafana. The data source comes last: that it exists tells that everything
/// before it, the home page too, was once done.
fn inside_grafana(want: &Stack, stored: Option<&Grafana>, wishes: Wishes) -> Vec<Item> {
    let mut items = Vec::new();
    let dashboard = dashboard(want, stored, wishes);
    let exists = |known: Option<bool>| match known {
        None => Finding::Unknown,
        Some(true) => Finding::InSync,
        Some(false) => Finding::Missing,
    };
    if want.organisation.is_some() {
        let finding = exists(stored.map(|grafana| grafana.has_organisation));
        items.push(with_step(Resource::Organisation, finding, Step::CreateOrganisation));
    }
    if want.folder.is_some() && matches!(dashboard.finding, Finding::Missing | Finding::Unknown) {
        let finding = exists(stored.map(|grafana| grafana.has_folder));
        items.push(with_step(Resource::Folder, finding, Step::CreateFolder));
    }
    items.push(dashboard);
    items.push(data_source(want, stored));
    items
}

fn dashboard(want: &Stack, stored: Option<&Grafana>, wishes: Wishes) -> Item {
    let never_finished = stored.is_some_and(|grafana| grafana.data_source == DataSource::Missing);
    let (finding, mut steps) = match stored.map(|grafana| &grafana.dashboard) {
        None => (Finding::Unknown, vec![Step::SaveDashboard, Step::SetHome]),
        Some(Dashboard::Missing) => (Finding::Missing, vec![Step::SaveDashboard, Step::SetHome]),
        Some(Dashboard::Present(have)) if have.edited => {
            if wishes.overwrite_dashboard {
                (Finding::Asked("edited, and to be overwritten"), vec![Step::SaveDashboard])
            } else {
                (Finding::Edited, vec![])
            }
        }
        Some(Dashboard::Present(have)) => {
            let differences = dashboard_differences(&want.dashboard, have);
            if differences.is_empty() {
                (Finding::InSync, vec![])
            } else {
                (Finding::Differs(differences), vec![Step::SaveDashboard])
            }
        }
    };
    if never_finished && !steps.contains(&Step::SetHome) {
        steps.push(Step::SetHome);
    }
    Item { resource: Resource::Dashboard, finding, steps }
}

fn dashboard_differences(want: &stack::Dashboard, have: &SeenDashboard) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut compare = |field: &str, have: String, want: String| {
        if have != want {
            differences.push(Difference { field: field.into(), have, want });
        }
    };
    compare("edition", have.edition.clone().unwrap_or_default(), want.edition.clone());
    if let Some(objective) = want.objective {
        compare(
            "objective",
            have.objective.map(|micros| format!("{micros} µs")).unwrap_or_default(),
            format!("{objective} µs"),
        );
    }
    if let Some(models) = &want.models {
        compare("models", have.models.join(", "), models.join(", "));
    }
    differences
}

fn data_source(want: &Stack, stored: Option<&Grafana>) -> Item {
    let finding = match stored.map(|grafana| &grafana.data_source) {
        None => Finding::Unknown,
        Some(DataSource::Missing) => Finding::Missing,
        Some(DataSource::Foreign(what)) => Finding::Blocked(Blocked {
            kind: Obstacle::Foreign,
            why: format!("Grafana already has {what}, which clipper-metrics did not make"),
            hint: "rename or delete it in Grafana, or start a second instance with --name".into(),
        }),
        Some(DataSource::Ours(have)) => {
            let differences = Difference::between(have, &want.data_source.fields());
            if differences.is_empty() { Finding::InSync } else { Finding::Differs(differences) }
        }
    };
    with_step(Resource::DataSource, finding, Step::SaveDataSource)
}

fn query(stored: Option<&Grafana>, database: &Item, inside: &[Item]) -> Item {
    let settled = database.steps.is_empty()
        && database.finding == Finding::InSync
        && inside.iter().all(|item| item.resource != Resource::DataSource || item.finding == Finding::InSync);
    let finding = match stored.map(|grafana| &grafana.query) {
        Some(Query::Ok) if settled => Finding::InSync,
        Some(Query::Failing(why)) if settled => Finding::Contradicts(why.clone()),
        _ => Finding::Unknown,
    };
    with_step(Resource::Query, finding, Step::AwaitQuery)
}

fn with_step(resource: Resource, finding: Finding, step: Step) -> Item {
    let steps = match finding {
        Finding::InSync | Finding::Blocked(_) => vec![],
        _ => vec![step],
    };
    Item { resource, finding, steps }
}

fn foreign(kind: &str, name: &str, instance: &str) -> Finding {
    let remove = match kind {
        "container" => format!("docker rm {name}"),
        _ => format!("docker {kind} rm {name}"),
    };
    Finding::Blocked(Blocked {
        kind: Obstacle::Foreign,
        why: format!("{kind} {name} exists, but clipper-metrics did not make it"),
        hint: format!("choose another --name than {instance}, or remove it yourself: {remove}"),
    })
}

/// What would leave nothing of ours behind, except the volumes unless asked.
#[must_use]
pub fn down(want: &Stack, seen: &Observed, volumes: bool) -> Plan {
    let mut items = Vec::new();
    for role in [Role::Grafana, Role::Influxdb] {
        if want.container(role).is_none() {
            continue;
        }
        let (container, volume) = match role {
            Role::Influxdb => (&seen.influxdb.container, &seen.influxdb.volume),
            Role::Grafana => (&seen.grafana.container, &seen.grafana.volume),
        };
        let found = matches!(container, Container::Ours(_));
        items.push(removal(Resource::Server(role), found, Step::RemoveContainer(role)));
        if volumes {
            let found = matches!(volume, Volume::Ours { .. });
            items.push(removal(Resource::Volume(role), found, Step::RemoveVolume(role)));
        }
    }
    let found = matches!(seen.network, Network::Ours(_));
    items.push(removal(Resource::Network, found, Step::RemoveNetwork));
    Plan(items)
}

fn removal(resource: Resource, found: bool, step: Step) -> Item {
    let finding = if found { Finding::Asked("to be removed") } else { Finding::Missing };
    Item { resource, finding, steps: found.then_some(step).into_iter().collect() }
}
