//! What `up` is to bring about: built once from the settings, never changed afterwards.
//!
//! Knows what identifies and what distinguishes each thing. Must not know where a setting came
//! from, nor how the engine or Grafana spell it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::address::{ServerUrl, bracketed, reachable};
use super::alerts::Alerts;
use super::image::ImageRef;
use super::invocation::Invocation;
use super::retention::Retention;
use super::role::Role;
use super::specification::Specification;

/// A password or token: never shown by `Debug`, so that it cannot slip into a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text of a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one request or file that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Everything `up` makes true and `status` compares the world against.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The instance's name.
    pub instance: String,
    /// Who serves as InfluxDB.
    pub influxdb: Service,
    /// Who serves as Grafana.
    pub grafana: Service,
    /// The database that Clipper writes to, by Clipper's own rule.
    pub database: String,
    /// How long its points are kept; `None` leaves that as it is.
    pub retention: Option<Retention>,
    /// Grafana's organisation; `None` is its main one.
    pub organisation: Option<String>,
    /// Title of the folder that a new dashboard is put into; `None` is none.
    pub folder: Option<String>,
    /// How Grafana reaches the database.
    pub data_source: DataSource,
    /// The bundled dashboard.
    pub dashboard: Dashboard,
    /// The dashboards of the user's own.
    pub user_dashboards: Vec<UserDashboard>,
    /// Remembered files of such dashboards that cannot be used now, and why: what Grafana has of them stays.
    pub unreadable_dashboards: Vec<String>,
    /// The alert rules.
    pub alerts: Alerts,
    /// Who signs in to Grafana.
    pub login: Login,
    /// What is to be remembered with the instance; `None` where no engine is asked.
    pub settings: Option<Settings>,
    /// The restore that this run carries out.
    pub restore: Option<Restore>,
    /// The unfinished restore that it takes over.
    pub replaced_restore: Option<Restore>,
    /// The image of Grafana that is used where nobody gives one.
    pub default_image: String,
    /// The image of Grafana that would be used, had it not failed when it was tried.
    pub refused_image: Option<ImageRef>,
    /// When images are pulled.
    pub pull: Pull,
    /// Bounds the waiting for servers, counted after pulls.
    pub timeout: Duration,
    /// Where the engine runs.
    pub engine: EngineLocation,
    /// Where Clipper's file says that Clipper will write, if a file was given.
    pub clipper: Option<ClipperTarget>,
    /// How a suggested command reaches this instance.
    pub invocation: Invocation,
    /// This machine's address for other machines, where something is published at a wildcard.
    pub own_address: Option<IpAddr>,
}

impl Stack {
    /// A command to suggest, complete: typed as it stands, it reaches the same instance.
    #[must_use]
    pub fn command(&self, arguments: &str) -> String {
        self.invocation.command(arguments)
    }

    /// Who serves as `role`.
    #[must_use]
    pub const fn service(&self, role: Role) -> &Service {
        match role {
            Role::Influxdb => &self.influxdb,
            Role::Grafana => &self.grafana,
        }
    }

    /// The container that serves as `role`, unless a server that is already there does.
    #[must_use]
    pub const fn container(&self, role: Role) -> Option<&ContainerSpec> {
        match self.service(role) {
            Service::Container(spec) => Some(spec),
            Service::External { .. } => None,
        }
    }

    /// A proxy may stand between Grafana and InfluxDB, with settings of the data source that only the user knows.
    #[must_use]
    pub const fn may_have_proxy(&self) -> bool {
        self.container(Role::Influxdb).is_none() || self.data_source.is_url_chosen
    }

    /// The address that a browser or Clipper uses for `role`.
    #[must_use]
    pub fn url(&self, role: Role) -> ServerUrl {
        match self.service(role) {
            Service::Container(spec) => spec.url(),
            Service::External { url } => url.clone(),
        }
    }

