//! Errors: what was attempted on which object, why it failed, and the hint with the next command to
//! type. Errors never contain secrets.

mod hints;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) use self::hints::denied;
use crate::model::address::ServerUrl;
use crate::model::image::ImageRef;
use crate::model::invocation::Invocation;
use crate::model::observed::PortHolder;
use crate::model::plan::{BlockReason, Blocker, FailureCause, Resource};
use crate::model::publish;
pub use crate::model::refusal::Refusal;
use crate::model::results::{ErrorDocument, Failed};
use crate::model::role::Role;
use crate::model::schema::SchemaVersion;
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
    /// The account at InfluxDB lacks a right.
    #[error("cannot {doing} at {url}: {why}")]
    Forbidden {
        /// The attempt, in the imperative.
        doing: String,
        /// The server's address.
        url: String,
        /// InfluxDB's message, which names the right.
        why: String,
        /// The InfluxQL statements that an administrator executes instead; empty if they are unknown.
        statements: Vec<String>,
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
        cause: Unready,
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
    /// Grafana's answer contradicts the correct settings of its data source, so they must be saved again.
    #[error("Grafana's answer contradicts the settings of its data source: {why}")]
    Contradicted {
        why: String,
        /// The start of the verification.
        since: Instant,
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
    /// The result cannot be printed.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    /// The operating system reported an error.
    #[error("cannot {doing}: {source}")]
    Io {
        /// The attempt, in the imperative.
        doing: String,
        /// The reason.
        source: std::io::Error,
    },
}

/// The cause of a server that is not ready, as far as the remedy depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// The time limit was reached; a longer one may help.
    Late,
    /// Its container does not run, or cannot work.
    Failed,
    /// The engine's host is the cause.
    Engine(Refusal),
}

/// Another owner's object in the way of a step.
#[derive(Debug)]
pub enum ForeignObject {
    /// A data source in Grafana, in the place of the instance's own.
    DataSource {
        /// Whether it is provisioned from a file.
        provisioned: bool,
    },
    /// A dashboard in Grafana, in the place of the instance's own.
    Dashboard,
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

impl PullFailure {
    /// Whether an immediate second attempt may succeed.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Cut)
    }
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
            Self::Refused { .. } | Self::Forbidden { .. } => "refused",
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
                BlockReason::Changed => "settings_changed",
                BlockReason::Unverifiable => "unverifiable",
                BlockReason::Unfinished => "unfinished_restore",
            },
            Self::Foreign { .. } => "foreign",
            Self::Contradicted { .. } | Self::NotConverged { .. } => "not_converged",
            Self::NotConfirmed { .. } => "not_confirmed",
            Self::Io { .. } | Self::Output(_) => "io",
        }
    }

    /// The result of the failed command.
    pub(crate) fn failure(&self, invocation: &Invocation) -> ErrorDocument {
        let error = Failed { kind: self.kind(), message: self.to_string(), hint: self.hint(invocation) };
        ErrorDocument { schema: SchemaVersion, error }
    }
}

impl From<&Error> for FailureCause {
    fn from(error: &Error) -> Self {
        match error {
            Error::NotReady { .. }
            | Error::Contradicted { .. }
            | Error::NotConverged { .. }
            | Error::Http { .. }
            | Error::Io { .. }
            | Error::Output(_) => Self::NotReady,
            Error::Answer { status, .. } => Self::Answer(*status),
            Error::Docker { refusal, .. } => Self::Engine(*refusal),
            Error::Publish { .. } => Self::Unpublished,
            Error::Blocked { resource, blocker } => Self::Blocked(*resource, blocker.kind),
            Error::Usage { .. }
            | Error::File { .. }
            | Error::Engine { .. }
            | Error::Raced { .. }
            | Error::Pull { .. }
            | Error::Refused { .. }
            | Error::Forbidden { .. }
            | Error::UpgradeUndone { .. }
            | Error::Absent { .. }
            | Error::Foreign { .. }
            | Error::NotConfirmed { .. }
            | Error::Interrupted { .. } => Self::Other,
        }
    }
}

/// Messages of servers whose disk is full.
#[must_use]
pub fn is_disk_full(message: &str) -> bool {
    let message = message.to_lowercase();
    ["no space left", "disk quota exceeded", "disk is full"].iter().any(|phrase| message.contains(phrase))
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
