//! Exports of the objects in an external Grafana, in each version of its double. `e2e/export.rs` uses the files.

use std::path::Path;

use serde_json::{Value, json};

use crate::exports::{home_without_engine, without_engine, yaml};
use crate::support::context::Record;
use crate::support::double::Version;
use crate::support::run::Ran;
use crate::support::servers::Servers;

use super::ownership::change_source;
use super::user_dashboards::export as shared;

const DASHBOARD: &str = "/api/dashboards/uid/clipper-metrics";

fn provisioning(it: &Servers, into: &Path, more: &[&str]) -> Ran {
    let directory = into.display().to_string();
    let words: Vec<&str> = ["export", "provisioning", &directory].into_iter().chain(more.iter().copied()).collect();
    it.run(&words)
}

#[test]
fn a_grafana_provisioned_from_the_files_is_in_sync_on_every_version() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        it.influxd.query("", "CREATE DATABASE \"it's-$HOME\"");
        let files = it.directory().join("files");
        let (mine, alerts) = (it.write("mine.json", shared("mine", "Mine").to_string()), version > Version::V7);
        let mut with = vec!["--database", "it's $HOME", "--dashboard", &mine, "--grafana-folder", "Cost $HOME"];
        if alerts {
            with.push("--alerts");
        }
        record.add("no account for Grafana", provisioning(&it, &files, &with).expect(0));
        let double = || it.double.lock().unwrap();
        assert!(double().seen().iter().all(|seen| !seen.signed_in), "{version:?}: no account was supplied");
        double().provision_from(&files);
        let status: Vec<&str> = ["status", "--output", "json"].into_iter().chain(with.clone()).collect();
        let status = it.run(&status).expect(0).json();
        assert_eq!(status["data_source"]["query"], "ok", "{version:?}");
        assert_eq!(status["user_dashboards"][0]["state"], "in_sync", "{version:?}");
        let (_, found) = it.ask("GET", DASHBOARD, None);
        assert_eq!(found["meta"]["folderTitle"], "Cost $HOME", "{version:?}");
        assert_eq!(found["meta"]["provisioned"], true, "{version:?}");
    }
    record.section();
}

#[test]
fn with_an_account_edited_dashboards_are_exported_with_edits_and_folders() {
    for version in Version::ALL {
        let it = Servers::start(version);
        it.run(&["up"]).expect(0);
        let (_, folder) = it.ask("POST", "/api/folders", Some(&json!({"title": "Theirs", "uid": "theirs"})));
        let (_, found) = it.ask("GET", DASHBOARD, None);
        let mut dashboard = found["dashboard"].clone();
        dashboard["panels"][0]["title"] = json!("edited");
        let body = json!({"dashboard": dashboard, "overwrite": true, "folderId": folder["id"], "folderUid": "theirs"});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&body)).0, 200, "{version:?}");
        let files = it.directory().join("files");
        let [option, file] = it.grafana_password("admin");
        provisioning(&it, &files, &[&option, &file]).expect(0);
        let exported: Value =
            serde_json::from_str(&it.read("files/dashboards/clipper-metrics/clipper-metrics.json")).unwrap();
        assert_eq!(exported["panels"][0]["title"], "edited", "{version:?}");
        assert!(exported.get("id").is_none() && exported.get("version").is_none(), "{version:?}");
        let provider = yaml(&it, "files/dashboards/clipper-metrics.yaml");
        assert_eq!(provider["providers"][0]["folder"], "Theirs", "{version:?}: {provider}");
        assert!(it.read("files/README.md").contains("edited in Grafana"));
        // The default data source stays the default.
        let source = yaml(&it, "files/datasources/clipper-metrics.yaml");
        assert_eq!(source["datasources"][0]["isDefault"], true, "{version:?}: {source}");
    }
}

