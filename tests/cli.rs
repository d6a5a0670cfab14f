//! The program without an engine: help, usage, files and precedence. Nothing is changed before all
//! settings are valid.

use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use serde_json::{Value, json};

use crate::support::context::{Record, TestContext};
use crate::support::run::{NO_ENGINE, Ran, Run, parsed_command, program, ran};
use crate::support::server::{Request, Response, in_background};
use clipper_metrics::clipper::file::ValueKind;
use clipper_metrics::model::invocation::typed_option;
use clipper_metrics::settings::invocation;
use clipper_metrics::settings::keys::{Key, Setting, TABLE, Values};

fn run(words: &[&str]) -> Ran {
    Run::without_engine(words).run()
}

/// The only engine does not exist, so that this error shows that all settings are valid.
fn is_without_engine(ran: &Ran) -> bool {
    ran.err
        == "error: cannot reach the Docker engine at unix:///nonexistent/docker.sock (DOCKER_HOST): \
            /nonexistent/docker.sock does not exist\n\
            hint: check that address, or start the engine there; -H or --context selects another\n"
}

fn with_file(text: &str, words: &[&str]) -> Ran {
    let it = TestContext::new();
    run(&[words, &["--config", &it.write("clipper.toml", text)]].concat())
}

#[test]
fn errors_with_their_hints_are_the_recorded_ones() {
    let it = TestContext::new();
    let bad = &it.write("bad.toml", "name = \"a\"\ninflux_port = 0\n");
    let unknown = &it.write("unknown.toml", "[metrics]\ngrafana_prot = 3001\n");
    let mut record = it.record();
    for (situation, words) in [
        ("no engine", &["up"][..]),
        ("no engine", &["logs"]),
        ("no engine", &["down", "--volumes"]),
        ("an unknown context", &["status", "--context", "no-such-context"]),
        ("an option of other commands", &["down", "--grafana-port", "3001", "--name", "a"]),
        ("an option before the command", &["--grafana-port", "3001", "up", "--name", "a"]),
        ("an unknown option", &["up", "--frobnicate"]),
        ("no command", &[]),
        ("a bad value in Clipper's file", &["up", "-c", bad]),
        ("an unknown key in Clipper's file", &["up", "-c", unknown]),
        ("a missing file", &["up", "-c", "/nonexistent/clipper.toml"]),
        ("a bad port", &["up", "--grafana-port", "70000"]),
        ("a bad name", &["up", "--name", "Upper"]),
        ("a database that Clipper cannot write to", &["up", "--database", "a/b"]),
        ("a URL without a scheme", &["up", "--grafana-url", "localhost:3000"]),
        ("a duration without a unit", &["up", "--timeout", "soon"]),
        ("a short retention period", &["up", "--retention", "1m"]),
        ("a user without a server", &["up", "--influxdb-user", "me"]),
        ("a format that the command does not have", &["up", "--output", "env"]),
        ("a backup that does not exist", &["restore", "/nonexistent/clipper.backup"]),
        ("an unknown command", &["man", "frobnicate"]),
    ] {
        let ran = record.run(situation, Run::without_engine(words));
        assert_ne!(ran.code, 0, "{words:?}");
    }
    record.golden("errors.txt");
}

#[test]
fn the_status_of_every_resource_is_the_recorded_one() {
    let it = TestContext::new();
    let own = &it.write("own.json", json!({"title": "Mine", "uid": "mine", "panels": []}).to_string());
    let mut record = it.record();
    for format in ["human", "env", "json"] {
        let words = ["status", "--influxdb-url=http://127.0.0.1:1", "--grafana-url=http://127.0.0.1:2"];
        let settings = ["--grafana-org=Org", "--alerts", "--dashboard", own, "--output", format];
        record.run("two servers that do not answer", Run::without_engine([&words[..], &settings].concat()));
    }
    record.golden("status.txt");
}

#[test]
fn a_standard_stream_or_a_directory_is_refused_as_a_backup_before_any_work() {
    for (words, hint) in [
        (["backup", "-"], "`clipper-metrics backup ./-`"),
        (["restore", "-"], "`clipper-metrics restore ./-`"),
        (["backup", "new/"], "new/clipper.backup"),
    ] {
        let refused = run(&words).expect(2);
        assert!(refused.err.contains(hint), "{words:?}: {}", refused.err);
    }
}

