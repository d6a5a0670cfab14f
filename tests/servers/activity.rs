//! What `status` and `demo` read from and write to a real InfluxDB, with Grafana's double and
//! without an engine.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::e2e::instance::SOON;
use crate::e2e::lifecycle::interrupt;
use crate::servers::doctor::{forwarded, with_clock};
use crate::support::double::Version;
use crate::support::eventually;
use crate::support::run::{Run, ran};
use crate::support::server::{Request, Response, in_background, unescaped};
use crate::support::servers::Servers;

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
fn failing_latencies_do_not_hide_reports_and_their_range_does_not_depend_on_the_clock() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    let newest = nanos_ago(2) / 1_000_000;
    let lines =
        format!("m1_prediction_counter value=120 {n}\nm1_model_latency size=120,p99=4000 {n}", n = newest * 1_000_000);
    it.influxd.write("d", &lines);
    let (port, grafana) = (it.influxd.port, format!("http://127.0.0.1:{}", it.port()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let front = in_background(move |request: Request| {
        let statement = unescaped(&String::from_utf8_lossy(&request.body).replace('+', " "));
        let is_latency = statement.contains("_model_latency");
        if is_latency {
            seen.lock().unwrap().push(statement);
        }
        async move {
            if request.path == "/ping" {
                let headers = vec![("x-influxdb-version".into(), "1.8.10".into())];
                return Response { status: 204, headers, body: Vec::new() };
            }
            if is_latency { Response::json(500, &json!({"error": "timeout"})) } else { forwarded(port, request) }
        }
    });
    let influxdb = format!("http://127.0.0.1:{front}");
    for clock in ["+0d", "-400d"] {
        let words = ["status", "--database", "d", "--influxdb-url", &influxdb, "--grafana-url", &grafana];
        let run = Run::without_engine(words.iter().copied().chain(["--output", "json"]));
        let status = with_clock(run, clock).run().json();
        let m1 = model(&status, "m1");
        assert_eq!((&m1["p99_micros"], m1["last_report"].is_string()), (&Value::Null, true), "{m1}");
        assert!(status.to_string().contains("some latencies are unknown"), "{status}");
    }
    let asked = asked.lock().unwrap();
    let since = format!("time >= {}ms", newest - 600_000);
    assert!(asked.len() == 2 && asked.iter().all(|statement| statement.contains(&since)), "{asked:?}");
}

#[test]
fn a_point_from_the_future_does_not_hide_the_latencies_of_other_models() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    let ahead = format!("ahead_prediction_counter value=1 {}\n", nanos_ago(0) + 3 * 3_600 * 1_000_000_000);
    it.influxd.write("d", &(count("m1", 120, 5) + &latency("m1", 120, 4_000, 5) + &ahead));
    let m1 = model(&status(&it), "m1");
    assert_eq!((&m1["reporting"], m1["p99_micros"].as_f64()), (&Value::Bool(true), Some(4_000.0)), "{m1}");
}

#[test]
fn a_report_from_the_future_does_not_hide_that_its_model_stopped() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    // The clock of Clipper's host was ahead at its start.
    let lines = count("m1", 120, -7_200) + &count("m1", 300, 600) + &latency("m1", 120, 4_000, 600);
    it.influxd.write("d", &(lines + &count("starting", 60, -7_200)));
    let status = status(&it);
    let (m1, starting) = (model(&status, "m1"), model(&status, "starting"));
    assert_eq!((&m1["reporting"], m1["p99_micros"].as_f64()), (&Value::Bool(false), Some(4_000.0)), "{m1}");
    // Without an earlier report, this machine's clock may be behind.
    assert_eq!(starting["reporting"], true, "{starting}");
    assert!(status.to_string().contains("in the future: set the clocks"), "{status}");
}

