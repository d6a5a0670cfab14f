//! The observed state: one snapshot that every decision is based on.
//!
//! A server's content is nested in [`ServerResponse::Answering`], so a snapshot cannot claim to know a
//! database of a server that did not answer.

mod contents;

use std::collections::BTreeMap;
use std::net::SocketAddr;

pub(crate) use self::contents::QueryFault;
pub use self::contents::{
    ActualAlerts, ActualDashboard, ActualRule, AlertFolder, AlertRulesState, Catalogue, CatalogueSource,
    ChosenOrganisation, DashboardState, DataSourceState, FolderState, GrafanaState, InfluxdbState, OrganisationState,
    OtherObject, Query, SharedName, StoredVersion, Unreadable,
};
use crate::model::container_config::{ContainerConfig, PasswordSource};
use crate::model::login::LoginState;
use crate::model::role::Role;
use crate::model::stack::{Remembered, UnfinishedRestore};
use crate::model::upgrade::{NamedImage, Upgrade};
use crate::model::version::Version;
use crate::model::volume_content::VolumeContent;

/// A snapshot of everything that a stack describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The time of the snapshot, in microseconds since 1970.
    pub time: u128,
    /// The engine, if the run uses one.
    pub engine: Option<EngineInfo>,
    /// The network that the containers share.
    pub network: Network,
    /// Names of running containers of other owners on that network; it cannot be removed while they use it.
    pub network_users: Vec<String>,
    /// The settings remembered with the instance.
    pub settings: StoredSettings,
    pub influxdb: ObservedServer,
    pub grafana: ObservedServer,
    /// Other instances on this engine.
    pub others: Vec<String>,
    /// Names of containers that carry the instance's labels but do not belong to it.
    pub lookalikes: Vec<String>,
    /// Containers that check an address for this run or another one. They can hold an address, and are attached to the
    /// network.
    pub address_checks: Vec<AddressCheck>,
}

impl Observed {
    #[must_use]
    pub const fn server(&self, role: Role) -> &ObservedServer {
        match role {
            Role::Influxdb => &self.influxdb,
            Role::Grafana => &self.grafana,
        }
    }

    #[must_use]
    pub const fn server_mut(&mut self, role: Role) -> &mut ObservedServer {
        match role {
            Role::Influxdb => &mut self.influxdb,
            Role::Grafana => &mut self.grafana,
        }
    }

    /// InfluxDB's content, if it answered.
    #[must_use]
    pub(crate) const fn influxdb_state(&self) -> Option<&InfluxdbState> {
        match &self.influxdb.response {
            ServerResponse::Answering(ServerContent::Influxdb(content)) => Some(content),
            _ => None,
        }
    }

    /// Grafana's content, if it answered.
    #[must_use]
    pub(crate) fn grafana_state(&self) -> Option<&GrafanaState> {
        match &self.grafana.response {
            ServerResponse::Answering(ServerContent::Grafana(content)) => Some(content),
            _ => None,
        }
    }

    /// Whether Grafana answers and its organisation can be used.
    #[must_use]
    pub(crate) fn has_organisation(&self) -> bool {
        self.grafana_state().is_some_and(|grafana| grafana.organisation == OrganisationState::Present)
    }
}

/// The engine that answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineInfo {
    /// Its address.
    pub endpoint: String,
    /// Why this engine was chosen.
    pub chosen_by: String,
    pub version: String,
    /// The newest API version that it supports.
    pub api_version: String,
    pub kind: EngineKind,
}

impl EngineInfo {
    /// Whether other hosts on the engine's network reach ports published on its loopback, which
    /// Docker 28.0 prevents. `None` if unknown.
    #[must_use]
    pub(crate) fn exposes_loopback(&self) -> Option<bool> {
        match self.kind {
            EngineKind::Docker => Some(Version::parse(&self.version)? < CLOSES_LOOPBACK),
            EngineKind::RootlessDocker | EngineKind::VirtualMachine => Some(false),
            EngineKind::Podman => None,
        }
    }
}

/// The first Docker that drops packets from other hosts to ports published on loopback.
const CLOSES_LOOPBACK: Version = Version(28, 0);

/// Kinds of engines, which differ in how they publish ports and reach their host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker, directly on the host.
    #[default]
    Docker,
    /// Docker in a user's own network namespace, with a process that forwards its ports.
    RootlessDocker,
    /// Docker in a virtual machine that no other host can reach.
    VirtualMachine,
    Podman,
}

/// The network with the instance's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// It does not exist.
    Free,
    /// Managed. Several exist if two runs raced each other; the first one is kept.
    Ours(Vec<String>),
    /// It exists without this instance's label and is never changed.
    Foreign,
}

impl Network {
    /// The id of the network to attach containers to.
    #[must_use]
    pub(crate) fn id(&self) -> Option<&str> {
        match self {
            Self::Ours(ids) => ids.first().map(String::as_str),
            _ => None,
        }
    }
}

