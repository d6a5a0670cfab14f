//! The instance's objects in a shared Grafana, on its double in every version: objects created for
//! another InfluxDB or database, objects that Grafana fails to return, and a changed data source.

use serde_json::{Value, json};

use crate::servers::user_dashboards::export as shared;
use crate::support::context::Record;
use crate::support::double::{Double, Version};
use crate::support::influxd::Influxd;
use crate::support::run::{Ran, Run, shell_words};
use crate::support::servers::Servers;

const DASHBOARD: &str = "/api/dashboards/uid/clipper-metrics";
const SOURCE: &str = "/api/datasources/uid/clipper-metrics";
const RULES: &str = "/api/v1/provisioning/alert-rules";

/// Runs the program with that InfluxDB and the Grafana of `it`.
fn with_influxdb(it: &Servers, influxdb: &str, words: &[&str]) -> Ran {
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let urls = ["--influxdb-url", influxdb, "--grafana-url", &grafana];
    Run::without_engine(words.iter().chain(urls.iter()).copied()).run()
}

/// All objects of an instance in Grafana, as stored.
fn stored(it: &Servers, version: Version) -> Value {
    let read = |path: &str| it.ask("GET", path, None).1;
    let rules = if version == Version::V7 { Value::Null } else { read(RULES) };
    json!([read("/api/datasources"), read(DASHBOARD), read("/api/dashboards/uid/mine"), read("/api/folders"), rules])
}

pub fn change_source(it: &Servers, version: Version, change: impl FnOnce(&mut Value)) {
    let mut source = it.ask("GET", SOURCE, None).1;
    change(&mut source);
    let path = match version {
        Version::V7 => format!("/api/datasources/{}", source["id"]),
        _ => SOURCE.into(),
    };
    assert_eq!(it.ask("PUT", &path, Some(&source)).0, 200, "{version:?}");
}

/// Options for an instance with objects of every kind.
fn of_every_kind(version: Version, mine: &str) -> Vec<&str> {
    let mut options = vec!["--dashboard", mine, "--grafana-folder", "Metrics"];
    if version > Version::V7 {
        options.push("--alerts");
    }
    options
}

#[test]
fn two_teams_with_one_name_never_take_each_others_objects() {
    let theirs = Influxd::start();
    let mut record = Record::default().port(theirs.port, ":9087");
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record).filter(version.name(), "VERSION");
        let mine = it.write("mine.json", shared("mine", "Mine").to_string());
        let options = of_every_kind(version, &mine);
        let words = |verb: &[&'static str]| {
            // `down` looks for the rules without the option.
            let options = options.iter().filter(|option| verb[0] != "down" || **option != "--alerts");
            verb.iter().chain(options).copied().collect::<Vec<_>>()
        };
        it.run(&words(&["up"])).expect(0);
        let before = stored(&it, version);
        let other = |verb: &[&'static str]| with_influxdb(&it, &theirs.url(), &words(verb));

        let conflict = record.add("another team's objects", other(&["up"]).expect(1));
        let keep = conflict.err.split("; `").nth(1).and_then(|hint| hint.split('`').next()).unwrap();
        record.add("another team's objects", other(&["status"]).expect(3));
        let status = other(&["status", "--output", "json"]).expect(3).json();
        assert_eq!(status["data_source"]["state"], "foreign", "{version:?}");
        record.add("another team's objects", other(&["up", "--dry-run"]).expect(3));
        other(&["up", "--overwrite-dashboard"]).expect(1);
        record.add("another team's objects", other(&["down", "--deregister"]).expect(1));
        assert_eq!(other(&["down", "--deregister", "--dry-run"]).code, 3, "{version:?}");
        assert_eq!(stored(&it, version), before, "{version:?}: nothing was touched");
        it.run(&words(&["status"])).expect(0);

        // The suggested command moves InfluxDB together with the data source.
        Run::without_engine(&shell_words(keep)[1..]).run().expect(0);
        let after = Run::without_engine(shell_words(&keep.replacen("up", "status --output json", 1)).split_off(1));
        let after = after.run().expect(0).json();
        assert_eq!(after["influxdb"]["url"], it.ask("GET", SOURCE, None).1["url"], "{version:?}");
        assert_eq!(stored(&it, version), before, "{version:?}: nothing was touched");

        // Without the data source, the other objects still name their target.
        it.ask("DELETE", SOURCE, None);
        let before = stored(&it, version);
        other(&["up"]).expect(1);
        other(&["down", "--deregister"]).expect(1);
        assert_eq!(stored(&it, version), before, "{version:?}: nothing was touched");
        it.run(&words(&["up"])).expect(0);

        // InfluxDB has moved, and the user confirms that.
        record.add("InfluxDB has moved", other(&["up", "--move-data-source", "--dry-run"]).expect(3));
        other(&["up", "--move-data-source"]).expect(0);
        other(&["status"]).expect(0);
        assert_eq!(it.ask("GET", SOURCE, None).1["url"], theirs.url(), "{version:?}");
        it.run(&words(&["up"])).expect(1);
        other(&["down", "--deregister"]).expect(0);
        assert_eq!(it.ask("GET", "/api/datasources", None).1, json!([]), "{version:?}");
        for path in [DASHBOARD, "/api/dashboards/uid/mine"] {
            assert_eq!(it.ask("GET", path, None).0, 404, "{version:?}: {path}");
        }
        assert!(version == Version::V7 || it.ask("GET", RULES, None).1 == json!([]), "{version:?}");
    }
    record.section();
}

