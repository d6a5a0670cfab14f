//! The second half of `doctor`: from the database through Grafana's data source to every panel.

use std::time::{Duration, Instant};

use super::{Examination, WriteTarget, log_hint};
use crate::grafana::Grafana;
use crate::influxdb::probe::probe_question;
use crate::model::container_config::Difference;
use crate::model::diagnosis::{
    Check, CheckOutcome, CheckState, OpenedDashboard, PanelAnswer, PanelContent, SourceFault, VariableAnswer,
    VariableContent,
};
use crate::model::hints::{NoInstance, install_plugin, way_to_read};
use crate::model::plan::{Blocker, Finding, Plan, Resource, refused};
use crate::model::reports::{Reports, SKEW};
use crate::model::role::Role;
use crate::model::server_status::ServerState;
use crate::model::stack::{DashboardId, Stack};
use crate::model::status::{ObjectState, QueryState, Status};
use crate::model::text::count;

pub(super) const GRAFANA: Check = Check::new("grafana", "Grafana");
const PLUGIN: Check = Check::new("plugin", "plugin");
const DATA_SOURCE: Check = Check::new("data_source", "data source");
const QUERY: Check = Check::new("query", "query");
const DASHBOARD: Check = Check::new("dashboard", "dashboard");
const VARIABLE: Check = Check::new("variable", "variable");

