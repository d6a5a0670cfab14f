//! `doctor` names the right first failure: every test breaks one thing between Clipper and the
//! panels, with a real InfluxDB and Grafana's double. Tests that need an engine are in
//! `e2e/doctor.rs`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::e2e::lifecycle::interrupt;
use crate::support::context::{Record, TestContext};
use crate::support::double::Version;
use crate::support::influxd::Influxd;
use crate::support::run::{Ran, Run};
use crate::support::server::{Request, Response, in_background};
use crate::support::servers::Servers;
use crate::support::{eventually, free_port};

/// The path of the bundled dashboard.
const DASHBOARD: &str = "/api/dashboards/uid/clipper-metrics";

/// Servers configured for a Clipper whose model m1 reports, and Clipper's file.
struct Case {
    servers: Servers,
    file: String,
}

impl Case {
    fn healthy(version: Version) -> Self {
        Self::with(version, Influxd::start())
    }

    fn with(version: Version, influxd: Influxd) -> Self {
        let it = Self::without_reports(version, influxd);
        it.report("m1");
        it
    }

    fn without_reports(version: Version, influxd: Influxd) -> Self {
        let servers = Servers::start_with(version, influxd);
        let it = Self { file: servers.path("clipper.toml"), servers };
        it.write_file("d", it.servers.influxd.port, &["m1"]);
        it.servers.run(&["up", "--config", it.path()]).expect(0);
        it
    }

    fn path(&self) -> &str {
        &self.file
    }

    fn write_file(&self, database: &str, port: u16, models: &[&str]) {
        let models: String = models.iter().map(|name| format!("[[models]]\nname = \"{name}\"\n")).collect();
        let text = format!("influx_dbname = \"{database}\"\ninflux_port = {port}\n{models}");
        self.servers.write("clipper.toml", text);
    }

    /// Writes one report of a model with the current time.
    fn report(&self, model: &str) {
        self.servers.influxd.write("d", &report(model, 0));
    }

    fn command(&self, more: &[&str]) -> Run {
        let words: Vec<&str> = ["doctor", "--config", self.path()].iter().chain(more).copied().collect();
        self.servers.command(&words)
    }

    /// Expects this check to fail; returns the human output and the document.
    fn first_failure(&self, failed: &str) -> (Ran, Value) {
        let people = self.command(&[]).run().expect(3);
        let document = self.command(&["--output", "json"]).run().expect(3).json();
        check(&people, &document);
        assert_eq!(document["culprit"]["check"], failed, "{document}");
        (people, document)
    }

    /// Expects this check to fail, and records the first line of the human output.
    fn expect(&self, record: &mut Record, failed: &str) -> Value {
        let (people, document) = self.first_failure(failed);
        record.add(failed, first_line(people));
        document
    }

    /// Changes and saves the stored dashboard as a user would.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let (_, present) = self.servers.ask("GET", DASHBOARD, None);
        let mut dashboard = present["dashboard"].clone();
        change(&mut dashboard);
        let save = json!({"dashboard": dashboard, "overwrite": true, "folderUid": ""});
        assert_eq!(self.servers.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
    }

    fn has_probe(&self) -> bool {
        self.servers.influxd.rows("d", "SHOW MEASUREMENTS").contains(&json!(["clipper_metrics_probe"]))
    }
}

/// The first line of a run's output instead of all of it.
fn first_line(ran: Ran) -> Ran {
    Ran { out: format!("{}\n", ran.headline()), err: String::new(), ..ran }
}

/// The human output matches the document.
fn check(people: &Ran, document: &Value) {
    let first = people.headline();
    match &document["culprit"] {
        Value::Null => assert!(first.starts_with("no failures: "), "{first}"),
        failure => {
            let [message, hint] = ["message", "hint"].map(|field| failure[field].as_str().unwrap());
            // Each run has its own probe and durations.
            let without_digits = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
            assert_eq!(without_digits(first), without_digits(&format!("first failure: {message}: {hint}")));
        }
    }
    let checks = document["checks"].as_array().unwrap();
    assert!(people.out.lines().count() >= checks.len() + 2, "every check has a line:\n{}", people.out);
}

