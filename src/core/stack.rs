//! The wanted state: built once from the settings, never changed afterwards.
//!
//! Knows what identifies and what distinguishes each thing that `up` brings about. Must not know
//! where a setting came from, nor how the engine or Grafana spell it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The two servers of a stack, in the order in which they are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Stores the metrics.
    Influxdb,
    /// Shows the metrics.
    Grafana,
}

impl Role {
    /// Both roles.
    pub const ALL: [Self; 2] = [Self::Influxdb, Self::Grafana];

    /// The role's name in labels, options, container names and on the network.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Influxdb => "influxdb",
            Self::Grafana => "grafana",
        }
    }

    /// The product's name, for sentences.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Influxdb => "InfluxDB",
            Self::Grafana => "Grafana",
        }
    }

    /// The TCP port inside the container; the published one is a setting.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Influxdb => 8086,
            Self::Grafana => 3000,
        }
    }

    /// Where the image keeps its data.
    #[must_use]
    pub const fn data_path(self) -> &'static str {
        match self {
            Self::Influxdb => "/var/lib/influxdb",
            Self::Grafana => "/var/lib/grafana",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
    /// Who plays InfluxDB.
    pub influxdb: Service,
    /// Who plays Grafana.
    pub grafana: Service,
    /// The database that Clipper writes to, by Clipper's own rule.
    pub database: String,
    /// Grafana's organisation; `None` is its main one.
    pub organisation: Option<String>,
    /// Title of the folder that a new dashboard is put into; `None` is none.
    pub folder: Option<String>,
    /// How Grafana reaches the database.
    pub data_source: DataSource,
    /// The bundled dashboard.
    pub dashboard: Dashboard,
    /// When images are pulled.
    pub pull: Pull,
    /// Bounds the waiting for servers, counted after pulls.
    pub timeout: Duration,
    /// Where Clipper's file says that Clipper will write, if a file was given.
    pub clipper: Option<ClipperTarget>,
}

/// Where Clipper itself will write, according to its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipperTarget {
    /// Host name or address, as written there.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database, after Clipper's rule for white space.
    pub database: String,
}

impl Stack {
    /// Who plays `role`.
    #[must_use]
    pub const fn service(&self, role: Role) -> &Service {
        match role {
            Role::Influxdb => &self.influxdb,
            Role::Grafana => &self.grafana,
        }
    }

    /// The container that plays `role`, unless a server that is already there does.
    #[must_use]
    pub const fn container(&self, role: Role) -> Option<&ContainerSpec> {
        match self.service(role) {
            Service::Container(spec) => Some(spec),
            Service::External { .. } => None,
        }
    }

    /// The address that a browser or Clipper uses for `role`.
    #[must_use]
    pub fn url(&self, role: Role) -> String {
        match self.service(role) {
            Service::Container(spec) => spec.url(),
            Service::External { url } => url.clone(),
        }
    }

    /// At least one role is played by a container of ours.
    #[must_use]
    pub fn needs_engine(&self) -> bool {
        Role::ALL.iter().any(|role| self.container(*role).is_some())
    }
}

/// Who plays a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// A container of ours.
    Container(ContainerSpec),
    /// A server that is already there: configured, never started or stopped.
    External {
        /// Its base address, without a slash at the end.
        url: String,
    },
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

/// Where Grafana's administrator gets the first password from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Password {
    /// Grafana's own default, `admin`; on loopback only.
    Default,
    /// A file in the data volume.
    File,
}

impl Password {
    /// The word in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
        }
    }
}

/// What we ask the engine for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Which server runs inside.
    pub role: Role,
    /// Container name, also the name of its volume.
    pub name: String,
    /// The network that both containers share.
    pub network: String,
    /// Image reference, tag or digest included.
    pub image: String,
    /// Environment, without secrets.
    pub env: BTreeMap<String, String>,
    /// The one address that the port is published at.
    pub address: IpAddr,
    /// The published port.
    pub port: u16,
    /// Host name or address to reach the published port at, where `address` is a wildcard or the
    /// engine is another machine's.
    pub reach: String,
    /// The root file system cannot be written: where it is our own default image.
    pub read_only: bool,
    /// Grafana's first password.
    pub password: Password,
    /// Settings that act inside the servers but are remembered here: name to value in force.
    pub settings: BTreeMap<String, String>,
    /// The settings that somebody gave, name to value; what a later bare run goes by.
    pub given: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// The setting that gives Grafana's container a name for the machine that it runs on.
    pub const HOST_GATEWAY: &str = "host gateway";
    /// That name.
    pub const HOST_NAME: &str = "host.docker.internal";

    /// The address to open or to write to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}:{}", bracketed(&self.reach), self.port)
    }

    /// The address and port that the engine publishes.
    #[must_use]
    pub fn publish(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Everything whose change needs a new container, one line each, as the label keeps it.
    #[must_use]
    pub fn fields(&self) -> BTreeMap<String, String> {
        let mut fields: BTreeMap<String, String> = [
            ("image", self.image.clone()),
            ("publish", self.publish().to_string()),
            ("network", self.network.clone()),
            ("volume", self.name.clone()),
            ("read-only", self.read_only.to_string()),
            ("password", self.password.name().to_string()),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into();
        fields.extend(self.env.iter().map(|(name, value)| (format!("env {name}"), value.clone())));
        fields.extend(self.settings.clone());
        fields
    }
}

/// Puts the brackets around an IPv6 address that a URL needs.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_string() }
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
    /// Database.
    pub database: String,
    /// InfluxDB's user, where it wants one.
    pub user: String,
}

impl DataSource {
    /// The smallest interval worth asking for: Clipper reports every 15 s.
    pub const INTERVAL: &'static str = "15s";

    /// What Grafana must have stored, one line each.
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
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into()
    }
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

/// One field that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Field name as the user knows it.
    pub field: String,
    /// Value found; empty if there is none.
    pub have: String,
    /// Wanted value; empty if there is to be none.
    pub want: String,
}

impl Difference {
    /// Compares two descriptions field by field.
    #[must_use]
    pub fn between(have: &BTreeMap<String, String>, want: &BTreeMap<String, String>) -> Vec<Self> {
        let names: std::collections::BTreeSet<&String> = have.keys().chain(want.keys()).collect();
        names
            .into_iter()
            .map(|name| Self {
                field: name.clone(),
                have: have.get(name).cloned().unwrap_or_default(),
                want: want.get(name).cloned().unwrap_or_default(),
            })
            .filter(|difference| difference.have != difference.want)
            .collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &str| if text.is_empty() { "(none)".to_string() } else { text.to_string() };
        write!(f, "{}: {} -> {}", self.field, or_none(&self.have), or_none(&self.want))
    }
}
