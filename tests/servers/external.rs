//! External servers in each version of Grafana: configured, repaired, unavailable and removed.

use std::sync::Arc;
use std::time::Duration;

use crate::support::context::Record;
use crate::support::double::{TOKEN, Version, handle};
use crate::support::influxd::Influxd;
use crate::support::run::{Ran, Run, basic, http_with};
use crate::support::server::{Request, Response, in_background};
use crate::support::servers::Servers;
use serde_json::{Value, json};

/// A name that no resolver looks up: a label has at most 63 characters.
const UNRESOLVABLE: &str = "no-such-host-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[test]
fn every_version_is_configured_verified_and_then_unchanged() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        record.add("the first run", it.run(&["up", "--database", "it's a test"]).expect(0));
        assert!(it.influxd.rows("", "SHOW DATABASES").contains(&json!(["it's-a-test"])), "{version:?}");
        let (_, sources) = it.ask("GET", "/api/datasources", None);
        assert_eq!(sources[0]["isDefault"], true, "{version:?}");
        let (_, dashboard) = it.ask("GET", "/api/dashboards/uid/clipper-metrics", None);
        assert_eq!(dashboard["meta"]["version"], 1, "{version:?}");
        let panel = &dashboard["dashboard"]["panels"][0]["datasource"];
        // Old versions identify a data source by its name alone.
        assert_eq!(panel.is_string(), version == Version::V7, "{version:?}: {panel}");
        let (_, preferences) = it.ask("GET", "/api/org/preferences", None);
        let has_home = preferences["homeDashboardUID"] == "clipper-metrics"
            || preferences["homeDashboardId"].as_u64().is_some_and(|id| id > 0);
        assert!(has_home, "{version:?}: {preferences}");
        record.add("the second run", it.run(&["up", "--database", "it's a test"]).expect(0));
        it.run(&["status", "--database", "it's a test"]).expect(0);
        let (_, dashboard) = it.ask("GET", "/api/dashboards/uid/clipper-metrics", None);
        assert_eq!(dashboard["meta"]["version"], 1, "{version:?}");
    }
    record.section();
}

#[test]
fn every_version_is_repaired() {
    for version in Version::ALL {
        let it = Servers::start(version);
        it.run(&["up"]).expect(0);
        let (_, sources) = it.ask("GET", "/api/datasources", None);
        let source = sources[0].clone();
        let change = |name: &str, value: Value| {
            let mut body = source.clone();
            body[name] = value;
            let path = match version {
                Version::V7 => format!("/api/datasources/{}", source["id"]),
                _ => "/api/datasources/uid/clipper-metrics".into(),
            };
            assert_eq!(it.ask("PUT", &path, Some(&body)).0, 200);
        };
        let broken = |what: &str| {
            let state = it.run(&["status", "--output", "json"]).expect(3).json();
            assert_eq!(state["in_sync"], false, "{version:?} {what}");
            it.run(&["up"]).expect(0);
            it.run(&["status"]).expect(0);
        };
        change("url", json!("http://127.0.0.1:1"));
        broken("pointed elsewhere");
        change("name", json!("Renamed"));
        broken("renamed");
        it.ask("DELETE", "/api/datasources/uid/clipper-metrics", None);
        broken("the data source deleted");
        it.ask("DELETE", "/api/dashboards/uid/clipper-metrics", None);
        broken("the dashboard deleted");
        it.influxd.query("", "DROP DATABASE clipper");
        broken("the database dropped");
    }
}

#[test]
fn settings_that_grafana_does_not_use_are_saved_again() {
    for version in [Version::V9, Version::V12, Version::V12_4, Version::V13] {
        let it = Servers::start(version);
        it.run(&["up"]).expect(0);
        it.make_settings_stale();
        let state = it.run(&["status", "--output", "json"]).expect(3).json();
        assert_eq!(state["data_source"]["state"], "in_sync", "GET shows the right settings");
        assert_eq!(state["data_source"]["query"], "failing", "and still the answer is wrong");
        it.run(&["up"]).expect(0);
        assert_eq!(it.status()["data_source"]["query"], "ok");
    }
}

#[test]
fn an_edited_dashboard_is_kept_and_an_unedited_one_is_upgraded() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        it.run(&["up"]).expect(0);
        let path = "/api/dashboards/uid/clipper-metrics";
        // As an older clipper-metrics left it: an earlier version with a valid mark.
        let (_, present) = it.ask("GET", path, None);
        let mut edited = present["dashboard"].clone();
        edited["panels"][0]["title"] = json!("my own title");
        let save = json!({"dashboard": edited, "overwrite": true, "folderUid": ""});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
        let state = it.run(&["status", "--output", "json"]).expect(0).json();
        assert_eq!(state["dashboard"]["state"], "edited", "{version:?}");
        record.add("the dashboard was edited", it.run(&["up"]).expect(0));
        assert_eq!(it.ask("GET", path, None).1["dashboard"]["panels"][0]["title"], "my own title");
        it.run(&["up", "--overwrite-dashboard"]).expect(0);
        assert_ne!(it.ask("GET", path, None).1["dashboard"]["panels"][0]["title"], "my own title");
        assert_eq!(it.status()["dashboard"]["state"], "in_sync");
        let last = it.saved.lock().unwrap().last().unwrap().clone();
        assert_eq!(last["dashboard"]["version"], 2, "{version:?}: the version that was read");
        // As a browser saves it: without the mark, and with all defaults spelled out.
        let (_, present) = it.ask("GET", path, None);
        let mut saved = present["dashboard"].clone();
        saved.as_object_mut().unwrap().remove("clipperMetrics");
        saved["schemaVersion"] = json!(42);
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&json!({"dashboard": saved, "folderUid": ""}))).0, 200);
        assert_eq!(it.status()["dashboard"]["state"], "edited", "{version:?}");
        it.run(&["up"]).expect(0);
        it.run(&["up", "--overwrite-dashboard"]).expect(0);
        assert_eq!(it.status()["dashboard"]["state"], "in_sync");
        // Another objective upgrades an unedited dashboard.
        let config = ["--config", &it.write("clipper.toml", "slo_micros = 7000\n[[models]]\nname = \"m1\"\n")];
        it.run(&["status", config[0], config[1], "--name", "clipper-metrics"]).expect(3);
        it.run(&["up", config[0], config[1]]).expect(0);
        let latency = it.ask("GET", path, None).1["dashboard"]["panels"][5].clone();
        assert_eq!(latency["fieldConfig"]["defaults"]["custom"]["axisSoftMax"], 7000, "{version:?}");
        // The objective survives in the dashboard, without the file.
        assert_eq!(it.status()["dashboard"]["objective_micros"], 7000);
    }
    record.section();
}

#[test]
fn a_moved_dashboard_stays_in_its_folder() {
    for version in Version::ALL {
        let it = Servers::start(version);
        it.run(&["up", "--grafana-folder", "Ours"]).expect(0);
        let path = "/api/dashboards/uid/clipper-metrics";
        assert_eq!(it.ask("GET", path, None).1["meta"]["folderTitle"], "Ours", "{version:?}");
        let (_, folder) = it.ask("POST", "/api/folders", Some(&json!({"title": "Theirs", "uid": "theirs"})));
        let (_, present) = it.ask("GET", path, None);
        let mut save = json!({"dashboard": present["dashboard"], "overwrite": true});
        match version {
            Version::V7 => save["folderId"] = folder["id"].clone(),
            _ => save["folderUid"] = json!("theirs"),
        }
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
        it.run(&["up", "--overwrite-dashboard", "--grafana-folder", "Ours"]).expect(0);
        let file = it.write("clipper.toml", "slo_micros = 7000\n");
        it.run(&["up", "--config", &file, "--grafana-folder", "Ours"]).expect(0);
        assert_eq!(it.ask("GET", path, None).1["meta"]["folderTitle"], "Theirs", "{version:?}");
    }
}

#[test]
fn an_organisation_is_created_and_no_other_is_changed() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let words = ["--grafana-org", "Größe & \\ it's"];
        it.run(&["up", words[0], words[1]]).expect(0);
        assert_eq!(it.ask("GET", "/api/datasources", None).1, json!([]), "{version:?}: the main one is untouched");
        it.run(&["status", words[0], words[1]]).expect(0);
        record.add("the second run", it.run(&["up", words[0], words[1]]).expect(0));
    }
    record.section();
}

#[test]
fn objects_of_other_owners_are_errors_and_stay_unchanged() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let theirs = json!({"name": "Clipper Metrics", "uid": "theirs", "type": "influxdb", "access": "proxy",
            "url": "http://theirs:8086", "database": "d", "user": "", "isDefault": true, "jsonData": {}});
        assert_eq!(it.ask("POST", "/api/datasources", Some(&theirs)).0, 200);
        let state = it.run(&["status", "--output", "json"]).expect(3).json();
        assert_eq!(state["data_source"]["state"], "foreign", "{version:?}");
        record.add("another data source has the same name", it.run(&["up"]).expect(1));
        let (_, sources) = it.ask("GET", "/api/datasources", None);
        assert_eq!((sources.as_array().unwrap().len(), &sources[0]["url"]), (1, &json!("http://theirs:8086")));
    }
    record.section();
}

