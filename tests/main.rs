//! All integration tests as one program; the first lines of each module describe its tests.

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

mod activity;
mod alerts;
mod architecture;
mod cli;
mod contract;
mod convergence;
mod dashboard;
mod doctor;
mod e2e;
mod english;
mod exports;
mod external;
mod help;
mod kubernetes;
mod outputs;
mod ownership;
mod planner;
mod plans;
mod support;
mod tls;
mod user_dashboards;
mod world;
