//! Another version of Grafana is tried while a copy of the database is kept: a failing one is
//! rolled back, automatically and after a kill, and a working one is accepted.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use super::instance::{Instance, PODMAN_LEARNS, SOON, bridge, docker, is_podman, settings_volumes};
use crate::support::front::Front;
use crate::support::run::{basic, http_with, ran};
use crate::support::{eventually, registry};

const OLD: &str = "grafana/grafana:12.4.10";
const NEW: &str = "grafana/grafana:13.2.3";

fn image(name: &str) -> String {
    format!("{}/{name}", registry::address())
}

/// An instance with a user's edit in Grafana.
fn with_data(name: &str) -> Instance {
    let it = Instance::with_grafana(name, OLD);
    it.first_up(&["--database", "d"]).expect(0);
    it.run(&["demo", "--backfill", "10m", "--models", "m1"]).expect(0);
    let folder = r#"{"title": "Mine", "uid": "mine"}"#;
    assert_eq!(it.grafana("POST", "/api/folders", Some(folder)).0, 200);
    it
}

fn has_data(it: &Instance) -> bool {
    it.grafana("GET", "/api/folders/mine", None).0 == 200
        && it.grafana("GET", &format!("/api/dashboards/uid/{}", it.name), None).0 == 200
}

/// The image of Grafana's container.
fn runs(it: &Instance) -> String {
    it.inspect("grafana")["Config"]["Image"].as_str().unwrap().to_string()
}

/// The recorded upgrade.
fn remembered(it: &Instance) -> String {
    let volumes = settings_volumes(&it.name);
    assert_eq!(volumes.len(), 1, "one memory");
    let label = "{{index .Labels \"clipper-metrics.upgrade\"}}";
    docker(&["volume", "inspect", "--format", label, &volumes[0]]).unwrap()
}

/// Grafana's image in the remembered settings.
fn saved_image(it: &Instance) -> Option<String> {
    // A run that was killed while saving leaves both the earlier and the new settings.
    let newest = settings_volumes(&it.name)
        .into_iter()
        .max_by_key(|name| name.rsplit('-').next().and_then(|number| number.parse::<u32>().ok()))?;
    let label = "{{index .Labels \"clipper-metrics.settings\"}}";
    let settings = docker(&["volume", "inspect", "--format", label, &newest]).ok()?;
    let settings: serde_json::Value = serde_json::from_str(&settings).ok()?;
    settings["grafana-image"]["value"].as_str().map(String::from)
}

/// The size of the copy in the volume.
fn copied(it: &Instance) -> usize {
    let path = format!("{}:/var/lib/grafana/clipper-metrics-upgrade", it.container("grafana"));
    let folder = tempfile::tempdir().unwrap();
    if docker(&["cp", &path, folder.path().to_str().unwrap()]).is_err() {
        return 0;
    }
    let files = std::fs::read_dir(folder.path().join("clipper-metrics-upgrade")).unwrap();
    files.map(|file| usize::try_from(file.unwrap().metadata().unwrap().len()).unwrap()).sum()
}

#[test]
fn a_working_image_is_accepted_and_the_copy_deleted() {
    let it = with_data("upgrade-works");
    let up = it.run(&["up", "--grafana-image", &image(NEW), "--output", "json"]).expect(0).json();
    let steps: Vec<&str> =
        up["steps"].as_array().unwrap().iter().map(|step| step["action"].as_str().unwrap()).collect();
    let at =
        |action: &str| steps.iter().position(|step| *step == action).unwrap_or_else(|| panic!("{action}: {steps:?}"));
    assert!(at("protect_database") < at("finish_upgrade"), "{steps:?}");
    assert!(has_data(&it) && runs(&it) == image(NEW));
    assert_eq!(remembered(&it), "");
    assert_eq!(copied(&it), 0);
    assert!(it.run(&["up"]).expect(0).out.contains("nothing to do"));
    // The same version from elsewhere is not an upgrade.
    it.run(&["down"]).expect(0);
    let up = it.run(&["up"]).expect(0);
    assert!(!up.err.contains("verify the dashboard's queries") && has_data(&it), "{}", up.err);
}

