//! The last run on Grafana's volume, according to its container and the volume: the facts for every decision about
//! images and versions.

use super::image::ImageRef;
use super::observed::{ObservedServer, RunState, VolumeState};
use super::upgrade::{NamedImage, Upgrade, UpgradeState};
use super::version::Version;
use super::volume_content::{RanVersion, VolumeFiles};

/// `None` means unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LastRun {
    /// The image, with its id at that time: the container's if it has run, otherwise the one that the volume names.
    pub(crate) image: Option<NamedImage>,
    /// The container's image if it has run, otherwise the one that the volume names, unless that is the desired one.
    /// Without an id if it is not on the engine.
    pub(crate) image_on_engine: Option<NamedImage>,
    /// The version that the volume records.
    pub(crate) recorded: Option<Version>,
    /// The newest version that may have run on the volume.
    pub(crate) newest: Option<Version>,
    /// The same, including the intended start of a container that still waits for it.
    pub(crate) newest_with_intended: Option<Version>,
    /// The container, if it has run, with the version that its server reports.
    container: Evidence,
    /// The record in the volume.
    record: Evidence,
    /// The intended start that may have happened since that record.
    pub(crate) intended: Option<RanVersion>,
}

/// An image, and the version that ran from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Evidence {
    image: Option<ImageRef>,
    version: Option<Version>,
}

impl Evidence {
    /// Whether the version proves that the tag of an image is wrong.
    fn contradicts(&self, tagged: &ImageRef) -> bool {
        self.image.as_ref().zip(self.version).is_some_and(|(made, runs)| made.is_contradicted(runs, tagged))
    }
}

impl LastRun {
    /// Reads it from an observation. The record of an upgrade may contain the id of the previous image.
    #[must_use]
    pub(crate) fn of(seen: &ObservedServer, upgrade: Option<&Upgrade>) -> Self {
        let label = seen.label();
        let files = files(seen);
        let content = seen.content.as_ref().map(|content| &content.files);
        let ran = files.ran.as_ref();
        let made = seen.container.ours().filter(|actual| actual.run != RunState::Created).and_then(|actual| {
            Some(NamedImage { name: actual.config.as_ref()?.image.clone(), id: Some(actual.image_id.clone()) })
        });
        let named = image_in_volume(seen).map(|name| {
            let last = upgrade.map(|upgrade| match upgrade.state {
                UpgradeState::Accepted => &upgrade.to,
                _ => &upgrade.from,
            });
            let previous = last.filter(|last| last.name == name);
            NamedImage { id: previous.and_then(|from| from.id.clone()), name }
        });
        Self {
            container: Evidence { image: made.as_ref().map(|made| made.name.clone()), version: seen.running_version() },
            record: Evidence { image: ran.and_then(RanVersion::image), version: ran.map(|ran| ran.version) },
            recorded: ran.map(|ran| ran.version).or(label),
            newest: newest(&files, label),
            intended: files.intended.clone(),
            newest_with_intended: content.map_or(label, |files| newest(files, label)),
            image_on_engine: made.clone().or_else(|| seen.last_image.clone()),
            image: made.or(named),
        }
    }

    /// Whether the volume records the image, whatever its tag says, and no other may have run since.
    #[must_use]
    pub(crate) fn is_recorded(&self, image: &ImageRef) -> bool {
        self.intended.is_none() && self.record.image.as_ref() == Some(image)
    }

    /// The version that has migrated the database, if the image's tag names an older one.
    #[must_use]
    pub(crate) fn newer_than(&self, image: &ImageRef) -> Option<Version> {
        let Evidence { image: made, version: runs } = &self.container;
        let is_contradicted = self.container.contradicts(image) || self.record.contradicts(image);
        if made.as_ref() == Some(image) || self.is_recorded(image) || is_contradicted {
            return None;
        }
        // If no server reports its version, the tag of the container's image counts.
        let shown = runs.or_else(|| made.as_ref()?.version());
        let named = image.version()?;
        self.newest.max(shown).filter(|newest| named < *newest)
    }
}

/// The last image whose id is looked up on the engine: one that the volume names and that is not desired.
#[must_use]
pub fn image_to_look_up(seen: &ObservedServer, desired: &ImageRef) -> Option<ImageRef> {
    image_in_volume(seen).filter(|name| seen.content.is_some() && name != desired)
}

/// The last image that may have run on the volume, according to its files or its label.
fn image_in_volume(seen: &ObservedServer) -> Option<ImageRef> {
    let files = files(seen);
    let label = match &seen.volume {
        VolumeState::Ours { image, .. } => image.as_deref(),
        VolumeState::Absent | VolumeState::Foreign => None,
    };
    let last = [&files.intended, &files.ran].into_iter().flatten().find_map(|one| one.image.as_deref());
    ImageRef::parse(last.or(label)?).ok()
}

/// The files in Grafana's volume, if they were read. An intended start that did not happen does not count.
fn files(seen: &ObservedServer) -> VolumeFiles {
    let mut files = seen.content.as_ref().map(|content| content.files.clone()).unwrap_or_default();
    let waiting = seen.container.ours().filter(|actual| actual.run == RunState::Created);
    if waiting.is_some_and(|actual| files.is_intended_for(&actual.id)) {
        files.intended = None;
    }
    files
}

