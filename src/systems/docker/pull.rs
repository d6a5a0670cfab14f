//! Fetching an image: credentials, progress, time-outs, and what the engine's errors mean.
//!
//! Must not know whose image it is or what it is for.

use std::collections::HashMap;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as Bollard;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use docker_credential::DockerCredential;
use futures_util::StreamExt;

use crate::core::image::ImageRef;
use crate::core::text::excerpt;
use crate::error::{Error, PullFailure, Result};

/// A pull that brings no byte for so long has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How far a pull has come.
#[derive(Debug, Default)]
pub struct Progress {
    layers: HashMap<String, Layer>,
}

#[derive(Debug, Default)]
struct Layer {
    done: bool,
    current: u64,
    total: u64,
}

impl Progress {
    /// Takes note of one message; `true` if it moved anything on.
    pub fn note(&mut self, info: &CreateImageInfo) -> bool {
        let (Some(id), Some(status)) = (&info.id, &info.status) else { return false };
        // The first message of a pull names the tag, not a layer.
        if status.starts_with("Pulling from") {
            return false;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let detail = info.progress_detail.as_ref();
        if status == "Downloading" {
            layer.current = detail.and_then(|detail| number(detail.current)).unwrap_or(layer.current);
            layer.total = detail.and_then(|detail| number(detail.total)).unwrap_or(layer.total).max(layer.current);
        }
        if matches!(status.as_str(), "Download complete" | "Pull complete" | "Already exists" | "Extracting") {
            layer.current = layer.total;
        }
        layer.done |= matches!(status.as_str(), "Pull complete" | "Already exists");
        true
    }

    /// Layers that are complete, and all that are known.
    #[must_use]
    pub fn layers(&self) -> (usize, usize) {
        (self.layers.values().filter(|layer| layer.done).count(), self.layers.len())
    }

    /// Bytes that have arrived, and all that are known.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        self.layers.values().fold((0, 0), |(current, total), layer| {
            (current.saturating_add(layer.current), total.saturating_add(layer.total))
        })
    }
}

/// Pulls an image once. `progress` is called whenever something moved.
pub(super) async fn pull(
    docker: &bollard::Docker,
    image: &ImageRef,
    is_podman: bool,
    mut progress: impl FnMut(&Progress),
) -> Result<()> {
    let mut options = CreateImageOptionsBuilder::default().from_image(&image.name_for_pull());
    if let Some(tag) = image.tag_for_pull() {
        options = options.tag(tag);
    }
    let credentials = credentials(image, is_podman).await;
    let mut messages = docker.create_image(Some(options.build()), None, credentials);
    let mut so_far = Progress::default();
    loop {
        match tokio::time::timeout(STALL_TIMEOUT, messages.next()).await {
            Ok(Some(Ok(info))) => {
                if so_far.note(&info) {
                    progress(&so_far);
                }
            }
            Ok(Some(Err(error))) => {
                // A pull that succeeded can still end in an error of the stream; the engine's
                // list of images is the truth.
                if !matches!(error, Bollard::DockerStreamError { .. } | Bollard::DockerResponseServerError { .. })
                    && docker.inspect_image(&image.to_string()).await.is_ok()
                {
                    return Ok(());
                }
                return Err(failed(image, &error));
            }
            Ok(None) => return Ok(()),
            Err(_) => {
                return Err(Error::Pull {
                    image: image.clone(),
                    why: format!("no data received for {} s", STALL_TIMEOUT.as_secs()),
                    failure: PullFailure::Silent,
                });
            }
        }
    }
}

fn failed(image: &ImageRef, error: &Bollard) -> Error {
    let why = match error {
        Bollard::DockerStreamError { error } => error.clone(),
        Bollard::DockerResponseServerError { message, .. } => message.clone(),
        Bollard::RequestTimeoutError => format!("no data received for {} s", STALL_TIMEOUT.as_secs()),
        other => crate::error::chain(other),
    };
    let failure = match error {
        Bollard::DockerStreamError { .. } | Bollard::DockerResponseServerError { .. } => classify(&why),
        Bollard::RequestTimeoutError => PullFailure::Silent,
        _ => PullFailure::Cut,
    };
    Error::Pull { image: image.clone(), why: excerpt(&why, 300), failure }
}

