//! An instance for one test, with its own name and ports, which leaves nothing behind.

use std::net::UdpSocket;
use std::ops::Deref;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use crate::support::context::TestContext;
use crate::support::run::{Ran, Run, http_with};
use crate::support::{free_port, influxd, registry};

/// A container for one test, removed when dropped.
pub(crate) struct Removed(pub String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", &self.0]);
    }
}

/// Removed with all data when the test ends.
pub(crate) struct Instance {
    pub name: String,
    pub influxdb_port: u16,
    pub grafana_port: u16,
    image: Option<String>,
    context: TestContext,
}

impl Deref for Instance {
    type Target = TestContext;

    fn deref(&self) -> &TestContext {
        &self.context
    }
}

impl Instance {
    pub(crate) fn new(name: &str) -> Self {
        require_engine();
        Self {
            name: format!("cm-test-{name}-{}", std::process::id()),
            influxdb_port: free_port(),
            grafana_port: free_port(),
            image: std::env::var("CLIPPER_METRICS_TEST_GRAFANA_IMAGE").ok().filter(|image| !image.is_empty()),
            context: TestContext::new(),
        }
    }

    /// An instance with one of the test registry's images for Grafana, regardless of the environment.
    pub(crate) fn with_grafana(name: &str, image: &str) -> Self {
        let mut instance = Self::new(name);
        instance.image = Some(format!("{}/{image}", registry::address()));
        instance
    }

    /// A command for this instance by its name alone.
    pub(crate) fn command<S: AsRef<str>>(&self, words: &[S]) -> Run {
        Run::new(words.iter().map(AsRef::as_ref).chain(["--name", &self.name]))
    }

    pub(crate) fn run<S: AsRef<str>>(&self, words: &[S]) -> Ran {
        self.command(words).run()
    }

    /// The arguments of a first `up`: ports and images, unless the test sets its own.
    pub fn first(&self, more: &[&str]) -> Vec<String> {
        let (influxdb, grafana) = (self.influxdb_port.to_string(), self.grafana_port.to_string());
        let image = self.image.as_deref().map(|image| ("--grafana-image", image));
        let defaults = [
            ("--registry", registry::address()),
            ("--influxdb-port", influxdb.as_str()),
            ("--grafana-port", grafana.as_str()),
            ("--timeout", if is_podman() { PODMAN_LEARNS } else { "60s" }),
        ];
        let mut words = vec!["up"];
        for (option, value) in defaults.into_iter().chain(image).filter(|(option, _)| !more.contains(option)) {
            words.extend([option, value]);
        }
        words.extend(more);
        words.into_iter().map(String::from).collect()
    }

    pub(crate) fn first_up(&self, more: &[&str]) -> Ran {
        self.run(&self.first(more))
    }

    pub(crate) fn status(&self) -> Value {
        self.run(&["status", "--output", "json"]).json()
    }

    pub(crate) fn influxdb(&self) -> String {
        format!("http://127.0.0.1:{}", self.influxdb_port)
    }

    pub(crate) fn query(&self, database: &str, statement: &str) -> String {
        influxd::query(&self.influxdb(), database, statement)
    }

    /// Sends a request to Grafana as its administrator.
    pub(crate) fn grafana(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        self.grafana_as("admin", "admin", method, path, body)
    }

    pub(crate) fn grafana_as(
        &self,
        user: &str,
        password: &str,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.grafana_port);
        let basic = crate::support::run::basic(user, password);
        let ask = || http_with(method, &url, body, &[("authorization", &basic)]);
        // Podman can break a published port for up to a minute when other containers start or stop.
        let tries = if is_podman() { 60 } else { 1 };
        let answer = (0..tries).find_map(|attempt| {
            std::thread::sleep(Duration::from_secs(u64::from(attempt > 0)));
            ask()
        });
        let (status, text) = answer.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The version of Grafana; features that some versions lack are asserted only for the others.
    pub(crate) fn grafana_major(&self) -> u64 {
        let (_, health) = self.grafana("GET", "/api/health", None);
        health["version"].as_str().unwrap().split('.').next().unwrap().parse().unwrap()
    }

