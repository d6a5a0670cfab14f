//! up, status and down: the main task, without repetition.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::instance::{Instance, SOON, docker};
use crate::support::eventually;
use crate::support::registry;
use crate::support::run::{Run, ran};

#[test]
fn on_an_empty_engine_everything_is_started_configured_and_verified() {
    let it = Instance::new("empty");
    let before = it.run(&["status", "--output", "json"]).expect(3).json();
    assert_eq!(before["influxdb"]["state"], "absent");
    assert_eq!(before["in_sync"], false);

    let up = it.first_up(&["--database", "clipper-test", "--output", "json"]).expect(0).json();
    assert_eq!(up["in_sync"], true);
    let actions: Vec<&str> =
        up["steps"].as_array().unwrap().iter().filter_map(|step| step["action"].as_str()).collect();
    assert!(actions.contains(&"create_database") && actions.contains(&"await_query"), "{actions:?}");
    assert!(up["steps"][0]["seconds"].is_number() && up["steps"][0]["reason"] == "missing");

    assert!(it.query("", "SHOW DATABASES").contains("[\"clipper-test\"]"));
    let (_, source) = it.grafana("GET", &format!("/api/datasources/uid/{}", it.name), None);
    assert_eq!(source["url"], "http://influxdb:8086");
    assert_eq!(source["isDefault"], true);
    assert_eq!(source["jsonData"]["dbName"], "clipper-test");
    let (code, dashboard) = it.grafana("GET", &format!("/api/dashboards/uid/{}", it.name), None);
    assert_eq!(code, 200);
    assert_eq!(dashboard["meta"]["version"], 1);
    assert!(it.is_home());
    let state = it.run(&["status", "--output", "json"]).expect(0).json();
    assert_eq!(state["grafana"]["state"], "answering");
    assert_eq!(state["data_source"]["query"], "ok");
    assert_eq!(state["schema"], 1);
}

#[test]
fn a_second_up_changes_nothing_and_says_so() {
    let it = Instance::new("again");
    it.first_up(&[]).expect(0);
    let ids = [it.id("influxdb"), it.id("grafana")];
    let again = it.run(&["up"]).expect(0);
    assert!(again.out.contains("nothing to do"), "{}", again.out);
    assert_eq!(again.err, "");
    assert_eq!(ids, [it.id("influxdb"), it.id("grafana")]);
    let (_, dashboard) = it.grafana("GET", &format!("/api/dashboards/uid/{}", it.name), None);
    assert_eq!(dashboard["meta"]["version"], 1);
    let json = it.run(&["up", "--output", "json"]).expect(0).json();
    assert_eq!(json["steps"], Value::Array(vec![]));
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let it = Instance::new("dry");
    let since = docker(&["info", "--format", "{{.SystemTime}}"]).unwrap();
    let words = it.first(&["--dry-run"]);
    let plan = it.run(&words).expect(3);
    assert!(plan.out.contains("create InfluxDB's container (missing)"), "{}", plan.out);
    let until = docker(&["info", "--format", "{{.SystemTime}}"]).unwrap();
    let format = "{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}";
    let events = docker(&["events", "--since", &since, "--until", &until, "--format", format]).unwrap();
    assert!(!events.contains(&it.name), "{events}");
    it.first_up(&[]).expect(0);
    let plan = it.run(&["down", "--dry-run"]).expect(3);
    assert!(plan.out.contains("remove Grafana's container") && !plan.out.contains("volume"), "{}", plan.out);
    let plan = it.run(&["down", "--volumes", "--dry-run"]).expect(3);
    assert!(plan.out.contains("delete InfluxDB's volume") && plan.out.contains("delete the settings"), "{}", plan.out);
    it.assert_whole();
    it.run(&["up", "--dry-run"]).expect(0);
    let plan = it.run(&["up", "--dry-run", "--database", "other"]).expect(3);
    assert!(plan.out.contains("-> other"), "{}", plan.out);
}

