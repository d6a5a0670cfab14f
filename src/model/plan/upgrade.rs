//! Plans changes of Grafana's image: which version may start on a volume, what is recorded before it does, and
//! whether the database is copied first or restored.

use super::blockers::older_version;
use super::login::is_fresh;
use super::server::ServerContext;
use super::{Blocker, Step};
use crate::model::image::ImageRef;
use crate::model::observed::{OurContainer, RunState};
use crate::model::role::Role;
use crate::model::upgrade::{NamedImage, Upgrade, UpgradeState};
use crate::model::version::Version;

/// The desired image, by the engine's id if it is known.
pub(super) fn desired_image<S>(context: &ServerContext<'_, S>) -> NamedImage {
    let id = context.seen.image.as_ref().map(|image| image.id.clone());
    NamedImage { name: context.spec.config.image.clone(), id }
}

/// The image of the container, if it has run.
fn shown_image(actual: &OurContainer) -> Option<NamedImage> {
    let actual = Some(actual).filter(|actual| actual.run != RunState::Created)?;
    Some(NamedImage { name: actual.config.as_ref()?.image.clone(), id: Some(actual.image_id.clone()) })
}

/// The image that ran last, taken from the container, otherwise from the files in the volume.
fn last_image<S>(context: &ServerContext<'_, S>) -> Option<NamedImage> {
    let seen = context.seen;
    let shown = seen.container.ours().and_then(shown_image);
    let noted = || {
        let label = seen.image_label();
        let last = seen.files().map_or(label.clone(), |files| files.last_image(label));
        let name = ImageRef::parse(&last?).ok()?;
        let previous = context.upgrade.map(|upgrade| &upgrade.from).filter(|from| from.name == name);
        Some(NamedImage { id: previous.and_then(|from| from.id.clone()), name })
    };
    shown.or_else(noted)
}

/// The newest version that may have run on the database.
fn newest_version<S>(context: &ServerContext<'_, S>) -> Option<Version> {
    let label = context.seen.label().filter(|_| !is_fresh(context));
    context.seen.files().map_or(label, |files| files.newest_version(label))
}

/// The steps before a container of `image` starts: the database is copied if another version may migrate it, and the
/// version is recorded.
pub(super) fn before_start<S>(context: &ServerContext<'_, S>, image: &NamedImage) -> Vec<Step> {
    if context.spec.role != Role::Grafana || is_fresh(context) {
        return vec![];
    }
    let mut steps = protect(context, image);
    let name = &image.name;
    let version = name.version().filter(|version| newest_version(context) < Some(*version));
    steps.extend(version.map(|version| Step::WriteIntendedVersion { version, image: name.clone() }));
    steps
}

/// Whether the desired image may migrate the database.
pub(super) fn may_migrate<S>(context: &ServerContext<'_, S>) -> bool {
    last_image(context).is_none_or(|last| desired_image(context).may_differ_from(&last))
}

/// Records the upgrade and copies the database. The copy of an interrupted run is kept, because its new version has
/// not started without it.
fn protect<S>(context: &ServerContext<'_, S>, to: &NamedImage) -> Vec<Step> {
    let pending = context.upgrade.filter(|upgrade| upgrade.state == UpgradeState::Unproven);
    let content = context.seen.content.as_ref();
    let copy = content.and_then(|content| content.copy.as_ref());
    // If the new version had been started, the volume would contain a record of it. If it has not, the database may
    // have changed since it was copied.
    let label = context.seen.label();
    let newest = content.map_or(label, |content| content.files.newest_version(label));
    let has_run = |tried: &NamedImage| tried.name.version().is_none_or(|tried| newest >= Some(tried));
    let record = |upgrade: Upgrade| Step::RecordUpgrade(Box::new(upgrade));
    if let Some(pending) = pending.filter(|pending| has_run(&pending.to) && copy == Some(&pending.id)) {
        // The image's name may belong to another image by now, but the previous database is safe.
        let retagged = Upgrade { to: to.clone(), ..pending.clone() };
        return if pending.to == *to { vec![] } else { vec![record(retagged)] };
    }
    let Some(from) = pending.map(|pending| pending.from.clone()).or_else(|| last_image(context)) else { return vec![] };
    if !to.may_differ_from(&from) {
        return vec![];
    }
    let id = context.time.to_string();
    let upgrade = Upgrade { id: id.clone(), from, to: to.clone(), state: UpgradeState::Unproven };
    // The record comes first, so that a failed copy also leads back to the previous image.
    vec![record(upgrade), Step::CopyDatabase { upgrade: id }]
}

/// Restores the copy that belongs to the pending upgrade, and ends the upgrade.
pub(super) fn restore<S>(context: &ServerContext<'_, S>) -> Vec<Step> {
    let Some(pending) = context.upgrade else { return vec![] };
    let copy = context.seen.content.as_ref().and_then(|content| content.copy.as_ref());
    let state = match pending.state {
        UpgradeState::Refused => Some(UpgradeState::Undone),
        UpgradeState::Postponed => Some(UpgradeState::Ended),
        UpgradeState::Unproven | UpgradeState::Undone | UpgradeState::Ended => None,
    };
    let end = state.map(|state| Box::new(Upgrade { state, ..pending.clone() }));
    let mut steps = Vec::new();
    if copy == Some(&pending.id) {
        steps.push(Step::RestoreDatabase);
    }
    steps.push(Step::EndUpgrade(end));
    steps
}

/// The blocker if the desired image is older than the version that has migrated the database.
pub(super) fn older<S>(context: &ServerContext<'_, S>) -> Option<Blocker> {
    let seen = context.seen;
    let image = &context.spec.config.image;
    // The image that a container was created from is the one that ran, whatever its tag says.
    let ran = seen.container.ours().filter(|actual| actual.run != RunState::Created);
    let made = ran.and_then(|actual| actual.config.as_ref()).map(|made| &made.image);
    let runs = seen.running_version();
    let is_contradicted = made.zip(runs).is_some_and(|(made, runs)| made.is_contradicted(runs, image));
    if made == Some(image) || is_fresh(context) || context.restores() || is_contradicted {
        return None;
    }
    let files = seen.files();
    if let Some(files) = &files {
        let is_contradicted = files.ran.as_ref().is_some_and(|ran| {
            let made = ran.image.as_deref().and_then(|made| ImageRef::parse(made).ok());
            made.is_some_and(|made| made.is_contradicted(ran.version, image))
        });
        if is_contradicted || files.ran_last(image) {
            return None;
        }
    }
    let noted = files.map_or_else(|| seen.recorded(), |files| files.newest_version(seen.label()));
    // If no server reports its version, the tag of the container's image counts.
    let shown = runs.or(made.and_then(ImageRef::version));
    older_version(context.spec, image, noted.into_iter().chain(shown).max()?)
}
