//! The command line: what is typed, the errors in it, and the beginning and end of a run.

use std::ffi::OsString;
use std::process::ExitCode;
use std::rc::Rc;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser};

use crate::commands::context::{Context, written};
use crate::commands::options::{self, Options};
use crate::commands::{Command, Environment, inputs, terminal};
use crate::error::{Error, Exit, Result};
use crate::http;
use crate::model::invocation::{Invocation, shell_word};
use crate::model::results::Document;
use crate::model::text::listed;
use crate::output::{self, Output};

const EXAMPLES: &str = "Examples:
  clipper-metrics up -c conf/test.toml    start InfluxDB and Grafana for the Clipper in that file
  clipper-metrics demo --backfill 6h      fill the dashboard without Clipper
  clipper-metrics status --watch          follow which models report
  clipper-metrics doctor                  find out why a graph is empty

`clipper-metrics COMMAND --help` shows the options of a command.";

/// InfluxDB and Grafana for Clipper's metrics: started, configured and verified.
#[derive(Debug, Args)]
#[command(version, about, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// The options that every command accepts, and the settings.
    #[command(flatten)]
    pub options: Options,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Parser for Cli {}

impl CommandFactory for Cli {
    fn command() -> clap::Command {
        options::with_settings(Self::augment_args(clap::Command::new("clipper-metrics")))
    }

    fn command_for_update() -> clap::Command {
        Self::command()
    }
}

/// Runs one command and returns its exit code.
#[must_use]
pub fn run(cli: &Cli, environment: &Environment) -> ExitCode {
    http::install_crypto_provider();
    let style = terminal::style(&cli.options, environment);
    let printer = output::choose(style);
    let context = Context::new(&cli.options, environment, Rc::clone(&printer));
    let supported = expect_supported_system(cfg!(windows), &cli.command);
    let checked =
        supported.and_then(|()| terminal::check(&cli.options, cli.command.has_env_output(), style, environment));
    let result = checked.and_then(|()| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Error::Io { doing: "start".into(), source })?;
        let result = runtime.block_on(until_interrupted(&context, &cli.command));
        // Background tasks must not delay the exit.
        runtime.shutdown_background();
        result
    });
    code(result.unwrap_or_else(|error| {
        printer.clear();
        let failure = error.failure(&inputs::invocation(&context));
        if let Err(why) = printer.print(Output::Result(Document::Failure(&failure)))
            && why.kind() != std::io::ErrorKind::BrokenPipe
        {
            output::print_error(&format!("error: {error}\n"));
        }
        error.exit()
    }))
}

/// Stops before anything works by half: engines, sockets, signals and paths are handled as Unix does. Help, completions
/// and manual pages need none of them.
fn expect_supported_system(is_windows: bool, command: &Command) -> Result<()> {
    if !is_windows || command.only_prints_text() {
        return Ok(());
    }
    Err(Error::usage(
        "clipper-metrics does not run on Windows itself",
        "run the Linux program in WSL 2: `wsl --install`, turn on WSL integration in Docker Desktop, and install \
         clipper-metrics in the Linux distribution",
    ))
}

/// Runs the command, unless a signal comes first.
async fn until_interrupted(context: &Context<'_>, command: &Command) -> Result<Exit> {
    tokio::select! {
        // A command that Ctrl-C ends normally handles it first.
        biased;
        result = command.run(context, Cli::command) => result,
        () = terminal::interrupted(), if !command.cleans_up() => {
            if command.is_endless() {
                return Ok(Exit::Done);
            }
            Err(Error::Interrupted { hint: command.hint_after_interruption(&inputs::invocation(context)) })
        }
    }
}

