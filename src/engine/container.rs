//! Starts, unpauses, inspects and removes containers.
//!
//! Changes only containers with the instance's label, and addresses them by id, because names can change.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bollard::query_parameters::{RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder};

use super::Docker;
use super::inspection::{published, run_state};
use super::listing::{find_container, holds, port_holder};
use crate::error::{Error, Refusal, Result};
use crate::model::observed::{PortHolder, RunState};
use crate::model::role::Role;

/// The time that a server gets to stop.
const STOP_SECONDS: i32 = 10;

/// The run state of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunInfo {
    pub(crate) run: RunState,
    /// How often the engine has restarted it.
    pub(crate) restarts: i64,
    /// The address at which its port is actually published, while it runs.
    pub(crate) published: Option<SocketAddr>,
}

impl Docker {
    /// Starts a container, and returns the address at which its port is published; a running one is left running.
    /// `desired` is its address unless it was created for another one.
    ///
    /// # Errors
    /// [`Error::Publish`] if the address cannot be published, otherwise [`Error::Docker`].
    pub(crate) async fn start_container(
        &self,
        instance: &str,
        role: Role,
        id: &str,
        desired: SocketAddr,
    ) -> Result<Option<SocketAddr>> {
        if let Some(refusal) = self.try_start(role, id).await? {
            let config = self.ours(role, id).await.ok().flatten().and_then(|actual| actual.config);
            let address = config.map_or(desired, |config| config.publish);
            let holder = self.holder(instance, role, address, refusal).await;
            return Err(Error::Publish { role, address, holder, answers: None, free: None });
        }
        Ok(self.run_info(role, id).await?.and_then(|info| info.published))
    }

    /// Starts a container. If its address cannot be published, returns why: it is taken, or the engine's host does not
    /// have it.
    pub(super) async fn try_start(&self, role: Role, id: &str) -> Result<Option<Refusal>> {
        let doing = format!("start the container of {}", role.title());
        match self.call(&doing, self.client.start_container(id, None::<StartContainerOptions>)).await {
            Err(Error::Docker { refusal: refusal @ (Refusal::PortTaken | Refusal::NoSuchAddress), .. }) => {
                Ok(Some(refusal))
            }
            result => result.map(|()| None),
        }
    }

    /// The holder of an address that cannot be published.
    pub(super) async fn holder(&self, instance: &str, role: Role, address: SocketAddr, why: Refusal) -> PortHolder {
        if why == Refusal::NoSuchAddress {
            return PortHolder::NoSuchAddress;
        }
        let containers = self.containers(instance).await.unwrap_or_default();
        port_holder(&containers, instance, role, address).unwrap_or(PortHolder::Process)
    }

    /// Whether a container holds an address now, also one that an interrupted address check left.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn holds_address(&self, publish: SocketAddr) -> Result<bool> {
        Ok(self.every_container().await?.iter().any(|container| holds(container, publish)))
    }

    /// Unpauses a container.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn unpause_container(&self, role: Role, id: &str) -> Result<()> {
        let doing = format!("unpause the container of {}", role.title());
        match self.call(&doing, self.client.unpause_container(id)).await {
            Err(Error::Docker { refusal: Refusal::NotPaused, .. }) => Ok(()),
            result => result,
        }
    }

    /// Stops and removes the role's container, whatever its state and name; its volume stays.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process has replaced the container with the id `known`, [`Error::Docker`] if the
    /// engine returns an error.
    pub(crate) async fn remove_container(&self, instance: &str, role: Role, known: Option<&str>) -> Result<()> {
        let listed = self.listed(instance).await?;
        let Ok(id) = find_container(&listed.containers, instance, role) else { return Ok(()) };
        if known.is_some_and(|known| known != id) {
            let doing = format!("remove the container of {}", role.title());
            return Err(Error::Raced { doing, why: "another process replaced it".into() });
        }
        let Some(found) = listed.inspected.get(&id) else { return Ok(()) };
        let running = found.state.as_ref().and_then(|state| state.running).unwrap_or(false);
        if running && found.state.as_ref().is_none_or(|state| state.paused != Some(true)) {
            let options = StopContainerOptionsBuilder::default().t(STOP_SECONDS).build();
            let doing = format!("stop the container of {}", role.title());
            match self.find(&doing, self.client.stop_container(&id, Some(options))).await {
                // It is already exiting, and the removal waits for that.
                Err(Error::Docker { refusal: Refusal::Ending, .. }) => {}
                result => drop(result?),
            }
        }
        self.remove(&format!("remove the container of {}", role.title()), &id, false).await
    }

    /// Removes a container, running or not, and its anonymous volumes if `volumes` is set. A container that is gone, or
    /// that another process removes, is not an error. Podman cannot remove a container at the moment when it exits.
    pub(super) async fn remove(&self, doing: &str, id: &str, volumes: bool) -> Result<()> {
        let remove = async || {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(volumes).build();
            self.find(doing, self.client.remove_container(id, Some(options))).await
        };
        match super::ask_until_ended(remove).await {
            Err(Error::Docker { refusal: Refusal::BeingRemoved, .. }) => self.await_removal(id).await,
            result => result.map(drop),
        }
    }

    /// Waits until a container is gone that another process is removing.
    pub(super) async fn await_removal(&self, id: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(u64::from(STOP_SECONDS.unsigned_abs()));
        let mut backoff = Duration::from_millis(20);
        while Instant::now() < deadline {
            if self.find_by_id("check that it is gone", id).await?.is_none() {
                return Ok(());
            }
            crate::backoff::pause(&mut backoff).await;
        }
        Ok(())
    }

    /// The run state of a container; `None` if it is gone.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn run_info(&self, role: Role, id: &str) -> Result<Option<RunInfo>> {
        let doing = format!("inspect the container of {}", role.title());
        let found = self.find_by_id(&doing, id).await?;
        Ok(found.map(|found| RunInfo {
            run: run_state(&found),
            restarts: found.restart_count.unwrap_or_default(),
            published: found.network_settings.as_ref().and_then(|settings| published(settings, role)),
        }))
    }
}
