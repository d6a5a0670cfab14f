//! Which engine `docker` would use: option, environment, context.
//!
//! Knows the files and variables of the Docker client. Must not know how an engine is spoken to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::core::invocation::shell_word;
use crate::core::text::excerpt;
use crate::error::{Error, Result};

/// The environment, as it was when the program started.
pub type Environment = BTreeMap<String, String>;

/// Where `docker` looks when nothing says otherwise.
const DEFAULT: &str = "unix:///var/run/docker.sock";

/// Stands before the name of an engine that nobody chose.
const FOUND: &str = "found, ";

/// How an engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address, as `DOCKER_HOST` has it.
    pub host: String,
    /// A folder with `ca.pem`, `cert.pem` and `key.pem`, where TLS is wanted.
    pub certificates: Option<PathBuf>,
    /// Who chose it, for messages.
    pub chosen_by: String,
    /// Other sockets that were tried where nobody chose and the usual one does not exist, with what
    /// came of it.
    pub tried: Vec<String>,
}

impl Endpoint {
    /// A command of the engine's own client, for the same engine.
    pub(super) fn docker_command(&self, arguments: &str) -> String {
        let engine = match self.chosen_by.split_once(' ') {
            // One that was found is not where `docker` looks.
            _ if self.chosen_by == "-H" || self.was_found() => format!(" -H {}", shell_word(&self.host)),
            Some(("--context", name)) => {
                format!(" --context {}", shell_word(name.trim_start_matches('(').trim_end_matches(')')))
            }
            _ => String::new(),
        };
        format!("docker{engine} {arguments}")
    }

    /// Nobody chose it, and it is not where `docker` looks by itself.
    #[must_use]
    pub fn was_found(&self) -> bool {
        self.chosen_by.starts_with(FOUND)
    }

    /// Nobody chose it: it is where `docker` looks by itself.
    pub(super) fn is_default(&self) -> bool {
        self.host == DEFAULT
    }

    /// The engine's own machine, unless it is this one. What is behind ssh is not asked here.
    pub(super) fn other_machine(&self) -> Option<String> {
        let (scheme, rest) = self.host.split_once("://")?;
        if !matches!(scheme, "tcp" | "http" | "https") {
            return None;
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let is_here =
            host.is_empty() || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        (!is_here).then(|| host.to_string())
    }
}

/// The engine that `docker` would use.
///
/// # Errors
/// When a context that was asked for does not exist or cannot be read.
pub fn resolve(host: Option<&str>, context: Option<&str>, environment: &Environment) -> Result<Endpoint> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    if let Some(name) = context {
        return from_context(name, "--context", environment);
    }
    if let Some(host) = host {
        return Ok(Endpoint {
            host: with_scheme(host),
            certificates: certificates(environment),
            chosen_by: "-H".into(),
            tried: Vec::new(),
        });
    }
    if let Some(host) = set("DOCKER_HOST") {
        let certificates = certificates(environment);
        return Ok(Endpoint {
            host: with_scheme(host),
            certificates,
            chosen_by: "DOCKER_HOST".into(),
            tried: Vec::new(),
        });
    }
    if let Some(name) = set("DOCKER_CONTEXT") {
        return from_context(name, "DOCKER_CONTEXT", environment);
    }
    let current = folder(environment)
        .and_then(|folder| std::fs::read(folder.join("config.json")).ok())
        .and_then(|text| serde_json::from_slice::<Value>(&text).ok())
        .and_then(|config| config["currentContext"].as_str().map(String::from));
    match current {
        Some(name) if !name.is_empty() => from_context(&name, "the current Docker context", environment),
        _ => Ok(usual(Path::new(DEFAULT.trim_start_matches("unix://")), environment)),
    }
}

fn default() -> Endpoint {
    Endpoint { host: DEFAULT.into(), certificates: None, chosen_by: "default".into(), tried: Vec::new() }
}

/// The engine that nobody chose: the usual socket, and only where that does not exist the first of the
/// others that answers. One that denies or refuses is an answer.
fn usual(socket: &Path, environment: &Environment) -> Endpoint {
    let mut endpoint = default();
    if std::fs::symlink_metadata(socket).is_ok() {
        return endpoint;
    }
    for (engine, path) in candidates(environment) {
        match connect(&path) {
            Ok(()) => {
                let host = format!("unix://{}", path.display());
                return Endpoint { host, chosen_by: format!("{FOUND}{engine}"), ..endpoint };
            }
            Err(why) => endpoint.tried.push(format!("{} ({engine}): {why}", path.display())),
        }
    }
    endpoint
}

/// Where engines that run without Docker's own service keep their sockets.
fn candidates(environment: &Environment) -> Vec<(&'static str, PathBuf)> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(Path::new);
    let (runtime, home) = (set("XDG_RUNTIME_DIR"), set("HOME"));
    let places = [
        ("rootless Docker", runtime, "docker.sock"),
        ("Docker Desktop", home, ".docker/run/docker.sock"),
        ("Docker Desktop", home, ".docker/desktop/docker.sock"),
        ("colima", home, ".colima/default/docker.sock"),
        ("colima", home, ".config/colima/default/docker.sock"),
        ("OrbStack", home, ".orbstack/run/docker.sock"),
        ("Rancher Desktop", home, ".rd/docker.sock"),
        ("Podman", runtime, "podman/podman.sock"),
        ("Podman", Some(Path::new("/run/podman")), "podman.sock"),
    ];
    places.into_iter().filter_map(|(engine, folder, path)| Some((engine, folder?.join(path)))).collect()
}

/// Whether somebody listens on a socket.
#[cfg(unix)]
fn connect(path: &Path) -> Result<(), String> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Ok(()),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Err("not there".into()),
        Err(why) => {
            let why = why.to_string().to_lowercase();
            Err(why.split(" (os error").next().unwrap_or(&why).to_string())
        }
    }
}

