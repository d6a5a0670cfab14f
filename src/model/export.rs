//! Exports: the formats there are, and what becomes of a file.
//!
//! Must not know what is in a file.

use std::fmt;

/// What to export for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A Grafana that reads files.
    Provisioning,
    /// Docker Compose, on the instance's own volumes.
    Compose,
    /// Docker in swarm mode, on new volumes.
    Swarm,
    /// Kubernetes, on new volumes.
    Kubernetes,
}

impl Format {
    /// The name that is typed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Compose => "compose",
            Self::Swarm => "swarm",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// The servers that it describes do not exist yet.
    #[must_use]
    pub const fn makes_servers(self) -> bool {
        matches!(self, Self::Swarm | Self::Kubernetes)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileChange {
    /// It was not there.
    Created,
    /// It was as an earlier export wrote it.
    Updated,
    /// It was as it is to be.
    Unchanged,
    /// An earlier export wrote it, and it is not needed any more.
    Removed,
}

/// What an export has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The instance.
    pub instance: String,
    /// The format.
    pub format: Format,
    /// The directory, as it was given.
    pub directory: String,
    /// What became of each file, by its path below the directory.
    pub files: Vec<(String, FileChange)>,
}

impl Exported {
    /// Nothing was written, since everything was as it is to be.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.files.iter().all(|(_, change)| *change == FileChange::Unchanged)
    }
}
