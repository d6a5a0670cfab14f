//! The files from which Grafana provisions data source, dashboards and alert rules, and the state
//! of a running Grafana that they must not lose.

use futures_util::future::{try_join, try_join_all};
use serde::Serialize;
use serde_json::{Value, json};

use super::alert_template::render;
use super::alerts::Rule;
use super::dashboard::StoredDashboard;
use super::data_source::DataSource;
use super::json::for_each_text;
use super::organisation::Organisation;
use super::versions::Capability;
use super::{Api, Grafana, alerts, dashboard, user_dashboard};
use crate::error::{Error, Result};
use crate::model::alerts::{AlertRule, AlertSettings};
use crate::model::observed::{DashboardState as Seen, OrganisationState};
use crate::model::stack::{DashboardId, DesiredDashboard, DesiredDataSource, Stack};
use crate::model::version::Version;

/// The variable that contains the password of InfluxDB's user.
pub(crate) const INFLUXDB_PASSWORD: &str = "CLIPPER_METRICS_INFLUXDB_PASSWORD";
/// How often Grafana checks a dashboard's file for changes, in seconds.
const INTERVAL: u64 = 30;

/// The state of a stack in a running Grafana.
pub(crate) struct GrafanaExport {
    /// The organisation's id.
    organisation: u64,
    /// Whether the data source is the organisation's default.
    is_default: bool,
    /// The stack's data source, as the API returns it.
    source: Option<DataSource>,
    /// The stack's dashboards in order, as the API returns them.
    dashboards: Vec<Option<StoredDashboard>>,
    /// The alert rules, as the API returns them.
    rules: Vec<Option<Rule>>,
}

impl GrafanaExport {
    /// The state of a new Grafana, in which the data source is the first one.
    #[must_use]
    pub(crate) fn new_server(stack: &Stack) -> Self {
        Self {
            organisation: OrganisationState::FIRST,
            is_default: true,
            source: None,
            dashboards: stack.dashboards().map(|_| None).collect(),
            rules: AlertRule::ALL.map(|_| None).into(),
        }
    }

    /// The titles of edited dashboards.
    #[must_use]
    pub(crate) fn edited_dashboards(&self, stack: &Stack) -> Vec<String> {
        let found = stack.dashboards().zip(&self.dashboards);
        let edited = found.filter(|(_, found)| is_edited(found.as_ref()));
        edited.map(|(id, _)| stack.dashboard_identity(id).1.to_string()).collect()
    }

    /// The titles of dashboards saved in schema v2, which these files cannot contain.
    #[must_use]
    pub(crate) fn dashboards_in_schema_v2(&self, stack: &Stack) -> Vec<String> {
        let found = stack.dashboards().zip(&self.dashboards);
        let new = found.filter(|(_, found)| found.as_ref().is_some_and(|found| found.is_v2));
        new.map(|(id, _)| stack.dashboard_identity(id).1.to_string()).collect()
    }

    /// The data source's settings whose values Grafana never returns, so that files cannot contain them.
    #[must_use]
    pub(crate) fn settings_with_secrets(&self) -> Vec<&str> {
        self.source.as_ref().map(DataSource::settings_with_secrets).unwrap_or_default()
    }

    /// The data source's settings that another Grafana does not get.
    #[must_use]
    pub(crate) fn connection_settings(&self) -> Vec<&str> {
        self.source.as_ref().map(DataSource::connection_settings).unwrap_or_default()
    }

    /// Without what the files cannot contain: another server gets dashboards as for an import.
    fn in_files(self) -> Self {
        let dashboards = self.dashboards.into_iter().map(|found| found.filter(|found| !found.is_v2));
        Self { dashboards: dashboards.collect(), source: self.source.map(DataSource::without_connection), ..self }
    }

    /// The state for a new Grafana, which has no contact points: a rule that names one would
    /// prevent its start.
    #[must_use]
    pub(crate) fn on_new_server(mut self) -> Self {
        self.rules.iter_mut().flatten().for_each(Rule::remove_notifications);
        Self { organisation: OrganisationState::FIRST, is_default: true, ..self.in_files() }
    }

    /// The state for a Grafana that was not inspected: it may have a default data source, and does
    /// not start with two.
    #[must_use]
    pub(crate) fn on_another_server(self) -> Self {
        Self { organisation: OrganisationState::FIRST, is_default: false, ..self.in_files() }
    }

