//! A summary of every instance on an engine, made without contacting any server.

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its InfluxDB.
    pub influxdb: Member,
    /// Its Grafana.
    pub grafana: Member,
    /// The volumes with its data.
    pub volumes: Vec<String>,
}

/// The server of one role in an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its state.
    pub state: MemberState,
    /// Its address, if known.
    pub url: Option<String>,
}

/// A server's state, as far as the engine knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MemberState {
    /// The container does not exist.
    #[default]
    Absent,
    /// The container does not run.
    Stopped,
    /// The container runs.
    Running,
    /// An external server.
    External,
}

/// The state of an instance as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// All its containers run.
    Running,
    /// Some of its containers run.
    Partly,
    /// It has containers, and none runs.
    Stopped,
    /// Both servers are external.
    External,
    /// It has no containers, but its data is kept.
    Down,
}

impl Instance {
    /// The state of the instance as a whole.
    #[must_use]
    pub fn state(&self) -> InstanceState {
        let members = [self.influxdb.state, self.grafana.state];
        let of = |state| members.iter().filter(|member| **member == state).count();
        let (running, external) = (of(MemberState::Running), of(MemberState::External));
        if external == members.len() {
            InstanceState::External
        } else if running > 0 && running + external == members.len() {
            InstanceState::Running
        } else if running > 0 {
            InstanceState::Partly
        } else if of(MemberState::Stopped) > 0 {
            InstanceState::Stopped
        } else {
            InstanceState::Down
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
            let member = |state| Member { state, url: None };
            let instance =
                Instance { name: "x".into(), influxdb: member(influxdb), grafana: member(grafana), volumes: vec![] };
            assert_eq!(instance.state(), state, "{influxdb:?} {grafana:?}");
        }
    }
}