#[test]
fn another_database_is_a_conflict_and_the_hint_keeps_the_earlier_one() {
    let it = Servers::start(Version::V12_4);
    it.run(&["up", "--database", "clipper-test"]).expect(0);
    let mut record = it.record();
    record.add("another database", it.run(&["up"]).expect(1));
    record.section();
    assert_eq!(it.ask("GET", SOURCE, None).1["database"], "clipper-test");
    let error = it.run(&["up", "--output", "json"]).expect(1);
    assert_eq!(error.json()["error"]["kind"], "conflict", "{}", error.out);
    it.run(&["up", "--move-data-source"]).expect(0);
    assert_eq!(it.ask("GET", SOURCE, None).1["database"], "clipper");
    it.run(&["status"]).expect(0);
}

#[test]
fn a_run_without_clippers_file_moves_no_data_source_to_the_default_database() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let file = it.write("clipper.toml", "name = \"clipper-test\"\n");
        it.run(&["up", "--config", &file]).expect(0);
        let before = stored(&it, version);
        record.add("without Clipper's file", it.run(&["up"]).expect(1));
        assert_eq!(stored(&it, version), before, "{version:?}");
        assert_eq!(it.run(&["status", "--output", "json"]).expect(3).json()["data_source"]["state"], "foreign");
        it.run(&["status", "--config", &file]).expect(0);
    }
    record.section();
}

#[test]
fn the_same_address_on_another_machines_loopback_is_another_influxdb() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        it.run(&["up"]).expect(0);
        let other = |source: &mut Value| {
            let mark = &mut source["jsonData"]["clipperMetricsMadeFor"];
            assert!(mark["machine"].is_string(), "{version:?}: {mark}");
            mark["machine"] = "another".into();
        };
        change_source(&it, version, other);
        let before = stored(&it, version);
        record.add("the same address on another machine", it.run(&["up"]).expect(1));
        assert_eq!(it.run(&["up", "--output", "json"]).expect(1).json()["error"]["kind"], "conflict");
        it.run(&["status"]).expect(3);
        record.add("the same address on another machine", it.run(&["down", "--deregister"]).expect(1));
        assert_eq!(stored(&it, version), before, "{version:?}: objects of the other machine were not changed");
        it.run(&["up", "--move-data-source"]).expect(0);
        it.run(&["status"]).expect(0);
        it.run(&["down", "--deregister"]).expect(0);
    }
    record.section();
}

#[test]
fn a_database_set_only_for_newer_versions_of_grafana_belongs_to_this_instance() {
    let it = Servers::start(Version::V12_4);
    it.run(&["up"]).expect(0);
    let only_in_json = |source: &mut Value| {
        source["database"] = "".into();
        source["jsonData"].as_object_mut().unwrap().remove("clipperMetricsMadeFor").unwrap();
    };
    change_source(&it, Version::V12_4, only_in_json);
    it.run(&["status"]).expect(3);
    it.run(&["up"]).expect(0);
    assert_eq!(it.ask("GET", SOURCE, None).1["database"], "clipper");
    it.run(&["status"]).expect(0);
}

