//! From every state, `status` names the difference, and `up` reaches the same state as a first one
//! and keeps the data.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use super::engine::OwnEngine;
use super::instance::{Instance, SOON, docker, is_podman};
use crate::support::run::{Run, http_with, ran};
use crate::support::{eventually, free_port, influxd, registry};

/// Breaks something; `status` reports it, `up` repairs it, and the points written before still exist.
fn repaired(it: &Instance, what: &str, break_it: impl FnOnce()) {
    break_it();
    let before = it.run(&["status", "--output", "json"]);
    assert_eq!(before.code, 3, "{what}: {}{}", before.out, before.err);
    let told = before.json();
    assert!(!told["findings"].as_array().unwrap().is_empty(), "{what} is named: {told}");
    let up = it.run(&["up"]);
    assert_eq!(up.code, 0, "{what}: {}", up.err);
    it.assert_whole();
}

#[test]
fn a_paused_grafana_is_replaced_at_another_port() {
    let it = Instance::new("paused-moved");
    it.first_up(&[]).expect(0);
    docker(&["pause", &it.container("grafana")]).unwrap();
    let port = free_port().to_string();
    it.run(&["up", "--grafana-port", &port]).expect(0);
    let (code, _) = http_with("GET", &format!("http://127.0.0.1:{port}/api/health"), None, &[]).unwrap();
    assert_eq!(code, 200);
    assert!(it.run(&["up"]).expect(0).out.contains("nothing to do"));
}

#[test]
fn containers_in_any_state_are_repaired_with_their_data() {
    let it = Instance::new("states");
    it.first_up(&["--database", "d"]).expect(0);
    influxd::write(&it.influxdb(), "d", "m1_prediction_counter value=7");
    for role in ["influxdb", "grafana"] {
        let name = it.container(role);
        let done = |words: &[&str]| drop(docker(words).unwrap());
        repaired(&it, "stopped", || done(&["stop", "--time", "5", &name]));
        repaired(&it, "paused", || done(&["pause", &name]));
        repaired(&it, "killed", || done(&["kill", &name]));
        repaired(&it, "removed", || done(&["rm", "--force", &name]));
        repaired(&it, "made by hand on its volume with our label and garbage in it", || {
            done(&["rm", "--force", &name]);
            let label = format!("clipper-metrics.instance={}", it.name);
            let volume = format!("{name}:/var/lib/{role}");
            let image = format!("{}/odd:exits", registry::address());
            let words = ["create", "--name", &name, "--label", &label, "--label", "clipper-metrics.specification={{{"];
            let words = [&words[..], &["--volume", &volume]].concat();
            docker(&["pull", &image]).unwrap();
            done(&[&words[..], &[&image]].concat());
        });
    }
    assert!(it.query("d", "SELECT value FROM m1_prediction_counter").contains(",7]"), "the point is still there");
}