/// Prints what clap made of a command line that it did not accept: an error, in JSON if that was requested, or the help.
#[must_use]
pub fn usage(error: &clap::Error, environment: &Environment, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let wants_json = terminal::wants_json(environment, &arguments);
    let style = terminal::style_of_usage(environment, &arguments);
    let unused = unused_option(error, &arguments);
    if !error.use_stderr() || (!wants_json && unused.is_none()) {
        let text = error.render();
        let is_error = error.use_stderr();
        let is_coloured = if is_error { style.color_of_errors } else { style.color };
        let text = if is_coloured { text.ansi().to_string() } else { text.to_string() };
        if is_error {
            output::print_error(&text);
        } else if let Err(error) = written(output::print(&text)) {
            output::print_error(&format!("error: {error}\n"));
            return code(error.exit());
        }
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let failure = unused.unwrap_or_else(|| {
        let text = error.to_string();
        // clap appends the usage to its message.
        let is_usage = |line: &&str| line.starts_with("Usage:") || line.starts_with("For more information");
        let lines = text.lines().map(str::trim).take_while(|line| !is_usage(line));
        let message = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        let message = message.trim_start_matches("error: ");
        Error::usage(message, "`clipper-metrics --help` lists commands and options")
    });
    let style = if wants_json { terminal::json_style() } else { style };
    let _ = output::choose(style).print(Output::Result(Document::Failure(&failure.failure(&Invocation::default()))));
    code(Exit::Usage)
}

/// The error for an option that belongs to other commands, or precedes the name of its own.
fn unused_option(error: &clap::Error, arguments: &[OsString]) -> Option<Error> {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let root = Cli::command();
    let words: Option<Vec<&str>> = arguments.iter().skip(1).map(|word| word.to_str()).collect();
    let line = Line::new(&root, &words?)?;
    let option = word.split('=').next()?;
    let accepted_by: Vec<String> = root
        .get_subcommands()
        .filter(|command| find(command, option).is_some())
        .map(|command| format!("`{}`", command.get_name()))
        .collect();
    let command = root.find_subcommand(line.command)?;
    if accepted_by.is_empty() {
        return None;
    }
    let typed = line.accepted(command);
    // Without its --dry-run, a command changes what was only to be shown.
    let loses_dry_run =
        find(command, "--dry-run").is_none() && line.options.iter().any(|(name, _)| name == "--dry-run");
    let is_complete =
        !loses_dry_run && Cli::try_parse_from(std::iter::once("clipper-metrics").chain(typed.iter().copied())).is_ok();
    let typed: String = typed.iter().map(|word| format!(" {}", shell_word(word))).collect();
    let name = line.command;
    if find(command, option).is_some() {
        let hint = if is_complete {
            format!("`clipper-metrics{typed}`")
        } else {
            format!("`clipper-metrics {name} --help` lists its options")
        };
        return Some(Error::usage(format!("{option} must follow the command that accepts it, `{name}`"), hint));
    }
    let hint = if is_complete {
        format!("omit it: `clipper-metrics{typed}`")
    } else {
        format!("omit it; `clipper-metrics {name} --help` lists the options of `{name}`")
    };
    Some(Error::usage(format!("`{name}` does not use {option}, which belongs to {}", listed(&accepted_by)), hint))
}

/// The option of a command, or one that every command accepts, by its long or short name with dashes.
fn find<'a>(command: &'a clap::Command, option: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|argument| match option.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short().is_some_and(|short| option.strip_prefix('-') == Some(short.to_string().as_str())),
    })
}

/// The words of a command line, each option with its value.
struct Line<'a> {
    command: &'a str,
    /// Options by their long or short name with dashes, and positional arguments without a name.
    options: Vec<(String, Vec<String>)>,
}

impl<'a> Line<'a> {
    /// `None` without a command, and where a word is no option of any command.
    fn new(root: &clap::Command, words: &[&'a str]) -> Option<Self> {
        let known = |option: &str| {
            std::iter::once(root).chain(root.get_subcommands()).find_map(|one| find(one, option)).map(|known| {
                // A value that needs `=` is part of the word.
                known.get_action().takes_values() && !known.is_require_equals_set()
            })
        };
        let (mut command, mut options) = (None, Vec::new());
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            if let Some(long) = word.strip_prefix("--") {
                let option = format!("--{}", long.split('=').next().unwrap_or(long));
                let takes_value = known(&option)?;
                let value = if takes_value && !word.contains('=') { words.next() } else { None };
                options.push((option, std::iter::once(word).chain(value).map(String::from).collect()));
            } else if let Some(short) = word.strip_prefix('-').filter(|short| !short.is_empty()) {
                // Several flags in one word, the last of which may have a value in it or behind it.
                for (at, letter) in short.char_indices() {
                    let option = format!("-{letter}");
                    if !known(&option)? {
                        options.push((option.clone(), vec![option]));
                        continue;
                    }
                    let attached = &short[at + letter.len_utf8()..];
                    let value = attached.strip_prefix('=').unwrap_or(attached);
                    let value = if value.is_empty() { words.next()? } else { value };
                    options.push((option.clone(), vec![option, value.into()]));
                    break;
                }
            } else if command.is_none() {
                command = Some(word);
            } else {
                options.push((String::new(), vec![word.into()]));
            }
        }
        Some(Self { command: command?, options })
    }

