//! Reads the engine's list of containers: the role's container, and other holders of its port or volume.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as Summary, PortSummaryTypeEnum};

use super::labels;
use crate::model::address::collide;
use crate::model::observed::{ContainerState, PortHolder};
use crate::model::role::Role;
use crate::model::text::printable;

/// Whether the container belongs to the instance and has this role.
pub(super) fn serves(container: &ContainerSummary, instance: &str, role: Role) -> bool {
    labels::serves(container.labels.as_ref(), instance, role, &name_of(container))
}

pub(super) fn name_of(container: &ContainerSummary) -> String {
    let names = container.names.iter().flatten();
    // Links add names with several parts; the container's own name has one.
    let own = names.map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
    own.unwrap_or_default().to_string()
}

/// The id of the role's container among all containers of the engine.
///
/// # Errors
/// The state of the role if not exactly one managed container exists.
pub(super) fn find_container(
    all: &[ContainerSummary],
    instance: &str,
    role: Role,
) -> std::result::Result<String, ContainerState> {
    let ours: Vec<&ContainerSummary> = all.iter().filter(|container| serves(container, instance, role)).collect();
    match ours.as_slice() {
        [one] => Ok(one.id.clone().unwrap_or_default()),
        [] => {
            let is_foreign = is_name_taken(all, instance, role);
            Err(if is_foreign { ContainerState::Foreign } else { ContainerState::Absent })
        }
        several => {
            let mut names: Vec<String> = several.iter().map(|container| printable(&name_of(container))).collect();
            // The container with the original name comes first.
            names.sort_by_key(|name| (*name != role.object_name(instance), name.clone()));
            Err(ContainerState::Duplicated(names))
        }
    }
}

/// Whether another owner's container has the name of the role's container.
pub(super) fn is_name_taken(all: &[ContainerSummary], instance: &str, role: Role) -> bool {
    let name = role.object_name(instance);
    all.iter().any(|container| name_of(container) == name && !serves(container, instance, role))
}

/// Whether a running container holds an address.
pub(super) fn holds(container: &ContainerSummary, publish: SocketAddr) -> bool {
    is_up(container)
        && container.ports.iter().flatten().any(|port| {
            // Podman omits the wildcard address.
            let everywhere = wildcard(publish.ip());
            let ip = port.ip.as_deref().and_then(|ip| ip.parse().ok()).unwrap_or(everywhere);
            let is_tcp = matches!(port.typ, None | Some(PortSummaryTypeEnum::TCP | PortSummaryTypeEnum::EMPTY));
            is_tcp && port.public_port.is_some_and(|public| collide(SocketAddr::new(ip, public), publish))
        })
}

/// The other holder of an address, among containers that hold their ports.
pub(super) fn port_holder(
    all: &[ContainerSummary],
    instance: &str,
    role: Role,
    publish: SocketAddr,
) -> Option<PortHolder> {
    // Two containers can hold the same port at different addresses; a foreign container is reported first.
    let mut holders: Vec<PortHolder> = all
        .iter()
        .filter(|container| holds(container, publish))
        .filter(|container| !serves(container, instance, role))
        .map(|container| {
            let other = Role::ALL.into_iter().find(|other| serves(container, instance, *other));
            other.map_or_else(|| PortHolder::Container(printable(&name_of(container))), PortHolder::OtherRole)
        })
        .collect();
    holders.sort_by_key(|holder| matches!(holder, PortHolder::OtherRole(_)));
    holders.into_iter().next()
}

