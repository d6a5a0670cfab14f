//! Options, environment, Clipper's file and what this instance was given before, merged into one
//! stack.
//!
//! The only place that knows precedence and defaults. Pure: it is told what it needs to know of
//! files, names and the engine, and must not ask for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::{Options, PullWhen};
use crate::core::stack::{
    ClipperTarget, ContainerSpec, Dashboard, DataSource, Password, Pull, Role, Secret, Service, Stack,
};
use crate::error::{Error, Result};
use crate::systems::clipper::{self, ClipperFile};

/// The default name of an instance.
const INSTANCE: &str = "clipper-metrics";
/// The last line of InfluxDB that speaks Clipper's protocol without credentials.
const INFLUXDB_IMAGE: &str = "influxdb:1.12.4";
/// The last line of Grafana before 13's breaking changes.
const GRAFANA_IMAGE: &str = "grafana/grafana:12.4.10";
/// Grafana's own default administrator.
const GRAFANA_USER: &str = "admin";
/// Grafana's own default password.
const GRAFANA_PASSWORD: &str = "admin";
/// How long servers may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What an instance was given before, by option name: read back from its containers.
pub type Given = BTreeMap<String, String>;

/// Where the engine's published ports appear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Site {
    /// On this machine.
    Here,
    /// On another one, of this name.
    Elsewhere(String),
}

/// Secrets that were given, already read from their files or variables.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// Grafana's administrator's password.
    pub grafana_password: Option<Secret>,
    /// A token for Grafana.
    pub grafana_token: Option<Secret>,
    /// The password of InfluxDB's user.
    pub influxdb_password: Option<Secret>,
}

/// How to get in; never part of the stack, which is shown and stored.
#[derive(Debug, Clone)]
pub struct Access {
    /// Grafana's administrator.
    pub grafana_user: String,
    /// What was given.
    pub secrets: Secrets,
    /// InfluxDB's user.
    pub influxdb_user: Option<String>,
    /// Certificates to trust.
    pub ca_file: Option<PathBuf>,
}

impl Access {
    /// Grafana's own default password, which is in force on loopback when nothing else is known.
    #[must_use]
    pub fn default_password() -> Secret {
        Secret::new(GRAFANA_PASSWORD)
    }
}

/// What the merge is told.
pub struct Inputs<'a> {
    /// The command line, with the environment behind it.
    pub options: &'a Options,
    /// Clipper's file.
    pub file: Option<&'a ClipperFile>,
    /// What the instance was given before.
    pub given: &'a Given,
    /// Where published ports appear.
    pub site: Site,
    /// Fingerprint of the bundled dashboard.
    pub edition: &'a str,
    /// Secrets that were given.
    pub secrets: Secrets,
    /// A new administrator's password is asked for.
    pub reset_password: bool,
    /// Turns a host name into one address.
    pub resolve: &'a dyn Fn(&str) -> std::result::Result<IpAddr, String>,
}

/// The instance's name, which is needed before anything can be asked of the engine.
///
/// # Errors
/// When the name could not be a container's.
pub fn instance(options: &Options, file: Option<&ClipperFile>) -> Result<String> {
    let name = options
        .name
        .clone()
        .filter(|name| !name.is_empty())
        .or_else(|| file.and_then(|file| file.metrics.get("name").cloned()))
        .unwrap_or_else(|| INSTANCE.into());
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 40 || !name.chars().all(letters) || name.starts_with('-') {
        return Err(Error::usage(
            format!("{name:?} cannot be the name of an instance"),
            "use up to 40 small letters, digits and dashes, beginning with a letter or digit",
        ));
    }
    Ok(name)
}

/// The path of a secret's file, if one was named.
#[must_use]
pub fn secret_file(option: Option<&PathBuf>, file: Option<&ClipperFile>, key: &str) -> Option<PathBuf> {
    option.cloned().or_else(|| file.and_then(|file| path_in(file, key)))
}

