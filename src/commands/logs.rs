//! `logs`: shows the servers' logs, merged as lines arrive.

use std::cmp::Ordering;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use futures_util::future::try_join_all;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;

use super::context::{Context, written};
use super::inputs::SettingsScope;
use super::session::{self, Access};
use super::terminal::{interrupted, reader_gone};
use crate::engine::inspection::nanoseconds_of;
use crate::error::{Error, Exit, Refusal, Result};
use crate::model::event::Event;
use crate::model::native::{System, package};
use crate::model::observed::RunState;
use crate::model::role::Role;
use crate::model::stack::Stack;
use crate::output;
use crate::reconcile::{Depth, Session};
use crate::settings;

/// How long the engine may stay silent while it sends a log that is not followed.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a followed log waits for its server to start again, which `up` and `docker restart` do in less.
const SUCCESSOR: Duration = Duration::from_secs(60);
/// How long it waits before it says so.
const QUICK_START: Duration = Duration::from_secs(3);
/// The number of lines that wait to be printed.
const LINES: usize = 64;

#[derive(Debug, Default, Args)]
pub(crate) struct LogsArguments {
    /// Show only this server's log: influxdb or grafana
    #[arg(hide_possible_values = true)]
    pub(crate) server: Option<Role>,
    /// Follow log output
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show only the last N lines of each log
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u32>,
    /// Show only lines from the last DURATION, such as 10m
    #[arg(long, value_name = "DURATION")]
    pub(crate) since: Option<String>,
}

impl ValueEnum for Role {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.title()))
    }
}

pub(crate) async fn run(context: &Context<'_>, arguments: &LogsArguments) -> Result<Exit> {
    let session = session::open_for_containers(context, SettingsScope::NameOnly, Access::ReadOnly, false).await?;
    let role = arguments.server;
    let selection = LogOptions {
        role,
        follow: arguments.follow,
        tail: arguments.tail.map(|lines| lines as usize),
        since: arguments.since.as_deref().map(|text| settings::duration(text, "--since")).transpose()?,
    };
    let format = context.format();
    let show = |server: Role, line: &str| output::print_log_line(format, server, role.is_some(), line);
    let showing = logs(&session, selection, show);
    tokio::select! {
        result = showing => result?,
        () = reader_gone() => {}
        () = interrupted(), if arguments.follow => {}
    }
    Ok(Exit::Done)
}

/// The selection of log lines.
#[derive(Debug, Clone, Copy, Default)]
struct LogOptions {
    /// Only this server's log.
    role: Option<Role>,
    /// Follow log output.
    follow: bool,
    /// Only the last lines of each log.
    tail: Option<usize>,
    /// Only lines that are younger than this.
    since: Option<Duration>,
}

/// Passes every line with its role to `show`, until that fails.
///
/// # Errors
/// [`Error::Absent`] when there is no such container, [`Error::Docker`] when the engine does not answer, [`Error::Output`] if
/// a line cannot be written.
async fn logs(
    session: &Session,
    options: LogOptions,
    mut show: impl FnMut(Role, &str) -> std::io::Result<()>,
) -> Result<()> {
    let stack = session.stack();
    if !stack.needs_engine() && session.docker().is_err() {
        let what = match options.role {
            Some(role) => format!("{} is external, so the engine has no log of it", role.title()),
            None => "both servers are external, so the engine has no log of them".into(),
        };
        return Err(Error::Absent {
            what,
            hint: format!(
                "{}; to see the logs of containers of {}, omit the URLs of the servers",
                external_logs(options.role),
                stack.instance
            ),
        });
    }
    let seen = session.observe(&mut session.connect(), Depth::EngineOnly).await?;
    crate::reconcile::warn_about_restore(stack, &seen, session.listener());
    let since = options.since.map_or(0, |age| {
        let milliseconds = crate::clock::now() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        milliseconds.max(0) * 1_000_000
    });
    let (sender, mut lines) = mpsc::channel(LINES);
    let mut readers = Vec::new();
    for role in Role::ALL.into_iter().filter(|role| options.role.is_none_or(|only| only == *role)) {
        if let Some(actual) = seen.server(role).container.ours() {
            let (id, started_at) = (actual.id.clone(), actual.started_at.clone());
            let source = LogSource { role, id, started_at, since, shown: 0, tail: options.tail };
            let continues = options.follow && matches!(actual.run, RunState::Running | RunState::Restarting);
            readers.push(read(session, source, options.follow, continues, sender.clone()));
        }
    }
    drop(sender);
    if readers.is_empty() {
        crate::reconcile::expect_instance(stack, &seen)?;
        return Err(no_log(stack, options.role));
    }
    let mut readers = Box::pin(try_join_all(readers));
    let mut showing = Box::pin(async {
        while let Some((role, line)) = lines.recv().await {
            show(role, &line)?;
        }
        Ok(())
    });
    let read = tokio::select! {
        shown = &mut showing => return written(shown),
        read = &mut readers => read.map(drop),
    };
    // Those that arrived before the end.
    drop(readers);
    written(showing.await)?;
    read
}

