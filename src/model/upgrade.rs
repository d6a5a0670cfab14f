//! A change of Grafana's image to another version: what is remembered of it until the new one has proved itself,
//! so that it can be undone.
//!
//! Must not know how a database is copied, nor where this is remembered.

use std::time::Duration;

use super::image::ImageRef;

/// An image that is tried for longer than this is not given up by itself: people may have stored something.
const RECENT: Duration = Duration::from_secs(3600);

/// A change that is under way, or one that was undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Tells the copy of the database that belongs to it from others: when it was noted, in microseconds since 1970.
    pub id: String,
    /// The image that ran before.
    pub from: NamedImage,
    /// The image that is tried.
    pub to: NamedImage,
    /// How far it is.
    pub state: UpgradeState,
}

/// An image by its name, and the engine's id of it where that is known: a name can be given to another image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// The reference.
    pub name: ImageRef,
    /// The engine's id.
    pub id: Option<String>,
}

/// How far a change of the image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeState {
    /// The new image has not proved itself: the copy of the database is kept.
    Unproven,
    /// The new image has failed: the database of before comes back before anything starts.
    Refused,
    /// The image of before runs on its database again, and the new one is not tried by itself.
    Undone,
}

impl UpgradeState {
    /// For machines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Refused => "refused",
            Self::Undone => "undone",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Unproven, Self::Refused, Self::Undone].into_iter().find(|state| state.name() == name)
    }
}

impl Upgrade {
    /// The setting that names the image.
    pub const SETTING: &str = "grafana-image";

    /// It is not over: something remains to be proven or to be undone.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.state != UpgradeState::Undone
    }

    /// Before `image` starts, the database of before must come back.
    #[must_use]
    pub fn must_restore(&self, image: &ImageRef) -> bool {
        match self.state {
            // Another image goes on with what is there: the copy stays until one has proved itself.
            UpgradeState::Unproven => self.from.name == *image && self.from.name != self.to.name,
            UpgradeState::Refused => true,
            UpgradeState::Undone => false,
        }
    }

    /// `image` was tried and failed.
    #[must_use]
    pub fn refuses(&self, image: &ImageRef) -> bool {
        matches!(self.state, UpgradeState::Refused | UpgradeState::Undone) && self.to.name == *image
    }

    /// It was noted so shortly before `now` (in microseconds since 1970) that nobody can have stored much since;
    /// waiting for servers, which `timeout` bounds, is no part of that.
    #[must_use]
    pub fn is_recent(&self, now: u128, timeout: Duration) -> bool {
        let age = self.id.parse().ok().and_then(|noted| now.checked_sub(noted));
        age.is_some_and(|age| age <= (RECENT + timeout).as_micros())
    }

    /// The image of before, where only its id still tells it from the one that failed.
    #[must_use]
    pub fn pinned(&self) -> Option<&String> {
        self.from.id.as_ref().filter(|_| self.from.name == self.to.name)
    }
}

impl NamedImage {
    /// The other image may be of another version.
    #[must_use]
    pub fn may_differ_from(&self, other: &Self) -> bool {
        if self.name == other.name {
            return match self.id.as_ref().zip(other.id.as_ref()) {
                Some((one, other)) => one != other,
                // A tag that names no version moves on.
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
    fn another_version_is_told_by_tags_and_where_they_say_nothing_by_ids() {
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
        assert!(image("grafana/grafana:latest", "a").may_differ_from(&latest), "what it was is not known");
    }

    #[test]
    fn what_was_noted_long_ago_or_at_no_time_is_not_recent() {
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
    fn what_must_come_back_depends_on_what_is_to_run() {
        let upgrade = |state| Upgrade { id: "1".into(), from: image("g:1", "a"), to: image("g:2", "b"), state };
        let (one, two, three) = (image("g:1", "").name, image("g:2", "").name, image("g:3", "").name);
        let unproven = upgrade(UpgradeState::Unproven);
        assert!(unproven.must_restore(&one) && !unproven.must_restore(&two) && !unproven.must_restore(&three));
        let retagged = Upgrade { to: image("g:1", "b"), ..unproven.clone() };
        assert!(!retagged.must_restore(&one));
        assert!(!unproven.refuses(&two));
        let undone = upgrade(UpgradeState::Undone);
        assert!(!undone.must_restore(&one) && undone.refuses(&two) && !undone.refuses(&three));
        assert!(upgrade(UpgradeState::Refused).must_restore(&one));
        for state in [UpgradeState::Unproven, UpgradeState::Refused, UpgradeState::Undone] {
            assert_eq!(UpgradeState::parse(state.name()), Some(state));
        }
    }
}