/// A path from `[metrics]`, relative to the file that names it.
fn path_in(file: &ClipperFile, key: &str) -> Option<PathBuf> {
    let path = file.metrics.get(key)?;
    Some(file.path.parent().map_or_else(|| path.into(), |folder| folder.join(path)))
}

/// Both servers run elsewhere, so no engine is needed.
#[must_use]
pub fn all_external(options: &Options, file: Option<&ClipperFile>) -> bool {
    let in_file = |key| file.is_some_and(|file: &ClipperFile| file.metrics.contains_key(key));
    (options.influxdb_url.is_some() || in_file("influxdb_url"))
        && (options.grafana_url.is_some() || in_file("grafana_url"))
}

/// One merge in progress: every setting passes through [`Merge::pick`].
struct Merge<'a> {
    inputs: &'a Inputs<'a>,
    given: Given,
}

impl Merge<'_> {
    /// Option over file over what was given before; what somebody gave is noted under `name`.
    fn pick(&mut self, name: &str, option: Option<&String>, file: Option<String>) -> Option<String> {
        let value = option
            .cloned()
            .filter(|value| !value.is_empty())
            .or(file)
            .or_else(|| self.inputs.given.get(name).cloned())?;
        self.given.insert(name.to_string(), value.clone());
        Some(value)
    }

    fn metrics(&self, key: &str) -> Option<String> {
        self.inputs.file.and_then(|file| file.metrics.get(key).cloned())
    }

    /// A published address: text as given, one IP address for the engine.
    fn address(&mut self, role: Role, option: Option<&String>, file: Option<String>) -> Result<IpAddr> {
        let name = format!("{role}-ip");
        let text = self.pick(&name, option, file).unwrap_or_else(|| "127.0.0.1".into());
        let text = text.trim_start_matches('[').trim_end_matches(']');
        text.parse().or_else(|_| (self.inputs.resolve)(text)).map_err(|why| {
            Error::usage(
                format!("cannot publish {} at {text}: {why}", role.title()),
                format!("give an address of this machine with --{name}, or use the server there with --{role}-url"),
            )
        })
    }

    fn port(&mut self, role: Role, option: Option<&String>, file: Option<String>) -> Result<u16> {
        let name = format!("{role}-port");
        let Some(text) = self.pick(&name, option, file) else { return Ok(role.port()) };
        text.parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| Error::usage(format!("--{name} is {text:?}"), "a port is a number from 1 to 65535"))
    }

    /// The image of a role, and whether it is our own default.
    fn image(&mut self, role: Role, option: Option<&String>, registry: Option<&str>) -> (String, bool) {
        let file = self.metrics(&format!("{role}_image"));
        if let Some(image) = self.pick(&format!("{role}-image"), option, file) {
            return (tagged(image), false);
        }
        let default = match role {
            Role::Influxdb => INFLUXDB_IMAGE,
            Role::Grafana => GRAFANA_IMAGE,
        };
        match registry {
            Some(prefix) => (format!("{}/{default}", prefix.trim_end_matches('/')), true),
            None => (default.into(), true),
        }
    }

    fn external(&mut self, role: Role, option: Option<&String>) -> Result<Option<String>> {
        let url = option.cloned().filter(|url| !url.is_empty()).or_else(|| self.metrics(&format!("{role}_url")));
        if let Some(url) = url {
            self.given.insert(role.name().into(), EXTERNAL.into());
            return base_url(&url, &format!("--{role}-url")).map(Some);
        }
        if self.inputs.given.get(role.name()).is_some_and(|kind| kind == EXTERNAL) {
            return Err(Error::usage(
                format!(
                    "this instance uses {} that clipper-metrics did not start, and its address is not kept",
                    role.title()
                ),
                format!(
                    "give --{role}-url again, or write {role}_url into [metrics] of the file that you name with --config"
                ),
            ));
        }
        Ok(None)
    }
}

/// What is remembered of a server that is not ours: only that it is not.
const EXTERNAL: &str = "external";

