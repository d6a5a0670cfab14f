//! An engine behind a real sshd, in its own network, so that its loopback is not this machine's.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::engine::OwnEngine;
use super::lifecycle::interrupt;
use super::remote::trap;
use crate::support::run::{Ran, Run, ran};
use crate::support::{eventually, free_port};

/// A host with an engine, which can be reached only through ssh.
struct Host {
    engine: OwnEngine,
    folder: tempfile::TempDir,
    /// The address of its sshd over TCP.
    port: u16,
}

impl Host {
    fn start() -> Self {
        let engine = OwnEngine::start();
        let folder = tempfile::tempdir().unwrap();
        // sshd needs a directory for privilege separation, which Debian's service creates at its start.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let mut it = Self { engine, folder, port: 0 };
        for name in ["host_key", "key", "other_key"] {
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(it.path(name)).status();
            assert!(made.is_ok_and(|status| status.success()), "this test needs OpenSSH; tests/run installs it");
        }
        std::fs::copy(it.path("key.pub"), it.path("authorized")).unwrap();
        let bare = it.path("bare");
        std::fs::create_dir(&bare).unwrap();
        for name in ["cat", "sh"] {
            std::os::unix::fs::symlink(format!("/usr/bin/{name}"), bare.join(name)).unwrap();
        }
        it.write_sshd("sshd", "");
        let forced = format!("ForceCommand env PATH={} sh -c \"$SSH_ORIGINAL_COMMAND\"\n", bare.display());
        it.write_sshd("sshd_bare", &forced);
        it.port = it.listen();
        let key = std::fs::read_to_string(it.path("host_key.pub")).unwrap();
        let known = format!("engine-host {key}[127.0.0.1]:{} {key}", it.port);
        std::fs::write(it.path("known"), known).unwrap();
        std::fs::write(it.path("nobody"), "").unwrap();
        it.write_client();
        it
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_sshd(&self, name: &str, more: &str) {
        let text = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication \
             no\nKbdInteractiveAuthentication no\nPidFile none\nSetEnv DOCKER_HOST=unix://{}\n{more}",
            self.path("host_key").display(),
            self.path("authorized").display(),
            self.engine.socket()
        );
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A command that runs sshd in the engine's network on standard streams.
    fn sshd(&self, config: &str) -> String {
        let config = self.path(config).display().to_string();
        format!("nsenter --net --target {} /usr/sbin/sshd -i -f {config}", self.engine.network())
    }

    /// A port of this machine that leads to the host's sshd.
    fn listen(&self) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let command = self.sshd("sshd");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (input, output) = (OwnedFd::from(stream.try_clone().unwrap()), OwnedFd::from(stream));
                let sshd =
                    Command::new("sh").args(["-c", &format!("exec {command}")]).stdin(input).stdout(output).spawn();
                std::thread::spawn(move || sshd.map(|mut sshd| sshd.wait()));
            }
        });
        port
    }

    /// Writes a configuration for `ssh` and a program of that name that uses it: OpenSSH takes the
    /// home directory from the user database instead of HOME.
    fn write_client(&self) {
        let show = |name: &str| self.path(name).display().to_string();
        let host = |alias: &str, key: &str, known: &str, sshd: &str| {
            format!(
                "Host {alias}\n  HostName engine-host\n  User root\n  IdentityFile {}\n  UserKnownHostsFile {}\n  \
                 ProxyCommand {}\n",
                show(key),
                show(known),
                self.sshd(sshd)
            )
        };
        // Options for a user's own sessions: a command, a terminal, a forwarded port, a persistent
        // connection.
        let habits = format!(
            "  RemoteCommand exit 7\n  RequestTTY force\n  LocalForward 127.0.0.1:{} 127.0.0.1:1\n  \
             ExitOnForwardFailure yes\n  SessionType none\n  StdinNull yes\n  ForkAfterAuthentication yes\n  \
             ControlMaster auto\n  ControlPath {}\n  ControlPersist 10m\n  LogLevel QUIET\n",
            self.port,
            show("control")
        );
        let text = format!(
            "IgnoreUnknown OfAnotherSystem\nOfAnotherSystem yes\n{}{}{habits}{}{}{}Host 127.0.0.1\n  IdentityFile \
             {}\n  UserKnownHostsFile {}\nHost *\n  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n  \
             GlobalKnownHostsFile /dev/null\n",
            host("box", "key", "known", "sshd"),
            host("habits", "key", "known", "sshd"),
            host("stranger", "key", "nobody", "sshd"),
            host("refused", "other_key", "known", "sshd"),
            host("bare", "key", "known", "sshd_bare"),
            show("key"),
            show("known")
        );
        std::fs::write(self.path("config"), text).unwrap();
        let bin = self.path("bin");
        std::fs::create_dir(&bin).unwrap();
        let script =
            format!("#!/bin/sh\necho \"$@\" >>{}\nexec /usr/bin/ssh -F {} \"$@\"\n", show("calls"), show("config"));
        std::fs::write(bin.join("ssh"), script).unwrap();
        std::fs::set_permissions(bin.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, address: &str, words: &[&str]) -> Command {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let run = Run::new(words.iter().copied().chain(["-H", address]));
        let mut command = run.command();
        // Leftovers of a run would be here.
        command.env("PATH", path).env("TMPDIR", self.folder.path()).env("HOME", self.folder.path());
        command
    }

    fn run(&self, address: &str, words: &[&str]) -> Ran {
        ran(&self.command(address, words).output().unwrap())
    }

    /// Folders and processes that runs have left.
    fn left(&self) -> String {
        let folders: Vec<_> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().to_string())
            .filter(|name| name.starts_with("clipper-metrics-ssh-"))
            .collect();
        let all = Command::new("ps").args(["-eo", "args"]).output().unwrap();
        let config = self.path("config").display().to_string();
        let all = String::from_utf8_lossy(&all.stdout).to_string();
        let processes: Vec<&str> = all.lines().filter(|line| line.contains(&config)).collect();
        format!("{}{}", folders.join("\n"), processes.join("\n"))
    }

    fn assert_nothing_left(&self) {
        eventually("nothing is left of a run", Duration::from_secs(10), || self.left().is_empty());
    }

    /// Breaks every connection, as a network failure would.
    fn cut(&self) {
        let config = self.path("config").display().to_string();
        let found = |words: &[&str]| {
            let output = Command::new("pgrep").args(words).output().unwrap();
            String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect::<Vec<_>>()
        };
        let masters = found(&["-f", &format!("ssh -F {config} -M")]);
        assert!(!masters.is_empty(), "there is a connection");
        // Every connection has a process, its ProxyCommand.
        for process in masters.iter().flat_map(|master| found(&["-P", master])) {
            assert!(Command::new("kill").args(["-9", &process]).status().unwrap().success());
        }
    }
}