#[test]
fn a_data_source_stays_in_grafana_if_files_cannot_contain_its_settings() {
    let source_file = "datasources/clipper-metrics.yaml";
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        it.run(&["up"]).expect(0);
        let settings = json!({"maxSeries": 5000, "tlsSkipVerify": true});
        change_source(&it, version, |source| {
            source["jsonData"].as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        });
        let [option, file] = it.grafana_password("admin");
        let files = it.directory().join("files");
        provisioning(&it, &files, &[&option, &file]).expect(0);
        let source = yaml(&it, &format!("files/{source_file}"));
        let exported = &source["datasources"][0]["jsonData"];
        assert_eq!((&exported["maxSeries"], &exported["tlsSkipVerify"]), (&json!(5000), &json!(true)), "{source}");
        // Certificates, values of headers and passwords are never returned.
        change_source(&it, version, |source| source["jsonData"]["tlsAuthWithCACert"] = json!(true));
        for (change, listed) in [
            (None, "tlsAuthWithCACert"),
            (Some("tlsAuth"), "tlsAuth, tlsAuthWithCACert"),
            (Some("httpHeaderName1"), "httpHeaderName1, tlsAuth, tlsAuthWithCACert"),
        ] {
            if let Some(name) = change {
                change_source(&it, version, |source| source["jsonData"][name] = json!("X"));
            }
            let new = it.directory().join(change.unwrap_or("new"));
            let ran = provisioning(&it, &new, &[&option, &file]).expect(0);
            assert!(ran.err.contains(&format!("cannot contain its settings {listed}")), "{version:?}: {}", ran.err);
            assert!(!new.join(source_file).exists() && new.join("dashboards").exists());
            let readme = std::fs::read_to_string(new.join("README.md")).unwrap();
            assert!(!readme.contains("sidecar.datasources") && readme.contains("stays as it is"), "{readme}");
        }
        record.add("the settings stay in Grafana", provisioning(&it, &it.directory().join("new"), &[&option, &file]));
        // Grafana deletes a data source whose file disappears.
        let again = provisioning(&it, &files, &[&option, &file]).expect(0);
        assert!(again.err.contains("lacks the settings"), "{}", again.err);
        assert!(files.join(source_file).exists());
        let file = it.read("files/datasources/clipper-metrics.yaml");
        assert!(!file.contains("tlsAuth") && file.contains("tlsSkipVerify: true"), "{file}");
        record.add("an earlier export has the data source", again);
    }
    record.section();
}

#[test]
fn files_that_would_replace_objects_of_other_owners_are_not_written() {
    let it = Servers::start(Version::V12);
    let body = json!({"dashboard": {"uid": "clipper-metrics", "title": "Theirs", "panels": []}});
    it.ask("POST", "/api/dashboards/db", Some(&body));
    let [option, file] = it.grafana_password("admin");
    let files = it.directory().join("files");
    let mut record = it.record();
    record.add("another dashboard has the uid", provisioning(&it, &files, &[&option, &file]).expect(1));
    assert!(!files.exists());
    let [option, file] = it.grafana_password("not the password");
    record.add("the password is wrong", provisioning(&it, &files, &[&option, &file]).expect(1));
    assert!(!files.exists());
    record.section();
}

#[test]
fn an_external_influxdb_is_described_without_its_password() {
    let it = Servers::start(Version::V12);
    let secret = it.write("secret", "ge$heim");
    let files = it.directory().join("files");
    let more = ["--influxdb-user", "me", "--influxdb-password-file", &secret, "--data-source-url", "http://far:8086"];
    provisioning(&it, &files, &more).expect(0);
    let source = yaml(&it, "files/datasources/clipper-metrics.yaml");
    let source = &source["datasources"][0];
    assert_eq!((&source["url"], &source["user"]), (&json!("http://far:8086"), &json!("me")));
    assert_eq!(source["secureJsonData"]["password"], "$CLIPPER_METRICS_INFLUXDB_PASSWORD");
    assert!(!it.read("files/datasources/clipper-metrics.yaml").contains("heim"));
    assert!(it.read("files/README.md").contains("CLIPPER_METRICS_INFLUXDB_PASSWORD"));
    let mut record = it.record();
    for kind in ["swarm", "kubernetes"] {
        record.add("Grafana is external", it.run(&["export", kind, &it.path(kind)]).expect(2));
    }
    record.section();
}

