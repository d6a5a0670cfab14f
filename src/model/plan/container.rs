//! Plans one server: its blockers, its differences, and its steps in an order that loses no data
//! and never publishes a Grafana with the default password.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::login::{
    LoginTask, is_fresh, is_in_place, must_store, new_password, password, private_start, task, unverifiable,
};
use super::{BlockReason, Blocker, Finding, Item, NewPassword, Resource, Step, UpOptions, foreign};
use crate::model::address::collide;
use crate::model::container_config::{ContainerConfig, Difference, PasswordSource};
use crate::model::image::ImageRef;
use crate::model::native::{System, installation};
use crate::model::observed::{
    Account, ContainerState, Image, ManagedServer, OurContainer, PortHolder, RunState, Server, ServerResponse, Volume,
};
use crate::model::publish;
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, EngineLocation, Pull, Service, Stack};
use crate::model::upgrade::{NamedImage, Upgrade};
use crate::model::version::Version;

/// The input for planning one server.
pub(super) struct Context<'a, S> {
    pub(super) stack: &'a Stack,
    pub(super) spec: &'a DesiredContainer,
    pub(super) seen: &'a Server<S>,
    pub(super) options: UpOptions,
    /// Whether the container is removed first because the other role needs its port.
    pub(super) frees_port_first: bool,
    /// A pending upgrade.
    upgrade: Option<&'a Upgrade>,
}

impl<S> Context<'_, S> {
    /// Whether the previous database must be restored before the desired image starts.
    fn restores(&self) -> bool {
        self.upgrade.is_some_and(|upgrade| upgrade.must_restore(&self.spec.specification.image))
    }

    /// The image of the container, if it has run.
    pub(super) fn last_image(&self) -> Option<NamedImage> {
        let have = self.seen.container.ours().filter(|have| have.run != RunState::Created)?;
        Some(NamedImage { name: have.specification.as_ref()?.image.clone(), id: Some(have.image_id.clone()) })
    }

    /// The step that copies the database if another version may start.
    pub(super) fn protect_database(&self) -> Step {
        Step::ProtectDatabase { last: self.last_image() }
    }

    /// Whether the desired image may contain another version than the last one that ran.
    fn may_change_version(&self, have: Option<&OurContainer>) -> bool {
        if self.spec.role != Role::Grafana || is_fresh(self) {
            return false;
        }
        if self.options.pull || self.seen.image.is_none() {
            return true;
        }
        let Some(made) = have.filter(|have| have.run != RunState::Created) else { return true };
        let Some(specification) = &made.specification else { return true };
        let name = |name: &ImageRef, id: Option<&String>| NamedImage { name: name.clone(), id: id.cloned() };
        let want = name(&self.spec.specification.image, self.seen.image.as_ref().map(|image| &image.id));
        want.may_differ_from(&name(&specification.image, Some(&made.image_id)))
    }
}

/// The finding about one server, and its steps by phase.
struct Work {
    finding: Finding,
    preparation: Vec<Step>,
    trial: Vec<Step>,
    release: Vec<Step>,
    steps: Vec<Step>,
}

impl Work {
    const fn new(finding: Finding, steps: Vec<Step>) -> Self {
        Self { finding, preparation: vec![], trial: vec![], release: vec![], steps }
    }

    /// The phase in which a container is removed: before the other role starts, if that role needs its port.
    const fn removal(&mut self, frees_port_first: bool) -> &mut Vec<Step> {
        if frees_port_first { &mut self.release } else { &mut self.steps }
    }
}

pub(super) fn server<S>(
    stack: &Stack,
    role: Role,
    seen: &Server<S>,
    options: UpOptions,
    frees_port_first: bool,
    upgrade: Option<&Upgrade>,
) -> Item {
    let Work { finding, preparation, trial, release, steps } = match stack.service(role) {
        Service::External { url } => external(stack, role, &url.to_string(), seen, frees_port_first),
        Service::Container(spec) => {
            never_pulled(stack, spec, container(&Context { stack, spec, seen, options, frees_port_first, upgrade }))
        }
    };
    Item { resource: Resource::Server(role), finding, preparation, trial, release, steps }
}

