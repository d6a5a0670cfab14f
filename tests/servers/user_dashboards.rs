//! Users' dashboards on Grafana's double in every version: how an export is imported, who may
//! change it, and what prevents the import. `e2e/settings.rs` shows that they are remembered.

use serde_json::{Value, json};

use crate::support::context::Record;
use crate::support::double::{Seen, Version};
use crate::support::run::Ran;
use crate::support::servers::Servers;

/// A dashboard that was exported for sharing, with a placeholder for its data source.
pub(crate) fn export(uid: &str, title: &str) -> Value {
    let target = json!({
        "refId": "A", "rawQuery": true, "resultFormat": "time_series",
        "query": "SELECT mean(\"value\") FROM \"m1_prediction_counter\" WHERE $timeFilter GROUP BY time($__interval)",
    });
    json!({
        "__inputs": [{"name": "DS_INFLUX", "label": "influx", "type": "datasource", "pluginId": "influxdb"}],
        "__requires": [{"type": "datasource", "id": "influxdb", "version": "1.0.0"}],
        "__elements": {},
        "id": null, "uid": uid, "title": title, "schemaVersion": 36, "version": 7,
        "time": {"from": "now-1h", "to": "now"},
        "panels": [{
            "id": 1, "type": "timeseries", "title": "Counter", "gridPos": {"x": 0, "y": 0, "w": 24, "h": 8.0},
            "datasource": {"type": "influxdb", "uid": "${DS_INFLUX}"}, "targets": [target],
        }],
    })
}

fn write(it: &Servers, name: &str, dashboard: &Value) -> String {
    it.write(name, dashboard.to_string())
}

fn path_of(uid: &str) -> String {
    format!("/api/dashboards/uid/{uid}")
}

#[test]
fn an_export_gets_the_data_source_and_follows_its_file_until_it_is_edited() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let (one, two) = (write(&it, "a.json", &export("one", "One")), write(&it, "b.json", &export("", "Two")));
        let up = ["up", "--dashboard", &one, "--dashboard", &two];
        record.add("the first import", it.run(&up).expect(0));
        record.add("nothing changed", it.run(&up).expect(0));
        let (_, stored) = it.ask("GET", &path_of("one"), None);
        let source = &stored["dashboard"]["panels"][0]["datasource"];
        let reference = if version == Version::V7 { source } else { &source["uid"] };
        let desired = if version == Version::V7 { "Clipper Metrics" } else { "clipper-metrics" };
        assert_eq!(reference, desired, "{version:?}");
        assert_eq!(stored["meta"]["version"], 1, "{version:?}");
        let status = ["status", "--output", "json", "--dashboard", &one, "--dashboard", &two];
        let state = it.run(&status).expect(0).json();
        let own = &state["user_dashboards"];
        assert_eq!((own[0]["uid"].as_str(), own[0]["state"].as_str()), (Some("one"), Some("in_sync")), "{version:?}");
        assert_eq!(own[1]["title"], "Two");

        // A newer file is imported, and a deleted dashboard is restored.
        let mut newer = export("one", "One");
        newer["panels"][0]["title"] = json!("Renamed");
        write(&it, "a.json", &newer);
        it.ask("DELETE", &path_of(own[1]["uid"].as_str().unwrap()), None);
        let out_of_sync = it.run(&status).expect(3).json();
        assert_eq!(out_of_sync["user_dashboards"][0]["state"], "differs", "{version:?}");
        assert_eq!(out_of_sync["user_dashboards"][1]["state"], "missing", "{version:?}");
        assert_eq!(out_of_sync["findings"][1], "dashboard \"Two\": missing", "{version:?}");
        it.run(&up).expect(0);
        let (_, stored) = it.ask("GET", &path_of("one"), None);
        assert_eq!(stored["dashboard"]["panels"][0]["title"], "Renamed", "{version:?}");

        // A user's edit is kept, even if Grafana's frontend dropped the mark.
        let mut edited = stored["dashboard"].clone();
        edited.as_object_mut().unwrap().remove("clipperMetrics");
        edited["panels"][0]["title"] = json!("Mine");
        let save = json!({"dashboard": edited, "overwrite": true, "folderUid": ""});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
        write(&it, "a.json", &export("one", "One"));
        record.add("a dashboard was edited", it.run(&up).expect(0));
        assert_eq!(it.ask("GET", &path_of("one"), None).1["dashboard"]["panels"][0]["title"], "Mine");
        it.run(&[&up[..], &["--overwrite-dashboard"]].concat()).expect(0);
        assert_eq!(it.ask("GET", &path_of("one"), None).1["dashboard"]["panels"][0]["title"], "Counter");
        it.run(&status).expect(0);
    }
    record.section();
}

