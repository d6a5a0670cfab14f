//! Options, environment, Clipper's file and remembered settings, merged into one stack.
//!
//! The only place that knows precedence. Pure: it is told what it needs to know of files, names and
//! the engine, and must not ask for it.

mod containers;
mod contents;
pub mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::env::split_paths;
use std::net::IpAddr;
use std::time::Duration;

use self::containers::{container, data_source_url, default_image, keep_image, settings_from};
use self::contents::{alert_time, alerts, retention, user_dashboards};
use self::keys::{Setting, Values};
use crate::clipper::file::{ClipperFile, ValueKind, database_name};
use crate::core::address::{ServerUrl, collide};
use crate::core::image::ImageRef;
use crate::core::invocation::{Invocation, shell_word};
use crate::core::observed::StoredSettings;
use crate::core::role::Role;
use crate::core::specification::Specification;
use crate::core::stack::{
    ClipperTarget, Dashboard, DataSource, EngineLocation, Login, Lost, Pull, Remembered, Secret, Service, Settings,
    Stack, UserDashboard,
};
use crate::core::upgrade::Upgrade;
use crate::error::{Error, Result};
use crate::systems::{CaFile, Credentials, InfluxdbLogin};

/// Longer than anybody waits or looks back; the clock could not count some of what can be typed.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Secrets that were given, already read from their files or variables.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// Grafana's user's password.
    pub grafana_password: Option<Secret>,
    /// A token for Grafana.
    pub grafana_token: Option<Secret>,
    /// The password of InfluxDB's user.
    pub influxdb_password: Option<Secret>,
}

/// What was given to this run, everything already read.
#[derive(Clone)]
pub struct Inputs {
    /// The command line; an empty value takes back what was remembered.
    pub options: Values,
    /// The environment, without empty variables.
    pub environment: Values,
    /// Clipper's file.
    pub file: Option<ClipperFile>,
    /// Secrets.
    pub secrets: Secrets,
    /// Certificates to trust.
    pub ca_file: Option<CaFile>,
    /// Fingerprint of the bundled dashboard.
    pub edition: String,
    /// Fingerprint of the alert rules.
    pub alerts_edition: String,
    /// Where published ports appear.
    pub engine: EngineLocation,
    /// The engine that was chosen on the command line, as options for a suggested command.
    pub engine_options: String,
    /// What this run is given is not remembered, so a suggested command repeats it.
    pub repeats_options: bool,
    /// Turns a host name into its addresses, those of version 4 first.
    pub resolve: fn(&str) -> Vec<IpAddr>,
    /// This machine's address for other machines.
    pub own_address: fn() -> Option<IpAddr>,
    /// Reads a dashboard of the user's own for an instance, by its path.
    pub read_dashboard: fn(&str, &str) -> Result<UserDashboard>,
}

/// What is remembered with an instance.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The settings; `None` where no engine is asked.
    pub stored: Option<StoredSettings>,
    /// What the instance's containers were made from, looked up only where the settings are lost.
    pub containers: Vec<(Role, Option<Specification>)>,
}

impl Inputs {
    /// Option over environment over file.
    pub(crate) fn given(&self, setting: Setting) -> Option<&String> {
        self.options.get(&setting).or_else(|| self.environment.get(&setting)).or_else(|| self.of_file(setting))
    }

    fn of_file(&self, setting: Setting) -> Option<&String> {
        let file = self.file.as_ref()?;
        match setting {
            Setting::Database => file.database.as_ref(),
            // A Clipper in a container names the container: that is no address to publish at.
            Setting::InfluxdbIp | Setting::InfluxdbPort if self.names_container(file) => None,
            Setting::InfluxdbIp => file.influx_ip.as_ref(),
            Setting::InfluxdbPort => file.influx_port.as_ref(),
            setting => file.metrics.get(setting.key().key?),
        }
        .filter(|value| !value.is_empty())
    }

