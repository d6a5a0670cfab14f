//! Reads the newest points that Clipper wrote for every model.
//!
//! The cost of every query is proportional to the number of models, whatever the age of the data; only for models that
//! stopped more than a week ago, InfluxDB opens every shard.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use serde::Deserialize;

use super::{Cell, Influxdb, PROBE_TIMEOUT};
use crate::clock::now;
use crate::error::Result;
use crate::influxql::{literal, quoted};
use crate::model::reports::{Activity, COUNTER, DEMO_TAG, INTERVAL, LATENCY, Model, SKEW};

/// InfluxDB's own database.
pub(crate) const INTERNAL: &str = "_internal";
/// The maximum number of databases searched for Clipper's measurements.
const SEARCHED: usize = 50;
/// How long before the newest report a latency still counts, in milliseconds. An idle
/// model reports zeros, so an unlimited search for its last latency would read all of its data.
const RECENT: i64 = 600_000;
/// How far back the newest counters are searched, by InfluxDB's own clock, until a model has one; without a limit at last.
const WINDOWS: [Option<&str>; 3] = [Some("1h"), Some("7d"), None];
/// The points of one report have the same time. Later points belong to the next report, in milliseconds.
const SAME_REPORT: i64 = 1_000;
/// The number of measurements in one query, which bounds the size of its answer.
const MEASUREMENTS: usize = 500;
/// The number of such queries at the same time; InfluxDB executes each on one processor.
const AT_ONCE: usize = 4;
/// Clipper's report interval in seconds.
#[expect(clippy::cast_precision_loss, reason = "a few seconds")]
const SECONDS: f64 = INTERVAL as f64 / 1e3;

/// The models of a database by their names.
type Models = BTreeMap<String, Model>;

/// The result of `SHOW MEASUREMENTS`.
#[derive(Deserialize)]
struct Names {
    values: Vec<(String,)>,
}

/// The newest point of a series: its time, and the value of one field.
#[derive(Deserialize)]
struct Newest {
    name: String,
    tags: Option<Tags>,
    values: ((i64, Cell),),
}

#[derive(Deserialize)]
struct Tags {
    /// Empty for Clipper's own points.
    #[serde(rename = "clipper_metrics_demo")]
    demo: String,
}

impl Newest {
    /// When it was written.
    const fn at(&self) -> i64 {
        self.values.0.0
    }

    fn number(&self) -> Option<f64> {
        self.values.0.1.number()
    }

    fn is_demo(&self) -> bool {
        self.tags.as_ref().is_some_and(|tags| !tags.demo.is_empty())
    }
}

impl Influxdb {
    /// The newest points of every model in a database, and other databases with Clipper's
    /// measurements if this one has no reports.
    ///
    /// # Errors
    /// If the server returns an error or does not answer. Latencies that cannot be read are left out, with the reason.
    pub(crate) async fn activity(&self, database: &str) -> Result<Activity> {
        let mut models = self.models(database).await?;
        self.read_counters(database, &mut models).await?;
        models.retain(|_, model| model.last_report.is_some() || model.last_demo.is_some());
        let (mut elsewhere, mut incomplete) = (Vec::new(), None);
        if let Some(last) = newest_report(models.values(), now()) {
            incomplete = self.read_latencies(database, &mut models, last).await.err().map(|error| error.to_string());
        } else {
            // This is only additional information: its failure says nothing about this database.
            elsewhere = self.elsewhere(database).await.unwrap_or_default();
        }
        Ok(Activity { models: models.into_values().collect(), elsewhere, incomplete })
    }

    /// Every model with a counter, by its name.
    async fn models(&self, database: &str) -> Result<Models> {
        let statement = format!("SHOW MEASUREMENTS WITH MEASUREMENT =~ /.{COUNTER}$/");
        let found = self.results::<Names>(Some(database), &[&statement], None).await?;
        let names = found.into_iter().flatten().flat_map(|found| found.values);
        let model = |(name,): (String,)| {
            let name = name.strip_suffix(COUNTER)?.to_string();
            Some((name.clone(), Model { name, ..Model::default() }))
        };
        Ok(names.filter_map(model).collect())
    }

