//! Connects to an engine, and checks once whether it can be used.

use std::rc::Rc;
use std::time::Instant;

use bollard::errors::Error as Bollard;
use bollard::models::SystemVersion;
use tokio::sync::OnceCell;

use super::endpoint::Endpoint;
use super::errors::unreachable;
#[cfg(unix)]
use super::ssh;
use super::{Docker, transport};
use crate::error::{Error, Result};
use crate::model::event::{Event, Listener};
use crate::model::observed::{EngineInfo, EngineKind};
use crate::model::text::excerpt;
use crate::model::version::Version;

/// The oldest supported API version, of Docker 19.03.
const OLDEST_API: Version = Version(1, 40);

impl Docker {
    /// Prepares a client; no request is sent yet, except through ssh.
    ///
    /// # Errors
    /// [`Error::Engine`] if its address is invalid or ssh cannot connect.
    pub(crate) async fn connect(endpoint: Endpoint, listener: Rc<dyn Listener>) -> Result<Self> {
        #[cfg(unix)]
        let ssh = Self::connect_over_ssh(&endpoint, listener.as_ref()).await?;
        #[cfg(unix)]
        let over_ssh = ssh.as_ref().map(ssh::Ssh::client);
        #[cfg(not(unix))]
        let over_ssh = None;
        let client = over_ssh.unwrap_or_else(|| client(&endpoint));
        let client = client.map_err(|error| unreachable(&endpoint, &error))?;
        let client = client.with_request_modifier(transport::url_safe_credentials);
        Ok(Self {
            client,
            endpoint,
            engine: OnceCell::new(),
            changes: tokio_util::task::TaskTracker::new(),
            #[cfg(unix)]
            ssh,
            listener,
        })
    }

    #[cfg(unix)]
    async fn connect_over_ssh(endpoint: &Endpoint, listener: &dyn Listener) -> Result<Option<ssh::Ssh>> {
        if !endpoint.is_ssh() {
            return Ok(None);
        }
        let Some(destination) = ssh::Destination::parse(&endpoint.host) else {
            return Err(Error::usage(
                format!("{} is not an ssh address", endpoint.host),
                "use ssh://user@host:port, or ssh://alias for a host of your ssh configuration",
            ));
        };
        let started = Instant::now();
        let typed = destination.typed();
        let connected = ssh::Ssh::connect(destination).await;
        listener.on(Event::Request {
            system: "ssh",
            request: "connect",
            outcome: if connected.is_ok() { "ok" } else { "failed" },
            time: started.elapsed(),
        });
        connected.map(Some).map_err(|why| Error::Engine {
            endpoint: endpoint.to_string(),
            why,
            hint: format!(
                "check that `ssh {typed} docker version` works without a prompt (use ssh-add for a key with a \
                 passphrase)"
            ),
            install: None,
            is_down: false,
        })
    }

    /// The engine's description of itself, requested once: whether it can be used.
    ///
    /// # Errors
    /// [`Error::Engine`] if it cannot be reached, denies access, or is too old.
    pub(crate) async fn check(&self) -> Result<&EngineInfo> {
        self.engine.get_or_try_init(|| self.request_version()).await
    }

    /// Whether the engine is Podman, whose API differs in details.
    ///
    /// # Errors
    /// The same as [`Self::check`].
    pub(super) async fn is_podman(&self) -> Result<bool> {
        Ok(self.check().await?.kind == EngineKind::Podman)
    }

    async fn request_version(&self) -> Result<EngineInfo> {
        let started = Instant::now();
        let late = || Bollard::RequestTimeoutError;
        let version = Self::bounded(self.client.version(), late).await;
        self.listener.on(Event::Request {
            system: "docker",
            request: "request the version",
            outcome: if version.is_ok() { "ok" } else { "failed" },
            time: started.elapsed(),
        });
        let version = version.map_err(|error| self.explained(unreachable(&self.endpoint, &error), &error))?;
        let text = |value: &Option<String>| value.as_deref().map(|text| excerpt(text, 60)).unwrap_or_default();
        let engine = EngineInfo {
            endpoint: self.endpoint.host.clone(),
            chosen_by: self.endpoint.chosen_by.to_string(),
            version: text(&version.version),
            api_version: text(&version.api_version),
            kind: engine_kind(&version, self.endpoint.other_machine().is_none() && !self.is_over_ssh()),
        };
        let api = Version::parse(&engine.api_version);
        if api.is_none_or(|api| api < OLDEST_API) {
            let why = if api.is_none() {
                "the answer does not come from a Docker engine".to_string()
            } else {
                format!("it supports only API {}, but {OLDEST_API} is required", engine.api_version)
            };
            return Err(Error::Engine {
                endpoint: self.endpoint.to_string(),
                why,
                hint: "use Docker 19.03 or newer, or select another engine with -H or --context".into(),
                install: None,
                is_down: false,
            });
        }
        Ok(engine)
    }
}

/// The kind of an engine, from its version. A local engine on a system other than Linux runs in a
/// virtual machine.
fn engine_kind(version: &SystemVersion, is_here: bool) -> EngineKind {
    let has = |part: &str| version.components.iter().flatten().any(|component| component.name.contains(part));
    let platform = version.platform.as_ref().map(|platform| platform.name.as_str()).unwrap_or_default();
    if has("Podman") {
        EngineKind::Podman
    } else if platform.contains("Desktop") || (is_here && !cfg!(target_os = "linux")) {
        EngineKind::VirtualMachine
    } else if has("rootlesskit") {
        EngineKind::RootlessDocker
    } else {
        EngineKind::Docker
    }
}

/// The connection for an address.
fn client(endpoint: &Endpoint) -> Result<bollard::Docker, Bollard> {
    let host = endpoint.host.as_str();
    let (scheme, address) = host.split_once("://").unwrap_or_default();
    let authority = address.split('/').next().unwrap_or_default();
    match (scheme, endpoint.certificates.as_deref()) {
        #[cfg(unix)]
        ("unix", _) => transport::over_socket(std::path::Path::new(address), 0),
        #[cfg(windows)]
        ("npipe", _) => bollard::Docker::connect_with_named_pipe(
            host,
            super::REQUEST_TIMEOUT.as_secs(),
            bollard::API_DEFAULT_VERSION,
        ),
        ("tcp" | "https", Some(folder)) => {
            transport::over_tls(authority, folder, endpoint.chosen_by.context().is_some())
        }
        ("tcp" | "http", None) => transport::over_tcp(authority),
        _ => Err(Bollard::UnsupportedURISchemeError { uri: host.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_an_engine_follows_from_its_components() {
        let kind = |text: &str| {
            let version: SystemVersion = serde_json::from_str(text).unwrap();
            engine_kind(&version, false)
        };
        assert_eq!(kind(r#"{"Components": [{"Name": "Engine", "Version": "20.10"}]}"#), EngineKind::Docker);
        let rootless =
            r#"{"Components": [{"Name": "Engine", "Version": "28"}, {"Name": "rootlesskit", "Version": "2"}]}"#;
        assert_eq!(kind(rootless), EngineKind::RootlessDocker);
        assert_eq!(kind(r#"{"Components": [{"Name": "Podman Engine", "Version": "4"}]}"#), EngineKind::Podman);
        assert_eq!(kind(r#"{"Platform": {"Name": "Docker Desktop 4.40"}}"#), EngineKind::VirtualMachine);
    }
}