    /// The command with its positional arguments and the options that it accepts.
    fn accepted(&self, command: &clap::Command) -> Vec<&str> {
        let options = self.options.iter().filter(|(option, _)| option.is_empty() || find(command, option).is_some());
        std::iter::once(self.command).chain(options.flat_map(|(_, words)| words.iter().map(String::as_str))).collect()
    }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clipper::file::ValueKind;
    use crate::settings;
    use crate::settings::keys::{Key, Setting, TABLE, Values};

    #[test]
    fn the_hint_after_an_interruption_finishes_the_same_command() {
        let invocation = Invocation::new(Vec::new(), " -H tcp://far:2375");
        let hint = |words: &[&str]| {
            let line = Cli::try_parse_from([&["clipper-metrics"], words].concat()).unwrap();
            line.command.hint_after_interruption(&invocation)
        };
        let down = hint(&["down", "--volumes", "--yes"]);
        assert!(down.contains("down --volumes --yes") && down.contains("-H tcp://far:2375"), "{down}");
        assert!(!hint(&["down"]).contains("--volumes"));
        assert!(hint(&["demo", "--clear"]).contains("demo --clear"));
    }

    /// A command with the positional arguments that it needs.
    fn with_arguments(command: &str) -> String {
        match command {
            "backup" | "restore" => format!("{command} FILE"),
            "export" => "export compose DIRECTORY".into(),
            "completions" => "completions bash".into(),
            _ => command.into(),
        }
    }

