//! `doctor` on an engine: stopped servers, a Clipper in a container, and an edited dashboard, with
//! every Grafana used by the tests.

use std::time::Duration;

use serde_json::{Value, json};

use super::instance::{Instance, Removed, SOON, docker};
use crate::support::{eventually, influxd, registry};

fn now() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
}

/// Writes a report of m1 with the current time.
fn report(it: &Instance) {
    let at = now();
    let lines = format!(
        "m1_prediction_counter value=1 {at}\nm1_model_thruput,units=events-per-second \
         rate=1,one_min=1,five_min=1,fifteen_min=1 {at}\nm1_model_latency \
         size=1,min=1,max=1,mean=1,std=0,p95=1,p99=1,p50=1 {at}\n"
    );
    influxd::write(&it.influxdb(), "d", &lines);
}

fn first_failure(it: &Instance, more: &[&str]) -> Value {
    let words: Vec<&str> = ["doctor", "--output", "json"].iter().chain(more).copied().collect();
    it.run(&words).expect(3).json()["culprit"].clone()
}

#[test]
fn a_complete_stack_passes_and_a_stopped_or_missing_server_is_reported() {
    let it = Instance::new("doctor");
    it.first_up(&["--database", "d"]).expect(0);
    report(&it);
    let well = it.run(&["doctor"]).expect(0);
    assert!(well.out.starts_with("no failures: 21 of 21 panels answer\n"), "{}", well.out);
    assert!(!it.query("d", "SHOW MEASUREMENTS").contains("clipper_metrics_probe"));
    for (server, title) in [("grafana", "Grafana"), ("influxdb", "InfluxDB")] {
        docker(&["stop", &it.container(server)]).unwrap();
        let stopped = first_failure(&it, &[]);
        assert_eq!(stopped["check"], server, "{stopped}");
        let message = stopped["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{title} is ")), "{message}");
        assert!(stopped["hint"].as_str().unwrap().contains("clipper-metrics up"), "{stopped}");
    }
    docker(&["start", &it.container("grafana")]).unwrap();
    eventually("Grafana answers", SOON, || it.status()["grafana"]["state"] == "answering");
    // A data source that leads nowhere is not queried.
    let looked = it.run(&["status", "-v"]).expect(3);
    let asks = |path: &str| looked.err.contains(path);
    assert!(asks("/api/datasources") && !asks("/api/ds/query") && !asks("/proxy/"), "{}", looked.err);
    // `doctor` reports it for the query, not for each panel.
    let checks = it.run(&["doctor", "--output", "json"]).expect(3).json()["checks"].clone();
    let checks = checks.as_array().unwrap();
    assert!(checks.iter().all(|check| check["check"] != "panel" && check["check"] != "variable"), "{checks:?}");
    let told = checks.iter().filter(|check| check["message"].as_str().unwrap().contains("InfluxDB is not running"));
    let states: Vec<_> = told.map(|check| check["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["failed", "skipped"], "{checks:?}");
    // It also fails if Clipper's file names another InfluxDB that answers.
    let other = influxd::Influxd::start();
    other.query("", "CREATE DATABASE d");
    let port = other.url().rsplit(':').next().unwrap().to_string();
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), format!("influx_dbname = \"d\"\ninflux_ip = \"127.0.0.1\"\ninflux_port = {port}\n"))
        .unwrap();
    let hidden = first_failure(&it, &["--config", file.path().to_str().unwrap()]);
    assert_eq!(hidden["check"], "query", "{hidden}");
    it.run(&["down"]).expect(0);
    assert_eq!(first_failure(&it, &[])["check"], "influxdb");
}

#[test]
fn an_edit_that_breaks_the_dashboard_is_found_with_every_grafana() {
    let it = Instance::new("doctor-edit");
    it.first_up(&["--database", "d"]).expect(0);
    report(&it);
    let path = format!("/api/dashboards/uid/{}", it.name);
    let (_, present) = it.grafana("GET", &path, None);
    let mut dashboard = present["dashboard"].clone();
    let broken = dashboard["panels"][3]["title"].as_str().unwrap().to_string();
    let query = dashboard["panels"][3]["targets"][0]["query"].as_str().unwrap().replace("\"value\"", "\"valeu\"");
    dashboard["panels"][3]["targets"][0]["query"] = json!(query);
    let save = json!({"dashboard": dashboard, "overwrite": true}).to_string();
    assert_eq!(it.grafana("POST", "/api/dashboards/db", Some(&save)).0, 200);
    let document = it.run(&["doctor", "--output", "json"]).expect(3).json();
    assert_eq!(document["culprit"]["check"], "panel", "{document}");
    assert_eq!(document["culprit"]["object"], broken.as_str(), "{document}");
    assert_eq!(document["panels"], json!({"answering": 20, "total": 21}), "{document}");
    it.grafana("DELETE", &path, None);
    assert_eq!(first_failure(&it, &[])["check"], "dashboard");
}

