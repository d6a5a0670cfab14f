//! Reconciles an instance with its stack: `observe` looks, `up` and `down` plan and apply, and `status` summarizes.

mod apply;
mod cause;
mod connection;
mod down;
mod exposure;
mod identity;
pub(crate) mod lock;
mod login;
mod native;
mod observe;
mod occupied;
mod retries;
mod status;
mod up;
pub(crate) mod upgrade;
mod wait;

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

pub(crate) use self::connection::{Connection, Connections};
pub(crate) use self::down::{DownOptions, down, plan_down};
use self::lock::Lock;
pub(crate) use self::login::generate_password;
pub(crate) use self::native::{FileOfRun, native_hint, native_servers};
pub(crate) use self::observe::Depth;
pub(crate) use self::status::{WatchEnd, reopen, status, summarize, watch};
pub(crate) use self::up::{plan_up, up};
use crate::engine::Docker;
use crate::error::{Error, Result};
use crate::grafana::{self, Grafana};
use crate::http::{Auth, Http, PROBE, REQUEST};
use crate::influxdb::Influxdb;
use crate::model::address::{ServerUrl, reachable};
use crate::model::credentials::Credentials;
use crate::model::event::{Event, ExecutedStep, Listener};
use crate::model::hints::{self, NoInstance};
use crate::model::observed::{ContainerState, ManagedServer, Observed, RunState, StoredSettings, Unreadable};
use crate::model::plan::{self, Plan, Resource};
use crate::model::role::{PerRole, Role};
use crate::model::stack::{EngineLocation, Secret, Service, Stack};
use crate::model::status::Status;
use crate::model::version::Version;

/// The stack, and the means to observe and change it.
pub(crate) struct Session {
    stack: Stack,
    docker: Option<Rc<Docker>>,
    credentials: Credentials,
    /// The password that Grafana gets if this run sets a new one.
    generated: Secret,
    listener: Rc<dyn Listener>,
    /// The stored settings that the stack was computed from; `None` without an engine.
    stored: Option<StoredSettings>,
    /// The managed container that the URL of an external server leads to, found on an engine that this run does not use.
    managed_behind: Option<(Role, ManagedServer)>,
    /// A client for each role's desired address.
    clients: PerRole<Http>,
    /// Blocks other runs of this user on the same instance while this one changes it.
    _lock: Option<Lock>,
}

impl Session {
    /// Creates the clients of a stack, with an engine if it needs one.
    ///
    /// # Errors
    /// [`Error::File`] if the certificates cannot be used.
    pub(crate) fn new(
        stack: Stack,
        docker: Option<Rc<Docker>>,
        credentials: Credentials,
        listener: Rc<dyn Listener>,
    ) -> Result<Self> {
        let client = |role: Role| {
            // Servers published by this machine's engine or reached through ssh need no proxy,
            // whatever their address.
            let is_elsewhere = matches!(stack.engine, EngineLocation::Elsewhere(_));
            let bypass_proxy = stack.container(role).is_some() && !is_elsewhere;
            let base = stack.url(role).to_string();
            let ca_file = credentials.ca_file.as_ref();
            Http::new(role.name(), &base, bypass_proxy, ca_file, Rc::clone(&listener))
        };
        let clients = PerRole::try_from_fn(client)?;
        let generated = generate_password()?;
        Ok(Self {
            stack,
            docker,
            credentials,
            generated,
            listener,
            clients,
            stored: None,
            managed_behind: None,
            _lock: None,
        })
    }

    /// Holds the lock of the instance as long as the session exists.
    #[must_use]
    pub(crate) fn with_lock(self, lock: Option<Lock>) -> Self {
        Self { _lock: lock, ..self }
    }

    /// Keeps the stored settings that the stack was computed from.
    #[must_use]
    pub(crate) fn with_stored(self, stored: Option<StoredSettings>) -> Self {
        Self { stored, ..self }
    }

    /// Makes the managed container that a URL leads to known to observations.
    #[must_use]
    pub(crate) fn with_managed_behind(self, managed: (Role, ManagedServer)) -> Self {
        Self { managed_behind: Some(managed), ..self }
    }

