//! The command status: observe, plan, and summarize.

use std::time::Duration;

use super::connection::{Connection, Connections};
use super::exposure::exposures;
use super::{Depth, Session};
use crate::backoff::ticks;
use crate::clock::now;
use crate::engine::address_of_this_machine;
use crate::error::{Error, Result};
use crate::model::observed::Observed;
use crate::model::plan::{self, Plan, UpOptions};
use crate::model::reports::{self, Reports};
use crate::model::role::Role;
use crate::model::status::{self, AccountStatus, Status};

/// Returns the current state and its differences from the settings; `None` if another process stored other settings, so
/// that the stack must be computed again.
///
/// # Errors
/// [`Error::Docker`] if the engine does not answer.
pub(crate) async fn status(
    session: &Session,
    connections: &mut Connections,
    show_secrets: bool,
) -> Result<Option<Status>> {
    let seen = session.observe(connections, Depth::Servers).await?;
    if session.stored.as_ref().is_some_and(|stored| *stored != seen.settings) {
        return Ok(None);
    }
    let plan = plan::up(session.stack(), &seen, UpOptions::default());
    summarize(session, connections, &seen, &plan, show_secrets).await.map(Some)
}

/// The interval of `status --watch`.
const WATCH: Duration = Duration::from_secs(3);

/// The end of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchEnd {
    /// The reader has seen enough.
    Closed,
    /// Another process stored other settings.
    SettingsChanged,
}

/// Shows the status repeatedly until `show` returns false or the stored settings change.
///
/// # Errors
/// [`Error::Docker`] if the engine does not answer.
pub(crate) async fn watch(
    session: &Session,
    connections: &mut Connections,
    show_secrets: bool,
    mut show: impl FnMut(&Status) -> bool,
) -> Result<WatchEnd> {
    let mut ticks = ticks(WATCH);
    loop {
        ticks.tick().await;
        let Some(status) = status(session, connections, show_secrets).await? else {
            return Ok(WatchEnd::SettingsChanged);
        };
        if !show(&status) {
            return Ok(WatchEnd::Closed);
        }
    }
}

/// Reopens a stream after the engine restarts: reports the interruption once, and retries until the
/// engine answers.
///
/// # Errors
/// Any error that does not come from the engine.
pub(crate) async fn reopen<T, F: Future<Output = Result<T>>>(
    error: Error,
    open: impl Fn() -> F,
    tell: impl Fn(&Error),
) -> Result<T> {
    let passes = |error: &Error| matches!(error, Error::Engine { .. } | Error::Docker { .. } | Error::Raced { .. });
    if !passes(&error) {
        return Err(error);
    }
    tell(&error);
    let mut ticks = ticks(WATCH);
    loop {
        ticks.tick().await;
        match open().await {
            Err(error) if passes(&error) => {}
            result => return result,
        }
    }
}

pub(crate) async fn summarize(
    session: &Session,
    connections: &Connections,
    seen: &Observed,
    plan: &Plan,
    show_secrets: bool,
) -> Result<Status> {
    let reports = reports(session, &connections.influxdb, seen).await;
    let account = account(session, &connections.grafana, seen, show_secrets).await?;
    let mut status = Status::new(session.stack(), seen, plan, reports, account);
    if let Some(own) = address_of_this_machine() {
        status.exposures = exposures(session.stack(), seen, own, &session.listener).await;
        status.hints.extend(status.exposures.iter().cloned());
    }
    Ok(status)
}

/// Clipper's reports, as far as InfluxDB can be queried. An error here is not an error of the stack.
async fn reports(session: &Session, influxdb: &Connection, seen: &Observed) -> Reports {
    let stack = session.stack();
    let is_known = plan::unknown_settings(stack).is_none();
    if !is_known || seen.influxdb_state().is_none_or(|influxdb| !influxdb.has_database) {
        return Reports::default();
    }
    match session.influxdb(influxdb).activity(&stack.database).await {
        Ok(activity) => {
            let (objective, named) = (status::objective(stack, seen), status::named_models(stack, seen));
            reports::analyse(&activity, stack, objective, &named, now())
        }
        Err(error) => Reports { hints: vec![error.to_string()], ..Reports::default() },
    }
}

async fn account(
    session: &Session,
    grafana: &Connection,
    seen: &Observed,
    show_secrets: bool,
) -> Result<AccountStatus> {
    let is_managed = session.stack().container(Role::Grafana).is_some() && seen.grafana.container.ours().is_some();
    let is_shown = show_secrets && is_managed;
    let password = if is_shown { session.grafana_password(grafana, &seen.grafana).await? } else { None };
    Ok(AccountStatus::new(session.stack(), seen, password))
}