fn state<'a>(document: &'a Value, check: &str, object: Option<&str>) -> &'a str {
    let found = document["checks"].as_array().unwrap().iter();
    let mut found = found.filter(|one| one["check"] == check && object.is_none_or(|object| one["object"] == object));
    let found = found.next().unwrap_or_else(|| panic!("no check {check}: {document}"));
    found["state"].as_str().unwrap()
}

fn report(model: &str, minutes_ago: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let at = i64::try_from(now).unwrap() - minutes_ago * 60_000_000_000;
    format!(
        "{model}_prediction_counter value=120 {at}\n{model}_model_thruput,units=events-per-second \
         rate=8,one_min=7,five_min=7,fifteen_min=6 {at}\n{model}_model_latency \
         size=120,min=310,max=9120,mean=1032.4,std=400.2,p95=2000,p99=4100,p50=900 {at}\n"
    )
}

/// Runs the program with a clock that differs from the real one.
pub(crate) fn with_clock(run: Run, offset: &str) -> Run {
    let library = std::fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path().join("faketime/libfaketime.so.1"))
        .find(|path: &PathBuf| path.exists());
    let library = library.expect("this test shifts the program's clock with Debian's package libfaketime");
    run.env("LD_PRELOAD", library.to_str().unwrap()).env("FAKETIME", offset).env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

