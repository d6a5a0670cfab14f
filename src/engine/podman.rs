//! Podman's answers about containers, in Docker's words.
//!
//! It has states of a container that Docker does not have, and bollard reads nothing of an answer with one of those.
//! Must not know what was asked, or why.

use std::future::Future;

use bollard::errors::Error as Bollard;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The answer of a request about one container or about many, whatever states they are in.
pub(super) async fn readable<T: DeserializeOwned>(
    request: impl Future<Output = Result<T, Bollard>>,
) -> Result<T, Bollard> {
    request.await.or_else(|error| match &error {
        Bollard::JsonDataError { contents, .. } => read(contents).ok_or(error),
        _ => Err(error),
    })
}

fn read<T: DeserializeOwned>(contents: &str) -> Option<T> {
    let mut answer: Value = serde_json::from_str(contents).ok()?;
    match &mut answer {
        Value::Array(list) => list.iter_mut().filter_map(|one| one.get_mut("State")).for_each(put_in_docker_words),
        one => one.pointer_mut("/State/Status").into_iter().for_each(put_in_docker_words),
    }
    serde_json::from_value(answer).ok()
}

/// Podman's states: `libpod/define/containerstate.go`.
fn put_in_docker_words(state: &mut Value) {
    let docker = match state.as_str() {
        // It has ended, and Podman has not taken down its network and mounts yet; if that was killed, it never does.
        Some("stopped") => "exited",
        Some("configured" | "initialized") => "created",
        Some("unknown") => "dead",
        _ => return,
    };
    *state = docker.into();
}

#[cfg(test)]
mod tests {
    use bollard::models::{
        ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum,
    };

    use super::*;

    async fn answer<T: DeserializeOwned>(contents: &str) -> Result<T, Bollard> {
        let column = 1;
        let error = Bollard::JsonDataError { message: "unknown variant".into(), contents: contents.into(), column };
        readable(async { Err(error) }).await
    }

    #[tokio::test]
    async fn a_container_that_podman_calls_stopped_has_ended() {
        let list: Vec<ContainerSummary> =
            answer(r#"[{"Id": "a", "State": "stopped"}, {"Id": "b", "State": "running"}]"#).await.unwrap();
        let states: Vec<_> = list.into_iter().filter_map(|one| one.state).collect();
        assert_eq!(states, [ContainerSummaryStateEnum::EXITED, ContainerSummaryStateEnum::RUNNING]);
        let one: ContainerInspectResponse =
            answer(r#"{"Id": "a", "State": {"Status": "stopped", "ExitCode": 137}}"#).await.unwrap();
        let state = one.state.unwrap();
        assert_eq!((state.status, state.exit_code), (Some(ContainerStateStatusEnum::EXITED), Some(137)));
    }

    #[tokio::test]
    async fn what_is_wrong_otherwise_stays_an_error() {
        for contents in ["", "{", r#"[{"Id": 7}]"#, r#"[{"State": "hovering"}]"#] {
            let error = answer::<Vec<ContainerSummary>>(contents).await.unwrap_err();
            assert!(matches!(error, Bollard::JsonDataError { .. }), "{contents}: {error}");
        }
    }
}