#[test]
fn down_keeps_the_data_and_down_with_volumes_does_not() {
    let it = Instance::new("down");
    it.first_up(&["--database", "kept"]).expect(0);
    crate::support::influxd::write(&it.influxdb(), "kept", "m1_prediction_counter value=7");
    it.grafana(
        "PUT",
        "/api/user/password",
        Some(r#"{"oldPassword":"admin","newPassword":"of-my-own","confirmNew":"of-my-own"}"#),
    );

    let down = it.run(&["down"]).expect(0);
    assert!(down.out.contains(&it.container("influxdb")), "it names the volumes: {}", down.out);
    assert!(it.id("influxdb").is_empty() && it.id("grafana").is_empty());
    assert!(docker(&["network", "inspect", &it.name]).is_err());
    assert!(docker(&["volume", "inspect", &it.container("influxdb")]).is_ok());
    it.run(&["down"]).expect(0);

    // The password was changed in Grafana: the known one is rejected, and the error says so.
    let words = it.first(&["--database", "kept"]);
    let refused = it.run(&words).expect(1);
    assert!(refused.err.contains("--grafana-password-file"), "{}", refused.err);
    let up = it.command(&["up"]).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "of-my-own").run();
    up.expect(0);
    assert!(it.query("kept", "SELECT value FROM m1_prediction_counter").contains(",7]"));
    // From now on it is stored.
    it.run(&["status"]).expect(0);

    let asked = it.run(&["down", "--volumes"]).expect(2);
    assert!(asked.err.contains("--yes"), "{}", asked.err);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    assert!(docker(&["volume", "inspect", &it.container("influxdb")]).is_err());
    it.run(&["down", "--volumes", "--yes"]).expect(0);
}

