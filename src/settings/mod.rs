//! Merges options, environment, Clipper's file and remembered settings into one stack, by precedence.
//!
//! It reads no files and asks no server: its inputs contain everything.

mod containers;
mod contents;
pub mod keys;
mod resolve;
mod stack;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::env::split_paths;
use std::net::IpAddr;

use self::keys::{FileKey, Setting, Values, settings_of};
use self::resolve::{Origin, is_incomplete, resolve};
use self::stack::build;
pub(crate) use self::values::duration;
use crate::clipper::file::{ClipperFile, ValueKind};
use crate::error::Result;
use crate::model::address::unbracketed;
use crate::model::container_config::ContainerConfig;
use crate::model::credentials::{CaFile, Credentials};
use crate::model::image::ImageRef;
use crate::model::invocation::{GivenOption, Invocation, Scope, shell_word, typed_option};
use crate::model::observed::StoredSettings;
use crate::model::role::Role;
use crate::model::stack::{DesiredUserDashboard, EngineLocation, Secret, Stack};

/// The supplied secrets, already read from their files or variables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets {
    /// The password of Grafana's user.
    pub(crate) grafana_password: Option<Secret>,
    pub(crate) grafana_token: Option<Secret>,
    /// The password of InfluxDB's user.
    pub(crate) influxdb_password: Option<Secret>,
}

/// The inputs of a run, all of them already read.
#[derive(Clone)]
pub(crate) struct Inputs {
    /// The command line. An empty value removes a remembered one.
    pub(crate) options: Values,
    /// The environment, without empty variables.
    pub(crate) environment: Values,
    pub(crate) file: Option<ClipperFile>,
    pub(crate) secrets: Secrets,
    /// Certificates to trust.
    pub(crate) ca_file: Option<CaFile>,
    /// Fingerprint of the bundled dashboard.
    pub(crate) content_hash: String,
    /// Fingerprint of the alert rules.
    pub(crate) alerts_hash: String,
    /// Resolves a host name to its addresses, IPv4 first.
    pub(crate) resolve: fn(&str) -> Vec<IpAddr>,
    /// This machine's address for other hosts.
    pub(crate) own_address: fn() -> Option<IpAddr>,
    /// A fingerprint of this machine that no other machine has, if the system knows one.
    pub(crate) machine: Option<String>,
    /// Whether this machine has an address.
    pub(crate) has_address: fn(IpAddr) -> bool,
    /// Reads a user's dashboard for an instance, by its path.
    pub(crate) read_dashboard: fn(&str, &str) -> Result<DesiredUserDashboard>,
}

/// The engine of a run.
#[derive(Debug, Clone)]
pub(crate) struct EngineFacts {
    /// The machine where published ports appear.
    pub(crate) location: EngineLocation,
    /// The options that select the engine in a suggested command.
    pub(crate) options: String,
    /// A fingerprint of the engine's host, if an external Grafana may receive an address on its loopback.
    pub(crate) machine: Option<String>,
}

impl EngineFacts {
    /// The engine of a run that has not reached one; suggested commands repeat these options.
    #[must_use]
    pub(crate) const fn unreached(options: String) -> Self {
        Self { location: EngineLocation::Here, options, machine: None }
    }
}

/// The memory of an instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// The settings; `None` if no engine is used.
    pub(crate) stored: Option<StoredSettings>,
    /// The addresses of the remembered hosts to publish at, as far as this run uses them.
    pub(crate) addresses: BTreeMap<Setting, Vec<IpAddr>>,
    /// The configurations of the instance's containers, read only if settings are lost or unreadable, or if a
    /// remembered host name does not have exactly one address.
    pub(crate) containers: Vec<(Role, Option<ContainerConfig>)>,
    /// A data volume of the instance exists; read together with the containers.
    pub(crate) has_data: bool,
}

impl Memory {
    /// The address that the role's container was created with.
    fn address_of(&self, role: Role) -> Option<IpAddr> {
        let made = self.containers.iter().find(|(one, _)| *one == role)?.1.as_ref()?;
        // A container that was created to try a login is published elsewhere.
        (made.publish.port() != 0).then(|| made.publish.ip())
    }