#[test]
fn help_names_every_command_and_every_option_has_a_text() {
    use clap::CommandFactory as _;
    let help = run(&["--help"]).expect(0);
    for command in clipper_metrics::cli::Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(help.out.contains(&format!("  {name} ")), "{name}");
        for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
            assert!(option.get_help().is_some(), "{name}: {option}");
        }
        let own = run(&[name, "--help"]).expect(0);
        assert!(own.out.contains("--config <FILE>"), "{name}");
        assert_eq!(own.err, "");
    }
    assert!(run(&["--version"]).expect(0).out.starts_with("clipper-metrics "));
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    for words in [
        &["man", "up"][..],
        &["completions", "bash"],
        &["--help"],
        &["up", "-h"],
        &["--version"],
        &["status", "--output", "json-schema"],
        &["status", "--output", "json"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = ran(&Run::without_engine(words).command().stdout(full).output().unwrap());
        assert_eq!(ended.code, 1, "{words:?}");
        let is_failure = words.ends_with(&["json"]);
        let expected = if is_failure { "error: cannot reach" } else { "error: cannot write to standard output: " };
        assert!(ended.err.starts_with(expected), "{words:?}: {}", ended.err);
    }
}

#[test]
fn color_applies_to_help_and_usage_errors() {
    let is_coloured = |words: &[&str], variables: &[&str]| {
        let run = Run::without_engine(words);
        let ended = variables.iter().fold(run, |run, name| run.env(name, "1")).run();
        format!("{}{}", ended.out, ended.err).contains('\x1b')
    };
    for words in [&["--help"][..], &["status", "--bogus"], &["upp"], &["logs", "--grafana-port", "1"]] {
        assert!(!is_coloured(words, &[]), "{words:?} in a pipe");
        assert!(is_coloured(words, &["CLICOLOR_FORCE", "NO_COLOR"]), "{words:?} forced");
        assert!(is_coloured(&[&["--color", "always"], words].concat(), &["NO_COLOR"]), "{words:?} always");
        assert!(!is_coloured(&[&["--color=never"], words].concat(), &["CLICOLOR_FORCE"]), "{words:?} never");
    }
}

#[cfg(unix)]
#[test]
fn a_known_variable_that_is_not_text_is_an_error_that_names_it() {
    use std::os::unix::ffi::OsStrExt as _;
    let odd = std::ffi::OsStr::from_bytes(b"a\xff");
    let run = |name: &str, words: &[&str]| {
        let mut command = Run::without_engine(words).command();
        ran(&command.env(name, odd).output().unwrap())
    };
    let of_settings = TABLE.iter().flat_map(Key::variables);
    for name in of_settings.chain(["DOCKER_HOST", "DOCKER_CONTEXT"].map(String::from)) {
        let refused = run(&name, &["status"]).expect(2);
        assert_eq!(
            refused.err.lines().next(),
            Some(&*format!("error: the environment variable {name} is not UTF-8 text"))
        );
    }
    let json = run("CLIPPER_METRICS_NAME", &["status", "--output", "json"]).expect(2).json();
    assert_eq!(json["error"]["kind"], "usage");
    // Paths and variables of other programs need not be text.
    for name in ["HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "CLIPPER_METRICS_OTHER", "LS_COLORS"] {
        let other = run(name, &["status"]).expect(1);
        assert!(is_without_engine(&other), "{name}: {}", other.err);
    }
}

#[test]
fn the_package_has_a_manual_page_for_every_command() {
    use clap::CommandFactory as _;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = std::process::Command::new(root.join("packaging/commands")).arg(program()).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let cli = clipper_metrics::cli::Cli::command();
    let commands: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), commands);
    assert!(commands.contains(&"export"));
    for command in commands {
        assert!(run(&["man", command]).expect(0).out.contains(&format!("clipper\\-metrics\\-{command}")), "{command}");
    }
    let none = std::process::Command::new(root.join("packaging/commands")).arg("true").output().unwrap();
    assert!(!none.status.success(), "a program without commands is none");
}

