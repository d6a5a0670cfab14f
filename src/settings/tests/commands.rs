//! Suggested commands, and the lines for Clipper's file.

use super::*;

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
fn an_ipv6_address_has_brackets_in_clippers_file() {
    use crate::model::clipper_file::{ClipperSettings, clipper_file};
    let settings = |host: &str| {
        let mut it = with(Setting::InfluxdbIp, "::1");
        it.file = Some(ClipperFile {
            database: Some("clipper".into()),
            influx_ip: Some(host.into()),
            ..ClipperFile::default()
        });
        clipper_file(&merged(&it, &fresh()).unwrap())
    };
    assert_eq!(settings("[::1]"), ClipperSettings::Agree);
    for host in ["::1", "127.0.0.1"] {
        assert_eq!(settings(host), ClipperSettings::Lines(vec!["influx_ip = \"[::1]\"".into()]), "{host}");
    }
}

#[test]
fn an_external_influxdb_is_the_one_in_clippers_file_if_both_hosts_have_one_address() {
    let agrees = |host: &str| {
        let mut it = with(Setting::InfluxdbUrl, "http://db.lan:8086");
        let addresses = |name: &str| if name == "db.lan" { vec![IpAddr::from([10, 0, 0, 5])] } else { Vec::new() };
        it.resolve = addresses;
        it.file = Some(ClipperFile {
            database: Some("clipper".into()),
            influx_ip: Some(host.into()),
            ..ClipperFile::default()
        });
        let stack = merged(&it, &fresh()).unwrap();
        stack.clipper.as_ref().unwrap().agrees(&stack)
    };
    for (host, expected) in
        [("db.lan", true), ("DB.lan", true), ("10.0.0.5", true), ("10.0.0.6", false), ("other.lan", false)]
    {
        assert_eq!(agrees(host), expected, "{host}");
    }
}

#[test]
fn a_login_may_be_for_an_influxdb_whose_address_is_remembered() {
    for setting in [Setting::InfluxdbUser, Setting::InfluxdbPasswordFile] {
        assert!(check(&with(setting, "x")).is_ok(), "{setting:?}");
        let metrics = [(setting.key().metrics_key().unwrap(), "x".to_string())].into();
        let file = ClipperFile { metrics, ..ClipperFile::default() };
        assert!(check(&Inputs { file: Some(file), ..inputs() }).is_ok(), "{setting:?}");
    }
}

#[test]
fn a_login_for_influxdb_in_the_environment_may_be_meant_for_another_instance() {
    let mut it = inputs();
    it.secrets.influxdb_password = Some(Secret::new("p"));
    it.environment.insert(Setting::InfluxdbUser, "u".into());
    let (stack, credentials) = merge(&it, &EngineFacts::unreached(String::new()), &fresh()).unwrap();
    assert!(stack.data_source.user.is_empty() && credentials.influxdb.is_none());
    for setting in [Setting::InfluxdbUser, Setting::InfluxdbPasswordFile] {
        let options = Values::from([(setting, "x".to_string())]);
        assert!(merged(&Inputs { options, ..it.clone() }, &fresh()).is_err(), "{setting:?}");
        // An empty option overrides the file.
        let metrics = [(setting.key().metrics_key().unwrap(), "x".to_string())].into();
        let file = Some(ClipperFile { metrics, ..ClipperFile::default() });
        let in_file = Inputs { environment: Values::new(), file, ..it.clone() };
        assert!(merged(&in_file, &fresh()).is_err(), "{setting:?}");
        let options = Values::from([(Setting::InfluxdbUser, String::new()), (setting, String::new())]);
        assert!(merged(&Inputs { options, ..in_file }, &fresh()).is_ok(), "{setting:?}");
    }
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
fn a_suggested_command_reaches_the_same_instance() {
    let mut it = with(Setting::Name, "x");
    it.options.insert(Setting::Config, "a b.toml".into());
    let engine = EngineFacts::unreached(" -H ssh://me@box".into());
    let (stack, _) = merge(&it, &engine, &fresh()).unwrap();
    assert_eq!(stack.command("up"), "clipper-metrics up --config 'a b.toml' --name x -H ssh://me@box");
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