    /// A value that the option of a setting takes.
    fn value(key: &Key) -> &'static str {
        match key.kind {
            ValueKind::Word(words) => words[0],
            ValueKind::Flag => "true",
            _ => "1",
        }
    }

    fn parsed(command: &str) -> std::result::Result<Values, clap::Error> {
        Cli::try_parse_from(command.split(' ')).map(|cli| cli.options.settings.0)
    }

    #[test]
    fn each_command_accepts_and_suggests_the_options_that_it_uses_and_no_other() {
        let root = Cli::command();
        let all: Values = TABLE.iter().map(|key| (key.setting, value(key).to_string())).collect();
        let invocation = settings::invocation(&all, &Values::new(), "", true);
        let names: Vec<&str> = root.get_subcommands().map(clap::Command::get_name).collect();
        for key in TABLE {
            let mut known = names.iter().filter(|name| key.is_accepted_by(name));
            let listed = key.commands.unwrap_or(&names);
            assert!(listed.iter().all(|name| known.next() == Some(name)), "{}: {listed:?}", key.option);
        }
        for command in &names {
            let arguments = with_arguments(command);
            for key in TABLE {
                let typed = format!("clipper-metrics {arguments} {}={}", key.setting.option(), value(key));
                let parsed = parsed(&typed);
                assert_eq!(parsed.is_ok(), key.is_accepted_by(command), "{typed}");
                let expected: Values = [(key.setting, value(key).to_string())].into();
                assert!(parsed.is_ok_and(|values| values == expected) || !key.is_accepted_by(command), "{typed}");
            }
            let accepted = |setting: &Setting| *setting != Setting::Output && setting.key().is_accepted_by(command);
            let suggested = [invocation.command(&arguments), invocation.again(&arguments)];
            for (suggested, is_by_name) in suggested.iter().zip([*command == "down", false]) {
                let mut expected = all.clone();
                expected.retain(|setting, _| accepted(setting) && (setting.key().is_global() || !is_by_name));
                assert_eq!(parsed(suggested).unwrap(), expected, "{suggested}");
            }
        }
        let deregister = invocation.command("down --deregister");
        assert_eq!(
            parsed(&deregister).unwrap().get(&Setting::GrafanaUrl).map(String::as_str),
            Some("1"),
            "{deregister}"
        );
    }

    #[test]
    fn global_options_stand_before_or_after_the_command_and_others_after_it() {
        for key in TABLE {
            let before = format!("clipper-metrics {}={} up", key.setting.option(), value(key));
            assert_eq!(parsed(&before).is_ok(), key.is_global(), "{before}");
        }
        for words in
            ["-H x -q up", "up -H x -q", "--context x -v --color always up", "up --context x -v --color always"]
        {
            assert!(parsed(&format!("clipper-metrics {words}")).is_ok(), "{words}");
        }
    }

    #[test]
    fn an_option_that_the_command_does_not_use_names_the_commands_that_do() {
        for (words, message, hint) in [
            (
                "down --registry x --name a",
                "`down` does not use --registry, which belongs to `up`, `status`, `doctor`, `restore` and `export`",
                "omit it: `clipper-metrics down --name a`",
            ),
            (
                "-H x --grafana-port 3001 up --name=b",
                "--grafana-port must follow the command that accepts it, `up`",
                "`clipper-metrics up -H x --grafana-port 3001 --name=b`",
            ),
            (
                "logs -f --pull=always grafana --volumes --tail 3",
                "`logs` does not use --pull, which belongs to `up` and `restore`",
                "omit it: `clipper-metrics logs -f grafana --tail 3`",
            ),
            ("up -f", "`up` does not use -f, which belongs to `logs`", "omit it: `clipper-metrics up`"),
            (
                "-Htcp://prod:2375 down --volumes --pull never",
                "`down` does not use --pull, which belongs to `up` and `restore`",
                "omit it: `clipper-metrics down -H tcp://prod:2375 --volumes`",
            ),
            (
                "down -vHtcp://prod:2375 -c=prod.toml --pull never",
                "`down` does not use --pull, which belongs to `up` and `restore`",
                "omit it: `clipper-metrics down -v -H tcp://prod:2375 -c prod.toml`",
            ),
            (
                "restore --dry-run --name a",
                "`restore` does not use --dry-run, which belongs to `up` and `down`",
                "omit it; `clipper-metrics restore --help` lists the options of `restore`",
            ),
            (
                "--dry-run up",
                "--dry-run must follow the command that accepts it, `up`",
                "`clipper-metrics up --dry-run`",
            ),
            (
                "logs --pull never --dry-run",
                "`logs` does not use --pull, which belongs to `up` and `restore`",
                "omit it; `clipper-metrics logs --help` lists the options of `logs`",
            ),
            (
                "backup --alerts",
                "`backup` does not use --alerts, which belongs to `up`, `status`, `doctor` and `export`",
                "omit it; `clipper-metrics backup --help` lists the options of `backup`",
            ),
        ] {
            let words: Vec<OsString> = format!("clipper-metrics {words}").split(' ').map(OsString::from).collect();
            let refused = Cli::try_parse_from(&words).unwrap_err();
            let Some(Error::Usage { message: found, hint: next }) = unused_option(&refused, &words) else {
                panic!("{words:?}")
            };
            assert_eq!((found.as_str(), next.as_str()), (message, hint));
        }
        for words in ["up --frobnicate", "--frobnicate", "--registry x", "frobnicate --registry x", "up extra"] {
            let words: Vec<OsString> = format!("clipper-metrics {words}").split(' ').map(OsString::from).collect();
            assert!(unused_option(&Cli::try_parse_from(&words).unwrap_err(), &words).is_none(), "{words:?}");
        }
    }

    #[test]
    fn on_windows_only_texts_are_printed() {
        for (words, is_supported) in [
            ("up", false),
            ("status", false),
            ("export compose DIRECTORY", false),
            ("completions bash", true),
            ("man up", true),
        ] {
            let cli = Cli::try_parse_from(std::iter::once("clipper-metrics").chain(words.split(' '))).unwrap();
            assert_eq!(expect_supported_system(true, &cli.command).is_ok(), is_supported, "{words}");
            assert!(expect_supported_system(false, &cli.command).is_ok(), "{words}");
        }
        let cli = Cli::try_parse_from(["clipper-metrics", "up"]).unwrap();
        let error = expect_supported_system(true, &cli.command).unwrap_err();
        assert!(error.hint(&Invocation::default()).contains("WSL 2"), "{error}");
        assert_eq!(error.exit(), Exit::Usage);
    }

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
            ("down --host=", "`clipper-metrics down` finishes it"),
            ("down --context=", "`clipper-metrics down` finishes it"),
            (
                "up --grafana-port 3001 --name a --context c",
                "`clipper-metrics down --name a --context c` removes the instance",
            ),
        ] {
            let cli = Cli::try_parse_from(std::iter::once("clipper-metrics").chain(words.split(' '))).unwrap();
            let environment = Environment::default();
            let context = Context::new(&cli.options, &environment, output::choose(terminal::json_style()));
            let invocation = inputs::invocation(&context);
            let hint = cli.command.hint_after_interruption(&invocation);
            assert!(hint.contains(expected), "{words}: {hint}");
        }
    }
}
