//! Plans a restore: the steps before and after loading the data, and the blocker for other commands
//! while a restore is unfinished.

use super::rebuild::private;
use super::{BlockReason, Blocker, ContainerUse, Finding, Item, NewContainer, Plan, Resource, Step, down};
use crate::model::image::ImageRef;
use crate::model::invocation::shell_word;
use crate::model::observed::{ContainerState, Network, Observed, OurContainer, StoredSettings, VolumeState};
use crate::model::role::Role;
use crate::model::stack::{RestoreRecord, Stack};
use crate::model::version::Version;
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

/// Removes the container through which Grafana's volume was restored: its content decides which container Grafana gets,
/// and what must be verified before that is published.
#[must_use]
pub fn remove_restored_grafana() -> Plan {
    Plan::new(vec![item(Resource::Server(Role::Grafana), vec![Step::RemoveContainer(Role::Grafana)])])
}

/// Starts InfluxDB to restore its databases. At the private port, Clipper does not find it and cannot create its database
/// before the data is restored.
#[must_use]
pub fn start_private_influxdb() -> Plan {
    let steps = vec![Step::StartContainer(Role::Influxdb), Step::AwaitAnswer(Role::Influxdb)];
    Plan::new(vec![item(Resource::Server(Role::Influxdb), steps)])
}

