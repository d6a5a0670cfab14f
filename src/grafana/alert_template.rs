//! The content of the alert rules: their queries, their conditions and their texts.

use std::time::Duration;

use serde_json::{Value, json};

use super::alerts::{Rule, titled};
use super::json::read;
use super::{EXPRESSION, INFLUXDB, dashboard};
use crate::digest::fingerprint;
use crate::model::alerts::{AlertRule, AlertSettings};
use crate::model::observed::OrganisationState;
use crate::model::reports::{COUNTER, LATENCY};

/// The data source of Grafana's own expressions, by the uid that every version accepts (recorded on
/// 9.4 and 12.2).
const EXPRESSION_UID: &str = "-100";
/// The period searched for a model's newest report, in seconds: four of its intervals.
const LATENCY_RANGE: u64 = 60;
/// The largest number of models for which an alert links to each.
const MODELS_LINKED: usize = 25;
/// A model that has been silent for longer no longer raises an alert, in seconds.
const SILENCE_RANGE: u64 = 86_400;
/// The panel for the latency rule.
const LATENCY_PANEL: &str = "p99 latency by model";
/// The panel for the silence rule.
const SILENCE_PANEL: &str = "Predictions per report";

/// The parts in which the rules differ.
struct Template {
    /// The period that the query covers, in seconds.
    range: u64,
    query: String,
    /// The condition for the newest value of a series.
    evaluator: Value,
    /// How long the condition must hold, in seconds.
    holds: u64,
    on_error: &'static str,
    summary: String,
    /// The end of the names of its series, which follows the model's name.
    suffix: &'static str,
    shows_value: bool,
    panel: &'static str,
    /// The time range of the dashboard that its links open.
    shown_range: &'static str,
}

impl Template {
    fn latency(settings: &AlertSettings, objective: u64) -> Self {
        Self {
            range: LATENCY_RANGE,
            // In milliseconds, because Grafana writes large numbers with an exponent.
            query: format!("SELECT last(\"p99\") / 1000 FROM /{LATENCY}$/ WHERE $timeFilter AND \"size\" > 0"),
            evaluator: json!({"type": "gt", "params": [millis(objective)]}),
            holds: settings.latency_after.as_secs(),
            on_error: "OK",
            summary: format!("The p99 latency of a model is above the objective of {} ms", millis(objective)),
            suffix: LATENCY,
            shows_value: true,
            panel: LATENCY_PANEL,
            shown_range: "",
        }
    }

    fn silence(settings: &AlertSettings) -> Self {
        let after = settings.silence_after.as_secs();
        Self {
            range: SILENCE_RANGE,
            // A zero for each model that reported within the range, plus the number of its current reports. InfluxDB
            // reads only the newest points, whatever the length of the range. Without the outer bound, it would open
            // every shard of the database; points of a clock that was ahead do not count as reports.
            query: format!(
                "SELECT sum(\"n\") FROM \
                 (SELECT last(\"value\") * 0 AS \"n\" FROM /{COUNTER}$/ \
                 WHERE time > now() - {SILENCE_RANGE}s AND time <= now()), \
                 (SELECT count(\"value\") AS \"n\" FROM /{COUNTER}$/ \
                 WHERE time > now() - {after}s AND time <= now()) \
                 WHERE time > now() - {SILENCE_RANGE}s"
            ),
            evaluator: json!({"type": "lt", "params": [1]}),
            holds: 0,
            on_error: "Error",
            summary: format!("A model has not reported for {after} s"),
            suffix: COUNTER,
            shows_value: false,
            panel: SILENCE_PANEL,
            shown_range: "&from=now-24h&to=now",
        }
    }

    /// The query and the condition.
    fn data(&self, source: &str) -> Value {
        let Self { range, query, evaluator, .. } = self;
        json!([
            {
                "refId": "A", "queryType": "", "datasourceUid": source, "relativeTimeRange": {"from": range, "to": 0},
                "model": {
                    "refId": "A", "datasource": {"type": INFLUXDB, "uid": source}, "rawQuery": true,
                    "resultFormat": "time_series", "query": query, "intervalMs": 1000, "maxDataPoints": 43_200,
                },
            },
            {
                "refId": "C", "queryType": "", "datasourceUid": EXPRESSION_UID, "relativeTimeRange": {"from": 0, "to": 0},
                // The only kind of condition that accepts series that differ only in their names.
                "model": {
                    "refId": "C", "datasource": {"type": EXPRESSION, "uid": EXPRESSION_UID},
                    "type": "classic_conditions", "expression": "", "intervalMs": 1000, "maxDataPoints": 43_200,
                    "conditions": [{
                        "type": "query", "evaluator": evaluator, "operator": {"type": "and"},
                        "query": {"params": ["A"]}, "reducer": {"type": "last", "params": []},
                    }],
                },
            },
        ])
    }
}

