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