#[test]
fn an_organisation_that_cannot_be_used_is_named_and_no_other_one_is_examined() {
    for version in [Version::V7, Version::V13] {
        let case = Case::healthy(version);
        let healthy = case.command(&[]).run().expect(0);
        assert!(healthy.out.contains("panel"), "{}", healthy.out);
        let words = ["--grafana-org", "Team", "--output", "json"];
        let document = case.command(&words).run().expect(3).json();
        assert_eq!(document["culprit"]["check"], "grafana", "{version:?}: {document}");
        assert_eq!(document["culprit"]["message"], r#"Grafana has no organisation "Team""#);
        let hint = document["culprit"]["hint"].as_str().unwrap();
        assert!(hint.contains("up --config") && hint.contains("--grafana-org Team"), "{hint}");
        let checks = document["checks"].as_array().unwrap();
        let follow = ["plugin", "data_source", "dashboard", "panel"];
        assert!(!checks.iter().any(|one| follow.contains(&one["check"].as_str().unwrap())), "{document}");
    }
}

#[test]
fn all_checks_pass_and_nothing_is_left_behind() {
    for version in Version::ALL {
        let it = Case::healthy(version);
        let people = it.command(&[]).run().expect(0);
        assert_eq!(people.headline(), "no failures: 21 of 21 panels answer", "{version:?}:\n{}", people.out);
        let document = it.command(&["--output", "json"]).run().expect(0).json();
        check(&people, &document);
        assert_eq!(document["healthy"], true);
        assert_eq!(document["panels"], json!({"answering": 21, "total": 21}), "{version:?}");
        let passed = |check| state(&document, check, None) == "passed";
        for check in ["write", "read_back", "clocks", "field_types", "query", "variable", "reports"] {
            assert!(passed(check), "{version:?}: {check}: {document}");
        }
        let panel = document["checks"].as_array().unwrap().iter().find(|one| one["object"] == "Latency of $model");
        assert!(panel.unwrap()["message"].as_str().unwrap().ends_with(" points"), "{version:?}: {document}");
        assert!(!it.has_probe(), "{version:?}");
        // Nothing was changed in Grafana.
        assert_eq!(it.servers.ask("GET", DASHBOARD, None).1["meta"]["version"], 1, "{version:?}");
        let odd = it.servers.double.lock().unwrap().seen().iter().filter(|seen| seen.status == 501).count();
        assert_eq!(odd, 0, "{version:?}: a request that no Grafana is known to answer");
    }
}

#[test]
fn a_wrong_port_in_clippers_file() {
    let it = Case::healthy(Version::V12);
    let mut record = it.servers.record();
    let wrong = free_port();
    it.write_file("d", wrong, &["m1"]);
    record = record.port(wrong, ":9087");
    it.expect(&mut record, "influxdb");
    record.section();
}

#[test]
fn clippers_file_contains_an_address_without_its_brackets() {
    let case = Case::healthy(Version::V12);
    let port = case.servers.influxd.port;
    case.servers.write("clipper.toml", format!("influx_dbname = \"d\"\ninflux_ip = \"::1\"\ninflux_port = {port}\n"));
    let (_, document) = case.first_failure("clipper_settings");
    let hint = document["culprit"]["hint"].as_str().unwrap();
    assert!(hint.contains(r#"influx_ip in Clipper's file to "[::1]""#), "{hint}");
}

#[test]
fn clippers_file_names_another_influxdb() {
    let it = Case::healthy(Version::V12);
    let other = Influxd::start();
    let mut record = it.servers.record().port(other.port, ":9087");
    it.write_file("d", other.port, &["m1"]);
    it.expect(&mut record, "database");
    other.query("", "CREATE DATABASE d");
    it.write_file("d", other.port, &["m1"]);
    it.expect(&mut record, "read_back");
    let left = other.rows("d", "SHOW MEASUREMENTS");
    assert!(!left.contains(&json!(["clipper_metrics_probe"])), "it is removed there too");
    record.section();
}

#[test]
fn a_wrong_database() {
    let it = Case::healthy(Version::V12);
    let mut record = it.servers.record();
    it.write_file("typo", it.servers.influxd.port, &["m1"]);
    it.expect(&mut record, "database");
    // The dashboard shows one database, and Clipper writes to the other.
    let words = ["doctor", "--config", it.path(), "--database", "d", "--output", "json"];
    let document = it.servers.command(&words).run().expect(3).json();
    assert_eq!(document["culprit"]["check"], "clipper_settings", "{document}");
    // No setting says so, but the reports are in another database.
    let it = Case::without_reports(Version::V12, Influxd::start());
    record = it.servers.continue_record(record);
    it.servers.influxd.query("", "CREATE DATABASE elsewhere");
    it.servers.influxd.write("elsewhere", &report("m1", 0));
    it.expect(&mut record, "reports");
    record.section();
}

#[test]
fn the_database_was_dropped() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Case::healthy(version);
        record = it.servers.continue_record(record);
        it.servers.influxd.query("", "DROP DATABASE d");
        it.expect(&mut record, "database");
    }
    record.section();
}

#[test]
fn influxdb_has_stopped() {
    let mut it = Case::healthy(Version::V12);
    let mut record = it.servers.record();
    it.servers.influxd.kill();
    it.expect(&mut record, "influxdb");
    record.section();
}

#[test]
fn influxdb_2_answers_instead() {
    let it = Case::healthy(Version::V12);
    let mut record = it.servers.record();
    let port = in_background(|_: Request| async {
        let mut response = Response::json(204, &json!({}));
        response.headers.push(("x-influxdb-version".into(), "v2.7.1".into()));
        response
    });
    it.write_file("d", port, &["m1"]);
    record = record.port(port, ":9087");
    it.expect(&mut record, "influxdb");
    record.section();
}

#[test]
fn the_disk_is_full() {
    let it = Case::with(Version::V12, Influxd::start_on_a_small_disk(24));
    it.servers.influxd.fill_disk();
    // The last page of a file has room for a few more bytes.
    let url = format!("{}/write?db=d", it.servers.influxd.url());
    let mut lines = 0..;
    eventually("a write is refused", Duration::from_secs(20), || {
        let line = format!("filler value={}\n", lines.next().unwrap()).repeat(100);
        crate::support::run::http("POST", &url, Some(&line)).is_some_and(|(status, _)| status != 204)
    });
    // InfluxDB's own message names the file that it could not write.
    let document = it.first_failure("write").1;
    let failure = &document["culprit"];
    let message = failure["message"].as_str().unwrap();
    assert!(message.starts_with("InfluxDB's disk is full, so it rejects every report: cannot write to "), "{message}");
    let hint = "free disk space there (`docker system df` shows its use), or set a shorter --retention";
    assert_eq!(failure["hint"], hint);
    // `demo` writes there as well.
    let demo = it.servers.run(&["demo", "--backfill", "2h", "--mix", "--config", it.path()]).expect(1);
    let hint = "hint: free space on the disk with that server's data, then run the same command again";
    assert!(demo.err.contains("no space left"), "{}", demo.err);
    assert_eq!(demo.err.lines().last(), Some(hint));
}

#[test]
fn a_retention_policy_drops_the_points() {
    let it = Case::healthy(Version::V12);
    let mut record = it.servers.record();
    it.servers.influxd.query("", "CREATE RETENTION POLICY \"short\" ON \"d\" DURATION 1h REPLICATION 1 DEFAULT");
    let document = with_clock(it.command(&["--output", "json"]), "-3h").run().expect(3).json();
    assert_eq!(document["culprit"]["check"], "write", "{document}");
    let people = with_clock(it.command(&[]), "-3h").run().expect(3);
    check(&people, &document);
    record.add("write", first_line(people));
    record.section();
}

#[test]
fn a_field_has_another_type() {
    let it = Case::without_reports(Version::V12, Influxd::start());
    let mut record = it.servers.record();
    it.servers.influxd.write("d", "m1_prediction_counter value=\"text\"\n");
    let document = it.expect(&mut record, "field_types");
    assert_eq!(state(&document, "write", None), "passed");
    record.section();
}

#[test]
fn there_are_too_many_series() {
    let influxd = Influxd::start_with(&[("INFLUXDB_DATA_MAX_SERIES_PER_DATABASE", "3")]);
    let it = Case::with(Version::V12, influxd);
    let mut record = it.servers.record();
    it.expect(&mut record, "write");
    record.section();
}

#[test]
fn the_limit_in_influxdbs_message_is_reported() {
    let influxd = Influxd::start_with(&[("INFLUXDB_DATA_MAX_VALUES_PER_TAG", "1")]);
    let it = Case::with(Version::V12, influxd);
    let mut record = it.servers.record();
    // A current probe of another run.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    it.servers.influxd.write("d", &format!("clipper_metrics_probe,probe={now}-other value=1\n"));
    let document = it.expect(&mut record, "write");
    assert!(!document.to_string().contains("max-series-per-database"), "{document}");
    record.section();
}

#[test]
fn a_model_has_a_name_that_clipper_cannot_write() {
    let it = Case::healthy(Version::V12);
    let mut record = it.servers.record();
    it.write_file("d", it.servers.influxd.port, &["m1", "a,b"]);
    it.expect(&mut record, "clipper_settings");
    record.section();
}

#[test]
fn clocks_are_an_hour_apart() {
    let it = Case::healthy(Version::V12);
    let mut record = it.servers.record().filter("59m", "60m");
    for offset in ["+1h", "-1h"] {
        let document = with_clock(it.command(&["--output", "json"]), offset).run().expect(3).json();
        assert_eq!(document["culprit"]["check"], "clocks", "{document}");
        let people = with_clock(it.command(&[]), offset).run().expect(3);
        record.add(&format!("clocks: {offset}"), first_line(people));
    }
    record.section();
}

#[test]
fn grafanas_data_source_points_elsewhere() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Case::healthy(version);
        record = it.servers.continue_record(record);
        let (_, sources) = it.servers.ask("GET", "/api/datasources", None);
        let mut source = sources[0].clone();
        source["url"] = json!("http://127.0.0.1:1");
        let path = match version {
            Version::V7 => format!("/api/datasources/{}", source["id"]),
            _ => "/api/datasources/uid/clipper-metrics".into(),
        };
        assert_eq!(it.servers.ask("PUT", &path, Some(&source)).0, 200);
        it.expect(&mut record, "data_source");
    }
    record.section();
}

