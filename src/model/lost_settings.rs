//! Remembered settings that were lost, and the settings that are unknown without them.

use std::fmt;

/// Remembered settings that cannot be used although the instance exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub(crate) cause: Loss,
    /// The settings whose values are in neither this run nor a container.
    pub(crate) unknown: Vec<UnknownSetting>,
}

/// How remembered settings were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// No copy exists.
    Gone,
    /// The copy cannot be read.
    Unreadable,
    /// Some of its values cannot be used.
    Values,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "lost",
            Self::Unreadable => "unreadable",
            Self::Values => "invalid",
        })
    }
}

/// A setting whose remembered value is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownSetting {
    /// The option's name, without dashes.
    pub(crate) option: &'static str,
    /// The placeholder for its value in help.
    pub(crate) value_name: &'static str,
    /// Whether it is the URL of an external server.
    pub(crate) is_server: bool,
    /// Whether it is true or false, so that its value needs `=` and cannot be empty.
    pub(crate) is_flag: bool,
    /// The stored value, if it is invalid.
    pub(crate) stored: Option<String>,
}
