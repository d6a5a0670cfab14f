//! Everything that can go wrong, in the words of the user: what we were doing to which object, why
//! it failed, and what to type next.
//!
//! Knows sentences. Must not know how to print them, and must never be given a secret.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::address::ServerUrl;
use crate::model::image::ImageRef;
use crate::model::invocation::Invocation;
use crate::model::observed::PortHolder;
use crate::model::plan::{Blocked, Obstacle, Resource};
use crate::model::role::Role;

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line or the environment makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong, with the option's name.
        message: String,
        /// What to type instead.
        hint: String,
    },
    /// A file that the user named cannot be used.
    #[error("{}{}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where there is one.
        line: Option<usize>,
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The engine cannot be reached at all.
    #[error("cannot reach the Docker engine at {endpoint}: {why}")]
    Engine {
        /// How it was to be reached.
        endpoint: String,
        /// The reason.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The engine answered with an error.
    #[error("cannot {doing}: {why}")]
    Docker {
        /// What we were doing, in the imperative.
        doing: String,
        /// The engine's words.
        why: String,
        /// What kind of refusal it was.
        refusal: Refusal,
    },
    /// Somebody else was faster with the same object: what remains to be done must be looked up again.
    #[error("cannot {doing}: {why}")]
    Raced {
        /// What we were doing, in the imperative.
        doing: String,
        /// Who was faster.
        why: String,
    },
    /// An image cannot be pulled.
    #[error("cannot pull {image}: {why}")]
    Pull {
        /// The image.
        image: ImageRef,
        /// The engine's words.
        why: String,
        /// What kind of failure it was.
        failure: PullFailure,
    },
    /// The specified address cannot be published.
    #[error("cannot publish {} at {address}: {}", role.title(), holder_text(holder, *role, answers.as_ref()))]
    Publish {
        /// Whose port.
        role: Role,
        /// Where.
        address: SocketAddr,
        /// Who has it.
        holder: PortHolder,
        /// The server of that role which answers there, in a process outside any container.
        answers: Option<ServerUrl>,
        /// A port near it that is free.
        free: Option<u16>,
    },
    /// A server could not be asked.
    #[error("cannot {doing} at {url}: {why}")]
    Http {
        /// What we were doing, in the imperative.
        doing: String,
        /// Where.
        url: String,
        /// The reason.
        why: String,
        /// It was reached, but did not answer in time.
        is_late: bool,
    },
    /// A server rejects the login.
    #[error("{} at {url} rejected the login: {message}", role.title())]
    Refused {
        /// Which server.
        role: Role,
        /// Where.
        url: String,
        /// Its message.
        message: String,
    },
    /// A server answered what we cannot use.
    #[error("cannot {doing} at {url}: {why}")]
    Answer {
        /// What we were doing, in the imperative.
        doing: String,
        /// Where.
        url: String,
        /// The HTTP status; 0 where the answer itself was the problem.
        status: u16,
        /// The server's words.
        why: String,
    },
    /// A server did not become ready.
    #[error("{} did not become ready: {why}{}", role.title(), log_lines(log))]
    NotReady {
        /// Which server.
        role: Role,
        /// The reason.
        why: String,
        /// The last lines of the container's log.
        log: Vec<String>,
        /// What to do.
        hint: String,
    },
    /// A new image of Grafana failed, and the one of before was brought back, or was to be.
    #[error("{}", undone_upgrade(from, to, source, undone))]
    UpgradeUndone {
        /// The image of before.
        from: String,
        /// The image that failed.
        to: String,
        /// What it failed with.
        source: Box<Error>,
        /// What came of bringing back the one of before.
        undone: Result<(), Box<Error>>,
        /// The command that tries the new one again.
        again: String,
        /// The command that goes on bringing back the one of before.
        rest: String,
    },
    /// What the command works on is not there.
    #[error("{what}")]
    Absent {
        /// What is not there, as a sentence.
        what: String,
        /// What to do.
        hint: String,
    },
    /// Somebody has to act before we can.
    #[error("{}", blocked.why)]
    Blocked {
        /// What it is about.
        resource: Resource,
        /// Why and what to do.
        blocked: Blocked,
    },
    /// Everything was done, and still something differs.
    #[error("still out of sync{}: {rest}", after.map(|after| format!(" after {:.1} s", after.as_secs_f64())).unwrap_or_default())]
    NotConverged {
        /// What remains.
        rest: String,
        /// How long it was tried, where that matters.
        after: Option<Duration>,
        /// What to do.
        hint: String,
    },
    /// Refused on purpose; the user can say that it is meant.
    #[error("{message}")]
    NotConfirmed {
        /// What was not done.
        message: String,
        /// How to confirm.
        hint: String,
    },
    /// The user interrupted the command.
    #[error("interrupted")]
    Interrupted {
        /// What is left, and how to go on.
        hint: String,
    },
    /// The machine would not let us.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What we were doing, in the imperative.
        doing: String,
        /// The reason.
        source: std::io::Error,
    },
}