#[test]
fn grafana_uses_other_settings_than_it_shows() {
    let mut record = Record::default();
    for version in [Version::V9, Version::V12, Version::V12_4] {
        let it = Case::healthy(version);
        record = it.servers.continue_record(record);
        it.servers.make_settings_stale();
        let found = it.expect(&mut record, "query");
        // All queries to that data source would fail for the same reason, so none is sent.
        let checks = found["checks"].as_array().unwrap();
        assert!(checks.iter().all(|check| check["check"] != "panel" && check["check"] != "variable"), "{found}");
    }
    record.section();
}

#[test]
fn grafana_has_no_plugin() {
    let it = Case::healthy(Version::V13);
    let mut record = it.servers.record();
    it.servers.double.lock().unwrap().remove_plugin();
    it.expect(&mut record, "plugin");
    record.section();
}

#[test]
fn the_fields_of_all_measurements_are_listed_at_most_once() {
    // The first version passes statements in the path.
    let it = Case::healthy(Version::V7);
    let asked = |exit: i32| {
        it.servers.double.lock().unwrap().forget_seen();
        it.command(&[]).run().expect(exit);
        let double = it.servers.double.lock().unwrap();
        let count = |is: &dyn Fn(&str) -> bool| double.seen().iter().filter(|seen| is(&seen.path)).count();
        let keys = ["FIELD", "TAG"].map(|kind| format!("q=SHOW%20{kind}%20KEYS"));
        let of_all = keys.each_ref().map(|statement| count(&|path: &str| path.ends_with(statement.as_str())));
        let of_some =
            keys.each_ref().map(|statement| count(&|path: &str| path.contains(&format!("{statement}%20FROM"))));
        (of_all, of_some)
    };
    let (of_all, of_one_model) = asked(0);
    assert_eq!(of_all, [0, 0], "an example of each kind has all fields");
    for model in 2..=5 {
        it.report(&format!("m{model}"));
    }
    assert_eq!(asked(0), ([0, 0], of_one_model), "for all models together");
    it.edit(|dashboard| {
        for panel in [6, 7] {
            let target = &mut dashboard["panels"][panel]["targets"][0];
            target["query"] = json!(target["query"].as_str().unwrap().replace("mean(\"", "mean(\"no_"));
        }
    });
    assert_eq!(asked(3).0, [1, 1], "fields that the examples lack are searched in all measurements");
}