    /// Lets external servers take the whole time limit of the run for each answer, if that is longer than the usual
    /// limit, for commands that have one.
    #[must_use]
    pub(crate) fn waiting(self) -> Self {
        let clients = PerRole::from_fn(|role| match self.stack.service(role) {
            Service::External { .. } => self.clients.get(role).with_limit(self.stack.timeout.max(REQUEST)),
            Service::Container(_) => self.clients.get(role).clone(),
        });
        Self { clients, ..self }
    }

    /// The time limit of a request that only checks whether a server answers. Whether a container still runs is known
    /// otherwise, and it is probed again; an external server is called silent at once, at the latest at the time limit of
    /// the run.
    #[must_use]
    pub(crate) fn probe_limit(&self, connection: &Connection) -> Duration {
        match self.stack.service(connection.role) {
            Service::Container(_) => PROBE,
            Service::External { .. } => connection.http.limit().min(self.stack.timeout),
        }
    }

    /// Receives events and warnings.
    #[must_use]
    pub(crate) fn listener(&self) -> &dyn Listener {
        self.listener.as_ref()
    }

    #[must_use]
    pub(crate) const fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The engine.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is none, which cannot happen if a container is specified.
    pub(crate) fn docker(&self) -> Result<&Docker> {
        self.docker.as_deref().ok_or_else(|| {
            Error::usage("both servers are external, so no engine is used", "omit --influxdb-url or --grafana-url")
        })
    }

    /// Waits until the engine has completed what an abandoned run began. Pulls are not waited for.
    pub(crate) async fn finish_changes(&self) {
        if let Some(docker) = &self.docker {
            docker.finish_changes().await;
        }
    }

    /// Connections to the desired addresses; an observation moves them to the actual ones.
    #[must_use]
    pub(crate) fn connect(&self) -> Connections {
        PerRole::from_fn(|role| Connection::new(role, self.clients.get(role).clone()))
    }

    /// Records a role's container and its address: the actual one while it runs, otherwise the desired one.
    fn locate(&self, connection: &mut Connection, container: &ContainerState) {
        let actual = container.ours();
        let serves = self.stack.container(connection.role).is_some();
        connection.hold(actual.map(|actual| actual.id.clone()), serves);
        match (self.stack.service(connection.role), actual) {
            // Another server may answer at the desired address.
            (Service::Container(_), Some(actual)) if matches!(actual.run, RunState::Running | RunState::Paused) => {
                self.move_to(connection, actual.published);
            }
            (Service::Container(spec), _) => self.move_to(connection, Some(spec.config.publish)),
            (Service::External { url }, _) => connection.move_to(url, &url.to_string()),
        }
    }

    /// Sets the address of a managed container; `None` if it publishes nothing.
    fn move_to(&self, connection: &mut Connection, at: Option<SocketAddr>) {
        let Some(spec) = self.stack.container(connection.role) else { return };
        let shown = at.map_or_else(nowhere, |at| spec.url_at(at.ip(), at.port()));
        let way = match (&self.docker, at) {
            (Some(docker), Some(at)) if docker.is_over_ssh() => docker
                .local_port(&reachable(at.ip()).to_string(), at.port())
                .map_or_else(nowhere, |port| ServerUrl::http(Ipv4Addr::LOCALHOST.to_string(), port)),
            _ => shown.clone(),
        };
        connection.move_to(&way, &shown.to_string());
    }

    /// A client for InfluxDB.
    #[must_use]
    pub(crate) fn influxdb(&self, connection: &Connection) -> Influxdb {
        let auth = match &self.credentials.influxdb {
            Some(login) => Auth::Basic(login.user.clone(), login.password.clone()),
            None => Auth::None,
        };
        Influxdb::new(connection.http.with_auth(auth))
    }

    /// An InfluxDB at an address from Clipper's file, queried as Clipper does: over plain HTTP,
    /// without credentials.
    ///
    /// # Errors
    /// [`Error::Http`] if the address is invalid.
    pub(crate) fn influxdb_at(&self, url: &ServerUrl) -> Result<Influxdb> {
        // Clipper uses no proxy. With an engine behind ssh, Clipper runs on that machine, and the
        // address is meant there.
        let way = self.docker.as_ref().and_then(|docker| docker.local_port(&url.host, url.port));
        self.influxdb_through(way, url)
    }