/// The wildcard address of the same family.
const fn wildcard(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The other owners' containers that mount a volume anywhere, running or not: it cannot be deleted while they exist.
pub(super) fn volume_users(all: &[ContainerSummary], instance: &str, volume: &str) -> Vec<String> {
    let mounts = |container: &&ContainerSummary| {
        container.mounts.iter().flatten().any(|mount| mount.name.as_deref() == Some(volume))
    };
    let others = all.iter().filter(|container| !labels::belongs(container.labels.as_ref(), instance)).filter(mounts);
    let mut names: Vec<String> = others.map(|container| printable(&name_of(container))).collect();
    names.sort();
    names
}

/// Another running container that mounts the role's volume at the server's data path. A read-only
/// mount, or one elsewhere in the container, does no harm.
pub(super) fn volume_user(all: &[ContainerSummary], instance: &str, role: Role, volume: &str) -> Option<String> {
    let has = |container: &&ContainerSummary| {
        container.mounts.iter().flatten().any(|mount| {
            mount.name.as_deref() == Some(volume)
                && mount.destination.as_deref() == Some(role.data_path())
                && mount.rw != Some(false)
        })
    };
    let mut others = all.iter().filter(|container| is_up(container) && !serves(container, instance, role)).filter(has);
    others.next().map(|container| printable(&name_of(container)))
}

/// Whether the container holds its ports. Podman also lists the ports of exited containers; a
/// container that is being removed has exited.
pub(super) fn is_up(container: &ContainerSummary) -> bool {
    !matches!(container.state, Some(Summary::EXITED | Summary::CREATED | Summary::DEAD | Summary::REMOVING))
}

#[cfg(test)]
mod tests {
    use bollard::models::PortSummary;

    use super::*;

    fn container(name: &str, labels: &[(&str, &str)], ports: &[(&str, u16, PortSummaryTypeEnum)]) -> ContainerSummary {
        ContainerSummary {
            id: Some(format!("id of {name}")),
            names: Some(vec![format!("/{name}")]),
            labels: Some(labels.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()),
            ports: Some(
                ports
                    .iter()
                    .map(|(ip, port, typ)| PortSummary {
                        ip: Some((*ip).to_string()),
                        private_port: 1,
                        public_port: Some(*port),
                        typ: Some(*typ),
                    })
                    .collect(),
            ),
            ..ContainerSummary::default()
        }
    }

    const GRAFANA: [(&str, &str); 2] = [(labels::INSTANCE, "x"), (labels::ROLE, "grafana")];
    const INFLUXDB: [(&str, &str); 2] = [(labels::INSTANCE, "x"), (labels::ROLE, "influxdb")];

    #[test]
    fn a_container_is_found_by_its_labels_and_copies_are_reported() {
        let renamed = container("odd", &GRAFANA, &[]);
        let find = |all: &[ContainerSummary]| find_container(all, "x", Role::Grafana);
        assert_eq!(find(std::slice::from_ref(&renamed)), Ok("id of odd".into()));
        assert_eq!(find(&[container("x-grafana", &[], &[])]), Err(ContainerState::Foreign));
        assert_eq!(find(&[]), Err(ContainerState::Absent));
        let both = [renamed, container("x-grafana", &GRAFANA, &[])];
        assert_eq!(find(&both), Err(ContainerState::Duplicated(vec!["x-grafana".into(), "odd".into()])));
    }

    #[test]
    fn only_a_tcp_port_published_by_another_container_is_a_conflict() {
        let at: SocketAddr = "127.0.0.1:3000".parse().unwrap();
        let holder = |one: ContainerSummary| port_holder(&[one], "x", Role::Grafana, at);
        let tcp = PortSummaryTypeEnum::TCP;
        assert_eq!(holder(container("a", &[], &[("0.0.0.0", 3000, tcp)])), Some(PortHolder::Container("a".into())));
        assert_eq!(holder(container("a", &[], &[("127.0.0.1", 3000, PortSummaryTypeEnum::UDP)])), None);
        assert_eq!(holder(container("a", &[], &[("127.0.0.2", 3000, tcp)])), None);
        assert_eq!(holder(container("a", &[], &[("::", 3000, tcp)])), None);
        let both = [("::", 3000, tcp), ("0.0.0.0", 3000, tcp)];
        assert_eq!(holder(container("a", &[], &both)), Some(PortHolder::Container("a".into())));
        assert_eq!(holder(container("a", &[], &[("", 3000, tcp)])), Some(PortHolder::Container("a".into())));
        assert_eq!(holder(container("renamed", &GRAFANA, &[("127.0.0.1", 3000, tcp)])), None);
        let other = container("x-influxdb", &INFLUXDB, &[("127.0.0.1", 3000, tcp)]);
        assert_eq!(holder(other), Some(PortHolder::OtherRole(Role::Influxdb)));
        for (state, expected) in [(Summary::PAUSED, true), (Summary::EXITED, false), (Summary::REMOVING, false)] {
            let mut one = container("a", &[], &[("127.0.0.1", 3000, tcp)]);
            one.state = Some(state);
            assert_eq!(holder(one).is_some(), expected, "{state:?}");
        }
    }
}
