//! Carries steps out, the two roles side by side, and waits for servers.
//!
//! One match without decisions: what is to be done is in the plan.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select, try_join, try_join3};
use tokio::sync::Notify;

use super::docker::{Creation, RunInfo, VolumeFiles};
use super::grafana::Grafana;
use super::http::Auth;
use super::{PROBE, Systems, nowhere, pause};
use crate::core::event::{Event, ExecutedStep};
use crate::core::image::ImageRef;
use crate::core::observed::{PortHolder, Probe, RunState, Volume};
use crate::core::plan::{self, Blocked, Finding, Lane, NewPassword, Plan, Resource, Step};
use crate::core::role::Role;
use crate::core::specification::{PasswordSource, Specification};
use crate::core::stack::{ContainerSpec, EngineLocation, Login};
use crate::core::text::excerpt;
use crate::core::version::Version;
use crate::error::{Error, Refusal, Result};

impl Systems {
    /// Carries a plan out: what comes first, what both roles prepare side by side, the settings,
    /// the two roles side by side, and what comes last. What was executed is added to `executed`,
    /// also where a later step fails.
    ///
    /// # Errors
    /// The first that occurs; what was done until then stays, and a later run goes on from there.
    pub async fn apply(&self, plan: &Plan, executed: &mut Vec<ExecutedStep>) -> Result<()> {
        let done = std::cell::RefCell::new(std::mem::take(executed));
        let result = self.apply_phases(plan, &done).await;
        *executed = done.into_inner();
        result
    }

    async fn apply_phases(&self, plan: &Plan, done: &std::cell::RefCell<Vec<ExecutedStep>>) -> Result<()> {
        let prepare = |role| plan.preparation().filter(move |(step, _)| step.lane() == Lane::Beside(role));
        let of = |lane: Lane| plan.changes().filter(move |(step, _)| step.lane() == lane);
        let started = Notify::new();
        let starts_grafana = plan.changes().any(|(step, _)| step == Step::StartContainer(Role::Grafana));
        let run = |steps| self.run_lane(steps, done, starts_grafana.then_some(&started));
        run(of(Lane::First).collect()).await?;
        try_join(run(prepare(Role::Influxdb).collect()), run(prepare(Role::Grafana).collect())).await?;
        run(of(Lane::Settings).collect()).await?;
        let beside = |role| of(Lane::Beside(role)).collect();
        let influxdb = std::pin::pin!(run(beside(Role::Influxdb)));
        let grafana = std::pin::pin!(run(beside(Role::Grafana)));
        match select(influxdb, grafana).await {
            Either::Left((result, grafana)) => {
                result?;
                grafana.await?;
            }
            // Clipper's reports are lost while InfluxDB is down: its lane goes on to its end.
            Either::Right((result, influxdb)) => {
                let other = influxdb.await;
                result.and(other)?;
            }
        }
        run(of(Lane::Last).collect()).await
    }

    /// Steps one after the other. Two containers that start at once slow each other down, and Grafana
    /// takes longer, so InfluxDB's starts when `grafana_started` says so.
    async fn run_lane(
        &self,
        steps: Vec<(Step, &Finding)>,
        done: &std::cell::RefCell<Vec<ExecutedStep>>,
        grafana_started: Option<&Notify>,
    ) -> Result<()> {
        let timeout = self.stack.timeout;
        let mut deadline = Instant::now() + timeout;
        for (step, finding) in steps {
            if let (Some(grafana), Step::StartContainer(Role::Influxdb)) = (grafana_started, step) {
                grafana.notified().await;
                deadline = Instant::now() + timeout;
            }
            let started = Instant::now();
            self.listener.on(Event::Started(&step));
            let result = self.execute(step, deadline).await;
            if let (Some(grafana), Step::StartContainer(Role::Grafana)) = (grafana_started, step) {
                grafana.notify_one();
            }
            if let Err(error) = result {
                if let Some(grafana) = grafana_started.filter(|_| step.role() == Role::Grafana) {
                    grafana.notify_one();
                }
                return Err(self.explain(step, error).await);
            }
            let time = started.elapsed();
            self.listener.on(Event::Done(&step, time));
            done.borrow_mut().push(ExecutedStep { step, reason: finding.to_string(), time });
            if matches!(step, Step::PullImage(_)) {
                // The time for waiting begins when everything is here.
                deadline = Instant::now() + timeout;
            }
        }
        Ok(())
    }

