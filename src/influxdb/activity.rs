//! Reads the newest points that Clipper wrote for every model.
//!
//! The cost of every query is proportional to the number of models, whatever the age of the data.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::future::try_join3;
use serde::Deserialize;

use super::{Cell, Influxdb, PROBE_TIMEOUT};
use crate::error::Result;
use crate::influxql::{literal, quoted};
use crate::model::reports::{Activity, COUNTER, DEMO_TAG, INTERVAL, LATENCY, Model};

/// InfluxDB's own database.
pub const INTERNAL: &str = "_internal";
/// The maximum number of databases searched for Clipper's measurements.
const SEARCHED: usize = 50;
/// How long before the newest report a latency still counts, in milliseconds. An idle
/// model reports zeros, so an unlimited search for its last latency would read all of its data.
const RECENT: i64 = 600_000;
/// Clipper's report interval in seconds.
#[expect(clippy::cast_precision_loss, reason = "a few seconds")]
const SECONDS: f64 = INTERVAL as f64 / 1e3;

/// The newest point of a measurement: its time, and the value of one field.
#[derive(Deserialize)]
struct Newest {
    name: String,
    values: ((i64, Cell),),
}

impl Newest {
    /// When it was written.
    const fn at(&self) -> i64 {
        self.values.0.0
    }
}

impl Influxdb {
    /// The newest points of every model in a database, and other databases with Clipper's
    /// measurements if this one has no reports. `now` is the time in milliseconds since 1970.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub async fn activity(&self, database: &str, now: i64) -> Result<Activity> {
        let real = format!("{} = {}", quoted(DEMO_TAG), literal(""));
        let latencies = |since: i64| {
            let condition = format!("{real} AND time >= {since}ms AND \"size\" > 0");
            async move { self.newest(database, "p99", LATENCY, &condition).await }
        };
        // If Clipper is reporting, this is early enough, and one more answer in parallel costs no time.
        let early = now - 2 * RECENT;
        let counters = self.newest(database, "value", COUNTER, &real);
        let (counters, mut found, has_demo) = try_join3(counters, latencies(early), self.has_demo(database)).await?;
        let mut models = Models::default();
        models.note(&counters, COUNTER, |model, point| {
            model.last_report = Some(point.at());
            // The count since the previous report; asking for the rate would take as long as for the count.
            model.rate = point.values.0.1.number().map(|count| count / SECONDS);
        });
        let mut elsewhere = Vec::new();
        if let Some(last) = counters.iter().map(Newest::at).max() {
            let since = last - RECENT;
            if since < early {
                found = latencies(since).await?;
            }
            found.retain(|point| point.at() >= since);
            models.note(&found, LATENCY, |model, point| model.p99 = point.values.0.1.number());
        } else {
            // This is only additional information: its failure says nothing about this database.
            elsewhere = self.elsewhere(database).await.unwrap_or_default();
        }
        if has_demo {
            let of_demo = format!("{} != {}", quoted(DEMO_TAG), literal(""));
            let demo = self.newest(database, "value", COUNTER, &of_demo).await?;
            models.note(&demo, COUNTER, |model, point| model.last_demo = Some(point.at()));
        }
        let mut models: Vec<Model> = models.0.into_values().collect();
        models.retain(|model| model.last_report.is_some() || model.last_demo.is_some());
        Ok(Activity { models, elsewhere })
    }

    /// The newest point with `field` in every measurement whose name ends in `suffix`.
    async fn newest(&self, database: &str, field: &str, suffix: &str, condition: &str) -> Result<Vec<Newest>> {
        let statement =
            format!("SELECT {} FROM /.{suffix}$/ WHERE {condition} ORDER BY time DESC LIMIT 1", quoted(field));
        Ok(self.results(Some(database), &[&statement], None).await?.into_iter().next().unwrap_or_default())
    }

    /// Whether the database contains demo points.
    async fn has_demo(&self, database: &str) -> Result<bool> {
        let statement = format!("SHOW TAG VALUES WITH KEY = {} LIMIT 1", quoted(DEMO_TAG));
        Ok(!self.query(Some(database), &statement).await?.is_empty())
    }

    /// Other databases with Clipper's reports.
    ///
    /// # Errors
    /// If the server returns an error or does not answer within [`PROBE_TIMEOUT`]. Databases that are not
    /// searched by then are left out.
    pub async fn elsewhere(&self, database: &str) -> Result<Vec<String>> {
        let started = Instant::now();
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
        let answers = self.query_all(None, &statements, Some(PROBE_TIMEOUT)).await?;
        let mut found = Vec::new();
        for (name, _) in others.into_iter().zip(answers).filter(|(_, measurements)| !measurements.is_empty()) {
            let real = format!("{} = {}", quoted(DEMO_TAG), literal(""));
            let statement = format!("SELECT \"value\" FROM /.{COUNTER}$/ WHERE {real} LIMIT 1 SLIMIT 1");
            let left = PROBE_TIMEOUT.saturating_sub(started.elapsed());
            if left.is_zero() {
                break;
            }
            // A failure says nothing about other databases.
            if self.query_within(Some(&name), &statement, Some(left)).await.is_ok_and(|found| !found.is_empty()) {
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
    /// Passes each point to `take`, with its model.
    fn note(&mut self, points: &[Newest], suffix: &str, take: impl Fn(&mut Model, &Newest)) {
        for point in points {
            let Some(name) = point.name.strip_suffix(suffix) else { continue };
            let model = self.0.entry(name.into()).or_insert_with(|| Model { name: name.into(), ..Model::default() });
            take(model, point);
        }
    }
}
