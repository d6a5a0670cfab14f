//! Recorded output for people: `up`, `status`, `doctor`, `down` and `demo` with external servers, and errors with hints.

use std::io::Write as _;

use serde_json::json;

use crate::external::Servers;
use crate::support::double::Version;
use crate::support::golden;
use crate::support::run::{Ran, Run};

const NO_ENGINE: &str = "unix:///nonexistent/docker.sock";
const DASHBOARD: &str = "/api/dashboards/uid/clipper-metrics";

/// Runs whose addresses, files and durations are replaced, so that each run records the same text.
struct Record {
    text: String,
    replaced: Vec<(String, &'static str)>,
}

impl Record {
    fn new(replaced: Vec<(String, &'static str)>) -> Self {
        Self { text: String::new(), replaced }
    }

    fn of(it: &Servers, files: &[(&str, &'static str)]) -> Self {
        let ports = [(format!(":{}", it.influxd.port), ":8087"), (format!(":{}", it.port()), ":3001")];
        let port = (format!("influx_port = {}", it.influxd.port), "influx_port = 8087");
        let files = files.iter().map(|(path, name)| ((*path).to_string(), *name));
        // Each command names both servers, as typed here.
        let urls = " --influxdb-url http://127.0.0.1:8087 --grafana-url http://127.0.0.1:3001";
        Self::new(ports.into_iter().chain([port]).chain(files).chain([(urls.into(), " …")]).collect())
    }

    /// Adds a run with its situation.
    fn add(&mut self, situation: &str, words: &[&str], ran: &Ran) {
        let mut run = format!("# {situation}\n$ clipper-metrics {}\n", words.join(" "));
        run.push_str(&ran.out);
        // Which steps took long enough to be reported differs between runs.
        for line in ran.err.lines().filter(|line| !line.contains(": done") && !line.ends_with(" …")) {
            run.push_str(&format!("stderr: {line}\n"));
        }
        if ran.code != 0 {
            run.push_str(&format!("exit code {}\n", ran.code));
        }
        for (from, to) in &self.replaced {
            run = run.replace(from, to);
        }
        for (pattern, to) in [
            (r"\(\d+ms\)", "(Nms)"),
            (r"\b\d+\.\ds\b", "Ns"),
            (r"\b\d+s ago", "Ns ago"),
            (r" \(Nms\)", ""),
            (r"1\.\d+\.\d+(~rc\d)?\b", "1.X"),
            (r"\d+ points?\b", "N points"),
            (r"\d+ series\b", "N series"),
        ] {
            run = regex_lite::Regex::new(pattern).unwrap().replace_all(&run, to).into_owned();
        }
        self.text.push_str(&run);
        self.text.push('\n');
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn the_output_of_a_whole_life_is_the_recorded_one() {
    let it = Servers::start(Version::V12_4);
    let text = format!(
        "influx_dbname = \"d\"\ninflux_port = {}\n[[models]]\nname = \"m1\"\n[[models]]\nname = \"m2\"\n",
        it.influxd.port
    );
    let (clipper, other) = (file(&text), file("influx_dbname = \"d\"\ninflux_port = 1\n"));
    let (path, other) = (clipper.path().to_str().unwrap(), other.path().to_str().unwrap());
    let files = [(path, "clipper.toml"), (other, "other.toml")];
    let mut record = Record::of(&it, &files);
    let mut run = |situation: &str, words: &[&str]| {
        let ran = it.run(words);
        record.add(situation, words, &ran);
    };
    run("before the first run", &["status", "-c", path]);
    run("a dry run", &["up", "-c", path, "--dry-run"]);
    run("the first run", &["up", "-c", path]);
    run("nothing to do", &["up", "-c", path]);
    run("Clipper's file contains another port", &["up", "-c", other]);
    run("no file, and not Clipper's defaults", &["up", "--database", "d"]);
    run("Clipper has never reported", &["status", "-c", path]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    it.influxd.write(
        "d",
        &format!(
            "m1_prediction_counter value=120 {now}\nm1_model_thruput,units=events-per-second \
             rate=8,one_min=7,five_min=7,fifteen_min=6 {now}\nm1_model_latency \
             size=120,min=310,max=9120,mean=1032.4,std=400.2,p95=2000,p99=4100,p50=900 {now}\n"
        ),
    );
    run("one of two models reports", &["status", "-c", path]);
    run("one of two models has never reported", &["doctor", "-c", path]);
    run("a real Clipper reports", &["demo", "-c", path, "--backfill", "1m"]);
    let (_, present) = it.ask("GET", DASHBOARD, None);
    let mut dashboard = present["dashboard"].clone();
    dashboard["title"] = json!("Mine");
    let save = json!({"dashboard": dashboard, "overwrite": true, "folderUid": ""});
    assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&save)).0, 200);
    run("an edited dashboard", &["status", "-c", path]);
    run("an edited dashboard", &["up", "-c", path]);
    it.influxd.query("", "DROP DATABASE d");
    run("the database was dropped", &["status", "-c", path]);
    run("the database was dropped", &["up", "-c", path]);
    run("demo data", &["demo", "-c", path, "--models", "m1", "--backfill", "1m"]);
    // The last demo model pauses at times.
    it.influxd.write("d", &format!("m1_prediction_counter,clipper_metrics_demo=true value=1 {now}\n"));
    run("demo data only", &["status", "-c", path]);
    run("demo data is removed", &["demo", "-c", path, "--clear"]);
    run("no demo data", &["demo", "-c", path, "--clear"]);
    run("a shorter retention period", &["up", "-c", path, "--retention", "90d"]);
    run("Grafana is external", &["down", "-c", path]);
    run("the edited dashboard stays", &["down", "-c", path, "--deregister"]);
    golden("life.txt", &record.text);
}

#[test]
fn the_output_for_servers_that_fail_is_the_recorded_one() {
    let mut it = Servers::start(Version::V12_4);
    it.run(&["up"]).expect(0);
    let mut record = Record::of(&it, &[]);
    let mut run = |it: &Servers, situation: &str, words: &[&str], variables: &[(&str, &str)]| {
        let ran = variables.iter().fold(it.command(words), |run, (name, value)| run.env(name, value)).run();
        record.add(situation, words, &ran);
    };
    let wrong = [("CLIPPER_METRICS_GRAFANA_PASSWORD", "wrong-password")];
    for command in ["status", "up", "doctor"] {
        run(&it, "Grafana rejects the login", &[command], &wrong);
    }
    it.influxd.kill();
    for command in ["status", "up", "doctor", "demo"] {
        run(&it, "InfluxDB does not answer", &[command], &[]);
    }
    golden("failures.txt", &record.text);
}

#[test]
fn errors_with_their_hints_are_the_recorded_ones() {
    let bad = file("name = \"a\"\ninflux_port = 0\n");
    let unknown = file("[metrics]\ngrafana_prot = 3001\n");
    let (bad, unknown) = (bad.path().to_str().unwrap(), unknown.path().to_str().unwrap());
    let mut record = Record::new(vec![(bad.to_string(), "bad.toml"), (unknown.to_string(), "unknown.toml")]);
    for (situation, words) in [
        ("no engine", &["up"][..]),
        ("no engine", &["logs"]),
        ("no engine", &["down", "--volumes"]),
        ("an unknown context", &["status", "--context", "no-such-context"]),
        ("an option of other commands", &["down", "--grafana-port", "3001", "--name", "a"]),
        ("an option before the command", &["--grafana-port", "3001", "up", "--name", "a"]),
        ("an unknown option", &["up", "--frobnicate"]),
        ("no command", &[]),
        ("a bad value in Clipper's file", &["up", "-c", bad]),
        ("an unknown key in Clipper's file", &["up", "-c", unknown]),
        ("a missing file", &["up", "-c", "/nonexistent/clipper.toml"]),
        ("a bad port", &["up", "--grafana-port", "70000"]),
        ("a bad name", &["up", "--name", "Upper"]),
        ("a database that Clipper cannot write to", &["up", "--database", "a/b"]),
        ("a URL without a scheme", &["up", "--grafana-url", "localhost:3000"]),
        ("a duration without a unit", &["up", "--timeout", "soon"]),
        ("a short retention period", &["up", "--retention", "1m"]),
        ("a user without a server", &["up", "--influxdb-user", "me"]),
        ("a format that the command does not have", &["up", "--output", "env"]),
        ("a backup that does not exist", &["restore", "/nonexistent/clipper.backup"]),
        ("an unknown command", &["man", "frobnicate"]),
    ] {
        let ran = Run::new(words).env("DOCKER_HOST", NO_ENGINE).run();
        assert_ne!(ran.code, 0, "{words:?}");
        record.add(situation, words, &ran);
    }
    golden("errors.txt", &record.text);
}
