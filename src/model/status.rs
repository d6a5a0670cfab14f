//! The status of an instance: the state of each resource, derived from one plan and its snapshot. Serialized, it is the
//! JSON document of `status`, `up` and `down`; fields appear in the order of their declaration.

use serde::{Serialize, Serializer};

use super::alerts::AlertRule;
use super::clipper_file::{ClipperSettings, clipper_file};
use super::container_config::{Difference, PasswordSource};
use super::event::ExecutedStep;
use super::hints::{self, NoInstance};
use super::invocation::Invocation;
use super::login::SignedInAccount;
use super::names::names;
use super::observed::{
    ActualDashboard, AlertRulesState, DashboardState, DataSourceState, EngineInfo, FolderState, Observed,
    OrganisationState, Query,
};
use super::plan::{BlockReason, Blocker, Finding, Plan, Resource, Step};
use super::reports::Reports;
use super::retention::Retention;
use super::role::{PerRole, Role};
use super::schema::{SchemaVersion, Seconds};
use super::server_status::{ServerStatus, server};
use super::stack::{DashboardId, DesiredUserDashboard, Secret, Stack};

/// The status of an instance.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "State"))]
pub(crate) struct Status {
    pub(crate) schema: SchemaVersion,
    /// The instance's name.
    pub(crate) instance: String,
    /// `up` has nothing to do, and nothing blocks it.
    pub(crate) in_sync: bool,
    /// The engine; `null` if no engine was used.
    pub(crate) engine: Option<EngineStatus>,
    #[serde(flatten)]
    pub(crate) servers: PerRole<ServerStatus>,
    /// Clipper's database.
    pub(crate) database: DatabaseStatus,
    /// Grafana's organisation; `null` if none is set.
    pub(crate) organisation: Option<OrganisationStatus>,
    pub(crate) data_source: DataSourceStatus,
    pub(crate) dashboard: DashboardStatus,
    /// The dashboards of `--dashboard`.
    pub(crate) user_dashboards: Vec<UserDashboardStatus>,
    /// The alert rules; `null` if alerts were never set.
    pub(crate) alerts: Option<AlertsStatus>,
    pub(crate) account: AccountStatus,
    #[serde(rename = "clipper")]
    pub(crate) reports: Reports,
    /// The differences, one sentence each.
    pub(crate) findings: Vec<String>,
    /// Hints with the next command to type.
    pub(crate) hints: Vec<String>,
    /// Other instances on this engine.
    #[serde(rename = "other_instances")]
    pub(crate) others: Vec<String>,
    /// The executed or planned steps; for `up` and `down` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) steps: Option<Vec<StepStatus>>,
    /// The questions that must be confirmed before the steps run; with `--dry-run` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confirmations: Option<Vec<String>>,
    /// The models that Clipper's file names.
    #[serde(skip)]
    pub(crate) configured_models: Vec<String>,
    #[serde(skip)]
    pub(crate) clipper_file: ClipperSettings,
    /// Hints about containers that carry the instance's labels but do not belong to it; also contained in `hints`.
    #[serde(skip)]
    pub(crate) lookalikes: Vec<String>,
    /// Set if there is no instance of that name.
    #[serde(skip)]
    pub(crate) no_instance: Option<NoInstance>,
    /// Hints about volumes that were deleted; also contained in `hints`.
    #[serde(skip)]
    pub(crate) lost_volumes: Vec<String>,
    /// Whether Grafana has the stack's folder, if it was read.
    #[serde(skip)]
    pub(crate) has_folder: Option<bool>,
    /// Whether Grafana has the folder of the alert rules, if it was read.
    #[serde(skip)]
    pub(crate) has_alert_folder: Option<bool>,
    /// Warnings about external servers on loopback that other hosts can reach; also contained in `hints`.
    #[serde(skip)]
    pub(crate) exposures: Vec<String>,
    /// The first reason why `up` cannot proceed.
    #[serde(skip)]
    pub(crate) blocker: Option<Blocker>,
    /// Makes suggested commands reach the same instance.
    #[serde(skip)]
    pub(crate) invocation: Invocation,
}