    /// Whether the dashboard is the organisation's home page.
    pub(crate) fn is_home(&self) -> bool {
        let (_, preferences) = self.grafana("GET", "/api/org/preferences", None);
        match preferences["homeDashboardId"].as_u64() {
            Some(id) if id > 0 => {
                let (_, dashboard) = self.grafana("GET", &format!("/api/dashboards/uid/{}", self.name), None);
                dashboard["dashboard"]["id"] == id
            }
            _ => preferences["homeDashboardUID"] == self.name.as_str(),
        }
    }

    /// Saves the data source at the address that this version expects.
    pub(crate) fn put_source(&self, body: &Value) -> u16 {
        let path = match self.grafana_major() {
            7 | 8 => format!("/api/datasources/{}", body["id"]),
            _ => format!("/api/datasources/uid/{}", self.name),
        };
        self.grafana("PUT", &path, Some(&body.to_string())).0
    }

    /// Queries InfluxDB through Grafana's data source, as this version's panels do.
    pub(crate) fn ask_through_grafana(&self, database: &str, query: &str) -> Value {
        if self.grafana_major() < 9 {
            let (_, source) = self.grafana("GET", &format!("/api/datasources/uid/{}", self.name), None);
            let escape = clipper_metrics::http::escaped;
            let id = &source["id"];
            let path = format!("/api/datasources/proxy/{id}/query?db={}&q={}", escape(database), escape(query));
            return self.grafana("GET", &path, None).1;
        }
        let body = serde_json::json!({"from": "now-5m", "to": "now", "queries": [{
            "refId": "A", "datasource": {"type": "influxdb", "uid": self.name}, "rawQuery": true,
            "resultFormat": "time_series", "intervalMs": 15000, "maxDataPoints": 100, "query": query,
        }]});
        self.grafana("POST", "/api/ds/query", Some(&body.to_string())).1
    }