/// Why the engine refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such thing.
    NotFound,
    /// It exists already, or is in use.
    Conflict,
    /// Somebody is removing it already.
    BeingRemoved,
    /// It is not paused.
    NotPaused,
    /// Somebody else writes the same file at the same moment.
    Overwritten,
    /// A container is just ending, and cannot be looked at before it has ended.
    Ending,
    /// The image has no such program.
    NoSuchProgram,
    /// The published port is taken.
    PortTaken,
    /// The engine's machine does not have the published address.
    NoSuchAddress,
    /// The engine cannot be reached any more.
    Gone,
    /// The answer is larger than any that an engine sends.
    TooLarge,
    /// The disk is full.
    Disk,
    /// A container has something else in the place of a regular file.
    UnexpectedFile,
    /// Every address range that the engine may give to networks is in use.
    AddressPools,
    /// The chains of the engine's firewall rules are gone.
    Firewall,
    /// The engine may not open a port that low.
    PrivilegedPort,
    /// The engine's machine has no usable control groups.
    Cgroups,
    /// The image is built for another processor.
    Architecture,
    /// The image's command or user cannot be used.
    Unrunnable,
    /// Anything else.
    Other,
}

/// Why a pull failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullFailure {
    /// No such image, or no right to see it.
    NotFound,
    /// Too many pulls; the window is hours.
    RateLimited,
    /// The registry cannot be reached.
    Unreachable,
    /// The pull made no progress for too long.
    Silent,
    /// The transfer broke off.
    Cut,
    /// The engine's disk is full.
    Disk,
    /// The engine does not trust the registry's certificate.
    Certificate,
    /// The registry's certificate is not valid at the time of the engine's clock.
    Clock,
    /// A proxy wants a login.
    ProxyLogin,
    /// The registry has no image for the processor of the engine's machine.
    Platform,
    /// Anything else.
    Other,
}

/// What a process that ended this way tells its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or everything in sync.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Bad usage or settings.
    Usage = 2,
    /// `status` or `--dry-run` found a difference, a missing stack, or something that blocks.
    Differs = 3,
    /// Interrupted.
    Interrupted = 130,
}