#[test]
fn from_inside_a_container_127_0_0_1_is_the_container_itself() {
    let it = Instance::new("doctor-from");
    it.first_up(&["--database", "d"]).expect(0);
    report(&it);
    let clipper = format!("{}-clipper", it.name);
    let _removed = Removed(clipper.clone());
    let image = format!("{}/influxdb:1.12.4", registry::address());
    docker(&["run", "--detach", "--name", &clipper, "--entrypoint", "sleep", &image, "600"]).unwrap();
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let config = file.path().to_str().unwrap();
    let write = |host: &str, port: u16| {
        let text = format!("influx_dbname = \"d\"\ninflux_ip = \"{host}\"\ninflux_port = {port}\n");
        std::fs::write(file.path(), text).unwrap();
    };
    write("127.0.0.1", it.influxdb_port);
    // On the engine's host that address is right, but not in the container.
    it.run(&["doctor", "--config", config]).expect(0);
    let inside = first_failure(&it, &["--config", config, "--from", &clipper]);
    assert_eq!(inside["check"], "influxdb", "{inside}");
    let message = inside["message"].as_str().unwrap();
    assert!(message.contains("connection refused") && message.contains("the container itself"), "{message}");
    let remedy = format!("docker network connect {} {clipper}", it.name);
    assert!(inside["hint"].as_str().unwrap().contains(&remedy), "{inside}");
    // The suggestion in the hint helps.
    docker(&["network", "connect", &it.name, &clipper]).unwrap();
    // On a network of netavark 1.4, Grafana can miss the gateway's new address for a while.
    eventually("Grafana reaches InfluxDB", Duration::from_secs(100), || it.status()["data_source"]["query"] == "ok");
    report(&it);
    write(&it.container("influxdb"), 8086);
    let ran = it.run(&["doctor", "--config", config, "--from", &clipper]).expect(0);
    // This machine cannot resolve the container's name, but reaches the same InfluxDB.
    let outside = it.run(&["doctor", "--config", config]).expect(0);
    let both =
        format!("{}:8086, which this machine reaches at 127.0.0.1:{}", it.container("influxdb"), it.influxdb_port);
    assert!(outside.out.contains(&both), "{}", outside.out);
    // That file publishes nothing again, and without a file the host name is used.
    let up = it.run(&["up", "--config", config]).expect(0);
    assert!(up.out.contains(&it.influxdb()) && !up.out.contains("must contain"), "{}", up.out);
    report(&it);
    it.run(&["doctor", "--from", &clipper]).expect(0);
    assert!(
        ran.out.contains(&format!("{}:8086, seen from container {clipper}", it.container("influxdb"))),
        "{}",
        ran.out
    );
    // Nothing is left behind, and a missing container is an error.
    let all = docker(&["ps", "--all", "--format", "{{.Names}}"]).unwrap();
    assert!(!all.contains(&format!("{}-doctor", it.name)), "{all}");
    assert!(!it.query("d", "SHOW MEASUREMENTS").contains("clipper_metrics_probe"));
    docker(&["stop", "--time", "0", &clipper]).unwrap();
    let stopped = it.run(&["doctor", "--from", &clipper]).expect(1);
    assert!(stopped.err.contains("does not run") && stopped.err.contains("docker ps"), "{}", stopped.err);
    docker(&["rm", "--force", &clipper]).unwrap();
    it.run(&["doctor", "--from", &clipper]).expect(1);
    // An image without bash is not a failure.
    let bare = format!("{}/odd:silent", registry::address());
    docker(&["pull", &bare]).unwrap();
    docker(&["run", "--detach", "--name", &clipper, &bare]).unwrap();
    let itself = it.run(&["doctor", "--from", &clipper, "--output", "json"]).expect(3).json();
    assert_eq!(itself["culprit"]["check"], "influxdb", "it is not attached to the network: {itself}");
}
