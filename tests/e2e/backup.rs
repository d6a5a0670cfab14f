//! Backup and restore of an instance with its data, users and edited dashboards, with every Grafana
//! used by the tests.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::instance::{Instance, SOON, bridge, docker, is_podman};
use super::lifecycle::interrupt;
use crate::servers::user_dashboards::export;
use crate::support::eventually;
use crate::support::front::Front;
use crate::support::run::ran;

/// An instance with demo data, an edited dashboard and a user.
fn filled(name: &str) -> Instance {
    let it = Instance::new(name);
    it.first_up(&["--database", "d"]).expect(0);
    it.run(&["demo", "--backfill", "30m", "--models", "m1,m2"]).expect(0);
    let (_, present) = it.grafana("GET", &format!("/api/dashboards/uid/{}", it.name), None);
    let mut dashboard = present["dashboard"].clone();
    dashboard["panels"][0]["title"] = json!("my own title");
    let save = json!({"dashboard": dashboard, "overwrite": true}).to_string();
    assert_eq!(it.grafana("POST", "/api/dashboards/db", Some(&save)).0, 200);
    let user = json!({"name": "u", "login": "somebody", "password": "somebodys-password"}).to_string();
    assert_eq!(it.grafana("POST", "/api/admin/users", Some(&user)).0, 200);
    it
}

/// The results of all queries of the dashboard for a past time range.
fn answers(it: &Instance, at: u64) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(include_str!("../../assets/dashboard.json")).unwrap();
    let top = dashboard["panels"].as_array().unwrap();
    let inner = top.iter().flat_map(|panel| panel["panels"].as_array().cloned().unwrap_or_default());
    let panels: Vec<Value> = top.iter().cloned().chain(inner).collect();
    let mut answers = Vec::new();
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default()) {
        let query = target["query"].as_str().unwrap();
        let query = query
            .replace("(${model:regex})", "(m1|m2)")
            .replace("$timeFilter", &format!("time >= {at}ms - 20m and time <= {at}ms"))
            .replace("$__interval", "15s")
            .replace("now() - 1m", &format!("{at}ms - 20m"));
        answers.push(it.query("d", &query));
    }
    answers
}

/// Restores with the ports and images of a first `up`, unless the test sets its own.
fn restore(it: &Instance, path: &str, more: &[&str]) -> crate::support::run::Ran {
    let words = it.first(more);
    it.run(&[&["restore".to_string(), path.into()][..], &words[1..]].concat())
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

#[test]
fn a_backup_is_restored_identically_in_parallel_and_in_place() {
    let it = filled("backup");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let path = file.to_str().unwrap();
    let at = now();
    let before = answers(&it, at);
    assert!(before.iter().filter(|answer| answer.contains("series")).count() > 10);
    let written = it.run(&["backup", path, "--output", "json"]).expect(0).json();
    assert_eq!(written["instance"], it.name.as_str());
    assert_eq!(written["bytes"], std::fs::metadata(&file).unwrap().len());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "it holds passwords");
    // The instance continues to run, and nothing is left inside.
    it.run(&["status"]).expect(0);
    let inside = docker(&["exec", &it.container("influxdb"), "bash", "-c", "echo /var/lib/influxdb/*"]).unwrap();
    assert!(!inside.contains("clipper-metrics"), "{inside}");
    // Neither an existing file nor an existing instance is replaced.
    assert!(it.run(&["backup", path]).expect(2).err.contains("already exists"));
    let refused = it.run(&["restore", path]).expect(2);
    assert!(refused.err.contains("already") && refused.err.contains("--name"), "{}", refused.err);

    // In parallel, under another name.
    let other = Instance::new("restored");
    let restored = restore(&other, path, &[]).expect(0);
    assert!(restored.out.contains("up and verified"), "{}", restored.out);
    assert_eq!(answers(&other, at), before, "every query answers the same");
    let (_, dashboard) = other.grafana("GET", &format!("/api/dashboards/uid/{}", it.name), None);
    assert_eq!(dashboard["dashboard"]["panels"][0]["title"], "my own title", "with the uid that it had");
    assert_eq!(other.grafana_as("somebody", "somebodys-password", "GET", "/api/user", None).0, 200);
    other.run(&["down", "--volumes", "--yes"]).expect(0);

    // In its place, with the ports and images remembered in the archive.
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    it.run(&["restore", path, "--yes"]).expect(0);
    assert_eq!(answers(&it, at), before);
    let state = it.run(&["status", "--output", "json"]).expect(0).json();
    assert_eq!((&state["dashboard"]["state"], &state["database"]["name"]), (&json!("edited"), &json!("d")));
}