#[test]
fn an_engine_behind_ssh_keeps_everything_on_its_loopback() {
    let host = Host::start();
    let (influxdb, grafana) = (free_port(), free_port());
    // Other servers have the same ports here.
    let traps = [trap(influxdb), trap(grafana)];
    let (influxdb, grafana) = (influxdb.to_string(), grafana.to_string());
    let registry = OwnEngine::registry();
    let first = ["up", "--registry", &registry, "--influxdb-port", &influxdb, "--grafana-port", &grafana];
    let up = host.run("ssh://box", &first).expect(0);
    assert!(up.out.contains("up and verified"), "{}", up.out);
    assert!(up.out.contains(&format!("http://127.0.0.1:{grafana}/d/")), "the address there: {}", up.out);
    let line = format!("ssh -N -L {grafana}:127.0.0.1:{grafana} box");
    assert!(up.out.trim_end().ends_with(&line), "{}", up.out);
    assert!(!up.err.contains("listens on"), "nothing is open: {}", up.err);
    let status = host.run("ssh://box", &["status"]).expect(0);
    assert!(status.out.lines().any(|printed| printed.trim() == line), "{}", status.out);
    // With user and port as well, nothing differs, and everything is reached.
    let by_port = format!("ssh://root@127.0.0.1:{}", host.port);
    let status = host.run(&by_port, &["status", "--output", "json"]).expect(0).json();
    assert_eq!(status["engine"]["endpoint"], by_port.as_str());
    let line = status["dashboard"]["forward_command"].as_str().unwrap();
    assert!(line.ends_with(&format!("-p {} root@127.0.0.1", host.port)), "an ssh engine is never here: {line}");
    // A connection to the engine is an ssh session, and serves more than one request.
    std::fs::remove_file(host.path("calls")).unwrap();
    let asked = host.run("ssh://box", &["status", "--show-secrets", "-v"]).expect(0).err.matches("docker: ").count();
    let sessions = std::fs::read_to_string(host.path("calls")).unwrap().matches("dial-stdio").count();
    assert!((1..asked).contains(&sessions), "{sessions} sessions for {asked} requests");
    host.run("ssh://box", &["demo", "--backfill", "5m"]).expect(0);
    let doctor = host.run("ssh://box", &["doctor"]).expect(0);
    assert!(doctor.out.starts_with("no failures: 21 of 21"), "{}", doctor.out);
    // Clipper's file means that host under any name; a container there is reached through ssh as well.
    let file = host.path("test.toml");
    let write = |ip: &str, port: &str| {
        std::fs::write(&file, format!("influx_dbname = \"clipper\"\ninflux_ip = \"{ip}\"\ninflux_port = {port}\n"))
            .unwrap();
    };
    write("localhost", &influxdb);
    let config = file.to_str().unwrap();
    let named = host.run("ssh://box", &["doctor", "-c", config, "--output", "json"]).expect(3).json();
    assert_eq!(named["culprit"]["check"], "reports", "demo data does not count as reports: {named}");
    host.engine.docker(&[
        "run",
        "--detach",
        "--name",
        "clipper",
        "--network",
        "clipper-metrics",
        "--entrypoint",
        "sleep",
        &format!("{registry}/influxdb:1.12.4"),
        "600",
    ]);
    let inside = host.run("ssh://box", &["doctor", "--from", "clipper"]).expect(0);
    assert!(inside.out.contains("clipper-metrics-influxdb:8086, seen from container clipper"), "{}", inside.out);
    host.engine.docker(&["rm", "--force", "clipper"]);
    // A password is tried and set through ssh as well, and other addresses are on that host.
    let password = host.path("password");
    std::fs::write(&password, "of-the-other-machine").unwrap();
    let given = ["up", "--reset-grafana-password", "--grafana-password-file", password.to_str().unwrap()];
    host.run("ssh://box", &given).expect(0);
    let open = host.run("ssh://box", &["up", "--grafana-ip", "0.0.0.0"]).expect(0);
    assert!(open.out.contains(&format!("http://engine-host:{grafana}/d/")), "{}", open.out);
    assert!(!open.out.contains("ssh -N"), "{}", open.out);
    host.run("ssh://box", &["logs", "influxdb", "--tail", "1"]).expect(0);
    host.run("ssh://box", &["down", "--volumes", "--yes"]).expect(0);
    assert_eq!(traps.map(|caught| caught.load(Ordering::SeqCst)), [0, 0], "no local server was contacted");
    host.assert_nothing_left();
}