#[test]
fn a_name_without_an_instance_is_named_instead_of_a_stopped_server() {
    let it = Instance::new("typo");
    it.first_up(&[]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let name = format!("{}-typo", it.name);
    for (words, code) in [
        (&["backup", file.to_str().unwrap()][..], 1),
        (&["demo"], 1),
        (&["demo", "--clear"], 1),
        (&["logs"], 1),
        (&["doctor"], 3),
    ] {
        let ran = Run::new([words, &["--name", &name]].concat()).run().expect(code);
        let told = format!("{}{}", ran.out, ran.err);
        assert!(told.contains(&format!("no instance called {name} exists on this engine")), "{words:?}: {told}");
        assert!(told.contains(&it.name) && told.contains("(choose one with --name"), "{words:?}: {told}");
        assert!(!told.contains("is not running") && !told.contains("starts it"), "{words:?}: {told}");
    }
    assert!(!file.exists());
}

#[test]
fn a_deleted_volume_is_named_before_it_is_created_anew() {
    let it = Instance::new("lost-volume");
    let up = it.first_up(&[]).expect(0);
    assert!(!up.err.contains("does not exist"), "{}", up.err);
    for (role, other, data) in [("influxdb", "grafana", "metrics"), ("grafana", "influxdb", "users and dashboards")] {
        it.run(&["down"]).expect(0);
        docker(&["volume", "rm", &it.container(role)]).unwrap();
        let lost = format!(
            "volume {} does not exist, although volume {} does: `up` creates it anew, without earlier {data}",
            it.container(role),
            it.container(other)
        );
        let status = it.run(&["status"]).expect(3);
        assert!(status.out.contains(&format!("hint: {lost}")), "{}", status.out);
        let preview = it.run(&["up", "--dry-run"]).expect(3);
        assert_eq!(format!("{}{}", preview.out, preview.err).matches(&lost).count(), 1, "{preview:?}");
        let up = it.run(&["up"]).expect(0);
        assert_eq!(up.err.matches(&format!("warning: {lost}")).count(), 1, "{}", up.err);
    }
    let up = it.run(&["up"]).expect(0);
    assert!(!up.err.contains("does not exist"), "{}", up.err);
}

#[test]
fn a_command_without_options_refers_to_the_same_stack() {
    let it = Instance::new("bare");
    it.first_up(&["--database", "remembered"]).expect(0);
    let state = it.run(&["status", "--output", "json"]).expect(0).json();
    assert_eq!(state["database"]["name"], "remembered");
    let id = it.id("grafana");
    it.run(&["up"]).expect(0);
    assert_eq!(id, it.id("grafana"));
    // Another option is a difference, and `up` with it replaces only the affected object.
    let differs = it.run(&["status", "--database", "other", "--output", "json"]).expect(3).json();
    assert_eq!(differs["data_source"]["differences"][0]["have"], "remembered");
    let ids = [it.id("influxdb"), it.id("grafana")];
    it.run(&["up", "--database", "other"]).expect(0);
    assert_eq!(ids, [it.id("influxdb"), it.id("grafana")], "what acts inside the servers replaces none");
    assert_eq!(it.status()["database"]["name"], "other");
}

#[test]
fn clippers_file_is_used_and_its_reports_are_read_through_grafana() {
    let it = Instance::new("file");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    let file = format!(
        "name = \"clipper-test\"\nslo_micros = 10000\ninflux_dbname = \"it's a größe test\"\ninflux_ip = \"localhost\"\n\
         influx_port = {}\n\n[[models]]\nname = \"m1\"\naddresses = []\nnum_outputs = 1\n\n[metrics]\nname = \"{}\"\n\
         grafana_port = {}\nregistry = \"{}\"\n",
        it.influxdb_port,
        it.name,
        it.grafana_port,
        registry::address()
    );
    std::fs::write(&path, file).unwrap();
    let mut words = vec!["up", "--config", path.to_str().unwrap()];
    let image = std::env::var("CLIPPER_METRICS_TEST_GRAFANA_IMAGE").unwrap_or_default();
    if !image.is_empty() {
        words.extend(["--grafana-image", &image]);
    }
    let up = Run::new(&words).run().expect(0);
    assert!(!up.out.contains("must contain"), "the file agrees: {}", up.out);
    // A host name is published at one address only.
    let published = &it.inspect("influxdb")["NetworkSettings"]["Ports"]["8086/tcp"];
    assert_eq!(published.as_array().unwrap().len(), 1);
    assert_eq!(published[0]["HostIp"], "127.0.0.1");

    // Exactly the reports of Clipper.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let report = format!(
        "m1_prediction_counter value=120 {now}\nm1_model_thruput,units=events-per-second \
         rate=8.0,one_min=7.9,five_min=7.2,fifteen_min=6.4 {now}\nm1_model_latency \
         size=120,min=310,max=9120,mean=1032.4,std=400.2,p95=2000,p99=4100,p50=900 {now}\n"
    );
    let database = "it's-a-größe-test";
    crate::support::influxd::write(&it.influxdb(), database, &report);
    let answer = it.ask_through_grafana(database, "SELECT \"p99\" FROM \"m1_model_latency\"");
    assert!(answer.to_string().contains("4100"), "{answer}");

    let state = it.status();
    assert_eq!(state["clipper"]["reporting"], true);
    assert_eq!(state["clipper"]["models"][0]["name"], "m1");
    assert_eq!(state["clipper"]["models"][0]["predictions_per_second"], 8.0);
    assert_eq!(state["clipper"]["models"][0]["above_objective"], false);
    assert_eq!(state["dashboard"]["objective_micros"], 10000);
    // Later, without the file: the same stack, including the objective.
    it.run(&["up"]).expect(0);
    assert_eq!(it.status()["dashboard"]["objective_micros"], 10000);
}