#[test]
fn one_wrong_password_is_one_attempt() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let wrong = |words: &[&str]| it.command(words).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "wrong");
        let up = record.run("the password is wrong", wrong(&["up"])).expect(1);
        assert!(!up.err.contains("wrong\n") && !up.out.contains("wrong"));
        assert_eq!(it.refusals(), 1, "{version:?}: a whole up");
        it.double.lock().unwrap().forget_seen();
        let state = wrong(&["status", "--output", "json"]).run().expect(3).json();
        assert_eq!(state["grafana"]["state"], "refusing");
        assert_eq!(it.refusals(), 1, "{version:?}: a whole status");
    }
    record.section();
    let it = Servers::start(Version::V12);
    let run = it.command(&["status", "--watch"]).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "wrong");
    let mut watch = run.command().stdout(std::process::Stdio::null()).spawn().unwrap();
    let health = || {
        let double = it.double.lock().unwrap();
        double.seen().iter().filter(|seen| seen.path == "/api/health").count()
    };
    crate::support::eventually("it looks again and again", Duration::from_secs(60), || health() >= 4);
    assert_eq!(it.refusals(), 1, "a whole watch");
    let status = std::process::Command::new("kill").args(["-INT", &watch.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(watch.wait().unwrap().code(), Some(0), "Ctrl-C is the normal end");
}

#[test]
fn missing_permissions_of_tokens_and_viewers_are_reported() {
    let it = Servers::start(Version::V12);
    it.ask("POST", "/api/serviceaccounts", Some(&json!({"name": "x", "role": "Admin"})));
    it.ask("POST", "/api/serviceaccounts/3/tokens", Some(&json!({"name": "x"})));
    let token = |words: &[&str]| it.command(words).env("CLIPPER_METRICS_GRAFANA_TOKEN", TOKEN).run();
    token(&["up"]).expect(0);
    token(&["status"]).expect(0);
    it.ask("POST", "/api/admin/users", Some(&json!({"login": "viewer", "password": "viewer-password"})));
    it.ask("DELETE", "/api/datasources/uid/clipper-metrics", None);
    let viewer =
        it.command(&["up", "--grafana-user", "viewer"]).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "viewer-password");
    let mut record = it.record();
    record.run("a viewer may not create the data source", viewer).expect(1);
    record.section();
}

#[test]
fn an_editor_imports_dashboards_beside_an_existing_data_source() {
    for version in [Version::V9, Version::V12, Version::V12_4, Version::V13] {
        let it = Servers::start(version);
        it.run(&["up"]).expect(0);
        it.ask("DELETE", "/api/dashboards/uid/clipper-metrics", None);
        it.ask("POST", "/api/admin/users", Some(&json!({"login": "editor", "password": "editor-password"})));
        let (_, user) = it.ask("GET", "/api/users/lookup?loginOrEmail=editor", None);
        it.ask("PATCH", &format!("/api/org/users/{}", user["id"]), Some(&json!({"role": "Editor"})));
        let editor = |words: &[&str]| {
            let words = [words, &["--grafana-user", "editor", "--grafana-folder", "Team"]].concat();
            it.command(&words).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "editor-password").run()
        };
        editor(&["up"]).expect(0);
        assert_eq!(it.ask("GET", "/api/dashboards/uid/clipper-metrics", None).0, 200, "{version:?}");
        editor(&["status"]).expect(0);
    }
}

#[test]
fn an_influxdb_with_users_requires_a_login() {
    let it = Servers::start(Version::V12);
    let locked = Influxd::start_with(&[("INFLUXDB_HTTP_AUTH_ENABLED", "true")]);
    locked.query("", "CREATE USER me WITH PASSWORD 'it''s' WITH ALL PRIVILEGES");
    locked.query("", "CREATE USER me WITH PASSWORD 'secret' WITH ALL PRIVILEGES");
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let run = |words: &[&str]| {
        let urls = ["--influxdb-url", &locked.url(), "--grafana-url", &grafana].map(String::from);
        let words = words.iter().map(|word| (*word).to_string()).chain(urls);
        Run::without_engine(words)
    };
    let mut record = it.record().port(locked.port, ":8087");
    record.run("no account for InfluxDB is given", run(&["up"])).expect(1);
    record.section();
    let up = run(&["up", "--influxdb-user", "me"]).env("CLIPPER_METRICS_INFLUXDB_PASSWORD", "secret");
    up.run().expect(0);
    let status = run(&["status", "--influxdb-user", "me"]).env("CLIPPER_METRICS_INFLUXDB_PASSWORD", "secret");
    status.run().expect(0);
}

#[test]
fn an_export_needs_the_login_of_its_influxdb() {
    let it = Servers::start(Version::V12);
    let locked = Influxd::start_with(&[("INFLUXDB_HTTP_AUTH_ENABLED", "true")]);
    locked.query("", "CREATE USER me WITH PASSWORD 'secret' WITH ALL PRIVILEGES");
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let [account, file] = it.grafana_password("admin");
    let mut record = it.record().port(locked.port, ":8087");
    let export = |directory: &str, login: &[&str]| {
        let (directory, url) = (it.path(directory), locked.url());
        let words = ["export", "provisioning", &directory, "--influxdb-url", &url, "--grafana-url", &grafana];
        Run::without_engine([&words[..], login, &[&account, &file]].concat())
    };
    let login = export("files", &["--influxdb-user", "me"]).env("CLIPPER_METRICS_INFLUXDB_PASSWORD", "secret");
    login.run().expect(0);
    // Exported again, without the user, which is not remembered.
    let before = it.read("files/datasources/clipper-metrics.yaml");
    record.run("the earlier export has an account", export("files", &[])).expect(2);
    record.run("InfluxDB requires an account", export("others", &[])).expect(1);
    assert_eq!(it.read("files/datasources/clipper-metrics.yaml"), before);
    record.section();
}

#[test]
fn missing_and_wrong_servers_are_one_error_with_a_hint() {
    let it = Servers::start(Version::V12);
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let influxdb = it.influxd.url();
    let mut record = it.record();
    let mut run = |situation: &str, influxdb: &str, grafana: &str| {
        let words = ["up", "--influxdb-url", influxdb, "--grafana-url", grafana, "--timeout", "5s"];
        record.run(situation, Run::without_engine(words)).expect(1)
    };
    run("no server at InfluxDB's address", "http://127.0.0.1:1", &grafana);
    run("the addresses are swapped", &grafana, &influxdb);
    run("InfluxDB does not use TLS", &influxdb.replace("http:", "https:"), &grafana);
    run("Grafana does not use TLS", &influxdb, &grafana.replace("http:", "https:"));
    let second = in_background(|_| async {
        let mut response = crate::support::server::Response::bytes(204, "application/json", Vec::new());
        response.headers.push(("X-Influxdb-Version".into(), "v2.7.12".into()));
        response
    });
    let newer = run("InfluxDB 2", &format!("http://127.0.0.1:{second}"), &grafana);
    assert!(!newer.err.contains("--influxdb-image"), "an external server has no image: {}", newer.err);
    let nonsense = in_background(|_| async {
        crate::support::server::Response::bytes(200, "text/html", b"<html>\x1b[31m</html>".to_vec())
    });
    let odd = run("another program at Grafana's address", &influxdb, &format!("http://127.0.0.1:{nonsense}"));
    assert!(!odd.err.contains('\u{1b}'), "{:?}", odd.err);
    let endless = in_background(|_| async {
        crate::support::server::Response::bytes(200, "application/json", vec![b' '; 40 << 20])
    });
    run("an endless response", &influxdb, &format!("http://127.0.0.1:{endless}"));
    let failing = in_background(|request| async move {
        let is_query = request.path.starts_with("/query");
        let (status, body) = if is_query { (500, br#"{"error":"it is broken"}"#.to_vec()) } else { (204, Vec::new()) };
        let mut response = crate::support::server::Response::bytes(status, "application/json", body);
        response.headers.push(("X-Influxdb-Version".into(), "1.12.4".into()));
        response
    });
    let broken = run("InfluxDB answers with errors", &format!("http://127.0.0.1:{failing}"), &grafana);
    assert!(!broken.err.contains("does not answer"), "{}", broken.err);
    let ports = [(second, ":8099"), (nonsense, ":3098"), (endless, ":3099"), (failing, ":8098")];
    ports.into_iter().fold(record, |record, (port, name)| record.port(port, name)).section();
}

/// A dashboard of another owner.
fn their_dashboard(uid: &str, title: &str) -> Value {
    json!({"dashboard": {"uid": uid, "title": title, "panels": [], "schemaVersion": 27, "description": "theirs"}})
}

#[test]
fn the_folder_and_the_dashboard_have_different_uids() {
    for version in Version::ALL {
        let it = Servers::start(version);
        it.run(&["up", "--grafana-folder", "Ours"]).expect(0);
        let (_, dashboard) = it.ask("GET", "/api/dashboards/uid/clipper-metrics", None);
        assert_eq!(dashboard["meta"]["folderTitle"], "Ours", "{version:?}");
        assert_eq!(dashboard["meta"]["isFolder"], false, "{version:?}");
        it.run(&["status", "--grafana-folder", "Ours"]).expect(0);
    }
}

#[test]
fn a_foreign_dashboard_with_the_same_title_is_never_replaced() {
    let mut record = Record::default();
    for version in Version::ALL {
        for words in [&["up"][..], &["up", "--overwrite-dashboard"]] {
            let it = Servers::start(version);
            record = it.continue_record(record);
            let save = their_dashboard("theirs", "Clipper Metrics");
            assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
            let up = it.run(words);
            let (_, theirs) = it.ask("GET", "/api/dashboards/uid/theirs", None);
            assert_eq!(theirs["dashboard"]["description"], "theirs", "{version:?} {words:?}");
            let side_by_side = version >= Version::V12;
            assert_eq!(up.code, i32::from(!side_by_side), "{version:?} {words:?}: {}", up.err);
            if !side_by_side {
                assert_eq!(up.err.matches("Clipper Metrics").count(), 1, "named once: {}", up.err);
                record.add("titles are unique in a folder", up);
                let (_, sources) = it.ask("GET", "/api/datasources", None);
                assert_eq!(sources, json!([]), "{version:?}: nothing was written");
                // The command from the hint.
                it.run(&["up", "--grafana-folder", "Ours"]).expect(0);
            }
        }
    }
    record.section();
}

#[test]
fn a_foreign_dashboard_with_the_same_uid_is_a_blocker() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let save = their_dashboard("clipper-metrics", "Theirs");
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
        for words in [&["up"][..], &["up", "--overwrite-dashboard"]] {
            record.add("another dashboard has the uid", it.run(words).expect(1));
        }
        assert_eq!(it.ask("GET", "/api/dashboards/uid/clipper-metrics", None).1["dashboard"]["title"], "Theirs");
        assert_eq!(it.ask("GET", "/api/datasources", None).1, json!([]), "{version:?}: nothing was written");
    }
    record.section();
}

