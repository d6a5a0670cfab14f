//! Determines the value of every setting by precedence, and the values to remember, before any value is used.

use std::collections::BTreeMap;

use super::keys::{FileKey, Key, ServerSettings, Setting, TABLE, settings_of};
use super::{EngineFacts, Inputs, Memory, values};
use crate::clipper::file::ValueKind;
use crate::error::Result;
use crate::model::address::unbracketed;
use crate::model::container_config::ContainerConfig;
use crate::model::image::ImageRef;
use crate::model::lost_settings::{Loss, Lost, UnknownSetting};
use crate::model::observed::StoredSettings;
use crate::model::role::Role;
use crate::model::stack::{Remembered, Settings};

/// The source of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Option,
    Environment,
    File,
    Memory { from_file: bool },
}

struct ResolvedValue {
    text: String,
    origin: Origin,
}

/// The value of every setting that has one, and the settings to remember.
pub(super) struct Resolved<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) engine: &'a EngineFacts,
    pub(super) memory: &'a Memory,
    values: BTreeMap<Setting, ResolvedValue>,
    /// The remembered user of Grafana's container.
    pub(super) previous_user: Option<String>,
    /// `None` if no engine is used.
    pub(super) settings: Option<Settings>,
}

impl Resolved<'_> {
    /// The value, unless the default applies.
    pub(super) fn get(&self, setting: Setting) -> Option<&str> {
        self.values.get(&setting).map(|value| value.text.as_str())
    }

    /// The same for a setting that accepts any text.
    pub(super) fn text(&self, setting: Setting) -> Option<String> {
        self.get(setting).map(String::from)
    }

    pub(super) fn parsed<T>(&self, setting: Setting, parse: impl FnOnce(&str, &str) -> Result<T>) -> Result<Option<T>> {
        self.get(setting).map(|text| parse(text, &setting.option())).transpose()
    }

    pub(super) fn parsed_or_default<T>(
        &self,
        setting: Setting,
        parse: impl FnOnce(&str, &str) -> Result<T>,
    ) -> Result<T> {
        parse(self.get(setting).unwrap_or(setting.key().default), &setting.option())
    }

    pub(super) fn origin(&self, setting: Setting) -> Option<Origin> {
        self.values.get(&setting).map(|value| value.origin)
    }

    /// The option that sets it, or the key in Clipper's file that does.
    pub(super) fn place(&self, setting: Setting) -> String {
        match (self.origin(setting), &self.inputs.file, &setting.key().file) {
            (Some(Origin::File), Some(file), FileKey::Clipper(key, _)) => format!("{key} in {}", file.path.display()),
            _ => setting.option(),
        }
    }

    pub(super) fn is_remembered(&self, setting: Setting) -> bool {
        matches!(self.origin(setting), Some(Origin::Memory { .. }))
    }
}

/// Applies the precedence to every setting.
pub(super) fn resolve<'a>(inputs: &'a Inputs, engine: &'a EngineFacts, memory: &'a Memory) -> Resolved<'a> {
    let (previous, lost) = recall(inputs, memory);
    let value = |key: &Key| Some((key.setting, value(key, inputs, &previous)?));
    let mut values: BTreeMap<Setting, ResolvedValue> = TABLE.iter().filter_map(value).collect();
    if is_for_other_servers(inputs, &values, &previous, lost.as_ref()) {
        values.remove(&Setting::DataSourceUrl);
    }
    // After alerts were set once, their absence is remembered as `false`, so that remaining rules are found.
    if previous.contains_key(Setting::Alerts.key().option) {
        let off = || ResolvedValue { text: "false".into(), origin: Origin::Memory { from_file: false } };
        values.entry(Setting::Alerts).or_insert_with(off);
    }
    let mut to_remember: BTreeMap<String, Remembered> = values.iter().filter_map(remembered).collect();
    let user = Setting::GrafanaUser.key().option;
    let is_external = |role| values.contains_key(&settings_of(role).url);
    let is_unused = |unknown: &UnknownSetting| {
        Role::ALL.into_iter().filter(|role| is_external(*role)).any(|role| {
            let of_container = settings_of(role).of_container().map(|setting| setting.key().option);
            of_container.contains(&unknown.option) || (role == Role::Grafana && unknown.option == user)
        })
    };
    let lost = lost.map(|Lost { cause, unknown }| Lost {
        cause,
        unknown: unknown.into_iter().filter(|unknown| !is_unused(unknown)).collect(),
    });
    if is_external(Role::Grafana) {
        // The user of an external Grafana is a credential. The container's user is kept for a later switch back.
        to_remember.remove(user);
        to_remember.extend(previous.get_key_value(user).map(|(name, kept)| (name.clone(), kept.clone())));
        values.retain(|setting, value| {
            *setting != Setting::GrafanaUser || !matches!(value.origin, Origin::Memory { .. })
        });
    }
    let is_whole = |lost: &Lost| lost.cause == Loss::Values && lost.unknown.is_empty();
    let lost = lost.filter(|lost| !is_whole(lost));
    let settings = memory.stored.as_ref().map(|stored| {
        let merged_from = stored.values.clone();
        Settings { values: to_remember, merged_from, lost }
    });
    let previous_user = previous.get(user).map(|previous| previous.value.clone());
    Resolved { inputs, engine, memory, values, previous_user, settings }
}

