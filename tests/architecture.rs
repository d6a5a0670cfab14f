//! The rules of the architecture, read from the sources: who may import whom, and which file alone
//! knows a library.

use std::fs;
use std::path::{Path, PathBuf};

/// Every source file with its path below `src`.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let relative = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
    found.into_iter().map(|path| (relative(&path), fs::read_to_string(&path).unwrap())).collect()
}

/// A file's lines of code without its tests and comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The first part of a path: `core`, `systems`, `report`, or a file at the top.
fn part(path: &str) -> &str {
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// Parts of the crate that a line names.
fn imports(line: &str) -> Vec<&str> {
    let word = |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().len();
    line.match_indices("crate::").map(|(at, _)| &line[at + 7..]).map(|rest| &rest[..word(rest)]).collect()
}

#[test]
fn imports_point_in_one_direction() {
    let allowed: &[(&str, &[&str])] = &[
        ("core", &["core"]),
        ("error", &["core", "error"]),
        ("clipper", &["clipper", "core", "error"]),
        ("report", &["core", "error", "report"]),
        ("systems", &["core", "error", "systems"]),
        ("settings", &["clipper", "core", "error", "settings", "systems"]),
        ("cli", &["clipper", "settings"]),
        ("commands", &["clipper", "core", "error", "commands", "systems"]),
        ("app", &["app", "cli", "clipper", "commands", "core", "error", "report", "settings", "systems"]),
        ("lib", &[]),
        ("main", &[]),
    ];
    let mut checked = 0;
    for (path, text) in sources() {
        let may = allowed.iter().find(|(name, _)| *name == part(&path)).map(|(_, may)| *may);
        let may = may.unwrap_or_else(|| panic!("{path} belongs to no part of the architecture"));
        for line in code(&text) {
            for import in imports(line) {
                assert!(may.contains(&import), "{path} may not import {import}: {line}");
                checked += 1;
            }
        }
    }
    assert!(checked > 50, "{checked} imports were checked");
}

#[test]
fn settings_say_how_to_sign_in_and_know_the_systems_for_nothing_else() {
    for (path, text) in sources().into_iter().filter(|(path, _)| part(path) == "settings") {
        for line in code(&text).filter(|line| line.contains("crate::systems")) {
            assert_eq!(line, "use crate::systems::{CaFile, Credentials, InfluxdbLogin};", "{path}");
        }
    }
}

#[test]
fn systems_share_only_http() {
    let systems = ["docker", "grafana", "influxdb", "lock"];
    for (path, text) in sources() {
        let Some(own) = path.strip_prefix("systems/") else { continue };
        let own = own.split('/').next().unwrap().trim_end_matches(".rs");
        // These bring the systems together.
        if ["mod", "apply", "create", "export", "identity", "login", "version", "wait"].contains(&own) {
            continue;
        }
        for line in code(&text) {
            for other in systems.iter().filter(|other| **other != own) {
                // The lock is one per engine, whose environment it shares.
                let environment = own == "lock" && line.contains("docker::endpoint::Environment");
                let named =
                    line.contains(&format!("systems::{other}::")) || line.contains(&format!("use super::{other}::"));
                assert!(!named || environment, "{path} may not know {other}: {line}");
            }
        }
    }
}

/// What Cargo.toml asks for, as code names it.
fn libraries() -> Vec<String> {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().map(|name| name.replace('-', "_")).collect()
}

#[test]
fn core_imports_nothing_but_std() {
    let libraries = libraries();
    for (path, text) in sources().into_iter().filter(|(path, _)| part(path) == "core") {
        for line in code(&text).filter(|line| line.starts_with("use ")) {
            let fine = ["use std::", "use super::", "use crate::core::"].iter().any(|start| line.starts_with(start));
            assert!(fine, "{path}: {line}");
        }
        for line in code(&text) {
            let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            let names = |library: &String| line.match_indices(&format!("{library}::")).any(|(at, _)| begins(at));
            assert_eq!(libraries.iter().find(|library| names(library)), None, "{path}: {line}");
        }
    }
}

#[test]
fn every_library_stays_in_its_place() {
    let places: &[(&str, &[&str])] = &[
        ("bollard", &["systems/docker/"]),
        ("docker_credential", &["systems/docker/"]),
        ("serde_saphyr", &["systems/export/"]),
        ("tar", &["systems/docker/", "systems/archive.rs", "systems/tar_stream.rs"]),
        ("flate2", &["systems/archive.rs"]),
        ("reqwest", &["systems/http.rs"]),
        ("rustls", &["systems/http.rs", "systems/docker/transport.rs"]),
        ("hyper", &["systems/docker/transport.rs"]),
        ("hyper_rustls", &["systems/docker/transport.rs"]),
        ("hyper_util", &["systems/docker/transport.rs"]),
        ("tower_service", &["systems/docker/transport.rs"]),
        ("percent_encoding", &["systems/http.rs"]),
        ("url", &["settings/values.rs"]),
        ("rustix", &["app/terminal.rs", "commands/backup.rs", "systems/lock.rs"]),
        ("toml", &["clipper/file.rs"]),
        ("strsim", &["clipper/file.rs"]),
        ("fastrand", &["clipper/load.rs"]),
        ("indicatif", &["report/human.rs"]),
        ("console", &["report/"]),
        ("clap", &["cli.rs", "main.rs", "app/"]),
        ("clap_complete", &["cli.rs", "app/verbs.rs"]),
        ("clap_mangen", &["app/verbs.rs"]),
        ("open", &["app/terminal.rs"]),
        ("jiff", &["systems/grafana/"]),
        ("regex_lite", &["systems/grafana/"]),
        ("httpdate", &["systems/http.rs"]),
    ];
    for (path, text) in sources() {
        for line in code(&text) {
            for (library, places) in places {
                let named = line
                    .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                    .any(|word| word.strip_prefix(library).is_some_and(|rest| rest.starts_with("::")));
                let allowed = places.iter().any(|place| path.starts_with(place));
                assert!(!named || allowed, "{path} may not know {library}: {line}");
            }
        }
    }
}

#[test]
fn only_reports_and_the_terminal_print() {
    for (path, text) in sources() {
        if part(&path) == "report" || path == "app/terminal.rs" {
            continue;
        }
        for line in code(&text) {
            for word in ["println!", "eprintln!", "print!", "io::stdout()", "io::stderr()"] {
                assert!(!line.contains(word), "{path} prints: {line}");
            }
        }
    }
}

#[test]
fn the_paths_that_contributing_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let mut checked = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let is_path = ["src/", "tests/", "benches/", "assets/", "docs/"].iter().any(|start| word.starts_with(start));
        if is_path && !word.contains(' ') {
            assert!(root.join(word).exists(), "CONTRIBUTING.md names {word}, which does not exist");
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked} paths");
}

/// Names of test functions, from all files of tests.
fn test_names() -> String {
    let mut all = String::new();
    all.extend(sources().into_iter().map(|(_, text)| text));
    for folder in ["tests", "tests/e2e"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(root).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            all.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
        }
    }
    all
}

#[test]
fn every_promise_names_tests_that_exist() {
    let promises = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md")).unwrap();
    let tests = test_names();
    let mut checked = 0;
    for line in promises.lines().filter(|line| line.starts_with("| ")) {
        for word in line.split('`').skip(1).step_by(2) {
            let name = word.rsplit("::").next().unwrap();
            let is_test = name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '…');
            if !is_test {
                continue;
            }
            // A long name may be cut.
            let found = match name.strip_suffix('…') {
                Some(start) => tests.contains(&format!("fn {start}")),
                None => tests.contains(&format!("fn {name}(")),
            };
            assert!(found, "docs/reliability.md names {word}, which no test is called");
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked} names");
}

#[test]
fn every_file_says_what_it_knows_and_what_it_must_not() {
    let mut checked = 0;
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{path} does not begin with //!");
        checked += 1;
    }
    assert!(checked > 20);
}