    /// The instance's name, which is needed before anything can be asked of the engine.
    ///
    /// # Errors
    /// [`Error::Usage`] when the name could not be a container's.
    pub fn instance(&self) -> Result<String> {
        let given = self.given(Setting::Name).filter(|name| !name.is_empty());
        let name = given.map_or(Setting::Name.key().default, String::as_str);
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.len() > 40 || !name.chars().all(letters) || name.starts_with('-') {
            return Err(Error::usage(
                format!("{name:?} cannot be the name of an instance"),
                "use up to 40 small letters, digits and dashes, beginning with a letter or digit",
            ));
        }
        Ok(name.to_string())
    }

    /// This run itself says that both servers already run, so no engine is asked.
    #[must_use]
    pub fn needs_no_engine(&self) -> bool {
        [Setting::InfluxdbUrl, Setting::GrafanaUrl]
            .into_iter()
            .all(|setting| self.given(setting).is_some_and(|url| !url.is_empty()))
    }

    /// Clipper's file has the name of the instance's own container in the place of an address.
    fn names_container(&self, file: &ClipperFile) -> bool {
        let own = self.instance().map(|name| Role::Influxdb.object_name(&name));
        file.influx_ip.as_ref().is_some_and(|host| own.is_ok_and(|own| own == *host))
    }

    /// How a suggested command reaches the same instance.
    fn invocation(&self) -> Invocation {
        invocation(&self.options, &self.environment, &self.engine_options, self.repeats_options)
    }
}

/// The options that name file and instance, as far as they were given outside of a file.
fn identity(options: &Values, environment: &Values) -> String {
    let mut text = String::new();
    for setting in [Setting::Config, Setting::Name] {
        if let Some(value) = options.get(&setting).or_else(|| environment.get(&setting))
            && !value.is_empty()
        {
            text.push_str(&format!(" {} {}", setting.option(), shell_word(value)));
        }
    }
    text
}

/// How a suggested command reaches the same instance; what is not remembered is repeated.
#[must_use]
pub fn invocation(options: &Values, environment: &Values, engine_options: &str, repeats: bool) -> Invocation {
    let is_other = |setting: &Setting| !matches!(setting, Setting::Config | Setting::Name | Setting::Output);
    let option = |setting: &Setting, value: &str| {
        let separator = if setting.key().kind == ValueKind::Flag { "=" } else { " " };
        format!(" {}{separator}{}", setting.option(), shell_word(value))
    };
    let given = options.iter().filter(|(setting, _)| is_other(setting)).map(|(setting, value)| {
        let typed = match setting.key().kind {
            ValueKind::Paths if !value.is_empty() => {
                split_paths(value).map(|path| option(setting, &path.to_string_lossy())).collect()
            }
            _ => option(setting, value),
        };
        (setting.key().option, typed)
    });
    Invocation::new(identity(options, environment), engine_options).with_options(given.collect(), repeats)
}

/// One merge in progress: every setting passes through [`Resolved::pick`].
struct Resolved<'a> {
    inputs: &'a Inputs,
    remembered: &'a BTreeMap<String, Remembered>,
    /// What is to be remembered from now on.
    values: BTreeMap<String, Remembered>,
}

impl Resolved<'_> {
    /// The value in force, by precedence; what somebody gave is noted, to be remembered.
    fn pick(&mut self, setting: Setting) -> Option<String> {
        let key = setting.key();
        let name = key.option;
        let note = |value: &str, of_file| Remembered { value: value.into(), of_file };
        let inputs = self.inputs;
        let found = if let Some(value) = inputs.options.get(&setting) {
            // An empty option is no value, and overrides the places below it.
            (!value.is_empty()).then(|| note(value, false))?
        } else if let Some(value) = inputs.environment.get(&setting) {
            note(value, false)
        } else if let Some(value) = inputs.of_file(setting) {
            note(value, true)
        } else {
            let remembered = self.remembered.get(name).filter(|_| key.remembered)?;
            if remembered.of_file && inputs.file.is_some() {
                return None;
            }
            remembered.clone()
        };
        if key.remembered {
            self.values.insert(name.to_string(), found.clone());
        }
        Some(found.value)
    }

    /// A setting that is a credential of the moment: given to this run, remembered never.
    fn credential(&self, setting: Setting) -> Option<String> {
        self.inputs.given(setting).filter(|value| !value.is_empty()).cloned()
    }

    fn url(&mut self, setting: Setting) -> Result<Option<ServerUrl>> {
        self.pick(setting).map(|text| server_url(&text, setting)).transpose()
    }
}