/// The settings remembered with an instance. Several copies exist if a run died while replacing
/// one; the newest is valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredSettings {
    /// The numbers of all copies, the newest last.
    pub numbers: Vec<u64>,
    /// The values in the newest copy by option name; `None` if there is no copy or it cannot be read.
    pub values: Option<BTreeMap<String, Remembered>>,
    /// A change of Grafana's image that is still pending or was rolled back.
    pub upgrade: Option<Upgrade>,
    /// A restore that is not complete.
    pub restore: Option<UnfinishedRestore>,
}

/// One role: image, volume, container and server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedServer {
    /// The specified image, if the engine has it.
    pub image: Option<Image>,
    /// The volume with the role's name.
    pub volume: VolumeState,
    /// The role's container.
    pub container: ContainerState,
    /// The other owner of the desired port.
    pub port_holder: Option<PortHolder>,
    /// The name of another running container that mounts the volume at the server's data path.
    pub volume_user: Option<String>,
    /// Names of other owners' containers that mount the volume, running or not; it cannot be deleted while they exist.
    pub volume_users: Vec<String>,
    /// A free port nearby, if the desired one is taken.
    pub free_port: Option<u16>,
    /// The managed container that an external server's URL leads to.
    pub managed_behind: Option<ManagedServer>,
    /// The server's answer.
    pub response: ServerResponse<ServerContent>,
    /// The server's version, once known.
    pub version: Option<String>,
    /// The login to Grafana.
    pub login: LoginState,
    /// The content of Grafana's volume; read only if a decision depends on it, and a container can show it.
    pub content: Option<VolumeContent>,
    /// The reason why the content of Grafana's volume could not be read.
    pub unreadable: Option<String>,
    /// The image that ran last on Grafana's volume according to its content, if it is not the specified one; without
    /// an id if it is not on the engine.
    pub last_image: Option<NamedImage>,
}

impl ObservedServer {
    /// The version that the volume was created for, if the image tag named it.
    #[must_use]
    pub(crate) const fn label(&self) -> Option<Version> {
        match self.volume {
            VolumeState::Ours { version, .. } => version,
            VolumeState::Absent | VolumeState::Foreign => None,
        }
    }

    /// The version that the server reports.
    #[must_use]
    pub(crate) fn running_version(&self) -> Option<Version> {
        self.version.as_deref().and_then(Version::parse)
    }

    /// Whether a server runs whose version the volume's label does not name; a file in the volume records it.
    #[must_use]
    pub fn runs_unlabelled_version(&self) -> bool {
        self.running_version().is_some_and(|runs| Some(runs) != self.label())
    }
}

/// A managed container at the address of a server that the settings call external.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedServer {
    /// Its name.
    pub(crate) container: String,
    pub(crate) instance: String,
    /// Whether it is this instance.
    pub(crate) is_own: bool,
    /// Whether it runs, so that nothing else can answer there.
    pub(crate) runs: bool,
}

/// The holder of a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortHolder {
    /// Another owner's container, by name.
    Container(String),
    /// This instance's container of the other role.
    OtherRole(Role),
    /// A process on the engine's host outside any container.
    Process,
    /// Such a process, and it is a server of the same role.
    Native,
    /// No holder: the engine's host does not have that address.
    NoSuchAddress,
    /// No holder: this machine has that address, but the virtual machine that the engine runs in does not.
    VirtualMachine,
}

/// An image on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The engine's id for it.
    pub id: String,
    /// The user that it runs as; empty means root.
    pub user: String,
}

/// The volume with the specified name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeState {
    /// It does not exist.
    Absent,
    /// It exists without this instance's label and is never changed.
    Foreign,
    /// Managed.
    Ours {
        /// The user of the image that the volume was created for, if recorded; empty means root.
        user: Option<String>,
        /// The server's version that the volume was created for, if the image tag named it. Later
        /// versions are recorded in a file inside the volume.
        version: Option<Version>,
        /// The image that the volume was created for, if recorded.
        image: Option<String>,
    },
}

/// The container of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// It does not exist.
    Absent,
    /// Another owner's container has its name; it is never changed.
    Foreign,
    /// Several containers carry the labels of this role; their names.
    Duplicated(Vec<String>),
    /// Managed, whatever its current name.
    Ours(Box<OurContainer>),
}

impl ContainerState {
    /// The container, if it is managed.
    #[must_use]
    pub const fn ours(&self) -> Option<&OurContainer> {
        match self {
            Self::Ours(actual) => Some(actual),
            Self::Absent | Self::Foreign | Self::Duplicated(_) => None,
        }
    }
}

