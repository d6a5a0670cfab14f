//! The client of the Docker Engine API: images, networks, volumes and containers, and files in volumes.
//!
//! Changes only objects with the instance's label.

mod address;
mod behind;
mod container;
mod copy;
mod database;
pub mod endpoint;
mod errors;
mod exec;
pub(crate) mod files;
mod forward;
mod instances;
pub mod labels;
mod network;
mod ownership;
mod platform;
mod podman;
pub mod pull;
mod settings;
#[cfg(unix)]
mod ssh;
pub(crate) mod tar_stream;
mod transport;
mod volume;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bollard::errors::Error as Bollard;
use bollard::models::{ContainerInspectResponse, ContainerSummary, SystemVersion, Volume as EngineVolume};
use futures_util::future::{join, join4, try_join3};

pub use self::container::{Creation, RunInfo};
use self::container::{find_container, port_holder, volume_user};
use self::endpoint::Endpoint;
use self::errors::{translate, unreachable};
pub use self::files::PASSWORD_PATH;
pub use self::forward::Forward;
pub use self::network::{address_of_this_machine, has_bridge_of, is_of_this_machine};
use self::ownership::Listed;
use crate::error::{Error, Refusal, Result};
use crate::model::container_config::ContainerConfig;
use crate::model::event::{Event, Listener};
use crate::model::observed::{
    ContainerState, EngineInfo, EngineKind, Image, ManagedServer, Network, OurContainer, PortHolder, RunState,
    StoredSettings, VolumeState,
};
use crate::model::role::Role;
#[cfg(unix)]
use crate::model::stack::SshForward;
use crate::model::stack::{DesiredContainer, EngineLocation, Service, Stack};
use crate::model::text::{excerpt, printable};
use crate::model::version::Version;

/// The time limit of a request that is not a pull. Stopping a container takes up to ten seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the engine may fail to inspect containers because one of them is exiting.
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);
/// The oldest supported API version, of Docker 19.03.
const OLDEST_API: Version = Version(1, 40);

/// A connection to one engine.
pub struct Docker {
    client: bollard::Docker,
    endpoint: Endpoint,
    /// The engine's description of itself; before [`Docker::check`], only its endpoint.
    engine: RefCell<EngineInfo>,
    is_podman: Cell<bool>,
    is_checked: Cell<bool>,
    /// The ssh connection to its host, if there is one.
    #[cfg(unix)]
    ssh: Option<ssh::Ssh>,
    listener: Rc<dyn Listener>,
}

/// The engine's state of one role.
#[derive(Debug)]
pub struct SeenRole {
    /// The specified image.
    pub image: Option<Image>,
    /// The volume.
    pub volume: VolumeState,
    /// The container.
    pub container: ContainerState,
    /// The other holder of the specified port.
    pub port_holder: Option<PortHolder>,
    /// Another running container that mounts the volume at the server's data path.
    pub volume_user: Option<String>,
    /// The managed container that an external server's URL leads to.
    pub managed_behind: Option<ManagedServer>,
}

/// The engine's state of an instance.
#[derive(Debug)]
pub struct Seen {
    /// The network.
    pub network: Network,
    /// Names of running containers of other owners on that network.
    pub network_users: Vec<String>,
    /// The remembered settings.
    pub settings: StoredSettings,
    /// The roles, in the order of [`Role::ALL`].
    pub roles: [SeenRole; 2],
    /// Other instances.
    pub others: Vec<String>,
    /// Names of containers that carry the instance's labels but do not belong to it.
    pub lookalikes: Vec<String>,
}

impl Docker {
    /// Prepares a client; no request is sent yet, except through ssh.
    ///
    /// # Errors
    /// [`Error::Engine`] if its address is invalid or ssh cannot connect.
    pub async fn connect(endpoint: Endpoint, listener: Rc<dyn Listener>) -> Result<Self> {
        #[cfg(unix)]
        let ssh = Self::connect_over_ssh(&endpoint, listener.as_ref()).await?;
        #[cfg(unix)]
        let over_ssh = ssh.as_ref().map(ssh::Ssh::client);
        #[cfg(not(unix))]
        let over_ssh = None;
        let client = over_ssh.unwrap_or_else(|| client(&endpoint.host, endpoint.certificates.as_deref()));
        let client = client.map_err(|error| unreachable(&endpoint, &error))?;
        let client = client.with_request_modifier(url_safe_credentials);
        let (host, chosen_by) = (endpoint.host.clone(), endpoint.chosen_by.to_string());
        let engine = EngineInfo {
            endpoint: host,
            chosen_by,
            version: String::new(),
            api_version: String::new(),
            kind: EngineKind::default(),
        };
        Ok(Self {
            client,
            endpoint,
            engine: RefCell::new(engine),
            is_podman: Cell::new(false),
            is_checked: Cell::new(false),
            #[cfg(unix)]
            ssh,
            listener,
        })
    }

