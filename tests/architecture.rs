//! Enforces the architecture by reading the sources: which room may import which, and where a
//! library may be used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

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

/// A file's lines of code without its test modules, comments and blank lines.
fn code(text: &str) -> Vec<&str> {
    let (mut found, mut lines) = (Vec::new(), text.lines().peekable());
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        let is_for_tests = code.starts_with("#[cfg(") && code.contains("test");
        if is_for_tests && lines.peek().is_some_and(|next| next.ends_with("mod tests {")) {
            let end = format!("{}}}", &line[..line.len() - code.len()]);
            lines.by_ref().find(|line| **line == end);
        } else if !code.is_empty() && !code.starts_with("//") {
            found.push(line);
        }
    }
    found
}

/// The room of a file: its directory, or the file itself at the top level.
fn room(path: &str) -> &str {
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// The rooms that a line imports.
fn imports(line: &str) -> Vec<&str> {
    let word = |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().len();
    line.match_indices("crate::").map(|(at, _)| &line[at + 7..]).map(|rest| &rest[..word(rest)]).collect()
}

/// The rooms that each room may import, from top to bottom. A room may always import itself.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &[]),
    ("lib", &[]),
    ("cli", &["commands", "output", "http", "error", "model"]),
    (
        "commands",
        &[
            "settings",
            "reconcile",
            "backup",
            "export",
            "output",
            "engine",
            "grafana",
            "influxdb",
            "clipper",
            "influxql",
            "clock",
            "digest",
            "error",
            "model",
        ],
    ),
    ("backup", &["reconcile", "engine", "influxdb", "clock", "error", "model"]),
    ("reconcile", &["engine", "grafana", "influxdb", "http", "backoff", "clock", "error", "model"]),
    ("export", &["engine", "grafana", "influxdb", "digest", "error", "model"]),
    ("settings", &["clipper", "error", "model"]),
    ("output", &["error", "model"]),
    ("engine", &["backoff", "error", "model"]),
    ("grafana", &["http", "influxql", "objects_only", "backoff", "digest", "error", "model"]),
    ("influxdb", &["http", "influxql", "clock", "error", "model"]),
    ("clipper", &["error", "model"]),
    ("http", &["objects_only", "error", "model"]),
    ("error", &["model"]),
    ("influxql", &[]),
    ("objects_only", &[]),
    ("backoff", &[]),
    ("clock", &[]),
    ("digest", &[]),
    ("arbitrary", &[]),
    ("model", &[]),
];

/// The places that may use a library.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("bollard", &["engine/"]),
    ("docker_credential", &["engine/"]),
    ("serde_saphyr", &["export/"]),
    ("tar", &["engine/", "backup/archive/"]),
    ("flate2", &["backup/archive/"]),
    ("reqwest", &["http.rs"]),
    ("rustls", &["http.rs", "engine/transport.rs"]),
    ("hyper", &["engine/transport.rs"]),
    ("hyper_rustls", &["engine/transport.rs"]),
    ("hyper_util", &["engine/transport.rs", "http.rs"]),
    ("tower_service", &["engine/transport.rs"]),
    ("percent_encoding", &["http.rs"]),
    ("url", &["settings/values.rs"]),
    ("rustix", &["commands/terminal.rs", "backup/", "reconcile/lock.rs"]),
    ("toml", &["clipper/file.rs"]),
    ("strsim", &["clipper/file.rs"]),
    ("fastrand", &["clipper/load.rs"]),
    ("indicatif", &["output/human.rs"]),
    ("console", &["output/"]),
    ("clap", &["cli.rs", "main.rs", "commands/"]),
    ("clap_complete", &["commands/man.rs"]),
    ("clap_mangen", &["commands/man.rs"]),
    ("open", &["commands/terminal.rs"]),
    ("jiff", &["grafana/", "engine/inspection.rs"]),
    ("regex_lite", &["grafana/"]),
    ("httpdate", &["http.rs"]),
];

