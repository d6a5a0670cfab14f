//! Support for the tests: servers that behave like the real ones, images, a registry, and a way to
//! run the program.

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

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Compares a text with a file below `tests/golden`. `UPDATE_GOLDEN=1` writes the file instead.
///
/// # Panics
/// If they differ.
pub fn golden(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path);
    if is_updating() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    compare(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap_or_default(), text);
}

/// Compares a text with this test's section of the golden file of its module.
///
/// # Panics
/// If they differ.
pub fn golden_section(text: &str) {
    static FILES: Mutex<()> = Mutex::new(());
    let thread = std::thread::current();
    let (module, test) = thread.name().unwrap().rsplit_once("::").unwrap();
    let path = format!("{}.txt", module.replace("::", "/"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(&path);
    let guard = FILES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let all = format!("\n{}", std::fs::read_to_string(file).unwrap_or_default());
    let mut sections: BTreeMap<&str, &str> =
        all.split("\n## ").filter_map(|section| section.split_once("\n\n")).collect();
    if is_updating() {
        sections.insert(test, text);
        let sections: Vec<String> = sections.iter().map(|(name, text)| format!("## {name}\n\n{text}")).collect();
        golden(&path, &sections.join("\n"));
    }
    drop(guard);
    compare(&format!("{path}: {test}"), sections.get(test).unwrap_or(&""), text);
}

fn is_updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn compare(name: &str, recorded: &str, text: &str) {
    let difference = recorded.lines().zip(text.lines()).find(|(recorded, text)| recorded != text);
    let lines = [recorded.lines().count(), text.lines().count()];
    assert!(recorded == text, "{name} differs (UPDATE_GOLDEN=1 rewrites it): {difference:#?}, {lines:?} lines");
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
    use std::sync::LazyLock;
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
