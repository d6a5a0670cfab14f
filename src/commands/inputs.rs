//! Reads and checks the inputs of a run: options, environment, Clipper's file, secrets and certificates.

use std::env::split_paths;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;

use super::context::Context;
use super::options::Options;
use crate::clipper::file::{self, ClipperFile};
use crate::digest::fingerprint;
use crate::engine::endpoint::Endpoint;
use crate::engine::environment::Environment;
use crate::engine::{address_of_this_machine, is_of_this_machine};
use crate::error::{Error, Result};
use crate::grafana;
use crate::model::credentials::CaFile;
use crate::model::invocation::{Invocation, typed_option};
use crate::model::stack::{DesiredUserDashboard, MadeFor, Secret};
use crate::settings::keys::{Setting, Values, file_keys, from_environment};
use crate::settings::{self, Inputs, Secrets};

/// The size of the largest file that is read, and the hint for a larger one, if the path may be correct.
#[derive(Debug, Clone, Copy)]
struct Limit {
    mebibytes: u64,
    hint: Option<&'static str>,
}

/// For secrets, certificates and configuration files.
const SMALL: Limit = Limit { mebibytes: 1, hint: None };
/// As large as Grafana's answer that contains it may be.
const DASHBOARD: Limit =
    Limit { mebibytes: 16, hint: Some("divide it into several dashboards in Grafana, and export each") };

/// The settings that a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SettingsScope {
    Whole,
    /// All settings, and the instance's objects on the engine even if its servers are external.
    Removal,
    /// The instance's name. Remembered settings only affect the output.
    NameOnly,
}

/// Reads all inputs of this run, each once, because a secret may come from a pipe. Invalid values are reported before any
/// request to the engine.
pub(super) fn read_inputs(context: &Context<'_>, scope: SettingsScope) -> Result<Inputs> {
    read_inputs_of(context, scope, None)
}

/// The same for the specified instance, or for the one that the inputs name.
pub(super) fn read_inputs_of(context: &Context<'_>, scope: SettingsScope, instance: Option<&str>) -> Result<Inputs> {
    let environment = context.environment;
    let mut given = context.options.settings.0.clone();
    let mut variables = from_environment(|name| environment.get(name).map(String::from));
    if scope == SettingsScope::Removal {
        // Remaining rules are looked for only if the setting has a value.
        variables.insert(Setting::Alerts, "false".into());
    }
    // Paths are remembered, and the next run may start in another directory.
    for paths in [&mut given, &mut variables].into_iter().filter_map(|values| values.get_mut(&Setting::Dashboard)) {
        *paths = absolute(paths)?;
    }
    // A variable with separators only is empty, and counts as unset.
    variables.retain(|_, value| !value.is_empty());
    let path =
        |setting: Setting| given.get(&setting).or_else(|| variables.get(&setting)).filter(|path| !path.is_empty());
    let file = path(Setting::Config).map(|path| read_clipper_file(Path::new(path))).transpose()?;
    let from_file = |setting: Setting| file.as_ref()?.metrics.get(&setting.key().metrics_key()?);
    let (mut secrets, mut ca_file) = (Secrets::default(), None);
    if scope != SettingsScope::NameOnly {
        let secret = |setting| secret(setting, &given, &variables, from_file(setting), environment);
        secrets = Secrets {
            grafana_password: secret(Setting::GrafanaPasswordFile)?,
            grafana_token: secret(Setting::GrafanaTokenFile)?,
            // Removing objects needs no login to InfluxDB.
            influxdb_password: if scope == SettingsScope::Whole {
                secret(Setting::InfluxdbPasswordFile)?
            } else {
                None
            },
        };
        let from_file = || from_file(Setting::CaFile).filter(|_| !given.contains_key(&Setting::CaFile));
        ca_file = path(Setting::CaFile).or_else(from_file).map(|path| read_ca_file(path)).transpose()?;
    }
    let mut inputs = Inputs {
        options: given,
        environment: variables,
        file,
        secrets,
        ca_file,
        content_hash: grafana::dashboard::content_hash(),
        alerts_hash: grafana::alert_template::content_hash(),
        resolve,
        own_address: address_of_this_machine,
        machine: machine(),
        has_address: is_of_this_machine,
        read_dashboard,
    };
    if let (None, Some(name)) = (inputs.given(Setting::Name), instance) {
        inputs.options.insert(Setting::Name, name.into());
    }
    match scope {
        SettingsScope::NameOnly => settings::check_values(&inputs)?,
        SettingsScope::Whole | SettingsScope::Removal => settings::check(&inputs)?,
    }
    Ok(inputs)
}

