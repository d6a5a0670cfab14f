//! The one table of settings: option, variable, key of `[metrics]`, default and help of each.
//!
//! Command line, environment and file are read by it; help and README are checked against it. Must
//! not know what a setting does.

use std::collections::BTreeMap;

use crate::clipper::file::ValueKind;
use crate::model::retention::Retention;
use crate::model::upgrade::Upgrade;

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// Clipper's file.
    Config,
    /// The instance's name.
    Name,
    /// Clipper's database.
    Database,
    /// How long InfluxDB keeps Clipper's points.
    Retention,
    /// Where InfluxDB is published.
    InfluxdbIp,
    /// Where InfluxDB is published.
    InfluxdbPort,
    /// Where Grafana is published.
    GrafanaIp,
    /// Where Grafana is published.
    GrafanaPort,
    /// An InfluxDB that already runs.
    InfluxdbUrl,
    /// A Grafana that already runs.
    GrafanaUrl,
    /// InfluxDB as Grafana's server sees it.
    DataSourceUrl,
    /// Certificates to trust.
    CaFile,
    /// InfluxDB's image.
    InfluxdbImage,
    /// Grafana's image.
    GrafanaImage,
    /// What stands before the default images.
    Registry,
    /// When images are pulled.
    Pull,
    /// Grafana's organisation.
    GrafanaOrg,
    /// Grafana's folder.
    GrafanaFolder,
    /// Grafana's user.
    GrafanaUser,
    /// Dashboards of the user's own.
    Dashboard,
    /// Whether Grafana raises alerts.
    Alerts,
    /// How long a latency must be too high.
    AlertLatencyAfter,
    /// How long a model must be silent.
    AlertSilenceAfter,
    /// That user's password.
    GrafanaPasswordFile,
    /// A token instead of user and password.
    GrafanaTokenFile,
    /// InfluxDB's user.
    InfluxdbUser,
    /// That user's password.
    InfluxdbPasswordFile,
    /// How long servers may take.
    Timeout,
    /// How the answer is printed.
    Output,
}

/// What is fixed for one setting.
#[derive(Debug)]
pub struct Key {
    /// Which.
    pub setting: Setting,
    /// The option, without dashes; also the name under which it is remembered.
    pub option: &'static str,
    /// The short option.
    pub short: Option<char>,
    /// The environment variable.
    pub variable: &'static str,
    /// A variable that holds the secret itself, where the setting names a secret's file.
    pub secret_variable: Option<&'static str>,
    /// The key in `[metrics]`.
    pub key: Option<&'static str>,
    /// What a value is.
    pub kind: ValueKind,
    /// The value's name in help.
    pub value_name: &'static str,
    /// The default in words; empty where there is none.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// The heading that it stands under in help.
    pub group: Group,
    /// It is one of those that people use most: short help names it.
    pub is_common: bool,
    /// It is remembered with the instance. Not what belongs to one run, nor secrets, nor
    /// credentials of servers that are not ours.
    pub remembered: bool,
}

/// What a setting is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The instance as a whole.
    Instance,
    /// Where and how InfluxDB serves.
    Influxdb,
    /// Where and how Grafana serves.
    Grafana,
    /// Images and where they come from.
    Images,
    /// What is printed.
    Output,
}

impl Group {
    /// The heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Instance => "Instance",
            Self::Influxdb => "InfluxDB",
            Self::Grafana => "Grafana",
            Self::Images => "Images",
            Self::Output => "Output",
        }
    }
}

/// Values by setting, as text.
pub type Values = BTreeMap<Setting, String>;

impl Setting {
    /// What is fixed for this setting.
    #[must_use]
    pub fn key(self) -> &'static Key {
        // The table has the order of the enum, which a test checks.
        &TABLE[self as usize]
    }

    /// The option as it is typed.
    #[must_use]
    pub fn option(self) -> String {
        format!("--{}", self.key().option)
    }
}

/// A setting of `[metrics]` that is remembered; the rest says what is otherwise.
const COMMON: Key = Key {
    setting: Setting::Config,
    option: "",
    short: None,
    variable: "",
    secret_variable: None,
    key: None,
    kind: ValueKind::Text,
    value_name: "NAME",
    default: "",
    help: "",
    group: Group::Instance,
    is_common: false,
    remembered: true,
};

