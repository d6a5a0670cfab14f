//! Reconciles an instance with its stack. This file owns the clients and observes; `apply` changes
//! things, and `login` signs in.

mod apply;
mod cause;
mod converge;
mod create;
mod exposure;
mod identity;
pub mod lock;
mod login;
mod native;
mod occupied;
pub mod upgrade;
mod version;
mod wait;

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;

use futures_util::future::join;

pub use self::apply::FailedStep;
pub use self::converge::{
    DownOptions, Outcome, Preview, deletion, down, now, plan_down, plan_up, reopen, status, up, watch,
};
pub(crate) use self::converge::{expect_known_settings, expect_restored, summarize, warn_about_restore};
use self::login::LoginState;
pub use self::login::generate_password;
pub use self::native::native_servers;
use crate::engine::{Docker, Seen, SeenRole};
use crate::error::{Error, Result};
use crate::grafana::{self, Grafana};
use crate::http::{Auth, Http, PROBE};
use crate::influxdb::Influxdb;
use crate::model::address::{ServerUrl, reachable};
use crate::model::credentials::Credentials;
use crate::model::event::Listener;
use crate::model::observed::{
    self, ContainerState, Network, Observed, OurContainer, PortHolder, RunState, SeenLogin, Server, ServerResponse,
    StoredSettings, Volume,
};
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, EngineLocation, Secret, Service, Stack};
use crate::model::version::Version;

/// Ports that are tried to name a free one.
const PORTS_TRIED: u16 = 100;

/// The extent of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The engine and the servers' content.
    Servers,
    /// The engine only, without signing in anywhere.
    EngineOnly,
}

/// The stack and a client for each system.
pub struct Systems {
    stack: Stack,
    docker: Option<Rc<Docker>>,
    credentials: Credentials,
    listener: Rc<dyn Listener>,
    /// A client for each role, in the order of [`Role::ALL`], at the role's current address: a
    /// container may be about to move.
    clients: [RefCell<Http>; 2],
    /// The engine's id of each role's current container.
    containers: RefCell<[Option<String>; 2]>,
    login: LoginState,
}

impl Systems {
    /// Creates the clients of a stack, with an engine if it needs one.
    ///
    /// # Errors
    /// [`Error::File`] if the certificates cannot be used.
    pub fn new(
        stack: Stack,
        docker: Option<Rc<Docker>>,
        credentials: Credentials,
        listener: Rc<dyn Listener>,
    ) -> Result<Self> {
        let client = |role: Role| -> Result<RefCell<Http>> {
            // Servers published by this machine's engine or reached through ssh need no proxy,
            // whatever their address.
            let is_elsewhere = matches!(stack.engine, EngineLocation::Elsewhere(_));
            let bypass_proxy = stack.container(role).is_some() && !is_elsewhere;
            let base = stack.url(role).to_string();
            let ca_file = credentials.ca_file.as_ref();
            Ok(RefCell::new(Http::new(role.name(), &base, bypass_proxy, ca_file, Rc::clone(&listener))?))
        };
        let clients = [client(Role::Influxdb)?, client(Role::Grafana)?];
        Ok(Self {
            stack,
            docker,
            credentials,
            listener,
            clients,
            containers: RefCell::default(),
            login: LoginState::default(),
        })
    }

    /// The stack.
    #[must_use]
    pub const fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The engine.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is none, which cannot happen if a container is specified.
    pub fn docker(&self) -> Result<&Docker> {
        self.docker
            .as_deref()
            .ok_or_else(|| Error::usage("both servers are external, so no engine is used", "omit one --…-url"))
    }

    /// Takes one snapshot.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer. A server that does not answer is part of
    /// the snapshot.
    pub async fn observe(&self, depth: Depth) -> Result<Observed> {
        let Some(docker) = &self.docker else { return self.look(depth).await };
        // In parallel, because some engines take long to return their version.
        let (checked, seen) = join(docker.check(), self.look(depth)).await;
        checked?;
        Ok(Observed { engine: Some(docker.engine()), ..seen? })
    }