#[test]
fn one_panel_queries_a_missing_field() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Case::healthy(version);
        record = it.servers.continue_record(record);
        it.edit(|dashboard| {
            let target = &mut dashboard["panels"][6]["targets"][0];
            target["query"] = json!(target["query"].as_str().unwrap().replace("\"value\"", "\"valeu\""));
        });
        let document = it.expect(&mut record, "panel");
        assert_eq!(document["culprit"]["object"], "Predictions per report");
        assert_eq!(document["panels"], json!({"answering": 20, "total": 21}), "that one only: {document}");
    }
    record.section();
}

#[test]
fn one_panel_has_an_invalid_query_and_others_query_other_sources() {
    let it = Case::healthy(Version::V12);
    let mut record = it.servers.record();
    it.edit(|dashboard| {
        dashboard["panels"][0]["targets"][0]["query"] = json!("SELEC nonsense");
        dashboard["panels"][1]["datasource"] = json!({"type": "datasource", "uid": "-- Grafana --"});
        dashboard["panels"][1]["targets"][0].as_object_mut().unwrap().remove("datasource");
        // Panels that compute with another query's result, that a browser fills in, or whose
        // variables only a browser knows.
        let expression = json!({"refId": "B", "datasource": {"type": "__expr__", "uid": "__expr__"}, "type": "reduce"});
        dashboard["panels"][2]["targets"].as_array_mut().unwrap().push(expression);
        let built_in = "SELECT last(\"value\") FROM \"m1_prediction_counter\" WHERE time > now() - ${__range_s}s";
        dashboard["panels"][3]["targets"][0]["query"] = json!(built_in);
        let unknown = "SELECT last(\"value\") FROM \"m1_prediction_counter\" WHERE \"user\" = '$__user'";
        dashboard["panels"][4]["targets"][0]["query"] = json!(unknown);
    });
    let document = it.expect(&mut record, "panel");
    assert_eq!(state(&document, "panel", Some("Per second")), "skipped");
    assert_eq!(state(&document, "panel", Some("Worst p99")), "passed");
    assert_eq!(state(&document, "panel", Some("Reporting")), "passed");
    assert_eq!(state(&document, "panel", Some("Last report")), "skipped");
    assert_eq!(document["panels"], json!({"answering": 18, "total": 19}), "{document}");
    record.section();
}

