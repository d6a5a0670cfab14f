//! Grafana's alert rules for Clipper, and their settings.

use std::collections::BTreeMap;
use std::time::Duration;

use super::container_config::Difference;
use super::observed::ActualRule;

/// The unit after the objective.
const MICROS: &str = " µs";

/// The desired state of the alert rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alerts {
    /// No setting mentions them: existing rules are ignored.
    NotManaged,
    /// The instance has no rules.
    Off,
    /// The instance has rules with these settings.
    On(AlertSettings),
}

impl Alerts {
    /// The rules' settings, if the rules are on.
    #[must_use]
    pub(crate) const fn settings(&self) -> Option<&AlertSettings> {
        match self {
            Self::On(settings) => Some(settings),
            Self::NotManaged | Self::Off => None,
        }
    }
}

/// The settings of the alert rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AlertSettings {
    /// How long a p99 must stay above the objective.
    pub latency_after: Duration,
    /// How long a model must be silent.
    pub silence_after: Duration,
    /// Fingerprint of the rules; every version has its own.
    pub content_hash: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlertRule {
    /// A model's p99 is above the latency objective.
    Latency,
    /// A model that used to report has stopped.
    Silence,
}

/// An alert rule to save.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NewRule {
    pub rule: AlertRule,
    pub settings: AlertSettings,
    /// The latency objective in microseconds.
    pub objective: u64,
    /// The rule that it replaces, as observed; a missing one is created by the same plan.
    pub replaces: ActualRule,
}

impl AlertRule {
    /// Both rules.
    pub(crate) const ALL: [Self; 2] = [Self::Latency, Self::Silence];

    /// The name in JSON and identifiers.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Silence => "silence",
        }
    }

    /// The rule's title in Grafana.
    #[must_use]
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Latency => "p99 above the objective",
            Self::Silence => "a model has gone silent",
        }
    }
}

impl AlertSettings {
    /// How long the condition of a rule must hold before it fires.
    #[must_use]
    pub(crate) const fn after(&self, rule: AlertRule) -> Duration {
        match rule {
            AlertRule::Latency => self.latency_after,
            AlertRule::Silence => self.silence_after,
        }
    }

    /// The objective from which a rule was created, in microseconds.
    #[must_use]
    pub(crate) fn objective(fields: &BTreeMap<String, String>) -> Option<u64> {
        fields.get("objective")?.strip_suffix(MICROS)?.parse().ok()
    }

    /// The configuration of a rule, as one text for each field; the objective is in microseconds.
    #[must_use]
    pub fn fields(&self, rule: AlertRule, objective: u64) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::from([
            (Difference::EDITION.to_string(), self.content_hash.clone()),
            ("after".to_string(), format!("{} s", self.after(rule).as_secs())),
        ]);
        if rule == AlertRule::Latency {
            fields.insert("objective".to_string(), format!("{objective}{MICROS}"));
        }
        fields
    }
}
