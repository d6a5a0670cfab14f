//! The result of `doctor`: checks that trace a data point from Clipper to a panel, and the first failure.

use std::time::Duration;

use serde::Serialize;

use super::names::names;
use super::results::{SchemaVersion, seconds};

/// The subject of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Whether Clipper can write to an InfluxDB with these settings.
    ClipperSettings,
    /// InfluxDB at the address that Clipper writes to.
    Influxdb,
    /// The database that Clipper writes to.
    Database,
    /// Writing a point as Clipper does.
    Write,
    /// Querying InfluxDB for that point.
    ReadBack,
    /// The clocks of this machine and the servers.
    Clocks,
    /// The types of the fields that Clipper writes.
    FieldTypes,
    /// Grafana and the login.
    Grafana,
    /// Grafana's InfluxDB plugin.
    Plugin,
    /// Grafana's data source.
    DataSource,
    /// Querying Grafana for the point.
    Query,
    /// The dashboard.
    Dashboard,
    /// A variable of the dashboard, by its name.
    Variable(String),
    /// A panel of the dashboard, by its title.
    Panel(String),
    /// The reports that Clipper itself has sent.
    Reports,
}

impl Check {
    /// The name in JSON, which never changes, and the title in text.
    const fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::ClipperSettings => ("clipper_settings", "Clipper's settings"),
            Self::Influxdb => ("influxdb", "InfluxDB"),
            Self::Database => ("database", "database"),
            Self::Write => ("write", "write"),
            Self::ReadBack => ("read_back", "read back"),
            Self::Clocks => ("clocks", "clocks"),
            Self::FieldTypes => ("field_types", "field types"),
            Self::Grafana => ("grafana", "Grafana"),
            Self::Plugin => ("plugin", "plugin"),
            Self::DataSource => ("data_source", "data source"),
            Self::Query => ("query", "query"),
            Self::Dashboard => ("dashboard", "dashboard"),
            Self::Variable(_) => ("variable", "variable"),
            Self::Panel(_) => ("panel", "panel"),
            Self::Reports => ("reports", "Clipper's reports"),
        }
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The check passed; details.
    Passed(String),
    /// The check failed.
    Failed(CheckFailure),
    /// The check could not run or does not apply; the reason.
    Skipped(String),
}

/// A failure that keeps data points from the panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFailure {
    /// The failing object and the reason.
    pub why: String,
    /// How to fix it.
    pub hint: String,
}

impl CheckOutcome {
    /// A failure with its reason and hint.
    pub fn failed(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed(CheckFailure { why: why.into(), hint: hint.into() })
    }

    /// Whether the check passed.
    #[must_use]
    pub const fn is_passed(&self) -> bool {
        matches!(self, Self::Passed(_))
    }

    /// Whether the check failed.
    #[must_use]
    pub const fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

names! {
    /// The state of a check.
    pub(crate) enum CheckState {
        /// It passed.
        Passed = "passed",
        /// It failed.
        Failed = "failed",
        /// It could not run or does not apply.
        Skipped = "skipped",
    }
}

/// A check.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "CheckDocument"))]
pub(crate) struct CheckResult {
    pub(crate) check: &'static str,
    /// The variable or panel; `null` for other checks.
    pub(crate) object: Option<String>,
    /// `passed`, `failed` or `skipped`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub(crate) state: CheckState,
    pub(crate) message: String,
    pub(crate) seconds: f64,
    /// Its name in text, with the object.
    #[serde(skip)]
    pub(crate) title: String,
    /// The next step for the user, if it failed.
    #[serde(skip)]
    pub(crate) hint: String,
    #[serde(skip)]
    pub(crate) time: Duration,
}

impl CheckResult {
    pub(crate) fn new(check: Check, outcome: CheckOutcome, time: Duration) -> Self {
        let (name, title) = check.names();
        let (state, message, hint) = match outcome {
            CheckOutcome::Passed(message) => (CheckState::Passed, message, String::new()),
            CheckOutcome::Failed(failure) => (CheckState::Failed, failure.why, failure.hint),
            CheckOutcome::Skipped(why) => (CheckState::Skipped, why, String::new()),
        };
        let (object, title) = match check {
            Check::Variable(object) | Check::Panel(object) => {
                let title = format!("{title} {object}");
                (Some(object), title)
            }
            _ => (None, title.into()),
        };
        Self { check: name, object, state, message, seconds: seconds(time), title, hint, time }
    }
}

/// The result of `doctor`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Diagnosed"))]
pub(crate) struct Diagnosis {
    pub(crate) schema: SchemaVersion,
    /// The instance's name.
    pub(crate) instance: String,
    /// No check failed.
    pub(crate) healthy: bool,
    /// The first check that failed; `null` if none did.
    #[serde(rename = "culprit")]
    pub(crate) first_failure: Option<FirstFailure>,
    pub(crate) panels: PanelCount,
    /// The checks, in the order of a data point's path from Clipper to the dashboard.
    pub(crate) checks: Vec<CheckResult>,
}

/// The first check that failed.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Culprit"))]
pub(crate) struct FirstFailure {
    pub(crate) check: &'static str,
    /// The variable or panel; `null` for other checks.
    pub(crate) object: Option<String>,
    pub(crate) message: String,
    /// The next step for the user.
    pub(crate) hint: String,
}

/// The panels that query InfluxDB.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PanelCount {
    pub(crate) answering: usize,
    pub(crate) total: usize,
}