#[test]
fn unusual_characters_in_names_cause_no_lasting_difference() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        record = record.filter("\t", "TAB").filter("\u{202e}", "BIDI");
        let file = it.write("clipper.toml", "[[models]]\nname = \"a\\tb\\u202Ec\"\n");
        let words = ["--grafana-folder", "tab\there", "--grafana-org", "bidi\u{202e}mark", "--config"];
        let words = |command| [&[command], &words[..], &[file.as_str()]].concat();
        it.run(&words("up")).expect(0);
        record.add("the second run", it.run(&words("up")).expect(0));
        let status = it.run(&words("status")).expect(0);
        assert!(!status.out.contains(['\t', '\u{202e}']), "{version:?}: {:?}", status.out);
    }
    record.section();
}

#[test]
fn a_folder_with_the_same_uid_or_title_is_a_blocker() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let folder = json!({"uid": "clipper-metrics", "title": "Ops"});
        assert_eq!(it.ask("POST", "/api/folders", Some(&folder)).0, 200);
        record = record.filter(version.name(), "VERSION");
        record.add("a folder has the dashboard's uid", it.run(&["status"]).expect(3));
        record.add("a folder has the dashboard's uid", it.run(&["up"]).expect(1));
        assert_eq!(it.ask("GET", "/api/datasources", None).1, json!([]), "{version:?}: nothing was written");
        it.run(&["up", "--name", "another"]).expect(0);
        // Before 12, a dashboard in General prevents a folder of the same title.
        let it = Servers::start(version);
        record = it.continue_record(record);
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&their_dashboard("theirs", "Team"))).0, 200);
        let up = it.run(&["up", "--grafana-folder", "Team"]);
        assert_eq!(up.code, i32::from(version < Version::V12), "{version:?}: {}", up.err);
        if version < Version::V12 {
            record.add("a dashboard has the folder's title", up);
        }
    }
    record.section();
}

#[test]
fn before_11_no_dashboard_has_the_title_of_a_folder() {
    let mut record = Record::default();
    for version in Version::ALL {
        let blocks = i32::from(version < Version::V12);
        let it = Servers::start(version);
        record = it.continue_record(record).filter(version.name(), "VERSION");
        let up = it.run(&["up", "--grafana-folder", "Clipper Metrics"]).expect(blocks);
        let folders = it.ask("GET", "/api/folders", None).1.as_array().unwrap().len();
        assert_eq!(folders, usize::from(blocks == 0), "{version:?}");
        if blocks == 1 {
            record.add("the folder has the dashboard's title", up);
        }
        // Nor of a folder that exists already.
        let it = Servers::start(version);
        record = it.continue_record(record);
        assert_eq!(it.ask("POST", "/api/folders", Some(&json!({"title": "Clipper Metrics"}))).0, 200);
        let up = it.run(&["up", "--grafana-folder", "Clipper Metrics"]).expect(blocks);
        if blocks == 1 {
            record.add("the existing folder has the dashboard's title", up);
        }
        // Nor of any other folder.
        let it = Servers::start(version);
        record = it.continue_record(record);
        assert_eq!(it.ask("POST", "/api/folders", Some(&json!({"title": "clipper metrics"}))).0, 200);
        let up = it.run(&["up", "--grafana-folder", "Ours"]).expect(blocks);
        if blocks == 1 {
            record.add("another folder has the dashboard's title", up);
            assert_eq!(it.ask("GET", "/api/datasources", None).1, json!([]), "{version:?}: nothing was written");
        }
    }
    record.section();
}

#[test]
fn the_address_of_the_dashboard_names_another_organisation() {
    let it = Servers::start(Version::V12);
    let url = |words: &[&str]| {
        let status = it.run(&[words, &["--output", "json"]].concat()).expect(0).json();
        status["dashboard"]["url"].as_str().unwrap().to_string()
    };
    assert!(url(&["up"]).ends_with("/d/clipper-metrics"));
    let (_, created) = it.ask("POST", "/api/orgs", Some(&json!({"name": "Team"})));
    let expected = format!("/d/clipper-metrics?orgId={}", created["orgId"]);
    for verb in ["up", "status"] {
        let shown = url(&[verb, "--grafana-org", "Team"]);
        assert!(shown.ends_with(&expected), "{shown} {expected}");
    }
}

#[test]
fn the_folder_is_found_among_thousands() {
    let it = Servers::start(Version::V12_4);
    it.double.lock().unwrap().create_folders(1_500);
    let up = ["up", "--grafana-folder", "zeta"];
    it.run(&up).expect(0);
    assert!(it.run(&up).expect(0).out.contains("nothing to do"));
    it.run(&["down", "--deregister", "--grafana-folder", "zeta"]).expect(0);
    assert_eq!(it.ask("GET", "/api/folders?limit=1000&page=2", None).1.as_array().unwrap().len(), 500);
}

#[test]
fn provisioned_objects_are_not_changed() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let source = |mark: &str, url: &str| {
            json!({"name": "Clipper \
                            Metrics", "uid": "clipper-metrics", "type": "influxdb", "access": "proxy", "url": url,
                "user": "", "database": "clipper", "isDefault": false, "jsonData": {"dbName": "clipper",
                "httpMode": "POST", "timeInterval": "15s", mark: "clipper-metrics"}})
        };
        it.double.lock().unwrap().provision_data_source(&source("theirMark", "http://theirs:8086"));
        record.add("a file provides the data source without the mark", it.run(&["up"]).expect(1));
        // With the mark and the desired content, it is in sync.
        let it = Servers::start(version);
        it.double.lock().unwrap().provision_data_source(&source("clipperMetrics", &it.influxd.url()));
        it.run(&["up"]).expect(0);
        it.run(&["status"]).expect(0);
        // With the mark but other content, its differences are reported.
        let it = Servers::start(version);
        record = it.continue_record(record);
        it.double.lock().unwrap().provision_data_source(&source("clipperMetrics", "http://127.0.0.1:1"));
        record.add("the data source in the file has another URL", it.run(&["up"]).expect(1));
        assert_eq!(it.ask("GET", "/api/datasources", None).1[0]["url"], "http://127.0.0.1:1");
        // If its query fails, the reason is reported, and the run does not end with a race.
        let it = Servers::start(version);
        record = it.continue_record(record);
        let url = format!("http://{UNRESOLVABLE}:8086");
        it.double.lock().unwrap().provision_data_source(&source("clipperMetrics", &url));
        let up = it.run(&["up", "--data-source-url", &url, "--timeout", "5s"]).expect(1);
        record.add("the query of the data source in the file fails", up);
        // A provisioned dashboard with this uid is not overwritten.
        let it = Servers::start(version);
        record = it.continue_record(record);
        let dashboard =
            json!({"uid": "clipper-metrics", "title": "Clipper Metrics", "panels": [], "schemaVersion": 27});
        it.double.lock().unwrap().provision_dashboard(&dashboard);
        record.add("a file provides the dashboard", it.run(&["up", "--overwrite-dashboard"]).expect(1));
    }
    record.section();
}

#[test]
fn requests_do_not_depend_on_the_active_organisation() {
    for version in Version::ALL {
        let it = Servers::start(version);
        assert_eq!(it.ask("POST", "/api/orgs", Some(&json!({"name": "Other"}))).0, 200);
        assert_eq!(it.ask("POST", "/api/user/using/2", None).0, 200);
        it.run(&["up"]).expect(0);
        assert_eq!(it.ask("GET", "/api/datasources", None).1, json!([]), "{version:?}: not in the active one");
        it.ask("POST", "/api/user/using/1", None);
        assert_eq!(it.ask("GET", "/api/datasources", None).1.as_array().unwrap().len(), 1, "{version:?}");
        // After another switch, nothing differs.
        it.ask("POST", "/api/user/using/2", None);
        it.run(&["status"]).expect(0);
    }
}

#[test]
fn servers_that_clipper_cannot_use_are_reported_without_configuration_lines() {
    let it = Servers::start(Version::V12);
    let locked = Influxd::start_with(&[("INFLUXDB_HTTP_AUTH_ENABLED", "true")]);
    locked.query("", "CREATE USER me WITH PASSWORD 'secret' WITH ALL PRIVILEGES");
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let words =
        ["up", "--influxdb-url", &locked.url(), "--grafana-url", &grafana, "--influxdb-user", "me"].map(String::from);
    let run = Run::without_engine(&words).env("CLIPPER_METRICS_INFLUXDB_PASSWORD", "secret");
    let mut record = it.record().port(locked.port, ":8087");
    let up = record.run("InfluxDB requires an account", run).expect(0);
    assert!(!up.out.contains("influx_port"), "{}", up.out);
    record.section();
}

#[test]
fn a_name_that_does_not_resolve_ends_the_waiting_at_once() {
    let it = Servers::start(Version::V12);
    let up = it.run(&["up", "--data-source-url", &format!("http://{UNRESOLVABLE}:8086"), "--timeout", "1m"]).expect(1);
    assert!(!up.err.contains("after 60"), "long before the timeout: {}", up.err);
    let mut record = it.record();
    record.add("Grafana cannot resolve the data source's host", up);
    record.section();
}

