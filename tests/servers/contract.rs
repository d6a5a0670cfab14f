//! Grafana's double answers every recorded exchange as the real server did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::support::double::{Double, Exchange, TOKEN, Version, handle, recording};
use crate::support::influxd::Influxd;
use crate::support::server::Request;
use serde_json::{Value, json};

/// The databases and points that existed when the exchanges were recorded.
fn recorded_influxdb(version: Version) -> Influxd {
    let influxd = Influxd::start();
    for database in ["ewma", "clipper-test", "clipper"] {
        influxd.query("", &format!("CREATE DATABASE \"{database}\""));
    }
    let (times, models): (&[u64], &[&str]) = if version < Version::V12_4 {
        let times = &[1_795_362_771_000, 1_795_362_786_000, 1_795_362_806_000, 1_795_365_800_000, 1_795_366_075_000];
        (times, &["m1", "m2", "spark-svm"])
    } else {
        (&[1_795_742_589_393], &["m1"])
    };
    let mut lines = String::new();
    for at in times {
        for model in models {
            lines.push_str(&format!("{model}_prediction_counter value=84 {at}000000\n"));
            lines.push_str(&format!("{model}_model_thruput rate=8 {at}000000\n"));
            lines.push_str(&format!("{model}_model_latency p99=8 {at}000000\n"));
        }
    }
    influxd.write("clipper-test", &lines);
    influxd
}

/// The ids that the recorded Grafana assigned to its objects, and the double's ids for the same objects.
#[derive(Default)]
struct Numbers(BTreeMap<String, String>);

impl Numbers {
    /// The ids of 12.4 are so long that they cannot be confused with anything else.
    const LEAST: u64 = 1 << 32;

    fn learn(&mut self, recorded: &Value, found: &Value) {
        match (recorded, found) {
            (Value::Object(one), Value::Object(other)) => {
                for (name, value) in one {
                    self.learn(value, &other.get(name).cloned().unwrap_or_default());
                }
                if let (Some(number), Some(own)) = (one.get("id").and_then(Value::as_u64), other.get("id"))
                    && number >= Self::LEAST
                {
                    self.0.insert(number.to_string(), own.to_string());
                }
            }
            (Value::Array(one), Value::Array(other)) => {
                one.iter().zip(other).for_each(|(one, other)| self.learn(one, other));
            }
            _ => {}
        }
    }

    fn replaced(&self, text: &str) -> String {
        self.0.iter().fold(text.to_string(), |text, (number, own)| text.replace(number, own))
    }
}

/// Removes two columns of InfluxDB 1.12, which was recorded with Grafana 12.4; older versions lack them.
fn without_new_columns(body: &mut Value) {
    let is_new = |name: &Value| name == "futureWriteLimit" || name == "pastWriteLimit";
    for frame in body.pointer_mut("/results/A/frames").and_then(Value::as_array_mut).into_iter().flatten() {
        let fields = frame["schema"]["fields"].as_array().cloned().unwrap_or_default();
        let mut new = fields.iter().map(|field| is_new(&field["name"]));
        if let Some(values) = frame["data"]["values"].as_array_mut() {
            values.retain(|_| !new.next().unwrap_or_default());
        }
        if let Some(fields) = frame["schema"]["fields"].as_array_mut() {
            fields.retain(|field| !is_new(&field["name"]));
        }
    }
    if let Some(series) = body.pointer_mut("/results/0/series/0") {
        let columns = series["columns"].as_array().cloned().unwrap_or_default();
        for row in series["values"].as_array_mut().into_iter().flatten().filter_map(Value::as_array_mut) {
            let mut new = columns.iter().map(is_new);
            row.retain(|_| !new.next().unwrap_or_default());
        }
        if let Some(columns) = series["columns"].as_array_mut() {
            columns.retain(|name| !is_new(name));
        }
    }
}

/// 12.4 lists dashboards with the same title in no particular order.
fn sort_by_uid(list: &mut Value) {
    if let Some(list) = list.as_array_mut() {
        list.sort_by_key(|item| item["uid"].to_string());
    }
}

