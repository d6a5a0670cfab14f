//! Finds the engine that `docker` would use: from the option, the environment or the context.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::endpoint::{ChosenBy, DEFAULT, Endpoint};
use super::environment::Environment;
use super::sockets::usual;
use crate::error::{Error, Result};
use crate::model::text::excerpt;

/// The context that exists in every Docker client.
const DEFAULT_CONTEXT: &str = "default";

/// Finds the engine that `docker` would use.
///
/// # Errors
/// If a requested context does not exist or cannot be read.
pub(crate) fn resolve(host: Option<&str>, context: Option<&str>, environment: &Environment) -> Result<Endpoint> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let certificates = certificates(environment);
    let at = |host: &str, chosen_by| Endpoint {
        certificates: certificates.clone(),
        ..Endpoint::new(&complete(host, certificates.is_some()), chosen_by)
    };
    // For Docker, the context `default` means the environment variables.
    let of_variable = set("DOCKER_HOST").map(|host| at(host, ChosenBy::Variable));
    if let Some(name) = context {
        return match of_variable {
            Some(endpoint) if name == DEFAULT_CONTEXT => Ok(endpoint),
            _ => from_context(name, ChosenBy::ContextOption, environment),
        };
    }
    if let Some(host) = host {
        return Ok(at(host, ChosenBy::Option));
    }
    if let Some(endpoint) = of_variable {
        return Ok(endpoint);
    }
    if let Some(name) = set("DOCKER_CONTEXT") {
        return from_context(name, ChosenBy::ContextVariable, environment);
    }
    let current = folder(environment)
        .and_then(|folder| std::fs::read(folder.join("config.json")).ok())
        .and_then(|text| serde_json::from_slice::<ClientConfig>(&text).ok())
        .and_then(|config| config.current_context);
    match current {
        Some(name) if !name.is_empty() && name != DEFAULT_CONTEXT => {
            from_context(&name, ChosenBy::CurrentContext, environment)
        }
        _ => Ok(usual(Path::new(DEFAULT.trim_start_matches("unix://")), environment)),
    }
}

/// The Docker client's `config.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfig {
    current_context: Option<String>,
}

/// The `meta.json` of a Docker context.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextFile {
    name: String,
    #[serde(default)]
    endpoints: ContextEndpoints,
}

