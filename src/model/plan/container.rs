//! Plans one server: its blockers, its differences, and its steps in an order that loses no data
//! and never publishes a Grafana with the default password.
//!
//! A plan ends after a step that reveals a fact on which its other steps depend: a pulled image, the content of a
//! volume that only a container shows, or the answer of Grafana. Its other steps are then a prediction.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::login::{
    LoginTask, change_default, first_login, is_fresh, is_in_place, new_password, password, private_start, reset, store,
    task, try_login, unsafe_default, unverifiable, write_first_password,
};
use super::{
    BlockReason, Blocker, ContainerUse, Finding, Item, NewContainer, Phase, Resource, Step, UpOptions, foreign, upgrade,
};
use crate::model::address::collide;
use crate::model::container_config::{ContainerConfig, Difference, PasswordSource};
use crate::model::image::ImageRef;
use crate::model::login::Credential;
use crate::model::native::{System, installation};
use crate::model::observed::{
    ContainerState, Image, ManagedServer, ObservedServer, OurContainer, PortHolder, RunState, ServerResponse,
    SignedInAccount, VolumeState,
};
use crate::model::publish;
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, EngineLocation, Pull, Service, Stack};
use crate::model::upgrade::{Upgrade, UpgradeState};
use crate::model::version::Version;
use crate::model::volume_content::VolumeContent;

/// The input for planning one server.
pub(super) struct Context<'a, S> {
    pub(super) stack: &'a Stack,
    pub(super) spec: &'a DesiredContainer,
    pub(super) seen: &'a ObservedServer<S>,
    pub(super) options: UpOptions,
    /// Whether the container is removed first because the other role needs its port.
    pub(super) frees_port_first: bool,
    /// A pending upgrade of Grafana.
    pub(super) upgrade: Option<&'a Upgrade>,
    /// The time of the snapshot, in microseconds since 1970.
    pub(super) time: u128,
}

impl<S> Context<'_, S> {
    /// Whether the previous database must be restored before the desired image starts.
    pub(super) fn restores(&self) -> bool {
        let is_kept = self.seen.volume != VolumeState::Absent;
        is_kept && self.upgrade.is_some_and(|upgrade| upgrade.must_restore(&self.spec.config.image))
    }

    /// Whether only a container can show the content of Grafana's volume.
    fn needs_container(&self) -> bool {
        let is_kept = matches!(self.seen.volume, VolumeState::Ours { .. });
        self.spec.role == Role::Grafana && is_kept && self.seen.container == ContainerState::Absent
    }

    /// Whether the content of Grafana's volume is needed and could not be read through its container.
    fn is_unread(&self, actual: &OurContainer) -> bool {
        let is_read = self.seen.content.is_some();
        self.spec.role == Role::Grafana
            && !is_read
            && needs_content(self.stack, actual, self.seen.image.as_ref(), self.upgrade)
    }

    /// The steps that remove the container.
    pub(super) fn removal(&self, actual: &OurContainer) -> Vec<Step> {
        removal(self.spec.role, actual, self.seen.content.as_ref())
    }
}

/// The steps that remove a container. One that was never started has migrated nothing.
pub(super) fn removal(role: Role, actual: &OurContainer, content: Option<&VolumeContent>) -> Vec<Step> {
    let is_intended = content.is_some_and(|content| content.files.is_intended_for(&actual.id));
    let mut steps = Vec::new();
    if is_intended && actual.run == RunState::Created {
        steps.push(Step::ClearIntendedVersion);
    }
    steps.push(Step::RemoveContainer(role));
    steps
}

/// Whether the next plan depends on the content of Grafana's volume: on its passwords if the container was never
/// started or a login was supplied, and on the versions that ran if a container may be created or started.
#[must_use]
pub fn needs_content(stack: &Stack, actual: &OurContainer, image: Option<&Image>, upgrade: Option<&Upgrade>) -> bool {
    let Some(spec) = stack.container(Role::Grafana) else { return actual.run == RunState::Created };
    let is_same = actual.config.as_ref().is_some_and(|made| {
        let desired = ContainerConfig { password: made.password, ..spec.config.clone() };
        *made == desired
    });
    if can_unpause(stack, actual) {
        return false;
    }
    let runs = actual.run == RunState::Running;
    let is_same_image = image.is_some_and(|image| image.id == actual.image_id);
    let is_upgrading = upgrade.is_some_and(Upgrade::is_pending);
    !(runs && is_same && is_same_image && actual.on_network) || is_upgrading || stack.login.given
}

/// The finding about one server, and its steps by phase.
struct ServerPlan {
    finding: Finding,
    steps: Vec<(Phase, Step)>,
    until: Phase,
    login: Option<Credential>,
}

impl ServerPlan {
    const fn new(finding: Finding) -> Self {
        Self { finding, steps: vec![], until: Phase::End, login: None }
    }

