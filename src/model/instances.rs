//! Every instance of an engine at one look: what the engine itself knows, without asking any server.
//!
//! Must not know how it was read, nor how it is shown.

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

/// Who serves one role of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// How it is.
    pub state: MemberState,
    /// Where it is, if that is known.
    pub url: Option<String>,
}

/// How a server of an instance is, as far as the engine knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MemberState {
    /// There is no container.
    #[default]
    Absent,
    /// Its container does not run.
    Stopped,
    /// Its container runs.
    Running,
    /// A server that already runs elsewhere.
    External,
}

/// How an instance is as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// All its containers run.
    Running,
    /// Some of its containers run.
    Partly,
    /// It has containers, and none runs.
    Stopped,
    /// Both servers already run elsewhere.
    External,
    /// It has no containers; its data is kept.
    Down,
}

impl Instance {
    /// As a whole.
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
    fn an_instance_is_as_its_containers_are() {
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
