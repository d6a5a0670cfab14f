//! The instance's network: found by name and label, and removed only while no other container uses it.
//!
//! Names of networks are not unique, so all requests use ids.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use bollard::models::{ContainerSummary, EndpointSettings, NetworkCreateRequest, NetworkDisconnectRequest, SystemInfo};
use bollard::query_parameters::ListNetworksOptionsBuilder;

use super::address::is_name_of_check;
use super::endpoint::Endpoint;
use super::listing::{is_up, name_of};
use super::{Docker, labels};
use crate::error::{Error, ForeignObject, Refusal, Result};
use crate::model::event::Event;
use crate::model::observed::{EngineKind, Network};
use crate::model::stack::{EngineLocation, MadeFor};
use crate::model::text::{attached, printable};
use crate::model::version::Version;

/// The API of Docker 20.10, the first that supports `host-gateway`.
const HOST_GATEWAY_API: Version = Version(1, 41);
/// The first Podman that adds `host.docker.internal` for its host to containers (containers/common#1592).
const PODMAN_NAMES_ITS_MACHINE: Version = Version(4, 7);
/// The names of Rancher Desktop's virtual machine and of its WSL distribution.
const RANCHER_DESKTOP_HOSTS: [&str; 2] = ["lima-rancher-desktop", "rancher-desktop"];