/// The options of suggested commands, before any file is read.
pub(crate) fn invocation(context: &Context<'_>) -> Invocation {
    let variables = from_environment(|name| context.environment.get(name).map(String::from));
    let engine = engine_options(context.options, context.used_endpoint().as_ref());
    settings::invocation(&context.options.settings.0, &variables, &engine, false)
}

/// The options that select the engine in suggested commands: as typed, unless the environment chose it.
pub(super) fn engine_options(options: &Options, endpoint: Option<&Endpoint>) -> String {
    match (options.host(), options.context(), endpoint) {
        // With `DOCKER_HOST`, the context `default` means that variable.
        (_, _, Some(endpoint)) if !endpoint.chosen_by.is_option() => endpoint.options(),
        (Some(host), ..) => typed_option("-H", host),
        (None, Some(context), _) => typed_option("--context", context),
        (None, None, _) => String::new(),
    }
}

/// Reads a secret from a file or a variable, never from an option, which process lists show. Precedence is that of every
/// setting; within the environment, the file's variable takes precedence over the secret's.
fn secret(
    setting: Setting,
    options: &Values,
    variables: &Values,
    from_file: Option<&String>,
    environment: &Environment,
) -> Result<Option<Secret>> {
    if let Some(path) = options.get(&setting) {
        return if path.is_empty() { Ok(None) } else { read_secret(path, setting).map(Some) };
    }
    if let Some(path) = variables.get(&setting) {
        return read_secret(path, setting).map(Some);
    }
    let variable = setting.key().secret_variable;
    let direct = variable.and_then(|name| environment.get(name)).map(|text| trimmed(text, setting));
    if let Some(text) = direct.filter(|text| !text.is_empty()) {
        let hint = "set it to the secret alone, on one line";
        let bad = |why| Error::usage(format!("{} {why}", variable.unwrap_or_default()), hint);
        return expect_one_line(text, setting).map_or_else(|why| Err(bad(why)), |()| Ok(Some(Secret::new(text))));
    }
    from_file.map(|path| read_secret(path, setting)).transpose()
}

fn read_secret(path: &str, setting: Setting) -> Result<Secret> {
    let text = read(Path::new(path), "a file that contains only the secret", SMALL)?;
    // Editors on Windows begin a file with a byte-order mark.
    let text = trimmed(text.strip_prefix('\u{feff}').unwrap_or(&text), setting);
    let valid = if text.is_empty() { Err("is empty") } else { expect_one_line(text, setting) };
    valid.map_err(|why| Error::File {
        path: path.into(),
        line: None,
        message: why.into(),
        hint: "write the secret to it, alone on one line".into(),
    })?;
    Ok(Secret::new(text))
}

/// Grafana's file provider trims secrets, so both ends of a secret for Grafana are trimmed. Of other secrets, only the
/// line break at the end is removed.
fn trimmed(text: &str, setting: Setting) -> &str {
    let is_grafana = setting != Setting::InfluxdbPasswordFile;
    if is_grafana { text.trim() } else { text.trim_end_matches(['\n', '\r']) }
}

/// Checks that a secret has one line, and that a token has no spaces, which no HTTP header could carry.
fn expect_one_line(text: &str, setting: Setting) -> Result<(), &'static str> {
    if text.contains(['\n', '\r', '\0']) {
        return Err("contains more than one line");
    }
    let is_token = setting == Setting::GrafanaTokenFile;
    if is_token && text.contains(|c: char| !c.is_ascii_graphic()) {
        return Err("contains a character that no token has");
    }
    Ok(())
}

