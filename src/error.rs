//! Errors: what was attempted on which object, why it failed, and the hint with the next command to
//! type. Errors never contain secrets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::address::ServerUrl;
use crate::model::image::ImageRef;
use crate::model::invocation::Invocation;
use crate::model::observed::PortHolder;
use crate::model::plan::{BlockReason, Blocker, FailureCause, Resource};
use crate::model::publish;
pub use crate::model::refusal::Refusal;
use crate::model::results::{ErrorDocument, Failed, SchemaVersion};
use crate::model::role::Role;
use crate::model::upgrade::{Upgrade, UpgradeState};

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line or the environment is invalid.
    #[error("{message}")]
    Usage {
        /// The mistake, with the option's name.
        message: String,
        /// The correct usage.
        hint: String,
    },
    /// A file named by the user cannot be used.
    #[error("{}{}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, if the error is in one.
        line: Option<usize>,
        /// The reason.
        message: String,
        /// How to fix it.
        hint: String,
    },
    /// The engine cannot be reached at all.
    #[error("cannot reach the Docker engine at {endpoint}: {why}")]
    Engine {
        /// The engine's address.
        endpoint: String,
        /// The reason.
        why: String,
        /// How to fix it.
        hint: String,
        /// The command that installs an engine, if this machine has none and no setting selects one.
        install: Option<String>,
        /// Whether no engine runs there, so that no server on this machine can be its container.
        is_down: bool,
    },
    /// The engine answered with an error.
    #[error("cannot {doing}: {why}")]
    Docker {
        /// The attempt, in the imperative.
        doing: String,
        /// The engine's message.
        why: String,
        /// The kind of failure.
        refusal: Refusal,
    },
    /// Another process changed the same object, so the remaining work must be planned again.
    #[error("cannot {doing}: {why}")]
    Raced {
        /// The attempt, in the imperative.
        doing: String,
        /// The change by the other process.
        why: String,
    },
    /// An image cannot be pulled.
    #[error("cannot pull {image}: {why}")]
    Pull {
        image: ImageRef,
        /// The engine's message.
        why: String,
        /// The kind of failure.
        failure: PullFailure,
    },
    /// The desired address cannot be published.
    #[error("cannot publish {} at {address}: {}", role.title(), publish::describe(holder, *role, answers.as_ref()))]
    Publish {
        /// The role to publish.
        role: Role,
        address: SocketAddr,
        holder: PortHolder,
        /// A server of the same role that answers there in a process outside any container.
        answers: Option<ServerUrl>,
        /// A free port nearby.
        free: Option<u16>,
    },
    /// A request failed.
    #[error("cannot {doing} at {url}: {why}")]
    Http {
        /// The attempt, in the imperative.
        doing: String,
        /// The server's address.
        url: String,
        /// The reason.
        why: String,
        /// Whether the server was reached but did not answer in time.
        is_late: bool,
    },
    /// A server rejected the login.
    #[error("{} at {url} rejected the login: {message}", role.title())]
    Refused {
        /// The server.
        role: Role,
        /// Its address.
        url: String,
        message: String,
    },
    /// A server's answer was an error or unusable.
    #[error("cannot {doing} at {url}: {why}")]
    Answer {
        /// The attempt, in the imperative.
        doing: String,
        /// The server's address.
        url: String,
        /// The HTTP status; 0 if the content of the answer was the problem.
        status: u16,
        /// The server's message.
        why: String,
    },
    /// A server did not become ready.
    #[error("{} did not become ready: {why}{}", role.title(), log_lines(log))]
    NotReady {
        /// The server.
        role: Role,
        /// The reason.
        why: String,
        /// The last lines of the container's log.
        log: Vec<String>,
        /// How to fix it.
        hint: String,
    },
    /// A new image of Grafana failed; the rollback to the previous one succeeded or failed.
    #[error("{}", undone_upgrade(upgrade, source, undone))]
    UpgradeUndone {
        /// The previous image, and the one that failed.
        upgrade: Box<Upgrade>,
        source: Box<Error>,
        /// The result of the rollback.
        undone: Result<(), Box<Error>>,
        /// The command that tries the new one again.
        again: String,
        /// The command that continues the rollback.
        rest: String,
    },
    /// The object of the command does not exist.
    #[error("{what}")]
    Absent {
        /// A sentence that names the missing object.
        what: String,
        /// How to fix it.
        hint: String,
    },
    /// The user has to act first.
    #[error("{}", blocker.why)]
    Blocked {
        /// The affected resource.
        resource: Resource,
        /// The reason and the remedy.
        blocker: Blocker,
    },
    /// Another owner's object prevents a step, as only the attempt showed.
    #[error("{why}")]
    Foreign {
        /// The reason, with the object's name.
        why: String,
        object: ForeignObject,
    },
    /// All steps were done, but a difference remains.
    #[error("still out of sync{}: {rest}", after.map(|after| format!(" after {:.1}s", after.as_secs_f64())).unwrap_or_default())]
    NotConverged {
        /// The remaining steps.
        rest: String,
        /// The duration of the attempts, if relevant.
        after: Option<Duration>,
        /// How to fix it.
        hint: String,
    },
    /// The command needs the user's confirmation.
    #[error("{message}")]
    NotConfirmed {
        /// The action that was not confirmed.
        message: String,
        /// How to confirm.
        hint: String,
    },
    /// The user interrupted the command.
    #[error("interrupted")]
    Interrupted {
        /// What remains, and how to continue.
        hint: String,
    },
    /// The operating system reported an error.
    #[error("cannot {doing}: {source}")]
    Io {
        /// The attempt, in the imperative.
        doing: String,
        /// The reason.
        source: std::io::Error,
    },
}

