//! Verifies that the server at a container's address is that container. If the engine's socket is
//! forwarded from another machine or mounted into a container, another server answers at the
//! published address here, and must not receive credentials.
//!
//! Two facts prove it. The engine names a network's bridge after the network's random id: if this
//! process sees that interface, the engine publishes on the same addresses. Otherwise, as with
//! engines in virtual machines, a request with a random number is sent to the published port: only
//! the container behind that port has the number in its log.

use std::time::{Duration, Instant};

use super::Session;
use super::connection::Connection;
use crate::backoff::pause;
use crate::engine::{Docker, has_bridge_of};
use crate::error::{Error, Result};
use crate::http::Request;
use crate::model::observed::{ContainerState, ManagedServer, Network, RunState};
use crate::model::plan::{self, Resource};
use crate::model::role::Role;

/// The time limit for a request to appear in the container's log. Only requests to another server
/// take that long.
const LOGGED_WITHIN: Duration = Duration::from_secs(5);

/// A shorter limit if another server is the usual case: only a run that switches to an external
/// server waits this long.
const FORWARDED_WITHIN: Duration = Duration::from_secs(1);

impl Session {
    /// Whether the server at the role's address is its container, which is attached to `network`,
    /// or the external server that the user named.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer, [`Error::Http`] if the server does not.
    pub(super) async fn is_the_container(&self, connection: &Connection, network: &Network) -> Result<bool> {
        if self.stack.container(connection.role).is_none() || has_bridge_of(network) {
            return Ok(true);
        }
        self.arrives_in(self.docker()?, connection, connection.container()?, LOGGED_WITHIN).await
    }

    /// Whether a container of an engine is behind the address of an external server.
    ///
    /// # Errors
    /// The same as [`Self::is_the_container`].
    pub(crate) async fn is_behind(&self, docker: &Docker, role: Role, container: &str) -> Result<bool> {
        let client = self.clients.get(role).clone();
        self.arrives_in(docker, &Connection::new(role, client), container, FORWARDED_WITHIN).await
    }

    /// The instance's own container, if an external server's URL leads to it through a proxy or a
    /// tunnel, so that the address does not show it.
    ///
    /// # Errors
    /// The same as [`Self::is_the_container`].
    pub(super) async fn forwarded_to(
        &self,
        connection: &Connection,
        container: &ContainerState,
    ) -> Result<Option<ManagedServer>> {
        let actual = container.ours().filter(|actual| actual.run == RunState::Running);
        let Some(actual) = actual.filter(|_| self.stack.container(connection.role).is_none()) else { return Ok(None) };
        let found = self.arrives_in(self.docker()?, connection, &actual.id, FORWARDED_WITHIN).await?;
        Ok(found.then(|| ManagedServer {
            container: actual.name.clone(),
            instance: self.stack.instance.clone(),
            is_own: true,
            runs: true,
        }))
    }

    /// Verifies that the server at the role's address is its container before anything is sent that
    /// no other server may receive.
    ///
    /// # Errors
    /// [`Error::Blocked`] if it is another server, otherwise the same as [`Self::is_the_container`].
    pub(super) async fn expect_the_container(&self, connection: &Connection) -> Result<()> {
        let role = connection.role;
        if self.stack.container(role).is_none() {
            return Ok(());
        }
        let network = self.docker()?.network(&self.stack.instance).await?;
        if self.is_the_container(connection, &network).await? {
            return Ok(());
        }
        let address = connection.http.address().to_string();
        let blocker = plan::not_the_container(&self.stack, role, &address);
        Err(Error::Blocked { resource: Resource::Server(role), blocker })
    }

    /// Whether a request with a random number, sent to the role's address, appears in this container's log.
    async fn arrives_in(&self, docker: &Docker, connection: &Connection, id: &str, within: Duration) -> Result<bool> {
        let number = super::login::random_hex()?;
        let path = format!("{}{number}", connection.role.facts().logged_path);
        let limit = Some(self.probe_limit(connection));
        connection.http.send(Request { within: limit, ..Request::new("GET", &path) }).await?;
        let deadline = Instant::now() + within;
        let mut backoff = Duration::from_millis(5);
        loop {
            match docker.has_logged(id, &number).await {
                Ok(true) => return Ok(true),
                // Podman cannot read a log while a line is being written to it.
                result if Instant::now() >= deadline => return result,
                _ => {}
            }
            pause(&mut backoff).await;
        }
    }
}
