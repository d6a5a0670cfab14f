//! The labels by which our objects are known, and what they say.
//!
//! Knows their names and their JSON. Whatever is read here may come from another version, or from
//! anybody: what cannot be read is `None`, never an error.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::core::stack::{ContainerSpec, Password};
use crate::error::printable;

/// On everything: the instance that it belongs to.
pub const INSTANCE: &str = "clipper-metrics.instance";
/// On containers and volumes: the role that it plays.
pub const ROLE: &str = "clipper-metrics.role";
/// On containers: the specification that it was made from.
const SPECIFICATION: &str = "clipper-metrics.specification";
/// On containers: the settings that somebody gave.
const GIVEN: &str = "clipper-metrics.given";
/// On volumes: the user of the image that it was made for.
pub const USER: &str = "clipper-metrics.user";

/// The engine's labels.
pub type Labels = HashMap<String, String>;

/// The labels of a container.
#[must_use]
pub fn of_container(instance: &str, spec: &ContainerSpec, password: Password) -> Labels {
    let mut fields = spec.fields();
    fields.insert("password".into(), password.name().into());
    let json = |map: &BTreeMap<String, String>| serde_json::to_string(map).unwrap_or_default();
    [
        (INSTANCE, instance.to_string()),
        (ROLE, spec.role.name().to_string()),
        (SPECIFICATION, json(&fields)),
        (GIVEN, json(&spec.given)),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into()
}

/// The object carries the instance's label.
#[must_use]
pub fn belongs(labels: Option<&Labels>, instance: &str) -> bool {
    labels.and_then(|labels| labels.get(INSTANCE)).is_some_and(|name| name == instance)
}

/// The specification that a container was made from.
#[must_use]
pub fn specification(labels: Option<&Labels>) -> Option<BTreeMap<String, String>> {
    texts(labels?.get(SPECIFICATION)?)
}

/// The settings that somebody gave.
#[must_use]
pub fn given(labels: Option<&Labels>) -> BTreeMap<String, String> {
    labels.and_then(|labels| texts(labels.get(GIVEN)?)).unwrap_or_default()
}

/// What the containers of an instance remember together.
#[must_use]
pub fn remembered<'a>(containers: impl Iterator<Item = Option<&'a Labels>> + Clone) -> BTreeMap<String, String> {
    let role = |labels: Option<&Labels>| labels.and_then(|labels| labels.get(ROLE)).cloned().unwrap_or_default();
    let roles: Vec<String> = containers.clone().map(role).collect();
    let owner = |setting: &str| if setting.starts_with("influxdb-") { "influxdb" } else { "grafana" };
    let mut all = BTreeMap::new();
    for labels in containers {
        let own = role(labels);
        for (name, value) in given(labels) {
            let owner = owner(&name);
            if owner == own || !roles.iter().any(|role| role == owner) {
                all.insert(name, value);
            }
        }
    }
    all
}

/// A JSON object of texts.
fn texts(json: &str) -> Option<BTreeMap<String, String>> {
    match serde_json::from_str(json).ok()? {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| Some((printable(&name), printable(value.as_str()?)))).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_a_label_holds_is_read_or_nothing(text in ".*") {
            let labels: Labels = [(SPECIFICATION.to_string(), text.clone()), (GIVEN.to_string(), text)].into();
            let _ = specification(Some(&labels));
            let _ = given(Some(&labels));
        }
    }

    #[test]
    fn a_role_remembers_its_own_and_the_other_one_only_where_it_is_gone() {
        let container = |role: &str, given: &str| -> Labels {
            [(ROLE.to_string(), role.to_string()), (GIVEN.to_string(), given.to_string())].into()
        };
        let influxdb = container("influxdb", r#"{"influxdb-port":"1","grafana-port":"old","database":"old"}"#);
        let grafana = container("grafana", r#"{"influxdb-port":"old","grafana-port":"2"}"#);
        let both = remembered([Some(&influxdb), Some(&grafana)].into_iter());
        let texts = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
        };
        assert_eq!(both, texts(&[("influxdb-port", "1"), ("grafana-port", "2")]));
        let alone = remembered([Some(&grafana)].into_iter());
        assert_eq!(alone, texts(&[("influxdb-port", "old"), ("grafana-port", "2")]));
    }

    #[test]
    fn control_characters_do_not_get_through() {
        let labels: Labels = [(GIVEN.to_string(), "{\"a\":\"\\u001b[31m\"}".to_string())].into();
        assert_eq!(given(Some(&labels))["a"], "\u{fffd}[31m");
    }
}