#[test]
fn a_stalled_body_times_out() {
    let it = Servers::start(Version::V12);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
                let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
                let _ = std::io::Write::write_all(&mut stream, head.as_bytes());
                // Held open until the client gives up.
                let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
            });
        }
    });
    let mut record = it.record().port(port, ":3001");
    let (influxdb, grafana) = (it.influxd.url(), format!("http://127.0.0.1:{port}"));
    let words = ["up", "--influxdb-url", &influxdb, "--grafana-url", &grafana, "--timeout", "5s"];
    record.run("Grafana's response never ends", Run::without_engine(words)).expect(1);
    record.section();
}

#[test]
fn an_interrupted_clear_does_not_report_success() {
    let real = Influxd::start();
    real.query("", "CREATE DATABASE clipper");
    real.write("clipper", "m1_prediction_counter,clipper_metrics_demo=true value=1\n");
    let url = real.url();
    let reached = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let noted = Arc::clone(&reached);
    // A proxy in front of InfluxDB on which removals never finish.
    let port = in_background(move |request: Request| {
        let (url, noted) = (url.clone(), Arc::clone(&noted));
        async move {
            let body = String::from_utf8_lossy(&request.body).to_string();
            if body.contains("DROP") {
                noted.store(true, std::sync::atomic::Ordering::SeqCst);
                return std::future::pending().await;
            }
            let answer = tokio::task::spawn_blocking(move || {
                let form = [("content-type", "application/x-www-form-urlencoded")];
                http_with(&request.method, &format!("{url}{}", request.path), Some(&body), &form).unwrap()
            });
            let (status, text) = answer.await.unwrap();
            let mut response = crate::support::server::Response::bytes(status, "application/json", text.into_bytes());
            response.headers.push(("X-Influxdb-Version".into(), "1.6.7".into()));
            response
        }
    });
    let it = Servers::start(Version::V12);
    let (influxdb, grafana) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", it.port()));
    let run = Run::without_engine(["demo", "--clear", "--influxdb-url", &influxdb, "--grafana-url", &grafana]);
    let clear =
        run.command().stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    crate::support::eventually("it removes", Duration::from_secs(20), || {
        reached.load(std::sync::atomic::Ordering::SeqCst)
    });
    std::process::Command::new("kill").args(["-INT", &clear.id().to_string()]).status().unwrap();
    let ran = crate::support::run::ran(&clear.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (130, ""), "{ran:?}");
    let mut record = it.record().port(port, ":8087");
    record.add("Ctrl-C", Ran { typed: run.typed(), ..ran });
    record.section();
}

#[test]
fn a_watch_on_a_terminal_writes_lines_into_a_file() {
    let it = Servers::start(Version::V12);
    it.run(&["up"]).expect(0);
    let out = it.directory().join("out");
    let run = it.command(&["status", "--watch"]);
    let words: Vec<String> = run.arguments.iter().map(|word| format!("'{word}'")).collect();
    let (program, id) = (crate::support::run::program(), it.path("id"));
    let typed = format!("echo $$ > '{id}'; exec {program} {} > '{}'", words.join(" "), out.display());
    let mut terminal = std::process::Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &typed, "/dev/null"]).envs(&run.environment);
    terminal.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut terminal = terminal.spawn().unwrap();
    let text = || std::fs::read_to_string(&out).unwrap_or_default();
    crate::support::eventually("a line", Duration::from_secs(20), || text().lines().count() == 1);
    it.ask("DELETE", "/api/dashboards/uid/clipper-metrics", None);
    crate::support::eventually("the change", Duration::from_secs(20), || text().lines().count() == 2);
    assert!(!text().contains('\u{1b}') && text().contains("dashboard"), "{:?}", text());
    // Under `nohup`, a closed terminal does not end it.
    let ended = std::process::Command::new("kill").args(["-INT", it.read("id").trim()]).status().unwrap();
    assert!(ended.success());
    let _ = terminal.wait();
}

#[test]
fn a_watch_redraws_the_screen_at_every_width() {
    let it = Servers::start(Version::V12);
    it.run(&["up"]).expect(0);
    for columns in [60, 80, 200] {
        let out = it.directory().join(columns.to_string());
        let run = it.command(&["status", "--watch"]);
        let words: Vec<String> = run.arguments.iter().map(|word| format!("'{word}'")).collect();
        let program = crate::support::run::program();
        let typed = format!("stty rows 40 cols {columns}; exec {program} {}", words.join(" "));
        let mut terminal = std::process::Command::new("script");
        terminal.args(["--quiet", "--flush", "--command", &typed]).arg(&out).envs(&run.environment);
        terminal.env("NO_COLOR", "1").env("TERM", "xterm");
        terminal.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        let mut terminal = terminal.spawn().unwrap();
        let text = || std::fs::read_to_string(&out).unwrap_or_default().replace('\r', "");
        crate::support::eventually("it redraws", Duration::from_secs(30), || text().matches("\u{1b}[J").count() >= 2);
        let _ = terminal.kill();
        let _ = terminal.wait();
        let text = text();
        // The first line of `script` itself is not part of the screen.
        let screen = text.split_once('\n').unwrap().1;
        let mut tables = screen.split("\u{1b}[J");
        let first = tables.next().unwrap();
        let (table, up) = first.rsplit_once("\u{1b}[").unwrap();
        let width = |line: &str| line.chars().count();
        let lines: usize = table.lines().map(|line| width(line).div_ceil(columns).max(1)).sum();
        assert_eq!(up, format!("{lines}A"), "{columns} columns:\n{table}");
        for line in table.lines() {
            // Only a word longer than the screen may exceed its width; commands are not split, so
            // that they can be copied.
            let commands = line.split('`').skip(1).step_by(2);
            let longest = line.split_whitespace().chain(commands).map(width).max().unwrap_or_default();
            let longest = longest + "``,".len();
            assert!(width(line) <= columns.max(15 + longest), "{columns} columns: {line:?}");
        }
    }
}

#[test]
fn a_watch_whose_reader_is_closed_ends_quietly() {
    let it = Servers::start(Version::V12);
    it.run(&["up"]).expect(0);
    let mut watch = it.command(&["status", "--watch"]).command();
    let mut watch = watch.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut reader = std::io::BufReader::new(watch.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    // Nothing changes any more, so nothing would be printed.
    drop(reader);
    let mut code = None;
    crate::support::eventually("it ends", Duration::from_secs(20), || {
        code = watch.try_wait().unwrap();
        code.is_some()
    });
    let mut told = String::new();
    std::io::Read::read_to_string(&mut watch.stderr.take().unwrap(), &mut told).unwrap();
    assert_eq!((code.unwrap().code(), told.as_str()), (Some(0), ""));
}

#[test]
fn down_and_logs_need_no_engine_for_external_servers() {
    let it = Servers::start(Version::V12);
    it.run(&["up"]).expect(0);
    let mut record = it.record();
    // The instance may have containers and volumes on the engine.
    record.add("no engine", it.run(&["down"]).expect(0));
    // An outdated configuration that names a missing engine is not a blocker either; an engine in an option must exist.
    let mut by_context = |words: &[&str]| {
        record.run("DOCKER_CONTEXT=gone", it.command(words).env("DOCKER_HOST", "").env("DOCKER_CONTEXT", "gone"))
    };
    by_context(&["down"]).expect(0);
    let logs = || {
        Run::new(["logs"])
            .env("CLIPPER_METRICS_INFLUXDB_URL", &it.influxd.url())
            .env("CLIPPER_METRICS_GRAFANA_URL", &format!("http://127.0.0.1:{}", it.port()))
    };
    by_context(&["down", "--volumes", "--yes"]).expect(2);
    by_context(&["down", "--context", "typo"]).expect(2);
    by_context(&["down", "--deregister", "--influxdb-port", "abc"]).expect(2);
    let by_old_context = logs().env("DOCKER_HOST", "").env("DOCKER_CONTEXT", "gone");
    record.run("DOCKER_CONTEXT=gone", by_old_context).expect(1);
    record.add("no engine", it.run(&["down", "--volumes", "--yes"]).expect(1));
    assert_eq!(it.status()["in_sync"], true, "nothing was removed");
    record.run("no engine", logs().env("DOCKER_HOST", "unix:///nonexistent/docker.sock")).expect(1);
    record.section();
}

#[test]
fn deregistering_removes_only_managed_objects() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let theirs = json!({"name": "theirs", "type": "influxdb", "access": "proxy", "url": "http://x"});
        assert_eq!(it.ask("POST", "/api/datasources", Some(&theirs)).0, 200);
        it.run(&["up", "--grafana-folder", "Metrics"]).expect(0);
        let words = ["down", "--deregister", "--grafana-folder", "Metrics"];
        record.add("a dry run", it.run(&[&words[..], &["--dry-run"]].concat()).expect(3));
        record.add("the removal", it.run(&words).expect(0));
        let (_, sources) = it.ask("GET", "/api/datasources", None);
        assert_eq!(sources.as_array().unwrap().len(), 1, "{version:?}: {sources}");
        assert_eq!(it.ask("GET", "/api/dashboards/uid/clipper-metrics", None).0, 404, "{version:?}");
        let (_, folders) = it.ask("GET", "/api/folders", None);
        assert_eq!(folders, json!([]), "{version:?}");
        assert!(it.influxd.rows("", "SHOW DATABASES").contains(&json!(["clipper"])), "never a database");
        record.add("nothing is left", it.run(&words).expect(0));
        let nowhere = ["down", "--deregister", "--grafana-org", "Nowhere"];
        record.add("a missing organisation", it.run(&nowhere).expect(2));
    }
    record.section();
}

