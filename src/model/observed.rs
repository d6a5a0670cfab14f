//! The observed state: one snapshot, taken before deciding.
//!
//! What a server stores is nested inside [`Probe::Answering`], so a snapshot cannot claim to know
//! a database of a server that did not answer. Must not know what is to be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use super::alerts::AlertRule;
use super::retention::Retention;
use super::role::Role;
use super::specification::{PasswordSource, Specification};
use super::stack::{DashboardId, MadeFor, Remembered, Restore};
use super::upgrade::Upgrade;
use super::version::Version;

/// A snapshot of everything that a stack describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The engine, where one was asked.
    pub engine: Option<Engine>,
    /// The network that the containers share.
    pub network: Network,
    /// Running containers of others that use it, by name: it cannot be removed while they do.
    pub network_users: Vec<String>,
    /// The settings that are remembered with the instance.
    pub settings: StoredSettings,
    /// The InfluxDB role.
    pub influxdb: Server<Influxdb>,
    /// The Grafana role.
    pub grafana: Server<Grafana>,
    /// Other instances on this engine.
    pub others: Vec<String>,
    /// Containers that have the instance's labels and are not its containers, by name.
    pub lookalikes: Vec<String>,
}

/// The engine that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// How it is reached.
    pub endpoint: String,
    /// Why this one is used.
    pub chosen_by: String,
    /// Its own version.
    pub version: String,
    /// The newest API that it speaks.
    pub api_version: String,
    /// Which engine it is.
    pub kind: EngineKind,
}

impl Engine {
    /// Whether hosts on the network of the engine's machine reach ports that are published on its loopback: Docker 28.0
    /// closed that. `None` where it is not known.
    #[must_use]
    pub fn exposes_loopback(&self) -> Option<bool> {
        match self.kind {
            EngineKind::Docker => Some(Version::parse(&self.version)? < CLOSES_LOOPBACK),
            EngineKind::RootlessDocker | EngineKind::VirtualMachine => Some(false),
            EngineKind::Podman => None,
        }
    }
}

/// The first Docker that drops what other hosts send to ports that are published on loopback.
const CLOSES_LOOPBACK: Version = Version(28, 0);

/// Kinds of engines, as far as they publish ports and reach their machine in different ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker, on the machine itself.
    #[default]
    Docker,
    /// Docker in a user's own network, whose ports are forwarded by a process.
    RootlessDocker,
    /// Docker in a virtual machine, which no other host reaches.
    VirtualMachine,
    /// Podman.
    Podman,
}

/// The network of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Nothing has this name.
    Free,
    /// Ours; more than one where two runs raced each other. The first is the one that is kept.
    Ours(Vec<String>),
    /// It exists without our label: never touched.
    Foreign,
}

impl Network {
    /// The id of the network that containers are to be attached to.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Ours(ids) => ids.first().map(String::as_str),
            _ => None,
        }
    }
}

/// The settings that are remembered with an instance. Where there are several, a run died while it
/// replaced one by the next: the newest holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredSettings {
    /// The numbers of all of them, the newest last.
    pub numbers: Vec<u64>,
    /// What the newest says, by the option's name; `None` if there is none or it cannot be read.
    pub values: Option<BTreeMap<String, Remembered>>,
    /// A change of Grafana's image that is not over, or was undone.
    pub upgrade: Option<Upgrade>,
    /// A restore whose data is not all in.
    pub restore: Option<Restore>,
}

impl StoredSettings {
    /// These values, with the stored retention in place of theirs.
    #[must_use]
    pub fn keep_retention(&self, values: &BTreeMap<String, Remembered>) -> BTreeMap<String, Remembered> {
        let mut values = values.clone();
        values.remove(Retention::SETTING);
        let stored = self.values.as_ref().and_then(|stored| stored.get_key_value(Retention::SETTING));
        values.extend(stored.map(|(name, retention)| (name.clone(), retention.clone())));
        values
    }
}