    /// Whether an alert rule was edited.
    #[must_use]
    pub(crate) fn has_edited_rules(&self) -> bool {
        self.rules.iter().flatten().any(Rule::is_edited)
    }

    /// The state of a Grafana without a login: nothing is known, so its default data source stays.
    #[must_use]
    pub(crate) fn unknown(stack: &Stack) -> Self {
        Self { is_default: false, ..Self::new_server(stack) }
    }
}

impl Grafana {
    /// The state of the stack in this Grafana.
    ///
    /// # Errors
    /// An error from the server.
    pub(crate) async fn export_state(&self, stack: &Stack) -> Result<GrafanaExport> {
        let doing = "look up the organisation";
        let organisation: Organisation = self.get(doing, "/api/org").await?.ok_or_else(|| self.odd(doing))?;
        let sources = self.data_sources().await?;
        let has_default = sources.iter().any(|source| source.is_default);
        let source = sources.into_iter().find(|source| source.uid == stack.data_source.uid);
        let is_default = source.as_ref().map_or(!has_default, |own| own.is_default);
        let dashboards = try_join_all(stack.dashboards().map(async |id| {
            let (uid, ..) = stack.dashboard_identity(id);
            let found = self.dashboard(uid).await?;
            // Another owner's object with that uid is not part of this stack.
            let seen = self.judge_dashboard(stack, id, found.as_ref()).await?;
            let Some(own) = found.filter(|_| matches!(seen, Seen::Present(_))) else { return Ok(None) };
            Ok(Some(StoredDashboard { is_v2: own.is_v2 || self.is_converted(uid).await?, ..own }))
        }));
        let has_rules = stack.alerts.settings().is_some() && self.has(Capability::AlertRules);
        let rules = try_join_all(
            AlertRule::ALL.into_iter().map(
                async |rule| {
                    if has_rules { self.alert_rule(stack, rule).await } else { Ok(None) }
                },
            ),
        );
        let (dashboards, rules) = try_join(dashboards, rules).await?;
        let organisation = organisation.id.ok_or_else(|| self.odd(doing))?;
        Ok(GrafanaExport { organisation, is_default, source, dashboards, rules })
    }
}

pub(crate) struct DashboardFile {
    /// Its uid, which is the file's name.
    pub(crate) uid: String,
    /// The index of its folder.
    pub(crate) folder: usize,
    pub(crate) content: Value,
}

/// A folder in Grafana, which corresponds to one folder of files.
#[derive(PartialEq, Eq)]
struct ProvisionedFolder {
    title: String,
    /// Its uid, if it exists.
    uid: String,
}

/// The Grafana that reads the files.
pub(crate) struct ProvisioningTarget<'a> {
    /// The data source, as that Grafana reaches it.
    pub(crate) source: &'a DesiredDataSource,
    /// The variable with the password of InfluxDB's user.
    pub(crate) password: &'a str,
    /// Grafana's version; the newest if unknown.
    pub(crate) version: Option<Version>,
    /// Whether that Grafana continues with the database of the stack's Grafana. Edits and alert
    /// rules then stay in the database and are not in the files, because nothing would remove
    /// provisioned rules.
    pub(crate) keeps_database: bool,
    /// Whether the data source stays as it is in that Grafana, because of settings that files cannot contain.
    pub(crate) keeps_source: bool,
    /// Whether files created alert rules there before, which stay until a file deletes them.
    pub(crate) deletes_rules: bool,
    /// The organisations in which an earlier export created them.
    pub(crate) earlier_organisations: &'a [u64],
}

/// All files.
pub(crate) struct Provisioning {
    pub(crate) data_source: Option<Value>,
    pub(crate) dashboards: Vec<DashboardFile>,
    /// The alert rules, or the deletion of those from an earlier file.
    pub(crate) alert_rules: Option<Value>,
    /// The folders of dashboard files.
    folders: Vec<ProvisionedFolder>,
    keeps_database: bool,
    organisation: u64,
    instance: String,
}

