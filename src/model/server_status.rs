//! The status of one server: its state, its address and its objects on the engine.

use serde::Serialize;

use super::address::ServerUrl;
use super::container_config::Difference;
use super::names::names;
use super::observed::{ContainerState, ObservedServer, RunState, ServerResponse, VolumeState};
use super::plan::{Blocker, Finding, Plan, Resource};
use super::role::Role;
use super::stack::{Service, Stack};

names! {
    /// How a role is served.
    pub(crate) enum Mode {
        /// By a managed container.
        Container = "container",
        /// By an external server.
        External = "external",
    }
}

names! {
    pub(crate) enum ServerState {
        /// The container does not exist.
        Absent = "absent",
        /// The container does not run.
        Stopped = "stopped",
        /// It runs but does not answer yet.
        Starting = "starting",
        /// It keeps crashing.
        Crashing = "crashing",
        Answering = "answering",
        /// It rejects the login.
        Refusing = "refusing",
        /// Another object is in its place.
        Foreign = "foreign",
        /// It was not probed, or an external server does not answer.
        Unknown = "unknown",
    }
}

/// InfluxDB or Grafana.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Server"))]
pub(crate) struct ServerStatus {
    #[serde(skip)]
    pub(crate) role: Role,
    pub(crate) mode: Mode,
    pub(crate) state: ServerState,
    /// The reason for its state.
    pub(crate) detail: Option<String>,
    /// The blocker whose reason that is.
    #[serde(skip)]
    pub(crate) blocker: Option<Blocker>,
    pub(crate) url: String,
    /// The address for other hosts; `null` if they cannot reach it, and for an external server.
    pub(crate) public_url: Option<String>,
    pub(crate) version: Option<String>,
    // The image of the existing container, otherwise the desired one.
    pub(crate) image: Option<String>,
    pub(crate) container: Option<ContainerStatus>,
    pub(crate) volume: Option<VolumeStatus>,
    pub(crate) differences: Vec<Difference>,
}

/// The container of a server.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Container"))]
pub(crate) struct ContainerStatus {
    pub(crate) name: String,
    pub(crate) id: String,
    /// RFC 3339.
    pub(crate) started_at: Option<String>,
}

/// The volume with a server's data.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Volume"))]
pub(crate) struct VolumeStatus {
    pub(crate) name: String,
    pub(crate) exists: bool,
}

/// The actual address of a server, while it differs from the desired one.
pub(crate) fn actual_url(stack: &Stack, role: Role, seen: &ObservedServer) -> ServerUrl {
    let actual = seen.container.ours();
    let published = actual.and_then(|actual| actual.published.or(Some(actual.config.as_ref()?.publish)));
    match (stack.container(role), published) {
        (Some(spec), Some(at)) if at != spec.config.publish => spec.url_at(at.ip(), at.port()),
        _ => stack.url(role),
    }
}

pub(super) fn server(stack: &Stack, seen: &ObservedServer, plan: &Plan, role: Role) -> ServerStatus {
    let finding = plan.finding(Resource::Server(role)).unwrap_or(&Finding::Unknown);
    let (state, detail) = server_state(stack, role, seen);
    let spec = stack.container(role);
    let actual = seen.container.ours();
    let url = actual_url(stack, role, seen);
    let image = actual.and_then(|actual| Some(actual.config.as_ref()?.image.to_string()));
    let blocker = match finding {
        Finding::Blocked(blocker) => Some(blocker.clone()),
        _ => None,
    };
    ServerStatus {
        role,
        mode: if spec.is_some() { Mode::Container } else { Mode::External },
        state,
        detail: blocker.as_ref().map(|blocker| blocker.why.clone()).or(detail),
        blocker,
        url: url.to_string(),
        public_url: stack.public_url(role).map(|url| url.to_string()),
        version: seen.version.clone(),
        image: image.or_else(|| spec.map(|spec| spec.config.image.to_string())),
        container: actual.map(|actual| ContainerStatus {
            name: actual.name.clone(),
            id: actual.id.clone(),
            started_at: actual.started_at.clone(),
        }),
        volume: (spec.is_some() || seen.volume != VolumeState::Absent).then(|| VolumeStatus {
            name: role.object_name(&stack.instance),
            exists: matches!(seen.volume, VolumeState::Ours { .. }),
        }),
        differences: finding.differences().to_vec(),
    }
}

