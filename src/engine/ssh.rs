//! An engine behind ssh: one connection per run carries its API and forwards ports to its loopback.
//!
//! It uses the machine's own `ssh` with its configuration, keys, agent and known hosts. It listens
//! on no network: only on a socket in a private folder and on loopback ports.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::model::address::bracketed;
use crate::model::invocation::shell_word;
use crate::model::text::excerpt;

/// The time limit for connecting, in seconds.
const CONNECT_SECONDS: u64 = 30;
/// The maximum number of concurrent sessions, besides the one that keeps the connection open; sshd
/// allows ten by default.
const SESSIONS: usize = 8;
/// The time limit for reading ssh's configuration.
const CONFIGURATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Options for every ssh: settings for interactive sessions are disabled, and errors are printed.
const NO_SESSION: [&str; 5] =
    ["BatchMode=yes", "ClearAllForwardings=yes", "PermitLocalCommand=no", "RemoteCommand=none", "LogLevel=INFO"];
/// More such options, which OpenSSH supports since 8.7; older versions would reject them.
const NO_SESSION_SINCE_8_7: [(&str, &str); 3] =
    [("sessiontype", "default"), ("stdinnull", "no"), ("forkafterauthentication", "no")];
/// The maximum number of characters kept of ssh's messages.
const LIMIT: usize = 4096;

/// The destination of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    /// User and host, or an alias from ssh's configuration.
    host: String,
    port: Option<u16>,
    /// The engine's socket on that host, if it is not the default one.
    socket: Option<String>,
}

impl Destination {
    /// Parses `ssh://user@host:port/path`; `None` for other addresses.
    pub(super) fn parse(address: &str) -> Option<Self> {
        let rest = address.strip_prefix("ssh://")?;
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((v6, port)) => (v6, port.strip_prefix(':')),
            None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            Some(port) => Some(port.parse().ok()?),
            None => None,
        };
        // A word that begins with a dash would be an option of ssh.
        let is_fine = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_whitespace);
        let host = match user {
            Some(user) if is_fine(user) && is_fine(host) => format!("{user}@{host}"),
            None if is_fine(host) => host.to_string(),
            _ => return None,
        };
        Some(Self { host, port, socket: (!path.is_empty()).then(|| format!("/{path}")) })
    }

    /// The destination as arguments of `ssh`.
    pub(super) fn typed(&self) -> String {
        let port = self.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        format!("{port}{}", shell_word(&self.host))
    }

    fn arguments(&self) -> Vec<String> {
        let port = self.port.map(|port| ["-p".to_string(), port.to_string()]);
        port.into_iter().flatten().chain([self.host.clone()]).collect()
    }

    /// The command on that host that connects to the engine.
    fn engine_command(&self) -> String {
        let socket = self.socket.as_ref().map(|path| format!(" --host {}", shell_word(&format!("unix://{path}"))));
        format!("docker{} system dial-stdio", socket.unwrap_or_default())
    }
}

/// One connection, closed when dropped.
pub(super) struct Ssh {
    destination: Destination,
    configuration: Configuration,
    folder: SocketFolder,
    master: RefCell<Child>,
    said: Arc<Mutex<String>>,
    ports: RefCell<HashMap<(String, u16), u16>>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

impl Ssh {
    /// Connects and signs in without any prompt: passphrases belong in ssh's agent, and hosts in
    /// the known hosts.
    ///
    /// # Errors
    /// With ssh's message.
    pub(super) async fn connect(destination: Destination) -> Result<Self, String> {
        let folder = private_folder().map_err(|why| format!("cannot create a folder for its sockets: {why}"))?;
        let said = Arc::new(Mutex::new(String::new()));
        let control = folder.join("ssh");
        let mut command = Command::new("ssh");
        command.args(["-M", "-T", "-S"]).arg(&control);
        let timeout = format!("ConnectTimeout={CONNECT_SECONDS}");
        let configuration = Configuration::read(&destination).await;
        for option in configuration.options().chain(["ControlPersist=no", &timeout, "ServerAliveInterval=15"]) {
            command.args(["-o", option]);
        }
        // `cat` ends together with its standard input, and therefore with this process, however that ends.
        command.args(destination.arguments()).arg("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        // A separate process group, because Ctrl-C is meant for this process, which may have to
        // finish something first.
        command.process_group(0);
        let mut master = command.spawn().map_err(|why| format!("cannot start ssh: {why}"))?;
        if let Some(errors) = master.stderr.take() {
            tokio::spawn(listen(errors, Arc::clone(&said)));
        }
        let it = Self {
            destination,
            configuration,
            folder,
            master: RefCell::new(master),
            said,
            ports: RefCell::default(),
            tasks: RefCell::default(),
        };
        it.await_control(&control).await?;
        // A banner does not explain later errors.
        it.said.lock().unwrap_or_else(PoisonError::into_inner).clear();
        it.serve_engine().map_err(|why| format!("cannot listen on a socket: {why}"))?;
        Ok(it)
    }

    /// Waits until the connection is established.
    async fn await_control(&self, control: &std::path::Path) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(CONNECT_SECONDS + 5);
        let mut backoff = Duration::from_millis(5);
        while !control.exists() {
            if self.has_ended() {
                // Its message may arrive after it exits.
                crate::backoff::pause(&mut Duration::from_millis(50)).await;
                return Err(self.failure().unwrap_or_else(|| "ssh exited without a message".into()));
            }
            if Instant::now() >= deadline {
                return Err(format!("no connection within {CONNECT_SECONDS} s"));
            }
            crate::backoff::pause(&mut backoff).await;
        }
        Ok(())
    }

