//! The labels on engine objects, and their content.
//!
//! A label may have been written by another version or by another program: unreadable content
//! becomes `None`, never an error. Values are not changed on reading, because they are compared;
//! reports make them printable.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::container_config::ContainerConfig;
use crate::model::image::ImageRef;
use crate::model::role::Role;
use crate::model::stack::{Remembered, UnfinishedRestore};
use crate::model::upgrade::Upgrade;
use crate::model::version::Version;

/// On all objects: their instance.
pub(crate) const INSTANCE: &str = "clipper-metrics.instance";
/// On containers and volumes: their role.
pub const ROLE: &str = "clipper-metrics.role";
/// On containers: the configuration they were created from.
const SPECIFICATION: &str = "clipper-metrics.specification";
/// On the settings volume: all settings.
pub const SETTINGS: &str = "clipper-metrics.settings";
/// On the settings volume: an upgrade that is pending or was rolled back.
const UPGRADE: &str = "clipper-metrics.upgrade";
/// On the settings volume: an unfinished restore.
const RESTORE: &str = "clipper-metrics.restore";
/// On volumes: the user of the image that they were created for.
const USER: &str = "clipper-metrics.user";
/// On volumes: the version in the tag of the image that they were created for.
const VERSION: &str = "clipper-metrics.version";
/// On volumes: the image that they were created for.
const IMAGE: &str = "clipper-metrics.image";

/// Labels of an engine object.
pub(crate) type Labels = HashMap<String, String>;

/// The label that all objects of an instance carry.
#[must_use]
pub(crate) fn of_instance(instance: &str) -> Labels {
    [(INSTANCE.to_string(), instance.to_string())].into()
}

#[must_use]
pub(crate) fn of_container(instance: &str, role: Role, config: &ContainerConfig) -> Labels {
    let mut labels = of_instance(instance);
    labels.insert(ROLE.into(), role.name().into());
    labels.insert(SPECIFICATION.into(), json(&config.fields()));
    labels
}

/// The labels of a data volume.
#[must_use]
pub(crate) fn of_volume(instance: &str, role: Role, user: Option<&str>, image: &ImageRef) -> Labels {
    let mut labels = of_instance(instance);
    labels.insert(ROLE.into(), role.name().into());
    labels.insert(IMAGE.into(), image.to_string());
    labels.extend(user.map(|user| (USER.to_string(), user.to_string())));
    labels.extend(image.version().map(|version| (VERSION.to_string(), version.to_string())));
    labels
}

/// The labels of the settings volume.
#[must_use]
pub(crate) fn of_settings(
    instance: &str,
    values: &BTreeMap<String, Remembered>,
    upgrade: Option<&Upgrade>,
    restore: Option<&UnfinishedRestore>,
) -> Labels {
    let values: BTreeMap<&String, StoredSetting> = values
        .iter()
        .map(|(name, Remembered { value, from_file })| {
            let from = if *from_file { SettingOrigin::File } else { SettingOrigin::User };
            (name, StoredSetting { from, value: value.clone() })
        })
        .collect();
    let mut labels = of_instance(instance);
    labels.insert(SETTINGS.into(), json(&values));
    labels.extend(upgrade.map(|upgrade| (UPGRADE.to_string(), json(upgrade))));
    labels.extend(restore.map(|restore| (RESTORE.to_string(), json(restore))));
    labels
}

