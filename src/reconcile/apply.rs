//! Executes steps, with both roles in parallel, and waits for servers.

use std::net::SocketAddr;
use std::time::Instant;

use futures_util::future::{Either, select, try_join};
use tokio::sync::Notify;

use super::Systems;
use crate::engine::is_of_this_machine;
use crate::error::{Error, Refusal, Result};
use crate::grafana::{Choice, Grafana};
use crate::http::Auth;
use crate::http::PROBE;
use crate::influxdb::Influxdb;
use crate::model::event::{Event, ExecutedStep};
use crate::model::observed::PortHolder;
use crate::model::plan::{Finding, Phase, Plan, Step};
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, EngineLocation};

/// A step that failed.
#[derive(Debug)]
pub struct FailedStep {
    /// The step.
    pub step: Step,
    /// Its error.
    pub error: Error,
}

impl FailedStep {
    /// The error alone.
    #[must_use]
    pub fn into_error(self) -> Error {
        self.error
    }
}

impl Systems {
    /// Executes a plan phase by phase, with both roles in parallel. Executed steps are added to
    /// `executed`, even if a later step fails.
    ///
    /// # Errors
    /// The first step that failed. Completed steps stay, and a later run continues from there.
    pub async fn apply(&self, plan: &Plan, executed: &mut Vec<ExecutedStep>) -> Result<(), FailedStep> {
        let done = std::cell::RefCell::new(std::mem::take(executed));
        let result = self.apply_phases(plan, &done).await;
        *executed = done.into_inner();
        result
    }

    async fn apply_phases(&self, plan: &Plan, done: &std::cell::RefCell<Vec<ExecutedStep>>) -> Result<(), FailedStep> {
        let started = Notify::new();
        let starts_grafana = plan.phase(Phase::Changes).any(|(step, _)| step == Step::StartContainer(Role::Grafana));
        for phase in Phase::ALL {
            let grafana_started = (starts_grafana && phase == Phase::Changes).then_some(&started);
            let lane = |role| self.run_lane(plan.lane(phase, role).collect(), done, grafana_started);
            let (influxdb, grafana) = (lane(Role::Influxdb), lane(Role::Grafana));
            if matches!(phase, Phase::Network | Phase::Preparation | Phase::Trial | Phase::Settings | Phase::End) {
                try_join(influxdb, grafana).await?;
                continue;
            }
            match select(std::pin::pin!(influxdb), std::pin::pin!(grafana)).await {
                // After a failure, the other role's lane still runs to its end, so that its server
                // is left in no intermediate state.
                Either::Left((result, grafana)) => {
                    let other = grafana.await;
                    result.and(other)?;
                }
                Either::Right((result, influxdb)) => {
                    let other = influxdb.await;
                    result.and(other)?;
                }
            }
        }
        Ok(())
    }

    /// Executes steps in sequence. Two containers that start at once slow each other down, and
    /// Grafana takes longer, so InfluxDB's start waits for `grafana_started`.
    async fn run_lane(
        &self,
        steps: Vec<(Step, &Finding)>,
        done: &std::cell::RefCell<Vec<ExecutedStep>>,
        grafana_started: Option<&Notify>,
    ) -> Result<(), FailedStep> {
        let timeout = self.stack.timeout;
        let mut deadline = Instant::now() + timeout;
        for (step, finding) in steps {
            if let (Some(grafana), Step::StartContainer(Role::Influxdb)) = (grafana_started, &step) {
                grafana.notified().await;
                deadline = Instant::now() + timeout;
            }
            let started = Instant::now();
            if step == Step::FinishUpgrade {
                deadline = started + timeout;
            }
            self.listener.on(Event::Started(&step));
            // Boxed because the future is as large as the largest step, and it is nested many times.
            let result = Box::pin(self.execute(step.clone(), deadline)).await;
            if let (Some(grafana), Step::StartContainer(Role::Grafana)) = (grafana_started, &step) {
                grafana.notify_one();
            }
            if let Err(error) = result {
                if let Some(grafana) = grafana_started.filter(|_| step.role() == Role::Grafana) {
                    grafana.notify_one();
                }
                let error = self.explain(&step, error).await;
                return Err(FailedStep { step, error });
            }
            let time = started.elapsed();
            self.listener.on(Event::Done(&step, time));
            if matches!(step, Step::PullImage(_)) {
                // The time limit for waiting starts after the pulls.
                deadline = Instant::now() + timeout;
            }
            done.borrow_mut().push(ExecutedStep { step, reason: finding.to_string(), time });
        }
        Ok(())
    }

