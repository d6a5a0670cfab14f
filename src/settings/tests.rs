//! How settings from all sources become a stack, setting by setting.

use std::time::Duration;

use super::*;
use crate::error::Error;
use crate::model::container_config::PasswordSource;
use crate::model::stack::{DesiredContainer, Loss, MadeFor, Remembered, Settings, SshForward};

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
        machine: Some("this".into()),
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

/// The settings that a stack cannot know, by their options.
fn unknown(stack: &Stack) -> Vec<&'static str> {
    let lost = stack.settings.as_ref().unwrap().lost.as_ref();
    lost.iter().flat_map(|lost| &lost.unknown).map(|one| one.option).collect()
}

fn merged(inputs: &Inputs, memory: &Memory) -> Result<Stack> {
    merged_on(EngineLocation::Here, inputs, memory)
}

fn merged_on(location: EngineLocation, inputs: &Inputs, memory: &Memory) -> Result<Stack> {
    merge(inputs, &engine(location), memory).map(|(stack, _)| stack)
}

fn engine(location: EngineLocation) -> EngineFacts {
    EngineFacts { location, options: String::new(), machine: Some("engine".into()) }
}

fn with(setting: Setting, value: &str) -> Inputs {
    Inputs { options: [(setting, value.to_string())].into(), ..inputs() }
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
fn option_beats_environment_beats_file_beats_what_is_remembered() {
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
fn an_empty_option_takes_back_and_a_file_takes_back_what_a_file_gave() {
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

fn is_open(stack: &Stack) -> bool {
    !spec(stack, Role::Grafana).config.publish.ip().is_loopback()
}

#[test]
fn what_belongs_to_one_run_is_remembered_never() {
    let mut it = inputs();
    it.options = [
        (Setting::Pull, "always"),
        (Setting::Timeout, "7s"),
        (Setting::InfluxdbUrl, "http://db:8086"),
        (Setting::GrafanaUrl, "http://g:3000"),
        (Setting::InfluxdbUser, "me"),
        (Setting::GrafanaUser, "me"),
    ]
    .map(|(setting, value)| (setting, value.to_string()))
    .into();
    it.secrets.grafana_password = Some(Secret::new("secret"));
    let values = merged(&it, &fresh()).unwrap().settings.unwrap().values;
    assert_eq!(values.keys().collect::<Vec<_>>(), ["grafana-url", "influxdb-url"]);
}

#[test]
fn a_server_of_somebody_else_is_remembered_and_taken_back() {
    let mut it = with(Setting::InfluxdbUrl, "http://db.example:8086");
    it.options.insert(Setting::InfluxdbPort, "8099".into());
    let memory = memory_of(&merged(&it, &fresh()).unwrap());
    let bare = merged(&inputs(), &memory).unwrap();
    assert_eq!(bare.url(Role::Influxdb).to_string(), "http://db.example:8086");
    // And its user can be given without the address.
    assert_eq!(merged(&with(Setting::InfluxdbUser, "me"), &memory).unwrap().data_source.user, "me");
    assert!(merged(&with(Setting::InfluxdbUser, "me"), &fresh()).is_err());
    let back = merged(&with(Setting::InfluxdbUrl, ""), &memory).unwrap();
    assert_eq!(back.url(Role::Influxdb).to_string(), "http://127.0.0.1:8099");
}

#[test]
fn where_settings_are_lost_containers_stand_in_for_their_own_role() {
    let mut it = with(Setting::Registry, "mirror:5000");
    it.options.insert(Setting::GrafanaPort, "3003".into());
    it.options.insert(Setting::Database, "d".into());
    let stack = merged(&it, &fresh()).unwrap();
    let made = Role::ALL.map(|role| (role, Some(spec(&stack, role).config.clone())));
    let memory = Memory { containers: made.to_vec(), has_data: true, ..fresh() };
    let bare = merged(&inputs(), &memory).unwrap();
    assert_eq!(bare.url(Role::Grafana).port, 3003);
    assert_eq!(spec(&bare, Role::Influxdb).config, spec(&stack, Role::Influxdb).config);
    assert_eq!(unknown(&bare), ["database"]);
    let told = merged(&with(Setting::Database, "d"), &memory).unwrap();
    assert_eq!((unknown(&told), told.settings.unwrap().lost.unwrap().cause), (vec![], Loss::Gone));
}

#[test]
fn where_settings_are_lost_a_role_without_a_container_may_be_an_external_server() {
    let stack = merged(&inputs(), &fresh()).unwrap();
    let grafana = (Role::Grafana, Some(spec(&stack, Role::Grafana).config.clone()));
    let memory = Memory { containers: vec![grafana], has_data: true, ..fresh() };
    assert_eq!(unknown(&merged(&inputs(), &memory).unwrap()), ["database", "influxdb-url"]);
    // The database alone does not say who serves it.
    let mut it = with(Setting::Database, "d");
    assert_eq!(unknown(&merged(&it, &memory).unwrap()), ["influxdb-url"]);
    for url in ["http://db:8086", ""] {
        it.options.insert(Setting::InfluxdbUrl, url.into());
        assert!(unknown(&merged(&it, &memory).unwrap()).is_empty(), "{url:?}");
    }
    let after_down = Memory { has_data: true, ..fresh() };
    let stack = merged(&inputs(), &after_down).unwrap();
    assert_eq!(unknown(&stack), ["database", "influxdb-url", "grafana-url"]);
    let blocker = crate::model::plan::unknown_settings(&stack).unwrap();
    let again = "`clipper-metrics up --database NAME --influxdb-url URL --grafana-url URL`";
    assert!(blocker.hint.contains(again), "{}", blocker.hint);
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
        rejects(&it, key.variable);
        it.options.insert(setting, String::new());
        rejects(&it, key.variable);
        if let Some(name) = key.key {
            let metrics = [(name.to_string(), bad.to_string())].into();
            let file = ClipperFile { path: "clipper.toml".into(), metrics, ..ClipperFile::default() };
            rejects(&Inputs { file: Some(file), ..external() }, &format!("{name} in clipper.toml"));
        }
    }
    check_values(&external()).unwrap();
}

#[test]
fn a_lost_flag_is_supplied_as_the_parser_takes_it() {
    let memory = remembering(remembered(&[("alerts", "perhaps")]));
    let blocker = crate::model::plan::unknown_settings(&merged(&inputs(), &memory).unwrap()).unwrap();
    assert!(blocker.hint.contains("up --alerts=false`") && !blocker.hint.contains('|'), "{}", blocker.hint);
}

#[test]
fn one_unreadable_value_is_named_and_the_others_stay() {
    let good = [("database", "d"), ("retention", "7d"), ("registry", "mirror:5000"), ("grafana-folder", "F")];
    for (setting, bad) in BAD {
        let option = setting.key().option;
        let mut values = remembered(&good);
        values.extend(remembered(&[(option, bad)]));
        assert!(!is_whole(&values), "{option}");
        let memory = remembering(values);
        let stack = merged(&inputs(), &memory).unwrap();
        assert_eq!(unknown(&stack), [option]);
        let kept = &stack.settings.as_ref().unwrap().values;
        for (name, value) in good.into_iter().filter(|(name, _)| *name != option) {
            assert_eq!(kept[name].value, value, "{option} is unreadable");
        }
        assert!(!kept.contains_key(option));
        let blocker = crate::model::plan::unknown_settings(&stack).unwrap();
        assert!(blocker.why.contains(&format!("--{option} is {bad:?}")), "{}", blocker.why);
        let removed = if setting == Setting::Alerts { "=false" } else { " ''" };
        assert!(blocker.hint.contains(&format!("up --{option}{removed}`")), "{}", blocker.hint);
        // Given again or taken back, it is known.
        assert!(unknown(&merged(&with(setting, ""), &memory).unwrap()).is_empty(), "{option}");
    }
    assert!(is_whole(&remembered(&[("grafana-ip", "a-name-that-does-not-resolve-today"), ("of-a-newer", "")])));
    // What is remembered in another form counts as empty, and no setting is empty.
    assert!(!is_whole(&remembered(&[("grafana-folder", "")])));
}

#[test]
fn an_unreadable_value_of_an_unused_container_is_no_obstacle_and_a_container_stands_in_for_its_own() {
    let values = remembered(&[("influxdb-url", "http://db:8086"), ("influxdb-port", "abc"), ("retention", "7d")]);
    let external = merged(&inputs(), &remembering(values.clone())).unwrap();
    assert!(external.container(Role::Influxdb).is_none() && external.retention.is_some());
    assert_eq!(external.settings.as_ref().unwrap().lost, None);
    assert!(!external.settings.unwrap().values.contains_key("influxdb-port"), "it is not stored again");
    let back = merged(&with(Setting::InfluxdbUrl, ""), &remembering(values.clone())).unwrap();
    assert_eq!(unknown(&back), ["influxdb-port"]);
    let made = merged(&with(Setting::InfluxdbPort, "8099"), &fresh()).unwrap();
    let made = spec(&made, Role::Influxdb).config.clone();
    let memory = Memory { containers: vec![(Role::Influxdb, Some(made))], ..remembering(values) };
    let back = merged(&with(Setting::InfluxdbUrl, ""), &memory).unwrap();
    assert_eq!((back.url(Role::Influxdb).port, back.settings.unwrap().lost), (8099, None));
}

#[test]
fn a_label_that_is_no_json_is_unreadable_as_a_whole() {
    let stored = StoredSettings { numbers: vec![1], ..StoredSettings::default() };
    let memory = Memory { stored: Some(stored), ..Memory::default() };
    let stack = merged(&inputs(), &memory).unwrap();
    assert_eq!(stack.settings.unwrap().lost.unwrap().cause, Loss::Unreadable);
    // A clash with a supplied value is an error, and does not discard the remembered value.
    let open = memory_of(&merged(&with(Setting::GrafanaIp, "0.0.0.0"), &fresh()).unwrap());
    let mut it = inputs();
    it.secrets.grafana_password = Some(Secret::new("admin"));
    assert!(merged(&it, &open).is_err());
}

#[test]
fn a_host_name_that_does_not_resolve_costs_an_unused_container_no_setting() {
    let mut it = with(Setting::InfluxdbUrl, "http://db:8086");
    for (setting, value) in
        [(Setting::InfluxdbIp, "nowhere"), (Setting::InfluxdbPort, "8099"), (Setting::InfluxdbImage, "own:1")]
    {
        it.options.insert(setting, value.into());
    }
    let memory = memory_of(&merged(&it, &fresh()).unwrap());
    let again = merged(&inputs(), &memory).unwrap().settings.unwrap().values;
    for (name, value) in [("influxdb-ip", "nowhere"), ("influxdb-port", "8099"), ("influxdb-image", "own:1")] {
        assert_eq!(again[name].value, value);
    }
}

#[test]
fn both_servers_cannot_have_one_address() {
    assert!(merged(&with(Setting::GrafanaPort, "8086"), &fresh()).is_err());
    let moved = memory_of(&merged(&with(Setting::InfluxdbPort, "9000"), &fresh()).unwrap());
    assert!(check(&with(Setting::GrafanaPort, "8086")).is_ok(), "the other one may have moved");
    assert!(merged(&with(Setting::GrafanaPort, "8086"), &moved).is_ok());
    let mut it = with(Setting::GrafanaPort, "8086");
    it.options.insert(Setting::GrafanaIp, "127.0.0.2".into());
    assert!(merged(&it, &fresh()).is_ok());
}

#[test]
fn the_containers_user_is_kept_while_another_grafana_is_used() {
    let first = memory_of(&merged(&with(Setting::GrafanaUser, "alice"), &fresh()).unwrap());
    let away = merged(&with(Setting::GrafanaUrl, "http://g:3000"), &first).unwrap();
    assert_eq!((away.login.user.as_str(), away.login.given), ("admin", false), "the container's account is not for it");
    let away = memory_of(&away);
    let back = merged(&with(Setting::GrafanaUrl, ""), &away).unwrap();
    assert_eq!((back.login.user.as_str(), back.login.given), ("alice", false));
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
fn a_host_name_becomes_one_address() {
    let stack = merged(&with(Setting::InfluxdbIp, "localhost"), &fresh()).unwrap();
    assert_eq!(spec(&stack, Role::Influxdb).config.publish.ip(), IpAddr::from([127, 0, 0, 1]));
    assert!(merged(&with(Setting::InfluxdbIp, "nowhere"), &fresh()).is_err());
}

#[test]
fn a_wildcard_is_reached_on_loopback_and_an_engine_elsewhere_by_its_name() {
    let mut it = with(Setting::InfluxdbIp, "0.0.0.0");
    it.options.insert(Setting::GrafanaIp, "::".into());
    let stack = merged(&it, &fresh()).unwrap();
    assert_eq!(stack.url(Role::Influxdb).to_string(), "http://127.0.0.1:8086");
    assert_eq!(stack.url(Role::Grafana).to_string(), "http://[::1]:3000");
    let far = || EngineLocation::Elsewhere("box".into());
    assert_eq!(merged_on(far(), &it, &fresh()).unwrap().url(Role::Influxdb).to_string(), "http://box:8086");
    it.options.remove(&Setting::GrafanaIp);
    let error = merged_on(far(), &it, &fresh()).unwrap_err();
    assert_eq!(error.exit(), crate::error::Exit::Usage);
    let hint = error.hint(&Invocation::default());
    assert!(hint.contains("--grafana-ip"), "{hint}");
}

#[test]
fn the_default_password_is_for_loopback_alone() {
    let mut it = inputs();
    let source = |it: &Inputs| merged(it, &fresh()).map(|stack| spec(&stack, Role::Grafana).config.password);
    assert_eq!(source(&it).unwrap(), PasswordSource::Default);
    it.secrets.grafana_password = Some(Secret::new("admin"));
    assert_eq!(source(&it).unwrap(), PasswordSource::Default);
    it.options.insert(Setting::GrafanaIp, "0.0.0.0".into());
    assert!(source(&it).is_err(), "admin/admin for everybody");
    it.secrets.grafana_password = None;
    assert_eq!(source(&it).unwrap(), PasswordSource::File);
}

#[test]
fn the_data_source_gets_the_address_that_grafana_can_reach() {
    let url = |influxdb: &str, grafana: &str| {
        let mut it = with(Setting::InfluxdbUrl, influxdb);
        it.options.insert(Setting::GrafanaUrl, grafana.into());
        merged(&it, &fresh()).unwrap().data_source.url
    };
    assert_eq!(url("", ""), "http://influxdb:8086");
    assert_eq!(url("http://127.0.0.1:8086/", ""), "http://host.docker.internal:8086");
    assert_eq!(url("http://[::1]:8086", ""), "http://host.docker.internal:8086");
    assert_eq!(url("https://db.example:8086", ""), "https://db.example:8086");
    assert_eq!(url("", "http://localhost:3000"), "http://127.0.0.1:8086");
    assert_eq!(url("http://localhost:8086", "http://localhost:3000"), "http://localhost:8086");
}

#[test]
fn only_another_user_than_before_counts_as_given() {
    let first = merged(&with(Setting::GrafanaUser, "me"), &fresh()).unwrap();
    assert!(first.login.given);
    let memory = memory_of(&first);
    let bare = merged(&inputs(), &memory).unwrap();
    assert_eq!((bare.login.user.as_str(), bare.login.given), ("me", false));
    assert!(merged(&with(Setting::GrafanaUser, ""), &memory).unwrap().login.given, "back to admin");
}

#[test]
fn clippers_file_agrees_by_address_name_or_wildcard() {
    use crate::model::clipper_file::beyond_clipper;
    let target = |host: &str| {
        let file =
            ClipperFile { database: Some("clipper".into()), influx_ip: Some(host.into()), ..ClipperFile::default() };
        let mut it = with(Setting::InfluxdbIp, "127.0.0.1");
        it.file = Some(file);
        let stack = merged(&it, &fresh()).unwrap();
        stack.clipper.as_ref().unwrap().agrees(&stack)
    };
    assert!(target("127.0.0.1") && target("localhost") && target("0.0.0.0"));
    assert!(!target("10.0.0.7") && !target("elsewhere"));
    let beyond = |url: &str| beyond_clipper(&merged(&with(Setting::InfluxdbUrl, url), &fresh()).unwrap());
    assert_eq!(beyond("http://db:8086"), None);
    assert!(beyond("https://db").unwrap().contains("https") && beyond("http://db/influx").unwrap().contains("path"));
}

#[test]
fn clippers_file_needs_only_the_lines_that_it_lacks_and_none_for_its_defaults() {
    use crate::model::clipper_file::{ClipperSettings, clipper_file};
    let settings = |inputs: &Inputs| clipper_file(&merged(inputs, &fresh()).unwrap());
    let (address, database) = ("127.0.0.1:8086".to_string(), "clipper".to_string());
    assert_eq!(settings(&inputs()), ClipperSettings::Defaults { address, database });
    let all = ["influx_dbname = \"clipper\"", "influx_ip = \"127.0.0.1\"", "influx_port = 8087"].map(String::from);
    assert_eq!(settings(&with(Setting::InfluxdbPort, "8087")), ClipperSettings::Lines(all.to_vec()));
    let with_file = |options: &[(Setting, &str)], port: Option<&str>| {
        let file = ClipperFile {
            database: Some("clipper".into()),
            influx_port: port.map(String::from),
            ..ClipperFile::default()
        };
        let options = options.iter().map(|(setting, value)| (*setting, (*value).to_string())).collect();
        settings(&Inputs { file: Some(file), options, ..inputs() })
    };
    assert_eq!(with_file(&[], Some("8087")), ClipperSettings::Agree);
    let lines = |lines: &[&str]| ClipperSettings::Lines(lines.iter().map(|line| (*line).to_string()).collect());
    assert_eq!(with_file(&[(Setting::InfluxdbPort, "8088")], Some("8087")), lines(&["influx_port = 8088"]));
    assert_eq!(with_file(&[(Setting::Database, "other")], None), lines(&["influx_dbname = \"other\""]));
    let elsewhere = [(Setting::InfluxdbUrl, "http://db:8086"), (Setting::Database, "other")];
    assert_eq!(with_file(&elsewhere, None), lines(&["influx_dbname = \"other\"", "influx_ip = \"db\""]));
}

#[test]
fn a_duration_is_bounded() {
    for bad in ["0s", "soon", "400000000000y", "101y"] {
        assert!(duration(bad, "--timeout").is_err(), "{bad}");
    }
    assert_eq!(duration("90s", "--timeout").unwrap(), Duration::from_secs(90));
}

#[test]
fn a_suggested_command_reaches_the_same_instance() {
    let mut it = with(Setting::Name, "x");
    it.options.insert(Setting::Config, "a b.toml".into());
    let engine = EngineFacts::unreached(" -H ssh://me@box".into());
    let (stack, _) = merge(&it, &engine, &fresh()).unwrap();
    assert_eq!(stack.command("up"), "clipper-metrics up --config 'a b.toml' --name x -H ssh://me@box");
}

#[test]
fn own_dashboards_are_remembered_and_a_file_that_is_gone_stops_only_the_run_that_names_it() {
    let stack = merged(&with(Setting::Dashboard, "/d/a1:/d/b2"), &fresh()).unwrap();
    assert_eq!(stack.user_dashboards.iter().map(|own| own.path.as_str()).collect::<Vec<_>>(), ["/d/a1", "/d/b2"]);
    let again = merged(&inputs(), &memory_of(&stack)).unwrap();
    assert_eq!(again.user_dashboards, stack.user_dashboards);
    let none = merged(&with(Setting::Dashboard, ""), &memory_of(&stack)).unwrap();
    assert!(none.user_dashboards.is_empty());
    assert!(!none.settings.unwrap().values.contains_key("dashboard"));
    assert!(merged(&with(Setting::Dashboard, "/d/gone"), &fresh()).is_err());
    let mut memory = memory_of(&stack);
    let values = memory.stored.as_mut().unwrap().values.as_mut().unwrap();
    values.get_mut("dashboard").unwrap().value = "/d/gone:/d/b2".into();
    let stack = merged(&inputs(), &memory).unwrap();
    assert_eq!((stack.user_dashboards.len(), stack.unreadable_dashboards.len()), (1, 1));
}

#[test]
fn remembered_dashboards_that_clash_by_now_stop_nothing() {
    // Two files have one uid by now, another has one title, and one has the bundled dashboard's uid.
    for (paths, clash) in
        [("/d/a1:/d/a2", "/d/a1 and /d/a2"), ("/d/b1:/e/b1", "/d/b1 and /e/b1"), ("/d/a1:/d/x1", "/d/x1")]
    {
        let memory = remembering(remembered(&[("dashboard", paths)]));
        let it = with(Setting::Name, "x");
        let stack = merged(&it, &memory).unwrap();
        assert_eq!((stack.user_dashboards.len(), stack.unreadable_dashboards.len()), (1, 1), "{paths}");
        assert!(stack.unreadable_dashboards[0].contains(clash), "{:?}", stack.unreadable_dashboards);
        assert_eq!(stack.settings.unwrap().values["dashboard"].value, paths, "they stay remembered");
        let mut given = it.clone();
        given.options.insert(Setting::Dashboard, paths.into());
        assert!(merged(&given, &memory).is_err(), "{paths}");
    }
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

#[test]
fn a_suggested_command_names_the_instance_and_file_of_this_run_alone() {
    let environment =
        [(Setting::Name, "b".to_string()), (Setting::Config, "/c".into()), (Setting::Database, "d".into())];
    let environment = environment.into();
    let of = |options: Values| invocation(&options, &environment, "", false).command("up");
    assert_eq!(of(Values::new()), "clipper-metrics up --config /c --name b");
    // An empty option stands for the default and overrides the variable.
    let options = [(Setting::Name, String::new()), (Setting::Config, String::new())].into();
    assert_eq!(of(options), "clipper-metrics up --config '' --name ''");
}

#[test]
fn a_command_for_a_remembered_instance_repeats_credentials_alone() {
    let options: Values = [
        (Setting::Name, "a"),
        (Setting::GrafanaPort, "3001"),
        (Setting::GrafanaUser, "me"),
        (Setting::GrafanaPasswordFile, "p"),
        (Setting::InfluxdbUser, "u"),
    ]
    .map(|(setting, value)| (setting, value.to_string()))
    .into();
    let saved = |external| invocation(&options, &Values::new(), "", external).saved().command("status");
    assert_eq!(saved(false), "clipper-metrics status --name a --influxdb-user u");
    assert_eq!(
        saved(true),
        "clipper-metrics status --name a --grafana-user me --grafana-password-file p --influxdb-user u"
    );
}

#[test]
fn images_that_only_the_memory_names_are_told_from_those_of_this_run() {
    let images = |inputs: &Inputs, remembered: &[(&str, &str)]| {
        let note = |value: &str| Remembered { value: value.into(), from_file: false };
        let values = remembered.iter().map(|(name, value)| ((*name).to_string(), note(value))).collect();
        let stored = StoredSettings { values: Some(values), ..StoredSettings::default() };
        let memory = Memory { stored: Some(stored), ..Memory::default() };
        let stack = merged(inputs, &memory).unwrap();
        let images = remembered_images(inputs, &engine(EngineLocation::Here), &memory, &stack).unwrap();
        images.into_iter().map(|(role, image)| format!("{role} {image}")).collect::<Vec<_>>()
    };
    assert_eq!(images(&inputs(), &[("database", "d")]), Vec::<String>::new());
    assert_eq!(images(&inputs(), &[("grafana-image", "evil/grafana:1")]), ["grafana evil/grafana:1"]);
    let registry = [("registry", "evil.example")];
    assert_eq!(images(&inputs(), &registry).len(), 2, "a registry decides where both come from");
    assert_eq!(images(&with(Setting::Registry, "evil.example"), &registry), Vec::<String>::new());
    assert_eq!(images(&with(Setting::GrafanaImage, "mine:1"), &registry).len(), 1);
    let default = Setting::GrafanaImage.key().default;
    assert_eq!(images(&inputs(), &[("grafana-image", default)]), Vec::<String>::new());
}

#[test]
fn a_loopback_address_in_a_mark_names_its_machine_even_if_that_has_no_fingerprint() {
    let made_for = |engine: &EngineFacts, change: &dyn Fn(&mut Inputs)| {
        let mut it = with(Setting::GrafanaUrl, "http://grafana.example:3000");
        change(&mut it);
        merge(&it, engine, &fresh()).unwrap().0.data_source.made_for()
    };
    let here = engine(EngineLocation::Here);
    let machine = |change: &dyn Fn(&mut Inputs)| made_for(&here, change).machine;
    let over_ssh = EngineLocation::OverSsh { host: "box".into(), forward: SshForward { destination: "box".into() } };
    assert_eq!(machine(&|_| ()).as_deref(), Some("engine"));
    assert_eq!(made_for(&engine(over_ssh), &|_| ()).machine.as_deref(), Some("engine"));
    let external = |it: &mut Inputs| drop(it.options.insert(Setting::InfluxdbUrl, "http://127.0.0.1:8086".into()));
    assert_eq!(machine(&external).as_deref(), Some("this"));
    let chosen = |it: &mut Inputs| drop(it.options.insert(Setting::DataSourceUrl, "http://10.0.0.1:8086".into()));
    assert_eq!(machine(&chosen), None);
    // A machine without a fingerprint differs from every known machine.
    let known = made_for(&here, &|_| ());
    let unknown = made_for(&EngineFacts::unreached(String::new()), &|_| ());
    assert_eq!(known.url, unknown.url);
    assert!(known.is_on_another_machine(&unknown) && unknown.is_on_another_machine(&known));
    // Marks of older versions name no machine.
    assert!(MadeFor { machine: None, ..known.clone() }.is_same(&unknown));
}

#[test]
fn a_remembered_host_name_without_an_address_stops_nothing_while_the_container_exists() {
    let stack = merged(&with(Setting::InfluxdbIp, "localhost"), &fresh()).unwrap();
    let mut memory = memory_of(&stack);
    memory.stored.as_mut().unwrap().values.as_mut().unwrap().get_mut("influxdb-ip").unwrap().value =
        "metrics.lan".into();
    let stored = memory.stored.as_ref().unwrap();
    memory.addresses = remembered_addresses(&inputs(), stored);
    assert!(needs_containers(memory.stored.as_ref().unwrap(), &memory.addresses));
    assert!(merged(&inputs(), &memory).is_err(), "without a container, no address is known");
    let mut made = stack.container(Role::Influxdb).unwrap().config.clone();
    made.publish.set_ip([192, 0, 2, 1].into());
    memory.containers = vec![(Role::Influxdb, Some(made))];
    let again = merged(&inputs(), &memory).unwrap();
    assert_eq!(again.container(Role::Influxdb).unwrap().config.publish.ip(), IpAddr::from([192, 0, 2, 1]));
    assert_eq!(again.settings.unwrap().values["influxdb-ip"].value, "metrics.lan", "it stays remembered");
    assert!(merged(&with(Setting::InfluxdbIp, "metrics.lan"), &memory).is_err(), "this run names it");
}

#[test]
fn a_remembered_host_name_is_resolved_once() {
    let mut memory = remembering(remembered(&[("influxdb-ip", "metrics.lan")]));
    let first = Inputs { resolve: |_| vec![IpAddr::from([192, 0, 2, 7])], ..inputs() };
    memory.addresses = remembered_addresses(&first, memory.stored.as_ref().unwrap());
    let later = Inputs { resolve: |host| unreachable!("{host} is resolved again"), ..inputs() };
    let stack = merged(&later, &memory).unwrap();
    assert_eq!(spec(&stack, Role::Influxdb).config.publish.ip(), IpAddr::from([192, 0, 2, 7]));
    // An external server has no address to publish at.
    let external = with(Setting::InfluxdbUrl, "http://db:8086");
    assert!(remembered_addresses(&external, memory.stored.as_ref().unwrap()).is_empty());
}

#[test]
fn at_a_wildcard_only_addresses_of_the_engines_machine_reach_influxdb() {
    let reaches = |publish: &str, engine: EngineLocation, host: &str| {
        let mut inputs = with(Setting::InfluxdbIp, publish);
        inputs.options.insert(Setting::GrafanaIp, "0.0.0.0".into());
        inputs.resolve = |name| match name {
            "box" => vec![IpAddr::from([198, 51, 100, 7])],
            "localhost" => vec![IpAddr::from([127, 0, 0, 1])],
            _ => Vec::new(),
        };
        let text = format!("influx_ip = \"{host}\"\n");
        inputs.file =
            Some(crate::clipper::file::parse(std::path::Path::new("c.toml"), &text, &keys::file_keys()).unwrap());
        let stack = merged_on(engine, &inputs, &fresh()).unwrap();
        stack.clipper.as_ref().unwrap().reaches(&stack)
    };
    let far = || EngineLocation::Elsewhere("box".into());
    for (publish, engine, host, expected) in [
        ("0.0.0.0", EngineLocation::Here, "127.0.0.1", true),
        ("0.0.0.0", EngineLocation::Here, "192.0.2.1", true),
        ("0.0.0.0", EngineLocation::Here, "localhost", true),
        ("0.0.0.0", EngineLocation::Here, "0.0.0.0", true),
        ("0.0.0.0", EngineLocation::Here, "192.0.2.2", false),
        ("0.0.0.0", EngineLocation::Here, "box", false),
        ("0.0.0.0", EngineLocation::Here, "::1", false),
        ("::", EngineLocation::Here, "::1", true),
        ("192.0.2.1", EngineLocation::Here, "192.0.2.1", true),
        ("192.0.2.1", EngineLocation::Here, "127.0.0.1", false),
        ("0.0.0.0", far(), "box", true),
        ("0.0.0.0", far(), "198.51.100.7", true),
        ("0.0.0.0", far(), "192.0.2.1", false),
        ("0.0.0.0", far(), "127.0.0.1", false),
    ] {
        assert_eq!(reaches(publish, engine.clone(), host), expected, "{host} for {publish} on {engine:?}");
    }
}