/// Checks the address of a server.
fn server_url(text: &str, setting: Setting) -> Result<ServerUrl> {
    let option = setting.option();
    let bad = |why: &str| Error::usage(format!("{option} is {text:?}: {why}"), "write it as http://host:port");
    let url = url::Url::parse(text).map_err(|_| bad("that is not a server's address"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it begins neither with http:// nor with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::usage(
            format!("{option} holds a user or password"),
            "give them with --grafana-user, --influxdb-user and the files for passwords, so that they show nowhere",
        ));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("there is no host in it"))?;
    if url.query().is_some() || url.fragment().is_some() || text.chars().any(char::is_whitespace) {
        return Err(bad("that is not a server's address"));
    }
    Ok(ServerUrl {
        tls: url.scheme() == "https",
        host: host.trim_start_matches('[').trim_end_matches(']').to_string(),
        port: url.port_or_known_default().ok_or_else(|| bad("there is no port in it"))?,
        path: url.path().trim_end_matches('/').to_string(),
    })
}

/// Merges everything into one stack, and says how to sign in.
///
/// # Errors
/// [`Error::Usage`] when a setting cannot work, with its option's name.
pub fn merge(inputs: &Inputs, memory: &Memory) -> Result<(Stack, Credentials)> {
    let Some(stored) = &memory.stored else { return merge_with(inputs, &BTreeMap::new(), Remembering::Nothing, None) };
    let upgrade = stored.upgrade.as_ref();
    match &stored.values {
        Some(values) => merge_with(inputs, values, Remembering::Known, upgrade),
        None if stored.numbers.is_empty() && memory.containers.is_empty() => {
            merge_with(inputs, &BTreeMap::new(), Remembering::Known, None)
        }
        None if stored.numbers.is_empty() => merge_without(inputs, memory, "lost"),
        None => merge_without(inputs, memory, "unreadable"),
    }
}

/// The images that this run would use otherwise if the memory named none.
///
/// # Errors
/// [`Error::Usage`] as [`merge`].
pub fn remembered_images(inputs: &Inputs, memory: &Memory, stack: &Stack) -> Result<Vec<(Role, ImageRef)>> {
    let mut memory = memory.clone();
    for setting in [Setting::InfluxdbImage, Setting::GrafanaImage, Setting::Registry] {
        if let Some(values) = memory.stored.as_mut().and_then(|stored| stored.values.as_mut()) {
            values.remove(setting.key().option);
        }
    }
    let (own, _) = merge(inputs, &memory)?;
    let image = |stack: &Stack, role| stack.container(role).map(|spec| spec.specification.image.clone());
    let images = Role::ALL.into_iter().filter(|role| image(stack, *role) != image(&own, *role));
    Ok(images.filter_map(|role| Some((role, image(stack, role)?))).collect())
}