    /// Reads the newest report and the newest demo point of each model.
    async fn read_counters(&self, database: &str, models: &mut Models) -> Result<()> {
        let by_tag = format!("GROUP BY {}", quoted(DEMO_TAG));
        // InfluxDB opens every shard for an unlimited query.
        for window in WINDOWS {
            let since = window.map_or_else(String::new, |window| format!("WHERE time > now() - {window} "));
            let clauses = format!("{since}{by_tag}");
            let missing: Vec<String> =
                models.values().filter(|model| model.last_report.is_none()).map(|model| model.name.clone()).collect();
            let counters = self.newest(database, "value", COUNTER, missing.iter(), &clauses).await;
            for point in counters.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
                let Some(model) = model_of(models, &point, COUNTER) else { continue };
                if point.is_demo() {
                    model.last_demo = model.last_demo.max(Some(point.at()));
                } else {
                    model.add_report(&point);
                }
            }
        }
        self.replace_future_reports(database, models).await
    }

    /// Replaces reports from the future, written while a clock was ahead, by the newest earlier ones. InfluxDB's clock
    /// decides, too, because this machine's may be behind. A model without earlier reports keeps the later one.
    async fn replace_future_reports(&self, database: &str, models: &mut Models) -> Result<()> {
        let here = now() + SKEW;
        for model in models.values_mut() {
            model.ahead = model.last_report.filter(|at| *at > here);
        }
        if models.values().all(|model| model.ahead.is_none()) {
            return Ok(());
        }
        let until = self.clock().await?.map_or(here, |there| here.max(there + SKEW));
        let is_later = |model: &&Model| model.last_report.is_some_and(|at| at > until);
        let real = format!("WHERE {} = {} AND time <= {until}ms", quoted(DEMO_TAG), literal(""));
        for window in WINDOWS {
            let since = window.map_or_else(String::new, |window| format!(" AND time > now() - {window}"));
            let names: Vec<String> = models.values().filter(is_later).map(|model| model.name.clone()).collect();
            for found in self.newest(database, "value", COUNTER, names.iter(), &format!("{real}{since}")).await {
                for point in found? {
                    if let Some(model) = model_of(models, &point, COUNTER) {
                        model.add_report(&point);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads the recent latencies of models. After an error, the answers that arrived are kept.
    async fn read_latencies(&self, database: &str, models: &mut Models, last_report: i64) -> Result<()> {
        // Counted from the newest report, because this machine's clock may be wrong.
        let since = last_report - RECENT;
        let until = last_report + SAME_REPORT;
        let real = format!("{} = {}", quoted(DEMO_TAG), literal(""));
        let condition = format!("WHERE {real} AND time >= {since}ms AND time < {until}ms");
        // Comparing a second field takes InfluxDB half as long again. The newest report of an active model has a
        // latency, an idle model reports zeros.
        let with_samples = format!("{condition} AND \"size\" > 0");
        for (clauses, is_active) in [(&condition, true), (&with_samples, false)] {
            let recent = models.values().filter(|model| model.last_report >= Some(since) && model.p99.is_none());
            let names: Vec<String> =
                recent.filter(|model| !is_active || model.rate > Some(0.0)).map(|model| model.name.clone()).collect();
            let (found, failed): (Vec<_>, Vec<_>) =
                self.newest(database, "p99", LATENCY, names.iter(), clauses).await.into_iter().partition(Result::is_ok);
            for point in found.into_iter().flatten().flatten() {
                if let Some(model) = model_of(models, &point, LATENCY) {
                    model.p99 = point.number().filter(|p99| *p99 > 0.0);
                }
            }
            if let Some(failed) = failed.into_iter().next() {
                return failed.map(drop);
            }
        }
        Ok(())
    }

    /// The newest point with `field` in the measurements of these models, one result for each of several queries.
    async fn newest<'a>(
        &self,
        database: &str,
        field: &str,
        suffix: &str,
        models: impl Iterator<Item = &'a String>,
        clauses: &str,
    ) -> Vec<Result<Vec<Newest>>> {
        // Names instead of a pattern, which InfluxDB would match with every measurement in each query.
        let measurements: Vec<String> = models.map(|model| quoted(&format!("{model}{suffix}"))).collect();
        let queries = measurements.chunks(MEASUREMENTS).map(|some| {
            let statement =
                format!("SELECT {} FROM {} {clauses} ORDER BY time DESC LIMIT 1", quoted(field), some.join(", "));
            async move {
                let found = self.results(Some(database), &[&statement], None).await?;
                Ok(found.into_iter().next().unwrap_or_default())
            }
        });
        stream::iter(queries).buffer_unordered(AT_ONCE).collect().await
    }

    /// Other databases with Clipper's reports.
    ///
    /// # Errors
    /// If the server returns an error or does not answer within [`PROBE_TIMEOUT`]. Databases that are not
    /// searched by then are left out.
    pub(crate) async fn elsewhere(&self, database: &str) -> Result<Vec<String>> {
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

/// The newest report of any model. One from the future, whose clock was ahead for a while, counts only if all are: this
/// machine's clock may be behind.
fn newest_report<'a>(models: impl Iterator<Item = &'a Model>, now: i64) -> Option<i64> {
    let reports: Vec<i64> = models.filter_map(|model| model.last_report).collect();
    let past = reports.iter().copied().filter(|at| *at <= now + RECENT).max();
    past.or_else(|| reports.into_iter().max())
}

impl Model {
    fn add_report(&mut self, point: &Newest) {
        self.last_report = Some(point.at());
        // The count since the previous report; asking for the rate would take as long as for the count.
        self.rate = point.number().map(|count| count / SECONDS);
    }
}

fn model_of<'a>(models: &'a mut Models, point: &Newest, suffix: &str) -> Option<&'a mut Model> {
    models.get_mut(point.name.strip_suffix(suffix)?)
}