/// One role: image, volume, container, and the server inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server<S> {
    /// The specified image, if the engine has it.
    pub image: Option<Image>,
    /// The volume of that name.
    pub volume: Volume,
    /// The role's container.
    pub container: ContainerState,
    /// Who else publishes the specified port.
    pub port_holder: Option<PortHolder>,
    /// Another running container that has the volume where the server keeps its data, by its name.
    pub volume_user: Option<String>,
    /// A port near it that is free, where somebody else publishes it.
    pub free_port: Option<u16>,
    /// The managed container to which an external server's URL leads.
    pub managed_behind: Option<ManagedServer>,
    /// What the server says.
    pub probe: Probe<S>,
    /// Its version, as soon as it is known.
    pub version: Option<String>,
    /// Who is signed in; of Grafana only.
    pub login: SeenLogin,
    /// The version that is known to have run on the volume; of Grafana only.
    pub recorded: Option<Version>,
}

/// A container that clipper-metrics manages, at the address of a server that is said to be external.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedServer {
    /// Its name.
    pub container: String,
    /// Its instance.
    pub instance: String,
    /// That is the instance at hand.
    pub is_own: bool,
    /// It runs, so nothing else answers there.
    pub runs: bool,
}

/// Who holds a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortHolder {
    /// A container that is not ours, by its name.
    Container(String),
    /// Our container of the other role.
    OtherRole(Role),
    /// A process of the engine's machine outside any container.
    Process,
    /// Nobody: the engine's machine does not have that address.
    NoSuchAddress,
}

/// What signing in to Grafana has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeenLogin {
    /// As whom.
    pub account: Account,
    /// What the volume's file holds, compared with what Grafana accepted.
    pub file: PasswordFile,
}

/// Who is signed in to Grafana.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Account {
    /// Nobody.
    #[default]
    Nobody,
    /// `admin` with Grafana's own default password: it lets anybody in.
    DefaultPassword,
    /// `admin` with another password: admin/admin is shut out.
    OwnPassword,
    /// Somebody else, which says nothing about admin/admin.
    Other,
}

/// What the password's file in Grafana's volume holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PasswordFile {
    /// Nobody looked, since nothing depends on it.
    #[default]
    NotRead,
    /// There is none.
    Missing,
    /// What Grafana accepted.
    Accepted,
    /// Something else than what Grafana accepted.
    Outdated,
}

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The engine's id of it.
    pub id: String,
    /// The user that it runs as; empty is root.
    pub user: String,
}

/// The volume of the specified name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// There is none.
    Absent,
    /// There is one without our label: never touched.
    Foreign,
    /// Ours.
    Ours {
        /// The user of the image that it was made for, if that was noted; empty is root.
        user: Option<String>,
        /// The version of the server that it was made for, if the image's tag named it. Another
        /// one that ran since is noted in a file inside.
        version: Option<Version>,
        /// The image that it was made for, if that was noted.
        image: Option<String>,
    },
}

/// The container of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// There is none.
    Absent,
    /// Another container has its name: never touched.
    Foreign,
    /// Several carry the labels of this role; their names.
    Duplicated(Vec<String>),
    /// Ours, whatever it is called by now.
    Ours(Box<OurContainer>),
}

impl ContainerState {
    /// The container, if it is ours.
    #[must_use]
    pub const fn ours(&self) -> Option<&OurContainer> {
        match self {
            Self::Ours(have) => Some(have),
            Self::Absent | Self::Foreign | Self::Duplicated(_) => None,
        }
    }
}

/// A container of the instance: it has the labels and serves the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurContainer {
    /// The engine's id of it.
    pub id: String,
    /// Its name, which a person may have changed.
    pub name: String,
    /// Its own name was taken by somebody else's container after it was renamed.
    pub name_taken: bool,
    /// What it was made from; `None` if its label cannot be read.
    pub specification: Option<Specification>,
    /// The image that it was created from.
    pub image_id: String,
    /// It is attached to the network that is kept, compared by id: a network that was made again
    /// under the same name is a different one, and such a container can never start.
    pub on_network: bool,
    /// How far up it is.
    pub run: RunState,
    /// How often the engine has started it again after a crash, since somebody started it.
    pub restarts: u64,
    /// When it was started last, RFC 3339.
    pub started_at: Option<String>,
    /// What is really published, while it runs.
    pub published: Option<SocketAddr>,
    /// A server has run on its volume; looked up for a Grafana that was never started.
    pub has_data: Option<bool>,
}

