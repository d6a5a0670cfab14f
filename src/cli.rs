//! The command line as clap sees it: names, help, and the environment variables that stand in for
//! options.
//!
//! Every option is an `Option`: defaults belong to `settings`. Must not import anything of this
//! crate.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// InfluxDB and Grafana for Clipper's metrics: started, configured and verified.
#[derive(Debug, Parser)]
#[command(name = "clipper-metrics", version, about, max_term_width = 100, disable_help_subcommand = true)]
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
    /// Take them away again; the data stays unless --volumes is given
    Down(Down),
    /// Tell what is there and how it differs from what is wanted (exit code 3 if it does)
    Status(Status),
    /// Show what a server logs
    Logs(Logs),
    /// Send what Clipper would send, to see the dashboard without Clipper
    Demo(Demo),
    /// Print the completion script for a shell
    Completions(Completions),
}

/// Options of `up`.
#[derive(Debug, Default, Args)]
pub struct Up {
    /// Only print what would be done (exit code 3 if there is anything)
    #[arg(long)]
    pub dry_run: bool,
    /// Replace the dashboard even if somebody edited it
    #[arg(long)]
    pub overwrite_dashboard: bool,
    /// Set a new administrator's password in Grafana's container (the given one, else a generated one)
    #[arg(long)]
    pub reset_grafana_password: bool,
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
    /// Only print what would be done (exit code 3 if there is anything)
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `status`.
#[derive(Debug, Default, Args)]
pub struct Status {
    /// Go on telling: redraws on a terminal, one line per change elsewhere
    #[arg(long)]
    pub watch: bool,
    /// Show Grafana's password
    #[arg(long)]
    pub show_secrets: bool,
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
    /// Only what is younger than this, such as 10m
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
    /// Names of the models, separated by commas [default: m1,m2]
    #[arg(long, value_name = "M1,M2", value_delimiter = ',')]
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

/// What is true for every command.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
pub struct Options {
    /// Clipper's own TOML file, also read for a table [metrics]
    #[arg(short, long, global = true, value_name = "FILE", env = "CLIPPER_METRICS_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name of the instance; several live side by side [default: clipper-metrics]
    #[arg(long, global = true, value_name = "NAME", env = "CLIPPER_METRICS_NAME")]
    pub name: Option<String>,
    /// Database that Clipper writes to [default: clipper]
    #[arg(long, global = true, value_name = "NAME", env = "CLIPPER_METRICS_DATABASE")]
    pub database: Option<String>,
    /// Address that InfluxDB is published at [default: 127.0.0.1]
    #[arg(long, global = true, value_name = "IP", env = "CLIPPER_METRICS_INFLUXDB_IP")]
    pub influxdb_ip: Option<String>,
    /// Port that InfluxDB is published at [default: 8086]
    #[arg(long, global = true, value_name = "PORT", env = "CLIPPER_METRICS_INFLUXDB_PORT")]
    pub influxdb_port: Option<String>,
    /// Address that Grafana is published at [default: 127.0.0.1]
    #[arg(long, global = true, value_name = "IP", env = "CLIPPER_METRICS_GRAFANA_IP")]
    pub grafana_ip: Option<String>,
    /// Port that Grafana is published at [default: 3000]
    #[arg(long, global = true, value_name = "PORT", env = "CLIPPER_METRICS_GRAFANA_PORT")]
    pub grafana_port: Option<String>,
    /// Use the InfluxDB that already runs there instead of a container
    #[arg(long, global = true, value_name = "URL", env = "CLIPPER_METRICS_INFLUXDB_URL")]
    pub influxdb_url: Option<String>,
    /// Use the Grafana that already runs there instead of a container
    #[arg(long, global = true, value_name = "URL", env = "CLIPPER_METRICS_GRAFANA_URL")]
    pub grafana_url: Option<String>,
    /// InfluxDB's address as Grafana's server sees it [default: worked out]
    #[arg(long, global = true, value_name = "URL", env = "CLIPPER_METRICS_DATA_SOURCE_URL")]
    pub data_source_url: Option<String>,
    /// Certificates to trust for https addresses [default: the system's]
    #[arg(long, global = true, value_name = "FILE", env = "CLIPPER_METRICS_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// InfluxDB's image [default: influxdb:1.12.4]
    #[arg(long, global = true, value_name = "IMAGE", env = "CLIPPER_METRICS_INFLUXDB_IMAGE")]
    pub influxdb_image: Option<String>,
    /// Grafana's image [default: grafana/grafana:12.4.10]
    #[arg(long, global = true, value_name = "IMAGE", env = "CLIPPER_METRICS_GRAFANA_IMAGE")]
    pub grafana_image: Option<String>,
    /// Registry to pull both default images from, such as mirror.example:5000 [default: Docker Hub]
    #[arg(long, global = true, value_name = "PREFIX", env = "CLIPPER_METRICS_REGISTRY")]
    pub registry: Option<String>,
    /// When to pull images [default: missing]
    #[arg(long, global = true, value_name = "WHEN", env = "CLIPPER_METRICS_PULL")]
    pub pull: Option<PullWhen>,
    /// Grafana's organisation, created if missing [default: its main one]
    #[arg(long, global = true, value_name = "NAME", env = "CLIPPER_METRICS_GRAFANA_ORG")]
    pub grafana_org: Option<String>,
    /// Grafana's folder for a new dashboard, created if missing [default: none]
    #[arg(long, global = true, value_name = "NAME", env = "CLIPPER_METRICS_GRAFANA_FOLDER")]
    pub grafana_folder: Option<String>,
    /// Grafana's administrator [default: admin]
    #[arg(long, global = true, value_name = "NAME", env = "CLIPPER_METRICS_GRAFANA_USER")]
    pub grafana_user: Option<String>,
    /// File with Grafana's administrator's password (or CLIPPER_METRICS_GRAFANA_PASSWORD)
    #[arg(long, global = true, value_name = "FILE", env = "CLIPPER_METRICS_GRAFANA_PASSWORD_FILE")]
    pub grafana_password_file: Option<PathBuf>,
    /// File with a token for Grafana, instead of a password (or CLIPPER_METRICS_GRAFANA_TOKEN)
    #[arg(long, global = true, value_name = "FILE", env = "CLIPPER_METRICS_GRAFANA_TOKEN_FILE")]
    pub grafana_token_file: Option<PathBuf>,
    /// User of the InfluxDB at --influxdb-url
    #[arg(long, global = true, value_name = "NAME", env = "CLIPPER_METRICS_INFLUXDB_USER")]
    pub influxdb_user: Option<String>,
    /// File with that user's password (or CLIPPER_METRICS_INFLUXDB_PASSWORD)
    #[arg(long, global = true, value_name = "FILE", env = "CLIPPER_METRICS_INFLUXDB_PASSWORD_FILE")]
    pub influxdb_password_file: Option<PathBuf>,
    /// Engine to use, as DOCKER_HOST has it [default: the one that docker would use]
    #[arg(short = 'H', long, global = true, value_name = "HOST", conflicts_with = "context")]
    pub host: Option<String>,
    /// Docker context to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// How long to wait for the servers, such as 90s [default: 2m]
    #[arg(long, global = true, value_name = "DURATION", env = "CLIPPER_METRICS_TIMEOUT")]
    pub timeout: Option<String>,
    /// How to answer [default: human]
    #[arg(long, global = true, value_name = "FORMAT", env = "CLIPPER_METRICS_OUTPUT")]
    pub output: Option<Format>,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print every request with its status and time
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// When to use colours [default: auto]
    #[arg(long, global = true, value_name = "WHEN")]
    pub color: Option<Color>,
}

/// When to pull images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullWhen {
    /// Only what the engine does not have
    Missing,
    /// Each time
    Always,
    /// Never
    Never,
}

/// How to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Human,
    /// For machines: one JSON document
    Json,
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
