//! Writes a point as Clipper does, reads it back, and removes it.
//!
//! Rejected writes are classified by InfluxDB's messages.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Cell, Influxdb, Series};
use crate::error::{Error, Result};
use crate::influxql::{literal, quoted};
use crate::model::diagnosis::WriteFailure;
use crate::model::reports::{COUNTER, LATENCY, THROUGHPUT};

/// The measurement for probes only; no panel queries it.
pub(crate) const PROBE: &str = "clipper_metrics_probe";
/// The tag that identifies a probe; it starts with its creation time in milliseconds since 1970.
const TAG: &str = "probe";
/// A probe of an interrupted run is removed by another run after this time, in milliseconds.
const ABANDONED: i64 = 60_000;
/// The type of every field that Clipper writes: its numbers carry no suffix.
const FLOAT: &str = "float";

/// The time limit for storing one point.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A retention policy, reduced to its name and duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetentionPolicy {
    pub(crate) name: String,
    /// The retention period as InfluxDB writes it; `0s` means for ever.
    pub(crate) duration: String,
}

impl Influxdb {
    /// Writes a probe with the current time, as Clipper does for its reports.
    ///
    /// # Errors
    /// With the kind of failure and InfluxDB's message.
    pub(crate) async fn write_probe(&self, database: &str, id: &str, now: i64) -> Result<(), (WriteFailure, String)> {
        let line = format!("{PROBE},{TAG}={id} value=1 {}", now.saturating_mul(1_000_000));
        self.write(database, line, WRITE_TIMEOUT).await.map_err(|error| (classify(&error), error.to_string()))
    }

    /// Whether the probe exists.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub(crate) async fn has_probe(&self, database: &str, id: &str) -> Result<bool> {
        Ok(!self.query(Some(database), &probe_question(id)).await?.is_empty())
    }

    /// Removes the probe, and probes left by other runs.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub(crate) async fn remove_probes(&self, database: &str, id: &str, now: i64) -> Result<()> {
        let statement = format!("SHOW TAG VALUES FROM {} WITH KEY = {}", quoted(PROBE), quoted(TAG));
        let found = self.query(Some(database), &statement).await?;
        let ids =
            found.iter().flat_map(|series| series.rows.iter().filter_map(|row| series.cell(row, "value")?.text()));
        let made = |id: &str| id.split('-').next().and_then(|millis| millis.parse::<i64>().ok());
        for found in ids.filter(|found| *found == id || made(found).is_none_or(|made| made < now - ABANDONED)) {
            let condition = format!("{} = {}", quoted(TAG), literal(found));
            self.query(Some(database), &format!("DROP SERIES FROM {} WHERE {condition}", quoted(PROBE))).await?;
        }
        Ok(())
    }

    /// The retention policy for Clipper's points.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub(crate) async fn default_retention(&self, database: &str) -> Result<Option<RetentionPolicy>> {
        let found = self.query(None, &format!("SHOW RETENTION POLICIES ON {}", quoted(database))).await?;
        Ok(found.iter().find_map(|series| {
            let text = |row: &[_], name: &str| Some(series.cell(row, name)?.text()?.to_string());
            let default = series.rows.iter().find(|row| series.cell(row, "default") == Some(&Cell::Flag(true)))?;
            Some(RetentionPolicy { name: text(default, "name")?, duration: text(default, "duration")? })
        }))
    }

    /// A field of Clipper's measurements whose type differs from what Clipper writes, with its
    /// measurement and type; and whether any of Clipper's measurements exist.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub(crate) async fn conflicting_field(&self, database: &str) -> Result<(Option<(String, String, String)>, bool)> {
        // `FROM /regex/` would cost the square of the number of measurements.
        let found = self.query(Some(database), "SHOW FIELD KEYS").await?;
        let of_clipper = |series: &&Series| [COUNTER, THROUGHPUT, LATENCY].iter().any(|end| series.name.ends_with(end));
        let mut any = false;
        for series in found.iter().filter(of_clipper) {
            any = true;
            let mut types: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for row in &series.rows {
                let text = |name: &str| series.cell(row, name).and_then(Cell::text);
                if let (Some(key), Some(kind)) = (text("fieldKey"), text("fieldType")) {
                    types.entry(key).or_default().push(kind);
                }
            }
            let of_clipper = |key: &str| fields_of(&series.name).contains(&key);
            // If a field also exists as float, the other type belongs to older shards.
            let conflict = types.iter().find(|(key, kinds)| of_clipper(key) && !kinds.contains(&FLOAT));
            if let Some((key, kinds)) = conflict {
                return Ok((Some((series.name.clone(), (*key).into(), kinds.join(", "))), true));
            }
        }
        Ok((None, any))
    }
}

/// The query that finds the probe.
#[must_use]
pub(crate) fn probe_question(id: &str) -> String {
    format!("SELECT \"value\" FROM {} WHERE {} = {}", quoted(PROBE), quoted(TAG), literal(id))
}

/// The fields that Clipper writes to a measurement.
fn fields_of(measurement: &str) -> &'static [&'static str] {
    if measurement.ends_with(COUNTER) {
        &["value"]
    } else if measurement.ends_with(THROUGHPUT) {
        &["rate", "one_min", "five_min", "fifteen_min"]
    } else {
        &["size", "min", "max", "mean", "std", "p50", "p95", "p99"]
    }
}

/// The settings that limit a database's content.
const LIMITS: [&str; 2] = ["max-series-per-database", "max-values-per-tag"];

/// The kind of failure of a rejected write.
fn classify(error: &Error) -> WriteFailure {
    let (status, message) = match error {
        Error::Answer { status, why, .. } => (*status, why.to_lowercase()),
        Error::Refused { .. } | Error::Forbidden { .. } => return WriteFailure::Login,
        Error::Http { .. } => return WriteFailure::Unreachable,
        _ => return WriteFailure::Other,
    };
    let says = |phrase: &str| message.contains(phrase);
    if says("database not found") || status == 404 {
        WriteFailure::NoDatabase
    } else if says("no space left") {
        WriteFailure::DiskFull
    } else if let Some(limit) = LIMITS.into_iter().find(|limit| says(limit)) {
        WriteFailure::Limit(limit)
    } else if says("retention policy") {
        WriteFailure::BeyondRetention
    } else if says("field type conflict") {
        WriteFailure::FieldType
    } else {
        WriteFailure::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_rejected_writes_are_classified() {
        for (status, why, failure) in [
            (404, "database not found: \"x\"", WriteFailure::NoDatabase),
            (500, "engine: error writing WAL entry: write /x: no space left on device", WriteFailure::DiskFull),
            (
                400,
                "partial write: max-series-per-database limit exceeded: (1) dropped=1",
                WriteFailure::Limit("max-series-per-database"),
            ),
            (
                400,
                "partial write: max-values-per-tag limit exceeded (3/3): measurement=\"p\" tag=\"probe\" dropped=1",
                WriteFailure::Limit("max-values-per-tag"),
            ),
            (400, "partial write: points beyond retention policy dropped=1", WriteFailure::BeyondRetention),
            (400, "partial write: field type conflict: input field \"value\" on …", WriteFailure::FieldType),
            (500, "timeout", WriteFailure::Other),
        ] {
            let error = Error::Answer { doing: "write".into(), url: "http://x".into(), status, why: why.into() };
            assert_eq!(classify(&error), failure, "{why}");
        }
    }

    #[test]
    fn an_id_cannot_end_its_quotes() {
        assert!(probe_question("a' OR 1=1").ends_with(r"= 'a\' OR 1=1'"));
    }
}
