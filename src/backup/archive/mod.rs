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

pub use self::format::{Folder, Manifest};
pub use self::read::{Target, Verified};
pub use self::write::{New, Part, expect_free};
