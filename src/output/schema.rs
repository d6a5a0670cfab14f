//! The JSON documents of schema 1 as types. Fields may be added but never renamed, and appear in the order of their
//! declaration. Unknown values are `null`.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::state_names;
use crate::error::Error;
use crate::model::container_config;
use crate::model::diagnosis::{CheckOutcome, CheckResult, Diagnosis};
use crate::model::event::ExecutedStep;
use crate::model::export;
use crate::model::instances::{Instance, Member};
use crate::model::invocation::Invocation;
use crate::model::plan::{Plan, Step as PlanStep};
use crate::model::reports::{ModelReport, Reports};
use crate::model::role::Role;
use crate::model::stack::Secret;
use crate::model::status::{self, Mode, QueryState, ServerStatus};

/// The number of this schema.
const SCHEMA: u32 = 1;

/// One document of any command.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(title = "clipper-metrics --output json"))]
#[serde(untagged)]
pub(super) enum Document<'a> {
    /// `status`, `up` and `down`.
    State(Box<State<'a>>),
    /// `status --all`.
    Instances(Instances<'a>),
    /// `backup`.
    BackedUp(BackedUp<'a>),
    /// `export`.
    Exported(Exported<'a>),
    /// `doctor`.
    Diagnosed(Diagnosed<'a>),
    /// `demo`.
    Sent(Sent<'a>),
    /// `demo --clear`.
    Cleared(Cleared<'a>),
    /// `logs`: one line of a server's log.
    LogLine(LogLine<'a>),
    /// Any command that failed.
    Failure(Failure),
}

/// The status of an instance.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct State<'a> {
    /// Always 1.
    schema: u32,
    /// The instance's name.
    instance: &'a str,
    /// `up` has nothing to do, and nothing blocks it.
    in_sync: bool,
    /// The engine; `null` if no engine was used.
    engine: Option<Engine<'a>>,
    influxdb: Server<'a>,
    grafana: Server<'a>,
    /// Clipper's database.
    database: Database<'a>,
    /// Grafana's organisation; `null` if none is set.
    organisation: Option<Named<'a>>,
    data_source: DataSource<'a>,
    dashboard: Dashboard<'a>,
    /// The dashboards of `--dashboard`.
    user_dashboards: Vec<UserDashboard<'a>>,
    /// The alert rules; `null` if alerts were never set.
    alerts: Option<Alerts<'a>>,
    account: Account<'a>,
    clipper: Clipper<'a>,
    /// The differences, one sentence each.
    findings: &'a [String],
    /// Hints with the next command to type.
    hints: &'a [String],
    /// Other instances on this engine.
    other_instances: &'a [String],
    /// The executed or planned steps; for `up` and `down` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<Step>>,
    /// The questions that must be confirmed before the steps run; with `--dry-run` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmations: Option<&'a [String]>,
}

/// The engine that answered.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Engine<'a> {
    endpoint: &'a str,
    /// Why this engine is used: an option, a variable, a context or the default.
    chosen_by: &'a str,
    version: &'a str,
    api_version: &'a str,
    /// Other hosts on the engine's network can reach ports that are published on loopback, as before Docker 28.0;
    /// `null` if unknown.
    exposes_loopback: Option<bool>,
}

/// InfluxDB or Grafana.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Server<'a> {
    #[cfg_attr(test, schemars(schema_with = "state_names::schema::modes"))]
    mode: &'static str,
    #[cfg_attr(test, schemars(schema_with = "state_names::schema::server_states"))]
    state: &'static str,
    /// The reason for its state.
    detail: Option<&'a str>,
    url: &'a str,
    /// The address for other hosts; `null` if they cannot reach it, and for an external server.
    public_url: Option<&'a str>,
    version: Option<&'a str>,
    image: Option<&'a str>,
    container: Option<Container<'a>>,
    volume: Option<Volume<'a>>,
    differences: Vec<Difference<'a>>,
}

/// The container of a server.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Container<'a> {
    name: &'a str,
    id: &'a str,
    /// RFC 3339.
    started_at: Option<&'a str>,
}

/// The volume with a server's data.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Volume<'a> {
    name: &'a str,
    exists: bool,
}

/// A field that differs; a missing value is `null`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Difference<'a> {
    field: &'a str,
    #[serde(rename = "have")]
    actual: Option<&'a str>,
    #[serde(rename = "want")]
    desired: Option<&'a str>,
}

/// An object inside a server.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Named<'a> {
    name: &'a str,
    #[cfg_attr(test, schemars(schema_with = "state_names::schema::object_states"))]
    state: &'static str,
    differences: Vec<Difference<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct DataSource<'a> {
    uid: &'a str,
    #[cfg_attr(test, schemars(schema_with = "state_names::schema::object_states"))]
    state: &'static str,
    /// The result of a query through it: `ok` or `failing`; `null` if no query was sent.
    query: Option<&'static str>,
    query_error: Option<&'a str>,
    differences: Vec<Difference<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Dashboard<'a> {
    uid: &'a str,
    #[cfg_attr(test, schemars(schema_with = "state_names::schema::object_states"))]
    state: &'static str,
    url: &'a str,
    /// The command that forwards it to this machine if the engine is behind ssh; otherwise `null`.
    forward_command: Option<&'a str>,
    /// The latency objective that it shows, in microseconds.
    objective_micros: Option<u64>,
    differences: Vec<Difference<'a>>,
}

