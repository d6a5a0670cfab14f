//! Exports: describes a stack in files for a system that runs it without clipper-metrics.

mod compose;
pub(crate) mod directory;
mod kubernetes;
mod readme;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::digest::fingerprint;
use crate::error::{Error, Result};
use crate::grafana::provisioning::{GrafanaExport, INFLUXDB_PASSWORD, Provisioning, ProvisioningTarget};
use crate::influxdb;
use crate::model::address::ServerUrl;
use crate::model::alerts::Alerts;
use crate::model::container_config::ContainerConfig;
use crate::model::export::ExportFormat;
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, DesiredDataSource, Login, Secret, Stack};
use crate::model::version::Version;

/// The file with a new Grafana's password in an exported directory.
const PASSWORD_FILE: &str = "grafana-password";
/// The file with the password of an external InfluxDB.
const INFLUXDB_PASSWORD_FILE: &str = "influxdb-password";
/// The directory of Grafana's provisioning files.
const PROVISIONING: &str = "/etc/grafana/provisioning";
/// The folder of those files in exports of other formats.
const FOLDER: &str = "provisioning";

/// The scripts that fill the volumes of new servers from a backup.
const RESTORE_SCRIPTS: [(Role, &str); 2] = [
    (Role::Influxdb, include_str!("../../assets/export/restore-influxdb.sh")),
    (Role::Grafana, include_str!("../../assets/export/restore-grafana.sh")),
];

/// Checks that the stack can be exported in this format. `has_password` is whether the export or the user's own Secret
/// contains the password of InfluxDB's user.
///
/// # Errors
/// [`Error::Usage`] with the reason.
pub(crate) fn check(format: ExportFormat, stack: &Stack, has_password: bool) -> Result<()> {
    if format == ExportFormat::Provisioning {
        return check_organisation(stack);
    }
    let Some(grafana) = stack.container(Role::Grafana) else {
        return Err(Error::usage(
            format!("export {format} is for a managed Grafana container, but this Grafana is external"),
            format!(
                "omit --grafana-url, or write files for that Grafana with `{}`",
                stack.command("export provisioning DIRECTORY")
            ),
        ));
    };
    if format.makes_servers() {
        if let Some(organisation) = &stack.organisation {
            return Err(Error::usage(
                format!("export {format} creates a new Grafana, which has no organisation {organisation:?}"),
                "omit --grafana-org (--grafana-org '' removes a remembered one)",
            ));
        }
        if grafana.config.host_gateway {
            return Err(Error::usage(
                "InfluxDB's address is on this machine's loopback, which a Grafana elsewhere cannot reach",
                "set --data-source-url to the address that a Grafana elsewhere uses",
            ));
        }
        let user = &stack.data_source.user;
        if !user.is_empty() && !has_password {
            return Err(Error::usage(
                format!(
                    "export {format} includes the password of InfluxDB's user {user:?}, but no password was supplied"
                ),
                "use --influxdb-password-file: passwords are not remembered",
            ));
        }
    }
    if format == ExportFormat::Kubernetes { kubernetes::check_name(&stack.instance) } else { Ok(()) }
}

/// Provisioning files identify an organisation by its number, which only the target Grafana knows.
fn check_organisation(stack: &Stack) -> Result<()> {
    let Some(organisation) = &stack.organisation else { return Ok(()) };
    let is_external = stack.container(Role::Grafana).is_none();
    if is_external && (stack.login.token || stack.login.given) {
        return Ok(());
    }
    let missing = if is_external { "" } else { "--grafana-url and " };
    Err(Error::usage(
        format!(
            "provisioning files identify an organisation by its number, and the number of {organisation:?} is unknown"
        ),
        format!(
            "name the target Grafana with {missing}--grafana-token-file or --grafana-password-file, or omit \
             --grafana-org (--grafana-org '' removes a remembered one)"
        ),
    ))
}

