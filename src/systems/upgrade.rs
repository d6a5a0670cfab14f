//! Changes of Grafana's image: the database is copied before another version starts, comes back where that one
//! fails, and the copy goes when it has proved itself.
//!
//! Must not decide when any of this is done, nor know how a file gets into a volume.

use std::time::{Duration, Instant};

use futures_util::future::try_join4;

use super::version::older;
use super::{Systems, pause};
use crate::core::diagnosis::{PanelContent, VariableContent};
use crate::core::image::ImageRef;
use crate::core::observed::{Dashboard, Volume};
use crate::core::role::Role;
use crate::core::stack::{ContainerSpec, DashboardId, Service, Stack};
use crate::core::upgrade::{NamedImage, Upgrade, UpgradeState};
use crate::error::{Error, Result};

impl Systems {
    /// Before the specified image starts, the database of before comes back.
    pub(super) fn must_restore(&self, spec: &ContainerSpec) -> bool {
        let upgrade = self.upgrade.borrow();
        let upgrade = upgrade.as_ref().filter(|_| spec.role == Role::Grafana);
        upgrade.is_some_and(|upgrade| upgrade.must_restore(&spec.specification.image))
    }

    /// Copies the database before a container that is made, and was never started, may migrate it. The copy of a
    /// run that ended half-way is kept: what it was made for has not started without it.
    pub(super) async fn protect_database(&self) -> Result<()> {
        let (docker, instance) = (self.docker()?, &self.stack.instance);
        let id = self.container_of(Role::Grafana)?;
        if !docker.has_database(&id).await? {
            return Ok(());
        }
        let (files, have, volume, stored) = try_join4(
            docker.read_files(&id),
            docker.ours(Role::Grafana, &id),
            docker.volume(instance, Role::Grafana),
            docker.stored_settings(instance),
        )
        .await?;
        let Some(have) = have else { return Ok(()) };
        let Some(made) = have.specification else { return Ok(()) };
        let to = NamedImage { name: made.image, id: Some(have.image_id) };
        let pending = stored.upgrade.filter(Upgrade::is_pending);
        if let Some(pending) = &pending
            && pending.state == UpgradeState::Unproven
            && pending.to == to
            && docker.database_copy(&id).await?.is_some_and(|copy| copy.upgrade == pending.id)
        {
            return Ok(());
        }
        let (label, version) = match volume {
            Volume::Ours { image, version, .. } => (image, version),
            _ => (None, None),
        };
        let spec = self.spec(Role::Grafana)?;
        if older(spec, &to.name, &files, version).is_some() {
            // It is refused before it starts.
            return Ok(());
        }
        let noted = || Some(NamedImage { name: ImageRef::parse(&files.last_image(label)?).ok()?, id: None });
        let last = self.last_image.borrow().clone().map(|(id, name)| NamedImage { name, id: Some(id) });
        let Some(from) = pending.map(|pending| pending.from).or(last).or_else(noted) else { return Ok(()) };
        if !to.may_differ_from(&from) {
            return Ok(());
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let upgrade = Upgrade { id: since.as_micros().to_string(), from, to, state: UpgradeState::Unproven };
        docker.copy_database(&id, &upgrade.id).await?;
        self.save_upgrade(Some(upgrade)).await
    }

    /// Puts the copy back, if there is one that belongs to the upgrade that is not over.
    pub(super) async fn restore_database(&self) -> Result<()> {
        let docker = self.docker()?;
        let id = self.container_of(Role::Grafana)?;
        let stored = docker.stored_settings(&self.stack.instance).await?;
        let Some(pending) = stored.upgrade.filter(Upgrade::is_pending) else { return Ok(()) };
        if let Some(copy) = docker.database_copy(&id).await?.filter(|copy| copy.upgrade == pending.id) {
            docker.put_database_back(&id, &copy).await?;
            self.login.forget_files();
        }
        Ok(())
    }

    /// Ends what is not over: a new image after it has answered the dashboard's queries, one that was undone as it
    /// is.
    pub(super) async fn finish_upgrade(&self, deadline: Instant) -> Result<()> {
        let docker = self.docker()?;
        let stored = docker.stored_settings(&self.stack.instance).await?;
        let Some(pending) = stored.upgrade.filter(Upgrade::is_pending) else { return Ok(()) };
        let is_tried =
            self.stack.container(Role::Grafana).is_some_and(|spec| spec.specification.image == pending.to.name);
        let end = match pending.state {
            UpgradeState::Unproven if is_tried => {
                self.prove_dashboard(deadline).await?;
                None
            }
            UpgradeState::Refused => Some(Upgrade { state: UpgradeState::Undone, ..pending }),
            _ => None,
        };
        // Should this run end here, an emptied copy is none.
        docker.discard_database_copy(&self.container_of(Role::Grafana)?).await?;
        self.save_upgrade(end).await
    }

    /// Polls until the stored dashboard's queries answer. Of one that somebody edited, some must: others may have
    /// failed before.
    async fn prove_dashboard(&self, deadline: Instant) -> Result<()> {
        let mut backoff = Duration::from_millis(10);
        loop {
            let failing = self.failing_query().await?;
            let Some(why) = failing else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(self.not_ready(Role::Grafana, why).await);
            }
            pause(&mut backoff).await;
        }
    }

