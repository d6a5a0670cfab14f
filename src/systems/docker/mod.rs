//! The Docker engine: images, networks, volumes and containers, and files inside volumes.
//!
//! The only folder that knows `bollard`. Touches nothing that does not carry the instance's label.
//! Must not know InfluxDB or Grafana beyond their specifications.

mod container;
pub mod endpoint;
mod errors;
pub mod labels;
mod password;
pub mod pull;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::rc::Rc;
use std::time::Instant;

use bollard::errors::Error as Bollard;
use bollard::models::{ContainerSummary, NetworkCreateRequest, NetworkDisconnectRequest, VolumeCreateRequest};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, RemoveVolumeOptions};
use futures_util::future::{join, join3};

pub use self::container::Life;
use self::container::{port_holder, seen_container};
use self::endpoint::Endpoint;
use self::errors::{translate, unreachable};
use crate::core::event::{Event, Listener};
use crate::core::observed::{Container, Engine, Image, Network, OurContainer, Volume};
use crate::core::stack::{ContainerSpec, Role, Stack};
use crate::error::{Error, Refusal, Result, excerpt, printable};

/// How long the engine may take for the head of an answer. Stopping a container takes ten seconds.
const PATIENCE_SECONDS: u64 = 60;
/// The oldest engine's API that we ask for: Docker 19.03.
const OLDEST_API: (u64, u64) = (1, 40);

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

    /// The volume of that name.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn volume(&self, instance: &str, name: &str) -> Result<Volume> {
        let found = self.find(&format!("inspect volume {name}"), self.client.inspect_volume(name)).await?;
        Ok(match found {
            None => Volume::Absent,
            Some(volume) if labels::belongs(Some(&volume.labels), instance) => {
                Volume::Ours { user: volume.labels.get(labels::USER).cloned() }
            }
            Some(_) => Volume::Foreign,
        })
    }

    /// The container of a specification, if it is there and ours.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn ours(&self, instance: &str, spec: &ContainerSpec) -> Result<Option<OurContainer>> {
        let network = self.network(instance).await?;
        Ok(match self.container(instance, &spec.name, spec.role, &network).await? {
            Container::Ours(have) => Some(have),
            Container::Absent | Container::Foreign => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_travel_in_the_alphabet_that_the_engine_reads() {
        let body = bollard::body_full(Vec::new().into());
        let mut request = bollard::BollardRequest::new(body);
        request.headers_mut().insert("x-registry-auth", "a+/b=".parse().unwrap());
        assert_eq!(url_safe_credentials(request).headers()["x-registry-auth"], "a-_b=");
    }
}
