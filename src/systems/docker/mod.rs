//! The Docker engine: images, networks, volumes and containers, and files inside volumes.
//!
//! The only folder that knows `bollard`. Touches nothing that does not carry the instance's label.
//! Must not know InfluxDB or Grafana beyond their specifications.

pub mod endpoint;
pub mod labels;
mod password;
pub mod pull;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::errors::Error as Bollard;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerSummary,
    EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType, NetworkCreateRequest,
    NetworkDisconnectRequest, NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::future::{join, join3};
use futures_util::{Stream, StreamExt};

use self::endpoint::Endpoint;
use self::labels::Labels;
use crate::core::event::{Event, Listener};
use crate::core::observed::{Container, Engine, Image, Network, OurContainer, Run, Volume, collide};
use crate::core::stack::{ContainerSpec, Password, Role, Stack};
use crate::error::{Error, Refusal, Result, chain, excerpt, printable};

/// How long the engine may take for the head of an answer. Stopping a container takes ten seconds.
const PATIENCE_SECONDS: u64 = 60;
/// How long a server may take to stop by itself.
const STOP_SECONDS: i32 = 10;
/// The oldest engine's API that we ask for: Docker 19.03.
const OLDEST_API: (u64, u64) = (1, 40);
/// The last lines of a log that come with an error.
const LOG_LINES: usize = 20;

/// A connection to one engine.
pub struct Docker {
    client: bollard::Docker,
    endpoint: Endpoint,
    engine: Engine,
    is_podman: bool,
    listener: Rc<dyn Listener>,
}

/// What the engine knows of one role.
#[derive(Debug)]
pub struct SeenRole {
    /// The wanted image.
    pub image: Option<Image>,
    /// The volume.
    pub volume: Volume,
    /// The container.
    pub container: Container,
    /// Who else publishes the wanted port.
    pub port_holder: Option<String>,
}

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

/// What the engine knows of an instance.
#[derive(Debug)]
pub struct Seen {
    /// The network.
    pub network: Network,
    /// By role, in the order of [`Role::ALL`].
    pub roles: [SeenRole; 2],
    /// Other instances.
    pub others: Vec<String>,
}

impl Docker {
    /// Connects to an engine and sees whether it can be used.
    ///
    /// # Errors
    /// When it cannot be reached, may not be used, or is too old.
    pub async fn connect(endpoint: Endpoint, listener: Rc<dyn Listener>) -> Result<Self> {
        let client = client(&endpoint).map_err(|error| unreachable(&endpoint, &error))?;
        let client = client.with_request_modifier(url_safe_credentials);
        let started = Instant::now();
        let version = client.version().await;
        listener.on(Event::Request {
            system: "docker",
            request: "ask for the version",
            outcome: if version.is_ok() { "ok" } else { "failed" },
            time: started.elapsed(),
        });
        let version = version.map_err(|error| unreachable(&endpoint, &error))?;
        let text = |value: &Option<String>| value.as_deref().map(|text| excerpt(text, 60)).unwrap_or_default();
        let engine = Engine {
            endpoint: endpoint.host.clone(),
            version: text(&version.version),
            api_version: text(&version.api_version),
        };
        let api = crate::core::plan::version(&engine.api_version);
        if api.is_none_or(|api| api < OLDEST_API) {
            let why = if api.is_none() {
                "its answer is not a Docker engine's".to_string()
            } else {
                format!("it speaks API {} only, and {}.{} is needed", engine.api_version, OLDEST_API.0, OLDEST_API.1)
            };
            return Err(Error::Engine {
                endpoint: endpoint.host,
                why,
                hint: "use Docker 19.03 or newer, or name another engine with -H or --context".into(),
            });
        }
        let is_podman = version.components.iter().flatten().any(|component| component.name.contains("Podman"));
        Ok(Self { client, endpoint, engine, is_podman, listener })
    }

    /// The engine that answered.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine's own machine, unless it is this one.
    #[must_use]
    pub fn other_machine(&self) -> Option<String> {
        self.endpoint.other_machine()
    }

    /// One request, reported and with its error translated.
    async fn call<T>(&self, doing: &str, request: impl Future<Output = Result<T, Bollard>>) -> Result<T> {
        let started = Instant::now();
        let result = request.await;
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
        result.map_err(|error| translate(doing, &error))
    }

