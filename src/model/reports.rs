//! Interprets Clipper's reports in InfluxDB: which models report, how fast they are, and why there
//! may be no data.

use serde::{Serialize, Serializer};

use super::clipper_file::beyond_clipper;
use super::date::rfc3339;
use super::role::Role;
use super::stack::Stack;

/// The suffix of a model's counter in measurement names.
pub(crate) const COUNTER: &str = "_prediction_counter";
/// The suffix of a model's throughput.
pub(crate) const THROUGHPUT: &str = "_model_thruput";
/// The suffix of a model's latencies.
pub(crate) const LATENCY: &str = "_model_latency";
/// The tag that distinguishes demo points from reports.
pub(crate) const DEMO_TAG: &str = "clipper_metrics_demo";
/// Clipper's report interval, in milliseconds.
pub(crate) const INTERVAL: i64 = 15_000;
/// After this many missed reports a model counts as silent.
const MISSED: i64 = 3;
/// Clocks that differ by more than this are reported, in milliseconds.
pub(crate) const SKEW: i64 = 60_000;

/// The data of one model. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Model {
    /// The model's name in its measurements.
    pub(crate) name: String,
    /// When it last reported; `None` if only demo points carry its name.
    pub(crate) last_report: Option<i64>,
    /// The time of its newest report, if that is later than this machine's clock by more than [`SKEW`]. It is also the
    /// last report if there is no earlier one.
    pub(crate) ahead: Option<i64>,
    /// The time of its newest demo point.
    pub(crate) last_demo: Option<i64>,
    /// Predictions per second before the last report.
    pub(crate) rate: Option<f64>,
    /// The 99th percentile of the last report that had predictions and is recent, in microseconds.
    pub(crate) p99: Option<f64>,
}

/// The data read from InfluxDB.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Activity {
    /// Every model with points.
    pub(crate) models: Vec<Model>,
    /// Other databases with Clipper's measurements, searched only if the instance's database has none.
    pub(crate) elsewhere: Vec<String>,
    /// The reason why some latencies are unknown.
    pub(crate) incomplete: Option<String>,
}

