//! The options that every command accepts, and an option for each setting of the table in `settings::keys`.
//!
//! Every option is an `Option`: defaults and the environment belong to `settings`.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, ValueEnum};

use crate::clipper::file::{ValueKind, join_paths};
use crate::settings::keys::{Key, TABLE, Values};

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
