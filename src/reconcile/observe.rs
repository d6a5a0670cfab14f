//! Observes an instance: the engine's state, the files in Grafana's volume, and the answers of both servers.

use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join, try_join_all};
use tokio::time::timeout;

use super::Session;
use super::connection::{Connection, Connections};
use crate::backoff::pause;
use crate::clock::micros_since_1970;
use crate::engine::{Seen, SeenRole};
use crate::error::{Error, Refusal, Result};
use crate::grafana::{Choice, Grafana};
use crate::http::{Auth, Http, PROBE, REQUEST};
use crate::influxdb::Influxdb;
use crate::model::event::Event;
use crate::model::last_run::image_to_look_up;
use crate::model::login::LoginState;
use crate::model::observed::{
    self, ContainerState, Network, Observed, ObservedServer, OurContainer, PortHolder, RunState, ServerContent,
    ServerResponse, StoredSettings, VolumeState,
};
use crate::model::plan;
use crate::model::role::{PerRole, Role};
use crate::model::stack::{EngineLocation, Service};
use crate::model::upgrade::{NamedImage, Upgrade};
use crate::model::version::Version;
use crate::model::volume_content::{VolumeContent, VolumeFiles};

/// Ports that are tried to name a free one.
const PORTS_TRIED: u16 = 100;

/// The number of observations, if another process changes the instance during each of them.
const OBSERVATIONS: usize = 4;
/// The first pause between them.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The extent of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The engine and the servers' content.
    Servers,
    /// The engine and InfluxDB, without signing in to Grafana.
    WithoutGrafana,
    /// The engine only, without signing in anywhere.
    EngineOnly,
}

impl Session {
    /// Takes one snapshot.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer. A server that does not answer is part of
    /// the snapshot.
    pub(crate) async fn observe(&self, connections: &mut Connections, depth: Depth) -> Result<Observed> {
        let mut backoff = FIRST_PAUSE;
        for _ in 1..OBSERVATIONS {
            match self.observe_once(connections, depth).await {
                // Another process replaced a container while its volume was read.
                Err(Error::Raced { .. }) => pause(&mut backoff).await,
                result => return result,
            }
        }
        self.observe_once(connections, depth).await
    }

    async fn observe_once(&self, connections: &mut Connections, depth: Depth) -> Result<Observed> {
        let Some(docker) = &self.docker else { return self.snapshot(connections, depth).await };
        // In parallel, because some engines take long to return their version.
        let (engine, seen) = join(docker.check(), self.snapshot(connections, depth)).await;
        Ok(Observed { engine: Some(engine?.clone()), ..seen? })
    }

    async fn snapshot(&self, connections: &mut Connections, depth: Depth) -> Result<Observed> {
        let time = micros_since_1970();
        let seen = match &self.docker {
            Some(docker) => docker.observe(&self.stack).await?,
            None => without_engine(),
        };
        let Seen { network, network_users, settings, mut roles, others, lookalikes, address_checks } = seen;
        connections
            .iter_mut()
            .zip(roles.iter())
            .for_each(|(connection, seen)| self.locate(connection, &seen.container));
        if depth == Depth::Servers && self.docker.is_some() {
            let processes = try_join_all(Role::ALL.map(|role| self.process_at(role, roles.get(role)))).await?;
            for (seen, process) in roles.iter_mut().zip(processes) {
                seen.port_holder = seen.port_holder.take().or(process);
            }
        }
        let PerRole { influxdb, grafana } = roles;
        let read = self.read_content(&connections.grafana, &grafana, settings.upgrade.as_ref(), depth).await?;
        let mut files = match &read {
            Some(Ok(content)) => Some(content.files.clone()),
            _ => None,
        };
        let unasked = || (ServerResponse::Unasked, None, LoginState::default());
        let ask_influxdb = async {
            match depth {
                Depth::EngineOnly => Ok((ServerResponse::Unasked, None)),
                _ => self.ask_influxdb(&connections.influxdb, &influxdb.container, &network).await,
            }
        };
        let ask_grafana = async {
            if depth != Depth::Servers {
                return Ok(unasked());
            }
            let influxdb_runs = !matches!(self.may_answer(Role::Influxdb, &influxdb.container), Answerable::No);
            self.ask_grafana(&mut connections.grafana, &grafana.container, &network, &mut files, influxdb_runs).await
        };
        let (from_influxdb, from_grafana) = join(ask_influxdb, ask_grafana).await;
        let (from_grafana, unreadable) = match from_grafana {
            Err(Error::Docker { refusal: Refusal::UnexpectedFile, why, .. }) => (unasked(), Some(why)),
            answer => (answer?, None),
        };
        let (response, version) = from_influxdb?;
        let influxdb = self.observed(&connections.influxdb, influxdb, response, version).await?;
        let (response, version, login) = from_grafana;
        let grafana = self.observed(&connections.grafana, grafana, response, version).await?;
        let mut grafana = ObservedServer { login, ..grafana };
        match read {
            Some(Ok(content)) => grafana.content = Some(content),
            Some(Err(why)) => grafana.unreadable = Some(why),
            None if unreadable.is_some() => grafana.unreadable = unreadable,
            None => grafana.content = self.recorded(&connections.grafana, &grafana, files).await?,
        }
        grafana.last_image = self.last_image(&grafana).await?;
        Ok(Observed {
            time,
            engine: None,
            network,
            network_users,
            settings,
            influxdb,
            grafana,
            others,
            lookalikes,
            address_checks,
        })
    }

