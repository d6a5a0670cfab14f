//! Changes of Grafana's image: proves that a new version answers the dashboard's queries, and carries out the rollback
//! that the plan decides on.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::apply::RunFailure;
use super::connection::Connection;
use super::{Depth, Session};
use crate::backoff::pause;
use crate::clock::now;
use crate::error::{Error, Result};
use crate::model::credentials::Credentials;
use crate::model::diagnosis::{PanelAnswer, PanelContent, VariableContent};
use crate::model::observed::DashboardState;
use crate::model::plan::{self, FailureCause, Rollback};
use crate::model::stack::DashboardId;
use crate::model::upgrade::Upgrade;

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

    /// Gives up on the new image if the plan decides so, and returns the session of the stack with the previous image.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(super) async fn roll_back(&self, failure: &RunFailure) -> Result<Option<(Self, Upgrade)>> {
        let (step, cause) = (failure.step.as_ref(), FailureCause::from(&failure.error));
        if self.docker.is_none() || plan::verdict(step, cause).is_none() {
            return Ok(None);
        }
        let mut connections = self.connect();
        let depth = if plan::needs_influxdb(step) { Depth::WithoutGrafana } else { Depth::EngineOnly };
        let seen = self.observe(&mut connections, depth).await?;
        let Some(Rollback { upgrade, plan }) = plan::roll_back(&self.stack, &seen, step, cause) else {
            return Ok(None);
        };
        self.apply(&plan, &mut connections, &mut Vec::new()).await?;
        let stack = self.stack.with_previous_image(&upgrade);
        let credentials = Credentials { grafana_password: None, ..self.credentials.clone() };
        let session = Self::new(stack, self.docker.clone(), credentials, Rc::clone(&self.listener))?;
        Ok(Some((session, upgrade)))
    }
}
