//! The servers of a stack, and the facts about each that do not depend on an instance.

use std::fmt;

use serde::Serialize;

/// A server of a stack, in display order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Stores the metrics.
    Influxdb,
    /// Shows the metrics.
    Grafana,
}

/// A server and its images, independent of an instance.
#[derive(Debug)]
pub(crate) struct ServerFacts {
    name: &'static str,
    pub(crate) title: &'static str,
    port: u16,
    data_path: &'static str,
    /// The content of its volume, in the plural.
    pub(crate) data: &'static str,
    /// The default image, without a registry.
    pub(crate) image: &'static str,
    /// The path that answers without a login once the server is ready.
    pub(crate) health_path: &'static str,
    /// The health check with the programs in the server's images.
    pub(crate) health_command: &'static [&'static str],
    /// The start of a path whose requests the server logs at its default level.
    pub(crate) logged_path: &'static str,
    /// The user and group of the server's images, which must own the volume.
    pub(crate) user: u32,
    pub(crate) resources: Resources,
    /// No telemetry, and no downloads at the start.
    pub(crate) environment: &'static [(&'static str, &'static str)],
    /// The product and its version that Clipper can use.
    pub(crate) usable_version: &'static str,
    /// The risk of an address that other hosts reach.
    pub(crate) open_access: &'static str,
    /// The risk of a server from a package that also answers at this machine's own address.
    pub(crate) exposure: &'static str,
    /// How to prevent that, for a port of the server.
    pub(crate) on_loopback: fn(u16) -> String,
    /// The package of Homebrew.
    pub(crate) mac_os: Package,
    /// The packages of other systems.
    pub(crate) linux: Package,
}

/// A server from a package manager.
#[derive(Debug)]
pub(crate) struct Package {
    /// How to install it.
    pub(crate) installation: &'static str,
    /// The command that shows its log, which the engine does not have.
    pub(crate) log_command: &'static str,
    /// How to copy its data.
    pub(crate) backup_advice: &'static str,
    /// The path of its settings.
    pub(crate) settings_file: &'static str,
}

/// The resources of a server in a cluster. Requests cover the use that docs/scaling.md measured for up to 100 models;
/// limits protect the node.
#[derive(Debug)]
pub(crate) struct Resources {
    pub(crate) processor: &'static str,
    pub(crate) memory: &'static str,
    pub(crate) memory_limit: &'static str,
    pub(crate) storage: &'static str,
}

const INFLUXDB: ServerFacts = ServerFacts {
    name: "influxdb",
    title: "InfluxDB",
    port: 8086,
    data_path: "/var/lib/influxdb",
    data: "metrics",
    image: "influxdb:1.12.4",
    health_path: "/ping",
    health_command: &["CMD", "influx", "-execute", "SHOW DATABASES"],
    logged_path: "/ping?clipper-metrics=",
    user: 1500,
    resources: Resources { processor: "100m", memory: "128Mi", memory_limit: "2Gi", storage: "10Gi" },
    environment: &[("INFLUXDB_REPORTING_DISABLED", "true")],
    usable_version: "InfluxDB 1.x",
    open_access: "without authentication: every host that reaches that address can read and write metrics",
    exposure: " without a password: every host that reaches that address can read, write and delete metrics",
    on_loopback: |port| format!("set bind-address in [http] to \"127.0.0.1:{port}\""),
    mac_os: Package {
        installation: "`brew install influxdb@1 && brew services start influxdb@1` (`influxdb` without `@1` is version 3)",
        log_command: "tail \"$(brew --prefix)/var/log/influxdb.log\"",
        backup_advice: INFLUXDB_BACKUP,
        settings_file: "$(brew --prefix)/etc/influxdb.conf",
    },
    linux: Package {
        installation: "InfluxData's package `influxdb` for Debian or Fedora (`influxdb2` and `influxdb3-core` are other \
                       versions)",
        log_command: "journalctl --unit influxdb",
        backup_advice: INFLUXDB_BACKUP,
        settings_file: "/etc/influxdb/influxdb.conf",
    },
};

const INFLUXDB_BACKUP: &str = "copy InfluxDB's data with `influxd backup -portable DIRECTORY` on its machine (`influxd \
                               restore -portable DIRECTORY` restores it)";