    async fn look(&self, depth: Depth) -> Result<Observed> {
        let nothing = || SeenRole {
            image: None,
            volume: Volume::Absent,
            container: ContainerState::Absent,
            port_holder: None,
            volume_user: None,
            managed_behind: None,
        };
        let seen = match &self.docker {
            Some(docker) => docker.observe(&self.stack).await?,
            None => Seen {
                network: Network::Free,
                network_users: Vec::new(),
                settings: StoredSettings::default(),
                roles: [nothing(), nothing()],
                others: Vec::new(),
                lookalikes: Vec::new(),
            },
        };
        let Seen { network, network_users, settings, roles: [mut influxdb, mut grafana], others, lookalikes } = seen;
        self.locate(Role::Influxdb, &influxdb.container);
        self.locate(Role::Grafana, &grafana.container);
        if depth == Depth::Servers && self.docker.is_some() {
            let processes = join(self.process_at(Role::Influxdb, &influxdb), self.process_at(Role::Grafana, &grafana));
            let (influxdb_process, grafana_process) = processes.await;
            influxdb.port_holder = influxdb.port_holder.or(influxdb_process?);
            grafana.port_holder = grafana.port_holder.or(grafana_process?);
        }
        let (influxdb_probe, grafana_probe) = match depth {
            Depth::EngineOnly => {
                (Ok((ServerResponse::Unasked, None)), Ok((ServerResponse::Unasked, None, SeenLogin::default())))
            }
            Depth::Servers => {
                let influxdb_runs = !matches!(self.may_answer(Role::Influxdb, &influxdb.container), Answerable::No);
                let influxdb = self.ask_influxdb(&influxdb.container, &network);
                join(influxdb, self.ask_grafana(&grafana.container, &network, influxdb_runs)).await
            }
        };
        let (grafana_probe, grafana_version, login) = grafana_probe?;
        let (influxdb_probe, influxdb_version) = influxdb_probe?;
        if influxdb.managed_behind.is_none() && influxdb_probe.state().is_some() {
            influxdb.managed_behind = self.forwarded_to(Role::Influxdb, &influxdb.container).await?;
        }
        if grafana.managed_behind.is_none() && grafana_probe.state().is_some() {
            grafana.managed_behind = self.forwarded_to(Role::Grafana, &grafana.container).await?;
        }
        let recorded = self.recorded_version(&grafana, grafana_version.as_deref()).await?;
        let free = |role, seen: &SeenRole| {
            let held = seen.port_holder.as_ref().is_some_and(|holder| !matches!(holder, PortHolder::OtherRole(_)));
            held.then(|| self.free_port(self.stack.container(role)?.specification.publish)).flatten()
        };
        let free_ports = [free(Role::Influxdb, &influxdb), free(Role::Grafana, &grafana)];
        Ok(Observed {
            engine: None,
            network,
            network_users,
            settings,
            influxdb: Server {
                free_port: free_ports[0],
                ..server(influxdb, influxdb_probe, influxdb_version, SeenLogin::default(), None)
            },
            grafana: Server {
                free_port: free_ports[1],
                ..server(grafana, grafana_probe, grafana_version, login, recorded)
            },
            others,
            lookalikes,
        })
    }

    /// A free port above the occupied one; known only if the engine's ports are this machine's.
    fn free_port(&self, occupied: SocketAddr) -> Option<u16> {
        if self.stack.engine != EngineLocation::Here {
            return None;
        }
        let own = Role::ALL.map(|role| self.stack.container(role).map(|spec| spec.specification.publish.port()));
        let next = occupied.port().checked_add(1)?..=occupied.port().saturating_add(PORTS_TRIED);
        next.into_iter().find(|port| !own.contains(&Some(*port)) && TcpListener::bind((occupied.ip(), *port)).is_ok())
    }

    /// The version known to have run on Grafana's volume. The file is read only if the volume was
    /// created for another version than the running one.
    async fn recorded_version(&self, seen: &SeenRole, runs: Option<&str>) -> Result<Option<Version>> {
        let Volume::Ours { version: label, .. } = seen.volume else { return Ok(None) };
        let runs = runs.and_then(Version::parse);
        let is_ours = self.stack.container(Role::Grafana).is_some() && seen.container.ours().is_some();
        if !is_ours || runs.is_none() || runs == label {
            return Ok(label);
        }
        Ok(self.files().await?.ran.map(|ran| ran.version))
    }