    #[cfg(unix)]
    async fn connect_over_ssh(endpoint: &Endpoint, listener: &dyn Listener) -> Result<Option<ssh::Ssh>> {
        if !endpoint.is_ssh() {
            return Ok(None);
        }
        let Some(destination) = ssh::Destination::parse(&endpoint.host) else {
            return Err(Error::usage(
                format!("{} is not an ssh address", endpoint.host),
                "use ssh://user@host:port, or ssh://alias for a host of your ssh configuration",
            ));
        };
        let started = Instant::now();
        let typed = destination.typed();
        let connected = ssh::Ssh::connect(destination).await;
        listener.on(Event::Request {
            system: "ssh",
            request: "connect",
            outcome: if connected.is_ok() { "ok" } else { "failed" },
            time: started.elapsed(),
        });
        connected.map(Some).map_err(|why| Error::Engine {
            endpoint: endpoint.to_string(),
            why,
            hint: format!(
                "check that `ssh {typed} docker version` works without a prompt (use ssh-add for a key with a \
                 passphrase)"
            ),
            install: None,
            is_down: false,
        })
    }

    /// Whether its host is reached through ssh.
    #[must_use]
    pub fn is_over_ssh(&self) -> bool {
        #[cfg(unix)]
        return self.ssh.is_some();
        #[cfg(not(unix))]
        false
    }

    /// A port on this machine's loopback that leads through ssh to an address as seen from the engine's host.
    #[must_use]
    pub fn local_port(&self, host: &str, port: u16) -> Option<u16> {
        #[cfg(unix)]
        return self.ssh.as_ref()?.local_port(host, port).ok();
        #[cfg(not(unix))]
        {
            let _ = (host, port);
            None
        }
    }

    /// The engine's location.
    #[must_use]
    pub fn location(&self) -> EngineLocation {
        #[cfg(unix)]
        if let Some(ssh) = &self.ssh {
            let forward = SshForward { destination: ssh.destination().typed() };
            return EngineLocation::OverSsh { host: ssh.host_name().into(), forward };
        }
        self.endpoint.other_machine().map_or(EngineLocation::Here, EngineLocation::Elsewhere)
    }

    /// Replaces an error by ssh's message, if ssh caused it.
    fn explained(&self, error: Error) -> Error {
        #[cfg(unix)]
        if let (Some(ssh), Error::Docker { refusal: Refusal::Gone, .. } | Error::Engine { .. }) = (&self.ssh, &error) {
            // A connection that worked before has broken; otherwise the error is about connecting.
            let was_there = !self.engine.borrow().version.is_empty();
            let (why, hint) = if ssh.has_ended() || was_there {
                let why = ssh.failure().map(|why| format!(": {why}")).unwrap_or_default();
                (format!("the ssh connection was interrupted{why}"), "run the same command again".to_string())
            } else if let Some(why) = ssh.failure() {
                let typed = ssh.destination().typed();
                (why, format!("check that `ssh {typed} docker version` works without a prompt"))
            } else {
                return error;
            };
            return Error::Engine { endpoint: self.endpoint.to_string(), why, hint, install: None, is_down: false };
        }
        error
    }

    /// Checks once whether the engine can be used.
    ///
    /// # Errors
    /// [`Error::Engine`] if it cannot be reached, denies access, or is too old.
    pub async fn check(&self) -> Result<()> {
        if self.is_checked.get() {
            return Ok(());
        }
        let started = Instant::now();
        let late = || Bollard::RequestTimeoutError;
        let version = Self::bounded(self.client.version(), late).await;
        self.listener.on(Event::Request {
            system: "docker",
            request: "request the version",
            outcome: if version.is_ok() { "ok" } else { "failed" },
            time: started.elapsed(),
        });
        let version = version.map_err(|error| self.explained(unreachable(&self.endpoint, &error)))?;
        let text = |value: &Option<String>| value.as_deref().map(|text| excerpt(text, 60)).unwrap_or_default();
        let mut engine = self.engine.borrow_mut();
        (engine.version, engine.api_version) = (text(&version.version), text(&version.api_version));
        let api = Version::parse(&engine.api_version);
        if api.is_none_or(|api| api < OLDEST_API) {
            let why = if api.is_none() {
                "the answer does not come from a Docker engine".to_string()
            } else {
                format!("it supports only API {}, but {OLDEST_API} is required", engine.api_version)
            };
            return Err(Error::Engine {
                endpoint: self.endpoint.to_string(),
                why,
                hint: "use Docker 19.03 or newer, or select another engine with -H or --context".into(),
                install: None,
                is_down: false,
            });
        }
        engine.kind = engine_kind(&version, self.endpoint.other_machine().is_none() && !self.is_over_ssh());
        self.is_podman.set(engine.kind == EngineKind::Podman);
        self.is_checked.set(true);
        Ok(())
    }

