//! End to end: the program against a real engine, with a real InfluxDB and Grafana's double (or the
//! real Grafana that `CLIPPER_METRICS_TEST_GRAFANA_IMAGE` names). What is checked is the state of
//! the engine, of InfluxDB and of Grafana, not what the program says of itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod converge;
mod engine;
mod external;
mod instance;
mod lifecycle;
mod passwords;
mod readme;
mod report;
mod safety;
mod settings;
mod strangers;
