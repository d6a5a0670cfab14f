//! The options of all commands: those that every command accepts, and an option for each setting in `settings::keys`.
//!
//! Every option is an `Option`: `settings` knows the defaults and reads the environment.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueEnum};

use crate::clipper::file::{ValueKind, join_paths};
use crate::settings::keys::{Key, TABLE, Values};

/// The options that every command accepts, and the settings that the command line supplies.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// The supplied settings.
    #[command(flatten)]
    pub settings: GivenSettings,
    /// Engine, in the format of DOCKER_HOST [default: the one that docker uses]
    #[arg(short = 'H', long, global = true, value_name = "HOST", conflicts_with = "context", help_heading = "Engine")]
    pub host: Option<String>,
    /// Docker context [default: DOCKER_CONTEXT, otherwise the current context]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Engine")]
    pub context: Option<String>,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Print every request with its status and duration
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) verbose: bool,
    /// When to use colours: auto, always or never [default: auto]
    #[arg(long, global = true, value_name = "WHEN", help_heading = "Output", hide_possible_values = true)]
    pub(crate) color: Option<Color>,
}

impl Options {
    /// The engine to use; an empty one counts as not supplied.
    pub(crate) fn host(&self) -> Option<&str> {
        self.host.as_deref().filter(|host| !host.is_empty())
    }

    /// The Docker context to use. As in `docker`, an empty one counts as not supplied.
    pub(crate) fn context(&self) -> Option<&str> {
        self.context.as_deref().filter(|context| !context.is_empty())
    }
}

/// The settings that the command line supplies. An empty value removes a remembered one.
#[derive(Debug, Default, Clone)]
pub struct GivenSettings(pub Values);

impl FromArgMatches for GivenSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let of_command = matches.subcommand();
        let value = |key: &Key| {
            let matches = match of_command {
                _ if key.is_global() => matches,
                Some((command, matches)) if key.is_accepted_by(command) => matches,
                _ => return None,
            };
            if key.kind != ValueKind::Paths {
                return matches.get_one::<String>(key.option).cloned();
            }
            let given = matches.get_many::<String>(key.option)?;
            // An empty value among others has no effect.
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
    fn augment_args(command: Command) -> Command {
        TABLE.iter().filter(|key| key.is_global()).fold(command, |command, key| command.arg(argument(key).global(true)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The commands whose settings need headings, and a short help that omits most of them.
const LONG: &[&str] = &["up", "status", "doctor", "export"];
/// The footer of a help that has no room for the variable of each setting.
const VARIABLES: &str = "Environment: CLIPPER_METRICS_NAME sets --name, and so on for every setting;
DOCKER_HOST and DOCKER_CONTEXT choose the engine.";

/// Adds to each command the settings that it accepts, and arranges its help.
#[must_use]
pub(crate) fn with_settings(root: Command) -> Command {
    let common: Vec<Arg> = root.get_arguments().filter(|argument| argument.is_global_set()).cloned().collect();
    let root = root.mut_args(|argument| argument.help_heading("Global options"));
    root.mut_subcommands(|command| {
        let name = command.get_name().to_string();
        let accepted = TABLE.iter().filter(|key| !key.is_global() && key.is_accepted_by(&name));
        if !LONG.contains(&name.as_str()) {
            let settings = accepted.map(|key| argument(key).help_heading("Settings"));
            // Defined again, they keep the order and the heading that they have here.
            let common = common.iter().cloned().map(|argument| argument.help_heading("Global options"));
            return command.args(settings).args(common).after_help(VARIABLES);
        }
        let is_up = name == "up";
        let settings = accepted.map(|key| described(argument(key), key).hide_short_help(!(is_up && key.is_common)));
        let common = common.iter().cloned().map(|argument| {
            let key = TABLE.iter().find(|key| key.option == argument.get_id().as_str());
            let is_common = key.map_or(argument.get_id() == "host", |key| key.is_common);
            key.into_iter().fold(argument, described).hide_short_help(is_up && !is_common)
        });
        let (instance, rest): (Vec<Arg>, Vec<Arg>) =
            common.partition(|argument| ["config", "name"].contains(&argument.get_id().as_str()));
        let all = format!("`clipper-metrics {name} --help` shows all options, with their environment variables.");
        command.args(instance).args(settings).args(rest).after_help(all).after_long_help(
            "Precedence: option, environment variable, Clipper's file, remembered setting, default.\n\
             An empty option removes a remembered setting, as in --grafana-url ''.",
        )
    })
}

/// The option of one setting.
fn argument(key: &Key) -> Arg {
    let mut help = key.help.to_string();
    if !key.default.is_empty() {
        help.push_str(&format!(" [default: {}]", key.default));
    }
    let mut argument = Arg::new(key.option).long(key.option).value_name(key.value_name).help(help).num_args(1);
    argument = argument.help_heading(key.group.title()).hide_possible_values(true);
    if let Some(short) = key.short {
        argument = argument.short(short);
    }
    match key.kind {
        ValueKind::Word(words) => argument.value_parser(PossibleValuesParser::new(words)),
        ValueKind::Flag => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(PossibleValuesParser::new(["true", "false"])),
        ValueKind::Path => argument.value_hint(clap::ValueHint::FilePath),
        ValueKind::Paths => argument
            .action(ArgAction::Append)
            .value_parser(clap::builder::ValueParser::from(single_path))
            .value_hint(clap::ValueHint::FilePath),
        ValueKind::Text | ValueKind::Url | ValueKind::Image | ValueKind::Port | ValueKind::Host => argument,
    }
}

/// The same with a long help that names the variable.
fn described(argument: Arg, key: &Key) -> Arg {
    let mut help = key.help.to_string();
    if !key.details.is_empty() {
        help.push_str(&format!(". {}", key.details));
    }
    if !key.default.is_empty() {
        help.push_str(&format!(" [default: {}]", key.default));
    }
    argument.long_help(format!("{help} [env: {}]", key.variable()))
}

/// One of several paths, which are stored as one text.
fn single_path(text: &str) -> Result<String, String> {
    join_paths(&[text.to_string()])
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On terminals
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