#[test]
fn with_pull_always_a_changed_image_replaces_the_container() {
    let it = Instance::with_grafana("always", "grafana/grafana:12.4.10");
    it.first_up(&[]).expect(0);
    let plan = it.run(&["up", "--pull", "always", "--dry-run"]).expect(3);
    assert!(plan.out.contains("pull InfluxDB's image (--pull always)"), "{}", plan.out);
    let id = it.id("influxdb");
    let words = it.first(&["--pull", "always"]);
    let again = it.run(&words).expect(0);
    assert!(again.err.contains("pull InfluxDB's image: done"), "{}", again.err);
    assert_eq!(id, it.id("influxdb"), "the same image, the same container");
    // The name belongs to another image here than in the registry, and no other test uses it.
    let registry = registry::address();
    let (name, other) = (format!("{registry}/alias/influxdb:1.12.4"), format!("{registry}/odd:silent"));
    docker(&["pull", &other]).unwrap();
    docker(&["tag", &other, &name]).unwrap();
    it.run(&["up", "--influxdb-image", &name, "--pull", "always"]).expect(0);
    assert_ne!(it.inspect("influxdb")["Image"], docker(&["inspect", "--format", "{{.Id}}", &other]).unwrap());
    it.assert_whole();
    it.run(&["down"]).expect(0);
    docker(&["rmi", &name]).unwrap();
}

#[test]
fn two_instances_run_side_by_side_and_list_each_other() {
    let (one, other) = (Instance::new("one"), Instance::new("other"));
    one.first_up(&[]).expect(0);
    other.first_up(&[]).expect(0);
    one.run(&["down"]).expect(0);
    let state = one.run(&["status"]).expect(3);
    assert!(state.out.contains(&other.name), "{}", state.out);
    other.assert_whole();
}