impl Docker {
    /// The instance's network.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn network(&self, instance: &str) -> Result<Network> {
        let found = self.networks(instance).await?;
        let mut ours: Vec<_> =
            found.iter().filter(|network| labels::belongs(network.labels.as_ref(), instance)).collect();
        ours.sort_by_key(|network| (network.created.clone(), network.id.clone()));
        Ok(match (ours.is_empty(), found.is_empty()) {
            (false, _) => Network::Ours(ours.into_iter().filter_map(|network| network.id.clone()).collect()),
            (true, false) => Network::Foreign,
            (true, true) => Network::Free,
        })
    }

    /// The networks with exactly that name: the engine's filter also matches parts of names, and
    /// names are not unique.
    async fn networks(&self, name: &str) -> Result<Vec<bollard::models::Network>> {
        let filter = HashMap::from([("name".to_string(), vec![name.to_string()])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filter).build();
        let mut found = self.call("list networks", self.client.list_networks(Some(options))).await?;
        found.retain(|network| network.name.as_deref() == Some(name));
        Ok(found)
    }

    /// The address at which the instance's containers reach the engine's host, as for `--add-host`;
    /// `None` if the engine adds the name itself or no address is known.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn host_address(&self, instance: &str) -> Result<Option<String>> {
        let engine = self.check().await?;
        if engine.kind == EngineKind::Podman && Version::parse(&engine.version) >= Some(PODMAN_NAMES_ITS_MACHINE) {
            return Ok(None);
        }
        let info = self.call("request the engine's properties", self.client.info()).await?;
        if is_rancher_desktop(info.name.as_deref(), &self.endpoint) {
            return Ok(None);
        }
        if self.is_rootless(info).await? {
            // In this case `host-gateway`, the gateway of its networks, does not lead to the host.
            // The addresses of another machine, or of a virtual machine on systems other than
            // Linux, are unknown here.
            let is_here = cfg!(target_os = "linux") && self.location() == EngineLocation::Here;
            let address = if is_here { address_of_this_machine() } else { None };
            if address.is_none() {
                self.listener.on(Event::Note("no address is known at which containers can reach the engine's host"));
            }
            return Ok(address.map(|ip| ip.to_string()));
        }
        if engine.kind != EngineKind::Podman && Version::parse(&engine.api_version) >= Some(HOST_GATEWAY_API) {
            return Ok(Some("host-gateway".into()));
        }
        let networks = self.networks(instance).await?;
        let ours = networks.into_iter().find(|network| labels::belongs(network.labels.as_ref(), instance));
        let configs = ours.and_then(|network| network.ipam?.config);
        Ok(configs.into_iter().flatten().find_map(|config| config.gateway))
    }

    /// What identifies the engine's host, also over ssh, and its kind: Docker's number for the engine, which a new host
    /// name does not change. Podman makes a new number for each request, so its host's name is used, unless every machine
    /// has that. `None` also if a proxy denies the request, because only the comparison of machines needs it.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn identity(&self) -> Result<Option<(&'static str, String)>> {
        let is_podman = self.is_podman().await?;
        let info = match self.call("request the engine's properties", self.client.info()).await {
            Err(Error::Docker { refusal: Refusal::Denied, why, .. }) => {
                let note = format!(
                    "the engine's machine is unknown, so its loopback cannot be distinguished from another machine's: a \
                     proxy or plugin denies the engine's properties ({why})"
                );
                self.listener.on(Event::Note(&note));
                return Ok(None);
            }
            result => result?,
        };
        Ok(identity(info, is_podman))
    }

    /// Podman 4.3 does not report rootless mode as Docker does, so its folder and socket are checked as well.
    async fn is_rootless(&self, info: SystemInfo) -> Result<bool> {
        let says_so = info.security_options.iter().flatten().any(|option| option.contains("rootless"));
        let is_in_a_home = info.docker_root_dir.is_some_and(|folder| folder.contains("/.local/share/"));
        let looks_so = is_in_a_home || self.endpoint.host.contains("/run/user/");
        Ok(says_so || (looks_so && self.is_podman().await?))
    }

    /// Creates the instance's network. Before its API 1.44, Docker allows a second one with the same name: two runs that
    /// create one at the same time see both in their next observation, and keep the same one.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error, which is a conflict if it refuses a second one.
    pub(crate) async fn create_network(&self, instance: &str) -> Result<()> {
        let request = NetworkCreateRequest {
            name: instance.into(),
            driver: Some("bridge".into()),
            labels: Some(labels::of_instance(instance)),
            ..NetworkCreateRequest::default()
        };
        let doing = format!("create network {instance}");
        self.change(&doing, |client| async move { client.create_network(request).await }).await.map(drop)
    }

    /// Removes the instance's networks. With `keep_first`, the current one is kept, and containers,
    /// which cannot work on the others, are disconnected from them.
    ///
    /// # Errors
    /// [`Error::Raced`] if another owner's container was attached meanwhile, [`Error::Foreign`] if
    /// one is attached to a network to be removed, [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn remove_networks(&self, instance: &str, keep_first: bool) -> Result<()> {
        let Network::Ours(ids) = self.network(instance).await? else { return Ok(()) };
        for id in ids.iter().skip(usize::from(keep_first)) {
            let doing = format!("remove network {instance}");
            // Podman removes a network by id even if containers are attached to it.
            if self.is_podman().await? {
                self.expect_unused(instance, id, keep_first).await?;
            }
            match self.find(&doing, self.client.remove_network(id)).await {
                Err(Error::Docker { refusal: Refusal::Conflict, .. }) if keep_first => {
                    self.expect_unused(instance, id, keep_first).await?;
                    self.unplug(id).await?;
                    self.find(&doing, self.client.remove_network(id)).await?;
                }
                Err(error @ Error::Docker { refusal: Refusal::Conflict, .. }) => {
                    self.expect_unused(instance, id, keep_first).await?;
                    return Err(error);
                }
                result => drop(result?),
            }
        }
        Ok(())
    }

    /// Fails if containers of other owners are attached to the instance's network.
    async fn expect_unused(&self, instance: &str, network: &str, keep_first: bool) -> Result<()> {
        let found = self.find("inspect the network", self.client.inspect_network(network, None)).await?;
        let containers = found.and_then(|network| network.containers).unwrap_or_default();
        let all = self.containers(instance).await?;
        let ours = |id: &str| {
            all.iter().any(|one| one.id.as_deref() == Some(id) && labels::belongs(one.labels.as_ref(), instance))
        };
        let mut names: Vec<String> = containers
            .into_iter()
            .filter(|(id, _)| !ours(id))
            .map(|(id, endpoint)| printable(&endpoint.name.unwrap_or(id)))
            .collect();
        names.sort();
        let Some(first) = names.first() else { return Ok(()) };
        let attached = attached(&names);
        if !keep_first || names.iter().all(|name| is_name_of_check(instance, name)) {
            return Err(Error::Raced { doing: format!("remove network {instance}"), why: attached });
        }
        Err(Error::Foreign {
            why: format!("cannot remove a second network {instance}: {attached}"),
            object: ForeignObject::Attached { network: network.into(), container: first.clone() },
        })
    }

    async fn unplug(&self, network: &str) -> Result<()> {
        let doing = "disconnect containers from a duplicate network";
        let Some(found) = self.find(doing, self.client.inspect_network(network, None)).await? else { return Ok(()) };
        for container in found.containers.into_iter().flatten().map(|(id, _)| id) {
            let request = NetworkDisconnectRequest { container, force: Some(true) };
            self.find(doing, self.client.disconnect_network(network, request)).await?;
        }
        Ok(())
    }
}

/// Whether the engine is Rancher Desktop's, in which `host-gateway` hides the host's own name and leads to its virtual
/// machine (rancher-desktop#7611). `name` is its host's name.
fn is_rancher_desktop(name: Option<&str>, endpoint: &Endpoint) -> bool {
    name.is_some_and(|name| RANCHER_DESKTOP_HOSTS.contains(&name))
        || endpoint.own_sockets().any(|socket| socket.components().any(|part| part.as_os_str() == ".rd"))
}

/// Whether this process sees the bridge of one of these networks, so that the engine publishes on
/// this process's addresses. The engine derives a bridge's name from the network's random id.
#[must_use]
pub(crate) fn has_bridge_of(network: &Network) -> bool {
    let Network::Ours(ids) = network else { return false };
    // Unlike /sys, this file always shows the interfaces of the reading process.
    let interfaces = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    ids.iter().any(|id| is_bridge_among(&interfaces, id))
}

fn is_bridge_among(interfaces: &str, id: &str) -> bool {
    let Some(short) = id.get(..12).filter(|short| short.chars().all(|c| c.is_ascii_hexdigit())) else { return false };
    interfaces.lines().filter_map(|line| line.split_once(':')).any(|(name, _)| name.trim() == format!("br-{short}"))
}

