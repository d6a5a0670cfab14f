//! Formats of exports, and the changes that an export makes to files.

use std::fmt;

/// The target of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
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
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Provisioning, Self::Compose, Self::Swarm, Self::Kubernetes];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Compose => "compose",
            Self::Swarm => "swarm",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// Whether the export describes servers that do not exist yet.
    #[must_use]
    pub const fn makes_servers(self) -> bool {
        matches!(self, Self::Swarm | Self::Kubernetes)
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The change to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileChange {
    /// It did not exist.
    Created,
    /// An earlier export wrote it with other content.
    Updated,
    /// It already had this content.
    Unchanged,
    /// An earlier export wrote it, and it is no longer needed.
    Removed,
}

/// A finished export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The instance.
    pub instance: String,
    /// The format.
    pub format: ExportFormat,
    /// The directory, as supplied.
    pub directory: String,
    /// Each file's change, by its path in the directory.
    pub files: Vec<(String, FileChange)>,
}

impl Exported {
    /// Whether every file was already up to date.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.files.iter().all(|(_, change)| *change == FileChange::Unchanged)
    }
}