/// Whether the data source's address is a name that only the instance's containers can resolve.
#[must_use]
pub(crate) fn is_known_to_containers_only(stack: &Stack) -> bool {
    let grafana = stack.container(Role::Grafana);
    let own = ServerUrl::http(Role::Influxdb.name(), Role::Influxdb.port()).to_string();
    grafana.is_some_and(|spec| spec.config.host_gateway || stack.data_source.url == own)
}

/// Whether the files delete alert rules if they create none: otherwise rules from an earlier export
/// would stay. A new Grafana has only rules from files. An external one may have rules of the
/// instance that no file created; they stay unless alerts were turned off or an earlier export to
/// the directory created the rules.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read.
pub(crate) fn deletes_rules(format: ExportFormat, stack: &Stack, directory: &Path) -> Result<bool> {
    let earlier = || directory::lists(directory, &format!("alerting/{}.yaml", stack.instance));
    Ok(format.makes_servers() || stack.alerts == Alerts::Off || earlier()?)
}

/// The organisations in which an earlier export to that directory created or deleted alert rules.
///
/// # Errors
/// [`Error::Io`] if the file system returns an error.
pub(crate) fn earlier_organisations(stack: &Stack, directory: &Path) -> Result<Vec<u64>> {
    let path = format!("alerting/{}.yaml", stack.instance);
    let text = if directory::lists(directory, &path)? { directory::read(directory, &path)? } else { None };
    // A file that a user edited so that it is no valid YAML stops the export later.
    let file: Value = text.and_then(|text| serde_saphyr::from_str(&text).ok()).unwrap_or_default();
    let entries = ["groups", "deleteRules"].into_iter().flat_map(|list| file[list].as_array().into_iter().flatten());
    let mut organisations: Vec<u64> = entries.filter_map(|entry| entry["orgId"].as_u64()).collect();
    organisations.sort_unstable();
    organisations.dedup();
    Ok(organisations)
}

/// The secrets of an earlier export to a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeptSecret {
    /// There is no earlier export, or its format has no secrets.
    Nothing,
    /// The password of the Grafana that the earlier export creates.
    Password(Secret),
    /// A user has replaced or removed the exported Secret.
    Own(OwnSecret),
}

/// A Secret that is not from the export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnSecret {
    /// The user's file in place of the exported one, such as an encrypted one; its content is kept.
    File(String),
    /// The file and its line in the kustomization were removed: the cluster has the Secret from another source.
    Elsewhere,
}

/// The secrets of an earlier export to that directory.
///
/// # Errors
/// [`Error::File`] if a password is not acceptable or missing, [`Error::Io`] if the file system
/// returns an error.
pub(crate) fn kept(format: ExportFormat, folder: &Path) -> Result<KeptSecret> {
    let (path, kept) = match format {
        ExportFormat::Provisioning | ExportFormat::Compose => return Ok(KeptSecret::Nothing),
        ExportFormat::Swarm => {
            if !directory::lists(folder, PASSWORD_FILE)? {
                return Ok(KeptSecret::Nothing);
            }
            match (directory::read(folder, PASSWORD_FILE)?, directory::read(folder, compose::STACK)?) {
                (Some(text), _) => (PASSWORD_FILE, text.trim().to_string()),
                // The export was interrupted before it could be deployed: secrets are written first.
                (None, None) => return Ok(KeptSecret::Nothing),
                (None, Some(_)) => return Err(missing(folder, PASSWORD_FILE, RESTORE_IT)),
            }
        }
        ExportFormat::Kubernetes => {
            if !directory::is_export(folder, format)? {
                return Ok(KeptSecret::Nothing);
            }
            match (directory::read(folder, kubernetes::SECRET)?, directory::read(folder, kubernetes::KUSTOMIZATION)?) {
                (Some(text), _) => {
                    let digest = fingerprint(kubernetes::without_values(&text).as_bytes());
                    let is_exported = directory::lists_digest(folder, kubernetes::SECRET, &digest)?;
                    match kubernetes::password(&text).filter(|_| is_exported) {
                        Some(password) => (kubernetes::SECRET, password),
                        None => return Ok(KeptSecret::Own(OwnSecret::File(text))),
                    }
                }
                (None, None) => return Ok(KeptSecret::Nothing),
                (None, Some(listing)) if kubernetes::lists_secret(&listing) => {
                    let hint = "restore it, supply the password with --grafana-password-file, or remove its line from \
                                kustomization.yaml if the Secret comes from another source";
                    return Err(missing(folder, kubernetes::SECRET, hint));
                }
                (None, Some(_)) => return Ok(KeptSecret::Own(OwnSecret::Elsewhere)),
            }
        }
    };
    check_password(&kept).map_err(|message| Error::File {
        path: folder.join(path),
        line: None,
        message: message.into(),
        hint: "write a password of at least 4 characters there, in double quotes in a Secret, or supply one with \
               --grafana-password-file"
            .into(),
    })?;
    Ok(KeptSecret::Password(Secret::new(kept)))
}

