//! The result of an export: the changes that it makes to files.

use serde::Serialize;

use super::names::names;
use super::results::SchemaVersion;

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
    pub(crate) format: &'static str,
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