#[test]
fn wrong_usage_is_exit_code_2_and_changes_nothing() {
    let mut record = Record::default();
    for words in [
        &["up", "--no-such-option"][..],
        &["up", "--influxdb-port", "0"],
        &["up", "--influxdb-port", "70000"],
        &["up", "--grafana-port", "x"],
        &["up", "--name", "Upper"],
        &["up", "--name", "-x"],
        &["up", "--database", ".."],
        &["up", "--database", "a/b"],
        &["up", "--database", "a&b"],
        &["up", "--database", "a\"b"],
        &["up", "--timeout", "soon"],
        &["up", "--timeout", "0s"],
        &["up", "--pull", "sometimes"],
        &["up", "--influxdb-url", "ftp://x"],
        &["up", "--influxdb-url", "http://me:secret@x:8086"],
        &["up", "--influxdb-ip", &"long-label".repeat(9)],
        &["up", "--influxdb-url", "http://x:8086", "--influxdb-port", "abc"],
        &["up", "--grafana-url", "http://x:3000", "--grafana-image", "a b"],
        &["down", "--influxdb-port", "30o0"],
        &["logs", "--registry", "/"],
        &["up", "-H", "unix:///x", "--context", "y"],
        &["up", "--context", "no-such-context"],
        &["demo", "--rate", "-1"],
        &["frobnicate"],
    ] {
        let ran = record.run("wrong usage", Run::without_engine(words)).expect(2);
        assert_eq!(ran.out, "", "{words:?}");
        assert!(!ran.err.contains("secret"), "{}", ran.err);
    }
    record.section();
}

#[test]
fn an_unused_variable_is_checked_and_named() {
    let mut record = Record::default();
    for words in [&["up", "--grafana-url", "http://x:3000"][..], &["up", "--grafana-port", "3001"], &["down"]] {
        let run = Run::without_engine(words).env("CLIPPER_METRICS_GRAFANA_PORT", "30o0");
        record.run("a variable that this run does not use", run).expect(2);
    }
    record.section();
}

#[test]
fn a_bad_file_is_one_error_with_file_and_line() {
    let it = TestContext::new();
    let mut record = it.record();
    for text in [
        "x = \n",
        "name = \"a\"\ninflux_port = 0\n",
        "influx_port = 70000\n",
        "influx_port = \"8086\"\n",
        "\ninflux_ip = 5\n",
        "influx_dbname = \"\"\n",
        "influx_dbname = \"..\"\n",
        "influx_dbname = \"a/b\"\n",
        "influx_dbname = \"a;b\"\n",
        "slo_micros = -1\n",
        "[metrics]\nnmae = \"x\"\n",
        "[metrics]\ngrafana_port = 0\n",
    ] {
        let run = Run::without_engine(["up", "--config", &it.write("clipper.toml", text)]);
        record.run(&format!("{text:?}"), run).expect(2);
    }
    record.run("a missing file", Run::without_engine(["up", "--config", "/nonexistent/test.toml"])).expect(2);
    record.section();
}

#[test]
fn an_absent_engine_is_one_error_with_a_hint_in_both_formats() {
    for command in ["up", "down", "status"] {
        let ran = run(&[command]).expect(1);
        assert!(is_without_engine(&ran), "{}", ran.err);
        let json = run(&[command, "--output", "json"]).expect(1).json();
        assert_eq!(json["schema"], 1);
        assert_eq!(json["error"]["kind"], "engine_unreachable");
        assert!(json["error"]["hint"].as_str().is_some_and(|hint| !hint.is_empty()));
    }
    for words in [&["up", "--database", "..", "--output", "json"][..], &["up", "--frobnicate", "--output=json"]] {
        let usage = run(words).expect(2).json();
        assert_eq!(usage["error"]["kind"], "usage", "{words:?}");
    }
}

#[test]
fn the_engine_is_chosen_as_docker_chooses() {
    let mut record = Record::default();
    for (words, variable) in [
        (&["status", "-H", "/nonexistent/a"][..], "unix:///nonexistent/b"),
        (&["status"], "unix:///nonexistent/b"),
        (&["status", "-H", "gopher://x"], ""),
    ] {
        let run = Run::new(words).env("DOCKER_HOST", variable).env("DOCKER_CONFIG", "/nonexistent");
        record.run(&format!("DOCKER_HOST={variable}"), run).expect(1);
    }
    record.section();
}