/// A container of the instance: it carries the labels and mounts the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurContainer {
    /// The engine's id of it.
    pub id: String,
    /// Its name, which a user may have changed.
    pub name: String,
    /// It was renamed, and another owner's container has taken its original name.
    pub name_taken: bool,
    /// The configuration it was created from; `None` if its label cannot be read.
    pub config: Option<ContainerConfig>,
    /// The image that it was created from.
    pub image_id: String,
    /// Whether it is attached to the current network, compared by id. A container on a network that
    /// was removed and recreated under the same name cannot start.
    pub on_network: bool,
    pub run: RunState,
    /// Whether it crashed more than once since the last start by a user or a run, and started again moments ago.
    pub crashes_repeatedly: bool,
    /// Whether it was started moments ago, so that its server may still be starting.
    pub has_just_started: bool,
    /// When it was last started, in RFC 3339 format.
    pub started_at: Option<String>,
    /// The address that is actually published, while it runs.
    pub published: Option<SocketAddr>,
    /// Whether a server has run on its volume; determined for a Grafana that was never started.
    pub has_data: Option<bool>,
}

impl OurContainer {
    /// Whether neither this container nor another one has ever run on its volume.
    #[must_use]
    pub(crate) fn is_fresh(&self) -> bool {
        self.run == RunState::Created && self.has_data == Some(false)
    }

    /// The source of Grafana's first password; its default if the configuration cannot be read.
    #[must_use]
    pub(crate) fn password_source(&self) -> PasswordSource {
        self.config.as_ref().map_or(PasswordSource::Default, |made| made.password)
    }

    /// Whether Grafana's first password came from the file in its volume.
    #[must_use]
    pub(crate) fn has_password_file(&self) -> bool {
        self.password_source() == PasswordSource::File
    }

    /// Whether it is published at a port that the engine chose, which only the run that created it knows.
    #[must_use]
    pub(crate) fn is_private(&self) -> bool {
        self.config.as_ref().is_some_and(|made| made.publish.port() == 0)
    }

    /// Whether only the engine's host can reach it.
    #[must_use]
    pub(crate) fn is_on_loopback(&self) -> bool {
        self.config.as_ref().is_some_and(|config| !config.is_open())
    }
}

/// The run state of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunState {
    /// Created, but never started.
    Created,
    Running,
    Paused,
    /// Exiting and being restarted.
    Restarting,
    /// Exited with this code.
    Exited(i64),
    /// Dead: the engine failed to remove it.
    Dead,
}

/// A container that only checks an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressCheck {
    /// The engine's id.
    pub id: String,
    /// When it was created, in seconds since 1970.
    pub created: i64,
}

/// The result of probing a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerResponse<S> {
    /// Not probed: it does not run, or it cannot be reached from here.
    Unasked,
    /// No answer yet; the reason.
    Silent(String),
    /// The server, or a proxy in front of it, answers that it is not ready yet.
    Starting(String),
    /// It answers, but without the content that every plan needs.
    Failing(Unreadable),
    /// It rejects the login; its message.
    Refusing(String),
    /// Neither Clipper nor clipper-metrics can use it; the reason.
    Unusable(String),
    /// Another server answers at the container's address.
    NotTheContainer,
    /// It answers; its content.
    Answering(S),
}

impl<S> ServerResponse<S> {
    /// The same result without content; [`ServerResponse::Answering`] becomes [`ServerResponse::Unasked`].
    #[must_use]
    pub(crate) fn discard<T>(self) -> ServerResponse<T> {
        match self {
            Self::Silent(why) => ServerResponse::Silent(why),
            Self::Starting(why) => ServerResponse::Starting(why),
            Self::Failing(why) => ServerResponse::Failing(why),
            Self::Refusing(message) => ServerResponse::Refusing(message),
            Self::Unusable(what) => ServerResponse::Unusable(what),
            Self::NotTheContainer => ServerResponse::NotTheContainer,
            Self::Unasked | Self::Answering(_) => ServerResponse::Unasked,
        }
    }

    /// The same result with other content.
    #[must_use]
    pub fn map<T>(self, map: impl FnOnce(S) -> T) -> ServerResponse<T> {
        match self {
            Self::Answering(content) => ServerResponse::Answering(map(content)),
            other => other.discard(),
        }
    }

    /// The server's content, if it answered.
    #[must_use]
    pub(crate) const fn state(&self) -> Option<&S> {
        match self {
            Self::Answering(stored) => Some(stored),
            _ => None,
        }
    }
}

/// The content of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerContent {
    Influxdb(InfluxdbState),
    Grafana(Box<GrafanaState>),
}

impl From<InfluxdbState> for ServerContent {
    fn from(content: InfluxdbState) -> Self {
        Self::Influxdb(content)
    }
}

impl From<GrafanaState> for ServerContent {
    fn from(content: GrafanaState) -> Self {
        Self::Grafana(Box::new(content))
    }
}