    /// The remembered host names without an address at the moment, where the address of a container is used instead.
    pub(crate) fn hosts_without_address(&self) -> impl Iterator<Item = (Setting, &str)> {
        let replaced = Role::ALL.into_iter().filter(|role| self.address_of(*role).is_some());
        replaced.map(|role| settings_of(role).ip).filter_map(|setting| {
            let has_none = self.addresses.get(&setting).is_some_and(Vec::is_empty);
            let remembered = self.stored.as_ref()?.values.as_ref()?.get(setting.key().option)?;
            has_none.then_some((setting, remembered.value.as_str()))
        })
    }
}

impl Inputs {
    /// The value of the option, otherwise of the environment, otherwise of the file.
    pub(crate) fn given(&self, setting: Setting) -> Option<&str> {
        self.supplied(setting).map(|(text, _)| text)
    }

    /// The same with its origin.
    fn supplied(&self, setting: Setting) -> Option<(&str, Origin)> {
        let option = self.options.get(&setting).map(|text| (text, Origin::Option));
        let variable = || self.environment.get(&setting).map(|text| (text, Origin::Environment));
        let found = option.or_else(variable).or_else(|| Some((self.in_file(setting)?, Origin::File)));
        found.map(|(text, origin)| (text.as_str(), origin))
    }

    /// Drops the value of a setting from the environment and from Clipper's file.
    pub(crate) fn forget(&mut self, setting: Setting) {
        self.environment.remove(&setting);
        if let (Some(file), Some(key)) = (&mut self.file, setting.key().metrics_key()) {
            file.metrics.remove(&key);
        }
    }

    fn in_file(&self, setting: Setting) -> Option<&String> {
        let file = self.file.as_ref()?;
        let key = setting.key();
        match key.file {
            // A Clipper in a container names the container, which is not an address to publish at. This depends on the
            // instance's name, so it is not a column of the table.
            _ if matches!(setting, Setting::InfluxdbIp | Setting::InfluxdbPort) && self.names_container(file) => None,
            FileKey::Clipper(_, value) => value(file),
            FileKey::Metrics | FileKey::None => file.metrics.get(&key.metrics_key()?),
        }
        .filter(|value| !value.is_empty())
    }

    /// The addresses of a host that is given by address or by name.
    #[must_use]
    pub(crate) fn addresses(&self, host: &str) -> Vec<IpAddr> {
        host.parse().map_or_else(|_| (self.resolve)(host), |ip| vec![ip])
    }

    /// The instance's name, which every request to the engine needs.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::error::Error::Usage) if the name is not valid for a container.
    pub(crate) fn instance(&self) -> Result<String> {
        let given = self.given(Setting::Name).filter(|name| !name.is_empty());
        let name = given.unwrap_or(Setting::Name.key().default);
        values::instance_name(name)?;
        Ok(name.to_string())
    }