fn read(path: &Path, what: &str, limit: Limit) -> Result<String> {
    String::from_utf8(read_bytes(path, what, limit)?).map_err(|_| Error::File {
        path: path.to_path_buf(),
        line: None,
        message: "is not text".into(),
        hint: format!("use the path of {what}"),
    })
}

fn read_bytes(path: &Path, what: &str, Limit { mebibytes, hint }: Limit) -> Result<Vec<u8>> {
    let other_path = || format!("use the path of {what}");
    let failed = |message: String, hint: String| Error::File { path: path.to_path_buf(), line: None, message, hint };
    let unreadable = |why: std::io::Error| failed(format!("cannot be read: {why}"), other_path());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let limit = mebibytes << 20;
    let mut limited = std::io::Read::take(file, limit + 1);
    std::io::Read::read_to_end(&mut limited, &mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(failed(format!("is larger than {mebibytes} MiB"), hint.map_or_else(other_path, String::from)));
    }
    Ok(bytes)
}

fn read_clipper_file(path: &Path) -> Result<ClipperFile> {
    let mut found = file::parse(path, &read(path, "Clipper's configuration file with --config", SMALL)?, &file_keys())?;
    // The path of the file may be relative to the current directory.
    if let Some(paths) = Setting::Dashboard.key().metrics_key().and_then(|key| found.metrics.get_mut(&key)) {
        *paths = absolute(paths)?;
    }
    Ok(found)
}

fn read_ca_file(path: &str) -> Result<CaFile> {
    let pem = read_bytes(Path::new(path), "certificates in PEM format with --ca-file", SMALL)?;
    Ok(CaFile { path: path.into(), pem })
}

/// The same paths, made absolute.
fn absolute(paths: &str) -> Result<String> {
    let failed =
        |why: String| Error::usage(format!("{} cannot be used: {why}", Setting::Dashboard.option()), "rename the file");
    let complete = split_paths(paths)
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| {
            Ok(std::path::absolute(&path).map_err(|why| failed(why.to_string()))?.to_string_lossy().into_owned())
        })
        .collect::<Result<Vec<_>>>()?;
    file::join_paths(&complete).map_err(failed)
}

fn read_dashboard(path: &str, instance: &str) -> Result<DesiredUserDashboard> {
    let what = format!("a dashboard that was exported from Grafana with {}", Setting::Dashboard.option());
    // A remembered path may lead to a pipe by now, and reading it would never end.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let message = "is not a regular file".into();
        let hint = format!("use the path of {what}");
        return Err(Error::File { path: path.into(), line: None, message, hint });
    }
    let text = read(Path::new(path), &what, DASHBOARD)?;
    grafana::user_dashboard::parse(path, instance, &text).map_err(|why| Error::File {
        path: path.into(),
        line: None,
        message: why.message,
        hint: why.hint,
    })
}

/// The addresses of a host name, IPv4 first. Given the name itself, the engine would publish at every address.
fn resolve(host: &str) -> Vec<IpAddr> {
    let found = (host, 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    let mut addresses: Vec<IpAddr> = found.into_iter().map(|address| address.ip()).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    addresses
}

/// A fingerprint of the number that identifies a Linux system (machine-id(5)).
fn machine() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = Some(id.trim()).filter(|id| !id.is_empty() && *id != "uninitialized")?;
    Some(machine_fingerprint(MadeFor::MACHINE_ID, id))
}

