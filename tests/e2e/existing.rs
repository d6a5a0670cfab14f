//! Instances with one managed and one external server.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::instance::{Instance, SOON, bridge, docker, is_podman, is_rootless, machine};
use crate::support::double::{Double, Version, handle};
use crate::support::front::Front;
use crate::support::influxd::Influxd;
use crate::support::server::in_background;
use crate::support::servers::Servers;

#[test]
fn an_external_grafana_gets_the_published_address() {
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

/// The objects of an instance on an engine, by id.
fn objects(it: &Instance) -> (String, String, Vec<String>) {
    (it.id("influxdb"), it.id("grafana"), super::instance::settings_volumes(&it.name))
}

/// A loopback port that forwards connections to another one, like a tunnel.
fn forward_to(port: u16) -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let forwarded = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = std::net::TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
            std::thread::spawn(move || {
                let (mut from, mut to) = (server, client);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    forwarded
}

#[test]
fn a_managed_container_is_not_an_external_server() {
    let (it, other) = (Instance::new("own-url"), Instance::new("other-url"));
    it.first_up(&["--influxdb-ip", "0.0.0.0"]).expect(0);
    let inside =
        it.inspect("influxdb")["NetworkSettings"]["Networks"][&it.name]["IPAddress"].as_str().unwrap().to_string();
    let before = objects(&it);
    let published = [machine(), "127.0.0.1".into(), "127.0.0.3".into(), "localhost".into(), bridge()];
    let mut urls: Vec<String> = published.iter().map(|host| format!("http://{host}:{}", it.influxdb_port)).collect();
    if !is_podman() {
        urls.push(format!("http://{inside}:8086"));
    }
    for url in &urls {
        let up = it.run(&["up", "--influxdb-url", url]).expect(2);
        let own = format!("{url} is not an external server: it leads to container {}", it.container("influxdb"));
        assert!(up.err.contains(&own) && up.err.contains("`clipper-metrics up --influxdb-url ''"), "{}", up.err);
        let planned = it.run(&["up", "--influxdb-url", url, "--dry-run"]).expect(3);
        assert!(planned.out.contains("not an external server"), "{}", planned.out);
    }
    let url = &urls[1];
    let status = it.run(&["status", "--influxdb-url", url]).expect(3);
    assert!(status.out.contains("not an external server"), "{}", status.out);
    for words in [&["down", "--influxdb-url", url][..], &["down", "--volumes", "--yes", "--influxdb-url", url]] {
        let down = it.run(words).expect(2);
        assert!(down.err.contains("`clipper-metrics down --influxdb-url ''"), "{}", down.err);
    }
    let grafana = format!("http://localhost:{}", it.grafana_port);
    for words in [&["up", "--grafana-url", &grafana][..], &["down", "--deregister", "--grafana-url", &grafana]] {
        let ran = it.run(words).expect(2);
        assert!(ran.err.contains(&it.container("grafana")), "{words:?}: {}", ran.err);
    }
    // With both URLs, no engine is needed, but one that answers is asked.
    let both = ["--influxdb-url", url, "--grafana-url", &grafana];
    let up = it.run(&[&["up"], &both[..]].concat()).expect(2);
    assert!(up.err.contains("not an external server"), "{}", up.err);
    let plan = it.run(&[&["up", "--dry-run"], &both[..]].concat()).expect(3);
    assert!(plan.out.contains("not an external server"), "{}", plan.out);
    // The address of a proxy or a tunnel does not show its target.
    for (option, role, port) in
        [("--influxdb-url", "influxdb", it.influxdb_port), ("--grafana-url", "grafana", it.grafana_port)]
    {
        let forwarded = format!("http://127.0.0.1:{}", forward_to(port));
        let up = it.run(&["up", option, &forwarded]).expect(2);
        assert!(up.err.contains(&it.container(role)) && up.err.contains("not an external server"), "{}", up.err);
    }
    // A paused container does not answer, but is still the same container.
    docker(&["pause", &it.container("influxdb")]).unwrap();
    let up = it.run(&["up", "--influxdb-url", url]).expect(2);
    assert!(up.err.contains("not an external server"), "{}", up.err);
    docker(&["unpause", &it.container("influxdb")]).unwrap();
    // Another instance's container is removed together with that instance.
    let up = other.first_up(&["--influxdb-url", url]).expect(2);
    assert!(
        up.err.contains(&it.container("influxdb")) && up.err.contains(&format!("--name {}", it.name)),
        "{}",
        up.err
    );
    assert_eq!(objects(&other), (String::new(), String::new(), vec![]), "nothing was made or stored");
    assert_eq!(objects(&it), before, "nothing was stored or removed");
    it.run(&["up"]).expect(0);
    it.assert_whole();
}

#[test]
fn remembered_settings_have_no_effect_if_both_servers_are_external() {
    let it = Instance::new("both-external");
    it.first_up(&["--database", "remembered", "--grafana-folder", "Remembered"]).expect(0);
    let servers = Servers::start(Version::V12_4);
    let (influxdb, grafana) = (servers.influxd.url(), format!("http://127.0.0.1:{}", servers.port()));
    let urls = ["--influxdb-url", influxdb.as_str(), "--grafana-url", grafana.as_str()];
    let dashboard = format!("/api/dashboards/uid/{}", it.name);
    it.run(&[&["up"], &urls[..]].concat()).expect(0);
    assert_eq!(servers.ask("GET", &dashboard, None).0, 200);
    // The instance's containers are removed as well; its volumes and settings stay.
    it.run(&[&["down", "--deregister"], &urls[..]].concat()).expect(0);
    assert_eq!(servers.ask("GET", &dashboard, None).0, 404);
    it.run(&["up"]).expect(0);
    assert_eq!(it.status()["database"]["name"], "remembered");
}

#[test]
fn a_server_at_the_same_port_of_another_address_is_external() {
    let it = Instance::new("same-port");
    it.first_up(&[]).expect(0);
    let double = Arc::new(Mutex::new(Double::new(Version::V12, "admin", None)));
    let port = in_background(move |request| {
        let double = Arc::clone(&double);
        async move { handle(&double, request).await }
    });
    // The port of Grafana's container at an address where it is not published.
    let listener = TcpListener::bind(("127.0.0.2", it.grafana_port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (back, forth) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || copy(stream, forth));
            std::thread::spawn(move || copy(server, back));
        }
    });
    let url = format!("http://127.0.0.2:{}", it.grafana_port);
    it.run(&["up", "--grafana-url", &url]).expect(0);
    assert!(it.id("grafana").is_empty() && !it.id("influxdb").is_empty());
    it.run(&["down", "--volumes", "--yes"]).expect(0);
}

