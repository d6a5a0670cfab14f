//! Clipper's configuration file, its rule for database names, and a load in the format of its reports.

pub mod file;
pub(crate) mod load;
