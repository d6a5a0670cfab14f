//! Talks: observes a stack through its systems. What changes things is in `apply`.
//!
//! Must not decide what is wanted, nor show anything.

mod administrator;
mod apply;
#[cfg(test)]
mod arbitrary;
pub mod clipper;
pub mod docker;
pub mod grafana;
pub mod http;
pub mod influxdb;
pub mod load;
pub mod lock;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join;

use self::docker::{Docker, SeenRole};
use self::grafana::Grafana;
use self::http::{Auth, Http};
use self::influxdb::Influxdb;
use crate::core::event::{Listener, Taken};
use crate::core::observed::{
    self, Answer, Container, KeptPassword, Network, Observed, OurContainer, Run, Server, Volume,
};
use crate::core::stack::{ContainerSpec, Role, Secret, Service, Stack};
use crate::error::{Error, Result};

/// How long one probe may take while waiting.
const PROBE: Duration = Duration::from_secs(2);
/// The longest pause between two looks: a look costs about a millisecond.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Waits a little, longer each time: for polling only, between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "this is the one place that pauses between two looks")]
pub(crate) async fn pause(length: &mut Duration) {
    tokio::time::sleep(*length).await;
    *length = (*length * 2).min(LONGEST_PAUSE);
}

/// How to get in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Grafana's administrator.
    pub grafana_user: String,
    /// The password that was given for it.
    pub grafana_password: Option<Secret>,
    /// The password in force where nothing else is known: Grafana's own default.
    pub default_password: Secret,
    /// A token for Grafana, instead of user and password.
    pub grafana_token: Option<Secret>,
    /// User and password of an InfluxDB that is not ours.
    pub influxdb: Option<(String, Secret)>,
    /// Certificates to trust.
    pub ca_file: Option<std::path::PathBuf>,
}

/// Everything that a stack lives in.
pub struct Systems {
    docker: Option<Docker>,
    credentials: Credentials,
    listener: Rc<dyn Listener>,
    /// The password in the volume's file, once it was read or written.
    stored_password: RefCell<Option<Secret>>,
    /// Where each role is reached at the moment; a container may be about to move.
    bases: RefCell<[Option<String>; 2]>,
    /// A signed-in client for the Grafana that runs at the moment.
    grafana: RefCell<Option<Rc<Grafana>>>,
    /// Grafana has refused us; asking again would count as another wrong password.
    refused: RefCell<Option<String>>,
    taken: RefCell<Vec<Taken>>,
    overwrite_dashboard: Cell<bool>,
}

impl Systems {
    /// The systems, with an engine if the stack needs one.
    #[must_use]
    pub fn new(docker: Option<Docker>, credentials: Credentials, listener: Rc<dyn Listener>) -> Self {
        Self {
            docker,
            credentials,
            listener,
            stored_password: RefCell::default(),
            bases: RefCell::default(),
            grafana: RefCell::default(),
            refused: RefCell::default(),
            taken: RefCell::default(),
            overwrite_dashboard: Cell::new(false),
        }
    }

    /// The engine.
    ///
    /// # Errors
    /// When there is none, which cannot be where a container is wanted.
    pub fn docker(&self) -> Result<&Docker> {
        self.docker.as_ref().ok_or_else(|| {
            Error::usage(
                "both servers run elsewhere, so there is nothing to do with an engine",
                "leave one --…-url away",
            )
        })
    }

    /// The user who signs in to Grafana.
    #[must_use]
    pub fn grafana_user(&self) -> &str {
        &self.credentials.grafana_user
    }