/// The engine that answered.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Engine"))]
pub(crate) struct EngineStatus {
    pub(crate) endpoint: String,
    /// Why this engine is used: an option, a variable, a context or the default.
    pub(crate) chosen_by: String,
    pub(crate) version: String,
    pub(crate) api_version: String,
    /// Other hosts on the engine's network can reach ports that are published on loopback, as before Docker 28.0;
    /// `null` if unknown.
    pub(crate) exposes_loopback: Option<bool>,
}

names! {
    /// The state of an object inside a server, compared with the stack.
    pub(crate) enum ObjectState {
        /// It does not exist.
        Missing = "missing",
        /// It is as specified.
        InSync = "in_sync",
        /// It exists and differs.
        Differs = "differs",
        /// A user edited it, so it is kept.
        Edited = "edited",
        /// Another object is in its place.
        Foreign = "foreign",
        /// It could not be read.
        Unknown = "unknown",
    }
}

/// Clipper's database.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Database"))]
pub(crate) struct DatabaseStatus {
    pub(crate) name: String,
    pub(crate) state: ObjectState,
    /// Its retention period, such as `90d` or `for ever`; `null` if unknown.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) retention: Option<Retention>,
    pub(crate) differences: Vec<Difference>,
}

/// An object inside a server.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Named"))]
pub(crate) struct OrganisationStatus {
    pub(crate) name: String,
    pub(crate) state: ObjectState,
    pub(crate) differences: Vec<Difference>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "DataSource"))]
pub(crate) struct DataSourceStatus {
    pub(crate) uid: String,
    pub(crate) state: ObjectState,
    /// The result of a query through it: `ok` or `failing`; `null` if no query was sent.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) query: Option<QueryState>,
    pub(crate) query_error: Option<String>,
    pub(crate) differences: Vec<Difference>,
}

