//! Containers: a specification in the engine's words, one that is there in ours, and everything that
//! can be done to one.
//!
//! Touches only what carries the instance's label.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerSummary,
    EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType, NetworkingConfig, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::{Stream, StreamExt};

use super::errors::translate;
use super::labels::{self, Labels};
use super::{Docker, password};
use crate::core::observed::{Container, Network, OurContainer, Run, collide};
use crate::core::stack::{ContainerSpec, Password, Role};
use crate::error::{Error, Refusal, Result, excerpt, printable};

/// How long a server may take to stop by itself.
const STOP_SECONDS: i32 = 10;
/// The last lines of a log that come with an error.
const LOG_LINES: usize = 20;

/// How a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The engine's id of it: another one is another container.
    pub id: String,
    /// How far up it is.
    pub run: Run,
    /// How often the engine started it again.
    pub restarts: i64,
}

impl Docker {
    /// Makes a container as specified. `loopback` publishes it there whatever the specification
    /// says, under a label that says so.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn create_container(
        &self,
        instance: &str,
        spec: &ContainerSpec,
        password: Password,
        loopback: bool,
    ) -> Result<()> {
        let mut spec = spec.clone();
        if loopback {
            spec.address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        }
        let network = self.network(instance).await?;
        let Some(network) = network.id() else {
            return Err(Error::Docker {
                doing: format!("create container {}", spec.name),
                why: format!("network {instance} is gone"),
                refusal: Refusal::NotFound,
            });
        };
        let mut body = creation(instance, &spec, password, network);
        if self.is_podman
            && let Some(host) = &mut body.host_config
        {
            // Podman gives containers that name by itself, and old versions know no gateway.
            host.extra_hosts = None;
        }
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let doing = format!("create container {}", spec.name);
        self.call(&doing, self.client.create_container(Some(options), body)).await.map(drop)
    }

    /// Starts a container; one that runs is fine.
    ///
    /// # Errors
    /// When the engine refuses; [`Error::Publish`] where the address cannot be had.
    pub async fn start_container(&self, spec: &ContainerSpec) -> Result<()> {
        let doing = format!("start container {}", spec.name);
        match self.call(&doing, self.client.start_container(&spec.name, None::<StartContainerOptions>)).await {
            Err(Error::Docker { refusal: Refusal::Address, why, .. }) => Err(self.address_error(spec, &why).await),
            result => result,
        }
    }

    /// Who has the address, or what is wrong with it.
    async fn address_error(&self, spec: &ContainerSpec, words: &str) -> Error {
        let role = spec.role;
        let address = spec.publish().to_string();
        if words.contains("cannot assign requested address") {
            return Error::Publish {
                role,
                why: "that is not an address of the engine's machine".into(),
                hint: format!(
                    "if {} already runs there, give --{role}-url http://{address}; to run the containers there, name \
                     that machine's engine with -H",
                    role.title()
                ),
                address,
            };
        }
        let all = ListContainersOptionsBuilder::default().all(true).build();
        let containers = self.call("list containers", self.client.list_containers(Some(all))).await.unwrap_or_default();
        let (why, hint) = match port_holder(&containers, spec) {
            Some(holder) => (
                format!("container {holder} holds that port"),
                format!("stop it (docker stop {holder}), or choose another port with --{role}-port"),
            ),
            None => (
                "another process on the engine's machine holds that port".to_string(),
                format!("choose another port with --{role}-port, or find the process with `ss -ltnp`"),
            ),
        };
        Error::Publish { role, address, why, hint }
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn unpause_container(&self, name: &str) -> Result<()> {
        let doing = format!("unpause container {name}");
        match self.call(&doing, self.client.unpause_container(name)).await {
            Err(Error::Docker { why, .. }) if why.contains("not paused") => Ok(()),
            result => result,
        }
    }

    /// Stops and removes a container that is ours, in whatever state it is; its volume stays.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove_container(&self, instance: &str, name: &str) -> Result<()> {
        let inspect = self.client.inspect_container(name, None);
        let Some(found) = self.find(&format!("inspect container {name}"), inspect).await? else { return Ok(()) };
        let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
        if !labels::belongs(labels, instance) {
            return Ok(());
        }
        // By id: a container that somebody makes under this name meanwhile is not this one.
        let id = found.id.unwrap_or_else(|| name.to_string());
        let running = found.state.as_ref().and_then(|state| state.running).unwrap_or(false);
        if running && found.state.is_none_or(|state| state.paused != Some(true)) {
            let options = StopContainerOptionsBuilder::default().t(STOP_SECONDS).build();
            self.find(&format!("stop container {name}"), self.client.stop_container(&id, Some(options))).await?;
        }
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        let removal = self.client.remove_container(&id, Some(options));
        match self.find(&format!("remove container {name}"), removal).await {
            Err(Error::Docker { refusal: Refusal::Conflict, why, .. }) if why.contains("already in progress") => {
                self.await_removal(&id).await
            }
            result => result.map(drop),
        }
    }

    /// Somebody else is removing it: that is as good once it is gone.
    async fn await_removal(&self, id: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(u64::from(STOP_SECONDS.unsigned_abs()));
        let mut pause = Duration::from_millis(20);
        while Instant::now() < deadline {
            if self.find("see whether it is gone", self.client.inspect_container(id, None)).await?.is_none() {
                return Ok(());
            }
            crate::systems::pause(&mut pause).await;
        }
        Ok(())
    }

    /// How a container of ours is doing.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn life(&self, instance: &str, name: &str) -> Result<Option<Life>> {
        let inspect = self.client.inspect_container(name, None);
        let Some(found) = self.find(&format!("inspect container {name}"), inspect).await? else { return Ok(None) };
        let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
        Ok(labels::belongs(labels, instance).then(|| Life {
            run: run_of(&found),
            restarts: found.restart_count.unwrap_or_default(),
            id: found.id.unwrap_or_default(),
        }))
    }

    /// The last lines that a container wrote.
    pub async fn last_lines(&self, name: &str) -> Vec<String> {
        let stream = self.logs(name, false, Some(LOG_LINES), 0);
        let lines: Vec<String> = stream.filter_map(|line| async { line.ok() }).collect().await;
        let from = lines.len().saturating_sub(LOG_LINES);
        lines[from..].iter().map(|line| excerpt(line, 400)).collect()
    }

    /// What a container wrote, line by line; `since` is in seconds since 1970, 0 for all.
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
        let doing = format!("read the log of {name}");
        self.client.logs(name, Some(options)).map(move |output| match output {
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::StdErr { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message },
            ) => Ok(printable(String::from_utf8_lossy(&message).trim_end())),
            Err(error) => Err(translate(&doing, &error)),
        })
    }
}

