//! A socket in front of the engine that describes it as another one, and passes everything else on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

/// Ends with the test.
pub struct Front {
    folder: tempfile::TempDir,
}

impl Front {
    /// `version` is the answer to the request for the engine's version.
    pub fn start(version: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream, version));
            }
        });
        Self { folder }
    }

    /// Its address.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("socket").display())
    }
}

fn serve(mut client: UnixStream, version: &str) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        match client.read(&mut buffer) {
            Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let line = String::from_utf8_lossy(&head);
    if line.split(' ').nth(1).is_some_and(|path| path.ends_with("/version")) {
        let _ = write!(
            client,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{version}",
            version.len()
        );
        return;
    }
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    let mut engine = UnixStream::connect(host.strip_prefix("unix://").expect("a local engine")).unwrap();
    engine.write_all(&head).unwrap();
    let (forth, back) = (engine.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || copy(client, forth));
    copy(engine, back);
}

fn copy(mut from: UnixStream, mut to: UnixStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