impl Provisioning {
    /// The files for a Grafana.
    ///
    /// # Errors
    /// [`Error::Usage`] if the version cannot provision the desired alert rules.
    pub(crate) fn new(stack: &Stack, target: &ProvisioningTarget<'_>, present: &GrafanaExport) -> Result<Self> {
        let api = Api::of(target.version);
        let mut folders = Vec::new();
        let mut dashboards = Vec::new();
        for (id, found) in stack.dashboards().zip(&present.dashboards) {
            if (target.keeps_database && is_edited(found.as_ref())) || found.as_ref().is_some_and(|found| found.is_v2) {
                continue;
            }
            let folder = folder(stack, found.as_ref());
            let at = folders.iter().position(|known| *known == folder).unwrap_or_else(|| {
                folders.push(folder);
                folders.len() - 1
            });
            let (uid, ..) = stack.dashboard_identity(id);
            let content = content(stack, target.source, id, api, found.as_ref());
            dashboards.push(DashboardFile { uid: uid.into(), folder: at, content });
        }
        let alert_rules = if target.keeps_database { None } else { alert_rules(stack, target, present)? };
        Ok(Self {
            data_source: (!target.keeps_source).then(|| data_source(target, present)),
            dashboards,
            alert_rules,
            folders,
            keeps_database: target.keeps_database,
            organisation: present.organisation,
            instance: stack.instance.clone(),
        })
    }

    /// The number of folders of dashboard files.
    #[must_use]
    pub(crate) const fn folder_count(&self) -> usize {
        self.folders.len()
    }

    /// The file that lists the dashboard folders; `path` returns the path of a folder on Grafana's server.
    #[must_use]
    pub(crate) fn providers(&self, path: impl Fn(usize) -> String) -> Value {
        let providers = self.folders.iter().enumerate().map(|(index, folder)| {
            let mut provider = json!({
                "name": self.folder_name(index), "orgId": self.organisation, "type": "file", "folder": folder.title,
                "folderUid": folder.uid, "disableDeletion": self.keeps_database, "allowUiUpdates": false,
                "updateIntervalSeconds": INTERVAL, "options": {"path": path(index)},
            });
            escape_variables(&mut provider);
            provider
        });
        json!({"apiVersion": 1, "providers": providers.collect::<Vec<_>>()})
    }

    /// The name of a folder of files. No instance has the name of another one's folder.
    #[must_use]
    pub(crate) fn folder_name(&self, index: usize) -> String {
        if index == 0 { self.instance.clone() } else { format!("{}.{}", self.instance, index + 1) }
    }
}

fn is_edited(found: Option<&StoredDashboard>) -> bool {
    found.is_some_and(|found| found.state().edited)
}

/// The folder of a dashboard: where a user moved it, otherwise the stack's folder.
fn folder(stack: &Stack, found: Option<&StoredDashboard>) -> ProvisionedFolder {
    let Some(StoredDashboard { meta, .. }) = found else {
        return ProvisionedFolder { title: stack.folder.clone().unwrap_or_default(), uid: String::new() };
    };
    let uid = meta.folder_uid.clone().unwrap_or_default();
    // Old versions identify a folder by number only, and new ones have no number.
    let is_general = uid.is_empty() && meta.folder_id.unwrap_or_default() == 0;
    ProvisionedFolder { title: if is_general { String::new() } else { meta.folder_title.clone() }, uid }
}

/// A dashboard as for an import; an edited one stays as edited.
fn content(
    stack: &Stack,
    source: &DesiredDataSource,
    id: DashboardId,
    api: Api,
    found: Option<&StoredDashboard>,
) -> Value {
    let seen = found.map(StoredDashboard::state);
    if let (Some(found), Some(true)) = (found, seen.as_ref().map(|seen| seen.edited)) {
        let mut edited = found.content.clone();
        if let Some(fields) = edited.as_object_mut() {
            for counted in dashboard::COUNTED {
                fields.remove(counted);
            }
        }
        return edited;
    }
    match id {
        DashboardId::Bundled => dashboard::render(&stack.dashboard, source, seen.as_ref(), api),
        DashboardId::User(index) => user_dashboard::render(&stack.user_dashboards[index], &stack.instance, source, api),
    }
}

/// The entry of the data source in its file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProvisionedDataSource {
    #[serde(flatten)]
    source: Value,
    org_id: u64,
    /// Old versions never reset this flag, which would outlast the file.
    editable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    secure_json_data: Option<Value>,
}

fn data_source(target: &ProvisioningTarget<'_>, present: &GrafanaExport) -> Value {
    let mut source = DataSource::new(target.source);
    source.is_default = present.is_default;
    if let Some(present) = &present.source {
        source.keep_settings(present.clone().for_file(), true);
    }
    let mut source = json!(source);
    escape_variables(&mut source);
    let secure_json_data = Some(&target.source.user).filter(|user| !user.is_empty());
    let entry = ProvisionedDataSource {
        source,
        org_id: present.organisation,
        editable: target.keeps_database,
        secure_json_data: secure_json_data.map(|_| json!({"password": target.password})),
    };
    // Grafana deletes it when the file is removed, so that `up` can create it again.
    json!({"apiVersion": 1, "prune": true, "datasources": [entry]})
}

