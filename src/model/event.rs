//! What happens while a command runs, as data for whoever shows it.
//!
//! Must not know who listens.

use std::time::Duration;

use super::plan::Step;
use super::role::Role;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A step begins.
    Started(&'a Step),
    /// A step is done.
    Done(&'a Step, Duration),
    /// A pull moved on.
    Pulling {
        /// Whose image.
        role: Role,
        /// Layers that are complete, and all that are known so far.
        layers: (usize, usize),
        /// Bytes that have arrived, and all that are known so far.
        bytes: (u64, u64),
    },
    /// Something holds us up that is not one of our steps.
    Waiting(&'a str),
    /// Worth knowing, and nothing is wrong.
    Note(&'a str),
    /// The user should know this.
    Warning(&'a str),
    /// A request was answered; for `-v`. Never holds a secret.
    Request {
        /// Who was asked: `docker`, `influxdb` or `grafana`.
        system: &'static str,
        /// What was asked.
        request: &'a str,
        /// The outcome: a status, or the beginning of an error.
        outcome: &'a str,
        /// How long it took.
        time: Duration,
    },
}

/// Whoever shows events. Interior mutability is the listener's own business: both lanes talk to
/// the same one.
pub trait Listener {
    /// Takes note of one event.
    fn on(&self, event: Event<'_>);
}

/// A step that was executed.
#[derive(Debug, Clone)]
pub struct ExecutedStep {
    /// The step.
    pub step: Step,
    /// Why it was needed.
    pub reason: String,
    /// How long it took.
    pub time: Duration,
}