    /// Work on a running server, which may answer differently afterwards.
    fn changing(finding: Finding, steps: Vec<Step>) -> Self {
        let until = if steps.is_empty() { Phase::End } else { Phase::Changes };
        Self::new(finding).with(Phase::Changes, steps).until(until)
    }

    fn with(mut self, phase: Phase, steps: impl IntoIterator<Item = Step>) -> Self {
        self.add(phase, steps);
        self
    }

    fn add(&mut self, phase: Phase, steps: impl IntoIterator<Item = Step>) {
        self.steps.extend(steps.into_iter().map(|step| (phase, step)));
    }

    /// The last phase before the server is observed again.
    fn until(mut self, phase: Phase) -> Self {
        self.until = self.until.min(phase);
        self
    }
}

/// The phase in which a container is removed: before the other role starts, if that role needs its port.
const fn removal_phase(frees_port_first: bool) -> Phase {
    if frees_port_first { Phase::Release } else { Phase::Changes }
}

/// Everything that is planned for both servers.
pub(super) struct Inputs<'a> {
    pub(super) stack: &'a Stack,
    pub(super) options: UpOptions,
    pub(super) upgrade: Option<&'a Upgrade>,
    pub(super) time: u128,
}

/// Plans one server; also returns the login that Grafana will have after its first start.
pub(super) fn server<S>(
    inputs: &Inputs<'_>,
    role: Role,
    seen: &ObservedServer<S>,
    frees_port_first: bool,
) -> (Item, Option<Credential>) {
    let &Inputs { stack, options, upgrade, time } = inputs;
    let ServerPlan { finding, steps, until, login } = match stack.service(role) {
        Service::External { url } => external(stack, role, &url.to_string(), seen, frees_port_first),
        Service::Container(spec) => {
            let upgrade = upgrade.filter(|_| role == Role::Grafana);
            let context = Context { stack, spec, seen, options, frees_port_first, upgrade, time };
            never_pulled(stack, spec, container(&context))
        }
    };
    // No step depends on what only a running InfluxDB reveals.
    let until = if role == Role::Grafana { until } else { Phase::End };
    (Item { resource: Resource::Server(role), finding, steps, until }, login)
}

fn blocked(blocked: Blocker) -> ServerPlan {
    ServerPlan::new(Finding::Blocked(blocked))
}

/// Plans an external server. A managed container that it replaces is removed once the server has answered.
fn external<S>(stack: &Stack, role: Role, url: &str, seen: &ObservedServer<S>, frees_port_first: bool) -> ServerPlan {
    let title = role.title();
    // If a container does not run, another server may answer at its address.
    let is_silent = matches!(seen.probe, ServerResponse::Silent(_));
    let leads_to = |managed: &&ManagedServer| managed.runs || (managed.is_own && is_silent);
    if let Some(managed) = seen.managed_behind.as_ref().filter(leads_to) {
        return blocked(managed_server(stack, role, url, managed, "up"));
    }
    match &seen.probe {
        ServerResponse::Answering(_) => match &seen.container {
            ContainerState::Ours(actual) => {
                let finding = Finding::Requested("an external server replaces the container");
                let steps = removal(role, actual, seen.content.as_ref());
                ServerPlan::new(finding).with(removal_phase(frees_port_first), steps)
            }
            _ => ServerPlan::new(Finding::InSync),
        },
        ServerResponse::Unasked => ServerPlan::changing(Finding::Unknown, vec![Step::AwaitAnswer(role)]),
        ServerResponse::Starting(why) => {
            ServerPlan::changing(Finding::Silent(why.clone()), vec![Step::AwaitAnswer(role)])
        }
        ServerResponse::Silent(why) => blocked(Blocker {
            kind: BlockReason::Server,
            why: format!("{title} at {url} does not answer: {why}"),
            hint: format!(
                "start it, or omit --{role}-url to use a container (--{role}-url '' removes a remembered URL)"
            ),
        }),
        ServerResponse::Unusable(what) => blocked(unusable_server(stack, role, url, what)),
        ServerResponse::Refusing(message) => blocked(refused(stack, role, url, message)),
        ServerResponse::NotTheContainer => blocked(not_the_container(stack, role, url)),
    }
}

/// The URL of an external server leads to a managed container, which would be removed in favour of
/// itself, or together with its instance.
#[must_use]
pub fn managed_server(stack: &Stack, role: Role, url: &str, managed: &ManagedServer, command: &str) -> Blocker {
    let ManagedServer { container, instance, is_own, runs } = managed;
    let whose = if *is_own { "this instance".to_string() } else { format!("instance {instance}") };
    let state = if *runs { "" } else { ", which does not run" };
    let container_again = stack.command(&format!("{command} --{role}-url ''"));
    let other =
        if *is_own { String::new() } else { format!(", or use instance {instance} itself (--name {instance})") };
    Blocker {
        kind: BlockReason::Settings,
        why: format!("{url} is not an external server: it leads to container {container} of {whose}{state}"),
        hint: format!(
            "omit --{role}-url for a container of this instance (`{container_again}` removes a remembered URL){other}"
        ),
    }
}