/// Clients return facts and typed errors; the plan makes decisions out of them.
const CLIENTS: &[&str] = &["engine", "grafana", "influxdb", "clipper", "http"];
const PLAN: &str = "model::plan";

/// State that one function leaves for the decision of another. A reconciliation passes it on instead.
const HIDDEN_STATE: &[&str] = &["Cell<", "RefCell", "OnceCell", "Mutex"];

/// Macros and functions that print, and the only places that may use them.
const PRINTING: &[&str] = &["println!", "eprintln!", "print!", "io::stdout()", "io::stderr()"];
const PRINTERS: &[&str] = &["output/", "commands/terminal.rs"];

/// The rules that a line of a file violates.
fn violations(path: &str, line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some((own, may)) = ROOMS.iter().find(|(name, _)| *name == room(path)) else {
        return vec![format!("{path} belongs to no room")];
    };
    for import in imports(line).into_iter().filter(|import| import != own && !may.contains(import)) {
        found.push(format!("{path} may not import {import}: {line}"));
    }
    for (library, places) in LIBRARIES {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        let is_named = words.filter_map(|word| word.strip_prefix(library)).any(|rest| rest.starts_with("::"));
        if is_named && !places.iter().any(|place| path.starts_with(place)) {
            found.push(format!("{path} may not name {library}: {line}"));
        }
    }
    if PRINTING.iter().any(|word| line.contains(word)) && !PRINTERS.iter().any(|place| path.starts_with(place)) {
        found.push(format!("{path} prints: {line}"));
    }
    if CLIENTS.contains(own) && line.contains(PLAN) {
        found.push(format!("{path} may not know plans: {line}"));
    }
    if *own == "reconcile" && HIDDEN_STATE.iter().any(|word| line.contains(word)) {
        found.push(format!("{path} may not keep hidden state: {line}"));
    }
    if *own == "model" {
        let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        for library in libraries().iter().filter(|library| *library != "serde") {
            if line.match_indices(&format!("{library}::")).any(|(at, _)| begins(at)) {
                found.push(format!("{path} may not name {library}: {line}"));
            }
        }
    }
    found
}

/// The dependencies in Cargo.toml, by their names in code.
fn libraries() -> &'static [String] {
    static FOUND: LazyLock<Vec<String>> = LazyLock::new(|| {
        let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        manifest["dependencies"].as_table().unwrap().keys().map(|name| name.replace('-', "_")).collect()
    });
    &FOUND
}

#[test]
fn every_line_follows_the_rules() {
    let mut lines = 0;
    let mut found = Vec::new();
    for (path, text) in sources() {
        for line in code(&text) {
            lines += 1;
            found.extend(violations(&path, line));
        }
    }
    assert_eq!(found, Vec::<String>::new());
    assert!(lines > 10_000, "{lines} lines were read");
}

#[test]
fn every_rule_finds_a_violation() {
    // For every room, an import that it may not use.
    for (own, may) in ROOMS {
        let path = format!("{own}/x.rs");
        for (other, _) in ROOMS.iter().filter(|(other, _)| other != own) {
            let line = format!("use crate::{other}::X;");
            assert_eq!(violations(&path, &line).is_empty(), may.contains(other), "{path}: {line}");
        }
    }
    for (library, places) in LIBRARIES {
        let line = format!("    let x = {library}::new();");
        assert!(!violations("settings/keys.rs", &line).is_empty(), "{line}");
        let place = if places[0].ends_with('/') { format!("{}x.rs", places[0]) } else { places[0].to_string() };
        assert_eq!(violations(&place, &line), Vec::<String>::new(), "{line}");
    }
    for word in PRINTING {
        assert!(!violations("engine/mod.rs", &format!("    {word}(1);")).is_empty(), "{word}");
        assert_eq!(violations("output/mod.rs", &format!("    {word}(1);")), Vec::<String>::new(), "{word}");
    }
    for client in CLIENTS {
        assert!(!violations(&format!("{client}/x.rs"), "use crate::model::plan::Step;").is_empty(), "{client}");
    }
    for word in HIDDEN_STATE {
        assert!(!violations("reconcile/mod.rs", &format!("    known: {word}X>,")).is_empty(), "{word}");
    }
    assert!(!violations("model/stack.rs", "use serde_json::Value;").is_empty());
    assert!(!violations("model/stack.rs", "    let x: tokio::time::Instant = y;").is_empty());
    assert!(!violations("app/mod.rs", "use std::fmt;").is_empty(), "a directory that no rule names");
    assert!(libraries().len() > 20, "{:?}", libraries());
    let beneath = |one: &str, other: &str| {
        let at = |name| ROOMS.iter().position(|(room, _)| *room == name);
        at(one) < at(other)
    };
    for (own, may) in ROOMS {
        assert!(may.iter().all(|other| beneath(own, other)), "{own} imports upwards");
    }
}

