//! Reads the newest points that Clipper wrote for every model.
//!
//! The cost of every query is proportional to the number of models, whatever the age of the data.

use std::collections::BTreeMap;

use futures_util::future::{try_join, try_join3};

use super::{Cell, Influxdb, PROBE_TIMEOUT, Series};
use crate::error::Result;
use crate::influxql::{literal, quoted};
use crate::model::reports::{Activity, COUNTER, DEMO_TAG, LATENCY, Model, THROUGHPUT};

/// InfluxDB's own database.
pub const INTERNAL: &str = "_internal";
/// The maximum number of databases searched for Clipper's measurements.
const SEARCHED: usize = 50;
/// How long before the newest report a rate or a latency still counts, in milliseconds. An idle
/// model reports zeros, so an unlimited search for its last latency would read all of its data.
const RECENT: i64 = 600_000;

impl Influxdb {
    /// The newest points of every model in a database, and other databases with Clipper's
    /// measurements if this one has no reports.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub async fn activity(&self, database: &str) -> Result<Activity> {
        let real = format!("{} = {}", quoted(DEMO_TAG), literal(""));
        let (counters, has_demo) =
            try_join(self.newest(database, "value", COUNTER, &real), self.has_demo(database)).await?;
        let mut models = Models::default();
        models.note(&counters, COUNTER, |model, at, _| model.last_report = at);
        let demo = async {
            let of_demo = format!("{} != {}", quoted(DEMO_TAG), literal(""));
            if has_demo { self.newest(database, "value", COUNTER, &of_demo).await } else { Ok(Vec::new()) }
        };
        let mut elsewhere = Vec::new();
        if let Some(last) = models.0.values().filter_map(|model| model.last_report).max() {
            let recent = format!("{real} AND time >= {}ms", last - RECENT);
            let with_samples = format!("{recent} AND \"size\" > 0");
            let (rates, latencies, demo) = try_join3(
                self.newest(database, "rate", THROUGHPUT, &recent),
                self.newest(database, "p99", LATENCY, &with_samples),
                demo,
            )
            .await?;
            models.note(&rates, THROUGHPUT, |model, _, value| model.rate = value);
            models.note(&latencies, LATENCY, |model, _, value| model.p99 = value);
            models.note(&demo, COUNTER, |model, at, _| model.last_demo = at);
        } else {
            models.note(&demo.await?, COUNTER, |model, at, _| model.last_demo = at);
            // This is only additional information: its failure says nothing about this database.
            elsewhere = self.elsewhere(database).await.unwrap_or_default();
        }
        let mut models: Vec<Model> = models.0.into_values().collect();
        models.retain(|model| model.last_report.is_some() || model.last_demo.is_some());
        Ok(Activity { models, elsewhere })
    }

    /// The newest point with `field` in every measurement whose name ends in `suffix`.
    async fn newest(&self, database: &str, field: &str, suffix: &str, condition: &str) -> Result<Vec<Series>> {
        let statement =
            format!("SELECT {} FROM /.{suffix}$/ WHERE {condition} ORDER BY time DESC LIMIT 1", quoted(field));
        self.query(Some(database), &statement).await
    }

    /// Whether the database contains demo points.
    async fn has_demo(&self, database: &str) -> Result<bool> {
        let statement = format!("SHOW TAG VALUES WITH KEY = {} LIMIT 1", quoted(DEMO_TAG));
        Ok(!self.query(Some(database), &statement).await?.is_empty())
    }

    /// Other databases with Clipper's reports.
    ///
    /// # Errors
    /// If the server returns an error or does not answer within [`PROBE_TIMEOUT`].
    pub async fn elsewhere(&self, database: &str) -> Result<Vec<String>> {
        let within = Some(PROBE_TIMEOUT);
        let mut others = self.databases().await?;
        others.retain(|name| name != database && name != INTERNAL);
        others.truncate(SEARCHED);
        if others.is_empty() {
            return Ok(others);
        }
        // `SHOW SERIES … FROM /regex/` would cost the square of the number of measurements.
        let statement =
            |name: &String| format!("SHOW MEASUREMENTS ON {} WITH MEASUREMENT =~ /.{COUNTER}$/ LIMIT 1", quoted(name));
        let statements: Vec<String> = others.iter().map(statement).collect();
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        let answers = self.query_all(None, &statements, within).await?;
        let mut found = Vec::new();
        for (name, _) in others.into_iter().zip(answers).filter(|(_, measurements)| !measurements.is_empty()) {
            let real = format!("{} = {}", quoted(DEMO_TAG), literal(""));
            let statement = format!("SELECT \"value\" FROM /.{COUNTER}$/ WHERE {real} LIMIT 1 SLIMIT 1");
            if !self.query_within(Some(&name), &statement, within).await?.is_empty() {
                found.push(name);
            }
        }
        Ok(found)
    }
}

/// Models by name.
#[derive(Default)]
struct Models(BTreeMap<String, Model>);

impl Models {
    /// Passes the time and value of each series' only row to `take`, with the series' model.
    fn note(&mut self, answer: &[Series], suffix: &str, take: impl Fn(&mut Model, Option<i64>, Option<f64>)) {
        for series in answer {
            let (Some(name), Some(row)) = (series.name.strip_suffix(suffix), series.rows.first()) else { continue };
            let model = self.0.entry(name.into()).or_insert_with(|| Model { name: name.into(), ..Model::default() });
            let at = series.cell(row, "time").and_then(Cell::whole);
            take(model, at, row.get(1).and_then(Cell::number));
        }
    }
}