fn server_state(stack: &Stack, role: Role, seen: &ObservedServer) -> (ServerState, Option<String>) {
    let service = stack.service(role);
    let crashing = || {
        let logs = stack.command(&format!("logs {role}"));
        (ServerState::Crashing, Some(format!("its container keeps crashing; `{logs}` shows why")))
    };
    if let (Service::Container(_), container) = (service, &seen.container) {
        match container {
            ContainerState::Absent => return (ServerState::Absent, None),
            ContainerState::Foreign => return (ServerState::Foreign, None),
            ContainerState::Duplicated(names) => return (ServerState::Foreign, Some(names.join(", "))),
            ContainerState::Ours(actual) => match actual.run {
                RunState::Running => {}
                RunState::Created => return (ServerState::Stopped, Some("never started".into())),
                RunState::Paused => return (ServerState::Stopped, Some("paused".into())),
                RunState::Restarting => return crashing(),
                RunState::Exited(code) => return (ServerState::Stopped, Some(format!("exit code {code}"))),
                RunState::Dead => return (ServerState::Stopped, Some("dead: the engine failed to remove it".into())),
            },
        }
    }
    let is_container = matches!(service, Service::Container(_));
    match &seen.response {
        ServerResponse::Answering(_) => (ServerState::Answering, None),
        ServerResponse::Refusing(message) => (ServerState::Refusing, Some(message.clone())),
        ServerResponse::Unusable(what) => (ServerState::Foreign, Some(what.clone())),
        ServerResponse::NotTheContainer => (ServerState::Foreign, Some("another server answers at its address".into())),
        ServerResponse::Starting(why) => (ServerState::Starting, Some(why.clone())),
        // A crashing server runs for a moment between two crashes.
        ServerResponse::Silent(_)
            if is_container && seen.container.ours().is_some_and(|actual| actual.crashes_repeatedly) =>
        {
            crashing()
        }
        ServerResponse::Failing(why) => {
            let state = if is_container { ServerState::Starting } else { ServerState::Unknown };
            (state, Some(format!("answering, but clipper-metrics {why}")))
        }
        ServerResponse::Silent(why) if is_container => (ServerState::Starting, Some(why.clone())),
        ServerResponse::Silent(why) => (ServerState::Unknown, Some(why.clone())),
        ServerResponse::Unasked => (ServerState::Unknown, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::{InfluxdbState, OurContainer, ServerContent};
    use crate::samples;

    fn container(change: impl FnOnce(&mut OurContainer), response: ServerResponse<ServerContent>) -> ObservedServer {
        let mut actual = samples::our_container(Role::Influxdb);
        change(&mut actual);
        ObservedServer { container: ContainerState::Ours(Box::new(actual)), response, ..samples::observed_server() }
    }

    fn answering() -> ServerResponse<ServerContent> {
        ServerResponse::Answering(InfluxdbState { has_database: true, retention: None }.into())
    }

    fn silent() -> ServerResponse<ServerContent> {
        ServerResponse::Silent("refused".into())
    }

    #[test]
    fn a_container_that_does_not_run_has_no_server_whatever_answers_at_its_address() {
        let stack = samples::stack();
        for (run, reason) in [
            (RunState::Created, "never started"),
            (RunState::Paused, "paused"),
            (RunState::Exited(137), "exit code 137"),
            (RunState::Dead, "dead: the engine failed to remove it"),
        ] {
            let seen = container(|actual| actual.run = run, answering());
            let (state, why) = server_state(&stack, Role::Influxdb, &seen);
            assert!(matches!(state, ServerState::Stopped), "{run:?}");
            assert_eq!(why.as_deref(), Some(reason));
        }
    }

    #[test]
    fn a_silent_server_is_starting_crashing_or_unknown() {
        let mut stack = samples::stack();
        let state = |stack: &Stack, seen: &ObservedServer| server_state(stack, Role::Influxdb, seen);
        let starting = state(&stack, &container(|_| {}, silent()));
        assert!(matches!(starting, (ServerState::Starting, Some(why)) if why == "refused"));
        let crashes = |actual: &mut OurContainer| actual.crashes_repeatedly = true;
        let crashing = state(&stack, &container(crashes, silent()));
        let restarting = state(&stack, &container(|actual| actual.run = RunState::Restarting, silent()));
        let expected = "its container keeps crashing; `clipper-metrics logs influxdb` shows why";
        for found in [crashing, restarting] {
            assert!(matches!(&found, (ServerState::Crashing, Some(why)) if why == expected), "{:?}", found.1);
        }
        // Between two crashes it may answer.
        let answered = state(&stack, &container(crashes, answering()));
        assert!(matches!(answered, (ServerState::Answering, None)));
        stack.services.influxdb = Service::External { url: ServerUrl::http("db", 8086) };
        assert!(matches!(state(&stack, &container(crashes, silent())), (ServerState::Unknown, Some(_))));
    }

    #[test]
    fn the_url_is_the_one_that_is_published_now() {
        let stack = samples::stack();
        let url = |change: fn(&mut OurContainer)| {
            actual_url(&stack, Role::Influxdb, &container(change, silent())).to_string()
        };
        assert_eq!(url(|_| {}), "http://127.0.0.1:8086");
        assert_eq!(url(|actual| actual.published = Some(([127, 0, 0, 1], 9_000).into())), "http://127.0.0.1:9000");
        assert_eq!(url(|actual| actual.config = None), "http://127.0.0.1:8086");
        assert_eq!(
            url(|actual| actual.config.as_mut().unwrap().publish = ([127, 0, 0, 2], 8_086).into()),
            "http://127.0.0.2:8086"
        );
    }
}