/// A user's dashboard.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct UserDashboard<'a> {
    uid: &'a str,
    title: &'a str,
    /// Its file.
    file: &'a str,
    #[cfg_attr(test, schemars(schema_with = "state_names::schema::object_states"))]
    state: &'static str,
    url: &'a str,
    differences: Vec<Difference<'a>>,
    /// Its parts that cannot work, and the changes made to import it, one sentence each.
    limitations: &'a [String],
}

/// Both alert rules together.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Alerts<'a> {
    #[cfg_attr(test, schemars(schema_with = "state_names::schema::object_states"))]
    state: &'static str,
    differences: Vec<Difference<'a>>,
}

/// The account that signs in to Grafana.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Account<'a> {
    user: &'a str,
    /// With `--show-secrets` only.
    password: Option<&'a str>,
}

/// Clipper's reports.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Clipper<'a> {
    /// A report arrived within the last three intervals.
    reporting: Option<bool>,
    /// RFC 3339.
    last_report: Option<String>,
    /// The database contains demo data.
    demo: bool,
    models: Vec<Model<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Model<'a> {
    name: &'a str,
    /// RFC 3339.
    last_report: Option<String>,
    reporting: bool,
    /// The count of the latest report divided by Clipper's interval of 15 s; `null` if the model is not reporting.
    predictions_per_second: Option<f64>,
    /// The 99th percentile of the latest predictions, in microseconds; `null` if there were none in the ten minutes
    /// before the newest report of any model, or if InfluxDB did not return it.
    p99_micros: Option<f64>,
    above_objective: Option<bool>,
    /// All data with this name is demo data.
    demo: bool,
}

/// Clipper's database.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Database<'a> {
    name: &'a str,
    #[cfg_attr(test, schemars(schema_with = "state_names::schema::object_states"))]
    state: &'static str,
    /// Its retention period, such as `90d` or `for ever`; `null` if unknown.
    retention: Option<String>,
    differences: Vec<Difference<'a>>,
}

/// An executed or planned step.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Step {
    resource: String,
    action: &'static str,
    reason: String,
    /// Its duration; `null` if it was not executed.
    seconds: Option<f64>,
}

/// Every instance on the engine.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Instances<'a> {
    /// Always 1.
    schema: u32,
    instances: Vec<InstanceDocument<'a>>,
}

/// An instance, as the engine describes it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct InstanceDocument<'a> {
    name: &'a str,
    /// `running`, `partly_running`, `stopped`, `external` or `down`.
    state: &'static str,
    influxdb: MemberDocument<'a>,
    grafana: MemberDocument<'a>,
    /// The volumes with its data.
    volumes: &'a [String],
}

/// A server of an instance, as the engine describes it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct MemberDocument<'a> {
    /// `absent`, `stopped`, `running` or `external`.
    state: &'static str,
    url: Option<&'a str>,
}

/// The result of `backup`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct BackedUp<'a> {
    /// Always 1.
    schema: u32,
    file: &'a str,
    bytes: u64,
    seconds: f64,
    instance: &'a str,
    /// InfluxDB's version.
    influxdb: &'a str,
    /// Grafana's version.
    grafana: &'a str,
}

/// The result of `export`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Exported<'a> {
    /// Always 1.
    schema: u32,
    /// The instance's name.
    instance: &'a str,
    /// `provisioning`, `compose`, `swarm` or `kubernetes`.
    format: &'static str,
    /// The directory as typed.
    directory: &'a str,
    files: Vec<ExportedFile<'a>>,
}

