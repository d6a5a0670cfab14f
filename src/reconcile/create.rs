//! Creates containers: as specified, or privately on loopback from the last image that ran.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::future::try_join;

use super::Systems;
use super::version::older;
use crate::engine::Creation;
use crate::error::{Error, Result};
use crate::model::container_config::{ContainerConfig, PasswordSource};
use crate::model::image::ImageRef;
use crate::model::observed::Volume;
use crate::model::plan::{self, NewPassword, Resource};
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, EngineLocation, Login};
use crate::model::upgrade::NamedImage;

impl Systems {
    pub(super) async fn create(&self, spec: &DesiredContainer, password: NewPassword) -> Result<()> {
        let (source, adopt_stored_password) = match password {
            NewPassword::Known(source) => (source, false),
            NewPassword::AsVolume => (PasswordSource::Default, true),
        };
        let specification = ContainerConfig { password: source, ..spec.specification.clone() };
        self.create_as(spec, specification, Making { adopt_stored_password, ..Making::default() }).await
    }

    /// Creates a container for restoring data through it, published at another port than the stack
    /// specifies, so that Clipper does not find it.
    pub(super) async fn create_for_restore(&self, spec: &DesiredContainer) -> Result<()> {
        let mut specification = private(spec);
        if spec.role == Role::Influxdb && matches!(self.stack.engine, EngineLocation::Elsewhere(_)) {
            // The loopback of another machine's engine is out of reach.
            specification.publish.set_ip(spec.specification.publish.ip());
        }
        self.create_as(spec, specification, Making { private: true, ..Making::default() }).await
    }

    /// Creates the container at a loopback port that the engine chooses, from the last image that
    /// ran: a rejected login must not leave a migrated database behind. A volume that Grafana has
    /// never used gets the supplied password, because there is no other to try.
    pub(super) async fn create_private_container(
        &self,
        spec: &DesiredContainer,
        last: Option<NamedImage>,
    ) -> Result<()> {
        let mut making = Making { adopt_stored_password: true, private: true, image: None };
        let mut specification = private(spec);
        if let Some(NamedImage { name, id }) = last {
            making.image = id;
            specification.image = name;
        }
        self.create_as(spec, specification.clone(), making.clone()).await?;
        let id = self.container_of(spec.role)?;
        let docker = self.docker()?;
        making.adopt_stored_password = false;
        if docker.has_database(&id).await? {
            if making.image.is_none()
                && let Some(last) = self.last_image_of(spec, &id).await?
            {
                let Some(found) = docker.image_called(&last).await? else {
                    docker.remove_container(&self.stack.instance, spec.role).await?;
                    self.set_container(spec.role, None);
                    return Err(Error::Blocked {
                        resource: Resource::Server(spec.role),
                        blocked: plan::needs_last_image(&self.stack, spec, &last),
                    });
                };
                making.image = Some(found.id);
                specification.image = ImageRef::parse(&last).unwrap_or(specification.image);
                let password = docker.ours(spec.role, &id).await?.and_then(|have| have.specification);
                let password = password.map_or(PasswordSource::Default, |made| made.password);
                self.replace_as(spec, ContainerConfig { password, ..specification }, making).await?;
            }
            return Ok(());
        }
        if self.credentials.grafana_password.is_some() {
            self.write_password().await?;
            let specification = ContainerConfig { password: PasswordSource::File, ..specification };
            self.replace_as(spec, specification, making).await?;
        }
        // The volume may have been created for another version.
        self.record_version(spec).await
    }

    /// The last image that ran on the volume, if it differs from the specified one.
    async fn last_image_of(&self, spec: &DesiredContainer, id: &str) -> Result<Option<String>> {
        let docker = self.docker()?;
        let (files, volume) = try_join(docker.read_files(id), docker.volume(&self.stack.instance, spec.role)).await?;
        let Volume::Ours { image: label, .. } = volume else { return Ok(None) };
        Ok(files.last_image(label).filter(|last| *last != spec.specification.image.to_string()))
    }

    /// Creates the container. With `adopt_stored_password`, a password in the volume is adopted, and an image that
    /// is too old for the volume is rejected before it starts.
    async fn create_as(&self, spec: &DesiredContainer, specification: ContainerConfig, making: Making) -> Result<()> {
        let docker = self.docker()?;
        let user = &self.stack.login.user;
        let creation = Creation {
            instance: &self.stack.instance,
            grafana_user: (user != Login::ADMIN && !self.stack.login.token).then_some(user),
            private: making.private,
            image: making.image.as_deref().or(spec.pinned_image.as_deref()),
        };
        let id = docker.create_container(creation, spec, &specification).await?;
        self.set_container(spec.role, Some(id.clone()));
        self.set_place(spec, Some(spec.specification.publish));
        if !making.adopt_stored_password || spec.role != Role::Grafana {
            return Ok(());
        }
        let (files, volume) = try_join(docker.read_files(&id), docker.volume(creation.instance, spec.role)).await?;
        let label = match volume {
            Volume::Ours { version, .. } if docker.has_database(&id).await? => version,
            _ => None,
        };
        // A private container is not started unless its image is the last one that ran.
        if !making.private
            && let Some(blocked) = older(spec, &spec.specification.image, &files, label)
        {
            docker.remove_container(&self.stack.instance, spec.role).await?;
            self.set_container(spec.role, None);
            return Err(Error::Blocked { resource: Resource::Server(spec.role), blocked });
        }
        if files.password.is_some() {
            let specification = ContainerConfig { password: PasswordSource::File, ..specification };
            self.replace_as(spec, specification, Making { adopt_stored_password: false, ..making }).await?;
        }
        Ok(())
    }

    /// Recreates a container that was never started.
    async fn replace_as(&self, spec: &DesiredContainer, specification: ContainerConfig, making: Making) -> Result<()> {
        self.docker()?.remove_container(&self.stack.instance, spec.role).await?;
        Box::pin(self.create_as(spec, specification, making)).await
    }
}

/// The configuration with a loopback port that the engine chooses.
fn private(spec: &DesiredContainer) -> ContainerConfig {
    let publish = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    ContainerConfig { publish, password: PasswordSource::Default, ..spec.specification.clone() }
}

/// Properties of a container beyond its specification.
#[derive(Clone, Default)]
struct Making {
    /// A password in the volume is adopted, and an image that is too old is rejected.
    adopt_stored_password: bool,
    /// Only this program can reach it.
    private: bool,
    /// The engine's id of an image to use instead of the specified one.
    image: Option<String>,
}
