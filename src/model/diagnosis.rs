//! What `doctor` finds: checks in the order in which a number travels from Clipper to a panel, and
//! the first one that fails.
//!
//! Must not know how a check is made, nor how it is shown.

use std::time::Duration;

/// What one check looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Whether Clipper can write to such an InfluxDB at all.
    ClipperSettings,
    /// InfluxDB at the address that Clipper writes to.
    Influxdb,
    /// The database that Clipper writes to.
    Database,
    /// A point is written as Clipper writes.
    Write,
    /// That point is found by asking InfluxDB.
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
    /// The point is found by asking Grafana.
    Query,
    /// The dashboard.
    Dashboard,
    /// A variable of the dashboard, by its name.
    Variable(String),
    /// A panel of the dashboard, by its title.
    Panel(String),
    /// What Clipper itself has sent.
    Reports,
}

impl Check {
    /// For machines; never renamed.
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

    /// The variable or panel, where the check is about one.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        match self {
            Self::Variable(name) | Self::Panel(name) => Some(name),
            _ => None,
        }
    }
}

/// What a check gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckOutcome {
    /// It is as it must be; what was seen.
    Passed(String),
    /// It is not.
    Failed(Fault),
    /// It could not be made, or says nothing here; why.
    Skipped(String),
}

/// Something that keeps numbers from the panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong with which object.
    pub why: String,
    /// What to do.
    pub hint: String,
}

impl CheckOutcome {
    /// Something is wrong, and what to do.
    pub fn failed(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed(Fault { why: why.into(), hint: hint.into() })
    }

    /// It is as it must be.
    #[must_use]
    pub const fn is_passed(&self) -> bool {
        matches!(self, Self::Passed(_))
    }

    /// Something is wrong.
    #[must_use]
    pub const fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// A check that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// Which.
    pub check: Check,
    /// What it gave.
    pub outcome: CheckOutcome,
    /// How long it took.
    pub time: Duration,
}

/// All checks, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The instance.
    pub instance: String,
    /// What was found.
    pub results: Vec<CheckResult>,
}

impl Diagnosis {
    /// The first check that failed: what comes after it may fail because of it.
    #[must_use]
    pub fn culprit(&self) -> Option<(&Check, &Fault)> {
        self.results.iter().find_map(|result| match &result.outcome {
            CheckOutcome::Failed(fault) => Some((&result.check, fault)),
            CheckOutcome::Passed(_) | CheckOutcome::Skipped(_) => None,
        })
    }

    /// How many panels answer, of how many that ask an InfluxDB.
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
    /// There is no such database.
    NoDatabase,
    /// Its disk is full.
    DiskFull,
    /// A limit of InfluxDB's configuration is reached; its name there.
    Limit(&'static str),
    /// The default retention policy drops points of that time.
    BeyondRetention,
    /// A field of that name has another type.
    FieldType,
    /// It wants a login, and Clipper sends none.
    Login,
    /// It cannot be reached.
    Unreachable,
    /// Anything else.
    Other,
}

/// What asking for a variable's values gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableAnswer {
    /// The variable.
    pub name: String,
    /// What came of it.
    pub content: VariableContent,
    /// How long it took.
    pub time: Duration,
}

/// What came of a variable's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariableContent {
    /// It offers so many values.
    Values(usize),
    /// It failed; Grafana's message.
    Failed(String),
    /// Its data source gives no answer, whatever is asked.
    SourceFails,
    /// No answer came, although its data source answers other queries; why.
    Unanswered(String),
    /// Grafana lacks its data source; how the dashboard names it.
    NoDataSource(String),
    /// It cannot be checked here; why.
    Unchecked(String),
}

/// A data source that gives no answer, whatever is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFault {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// The address of its InfluxDB, as Grafana's server sees it.
    pub url: String,
    /// Grafana's words.
    pub why: String,
}

/// What a panel's queries gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanelAnswer {
    /// The panel's title.
    pub title: String,
    /// What came of it.
    pub content: PanelContent,
    /// How long it took.
    pub time: Duration,
}

/// What came of a panel's queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PanelContent {
    /// So many points.
    Points(usize),
    /// It answers, and there is nothing to show in its time range.
    Empty,
    /// A query names a field that its measurements do not have.
    UnknownField {
        /// The field.
        field: String,
        /// The measurements, as the query names them.
        source: String,
    },
    /// A query failed; Grafana's words.
    Failed(String),
    /// Its data source gives no answer, whatever is asked.
    SourceFails,
    /// No answer came, although its data source answers other queries; why.
    Unanswered(String),
    /// Grafana lacks its data source; how the panel names it.
    NoDataSource(String),
    /// Grafana lacks the plugin that shows it, which has this id.
    NoPlugin(String),
    /// A query is written in Flux, and its data source speaks InfluxQL.
    Flux,
    /// It does not ask an InfluxDB; what it asks.
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
            diagnosis.culprit().map(|(check, fault)| (check.name(), fault.why.as_str())),
            Some(("write", "disk"))
        );
        assert_eq!(diagnosis.panels(), (1, 2));
    }
}