    /// What really went wrong where a step failed: a server that cannot be reached may be one that
    /// somebody else is just removing, or one that has crashed.
    async fn explain(&self, step: Step, error: Error) -> Error {
        match error {
            Error::Refused { role: Role::Grafana, ref message, .. } => self.login.reject(message),
            Error::Http { ref doing, ref why, is_late: false, .. } => {
                if let Err(explained) = self.lost_container(step.role(), doing, why).await {
                    return explained;
                }
            }
            _ => {}
        }
        error
    }

    /// Looks for a moment whether the container behind a broken connection ends, or answers again.
    ///
    /// # Errors
    /// [`Error::Raced`] when the container is gone or its server answers after all,
    /// [`Error::NotReady`] when it has ended by itself.
    async fn lost_container(&self, role: Role, doing: &str, why: &str) -> Result<()> {
        let Some((id, first)) = self.run_info(role).await? else { return Ok(()) };
        let deadline = Instant::now() + PROBE;
        let mut backoff = Duration::from_millis(10);
        while Instant::now() < deadline {
            if let Some(why) = self.ended(role, &id, &first).await? {
                return Err(self.not_ready(role, why).await);
            }
            if matches!(self.probe(role).await, Probe::Answering(())) {
                return Err(Error::Raced { doing: doing.into(), why: format!("the connection broke ({why})") });
            }
            pause(&mut backoff).await;
        }
        Ok(())
    }

    /// One step, which may wait for a server until `deadline`.
    async fn execute(&self, step: Step, deadline: Instant) -> Result<()> {
        let stack = &self.stack;
        let instance = &stack.instance;
        let password = self.credentials.influxdb.as_ref().map(|login| &login.password);
        match step {
            Step::PullImage(role) => self.docker()?.pull(self.spec(role)?).await,
            Step::CheckImage(role) => self.check_image(self.spec(role)?).await,
            Step::CreateNetwork => self.docker()?.create_network(instance).await,
            Step::RemoveNetwork => self.docker()?.remove_networks(instance, false).await,
            Step::RemoveSpareNetworks => self.docker()?.remove_networks(instance, true).await,
            Step::SaveSettings => match &stack.settings {
                Some(settings) => self.docker()?.save_settings(instance, &settings.values).await,
                None => Ok(()),
            },
            Step::RemoveSettings => self.docker()?.remove_settings(instance).await,
            Step::CreateVolume(role) => self.docker()?.create_volume(instance, self.spec(role)?).await,
            Step::RemoveVolume(role) => self.docker()?.remove_volume(instance, role).await,
            Step::CreateContainer(role, password) => self.create(self.spec(role)?, password).await,
            Step::CreateOnLoopback => self.create_on_loopback(self.spec(Role::Grafana)?).await,
            Step::WritePassword => self.write_password().await,
            Step::TryPassword => self.try_password().await,
            Step::StorePassword => self.store_password().await,
            Step::SecurePassword => self.secure_password().await,
            Step::ResetPassword => self.reset_password(deadline).await,
            Step::RecordVersion => self.record_version(self.spec(Role::Grafana)?).await,
            Step::RemoveContainer(role) => {
                if role == Role::Grafana
                    && let Ok(id) = self.container_of(role)
                    && self.was_never_started(&id).await?
                {
                    self.withdraw_promise(&id).await?;
                }
                self.set_container(role, None);
                self.docker()?.remove_container(instance, role).await
            }
            Step::UnpauseContainer(role) => self.docker()?.unpause_container(role, &self.container_of(role)?).await,
            Step::StartContainer(role) => self.start(role).await,
            Step::AwaitAnswer(role) => self.await_answer(role, deadline).await,
            Step::CreateDatabase => self.influxdb().create_database(&stack.database).await,
            Step::CreateOrganisation => {
                let name = stack.organisation.as_deref().unwrap_or_default();
                self.grafana().await?.create_organisation(name).await
            }
            Step::CreateFolder => self.grafana().await?.create_folder(stack).await,
            Step::SaveDataSource => self.grafana().await?.save_data_source(&stack.data_source, password).await,
            Step::SaveDashboard { overwrite } => self.grafana().await?.save_dashboard(stack, overwrite).await,
            Step::SetHome => self.grafana().await?.set_home(&stack.dashboard.uid).await,
            Step::AwaitQuery => self.grafana().await?.await_query(&stack.data_source, password, deadline).await,
        }
    }