#[test]
fn option_beats_environment_beats_file() {
    let text = "influx_dbname = \"a b;c\"\n";
    // An invalid name shows which source was used: the file's is rejected, the others are not read.
    with_file(text, &["status"]).expect(2);
    let it = TestContext::new();
    let mut record = it.record();
    for words in [&["status", "--database", "o/"][..], &["status"]] {
        let run = Run::without_engine(words).env("CLIPPER_METRICS_DATABASE", "e/");
        record.run("an option and a variable", run).expect(2);
    }
    let file = it.write("clipper.toml", "influx_port = 1234\n[metrics]\nname = \"of-file\"\n");
    let run = Run::without_engine(["status", "--name", "-", "--config", &file]);
    record.run("an option and a file with another name", run).expect(2);
    record.section();
}

#[test]
fn a_secret_in_the_environment_beats_the_file_and_an_empty_variable_counts_as_unset() {
    let file = "[metrics]\ngrafana_password_file = \"/nonexistent/password\"\n";
    // The value in the file would be an error.
    with_file(file, &["status"]).expect(2);
    let it = TestContext::new();
    let config = &it.write("clipper.toml", file);
    let run = |name: &str, value: &str| Run::without_engine(["status", "--config", config]).env(name, value).run();
    let ran = run("CLIPPER_METRICS_GRAFANA_PASSWORD", "secret").expect(1);
    assert!(is_without_engine(&ran), "{}", ran.err);
    for variable in ["PULL", "TIMEOUT", "INFLUXDB_URL", "GRAFANA_URL", "INFLUXDB_USER", "OUTPUT", "CONFIG", "NAME"] {
        let name = format!("CLIPPER_METRICS_{variable}");
        let ran = Run::without_engine(["status"]).env(&name, "").run().expect(1);
        assert!(is_without_engine(&ran), "{variable}: {}", ran.err);
    }
}

#[test]
fn usage_errors_are_json_if_only_the_environment_requests_it() {
    for words in [&["up", "--frobnicate"][..], &["up", "--database", ".."]] {
        let ran = Run::without_engine(words).env("CLIPPER_METRICS_OUTPUT", "json").run().expect(2);
        assert_eq!(ran.json()["error"]["kind"], "usage", "{words:?}");
    }
    let human = Run::new(["up", "--frobnicate", "--output", "human"]).env("CLIPPER_METRICS_OUTPUT", "json");
    let mut record = Record::default();
    record.run("an option beats the variable", human).expect(2);
    record.section();
}

#[test]
fn a_closed_reader_causes_no_panic() {
    for words in [&["completions", "bash"][..], &["--help"]] {
        let mut process = Run::new(words).command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(process.stdout.take());
        let output = process.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
        assert_eq!(output.status.code(), Some(0), "{words:?}");
    }
}

#[test]
fn an_overlong_duration_is_an_error() {
    let mut record = Record::default();
    for words in [&["up", "--timeout", "400000000000y"][..], &["demo", "--backfill", "400000000000y"]] {
        record.run("an overlong duration", Run::without_engine(words)).expect(2);
    }
    record.section();
}

#[test]
fn every_setting_of_the_table_is_an_option_with_its_variable_and_default() {
    let help = run(&["up", "--help"]).expect(0).out;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for key in TABLE {
        let option = match key.kind {
            ValueKind::Flag => format!("--{}[=<{}>]", key.option, key.value_name),
            _ => format!("--{} <{}>", key.option, key.value_name),
        };
        assert!(help.contains(&option), "{option}");
        assert!(help.contains(&format!("[env: {}]", key.variable())), "{}", key.option);
        assert!(key.default.is_empty() || help.contains(&format!("[default: {}]", key.default)), "{}", key.option);
    }
}

#[test]
fn one_engine_is_selected_on_either_side_of_the_command() {
    let mut record = Record::default();
    for words in [["-H", "tcp://a:1", "down", "--context", "b"], ["--context", "b", "status", "-H", "tcp://a:1"]] {
        record.run("two engines", Run::without_engine(words)).expect(2);
    }
    record.section();
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(run(&["completions", shell]).expect(0).out.contains("clipper-metrics"), "{shell}");
    }
}