/// A remembered setting in a label.
#[derive(Serialize, Deserialize)]
struct StoredSetting {
    from: SettingOrigin,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SettingOrigin {
    User,
    File,
}

fn json(content: &impl Serialize) -> String {
    // None of these types can fail.
    serde_json::to_string(content).unwrap_or_default()
}

/// Whether the object carries the instance's label.
#[must_use]
pub(crate) fn belongs(labels: Option<&Labels>, instance: &str) -> bool {
    labels.and_then(|labels| labels.get(INSTANCE)).is_some_and(|name| name == instance)
}

/// Whether the object is the instance's container of that role. A container created by hand may
/// lack the role label; then its name decides.
#[must_use]
pub fn serves(labels: Option<&Labels>, instance: &str, role: Role, name: &str) -> bool {
    belongs(labels, instance)
        && match labels.and_then(|labels| labels.get(ROLE)) {
            Some(label) => label == role.name(),
            None => name == role.object_name(instance),
        }
}

/// The configuration that a container was created from.
#[must_use]
pub fn config(labels: Option<&Labels>) -> Option<ContainerConfig> {
    ContainerConfig::from_fields(&serde_json::from_str(labels?.get(SPECIFICATION)?).ok()?)
}

/// The remembered settings. A value in an unknown format becomes empty, which is invalid for every
/// setting, and the other values stay.
#[must_use]
pub fn settings(labels: &Labels) -> Option<BTreeMap<String, Remembered>> {
    let fields: BTreeMap<String, Value> = serde_json::from_str(labels.get(SETTINGS)?).ok()?;
    let remembered = |field| match serde_json::from_value(field) {
        Ok(StoredSetting { from, value }) => Remembered { value, from_file: matches!(from, SettingOrigin::File) },
        Err(_) => Remembered { value: String::new(), from_file: false },
    };
    Some(fields.into_iter().map(|(name, field)| (name, remembered(field))).collect())
}

/// An upgrade that is pending or was rolled back.
#[must_use]
pub(crate) fn upgrade(labels: &Labels) -> Option<Upgrade> {
    serde_json::from_str(labels.get(UPGRADE)?).ok()
}

/// An unfinished restore; an unreadable record counts as one.
#[must_use]
pub(crate) fn restore(labels: &Labels) -> Option<UnfinishedRestore> {
    Some(serde_json::from_str(labels.get(RESTORE)?).unwrap_or_default())
}

/// The user of the image that a volume was created for; empty means root.
#[must_use]
pub(crate) fn user(labels: &Labels) -> Option<String> {
    labels.get(USER).cloned()
}

/// The image that a volume was created for.
#[must_use]
pub(crate) fn image(labels: &Labels) -> Option<String> {
    labels.get(IMAGE).cloned()
}

/// The version that a volume was created for. Earlier versions of clipper-metrics used the tag of any image.
#[must_use]
pub(crate) fn version(labels: &Labels) -> Option<Version> {
    let image = image(labels).and_then(|image| ImageRef::parse(&image).ok());
    Version::parse(labels.get(VERSION)?).filter(|_| image.is_none_or(|image| image.version().is_some()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::upgrade::{NamedImage, UpgradeState};

    const STATES: [(UpgradeState, &str); 6] = [
        (UpgradeState::Unproven, "unproven"),
        (UpgradeState::Failed, "refused"),
        (UpgradeState::Postponed, "postponed"),
        (UpgradeState::Undone, "undone"),
        (UpgradeState::Ended, "ended"),
        (UpgradeState::Accepted, "accepted"),
    ];

    proptest! {
        #[test]
        fn no_label_causes_a_panic(text in ".*") {
            let names = [SPECIFICATION, SETTINGS, UPGRADE, RESTORE, VERSION, USER, ROLE];
            let labels: Labels = names.map(|name| (name.to_string(), text.clone())).into();
            let _ = config(Some(&labels));
            let _ = settings(&labels);
            let _ = upgrade(&labels);
            prop_assert!(restore(&labels).is_some());
            let _ = version(&labels);
        }

        #[test]
        fn settings_survive_their_label(name in ".*", value in ".*", from_file in any::<bool>()) {
            let values = BTreeMap::from([(name, Remembered { value, from_file })]);
            prop_assert_eq!(settings(&of_settings("x", &values, None, None)), Some(values));
        }

        #[test]
        fn an_upgrade_survives_its_label(
            id in ".*", image in proptest::option::of("[a-f0-9]{4}"), state in 0..STATES.len()
        ) {
            let from = NamedImage { name: ImageRef::parse("grafana:1").unwrap(), id: image };
            let to = NamedImage { name: ImageRef::parse("m:5/grafana:2").unwrap(), id: None };
            let noted = Upgrade { id, from, to, state: STATES[state].0 };
            prop_assert_eq!(upgrade(&of_settings("x", &BTreeMap::new(), Some(&noted), None)), Some(noted));
        }

        #[test]
        fn a_restore_survives_its_label(
            id in ".*", archive in ".*", digest in "[a-f0-9]{4}", machine in ".*", process in any::<u32>()
        ) {
            let noted = UnfinishedRestore { id, archive, digest, machine, process, ..UnfinishedRestore::default() };
            let labels = of_settings("x", &BTreeMap::new(), None, Some(&noted));
            prop_assert_eq!((restore(&labels), upgrade(&labels)), (Some(noted), None));
        }
    }

    #[test]
    fn every_version_writes_the_same_labels() {
        let values = BTreeMap::from([("name".into(), Remembered { value: "1".into(), from_file: true })]);
        let image =
            |name, id: Option<&str>| NamedImage { name: ImageRef::parse(name).unwrap(), id: id.map(Into::into) };
        let (from, to) = (image("grafana:1", Some("a")), image("grafana:2", None));
        let upgrade = Upgrade { id: "5".into(), from, to, state: UpgradeState::Unproven };
        let restore = UnfinishedRestore {
            id: "i".into(),
            archive: "/a".into(),
            digest: "d".into(),
            machine: "m".into(),
            process: 7,
            process_space: "pid:[1]".into(),
            retention: Some(Remembered { value: "7d".into(), from_file: true }),
        };
        let labels = of_settings("x", &values, Some(&upgrade), Some(&restore));
        let expected = [
            (INSTANCE, "x"),
            (SETTINGS, r#"{"name":{"from":"file","value":"1"}}"#),
            (
                UPGRADE,
                r#"{"id":"5","from":{"name":"grafana:1","id":"a"},"to":{"name":"grafana:2","id":null},"state":"unproven"}"#,
            ),
            (
                RESTORE,
                r#"{"id":"i","archive":"/a","digest":"d","machine":"m","process":7,"process_space":"pid:[1]","retention":{"value":"7d","from_file":true}}"#,
            ),
        ];
        assert_eq!(labels, expected.map(|(name, text)| (name.to_string(), text.to_string())).into());
        for (state, name) in STATES {
            assert_eq!(json(&state), format!("\"{name}\""));
        }
    }

    #[test]
    fn an_unreadable_setting_becomes_empty_and_the_others_stay() {
        let text =
            r#"{"a":{"value":"1","from":"file"},"b":{"value":2,"from":"user"},"c":{"value":"3","from":"x"},"d":4}"#;
        let read = settings(&[(SETTINGS.to_string(), text.to_string())].into()).unwrap();
        let texts: Vec<&str> = read.values().map(|remembered| remembered.value.as_str()).collect();
        assert_eq!((texts, read["a"].from_file), (vec!["1", "", "", ""], true));
    }

    #[test]
    fn a_volume_of_a_custom_image_has_no_version() {
        let made_for = |image: &str| version(&of_volume("x", Role::Grafana, None, &ImageRef::parse(image).unwrap()));
        assert_eq!(made_for("grafana/grafana:12.4.10"), Some(Version(12, 4)));
        assert_eq!(made_for("corp/grafana:2025.11"), None);
        // As earlier versions of clipper-metrics labelled it.
        let labelled = |image: &str| -> Labels {
            [(VERSION, "2025.11"), (IMAGE, image)].map(|(name, value)| (name.to_string(), value.to_string())).into()
        };
        assert_eq!(version(&labelled("corp/grafana:2025.11")), None);
        assert_eq!(version(&labelled("grafana/grafana:2025.11")), Some(Version(2025, 11)));
    }

    #[test]
    fn labels_decide_the_owner_of_a_container_and_its_name_only_without_labels() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
        };
        let ours = labels(&[(INSTANCE, "x"), (ROLE, "grafana")]);
        assert!(serves(Some(&ours), "x", Role::Grafana, "renamed"));
        assert!(!serves(Some(&ours), "x", Role::Influxdb, "x-influxdb"));
        assert!(!serves(Some(&ours), "y", Role::Grafana, "y-grafana"));
        let by_hand = labels(&[(INSTANCE, "x")]);
        assert!(serves(Some(&by_hand), "x", Role::Grafana, "x-grafana"));
        assert!(!serves(Some(&by_hand), "x", Role::Grafana, "other"));
        assert!(!serves(None, "x", Role::Grafana, "x-grafana"));
    }
}
