//! The engine's errors in our words.
//!
//! Knows every wording that was met. Must not know what was being done beyond its name.

use bollard::errors::Error as Bollard;

use super::PATIENCE_SECONDS;
use super::endpoint::Endpoint;
use crate::error::{Error, Refusal, chain, excerpt};

/// Why an engine cannot be used, and what to do about it.
pub(super) fn unreachable(endpoint: &Endpoint, error: &Bollard) -> Error {
    let words = chain(error);
    let lower = words.to_lowercase();
    let socket = endpoint.host.trim_start_matches("unix://");
    let missing = matches!(error, Bollard::SocketNotFoundError(_)) || lower.contains("no such file");
    let (why, hint) = if lower.contains("permission denied") {
        (
            format!("you may not use {socket}"),
            "join the group docker (sudo usermod -aG docker $USER, then sign in anew), or use a rootless engine with -H"
                .to_string(),
        )
    } else if missing {
        (
            format!("there is no {socket}"),
            "start the engine (sudo systemctl start docker), or name another with -H or --context".to_string(),
        )
    } else if matches!(error, Bollard::UnsupportedURISchemeError { .. }) {
        (
            "this kind of address is not known".to_string(),
            "write unix:///path, tcp://host:port or ssh://user@host".to_string(),
        )
    } else if lower.contains("connection refused") {
        (
            "nothing listens there".to_string(),
            "start the engine (sudo systemctl start docker), or name another with -H or --context".to_string(),
        )
    } else if matches!(error, Bollard::JsonDataError { .. }) || lower.contains("deserialize") {
        ("its answer is not a Docker engine's".to_string(), "name another with -H or --context".to_string())
    } else {
        (excerpt(&words, 300), "see that `docker version` works, or name another engine with -H or --context".into())
    };
    let endpoint = format!("{} ({})", endpoint.host, endpoint.chosen_by);
    Error::Engine { endpoint, why, hint }
}

/// The engine's error in our words.
pub(super) fn translate(doing: &str, error: &Bollard) -> Error {
    let (refusal, why) = match error {
        Bollard::DockerResponseServerError { status_code, message } => {
            let text = message.to_lowercase();
            let refusal = if is_about_the_address(&text) {
                Refusal::Address
            } else if text.contains("no space left") {
                Refusal::Disk
            } else if *status_code == 404 {
                Refusal::NotFound
            } else if *status_code == 409
                || ["has active endpoints", "is in use", "is ambiguous"].iter().any(|phrase| text.contains(phrase))
            {
                Refusal::Conflict
            } else {
                Refusal::Other
            };
            (refusal, excerpt(message, 400))
        }
        Bollard::JsonDataError { .. } | Bollard::JsonSerdeError { .. } => {
            (Refusal::Other, "the engine's answer cannot be understood".into())
        }
        Bollard::RequestTimeoutError => (Refusal::Gone, format!("no answer from the engine for {PATIENCE_SECONDS} s")),
        other => (Refusal::Gone, excerpt(&chain(other), 300)),
    };
    Error::Docker { doing: doing.into(), why, refusal }
}

/// Every wording that engines have for "this address cannot be had".
fn is_about_the_address(lower: &str) -> bool {
    [
        "port is already allocated",
        "address already in use",
        "cannot assign requested address",
        "ports are not available",
    ]
    .iter()
    .any(|phrase| lower.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wording_about_addresses_is_known() {
        for words in [
            "driver failed programming external connectivity on endpoint x (1): Bind for 127.0.0.1:1 failed: port is already allocated",
            "failed to set up container networking: driver failed programming external connectivity: Bind for 0.0.0.0:1 failed: port is already allocated",
            "Error starting userland proxy: listen tcp4 127.0.0.1:1: bind: address already in use",
            "listen tcp4 192.0.2.7:1: bind: cannot assign requested address",
            "Ports are not available: exposing port TCP 127.0.0.1:1: forbidden by its access permissions",
        ] {
            let error = Bollard::DockerResponseServerError { status_code: 500, message: words.into() };
            assert!(matches!(translate("start", &error), Error::Docker { refusal: Refusal::Address, .. }), "{words}");
        }
    }
}