#[test]
fn down_removes_all_objects_of_an_instance_even_if_its_servers_are_external() {
    let it = Instance::new("down-there");
    it.first_up(&["--database", "d"]).expect(0);
    let words = ["down", "--volumes", "--yes"];
    let down = |dry_run: &[&str]| {
        let run = it.command(&[&words[..], dry_run].concat());
        run.env("CLIPPER_METRICS_INFLUXDB_URL", "http://127.0.0.1:1")
            .env("CLIPPER_METRICS_GRAFANA_URL", "http://127.0.0.1:1")
    };
    let logs = it
        .command(&["logs", "influxdb"])
        .env("CLIPPER_METRICS_INFLUXDB_URL", "http://127.0.0.1:1")
        .env("CLIPPER_METRICS_GRAFANA_URL", "http://127.0.0.1:1");
    logs.run().expect(0);
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
fn an_influxdb_on_the_host_is_reachable_from_grafanas_container() {
    let it = Instance::new("influxdb-there");
    let influxd = Influxd::start();
    // Debian's influxd listens on all addresses; here it is reachable only from the engine's
    // bridge. Podman's host name leads to the gateway of the instance's own network, which is
    // created with the containers, or in rootless mode to the host's own address.
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

#[test]
fn the_host_is_found_on_engines_without_host_gateway() {
    if is_podman() {
        return;
    }
    // Simulates Docker 19.03, which would reject that word.
    let front = Front::start(
        r#"{"Version": "19.03.15", "ApiVersion": "1.40", "Components": [{"Name": "Engine", "Version": "19.03.15"}]}"#,
    );
    let it = Instance::new("no-gateway");
    let influxd = Influxd::start();
    let (port, network) = (influxd.port, it.name.clone());
    let gateway = move || docker(&["network", "inspect", &network, "--format", "{{(index .IPAM.Config 0).Gateway}}"]);
    std::thread::spawn(move || show(gateway, port));
    it.first_up(&["--influxdb-url", &influxd.url(), "--database", "d", "-H", &front.host()]).expect(0);
    let hosts = it.inspect("grafana")["HostConfig"]["ExtraHosts"].to_string();
    assert!(hosts.contains("host.docker.internal:1") && !hosts.contains("host-gateway"), "{hosts}");
    assert_eq!(it.status()["data_source"]["query"], "ok");
    // A Compose export uses the same address.
    let folder = tempfile::tempdir().unwrap();
    it.run(&["export", "compose", folder.path().to_str().unwrap(), "-H", &front.host()]).expect(0);
    let written = std::fs::read_to_string(folder.path().join("docker-compose.yaml")).unwrap();
    assert!(written.contains("host.docker.internal:1") && !written.contains("host-gateway"), "{written}");
}

/// Makes a server on a loopback port reachable at another address as well, once the machine has that address.
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