#[test]
fn deregistering_keeps_edited_and_foreign_objects() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let words = ["down", "--deregister", "--grafana-folder", "Metrics"];
        it.run(&["up", "--grafana-folder", "Metrics"]).expect(0);
        // Another dashboard in the folder keeps the folder.
        let (_, folders) = it.ask("GET", "/api/folders", None);
        let folder = folders.as_array().unwrap().iter().find(|folder| folder["title"] == "Metrics").unwrap().clone();
        let mut save = their_dashboard("theirs", "Theirs");
        match version {
            Version::V7 => save["folderId"] = folder["id"].clone(),
            _ => save["folderUid"] = folder["uid"].clone(),
        }
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
        record.add("the folder contains another dashboard", it.run(&words).expect(0));
        assert_eq!(it.ask("GET", "/api/dashboards/uid/theirs", None).0, 200, "{version:?}");
        // So does a library panel alone.
        if version > Version::V7 {
            it.ask("DELETE", "/api/dashboards/uid/theirs", None);
            it.double.lock().unwrap().put_library_panel();
            it.run(&["up", "--grafana-folder", "Metrics"]).expect(0);
            it.run(&words).expect(0);
        }
        assert_eq!(it.ask("GET", "/api/folders", None).1[0]["title"], "Metrics", "{version:?}");
        // An edited dashboard is kept and reported.
        it.run(&["up"]).expect(0);
        let (_, present) = it.ask("GET", "/api/dashboards/uid/clipper-metrics", None);
        let mut edited = present["dashboard"].clone();
        edited["panels"][0]["title"] = json!("mine");
        let save = json!({"dashboard": edited, "overwrite": true, "folderUid": ""});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
        record.add("the dashboard was edited", it.run(&["down", "--deregister"]).expect(0));
        assert_eq!(it.ask("GET", "/api/dashboards/uid/clipper-metrics", None).0, 200);
    }
    record.section();
}

#[test]
fn a_folder_of_another_owner_is_neither_deleted_nor_recommended_for_deletion() {
    let it = Servers::start(Version::V12_4);
    let team = json!({"title": "Team", "uid": "team"});
    assert_eq!(it.ask("POST", "/api/folders", Some(&team)).0, 200);
    it.run(&["up", "--grafana-folder", "Team"]).expect(0);
    let (_, present) = it.ask("GET", "/api/dashboards/uid/clipper-metrics", None);
    let mut edited = present["dashboard"].clone();
    edited["panels"][0]["title"] = json!("mine");
    let save = json!({"dashboard": edited, "overwrite": true, "folderUid": "team"});
    assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
    let down = it.run(&["down", "--deregister", "--grafana-folder", "Team"]).expect(0);
    assert!(down.out.contains("was edited and is kept"), "{}", down.out);
    assert!(!down.out.contains("Team") && !down.err.contains("\"Team\""), "{}\n{}", down.out, down.err);
    assert_eq!(it.ask("GET", "/api/folders/team", None).0, 200);
}

#[test]
fn a_grafana_whose_database_fails_is_not_called_silent() {
    let it = Servers::start(Version::V12_4);
    for path in ["/api/org", "/api/user", "/api/datasources", "/api/dashboards/uid/clipper-metrics"] {
        it.double.lock().unwrap().break_path(path, 500);
    }
    let mut record = it.record();
    record.add("its database fails", it.run(&["status"]).expect(3));
    record.add("its database fails", it.run(&["up"]).expect(1));
    record.add("its database fails", it.run(&["down", "--deregister"]).expect(1));
    record.add("its database fails", it.run(&["doctor"]).expect(3));
    record.section();
}

#[test]
fn without_an_answer_from_grafana_no_removal_is_reported() {
    let it = Servers::start(Version::V12);
    let mut run = it.command(&["down", "--deregister"]);
    let closed = crate::support::free_port();
    *run.arguments.last_mut().unwrap() = format!("http://127.0.0.1:{closed}");
    let mut record = it.record().port(closed, ":3099");
    record.run("Grafana does not answer", run).expect(1);
    record.section();
}

#[test]
fn an_editor_is_enough_after_an_administrator_has_set_it_up() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        it.ask("POST", "/api/admin/users", Some(&json!({"login": "editor", "password": "editor-password"})));
        it.ask("PATCH", "/api/org/users/2", Some(&json!({"role": "Editor"})));
        let editor = |words: &[&str]| {
            let words = [words, &["--grafana-user", "editor"]].concat();
            it.command(&words).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "editor-password").run()
        };
        record.add("an editor alone", editor(&["up"]).expect(1));
        it.run(&["up"]).expect(0);
        it.ask("DELETE", "/api/dashboards/uid/clipper-metrics", None);
        if version == Version::V7 {
            // There an editor may not even read the data source.
            record.add("an editor may not read the data source in Grafana 7", editor(&["up"]).expect(1));
            continue;
        }
        record.add("an editor after an administrator", editor(&["up"]).expect(0));
        editor(&["status"]).expect(0);
        it.ask("DELETE", "/api/datasources/uid/clipper-metrics", None);
        record.add("an editor without the data source", editor(&["up"]).expect(1));
    }
    record.section();
}

#[test]
fn a_redirect_is_reported_and_never_followed() {
    let it = Servers::start(Version::V12);
    let port = it.port();
    let elsewhere = in_background(move |request: Request| async move {
        let mut response = Response::bytes(302, "text/html", Vec::new());
        response.headers.push(("location".into(), format!("http://127.0.0.1:{port}{}", request.path)));
        response
    });
    let (influxdb, url) = (it.influxd.url(), format!("http://127.0.0.1:{elsewhere}"));
    let mut record = it.record().port(elsewhere, ":3099");
    for (influxdb, grafana) in [(influxdb.as_str(), url.as_str()), (&url, &format!("http://127.0.0.1:{port}"))] {
        let words = ["up", "--influxdb-url", influxdb, "--grafana-url", grafana, "--timeout", "5s"];
        record.run("a redirect", Run::without_engine(words)).expect(1);
    }
    record.section();
    assert_eq!(it.refusals(), 0, "no login went anywhere");
}

#[test]
fn a_proxy_that_answers_502_while_grafana_starts_is_waited_for() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let it = Servers::start(Version::V12);
    let asked = AtomicUsize::new(0);
    let proxy = in_front_of_grafana(&it, no_delay, move |_| {
        let is_early = asked.fetch_add(1, Ordering::SeqCst) < 5;
        is_early.then(|| Response::bytes(502, "text/html", b"<h1>Bad gateway</h1>".to_vec()))
    });
    let (influxdb, grafana) = (it.influxd.url(), format!("http://127.0.0.1:{proxy}"));
    let words = ["up", "--influxdb-url", &influxdb, "--grafana-url", &grafana];
    Run::without_engine(words).run().expect(0);
}

#[test]
fn without_basic_authentication_a_token_is_suggested_and_works() {
    let it = Servers::start(Version::V12);
    it.ask("POST", "/api/serviceaccounts", Some(&json!({"name": "x", "role": "Admin"})));
    it.ask("POST", "/api/serviceaccounts/3/tokens", Some(&json!({"name": "x"})));
    // As Grafana does with `[auth.basic] enabled = false`: it ignores the header.
    let strict = in_front_of_grafana(&it, no_delay, |request| {
        let is_basic = request.headers.get("authorization").is_some_and(|value| value.starts_with("Basic "));
        is_basic.then(|| Response::json(401, &json!({"message": "Unauthorized"})))
    });
    let (influxdb, grafana) = (it.influxd.url(), format!("http://127.0.0.1:{strict}"));
    let run = || Run::without_engine(["up", "--influxdb-url", &influxdb, "--grafana-url", &grafana]);
    let mut record = it.record().port(strict, ":3001");
    let with_password = run().env("CLIPPER_METRICS_GRAFANA_PASSWORD", "admin");
    record.run("Grafana's basic authentication is off", with_password).expect(1);
    record.section();
    run().env("CLIPPER_METRICS_GRAFANA_TOKEN", TOKEN).run().expect(0);
}

#[test]
fn retention_is_set_compared_and_shortened_only_after_confirmation() {
    let it = Servers::start(Version::V12);
    it.run(&["up"]).expect(0);
    assert_eq!(it.status()["database"]["retention"], "for ever", "as InfluxDB makes it");
    let period = |database: &str| {
        let policies = it.influxd.rows("", &format!("SHOW RETENTION POLICIES ON {database}"));
        policies[0][1].as_str().unwrap().to_string()
    };
    let mut record = it.record();
    // No period is longer than infinite, so every finite one deletes data.
    record.add("a shorter period", it.run(&["up", "--retention", "90d"]).expect(2));
    assert_eq!(period("clipper"), "0s");
    record.add("a shorter period", it.run(&["up", "--retention", "90d", "--dry-run"]).expect(3));
    it.run(&["up", "--retention", "90d", "--yes"]).expect(0);
    assert_eq!(period("clipper"), "2160h0m0s");
    record.add("the same period", it.run(&["up", "--retention", "90d"]).expect(0));
    // A longer period needs no confirmation; without the setting, the period is not changed.
    it.run(&["up", "--retention", "180d"]).expect(0);
    assert_eq!(it.run(&["status", "--output", "json"]).expect(0).json()["database"]["retention"], "180d");
    it.run(&["up", "--retention", "inf"]).expect(0);
    assert_eq!(period("clipper"), "0s");
    it.influxd.query("", "ALTER RETENTION POLICY autogen ON clipper DURATION 2h SHARD DURATION 1h");
    it.run(&["status", "--retention", "90d"]).expect(3);
    it.run(&["up"]).expect(0);
    assert_eq!(period("clipper"), "2h0m0s");
    for bad in ["10m", "soon", "0s", "1h500ms"] {
        record.add("a bad value", it.run(&["up", "--retention", bad]).expect(2));
    }
    // A missing database is created with the period; nothing is lost, so no confirmation is requested.
    it.run(&["up", "--database", "new", "--retention", "12h", "--move-data-source"]).expect(0);
    assert_eq!(period("new"), "12h0m0s");
    // Without a default policy, InfluxDB rejects points.
    it.influxd.query("", "DROP RETENTION POLICY autogen ON clipper");
    let words = ["up", "--retention", "90d", "--move-data-source", "--yes"];
    record.add("no default policy", it.run(&words).expect(1));
    it.influxd.query("", "CREATE RETENTION POLICY autogen ON clipper DURATION 1d REPLICATION 1 DEFAULT");
    it.run(&words).expect(0);
    assert_eq!(period("clipper"), "2160h0m0s");
    record.section();
}