    /// Finds the actual cause of a failed step: an unreachable server may have crashed, or another
    /// process may be removing it.
    async fn explain(&self, step: &Step, error: Error) -> Error {
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

    /// Executes one step, which may wait for a server until `deadline`.
    async fn execute(&self, step: Step, deadline: Instant) -> Result<()> {
        let stack = &self.stack;
        let instance = &stack.instance;
        let influxdb_password = self.credentials.influxdb.as_ref().map(|login| &login.password);
        match step {
            Step::PullImage(role) => self.docker()?.pull(self.spec(role)?).await,
            Step::CheckImage { role, restores } => self.check_image(self.spec(role)?, restores).await,
            Step::CheckAddress(role, publish) => self.check_address(role, publish).await,
            Step::CreateNetwork => self.docker()?.create_network(instance).await,
            Step::RemoveNetwork => self.docker()?.remove_networks(instance, false).await,
            Step::RemoveSpareNetworks => self.docker()?.remove_networks(instance, true).await,
            Step::SaveSettings { keeps_retention } => match &stack.settings {
                Some(settings) => self.docker()?.save_settings(instance, &settings.values, keeps_retention).await,
                None => Ok(()),
            },
            Step::BeginRestore => match (&stack.settings, &stack.restore) {
                (Some(settings), Some(restore)) => {
                    let replaced = stack.replaced_restore.as_ref();
                    self.docker()?.begin_restore(instance, &settings.values, restore, replaced).await
                }
                _ => Ok(()),
            },
            Step::FinishRestore => match (&stack.settings, &stack.restore) {
                (Some(settings), Some(restore)) => {
                    self.docker()?.finish_restore(instance, &settings.values, restore).await
                }
                _ => Ok(()),
            },
            Step::RemoveSettings => self.docker()?.remove_settings(instance).await,
            Step::CreateVolume(role) => self.docker()?.create_volume(instance, self.spec(role)?).await,
            Step::RemoveVolume(role) => self.docker()?.remove_volume(instance, role).await,
            Step::CreateContainer(role, password) => self.create(self.spec(role)?, password).await,
            Step::CreatePrivateContainer { last } => {
                self.create_private_container(self.spec(Role::Grafana)?, last).await
            }
            Step::WritePassword => self.write_password().await,
            Step::TryPassword => self.try_password().await,
            Step::StorePassword => self.store_password().await,
            Step::SecurePassword => self.secure_password().await,
            Step::ResetPassword => self.reset_password(deadline).await,
            Step::ProtectDatabase { last } => self.protect_database(last).await,
            Step::CreateForRestore(role) => self.create_for_restore(self.spec(role)?).await,
            Step::RestoreDatabase => self.restore_database().await,
            Step::FinishUpgrade => self.finish_upgrade(deadline).await,
            Step::RecordVersion => self.record_version(self.spec(Role::Grafana)?).await,
            Step::RemoveContainer(role) => {
                if role == Role::Grafana
                    && let Ok(id) = self.container_of(role)
                    && self.was_never_started(&id).await?
                {
                    self.clear_intended_version(&id).await?;
                }
                self.set_container(role, None);
                self.docker()?.remove_container(instance, role).await
            }
            Step::UnpauseContainer(role) => self.docker()?.unpause_container(role, &self.container_of(role)?).await,
            Step::StartContainer(role) => self.start(role).await,
            Step::AwaitAnswer(role) => self.await_answer(role, deadline).await,
            Step::SetRetention { from } => match stack.retention {
                Some(retention) => self.influxdb().set_retention(&stack.database, from, retention).await,
                None => Ok(()),
            },
            Step::CreateDatabase => self.influxdb().create_database(&stack.database, stack.retention).await,
            Step::CreateOrganisation => {
                let name = stack.organisation.as_deref().unwrap_or_default();
                self.grafana().await?.create_organisation(name).await
            }
            Step::CreateFolder => self.grafana().await?.create_folder(stack).await,
            Step::SaveDataSource { moves } => {
                self.grafana().await?.save_data_source(stack, influxdb_password, moves).await
            }
            Step::SaveDashboard { id, overwrite, fresh, moves } => {
                self.grafana().await?.save_dashboard(stack, id, overwrite, fresh, moves).await
            }
            Step::DeleteDashboard(id) => self.grafana().await?.delete_dashboard(stack, id).await,
            Step::DeleteFolder => self.grafana().await?.delete_folder(stack).await,
            Step::DeleteDataSource => self.grafana().await?.delete_data_source(&stack.data_source).await,
            Step::SaveAlertRules { objective, overwrite, moves } => {
                self.grafana().await?.save_alert_rules(stack, objective, overwrite, moves).await
            }
            Step::DeleteAlertRules { moves } => self.grafana().await?.delete_alert_rules(stack, moves).await,
            Step::SetHome => self.grafana().await?.set_home(&stack.dashboard.uid).await,
            Step::VerifyQuery => self.grafana().await?.await_query(stack, influxdb_password, deadline).await,
        }
    }

    pub(super) fn spec(&self, role: Role) -> Result<&DesiredContainer> {
        self.stack.container(role).ok_or_else(|| Error::Docker {
            doing: format!("work on a container of {}", role.title()),
            why: "clipper-metrics does not manage it".into(),
            refusal: Refusal::Other,
        })
    }

    /// Starts a container and records its address. If a server of the same kind outside any
    /// container holds its port, the error explains how to use that server.
    async fn start(&self, role: Role) -> Result<()> {
        let docker = self.docker()?;
        let id = self.container_of(role)?;
        let spec = self.spec(role)?;
        let have = docker.ours(role, &id).await?.and_then(|have| have.specification);
        let publish = have.map_or(spec.specification.publish, |have| have.publish);
        // An address check left by an interrupted run may hold the address.
        for role in Role::ALL {
            docker.remove_address_check(&self.stack.instance, role).await?;
        }
        let result = docker.start_container(&self.stack.instance, role, &id, publish).await;
        if role == Role::Grafana && matches!(result, Err(Error::Publish { .. })) {
            self.clear_intended_version(&id).await?;
        }
        self.explain_publishing(spec, result).await?;
        let published = docker.run_info(role, &id).await?.and_then(|info| info.published);
        // A container that has already exited publishes nothing, and another server may answer at
        // its address.
        self.set_place(spec, published);
        Ok(())
    }

    async fn check_address(&self, role: Role, publish: SocketAddr) -> Result<()> {
        let spec = self.spec(role)?;
        let result = self.docker()?.check_address(&self.stack.instance, spec, publish).await;
        self.explain_publishing(spec, result).await
    }

    /// Adds the server that answers at an unavailable address, and a free port, to an error.
    async fn explain_publishing(&self, spec: &DesiredContainer, result: Result<()>) -> Result<()> {
        let Err(Error::Publish { role, address, mut holder, .. }) = result else { return result };
        let is_own = self.stack.engine == EngineLocation::Here && is_of_this_machine(address.ip());
        if holder == PortHolder::NoSuchAddress && is_own {
            holder = PortHolder::VirtualMachine;
        }
        let is_process = holder == PortHolder::Process;
        let answers = (is_process && self.answers_instead(spec, address).await).then(|| spec.url());
        let free = self.free_port(address);
        Err(Error::Publish { role, address, holder, answers, free })
    }

    /// Whether a server of that role answers at the address to publish. Only addresses of this
    /// machine are checked.
    pub(super) async fn answers_instead(&self, spec: &DesiredContainer, address: SocketAddr) -> bool {
        if self.stack.engine != EngineLocation::Here {
            return false;
        }
        let url = spec.url_at(address.ip(), address.port()).to_string();
        let http = self.http(spec.role, Auth::None).at(&url, &url);
        match spec.role {
            Role::Influxdb => Influxdb::new(http).observe("", PROBE).await.1.is_some(),
            Role::Grafana => Grafana::new(http, Choice::First).health(PROBE).await.1.is_some(),
        }
    }
}