#[test]
fn a_failing_image_is_rolled_back_and_not_tried_again_automatically() {
    let it = with_data("upgrade-fails");
    // Only the limit ends the wait for two of them; the previous image must answer within it, too.
    for (behaviour, said, limit) in [
        ("crashes", "this one was made to fail", "60s"),
        ("migrates", "migrated, and died of it", "60s"),
        ("silent", "no answer within", "15s"),
        ("influxdb2", "does not", "60s"),
        ("no-queries", "made to answer no panel", "15s"),
    ] {
        let failing = image(&format!("odd:{behaviour}"));
        let up = it.run(&["up", "--grafana-image", &failing, "--timeout", limit]).expect(1);
        assert!(up.err.contains("runs again with its database"), "{behaviour}: {}", up.err);
        assert!(behaviour == "influxdb2" || up.err.contains(said), "{behaviour}: {}", up.err);
        assert!(up.err.contains(&format!("up --grafana-image {failing}")), "{behaviour}: {}", up.err);
        assert!(has_data(&it), "{behaviour}: the data is back");
        assert_eq!(runs(&it), image(OLD), "{behaviour}");
        assert_eq!(copied(&it), 0, "{behaviour}");
        let status = it.run(&["status"]).expect(0);
        assert!(status.out.contains("failed and is not used"), "{behaviour}: {}", status.out);
        let bare = it.run(&["up"]).expect(0);
        assert!(bare.out.contains("nothing to do"), "{behaviour}: {}", bare.out);
        // Even if all containers are recreated.
        it.run(&["down"]).expect(0);
        it.run(&["up"]).expect(0);
        assert!(has_data(&it) && runs(&it) == image(OLD), "{behaviour}");
    }
    // If it is named again, it is tried again; another one is tried automatically.
    let failing = image("odd:migrates");
    it.run(&["up", "--grafana-image", &failing]).expect(1);
    assert!(has_data(&it) && runs(&it) == image(OLD));
    it.run(&["up", "--grafana-image", &image(NEW)]).expect(0);
    assert!(has_data(&it) && runs(&it) == image(NEW));
    assert_eq!(remembered(&it), "");
}

#[test]
fn copying_the_database_does_not_count_towards_the_time_limit() {
    let it = with_data("upgrade-slow-copy");
    let front = Front::delaying("GET", "grafana.db", 1, Duration::from_secs(25));
    let words = ["up", "--grafana-image", &image(NEW), "--timeout", "20s"];
    it.command(&words).env("DOCKER_HOST", &front.host()).run().expect(0);
    assert!(front.has_passed_on() && has_data(&it) && runs(&it) == image(NEW));
}

#[test]
fn a_failure_of_the_engine_does_not_reject_the_image() {
    let it = with_data("upgrade-engine");
    let rules = "driver failed programming external connectivity on endpoint x (1): (iptables failed: iptables --wait \
                 -t nat -A DOCKER -j DNAT: iptables: No chain/target/match by that name. (exit status 1))";
    let low =
        "cannot expose privileged port 80, you can add 'net.ipv4.ip_unprivileged_port_start=80' to /etc/sysctl.conf";
    let groups = "OCI runtime create failed: cgroups: cgroup mountpoint does not exist: unknown";
    for (message, hint) in
        [(rules, "systemctl restart docker"), (low, "ip_unprivileged_port_start"), (groups, "/sys/fs/cgroup")]
    {
        let front = Front::refusing("POST", "/start", message);
        let up = it.command(&["up", "--grafana-image", &image(NEW)]).env("DOCKER_HOST", &front.host()).run().expect(1);
        assert!(up.err.contains(hint) && !up.err.contains("runs again with its database"), "{}", up.err);
    }
    // The engine works again: the same image is tried automatically.
    it.run(&["up"]).expect(0);
    assert!(has_data(&it) && runs(&it) == image(NEW));
    assert_eq!(remembered(&it), "");
}