#[test]
fn options_for_interactive_sessions_are_ignored() {
    let host = Host::start();
    // The port that it would forward is in use, so forwarding would fail.
    host.run("ssh://habits", &["status"]).expect(3);
    assert!(!host.path("control").exists(), "the person's own connection is another one");
    host.assert_nothing_left();
}

#[test]
fn every_failure_of_ssh_is_one_clear_error() {
    let host = Host::start();
    for (address, words) in [
        ("ssh://stranger", &["Host key verification failed"][..]),
        ("ssh://refused", &["Permission denied (publickey)"]),
        ("ssh://bare", &["docker", "not found"]),
        ("ssh://no-such-host.invalid", &["Could not resolve hostname"]),
    ] {
        let ran = host.run(address, &["status"]).expect(1);
        for word in words {
            assert!(ran.err.contains(word), "{address}: {}", ran.err);
        }
        assert!(ran.err.contains(address) && ran.err.contains("hint: check that `ssh "), "{address}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 2, "{address}: {}", ran.err);
        assert_eq!(
            host.run(address, &["status", "--output", "json"]).expect(1).json()["error"]["kind"],
            "engine_unreachable"
        );
    }
    assert!(host.run("ssh://-oProxyCommand=x", &["status"]).expect(2).err.contains("not an ssh address"));
    host.assert_nothing_left();
}

#[test]
fn a_broken_or_interrupted_connection_does_no_damage() {
    let host = Host::start();
    let (influxdb, grafana) = (free_port().to_string(), free_port().to_string());
    let image = format!("{}/odd:silent", OwnEngine::registry());
    let registry = OwnEngine::registry();
    let first = ["up", "--registry", &registry, "--influxdb-port", &influxdb, "--grafana-port", &grafana];
    // A Grafana that never answers: `up` waits for it when the connection ends.
    let waits: Vec<&str> = first.iter().copied().chain(["--grafana-image", &image, "--timeout", "60s"]).collect();
    let start = || host.command("ssh://box", &waits).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let wait_for_grafana = |process: &mut Child| {
        // Two images are pulled through the connection before that, under any load.
        eventually("Grafana's container runs", Duration::from_secs(180), || {
            if process.try_wait().unwrap().is_some() {
                let mut said = String::new();
                process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("up ended before: {said}");
            }
            host.engine.docker(&["ps", "--format", "{{.Names}}"]).out.contains("-grafana")
        });
    };
    let mut process = start();
    wait_for_grafana(&mut process);
    host.cut();
    let broken = ran(&process.wait_with_output().unwrap()).expect(1);
    assert!(broken.err.contains("the ssh connection was interrupted"), "{}", broken.err);
    assert_eq!(broken.err.matches("error:").count(), 1, "{}", broken.err);
    host.assert_nothing_left();
    host.engine.docker(&["rm", "--force", "clipper-metrics-grafana"]);
    let mut process = start();
    wait_for_grafana(&mut process);
    interrupt(process.id());
    ran(&process.wait_with_output().unwrap()).expect(130);
    host.assert_nothing_left();
    let after: Vec<&str> = first.iter().copied().chain(["--grafana-image", ""]).collect();
    host.run("ssh://box", &after).expect(0);
    host.run("ssh://box", &["down", "--volumes", "--yes"]).expect(0);
    // A killed run leaves no connection either, only a folder, which the next run removes.
    let mut process = start();
    eventually("ssh is connected", Duration::from_secs(60), || host.left().contains("ssh -F"));
    process.kill().unwrap();
    process.wait().unwrap();
    eventually("ssh ends with it", Duration::from_secs(10), || !host.left().contains("ssh -F"));
    assert!(host.left().contains("clipper-metrics-ssh-"));
    host.run("ssh://box", &["status"]).expect(3);
    host.assert_nothing_left();
}
