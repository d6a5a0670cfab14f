//! Containers: translates specifications to the engine's terms and back, and creates, starts,
//! inspects and removes containers.
//!
//! Changes only containers with the instance's label, and addresses them by id, because names can change.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerSummary,
    ContainerSummaryStateEnum as Summary, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, NetworkSettings, NetworkingConfig, PortBinding, PortSummaryTypeEnum, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use futures_util::{Stream, StreamExt};

use super::errors::translate;
use super::labels::{self, Labels};
use super::transport::for_stream;
use super::{Docker, files};
use crate::error::{Error, Refusal, Result};
use crate::model::address::collide;
use crate::model::container_config::{ContainerConfig, PasswordSource};
use crate::model::observed::{ContainerState, Network, OurContainer, PortHolder, RunState};
use crate::model::role::Role;
use crate::model::stack::DesiredContainer;
use crate::model::text::{excerpt, printable};

/// The time that a server gets to stop.
const STOP_SECONDS: i32 = 10;
/// The number of log lines shown with an error.
const LOG_LINES: usize = 20;
/// A container has just started for this long. In a crash loop, the engine waits up to a minute between attempts.
const RECENT_START: Duration = Duration::from_secs(90);
/// The number of log lines that are searched for a text; other requests may be logged in between.
const LINES_SEARCHED: usize = 500;
/// The time limit for reading them.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);

/// The environment of a private Grafana beyond its specification, which overrides the image's
/// settings: a rejected password is then a wrong password, rather than the effect of a disabled way
/// to sign in or of a locked account.
const PRIVATE: [&str; 5] = [
    "GF_AUTH_ANONYMOUS_ENABLED=false",
    "GF_AUTH_BASIC_ENABLED=true",
    "GF_AUTH_DISABLE_LOGIN=false",
    "GF_AUTH_DISABLE_LOGIN_FORM=false",
    "GF_SECURITY_DISABLE_BRUTE_FORCE_LOGIN_PROTECTION=true",
];

/// The run state of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    /// Its state.
    pub run: RunState,
    /// How often the engine has restarted it.
    pub restarts: i64,
    /// The address at which its port is actually published, while it runs.
    pub published: Option<SocketAddr>,
}

/// Properties of a new container beyond its specification.
#[derive(Debug, Clone, Copy)]
pub struct Creation<'a> {
    /// The instance.
    pub instance: &'a str,
    /// Grafana's first administrator, if it is not Grafana's default.
    pub grafana_user: Option<&'a str>,
    /// Whether only this program can reach it: Grafana then offers every way to sign in, and never
    /// locks an account.
    pub private: bool,
    /// The engine's id of an image to use instead of the specified one.
    pub image: Option<&'a str>,
}

impl Docker {
    /// Creates a container and returns its id.
    ///
    /// # Errors
    /// [`Error::Raced`] if the network is gone, [`Error::Docker`] if the engine returns an error.
    pub async fn create_container(
        &self,
        creation: Creation<'_>,
        spec: &DesiredContainer,
        config: &ContainerConfig,
    ) -> Result<String> {
        let instance = creation.instance;
        let network = self.network(instance).await?;
        let doing = format!("create container {}", spec.name);
        let Some(network) = network.id() else {
            return Err(Error::Raced { doing, why: format!("network {instance} is gone") });
        };
        let volume = self.volume_labels(instance, spec).await?;
        let mut body = body(creation, spec.role, config, network, volume);
        if config.host_gateway
            && let Some(host) = &mut body.host_config
        {
            let address = self.host_address(instance).await?;
            host.extra_hosts = address.map(|address| vec![format!("{}:{address}", ContainerConfig::HOST_NAME)]);
        }
        if self.is_podman.get()
            && let Some(host) = &mut body.host_config
        {
            // With Podman, a port at the wildcard address is published at that address only.
            for binding in host.port_bindings.iter_mut().flat_map(|bindings| bindings.values_mut()).flatten().flatten()
            {
                binding.host_ip.take_if(|ip| ip.as_str() == "0.0.0.0");
            }
        }
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        Ok(self.call(&doing, self.client.create_container(Some(options), body)).await?.id)
    }