#[test]
fn more_models_than_one_query_reads() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    // More than two queries; every third model is idle now, and one was retired.
    let mut lines = count("retired", 120, 86_400) + &latency("retired", 120, 4_000, 86_400);
    for number in 0..1_100 {
        let name = format!("m{number}");
        lines += &(count(&name, 120, 20) + &latency(&name, 120, 1_000 + number, 20));
        let now = if number % 3 == 0 { 0 } else { 60 };
        lines += &(count(&name, now, 5) + &latency(&name, now, if now == 0 { 0 } else { 5_000 + number }, 5));
    }
    it.influxd.write("d", &lines);
    let status = status(&it);
    assert_eq!(status["clipper"]["models"].as_array().unwrap().len(), 1_101);
    for number in 0..1_100 {
        let one = model(&status, &format!("m{number}"));
        let (rate, p99) = if number % 3 == 0 { (0.0, 1_000 + number) } else { (4.0, 5_000 + number) };
        assert_eq!(
            (one["predictions_per_second"].as_f64(), one["p99_micros"].as_f64()),
            (Some(rate), Some(p99.into()))
        );
    }
    let retired = model(&status, "retired");
    assert_eq!((&retired["reporting"], &retired["p99_micros"]), (&Value::Bool(false), &Value::Null));
}

#[test]
fn demo_points_of_a_reporting_model_are_distinguished() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    let demo = format!("m1_prediction_counter,clipper_metrics_demo=true value=7 {}\n", nanos_ago(1));
    let demo = demo.replace("m1", "m2") + &demo;
    let slow = format!("m1_model_latency,clipper_metrics_demo=true size=7,p99=9000 {}\n", nanos_ago(1));
    it.influxd.write("d", &(count("m1", 120, 5) + &latency("m1", 120, 4_000, 5) + &demo + &slow));
    let status = status(&it);
    let (m1, m2) = (model(&status, "m1"), model(&status, "m2"));
    assert_eq!((m1["predictions_per_second"].as_f64(), m1["p99_micros"].as_f64()), (Some(8.0), Some(4_000.0)), "{m1}");
    assert_eq!((&m2["demo"], &m2["reporting"]), (&Value::Bool(true), &Value::Bool(false)), "{m2}");
    assert_eq!(status["clipper"]["demo"], true);
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

#[test]
fn demo_data_of_many_models_is_removed_in_parts_and_nothing_else_is() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    // One name needs quotes.
    let names = (0..250).map(|number| format!("m{number}")).chain(["a\\ \"b\"".to_string()]);
    let point = |name: &str, kind: &str| format!("{name}_{kind},clipper_metrics_demo=true value=1 {}\n", nanos_ago(1));
    let kinds = ["prediction_counter", "model_thruput", "model_latency"];
    let lines: String = names.flat_map(|name| kinds.map(|kind| point(&name, kind))).collect();
    it.influxd.write("d", &(lines + &count("m7", 120, 5)));
    let cleared = it.run(&["demo", "--clear", "--database", "d", "--output", "json"]).expect(0).json();
    assert_eq!(cleared["removed_series"], 753);
    let left = it.influxd.query("d", "SHOW SERIES");
    assert!(left.contains("m7_prediction_counter") && !left.contains("demo"), "{left}");
}

#[test]
fn an_interrupted_backfill_is_not_complete() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    let words = ["demo", "--database", "d", "--models", "400", "--backfill", "30d"];
    let run = it.command(&words);
    let process = run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let has_points = || it.influxd.query("d", "SHOW MEASUREMENTS LIMIT 1").contains("m1");
    eventually("it sends data", SOON, has_points);
    interrupt(process.id());
    let ended = ran(&process.wait_with_output().unwrap()).expect(130);
    assert!(ended.err.contains("not all of them") && ended.err.contains("demo --clear"), "{}", ended.err);
}

#[test]
fn two_demo_models_cannot_have_one_name_in_influxdb() {
    let it = Servers::start(Version::V12);
    it.influxd.query("", "CREATE DATABASE d");
    for models in ["a,a", "a b,a_b"] {
        let refused = it.run(&["demo", "--database", "d", "--backfill", "1m", "--models", models]).expect(2);
        assert!(refused.err.contains("under one name"), "{}", refused.err);
    }
    assert!(!it.influxd.query("d", "SHOW MEASUREMENTS").contains("counter"), "nothing was sent");
}