#[test]
fn a_failing_data_source_is_reported_instead_of_its_panels() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Case::healthy(version);
        record = it.servers.continue_record(record);
        let body = json!({"name": "Elsewhere", "uid": "elsewhere", "type": "influxdb", "access": "proxy",
                          "url": "http://127.0.0.1:1", "database": "d", "jsonData": {"dbName": "d"}});
        assert_eq!(it.servers.ask("POST", "/api/datasources", Some(&body)).0, 200);
        it.edit(|dashboard| {
            let reference = if version == Version::V7 {
                json!("Elsewhere")
            } else {
                json!({"type": "influxdb", "uid": "elsewhere"})
            };
            for panel in [0, 1] {
                dashboard["panels"][panel]["datasource"] = reference.clone();
            }
        });
        let document = it.expect(&mut record, "data_source");
        assert!(!document.to_string().contains("--overwrite-dashboard"), "{version:?}: {document}");
        for panel in ["Predictions", "Per second"] {
            assert_eq!(state(&document, "panel", Some(panel)), "skipped", "{version:?}: {document}");
        }
        assert_eq!(document["panels"], json!({"answering": 19, "total": 19}), "{version:?}: {document}");
    }
    // 9.4 uses the same words for an invalid query, which is its panel's fault.
    let it = Case::healthy(Version::V9);
    record = it.servers.continue_record(record);
    it.edit(|dashboard| dashboard["panels"][0]["targets"][0]["query"] = json!("SELEC nonsense"));
    it.expect(&mut record, "panel");
    record.section();
}

#[test]
fn a_model_whose_name_looks_like_a_variable_is_queried() {
    for version in Version::ALL {
        let it = Case::without_reports(version, Influxd::start());
        it.write_file("d", it.servers.influxd.port, &["$HOME"]);
        it.report("$HOME");
        let document = it.command(&["--output", "json"]).run().expect(0).json();
        assert_eq!(document["panels"], json!({"answering": 21, "total": 21}), "{version:?}: {document}");
        let checks = document["checks"].as_array().unwrap();
        let panels = checks.iter().filter(|check| check["check"] == "panel");
        // The report does not mention the server as a whole.
        let of_server = |title: &str| title.contains("whole server") || title == "Accuracy";
        let panels = panels.filter(|check| !of_server(check["object"].as_str().unwrap()));
        let is_empty = |check: &&Value| check["message"].as_str().unwrap().contains("no points");
        let empty: Vec<&Value> = panels.filter(is_empty).collect();
        assert!(empty.is_empty(), "{version:?}: {empty:?}");
    }
}

#[test]
fn a_variable_finds_nothing() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Case::healthy(version);
        record = it.servers.continue_record(record);
        it.edit(|dashboard| {
            let list = dashboard["templating"]["list"].as_array_mut().unwrap();
            let model = list.iter_mut().find(|variable| variable["name"] == "model").unwrap();
            model["regex"] = json!("/(.*)_nothing$/");
        });
        let document = it.expect(&mut record, "variable");
        assert_eq!(document["culprit"]["object"], "model");
    }
    record.section();
}

