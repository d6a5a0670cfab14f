//! Runs the program and small HTTP requests, and checks their results.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Parser as _;
use serde_json::Value;

/// A socket that does not exist.
pub const NO_ENGINE: &str = "unix:///nonexistent/docker.sock";

/// A run of the program with its own environment.
pub struct Run {
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    home: tempfile::TempDir,
}

/// The result of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    /// The command as a user would type it.
    pub typed: String,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn new<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let arguments = arguments.into_iter().map(|word| word.as_ref().to_string()).collect();
        Self { arguments, environment: BTreeMap::new(), home: tempfile::tempdir().unwrap() }
    }

    /// A run that finds no engine.
    pub fn without_engine<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::new(arguments).env("DOCKER_HOST", NO_ENGINE)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// The command, ready to be started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(program());
        let home = self.environment.get("HOME").map_or_else(|| self.home.path().as_os_str(), OsStr::new);
        // Without the second variable, its lock would outlive the test.
        command.env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", home);
        command.args(&self.arguments).envs(&self.environment).stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let (Some(host), false) = (inherited_host(), self.environment.contains_key("DOCKER_HOST")) {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// The command as a user would type it, with the settings in its environment.
    pub fn typed(&self) -> String {
        let is_setting = |name: &str| name.starts_with("CLIPPER_METRICS_");
        let settings = self.environment.iter().filter(|(name, _)| is_setting(name));
        let settings: String = settings.map(|(name, value)| format!("{name}={} ", shell_word(value))).collect();
        let words: Vec<String> = self.arguments.iter().map(|word| shell_word(word)).collect();
        format!("{settings}clipper-metrics {}", words.join(" "))
    }

    pub fn run(self) -> Ran {
        let mut ran = Ran { typed: self.typed(), ..ran(&self.command().output().unwrap()) };
        if !self.environment.contains_key("DOCKER_HOST") {
            (ran.out, ran.err) = (without_inherited_host(&ran.out), without_inherited_host(&ran.err));
        }
        let words = std::iter::once("clipper-metrics").chain(self.arguments.iter().map(String::as_str));
        if let Ok(cli) = clipper_metrics::cli::Cli::try_parse_from(words) {
            ran.expect_complete_commands(&cli.options);
        }
        ran
    }
}

/// The engine that the tests use, unless it is at the default address.
fn inherited_host() -> Option<String> {
    std::env::var("DOCKER_HOST").ok()
}

/// Texts that are the same on a machine with an engine at the default address: their commands inherit it, too.
pub fn without_inherited_host(text: &str) -> String {
    inherited_host().map_or_else(|| text.into(), |host| text.replace(&format!(" -H {host}"), ""))
}

/// The result of a finished process.
pub fn ran(output: &Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        typed: String::new(),
        out: String::from_utf8_lossy(&output.stdout).to_string(),
        err: String::from_utf8_lossy(&output.stderr).to_string(),
    }
}

/// The program under test.
pub fn program() -> &'static str {
    option_env!("CARGO_BIN_EXE_clipper-metrics").unwrap_or("clipper-metrics")
}

impl Ran {
    /// # Panics
    /// If the exit code differs.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// The first line of the output.
    pub fn headline(&self) -> &str {
        self.out.lines().next().unwrap_or_default()
    }

