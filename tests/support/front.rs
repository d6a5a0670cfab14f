//! A proxy in front of the engine's socket that answers or delays selected requests, to simulate
//! versions, failures and busy engines.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The proxy, which ends with the test.
pub struct Front {
    folder: tempfile::TempDir,
    selected: Arc<Selected>,
}

/// The requests that the proxy treats specially.
struct Selected {
    method: &'static str,
    words: &'static str,
    treatment: Treatment,
    received: AtomicUsize,
    passed_on: AtomicBool,
}

impl Selected {
    fn received(&self) -> usize {
        self.received.load(Ordering::SeqCst)
    }
}

enum Treatment {
    Answer(String),
    /// Delays the request with this number for this time, and passes on the others.
    Delay(usize, Duration),
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

    /// Passes the request with this number on with a delay, even if the client has closed the connection meanwhile.
    pub fn delaying(method: &'static str, words: &'static str, number: usize, time: Duration) -> Self {
        Self::treating(method, words, Treatment::Delay(number, time))
    }

    /// Whether the delayed request has arrived here.
    pub fn is_delaying(&self) -> bool {
        matches!(self.selected.treatment, Treatment::Delay(number, _) if self.selected.received() >= number)
    }

    /// Whether the engine has answered the delayed request.
    pub fn has_passed_on(&self) -> bool {
        self.selected.passed_on.load(Ordering::SeqCst)
    }

    fn answering(method: &'static str, words: &'static str, status: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
        Self::treating(method, words, Treatment::Answer(format!("{head}Connection: close\r\n\r\n{body}")))
    }

    fn treating(method: &'static str, words: &'static str, treatment: Treatment) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let (received, passed_on) = (AtomicUsize::new(0), AtomicBool::new(false));
        let selected = Arc::new(Selected { method, words, treatment, received, passed_on });
        let serving = Arc::clone(&selected);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let selected = Arc::clone(&serving);
                std::thread::spawn(move || serve(client, &selected));
            }
        });
        Self { folder, selected }
    }

    /// Its address in the format of `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }
}

/// Serves one request; the next one uses another connection, so that every request is seen.
fn serve(mut client: UnixStream, selected: &Selected) -> Option<()> {
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
    let mut delay = None;
    if line.starts_with(selected.method) && line.contains(selected.words) {
        let number = selected.received.fetch_add(1, Ordering::SeqCst) + 1;
        match &selected.treatment {
            Treatment::Answer(answer) => return client.write_all(answer.as_bytes()).ok(),
            Treatment::Delay(delayed, time) => delay = Some(*time).filter(|_| *delayed == number),
        }
    }
    if let Some(time) = delay {
        std::thread::sleep(time);
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
    // The engine answers after it has carried out the request.
    let mut first = [0];
    let read = engine.read(&mut first).ok()?;
    selected.passed_on.fetch_or(delay.is_some(), Ordering::SeqCst);
    let _ = std::io::copy(&mut first[..read].chain(engine), &mut client);
    client.shutdown(Shutdown::Both).ok()
}