    /// The steps that were taken so far.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.borrow().clone()
    }

    /// The password that opens Grafana, as far as it is known without asking Grafana.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn grafana_password(&self, have: Option<&OurContainer>) -> Result<Secret> {
        if let Some(given) = &self.credentials.grafana_password {
            return Ok(given.clone());
        }
        let stored = match have {
            Some(have) if have.has_password_file() => self.stored_password(&have.id).await?,
            _ => self.stored_password.borrow().clone(),
        };
        Ok(stored.unwrap_or_else(|| self.credentials.default_password.clone()))
    }

    async fn stored_password(&self, container: &str) -> Result<Option<Secret>> {
        if self.stored_password.borrow().is_none() {
            let read = self.docker()?.read_password(container).await?;
            *self.stored_password.borrow_mut() = read;
        }
        Ok(self.stored_password.borrow().clone())
    }

    /// One snapshot.
    ///
    /// # Errors
    /// When the engine does not answer. Servers that do not are part of the snapshot.
    pub async fn observe(&self, stack: &Stack) -> Result<Observed> {
        let nothing =
            || SeenRole { image: None, volume: Volume::Absent, container: Container::Absent, port_holder: None };
        let (network, [influxdb, grafana], others) = match &self.docker {
            Some(docker) => {
                let seen = docker.observe(stack).await?;
                (seen.network, seen.roles, seen.others)
            }
            None => (Network::Free, [nothing(), nothing()], Vec::new()),
        };
        self.locate(stack, Role::Influxdb, &influxdb.container);
        self.locate(stack, Role::Grafana, &grafana.container);
        let ((influxdb_answer, influxdb_version), grafana_answer) =
            join(self.ask_influxdb(stack, &influxdb.container), self.ask_grafana(stack, &grafana.container)).await;
        let (grafana_answer, grafana_version, kept) = grafana_answer?;
        Ok(Observed {
            engine: self.docker.as_ref().map(|docker| docker.engine().clone()),
            network,
            influxdb: server(influxdb, influxdb_answer, influxdb_version, KeptPassword::NotAsked),
            grafana: server(grafana, grafana_answer, grafana_version, kept),
            others,
        })
    }

    /// Notes where a role is reached: where it really is while it runs, else where it will be.
    fn locate(&self, stack: &Stack, role: Role, container: &Container) {
        let actual = match (stack.service(role), container) {
            (Service::Container(spec), Container::Ours(have)) => {
                have.published.filter(|_| have.run == Run::Running).map(|at| base(spec, at))
            }
            _ => None,
        };
        self.bases.borrow_mut()[index(role)] = Some(actual.unwrap_or_else(|| stack.url(role)));
    }

    fn base(&self, stack: &Stack, role: Role) -> String {
        self.bases.borrow()[index(role)].clone().unwrap_or_else(|| stack.url(role))
    }

    fn http(&self, stack: &Stack, role: Role, auth: Auth) -> Result<Http> {
        let base = self.base(stack, role);
        Http::new(role.name(), &base, auth, self.credentials.ca_file.as_deref(), Rc::clone(&self.listener))
    }

    /// A client for InfluxDB.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn influxdb(&self, stack: &Stack) -> Result<Influxdb> {
        let auth = match &self.credentials.influxdb {
            Some((user, password)) => Auth::Basic(user.clone(), password.clone()),
            None => Auth::None,
        };
        Ok(Influxdb::new(self.http(stack, Role::Influxdb, auth)?))
    }

    async fn ask_influxdb(&self, stack: &Stack, container: &Container) -> (Answer<observed::Influxdb>, Option<String>) {
        if !may_answer(stack, Role::Influxdb, container) {
            return (Answer::Unasked, None);
        }
        match self.influxdb(stack) {
            Ok(influxdb) => influxdb.observe(&stack.database, PROBE).await,
            Err(error) => (Answer::Silent(error.to_string()), None),
        }
    }

    async fn ask_grafana(
        &self,
        stack: &Stack,
        container: &Container,
    ) -> Result<(Answer<observed::Grafana>, Option<String>, KeptPassword)> {
        if !may_answer(stack, Role::Grafana, container) {
            return Ok((Answer::Unasked, None, KeptPassword::NotAsked));
        }
        let have = container.ours();
        let auth = self.grafana_auth(have).await?;
        let grafana = Grafana::new(self.http(stack, Role::Grafana, auth)?);
        let known = self.refused.borrow().clone();
        let (answer, version) = match known {
            Some(words) => {
                let (health, version) = grafana.health(PROBE).await;
                (if health == Answer::Answering(()) { Answer::Refusing(words) } else { health.of_nothing() }, version)
            }
            None => grafana.observe(stack, PROBE).await,
        };
        if let Answer::Refusing(words) = &answer {
            *self.refused.borrow_mut() = Some(words.clone());
        }
        let kept = match (have, &self.credentials.grafana_password) {
            _ if self.credentials.grafana_token.is_some() => KeptPassword::NotAsked,
            (Some(have), Some(given)) if have.has_password_file() => match self.stored_password(&have.id).await? {
                Some(stored) if stored == *given => KeptPassword::AsGiven,
                _ => KeptPassword::NotAsGiven,
            },
            (Some(have), None) if !have.has_password_file() && matches!(answer, Answer::Refusing(_)) => {
                let docker = self.docker()?;
                let kept = self.stored_password(&have.id).await?.is_some()
                    || docker.read_pending_password(&have.id).await?.is_some();
                if kept { KeptPassword::Unlabelled } else { KeptPassword::NotAsked }
            }
            _ => KeptPassword::NotAsked,
        };
        Ok((answer, version, kept))
    }

    async fn grafana_auth(&self, have: Option<&OurContainer>) -> Result<Auth> {
        if let Some(token) = &self.credentials.grafana_token {
            return Ok(Auth::Bearer(token.clone()));
        }
        Ok(Auth::Basic(self.credentials.grafana_user.clone(), self.grafana_password(have).await?))
    }

    /// A signed-in client for the Grafana that runs at the moment.
    async fn grafana(&self, stack: &Stack) -> Result<Rc<Grafana>> {
        if let Some(grafana) = self.grafana.borrow().as_ref() {
            return Ok(Rc::clone(grafana));
        }
        let have = match stack.container(Role::Grafana) {
            Some(spec) => self.docker()?.ours(&stack.instance, spec).await?,
            None => None,
        };
        let auth = self.grafana_auth(have.as_ref()).await?;
        let grafana = Grafana::new(self.http(stack, Role::Grafana, auth)?);
        grafana.health(PROBE).await;
        if stack.organisation.is_some() {
            grafana.enter(stack.organisation.as_deref()).await?;
        }
        let grafana = Rc::new(grafana);
        *self.grafana.borrow_mut() = Some(Rc::clone(&grafana));
        Ok(grafana)
    }
}

fn server<S>(seen: SeenRole, answer: Answer<S>, version: Option<String>, kept_password: KeptPassword) -> Server<S> {
    let SeenRole { image, volume, container, port_holder } = seen;
    Server { image, volume, container, port_holder, answer, version, kept_password }
}

const fn index(role: Role) -> usize {
    match role {
        Role::Influxdb => 0,
        Role::Grafana => 1,
    }
}

/// Something may be listening: a server that is not ours, or a container of ours that runs.
fn may_answer(stack: &Stack, role: Role, container: &Container) -> bool {
    match (stack.service(role), container) {
        (Service::External { .. }, _) => true,
        (Service::Container(_), Container::Ours(have)) => have.run == Run::Running,
        _ => false,
    }
}

/// Where a published address is reached from here.
fn base(spec: &ContainerSpec, at: std::net::SocketAddr) -> String {
    if at.ip().is_unspecified() && at.port() == spec.port && spec.address.is_unspecified() {
        return spec.url();
    }
    let ip = match at.ip() {
        std::net::IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", std::net::SocketAddr::new(ip, at.port()))
}