    /// Completes the engine's state of a role by its server's answer.
    async fn observed<S: Into<ServerContent>>(
        &self,
        connection: &Connection,
        seen: SeenRole,
        mut response: ServerResponse<S>,
        version: Option<String>,
    ) -> Result<ObservedServer> {
        let SeenRole { image, volume, container, port_holder, volume_user, volume_users, mut managed_behind } = seen;
        if let Some((role, managed)) = &self.managed_behind
            && *role == connection.role
        {
            managed_behind = Some(managed.clone());
        }
        if managed_behind.is_none() && response.state().is_some() {
            match self.forwarded_to(connection, &container).await {
                Ok(found) => managed_behind = found,
                Err(error @ Error::Docker { .. }) => return Err(error),
                Err(error) => response = unverified(error)?,
            }
        }
        let is_held = port_holder.as_ref().is_some_and(|holder| !matches!(holder, PortHolder::OtherRole(_)));
        let spec = self.stack.container(connection.role).filter(|_| is_held);
        Ok(ObservedServer {
            free_port: spec.and_then(|spec| self.free_port(spec.config.publish)),
            image,
            volume,
            container,
            port_holder,
            volume_user,
            volume_users,
            managed_behind,
            response: response.map(Into::into),
            version,
            login: LoginState::default(),
            content: None,
            unreadable: None,
            last_image: None,
        })
    }

    /// The recorded version, which the volume's label shows unless the volume was created for another one. The login
    /// may have read the files already.
    async fn recorded(
        &self,
        connection: &Connection,
        grafana: &ObservedServer,
        read: Option<VolumeFiles>,
    ) -> Result<Option<VolumeContent>> {
        if self.stack.container(Role::Grafana).is_none() || grafana.container.ours().is_none() {
            return Ok(None);
        }
        let files = match read {
            None if grafana.runs_unlabelled_version() => Some(self.read_files(connection).await?),
            read => read,
        };
        Ok(files.map(|files| VolumeContent { files, copy: None }))
    }

    /// Reads Grafana's volume through its container, if the plan depends on the content; the inner error is a finding
    /// about the volume.
    async fn read_content(
        &self,
        connection: &Connection,
        seen: &SeenRole,
        upgrade: Option<&Upgrade>,
        depth: Depth,
    ) -> Result<Option<std::result::Result<VolumeContent, String>>> {
        let Some(actual) = seen.container.ours() else { return Ok(None) };
        let is_needed = match depth {
            Depth::Servers => plan::needs_content(&self.stack, actual, seen.image.as_ref(), upgrade),
            Depth::WithoutGrafana | Depth::EngineOnly => actual.run == RunState::Created,
        };
        // The files of a dead container cannot be read; it is removed first.
        if !is_needed || actual.run == RunState::Dead {
            return Ok(None);
        }
        let copies = upgrade.is_some_and(Upgrade::is_pending);
        let mut backoff = FIRST_PAUSE;
        for _ in 0..OBSERVATIONS {
            let error = match self.volume_content(connection, copies).await {
                Ok(content) => return Ok(Some(Ok(content))),
                Err(Error::Docker { refusal: Refusal::UnexpectedFile, why, .. }) => return Ok(Some(Err(why))),
                Err(error) => error,
            };
            // Podman cannot read a container at the moment at which it exits or starts.
            let passes = matches!(&error, Error::Docker { refusal, .. } if *refusal != Refusal::Gone);
            if !passes || actual.run == RunState::Created {
                return Err(error);
            }
            pause(&mut backoff).await;
        }
        // It keeps crashing, and is removed before its volume is read.
        Ok(None)
    }