    fn spec(&self, role: Role) -> Result<&ContainerSpec> {
        self.stack.container(role).ok_or_else(|| Error::Docker {
            doing: format!("work on a container of {}", role.title()),
            why: "it is not ours".into(),
            refusal: Refusal::Other,
        })
    }

    async fn check_image(&self, spec: &ContainerSpec) -> Result<()> {
        let docker = self.docker()?;
        let (image, volume) = try_join(docker.image(spec), docker.volume(&self.stack.instance, spec.role)).await?;
        let Volume::Ours { user, version, .. } = volume else { return Ok(()) };
        let blocked = match (image, user) {
            (Some(image), Some(owner)) => plan::volume_of_another_user(&self.stack, spec, &image, &owner),
            _ => None,
        };
        let have = self.containers.borrow()[spec.role as usize].clone();
        let older = match have {
            Some(id) if spec.role == Role::Grafana => {
                let mut files = docker.read_files(&id).await?;
                if files.is_promised_for(&id) && self.was_never_started(&id).await? {
                    // What was promised for it has not come to pass.
                    files.promised = None;
                }
                older(spec, &spec.specification.image, &files, version)
            }
            _ => version.and_then(|version| plan::older_version(spec, &spec.specification.image, version)),
        };
        let blocked = blocked.or(older);
        blocked.map_or(Ok(()), |blocked| Err(Error::Blocked { resource: Resource::Server(spec.role), blocked }))
    }

    async fn create(&self, spec: &ContainerSpec, password: NewPassword) -> Result<()> {
        let (source, adopts) = match password {
            NewPassword::Known(source) => (source, false),
            NewPassword::AsVolume => (PasswordSource::Default, true),
        };
        let specification = Specification { password: source, ..spec.specification.clone() };
        self.create_as(spec, specification, Making { adopts, ..Making::default() }).await
    }

    /// On a port of loopback that the engine chooses, from the image that ran last: a login that is
    /// rejected must not leave a migrated database behind. A volume that Grafana never ran on gets
    /// the given password: there is no other to try.
    async fn create_on_loopback(&self, spec: &ContainerSpec) -> Result<()> {
        let publish = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let specification = Specification { publish, password: PasswordSource::Default, ..spec.specification.clone() };
        let last = self.last_image.borrow().clone();
        let mut making = Making { adopts: true, private: true, image: None };
        let mut specification = specification;
        if let Some((id, image)) = last {
            making.image = Some(id);
            specification.image = image;
        }
        self.create_as(spec, specification.clone(), making.clone()).await?;
        let id = self.container_of(spec.role)?;
        let docker = self.docker()?;
        making.adopts = false;
        if docker.has_database(&id).await? {
            if making.image.is_none()
                && let Some(last) = self.last_image_of(spec, &id).await?
            {
                let Some(found) = docker.image_called(&last).await? else {
                    docker.remove_container(&self.stack.instance, spec.role).await?;
                    self.set_container(spec.role, None);
                    return Err(Error::Blocked {
                        resource: Resource::Server(spec.role),
                        blocked: plan::needs_last_image(&self.stack, spec, &last),
                    });
                };
                making.image = Some(found.id);
                specification.image = ImageRef::parse(&last).unwrap_or(specification.image);
                let password = docker.ours(spec.role, &id).await?.and_then(|have| have.specification);
                let password = password.map_or(PasswordSource::Default, |made| made.password);
                self.replace_as(spec, Specification { password, ..specification }, making).await?;
            }
            return Ok(());
        }
        if self.credentials.grafana_password.is_some() {
            self.write_password().await?;
            let specification = Specification { password: PasswordSource::File, ..specification };
            self.replace_as(spec, specification, making).await?;
        }
        // The volume may have been made for another version.
        self.record_version(spec).await
    }