#[derive(Default, Deserialize)]
struct ContextEndpoints {
    docker: Option<ContextEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextEndpoint {
    host: Option<String>,
    #[serde(default, rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

/// Completes short forms of an address: `/path`, `host:port`, `host`, `:port`, `unix://`.
fn complete(host: &str, is_tls: bool) -> String {
    if host == "unix://" {
        return DEFAULT.into();
    }
    if host.starts_with('/') {
        return format!("unix://{host}");
    }
    let authority = match host.split_once("://") {
        Some(("tcp", authority)) => authority,
        Some(_) => return host.into(),
        None => host,
    };
    let (authority, path) = authority.find('/').map_or((authority, ""), |at| authority.split_at(at));
    let (name, port) = match authority.rsplit_once(':') {
        // Brackets contain an IPv6 address.
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (authority, if is_tls { "2376" } else { "2375" }),
    };
    let name = if name.is_empty() { "localhost" } else { name };
    format!("tcp://{name}:{port}{path}")
}

/// The folder with the TLS certificates, if the environment enables TLS.
fn certificates(environment: &Environment) -> Option<PathBuf> {
    if !environment.is_set("DOCKER_TLS_VERIFY") {
        return None;
    }
    environment.path("DOCKER_CERT_PATH").map(PathBuf::from).or_else(|| folder(environment))
}

/// The configuration folder of the Docker client.
fn folder(environment: &Environment) -> Option<PathBuf> {
    let config = environment.path("DOCKER_CONFIG").map(PathBuf::from);
    config.or_else(|| environment.path("HOME").map(|home| home.join(".docker")))
}

fn from_context(name: &str, chosen_by: fn(String) -> ChosenBy, environment: &Environment) -> Result<Endpoint> {
    if name == DEFAULT_CONTEXT {
        return Ok(Endpoint::new(DEFAULT, chosen_by(name.into())));
    }
    let chosen_by = chosen_by(name.into());
    let unknown = |why: &str| {
        Error::usage(
            format!("no engine found for {}: {why}", excerpt(&chosen_by.to_string(), 80)),
            "`docker context ls` lists the contexts; -H selects an engine directly",
        )
    };
    let contexts =
        folder(environment).ok_or_else(|| unknown("HOME is not set, so contexts cannot be found"))?.join("contexts");
    let entries = std::fs::read_dir(contexts.join("meta")).map_err(|_| unknown("there are no Docker contexts"))?;
    for entry in entries.flatten() {
        let Ok(text) = std::fs::read(entry.path().join("meta.json")) else { continue };
        let Ok(meta) = serde_json::from_slice::<ContextFile>(&text) else { continue };
        if meta.name != name {
            continue;
        }
        let found = meta.endpoints.docker.and_then(|docker| Some((docker.host?, docker.skip_tls_verify)));
        let (host, skips_verification) =
            found.filter(|(host, _)| !host.is_empty()).ok_or_else(|| unknown("that context has no Docker endpoint"))?;
        let tls = contexts.join("tls").join(entry.file_name()).join("docker");
        // Without access to the files, TLS is used, and reading them fails.
        let exists = |name: &&str| tls.join(name).try_exists().unwrap_or(true);
        let wants_tls = ["ca.pem", "cert.pem", "key.pem"].iter().any(exists);
        let endpoint = Endpoint { certificates: wants_tls.then_some(tls), ..Endpoint::new(&host, chosen_by) };
        return if skips_verification && !wants_tls { verifiable(endpoint) } else { Ok(endpoint) };
    }
    Err(unknown("that Docker context does not exist"))
}

/// Checks that a context that skips the verification of certificates uses none.
fn verifiable(endpoint: Endpoint) -> Result<Endpoint> {
    let is_tcp = ["tcp://", "http://", "https://"].iter().any(|scheme| endpoint.host.starts_with(scheme));
    match endpoint.certificates_command() {
        Some(command) if is_tcp => Err(Error::usage(
            format!(
                "cannot use {}: it sets SkipTLSVerify, but clipper-metrics always verifies the engine's certificate",
                excerpt(&endpoint.chosen_by.to_string(), 80)
            ),
            format!("`{command}` verifies it with the certificate of its authority; -H selects an engine directly"),
        )),
        _ => Ok(endpoint),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

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
    fn the_order_is_option_variable_context_default() {
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
        // As in `docker`, that context means the variable.
        assert_eq!(resolve(None, Some("default"), &all).unwrap().host, "unix:///h");
        let named = resolve(None, Some("default"), &without).unwrap();
        assert_eq!((named.host.as_str(), named.chosen_by.is_this_run()), (DEFAULT, true));
        assert_eq!(named.docker_command("ps"), "docker --context default ps");
    }

    #[test]
    fn a_context_that_skips_the_verification_of_certificates_is_refused() {
        let with = |host: &str| {
            let folder = with_context("far", host);
            let json = serde_json::json!({
                "Name": "far", "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": true}}
            });
            std::fs::write(folder.path().join("contexts/meta/abc/meta.json"), json.to_string()).unwrap();
            resolve(None, None, &environment(&[("DOCKER_CONFIG", folder.path().to_str().unwrap())]))
        };
        let error = with("tcp://far:2376").unwrap_err();
        let hint = error.hint(&crate::model::invocation::Invocation::default());
        assert!(error.to_string().contains("SkipTLSVerify"), "{error}");
        assert!(hint.contains("`docker context update far --docker host=tcp://far:2376,ca=ca.pem,"), "{hint}");
        assert!(!hint.contains("DOCKER_"), "{hint}");
        // Docker uses TLS for no other address.
        assert!(with("ssh://far").is_ok());
    }

    #[test]
    fn a_suggested_command_names_an_engine_that_this_run_chose() {
        let folder = with_context("far", "tcp://far:2376");
        let config = ("DOCKER_CONFIG", folder.path().to_str().unwrap());
        let options = |host: Option<&str>, context: Option<&str>, pairs: &[(&str, &str)]| {
            resolve(host, context, &environment(&[&[config], pairs].concat())).unwrap().options()
        };
        assert_eq!(options(Some("unix:///o"), None, &[]), " -H unix:///o");
        assert_eq!(options(None, None, &[("DOCKER_HOST", "ssh://h")]), " -H ssh://h");
        assert_eq!(options(None, Some("far"), &[]), " --context far");
        assert_eq!(options(None, None, &[("DOCKER_CONTEXT", "far")]), " --context far");
        assert_eq!(options(None, None, &[]), "", "the current context");
    }

    #[cfg(unix)]
    #[test]
    fn a_path_in_the_environment_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt as _;
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join(OsString::from_vec(b"h\xe9".to_vec()));
        std::fs::rename(with_context("far", "tcp://far:2376").keep(), &odd).unwrap();
        let variables = |name: &str| Environment::from_iter([(name.to_string(), odd.clone().into_os_string())]);
        assert_eq!(resolve(None, None, &variables("DOCKER_CONFIG")).unwrap().host, "tcp://far:2376");
        std::fs::rename(&odd, folder.path().join("config")).unwrap();
        std::fs::create_dir(&odd).unwrap();
        std::fs::rename(folder.path().join("config"), odd.join(".docker")).unwrap();
        assert_eq!(resolve(None, None, &variables("HOME")).unwrap().host, "tcp://far:2376");
        assert!(variables("HOME").expect_text(["CLIPPER_METRICS_NAME".into()]).is_ok());
        let error = variables("CLIPPER_METRICS_NAME").expect_text(["CLIPPER_METRICS_NAME".into()]).unwrap_err();
        assert!(error.to_string().contains("CLIPPER_METRICS_NAME"), "{error}");
    }

    #[test]
    fn short_addresses_are_completed_as_docker_does() {
        for (short, long) in [
            ("/run/x.sock", "unix:///run/x.sock"),
            ("unix://", DEFAULT),
            ("box:1", "tcp://box:1"),
            ("tcp://box", "tcp://box:2375"),
            ("127.0.0.1", "tcp://127.0.0.1:2375"),
            (":4243", "tcp://localhost:4243"),
            ("[fd00::1]", "tcp://[fd00::1]:2375"),
            ("tcp://[fd00::1]:5", "tcp://[fd00::1]:5"),
            ("tcp://box:1/below", "tcp://box:1/below"),
            ("ssh://me@box", "ssh://me@box"),
        ] {
            assert_eq!(complete(short, false), long, "{short}");
        }
        assert_eq!(complete("box", true), "tcp://box:2376");
    }
}
