//! One server of ours, the other one somebody else's.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::instance::{Instance, SOON, bridge, docker, is_podman, is_rootless, machine};
use crate::support::double::{Double, Version, handle};
use crate::support::influxd::Influxd;
use crate::support::server::in_background;

#[test]
fn a_grafana_that_already_runs_gets_the_published_address() {
    let it = Instance::new("grafana-there");
    let double = Arc::new(Mutex::new(Double::new(Version::V12, "admin", None)));
    let port = in_background(move |request| {
        let double = Arc::clone(&double);
        async move { handle(&double, request).await }
    });
    let url = format!("http://127.0.0.1:{port}");
    it.first_up(&["--grafana-url", &url, "--database", "d"]).expect(0);
    assert!(it.id("grafana").is_empty() && !it.id("influxdb").is_empty());
    let state = it.run(&["status", "--grafana-url", &url, "--output", "json"]).expect(0).json();
    assert_eq!((state["grafana"]["mode"].as_str(), state["database"]["name"].as_str()), (Some("external"), Some("d")));
    // Its address is remembered like every other setting.
    let bare = it.run(&["status", "--output", "json"]).expect(0).json();
    assert_eq!(bare["grafana"]["url"], url.as_str());
    it.run(&["down", "--volumes", "--yes"]).expect(0);
}

#[test]
fn down_removes_what_the_engine_has_of_an_instance_wherever_its_servers_are_said_to_run() {
    let it = Instance::new("down-there");
    it.first_up(&["--database", "d"]).expect(0);
    let words = ["down", "--volumes", "--yes"];
    let down = |dry_run: &[&str]| {
        let run = it.command(&[&words[..], dry_run].concat());
        run.env("CLIPPER_METRICS_INFLUXDB_URL", "http://127.0.0.1:1").env("CLIPPER_METRICS_GRAFANA_URL", "http://127.0.0.1:1")
    };
    let logs = it.run(&["logs", "influxdb", "--influxdb-url", "http://127.0.0.1:1", "--grafana-url", "http://127.0.0.1:1"]);
    logs.expect(0);
    let planned = down(&["--dry-run"]).run().expect(3);
    assert!(planned.out.contains("remove"), "{}", planned.out);
    down(&[]).run().expect(0);
    assert!(it.id("influxdb").is_empty() && it.id("grafana").is_empty());
    for volume in [it.container("influxdb"), it.container("grafana")] {
        assert!(docker(&["volume", "inspect", &volume]).is_err(), "{volume} is left");
    }
    assert!(super::instance::settings_volumes(&it.name).is_empty());
    let again = down(&[]).run().expect(0);
    assert!(again.out.contains("nothing to stop"), "{}", again.out);
}

#[test]
fn an_influxdb_of_the_machine_is_reached_from_grafanas_container() {
    let it = Instance::new("influxdb-there");
    let influxd = Influxd::start();
    // Debian's influxd listens for everybody; here it is shown to the engine's bridge alone. Podman's name for its
    // machine is the gateway of the instance's own network, which comes with the containers, or where it is
    // rootless, the machine's own address.
    let (port, network) = (influxd.port, it.name.clone());
    if is_rootless() {
        std::thread::spawn(move || show(|| Ok(machine()), port));
    } else if is_podman() {
        let gateway =
            move || docker(&["network", "inspect", &network, "--format", "{{(index .IPAM.Config 0).Gateway}}"]);
        std::thread::spawn(move || show(gateway, port));
    } else {
        std::thread::spawn(move || show(|| Ok(bridge()), port));
    }
    let url = influxd.url();
    it.first_up(&["--influxdb-url", &url, "--database", "d"]).expect(0);
    let (_, source) = it.grafana("GET", &format!("/api/datasources/uid/{}", it.name), None);
    assert_eq!(source["url"], format!("http://host.docker.internal:{port}"));
    let state = it.run(&["status", "--influxdb-url", &url, "--output", "json"]).expect(0).json();
    assert_eq!(state["data_source"]["query"], "ok");
    assert!(it.id("influxdb").is_empty());
}

/// Shows what listens on a port of loopback at another address too, as soon as the machine has that.
fn show(address: impl Fn() -> Result<String, String>, port: u16) {
    let deadline = std::time::Instant::now() + SOON;
    let listener = loop {
        match address().map(|address| TcpListener::bind((address.as_str(), port))) {
            Ok(Ok(listener)) => break listener,
            _ if std::time::Instant::now() > deadline => return,
            _ => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    };
    for stream in listener.incoming().flatten() {
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        let (back, forth) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || copy(stream, forth));
        std::thread::spawn(move || copy(server, back));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
