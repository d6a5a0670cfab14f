//! Plans the network of the containers.

use super::blockers::foreign;
use super::{BlockReason, Blocker, Finding, Item, Kept, Resource, Step};
use crate::model::container_config::Difference;
use crate::model::observed::{AddressCheck, EngineKind, Network, Observed};
use crate::model::stack::Stack;
use crate::model::text::attached;

/// Plans the network. With `needs_address`, a container is to be published: every container that checks an address is
/// removed first. Otherwise, another run may be using it, and only leftovers are removed.
pub(super) fn network(stack: &Stack, seen: &Observed, needs_address: bool) -> Option<Item> {
    let (finding, step) = match &seen.network {
        Network::Ours(_) if !stack.needs_engine() => {
            return Some(unneeded_network(stack, seen, "no container needs it"));
        }
        _ if !stack.needs_engine() => return None,
        Network::Ours(ids) if ids.len() > 1 => {
            let difference =
                Difference { field: "networks".into(), actual: ids.len().to_string(), desired: "1".into() };
            (Finding::Differs(vec![difference]), Some(Step::RemoveDuplicateNetworks))
        }
        Network::Ours(_) if seen.address_checks.iter().any(|check| is_leftover(check, seen)) => {
            (Finding::Requested("an interrupted run left a container on it"), None)
        }
        Network::Ours(_) => (Finding::InSync, None),
        Network::Free | Network::Foreign if is_built_in(&stack.instance, seen) => {
            let why =
                format!("the network {} belongs to the engine, so no instance can have that name", stack.instance);
            let hint = "choose another name with --name".into();
            return Some(Item::new(
                Resource::Network,
                Blocker { kind: BlockReason::Settings, why, hint }.into(),
                vec![],
            ));
        }
        Network::Free => (Finding::Missing, Some(Step::CreateNetwork)),
        Network::Foreign => {
            return Some(Item::new(Resource::Network, foreign("network", &stack.instance, stack).into(), vec![]));
        }
    };
    let checks = removed_checks(seen, |check| needs_address || is_leftover(check, seen));
    Some(Item::new(Resource::Network, finding, checks.chain(step).collect()))
}

/// The instance's network when it is to be removed. A network that other containers use is kept.
pub(super) fn unneeded_network(stack: &Stack, seen: &Observed, reason: &'static str) -> Item {
    let (instance, users) = (&stack.instance, &seen.network_users);
    if users.is_empty() {
        let steps = removed_checks(seen, |_| true).chain([Step::RemoveNetwork]).collect();
        return Item::new(Resource::Network, Finding::Requested(reason), steps);
    }
    let docker = |arguments: String| stack.invocation.docker(&arguments);
    let commands = users.iter().map(|user| docker(format!("network disconnect {instance} {user}")));
    let commands: Vec<String> = commands.chain([docker(format!("network rm {instance}"))]).collect();
    let kept = Kept {
        why: format!("network {instance} is kept: {}", attached(users)),
        hint: format!("`{}` removes it", commands.join(" && ")),
    };
    Item::new(Resource::Network, Finding::Kept(kept), removed_checks(seen, |_| true).collect())
}

/// Whether the engine creates and keeps a network of that name itself. Docker has one called `default` that it does not
/// report, and Podman reports none of them under its name.
fn is_built_in(name: &str, seen: &Observed) -> bool {
    let is_podman = seen.engine.as_ref().is_some_and(|engine| engine.kind == EngineKind::Podman);
    let is_reported = seen.network == Network::Foreign || is_podman;
    name == "default" || (is_reported && ["bridge", "host", "none", "podman"].contains(&name))
}

/// The age from which a container that checks an address is a leftover, in seconds. A check takes a few, and the clocks of
/// the engine's machine and this one may differ.
const LEFTOVER_AGE: i64 = 600;

