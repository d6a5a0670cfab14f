//! What Clipper itself fixes: its configuration file, its rule for names, and a load like its own.
//!
//! Talks to nobody. Must not know defaults, options, or what is done with a value.

pub mod file;
pub mod load;
