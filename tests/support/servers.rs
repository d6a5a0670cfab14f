//! Servers without an engine: a real InfluxDB, and Grafana's double in one of its versions. The double answers requests
//! that it does not know with 501.

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::context::{Record, TestContext};
use super::double::{Double, Version, handle};
use super::eventually;
use super::influxd::Influxd;
use super::run::{Ran, Run, basic, http_with};
use super::server::{Request, in_background};

/// A double that is listening, and an InfluxDB.
pub struct Servers {
    pub double: Arc<Mutex<Double>>,
    /// The saves of dashboards by the program.
    pub saved: Arc<Mutex<Vec<Value>>>,
    port: u16,
    pub influxd: Influxd,
    context: TestContext,
}

impl Deref for Servers {
    type Target = TestContext;

    fn deref(&self) -> &TestContext {
        &self.context
    }
}

impl Servers {
    pub fn start(version: Version) -> Self {
        Self::start_with(version, Influxd::start())
    }

    pub fn start_with(version: Version, influxd: Influxd) -> Self {
        let double = Arc::new(Mutex::new(Double::new(version, "admin", None)));
        let served = Arc::clone(&double);
        let saved = Arc::new(Mutex::new(Vec::new()));
        let saves = Arc::clone(&saved);
        let port = in_background(move |request: Request| {
            let double = Arc::clone(&served);
            let is_ours = request.headers.get("user-agent").is_some_and(|agent| agent.starts_with("clipper-metrics/"));
            if is_ours && request.method == "POST" && request.path == "/api/dashboards/db" {
                saves.lock().unwrap().push(serde_json::from_slice(&request.body).unwrap());
            }
            async move { handle(&double, request).await }
        });
        Self { double, saved, port, influxd, context: TestContext::new() }
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    pub fn command(&self, words: &[&str]) -> Run {
        let (influxdb, grafana) = (self.influxd.url(), format!("http://127.0.0.1:{}", self.port));
        let urls = ["--influxdb-url", influxdb.as_str(), "--grafana-url", grafana.as_str()];
        // No engine is needed, and none is available. The proxy of the environment does not exist,
        // so it must not be used.
        Run::without_engine(words.iter().chain(urls.iter()).copied())
            .env("http_proxy", "http://127.0.0.1:1")
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("ALL_PROXY", "http://127.0.0.1:1")
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        let ran = self.command(words).run();
        self.check();
        ran
    }

    /// Asserts that the program sent only requests that a Grafana is known to answer, and saved dashboards as it
    /// read them.
    fn check(&self) {
        let double = self.double.lock().unwrap();
        let odd: Vec<_> = double.seen().iter().filter(|seen| seen.status == 501).collect();
        assert!(odd.is_empty(), "requests that no Grafana is known to answer: {odd:?}");
        for save in self.saved.lock().unwrap().iter() {
            assert_eq!(save["overwrite"], false, "Grafana would replace a foreign dashboard");
            let dashboard = &save["dashboard"];
            assert_eq!(dashboard["version"].is_u64(), dashboard["id"].is_u64(), "saved as it was read");
        }
    }

    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let body = body.map(Value::to_string);
        let (status, text) =
            http_with(method, &url, body.as_deref(), &[("authorization", &basic("admin", "admin"))]).unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub fn refusals(&self) -> usize {
        self.double.lock().unwrap().seen().iter().filter(|seen| seen.signed_in && seen.status == 401).count()
    }

    /// A record of runs in which the addresses of these servers are always the same.
    pub fn record(&self) -> Record {
        self.continue_record(Record::default())
    }

    /// Replaces the addresses of these servers in a record as well.
    pub fn continue_record(&self, record: Record) -> Record {
        record
            .version(self.double.lock().unwrap().version().name())
            .filter(self.path(""), "")
            .port(self.influxd.port, ":8087")
            .port(self.port, ":3001")
            .filter(format!("influx_port = {}", self.influxd.port), "influx_port = 8087")
            // Each command names both servers, as typed here.
            .filter(" --influxdb-url http://127.0.0.1:8087 --grafana-url http://127.0.0.1:3001", " …")
    }

    pub fn status(&self) -> Value {
        self.run(&["status", "--output", "json"]).json()
    }

    /// Makes Grafana use other settings of the data source than it shows.
    pub fn make_settings_stale(&self) {
        let (_, sources) = self.ask("GET", "/api/datasources", None);
        // Saved, queried and saved again within one second: the plugin keeps the settings from in between.
        let mut wrong = sources[0].clone();
        wrong["url"] = json!("http://127.0.0.1:1");
        let path = "/api/datasources/uid/clipper-metrics";
        let question = json!({"from": "now-5m", "to": "now", "queries": [{"refId": "A",
            "datasource": {"type": "influxdb", "uid": "clipper-metrics"}, "rawQuery": true, "resultFormat": "table",
            "query": "SHOW RETENTION POLICIES"}]});
        let url = format!("http://127.0.0.1:{}/api/ds/query", self.port);
        let authorization = basic("admin", "admin");
        let headers = [("authorization", authorization.as_str()), ("X-Grafana-NoCache", "true")];
        let ask = || http_with("POST", &url, Some(&question.to_string()), &headers).unwrap().0;
        // This fails if a second ends in between, or is still the second of `up`.
        eventually("the plugin stays behind", Duration::from_secs(20), || {
            self.ask("PUT", path, Some(&wrong));
            ask();
            self.ask("PUT", path, Some(&sources[0]));
            ask() != 200
        });
    }
}