impl Error {
    /// A mistake on the command line.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    /// What the caller of the process is told.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. }
            | Self::File { .. }
            | Self::NotConfirmed { .. }
            | Self::Blocked { blocked: Blocked { kind: Obstacle::Settings, .. }, .. } => Exit::Usage,
            Self::Interrupted { .. } => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    /// A word for machines, never renamed.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::File { .. } => "file",
            Self::Engine { .. } => "engine_unreachable",
            Self::Docker { .. } | Self::Raced { .. } => "engine",
            Self::Interrupted { .. } => "interrupted",
            Self::Pull { .. } => "pull",
            Self::Publish { .. } => "port",
            Self::Http { .. } => "unreachable",
            Self::Refused { .. } => "refused",
            Self::Answer { .. } => "answer",
            Self::NotReady { .. } => "not_ready",
            Self::UpgradeUndone { .. } => "upgrade_undone",
            Self::Absent { .. } => "absent",
            Self::Blocked { blocked, .. } => match blocked.kind {
                Obstacle::Foreign => "foreign",
                Obstacle::Conflict => "conflict",
                Obstacle::Refused => "refused",
                Obstacle::PortTaken => "port",
                Obstacle::Image => "image",
                Obstacle::Server => "server",
                Obstacle::Settings => "settings",
                Obstacle::Unverifiable => "unverifiable",
                Obstacle::Unfinished => "unfinished_restore",
            },
            Self::NotConverged { .. } => "not_converged",
            Self::NotConfirmed { .. } => "not_confirmed",
            Self::Io { .. } => "io",
        }
    }

    /// What to type next; `invocation` makes a suggested command reach the same instance.
    #[must_use]
    pub fn hint(&self, invocation: &Invocation) -> String {
        match self {
            Self::Usage { hint, .. }
            | Self::File { hint, .. }
            | Self::Engine { hint, .. }
            | Self::Interrupted { hint }
            | Self::NotReady { hint, .. }
            | Self::Absent { hint, .. }
            | Self::NotConverged { hint, .. }
            | Self::NotConfirmed { hint, .. } => hint.clone(),
            Self::UpgradeUndone { undone: Ok(()), again, .. } => {
                format!("`up` does not try that image again by itself; `{again}` does")
            }
            Self::UpgradeUndone { rest, .. } => format!("`{rest}` goes on bringing it back"),
            Self::Blocked { blocked, .. } => blocked.hint.clone(),
            Self::Docker { refusal, .. } => refusal.hint(invocation),
            Self::Raced { .. } => Refusal::Conflict.hint(invocation),
            Self::Publish { role, address, holder, answers, free } => {
                let another = invocation.another_port(*role, *free);
                publish_hint(*role, *address, holder, answers.as_ref(), &another, invocation)
            }
            Self::Pull { failure, image, .. } => failure.hint(image, invocation),
            Self::Http { .. } => "check that the server runs, then try again; -v shows every request".into(),
            Self::Refused { role: Role::Grafana, .. } => format!(
                "give the password with `{}`, or set a new one with `{}` (containers of clipper-metrics only); Grafana \
                 locks a user out for 5 minutes after 5 wrong passwords",
                invocation.command("up --grafana-password-file FILE"),
                invocation.command("up --reset-grafana-password")
            ),
            Self::Refused { .. } => "give --influxdb-user and --influxdb-password-file".into(),
            Self::Answer { status: 403, .. } => {
                "an administrator's account must do this once: run the same command with it; for the dashboard alone, an \
                 editor's is enough afterwards"
                    .into()
            }
            Self::Answer { why, .. } if is_disk_full(why) => {
                "free space on the disk of that server's data, then run the same command again".into()
            }
            Self::Answer { .. } => "-v shows every request, and the server's log tells more".into(),
            Self::Io { source, .. } => io_hint(source.kind()).into(),
        }
    }
}

impl Refusal {
    /// What to do about it.
    pub(crate) fn hint(self, invocation: &Invocation) -> String {
        match self {
            Self::NotFound => "the engine changed in the meantime: run the same command again".into(),
            Self::Conflict | Self::BeingRemoved | Self::Overwritten => {
                "somebody else works on the same objects: run the same command again".into()
            }
            Self::PortTaken | Self::NoSuchAddress => {
                "choose another address with --influxdb-ip/--influxdb-port or --grafana-ip/--grafana-port".into()
            }
            Self::Gone => {
                format!(
                    "check that the engine still runs (`{}`), then run the same command again",
                    invocation.docker("version")
                )
            }
            Self::Disk => full_disk(invocation),
            Self::UnexpectedFile => {
                "put a regular file in its place in the volume, then run the same command again".into()
            }
            Self::TooLarge => format!(
                "check that `{}` works, or name another engine with -H or --context",
                invocation.docker("version")
            ),
            Self::AddressPools => {
                format!(
                    "remove networks that no container uses (`{}`), or add ranges to `default-address-pools` in the \
                     engine's daemon.json and restart it; then run the same command again",
                    invocation.docker("network prune")
                )
            }
            Self::Firewall => {
                "a restart of the firewall removes the engine's rules: restart the engine, too (`sudo systemctl restart \
                 docker`; Podman: `podman network reload --all`), then run the same command again"
                    .into()
            }
            Self::PrivilegedPort => {
                "choose ports from 1024 on with --influxdb-port or --grafana-port, or let the engine open lower ones \
                 (`sudo sysctl net.ipv4.ip_unprivileged_port_start=0`)"
                    .into()
            }
            Self::Cgroups => {
                "mount control groups on the engine's machine (/sys/fs/cgroup) and restart the engine, then run the same \
                 command again"
                    .into()
            }
            Self::Architecture => OTHER_PROCESSOR.into(),
            Self::Unrunnable => {
                "check that the image is one of InfluxDB or Grafana, or give another with --influxdb-image or \
                 --grafana-image"
                    .into()
            }
            Self::Other | Self::NotPaused | Self::NoSuchProgram | Self::Ending => {
                format!(
                    "`{}` and the engine's log may tell more; then run the same command again",
                    invocation.docker("info")
                )
            }
        }
    }
}

