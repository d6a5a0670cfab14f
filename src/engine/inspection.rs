//! Reads the engine's description of one container.

use std::net::SocketAddr;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum as Status, NetworkSettings};

use super::labels::{self, Labels};
use crate::model::observed::{ContainerState, Network, OurContainer, RunState};
use crate::model::role::Role;

/// A container has just started for this long. In a crash loop, the engine waits up to a minute between attempts.
const RECENT_START: Duration = Duration::from_secs(90);

pub(super) fn run_state(found: &ContainerInspectResponse) -> RunState {
    let state = found.state.clone().unwrap_or_default();
    match state.status {
        Some(Status::RUNNING | Status::STOPPING) => RunState::Running,
        Some(Status::PAUSED) => RunState::Paused,
        Some(Status::RESTARTING) => RunState::Restarting,
        Some(Status::EXITED) => RunState::Exited(state.exit_code.unwrap_or_default()),
        Some(Status::DEAD | Status::REMOVING) => RunState::Dead,
        Some(Status::CREATED | Status::EMPTY) | None => RunState::Created,
    }
}

/// The address at which a role's port is actually published.
pub(super) fn published(settings: &NetworkSettings, role: Role) -> Option<SocketAddr> {
    let bindings = settings.ports.as_ref()?.get(&format!("{}/tcp", role.port()))?.clone()?;
    let binding = bindings.into_iter().next()?;
    let ip = binding.host_ip.filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
    Some(SocketAddr::new(ip.parse().ok()?, binding.host_port?.parse().ok()?))
}

pub(super) fn seen_container(
    instance: &str,
    role: Role,
    network: &Network,
    found: ContainerInspectResponse,
) -> ContainerState {
    let run = run_state(&found);
    let labels: Option<Labels> = found.config.and_then(|config| config.labels);
    let settings = found.network_settings.unwrap_or_default();
    let mode = found.host_config.and_then(|host| host.network_mode).unwrap_or_default();
    let restarts = found.restart_count.unwrap_or_default();
    let started_at = found.state.and_then(|state| state.started_at).filter(|at| !at.starts_with("0001"));
    let has_just_started = started_at.as_deref().is_none_or(|at| has_just_started(at, jiff::Timestamp::now()));
    let stands = !matches!(run, RunState::Running | RunState::Paused);
    let attached = |id: &str| {
        // For a container that does not run, Docker may know only the network id from its creation;
        // Podman shows names instead of ids.
        (stands && mode == id)
            || settings.networks.iter().flatten().any(|(name, endpoint)| {
                endpoint.network_id.as_deref() == Some(id)
                    || (name == instance && endpoint.network_id.as_deref() == Some(instance))
            })
    };
    ContainerState::Ours(Box::new(OurContainer {
        id: found.id.unwrap_or_default(),
        name: found.name.unwrap_or_default().trim_start_matches('/').to_string(),
        name_taken: false,
        config: labels::config(labels.as_ref()),
        image_id: found.image.unwrap_or_default(),
        on_network: network.id().is_some_and(attached),
        run,
        crashes_repeatedly: restarts > 1 && has_just_started,
        has_just_started,
        started_at,
        published: published(&settings, role),
        has_data: None,
    }))
}

/// A time in RFC 3339 format, in nanoseconds since 1970.
pub(crate) fn nanoseconds_of(time: &str) -> Option<i64> {
    i64::try_from(time.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()
}

/// Whether a start, in RFC 3339 format, is so recent that the server may still be starting, or that a container in a
/// crash loop may be about to exit again. A server that started long ago has recovered from its crashes.
fn has_just_started(at: &str, now: jiff::Timestamp) -> bool {
    let at: Option<jiff::Timestamp> = at.parse().ok();
    at.is_none_or(|at| now.duration_since(at).unsigned_abs() < RECENT_START)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_container_that_started_moments_ago_may_be_in_a_crash_loop() {
        let now: jiff::Timestamp = "2026-01-02T00:10:00Z".parse().unwrap();
        for (at, expected) in [
            ("2026-01-02T00:09:30.123456789Z", true),
            ("2026-01-02T01:09:30.5+01:00", true),
            ("2026-01-02T00:05:00Z", false),
            ("2025-12-01T00:09:59Z", false),
            ("not a time", true),
        ] {
            assert_eq!(has_just_started(at, now), expected, "{at}");
        }
        let seen = |restarts: i64, started: jiff::Timestamp| {
            let found = ContainerInspectResponse {
                restart_count: Some(restarts),
                state: Some(bollard::models::ContainerState {
                    started_at: Some(started.to_string()),
                    ..Default::default()
                }),
                ..ContainerInspectResponse::default()
            };
            let seen = seen_container("x", Role::Grafana, &Network::Free, found);
            seen.ours().is_some_and(|actual| actual.crashes_repeatedly)
        };
        let now = jiff::Timestamp::now();
        assert!(seen(5, now) && !seen(1, now), "one crash is not a loop");
        assert!(!seen(5, now - std::time::Duration::from_secs(3600)), "it has recovered");
    }
}