/// Creates the objects to restore into. No container is published at an address that other programs use.
#[must_use]
pub fn make_for_restore(stack: &Stack, seen: &Observed) -> Plan {
    let network = match &seen.network {
        Network::Ours(ids) if ids.len() > 1 => vec![Step::RemoveDuplicateNetworks],
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

/// Corrects the version that the restored volume records. The name of an image is removed from it, unless the desired
/// image is of the same repository: an archive can come from anywhere, and a failed upgrade would return to that image.
/// If the volume records no version, because its label did, the archive's is recorded unless the new label has it: an older
/// server must not run on the database, and a tag such as `latest` does not show its version. The record names no image:
/// the volume's label names the one that this restore starts.
#[must_use]
pub(crate) fn correct_version(stack: &Stack, seen: &Observed, archived: Option<Version>) -> Plan {
    let desired = stack.container(Role::Grafana).map(|spec| &spec.config.image);
    let files = seen.grafana.content.as_ref().map(|content| &content.files);
    let [ran, intended] = files.map(|files| [files.ran.as_ref(), files.intended.as_ref()]).unwrap_or_default();
    let is_trusted = |image: &ImageRef| desired.is_some_and(|desired| desired.is_of_same_repository(image));
    let are_trusted =
        [ran, intended].into_iter().flatten().filter_map(RanVersion::image).all(|image| is_trusted(&image));
    // A record below the label's version would stay after the start, as no file is read then.
    let labelled = desired.and_then(ImageRef::version);
    // An intended start may have happened, and a record of what ran would clear it.
    let is_recorded = ran.is_some() || intended.is_some() || labelled >= archived;
    if are_trusted && is_recorded {
        return Plan::new(vec![]);
    }
    let newest = ran.map(|ran| ran.version).or(archived).max(intended.and_then(RanVersion::of_tag)).max(labelled);
    let correct = newest.map_or(Step::ClearIntendedVersion, |version| Step::WriteVersion { version, image: None });
    Plan::new(vec![item(Resource::Server(Role::Grafana), vec![correct])])
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
    use crate::model::last_run::image_to_look_up;
    use crate::model::observed::{Image, RunState, ServerResponse};
    use crate::model::volume_content::{VolumeContent, VolumeFiles};
    use crate::samples::{self, config_of, container_of, plan_with, steps};

    const MANIFEST: Version = Version(12, 4);

    fn stack_of(mut stack: Stack, image: &str) -> Stack {
        config_of(&mut stack, Role::Grafana).image = ImageRef::parse(image).unwrap();
        stack
    }

    #[test]
    fn the_restored_volume_names_a_version_and_no_image_of_another_repository() {
        let correct = |image: &str, ran: &str, intended: &str, archived| {
            let stack = stack_of(samples::stack(), image);
            let [ran, intended] = [ran, intended].map(RanVersion::parse);
            let mut seen = samples::observed();
            let files = VolumeFiles { ran, intended, ..VolumeFiles::default() };
            seen.grafana.content = Some(VolumeContent { files, copy: None });
            steps(&correct_version(&stack, &seen, archived))
        };
        let write = |minor| vec![Step::WriteVersion { version: Version(12, minor), image: None }];
        let clear = || vec![Step::ClearIntendedVersion];
        for (ran, intended, without, with) in [
            ("", "", vec![], write(4)),
            ("12.3", "", vec![], vec![]),
            ("", "12.3 grafana/grafana:12.3.0 c", vec![], vec![]),
            ("12.3 grafana/grafana:12.3.1 c", "12.4 grafana/grafana@sha256:0a c", vec![], vec![]),
            ("12.3 evil/grafana:1 c", "", write(3), write(3)),
            ("12.3 mirror.example/grafana/grafana:12.3 c", "", write(3), write(3)),
            ("12.2 grafana/grafana:12.2.0 c", "12.3 evil/grafana/grafana:12.3 c", write(3), write(3)),
            ("12.3 grafana/grafana:12.3.0 c", "99.0 evil/tool:latest c", write(3), write(3)),
            ("", "99.0 evil/tool:latest c", clear(), write(4)),
            ("", "12.5 evil/grafana/grafana:12.5 c", write(5), write(5)),
        ] {
            let of_tag = "grafana/grafana:latest";
            assert_eq!(correct(of_tag, ran, intended, None), without, "{ran} {intended}");
            assert_eq!(correct(of_tag, ran, intended, Some(MANIFEST)), with, "{ran} {intended}");
        }
        // The label's version is never above the record: after the start, only the label is read.
        for (ran, archived, expected) in [
            ("", Some(MANIFEST), vec![]),
            ("", Some(Version(12, 3)), vec![]),
            ("", Some(Version(12, 5)), write(5)),
            ("12.3 evil/grafana:1 c", None, write(4)),
            ("12.5 evil/grafana:1 c", None, write(5)),
        ] {
            assert_eq!(correct("grafana/grafana:12.4.10", ran, "", archived), expected, "{ran} {archived:?}");
        }
    }

    /// Grafana's container on a restored volume, which records a version or not.
    fn restored(stack: &Stack, seen: &mut Observed, ran: &str, run: RunState) {
        let config = stack.container(Role::Grafana).unwrap().config.clone();
        let (version, image) = (config.image.version(), Some(config.image.to_string()));
        seen.grafana.volume = VolumeState::Ours { user: None, version, image };
        let files = VolumeFiles { ran: RanVersion::parse(ran), ..VolumeFiles::default() };
        seen.grafana.content = Some(VolumeContent { files, copy: None });
        assert_eq!(image_to_look_up(&seen.grafana, &config.image), None, "a login needs no other image");
        let actual = container_of(seen, Role::Grafana);
        (actual.config, actual.run, actual.has_data) = (Some(config), run, Some(true));
        if run != RunState::Running {
            seen.grafana.version = None;
            seen.grafana.response = ServerResponse::Unasked;
        }
    }

    const IMAGES: [&str; 6] = [
        "grafana/grafana:12.4.10",
        "grafana/grafana:13.0.0",
        "mirror.example/grafana/grafana:12.4.10",
        "grafana/grafana:latest",
        "corp/grafana:1",
        // Its tags contradict the version.
        "own.example/team/grafana/grafana:99.0",
    ];

    #[test]
    fn the_recorded_version_changes_no_start_and_no_login() {
        let untried = || {
            let mut stack = samples::stack();
            (stack.login.is_untried, stack.login.supplies_password) = (true, true);
            stack
        };
        for image in IMAGES {
            for stack in [samples::stack(), samples::stack_off_loopback(), untried()] {
                let stack = stack_of(stack, image);
                let planned = |ran| plan_with(&stack, |seen| restored(&stack, seen, ran, RunState::Created));
                let [with, without] = [planned("12.4"), planned("")];
                assert!(with.blocker().is_none(), "{image}: {with:?}");
                // The version that is to migrate the database is recorded before its start.
                let intends = |step: &Step| matches!(step, Step::WriteIntendedVersion { .. });
                let is_newer = stack.container(Role::Grafana).unwrap().config.image.version() > Some(MANIFEST);
                assert_eq!(steps(&with).iter().any(intends), is_newer, "{image}: {with:?}");
                assert_eq!(with.only(|step| !intends(step)), without, "{image}");
            }
        }
    }

    #[test]
    fn an_older_server_on_a_restored_volume_is_detected_whatever_its_tag_says() {
        let planned = |image: &str, runs: &str| {
            let stack = stack_of(samples::stack(), image);
            plan_with(&stack, |seen| {
                restored(&stack, seen, "12.4", RunState::Running);
                seen.grafana.version = Some(runs.into());
            })
        };
        for image in IMAGES {
            let same = planned(image, "12.4.10");
            assert!(same.blocker().is_none() && same.in_sync(), "{image}: {same:?}");
            let newer = planned(image, "13.0.0");
            let image_ref = Some(ImageRef::parse(image).unwrap());
            assert_eq!(steps(&newer), [Step::WriteVersion { version: Version(13, 0), image: image_ref }], "{image}");
            let older = planned(image, "12.3.1");
            let (_, blocker) = older.blocker().expect(image);
            assert_eq!(blocker.kind, BlockReason::Server, "{blocker:?}");
        }
    }

    #[test]
    fn a_later_image_is_compared_with_the_recorded_version() {
        for first in ["grafana/grafana:latest", "grafana/grafana:12.4.10", "corp/grafana:1"] {
            for run in [RunState::Running, RunState::Exited(0), RunState::Created] {
                let planned = |ran: &str, later: &str| {
                    let stack = stack_of(samples::stack(), first);
                    plan_with(&stack_of(samples::stack(), later), |seen| {
                        restored(&stack, seen, ran, run);
                        seen.grafana.version = Some("12.4.10".into()).filter(|_| run == RunState::Running);
                        seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
                    })
                };
                assert!(planned("12.4", "grafana/grafana:12.3.0").blocker().is_some(), "{first} {run:?}");
                // A record of this run's own would name the same version, and the image of the label.
                let own = format!("12.4 {first} 1");
                for later in ["grafana/grafana:12.4.11", "grafana/grafana:13.0.0", "corp/grafana:2", first] {
                    assert_eq!(planned("12.4", later), planned(&own, later), "{first} {later} {run:?}");
                }
            }
        }
    }
}