/// An image without a tag would mean `latest`, and all tags to some engines.
fn tagged(image: String) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains(':') || image.contains('@') { image } else { format!("{image}:latest") }
}

/// Checks the address of a server and takes the slash from its end.
fn base_url(url: &str, option: &str) -> Result<String> {
    let bad = |why: &str| Error::usage(format!("{option} is {url:?}: {why}"), "write it as http://host:port");
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or_else(|| bad("it begins neither with http:// nor with https://"))?;
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Err(Error::usage(
            format!("{option} holds a user or password"),
            "give them with --grafana-user, --influxdb-user and the files for passwords, so that they show nowhere",
        ));
    }
    if host.is_empty() || host.starts_with(':') || url.contains(['?', '#']) || url.chars().any(char::is_whitespace) {
        return Err(bad("that is no server's address"));
    }
    Ok(url.trim_end_matches('/').to_string())
}

/// The host in a checked address.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    if let Some(v6) = authority.strip_prefix('[') {
        return v6.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

/// The server is on the machine that the address is read on.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// Merges everything into one stack.
///
/// # Errors
/// When a setting cannot work, with its option's name.
pub fn merge(inputs: &Inputs<'_>) -> Result<(Stack, Access)> {
    let options = inputs.options;
    let name = instance(options, inputs.file)?;
    let mut merge = Merge { inputs, given: Given::new() };

    let influxdb_url = merge.external(Role::Influxdb, options.influxdb_url.as_ref())?;
    let grafana_url = merge.external(Role::Grafana, options.grafana_url.as_ref())?;
    let registry = {
        let file = merge.metrics("registry");
        merge.pick("registry", options.registry.as_ref(), file)
    };
    let influxdb_spec = match influxdb_url {
        Some(_) => None,
        None => Some(container(&mut merge, Role::Influxdb, &name, registry.as_deref())?),
    };
    let grafana_spec = match grafana_url {
        Some(_) => None,
        None => Some(container(&mut merge, Role::Grafana, &name, registry.as_deref())?),
    };

    let database = {
        let file = inputs.file.and_then(|file| file.database.clone());
        let text = merge.pick("database", options.database.as_ref(), file).unwrap_or_else(|| "clipper".into());
        clipper::database_name(&text).map_err(|why| {
            Error::usage(format!("--database is {text:?}: {why}"), "choose another name, in Clipper's file too")
        })?
    };
    let mut text = |name: &str, option: Option<&String>, key: &str| {
        let file = merge.metrics(key);
        merge.pick(name, option, file)
    };
    let organisation = text("grafana-org", options.grafana_org.as_ref(), "grafana_org");
    let folder = text("grafana-folder", options.grafana_folder.as_ref(), "grafana_folder");
    let user =
        text("grafana-user", options.grafana_user.as_ref(), "grafana_user").unwrap_or_else(|| GRAFANA_USER.into());
    let data_source_url = text("data-source-url", options.data_source_url.as_ref(), "data_source_url")
        .map(|url| base_url(&url, "--data-source-url"))
        .transpose()?;

    let influxdb_user = options.influxdb_user.clone().or_else(|| merge.metrics("influxdb_user"));
    if influxdb_url.is_none() && (influxdb_user.is_some() || inputs.secrets.influxdb_password.is_some()) {
        return Err(Error::usage(
            "--influxdb-user and its password are for an InfluxDB that already runs",
            "give --influxdb-url too, or leave them away: Clipper speaks to the container without credentials",
        ));
    }
    let (worked_out, host_gateway) =
        reachable_url(influxdb_url.as_deref(), influxdb_spec.as_ref(), grafana_spec.is_some());
    let title = if name == INSTANCE { "Clipper Metrics".into() } else { format!("Clipper Metrics ({name})") };
    let data_source = DataSource {
        uid: name.clone(),
        name: title.clone(),
        url: data_source_url.clone().unwrap_or(worked_out),
        database: database.clone(),
        user: influxdb_user.clone().unwrap_or_default(),
    };
    let dashboard = Dashboard {
        uid: name.clone(),
        title,
        edition: inputs.edition.into(),
        objective: inputs.file.and_then(|file| file.slo_micros),
        models: inputs.file.map(|file| file.models.clone()),
    };

    let mut settings: BTreeMap<String, String> = [("database".to_string(), database.clone())].into();
    let others = [("organisation", &organisation), ("folder", &folder), ("data source url", &data_source_url)];
    settings.extend(others.into_iter().filter_map(|(name, value)| Some((name.to_string(), value.clone()?))));
    if host_gateway {
        settings.insert(ContainerSpec::HOST_GATEWAY.into(), "true".into());
    }
    let given = std::mem::take(&mut merge.given);
    let (influxdb, grafana) = share(influxdb_spec, grafana_spec, &settings, &given, &user);
    let stack = Stack {
        instance: name,
        influxdb: service(influxdb, influxdb_url),
        grafana: service(grafana, grafana_url),
        database,
        organisation,
        folder,
        data_source,
        dashboard,
        pull: pull(&merge)?,
        timeout: timeout(&merge)?,
        clipper: inputs.file.map(target),
    };
    let access = Access {
        grafana_user: user,
        secrets: inputs.secrets.clone(),
        influxdb_user,
        ca_file: options.ca_file.clone().or_else(|| inputs.file.and_then(|file| path_in(file, "ca_file"))),
    };
    Ok((stack, access))
}

