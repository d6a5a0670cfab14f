//! The terminal: style, confirmation, interruption, and a reader that goes away.
//!
//! Must not know what a command does.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};

use crate::cli::{Color, Command, Options};
use crate::core::text::printable;
use crate::error::{Error, Result};
use crate::report::Style;
use crate::settings::keys::Setting;
use crate::systems::docker::endpoint::Environment;

/// How to show things, by options, environment and terminals.
pub(super) fn style(options: &Options, environment: &Environment) -> Style {
    let set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
    let forced = environment.get("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
    let smart = environment.get("TERM").is_none_or(|term| term != "dumb");
    let terminal = std::io::stdout().is_terminal();
    let color = match options.color {
        Some(Color::Always) => true,
        Some(Color::Never) => false,
        Some(Color::Auto) | None => forced || (terminal && smart && !set("NO_COLOR")),
    };
    let given = options.settings.0.get(&Setting::Output).map(String::as_str);
    let output = given.or_else(|| environment.get(Setting::Output.key().variable).map(String::as_str));
    Style {
        json: output == Some("json"),
        quiet: options.quiet,
        verbose: options.verbose,
        live: std::io::stderr().is_terminal() && smart,
        terminal: terminal && smart,
        color,
    }
}

/// The variable for the format is checked as the option is.
pub(super) fn check(environment: &Environment) -> Result<()> {
    let variable = Setting::Output.key().variable;
    match environment.get(variable).map(String::as_str) {
        None | Some("" | "human" | "json") => Ok(()),
        Some(other) => Err(Error::usage(format!("{variable} is {other:?}"), "give human or json")),
    }
}

/// JSON and nothing else.
pub(super) const fn json_style() -> Style {
    Style { json: true, quiet: true, verbose: false, live: false, terminal: false, color: false }
}

/// A command line that cannot be parsed asks for JSON all the same.
pub(super) fn wants_json(environment: &Environment, arguments: impl Iterator<Item = OsString>) -> bool {
    let words: Vec<OsString> = arguments.collect();
    let given = words.windows(2).rfind(|pair| pair[0] == "--output").map(|pair| pair[1].clone());
    let given = given.or_else(|| {
        let joined = words.iter().filter_map(|word| word.to_str()?.strip_prefix("--output=")).next_back();
        joined.map(OsString::from)
    });
    match given {
        Some(word) => word == "json",
        None => environment.get(Setting::Output.key().variable).is_some_and(|word| word == "json"),
    }
}

/// Comes with Ctrl-C or SIGTERM.
pub(super) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// What an interrupted command leaves.
pub(super) const fn after_interruption(command: &Command) -> &'static str {
    match command {
        Command::Up(_) => "what is done stays: run `up` again to finish it, or `down` to remove it",
        Command::Down(_) => "run `down` again to finish it",
        Command::Demo(_) => "some demo data may be left: run `demo --clear` again",
        _ => "run the same command again",
    }
}

/// Comes when nobody reads standard output any more, so that a command which has nothing to say for
/// a while ends, too. Never where it is no pipe.
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
            // Nothing is asked for: that the other end is gone is reported all the same.
            let mut descriptors = [PollFd::new(&out, PollFlags::empty())];
            let gone = PollFlags::ERR | PollFlags::HUP;
            if poll(&mut descriptors, Some(&now)).is_ok() && descriptors[0].revents().intersects(gone) {
                return;
            }
        }
    }
    #[cfg(not(unix))]
    std::future::pending().await
}

/// Asks before data is deleted; where nobody can answer, only `--yes` will do.
pub(super) async fn confirm(volumes: &[String], yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    let what = volumes.join(" and ");
    let hint = "add --yes to delete them without a question, or omit --volumes to keep them".to_string();
    if !std::io::stdin().is_terminal() {
        return Err(Error::NotConfirmed {
            message: format!("the volumes {what} were not deleted: it was not confirmed"),
            hint,
        });
    }
    let question = format!("Delete the volumes {what}, with all metrics, users and dashboards in them? [y/N] ");
    let _ = write!(std::io::stderr(), "{}", printable(&question));
    // In the background, so that Ctrl-C is heard meanwhile.
    let read = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        let _ = std::io::stdin().read_line(&mut answer);
        answer
    });
    let answer = read.await.unwrap_or_default();
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Error::NotConfirmed { message: "nothing was removed".into(), hint })
}