    /// The address that other machines use for `role`; `None` where they cannot reach it.
    #[must_use]
    pub fn public_url(&self, role: Role) -> Option<ServerUrl> {
        let spec = self.container(role)?;
        let publish = spec.specification.publish;
        if publish.ip().is_loopback() {
            return None;
        }
        if spec.engine_host.is_some() || !publish.ip().is_unspecified() {
            return Some(spec.url());
        }
        let own = self.own_address.filter(|own| own.is_ipv4() == publish.ip().is_ipv4())?;
        Some(ServerUrl::http(own.to_string(), publish.port()))
    }

    /// The command that brings the dashboard to this machine's browser, where Grafana listens on the
    /// loopback of an engine behind ssh.
    #[must_use]
    pub fn forward_command(&self) -> Option<String> {
        let EngineLocation::OverSsh { forward, .. } = &self.engine else { return None };
        let publish = self.container(Role::Grafana)?.specification.publish;
        publish.ip().is_loopback().then(|| forward.command(publish))
    }

    /// Where the dashboard is opened.
    #[must_use]
    pub fn dashboard_url(&self) -> String {
        format!("{}/d/{}", self.url(Role::Grafana), self.dashboard.uid)
    }

    /// All dashboards, the bundled one first.
    pub fn dashboards(&self) -> impl Iterator<Item = DashboardId> + use<> {
        std::iter::once(DashboardId::Bundled).chain((0..self.user_dashboards.len()).map(DashboardId::User))
    }

    /// What identifies a dashboard in Grafana: its uid, its title, and the fingerprint of its file.
    #[must_use]
    pub fn dashboard_identity(&self, id: DashboardId) -> (&str, &str, &str) {
        match id {
            DashboardId::Bundled => (&self.dashboard.uid, &self.dashboard.title, &self.dashboard.edition),
            DashboardId::User(index) => {
                let own = &self.user_dashboards[index];
                (&own.uid, &own.title, &own.edition)
            }
        }
    }

    /// At least one role is served by a container of ours.
    #[must_use]
    pub fn needs_engine(&self) -> bool {
        Role::ALL.iter().any(|role| self.container(*role).is_some())
    }
}

/// Who serves as a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// A container of ours.
    Container(Box<ContainerSpec>),
    /// A server that is already there: configured, never started or stopped.
    External {
        /// Its base address.
        url: ServerUrl,
    },
}

/// Where the engine's published ports appear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineLocation {
    /// On this machine.
    Here,
    /// On another one, of this name: its loopback is not ours.
    Elsewhere(String),
    /// On another one, whose addresses, loopback too, are reached through ssh.
    OverSsh {
        /// Its own name.
        host: String,
        /// Brings Grafana's port to this machine; typed as it stands but for the port.
        forward: SshForward,
    },
}

/// How a port of the engine's loopback is brought to this machine: a command with the port in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshForward {
    /// What stands behind the ports: options and the host.
    pub destination: String,
}

impl SshForward {
    /// The command for one address there, at the same port here.
    #[must_use]
    pub fn command(&self, there: SocketAddr) -> String {
        let port = there.port();
        format!("ssh -N -L {port}:{}:{port} {}", bracketed(&there.ip().to_string()), self.destination)
    }
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Only when the engine does not have it.
    Missing,
    /// Each time, and the container follows when the image has changed.
    Always,
    /// Never; an image that is not there is an error.
    Never,
}

/// A container to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Which server runs inside.
    pub role: Role,
    /// Container name.
    pub name: String,
    /// What it is made from.
    pub specification: Specification,
    /// The engine's machine, unless it is this one.
    pub engine_host: Option<String>,
    /// The engine's id of the image, where another one has its name by now.
    pub pinned_image: Option<String>,
}

impl ContainerSpec {
    /// The address to open or to write to.
    #[must_use]
    pub fn url(&self) -> ServerUrl {
        let publish = self.specification.publish;
        self.url_at(publish.ip(), publish.port())
    }