const GRAFANA: ServerFacts = ServerFacts {
    name: "grafana",
    title: "Grafana",
    port: 3000,
    data_path: "/var/lib/grafana",
    data: "users and dashboards",
    image: "grafana/grafana:12.4.10",
    health_path: "/api/health",
    health_command: &[
        "CMD-SHELL",
        "wget -q -O /dev/null http://127.0.0.1:3000/api/health || curl -sf -o /dev/null http://127.0.0.1:3000/api/health",
    ],
    // Grafana logs only requests for unknown paths.
    logged_path: "/api/clipper-metrics-",
    user: 472,
    resources: Resources { processor: "100m", memory: "256Mi", memory_limit: "1Gi", storage: "1Gi" },
    environment: &[
        ("GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "false"),
        ("GF_ANALYTICS_CHECK_FOR_UPDATES", "false"),
        ("GF_ANALYTICS_REPORTING_ENABLED", "false"),
        ("GF_DATABASE_TRANSACTION_RETRIES", "30"),
        ("GF_DATABASE_WAL", "true"),
        ("GF_NEWS_NEWS_FEED_ENABLED", "false"),
        ("GF_PLUGINS_PREINSTALL_AUTO_UPDATE", "false"),
        ("GF_PLUGINS_PREINSTALL_DISABLED", "true"),
        ("GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED", "true"),
        ("GF_SECURITY_DISABLE_GRAVATAR", "true"),
        ("GF_SNAPSHOTS_EXTERNAL_ENABLED", "false"),
        ("GF_USERS_ALLOW_SIGN_UP", "false"),
    ],
    usable_version: "Grafana",
    open_access: "over plain HTTP: passwords can be read on the network",
    exposure: ", and this one accepts admin / admin: if it is the same server, every host that reaches that address can \
               administer it",
    on_loopback: |_| "change that password, or set http_addr in [server] to 127.0.0.1".into(),
    mac_os: Package {
        installation: "`brew install grafana && brew services start grafana`",
        log_command: "tail \"$(brew --prefix)/var/log/grafana/grafana.log\"",
        backup_advice: "stop Grafana (`brew services stop grafana`), and copy \
                        `$(brew --prefix)/var/lib/grafana/grafana.db`",
        settings_file: "$(brew --prefix)/etc/grafana/grafana.ini",
    },
    linux: Package {
        installation: "Grafana's package `grafana` for Debian or Fedora",
        log_command: "journalctl --unit grafana-server",
        backup_advice: "stop Grafana, and copy its database (/var/lib/grafana/grafana.db in packages)",
        settings_file: "/etc/grafana/grafana.ini",
    },
};

impl Role {
    /// Every role.
    pub const ALL: [Self; 2] = [Self::Influxdb, Self::Grafana];

    #[must_use]
    pub(crate) const fn facts(self) -> &'static ServerFacts {
        match self {
            Self::Influxdb => &INFLUXDB,
            Self::Grafana => &GRAFANA,
        }
    }

    /// The name in labels, options, container names and on the network.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The product name.
    #[must_use]
    pub(crate) const fn title(self) -> &'static str {
        self.facts().title
    }

    /// The TCP port inside the container, and the default published port.
    #[must_use]
    pub const fn port(self) -> u16 {
        self.facts().port
    }

    /// The image's data directory.
    #[must_use]
    pub(crate) const fn data_path(self) -> &'static str {
        self.facts().data_path
    }

    /// Name of the role's container and volume in an instance.
    #[must_use]
    pub fn object_name(self, instance: &str) -> String {
        format!("{instance}-{}", self.name())
    }
}

/// One value for each server of a stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PerRole<T> {
    pub influxdb: T,
    pub grafana: T,
}

impl<T> PerRole<T> {
    /// The value that `make` returns for each role.
    pub fn from_fn(mut make: impl FnMut(Role) -> T) -> Self {
        Self { influxdb: make(Role::Influxdb), grafana: make(Role::Grafana) }
    }

    /// The value that `make` returns for each role, or its first error.
    pub(crate) fn try_from_fn<E>(mut make: impl FnMut(Role) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { influxdb: make(Role::Influxdb)?, grafana: make(Role::Grafana)? })
    }

    pub(crate) const fn get(&self, role: Role) -> &T {
        match role {
            Role::Influxdb => &self.influxdb,
            Role::Grafana => &self.grafana,
        }
    }

    /// The values in display order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        Role::ALL.into_iter().map(|role| self.get(role))
    }

    /// The values themselves.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = T> {
        let Self { influxdb, grafana } = self;
        [influxdb, grafana].into_iter()
    }

    /// The same, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let Self { influxdb, grafana } = self;
        [influxdb, grafana].into_iter()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