/// Every setting, in the order of the enum.
pub const TABLE: &[Key] = &[
    Key {
        setting: Setting::Config,
        is_common: true,
        option: "config",
        short: Some('c'),
        variable: "CLIPPER_METRICS_CONFIG",
        kind: ValueKind::Path,
        value_name: "FILE",
        help: "Clipper's own TOML file, also read for a table [metrics]",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::Name,
        is_common: true,
        option: "name",
        variable: "CLIPPER_METRICS_NAME",
        key: Some("name"),
        default: "clipper-metrics",
        help: "Name of the instance; several live side by side",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::Database,
        is_common: true,
        option: "database",
        variable: "CLIPPER_METRICS_DATABASE",
        default: "clipper",
        help: "Database that Clipper writes to",
        ..COMMON
    },
    Key {
        setting: Setting::Retention,
        group: Group::Influxdb,
        option: Retention::SETTING,
        variable: "CLIPPER_METRICS_RETENTION",
        key: Some(Retention::SETTING),
        value_name: "DURATION",
        default: "as it is",
        help: "How long InfluxDB keeps Clipper's points, such as 90d, or inf for ever; shorter than before deletes points",
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbIp,
        group: Group::Influxdb,
        option: "influxdb-ip",
        variable: "CLIPPER_METRICS_INFLUXDB_IP",
        kind: ValueKind::Host,
        value_name: "IP",
        default: "127.0.0.1",
        help: "Address that InfluxDB is published at",
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbPort,
        group: Group::Influxdb,
        option: "influxdb-port",
        variable: "CLIPPER_METRICS_INFLUXDB_PORT",
        kind: ValueKind::Port,
        value_name: "PORT",
        default: "8086",
        help: "Port that InfluxDB is published at",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaIp,
        group: Group::Grafana,
        is_common: true,
        option: "grafana-ip",
        variable: "CLIPPER_METRICS_GRAFANA_IP",
        key: Some("grafana_ip"),
        kind: ValueKind::Host,
        value_name: "IP",
        default: "127.0.0.1",
        help: "Address that Grafana is published at",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaPort,
        group: Group::Grafana,
        is_common: true,
        option: "grafana-port",
        variable: "CLIPPER_METRICS_GRAFANA_PORT",
        key: Some("grafana_port"),
        kind: ValueKind::Port,
        value_name: "PORT",
        default: "3000",
        help: "Port that Grafana is published at",
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbUrl,
        group: Group::Influxdb,
        is_common: true,
        option: "influxdb-url",
        variable: "CLIPPER_METRICS_INFLUXDB_URL",
        key: Some("influxdb_url"),
        value_name: "URL",
        default: "a container",
        help: "Use the InfluxDB that already runs there",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaUrl,
        group: Group::Grafana,
        is_common: true,
        option: "grafana-url",
        variable: "CLIPPER_METRICS_GRAFANA_URL",
        key: Some("grafana_url"),
        value_name: "URL",
        default: "a container",
        help: "Use the Grafana that already runs there",
        ..COMMON
    },
    Key {
        setting: Setting::DataSourceUrl,
        group: Group::Grafana,
        option: "data-source-url",
        variable: "CLIPPER_METRICS_DATA_SOURCE_URL",
        key: Some("data_source_url"),
        value_name: "URL",
        default: "worked out",
        help: "InfluxDB's address as Grafana's server sees it",
        ..COMMON
    },
    Key {
        setting: Setting::CaFile,
        option: "ca-file",
        variable: "CLIPPER_METRICS_CA_FILE",
        key: Some("ca_file"),
        kind: ValueKind::Path,
        value_name: "FILE",
        default: "the system's certificates",
        help: "Certificates to trust for https addresses",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbImage,
        group: Group::Images,
        option: "influxdb-image",
        variable: "CLIPPER_METRICS_INFLUXDB_IMAGE",
        key: Some("influxdb_image"),
        value_name: "IMAGE",
        default: "influxdb:1.12.4",
        help: "InfluxDB's image",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaImage,
        group: Group::Images,
        option: Upgrade::SETTING,
        variable: "CLIPPER_METRICS_GRAFANA_IMAGE",
        key: Some("grafana_image"),
        value_name: "IMAGE",
        default: "grafana/grafana:12.4.10",
        help: "Grafana's image",
        ..COMMON
    },
    Key {
        setting: Setting::Registry,
        group: Group::Images,
        option: "registry",
        variable: "CLIPPER_METRICS_REGISTRY",
        key: Some("registry"),
        value_name: "PREFIX",
        default: "Docker Hub",
        help: "Registry to pull both default images from, such as mirror.example:5000",
        ..COMMON
    },
    Key {
        setting: Setting::Pull,
        group: Group::Images,
        option: "pull",
        variable: "CLIPPER_METRICS_PULL",
        key: Some("pull"),
        kind: ValueKind::Word(&["missing", "always", "never"]),
        value_name: "WHEN",
        default: "missing",
        help: "When to pull images",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaOrg,
        group: Group::Grafana,
        option: "grafana-org",
        variable: "CLIPPER_METRICS_GRAFANA_ORG",
        key: Some("grafana_org"),
        default: "Grafana's main organisation",
        help: "Grafana's organisation, created if missing",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaFolder,
        group: Group::Grafana,
        option: "grafana-folder",
        variable: "CLIPPER_METRICS_GRAFANA_FOLDER",
        key: Some("grafana_folder"),
        default: "none",
        help: "Grafana's folder for a new dashboard, created if missing",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaUser,
        group: Group::Grafana,
        option: "grafana-user",
        variable: "CLIPPER_METRICS_GRAFANA_USER",
        key: Some("grafana_user"),
        default: "admin",
        help: "Grafana's administrator",
        ..COMMON
    },
    Key {
        setting: Setting::Dashboard,
        group: Group::Grafana,
        option: "dashboard",
        variable: "CLIPPER_METRICS_DASHBOARD",
        key: Some("dashboards"),
        kind: ValueKind::Paths,
        value_name: "FILE",
        default: "none",
        help: "A dashboard of your own, exported from Grafana, beside the bundled one; may be given several times",
        ..COMMON
    },
    Key {
        setting: Setting::Alerts,
        group: Group::Grafana,
        option: "alerts",
        variable: "CLIPPER_METRICS_ALERTS",
        key: Some("alerts"),
        kind: ValueKind::Flag,
        value_name: "true|false",
        default: "no rules",
        help: "Let Grafana raise alerts: a p99 above the objective, a model that has gone silent",
        ..COMMON
    },
    Key {
        setting: Setting::AlertLatencyAfter,
        group: Group::Grafana,
        option: "alert-latency-after",
        variable: "CLIPPER_METRICS_ALERT_LATENCY_AFTER",
        key: Some("alert_latency_after"),
        value_name: "DURATION",
        default: "30s",
        help: "With --alerts: how long a p99 must be above the objective",
        ..COMMON
    },
    Key {
        setting: Setting::AlertSilenceAfter,
        group: Group::Grafana,
        option: "alert-silence-after",
        variable: "CLIPPER_METRICS_ALERT_SILENCE_AFTER",
        key: Some("alert_silence_after"),
        value_name: "DURATION",
        default: "1m",
        help: "With --alerts: how long a model must not have reported",
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaPasswordFile,
        group: Group::Grafana,
        option: "grafana-password-file",
        variable: "CLIPPER_METRICS_GRAFANA_PASSWORD_FILE",
        secret_variable: Some("CLIPPER_METRICS_GRAFANA_PASSWORD"),
        key: Some("grafana_password_file"),
        kind: ValueKind::Path,
        value_name: "FILE",
        help: "File with that user's password (or CLIPPER_METRICS_GRAFANA_PASSWORD)",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::GrafanaTokenFile,
        group: Group::Grafana,
        option: "grafana-token-file",
        variable: "CLIPPER_METRICS_GRAFANA_TOKEN_FILE",
        secret_variable: Some("CLIPPER_METRICS_GRAFANA_TOKEN"),
        key: Some("grafana_token_file"),
        kind: ValueKind::Path,
        value_name: "FILE",
        default: "none",
        help: "File with a token for Grafana, instead of a password (or CLIPPER_METRICS_GRAFANA_TOKEN)",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbUser,
        group: Group::Influxdb,
        option: "influxdb-user",
        variable: "CLIPPER_METRICS_INFLUXDB_USER",
        key: Some("influxdb_user"),
        default: "none",
        help: "User of the InfluxDB at --influxdb-url",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::InfluxdbPasswordFile,
        group: Group::Influxdb,
        option: "influxdb-password-file",
        variable: "CLIPPER_METRICS_INFLUXDB_PASSWORD_FILE",
        secret_variable: Some("CLIPPER_METRICS_INFLUXDB_PASSWORD"),
        key: Some("influxdb_password_file"),
        kind: ValueKind::Path,
        value_name: "FILE",
        default: "none",
        help: "File with that user's password (or CLIPPER_METRICS_INFLUXDB_PASSWORD)",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::Timeout,
        option: "timeout",
        variable: "CLIPPER_METRICS_TIMEOUT",
        key: Some("timeout"),
        value_name: "DURATION",
        default: "2m",
        help: "How long to wait for the servers, such as 90s",
        remembered: false,
        ..COMMON
    },
    Key {
        setting: Setting::Output,
        group: Group::Output,
        is_common: true,
        option: "output",
        variable: "CLIPPER_METRICS_OUTPUT",
        kind: ValueKind::Word(&["human", "json", "env", "json-schema"]),
        value_name: "FORMAT",
        default: "human",
        help: "How to print the answer; env and json-schema are for status",
        remembered: false,
        ..COMMON
    },
];

