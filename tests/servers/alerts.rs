//! Alert rules on Grafana's double in every version: created, kept after an edit, updated and
//! removed. The double does not evaluate rules; it returns what a real Grafana made of the same
//! template. `e2e/alerts.rs` waits for an alert of a real Grafana.

use serde_json::{Value, json};

use crate::support::double::{TOKEN, Version};
use crate::support::servers::Servers;

/// Versions with an API for alert rules.
const ALERTING: [Version; 4] = [Version::V9, Version::V12, Version::V12_4, Version::V13];
const RULES: &str = "/api/v1/provisioning/alert-rules";
const FOLDER: &str = "Clipper Metrics alerts";

fn rules(it: &Servers) -> Vec<Value> {
    it.ask("GET", RULES, None).1.as_array().unwrap().clone()
}

fn titled(it: &Servers, title: &str) -> Value {
    rules(it).into_iter().find(|rule| rule["title"] == title).unwrap_or_else(|| panic!("no rule {title:?}"))
}

fn folder(it: &Servers) -> Option<Value> {
    let folders = it.ask("GET", "/api/folders", None).1;
    folders.as_array().unwrap().iter().find(|folder| folder["title"] == FOLDER).cloned()
}

#[test]
fn both_rules_are_created_updated_and_removed_with_the_settings() {
    for version in ALERTING {
        let it = Servers::start(version);
        it.run(&["up"]).expect(0);
        assert!(rules(&it).is_empty(), "{version:?}: none unless asked for");
        let up = it.run(&["up", "--alerts"]).expect(0);
        assert!(up.out.contains("contact point"), "{version:?}: {}", up.out);
        assert_eq!(rules(&it).len(), 2, "{version:?}");
        let latency = titled(&it, "p99 above the objective");
        assert_eq!(latency["data"][0]["datasourceUid"], "clipper-metrics", "{version:?}");
        assert_eq!(latency["data"][1]["model"]["conditions"][0]["evaluator"]["params"], json!([20.0]));
        assert_eq!(latency["for"], "30s");
        let folder_uid = folder(&it).unwrap()["uid"].as_str().unwrap().to_string();
        assert_eq!(latency["folderUID"], folder_uid.as_str());
        let group = format!("/api/v1/provisioning/folder/{folder_uid}/rule-groups/clipper-metrics");
        assert_eq!(it.ask("GET", &group, None).1["interval"], 10, "{version:?}");
        assert!(it.run(&["up", "--alerts"]).expect(0).out.contains("nothing to do"), "{version:?}");
        let status = ["status", "--output", "json", "--alerts"];
        assert_eq!(it.run(&status).expect(0).json()["alerts"]["state"], "in_sync", "{version:?}");

        // A group's interval belongs to the user; the objective and the times are settings.
        let mut slower = it.ask("GET", &group, None).1;
        slower["interval"] = json!(60);
        assert_eq!(it.ask("PUT", &group, Some(&slower)).0, 200, "{version:?}");
        let text = "slo_micros = 7000\n[metrics]\nalerts = true\nalert_latency_after = \"90s\"\n";
        let config = &it.write("clipper.toml", text);
        let differs = it.run(&["status", "--output", "json", "--config", config]).expect(3).json();
        assert!(differs["alerts"]["differences"].to_string().contains("7000"), "{version:?}: {differs}");
        it.run(&["up", "--config", config]).expect(0);
        let latency = titled(&it, "p99 above the objective");
        assert_eq!(latency["for"], "1m30s", "{version:?}");
        assert_eq!(latency["data"][1]["model"]["conditions"][0]["evaluator"]["params"], json!([7.0]));
        assert_eq!(it.ask("GET", &group, None).1["interval"], 60, "{version:?}");
        // Without a file, the dashboard's objective applies.
        it.run(&["status", "--alerts", "--alert-latency-after", "90s"]).expect(0);

        it.run(&["up", "--alerts=false"]).expect(0);
        assert!(rules(&it).is_empty(), "{version:?}");
        assert!(folder(&it).is_none(), "{version:?}: its folder goes with them");
        assert!(it.run(&["up", "--alerts=false"]).expect(0).out.contains("nothing to do"), "{version:?}");
    }
}

