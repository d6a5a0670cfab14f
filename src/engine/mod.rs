//! The client of the Docker Engine API: images, networks, volumes and containers, and files in volumes.
//!
//! Changes only objects with the instance's label.

mod address;
mod behind;
pub(crate) mod choice;
mod connect;
mod container;
mod copy;
mod create;
pub(crate) mod endpoint;
pub mod environment;
mod errors;
mod exec;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod files;
mod forward;
mod grafana_database;
pub(crate) mod inspection;
mod instances;
pub mod labels;
mod listing;
mod logs;
mod network;
mod observe;
mod ownership;
mod platform;
mod podman;
pub mod pull;
mod settings;
mod sockets;
#[cfg(unix)]
mod ssh;
pub(crate) mod tar_stream;
mod transport;
mod volume;

use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bollard::errors::Error as Bollard;
use bollard::models::ContainerInspectResponse;
use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;

pub(crate) use self::container::RunInfo;
pub(crate) use self::create::Creation;
use self::endpoint::Endpoint;
use self::errors::translate;
pub(crate) use self::files::password_path;
pub(crate) use self::forward::Forward;
pub(crate) use self::network::{address_of_this_machine, has_bridge_of, is_of_this_machine};
pub(crate) use self::observe::{Seen, SeenRole};
use crate::error::{Error, Refusal, Result};
use crate::model::event::{Event, Listener};
use crate::model::observed::EngineInfo;
use crate::model::stack::EngineLocation;
#[cfg(unix)]
use crate::model::stack::SshForward;
use crate::model::text::excerpt;

/// The time limit of a request that is not a pull. Stopping a container takes up to ten seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the engine may fail to inspect containers because one of them is exiting.
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one engine.
pub(crate) struct Docker {
    client: bollard::Docker,
    endpoint: Endpoint,
    /// The engine's description of itself, once requested.
    engine: OnceCell<EngineInfo>,
    /// The ssh connection to its host, if there is one.
    #[cfg(unix)]
    ssh: Option<ssh::Ssh>,
    /// Requests that must not be abandoned.
    changes: TaskTracker,
    listener: Rc<dyn Listener>,
}

impl Docker {
    /// Whether its host is reached through ssh.
    #[must_use]
    pub(crate) fn is_over_ssh(&self) -> bool {
        #[cfg(unix)]
        return self.ssh.is_some();
        #[cfg(not(unix))]
        false
    }

    /// A port on this machine's loopback that leads through ssh to an address as seen from the engine's host.
    #[must_use]
    pub(crate) fn local_port(&self, host: &str, port: u16) -> Option<u16> {
        #[cfg(unix)]
        return self.ssh.as_ref()?.local_port(host, port).ok();
        #[cfg(not(unix))]
        {
            let _ = (host, port);
            None
        }
    }

    #[must_use]
    pub(crate) fn location(&self) -> EngineLocation {
        #[cfg(unix)]
        if let Some(ssh) = &self.ssh {
            let forward = SshForward { destination: ssh.destination().typed() };
            return EngineLocation::OverSsh { host: ssh.host_name().into(), forward };
        }
        self.endpoint.other_machine().map_or(EngineLocation::Here, EngineLocation::Elsewhere)
    }

    /// Replaces an error by ssh's message, if ssh caused it.
    fn explained(&self, error: Error, cause: &Bollard) -> Error {
        #[cfg(unix)]
        if let (Some(ssh), Error::Docker { refusal: Refusal::Gone, .. } | Error::Engine { .. }) = (&self.ssh, &error) {
            // A connection that worked before has broken; otherwise the error is about connecting. A timeout does not mean
            // that the connection is broken.
            let has_broken = self.engine.initialized() && !matches!(cause, Bollard::RequestTimeoutError);
            let (why, hint) = if ssh.has_ended() || has_broken {
                let why = ssh.failure().map(|why| format!(": {why}")).unwrap_or_default();
                (format!("the ssh connection was interrupted{why}"), "run the same command again".to_string())
            } else if let Some(why) = ssh.failure().filter(|_| !self.engine.initialized()) {
                let typed = ssh.destination().typed();
                (why, format!("check that `ssh {typed} docker version` works without a prompt"))
            } else {
                return error;
            };
            return Error::Engine { endpoint: self.endpoint.to_string(), why, hint, install: None, is_down: false };
        }
        #[cfg(not(unix))]
        let _ = cause;
        error
    }

    /// The engine's address.
    #[must_use]
    pub(crate) fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Sends one request, reports it, and translates its error.
    async fn call<T>(&self, doing: &str, request: impl Future<Output = Result<T, Bollard>>) -> Result<T> {
        let started = Instant::now();
        // Boxed once: bollard's futures are large, and each enclosing future would contain a copy.
        let result = Self::bounded(Box::pin(request), || Bollard::RequestTimeoutError).await;
        let outcome = match &result {
            Ok(_) => "ok".to_string(),
            Err(Bollard::DockerResponseServerError { status_code, .. }) => status_code.to_string(),
            Err(error) => excerpt(&error.to_string(), 80),
        };
        self.listener.on(Event::Request {
            system: "docker",
            request: doing,
            outcome: &outcome,
            time: started.elapsed(),
        });
        result.map_err(|error| self.explained(translate(doing, &error), &error))
    }

    /// Sends a request that creates or pauses an object. It is sent to its end even if the caller is interrupted: a busy
    /// engine might otherwise carry it out after the caller has cleaned up, which [`Self::finish_changes`] prevents.
    async fn change<T, F>(&self, doing: &str, request: impl FnOnce(bollard::Docker) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Bollard>> + Send + 'static,
    {
        let sent = self.changes.spawn(request(self.client.clone()));
        let answered = async { sent.await.unwrap_or_else(|end| Err(std::io::Error::other(end).into())) };
        self.call(doing, answered).await
    }

    /// Waits until the engine has answered the changes of an interrupted caller, and removed its containers that check an
    /// address; at most as long as for a request.
    pub(crate) async fn finish_changes(&self) {
        self.changes.close();
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, self.changes.wait()).await;
    }

    /// Like [`Self::call`], but `None` if the object does not exist.
    async fn find<T>(&self, doing: &str, request: impl Future<Output = Result<T, Bollard>>) -> Result<Option<T>> {
        if_found(self.call(doing, request).await)
    }

    async fn inspect(&self, doing: &str, id: &str) -> Result<ContainerInspectResponse> {
        let inspect = async || self.call(doing, podman::readable(self.client.inspect_container(id, None))).await;
        ask_until_ended(inspect).await
    }

    /// The same, but `None` if the container does not exist.
    async fn find_by_id(&self, doing: &str, id: &str) -> Result<Option<ContainerInspectResponse>> {
        if_found(self.inspect(doing, id).await)
    }
}

/// Repeats a request: Podman fails to inspect, list or remove a container at the moment it exits.
async fn ask_until_ended<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<T> {
    let deadline = Instant::now() + ENDING_TIMEOUT;
    let mut backoff = Duration::from_millis(20);
    loop {
        match ask().await {
            Err(Error::Docker { refusal: Refusal::Ending, .. }) if Instant::now() < deadline => {
                crate::backoff::pause(&mut backoff).await;
            }
            result => return result,
        }
    }
}

/// Turns the error "not found" into `None`.
fn if_found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::Docker { refusal: Refusal::NotFound, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