#[test]
fn objects_of_older_versions_still_work_and_are_not_taken_over_either() {
    let theirs = Influxd::start();
    for version in Version::ALL {
        let it = Servers::start(version);
        it.run(&["up"]).expect(0);
        // Older versions stored neither the target of an object nor the query language.
        change_source(&it, version, |source| {
            let settings = source["jsonData"].as_object_mut().unwrap();
            settings.remove("clipperMetricsMadeFor").unwrap();
            settings.remove("version").unwrap();
        });
        let mut dashboard = it.ask("GET", DASHBOARD, None).1["dashboard"].clone();
        dashboard["clipperMetrics"].as_object_mut().unwrap().remove("madeFor").unwrap();
        let save = json!({"dashboard": dashboard, "overwrite": true, "folderUid": ""});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200, "{version:?}");
        it.run(&["status"]).expect(0);
        assert_eq!(it.run(&["up"]).expect(0).headline(), "clipper-metrics is in sync: nothing to do", "{version:?}");
        let before = stored(&it, version);
        with_influxdb(&it, &theirs.url(), &["up"]).expect(1);
        with_influxdb(&it, &theirs.url(), &["down", "--deregister"]).expect(1);
        assert_eq!(stored(&it, version), before, "{version:?}: nothing was touched");
        it.run(&["down", "--deregister"]).expect(0);
        assert_eq!(it.ask("GET", "/api/datasources", None).1, json!([]), "{version:?}");
    }
}

#[test]
fn instances_with_one_name_in_two_organisations_do_not_conflict() {
    let theirs = Influxd::start();
    for version in Version::ALL {
        let it = Servers::start(version);
        it.run(&["up", "--grafana-org", "One"]).expect(0);
        let other = |verb: &[&str]| with_influxdb(&it, &theirs.url(), &[verb, &["--grafana-org", "Two"]].concat());
        other(&["up"]).expect(0);
        it.run(&["status", "--grafana-org", "One"]).expect(0);
        other(&["down", "--deregister"]).expect(0);
        it.run(&["status", "--grafana-org", "One"]).expect(0);
    }
}

#[test]
fn a_data_source_changed_by_a_user_is_kept_when_the_objects_are_removed() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        it.run(&["up"]).expect(0);
        change_source(&it, version, |source| source["jsonData"]["timeInterval"] = json!("1m"));
        record.add("the data source was edited", it.run(&["down", "--deregister"]).expect(0));
        assert_eq!(it.ask("GET", SOURCE, None).0, 200, "{version:?}");
        assert_eq!(it.ask("GET", DASHBOARD, None).0, 404, "{version:?}");
    }
    record.section();
}

#[test]
fn a_data_source_that_changes_during_the_removal_is_kept_and_reported() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        it.run(&["up"]).expect(0);
        it.double.lock().unwrap().change_interval_after_deletion("1m");
        record.add("the data source changes during the removal", it.run(&["down", "--deregister"]).expect(0));
        assert_eq!((it.ask("GET", SOURCE, None).0, it.ask("GET", DASHBOARD, None).0), (200, 404), "{version:?}");
    }
    record.section();
}

/// A change to a stored data source.
type Change = fn(&mut Value);

