//! A proxy in front of the engine's socket that answers selected requests itself, to simulate
//! versions and failures of engines.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

/// The proxy, which ends with the test.
pub struct Front {
    folder: tempfile::TempDir,
}

impl Front {
    /// Returns this answer to the request for the engine's version.
    pub fn start(version: &str) -> Self {
        Self::answering("GET", "/version", "200 OK", version)
    }

    /// Rejects requests with this method whose path contains these words, with this message.
    pub fn refusing(method: &'static str, words: &'static str, message: &str) -> Self {
        let body = serde_json::json!({ "message": message }).to_string();
        Self::answering(method, words, "500 Internal Server Error", &body)
    }

    /// Answers such requests, and passes on all others.
    fn answering(method: &'static str, words: &'static str, status: &str, body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let answer = answer.clone();
                std::thread::spawn(move || serve(client, method, words, &answer));
            }
        });
        Self { folder }
    }

    /// Its address in the format of `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }
}

/// Serves one request; the next one uses another connection, so that every request is seen.
fn serve(mut client: UnixStream, method: &str, words: &str, answer: &str) -> Option<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 2;
        }
        let mut more = [0; 4096];
        let read = client.read(&mut more).ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&more[..read]);
    };
    let rest = head.split_off(end);
    let head = String::from_utf8(head).ok()?;
    let line = head.lines().next()?;
    if line.starts_with(method) && line.contains(words) {
        return client.write_all(answer.as_bytes()).ok();
    }
    let is_upgrade = head.to_lowercase().contains("upgrade");
    let close = if is_upgrade { "" } else { "Connection: close\r\n" };
    let mut engine = UnixStream::connect(super::run::engine_socket()).ok()?;
    engine.write_all(format!("{head}{close}").as_bytes()).ok()?;
    engine.write_all(&rest).ok()?;
    let (mut from_client, mut to_engine) = (client.try_clone().ok()?, engine.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_engine);
        let _ = to_engine.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut engine, &mut client);
    client.shutdown(Shutdown::Both).ok()
}
