//! `logs`: shows the servers' logs, merged as lines arrive.

use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use futures_util::{StreamExt, stream};

use super::Context;
use super::inputs::SettingsScope;
use super::session;
use super::terminal::{interrupted, reader_gone};
use crate::error::{Error, Exit, Refusal, Result};
use crate::model::native::{System, package};
use crate::model::role::Role;
use crate::model::stack::Stack;
use crate::output;
use crate::reconcile::{Depth, Session};
use crate::settings;

/// How long the engine may stay silent while it sends a log that is not followed.
const SILENCE: Duration = Duration::from_secs(60);

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
    let session = session::open_for_containers(context, SettingsScope::NameOnly, false, false).await?;
    let role = arguments.server;
    let selection = LogOptions {
        role,
        follow: arguments.follow,
        tail: arguments.tail.map(|lines| lines as usize),
        since: arguments.since.as_deref().map(|text| settings::duration(text, "--since")).transpose()?,
    };
    let format = context.format();
    let show = |server: Role, line: &str| output::print_log_line(format, server, role.is_some(), line).is_ok();
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
    pub(crate) role: Option<Role>,
    /// Follow log output.
    pub(crate) follow: bool,
    /// Only the last lines of each log.
    pub(crate) tail: Option<usize>,
    /// Only lines that are younger than this.
    pub(crate) since: Option<Duration>,
}

/// Passes every line with its role to `show`, until that returns `false`.
///
/// # Errors
/// [`Error::Absent`] when there is no such container, [`Error::Docker`] when the engine does not answer.
async fn logs(session: &Session, options: LogOptions, mut show: impl FnMut(Role, &str) -> bool) -> Result<()> {
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
    let docker = session.docker()?;
    let seen = session.observe(&mut session.connect(), Depth::EngineOnly).await?;
    crate::reconcile::warn_about_restore(stack, &seen, session.listener());
    let since = options.since.map_or(0, |age| {
        let seconds = crate::clock::now() / 1000 - i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        i32::try_from(seconds.max(0)).unwrap_or(i32::MAX)
    });
    let mut streams = Vec::new();
    for role in Role::ALL.into_iter().filter(|role| options.role.is_none_or(|only| only == *role)) {
        if let Some(id) = docker.container_id(&stack.instance, role).await? {
            let lines = docker.logs(&id, options.follow, options.tail, since);
            streams.push(lines.map(move |line| (role, line)).boxed_local());
        }
    }
    if streams.is_empty() {
        return Err(no_log(stack, options.role));
    }
    let mut lines = stream::select_all(streams);
    loop {
        let next = lines.next();
        let next = if options.follow { Ok(next.await) } else { tokio::time::timeout(SILENCE, next).await };
        match next.map_err(|_| silent())? {
            Some((role, line)) => {
                if !show(role, &line?) {
                    return Ok(());
                }
            }
            None => return Ok(()),
        }
    }
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
