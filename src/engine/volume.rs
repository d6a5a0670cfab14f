//! The data volumes of the servers.
//!
//! The engine reports success when asked to create an existing volume, even of another owner, so labels
//! are checked every time.

use bollard::models::{Volume as EngineVolume, VolumeCreateRequest};
use bollard::query_parameters::RemoveVolumeOptions;

use super::listing::volume_users;
use super::{Docker, labels};
use crate::error::{Error, ForeignObject, Refusal, Result};
use crate::model::observed::VolumeState;
use crate::model::role::Role;
use crate::model::stack::DesiredContainer;
use crate::model::text::using;

impl Docker {
    /// The volume with a role's data.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn volume(&self, instance: &str, role: Role) -> Result<VolumeState> {
        let name = role.object_name(instance);
        let found = self.find(&format!("inspect volume {name}"), self.client.inspect_volume(&name)).await?;
        Ok(found.map_or(VolumeState::Absent, |volume| seen_volume(&volume, instance, role)))
    }

    /// The same, from the list of the instance's volumes. A volume that is not in the list is
    /// inspected only if another owner's volume with its name would be a conflict.
    pub(super) async fn volume_among(
        &self,
        all: &[EngineVolume],
        instance: &str,
        role: Role,
        needed: bool,
    ) -> Result<VolumeState> {
        let name = role.object_name(instance);
        match all.iter().find(|volume| volume.name == name) {
            Some(volume) => Ok(seen_volume(volume, instance, role)),
            None if needed => self.volume(instance, role).await,
            None => Ok(VolumeState::Absent),
        }
    }

    /// Creates a volume and checks that it is managed: the engine reports success for an existing
    /// one, even of another owner.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process created a volume of that name, [`Error::Docker`] if the
    /// engine returns an error.
    pub(crate) async fn create_volume(&self, instance: &str, spec: &DesiredContainer) -> Result<()> {
        let doing = format!("create volume {}", spec.config.volume);
        if self.volume(instance, spec.role).await? != VolumeState::Absent {
            // Its content decides the next steps.
            return Err(Error::Raced { doing, why: "another process has just created it".into() });
        }
        let request = VolumeCreateRequest {
            name: Some(spec.config.volume.clone()),
            labels: Some(self.volume_labels(instance, spec).await?),
            ..VolumeCreateRequest::default()
        };
        let volume = self.change(&doing, |client| async move { client.create_volume(request).await }).await?;
        if seen_volume(&volume, instance, spec.role) != VolumeState::Foreign {
            return Ok(());
        }
        Err(Error::Raced { doing, why: "another process has just created a volume with that name".into() })
    }

    pub(super) async fn volume_labels(&self, instance: &str, spec: &DesiredContainer) -> Result<labels::Labels> {
        let user = self.image(spec).await?.map(|image| image.user);
        Ok(labels::of_volume(instance, spec.role, user.as_deref(), &spec.config.image))
    }

    /// Removes a managed volume.
    ///
    /// # Errors
    /// [`Error::Foreign`] if another owner's container uses it, [`Error::Docker`] if the engine
    /// returns an error.
    pub(crate) async fn remove_volume(&self, instance: &str, role: Role) -> Result<()> {
        if !matches!(self.volume(instance, role).await?, VolumeState::Ours { .. }) {
            return Ok(());
        }
        self.delete_volume(instance, &role.object_name(instance)).await
    }

    /// Deletes a volume that the caller knows to be the instance's, if it exists. The error names other users of it.
    pub(super) async fn delete_volume(&self, instance: &str, name: &str) -> Result<()> {
        let request = self.client.remove_volume(name, None::<RemoveVolumeOptions>);
        match self.find(&format!("delete volume {name}"), request).await {
            Err(error @ Error::Docker { refusal: Refusal::Conflict, .. }) => {
                Err(self.users_of(instance, name).await?.unwrap_or(error))
            }
            result => result.map(drop),
        }
    }

    /// The error that names the other users of a volume.
    async fn users_of(&self, instance: &str, volume: &str) -> Result<Option<Error>> {
        let names = volume_users(&self.containers(instance).await?, instance, volume);
        let Some(first) = names.first() else { return Ok(None) };
        Ok(Some(Error::Foreign {
            why: format!("cannot delete volume {volume}: {}", using(&names)),
            object: ForeignObject::VolumeUser { container: first.clone() },
        }))
    }
}

/// A volume belongs to the instance if its name, checked by the caller, and both labels match.
fn seen_volume(volume: &EngineVolume, instance: &str, role: Role) -> VolumeState {
    if labels::serves(Some(&volume.labels), instance, role, &volume.name) {
        let (user, version) = (labels::user(&volume.labels), labels::version(&volume.labels));
        VolumeState::Ours { user, version, image: labels::image(&volume.labels) }
    } else {
        VolumeState::Foreign
    }
}