/// The files and folders that a file declares as modules for tests only.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let (folder, file) =
        path.rsplit_once('/').map_or((String::new(), path), |(folder, file)| (format!("{folder}/"), file));
    let folder = if ["lib.rs", "main.rs", "mod.rs"].contains(&file) { folder } else { path.replace(".rs", "/") };
    let lines: Vec<&str> = text.lines().collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    let names =
        declared.filter_map(|pair| pair[1].trim_start_matches("pub(crate) ").strip_prefix("mod ")?.strip_suffix(';'));
    names.flat_map(|name| [format!("{folder}{name}.rs"), format!("{folder}{name}/")]).collect()
}

#[test]
fn no_room_contains_more_than_a_quarter_of_the_code() {
    let all = sources();
    let tests: Vec<String> = all.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let is_test = |path: &str| tests.iter().any(|one| path == one || (one.ends_with('/') && path.starts_with(one)));
    let mut rooms = BTreeMap::<&str, usize>::new();
    for (path, text) in all.iter().filter(|(path, _)| !is_test(path)) {
        *rooms.entry(room(path)).or_default() += code(text).len();
    }
    let total: usize = rooms.values().sum();
    let largest = rooms.iter().max_by_key(|(_, lines)| **lines).unwrap();
    assert!(largest.1 * 4 <= total, "{largest:?} of {total} lines");
    // Tests beside the code do not count, neither in its files nor in their own.
    let text = "fn a() {}\n// b\n\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\nfn d() {}\n";
    assert_eq!(code(text), ["fn a() {}", "fn d() {}"]);
    let skipped: Vec<&str> = all.iter().map(|(path, _)| path.as_str()).filter(|path| is_test(path)).collect();
    for path in ["arbitrary.rs", "backup/archive/samples.rs", "settings/tests/mod.rs", "settings/tests/keys.rs"] {
        assert!(skipped.contains(&path), "{path}: {skipped:?}");
    }
    assert!(!skipped.contains(&"settings/keys.rs") && skipped.len() < 10, "{skipped:?}");
    let has_test = |text: &str| code(text).iter().any(|line| line.trim() == "#[test]");
    let counted = all.iter().filter(|(path, text)| !is_test(path) && has_test(text));
    assert_eq!(counted.map(|(path, _)| path.as_str()).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn the_paths_in_contributing_exist() {
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

/// The sources and tests, by their paths in the repository.
fn sources_and_tests() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> =
        sources().into_iter().map(|(path, text)| (format!("src/{path}"), text)).collect();
    for folder in ["tests", "tests/servers", "tests/e2e"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(root).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            let name = entry.file_name().into_string().unwrap();
            all.push((format!("{folder}/{name}"), fs::read_to_string(entry.path()).unwrap_or_default()));
        }
    }
    all
}

/// Whether a word in docs/reliability.md means this file: `module::test` is in `tests/e2e` or in `src`, and a file name
/// alone is in `tests` or `tests/servers`.
fn is_in(path: &str, module: &str, is_path: bool) -> bool {
    if is_path {
        let module = module.replace("::", "/");
        let in_src = path.starts_with("src/") && path.contains(&format!("/{module}"));
        return path == format!("tests/e2e/{module}.rs") || in_src;
    }
    [format!("tests/{module}.rs"), format!("tests/servers/{module}.rs")].contains(&path.to_string())
}

#[test]
fn every_promise_names_existing_tests() {
    let promises = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md")).unwrap();
    let files = sources_and_tests();
    let mut checked = 0;
    for line in promises.lines().filter(|line| line.starts_with("| ")) {
        // The files of the names that follow.
        let mut named: Vec<&(String, String)> = Vec::new();
        for word in line.split('`').skip(1).step_by(2) {
            let (module, name) = word.rsplit_once("::").unwrap_or((word, word));
            let found: Vec<_> = files.iter().filter(|(path, _)| is_in(path, module, word.contains("::"))).collect();
            if !found.is_empty() {
                named = found;
            }
            let is_file = !word.contains("::") && files.iter().any(|(path, _)| is_in(path, word, false));
            let is_test = name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '…');
            if is_file || !is_test {
                continue;
            }
            // A long name may be abbreviated.
            let definition = match name.strip_suffix('…') {
                Some(start) => format!("fn {start}"),
                None => format!("fn {name}("),
            };
            let is_there = named.iter().any(|(_, text)| text.contains(&definition));
            assert!(is_there, "docs/reliability.md names {word}, which no test in that file is called");
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked} names");
}

#[test]
fn every_section_of_a_golden_file_is_named_after_a_test() {
    let mut checked = 0;
    for (path, text) in sources_and_tests() {
        let golden = path.replacen("tests/", "tests/golden/", 1).replace(".rs", ".txt");
        let golden = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(golden)).unwrap_or_default();
        for name in golden.lines().filter_map(|line| line.strip_prefix("## ")) {
            assert!(text.contains(&format!("fn {name}(")), "{path} has no test {name}, but its golden file has");
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked} sections");
}

/// The sentence at the top of a file.
fn is_described(text: &str) -> bool {
    let Some(first) = text.lines().next().and_then(|line| line.strip_prefix("//! ")) else { return false };
    first.split_whitespace().count() >= 2
}

/// The types that a line declares, without associated types.
fn declared(line: &str) -> Option<&str> {
    let declaration = line.trim_start();
    let declaration = declaration.strip_prefix("pub").map_or(declaration, |rest| {
        let rest = rest.trim_start_matches("(crate)").trim_start_matches("(super)");
        rest.trim_start()
    });
    let name = ["struct ", "enum ", "trait "].into_iter().find_map(|word| declaration.strip_prefix(word));
    let alias = line.strip_prefix("type ").or_else(|| line.strip_prefix("pub type "));
    name.or(alias)?.split(|c: char| !c.is_alphanumeric()).next().filter(|name| !name.is_empty())
}

#[test]
fn every_type_has_a_name_of_its_own() {
    assert_eq!(declared("    pub(super) struct Mark<'a> {"), Some("Mark"));
    assert_eq!(declared("    type Error = D::Error;"), None);
    let mut types: Vec<(String, String)> = Vec::new();
    for (path, text) in sources() {
        types.extend(code(&text).into_iter().filter_map(declared).map(|name| (name.to_string(), path.clone())));
    }
    types.sort();
    let twice: Vec<_> = types.windows(2).filter(|pair| pair[0].0 == pair[1].0).collect();
    assert!(types.len() > 200 && twice.is_empty(), "{} types, twice: {twice:?}", types.len());
}

#[test]
fn every_file_begins_with_a_sentence_on_what_it_does() {
    let undescribed: Vec<String> =
        sources().into_iter().filter(|(_, text)| !is_described(text)).map(|(path, _)| path).collect();
    assert_eq!(undescribed, Vec::<String>::new());
    for text in ["use std::fmt;", "//! ", "//! X", "", "/// A function"] {
        assert!(!is_described(text), "{text:?}");
    }
}