/// Another program answers at the server's address.
#[must_use]
pub fn unusable_server(stack: &Stack, role: Role, url: &str, what: &str) -> Blocker {
    let hint = match (role, stack.container(role).is_some()) {
        (Role::Influxdb, true) => "Clipper needs InfluxDB 1.x: use --influxdb-image influxdb:1.12.4".to_string(),
        (Role::Influxdb, false) => format!(
            "Clipper needs InfluxDB 1.x: set --influxdb-url to its own address, or omit it to run a container; to \
             install InfluxDB 1.x: {}",
            installation(role, System::HERE)
        ),
        (Role::Grafana, true) => "use an image of Grafana 7.5 to 13 with --grafana-image".to_string(),
        (Role::Grafana, false) => {
            "set --grafana-url to Grafana's own address, without a redirect and without /api at the end".to_string()
        }
    };
    let why = format!("{} is expected at {url}, but {what} answers there", role.title());
    Blocker { kind: BlockReason::Server, why, hint }
}

/// The engine publishes the container, but another server answers at that address here: the
/// engine's socket leads to another machine or to another network namespace.
#[must_use]
pub fn not_the_container(stack: &Stack, role: Role, url: &str) -> Blocker {
    let title = role.title();
    Blocker {
        kind: BlockReason::Unverifiable,
        why: format!(
            "{title}'s container is published at {url} on the engine's host, but the server that answers at that \
             address on this machine is another one, or its image does not log requests, so no credentials are sent to \
             it"
        ),
        hint: format!(
            "if the engine runs on this machine, stop that server or choose another port with --{role}-port; otherwise \
             run `{}` on the engine's host, or select that host with -H ssh://USER@HOST",
            stack.invocation.command_there("up")
        ),
    }
}

fn refused(stack: &Stack, role: Role, url: &str, message: &str) -> Blocker {
    let hint = match role {
        Role::Influxdb => "use --influxdb-user and --influxdb-password-file".to_string(),
        Role::Grafana if stack.container(role).is_some() => format!(
            "supply the password with `{}`, or set a new one with `{}`",
            stack.command("up --grafana-password-file FILE"),
            stack.command("up --reset-grafana-password")
        ),
        Role::Grafana => {
            "use --grafana-user and --grafana-password-file, or --grafana-token-file, which also works if Grafana's \
             basic authentication is off"
                .to_string()
        }
    };
    let why = format!("{} at {url} rejected the login: {message}", role.title());
    Blocker { kind: BlockReason::Refused, why, hint }
}

/// Two containers carry the labels of one role because a tool has copied one of them.
pub(super) fn duplicated(stack: &Stack, role: Role, names: &[String]) -> Blocker {
    // The container with the original name comes first.
    let has_original = names.first().is_some_and(|name| *name == role.object_name(&stack.instance));
    let advice = if has_original { "remove the copy" } else { "remove the container whose data you do not need" };
    Blocker {
        kind: BlockReason::Foreign,
        why: format!(
            "the containers {} both carry the labels of this instance's {}",
            names.join(" and "),
            role.title()
        ),
        hint: format!(
            "{advice}: `{}`",
            stack.invocation.docker(&format!("rm --force {}", names.last().map_or("NAME", String::as_str)))
        ),
    }
}

