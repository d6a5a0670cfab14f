//! The terminal: style, confirmation, interruption, and a closed standard output.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum as _;

use super::context::Context;
use super::options::{Color, Options};
use crate::clipper::file::ValueKind;
use crate::engine::environment::Environment;
use crate::error::{Error, Result};
use crate::model::plan::Question;
use crate::model::text::{self, printable};
use crate::output::{OutputFormat, Style};
use crate::settings::keys::{Key, Setting, TABLE};

/// The style of the output by options, environment and terminals, for each stream separately.
pub(crate) fn style(options: &Options, environment: &Environment) -> Style {
    let forced = environment.get("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
    let smart = environment.get("TERM").is_none_or(|term| term != "dumb");
    let color = |is_terminal: bool| match options.color {
        Some(Color::Always) => true,
        Some(Color::Never) => false,
        Some(Color::Auto) | None => forced || (is_terminal && smart && !environment.is_set("NO_COLOR")),
    };
    let given = options.settings.0.get(&Setting::Output).map(String::as_str);
    let output = given.or_else(|| environment.get(&Setting::Output.key().variable()));
    let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
    Style {
        format: match output {
            Some("json") => OutputFormat::Json,
            Some("env") => OutputFormat::Env,
            Some("json-schema") => OutputFormat::JsonSchema,
            _ => OutputFormat::Human,
        },
        quiet: options.quiet,
        verbose: options.verbose,
        live: err && smart,
        terminal: out && smart,
        color: color(out),
        color_of_errors: color(err),
    }
}

/// Checks that the variables are text and that the command supports the output format.
pub(crate) fn check(options: &Options, is_status: bool, style: Style, environment: &Environment) -> Result<()> {
    environment.expect_text(TABLE.iter().flat_map(Key::variables))?;
    // The parser compares only options on one side of the command's name.
    if options.host().is_some() && options.context().is_some() {
        return Err(Error::usage("--host and --context select two engines", "omit one of them"));
    }
    let key = Setting::Output.key();
    let is_given = options.settings.0.contains_key(&Setting::Output);
    if let (Some(text), ValueKind::Word(words)) = (environment.get(&key.variable()), key.kind)
        && !text.is_empty()
        && !is_given
        && !words.contains(&text)
    {
        let hint = format!("use one of {}", words.join(", "));
        return Err(Error::usage(format!("{} is {text:?}, which is not an output format", key.variable()), hint));
    }
    if matches!(style.format, OutputFormat::Env | OutputFormat::JsonSchema) && !is_status {
        return Err(Error::usage(
            "only `status` supports the formats env and json-schema, without --watch and --all",
            "use --output human or --output json",
        ));
    }
    Ok(())
}

/// The style for JSON alone.
pub(crate) const fn json_style() -> Style {
    Style {
        format: OutputFormat::Json,
        quiet: true,
        verbose: false,
        live: false,
        terminal: false,
        color: false,
        color_of_errors: false,
    }
}

/// Whether a command line that cannot be parsed requests JSON.
pub(crate) fn wants_json(environment: &Environment, arguments: &[OsString]) -> bool {
    match value_of("--output", arguments) {
        Some(word) => word == "json",
        None => environment.get(&Setting::Output.key().variable()).is_some_and(|word| word == "json"),
    }
}

/// The style of the help, and of the message about a command line that cannot be parsed.
pub(crate) fn style_of_usage(environment: &Environment, arguments: &[OsString]) -> Style {
    let color = value_of("--color", arguments).and_then(|word| Color::from_str(word.to_str()?, false).ok());
    style(&Options { color, ..Options::default() }, environment)
}

/// The last value of an option in a command line that cannot be parsed.
fn value_of(option: &str, arguments: &[OsString]) -> Option<OsString> {
    let apart = arguments.windows(2).rfind(|pair| pair[0] == option).map(|pair| pair[1].clone());
    apart.or_else(|| {
        let mut joined = arguments.iter().filter_map(|word| word.to_str()?.strip_prefix(option)?.strip_prefix('='));
        joined.next_back().map(OsString::from)
    })
}

/// Completes on Ctrl-C, on SIGTERM, and when the terminal is closed.
pub(crate) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::SignalKind;
        let closed = async {
            if is_hangup_ignored() {
                std::future::pending::<()>().await;
            } else {
                received(SignalKind::hangup()).await;
            }
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = received(SignalKind::terminate()) => {}
            () = closed => {}
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
}

#[cfg(unix)]
async fn received(kind: tokio::signal::unix::SignalKind) {
    match tokio::signal::unix::signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Whether this run must outlive its terminal, as with `nohup` (proc(5), `SigIgn`).
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.map_or_else(|| inherits_ignored_hangup(std::process::Command::new("sh")), |mask| mask & 1 == 1)
}

/// The same on a system without that file. A shell inherits ignored signals and cannot trap them, so it survives the
/// signal that it sends to itself. Its own process group is not needed: the signal goes to the shell alone.
#[cfg(unix)]
fn inherits_ignored_hangup(mut shell: std::process::Command) -> bool {
    use std::process::Stdio;
    shell.args(["-c", "trap 'exit 1' HUP; kill -HUP $$; exit 0"]);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Completes when the reader of standard output has closed the pipe, so that a command without output ends, too. Never
/// completes if standard output is not a pipe.
pub(super) async fn reader_gone() {
    #[cfg(unix)]
    {
        use std::time::Duration;

        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            ticks.tick().await;
            let out = std::io::stdout();
            // Linux reports a closed other end even if no event is requested; macOS only with a request for one.
            let mut descriptors = [PollFd::new(&out, PollFlags::OUT)];
            let gone = PollFlags::ERR | PollFlags::HUP;
            if poll(&mut descriptors, Some(&now)).is_ok() && descriptors[0].revents().intersects(gone) {
                return;
            }
        }
    }
    #[cfg(not(unix))]
    std::future::pending().await
}

/// Opens an address in a browser, in the background. Returns `false` if there is none.
pub(super) fn open_browser(url: &str, environment: &Environment) -> bool {
    let is_set = |name| environment.is_set(name);
    let has_display = cfg!(any(windows, target_os = "macos")) || ["DISPLAY", "WAYLAND_DISPLAY"].into_iter().any(is_set);
    has_display && open::that_detached(url).is_ok()
}

/// Asks before deleting volumes. Without a terminal, only `--yes` confirms it.
pub(super) async fn confirm(context: &Context<'_>, volumes: &[String], yes: bool) -> Result<()> {
    // Live lines must not overwrite the question.
    context.printer.clear();
    let what = text::volumes(volumes);
    let question = format!("Delete {what}, with all metrics, users and dashboards?");
    let hint = "add --yes to confirm, or omit --volumes to keep them";
    ask(&question, yes, &format!("cannot delete {what}"), hint).await
}

/// Asks a question. Without a confirmation, the error begins with `undone`.
pub(super) async fn ask(question: &str, yes: bool, undone: &str, hint: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    let hint = hint.to_string();
    if !std::io::stdin().is_terminal() {
        return Err(Error::NotConfirmed { message: format!("{undone}: not confirmed"), hint });
    }
    let _ = write!(std::io::stderr(), "{} [y/N] ", printable(question));
    // In the background, so that Ctrl-C still works.
    let read = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        let _ = std::io::stdin().read_line(&mut answer);
        answer
    });
    let answer = read.await.unwrap_or_default();
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Error::NotConfirmed { message: format!("{undone}: declined"), hint })
}

/// Asks before `up` deletes stored data.
pub(super) async fn confirm_loss(context: &Context<'_>, yes: bool, question: &Question) -> Result<()> {
    // Live lines must not overwrite the question.
    context.printer.clear();
    ask(&format!("{question}. Continue?"), yes, &question.to_string(), question.hint()).await
}

/// Runs a future until it completes or an interruption comes first.
pub(super) async fn unless_interrupted<T>(doing: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        // It may block until it waits for the first time, and a signal ends the process until then.
        biased;
        result = doing => result,
        () = interrupted() => Err(Error::Interrupted { hint: "nothing was changed: run the same command again".into() }),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_shell_shows_whether_hangups_are_ignored() {
        for (option, is_ignored) in [("--ignore-signal=HUP", true), ("--default-signal=HUP", false)] {
            let mut shell = std::process::Command::new("env");
            shell.args([option, "sh"]);
            assert_eq!(inherits_ignored_hangup(shell), is_ignored, "{option}");
        }
        assert!(!inherits_ignored_hangup(std::process::Command::new("/nonexistent/sh")));
    }
}