const RESTORE_IT: &str = "restore it, or supply the password with --grafana-password-file";

/// The error about a password that only an existing Grafana knows.
fn missing(folder: &Path, path: &str, hint: &str) -> Error {
    Error::File {
        path: folder.join(path),
        line: None,
        message: "is missing, but a Grafana created with the password in it still uses that password".into(),
        hint: hint.into(),
    }
}

/// Checks the password for a Grafana that other hosts can reach.
///
/// # Errors
/// With the reason.
pub(crate) fn check_password(password: &str) -> std::result::Result<(), &'static str> {
    if password == Login::PUBLIC_PASSWORD {
        return Err("contains Grafana's public default password");
    }
    if !Login::is_password(password) {
        return Err("contains a password that is too short or has a line break");
    }
    Ok(())
}

/// The secret part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// The whole file.
    Whole,
    /// The values in a Secret's data.
    Values,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportFile {
    /// The path in the directory, with `/` between folders.
    pub path: String,
    pub content: String,
    /// The part that only the owner may read, if any.
    pub secret: Option<Secrecy>,
}

impl ExportFile {
    fn new(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self { path: path.into(), content: content.into(), secret: None }
    }

    fn with_secret(path: impl Into<String>, content: impl Into<String>, secret: Secrecy) -> Self {
        Self { secret: Some(secret), ..Self::new(path, content) }
    }

    /// Fingerprint without secrets, which a user may have replaced.
    fn digest(&self) -> String {
        match self.secret {
            None => fingerprint(self.content.as_bytes()),
            Some(Secrecy::Whole) => fingerprint(b""),
            Some(Secrecy::Values) => fingerprint(kubernetes::without_values(&self.content).as_bytes()),
        }
    }
}

/// The input of an export.
pub(crate) struct Material<'a> {
    pub stack: &'a Stack,
    /// The state of its Grafana.
    pub present: &'a GrafanaExport,
    /// That Grafana's version, if known.
    pub version: Option<Version>,
    /// The address at which containers reach the engine's host, as for `--add-host`; `None` if the engine adds its
    /// name itself or no container needs it.
    pub host_address: Option<&'a str>,
    /// The password of a new Grafana.
    pub password: Option<&'a Secret>,
    /// The Secret in place of the exported one, if a user manages it.
    pub own_secret: Option<&'a OwnSecret>,
    /// The versions of a swarm's secrets.
    pub secret_versions: &'a SecretVersions,
    /// Whether the existing Grafana's password is stored in its volume.
    pub has_stored_password: bool,
    /// The password of an InfluxDB that requires one.
    pub influxdb_password: Option<&'a Secret>,
    /// Whether the files delete alert rules if they create none.
    pub deletes_rules: bool,
    /// The organisations of the alert rules in an earlier export to the same directory.
    pub earlier_organisations: &'a [u64],
}