    /// Records a role's address: the actual one while it runs, otherwise the desired one.
    fn locate(&self, role: Role, container: &ContainerState) {
        let have = container.ours();
        self.set_container(role, have.map(|have| have.id.clone()));
        match (self.stack.service(role), have) {
            // Another server may answer at the desired address.
            (Service::Container(spec), Some(have)) if have.run == RunState::Running => {
                self.set_place(spec, have.published);
            }
            (Service::Container(spec), _) => self.set_place(spec, Some(spec.specification.publish)),
            (Service::External { url }, _) => self.set_base(role, url, &url.to_string()),
        }
    }

    /// Sets the address of a managed container; `None` if it publishes nothing.
    fn set_place(&self, spec: &DesiredContainer, at: Option<SocketAddr>) {
        let shown = at.map_or_else(nowhere, |at| spec.url_at(at.ip(), at.port()));
        let way = match (&self.docker, at) {
            (Some(docker), Some(at)) if docker.is_over_ssh() => docker
                .local_port(&reachable(at.ip()).to_string(), at.port())
                .map_or_else(nowhere, |port| ServerUrl::http(Ipv4Addr::LOCALHOST.to_string(), port)),
            _ => shown.clone(),
        };
        self.set_base(spec.role, &way, &shown.to_string());
    }

    fn set_base(&self, role: Role, way: &ServerUrl, shown: &str) {
        let client = &self.clients[role as usize];
        let way = way.to_string();
        if !client.borrow().is_at(&way, shown) {
            let moved = client.borrow().at(&way, shown);
            *client.borrow_mut() = moved;
        }
    }

    fn set_container(&self, role: Role, id: Option<String>) {
        let mut containers = self.containers.borrow_mut();
        if containers[role as usize] != id {
            containers[role as usize] = id;
            if role == Role::Grafana {
                self.login.forget();
            }
        }
    }

    /// The engine's id of the role's container, as last observed or created by this run.
    ///
    /// # Errors
    /// [`Error::Raced`] if there is none.
    pub fn container_of(&self, role: Role) -> Result<String> {
        let id = self.containers.borrow()[role as usize].clone();
        id.ok_or_else(|| Error::Raced {
            doing: format!("work on the container of {}", role.title()),
            why: "another process removed it".into(),
        })
    }

    fn http(&self, role: Role, auth: Auth) -> Http {
        self.clients[role as usize].borrow().with_auth(auth)
    }

    /// A client for InfluxDB.
    #[must_use]
    pub fn influxdb(&self) -> Influxdb {
        let auth = match &self.credentials.influxdb {
            Some(login) => Auth::Basic(login.user.clone(), login.password.clone()),
            None => Auth::None,
        };
        Influxdb::new(self.http(Role::Influxdb, auth))
    }

    /// An InfluxDB at an address from Clipper's file, queried as Clipper does: over plain HTTP,
    /// without credentials.
    ///
    /// # Errors
    /// [`Error::Http`] if the address is invalid.
    pub fn influxdb_at(&self, url: &ServerUrl) -> Result<Influxdb> {
        // Clipper uses no proxy. With an engine behind ssh, Clipper runs on that machine, and the
        // address is meant there.
        let way = self.docker.as_ref().and_then(|docker| docker.local_port(&url.host, url.port));
        self.influxdb_through(way, url)
    }

    /// The same through a forwarded port on this machine's loopback, if there is one.
    ///
    /// # Errors
    /// [`Error::Http`] if the address is invalid.
    pub fn influxdb_through(&self, way: Option<u16>, url: &ServerUrl) -> Result<Influxdb> {
        let address = url.to_string();
        let http = Http::new(Role::Influxdb.name(), &address, true, None, Rc::clone(&self.listener))?;
        let way = way.map(|port| ServerUrl::http(Ipv4Addr::LOCALHOST.to_string(), port).to_string());
        Ok(Influxdb::new(way.map_or_else(|| http.clone(), |way| http.at(&way, &address))))
    }

    async fn ask_influxdb(
        &self,
        container: &ContainerState,
        network: &Network,
    ) -> Result<(ServerResponse<observed::Influxdb>, Option<String>)> {
        match self.may_answer(Role::Influxdb, container) {
            Answerable::No => return Ok((ServerResponse::Unasked, None)),
            Answerable::OutOfReach(why) => return Ok((ServerResponse::Silent(why), None)),
            Answerable::Yes => {}
        }
        let answer = self.influxdb().observe(&self.stack.database, PROBE).await;
        if answer.1.is_none() {
            return Ok(answer);
        }
        Ok(self.identified(Role::Influxdb, network).await?.map_or(answer, |other| (other, None)))
    }

