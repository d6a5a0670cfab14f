//! The merge, setting by setting. Must not know how anything is read.

use super::*;
use crate::core::specification::PasswordSource;
use crate::core::stack::ContainerSpec;

fn inputs() -> Inputs {
    Inputs {
        options: Values::new(),
        environment: Values::new(),
        file: None,
        secrets: Secrets::default(),
        ca_file: None,
        edition: "e".into(),
        alerts_edition: "a".into(),
        engine: EngineLocation::Here,
        engine_options: String::new(),
        repeats_options: false,
        resolve: |name| if name == "localhost" { vec![IpAddr::from([127, 0, 0, 1])] } else { Vec::new() },
        own_address: || None,
        read_dashboard: |path, _| match path.rsplit_once('/').map_or(path, |(_, name)| name) {
            name if name.starts_with("gone") => Err(Error::usage(format!("{path} cannot be read"), "")),
            name => Ok(UserDashboard {
                path: path.into(),
                uid: name[..1].into(),
                title: name[..name.len().min(2)].into(),
                edition: "1".into(),
                content: String::new(),
            }),
        },
    }
}

/// Nothing is remembered yet.
fn fresh() -> Memory {
    Memory { stored: Some(StoredSettings::default()), containers: Vec::new() }
}

/// What a stack remembers, as the next run finds it.
fn memory_of(stack: &Stack) -> Memory {
    let values = Some(stack.settings.as_ref().unwrap().values.clone());
    Memory { stored: Some(StoredSettings { numbers: vec![1], values, upgrade: None }), containers: Vec::new() }
}

fn merged(inputs: &Inputs, memory: &Memory) -> Result<Stack> {
    merge(inputs, memory).map(|(stack, _)| stack)
}

fn with(setting: Setting, value: &str) -> Inputs {
    Inputs { options: [(setting, value.to_string())].into(), ..inputs() }
}

fn spec(stack: &Stack, role: Role) -> &ContainerSpec {
    stack.container(role).unwrap()
}

#[test]
fn defaults_are_clippers_and_grafanas_own_and_none_is_remembered() {
    let stack = merged(&inputs(), &fresh()).unwrap();
    assert_eq!(stack.url(Role::Influxdb).to_string(), "http://127.0.0.1:8086");
    assert_eq!(stack.url(Role::Grafana).to_string(), "http://127.0.0.1:3000");
    assert_eq!((stack.database.as_str(), stack.data_source.url.as_str()), ("clipper", "http://influxdb:8086"));
    assert_eq!(spec(&stack, Role::Influxdb).specification.image.to_string(), "influxdb:1.12.4");
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
    assert_eq!((values["database"].value.as_str(), values["database"].of_file), ("an option", false));
    assert_eq!((values["influxdb-port"].value.as_str(), values["influxdb-port"].of_file), ("8087", true));
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
    !spec(stack, Role::Grafana).specification.publish.ip().is_loopback()
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
    let made = Role::ALL.map(|role| (role, Some(spec(&stack, role).specification.clone())));
    let memory = Memory { stored: Some(StoredSettings::default()), containers: made.to_vec() };
    let bare = merged(&inputs(), &memory).unwrap();
    assert_eq!(bare.url(Role::Grafana).port, 3003);
    assert_eq!(spec(&bare, Role::Influxdb).specification, spec(&stack, Role::Influxdb).specification);
    assert!(bare.settings.unwrap().lost.unwrap().unknown_database);
    let told = merged(&with(Setting::Database, "d"), &memory).unwrap();
    assert!(!told.settings.unwrap().lost.unwrap().unknown_database);
}

#[test]
fn what_somebody_wrote_into_the_label_is_nobodys_usage_error() {
    let values = |name: &str, value: &str| {
        BTreeMap::from([(name.to_string(), Remembered { value: value.into(), of_file: false })])
    };
    for (name, value) in [("influxdb-port", "x"), ("grafana-url", "ftp://x"), ("grafana-image", "a b")] {
        assert!(!is_readable(&values(name, value)), "{name}");
    }
    assert!(is_readable(&values("grafana-ip", "a-name-that-does-not-resolve-today")));
    let memory = Memory {
        stored: Some(StoredSettings { numbers: vec![1], values: None, upgrade: None }),
        containers: Vec::new(),
    };
    let stack = merged(&inputs(), &memory).unwrap();
    assert_eq!(stack.settings.unwrap().lost.unwrap().why, "unreadable");
    // What somebody typed still is, and what only clashes with it is no reason to forget.
    assert!(merged(&with(Setting::GrafanaPort, "x"), &memory).is_err());
    let open = memory_of(&merged(&with(Setting::GrafanaIp, "0.0.0.0"), &fresh()).unwrap());
    let mut it = inputs();
    it.secrets.grafana_password = Some(Secret::new("admin"));
    assert!(merged(&it, &open).is_err());
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
    let away = memory_of(&merged(&with(Setting::GrafanaUrl, "http://g:3000"), &first).unwrap());
    let back = merged(&with(Setting::GrafanaUrl, ""), &away).unwrap();
    assert_eq!((back.login.user.as_str(), back.login.given), ("alice", false));
}

