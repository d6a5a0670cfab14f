//! One server: what stands in the way of it, how it differs, and the steps in the order that loses
//! nothing and opens no door.
//!
//! Must not know what is inside the servers.

use super::{Blocked, Finding, Item, Obstacle, Resource, Step, Wishes, foreign};
use crate::core::observed::{Answer, Container, Image, KeptPassword, OurContainer, Run, Server, Volume};
use crate::core::stack::{ContainerSpec, Difference, Password, Pull, Role, Service, Stack};

pub(super) fn server<S>(want: &Stack, role: Role, seen: &Server<S>, wishes: Wishes) -> Item {
    let (finding, steps) = match want.service(role) {
        Service::External { url } => external(role, url, &seen.answer),
        Service::Container(spec) => container(want, spec, seen, wishes),
    };
    Item { resource: Resource::Server(role), finding, steps }
}

fn external<S>(role: Role, url: &str, answer: &Answer<S>) -> (Finding, Vec<Step>) {
    let title = role.title();
    let blocked = |kind, why, hint| (Finding::Blocked(Blocked { kind, why, hint }), vec![]);
    match answer {
        Answer::Answering(_) => (Finding::InSync, vec![]),
        Answer::Unasked => (Finding::Unknown, vec![Step::AwaitAnswer(role)]),
        Answer::Silent(why) => blocked(
            Obstacle::Server,
            format!("{title} at {url} does not answer: {why}"),
            format!("start it, or leave --{role}-url away to have a container started"),
        ),
        Answer::Unusable(what) => unusable(role, url, what),
        Answer::Refusing(words) => refused(role, url, words, false),
    }
}

fn unusable(role: Role, url: &str, what: &str) -> (Finding, Vec<Step>) {
    (Finding::Blocked(unusable_server(role, url, what)), vec![])
}

/// Something else than the wanted server answers.
#[must_use]
pub fn unusable_server(role: Role, url: &str, what: &str) -> Blocked {
    let hint = match role {
        Role::Influxdb => "Clipper needs InfluxDB 1.x: use --influxdb-image influxdb:1.12.4, or another --influxdb-url",
        Role::Grafana => "give Grafana's address, up to but without /api, with --grafana-url",
    };
    let why = format!("{} is wanted at {url}, but {what} answers there", role.title());
    Blocked { kind: Obstacle::Server, why, hint: hint.into() }
}

fn refused(role: Role, url: &str, words: &str, ours: bool) -> (Finding, Vec<Step>) {
    let hint = match role {
        Role::Influxdb => "give --influxdb-user and --influxdb-password-file",
        Role::Grafana if ours => {
            "give the password with --grafana-password-file FILE, or set a new one with \
             `clipper-metrics up --reset-grafana-password`"
        }
        Role::Grafana => "give --grafana-user and --grafana-password-file, or --grafana-token-file",
    };
    let why = format!("{} at {url} refuses us: {words}", role.title());
    (Finding::Blocked(Blocked { kind: Obstacle::Refused, why, hint: hint.into() }), vec![])
}

/// A container of ours: what differs, and the steps in the order that loses nothing.
fn container<S>(want: &Stack, spec: &ContainerSpec, seen: &Server<S>, wishes: Wishes) -> (Finding, Vec<Step>) {
    if let Some(blocked) = obstacle(want, spec, seen) {
        return (Finding::Blocked(blocked), vec![]);
    }
    let (finding, mut steps) = match &seen.container {
        Container::Foreign => (foreign("container", &spec.name, &want.instance), vec![]),
        Container::Absent => (Finding::Missing, create(spec, seen)),
        Container::Ours(have) => {
            let differences = differences(want, spec, seen, have);
            match have.run {
                _ if !differences.is_empty() => (Finding::Differs(differences), replace(spec, seen, have)),
                Run::Running => running(spec, seen, wishes),
                Run::Restarting => (Finding::Stopped("restarting again and again".into()), replace(spec, seen, have)),
                Run::Dead => (Finding::Stopped("dead".into()), replace(spec, seen, have)),
                Run::Paused => (
                    Finding::Stopped("paused".into()),
                    vec![Step::UnpauseContainer(spec.role), Step::AwaitAnswer(spec.role)],
                ),
                Run::Created => (Finding::Stopped("created but never started".into()), start(spec, have)),
                Run::Exited(code) => (Finding::Stopped(format!("stopped (exit code {code})")), start(spec, have)),
            }
        }
    };
    if spec.role == Role::Grafana && wishes.reset_password && !matches!(finding, Finding::Blocked(_)) {
        steps.push(Step::ResetPassword);
    }
    (finding, steps)
}