#[test]
fn rules_that_an_earlier_grafana_marked_as_created_by_the_api_are_updated_and_removed() {
    for version in ALERTING {
        let it = Servers::start(version);
        it.run(&["up", "--alerts"]).expect(0);
        it.double.lock().unwrap().mark_rules_as_from_api("p99 above the objective");
        it.run(&["up", "--alerts", "--alert-latency-after", "2m", "--alert-silence-after", "3m"]).expect(0);
        assert_eq!(titled(&it, "p99 above the objective")["for"], "2m", "{version:?}");
        it.run(&["up", "--alerts=false"]).expect(0);
        assert!(rules(&it).is_empty(), "{version:?}");
    }
}

#[test]
fn edited_rules_are_kept_and_deleted_rules_are_restored() {
    for version in ALERTING {
        let it = Servers::start(version);
        it.run(&["up", "--alerts"]).expect(0);
        let mut edited = titled(&it, "a model has gone silent");
        edited["for"] = json!("5m");
        let place = format!("{RULES}/{}", edited["uid"].as_str().unwrap());
        assert_eq!(it.ask("PUT", &place, Some(&edited)).0, 200);
        let state = it.run(&["status", "--alerts", "--output", "json"]).expect(0).json();
        assert_eq!(state["alerts"]["state"], "edited", "{version:?}");
        let plan = it.run(&["up", "--alerts", "--dry-run"]).expect(0);
        assert!(plan.out.contains("keep the alerts"), "{version:?}: {}", plan.out);
        let kept = it.run(&["up", "--alerts", "--alert-silence-after", "2m"]).expect(0);
        assert!(kept.out.contains("alert rules were edited"), "{version:?}: {}", kept.out);
        assert_eq!(titled(&it, "a model has gone silent")["for"], "5m");
        // The other rule is still updated.
        it.run(&["up", "--alerts", "--alert-latency-after", "1m"]).expect(0);
        assert_eq!(titled(&it, "p99 above the objective")["for"], "1m", "{version:?}");
        assert_eq!(titled(&it, "a model has gone silent")["for"], "5m", "{version:?}");
        // After alerts are turned off, the edited rule and its folder stay.
        it.run(&["up", "--alerts=false"]).expect(0);
        assert_eq!(rules(&it).len(), 1, "{version:?}");
        assert!(folder(&it).is_some(), "{version:?}");
        it.run(&["up", "--alerts", "--overwrite-dashboard"]).expect(0);
        assert_eq!(titled(&it, "a model has gone silent")["for"], "0s", "{version:?}");
        let latency = titled(&it, "p99 above the objective")["uid"].as_str().unwrap().to_string();
        it.ask("DELETE", &format!("{RULES}/{latency}"), None);
        it.run(&["status", "--alerts"]).expect(3);
        it.run(&["up", "--alerts"]).expect(0);
        assert_eq!(rules(&it).len(), 2, "{version:?}");
    }
}

#[test]
fn a_rule_that_a_user_moved_is_updated_where_it_is() {
    // Into another folder alone, or also into another group.
    for (version, group) in ALERTING.into_iter().flat_map(|version| [(version, "clipper-metrics"), (version, "group")])
    {
        let it = Servers::start(version);
        it.run(&["up", "--alerts"]).expect(0);
        let theirs = json!({"title": "Theirs", "uid": "theirs"});
        assert_eq!(it.ask("POST", "/api/folders", Some(&theirs)).0, 200, "{version:?}");
        let mut moved = titled(&it, "p99 above the objective");
        (moved["folderUID"], moved["ruleGroup"]) = (json!("theirs"), json!(group));
        let place = format!("{RULES}/{}", moved["uid"].as_str().unwrap());
        assert_eq!(it.ask("PUT", &place, Some(&moved)).0, 200, "{version:?}");
        assert!(it.run(&["up", "--alerts"]).expect(0).out.contains("nothing to do"), "{version:?}");
        it.run(&["up", "--alerts", "--alert-latency-after", "2m", "--alert-silence-after", "3m"]).expect(0);
        let updated = titled(&it, "p99 above the objective");
        assert_eq!([&updated["for"], &updated["folderUID"], &updated["ruleGroup"]], ["2m", "theirs", group]);
        let other = titled(&it, "a model has gone silent");
        assert_eq!(other["annotations"]["summary"], "A model has not reported for 180 s", "{version:?}");
        assert_eq!(other["ruleGroup"], "clipper-metrics", "{version:?}");
        it.run(&["up", "--alerts=false"]).expect(0);
        assert!(rules(&it).is_empty() && folder(&it).is_none(), "{version:?}");
        assert_eq!(it.ask("GET", "/api/folders/theirs", None).0, 200, "{version:?}");
    }
}