    /// This run names both servers, so it needs no engine.
    #[must_use]
    pub(crate) fn needs_no_engine(&self) -> bool {
        Role::ALL.into_iter().all(|role| self.given(settings_of(role).url).is_some_and(|url| !url.is_empty()))
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
    let scope = |setting: Setting| match setting {
        // Not a column of the table: only an external Grafana's account is a credential.
        Setting::GrafanaUser | Setting::GrafanaPasswordFile if grafana_is_external => Some(Scope::Servers),
        _ => setting.key().repeated_in,
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
        let path = (key.kind == ValueKind::Path).then(|| value.clone()).filter(|path| !path.is_empty());
        Some(GivenOption { name: key.option, typed, path, scope, commands: key.commands })
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

/// Merges all inputs into a stack and the credentials for it.
///
/// # Errors
/// [`Error::Usage`](crate::error::Error::Usage) with the option's name, if a setting is invalid.
pub(crate) fn merge(inputs: &Inputs, engine: &EngineFacts, memory: &Memory) -> Result<(Stack, Credentials)> {
    build(resolve(inputs, engine, memory))
}

/// The images that only the memory names, not this run.
///
/// # Errors
/// [`Error::Usage`](crate::error::Error::Usage) as [`merge`].
pub(crate) fn remembered_images(
    inputs: &Inputs,
    engine: &EngineFacts,
    memory: &Memory,
    stack: &Stack,
) -> Result<Vec<(Role, ImageRef)>> {
    let mut memory = memory.clone();
    for setting in Role::ALL.map(|role| settings_of(role).image).into_iter().chain([Setting::Registry]) {
        if let Some(values) = memory.stored.as_mut().and_then(|stored| stored.values.as_mut()) {
            values.remove(setting.key().option);
        }
    }
    let (own, _) = merge(inputs, engine, &memory)?;
    let image = |stack: &Stack, role| stack.container(role).map(|spec| spec.config.image.clone());
    let images = Role::ALL.into_iter().filter(|role| image(stack, *role) != image(&own, *role));
    Ok(images.filter_map(|role| Some((role, image(stack, role)?))).collect())
}

/// Whether the containers must be read to know an instance's settings: some are lost, or a remembered host name has no
/// address at the moment, or several.
#[must_use]
pub(crate) fn needs_containers(stored: &StoredSettings, addresses: &BTreeMap<Setting, Vec<IpAddr>>) -> bool {
    is_incomplete(stored) || addresses.values().any(|known| known.len() != 1)
}

/// The addresses of the remembered hosts to publish at, as far as this run uses them.
#[must_use]
pub(crate) fn remembered_addresses(inputs: &Inputs, stored: &StoredSettings) -> BTreeMap<Setting, Vec<IpAddr>> {
    let used = |setting: Setting| {
        let remembered = stored.values.as_ref()?.get(setting.key().option)?;
        let is_used = !remembered.value.is_empty() && (!remembered.from_file || inputs.file.is_none());
        is_used.then_some(remembered.value.as_str())
    };
    let is_external = |url| inputs.given(url).map_or(used(url).is_some(), |url| !url.is_empty());
    let settings = Role::ALL.map(settings_of).into_iter();
    let settings = settings.filter(|role| inputs.given(role.ip).is_none() && !is_external(role.url));
    settings.filter_map(|role| Some((role.ip, inputs.addresses(unbracketed(used(role.ip)?))))).collect()
}

/// Checks each value that this run supplies, even if this run does not use it.
///
/// # Errors
/// [`Error::Usage`](crate::error::Error::Usage) that names the option, the variable or the key in Clipper's file.
pub(crate) fn check_values(inputs: &Inputs) -> Result<()> {
    let file = inputs.file.as_ref();
    for key in keys::TABLE {
        let in_file = key.metrics_key().zip(file);
        let sources = [
            (key.setting.option(), inputs.options.get(&key.setting)),
            (key.variable(), inputs.environment.get(&key.setting)),
        ]
        .into_iter()
        .chain(in_file.map(|(name, file)| (format!("{name} in {}", file.path.display()), file.metrics.get(&name))));
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
/// [`Error::Usage`](crate::error::Error::Usage) as [`merge`].
pub(crate) fn check(inputs: &Inputs) -> Result<()> {
    check_values(inputs)?;
    let mut inputs = inputs.clone();
    // Credentials may be for a server whose address is remembered, and the file's settings of a container do not apply
    // to such a server.
    inputs.secrets = Secrets::default();
    let credentials = [Setting::InfluxdbUser, Setting::InfluxdbPasswordFile];
    inputs.options.extend(credentials.map(|setting| (setting, String::new())));
    if let Some(file) = &mut inputs.file {
        file.influx_ip = None;
        let not_for_containers = credentials.into_iter().chain([Setting::GrafanaIp]);
        for key in not_for_containers.filter_map(|setting| setting.key().metrics_key()) {
            file.metrics.remove(&key);
        }
    }
    merge(&inputs, &EngineFacts::unreached(String::new()), &Memory::default()).map(drop)
}
