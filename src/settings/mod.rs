//! Merges options, environment, Clipper's file and remembered settings into one stack, by precedence.
//!
//! It reads no files and asks no server: its inputs contain everything.

mod containers;
mod contents;
pub mod keys;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::env::split_paths;
use std::net::IpAddr;
use std::time::Duration;

use self::containers::{
    LoopbackOwner, container, data_source_url, default_image, keep_image, loopback_owner, settings_from, settings_of,
    unbracketed,
};
use self::contents::{alerts, retention, user_dashboards};
use self::keys::{Setting, Values};
pub use self::values::duration;
use crate::clipper::file::{ClipperFile, ValueKind};
use crate::error::{Error, Result};
use crate::model::address::{ServerUrl, collide};
use crate::model::container_config::ContainerConfig;
use crate::model::credentials::{CaFile, Credentials, InfluxdbLogin};
use crate::model::image::ImageRef;
use crate::model::invocation::{GivenOption, Invocation, Scope, shell_word, typed_option};
use crate::model::observed::StoredSettings;
use crate::model::role::Role;
use crate::model::stack::{
    ClipperTarget, DesiredDashboard, DesiredDataSource, DesiredUserDashboard, EngineLocation, Login, Loss, Lost,
    MadeFor, Pull, Remembered, Secret, Service, Settings, Stack, UnknownSetting,
};

/// The supplied secrets, already read from their files or variables.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// The password of Grafana's user.
    pub grafana_password: Option<Secret>,
    /// A token for Grafana.
    pub grafana_token: Option<Secret>,
    /// The password of InfluxDB's user.
    pub influxdb_password: Option<Secret>,
}

/// The inputs of a run, all of them already read.
#[derive(Clone)]
pub struct Inputs {
    /// The command line. An empty value removes a remembered one.
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
    pub content_hash: String,
    /// Fingerprint of the alert rules.
    pub alerts_hash: String,
    /// The machine where published ports appear.
    pub engine: EngineLocation,
    /// The engine that was chosen on the command line, as options for a suggested command.
    pub engine_options: String,
    /// Resolves a host name to its addresses, IPv4 first.
    pub resolve: fn(&str) -> Vec<IpAddr>,
    /// This machine's address for other hosts.
    pub own_address: fn() -> Option<IpAddr>,
    /// A fingerprint of this machine that no other machine has, if the system knows one.
    pub machine: Option<String>,
    /// A fingerprint of the engine's host, if an external Grafana may receive an address on its loopback.
    pub engine_machine: Option<String>,
    /// Whether this machine has an address.
    pub has_address: fn(IpAddr) -> bool,
    /// Reads a user's dashboard for an instance, by its path.
    pub read_dashboard: fn(&str, &str) -> Result<DesiredUserDashboard>,
}

/// The memory of an instance.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The settings; `None` if no engine is used.
    pub stored: Option<StoredSettings>,
    /// The specifications of the instance's containers, read only if settings are lost or unreadable, or if a
    /// remembered host name has no address.
    pub containers: Vec<(Role, Option<ContainerConfig>)>,
    /// A data volume of the instance exists; read only if no settings are stored.
    pub has_data: bool,
}

impl Memory {
    /// The address that the role's container was created with.
    pub(super) fn address_of(&self, role: Role) -> Option<IpAddr> {
        let made = self.containers.iter().find(|(one, _)| *one == role)?.1.as_ref()?;
        // A container that was created to try a login is published elsewhere.
        (made.publish.port() != 0).then(|| made.publish.ip())
    }

    /// Whether a container shows the address for a setting.
    #[must_use]
    pub fn has_address_for(&self, setting: Setting) -> bool {
        let role = if setting == Setting::InfluxdbIp { Role::Influxdb } else { Role::Grafana };
        self.address_of(role).is_some()
    }
}

impl Inputs {
    /// The value of the option, otherwise of the environment, otherwise of the file.
    pub(crate) fn given(&self, setting: Setting) -> Option<&String> {
        self.options.get(&setting).or_else(|| self.environment.get(&setting)).or_else(|| self.in_file(setting))
    }

    fn in_file(&self, setting: Setting) -> Option<&String> {
        let file = self.file.as_ref()?;
        match setting {
            Setting::Database => file.database.as_ref(),
            // A Clipper in a container names the container, which is not an address to publish at.
            Setting::InfluxdbIp | Setting::InfluxdbPort if self.names_container(file) => None,
            Setting::InfluxdbIp => file.influx_ip.as_ref(),
            Setting::InfluxdbPort => file.influx_port.as_ref(),
            setting => file.metrics.get(setting.key().key?),
        }
        .filter(|value| !value.is_empty())
    }