#[test]
fn deregistering_removes_them_unless_edited() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let (one, two) = (write(&it, "a.json", &export("one", "One")), write(&it, "b.json", &export("two", "Two")));
        let given = ["--dashboard", &one, "--dashboard", &two, "--grafana-folder", "Ours"];
        it.run(&[&["up"][..], &given].concat()).expect(0);
        assert_eq!(it.ask("GET", &path_of("one"), None).1["meta"]["folderTitle"], "Ours", "{version:?}");
        let (_, stored) = it.ask("GET", &path_of("two"), None);
        let mut edited = stored["dashboard"].clone();
        edited["panels"][0]["title"] = json!("Mine");
        let mut save = json!({"dashboard": edited, "overwrite": true});
        match version {
            Version::V7 => save["folderId"] = stored["meta"]["folderId"].clone(),
            _ => save["folderUid"] = stored["meta"]["folderUid"].clone(),
        }
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
        record.add("a dashboard was edited", it.run(&[&["down", "--deregister"][..], &given].concat()).expect(0));
        assert_eq!(it.ask("GET", &path_of("one"), None).0, 404, "{version:?}");
        assert_eq!(it.ask("GET", &path_of("two"), None).0, 200, "{version:?}");
        assert_eq!(it.ask("GET", &path_of("clipper-metrics"), None).0, 404, "{version:?}");
    }
    record.section();
}

#[test]
fn conflicts_are_reported_before_anything_changes() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let theirs = json!({"dashboard": {"uid": "one", "title": "Theirs", "panels": [], "schemaVersion": 27}});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&theirs)).0, 200);
        let file = write(&it, "a.json", &export("one", "One"));
        for options in [&["--dashboard", &file][..], &["--dashboard", &file, "--overwrite-dashboard"]] {
            record.add("another dashboard has the uid", it.run(&[&["up"][..], options].concat()).expect(1));
        }
        // Before 10, the title is a conflict as well; the message names the other file.
        let namesake = write(&it, "b.json", &export("other", "Theirs"));
        record.add("another dashboard has the title", it.run(&["up", "--dashboard", &namesake, "--dry-run"]).expect(3));
        assert_eq!(it.ask("GET", "/api/datasources", None).1, json!([]), "{version:?}");
        assert_eq!(it.ask("GET", &path_of("clipper-metrics"), None).0, 404, "{version:?}");
        assert_eq!(it.ask("GET", &path_of("one"), None).1["dashboard"]["title"], "Theirs");
        // A dashboard imported by another instance is foreign as well.
        let other = write(&it, "c.json", &export("shared", "Shared"));
        it.run(&["up", "--name", "first", "--dashboard", &other]).expect(0);
        let second = it.run(&["up", "--name", "second", "--dashboard", &other]).expect(1);
        record.add("another instance has imported the dashboard", second);
        // The uid in the file has changed since the import: before 11.3, the earlier dashboard is in its place.
        let mine = write(&it, "d.json", &export("earlier", "Mine"));
        it.run(&["up", "--dashboard", &mine]).expect(0);
        write(&it, "d.json", &export("later", "Mine"));
        let is_in_place = version < Version::V12;
        let changed = it.run(&["up", "--dashboard", &mine]).expect(is_in_place.into());
        if is_in_place {
            record.add("the uid in the file has changed", changed);
            write(&it, "d.json", &export("earlier", "Mine"));
            it.run(&["up", "--dashboard", &mine]).expect(0);
            let namesake = it.run(&["up", "--name", "second", "--dashboard", &mine]).expect(1);
            record.add("another instance has imported the dashboard", namesake);
            let other = write(&it, "e.json", &export("unlike", "Mine"));
            let namesake = it.run(&["up", "--name", "second", "--dashboard", &other]).expect(1);
            record.add("a dashboard of another instance has the title", namesake);
        }
    }
    record.section();
}

