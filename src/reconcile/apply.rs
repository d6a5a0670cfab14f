//! Executes steps, with both roles in parallel, and waits for servers.

use std::net::SocketAddr;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt as _, TryStreamExt as _};
use tokio::sync::Notify;

use super::Session;
use super::connection::{Connection, Connections};
use super::observe::health;
use crate::engine::{Creation, is_of_this_machine};
use crate::error::{Error, Refusal, Result};
use crate::http::PROBE;
use crate::model::event::{Event, ExecutedStep};
use crate::model::observed::PortHolder;
use crate::model::plan::{ContainerUse, Finding, NewContainer, Phase, Plan, Step};
use crate::model::role::{PerRole, Role};
use crate::model::stack::{DesiredContainer, EngineLocation, Login};

/// The end of a plan, or of a run, that failed.
#[derive(Debug)]
pub(super) struct RunFailure {
    /// The step that failed; `None` if no step failed: the plan was blocked, or the run ended after its steps.
    pub(super) step: Option<Step>,
    pub(super) error: Error,
}

impl From<Error> for RunFailure {
    fn from(error: Error) -> Self {
        Self { step: None, error }
    }
}

impl Session {
    /// Executes a plan phase by phase up to [`Plan::until`], with both roles in parallel. Executed steps are added to
    /// `executed`, even if a later step fails.
    ///
    /// # Errors
    /// The first step that failed. Completed steps stay, and a later run continues from there.
    pub(crate) async fn apply(
        &self,
        plan: &Plan,
        connections: &mut Connections,
        executed: &mut Vec<ExecutedStep>,
    ) -> Result<()> {
        self.try_apply(plan, connections, executed).await.map_err(|failure| failure.error)
    }

    /// The same, for a caller to which the failed step matters.
    pub(super) async fn try_apply(
        &self,
        plan: &Plan,
        connections: &mut Connections,
        executed: &mut Vec<ExecutedStep>,
    ) -> Result<(), RunFailure> {
        let started = Notify::new();
        let starts_grafana = plan.phase(Phase::Changes).any(|(step, _)| *step == Step::StartContainer(Role::Grafana));
        let until = plan.until();
        for phase in Phase::ALL.into_iter().filter(|phase| *phase <= until) {
            let grafana_started = (starts_grafana && phase == Phase::Changes).then_some(&started);
            let mut done: PerRole<Vec<_>> = PerRole::default();
            let lanes = connections.iter_mut().zip(done.iter_mut()).map(|(connection, done)| {
                let steps = plan.lane(phase, connection.role).collect::<Vec<_>>();
                self.run_lane(steps, connection, done, grafana_started)
            });
            let lanes: FuturesUnordered<_> = lanes.collect();
            let result: Result<(), RunFailure> = if phase.completes_every_lane() {
                // The first failure counts.
                lanes.collect::<Vec<_>>().await.into_iter().collect()
            } else {
                let result = lanes.try_collect().await;
                if result.is_err() {
                    // The abandoned lane may have been checking an address.
                    self.finish_changes().await;
                }
                result
            };
            done.iter_mut().for_each(|done| executed.append(done));
            result?;
        }
        Ok(())
    }

    /// Executes steps in sequence. Two containers that start at once slow each other down, and
    /// Grafana takes longer, so InfluxDB's start waits for `grafana_started`.
    async fn run_lane(
        &self,
        steps: Vec<(&Step, &Finding)>,
        connection: &mut Connection,
        done: &mut Vec<ExecutedStep>,
        grafana_started: Option<&Notify>,
    ) -> Result<(), RunFailure> {
        let timeout = self.stack.timeout;
        let mut deadline = Instant::now() + timeout;
        for (step, finding) in steps {
            if let (Some(grafana), Step::StartContainer(Role::Influxdb)) = (grafana_started, step) {
                grafana.notified().await;
            }
            let started = Instant::now();
            // Pulls and copies before a start do not count.
            if matches!(step, Step::StartContainer(_) | Step::ProveDashboard { .. }) {
                deadline = started + timeout;
            }
            self.listener.on(Event::Started(step));
            // Boxed because the future is as large as the largest step, and it is nested many times.
            let result = Box::pin(self.execute(connection, step.clone(), deadline)).await;
            if let (Some(grafana), Step::StartContainer(Role::Grafana)) = (grafana_started, step) {
                grafana.notify_one();
            }
            if let Err(error) = result {
                if let Some(grafana) = grafana_started.filter(|_| step.role() == Role::Grafana) {
                    grafana.notify_one();
                }
                let error = self.explain(connection, error).await;
                return Err(RunFailure { step: Some(step.clone()), error });
            }
            let time = started.elapsed();
            self.listener.on(Event::Done(step, time));
            if matches!(step, Step::PullImage(_)) {
                // The time limit for waiting starts after the pulls.
                deadline = Instant::now() + timeout;
            }
            done.push(ExecutedStep { step: step.clone(), reason: finding.to_string(), time });
        }
        Ok(())
    }