/// A rule of an organisation without its mark; the objective is in microseconds.
pub(super) fn render(
    rule: AlertRule,
    settings: &AlertSettings,
    objective: u64,
    instance: &str,
    source: &str,
    organisation: Option<u64>,
) -> Rule {
    let template = match rule {
        AlertRule::Latency => Template::latency(settings, objective),
        AlertRule::Silence => Template::silence(settings),
    };
    read(json!({
        "title": titled(rule.title(), instance),
        "condition": "C",
        "for": go_duration(template.holds),
        "noDataState": "OK",
        "execErrState": template.on_error,
        "isPaused": false,
        "labels": {"clipper_metrics": instance},
        "annotations": {
            "summary": template.summary,
            "description": description(template.suffix, template.shows_value),
            "links": links(template.suffix, instance, organisation, template.shown_range),
            "__dashboardUid__": instance,
            "__panelId__": dashboard::panel_id(template.panel).to_string(),
        },
        "data": template.data(source),
    }))
}

/// Fingerprint of the rules written by this program.
#[must_use]
pub(crate) fn content_hash() -> String {
    let settings = AlertSettings {
        latency_after: Duration::from_secs(1),
        silence_after: Duration::from_secs(1),
        content_hash: String::new(),
    };
    let rules = AlertRule::ALL.map(|rule| render(rule, &settings, 0, "", "", Some(0)));
    fingerprint(json!(rules).to_string().as_bytes())
}

/// A template that lists the models of an alert, with their values if `shows_value` is set.
///
/// From 12.4 on, each entry of `$values` carries the name of its series as a label. Earlier versions leave the labels
/// empty and name the series only in `$value`, which is a string.
fn description(suffix: &str, shows_value: bool) -> String {
    let (value, replacement) = if shows_value { (" ({{ . }} ms)", "`$1 ($2 ms)`") } else { ("", "`$1`") };
    each_model(suffix, &format!("{{{{ {} }}}}{value}", model(suffix)), replacement)
}

/// A template of the addresses that show the dashboard with each model of an alert alone, or of the dashboard's address
/// if the alert has many models. The link that Grafana adds to an alert shows the models that the dashboard lists by
/// default. Grafana's own link names the organisation, so these do too.
fn links(suffix: &str, instance: &str, organisation: Option<u64>, range: &str) -> String {
    let organisation = OrganisationState::in_address(organisation).map(|id| format!("orgId={id}"));
    let [alone, first] = organisation.map_or_else(Default::default, |named| [format!("?{named}"), format!("{named}&")]);
    let address = format!("d/{instance}?{first}var-search=MODEL{COUNTER}&var-model=MODEL{range}");
    let one = format!("{{{{ $model := {} | urlquery }}}}{{{{ externalURL }}}}", model(suffix));
    let replacement = format!("(print externalURL `{}`)", address.replace("MODEL", "${1}"));
    let each = each_model(suffix, &format!("{one}{}", address.replace("MODEL", "{{ $model }}")), &replacement);
    format!(
        "{{{{ if gt (len $values) {MODELS_LINKED} }}}}{{{{ externalURL }}}}d/{instance}{alone}{{{{ else }}}}{each}{{{{ end }}}}"
    )
}

/// The expression for a model's name in the name of a series.
fn model(suffix: &str) -> String {
    format!(r"reReplaceAll `^(.*){suffix}\.[^.]*$` `$1` $series")
}

/// A template that writes `one` for each model of an alert, or replaces its entry in `$value`.
fn each_model(suffix: &str, one: &str, replacement: &str) -> String {
    let text =
        format!(r"\[ var='[^']*' metric='(.*?){suffix}\.[^']*' labels=\{{.*?\}} (?:type='[^']*' )?value=(\S+) \]");
    [
        r#"{{ $named := false }}{{ range $values }}{{ $series := index .Labels "__name__" }}{{ if $series }}"#,
        "{{ if $named }}, {{ end }}{{ $named = true }}",
        one,
        "{{ end }}{{ end }}{{ if not $named }}",
        &format!("{{{{ reReplaceAll `{text}` {replacement} $value }}}}{{{{ end }}}}"),
    ]
    .concat()
}

/// Converts microseconds to milliseconds.
fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1e3
}

/// Formats seconds as Grafana returns them.
fn go_duration(mut seconds: u64) -> String {
    if seconds == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            out.push_str(&format!("{}{unit}", seconds / length));
            seconds %= length;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_grafana_returns_them() {
        for (seconds, text) in [(0, "0s"), (30, "30s"), (60, "1m"), (90, "1m30s"), (3_600, "1h"), (90_000, "1d1h")] {
            assert_eq!(go_duration(seconds), text);
        }
    }

    #[test]
    fn the_silence_rule_covers_the_configured_time() {
        let settings = AlertSettings {
            latency_after: Duration::from_secs(30),
            silence_after: Duration::from_secs(100),
            content_hash: String::new(),
        };
        let rule = json!(render(AlertRule::Silence, &settings, 1, "x", "x", None));
        let query = rule["data"][0]["model"]["query"].as_str().unwrap();
        assert!(query.contains("now() - 100s AND time <= now())"), "{query}");
        assert!(dashboard::panel_id(LATENCY_PANEL) > 0 && dashboard::panel_id(SILENCE_PANEL) > 0);
    }
}
