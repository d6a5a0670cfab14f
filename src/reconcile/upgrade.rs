//! Changes of Grafana's image: proves that a new version answers the dashboard's queries, and decides whether a
//! failed run goes back to the previous image.

use std::time::{Duration, Instant};

use super::apply::RunFailure;
use super::connection::Connection;
use super::{Depth, Session};
use crate::backoff::pause;
use crate::clock::now;
use crate::error::{Error, Refusal, Result};
use crate::http::PROBE;
use crate::model::credentials::Credentials;
use crate::model::diagnosis::{PanelAnswer, PanelContent, VariableContent};
use crate::model::observed::{DashboardState, Observed};
use crate::model::plan::{BlockReason, Finding, Item, Plan, Resource, Step};
use crate::model::role::Role;
use crate::model::stack::{DashboardId, Service, Stack};
use crate::model::upgrade::{Upgrade, UpgradeState};

impl Session {
    /// Polls until the queries of the stored dashboard succeed. In an edited dashboard, one of them
    /// is enough: others may have failed before.
    pub(super) async fn prove_dashboard(&self, connection: &mut Connection, deadline: Instant) -> Result<()> {
        let mut backoff = Duration::from_millis(10);
        loop {
            let failing = match self.failing_query(connection).await {
                // Grafana may still be starting.
                Err(error @ (Error::Http { .. } | Error::Answer { .. })) => Some(error.to_string()),
                failing => failing?,
            };
            let Some(why) = failing else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(self.not_ready(connection, why).await);
            }
            pause(&mut backoff).await;
        }
    }

    async fn failing_query(&self, connection: &mut Connection) -> Result<Option<String>> {
        let grafana = self.grafana(connection).await?;
        let Some(opened) = grafana.open_dashboard(&self.stack.dashboard.uid, now()).await? else {
            return Ok(Some("the dashboard does not exist".into()));
        };
        let seen = grafana.seen_dashboard(&self.stack, DashboardId::Bundled).await?;
        let is_edited = matches!(seen, DashboardState::Present(seen) if seen.edited);
        let is_answered = |panel: &PanelAnswer| matches!(panel.content, PanelContent::Points(_) | PanelContent::Empty);
        let some_answer = opened.panels.iter().any(is_answered);
        let sources = opened.sources.into_iter().map(|fault| {
            Some(format!("the data source {:?} does not reach InfluxDB at {}: {}", fault.name, fault.url, fault.why))
        });
        let variables = opened.variables.into_iter().map(|one| match one.content {
            VariableContent::Failed(why) => Some(format!("the dashboard's variable {} fails: {why}", one.name)),
            _ => None,
        });
        let panels = opened.panels.into_iter().map(|panel| match panel.content {
            PanelContent::Failed(why) => Some(format!("panel {:?} fails: {why}", panel.title)),
            _ => None,
        });
        let failing = sources.chain(variables).chain(panels).flatten().next();
        Ok(if is_edited && some_answer { None } else { failing })
    }

    /// Gives up on the image being tried, if that image caused the failure. Returns the session of the stack with the
    /// previous image. The image is tried again by a later `up` if `failure` did not come from it.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(super) async fn refuse_upgrade(&self, failure: &RunFailure) -> Result<Option<(Self, Upgrade)>> {
        if self.docker.is_none() || !blames_server(failure) {
            return Ok(None);
        }
        let mut connections = self.connect();
        let seen = self.observe(&mut connections, Depth::EngineOnly).await?;
        let Some(pending) = refusable(&self.stack, &seen) else { return Ok(None) };
        // Without InfluxDB, no image answers a query.
        let needs_influxdb = matches!(failure.step, Some(Step::VerifyQuery | Step::ProveDashboard));
        if needs_influxdb && self.influxdb(&connections.influxdb).observe("", PROBE).await.1.is_none() {
            return Ok(None);
        }
        let is_untried = is_untried(failure);
        let state = if is_untried { UpgradeState::Postponed } else { UpgradeState::Refused };
        let refused = Upgrade { state, ..pending };
        let record = Step::RecordUpgrade(Box::new(refused.clone()));
        let item = Item::new(Resource::Upgrade, Finding::Requested("the new image failed"), vec![record]);
        self.apply(&Plan::new(vec![item]), &mut connections, &mut Vec::new()).await?;
        let mut stack: Stack = self.stack.clone();
        if let Service::Container(spec) = &mut stack.services.grafana {
            spec.config.image = refused.from.name.clone();
            spec.config.read_only = refused.from.name.to_string() == stack.default_image;
            spec.pinned_image = refused.pinned().cloned();
        }
        // The supplied password was tried and stored before, and is restored with the database.
        (stack.login.given, stack.login.password) = (false, false);
        let credentials = Credentials { grafana_password: None, ..self.credentials.clone() };
        stack.refused_image = (!is_untried).then(|| refused.to.name.clone());
        let session = Self::new(stack, self.docker.clone(), credentials, std::rc::Rc::clone(&self.listener))?;
        Ok(Some((session, refused)))
    }
}