/// What the engine's message about a failed pull mean.
#[must_use]
pub fn classify(message: &str) -> PullFailure {
    let message = message.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    if says(&["toomanyrequests", "too many requests", "rate limit"]) {
        PullFailure::RateLimited
    } else if says(&["no space left"]) {
        PullFailure::Disk
    } else if says(&["not found", "manifest unknown", "name unknown", "denied", "unauthorized", "no basic auth"]) {
        PullFailure::NotFound
    } else if says(&[
        "unexpected eof",
        "connection reset",
        "short read",
        "broken pipe",
        "filesystem layer verification",
        "digest did not match",
    ]) {
        PullFailure::Cut
    } else if says(&[
        "no such host",
        "connection refused",
        "i/o timeout",
        "server misbehaving",
        "unreachable",
        "deadline exceeded",
        "client.timeout",
        ": eof",
        "503 service",
        "502 bad",
        "500 internal",
    ]) {
        PullFailure::Unreachable
    } else {
        PullFailure::Other
    }
}

/// How long a credential helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
/// Docker Hub, as the Docker client's files call it.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// Docker Hub, as Podman's files call it.
const PODMAN_HUB: &str = "docker.io";

/// What `docker login` or `podman login` keeps for the image's registry. Without any, the pull is
/// anonymous.
async fn credentials(image: &ImageRef, is_podman: bool) -> Option<DockerCredentials> {
    let server = image.registry().unwrap_or(DOCKER_HUB).to_string();
    let for_lookup = image.registry().map(String::from);
    // A helper is a process of its own, which may ask somebody who does not answer.
    let lookup = tokio::task::spawn_blocking(move || stored_credential(for_lookup.as_deref(), is_podman));
    let found = tokio::time::timeout(HELPER_TIMEOUT, lookup).await.ok()?;
    let (username, password, identitytoken) = match found.ok()?? {
        DockerCredential::IdentityToken(token) => (None, None, Some(token)),
        DockerCredential::UsernamePassword(user, password) => (Some(user), Some(password), None),
    };
    Some(DockerCredentials {
        username,
        password,
        identitytoken,
        serveraddress: Some(server),
        ..DockerCredentials::default()
    })
}

/// The stored credential for a registry, Docker Hub where none is named. Podman reads its own files
/// before Docker's (containers-auth.json(5)).
fn stored_credential(registry: Option<&str>, is_podman: bool) -> Option<DockerCredential> {
    let own = || {
        let registry = registry.unwrap_or(PODMAN_HUB);
        docker_credential::get_podman_credential(registry).ok().or_else(|| of_podman_without_session(registry))
    };
    let of_podman = if is_podman { own() } else { None };
    of_podman.or_else(|| docker_credential::get_credential(registry.unwrap_or(DOCKER_HUB)).ok())
}

/// Where there is no XDG_RUNTIME_DIR, as for root and in cron, Podman's file is in a folder named after
/// the user's id, which `docker_credential` does not know.
#[cfg(target_os = "linux")]
fn of_podman_without_session(registry: &str) -> Option<DockerCredential> {
    use std::os::unix::fs::MetadataExt as _;
    let user = std::fs::metadata("/proc/self").ok()?.uid();
    let file = std::fs::File::open(format!("/run/containers/{user}/auth.json")).ok()?;
    docker_credential::get_credential_from_reader(file, registry).ok()
}

#[cfg(not(target_os = "linux"))]
const fn of_podman_without_session(_: &str) -> Option<DockerCredential> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_engines_words_are_understood() {
        for (message, failure) in [
            ("toomanyrequests: You have reached your pull rate limit", PullFailure::RateLimited),
            ("manifest for x:1 not found: manifest unknown", PullFailure::NotFound),
            ("pull access denied for x, repository does not exist", PullFailure::NotFound),
            ("Get \"https://r/v2/\": dial tcp: lookup r: no such host", PullFailure::Unreachable),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                PullFailure::Unreachable,
            ),
            ("write /x: no space left on device", PullFailure::Disk),
            ("unexpected EOF", PullFailure::Cut),
            ("happened during read: Digest did not match, expected sha256:1, got sha256:2", PullFailure::Cut),
            ("who knows", PullFailure::Other),
        ] {
            assert_eq!(classify(message), failure, "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_message_can_upset_the_count(id in ".*", status in ".*", current in any::<i64>(), total in any::<i64>()) {
            let mut progress = Progress::default();
            for status in [status.as_str(), "Downloading", "Extracting", "Pull complete"] {
                progress.note(&CreateImageInfo {
                    id: Some(id.clone()),
                    status: Some(status.into()),
                    progress_detail: Some(bollard::models::ProgressDetail { current: Some(current), total: Some(total) }),
                    ..CreateImageInfo::default()
                });
            }
            prop_assert!(progress.layers().0 <= progress.layers().1);
            prop_assert!(progress.bytes().0 <= progress.bytes().1);
        }
    }
}