#[test]
fn the_dashboards_time_range_misses_the_reports() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Case::healthy(version);
        record = it.servers.continue_record(record);
        it.edit(|dashboard| dashboard["time"] = json!({"from": "now-2d", "to": "now-1d"}));
        it.expect(&mut record, "dashboard");
    }
    record.section();
}

#[test]
fn the_listed_models_are_retired() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Case::healthy(version);
        record = it.servers.continue_record(record);
        // The first 25 by name have reported in the same week, but not within the last 30 minutes.
        let old: String = (0..30).map(|number| report(&format!("a{number}"), 31)).collect();
        it.servers.influxd.write("d", &old);
        // Collapsed panels show all models.
        let document = it.expect(&mut record, "dashboard");
        assert_eq!(document["panels"], json!({"answering": 21, "total": 21}), "{version:?}");
        // Models that are not in the time range's shards are not listed at all.
        it.servers.influxd.query("d", "DROP SERIES FROM /^a\\d/");
        let old: String = (0..30).map(|number| report(&format!("b{number}"), 30 * 24 * 60)).collect();
        it.servers.influxd.write("d", &old);
        it.report("m1");
        let diagnosis = it.command(&["--output", "json"]).run().json();
        assert_eq!(diagnosis["culprit"], Value::Null, "{version:?}: {diagnosis}");
    }
    record.section();
}

#[test]
fn the_dashboard_was_deleted() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Case::healthy(version);
        record = it.servers.continue_record(record);
        it.servers.ask("DELETE", DASHBOARD, None);
        let document = it.expect(&mut record, "dashboard");
        assert_eq!(document["panels"], json!({"answering": 0, "total": 0}));
    }
    record.section();
}

#[test]
fn clipper_or_one_of_its_models_does_not_report() {
    let it = Case::without_reports(Version::V12, Influxd::start());
    let mut record = it.servers.record();
    let document = it.expect(&mut record, "reports");
    assert_eq!(state(&document, "variable", None), "skipped", "nothing is wrong with it");
    it.servers.influxd.write("d", &report("m1", 10));
    it.expect(&mut record, "reports");
    it.report("m1");
    it.command(&[]).run().expect(0);
    it.servers.influxd.write("d", &report("m2", 7));
    it.write_file("d", it.servers.influxd.port, &["m1", "m2"]);
    it.expect(&mut record, "reports");
    it.servers.influxd.query("d", "DROP SERIES FROM /^m2_/");
    it.write_file("d", it.servers.influxd.port, &["m1", "m2", "m3"]);
    it.expect(&mut record, "reports");
    record.section();
}

#[test]
fn clipper_cannot_use_an_influxdb_that_requires_a_login() {
    let it = Case::healthy(Version::V12);
    let mut record = it.servers.record();
    let secured = Influxd::start_with(&[("INFLUXDB_HTTP_AUTH_ENABLED", "true")]);
    secured.query("", "CREATE USER admin WITH PASSWORD 'p' WITH ALL PRIVILEGES");
    it.write_file("d", secured.port, &["m1"]);
    record = record.port(secured.port, ":9087");
    it.expect(&mut record, "influxdb");
    record.section();
}

#[test]
fn a_grafana_that_does_not_answer_or_rejects_the_login_is_reported() {
    let it = Case::healthy(Version::V12);
    let mut record = it.servers.record();
    let config = it.path().to_string();
    let with_grafana = |url: &str, password: &str| {
        let influxdb = it.servers.influxd.url();
        let words =
            ["doctor", "--config", &config, "--influxdb-url", &influxdb, "--grafana-url", url, "--output", "json"];
        let run = Run::without_engine(words);
        run.env("CLIPPER_METRICS_GRAFANA_PASSWORD", password).run().expect(3)
    };
    let closed = free_port();
    let ports = [(closed, "admin"), (it.servers.port(), "wrong")];
    for (port, password) in ports {
        let ran = with_grafana(&format!("http://127.0.0.1:{port}"), password);
        let failure = &ran.json()["culprit"];
        assert_eq!(failure["check"], "grafana", "{failure}");
        let out = format!("{}\nhint: {}\n", failure["message"].as_str().unwrap(), failure["hint"].as_str().unwrap());
        record.add("grafana", Ran { typed: ran.typed.replace(" --output json", ""), out, ..ran });
    }
    record = record.port(closed, ":3099");
    record.section();
}

