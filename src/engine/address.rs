//! Checks whether the engine can publish an address, by publishing it on a container that is removed at once.
//!
//! Only the engine knows the addresses and ports of its host, which may be another machine or a virtual one.

use std::collections::HashMap;
use std::net::SocketAddr;

use bollard::models::{ContainerCreateBody, ContainerSummary, HostConfig, PortBinding};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::create::binding;
use super::errors::translate;
use super::listing::name_of;
use super::{Docker, ask_until_ended, labels};
use crate::error::{Error, Refusal, Result};
use crate::model::role::Role;
use crate::model::stack::DesiredContainer;

/// The value of the role label on such a container.
const PURPOSE: &str = "address-check";
/// The port in the container, on which no server listens.
const DISCARD: &str = "9/tcp";
const REMOVAL: &str = "remove a container that checked an address";

/// Whether a failed start says something about the address. The engine publishes it before it starts the program, and
/// another failure of this container need not affect the server.
const fn concerns_publishing(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::PrivilegedPort | Refusal::Firewall | Refusal::Cgroups | Refusal::Gone)
}

/// A container that checks an address. If the check is abandoned, the container is removed in the background, which
/// [`Docker::finish_changes`] waits for.
struct CheckingContainer {
    id: String,
    client: bollard::Docker,
    is_removed: bool,
    pending: TaskTrackerToken,
}

impl Drop for CheckingContainer {
    fn drop(&mut self) {
        if !self.is_removed && tokio::runtime::Handle::try_current().is_ok() {
            let (client, id) = (self.client.clone(), std::mem::take(&mut self.id));
            self.pending.task_tracker().spawn(remove_abandoned(client, id));
        }
    }
}

/// Removes such a container. If that fails, it is a leftover, which another run removes.
async fn remove_abandoned(client: bollard::Docker, id: String) {
    let remove = async || {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        client.remove_container(&id, Some(options)).await.map_err(|error| translate(REMOVAL, &error))
    };
    let _ = ask_until_ended(remove).await;
}

impl Docker {
    /// Tries to publish a server's address; with port 0, the engine chooses the port.
    ///
    /// # Errors
    /// [`Error::Publish`] if the address is taken or does not exist, [`Error::Raced`] if another run disturbed the check,
    /// [`Error::Docker`] if the engine cannot publish it for another reason, such as a privileged port.
    pub(crate) async fn check_address(
        &self,
        instance: &str,
        spec: &DesiredContainer,
        publish: SocketAddr,
    ) -> Result<()> {
        let doing = format!("check the address of {}", spec.role.title());
        let Some(network) = self.network(instance).await?.id().map(String::from) else {
            return Err(Error::Raced { doing, why: format!("network {instance} is gone") });
        };
        let options = CreateContainerOptionsBuilder::default().name(&name(instance, spec.role)).build();
        let binding = binding(publish, self.is_podman().await?);
        let body = address_check(instance, spec, binding, network);
        let pending = self.changes.token();
        let create = |client: bollard::Docker| async move {
            let id = client.create_container(Some(options), body).await?.id;
            Ok(CheckingContainer { id, client, is_removed: false, pending })
        };
        let mut check = self.change(&doing, create).await?;
        let result = match self.try_start(spec.role, &check.id).await {
            Ok(Some(refusal)) => {
                let holder = self.holder(instance, spec.role, publish, refusal).await;
                Err(Error::Publish { role: spec.role, address: spec.config.publish, holder, answers: None, free: None })
            }
            // Another run removed the container, or two networks have the name: the address is still unknown.
            Err(Error::Docker {
                doing,
                why,
                refusal: Refusal::NotFound | Refusal::Conflict | Refusal::BeingRemoved,
            }) => Err(Error::Raced { doing, why }),
            Err(Error::Docker { refusal, .. }) if !concerns_publishing(refusal) => Ok(()),
            result => result.map(drop),
        };
        self.remove_address_checks(std::slice::from_ref(&check.id)).await?;
        check.is_removed = true;
        result
    }

    /// Removes containers that checked an address.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn remove_address_checks(&self, ids: &[String]) -> Result<()> {
        for id in ids {
            self.remove(REMOVAL, id, true).await?;
        }
        Ok(())
    }
}

fn address_check(
    instance: &str,
    spec: &DesiredContainer,
    binding: PortBinding,
    network: String,
) -> ContainerCreateBody {
    let mut labels = labels::of_instance(instance);
    labels.insert(labels::ROLE.into(), PURPOSE.into());
    ContainerCreateBody {
        image: Some(spec.pinned_image.clone().unwrap_or_else(|| spec.config.image.to_string())),
        labels: Some(labels),
        exposed_ports: Some(vec![DISCARD.into()]),
        host_config: Some(HostConfig {
            port_bindings: Some(HashMap::from([(DISCARD.to_string(), Some(vec![binding]))])),
            network_mode: Some(network),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            readonly_rootfs: Some(spec.config.read_only),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// Whether a listed container checks an address, for a run or as a leftover.
pub(super) fn is_address_check(container: &ContainerSummary) -> bool {
    let labels = container.labels.as_ref();
    let Some(instance) = labels.and_then(|labels| labels.get(labels::INSTANCE)) else { return false };
    let has_purpose = labels.and_then(|labels| labels.get(labels::ROLE)).is_some_and(|purpose| purpose == PURPOSE);
    has_purpose && is_name_of_check(instance, &name_of(container))
}

/// Whether a container that checks an address of the instance has that name.
pub(super) fn is_name_of_check(instance: &str, container: &str) -> bool {
    Role::ALL.iter().any(|role| name(instance, *role) == container)
}

fn name(instance: &str, role: Role) -> String {
    format!("{}-{PURPOSE}", role.object_name(instance))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Notify;

    use super::*;
    use crate::engine::fake;
    use crate::samples;

    /// The removals after a check that is abandoned as soon as the engine receives this request.
    async fn removals_after(abandoned_at: &'static str) -> Vec<String> {
        let (received, removals) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
        let (is_received, seen) = (Arc::clone(&received), Arc::clone(&removals));
        let (_folder, docker) = fake::engine(move |request| {
            if request.contains(abandoned_at) {
                is_received.notify_one();
            }
            match request {
                request if request.starts_with("DELETE ") => seen.lock().unwrap().push(request.into()),
                request if request.contains("/containers/create") => {
                    return (201, r#"{"Id": "c", "Warnings": []}"#.into());
                }
                request if request.contains("/networks") => {
                    let network = r#"[{"Name": "x", "Id": "n", "Labels": {"clipper-metrics.instance": "x"}}]"#;
                    return (200, network.into());
                }
                _ => {}
            }
            (204, String::new())
        })
        .await;
        let stack = samples::stack();
        let spec = stack.container(Role::Grafana).unwrap();
        tokio::select! {
            biased;
            () = received.notified() => {}
            result = docker.check_address("x", spec, spec.config.publish) => result.unwrap(),
        }
        docker.finish_changes().await;
        let removals = removals.lock().unwrap();
        removals.clone()
    }

    #[tokio::test]
    async fn an_abandoned_check_leaves_no_container() {
        for request in ["/containers/create", "/start", "none of them"] {
            let removals = removals_after(request).await;
            assert!(matches!(removals.as_slice(), [one] if one.contains("/containers/c?")), "{request}: {removals:?}");
        }
    }
}