#[test]
fn under_another_name_own_dashboards_stay_as_they_are_and_an_empty_database_gets_its_period() {
    let it = Instance::new("backup-own");
    let folder = tempfile::tempdir().unwrap();
    let (file, own) = (folder.path().join("saved"), folder.path().join("own.json"));
    std::fs::write(&own, export("mine", "Mine").to_string()).unwrap();
    it.first_up(&["--database", "d", "--dashboard", own.to_str().unwrap(), "--retention", "30d"]).expect(0);
    it.run(&["backup", file.to_str().unwrap()]).expect(0);
    let other = Instance::new("restored-own");
    let restored = restore(&other, file.to_str().unwrap(), &[]).expect(0);
    assert!(restored.err.contains(&format!("belong to {}", it.name)), "{}", restored.err);
    let state = other.run(&["status", "--output", "json"]).expect(0).json();
    assert_eq!((&state["database"]["retention"], &state["user_dashboards"]), (&json!("30d"), &json!([])), "{state}");
    assert_eq!(other.grafana("GET", "/api/dashboards/uid/mine", None).0, 200);
    assert!(other.run(&["up"]).expect(0).out.contains("nothing to do"));
}

#[test]
fn an_object_of_another_owner_is_named_before_a_restore() {
    let it = Instance::new("restore-foreign");
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("saved");
    let path = path.to_str().unwrap();
    it.first_up(&[]).expect(0);
    it.run(&["backup", path]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    docker(&["volume", "create", &it.container("influxdb")]).unwrap();
    let refused = restore(&it, path, &[]).expect(1);
    docker(&["volume", "rm", &it.container("influxdb")]).unwrap();
    assert!(refused.err.contains(&it.container("influxdb")), "{}", refused.err);
    assert!(!refused.err.contains("down --volumes"), "{}", refused.err);
}

#[test]
fn a_password_is_restored_with_its_database() {
    let it = Instance::new("backup-password");
    let folder = tempfile::tempdir().unwrap();
    let (file, password) = (folder.path().join("saved"), folder.path().join("password"));
    std::fs::write(&password, "of-my-own-choice").unwrap();
    it.first_up(&["--grafana-password-file", password.to_str().unwrap()]).expect(0);
    let path = file.to_str().unwrap();
    it.run(&["backup", path]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    restore(&it, path, &[]).expect(0);
    it.run(&["status"]).expect(0);
    assert_eq!(it.grafana_as("admin", "of-my-own-choice", "GET", "/api/org", None).0, 200);
    assert_eq!(it.grafana("GET", "/api/org", None).0, 401);
}

#[test]
fn a_restore_off_loopback_is_verified_to_reject_admin_admin() {
    let it = Instance::new("backup-open");
    it.first_up(&[]).expect(0);
    let user = json!({"name": "me", "login": "me", "email": "me@localhost", "password": "me-me-me-me"}).to_string();
    let (code, made) = it.grafana("POST", "/api/admin/users", Some(&user));
    assert_eq!(code, 200, "{made}");
    let path = format!("/api/org/users/{}", made["id"]);
    assert_eq!(it.grafana("PATCH", &path, Some(r#"{"role":"Admin"}"#)).0, 200);
    let password = |words: &[&str]| it.command(words).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "me-me-me-me").run();
    password(&["up", "--grafana-user", "me"]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let path = file.to_str().unwrap();
    it.run(&["backup", path]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let bridge = bridge();
    let refused = restore(&it, path, &["--grafana-ip", &bridge]).expect(2);
    assert!(refused.err.contains("admin still has the password admin"), "{}", refused.err);
    let published =
        docker(&["ps", "--filter", &format!("name=^{}$", it.container("grafana")), "--format", "{{.Ports}}"]);
    assert!(!published.unwrap().contains(&bridge), "it is not published");
    // All data was restored, so the instance stays and is finished on loopback.
    assert!(refused.err.contains("all data is restored"), "{}", refused.err);
    it.run(&["up", "--grafana-ip", "127.0.0.1"]).expect(0);
    assert_eq!(it.grafana_as("me", "me-me-me-me", "GET", "/api/org", None).0, 200);
}

#[test]
fn restored_data_is_not_deleted_by_an_unconfirmed_retention() {
    let it = filled("backup-retention");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let path = file.to_str().unwrap();
    it.run(&["backup", path]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let refused = restore(&it, path, &["--retention", "1h"]).expect(2);
    assert!(refused.err.contains("--yes") && refused.err.contains("all data is restored"), "{}", refused.err);
    // A declined period is not remembered either.
    it.run(&["up", "--yes"]).expect(0);
    assert!(!it.query("", "SHOW RETENTION POLICIES ON d").contains("1h0m0s"));
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    it.run(&["restore", path, "--retention", "1h", "--yes"]).expect(0);
    assert!(it.query("", "SHOW RETENTION POLICIES ON d").contains("1h0m0s"));
}

#[test]
fn a_killed_restore_is_reported_by_every_command_and_can_be_restarted() {
    let it = filled("backup-killed");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let path = file.to_str().unwrap();
    it.run(&["backup", path]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let config = folder.path().join("clipper.conf");
    std::fs::write(&config, "name = \"d\"\n").unwrap();
    // It waits for InfluxDB until it is killed.
    let silent = format!("{}/odd:silent", crate::support::registry::address());
    let killed = || {
        let words = it.first(&["--influxdb-image", &silent, "--retention", "90d"]);
        let words = [&["restore".to_string(), path.into()][..], &words[1..]].concat();
        let mut process = it.command(&words).command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("it waits for InfluxDB", SOON, || {
            docker(&["inspect", "--format", "{{.State.Running}}", &it.container("influxdb")])
                .is_ok_and(|text| text == "true")
        });
        process.kill().unwrap();
        process.wait().unwrap();
    };
    killed();
    let named = "is not finished";
    for (words, code) in [
        (&["up"][..], 1),
        (&["up", "--dry-run"], 3),
        (&["up", "--config", config.to_str().unwrap()], 1),
        (&["status"], 3),
        (&["doctor"], 1),
        (&["demo", "--backfill", "1m"], 1),
        (&["logs", "influxdb"], 0),
        (&["backup", folder.path().join("other").to_str().unwrap()], 1),
        (&["export", "compose", folder.path().join("export").to_str().unwrap()], 1),
    ] {
        let ran = it.run(words).expect(code);
        let told = format!("{}{}", ran.out, ran.err);
        assert!(told.contains(named) && told.contains(path), "{words:?}: {told}");
        assert!(told.contains("restore ") && told.contains("down --volumes"), "{words:?}: {told}");
    }
    // Nothing was published in the meantime, and Clipper finds no InfluxDB.
    assert_eq!(
        docker(&["ps", "--all", "--quiet", "--filter", &format!("name={}", it.container("grafana"))]).unwrap(),
        ""
    );
    assert!(std::net::TcpStream::connect(("127.0.0.1", it.influxdb_port)).is_err());
    // `down` keeps the record, because the volumes stay.
    let down = it.run(&["down"]).expect(0);
    assert!(down.err.contains(named) && down.err.contains("down --volumes"), "{}", down.err);
    let again = format!("`clipper-metrics restore {path} --name {}` starts it again", it.name);
    assert!(down.out.contains(&again) && !down.out.contains("uses it again"), "{}", down.out);
    it.run(&["up"]).expect(1);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    it.run(&["status"]).expect(3);
    // The same restore again, over the remains of another kill. The silent image was an option of
    // the killed run.
    killed();
    let bare = it.run(&["restore", path, "--timeout", "10s"]).expect(1);
    assert!(bare.err.contains("no answer within 10s") && !bare.err.contains("archive names"), "{}", bare.err);
    killed();
    let image = format!("{}/influxdb:1.12.4", crate::support::registry::address());
    restore(&it, path, &["--influxdb-image", &image, "--yes"]).expect(0);
    it.run(&["status"]).expect(0);
    assert!(it.query("", "SHOW RETENTION POLICIES ON d").contains("2160h0m0s"), "the retention of the killed run");
    assert_eq!(it.grafana_as("somebody", "somebodys-password", "GET", "/api/user", None).0, 200);
}

#[test]
fn a_restore_that_may_still_be_running_is_replaced_only_after_confirmation() {
    let it = Instance::new("backup-live");
    it.first_up(&["--database", "d"]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let path = file.to_str().unwrap();
    it.run(&["backup", path]).expect(0);
    let other = folder.path().join("other");
    let other = other.to_str().unwrap();
    it.run(&["backup", other]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let silent = format!("{}/odd:silent", crate::support::registry::address());
    let words = it.first(&["--influxdb-image", &silent]);
    let words = [&["restore".to_string(), path.into()][..], &words[1..]].concat();
    let mut process = it.command(&words).command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let is_running = || docker(&["inspect", "--format", "{{.State.Running}}", &it.container("influxdb")]);
    eventually("it waits for InfluxDB", SOON, || is_running().is_ok_and(|text| text == "true"));
    // No lock keeps runs of two machines apart.
    let locks = tempfile::tempdir().unwrap();
    let words = it.first(&[]);
    let words = [&["restore".to_string(), path.into()][..], &words[1..]].concat();
    let refused = it.command(&words).env("XDG_RUNTIME_DIR", locks.path().to_str().unwrap()).run();
    let unnamed = it.command(&["restore", other]).env("XDG_RUNTIME_DIR", locks.path().to_str().unwrap()).run();
    let is_left = is_running();
    process.kill().unwrap();
    process.wait().unwrap();
    let refused = refused.expect(2);
    let run = format!("started by process {} on ", process.id());
    assert!(refused.err.contains(&run) && refused.err.contains("--yes"), "{}", refused.err);
    assert_eq!(is_left.unwrap(), "true", "the other restore continues");
    // `--yes` answers every question, so the command names the images that only another archive names.
    let hint = unnamed.expect(2).err;
    assert!(hint.contains("trust the images that this command uses") && hint.contains("--registry"), "{hint}");
    // That process has ended.
    it.run(
        &[&words[..], &["--influxdb-image".into(), format!("{}/influxdb:1.12.4", crate::support::registry::address())]]
            .concat(),
    )
    .expect(0);
}

#[test]
fn a_restore_killed_at_any_time_can_be_restarted() {
    let it = filled("backup-kills");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let path = file.to_str().unwrap();
    it.run(&["backup", path]).expect(0);
    let before = answers(&it, now());
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let words = it.first(&["--verbose"]);
    let words = [&["restore".to_string(), path.into()][..], &words[1..]].concat();
    for steps in 1..=6 {
        let mut process = it.command(&words).command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = std::io::BufReader::new(process.stderr.take().unwrap());
        let lines = std::io::BufRead::lines(errors).map_while(Result::ok);
        let seen = lines.filter(|line| line.contains(": done in")).take(steps).count();
        assert_eq!(seen, steps);
        process.kill().unwrap();
        process.wait().unwrap();
        let up = it.run(&["up"]).expect(1);
        assert!(up.err.contains("is not finished"), "after {steps} steps: {}", up.err);
    }
    it.run(&words).expect(0);
    assert_eq!(answers(&it, now()).len(), before.len());
    assert_eq!(it.grafana_as("somebody", "somebodys-password", "GET", "/api/user", None).0, 200);
}

#[test]
fn a_reporting_clipper_does_not_disturb_a_restore() {
    let it = filled("backup-clipper");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let path = file.to_str().unwrap();
    it.run(&["backup", path]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let has_ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // As Clipper does at its start and afterwards.
        scope.spawn(|| {
            while !has_ended.load(std::sync::atomic::Ordering::Relaxed) {
                let url = format!("{}/query?q=CREATE+DATABASE+d", it.influxdb());
                crate::support::run::http_with("POST", &url, None, &[]);
                std::thread::yield_now();
            }
        });
        let restored = restore(&it, path, &[]);
        has_ended.store(true, std::sync::atomic::Ordering::Relaxed);
        restored.expect(0);
    });
    assert!(it.query("d", "SELECT count(*) FROM /.*/").contains("series"), "its points are there");
    it.run(&["status"]).expect(0);
}

#[test]
fn restore_pulls_existing_images_on_request() {
    let it = Instance::new("backup-pull");
    it.first_up(&[]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let path = file.to_str().unwrap();
    it.run(&["backup", path]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let pulled = restore(&it, path, &["--pull", "always"]).expect(0);
    assert!(
        pulled.err.contains("pull InfluxDB's image") && pulled.err.contains("pull Grafana's image"),
        "{}",
        pulled.err
    );
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let missing = restore(&it, path, &["--pull", "missing"]).expect(0);
    assert!(!missing.err.contains("pull InfluxDB's image"), "{}", missing.err);
}

/// Runs a command in InfluxDB's container.
fn inside(it: &Instance, script: &str) -> String {
    docker(&["exec", &it.container("influxdb"), "bash", "-c", script]).unwrap()
}

#[test]
fn another_backup_and_a_paused_grafana_are_not_disturbed() {
    let it = Instance::new("backup-others");
    it.first_up(&[]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    let path = path.to_str().unwrap();
    let data = "/var/lib/influxdb";
    // The copies of a run on another machine, and of one that was killed an hour ago.
    inside(&it, &format!("mkdir {data}/clipper-metrics-backup-box-7-8 && mkdir {data}/clipper-metrics-backup-box-1-2"));
    inside(&it, &format!("touch -d '1 hour ago' {data}/clipper-metrics-backup-box-1-2"));
    docker(&["pause", &it.container("grafana")]).unwrap();
    let paused = it.run(&["backup", path]).expect(1);
    assert!(paused.err.contains("is paused") && paused.err.contains("process 7 on box"), "{}", paused.err);
    assert!(!paused.err.contains("process 1 on box"), "it was killed: {}", paused.err);
    assert_eq!(it.inspect("grafana")["State"]["Paused"], true, "it stays paused for the other run");
    docker(&["unpause", &it.container("grafana")]).unwrap();
    it.run(&["backup", path]).expect(0);
    let left = inside(&it, &format!("cd {data} && echo clipper-metrics*"));
    assert_eq!(left, "clipper-metrics-backup-box-7-8", "only the copy of the active run");
    inside(&it, &format!("rm -rf {data}/clipper-metrics-backup-box-7-8"));
    docker(&["pause", &it.container("grafana")]).unwrap();
    let paused = it.run(&["backup", folder.path().join("other").to_str().unwrap()]).expect(1);
    assert!(paused.err.contains("is paused") && paused.err.contains("clipper-metrics up"), "{}", paused.err);
    it.run(&["up"]).expect(0);
}

#[test]
fn backups_from_two_machines_do_not_disturb_each_other() {
    let it = Instance::new("backup-both");
    it.first_up(&[]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    let mut whole = 0;
    for round in 0..5 {
        let files = [0, 1].map(|run| folder.path().join(format!("saved-{round}-{run}")));
        let processes = [0, 1].map(|run: usize| {
            // Locks are kept per machine: each run has its own directory.
            let home = folder.path().join(format!("home-{run}"));
            std::fs::create_dir_all(&home).unwrap();
            let words = ["backup", files[run].to_str().unwrap()];
            let command = it.command(&words).env("XDG_RUNTIME_DIR", home.to_str().unwrap());
            command.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        let ended = processes.map(|process| ran(&process.wait_with_output().unwrap()));
        for (ran, file) in ended.iter().zip(&files) {
            assert!(matches!(ran.code, 0 | 1), "{ran:?}");
            assert_eq!(ran.code == 0, file.exists(), "{ran:?}");
            if ran.code == 0 {
                whole += 1;
                clipper_metrics::backup::archive::Verified::open(file).unwrap();
            } else {
                // Whether the other run still has Grafana paused at this moment depends on timing.
                let is_told = ran.err.contains("is paused") || ran.err.contains("paused its container in the meantime");
                assert!(is_told, "{}", ran.err);
            }
        }
        assert!(ended.iter().any(|ran| ran.code == 0), "one of them succeeds: {ended:?}");
        assert_eq!(it.inspect("grafana")["State"]["Paused"], false);
        assert_eq!(inside(&it, "cd /var/lib/influxdb && echo clipper-metrics*"), "clipper-metrics*", "nothing is left");
    }
    assert!(whole >= 5);
}

#[test]
fn a_file_that_cannot_be_created_is_detected_before_anything_is_copied() {
    let it = Instance::new("backup-file");
    it.first_up(&[]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("no/such/folder");
    let ran = it.run(&["--verbose", "backup", nowhere.to_str().unwrap()]).expect(1);
    assert!(ran.err.contains("no/such/folder") && ran.err.contains("hint: "), "{}", ran.err);
    let copying = "copy InfluxDB's data";
    assert!(!ran.err.contains(copying), "no command ran inside: {}", ran.err);
    let whole = folder.path().join("saved");
    assert!(it.run(&["--verbose", "backup", whole.to_str().unwrap()]).expect(0).err.contains(copying));
}

#[test]
fn damaged_archives_and_conflicts_are_refused_before_anything_is_created() {
    let it = filled("backup-refused");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    it.run(&["backup", file.to_str().unwrap()]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let whole = std::fs::read(&file).unwrap();
    let nothing_is_made = || {
        for kind in ["container", "volume", "network"] {
            let filter = format!("label=clipper-metrics.instance={}", it.name);
            let words: &[&str] = match kind {
                "container" => &["ps", "--all", "--quiet", "--filter", &filter],
                _ => &[kind, "ls", "--quiet", "--filter", &filter],
            };
            assert_eq!(docker(words).unwrap(), "", "{kind}");
        }
    };
    let broken = folder.path().join("broken");
    let mut altered = whole.clone();
    // Part of the checksum: flipping a bit in the middle may give another encoding of the same data.
    altered[whole.len() - 6] ^= 1;
    for bytes in [&whole[..whole.len() / 2], &whole[..whole.len() - 4], &altered, b"no archive"] {
        std::fs::write(&broken, bytes).unwrap();
        let ran = it.run(&["restore", broken.to_str().unwrap()]).expect(2);
        assert!(ran.err.contains("/broken") && ran.err.contains("nothing was restored"), "{}", ran.err);
        nothing_is_made();
    }
    let path = file.to_str().unwrap();
    let words = [&["restore".to_string(), path.into()][..], &it.first(&[])[1..]].concat();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let external = it.command(&words).env("CLIPPER_METRICS_INFLUXDB_URL", "http://127.0.0.1:1").run().expect(2);
    assert!(external.err.contains("is external"), "{}", external.err);
    let old = restore(&it, path, &["--grafana-image", "grafana/grafana:7.0.0"]).expect(2);
    assert!(old.err.contains("too old"), "{}", old.err);
    let old = restore(&it, path, &["--influxdb-image", "influxdb:1.5.4"]).expect(2);
    assert!(old.err.contains("too old") && old.err.contains("--influxdb-image"), "{}", old.err);
    // Until there is an instance, the suggested command is the restore with another port.
    let (holder, image) =
        (format!("{}-holder", it.name), format!("{}/influxdb:1.12.4", crate::support::registry::address()));
    let run = ["run", "--detach", "--name", &holder, "--publish", "127.0.0.1:0:80", "--entrypoint", "/usr/bin/sleep"];
    docker(&[&run[..], &[&image, "900"]].concat()).unwrap();
    let held = docker(&["port", &holder, "80/tcp"]).unwrap();
    let held = held.rsplit(':').next().unwrap();
    let taken = restore(&it, path, &["--grafana-port", held]).expect(1);
    assert!(taken.err.contains(&format!("`clipper-metrics restore {path} --grafana-port ")), "{}", taken.err);
    docker(&["rm", "--force", &holder]).unwrap();
    nothing_is_made();
    // A port in use is reported, with the option that changes it.
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let taken = restore(&it, path, &["--influxdb-port", &port]).expect(1);
    assert!(taken.err.contains(&port) && taken.err.contains("clipper-metrics up --influxdb-port"), "{}", taken.err);
    assert!(taken.err.contains("all data is restored"), "{}", taken.err);
    it.run(&["up", "--influxdb-port", &it.influxdb_port.to_string()]).expect(0);
    assert_eq!(it.grafana_as("somebody", "somebodys-password", "GET", "/api/user", None).0, 200);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    // A restore that fails half-way leaves nothing either.
    let silent = format!("{}/odd:silent", crate::support::registry::address());
    let half = restore(&it, path, &["--influxdb-image", &silent, "--timeout", "10s"]).expect(1);
    assert!(half.err.contains("everything created was removed"), "{}", half.err);
    nothing_is_made();
    // Once all data is restored, the instance stays.
    let late = restore(&it, path, &["--grafana-image", &silent, "--timeout", "15s"]).expect(1);
    assert!(late.err.contains("all data is restored"), "{}", late.err);
    let mut up = it.first(&[]);
    if !up.contains(&"--grafana-image".to_string()) {
        up.extend(["--grafana-image".into(), String::new()]);
    }
    it.run(&up).expect(0);
    assert_eq!(it.grafana_as("somebody", "somebodys-password", "GET", "/api/user", None).0, 200);
}

#[test]
fn an_interrupted_backup_leaves_no_file_and_no_paused_container() {
    let it = filled("backup-interrupted");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let words = ["backup", file.to_str().unwrap()];
    let start = || it.command(&words).command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // At any moment.
    for wait in [0, 20, 60, 120, 200, 300] {
        let process = start();
        std::thread::sleep(Duration::from_millis(wait));
        interrupt(process.id());
        let ran = ran(&process.wait_with_output().unwrap());
        // Before it handles signals, a signal ends it at once.
        assert!(matches!(ran.code, 0 | 130 | -1), "{ran:?}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), usize::from(ran.code == 0), "{left:?}");
        let _ = std::fs::remove_file(&file);
        assert_eq!(it.inspect("grafana")["State"]["Paused"], false);
    }
    // A killed backup may leave Grafana paused: that is reported, and `up` unpauses it.
    docker(&["pause", &it.container("grafana")]).unwrap();
    let state = it.run(&["status"]).expect(3);
    assert!(state.out.contains("paused"), "{}", state.out);
    it.run(&["up"]).expect(0);
    eventually("it runs", SOON, || it.inspect("grafana")["State"]["Paused"] == false);
    it.run(&["backup", file.to_str().unwrap()]).expect(0);
    it.run(&["down"]).expect(0);
    let stopped = it.run(&["backup", folder.path().join("other").to_str().unwrap()]).expect(1);
    assert!(stopped.err.contains("is not running") && stopped.err.contains("clipper-metrics up"), "{}", stopped.err);
}

/// Interrupts a command while the engine has not yet read a request that creates or pauses something, and waits until
/// the engine has carried it out.
fn interrupted_at(it: &Instance, words: &[String], path: &'static str, number: usize) {
    let front = Front::delaying("POST", path, number, Duration::from_secs(1));
    let command = it.command(words).env("DOCKER_HOST", &front.host());
    let process = command.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the request is sent", SOON, || front.is_delaying());
    interrupt(process.id());
    let ran = ran(&process.wait_with_output().unwrap()).expect(130);
    assert!(!ran.err.contains("remain"), "{}", ran.err);
    eventually("the engine carries it out", SOON, || front.has_passed_on());
}

#[test]
fn a_request_that_a_busy_engine_carries_out_after_an_interruption_leaves_nothing() {
    let it = filled("backup-busy");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved").to_str().unwrap().to_string();
    let backup = ["backup".to_string(), path.clone()];
    interrupted_at(&it, &backup, "/pause", 1);
    assert_eq!(it.inspect("grafana")["State"]["Paused"], false);
    // InfluxDB's backup is the fourth command inside its container, after a search, a touch and a new directory.
    interrupted_at(&it, &backup, "/start", 4);
    let find = ["find", "/var/lib/influxdb", "-name", "clipper-metrics-backup*"];
    let find = || docker(&[&["exec", &it.container("influxdb")], &find[..]].concat()).unwrap();
    // A late start would need a moment for its files.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(find(), "");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let doctor = ["doctor".to_string(), "--from".into(), it.container("influxdb")];
    interrupted_at(&it, &doctor, "/containers/create", 1);
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", &format!("name={}-doctor", it.name)]).unwrap(), "");
    it.run(&backup).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let restore = [&["restore".to_string(), path][..], &it.first(&[])[1..]].concat();
    for request in ["/volumes/create", "/networks/create", "/containers/create"] {
        interrupted_at(&it, &restore, request, 1);
        for objects in ["volume", "network", "container"] {
            let named = format!("name={}", it.name);
            let all: &[&str] = if objects == "container" { &["--all"] } else { &[] };
            let left = docker(&[&[objects, "ls", "--quiet", "--filter", &named], all].concat()).unwrap();
            assert_eq!(left, "", "{request} left a {objects}");
        }
    }
    it.run(&restore).expect(0);
}

/// Unpacks an archive with one entry in a folder of a container.
fn unpack(container: &str, folder: &str, append: impl Fn(&mut tar::Builder<Vec<u8>>, &mut tar::Header)) {
    let (mut builder, mut header) = (tar::Builder::new(Vec::new()), tar::Header::new_gnu());
    append(&mut builder, &mut header);
    let mut command = std::process::Command::new("docker");
    let command = command.args(["cp", "-", &format!("{container}:{folder}")]).stdin(Stdio::piped());
    let mut process = command.spawn().unwrap();
    std::io::Write::write_all(&mut process.stdin.take().unwrap(), &builder.into_inner().unwrap()).unwrap();
    assert!(process.wait().unwrap().success());
}

/// Replaces a file of a container by a link.
fn put_link(container: &str, folder: &str, name: &str, target: &str) {
    unpack(container, folder, |builder, header| {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(header, name, target).unwrap();
    });
}

#[test]
fn a_linked_database_is_refused_by_backup_and_by_an_upgrade() {
    let it = Instance::with_grafana("backup-link", "grafana/grafana:9.4.0");
    it.first_up(&[]).expect(0);
    // The image has no program that creates links, so the engine unpacks one.
    let script = "cd /var/lib/grafana && cat grafana.db > real";
    docker(&["exec", &it.container("grafana"), "/bin/sh", "-c", script]).unwrap();
    put_link(&it.container("grafana"), "/var/lib/grafana", "grafana.db", "real");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let refused = it.run(&["backup", file.to_str().unwrap()]).expect(1);
    // Podman follows the link, and reports only its target.
    let expected = if is_podman() { "is a link to real" } else { "grafana.db is a symbolic link to real" };
    assert!(refused.err.contains(expected), "{}", refused.err);
    assert!(refused.err.contains("put a regular file in its place"), "{}", refused.err);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(it.inspect("grafana")["State"]["Paused"], false);
    // Without a copy of the database, the newer version is not started.
    let newer = format!("{}/grafana/grafana:12.4.10", crate::support::registry::address());
    let refused = it.run(&["up", "--grafana-image", &newer]).expect(1);
    let expected = if is_podman() { "grafana.db is a link to real" } else { "grafana.db is a symbolic link" };
    assert!(refused.err.contains(expected), "{}", refused.err);
    it.run(&["status"]).expect(0);
    assert!(it.inspect("grafana")["Config"]["Image"].as_str().unwrap().ends_with(":9.4.0"));
    assert_eq!(it.inspect("grafana")["State"]["Running"], true);
}

#[test]
fn a_restored_volume_names_no_image_of_another_repository() {
    let it = Instance::new("backup-untrusted");
    it.first_up(&[]).expect(0);
    let grafana = it.container("grafana");
    let text = "12.3 evil.example/grafana:1 c";
    unpack(&grafana, "/var/lib/grafana", |builder, header| {
        header.set_size(text.len() as u64);
        header.set_mode(0o400);
        builder.append_data(header, "clipper-metrics/version", text.as_bytes()).unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let path = file.to_str().unwrap();
    it.run(&["backup", path]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    restore(&it, path, &[]).expect(0);
    let copied = docker(&["cp", &format!("{grafana}:/var/lib/grafana/clipper-metrics/version"), "-"]).unwrap();
    assert!(copied.contains("12.") && !copied.contains("evil.example"), "{copied}");
    it.run(&["status"]).expect(0);
}

#[test]
fn images_named_only_by_the_archive_run_only_after_confirmation() {
    let it = Instance::new("backup-images");
    it.first_up(&[]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    let path = file.to_str().unwrap();
    it.run(&["backup", path]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    let refused = it.run(&["restore", path]).expect(2);
    let image = format!("{}/influxdb:1.12.4", crate::support::registry::address());
    assert!(refused.err.contains(&format!("the archive names {image} for InfluxDB")), "{}", refused.err);
    assert_eq!(docker(&["volume", "ls", "--quiet", "--filter", &format!("name={}", it.name)]).unwrap(), "");
    // The command in the hint names them, and is accepted as printed.
    let command = refused.err.split('`').nth(1).unwrap();
    let registry = crate::support::registry::address();
    assert!(command.contains(&format!("--registry {registry}")), "{command}");
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    crate::support::run::Run::new(words).run().expect(0);
    it.run(&["status"]).expect(0);
}
