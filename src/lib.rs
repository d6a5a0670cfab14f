//! InfluxDB and Grafana for Clipper's metrics: started, configured and verified.
//!
//! Data flows one way:
//!
//! ```text
//! options + environment + Clipper's file + remembered settings
//!        │ settings
//!        ▼
//!      Stack ──► observe ──► plan ──► apply ──► observe again ──► Status ──► output
//!              reconcile    model   reconcile    reconcile
//! ```
//!
//! Imports go downwards only. `tests/architecture.rs` lists what each directory may import, and enforces it.

#[cfg(test)]
extern crate self as clipper_metrics;

#[cfg(test)]
mod arbitrary;
mod backoff;
pub mod backup;
pub mod cli;
pub mod clipper;
mod clock;
pub mod commands;
mod digest;
pub mod engine;
pub mod error;
mod export;
pub mod grafana;
pub mod http;
pub mod influxdb;
mod influxql;
pub mod model;
mod objects_only;
pub mod output;
mod reconcile;
#[cfg(test)]
#[path = "../tests/support/model.rs"]
pub(crate) mod samples;
pub mod settings;