#[test]
fn bash_completes_the_words_of_every_command() {
    let script = run(&["completions", "bash"]).expect(0).out;
    for (typed, expected) in [
        ("", "restore"),
        ("--con", "--context"),
        ("up --gr", "--grafana-port"),
        ("export ", "kubernetes"),
        ("logs ", "influxdb"),
        ("up --pull ", "never"),
        ("help ", "status"),
    ] {
        let words: Vec<&str> = std::iter::once("clipper-metrics").chain(typed.split(' ')).collect();
        let (last, word) = (words.len() - 1, words.last().unwrap());
        let quoted: String = words.iter().map(|word| format!("'{word}' ")).collect();
        let completion = format!(
            "{script}\nCOMP_WORDS=({quoted}) COMP_CWORD={last}\n\
             $(complete -p clipper-metrics | grep -o '_clipper[^ ]*') clipper-metrics '{word}' '{}'\n\
             echo \"${{COMPREPLY[@]}}\"",
            words[last - 1]
        );
        let shell = std::process::Command::new("bash").args(["-c", &completion]).output().unwrap();
        let completed = String::from_utf8_lossy(&shell.stdout);
        assert!(completed.split_whitespace().any(|word| word == expected), "{typed}: {completed}{:?}", shell.stderr);
    }
}

#[test]
fn a_manual_page_describes_every_option() {
    for command in ["up", "restore", "export"] {
        let page = run(&["man", command]).expect(0).out;
        let options: Vec<&str> = page.split("\n.TP\n").skip(1).collect();
        assert!(options.len() > 10);
        for option in options {
            let (name, text) = option.split_once('\n').unwrap_or((option, ""));
            assert!(text.trim().len() > 5, "{command}: {name}: {text:?}");
        }
    }
}

#[test]
fn control_characters_in_a_file_do_not_reach_the_terminal() {
    let ran = with_file("[metrics]\n\"\u{1b}[31m\" = 1\n", &["up"]);
    assert!(!ran.err.contains('\u{1b}'), "{:?}", ran.err);
    let ran = run(&["up", "--database", "a\u{1b}[2Jb/"]).expect(2);
    assert!(!ran.err.contains('\u{1b}'), "{:?}", ran.err);
}

/// An engine that answers its version and has no images; the credentials of every pull are recorded.
fn engine_without_images(component: &'static str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&noted);
    let port = in_background(move |request: Request| {
        let notes = Arc::clone(&notes);
        async move {
            let path = request.path.split('?').next().unwrap_or_default().to_string();
            match path.rsplit('/').next().unwrap_or_default() {
                "version" => {
                    let components = json!([{"Name": component, "Version": "4.3.1"}]);
                    Response::json(200, &json!({"Version": "4.3.1", "ApiVersion": "1.41", "Components": components}))
                }
                "volumes" => Response::json(200, &json!({"Volumes": [], "Warnings": []})),
                "networks" => Response::json(200, &json!([])),
                "create" if path.ends_with("/images/create") => {
                    let credentials = request.headers.get("x-registry-auth").cloned().unwrap_or_default();
                    notes.lock().unwrap().push(credentials);
                    Response::json(500, &json!({"message": "no pulls here"}))
                }
                "create" => Response::json(201, &json!({"Id": "n", "Warning": ""})),
                "json" if path.ends_with("/containers/json") => Response::json(200, &json!([])),
                _ => Response::json(404, &json!({"message": "no such thing"})),
            }
        }
    });
    (port, noted)
}

/// An engine without containers, on which another process replaces an instance's settings once they were read. Requests
/// that change something are recorded, and fail.
fn engine_with_changing_settings() -> (u16, Arc<Mutex<Vec<String>>>) {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let (noted, reads) = (Arc::clone(&changes), AtomicU64::new(0));
    let port = in_background(move |request: Request| {
        let path = request.path.split('?').next().unwrap_or_default();
        let answer = match path.rsplit('/').next().unwrap_or_default() {
            _ if request.method != "GET" => {
                noted.lock().unwrap().push(format!("{} {path}", request.method));
                (500, json!({"message": "nothing changes here"}))
            }
            "version" => (200, json!({"Version": "28.0.0", "ApiVersion": "1.48"})),
            "volumes" => {
                let (number, settings) = match reads.fetch_add(1, Ordering::SeqCst) {
                    0 => (1, json!({"database": user("d"), "grafana-port": user("3001")})),
                    _ => (2, json!({"database": user("e")})),
                };
                let labels = json!({"clipper-metrics.instance": "x", "clipper-metrics.settings": settings.to_string()});
                let volume = json!({
                    "Name": format!("x-settings-{number}"), "Labels": labels, "Driver": "local", "Mountpoint": "/",
                    "Scope": "local", "Options": {}
                });
                (200, json!({"Volumes": [volume], "Warnings": []}))
            }
            "networks" => (200, json!([])),
            "json" if path.ends_with("/containers/json") => (200, json!([])),
            _ => (404, json!({"message": "no such thing"})),
        };
        std::future::ready(Response::json(answer.0, &answer.1))
    });
    (port, changes)
}