    /// The addresses of a host that is given by address or by name.
    #[must_use]
    pub fn addresses(&self, host: &str) -> Vec<IpAddr> {
        host.parse().map_or_else(|_| (self.resolve)(host), |ip| vec![ip])
    }

    /// The instance's name, which every request to the engine needs.
    ///
    /// # Errors
    /// [`Error::Usage`] if the name is not valid for a container.
    pub fn instance(&self) -> Result<String> {
        let given = self.given(Setting::Name).filter(|name| !name.is_empty());
        let name = given.map_or(Setting::Name.key().default, String::as_str);
        values::instance_name(name)?;
        Ok(name.to_string())
    }

    /// This run names both servers, so it needs no engine.
    #[must_use]
    pub fn needs_no_engine(&self) -> bool {
        [Setting::InfluxdbUrl, Setting::GrafanaUrl]
            .into_iter()
            .all(|setting| self.given(setting).is_some_and(|url| !url.is_empty()))
    }

    /// Clipper's file names the instance's own container in place of an address.
    fn names_container(&self, file: &ClipperFile) -> bool {
        let own = self.instance().map(|name| Role::Influxdb.object_name(&name));
        file.influx_ip.as_ref().is_some_and(|host| own.is_ok_and(|own| own == *host))
    }
}

/// The options that suggested commands repeat. An external Grafana's account is a credential.
#[must_use]
pub fn invocation(
    options: &Values,
    environment: &Values,
    engine_options: &str,
    grafana_is_external: bool,
) -> Invocation {
    let scope = |setting| match setting {
        Setting::Output => None,
        Setting::Config | Setting::Name => Some(Scope::Instance),
        Setting::CaFile | Setting::GrafanaTokenFile | Setting::InfluxdbUser | Setting::InfluxdbPasswordFile => {
            Some(Scope::Servers)
        }
        Setting::GrafanaUser | Setting::GrafanaPasswordFile if grafana_is_external => Some(Scope::Servers),
        _ => Some(Scope::Settings),
    };
    // A pasted command has the same environment, but a variable that was set for one command is easily overlooked.
    let identity = environment.iter().filter(|(setting, value)| {
        scope(**setting) == Some(Scope::Instance) && !options.contains_key(setting) && !value.is_empty()
    });
    let mut given: Vec<(&Setting, &String)> = options.iter().chain(identity).collect();
    given.sort_unstable();
    let given = given.into_iter().filter_map(|(setting, value)| {
        let key = setting.key();
        let (typed, scope) = (typed(*setting, value), scope(*setting)?);
        Some(GivenOption { name: key.option, typed, scope, commands: key.commands })
    });
    Invocation::new(given.collect(), engine_options)
}

/// An option as it is typed.
fn typed(setting: Setting, value: &str) -> String {
    let option = setting.option();
    match setting.key().kind {
        ValueKind::Flag => format!(" {option}={}", shell_word(value)),
        ValueKind::Paths if !value.is_empty() => {
            split_paths(value).map(|path| typed_option(&option, &path.to_string_lossy())).collect()
        }
        _ => typed_option(&option, value),
    }
}

/// A merge in progress. Every setting passes through [`Resolved::pick`].
struct Resolved<'a> {
    inputs: &'a Inputs,
    memory: &'a Memory,
    remembered: BTreeMap<String, Remembered>,
    /// The values to remember.
    values: BTreeMap<String, Remembered>,
}

impl Resolved<'_> {
    /// The effective value by precedence. A supplied value is added to the values to remember.
    fn pick(&mut self, setting: Setting) -> Option<String> {
        let key = setting.key();
        let name = key.option;
        let note = |value: &str, from_file| Remembered { value: value.into(), from_file };
        let inputs = self.inputs;
        let found = if let Some(value) = inputs.options.get(&setting) {
            // An empty option means no value, and overrides the sources below it.
            (!value.is_empty()).then(|| note(value, false))?
        } else if let Some(value) = inputs.environment.get(&setting) {
            note(value, false)
        } else if let Some(value) = inputs.in_file(setting) {
            note(value, true)
        } else {
            let remembered = self.remembered.get(name).filter(|_| key.remembered)?;
            if remembered.from_file && inputs.file.is_some() {
                return None;
            }
            remembered.clone()
        };
        if key.remembered {
            self.values.insert(name.to_string(), found.clone());
        }
        Some(found.value)
    }

    /// A credential: supplied to this run, and never remembered.
    fn credential(&self, setting: Setting) -> Option<String> {
        self.inputs.given(setting).filter(|value| !value.is_empty()).cloned()
    }

    fn url(&mut self, setting: Setting) -> Result<Option<ServerUrl>> {
        self.pick(setting).map(|text| values::server_url(&text, &setting.option())).transpose()
    }
}