/// Another container that publishes what the specification wants.
pub(super) fn port_holder(all: &[ContainerSummary], spec: &ContainerSpec) -> Option<String> {
    let name_of = |container: &ContainerSummary| {
        let name = container.names.as_ref()?.first()?;
        Some(printable(name.trim_start_matches('/')))
    };
    all.iter()
        .filter(|container| {
            container.ports.iter().flatten().any(|port| {
                let ip = port.ip.as_deref().and_then(|ip| ip.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                port.public_port.is_some_and(|public| collide(SocketAddr::new(ip, public), spec.publish()))
            })
        })
        .filter_map(name_of)
        .find(|name| *name != spec.name)
}

fn run_of(found: &ContainerInspectResponse) -> Run {
    let state = found.state.clone().unwrap_or_default();
    match state.status {
        Some(Status::RUNNING | Status::STOPPING) => Run::Running,
        Some(Status::PAUSED) => Run::Paused,
        Some(Status::RESTARTING) => Run::Restarting,
        Some(Status::EXITED) => Run::Exited(state.exit_code.unwrap_or_default()),
        Some(Status::DEAD | Status::REMOVING) => Run::Dead,
        Some(Status::CREATED | Status::EMPTY) | None => Run::Created,
    }
}

pub(super) fn seen_container(
    instance: &str,
    role: Role,
    network: &Network,
    found: ContainerInspectResponse,
) -> Container {
    let run = run_of(&found);
    let labels: Option<Labels> = found.config.and_then(|config| config.labels);
    if !labels::belongs(labels.as_ref(), instance) {
        return Container::Foreign;
    }
    let settings = found.network_settings.unwrap_or_default();
    let mode = found.host_config.and_then(|host| host.network_mode).unwrap_or_default();
    let attached = |id: &str| {
        // Docker keeps the id that the container was made with; Podman shows names for ids.
        mode == id
            || settings.networks.iter().flatten().any(|(name, endpoint)| {
                endpoint.network_id.as_deref() == Some(id)
                    || (name == instance && endpoint.network_id.as_deref() == Some(instance))
            })
    };
    let port = format!("{}/tcp", role.port());
    let published =
        settings.ports.as_ref().and_then(|ports| ports.get(&port)).cloned().flatten().and_then(|bindings| {
            let binding = bindings.into_iter().next()?;
            let ip = binding.host_ip.filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
            Some(SocketAddr::new(ip.parse().ok()?, binding.host_port?.parse().ok()?))
        });
    Container::Ours(OurContainer {
        id: found.id.unwrap_or_default(),
        fields: labels::specification(labels.as_ref()),
        image_id: found.image.unwrap_or_default(),
        on_network: network.id().is_some_and(attached),
        run,
        started_at: found.state.and_then(|state| state.started_at).filter(|at| !at.starts_with("0001")),
        published,
    })
}

/// What the engine is asked for.
fn creation(instance: &str, spec: &ContainerSpec, password: Password, network: &str) -> ContainerCreateBody {
    let port = format!("{}/tcp", spec.role.port());
    let binding = PortBinding { host_ip: Some(spec.address.to_string()), host_port: Some(spec.port.to_string()) };
    let mut env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if spec.role == Role::Grafana && password == Password::File {
        env.push(format!("GF_SECURITY_ADMIN_PASSWORD=$__file{{{}}}", password::PATH));
    }
    let text = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
    };
    let host_config = HostConfig {
        port_bindings: Some(HashMap::from([(port.clone(), Some(vec![binding]))])),
        network_mode: Some(network.to_string()),
        mounts: Some(vec![Mount {
            typ: Some(MountType::VOLUME),
            source: Some(spec.name.clone()),
            target: Some(spec.role.data_path().into()),
            ..Mount::default()
        }]),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(text(&[("max-size", "10m"), ("max-file", "3")])),
        }),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        readonly_rootfs: Some(spec.read_only),
        tmpfs: spec.read_only.then(|| text(&[("/tmp", "")])),
        extra_hosts: spec
            .settings
            .contains_key(ContainerSpec::HOST_GATEWAY)
            .then(|| vec![format!("{}:host-gateway", ContainerSpec::HOST_NAME)]),
        ..HostConfig::default()
    };
    let endpoint =
        EndpointSettings { aliases: Some(vec![spec.role.name().to_string()]), ..EndpointSettings::default() };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        env: Some(env),
        labels: Some(labels::of_container(instance, spec, password)),
        exposed_ports: Some(vec![port]),
        host_config: Some(host_config),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.to_string(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}