impl<'a> Material<'a> {
    /// The secrets of new servers, by file name.
    fn secrets(&self) -> Vec<(&'static str, &'a Secret)> {
        secrets(self.password, self.influxdb_password)
    }

    /// InfluxDB's address for a Grafana that reaches its container as `host`.
    fn influxdb_url(&self, host: &str) -> String {
        match self.stack.container(Role::Influxdb) {
            Some(_) => ServerUrl::http(host, Role::Influxdb.port()).to_string(),
            None => self.stack.data_source.url.clone(),
        }
    }

    /// The environment of a server that a swarm or a cluster publishes to other hosts, whatever its address here.
    fn open_environment(&self, spec: &DesiredContainer, password: Option<String>) -> BTreeMap<String, String> {
        let mut all = self.environment(spec, password);
        if spec.role == Role::Grafana {
            let (name, role) = ContainerConfig::ANONYMOUS_ROLE;
            all.insert(name.into(), role.into());
        }
        all
    }

    /// The environment of a container; for Grafana, with its first account. `password` is the place
    /// of its password.
    fn environment(&self, spec: &DesiredContainer, password: Option<String>) -> BTreeMap<String, String> {
        let mut all = spec.config.environment.clone();
        if spec.role == Role::Grafana {
            all.extend(password.map(|from| ("GF_SECURITY_ADMIN_PASSWORD".to_string(), from)));
            let login = &self.stack.login;
            if login.user != Login::ADMIN && !login.token {
                all.insert("GF_SECURITY_ADMIN_USER".into(), login.user.clone());
            }
        }
        all
    }
}

/// The secrets of new servers, by file name.
fn secrets<'a>(password: Option<&'a Secret>, influxdb_password: Option<&'a Secret>) -> Vec<(&'static str, &'a Secret)> {
    let password = password.map(|password| (PASSWORD_FILE, password));
    let influxdb = influxdb_password.map(|password| (INFLUXDB_PASSWORD_FILE, password));
    password.into_iter().chain(influxdb).collect()
}

/// The version of each secret by its file's name. A swarm's secret cannot change, so a changed one needs another name.
/// That name is public, so it contains a counter and no digest of the secret.
pub(crate) type SecretVersions = BTreeMap<&'static str, u32>;

/// The versions of these secrets in a directory with an earlier export.
///
/// # Errors
/// [`Error::Io`] if the file system returns an error.
pub(crate) fn secret_versions(
    format: ExportFormat,
    folder: &Path,
    password: Option<&Secret>,
    influxdb_password: Option<&Secret>,
) -> Result<SecretVersions> {
    let mut versions = SecretVersions::new();
    if format != ExportFormat::Swarm {
        return Ok(versions);
    }
    let earlier = directory::read(folder, compose::STACK)?;
    let earlier: Value = earlier.and_then(|text| serde_saphyr::from_str(&text).ok()).unwrap_or_default();
    for (name, secret) in secrets(password, influxdb_password) {
        let last = earlier["secrets"][name]["name"].as_str().and_then(|name| name.rsplit_once('-')?.1.parse().ok());
        let is_same = directory::read(folder, name)?.as_deref() == Some(secret.reveal());
        versions.insert(name, last.map_or(1, |last: u32| if is_same { last } else { last.saturating_add(1) }));
    }
    Ok(versions)
}

