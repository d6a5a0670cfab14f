//! The record of an upgrade: a change of Grafana's image to another version, kept until the new
//! version is accepted, so that it can be rolled back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::image::ImageRef;

/// An image in use for longer than this is not rolled back automatically, because users may have
/// stored something.
const RECENT: Duration = Duration::from_secs(3600);

/// A pending upgrade, or one that was rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upgrade {
    /// Identifies the copy of the database that belongs to it: the time of the record, in
    /// microseconds since 1970.
    pub id: String,
    /// The previous image.
    pub from: NamedImage,
    /// The new image.
    pub to: NamedImage,
    pub state: UpgradeState,
}

/// An image by name, and by the engine's id if known: a name can be moved to another image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NamedImage {
    pub name: ImageRef,
    /// The engine's id.
    pub id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpgradeState {
    /// The new image is not accepted yet, and the copy of the database is kept.
    Unproven,
    /// The new image failed. The previous database is restored before any image starts.
    #[serde(rename = "refused")]
    Failed,
    /// The new image could not be tried, for example because the disk was full. The previous database is restored
    /// before any image starts; the next `up` tries the new image again.
    Postponed,
    /// The previous image runs on its database again, and the new one is not tried automatically.
    Undone,
    /// The previous image runs again after a postponed upgrade. The record names it for the next upgrade.
    Ended,
    /// The new image is accepted. The record stays until the copy of the database is deleted.
    Accepted,
}

impl Upgrade {
    /// The setting that contains the image.
    pub(crate) const SETTING: &str = "grafana-image";

    /// Whether the new image has yet to be accepted or rolled back.
    #[must_use]
    pub(crate) fn is_pending(&self) -> bool {
        !matches!(self.state, UpgradeState::Undone | UpgradeState::Ended | UpgradeState::Accepted)
    }

    /// Whether the previous database must be restored before `image` starts.
    #[must_use]
    pub(crate) fn must_roll_back(&self, image: &ImageRef) -> bool {
        match self.state {
            // Another image continues with the current database; the copy stays until an image is accepted.
            UpgradeState::Unproven => self.from.name == *image && self.from.name != self.to.name,
            UpgradeState::Failed | UpgradeState::Postponed => true,
            UpgradeState::Undone | UpgradeState::Ended | UpgradeState::Accepted => false,
        }
    }

    /// Whether `image` was tried and failed.
    #[must_use]
    pub(crate) fn has_failed(&self, image: &ImageRef) -> bool {
        matches!(self.state, UpgradeState::Failed | UpgradeState::Undone) && self.to.name == *image
    }

    /// Whether the record was made so shortly before `now` (in microseconds since 1970) that users
    /// cannot have stored much since. Waiting for servers, which `timeout` limits, does not count.
    #[must_use]
    pub(crate) fn is_recent(&self, now: u128, timeout: Duration) -> bool {
        let age = self.id.parse().ok().and_then(|noted| now.checked_sub(noted));
        age.is_some_and(|age| age <= (RECENT + timeout).as_micros())
    }

    /// The id of the previous image, if only the id distinguishes it from the one that failed.
    #[must_use]
    pub(crate) fn pinned(&self) -> Option<&String> {
        self.from.id.as_ref().filter(|_| self.from.name == self.to.name)
    }
}

impl NamedImage {
    /// Whether the other image may contain another version.
    #[must_use]
    pub(crate) fn may_differ_from(&self, other: &Self) -> bool {
        // The same content in another registry, or with another id of the same engine.
        if self.name.digest().is_some() && self.name.digest() == other.name.digest() {
            return false;
        }
        if self.name == other.name {
            return match self.id.as_ref().zip(other.id.as_ref()) {
                Some((one, other)) => one != other,
                // A tag that names no version can be moved.
                None => self.name.full_version().is_none(),
            };
        }
        match (self.name.full_version(), other.name.full_version()) {
            (Some(one), Some(other)) => one != other,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, id: &str) -> NamedImage {
        NamedImage { name: ImageRef::parse(name).unwrap(), id: (!id.is_empty()).then(|| id.to_string()) }
    }

    #[test]
    fn versions_are_compared_by_tags_and_otherwise_by_ids() {
        let old = image("grafana/grafana:12.4.10", "a");
        for (name, id, differs) in [
            ("grafana/grafana:12.4.10", "a", false),
            ("grafana/grafana:12.4.10", "b", true),
            ("grafana/grafana:12.4.10", "", false),
            ("mirror.example/grafana/grafana:12.4.10", "c", false),
            ("grafana/grafana:12.4.11", "c", true),
            ("grafana/grafana:latest", "c", true),
            ("grafana/grafana:12.4", "", true),
        ] {
            assert_eq!(image(name, id).may_differ_from(&old), differs, "{name} {id}");
        }
        let latest = image("grafana/grafana:latest", "");
        assert!(image("grafana/grafana:latest", "a").may_differ_from(&latest), "an unknown previous image");
        let digest = "grafana/grafana@sha256:1";
        for (name, id) in [(digest, ""), (digest, "b"), ("m.example/grafana/grafana@sha256:1", "")] {
            assert!(!image(digest, "a").may_differ_from(&image(name, id)), "{name}: a digest names one image");
        }
        assert!(image(digest, "a").may_differ_from(&image("grafana/grafana@sha256:2", "")));
    }

    #[test]
    fn an_old_or_undated_record_is_not_recent() {
        let noted = |id: &str| Upgrade {
            id: id.into(),
            from: image("g:1", ""),
            to: image("g:2", ""),
            state: UpgradeState::Unproven,
        };
        let (second, hour) = (1_000_000, 3_600_000_000);
        assert!(noted("5").is_recent(5 + hour + second, Duration::from_secs(1)));
        assert!(!noted("6").is_recent(7 + hour + second, Duration::from_secs(1)));
        assert!(!noted("6").is_recent(5, Duration::ZERO) && !noted("x").is_recent(5, Duration::ZERO));
    }

    #[test]
    fn the_next_image_decides_whether_the_database_is_restored() {
        let upgrade = |state| Upgrade { id: "1".into(), from: image("g:1", "a"), to: image("g:2", "b"), state };
        let (one, two, three) = (image("g:1", "").name, image("g:2", "").name, image("g:3", "").name);
        let unproven = upgrade(UpgradeState::Unproven);
        assert!(unproven.must_roll_back(&one) && !unproven.must_roll_back(&two) && !unproven.must_roll_back(&three));
        let retagged = Upgrade { to: image("g:1", "b"), ..unproven.clone() };
        assert!(!retagged.must_roll_back(&one));
        assert!(!unproven.has_failed(&two));
        let undone = upgrade(UpgradeState::Undone);
        assert!(!undone.must_roll_back(&one) && undone.has_failed(&two) && !undone.has_failed(&three));
        assert!(upgrade(UpgradeState::Failed).must_roll_back(&one));
        let postponed = upgrade(UpgradeState::Postponed);
        assert!(postponed.must_roll_back(&two) && !postponed.has_failed(&two), "its image is tried again");
        for ended in [upgrade(UpgradeState::Ended), upgrade(UpgradeState::Accepted)] {
            assert!(!ended.must_roll_back(&two) && !ended.has_failed(&two) && !ended.is_pending());
        }
    }
}