#[test]
fn a_backfill_starts_at_the_limit_of_the_default_policy() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE clipper");
    it.influxd.query(
        "",
        "CREATE RETENTION POLICY \"a \\\"short\\\" one\" ON clipper DURATION 90m REPLICATION 1 SHARD DURATION 1h \
         DEFAULT",
    );
    let mut record = it.record();
    let mut sent = |situation: &str, words: &[&str]| {
        let words = [&["demo", "--models", "m1,m2", "--mix", "--output", "json"], words].concat();
        let ran = it.run(&words).expect(0);
        let reports = ran.json()["reports"].as_u64().unwrap();
        record.add(situation, Ran { out: String::new(), ..ran });
        reports
    };
    let reports = sent("longer than the policy", &["--backfill", "6h"]);
    // A report every 15.004 s, for 89 minutes.
    assert!((350..=357).contains(&reports), "{reports} reports");
    let stored = it.influxd.rows("clipper", "SELECT count(\"value\") FROM m2_prediction_counter");
    assert_eq!(stored.len(), 1, "the points are in the default policy: {stored:?}");
    let reports = sent("shorter than the policy", &["--backfill", "1h"]);
    assert!((239..=241).contains(&reports), "{reports} reports");
    let reports = sent("as long as the policy", &["--backfill", "90m", "--duration", "1s"]);
    assert!(reports > 350, "{reports} reports");
    record.section();
}

#[test]
fn a_second_backfill_replaces_the_points_of_the_first() {
    let it = Servers::start(Version::V12);
    it.run(&["up"]).expect(0);
    let points = || {
        it.run(&["demo", "--models", "m1", "--backfill", "10m"]).expect(0);
        let stored = it.influxd.rows("clipper", "SELECT count(\"value\") FROM m1_prediction_counter");
        stored[0][1].as_u64().unwrap()
    };
    let (first, second) = (points(), points());
    assert!(second <= first + 1, "{first} points, then {second}");
}

#[test]
fn a_dry_run_refuses_the_same_options_and_lists_confirmations() {
    let it = Servers::start(Version::V12);
    it.run(&["up"]).expect(0);
    let refused = ["--reset-grafana-password"];
    let [up, dry] = [&["up"][..], &["up", "--dry-run"]].map(|words| it.run(&[words, &refused].concat()).expect(2));
    assert_eq!(up.err, dry.err);
    let shorter = ["up", "--retention", "90d", "--dry-run"];
    let asked = "changing the retention period of database clipper (for ever) to 90d deletes older data";
    let mut record = it.record();
    record.add("an option for containers", dry);
    record.add("a shorter period", it.run(&shorter).expect(3));
    let json = |more: &[&str]| it.run(&[&shorter, more, &["--output", "json"]].concat()).expect(3).json();
    assert_eq!(json(&[])["confirmations"], json!([asked]));
    assert_eq!(json(&["--yes"])["confirmations"], json!([]));
    record.add("a shorter period", it.run(&["up", "--retention", "90d"]).expect(2));
    assert_eq!(it.run(&["up", "--dry-run", "--output", "json"]).expect(0).json()["confirmations"], json!([]));
    // A blocker is reported before confirmations.
    let blocker = it.run(&[&shorter[..], &["--grafana-org", "no such", "--grafana-user", "x"]].concat()).expect(3);
    record.add("a shorter period, and Grafana rejects the login", blocker);
    record.section();
}

/// A Docker configuration whose current context leads to no engine: the run itself names no engine.
fn without_engine(words: &[&str], socket: &str) -> Run {
    let mut run = Run::new(words).env("DOCKER_HOST", "");
    let home = tempfile::tempdir().unwrap().keep();
    let meta = home.join("contexts/meta/abc");
    std::fs::create_dir_all(&meta).unwrap();
    let context = json!({"Name": "gone", "Endpoints": {"docker": {"Host": format!("unix://{socket}")}}});
    std::fs::write(meta.join("meta.json"), context.to_string()).unwrap();
    std::fs::write(home.join("config.json"), r#"{"currentContext":"gone"}"#).unwrap();
    run.environment.insert("DOCKER_CONFIG".into(), home.display().to_string());
    run
}

/// A record of runs with these ports as options.
fn loopback_record(influxdb: &str, grafana: &str) -> Record {
    let ports = [(influxdb, "8087"), (grafana, "3001")];
    ports.into_iter().fold(Record::default(), |record, (port, name)| record.filter(port, name))
}

#[test]
fn without_an_engine_servers_on_loopback_are_found_and_no_credentials_are_sent() {
    let it = Servers::start(Version::V12);
    let (influxdb, grafana) = (it.influxd.port.to_string(), it.port().to_string());
    let ports = ["--influxdb-port", influxdb.as_str(), "--grafana-port", grafana.as_str()];
    let socket = "/home/me/.colima/default/docker.sock";
    let mut record = loopback_record(&influxdb, &grafana);
    for verb in ["up", "status"] {
        let words: Vec<&str> = [verb].into_iter().chain(ports).collect();
        let run = without_engine(&words, socket).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "secret");
        let ran = record.run("colima does not run", run).expect(1);
        let with_credentials = it.double.lock().unwrap().seen().iter().filter(|seen| seen.signed_in).count();
        assert!(with_credentials == 0 || verb == "status", "credentials were sent");
        let command = ran.err.split('`').find(|text| text.starts_with("clipper-metrics up ")).unwrap_or_default();
        // As pasted, the command works, and so do the lines in Clipper's file.
        let words = crate::support::run::shell_words(command);
        without_engine(&words.iter().skip(1).map(String::as_str).collect::<Vec<_>>(), socket).run().expect(0);
        let lines = ran.err.split("[metrics]").nth(1).unwrap().lines().take(3).collect::<Vec<_>>().join("\n");
        let file = it.write("clipper.toml", format!("[metrics]{lines}\n"));
        without_engine(&["status", "--config", &file], socket).run().expect(0);
        it.run(&["down", "--deregister"]).expect(0);
    }
    assert_eq!(it.refusals(), 0);
    // An engine that this run names must exist.
    let named = record.run("the named engine does not exist", Run::without_engine(["up"].into_iter().chain(ports)));
    assert!(!named.expect(1).err.contains("--influxdb-url"));
    record.section();
}

#[test]
fn a_stopped_engine_is_started_if_no_servers_answer() {
    let [influxdb, grafana] = [(); 2].map(|()| crate::support::free_port().to_string());
    let words = ["status", "--influxdb-port", &influxdb, "--grafana-port", &grafana];
    let mut record = loopback_record(&influxdb, &grafana);
    record.run("OrbStack does not run", without_engine(&words, "/home/me/.orbstack/run/docker.sock")).expect(1);
    record.section();
}

#[test]
fn logs_and_backup_name_the_ways_of_the_servers_themselves() {
    let it = Servers::start(Version::V12);
    let mut record = it.record();
    for (words, code) in [(&["logs"][..], 1), (&["logs", "grafana"], 1), (&["backup", "/nonexistent/x"], 2)] {
        let run = Run::without_engine(words)
            .env("CLIPPER_METRICS_INFLUXDB_URL", &it.influxd.url())
            .env("CLIPPER_METRICS_GRAFANA_URL", &format!("http://127.0.0.1:{}", it.port()));
        record.run("both servers are external", run).expect(code);
    }
    record.section();
}

#[test]
fn localhost_is_printed_to_clipper_as_an_address() {
    let it = Servers::start(Version::V12);
    let url = format!("http://localhost:{}", it.influxd.port);
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let words = ["up", "--influxdb-url", &url, "--grafana-url", &grafana];
    let mut record = it.record();
    record.run("Clipper needs an address", Run::without_engine(words)).expect(0);
    record.section();
}

#[test]
fn beside_native_servers_on_all_addresses_a_bare_up_names_them_and_status_warns() {
    let home = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/beside.sh");
    let double = std::path::Path::new(crate::support::run::program()).with_file_name("examples/grafana-double");
    assert!(double.exists(), "`cargo build --examples` builds {}", double.display());
    let namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", script, crate::support::run::program()];
    let mut beside = std::process::Command::new("unshare");
    let beside =
        beside.args(namespaces).arg(double).arg(home.path()).output().expect("this test needs Linux and unshare");
    let read = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap_or_default();
    let all: Vec<String> = ["nothing", "found", "up", "status", "doctor"].map(read).into();
    assert!(beside.status.success(), "this test needs root: {beside:?}\n{}", all.join("\n"));
    let mut record = Record::default();
    let typed = ["status", "up", "up …", "status …", "doctor …"].map(|words| format!("clipper-metrics {words}"));
    for (typed, text) in typed.into_iter().zip(all) {
        let is_output = text.starts_with("clipper-metrics is");
        let (out, err) = if is_output { (text, String::new()) } else { (String::new(), text) };
        let code = i32::from(err.contains("error:"));
        record.add("native servers on all addresses", Ran { code, typed, out, err });
    }
    record.section();
}