    /// The image that ran last on the volume, where it is another than the specified one.
    async fn last_image_of(&self, spec: &ContainerSpec, id: &str) -> Result<Option<String>> {
        let docker = self.docker()?;
        let (files, volume) = try_join(docker.read_files(id), docker.volume(&self.stack.instance, spec.role)).await?;
        let Volume::Ours { image: label, .. } = volume else { return Ok(None) };
        Ok(files.last_image(label).filter(|last| *last != spec.specification.image.to_string()))
    }

    /// Makes the container. With `adopts`, a password that lies in the volume is taken over, and a
    /// volume that an image is too old for is refused before anything is started on it.
    async fn create_as(&self, spec: &ContainerSpec, specification: Specification, making: Making) -> Result<()> {
        let docker = self.docker()?;
        let user = &self.stack.login.user;
        let creation = Creation {
            instance: &self.stack.instance,
            grafana_user: (user != Login::ADMIN && !self.stack.login.token).then_some(user),
            without_lockout: making.private,
            image: making.image.as_deref(),
        };
        let id = docker.create_container(creation, spec, &specification).await?;
        self.set_container(spec.role, Some(id.clone()));
        self.set_base(spec.role, &spec.url().to_string());
        if !making.adopts || spec.role != Role::Grafana {
            return Ok(());
        }
        let (files, volume) = try_join(docker.read_files(&id), docker.volume(creation.instance, spec.role)).await?;
        let label = match volume {
            Volume::Ours { version, .. } if docker.has_database(&id).await? => version,
            _ => None,
        };
        // A private one is not started before its image is the one that ran last.
        if !making.private
            && let Some(blocked) = older(spec, &spec.specification.image, &files, label)
        {
            docker.remove_container(&self.stack.instance, spec.role).await?;
            self.set_container(spec.role, None);
            return Err(Error::Blocked { resource: Resource::Server(spec.role), blocked });
        }
        if files.password.is_some() {
            let specification = Specification { password: PasswordSource::File, ..specification };
            self.replace_as(spec, specification, Making { adopts: false, ..making }).await?;
        }
        Ok(())
    }

    /// Makes a container that was never started once more.
    async fn replace_as(&self, spec: &ContainerSpec, specification: Specification, making: Making) -> Result<()> {
        self.docker()?.remove_container(&self.stack.instance, spec.role).await?;
        Box::pin(self.create_as(spec, specification, making)).await
    }

    /// Starts a container and notes where it is reached. Where its port is taken by a server of the
    /// same kind outside any container, the error says how to use that one.
    async fn start(&self, role: Role) -> Result<()> {
        let docker = self.docker()?;
        let id = self.container_of(role)?;
        let spec = self.spec(role)?;
        let have = docker.ours(role, &id).await?.and_then(|have| have.specification);
        let publish = have.map_or(spec.specification.publish, |have| have.publish);
        let result = docker.start_container(&self.stack.instance, role, &id, publish).await;
        if role == Role::Grafana && matches!(result, Err(Error::Publish { .. })) {
            self.withdraw_promise(&id).await?;
        }
        if let Err(Error::Publish { role, address, holder: PortHolder::Process, .. }) = result {
            let answers = self.answers_instead(role).await.then(|| spec.url());
            return Err(Error::Publish { role, address, holder: PortHolder::Process, answers });
        }
        result?;
        let published = docker.run_info(role, &id).await?.and_then(|info| info.published);
        // One that has ended already publishes nothing: at its address, somebody else may answer.
        let url = published.map_or_else(nowhere, |at| spec.url_at(at.ip(), at.port()));
        self.set_base(role, &url.to_string());
        Ok(())
    }