impl Examination<'_> {
    /// Checks the way from the database to the panels.
    pub(super) async fn follow_through_grafana(&mut self, target: &WriteTarget, status: &Status, is_stored: bool) {
        let stack = self.session.stack();
        let grafana = match self.session.grafana(&mut self.connections.grafana).await {
            Ok(grafana) => grafana,
            Err(error) => {
                let outcome = CheckOutcome::failed(error.to_string(), error.hint(&stack.invocation));
                return self.note(PLUGIN, outcome, Duration::ZERO);
            }
        };
        let plugin = async {
            match grafana.has_plugin().await {
                Ok(Some(true)) => CheckOutcome::Passed("installed".into()),
                Ok(Some(false)) => CheckOutcome::failed(
                    "Grafana lacks the InfluxDB plugin, which the data source needs",
                    "install it (grafana cli plugins install influxdb) and restart Grafana, or use an image that contains it",
                ),
                Ok(None) => CheckOutcome::Skipped("this account may not see Grafana's plugins".into()),
                Err(error) => CheckOutcome::failed(error.to_string(), "-v shows every request"),
            }
        };
        self.timed(PLUGIN, plugin).await;
        let is_there = !matches!(status.data_source.state, ObjectState::Missing | ObjectState::Unknown);
        self.note(DATA_SOURCE, data_source(status, stack), Duration::ZERO);
        let query = self.query(&grafana, target, status, is_stored && is_there);
        let (started, outcome) = (Instant::now(), query.await);
        self.note(QUERY, outcome, started.elapsed());
        self.remove_probe().await;
        let unanswerable = unanswerable(status);
        for id in stack.dashboards() {
            let (uid, title, _) = stack.dashboard_identity(id);
            self.note(DASHBOARD, dashboard(status, stack, id), Duration::ZERO);
            if unanswerable.is_some() {
                continue;
            }
            match grafana.open_dashboard(uid, crate::clock::now()).await {
                Ok(Some(opened)) => self.note_dashboard(id, opened, &status.reports),
                Ok(None) => {}
                Err(error) => {
                    let why = format!("the queries of dashboard {title:?} cannot be run: {error}");
                    let outcome = CheckOutcome::failed(why, log_hint(stack, Role::Grafana));
                    self.note(DASHBOARD, outcome, Duration::ZERO);
                }
            }
        }
        if let Some(why) = unanswerable {
            let why = format!("the queries of panels and variables are not run: {why}");
            self.note(DASHBOARD, CheckOutcome::Skipped(why), Duration::ZERO);
        }
    }

    async fn query(&self, grafana: &Grafana, target: &WriteTarget, status: &Status, is_askable: bool) -> CheckOutcome {
        let stack = self.session.stack();
        if let Some(why) = &status.data_source.query_error {
            let hint = if status.data_source.state == ObjectState::InSync {
                format!(
                    "set the address at which Grafana's server reaches InfluxDB with --data-source-url; if that address is \
                     correct, `{}` saves the data source again",
                    stack.command("up")
                )
            } else {
                format!("`{}` corrects the data source", stack.command("up"))
            };
            return CheckOutcome::failed(format!("Grafana's data source does not reach the database: {why}"), hint);
        }
        if let Some(why) = unanswerable(status) {
            // If another server answers Clipper, no earlier check has failed because of this.
            return CheckOutcome::failed(
                format!("Grafana's data source reaches no InfluxDB: {why}"),
                format!("`{}` starts it", stack.command("up")),
            );
        }
        if !is_askable {
            return CheckOutcome::Skipped("there is no probe, or no data source to read it through".into());
        }
        match grafana.finds_probe(&stack.data_source.uid, &probe_question(&self.id), crate::clock::now()).await {
            Ok(true) => CheckOutcome::Passed("the data source returns the point".into()),
            Ok(false) => CheckOutcome::failed(
                format!(
                    "Grafana's data source does not read the database that Clipper writes to ({} at {})",
                    target.database,
                    target.address()
                ),
                format!("`{}` corrects the data source", stack.command("up")),
            ),
            Err(error) => CheckOutcome::failed(
                format!("Grafana's data source does not answer: {error}"),
                log_hint(stack, Role::Grafana),
            ),
        }
    }

    /// A failing data source is one finding, however many queries use it.
    fn note_source(&mut self, SourceFault { uid, name, url, why }: SourceFault) {
        let stack = self.session.stack();
        let hint = if uid == stack.data_source.uid {
            let give = "set the address at which Grafana's server reaches it with --data-source-url";
            format!(
                "check that InfluxDB is running there and not overloaded ({}), or {give}",
                log_hint(stack, Role::Influxdb)
            )
        } else {
            format!("correct its settings in Grafana, or check that the InfluxDB at {url} is running")
        };
        let message = format!("Grafana's data source {name:?} gets no answer from the InfluxDB at {url}: {why}");
        if !self.results.iter().any(|result| result.state == CheckState::Failed && result.message == message) {
            self.note(DATA_SOURCE, CheckOutcome::failed(message, hint), Duration::ZERO);
        }
    }

    fn note_dashboard(&mut self, id: DashboardId, opened: OpenedDashboard, reports: &Reports) {
        let stack = self.session.stack();
        let judged = JudgedDashboard::new(stack, id);
        opened.sources.into_iter().for_each(|fault| self.note_source(fault));
        let is_reporting = reports.reporting == Some(true);
        let misses_reports = is_reporting && judged.is_bundled && is_beyond(reports, opened.range);
        if misses_reports {
            let outcome = CheckOutcome::failed(
                "Clipper reports, but not in the dashboard's time range",
                "choose a time range that includes the last minutes, and save the dashboard with it",
            );
            self.note(DASHBOARD, outcome, Duration::ZERO);
        }
        let no_values = judged.no_values(!reports.models.is_empty(), is_reporting && !misses_reports);
        for VariableAnswer { name, content, time } in opened.variables {
            let outcome = judged.variable(&name, content, no_values);
            self.note(VARIABLE.about(name), outcome, time);
        }
        let mut shown = opened.panels.iter().filter(|panel| panel.shows_range).map(|panel| &panel.content).peekable();
        let is_blank = shown.peek().is_some() && shown.all(|content| *content == PanelContent::Empty);
        if is_blank && is_reporting && !misses_reports && judged.is_bundled {
            let outcome = CheckOutcome::failed(
                "Clipper reports, but no open panel shows a point",
                "choose models that report with the dashboard's variables, such as \"Name contains\", and save the \
                 dashboard; models that stopped up to a week ago may still be listed before them (\"At most\" shows \
                 more)",
            );
            self.note(DASHBOARD, outcome, Duration::ZERO);
        }
        for PanelAnswer { title, content, time, .. } in opened.panels {
            let outcome = judged.panel(&title, content);
            self.note(Check::PANEL.about(title), outcome, time);
        }
    }
}

