//! Determines whether the address of an external server leads to a managed container.
//!
//! The decision uses the addresses that the URL resolves to and the ports that the engine
//! publishes, never the URL's text.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use bollard::models::{ContainerSummary, PortSummaryTypeEnum};

use super::listing::{is_up, name_of};
use super::{Docker, labels};
use crate::error::Result;
use crate::model::address::{ServerUrl, reachable};
use crate::model::observed::ManagedServer;
use crate::model::role::Role;
use crate::model::stack::{EngineLocation, Service, Stack};
use crate::model::text::printable;

/// The time limit for resolving a name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

impl Docker {
    /// The first external server of a stack that is a running managed container.
    ///
    /// # Errors
    /// [`crate::error::Error::Docker`] if the engine does not answer.
    pub(crate) async fn managed_at(&self, stack: &Stack) -> Result<Option<(Role, ManagedServer)>> {
        let all = self.containers(&stack.instance).await?;
        for role in Role::ALL {
            let Service::External { url } = stack.service(role) else { continue };
            let found = self.managed_behind(url, &stack.instance, &all).await.filter(|managed| managed.runs);
            if let Some(managed) = found {
                return Ok(Some((role, managed)));
            }
        }
        Ok(None)
    }

    /// The managed container that a URL leads to, preferably the instance's own.
    pub(super) async fn managed_behind(
        &self,
        url: &ServerUrl,
        instance: &str,
        all: &[ContainerSummary],
    ) -> Option<ManagedServer> {
        let addresses = resolve(&url.host, url.port).await;
        let host = match self.location() {
            EngineLocation::Here => None,
            EngineLocation::Elsewhere(host) | EngineLocation::OverSsh { host, .. } => {
                Some(resolve(&host, url.port).await)
            }
        };
        find(all, instance, &addresses, url.port, &Machine::new(host, all))
    }
}

/// The addresses of a host, as seen from this machine; empty if it does not resolve.
async fn resolve(host: &str, port: u16) -> Vec<IpAddr> {
    let lookup = tokio::net::lookup_host((host, port));
    let Ok(Ok(found)) = tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await else { return Vec::new() };
    found.map(|address| reachable(address.ip().to_canonical())).collect()
}

/// The addresses of the engine's host.
struct Machine {
    /// Its addresses, if it is another machine.
    elsewhere: Option<Vec<IpAddr>>,
    /// Its addresses in container networks.
    gateways: Vec<IpAddr>,
}

impl Machine {
    fn new(elsewhere: Option<Vec<IpAddr>>, all: &[ContainerSummary]) -> Self {
        let gateways = endpoints(all).flat_map(|endpoint| [&endpoint.gateway, &endpoint.ipv6_gateway]);
        Self { elsewhere, gateways: gateways.filter_map(|ip| ip.as_deref()?.parse().ok()).collect() }
    }

    /// Whether a port published at `published` answers at `ip`, as seen from this machine.
    fn publishes(&self, published: IpAddr, ip: IpAddr) -> bool {
        if !published.is_unspecified() {
            // The loopback of another machine cannot be reached at any address.
            return published.to_canonical() == ip && (self.elsewhere.is_none() || !ip.is_loopback());
        }
        // If a port is published for IPv4 only, another server may use the same IPv6 port.
        if published.is_ipv4() && ip.is_ipv6() {
            return false;
        }
        match &self.elsewhere {
            None => self.gateways.contains(&ip) || is_own(ip),
            Some(addresses) => addresses.contains(&ip),
        }
    }
}

/// Whether this machine has the address, so that a socket can be bound to it. Nothing is sent.
fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

fn endpoints(all: &[ContainerSummary]) -> impl Iterator<Item = &bollard::models::EndpointSettings> {
    all.iter()
        .flat_map(|one| one.network_settings.iter())
        .flat_map(|settings| settings.networks.iter().flatten())
        .map(|(_, endpoint)| endpoint)
}

fn find(
    all: &[ContainerSummary],
    instance: &str,
    addresses: &[IpAddr],
    port: u16,
    machine: &Machine,
) -> Option<ManagedServer> {
    let leads_to = |container: &ContainerSummary, role: Role| {
        let at = published(container);
        let is_published =
            at.iter().any(|at| at.port() == port && addresses.iter().any(|ip| machine.publishes(at.ip(), *ip)));
        let own = endpoints(std::slice::from_ref(container))
            .flat_map(|endpoint| [&endpoint.ip_address, &endpoint.global_ipv6_address]);
        let mut own = own.filter_map(|ip| ip.as_deref()?.parse::<IpAddr>().ok());
        let is_inside = machine.elsewhere.is_none() && port == role.port() && own.any(|ip| addresses.contains(&ip));
        is_published || is_inside
    };
    let found = all.iter().filter_map(|container| {
        let (owner, role) = managed(container)?;
        leads_to(container, role).then(|| ManagedServer {
            container: printable(&name_of(container)),
            is_own: owner == instance,
            instance: printable(owner),
            runs: is_up(container),
        })
    });
    // A running container holds the address.
    found.max_by_key(|server| (server.runs, server.is_own))
}

/// The instance and role of a managed container.
fn managed(container: &ContainerSummary) -> Option<(&str, Role)> {
    let labels = container.labels.as_ref();
    let instance = labels?.get(labels::INSTANCE)?;
    let role = Role::ALL.into_iter().find(|role| labels::serves(labels, instance, *role, &name_of(container)))?;
    Some((instance, role))
}