fn running<S>(spec: &ContainerSpec, seen: &Server<S>, wishes: Wishes) -> (Finding, Vec<Step>) {
    let role = spec.role;
    if role == Role::Grafana && wishes.reset_password {
        return (Finding::Asked("a new password is asked for"), vec![Step::AwaitAnswer(role)]);
    }
    match &seen.answer {
        Answer::Answering(_) if seen.kept_password == KeptPassword::NotAsGiven => {
            (Finding::Asked("the given password is not the one that is kept"), vec![Step::StorePassword])
        }
        Answer::Answering(_) => (Finding::InSync, vec![]),
        Answer::Unasked => (Finding::Unknown, vec![Step::AwaitAnswer(role)]),
        Answer::Silent(why) => (Finding::Silent(why.clone()), vec![Step::AwaitAnswer(role)]),
        Answer::Refusing(words) => refused(role, &spec.url(), words, true),
        Answer::Unusable(what) => unusable(role, &spec.url(), what),
    }
}

/// What stands in the way of working on the container at all.
fn obstacle<S>(want: &Stack, spec: &ContainerSpec, seen: &Server<S>) -> Option<Blocked> {
    if seen.volume == Volume::Foreign
        && let Finding::Blocked(blocked) = foreign("volume", &spec.name, &want.instance)
    {
        return Some(blocked);
    }
    if let Some(holder) = &seen.port_holder {
        let (role, port) = (spec.role, spec.publish());
        return Some(Blocked {
            kind: Obstacle::PortTaken,
            why: format!("cannot publish {} at {port}: container {holder} holds that port", role.title()),
            hint: format!("stop it (docker stop {holder}), or choose another port with --{role}-port"),
        });
    }
    if seen.image.is_none() && want.pull == Pull::Never {
        return Some(Blocked {
            kind: Obstacle::Image,
            why: format!("image {} is not on the engine, and --pull never forbids to fetch it", spec.image),
            hint: format!("load it with `docker load`, or leave --pull away (image of {})", spec.role.title()),
        });
    }
    if let (Some(image), Volume::Ours { user: Some(owner) }) = (&seen.image, &seen.volume) {
        return volume_of_another_user(spec, image, owner);
    }
    older_grafana(spec, seen)
}

/// An image that runs as another user cannot use what the first one wrote: no container of ours
/// may override file permissions.
#[must_use]
pub fn volume_of_another_user(spec: &ContainerSpec, image: &Image, owner: &str) -> Option<Blocked> {
    let name = |user: &str| if user.is_empty() { "root".to_string() } else { format!("user {user}") };
    (image.user != owner).then(|| Blocked {
        kind: Obstacle::Image,
        why: format!(
            "image {} runs as {}, but volume {} was made for {}",
            spec.image,
            name(&image.user),
            spec.name,
            name(owner)
        ),
        hint: format!(
            "use an image that runs as {}, start a second instance with --name, or delete the data with \
             `clipper-metrics down --volumes`",
            name(owner)
        ),
    })
}

/// Grafana migrates its database upwards only.
fn older_grafana<S>(spec: &ContainerSpec, seen: &Server<S>) -> Option<Blocked> {
    let Container::Ours(have) = &seen.container else { return None };
    if spec.role != Role::Grafana {
        return None;
    }
    let have_image = have.fields.as_ref().and_then(|fields| fields.get("image"));
    let old = seen.version.as_deref().and_then(version).or_else(|| have_image.and_then(|image| tag_version(image)))?;
    let new = tag_version(&spec.image)?;
    (new < old).then(|| Blocked {
        kind: Obstacle::Image,
        why: format!(
            "image {} is older than Grafana {}.{}, which has already migrated the database in volume {}",
            spec.image, old.0, old.1, spec.name
        ),
        hint: "keep the newer --grafana-image, or start a second instance with --name".into(),
    })
}

/// Major and minor of an image's tag.
fn tag_version(image: &str) -> Option<(u64, u64)> {
    let (_, tag) = image.split('@').next()?.rsplit_once(':')?;
    version(tag)
}