    /// The result to observe instead if the server that just answered is not the container.
    async fn identified<S>(&self, role: Role, network: &Network) -> Result<Option<ServerResponse<S>>> {
        match self.is_the_container(role, network).await {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(ServerResponse::NotTheContainer)),
            // A failed verification does not prove that it is another server.
            Err(Error::Http { why, .. } | Error::Docker { why, .. }) => Ok(Some(ServerResponse::Silent(why))),
            Err(error) => Err(error),
        }
    }

    async fn ask_grafana(
        &self,
        container: &ContainerState,
        network: &Network,
        influxdb_runs: bool,
    ) -> Result<(ServerResponse<observed::Grafana>, Option<String>, SeenLogin)> {
        match self.may_answer(Role::Grafana, container) {
            Answerable::No => return Ok((ServerResponse::Unasked, None, SeenLogin::default())),
            Answerable::OutOfReach(why) => return Ok((ServerResponse::Silent(why), None, SeenLogin::default())),
            Answerable::Yes => {}
        }
        let anonymous = self.grafana_client(Auth::None);
        let ((health, version), is_anonymous) = join(anonymous.health(PROBE), anonymous.may_be_anonymous()).await;
        if !matches!(health, ServerResponse::Answering(())) {
            return Ok((health.discard(), version, SeenLogin::default()));
        }
        if let Some(other) = self.identified(Role::Grafana, network).await? {
            return Ok((other, None, SeenLogin::default()));
        }
        // If another server answers in place of the container, the container says nothing about
        // that server's login.
        let have = container.ours().filter(|_| self.stack.container(Role::Grafana).is_some());
        let (probe, login) = self.observe_signed_in(anonymous, is_anonymous, have, influxdb_runs).await?;
        Ok((probe, version, login))
    }

    /// A client for Grafana with these credentials.
    fn grafana_client(&self, auth: Auth) -> Grafana {
        let choice = match (&auth, self.stack.service(Role::Grafana)) {
            (Auth::Bearer(_), _) => grafana::Choice::OfToken,
            (_, Service::Container(_)) => grafana::Choice::First,
            (_, Service::External { .. }) => grafana::Choice::OfAccount,
        };
        Grafana::new(self.http(Role::Grafana, auth), choice)
    }

    /// The version of the Grafana that answers, requested without credentials.
    pub async fn grafana_version(&self) -> Option<Version> {
        let (_, version) = self.grafana_client(Auth::None).health(PROBE).await;
        version.as_deref().and_then(Version::parse)
    }

    /// The password of InfluxDB's user, if one was supplied.
    #[must_use]
    pub fn influxdb_password(&self) -> Option<&Secret> {
        let password = self.credentials.influxdb.as_ref().map(|login| &login.password);
        password.filter(|password| !password.reveal().is_empty())
    }

    /// Whether a server may be listening: an external server or a running container. The loopback
    /// of another machine's engine is out of reach, because another server may answer at that
    /// address here.
    fn may_answer(&self, role: Role, container: &ContainerState) -> Answerable {
        match (self.stack.service(role), container) {
            (Service::External { .. }, _) => Answerable::Yes,
            (Service::Container(_), ContainerState::Ours(have)) if have.run == RunState::Running => {
                match (&self.stack.engine, is_published_on_loopback(have)) {
                    _ if have.published.is_none() => Answerable::OutOfReach("it publishes no port".into()),
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

/// Whether a server can be probed.
enum Answerable {
    Yes,
    No,
    OutOfReach(String),
}

fn is_published_on_loopback(have: &OurContainer) -> bool {
    have.published.map_or_else(|| have.is_on_loopback(), |at| at.ip().is_loopback())
}

/// An address at which no server listens.
fn nowhere() -> ServerUrl {
    ServerUrl::http(Ipv4Addr::LOCALHOST.to_string(), 0)
}

fn server<S>(
    seen: SeenRole,
    probe: ServerResponse<S>,
    version: Option<String>,
    login: SeenLogin,
    recorded: Option<Version>,
) -> Server<S> {
    let SeenRole { image, volume, container, port_holder, volume_user, managed_behind } = seen;
    Server {
        image,
        volume,
        container,
        port_holder,
        volume_user,
        free_port: None,
        managed_behind,
        probe,
        version,
        login,
        recorded,
    }
}