/// A server in front of Grafana's double, which answers a request itself if `first` does, after this delay.
fn in_front_of_grafana(
    it: &Servers,
    delay: impl Fn(&Request) -> Duration + Send + Sync + 'static,
    first: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
) -> u16 {
    let double = Arc::clone(&it.double);
    in_background(move |request: Request| {
        let (double, delay, own) = (Arc::clone(&double), delay(&request), first(&request));
        async move {
            tokio::time::sleep(delay).await;
            match own {
                Some(own) => own,
                None => handle(&double, request).await,
            }
        }
    })
}

const fn no_delay(_: &Request) -> Duration {
    Duration::ZERO
}

/// A server in front of an InfluxDB, which answers a request itself if `first` does, after this delay.
fn in_front_of(
    url: String,
    delay: Duration,
    first: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
) -> u16 {
    in_background(move |request: Request| {
        let (url, own) = (url.clone(), first(&request));
        async move {
            tokio::time::sleep(delay).await;
            if let Some(own) = own {
                return own;
            }
            let forwarded = tokio::task::spawn_blocking(move || {
                let body = String::from_utf8_lossy(&request.body).to_string();
                let form = [("content-type", "application/x-www-form-urlencoded")];
                http_with(&request.method, &format!("{url}{}", request.path), Some(&body), &form).unwrap()
            });
            let (status, text) = forwarded.await.unwrap();
            let mut response = Response::bytes(status, "application/json", text.into_bytes());
            response.headers.push(("X-Influxdb-Version".into(), "1.6.7".into()));
            response
        }
    })
}

#[test]
fn an_influxdb_whose_ping_requires_a_login_is_asked_with_it() {
    let it = Servers::start(Version::V12);
    let locked =
        Influxd::start_with(&[("INFLUXDB_HTTP_AUTH_ENABLED", "true"), ("INFLUXDB_HTTP_PING_AUTH_ENABLED", "true")]);
    locked.query("", "CREATE USER me WITH PASSWORD 'secret' WITH ALL PRIVILEGES");
    let proxy = in_front_of(it.influxd.url(), Duration::ZERO, |request| {
        let is_signed_in = request.headers.get("authorization") == Some(&basic("me", "secret"));
        (!is_signed_in).then(|| {
            let mut response = Response::bytes(401, "text/html", b"<h1>401 Unauthorized</h1>".to_vec());
            response.headers.push(("WWW-Authenticate".into(), "Basic realm=\"metrics\"".into()));
            response
        })
    });
    let mut record = it.record().port(locked.port, ":8087").port(proxy, ":8088");
    for url in [locked.url(), format!("http://127.0.0.1:{proxy}")] {
        let grafana = format!("http://127.0.0.1:{}", it.port());
        let run = |words: &[&str], password: &str| {
            let words = [words, &["--influxdb-url", &url, "--grafana-url", &grafana, "--move-data-source"]].concat();
            Run::without_engine(words).env("CLIPPER_METRICS_INFLUXDB_PASSWORD", password)
        };
        record.run("no account is given", run(&["up"], "")).expect(1);
        record.run("the password is wrong", run(&["up", "--influxdb-user", "me"], "wrong")).expect(1);
        run(&["up", "--influxdb-user", "me"], "secret").run().expect(0);
        let status = ["--influxdb-url", &url, "--grafana-url", &grafana, "--influxdb-user", "me"];
        let status = Run::without_engine([&["status"][..], &status].concat());
        status.env("CLIPPER_METRICS_INFLUXDB_PASSWORD", "secret").run().expect(0);
    }
    record.section();
}

#[test]
fn a_slow_external_server_is_used_and_a_hanging_one_ends_at_the_timeout() {
    let it = Servers::start(Version::V12);
    let slow_influxdb = in_front_of(it.influxd.url(), Duration::from_millis(2_500), |_| None);
    let is_probe = |request: &Request| ["/api/health", "/api/org"].contains(&request.path.as_str());
    let delay = move |request: &Request| Duration::from_millis(if is_probe(request) { 2_500 } else { 0 });
    let slow_grafana = in_front_of_grafana(&it, delay, |_| None);
    let [influxdb, grafana] = [slow_influxdb, slow_grafana].map(|port| format!("http://127.0.0.1:{port}"));
    let run = |words: &[&str], influxdb: &str| {
        Run::without_engine([words, &["--influxdb-url", influxdb, "--grafana-url", &grafana]].concat())
    };
    let up = run(&["up", "--timeout", "1m"], &influxdb).run().expect(0);
    for (server, url) in [("InfluxDB", &influxdb), ("Grafana", &grafana)] {
        let told = format!("note: waiting for {server} at {url}\n");
        assert_eq!(up.err.matches(&told).count(), 1, "in several rounds: {}", up.err);
    }
    let status = run(&["status"], &influxdb).run().expect(0);
    assert!(!status.err.contains("waiting for"), "{}", status.err);
    let hanging = in_background(|_| std::future::pending());
    let hanging_url = format!("http://127.0.0.1:{hanging}");
    for (words, code, limit) in [(&["up", "--timeout", "4s"][..], 1, 4), (&["status"], 3, 10)] {
        let started = std::time::Instant::now();
        let ran = run(words, &hanging_url).run().expect(code);
        assert!(started.elapsed().as_secs() >= limit, "{words:?}: {}{}", ran.out, ran.err);
    }
    let mut record = it.record().port(hanging, ":8087").port(slow_grafana, ":3001");
    record.run("InfluxDB never answers", run(&["up", "--timeout", "1s"], &hanging_url)).expect(1);
    record.section();
}

#[test]
fn a_short_timeout_shortens_no_request_but_the_probe() {
    let it = Servers::start(Version::V12);
    let is_save = |request: &Request| request.method == "POST" && request.path.starts_with("/api/d");
    let delay = move |request: &Request| Duration::from_millis(if is_save(request) { 4_500 } else { 0 });
    let slow = in_front_of_grafana(&it, delay, |_| None);
    let (influxdb, grafana) = (it.influxd.url(), format!("http://127.0.0.1:{slow}"));
    let words = ["up", "--timeout", "4s", "--influxdb-url", &influxdb, "--grafana-url", &grafana];
    Run::without_engine(words).run().expect(0);
}

#[test]
fn no_credentials_are_sent_to_another_server_that_rejects_the_ping() {
    let it = Servers::start(Version::V12);
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let up = |headers: &'static [(&'static str, &'static str)]| {
        let seen = Arc::new(std::sync::Mutex::new(0));
        let count = Arc::clone(&seen);
        let port = in_background(move |request: Request| {
            *count.lock().unwrap() += usize::from(request.headers.contains_key("authorization"));
            let mut response = Response::bytes(401, "text/plain", b"no".to_vec());
            response.headers.extend(headers.iter().map(|(name, value)| ((*name).into(), (*value).into())));
            async { response }
        });
        let url = format!("http://127.0.0.1:{port}");
        let words = ["up", "--influxdb-url", &url, "--grafana-url", &grafana, "--influxdb-user", "me"];
        let ran = Run::without_engine(words).env("CLIPPER_METRICS_INFLUXDB_PASSWORD", "secret").run().expect(1);
        let seen = *seen.lock().unwrap();
        (ran.err, seen)
    };
    for (headers, what) in [
        (&[][..], "a server that is not InfluxDB"),
        (&[("WWW-Authenticate", "Bearer")], "a server that is not InfluxDB"),
        (&[("WWW-Authenticate", "Basic"), ("X-Influxdb-Version", "2.7.1")], "InfluxDB 2.7.1, which does not support"),
    ] {
        let (err, credentials) = up(headers);
        assert!(err.contains(what), "{headers:?}: {err}");
        assert_eq!(credentials, 0, "{headers:?}");
    }
    for headers in [
        &[("WWW-Authenticate", "Negotiate"), ("WWW-Authenticate", "Basic realm=\"x\"")][..],
        &[("WWW-Authenticate", "Negotiate, Basic realm=\"x\"")],
    ] {
        let (err, credentials) = up(headers);
        assert!(err.contains("rejected the login") && credentials > 0, "{headers:?}: {credentials} {err}");
    }
}

#[test]
fn a_proxy_that_forbids_a_request_is_not_taken_for_a_missing_right() {
    let it = Servers::start(Version::V12);
    let forbidding = in_front_of(it.influxd.url(), Duration::ZERO, |request| {
        (request.path.starts_with("/query"))
            .then(|| Response::bytes(403, "text/html", b"<h1>403 Forbidden</h1>".to_vec()))
    });
    let url = format!("http://127.0.0.1:{forbidding}");
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let words = ["up", "--influxdb-url", &url, "--grafana-url", &grafana, "--influxdb-user", "me"];
    let run = Run::without_engine(words).env("CLIPPER_METRICS_INFLUXDB_PASSWORD", "secret");
    let mut record = it.record().port(forbidding, ":8087");
    let up = record.run("a proxy in front of InfluxDB forbids queries", run).expect(1);
    assert!(up.err.contains("--influxdb-password-file") && !up.err.contains("GRANT"), "{}", up.err);
    record.section();
}