/// The file that creates and deletes alert rules.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RulesFile {
    api_version: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    delete_rules: Vec<Value>,
}

fn alert_rules(stack: &Stack, target: &ProvisioningTarget<'_>, present: &GrafanaExport) -> Result<Option<Value>> {
    let Some(settings) = stack.alerts.settings() else {
        return Ok(deleted_rules(stack, target, present.organisation));
    };
    if let Some(version) = target.version.filter(|_| !Capability::AlertRules.is_in(target.version)) {
        return Err(Error::usage(
            format!(
                "alert rules are not exported for Grafana {version}, which supports them from {} on",
                Capability::AlertRules.since()
            ),
            "omit --alerts",
        ));
    }
    let shown = present.dashboards.first().and_then(Option::as_ref);
    let shown = shown.and_then(|found| found.state().objective);
    let rules = AlertRule::ALL.into_iter().zip(&present.rules);
    let rules = rules.map(|(rule, found)| match found {
        Some(found) if found.is_edited() => found.edited_file(),
        found => {
            let own = found.as_ref().and_then(Rule::objective);
            let objective = stack.dashboard.objective.or(own).or(shown);
            new_rule(stack, rule, settings, objective, target.source, present.organisation)
        }
    });
    let rules = rules.map(|mut rule| {
        // Grafana does not expand variables in annotations and queries.
        let fields = rule.as_object_mut().into_iter().flatten();
        fields
            .filter(|(name, _)| !matches!(name.as_str(), "annotations" | "data"))
            .for_each(|(_, field)| escape_variables(field));
        rule
    });
    let group = json!({
        "orgId": present.organisation, "name": escaped(&stack.instance),
        "folder": escaped(&alerts::folder_title(&stack.instance)), "interval": format!("{}s", alerts::INTERVAL),
        "rules": rules.collect::<Vec<_>>(),
    });
    let delete_rules = rules_in(stack, earlier_organisations(target, present.organisation));
    Ok(Some(json!(RulesFile { api_version: 1, groups: vec![group], delete_rules })))
}

/// An unedited rule in the format of a file.
fn new_rule(
    stack: &Stack,
    rule: AlertRule,
    settings: &AlertSettings,
    objective: Option<u64>,
    source: &DesiredDataSource,
    organisation: u64,
) -> Value {
    let objective = objective.unwrap_or(DesiredDashboard::DEFAULT_OBJECTIVE);
    let mut new = render(rule, settings, objective, &stack.instance, &source.uid, Some(organisation));
    new.add_mark(settings.fields(rule, objective), source);
    new.uid = alerts::uid(&stack.instance, rule);
    json!(new)
}

/// The file that deletes the instance's provisioned rules; harmless if there are none.
fn deleted_rules(stack: &Stack, target: &ProvisioningTarget<'_>, organisation: u64) -> Option<Value> {
    if !target.deletes_rules || !Capability::AlertRules.is_in(target.version) {
        return None;
    }
    let organisations = [organisation].into_iter().chain(earlier_organisations(target, organisation));
    Some(json!(RulesFile { api_version: 1, groups: Vec::new(), delete_rules: rules_in(stack, organisations) }))
}

/// The organisations in which an earlier export created rules, except the current one. Grafana keeps such rules, and
/// its API cannot delete them.
fn earlier_organisations(target: &ProvisioningTarget<'_>, organisation: u64) -> impl Iterator<Item = u64> {
    target.earlier_organisations.iter().copied().filter(move |earlier| *earlier != organisation)
}

/// References to the instance's rules in some organisations.
fn rules_in(stack: &Stack, organisations: impl Iterator<Item = u64>) -> Vec<Value> {
    let of = |organisation| {
        AlertRule::ALL.map(|rule| json!({"orgId": organisation, "uid": alerts::uid(&stack.instance, rule)}))
    };
    organisations.flat_map(of).collect()
}

/// Escapes `$` so that Grafana does not expand variables in values.
fn escape_variables(document: &mut Value) {
    for_each_text(document, &mut |text| *text = escaped(text));
}

fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}