/// A container's log.
struct LogSource {
    role: Role,
    /// The engine's id of the container.
    id: String,
    /// In RFC 3339 format.
    started_at: Option<String>,
    /// Only lines from this time on, in nanoseconds since 1970.
    since: i64,
    /// The number of lines of exactly that time that were read.
    shown: usize,
    /// Only the last lines, until one of them is read.
    tail: Option<usize>,
}

impl LogSource {
    /// The log of a container that restarts or replaces this one, from the line at which it continues.
    fn continued_by(&self, id: String, started_at: Option<String>) -> Self {
        // Some engines stamp lines with whole seconds.
        let started = whole_second(started_at.as_deref().and_then(nanoseconds_of).unwrap_or_default());
        let is_new_run = started_at != self.started_at;
        let (since, shown, tail) = match self.tail {
            _ if id != self.id => (0, 0, None),
            // `--tail` left out earlier lines, so the log begins with the new run.
            Some(_) if is_new_run => (started, 0, None),
            // The engine's clock was set back.
            _ if is_new_run && started < whole_second(self.since) => (started, 0, None),
            // After the last line, so that a short run in between is shown.
            tail => (self.since, self.shown, tail),
        };
        Self { role: self.role, id, started_at, since, shown, tail }
    }

    /// Notes the time of a line that was read.
    fn passed(&mut self, at: i64) {
        match at.cmp(&self.since) {
            Ordering::Greater => (self.since, self.shown) = (at, 1),
            Ordering::Equal => self.shown += 1,
            Ordering::Less => {}
        }
        // Without a time, the next read would show the complete log.
        if at > 0 {
            self.tail = None;
        }
    }
}

/// Sends every line of a log. With `continues`, the log goes on with the container that restarts or replaces this one.
async fn read(
    session: &Session,
    mut source: LogSource,
    follow: bool,
    continues: bool,
    sender: mpsc::Sender<(Role, String)>,
) -> Result<()> {
    loop {
        let mut lines =
            std::pin::pin!(session.docker()?.logs(&source.id, follow, source.tail, source.since, source.shown));
        loop {
            let next = if follow { lines.next().await } else { next_in_time(&mut lines).await? };
            let line = match next {
                Some(Ok(line)) => line,
                // The engine may be restarting.
                Some(Err(error)) if !continues => return Err(error),
                Some(Err(_)) | None => break,
            };
            source.passed(line.at);
            if sender.send((source.role, line.text)).await.is_err() {
                return Ok(());
            }
        }
        let continued = if continues { successor(session, &source).await? } else { None };
        source = match continued {
            Some(next) => next,
            None => return Ok(()),
        };
    }
}

/// The next line of a log that is not followed. A reader that pauses also delays this program, so the engine gets a
/// second chance.
async fn next_in_time<T>(lines: &mut (impl Stream<Item = T> + Unpin)) -> Result<Option<T>> {
    for _ in 0..2 {
        if let Ok(next) = tokio::time::timeout(SILENCE, lines.next()).await {
            return Ok(next);
        }
    }
    Err(silent())
}

/// The log that continues one that has ended, if its server runs or starts again soon.
async fn successor(session: &Session, ended: &LogSource) -> Result<Option<LogSource>> {
    let (role, title) = (ended.role, ended.role.title());
    let note = |text: &str| session.listener().on(Event::Note(&format!("{title} {text}")));
    let again = |within| session.restarted(role, &ended.id, ended.started_at.as_deref(), within);
    let next = match again(QUICK_START).await? {
        None => {
            note("has stopped; its log continues if it starts again");
            again(SUCCESSOR).await?
        }
        next => next,
    };
    let Some(next) = next else {
        note("has not started again");
        return Ok(None);
    };
    Ok(Some(ended.continued_by(next.id, next.started_at)))
}

/// The beginning of a time's second, in nanoseconds since 1970.
const fn whole_second(at: i64) -> i64 {
    at / 1_000_000_000 * 1_000_000_000
}

fn no_log(stack: &Stack, role: Option<Role>) -> Error {
    match role.filter(|role| stack.container(*role).is_none()) {
        Some(role) => Error::Absent {
            what: format!("{} is external, so the engine has no log of it", role.title()),
            hint: external_logs(Some(role)),
        },
        None => Error::Absent {
            what: format!("{} has no container with a log", stack.instance),
            hint: format!("`{}` shows its state; `{}` starts it", stack.command("status"), stack.command("up")),
        },
    }
}

