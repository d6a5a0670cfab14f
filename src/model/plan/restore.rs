//! Plans a restore: the steps before and after loading the data, and the blocker for other commands
//! while a restore is unfinished.

use super::rebuild::private;
use super::{BlockReason, Blocker, ContainerUse, Finding, Item, NewContainer, Plan, Resource, Step, down};
use crate::model::invocation::shell_word;
use crate::model::observed::{ContainerState, Network, Observed, OurContainer, StoredSettings, VolumeState};
use crate::model::role::Role;
use crate::model::stack::{RestoreRecord, Stack};

/// An unfinished restore of another run, which leaves the instance incomplete.
#[must_use]
pub(crate) fn unfinished(stack: &Stack, seen: &Observed) -> Option<Blocker> {
    let instance = &stack.instance;
    let clear = stack.command("down --volumes");
    let (why, again) = match &seen.settings.restore {
        Some(restore) if stack.restore.as_ref() == Some(restore) => return None,
        Some(restore) => {
            let again = stack.command(&format!("restore {}", shell_word(&restore.archive)));
            let why = format!("the restore of {} into {instance} is not finished", restore.archive);
            (why, format!("`{again}` starts it again, `{clear}` removes it"))
        }
        // Only a restore publishes InfluxDB at a port that the engine chose.
        None if seen.settings.numbers.is_empty() && is_private(seen) => {
            let why = format!("a restore into {instance} may not be finished, and its record is lost");
            (why, format!("remove it with `{clear}`, then restore again"))
        }
        None => return None,
    };
    Some(Blocker { kind: BlockReason::Unfinished, why, hint: again })
}

fn is_private(seen: &Observed) -> bool {
    seen.influxdb.container.ours().is_some_and(OurContainer::is_private)
}

/// Records the restore before anything is created for it.
#[must_use]
pub fn begin_restore(record: &RestoreRecord) -> Plan {
    Plan::new(vec![item(Resource::Settings, vec![Step::BeginRestore(Box::new(record.clone()))])])
}

/// Removes the objects of an unfinished restore. Its record stays, and so does the network, which
/// other containers may use.
#[must_use]
pub fn remove_unfinished(stack: &Stack, seen: &Observed) -> Plan {
    let Plan { items, .. } = down(stack, seen, true);
    let stays = |item: &Item| matches!(item.resource, Resource::Settings | Resource::Network);
    Plan::new(items.into_iter().filter(|item| !stays(item)).collect())
}

/// Creates the objects to restore into. No container is published at an address that other programs use.
#[must_use]
pub fn make_for_restore(stack: &Stack, seen: &Observed) -> Plan {
    let network = match seen.network {
        Network::Ours(_) => vec![],
        Network::Free | Network::Foreign => vec![Step::CreateNetwork],
    };
    let servers = Role::ALL.into_iter().filter_map(|role| {
        let spec = stack.container(role)?;
        let config = private(spec);
        let image_id = spec.pinned_image.clone();
        let new = NewContainer { role, config, image_id, usage: ContainerUse::Restore };
        let steps = vec![Step::CreateVolume(role), Step::CreateContainer(Box::new(new))];
        Some(item(Resource::Server(role), steps))
    });
    Plan::new([item(Resource::Network, network)].into_iter().chain(servers).collect())
}

/// Removes the record after all data is restored.
#[must_use]
pub fn finish_restore(record: &RestoreRecord) -> Plan {
    Plan::new(vec![item(Resource::Settings, vec![Step::FinishRestore(Box::new(record.clone()))])])
}

fn item(resource: Resource, steps: Vec<Step>) -> Item {
    Item::new(resource, Finding::Requested("to be restored"), steps)
}

/// The same engine without the instance, for finding blockers of a new one.
#[must_use]
pub(crate) fn without_instance(seen: &Observed) -> Observed {
    let network = if matches!(seen.network, Network::Ours(_)) { Network::Free } else { seen.network.clone() };
    let mut seen = Observed { network, settings: StoredSettings::default(), ..seen.clone() };
    for role in Role::ALL {
        let server = seen.server_mut(role);
        if matches!(server.container, ContainerState::Ours(_)) {
            server.container = ContainerState::Absent;
        }
        if matches!(server.volume, VolumeState::Ours { .. }) {
            server.volume = VolumeState::Absent;
        }
    }
    seen
}