fn service(spec: Option<ContainerSpec>, url: Option<String>) -> Service {
    match (spec, url) {
        (Some(spec), _) => Service::Container(spec),
        (None, url) => Service::External { url: url.unwrap_or_default() },
    }
}

/// Where Clipper will write by its own file and its own defaults.
fn target(file: &ClipperFile) -> ClipperTarget {
    ClipperTarget {
        host: file.influx_ip.clone().unwrap_or_else(|| "127.0.0.1".into()),
        port: file.influx_port.unwrap_or(Role::Influxdb.port()),
        database: file.database.clone().unwrap_or_default(),
    }
}

/// The specification of one container, as far as it does not depend on the other role.
fn container(merge: &mut Merge<'_>, role: Role, instance: &str, registry: Option<&str>) -> Result<ContainerSpec> {
    let options = merge.inputs.options;
    let file = merge.inputs.file;
    let (address, port, image) = match role {
        Role::Influxdb => (
            merge.address(role, options.influxdb_ip.as_ref(), file.and_then(|file| file.influx_ip.clone()))?,
            merge.port(
                role,
                options.influxdb_port.as_ref(),
                file.and_then(|file| file.influx_port).map(|p| p.to_string()),
            )?,
            &options.influxdb_image,
        ),
        Role::Grafana => {
            let (ip, port) = (merge.metrics("grafana_ip"), merge.metrics("grafana_port"));
            (
                merge.address(role, options.grafana_ip.as_ref(), ip)?,
                merge.port(role, options.grafana_port.as_ref(), port)?,
                &options.grafana_image,
            )
        }
    };
    let (image, is_default) = merge.image(role, image.as_ref(), registry);
    let password = match role {
        Role::Influxdb => Password::Default,
        Role::Grafana => password(merge.inputs, address)?,
    };
    Ok(ContainerSpec {
        role,
        name: format!("{instance}-{role}"),
        network: instance.into(),
        image,
        env: environment(role),
        address,
        port,
        reach: reach(role, address, &merge.inputs.site)?,
        read_only: is_default,
        password,
        settings: BTreeMap::new(),
        given: BTreeMap::new(),
    })
}

/// Where Grafana's first password comes from; the default one is for loopback alone.
fn password(inputs: &Inputs<'_>, address: IpAddr) -> Result<Password> {
    let given = inputs.secrets.grafana_password.as_ref();
    let is_default = given.is_some_and(|secret| secret.reveal() == GRAFANA_PASSWORD);
    if !address.is_loopback() && is_default {
        return Err(Error::usage(
            format!("the password {GRAFANA_PASSWORD:?} is known to everybody, and Grafana would listen on {address}"),
            "give another password, or none to have one generated",
        ));
    }
    let in_file = !address.is_loopback() || inputs.reset_password || (given.is_some() && !is_default);
    Ok(if in_file { Password::File } else { Password::Default })
}