/// How an image for the processor of the engine's machine is chosen.
const OTHER_PROCESSOR: &str = "the engine's machine has another processor: give an image that is built for it with \
                               --influxdb-image or --grafana-image";

/// The words of servers whose disk is full.
#[must_use]
pub fn is_disk_full(message: &str) -> bool {
    let message = message.to_lowercase();
    ["no space left", "disk quota exceeded", "disk is full"].iter().any(|phrase| message.contains(phrase))
}

/// What helps with a file or directory of this machine.
const fn io_hint(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match kind {
        StorageFull | QuotaExceeded => {
            "free space on that disk, or name a file on another one; temporary files are in the directory that TMPDIR names"
        }
        ReadOnlyFilesystem => "name a file on a disk that can be written to",
        _ => "check that you may use the file or directory",
    }
}

impl PullFailure {
    /// Worth trying once more right away.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Cut)
    }

    fn hint(self, image: &ImageRef, invocation: &Invocation) -> String {
        match self {
            Self::NotFound => {
                let library = image.library_form().map(|form| {
                    format!(", or, for a mirror of Docker Hub with full names, give --influxdb-image {form}")
                });
                format!(
                    "check the name, sign in with `docker login`, or name another image or registry (--registry){}; \
                     without internet: `docker save {image}` elsewhere, `{}` here, then --pull never",
                    library.unwrap_or_default(),
                    invocation.docker("load")
                )
            }
            Self::RateLimited => {
                "the registry's limit lasts hours: sign in with `docker login`, or use a mirror with --registry".into()
            }
            Self::Unreachable => {
                let check = image.registry().map_or_else(
                    || "check the network and the engine's proxy, or use a mirror with --registry".to_string(),
                    |registry| {
                        format!(
                            "check that a registry runs at {registry} and that the engine's machine reaches it (network, \
                             proxy), or give another with --registry"
                        )
                    },
                );
                let load = invocation.docker("load");
                format!("{check}; without internet: `{load}` brings the images, then give --pull never")
            }
            Self::Silent | Self::Cut => "run the same command again: complete layers are kept".into(),
            Self::Disk => full_disk(invocation),
            Self::Certificate => image.registry().map_or_else(
                || {
                    "a proxy may replace the registry's certificate: add the proxy's CA certificate to the system \
                     certificates of the engine's machine and restart the engine"
                        .to_string()
                },
                |registry| {
                    format!(
                        "put the CA certificate of {registry} into /etc/docker/certs.d/{registry}/ca.crt on the engine's \
                         machine, then run the same command again"
                    )
                },
            ),
            Self::Clock => {
                "check the clock of the engine's machine (`timedatectl`); if it is right, the registry's certificate must \
                 be renewed"
                    .into()
            }
            Self::ProxyLogin => {
                "give the proxy's user and password to the engine (`https-proxy` under `proxies` in daemon.json, as \
                 http://USER:PASSWORD@HOST:PORT) and restart it, or use a mirror with --registry"
                    .into()
            }
            Self::Platform => OTHER_PROCESSOR.into(),
            Self::Other => {
                let pull = invocation.docker(&format!("pull {image}"));
                format!("run the same command again, or try `{pull}` by hand")
            }
        }
    }
}

fn full_disk(invocation: &Invocation) -> String {
    let usage = invocation.docker("system df");
    format!("free space on the engine's disk (`{usage}` shows what uses it), then run the same command again")
}

/// Who has an address.
fn holder_text(holder: &PortHolder, role: Role, answers: Option<&ServerUrl>) -> String {
    match holder {
        PortHolder::Container(name) => format!("container {name} holds that port"),
        PortHolder::OtherRole(other) => format!("this instance's {} holds that port", other.title()),
        PortHolder::Process => {
            let answers = answers.map(|_| format!("; {} answers there", role.title())).unwrap_or_default();
            format!("another process on the engine's machine holds that port{answers}")
        }
        PortHolder::NoSuchAddress => "that is not an address of the engine's machine".into(),
    }
}