/// Plans a managed container: its differences, and its steps in an order that loses no data.
fn container<S>(context: &Context<'_, S>) -> ServerPlan {
    let Context { stack, spec, seen, options, frees_port_first, .. } = context;
    if let Some(obstacle) = obstacle(context) {
        return blocked(obstacle);
    }
    let resets = options.reset_password && spec.role == Role::Grafana;
    let mut work = match &seen.container {
        ContainerState::Ours(actual) if unpauses_first(context, actual) => {
            let finding = Finding::Stopped("paused".into());
            let unpause = [Step::UnpauseContainer(spec.role), Step::AwaitAnswer(spec.role)];
            let prediction = rebuild(context, Finding::Unknown, Some(actual)).steps;
            let mut work = ServerPlan::new(finding).with(Phase::Preparation, unpause);
            work.steps.extend(prediction.into_iter().filter(|(phase, _)| *phase > Phase::Trial));
            work
        }
        ContainerState::Ours(actual) if waits_for_answer(context, actual) => {
            ServerPlan::new(Finding::Silent("it is starting".into()))
                .with(Phase::Preparation, [Step::AwaitAnswer(spec.role)])
        }
        ContainerState::Foreign => return blocked(foreign("container", &spec.name, stack)),
        ContainerState::Duplicated(names) => return blocked(duplicated(stack, spec.role, names)),
        ContainerState::Absent if context.needs_container() => create_to_read(context),
        ContainerState::Absent => rebuild(context, Finding::Missing, None),
        ContainerState::Ours(actual) if context.restores() => restore(context, actual),
        ContainerState::Ours(actual) => {
            if let ServerResponse::Refusing(message) = &seen.probe
                && !resets
            {
                return blocked(refused(stack, spec.role, &spec.url().to_string(), message));
            }
            if matches!(seen.probe, ServerResponse::NotTheContainer) {
                return blocked(not_the_container(stack, spec.role, &published_url(spec, actual)));
            }
            let differences = differences(context, actual);
            match actual.run {
                _ if !differences.is_empty() || *frees_port_first => {
                    rebuild(context, Finding::Differs(differences), Some(actual))
                }
                RunState::Running => running(context),
                RunState::Restarting => rebuild(context, Finding::Stopped("keeps crashing".into()), Some(actual)),
                RunState::Dead => rebuild(context, Finding::Stopped("dead".into()), Some(actual)),
                RunState::Paused => paused(context),
                RunState::Created | RunState::Exited(_) => {
                    let finding = Finding::Stopped(match actual.run {
                        RunState::Exited(code) => format!("stopped (exit code {code})"),
                        _ => "created, but never started".into(),
                    });
                    if task(context, Some(actual)).is_some() {
                        rebuild(context, finding, Some(actual))
                    } else {
                        start_again(context, finding, actual)
                    }
                }
            }
        }
    };
    let pulls = |step: &(Phase, Step)| step.1 == Step::PullImage(spec.role);
    if options.pull && !work.steps.iter().any(pulls) {
        work.steps.insert(0, (Phase::Preparation, Step::PullImage(spec.role)));
    }
    work.finding = match work.finding {
        Finding::InSync if options.pull => Finding::Requested("--pull always"),
        Finding::Differs(differences) if differences.is_empty() => {
            Finding::Requested("the other server needs its port")
        }
        finding => finding,
    };
    work
}

/// Creates a container, without starting it, that shows the content of Grafana's volume. It is private if a login
/// has to be verified before Grafana is published.
fn create_to_read<S>(context: &Context<'_, S>) -> ServerPlan {
    let Context { spec, .. } = context;
    let is_private = context.restores() || task(context, None).is_some();
    let (config, usage) = if is_private {
        (private(spec), ContainerUse::Login)
    } else {
        let config = ContainerConfig { password: PasswordSource::Default, ..spec.config.clone() };
        (config, ContainerUse::Service)
    };
    let new = NewContainer { role: Role::Grafana, config, image_id: spec.pinned_image.clone(), usage };
    let (grafana, image) = (Role::Grafana, upgrade::desired_image(context));
    let work = ServerPlan::new(if context.restores() { Finding::Requested(RESTORES) } else { Finding::Missing })
        .with(Phase::Preparation, pull(context))
        .with(Phase::Preparation, address_check(context, None));
    let start = [Step::StartContainer(grafana), Step::AwaitAnswer(grafana)];
    if context.seen.image.is_none() || context.options.pull {
        // Whether the image suits the volume is known after the pull.
        return work.with(Phase::Changes, [Step::CreateContainer(Box::new(new))]).with(Phase::Changes, start);
    }
    let work = work.with(Phase::Preparation, [Step::CreateContainer(Box::new(new))]);
    match task(context, None) {
        _ if context.restores() => work
            .with(Phase::Changes, [Step::RestoreDatabase, Step::RemoveContainer(grafana)])
            .with(Phase::Changes, [service(context, spec.config.password)])
            .with(Phase::Changes, start),
        Some(task) => work
            .with(Phase::Trial, start.clone())
            // Whether the default password is in force is known after the start.
            .with(Phase::Trial, if task == LoginTask::Secure { vec![] } else { task.steps(context) })
            .with(Phase::Changes, [Step::RemoveContainer(grafana), service(context, PasswordSource::File)])
            .with(Phase::Changes, upgrade::before_start(context, &image))
            .with(Phase::Changes, start),
        None => work.with(Phase::Changes, upgrade::before_start(context, &image)).with(Phase::Changes, start),
    }
}

/// Creates the container as specified.
fn service<S>(context: &Context<'_, S>, password: PasswordSource) -> Step {
    let Context { spec, .. } = context;
    let config = ContainerConfig { password, ..spec.config.clone() };
    let image_id = spec.pinned_image.clone();
    Step::CreateContainer(Box::new(NewContainer { role: spec.role, config, image_id, usage: ContainerUse::Service }))
}

/// The finding about a Grafana whose database is restored first.
const RESTORES: &str = "the previous database is restored";

/// Restores the previous database through a private container that is not started: the passwords of that database
/// decide how Grafana is published.
fn restore<S>(context: &Context<'_, S>, actual: &OurContainer) -> ServerPlan {
    let finding = Finding::Requested(RESTORES);
    if actual.name_taken {
        return blocked(foreign("container", &context.spec.name, context.stack));
    }
    if actual.run == RunState::Created && actual.is_private() && !context.is_unread(actual) {
        return ServerPlan::changing(finding, upgrade::restore(context));
    }
    ServerPlan::new(finding)
        .with(Phase::Preparation, pull(context))
        .with(Phase::Trial, context.removal(actual))
        .with(Phase::Changes, [Step::RestoreDatabase, service(context, context.spec.config.password)])
        .with(Phase::Changes, [Step::StartContainer(Role::Grafana), Step::AwaitAnswer(Role::Grafana)])
}

