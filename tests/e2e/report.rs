//! Whether Clipper reports, the demo, and the dashboard's queries with a real InfluxDB.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::instance::{Instance, SOON};
use super::lifecycle::interrupt;
use crate::support::{eventually, influxd};

fn nanos_ago(seconds: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    i64::try_from(now).unwrap() - seconds * 1_000_000_000
}

/// One report of a model, as Clipper sends it.
fn report(model: &str, seconds_ago: i64, p99: u32) -> String {
    let at = nanos_ago(seconds_ago);
    format!(
        "{model}_prediction_counter value=120 {at}\n{model}_model_thruput,units=events-per-second \
         rate=8,one_min=7,five_min=7,fifteen_min=6 {at}\n{model}_model_latency \
         size=120,min=310,max=9120,mean=1032.4,std=400.2,p95=2000,p99={p99},p50=900 {at}\n"
    )
}

#[test]
fn status_shows_reporting_models_and_explains_missing_reports() {
    let it = Instance::new("reports");
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let models = ["m1", "slow one", "silent", "a,b"].map(|name| format!("[[models]]\nname = \"{name}\"\n")).concat();
    let text = format!("slo_micros = 5000\ninflux_dbname = \"d\"\ninflux_port = {}\n{models}", it.influxdb_port);
    std::fs::write(file.path(), text).unwrap();
    let config = file.path().to_str().unwrap().to_string();
    it.first_up(&["--config", &config]).expect(0);
    let hints = |state: &Value| state["hints"].to_string();

    let empty = it.run(&["status", "--output", "json"]).expect(0).json();
    assert_eq!((&empty["clipper"]["reporting"], &empty["clipper"]["last_report"]), (&Value::Bool(false), &Value::Null));
    assert!(hints(&empty).contains("nothing has arrived"), "{}", hints(&empty));

    // Another database contains the reports meant for this one.
    it.query("", "CREATE DATABASE elsewhere");
    influxd::write(&it.influxdb(), "elsewhere", &report("m1", 1, 4000));
    let elsewhere = it.status();
    assert!(hints(&elsewhere).contains("elsewhere"), "{}", hints(&elsewhere));

    // Reports arrive: one model is fine, one is above its objective, one is named in the file but silent.
    influxd::write(&it.influxdb(), "d", &format!("{}{}", report("m1", 2, 4000), report("slow_one", 3, 9000)));
    let told = it.status();
    assert_eq!(told["clipper"]["reporting"], true);
    let model = |state: &Value, name: &str| {
        let models = state["clipper"]["models"].as_array().unwrap().clone();
        models.into_iter().find(|model| model["name"] == name).unwrap_or_else(|| panic!("{name}: {state}"))
    };
    assert_eq!(model(&told, "m1")["above_objective"], false);
    assert_eq!(model(&told, "m1")["predictions_per_second"], 8.0);
    assert_eq!(model(&told, "slow_one")["above_objective"], true);
    assert!(hints(&told).contains("never reported: silent"), "{}", hints(&told));
    assert!(hints(&told).contains("comma"), "{}", hints(&told));
    assert!(told["clipper"]["last_report"].as_str().unwrap().ends_with('Z'));

    // Zeros are not latencies.
    let at = nanos_ago(0);
    influxd::write(&it.influxdb(), "d", &format!("m1_model_latency size=0,p99=0 {at}"));
    assert_eq!(model(&it.status(), "m1")["p99_micros"], 4000.0);

    // Silent models, and points from the future.
    it.query("d", "DROP SERIES FROM /.*/");
    influxd::write(&it.influxdb(), "d", &report("m1", 7200, 4000));
    let old = it.status();
    assert_eq!(old["clipper"]["reporting"], false);
    assert_eq!(model(&old, "m1")["predictions_per_second"], Value::Null);
    assert!(hints(&old).contains("old: check that Clipper runs"), "{}", hints(&old));
    influxd::write(&it.influxdb(), "d", &report("m1", -3600, 4000));
    assert!(hints(&it.status()).contains("in the future"));

    // Clipper's file names another address than the actual one.
    std::fs::write(file.path(), "influx_dbname = \"d\"\ninflux_port = 1\n").unwrap();
    let port = it.influxdb_port.to_string();
    let other = it.run(&["status", "--config", &config, "--influxdb-port", &port, "--output", "json"]).json();
    assert!(hints(&other).contains("Clipper's file names 127.0.0.1:1"), "{}", hints(&other));
}

