//! Recorded output for people: `up`, `status`, `doctor`, `down` and `demo` with external servers.

use serde_json::json;

use crate::support::double::Version;
use crate::support::run::Ran;
use crate::support::servers::Servers;

const DASHBOARD: &str = "/api/dashboards/uid/clipper-metrics";

/// A run whose command names only the words that differ between the runs.
fn typed(words: &[&str], ran: Ran) -> Ran {
    Ran { typed: format!("clipper-metrics {}", words.join(" ")), ..ran }
}

#[test]
fn the_output_of_a_whole_life_is_the_recorded_one() {
    let it = Servers::start(Version::V12_4);
    let text = format!(
        "influx_dbname = \"d\"\ninflux_port = {}\n[[models]]\nname = \"m1\"\n[[models]]\nname = \"m2\"\n",
        it.influxd.port
    );
    let (clipper, other) =
        (it.write("clipper.toml", text), it.write("other.toml", "influx_dbname = \"d\"\ninflux_port = 1\n"));
    let (path, other) = (clipper.as_str(), other.as_str());
    let mut record = it.record();
    let mut run = |situation: &str, words: &[&str]| record.add(situation, typed(words, it.run(words)));
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
    record.golden("life.txt");
}

#[test]
fn the_output_for_servers_that_fail_is_the_recorded_one() {
    let mut it = Servers::start(Version::V12_4);
    it.run(&["up"]).expect(0);
    let mut record = it.record();
    let mut run = |it: &Servers, situation: &str, words: &[&str], variables: &[(&str, &str)]| {
        let ran = variables.iter().fold(it.command(words), |run, (name, value)| run.env(name, value)).run();
        record.add(situation, typed(words, ran));
    };
    let wrong = [("CLIPPER_METRICS_GRAFANA_PASSWORD", "wrong-password")];
    for command in ["status", "up", "doctor"] {
        run(&it, "Grafana rejects the login", &[command], &wrong);
    }
    it.influxd.kill();
    for command in ["status", "up", "doctor", "demo"] {
        run(&it, "InfluxDB does not answer", &[command], &[]);
    }
    record.golden("failures.txt");
}