    /// Starts a container, and returns the address at which its port is published; a running one is left running.
    /// `desired` is its address unless it was created for another one.
    ///
    /// # Errors
    /// [`Error::Publish`] if the address cannot be published, otherwise [`Error::Docker`].
    pub async fn start_container(
        &self,
        instance: &str,
        role: Role,
        id: &str,
        desired: SocketAddr,
    ) -> Result<Option<SocketAddr>> {
        // An address check left by an interrupted run may hold the address.
        for role in Role::ALL {
            self.remove_address_check(instance, role).await?;
        }
        let result = self.start(instance, role, id, desired).await;
        if role == Role::Grafana && matches!(result, Err(Error::Publish { .. })) {
            // The announced start did not happen.
            self.clear_intended_version(id).await?;
        }
        result?;
        Ok(self.run_info(role, id).await?.and_then(|info| info.published))
    }

    pub(super) async fn start(&self, instance: &str, role: Role, id: &str, desired: SocketAddr) -> Result<()> {
        let doing = format!("start the container of {}", role.title());
        let is_taken = match self.call(&doing, self.client.start_container(id, None::<StartContainerOptions>)).await {
            Err(Error::Docker { refusal: Refusal::PortTaken, .. }) => true,
            Err(Error::Docker { refusal: Refusal::NoSuchAddress, .. }) => false,
            result => return result,
        };
        let config = self.ours(role, id).await.ok().flatten().and_then(|actual| actual.config);
        let address = config.map_or(desired, |config| config.publish);
        let holder = if is_taken {
            let containers = self.containers(instance).await.unwrap_or_default();
            port_holder(&containers, instance, role, address).unwrap_or(PortHolder::Process)
        } else {
            PortHolder::NoSuchAddress
        };
        Err(Error::Publish { role, address, holder, answers: None, free: None })
    }