/// A file of an export.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ExportedFile<'a> {
    /// Its path below the directory.
    path: &'a str,
    /// `created`, `updated`, `unchanged` or `removed`.
    change: &'static str,
}

/// The result of `doctor`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Diagnosed<'a> {
    /// Always 1.
    schema: u32,
    /// The instance's name.
    instance: &'a str,
    /// No check failed.
    healthy: bool,
    /// The first check that failed; `null` if none did.
    #[serde(rename = "culprit")]
    first_failure: Option<Culprit<'a>>,
    panels: PanelCount,
    /// The checks, in the order of a data point's path from Clipper to the dashboard.
    checks: Vec<CheckDocument<'a>>,
}

/// The first check that failed.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Culprit<'a> {
    check: &'static str,
    /// The variable or panel; `null` for other checks.
    object: Option<&'a str>,
    message: &'a str,
    /// The next step for the user.
    hint: &'a str,
}

/// The panels that query InfluxDB.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PanelCount {
    answering: usize,
    total: usize,
}

/// A check.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CheckDocument<'a> {
    check: &'static str,
    /// The variable or panel; `null` for other checks.
    object: Option<&'a str>,
    /// `passed`, `failed` or `skipped`.
    state: &'static str,
    message: &'a str,
    seconds: f64,
}

/// The result of `demo`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Sent<'a> {
    /// Always 1.
    schema: u32,
    points: usize,
    reports: usize,
    seconds: f64,
    database: &'a str,
}

/// The result of `demo --clear`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Cleared<'a> {
    /// Always 1.
    schema: u32,
    removed_series: usize,
    database: &'a str,
}

/// A line that a server logged.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LogLine<'a> {
    /// Always 1.
    schema: u32,
    /// `influxdb` or `grafana`.
    server: &'static str,
    line: &'a str,
}

/// A command that failed.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Failure {
    /// Always 1.
    schema: u32,
    error: Failed,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Failed {
    kind: &'static str,
    message: String,
    /// The next command to type; empty if none helps.
    hint: String,
}

impl<'a> Document<'a> {
    pub(super) fn status(status: &'a status::Status) -> Self {
        Self::State(Box::new(State::new(status, None)))
    }

    pub(super) fn executed(status: &'a status::Status, executed: &[ExecutedStep]) -> Self {
        let steps = executed
            .iter()
            .map(|executed| Step::new(&executed.step, executed.reason.clone(), Some(seconds(executed.time))));
        Self::State(Box::new(State::new(status, Some(steps.collect()))))
    }

    pub(super) fn planned(status: &'a status::Status, plan: &Plan, questions: &'a [String]) -> Self {
        let steps = plan.steps().map(|(step, finding)| Step::new(step, finding.to_string(), None));
        let state = State::new(status, Some(steps.collect()));
        Self::State(Box::new(State { confirmations: Some(questions), ..state }))
    }

    pub(super) fn backed_up(
        file: &'a str,
        bytes: u64,
        time: Duration,
        instance: &'a str,
        [influxdb, grafana]: [&'a str; 2],
    ) -> Self {
        Self::BackedUp(BackedUp { schema: SCHEMA, file, bytes, seconds: seconds(time), instance, influxdb, grafana })
    }

    pub(super) fn exported(found: &'a export::Exported) -> Self {
        let files =
            found.files.iter().map(|(path, change)| ExportedFile { path, change: state_names::file_change(*change) });
        Self::Exported(Exported {
            schema: SCHEMA,
            instance: &found.instance,
            format: found.format.name(),
            directory: &found.directory,
            files: files.collect(),
        })
    }

    pub(super) fn instances(found: &'a [Instance]) -> Self {
        let member = |member: &'a Member| MemberDocument {
            state: state_names::member_state(member.state),
            url: member.url.as_deref(),
        };
        let instances = found.iter().map(|one| InstanceDocument {
            name: &one.name,
            state: state_names::instance_state(one.state()),
            influxdb: member(&one.influxdb),
            grafana: member(&one.grafana),
            volumes: &one.volumes,
        });
        Self::Instances(Instances { schema: SCHEMA, instances: instances.collect() })
    }

