//! The command line as clap sees it: commands, their options, and an option for each setting of the
//! table in `settings::keys`.
//!
//! Every option is an `Option`: defaults and the environment belong to `settings`.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::clipper::file::{ValueKind, join_paths};
use crate::settings::keys::{Key, TABLE, Values};

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
    pub options: Options,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring InfluxDB and Grafana up, configured and verified; run it as often as you like
    Up(Up),
    /// Remove the containers again; the data stays unless --volumes is given
    Down(Down),
    /// Show what is there and how it differs from the settings (exit code 3 if it does)
    Status(Status),
    /// Find out why a graph is empty: follow a number from Clipper to the panels
    Doctor(Doctor),
    /// Write a running instance into one file: its data, users, dashboards and settings
    Backup(Backup),
    /// Make an instance from such a file; never into one that exists
    Restore(Restore),
    /// Write the instance as files for Grafana's provisioning, Docker Compose, a swarm or Kubernetes
    Export(Export),
    /// Show what a server logs
    Logs(Logs),
    /// Send what Clipper would send, to see the dashboard without Clipper
    Demo(Demo),
    /// Print the completion script for a shell
    Completions(Completions),
    /// Print the manual page of clipper-metrics, or of one command
    Man(Man),
}

/// Options of `up`.
#[derive(Debug, Default, Args)]
pub struct Up {
    /// Only print what would be done (exit code 3 if there is anything)
    #[arg(long)]
    pub dry_run: bool,
    /// Replace dashboards and alert rules even if somebody edited them
    #[arg(long)]
    pub overwrite_dashboard: bool,
    /// Let the instance's objects in the Grafana at --grafana-url follow InfluxDB to another address or database
    #[arg(long)]
    pub move_data_source: bool,
    /// Set a new administrator's password in Grafana's container (the given one, else a generated one)
    #[arg(long)]
    pub reset_grafana_password: bool,
    /// Do not ask before --retention deletes points, or an older Grafana what a newer one has stored
    #[arg(long)]
    pub yes: bool,
    /// Open the dashboard in a browser, where there is one
    #[arg(long, conflicts_with = "dry_run")]
    pub open: bool,
}

/// Options of `down`.
#[derive(Debug, Default, Args)]
pub struct Down {
    /// Delete the volumes too, and with them all metrics, users and dashboards
    #[arg(long)]
    pub volumes: bool,
    /// Do not ask before deleting volumes
    #[arg(long)]
    pub yes: bool,
    /// Remove the data source, the dashboard and its empty folder from the Grafana at --grafana-url
    #[arg(long)]
    pub deregister: bool,
    /// Only print what would be done (exit code 3 if there is anything)
    #[arg(long)]
    pub dry_run: bool,
}

impl Down {
    /// The command with its own options, as they are typed.
    #[must_use]
    pub fn arguments(&self) -> String {
        let options = [
            (self.volumes, " --volumes"),
            (self.yes, " --yes"),
            (self.deregister, " --deregister"),
            (self.dry_run, " --dry-run"),
        ];
        let given = options.into_iter().filter(|(is_given, _)| *is_given).map(|(_, option)| option);
        format!("down{}", given.collect::<String>())
    }
}

/// Options of `status`.
#[derive(Debug, Default, Args)]
pub struct Status {
    /// Keep watching: redraws on a terminal, one line per change elsewhere
    #[arg(long)]
    pub watch: bool,
    /// List every instance on the engine, without asking its servers
    #[arg(long, conflicts_with_all = ["watch", "show_secrets"])]
    pub all: bool,
    /// Show Grafana's password
    #[arg(long)]
    pub show_secrets: bool,
}

/// Options of `doctor`.
#[derive(Debug, Default, Args)]
pub struct Doctor {
    /// Ask as a Clipper in this container would: from inside its network
    #[arg(long, value_name = "CONTAINER")]
    pub from: Option<String>,
}

/// Options of `backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// The file
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub file: std::path::PathBuf,
}

/// Options of `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The file
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub file: std::path::PathBuf,
    /// Do not ask before images that only the file names run, or points are kept for a shorter time
    #[arg(long)]
    pub yes: bool,
}

/// Options of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// What the files are for
    pub format: ExportFormat,
    /// The directory to write; it may hold an earlier export of the same kind and nothing else
    #[arg(value_hint = clap::ValueHint::DirPath)]
    pub directory: std::path::PathBuf,
}

/// What to export for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Data source and dashboards as files, for a Grafana that is set up by files
    Provisioning,
    /// A Compose file that goes on with this instance's volumes
    Compose,
    /// A stack file for `docker stack deploy`
    Swarm,
    /// Manifests and a kustomization
    Kubernetes,
}

