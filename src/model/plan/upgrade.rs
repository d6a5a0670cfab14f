//! Plans changes of Grafana's image: which version may start on a volume, what is recorded before it does, and
//! whether the database is copied first or restored.

use super::blockers::migrated;
use super::login::is_fresh;
use super::server::ServerContext;
use super::{Blocker, Step};
use crate::model::role::Role;
use crate::model::upgrade::{NamedImage, Upgrade, UpgradeState};

/// The desired image, by the engine's id if it is known.
pub(super) fn desired_image(context: &ServerContext<'_>) -> NamedImage {
    let id = context.seen.image.as_ref().map(|image| image.id.clone());
    NamedImage { name: context.spec.config.image.clone(), id }
}

/// The steps before a container of `image` starts: the database is copied if another version may migrate it, and the
/// version is recorded.
pub(super) fn before_start(context: &ServerContext<'_>, image: &NamedImage) -> Vec<Step> {
    if context.spec.role != Role::Grafana || is_fresh(context) {
        return vec![];
    }
    let mut steps = protect(context, image);
    let name = &image.name;
    if let Some(version) = name.version().filter(|version| context.last.newest < Some(*version)) {
        // An intended version may be cleared later, together with the one that it replaces.
        let replaced = context.last.intended.as_ref();
        let ran =
            replaced.and_then(|one| Some(Step::WriteVersion { version: one.of_tag()?, image: Some(one.image()?) }));
        steps.extend(ran);
        steps.push(Step::WriteIntendedVersion { version, image: name.clone() });
    }
    steps
}

/// Whether the desired image may migrate the database.
pub(super) fn may_migrate(context: &ServerContext<'_>) -> bool {
    context.last.image.as_ref().is_none_or(|last| desired_image(context).may_differ_from(last))
}

/// Records the upgrade and copies the database. The copy of an interrupted run is kept, because its new version has
/// not started without it.
fn protect(context: &ServerContext<'_>, to: &NamedImage) -> Vec<Step> {
    let pending = context.upgrade.filter(|upgrade| upgrade.state == UpgradeState::Unproven);
    let copy = context.seen.content.as_ref().and_then(|content| content.copy.as_ref());
    // If the new version had been started, the volume would contain a record of it. If it has not, the database may
    // have changed since it was copied.
    let has_run =
        |tried: &NamedImage| tried.name.version().is_none_or(|tried| context.last.newest_with_intended >= Some(tried));
    let record = |upgrade: Upgrade| Step::RecordUpgrade(Box::new(upgrade));
    if let Some(pending) = pending.filter(|pending| has_run(&pending.to) && copy == Some(&pending.id)) {
        // The image's name may belong to another image by now, but the previous database is safe.
        let retagged = Upgrade { to: to.clone(), ..pending.clone() };
        return if pending.to == *to { vec![] } else { vec![record(retagged)] };
    }
    let from = pending.map(|pending| &pending.from).or(context.last.image.as_ref());
    let Some(from) = from.cloned() else { return vec![] };
    if !to.may_differ_from(&from) {
        return vec![];
    }
    let id = context.time.to_string();
    let upgrade = Upgrade { id: id.clone(), from, to: to.clone(), state: UpgradeState::Unproven };
    // The record comes first, so that a failed copy also leads back to the previous image.
    vec![record(upgrade), Step::CopyGrafanaDatabase { upgrade: id }]
}

/// Restores the copy that belongs to the pending upgrade, and ends the upgrade.
pub(super) fn roll_back_database(context: &ServerContext<'_>) -> Vec<Step> {
    let Some(pending) = context.upgrade else { return vec![] };
    let copy = context.seen.content.as_ref().and_then(|content| content.copy.as_ref());
    let state = match pending.state {
        UpgradeState::Failed => Some(UpgradeState::Undone),
        UpgradeState::Postponed => Some(UpgradeState::Ended),
        UpgradeState::Unproven | UpgradeState::Undone | UpgradeState::Ended | UpgradeState::Accepted => None,
    };
    let end = state.map(|state| Box::new(Upgrade { state, ..pending.clone() }));
    let mut steps = Vec::new();
    if copy == Some(&pending.id) {
        if pending.state == UpgradeState::Unproven {
            // Whichever image is specified next, it must not start on a database that is restored only in part.
            let postponed = Upgrade { state: UpgradeState::Postponed, ..pending.clone() };
            steps.push(Step::RecordUpgrade(Box::new(postponed)));
        }
        steps.push(Step::RollBackDatabase);
    }
    // The record ends last, because a run that finds it deletes the copy.
    steps.extend([Step::DeleteDatabaseCopy, Step::EndUpgrade(end)]);
    steps
}