/// The configuration with a loopback port that the engine chooses.
pub(super) fn private(spec: &DesiredContainer) -> ContainerConfig {
    let publish = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    ContainerConfig { publish, password: PasswordSource::Default, ..spec.config.clone() }
}

/// Whether the container is published only on the loopback of another machine.
fn is_out_of_reach(stack: &Stack, actual: &OurContainer) -> bool {
    matches!(stack.engine, EngineLocation::Elsewhere(_)) && actual.is_on_loopback()
}

/// Whether a paused container is unpaused and answers before anything is decided about it.
fn can_unpause(stack: &Stack, actual: &OurContainer) -> bool {
    actual.run == RunState::Paused && actual.on_network && actual.published.is_some() && !is_out_of_reach(stack, actual)
}

/// Whether Grafana is unpaused before the next plan decides: the content of its volume and its login are then known.
fn unpauses_first<S>(context: &Context<'_, S>, actual: &OurContainer) -> bool {
    let Context { stack, spec, options, frees_port_first, .. } = context;
    let changes = *frees_port_first || options.reset_password || !differences(context, actual).is_empty();
    spec.role == Role::Grafana && can_unpause(stack, actual) && changes && !context.restores() && !actual.name_taken
}

/// Whether a running Grafana that does not answer yet must answer before the next plan decides: if it rejects a
/// supplied login, nothing may have changed, and a private one was just created. One that started long ago is replaced.
fn waits_for_answer<S>(context: &Context<'_, S>, actual: &OurContainer) -> bool {
    let Context { stack, spec, seen, options, frees_port_first, .. } = context;
    let is_silent =
        matches!(seen.probe, ServerResponse::Unasked | ServerResponse::Silent(_) | ServerResponse::Starting(_));
    let changes = *frees_port_first || !differences(context, actual).is_empty();
    let decides = (stack.login.given && !options.reset_password) || actual.is_private();
    let is_starting = actual.run == RunState::Running && actual.has_just_started && actual.published.is_some();
    spec.role == Role::Grafana
        && is_starting
        && is_silent
        && changes
        && decides
        && !is_out_of_reach(stack, actual)
        && !actual.crashes_repeatedly
        && !context.restores()
}

/// The container's actual address, which may differ from the desired one.
fn published_url(spec: &DesiredContainer, actual: &OurContainer) -> String {
    actual.published.map_or_else(|| spec.url(), |at| spec.url_at(at.ip(), at.port())).to_string()
}

/// Plans a container that matches its specification but is paused.
fn paused<S>(context: &Context<'_, S>) -> ServerPlan {
    let Context { stack, spec, .. } = context;
    let finding = Finding::Stopped("paused".into());
    let unpause = vec![Step::UnpauseContainer(spec.role), Step::AwaitAnswer(spec.role)];
    if spec.role == Role::Grafana && stack.login.given {
        ServerPlan::new(finding).with(Phase::Preparation, unpause)
    } else {
        ServerPlan::changing(finding, unpause)
    }
}

/// With `--pull never`, a missing image blocks only work that needs it; a running container continues to run.
fn never_pulled(stack: &Stack, spec: &DesiredContainer, work: ServerPlan) -> ServerPlan {
    let pulls = |(_, step): &(Phase, Step)| *step == Step::PullImage(spec.role);
    if stack.pull != Pull::Never || !work.steps.iter().any(pulls) {
        return work;
    }
    blocked(Blocker {
        kind: BlockReason::Image,
        why: format!("image {} is not on the engine, and --pull never does not fetch it", spec.config.image),
        hint: format!(
            "load it with `{}`, or omit --pull (image for {})",
            stack.invocation.docker("load"),
            spec.role.title()
        ),
    })
}

/// Starts an existing container that matches its specification.
fn start_again<S>(context: &Context<'_, S>, finding: Finding, actual: &OurContainer) -> ServerPlan {
    let work = ServerPlan::new(finding).with(Phase::Changes, start(context, actual));
    if is_fresh(context) {
        ServerPlan { login: fresh_login(context, actual), ..work }
    } else {
        work.until(Phase::Changes)
    }
}

fn fresh_login<S>(context: &Context<'_, S>, actual: &OurContainer) -> Option<Credential> {
    (context.spec.role == Role::Grafana).then(|| first_login(context, actual.password_source()))
}