#[test]
fn an_invalid_file_is_a_usage_error_and_no_request_is_sent() {
    let it = Servers::start(Version::V12);
    let no_dashboard = write(&it, "no.json", &json!({"a": 1}));
    let (one, two) = (write(&it, "one.json", &export("u", "One")), write(&it, "two.json", &export("u", "Two")));
    let own_uid = write(&it, "own.json", &export("clipper-metrics", "Mine"));
    let absent = it.path("absent.json");
    it.write("folder/file", "");
    let folder = it.path("folder");
    let mut record = it.record();
    for (situation, given) in [
        ("another JSON document", vec![&no_dashboard]),
        ("two files with one uid", vec![&one, &two]),
        ("one file twice", vec![&one, &one]),
        ("the uid of the bundled dashboard", vec![&own_uid]),
        ("a missing file", vec![&absent]),
        ("a folder", vec![&folder]),
    ] {
        let mut words = vec!["up"];
        words.extend(given.into_iter().flat_map(|path| ["--dashboard", path.as_str()]));
        record.add(situation, it.run(&words).expect(2));
    }
    record.section();
    assert!(it.double.lock().unwrap().seen().is_empty(), "Grafana was asked");
}

#[test]
fn doctor_runs_their_queries_too() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record).filter(version.name(), "VERSION");
        let mut broken = export("one", "One");
        let file = write(&it, "a.json", &broken);
        it.run(&["up", "--dashboard", &file]).expect(0);
        // Some panels show the last minute, in which one demo model may be quiet, but not two.
        let demo = || it.run(&["demo", "--models", "m1,m2", "--backfill", "10m"]).expect(0);
        demo();
        record.add("all queries return points", it.run(&["doctor", "--dashboard", &file]).expect(0));
        broken["panels"][0]["targets"][0]["query"] =
            json!("SELECT mean(\"valeu\") FROM \"m1_prediction_counter\" WHERE $timeFilter GROUP BY time($__interval)");
        write(&it, "a.json", &broken);
        it.run(&["up", "--dashboard", &file]).expect(0);
        demo();
        record.add("a query names an unknown field", it.run(&["doctor", "--dashboard", &file]).expect(3));
    }
    record.section();
}

