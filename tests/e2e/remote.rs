//! An engine on another machine, whose loopback is not this machine's.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::engine::OwnEngine;
use super::instance::{Instance, bridge, docker, is_podman};
use crate::support::double::{Double, Version, handle};
use crate::support::run::{Ran, Run, ran};
use crate::support::server::in_background;
use crate::support::{free_port, registry};

/// Serves the engine's socket at an address other than loopback.
fn forwarded(socket: String) -> String {
    let listener = TcpListener::bind((bridge(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(engine) = UnixStream::connect(&socket) else { continue };
            let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
            let (mut from_engine, mut to_engine) = (engine.try_clone().unwrap(), engine);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut to_engine);
                let _ = to_engine.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_engine, &mut to_client);
                let _ = to_client.shutdown(Shutdown::Write);
            });
        }
    });
    format!("tcp://{address}")
}

/// Counts the connections to a loopback port, and answers like no known server.
pub(crate) fn trap(port: u16) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let caught = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&caught);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = TcpStream::read(&mut stream, &mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        }
    });
    caught
}

#[test]
fn a_socket_of_an_engine_elsewhere_brings_no_password_to_another_server() {
    let engine = OwnEngine::start();
    let (requests, credentials) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&requests), Arc::clone(&credentials));
    let double = Arc::new(Mutex::new(Double::new(Version::V12, "theirs", None)));
    let grafana = in_background(move |request| {
        counters.0.fetch_add(1, Ordering::SeqCst);
        counters.1.fetch_add(usize::from(request.headers.contains_key("authorization")), Ordering::SeqCst);
        let double = Arc::clone(&double);
        async move { handle(&double, request).await }
    });
    let (influxdb, grafana) = (free_port().to_string(), grafana.to_string());
    let registry = OwnEngine::registry();
    let up = ["up", "--registry", &registry, "--influxdb-port", &influxdb, "--grafana-port", &grafana];
    let there = ran(&engine.program(&up).arg("--reset-grafana-password").output().unwrap());
    assert_eq!(there.code, 0, "{}", there.err);
    // The engine's socket is a file on this machine, but its addresses are on another machine.
    let host = format!("unix://{}", engine.socket());
    let from_here = |words: &[&str]| -> Ran { Run::new(words.iter().copied().chain(["-H", &host])).run() };
    let other_port = free_port().to_string();
    for words in [&["up"][..], &["up", "--grafana-port", &other_port], &["up", "--reset-grafana-password"]] {
        let refused = from_here(words);
        assert_eq!(refused.code, 1, "{words:?}: {}{}", refused.out, refused.err);
        assert!(
            refused.err.contains("is another one") && refused.err.contains("on the engine's host"),
            "{}",
            refused.err
        );
    }
    let status = from_here(&["status", "--output", "json"]).expect(3).json();
    assert_eq!(status["grafana"]["state"], "foreign");
    from_here(&["doctor"]).expect(3);
    assert!(requests.load(Ordering::SeqCst) > 0, "it was asked which server it is");
    assert_eq!(credentials.load(Ordering::SeqCst), 0, "no password was sent");
    let there = ran(&engine.program(&["status"]).output().unwrap());
    assert_eq!(there.code, 0, "nothing has changed: {}{}", there.out, there.err);
    from_here(&["down", "--volumes", "--yes"]).expect(0);
}

#[test]
fn a_container_is_identified_through_its_port_if_the_engines_network_is_not_visible() {
    if is_podman() {
        // Its bridges are not named after their networks, so all other tests show this.
        return;
    }
    let it = Instance::new("log-proof");
    let bridge = bridge();
    it.first_up(&["--influxdb-ip", &bridge, "--grafana-ip", &bridge]).expect(0);
    // A container that mounts the engine's socket has its own network.
    let libraries = format!("/usr/lib/{}-linux-gnu:/host-libraries:ro", std::env::consts::ARCH);
    let program = format!("{}:/usr/bin/clipper-metrics:ro", crate::support::run::program());
    let image = format!("{}/influxdb:1.12.4", registry::address());
    let run = ["run", "--rm", "--user", "0", "--entrypoint", "/usr/bin/clipper-metrics"];
    let socket = format!("{}:/var/run/docker.sock", crate::support::run::engine_socket());
    let mounts = ["--volume", &program, "--volume", &libraries, "--volume", &socket];
    let environment = ["--env", "HOME=/tmp", "--env", "LD_LIBRARY_PATH=/host-libraries", &image];
    let words = ["status", "--name", &it.name, "--output", "json"];
    let status = docker(&[&run[..], &mounts, &environment, &words].concat()).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let states = (&status["influxdb"]["state"], &status["grafana"]["state"]);
    assert_eq!(states, (&"answering".into(), &"answering".into()));
}

#[test]
fn servers_on_this_machines_loopback_are_never_contacted() {
    let engine = OwnEngine::start();
    let (influxdb, grafana) = (free_port().to_string(), free_port().to_string());
    let registry = OwnEngine::registry();
    let up = ["up", "--registry", &registry, "--influxdb-port", &influxdb, "--grafana-port", &grafana];
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "of-the-other-machine").unwrap();
    let file = password.path().to_str().unwrap();
    let there = ran(&engine.program(&up).args(["--grafana-password-file", file]).output().unwrap());
    assert_eq!(there.code, 0, "{}", there.err);
    // Other servers have the same ports here.
    let traps = [trap(influxdb.parse().unwrap()), trap(grafana.parse().unwrap())];
    let caught = || traps.iter().map(|caught| caught.load(Ordering::SeqCst)).sum::<usize>();
    let host = forwarded(engine.socket());
    let from_here = |words: &[&str]| -> Ran { Run::new(words.iter().copied().chain(["-H", &host])).run() };
    for words in [&["status"][..], &["up"], &["up", "--grafana-password-file", file]] {
        let refused = from_here(words);
        assert_eq!(refused.code, 2, "{words:?}: {}", refused.err);
        assert!(refused.err.contains("loopback") && refused.err.contains("--influxdb-ip"), "{}", refused.err);
    }
    // Published off loopback it could be reached, but only after a login in private.
    let open = ["up", "--influxdb-ip", "0.0.0.0", "--grafana-ip", "0.0.0.0", "--grafana-password-file", file];
    let open = from_here(&open);
    assert_eq!(open.code, 1, "{}{}", open.out, open.err);
    assert!(open.err.contains("out of reach"), "{}", open.err);
    assert!(from_here(&["logs", "grafana"]).expect(0).out.contains("double"));
    let down = from_here(&["down"]).expect(0);
    assert!(down.out.contains(&format!("-H {host} --volumes`")), "a complete command: {}", down.out);
    assert_eq!(caught(), 0, "no local server was contacted");
    from_here(&["down", "--volumes", "--yes"]).expect(0);
}