fn publish_hint(
    role: Role,
    address: SocketAddr,
    holder: &PortHolder,
    answers: Option<&ServerUrl>,
    another: &str,
    invocation: &Invocation,
) -> String {
    match (holder, answers) {
        (PortHolder::Container(name), _) => {
            let stop = invocation.docker(&format!("stop {name}"));
            format!("stop it with `{stop}`, or {another}")
        }
        (PortHolder::Process, Some(url)) => {
            format!("use it with --{role}-url {url}, or {another}")
        }
        (PortHolder::Process, None) => {
            format!("{another}, or find the process with `ss -ltnp`")
        }
        (PortHolder::OtherRole(_), _) => another.into(),
        (PortHolder::NoSuchAddress, _) => format!(
            "choose one that it has: `{}` is for that machine alone, `{}` for every machine that reaches it; if {} \
             already runs at {address}, give --{role}-url {}; to run the containers there, name that machine's engine \
             with -H",
            invocation.command(&format!("up --{role}-ip 127.0.0.1")),
            invocation.command(&format!("up --{role}-ip 0.0.0.0")),
            role.title(),
            ServerUrl::http(address.ip().to_string(), address.port())
        ),
    }
}

/// What failed, what came of it, and what the failed one said.
fn undone_upgrade(from: &str, to: &str, source: &Error, undone: &Result<(), Box<Error>>) -> String {
    match undone {
        Ok(()) => format!("Grafana's image {to} failed, and {from} runs again with its database: {source}"),
        Err(why) => format!("Grafana's image {to} failed: {source}\nbringing back {from} failed, too: {why}"),
    }
}

/// The log as it follows an error's first line.
fn log_lines(log: &[String]) -> String {
    if log.is_empty() {
        return String::new();
    }
    let mut text = String::from("\nits last log lines:");
    for line in log {
        text.push_str("\n  | ");
        text.push_str(line);
    }
    text
}

/// One sentence out of an error and everything that caused it, without repeating itself.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_hint() {
        let invocation = Invocation::new(Vec::new(), " -H tcp://far:2375");
        let docker = |refusal| Error::Docker { doing: "start".into(), why: "x".into(), refusal }.hint(&invocation);
        for (refusal, words) in [
            (Refusal::AddressPools, "`docker -H tcp://far:2375 network prune`"),
            (Refusal::Firewall, "systemctl restart docker"),
            (Refusal::PrivilegedPort, "from 1024 on"),
            (Refusal::Cgroups, "/sys/fs/cgroup"),
            (Refusal::Architecture, "another processor"),
            (Refusal::Unrunnable, "--grafana-image"),
            (Refusal::Disk, "`docker -H tcp://far:2375 system df`"),
            (Refusal::Other, "`docker -H tcp://far:2375 info`"),
        ] {
            assert!(docker(refusal).contains(words), "{refusal:?}: {}", docker(refusal));
        }
        let pull = |image: &str, failure| {
            let image = ImageRef::parse(image).unwrap();
            Error::Pull { image, why: "x".into(), failure }.hint(&invocation)
        };
        let mirror = "m.example:5000/grafana/grafana:12.4.10";
        for (image, failure, words) in [
            (mirror, PullFailure::Certificate, "/etc/docker/certs.d/m.example:5000/ca.crt"),
            ("grafana/grafana:12.4.10", PullFailure::Certificate, "CA certificate to the system"),
            (mirror, PullFailure::Clock, "timedatectl"),
            (mirror, PullFailure::ProxyLogin, "USER:PASSWORD"),
            (mirror, PullFailure::Platform, "another processor"),
        ] {
            let hint = pull(image, failure);
            assert!(hint.contains(words), "{failure:?}: {hint}");
            assert!(failure == PullFailure::Certificate || !hint.contains("same command again"), "{failure:?}: {hint}");
        }
        let io =
            |kind: std::io::ErrorKind| Error::Io { doing: "write x".into(), source: kind.into() }.hint(&invocation);
        assert!(io(std::io::ErrorKind::StorageFull).contains("free space"));
        assert!(io(std::io::ErrorKind::PermissionDenied).contains("you may use"));
        let why = "engine: write /var/lib/influxdb/wal/x: no space left on device";
        let answer = Error::Answer { doing: "write".into(), url: "u".into(), status: 500, why: why.into() };
        assert!(answer.hint(&invocation).contains("free space"), "{}", answer.hint(&invocation));
    }
}