    /// The address at which a container is reached from here that is published at `ip`, which need
    /// not be where this specification would publish it.
    #[must_use]
    pub fn url_at(&self, ip: IpAddr, port: u16) -> ServerUrl {
        match &self.engine_host {
            Some(host) if ip.is_unspecified() => ServerUrl::http(host, port),
            _ => ServerUrl::http(reachable(ip).to_string(), port),
        }
    }
}

/// Who signs in to Grafana; secrets are kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user, unless a token stands for one.
    pub user: String,
    /// A token is used.
    pub token: bool,
    /// A password or another user than before was given to this run: it is tried before anything
    /// is changed for it.
    pub given: bool,
}

impl Login {
    /// Grafana's own default administrator.
    pub const ADMIN: &str = "admin";
    /// The password that it has at first, which everybody knows.
    pub const PUBLIC_PASSWORD: &str = "admin";
    /// Grafana accepts no shorter password, in characters.
    pub const SHORTEST_PASSWORD: usize = 4;

    /// Grafana takes such a password, and a file holds it on one line.
    #[must_use]
    pub fn is_password(text: &str) -> bool {
        text.chars().count() >= Self::SHORTEST_PASSWORD && !text.contains(char::is_control)
    }

    /// Signing in says whether admin/admin is shut out.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        !self.token && self.user == Self::ADMIN
    }
}

/// What somebody gave to this instance, to be remembered with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// By the option's name.
    pub values: BTreeMap<String, Remembered>,
    /// What was remembered is gone although the instance exists.
    pub lost: Option<Lost>,
}

/// A remembered setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// As it was given.
    pub value: String,
    /// A file gave it: the next run with a file that says nothing of it drops it.
    pub of_file: bool,
}

/// A restore, from its beginning until all its data is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// The run that carries it out.
    pub id: String,
    /// The path of the archive.
    pub archive: String,
    /// The digest of the archive's manifest, which holds the digests of its files.
    pub digest: String,
    /// The machine where it runs.
    pub machine: String,
    /// Its process there.
    pub process: u32,
}

impl Restore {
    /// Both restore the same archive. Another one may have been copied over the same path.
    #[must_use]
    pub fn is_of_same(&self, other: &Self) -> bool {
        (&self.archive, &self.digest) == (&other.archive, &other.digest)
    }
}

/// Remembered settings that cannot be used, although the instance exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Why.
    pub cause: Loss,
    /// The settings whose values neither this run nor a container tells.
    pub unknown: Vec<UnknownSetting>,
}

/// How remembered settings were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// No copy is left.
    Gone,
    /// The copy cannot be read.
    Unreadable,
    /// Some of its values cannot be used.
    Values,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "lost",
            Self::Unreadable => "unreadable",
            Self::Values => "not usable",
        })
    }
}

/// A setting whose remembered value is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSetting {
    /// The option's name, without dashes.
    pub option: &'static str,
    /// What stands for its value in help.
    pub value_name: &'static str,
    /// It names a server that serves in place of a container.
    pub is_server: bool,
    /// What is stored in place of a value that can be used.
    pub stored: Option<String>,
}

/// Where Clipper itself will write, according to its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipperTarget {
    /// Host name or address, as written there.
    pub host: String,
    /// What the host resolves to here; empty if it does not.
    pub addresses: Vec<IpAddr>,
    /// Those of them that the engine's machine has.
    pub on_engine: Vec<IpAddr>,
    /// Port.
    pub port: u16,
    /// Database, after Clipper's rule for white space.
    pub database: String,
}

/// The data source, reduced to what we set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSource {
    /// Stable identity; panels refer to it.
    pub uid: String,
    /// Name that people see.
    pub name: String,
    /// InfluxDB's address as Grafana's server sees it.
    pub url: String,
    /// The user supplied that address, so that a proxy may answer there.
    pub is_url_chosen: bool,
    /// Database.
    pub database: String,
    /// InfluxDB's user, where it wants one.
    pub user: String,
    /// The fingerprint of this machine, if `url` was derived and is on its loopback: the same address on another machine
    /// is another InfluxDB.
    pub machine: Option<String>,
}

