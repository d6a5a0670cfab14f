//! The program around the library: the runtime, the report that suits the terminal, interruption,
//! and the exit code.
//!
//! Must not decide anything about a stack.

mod session;
mod terminal;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;
use std::rc::Rc;

use crate::cli::{Cli, Command};
use crate::core::invocation::Invocation;
use crate::error::{Error, Exit, Result};
use crate::report::{self, Output, Report};
pub use crate::systems::docker::endpoint::Environment;
use crate::systems::http;

/// Runs one command to its end.
#[must_use]
pub fn run(cli: &Cli, environment: &Environment) -> ExitCode {
    http::install_crypto_provider();
    let invocation = session::invocation(&cli.options, environment);
    let style = terminal::style(&cli.options, environment);
    let report = report::choose(style);
    if let Err(error) = terminal::check(&cli.options, &cli.command, style, environment) {
        let _ = report.answer(&Output::Error(&error, &invocation));
        return code(error.exit());
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let _ = report.answer(&Output::Error(&Error::Io { doing: "start".into(), source }, &invocation));
            return code(Exit::Failed);
        }
    };
    let exit = runtime.block_on(async {
        match until_interrupted(cli, environment, &report, &invocation).await {
            Ok(exit) => exit,
            Err(error) => {
                report.clear();
                let _ = report.answer(&Output::Error(&error, &invocation));
                error.exit()
            }
        }
    });
    // Whatever still runs in the background must not hold up the end.
    runtime.shutdown_background();
    code(exit)
}

/// A command line that makes no sense, or a request for help: printed by clap, in JSON where that was
/// asked for.
#[must_use]
pub fn usage(error: &clap::Error, environment: &Environment, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    if !error.use_stderr() || !terminal::wants_json(environment, arguments) {
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let text = error.to_string();
    // Everything before the usage that clap appends.
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let message = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let message = message.trim_start_matches("error: ");
    let failure = Error::usage(message, "`clipper-metrics --help` lists commands and options");
    let _ = report::choose(terminal::json_style()).answer(&Output::Error(&failure, &Invocation::default()));
    code(Exit::Usage)
}

/// The command hears of an interruption by itself, and has something to remove then.
const fn cleans_up(command: &Command) -> bool {
    matches!(command, Command::Doctor(_) | Command::Backup(_) | Command::Restore(_))
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}

/// Runs the command, unless a signal comes first.
async fn until_interrupted(
    cli: &Cli,
    environment: &Environment,
    report: &Rc<dyn Report>,
    invocation: &Invocation,
) -> Result<Exit> {
    tokio::select! {
        // In this order: where Ctrl-C is the normal end, the command takes it first.
        biased;
        result = verbs::run(cli, environment, report) => result,
        // What must be cleaned up after an interruption takes its time.
        () = terminal::interrupted(), if !cleans_up(&cli.command) => match &cli.command {
            Command::Logs(logs) if logs.follow => Ok(Exit::Done),
            Command::Status(status) if status.watch => Ok(Exit::Done),
            Command::Demo(demo) if !demo.clear => Ok(Exit::Done),
            command => Err(Error::Interrupted { hint: terminal::after_interruption(command, invocation) }),
        },
    }
}
