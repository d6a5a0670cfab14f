//! Grafana's alert rules for Clipper: which there are, and what somebody may choose about them.
//!
//! Must not know how a rule is written, nor how Grafana stores it.

use std::collections::BTreeMap;
use std::time::Duration;

/// Stands behind the objective.
const MICROS: &str = " µs";

/// What is said about alert rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alerts {
    /// Nothing: they are not looked at.
    NotManaged,
    /// There are to be none of ours.
    Off,
    /// These are to be there.
    On(AlertSettings),
}

impl Alerts {
    /// What the rules are to be, where there are to be any.
    #[must_use]
    pub const fn settings(&self) -> Option<&AlertSettings> {
        match self {
            Self::On(settings) => Some(settings),
            Self::NotManaged | Self::Off => None,
        }
    }
}

/// What somebody may choose about alert rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertSettings {
    /// How long a p99 must be above the objective.
    pub latency_after: Duration,
    /// How long a model must not have reported.
    pub silence_after: Duration,
    /// Fingerprint of the rules: differs for every other version of them.
    pub edition: String,
}

/// One of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlertRule {
    /// A model's p99 is above the latency objective.
    Latency,
    /// A model that has reported does so no more.
    Silence,
}

impl AlertRule {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Latency, Self::Silence];

    /// For machines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Silence => "silence",
        }
    }

    /// What the rule is called in Grafana.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Latency => "p99 above the objective",
            Self::Silence => "a model has gone silent",
        }
    }
}

impl AlertSettings {
    /// How long the condition of a rule must hold before it fires.
    #[must_use]
    pub const fn after(&self, rule: AlertRule) -> Duration {
        match rule {
            AlertRule::Latency => self.latency_after,
            AlertRule::Silence => self.silence_after,
        }
    }

    /// The objective that a rule was made from, in microseconds.
    #[must_use]
    pub fn objective(fields: &BTreeMap<String, String>) -> Option<u64> {
        fields.get("objective")?.strip_suffix(MICROS)?.parse().ok()
    }

    /// What a rule is made from, one text for each field; the objective in microseconds.
    #[must_use]
    pub fn fields(&self, rule: AlertRule, objective: u64) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::from([
            ("edition".to_string(), self.edition.clone()),
            ("after".to_string(), format!("{} s", self.after(rule).as_secs())),
        ]);
        if rule == AlertRule::Latency {
            fields.insert("objective".to_string(), format!("{objective}{MICROS}"));
        }
        fields
    }
}