    async fn failing_query(&self) -> Result<Option<String>> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let grafana = self.grafana().await?;
        let Some(opened) = grafana.open_dashboard(&self.stack.dashboard.uid, now).await? else {
            return Ok(Some("the dashboard is not there".into()));
        };
        let seen = grafana.seen_dashboard(&self.stack, DashboardId::Bundled).await?;
        let is_edited = matches!(seen, Dashboard::Present(seen) if seen.edited);
        let variables = opened.variables.into_iter().map(|one| match one.content {
            VariableContent::Failed(why) => Some(format!("the dashboard's variable {} fails: {why}", one.name)),
            _ => None,
        });
        let panels = opened.panels.into_iter().map(|panel| match panel.content {
            PanelContent::Failed(why) => Some(format!("panel {:?} fails: {why}", panel.title)),
            _ => None,
        });
        let answers: Vec<Option<String>> = variables.chain(panels).collect();
        let some_answer = answers.iter().any(Option::is_none);
        Ok(if is_edited && some_answer { None } else { answers.into_iter().flatten().next() })
    }

    /// Gives up on the image that is being tried, if one is: the systems of the stack with the image of before.
    ///
    /// # Errors
    /// [`Error::Docker`] when the engine refuses.
    pub async fn refuse_upgrade(&self) -> Result<Option<(Self, Upgrade)>> {
        let Some(docker) = &self.docker else { return Ok(None) };
        let stored = docker.stored_settings(&self.stack.instance).await?;
        let tried = self.stack.container(Role::Grafana).map(|spec| &spec.specification.image);
        let pending =
            stored.upgrade.filter(|upgrade| upgrade.state == UpgradeState::Unproven && Some(&upgrade.to.name) == tried);
        let Some(pending) = pending else { return Ok(None) };
        let refused = Upgrade { state: UpgradeState::Refused, ..pending };
        self.save_upgrade(Some(refused.clone())).await?;
        let mut stack: Stack = self.stack.clone();
        if let Service::Container(spec) = &mut stack.grafana {
            spec.specification.image = refused.from.name.clone();
            spec.specification.read_only = refused.from.name.to_string() == stack.default_image;
            spec.pinned_image = refused.pinned().cloned();
        }
        // What was given has been tried and stored before.
        stack.login.given = false;
        stack.refused_image = Some(refused.to.name.clone());
        let systems =
            Self::new(stack, self.docker.clone(), self.credentials.clone(), std::rc::Rc::clone(&self.listener))?;
        Ok(Some((systems, refused)))
    }

    async fn save_upgrade(&self, upgrade: Option<Upgrade>) -> Result<()> {
        self.docker()?.save_upgrade(&self.stack.instance, upgrade.as_ref()).await?;
        *self.upgrade.borrow_mut() = upgrade;
        Ok(())
    }
}

/// Whether an error says that the image of Grafana itself is no good, and not something around it.
#[must_use]
pub fn is_of_image(error: &Error) -> bool {
    use crate::core::plan::{Obstacle, Resource};
    use crate::error::Refusal;
    match error {
        Error::NotReady { role, .. } | Error::Refused { role, .. } => *role == Role::Grafana,
        Error::Blocked { resource, blocked } => {
            *resource == Resource::Server(Role::Grafana) && matches!(blocked.kind, Obstacle::Server | Obstacle::Refused)
        }
        Error::Docker { refusal, .. } => matches!(refusal, Refusal::Other | Refusal::NoSuchProgram),
        Error::Answer { .. } | Error::Http { .. } | Error::NotConverged { .. } => true,
        _ => false,
    }
}