    /// The engine's description of itself.
    #[must_use]
    pub fn engine(&self) -> EngineInfo {
        self.engine.borrow().clone()
    }

    fn version(&self) -> Option<Version> {
        Version::parse(&self.engine.borrow().version)
    }

    /// Sends one request, reports it, and translates its error.
    async fn call<T>(&self, doing: &str, request: impl Future<Output = Result<T, Bollard>>) -> Result<T> {
        let started = Instant::now();
        // Boxed once: bollard's futures are large, and each enclosing future would contain a copy.
        let result = Self::bounded(Box::pin(request), || Bollard::RequestTimeoutError).await;
        let outcome = match &result {
            Ok(_) => "ok".to_string(),
            Err(Bollard::DockerResponseServerError { status_code, .. }) => status_code.to_string(),
            Err(error) => excerpt(&error.to_string(), 80),
        };
        self.listener.on(Event::Request {
            system: "docker",
            request: doing,
            outcome: &outcome,
            time: started.elapsed(),
        });
        result.map_err(|error| self.explained(translate(doing, &error)))
    }

    /// Like [`Self::call`], but `None` if the object does not exist.
    async fn find<T>(&self, doing: &str, request: impl Future<Output = Result<T, Bollard>>) -> Result<Option<T>> {
        if_found(self.call(doing, request).await)
    }

