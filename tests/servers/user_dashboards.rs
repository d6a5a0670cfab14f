//! Users' dashboards on Grafana's double in every version: how an export is imported, who may
//! change it, and what prevents the import. `e2e/settings.rs` shows that they are remembered.

use serde_json::{Value, json};

use crate::support::double::Version;
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
    for version in Version::ALL {
        let it = Servers::start(version);
        let (one, two) = (write(&it, "a.json", &export("one", "One")), write(&it, "b.json", &export("", "Two")));
        let up = ["up", "--dashboard", &one, "--dashboard", &two];
        let first = it.run(&up).expect(0);
        assert!(first.out.contains("/d/one") && first.out.contains("Two"), "{version:?}: {}", first.out);
        assert!(it.run(&up).expect(0).out.contains("nothing to do"), "{version:?}");
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
        assert!(out_of_sync["findings"].to_string().contains("dashboard \\\"Two\\\": missing"), "{out_of_sync}");
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
        let kept = it.run(&up).expect(0);
        assert!(kept.out.contains("\"One\" was edited and is kept"), "{version:?}: {}", kept.out);
        assert_eq!(it.ask("GET", &path_of("one"), None).1["dashboard"]["panels"][0]["title"], "Mine");
        it.run(&[&up[..], &["--overwrite-dashboard"]].concat()).expect(0);
        assert_eq!(it.ask("GET", &path_of("one"), None).1["dashboard"]["panels"][0]["title"], "Counter");
        it.run(&status).expect(0);
    }
}

#[test]
fn deregistering_removes_them_unless_edited() {
    for version in Version::ALL {
        let it = Servers::start(version);
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
        let down = it.run(&[&["down", "--deregister"][..], &given].concat()).expect(0);
        assert!(down.out.contains("/d/two was edited"), "{version:?}: {}", down.out);
        assert_eq!(it.ask("GET", &path_of("one"), None).0, 404, "{version:?}");
        assert_eq!(it.ask("GET", &path_of("two"), None).0, 200, "{version:?}");
        assert_eq!(it.ask("GET", &path_of("clipper-metrics"), None).0, 404, "{version:?}");
    }
}

#[test]
fn conflicts_are_reported_before_anything_changes() {
    for version in Version::ALL {
        let it = Servers::start(version);
        let theirs = json!({"dashboard": {"uid": "one", "title": "Theirs", "panels": [], "schemaVersion": 27}});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&theirs)).0, 200);
        let file = write(&it, "a.json", &export("one", "One"));
        for options in [&["--dashboard", &file][..], &["--dashboard", &file, "--overwrite-dashboard"]] {
            let up = it.run(&[&["up"][..], options].concat()).expect(1);
            assert!(up.err.contains("\"Theirs\"") && up.err.contains("another uid"), "{version:?}: {}", up.err);
        }
        // Before 10, the title is a conflict as well; the message names the other file.
        let namesake = write(&it, "b.json", &export("other", "Theirs"));
        let plan = it.run(&["up", "--dashboard", &namesake, "--dry-run"]).expect(3);
        let is_blocked = plan.out.contains("\"Theirs\"") && plan.out.contains("another title");
        assert_eq!(is_blocked, version < Version::V12, "{version:?}: {}", plan.out);
        assert_eq!(it.ask("GET", "/api/datasources", None).1, json!([]), "{version:?}");
        assert_eq!(it.ask("GET", &path_of("clipper-metrics"), None).0, 404, "{version:?}");
        assert_eq!(it.ask("GET", &path_of("one"), None).1["dashboard"]["title"], "Theirs");
        // A dashboard imported by another instance is foreign as well.
        let other = write(&it, "c.json", &export("shared", "Shared"));
        it.run(&["up", "--name", "first", "--dashboard", &other]).expect(0);
        let second = it.run(&["up", "--name", "second", "--dashboard", &other]).expect(1);
        assert!(second.err.contains("\"Shared\""), "{version:?}: {}", second.err);
    }
}

#[test]
fn an_invalid_file_is_a_usage_error_and_no_request_is_sent() {
    let it = Servers::start(Version::V12);
    let no_dashboard = write(&it, "no.json", &json!({"a": 1}));
    let (one, two) = (write(&it, "one.json", &export("u", "One")), write(&it, "two.json", &export("u", "Two")));
    let own_uid = write(&it, "own.json", &export("clipper-metrics", "Mine"));
    let absent = it.path("absent.json");
    let folder = it.path("");
    for (given, named) in [
        (vec![&no_dashboard], "is not a dashboard"),
        (vec![&one, &two], "the same uid"),
        (vec![&one, &one], "the same uid"),
        (vec![&own_uid], "the bundled dashboard"),
        (vec![&absent], "cannot be read"),
        (vec![&folder], "is not a regular file"),
    ] {
        let mut words = vec!["up"];
        words.extend(given.into_iter().flat_map(|path| ["--dashboard", path.as_str()]));
        let up = it.run(&words).expect(2);
        assert!(up.err.contains(named) && up.err.contains("hint:"), "{}", up.err);
    }
    assert!(it.double.lock().unwrap().seen().is_empty(), "Grafana was asked");
}

