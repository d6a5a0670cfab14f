//! How settings from all sources become a stack, setting by setting.

mod addresses;
mod commands;
mod keys;
mod memory;

use std::time::Duration;

use super::*;
use crate::error::Error;
use crate::model::container_config::PasswordSource;
use crate::model::lost_settings::Loss;
use crate::model::stack::{DesiredContainer, MadeFor, Remembered, Settings, SshForward};

fn inputs() -> Inputs {
    Inputs {
        options: Values::new(),
        environment: Values::new(),
        file: None,
        secrets: Secrets::default(),
        ca_file: None,
        content_hash: "e".into(),
        alerts_hash: "a".into(),
        resolve: |name| if name == "localhost" { vec![IpAddr::from([127, 0, 0, 1])] } else { Vec::new() },
        own_address: || None,
        machine: Some("machine:this".into()),
        has_address: |ip| ip.is_loopback() || ip == IpAddr::from([192, 0, 2, 1]),
        read_dashboard: |path, _| match path.rsplit_once('/').map_or(path, |(_, name)| name) {
            name if name.starts_with("gone") => Err(Error::usage(format!("{path} cannot be read"), "")),
            name => Ok(DesiredUserDashboard {
                path: path.into(),
                uid: name[..1].into(),
                title: name[..name.len().min(2)].into(),
                content_hash: "1".into(),
                content: String::new(),
                needs: vec![],
                notes: vec![],
            }),
        },
    }
}

/// Whether no container has to be read for these settings.
fn is_whole(values: &BTreeMap<String, Remembered>) -> bool {
    let stored = StoredSettings { values: Some(values.clone()), ..StoredSettings::default() };
    !needs_containers(&stored, &BTreeMap::new())
}

/// Nothing is remembered yet.
fn fresh() -> Memory {
    Memory { stored: Some(StoredSettings::default()), ..Memory::default() }
}

/// What a stack remembers, as the next run finds it.
fn memory_of(stack: &Stack) -> Memory {
    remembering(stack.settings.as_ref().unwrap().values.clone())
}

fn remembering(values: BTreeMap<String, Remembered>) -> Memory {
    let stored = StoredSettings { numbers: vec![1], values: Some(values), ..StoredSettings::default() };
    Memory { stored: Some(stored), ..Memory::default() }
}

fn merged(inputs: &Inputs, memory: &Memory) -> Result<Stack> {
    merged_on(EngineLocation::Here, inputs, memory)
}

fn merged_on(location: EngineLocation, inputs: &Inputs, memory: &Memory) -> Result<Stack> {
    merge(inputs, &engine(location), memory).map(|(stack, _)| stack)
}

fn engine(location: EngineLocation) -> EngineFacts {
    EngineFacts { location, options: String::new(), machine: Some("engine:docker".into()) }
}

fn with(setting: Setting, value: &str) -> Inputs {
    Inputs { options: [(setting, value.to_string())].into(), ..inputs() }
}

fn is_open(stack: &Stack) -> bool {
    !spec(stack, Role::Grafana).config.publish.ip().is_loopback()
}

fn spec(stack: &Stack, role: Role) -> &DesiredContainer {
    stack.container(role).unwrap()
}

#[test]
fn defaults_are_clippers_and_grafanas_own_and_none_is_remembered() {
    let stack = merged(&inputs(), &fresh()).unwrap();
    assert_eq!(stack.url(Role::Influxdb).to_string(), "http://127.0.0.1:8086");
    assert_eq!(stack.url(Role::Grafana).to_string(), "http://127.0.0.1:3000");
    assert_eq!((stack.database.as_str(), stack.data_source.url.as_str()), ("clipper", "http://influxdb:8086"));
    assert_eq!(spec(&stack, Role::Influxdb).config.image.to_string(), "influxdb:1.12.4");
    assert_eq!(stack.settings, Some(Settings::default()));
}

#[test]
fn options_precede_the_environment_the_file_and_the_memory() {
    let remembered = memory_of(&merged(&with(Setting::Database, "remembered"), &fresh()).unwrap());
    let mut it = inputs();
    assert_eq!(merged(&it, &remembered).unwrap().database, "remembered");
    let port = Some("8087".into());
    it.file = Some(ClipperFile { database: Some("file".into()), influx_port: port, ..ClipperFile::default() });
    assert_eq!(merged(&it, &remembered).unwrap().database, "file");
    it.environment = [(Setting::Database, "environment".to_string())].into();
    assert_eq!(merged(&it, &remembered).unwrap().database, "environment");
    it.options = [(Setting::Database, "an option".to_string())].into();
    let stack = merged(&it, &remembered).unwrap();
    assert_eq!(stack.database, "an-option");
    assert_eq!(stack.url(Role::Influxdb).port, 8087);
    let values = stack.settings.unwrap().values;
    assert_eq!((values["database"].value.as_str(), values["database"].from_file), ("an option", false));
    assert_eq!((values["influxdb-port"].value.as_str(), values["influxdb-port"].from_file), ("8087", true));
}