/// Whether the remembered address at which Grafana reaches InfluxDB was chosen for an InfluxDB or a Grafana that this run
/// replaces by another one: it may lead to another server then.
fn is_for_other_servers(
    inputs: &Inputs,
    values: &BTreeMap<Setting, ResolvedValue>,
    previous: &BTreeMap<String, Remembered>,
    lost: Option<&Lost>,
) -> bool {
    let is_remembered = |value: &ResolvedValue| matches!(value.origin, Origin::Memory { .. });
    let before = |setting: Setting| previous.get(setting.key().option).map(|before| before.value.as_str());
    let now = |setting: Setting| values.get(&setting).map(|value| value.text.as_str());
    let is_other_server = |setting| {
        let server = |text| values::server_url(text, "").ok();
        now(setting).map(server) != before(setting).map(server)
    };
    let of_influxdb = settings_of(Role::Influxdb);
    // A lost value may have been the same.
    let is_known = |setting: &Setting| {
        !lost.is_some_and(|lost| lost.unknown.iter().any(|unknown| unknown.option == setting.key().option))
    };
    let is_other_value = |setting: Setting| {
        let default = setting.key().default;
        let (before, now) = (before(setting).unwrap_or(default), now(setting).unwrap_or(default));
        let addresses = |host: &str| inputs.addresses(unbracketed(host));
        match setting {
            _ if before == now => false,
            _ if setting == of_influxdb.port => before.parse::<u16>().ok() != now.parse().ok(),
            _ => addresses(before) != addresses(now),
        }
    };
    values.get(&Setting::DataSourceUrl).is_some_and(is_remembered)
        && (Role::ALL.into_iter().any(|role| is_other_server(settings_of(role).url))
            || (now(of_influxdb.url).is_none()
                && [of_influxdb.ip, of_influxdb.port].into_iter().filter(is_known).any(is_other_value)))
}

/// One setting's value by precedence. An empty option means no value, and overrides the sources below it.
fn value(key: &Key, inputs: &Inputs, previous: &BTreeMap<String, Remembered>) -> Option<ResolvedValue> {
    if let Some((text, origin)) = inputs.supplied(key.setting) {
        return (!text.is_empty()).then(|| ResolvedValue { text: text.into(), origin });
    }
    let Remembered { value, from_file } = previous.get(key.option).filter(|_| key.remembered)?;
    let is_dropped = *from_file && inputs.file.is_some();
    (!is_dropped).then(|| ResolvedValue { text: value.clone(), origin: Origin::Memory { from_file: *from_file } })
}

fn remembered((setting, value): (&Setting, &ResolvedValue)) -> Option<(String, Remembered)> {
    let from_file = matches!(value.origin, Origin::File | Origin::Memory { from_file: true });
    let key = setting.key();
    key.remembered.then(|| (key.option.to_string(), Remembered { value: value.text.clone(), from_file }))
}