/// Another owner's object in the way of a step.
#[derive(Debug)]
pub enum ForeignObject {
    /// In Grafana, at the place of the instance's own.
    InGrafana,
    /// A container that is attached to a duplicate network.
    Attached {
        /// The engine's id of the network.
        network: String,
        /// The container's name.
        container: String,
    },
    /// A container that uses a volume to be deleted.
    VolumeUser {
        /// Its name.
        container: String,
    },
}

impl ForeignObject {
    fn hint(&self, invocation: &Invocation) -> String {
        match self {
            Self::InGrafana => {
                "rename or delete it in Grafana, use a folder with --grafana-folder, or start a second instance with --name"
                    .into()
            }
            Self::Attached { network, container } => {
                let command = invocation.docker(&format!("network disconnect {network} {container}"));
                format!("`{command}`, then run the same command again")
            }
            Self::VolumeUser { container } => {
                let command = invocation.docker(&format!("rm --force {container}"));
                format!("remove it with `{command}`, then run the same command again")
            }
        }
    }
}

/// The kind of failure of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullFailure {
    /// The image does not exist, or the account may not read it.
    NotFound,
    /// Too many pulls; the limit lasts hours.
    RateLimited,
    /// The registry cannot be reached.
    Unreachable,
    /// The pull made no progress for too long.
    Silent,
    /// The transfer was interrupted.
    Cut,
    /// The engine's disk is full.
    Disk,
    /// The engine does not trust the registry's certificate.
    Certificate,
    /// The registry's certificate is not valid at the time of the engine's clock.
    Clock,
    /// The registry offers no TLS, which the engine requires.
    PlainHttp,
    /// A proxy requires a login.
    ProxyLogin,
    /// The registry has no image for the architecture of the engine's host.
    Platform,
    /// Anything else.
    Other,
}

/// The exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done or in sync.
    Done = 0,
    Failed = 1,
    /// Bad usage or settings.
    Usage = 2,
    /// `status` or `--dry-run` found a difference, a missing stack or a blocker.
    Differs = 3,
    Interrupted = 130,
}

