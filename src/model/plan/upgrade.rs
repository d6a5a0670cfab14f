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
        // An announcement may be withdrawn later, together with the one that it replaces.
        let replaced = context.last.announced.as_ref();
        let ran = replaced.and_then(|one| Some(Step::WriteVersion { version: one.of_tag()?, image: one.image()? }));
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
        UpgradeState::Refused => Some(UpgradeState::Undone),
        UpgradeState::Postponed => Some(UpgradeState::Ended),
        UpgradeState::Unproven | UpgradeState::Undone | UpgradeState::Ended | UpgradeState::Accepted => None,
    };
    let end = state.map(|state| Box::new(Upgrade { state, ..pending.clone() }));
    let mut steps = Vec::new();
    if copy == Some(&pending.id) {
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