/// The fingerprint of a number that must not be published itself, with its kind.
pub(super) fn machine_fingerprint(kind: &str, id: &str) -> String {
    format!("{kind}:{}", fingerprint(format!("clipper-metrics {id}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{options::GivenSettings, terminal};
    use crate::output;

    /// The inputs of a run with these options and variables.
    fn read(options: &[(Setting, &str)], variables: &[(&str, &str)], instance: Option<&str>) -> Result<Inputs> {
        let settings = options.iter().map(|(setting, value)| (*setting, (*value).to_string())).collect();
        let options = Options { settings: GivenSettings(settings), ..Options::default() };
        let environment = variables.iter().map(|(name, value)| ((*name).to_string(), *value)).collect();
        let context = Context::new(&options, &environment, output::choose(terminal::json_style()));
        read_inputs_of(&context, SettingsScope::Whole, instance)
    }

    #[test]
    fn a_variable_with_separators_only_counts_as_unset() {
        for value in ["", ":", "::"] {
            let inputs = read(&[], &[("CLIPPER_METRICS_DASHBOARD", value)], None).unwrap();
            assert_eq!(inputs.environment.get(&Setting::Dashboard), None, "{value:?}");
        }
    }

    #[test]
    fn a_secret_has_one_line_and_no_byte_order_mark() {
        let read = |setting: Setting, content: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
            let url = [(Setting::InfluxdbUrl, "http://i.example:8086"), (Setting::InfluxdbUser, "me")];
            let options = [&url[..], &[(setting, file.path().to_str().unwrap())]].concat();
            read(&options, &[], None).map(|inputs| inputs.secrets)
        };
        let (password, token) = (Setting::InfluxdbPasswordFile, Setting::GrafanaTokenFile);
        assert_eq!(read(password, "\u{feff}se cret \r\n").unwrap().influxdb_password.unwrap().reveal(), "se cret ");
        assert_eq!(read(token, "\u{feff}glsa_1\r\n").unwrap().grafana_token.unwrap().reveal(), "glsa_1");
        for (setting, bad) in
            [(password, "a\nb"), (token, "a\nb"), (token, "a b"), (token, "a\u{e9}"), (token, "\u{feff}\n")]
        {
            let error = read(setting, bad).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("contains") || error.contains("is empty"), "{bad:?}: {error}");
        }
        let error = super::tests::read(&[], &[("CLIPPER_METRICS_GRAFANA_TOKEN", "a b")], None).err().unwrap();
        assert_eq!(error.to_string(), "CLIPPER_METRICS_GRAFANA_TOKEN contains a character that no token has");
    }

    #[test]
    fn a_dashboard_is_checked_for_the_instance_that_an_archive_names() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, br#"{"title": "Clipper Metrics (prod)", "uid": "x", "panels": []}"#)
            .unwrap();
        let path = file.path().to_str().unwrap();
        let read = |instance| read(&[(Setting::Dashboard, path)], &[], instance);
        assert!(read(None).is_ok());
        let error = read(Some("prod")).err().unwrap().to_string();
        assert!(error.contains("has the title \"Clipper Metrics (prod)\""), "{error}");
        assert_eq!(read(Some("stage")).unwrap().instance().unwrap(), "stage");
    }

    #[test]
    fn a_dashboard_may_be_larger_than_other_files() {
        let of_size = |mebibytes: usize| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let padding = " ".repeat(mebibytes << 20);
            std::io::Write::write_all(&mut file, br#"{"title": "T", "uid": "x", "panels": []}"#).unwrap();
            std::io::Write::write_all(&mut file, padding.as_bytes()).unwrap();
            file
        };
        let refused = |setting, mebibytes| {
            let file = of_size(mebibytes);
            match read(&[(setting, file.path().to_str().unwrap())], &[], None) {
                Err(Error::File { message, hint, .. }) => Some((message, hint)),
                result => result.err().map(|error| panic!("{error}")),
            }
        };
        assert_eq!(refused(Setting::Dashboard, 3), None);
        let (message, hint) = refused(Setting::Dashboard, 16).unwrap();
        assert_eq!(message, "is larger than 16 MiB");
        assert!(hint.contains("several dashboards"), "{hint}");
        for setting in [Setting::GrafanaPasswordFile, Setting::CaFile, Setting::Config] {
            let (message, hint) = refused(setting, 1).unwrap();
            assert_eq!(message, "is larger than 1 MiB", "{setting:?}");
            assert!(hint.starts_with("use the path of "), "{hint}");
        }
    }
}
