//! Support for the tests: servers that behave like the real ones, images, a registry, and a way to
//! run the program.
//!
//! It does not import the code under test, except where a test of one system's client needs it.

#![allow(dead_code, unreachable_pub, reason = "every test uses another part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "tests and their programs may panic and print, and this is where they wait for conditions"
)]

pub mod context;
pub mod double;
pub mod front;
pub mod image;
pub mod influxd;
pub mod model;
pub mod registry;
pub mod run;
pub mod server;
pub mod servers;

use std::time::{Duration, Instant};

/// Compares a text with a file below `tests/golden`. `UPDATE_GOLDEN=1` writes the file instead.
///
/// # Panics
/// If they differ.
pub fn golden(path: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = recorded.lines().zip(text.lines()).find(|(recorded, text)| recorded != text);
    let (path, lines) = (path.display(), [recorded.lines().count(), text.lines().count()]);
    assert!(recorded == text, "{path} differs (UPDATE_GOLDEN=1 rewrites it): {difference:#?}, {lines:?} lines");
}

/// Polls until the condition holds.
///
/// # Panics
/// If it does not hold within the time limit.
pub fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A free TCP port on loopback. Assigned ports are remembered, so that no two tests of one process
/// get the same.
pub fn free_port() -> u16 {
    use std::collections::HashSet;
    use std::sync::{LazyLock, Mutex};
    static USED: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    // Below the system's range for outgoing connections, and different for every test process.
    let start = 12_000 + u16::try_from(std::process::id() % 100).unwrap() * 200;
    let mut used = USED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for port in (start..start + 200).chain(12_000..32_000) {
        if !used.contains(&port) && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            used.insert(port);
            return port;
        }
    }
    panic!("no free port");
}
