//! The observed state: one snapshot, taken before deciding.
//!
//! What a server stores is nested inside [`Answer::Answering`], so a snapshot cannot claim to know
//! a database of a server that did not answer. Must not know what is wanted.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// A snapshot of everything that a stack describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The engine, where the stack needs one.
    pub engine: Option<Engine>,
    /// The network that the containers share.
    pub network: Network,
    /// The InfluxDB role.
    pub influxdb: Server<Influxdb>,
    /// The Grafana role.
    pub grafana: Server<Grafana>,
    /// Other instances on this engine.
    pub others: Vec<String>,
}

/// The engine that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// How it is reached.
    pub endpoint: String,
    /// Its own version.
    pub version: String,
    /// The newest API that it speaks.
    pub api_version: String,
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

/// One role: image, volume, container, and the server inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server<S> {
    /// The wanted image, if the engine has it.
    pub image: Option<Image>,
    /// The volume with the wanted name.
    pub volume: Volume,
    /// The container with the wanted name.
    pub container: Container,
    /// Who else publishes the wanted port: a container's name.
    pub port_holder: Option<String>,
    /// What the server says.
    pub answer: Answer<S>,
    /// Its version, as soon as it is known.
    pub version: Option<String>,
    /// What is known of Grafana's password in its volume.
    pub kept_password: KeptPassword,
}

/// What is known of Grafana's password in its volume; it is only looked for where that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptPassword {
    /// Nobody looked.
    NotAsked,
    /// There is one although the container's label does not say so: a run ended half-way.
    Unlabelled,
    /// It is the one that was given.
    AsGiven,
    /// It is another one than was given.
    NotAsGiven,
}

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The engine's id of it.
    pub id: String,
    /// The user that it runs as; empty is root.
    pub user: String,
}

/// The volume with the wanted name.
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
    },
}

/// The container with the wanted name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Container {
    /// There is none.
    Absent,
    /// There is one without our label: never touched.
    Foreign,
    /// Ours.
    Ours(OurContainer),
}

impl Container {
    /// The container, if it is ours.
    #[must_use]
    pub const fn ours(&self) -> Option<&OurContainer> {
        match self {
            Self::Ours(have) => Some(have),
            Self::Absent | Self::Foreign => None,
        }
    }
}

/// A container that carries our labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurContainer {
    /// The engine's id of it.
    pub id: String,
    /// The specification that it was created from; `None` if its label cannot be read.
    pub fields: Option<BTreeMap<String, String>>,
    /// The image that it was created from.
    pub image_id: String,
    /// It is attached to the network that is kept, compared by id: a network that was made again
    /// under the same name is a different one, and such a container can never start.
    pub on_network: bool,
    /// How far up it is.
    pub run: Run,
    /// When it was started last, RFC 3339.
    pub started_at: Option<String>,
    /// What is really published, while it runs.
    pub published: Option<SocketAddr>,
}

impl OurContainer {
    /// Where its port is published according to its specification.
    #[must_use]
    pub fn publish(&self) -> Option<SocketAddr> {
        self.fields.as_ref()?.get("publish")?.parse().ok()
    }

    /// Grafana's first password came from a file.
    #[must_use]
    pub fn has_password_file(&self) -> bool {
        self.fields.as_ref().and_then(|f| f.get("password")).is_some_and(|kind| kind == "file")
    }
}

/// How far up a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
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

/// What a server says when it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<S> {
    /// Nothing was asked, since nothing runs.
    Unasked,
    /// It does not answer (yet); why.
    Silent(String),
    /// It answers but refuses us; its words.
    Refusing(String),
    /// It is something that Clipper or we cannot use; what.
    Unusable(String),
    /// It answers; this is what it stores.
    Answering(S),
}

impl<S> Answer<S> {
    /// The same answer about something else; one that told what it stores becomes
    /// [`Answer::Unasked`].
    #[must_use]
    pub fn of_nothing<T>(self) -> Answer<T> {
        match self {
            Self::Silent(why) => Answer::Silent(why),
            Self::Refusing(words) => Answer::Refusing(words),
            Self::Unusable(what) => Answer::Unusable(what),
            Self::Unasked | Self::Answering(_) => Answer::Unasked,
        }
    }

    /// What it stores, if it told.
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
    /// The wanted database exists.
    pub has_database: bool,
}

/// What Grafana stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grafana {
    /// The wanted organisation exists.
    pub has_organisation: bool,
    /// The wanted folder exists.
    pub has_folder: bool,
    /// The data source.
    pub data_source: DataSource,
    /// The dashboard.
    pub dashboard: Dashboard,
    /// What a query through the data source says.
    pub query: Query,
}

/// The data source with the wanted uid or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// There is none.
    Missing,
    /// There is one that we did not make; what it is.
    Foreign(String),
    /// Ours, as stored.
    Ours(BTreeMap<String, String>),
}

/// The dashboard with the wanted uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dashboard {
    /// There is none.
    Missing,
    /// There is one.
    Present(SeenDashboard),
}

/// A dashboard that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDashboard {
    /// Its content is not what we sent, or carries no mark of ours.
    pub edited: bool,
    /// Fingerprint of the bundled file that it was made from.
    pub edition: Option<String>,
    /// The latency objective that it shows, in microseconds.
    pub objective: Option<u64>,
    /// The models that it was told of.
    pub models: Vec<String>,
}

/// What a query through Grafana's data source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Not asked, since there is no data source.
    Unasked,
    /// It reaches the database.
    Ok,
    /// It does not; why.
    Failing(String),
}

/// Two published addresses that cannot both be had.
#[must_use]
pub fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let wild = |ip: IpAddr| ip.is_unspecified();
    one.port() == other.port() && (one.ip() == other.ip() || wild(one.ip()) || wild(other.ip()))
}