    /// The socket that leads to the engine.
    fn socket(&self) -> PathBuf {
        self.folder.join("engine")
    }

    /// The engine's client. Each of its connections is an ssh session, which takes longer to open
    /// than most answers take, so connections are reused; bollard's own connections serve one
    /// request each.
    pub(super) fn client(&self) -> Result<bollard::Docker, bollard::errors::Error> {
        // Idle connections occupy sessions that busy ones need, so only half of the sessions may be idle.
        super::transport::over_socket(&self.socket(), SESSIONS / 2)
    }

    /// The name of the engine's host.
    pub(super) fn host_name(&self) -> &str {
        &self.configuration.host_name
    }

    pub(super) const fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Whether the connection has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.master.borrow_mut().try_wait().is_ok_and(|ended| ended.is_some())
    }

    /// The last message of ssh or of a command on that host.
    pub(super) fn failure(&self) -> Option<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let last = said.lines().rev().find(|line| !line.trim().is_empty() && !line.contains("mux_client"))?;
        Some(excerpt(last, 300))
    }

    /// A port on loopback here that leads to a host and port as seen from that host.
    ///
    /// # Errors
    /// If no port is available.
    pub(super) fn local_port(&self, host: &str, port: u16) -> std::io::Result<u16> {
        let target = (host.to_string(), port);
        if let Some(port) = self.ports.borrow().get(&target) {
            return Ok(*port);
        }
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?.port();
        let listener = TcpListener::from_std(listener)?;
        let address = format!("{}:{port}", bracketed(host));
        let (arguments, said) = (self.client_arguments(&["-W", &address]), Arc::clone(&self.said));
        self.tasks.borrow_mut().push(tokio::spawn(async move {
            loop {
                let (stream, _) = crate::backoff::accepted(|| listener.accept()).await;
                let (from, to) = stream.into_split();
                tokio::spawn(join(from, to, arguments.clone(), Arc::clone(&said)));
            }
        }));
        self.ports.borrow_mut().insert(target, local);
        Ok(local)
    }

    fn serve_engine(&self) -> std::io::Result<()> {
        let listener = UnixListener::bind(self.socket())?;
        let mut arguments = self.client_arguments(&["-T"]);
        arguments.push(self.destination.engine_command());
        let said = Arc::clone(&self.said);
        // Each connection is a session, and ssh servers limit their number.
        let sessions = Arc::new(Semaphore::new(SESSIONS));
        self.tasks.borrow_mut().push(tokio::spawn(async move {
            loop {
                let (stream, _) = crate::backoff::accepted(|| listener.accept()).await;
                let (from, to) = stream.into_split();
                let joined = join(from, to, arguments.clone(), Arc::clone(&said));
                let sessions = Arc::clone(&sessions);
                tokio::spawn(async move {
                    let _session = sessions.acquire().await;
                    joined.await;
                });
            }
        }));
        Ok(())
    }

    /// Arguments for another `ssh` that uses this connection and never opens its own.
    fn client_arguments(&self, more: &[&str]) -> Vec<String> {
        let control = self.folder.join("ssh").display().to_string();
        let options = self.configuration.options().chain(["ControlMaster=no", "ProxyCommand=false"]);
        let options = options.flat_map(|option| ["-o", option]);
        let words = ["-S", &control].into_iter().chain(options).chain(more.iter().copied());
        words.map(String::from).chain(self.destination.arguments()).collect()
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        for task in self.tasks.borrow().iter() {
            task.abort();
        }
        // Closing standard input ends the command on that host, and ssh with it; the exit is not awaited.
        let mut master = self.master.borrow_mut();
        drop(master.stdin.take());
        let _ = master.start_kill();
    }
}

/// Connects a stream to a process's standard streams.
async fn join<R, W>(mut from: R, mut to: W, arguments: Vec<String>, said: Arc<Mutex<String>>)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut command = Command::new("ssh");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).process_group(0);
    let Ok(mut process) = command.spawn() else { return };
    let (Some(mut input), Some(mut output), Some(errors)) =
        (process.stdin.take(), process.stdout.take(), process.stderr.take())
    else {
        return;
    };
    let inwards = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from, &mut input).await;
        let _ = input.shutdown().await;
    });
    let hearing = tokio::spawn(listen(errors, said));
    let _ = tokio::io::copy(&mut output, &mut to).await;
    // If the other side has closed first, no data is read any more.
    drop(output);
    // The error message is complete before the other side sees the end.
    let _ = hearing.await;
    let _ = to.shutdown().await;
    inwards.abort();
    let _ = process.wait().await;
}

