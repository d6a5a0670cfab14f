//! Exports: describes a stack in files for a system that runs it without clipper-metrics.

mod compose;
pub(crate) mod directory;
mod kubernetes;
mod provisioning;
mod readme;
mod swarm;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

pub(crate) use self::kubernetes::OwnSecret;
pub(crate) use self::provisioning::is_known_to_containers_only;
use crate::digest::fingerprint;
use crate::error::{Error, Result};
use crate::grafana::provisioning::{GrafanaExport, Provisioning, ProvisioningTarget};
use crate::influxdb;
use crate::model::address::ServerUrl;
use crate::model::alerts::Alerts;
use crate::model::container_config::ContainerConfig;
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

/// The folder of the data source's file.
const DATA_SOURCES: &str = "datasources";

/// The scripts that fill the volumes of new servers from a backup.
const RESTORE_SCRIPTS: [(Role, &str); 2] = [
    (Role::Influxdb, include_str!("../../assets/export/restore-influxdb.sh")),
    (Role::Grafana, include_str!("../../assets/export/restore-grafana.sh")),
];

/// The servers that the files of an export are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportServers {
    /// A Grafana that exists and reads the files.
    Existing,
    /// The instance's own, with their volumes.
    Instance,
    /// New ones, with new volumes.
    New,
}

/// A format of exports. The file that defines it makes all its decisions.
#[derive(Debug)]
pub(crate) struct ExportFormat {
    /// The name on the command line.
    pub(crate) name: &'static str,
    /// Its target in the help of the program.
    pub(crate) target: &'static str,
    /// The description of its files in the help of `export`.
    pub(crate) help: &'static str,
    pub(crate) servers: ExportServers,
    /// Checks what only this format requires of a stack.
    check: fn(&Stack) -> Result<()>,
    /// The secrets of an earlier export to a directory.
    kept_secret: fn(&Path) -> Result<KeptSecret>,
    files: fn(&Material<'_>) -> Result<Vec<ExportFile>>,
}

pub(crate) static FORMATS: [&ExportFormat; 4] =
    [&provisioning::FORMAT, &compose::FORMAT, &swarm::FORMAT, &kubernetes::FORMAT];

impl ExportFormat {
    /// Checks that the stack can be exported in this format. `has_password` is whether the export or the user's own
    /// Secret contains the password of InfluxDB's user.
    ///
    /// # Errors
    /// [`Error::Usage`] with the reason.
    pub(crate) fn check(&self, stack: &Stack, has_password: bool) -> Result<()> {
        if self.servers != ExportServers::Existing {
            let grafana = stack.container(Role::Grafana).ok_or_else(|| self.needs_container(stack))?;
            if self.servers == ExportServers::New {
                self.check_new_servers(stack, grafana, has_password)?;
            }
        }
        (self.check)(stack)
    }

    fn needs_container(&self, stack: &Stack) -> Error {
        Error::usage(
            format!("export {} is for a managed Grafana container, but this Grafana is external", self.name),
            format!(
                "omit --grafana-url, or write files for that Grafana with `{}`",
                stack.command("export provisioning DIRECTORY")
            ),
        )
    }

    fn check_new_servers(&self, stack: &Stack, grafana: &DesiredContainer, has_password: bool) -> Result<()> {
        let name = self.name;
        if let Some(organisation) = &stack.organisation {
            return Err(Error::usage(
                format!("export {name} creates a new Grafana, which has no organisation {organisation:?}"),
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
                    "export {name} includes the password of InfluxDB's user {user:?}, but no password was supplied"
                ),
                "use --influxdb-password-file: passwords are not remembered",
            ));
        }
        Ok(())
    }

    /// The secrets of an earlier export to that directory.
    ///
    /// # Errors
    /// [`Error::File`] if a password is not acceptable or missing, [`Error::Io`] if the file system
    /// returns an error.
    pub(crate) fn kept_secret(&self, directory: &Path) -> Result<KeptSecret> {
        (self.kept_secret)(directory)
    }

    /// All files of an export, ordered by path.
    ///
    /// # Errors
    /// [`Error::Usage`] if something cannot be exported in this format.
    pub(crate) fn files(&self, material: &Material<'_>) -> Result<Vec<ExportFile>> {
        let mut files = (self.files)(material)?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }
}

/// Whether the files delete alert rules if they create none: otherwise rules from an earlier export
/// would stay. A new Grafana has only rules from files. An external one may have rules of the
/// instance that no file created; they stay unless alerts were turned off or an earlier export to
/// the directory created the rules.
fn deletes_rules(material: &Material<'_>) -> Result<bool> {
    let Material { stack, format, directory, .. } = material;
    let earlier = || directory::lists(directory, &rules_file(stack));
    Ok(format.servers == ExportServers::New || stack.alerts == Alerts::Off || earlier()?)
}

fn rules_file(stack: &Stack) -> String {
    format!("alerting/{}.yaml", stack.instance)
}

