//! Talks: observes a stack through its systems, and carries steps out.
//!
//! `apply` is one match without decisions. Must not decide what is wanted, nor show anything.

pub mod clipper;
pub mod docker;
pub mod grafana;
pub mod http;
pub mod influxdb;
pub mod load;
pub mod lock;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{join, try_join};

use self::docker::{Docker, Life, SeenRole};
use self::grafana::Grafana;
use self::http::{Auth, Http};
use self::influxdb::Influxdb;
use crate::core::event::{Event, Listener, Taken};
use crate::core::observed::{
    self, Answer, Container, KeptPassword, Network, Observed, OurContainer, Run, Server, Volume,
};
use crate::core::plan::{self, Finding, Lane, Plan, Step};
use crate::core::stack::{ContainerSpec, Password, Role, Secret, Service, Stack};
use crate::error::{Error, Refusal, Result, excerpt};

/// How long one probe may take while waiting.
const PROBE: Duration = Duration::from_secs(2);
/// The longest pause between two probes.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

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
        let have = match container {
            Container::Ours(have) => Some(have),
            _ => None,
        };
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
        let have = match (&self.docker, stack.container(Role::Grafana)) {
            (Some(docker), Some(_)) => docker.observe(stack).await?.roles.into_iter().nth(index(Role::Grafana)),
            _ => None,
        };
        let have = match have.map(|role| role.container) {
            Some(Container::Ours(have)) => Some(have),
            _ => None,
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

    /// Carries a plan out: what comes first, then the two roles side by side, then what comes last.
    ///
    /// # Errors
    /// The first that occurs; what was done until then stays, and a later run goes on from there.
    pub async fn apply(&self, stack: &Stack, plan: &Plan, wishes: plan::Wishes) -> Result<()> {
        self.overwrite_dashboard.set(wishes.overwrite_dashboard);
        let of = |lane: Lane| plan.steps().filter(move |(step, _)| step.lane() == lane);
        self.run_lane(stack, of(Lane::First)).await?;
        try_join(
            self.run_lane(stack, of(Lane::Beside(Role::Influxdb))),
            self.run_lane(stack, of(Lane::Beside(Role::Grafana))),
        )
        .await?;
        self.run_lane(stack, of(Lane::Last)).await
    }

    async fn run_lane<'a>(&self, stack: &Stack, steps: impl Iterator<Item = (Step, &'a Finding)>) -> Result<()> {
        let mut deadline = Instant::now() + stack.timeout;
        for (step, finding) in steps {
            let started = Instant::now();
            self.listener.on(Event::Started(&step));
            let result = self.take(stack, step, deadline).await;
            if let Err(Error::Refused { role: Role::Grafana, words, .. }) = &result {
                *self.refused.borrow_mut() = Some(words.clone());
            }
            result?;
            let time = started.elapsed();
            self.listener.on(Event::Done(&step, time));
            self.taken.borrow_mut().push(Taken { step, reason: finding.to_string(), time });
            if matches!(step, Step::PullImage(_)) {
                // The time for waiting begins when everything is here.
                deadline = Instant::now() + stack.timeout;
            }
        }
        Ok(())
    }

    /// One step.
    async fn take(&self, stack: &Stack, step: Step, deadline: Instant) -> Result<()> {
        let instance = &stack.instance;
        let password = self.credentials.influxdb.as_ref().map(|(_, password)| password);
        match step {
            Step::PullImage(role) => self.docker()?.pull(role, &spec(stack, role)?.image).await,
            Step::CheckImage(role) => self.check_image(stack, spec(stack, role)?).await,
            Step::CreateNetwork => self.docker()?.create_network(instance).await,
            Step::RemoveNetwork => self.docker()?.remove_networks(instance, false).await,
            Step::RemoveSpareNetworks => self.docker()?.remove_networks(instance, true).await,
            Step::CreateVolume(role) => self.docker()?.create_volume(instance, spec(stack, role)?).await,
            Step::RemoveVolume(role) => self.docker()?.remove_volume(instance, &spec(stack, role)?.name).await,
            Step::CreateContainer(role, kind) => self.create(stack, spec(stack, role)?, kind, false).await,
            Step::CreateGuarded => {
                self.create(stack, spec(stack, Role::Grafana)?, Password::Default, true).await?;
                self.adopt_password(stack, true).await
            }
            Step::AdoptPassword => self.adopt_password(stack, false).await,
            Step::EnsurePassword => self.ensure_password(spec(stack, Role::Grafana)?).await,
            Step::StorePassword => self.store_given_password(spec(stack, Role::Grafana)?).await,
            Step::SecurePassword => self.secure_password(stack).await,
            Step::ResetPassword => self.reset_password(spec(stack, Role::Grafana)?).await,
            Step::RemoveContainer(role) => {
                self.forget(role);
                self.docker()?.remove_container(instance, &spec(stack, role)?.name).await
            }
            Step::UnpauseContainer(role) => self.docker()?.unpause_container(&spec(stack, role)?.name).await,
            Step::StartContainer(role) => self.start(spec(stack, role)?).await,
            Step::AwaitAnswer(role) => self.await_answer(stack, role, deadline).await,
            Step::CreateDatabase => self.influxdb(stack)?.create_database(&stack.database).await,
            Step::CreateOrganisation => {
                let name = stack.organisation.as_deref().unwrap_or_default();
                self.grafana(stack).await?.create_organisation(name).await
            }
            Step::CreateFolder => {
                let title = stack.folder.as_deref().unwrap_or_default();
                self.grafana(stack).await?.create_folder(title, &stack.dashboard.uid).await
            }
            Step::SaveDataSource => self.grafana(stack).await?.save_data_source(&stack.data_source, password).await,
            Step::SaveDashboard => {
                self.grafana(stack).await?.save_dashboard(stack, self.overwrite_dashboard.get()).await
            }
            Step::SetHome => self.grafana(stack).await?.set_home(&stack.dashboard.uid).await,
            Step::AwaitQuery => self.grafana(stack).await?.await_query(&stack.data_source, password, deadline).await,
        }
    }

    /// The role's container is about to change: what was known of it no longer holds.
    fn forget(&self, role: Role) {
        if role == Role::Grafana {
            *self.grafana.borrow_mut() = None;
            *self.refused.borrow_mut() = None;
        }
    }

    async fn check_image(&self, stack: &Stack, spec: &ContainerSpec) -> Result<()> {
        let seen = self.docker()?.observe(stack).await?;
        let role = &seen.roles[index(spec.role)];
        let (Some(image), Volume::Ours { user: Some(owner) }) = (&role.image, &role.volume) else { return Ok(()) };
        match plan::volume_of_another_user(spec, image, owner) {
            Some(blocked) => Err(Error::Blocked { resource: plan::Resource::Server(spec.role), blocked }),
            None => Ok(()),
        }
    }

    async fn create(&self, stack: &Stack, spec: &ContainerSpec, kind: Password, loopback: bool) -> Result<()> {
        self.forget(spec.role);
        self.docker()?.create_container(&stack.instance, spec, kind, loopback).await?;
        let base = if loopback { format!("http://127.0.0.1:{}", spec.port) } else { spec.url() };
        self.bases.borrow_mut()[index(spec.role)] = Some(base);
        Ok(())
    }

    /// Starts a container. Where its port is taken by the very server that is wanted, the error says
    /// how to use that one.
    async fn start(&self, spec: &ContainerSpec) -> Result<()> {
        let result = self.docker()?.start_container(spec).await;
        let Err(Error::Publish { role, address, why, .. }) = &result else { return result };
        let url = spec.url();
        let http = Http::new(role.name(), &url, Auth::None, None, Rc::clone(&self.listener))?;
        let answers = match role {
            Role::Influxdb => Influxdb::new(http).observe("", PROBE).await.1.is_some(),
            Role::Grafana => Grafana::new(http).health(PROBE).await.1.is_some(),
        };
        if !answers || why.starts_with("container ") {
            return result;
        }
        let title = role.title();
        Err(Error::Publish {
            role: *role,
            address: address.clone(),
            why: format!("{why}; {title} answers there"),
            hint: format!("use it with --{role}-url {url}, or choose another port with --{role}-port"),
        })
    }

    /// A volume that was kept may hold a password; then the container's label must say so.
    async fn adopt_password(&self, stack: &Stack, loopback: bool) -> Result<()> {
        let spec = spec(stack, Role::Grafana)?;
        if self.stored_password(&spec.name).await?.is_none() {
            return Ok(());
        }
        self.docker()?.remove_container(&stack.instance, &spec.name).await?;
        self.create(stack, spec, Password::File, loopback).await
    }

    async fn ensure_password(&self, spec: &ContainerSpec) -> Result<()> {
        if self.stored_password(&spec.name).await?.is_some() {
            return Ok(());
        }
        let pending = match &self.credentials.grafana_password {
            Some(_) => None,
            None => self.docker()?.read_pending_password(&spec.name).await?,
        };
        let password = pending.map_or_else(|| self.given_or_new(), Ok)?;
        self.keep(spec, password).await
    }

    async fn store_given_password(&self, spec: &ContainerSpec) -> Result<()> {
        let password = self.given_or_new()?;
        self.keep(spec, password).await
    }

    async fn keep(&self, spec: &ContainerSpec, password: Secret) -> Result<()> {
        self.docker()?.write_password(&spec.name, &password).await?;
        *self.stored_password.borrow_mut() = Some(password);
        Ok(())
    }

    fn given_or_new(&self) -> Result<Secret> {
        self.credentials.grafana_password.clone().map_or_else(generate, Ok)
    }

    /// Replaces the default password while Grafana is on loopback. The new one is noted before
    /// Grafana has it and kept after that, so that a crash in between loses nothing.
    async fn secure_password(&self, stack: &Stack) -> Result<()> {
        let spec = spec(stack, Role::Grafana)?;
        let sign_in = |password: &Secret| -> Result<Grafana> {
            let auth = Auth::Basic(self.credentials.grafana_user.clone(), password.clone());
            Ok(Grafana::new(self.http(stack, Role::Grafana, auth)?))
        };
        let default = &self.credentials.default_password;
        let given = self.credentials.grafana_password.clone();
        let stored = self.stored_password(&spec.name).await?;
        let pending = self.docker()?.read_pending_password(&spec.name).await?;
        let mut candidates: Vec<&Secret> = [&given, &stored, &pending].into_iter().flatten().collect();
        candidates.retain(|candidate| *candidate != default);
        candidates.dedup();
        for candidate in candidates {
            match sign_in(candidate)?.try_to_sign_in().await {
                Ok(()) => return self.keep(spec, candidate.clone()).await,
                Err(Error::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let grafana = sign_in(default)?;
        grafana.try_to_sign_in().await?;
        let new = given.or(pending).filter(|secret| secret != default).map_or_else(generate, Ok)?;
        self.docker()?.write_pending_password(&spec.name, &new).await?;
        grafana.change_password(default, &new).await?;
        self.keep(spec, new).await
    }

    async fn reset_password(&self, spec: &ContainerSpec) -> Result<()> {
        let new = self.given_or_new()?;
        self.docker()?.reset_password(&spec.name, &new).await?;
        self.forget(Role::Grafana);
        self.keep(spec, new).await
    }

    /// Polls until the server answers; ends at once when its container has.
    async fn await_answer(&self, stack: &Stack, role: Role, deadline: Instant) -> Result<()> {
        let first = self.life(stack, role).await?;
        let mut length = Duration::from_millis(10);
        loop {
            let why = match self.probe(stack, role).await? {
                Answer::Answering(()) => return Ok(()),
                Answer::Silent(why) => why,
                Answer::Unusable(what) => {
                    let blocked = plan::unusable_server(role, &self.base(stack, role), &what);
                    return Err(Error::Blocked { resource: plan::Resource::Server(role), blocked });
                }
                Answer::Refusing(words) => {
                    return Err(Error::Refused { role, url: self.base(stack, role), words });
                }
                Answer::Unasked => "it was not asked".into(),
            };
            if let Some(first) = &first
                && let Some(why) = self.ended(stack, role, first).await?
            {
                return Err(self.not_ready(stack, role, why).await);
            }
            if Instant::now() >= deadline {
                let waited = humantime::format_duration(stack.timeout);
                return Err(self.not_ready(stack, role, format!("no answer within {waited} ({why})")).await);
            }
            pause(&mut length).await;
        }
    }

    /// How the role's container is doing, if it is ours.
    async fn life(&self, stack: &Stack, role: Role) -> Result<Option<Life>> {
        match stack.container(role) {
            Some(spec) => self.docker()?.life(&stack.instance, &spec.name).await,
            None => Ok(None),
        }
    }

    /// Why the container that is waited for will not answer any more. One that somebody else
    /// replaces is no failure of its server: it ends, and is gone a moment later.
    async fn ended(&self, stack: &Stack, role: Role, first: &Life) -> Result<Option<String>> {
        let mut length = Duration::from_millis(10);
        let looks = 6;
        for look in 1..=looks {
            let now = self.life(stack, role).await?;
            let Some(now) = now.filter(|now| now.id == first.id) else {
                return Err(Error::Docker {
                    doing: format!("wait for {}", role.title()),
                    why: "somebody else replaced its container".into(),
                    refusal: Refusal::Conflict,
                });
            };
            let why = match now.run {
                Run::Exited(code) => format!("its container exited with code {code}"),
                Run::Restarting | Run::Dead => "its container does not stay up".into(),
                _ if now.restarts > first.restarts => "its container exited and was started again".into(),
                _ => return Ok(None),
            };
            if look == looks {
                return Ok(Some(why));
            }
            pause(&mut length).await;
        }
        Ok(None)
    }

    async fn probe(&self, stack: &Stack, role: Role) -> Result<Answer<()>> {
        Ok(match role {
            Role::Influxdb => match self.influxdb(stack)?.observe(&stack.database, PROBE).await.0 {
                Answer::Answering(_) => Answer::Answering(()),
                answer => answer.of_nothing(),
            },
            Role::Grafana => Grafana::new(self.http(stack, role, Auth::None)?).health(PROBE).await.0,
        })
    }

    /// The error for a server that is not ready, with the last lines of its log.
    async fn not_ready(&self, stack: &Stack, role: Role, why: String) -> Error {
        let (log, name) = match (&self.docker, stack.container(role)) {
            (Some(docker), Some(spec)) => (docker.last_lines(&spec.name).await, spec.name.clone()),
            _ => (Vec::new(), String::new()),
        };
        let hint = if name.is_empty() {
            "see that the server runs and that its address is right".to_string()
        } else {
            format!("`clipper-metrics logs {role}` shows more; --timeout gives it longer; then run `up` again")
        };
        let log = log.iter().map(|line| excerpt(line, 400)).collect();
        Error::NotReady { role, why, log, hint }
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

fn spec(stack: &Stack, role: Role) -> Result<&ContainerSpec> {
    stack.container(role).ok_or_else(|| Error::Docker {
        doing: format!("work on a container of {}", role.title()),
        why: "it is not ours".into(),
        refusal: Refusal::Other,
    })
}

/// A new password of 128 bits.
fn generate() -> Result<Secret> {
    let mut bytes = [0_u8; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).map_err(|_| Error::Io {
        doing: "generate a password".into(),
        source: std::io::Error::other("the system has no random numbers"),
    })?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}
