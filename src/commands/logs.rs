//! `logs`: what the servers write, merged as it arrives.
//!
//! Must not know how lines are shown.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::core::event::Listener;
use crate::core::role::Role;
use crate::error::{Error, Refusal, Result};
use crate::systems::{Depth, Systems};

/// How long the engine may send nothing of a log that is not followed.
const SILENCE: Duration = Duration::from_secs(60);

/// What to show of the logs.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogOptions {
    /// Only this server's.
    pub role: Option<Role>,
    /// Go on as lines arrive.
    pub follow: bool,
    /// Only the last lines of each.
    pub tail: Option<usize>,
    /// Only what is younger than this.
    pub since: Option<Duration>,
}

/// Hands every line to `show`, with its role, until that has had enough.
///
/// # Errors
/// [`Error::Absent`] when there is no such container, [`Error::Docker`] when the engine does not answer.
pub async fn logs(
    systems: &Systems,
    options: LogOptions,
    listener: &dyn Listener,
    mut show: impl FnMut(Role, &str) -> bool,
) -> Result<()> {
    let stack = systems.stack();
    if !stack.needs_engine() && systems.docker().is_err() {
        return Err(Error::Absent {
            what: "both servers already run elsewhere, and so do their logs".into(),
            hint: format!("omit the addresses for the containers of {}, if it has any", stack.instance),
        });
    }
    let docker = systems.docker()?;
    super::warn_about_restore(stack, &systems.observe(Depth::EngineOnly).await?, listener);
    let since = options.since.map_or(0, |age| {
        let seconds = super::now() / 1000 - i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
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
        return Err(Error::Absent {
            what: format!("there is no container of {} whose log could be shown", stack.instance),
            hint: format!("`{}` shows what is there, `{}` brings it up", stack.command("status"), stack.command("up")),
        });
    }
    let mut lines = stream::select_all(streams);
    loop {
        let next = lines.next();
        let line = if options.follow { Ok(next.await) } else { tokio::time::timeout(SILENCE, next).await };
        match line {
            Ok(Some((role, line))) => {
                if !show(role, &line?) {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(_) => {
                return Err(Error::Docker {
                    doing: "read the log of a container".into(),
                    why: format!("the engine sent nothing for {} s", SILENCE.as_secs()),
                    refusal: Refusal::Gone,
                });
            }
        }
    }
}