#[test]
fn networks_volumes_and_images_are_repaired() {
    let it = Instance::new("around");
    let image = format!("cm-test-retagged:{}", std::process::id());
    let original = format!("{}/grafana/grafana:12.4.10", registry::address());
    docker(&["pull", &original]).unwrap();
    docker(&["tag", &original, &image]).unwrap();
    it.first_up(&["--database", "d", "--grafana-image", &image]).expect(0);
    influxd::write(&it.influxdb(), "d", "m1_prediction_counter value=7");
    let (influxdb, grafana) = (it.container("influxdb"), it.container("grafana"));
    let unplug = || {
        docker(&["stop", "--time", "5", &influxdb, &grafana]).unwrap();
        for name in [&influxdb, &grafana] {
            docker(&["network", "disconnect", "--force", &it.name, name]).unwrap();
        }
        docker(&["network", "rm", &it.name]).unwrap();
    };
    repaired(&it, "the network removed", unplug);
    repaired(&it, "the network made again under the same name", || {
        unplug();
        docker(&["network", "create", "--label", &format!("clipper-metrics.instance={}", it.name), &it.name]).unwrap();
    });
    // The engine's client checks for duplicates; its API does so only from 1.44 on.
    let second = json!({"Name": it.name, "Labels": {"clipper-metrics.instance": it.name}, "Driver": "bridge"});
    if crate::support::run::engine_post("/networks/create", &second) {
        repaired(&it, "duplicate networks", || {});
    } else {
        let api = docker(&["version", "--format", "{{.Server.APIVersion}}"]).unwrap();
        let minor: u32 = api.split('.').nth(1).unwrap().parse().unwrap();
        assert!(minor >= 44 || is_podman(), "only newer engines refuse it: {api}");
    }
    let kept = it.id("influxdb");
    repaired(&it, "the image retagged", || {
        let other = format!("{}/grafana/grafana:13.2.3", registry::address());
        docker(&["pull", &other]).unwrap();
        docker(&["tag", &other, &image]).unwrap();
    });
    assert_eq!(kept, it.id("influxdb"), "InfluxDB is left alone");
    repaired(&it, "Grafana's volume gone", || {
        docker(&["rm", "--force", &grafana]).unwrap();
        docker(&["volume", "rm", &grafana]).unwrap();
    });
    assert!(it.query("d", "SELECT value FROM m1_prediction_counter").contains(",7]"), "the point is still there");
    let _ = docker(&["rmi", "--force", &image]);
}

#[test]
fn objects_inside_the_servers_are_repaired() {
    let it = Instance::new("inside");
    it.first_up(&["--database", "d"]).expect(0);
    let source = format!("/api/datasources/uid/{}", it.name);
    let dashboard = format!("/api/dashboards/uid/{}", it.name);
    let ids = [it.id("influxdb"), it.id("grafana")];
    repaired(&it, "the database dropped", || drop(it.query("", "DROP DATABASE d")));
    repaired(&it, "the data source deleted", || drop(it.grafana("DELETE", &source, None)));
    repaired(&it, "the data source pointed elsewhere", || {
        let (_, mut body) = it.grafana("GET", &source, None);
        body["url"] = json!("http://127.0.0.1:1");
        assert_eq!(it.put_source(&body), 200);
    });
    repaired(&it, "the dashboard deleted", || drop(it.grafana("DELETE", &dashboard, None)));
    assert_eq!(ids, [it.id("influxdb"), it.id("grafana")], "no container was touched");
}

#[test]
fn a_changed_port_replaces_one_container_and_is_named_as_the_reason() {
    let it = Instance::new("ports");
    it.first_up(&[]).expect(0);
    let (influxdb, grafana) = (it.id("influxdb"), it.id("grafana"));
    let port = crate::support::free_port().to_string();
    let plan = it.run(&["up", "--dry-run", "--grafana-port", &port]).expect(3);
    assert!(plan.out.contains(&format!("127.0.0.1:{} -> 127.0.0.1:{port}", it.grafana_port)), "{}", plan.out);
    assert!(!plan.out.contains("InfluxDB's container"), "{}", plan.out);
    it.run(&["up", "--grafana-port", &port]).expect(0);
    assert_eq!(influxdb, it.id("influxdb"));
    assert_ne!(grafana, it.id("grafana"));
    it.run(&["status"]).expect(0);
}

#[test]
fn killed_after_every_step_up_converges() {
    let it = Instance::new("steps");
    let words = it.first(&["--database", "d", "--verbose"]);
    let mut killed = 0;
    for step in 1.. {
        it.run(&["down", "--volumes", "--yes"]).expect(0);
        let mut process = it.command(&words).command().stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let done = lines.map_while(Result::ok).filter(|line| line.contains(": done in")).take(step).count();
        if done < step {
            assert!(process.wait().unwrap().success());
            break;
        }
        let _ = process.kill();
        let _ = process.wait();
        killed += 1;
        let up = ran(&it.command(&words).command().output().unwrap());
        assert_eq!(up.code, 0, "after step {step}: {}", up.err);
        it.assert_whole();
        assert!(it.is_home(), "after step {step}");
    }
    assert!(killed > 10, "{killed} steps");
}

