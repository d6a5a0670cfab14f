//! The file that `backup` writes and `restore` reads: a compressed tar archive that ends with a
//! manifest, which contains the digests of all other files.
//!
//! All content is streamed: memory use grows neither with the data nor with the claims of a crafted archive.

mod content;
mod format;
mod read;
#[cfg(test)]
mod samples;
mod write;

pub(crate) use self::format::{ArchiveFolder, Manifest};
pub(crate) use self::read::RestoreTarget;
pub use self::read::Verified;
pub(crate) use self::write::{New, Part, directory, expect_free};
