//! An engine for one test, which the test may kill, in its own network, so that it does not disturb
//! the engine of the other tests.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::image;
use crate::support::run::{Ran, program, ran};

/// Stops when dropped.
pub struct OwnEngine {
    folder: tempfile::TempDir,
    /// Keeps the network's namespace while the engine is dead.
    holder: Child,
    registry: Child,
    engine: Option<Child>,
    /// Whether it creates the rules that forward to containers, as by default.
    makes_rules: bool,
}

/// The registry's port in that network, which no other process uses.
const REGISTRY: u16 = 5000;

impl OwnEngine {
    pub fn start() -> Self {
        Self::start_with(None, false)
    }

    /// Starts it with the engine's default firewall rules, in its own network.
    pub fn start_with_rules() -> Self {
        Self::start_with(None, true)
    }

    /// Starts it with a disk of this many mebibytes.
    pub fn start_on_a_small_disk(mebibytes: u32) -> Self {
        Self::start_with(Some(mebibytes), false)
    }

    /// # Panics
    /// If this is not root on Linux, or dockerd or ip is not installed.
    fn start_with(disk: Option<u32>, makes_rules: bool) -> Self {
        // Each process prints a line once it is in its namespace: until then, questions about the
        // process are answered for the network in which it was started.
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo the network is up && exec sleep 3600"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test starts an engine of its own: it needs Linux, and unshare, ip and dockerd");
        until_it_says(&mut holder, "the network is up");
        let folder = tempfile::Builder::new().prefix("clipper-metrics-engine").tempdir_in("/var/tmp").unwrap();
        let mut program = image::double_program();
        program.set_file_name("test-registry");
        let registry = inside(holder.id(), &program.to_string_lossy())
            .arg(REGISTRY.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        if let Some(mebibytes) = disk {
            let data = folder.path().join("data");
            std::fs::create_dir(&data).unwrap();
            let size = format!("size={mebibytes}m");
            let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&data).status();
            assert!(mount.is_ok_and(|status| status.success()), "only root can mount a small disk");
        }
        // From here on, dropping this value stops everything.
        let mut it = Self { folder, holder, registry, engine: None, makes_rules };
        // The last line that is read of its output.
        until_it_says(&mut it.registry, "in another terminal");
        it.revive();
        it
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of its socket.
    pub fn socket(&self) -> String {
        self.path("docker.sock").display().to_string()
    }

    fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// Starts the engine, also repeatedly.
    pub fn revive(&mut self) {
        let log = std::fs::File::create(self.path("log")).unwrap();
        let mut command = inside(self.holder.id(), "dockerd");
        command.args(["--host", &self.host(), &format!("--iptables={}", self.makes_rules)]);
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(self.path(name));
        }
        self.engine = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while self.docker(&["version"]).code != 0 {
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(std::time::Instant::now() < deadline, "the engine does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the engine, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.kill();
            let _ = engine.wait();
        }
        // Ends its remaining processes as a service manager does, because orphans would hold the ports.
        let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let own = network(&self.holder.id().to_string());
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let process = entry.file_name().to_string_lossy().to_string();
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if name.trim() == "docker-proxy" && network(&process) == own {
                let _ = Command::new("kill").args(["-KILL", &process]).status();
            }
        }
        // Its helper dies with it. If it is not reaped, the next engine would wait for it.
        let _ = std::fs::remove_file(self.path("exec/containerd/containerd.pid"));
    }

    pub fn docker(&self, words: &[&str]) -> Ran {
        ran(&inside(self.holder.id(), "docker").arg("--host").arg(self.host()).args(words).output().unwrap())
    }

    /// The engine's containers and the listening processes, for messages of failed tests.
    pub fn state(&self) -> String {
        let listening = inside(self.holder.id(), "ss").args(["-ltnp"]).output().map(|output| output.stdout);
        format!("{}\n{}", self.docker(&["ps", "--all"]).out, String::from_utf8_lossy(&listening.unwrap_or_default()))
    }

    /// Starts a process in the engine's network.
    pub fn network(&self) -> u32 {
        self.holder.id()
    }

    /// A command in the engine's network.
    pub fn inside(&self, program: &str) -> Command {
        inside(self.holder.id(), program)
    }

    /// Another host on the network of the engine's host.
    pub fn neighbour(&self) -> Neighbour {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo the network is up && exec sleep 3600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        until_it_says(&mut holder, "the network is up");
        let it = Neighbour(holder);
        let peer = it.0.id().to_string();
        let here = ["link add outside type veth peer name inside netns PEER", "address add 192.0.2.1/24 dev outside"];
        for words in here.into_iter().chain(["link set outside up"]) {
            let words = words.replace("PEER", &peer);
            assert!(self.inside("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
        }
        for words in ["address add 192.0.2.2/24 dev inside", "link set inside up"] {
            assert!(it.inside("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
        }
        it
    }

    /// The program, run in the engine's network.
    pub fn program(&self, words: &[&str]) -> Command {
        let mut command = inside(self.holder.id(), program());
        command.args(words).arg("--host").arg(self.host()).env("HOME", self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Commands of a shell in the engine's network, as a user pastes them, for this engine.
    pub fn shell(&self, directory: &std::path::Path, commands: &str) -> Ran {
        // The program's name at the beginning of a line; elsewhere it is the name of an instance.
        let commands = format!("\n{commands}").replace("\nclipper-metrics ", &format!("\n{} ", program()));
        let mut shell = inside(self.holder.id(), "sh");
        shell.args(["-c", &commands]).current_dir(directory).env("HOME", self.folder.path());
        ran(&shell.env("DOCKER_HOST", self.host()).stdin(Stdio::null()).output().unwrap())
    }

    pub fn registry() -> String {
        format!("127.0.0.1:{REGISTRY}")
    }
}

/// A host on the network of the engine's host; its network is removed when dropped.
pub struct Neighbour(Child);

impl Neighbour {
    /// A command on that host.
    fn inside(&self, program: &str) -> Command {
        inside(self.0.id(), program)
    }

    /// The answer of a server that is reached through the engine's host.
    pub fn reaches(&self, address: &str, path: &str) -> Option<String> {
        let (ip, _) = address.split_once(':').unwrap();
        self.inside("ip").args(["route", "replace", ip, "via", "192.0.2.1"]).status().unwrap();
        let url = format!("http://{address}{path}");
        let answer = self.inside("curl").args(["--silent", "--max-time", "3", &url]).output().unwrap();
        answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).to_string())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command in the network of another process.
fn inside(process: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &process.to_string(), program]);
    command
}

/// Returns once a process has printed a line with these words.
///
/// # Panics
/// If it does not, after ending the process.
fn until_it_says(process: &mut Child, words: &'static str) {
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(lines.any(|line| line.contains(words))));
    if receiver.recv_timeout(Duration::from_secs(60)) != Ok(true) {
        let _ = process.kill();
        panic!(
            "an engine of the test's own needs a process that says {words:?}, and it did not; only root can start one"
        );
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        // Its containers first: an engine that stops leaves none behind.
        let ids = self.docker(&["ps", "--all", "--quiet"]).out;
        for id in ids.lines() {
            self.docker(&["rm", "--force", "--volumes", id]);
        }
        if let Some(mut engine) = self.engine.take() {
            let _ = Command::new("kill").arg(engine.id().to_string()).status();
            let _ = engine.wait();
        }
        for process in [&mut self.registry, &mut self.holder] {
            let _ = process.kill();
            let _ = process.wait();
        }
        // A killed engine leaves its mounts.
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let ours = self.folder.path().to_string_lossy().to_string();
        for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&ours)) {
            let _ = Command::new("umount").args(["--lazy", mount]).status();
        }
    }
}
