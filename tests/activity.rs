//! What `status` and `demo` read from and write to a real InfluxDB, with Grafana's double and
//! without an engine.

use serde_json::Value;

use crate::external::Servers;
use crate::support::double::Version;

/// Clipper's interval between two reports, in seconds.
const INTERVAL: i64 = 15;

fn nanos_ago(seconds: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    i64::try_from(now).unwrap() - seconds * 1_000_000_000
}

fn count(model: &str, value: u32, seconds_ago: i64) -> String {
    format!("{model}_prediction_counter value={value} {}\n", nanos_ago(seconds_ago))
}

fn latency(model: &str, size: u32, p99: u32, seconds_ago: i64) -> String {
    format!("{model}_model_latency size={size},p99={p99} {}\n", nanos_ago(seconds_ago))
}

fn status(it: &Servers) -> Value {
    it.run(&["status", "--database", "d", "--output", "json"]).json()
}

fn model(status: &Value, name: &str) -> Value {
    let models = status["clipper"]["models"].as_array().unwrap();
    models.iter().find(|model| model["name"] == name).unwrap_or_else(|| panic!("{name}: {status}")).clone()
}

#[test]
fn a_latency_counts_for_ten_minutes_of_reports() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    let mut lines = latency("idle", 120, 4_000, 700) + &latency("paused", 120, 5_000, 500);
    for report in 1..40 {
        lines += &count("idle", 0, report * INTERVAL);
        lines += &latency("idle", 0, 0, report * INTERVAL);
        lines += &count("paused", 0, report * INTERVAL);
    }
    it.influxd.write("d", &lines);
    let status = status(&it);
    let (idle, paused) = (model(&status, "idle"), model(&status, "paused"));
    assert_eq!((&idle["reporting"], &idle["p99_micros"]), (&Value::Bool(true), &Value::Null), "{idle}");
    assert_eq!(paused["p99_micros"], 5_000.0, "{paused}");
}

#[test]
fn a_latency_counts_from_the_newest_report_even_if_that_is_older_than_the_first_question() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    // The newest report is 15 minutes old. The latencies are 9 and 11 minutes older.
    let old = 900;
    let lines = count("m1", 120, old) + &count("m2", 60, old) + &latency("m1", 120, 4_000, old + 540);
    it.influxd.write("d", &(lines + &latency("m2", 60, 5_000, old + 660)));
    let status = status(&it);
    let (m1, m2) = (model(&status, "m1"), model(&status, "m2"));
    assert_eq!((m1["p99_micros"].as_f64(), &m2["p99_micros"]), (Some(4_000.0), &Value::Null), "{m1} {m2}");
}

#[test]
fn the_rate_is_the_count_of_the_last_report() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    it.influxd.write("d", &(count("m1", 300, 20) + &count("m1", 120, 5) + &count("idle", 0, 5)));
    let status = status(&it);
    let rate = |name| model(&status, name)["predictions_per_second"].as_f64();
    assert_eq!((rate("m1"), rate("idle")), (Some(8.0), Some(0.0)));
}

#[test]
fn the_latency_of_a_stopped_clipper_is_still_shown() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    let day = 86_400;
    it.influxd.write("d", &(count("m1", 120, day) + &latency("m1", 120, 4_000, day)));
    let m1 = model(&status(&it), "m1");
    assert_eq!((&m1["reporting"], m1["p99_micros"].as_f64()), (&Value::Bool(false), Some(4_000.0)), "{m1}");
}

#[test]
fn another_database_counts_only_with_real_reports() {
    let it = Servers::start(Version::V12);
    for database in ["d", "other", "unrelated"] {
        it.influxd.query("", &format!("CREATE DATABASE {database}"));
    }
    it.influxd.write("unrelated", "cpu value=1\nprediction_counter value=1\n");
    it.influxd.write("other", "m1_prediction_counter,clipper_metrics_demo=true value=1\n");
    let hints = |status: &Value| status["hints"].to_string();
    let demo_only = hints(&status(&it));
    assert!(demo_only.contains("nothing has arrived"), "{demo_only}");
    it.influxd.write("other", &count("m2", 120, 1));
    let real = hints(&status(&it));
    assert!(real.contains("but other does") && !real.contains("unrelated"), "{real}");
}

#[test]
fn demo_accepts_a_number_of_models() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    let sent = it.run(&["demo", "--database", "d", "--models", "30", "--backfill", "1m", "--output", "json"]).expect(0);
    // Three for each model in each of four reports. The last model pauses at some times of the day.
    let points = sent.json()["points"].as_u64().unwrap();
    assert!((348..=360).contains(&points), "{points}: {}", sent.out);
    let models = status(&it)["clipper"]["models"].as_array().unwrap().len();
    assert_eq!(models, if points == 348 { 29 } else { 30 });
    for count in ["0", "50001", "99999999999999999999"] {
        let refused = it.run(&["demo", "--database", "d", "--models", count]).expect(2);
        assert!(refused.err.contains("from 1 to 50000"), "{}", refused.err);
    }
}
