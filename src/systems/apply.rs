//! Carries steps out, the two roles side by side, and waits for servers.
//!
//! One match without decisions: what is to be done is in the plan.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::try_join;

use super::docker::Life;
use super::grafana::Grafana;
use super::http::{Auth, Http};
use super::influxdb::Influxdb;
use super::{PROBE, Systems, index, pause};
use crate::core::event::{Event, Taken};
use crate::core::observed::{Answer, Run, Volume};
use crate::core::plan::{self, Finding, Lane, Plan, Step};
use crate::core::stack::{ContainerSpec, Password, Role, Stack};
use crate::error::{Error, Refusal, Result, excerpt};

impl Systems {
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
    pub(super) fn forget(&self, role: Role) {
        if role == Role::Grafana {
            *self.grafana.borrow_mut() = None;
            *self.refused.borrow_mut() = None;
        }
    }

    async fn check_image(&self, stack: &Stack, spec: &ContainerSpec) -> Result<()> {
        let docker = self.docker()?;
        let (image, volume) = try_join(docker.image(&spec.image), docker.volume(&stack.instance, &spec.name)).await?;
        let (Some(image), Volume::Ours { user: Some(owner) }) = (image, volume) else { return Ok(()) };
        match plan::volume_of_another_user(spec, &image, &owner) {
            Some(blocked) => Err(Error::Blocked { resource: plan::Resource::Server(spec.role), blocked }),
            None => Ok(()),
        }
    }

    pub(super) async fn create(
        &self,
        stack: &Stack,
        spec: &ContainerSpec,
        kind: Password,
        loopback: bool,
    ) -> Result<()> {
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
        let looks = 10;
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

pub(super) fn spec(stack: &Stack, role: Role) -> Result<&ContainerSpec> {
    stack.container(role).ok_or_else(|| Error::Docker {
        doing: format!("work on a container of {}", role.title()),
        why: "it is not ours".into(),
        refusal: Refusal::Other,
    })
}