#[test]
fn a_registry_stands_before_both_default_images_and_no_others() {
    let mut it = with(Setting::Registry, "mirror:5000/");
    it.options.insert(Setting::GrafanaImage, "own/grafana".into());
    let stack = merged(&it, &fresh()).unwrap();
    assert_eq!(spec(&stack, Role::Influxdb).specification.image.to_string(), "mirror:5000/influxdb:1.12.4");
    let grafana = &spec(&stack, Role::Grafana).specification;
    assert_eq!((grafana.image.to_string().as_str(), grafana.read_only), ("own/grafana:latest", false));
}

#[test]
fn a_host_name_becomes_one_address() {
    let stack = merged(&with(Setting::InfluxdbIp, "localhost"), &fresh()).unwrap();
    assert_eq!(spec(&stack, Role::Influxdb).specification.publish.ip(), IpAddr::from([127, 0, 0, 1]));
    assert!(merged(&with(Setting::InfluxdbIp, "nowhere"), &fresh()).is_err());
}

#[test]
fn a_wildcard_is_reached_on_loopback_and_an_engine_elsewhere_by_its_name() {
    let mut it = with(Setting::InfluxdbIp, "0.0.0.0");
    it.options.insert(Setting::GrafanaIp, "::".into());
    let stack = merged(&it, &fresh()).unwrap();
    assert_eq!(stack.url(Role::Influxdb).to_string(), "http://127.0.0.1:8086");
    assert_eq!(stack.url(Role::Grafana).to_string(), "http://[::1]:3000");
    it.engine = EngineLocation::Elsewhere("box".into());
    assert_eq!(merged(&it, &fresh()).unwrap().url(Role::Influxdb).to_string(), "http://box:8086");
    it.options.remove(&Setting::GrafanaIp);
    let error = merged(&it, &fresh()).unwrap_err();
    assert_eq!(error.exit(), crate::error::Exit::Usage);
    let hint = error.hint(&Invocation::default());
    assert!(hint.contains("--grafana-ip"), "{hint}");
}

#[test]
fn the_default_password_is_for_loopback_alone() {
    let mut it = inputs();
    let source = |it: &Inputs| merged(it, &fresh()).map(|stack| spec(&stack, Role::Grafana).specification.password);
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
    use crate::core::status::beyond_clipper;
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
    it.engine_options = " -H ssh://me@box".into();
    let stack = merged(&it, &fresh()).unwrap();
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
fn two_dashboards_of_one_uid_or_title_are_an_error_that_names_both() {
    for (paths, named) in [("/d/a1:/d/a2", "\"a\""), ("/d/a1:/e/a1", "/d/a1 and /e/a1"), ("/d/x1", "bundled")] {
        let mut inputs = with(Setting::Dashboard, paths);
        inputs.options.insert(Setting::Name, "x".into());
        let error = merged(&inputs, &fresh()).unwrap_err();
        assert!(matches!(error, Error::Usage { .. }) && error.to_string().contains(named), "{error}");
    }
}

#[test]
fn a_suggested_command_repeats_every_dashboard() {
    let options = [(Setting::Dashboard, "/d/a 1:/d/b".to_string())].into();
    let command = invocation(&options, &Values::new(), "", true).command("status");
    assert_eq!(command, "clipper-metrics status --dashboard '/d/a 1' --dashboard /d/b");
}

#[test]
fn images_that_only_the_memory_names_are_told_from_those_of_this_run() {
    let images = |inputs: &Inputs, remembered: &[(&str, &str)]| {
        let note = |value: &str| Remembered { value: value.into(), of_file: false };
        let values = remembered.iter().map(|(name, value)| ((*name).to_string(), note(value))).collect();
        let stored = StoredSettings { values: Some(values), ..StoredSettings::default() };
        let memory = Memory { stored: Some(stored), containers: Vec::new() };
        let stack = merged(inputs, &memory).unwrap();
        let images = remembered_images(inputs, &memory, &stack).unwrap();
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