    /// The configurations that the instance's containers were created from.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub async fn specifications(&self, instance: &str) -> Result<Vec<(Role, Option<ContainerConfig>)>> {
        let containers = self.containers(instance).await?;
        let mut found = Vec::new();
        for role in Role::ALL {
            let own = containers.iter().filter(|container| container::serves(container, instance, role));
            found.extend(own.map(|container| (role, labels::config(container.labels.as_ref()))));
        }
        Ok(found)
    }

    async fn inspect(&self, doing: &str, id: &str) -> Result<ContainerInspectResponse> {
        let inspect = async || self.call(doing, podman::readable(self.client.inspect_container(id, None))).await;
        self.ask_until_ended(inspect).await
    }

    /// The same, but `None` if the container does not exist.
    async fn find_by_id(&self, doing: &str, id: &str) -> Result<Option<ContainerInspectResponse>> {
        if_found(self.inspect(doing, id).await)
    }

    /// Repeats a request: Podman fails to inspect or list a container at the moment it exits.
    async fn ask_until_ended<T>(&self, ask: impl AsyncFn() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + ENDING_TIMEOUT;
        let mut backoff = Duration::from_millis(20);
        loop {
            match ask().await {
                Err(Error::Docker { refusal: Refusal::Ending, .. }) if Instant::now() < deadline => {
                    crate::backoff::pause(&mut backoff).await;
                }
                result => return result,
            }
        }
    }

    /// The engine's state of the stack.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub async fn observe(&self, stack: &Stack) -> Result<Seen> {
        let instance = &stack.instance;
        let (listed, network, volumes) =
            try_join3(self.listed(instance), self.network(instance), self.volumes_of(instance)).await?;
        let (influxdb, grafana) = join(
            self.role(stack, Role::Influxdb, &listed, &volumes, &network),
            self.role(stack, Role::Grafana, &listed, &volumes, &network),
        )
        .await;
        Ok(Seen {
            network_users: network::users(&listed.containers, instance, &network),
            network,
            settings: settings::among(&volumes, instance),
            roles: [influxdb?, grafana?],
            others: others(&listed.containers, instance),
            lookalikes: listed.lookalikes,
        })
    }

    async fn role(
        &self,
        stack: &Stack,
        role: Role,
        listed: &Listed,
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
        let (image, volume, container) = (image?, volume?, container?);
        Ok(SeenRole { image, volume, container, port_holder, volume_user, managed_behind })
    }

    /// The specified image, if the engine has it.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub async fn image(&self, spec: &DesiredContainer) -> Result<Option<Image>> {
        match &spec.pinned_image {
            Some(id) => self.image_called(id).await,
            None => self.image_called(&spec.config.image.to_string()).await,
        }
    }

    /// The image with that name, if the engine has it.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub async fn image_called(&self, name: &str) -> Result<Option<Image>> {
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
        listed: &Listed,
        network: &Network,
    ) -> Result<ContainerState> {
        let all = listed.containers.as_slice();
        let id = match find_container(all, instance, role) {
            Ok(id) => id,
            Err(state) => return Ok(state),
        };
        let Some(found) = listed.inspected.get(&id).cloned() else { return Ok(ContainerState::Absent) };
        let mut state = container::seen_container(instance, role, network, found);
        if let ContainerState::Ours(actual) = &mut state {
            actual.name_taken = container::is_name_taken(all, instance, role);
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
    pub async fn ours(&self, role: Role, id: &str) -> Result<Option<OurContainer>> {
        let doing = format!("inspect the container of {}", role.title());
        let found = self.find_by_id(&doing, id).await?;
        Ok(found.and_then(|found| container::seen_container("", role, &Network::Free, found).ours().cloned()))
    }

    /// Pulls an image; an interrupted transfer is retried once.
    ///
    /// # Errors
    /// If the image cannot be pulled.
    pub async fn pull(&self, spec: &DesiredContainer) -> Result<()> {
        let (role, image) = (spec.role, &spec.config.image);
        let report = |progress: &pull::Progress| {
            self.listener.on(Event::Pulling { role, layers: progress.layers(), bytes: progress.bytes() });
        };
        match pull::pull(&self.client, image, self.is_podman.get(), report).await {
            Err(Error::Pull { failure, .. }) if failure.is_passing() => {
                self.listener.on(Event::Note(&format!("the transfer of {image} was interrupted; retrying")));
                pull::pull(&self.client, image, self.is_podman.get(), report).await
            }
            result => result,
        }
    }
}

/// The kind of an engine, from its version. A local engine on a system other than Linux runs in a
/// virtual machine.
fn engine_kind(version: &SystemVersion, is_here: bool) -> EngineKind {
    let has = |part: &str| version.components.iter().flatten().any(|component| component.name.contains(part));
    let platform = version.platform.as_ref().map(|platform| platform.name.as_str()).unwrap_or_default();
    if has("Podman") {
        EngineKind::Podman
    } else if platform.contains("Desktop") || (is_here && !cfg!(target_os = "linux")) {
        EngineKind::VirtualMachine
    } else if has("rootlesskit") {
        EngineKind::RootlessDocker
    } else {
        EngineKind::Docker
    }
}

/// Turns the error "not found" into `None`.
fn if_found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::Docker { refusal: Refusal::NotFound, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The connection for an address.
fn client(host: &str, certificates: Option<&std::path::Path>) -> Result<bollard::Docker, Bollard> {
    let (scheme, address) = host.split_once("://").unwrap_or_default();
    let authority = address.split('/').next().unwrap_or_default();
    match (scheme, certificates) {
        #[cfg(unix)]
        ("unix", _) => transport::over_socket(std::path::Path::new(address), 0),
        #[cfg(windows)]
        ("npipe", _) => {
            bollard::Docker::connect_with_named_pipe(host, REQUEST_TIMEOUT.as_secs(), bollard::API_DEFAULT_VERSION)
        }
        ("tcp" | "https", Some(folder)) => transport::over_tls(authority, folder),
        ("tcp" | "http", None) => transport::over_tcp(authority),
        _ => Err(Bollard::UnsupportedURISchemeError { uri: host.into() }),
    }
}

/// The engine expects URL-safe base64 for credentials, and ignores them in any other encoding.
fn url_safe_credentials(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    if let Some(value) = request.headers_mut().get_mut("x-registry-auth") {
        let text = value.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
        if let Ok(safe) = text.parse() {
            *value = safe;
        }
    }
    request
}

/// Other instances.
fn others(all: &[ContainerSummary], instance: &str) -> Vec<String> {
    let names: std::collections::BTreeSet<String> = all
        .iter()
        .filter_map(|container| container.labels.as_ref()?.get(labels::INSTANCE))
        .filter(|name| *name != instance)
        .map(|name| printable(name))
        .collect();
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_encoded_as_url_safe_base64() {
        let body = bollard::body_full(Vec::new().into());
        let mut request = bollard::BollardRequest::new(body);
        request.headers_mut().insert("x-registry-auth", "a+/b=".parse().unwrap());
        assert_eq!(url_safe_credentials(request).headers()["x-registry-auth"], "a-_b=");
    }

    #[test]
    fn the_kind_of_an_engine_follows_from_its_components() {
        let kind = |text: &str| {
            let version: SystemVersion = serde_json::from_str(text).unwrap();
            engine_kind(&version, false)
        };
        assert_eq!(kind(r#"{"Components": [{"Name": "Engine", "Version": "20.10"}]}"#), EngineKind::Docker);
        let rootless =
            r#"{"Components": [{"Name": "Engine", "Version": "28"}, {"Name": "rootlesskit", "Version": "2"}]}"#;
        assert_eq!(kind(rootless), EngineKind::RootlessDocker);
        assert_eq!(kind(r#"{"Components": [{"Name": "Podman Engine", "Version": "4"}]}"#), EngineKind::Podman);
        assert_eq!(kind(r#"{"Platform": {"Name": "Docker Desktop 4.40"}}"#), EngineKind::VirtualMachine);
    }
}