impl Error {
    /// An invalid command line.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    /// The exit code for this error.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. }
            | Self::File { .. }
            | Self::NotConfirmed { .. }
            | Self::Blocked { blocker: Blocker { kind: BlockReason::Settings, .. }, .. } => Exit::Usage,
            Self::Interrupted { .. } => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    /// The kind of error in JSON; never changes.
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
            Self::Blocked { blocker, .. } => match blocker.kind {
                BlockReason::Foreign => "foreign",
                BlockReason::Conflict => "conflict",
                BlockReason::Refused => "refused",
                BlockReason::PortTaken => "port",
                BlockReason::Image => "image",
                BlockReason::Server => "server",
                BlockReason::Settings => "settings",
                BlockReason::Unverifiable => "unverifiable",
                BlockReason::Unfinished => "unfinished_restore",
            },
            Self::Foreign { .. } => "foreign",
            Self::NotConverged { .. } => "not_converged",
            Self::NotConfirmed { .. } => "not_confirmed",
            Self::Io { .. } => "io",
        }
    }

    /// The result of the failed command.
    pub(crate) fn failure(&self, invocation: &Invocation) -> ErrorDocument {
        let error = Failed { kind: self.kind(), message: self.to_string(), hint: self.hint(invocation) };
        ErrorDocument { schema: SchemaVersion, error }
    }

    /// The next command to type; `invocation` makes suggested commands reach the same instance.
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
            Self::UpgradeUndone { upgrade, undone: Ok(()), again, .. } if upgrade.state != UpgradeState::Postponed => {
                format!("`up` does not try that image again automatically; `{again}` does")
            }
            Self::UpgradeUndone { undone: Ok(()), again, source, .. }
                if matches!(**source, Self::Docker { refusal: Refusal::Disk, .. }) =>
            {
                let usage = invocation.docker("system df");
                format!(
                    "free space on the engine's disk (`{usage}` shows what uses it); `{again}` tries that image again"
                )
            }
            Self::UpgradeUndone { undone: Ok(()), again, .. } => {
                format!("remove the cause; `{again}` tries that image again")
            }
            Self::UpgradeUndone { rest, .. } => format!("`{rest}` continues the rollback"),
            Self::Blocked { blocker, .. } => blocker.hint.clone(),
            Self::Foreign { object, .. } => object.hint(invocation),
            Self::Docker { refusal, .. } => refusal.hint(invocation),
            Self::Raced { .. } => Refusal::Conflict.hint(invocation),
            Self::Publish { role, address, holder, answers, free } => {
                let another = invocation.another_port(*role, *free);
                publish::hint(*role, *address, holder, answers.as_ref(), &another, invocation)
            }
            Self::Pull { failure, image, .. } => failure.hint(image, invocation),
            Self::Http { .. } => "check that the server runs, then try again; -v shows every request".into(),
            Self::Refused { role: Role::Grafana, .. } => format!(
                "supply the password with `{}`, or set a new one with `{}` (managed containers only); Grafana locks a \
                 user out for 5 minutes after 5 wrong passwords",
                invocation.command("up --grafana-password-file FILE"),
                invocation.command("up --reset-grafana-password")
            ),
            Self::Refused { .. } => "use --influxdb-user and --influxdb-password-file".into(),
            Self::Answer { status: 403, .. } => {
                "run this command once with an administrator's account; afterwards, an editor's account is enough for \
                 the dashboard"
                    .into()
            }
            Self::Answer { why, .. } if is_disk_full(why) => {
                "free space on the disk with that server's data, then run the same command again".into()
            }
            Self::Answer { .. } => "-v shows every request, and the server's log may show the cause".into(),
            Self::Io { source, .. } => io_hint(source.kind()).into(),
        }
    }
}

impl From<&Error> for FailureCause {
    fn from(error: &Error) -> Self {
        match error {
            Error::NotReady { .. } | Error::NotConverged { .. } | Error::Http { .. } | Error::Io { .. } => {
                Self::NotReady
            }
            Error::Answer { status, .. } => Self::Answer(*status),
            Error::Docker { refusal, .. } => Self::Engine(*refusal),
            Error::Blocked { resource, blocker } => Self::Blocked(*resource, blocker.kind),
            Error::Usage { .. }
            | Error::File { .. }
            | Error::Engine { .. }
            | Error::Raced { .. }
            | Error::Pull { .. }
            | Error::Publish { .. }
            | Error::Refused { .. }
            | Error::UpgradeUndone { .. }
            | Error::Absent { .. }
            | Error::Foreign { .. }
            | Error::NotConfirmed { .. }
            | Error::Interrupted { .. } => Self::Other,
        }
    }
}

impl Refusal {
    /// The remedy for this kind of error.
    pub(crate) fn hint(self, invocation: &Invocation) -> String {
        match self {
            Self::NotFound => "the object was removed in the meantime: run the same command again".into(),
            Self::Conflict | Self::BeingRemoved | Self::Overwritten => {
                "another process changed the same objects: run the same command again".into()
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
                "check that `{}` works, or select another engine with -H or --context",
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
                "a restart of the firewall removes the engine's rules: restart the engine as well (`sudo systemctl \
                 restart docker`; Podman: `podman network reload --all`), then run the same command again"
                    .into()
            }
            Self::PrivilegedPort => {
                "choose ports of at least 1024 with --influxdb-port or --grafana-port, or let the engine open lower \
                 ones (`sudo sysctl net.ipv4.ip_unprivileged_port_start=0`)"
                    .into()
            }
            Self::Cgroups => {
                "mount control groups on the engine's host (/sys/fs/cgroup) and restart the engine, then run the same \
                 command again"
                    .into()
            }
            Self::Architecture => OTHER_PROCESSOR.into(),
            Self::Unrunnable | Self::NoSuchProgram => {
                "check that the image contains InfluxDB or Grafana, or choose another with --influxdb-image or \
                 --grafana-image"
                    .into()
            }
            Self::Other | Self::NotPaused | Self::Ending => {
                format!(
                    "`{}` and the engine's log may show the cause; then run the same command again",
                    invocation.docker("info")
                )
            }
        }
    }
}

/// The advice for an image of another architecture.
const OTHER_PROCESSOR: &str = "the engine's host has another architecture: choose an image built for it with \
                               --influxdb-image or --grafana-image";

/// Messages of servers whose disk is full.
#[must_use]
pub fn is_disk_full(message: &str) -> bool {
    let message = message.to_lowercase();
    ["no space left", "disk quota exceeded", "disk is full"].iter().any(|phrase| message.contains(phrase))
}