    /// The same through a forwarded port on this machine's loopback, if there is one.
    ///
    /// # Errors
    /// [`Error::Http`] if the address is invalid.
    pub(crate) fn influxdb_through(&self, way: Option<u16>, url: &ServerUrl) -> Result<Influxdb> {
        let address = url.to_string();
        let http = Http::new(Role::Influxdb.name(), &address, true, None, Rc::clone(&self.listener))?;
        let way = way.map(|port| ServerUrl::http(Ipv4Addr::LOCALHOST.to_string(), port).to_string());
        Ok(Influxdb::new(way.map_or_else(|| http.clone(), |way| http.at(&way, &address))))
    }

    /// A client for Grafana with these credentials.
    fn grafana_client(&self, connection: &Connection, auth: Auth) -> Grafana {
        let choice = match (&auth, self.stack.service(Role::Grafana)) {
            (Auth::Bearer(_), _) => grafana::Choice::OfToken,
            (_, Service::Container(_)) => grafana::Choice::First,
            (_, Service::External { .. }) => grafana::Choice::OfAccount,
        };
        Grafana::new(connection.http.with_auth(auth), choice, connection.version)
    }

    /// The version of the Grafana that answers, requested without credentials.
    pub(crate) async fn grafana_version(&self, connection: &Connection) -> Option<Version> {
        let (_, version) = self.grafana_client(connection, Auth::None).health(self.probe_limit(connection)).await;
        version.as_deref().and_then(Version::parse)
    }

    /// The password of InfluxDB's user, if one was supplied.
    #[must_use]
    pub(crate) fn influxdb_password(&self) -> Option<&Secret> {
        self.influxdb_secret().filter(|password| !password.reveal().is_empty())
    }

    /// That password as it is sent, even if it is empty.
    fn influxdb_secret(&self) -> Option<&Secret> {
        self.credentials.influxdb.as_ref().map(|login| &login.password)
    }
}

/// An address at which no server listens.
fn nowhere() -> ServerUrl {
    ServerUrl::http(Ipv4Addr::LOCALHOST.to_string(), 0)
}

/// The result of a command that changes an instance.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) executed: Vec<ExecutedStep>,
    /// The status afterwards.
    pub(crate) status: Status,
}

/// The effect of a command with `--dry-run`.
#[derive(Debug)]
pub(crate) struct Preview {
    /// The steps.
    pub(crate) plan: Plan,
    /// The confirmations that the command requests before it begins.
    pub(crate) questions: Vec<String>,
    /// The current status.
    pub(crate) status: Status,
}

/// Stops if a restore of the instance is unfinished.
pub(crate) fn expect_restored(stack: &Stack, seen: &Observed) -> Result<()> {
    match plan::unfinished(stack, seen) {
        Some(blocker) => Err(Error::Blocked { resource: Resource::Settings, blocker }),
        None => Ok(()),
    }
}

/// Stops a command that needs an instance if there is none of that name.
pub(crate) fn expect_instance(stack: &Stack, seen: &Observed) -> Result<()> {
    match hints::no_instance(stack, seen) {
        Some(NoInstance { what, hint }) => Err(Error::Absent { what, hint }),
        None => Ok(()),
    }
}

/// Only warns about it, for commands that do not need the data.
pub(crate) fn warn_about_restore(stack: &Stack, seen: &Observed, listener: &dyn Listener) {
    if let Some(unfinished) = plan::unfinished(stack, seen) {
        listener.on(Event::Warning(&format!("{}: {}", unfinished.why, unfinished.hint)));
    }
}

/// Stops a command that depends on remembered settings if they are lost.
pub(crate) fn expect_known_settings(stack: &Stack) -> Result<()> {
    plan::unknown_settings(stack)
        .map_or(Ok(()), |blocker| Err(Error::Blocked { resource: Resource::Settings, blocker }))
}

/// The error after all possible steps, if Grafana failed to return a resource.
fn not_read(stack: &Stack, unreadable: &Unreadable) -> Error {
    let Unreadable { doing, status, why } = unreadable.clone();
    Error::Answer { doing, url: stack.url(Role::Grafana).to_string(), status, why }
}
