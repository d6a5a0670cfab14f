//! The blockers of a server: facts that only the user can change, in the order in which they are reported.

use super::server::ServerContext;
use super::{BlockReason, Blocker, upgrade};
use crate::model::hints;
use crate::model::native::{System, package};
use crate::model::observed::{
    ContainerState, ManagedServer, OurContainer, PortHolder, RunState, ServerResponse, Unreadable, VolumeState,
};
use crate::model::publish;
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, Pull, Stack};
use crate::model::text::{listed, using};
use crate::model::version::Version;

/// The blocker that prevents all work on the container.
pub(super) fn blocker(context: &ServerContext<'_>) -> Option<Blocker> {
    let ServerContext { stack, spec, seen, .. } = context;
    if seen.volume == VolumeState::Foreign {
        return Some(foreign("volume", &spec.config.volume, stack));
    }
    // This is checked before the port, because with another port, two servers would write to one database.
    volume_in_use(context)
        .or_else(|| port_taken(context))
        .or_else(|| unreadable_files(context))
        .or_else(|| missing_previous_image(context))
        .or_else(|| volume_of_another_user(context))
        .or_else(|| upgrade::older(context))
        .or_else(|| unusable_container(context))
}

/// Another container writes to the volume.
fn volume_in_use(context: &ServerContext<'_>) -> Option<Blocker> {
    let ServerContext { stack, spec, seen, .. } = context;
    // If the managed server runs, the other container is assumed to copy the data.
    let is_up =
        |actual: &OurContainer| matches!(actual.run, RunState::Running | RunState::Paused | RunState::Restarting);
    let other = seen.volume_user.as_ref().filter(|_| !seen.container.ours().is_some_and(is_up))?;
    Some(Blocker {
        kind: BlockReason::Foreign,
        why: format!(
            "container {other} runs and mounts {}'s data, the volume {}",
            spec.role.title(),
            spec.config.volume
        ),
        hint: format!("stop it first: `{}`", stack.invocation.docker(&format!("stop {other}"))),
    })
}

fn port_taken(context: &ServerContext<'_>) -> Option<Blocker> {
    let ServerContext { stack, spec, seen, .. } = context;
    let publishes_already = seen.container.ours().is_some_and(|actual| actual.published == Some(spec.config.publish));
    // The port of the other role's container becomes free.
    let holds = |holder: &&PortHolder| !publishes_already && !matches!(holder, PortHolder::OtherRole(_));
    let holder = seen.port_holder.as_ref().filter(holds)?;
    let (role, at) = (spec.role, spec.config.publish);
    let another = stack.invocation.another_port(role, seen.free_port);
    Some(Blocker {
        kind: BlockReason::PortTaken,
        why: format!("cannot publish {} at {at}: {}", role.title(), publish::describe(holder, role, None)),
        hint: publish::hint(role, at, holder, None, &another, &stack.invocation),
    })
}

fn unreadable_files(context: &ServerContext<'_>) -> Option<Blocker> {
    let why = context.seen.unreadable.as_ref()?;
    Some(Blocker {
        kind: BlockReason::Foreign,
        why: format!("cannot read clipper-metrics's files in volume {}: {why}", context.spec.config.volume),
        hint: "put a regular file in its place in the volume, then run the same command again".into(),
    })
}

/// The image to go back to is gone.
fn missing_previous_image(context: &ServerContext<'_>) -> Option<Blocker> {
    let ServerContext { stack, spec, seen, .. } = context;
    let id = spec.pinned_image.as_ref().filter(|_| seen.image.is_none())?;
    Some(Blocker {
        kind: BlockReason::Image,
        why: format!(
            "the previous Grafana image is no longer on the engine ({}), and {}, which now has its name, failed",
            short(id),
            spec.config.image
        ),
        hint: format!("name one with `{}`", stack.command("up --grafana-image IMAGE")),
    })
}