names! {
    /// The result of a query through the data source.
    pub(crate) enum QueryState {
        /// It returned the database's data.
        Ok = "ok",
        /// It failed.
        Failing = "failing",
    }
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Dashboard"))]
pub(crate) struct DashboardStatus {
    pub(crate) uid: String,
    #[serde(skip)]
    pub(crate) title: String,
    pub(crate) state: ObjectState,
    pub(crate) url: String,
    /// The command that forwards it to this machine if the engine is behind ssh; otherwise `null`.
    pub(crate) forward_command: Option<String>,
    /// The latency objective that it shows, in microseconds.
    pub(crate) objective_micros: Option<u64>,
    pub(crate) differences: Vec<Difference>,
}

/// A user's dashboard.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "UserDashboard"))]
pub(crate) struct UserDashboardStatus {
    pub(crate) uid: String,
    pub(crate) title: String,
    /// Its file.
    pub(crate) file: String,
    pub(crate) state: ObjectState,
    pub(crate) url: String,
    pub(crate) differences: Vec<Difference>,
    /// Its parts that cannot work, and the changes made to import it, one sentence each.
    pub(crate) limitations: Vec<String>,
}

/// Both alert rules together.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Alerts"))]
pub(crate) struct AlertsStatus {
    // Their conditions, in short form.
    #[serde(skip)]
    pub(crate) conditions: String,
    // The address of the page on which a user adds a contact point.
    #[serde(skip)]
    pub(crate) contact_points: String,
    pub(crate) state: ObjectState,
    pub(crate) differences: Vec<Difference>,
}

/// A resource as text shows it.
pub(crate) struct ResourceRow<'a> {
    pub(crate) resource: Resource,
    pub(crate) name: &'a str,
    pub(crate) state: ObjectState,
    pub(crate) differences: &'a [Difference],
    pub(crate) note: Note<'a>,
    /// The variable of `--output env` that identifies it: the resource's name there, the variable's suffix, and its value.
    pub(crate) variable: Option<(&'static str, &'static str, &'a str)>,
}

/// A note at the end of a row.
pub(crate) enum Note<'a> {
    None,
    Fact(String),
    Success(&'static str),
    Failure(String),
    /// Title and address.
    Dashboard(&'a str, &'a str),
}

/// The account that signs in to Grafana.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Account"))]
pub(crate) struct AccountStatus {
    pub(crate) user: String,
    /// With `--show-secrets` only.
    #[serde(serialize_with = "revealed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) password: Option<Secret>,
    /// The password is Grafana's default.
    #[serde(skip)]
    pub(crate) is_default: bool,
    /// The account is known, because clipper-metrics manages the server.
    #[serde(skip)]
    pub(crate) is_known: bool,
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn revealed<S: Serializer>(password: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    password.as_ref().map(Secret::reveal).serialize(serializer)
}

/// An executed or planned step.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Step"))]
pub(crate) struct StepStatus {
    pub(crate) resource: String,
    pub(crate) action: &'static str,
    pub(crate) reason: String,
    /// Its duration; `null` if it was not executed.
    pub(crate) seconds: Option<Seconds>,
    #[serde(skip)]
    pub(crate) step: Step,
}

impl StepStatus {
    fn new(step: &Step, reason: String, seconds: Option<Seconds>) -> Self {
        Self { resource: step.resource().to_string(), action: step.action(), reason, seconds, step: step.clone() }
    }
}

impl AccountStatus {
    pub(crate) fn new(stack: &Stack, seen: &Observed, password: Option<Secret>) -> Self {
        let is_known = stack.container(Role::Grafana).is_some();
        let actual = seen.grafana.container.ours().filter(|_| is_known);
        let is_default = match seen.grafana.login.account {
            SignedInAccount::DefaultPassword => true,
            SignedInAccount::OwnPassword | SignedInAccount::Other => false,
            SignedInAccount::SignedOut => actual
                .and_then(|actual| actual.config.as_ref())
                .is_none_or(|config| config.password == PasswordSource::Default),
        };
        Self { user: stack.login.user.clone(), password, is_default, is_known }
    }
}

impl UserDashboardStatus {
    /// Its limitations, each with the dashboard's title.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = String> + '_ {
        self.limitations.iter().map(|why| format!("dashboard {:?}: {why}", self.title))
    }
}

impl Status {
    /// Derives the status.
    pub(crate) fn new(stack: &Stack, seen: &Observed, plan: &Plan, reports: Reports, account: AccountStatus) -> Self {
        let servers = PerRole::from_fn(|role| server(stack, seen.server(role), plan, role));
        let user_dashboards = user_dashboards(stack, seen, plan, &servers.grafana.url);
        let invocation = invocation(stack, plan);
        let remarks = user_dashboards.iter().flat_map(UserDashboardStatus::remarks);
        let mut hints = hints::hints(stack, seen, plan, &invocation, remarks);
        hints.extend(reports.hints.iter().cloned());
        hints.dedup();
        Self {
            schema: SchemaVersion,
            instance: stack.instance.clone(),
            in_sync: plan.in_sync(),
            engine: seen.engine.as_ref().map(engine),
            database: database(stack, seen, plan),
            organisation: stack.organisation.as_ref().map(|name| {
                let (state, differences) = compared(plan, Resource::Organisation);
                OrganisationStatus { name: name.clone(), state, differences }
            }),
            data_source: data_source(stack, seen, plan),
            dashboard: dashboard(stack, seen, plan, &servers.grafana.url),
            user_dashboards,
            alerts: plan.finding(Resource::Alerts).map(|_| {
                let (state, differences) = compared(plan, Resource::Alerts);
                let contact_points = page_url(&servers.grafana.url, "alerting/notifications", Some(seen));
                AlertsStatus { conditions: alert_conditions(stack), contact_points, state, differences }
            }),
            account,
            reports,
            findings: findings(stack, plan),
            hints,
            others: seen.others.clone(),
            steps: None,
            confirmations: None,
            configured_models: named_models(stack, seen),
            clipper_file: clipper_file(stack),
            lookalikes: hints::lookalikes(seen).collect(),
            no_instance: hints::no_instance(stack, seen),
            lost_volumes: hints::lost_volumes(stack, seen, plan),
            has_folder: seen.grafana_state().and_then(|grafana| match grafana.folder {
                FolderState::Present { .. } => Some(true),
                FolderState::Missing => Some(false),
                FolderState::NotConfigured | FolderState::TitleTaken { .. } | FolderState::Unreadable(_) => None,
            }),
            has_alert_folder: seen.grafana_state().and_then(|grafana| match &grafana.alerts {
                AlertRulesState::Seen(alerts) => Some(alerts.folder.is_some()),
                _ => None,
            }),
            exposures: Vec::new(),
            blocker: plan.blocker().map(|(_, blocker)| blocker.clone()),
            invocation,
            servers,
        }
    }

    /// Adds the steps that a run has executed.
    pub(crate) fn executed(self, steps: &[ExecutedStep]) -> Self {
        let steps = steps.iter().map(|done| StepStatus::new(&done.step, done.reason.clone(), Some(Seconds(done.time))));
        Self { steps: Some(steps.collect()), ..self }
    }

    /// Adds the steps of a plan, and the questions that must be confirmed first.
    pub(crate) fn planned(self, plan: &Plan, questions: Vec<String>) -> Self {
        let steps = plan.steps().map(|(step, finding)| StepStatus::new(step, finding.to_string(), None));
        Self { steps: Some(steps.collect()), confirmations: Some(questions), ..self }
    }

    /// The resources inside the servers, in the order of the table.
    pub(crate) fn resources(&self) -> Vec<ResourceRow<'_>> {
        macro_rules! row {
            ($resource:expr, $object:ident.$name:ident, $note:expr, $variable:expr) => {{
                let (name, state, differences) = (&$object.$name, $object.state, &$object.differences);
                ResourceRow { resource: $resource, name, state, differences, note: $note, variable: $variable }
            }};
        }
        let Self { database, data_source, dashboard, .. } = self;
        let retention = database.retention.map_or(Note::None, |retention| Note::Fact(format!("retention {retention}")));
        let query = match (data_source.query, &data_source.query_error) {
            (None, _) => Note::None,
            (Some(QueryState::Ok), _) => Note::Success("queries reach the database"),
            (Some(QueryState::Failing), why) => {
                Note::Failure(format!("queries fail: {}", why.as_deref().unwrap_or_default()))
            }
        };
        let link = Note::Dashboard(&dashboard.title, &dashboard.url);
        let mut rows = vec![row!(Resource::Database, database.name, retention, Some(("DATABASE", "", &database.name)))];
        rows.extend(self.organisation.iter().map(|named| row!(Resource::Organisation, named.name, Note::None, None)));
        rows.push(row!(Resource::DataSource, data_source.uid, query, Some(("DATA_SOURCE", "_UID", &data_source.uid))));
        let variable = Some(("DASHBOARD", "_URL", dashboard.url.as_str()));
        rows.push(row!(Resource::Dashboard(DashboardId::Bundled), dashboard.uid, link, variable));
        rows.extend(self.user_dashboards.iter().enumerate().map(|(index, own)| {
            let link = Note::Dashboard(&own.title, &own.url);
            row!(Resource::Dashboard(DashboardId::User(index)), own.uid, link, None)
        }));
        rows.extend(self.alerts.iter().map(|alerts| row!(Resource::Alerts, alerts.conditions, Note::None, None)));
        rows
    }

    /// Titles and addresses of the dashboards that users edited.
    pub(crate) fn edited_dashboards(&self) -> impl Iterator<Item = (&str, &str)> {
        self.resources().into_iter().filter_map(|row| match (row.state, row.note) {
            (ObjectState::Edited, Note::Dashboard(title, url)) => Some((title, url)),
            _ => None,
        })
    }
}

