//! An engine on another machine: its loopback is not ours.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::engine::OwnEngine;
use super::instance::bridge;
use crate::support::free_port;
use crate::support::run::{Ran, Run, ran};

/// Serves the engine's socket at an address that is not loopback.
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

/// Counts who connects to a port of this machine's loopback, and answers like nobody.
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
fn what_listens_on_this_machines_loopback_is_never_asked() {
    let engine = OwnEngine::start();
    let (influxdb, grafana) = (free_port().to_string(), free_port().to_string());
    let registry = OwnEngine::registry();
    let up = ["up", "--registry", &registry, "--influxdb-port", &influxdb, "--grafana-port", &grafana];
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "of-the-other-machine").unwrap();
    let file = password.path().to_str().unwrap();
    let there = ran(&engine.program(&up).args(["--grafana-password-file", file]).output().unwrap());
    assert_eq!(there.code, 0, "{}", there.err);
    // The same ports here belong to somebody else.
    let traps = [trap(influxdb.parse().unwrap()), trap(grafana.parse().unwrap())];
    let caught = || traps.iter().map(|caught| caught.load(Ordering::SeqCst)).sum::<usize>();
    let host = forwarded(engine.socket());
    let from_here = |words: &[&str]| -> Ran { Run::new(words.iter().copied().chain(["-H", &host])).run() };
    for words in [&["status"][..], &["up"], &["up", "--grafana-password-file", file]] {
        let refused = from_here(words);
        assert_eq!(refused.code, 2, "{words:?}: {}", refused.err);
        assert!(refused.err.contains("loopback") && refused.err.contains("--influxdb-ip"), "{}", refused.err);
    }
    // Published for everybody it could be reached, but not before somebody signed in where nobody else does.
    let open = ["up", "--influxdb-ip", "0.0.0.0", "--grafana-ip", "0.0.0.0", "--grafana-password-file", file];
    let open = from_here(&open);
    assert_eq!(open.code, 1, "{}{}", open.out, open.err);
    assert!(open.err.contains("out of reach"), "{}", open.err);
    assert!(from_here(&["logs", "grafana"]).expect(0).out.contains("double"));
    let down = from_here(&["down"]).expect(0);
    assert!(down.out.contains(&format!("-H {host} --volumes`")), "a complete command: {}", down.out);
    assert_eq!(caught(), 0, "nobody here was asked");
    from_here(&["down", "--volumes", "--yes"]).expect(0);
}