/// The parts of an exported file of alert rules that the next export continues.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EarlierRules {
    groups: Vec<InOrganisation>,
    delete_rules: Vec<InOrganisation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InOrganisation {
    org_id: u64,
}

/// The organisations in which an earlier export to that directory created or deleted alert rules.
fn earlier_organisations(stack: &Stack, directory: &Path) -> Result<Vec<u64>> {
    let path = rules_file(stack);
    let text = if directory::lists(directory, &path)? { directory::read(directory, &path)? } else { None };
    // An unreadable file was edited by a user, which stops the export later.
    let file: EarlierRules = text.and_then(|text| serde_saphyr::from_str(&text).ok()).unwrap_or_default();
    let mut organisations: Vec<u64> = file.groups.iter().chain(&file.delete_rules).map(|entry| entry.org_id).collect();
    organisations.sort_unstable();
    organisations.dedup();
    Ok(organisations)
}

/// The part of an exported data source that the next export must not lose.
#[derive(Deserialize)]
struct EarlierSource {
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct EarlierSources {
    datasources: Vec<EarlierSource>,
}

/// The InfluxDB user in an earlier export to that directory.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub(crate) fn earlier_user(stack: &Stack, directory: &Path) -> Result<Option<String>> {
    let file = source_file(stack);
    let mut texts = Vec::new();
    for path in [format!("{FOLDER}/{file}"), file] {
        texts.extend(directory::read(directory, &path)?);
    }
    texts.extend(kubernetes::earlier_source(stack, directory)?);
    // An unreadable file was edited by a user, which stops the export later.
    let sources = texts.iter().filter_map(|text| serde_saphyr::from_str::<EarlierSources>(text).ok());
    let user = sources.flat_map(|file| file.datasources).map(|source| source.user).find(|user| !user.is_empty());
    // A literal $ is escaped.
    Ok(user.map(|user| user.replace("$$", "$")))
}

/// The path of the data source's file.
fn source_file(stack: &Stack) -> String {
    format!("{DATA_SOURCES}/{}.yaml", stack.instance)
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

/// The result for a password in a file of an earlier export.
fn accept(folder: &Path, path: &str, password: &str) -> Result<KeptSecret> {
    check_password(password).map_err(|why| Error::File {
        path: folder.join(path),
        line: None,
        message: format!("its password {why}"),
        hint: format!(
            "write a password of at least {} characters into that file (as a quoted string in a Secret), or supply one \
             with --grafana-password-file",
            Login::SHORTEST_PASSWORD
        ),
    })?;
    Ok(KeptSecret::Password(Secret::new(password)))
}

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
        return Err("is Grafana's public default");
    }
    if !Login::is_password(password) {
        return Err("is too short, or contains a line break or another control character");
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
    /// Whether the existing Grafana's password is stored in its volume.
    pub has_stored_password: bool,
    /// The password of an InfluxDB that requires one.
    pub influxdb_password: Option<&'a Secret>,
    pub format: &'static ExportFormat,
    /// The directory of the export, which may contain an earlier one.
    pub directory: &'a Path,
}

impl<'a> Material<'a> {
    /// Whether the data source stays as it is in Grafana: files cannot contain all its settings, and no earlier export
    /// wrote a file that Grafana follows.
    ///
    /// # Errors
    /// [`Error::Io`] if the list of the earlier export cannot be read.
    pub(crate) fn keeps_source(&self) -> Result<bool> {
        let file = source_file(self.stack);
        let is_listed = |path: &str| directory::lists(self.directory, path);
        Ok(!self.present.settings_with_secrets().is_empty()
            && !is_listed(&file)?
            && !is_listed(&format!("{FOLDER}/{file}"))?)
    }

    /// The secrets of new servers, by file name.
    fn secrets(&self) -> Vec<(&'static str, &'a Secret)> {
        let password = self.password.map(|password| (PASSWORD_FILE, password));
        let influxdb = self.influxdb_password.map(|password| (INFLUXDB_PASSWORD_FILE, password));
        password.into_iter().chain(influxdb).collect()
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
            if login.user != Login::ADMIN {
                all.insert("GF_SECURITY_ADMIN_USER".into(), login.user.clone());
            }
        }
        all
    }
}

/// Grafana's files for an InfluxDB at that address; `password` is the place of its password, if it
/// requires one.
fn provisioning(material: &Material<'_>, url: &str, password: &str, keeps_database: bool) -> Result<Provisioning> {
    // The files may be applied from another machine.
    let source = DesiredDataSource { url: url.into(), machine: None, ..material.stack.data_source.clone() };
    let target = ProvisioningTarget {
        source: &source,
        password,
        version: material.version,
        keeps_database,
        keeps_source: material.keeps_source()?,
        deletes_rules: deletes_rules(material)?,
        earlier_organisations: &earlier_organisations(material.stack, material.directory)?,
    };
    Provisioning::new(material.stack, &target, material.present)
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
    let mut files: Vec<ProvisionedFile> =
        provisioning.data_source.iter().map(|source| file(DATA_SOURCES, source)).collect();
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