/// The blocker if the desired image is older than the version that has migrated the database.
pub(super) fn older(context: &ServerContext<'_>) -> Option<Blocker> {
    let image = &context.spec.config.image;
    if context.spec.role != Role::Grafana || is_fresh(context) || context.rolls_back() {
        return None;
    }
    let newer = context.last.newer_than(image)?;
    Some(migrated(context.spec, &format!("image {image}"), newer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::image::ImageRef;
    use crate::model::observed::{
        ContainerState, Image, Observed, OurContainer, RunState, ServerResponse, VolumeState,
    };
    use crate::model::plan::Phase;
    use crate::model::stack::Stack;
    use crate::model::version::Version;
    use crate::model::volume_content::{RanVersion, VolumeContent, VolumeFiles};
    use crate::samples::{self, config_of, container_of, plan_with, steps};

    fn image(name: &str) -> ImageRef {
        ImageRef::parse(name).unwrap()
    }

    fn stack(name: &str) -> Stack {
        let mut stack = samples::stack();
        config_of(&mut stack, Role::Grafana).image = image(name);
        stack
    }

    #[test]
    fn an_older_grafana_never_starts_on_the_volume_of_a_newer_one() {
        let desired = stack("grafana/grafana:1.1");
        // The volume's label, the running version, and the image of the existing container each show the version.
        let made_before = plan_with(&desired, |_| {});
        assert!(made_before.blocker().is_some(), "{made_before:?}");
        let after_down = plan_with(&desired, |seen| seen.grafana.container = ContainerState::Absent);
        assert!(after_down.blocker().is_some(), "{after_down:?}");
        let running = plan_with(&desired, |seen| {
            seen.grafana.volume = VolumeState::Ours { user: None, version: None, image: None };
            seen.grafana.version = Some("1.2.3".into());
        });
        assert!(running.blocker().is_some(), "{running:?}");
        // If none of them does, the volume's files do; without them, the container is removed to read the volume.
        let unknown = |content: Option<VolumeContent>| {
            plan_with(&desired, |seen| {
                seen.grafana.version = None;
                seen.grafana.volume = VolumeState::Ours { user: None, version: None, image: None };
                container_of(seen, Role::Grafana).config = None;
                seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
                seen.grafana.content = content;
            })
        };
        let ran = RanVersion { version: Version(1, 2), image: None, container: None };
        let files = VolumeFiles { ran: Some(ran), ..VolumeFiles::default() };
        assert!(unknown(Some(VolumeContent { files, copy: None })).blocker().is_some());
        let unread = unknown(None);
        assert_eq!(unread.until(), Phase::Trial, "{unread:?}");
        assert!(unread.executable().any(|step| *step == Step::RemoveContainer(Role::Grafana)), "{unread:?}");
    }

    /// Whether a plan is blocked for a stack with this image and a container created from another one.
    fn blocked_on(name: &str, made_from: &str, change: impl FnOnce(&mut Observed)) -> bool {
        let plan = plan_with(&stack(name), |seen| {
            seen.grafana.volume = VolumeState::Ours { user: None, version: None, image: Some(made_from.into()) };
            seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
            container_of(seen, Role::Grafana).config.as_mut().unwrap().image = image(made_from);
            change(seen);
        });
        plan.blocker().is_some()
    }

    #[test]
    fn a_tag_names_a_version_only_for_official_images_and_only_if_the_server_does_not() {
        let stopped = |seen: &mut Observed| {
            seen.grafana.version = None;
            seen.grafana.response = ServerResponse::Unasked;
            container_of(seen, Role::Grafana).run = RunState::Exited(0);
        };
        let running = |version: &'static str| move |seen: &mut Observed| seen.grafana.version = Some(version.into());
        // Tags of users' own images follow no rule.
        assert!(!blocked_on("corp/grafana:1.1", "corp/grafana:1.0", running("12.4.10")));
        assert!(!blocked_on("corp/grafana:1.0", "corp/grafana:1.1", stopped));
        assert!(!blocked_on("grafana/grafana:12.4.10", "corp/grafana:2025.11", running("12.4.10")));
        assert!(!blocked_on("grafana/grafana:12.4.10", "corp/grafana:2025.11", stopped));
        assert!(!blocked_on("corp/grafana:1.0", "grafana/grafana:12.4.10", stopped));
        // The version reported by the server counts for every image.
        assert!(blocked_on("grafana/grafana:12.4.10", "corp/grafana:1.0", running("13.2.3")));
        // A tag that the server contradicts does not count.
        assert!(!blocked_on("grafana/grafana:12.4.10", "grafana/grafana:99.0.0", running("12.4.3")));
        let own = ["m.example/team/grafana/grafana:1.1", "m.example/team/grafana/grafana:1.0"];
        assert!(!blocked_on(own[0], own[1], running("12.4.10")), "the server contradicts this repository's tags");
        // Official images in a mirror count as official.
        assert!(blocked_on("grafana/grafana:12.4.10", "m.example/hub/grafana/grafana:13.2.3", stopped));
        assert!(blocked_on("m.example/hub/grafana/grafana:12.4.10", "grafana/grafana:13.2.3", stopped));
    }

    #[test]
    fn another_image_is_recorded_before_it_starts_and_after_its_answer() {
        let desired = stack("grafana/grafana:1.3");
        let plan = steps(&plan_with(&desired, |seen| {
            seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
        }));
        let at = |step: Step| -> Vec<usize> {
            plan.iter().enumerate().filter(|(_, one)| **one == step).map(|(index, _)| index).collect()
        };
        let image = image("grafana/grafana:1.3");
        let recorded = at(Step::WriteIntendedVersion { version: Version(1, 3), image: image.clone() });
        let started = at(Step::StartContainer(Role::Grafana));
        assert_eq!((recorded.len(), started.len()), (1, 1), "{plan:?}");
        assert!(recorded[0] < started[0], "{plan:?}");
        let answers = steps(&plan_with(&desired, |seen| {
            seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
            seen.grafana.version = Some("1.3.0".into());
            let actual = container_of(seen, Role::Grafana);
            (actual.config.as_mut().unwrap().image, actual.image_id) = (image.clone(), "another".into());
            seen.grafana.content = Some(VolumeContent::default());
        }));
        assert_eq!(answers, [Step::WriteVersion { version: Version(1, 3), image: Some(image) }]);
    }

    #[test]
    fn a_start_that_may_have_happened_is_recorded_before_another_is_intended() {
        let [old, new] = ["grafana/grafana:1.2.0", "grafana/grafana:1.3.0"];
        let ran = |version, container: &str| RanVersion {
            version: Version(1, version),
            image: Some(format!("grafana/grafana:1.{version}.0")),
            container: Some(container.into()),
        };
        let start = |intended: &dyn Fn(&OurContainer) -> RanVersion| -> Vec<Step> {
            let plan = plan_with(&stack(new), |seen| {
                let actual = container_of(seen, Role::Grafana);
                actual.run = RunState::Created;
                actual.config.as_mut().unwrap().image = image(new);
                let intended = Some(intended(actual));
                let files = VolumeFiles { ran: Some(ran(1, "gone")), intended, ..VolumeFiles::default() };
                seen.grafana.content = Some(VolumeContent { files, copy: None });
            });
            let writes = |step: &Step| matches!(step, Step::WriteVersion { .. } | Step::WriteIntendedVersion { .. });
            steps(&plan).into_iter().filter(writes).collect()
        };
        let intend = Step::WriteIntendedVersion { version: Version(1, 3), image: image(new) };
        let record = Step::WriteVersion { version: Version(1, 2), image: Some(image(old)) };
        assert_eq!(start(&|_| ran(2, "gone")), [record, intend.clone()]);
        let waiting = start(&|actual| ran(2, &actual.id));
        assert_eq!(waiting, std::slice::from_ref(&intend), "the waiting container was not started");
        let untagged =
            RanVersion { version: Version(99, 0), image: Some("grafana/grafana:latest".into()), container: None };
        assert_eq!(start(&|_| untagged.clone()), [intend], "the tag of that image names no version");
    }
}