fn blocked(blocked: Blocker) -> Work {
    Work::new(Finding::Blocked(blocked), vec![])
}

/// Plans an external server. A managed container that it replaces is removed once the server has answered.
fn external<S>(stack: &Stack, role: Role, url: &str, seen: &Server<S>, frees_port_first: bool) -> Work {
    let title = role.title();
    // If a container does not run, another server may answer at its address.
    let is_silent = matches!(seen.probe, ServerResponse::Silent(_));
    let leads_to = |managed: &&ManagedServer| managed.runs || (managed.is_own && is_silent);
    if let Some(managed) = seen.managed_behind.as_ref().filter(leads_to) {
        return blocked(managed_server(stack, role, url, managed, "up"));
    }
    match &seen.probe {
        ServerResponse::Answering(_) => match &seen.container {
            ContainerState::Ours(_) => {
                let finding = Finding::Requested("an external server replaces the container");
                let mut work = Work::new(finding, vec![]);
                work.removal(frees_port_first).push(Step::RemoveContainer(role));
                work
            }
            _ => Work::new(Finding::InSync, vec![]),
        },
        ServerResponse::Unasked => Work::new(Finding::Unknown, vec![Step::AwaitAnswer(role)]),
        ServerResponse::Starting(why) => Work::new(Finding::Silent(why.clone()), vec![Step::AwaitAnswer(role)]),
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
fn container<S>(context: &Context<'_, S>) -> Work {
    let Context { stack, spec, seen, options, frees_port_first, .. } = context;
    if let Some(obstacle) = obstacle(context) {
        return blocked(obstacle);
    }
    if context.restores() {
        return restore(context);
    }
    if let Some(work) = wait_for_login(context) {
        return work;
    }
    let resets = options.reset_password && spec.role == Role::Grafana;
    let mut work = match &seen.container {
        ContainerState::Foreign => return blocked(foreign("container", &spec.name, stack)),
        ContainerState::Duplicated(names) => return blocked(duplicated(stack, spec.role, names)),
        ContainerState::Absent => rebuild(context, Finding::Missing, None),
        ContainerState::Ours(have) => {
            if let ServerResponse::Refusing(message) = &seen.probe
                && !resets
            {
                return blocked(refused(stack, spec.role, &spec.url().to_string(), message));
            }
            if matches!(seen.probe, ServerResponse::NotTheContainer) {
                return blocked(not_the_container(stack, spec.role, &published_url(spec, have)));
            }
            let differences = differences(context, have);
            match have.run {
                _ if !differences.is_empty() || *frees_port_first => {
                    rebuild(context, Finding::Differs(differences), Some(have))
                }
                RunState::Running => running(context),
                RunState::Restarting => rebuild(context, Finding::Stopped("keeps crashing".into()), Some(have)),
                RunState::Dead => rebuild(context, Finding::Stopped("dead".into()), Some(have)),
                RunState::Paused => paused(context, have),
                RunState::Created | RunState::Exited(_) => {
                    let finding = Finding::Stopped(match have.run {
                        RunState::Exited(code) => format!("stopped (exit code {code})"),
                        _ => "created, but never started".into(),
                    });
                    if task(context, Some(have)).is_some() {
                        rebuild(context, finding, Some(have))
                    } else {
                        Work::new(finding, [guard_database(context, have), start(have, spec.role)].concat())
                    }
                }
            }
        }
    };
    if options.pull && !work.preparation.contains(&Step::PullImage(spec.role)) {
        work.preparation.insert(0, Step::PullImage(spec.role));
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

/// Waits for a running Grafana that does not answer yet, before a supplied login is tried: if Grafana rejects it,
/// nothing may have changed. The next plan knows the answer.
fn wait_for_login<S>(context: &Context<'_, S>) -> Option<Work> {
    let Context { stack, spec, seen, options, frees_port_first, .. } = context;
    let have = seen.container.ours()?;
    let role = spec.role;
    let is_silent =
        matches!(seen.probe, ServerResponse::Unasked | ServerResponse::Silent(_) | ServerResponse::Starting(_));
    let changes = *frees_port_first || !differences(context, have).is_empty();
    if role != Role::Grafana || !stack.login.given || options.reset_password || !changes || !is_silent {
        return None;
    }
    let is_out_of_reach = matches!(stack.engine, EngineLocation::Elsewhere(_)) && have.is_on_loopback();
    if is_out_of_reach || have.crashes_repeatedly {
        return None;
    }
    let (finding, mut steps) = match have.run {
        // One that started long ago and does not answer is replaced.
        RunState::Running if have.has_just_started && have.published.is_some() => {
            (Finding::Silent("it is starting".into()), vec![])
        }
        RunState::Paused => (Finding::Stopped("paused".into()), vec![Step::UnpauseContainer(role)]),
        _ => return None,
    };
    steps.push(Step::AwaitAnswer(role));
    Some(Work { preparation: steps, ..Work::new(finding, vec![]) })
}

/// Whether the plan only waits for a running Grafana.
pub(super) fn only_waits(item: &Item) -> bool {
    item.preparation.contains(&Step::AwaitAnswer(Role::Grafana)) && item.trial.is_empty() && item.steps.is_empty()
}

/// The container's actual address, which may differ from the desired one.
fn published_url(spec: &DesiredContainer, have: &OurContainer) -> String {
    have.published.map_or_else(|| spec.url(), |at| spec.url_at(at.ip(), at.port())).to_string()
}

/// Plans a container that matches its specification but is paused.
fn paused<S>(context: &Context<'_, S>, have: &OurContainer) -> Work {
    let Context { stack, spec, options, .. } = context;
    let finding = Finding::Stopped("paused".into());
    let unpause = vec![Step::UnpauseContainer(spec.role), Step::AwaitAnswer(spec.role)];
    if spec.role != Role::Grafana {
        Work::new(finding, unpause)
    } else if stack.login.given {
        let trial = [unpause, vec![Step::TryPassword]].concat();
        Work { trial, ..Work::new(finding, vec![Step::StorePassword]) }
    } else if options.reset_password {
        rebuild(context, finding, Some(have))
    } else {
        Work::new(finding, unpause)
    }
}

/// With `--pull never`, a missing image blocks only work that needs it; a running container continues to run.
fn never_pulled(stack: &Stack, spec: &DesiredContainer, work: Work) -> Work {
    if stack.pull != Pull::Never || !work.preparation.contains(&Step::PullImage(spec.role)) {
        return work;
    }
    blocked(Blocker {
        kind: BlockReason::Image,
        why: format!("image {} is not on the engine, and --pull never does not fetch it", spec.specification.image),
        hint: format!(
            "load it with `{}`, or omit --pull (image for {})",
            stack.invocation.docker("load"),
            spec.role.title()
        ),
    })
}

/// The steps that start an existing container. The run that created it may have died before it
/// wrote the password, or before it read the version on the volume.
pub(super) fn start(have: &OurContainer, role: Role) -> Vec<Step> {
    let mut steps = Vec::new();
    let is_new = have.run == RunState::Created && role == Role::Grafana;
    if is_new && have.is_made_with_file() && have.has_data != Some(true) {
        steps.push(Step::WritePassword);
    }
    if is_new && !have.is_fresh() {
        steps.push(Step::RecordVersion);
    }
    steps.extend([Step::StartContainer(role), Step::AwaitAnswer(role)]);
    steps
}

/// The steps before starting a container that an interrupted run created.
pub(super) fn guard_database<S>(context: &Context<'_, S>, have: &OurContainer) -> Vec<Step> {
    let may_migrate = have.run == RunState::Created && context.may_change_version(Some(have));
    if may_migrate { vec![context.protect_database()] } else { vec![] }
}

/// Restores the previous database through a container that is not started, so that later logins use
/// that database. All other steps are planned after that.
fn restore<S>(context: &Context<'_, S>) -> Work {
    let Context { stack, spec, seen, frees_port_first, .. } = context;
    let have = match &seen.container {
        ContainerState::Foreign => return blocked(foreign("container", &spec.name, stack)),
        ContainerState::Duplicated(names) => return blocked(duplicated(stack, spec.role, names)),
        ContainerState::Ours(have) if have.name_taken => return blocked(foreign("container", &spec.name, stack)),
        ContainerState::Ours(have) => Some(have.as_ref()),
        ContainerState::Absent => None,
    };
    let finding = Finding::Requested("the previous database is restored");
    let mut work = Work { preparation: pull(context, have), ..Work::new(finding, vec![]) };
    if have.is_some() {
        work.removal(*frees_port_first).push(Step::RemoveContainer(spec.role));
    }
    work.steps.extend([Step::CreateForRestore(spec.role), Step::RestoreDatabase]);
    work
}

/// Whether the plan only restores the previous database.
pub(super) fn restores(item: &Item) -> bool {
    item.steps.contains(&Step::RestoreDatabase)
}

/// Plans a running container that matches its specification.
fn running<S>(context: &Context<'_, S>) -> Work {
    let Context { stack, spec, seen, options, .. } = context;
    let role = spec.role;
    if role == Role::Grafana && options.reset_password {
        let steps = vec![Step::AwaitAnswer(role), Step::ResetPassword];
        return Work::new(Finding::Requested("a new password was requested"), steps);
    }
    match &seen.probe {
        ServerResponse::Answering(_) => answering(context),
        ServerResponse::Unasked | ServerResponse::Silent(_) | ServerResponse::Starting(_) => {
            let finding = match &seen.probe {
                ServerResponse::Silent(why) | ServerResponse::Starting(why) => Finding::Silent(why.clone()),
                _ => Finding::Unknown,
            };
            if stack.login.given && role == Role::Grafana {
                let preparation = vec![Step::AwaitAnswer(role), Step::TryPassword];
                Work { preparation, ..Work::new(finding, vec![Step::StorePassword]) }
            } else {
                Work::new(finding, vec![Step::AwaitAnswer(role)])
            }
        }
        ServerResponse::Refusing(message) => blocked(refused(stack, role, &spec.url().to_string(), message)),
        ServerResponse::Unusable(what) => blocked(unusable_server(stack, role, &spec.url().to_string(), what)),
        ServerResponse::NotTheContainer => blocked(not_the_container(stack, role, &spec.url().to_string())),
    }
}

/// Plans a container that matches its specification and answers.
fn answering<S>(context: &Context<'_, S>) -> Work {
    let Context { spec, seen, .. } = context;
    if spec.role != Role::Grafana {
        return Work::new(Finding::InSync, vec![]);
    }
    let runs = seen.version.as_deref().and_then(Version::parse);
    if let (Some(runs), Some(recorded)) = (runs, seen.recorded)
        && runs < recorded
    {
        return blocked(migrated(spec, &format!("Grafana {runs}"), recorded));
    }
    let (finding, mut steps) = if spec.specification.is_open() && seen.login.account == Account::DefaultPassword {
        let difference =
            Difference { field: "password".into(), have: "Grafana's default".into(), want: "another password".into() };
        (Finding::Differs(vec![difference]), vec![Step::SecurePassword])
    } else if must_store(context) {
        (Finding::Requested("Grafana accepted a password that is not stored"), vec![Step::StorePassword])
    } else if runs.is_some() && runs != seen.recorded {
        (Finding::Requested("its version is not recorded yet"), vec![])
    } else {
        (Finding::InSync, vec![])
    };
    if runs.is_some() && runs != seen.recorded {
        steps.push(Step::RecordVersion);
    }
    Work::new(finding, steps)
}

/// The blocker that prevents all work on the container.
fn obstacle<S>(context: &Context<'_, S>) -> Option<Blocker> {
    let Context { stack, spec, seen, options, .. } = context;
    if seen.volume == Volume::Foreign {
        return Some(foreign("volume", &spec.specification.volume, stack));
    }
    // This is checked before the port, because with another port, two servers would write to one
    // database. If the managed server runs, the other container is assumed to copy the data.
    let is_up = |have: &OurContainer| matches!(have.run, RunState::Running | RunState::Paused | RunState::Restarting);
    if let Some(other) = seen.volume_user.as_ref().filter(|_| !seen.container.ours().is_some_and(is_up)) {
        return Some(Blocker {
            kind: BlockReason::Foreign,
            why: format!(
                "container {other} runs and mounts {}'s data, the volume {}",
                spec.role.title(),
                spec.specification.volume
            ),
            hint: format!("stop it first: `{}`", stack.invocation.docker(&format!("stop {other}"))),
        });
    }
    let publishes_already =
        seen.container.ours().is_some_and(|have| have.published == Some(spec.specification.publish));
    // The port of the other role's container becomes free.
    let holds = |holder: &&PortHolder| !publishes_already && !matches!(holder, PortHolder::OtherRole(_));
    if let Some(holder) = seen.port_holder.as_ref().filter(holds) {
        let (role, at) = (spec.role, spec.specification.publish);
        let another = stack.invocation.another_port(role, seen.free_port);
        return Some(Blocker {
            kind: BlockReason::PortTaken,
            why: format!("cannot publish {} at {at}: {}", role.title(), publish::describe(holder, role, None)),
            hint: publish::hint(role, at, holder, None, &another, &stack.invocation),
        });
    }
    if let (Some(id), None) = (&spec.pinned_image, &seen.image) {
        return Some(Blocker {
            kind: BlockReason::Image,
            why: format!(
                "the previous Grafana image is no longer on the engine ({}), and {}, which now has its name, failed",
                short(id),
                spec.specification.image
            ),
            hint: format!("name one with `{}`", stack.command("up --grafana-image IMAGE")),
        });
    }
    // An image that is pulled first is checked after the pull.
    if let (Some(image), Volume::Ours { user: Some(owner), .. }) = (&seen.image, &seen.volume)
        && !options.pull
        && let Some(obstacle) = volume_of_another_user(stack, spec, image, owner)
    {
        return Some(obstacle);
    }
    // An empty volume was never migrated. The image that a container was created from is the one
    // that ran, whatever its tag says.
    let is_same = seen.container.ours().is_some_and(|have| {
        have.run != RunState::Created
            && have.specification.as_ref().is_some_and(|made| made.image == spec.specification.image)
    });
    if is_same || is_fresh(context) || context.restores() || is_contradicted(seen, &spec.specification.image) {
        None
    } else {
        older_version(spec, &spec.specification.image, known_version(seen)?)
    }
}

/// Whether the running server contradicts the tag of its image, so that tags of the same repository name no version.
fn is_contradicted<S>(seen: &Server<S>, image: &ImageRef) -> bool {
    let runs = seen.version.as_deref().and_then(Version::parse);
    let made = seen.container.ours().and_then(|have| have.specification.as_ref()).map(|made| &made.image);
    made.zip(runs).is_some_and(|(made, runs)| made.is_contradicted(runs, image))
}

/// An image that runs as another user cannot use the files of the first one: managed containers may
/// not override file permissions.
#[must_use]
pub fn volume_of_another_user(stack: &Stack, spec: &DesiredContainer, image: &Image, owner: &str) -> Option<Blocker> {
    let name = |user: &str| if user.is_empty() { "root".to_string() } else { format!("user {user}") };
    (image.user != owner).then(|| Blocker {
        kind: BlockReason::Image,
        why: format!(
            "image {} runs as {}, but volume {} was created for {}",
            spec.specification.image,
            name(&image.user),
            spec.specification.volume,
            name(owner)
        ),
        hint: format!(
            "use an image that runs as {}, start a second instance with --name, or delete the data with `{}`",
            name(owner),
            stack.command("down --volumes")
        ),
    })
}

/// The newest version known to have run on the volume without reading files: the recorded one or
/// the running one. If no server reports its version, the tag of the container's image counts.
fn known_version<S>(seen: &Server<S>) -> Option<Version> {
    let runs = seen.version.as_deref().and_then(Version::parse);
    let made = seen.container.ours().filter(|have| have.run != RunState::Created);
    let made = made.and_then(|have| have.specification.as_ref()?.image.version());
    [seen.recorded, runs.or(made)].into_iter().flatten().max()
}

/// Grafana migrates its database only upwards, so an image whose tag names an older version must
/// not start on it.
#[must_use]
pub fn older_version(spec: &DesiredContainer, image: &ImageRef, on_volume: Version) -> Option<Blocker> {
    (spec.role == Role::Grafana && image.version()? < on_volume)
        .then(|| migrated(spec, &format!("image {image}"), on_volume))
}

/// The login must be tried on the last image that ran, which is no longer on the engine.
#[must_use]
pub fn needs_last_image(stack: &Stack, spec: &DesiredContainer, last: &str) -> Blocker {
    Blocker {
        kind: BlockReason::Image,
        why: format!(
            "the login must be tried before image {} migrates the database in volume {}, but image {last}, which ran \
             last, is not on the engine",
            spec.specification.image, spec.specification.volume
        ),
        hint: format!(
            "first run the same command with image {last}, then run `{}`",
            stack.command(&format!("up --grafana-image {}", spec.specification.image))
        ),
    }
}

fn migrated(spec: &DesiredContainer, older: &str, on_volume: Version) -> Blocker {
    Blocker {
        kind: BlockReason::Image,
        why: format!(
            "{older} is older than Grafana {on_volume}, which has already migrated the database in volume {}",
            spec.specification.volume
        ),
        hint: format!("use an image of Grafana {on_volume} or newer, or start a second instance with --name"),
    }
}

/// Compares the container's configuration with the desired one.
pub(super) fn differences<S>(context: &Context<'_, S>, have: &OurContainer) -> Vec<Difference> {
    let Context { stack, spec, seen, .. } = context;
    let Some(specification) = &have.specification else {
        return vec![Difference {
            field: "specification".into(),
            have: "unreadable".into(),
            want: "this version's".into(),
        }];
    };
    let want = ContainerConfig { password: password(context, Some(have)), ..spec.specification.clone() };
    let mut differences = Difference::between(&specification.fields(), &want.fields());
    if !have.on_network {
        differences.push(Difference {
            field: "network".into(),
            have: "a removed network".into(),
            want: stack.instance.clone(),
        });
    }
    if let Some(image) = &seen.image
        && image.id != have.image_id
        && differences.iter().all(|difference| difference.field != "image")
    {
        differences.push(Difference { field: "image id".into(), have: short(&have.image_id), want: short(&image.id) });
    }
    differences
}

/// The first twelve characters of an id, as docker shows it.
fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// The steps to a new container on a volume that may contain data.
fn rebuild<S>(context: &Context<'_, S>, finding: Finding, have: Option<&OurContainer>) -> Work {
    let Context { stack, spec, seen, frees_port_first, .. } = context;
    let role = spec.role;
    if have.is_some_and(|have| have.name_taken) {
        return blocked(foreign("container", &spec.name, stack));
    }
    let mut work = Work { preparation: pull(context, have), ..Work::new(finding, vec![]) };
    work.preparation.extend(address_check(context, have));
    let task = task(context, have);
    if let Some(task) = task {
        if let EngineLocation::Elsewhere(host) = &stack.engine
            && !is_in_place(context, have, task)
        {
            return without_loopback(context, work, have, task, host);
        }
        work.trial = [private_start(context, have, task), vec![task.step()]].concat();
    }
    if seen.volume == Volume::Absent {
        work.steps.push(Step::CreateVolume(role));
    }
    let removal = work.removal(*frees_port_first);
    if role == Role::Grafana && (task == Some(LoginTask::Try) || (task.is_none() && must_store(context))) {
        removal.push(Step::StorePassword);
    }
    if have.is_some() || task.is_some() {
        removal.push(Step::RemoveContainer(role));
    }
    let password = new_password(context, have, task);
    // Only a container can read which version ran last on the volume, so one is created before any
    // permanent change.
    let reads_volume = password == NewPassword::AsVolume && have.is_none() && task.is_none();
    let steps = if reads_volume { &mut work.preparation } else { &mut work.steps };
    steps.push(Step::CreateContainer(role, password));
    let steps = &mut work.steps;
    if role == Role::Grafana && is_fresh(context) && password == NewPassword::Known(PasswordSource::File) {
        steps.push(Step::WritePassword);
    }
    if context.may_change_version(have) {
        steps.push(context.protect_database());
    }
    let records = records_version(context);
    // Without a container, only files in the volume show which version ran last.
    let is_unchecked = have.is_none() && password != NewPassword::AsVolume;
    if role == Role::Grafana && !is_fresh(context) && (records || is_unchecked) {
        steps.push(Step::RecordVersion);
    }
    steps.extend([Step::StartContainer(role), Step::AwaitAnswer(role)]);
    if records {
        steps.push(Step::RecordVersion);
    }
    work
}

/// Another process can hold the new port, and the engine's host may have lost the address: only the
/// engine can find out.
fn address_check<S>(context: &Context<'_, S>, have: Option<&OurContainer>) -> Option<Step> {
    let Context { spec, seen, .. } = context;
    let want = spec.specification.publish;
    let made = have.and_then(|have| have.specification.as_ref()).map(|made| made.publish);
    let is_always_there = want.ip().is_unspecified() || want.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST);
    let moves = made.is_some_and(|made| made != want);
    let holds = |at: SocketAddr| collide(at, want);
    let is_held = seen.port_holder.is_some()
        || have.is_some_and(|have| !matches!(have.run, RunState::Created | RunState::Exited(_)))
            && made.is_none_or(holds);
    let port = if is_held { 0 } else { want.port() };
    let is_needed = !is_always_there || (moves && !is_held);
    is_needed.then(|| Step::CheckAddress(spec.role, SocketAddr::new(want.ip(), port)))
}

/// Whether the plan only creates a container to inspect its volume, without starting it.
pub(super) fn only_looks(item: &Item) -> bool {
    let starts = |step: &Step| matches!(step, Step::StartContainer(_));
    item.trial.iter().any(|step| matches!(step, Step::CreatePrivateContainer { .. }))
        && item.steps.is_empty()
        && !item.trial.iter().any(starts)
}

/// If the engine's loopback is out of reach, no login can be tried. The remaining work is to start
/// a container that was verified when it was created, or to create one without starting it and see
/// whether the volume contains data.
fn without_loopback<S>(
    context: &Context<'_, S>,
    mut work: Work,
    have: Option<&OurContainer>,
    task: LoginTask,
    host: &str,
) -> Work {
    let role = context.spec.role;
    match have {
        None => work.trial.push(Step::CreatePrivateContainer { last: context.last_image() }),
        Some(have) if task == LoginTask::Try && matches!(have.run, RunState::Exited(_)) && have.on_network => {
            work.trial = [start(have, role), vec![task.step()]].concat();
            work.steps.push(Step::StorePassword);
        }
        Some(_) => return blocked(unverifiable(context.stack, host, task)),
    }
    work
}

/// Whether the volume was created for another version than the image's, or for an unknown one.
fn records_version<S>(context: &Context<'_, S>) -> bool {
    let Context { spec, seen, .. } = context;
    let image = spec.specification.image.version();
    spec.role == Role::Grafana
        && match &seen.volume {
            Volume::Ours { .. } => seen.recorded.is_none() || seen.recorded != image,
            _ => image.is_none(),
        }
}

/// Pulls a missing image, and checks whether a new image fits the volume.
fn pull<S>(context: &Context<'_, S>, have: Option<&OurContainer>) -> Vec<Step> {
    let Context { spec, seen, options, .. } = context;
    let role = spec.role;
    let mut steps = Vec::new();
    if seen.image.is_none() || options.pull {
        steps.push(Step::PullImage(role));
    }
    let is_same = seen.image.as_ref().zip(have).is_some_and(|(image, have)| image.id == have.image_id);
    let may_differ = seen.image.is_none() || options.pull || (have.is_some() && !is_same);
    if matches!(seen.volume, Volume::Ours { .. }) && may_differ {
        steps.push(Step::CheckImage { role, restores: context.restores() });
    }
    steps
}
