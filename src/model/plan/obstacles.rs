//! Objects in Grafana that a plan cannot change or remove: those of other owners, and provisioned ones.

use super::{BlockReason, Blocker, Finding, Kept};
use crate::model::observed::OtherObject;
use crate::model::stack::Stack;

/// The advice to give up the names that follow from the instance's.
pub(super) fn other_name(stack: &Stack) -> String {
    format!("choose a --name other than {}", stack.instance)
}

/// An object of another owner has the place of one of the instance's; `remedies` precede its removal.
pub(super) fn taken(other: &OtherObject, whence: &str, remedies: &str) -> Blocker {
    let OtherObject { what, provisioned, .. } = other;
    let (origin, removal) = if *provisioned {
        (" and which is provisioned from a file", "remove the other one from Grafana's provisioning files")
    } else {
        ("", "rename or delete the other one in Grafana")
    };
    Blocker {
        kind: BlockReason::Foreign,
        why: format!("Grafana already has {what}, which clipper-metrics did not {whence}{origin}"),
        hint: format!("{remedies}{removal}"),
    }
}

pub(super) fn provisioned(why: String, alternative: &str) -> Blocker {
    let hint = format!("update the provisioned file, or {alternative}");
    Blocker { kind: BlockReason::Foreign, why, hint }
}

/// A provisioned object, which Grafana's API cannot remove.
pub(super) fn provided(what: &str, hint: String) -> Finding {
    Finding::Kept(Kept {
        why: format!("Grafana's {what} is provisioned from a file, so it cannot be removed through the API"),
        hint,
    })
}