/// The host under which a published port is reached.
fn reach(role: Role, address: IpAddr, site: &Site) -> Result<String> {
    match site {
        Site::Elsewhere(host) if address.is_loopback() => Err(Error::usage(
            format!(
                "the engine runs on {host}, and {} would listen on that machine's loopback {address}, where nothing here \
                 reaches it",
                role.title()
            ),
            format!("publish it on an address of {host} with --{role}-ip, or use another engine with -H or --context"),
        )),
        Site::Elsewhere(host) if address.is_unspecified() => Ok(host.clone()),
        Site::Here if address.is_unspecified() => Ok(if address.is_ipv4() { "127.0.0.1" } else { "::1" }.into()),
        _ => Ok(address.to_string()),
    }
}

/// Settings of the servers that we choose: no calls home, no downloads at the start.
fn environment(role: Role) -> BTreeMap<String, String> {
    let pairs: &[(&str, &str)] = match role {
        Role::Influxdb => &[("INFLUXDB_REPORTING_DISABLED", "true")],
        Role::Grafana => &[
            ("GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "false"),
            ("GF_ANALYTICS_CHECK_FOR_UPDATES", "false"),
            ("GF_ANALYTICS_REPORTING_ENABLED", "false"),
            ("GF_DATABASE_TRANSACTION_RETRIES", "30"),
            ("GF_DATABASE_WAL", "true"),
            ("GF_NEWS_NEWS_FEED_ENABLED", "false"),
            ("GF_PLUGINS_PREINSTALL_AUTO_UPDATE", "false"),
            ("GF_PLUGINS_PREINSTALL_DISABLED", "true"),
            ("GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED", "true"),
            ("GF_SECURITY_DISABLE_GRAVATAR", "true"),
            ("GF_SNAPSHOTS_EXTERNAL_ENABLED", "false"),
            ("GF_USERS_ALLOW_SIGN_UP", "false"),
        ],
    };
    pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
}

/// InfluxDB's address as Grafana's server sees it, and whether that needs a name for the host.
fn reachable_url(external: Option<&str>, influxdb: Option<&ContainerSpec>, grafana_is_ours: bool) -> (String, bool) {
    match (external, influxdb) {
        (Some(url), _) if grafana_is_ours && is_loopback(host_of(url)) => {
            let host = host_of(url);
            let bracketed = format!("[{host}]");
            let written = if url.contains(&bracketed) { bracketed.as_str() } else { host };
            (url.replacen(written, ContainerSpec::HOST_NAME, 1), true)
        }
        (Some(url), _) => (url.to_string(), false),
        (None, Some(_)) if grafana_is_ours => {
            (format!("http://{}:{}", Role::Influxdb.name(), Role::Influxdb.port()), false)
        }
        (None, Some(spec)) => (spec.url(), false),
        (None, None) => (String::new(), false),
    }
}

/// Gives each container what it is to remember: everything that was given, since the other one may
/// be gone; and Grafana (else InfluxDB) what concerns neither.
fn share(
    influxdb: Option<ContainerSpec>,
    grafana: Option<ContainerSpec>,
    settings: &BTreeMap<String, String>,
    given: &Given,
    user: &str,
) -> (Option<ContainerSpec>, Option<ContainerSpec>) {
    let only_influxdb = grafana.is_none();
    let influxdb = influxdb.map(|mut spec| {
        spec.given.clone_from(given);
        if only_influxdb {
            spec.settings.clone_from(settings);
        }
        spec
    });
    let grafana = grafana.map(|mut spec| {
        spec.given.clone_from(given);
        spec.settings.clone_from(settings);
        if user != GRAFANA_USER {
            spec.env.insert("GF_SECURITY_ADMIN_USER".into(), user.into());
        }
        spec
    });
    (influxdb, grafana)
}

fn pull(merge: &Merge<'_>) -> Result<Pull> {
    match merge.inputs.options.pull {
        Some(PullWhen::Missing) => Ok(Pull::Missing),
        Some(PullWhen::Always) => Ok(Pull::Always),
        Some(PullWhen::Never) => Ok(Pull::Never),
        None => match merge.metrics("pull").as_deref() {
            None | Some("missing") => Ok(Pull::Missing),
            Some("always") => Ok(Pull::Always),
            Some("never") => Ok(Pull::Never),
            Some(other) => {
                Err(Error::usage(format!("pull in [metrics] is {other:?}"), "write missing, always or never"))
            }
        },
    }
}

fn timeout(merge: &Merge<'_>) -> Result<Duration> {
    let text = merge.inputs.options.timeout.clone().or_else(|| merge.metrics("timeout"));
    text.map_or(Ok(TIMEOUT), |text| duration(&text, "--timeout"))
}

/// A duration as a person types it.
///
/// # Errors
/// When it is none, or nothing.
pub fn duration(text: &str, option: &str) -> Result<Duration> {
    let duration = humantime::parse_duration(text)
        .map_err(|why| Error::usage(format!("{option} is {text:?}: {why}"), "write it as 90s, 10m, 6h or 1d"))?;
    if duration.is_zero() {
        return Err(Error::usage(format!("{option} is {text:?}"), "it must be longer than nothing"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        options: Options,
        file: Option<ClipperFile>,
        given: Given,
        site: Site,
        secrets: Secrets,
    }

    fn case() -> Case {
        Case {
            options: Options::default(),
            file: None,
            given: Given::new(),
            site: Site::Here,
            secrets: Secrets::default(),
        }
    }

    impl Case {
        fn merge(&self) -> Result<Stack> {
            merge(&Inputs {
                options: &self.options,
                file: self.file.as_ref(),
                given: &self.given,
                site: self.site.clone(),
                edition: "e",
                secrets: self.secrets.clone(),
                reset_password: false,
                resolve: &|name| {
                    if name == "localhost" { Ok(IpAddr::from([127, 0, 0, 1])) } else { Err("unknown".into()) }
                },
            })
            .map(|(stack, _)| stack)
        }
    }

    #[test]
    fn defaults_are_clippers_and_grafanas_own() {
        let stack = case().merge().unwrap();
        assert_eq!(stack.url(Role::Influxdb), "http://127.0.0.1:8086");
        assert_eq!(stack.url(Role::Grafana), "http://127.0.0.1:3000");
        assert_eq!((stack.database.as_str(), stack.data_source.url.as_str()), ("clipper", "http://influxdb:8086"));
        assert_eq!(stack.container(Role::Influxdb).unwrap().image, INFLUXDB_IMAGE);
        assert!(Role::ALL.into_iter().all(|role| stack.container(role).unwrap().given.is_empty()));
    }

    #[test]
    fn option_beats_file_beats_what_was_given_before() {
        let mut it = case();
        it.given = [("database".to_string(), "given".to_string()), ("grafana-port".into(), "3003".into())].into();
        assert_eq!(it.merge().unwrap().database, "given");
        it.file =
            Some(ClipperFile { database: Some("file".into()), influx_port: Some(8087), ..ClipperFile::default() });
        assert_eq!(it.merge().unwrap().database, "file");
        it.options.database = Some("an option".into());
        let stack = it.merge().unwrap();
        assert_eq!(stack.database, "an-option");
        assert_eq!(stack.url(Role::Influxdb), "http://127.0.0.1:8087");
        assert_eq!(stack.url(Role::Grafana), "http://127.0.0.1:3003");
        let grafana = stack.container(Role::Grafana).unwrap();
        assert_eq!(grafana.given["database"], "an option");
        assert_eq!(grafana.given["grafana-port"], "3003");
        assert_eq!(stack.container(Role::Influxdb).unwrap().given["influxdb-port"], "8087");
    }

    #[test]
    fn a_registry_stands_before_both_default_images_and_no_others() {
        let mut it = case();
        it.options.registry = Some("mirror:5000/".into());
        it.options.grafana_image = Some("own/grafana".into());
        let stack = it.merge().unwrap();
        assert_eq!(stack.container(Role::Influxdb).unwrap().image, format!("mirror:5000/{INFLUXDB_IMAGE}"));
        let grafana = stack.container(Role::Grafana).unwrap();
        assert_eq!((grafana.image.as_str(), grafana.read_only), ("own/grafana:latest", false));
    }

    #[test]
    fn a_host_name_becomes_one_address() {
        let mut it = case();
        it.options.influxdb_ip = Some("localhost".into());
        let stack = it.merge().unwrap();
        assert_eq!(stack.container(Role::Influxdb).unwrap().address, IpAddr::from([127, 0, 0, 1]));
        it.options.influxdb_ip = Some("nowhere".into());
        assert!(it.merge().is_err());
    }

    #[test]
    fn a_wildcard_is_reached_on_loopback_and_an_engine_elsewhere_by_its_name() {
        let mut it = case();
        it.options.influxdb_ip = Some("0.0.0.0".into());
        it.options.grafana_ip = Some("::".into());
        let stack = it.merge().unwrap();
        assert_eq!(stack.url(Role::Influxdb), "http://127.0.0.1:8086");
        assert_eq!(stack.url(Role::Grafana), "http://[::1]:3000");
        it.site = Site::Elsewhere("box".into());
        assert_eq!(it.merge().unwrap().url(Role::Influxdb), "http://box:8086");
        it.options.grafana_ip = None;
        let error = it.merge().unwrap_err();
        assert_eq!(error.exit(), crate::error::Exit::Usage);
        assert!(error.hint().contains("--grafana-ip"), "{}", error.hint());
    }

    #[test]
    fn the_default_password_is_for_loopback_alone() {
        let mut it = case();
        let kind = |it: &Case| it.merge().map(|stack| stack.container(Role::Grafana).unwrap().password);
        assert_eq!(kind(&it).unwrap(), Password::Default);
        it.secrets.grafana_password = Some(Secret::new("admin"));
        assert_eq!(kind(&it).unwrap(), Password::Default);
        it.options.grafana_ip = Some("0.0.0.0".into());
        assert!(kind(&it).is_err(), "admin/admin for everybody");
        it.secrets.grafana_password = None;
        assert_eq!(kind(&it).unwrap(), Password::File);
    }

    #[test]
    fn the_data_source_gets_the_address_that_grafana_can_reach() {
        let url = |influxdb: Option<&str>, grafana: Option<&str>| {
            let mut it = case();
            it.options.influxdb_url = influxdb.map(String::from);
            it.options.grafana_url = grafana.map(String::from);
            it.merge().unwrap().data_source.url
        };
        assert_eq!(url(None, None), "http://influxdb:8086");
        assert_eq!(url(Some("http://127.0.0.1:8086/"), None), "http://host.docker.internal:8086");
        assert_eq!(url(Some("http://[::1]:8086"), None), "http://host.docker.internal:8086");
        assert_eq!(url(Some("https://db.example:8086"), None), "https://db.example:8086");
        assert_eq!(url(None, Some("http://localhost:3000")), "http://127.0.0.1:8086");
        assert_eq!(url(Some("http://localhost:8086"), Some("http://localhost:3000")), "http://localhost:8086");
    }

    #[test]
    fn a_server_of_somebody_else_is_remembered_as_such_but_not_its_address() {
        let mut it = case();
        it.options.influxdb_url = Some("http://db.example:8086".into());
        let given = it.merge().unwrap().container(Role::Grafana).unwrap().given.clone();
        assert!(!given.values().any(|value| value.contains("db.example")));
        it.options.influxdb_url = None;
        it.given = given;
        assert!(it.merge().unwrap_err().to_string().contains("is not kept"));
    }
}