#[test]
fn a_folder_left_by_an_interrupted_run_goes_with_the_instance_unless_it_holds_something() {
    for version in ALERTING {
        let it = Servers::start(version);
        it.run(&["up", "--alerts"]).expect(0);
        for rule in rules(&it) {
            it.ask("DELETE", &format!("{RULES}/{}", rule["uid"].as_str().unwrap()), None);
        }
        let uid = folder(&it).unwrap()["uid"].clone();
        let theirs = json!({"folderUid": uid, "dashboard": {"uid": "theirs", "title": "Theirs", "panels": []}});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&theirs)).0, 200, "{version:?}");
        assert!(it.run(&["up", "--alerts=false"]).expect(0).out.contains("nothing to do"), "{version:?}");
        assert!(folder(&it).is_some(), "{version:?}");
        it.run(&["down", "--deregister"]).expect(0);
        assert!(folder(&it).is_some(), "{version:?}");
        it.run(&["up", "--alerts=false"]).expect(0);
        assert_eq!(it.ask("DELETE", "/api/dashboards/uid/theirs", None).0, 200, "{version:?}");
        assert!(it.run(&["up", "--alerts=false"]).expect(0).out.contains("nothing to do"), "{version:?}");
        it.run(&["down", "--deregister"]).expect(0);
        assert!(folder(&it).is_none(), "{version:?}");
    }
}

/// `up` and then `down --deregister` remove everything but the folder, whose deletion Grafana answers with a status.
fn expect_kept_folder(version: Version, status: u16) {
    let it = Servers::start(version);
    it.run(&["up", "--alerts"]).expect(0);
    it.double.lock().unwrap().refuse_folder_deletion(status);
    let up = it.run(&["up", "--alerts=false"]).expect(0);
    assert!(rules(&it).is_empty() && folder(&it).is_some(), "{version:?}: {}", up.err);
    assert!(up.err.contains(&format!("cannot delete the alert rules' folder {FOLDER:?}")), "{version:?}: {}", up.err);
    it.run(&["status", "--alerts=false"]).expect(0);
    assert!(it.run(&["up", "--alerts=false"]).expect(0).out.contains("nothing to do"), "{version:?}");
    let down = it.run(&["down", "--deregister"]).expect(0);
    assert!(down.out.starts_with("removed the dashboard") && !down.out.contains("folder"), "{version:?}: {}", down.out);
    assert!(down.err.contains("folder"), "{version:?}: {}", down.err);
    assert_eq!(it.ask("GET", "/api/dashboards/uid/clipper-metrics", None).0, 404, "{version:?}");
    assert_eq!(it.ask("GET", "/api/datasources", None).1, json!([]), "{version:?}");
}

#[test]
fn a_folder_that_the_account_may_not_delete_stays_and_is_in_sync() {
    for version in ALERTING {
        expect_kept_folder(version, 403);
    }
}

#[test]
fn a_folder_with_hidden_content_stays_and_its_refused_deletion_comes_last() {
    for version in ALERTING {
        expect_kept_folder(version, 400);
        let it = Servers::start(version);
        it.run(&["up", "--alerts"]).expect(0);
        it.double.lock().unwrap().refuse_folder_deletion(400);
        it.run(&["down", "--deregister"]).expect(0);
        let double = it.double.lock().unwrap();
        let last = double.seen().iter().rfind(|seen| seen.method == "DELETE").unwrap();
        assert!(last.path.starts_with("/api/folders/"), "{version:?}: {last:?}");
    }
}