#[test]
fn demo_data_is_shown_separately_never_mixed_and_removed_completely() {
    let it = Instance::new("demo");
    it.first_up(&["--database", "d"]).expect(0);
    let sent = it.run(&["demo", "--backfill", "1h", "--models", "m1,big one", "--output", "json"]).expect(0).json();
    assert!(sent["points"].as_f64().unwrap() > 1000.0, "{sent}");
    let state = it.status();
    assert_eq!((&state["clipper"]["reporting"], &state["clipper"]["demo"]), (&Value::Bool(false), &Value::Bool(true)));
    let names: BTreeSet<&str> =
        state["clipper"]["models"].as_array().unwrap().iter().filter_map(|model| model["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(["m1", "big_one"]));

    // Mixed with real reports only on request.
    influxd::write(&it.influxdb(), "d", &report("m1", 1, 4000));
    let refused = it.run(&["demo", "--backfill", "1m"]).expect(2);
    assert!(refused.err.contains("--mix"), "{}", refused.err);
    it.run(&["demo", "--backfill", "1m", "--mix"]).expect(0);
    assert_eq!(it.status()["clipper"]["reporting"], true, "the real one");

    let cleared = it.run(&["demo", "--clear"]).expect(0);
    assert!(cleared.out.contains("removed all demo data"), "{}", cleared.out);
    let rest = it.query("d", "SELECT count(value) FROM /_prediction_counter$/");
    assert!(rest.contains(",1]") && !rest.contains("big_one"), "exactly the real point is left: {rest}");
    assert_eq!(it.status()["clipper"]["demo"], false);

    // Until Ctrl-C, with a summary.
    let words = ["demo", "--mix"];
    let process = it.command(&words).command().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    eventually("demo points arrive", SOON, || it.status()["clipper"]["demo"] == true);
    interrupt(process.id());
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("in 1 report from 2 models"), "{output:?}");
    let bad = it.run(&["demo", "--models", "a\\,b,#c"]).expect(2);
    assert!(bad.err.contains("cannot report"), "{}", bad.err);
}

#[test]
fn watching_reports_every_change_once() {
    let it = Instance::new("watch");
    it.first_up(&["--database", "d"]).expect(0);
    let mut process = it.command(&["status", "--watch"]).command().stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap();
    assert!(first.contains("in sync") && first.contains("clipper not reporting"), "{first}");
    influxd::write(&it.influxdb(), "d", &report("m1", 0, 4000));
    let second = lines.next().unwrap();
    assert!(second.contains("clipper reporting, m1 reporting"), "nothing comes twice: {second}");
    assert!(!first.contains('\u{1b}') && !second.contains('\u{1b}'), "{second:?}");
    interrupt(process.id());
    assert_eq!(process.wait().unwrap().code(), Some(0));
}

/// The bundled dashboard.
fn dashboard() -> Value {
    serde_json::from_str(include_str!("../../assets/dashboard.json")).unwrap()
}

/// All panels, also those in collapsed rows.
fn panels(dashboard: &Value) -> Vec<Value> {
    let top = dashboard["panels"].as_array().unwrap();
    let inner = top.iter().flat_map(|panel| panel["panels"].as_array().cloned().unwrap_or_default());
    top.iter().cloned().chain(inner).collect()
}

#[test]
fn every_query_of_the_dashboard_returns_points() {
    let it = Instance::new("queries");
    it.first_up(&["--database", "d"]).expect(0);
    it.run(&["demo", "--backfill", "20m", "--models", "m1,spark-svm,a.b/c"]).expect(0);
    // Measurements that the demo does not send, because Clipper need not either.
    let at = nanos_ago(1);
    let whole = format!(
        "prediction_counter value=9 {at}\nprediction_thruput,units=events-per-second rate=1,one_min=1,five_min=1,\
         fifteen_min=1 {at}\nprediction_latency size=9,min=1,max=2,mean=1,std=1,p50=1,p95=2,p99=2 {at}\n\
         prediction_accuracy_ratio value=0.5 {at}\n"
    );
    influxd::write(&it.influxdb(), "d", &whole);
    let dashboard = dashboard();
    let variable = dashboard["templating"]["list"].as_array().unwrap().iter().find(|v| v["name"] == "model").unwrap();
    // As Grafana fills it in: a text in a regular expression, and a number.
    let listed = |search: &str, limit: &str| {
        let query = variable["query"].as_str().unwrap().replace("${search:regex}", search).replace("$limit", limit);
        let query = query.replace("$timeFilter", "time >= now() - 30m and time <= now()");
        assert!(!query.contains("${") && query.matches('$').count() == 2, "something is not filled in: {query}");
        it.query("d", &query)
    };
    for model in ["m1", "spark-svm", "a.b/c"] {
        assert!(listed("", "25").contains(&format!("{model}_prediction_counter")));
    }
    let found = listed("a\\.b\\/c", "25");
    assert!(found.contains("a.b/c_prediction_counter") && !found.contains("m1"), "{found}");
    let found = listed("m1", "25");
    assert!(found.contains("m1_prediction_counter") && !found.contains("spark"), "a whole name: {found}");
    // The link of a slow model names its whole measurement, so that other names that contain the name do not hide it.
    let many: String = (20..50).map(|number| format!("m1{number}_prediction_counter value=1 {at}\n")).collect();
    influxd::write(&it.influxdb(), "d", &many);
    let found = listed("m1_prediction_counter", "25");
    assert!(found.contains("m1_prediction_counter") && !found.contains("m120"), "{found}");
    it.query("d", "DROP SERIES FROM /^m1\\d+_prediction_counter$/");
    let found = listed("", "1");
    assert!(found.contains("a.b/c_prediction_counter") && !found.contains("m1"), "the first by name: {found}");
    // As Grafana fills it in: every model, escaped for a regular expression.
    let all = "(m1|spark-svm|a\\.b\\/c)";
    let mut checked = 0;
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().cloned().unwrap_or_default() {
            for models in [all, "(a\\.b\\/c)"] {
                let query = target["query"].as_str().unwrap();
                let query = query
                    .replace("(${model:regex})", models)
                    .replace("$timeFilter", "time >= now() - 30m and time <= now()")
                    .replace("$__interval", "15s")
                    // A demo model pauses for some minutes.
                    .replace("now() - 1m", "now() - 10m");
                assert!(!query.contains('$') || query.contains("$/"), "something is not filled in: {query}");
                let answer = it.query("d", &query);
                let json: Value = serde_json::from_str(&answer).unwrap();
                let rows = json["results"][0]["series"][0]["values"].as_array().map_or(0, Vec::len);
                assert!(rows > 0, "{}: {query}\n{answer}", panel["title"]);
                checked += 1;
            }
        }
    }
    assert!(checked >= 30, "{checked} queries");
}