    /// Finds the actual cause of a failed step: an unreachable server may have crashed, another process may be removing
    /// it, or another server may hold its address.
    async fn explain(&self, connection: &mut Connection, error: Error) -> Error {
        match error {
            Error::Refused { role: Role::Grafana, ref message, .. } => connection.give_up(message, None),
            Error::Http { ref doing, ref why, is_late: false, .. } => {
                if let Err(explained) = self.lost_container(connection, doing, why).await {
                    return explained;
                }
            }
            Error::Publish { role, address, holder, .. } => {
                return self.explain_publishing(role, address, holder).await;
            }
            _ => {}
        }
        error
    }

    /// Executes one step, which may wait for a server until `deadline`.
    async fn execute(&self, connection: &mut Connection, step: Step, deadline: Instant) -> Result<()> {
        let stack = &self.stack;
        let instance = &stack.instance;
        let mut grafana = async || self.grafana(connection).await;
        match step {
            Step::PullImage(role) => self.docker()?.pull(self.spec(role)?).await,
            Step::CheckAddress(role, publish) => {
                self.docker()?.check_address(instance, self.spec(role)?, publish).await
            }
            Step::CreateNetwork => self.docker()?.create_network(instance).await,
            Step::RemoveNetwork => self.docker()?.remove_networks(instance, false).await,
            Step::RemoveDuplicateNetworks => self.docker()?.remove_networks(instance, true).await,
            Step::RemoveAddressChecks(ids) => self.docker()?.remove_address_checks(&ids).await,
            Step::SaveSettings { values, replaces } => {
                self.docker()?.save_settings(instance, &values, replaces.as_ref()).await
            }
            Step::BeginRestore(record) => self.docker()?.begin_restore(instance, &record).await,
            Step::FinishRestore(record) => self.docker()?.finish_restore(instance, &record).await,
            Step::RemoveSettings => self.docker()?.remove_settings(instance).await,
            Step::CreateVolume(role) => self.docker()?.create_volume(instance, self.spec(role)?).await,
            Step::RemoveVolume(role) => self.docker()?.remove_volume(instance, role).await,
            Step::CreateContainer(new) => self.create(connection, &new).await,
            Step::WriteFirstPassword(password) => self.write_first_password(connection, password).await,
            Step::TryLogin(login) => self.try_login(connection, login).await,
            Step::StorePassword { login, replaces_pending } => {
                self.store_password(connection, login, replaces_pending).await
            }
            Step::WritePendingPassword(password) => self.write_pending_password(connection, password).await,
            Step::ChangePassword(new) => self.change_password(connection, new).await,
            Step::CheckLoginForm => self.check_login_form(connection).await,
            Step::ResetPassword(new) => self.reset_password(connection, new, deadline).await,
            Step::WriteVersion { version, image } => {
                self.docker()?.write_version(connection.container()?, version, image.as_ref()).await
            }
            Step::WriteIntendedVersion { version, image } => {
                self.docker()?.write_intended_version(connection.container()?, version, &image).await
            }
            Step::ClearIntendedVersion => self.docker()?.clear_intended_version(connection.container()?).await,
            Step::RecordUpgrade(upgrade) => self.docker()?.save_upgrade(instance, Some(&upgrade)).await,
            Step::EndUpgrade(end) => self.docker()?.save_upgrade(instance, end.as_deref()).await,
            Step::DeleteDatabaseCopy => self.delete_database_copy(connection.container()?).await,
            Step::CopyGrafanaDatabase { upgrade } => {
                self.docker()?.copy_database(connection.container()?, &upgrade).await
            }
            Step::RollBackDatabase => self.docker()?.put_database_back(connection.container()?).await,
            Step::ProveDashboard { edited } => self.prove_dashboard(connection, edited, deadline).await,
            Step::RemoveContainer(role) => self.remove(connection, role).await,
            Step::UnpauseContainer(role) => self.docker()?.unpause_container(role, connection.container()?).await,
            Step::StartContainer(role) => self.start(connection, role).await,
            Step::AwaitAnswer(_) => self.await_answer(connection, deadline).await,
            Step::SetRetention { database, from, to } => {
                self.influxdb(connection).set_retention(&database, from, to).await
            }
            Step::CreateDatabase { name, retention } => {
                self.influxdb(connection).create_database(&name, retention).await
            }
            Step::CreateOrganisation(name) => self.signed_in(connection)?.create_organisation(&name).await,
            Step::CreateFolder { title } => grafana().await?.create_folder(instance, &title).await,
            Step::SaveDataSource { replaces, becomes_default } => {
                let secret = self.influxdb_secret();
                grafana().await?.save_data_source(stack, secret, replaces.as_ref(), becomes_default).await
            }
            Step::SaveDashboard { id, replaces, .. } => {
                grafana().await?.save_dashboard(stack, id, replaces.as_deref()).await
            }
            Step::RecordDashboard { id, observed, .. } => grafana().await?.record_dashboard(stack, id, &observed).await,
            Step::DeleteDashboard { id, observed, .. } => grafana().await?.delete_dashboard(stack, id, &observed).await,
            Step::DeleteFolder { title } => grafana().await?.delete_folder(instance, &title).await,
            Step::DeleteDataSource { fields } => grafana().await?.delete_data_source(&stack.data_source, &fields).await,
            Step::CreateAlertFolder => grafana().await?.create_alert_folder(stack).await,
            Step::CreateAlertRule(new) => grafana().await?.create_alert_rule(stack, &new).await,
            Step::SaveAlertRules { rules, sets_interval } => {
                grafana().await?.save_alert_rules(stack, &rules, sets_interval).await
            }
            Step::SaveMovedAlertRule(new) => grafana().await?.save_moved_alert_rule(stack, &new).await,
            Step::DeleteAlertRule { rule, observed } => {
                grafana().await?.delete_alert_rule(stack, rule, &observed).await
            }
            Step::DeleteAlertFolder => grafana().await?.delete_alert_folder(stack).await,
            Step::SetHome { uid } => grafana().await?.set_home(&uid).await,
            Step::VerifyQuery { saves_left, since } => {
                let deadline = since.map_or(deadline, |since| since + stack.timeout);
                self.verify_query(&*grafana().await?, saves_left, since, deadline).await
            }
        }
    }