    /// A server of that role answers where the container was to be published. Only this machine is
    /// asked.
    async fn answers_instead(&self, role: Role) -> bool {
        if self.stack.engine != EngineLocation::Here {
            return false;
        }
        match role {
            Role::Influxdb => self.influxdb().observe("", PROBE).await.1.is_some(),
            Role::Grafana => self.grafana_client(Auth::None).health(PROBE).await.1.is_some(),
        }
    }

    /// Before a start: refuses an image that is older than what has run on the volume, and notes the
    /// version that its tag names. While it runs: notes the version that the server says.
    async fn record_version(&self, spec: &ContainerSpec) -> Result<()> {
        let docker = self.docker()?;
        let id = self.container_of(Role::Grafana)?;
        let running = match docker.run_info(Role::Grafana, &id).await? {
            Some(RunInfo { run: RunState::Running, .. }) => {
                self.grafana_client(Auth::None).health(PROBE).await.1.as_deref().and_then(Version::parse)
            }
            _ => None,
        };
        let (files, have, volume) = try_join3(
            docker.read_files(&id),
            docker.ours(Role::Grafana, &id),
            docker.volume(&self.stack.instance, Role::Grafana),
        )
        .await?;
        let made = have.and_then(|have| have.specification);
        let image = made.map_or_else(|| spec.specification.image.clone(), |made| made.image);
        let Some(version) = running else {
            let label = match volume {
                Volume::Ours { version, .. } if docker.has_database(&id).await? => version,
                _ => None,
            };
            if let Some(blocked) = older(spec, &image, &files, label) {
                return Err(Error::Blocked { resource: Resource::Server(Role::Grafana), blocked });
            }
            let promised = image.version().filter(|version| files.newest_version(label) < Some(*version));
            return match promised {
                Some(version) => docker.promise_version(&id, version, &image).await,
                None => Ok(()),
            };
        };
        let recorded = files.ran.as_ref().map(|ran| ran.version);
        if let Some(newer) = recorded.filter(|newer| *newer > version) {
            return Err(Error::NotReady {
                role: Role::Grafana,
                why: format!("{version} runs on a database that Grafana {newer} has migrated"),
                log: Vec::new(),
                hint: format!("use an image of Grafana {newer} or newer with --grafana-image"),
            });
        }
        if recorded != Some(version) || !files.ran_last(&image) {
            self.login.forget_files();
            docker.write_version(&id, version, &image).await?;
        }
        Ok(())
    }

    async fn was_never_started(&self, id: &str) -> Result<bool> {
        let info = self.docker()?.run_info(Role::Grafana, id).await?;
        Ok(info.is_some_and(|info| info.run == RunState::Created))
    }

    /// A start that never happened has migrated nothing.
    async fn withdraw_promise(&self, id: &str) -> Result<()> {
        let docker = self.docker()?;
        if docker.read_files(id).await?.is_promised_for(id) {
            docker.withdraw_promise(id).await?;
        }
        Ok(())
    }

