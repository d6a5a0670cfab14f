//! The program: parses the command line, runs it, and turns the result into an exit code.
//! This is the only place that reads the environment.

use std::process::ExitCode;

use clap::Parser as _;
use clipper_metrics::cli::{self, Cli};
use clipper_metrics::commands::Environment;

fn main() -> ExitCode {
    let environment = environment();
    match Cli::try_parse() {
        Ok(cli) => cli::run(&cli, &environment),
        Err(error) => cli::usage(&error, &environment, std::env::args_os()),
    }
}

/// The environment. No variable that the program knows has a name that is not text.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment() -> Environment {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
}
