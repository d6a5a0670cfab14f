//! What Clipper's reports in InfluxDB mean: who reports, how fast, and why nothing may be seen.
//!
//! Knows Clipper's measurements and intervals. Must not know how they were read; it is told the
//! time.

use super::address::bracketed;
use super::role::Role;
use super::stack::Stack;
use super::status::beyond_clipper;

/// Ends the name of a model's counter; before it stands the model.
pub const COUNTER: &str = "_prediction_counter";
/// Ends the name of a model's throughput.
pub const THROUGHPUT: &str = "_model_thruput";
/// Ends the name of a model's latencies.
pub const LATENCY: &str = "_model_latency";
/// The tag that tells demo points from reports.
pub const DEMO_TAG: &str = "clipper_metrics_demo";
/// Clipper's report interval, in milliseconds.
pub const INTERVAL: i64 = 15_000;
/// After so many missed reports a model counts as silent.
const MISSED: i64 = 3;
/// Clocks that differ by more than this are worth a word, in milliseconds.
pub const SKEW: i64 = 60_000;

/// What was read for one model. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// The model's name, as the measurement has it.
    pub name: String,
    /// When it reported last; `None` if only demo points carry its name.
    pub last_report: Option<i64>,
    /// When a demo point was dated last.
    pub last_demo: Option<i64>,
    /// Predictions per second in the last report.
    pub rate: Option<f64>,
    /// The 99th percentile of the last report that had predictions and is recent, in microseconds.
    pub p99: Option<f64>,
}

/// What was read from InfluxDB.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activity {
    /// Every model that has points.
    pub models: Vec<Model>,
    /// Other databases that hold Clipper's measurements, looked up only where ours holds none.
    pub elsewhere: Vec<String>,
}

/// What it means.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reports {
    /// When that was looked at.
    pub at: i64,
    /// Clipper has reported within the last three intervals; `None` where that is not known.
    pub reporting: Option<bool>,
    /// When it reported last.
    pub last_report: Option<i64>,
    /// There are demo points.
    pub demo: bool,
    /// By model.
    pub models: Vec<ModelReport>,
    /// Other databases that hold Clipper's measurements, where ours holds none.
    pub elsewhere: Vec<String>,
    /// What the user can do, if anything is odd.
    pub hints: Vec<String>,
}

/// What is told of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelReport {
    /// The model.
    pub name: String,
    /// When it reported last.
    pub last_report: Option<i64>,
    /// It has reported within the last three intervals.
    pub reporting: bool,
    /// Predictions per second now; `None` if it is silent.
    pub predictions_per_second: Option<f64>,
    /// The 99th percentile of its last predictions, in microseconds.
    pub p99_micros: Option<f64>,
    /// That is above the objective.
    pub above_objective: Option<bool>,
    /// Only demo points carry its name.
    pub demo: bool,
}

/// What the points in InfluxDB mean at the time `now`, in milliseconds since 1970.
#[must_use]
pub fn analyse(activity: &Activity, stack: &Stack, objective: Option<u64>, named: &[String], now: i64) -> Reports {
    let recent = |at: i64| at >= now - MISSED * INTERVAL;
    let last_report = activity.models.iter().filter_map(|model| model.last_report).max();
    let models = activity.models.iter().map(|model| {
        let reporting = model.last_report.is_some_and(recent);
        #[expect(clippy::cast_precision_loss, reason = "an objective of more than 2^52 microseconds is no objective")]
        let above = |p99: f64| objective.map(|objective| p99 > objective as f64);
        ModelReport {
            name: model.name.clone(),
            last_report: model.last_report,
            reporting,
            predictions_per_second: model.rate.filter(|_| reporting),
            p99_micros: model.p99,
            above_objective: model.p99.and_then(above),
            demo: model.last_report.is_none(),
        }
    });
    let models: Vec<ModelReport> = models.collect();
    Reports {
        at: now,
        reporting: Some(last_report.is_some_and(recent)),
        last_report,
        demo: activity.models.iter().any(|model| model.last_demo.is_some()),
        elsewhere: activity.elsewhere.clone(),
        hints: hints(activity, &models, stack, named, last_report, now),
        models,
    }
}

fn hints(
    activity: &Activity,
    models: &[ModelReport],
    stack: &Stack,
    named: &[String],
    last_report: Option<i64>,
    now: i64,
) -> Vec<String> {
    let mut hints = Vec::new();
    let database = &stack.database;
    if let (None, Some(other)) = (last_report, activity.elsewhere.first()) {
        hints.push(format!(
            "database {database} holds no reports, but {} does: set influx_dbname in Clipper's file to {database}, or \
             give --database {other}",
            activity.elsewhere.join(", ")
        ));
    }
    if let Some(why) = beyond_clipper(stack) {
        hints.push(why);
    } else if let Some(target) = &stack.clipper
        && !target.reaches(stack)
    {
        let url = stack.url(Role::Influxdb);
        hints.push(format!(
            "Clipper's file says {}:{}, but InfluxDB is at {}:{}: set influx_ip and influx_port to that",
            bracketed(&target.host),
            target.port,
            bracketed(&url.host),
            url.port
        ));
    }
    if let Some(target) = &stack.clipper
        && !target.database.is_empty()
        && target.database != *database
    {
        hints.push(format!(
            "Clipper's file says database {}, but the dashboard shows {database}: set influx_dbname to that",
            target.database
        ));
    }
    let (impossible, silent): (Vec<String>, Vec<String>) =
        never_reported(models, named).into_iter().partition(|name| is_unreportable(name));
    for name in impossible {
        hints.push(format!(
            "model {name:?} can never be seen: Clipper does not escape the comma in its name, and InfluxDB refuses it"
        ));
    }
    if last_report.is_some() && !silent.is_empty() {
        hints.push(format!("Clipper's file names models that never reported: {}", silent.join(", ")));
    }
    match last_report {
        Some(at) if at > now + SKEW => hints.push(format!(
            "the newest report lies {} in the future: set the clocks of Clipper's machine and this one",
            span(at - now)
        )),
        Some(at) if at < now - MISSED * INTERVAL => hints.push(format!(
            "the newest report is {} old: check that Clipper runs and that its machine's clock is right; `{}` finds out \
             why nothing arrives",
            span(now - at),
            stack.command("doctor")
        )),
        None if activity.elsewhere.is_empty() => hints.push(format!(
            "nothing has arrived from Clipper yet: it writes to {}, database {database}, every 15 s once it runs; if it does, \
             `{}` finds out why nothing arrives, and `{}` shows the dashboard without it",
            stack.url(Role::Influxdb),
            stack.command("doctor"),
            stack.command("demo")
        )),
        _ => {}
    }
    hints
}

/// The models of Clipper's file that have no report, demo data left aside.
#[must_use]
pub fn never_reported(models: &[ModelReport], named: &[String]) -> Vec<String> {
    let known = |name: &str| models.iter().any(|model| model.name == written_name(name) && model.last_report.is_some());
    named.iter().filter(|name| !known(name)).cloned().collect()
}

/// What Clipper makes of a model's name in its measurements: white space becomes `_`.
#[must_use]
pub fn written_name(model: &str) -> String {
    model.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect()
}

/// Clipper does not escape a comma in a model's name, and InfluxDB refuses such lines.
#[must_use]
pub fn is_unreportable(model: &str) -> bool {
    model.contains(',')
}

/// A time span in the largest unit that leaves a number above one.
#[must_use]
pub fn span(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