/// What is remembered can be read. Nobody typed what somebody wrote into a label: a value that no
/// option would take makes all of it unreadable.
#[must_use]
pub fn is_readable(values: &BTreeMap<String, Remembered>) -> bool {
    values.iter().all(|(name, remembered)| {
        let text = remembered.value.as_str();
        let Some(key) = keys::TABLE.iter().find(|key| key.option == name) else { return true };
        !text.is_empty()
            && match key.setting {
                Setting::InfluxdbPort | Setting::GrafanaPort => text.parse::<u16>().is_ok_and(|port| port != 0),
                Setting::InfluxdbUrl | Setting::GrafanaUrl | Setting::DataSourceUrl => {
                    server_url(text, key.setting).is_ok()
                }
                Setting::InfluxdbImage | Setting::GrafanaImage => ImageRef::parse(text).is_ok(),
                Setting::Registry => ImageRef::parse(&format!("{text}/x")).is_ok(),
                Setting::Database => database_name(text).is_ok(),
                Setting::Alerts => matches!(text, "true" | "false"),
                Setting::AlertLatencyAfter | Setting::AlertSilenceAfter => alert_time(text, key.setting).is_ok(),
                _ => true,
            }
    })
}

/// Checks what was given to this run, as far as that does not depend on what is remembered.
///
/// # Errors
/// [`Error::Usage`] as [`merge`].
pub fn check(inputs: &Inputs) -> Result<()> {
    let mut inputs = inputs.clone();
    // Credentials may be for a server whose address is remembered, and what the file says of a
    // container is nothing to such a server.
    inputs.secrets = Secrets::default();
    inputs.options.insert(Setting::InfluxdbUser, String::new());
    if let Some(file) = &mut inputs.file {
        file.influx_ip = None;
        file.metrics.remove("grafana_ip");
    }
    merge_with(&inputs, &BTreeMap::new(), Remembering::Nothing, None).map(drop)
}

/// What the containers were made from stands in for remembered settings.
fn merge_without(inputs: &Inputs, memory: &Memory, why: &str) -> Result<(Stack, Credentials)> {
    let mut values = BTreeMap::new();
    for (role, specification) in &memory.containers {
        for (setting, value) in specification.iter().flat_map(|have| settings_from(*role, have)) {
            values.insert(setting.key().option.to_string(), Remembered { value, of_file: false });
        }
    }
    let unknown_database = inputs.given(Setting::Database).is_none();
    merge_with(inputs, &values, Remembering::Lost(Lost { why: why.into(), unknown_database }), None)
}

/// Whether settings are remembered.
enum Remembering {
    /// No engine is asked.
    Nothing,
    /// They are, and what was remembered before is known.
    Known,
    /// They are, but what was remembered before is gone.
    Lost(Lost),
}