/// Clipper's reports.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Clipper"))]
pub(crate) struct Reports {
    /// When the data was read.
    #[serde(skip)]
    pub(crate) at: i64,
    /// A report arrived within the last three intervals.
    pub(crate) reporting: Option<bool>,
    /// RFC 3339.
    #[serde(serialize_with = "date")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) last_report: Option<i64>,
    /// The database contains demo data.
    pub(crate) demo: bool,
    pub(crate) models: Vec<ModelReport>,
    /// Other databases with Clipper's measurements, if the instance's database has none.
    #[serde(skip)]
    pub(crate) elsewhere: Vec<String>,
    /// What the user can do about irregularities.
    #[serde(skip)]
    pub(crate) hints: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Model"))]
pub(crate) struct ModelReport {
    pub(crate) name: String,
    /// RFC 3339.
    #[serde(serialize_with = "date")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) last_report: Option<i64>,
    pub(crate) reporting: bool,
    /// The count of the latest report divided by Clipper's interval of 15 s; `null` if the model is not reporting.
    pub(crate) predictions_per_second: Option<f64>,
    /// The 99th percentile of the latest predictions, in microseconds; `null` if there were none in the ten minutes
    /// before the newest report of any model, or if InfluxDB did not return it.
    pub(crate) p99_micros: Option<f64>,
    pub(crate) above_objective: Option<bool>,
    /// All data with this name is demo data.
    pub(crate) demo: bool,
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn date<S: Serializer>(millis: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    millis.and_then(rfc3339).serialize(serializer)
}

#[cfg(test)]
impl ModelReport {
    /// A model that has reported before, for tests.
    pub(crate) fn sample(name: &str, reporting: bool) -> Self {
        Self {
            name: name.into(),
            last_report: Some(0),
            reporting,
            predictions_per_second: None,
            p99_micros: None,
            above_objective: None,
            demo: false,
        }
    }
}

/// Interprets InfluxDB's points at the time `now`, in milliseconds since 1970.
#[must_use]
pub(crate) fn analyse(
    activity: &Activity,
    stack: &Stack,
    objective: Option<u64>,
    named: &[String],
    now: i64,
) -> Reports {
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
    hints.extend(activity.incomplete.as_ref().map(|why| format!("some latencies are unknown: {why}")));
    if let (None, Some(other)) = (last_report, activity.elsewhere.first()) {
        hints.push(format!(
            "database {database} contains no reports, but {} does: set influx_dbname in Clipper's file to {database}, \
             or use --database {other}",
            activity.elsewhere.join(", "),
            database = stack.database,
        ));
    }
    hints.extend(wrong_target(stack));
    let (impossible, silent): (Vec<String>, Vec<String>) =
        never_reported(models, named).into_iter().partition(|name| is_unreportable(name));
    for name in impossible {
        hints.push(format!(
            "model {name:?} can never report: Clipper does not escape the comma in its name, and InfluxDB rejects it"
        ));
    }
    if last_report.is_some() && !silent.is_empty() {
        hints.push(format!("Clipper's file names models that have never reported: {}", silent.join(", ")));
    }
    let ahead = activity.models.iter().filter_map(|model| model.ahead).max();
    hints.extend(ahead.map(|at| {
        let ahead = span(at - now);
        format!("the newest report is {ahead} in the future: set the clocks of Clipper's host and of this machine")
    }));
    match last_report {
        Some(at) => hints.extend(late(stack, at, now, ahead.is_some())),
        None if activity.elsewhere.is_empty() => hints.push(format!(
            "nothing has arrived from Clipper yet: when it runs, it must write to {}, database {}; if it already runs, \
             `{}` finds out why no reports arrive; `{}` shows the dashboard without Clipper",
            stack.url(Role::Influxdb),
            stack.database,
            stack.command("doctor"),
            stack.command("demo")
        )),
        None => {}
    }
    hints
}

/// The reasons why the reports of a Clipper with this file do not arrive.
fn wrong_target(stack: &Stack) -> Vec<String> {
    let mut hints: Vec<String> = beyond_clipper(stack).into_iter().collect();
    let Some(target) = &stack.clipper else { return hints };
    if hints.is_empty() && !target.reaches(stack) {
        let url = stack.url(Role::Influxdb);
        hints.push(format!(
            "Clipper's file names {}:{}, but InfluxDB is at {}:{}: set influx_ip and influx_port to that address",
            target.host,
            target.port,
            url.host_for_clipper(),
            url.port
        ));
    }
    let database = &stack.database;
    if !target.database.is_empty() && target.database != *database {
        hints.push(format!(
            "Clipper's file names database {}, but the dashboard shows {database}: set influx_dbname to {database}",
            target.database
        ));
    }
    hints
}

/// The hint about a last report that is not recent.
fn late(stack: &Stack, at: i64, now: i64, has_later: bool) -> Option<String> {
    (at < now - MISSED * INTERVAL).then(|| {
        let newest = if has_later { "the newest one before now" } else { "the newest report" };
        format!(
            "{newest} is {} old: check that Clipper runs and that the clock of its host is right; run `{}` to \
             find out why no reports arrive",
            span(now - at),
            stack.command("doctor")
        )
    })
}

/// The models in Clipper's file without a report, not counting demo data.
#[must_use]
pub(crate) fn never_reported(models: &[ModelReport], named: &[String]) -> Vec<String> {
    let known = |name: &str| models.iter().any(|model| model.name == written_name(name) && model.last_report.is_some());
    named.iter().filter(|name| !known(name)).cloned().collect()
}

/// A model's name as Clipper writes it in measurements: white space becomes `_`.
#[must_use]
pub(crate) fn written_name(model: &str) -> String {
    model.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect()
}

/// Whether InfluxDB rejects a model's reports: Clipper does not escape a comma in the name.
#[must_use]
pub(crate) fn is_unreportable(model: &str) -> bool {
    model.contains(',')
}

/// A time span in the largest unit that gives a number above one.
#[must_use]
pub(crate) fn span(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clipper_file::ClipperTarget;
    use crate::samples;

    const NOW: i64 = 1_000_000_000;

    fn model(name: &str, last_report: Option<i64>) -> Model {
        Model { name: name.into(), last_report, rate: Some(8.0), p99: Some(5_000.0), ..Model::default() }
    }

    fn analysed(models: Vec<Model>, stack: &Stack, named: &[&str]) -> Reports {
        let named: Vec<String> = named.iter().map(ToString::to_string).collect();
        analyse(&Activity { models, ..Activity::default() }, stack, Some(5_000), &named, NOW)
    }

    #[test]
    fn a_model_is_silent_after_three_missed_reports_and_above_only_beyond_the_objective() {
        let slow = Model { p99: Some(5_000.5), ..model("slow", Some(NOW)) };
        let demo = Model { last_demo: Some(NOW), ..model("demo", None) };
        let models = vec![model("late", Some(NOW - 45_000)), model("silent", Some(NOW - 45_001)), slow, demo];
        let found = analysed(models, &samples::stack(), &[]);
        let facts = |one: &ModelReport| (one.reporting, one.predictions_per_second, one.above_objective, one.demo);
        let facts: Vec<_> = found.models.iter().map(facts).collect();
        let late = (true, Some(8.0), Some(false), false);
        let [silent, slow] = [(false, None, Some(false), false), (true, Some(8.0), Some(true), false)];
        assert_eq!(facts, [late, silent, slow, (false, None, Some(false), true)]);
        assert_eq!((found.reporting, found.last_report, found.demo), (Some(true), Some(NOW), true));
        assert_eq!(found.hints, Vec::<String>::new());
    }

    #[test]
    fn the_time_of_the_newest_report_decides_which_hint_is_given() {
        let hint = |at: Option<i64>| analysed(vec![model("m", at)], &samples::stack(), &[]).hints;
        assert_eq!(hint(Some(NOW + SKEW)), Vec::<String>::new());
        let [old] = &hint(Some(NOW - 7_200_000))[..] else { panic!("one hint") };
        assert!(old.starts_with("the newest report is 2h old: "), "{old}");
        let [none] = &hint(None)[..] else { panic!("one hint") };
        assert!(none.starts_with("nothing has arrived from Clipper yet: "), "{none}");
    }

    #[test]
    fn a_report_from_the_future_is_no_sign_that_clipper_still_runs() {
        let at = |last_report, ahead| Model { ahead: Some(ahead), ..model("m", Some(last_report)) };
        let ahead = "the newest report is 2h in the future: set the clocks of Clipper's host and of this machine";
        let future = NOW + 7_200_000;
        for (last_report, reporting, hints) in [(future, true, 1), (NOW, true, 1), (NOW - 60_000, false, 2)] {
            let found = analysed(vec![at(last_report, future)], &samples::stack(), &[]);
            assert_eq!((found.reporting, found.hints.len()), (Some(reporting), hints), "{:?}", found.hints);
            assert_eq!(found.hints[0], ahead);
        }
    }

    #[test]
    fn reports_in_another_database_replace_the_advice_to_start_clipper() {
        let elsewhere = vec!["a".to_string(), "b".to_string()];
        let activity = Activity { elsewhere, ..Activity::default() };
        let found = analyse(&activity, &samples::stack(), None, &[], NOW);
        let hint = "database d contains no reports, but a, b does: set influx_dbname in Clipper's file to d, or use \
                    --database a";
        assert_eq!(found.hints, [hint]);
    }

    #[test]
    fn contradictions_of_clippers_file_are_all_named() {
        let clipper = ClipperTarget {
            host: "::1".into(),
            addresses: vec![],
            on_engine: vec![],
            on_influxdb: vec![],
            port: 8087,
            database: "other".into(),
        };
        let stack = Stack { clipper: Some(clipper), ..samples::stack() };
        let found = analysed(vec![model("m_1", Some(NOW))], &stack, &["m 1", "a,b", "new", "newer"]);
        let expected = [
            "Clipper's file names ::1:8087, but InfluxDB is at 127.0.0.1:8086: set influx_ip and influx_port to that \
             address",
            "Clipper's file names database other, but the dashboard shows d: set influx_dbname to d",
            "model \"a,b\" can never report: Clipper does not escape the comma in its name, and InfluxDB rejects it",
            "Clipper's file names models that have never reported: new, newer",
        ];
        assert_eq!(found.hints, expected);
    }

    #[test]
    fn a_span_has_the_largest_unit_above_one() {
        let texts = [-5, 119_999, 120_000, 7_199_999, 7_200_000, 172_799_999, 172_800_000].map(span);
        assert_eq!(texts, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