/// The addresses at which a container is published, or would be if it ran.
fn published(container: &ContainerSummary) -> Vec<SocketAddr> {
    let is_tcp = |typ: Option<PortSummaryTypeEnum>| {
        matches!(typ, None | Some(PortSummaryTypeEnum::TCP | PortSummaryTypeEnum::EMPTY))
    };
    let ports = container.ports.iter().flatten().filter(|port| is_tcp(port.typ)).filter_map(|port| {
        let ip = port.ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
        Some(SocketAddr::new(ip.parse().ok()?, port.public_port?))
    });
    let ports: Vec<SocketAddr> = ports.collect();
    if !ports.is_empty() {
        return ports;
    }
    labels::config(container.labels.as_ref()).map(|made| made.publish).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container_config::ContainerConfig;
    use bollard::models::{
        ContainerSummaryNetworkSettings, ContainerSummaryStateEnum as State, EndpointSettings, PortSummary,
    };

    /// Instance x's InfluxDB, published at an address, or stopped and created for it.
    fn influxdb(instance: &str, at: &str, runs: bool) -> ContainerSummary {
        let at: SocketAddr = at.parse().unwrap();
        let made = ContainerConfig {
            publish: at,
            network: instance.into(),
            volume: Role::Influxdb.object_name(instance),
            ..crate::samples::container_config(Role::Influxdb)
        };
        let port = PortSummary {
            ip: Some(at.ip().to_string()),
            private_port: 8086,
            public_port: Some(at.port()),
            typ: Some(PortSummaryTypeEnum::TCP),
        };
        let endpoint = EndpointSettings {
            gateway: Some("172.30.0.1".into()),
            ip_address: Some("172.30.0.2".into()),
            ..EndpointSettings::default()
        };
        ContainerSummary {
            names: Some(vec![format!("/{instance}-influxdb")]),
            labels: Some(labels::of_container(instance, Role::Influxdb, &made)),
            ports: Some(if runs { vec![port] } else { vec![] }),
            state: Some(if runs { State::RUNNING } else { State::EXITED }),
            network_settings: Some(ContainerSummaryNetworkSettings {
                networks: Some([(instance.to_string(), endpoint)].into()),
            }),
            ..ContainerSummary::default()
        }
    }

    async fn behind(all: &[ContainerSummary], url: (&str, u16), elsewhere: Option<&[&str]>) -> Option<ManagedServer> {
        let elsewhere = elsewhere.map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect());
        find(all, "x", &resolve(url.0, url.1).await, url.1, &Machine::new(elsewhere, all))
    }

    #[tokio::test]
    async fn exactly_the_addresses_that_lead_to_a_managed_container_are_found() {
        for (published, host, expected) in [
            ("127.0.0.1:9086", "127.0.0.1", true),
            ("127.0.0.1:9086", "localhost", true),
            ("127.0.0.1:9086", "0.0.0.0", true),
            ("127.0.0.1:9086", "::ffff:127.0.0.1", true),
            ("[::1]:9086", "::1", true),
            ("0.0.0.0:9086", "127.0.0.1", true),
            ("0.0.0.0:9086", "127.0.0.9", true),
            ("0.0.0.0:9086", "::1", false),
            ("[::]:9086", "::1", true),
            ("0.0.0.0:9086", "172.30.0.1", true),
            ("192.0.2.7:9086", "192.0.2.7", true),
            // The same port of another address belongs to another server.
            ("127.0.0.1:9086", "127.0.0.2", false),
            ("127.0.0.1:9086", "192.0.2.7", false),
            ("0.0.0.0:9086", "192.0.2.7", false),
            ("192.0.2.7:9086", "127.0.0.1", false),
            ("127.0.0.1:9087", "127.0.0.1", false),
        ] {
            let found = behind(&[influxdb("x", published, true)], (host, 9086), None).await;
            assert_eq!(found.is_some(), expected, "{published} {host}");
        }
        let inside = async |port| behind(&[influxdb("x", "127.0.0.1:9086", true)], ("172.30.0.2", port), None).await;
        assert!(inside(8086).await.is_some() && inside(9086).await.is_none(), "its address in its network");
    }

    #[tokio::test]
    async fn loopback_and_networks_of_another_machine_are_not_reachable() {
        let on_loopback = [influxdb("x", "127.0.0.1:8086", true)];
        for host in ["127.0.0.1", "172.30.0.2"] {
            assert_eq!(behind(&on_loopback, (host, 8086), Some(&["192.0.2.7"])).await, None, "{host}");
        }
        let open = [influxdb("x", "0.0.0.0:8086", true)];
        assert!(behind(&open, ("192.0.2.7", 8086), Some(&["192.0.2.7"])).await.is_some());
        assert!(behind(&open, ("127.0.0.1", 8086), Some(&["192.0.2.7"])).await.is_none());
    }

    #[tokio::test]
    async fn the_instance_and_the_run_state_are_reported_and_inherited_labels_are_ignored() {
        let at = ("127.0.0.1", 9086);
        let found = behind(&[influxdb("x", "127.0.0.1:9086", false)], at, None).await.unwrap();
        assert_eq!((found.container.as_str(), found.is_own, found.runs), ("x-influxdb", true, false));
        let both = [influxdb("x", "127.0.0.1:9086", false), influxdb("y", "127.0.0.1:9086", true)];
        let found = behind(&both, at, None).await.unwrap();
        assert_eq!((found.instance.as_str(), found.is_own, found.runs), ("y", false, true));
        // The list omits labels that a container inherited from its image.
        let inherited = ContainerSummary { labels: None, ..influxdb("x", "127.0.0.1:9086", true) };
        assert_eq!(behind(&[inherited], at, None).await, None);
        assert_eq!(behind(&both, ("no.such.host.invalid", 9086), None).await, None);
    }
}