/// The invocation that suggested commands repeat: remembered settings need not be typed again.
fn invocation(stack: &Stack, plan: &Plan) -> Invocation {
    let is_saved = plan.finding(Resource::Settings) == Some(&Finding::InSync);
    if is_saved { stack.invocation.saved() } else { stack.invocation.clone() }
}

/// The state of a resource and its differences from the stack.
fn compared(plan: &Plan, resource: Resource) -> (ObjectState, Vec<Difference>) {
    let finding = plan.finding(resource).unwrap_or(&Finding::Unknown);
    (object_state(finding), finding.differences().to_vec())
}

fn engine(engine: &EngineInfo) -> EngineStatus {
    EngineStatus {
        endpoint: engine.endpoint.clone(),
        chosen_by: engine.chosen_by.clone(),
        version: engine.version.clone(),
        api_version: engine.api_version.clone(),
        exposes_loopback: engine.exposes_loopback(),
    }
}

fn database(stack: &Stack, seen: &Observed, plan: &Plan) -> DatabaseStatus {
    let (state, differences) = compared(plan, Resource::Database);
    let retention = seen.influxdb_state().and_then(|influxdb| influxdb.retention);
    DatabaseStatus { name: stack.database.clone(), state, retention, differences }
}

fn data_source(stack: &Stack, seen: &Observed, plan: &Plan) -> DataSourceStatus {
    let (state, differences) = compared(plan, Resource::DataSource);
    let grafana = seen.grafana_state();
    let is_foreign = grafana.is_some_and(|grafana| matches!(grafana.data_source, DataSourceState::Foreign(_)));
    let (query, query_error) = match grafana.map(|grafana| &grafana.query) {
        Some(Query::Ok) => (Some(QueryState::Ok), None),
        Some(Query::Failing(why)) => (Some(QueryState::Failing), Some(why.clone())),
        Some(Query::Unasked) | None => (None, None),
    };
    let state = if is_foreign { ObjectState::Foreign } else { state };
    DataSourceStatus { uid: stack.data_source.uid.clone(), state, query, query_error, differences }
}

