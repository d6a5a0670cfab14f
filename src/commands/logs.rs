//! `logs`: what the servers write, merged as it arrives.
//!
//! Must not know how lines are shown.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::core::stack::{Role, Stack};
use crate::error::{Error, Result};
use crate::systems::Systems;

/// What to show of the logs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection {
    /// Only this server's.
    pub role: Option<Role>,
    /// Go on as lines arrive.
    pub follow: bool,
    /// Only the last lines of each.
    pub tail: Option<usize>,
    /// Only what is younger than this.
    pub since: Option<Duration>,
}

/// Hands every line to `show`, with its role.
///
/// # Errors
/// When there is no such container, or the engine does not answer.
pub async fn logs(stack: &Stack, systems: &Systems, what: Selection, mut show: impl FnMut(Role, &str)) -> Result<()> {
    let docker = systems.docker()?;
    let since = what.since.map_or(0, |age| {
        let seconds = super::now() / 1000 - i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        i32::try_from(seconds.max(0)).unwrap_or(i32::MAX)
    });
    let mut streams = Vec::new();
    for role in Role::ALL.into_iter().filter(|role| what.role.is_none_or(|only| only == *role)) {
        let Some(spec) = stack.container(role) else { continue };
        if docker.life(&stack.instance, &spec.name).await?.is_some() {
            let lines = docker.logs(&spec.name, what.follow, what.tail, since);
            streams.push(lines.map(move |line| (role, line)).boxed_local());
        }
    }
    if streams.is_empty() {
        return Err(Error::Absent {
            what: format!("there is no container of {} whose log could be shown", stack.instance),
            hint: "`clipper-metrics status` tells what is there, `clipper-metrics up` brings it up".into(),
        });
    }
    let mut lines = stream::select_all(streams);
    while let Some((role, line)) = lines.next().await {
        show(role, &line?);
    }
    Ok(())
}