#[test]
fn killed_at_random_moments_up_converges() {
    let it = Instance::new("random");
    let words = it.first(&["--database", "d"]);
    it.command(&words).run().expect(0);
    influxd::write(&it.influxdb(), "d", "m1_prediction_counter value=7");
    let mut chance = fastrand::Rng::with_seed(7);
    for round in 0..50 {
        // A change, so that there is something to interrupt.
        match round % 4 {
            0 => drop(it.run(&["down"])),
            1 => drop(docker(&["rm", "--force", &it.container("grafana")])),
            2 => drop(docker(&["kill", &it.container("influxdb")])),
            _ => {}
        }
        let mut process = it.command(&words).command().stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(chance.u64(1..900)));
        let _ = process.kill();
        let _ = process.wait();
        if round % 5 == 4 {
            it.command(&words).run().expect(0);
            it.assert_whole();
        }
    }
    it.command(&words).run().expect(0);
    it.assert_whole();
    assert!(it.query("d", "SELECT value FROM m1_prediction_counter").contains(",7]"), "the point is still there");
}

#[test]
fn concurrent_runs_all_succeed() {
    let it = Instance::new("many");
    let words = it.first(&[]);
    // Each run has its own home, as with different users, so no lock keeps them apart.
    let start = |run: Run| run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let up = || it.command(&words);
    let ups: Vec<_> = (0..6).map(|_| start(up())).collect();
    for up in ups {
        let ran = ran(&up.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    it.assert_whole();
    // `up` in parallel with `down`, and `status` in parallel with both.
    let (down, status) = (|| it.command(&["down"]), || it.command(&["status"]));
    let mixed = [up(), down(), status(), up(), status(), down()].map(start);
    for process in mixed {
        let ran = ran(&process.wait_with_output().unwrap());
        assert!(matches!(ran.code, 0 | 1 | 3), "{ran:?}");
        assert!(ran.code != 1 || ran.err.contains("hint: "), "a clear error: {ran:?}");
        assert!(!ran.err.contains("panicked"), "{ran:?}");
    }
    it.command(&words).run().expect(0);
    it.assert_whole();
}

#[test]
fn two_runs_of_one_user_wait_for_each_other() {
    let it = Instance::new("lock");
    let home = tempfile::tempdir().unwrap();
    let words = it.first(&[]);
    let start = || {
        let run = it.command(&words).env("HOME", home.path().to_str().unwrap());
        run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [start(), start()];
    let outputs = both.map(|process| ran(&process.wait_with_output().unwrap()));
    assert!(outputs.iter().all(|ran| ran.code == 0), "{outputs:?}");
    assert!(outputs.iter().any(|ran| ran.out.contains("nothing to do")), "{outputs:?}");
    assert!(outputs.iter().any(|ran| ran.err.contains("waiting")), "{outputs:?}");
}

#[test]
fn interrupted_it_ends_at_once_and_reports_the_rest() {
    let it = Instance::with_grafana("interrupt", "odd:silent");
    for signal in ["-INT", "-TERM", "-HUP"] {
        it.run(&["down"]).expect(0);
        let run = it.command(&it.first(&[]));
        // Regardless of signals that the tests themselves ignore.
        let process = through("env", &["--default-signal=HUP"], &run.command()).spawn().unwrap();
        eventually("it waits for Grafana", SOON, || {
            docker(&["inspect", "--format", "{{.State.Running}}", &it.container("grafana")])
                .is_ok_and(|text| text == "true")
        });
        let started = std::time::Instant::now();
        std::process::Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap();
        let ran = ran(&process.wait_with_output().unwrap());
        assert!(started.elapsed() < Duration::from_secs(5), "it ends soon");
        assert_eq!(ran.code, 130, "{ran:?}");
        assert!(ran.err.contains("run the same command again"), "{ran:?}");
    }
    it.run(&["down", "--volumes", "--yes"]).expect(0);
}

/// A run started by another program.
fn through(program: &str, words: &[&str], run: &std::process::Command) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.args(words).arg(run.get_program()).args(run.get_args()).env_clear();
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_run_started_with_nohup_outlives_its_terminal() {
    let it = Instance::new("nohup");
    let run = it.command(&it.first(&[]));
    let process = through("nohup", &[], &run.command()).spawn().unwrap();
    eventually("it has begun", SOON, || docker(&["network", "inspect", &it.name]).is_ok());
    std::process::Command::new("kill").args(["-HUP", &process.id().to_string()]).status().unwrap();
    let ran = ran(&process.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    it.assert_whole();
}

#[test]
fn an_engine_that_dies_in_the_middle_does_no_damage() {
    let mut engine = OwnEngine::start();
    let registry = OwnEngine::registry();
    let words = ["up", "--registry", &registry, "--timeout", "60s"];
    let silent = ["--grafana-image", &format!("{registry}/odd:silent")].map(ToString::to_string);
    // During a pull, a creation and a wait. Not during a start: an engine that dies there can leave
    // a process behind that holds the port, which no client can remove.
    let moments: [(&str, &[&str]); 4] = [
        ("pull", &["pull InfluxDB's image …"]),
        ("create", &["create the network …"]),
        ("create", &["create InfluxDB's container …", "create Grafana's container …"]),
        ("wait", &["wait for Grafana …", "create the database: done"]),
    ];
    for (kind, signs) in moments {
        engine.program(&["down", "--volumes", "--yes"]).output().unwrap();
        for image in ["influxdb:1.12.4", "grafana/grafana:12.4.10"] {
            engine.docker(&["rmi", "--force", &format!("{registry}/{image}")]);
        }
        let mut up = engine.program(&words);
        if kind == "wait" {
            up.args(&silent);
        }
        let mut up = up.arg("-v").stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut said = Vec::new();
        for line in BufReader::new(up.stderr.take().unwrap()).lines().map_while(Result::ok) {
            let all =
                |said: &[String]| signs.iter().all(|sign| said.iter().any(|line: &String| line.starts_with(sign)));
            let before = all(&said);
            said.push(line);
            if !before && all(&said) {
                engine.kill();
            }
        }
        let code = up.wait().unwrap().code();
        assert_eq!(code, Some(1), "{signs:?}: {said:?}");
        assert!(said.iter().any(|line| line.starts_with("hint: ")), "{signs:?}: {said:?}");
        engine.revive();
        // Earlier options are remembered, including the silent image, so another image is named now.
        let image = ["--grafana-image", &format!("{registry}/grafana/grafana:12.4.10")].map(ToString::to_string);
        let up = ran(&engine.program(&words).args(&image).output().unwrap());
        assert_eq!(up.code, 0, "{signs:?}: {}{}", up.err, engine.state());
        assert_eq!(ran(&engine.program(&["status"]).output().unwrap()).code, 0, "{signs:?}");
    }
    engine.program(&["down", "--volumes", "--yes"]).output().unwrap();
}

#[test]
fn a_watch_outlives_an_engine_that_restarts() {
    let mut engine = OwnEngine::start();
    let registry = OwnEngine::registry();
    let up = ran(&engine.program(&["up", "--registry", &registry]).output().unwrap());
    assert_eq!(up.code, 0, "{}", up.err);
    let mut watch =
        engine.program(&["status", "--watch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().unwrap().contains("in sync"));
    let mut notes = BufReader::new(watch.stderr.take().unwrap()).lines().map_while(Result::ok);
    engine.kill();
    assert!(notes.next().unwrap().contains("retrying"), "it says so");
    engine.revive();
    // Whatever the state of the servers after the restart, the output continues.
    assert_eq!(ran(&engine.program(&["up"]).output().unwrap()).code, 0);
    assert!(lines.any(|line| line.contains("clipper-metrics in sync")), "the output continues");
    super::lifecycle::interrupt(watch.id());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    engine.program(&["down", "--volumes", "--yes"]).output().unwrap();
}