/// The newest version in the files. A recorded version is newer than the label.
fn newest(files: &VolumeFiles, label: Option<Version>) -> Option<Version> {
    let ran = files.ran.as_ref().map(|ran| ran.version);
    ran.or(label).max(files.intended.as_ref().and_then(RanVersion::of_tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::ContainerState;
    use crate::model::role::Role;
    use crate::model::volume_content::VolumeContent;
    use crate::samples;

    fn image(name: &str) -> ImageRef {
        ImageRef::parse(name).unwrap()
    }

    fn ran(text: &str) -> Option<RanVersion> {
        RanVersion::parse(text)
    }

    /// A volume that was created for version 12.1, with these files.
    fn on_volume(ran: Option<RanVersion>, intended: Option<RanVersion>) -> ObservedServer {
        let volume =
            VolumeState::Ours { user: None, version: Some(Version(12, 1)), image: Some("grafana/grafana:12.1".into()) };
        let files = VolumeFiles { ran, intended, ..VolumeFiles::default() };
        ObservedServer { volume, content: Some(VolumeContent { files, copy: None }), ..samples::observed_server() }
    }

    /// The same with a container `c` of an image.
    fn with_container(seen: ObservedServer, name: &str, run: RunState) -> ObservedServer {
        let mut actual = samples::our_container(Role::Grafana);
        (actual.id, actual.image_id, actual.run) = ("c".into(), "a".into(), run);
        actual.config.as_mut().unwrap().image = image(name);
        ObservedServer { container: ContainerState::Ours(Box::new(actual)), ..seen }
    }

    #[test]
    fn a_container_that_ran_outranks_the_files_and_they_outrank_the_label() {
        let stored = || on_volume(ran("12.3 grafana/grafana:12.3"), None);
        let last = |seen: &ObservedServer| {
            let image = LastRun::of(seen, None).image.unwrap();
            (image.name.to_string(), image.id)
        };
        let unread = ObservedServer { content: None, ..stored() };
        assert_eq!(last(&unread), ("grafana/grafana:12.1".into(), None));
        assert_eq!(last(&stored()), ("grafana/grafana:12.3".into(), None));
        let tried = on_volume(ran("12.3 grafana/grafana:12.3"), ran("13.0 grafana/grafana:13.0"));
        assert_eq!(last(&tried), ("grafana/grafana:13.0".into(), None));
        let exited = with_container(tried.clone(), "grafana/grafana:12.4", RunState::Exited(1));
        assert_eq!(last(&exited), ("grafana/grafana:12.4".into(), Some("a".into())));
        let created = with_container(tried, "grafana/grafana:12.4", RunState::Created);
        assert_eq!(last(&created), ("grafana/grafana:13.0".into(), None));
        let from = NamedImage { name: image("grafana/grafana:12.3"), id: Some("b".into()) };
        let upgrade = Upgrade { id: "1".into(), to: from.clone(), from, state: UpgradeState::Ended };
        assert_eq!(LastRun::of(&stored(), Some(&upgrade)).image, Some(upgrade.from.clone()));
        let to = NamedImage { id: Some("c".into()), ..upgrade.to.clone() };
        let accepted = Upgrade { to, state: UpgradeState::Accepted, ..upgrade };
        assert_eq!(LastRun::of(&stored(), Some(&accepted)).image, Some(accepted.to));
    }

    #[test]
    fn the_intended_start_of_a_waiting_container_has_not_happened() {
        let intended = on_volume(ran("12.3 grafana/grafana:12.3"), ran("13.0 grafana/grafana:13.0 c"));
        let created = with_container(intended.clone(), "grafana/grafana:13.0", RunState::Created);
        for (seen, newest, is_recorded) in [(intended, Version(13, 0), false), (created, Version(12, 3), true)] {
            let last = LastRun::of(&seen, None);
            assert_eq!((last.newest, last.newest_with_intended), (Some(newest), Some(Version(13, 0))));
            assert_eq!(last.recorded, Some(Version(12, 3)));
            assert_eq!(last.is_recorded(&image("grafana/grafana:12.3")), is_recorded);
        }
    }

    #[test]
    fn an_older_image_is_one_whose_tag_names_a_version_before_the_newest() {
        let newer = |seen: &ObservedServer, name: &str| LastRun::of(seen, None).newer_than(&image(name));
        let label = on_volume(None, None);
        let migrated = on_volume(ran("12.3 grafana/grafana:12.3"), None);
        // The tag of this repository names another version than its server reports.
        let named_otherwise = on_volume(ran("12.3 own/grafana/grafana:9.9"), None);
        // An earlier version of clipper-metrics recorded the intended image by its tag.
        let without_version = on_volume(None, ran("99.0 grafana/grafana:latest"));
        let runs = ObservedServer {
            version: Some("12.4.1".into()),
            ..with_container(label.clone(), "grafana/grafana:latest", RunState::Running)
        };
        let exited = with_container(label.clone(), "grafana/grafana:12.5", RunState::Exited(0));
        for (seen, name, expected) in [
            (&label, "grafana/grafana:12.0", Some(Version(12, 1))),
            (&label, "grafana/grafana:12.1", None),
            (&label, "grafana/grafana:latest", None),
            (&migrated, "grafana/grafana:12.1", Some(Version(12, 3))),
            (&migrated, "grafana/grafana:12.3", None),
            (&named_otherwise, "own/grafana/grafana:9.9", None),
            (&named_otherwise, "own/grafana/grafana:9.8", None),
            (&named_otherwise, "grafana/grafana:12.1", Some(Version(12, 3))),
            (&without_version, "grafana/grafana:12.0", Some(Version(12, 1))),
            (&runs, "grafana/grafana:12.3", Some(Version(12, 4))),
            (&exited, "grafana/grafana:12.4", Some(Version(12, 5))),
            (&exited, "grafana/grafana:12.5", None),
        ] {
            assert_eq!(newer(seen, name), expected, "{name} on {seen:?}");
        }
    }
}