/// The remembered settings that this run can use, and those that are lost.
fn recall(inputs: &Inputs, memory: &Memory) -> (BTreeMap<String, Remembered>, Option<Lost>) {
    let Some(stored) = &memory.stored else { return (BTreeMap::new(), None) };
    let mut stand_ins = stand_ins(memory);
    let Some(values) = &stored.values else {
        if stored.numbers.is_empty() && memory.containers.is_empty() && !memory.has_data {
            return (BTreeMap::new(), None);
        }
        let cause = if stored.numbers.is_empty() { Loss::Gone } else { Loss::Unreadable };
        return (stand_ins, Some(Lost { cause, unknown: undocumented(inputs, memory) }));
    };
    let (mut readable, unreadable) = split(values);
    let mut unknown = Vec::new();
    for (key, remembered) in unreadable {
        let is_overridden = inputs.given(key.setting).is_some() || (remembered.from_file && inputs.file.is_some());
        match stand_ins.remove(key.option) {
            _ if is_overridden => {}
            Some(stand_in) => drop(readable.insert(key.option.into(), stand_in)),
            None => unknown.push(unknown_setting(key, Some(remembered.value))),
        }
    }
    (readable, Some(Lost { cause: Loss::Values, unknown }))
}

/// Splits remembered values into valid and invalid ones: one invalid value does not make the others unusable.
fn split(values: &BTreeMap<String, Remembered>) -> (BTreeMap<String, Remembered>, Vec<(&'static Key, Remembered)>) {
    let (mut readable, mut unreadable) = (BTreeMap::new(), Vec::new());
    for (name, remembered) in values {
        let text = remembered.value.as_str();
        match TABLE.iter().find(|key| key.option == name) {
            Some(key) if text.is_empty() || values::check(key.setting, text, name).is_err() => {
                unreadable.push((key, remembered.clone()));
            }
            _ => drop(readable.insert(name.clone(), remembered.clone())),
        }
    }
    (readable, unreadable)
}

/// Whether some of the remembered settings are missing or invalid.
pub(super) fn is_incomplete(stored: &StoredSettings) -> bool {
    stored.values.as_ref().is_none_or(|values| !split(values).1.is_empty())
}

/// The settings that the containers were created from, in place of remembered ones.
fn stand_ins(memory: &Memory) -> BTreeMap<String, Remembered> {
    let made =
        memory.containers.iter().flat_map(|(role, made)| made.iter().flat_map(|made| settings_from(*role, made)));
    made.map(|(setting, value)| (setting.key().option.to_string(), Remembered { value, from_file: false })).collect()
}

/// The required settings that are unknown after all remembered settings were lost: neither an input nor a container
/// contains them.
fn undocumented(inputs: &Inputs, memory: &Memory) -> Vec<UnknownSetting> {
    let has_container = |role| memory.containers.iter().any(|(one, _)| *one == role);
    let urls = Role::ALL.into_iter().filter(|role| !has_container(*role)).map(|role| settings_of(role).url);
    let required = std::iter::once(Setting::Database).chain(urls);
    required
        .filter(|setting| inputs.given(*setting).is_none())
        .map(|setting| unknown_setting(setting.key(), None))
        .collect()
}

fn unknown_setting(key: &Key, stored: Option<String>) -> UnknownSetting {
    UnknownSetting {
        option: key.option,
        value_name: key.value_name,
        is_server: Role::ALL.into_iter().any(|role| settings_of(role).url == key.setting),
        is_flag: key.kind == ValueKind::Flag,
        stored,
    }
}

/// The settings that would create a container again, in place of lost remembered ones.
fn settings_from(role: Role, actual: &ContainerConfig) -> Vec<(Setting, String)> {
    let ServerSettings { ip, port, image, .. } = settings_of(role);
    let mut found = Vec::new();
    // The engine chooses the port of a container that was created to try a login.
    if actual.publish.port() != 0 {
        found.push((ip, actual.publish.ip().to_string()));
        found.push((port, actual.publish.port().to_string()));
    }
    let default = ImageRef::parse(image.key().default).ok();
    if !actual.read_only {
        found.push((image, actual.image.to_string()));
    } else if let Some(prefix) = default.as_ref().and_then(|default| actual.image.prefix_before(default)) {
        found.push((Setting::Registry, prefix.to_string()));
    }
    found
}
