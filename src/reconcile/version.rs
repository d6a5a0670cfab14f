//! The versions of Grafana that have run on a volume: recorded before a start and after an answer,
//! so that an older version never starts on a database that a newer one migrated.

use futures_util::future::{try_join, try_join3};

use super::Systems;
use crate::engine::{RunInfo, VolumeFiles};
use crate::error::{Error, Result};
use crate::http::Auth;
use crate::http::PROBE;
use crate::model::image::ImageRef;
use crate::model::observed::{RunState, Volume};
use crate::model::plan::{self, Blocker, Resource};
use crate::model::role::Role;
use crate::model::stack::DesiredContainer;
use crate::model::version::Version;

impl Systems {
    pub(super) async fn check_image(&self, spec: &DesiredContainer, restores: bool) -> Result<()> {
        let docker = self.docker()?;
        let (image, volume) = try_join(docker.image(spec), docker.volume(&self.stack.instance, spec.role)).await?;
        let Volume::Ours { user, version, .. } = volume else { return Ok(()) };
        let blocked = match (image, user) {
            (Some(image), Some(owner)) => plan::volume_of_another_user(&self.stack, spec, &image, &owner),
            _ => None,
        };
        let have = self.containers.borrow()[spec.role as usize].clone();
        let older = match have {
            // Before an older version starts, its own database is restored.
            _ if restores => None,
            Some(id) if spec.role == Role::Grafana => {
                let mut files = docker.read_files(&id).await?;
                if files.is_intended_for(&id) && self.was_never_started(&id).await? {
                    // The announced start did not happen.
                    files.intended = None;
                }
                older(spec, &spec.specification.image, &files, version)
            }
            _ => version.and_then(|version| plan::older_version(spec, &spec.specification.image, version)),
        };
        let blocked = blocked.or(older);
        blocked.map_or(Ok(()), |blocked| Err(Error::Blocked { resource: Resource::Server(spec.role), blocked }))
    }

    /// Before a start: rejects an image older than the last version on the volume, and records the
    /// version in its tag. While it runs: records the version that the server reports.
    pub(super) async fn record_version(&self, spec: &DesiredContainer) -> Result<()> {
        let docker = self.docker()?;
        let id = self.container_of(Role::Grafana)?;
        let running = match docker.run_info(Role::Grafana, &id).await? {
            Some(RunInfo { run: RunState::Running, .. }) => {
                self.grafana_client(Auth::None).health(PROBE).await.1.as_deref().and_then(Version::parse)
            }
            _ => None,
        };
        let (files, have, volume) = try_join3(
            docker.read_files(&id),
            docker.ours(Role::Grafana, &id),
            docker.volume(&self.stack.instance, Role::Grafana),
        )
        .await?;
        let made = have.and_then(|have| have.specification);
        let image = made.map_or_else(|| spec.specification.image.clone(), |made| made.image);
        let Some(version) = running else {
            let label = match volume {
                Volume::Ours { version, .. } if docker.has_database(&id).await? => version,
                _ => None,
            };
            if let Some(blocked) = older(spec, &image, &files, label) {
                return Err(Error::Blocked { resource: Resource::Server(Role::Grafana), blocked });
            }
            let intended = image.version().filter(|version| files.newest_version(label) < Some(*version));
            return match intended {
                Some(version) => docker.write_intended_version(&id, version, &image).await,
                None => Ok(()),
            };
        };
        let recorded = files.ran.as_ref().map(|ran| ran.version);
        if let Some(newer) = recorded.filter(|newer| *newer > version) {
            return Err(Error::NotReady {
                role: Role::Grafana,
                why: format!("{version} runs on a database that Grafana {newer} has migrated"),
                log: Vec::new(),
                hint: format!("use an image of Grafana {newer} or newer with --grafana-image"),
            });
        }
        if recorded != Some(version) || !files.ran_last(&image) {
            docker.write_version(&id, version, &image).await?;
        }
        // Also if another run has recorded it since the files were read.
        self.login.forget_files();
        Ok(())
    }

    pub(super) async fn was_never_started(&self, id: &str) -> Result<bool> {
        let info = self.docker()?.run_info(Role::Grafana, id).await?;
        Ok(info.is_some_and(|info| info.run == RunState::Created))
    }

    /// Withdraws the record of a start that did not happen, because nothing was migrated.
    pub(super) async fn clear_intended_version(&self, id: &str) -> Result<()> {
        let docker = self.docker()?;
        if docker.read_files(id).await?.is_intended_for(id) {
            docker.clear_intended_version(id).await?;
        }
        Ok(())
    }
}

/// The blocker if the image is older than the last version on the volume.
pub(super) fn older(
    spec: &DesiredContainer,
    image: &ImageRef,
    files: &VolumeFiles,
    label: Option<Version>,
) -> Option<Blocker> {
    let is_contradicted = files.ran.as_ref().is_some_and(|ran| {
        let made = ran.image.as_deref().and_then(|made| ImageRef::parse(made).ok());
        made.is_some_and(|made| made.is_contradicted(ran.version, image))
    });
    if is_contradicted || files.ran_last(image) {
        return None;
    }
    plan::older_version(spec, image, files.newest_version(label)?)
}