/// The steps that start an existing container. The run that created it may have ended before it
/// wrote the password or copied the database.
pub(super) fn start<S>(context: &Context<'_, S>, actual: &OurContainer) -> Vec<Step> {
    let role = context.spec.role;
    let mut steps = Vec::new();
    if actual.run == RunState::Created {
        steps.extend(write_first_password(context, actual.password_source()));
        steps.extend(upgrade::before_start(context, &upgrade::desired_image(context)));
    }
    steps.extend([Step::StartContainer(role), Step::AwaitAnswer(role)]);
    steps
}

/// Plans a running container that matches its specification.
fn running<S>(context: &Context<'_, S>) -> ServerPlan {
    let Context { stack, spec, seen, options, .. } = context;
    let role = spec.role;
    if role == Role::Grafana && options.reset_password {
        let work = ServerPlan::changing(Finding::Requested("a new password was requested"), reset(context));
        let is_known = matches!(seen.probe, ServerResponse::Answering(_) | ServerResponse::Refusing(_));
        return if is_known { work } else { work.with(Phase::Preparation, [Step::AwaitAnswer(role)]) };
    }
    match &seen.probe {
        ServerResponse::Answering(_) => answering(context),
        ServerResponse::Unasked | ServerResponse::Silent(_) | ServerResponse::Starting(_) => {
            let finding = match &seen.probe {
                ServerResponse::Silent(why) | ServerResponse::Starting(why) => Finding::Silent(why.clone()),
                _ => Finding::Unknown,
            };
            if stack.login.given && role == Role::Grafana {
                ServerPlan::new(finding).with(Phase::Preparation, [Step::AwaitAnswer(role), try_login(context)])
            } else {
                ServerPlan::changing(finding, vec![Step::AwaitAnswer(role)])
            }
        }
        ServerResponse::Refusing(message) => blocked(refused(stack, role, &spec.url().to_string(), message)),
        ServerResponse::Unusable(what) => blocked(unusable_server(stack, role, &spec.url().to_string(), what)),
        ServerResponse::NotTheContainer => blocked(not_the_container(stack, role, &spec.url().to_string())),
    }
}

/// Plans a container that matches its specification and answers.
fn answering<S>(context: &Context<'_, S>) -> ServerPlan {
    let Context { spec, seen, upgrade, .. } = context;
    if spec.role != Role::Grafana {
        return ServerPlan::new(Finding::InSync);
    }
    let runs = seen.running_version();
    if let (Some(runs), Some(recorded)) = (runs, seen.recorded())
        && runs < recorded
    {
        return blocked(Blocker { kind: BlockReason::Server, ..migrated(spec, &format!("Grafana {runs}"), recorded) });
    }
    let made = seen.container.ours().and_then(|actual| actual.config.as_ref()).map(|made| &made.image);
    let image = made.unwrap_or(&spec.config.image);
    let is_tried = upgrade.is_some_and(|upgrade| upgrade.state == UpgradeState::Unproven);
    // The next upgrade starts from this image.
    let is_unrecorded =
        runs != seen.recorded() || (is_tried && seen.files().is_some_and(|files| !files.ran_last(image)));
    let record = runs.filter(|_| is_unrecorded).map(|version| Step::WriteVersion { version, image: image.clone() });
    if spec.config.is_open() && seen.login.account == SignedInAccount::Other && seen.login.has_default_password {
        let user = &context.stack.login.user;
        return blocked(Blocker {
            kind: BlockReason::Settings,
            why: format!("Grafana's account {user} has the password admin, and other hosts can use it"),
            hint: format!(
                "change that password in Grafana, then supply it with `{}`",
                context.stack.command("up --grafana-password-file FILE")
            ),
        });
    }
    let (finding, mut steps) = if spec.config.is_open() && seen.login.account == SignedInAccount::DefaultPassword {
        let difference = Difference {
            field: "password".into(),
            actual: "Grafana's default".into(),
            desired: "another password".into(),
        };
        (Finding::Differs(vec![difference]), change_default(context))
    } else if let Some(store) = store(context) {
        (Finding::Requested("Grafana accepted a password that is not stored"), vec![store])
    } else if record.is_some() {
        (Finding::Requested("its version is not recorded yet"), vec![])
    } else {
        (Finding::InSync, vec![])
    };
    steps.extend(record);
    ServerPlan::changing(finding, steps)
}

