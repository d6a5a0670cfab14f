//! Events of a running command, as data for the output.

use std::time::Duration;

use super::plan::Step;
use super::role::Role;

#[derive(Debug, Clone)]
pub(crate) enum Event<'a> {
    Started(&'a Step),
    /// A step has finished.
    Done(&'a Step, Duration),
    /// A pull has made progress.
    Pulling {
        /// The role whose image is pulled.
        role: Role,
        /// Complete layers, and all layers known so far.
        layers: (usize, usize),
        /// Bytes received, and all bytes known so far.
        bytes: (u64, u64),
    },
    /// The run waits for something that is not one of its steps.
    Waiting(&'a str),
    /// An external server takes longer than usual to answer. Every observation reports it.
    Slow {
        role: Role,
        url: &'a str,
    },
    /// Information; nothing is wrong.
    Note(&'a str),
    /// A warning for the user.
    Warning(&'a str),
    /// A request was answered; shown by `-v`. Never contains a secret.
    Request {
        /// The server: `docker`, `influxdb` or `grafana`.
        system: &'static str,
        request: &'a str,
        /// The outcome: a status, or the start of an error message.
        outcome: &'a str,
        /// How long it took.
        time: Duration,
    },
}

/// Receives events. Both lanes share one listener, so it needs interior mutability.
pub(crate) trait Listener {
    /// Handles one event.
    fn on(&self, event: Event<'_>);
}

/// A listener of unit tests that drops all events.
#[cfg(test)]
pub(crate) struct Silent;

#[cfg(test)]
impl Listener for Silent {
    fn on(&self, _: Event<'_>) {}
}

/// A step that was executed.
#[derive(Debug, Clone)]
pub(crate) struct ExecutedStep {
    pub(crate) step: Step,
    /// Why it was needed.
    pub(crate) reason: String,
    /// How long it took.
    pub(crate) time: Duration,
}