#[test]
fn rules_are_removed_although_their_folder_cannot_be_looked_into() {
    for version in ALERTING {
        for path in ["/api/folders", "/api/search", "/api/library-elements", RULES] {
            for words in [&["up", "--alerts=false"][..], &["down", "--deregister"]] {
                let it = Servers::start(version);
                it.run(&["up", "--alerts"]).expect(0);
                let places: Vec<String> =
                    rules(&it).iter().map(|rule| format!("{RULES}/{}", rule["uid"].as_str().unwrap())).collect();
                it.double.lock().unwrap().break_path(path, 403);
                it.run(words).expect(0);
                for place in places {
                    assert_eq!(it.ask("GET", &place, None).0, 404, "{version:?} {path}");
                }
            }
        }
    }
}

#[test]
fn the_folder_is_read_only_if_a_rule_is_to_be_saved() {
    for version in ALERTING {
        let it = Servers::start(version);
        it.run(&["up", "--alerts"]).expect(0);
        it.double.lock().unwrap().forget_seen();
        it.double.lock().unwrap().break_path("/api/folders", 403);
        assert!(it.run(&["up", "--alerts"]).expect(0).out.contains("nothing to do"), "{version:?}");
        assert!(it.double.lock().unwrap().seen().iter().all(|seen| !seen.path.contains("folders")), "{version:?}");
        it.run(&["up", "--alerts", "--alert-latency-after", "2m"]).expect(0);
        assert_eq!(titled(&it, "p99 above the objective")["for"], "2m", "{version:?}");
        // A new one needs the folder.
        let folder = titled(&it, "p99 above the objective")["folderUID"].as_str().unwrap().to_string();
        it.double.lock().unwrap().break_path(&format!("/api/folders/{folder}"), 403);
        let place = format!("{RULES}/{}", titled(&it, "a model has gone silent")["uid"].as_str().unwrap());
        it.ask("DELETE", &place, None);
        let up = it.run(&["up", "--alerts"]).expect(1);
        assert!(up.err.contains("list the folders"), "{version:?}: {}", up.err);
    }
}

#[test]
fn a_folder_that_the_rules_share_with_the_dashboard_is_created_once() {
    for version in ALERTING {
        let it = Servers::start(version);
        let up = it.run(&["up", "--alerts", "--grafana-folder", FOLDER]).expect(0);
        assert!(!up.err.contains("another process"), "{version:?}: {}", up.err);
        assert_eq!(rules(&it).len(), 2, "{version:?}");
        let double = it.double.lock().unwrap();
        let creations =
            double.seen().iter().filter(|seen| (seen.method.as_str(), seen.path.as_str()) == ("POST", "/api/folders"));
        assert_eq!(creations.count(), 1, "{version:?}");
    }
}

#[test]
fn the_removal_of_the_folder_alone_has_its_own_sentence() {
    let it = Servers::start(Version::V12);
    it.run(&["up", "--alerts"]).expect(0);
    for rule in rules(&it) {
        it.ask("DELETE", &format!("{RULES}/{}", rule["uid"].as_str().unwrap()), None);
    }
    it.ask("DELETE", "/api/dashboards/uid/clipper-metrics", None);
    it.ask("DELETE", "/api/datasources/uid/clipper-metrics", None);
    let down = it.run(&["down", "--deregister"]).expect(0);
    assert!(down.out.starts_with("removed the alert rules' folder from the Grafana"), "{}", down.out);
    assert!(folder(&it).is_none());
}

#[test]
fn rules_get_another_folder_after_a_user_renamed_the_first() {
    for version in ALERTING {
        let it = Servers::start(version);
        it.run(&["up", "--alerts"]).expect(0);
        let uid = folder(&it).unwrap()["uid"].clone();
        it.run(&["up", "--alerts=false"]).expect(0);
        let renamed = json!({"title": "Renamed", "uid": uid});
        assert_eq!(it.ask("POST", "/api/folders", Some(&renamed)).0, 200, "{version:?}");
        it.run(&["up", "--alerts"]).expect(0);
        let other = folder(&it).unwrap()["uid"].clone();
        assert_ne!(other, uid, "{version:?}");
        assert!(rules(&it).iter().all(|rule| rule["folderUID"] == other), "{version:?}");
        assert!(it.run(&["up", "--alerts"]).expect(0).out.contains("nothing to do"), "{version:?}");
        // Nothing shows that clipper-metrics created it.
        it.run(&["up", "--alerts=false"]).expect(0);
        assert!(rules(&it).is_empty() && folder(&it).is_some(), "{version:?}");
        assert!(it.run(&["up", "--alerts=false"]).expect(0).out.contains("nothing to do"), "{version:?}");
    }
}