/// The blocker that prevents all work on the container.
fn obstacle<S>(context: &Context<'_, S>) -> Option<Blocker> {
    let Context { stack, spec, seen, options, .. } = context;
    if seen.volume == VolumeState::Foreign {
        return Some(foreign("volume", &spec.config.volume, stack));
    }
    // This is checked before the port, because with another port, two servers would write to one
    // database. If the managed server runs, the other container is assumed to copy the data.
    let is_up =
        |actual: &OurContainer| matches!(actual.run, RunState::Running | RunState::Paused | RunState::Restarting);
    if let Some(other) = seen.volume_user.as_ref().filter(|_| !seen.container.ours().is_some_and(is_up)) {
        return Some(Blocker {
            kind: BlockReason::Foreign,
            why: format!(
                "container {other} runs and mounts {}'s data, the volume {}",
                spec.role.title(),
                spec.config.volume
            ),
            hint: format!("stop it first: `{}`", stack.invocation.docker(&format!("stop {other}"))),
        });
    }
    let publishes_already = seen.container.ours().is_some_and(|actual| actual.published == Some(spec.config.publish));
    // The port of the other role's container becomes free.
    let holds = |holder: &&PortHolder| !publishes_already && !matches!(holder, PortHolder::OtherRole(_));
    if let Some(holder) = seen.port_holder.as_ref().filter(holds) {
        let (role, at) = (spec.role, spec.config.publish);
        let another = stack.invocation.another_port(role, seen.free_port);
        return Some(Blocker {
            kind: BlockReason::PortTaken,
            why: format!("cannot publish {} at {at}: {}", role.title(), publish::describe(holder, role, None)),
            hint: publish::hint(role, at, holder, None, &another, &stack.invocation),
        });
    }
    if let Some(why) = &seen.unreadable {
        return Some(Blocker {
            kind: BlockReason::Foreign,
            why: format!("cannot read clipper-metrics's files in volume {}: {why}", spec.config.volume),
            hint: "put a regular file in its place in the volume, then run the same command again".into(),
        });
    }
    if let (Some(id), None) = (&spec.pinned_image, &seen.image) {
        return Some(Blocker {
            kind: BlockReason::Image,
            why: format!(
                "the previous Grafana image is no longer on the engine ({}), and {}, which now has its name, failed",
                short(id),
                spec.config.image
            ),
            hint: format!("name one with `{}`", stack.command("up --grafana-image IMAGE")),
        });
    }
    // An image that is pulled first is checked after the pull.
    if let (Some(image), VolumeState::Ours { user: Some(owner), .. }) = (&seen.image, &seen.volume)
        && !options.pull
        && let Some(obstacle) = volume_of_another_user(stack, spec, image, owner)
    {
        return Some(obstacle);
    }
    upgrade::older(context)
}

/// An image that runs as another user cannot use the files of the first one: managed containers may
/// not override file permissions.
fn volume_of_another_user(stack: &Stack, spec: &DesiredContainer, image: &Image, owner: &str) -> Option<Blocker> {
    let name = |user: &str| if user.is_empty() { "root".to_string() } else { format!("user {user}") };
    (image.user != owner).then(|| Blocker {
        kind: BlockReason::Image,
        why: format!(
            "image {} runs as {}, but volume {} was created for {}",
            spec.config.image,
            name(&image.user),
            spec.config.volume,
            name(owner)
        ),
        hint: format!(
            "use an image that runs as {}, start a second instance with --name, or delete the data with `{}`",
            name(owner),
            stack.command("down --volumes")
        ),
    })
}

/// Grafana migrates its database only upwards, so an image whose tag names an older version must
/// not start on it.
pub(super) fn older_version(spec: &DesiredContainer, image: &ImageRef, on_volume: Version) -> Option<Blocker> {
    (spec.role == Role::Grafana && image.version()? < on_volume)
        .then(|| migrated(spec, &format!("image {image}"), on_volume))
}

/// The login must be tried on the last image that ran, which is no longer on the engine.
pub(super) fn needs_last_image(stack: &Stack, spec: &DesiredContainer, last: &str) -> Blocker {
    Blocker {
        kind: BlockReason::Image,
        why: format!(
            "the login must be tried before image {} migrates the database in volume {}, but image {last}, which ran \
             last, is not on the engine",
            spec.config.image, spec.config.volume
        ),
        hint: format!(
            "first run the same command with image {last}, then run `{}`",
            stack.command(&format!("up --grafana-image {}", spec.config.image))
        ),
    }
}

fn migrated(spec: &DesiredContainer, older: &str, on_volume: Version) -> Blocker {
    Blocker {
        kind: BlockReason::Image,
        why: format!(
            "{older} is older than Grafana {on_volume}, which has already migrated the database in volume {}",
            spec.config.volume
        ),
        hint: format!("use an image of Grafana {on_volume} or newer, or start a second instance with --name"),
    }
}

/// Compares the container's configuration with the desired one.
pub(super) fn differences<S>(context: &Context<'_, S>, actual: &OurContainer) -> Vec<Difference> {
    let Context { stack, spec, seen, .. } = context;
    let Some(config) = &actual.config else {
        return vec![Difference {
            field: "specification".into(),
            actual: "unreadable".into(),
            desired: "this version's".into(),
        }];
    };
    let desired = ContainerConfig { password: password(context, Some(actual)), ..spec.config.clone() };
    let mut differences = Difference::between(&config.fields(), &desired.fields());
    if !actual.on_network {
        differences.push(Difference {
            field: "network".into(),
            actual: "a removed network".into(),
            desired: stack.instance.clone(),
        });
    }
    if let Some(image) = &seen.image
        && image.id != actual.image_id
        && differences.iter().all(|difference| difference.field != "image")
    {
        differences.push(Difference {
            field: "image id".into(),
            actual: short(&actual.image_id),
            desired: short(&image.id),
        });
    }
    differences
}

