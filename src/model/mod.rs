//! Makes all decisions: compares the desired stack with the observed state and derives the plan and
//! the status.
//!
//! Imports nothing but `std`, prints nothing, reads no clock and no environment.

pub mod address;
pub mod alerts;
pub mod container_config;
pub mod credentials;
pub mod diagnosis;
pub mod event;
pub mod export;
pub mod image;
pub mod instances;
pub mod invocation;
pub mod login;
pub mod native;
pub mod observed;
pub mod plan;
pub mod publish;
pub mod reports;
pub mod retention;
pub mod role;
pub mod stack;
pub mod status;
pub mod text;
pub mod upgrade;
pub mod version;
pub mod volume_content;