#[test]
fn an_empty_option_removes_any_value_and_a_file_removes_those_from_a_file() {
    let mut it = with(Setting::GrafanaIp, "0.0.0.0");
    it.file = Some(ClipperFile { influx_port: Some("8087".into()), ..ClipperFile::default() });
    let memory = memory_of(&merged(&it, &fresh()).unwrap());
    let bare = merged(&inputs(), &memory).unwrap();
    assert_eq!((bare.url(Role::Influxdb).port, is_open(&bare)), (8087, true));
    // The next file says nothing of a port.
    let other = Inputs { file: Some(ClipperFile::default()), ..inputs() };
    let dropped = merged(&other, &memory).unwrap();
    assert_eq!((dropped.url(Role::Influxdb).port, is_open(&dropped)), (8086, true));
    let back = merged(&with(Setting::GrafanaIp, ""), &memory).unwrap();
    assert!(!is_open(&back));
    assert!(!is_open(&merged(&inputs(), &memory_of(&back)).unwrap()), "for good");
}

fn remembered(pairs: &[(&str, &str)]) -> BTreeMap<String, Remembered> {
    let value = |value: &str| Remembered { value: value.into(), from_file: false };
    pairs.iter().map(|(name, text)| ((*name).to_string(), value(text))).collect()
}

/// A value that no option takes, for each setting that does not take every text.
const BAD: [(Setting, &str); 15] = [
    (Setting::Database, "a/b"),
    (Setting::Retention, "5m"),
    (Setting::InfluxdbIp, "a b"),
    (Setting::InfluxdbPort, "abc"),
    (Setting::GrafanaIp, "a/b"),
    (Setting::GrafanaPort, "30o0"),
    (Setting::InfluxdbUrl, "ftp://x"),
    (Setting::GrafanaUrl, "http://g?x"),
    (Setting::DataSourceUrl, "influxdb:8086"),
    (Setting::InfluxdbImage, "a b"),
    (Setting::GrafanaImage, "grafana:"),
    (Setting::Registry, "/"),
    (Setting::Alerts, "yes"),
    (Setting::AlertLatencyAfter, "2d"),
    (Setting::AlertSilenceAfter, "1s"),
];

#[test]
fn every_supplied_value_is_checked_whether_it_is_used_or_not() {
    let external = || {
        let mut it = with(Setting::InfluxdbUrl, "http://db:8086");
        it.options.insert(Setting::GrafanaUrl, "http://g:3000".into());
        it
    };
    let for_one_run = [(Setting::Pull, "sometimes"), (Setting::Timeout, "soon"), (Setting::Name, "A")];
    for (setting, bad) in BAD.into_iter().chain(for_one_run) {
        let key = setting.key();
        let rejects = |it: &Inputs, name: &str| {
            let error = check_values(it).expect_err(name).to_string();
            assert!(setting == Setting::Name || error.contains(name), "{error}");
        };
        let mut it = external();
        it.options.insert(setting, bad.into());
        rejects(&it, &setting.option());
        // A variable is named as such, also where an option is used in its place.
        let mut it = external();
        it.environment.insert(setting, bad.into());
        rejects(&it, &key.variable());
        it.options.insert(setting, String::new());
        rejects(&it, &key.variable());
        if let Some(name) = key.metrics_key() {
            let metrics = [(name.clone(), bad.to_string())].into();
            let file = ClipperFile { path: "clipper.toml".into(), metrics, ..ClipperFile::default() };
            rejects(&Inputs { file: Some(file), ..external() }, &format!("{name} in clipper.toml"));
        }
    }
    check_values(&external()).unwrap();
}

#[test]
fn a_registry_stands_before_both_default_images_and_no_others() {
    let mut it = with(Setting::Registry, "mirror:5000/");
    it.options.insert(Setting::GrafanaImage, "own/grafana".into());
    let stack = merged(&it, &fresh()).unwrap();
    assert_eq!(spec(&stack, Role::Influxdb).config.image.to_string(), "mirror:5000/influxdb:1.12.4");
    let grafana = &spec(&stack, Role::Grafana).config;
    assert_eq!((grafana.image.to_string().as_str(), grafana.read_only), ("own/grafana:latest", false));
}

#[test]
fn a_duration_is_bounded() {
    for bad in ["0s", "soon", "400000000000y", "101y"] {
        assert!(duration(bad, "--timeout").is_err(), "{bad}");
    }
    assert_eq!(duration("90s", "--timeout").unwrap(), Duration::from_secs(90));
}

#[test]
fn two_dashboards_of_one_uid_or_title_are_an_error_that_names_both() {
    for (paths, named) in [("/d/a1:/d/a2", "\"a\""), ("/d/a1:/e/a1", "/d/a1 and /e/a1"), ("/d/x1", "bundled")] {
        let mut inputs = with(Setting::Dashboard, paths);
        inputs.options.insert(Setting::Name, "x".into());
        let error = merged(&inputs, &fresh()).unwrap_err();
        assert!(matches!(error, Error::Usage { .. }) && error.to_string().contains(named), "{error}");
    }
}
