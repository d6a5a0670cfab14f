//! The names of states, as JSON has them. Human output replaces underscores with spaces.

use crate::model::export::FileChange;
use crate::model::instances::{InstanceState, MemberState};
use crate::model::status::{ObjectState, ServerState};

pub(super) const fn server_state(state: ServerState) -> &'static str {
    match state {
        ServerState::Absent => "absent",
        ServerState::Stopped => "stopped",
        ServerState::Starting => "starting",
        ServerState::Crashing => "crashing",
        ServerState::Answering => "answering",
        ServerState::Refusing => "refusing",
        ServerState::Foreign => "foreign",
        ServerState::Unknown => "unknown",
    }
}

pub(super) const fn file_change(change: FileChange) -> &'static str {
    match change {
        FileChange::Created => "created",
        FileChange::Updated => "updated",
        FileChange::Unchanged => "unchanged",
        FileChange::Removed => "removed",
    }
}

pub(super) const fn object_state(state: ObjectState) -> &'static str {
    match state {
        ObjectState::Missing => "missing",
        ObjectState::InSync => "in_sync",
        ObjectState::Differs => "differs",
        ObjectState::Edited => "edited",
        ObjectState::Foreign => "foreign",
        ObjectState::Unknown => "unknown",
    }
}

pub(super) const fn member_state(state: MemberState) -> &'static str {
    match state {
        MemberState::Absent => "absent",
        MemberState::Stopped => "stopped",
        MemberState::Running => "running",
        MemberState::External => "external",
    }
}

pub(super) const fn instance_state(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Running => "running",
        InstanceState::Partly => "partly_running",
        InstanceState::Stopped => "stopped",
        InstanceState::External => "external",
        InstanceState::Down => "down",
    }
}

/// The words as the JSON Schema lists them.
#[cfg(test)]
pub(super) mod schema {
    use schemars::{Schema, SchemaGenerator, json_schema};

    use super::{ObjectState, ServerState, object_state, server_state};

    pub(crate) fn modes(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": ["container", "external"]})
    }

    pub(crate) fn server_states(_: &mut SchemaGenerator) -> Schema {
        use ServerState::{Absent, Answering, Crashing, Foreign, Refusing, Starting, Stopped, Unknown};
        let all = [Absent, Stopped, Starting, Crashing, Answering, Refusing, Foreign, Unknown].map(server_state);
        json_schema!({"type": "string", "enum": all})
    }

    pub(crate) fn object_states(_: &mut SchemaGenerator) -> Schema {
        use ObjectState::{Differs, Edited, Foreign, InSync, Missing, Unknown};
        let all = [Missing, InSync, Differs, Edited, Foreign, Unknown].map(object_state);
        json_schema!({"type": "string", "enum": all})
    }
}