/// The upgrade to give up, unless it has been in use for so long that users' changes would be lost.
fn refusable(stack: &Stack, seen: &Observed) -> Option<Upgrade> {
    let pending = seen.settings.upgrade.as_ref().filter(|upgrade| upgrade.state == UpgradeState::Unproven)?;
    let tried = &stack.container(Role::Grafana)?.config.image;
    // If both images have the same name and no id is known, they cannot be distinguished.
    let is_known = pending.from.name != pending.to.name || pending.from.id.is_some();
    // If it differs, the image that failed is the previous one, on which a login was tried.
    let made = seen.grafana.container.ours()?.config.as_ref()?;
    let is_blamed = pending.to.name == *tried
        && is_known
        && pending.is_recent(seen.time, stack.timeout)
        && made.image == pending.to.name;
    is_blamed.then(|| pending.clone())
}

/// Whether the error means that Grafana's image does not work or could not be tried. A rejected
/// login and failures outside Grafana say nothing about its image.
fn blames_server(failure: &RunFailure) -> bool {
    let RunFailure { step, error } = failure;
    let grafana = Role::Grafana;
    let is_of_server = match error {
        Error::NotReady { .. } | Error::NotConverged { .. } | Error::Http { .. } | Error::Io { .. } => true,
        Error::Answer { status, .. } => *status >= 500,
        Error::Docker { refusal, .. } => blames_image(step.as_ref(), *refusal),
        Error::Blocked { resource, blocker } => {
            *resource == Resource::Server(grafana) && blocker.kind == BlockReason::Server
        }
        _ => false,
    };
    is_of_server
        && match step {
            // The plan was blocked or changed nothing.
            None => matches!(error, Error::Blocked { .. }),
            Some(
                Step::VerifyQuery
                | Step::ProveDashboard
                | Step::CopyDatabase { .. }
                | Step::StartContainer(Role::Grafana)
                | Step::AwaitAnswer(Role::Grafana)
                | Step::WriteVersion { .. }
                | Step::SaveDashboard { .. }
                | Step::SaveDataSource { .. },
            ) => true,
            Some(_) => false,
        }
}

/// Whether the new image was not started because its database could not be copied at the moment.
fn is_untried(failure: &RunFailure) -> bool {
    matches!(failure.step, Some(Step::CopyDatabase { .. }))
        && !matches!(failure.error, Error::Docker { refusal: Refusal::UnexpectedFile, .. })
}

/// Whether the image causes the engine's error, or the error leaves the new image untried. A start
/// that fails for another reason, such as missing firewall rules, would fail with every image.
const fn blames_image(step: Option<&Step>, refusal: Refusal) -> bool {
    match step {
        Some(Step::CopyDatabase { .. }) => {
            matches!(refusal, Refusal::Disk | Refusal::UnexpectedFile | Refusal::Other)
        }
        Some(Step::StartContainer(_)) => {
            matches!(refusal, Refusal::NoSuchProgram | Refusal::Architecture | Refusal::Unrunnable)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_engine_do_not_blame_the_image() {
        let start = Some(&Step::StartContainer(Role::Grafana));
        for refusal in [
            Refusal::Firewall,
            Refusal::PrivilegedPort,
            Refusal::Cgroups,
            Refusal::AddressPools,
            Refusal::Disk,
            Refusal::Gone,
            Refusal::Other,
        ] {
            assert!(!blames_image(start, refusal), "{refusal:?}");
        }
        for refusal in [Refusal::NoSuchProgram, Refusal::Architecture, Refusal::Unrunnable] {
            assert!(blames_image(start, refusal), "{refusal:?}");
            assert!(!blames_image(Some(&Step::AwaitAnswer(Role::Grafana)), refusal), "{refusal:?}");
        }
        // Without a copy of the database, the new image is not tried.
        assert!(blames_image(Some(&Step::CopyDatabase { upgrade: "1".into() }), Refusal::Disk));
    }
}