fn user(value: &str) -> Value {
    json!({"value": value, "from": "user"})
}

#[test]
fn a_run_whose_settings_another_process_changes_ends_before_it_changes_anything() {
    for (words, code) in [(&["up", "--grafana-ip", "::1"][..], 1), (&["up", "--grafana-ip", "::1", "--dry-run"], 3)] {
        let (port, changes) = engine_with_changing_settings();
        let host = format!("tcp://127.0.0.1:{port}");
        let ran = Run::new([words, &["--name", "x", "-H", &host]].concat()).run().expect(code);
        let text = format!("{}{}", ran.out, ran.err);
        let why = "the settings of x changed while this command ran: database: d -> e, grafana-port: 3001 -> (none)";
        assert!(text.contains(why), "{text}");
        assert!(text.contains("run the same command again: it continues with the current settings"), "{text}");
        assert_eq!(*changes.lock().unwrap(), Vec::<String>::new());
    }
    // Another `status` would use the new ones, so this one does.
    let (port, _) = engine_with_changing_settings();
    let host = format!("tcp://127.0.0.1:{port}");
    let status = Run::new(["status", "--name", "x", "-H", &host, "--output", "json"]).run().expect(3).json();
    assert_eq!(status["database"]["name"], "e", "{status}");
    assert!(!status.to_string().contains("while this command ran"), "{status}");
}

#[test]
fn podman_and_docker_pull_with_their_own_stored_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let auths = |names: [&str; 2], auth: &str| {
        let entry = json!({"auth": auth});
        json!({"auths": {names[0]: entry, names[1]: entry}}).to_string()
    };
    // "podman:secret" and "docker:secret".
    let podman = auths(["docker.io", "r.example:5000"], "cG9kbWFuOnNlY3JldA==");
    let docker = auths(["https://index.docker.io/v1/", "r.example:5000"], "ZG9ja2VyOnNlY3JldA==");
    std::fs::write(folder.path().join("auth.json"), podman).unwrap();
    std::fs::write(folder.path().join("config.json"), docker).unwrap();
    let runtime = folder.path().join("runtime");
    std::fs::create_dir_all(runtime.join("containers")).unwrap();
    std::fs::copy(folder.path().join("auth.json"), runtime.join("containers/auth.json")).unwrap();
    let folder = folder.path().to_str().unwrap();
    for registry in ["", "r.example:5000"] {
        for (component, variable, value, user) in [
            ("Podman Engine", "REGISTRY_AUTH_FILE", format!("{folder}/auth.json"), "podman"),
            ("Podman Engine", "XDG_RUNTIME_DIR", format!("{folder}/runtime"), "podman"),
            ("Podman Engine", "REGISTRY_AUTH_FILE", format!("{folder}/nothing"), "docker"),
            ("Engine", "REGISTRY_AUTH_FILE", format!("{folder}/auth.json"), "docker"),
        ] {
            let (port, noted) = engine_without_images(component);
            let run = Run::new(["up", "--registry", registry])
                .env("DOCKER_HOST", &format!("tcp://127.0.0.1:{port}"))
                .env("DOCKER_CONFIG", folder)
                .env(variable, &value);
            // Both images are pulled at once, so that either may fail first.
            let ran = run.run().expect(1);
            let is_pull = |line: &str| line.starts_with("error: cannot pull ") && line.ends_with(": no pulls here");
            assert!(ran.err.lines().any(is_pull), "{}", ran.err);
            let noted = noted.lock().unwrap().clone();
            assert!(!noted.is_empty(), "{}", ran.err);
            for credentials in noted {
                let sent: Value = serde_json::from_slice(&BASE64_URL_SAFE.decode(credentials).unwrap()).unwrap();
                assert_eq!(sent["username"], user, "{component} {variable}={value}");
            }
        }
    }
}

