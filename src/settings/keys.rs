//! The table of settings: option, place in Clipper's file, default, help and commands of each. The environment
//! variable and the key of `[metrics]` follow from the option.
//!
//! The command line, the environment and Clipper's file are read by this table, and `docs/settings.md` is generated
//! from it.

use std::collections::BTreeMap;

use crate::clipper::file::{ClipperFile, ValueKind};
use crate::model::invocation::Scope;
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::upgrade::Upgrade;

/// A setting, which its row of the table describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    Config,
    Name,
    Database,
    Retention,
    InfluxdbIp,
    InfluxdbPort,
    GrafanaIp,
    GrafanaPort,
    InfluxdbUrl,
    GrafanaUrl,
    DataSourceUrl,
    CaFile,
    InfluxdbImage,
    GrafanaImage,
    Registry,
    Pull,
    GrafanaOrg,
    GrafanaFolder,
    GrafanaUser,
    Dashboard,
    Alerts,
    AlertLatencyAfter,
    AlertSilenceAfter,
    GrafanaPasswordFile,
    GrafanaTokenFile,
    InfluxdbUser,
    InfluxdbPasswordFile,
    Timeout,
    Output,
}

/// A row of the table.
#[derive(Debug)]
pub struct Key {
    pub setting: Setting,
    /// The option, without dashes; also the name under which it is remembered.
    pub option: &'static str,
    pub(crate) short: Option<char>,
    /// The variable that holds the secret itself, if the setting names a secret's file.
    pub secret_variable: Option<&'static str>,
    pub(crate) file: FileKey,
    /// The type of its value.
    pub kind: ValueKind,
    /// The value's name in help.
    pub value_name: &'static str,
    /// The default in words; empty if there is none.
    pub default: &'static str,
    /// One line of help.
    pub(crate) help: &'static str,
    /// A sentence that only the long help and the page of settings add to it.
    pub(crate) details: &'static str,
    /// Its heading in long help.
    pub(crate) group: Group,
    /// `up -h` shows it, with the other options that most people use.
    pub(crate) is_common: bool,
    /// The commands that accept it as an option; `None` means every command.
    pub(crate) commands: Option<&'static [&'static str]>,
    /// It is remembered with the instance. Secrets, credentials of external servers and options of a single run are
    /// not.
    pub(crate) remembered: bool,
    /// The suggested commands that repeat it as an option.
    pub(crate) repeated_in: Option<Scope>,
}

/// The place of a setting in Clipper's file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FileKey {
    None,
    /// A key of `[metrics]` with the option's name, in the plural for a list.
    Metrics,
    /// Clipper's own keys, and their value.
    Clipper(&'static str, fn(&ClipperFile) -> Option<&String>),
}

impl Key {
    /// The environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("CLIPPER_METRICS_{}", self.option.to_uppercase().replace('-', "_"))
    }

    /// The variables that it is read from.
    pub fn variables(&self) -> impl Iterator<Item = String> + use<> {
        [Some(self.variable()), self.secret_variable.map(String::from)].into_iter().flatten()
    }

    /// The key in `[metrics]`.
    #[must_use]
    pub(crate) fn metrics_key(&self) -> Option<String> {
        let plural = if self.kind == ValueKind::Paths { "s" } else { "" };
        matches!(self.file, FileKey::Metrics).then(|| self.option.replace('-', "_") + plural)
    }

    /// Every command accepts it, before or after the command's name.
    #[must_use]
    pub(crate) const fn is_global(&self) -> bool {
        self.commands.is_none()
    }

    /// Whether a command accepts it as an option.
    #[must_use]
    pub fn is_accepted_by(&self, command: &str) -> bool {
        self.commands.is_none_or(|commands| commands.contains(&command))
    }
}

/// The topic of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// The instance as a whole.
    Instance,
    /// InfluxDB's address, database and account.
    Influxdb,
    /// Grafana's address, account and content.
    Grafana,
    /// Images and their registry.
    Images,
    Output,
}

impl Group {
    /// The heading.
    #[must_use]
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Instance => "Instance",
            Self::Influxdb => "InfluxDB",
            Self::Grafana => "Grafana",
            Self::Images => "Images",
            Self::Output => "Output",
        }
    }
}