fn request(exchange: &Exchange, numbers: &Numbers) -> Request {
    let mut recorded = exchange.request.clone();
    recorded.path = numbers.replaced(&recorded.path);
    recorded.body = serde_json::from_str(&numbers.replaced(&recorded.body.to_string())).unwrap();
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

/// Differences between a recorded answer and another one. Values that cannot be equal twice are
/// compared by kind only.
fn differences(at: &str, recorded: &Value, found: &Value, out: &mut Vec<String>) {
    match (recorded, found) {
        (Value::Object(one), Value::Object(other)) => {
            for name in one.keys().chain(other.keys()).collect::<BTreeSet<_>>() {
                match (one.get(name), other.get(name)) {
                    (Some(one), Some(other)) => differences(&format!("{at}.{name}"), one, other, out),
                    (one, _) => {
                        out.push(format!("{at}.{name} {}", if one.is_some() { "is missing" } else { "is too much" }));
                    }
                }
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            // Points depend on the time at which they were written.
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
        // 12.4 takes a moment until it resolves the name.
        || (["createdBy", "updatedBy"].contains(&name) && recorded == "Anonymous")
        || (name == "message" && recorded.as_str().is_some_and(|text| text.contains("measurements found")))
}

/// The differences between the double's answers and the recorded ones.
fn replay(version: Version, part: &str) -> Vec<String> {
    let influxd = recorded_influxdb(version);
    let double = Mutex::new(Double::new(version, "admin", None));
    double.lock().unwrap().map_host("http://influxdb:8086", &influxd.url());
    double.lock().unwrap().map_host("http://rec-i:8086", &influxd.url());
    double.lock().unwrap().map_host("http://rec-influx:8086", &influxd.url());
    if part == CLASHES {
        provision(&mut double.lock().unwrap(), version);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut failures = Vec::new();
    let mut numbers = Numbers::default();
    let exchanges = recording(version, part);
    for exchange in &exchanges {
        if exchange.step.contains("within 5 s of a change") || exchange.step == "wrong password, attempt 1" {
            // Recorded immediately after the previous exchange, at the start of a counting period;
            // time is not replayed.
            if exchange.step.starts_with("wrong password") {
                double.lock().unwrap().forgive();
            }
        }
        if exchange.step.contains("(uid)") || exchange.step.contains("(id)") {
            // The recorder waited for the next second before it saved again.
            double.lock().unwrap().next_second();
        }
        let response = runtime.block_on(handle(&double, request(exchange, &numbers)));
        let mut body: Value = serde_json::from_slice(&response.body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&response.body).to_string()));
        let mut found = Vec::new();
        if response.status != exchange.response.status {
            found.push(format!("status {} instead of {}: {body}", response.status, exchange.response.status));
        }
        // The answer of 12 to a save may contain the previous version.
        let mut recorded = exchange.response.body.clone();
        if exchange.request.path == "/api/dashboards/db" && version >= Version::V12 && recorded.get("version").is_some()
        {
            recorded["version"] = body["version"].clone();
        }
        if exchange.step == "create user" && recorded.get("uid").is_some() {
            recorded["uid"] = body["uid"].clone();
        }
        if version >= Version::V12_4 {
            without_new_columns(&mut recorded);
            if exchange.request.path.starts_with("/api/search") {
                sort_by_uid(&mut recorded);
                sort_by_uid(&mut body);
            }
            numbers.learn(&recorded, &body);
        }
        differences("", &recorded, &body, &mut found);
        failures.extend(found.into_iter().map(|what| format!("{}: {what}", exchange.step)));
    }
    assert!(exchanges.len() > 80);
    failures
}

fn expect_same(version: Version, part: &str) {
    let failures = replay(version, part);
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}

const EVERY_DAY: &str = "";
const CLASHES: &str = "-clashes";

/// The provisioned objects at the time when the conflicts were recorded.
fn provision(double: &mut Double, version: Version) {
    let database = if version == Version::V9 { "" } else { "clipper" };
    double.provision_data_source(&json!({
        "name": "Provisioned", "uid": "provisioned", "type": "influxdb", "access": "proxy", "url": "http://127.0.0.1:1",
        "user": "", "database": database, "isDefault": version >= Version::V12, "jsonData": {},
    }));
    let title = "Provisioned dashboard";
    double.provision_dashboard(&json!({"uid": "provisioned-dash", "title": title, "panels": [], "schemaVersion": 27}));
}

#[test]
fn the_double_answers_like_grafana_7_5() {
    expect_same(Version::V7, EVERY_DAY);
}

#[test]
fn the_double_answers_like_grafana_9_4() {
    expect_same(Version::V9, EVERY_DAY);
}

#[test]
fn the_double_answers_like_grafana_12_2() {
    expect_same(Version::V12, EVERY_DAY);
}

#[test]
fn the_double_clashes_like_grafana_7_5() {
    expect_same(Version::V7, CLASHES);
}

#[test]
fn the_double_clashes_like_grafana_9_4() {
    expect_same(Version::V9, CLASHES);
}

#[test]
fn the_double_clashes_like_grafana_12_2() {
    expect_same(Version::V12, CLASHES);
}

#[test]
fn the_double_answers_like_grafana_12_4() {
    expect_same(Version::V12_4, EVERY_DAY);
}

#[test]
fn the_double_clashes_like_grafana_12_4() {
    expect_same(Version::V12_4, CLASHES);
}

/// Grafana 13 was not recorded. Its double is the newest recorded version with exactly those
/// changes that Grafana's documentation and source describe.
#[test]
fn the_double_of_grafana_13_differs_from_12_4_as_documented() {
    let steps = |part| -> BTreeSet<String> {
        let differences = replay(Version::V13, part);
        differences.iter().map(|one| one.split(": ").next().unwrap_or_default().to_string()).collect()
    };
    let every_day = [
        "health",
        // Data sources have no numbers in addresses.
        "data source by numeric id",
        "update data source by numeric id",
        "data source health by numeric id",
        "SHOW DATABASES through the proxy by numeric id",
        "ask for retention policies through the proxy by numeric id, all well",
        "ask for retention policies through the proxy by numeric id, InfluxDB unreachable",
        "ask for retention policies through the proxy by numeric id, database absent",
        "ask for retention policies through the proxy by numeric id, all well again",
        "ask for retention policies through the proxy without a database, all well",
        "ask for retention policies through the proxy without a database, InfluxDB unreachable",
        "ask for retention policies through the proxy without a database, database absent",
        "ask for retention policies through the proxy without a database, all well again",
        // … so that the update by number left this one unchanged.
        "data sources as a viewer",
        // Conflicts are answered with 409.
        "save dashboard again without overwrite",
        "save dashboard with a stale version",
        // A missing title has a different message.
        "save dashboard, no title",
        // A folder that a dashboard is saved to need not exist, so there is one more dashboard and version.
        "save dashboard into an absent folder",
        "search by tag",
        "dashboard in a folder",
        "where it is now",
    ];
    assert_eq!(steps(EVERY_DAY), every_day.map(String::from).into());
    let clashes = [
        "health",
        "the same, by numeric id",
        "save it as first read",
        "save it as first read, with a message",
        "save it without id and version",
        "the same into that folder",
        "update the provisioned data source by numeric id",
    ];
    assert_eq!(steps(CLASHES), clashes.map(String::from).into());
}