    async fn volume_content(&self, connection: &Connection, copies: bool) -> Result<VolumeContent> {
        let files = self.read_files(connection).await?;
        let copy = if copies { self.docker()?.database_copy(connection.container()?).await? } else { None };
        Ok(VolumeContent { files, copy })
    }

    /// The last image, with its id if it is on the engine.
    async fn last_image(&self, seen: &ObservedServer) -> Result<Option<NamedImage>> {
        let Some(spec) = self.stack.container(Role::Grafana) else { return Ok(None) };
        let Some(name) = image_to_look_up(seen, &spec.config.image) else { return Ok(None) };
        let id = self.docker()?.image_called(&name.to_string()).await?.map(|image| image.id);
        Ok(Some(NamedImage { name, id }))
    }

    /// A free port above the occupied one; known only if the engine's ports are this machine's.
    pub(super) fn free_port(&self, occupied: SocketAddr) -> Option<u16> {
        if self.stack.engine != EngineLocation::Here {
            return None;
        }
        let own = Role::ALL.map(|role| self.stack.container(role).map(|spec| spec.config.publish.port()));
        let next = occupied.port().checked_add(1)?..=occupied.port().saturating_add(PORTS_TRIED);
        next.into_iter().find(|port| !own.contains(&Some(*port)) && TcpListener::bind((occupied.ip(), *port)).is_ok())
    }

    async fn ask_influxdb(
        &self,
        connection: &Connection,
        container: &ContainerState,
        network: &Network,
    ) -> Result<(ServerResponse<observed::InfluxdbState>, Option<String>)> {
        match self.may_answer(Role::Influxdb, container) {
            Answerable::No => return Ok((ServerResponse::Unasked, None)),
            Answerable::OutOfReach(why) => return Ok((ServerResponse::Silent(why), None)),
            Answerable::Yes => {}
        }
        let (influxdb, within) = (self.influxdb(connection), self.probe_limit(connection));
        let answer = self.noted(connection, within, influxdb.observe(&self.stack.database, within)).await;
        if answer.1.is_none() {
            return Ok(answer);
        }
        Ok(self.identified(connection, network).await?.map_or(answer, |other| (other, None)))
    }

    /// An answer; if it may take longer than usual and is not immediate, the listener hears which server is waited for.
    async fn noted<T>(&self, connection: &Connection, within: Duration, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        if within > REQUEST {
            if let Ok(answer) = timeout(PROBE, answer.as_mut()).await {
                return answer;
            }
            self.listener.on(Event::Slow { role: connection.role, url: connection.http.address() });
        }
        answer.await
    }

    /// The result to observe instead if the server that just answered is not the container.
    async fn identified<S>(&self, connection: &Connection, network: &Network) -> Result<Option<ServerResponse<S>>> {
        match self.is_the_container(connection, network).await {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(ServerResponse::NotTheContainer)),
            Err(error) => unverified(error).map(Some),
        }
    }

    async fn ask_grafana(
        &self,
        connection: &mut Connection,
        container: &ContainerState,
        network: &Network,
        files: &mut Option<VolumeFiles>,
        influxdb_runs: bool,
    ) -> Result<(ServerResponse<observed::GrafanaState>, Option<String>, LoginState)> {
        match self.may_answer(Role::Grafana, container) {
            Answerable::No => return Ok((ServerResponse::Unasked, None, LoginState::default())),
            Answerable::OutOfReach(why) => return Ok((ServerResponse::Silent(why), None, LoginState::default())),
            Answerable::Yes => {}
        }
        let (anonymous, within) = (self.grafana_client(connection, Auth::None), self.probe_limit(connection));
        let answers = join(anonymous.health(within), anonymous.may_be_anonymous(within));
        let ((health, version), is_anonymous) = self.noted(connection, within, answers).await;
        connection.version = version.as_deref().and_then(Version::parse);
        if !matches!(health, ServerResponse::Answering(())) {
            return Ok((health.discard(), version, LoginState::default()));
        }
        if let Some(other) = self.identified(connection, network).await? {
            return Ok((other, None, LoginState::default()));
        }
        // If another server answers in place of the container, the container says nothing about
        // that server's login.
        let actual = container.ours().filter(|_| self.stack.container(Role::Grafana).is_some());
        let (response, login) = self.observe_signed_in(connection, is_anonymous, actual, files, influxdb_runs).await?;
        Ok((response, version, login))
    }

    /// Whether a server may be listening: an external server or a running container. The loopback
    /// of another machine's engine is out of reach, because another server may answer at that
    /// address here.
    fn may_answer(&self, role: Role, container: &ContainerState) -> Answerable {
        match (self.stack.service(role), container) {
            (Service::External { .. }, _) => Answerable::Yes,
            (Service::Container(_), ContainerState::Ours(actual)) if actual.run == RunState::Running => {
                match (&self.stack.engine, is_published_on_loopback(actual)) {
                    _ if actual.published.is_none() => Answerable::OutOfReach("it publishes no port".into()),
                    (EngineLocation::Elsewhere(host), true) => {
                        Answerable::OutOfReach(format!("it is published on the loopback of {host} only"))
                    }
                    _ => Answerable::Yes,
                }
            }
            _ => Answerable::No,
        }
    }
}