/// The settings of one role's server.
pub(crate) struct ServerSettings {
    pub(crate) url: Setting,
    pub(crate) ip: Setting,
    pub(crate) port: Setting,
    pub(crate) image: Setting,
}

impl ServerSettings {
    /// The settings that an external server does not have.
    pub(crate) const fn of_container(&self) -> [Setting; 3] {
        [self.ip, self.port, self.image]
    }
}

pub(crate) const fn settings_of(role: Role) -> ServerSettings {
    match role {
        Role::Influxdb => ServerSettings {
            url: Setting::InfluxdbUrl,
            ip: Setting::InfluxdbIp,
            port: Setting::InfluxdbPort,
            image: Setting::InfluxdbImage,
        },
        Role::Grafana => ServerSettings {
            url: Setting::GrafanaUrl,
            ip: Setting::GrafanaIp,
            port: Setting::GrafanaPort,
            image: Setting::GrafanaImage,
        },
    }
}

/// Values by setting, as text.
pub type Values = BTreeMap<Setting, String>;

impl Setting {
    /// Its row of the table.
    #[must_use]
    pub fn key(self) -> &'static Key {
        // A test checks that the table has the order of the enum.
        &TABLE[self as usize]
    }

    /// The option as it is typed.
    #[must_use]
    pub(crate) fn option(self) -> String {
        format!("--{}", self.key().option)
    }
}

/// The commands that compare the instance with its settings, or write it.
const STACK: Option<&[&str]> = Some(&["up", "status", "doctor", "export"]);
/// The commands above, and `restore`, which creates the containers again.
const CONTAINERS: Option<&[&str]> = Some(&["up", "status", "doctor", "restore", "export"]);
/// The commands that create containers and wait for their servers.
const CREATION: Option<&[&str]> = Some(&["up", "restore"]);
/// The commands that name an external server, or the database in it.
const SERVERS: Option<&[&str]> = Some(&["up", "down", "status", "doctor", "export", "demo"]);
/// The commands that find the instance's objects in Grafana.
const GRAFANA: Option<&[&str]> = Some(&["up", "down", "status", "doctor", "export"]);
/// The commands that sign in to Grafana.
const LOGIN: Option<&[&str]> = Some(&["up", "down", "status", "doctor", "restore", "export"]);
/// The commands that write to InfluxDB, or need its address to recognize the data source.
const INFLUXDB_ADDRESS: Option<&[&str]> = Some(&["up", "down", "status", "doctor", "restore", "export", "demo"]);
/// The commands that sign in to an external InfluxDB.
const INFLUXDB_LOGIN: Option<&[&str]> = Some(&["up", "status", "doctor", "export", "demo"]);

/// A remembered setting; the rows below name what differs.
const COMMON: Key = Key {
    setting: Setting::Config,
    option: "",
    short: None,
    secret_variable: None,
    file: FileKey::Metrics,
    kind: ValueKind::Text,
    value_name: "NAME",
    default: "",
    help: "",
    details: "",
    group: Group::Instance,
    is_common: false,
    commands: STACK,
    remembered: true,
    repeated_in: Some(Scope::Settings),
};