#[test]
fn the_dashboard_is_well_formed() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    // What opens by default costs the same with five models and with thousands: at most this many are queried and drawn.
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = |name: &str| variables.iter().find(|variable| variable["name"] == name).unwrap();
    let (model, limit) = (variable("model"), variable("limit"));
    assert!(model["query"].as_str().unwrap().ends_with(" LIMIT $limit"), "{model}");
    assert_eq!(
        (&model["includeAll"], &model["allValue"]),
        (&true.into(), &Value::Null),
        "All means all that are listed"
    );
    assert_eq!((&limit["current"]["value"], &limit["query"]), (&"25".into(), &"25,100,500".into()));
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(panel["type"] != "row" || panel["collapsed"] == true, "{} is open", panel["title"]);
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["query"].as_str().unwrap();
            // The headline covers all models, in one number over the last minute.
            let is_headline = ["Worst p99", "Reporting"].iter().any(|title| panel["title"] == *title);
            let bound = if is_headline { "time > now() - 1m" } else { "/^(${model:regex})_" };
            assert!(query.contains(bound), "{}: {query}", panel["title"]);
            assert_eq!(query.contains("/._"), is_headline, "{}: {query}", panel["title"]);
        }
    }
    let known = ["stat", "timeseries", "table", "row"];
    for panel in &panels {
        let title = panel["title"].as_str().unwrap();
        assert!(known.contains(&panel["type"].as_str().unwrap()), "{title}");
        let place = &panel["gridPos"];
        let (x, w) = (place["x"].as_u64().unwrap(), place["w"].as_u64().unwrap());
        assert!(x + w <= 24 && w > 0 && place["h"].as_u64().unwrap() > 0, "{title}");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(!defaults["unit"].as_str().unwrap().is_empty(), "{title}");
        if panel["type"] == "stat" {
            let without_value = &defaults["thresholds"]["steps"][0]["color"];
            assert_ne!(without_value, "green", "{title}: no value is not good news");
        }
        if panel["type"] == "timeseries" {
            assert_eq!(defaults["custom"]["stacking"]["mode"], "none", "{title}");
            assert_eq!(defaults["custom"]["spanNulls"], 45_000, "{title}: gaps are gaps");
            assert_eq!(defaults["min"], 0, "{title}");
        }
        for target in panel["targets"].as_array().unwrap() {
            let query = target["query"].as_str().unwrap();
            assert!(!query.contains("fill(0)"), "{title}: a gap is not a zero");
            if query.contains("latency") && !query.contains("\"size\") AS") {
                assert!(query.contains("\"size\" > 0"), "{title}: zeros are not latencies");
            }
            if query.contains("model_latency") && query.contains("p99") {
                assert_eq!(defaults["unit"], "µs", "{title}");
            }
        }
    }
    // Panels do not overlap.
    for (index, one) in panels.iter().enumerate() {
        for other in &panels[index + 1..] {
            let side = |panel: &Value, name: &str| panel["gridPos"][name].as_i64().unwrap();
            let apart = |start: &str, length: &str| {
                side(one, start) + side(one, length) <= side(other, start)
                    || side(other, start) + side(other, length) <= side(one, start)
            };
            assert!(apart("x", "w") || apart("y", "h"), "{} and {}", one["title"], other["title"]);
        }
    }
    for name in ["datasource", "search", "limit", "model", "objective", "configured_models"] {
        let list = dashboard["templating"]["list"].as_array().unwrap();
        assert!(list.iter().any(|variable| variable["name"] == name), "{name}");
    }
}
