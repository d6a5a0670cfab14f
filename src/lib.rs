//! InfluxDB and Grafana for Clipper's metrics: started, configured and verified.
//!
//! Data flows one way:
//!
//! ```text
//! options + environment + Clipper's file + remembered settings
//!        │ settings
//!        ▼
//!      Stack ──► observe ──► plan ──► apply ──► observe again ──► report
//!               systems     core     systems    systems          report
//! ```
//!
//! Imports go downwards only: `main` and `app` may import everything; then `cli`, `commands` and
//! `settings`; then `systems`, `report` and `clipper`; then `error`; then `core`, which imports
//! nothing but `std`. `tests/architecture.rs` reads the sources and enforces it.

pub mod app;
pub mod cli;
pub mod clipper;
pub mod commands;
pub mod core;
pub mod error;
pub mod report;
pub mod settings;
pub mod systems;
