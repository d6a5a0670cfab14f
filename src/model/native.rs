//! Servers from a package manager: how to install them, and how to use those that run on this machine.

use super::address::ServerUrl;
use super::role::{Package, Role, ServerFacts};

/// The kinds of system whose packages differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// macOS with Homebrew.
    MacOs,
    /// Any other system, with its own packages.
    Linux,
}

impl System {
    /// The system that this program runs on.
    pub(crate) const HERE: Self = if cfg!(target_os = "macos") { Self::MacOs } else { Self::Linux };
}

/// The role's package on a system.
#[must_use]
pub(crate) const fn package(role: Role, system: System) -> &'static Package {
    match system {
        System::MacOs => &role.facts().mac_os,
        System::Linux => &role.facts().linux,
    }
}

/// The warning that an external server on loopback also answers at this machine's own address.
#[must_use]
pub(crate) fn exposure(role: Role, url: &ServerUrl, system: System) -> String {
    let ServerFacts { title, exposure, on_loopback, .. } = role.facts();
    let (file, remedy) = (package(role, system).settings_file, on_loopback(url.port));
    format!("{title} also answers at {url}{exposure}; {remedy} ({file}) and restart it")
}
