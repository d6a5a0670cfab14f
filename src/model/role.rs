//! The two servers of a stack, with their fixed names, ports and data paths.

use std::fmt;

/// A server of a stack, in display order.
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

    /// The name in labels, options, container names and on the network.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Influxdb => "influxdb",
            Self::Grafana => "grafana",
        }
    }

    /// The product name.
    #[must_use]
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Influxdb => "InfluxDB",
            Self::Grafana => "Grafana",
        }
    }

    /// The TCP port inside the container, and the default published port.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Influxdb => 8086,
            Self::Grafana => 3000,
        }
    }

    /// The image's data directory.
    #[must_use]
    pub(crate) const fn data_path(self) -> &'static str {
        match self {
            Self::Influxdb => "/var/lib/influxdb",
            Self::Grafana => "/var/lib/grafana",
        }
    }

    /// Name of the role's container and volume in an instance.
    #[must_use]
    pub fn object_name(self, instance: &str) -> String {
        format!("{instance}-{}", self.name())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