/// Merges all inputs into a stack and the credentials for it.
///
/// # Errors
/// [`Error::Usage`] with the option's name, if a setting is invalid.
pub fn merge(inputs: &Inputs, memory: &Memory) -> Result<(Stack, Credentials)> {
    let Some(stored) = &memory.stored else { return merge_with(inputs, memory, BTreeMap::new(), Remembering::Nothing) };
    let Some(values) = &stored.values else {
        if stored.numbers.is_empty() && memory.containers.is_empty() && !memory.has_data {
            return merge_with(inputs, memory, BTreeMap::new(), Remembering::Known);
        }
        let cause = if stored.numbers.is_empty() { Loss::Gone } else { Loss::Unreadable };
        let unknown = nothing_tells(inputs, memory);
        return merge_with(inputs, memory, stand_ins(memory), Remembering::Lost(cause, unknown));
    };
    let (mut readable, unreadable) = split(values);
    let mut unknown = Vec::new();
    for (key, remembered) in unreadable {
        let is_overridden = inputs.given(key.setting).is_some() || (remembered.from_file && inputs.file.is_some());
        match stand_ins(memory).remove(key.option) {
            _ if is_overridden => {}
            Some(stand_in) => drop(readable.insert(key.option.into(), stand_in)),
            None => unknown.push((key.setting, Some(remembered.value))),
        }
    }
    let remembering = if unknown.is_empty() { Remembering::Known } else { Remembering::Lost(Loss::Values, unknown) };
    merge_with(inputs, memory, readable, remembering)
}

/// The images that only the memory names, not this run.
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
    let image = |stack: &Stack, role| stack.container(role).map(|spec| spec.config.image.clone());
    let images = Role::ALL.into_iter().filter(|role| image(stack, *role) != image(&own, *role));
    Ok(images.filter_map(|role| Some((role, image(stack, role)?))).collect())
}