#[test]
fn the_log_of_each_server_is_shown() {
    let it = Instance::new("logs");
    let absent = it.run(&["logs"]).expect(1);
    assert!(absent.err.contains("no instance called") && absent.err.contains("clipper-metrics up"), "{}", absent.err);
    it.first_up(&[]).expect(0);
    let both = it.run(&["logs", "--tail", "5"]).expect(0);
    assert!(both.out.contains("influxdb | ") && both.out.contains("grafana  | "), "{}", both.out);
    let one = it.run(&["logs", "influxdb", "--since", "1h"]).expect(0);
    assert!(one.out.contains("InfluxDB starting"), "{}", one.out);
    let run = it.command(&["logs", "-f", "influxdb"]);
    let mut follower = run.command().stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().is_some(), "what was there comes first");
    it.query("", "SHOW DATABASES");
    assert!(lines.any(|line| line.contains("SHOW DATABASES") || line.contains("/query")), "following continues");
    interrupt(follower.id());
    assert_eq!(follower.wait().unwrap().code(), Some(0), "Ctrl-C is the normal end");
    // A reader that closes ends it as well, even if nothing more is logged.
    let run = it.command(&["logs", "-f", "grafana"]);
    let mut follower = run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().is_some());
    drop(lines);
    eventually("it ends", SOON, || follower.try_wait().unwrap().is_some());
    let ran = ran(&follower.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn a_followed_log_continues_after_its_container_was_restarted_or_replaced() {
    let it = Instance::new("follow");
    it.first_up(&[]).expect(0);
    let run = it.command(&["logs", "-f", "grafana"]);
    let mut follower = run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap();
    docker(&["restart", "--time", "2", &it.container("grafana")]).unwrap();
    assert!(lines.any(|line| line == first), "the first line of the next start");
    for _ in 0..2 {
        docker(&["restart", "--time", "0", &it.container("grafana")]).unwrap();
    }
    assert!(lines.any(|line| line == first), "the first line of a short run");
    assert!(lines.any(|line| line == first), "the first line of the run after it");
    docker(&["rm", "--force", &it.container("grafana")]).unwrap();
    it.run(&["up"]).expect(0);
    assert!(lines.any(|line| line == first), "the first line of the next container");
    interrupt(follower.id());
    let ran = ran(&follower.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.err);
}

/// The signal of Ctrl-C.
pub(crate) fn interrupt(process: u32) {
    let status = std::process::Command::new("kill").args(["-INT", &process.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_shorter_retention_needs_confirmation_in_every_state() {
    let it = Instance::new("retention");
    // A new database is created with the period, without confirmation.
    it.first_up(&["--database", "d", "--retention", "90d"]).expect(0);
    let kept = || it.query("", "SHOW RETENTION POLICIES ON d");
    assert!(kept().contains("2160h0m0s"), "{}", kept());
    // An unreadable period is read first.
    it.run(&["down"]).expect(0);
    let refused = it.run(&["up", "--retention", "1h"]).expect(2);
    assert!(
        refused.err.contains("retention period of database d (90d)") && refused.err.contains("--yes"),
        "{}",
        refused.err
    );
    // A refusal is not remembered: unattended runs continue as before.
    it.run(&["up"]).expect(0);
    assert!(kept().contains("2160h0m0s"), "{}", kept());
    it.run(&["up", "--retention", "1h", "--yes"]).expect(0);
    assert!(kept().contains("1h0m0s"), "{}", kept());
    // Longer than the remembered period, but shorter than the one set by hand in InfluxDB.
    it.query("", "ALTER RETENTION POLICY autogen ON d DURATION INF");
    it.run(&["down"]).expect(0);
    let refused = it.run(&["up", "--retention", "2d"]).expect(2);
    assert!(refused.err.contains("(for ever)"), "{}", refused.err);
    let names = super::instance::settings_volumes(&it.name);
    let label = docker(&["volume", "inspect", "--format", "{{json .Labels}}", &names[0]]).unwrap();
    assert!(label.contains("1h") && !label.contains("2d"), "{label}");
}

#[test]
fn every_instance_is_listed_without_contacting_its_servers() {
    let (one, other) = (Instance::new("all-one"), Instance::new("all-other"));
    one.first_up(&[]).expect(0);
    // A Grafana that never answers does not delay this.
    let silent = format!("{}/odd:silent", registry::address());
    other.first_up(&["--timeout", "10s", "--grafana-image", &silent]).expect(1);
    let list = || {
        let ran = one.run(&["status", "--all", "--output", "json"]).expect(0).json();
        ran["instances"].as_array().unwrap().clone()
    };
    let of = |name: &str| list().into_iter().find(|instance| instance["name"] == name).unwrap();
    assert_eq!(of(&one.name)["state"], "running");
    assert_eq!(of(&one.name)["influxdb"]["url"], one.influxdb());
    assert_eq!(of(&other.name)["grafana"]["state"], "running");
    docker(&["stop", &one.container("grafana")]).unwrap();
    assert_eq!(of(&one.name)["state"], "partly_running");
    one.run(&["down"]).expect(0);
    let down = of(&one.name);
    assert_eq!((&down["state"], down["volumes"].as_array().unwrap().len()), (&Value::from("down"), 2), "{down}");
    let people = one.run(&["status", "--all"]).expect(0).out;
    assert!(people.starts_with("NAME") && people.contains(&one.name) && people.contains(&other.name), "{people}");
    one.run(&["down", "--volumes", "--yes"]).expect(0);
    assert!(!list().iter().any(|instance| instance["name"] == one.name.as_str()), "it is gone");
}

#[test]
fn a_port_that_is_taken_leads_to_a_suggestion_of_a_free_one() {
    let (one, other) = (Instance::new("port-one"), Instance::new("port-other"));
    one.first_up(&[]).expect(0);
    let taken = one.grafana_port.to_string();
    let words = other.first(&["--grafana-port", &taken]);
    let ran = other.run(&words).expect(1);
    assert!(ran.err.contains(&format!("container {} holds that port", one.container("grafana"))), "{}", ran.err);
    // The suggested command works as pasted.
    let command = ran.err.split('`').find(|word| word.starts_with("clipper-metrics up --grafana-port")).unwrap();
    let pasted: Vec<&str> =
        command.split_whitespace().skip(1).filter(|word| *word != "--name" && *word != other.name).collect();
    other.run(&pasted).expect(0);
}
