//! Lists every instance on the engine with two requests, however many there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State, Volume as EngineVolume};
use bollard::query_parameters::ListVolumesOptionsBuilder;
use futures_util::future::try_join;

use super::listing::serves;
use super::{Docker, labels, settings};
use crate::error::Result;
use crate::model::address::{ServerUrl, reachable};
use crate::model::instances::{Instance, Member, MemberState};
use crate::model::role::{PerRole, Role};
use crate::model::stack::EngineLocation;
use crate::model::text::printable;

impl Docker {
    /// Every instance on the engine, by name.
    ///
    /// # Errors
    /// [`crate::error::Error::Docker`] if the engine does not answer.
    pub(crate) async fn instances(&self) -> Result<Vec<Instance>> {
        let filters = std::collections::HashMap::from([("label".to_string(), vec![labels::INSTANCE.to_string()])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let volumes = async {
            let listed = self.call("list volumes", self.client.list_volumes(Some(options))).await?;
            Ok(listed.volumes.unwrap_or_default())
        };
        let (containers, volumes) = try_join(self.containers_by_list(), volumes).await?;
        let host = match self.location() {
            EngineLocation::Here => None,
            EngineLocation::Elsewhere(host) | EngineLocation::OverSsh { host, .. } => Some(host),
        };
        Ok(group(&containers, &volumes, host.as_deref()))
    }
}

/// Groups containers and volumes by instance.
fn group(containers: &[ContainerSummary], volumes: &[EngineVolume], host: Option<&str>) -> Vec<Instance> {
    let of_container = |container: &ContainerSummary| Some(container.labels.as_ref()?.get(labels::INSTANCE)?.clone());
    let of_volume = |volume: &EngineVolume| volume.labels.get(labels::INSTANCE).cloned();
    let names = containers.iter().filter_map(of_container).chain(volumes.iter().filter_map(of_volume));
    let mut found: BTreeMap<String, Instance> = BTreeMap::new();
    for name in names {
        found.entry(name.clone()).or_insert_with(|| {
            let member = |role| member(containers, volumes, &name, role, host);
            let data = |role: Role| {
                let own = role.object_name(&name);
                volumes
                    .iter()
                    .any(|volume| volume.name == own && labels::belongs(Some(&volume.labels), &name))
                    .then_some(own)
            };
            let volumes = Role::ALL.into_iter().filter_map(data).collect();
            Instance::new(printable(&name), PerRole::from_fn(member), volumes)
        });
    }
    // A leftover helper container of a killed command is not an instance.
    found.into_values().filter(|one| one.servers != PerRole::default() || !one.volumes.is_empty()).collect()
}

fn member(
    containers: &[ContainerSummary],
    volumes: &[EngineVolume],
    name: &str,
    role: Role,
    host: Option<&str>,
) -> Member {
    let remembered = settings::among(volumes, name).values.unwrap_or_default();
    let external = remembered.get(&format!("{role}-url")).map(|url| printable(&url.value));
    let Some(own) = containers.iter().find(|one| serves(one, name, role)) else {
        let state = if external.is_some() { MemberState::External } else { MemberState::Absent };
        return Member { state, url: external };
    };
    let runs = matches!(own.state, Some(State::RUNNING));
    let made = labels::config(own.labels.as_ref()).map(|made| made.publish);
    let url = |at: SocketAddr| match host {
        Some(host) if at.ip().is_unspecified() => ServerUrl::http(host, at.port()),
        _ => ServerUrl::http(reachable(at.ip()).to_string(), at.port()),
    };
    let at = if runs { published(own, role).or(made) } else { made };
    Member {
        state: if runs { MemberState::Running } else { MemberState::Stopped },
        url: at.map(|at| url(at).to_string()),
    }
}

/// The address at which a running container is actually published.
fn published(container: &ContainerSummary, role: Role) -> Option<SocketAddr> {
    let port =
        container.ports.as_ref()?.iter().find(|port| port.private_port == role.port() && port.public_port.is_some())?;
    let ip: IpAddr = port.ip.as_deref()?.parse().ok()?;
    Some(SocketAddr::new(ip, port.public_port?))
}
