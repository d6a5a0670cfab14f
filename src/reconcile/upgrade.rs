//! Changes of Grafana's image: the database is copied before another version starts, restored if
//! that version fails, and the copy is deleted when the version is accepted.

use std::time::{Duration, Instant};

use futures_util::future::try_join4;

use super::Systems;
use super::converge::Failure;
use super::version::older;
use crate::backoff::pause;
use crate::error::{Error, Refusal, Result};
use crate::http::PROBE;
use crate::model::credentials::Credentials;
use crate::model::diagnosis::{PanelAnswer, PanelContent, VariableContent};
use crate::model::event::Event;
use crate::model::image::ImageRef;
use crate::model::observed::{Dashboard, Volume};
use crate::model::plan::{BlockReason, Resource, Step};
use crate::model::role::Role;
use crate::model::stack::{DashboardId, Service, Stack};
use crate::model::upgrade::{NamedImage, Upgrade, UpgradeState};

impl Systems {
    /// Copies the database before a container that was never started may migrate it. The copy of an
    /// interrupted run is kept, because its new version has not started without it.
    pub(super) async fn protect_database(&self, last: Option<NamedImage>) -> Result<()> {
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
        let before = stored.upgrade;
        let pending = before.clone().filter(|pending| pending.state == UpgradeState::Unproven);
        let (label, version) = match volume {
            Volume::Ours { image, version, .. } => (image, version),
            _ => (None, None),
        };
        // If the new version had run, the volume would contain a record of it. If it has not, the
        // database may have changed since it was copied.
        let newest = files.newest_version(version);
        let has_run = |tried: &NamedImage| tried.name.version().is_none_or(|tried| newest >= Some(tried));
        if let Some(pending) = &pending
            && has_run(&pending.to)
            && docker.database_copy(&id).await?.is_some_and(|copy| copy == pending.id)
        {
            // The image's name may belong to another image by now, but the previous database is safe.
            let retagged = Upgrade { to: to.clone(), ..pending.clone() };
            return if pending.to == to { Ok(()) } else { self.save_upgrade(Some(retagged)).await };
        }
        let spec = self.spec(Role::Grafana)?;
        if older(spec, &to.name, &files, version).is_some() {
            // The image is rejected before it starts.
            return Ok(());
        }
        let noted = || {
            let name = ImageRef::parse(&files.last_image(label)?).ok()?;
            let id = before.map(|before| before.from).filter(|from| from.name == name).and_then(|from| from.id);
            Some(NamedImage { name, id })
        };
        let Some(from) = pending.map(|pending| pending.from).or(last).or_else(noted) else { return Ok(()) };
        if !to.may_differ_from(&from) {
            return Ok(());
        }
        let upgrade = Upgrade { id: micros_since_1970().to_string(), from, to, state: UpgradeState::Unproven };
        // The record comes first: if there is no room for the copy, the previous image is restored as well.
        let copy = upgrade.id.clone();
        self.save_upgrade(Some(upgrade)).await?;
        docker.copy_database(&id, &copy).await
    }

    /// Restores the copy that belongs to the pending upgrade, if there is one, and ends the upgrade.
    pub(super) async fn restore_database(&self) -> Result<()> {
        let docker = self.docker()?;
        let id = self.container_of(Role::Grafana)?;
        let stored = docker.stored_settings(&self.stack.instance).await?;
        let Some(pending) = stored.upgrade.filter(Upgrade::is_pending) else { return Ok(()) };
        if docker.database_copy(&id).await?.is_some_and(|copy| copy == pending.id) {
            docker.put_database_back(&id).await?;
        }
        self.login.forget_files();
        let end = match pending.state {
            UpgradeState::Refused => Some(Upgrade { state: UpgradeState::Undone, ..pending }),
            UpgradeState::Postponed => Some(Upgrade { state: UpgradeState::Ended, ..pending }),
            _ => None,
        };
        self.end_upgrade(end).await
    }

    /// Accepts the new image once it answers the dashboard's queries.
    pub(super) async fn finish_upgrade(&self, deadline: Instant) -> Result<()> {
        let stored = self.docker()?.stored_settings(&self.stack.instance).await?;
        let spec = self.spec(Role::Grafana)?;
        let is_tried = stored.upgrade.is_some_and(|upgrade| {
            upgrade.state == UpgradeState::Unproven && upgrade.to.name == spec.specification.image
        });
        if !is_tried {
            return Ok(());
        }
        self.prove_dashboard(deadline).await?;
        // The next upgrade starts from this image.
        self.record_version(spec).await?;
        self.end_upgrade(None).await
    }

    /// The record is removed first, because its copy may be needed as long as it exists.
    async fn end_upgrade(&self, end: Option<Upgrade>) -> Result<()> {
        self.save_upgrade(end).await?;
        if let Err(why) = self.docker()?.discard_database_copy(&self.container_of(Role::Grafana)?).await {
            // A leftover copy only takes up space, and the next copy replaces it.
            self.listener.on(Event::Warning(&format!("the copy of Grafana's database could not be deleted: {why}")));
        }
        Ok(())
    }