impl OurContainer {
    /// It was never started, and neither was any other on its volume.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.run == RunState::Created && self.has_data == Some(false)
    }

    /// Grafana's first password came from the file in its volume.
    #[must_use]
    pub fn is_made_with_file(&self) -> bool {
        self.specification.as_ref().is_some_and(|made| made.password == PasswordSource::File)
    }

    /// Nobody but this machine can reach it.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        self.specification.as_ref().is_some_and(|specification| !specification.is_open())
    }
}

/// How far up a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Dies and is started again.
    Restarting,
    /// Ended, with this code.
    Exited(i64),
    /// The engine could not remove it.
    Dead,
}

/// What asking a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe<S> {
    /// Nothing was asked: nothing runs, or it cannot be reached from here.
    Unasked,
    /// It does not answer (yet); why.
    Silent(String),
    /// It is there and says, or what stands before it says, that it is not ready yet.
    Starting(String),
    /// It answers but rejects the login; its message.
    Refusing(String),
    /// It is something that Clipper or we cannot use; what.
    Unusable(String),
    /// It answers at the address of the container, and is another server.
    NotTheContainer,
    /// It answers; this is what it stores.
    Answering(S),
}

impl<S> Probe<S> {
    /// The same answer without what it stores; one that said that becomes [`Probe::Unasked`].
    #[must_use]
    pub fn discard<T>(self) -> Probe<T> {
        match self {
            Self::Silent(why) => Probe::Silent(why),
            Self::Starting(why) => Probe::Starting(why),
            Self::Refusing(message) => Probe::Refusing(message),
            Self::Unusable(what) => Probe::Unusable(what),
            Self::NotTheContainer => Probe::NotTheContainer,
            Self::Unasked | Self::Answering(_) => Probe::Unasked,
        }
    }

    /// What it stores, if it said so.
    #[must_use]
    pub const fn stored(&self) -> Option<&S> {
        match self {
            Self::Answering(stored) => Some(stored),
            _ => None,
        }
    }
}

/// What InfluxDB stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Influxdb {
    /// The stack's database exists.
    pub has_database: bool,
    /// How long its default policy keeps points, if that is known.
    pub retention: Option<Retention>,
}

/// What Grafana stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grafana {
    /// The organisation that everything is to be in.
    pub organisation: Organisation,
    /// The folder.
    pub folder: Folder,
    /// The data source.
    pub data_source: DataSource,
    /// The bundled dashboard.
    pub dashboard: Dashboard,
    /// The dashboards of the user's own, in the stack's order; none where nothing could be looked at.
    pub user_dashboards: Vec<Dashboard>,
    /// The instance's alert rules.
    pub alerts: AlertRules,
    /// What a query through the data source says.
    pub query: Query,
    /// What there is for dashboards of the user's own; looked at where the stack has any.
    pub catalogue: Option<Catalogue>,
}

/// What a Grafana has to show dashboards with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Its data sources.
    pub sources: Vec<CatalogueSource>,
    /// The panel types that a browser can show; `None` where Grafana does not say.
    pub panel_types: Option<BTreeSet<String>>,
}

impl Catalogue {
    /// The data source of that uid or name exists.
    #[must_use]
    pub fn has_source(&self, reference: &str) -> bool {
        self.sources.iter().any(|source| source.uid == reference || source.name == reference)
    }

    /// The panel type is known to be missing.
    #[must_use]
    pub fn lacks_panel_type(&self, kind: &str) -> bool {
        self.panel_types.as_ref().is_some_and(|types| !types.contains(kind))
    }
}

/// A data source, as dashboards refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueSource {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
}