/// An image that runs as another user cannot use the files of the first one: managed containers may
/// not override file permissions. An image that is pulled first is checked after the pull.
fn volume_of_another_user(context: &ServerContext<'_>) -> Option<Blocker> {
    let ServerContext { stack, spec, seen, options, .. } = context;
    let (Some(image), VolumeState::Ours { user: Some(owner), .. }) = (&seen.image, &seen.volume) else { return None };
    let name = |user: &str| if user.is_empty() { "root".to_string() } else { format!("user {user}") };
    (!options.pull && image.user != *owner).then(|| Blocker {
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

/// The container is not managed, or the server that answers for it cannot be used.
fn unusable_container(context: &ServerContext<'_>) -> Option<Blocker> {
    let ServerContext { stack, spec, seen, options, .. } = context;
    let role = spec.role;
    match &seen.container {
        ContainerState::Foreign => Some(foreign("container", &spec.name, stack)),
        ContainerState::Duplicated(names) => Some(duplicated(stack, role, names)),
        ContainerState::Ours(actual) if !context.rolls_back() => match &seen.response {
            ServerResponse::Refusing(_) if seen.login.is_locked_out => Some(locked_out(context, actual)),
            ServerResponse::Refusing(message) if !(options.reset_password && role == Role::Grafana) => {
                Some(refused(stack, role, &actual_url(spec, actual), message))
            }
            ServerResponse::NotTheContainer => Some(not_the_container(stack, role, &actual_url(spec, actual))),
            _ => None,
        },
        ContainerState::Ours(_) | ContainerState::Absent => None,
    }
}

/// The address of the container that answered, which may differ from the desired one.
fn actual_url(spec: &DesiredContainer, actual: &OurContainer) -> String {
    actual.published.map_or_else(|| spec.url(), |at| spec.url_at(at.ip(), at.port())).to_string()
}

/// Grafana rejects the right password, too. It would reject a new one as well, because the wrong ones stay in its database.
fn locked_out(context: &ServerContext<'_>, actual: &OurContainer) -> Blocker {
    let ServerContext { stack, spec, options, .. } = context;
    let again = if options.reset_password { "up --reset-grafana-password" } else { "up" };
    Blocker {
        kind: BlockReason::Refused,
        why: format!(
            "Grafana at {} rejects every login of {} for 5 minutes, because of 5 wrong passwords",
            actual_url(spec, actual),
            stack.login.user
        ),
        hint: format!("wait 5 minutes without signing in, then run `{}`", stack.command(again)),
    }
}

/// The URL of an external server leads to a managed container, which would be removed in favour of
/// itself, or together with its instance.
#[must_use]
pub(super) fn managed_server(stack: &Stack, role: Role, url: &str, managed: &ManagedServer, command: &str) -> Blocker {
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
pub(crate) fn unusable_server(stack: &Stack, role: Role, url: &str, what: &str) -> Blocker {
    let hint = match (role, stack.container(role).is_some()) {
        (Role::Influxdb, true) => {
            format!("Clipper needs InfluxDB 1.x: use --influxdb-image {}", role.facts().image)
        }
        (Role::Influxdb, false) => format!(
            "Clipper needs InfluxDB 1.x: set --influxdb-url to its own address, or omit it to run a container; to \
             install InfluxDB 1.x: {}",
            package(role, System::HERE).installation
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
pub(crate) fn not_the_container(stack: &Stack, role: Role, url: &str) -> Blocker {
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

/// An external server answers, but returns an error or unusable content.
pub(super) fn failing(stack: &Stack, role: Role, url: &str, why: &Unreadable) -> Blocker {
    Blocker {
        kind: BlockReason::Server,
        why: format!("{} at {url} answers, but clipper-metrics {why}", role.title()),
        hint: hints::way_to_read(stack, role, why),
    }
}

/// The server rejects the login, or the account may not read what every plan needs.
#[must_use]
pub(crate) fn refused(stack: &Stack, role: Role, url: &str, message: &str) -> Blocker {
    let hint = match role {
        Role::Influxdb if stack.data_source.user.is_empty() => {
            "use --influxdb-user and --influxdb-password-file".to_string()
        }
        Role::Influxdb => "correct --influxdb-user or the password in --influxdb-password-file".to_string(),
        Role::Grafana if stack.login.uses_token => {
            let valid = "supply a valid token of a service account with the role Admin (--grafana-token-file)";
            if stack.container(role).is_some() {
                format!("{valid}, or omit the token: the password of a managed Grafana is known")
            } else {
                valid.to_string()
            }
        }
        Role::Grafana if stack.container(role).is_some() => {
            // Grafana's command resets the password of its first administrator only.
            let reset = if stack.login.is_admin() { "" } else { " --grafana-user ''" };
            format!(
                "supply the password with `{}`, or set a new one with `{}`",
                stack.command("up --grafana-password-file FILE"),
                stack.command(&format!("up --reset-grafana-password{reset}"))
            )
        }
        Role::Grafana => {
            let supply = if stack.login.supplies_password {
                "correct the supplied password (--grafana-password-file) or the user (--grafana-user), or use"
            } else {
                "use --grafana-user and --grafana-password-file, or"
            };
            format!("{supply} --grafana-token-file, which also works if Grafana's basic authentication is off")
        }
    };
    let why = format!("{} at {url} rejected the login: {message}", role.title());
    Blocker { kind: BlockReason::Refused, why, hint }
}

/// Two containers carry the labels of one role because a tool has copied one of them.
pub(super) fn duplicated(stack: &Stack, role: Role, names: &[String]) -> Blocker {
    // The container with the original name comes first.
    let has_original = names.first().is_some_and(|name| *name == role.object_name(&stack.instance));
    let (advice, surplus) = match names {
        [_, copy] if has_original => ("remove the copy", std::slice::from_ref(copy)),
        [_, copies @ ..] if has_original => ("remove the copies", copies),
        _ => ("remove the container whose data you do not need", names.split_at(names.len().saturating_sub(1)).1),
    };
    Blocker {
        kind: BlockReason::Foreign,
        why: format!(
            "the containers {} carry the labels of this instance's {}, but an instance has only one",
            listed(names),
            role.title()
        ),
        hint: format!("{advice}: `{}`", stack.invocation.docker(&format!("rm --force {}", surplus.join(" ")))),
    }
}

/// With `--pull never`, a missing image blocks only work that needs it; a running container continues to run.
pub(super) fn never_pulled(stack: &Stack, spec: &DesiredContainer) -> Option<Blocker> {
    (stack.pull == Pull::Never).then(|| Blocker {
        kind: BlockReason::Image,
        why: format!("image {} is not on the engine, and --pull never does not fetch it", spec.config.image),
        hint: format!(
            "load it with `{}`, or omit --pull (image for {})",
            stack.invocation.docker("load -i image.tar"),
            spec.role.title()
        ),
    })
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

/// Grafana migrates its database only upwards, so an older version must not start on it.
pub(super) fn migrated(spec: &DesiredContainer, older: &str, on_volume: Version) -> Blocker {
    Blocker {
        kind: BlockReason::Image,
        why: format!(
            "{older} is older than Grafana {on_volume}, which has already migrated the database in volume {}",
            spec.config.volume
        ),
        hint: format!("use an image of Grafana {on_volume} or newer, or start a second instance with --name"),
    }
}

/// Containers of other owners use a volume that is to be deleted.
pub(super) fn used_volume(stack: &Stack, role: Role, users: &[String]) -> Blocker {
    let object = if users.len() == 1 { "it" } else { "them" };
    let remove = stack.invocation.docker(&format!("rm --force {}", users.join(" ")));
    Blocker {
        kind: BlockReason::Foreign,
        why: format!("cannot delete volume {}: {}", role.object_name(&stack.instance), using(users)),
        hint: format!("remove {object} with `{remove}`, then run the same command again"),
    }
}

/// The blocker for an object with this instance's name that clipper-metrics did not create.
pub(super) fn foreign(kind: &str, name: &str, stack: &Stack) -> Blocker {
    let remove = match kind {
        "container" => {
            let stop = stack.invocation.docker(&format!("stop {name}"));
            format!("{stop} && {}", stack.invocation.docker(&format!("rm {name}")))
        }
        _ => stack.invocation.docker(&format!("{kind} rm {name}")),
    };
    Blocker {
        kind: BlockReason::Foreign,
        why: format!("{kind} {name} exists, but clipper-metrics did not create it"),
        hint: format!("choose a --name other than {}, or remove it yourself: `{remove}`", stack.instance),
    }
}

/// The first twelve characters of an id, as docker shows it.
pub(super) fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::{Network, Observed};
    use crate::model::plan::{self, Resource, UpOptions};
    use crate::samples::{self, container_of, plan_with};

    #[test]
    fn foreign_objects_are_blockers_and_never_changed() {
        let desired = samples::stack();
        let foreign: [fn(&mut Observed); 6] = [
            |seen| seen.network = Network::Foreign,
            |seen| seen.influxdb.container = ContainerState::Foreign,
            |seen| seen.grafana.volume = VolumeState::Foreign,
            |seen| seen.grafana.port_holder = Some(PortHolder::Container("other".into())),
            |seen| seen.influxdb.volume_user = Some("other".into()),
            |seen| seen.grafana.container = ContainerState::Duplicated(vec!["a".into(), "b".into()]),
        ];
        let nothing = samples::observed();
        assert_eq!(plan::up(&desired, &nothing, UpOptions::default()).blocker(), None);
        for change in foreign {
            let mut seen = nothing.clone();
            change(&mut seen);
            let plan = plan::up(&desired, &seen, UpOptions::default());
            assert!(plan.blocker().is_some(), "{plan:?}");
            assert!(plan::down(&desired, &seen, true).is_idle());
        }
    }

    #[test]
    fn a_port_published_by_the_container_itself_is_not_a_conflict() {
        let desired = samples::stack();
        let publish = desired.container(Role::Grafana).unwrap().config.publish;
        let with_holder = |published| {
            plan_with(&desired, |seen| {
                seen.grafana.port_holder = Some(PortHolder::Container("other".into()));
                container_of(seen, Role::Grafana).published = published;
            })
        };
        assert!(with_holder(Some(publish)).blocker().is_none());
        assert!(with_holder(None).blocker().is_some());
        assert!(with_holder(Some((publish.ip(), publish.port() + 1).into())).blocker().is_some());
    }

    #[test]
    fn an_unreadable_volume_is_a_finding_and_nothing_is_removed() {
        let desired = samples::stack_off_loopback();
        let plan = plan_with(&desired, |seen| seen.grafana.unreadable = Some("it is a link".into()));
        let (resource, blocker) = plan.blocker().unwrap();
        assert_eq!(resource, Resource::Server(Role::Grafana));
        assert!(blocker.why.contains("x-grafana: it is a link"), "{blocker:?}");
    }
}