#[test]
fn rules_of_other_owners_are_kept_and_reported() {
    for version in ALERTING {
        let it = Servers::start(version);
        it.run(&["up", "--alerts"]).expect(0);
        let mut theirs = titled(&it, "p99 above the objective");
        it.run(&["up", "--alerts=false"]).expect(0);
        let folder = json!({"title": FOLDER, "uid": "theirs"});
        assert_eq!(it.ask("POST", "/api/folders", Some(&folder)).0, 200, "{version:?}");
        (theirs["uid"], theirs["folderUID"], theirs["ruleGroup"]) = (json!("theirs"), json!("theirs"), json!("group"));
        theirs["annotations"] = json!({});
        assert_eq!(it.ask("POST", RULES, Some(&theirs)).0, 201, "{version:?}");
        let up = it.run(&["up", "--alerts"]).expect(1);
        assert!(up.err.contains("an alert rule called \"p99 above the objective\""), "{version:?}: {}", up.err);
        assert_eq!(rules(&it).len(), 1, "{version:?}");
        theirs["title"] = json!("their own");
        assert_eq!(it.ask("PUT", &format!("{RULES}/theirs"), Some(&theirs)).0, 200, "{version:?}");
        // The folder contains managed and other rules, so it stays when the managed ones are removed.
        it.run(&["up", "--alerts"]).expect(0);
        assert_eq!(rules(&it).len(), 3, "{version:?}");
        it.run(&["down", "--deregister"]).expect(0);
        assert_eq!(rules(&it).len(), 1, "{version:?}");
        assert_eq!(it.ask("GET", "/api/folders/theirs", None).0, 200, "{version:?}");
    }
}

#[test]
fn an_alert_names_its_models_in_every_version() {
    for version in ALERTING {
        let it = Servers::start(version);
        it.run(&["up", "--alerts"]).expect(0);
        let states = it.ask("GET", "/api/prometheus/grafana/api/v1/rules", None).1;
        let described = |title: &str| {
            let rules = states["data"]["groups"][0]["rules"].as_array().unwrap();
            let rule = rules.iter().find(|rule| rule["name"] == title);
            // A template that was never evaluated has no example: record one after every change.
            let rule = rule.unwrap_or_else(|| panic!("{version:?}: {title:?} was not evaluated: {states}"));
            rule["alerts"][0]["annotations"]["description"].clone()
        };
        assert_eq!(described("p99 above the objective"), "busy (1500 ms), spark-svm (1500 ms)", "{version:?}");
        assert_eq!(described("a model has gone silent"), "spark-svm, busy", "{version:?}");
    }
}

#[test]
fn the_silence_rule_selects_models_that_reported_within_a_day_and_have_stopped() {
    let it = Servers::start(Version::V12);
    it.run(&["up", "--alerts", "--alert-silence-after", "90s"]).expect(0);
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
    let report = |model: &str, seconds_ago: i64| {
        format!("{model}_prediction_counter value=7 {}\n", now - seconds_ago * 1_000_000_000)
    };
    let mut lines: String =
        (0..40).map(|turn| report("busy", 15 * turn) + &report("stopped", 100 + 15 * turn)).collect();
    for (model, seconds_ago) in [("new", 5), ("late", 80), ("yesterday", 86_000), ("retired", 90_000)] {
        lines += &report(model, seconds_ago);
    }
    // Its clock was ahead, was corrected, and then it stopped.
    lines += &(report("ahead", 200) + &report("ahead", -3_600));
    it.influxd.write("clipper", &lines);
    let rule = titled(&it, "a model has gone silent");
    let answer = it.influxd.query("clipper", rule["data"][0]["model"]["query"].as_str().unwrap());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let reports = |model: &str| {
        let series = answer["results"][0]["series"].as_array().unwrap();
        let one = series.iter().find(|one| one["name"] == format!("{model}_prediction_counter"));
        one.and_then(|one| one["values"][0][1].as_i64())
    };
    let found = ["busy", "new", "late", "stopped", "ahead", "yesterday", "retired"].map(reports);
    assert_eq!(found, [Some(6), Some(1), Some(1), Some(0), Some(0), Some(0), None], "{answer}");
    assert_eq!(rule["data"][1]["model"]["conditions"][0]["evaluator"], json!({"type": "lt", "params": [1]}));
}