fn dashboard(stack: &Stack, seen: &Observed, plan: &Plan, grafana: &str) -> DashboardStatus {
    let (state, differences) = compared(plan, Resource::Dashboard(DashboardId::Bundled));
    DashboardStatus {
        uid: stack.dashboard.uid.clone(),
        title: stack.dashboard.title.clone(),
        state,
        url: dashboard_url(grafana, &stack.dashboard.uid, Some(seen)),
        forward_command: stack.forward_command(),
        objective_micros: objective(stack, seen),
        differences,
    }
}

/// The address of a dashboard.
pub(crate) fn dashboard_url(grafana: &str, uid: &str, seen: Option<&Observed>) -> String {
    page_url(grafana, &format!("d/{uid}"), seen)
}

/// The address of one of Grafana's pages.
fn page_url(grafana: &str, page: &str, seen: Option<&Observed>) -> String {
    let organisation = seen.and_then(Observed::grafana_state).and_then(|grafana| grafana.organisation_id);
    OrganisationState::in_address(organisation)
        .map_or_else(|| format!("{grafana}/{page}"), |id| format!("{grafana}/{page}?orgId={id}"))
}

fn user_dashboards(stack: &Stack, seen: &Observed, plan: &Plan, grafana: &str) -> Vec<UserDashboardStatus> {
    let catalogue = seen.grafana_state().and_then(|grafana| grafana.catalogue.as_ref());
    let status = |(index, own): (usize, &DesiredUserDashboard)| {
        let (state, differences) = compared(plan, Resource::Dashboard(DashboardId::User(index)));
        UserDashboardStatus {
            uid: own.uid.clone(),
            title: own.title.clone(),
            file: own.path.clone(),
            state,
            url: dashboard_url(grafana, &own.uid, Some(seen)),
            differences,
            limitations: hints::limitations(own, catalogue),
        }
    };
    stack.user_dashboards.iter().enumerate().map(status).collect()
}