/// Major and minor of a version such as `12.4.10` or `v9.4.0-pre`.
#[must_use]
pub fn version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.trim_start_matches('v').split(['.', '-', '~', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What the container was made from against what it should be made from.
fn differences<S>(want: &Stack, spec: &ContainerSpec, seen: &Server<S>, have: &OurContainer) -> Vec<Difference> {
    let Some(fields) = &have.fields else {
        return vec![Difference {
            field: "specification".into(),
            have: "unreadable".into(),
            want: "this version's".into(),
        }];
    };
    let mut wanted = spec.fields();
    if password(spec, seen) == Password::File {
        // A password in the volume stays: no option need be repeated for it.
        wanted.insert("password".into(), Password::File.name().into());
    }
    let mut differences = Difference::between(fields, &wanted);
    if !have.on_network {
        differences.push(Difference {
            field: "network".into(),
            have: "a removed network".into(),
            want: want.instance.clone(),
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

/// The twelve characters by which people know an id.
fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// Which password the new container starts with.
fn password<S>(spec: &ContainerSpec, seen: &Server<S>) -> Password {
    match &seen.container {
        Container::Ours(have) if have.has_password_file() => Password::File,
        _ if seen.kept_password == KeptPassword::Unlabelled => Password::File,
        _ => spec.password,
    }
}

/// Grafana is to be reachable from elsewhere, and its password may be the default one: only a new
/// volume, or one whose container was made with a password file, is known to be safe.
fn needs_guard<S>(spec: &ContainerSpec, seen: &Server<S>) -> bool {
    let known = match &seen.container {
        Container::Ours(have) => have.has_password_file() || seen.volume == Volume::Absent,
        _ => seen.volume == Volume::Absent,
    };
    spec.role == Role::Grafana && !spec.address.is_loopback() && !known
}

fn pull<S>(spec: &ContainerSpec, seen: &Server<S>) -> Vec<Step> {
    if seen.image.is_some() {
        return vec![];
    }
    let mut steps = vec![Step::PullImage(spec.role)];
    if matches!(seen.volume, Volume::Ours { .. }) {
        steps.push(Step::CheckImage(spec.role));
    }
    steps
}

fn create<S>(spec: &ContainerSpec, seen: &Server<S>) -> Vec<Step> {
    let role = spec.role;
    let mut steps = pull(spec, seen);
    if seen.volume == Volume::Absent {
        steps.push(Step::CreateVolume(role));
    }
    if needs_guard(spec, seen) {
        steps.extend([Step::CreateGuarded, Step::StartContainer(role), Step::AwaitAnswer(role)]);
        steps.extend([Step::SecurePassword, Step::RemoveContainer(role)]);
    }
    steps.extend(create_and_start(spec, seen));
    steps
}

fn create_and_start<S>(spec: &ContainerSpec, seen: &Server<S>) -> Vec<Step> {
    let role = spec.role;
    let password = password(spec, seen);
    let mut steps = vec![Step::CreateContainer(role, password)];
    if role == Role::Grafana {
        match password {
            Password::File => steps.push(Step::EnsurePassword),
            Password::Default if seen.volume != Volume::Absent => steps.push(Step::AdoptPassword),
            Password::Default => {}
        }
    }
    steps.extend([Step::StartContainer(role), Step::AwaitAnswer(role)]);
    steps
}

fn replace<S>(spec: &ContainerSpec, seen: &Server<S>, have: &OurContainer) -> Vec<Step> {
    let role = spec.role;
    let mut steps = pull(spec, seen);
    if seen.volume == Volume::Absent {
        steps.push(Step::CreateVolume(role));
    }
    if needs_guard(spec, seen) {
        let on_loopback = have.publish().is_some_and(|publish| publish.ip().is_loopback());
        match have.run {
            Run::Running if on_loopback => {}
            Run::Created | Run::Exited(_) if on_loopback && have.on_network => {
                steps.push(Step::StartContainer(role));
            }
            _ => steps.extend([Step::RemoveContainer(role), Step::CreateGuarded, Step::StartContainer(role)]),
        }
        steps.extend([Step::AwaitAnswer(role), Step::SecurePassword]);
    }
    steps.push(Step::RemoveContainer(role));
    steps.extend(create_and_start(spec, seen));
    steps
}

fn start(spec: &ContainerSpec, have: &OurContainer) -> Vec<Step> {
    let role = spec.role;
    let mut steps = Vec::new();
    if have.run == Run::Created && role == Role::Grafana {
        // The run that made it may have died before it saw to the password.
        steps.push(if have.has_password_file() { Step::EnsurePassword } else { Step::AdoptPassword });
    }
    steps.extend([Step::StartContainer(role), Step::AwaitAnswer(role)]);
    steps
}