#[test]
fn the_program_needs_no_login_session() {
    // As cron and init run programs: no HOME, no TERM, no PATH, and no standard input.
    let bare = |words: &[&str], stdin: Stdio| {
        let mut command = std::process::Command::new(program());
        let output = command.env_clear().args(words).stdin(stdin).output().unwrap();
        ran(&output)
    };
    let expected = run(&["status", "-H", NO_ENGINE]).expect(1);
    for stdin in [Stdio::null, closed] {
        let status = bare(&["status", "-H", NO_ENGINE], stdin()).expect(1);
        assert_eq!(status.err, expected.err);
        assert!(!status.err.contains('\u{1b}') && !status.out.contains('\u{1b}'), "{}", status.err);
        let json = bare(&["status", "-H", NO_ENGINE, "--output", "json"], stdin()).expect(1);
        assert_eq!(json.json()["error"]["kind"], "engine_unreachable");
        let unset = bare(&["up", "--context", "x"], stdin()).expect(2);
        assert!(!unset.err.contains("panicked"), "{}", unset.err);
        bare(&["--help"], stdin()).expect(0);
        bare(&["completions", "bash"], stdin()).expect(0);
    }
}

/// A standard input whose other end is closed.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(writer);
    reader.into()
}

#[test]
fn closed_standard_streams_cause_no_panic() {
    for words in ["status -H unix:///nonexistent/docker.sock", "--help", "up --database .."] {
        for close in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            let script = format!("exec {} {words} {close}", program());
            let output = std::process::Command::new("sh").args(["-c", &script]).env_clear().output().unwrap();
            let code = output.status.code();
            assert!(matches!(code, Some(0..=2)), "{words} {close}: {output:?}");
            assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{words} {close}: {output:?}");
        }
    }
}

/// Any value that the command line accepts for a setting.
fn any_value(setting: Setting) -> proptest::strategy::BoxedStrategy<String> {
    use proptest::prelude::*;
    match setting.key().kind {
        ValueKind::Word(words) => proptest::sample::select(words).prop_map(String::from).boxed(),
        ValueKind::Flag => proptest::sample::select(&["true", "false"][..]).prop_map(String::from).boxed(),
        ValueKind::Paths => prop_oneof![Just(String::new()), "[^\0:]{1,12}(:[^\0:]{1,12})?"].boxed(),
        _ => prop_oneof![
            Just(String::new()),
            "-[^\0]{0,8}",
            "[^\0]{0,12}",
            "[ \"'$`\\\\!#&;|<>~*?{}()\\[\\]a\n\t-]{0,8}"
        ]
        .boxed(),
    }
}

fn any_values() -> impl proptest::strategy::Strategy<Value = Values> {
    use proptest::prelude::*;
    let settings: Vec<Setting> = TABLE.iter().map(|key| key.setting).collect();
    let count = settings.len();
    let chosen = proptest::sample::subsequence(settings, 0..=count);
    chosen
        .prop_flat_map(|settings| {
            settings.into_iter().map(|setting| (Just(setting), any_value(setting))).collect::<Vec<_>>()
        })
        .prop_map(|values| values.into_iter().collect())
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]

    #[test]
    fn a_suggested_command_has_the_settings_of_this_run_and_its_change(
        options in any_values(), host in proptest::option::of("[a-z0-9:/.$ ']{1,12}"), is_alert in proptest::bool::ANY
    ) {
        let engine = host.as_ref().map(|host| typed_option("-H", host)).unwrap_or_default();
        let invocation = invocation(&options, &Values::new(), &engine, false);
        let change = format!("up --alerts={is_alert} --grafana-image other:1 --overwrite-dashboard");
        let mut expected = options.clone();
        // The output format is not a setting of the instance.
        expected.remove(&Setting::Output);
        let again = parsed_command(&invocation.command("status"));
        let accepted = |setting: &Setting| setting.key().is_accepted_by("status");
        let of_status: Values = expected.clone().into_iter().filter(|(setting, _)| accepted(setting)).collect();
        proptest::prop_assert_eq!(&again.options.settings.0, &of_status);
        proptest::prop_assert_eq!(&again.options.host, &host);
        expected.insert(Setting::Alerts, is_alert.to_string());
        expected.insert(Setting::GrafanaImage, "other:1".into());
        let changed = parsed_command(&invocation.command(&change));
        proptest::prop_assert_eq!(changed.options.settings.0, expected);
        let down = parsed_command(&invocation.command("down --volumes"));
        let identity = |values: &Values| [Setting::Config, Setting::Name].map(|setting| values.get(&setting).cloned());
        proptest::prop_assert_eq!(identity(&down.options.settings.0), identity(&options));
        proptest::prop_assert_eq!(down.options.settings.0.len(), identity(&options).iter().flatten().count());
    }
}
