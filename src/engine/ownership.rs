//! Decides which containers belong to an instance.
//!
//! Labels alone prove nothing: a container inherits the labels of its image, which may have been
//! committed from a container of an instance.

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, ContainerSummary, MountPoint};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, try_join_all};

use super::address::is_address_check;
use super::listing::name_of;
use super::{Docker, labels, podman};
use crate::error::Result;
use crate::model::observed::AddressCheck;
use crate::model::role::Role;
use crate::model::text::printable;

/// All containers of the engine, running or not, except those that only check an address.
pub(super) struct ListedObjects {
    /// Only containers that belong to an instance keep their labels here, so that no decision
    /// relies on a false claim.
    pub(super) containers: Vec<ContainerSummary>,
    /// Inspections of the instance's containers, by id.
    pub(super) inspected: HashMap<String, ContainerInspectResponse>,
    /// Names of containers that carry the instance's labels but do not belong to it.
    pub(super) lookalikes: Vec<String>,
    /// The instance's containers that only check an address, which are not among the others.
    pub(super) address_checks: Vec<AddressCheck>,
}

/// The content of a container's labels.
struct Claim {
    instance: String,
    role: Role,
}

impl Docker {
    /// All containers of the engine, with the claims of their labels verified. Boxed, because most
    /// requests begin with it, and nested futures of its size would fill the stack.
    pub(super) fn listed<'a>(&'a self, instance: &'a str) -> LocalBoxFuture<'a, Result<ListedObjects>> {
        self.check_claims(instance).boxed_local()
    }

    /// Inspects only containers of this instance: an inspection waits while another process copies
    /// from a container, and other instances must not be delayed by that.
    async fn check_claims(&self, instance: &str) -> Result<ListedObjects> {
        let (checks, containers): (Vec<_>, Vec<_>) =
            self.every_container().await?.into_iter().partition(is_address_check);
        let inspections = containers.iter().map(async |container| match claim(container) {
            Some(claim) if claim.instance == instance => {
                let id = container.id.as_deref().unwrap_or_default();
                let doing = format!("inspect the container of {}", claim.role.title());
                Ok(Some((claim, self.find_by_id(&doing, id).await?)))
            }
            _ => Ok(None),
        });
        let inspections = try_join_all(inspections).await?;
        let own_checks = checks.into_iter().filter(|check| labels::belongs(check.labels.as_ref(), instance));
        let mut listed = ListedObjects {
            containers: Vec::new(),
            inspected: HashMap::new(),
            lookalikes: Vec::new(),
            address_checks: own_checks
                .filter_map(|check| Some(AddressCheck { id: check.id?, created: check.created.unwrap_or_default() }))
                .collect(),
        };
        for (mut container, inspection) in containers.into_iter().zip(inspections) {
            match inspection {
                // It is gone.
                Some((_, None)) => continue,
                Some((claim, Some(found))) if is_true(&claim, &found) => {
                    listed.inspected.insert(container.id.clone().unwrap_or_default(), found);
                }
                Some(_) => {
                    container.labels = None;
                    listed.lookalikes.push(printable(&name_of(&container)));
                }
                None => drop_false_claim(&mut container),
            }
            listed.containers.push(container);
        }
        listed.lookalikes.sort();
        Ok(listed)
    }

    /// Only the containers of [`Self::listed`].
    pub(super) async fn containers(&self, instance: &str) -> Result<Vec<ContainerSummary>> {
        Ok(self.listed(instance).await?.containers)
    }

    /// All containers of the engine, with the claims of their labels verified as far as the list allows.
    pub(super) async fn containers_by_list(&self) -> Result<Vec<ContainerSummary>> {
        let mut containers = self.every_container().await?;
        containers.retain(|container| !is_address_check(container));
        containers.iter_mut().for_each(drop_false_claim);
        Ok(containers)
    }

    pub(super) async fn every_container(&self) -> Result<Vec<ContainerSummary>> {
        let list = async || {
            let all = ListContainersOptionsBuilder::default().all(true).build();
            self.call("list containers", podman::readable(self.client.list_containers(Some(all)))).await
        };
        super::ask_until_ended(list).await
    }
}

fn claim(container: &ContainerSummary) -> Option<Claim> {
    let instance = container.labels.as_ref()?.get(labels::INSTANCE)?;
    let name = name_of(container);
    let role = Role::ALL.into_iter().find(|role| labels::serves(container.labels.as_ref(), instance, *role, &name))?;
    Some(Claim { instance: instance.clone(), role })
}

/// Removes the labels of a container if the list shows that it does not belong to the claimed instance.
fn drop_false_claim(container: &mut ContainerSummary) {
    // Podman's list may lack mounts; then the labels count.
    let may_be_true = |claim: Claim| container.mounts.as_ref().is_none_or(|mounts| has_volume(&claim, mounts));
    if !claim(container).is_some_and(may_be_true) {
        container.labels = None;
    }
}

