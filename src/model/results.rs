//! The results of commands that have no model of their own. Serialized, they are JSON documents of schema 1: fields may
//! be added but never renamed, appear in the order of their declaration, and unknown values are `null`.

use serde::Serialize;

use super::diagnosis::Diagnosis;
use super::export::Exported;
use super::instances::Instances;
use super::schema::{SchemaVersion, Seconds};
use super::status::Status;
use super::text::count;

/// One document of any command.
#[derive(Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(title = "clipper-metrics --output json"))]
#[serde(untagged)]
pub(crate) enum Document<'a> {
    /// `status`, `up` and `down`.
    State(&'a Status),
    /// `status --all`.
    Instances(&'a Instances),
    /// `backup`.
    BackedUp(&'a BackedUp),
    /// `export`.
    Exported(&'a Exported),
    /// `doctor`.
    Diagnosed(&'a Diagnosis),
    /// `demo`.
    Sent(&'a Sent),
    /// `demo --clear`.
    Cleared(&'a Cleared),
    /// `logs`: one line of a server's log.
    LogLine(&'a LogLine<'a>),
    /// Any command that failed.
    Failure(&'a ErrorDocument),
}

impl Document<'_> {
    /// The result in a few sentences, unless it is shown as a table.
    pub(crate) fn sentence(&self) -> Option<String> {
        match self {
            Self::BackedUp(backup) => Some(backup.sentence()),
            Self::Exported(exported) => Some(exported.sentence()),
            Self::Sent(sent) => Some(sent.sentence()),
            Self::Cleared(cleared) => Some(cleared.sentence()),
            Self::LogLine(log) => Some(log.line.into()),
            Self::State(_) | Self::Instances(_) | Self::Diagnosed(_) | Self::Failure(_) => None,
        }
    }
}

/// The result of `backup`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct BackedUp {
    pub(crate) schema: SchemaVersion,
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) seconds: Seconds,
    pub(crate) instance: String,
    /// InfluxDB's version.
    pub(crate) influxdb: String,
    /// Grafana's version.
    pub(crate) grafana: String,
    /// The command that creates an instance from it.
    #[serde(skip)]
    pub(crate) restore: String,
}

impl BackedUp {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    fn sentence(&self) -> String {
        let Self { instance, file, bytes, seconds, restore, .. } = self;
        format!(
            "saved {instance} to {file}: {:.1} MB in {seconds}\n\
             It contains Grafana's users and passwords: keep it private. `{restore}` creates another instance from it.",
            *bytes as f64 / 1e6,
        )
    }
}

/// The result of `demo`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Sent {
    pub(crate) schema: SchemaVersion,
    pub(crate) points: usize,
    pub(crate) reports: usize,
    pub(crate) seconds: Seconds,
    pub(crate) database: String,
    #[serde(skip)]
    pub(crate) models: usize,
    /// The dashboard that shows them.
    #[serde(skip)]
    pub(crate) dashboard_url: String,
    /// The command that removes them.
    #[serde(skip)]
    pub(crate) clear: String,
}

impl Sent {
    fn sentence(&self) -> String {
        let Self { points, reports, models, database, seconds, dashboard_url, clear, .. } = self;
        format!(
            "sent {} in {} from {} to database {database} in {seconds}\n\
             Dashboard: {dashboard_url}\n`{clear}` removes the demo data.",
            count(*points, "point"),
            count(*reports, "report"),
            count(*models, "model"),
        )
    }
}

/// The result of `demo --clear`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Cleared {
    pub(crate) schema: SchemaVersion,
    pub(crate) removed_series: usize,
    pub(crate) database: String,
}

impl Cleared {
    fn sentence(&self) -> String {
        match self {
            Self { removed_series: 0, database, .. } => format!("database {database} contains no demo data"),
            Self { removed_series: series, database, .. } => {
                format!("removed all demo data from database {database} ({series} series)")
            }
        }
    }
}

/// A line that a server logged.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LogLine<'a> {
    pub(crate) schema: SchemaVersion,
    /// `influxdb` or `grafana`.
    pub(crate) server: &'static str,
    pub(crate) line: &'a str,
}

/// A command that failed.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Failure"))]
pub(crate) struct ErrorDocument {
    pub(crate) schema: SchemaVersion,
    pub(crate) error: Failed,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Failed {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    /// The next command to type; empty if none helps.
    pub(crate) hint: String,
}
