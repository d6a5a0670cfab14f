//! Reads what Clipper wrote: the newest points of every model.
//!
//! Must not decide what they mean; that is `core::reports`.

use serde_json::Value;

use super::{Influxdb, Series};
use crate::core::reports::{Activity, COUNTER, DEMO_TAG, LATENCY, Model, THROUGHPUT};
use crate::error::Result;
use crate::systems::influxql::{literal, quoted};

/// InfluxDB's own database.
pub const INTERNAL: &str = "_internal";
/// The most databases that are searched for measurements of Clipper's.
const SEARCHED: usize = 50;

impl Influxdb {
    /// The newest points of every model in a database, and where else Clipper's measurements are
    /// if there are none here.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn activity(&self, database: &str) -> Result<Activity> {
        let newest = |field: &str, suffix: &str, which: &str| {
            format!("SELECT {} FROM /.{suffix}$/ WHERE {which} ORDER BY time DESC LIMIT 1", quoted(field))
        };
        let tag = quoted(DEMO_TAG);
        let (real, demo) = (format!("{tag} = ''"), format!("{tag} != ''"));
        let statements = [
            newest("value", COUNTER, &real),
            newest("value", COUNTER, &demo),
            newest("rate", THROUGHPUT, &real),
            newest("p99", LATENCY, &format!("\"size\" > 0 AND {real}")),
        ];
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        let mut answers = self.query_all(Some(database), &statements).await?.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        let mut models = Models::default();
        for series in next() {
            models.note(&series, COUNTER, |model, at, _| model.last_report = at);
        }
        for series in next() {
            models.note(&series, COUNTER, |model, at, _| model.last_demo = at);
        }
        for series in next() {
            models.note(&series, THROUGHPUT, |model, _, value| model.rate = value);
        }
        for series in next() {
            models.note(&series, LATENCY, |model, _, value| model.p99 = value);
        }
        let mut models = models.0;
        models.retain(|model| model.last_report.is_some() || model.last_demo.is_some());
        models.sort_by(|one, other| one.name.cmp(&other.name));
        let elsewhere = if models.iter().any(|model| model.last_report.is_some()) {
            Vec::new()
        } else {
            self.elsewhere(database).await?
        };
        Ok(Activity { models, elsewhere })
    }

    /// Other databases with reports of Clipper's.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn elsewhere(&self, database: &str) -> Result<Vec<String>> {
        let mut others = self.databases().await?;
        others.retain(|name| name != database && name != INTERNAL);
        others.truncate(SEARCHED);
        if others.is_empty() {
            return Ok(others);
        }
        let real = format!("{} = {}", quoted(DEMO_TAG), literal(""));
        let statement =
            |name: &String| format!("SHOW SERIES ON {} FROM /.{COUNTER}$/ WHERE {real} LIMIT 1", quoted(name));
        let statements: Vec<String> = others.iter().map(statement).collect();
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        let answers = self.query_all(None, &statements).await?;
        let found = others.into_iter().zip(answers).filter(|(_, series)| !series.is_empty());
        Ok(found.map(|(name, _)| name).collect())
    }
}

/// Models by name, in the order in which they were met.
#[derive(Default)]
struct Models(Vec<Model>);

impl Models {
    /// Hands the one row of a series to whoever wants it, with its time.
    fn note(&mut self, series: &Series, suffix: &str, take: impl FnOnce(&mut Model, Option<i64>, Option<f64>)) {
        let Some(name) = series.name.strip_suffix(suffix) else { return };
        let Some(row) = series.rows.first() else { return };
        let at = series.cell(row, "time").and_then(Value::as_i64);
        let value = row.get(1).and_then(Value::as_f64);
        let name = name.to_string();
        let index = self.0.iter().position(|model| model.name == name).unwrap_or_else(|| {
            self.0.push(Model { name, ..Model::default() });
            self.0.len() - 1
        });
        take(&mut self.0[index], at, value);
    }
}