#[test]
fn doctor_runs_their_queries_too() {
    for version in Version::ALL {
        let it = Servers::start(version);
        let mut broken = export("one", "One");
        let file = write(&it, "a.json", &broken);
        it.run(&["up", "--dashboard", &file]).expect(0);
        it.run(&["demo", "--models", "m1", "--backfill", "10m"]).expect(0);
        let well = it.run(&["doctor", "--dashboard", &file]).expect(0);
        assert!(well.out.contains("Counter"), "{version:?}: {}", well.out);
        broken["panels"][0]["targets"][0]["query"] =
            json!("SELECT mean(\"valeu\") FROM \"m1_prediction_counter\" WHERE $timeFilter GROUP BY time($__interval)");
        write(&it, "a.json", &broken);
        it.run(&["up", "--dashboard", &file]).expect(0);
        let sick = it.run(&["doctor", "--dashboard", &file]).expect(3);
        let first = sick.out.lines().next().unwrap();
        assert!(
            first.starts_with("first failure:") && first.contains("\"Counter\" of \"One\""),
            "{version:?}: {}",
            sick.out
        );
        assert!(sick.out.contains(&file), "{version:?}: {}", sick.out);
    }
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
    for version in Version::ALL {
        let it = Servers::start(version);
        // The refresh interval of the bundled dashboard is also below this minimum.
        it.double.lock().unwrap().refresh_at_most_every(60);
        let file = write(&it, "a.json", &input("refresh.json"));
        let up = ["up", "--dashboard", &file];
        it.run(&up).expect(0);
        let stored = || it.ask("GET", &path_of("pub-refr"), None).1["dashboard"].clone();
        assert_eq!(stored()["refresh"], "60s", "{version:?}");
        let again = it.run(&up).expect(0);
        assert!(again.out.contains("nothing to do") && !again.out.contains("edited"), "{version:?}: {}", again.out);
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
        assert!(it.run(&up).expect(0).out.contains("edited"), "{version:?}");
        assert_eq!(stored()["panels"][0]["title"], "Copied", "{version:?}");
        it.run(&[&up[..], &["--overwrite-dashboard"]].concat()).expect(0);
        assert!(it.run(&up).expect(0).out.contains("nothing to do"), "{version:?}");

        // An edit is detected whether it keeps the mark or not.
        let mut edited = stored();
        edited["panels"][0]["title"] = json!("Mine");
        let save = json!({"dashboard": edited, "overwrite": true, "folderUid": ""});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
        write(&it, "a.json", &input("refresh.json"));
        let kept = it.run(&up).expect(0);
        assert!(kept.out.contains("\"Min refresh\" was edited and is kept"), "{version:?}: {}", kept.out);
        assert_eq!(stored()["panels"][0]["title"], "Mine", "{version:?}");
    }
}

/// A server of one version with reports, and the name of a test input with a change.
struct Tried<'a> {
    it: &'a Servers,
    file: String,
    /// The output of `up`.
    up: String,
}

impl<'a> Tried<'a> {
    /// Imports an input, after which it is in sync.
    fn import(it: &'a Servers, name: &str, change: impl FnOnce(&mut Value)) -> Self {
        let text = std::fs::read_to_string(input_path(name)).unwrap();
        let mut dashboard: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        let as_it_is = dashboard.clone();
        change(&mut dashboard);
        let file = if dashboard == as_it_is { input_path(name) } else { write(it, name, &dashboard) };
        let up = it.run(&["up", "--dashboard", &file]).expect(0).out;
        assert!(it.run(&["up", "--dashboard", &file]).expect(0).out.contains("nothing to do"), "{name}");
        Self { it, file, up }
    }