/// The keys of `[metrics]`, with what each one's value is.
#[must_use]
pub fn file_keys() -> Vec<(&'static str, ValueKind)> {
    TABLE.iter().filter_map(|key| Some((key.key?, key.kind))).collect()
}

/// The settings that the environment gives. An empty variable counts as not given.
#[must_use]
pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Values {
    let given = |key: &Key| variable(key.variable).filter(|value| !value.is_empty());
    TABLE.iter().filter_map(|key| Some((key.setting, given(key)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_order_of_the_enum_and_every_setting_a_way_in() {
        for (index, key) in TABLE.iter().enumerate() {
            assert_eq!(key.setting as usize, index, "{}", key.option);
            assert!(!key.option.is_empty() && !key.help.is_empty(), "{:?}", key.setting);
            assert!(key.variable.starts_with("CLIPPER_METRICS_"), "{:?}", key.setting);
        }
        assert_eq!(Setting::Output as usize + 1, TABLE.len());
    }

    /// The page in the repository. To change it with the table:
    /// `UPDATE_SETTINGS=1 cargo test --lib keys`.
    #[test]
    fn the_page_of_settings_is_the_table() {
        let mut page = String::from(
            "# Settings\n\nAn option beats its environment variable, that beats Clipper's file, that beats what the instance \
             remembers, that beats the default. This page is made from the table in `src/settings/keys.rs`.\n",
        );
        for group in [Group::Instance, Group::Influxdb, Group::Grafana, Group::Images, Group::Output] {
            page.push_str(&format!("\n## {}\n", group.title()));
            for key in TABLE.iter().filter(|key| key.group == group) {
                let short = key.short.map(|letter| format!("`-{letter}`, ")).unwrap_or_default();
                let value = match key.kind {
                    ValueKind::Flag => format!("[={}]", key.value_name),
                    _ => format!(" {}", key.value_name),
                };
                page.push_str(&format!("\n### {short}`--{}{value}`\n\n{}.\n\n", key.option, key.help));
                let variables = [Some(key.variable), key.secret_variable].into_iter().flatten();
                let variables: Vec<String> = variables.map(|name| format!("`{name}`")).collect();
                page.push_str(&format!("* environment: {}\n", variables.join(", ")));
                if let Some(name) = key.key {
                    page.push_str(&format!("* in `[metrics]` of Clipper's file: `{name}`\n"));
                }
                if let ValueKind::Word(words) = key.kind {
                    page.push_str(&format!("* one of {}\n", words.join(", ")));
                }
                if !key.default.is_empty() {
                    page.push_str(&format!("* default: {}\n", key.default));
                }
                let remembered = if key.remembered { "remembered with the instance" } else { "for one run" };
                page.push_str(&format!("* {remembered}\n"));
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        #[expect(clippy::disallowed_methods, reason = "a test that writes what it checks when asked to")]
        if std::env::var_os("UPDATE_SETTINGS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page, "UPDATE_SETTINGS=1 cargo test --lib keys");
    }

    #[test]
    fn an_empty_variable_is_none() {
        let values = from_environment(|name| (name == "CLIPPER_METRICS_PULL").then(String::new));
        assert!(values.is_empty());
    }
}