/// Whether an interrupted run left a container that checks an address. A younger one may be another run's.
fn is_leftover(check: &AddressCheck, seen: &Observed) -> bool {
    let now = i64::try_from(seen.time / 1_000_000).unwrap_or_default();
    now.saturating_sub(check.created) >= LEFTOVER_AGE
}

/// The step that removes the selected containers that check an address, if there are any.
fn removed_checks<F>(seen: &Observed, is_selected: F) -> impl Iterator<Item = Step> + use<F>
where
    F: Fn(&AddressCheck) -> bool,
{
    let selected = seen.address_checks.iter().filter(|check| is_selected(check));
    let ids: Vec<String> = selected.map(|check| check.id.clone()).collect();
    (!ids.is_empty()).then_some(Step::RemoveAddressChecks(ids)).into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::{EngineInfo, RunState};
    use crate::model::role::{PerRole, Role};
    use crate::samples::{self, container_of, external, plan_with, steps};

    #[test]
    fn containers_of_interrupted_address_checks_are_removed_first() {
        let leave = |seen: &mut Observed| {
            let created = i64::try_from(seen.time / 1_000_000).unwrap();
            seen.address_checks = vec![AddressCheck { id: "a".into(), created }];
        };
        let leftover = plan_with(&samples::stack(), |seen| {
            leave(seen);
            seen.address_checks[0].created -= LEFTOVER_AGE;
        });
        let remove = Step::RemoveAddressChecks(vec!["a".into()]);
        assert!(plan_with(&samples::stack(), leave).in_sync(), "another run may be checking an address");
        assert_eq!(steps(&leftover), std::slice::from_ref(&remove));
        let start = Step::StartContainer(Role::Grafana);
        let stopped = steps(&plan_with(&samples::stack(), |seen| {
            leave(seen);
            container_of(seen, Role::Grafana).run = RunState::Exited(0);
        }));
        assert!(stopped.first() == Some(&remove) && stopped.contains(&start), "{stopped:?}");
        let services = PerRole { influxdb: external("db", 8086), grafana: external("g", 3000) };
        let desired = Stack { services, ..samples::stack() };
        let unused = steps(&plan_with(&desired, leave));
        assert!(unused.first() == Some(&remove) && unused.last() == Some(&Step::RemoveNetwork), "{unused:?}");
    }

    #[test]
    fn a_network_of_the_engine_leaves_another_name_as_the_only_way() {
        for (instance, network, kind) in [
            ("bridge", Network::Foreign, EngineKind::Docker),
            ("default", Network::Free, EngineKind::Docker),
            ("podman", Network::Free, EngineKind::Podman),
        ] {
            let desired = Stack { instance: instance.into(), ..samples::stack() };
            let plan = plan_with(&desired, |seen| {
                (seen.network, seen.engine) = (network, Some(EngineInfo { kind, ..EngineInfo::default() }));
            });
            let (resource, blocker) = plan.blocker().unwrap();
            assert_eq!((resource, blocker.kind), (Resource::Network, BlockReason::Settings));
            assert_eq!(blocker.hint, "choose another name with --name");
        }
    }

    #[test]
    fn without_containers_the_network_is_removed_unless_others_use_it() {
        let services = PerRole { influxdb: external("db", 8086), grafana: external("g", 3000) };
        let desired = Stack { services, ..samples::stack() };
        let unused = steps(&plan_with(&desired, |_| {}));
        assert!(unused.contains(&Step::RemoveNetwork), "{unused:?}");
        let used = plan_with(&desired, |seen| seen.network_users = vec!["a".into(), "b".into()]);
        assert!(!steps(&used).contains(&Step::RemoveNetwork), "{used:?}");
        let kept = used.kept().next().unwrap();
        assert_eq!(kept.why, "network x is kept: the containers a and b are still attached to it");
        assert_eq!(
            kept.hint,
            "`docker network disconnect x a && docker network disconnect x b && docker network rm x` removes it"
        );
    }
}