/// Every setting, in the order of the enum.
pub const TABLE: &[Key] = &[
    Key {
        setting: Setting::Config,
        is_common: true,
        commands: None,
        option: "config",
        short: Some('c'),
        kind: ValueKind::Path,
        value_name: "FILE",
        help: "Clipper's TOML file, which may contain a table [metrics]",
        remembered: false,
        file: FileKey::None,
        repeated_in: Some(Scope::Instance),
        ..COMMON
    },
    Key {
        setting: Setting::Name,
        is_common: true,
        commands: None,
        option: "name",
        default: "clipper-metrics",
        help: "Instance name; several can run side by side",
        remembered: false,
        repeated_in: Some(Scope::Instance),
        ..COMMON
    },
    Key {
        setting: Setting::Database,
        group: Group::Influxdb,
        commands: SERVERS,
        option: "database",
        default: "clipper",
        help: "Database that Clipper writes to",
        file: FileKey::Clipper("`influx_dbname`, otherwise `name`", |file| file.database.as_ref()),
        ..COMMON
    },
    Key {
        setting: Setting::Retention,
        group: Group::Influxdb,
        commands: CONTAINERS,
        option: Retention::SETTING,
        value_name: "DURATION",
        default: "unchanged",
        help: "Retention period for Clipper's data, such as 90d or inf",
        details: "A shorter period deletes older data",
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbIp,
        group: Group::Influxdb,
        commands: INFLUXDB_ADDRESS,
        option: "influxdb-ip",
        kind: ValueKind::Host,
        value_name: "IP",
        default: "127.0.0.1",
        help: "Address to publish InfluxDB at",
        file: FileKey::Clipper("`influx_ip`", |file| file.influx_ip.as_ref()),
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbPort,
        group: Group::Influxdb,
        commands: INFLUXDB_ADDRESS,
        option: "influxdb-port",
        kind: ValueKind::Port,
        value_name: "PORT",
        default: "8086",
        help: "Port to publish InfluxDB at",
        file: FileKey::Clipper("`influx_port`", |file| file.influx_port.as_ref()),
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaIp,
        group: Group::Grafana,
        is_common: true,
        commands: CONTAINERS,
        option: "grafana-ip",
        kind: ValueKind::Host,
        value_name: "IP",
        default: "127.0.0.1",
        help: "Address to publish Grafana at",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaPort,
        group: Group::Grafana,
        is_common: true,
        commands: CONTAINERS,
        option: "grafana-port",
        kind: ValueKind::Port,
        value_name: "PORT",
        default: "3000",
        help: "Port to publish Grafana at",
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbUrl,
        group: Group::Influxdb,
        is_common: true,
        commands: SERVERS,
        option: "influxdb-url",
        kind: ValueKind::Url,
        value_name: "URL",
        default: "a container",
        help: "Use this existing InfluxDB server",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaUrl,
        group: Group::Grafana,
        is_common: true,
        commands: SERVERS,
        option: "grafana-url",
        kind: ValueKind::Url,
        value_name: "URL",
        default: "a container",
        help: "Use this existing Grafana server",
        ..COMMON
    },
    Key {
        setting: Setting::DataSourceUrl,
        group: Group::Grafana,
        commands: LOGIN,
        option: "data-source-url",
        kind: ValueKind::Url,
        value_name: "URL",
        default: "derived",
        help: "InfluxDB's address as seen from Grafana",
        ..COMMON
    },
    Key {
        setting: Setting::CaFile,
        commands: SERVERS,
        option: "ca-file",
        kind: ValueKind::Path,
        value_name: "FILE",
        default: "the system's",
        help: "Certificates to trust for https URLs",
        remembered: false,
        repeated_in: Some(Scope::Servers),
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbImage,
        group: Group::Images,
        commands: CONTAINERS,
        option: "influxdb-image",
        kind: ValueKind::Image,
        value_name: "IMAGE",
        default: Role::Influxdb.facts().image,
        help: "InfluxDB's image",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaImage,
        group: Group::Images,
        commands: CONTAINERS,
        option: Upgrade::SETTING,
        kind: ValueKind::Image,
        value_name: "IMAGE",
        default: Role::Grafana.facts().image,
        help: "Grafana's image",
        ..COMMON
    },
    Key {
        setting: Setting::Registry,
        group: Group::Images,
        commands: CONTAINERS,
        option: "registry",
        value_name: "PREFIX",
        default: "Docker Hub",
        help: "Registry for the default images",
        details: "An example is mirror.example:5000",
        ..COMMON
    },
    Key {
        setting: Setting::Pull,
        group: Group::Images,
        commands: CREATION,
        option: "pull",
        kind: ValueKind::Word(&["missing", "always", "never"]),
        value_name: "missing|always|never",
        default: "missing",
        help: "When to pull images",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaOrg,
        group: Group::Grafana,
        commands: GRAFANA,
        option: "grafana-org",
        default: "the main one",
        help: "Organisation in Grafana",
        details: "It is created if it is missing",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaFolder,
        group: Group::Grafana,
        commands: GRAFANA,
        option: "grafana-folder",
        default: "none",
        help: "Folder for new dashboards in Grafana",
        details: "It is created if it is missing",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaUser,
        group: Group::Grafana,
        commands: LOGIN,
        option: "grafana-user",
        default: "admin",
        help: "Grafana user to sign in as",
        ..COMMON
    },
    Key {
        setting: Setting::Dashboard,
        group: Group::Grafana,
        commands: GRAFANA,
        option: "dashboard",
        kind: ValueKind::Paths,
        value_name: "FILE",
        help: "Your own dashboard, exported from Grafana; repeatable",
        details: "It is imported beside the bundled dashboard",
        ..COMMON
    },
    Key {
        setting: Setting::Alerts,
        group: Group::Grafana,
        is_common: true,
        option: "alerts",
        kind: ValueKind::Flag,
        value_name: "true|false",
        default: "off",
        help: "Create Grafana alert rules for slow and silent models",
        ..COMMON
    },
    Key {
        setting: Setting::AlertLatencyAfter,
        group: Group::Grafana,
        option: "alert-latency-after",
        value_name: "DURATION",
        default: "30s",
        help: "With --alerts: how long a p99 must stay above the objective",
        ..COMMON
    },
    Key {
        setting: Setting::AlertSilenceAfter,
        group: Group::Grafana,
        option: "alert-silence-after",
        value_name: "DURATION",
        default: "1m",
        help: "With --alerts: how long a model must be silent",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaPasswordFile,
        group: Group::Grafana,
        commands: LOGIN,
        option: "grafana-password-file",
        secret_variable: Some("CLIPPER_METRICS_GRAFANA_PASSWORD"),
        kind: ValueKind::Path,
        value_name: "FILE",
        help: "Password file, or set CLIPPER_METRICS_GRAFANA_PASSWORD",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaTokenFile,
        group: Group::Grafana,
        commands: LOGIN,
        option: "grafana-token-file",
        secret_variable: Some("CLIPPER_METRICS_GRAFANA_TOKEN"),
        kind: ValueKind::Path,
        value_name: "FILE",
        help: "Token file, or set CLIPPER_METRICS_GRAFANA_TOKEN",
        details: "A token replaces the user and the password",
        remembered: false,
        repeated_in: Some(Scope::Servers),
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbUser,
        group: Group::Influxdb,
        commands: INFLUXDB_LOGIN,
        option: "influxdb-user",
        help: "User on the server at --influxdb-url",
        remembered: false,
        repeated_in: Some(Scope::Servers),
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbPasswordFile,
        group: Group::Influxdb,
        commands: INFLUXDB_LOGIN,
        option: "influxdb-password-file",
        secret_variable: Some("CLIPPER_METRICS_INFLUXDB_PASSWORD"),
        kind: ValueKind::Path,
        value_name: "FILE",
        help: "Password file, or set CLIPPER_METRICS_INFLUXDB_PASSWORD",
        remembered: false,
        repeated_in: Some(Scope::Servers),
        ..COMMON
    },
    Key {
        setting: Setting::Timeout,
        commands: CREATION,
        option: "timeout",
        value_name: "DURATION",
        default: "2m",
        help: "How long to wait for the servers",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::Output,
        group: Group::Output,
        commands: None,
        option: "output",
        kind: ValueKind::Word(&["human", "json", "env", "json-schema"]),
        value_name: "FORMAT",
        default: "human",
        help: "Output format: human, json; status also: env, json-schema",
        remembered: false,
        file: FileKey::None,
        repeated_in: None,
        ..COMMON
    },
];

/// The keys of `[metrics]` and the types of their values.
#[must_use]
pub fn file_keys() -> Vec<(String, ValueKind)> {
    TABLE.iter().filter_map(|key| Some((key.metrics_key()?, key.kind))).collect()
}

/// The settings in the environment. An empty variable counts as unset.
#[must_use]
pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Values {
    let given = |key: &Key| variable(&key.variable()).filter(|value| !value.is_empty());
    TABLE.iter().filter_map(|key| Some((key.setting, given(key)?))).collect()
}