    /// The printed document, which matches the schema.
    pub fn json(&self) -> Value {
        let json = serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}:\n{}\n{}", self.out, self.err));
        if let Err(why) = SCHEMA.validate(&json) {
            panic!("{why} at {}:\n{}", why.instance_path(), self.out);
        }
        assert!(self.out.trim_start_matches(['{', '\n', ' ']).starts_with("\"schema\""), "schema first:\n{}", self.out);
        json
    }

    /// Checks that every suggested command is valid and, as typed, reaches the same instance, file
    /// and engine.
    fn expect_complete_commands(&self, given: &clipper_metrics::commands::options::Options) {
        use clipper_metrics::settings::keys::Setting;
        let text = format!("{}\n{}", self.out, self.err);
        let commands: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
        let name = given.settings.0.get(&Setting::Name);
        // Hints printed before an instance is known contain a command alone.
        let of_instance = |command: &&&str| name.is_some() && command.starts_with("clipper-metrics ");
        for command in commands.iter().filter(of_instance) {
            let parsed = parsed_command(command).options;
            for setting in [Setting::Name, Setting::Config] {
                let [typed, given] = [&parsed, given].map(|options| options.settings.0.get(&setting));
                let is_copy =
                    command.contains(" restore ") && typed.cloned() == given.map(|name| format!("{name:.38}-2"));
                assert!(typed == given || is_copy, "`{command}` reaches another instance or file");
            }
            if given.host.is_some() || given.context.is_some() {
                assert_eq!((&parsed.host, &parsed.context), (&given.host, &given.context), "`{command}`");
            }
        }
        let engine = given.host.as_ref().map(|host| format!("-H {host}"));
        let engine = engine.or_else(|| given.context.as_ref().map(|name| format!("--context {name}")));
        let asks_engine = |command: &&&str| {
            let is_local =
                ["docker login", "docker context", "docker save"].iter().any(|verb| command.starts_with(verb));
            command.starts_with("docker ") && !is_local
        };
        for (command, engine) in commands.iter().filter(asks_engine).zip(engine.iter().cycle()) {
            assert!(command.starts_with(&format!("docker {engine} ")), "`{command}` reaches another engine");
        }
    }
}

/// Parses a suggested command as the program would after pasting it into a shell.
///
/// # Panics
/// If it is not a valid command.
pub fn parsed_command(command: &str) -> clipper_metrics::cli::Cli {
    let parsed = clipper_metrics::cli::Cli::try_parse_from(shell_words(command));
    parsed.unwrap_or_else(|why| panic!("`{command}` is suggested, but {why}"))
}

/// A word of a command in quotes, if a shell needs them.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Splits a command into words as a shell does.
pub fn shell_words(command: &str) -> Vec<String> {
    let output = Command::new("bash").args(["-c", &format!("printf '%s\\0' {command}")]).output().unwrap();
    assert!(output.status.success(), "`{command}` is not a valid command: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split_terminator('\0').map(String::from).collect()
}

/// The schema in the repository, with unknown fields forbidden.
static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let mut schema: Value = serde_json::from_str(clipper_metrics::output::JSON_SCHEMA).unwrap();
    for definition in schema["$defs"].as_object_mut().unwrap().values_mut() {
        definition["additionalProperties"] = Value::Bool(false);
    }
    jsonschema::validator_for(&schema).unwrap()
});

/// Sends one HTTP request, with credentials in the address if needed; `None` if no server answers.
pub fn http(method: &str, url: &str, body: Option<&str>) -> Option<(u16, String)> {
    http_with(method, url, body, &[])
}

/// Sends one HTTP request with headers.
pub fn http_with(method: &str, url: &str, body: Option<&str>, headers: &[(&str, &str)]) -> Option<(u16, String)> {
    clipper_metrics::http::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(std::time::Duration::from_secs(10))
            .build()
            .unwrap();
        let mut request = client.request(method.parse().unwrap(), url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            if body.starts_with(['{', '[']) {
                request = request.header("content-type", "application/json");
            }
            request = request.body(body.to_string());
        }
        let response = request.send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.unwrap_or_default()))
    })
}

/// The `Authorization` header for a user and password.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// The socket of the engine that the tests use.
pub fn engine_socket() -> String {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    host.strip_prefix("unix://").expect("the tests speak to a local engine").to_string()
}

/// Sends one POST to the engine itself; returns whether it succeeded.
pub fn engine_post(path: &str, body: &Value) -> bool {
    let socket = engine_socket();
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    answer.starts_with("HTTP/1.0 20") || answer.starts_with("HTTP/1.1 20")
}