    /// Polls until the queries of the stored dashboard succeed. In an edited dashboard, one of them
    /// is enough: others may have failed before.
    async fn prove_dashboard(&self, deadline: Instant) -> Result<()> {
        let mut backoff = Duration::from_millis(10);
        loop {
            let failing = match self.failing_query().await {
                // Grafana may still be starting.
                Err(error @ (Error::Http { .. } | Error::Answer { .. })) => Some(error.to_string()),
                failing => failing?,
            };
            let Some(why) = failing else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(self.not_ready(Role::Grafana, why).await);
            }
            pause(&mut backoff).await;
        }
    }

    async fn failing_query(&self) -> Result<Option<String>> {
        let now = i64::try_from(micros_since_1970() / 1000).unwrap_or(i64::MAX);
        let grafana = self.grafana().await?;
        let Some(opened) = grafana.open_dashboard(&self.stack.dashboard.uid, now).await? else {
            return Ok(Some("the dashboard does not exist".into()));
        };
        let seen = grafana.seen_dashboard(&self.stack, DashboardId::Bundled).await?;
        let is_edited = matches!(seen, Dashboard::Present(seen) if seen.edited);
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

    /// Gives up on the image being tried, unless it has been in use for so long that users' changes
    /// would be lost. Returns the systems of the stack with the previous image. The image is tried again by a
    /// later `up` if `failure` did not come from it.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(super) async fn refuse_upgrade(&self, failure: &Failure) -> Result<Option<(Self, Upgrade)>> {
        let Some(docker) = &self.docker else { return Ok(None) };
        let stored = docker.stored_settings(&self.stack.instance).await?;
        let tried = self.stack.container(Role::Grafana).map(|spec| &spec.specification.image);
        let pending = stored.upgrade.filter(|upgrade| {
            let is_tried = upgrade.state == UpgradeState::Unproven && Some(&upgrade.to.name) == tried;
            // If both images have the same name and no id is known, they cannot be distinguished.
            let is_known = upgrade.from.name != upgrade.to.name || upgrade.from.id.is_some();
            is_tried && is_known && upgrade.is_recent(micros_since_1970(), self.stack.timeout)
        });
        let Some(pending) = pending else { return Ok(None) };
        let made = docker.ours(Role::Grafana, &self.container_of(Role::Grafana)?).await?;
        if made.and_then(|have| have.specification).is_none_or(|made| made.image != pending.to.name) {
            // The image that failed is the previous one, on which a login was tried.
            return Ok(None);
        }
        let is_untried = is_untried(failure);
        let state = if is_untried { UpgradeState::Postponed } else { UpgradeState::Refused };
        let refused = Upgrade { state, ..pending };
        self.save_upgrade(Some(refused.clone())).await?;
        let mut stack: Stack = self.stack.clone();
        if let Service::Container(spec) = &mut stack.grafana {
            spec.specification.image = refused.from.name.clone();
            spec.specification.read_only = refused.from.name.to_string() == stack.default_image;
            spec.pinned_image = refused.pinned().cloned();
        }
        // The supplied password was tried and stored before, and is restored with the database.
        stack.login.given = false;
        let credentials = Credentials { grafana_password: None, ..self.credentials.clone() };
        stack.refused_image = (!is_untried).then(|| refused.to.name.clone());
        let systems = Self::new(stack, self.docker.clone(), credentials, std::rc::Rc::clone(&self.listener))?;
        Ok(Some((systems, refused)))
    }

    /// Whether the error means that Grafana's image does not work or could not be tried. A rejected
    /// login and failures outside Grafana say nothing about its image.
    pub(super) async fn is_of_grafana(&self, failure: &Failure) -> bool {
        let Failure { step, error } = failure;
        let grafana = Role::Grafana;
        let is_of_server = match error {
            Error::NotReady { .. } | Error::NotConverged { .. } | Error::Http { .. } | Error::Io { .. } => true,
            Error::Answer { status, .. } => *status >= 500,
            Error::Docker { refusal, .. } => blames_image(step.as_ref(), *refusal),
            Error::Blocked { resource, blocked } => {
                *resource == Resource::Server(grafana) && blocked.kind == BlockReason::Server
            }
            _ => false,
        };
        is_of_server
            && match step {
                // The plan was blocked or changed nothing.
                None => matches!(error, Error::Blocked { .. }),
                Some(Step::VerifyQuery | Step::FinishUpgrade) => self.influxdb().observe("", PROBE).await.1.is_some(),
                Some(
                    Step::ProtectDatabase { .. }
                    | Step::StartContainer(Role::Grafana)
                    | Step::AwaitAnswer(Role::Grafana)
                    | Step::RecordVersion
                    | Step::SaveDashboard { .. }
                    | Step::SaveDataSource { .. },
                ) => true,
                Some(_) => false,
            }
    }

    async fn save_upgrade(&self, upgrade: Option<Upgrade>) -> Result<()> {
        let values = self.stack.settings.as_ref().map(|settings| &settings.values);
        self.docker()?.save_upgrade(&self.stack.instance, values, upgrade.as_ref()).await
    }
}

/// Whether the new image was not started because its database could not be copied at the moment.
fn is_untried(failure: &Failure) -> bool {
    matches!(failure.step, Some(Step::ProtectDatabase { .. }))
        && !matches!(failure.error, Error::Docker { refusal: Refusal::UnexpectedFile, .. })
}

/// Whether the image causes the engine's error, or the error leaves the new image untried. A start
/// that fails for another reason, such as missing firewall rules, would fail with every image.
const fn blames_image(step: Option<&Step>, refusal: Refusal) -> bool {
    match step {
        Some(Step::ProtectDatabase { .. }) => {
            matches!(refusal, Refusal::Disk | Refusal::UnexpectedFile | Refusal::Other)
        }
        Some(Step::StartContainer(_)) => {
            matches!(refusal, Refusal::NoSuchProgram | Refusal::Architecture | Refusal::Unrunnable)
        }
        _ => false,
    }
}

/// The current time in microseconds since 1970.
#[must_use]
pub fn micros_since_1970() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_micros()
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
        assert!(blames_image(Some(&Step::ProtectDatabase { last: None }), Refusal::Disk));
    }
}
