//! The commands, one file each: their arguments, their work and their result. Here is the list of them.

pub(crate) mod backup;
pub(crate) mod context;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod export;
pub(crate) mod inputs;
pub(crate) mod logs;
pub(crate) mod man;
pub mod options;
pub(crate) mod restore;
pub(crate) mod session;
pub(crate) mod status;
pub(crate) mod terminal;
pub(crate) mod up;

use clap::Subcommand;

use self::context::Context;
pub use crate::engine::environment::Environment;
use crate::error::{Exit, Result};
use crate::model::invocation::Invocation;

/// A command with its own options.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start and configure InfluxDB and Grafana; safe to run again
    Up(up::UpArguments),
    /// Remove the containers; keep the data unless --volumes is given
    Down(down::DownArguments),
    /// Show the current state and any differences from the settings (exit code 3 if there are any)
    Status(status::StatusArguments),
    /// Find out why a graph is empty: trace a data point from Clipper to the dashboard
    Doctor(doctor::DoctorArguments),
    /// Save a running instance to one file: data, users, dashboards and settings
    Backup(backup::BackupArguments),
    /// Create a new instance from a backup file, with its settings
    Restore(restore::RestoreArguments),
    /// Write files for other tools
    #[command(about = export::about())]
    Export(export::ExportArguments),
    /// Show the servers' logs
    Logs(logs::LogsArguments),
    /// Send demo data to see the dashboard without Clipper
    Demo(demo::DemoArguments),
    /// Print the completion script for a shell
    Completions(man::CompletionsArguments),
    /// Print the manual page of clipper-metrics or of one command
    Man(man::ManArguments),
}

impl Command {
    /// Runs it. `program` describes all commands.
    ///
    /// # Errors
    /// The errors of its work.
    pub(crate) async fn run(&self, context: &Context<'_>, program: fn() -> clap::Command) -> Result<Exit> {
        match self {
            Self::Up(arguments) => up::run(context, arguments).await,
            Self::Down(arguments) => down::run(context, arguments).await,
            Self::Status(arguments) => status::run(context, arguments).await,
            Self::Doctor(arguments) => doctor::run(context, arguments).await,
            Self::Backup(arguments) => backup::run(context, arguments).await,
            Self::Restore(arguments) => restore::run(context, arguments).await,
            Self::Export(arguments) => export::run(context, arguments).await,
            Self::Logs(arguments) => logs::run(context, arguments).await,
            Self::Demo(arguments) => demo::run(context, arguments).await,
            Self::Completions(arguments) => man::print_completions(arguments.shell, program()),
            Self::Man(arguments) => man::print_manual(program(), arguments.command.as_deref()),
        }
    }

    /// Whether its result has the output format `env`.
    pub(crate) const fn has_env_output(&self) -> bool {
        matches!(self, Self::Status(status) if !status.watch && !status.all)
    }

    /// Whether it needs neither engines, sockets, signals nor paths.
    pub(crate) const fn only_prints_text(&self) -> bool {
        matches!(self, Self::Completions(_) | Self::Man(_))
    }

    /// Whether it handles an interruption itself, because it has something to remove.
    pub(crate) const fn cleans_up(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Doctor(_) | Self::Backup(_) | Self::Restore(_))
    }

    /// Whether it runs until Ctrl-C ends it.
    pub(crate) const fn is_endless(&self) -> bool {
        match self {
            Self::Logs(logs) => logs.follow,
            Self::Status(status) => status.watch,
            _ => false,
        }
    }

    /// The hint after an interruption.
    pub(crate) fn hint_after_interruption(&self, invocation: &Invocation) -> String {
        let suggested = |arguments| format!("`{}`", invocation.command(arguments));
        match self {
            Self::Up(_) => up::hint_after_interruption(invocation),
            Self::Down(down) => format!("`{}` finishes it", invocation.again(&down.typed())),
            Self::Demo(demo) if demo.clear => {
                format!("some demo data may remain: {} removes it", suggested("demo --clear"))
            }
            Self::Demo(_) => "nothing was sent: run the same command again".into(),
            _ => "run the same command again".into(),
        }
    }
}
