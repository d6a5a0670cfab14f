//! Translates Podman's answers about containers to Docker's terms.
//!
//! Podman has container states that Docker lacks, and bollard cannot read an answer that contains one.

use std::future::Future;

use bollard::errors::Error as Bollard;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The answer to a request about one or more containers, whatever their states.
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
        // The container has exited, but Podman has not cleaned up its network and mounts yet; after
        // a kill, it never does.
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
    async fn podmans_state_stopped_means_exited() {
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
    async fn other_invalid_answers_stay_errors() {
        for contents in ["", "{", r#"[{"Id": 7}]"#, r#"[{"State": "hovering"}]"#] {
            let error = answer::<Vec<ContainerSummary>>(contents).await.unwrap_err();
            assert!(matches!(error, Bollard::JsonDataError { .. }), "{contents}: {error}");
        }
    }
}
