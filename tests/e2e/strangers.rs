//! Managed containers that were renamed, copied or moved, and foreign containers that conflict with them.

use std::process::Stdio;
use std::time::Duration;

use super::instance::{Instance, docker};
use crate::support::front::Front;
use crate::support::run::{engine_post, ran};
use crate::support::{free_port, registry};

#[test]
fn a_foreign_container_on_the_network_is_reported_once() {
    let it = Instance::new("network");
    it.first_up(&[]).expect(0);
    let image = format!("{}/odd:silent", registry::address());
    docker(&["pull", &image]).unwrap();
    let stranger = format!("{}-stranger", it.name);
    docker(&["run", "--detach", "--name", &stranger, "--network", &it.name, &image]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved");
    it.run(&["backup", saved.to_str().unwrap()]).expect(0);
    let dry = it.run(&["down", "--dry-run"]).expect(3);
    let kept = format!("network {} is kept", it.name);
    assert!(dry.out.contains(&kept) && !dry.out.contains("remove the network"), "{}", dry.out);
    let down = it.run(&["down"]).expect(0);
    assert_eq!(down.err.matches("warning:").count(), 1, "{}", down.err);
    assert_eq!(down.err.matches(&stranger).count(), 2, "once as the reason and once in the command: {}", down.err);
    assert!(docker(&["inspect", "--type", "container", &it.container("grafana")]).is_err());
    // Everything else is removed, including the settings, and the network is reported again.
    let json = it.run(&["down", "--volumes", "--yes", "--output", "json"]).expect(0).json();
    let hint =
        json["hints"].as_array().unwrap().iter().find_map(|hint| hint.as_str().filter(|it| it.contains(&stranger)));
    let prefix = format!("name={}-settings", it.name);
    assert_eq!(docker(&["volume", "ls", "--quiet", "--filter", &prefix]).unwrap(), "");
    assert!(it.run(&["down", "--dry-run"]).expect(0).out.contains(&kept));
    // It is no obstacle for a restore.
    it.run(&["restore", saved.to_str().unwrap(), "--yes"]).expect(0);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    // The command in the hint removes it.
    let command = hint.unwrap().split('`').nth(1).unwrap();
    assert!(std::process::Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    assert!(docker(&["network", "inspect", &it.name]).is_err());
    docker(&["rm", "--force", &stranger]).unwrap();
}

#[test]
fn a_renamed_container_is_still_managed() {
    let it = Instance::new("renamed");
    it.first_up(&[]).expect(0);
    let odd = format!("{}-odd", it.name);
    docker(&["rename", &it.container("grafana"), &odd]).unwrap();
    it.run(&["up"]).expect(0);
    let status = it.run(&["status", "--output", "json"]).expect(0).json();
    assert_eq!(status["grafana"]["container"]["name"], odd.as_str());
    it.run(&["logs", "grafana"]).expect(0);
    // Its replacement gets the original name.
    let port = free_port().to_string();
    it.run(&["up", "--grafana-port", &port]).expect(0);
    assert!(!it.id("grafana").is_empty() && docker(&["inspect", &odd]).is_err());
    docker(&["rename", &it.container("influxdb"), &odd]).unwrap();
    it.run(&["down"]).expect(0);
    assert!(docker(&["inspect", "--type", "container", &odd]).is_err(), "down removes it, too");
}

#[test]
fn a_copy_of_a_container_is_a_blocker_and_reported() {
    let it = Instance::new("copy");
    it.first_up(&[]).expect(0);
    let copy = format!("{}-copy", it.name);
    let labels = [format!("clipper-metrics.instance={}", it.name), "clipper-metrics.role=grafana".to_string()];
    let image = format!("{}/odd:silent", registry::address());
    docker(&["pull", &image]).unwrap();
    let volume = format!("{}:/var/lib/grafana", it.container("grafana"));
    docker(&["create", "--name", &copy, "--label", &labels[0], "--label", &labels[1], "--volume", &volume, &image])
        .unwrap();
    for words in [&["up"][..], &["down"]] {
        let ran = it.run(words).expect(1);
        assert!(ran.err.contains(&copy) && ran.err.contains(&it.container("grafana")), "{words:?}: {}", ran.err);
    }
    let status = it.run(&["status"]).expect(3);
    assert!(status.out.contains(&copy), "{}", status.out);
    docker(&["rm", &copy]).unwrap();
    it.assert_whole();
}

/// Removes a container, an image, a volume or a network when a test ends, even if it fails.
struct Removed(&'static [&'static str], String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = docker(&[self.0, &[&self.1]].concat());
    }
}

