//! A summary of every instance on an engine, made without contacting any server.

use serde::Serialize;

use super::names::names;
use super::role::PerRole;
use super::schema::SchemaVersion;

/// Every instance on the engine.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Instances {
    pub(crate) schema: SchemaVersion,
    pub(crate) instances: Vec<Instance>,
}

/// An instance, as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InstanceDocument"))]
pub(crate) struct Instance {
    pub(crate) name: String,
    /// `running`, `partly_running`, `stopped`, `external` or `down`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub(crate) state: InstanceState,
    #[serde(flatten)]
    pub(crate) servers: PerRole<Member>,
    /// The volumes with its data.
    pub(crate) volumes: Vec<String>,
}

/// A server of an instance, as the engine describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "MemberDocument"))]
pub(crate) struct Member {
    /// `absent`, `stopped`, `running` or `external`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub(crate) state: MemberState,
    pub(crate) url: Option<String>,
}

names! {
    /// A server's state, as far as the engine knows it.
    #[derive(Default)]
    pub(crate) enum MemberState {
        /// The container does not exist.
        #[default]
        Absent = "absent",
        /// The container does not run.
        Stopped = "stopped",
        /// The container runs.
        Running = "running",
        /// An external server.
        External = "external",
    }
}

names! {
    /// The state of an instance as a whole.
    pub(crate) enum InstanceState {
        /// All its containers run.
        Running = "running",
        /// Some of its containers run.
        Partly = "partly_running",
        /// It has containers, and none runs.
        Stopped = "stopped",
        /// Both servers are external.
        External = "external",
        /// It has no containers, but its data is kept.
        Down = "down",
    }
}

impl Instance {
    pub(crate) fn new(name: String, servers: PerRole<Member>, volumes: Vec<String>) -> Self {
        let state = InstanceState::of(&servers.iter().map(|member| member.state).collect::<Vec<_>>());
        Self { name, state, servers, volumes }
    }
}

impl InstanceState {
    fn of(members: &[MemberState]) -> Self {
        let of = |state| members.iter().filter(|member| **member == state).count();
        let (running, external) = (of(MemberState::Running), of(MemberState::External));
        if external == members.len() {
            Self::External
        } else if running > 0 && running + external == members.len() {
            Self::Running
        } else if running > 0 {
            Self::Partly
        } else if of(MemberState::Stopped) > 0 {
            Self::Stopped
        } else {
            Self::Down
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_an_instance_follows_from_its_containers() {
        use MemberState::{Absent, External, Running, Stopped};
        for (influxdb, grafana, state) in [
            (Running, Running, InstanceState::Running),
            (Running, External, InstanceState::Running),
            (Running, Stopped, InstanceState::Partly),
            (Absent, Running, InstanceState::Partly),
            (Stopped, Absent, InstanceState::Stopped),
            (Absent, Absent, InstanceState::Down),
            (External, Absent, InstanceState::Down),
            (External, External, InstanceState::External),
        ] {
            assert_eq!(InstanceState::of(&[influxdb, grafana]), state, "{influxdb:?} {grafana:?}");
        }
    }
}