/// Collects the messages of a process.
async fn listen(mut errors: impl AsyncRead + Unpin, said: Arc<Mutex<String>>) {
    let mut bytes = [0; 1024];
    while let Ok(length @ 1..) = errors.read(&mut bytes).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() > LIMIT {
            said.clear();
        }
        said.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
}

/// The prefix of folder names.
const FOLDER: &str = "clipper-metrics-ssh-";
/// A file that is locked while its folder is in use.
const LOCK: &str = "lock";

/// The limit for the path of its parent. A socket's path has at most 103 bytes on macOS and BSD; ssh appends 17 bytes
/// while it creates its own, and the folder's name and the socket's name need 31.
const PARENT_LIMIT: usize = 56;

/// A new folder that only this user can enter, removed when dropped. Folders of killed processes
/// are removed first: their locks are free.
fn private_folder() -> std::io::Result<SocketFolder> {
    let parent = Some(std::env::temp_dir()).filter(|parent| parent.as_os_str().len() < PARENT_LIMIT);
    let parent = parent.unwrap_or_else(|| PathBuf::from("/tmp"));
    let directory =
        tempfile::Builder::new().prefix(FOLDER).permissions(Permissions::from_mode(0o700)).tempdir_in(&parent)?;
    let owner = directory.path().metadata()?.uid();
    for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
        let is_one = entry.file_name().to_str().is_some_and(|name| name.starts_with(FOLDER))
            && entry.metadata().is_ok_and(|entry| entry.is_dir() && entry.uid() == owner);
        // This run's own folder has no lock yet.
        if is_one && File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    // The folder gets its final name once it is locked, so that no other run removes it in between.
    let new = directory.path().join("new");
    let lock = File::create(&new)?;
    // If files cannot be locked, no folder is removed either.
    let _ = lock.try_lock();
    std::fs::rename(new, directory.path().join(LOCK))?;
    Ok(SocketFolder { directory, _lock: lock })
}

struct SocketFolder {
    directory: TempDir,
    _lock: File,
}

impl SocketFolder {
    fn join(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// The configuration of ssh for a destination.
struct Configuration {
    /// The actual host name behind an alias.
    host_name: String,
    /// Options that this ssh supports and older ones do not.
    newer: Vec<String>,
}

impl Configuration {
    async fn read(destination: &Destination) -> Self {
        let mut command = Command::new("ssh");
        command.arg("-G").args(destination.arguments()).stdin(Stdio::null()).kill_on_drop(true);
        let asked = tokio::time::timeout(CONFIGURATION_TIMEOUT, command.output()).await;
        let text = asked.ok().and_then(std::result::Result::ok).map(|output| output.stdout).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&text), destination)
    }

    fn parse(text: &str, destination: &Destination) -> Self {
        let value = |key: &str| text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key);
        let found = value("hostname").map(|(_, name)| name.trim().to_string());
        let written = || destination.host.rsplit('@').next().unwrap_or_default().to_string();
        let newer = NO_SESSION_SINCE_8_7.iter().filter(|(key, _)| value(key).is_some());
        Self {
            host_name: found.filter(|name| !name.is_empty()).unwrap_or_else(written),
            newer: newer.map(|(key, value)| format!("{key}={value}")).collect(),
        }
    }

    /// Options for every ssh to this destination.
    fn options(&self) -> impl Iterator<Item = &str> {
        NO_SESSION.into_iter().chain(self.newer.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_form_is_parsed() {
        let read = |text: &str| Destination::parse(text).map(|it| (it.host.clone(), it.port, it.engine_command()));
        let plain = "docker system dial-stdio".to_string();
        assert_eq!(read("ssh://box"), Some(("box".into(), None, plain.clone())));
        assert_eq!(read("ssh://me@box:2222"), Some(("me@box".into(), Some(2222), plain.clone())));
        assert_eq!(read("ssh://me@[fd00::1]:22/"), Some(("me@fd00::1".into(), Some(22), plain)));
        let other = read("ssh://box/run/user/1000/docker.sock").unwrap().2;
        assert_eq!(other, "docker --host unix:///run/user/1000/docker.sock system dial-stdio");
        for bad in ["ssh://", "ssh://-oProxyCommand=x", "ssh://-x@box", "ssh://box:port", "ssh://a b", "tcp://box"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let it = Destination::parse("ssh://me@box:2222").unwrap();
        assert_eq!(it.typed(), "-p 2222 me@box");
        // Only options that this ssh supports are set, because it would reject others.
        let old = Configuration::parse("user me\nhostname box.example\n", &it);
        assert_eq!((old.host_name.as_str(), old.newer.len()), ("box.example", 0));
        let new = Configuration::parse("hostname box\nstdinnull yes\n", &it);
        assert_eq!(new.newer, ["stdinnull=no"]);
        assert_eq!(Configuration::parse("", &it).host_name, "box");
    }
}
