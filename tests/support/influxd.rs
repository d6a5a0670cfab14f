//! A real InfluxDB on loopback for one test: Debian's `influxd` with its own data.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{eventually, free_port};

/// Stops when dropped.
pub struct Influxd {
    process: Child,
    data: tempfile::TempDir,
    /// Its data is on a separate small disk.
    is_mounted: bool,
    pub port: u16,
}

impl Influxd {
    /// # Panics
    /// If `influxd` is not installed: the tests need it.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts it with settings, by their variables.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), false, settings)
    }

    /// Starts it with a disk of this many mebibytes.
    pub fn start_on_a_small_disk(mebibytes: u32) -> Self {
        let data = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(data.path()).status();
        assert!(mount.is_ok_and(|status| status.success()), "only root can mount a small disk");
        Self::start_in(data, true, &[])
    }

    /// Fills its disk.
    pub fn fill_disk(&self) {
        assert!(self.is_mounted, "the disk does not belong to this test");
        let mut file = std::fs::File::create(self.data.path().join("fill")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }

    fn start_in(data: tempfile::TempDir, is_mounted: bool, settings: &[(&str, &str)]) -> Self {
        assert!(
            Path::new("/usr/bin/influxd").exists(),
            "the tests need Debian's package influxdb; tests/run installs it"
        );
        let port = free_port();
        let path = |name: &str| data.path().join(name);
        let process = Command::new("/usr/bin/influxd")
            .env("INFLUXDB_REPORTING_DISABLED", "true")
            .env("INFLUXDB_META_DIR", path("meta"))
            .env("INFLUXDB_DATA_DIR", path("data"))
            .env("INFLUXDB_DATA_WAL_DIR", path("wal"))
            .env("INFLUXDB_HTTP_BIND_ADDRESS", format!("127.0.0.1:{port}"))
            .env("INFLUXDB_BIND_ADDRESS", format!("127.0.0.1:{}", free_port()))
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let influxd = Self { process, data, is_mounted, port };
        eventually("influxd answers", Duration::from_secs(20), || influxd.get("/ping").is_some());
        influxd
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn get(&self, path: &str) -> Option<String> {
        super::run::http("GET", &format!("{}{path}", self.url()), None).map(|(_, body)| body)
    }

    /// Runs one statement; returns the rows of its first series.
    pub fn rows(&self, database: &str, statement: &str) -> Vec<serde_json::Value> {
        let answer: serde_json::Value = serde_json::from_str(&self.query(database, statement)).unwrap();
        answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default()
    }

    /// Runs one statement; returns the answer's text.
    pub fn query(&self, database: &str, statement: &str) -> String {
        query(&self.url(), database, statement)
    }

    /// Writes lines.
    pub fn write(&self, database: &str, lines: &str) {
        write(&self.url(), database, lines);
    }
}

impl Influxd {
    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Influxd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if self.is_mounted {
            let _ = Command::new("umount").arg(self.data.path()).status();
        }
    }
}

/// Runs one statement on an InfluxDB; returns the answer's text.
pub fn query(url: &str, database: &str, statement: &str) -> String {
    let escape = clipper_metrics::http::escaped;
    let address = format!("{url}/query?epoch=ms&db={}&q={}", escape(database), escape(statement));
    super::run::http("POST", &address, None).map(|(_, body)| body).unwrap_or_default()
}

/// Writes lines to an InfluxDB, as Clipper does.
pub fn write(url: &str, database: &str, lines: &str) {
    let address = format!("{url}/write?db={database}");
    let (status, body) = super::run::http("POST", &address, Some(lines)).unwrap();
    assert_eq!(status, 204, "{body}");
}
