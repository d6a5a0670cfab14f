//! Makes all decisions: compares the desired stack with the observed state and derives the plan and
//! the status.
//!
//! Imports nothing but `std` and `serde`, prints nothing, reads no clock and no environment.

pub mod address;
pub mod alerts;
pub(crate) mod clipper_file;
pub mod container_config;
pub mod credentials;
mod date;
pub mod diagnosis;
pub mod event;
pub mod export;
pub(crate) mod hints;
pub mod image;
pub mod instances;
pub mod invocation;
pub mod login;
mod names;
pub mod native;
pub mod observed;
pub mod plan;
pub mod publish;
pub mod reports;
pub(crate) mod results;
pub mod retention;
pub mod role;
pub mod stack;
pub mod status;
pub mod text;
pub mod upgrade;
pub mod version;
pub mod volume_content;