    /// The state and message of `doctor`'s check of a panel, and the hint if it is the first failure.
    fn panel(&self, title: &str) -> (String, String, String) {
        let document = self.it.run(&["doctor", "--output", "json", "--dashboard", &self.file]).json();
        let checks = document["checks"].as_array().unwrap();
        let check = checks.iter().find(|one| one["check"] == "panel" && one["object"] == title);
        let check = check.unwrap_or_else(|| panic!("no panel {title}: {document}"));
        let word = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let hint =
            if document["culprit"]["object"] == title { word(&document["culprit"]["hint"]) } else { String::new() };
        (word(&check["state"]), word(&check["message"]), hint)
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
    for version in Version::ALL {
        let it = with_reports(version);
        for name in ["rows.json", "panels.json"] {
            let tried = Tried::import(&it, name, |_| {});
            let named = "panel \"p\" uses the data source \"nowhere\", which Grafana does not have";
            assert!(tried.up.contains(named), "{version:?} {name}: {}", tried.up);
            let (state, message, hint) = tried.panel("p");
            assert!(state == "failed" && message.contains("\"nowhere\""), "{version:?} {name}: {state} {message}");
            assert!(hint.starts_with("create that data source in Grafana"), "{version:?} {name}: {hint}");
            // With the default data source, its query turns out to be invalid.
            it.ask("DELETE", &path_of(input(name)["uid"].as_str().unwrap()), None);
            let list = if name == "rows.json" { "/rows/0/panels/0" } else { "/panels/0" };
            let tried = Tried::import(&it, name, |dashboard| {
                dashboard.pointer_mut(list).unwrap()["datasource"] = Value::Null;
            });
            assert!(!tried.up.contains("nowhere"), "{version:?} {name}: {}", tried.up);
            let (state, message, hint) = tried.panel("p");
            assert!(state == "failed" && message.starts_with("panel \"p\""), "{version:?} {name}: {message}");
            assert!(hint.contains("--overwrite-dashboard"), "{version:?} {name}: {hint}");
        }
    }
}

#[test]
fn foreign_parts_are_imported_unchanged_and_reported() {
    for version in Version::ALL {
        let it = with_reports(version);
        let second = Tried::import(&it, "second.json", |_| {});
        assert!(second.up.contains("\"fetzerch-sunandmoon-datasource\" (DS_SUN)"), "{version:?}: {}", second.up);
        second.is_well();
        let other = Tried::import(&it, "other-type.json", |_| {});
        assert!(other.up.contains("\"prometheus\" (DS_PROMETHEUS)"), "{version:?}: {}", other.up);
        let stored = it.ask("GET", &path_of("case-other-type"), None).1;
        let source = &stored["dashboard"]["panels"][0]["datasource"];
        let reference = if version == Version::V7 { source } else { &source["uid"] };
        assert_eq!(reference, "${DS_PROMETHEUS}", "{version:?}");
        let (state, message, _) = other.panel("p");
        assert!(state == "failed" && message.contains("${DS_PROMETHEUS}"), "{version:?}: {message}");
        let flux = Tried::import(&it, "flux.json", |_| {});
        assert!(flux.up.contains("panel \"f\" is written in Flux"), "{version:?}: {}", flux.up);
        let (state, message, _) = flux.panel("f");
        assert!(state == "failed" && message.contains("Flux"), "{version:?}: {message}");
        let status = it.run(&["status", "--output", "json", "--dashboard", &flux.file]).expect(0).json();
        let limitations = status["user_dashboards"][0]["limitations"].to_string();
        assert!(limitations.contains("written in Flux"), "{version:?}: {status}");
    }
}

#[test]
fn a_library_panel_is_imported_with_its_dashboard() {
    for version in Version::ALL {
        let it = with_reports(version);
        let query = "SELECT last(\"value\") FROM \"m1_prediction_counter\" WHERE $timeFilter";
        let library = Tried::import(&it, "lib.json", |dashboard| {
            dashboard["__elements"]["l1"]["model"]["targets"][0]["query"] = json!(query);
        });
        let named = "the library panel \"L\" is imported as an ordinary panel";
        assert!(library.up.contains(named), "{version:?}: {}", library.up);
        let (state, message, _) = library.panel("L");
        assert_eq!((state.as_str(), message.as_str()), ("passed", "1 point"), "{version:?}");
    }
}

#[test]
fn a_panel_without_its_plugin_is_reported_and_text_panels_are_never_queried() {
    for version in Version::ALL {
        let it = with_reports(version);
        // From 11 on, browsers replace this panel by one of Grafana's own.
        let discrete = Tried::import(&it, "plugin.json", |_| {});
        let is_missing = version < Version::V12;
        assert_eq!(discrete.up.contains("natel-discrete-panel"), is_missing, "{version:?}: {}", discrete.up);
        assert_eq!(discrete.panel("d").0, if is_missing { "failed" } else { "passed" }, "{version:?}");
        let tried = Tried::import(&it, "plugin.json", |dashboard| {
            (dashboard["uid"], dashboard["title"]) = (json!("other-plugin"), json!("Other plugin"));
            dashboard["panels"][0]["type"] = json!("acme-clock-panel");
        });
        let install = "grafana cli plugins install acme-clock-panel";
        assert!(tried.up.contains(install), "{version:?}: {}", tried.up);
        let (state, message, hint) = tried.panel("d");
        assert!(state == "failed" && message.contains("\"acme-clock-panel\""), "{version:?}: {message}");
        assert!(hint.contains(install) && !hint.contains("--overwrite-dashboard"), "{version:?}: {hint}");
        for name in ["text.json", "bom.json", "odd-target.json", "refresh.json"] {
            Tried::import(&it, name, |_| {}).is_well();
        }
    }
}

#[test]
fn time_ranges_and_variables_are_interpreted_as_in_a_browser() {
    for version in Version::ALL {
        let it = with_reports(version);
        let today = Tried::import(&it, "today.json", |_| {});
        let (state, message, _) = today.panel("p");
        assert!(state == "passed" && !message.contains("no points"), "{version:?}: {message}");
        it.influxd.write("clipper", "m1_prediction_counter,path=/ value=1");
        let path = Tried::import(&it, "path-variable.json", |_| {});
        assert_eq!(path.panel("$path"), ("passed".into(), "1 point".into(), String::new()), "{version:?}");
    }
}