    pub(super) fn diagnosed(found: &'a Diagnosis) -> Self {
        let (answering, total) = found.panels();
        let first_failure = found.first_failure().map(|(check, fault)| Culprit {
            check: check.name(),
            object: check.object(),
            message: &fault.why,
            hint: &fault.hint,
        });
        let check = |result: &'a CheckResult| {
            let (state, message) = match &result.outcome {
                CheckOutcome::Passed(what) => ("passed", what.as_str()),
                CheckOutcome::Failed(fault) => ("failed", fault.why.as_str()),
                CheckOutcome::Skipped(why) => ("skipped", why.as_str()),
            };
            let (check, object) = (result.check.name(), result.check.object());
            CheckDocument { check, object, state, message, seconds: seconds(result.time) }
        };
        Self::Diagnosed(Diagnosed {
            schema: SCHEMA,
            instance: &found.instance,
            healthy: first_failure.is_none(),
            first_failure,
            panels: PanelCount { answering, total },
            checks: found.results.iter().map(check).collect(),
        })
    }

    pub(super) fn sent(points: usize, reports: usize, time: Duration, database: &'a str) -> Self {
        Self::Sent(Sent { schema: SCHEMA, points, reports, seconds: seconds(time), database })
    }

    pub(super) const fn cleared(removed_series: usize, database: &'a str) -> Self {
        Self::Cleared(Cleared { schema: SCHEMA, removed_series, database })
    }

    pub(super) const fn log_line(role: Role, line: &'a str) -> Self {
        Self::LogLine(LogLine { schema: SCHEMA, server: role.name(), line })
    }

    pub(super) fn failure(error: &Error, invocation: &Invocation) -> Self {
        let error = Failed { kind: error.kind(), message: error.to_string(), hint: error.hint(invocation) };
        Self::Failure(Failure { schema: SCHEMA, error })
    }
}

impl<'a> State<'a> {
    fn new(status: &'a status::Status, steps: Option<Vec<Step>>) -> Self {
        let named = |object: &'a status::Object| Named {
            name: &object.name,
            state: state_names::object_state(object.state),
            differences: differences(&object.differences),
        };
        let (query, query_error) = match &status.query {
            QueryState::Unknown => (None, None),
            QueryState::Ok => (Some("ok"), None),
            QueryState::Failing(why) => (Some("failing"), Some(why.as_str())),
        };
        Self {
            schema: SCHEMA,
            instance: &status.instance,
            in_sync: status.in_sync,
            engine: status.engine.as_ref().map(|engine| Engine {
                endpoint: &engine.endpoint,
                chosen_by: &engine.chosen_by,
                version: &engine.version,
                api_version: &engine.api_version,
                exposes_loopback: engine.exposes_loopback(),
            }),
            influxdb: Server::new(&status.influxdb),
            grafana: Server::new(&status.grafana),
            database: Database {
                name: &status.database.name,
                state: state_names::object_state(status.database.state),
                retention: status.retention.map(|retention| retention.to_string()),
                differences: differences(&status.database.differences),
            },
            organisation: status.organisation.as_ref().map(named),
            data_source: DataSource {
                uid: &status.data_source.name,
                state: state_names::object_state(status.data_source.state),
                query,
                query_error,
                differences: differences(&status.data_source.differences),
            },
            dashboard: Dashboard {
                uid: &status.dashboard.name,
                state: state_names::object_state(status.dashboard.state),
                url: &status.dashboard_url,
                forward_command: status.forward_command.as_deref(),
                objective_micros: status.objective,
                differences: differences(&status.dashboard.differences),
            },
            user_dashboards: status.user_dashboards.iter().map(UserDashboard::new).collect(),
            alerts: status.alerts.as_ref().map(|alerts| Alerts {
                state: state_names::object_state(alerts.state),
                differences: differences(&alerts.differences),
            }),
            account: Account {
                user: &status.account.user,
                password: status.account.password.as_ref().map(Secret::reveal),
            },
            clipper: Clipper::new(&status.reports),
            findings: &status.findings,
            hints: &status.hints,
            other_instances: &status.others,
            steps,
            confirmations: None,
        }
    }
}

impl<'a> UserDashboard<'a> {
    fn new(own: &'a status::UserDashboardStatus) -> Self {
        Self {
            uid: &own.object.name,
            title: &own.title,
            file: &own.path,
            state: state_names::object_state(own.object.state),
            url: &own.url,
            differences: differences(&own.object.differences),
            limitations: &own.limitations,
        }
    }
}

