//! The address of an engine, and the origin of its choice.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::path::PathBuf;

use crate::model::invocation::{Invocation, shell_word, typed_option};

pub(super) const DEFAULT: &str = "unix:///var/run/docker.sock";

/// The address of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The address in the format of `DOCKER_HOST`.
    pub(crate) host: String,
    /// A folder with `ca.pem`, `cert.pem` and `key.pem`, if TLS is used. In a context, some of these files may be missing.
    pub(crate) certificates: Option<PathBuf>,
    /// The origin of the choice.
    pub(crate) chosen_by: ChosenBy,
    /// Other sockets that exist but do not answer; tried because no engine was chosen and the default
    /// socket does not exist.
    pub(crate) tried: Vec<Tried>,
}

/// A socket that exists but does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tried {
    /// The engine that uses it.
    pub(crate) engine: &'static str,
    pub(crate) path: PathBuf,
    /// The reason why it was not used.
    pub(crate) why: String,
}

impl Display for Tried {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}): {}", self.path.display(), self.engine, self.why)
    }
}

/// The origin of the choice of an engine; its text appears in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChosenBy {
    /// `-H`.
    Option,
    /// `DOCKER_HOST`.
    Variable,
    /// `--context` with a name.
    ContextOption(String),
    /// `DOCKER_CONTEXT` with a name.
    ContextVariable(String),
    /// The current context, chosen with `docker context use`.
    CurrentContext(String),
    /// No choice: the default of `docker`.
    Default,
    /// No choice: the default socket does not exist, and this engine answers.
    Found(&'static str),
}

impl ChosenBy {
    /// Whether an option chose it.
    #[must_use]
    pub(crate) const fn is_option(&self) -> bool {
        matches!(self, Self::Option | Self::ContextOption(_))
    }

    /// Whether an option or a variable of this run chose it.
    #[must_use]
    pub(crate) fn is_this_run(&self) -> bool {
        matches!(self, Self::Option | Self::Variable | Self::ContextOption(_) | Self::ContextVariable(_))
    }

    /// The name of the context that contains it.
    pub(super) fn context(&self) -> Option<&str> {
        match self {
            Self::ContextOption(name) | Self::ContextVariable(name) | Self::CurrentContext(name) => Some(name),
            Self::Option | Self::Variable | Self::Default | Self::Found(_) => None,
        }
    }
}

impl Display for ChosenBy {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option => out.write_str("-H"),
            Self::Variable => out.write_str("DOCKER_HOST"),
            Self::ContextOption(name) => write!(out, "--context {name}"),
            Self::ContextVariable(name) => write!(out, "DOCKER_CONTEXT {name}"),
            Self::CurrentContext(name) => write!(out, "the current Docker context {name}"),
            Self::Default => out.write_str("default"),
            Self::Found(engine) => write!(out, "found, {engine}"),
        }
    }
}

impl Display for Endpoint {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.host, self.chosen_by)
    }
}

impl Endpoint {
    pub(super) fn new(host: &str, chosen_by: ChosenBy) -> Self {
        Self { host: host.into(), certificates: None, chosen_by, tried: Vec::new() }
    }

    /// The options that select this engine in a suggested command; empty if Docker's own configuration selects it. A
    /// variable that was set for one command is easily overlooked, so it counts as an option.
    #[must_use]
    pub(crate) fn options(&self) -> String {
        match &self.chosen_by {
            // `docker` would not find this engine by default.
            ChosenBy::Option | ChosenBy::Variable | ChosenBy::Found(_) => typed_option("-H", &self.host),
            ChosenBy::ContextOption(name) | ChosenBy::ContextVariable(name) => typed_option("--context", name),
            ChosenBy::CurrentContext(_) | ChosenBy::Default => String::new(),
        }
    }

    /// Whether it is reached over ssh.
    #[must_use]
    pub(crate) fn is_ssh(&self) -> bool {
        self.host.starts_with("ssh://")
    }

    /// A command of the engine's own client, for the same engine.
    pub(super) fn docker_command(&self, arguments: &str) -> String {
        Invocation::new(Vec::new(), self.options()).docker(arguments)
    }

    /// The command that gives its context other certificates; `None` if no context contains it.
    pub(super) fn certificates_command(&self) -> Option<String> {
        let files = |name| format!("{},ca=ca.pem,cert=cert.pem,key=key.pem", self.update_command(name));
        self.chosen_by.context().map(files)
    }

    /// The command that changes a context, up to the end of the address. Without certificates, it removes them.
    pub(super) fn update_command(&self, context: &str) -> String {
        format!("docker context update {} --docker host={}", shell_word(context), shell_word(&self.host))
    }

    /// Whether no engine was chosen and one was found at a socket other than the default one.
    #[must_use]
    pub(crate) fn was_found(&self) -> bool {
        matches!(self.chosen_by, ChosenBy::Found(_))
    }

    /// Whether it is the default of `docker`, chosen or not.
    pub(super) fn is_default(&self) -> bool {
        self.host == DEFAULT
    }

    /// The paths of the sockets that an engine of this machine should listen on: its own, the target of
    /// its link, and those that exist but do not answer.
    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        self.own_sockets().chain(self.tried.iter().map(|tried| tried.path.clone())).collect()
    }

    /// The path of its socket, and the target of its link.
    pub(super) fn own_sockets(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let own = self.host.strip_prefix("unix://").map(PathBuf::from);
        let link = own.as_ref().and_then(|own| std::fs::read_link(own).ok());
        own.into_iter().chain(link)
    }

    /// The engine's host, if it is another machine. Engines behind ssh are not considered here.
    pub(super) fn other_machine(&self) -> Option<String> {
        let (scheme, rest) = self.host.split_once("://")?;
        if !matches!(scheme, "tcp" | "http" | "https") {
            return None;
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        // At another address of this machine, a forwarded engine of another one may answer.
        let is_here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
        let is_here = host.is_empty() || host == "localhost" || host.parse().is_ok_and(is_here);
        (!is_here).then(|| host.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_machine_counts_as_another_machine() {
        let at = |host: &str| Endpoint::new(host, ChosenBy::Option).other_machine();
        assert_eq!(at("unix:///var/run/docker.sock"), None);
        assert_eq!(at("tcp://127.0.0.1:2375"), None);
        assert_eq!(at("tcp://[::1]:2375"), None);
        assert_eq!(at("tcp://[fd00::1]:2375").as_deref(), Some("fd00::1"));
        assert_eq!(at("tcp://192.0.2.7:2375").as_deref(), Some("192.0.2.7"));
        assert_eq!([at("tcp://0.0.0.0:2375"), at("tcp://[::]:2375")], [None, None]);
    }
}