#[test]
fn a_crash_loop_is_reported() {
    let it = Instance::new("crash-loop");
    let crashing = image("odd:crashes");
    let up = it.first_up(&["--grafana-image", &crashing]).expect(1);
    assert!(up.err.contains("this one was made to fail"), "{}", up.err);
    assert!(!up.err.contains("waits longer"), "{}", up.err);
    // Podman reports such a container as exited for a moment before its restart.
    eventually("a crash loop", SOON, || it.status()["grafana"]["state"] == "crashing");
    eventually("a crash loop in words", SOON, || {
        let shown = it.run(&["status"]).expect(3).out;
        assert!(!shown.contains("starting"), "{shown}");
        shown.contains("keeps crashing")
    });
}

#[test]
fn off_loopback_a_rollback_restores_the_password_and_rejects_admin_admin() {
    let it = Instance::with_grafana("upgrade-open", OLD);
    let address = bridge();
    it.first_up(&["--grafana-ip", &address, "--database", "d"]).expect(0);
    let password = |it: &Instance| {
        let status = it.run(&["status", "--show-secrets", "--output", "json"]).expect(0).json();
        status["account"]["password"].as_str().unwrap().to_string()
    };
    let before = password(&it);
    for behaviour in ["crashes", "migrates"] {
        let up = it.run(&["up", "--grafana-image", &image(&format!("odd:{behaviour}"))]).expect(1);
        assert!(up.err.contains("runs again with its database"), "{behaviour}: {}", up.err);
        assert_eq!(password(&it), before, "{behaviour}");
        let url = format!("http://{address}:{}/api/org", it.grafana_port);
        let sign_in = |password: &str| {
            let basic = basic("admin", password);
            http_with("GET", &url, None, &[("authorization", &basic)]).unwrap().0
        };
        assert_eq!((sign_in("admin"), sign_in(&before)), (401, 200), "{behaviour}");
        assert!(it.run(&["up"]).expect(0).out.contains("nothing to do"), "{behaviour}");
    }
    // A password that is set while another image is being tried is rolled back with its database.
    let words = ["up", "--grafana-image", &image(NEW), "--reset-grafana-password"];
    it.run(&words).expect(0);
    assert_ne!(password(&it), before);
}