/// The merge itself.
fn merge_with(
    inputs: &Inputs,
    remembered: &BTreeMap<String, Remembered>,
    remembering: Remembering,
    upgrade: Option<&Upgrade>,
) -> Result<(Stack, Credentials)> {
    let name = inputs.instance()?;
    let mut resolved = Resolved { inputs, remembered, values: BTreeMap::new() };
    let influxdb_url = resolved.url(Setting::InfluxdbUrl)?;
    let grafana_url = resolved.url(Setting::GrafanaUrl)?;
    // A registry is remembered also while no default image is used.
    resolved.pick(Setting::Registry);
    let mut serve = |role, url: &Option<ServerUrl>| -> Result<Service> {
        // Settings of a container that is not used now are kept for the way back.
        let spec = container(&mut resolved, role, &name);
        match url {
            Some(url) => Ok(Service::External { url: url.clone() }),
            None => Ok(Service::Container(Box::new(spec?))),
        }
    };
    let influxdb = serve(Role::Influxdb, &influxdb_url)?;
    let mut grafana = serve(Role::Grafana, &grafana_url)?;
    let default_image = default_image(&mut resolved, Setting::GrafanaImage);
    let refused_image = upgrade.and_then(|upgrade| keep_image(&resolved, upgrade, &default_image, &mut grafana));
    // Before what is remembered is known, the other port may be another one.
    if let (Service::Container(one), Service::Container(other)) = (&influxdb, &grafana)
        && !matches!(remembering, Remembering::Nothing)
        && collide(one.specification.publish, other.specification.publish)
    {
        return Err(Error::usage(
            format!("InfluxDB and Grafana cannot both be published at port {}", one.specification.publish.port()),
            "give one of them another port with --influxdb-port or --grafana-port",
        ));
    }
    let database = resolved.pick(Setting::Database);
    let database = database.unwrap_or_else(|| Setting::Database.key().default.into());
    let database = database_name(&database).map_err(|why| {
        Error::usage(format!("--database is {database:?}: {why}"), "choose another name, in Clipper's file too")
    })?;
    let organisation = resolved.pick(Setting::GrafanaOrg);
    let folder = resolved.pick(Setting::GrafanaFolder);
    let chosen_url = resolved.url(Setting::DataSourceUrl)?;
    let influxdb_user = resolved.credential(Setting::InfluxdbUser);
    if influxdb_url.is_none() && (influxdb_user.is_some() || inputs.secrets.influxdb_password.is_some()) {
        return Err(Error::usage(
            "--influxdb-user and its password are for an InfluxDB that already runs",
            "give --influxdb-url too, or omit them: Clipper speaks to the container without credentials",
        ));
    }
    let (worked_out, host_gateway) = data_source_url(&influxdb, &grafana);
    if let (Service::Container(spec), true) = (&mut grafana, chosen_url.is_none()) {
        spec.specification.host_gateway = host_gateway;
    }
    if host_gateway && chosen_url.is_none() {
        expect_same_machine(&inputs.engine)?;
    }
    let title = title(&name);
    let (user_dashboards, unreadable_dashboards) = user_dashboards(&mut resolved, &name, &title)?;
    let login = login(&mut resolved, grafana_url.is_none());
    let publishes_everywhere = publishes_everywhere(&influxdb) || publishes_everywhere(&grafana);
    let stack = Stack {
        influxdb,
        grafana,
        data_source: DataSource {
            uid: name.clone(),
            name: title.clone(),
            url: chosen_url.map_or(worked_out, |url| url.to_string()),
            database: database.clone(),
            user: influxdb_user.clone().unwrap_or_default(),
        },
        dashboard: Dashboard {
            uid: name.clone(),
            title,
            edition: inputs.edition.clone(),
            objective: inputs.file.as_ref().and_then(|file| file.slo_micros),
            models: inputs.file.as_ref().map(|file| file.models.clone()),
        },
        user_dashboards,
        unreadable_dashboards,
        alerts: alerts(&mut resolved)?,
        instance: name,
        database,
        organisation,
        folder,
        refused_image,
        default_image,
        pull: pull(&mut resolved)?,
        retention: retention(&mut resolved)?,
        timeout: timeout(&mut resolved)?,
        engine: inputs.engine.clone(),
        clipper: inputs.file.as_ref().map(|file| target(file, inputs)),
        invocation: inputs.invocation(),
        own_address: publishes_everywhere.then(inputs.own_address).flatten(),
        settings: match remembering {
            Remembering::Nothing => None,
            Remembering::Known => Some(Settings { values: std::mem::take(&mut resolved.values), lost: None }),
            Remembering::Lost(lost) => {
                Some(Settings { values: std::mem::take(&mut resolved.values), lost: Some(lost) })
            }
        },
        login,
    };
    let credentials = credentials(inputs, &stack.login, influxdb_user)?;
    Ok((stack, credentials))
}

/// What the data source and the dashboard of an instance are called.
fn title(name: &str) -> String {
    if name == Setting::Name.key().default { "Clipper Metrics".into() } else { format!("Clipper Metrics ({name})") }
}

/// Grafana's container reaches a loopback address of this machine only where it runs here.
fn expect_same_machine(engine: &EngineLocation) -> Result<()> {
    let (EngineLocation::Elsewhere(host) | EngineLocation::OverSsh { host, .. }) = engine else { return Ok(()) };
    Err(Error::usage(
        format!("InfluxDB's address is a loopback address of this machine, where Grafana on {host} cannot reach it"),
        "give the address under which Grafana's server reaches InfluxDB with --data-source-url",
    ))
}

/// A container of ours is published at every address of its machine.
fn publishes_everywhere(service: &Service) -> bool {
    match service {
        Service::Container(spec) => spec.specification.publish.ip().is_unspecified(),
        Service::External { .. } => false,
    }
}

