//! All integration tests as one program; the first lines of each module describe its tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may panic"
)]

mod architecture;
mod cli;
mod convergence;
mod e2e;
mod english;
mod exports;
mod help;
mod kubernetes;
mod plans;
mod servers;
mod support;
mod tls;
mod world;