    pub(crate) fn container(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    /// The id of a role's container; empty if it does not exist.
    pub(crate) fn id(&self, role: &str) -> String {
        docker(&["inspect", "--type", "container", "--format", "{{.Id}}", &self.container(role)]).unwrap_or_default()
    }

    pub(crate) fn inspect(&self, role: &str) -> Value {
        let text = docker(&["inspect", "--type", "container", &self.container(role)]).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    }

    /// Asserts the state after a first `up` on an empty engine.
    pub(crate) fn assert_whole(&self) {
        let ran = self.run(&["status", "--output", "json"]);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        for role in ["influxdb", "grafana"] {
            let running = docker(&["inspect", "--format", "{{.State.Running}}", &self.container(role)]);
            assert_eq!(running.as_deref(), Ok("true"), "{role} runs");
        }
        let database = ran.json()["database"]["name"].as_str().unwrap().to_string();
        assert!(self.query("", "SHOW DATABASES").contains(&format!("[\"{database}\"]")), "the database is there");
        let names = docker(&["network", "ls", "--filter", &format!("name=^{}$", self.name), "--format", "{{.ID}}"]);
        assert_eq!(names.unwrap().lines().count(), 1, "one network");
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("E2E_KEEP_FAILED").is_some() {
            return;
        }
        for role in ["influxdb", "grafana"] {
            let _ = docker(&["rm", "--force", &self.container(role)]);
            let _ = docker(&["volume", "rm", "--force", &self.container(role)]);
        }
        for name in settings_volumes(&self.name) {
            let _ = docker(&["volume", "rm", "--force", &name]);
        }
        let filter = format!("name=^{}$", self.name);
        for id in docker(&["network", "ls", "--filter", &filter, "--format", "{{.ID}}"]).unwrap_or_default().lines() {
            let _ = docker(&["network", "rm", id]);
        }
    }
}

/// The settings volumes of an instance.
pub(crate) fn settings_volumes(name: &str) -> Vec<String> {
    let filter = format!("name={name}-settings-");
    let found = docker(&["volume", "ls", "--filter", &filter, "--format", "{{.Name}}"]).unwrap_or_default();
    found.lines().map(String::from).collect()
}

/// Runs the engine's own client; returns its output or its error.
pub(crate) fn docker(words: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(words).output().expect("the tests need the program docker");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The same, returning both output streams.
pub(crate) fn both_streams(words: &[&str]) -> String {
    let output = Command::new("docker").args(words).output().expect("the tests need the program docker");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Fails without an engine; tests do not skip.
fn require_engine() {
    static ANSWER: LazyLock<Result<String, String>> =
        LazyLock::new(|| docker(&["version", "--format", "{{.Server.Version}}"]));
    if let Err(why) = &*ANSWER {
        panic!("these tests need a Docker engine; `tests/run` starts one: {why}");
    }
}

/// Generous, for machines under load.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// For how long a container on Podman's networks can miss that its gateway's hardware address has
/// changed, which happens when other containers start or stop (netavark 1.4). Until then it
/// resolves no names, and its port does not answer.
pub(crate) const PODMAN_LEARNS: &str = "100s";

/// Whether the engine is Podman.
pub(crate) fn is_podman() -> bool {
    static IS_PODMAN: LazyLock<bool> = LazyLock::new(|| {
        let parts = docker(&["version", "--format", "{{range .Server.Components}}{{.Name}} {{end}}"]);
        parts.is_ok_and(|names| names.contains("Podman"))
    });
    *IS_PODMAN
}

/// Whether the engine is a rootless Podman, whose networks are not the host's.
pub(crate) fn is_rootless() -> bool {
    static IS_ROOTLESS: LazyLock<bool> =
        LazyLock::new(|| docker(&["info", "--format", "{{.DockerRootDir}}"]).unwrap().contains("/.local/share/"));
    is_podman() && *IS_ROOTLESS
}

/// An address of this machine other than loopback, as other hosts see it.
pub(crate) fn machine() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // No packet is sent.
    socket.connect("203.0.113.1:9").unwrap();
    socket.local_addr().unwrap().ip().to_string()
}

/// Whether a container has no capability. Podman lists all capabilities that it drops.
pub(crate) fn assert_no_capability(host: &Value) {
    let dropped: Vec<&str> = host["CapDrop"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(dropped == ["ALL"] || (is_podman() && dropped.len() > 10), "{dropped:?}");
    assert!(host["CapAdd"].as_array().is_none_or(Vec::is_empty), "{}", host["CapAdd"]);
}

/// The limit of a container's log. Podman applies it, but does not show it.
pub(crate) fn assert_log_limit(host: &Value) {
    let limit = &host["LogConfig"]["Config"];
    assert!(is_podman() || limit["max-size"] == "10m" && limit["max-file"] == "3", "{limit}");
}

/// An address of this machine other than loopback: the engine's own bridge, if it is one of this
/// machine's interfaces.
pub fn bridge() -> String {
    if is_rootless() {
        return machine();
    }
    if is_podman() {
        // Podman's bridge exists as long as a container is attached to it.
        static HOLDER: LazyLock<()> = LazyLock::new(|| {
            let image = format!("{}/influxdb:1.12.4", registry::address());
            docker(&["pull", &image]).unwrap();
            docker(&["run", "--rm", "--detach", "--entrypoint", "/usr/bin/sleep", &image, "3600"]).unwrap();
        });
        LazyLock::force(&HOLDER);
    }
    let subnet = docker(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"]).unwrap();
    let (network, _) = subnet.split_once('/').unwrap();
    format!("{}.1", network.rsplit_once('.').unwrap().0)
}