impl Diagnosis {
    /// Later failures may be consequences of the first.
    pub(crate) fn new(instance: String, checks: Vec<CheckResult>) -> Self {
        let failed = checks.iter().find(|result| result.state == CheckState::Failed);
        let first_failure = failed.cloned().map(|CheckResult { check, object, message, hint, .. }| FirstFailure {
            check,
            object,
            message,
            hint,
        });
        let panels = |state| checks.iter().filter(|result| result.check == "panel" && result.state == state).count();
        let answering = panels(CheckState::Passed);
        let panels = PanelCount { answering, total: answering + panels(CheckState::Failed) };
        Self { schema: SchemaVersion, instance, healthy: first_failure.is_none(), first_failure, panels, checks }
    }
}

/// Why InfluxDB did not store a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFailure {
    /// The database does not exist.
    NoDatabase,
    /// Its disk is full.
    DiskFull,
    /// The point exceeds a limit of InfluxDB's configuration, named here.
    Limit(&'static str),
    /// The default retention policy drops points of that age.
    BeyondRetention,
    /// The field exists with another type.
    FieldType,
    /// InfluxDB requires a login, and Clipper sends none.
    Login,
    /// InfluxDB cannot be reached.
    Unreachable,
    /// Anything else.
    Other,
}

/// The result of a variable's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableAnswer {
    /// The variable.
    pub name: String,
    /// The outcome.
    pub content: VariableContent,
    /// How long it took.
    pub time: Duration,
}

/// The outcome of a variable's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariableContent {
    /// It returned this many values.
    Values(usize),
    /// It failed; Grafana's error message.
    Failed(String),
    /// Its data source answers no query.
    SourceFails,
    /// No answer arrived, although its data source answers other queries; the reason.
    Unanswered(String),
    /// Grafana lacks its data source; the dashboard's name for it.
    NoDataSource(String),
    /// It cannot be checked here; the reason.
    Unchecked(String),
}

/// A data source that answers no query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFault {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// The address of its InfluxDB, as Grafana's server sees it.
    pub url: String,
    /// Grafana's error message.
    pub why: String,
}

/// The result of a panel's queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanelAnswer {
    /// The panel's title.
    pub title: String,
    /// It is open when the dashboard opens, and shows the dashboard's time range.
    pub shows_range: bool,
    /// The outcome.
    pub content: PanelContent,
    /// How long it took.
    pub time: Duration,
}

/// The outcome of a panel's queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PanelContent {
    /// They returned this many points.
    Points(usize),
    /// They succeeded and found no points in the panel's time range.
    Empty,
    /// A query names a field that its measurements do not have.
    UnknownField {
        /// The field.
        field: String,
        /// The measurements, as the query names them.
        source: String,
    },
    /// A query failed; Grafana's error message.
    Failed(String),
    /// Its data source answers no query.
    SourceFails,
    /// No answer arrived, although its data source answers other queries; the reason.
    Unanswered(String),
    /// Grafana lacks its data source; the panel's name for it.
    NoDataSource(String),
    /// Grafana lacks the plugin with this id, which the panel needs.
    NoPlugin(String),
    /// A query is written in Flux, but its data source uses InfluxQL.
    Flux,
    /// The panel does not query an InfluxDB; the kind of source that it queries.
    Elsewhere(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_reported_and_only_panels_that_answer_count() {
        let passed = || CheckOutcome::Passed(String::new());
        let checks = [
            (Check::Influxdb, passed()),
            (Check::Write, CheckOutcome::failed("disk", "free")),
            (Check::ReadBack, CheckOutcome::Skipped("no point".into())),
            (Check::Panel("a".into()), passed()),
            (Check::Panel("b".into()), CheckOutcome::failed("field", "edit")),
            (Check::Panel("c".into()), CheckOutcome::Skipped("elsewhere".into())),
        ];
        let checks = checks.map(|(check, outcome)| CheckResult::new(check, outcome, Duration::ZERO));
        let diagnosis = Diagnosis::new("x".into(), checks.into());
        let first = diagnosis.first_failure.unwrap();
        assert_eq!((first.check, first.message.as_str(), first.hint.as_str()), ("write", "disk", "free"));
        assert!(!diagnosis.healthy);
        assert_eq!(diagnosis.panels, PanelCount { answering: 1, total: 2 });
    }
}
