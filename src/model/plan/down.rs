//! Plans `down`: the removal of the instance, and of its objects in an external Grafana.

use super::blockers::{duplicated, managed_server, used_volume};
use super::deregister::deregistration;
use super::network::unneeded_network;
use super::{Finding, Item, Plan, Resource, Step, server};
use crate::model::observed::{ContainerState, Network, Observed, ObservedServer, VolumeState};
use crate::model::role::Role;
use crate::model::stack::Stack;

/// The plan that removes the instance; volumes and settings are kept unless requested.
#[must_use]
pub fn down(stack: &Stack, seen: &Observed, volumes: bool) -> Plan {
    let mut items = Vec::new();
    for role in Role::ALL.into_iter().rev() {
        let ObservedServer { container, volume, volume_users, managed_behind, content, .. } = seen.server(role);
        // A server that the settings call external is kept, so an own container behind its URL must
        // be reported first.
        let own = managed_behind.as_ref().filter(|managed| managed.is_own && managed.runs);
        items.push(match (container, own) {
            (ContainerState::Ours(_), Some(own)) => {
                let url = stack.url(role).to_string();
                let blocker = managed_server(stack, role, &url, own, "down");
                Item::new(Resource::Server(role), blocker.into(), vec![])
            }
            (ContainerState::Duplicated(names), _) => {
                Item::new(Resource::Server(role), duplicated(stack, role, names).into(), vec![])
            }
            (ContainerState::Ours(actual), None) => {
                let steps = server::removal(role, actual, content.as_ref());
                Item::new(Resource::Server(role), Finding::Requested("to be removed"), steps)
            }
            (ContainerState::Absent | ContainerState::Foreign, _) => {
                Item::new(Resource::Server(role), Finding::Missing, vec![])
            }
        });
        if volumes {
            let found = matches!(volume, VolumeState::Ours { .. });
            items.push(if found && !volume_users.is_empty() {
                Item::new(Resource::Volume(role), used_volume(stack, role, volume_users).into(), vec![])
            } else {
                removal(Resource::Volume(role), found, Step::RemoveVolume(role))
            });
        }
    }
    items.push(match seen.network {
        Network::Ours(_) => unneeded_network(stack, seen, "to be removed"),
        Network::Free | Network::Foreign => Item::new(Resource::Network, Finding::Missing, vec![]),
    });
    if volumes {
        items.push(removal(Resource::Settings, !seen.settings.numbers.is_empty(), Step::RemoveSettings));
    }
    Plan::new(items)
}

/// The plan that removes this instance's objects from an external Grafana; `None` if that Grafana
/// does not answer.
#[must_use]
pub fn deregister(stack: &Stack, seen: &Observed) -> Option<Plan> {
    Some(Plan::new(deregistration(stack, seen.grafana_state()?)))
}

fn removal(resource: Resource, found: bool, step: Step) -> Item {
    let finding = if found { Finding::Requested("to be removed") } else { Finding::Missing };
    Item::new(resource, finding, found.then_some(step).into_iter().collect())
}