#[test]
fn a_container_of_a_committed_image_is_not_changed() {
    let it = Instance::new("committed");
    it.first_up(&[]).expect(0);
    let image = Removed(&["rmi", "--force"], format!("cm-test-committed:{}", std::process::id()));
    let (repository, tag) = image.1.split_once(':').unwrap();
    // Docker's client sends no body, which Podman rejects.
    let path = format!("/commit?container={}&repo={repository}&tag={tag}", it.container("influxdb"));
    assert!(engine_post(&path, &serde_json::json!({})));
    let stranger = Removed(&["rm", "--force"], format!("{}-shell", it.name));
    let sleep = |more: &[&str]| {
        let words = ["run", "--detach", "--name", &stranger.1, "--entrypoint", "/usr/bin/sleep"];
        docker(&[&words[..], more, &[&image.1, "600"]].concat()).unwrap()
    };
    let id = sleep(&[]);
    let runs = || docker(&["inspect", "--format", "{{.State.Running}}", &id]).as_deref() == Ok("true");
    let up = it.run(&["up"]).expect(0);
    assert!(up.out.contains("nothing to do"), "{}", up.out);
    let status = it.run(&["status", "--output", "json"]).expect(0).json();
    assert_eq!(status["influxdb"]["container"]["id"], it.id("influxdb"));
    assert!(status["hints"].to_string().contains(&stranger.1), "{status}");
    it.run(&["logs", "influxdb", "--tail", "1"]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    it.run(&["backup", &folder.path().join("archive").to_string_lossy()]).expect(0);
    let down = it.run(&["down"]).expect(0);
    assert!(runs() && down.out.contains(&stranger.1), "{}", down.out);
    assert!(it.id("influxdb").is_empty(), "ours is gone");
    // With the name of a managed container, it is a blocker like any other container.
    docker(&["rename", &stranger.1, &it.container("influxdb")]).unwrap();
    let up = it.first_up(&[]).expect(1);
    assert!(up.err.contains("did not create it"), "{}", up.err);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    assert!(runs());
    docker(&["rename", &it.container("influxdb"), &stranger.1]).unwrap();
    // On the instance's network, it keeps the network from being removed and is reported.
    it.first_up(&[]).expect(0);
    docker(&["network", "connect", &it.name, &stranger.1]).unwrap();
    let down = it.run(&["down"]);
    assert!(runs() && format!("{}{}", down.out, down.err).contains(&stranger.1), "{down:?}");
    docker(&["rm", "--force", &stranger.1]).unwrap();
    it.run(&["down"]).expect(0);
    // A shell for inspecting the data, from such an image, is not a managed server either.
    let id = sleep(&["--volume", &format!("{}:/var/lib/influxdb", it.container("influxdb"))]);
    let up = it.first_up(&[]).expect(1);
    assert!(up.err.contains(&stranger.1) && up.err.contains("runs and mounts InfluxDB's data"), "{}", up.err);
    it.run(&["down"]).expect(0);
    assert_eq!(docker(&["inspect", "--format", "{{.State.Running}}", &id]).as_deref(), Ok("true"));
}

#[test]
fn a_container_of_another_instance_that_cannot_be_inspected_is_not_a_blocker() {
    let it = Instance::new("uninspected");
    let other = format!("{}-other", it.name);
    let labels = [format!("clipper-metrics.instance={other}"), "clipper-metrics.role=influxdb".to_string()];
    let image = format!("{}/odd:silent", registry::address());
    docker(&["pull", &image]).unwrap();
    let _volume = Removed(&["volume", "rm"], format!("{other}-influxdb"));
    let container = Removed(&["rm", "--force"], format!("{other}-influxdb"));
    let data = format!("{}:/var/lib/influxdb", container.1);
    let words = ["create", "--name", &container.1, "--label", &labels[0], "--label", &labels[1], "--volume", &data];
    let id = docker(&[&words[..], &[&image]].concat()).unwrap();
    let front = Front::refusing("GET", format!("/containers/{id}/json").leak(), "it is locked");
    it.run(&["down", "-H", &front.host()]).expect(0);
    let all = it.run(&["status", "--all", "-H", &front.host()]).expect(0);
    assert!(all.out.contains(&other), "{}", all.out);
}

#[test]
fn volumes_and_networks_with_the_label_but_another_name_are_not_changed() {
    let it = Instance::new("labelled");
    it.first_up(&[]).expect(0);
    let label = format!("clipper-metrics.instance={}", it.name);
    let [volume, other_role] = ["copy", "grafana"].map(|name| Removed(&["volume", "rm"], it.container(name)));
    docker(&["volume", "create", "--label", &label, "--label", "clipper-metrics.role=influxdb", &volume.1]).unwrap();
    let network = Removed(&["network", "rm"], format!("{}-copy", it.name));
    docker(&["network", "create", "--label", &label, &network.1]).unwrap();
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    assert!(docker(&["volume", "inspect", &volume.1]).is_ok() && docker(&["network", "inspect", &network.1]).is_ok());
    // The instance's name and label, but another role.
    let words = ["volume", "create", "--label", &label, "--label", "clipper-metrics.role=influxdb", &other_role.1];
    docker(&words).unwrap();
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    assert!(docker(&["volume", "inspect", &other_role.1]).is_ok());
}

#[test]
fn the_two_servers_can_swap_their_ports() {
    let it = Instance::new("swap");
    it.first_up(&[]).expect(0);
    let (influxdb, grafana) = (it.influxdb_port.to_string(), it.grafana_port.to_string());
    it.run(&["up", "--influxdb-port", &grafana, "--grafana-port", &influxdb]).expect(0);
    let status = it.run(&["status", "--output", "json"]).expect(0).json();
    assert_eq!(status["influxdb"]["url"], format!("http://127.0.0.1:{grafana}"));
    assert_eq!(status["grafana"]["url"], format!("http://127.0.0.1:{influxdb}"));
}

#[test]
fn a_failed_pull_during_a_port_swap_leaves_both_servers_running() {
    let it = Instance::new("swap-pull");
    it.first_up(&[]).expect(0);
    let ids = (it.id("influxdb"), it.id("grafana"));
    let (influxdb, grafana) = (it.influxdb_port.to_string(), it.grafana_port.to_string());
    let image = format!("{}/grafana/grafana:none", registry::address());
    let words = ["up", "--influxdb-port", &grafana, "--grafana-port", &influxdb, "--grafana-image", &image];
    it.run(&words).expect(1);
    assert_eq!(ids, (it.id("influxdb"), it.id("grafana")));
    it.assert_whole();
}

#[test]
fn an_unavailable_address_changes_nothing() {
    let it = Instance::new("address");
    it.first_up(&[]).expect(0);
    let ids = (it.id("influxdb"), it.id("grafana"));
    let up = it.run(&["up", "--grafana-ip", "192.0.2.7"]).expect(1);
    assert!(up.err.contains("the engine's host does not have that address"), "{}", up.err);
    // A port held by another process, too.
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let up = it.run(&["up", "--influxdb-port", &port]).expect(1);
    assert!(up.err.contains("another process"), "{}", up.err);
    // A port that the engine may not open, and rules that a restart of the firewall has removed.
    let free = free_port().to_string();
    for (message, hint) in [
        (
            "driver failed programming external connectivity: cannot expose privileged port 80",
            "ip_unprivileged_port_start",
        ),
        (
            "iptables failed: iptables --wait -t nat -A DOCKER: iptables: No chain/target/match by that name",
            "systemctl restart docker",
        ),
    ] {
        let front = Front::refusing("POST", "/start", message);
        let up = it.command(&["up", "--grafana-port", &free]).env("DOCKER_HOST", &front.host()).run().expect(1);
        assert!(up.err.contains(hint), "{}", up.err);
    }
    assert_eq!(ids, (it.id("influxdb"), it.id("grafana")));
    let checks = docker(&["ps", "--all", "--filter", &format!("name={}-", it.name), "--format", "{{.Names}}"]).unwrap();
    assert_eq!(checks.lines().count(), 2, "{checks}");
    it.run(&["up"]).expect(0);
    it.assert_whole();
    let (_, org) = it.grafana("GET", "/api/org", None);
    assert_eq!(org["id"], 1, "the password is the old one");
}

#[test]
fn an_address_check_left_by_a_killed_run_is_not_a_blocker() {
    let it = Instance::new("left-check");
    it.first_up(&[]).expect(0);
    let name = it.container("influxdb-address-check");
    let image = it.inspect("influxdb")["Config"]["Image"].as_str().unwrap().to_string();
    // The state after a kill between start and removal: it holds the address that is needed next.
    let port = free_port();
    let leave = |port: u16| {
        let labels = [format!("clipper-metrics.instance={}", it.name), "clipper-metrics.role=address-check".into()];
        let publish = format!("127.0.0.1:{port}:9");
        let words = ["run", "--detach", "--name", &name, "--network", &it.name, "--publish", &publish];
        let labels = ["--label", &labels[0], "--label", &labels[1]];
        docker(&[&words[..], &labels[..], &[&image]].concat()).unwrap();
    };
    leave(port);
    it.run(&["up", "--influxdb-port", &port.to_string()]).expect(0);
    assert!(docker(&["inspect", "--type", "container", &name]).is_err(), "it is removed");
    // One that holds the address of a stopped container, and one on the network to be removed.
    docker(&["stop", &it.container("influxdb")]).unwrap();
    leave(port);
    it.run(&["up"]).expect(0);
    leave(free_port());
    let down = it.run(&["down", "--volumes", "--yes"]).expect(0);
    assert!(!down.err.contains("warning:"), "{}", down.err);
    assert!(docker(&["inspect", "--type", "container", &name]).is_err(), "it goes with the network");
    assert!(docker(&["network", "inspect", &it.name]).is_err());
}

#[test]
fn an_abandoned_address_check_leaves_no_container() {
    let it = Instance::new("abandoned-check");
    let delayed = || Front::delaying("POST", "grafana-address-check", 1, Duration::from_secs(1));
    let left = || docker(&["ps", "--all", "--quiet", "--filter", &format!("name={}-", it.name)]).unwrap();
    // InfluxDB's address fails while the engine has not yet read the request for the container that checks Grafana's.
    let front = delayed();
    let words = it.first(&["--influxdb-ip", "203.0.113.9", "--grafana-ip", "127.0.0.2"]);
    let up = it.command(&words).env("DOCKER_HOST", &front.host()).run().expect(1);
    assert!(up.err.contains("the engine's host does not have that address") && front.has_passed_on(), "{}", up.err);
    assert_eq!(left(), "");
    let front = delayed();
    let command = it.command(&it.first(&["--grafana-ip", "127.0.0.2"])).env("DOCKER_HOST", &front.host());
    let process = command.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    crate::support::eventually("the request is sent", super::instance::SOON, || front.is_delaying());
    super::lifecycle::interrupt(process.id());
    let ran = ran(&process.wait_with_output().unwrap()).expect(130);
    assert!(front.has_passed_on() && ran.err.contains("completed steps are kept"), "{}", ran.err);
    assert_eq!(left(), "");
    it.run(&["down", "--volumes", "--yes"]).expect(0);
}

#[test]
fn a_volume_that_another_container_uses_is_named_before_anything_is_removed() {
    let it = Instance::new("used-volume");
    it.first_up(&[]).expect(0);
    let image = it.inspect("influxdb")["Config"]["Image"].as_str().unwrap().to_string();
    let stranger = Removed(&["rm", "--force"], format!("{}-copy", it.name));
    let volume = it.container("influxdb");
    docker(&["create", "--name", &stranger.1, "--volume", &format!("{volume}:/copy:ro"), &image]).unwrap();
    let preview = it.run(&["down", "--volumes", "--dry-run"]).expect(3);
    assert!(preview.out.contains(&format!("container {} uses it", stranger.1)), "{}", preview.out);
    let down = it.run(&["down", "--volumes", "--yes"]).expect(1);
    let why = format!("cannot delete volume {volume}: container {} uses it", stranger.1);
    let remove = format!("`docker rm --force {}`", stranger.1);
    assert!(down.err.contains(&why) && down.err.contains(&remove), "{}", down.err);
    it.assert_whole();
    it.run(&["down"]).expect(0);
    drop(stranger);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    assert!(docker(&["volume", "inspect", &volume]).is_err());
}

#[test]
fn a_udp_port_is_not_a_conflict() {
    let it = Instance::new("udp");
    let image = format!("{}/odd:silent", registry::address());
    docker(&["pull", &image]).unwrap();
    let stranger = format!("{}-udp", it.name);
    let publish = format!("127.0.0.1:{}:9/udp", it.influxdb_port);
    docker(&["run", "--detach", "--name", &stranger, "--publish", &publish, &image]).unwrap();
    let up = it.first_up(&[]);
    docker(&["rm", "--force", &stranger]).unwrap();
    up.expect(0);
    it.assert_whole();
}

#[test]
fn a_port_of_the_other_address_family_is_not_a_conflict() {
    let it = Instance::new("family");
    let image = format!("{}/odd:silent", registry::address());
    docker(&["pull", &image]).unwrap();
    let stranger = Removed(&["rm", "--force"], format!("{}-v6", it.name));
    let publish = format!("[::]:{}:9", it.influxdb_port);
    docker(&["run", "--detach", "--name", &stranger.1, "--publish", &publish, &image]).unwrap();
    it.first_up(&[]).expect(0);
    it.assert_whole();
}

#[test]
fn with_pull_never_a_stack_with_an_untagged_image_keeps_running() {
    let it = Instance::new("untagged");
    let image = Removed(&["rmi", "--force"], format!("cm-test-untagged:{}", std::process::id()));
    let original = format!("{}/influxdb:1.12.4", registry::address());
    docker(&["pull", &original]).unwrap();
    docker(&["tag", &original, &image.1]).unwrap();
    it.first_up(&["--influxdb-image", &image.1, "--pull", "never"]).expect(0);
    docker(&["rmi", &image.1]).unwrap();
    let up = it.run(&["up", "--pull", "never"]).expect(0);
    assert!(up.out.contains("nothing to do"), "{}", up.out);
    it.assert_whole();
    // A new container needs it.
    docker(&["rm", "--force", &it.container("influxdb")]).unwrap();
    let up = it.run(&["up", "--pull", "never"]).expect(1);
    assert!(up.err.contains("not on the engine"), "{}", up.err);
}

#[test]
fn status_reports_blockers_of_up() {
    let it = Instance::new("in-the-way");
    docker(&["volume", "create", &it.container("influxdb")]).unwrap();
    let status = it.run(&["status"]).expect(3);
    assert!(status.out.contains("did not create it") && status.out.contains("docker volume rm"), "{}", status.out);
    assert!(!status.out.contains("start it with"), "{}", status.out);
    docker(&["volume", "rm", &it.container("influxdb")]).unwrap();
}

#[test]
fn an_interrupted_up_is_one_json_document() {
    let it = Instance::with_grafana("interrupted-json", "odd:silent");
    let words = it.first(&["--output", "json"]);
    let process = it.command(&words).command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    crate::support::eventually("it waits for Grafana", super::instance::SOON, || {
        docker(&["inspect", "--format", "{{.State.Running}}", &it.container("grafana")])
            .is_ok_and(|text| text == "true")
    });
    super::lifecycle::interrupt(process.id());
    let ran = ran(&process.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{ran:?}");
    assert_eq!(ran.json()["error"]["kind"], "interrupted");
    it.run(&["down", "--volumes", "--yes"]).expect(0);
}