#[cfg(not(unix))]
fn connect(_: &Path) -> Result<(), String> {
    Err("not of this system".into())
}

/// `-H /path` and `-H host:port` are as good as the long forms.
fn with_scheme(host: &str) -> String {
    if host.contains("://") {
        host.to_string()
    } else if host.starts_with('/') {
        format!("unix://{host}")
    } else {
        format!("tcp://{host}")
    }
}

/// The folder with the certificates for TLS, if the environment asks for TLS.
fn certificates(environment: &Environment) -> Option<PathBuf> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    set("DOCKER_TLS_VERIFY")?;
    set("DOCKER_CERT_PATH").map(PathBuf::from).or_else(|| folder(environment))
}

/// The folder of the Docker client's configuration.
fn folder(environment: &Environment) -> Option<PathBuf> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    set("DOCKER_CONFIG").map(PathBuf::from).or_else(|| set("HOME").map(|home| Path::new(home).join(".docker")))
}

fn from_context(name: &str, chosen_by: &str, environment: &Environment) -> Result<Endpoint> {
    if name == "default" {
        return Ok(default());
    }
    let unknown = |why: &str| {
        Error::usage(
            format!("{chosen_by} names the Docker context {:?}, {why}", excerpt(name, 60)),
            "`docker context ls` lists them; -H names an engine directly",
        )
    };
    let contexts = folder(environment).ok_or_else(|| unknown("but there is no HOME"))?.join("contexts");
    let entries = std::fs::read_dir(contexts.join("meta")).map_err(|_| unknown("but there are none"))?;
    for entry in entries.flatten() {
        let Ok(text) = std::fs::read(entry.path().join("meta.json")) else { continue };
        let Ok(meta) = serde_json::from_slice::<Value>(&text) else { continue };
        if meta["Name"] != name {
            continue;
        }
        let host = meta["Endpoints"]["docker"]["Host"].as_str().unwrap_or_default();
        if host.is_empty() {
            return Err(unknown("which has no Docker endpoint"));
        }
        let tls = contexts.join("tls").join(entry.file_name()).join("docker");
        return Ok(Endpoint {
            host: host.to_string(),
            certificates: tls.join("ca.pem").exists().then_some(tls),
            chosen_by: format!("{chosen_by} ({name})"),
            tried: Vec::new(),
        });
    }
    Err(unknown("which does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
    }

    fn with_context(name: &str, host: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let meta = folder.path().join("contexts/meta/abc");
        std::fs::create_dir_all(&meta).unwrap();
        let json = serde_json::json!({"Name": name, "Endpoints": {"docker": {"Host": host}}});
        std::fs::write(meta.join("meta.json"), json.to_string()).unwrap();
        std::fs::write(folder.path().join("config.json"), format!("{{\"currentContext\":\"{name}\"}}")).unwrap();
        folder
    }

    #[test]
    fn option_then_variable_then_context_then_default() {
        let folder = with_context("far", "tcp://far:2376");
        let config = folder.path().to_str().unwrap();
        let all = environment(&[("DOCKER_CONFIG", config), ("DOCKER_HOST", "unix:///h"), ("DOCKER_CONTEXT", "far")]);
        assert_eq!(resolve(Some("/o"), None, &all).unwrap().host, "unix:///o");
        assert_eq!(resolve(None, Some("far"), &all).unwrap().host, "tcp://far:2376");
        assert_eq!(resolve(None, None, &all).unwrap().host, "unix:///h");
        let without = environment(&[("DOCKER_CONFIG", config), ("DOCKER_HOST", "")]);
        assert_eq!(resolve(None, None, &without).unwrap().host, "tcp://far:2376");
        assert!(resolve(None, None, &environment(&[])).unwrap().host.starts_with("unix://"));
        assert!(resolve(None, Some("near"), &all).is_err());
    }

    #[test]
    fn where_nobody_chose_the_first_socket_that_answers_is_used_and_each_failure_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let all = environment(&[("HOME", home), ("XDG_RUNTIME_DIR", home)]);
        let usual_socket = folder.path().join("usual.sock");
        // One that is there and refuses.
        std::fs::create_dir_all(folder.path().join(".colima/default")).unwrap();
        let dead = folder.path().join(".colima/default/docker.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let none = usual(&usual_socket, &all);
        assert_eq!(none.host, DEFAULT);
        let tried = none.tried.join("\n");
        assert!(tried.contains(&format!("{} (colima): connection refused", dead.display())), "{tried}");
        assert!(tried.contains("(rootless Docker): not there") && tried.contains("(OrbStack): not there"), "{tried}");
        // One that answers.
        std::fs::create_dir_all(folder.path().join(".orbstack/run")).unwrap();
        let alive = folder.path().join(".orbstack/run/docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&alive).unwrap();
        let found = usual(&usual_socket, &all);
        assert_eq!(found.host, format!("unix://{}", alive.display()));
        assert_eq!(found.chosen_by, "found, OrbStack");
        // The usual one is used as soon as it exists, whatever it says.
        std::fs::write(&usual_socket, "").unwrap();
        assert_eq!(usual(&usual_socket, &all), default());
    }

    #[test]
    fn only_another_machine_is_elsewhere() {
        let at = |host: &str| Endpoint { host: host.into(), ..default() }.other_machine();
        assert_eq!(at("unix:///var/run/docker.sock"), None);
        assert_eq!(at("tcp://127.0.0.1:2375"), None);
        assert_eq!(at("tcp://[::1]:2375"), None);
        assert_eq!(at("tcp://[fd00::1]:2375").as_deref(), Some("fd00::1"));
    }
}
