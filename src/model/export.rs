//! The result of an export: the changes that it makes to files.

use serde::Serialize;

use super::invocation::shell_word;
use super::names::names;
use super::schema::SchemaVersion;

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
    pub(super) fn sentence(&self) -> String {
        let Self { instance, format, directory, files, .. } = self;
        let readme = shell_word(&format!("{}/README.md", directory.trim_end_matches('/')));
        let count = |change: FileChange| files.iter().filter(|file| file.change == change).count();
        if count(FileChange::Unchanged) == files.len() {
            return format!("{directory} is up to date: nothing was written\nSee {readme} for instructions.");
        }
        let all = [FileChange::Created, FileChange::Updated, FileChange::Removed, FileChange::Unchanged];
        let parts = all.into_iter().filter(|change| count(*change) > 0);
        let parts: Vec<String> = parts.map(|change| format!("{} {}", count(change), change.name())).collect();
        format!(
            "exported {instance} for {format} to {directory} (files: {})\nSee {readme} for instructions and network \
             access.",
            parts.join(", ")
        )
    }
}