/// The current latency objective: from the file, otherwise from the dashboard.
pub(crate) fn objective(stack: &Stack, seen: &Observed) -> Option<u64> {
    stack.dashboard.objective.or_else(|| carried(seen)?.objective)
}

/// The models in Clipper's file: from the file, otherwise from the dashboard.
pub(crate) fn named_models(stack: &Stack, seen: &Observed) -> Vec<String> {
    let models = stack.dashboard.models.clone();
    models.or_else(|| Some(carried(seen)?.models.clone())).unwrap_or_default()
}

fn carried(seen: &Observed) -> Option<&ActualDashboard> {
    match &seen.grafana_state()?.dashboard {
        DashboardState::Present(dashboard) => Some(dashboard),
        DashboardState::Missing | DashboardState::Unreadable(_) | DashboardState::Clash { .. } => None,
    }
}

/// The conditions of the alerts, in short form.
fn alert_conditions(stack: &Stack) -> String {
    let Some(settings) = stack.alerts.settings() else { return String::new() };
    let seconds = |rule| settings.after(rule).as_secs();
    format!(
        "p99 above the objective for {}s, no report for {}s",
        seconds(AlertRule::Latency),
        seconds(AlertRule::Silence)
    )
}

fn findings(stack: &Stack, plan: &Plan) -> Vec<String> {
    let matters =
        |finding: &Finding| !matches!(finding, Finding::InSync | Finding::Edited | Finding::Kept(_) | Finding::Unknown);
    plan.items
        .iter()
        .filter(|item| matters(&item.finding))
        .map(|item| match item.resource {
            Resource::Dashboard(id @ DashboardId::User(_)) => {
                format!("dashboard {:?}: {}", stack.dashboard_identity(id).1, item.finding)
            }
            resource => format!("{resource}: {}", item.finding),
        })
        .collect()
}

const fn object_state(finding: &Finding) -> ObjectState {
    match finding {
        Finding::InSync => ObjectState::InSync,
        Finding::Edited => ObjectState::Edited,
        Finding::Missing => ObjectState::Missing,
        Finding::Differs(_) | Finding::Contradicts(_) | Finding::Requested(_) => ObjectState::Differs,
        Finding::Blocked(Blocker { kind: BlockReason::Foreign | BlockReason::Conflict, .. }) => ObjectState::Foreign,
        Finding::Stopped(_)
        | Finding::Silent(_)
        | Finding::Failing(_)
        | Finding::Unknown
        | Finding::Kept(_)
        | Finding::Unreadable(_)
        | Finding::Blocked(_) => ObjectState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::{GrafanaState, ServerResponse};
    use crate::samples;

    #[test]
    fn clippers_file_is_preferred_to_the_dashboards_values() {
        let mut stack = samples::stack();
        let mut seen = samples::observed();
        let read = |stack: &Stack, seen: &Observed| (objective(stack, seen), named_models(stack, seen));
        assert_eq!(read(&stack, &seen), (None, vec![]));
        let models = vec!["old".to_string()];
        let carried = ActualDashboard { objective: Some(7_000), models, ..samples::actual_dashboard("new") };
        let dashboard = DashboardState::Present(carried);
        seen.grafana.response =
            ServerResponse::Answering(GrafanaState { dashboard, ..samples::grafana_state() }.into());
        assert_eq!(read(&stack, &seen), (Some(7_000), vec!["old".to_string()]));
        stack.dashboard.objective = Some(9_000);
        // A file without models is not a missing file.
        stack.dashboard.models = Some(vec![]);
        assert_eq!(read(&stack, &seen), (Some(9_000), vec![]));
    }
}