#[test]
fn without_room_for_the_copy_the_old_version_keeps_running() {
    if is_podman() {
        // The engine treats a volume's size as a quota of its own file system, so such a volume is
        // not available here.
        return;
    }
    let it = Instance::with_grafana("upgrade-full", OLD);
    let volume = it.container("grafana");
    // A volume without settings would be an instance that has lost them.
    it.first_up(&["--database", "d"]).expect(0);
    it.run(&["down"]).expect(0);
    docker(&["volume", "rm", &volume]).unwrap();
    let (instance, size) = (format!("clipper-metrics.instance={}", it.name), "o=size=4m,uid=472");
    let memory = ["--driver", "local", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", size];
    let labels = ["--label", &instance, "--label", "clipper-metrics.role=grafana", &volume];
    docker(&[&["volume", "create"][..], &memory, &labels].concat()).unwrap();
    // It exists as long as a process keeps it open.
    let (holder, mount, sleeps) =
        (format!("{}-holder", it.name), format!("{volume}:/volume"), image("influxdb:1.12.4"));
    docker(&["pull", &sleeps]).unwrap();
    let holds =
        ["run", "--detach", "--name", &holder, "--volume", &mount, "--entrypoint", "/usr/bin/sleep", &sleeps, "900"];
    docker(&holds).unwrap();
    it.run(&["up"]).expect(0);
    let folder = r#"{"title": "Mine", "uid": "mine"}"#;
    assert_eq!(it.grafana("POST", "/api/folders", Some(folder)).0, 200);
    let files = tempfile::tempdir().unwrap();
    for (name, size) in [("grafana.db-journal", 1_000_000), ("filler", 2_300_000)] {
        let file = files.path().join(name);
        std::fs::write(&file, vec![7; size]).unwrap();
        docker(&["cp", file.to_str().unwrap(), &format!("{holder}:/volume/{name}")]).unwrap();
    }
    let up = it.run(&["up", "--grafana-image", &image(NEW)]).expect(1);
    assert!(up.err.contains("no space left") && up.err.contains("runs again with its database"), "{}", up.err);
    assert!(has_data(&it) && runs(&it) == image(OLD));
    assert_eq!(copied(&it), 0, "what was copied of it makes room again");
    assert!(up.err.contains("system df") && up.err.contains("tries that image again"), "{}", up.err);
    assert!(remembered(&it).contains("ended"), "{}", remembered(&it));
    // The image was not the cause, so `up` tries it again once there is room.
    docker(&["exec", &holder, "rm", "/volume/filler"]).unwrap();
    it.run(&["up"]).expect(0);
    assert!(has_data(&it) && runs(&it) == image(NEW));
    docker(&["rm", "--force", &holder]).unwrap();
}

#[test]
fn killed_after_every_step_one_up_restores_the_old_dashboard() {
    for target in ["odd:migrates", NEW] {
        let it = with_data(if target == NEW { "upgrade-killed" } else { "upgrade-killed-failing" });
        let mut killed = 0;
        let timeout = if is_podman() { PODMAN_LEARNS } else { "20s" };
        for step in 1.. {
            let words = ["up", "--grafana-image", &image(target), "--timeout", timeout, "--verbose"];
            let mut process =
                it.command(&words).command().stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let lines = BufReader::new(process.stderr.take().unwrap()).lines();
            let done: Vec<String> =
                lines.map_while(Result::ok).filter(|line| line.contains(": done in")).take(step).collect();
            if done.len() < step {
                let _ = process.wait();
                assert!(has_data(&it), "{target}");
                break;
            }
            let _ = process.kill();
            let _ = process.wait();
            killed += 1;
            // The run may have continued after printing its last line.
            let was_saved = saved_image(&it).is_some_and(|saved| saved == image(target));
            let up = ran(&it.command(&["up", "--timeout", timeout]).command().output().unwrap());
            assert!(has_data(&it), "{target} after step {step}: {}", up.err);
            // Before the settings are saved, the new image was not requested.
            let desired = if target == NEW && was_saved { image(NEW) } else { image(OLD) };
            assert_eq!(runs(&it), desired, "{target} after step {step}: {}", up.err);
            assert_eq!(copied(&it), 0, "{target} after step {step}: {}", up.err);
            assert!(it.run(&["up"]).expect(0).out.contains("nothing to do"), "{target} after step {step}");
            if runs(&it) != image(OLD) {
                // Starts again with the old image.
                it.run(&["down", "--volumes", "--yes"]).expect(0);
                it.first_up(&["--database", "d"]).expect(0);
                let folder = r#"{"title": "Mine", "uid": "mine"}"#;
                assert_eq!(it.grafana("POST", "/api/folders", Some(folder)).0, 200);
            }
        }
        assert!(killed > 4, "{target}: {killed} steps");
    }
}

#[test]
fn after_a_kill_the_previous_image_gets_its_database_back() {
    let it = with_data("upgrade-back");
    // The new image has started on the database, but was not accepted.
    let words = ["up", "--grafana-image", &image(NEW)];
    let mut process = it.command(&words).command().stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(process.stderr.take().unwrap()).lines();
    lines.map_while(Result::ok).find(|line| line.starts_with("start Grafana: done")).expect("it starts");
    let _ = process.kill();
    let _ = process.wait();
    assert!(remembered(&it).contains("unproven"));
    let status = it.run(&["status"]).expect(3);
    assert!(status.out.contains("is not accepted yet"), "{}", status.out);
    it.run(&["up", "--grafana-image", &image(OLD)]).expect(0);
    assert!(has_data(&it) && runs(&it) == image(OLD));
    assert_eq!((remembered(&it).as_str(), copied(&it)), ("", 0));
    assert!(it.run(&["up"]).expect(0).out.contains("nothing to do"));
}
