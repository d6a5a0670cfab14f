//! Plans a restore: the steps before and after loading the data, and the blocker for other commands
//! while a restore is unfinished.

use super::rebuild::private;
use super::{BlockReason, Blocker, ContainerUse, Finding, Item, NewContainer, Plan, Resource, Step, down};
use crate::model::image::ImageRef;
use crate::model::invocation::shell_word;
use crate::model::observed::{ContainerState, Network, Observed, OurContainer, StoredSettings, VolumeState};
use crate::model::role::Role;
use crate::model::stack::{RestoreRecord, Stack};
use crate::model::volume_content::RanVersion;

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

/// Removes the name of an image from the restored volume, unless the desired image is of the same repository: an archive
/// can come from anywhere, and a failed upgrade would return to that image.
#[must_use]
pub(crate) fn forget_untrusted_image(stack: &Stack, seen: &Observed) -> Plan {
    let desired = stack.container(Role::Grafana).map(|spec| &spec.config.image);
    let files = seen.grafana.content.as_ref().map(|content| &content.files);
    let versions = files.map(|files| [files.ran.as_ref(), files.intended.as_ref()]).unwrap_or_default();
    let is_trusted = |image: &ImageRef| desired.is_some_and(|desired| desired.is_of_same_repository(image));
    if versions.into_iter().flatten().filter_map(RanVersion::image).all(|image| is_trusted(&image)) {
        return Plan::new(vec![]);
    }
    let [ran, intended] = versions;
    let newest = ran.map(|ran| ran.version).max(intended.and_then(RanVersion::of_tag));
    let forget = newest.map_or(Step::ClearIntendedVersion, |version| Step::WriteVersion { version, image: None });
    Plan::new(vec![item(Resource::Server(Role::Grafana), vec![forget])])
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::version::Version;
    use crate::model::volume_content::{VolumeContent, VolumeFiles};
    use crate::samples::{self, config_of, steps};

    #[test]
    fn an_image_of_another_repository_in_the_restored_volume_is_forgotten() {
        let mut stack = samples::stack();
        config_of(&mut stack, Role::Grafana).image = ImageRef::parse("grafana/grafana:12.4.10").unwrap();
        let forget = |ran: &str, intended: &str| {
            let [ran, intended] = [ran, intended].map(RanVersion::parse);
            let mut seen = samples::observed();
            let files = VolumeFiles { ran, intended, ..VolumeFiles::default() };
            seen.grafana.content = Some(VolumeContent { files, copy: None });
            steps(&forget_untrusted_image(&stack, &seen))
        };
        let write = |minor| vec![Step::WriteVersion { version: Version(12, minor), image: None }];
        for (ran, intended, expected) in [
            ("", "", vec![]),
            ("12.3", "", vec![]),
            ("12.3 grafana/grafana:12.3.1 c", "12.4 grafana/grafana@sha256:0a c", vec![]),
            ("12.3 evil/grafana:1 c", "", write(3)),
            ("12.3 mirror.example/grafana/grafana:12.3 c", "", write(3)),
            ("12.2 grafana/grafana:12.2.0 c", "12.3 evil/grafana/grafana:12.3 c", write(3)),
            ("12.3 grafana/grafana:12.3.0 c", "99.0 evil/tool:latest c", write(3)),
            ("", "99.0 evil/tool:latest c", vec![Step::ClearIntendedVersion]),
        ] {
            assert_eq!(forget(ran, intended), expected, "{ran} {intended}");
        }
    }
}
