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
use crate::model::plan::{self, FailureCause, Rollback, RollbackNeeds};
use crate::model::upgrade::Upgrade;

impl Session {
    /// Polls until no query of the stored dashboard refutes the new version.
    pub(super) async fn prove_dashboard(
        &self,
        connection: &mut Connection,
        edited: bool,
        deadline: Instant,
    ) -> Result<()> {
        let uid = &self.stack.dashboard.uid;
        let mut backoff = Duration::from_millis(10);
        loop {
            let opened = async { self.grafana(connection).await?.open_dashboard(uid, now()).await };
            let refutation = match opened.await {
                Ok(Some(opened)) => opened.refutation(edited),
                Ok(None) => Some("the dashboard does not exist".into()),
                // Grafana may still be starting.
                Err(error @ (Error::Http { .. } | Error::Answer { .. })) => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            let Some(why) = refutation else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(self.not_ready(connection, why).await);
            }
            pause(&mut backoff).await;
        }
    }

    /// Gives up on the new image if the plan decides so, and returns the session of the stack with the previous image.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(super) async fn roll_back(&self, failure: &RunFailure) -> Result<Option<(Self, Upgrade)>> {
        let (step, cause) = (failure.step.as_ref(), FailureCause::from(&failure.error));
        let Some((_, needs)) = plan::verdict(step, cause).filter(|_| self.docker.is_some()) else { return Ok(None) };
        let mut connections = self.connect();
        let depth = match needs {
            RollbackNeeds::Influxdb => Depth::WithoutGrafana,
            RollbackNeeds::Engine => Depth::EngineOnly,
        };
        let seen = self.observe(&mut connections, depth).await?;
        let Some(Rollback { upgrade, plan }) = plan::roll_back(&self.stack, &seen, step, cause) else {
            return Ok(None);
        };
        self.apply(&plan, &mut connections, &mut Vec::new()).await?;
        // The clients keep the time limits of this run, whose lock stays with this session.
        let session = Self {
            stack: self.stack.with_previous_image(&upgrade),
            docker: self.docker.clone(),
            credentials: Credentials { grafana_password: None, ..self.credentials.clone() },
            generated: self.generated.clone(),
            listener: Rc::clone(&self.listener),
            stored: None,
            managed_behind: None,
            clients: self.clients.clone(),
            _lock: None,
        };
        Ok(Some((session, upgrade)))
    }
}