    /// Whether a container holds an address now, also one that an interrupted address check left.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub async fn holds_address(&self, publish: SocketAddr) -> Result<bool> {
        Ok(self.every_container().await?.iter().any(|container| holds(container, publish)))
    }

    /// Unpauses a container.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub async fn unpause_container(&self, role: Role, id: &str) -> Result<()> {
        let doing = format!("unpause the container of {}", role.title());
        match self.call(&doing, self.client.unpause_container(id)).await {
            Err(Error::Docker { refusal: Refusal::NotPaused, .. }) => Ok(()),
            result => result,
        }
    }

    /// Stops and removes the role's container, whatever its state and name; its volume stays.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process has replaced the container with the id `known`, [`Error::Docker`] if the
    /// engine returns an error.
    pub async fn remove_container(&self, instance: &str, role: Role, known: Option<&str>) -> Result<()> {
        let listed = self.listed(instance).await?;
        let Ok(id) = find_container(&listed.containers, instance, role) else { return Ok(()) };
        if known.is_some_and(|known| known != id) {
            let doing = format!("remove the container of {}", role.title());
            return Err(Error::Raced { doing, why: "another process replaced it".into() });
        }
        let Some(found) = listed.inspected.get(&id) else { return Ok(()) };
        let running = found.state.as_ref().and_then(|state| state.running).unwrap_or(false);
        if running && found.state.as_ref().is_none_or(|state| state.paused != Some(true)) {
            let options = StopContainerOptionsBuilder::default().t(STOP_SECONDS).build();
            let doing = format!("stop the container of {}", role.title());
            match self.find(&doing, self.client.stop_container(&id, Some(options))).await {
                // It is already exiting, and the removal waits for that.
                Err(Error::Docker { refusal: Refusal::Ending, .. }) => {}
                result => drop(result?),
            }
        }
        self.remove(&format!("remove the container of {}", role.title()), &id, false).await
    }

    /// Removes a container, running or not, and its anonymous volumes if `volumes` is set. A container that is gone, or
    /// that another process removes, is not an error. Podman cannot remove a container at the moment when it exits.
    pub(super) async fn remove(&self, doing: &str, id: &str, volumes: bool) -> Result<()> {
        let remove = async || {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(volumes).build();
            self.find(doing, self.client.remove_container(id, Some(options))).await
        };
        match self.ask_until_ended(remove).await {
            Err(Error::Docker { refusal: Refusal::BeingRemoved, .. }) => self.await_removal(id).await,
            result => result.map(drop),
        }
    }

    /// Waits until a container is gone that another process is removing.
    pub(super) async fn await_removal(&self, id: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(u64::from(STOP_SECONDS.unsigned_abs()));
        let mut backoff = Duration::from_millis(20);
        while Instant::now() < deadline {
            if self.find_by_id("check that it is gone", id).await?.is_none() {
                return Ok(());
            }
            crate::backoff::pause(&mut backoff).await;
        }
        Ok(())
    }

    /// The id of the role's container, if exactly one exists.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub async fn container_id(&self, instance: &str, role: Role) -> Result<Option<String>> {
        Ok(find_container(&self.containers(instance).await?, instance, role).ok())
    }

    /// The run state of a container; `None` if it is gone.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub async fn run_info(&self, role: Role, id: &str) -> Result<Option<RunInfo>> {
        let doing = format!("inspect the container of {}", role.title());
        let found = self.find_by_id(&doing, id).await?;
        Ok(found.map(|found| RunInfo {
            run: run_state(&found),
            restarts: found.restart_count.unwrap_or_default(),
            published: found.network_settings.as_ref().and_then(|settings| published(settings, role)),
        }))
    }

    /// The last lines of a container's log.
    pub async fn last_lines(&self, name: &str) -> Vec<String> {
        let stream = self.logs(name, false, Some(LOG_LINES), 0);
        // An engine may send more lines than requested.
        let read = stream.take(LOG_LINES).filter_map(async |line| Some(excerpt(&line.ok()?, 400))).collect();
        tokio::time::timeout(LOG_TIMEOUT, read).await.unwrap_or_default()
    }

    /// Whether a text is in the last lines of a container's log.
    ///
    /// # Errors
    /// [`Error::Docker`] if the log cannot be read.
    pub async fn has_logged(&self, name: &str, text: &str) -> Result<bool> {
        let mut lines = std::pin::pin!(self.logs(name, false, Some(LINES_SEARCHED), 0));
        let search = async {
            while let Some(line) = lines.next().await {
                if line?.contains(text) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        tokio::time::timeout(LOG_TIMEOUT, search).await.unwrap_or_else(|_| {
            Err(Error::Docker {
                doing: "read the log of a container".into(),
                why: format!("no answer from the engine for {}s", LOG_TIMEOUT.as_secs()),
                refusal: Refusal::Gone,
            })
        })
    }

    /// A container's log, line by line; `since` is in seconds since 1970, 0 means everything.
    pub fn logs(
        &self,
        name: &str,
        follow: bool,
        tail: Option<usize>,
        since: i32,
    ) -> impl Stream<Item = Result<String>> + use<> {
        let tail = tail.map_or_else(|| "all".to_string(), |lines| lines.to_string());
        let options =
            LogsOptionsBuilder::default().follow(follow).stdout(true).stderr(true).tail(&tail).since(since).build();
        let doing = "read the log of a container";
        let (client, bounded) = for_stream(&self.client);
        bounded(client.logs(name, Some(options))).map(move |output| match output {
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::StdErr { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message },
            ) => Ok(printable(String::from_utf8_lossy(&message).trim_end())),
            Err(error) => Err(translate(doing, &error)),
        })
    }
}

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
fn holds(container: &ContainerSummary, publish: SocketAddr) -> bool {
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

fn run_state(found: &ContainerInspectResponse) -> RunState {
    let state = found.state.clone().unwrap_or_default();
    match state.status {
        Some(Status::RUNNING | Status::STOPPING) => RunState::Running,
        Some(Status::PAUSED) => RunState::Paused,
        Some(Status::RESTARTING) => RunState::Restarting,
        Some(Status::EXITED) => RunState::Exited(state.exit_code.unwrap_or_default()),
        Some(Status::DEAD | Status::REMOVING) => RunState::Dead,
        Some(Status::CREATED | Status::EMPTY) | None => RunState::Created,
    }
}

/// The address at which a role's port is actually published.
fn published(settings: &NetworkSettings, role: Role) -> Option<SocketAddr> {
    let bindings = settings.ports.as_ref()?.get(&format!("{}/tcp", role.port()))?.clone()?;
    let binding = bindings.into_iter().next()?;
    let ip = binding.host_ip.filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
    Some(SocketAddr::new(ip.parse().ok()?, binding.host_port?.parse().ok()?))
}

pub(super) fn seen_container(
    instance: &str,
    role: Role,
    network: &Network,
    found: ContainerInspectResponse,
) -> ContainerState {
    let run = run_state(&found);
    let labels: Option<Labels> = found.config.and_then(|config| config.labels);
    let settings = found.network_settings.unwrap_or_default();
    let mode = found.host_config.and_then(|host| host.network_mode).unwrap_or_default();
    let restarts = found.restart_count.unwrap_or_default();
    let started_at = found.state.and_then(|state| state.started_at).filter(|at| !at.starts_with("0001"));
    let has_just_started = started_at.as_deref().is_none_or(|at| has_just_started(at, jiff::Timestamp::now()));
    let stands = !matches!(run, RunState::Running | RunState::Paused);
    let attached = |id: &str| {
        // For a container that does not run, Docker may know only the network id from its creation;
        // Podman shows names instead of ids.
        (stands && mode == id)
            || settings.networks.iter().flatten().any(|(name, endpoint)| {
                endpoint.network_id.as_deref() == Some(id)
                    || (name == instance && endpoint.network_id.as_deref() == Some(instance))
            })
    };
    ContainerState::Ours(Box::new(OurContainer {
        id: found.id.unwrap_or_default(),
        name: found.name.unwrap_or_default().trim_start_matches('/').to_string(),
        name_taken: false,
        config: labels::config(labels.as_ref()),
        image_id: found.image.unwrap_or_default(),
        on_network: network.id().is_some_and(attached),
        run,
        crashes_repeatedly: restarts > 1 && has_just_started,
        has_just_started,
        started_at,
        published: published(&settings, role),
        has_data: None,
    }))
}

/// Whether a start, in RFC 3339 format, is so recent that the server may still be starting, or that a container in a
/// crash loop may be about to exit again. A server that started long ago has recovered from its crashes.
fn has_just_started(at: &str, now: jiff::Timestamp) -> bool {
    let at: Option<jiff::Timestamp> = at.parse().ok();
    at.is_none_or(|at| now.duration_since(at).unsigned_abs() < RECENT_START)
}

/// The request that creates a container. `volume` holds the labels for a volume that has vanished
/// since it was inspected: the engine would create it without labels.
fn body(
    creation: Creation<'_>,
    role: Role,
    config: &ContainerConfig,
    network: &str,
    volume: Labels,
) -> ContainerCreateBody {
    let port = format!("{}/tcp", role.port());
    let publish = config.publish;
    let host_port = if publish.port() == 0 { String::new() } else { publish.port().to_string() };
    let binding = PortBinding { host_ip: Some(publish.ip().to_string()), host_port: Some(host_port) };
    let mut env: Vec<String> = config.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if role == Role::Grafana {
        if config.password == PasswordSource::File {
            env.push(format!("GF_SECURITY_ADMIN_PASSWORD=$__file{{{}}}", files::PASSWORD_PATH));
        }
        env.extend(creation.grafana_user.map(|user| format!("GF_SECURITY_ADMIN_USER={user}")));
        if creation.private {
            env.extend(PRIVATE.map(String::from));
        }
    }
    let text = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
    };
    let host_config = HostConfig {
        port_bindings: Some(HashMap::from([(port.clone(), Some(vec![binding]))])),
        network_mode: Some(network.to_string()),
        mounts: Some(vec![Mount {
            typ: Some(MountType::VOLUME),
            source: Some(config.volume.clone()),
            target: Some(role.data_path().into()),
            volume_options: Some(MountVolumeOptions { labels: Some(volume), ..MountVolumeOptions::default() }),
            ..Mount::default()
        }]),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(text(&ContainerConfig::LOG_LIMIT)),
        }),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        readonly_rootfs: Some(config.read_only),
        tmpfs: config.read_only.then(|| text(&[("/tmp", "")])),
        ..HostConfig::default()
    };
    let endpoint = EndpointSettings { aliases: Some(vec![role.name().to_string()]), ..EndpointSettings::default() };
    ContainerCreateBody {
        image: Some(creation.image.map_or_else(|| config.image.to_string(), String::from)),
        env: Some(env),
        labels: Some(labels::of_container(creation.instance, role, config)),
        exposed_ports: Some(vec![port]),
        host_config: Some(host_config),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.to_string(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::PortSummary;

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
    fn only_a_container_that_started_moments_ago_may_be_in_a_crash_loop() {
        let now: jiff::Timestamp = "2026-01-02T00:10:00Z".parse().unwrap();
        for (at, expected) in [
            ("2026-01-02T00:09:30.123456789Z", true),
            ("2026-01-02T01:09:30.5+01:00", true),
            ("2026-01-02T00:05:00Z", false),
            ("2025-12-01T00:09:59Z", false),
            ("not a time", true),
        ] {
            assert_eq!(has_just_started(at, now), expected, "{at}");
        }
        let seen = |restarts: i64, started: jiff::Timestamp| {
            let found = ContainerInspectResponse {
                restart_count: Some(restarts),
                state: Some(bollard::models::ContainerState {
                    started_at: Some(started.to_string()),
                    ..Default::default()
                }),
                ..ContainerInspectResponse::default()
            };
            let seen = seen_container("x", Role::Grafana, &Network::Free, found);
            seen.ours().is_some_and(|actual| actual.crashes_repeatedly)
        };
        let now = jiff::Timestamp::now();
        assert!(seen(5, now) && !seen(1, now), "one crash is not a loop");
        assert!(!seen(5, now - std::time::Duration::from_secs(3600)), "it has recovered");
    }

    #[test]
    fn a_vanished_volume_is_recreated_with_its_labels() {
        let config = ContainerConfig {
            publish: "127.0.0.1:0".parse().unwrap(),
            read_only: false,
            password: PasswordSource::File,
            ..crate::samples::container_config(Role::Grafana)
        };
        let creation = Creation { instance: "x", grafana_user: Some("me"), private: true, image: None };
        let labels = labels::of_volume(
            "x",
            Role::Grafana,
            Some("472"),
            &crate::model::image::ImageRef::parse("grafana:1.2").unwrap(),
        );
        let body = body(creation, Role::Grafana, &config, "n", labels.clone());
        let host = body.host_config.unwrap();
        let mount = host.mounts.unwrap().remove(0);
        assert_eq!(mount.volume_options.unwrap().labels, Some(labels));
        // The engine chooses the port, and the environment contains no secret.
        assert_eq!(host.port_bindings.unwrap()["3000/tcp"].as_ref().unwrap()[0].host_port.as_deref(), Some(""));
        let environment = body.env.unwrap().join(" ");
        assert!(environment.contains("GF_SECURITY_ADMIN_USER=me") && environment.contains("$__file{/var/lib/grafana/"));
        assert!(PRIVATE.iter().all(|variable| environment.contains(variable)), "{environment}");
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