/// All files of an export, ordered by path.
///
/// # Errors
/// [`Error::Usage`] if something cannot be exported in this format.
pub(crate) fn files(format: ExportFormat, material: &Material<'_>) -> Result<Vec<ExportFile>> {
    let mut files = match format {
        ExportFormat::Provisioning => {
            let url = &material.stack.data_source.url;
            let provisioning = provisioning(material, url, &variable(INFLUXDB_PASSWORD), false)?;
            let mut files = provisioning_files(&provisioning, "");
            files.push(readme::provisioning(material, &provisioning));
            files
        }
        ExportFormat::Compose => compose::compose(material)?,
        ExportFormat::Swarm => compose::swarm(material)?,
        ExportFormat::Kubernetes => kubernetes::manifests(material)?,
    };
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// Grafana's files for an InfluxDB at that address; `password` is the place of its password, if it
/// requires one.
fn provisioning(material: &Material<'_>, url: &str, password: &str, keeps_database: bool) -> Result<Provisioning> {
    // The files may be applied from another machine.
    let source = DesiredDataSource { url: url.into(), machine: None, ..material.stack.data_source.clone() };
    let Material { version, deletes_rules, earlier_organisations, .. } = *material;
    let purpose =
        ProvisioningTarget { source: &source, password, version, keeps_database, deletes_rules, earlier_organisations };
    Provisioning::new(material.stack, &purpose, material.present)
}

/// A reference to a variable in Grafana's files; in this form, a `$` in its value is kept.
fn variable(name: &str) -> String {
    format!("${name}")
}

/// A reference to a file in Grafana's files.
fn from_file(path: &str) -> String {
    format!("$__file{{{path}}}")
}

/// One of Grafana's files, relative to its provisioning folder.
struct ProvisionedFile {
    path: String,
    content: String,
    is_dashboard: bool,
}

/// All of Grafana's files.
fn provisioned(provisioning: &Provisioning) -> Vec<ProvisionedFile> {
    let own = provisioning.folder_name(0);
    let folder = |index: usize| format!("dashboards/{}", provisioning.folder_name(index));
    let file = |kind: &str, value: &Value| ProvisionedFile {
        path: format!("{kind}/{own}.yaml"),
        content: yaml(value),
        is_dashboard: false,
    };
    let mut files = vec![file("datasources", &provisioning.data_source)];
    if !provisioning.dashboards.is_empty() {
        files.push(file("dashboards", &provisioning.providers(|index| format!("{PROVISIONING}/{}", folder(index)))));
    }
    files.extend(provisioning.dashboards.iter().map(|dashboard| ProvisionedFile {
        path: format!("{}/{}.json", folder(dashboard.folder), dashboard.uid),
        content: format!("{:#}\n", dashboard.content),
        is_dashboard: true,
    }));
    files.extend(provisioning.alert_rules.as_ref().map(|rules| file("alerting", rules)));
    files
}

fn provisioning_files(provisioning: &Provisioning, root: &str) -> Vec<ExportFile> {
    let files = provisioned(provisioning).into_iter();
    files.map(|file| ExportFile::new(format!("{root}{}", file.path), file.content)).collect()
}

/// The path of the bundled dashboard on Grafana's server.
fn home(stack: &Stack) -> String {
    format!("{PROVISIONING}/dashboards/{}/{}.json", stack.instance, stack.dashboard.uid)
}

/// The statements that create Clipper's database as specified; safe to repeat.
fn database(stack: &Stack) -> String {
    influxdb::database_statements(&stack.database, stack.retention).join("; ")
}

fn yaml(value: &Value) -> String {
    // Lines are not folded, so that a query stays on one line.
    let mut options = serde_saphyr::SerializerOptions::default();
    options.folded_wrap_chars = usize::MAX;
    // Every JSON value can be serialized.
    let text = serde_saphyr::to_string_with_options(value, options).unwrap_or_default();
    format!("{}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ambiguous_values_are_quoted_and_lines_are_not_folded() {
        let long = "SELECT last(\"p99\") FROM /x$/ WHERE time > 0 ".repeat(8);
        let value =
            json!({"a": "no", "b": "1:20", "c": "2024-01-01", "d": "0400", "e": long, "f": "{\n  \"x\": 1\n}\n"});
        let text = yaml(&value);
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
        assert!(text.contains("a: \"no\"\n") && text.contains("b: \"1:20\"\n"), "{text}");
        assert!(text.lines().any(|line| line.len() > long.len()), "{text}");
    }
}