/// Whether a server of that role answers, and its version; requested without credentials.
pub(super) async fn health(role: Role, http: Http, within: Duration) -> (ServerResponse<()>, Option<String>) {
    match role {
        Role::Influxdb => Influxdb::new(http).version(within).await,
        Role::Grafana => Grafana::new(http, Choice::First, None).health(within).await,
    }
}

/// The result to observe instead if a verification failed, which does not prove that it is another server.
fn unverified<S>(error: Error) -> Result<ServerResponse<S>> {
    match error {
        Error::Http { why, .. } | Error::Answer { why, .. } | Error::Docker { why, .. } => {
            Ok(ServerResponse::Silent(why))
        }
        error => Err(error),
    }
}

/// Whether a server can be probed.
enum Answerable {
    Yes,
    No,
    OutOfReach(String),
}

fn is_published_on_loopback(actual: &OurContainer) -> bool {
    actual.published.map_or_else(|| actual.is_on_loopback(), |at| at.ip().is_loopback())
}

/// The state if both servers are external.
fn without_engine() -> Seen {
    let nothing = || SeenRole {
        image: None,
        volume: VolumeState::Absent,
        container: ContainerState::Absent,
        port_holder: None,
        volume_user: None,
        volume_users: Vec::new(),
        managed_behind: None,
    };
    Seen {
        network: Network::Free,
        network_users: Vec::new(),
        settings: StoredSettings::default(),
        roles: PerRole::from_fn(|_| nothing()),
        others: Vec::new(),
        lookalikes: Vec::new(),
        address_checks: Vec::new(),
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::engine::fake;
    use crate::model::credentials::Credentials;
    use crate::model::event::Silent;
    use crate::model::observed::InfluxdbState;
    use crate::samples;

    /// The state of an external InfluxDB that answers each request after `delay`, while the instance's own container
    /// still runs.
    async fn beside_the_own_container(delay: Duration, limit: Duration) -> ObservedServer {
        crate::http::install_crypto_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            assert!(timeout(delay, std::future::pending::<()>()).await.is_err());
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        });
        let (_folder, docker) = fake::engine(|_| (200, String::new())).await;
        let mut stack = samples::stack();
        stack.services.influxdb = samples::external("127.0.0.1", port);
        stack.timeout = limit;
        let credentials = Credentials::default();
        let session = Session::new(stack, Some(Rc::new(docker)), credentials, Rc::new(Silent)).unwrap();
        let seen = SeenRole {
            image: None,
            volume: VolumeState::Absent,
            container: ContainerState::Ours(Box::new(samples::our_container(Role::Influxdb))),
            port_holder: None,
            volume_user: None,
            volume_users: Vec::new(),
            managed_behind: None,
        };
        let answering = ServerResponse::Answering(InfluxdbState { has_database: true, retention: None });
        session.observed(&session.connect().influxdb, seen, answering, None).await.unwrap()
    }

    #[tokio::test]
    async fn an_external_server_that_is_slow_to_prove_its_identity_is_used() {
        let seen = beside_the_own_container(Duration::from_millis(2_500), Duration::from_secs(5)).await;
        assert!(seen.response.state().is_some() && seen.managed_behind.is_none(), "{:?}", seen.response);
    }

    #[tokio::test]
    async fn an_external_server_that_does_not_prove_its_identity_is_silent() {
        let seen = beside_the_own_container(Duration::from_secs(60), Duration::from_millis(100)).await;
        assert!(matches!(seen.response, ServerResponse::Silent(_)), "{:?}", seen.response);
    }
}