    /// Polls until the server answers; ends at once when its container has ended, or when waiting
    /// cannot help.
    async fn await_answer(&self, role: Role, deadline: Instant) -> Result<()> {
        let first = self.run_info(role).await?;
        let mut backoff = Duration::from_millis(10);
        loop {
            let base = || self.http(role, Auth::None).base().to_string();
            let why = match self.probe(role).await {
                Probe::Answering(()) => return Ok(()),
                Probe::Silent(why) => why,
                Probe::Unusable(what) => {
                    let blocked = plan::unusable_server(&self.stack, role, &base(), &what);
                    return Err(Error::Blocked { resource: Resource::Server(role), blocked });
                }
                Probe::Refusing(message) => return Err(Error::Refused { role, url: base(), message }),
                Probe::Unasked => "it was not asked".into(),
            };
            if let Some((id, first)) = &first
                && let Some(why) = self.ended(role, id, first).await?
            {
                return Err(self.not_ready(role, why).await);
            }
            if Instant::now() >= deadline {
                let waited = humantime::format_duration(self.stack.timeout);
                return Err(self.not_ready(role, format!("no answer within {waited} ({why})")).await);
            }
            pause(&mut backoff).await;
        }
    }

    /// How the role's container is doing, if it is ours.
    async fn run_info(&self, role: Role) -> Result<Option<(String, RunInfo)>> {
        if self.stack.container(role).is_none() {
            return Ok(None);
        }
        let id = self.container_of(role)?;
        match self.docker()?.run_info(role, &id).await? {
            Some(info) => Ok(Some((id, info))),
            None => Err(replaced(role)),
        }
    }

    /// Why the container that is waited for will not answer any more. One that somebody else
    /// replaces is no failure of its server: it ends, and is gone a moment later.
    async fn ended(&self, role: Role, id: &str, first: &RunInfo) -> Result<Option<String>> {
        let mut backoff = Duration::from_millis(10);
        let looks = 10;
        for look in 1..=looks {
            let Some(now) = self.docker()?.run_info(role, id).await? else { return Err(replaced(role)) };
            let why = match now.run {
                RunState::Exited(code) => format!("its container exited with code {code}"),
                RunState::Restarting | RunState::Dead => "its container does not stay up".into(),
                _ if now.restarts > first.restarts => "its container exited and was started again".into(),
                _ => return Ok(None),
            };
            if look == looks {
                return Ok(Some(why));
            }
            pause(&mut backoff).await;
        }
        Ok(None)
    }

    async fn probe(&self, role: Role) -> Probe<()> {
        match role {
            Role::Influxdb => match self.influxdb().observe(&self.stack.database, PROBE).await.0 {
                Probe::Answering(_) => Probe::Answering(()),
                probe => probe.discard(),
            },
            Role::Grafana => {
                let grafana: Grafana = self.grafana_client(Auth::None);
                grafana.health(PROBE).await.0
            }
        }
    }

    /// The error for a server that is not ready, with the last lines of its log.
    async fn not_ready(&self, role: Role, why: String) -> Error {
        let id = self.containers.borrow()[role as usize].clone();
        let log = match (&self.docker, &id) {
            (Some(docker), Some(id)) => docker.last_lines(id).await,
            _ => Vec::new(),
        };
        let hint = if id.is_none() {
            "check that the server runs and that its address is right".to_string()
        } else {
            let logs = self.stack.command(&format!("logs {role}"));
            format!("`{logs}` shows more; `{}` waits longer", self.stack.command("up --timeout 10m"))
        };
        let log = log.iter().map(|line| excerpt(line, 400)).collect();
        Error::NotReady { role, why, log, hint }
    }
}

/// Somebody else removed the container that a step works on.
fn replaced(role: Role) -> Error {
    Error::Raced { doing: format!("wait for {}", role.title()), why: "somebody else replaced its container".into() }
}

/// How a container is made beyond its specification.
#[derive(Clone, Default)]
struct Making {
    /// A password that lies in the volume is taken over, and an image that is too old is refused.
    adopts: bool,
    /// Nobody else reaches it: Grafana's lockout is off.
    private: bool,
    /// The engine's id of another image than the specified one.
    image: Option<String>,
}

/// The image is older than what has run on the volume.
fn older(spec: &ContainerSpec, image: &ImageRef, files: &VolumeFiles, label: Option<Version>) -> Option<Blocked> {
    if files.ran_last(image) {
        return None;
    }
    plan::older_version(spec, image, files.newest_version(label)?)
}