#[test]
fn fields_that_decide_whether_panels_work_are_repaired() {
    for version in Version::ALL {
        let it = Servers::start(version);
        it.run(&["up"]).expect(0);
        assert_eq!(it.ask("GET", SOURCE, None).1["jsonData"]["version"], "InfluxQL", "{version:?}");
        let changes: [(&str, &str, Change); 7] = [
            ("language", "Flux", |source| source["jsonData"]["version"] = json!("Flux")),
            ("language", "SQL", |source| source["jsonData"]["version"] = json!("SQL")),
            ("access", "direct", |source| source["access"] = json!("direct")),
            ("database", "\"other\" and \"clipper\"", |source| source["jsonData"]["dbName"] = json!("other")),
            ("database", "\"clipper\" and \"\"", |source| source["database"] = json!("")),
            ("HTTP method", "GET", |source| source["jsonData"]["httpMode"] = json!("GET")),
            ("interval", "1s", |source| source["jsonData"]["timeInterval"] = json!("1s")),
        ];
        for (field, actual, change) in changes {
            change_source(&it, version, change);
            let status = it.run(&["status", "--output", "json"]).expect(3).json();
            let differences = status["data_source"]["differences"].as_array().unwrap();
            let found = differences.iter().map(|one| (one["field"].as_str().unwrap(), one["have"].as_str().unwrap()));
            assert_eq!(found.collect::<Vec<_>>(), [(field, actual)], "{version:?}");
            it.run(&["up"]).expect(0);
            it.run(&["status"]).expect(0);
        }
        // Fields added by a browser change nothing.
        change_source(&it, version, |source| {
            source["jsonData"]["pdcInjected"] = json!(false);
            source["jsonData"]["tlsAuth"] = json!(false);
            source["jsonData"]["maxSeries"] = json!(1000);
            source["version"] = json!(9);
        });
        it.run(&["status"]).expect(0);
        assert_eq!(it.run(&["up"]).expect(0).headline(), "clipper-metrics is in sync: nothing to do", "{version:?}");
    }
}

#[test]
fn settings_for_a_proxy_in_front_of_an_external_influxdb_are_kept() {
    for version in Version::ALL {
        let it = Servers::start(version);
        it.run(&["up"]).expect(0);
        change_source(&it, version, |source| {
            (source["basicAuth"], source["basicAuthUser"]) = (json!(true), json!("me"));
            source["jsonData"]["httpHeaderName1"] = json!("X-Tenant");
            source["jsonData"]["tlsSkipVerify"] = json!(true);
        });
        it.run(&["status"]).expect(0);
        change_source(&it, version, |source| source["jsonData"]["version"] = json!("Flux"));
        it.run(&["up"]).expect(0);
        let source = it.ask("GET", SOURCE, None).1;
        assert_eq!((&source["basicAuth"], &source["basicAuthUser"]), (&json!(true), &json!("me")), "{version:?}");
        assert_eq!(source["jsonData"]["httpHeaderName1"], "X-Tenant", "{version:?}");
        assert_eq!(source["jsonData"]["tlsSkipVerify"], true, "{version:?}");
    }
}

#[test]
fn a_data_source_that_moves_takes_no_credentials_to_the_new_server() {
    let theirs = Influxd::start();
    let mut record = Record::default().port(theirs.port, ":9087");
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        it.run(&["up"]).expect(0);
        change_source(&it, version, |source| {
            (source["basicAuth"], source["basicAuthUser"]) = (json!(true), json!("me"));
            source["jsonData"]["httpHeaderName1"] = json!("X-Tenant");
            source["jsonData"]["maxSeries"] = json!(1000);
        });
        let moving = ["up", "--move-data-source"];
        let other = |words: &[&str]| with_influxdb(&it, &theirs.url(), words);
        other(&["up"]).expect(1);
        record.add("the data source moves", other(&[&moving[..], &["--dry-run"]].concat()).expect(3));
        other(&moving).expect(0);
        let source = it.ask("GET", SOURCE, None).1;
        assert_eq!(source["url"], theirs.url(), "{version:?}");
        assert_ne!(source["basicAuth"], true, "{version:?}");
        assert_eq!(source["jsonData"]["httpHeaderName1"], Value::Null, "{version:?}");
        assert_eq!(source["jsonData"]["maxSeries"], 1000, "{version:?}");
        other(&["status"]).expect(0);
    }
    record.section();
}

fn double<T>(it: &Servers, change: impl FnOnce(&mut Double) -> T) -> T {
    change(&mut it.double.lock().unwrap())
}