/// The address from which this machine reaches other hosts. Nothing is sent: connecting a UDP
/// socket only selects the route.
#[must_use]
pub(crate) fn address_of_this_machine() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Any address behind the default route works; this one is reserved for documentation (RFC 5737).
    socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
}

/// Whether this machine has an address, so that a socket can be bound to it.
#[must_use]
pub(crate) fn is_of_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Names of running containers of other owners on the instance's network.
pub(super) fn users(all: &[ContainerSummary], instance: &str, network: &Network) -> Vec<String> {
    let Network::Ours(ids) = network else { return Vec::new() };
    let is_attached = |name: &String, endpoint: &EndpointSettings| match endpoint.network_id.as_deref() {
        // Podman shows names instead of ids.
        None | Some("") => name == instance,
        Some(id) => id == instance || ids.iter().any(|own| own == id),
    };
    let uses = |one: &&ContainerSummary| {
        let networks = one.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        networks.into_iter().flatten().any(|(name, endpoint)| is_attached(name, endpoint))
    };
    let mut names: Vec<String> = all
        .iter()
        .filter(|one| is_up(one) && !labels::belongs(one.labels.as_ref(), instance))
        .filter(uses)
        .map(|one| printable(&name_of(one)))
        .collect();
    names.sort();
    names
}

fn identity(info: SystemInfo, is_podman: bool) -> Option<(&'static str, String)> {
    let id = info.id.filter(|id| !is_podman && !id.is_empty()).map(|id| (MadeFor::ENGINE_ID, id));
    let name = info.name.filter(|name| !name.is_empty() && !name.starts_with("localhost"));
    id.or(name.map(|name| (MadeFor::HOST_NAME, name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::endpoint::ChosenBy;
    use crate::model::role::Role;

    #[cfg(unix)]
    #[tokio::test]
    async fn an_engine_behind_a_proxy_that_denies_its_properties_has_no_identity() {
        let page = "<html><body><h1>403 Forbidden</h1></body></html>";
        let (_folder, docker) = crate::engine::fake::engine(move |_| (403, page.into())).await;
        assert_eq!(docker.identity().await.unwrap(), None);
        let (_folder, docker) = crate::engine::fake::engine(|_| (500, String::new())).await;
        assert!(docker.identity().await.is_err());
    }

    #[test]
    fn an_engine_is_identified_by_its_number_or_by_a_name_that_only_its_host_has() {
        for (is_podman, name, expected) in [
            (false, "laptop", Some((MadeFor::ENGINE_ID, "number"))),
            (true, "laptop", Some((MadeFor::HOST_NAME, "laptop"))),
            (true, "localhost.localdomain", None),
            (true, "", None),
        ] {
            let info = SystemInfo { id: Some("number".into()), name: Some(name.into()), ..SystemInfo::default() };
            let found = identity(info, is_podman);
            assert_eq!(found.as_ref().map(|(kind, id)| (*kind, id.as_str())), expected, "{is_podman} {name}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn creating_a_network_and_starting_a_container_look_for_nothing_else() {
        let (_folder, docker) = crate::engine::fake::engine(|request| match request {
            "POST /networks/create" => (201, r#"{"Id": "n", "Warning": ""}"#.into()),
            "POST /containers/c/start" => (204, String::new()),
            "GET /containers/c/json" => (200, r#"{"Id": "c"}"#.into()),
            other => (500, other.into()),
        })
        .await;
        docker.create_network("x").await.unwrap();
        let address = ([127, 0, 0, 1], 3000).into();
        assert_eq!(docker.start_container("x", Role::Grafana, "c", address).await.unwrap(), None);
    }

    #[test]
    fn rancher_desktop_is_identified_by_its_host_or_its_socket() {
        let is_it = |name: Option<&str>, host: &str| is_rancher_desktop(name, &Endpoint::new(host, ChosenBy::Option));
        assert!(is_it(Some("lima-rancher-desktop"), "unix:///var/run/docker.sock"));
        assert!(is_it(Some("rancher-desktop"), "tcp://127.0.0.1:2375"));
        assert!(is_it(None, "unix:///Users/me/.rd/docker.sock"));
        assert!(!is_it(Some("my-rancher-desktop"), "unix:///var/run/no-such.sock"));
        assert!(!is_it(None, "unix:///home/me/x.rd/docker.sock"));
        assert!(!is_it(Some("docker-desktop"), "ssh://host/.rd/docker.sock"));
    }

    #[test]
    fn a_bridge_is_identified_only_by_its_networks_full_id() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let interfaces = "Inter-|   Receive\n face |bytes\n    lo: 1 2\nbr-0123456789ab: 1 2\n";
        assert!(is_bridge_among(interfaces, id));
        for (interfaces, id) in [
            ("", id),
            ("br-0123456789abc: 1\n", id),
            ("podman1: 1\n", id),
            (interfaces, "0123456789"),
            (interfaces, "x-grafana"),
            ("br-zzzzzzzzzzzz: 1\n", "zzzzzzzzzzzz"),
        ] {
            assert!(!is_bridge_among(interfaces, id), "{interfaces} {id}");
        }
    }
}