    /// Like [`Self::call`], where "there is none" is an answer.
    async fn find<T>(&self, doing: &str, request: impl Future<Output = Result<T, Bollard>>) -> Result<Option<T>> {
        match self.call(doing, request).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::Docker { refusal: Refusal::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What somebody gave the instance before. Each container remembers all of it; what belongs to
    /// one role is taken from that role's container, and from the other one only where it is gone.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn given(&self, instance: &str) -> Result<BTreeMap<String, String>> {
        let filter = HashMap::from([("label".to_string(), vec![format!("{}={instance}", labels::INSTANCE)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let containers =
            self.call("list the instance's containers", self.client.list_containers(Some(options))).await?;
        Ok(labels::remembered(containers.iter().map(|container| container.labels.as_ref())))
    }

    /// What the engine knows of the stack.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn observe(&self, stack: &Stack) -> Result<Seen> {
        let all = ListContainersOptionsBuilder::default().all(true).build();
        let (containers, network) =
            join(self.call("list containers", self.client.list_containers(Some(all))), self.network(&stack.instance))
                .await;
        let (containers, network) = (containers?, network?);
        let (influxdb, grafana) = join(
            self.role(stack, Role::Influxdb, &containers, &network),
            self.role(stack, Role::Grafana, &containers, &network),
        )
        .await;
        Ok(Seen { network, roles: [influxdb?, grafana?], others: others(&containers, &stack.instance) })
    }

    async fn role(&self, stack: &Stack, role: Role, all: &[ContainerSummary], network: &Network) -> Result<SeenRole> {
        let Some(spec) = stack.container(role) else {
            let nothing =
                SeenRole { image: None, volume: Volume::Absent, container: Container::Absent, port_holder: None };
            return Ok(nothing);
        };
        let (image, volume, container) = join3(
            self.image(&spec.image),
            self.volume(&stack.instance, &spec.name),
            self.container(&stack.instance, &spec.name, spec.role, network),
        )
        .await;
        Ok(SeenRole { image: image?, volume: volume?, container: container?, port_holder: port_holder(all, spec) })
    }

    /// The image, if the engine has it.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn image(&self, name: &str) -> Result<Option<Image>> {
        let found = self.find(&format!("inspect image {name}"), self.client.inspect_image(name)).await?;
        Ok(found.map(|image| Image {
            id: image.id.unwrap_or_default(),
            user: image.config.and_then(|config| config.user).map(|user| printable(&user)).unwrap_or_default(),
        }))
    }

    async fn volume(&self, instance: &str, name: &str) -> Result<Volume> {
        let found = self.find(&format!("inspect volume {name}"), self.client.inspect_volume(name)).await?;
        Ok(match found {
            None => Volume::Absent,
            Some(volume) if labels::belongs(Some(&volume.labels), instance) => {
                Volume::Ours { user: volume.labels.get(labels::USER).cloned() }
            }
            Some(_) => Volume::Foreign,
        })
    }

    async fn container(&self, instance: &str, name: &str, role: Role, network: &Network) -> Result<Container> {
        let doing = format!("inspect container {name}");
        let found = self.find(&doing, self.client.inspect_container(name, None)).await?;
        Ok(match found {
            None => Container::Absent,
            Some(found) => seen_container(instance, role, network, found),
        })
    }

    async fn network(&self, instance: &str) -> Result<Network> {
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

    /// Networks of exactly that name: the engine's filter finds parts of names too, and names are
    /// not unique.
    async fn networks(&self, name: &str) -> Result<Vec<bollard::models::Network>> {
        let filter = HashMap::from([("name".to_string(), vec![name.to_string()])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filter).build();
        let mut found = self.call("list networks", self.client.list_networks(Some(options))).await?;
        found.retain(|network| network.name.as_deref() == Some(name));
        Ok(found)
    }

    /// Fetches an image; a transfer that broke off is tried once more.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn pull(&self, role: Role, image: &str) -> Result<()> {
        let report = |progress: &pull::Progress| {
            self.listener.on(Event::Pulling { role, layers: progress.layers(), bytes: progress.bytes() });
        };
        match pull::pull(&self.client, image, report).await {
            Err(Error::Pull { failure, .. }) if failure.is_passing() => {
                self.listener.on(Event::Note(&format!("the transfer of {image} broke off, trying once more")));
                pull::pull(&self.client, image, report).await
            }
            result => result,
        }
    }

    /// Makes the instance's network.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn create_network(&self, instance: &str) -> Result<()> {
        let request = NetworkCreateRequest {
            name: instance.into(),
            driver: Some("bridge".into()),
            labels: Some(HashMap::from([(labels::INSTANCE.into(), instance.into())])),
            ..NetworkCreateRequest::default()
        };
        let doing = format!("create network {instance}");
        let made = self.call(&doing, self.client.create_network(request)).await?;
        // The engine lets two have one name. Whoever finds that another was first takes its own back.
        if self.network(instance).await?.id().is_some_and(|kept| kept != made.id) {
            self.find(&doing, self.client.remove_network(&made.id)).await?;
        }
        Ok(())
    }

    /// Removes the instance's networks; `spare` keeps the one that is in use, and unplugs from the
    /// others what cannot work there anyway.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove_networks(&self, instance: &str, spare: bool) -> Result<()> {
        let Network::Ours(ids) = self.network(instance).await? else { return Ok(()) };
        for id in ids.iter().skip(usize::from(spare)) {
            let doing = format!("remove network {instance}");
            match self.find(&doing, self.client.remove_network(id)).await {
                Err(Error::Docker { refusal: Refusal::Conflict, .. }) if spare => {
                    self.unplug(id).await?;
                    self.find(&doing, self.client.remove_network(id)).await?;
                }
                result => drop(result?),
            }
        }
        Ok(())
    }

    async fn unplug(&self, network: &str) -> Result<()> {
        let doing = "unplug containers from a second network of one name";
        let Some(found) = self.find(doing, self.client.inspect_network(network, None)).await? else { return Ok(()) };
        for container in found.containers.into_iter().flatten().map(|(id, _)| id) {
            let request = NetworkDisconnectRequest { container, force: Some(true) };
            self.find(doing, self.client.disconnect_network(network, request)).await?;
        }
        Ok(())
    }

    /// Makes a volume, and sees that it is really ours: the engine says yes to one that exists,
    /// whoever owns it.
    ///
    /// # Errors
    /// When the engine refuses, or somebody else has a volume of that name.
    pub async fn create_volume(&self, instance: &str, spec: &ContainerSpec) -> Result<()> {
        let user = self.image(&spec.image).await?.map(|image| image.user).unwrap_or_default();
        let doing = format!("create volume {}", spec.name);
        let request = VolumeCreateRequest {
            name: Some(spec.name.clone()),
            labels: Some(HashMap::from([
                (labels::INSTANCE.into(), instance.into()),
                (labels::ROLE.into(), spec.role.name().into()),
                (labels::USER.into(), user),
            ])),
            ..VolumeCreateRequest::default()
        };
        let volume = self.call(&doing, self.client.create_volume(request)).await?;
        if labels::belongs(Some(&volume.labels), instance) {
            return Ok(());
        }
        Err(Error::Docker {
            doing,
            why: "somebody else has just made one of that name".into(),
            refusal: Refusal::Conflict,
        })
    }

    /// Removes a volume that is ours.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove_volume(&self, instance: &str, name: &str) -> Result<()> {
        if !matches!(self.volume(instance, name).await?, Volume::Ours { .. }) {
            return Ok(());
        }
        let request = self.client.remove_volume(name, None::<RemoveVolumeOptions>);
        self.find(&format!("delete volume {name}"), request).await.map(drop)
    }

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
            super::pause(&mut pause).await;
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

/// The connection that an endpoint's address asks for.
fn client(endpoint: &Endpoint) -> Result<bollard::Docker, Bollard> {
    let (host, version) = (endpoint.host.as_str(), bollard::API_DEFAULT_VERSION);
    let scheme = host.split_once("://").map_or("", |(scheme, _)| scheme);
    match (scheme, &endpoint.certificates) {
        #[cfg(unix)]
        ("unix", _) => bollard::Docker::connect_with_unix(host, PATIENCE_SECONDS, version),
        #[cfg(windows)]
        ("npipe", _) => bollard::Docker::connect_with_named_pipe(host, PATIENCE_SECONDS, version),
        #[cfg(unix)]
        ("ssh", _) => bollard::Docker::connect_with_ssh(host, PATIENCE_SECONDS, version, None),
        ("tcp" | "https", Some(folder)) => {
            let [key, cert, ca] = ["key.pem", "cert.pem", "ca.pem"].map(|name| folder.join(name));
            bollard::Docker::connect_with_ssl(host, &key, &cert, &ca, PATIENCE_SECONDS, version)
        }
        ("tcp" | "http", None) => bollard::Docker::connect_with_http(host, PATIENCE_SECONDS, version),
        _ => Err(Bollard::UnsupportedURISchemeError { uri: host.into() }),
    }
}

/// The engine wants its credentials in the alphabet for URLs, and takes others for none at all.
fn url_safe_credentials(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    if let Some(value) = request.headers_mut().get_mut("x-registry-auth") {
        let text = value.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
        if let Ok(safe) = text.parse() {
            *value = safe;
        }
    }
    request
}

/// Why an engine cannot be used, and what to do about it.
fn unreachable(endpoint: &Endpoint, error: &Bollard) -> Error {
    let words = chain(error);
    let lower = words.to_lowercase();
    let socket = endpoint.host.trim_start_matches("unix://");
    let missing = matches!(error, Bollard::SocketNotFoundError(_)) || lower.contains("no such file");
    let (why, hint) = if lower.contains("permission denied") {
        (
            format!("you may not use {socket}"),
            "join the group docker (sudo usermod -aG docker $USER, then sign in anew), or use a rootless engine with -H"
                .to_string(),
        )
    } else if missing {
        (
            format!("there is no {socket}"),
            "start the engine (sudo systemctl start docker), or name another with -H or --context".to_string(),
        )
    } else if matches!(error, Bollard::UnsupportedURISchemeError { .. }) {
        (
            "this kind of address is not known".to_string(),
            "write unix:///path, tcp://host:port or ssh://user@host".to_string(),
        )
    } else if lower.contains("connection refused") {
        (
            "nothing listens there".to_string(),
            "start the engine (sudo systemctl start docker), or name another with -H or --context".to_string(),
        )
    } else if matches!(error, Bollard::JsonDataError { .. }) || lower.contains("deserialize") {
        ("its answer is not a Docker engine's".to_string(), "name another with -H or --context".to_string())
    } else {
        (excerpt(&words, 300), "see that `docker version` works, or name another engine with -H or --context".into())
    };
    let endpoint = format!("{} ({})", endpoint.host, endpoint.chosen_by);
    Error::Engine { endpoint, why, hint }
}

/// The engine's error in our words.
fn translate(doing: &str, error: &Bollard) -> Error {
    let (refusal, why) = match error {
        Bollard::DockerResponseServerError { status_code, message } => {
            let text = message.to_lowercase();
            let refusal = if is_about_the_address(&text) {
                Refusal::Address
            } else if text.contains("no space left") {
                Refusal::Disk
            } else if *status_code == 404 {
                Refusal::NotFound
            } else if *status_code == 409
                || ["has active endpoints", "is in use", "is ambiguous"].iter().any(|phrase| text.contains(phrase))
            {
                Refusal::Conflict
            } else {
                Refusal::Other
            };
            (refusal, excerpt(message, 400))
        }
        Bollard::JsonDataError { .. } | Bollard::JsonSerdeError { .. } => {
            (Refusal::Other, "the engine's answer cannot be understood".into())
        }
        Bollard::RequestTimeoutError => (Refusal::Gone, format!("no answer from the engine for {PATIENCE_SECONDS} s")),
        other => (Refusal::Gone, excerpt(&chain(other), 300)),
    };
    Error::Docker { doing: doing.into(), why, refusal }
}

/// Every wording that engines have for "this address cannot be had".
fn is_about_the_address(lower: &str) -> bool {
    [
        "port is already allocated",
        "address already in use",
        "cannot assign requested address",
        "ports are not available",
    ]
    .iter()
    .any(|phrase| lower.contains(phrase))
}

/// Another container that publishes what the specification wants.
fn port_holder(all: &[ContainerSummary], spec: &ContainerSpec) -> Option<String> {
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

/// Instances other than ours.
fn others(all: &[ContainerSummary], instance: &str) -> Vec<String> {
    let names: std::collections::BTreeSet<String> = all
        .iter()
        .filter_map(|container| container.labels.as_ref()?.get(labels::INSTANCE))
        .filter(|name| *name != instance)
        .map(|name| printable(name))
        .collect();
    names.into_iter().collect()
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

fn seen_container(instance: &str, role: Role, network: &Network, found: ContainerInspectResponse) -> Container {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wording_about_addresses_is_known() {
        for words in [
            "driver failed programming external connectivity on endpoint x (1): Bind for 127.0.0.1:1 failed: port is already allocated",
            "failed to set up container networking: driver failed programming external connectivity: Bind for 0.0.0.0:1 failed: port is already allocated",
            "Error starting userland proxy: listen tcp4 127.0.0.1:1: bind: address already in use",
            "listen tcp4 192.0.2.7:1: bind: cannot assign requested address",
            "Ports are not available: exposing port TCP 127.0.0.1:1: forbidden by its access permissions",
        ] {
            let error = Bollard::DockerResponseServerError { status_code: 500, message: words.into() };
            assert!(matches!(translate("start", &error), Error::Docker { refusal: Refusal::Address, .. }), "{words}");
        }
    }

    #[test]
    fn credentials_travel_in_the_alphabet_that_the_engine_reads() {
        let body = bollard::body_full(Vec::new().into());
        let mut request = bollard::BollardRequest::new(body);
        request.headers_mut().insert("x-registry-auth", "a+/b=".parse().unwrap());
        assert_eq!(url_safe_credentials(request).headers()["x-registry-auth"], "a-_b=");
    }
}
