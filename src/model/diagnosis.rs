//! The result of `doctor`: checks that trace a data point from Clipper to a panel, and the first failure.

use std::time::Duration;

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
    /// The name in JSON; never changes.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ClipperSettings => "clipper_settings",
            Self::Influxdb => "influxdb",
            Self::Database => "database",
            Self::Write => "write",
            Self::ReadBack => "read_back",
            Self::Clocks => "clocks",
            Self::FieldTypes => "field_types",
            Self::Grafana => "grafana",
            Self::Plugin => "plugin",
            Self::DataSource => "data_source",
            Self::Query => "query",
            Self::Dashboard => "dashboard",
            Self::Variable(_) => "variable",
            Self::Panel(_) => "panel",
            Self::Reports => "reports",
        }
    }

    /// The variable or panel that the check is about, if any.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        match self {
            Self::Variable(name) | Self::Panel(name) => Some(name),
            _ => None,
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

/// A check with its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// The check.
    pub check: Check,
    /// Its result.
    pub outcome: CheckOutcome,
    /// How long it took.
    pub time: Duration,
}

/// All check results, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The instance.
    pub instance: String,
    /// The results.
    pub results: Vec<CheckResult>,
}

impl Diagnosis {
    /// The first check that failed. Later failures may be consequences of it.
    #[must_use]
    pub fn first_failure(&self) -> Option<(&Check, &CheckFailure)> {
        self.results.iter().find_map(|result| match &result.outcome {
            CheckOutcome::Failed(fault) => Some((&result.check, fault)),
            CheckOutcome::Passed(_) | CheckOutcome::Skipped(_) => None,
        })
    }

    /// How many panels return data, and how many of them query an InfluxDB.
    #[must_use]
    pub fn panels(&self) -> (usize, usize) {
        let panels = || self.results.iter().filter(|result| matches!(result.check, Check::Panel(_)));
        let answering = panels().filter(|result| result.outcome.is_passed()).count();
        (answering, answering + panels().filter(|result| result.outcome.is_failed()).count())
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

    fn result(check: Check, outcome: CheckOutcome) -> CheckResult {
        CheckResult { check, outcome, time: Duration::ZERO }
    }

    #[test]
    fn the_first_fault_is_the_culprit_and_only_panels_that_answer_count() {
        let passed = || CheckOutcome::Passed(String::new());
        let results = vec![
            result(Check::Influxdb, passed()),
            result(Check::Write, CheckOutcome::failed("disk", "free")),
            result(Check::ReadBack, CheckOutcome::Skipped("no point".into())),
            result(Check::Panel("a".into()), passed()),
            result(Check::Panel("b".into()), CheckOutcome::failed("field", "edit")),
            result(Check::Panel("c".into()), CheckOutcome::Skipped("elsewhere".into())),
        ];
        let diagnosis = Diagnosis { instance: "x".into(), results };
        assert_eq!(
            diagnosis.first_failure().map(|(check, fault)| (check.name(), fault.why.as_str())),
            Some(("write", "disk"))
        );
        assert_eq!(diagnosis.panels(), (1, 2));
    }
}