/// Options of `logs`.
#[derive(Debug, Default, Args)]
pub struct Logs {
    /// Only this server's
    pub server: Option<Server>,
    /// Go on as lines arrive
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines of each
    #[arg(long, value_name = "N")]
    pub tail: Option<u32>,
    /// Only lines of the last DURATION, such as 10m
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
}

/// A server, by its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Server {
    /// InfluxDB
    Influxdb,
    /// Grafana
    Grafana,
}

/// Options of `demo`.
#[derive(Debug, Default, Args)]
pub struct Demo {
    /// Model names, separated by commas, or a number of models named m1, m2, … [default: m1,m2]
    #[arg(long, value_name = "M1,M2|COUNT", value_delimiter = ',')]
    pub models: Option<Vec<String>>,
    /// Predictions per second and model [default: 8]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Stop after this time, such as 10m [default: until Ctrl-C]
    #[arg(long, value_name = "DURATION")]
    pub duration: Option<String>,
    /// First send this much of the past at once, such as 6h; ends then unless --duration is given
    #[arg(long, value_name = "DURATION")]
    pub backfill: Option<String>,
    /// The same number makes the same load [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Write beside the reports of a real Clipper
    #[arg(long)]
    pub mix: bool,
    /// Remove all demo points and nothing else, then end
    #[arg(long, conflicts_with_all = ["models", "rate", "duration", "backfill", "seed", "mix"])]
    pub clear: bool,
}

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The command
    pub command: Option<String>,
}

/// What is true for every command.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// The settings of the table.
    #[command(flatten)]
    pub settings: GivenSettings,
    /// Engine to use, as DOCKER_HOST has it [default: the one that docker would use]
    #[arg(short = 'H', long, global = true, value_name = "HOST", conflicts_with = "context", help_heading = "Engine")]
    pub host: Option<String>,
    /// Docker context to use [default: DOCKER_CONTEXT, else the current one]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Engine", hide_short_help = true)]
    pub context: Option<String>,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output", hide_short_help = true)]
    pub quiet: bool,
    /// Print every request with its status and time
    #[arg(short, long, global = true, help_heading = "Output")]
    pub verbose: bool,
    /// When to use colours [default: auto]
    #[arg(long, global = true, value_name = "WHEN", help_heading = "Output", hide_short_help = true)]
    pub color: Option<Color>,
}

/// The settings that the command line gives; an empty one takes back what was remembered.
#[derive(Debug, Default, Clone)]
pub struct GivenSettings(pub Values);

impl FromArgMatches for GivenSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |key: &Key| {
            if key.kind != ValueKind::Paths {
                return matches.get_one::<String>(key.option).cloned();
            }
            let given = matches.get_many::<String>(key.option)?;
            // An empty one beside others says nothing.
            let given: Vec<String> = given.filter(|path| !path.is_empty()).cloned().collect();
            join_paths(&given).ok()
        };
        Ok(Self(TABLE.iter().filter_map(|key| Some((key.setting, value(key)?))).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for GivenSettings {
    fn augment_args(command: clap::Command) -> clap::Command {
        TABLE.iter().fold(command, |command, key| command.arg(argument(key)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// The option of one setting.
fn argument(key: &Key) -> Arg {
    let mut help = key.help.to_string();
    if !key.default.is_empty() {
        help.push_str(&format!(" [default: {}]", key.default));
    }
    let long_help = format!("{help} [env: {}]", key.variable);
    let mut argument =
        Arg::new(key.option).long(key.option).global(true).value_name(key.value_name).help(help).num_args(1);
    argument = argument.long_help(long_help);
    argument = argument.help_heading(key.group.title()).hide_short_help(!key.is_common);
    if let Some(short) = key.short {
        argument = argument.short(short);
    }
    match key.kind {
        ValueKind::Word(words) => argument.value_parser(PossibleValuesParser::new(words)).hide_possible_values(false),
        ValueKind::Flag => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(PossibleValuesParser::new(["true", "false"]))
            .hide_possible_values(true),
        ValueKind::Path => argument.value_hint(clap::ValueHint::FilePath),
        ValueKind::Paths => argument
            .action(ArgAction::Append)
            .value_parser(clap::builder::ValueParser::from(single_path))
            .value_hint(clap::ValueHint::FilePath),
        ValueKind::Text | ValueKind::Port | ValueKind::Host => argument,
    }
}

/// One path of several, which are kept as one text.
fn single_path(text: &str) -> Result<String, String> {
    join_paths(&[text.to_string()])
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On terminals
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