/// Splits remembered values into valid and invalid ones: one invalid value does not make the others unusable.
fn split(
    values: &BTreeMap<String, Remembered>,
) -> (BTreeMap<String, Remembered>, Vec<(&'static keys::Key, Remembered)>) {
    let (mut readable, mut unreadable) = (BTreeMap::new(), Vec::new());
    for (name, remembered) in values {
        let text = remembered.value.as_str();
        match keys::TABLE.iter().find(|key| key.option == name) {
            Some(key) if text.is_empty() || values::check(key.setting, text, name).is_err() => {
                unreadable.push((key, remembered.clone()));
            }
            _ => drop(readable.insert(name.clone(), remembered.clone())),
        }
    }
    (readable, unreadable)
}

/// Whether the containers must be read to know an instance's settings: some are lost, or a remembered host name has no
/// address at the moment.
#[must_use]
pub fn needs_containers(inputs: &Inputs, stored: &StoredSettings) -> bool {
    let is_lost = stored.values.as_ref().is_none_or(|values| !split(values).1.is_empty());
    is_lost || !names_without_address(inputs, stored).is_empty()
}

/// The remembered host names to publish at that this run uses and that have no address at the moment.
#[must_use]
pub fn names_without_address(inputs: &Inputs, stored: &StoredSettings) -> Vec<(Setting, String)> {
    let used = |setting: Setting| {
        let remembered = stored.values.as_ref()?.get(setting.key().option)?;
        (!remembered.from_file || inputs.file.is_none())
            .then_some(remembered.value.as_str())
            .filter(|text| !text.is_empty())
    };
    let is_external = |url: Setting| inputs.given(url).map_or(used(url).is_some(), |url| !url.is_empty());
    let names = [(Setting::InfluxdbIp, Setting::InfluxdbUrl), (Setting::GrafanaIp, Setting::GrafanaUrl)];
    let names = names.into_iter().filter(|(ip, url)| inputs.given(*ip).is_none() && !is_external(*url));
    let names = names.filter_map(|(ip, _)| Some((ip, used(ip)?.to_string())));
    names.filter(|(_, host)| inputs.addresses(unbracketed(host)).is_empty()).collect()
}

/// The settings that the containers were created from, in place of remembered ones.
fn stand_ins(memory: &Memory) -> BTreeMap<String, Remembered> {
    let made =
        memory.containers.iter().flat_map(|(role, made)| made.iter().flat_map(|made| settings_from(*role, made)));
    made.map(|(setting, value)| (setting.key().option.to_string(), Remembered { value, from_file: false })).collect()
}

/// The required settings that are unknown after all remembered settings were lost: neither an input nor a container
/// contains them.
fn nothing_tells(inputs: &Inputs, memory: &Memory) -> Vec<(Setting, Option<String>)> {
    let has_container = |role| memory.containers.iter().any(|(one, _)| *one == role);
    [
        (Setting::Database, false),
        (Setting::InfluxdbUrl, has_container(Role::Influxdb)),
        (Setting::GrafanaUrl, has_container(Role::Grafana)),
    ]
    .into_iter()
    .filter(|(setting, is_told)| !is_told && inputs.given(*setting).is_none())
    .map(|(setting, _)| (setting, None))
    .collect()
}

/// Checks each value that this run supplies, even if this run does not use it.
///
/// # Errors
/// [`Error::Usage`] that names the option, the variable or the key in Clipper's file.
pub fn check_values(inputs: &Inputs) -> Result<()> {
    let file = inputs.file.as_ref();
    for key in keys::TABLE {
        let in_file = key.key.zip(file).map(|(name, file)| (format!("{name} in {}", file.path.display()), name, file));
        let sources = [
            (key.setting.option(), inputs.options.get(&key.setting)),
            (key.variable.to_string(), inputs.environment.get(&key.setting)),
        ]
        .into_iter()
        .chain(in_file.map(|(name, key, file)| (name, file.metrics.get(key))));
        for (name, text) in sources {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                values::check(key.setting, text, &name)?;
            }
        }
    }
    Ok(())
}

/// Checks the inputs of this run that do not depend on remembered settings.
///
/// # Errors
/// [`Error::Usage`] as [`merge`].
pub fn check(inputs: &Inputs) -> Result<()> {
    let mut inputs = inputs.clone();
    // Credentials may be for a server whose address is remembered, and the file's settings of a container do not apply
    // to such a server.
    inputs.secrets = Secrets::default();
    inputs.options.insert(Setting::InfluxdbUser, String::new());
    if let Some(file) = &mut inputs.file {
        file.influx_ip = None;
        file.metrics.remove("grafana_ip");
    }
    merge_with(&inputs, &Memory::default(), BTreeMap::new(), Remembering::Nothing).map(drop)
}

/// Whether settings are remembered.
enum Remembering {
    /// No engine is used.
    Nothing,
    /// They are remembered, and the earlier values are known.
    Known,
    /// They are remembered, but some of the earlier values are lost.
    Lost(Loss, Vec<(Setting, Option<String>)>),
}

/// The fingerprint of the machine that owns a loopback address.
fn fingerprint_of(owner: &LoopbackOwner, inputs: &Inputs) -> String {
    let known = match owner {
        LoopbackOwner::ThisMachine => inputs.machine.as_ref(),
        LoopbackOwner::Engine => inputs.engine_machine.as_ref(),
    };
    known.map_or(MadeFor::UNKNOWN_MACHINE, String::as_str).to_string()
}