#[test]
fn missing_rights_in_influxdb_are_named_with_the_statement_that_grants_them() {
    let it = Servers::start(Version::V12);
    let locked = Influxd::start_with(&[("INFLUXDB_HTTP_AUTH_ENABLED", "true")]);
    locked.query("", "CREATE USER root WITH PASSWORD 'secret' WITH ALL PRIVILEGES");
    let administrator = basic("root", "secret");
    let execute = |statement: &str| {
        let url = format!("{}/query?q={}", locked.url(), clipper_metrics::http::escaped(statement));
        let (status, text) = http_with("POST", &url, None, &[("authorization", &administrator)]).unwrap();
        assert!(status == 200 && !text.contains("error"), "{statement}: {text}");
    };
    execute("CREATE USER me WITH PASSWORD 'secret'");
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let run = |words: &[&str]| {
        let urls = ["--influxdb-url", &locked.url(), "--grafana-url", &grafana, "--influxdb-user", "me"];
        Run::without_engine([words, &urls].concat()).env("CLIPPER_METRICS_INFLUXDB_PASSWORD", "secret")
    };
    let mut record = it.record().port(locked.port, ":8087");
    let none = record.run("an account without rights", run(&["up"])).expect(1);
    assert!(!none.err.contains("rejected the login"), "{}", none.err);
    execute("CREATE DATABASE clipper");
    assert!(none.err.contains("`GRANT READ ON \"clipper\" TO \"me\"`"), "{}", none.err);
    execute("GRANT READ ON clipper TO me");
    run(&["up"]).run().expect(0);
    record.run("an account that may only read", run(&["demo", "--duration", "1s"])).expect(1);
    record.run("an account that may only read", run(&["up", "--retention", "90d", "--yes"])).expect(1);
    // The statement from the hint.
    execute("GRANT ALL ON \"clipper\" TO \"me\"");
    run(&["demo", "--duration", "1s"]).run().expect(0);
    record.section();
}

#[test]
fn faults_of_the_query_that_last_end_the_waiting_with_their_own_hint() {
    let it = Servers::start(Version::V12);
    let distrusting = in_front_of_grafana(&it, no_delay, |request| {
        let why = "Post \"https://influxdb:8086/query?db=clipper&epoch=ms\": tls: failed to verify certificate: x509: \
                   certificate signed by unknown authority";
        let answer = || Response::json(400, &json!({"results": {"A": {"error": why, "status": 500}}}));
        request.path.starts_with("/api/ds/query").then(answer)
    });
    let (influxdb, grafana) = (it.influxd.url(), format!("http://127.0.0.1:{distrusting}"));
    let words = ["up", "--influxdb-url", &influxdb, "--grafana-url", &grafana, "--timeout", "1m"];
    let mut record = it.record().port(distrusting, ":3001");
    let up = record.run("Grafana does not trust InfluxDB's certificate", Run::without_engine(words)).expect(1);
    assert!(!up.err.contains("after 60"), "{}", up.err);
    let saves = it.double.lock().unwrap().seen().iter().filter(|seen| seen.method == "PUT").count();
    assert!(saves <= 1, "{saves} further saves");

    let it = Servers::start(Version::V12);
    let locked = Influxd::start_with(&[("INFLUXDB_HTTP_AUTH_ENABLED", "true")]);
    locked.query("", "CREATE USER root WITH PASSWORD 'secret' WITH ALL PRIVILEGES");
    let administrator = basic("root", "secret");
    for statement in
        ["CREATE DATABASE clipper", "CREATE USER me WITH PASSWORD 'secret'", "GRANT WRITE ON clipper TO me"]
    {
        let url = format!("{}/query?q={}", locked.url(), clipper_metrics::http::escaped(statement));
        assert_eq!(http_with("POST", &url, None, &[("authorization", &administrator)]).unwrap().0, 200);
    }
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let words = ["up", "--influxdb-url", &locked.url(), "--grafana-url", &grafana, "--influxdb-user", "me"];
    let run = Run::without_engine(words).env("CLIPPER_METRICS_INFLUXDB_PASSWORD", "secret");
    let mut record = record.port(locked.port, ":8087").port(it.port(), ":3001");
    let up = record.run("InfluxDB's user may only write", run).expect(1);
    assert!(!up.err.contains("after 120"), "{}", up.err);
    // READ would replace WRITE.
    assert!(up.err.contains("GRANT ALL"), "{}", up.err);
    record.section();
}

#[test]
fn a_proxy_that_redirects_to_its_own_login_is_named() {
    let it = Servers::start(Version::V12);
    let guarded = in_front_of_grafana(&it, no_delay, |request| {
        let mut response = Response::bytes(302, "text/html", b"<a href=x>Found</a>".to_vec());
        response.headers.push(("location".into(), "https://sso.example/login?to=grafana".into()));
        (request.path != "/api/health").then_some(response)
    });
    let (influxdb, grafana) = (it.influxd.url(), format!("http://127.0.0.1:{guarded}"));
    for (verb, code) in [("up", 1), ("status", 3)] {
        let words = [verb, "--influxdb-url", &influxdb, "--grafana-url", &grafana];
        let ran = Run::without_engine(words).run().expect(code);
        let text = format!("{}{}", ran.out, ran.err);
        assert!(text.contains("https://sso.example/login") && text.contains("--grafana-token-file"), "{text}");
    }
}

#[test]
fn an_organisation_chosen_without_a_setting_is_named() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record).filter(version.name(), "VERSION");
        let alone = it.run(&["up", "--output", "json"]).expect(0);
        assert!(!alone.out.contains("Main Org."), "{version:?}: there is no choice: {}", alone.out);
        it.run(&["down", "--deregister"]).expect(0);
        it.ask("POST", "/api/orgs", Some(&json!({"name": "Team"})));
        it.ask("POST", "/api/orgs", Some(&json!({"name": "Third"})));
        record.add("several organisations", it.run(&["up", "--dry-run"]).expect(3));
        record.add("several organisations", it.run(&["up"]).expect(0));
        record.add("several organisations", it.run(&["up"]).expect(0));
        it.run(&["down", "--deregister"]).expect(0);
        record.add("nothing is left", it.run(&["down", "--deregister"]).expect(0));
        let team = it.run(&["down", "--deregister", "--grafana-org", "Team"]).expect(0);
        record.add("nothing is left", team);
    }
    record.section();
}

#[test]
fn a_token_of_another_organisation_is_named_with_both() {
    let it = Servers::start(Version::V12);
    it.ask("POST", "/api/serviceaccounts", Some(&json!({"name": "x", "role": "Admin"})));
    it.ask("POST", "/api/serviceaccounts/3/tokens", Some(&json!({"name": "x"})));
    it.ask("POST", "/api/orgs", Some(&json!({"name": "Team"})));
    let token = |words: &[&str]| it.command(words).env("CLIPPER_METRICS_GRAFANA_TOKEN", TOKEN);
    for (verb, code) in [("up", 1), ("status", 3)] {
        let ran = token(&[verb, "--grafana-org", "Team"]).run().expect(code);
        let text = format!("{}{}", ran.out, ran.err);
        assert!(text.contains("--grafana-org 'Main Org.'") && !text.contains("an administrator's"), "{text}");
    }
    token(&["up", "--grafana-org", "Main Org."]).run().expect(0);
}

#[test]
fn a_lasting_conflict_of_the_data_source_ends_with_grafanas_message() {
    let it = Servers::start(Version::V12);
    // As if the account may not see the data source that has the name.
    let conflicting = in_front_of_grafana(&it, no_delay, |request| {
        let is_save =
            request.path.starts_with("/api/datasources") && ["POST", "PUT"].contains(&request.method.as_str());
        is_save.then(|| Response::json(409, &json!({"message": "data source with the same name already exists"})))
    });
    let (influxdb, grafana) = (it.influxd.url(), format!("http://127.0.0.1:{conflicting}"));
    let run = || Run::without_engine(["up", "--influxdb-url", &influxdb, "--grafana-url", &grafana]);
    let mut record = it.record().port(conflicting, ":3001");
    let create = record.run("Grafana rejects the new data source", run()).expect(1);
    assert!(!create.err.contains("another process"), "{}", create.err);
    it.run(&["up"]).expect(0);
    let (_, sources) = it.ask("GET", "/api/datasources", None);
    let mut changed = sources[0].clone();
    changed["url"] = json!("http://127.0.0.1:1");
    assert_eq!(it.ask("PUT", "/api/datasources/uid/clipper-metrics", Some(&changed)).0, 200);
    let update = record.run("Grafana rejects the change", run()).expect(1);
    assert!(!update.err.contains("another process"), "{}", update.err);
    record.section();
}

#[test]
fn a_proxy_of_the_environment_is_named_without_its_password() {
    let it = Servers::start(Version::V12);
    let words =
        ["up", "--influxdb-url", "http://influxdb.example:8086", "--grafana-url", "http://grafana.example:3000"];
    let run = || Run::without_engine(words);
    let mut record = it.record();
    let proxied = |run: Run| run.env("HTTP_PROXY", "http://me:sesame@127.0.0.1:1");
    let up = record.run("the proxy does not answer", proxied(run())).expect(1);
    assert!(up.err.contains("127.0.0.1:1") && up.err.contains("NO_PROXY"), "{}", up.err);
    assert!(!up.err.contains("sesame"), "{}", up.err);
    for (status, what) in [(407, "the proxy requires a login"), (502, "still starting (status 502)")] {
        let proxy =
            in_background(move |_| async move { Response::bytes(status, "text/html", b"<h1>no</h1>".to_vec()) });
        let status = ["status", words[1], words[2], words[3], words[4]];
        let run = Run::without_engine(status).env("HTTP_PROXY", &format!("http://127.0.0.1:{proxy}"));
        let ran = run.run().expect(3);
        let text = format!("{}{}", ran.out, ran.err);
        assert!(text.contains(&format!("{what} (through the environment's proxy 127.0.0.1:{proxy}")), "{text}");
    }
    let grafana = format!("http://127.0.0.1:{}", it.port());
    let near = ["up", "--influxdb-url", "http://127.0.0.1:1", "--grafana-url", &grafana];
    let near = proxied(Run::without_engine(near)).run().expect(1);
    assert!(!near.err.contains("proxy"), "no proxy is used for loopback: {}", near.err);
    record.section();
}
