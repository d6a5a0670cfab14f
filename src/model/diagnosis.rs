//! The result of `doctor`: checks that trace a data point from Clipper to a panel, and the first failure.

use std::time::Duration;

use serde::Serialize;

use super::names::names;
use super::schema::{SchemaVersion, Seconds};

/// The subject of one check.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    name: &'static str,
    title: &'static str,
    object: Option<String>,
}

impl Check {
    pub(crate) const PANEL: Self = Self::new("panel", "panel");

    /// A check with its name in JSON, which never changes, and its title in text.
    pub(crate) const fn new(name: &'static str, title: &'static str) -> Self {
        Self { name, title, object: None }
    }

    /// The check of one variable or panel.
    pub(crate) fn about(self, object: String) -> Self {
        Self { object: Some(object), ..self }
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CheckOutcome {
    /// The check passed; details.
    Passed(String),
    Failed(CheckFailure),
    /// The check could not run or does not apply; the reason.
    Skipped(String),
}

/// A failure that keeps data points from the panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckFailure {
    /// The failing object and the reason.
    pub(crate) why: String,
    /// How to fix it.
    pub(crate) hint: String,
}

impl CheckOutcome {
    /// A failure with its reason and hint.
    pub(crate) fn failed(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed(CheckFailure { why: why.into(), hint: hint.into() })
    }

    #[must_use]
    pub(crate) const fn is_passed(&self) -> bool {
        matches!(self, Self::Passed(_))
    }
}

names! {
    pub(crate) enum CheckState {
        Passed = "passed",
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
    pub(crate) seconds: Seconds,
    /// Its name in text, with the object.
    #[serde(skip)]
    pub(crate) title: String,
    /// The next step for the user, if it failed.
    #[serde(skip)]
    pub(crate) hint: String,
}

impl CheckResult {
    pub(crate) fn new(check: Check, outcome: CheckOutcome, time: Duration) -> Self {
        let Check { name, title, object } = check;
        let (state, message, hint) = match outcome {
            CheckOutcome::Passed(message) => (CheckState::Passed, message, String::new()),
            CheckOutcome::Failed(failure) => (CheckState::Failed, failure.why, failure.hint),
            CheckOutcome::Skipped(why) => (CheckState::Skipped, why, String::new()),
        };
        let title = object.as_ref().map_or_else(|| title.into(), |object| format!("{title} {object}"));
        Self { check: name, object, state, message, seconds: Seconds(time), title, hint }
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
        let panels =
            |state| checks.iter().filter(|result| result.check == Check::PANEL.name && result.state == state).count();
        let answering = panels(CheckState::Passed);
        let panels = PanelCount { answering, total: answering + panels(CheckState::Failed) };
        Self { schema: SchemaVersion, instance, healthy: first_failure.is_none(), first_failure, panels, checks }
    }
}

/// Why InfluxDB did not store a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteFailure {
    /// The database does not exist.
    NoDatabase,
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

/// The results of opening the stored dashboard.
#[derive(Debug)]
pub(crate) struct OpenedDashboard {
    /// The start and the end of its time range, in milliseconds since 1970.
    pub(crate) range: (i64, i64),
    /// Data sources that answer no query.
    pub(crate) sources: Vec<SourceFault>,
    /// Every variable with a query.
    pub(crate) variables: Vec<VariableAnswer>,
    pub(crate) panels: Vec<PanelAnswer>,
}

impl OpenedDashboard {
    /// The first failure that refutes a new version of Grafana. In an edited dashboard, one answered query is enough:
    /// others may have failed before.
    pub(crate) fn refutation(&self, edited: bool) -> Option<String> {
        let is_answered = |panel: &PanelAnswer| matches!(panel.content, PanelContent::Points(_) | PanelContent::Empty);
        if edited && self.panels.iter().any(is_answered) {
            return None;
        }
        let sources = self.sources.iter().map(|fault| {
            Some(format!("the data source {:?} does not reach InfluxDB at {}: {}", fault.name, fault.url, fault.why))
        });
        let variables = self.variables.iter().map(|one| match &one.content {
            VariableContent::Failed(why) => Some(format!("the dashboard's variable {} fails: {why}", one.name)),
            _ => None,
        });
        let panels = self.panels.iter().map(|panel| match &panel.content {
            PanelContent::Failed(why) => Some(format!("panel {:?} fails: {why}", panel.title)),
            _ => None,
        });
        sources.chain(variables).chain(panels).flatten().next()
    }
}

/// The result of a variable's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VariableAnswer {
    pub(crate) name: String,
    /// The outcome.
    pub(crate) content: VariableContent,
    /// How long it took.
    pub(crate) time: Duration,
}

/// The outcome of a variable's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VariableContent {
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
pub(crate) struct SourceFault {
    pub(crate) uid: String,
    pub(crate) name: String,
    /// The address of its InfluxDB, as Grafana's server sees it.
    pub(crate) url: String,
    /// Grafana's error message.
    pub(crate) why: String,
}

/// The result of a panel's queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PanelAnswer {
    pub(crate) title: String,
    /// It is open when the dashboard opens, and shows the dashboard's time range.
    pub(crate) shows_range: bool,
    /// The outcome.
    pub(crate) content: PanelContent,
    /// How long it took.
    pub(crate) time: Duration,
}