/// A dashboard from the test inputs.
fn input(name: &str) -> Value {
    let text = std::fs::read_to_string(input_path(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn input_path(name: &str) -> String {
    format!("{}/tests/dashboards/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_value_changed_by_grafana_during_a_save_is_not_an_edit() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        // Its clock differs from this machine's.
        it.double.lock().unwrap().move_clock(3_600);
        let saves = |it: &Servers| {
            let mut double = it.double.lock().unwrap();
            let is_save = |one: &&Seen| one.method == "POST" && one.path == "/api/dashboards/db";
            let count = double.seen().iter().filter(is_save).count();
            double.forget_seen();
            count
        };
        it.run(&["up"]).expect(0);
        assert_eq!(saves(&it), 1, "{version:?}: it is stored unchanged");
        it.run(&["down", "--deregister", "--yes"]).expect(0);
        // The refresh interval of the bundled dashboard is also below this minimum. The newest version refuses a lower
        // one, so it is raised beforehand.
        it.double.lock().unwrap().refresh_at_most_every(60);
        let file = write(&it, "a.json", &input("refresh.json"));
        let up = ["up", "--dashboard", &file];
        let ran = it.run(&[&up[..], &["--output", "json"]].concat()).expect(0).json();
        let actions = |one: &str| ran["steps"].as_array().unwrap().iter().filter(|step| step["action"] == one).count();
        let records = if version == Version::V13 { 0 } else { 2 };
        assert_eq!((actions("save_dashboard"), actions("record_dashboard")), (2, records), "{version:?}: {ran}");
        assert_eq!(saves(&it), 2 + records, "{version:?}");
        let stored = || it.ask("GET", &path_of("pub-refr"), None).1["dashboard"].clone();
        assert_eq!(stored()["refresh"], "60s", "{version:?}");
        record.add("Grafana has raised the refresh interval", it.run(&up).expect(0));
        let status = it.run(&["status", "--output", "json", "--dashboard", &file]).expect(0).json();
        assert_eq!(status["dashboard"]["state"], "in_sync", "{version:?}: {status}");
        assert_eq!(status["user_dashboards"][0]["state"], "in_sync", "{version:?}: {status}");

        // The next version of the file is imported, and so is the one after it.
        for title in ["Second", "Third"] {
            let mut newer = input("refresh.json");
            newer["panels"] = json!([{"id": 1, "type": "text", "title": title}]);
            write(&it, "a.json", &newer);
            it.run(&up).expect(0);
            assert_eq!(stored()["panels"][0]["title"], title, "{version:?}");
        }
        // An edited copy that replaces the dashboard counts as an edit, whatever its version number.
        let mut copy = stored();
        it.ask("DELETE", &path_of("pub-refr"), None);
        (copy["id"], copy["panels"][0]["title"]) = (Value::Null, json!("Copied"));
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&json!({"dashboard": copy}))).0, 200);
        record.add("an edited copy", it.run(&up).expect(0));
        assert_eq!(stored()["panels"][0]["title"], "Copied", "{version:?}");
        it.run(&[&up[..], &["--overwrite-dashboard"]].concat()).expect(0);
        record.add("Grafana has raised the refresh interval", it.run(&up).expect(0));

        // An edit is detected whether it keeps the mark or not.
        let mut edited = stored();
        edited["panels"][0]["title"] = json!("Mine");
        let save = json!({"dashboard": edited, "overwrite": true, "folderUid": ""});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
        write(&it, "a.json", &input("refresh.json"));
        record.add("the dashboard was edited", it.run(&up).expect(0));
        assert_eq!(stored()["panels"][0]["title"], "Mine", "{version:?}");
    }
    record.section();
}

/// A server of one version with reports, and the name of a test input with a change.
struct Tried<'a> {
    it: &'a Servers,
    file: String,
}

impl<'a> Tried<'a> {
    /// Imports an input, after which it is in sync.
    fn import(it: &'a Servers, record: &mut Record, name: &str, change: impl FnOnce(&mut Value)) -> Self {
        let text = std::fs::read_to_string(input_path(name)).unwrap();
        let mut dashboard: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        let as_it_is = dashboard.clone();
        change(&mut dashboard);
        let file = if dashboard == as_it_is { input_path(name) } else { write(it, name, &dashboard) };
        record.add("an import", it.run(&["up", "--dashboard", &file]).expect(0));
        let again = it.run(&["up", "--dashboard", &file]).expect(0);
        assert_eq!(again.headline(), "clipper-metrics is in sync: nothing to do", "{name}");
        Self { it, file }
    }

    /// Records the state and message of `doctor`'s check of a panel, and the hint if it is the first failure. Returns
    /// the message.
    fn panel(&self, record: &mut Record, title: &str) -> String {
        let ran = self.it.run(&["doctor", "--output", "json", "--dashboard", &self.file]);
        let document = ran.json();
        let checks = document["checks"].as_array().unwrap();
        let check = checks.iter().find(|one| one["check"] == "panel" && one["object"] == title);
        let check = check.unwrap_or_else(|| panic!("no panel {title}: {document}"));
        let message = check["message"].as_str().unwrap().to_string();
        let mut out = format!("{}: {message}\n", check["state"].as_str().unwrap());
        if document["culprit"]["object"] == title {
            out.push_str(&format!("hint: {}\n", document["culprit"]["hint"].as_str().unwrap()));
        }
        let typed = format!("clipper-metrics doctor --dashboard {} …", self.file);
        record.add(&format!("panel {title}"), Ran { typed, out, ..ran });
        message
    }

    /// Asserts that there is no failure.
    fn is_well(&self) {
        self.it.run(&["doctor", "--dashboard", &self.file]).expect(0);
    }
}

