//! The engine's state of an instance: its containers, volumes, images and network.

use bollard::models::{ContainerSummary, Volume as EngineVolume};
use futures_util::future::{join_all, join4, try_join3};

use super::inspection::seen_container;
use super::listing::{find_container, is_name_taken, port_holder, serves, volume_user, volume_users};
use super::ownership::ListedObjects;
use super::{Docker, labels, network, settings};
use crate::error::Result;
use crate::model::container_config::ContainerConfig;
use crate::model::observed::{
    AddressCheck, ContainerState, Image, ManagedServer, Network, OurContainer, PortHolder, RunState, StoredSettings,
    VolumeState,
};
use crate::model::role::{PerRole, Role};
use crate::model::stack::{DesiredContainer, Service, Stack};
use crate::model::text::printable;

/// The engine's state of one role.
#[derive(Debug)]
pub(crate) struct SeenRole {
    /// The specified image.
    pub(crate) image: Option<Image>,
    pub(crate) volume: VolumeState,
    pub(crate) container: ContainerState,
    /// The other holder of the specified port.
    pub(crate) port_holder: Option<PortHolder>,
    /// Another running container that mounts the volume at the server's data path.
    pub(crate) volume_user: Option<String>,
    /// Containers of other owners that mount the volume.
    pub(crate) volume_users: Vec<String>,
    /// The managed container that an external server's URL leads to.
    pub(crate) managed_behind: Option<ManagedServer>,
}

/// The engine's state of an instance.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) network: Network,
    /// Names of running containers of other owners on that network.
    pub(crate) network_users: Vec<String>,
    /// The remembered settings.
    pub(crate) settings: StoredSettings,
    pub(crate) roles: PerRole<SeenRole>,
    /// Other instances.
    pub(crate) others: Vec<String>,
    /// Names of containers that carry the instance's labels but do not belong to it.
    pub(crate) lookalikes: Vec<String>,
    /// Containers that check an address for this run or another one.
    pub(crate) address_checks: Vec<AddressCheck>,
}

impl Docker {
    /// The engine's state of the stack.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn observe(&self, stack: &Stack) -> Result<Seen> {
        let instance = &stack.instance;
        let (listed, network, volumes) =
            try_join3(self.listed(instance), self.network(instance), self.volumes_of(instance)).await?;
        let roles = Role::ALL.map(|role| self.role(stack, role, &listed, &volumes, &network));
        let mut roles = join_all(roles).await;
        Ok(Seen {
            network_users: network::users(&listed.containers, instance, &network),
            network,
            settings: settings::among(&volumes, instance),
            roles: PerRole::try_from_fn(|_| roles.remove(0))?,
            others: others(&listed.containers, instance),
            lookalikes: listed.lookalikes,
            address_checks: listed.address_checks,
        })
    }

    async fn role(
        &self,
        stack: &Stack,
        role: Role,
        listed: &ListedObjects,
        volumes: &[EngineVolume],
        network: &Network,
    ) -> Result<SeenRole> {
        let all = listed.containers.as_slice();
        let spec = stack.container(role);
        let (image, volume, container, managed_behind) = join4(
            async {
                match spec {
                    Some(spec) => self.image(spec).await,
                    None => Ok(None),
                }
            },
            self.volume_among(volumes, &stack.instance, role, spec.is_some()),
            self.container(&stack.instance, role, listed, network),
            async {
                match stack.service(role) {
                    Service::Container(_) => None,
                    Service::External { url } => self.managed_behind(url, &stack.instance, all).await,
                }
            },
        )
        .await;
        let port_holder = spec.and_then(|spec| port_holder(all, &stack.instance, spec.role, spec.config.publish));
        let volume_user = spec.and_then(|spec| volume_user(all, &stack.instance, spec.role, &spec.config.volume));
        let volume_users = volume_users(all, &stack.instance, &role.object_name(&stack.instance));
        let (image, volume, container) = (image?, volume?, container?);
        Ok(SeenRole { image, volume, container, port_holder, volume_user, volume_users, managed_behind })
    }

    /// The specified image, if the engine has it.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn image(&self, spec: &DesiredContainer) -> Result<Option<Image>> {
        match &spec.pinned_image {
            Some(id) => self.image_called(id).await,
            None => self.image_called(&spec.config.image.to_string()).await,
        }
    }

    /// The image with that name, if the engine has it.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn image_called(&self, name: &str) -> Result<Option<Image>> {
        let found = self.find(&format!("inspect image {name}"), self.client.inspect_image(name)).await?;
        Ok(found.map(|image| Image {
            id: image.id.unwrap_or_default(),
            user: image.config.and_then(|config| config.user).unwrap_or_default(),
        }))
    }

    /// The role's container, identified by its labels and its volume, whatever its name.
    async fn container(
        &self,
        instance: &str,
        role: Role,
        listed: &ListedObjects,
        network: &Network,
    ) -> Result<ContainerState> {
        let all = listed.containers.as_slice();
        let id = match find_container(all, instance, role) {
            Ok(id) => id,
            Err(state) => return Ok(state),
        };
        let Some(found) = listed.inspected.get(&id).cloned() else { return Ok(ContainerState::Absent) };
        let mut state = seen_container(instance, role, network, found);
        if let ContainerState::Ours(actual) = &mut state {
            actual.name_taken = is_name_taken(all, instance, role);
            if role == Role::Grafana && actual.run == RunState::Created {
                actual.has_data = Some(self.has_database(&id).await?);
            }
        }
        Ok(state)
    }

    /// A managed container by its id, without its network.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(super) async fn ours(&self, role: Role, id: &str) -> Result<Option<OurContainer>> {
        let doing = format!("inspect the container of {}", role.title());
        let found = self.find_by_id(&doing, id).await?;
        Ok(found.and_then(|found| seen_container("", role, &Network::Free, found).ours().cloned()))
    }

    /// The role's container, if exactly one exists, without its network.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn only_container(&self, instance: &str, role: Role) -> Result<Option<OurContainer>> {
        let mut listed = self.listed(instance).await?;
        let Ok(id) = find_container(&listed.containers, instance, role) else { return Ok(None) };
        let found = listed.inspected.remove(&id);
        Ok(found.and_then(|found| seen_container(instance, role, &Network::Free, found).ours().cloned()))
    }

    /// The configurations that the instance's containers were created from.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn configs(&self, instance: &str) -> Result<Vec<(Role, Option<ContainerConfig>)>> {
        let containers = self.containers(instance).await?;
        let mut found = Vec::new();
        for role in Role::ALL {
            let own = containers.iter().filter(|container| serves(container, instance, role));
            found.extend(own.map(|container| (role, labels::config(container.labels.as_ref()))));
        }
        Ok(found)
    }
}

fn others(all: &[ContainerSummary], instance: &str) -> Vec<String> {
    let names: std::collections::BTreeSet<String> = all
        .iter()
        .filter_map(|container| container.labels.as_ref()?.get(labels::INSTANCE))
        .filter(|name| *name != instance)
        .map(|name| printable(name))
        .collect();
    names.into_iter().collect()
}