/// The outcome of a panel's queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PanelContent {
    /// They returned this many points.
    Points(usize),
    /// They succeeded and found no points in the panel's time range.
    Empty,
    /// A query names a field that its measurements do not have.
    UnknownField {
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
    /// The panel sends no query to an InfluxDB; the reason.
    Elsewhere(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_reported_and_only_panels_that_answer_count() {
        let passed = || CheckOutcome::Passed(String::new());
        let panel = |title: &str| Check::PANEL.about(title.into());
        let checks = [
            (Check::new("influxdb", "InfluxDB"), passed()),
            (Check::new("write", "write"), CheckOutcome::failed("disk", "free")),
            (Check::new("read_back", "read back"), CheckOutcome::Skipped("no point".into())),
            (panel("a"), passed()),
            (panel("b"), CheckOutcome::failed("field", "edit")),
            (panel("c"), CheckOutcome::Skipped("elsewhere".into())),
        ];
        let checks = checks.map(|(check, outcome)| CheckResult::new(check, outcome, Duration::ZERO));
        let diagnosis = Diagnosis::new("x".into(), checks.into());
        let first = diagnosis.first_failure.unwrap();
        assert_eq!((first.check, first.message.as_str(), first.hint.as_str()), ("write", "disk", "free"));
        assert!(!diagnosis.healthy);
        assert_eq!(diagnosis.panels, PanelCount { answering: 1, total: 2 });
    }

    #[test]
    fn a_new_version_is_refuted_by_the_first_failure_unless_an_edited_dashboard_answers_anything() {
        let opened = |contents: &[PanelContent]| {
            let panel = |content: &PanelContent| PanelAnswer {
                title: "p".into(),
                shows_range: true,
                content: content.clone(),
                time: Duration::ZERO,
            };
            let panels = contents.iter().map(panel).collect();
            OpenedDashboard { range: (0, 1), sources: vec![], variables: vec![], panels }
        };
        let failed = || PanelContent::Failed("bad".into());
        let why = Some("panel \"p\" fails: bad".to_string());
        let mixed = opened(&[PanelContent::Empty, failed()]);
        assert_eq!((mixed.refutation(false), mixed.refutation(true)), (why.clone(), None));
        let broken = opened(&[failed(), PanelContent::SourceFails]);
        assert_eq!(broken.refutation(true), why);
        // Only a failed query says something about the version.
        assert_eq!(opened(&[PanelContent::Flux, PanelContent::NoPlugin("x".into())]).refutation(false), None);
    }
}
