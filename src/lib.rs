//! InfluxDB and Grafana for Clipper's metrics: started, configured and verified.
//!
//! Data flows one way:
//!
//! ```text
//! options + environment + Clipper's file + what was given before
//!        │ settings
//!        ▼
//!      Stack ──► observe ──► plan ──► apply ──► observe again ──► report
//!               systems     core     systems    systems          report
//! ```
//!
//! `main` may import everything; `commands` core, systems and error; `settings` cli, `core::stack`,
//! `systems::clipper` and error; `systems` and `report` core and error; `core` nothing but `std`.
//! `tests/architecture.rs` reads the sources and enforces it.

pub mod cli;
pub mod commands;
pub mod core;
pub mod error;
pub mod report;
pub mod settings;
pub mod systems;