/// Who signs in. Of a Grafana that is not ours the user is a credential, and not remembered.
fn login(resolved: &mut Resolved<'_>, is_ours: bool) -> Login {
    let before = resolved.remembered.get(Setting::GrafanaUser.key().option).map(|remembered| remembered.value.clone());
    let user = if is_ours {
        resolved.pick(Setting::GrafanaUser)
    } else {
        // That of the container is kept for the way back.
        let name = Setting::GrafanaUser.key().option;
        let kept = resolved.remembered.get(name).cloned();
        resolved.values.extend(kept.map(|kept| (name.to_string(), kept)));
        resolved.credential(Setting::GrafanaUser)
    };
    let default = || Login::ADMIN.to_string();
    let is_new = user.as_deref().unwrap_or(Login::ADMIN) != before.as_deref().unwrap_or(Login::ADMIN);
    let secrets = &resolved.inputs.secrets;
    let token = secrets.grafana_token.is_some();
    Login { user: user.unwrap_or_else(default), token, given: !token && (secrets.grafana_password.is_some() || is_new) }
}

fn credentials(inputs: &Inputs, login: &Login, influxdb_user: Option<String>) -> Result<Credentials> {
    let secrets = inputs.secrets.clone();
    let influxdb = match (influxdb_user, secrets.influxdb_password) {
        (Some(user), password) => Some(InfluxdbLogin { user, password: password.unwrap_or_else(|| Secret::new("")) }),
        (None, Some(_)) => {
            return Err(Error::usage("a password for InfluxDB is given, but no user", "give --influxdb-user too"));
        }
        (None, None) => None,
    };
    Ok(Credentials {
        grafana_user: login.user.clone(),
        grafana_password: secrets.grafana_password,
        default_password: Secret::new(Login::PUBLIC_PASSWORD),
        grafana_token: secrets.grafana_token,
        influxdb,
        ca_file: inputs.ca_file.clone(),
    })
}

/// Where Clipper will write by its own file and its own defaults.
fn target(file: &ClipperFile, inputs: &Inputs) -> ClipperTarget {
    let host = file.influx_ip.clone().unwrap_or_else(|| "127.0.0.1".into());
    let addresses = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => (inputs.resolve)(&host),
    };
    ClipperTarget {
        addresses,
        host,
        port: file.influx_port.as_ref().and_then(|port| port.parse().ok()).unwrap_or(Role::Influxdb.port()),
        database: file.database.clone().unwrap_or_default(),
    }
}

fn pull(resolved: &mut Resolved<'_>) -> Result<Pull> {
    match resolved.pick(Setting::Pull).as_deref() {
        None | Some("missing") => Ok(Pull::Missing),
        Some("always") => Ok(Pull::Always),
        Some("never") => Ok(Pull::Never),
        Some(other) => Err(Error::usage(format!("--pull is {other:?}"), "give missing, always or never")),
    }
}

fn timeout(resolved: &mut Resolved<'_>) -> Result<Duration> {
    let text = resolved.pick(Setting::Timeout).unwrap_or_else(|| Setting::Timeout.key().default.into());
    duration(&text, "--timeout")
}

/// A duration as a person types it.
///
/// # Errors
/// [`Error::Usage`] when it is none, nothing, or longer than a clock can count.
pub fn duration(text: &str, option: &str) -> Result<Duration> {
    let hint = "write it as 90s, 10m, 6h or 1d";
    let duration =
        humantime::parse_duration(text).map_err(|why| Error::usage(format!("{option} is {text:?}: {why}"), hint))?;
    if duration.is_zero() {
        return Err(Error::usage(format!("{option} is {text:?}"), "it must be longer than nothing"));
    }
    if duration > LONGEST {
        return Err(Error::usage(format!("{option} is {text:?}: longer than 100 years"), hint));
    }
    Ok(duration)
}