impl<'a> Server<'a> {
    fn new(server: &'a ServerStatus) -> Self {
        Self {
            mode: match server.mode {
                Mode::Container => "container",
                Mode::External => "external",
            },
            state: state_names::server_state(server.state),
            detail: server.detail.as_deref(),
            url: &server.url,
            public_url: server.public_url.as_deref(),
            version: server.version.as_deref(),
            image: server.image.as_deref(),
            container: server.container.as_ref().map(|container| Container {
                name: &container.name,
                id: &container.id,
                started_at: container.started_at.as_deref(),
            }),
            volume: server.volume.as_ref().map(|(name, exists)| Volume { name, exists: *exists }),
            differences: differences(&server.differences),
        }
    }
}

impl<'a> Clipper<'a> {
    fn new(reports: &'a Reports) -> Self {
        let model = |model: &'a ModelReport| Model {
            name: &model.name,
            last_report: model.last_report.and_then(date),
            reporting: model.reporting,
            predictions_per_second: model.predictions_per_second,
            p99_micros: model.p99_micros,
            above_objective: model.above_objective,
            demo: model.demo,
        };
        Self {
            reporting: reports.reporting,
            last_report: reports.last_report.and_then(date),
            demo: reports.demo,
            models: reports.models.iter().map(model).collect(),
        }
    }
}

impl Step {
    fn new(step: &PlanStep, reason: String, seconds: Option<f64>) -> Self {
        Self { resource: step.resource().to_string(), action: step.action(), reason, seconds }
    }
}

fn differences(differences: &[container_config::Difference]) -> Vec<Difference<'_>> {
    fn value(text: &str) -> Option<&str> {
        (!text.is_empty()).then_some(text)
    }
    differences
        .iter()
        .map(|difference| Difference {
            field: &difference.field,
            actual: value(&difference.actual),
            desired: value(&difference.desired),
        })
        .collect()
}

/// Seconds, to the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

/// Milliseconds since 1970 as RFC 3339, or `None` for a time that the format cannot express.
fn date(millis: i64) -> Option<String> {
    let since = Duration::from_millis(u64::try_from(millis).ok()?);
    // The format ends with the year 9999.
    (since < Duration::from_secs(253_402_300_800))
        .then(|| humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema and its page in the repository. To change them with the types:
    /// `UPDATE_SCHEMA=1 cargo test --lib schema`.
    #[test]
    fn the_schema_in_the_repository_is_the_one_of_these_types() {
        let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
        let schema = settings.into_generator().into_root_schema_for::<Document<'_>>();
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        for (path, text) in [("assets/output.schema.json", &text), ("docs/json.md", &page(schema.as_value()))] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            #[expect(clippy::disallowed_methods, reason = "a test that updates these files on request")]
            if std::env::var_os("UPDATE_SCHEMA").is_some() {
                std::fs::write(&path, text).unwrap();
            }
            assert_eq!(&std::fs::read_to_string(&path).unwrap(), text, "UPDATE_SCHEMA=1 cargo test --lib schema");
        }
    }

    /// The schema as a page.
    fn page(schema: &serde_json::Value) -> String {
        let mut page = String::from(
            "# JSON\n\n`--output json` prints one document; `logs --output json` prints one per line. Fields may be added but \
             never renamed, and unknown values are `null`. This page is generated from the schema that \
             `clipper-metrics status --output json-schema` prints.\n",
        );
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().replace('\n', " ");
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            page.push_str(&format!(
                "\n## {name}\n\n{}\n\n| field | type | |\n|---|---|---|\n",
                text(&definition["description"])
            ));
            for (field, property) in definition["properties"].as_object().unwrap() {
                let kind = kind(property);
                page.push_str(&format!("| `{field}` | {kind} | {} |\n", text(&property["description"])));
            }
        }
        page
    }

    /// The type of a value.
    fn kind(property: &serde_json::Value) -> String {
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
        if let Some(names) = property["enum"].as_array() {
            return names.iter().map(|one| format!("`{}`", word(one))).collect::<Vec<_>>().join(", ");
        }
        if let Some(reference) = property["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return format!("[{name}](#{})", name.to_lowercase());
        }
        if let Some(any) = property["anyOf"].as_array() {
            return any.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
        match &property["type"] {
            serde_json::Value::Array(types) => types.iter().map(word).collect::<Vec<_>>().join(" or "),
            one if one == "array" => format!("list of {}", kind(&property["items"])),
            one => word(one),
        }
    }

    #[test]
    fn times_that_cannot_be_written_are_not_known() {
        assert_eq!(date(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(date(-1), None);
        assert_eq!(date(i64::MAX), None);
    }
}