#[test]
fn the_instances_folders_are_found_where_a_user_moved_them_and_beside_equal_titles() {
    let changes: [fn(&mut Double, &str); 2] = [Double::nest_folder, Double::precede_folder];
    for version in [Version::V12, Version::V12_4, Version::V13] {
        for change in changes {
            let it = Servers::start(version);
            let mine = it.write("mine.json", shared("mine", "Mine").to_string());
            let up = ["up", "--alerts", "--grafana-folder", "Metrics"];
            it.run(&up).expect(0);
            let folders = it.ask("GET", "/api/folders", None).1;
            let uid = |title: &str| {
                let found = folders.as_array().unwrap().iter().find(|folder| folder["title"] == title);
                found.unwrap()["uid"].as_str().unwrap().to_string()
            };
            let [own, of_alerts] = ["Metrics", "Clipper Metrics alerts"].map(uid);
            for title in ["Metrics", "Clipper Metrics alerts"] {
                double(&it, |double| change(double, title));
            }
            double(&it, Double::forget_seen);
            assert!(it.run(&up).expect(0).out.contains("nothing to do"), "{version:?}");
            let asked = double(&it, |double| double.seen().iter().filter(|seen| seen.path.contains("folders")).count());
            assert_eq!(asked, 1, "{version:?}: one request is enough");

            let rule = it.ask("GET", RULES, None).1[0]["uid"].as_str().unwrap().to_string();
            it.ask("DELETE", &format!("{RULES}/{rule}"), None);
            let mine = ["--dashboard", mine.as_str()];
            it.run(&[&up[..], &mine].concat()).expect(0);
            let meta = it.ask("GET", "/api/dashboards/uid/mine", None).1["meta"].clone();
            assert_eq!(meta["folderUid"], own, "{version:?}: {meta}");
            let rules = it.ask("GET", RULES, None).1;
            assert!(
                rules.as_array().unwrap().iter().all(|rule| rule["folderUID"] == of_alerts),
                "{version:?}: {rules}"
            );
            it.run(&[&["down", "--deregister", "--grafana-folder", "Metrics"][..], &mine].concat()).expect(0);
            for uid in [&own, &of_alerts] {
                assert_eq!(it.ask("GET", &format!("/api/folders/{uid}"), None).0, 404, "{version:?}");
            }
        }
    }
}