/// What an object in Grafana was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeFor {
    /// InfluxDB's address as Grafana's server reaches it.
    pub url: String,
    /// The database.
    pub database: String,
    /// The machine whose loopback the address is on, as in [`DataSource::machine`]; `None` if it is unknown or does not
    /// matter.
    pub machine: Option<String>,
}

impl MadeFor {
    /// Both are the same database, as far as both machines are known.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.url == other.url && self.database == other.database && !self.is_on_another_machine(other)
    }

    /// The addresses are on the loopback of two machines.
    #[must_use]
    pub fn is_on_another_machine(&self, other: &Self) -> bool {
        matches!((&self.machine, &other.machine), (Some(one), Some(another)) if one != another)
    }
}

impl fmt::Display for MadeFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database {} at {}", self.database, self.url)
    }
}

impl DataSource {
    /// The field that lists settings of other people, such as a client certificate for a proxy before InfluxDB.
    pub const OTHER_SETTINGS: &'static str = "other settings";
    /// The query language of the dashboard.
    pub const LANGUAGE: &'static str = "InfluxQL";

    /// What the data source and everything that queries it are made for.
    #[must_use]
    pub fn made_for(&self) -> MadeFor {
        MadeFor { url: self.url.clone(), database: self.database.clone(), machine: self.machine.clone() }
    }

    /// The smallest interval worth asking for: Clipper reports every 15 s.
    pub const INTERVAL: &'static str = "15s";

    /// What Grafana must have stored, one text for each field.
    #[must_use]
    pub fn fields(&self) -> BTreeMap<String, String> {
        [
            ("name", self.name.as_str()),
            ("type", "influxdb"),
            ("access", "proxy"),
            ("url", &self.url),
            ("database", &self.database),
            ("user", &self.user),
            ("interval", Self::INTERVAL),
            ("language", Self::LANGUAGE),
            ("HTTP method", "POST"),
            (Self::OTHER_SETTINGS, ""),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into()
    }
}

/// One of a stack's dashboards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DashboardId {
    /// The one that comes with clipper-metrics.
    Bundled,
    /// One of the user's own, by its place in the stack.
    User(usize),
}

/// A dashboard of the user's own, from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDashboard {
    /// The file.
    pub path: String,
    /// Stable identity: the file's, else one that is made of its title.
    pub uid: String,
    /// Title that people see.
    pub title: String,
    /// Fingerprint of the file: differs for every other version of it.
    pub edition: String,
    /// The file's dashboard as JSON, without what an export adds and what Grafana counts itself.
    pub content: String,
    /// What it needs that a Grafana may lack.
    pub needs: Vec<Need>,
    /// What was changed in it to import it, and what cannot work in any Grafana; sentences.
    pub notes: Vec<String>,
}

/// Something that a Grafana may lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The panel or variable that needs it, such as `panel "Latency"`.
    pub by: String,
    /// What it is.
    pub object: NeededObject,
}

/// Something in Grafana that a dashboard refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeededObject {
    /// A data source of the user's, by its uid or name.
    DataSource(String),
    /// A panel plugin, by its id.
    PanelType(String),
}

/// The bundled dashboard and what is filled into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dashboard {
    /// Stable identity, so that importing twice replaces.
    pub uid: String,
    /// Title that people see.
    pub title: String,
    /// Fingerprint of the bundled file: differs for every other version of it.
    pub edition: String,
    /// Clipper's latency objective in microseconds, if a file said so.
    pub objective: Option<u64>,
    /// The models that Clipper's file names, if a file was given.
    pub models: Option<Vec<String>>,
}

impl Dashboard {
    /// Clipper's own default for `slo_micros`, in microseconds.
    pub const DEFAULT_OBJECTIVE: u64 = 20_000;
}
