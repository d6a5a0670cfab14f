//! Objects in Grafana that were made for another address or database: whether they move, and the conflict otherwise.

use super::{BlockReason, Blocker, UpOptions};
use crate::model::container_config::Difference;
use crate::model::invocation::shell_word;
use crate::model::role::Role;
use crate::model::stack::{MadeFor, Stack};

/// Whether objects created for another address or database move to the stack's. In the instance's
/// own container they do: no other instance keeps objects there, so the settings decide. An
/// external Grafana may hold objects of another instance with the same name, so the user has to
/// confirm it.
pub(super) fn moves(stack: &Stack, options: UpOptions) -> bool {
    options.move_data_source || stack.container(Role::Grafana).is_some()
}

/// The target of an object, if it differs from the stack's database.
pub(super) fn elsewhere<'a>(stack: &Stack, made_for: &'a MadeFor) -> Option<&'a MadeFor> {
    (!made_for.is_same(&stack.data_source.made_for())).then_some(made_for)
}

pub(super) fn made_for_difference(stack: &Stack, actual: &MadeFor) -> Difference {
    let desired = stack.data_source.made_for();
    let other = if actual.is_on_another_machine(&desired) { " on another machine" } else { "" };
    Difference { field: Difference::MADE_FOR.into(), actual: format!("{actual}{other}"), desired: desired.to_string() }
}

/// The options that make a run match an object's target.
pub(super) fn options_for(stack: &Stack, made_for: &MadeFor) -> String {
    let mut options = String::new();
    if made_for.url != stack.data_source.url {
        options.push_str(&format!(" --data-source-url {}", shell_word(&made_for.url)));
    }
    if made_for.database != stack.database {
        options.push_str(&format!(" --database {}", shell_word(&made_for.database)));
    }
    options
}

/// An object with the instance's mark was created for another address or database: by this instance
/// before InfluxDB moved, or by another instance with the same name.
pub(super) fn conflict(stack: &Stack, what: &str, made_for: &MadeFor) -> Blocker {
    let desired = stack.data_source.made_for();
    let moved = stack.command("up --move-data-source");
    if made_for.is_on_another_machine(&desired) {
        let distinguish = if made_for.url == desired.url {
            "both machines use that address: set --data-source-url to the address at which Grafana reaches this \
             InfluxDB; "
        } else {
            ""
        };
        return Blocker {
            kind: BlockReason::Conflict,
            why: format!("Grafana's {what} was created for {made_for} on another machine"),
            hint: format!(
                "{distinguish}if the object belongs to another instance, choose a --name other than {}; if it belongs to \
                 this one, `{moved}` updates it",
                stack.instance
            ),
        };
    }
    Blocker {
        kind: BlockReason::Conflict,
        why: format!("Grafana's {what} was created for {made_for}, not for {desired}"),
        hint: format!(
            "if InfluxDB or its database has moved, `{moved}` updates Grafana's objects; `{}` keeps the earlier target; for \
             a second instance, choose a --name other than {}",
            stack.command(&format!("up{}", options_for(stack, made_for))),
            stack.instance
        ),
    }
}
