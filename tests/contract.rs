//! Grafana: the double answers like every recorded exchange.

use std::sync::Mutex;

use crate::support::double::{Double, Exchange, TOKEN, Version, handle, recording};
use crate::support::influxd::Influxd;
use crate::support::server::Request;
use serde_json::{Value, json};

/// The databases and points that were there when the exchanges were recorded.
fn recorded_influxdb() -> Influxd {
    let influxd = Influxd::start();
    for database in ["ewma", "clipper-test", "clipper"] {
        influxd.query("", &format!("CREATE DATABASE \"{database}\""));
    }
    let mut lines = String::new();
    for at in [1_795_362_771_000_u64, 1_795_362_786_000, 1_795_362_806_000, 1_795_365_800_000, 1_795_366_075_000] {
        for model in ["m1", "m2", "spark-svm"] {
            lines.push_str(&format!("{model}_prediction_counter value=84 {at}000000\n"));
            lines.push_str(&format!("{model}_model_thruput rate=8 {at}000000\n"));
            lines.push_str(&format!("{model}_model_latency p99=8 {at}000000\n"));
        }
    }
    influxd.write("clipper-test", &lines);
    influxd
}

fn request(exchange: &Exchange) -> Request {
    let recorded = &exchange.request;
    let mut request = Request { method: recorded.method.clone(), path: recorded.path.clone(), ..Request::default() };
    for (name, value) in &recorded.headers {
        request.headers.insert(name.to_lowercase(), value.clone());
    }
    match recorded.auth.as_deref() {
        None => {}
        Some("Bearer REDACTED") => drop(request.headers.insert("authorization".into(), format!("Bearer {TOKEN}"))),
        Some(bearer) if bearer.starts_with("Bearer ") => {
            request.headers.insert("authorization".into(), bearer.into());
        }
        Some(basic) => {
            let (user, password) = basic.split_once(':').unwrap();
            request.headers.insert("authorization".into(), crate::support::run::basic(user, password));
        }
    }
    request.body = match &recorded.body {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        body => body.to_string().into_bytes(),
    };
    request
}

/// Where a recorded answer and another one say different things; what cannot be the same twice is
/// compared by kind only.
fn differences(at: &str, recorded: &Value, found: &Value, out: &mut Vec<String>) {
    match (recorded, found) {
        (Value::Object(one), Value::Object(other)) => {
            for name in one.keys().chain(other.keys()).collect::<std::collections::BTreeSet<_>>() {
                match (one.get(name), other.get(name)) {
                    (Some(one), Some(other)) => differences(&format!("{at}.{name}"), one, other, out),
                    (one, _) => {
                        out.push(format!("{at}.{name} {}", if one.is_some() { "is missing" } else { "is too much" }));
                    }
                }
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            // Points depend on when they were written.
            let points = at.ends_with(".values") || at.contains(".values.") || at.ends_with(".points");
            if one.len() != other.len() && !points {
                out.push(format!("{at} has {} instead of {} entries", other.len(), one.len()));
            }
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                differences(&format!("{at}.{index}"), one, other, out);
            }
        }
        _ if recorded == found || is_volatile(at, recorded) => {}
        _ => out.push(format!("{at} is {found} instead of {recorded}")),
    }
}

fn is_volatile(at: &str, recorded: &Value) -> bool {
    let name = at.rsplit('.').next().unwrap_or_default();
    let counted =
        ["id", "dashboardId", "folderId", "homeDashboardId", "created", "updated", "executedQueryString", "commit"];
    counted.contains(&name)
        || at.contains(".values.")
        || at.contains(".points.")
        || recorded.as_str().is_some_and(|text| text.starts_with("ACE") || text == "REDACTED")
        || (name == "message" && recorded.as_str().is_some_and(|text| text.contains("measurements found")))
}

fn replay(version: Version, part: &str) {
    let influxd = recorded_influxdb();
    let double = Mutex::new(Double::new(version, "admin", None));
    double.lock().unwrap().map_host("http://influxdb:8086", &influxd.url());
    double.lock().unwrap().map_host("http://rec-i:8086", &influxd.url());
    if part == CLASHES {
        provision(&mut double.lock().unwrap(), version);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut failures = Vec::new();
    let exchanges = recording(version, part);
    for exchange in &exchanges {
        if exchange.step.contains("within 5 s of a change") || exchange.step == "wrong password, attempt 1" {
            // Recorded right after the one before, and at the start of a count: time is not replayed.
            if exchange.step.starts_with("wrong password") {
                double.lock().unwrap().forgive();
            }
        }
        if exchange.step.contains("(uid)") || exchange.step.contains("(id)") {
            // The recorder waited for the next second before it saved again.
            double.lock().unwrap().next_second();
        }
        let response = runtime.block_on(handle(&double, request(exchange)));
        let body: Value = serde_json::from_slice(&response.body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&response.body).to_string()));
        let mut found = Vec::new();
        if response.status != exchange.response.status {
            found.push(format!("status {} instead of {}: {body}", response.status, exchange.response.status));
        }
        // 12's answer to a save may carry the version before it.
        let mut recorded = exchange.response.body.clone();
        if exchange.request.path == "/api/dashboards/db" && version == Version::V12 && recorded.get("version").is_some()
        {
            recorded["version"] = body["version"].clone();
        }
        if exchange.step == "create user" && recorded.get("uid").is_some() {
            recorded["uid"] = body["uid"].clone();
        }
        differences("", &recorded, &body, &mut found);
        failures.extend(found.into_iter().map(|what| format!("{}: {what}", exchange.step)));
    }
    assert!(exchanges.len() > 80);
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}

const EVERY_DAY: &str = "";
const CLASHES: &str = "-clashes";

/// What files provided when the clashes were recorded.
fn provision(double: &mut Double, version: Version) {
    let database = if version == Version::V9 { "" } else { "clipper" };
    double.provision_data_source(&json!({
        "name": "Provisioned", "uid": "provisioned", "type": "influxdb", "access": "proxy", "url": "http://127.0.0.1:1",
        "user": "", "database": database, "isDefault": version == Version::V12, "jsonData": {},
    }));
    let title = "Provisioned dashboard";
    double.provision_dashboard(&json!({"uid": "provisioned-dash", "title": title, "panels": [], "schemaVersion": 27}));
}

#[test]
fn the_double_answers_like_grafana_7_5() {
    replay(Version::V7, EVERY_DAY);
}

#[test]
fn the_double_answers_like_grafana_9_4() {
    replay(Version::V9, EVERY_DAY);
}

#[test]
fn the_double_answers_like_grafana_12_2() {
    replay(Version::V12, EVERY_DAY);
}

#[test]
fn the_double_clashes_like_grafana_7_5() {
    replay(Version::V7, CLASHES);
}

#[test]
fn the_double_clashes_like_grafana_9_4() {
    replay(Version::V9, CLASHES);
}

#[test]
fn the_double_clashes_like_grafana_12_2() {
    replay(Version::V12, CLASHES);
}