#[test]
fn an_alert_links_to_each_of_its_models() {
    let it = Servers::start(Version::V12);
    it.run(&["up", "--alerts"]).expect(0);
    for title in ["p99 above the objective", "a model has gone silent"] {
        let links = titled(&it, title)["annotations"]["links"].as_str().unwrap().to_string();
        // The search for a whole measurement selects exactly its model, however many the dashboard lists.
        let link =
            "{{ externalURL }}d/clipper-metrics?var-search={{ $model }}_prediction_counter&var-model={{ $model }}";
        assert!(links.contains(link), "{links}");
    }
}

#[test]
fn the_addresses_in_an_alert_name_another_organisation() {
    let it = Servers::start(Version::V12);
    let up = it.run(&["up", "--alerts"]).expect(0);
    assert!(up.out.contains("/alerting/notifications") && !up.out.contains("orgId"), "{}", up.out);
    let links = || {
        let own = rules(&it).into_iter().map(|rule| rule["annotations"]["links"].as_str().unwrap().to_string());
        own.collect::<Vec<_>>()
    };
    assert!(links().iter().all(|links| !links.contains("orgId")));
    let organisation = it.ask("POST", "/api/orgs", Some(&json!({"name": "Team"}))).1["orgId"].as_u64().unwrap();
    let up = it.run(&["up", "--alerts", "--grafana-org", "Team"]).expect(0);
    assert!(up.out.contains(&format!("/alerting/notifications?orgId={organisation}")), "{}", up.out);
    assert_eq!(it.ask("POST", &format!("/api/user/using/{organisation}"), None).0, 200);
    let found = links();
    assert_eq!(found.len(), 2);
    for links in found {
        let address = format!("d/clipper-metrics?orgId={organisation}");
        // For each of a few models in two forms, and for many models.
        let numbers = [address.as_str(), &format!("{address}&var-search=")].map(|part| links.matches(part).count());
        assert_eq!(numbers, [3, 2], "{links}");
        assert_eq!(links.matches("d/clipper-metrics").count(), 3, "{links}");
    }
}

#[test]
fn with_a_token_the_addresses_name_the_specified_organisation() {
    let it = Servers::start(Version::V12);
    let organisation = it.ask("POST", "/api/orgs", Some(&json!({"name": "Team"}))).1["orgId"].as_u64().unwrap();
    it.ask("POST", "/api/serviceaccounts", Some(&json!({"name": "x", "role": "Admin"})));
    it.ask("POST", "/api/serviceaccounts/3/tokens", Some(&json!({"name": "x"})));
    it.double.lock().unwrap().give_token_to(organisation);
    let up = it.command(&["up", "--alerts", "--grafana-org", "Team"]).env("CLIPPER_METRICS_GRAFANA_TOKEN", TOKEN);
    let up = up.run().expect(0);
    assert!(up.out.contains(&format!("/alerting/notifications?orgId={organisation}")), "{}", up.out);
    assert_eq!(it.ask("POST", &format!("/api/user/using/{organisation}"), None).0, 200);
    let address = format!("d/clipper-metrics?orgId={organisation}");
    assert!(rules(&it).iter().all(|rule| rule["annotations"]["links"].as_str().unwrap().contains(&address)));
    assert_eq!(rules(&it).len(), 2);
}

#[test]
fn a_grafana_without_the_api_is_reported_in_one_sentence() {
    let it = Servers::start(Version::V7);
    let up = it.run(&["up", "--alerts"]).expect(1);
    assert!(up.err.contains("no API for alert rules") && up.err.contains("--alerts=false"), "{}", up.err);
    assert_eq!(it.ask("GET", "/api/dashboards/uid/clipper-metrics", None).0, 404, "nothing was touched");
    it.run(&["up", "--alerts=false"]).expect(0);
    it.run(&["down", "--deregister"]).expect(0);
}