/// Whether the newest report is outside a time range. Another check reports a clock that is ahead.
fn is_beyond(reports: &Reports, (from, to): (i64, i64)) -> bool {
    let last = reports.last_report.filter(|at| *at <= reports.at + SKEW);
    last.is_some_and(|at| at + SKEW < from || at - SKEW > to)
}

/// The dashboard whose variables and panels are judged.
struct JudgedDashboard {
    is_bundled: bool,
    /// With several dashboards, a panel is named with its own.
    suffix: String,
    /// How to correct a query.
    hint: String,
    /// How to correct a data source.
    source_hint: String,
}

impl JudgedDashboard {
    fn new(stack: &Stack, id: DashboardId) -> Self {
        let suffix = match id {
            DashboardId::Bundled => String::new(),
            DashboardId::User(_) => format!(" of {:?}", stack.dashboard_identity(id).1),
        };
        let is_bundled = id == DashboardId::Bundled;
        Self { is_bundled, suffix, hint: edit_hint(stack, id), source_hint: source_hint(stack, id) }
    }

    /// Why a variable may have no values. The bundled dashboard lists the models of its time range.
    const fn no_values(&self, has_models: bool, has_reports_in_range: bool) -> Option<&'static str> {
        match (has_models, self.is_bundled) {
            (false, true) => Some("no model has reported yet"),
            // A user's variable may be empty for another reason.
            (false, false) => Some("it has no values, and no model has reported yet"),
            (true, true) if !has_reports_in_range => Some("no model has reported in the dashboard's time range"),
            (true, _) => None,
        }
    }

    /// The outcome of a variable. Without values it fails, unless `no_values` explains that.
    fn variable(&self, name: &str, content: VariableContent, no_values: Option<&str>) -> CheckOutcome {
        let variable = format!("the dashboard's variable {name:?}{}", self.suffix);
        match (content, no_values) {
            (VariableContent::Values(0), Some(why)) => CheckOutcome::Skipped(why.into()),
            (VariableContent::Values(0), None) => CheckOutcome::failed(format!("{variable} has no values"), &self.hint),
            (VariableContent::Values(number), _) => CheckOutcome::Passed(count(number, "value")),
            (VariableContent::Unchecked(why), _) => CheckOutcome::Skipped(why),
            (VariableContent::SourceFails, _) => CheckOutcome::Skipped(SOURCE_FAILS.into()),
            (VariableContent::Unanswered(why), _) => CheckOutcome::Skipped(unanswered(&why)),
            (VariableContent::NoDataSource(source), _) => {
                CheckOutcome::failed(format!("{variable} uses {}", absent_source(&source)), &self.source_hint)
            }
            (VariableContent::Failed(why), _) => CheckOutcome::failed(format!("{variable} fails: {why}"), &self.hint),
        }
    }

    fn panel(&self, title: &str, content: PanelContent) -> CheckOutcome {
        let panel = format!("panel {title:?}{}", self.suffix);
        match content {
            PanelContent::Points(points) => CheckOutcome::Passed(count(points, "point")),
            PanelContent::Empty => CheckOutcome::Passed("answers, but has no points in its time range".into()),
            PanelContent::Elsewhere(why) => CheckOutcome::Skipped(why),
            PanelContent::SourceFails => CheckOutcome::Skipped(SOURCE_FAILS.into()),
            PanelContent::Unanswered(why) => CheckOutcome::Skipped(unanswered(&why)),
            PanelContent::NoDataSource(source) => {
                CheckOutcome::failed(format!("{panel} uses {}", absent_source(&source)), &self.source_hint)
            }
            PanelContent::NoPlugin(kind) => CheckOutcome::failed(
                format!("{panel} cannot be shown: Grafana lacks the panel plugin {kind:?}"),
                install_plugin(&kind),
            ),
            PanelContent::Flux => CheckOutcome::failed(
                format!("{panel} is written in Flux, but its data source uses InfluxQL"),
                &self.hint,
            ),
            PanelContent::UnknownField { field, source } => CheckOutcome::failed(
                if source.starts_with('/') {
                    format!("{panel} queries the field {field:?}, which no measurement that matches {source} has")
                } else {
                    format!("{panel} queries the field {field:?}, which the measurement {source} does not have")
                },
                &self.hint,
            ),
            PanelContent::Failed(why) => CheckOutcome::failed(format!("{panel} fails: {why}"), &self.hint),
        }
    }
}