impl Grafana {
    /// One of the stack's dashboards.
    #[must_use]
    pub fn dashboard(&self, id: DashboardId) -> &Dashboard {
        match id {
            DashboardId::Bundled => &self.dashboard,
            DashboardId::User(index) => self.user_dashboards.get(index).unwrap_or(&Dashboard::Missing),
        }
    }
}

/// A resource that its server does not show, although it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The attempt, in the imperative.
    pub doing: String,
    /// The HTTP status; 0 where the answer itself was the problem.
    pub status: u16,
    /// The server's words.
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.why)
    }
}

/// Grafana's organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Organisation {
    /// It is there, and the account belongs to it.
    Present,
    /// There is none of that name.
    Missing,
    /// The server does not show it.
    Unreadable(Unreadable),
    /// Which one is meant cannot be told; those that the account belongs to.
    Ambiguous(Vec<String>),
}

/// Grafana's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folder {
    /// None is specified.
    NotWanted,
    /// It is there.
    Present,
    /// There is none of that title.
    Missing,
    /// The server does not show it.
    Unreadable(Unreadable),
    /// A dashboard has that title, and this version lets no folder have it too.
    TitleTaken,
}

/// The data source with the specified uid or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// There is none.
    Missing,
    /// The server does not show it.
    Unreadable(Unreadable),
    /// There is one that we did not make; what it is.
    Foreign(String),
    /// One with our mark, as stored.
    Ours {
        /// What is stored, one text for each field that we set.
        fields: BTreeMap<String, String>,
        /// What it was made for: as its mark says, else as it is stored.
        made_for: MadeFor,
        /// A file provides it: it cannot be saved.
        provisioned: bool,
    },
}

/// The dashboard with the specified uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dashboard {
    /// There is none, and nothing is in its way.
    Missing,
    /// The server does not show it.
    Unreadable(Unreadable),
    /// There is none, and something else is in its place.
    Clash {
        /// What it is.
        what: String,
        /// It has the uid that the dashboard is to have, so that no folder helps.
        has_uid: bool,
    },
    /// There is one.
    Present(SeenDashboard),
}

/// A dashboard that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDashboard {
    /// Its content is not what we sent, or carries no mark of ours.
    pub edited: bool,
    /// A file provides it: it cannot be saved.
    pub provisioned: bool,
    /// Fingerprint of the bundled file that it was made from.
    pub edition: Option<String>,
    /// The latency objective that it shows, in microseconds.
    pub objective: Option<u64>,
    /// The models that it was told of.
    pub models: Vec<String>,
    /// What it was made for; older versions of this program did not note that, and a person's save drops it.
    pub made_for: Option<MadeFor>,
}

/// Grafana's alert rules of the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertRules {
    /// Nobody says anything about them.
    NotLookedAt,
    /// This server has none, or this account may not see them; why.
    Unavailable(String),
    /// The server does not show it.
    Unreadable(Unreadable),
    /// They were looked at.
    Seen(SeenAlerts),
}

/// Both rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenAlerts {
    /// About the latency.
    pub latency: SeenRule,
    /// About silence.
    pub silence: SeenRule,
}

impl SeenAlerts {
    /// One of them.
    #[must_use]
    pub const fn rule(&self, rule: AlertRule) -> &SeenRule {
        match rule {
            AlertRule::Latency => &self.latency,
            AlertRule::Silence => &self.silence,
        }
    }
}

/// One alert rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenRule {
    /// There is none, and nothing is in its way.
    Missing,
    /// There is none, and something else has its title or its folder's; what.
    Clash(String),
    /// It is there.
    Present {
        /// It is not what we sent.
        edited: bool,
        /// A file provides it: it cannot be saved.
        provisioned: bool,
        /// What it was made from; empty for one that was not finished.
        fields: BTreeMap<String, String>,
        /// What it was made for; older versions of this program did not note that.
        made_for: Option<MadeFor>,
    },
}

/// What a query through Grafana's data source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Not asked, since there is no data source, or InfluxDB does not run.
    Unasked,
    /// It reaches the database.
    Ok,
    /// It does not; why.
    Failing(String),
}
