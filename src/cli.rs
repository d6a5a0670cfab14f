//! The command line: which commands there are, and how a run begins and ends.

use std::ffi::OsString;
use std::process::ExitCode;
use std::rc::Rc;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands::{
    Context, Environment, backup, demo, doctor, down, export, logs, man, options, restore, session, status, terminal,
    up,
};
use crate::error::{Error, Exit, Result};
use crate::http;
use crate::model::invocation::Invocation;
use crate::output::{self, Output};

/// What most people type.
const EXAMPLES: &str = "Examples:
  clipper-metrics up -c conf/test.toml    bring everything up for the Clipper of that file
  clipper-metrics demo --backfill 6h      fill the dashboard without Clipper
  clipper-metrics status --watch          see who reports
  clipper-metrics doctor                  find out why a graph is empty

`clipper-metrics help up` and --help show every option.";

/// InfluxDB and Grafana for Clipper's metrics: started, configured and verified.
#[derive(Debug, Parser)]
#[command(name = "clipper-metrics", version, about, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What is true for every command.
    #[command(flatten)]
    pub options: options::Options,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring InfluxDB and Grafana up, configured and verified; run it as often as you like
    Up(up::Up),
    /// Remove the containers again; the data stays unless --volumes is given
    Down(down::Down),
    /// Show what is there and how it differs from the settings (exit code 3 if it does)
    Status(status::Status),
    /// Find out why a graph is empty: follow a number from Clipper to the panels
    Doctor(doctor::Doctor),
    /// Write a running instance into one file: its data, users, dashboards and settings
    Backup(backup::Backup),
    /// Make an instance from such a file; never into one that exists
    Restore(restore::Restore),
    /// Write the instance as files for Grafana's provisioning, Docker Compose, a swarm or Kubernetes
    Export(export::Export),
    /// Show what a server logs
    Logs(logs::Logs),
    /// Send what Clipper would send, to see the dashboard without Clipper
    Demo(demo::Demo),
    /// Print the completion script for a shell
    Completions(man::Completions),
    /// Print the manual page of clipper-metrics, or of one command
    Man(man::Man),
}

/// Runs one command to its end.
#[must_use]
pub fn run(cli: &Cli, environment: &Environment) -> ExitCode {
    http::install_crypto_provider();
    let invocation = session::invocation(&cli.options, environment);
    let style = terminal::style(&cli.options, environment);
    let report = output::choose(style);
    let is_status = matches!(&cli.command, Command::Status(status) if !status.watch && !status.all);
    if let Err(error) = terminal::check(&cli.options, is_status, style, environment) {
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
        let context = Context { options: &cli.options, environment, report: Rc::clone(&report) };
        match until_interrupted(&context, &cli.command, &invocation).await {
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
    let _ = output::choose(terminal::json_style()).answer(&Output::Error(&failure, &Invocation::default()));
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
async fn until_interrupted(context: &Context<'_>, command: &Command, invocation: &Invocation) -> Result<Exit> {
    tokio::select! {
        // In this order: where Ctrl-C is the normal end, the command takes it first.
        biased;
        result = dispatch(context, command) => result,
        // What must be cleaned up after an interruption takes its time.
        () = terminal::interrupted(), if !cleans_up(command) => match command {
            Command::Logs(logs) if logs.follow => Ok(Exit::Done),
            Command::Status(status) if status.watch => Ok(Exit::Done),
            Command::Demo(demo) if !demo.clear => Ok(Exit::Done),
            _ => Err(Error::Interrupted { hint: after_interruption(command, invocation) }),
        },
    }
}

async fn dispatch(context: &Context<'_>, command: &Command) -> Result<Exit> {
    match command {
        Command::Up(arguments) => up::run(context, arguments).await,
        Command::Down(arguments) => down::run(context, arguments).await,
        Command::Status(arguments) => status::run(context, arguments).await,
        Command::Doctor(arguments) => doctor::run(context, arguments).await,
        Command::Backup(arguments) => backup::run(context, arguments).await,
        Command::Restore(arguments) => restore::run(context, arguments).await,
        Command::Export(arguments) => export::run(context, arguments).await,
        Command::Logs(arguments) => logs::run(context, arguments).await,
        Command::Demo(arguments) => demo::run(context, arguments).await,
        Command::Completions(arguments) => Ok(man::print_completions(arguments.shell, Cli::command())),
        Command::Man(arguments) => man::print_manual(Cli::command(), arguments.command.as_deref()),
    }
}

/// What an interrupted command leaves.
fn after_interruption(command: &Command, invocation: &Invocation) -> String {
    let suggested = |arguments| format!("`{}`", invocation.command(arguments));
    match command {
        Command::Up(_) => {
            format!("what is done stays: run the same command again to finish it; {} removes it", suggested("down"))
        }
        Command::Down(down) => format!("`{}` finishes it", invocation.again(&down.arguments())),
        Command::Demo(_) => format!("some demo data may be left: {} removes it", suggested("demo --clear")),
        _ => "run the same command again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_command_is_finished_by_the_whole_command() {
        for (words, expected) in [
            (
                "down --volumes --deregister --grafana-url http://g:3000 --name a -H tcp://e:1",
                "`clipper-metrics down --volumes --deregister --name a --grafana-url http://g:3000 -H tcp://e:1` \
                 finishes it",
            ),
            ("down --yes --volumes", "`clipper-metrics down --volumes --yes` finishes it"),
            ("down", "`clipper-metrics down` finishes it"),
            ("up --grafana-port 3001 --name a --context c", "`clipper-metrics down --name a --context c` removes it"),
        ] {
            let cli = Cli::try_parse_from(std::iter::once("clipper-metrics").chain(words.split(' '))).unwrap();
            let invocation = session::invocation(&cli.options, &Environment::default());
            let hint = after_interruption(&cli.command, &invocation);
            assert!(hint.contains(expected), "{words}: {hint}");
        }
    }
}