fn merge_with(
    inputs: &Inputs,
    memory: &Memory,
    remembered: BTreeMap<String, Remembered>,
    remembering: Remembering,
) -> Result<(Stack, Credentials)> {
    let name = inputs.instance()?;
    // Lost settings say nothing about an upgrade.
    let stored = memory.stored.as_ref().filter(|stored| stored.values.is_some());
    let upgrade = stored.and_then(|stored| stored.upgrade.as_ref());
    let mut resolved = Resolved { inputs, memory, remembered, values: BTreeMap::new() };
    let influxdb_url = resolved.url(Setting::InfluxdbUrl)?;
    let grafana_url = resolved.url(Setting::GrafanaUrl)?;
    // A registry is remembered even if no default image is used.
    resolved.pick(Setting::Registry);
    let mut serve = |role, url: &Option<ServerUrl>| -> Result<Service> {
        // The settings of an unused container are kept for a later switch back.
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
    // Without the remembered settings, the other port may differ.
    if let (Service::Container(one), Service::Container(other)) = (&influxdb, &grafana)
        && !matches!(remembering, Remembering::Nothing)
        && collide(one.config.publish, other.config.publish)
    {
        return Err(Error::usage(
            format!("InfluxDB and Grafana cannot both be published at port {}", one.config.publish.port()),
            "choose another port with --influxdb-port or --grafana-port",
        ));
    }
    let database = resolved.pick(Setting::Database);
    let database = database.unwrap_or_else(|| Setting::Database.key().default.into());
    let database = values::database(&database, &Setting::Database.option())?;
    let organisation = resolved.pick(Setting::GrafanaOrg);
    let folder = resolved.pick(Setting::GrafanaFolder);
    let chosen_url = resolved.url(Setting::DataSourceUrl)?;
    let influxdb_user = resolved.credential(Setting::InfluxdbUser);
    if influxdb_url.is_none() && (influxdb_user.is_some() || inputs.secrets.influxdb_password.is_some()) {
        return Err(Error::usage(
            "--influxdb-user and its password are for an external InfluxDB",
            "add --influxdb-url, or omit them: Clipper writes to the container without credentials",
        ));
    }
    let (worked_out, host_gateway) = data_source_url(&influxdb, &grafana);
    let loopback = loopback_owner(&influxdb, &grafana, &inputs.engine).filter(|_| chosen_url.is_none());
    let machine = loopback.map(|owner| fingerprint_of(&owner, inputs));
    if let (Service::Container(spec), true) = (&mut grafana, chosen_url.is_none()) {
        spec.config.host_gateway = host_gateway;
    }
    if host_gateway && chosen_url.is_none() {
        expect_same_machine(&inputs.engine)?;
    }
    let title = title(&name);
    let (user_dashboards, unreadable_dashboards) = user_dashboards(&mut resolved, &name, &title)?;
    let login = login(&mut resolved, grafana_url.is_none());
    let is_external = |role| match role {
        Role::Influxdb => influxdb_url.is_some(),
        Role::Grafana => grafana_url.is_some(),
    };
    let publishes_everywhere = publishes_everywhere(&influxdb) || publishes_everywhere(&grafana);
    let stack = Stack {
        influxdb,
        grafana,
        data_source: DesiredDataSource {
            uid: name.clone(),
            name: title.clone(),
            is_url_chosen: chosen_url.is_some(),
            url: chosen_url.map_or(worked_out, |url| url.to_string()),
            database: database.clone(),
            user: influxdb_user.clone().unwrap_or_default(),
            machine,
        },
        dashboard: DesiredDashboard {
            uid: name.clone(),
            title,
            content_hash: inputs.content_hash.clone(),
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
        restore: None,
        replaced_restore: None,
        refused_image,
        default_image,
        pull: pull(&mut resolved)?,
        retention: retention(&mut resolved)?,
        timeout: timeout(&mut resolved)?,
        engine: inputs.engine.clone(),
        clipper: inputs.file.as_ref().map(|file| target(file, inputs)),
        invocation: invocation(&inputs.options, &inputs.environment, &inputs.engine_options, grafana_url.is_some()),
        own_address: publishes_everywhere.then(inputs.own_address).flatten(),
        settings: remembering.settings(std::mem::take(&mut resolved.values), is_external),
        login,
    };
    let credentials = credentials(inputs, &stack.login, influxdb_user)?;
    Ok((stack, credentials))
}

impl Remembering {
    /// The settings to remember. Lost values of an unused container are not needed.
    fn settings(self, values: BTreeMap<String, Remembered>, is_external: impl Fn(Role) -> bool) -> Option<Settings> {
        let of_unused = |setting: Setting| {
            Role::ALL.into_iter().filter(|role| is_external(*role)).any(|role| {
                let (ip, port, image) = settings_of(role);
                [ip, port, image].contains(&setting) || (role == Role::Grafana && setting == Setting::GrafanaUser)
            })
        };
        let lost = match self {
            Self::Nothing => return None,
            Self::Known => None,
            Self::Lost(cause, unknown) => {
                let unknown = unknown.into_iter().filter(|(setting, _)| !of_unused(*setting));
                let unknown = unknown.map(|(setting, stored)| UnknownSetting {
                    option: setting.key().option,
                    value_name: setting.key().value_name,
                    is_server: matches!(setting, Setting::InfluxdbUrl | Setting::GrafanaUrl),
                    is_flag: setting.key().kind == ValueKind::Flag,
                    stored,
                });
                Some(Lost { cause, unknown: unknown.collect() })
            }
        };
        let is_whole = |lost: &Lost| lost.cause == Loss::Values && lost.unknown.is_empty();
        Some(Settings { values, lost: lost.filter(|lost| !is_whole(lost)) })
    }
}

/// The title of the data source and the dashboard.
fn title(name: &str) -> String {
    if name == Setting::Name.key().default { "Clipper Metrics".into() } else { format!("Clipper Metrics ({name})") }
}

/// Grafana's container reaches a loopback address of this machine only if it runs on this machine.
fn expect_same_machine(engine: &EngineLocation) -> Result<()> {
    let (EngineLocation::Elsewhere(host) | EngineLocation::OverSsh { host, .. }) = engine else { return Ok(()) };
    Err(Error::usage(
        format!("InfluxDB's address is a loopback address of this machine, where Grafana on {host} cannot reach it"),
        "set the address at which Grafana's server reaches InfluxDB with --data-source-url",
    ))
}

/// Whether a managed container is published at every address of its machine.
fn publishes_everywhere(service: &Service) -> bool {
    match service {
        Service::Container(spec) => spec.config.publish.ip().is_unspecified(),
        Service::External { .. } => false,
    }
}

/// The account that signs in. The user of an external Grafana is a credential and not remembered.
fn login(resolved: &mut Resolved<'_>, is_ours: bool) -> Login {
    let before = resolved.remembered.get(Setting::GrafanaUser.key().option).map(|remembered| remembered.value.clone());
    let user = if is_ours {
        resolved.pick(Setting::GrafanaUser)
    } else {
        // The container's user is kept for a later switch back.
        let name = Setting::GrafanaUser.key().option;
        let kept = resolved.remembered.get(name).cloned();
        resolved.values.extend(kept.map(|kept| (name.to_string(), kept)));
        resolved.credential(Setting::GrafanaUser)
    };
    let default = || Login::ADMIN.to_string();
    // An external Grafana does not have the container's account, so only a supplied password counts there.
    let is_new = is_ours && user.as_deref().unwrap_or(Login::ADMIN) != before.as_deref().unwrap_or(Login::ADMIN);
    let secrets = &resolved.inputs.secrets;
    let token = secrets.grafana_token.is_some();
    let password = !token && secrets.grafana_password.is_some();
    Login { user: user.unwrap_or_else(default), token, password, given: password || (!token && is_new) }
}

fn credentials(inputs: &Inputs, login: &Login, influxdb_user: Option<String>) -> Result<Credentials> {
    let secrets = inputs.secrets.clone();
    let influxdb = match (influxdb_user, secrets.influxdb_password) {
        (Some(user), password) => Some(InfluxdbLogin { user, password: password.unwrap_or_else(|| Secret::new("")) }),
        (None, Some(_)) => {
            return Err(Error::usage("a password for InfluxDB was supplied, but no user", "add --influxdb-user"));
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

/// Where Clipper writes, by its file and its defaults.
fn target(file: &ClipperFile, inputs: &Inputs) -> ClipperTarget {
    let host = file.influx_ip.clone().unwrap_or_else(|| "127.0.0.1".into());
    let addresses = inputs.addresses(&host);
    let is_on_engine = |ip: &IpAddr| match &inputs.engine {
        EngineLocation::Here => ip.is_unspecified() || (inputs.has_address)(*ip),
        EngineLocation::Elsewhere(engine) | EngineLocation::OverSsh { host: engine, .. } => {
            (inputs.resolve)(engine).contains(ip)
        }
    };
    ClipperTarget {
        on_engine: addresses.iter().copied().filter(is_on_engine).collect(),
        addresses,
        host,
        port: file.influx_port.as_ref().and_then(|port| port.parse().ok()).unwrap_or(Role::Influxdb.port()),
        database: file.database.clone().unwrap_or_default(),
    }
}

fn pull(resolved: &mut Resolved<'_>) -> Result<Pull> {
    let text = resolved.pick(Setting::Pull).unwrap_or_else(|| Setting::Pull.key().default.into());
    values::pull(&text, &Setting::Pull.option())
}

fn timeout(resolved: &mut Resolved<'_>) -> Result<Duration> {
    let text = resolved.pick(Setting::Timeout).unwrap_or_else(|| Setting::Timeout.key().default.into());
    duration(&text, &Setting::Timeout.option())
}