/// Whether the container mounts the instance's volume at the server's data path and publishes the
/// server's port as its label says. A container from a committed image that inspects the data may
/// mount the volume, too.
fn is_true(claim: &Claim, found: &ContainerInspectResponse) -> bool {
    let made_from = labels::config(found.config.as_ref().and_then(|config| config.labels.as_ref()));
    has_volume(claim, found.mounts.as_deref().unwrap_or_default())
        && made_from.is_none_or(|config| publishes(found, claim.role, config.publish.port()))
}

fn has_volume(Claim { instance, role }: &Claim, mounts: &[MountPoint]) -> bool {
    let volume = role.object_name(instance);
    mounts.iter().any(|mount| {
        mount.name.as_deref() == Some(&volume)
            && mount.destination.as_deref() == Some(role.data_path())
            && mount.rw != Some(false)
    })
}

/// If the configuration says port 0, the engine chose the port.
fn publishes(found: &ContainerInspectResponse, role: Role, port: u16) -> bool {
    let bindings = found.host_config.as_ref().and_then(|host| host.port_bindings.as_ref());
    let bindings = bindings.and_then(|bindings| bindings.get(&format!("{}/tcp", role.port())));
    bindings
        .into_iter()
        .flatten()
        .flatten()
        .any(|binding| port == 0 || binding.host_port.as_deref().is_some_and(|text| text.parse() == Ok(port)))
}

#[cfg(test)]
mod tests {
    use bollard::models::{HostConfig, PortBinding};

    use super::*;
    use crate::model::container_config::ContainerConfig;

    fn found(volume: &str, at: &str, rw: bool, publish: u16, published: Option<&str>) -> ContainerInspectResponse {
        let config = ContainerConfig {
            publish: ([127, 0, 0, 1], publish).into(),
            ..crate::samples::container_config(Role::Influxdb)
        };
        let mount = MountPoint {
            name: Some(volume.into()),
            destination: Some(at.into()),
            rw: Some(rw),
            ..MountPoint::default()
        };
        let bindings = published.map(|port| {
            let binding = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.into()) };
            HashMap::from([("8086/tcp".to_string(), Some(vec![binding]))])
        });
        ContainerInspectResponse {
            config: Some(bollard::models::ContainerConfig {
                labels: Some(labels::of_container("x", Role::Influxdb, &config)),
                ..bollard::models::ContainerConfig::default()
            }),
            host_config: Some(HostConfig { port_bindings: bindings, ..HostConfig::default() }),
            mounts: Some(vec![mount]),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn only_a_container_that_serves_from_the_volume_belongs_to_the_instance() {
        let belongs =
            |found: &ContainerInspectResponse| is_true(&Claim { instance: "x".into(), role: Role::Influxdb }, found);
        let data = Role::Influxdb.data_path();
        assert!(belongs(&found("x-influxdb", data, true, 8086, Some("8086"))));
        // The engine chose the port; Podman reports it, Docker does not.
        assert!(belongs(&found("x-influxdb", data, true, 0, Some(""))));
        assert!(belongs(&found("x-influxdb", data, true, 0, Some("40123"))));
        assert!(!belongs(&found("other", data, true, 8086, Some("8086"))));
        assert!(!belongs(&found("x-influxdb", "/mnt", true, 8086, Some("8086"))));
        assert!(!belongs(&found("x-influxdb", data, false, 8086, Some("8086"))));
        assert!(!belongs(&found("x-influxdb", data, true, 8086, None)), "a shell beside the data");
        assert!(!belongs(&found("x-influxdb", data, true, 8086, Some("9086"))), "a server of its own");
        let mut unreadable = found("x-influxdb", data, true, 8086, None);
        let labels = unreadable.config.as_mut().and_then(|config| config.labels.as_mut()).unwrap();
        labels.insert("clipper-metrics.specification".into(), "{{{".into());
        assert!(belongs(&unreadable), "another version may have written the label");
    }

    #[test]
    fn the_list_alone_disproves_a_claim_without_the_volume() {
        let listed = |mounts: Option<Vec<MountPoint>>| {
            let made = found("x-influxdb", Role::Influxdb.data_path(), true, 8086, None);
            let labels = made.config.and_then(|config| config.labels);
            let mut container = ContainerSummary { labels, mounts, ..ContainerSummary::default() };
            drop_false_claim(&mut container);
            container.labels.is_some()
        };
        let data = Role::Influxdb.data_path();
        let mounts = |volume, at, rw| found(volume, at, rw, 8086, None).mounts;
        assert!(listed(mounts("x-influxdb", data, true)));
        assert!(listed(None), "a list without mounts");
        assert!(!listed(Some(vec![])) && !listed(mounts("other", data, true)));
        assert!(!listed(mounts("x-influxdb", "/mnt", true)) && !listed(mounts("x-influxdb", data, false)));
    }
}