#[test]
fn a_dashboard_saved_in_schema_v2_counts_as_edited() {
    let mut record = Record::default();
    for version in [Version::V12, Version::V12_4, Version::V13] {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let mine = it.write("mine.json", shared("mine", "Mine").to_string());
        let words = |verb: &[&'static str]| [verb, &["--dashboard", &mine]].concat();
        it.run(&words(&["up"])).expect(0);
        double(&it, |double| double.save_in_schema_v2("clipper-metrics"));
        double(&it, |double| double.save_in_schema_v2("mine"));
        let status = it.run(&words(&["status", "--output", "json"])).expect(0).json();
        assert_eq!(status["grafana"]["state"], "answering", "{version:?}");
        assert_eq!(status["dashboard"]["state"], "edited", "{version:?}");
        assert_eq!(status["user_dashboards"][0]["state"], "edited", "{version:?}");
        // Everything else is repaired.
        it.ask("DELETE", SOURCE, None);
        it.run(&words(&["up"])).expect(0);
        it.run(&words(&["doctor"]));
        let (_, kept) = it.ask("GET", DASHBOARD, None);
        assert_eq!(kept["dashboard"]["clipperMetrics"], Value::Null, "{version:?}: it was left alone");
        let [option, file] = it.grafana_password("admin");
        let export = ["export", "provisioning", &it.path("files"), &option, &file];
        record.add("a dashboard is in schema v2", it.run(&export).expect(0));
        it.run(&words(&["up", "--overwrite-dashboard"])).expect(0);
        let (_, saved) = it.ask("GET", DASHBOARD, None);
        assert!(saved["dashboard"]["clipperMetrics"].is_object(), "{version:?}");
        it.run(&words(&["status"])).expect(0);
        // A foreign dashboard is a blocker and stays.
        it.ask("DELETE", DASHBOARD, None);
        let theirs = json!({"dashboard": {"uid": "clipper-metrics", "title": "Theirs", "panels": []}});
        it.ask("POST", "/api/dashboards/db", Some(&theirs));
        double(&it, |double| double.save_in_schema_v2("clipper-metrics"));
        for options in [&["up"][..], &["up", "--overwrite-dashboard"]] {
            record.add("another dashboard has the uid", it.run(options).expect(1));
        }
    }
    record.section();
}

#[test]
fn an_unreadable_resource_is_a_finding_about_that_resource_alone() {
    let mut record = Record::default();
    for (path, resource, status) in [
        ("/api/datasources", "data source", 500),
        ("/api/dashboards/uid/mine", "dashboard \"Mine\"", 500),
        ("/api/dashboards/uid/mine", "dashboard \"Mine\"", 400),
        ("/api/dashboards/uid/mine", "dashboard \"Mine\"", 403),
        ("/api/folders", "folder", 500),
        (RULES, "alerts", 500),
        ("/api/orgs/name/Team", "organisation", 500),
    ] {
        let it = Servers::start(Version::V12_4);
        record = it.continue_record(record);
        let mine = it.write("mine.json", shared("mine", "Mine").to_string());
        let mut options = of_every_kind(Version::V12_4, &mine);
        if resource == "organisation" {
            options.extend(["--grafana-org", "Team"]);
        }
        let words = |verb: &[&'static str]| {
            // `down` looks for the rules without the option.
            let options = options.iter().filter(|option| verb[0] != "down" || **option != "--alerts");
            verb.iter().chain(options).copied().collect::<Vec<_>>()
        };
        double(&it, |double| double.break_path(path, status));
        let seen = it.run(&words(&["status", "--output", "json"])).expect(3).json();
        assert_eq!(seen["grafana"]["state"], "answering", "{path}: {seen}");
        let situation = format!("Grafana answers {status} to {path}");
        let text = record.add(&situation, it.run(&words(&["status"])).expect(3)).out;
        assert!(!text.contains("repairs this"), "{path}: {text}");
        let up = record.add(&situation, it.run(&words(&["up"])).expect(1));
        for wrong in ["does not answer", "rejected the login", "not answering"] {
            assert!(!up.err.contains(wrong), "{path}: {}", up.err);
        }
        assert!(it.influxd.rows("", "SHOW DATABASES").contains(&json!(["clipper"])), "{path}: the rest is done");
        if resource.starts_with("dashboard") {
            assert_eq!(it.ask("GET", DASHBOARD, None).0, 200, "{path}: the rest is done");
            assert_eq!(it.ask("GET", SOURCE, None).0, 200, "{path}: the rest is done");
        }
    }
    record.section();
}

#[test]
fn an_answer_that_is_too_large_is_a_finding_about_its_object() {
    let it = Servers::start(Version::V12_4);
    let mut record = it.record();
    for path in ["/api/datasources", DASHBOARD] {
        double(&it, |double| double.flood_path(path));
        let situation = format!("Grafana answers too much to {path}");
        for verb in ["status", "up"] {
            let run = it.run(&[verb]).expect(if verb == "up" { 1 } else { 3 });
            let text = format!("{}{}", run.out, run.err);
            assert!(!text.contains("does not answer") && text.contains("smaller than 16 MiB"), "{text}");
            record.add(&situation, run);
        }
    }
    record.section();
}

#[test]
fn unreadable_preferences_leave_the_home_page_unchanged_and_stop_nothing() {
    let it = Servers::start(Version::V12_4);
    double(&it, |double| double.break_path("/api/org/preferences", 500));
    let mut record = it.record();
    record.add("Grafana's preferences cannot be read", it.run(&["up"]).expect(0));
    it.run(&["status"]).expect(0);
    record.section();
}

#[test]
fn an_existing_home_page_is_kept() {
    for version in Version::ALL {
        let it = Servers::start(version);
        let save = json!({"dashboard": {"uid": "theirs", "title": "Theirs"}});
        let (status, saved) = it.ask("POST", "/api/dashboards/db", Some(&save));
        assert_eq!(status, 200, "{version:?}: {saved}");
        let home = || it.ask("GET", "/api/org/preferences", None).1;
        let (method, theirs) = match version {
            Version::V7 => ("PUT", json!({"homeDashboardId": saved["id"]})),
            _ => ("PATCH", json!({"homeDashboardUID": "theirs"})),
        };
        assert_eq!(it.ask(method, "/api/org/preferences", Some(&theirs)).0, 200, "{version:?}");
        let before = home();
        let planned = it.run(&["up", "--dry-run", "--output", "json"]).expect(3).json().to_string();
        assert!(planned.contains("save_dashboard") && !planned.contains("set_home"), "{version:?}: {planned}");
        it.run(&["up"]).expect(0);
        assert_eq!(home(), before, "{version:?}");
        it.run(&["up", "--dry-run"]).expect(0);
    }
}
