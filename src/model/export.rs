//! Formats of exports, and the changes that an export makes to files.

use std::fmt;

use serde::{Serialize, Serializer};

use super::names::names;
use super::results::SchemaVersion;

/// The target of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportFormat {
    /// A Grafana that is provisioned from files.
    Provisioning,
    /// Docker Compose, with the instance's own volumes.
    Compose,
    /// Docker in swarm mode, with new volumes.
    Swarm,
    /// Kubernetes, with new volumes.
    Kubernetes,
}

impl ExportFormat {
    pub(crate) const ALL: [Self; 4] = [Self::Provisioning, Self::Compose, Self::Swarm, Self::Kubernetes];

    /// The name on the command line.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        self.texts().0
    }

    /// Its target in the help of the program.
    #[must_use]
    pub(crate) const fn target(self) -> &'static str {
        self.texts().1
    }

    /// The description of its files in the help of `export`.
    #[must_use]
    pub(crate) const fn help(self) -> &'static str {
        self.texts().2
    }

    const fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Provisioning => (
                "provisioning",
                "Grafana's provisioning",
                "Data source and dashboards for a Grafana that is provisioned from files",
            ),
            Self::Compose => ("compose", "Docker Compose", "A Compose file that uses this instance's volumes"),
            Self::Swarm => ("swarm", "Swarm", "A stack file for `docker stack deploy`"),
            Self::Kubernetes => ("kubernetes", "Kubernetes", "Manifests and a kustomization"),
        }
    }

    /// Whether the export describes servers that do not exist yet.
    #[must_use]
    pub(crate) const fn makes_servers(self) -> bool {
        matches!(self, Self::Swarm | Self::Kubernetes)
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for ExportFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

names! {
    pub(crate) enum FileChange {
        /// It did not exist.
        Created = "created",
        /// An earlier export wrote it with other content.
        Updated = "updated",
        /// It already had this content.
        Unchanged = "unchanged",
        /// An earlier export wrote it, and it is no longer needed.
        Removed = "removed",
    }
}

/// The result of `export`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Exported {
    pub(crate) schema: SchemaVersion,
    /// The instance's name.
    pub(crate) instance: String,
    /// `provisioning`, `compose`, `swarm` or `kubernetes`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub(crate) format: ExportFormat,
    /// The directory as typed.
    pub(crate) directory: String,
    pub(crate) files: Vec<ExportedFile>,
}

/// A file of an export.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ExportedFile {
    /// Its path below the directory.
    pub(crate) path: String,
    /// `created`, `updated`, `unchanged` or `removed`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub(crate) change: FileChange,
}

impl Exported {
    /// Whether every file was already up to date.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.files.iter().all(|file| file.change == FileChange::Unchanged)
    }
}