/// The answer of the server at another port of this machine.
pub(crate) fn forwarded(port: u16, request: Request) -> Response {
    let asked = std::thread::spawn(move || {
        let url = format!("http://127.0.0.1:{port}{}", request.path);
        let body = String::from_utf8(request.body).unwrap();
        let passed = ["authorization", "content-type", "x-grafana-org-id", "x-grafana-nocache"];
        let headers: Vec<(&str, &str)> = request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| passed.contains(name) && !(*name == "content-type" && body.is_empty()))
            .collect();
        let body = (!body.is_empty()).then_some(body.as_str());
        crate::support::run::http_with(&request.method, &url, body, &headers).unwrap()
    });
    let (status, text) = asked.join().unwrap();
    Response::bytes(status, "application/json", text.into_bytes())
}

#[test]
fn a_slow_panel_is_not_a_failure_of_its_data_source() {
    let mut record = Record::default();
    for version in [Version::V9, Version::V12_4] {
        let it = Case::healthy(version);
        let (influxdb, port) = (it.servers.influxd.url(), it.servers.port());
        let busy = in_background(move |request: Request| async move {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            if request.path.starts_with("/api/ds/query") && body.contains("_model_thruput") {
                return Response::json(504, &json!({"message": "i/o timeout"}));
            }
            forwarded(port, request)
        });
        let grafana = format!("http://127.0.0.1:{busy}");
        let words = ["doctor", "--config", it.path(), "--influxdb-url", &influxdb, "--grafana-url", &grafana];
        record = it.servers.continue_record(record.port(busy, ":3001")).filter(version.name(), "VERSION");
        let doctor = record.run("queries of throughput take too long", Run::without_engine(words)).expect(0);
        assert!(!doctor.out.contains("--overwrite-dashboard"), "{}", doctor.out);
    }
    record.section();
}

#[test]
fn an_interrupted_run_removes_its_probe_and_that_of_a_killed_run_is_removed_later() {
    let it = Case::healthy(Version::V12);
    let (influxdb, port) = (it.servers.influxd.url(), it.servers.port());
    // A Grafana that hangs during the check for the plugin, after the probe was written.
    let slow = in_background(move |request: Request| async move {
        if request.path.contains("/plugins/") {
            std::future::pending::<()>().await;
        }
        forwarded(port, request)
    });
    let grafana = format!("http://127.0.0.1:{slow}");
    let words = ["doctor", "--config", it.path(), "--influxdb-url", &influxdb, "--grafana-url", &grafana];
    let start = || {
        let run = Run::without_engine(words);
        run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let process = start();
    eventually("the probe is written", Duration::from_secs(20), || it.has_probe());
    interrupt(process.id());
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(!it.has_probe(), "it is removed");
    // A probe of a run that was killed long ago is removed; a recent one belongs to a run that may
    // still be active.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let probes = format!(
        "clipper_metrics_probe,probe={}-1 value=1\nclipper_metrics_probe,probe={now}-2 value=1\n",
        now - 90_000
    );
    it.servers.influxd.write("d", &probes);
    it.command(&[]).run().expect(0);
    let left = it.servers.influxd.rows("d", "SHOW SERIES FROM clipper_metrics_probe");
    assert_eq!(left, [json!([format!("clipper_metrics_probe,probe={now}-2")])]);
}

#[test]
fn an_invalid_file_is_an_error_and_changes_nothing() {
    let it = TestContext::new();
    let file = it.write("clipper.toml", "influx_dbname = \"a&b\"\n");
    let mut record = it.record();
    record.run("an invalid file", Run::without_engine(["doctor", "--config", &file])).expect(2);
    record.section();
}