/// The advice for a file or directory on this machine.
const fn io_hint(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match kind {
        StorageFull | QuotaExceeded => {
            "free space on that disk, or choose a file on another one; TMPDIR sets the directory of temporary files"
        }
        ReadOnlyFilesystem => "choose a file on a writable disk",
        _ => "check the permissions of the file or directory",
    }
}

impl PullFailure {
    /// Whether an immediate second attempt may succeed.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Cut)
    }

    fn hint(self, image: &ImageRef, invocation: &Invocation) -> String {
        match self {
            Self::NotFound => {
                let library = image.library_form().map(|form| {
                    format!(", or, for a mirror of Docker Hub with full names, use --influxdb-image {form}")
                });
                format!(
                    "check the name, sign in with `docker login`, or choose another image or registry (--registry){}; \
                     without internet: run `docker save {image}` elsewhere and `{}` here, then use --pull never",
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
                            "check that a registry runs at {registry} and that the engine's host can reach it \
                             (network, proxy), or choose another with --registry"
                        )
                    },
                );
                let load = invocation.docker("load");
                format!("{check}; without internet: load the images with `{load}`, then use --pull never")
            }
            Self::Silent | Self::Cut => "run the same command again: complete layers are kept".into(),
            Self::Disk => full_disk(invocation),
            Self::Certificate => image.registry().map_or_else(
                || {
                    "a proxy may replace the registry's certificate: add the proxy's CA certificate to the system \
                     certificates of the engine's host and restart the engine"
                        .to_string()
                },
                |registry| {
                    format!(
                        "copy the CA certificate of {registry} to /etc/docker/certs.d/{registry}/ca.crt on the \
                         engine's host, then run the same command again"
                    )
                },
            ),
            Self::Clock => {
                "check the clock of the engine's host (`timedatectl`); if it is right, the registry's certificate must \
                 be renewed"
                    .into()
            }
            Self::PlainHttp => {
                let registry = image.registry().unwrap_or("HOST:PORT");
                format!(
                    "if you trust the network to {registry}, add `\"insecure-registries\": [\"{registry}\"]` to the \
                     engine's daemon.json (Podman: `insecure = true` in registries.conf) and restart it; otherwise \
                     enable TLS on the registry"
                )
            }
            Self::ProxyLogin => {
                "configure the proxy's user and password in the engine (`https-proxy` under `proxies` in daemon.json, \
                 as http://USER:PASSWORD@HOST:PORT) and restart it, or use a mirror with --registry"
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

/// The failed image, the result of the rollback, and the image's error.
fn undone_upgrade(upgrade: &Upgrade, source: &Error, undone: &Result<(), Box<Error>>) -> String {
    let (from, to) = (&upgrade.from.name, &upgrade.to.name);
    let failed = if upgrade.state == UpgradeState::Postponed { "could not be tried" } else { "failed" };
    match undone {
        Ok(()) => format!("Grafana's image {to} {failed}, and {from} runs again with its database: {source}"),
        Err(why) => format!("Grafana's image {to} {failed}: {source}\nthe rollback to {from} failed, too: {why}"),
    }
}

/// The log lines that follow an error's first line.
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

/// One sentence from an error and its causes, without repetitions.
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
    fn every_cause_has_its_own_hint() {
        let invocation = Invocation::new(Vec::new(), " -H tcp://far:2375");
        let docker = |refusal| Error::Docker { doing: "start".into(), why: "x".into(), refusal }.hint(&invocation);
        for (refusal, words) in [
            (Refusal::AddressPools, "`docker -H tcp://far:2375 network prune`"),
            (Refusal::Firewall, "systemctl restart docker"),
            (Refusal::PrivilegedPort, "at least 1024"),
            (Refusal::Cgroups, "/sys/fs/cgroup"),
            (Refusal::Architecture, "another architecture"),
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
            (mirror, PullFailure::Platform, "another architecture"),
        ] {
            let hint = pull(image, failure);
            assert!(hint.contains(words), "{failure:?}: {hint}");
            assert!(failure == PullFailure::Certificate || !hint.contains("same command again"), "{failure:?}: {hint}");
        }
        let io =
            |kind: std::io::ErrorKind| Error::Io { doing: "write x".into(), source: kind.into() }.hint(&invocation);
        assert!(io(std::io::ErrorKind::StorageFull).contains("free space"));
        assert!(io(std::io::ErrorKind::PermissionDenied).contains("permissions"));
        let why = "engine: write /var/lib/influxdb/wal/x: no space left on device";
        let answer = Error::Answer { doing: "write".into(), url: "u".into(), status: 500, why: why.into() };
        assert!(answer.hint(&invocation).contains("free space"), "{}", answer.hint(&invocation));
    }
}