    async fn remove(&self, connection: &mut Connection, role: Role) -> Result<()> {
        let known = connection.held().cloned();
        connection.hold(None, self.stack.container(role).is_some());
        self.docker()?.remove_container(&self.stack.instance, role, known.as_deref()).await
    }

    async fn create(&self, connection: &mut Connection, new: &NewContainer) -> Result<()> {
        let spec = self.spec(new.role)?;
        let user = &self.stack.login.user;
        let creation = Creation {
            instance: &self.stack.instance,
            grafana_user: (user != Login::ADMIN && !self.stack.login.uses_token).then_some(user),
            private: new.usage != ContainerUse::Service,
            image: new.image_id.as_deref(),
        };
        let id = self.docker()?.create_container(creation, spec, &new.config).await?;
        connection.hold(Some(id), true);
        self.move_to(connection, Some(spec.config.publish));
        Ok(())
    }

    /// Deletes the copy of Grafana's database. A leftover copy only takes up space, and the next copy replaces it.
    async fn delete_database_copy(&self, container: &str) -> Result<()> {
        if let Err(why) = self.docker()?.delete_database_copy(container).await {
            let warning =
                format!("the copy of Grafana's database could not be deleted, and the next upgrade replaces it: {why}");
            self.listener.on(Event::Warning(&warning));
        }
        Ok(())
    }

    pub(super) fn spec(&self, role: Role) -> Result<&DesiredContainer> {
        self.stack.container(role).ok_or_else(|| Error::Docker {
            doing: format!("work on a container of {}", role.title()),
            why: "clipper-metrics does not manage it".into(),
            refusal: Refusal::Other,
        })
    }

    /// Starts a container and records its address. One that has already exited publishes nothing, and another server
    /// may answer at its address.
    async fn start(&self, connection: &mut Connection, role: Role) -> Result<()> {
        let spec = self.spec(role)?;
        let (instance, id) = (&self.stack.instance, connection.container()?);
        let published = self.docker()?.start_container(instance, role, id, spec.config.publish).await?;
        self.move_to(connection, published);
        Ok(())
    }

    /// Adds the server that answers at an unavailable address, and a free port.
    async fn explain_publishing(&self, role: Role, address: SocketAddr, holder: PortHolder) -> Error {
        let is_own = self.stack.engine == EngineLocation::Here && is_of_this_machine(address.ip());
        let holder = match holder {
            PortHolder::NoSuchAddress if is_own => PortHolder::VirtualMachine,
            holder => holder,
        };
        let answers = match self.stack.container(role).filter(|_| holder == PortHolder::Process) {
            Some(spec) if self.answers_instead(spec, address).await => Some(spec.url()),
            _ => None,
        };
        Error::Publish { role, address, holder, answers, free: self.free_port(address) }
    }

    /// Whether a server of that role answers at the address to publish. Only addresses of this
    /// machine are checked.
    pub(super) async fn answers_instead(&self, spec: &DesiredContainer, address: SocketAddr) -> bool {
        if self.stack.engine != EngineLocation::Here {
            return false;
        }
        let url = spec.url_at(address.ip(), address.port()).to_string();
        health(spec.role, self.clients.get(spec.role).at(&url, &url), PROBE).await.1.is_some()
    }
}
