//! Answers as one JSON document, schema 1: fields may be added, never renamed. What is not known
//! is `null`.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::plain::Plain;
use super::{Field, Output, Report, Style, print};
use crate::core::event::{Event, ExecutedStep, Listener};
use crate::core::plan::Plan;
use crate::core::reports::Reports;
use crate::core::specification::Difference;
use crate::core::status::{Object, ServerStatus, Status};
use crate::core::text::printable_json;
use crate::error::Error;

/// Answers on standard output; progress goes to standard error, as plain lines.
pub(super) struct Json {
    progress: Plain,
}

impl Json {
    /// A report of this style.
    #[must_use]
    pub(super) const fn new(style: Style) -> Self {
        Self { progress: Plain::new(style) }
    }
}

impl Listener for Json {
    fn on(&self, event: Event<'_>) {
        self.progress.on(event);
    }
}

impl Report for Json {
    fn answer(&self, output: &Output<'_>) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(&document(output)).unwrap_or_default();
        print(&format!("{}\n", printable_json(&text)))
    }

    fn again(&self, status: &Status) -> std::io::Result<()> {
        print(&format!("{}\n", printable_json(&document(&Output::Status(status)).to_string())))
    }

    fn clear(&self) {}
}

fn document(output: &Output<'_>) -> Value {
    match output {
        Output::Up { status, executed } | Output::Down { status, executed } => {
            let mut document = state(status);
            document["steps"] = executed.iter().map(step).collect();
            document
        }
        Output::Planned { status, plan } => {
            let mut document = state(status);
            document["steps"] = planned(plan);
            document
        }
        Output::Status(status) => state(status),
        Output::Summary { fields, .. } => {
            let mut document = Map::from_iter([("schema".to_string(), json!(1))]);
            for (name, field) in *fields {
                let value = match field {
                    Field::Count(count) => json!(count),
                    Field::Number(number) => json!(number),
                    Field::Text(text) => json!(text),
                };
                document.insert((*name).to_string(), value);
            }
            Value::Object(document)
        }
        Output::Error(error) => failure(error),
    }
}

fn failure(error: &Error) -> Value {
    json!({"schema": 1, "error": {"kind": error.kind(), "message": error.to_string(), "hint": error.hint()}})
}

fn step(executed: &ExecutedStep) -> Value {
    json!({
        "resource": executed.step.resource().to_string(),
        "action": executed.step.action(),
        "reason": executed.reason,
        "seconds": seconds(executed.time),
    })
}

/// Seconds, to the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

fn planned(plan: &Plan) -> Value {
    plan.steps()
        .map(|(step, finding)| {
            json!({
                "resource": step.resource().to_string(),
                "action": step.action(),
                "reason": finding.to_string(),
                "seconds": null,
            })
        })
        .collect()
}

/// The state of everything, as `status` has it.
fn state(status: &Status) -> Value {
    json!({
        "schema": 1,
        "instance": status.instance,
        "in_sync": status.in_sync,
        "engine": status.engine.as_ref().map(|engine| json!({
            "endpoint": engine.endpoint, "version": engine.version, "api_version": engine.api_version,
        })),
        "influxdb": server(&status.influxdb),
        "grafana": server(&status.grafana),
        "database": object("name", &status.database),
        "organisation": status.organisation.as_ref().map(|organisation| object("name", organisation)),
        "data_source": {
            "uid": status.data_source.name,
            "state": status.data_source.state,
            "query": status.query,
            "query_error": status.query_error,
            "differences": differences(&status.data_source.differences),
        },
        "dashboard": {
            "uid": status.dashboard.name,
            "state": status.dashboard.state,
            "url": status.dashboard_url,
            "objective_micros": status.objective,
            "differences": differences(&status.dashboard.differences),
        },
        "account": {
            "user": status.account.user,
            "password": status.account.password.as_ref().map(crate::core::stack::Secret::reveal),
        },
        "clipper": clipper(&status.reports),
        "findings": status.findings,
        "hints": status.hints,
        "other_instances": status.others,
    })
}

fn server(server: &ServerStatus) -> Value {
    json!({
        "mode": server.mode,
        "state": server.state,
        "detail": server.detail,
        "url": server.url,
        "version": server.version,
        "image": server.image,
        "container": server.container.as_ref().map(|container| json!({
            "name": container.name, "id": container.id, "started_at": container.started_at,
        })),
        "volume": server.volume.as_ref().map(|(name, exists)| json!({"name": name, "exists": exists})),
        "differences": differences(&server.differences),
    })
}

fn object(key: &str, object: &Object) -> Value {
    json!({key: object.name, "state": object.state, "differences": differences(&object.differences)})
}

fn differences(differences: &[Difference]) -> Value {
    let value = |text: &String| if text.is_empty() { Value::Null } else { json!(text) };
    differences
        .iter()
        .map(|difference| json!({"field": difference.field, "have": value(&difference.have), "want": value(&difference.want)}))
        .collect()
}

fn clipper(reports: &Reports) -> Value {
    let models: Vec<Value> = reports
        .models
        .iter()
        .map(|model| {
            json!({
                "name": model.name,
                "last_report": model.last_report.and_then(date),
                "reporting": model.reporting,
                "predictions_per_second": model.predictions_per_second,
                "p99_micros": model.p99_micros,
                "above_objective": model.above_objective,
                "demo": model.demo,
            })
        })
        .collect();
    json!({
        "reporting": reports.reporting,
        "last_report": reports.last_report.and_then(date),
        "demo": reports.demo,
        "models": models,
    })
}

/// Milliseconds since 1970 as RFC 3339; nothing for a time that cannot be written.
fn date(millis: i64) -> Option<String> {
    let since = Duration::from_millis(u64::try_from(millis).ok()?);
    // The year 9999 is the last that the format can write.
    (since < Duration::from_secs(253_402_300_800))
        .then(|| humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string())
}