#[test]
fn files_are_written_only_for_the_named_organisation() {
    let mut record = Record::default();
    for version in Version::ALL {
        let it = Servers::start(version);
        record = it.continue_record(record);
        let files = it.directory().join("files");
        let [option, file] = it.grafana_password("admin");
        // Without an account, its number is unknown.
        record.add("no account for Grafana", provisioning(&it, &files, &["--grafana-org", "Team"]).expect(2));
        let absent = provisioning(&it, &files, &["--grafana-org", "Team", &option, &file]).expect(1);
        record.add("the organisation is missing", absent);
        assert!(!files.exists());
        let (_, created) = it.ask("POST", "/api/orgs", Some(&json!({"name": "Team"})));
        provisioning(&it, &files, &["--grafana-org", "Team", &option, &file]).expect(0);
        for path in ["datasources/clipper-metrics.yaml", "dashboards/clipper-metrics.yaml"] {
            let file = yaml(&it, &format!("files/{path}"));
            let entry = [&file["datasources"][0], &file["providers"][0]].into_iter().find(|one| one.is_object());
            assert_eq!(entry.unwrap()["orgId"], created["orgId"], "{version:?}: {path}");
        }
        it.double.lock().unwrap().provision_from(&files);
        it.run(&["status", "--grafana-org", "Team"]).expect(3);
        it.influxd.query("", "CREATE DATABASE clipper");
        it.run(&["status", "--grafana-org", "Team"]).expect(0);
    }
    // The Grafana that gets the files does not belong to this instance.
    let home = home_without_engine();
    let refused =
        without_engine(&home, &["export", "provisioning", &home.path("x"), "--grafana-org", "Team"]).expect(2);
    record = record.version("").filter(home.path(""), "");
    record.add("no Grafana", refused);
    record.section();
}

#[test]
fn provisioned_alert_rules_are_reported_and_deleted_by_later_files() {
    let mut record = Record::default();
    for version in Version::ALL.into_iter().filter(|version| *version > Version::V7) {
        let it = Servers::start(version);
        record = it.continue_record(record).filter(version.name(), "VERSION");
        it.influxd.query("", "CREATE DATABASE clipper");
        let files = it.directory().join("files");
        let take = |more: &[&str]| {
            provisioning(&it, &files, more).expect(0);
            it.double.lock().unwrap().provision_from(&files);
        };
        let rules = || it.ask("GET", "/api/v1/provisioning/alert-rules", None).1.as_array().unwrap().len();
        take(&[]);
        assert!(!files.join("alerting").exists(), "{version:?}: none were made there");
        take(&["--alerts"]);
        assert_eq!(rules(), 2, "{version:?}");
        it.run(&["status", "--alerts"]).expect(0);
        // They do not count as a user's edit.
        let status = record.add("a file provides rules", it.run(&["status", "--alerts=false"]).expect(0));
        assert!(!status.out.contains("edited"), "{version:?}: {}", status.out);
        // They block nothing, and every run explains how to remove them.
        record.add("a file provides rules", it.run(&["up", "--alerts=false"]).expect(0));
        record.add("files provide all objects", it.run(&["down", "--deregister"]).expect(0));
        assert_eq!(rules(), 2, "{version:?}");
        it.run(&["status", "--alerts"]).expect(0);
        take(&[]);
        assert_eq!(rules(), 0, "{version:?}");
        it.run(&["status", "--alerts=false"]).expect(0);
        // A repeated export changes nothing, and a Grafana that never had the rules accepts the
        // files as well.
        record.add("nothing changed", provisioning(&it, &files, &[]).expect(0));
        Servers::start(version).double.lock().unwrap().provision_from(&files);
        take(&["--alerts"]);
        assert_eq!(rules(), 2, "{version:?}");
    }
    record.section();
    // Rules in another organisation than before stay in Grafana until a file deletes them there.
    let it = Servers::start(Version::V12_4);
    let files = it.directory().join("files");
    it.ask("POST", "/api/orgs", Some(&json!({"name": "Team"})));
    it.run(&["up", "--grafana-org", "Team"]).expect(0);
    provisioning(&it, &files, &["--alerts"]).expect(0);
    let [option, file] = it.grafana_password("admin");
    provisioning(&it, &files, &["--alerts", "--grafana-org", "Team", &option, &file]).expect(0);
    let rules = yaml(&it, "files/alerting/clipper-metrics.yaml");
    assert_eq!((&rules["groups"][0]["orgId"], &rules["deleteRules"][0]["orgId"]), (&json!(2), &json!(1)), "{rules}");
    let home = home_without_engine();
    for kind in ["swarm", "kubernetes"] {
        without_engine(&home, &["export", kind, &home.path(kind)]).expect(0);
        let file = if kind == "swarm" { "provisioning/alerting/clipper-metrics.yaml" } else { "provisioning.yaml" };
        assert!(home.read(format!("{kind}/{file}")).contains("deleteRules"), "{kind}");
    }
}