/// The first twelve characters of an id, as docker shows it.
fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// The steps to a new container on a volume that may contain data.
fn rebuild<S>(context: &Context<'_, S>, finding: Finding, actual: Option<&OurContainer>) -> ServerPlan {
    let Context { stack, spec, seen, frees_port_first, .. } = context;
    let role = spec.role;
    if actual.is_some_and(|actual| actual.name_taken) {
        return blocked(foreign("container", &spec.name, stack));
    }
    let mut work = ServerPlan::new(finding)
        .with(Phase::Preparation, pull(context))
        .with(Phase::Preparation, address_check(context, actual));
    let task = task(context, actual);
    if let (Some(actual), Some(task)) = (actual, task) {
        if let Some(blocker) = unsafe_default(context, actual, task) {
            return blocked(blocker);
        }
        match &stack.engine {
            EngineLocation::Elsewhere(host) if !is_in_place(context, actual, task) => {
                return without_loopback(context, work, actual, task, host);
            }
            _ => {}
        }
        if !context.is_unread(actual) {
            match private_start(context, actual, task) {
                Ok(steps) => work.add(Phase::Trial, steps),
                Err(blocker) => return blocked(blocker),
            }
            // On a private Grafana, the accepted login decides what is left to do.
            if task == LoginTask::Try || is_in_place(context, actual, task) {
                work.add(Phase::Trial, task.steps(context));
            } else if task == LoginTask::Reset {
                work.add(Phase::Changes, task.steps(context));
            }
        }
    }
    if seen.volume == VolumeState::Absent {
        work.add(Phase::Changes, [Step::CreateVolume(role)]);
    }
    let is_unread = actual.is_some_and(|actual| context.is_unread(actual));
    // The next plan reads the volume, before the settings are saved.
    let removal = if is_unread { Phase::Trial } else { removal_phase(*frees_port_first) };
    if role == Role::Grafana && task.is_none() {
        work.add(removal, store(context));
    }
    work.add(removal, actual.map(|actual| context.removal(actual)).into_iter().flatten());
    let password = new_password(context, actual, task);
    if seen.volume == VolumeState::Absent && context.upgrade.is_some_and(Upgrade::is_pending) {
        // Its copy is gone together with the volume.
        work.add(Phase::Changes, [Step::EndUpgrade(None)]);
    }
    work.add(Phase::Changes, [service(context, password)]);
    work.add(Phase::Changes, write_first_password(context, password));
    work.add(Phase::Changes, upgrade::before_start(context, &upgrade::desired_image(context)));
    work.add(Phase::Changes, [Step::StartContainer(role), Step::AwaitAnswer(role)]);
    if role != Role::Grafana {
        return work;
    }
    if is_fresh(context) {
        ServerPlan { login: Some(first_login(context, password)), ..work }
    } else {
        work.until(Phase::Changes)
    }
}

/// Another process can hold the new port, and the engine's host may have lost the address: only the
/// engine can find out.
fn address_check<S>(context: &Context<'_, S>, actual: Option<&OurContainer>) -> Option<Step> {
    let Context { spec, seen, .. } = context;
    let desired = spec.config.publish;
    let made = actual.and_then(|actual| actual.config.as_ref()).map(|made| made.publish);
    let is_always_there = desired.ip().is_unspecified() || desired.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST);
    let moves = made.is_some_and(|made| made != desired);
    let holds = |at: SocketAddr| collide(at, desired);
    let is_held = seen.port_holder.is_some()
        || actual.is_some_and(|actual| !matches!(actual.run, RunState::Created | RunState::Exited(_)))
            && made.is_none_or(holds);
    let port = if is_held { 0 } else { desired.port() };
    let is_needed = !is_always_there || (moves && !is_held);
    is_needed.then(|| Step::CheckAddress(spec.role, SocketAddr::new(desired.ip(), port)))
}

/// If the engine's loopback is out of reach, no login can be tried. The remaining work is to start
/// a container that was verified when it was created.
fn without_loopback<S>(
    context: &Context<'_, S>,
    work: ServerPlan,
    actual: &OurContainer,
    task: LoginTask,
    host: &str,
) -> ServerPlan {
    if task == LoginTask::Try && matches!(actual.run, RunState::Exited(_)) && actual.on_network {
        return work.with(Phase::Trial, start(context, actual)).with(Phase::Trial, task.steps(context));
    }
    blocked(unverifiable(context.stack, host, task))
}

/// Pulls a missing image.
fn pull<S>(context: &Context<'_, S>) -> Option<Step> {
    let is_needed = context.seen.image.is_none() || context.options.pull;
    is_needed.then_some(Step::PullImage(context.spec.role))
}