fn silent() -> Error {
    Error::Docker {
        doing: "read the log of a container".into(),
        why: format!("the engine sent nothing for {}s", SILENCE.as_secs()),
        refusal: Refusal::Gone,
    }
}

/// Where the logs of external servers from packages are, on their machine.
fn external_logs(role: Option<Role>) -> String {
    let command = |role| format!("`{}`", package(role, System::HERE).log_command);
    if let Some(role) = role {
        return format!("if it is from a package, {} shows its log on its machine", command(role));
    }
    let commands = Role::ALL.map(command).join(" or ");
    format!("if they are from packages, {commands} shows their logs on their machine")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_log_continues_after_its_last_line_or_with_a_run_that_seems_earlier() {
        use super::*;
        let time = |second: u32| format!("2026-01-01T00:00:{second:02}.5Z");
        let at = |second: u32| nanoseconds_of(&time(second)).unwrap();
        let ended = |second: u32, tail| {
            let (id, started_at) = ("c".to_string(), Some(time(10)));
            LogSource { role: Role::Grafana, id, started_at, since: at(second), shown: 2, tail }
        };
        let next = |ended: LogSource, id: &str, second: u32| {
            let LogSource { since, shown, tail, .. } = ended.continued_by(id.into(), Some(time(second)));
            (since, shown, tail)
        };
        let half = 500_000_000;
        assert_eq!(next(ended(20, None), "c", 21), (at(20), 2, None), "a restart");
        assert_eq!(next(ended(20, None), "c", 20), (at(20), 2, None), "a restart within the second");
        assert_eq!(next(ended(20, Some(3)), "c", 10), (at(20), 2, Some(3)), "the stream broke");
        assert_eq!(next(ended(20, Some(3)), "c", 21), (at(21) - half, 0, None), "earlier lines were left out");
        assert_eq!(next(ended(30, None), "c", 15), (at(15) - half, 0, None), "the clock was set back");
        assert_eq!(next(ended(30, None), "d", 31), (0, 0, None), "another container");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_run_that_began_and_ended_unseen_is_shown_once() {
        use std::rc::Rc;

        use super::*;
        use crate::model::credentials::Credentials;
        use crate::model::event::Silent;

        // In the engine's format, stamped half a second after the given second of 2026.
        let line = |second: u32, text: &str| {
            let line = format!("2026-01-01T00:00:{second:02}.500000000Z {text}\n");
            format!("\u{1}\0\0\0\0\0\0{}{line}", char::from(u8::try_from(line.len()).unwrap()))
        };
        crate::http::install_crypto_provider();
        let (_folder, docker) = crate::engine::fake::engine(move |request| {
            let labels = r#"{"clipper-metrics.instance": "x", "clipper-metrics.role": "grafana"}"#;
            let mounts = r#"[{"Name": "x-grafana", "Destination": "/var/lib/grafana", "RW": true}]"#;
            let answer = if request.contains("/logs?") && request.contains("since=0") {
                line(5, "first")
            } else if request.contains("/logs?") && request.contains("since=1767225605") {
                [line(5, "first"), line(6, "short"), line(7, "third")].concat()
            } else if request.contains("/containers/json") {
                format!(r#"[{{"Id": "c", "Names": ["/x-grafana"], "Labels": {labels}, "Mounts": {mounts}}}]"#)
            } else if request.contains("/containers/c/json") {
                let state = r#"{"Status": "running", "StartedAt": "2026-01-01T00:00:07Z"}"#;
                format!(r#"{{"Id": "c", "Config": {{"Labels": {labels}}}, "Mounts": {mounts}, "State": {state}}}"#)
            } else {
                return (500, request.into());
            };
            (200, answer)
        })
        .await;
        let credentials = Credentials::default();
        let session =
            Session::new(crate::samples::stack(), Some(Rc::new(docker)), credentials, Rc::new(Silent)).unwrap();
        let (sender, mut lines) = mpsc::channel::<(Role, String)>(LINES);
        let started_at = Some("2026-01-01T00:00:05Z".into());
        let source = LogSource { role: Role::Grafana, id: "c".into(), started_at, since: 0, shown: 0, tail: Some(9) };
        let shown = async {
            let mut shown = Vec::new();
            while shown.len() < 3 {
                shown.push(lines.recv().await.unwrap().1);
            }
            shown
        };
        let reading = tokio::time::timeout(Duration::from_secs(30), read(&session, source, true, true, sender));
        tokio::select! {
            shown = shown => assert_eq!(shown, ["first", "short", "third"]),
            ended = reading => panic!("{ended:?}"),
        }
    }
}
