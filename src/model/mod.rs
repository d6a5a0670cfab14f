//! Makes all decisions: compares the desired stack with the observed state and derives the plan and
//! the status.
//!
//! Imports nothing but `std` and `serde`, prints nothing, reads no clock and no environment.

pub mod address;
pub mod alerts;
pub(crate) mod clipper_file;
pub mod container_config;
pub(crate) mod credentials;
mod date;
pub(crate) mod diagnosis;
pub(crate) mod event;
pub(crate) mod export;
pub(crate) mod hints;
pub mod image;
pub(crate) mod instances;
pub mod invocation;
pub mod last_run;
pub mod login;
pub(crate) mod lost_settings;
mod names;
pub(crate) mod native;
pub mod observed;
pub mod plan;
pub(crate) mod publish;
pub(crate) mod query_checks;
pub(crate) mod refusal;
pub(crate) mod reports;
pub(crate) mod results;
pub mod retention;
pub mod role;
pub(crate) mod schema;
pub(crate) mod server_status;
pub mod stack;
pub(crate) mod status;
pub mod text;
pub mod upgrade;
pub mod version;
pub mod volume_content;