/// The failure of a Grafana that answers, but whose organisation is missing, ambiguous or unreadable.
fn unusable_organisation(plan: &Plan, stack: &Stack) -> Option<CheckOutcome> {
    Some(match plan.finding(Resource::Organisation)? {
        Finding::Missing => CheckOutcome::failed(
            format!("Grafana has no organisation {:?}", stack.organisation.as_deref().unwrap_or_default()),
            format!("`{}` creates it", stack.command("up")),
        ),
        Finding::Blocked(Blocker { why, hint, .. }) => CheckOutcome::failed(why, hint),
        Finding::Unreadable(unreadable) => {
            CheckOutcome::failed(format!("clipper-metrics {unreadable}"), way_to_read(stack, Role::Grafana, unreadable))
        }
        _ => return None,
    })
}

pub(super) fn grafana(status: &Status, plan: &Plan, stack: &Stack) -> CheckOutcome {
    if let Some(NoInstance { what, hint }) = &status.no_instance {
        return CheckOutcome::failed(what, hint);
    }
    let server = &status.servers.grafana;
    let detail = server.detail.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    match server.state {
        ServerState::Answering => unusable_organisation(plan, stack).unwrap_or_else(|| {
            let version = server.version.as_deref().unwrap_or("unknown");
            CheckOutcome::Passed(format!("version {version} answers at {}", server.url))
        }),
        ServerState::Absent | ServerState::Stopped => CheckOutcome::failed(
            format!("Grafana is not running{detail}"),
            format!("`{}` starts it", stack.command("up")),
        ),
        ServerState::Refusing => {
            let message = server.detail.as_deref().unwrap_or_default();
            let refused = || refused(stack, Role::Grafana, &server.url, message);
            let Blocker { why, hint, .. } = server.blocker.clone().unwrap_or_else(refused);
            CheckOutcome::failed(why, hint)
        }
        ServerState::Foreign => CheckOutcome::failed(
            format!("the server at Grafana's address cannot be used{detail}"),
            server.blocker.as_ref().map_or("choose another address", |blocker| &blocker.hint),
        ),
        ServerState::Crashing => {
            CheckOutcome::failed("Grafana's container keeps crashing", log_hint(stack, Role::Grafana))
        }
        ServerState::Starting => CheckOutcome::failed(
            format!("Grafana at {} is not ready{detail}", server.url),
            log_hint(stack, Role::Grafana),
        ),
        ServerState::Unknown => match &server.blocker {
            Some(Blocker { why, hint, .. }) => CheckOutcome::failed(why, hint),
            None => CheckOutcome::failed(
                format!("Grafana does not answer at {}{detail}", server.url),
                log_hint(stack, Role::Grafana),
            ),
        },
    }
}