fn with_reports(version: Version) -> Servers {
    let it = Servers::start(version);
    it.run(&["up"]).expect(0);
    it.run(&["demo", "--models", "m1", "--backfill", "10m"]).expect(0);
    it
}

#[test]
fn every_layout_is_checked_and_a_missing_data_source_is_reported_at_once() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = with_reports(version);
        record = it.continue_record(record);
        for name in ["rows.json", "panels.json"] {
            Tried::import(&it, &mut record, name, |_| {}).panel(&mut record, "p");
            // With the default data source, its query turns out to be invalid.
            it.ask("DELETE", &path_of(input(name)["uid"].as_str().unwrap()), None);
            let list = if name == "rows.json" { "/rows/0/panels/0" } else { "/panels/0" };
            let tried = Tried::import(&it, &mut record, name, |dashboard| {
                dashboard.pointer_mut(list).unwrap()["datasource"] = Value::Null;
            });
            tried.panel(&mut record, "p");
        }
    }
    record.section();
}

#[test]
fn foreign_parts_are_imported_unchanged_and_reported() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = with_reports(version);
        record = it.continue_record(record);
        Tried::import(&it, &mut record, "second.json", |_| {}).is_well();
        let other = Tried::import(&it, &mut record, "other-type.json", |_| {});
        let stored = it.ask("GET", &path_of("case-other-type"), None).1;
        let source = &stored["dashboard"]["panels"][0]["datasource"];
        let reference = if version == Version::V7 { source } else { &source["uid"] };
        assert_eq!(reference, "${DS_PROMETHEUS}", "{version:?}");
        other.panel(&mut record, "p");
        let flux = Tried::import(&it, &mut record, "flux.json", |_| {});
        flux.panel(&mut record, "f");
        let status = it.run(&["status", "--output", "json", "--dashboard", &flux.file]).expect(0).json();
        let limitation = "panel \"f\" is written in Flux, which InfluxDB 1 does not support for Clipper's data source: \
                          rewrite its query in InfluxQL";
        assert_eq!(status["user_dashboards"][0]["limitations"], json!([limitation]), "{version:?}");
    }
    record.section();
}

#[test]
fn a_library_panel_is_imported_with_its_dashboard() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = with_reports(version);
        record = it.continue_record(record);
        let query = "SELECT last(\"value\") FROM \"m1_prediction_counter\" WHERE $timeFilter";
        let library = Tried::import(&it, &mut record, "lib.json", |dashboard| {
            dashboard["__elements"]["l1"]["model"]["targets"][0]["query"] = json!(query);
        });
        assert_eq!(library.panel(&mut record, "L"), "1 point", "{version:?}");
    }
    record.section();
}

#[test]
fn a_panel_without_its_plugin_is_reported_and_text_panels_are_never_queried() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = with_reports(version);
        record = it.continue_record(record);
        // From 11 on, browsers replace this panel by one of Grafana's own.
        Tried::import(&it, &mut record, "plugin.json", |_| {}).panel(&mut record, "d");
        let tried = Tried::import(&it, &mut record, "plugin.json", |dashboard| {
            (dashboard["uid"], dashboard["title"]) = (json!("other-plugin"), json!("Other plugin"));
            dashboard["panels"][0]["type"] = json!("acme-clock-panel");
        });
        tried.panel(&mut record, "d");
        for name in ["text.json", "bom.json", "odd-target.json", "refresh.json"] {
            Tried::import(&it, &mut record, name, |_| {}).is_well();
        }
    }
    record.section();
}

#[test]
fn time_ranges_and_variables_are_interpreted_as_in_a_browser() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = with_reports(version);
        record = it.continue_record(record);
        Tried::import(&it, &mut record, "today.json", |_| {}).panel(&mut record, "p");
        it.influxd.write("clipper", "m1_prediction_counter,path=/ value=1");
        let path = Tried::import(&it, &mut record, "path-variable.json", |_| {});
        assert_eq!(path.panel(&mut record, "$path"), "1 point", "{version:?}");
    }
    record.section();
}