/// Why no query through the data source can succeed: every panel would fail for the same cause.
fn unanswerable(status: &Status) -> Option<&'static str> {
    match (status.servers.influxdb.state, status.data_source.query) {
        (ServerState::Absent | ServerState::Stopped | ServerState::Crashing, _) => Some("InfluxDB is not running"),
        (_, Some(QueryState::Failing)) => Some("the data source does not reach the database"),
        _ => None,
    }
}

fn data_source(status: &Status, stack: &Stack) -> CheckOutcome {
    let name = &stack.data_source.name;
    match status.data_source.state {
        ObjectState::InSync | ObjectState::Edited => CheckOutcome::Passed(format!("{name:?} is correct")),
        ObjectState::Missing => CheckOutcome::failed(
            format!("Grafana has no data source {name:?}"),
            format!("`{}` creates it", stack.command("up")),
        ),
        ObjectState::Differs => CheckOutcome::failed(
            format!("Grafana's data source {name:?} differs: {}", Difference::list(&status.data_source.differences)),
            format!("`{}` corrects it", stack.command("up")),
        ),
        ObjectState::Foreign | ObjectState::Unknown => unread(status),
    }
}

fn dashboard(status: &Status, stack: &Stack, id: DashboardId) -> CheckOutcome {
    let (_, title, _) = stack.dashboard_identity(id);
    let state = match id {
        DashboardId::Bundled => status.dashboard.state,
        DashboardId::User(index) => status.user_dashboards[index].state,
    };
    match state {
        ObjectState::InSync => CheckOutcome::Passed(format!("{title:?} exists")),
        ObjectState::Edited => CheckOutcome::Passed(format!("{title:?} exists and was edited")),
        ObjectState::Differs => CheckOutcome::Passed(format!(
            "{title:?} exists but differs from the settings or this version; `{}` updates it",
            stack.command("up")
        )),
        ObjectState::Missing => CheckOutcome::failed(
            format!("Grafana has no dashboard {title:?}"),
            format!("`{}` imports it", stack.command("up")),
        ),
        ObjectState::Foreign | ObjectState::Unknown => unread(status),
    }
}

fn unread(status: &Status) -> CheckOutcome {
    match &status.blocker {
        Some(Blocker { why, hint, .. }) => CheckOutcome::failed(why.clone(), hint.clone()),
        None => CheckOutcome::Skipped("it could not be read".into()),
    }
}

const SOURCE_FAILS: &str = "its data source gets no answer from InfluxDB";

fn unanswered(why: &str) -> String {
    format!("no answer ({why}), although its data source answers: choose a shorter time range or fewer models")
}

fn absent_source(reference: &str) -> String {
    format!("the data source {reference:?}, which Grafana does not have")
}

fn source_hint(stack: &Stack, id: DashboardId) -> String {
    format!("create that data source in Grafana, or {}", edit_hint(stack, id))
}

fn edit_hint(stack: &Stack, id: DashboardId) -> String {
    match id {
        DashboardId::Bundled => format!(
            "correct the query in Grafana, or restore the whole dashboard with `{}`",
            stack.command("up --overwrite-dashboard")
        ),
        DashboardId::User(index) => format!(
            "correct the query in {} and import the file with `{}`, or correct it in Grafana",
            stack.user_dashboards[index].path,
            stack.command("up --overwrite-dashboard")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_of_a_user_is_not_explained_by_missing_reports_alone() {
        let judged = |is_bundled| JudgedDashboard {
            is_bundled,
            suffix: String::new(),
            hint: String::new(),
            source_hint: String::new(),
        };
        for (is_bundled, has_models, has_reports, expected) in [
            (true, false, false, Some("no model has reported yet")),
            (true, true, false, Some("no model has reported in the dashboard's time range")),
            (true, true, true, None),
            (false, false, false, Some("it has no values, and no model has reported yet")),
            (false, true, false, None),
        ] {
            assert_eq!(judged(is_bundled).no_values(has_models, has_reports), expected);
        }
    }
}
