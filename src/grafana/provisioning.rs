//! The files from which Grafana provisions data source, dashboards and alert rules, and the state
//! of a running Grafana that they must not lose.

use futures_util::future::{try_join, try_join_all};
use serde_json::{Value, json};

use super::schema_v2::is_v2;
use super::{Api, Grafana, alerts, dashboard, text, user_dashboard};
use crate::error::{Error, Result};
use crate::model::alerts::AlertRule;
use crate::model::observed::DashboardState as Seen;
use crate::model::stack::{DashboardId, DesiredDataSource, Stack};
use crate::model::version::Version;

/// The variable that contains the password of InfluxDB's user.
pub const INFLUXDB_PASSWORD: &str = "CLIPPER_METRICS_INFLUXDB_PASSWORD";
/// The organisation of a new Grafana.
const FIRST_ORGANISATION: u64 = 1;
/// How often Grafana checks a dashboard's file for changes, in seconds.
const INTERVAL: u64 = 30;

/// The state of a stack in a running Grafana.
pub struct GrafanaExport {
    /// The organisation's id.
    organisation: u64,
    /// Whether the data source is the organisation's default.
    is_default: bool,
    /// The stack's dashboards in order, as the API returns them.
    dashboards: Vec<Option<Value>>,
    /// The alert rules, as the API returns them.
    rules: Vec<Option<Value>>,
}

impl GrafanaExport {
    /// The state of a new Grafana, in which the data source is the first one.
    #[must_use]
    pub fn new_server(stack: &Stack) -> Self {
        Self {
            organisation: FIRST_ORGANISATION,
            is_default: true,
            dashboards: stack.dashboards().map(|_| None).collect(),
            rules: AlertRule::ALL.map(|_| None).into(),
        }
    }

    /// The titles of edited dashboards.
    #[must_use]
    pub fn edited_dashboards(&self, stack: &Stack) -> Vec<String> {
        let found = stack.dashboards().zip(&self.dashboards);
        let edited = found.filter(|(_, found)| is_edited(found.as_ref()));
        edited.map(|(id, _)| stack.dashboard_identity(id).1.to_string()).collect()
    }

    /// The titles of dashboards saved in schema v2, which these files cannot contain.
    #[must_use]
    pub fn dashboards_in_schema_v2(&self, stack: &Stack) -> Vec<String> {
        let found = stack.dashboards().zip(&self.dashboards);
        let new = found.filter(|(_, found)| found.as_ref().is_some_and(is_v2));
        new.map(|(id, _)| stack.dashboard_identity(id).1.to_string()).collect()
    }

    /// Without dashboards that the files cannot contain: another server gets them as for an import.
    fn in_files(self) -> Self {
        let dashboards = self.dashboards.into_iter().map(|found| found.filter(|found| !is_v2(found)));
        Self { dashboards: dashboards.collect(), ..self }
    }

    /// The state for a new Grafana, which has no contact points: a rule that names one would
    /// prevent its start.
    #[must_use]
    pub fn on_new_server(mut self) -> Self {
        for rule in self.rules.iter_mut().flatten().filter_map(Value::as_object_mut) {
            rule.remove("notification_settings");
        }
        Self { organisation: FIRST_ORGANISATION, is_default: true, ..self.in_files() }
    }

    /// The state for a Grafana that was not inspected: it may have a default data source, and does
    /// not start with two.
    #[must_use]
    pub fn on_another_server(self) -> Self {
        Self { organisation: FIRST_ORGANISATION, is_default: false, ..self.in_files() }
    }

    /// Whether an alert rule was edited.
    #[must_use]
    pub fn has_edited_rules(&self) -> bool {
        self.rules.iter().flatten().any(alerts::is_edited)
    }

    /// The state of a Grafana without a login: nothing is known, so its default data source stays.
    #[must_use]
    pub fn unknown(stack: &Stack) -> Self {
        Self { is_default: false, ..Self::new_server(stack) }
    }
}

impl Grafana {
    /// The state of the stack in this Grafana.
    ///
    /// # Errors
    /// An error from the server.
    pub async fn export_state(&self, stack: &Stack) -> Result<GrafanaExport> {
        let doing = "look up the organisation";
        let organisation = self.get(doing, "/api/org").await?.ok_or_else(|| self.odd(doing))?;
        let sources = self.data_sources().await?;
        let own = sources.iter().find(|source| source["uid"] == stack.data_source.uid.as_str());
        let is_default = match own {
            Some(own) => own["isDefault"] == true,
            None => !sources.iter().any(|source| source["isDefault"] == true),
        };
        let dashboards = try_join_all(stack.dashboards().map(async |id| {
            let (uid, ..) = stack.dashboard_identity(id);
            let found = self.dashboard(uid).await?;
            // Another owner's object with that uid is not part of this stack.
            let seen = self.judge_dashboard(stack, id, found.as_ref()).await?;
            Ok(found.filter(|_| matches!(seen, Seen::Present(_))))
        }));
        let has_rules = stack.alerts.settings().is_some() && self.version.get().is_none_or(alerts::is_supported);
        let rules = try_join_all(
            AlertRule::ALL.into_iter().map(
                async |rule| {
                    if has_rules { self.alert_rule(stack, rule).await } else { Ok(None) }
                },
            ),
        );
        let (dashboards, rules) = try_join(dashboards, rules).await?;
        let organisation = organisation["id"].as_u64().ok_or_else(|| self.odd(doing))?;
        Ok(GrafanaExport { organisation, is_default, dashboards, rules })
    }
}

/// The file of a dashboard.
pub struct DashboardFile {
    /// Its uid, which is the file's name.
    pub uid: String,
    /// The index of its folder.
    pub folder: usize,
    /// Its content.
    pub content: Value,
}

/// A folder in Grafana, which corresponds to one folder of files.
#[derive(PartialEq, Eq)]
struct Folder {
    title: String,
    /// Its uid, if it exists.
    uid: String,
}

/// The purpose of the files.
pub struct ProvisioningTarget<'a> {
    /// The data source, as that Grafana reaches it.
    pub source: &'a DesiredDataSource,
    /// The variable with the password of InfluxDB's user.
    pub password: &'a str,
    /// Grafana's version; the newest if unknown.
    pub version: Option<Version>,
    /// Whether that Grafana continues with the database of the stack's Grafana. Edits and alert
    /// rules then stay in the database and are not in the files, because nothing would remove
    /// provisioned rules.
    pub keeps_database: bool,
    /// Whether files created alert rules there before, which stay until a file deletes them.
    pub deletes_rules: bool,
    /// The organisations in which an earlier export created them.
    pub earlier_organisations: &'a [u64],
}

/// All files.
pub struct Provisioning {
    /// The data source.
    pub data_source: Value,
    /// The dashboards.
    pub dashboards: Vec<DashboardFile>,
    /// The number of folders of dashboard files.
    pub folders: usize,
    /// The alert rules, or the deletion of those from an earlier file.
    pub alert_rules: Option<Value>,
    titles: Vec<Folder>,
    keeps_database: bool,
    organisation: u64,
    instance: String,
}

impl Provisioning {
    /// The files for a Grafana.
    ///
    /// # Errors
    /// [`Error::Usage`] if the version cannot provision the desired alert rules.
    pub fn new(stack: &Stack, purpose: &ProvisioningTarget<'_>, present: &GrafanaExport) -> Result<Self> {
        let api = Api::of(purpose.version);
        let mut titles = Vec::new();
        let mut dashboards = Vec::new();
        for (id, found) in stack.dashboards().zip(&present.dashboards) {
            if (purpose.keeps_database && is_edited(found.as_ref())) || found.as_ref().is_some_and(is_v2) {
                continue;
            }
            let folder = folder(stack, found.as_ref());
            let at = titles.iter().position(|known| *known == folder).unwrap_or_else(|| {
                titles.push(folder);
                titles.len() - 1
            });
            let (uid, ..) = stack.dashboard_identity(id);
            let content = content(stack, purpose.source, id, api, found.as_ref());
            dashboards.push(DashboardFile { uid: uid.into(), folder: at, content });
        }
        let alert_rules = if purpose.keeps_database { None } else { alert_rules(stack, purpose, present)? };
        Ok(Self {
            data_source: data_source(purpose, present),
            dashboards,
            folders: titles.len(),
            alert_rules,
            titles,
            keeps_database: purpose.keeps_database,
            organisation: present.organisation,
            instance: stack.instance.clone(),
        })
    }

    /// The file that lists the dashboard folders; `path` returns the path of a folder on Grafana's server.
    #[must_use]
    pub fn providers(&self, path: impl Fn(usize) -> String) -> Value {
        let providers = self.titles.iter().enumerate().map(|(index, folder)| {
            let mut provider = json!({
                "name": self.folder_name(index), "orgId": self.organisation, "type": "file", "folder": folder.title,
                "folderUid": folder.uid, "disableDeletion": self.keeps_database, "allowUiUpdates": false,
                "updateIntervalSeconds": INTERVAL, "options": {"path": path(index)},
            });
            expandable(&mut provider);
            provider
        });
        json!({"apiVersion": 1, "providers": providers.collect::<Vec<_>>()})
    }

    /// The name of a folder of files.
    #[must_use]
    pub fn folder_name(&self, index: usize) -> String {
        if index == 0 { self.instance.clone() } else { format!("{}-{}", self.instance, index + 1) }
    }
}

fn is_edited(found: Option<&Value>) -> bool {
    found.is_some_and(|found| dashboard::stored(found).edited)
}

/// The folder of a dashboard: where a user moved it, otherwise the stack's folder.
fn folder(stack: &Stack, found: Option<&Value>) -> Folder {
    match found.map(|found| &found["meta"]) {
        // Old versions identify a folder by number only, and new ones have no number.
        Some(meta) if text(&meta["folderUid"]).is_empty() && meta["folderId"].as_u64().unwrap_or_default() == 0 => {
            Folder { title: String::new(), uid: String::new() }
        }
        Some(meta) => Folder { title: text(&meta["folderTitle"]), uid: text(&meta["folderUid"]) },
        None => Folder { title: stack.folder.clone().unwrap_or_default(), uid: String::new() },
    }
}

/// A dashboard as for an import; an edited one stays as edited.
fn content(stack: &Stack, source: &DesiredDataSource, id: DashboardId, api: Api, found: Option<&Value>) -> Value {
    let seen = found.map(dashboard::stored);
    if let (Some(found), Some(true)) = (found, seen.as_ref().map(|seen| seen.edited)) {
        let mut edited = found["dashboard"].clone();
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

fn data_source(purpose: &ProvisioningTarget<'_>, present: &GrafanaExport) -> Value {
    let mut entry = super::data_source_body(purpose.source);
    entry["orgId"] = json!(present.organisation);
    entry["isDefault"] = json!(present.is_default);
    // Old versions never reset this flag, which would outlast the file.
    entry["editable"] = json!(purpose.keeps_database);
    expandable(&mut entry);
    if !purpose.source.user.is_empty() {
        entry["secureJsonData"] = json!({"password": purpose.password});
    }
    // Grafana deletes it when the file is removed, so that `up` can create it again.
    json!({"apiVersion": 1, "prune": true, "datasources": [entry]})
}

fn alert_rules(stack: &Stack, purpose: &ProvisioningTarget<'_>, present: &GrafanaExport) -> Result<Option<Value>> {
    let Some(settings) = stack.alerts.settings() else {
        return Ok(deleted_rules(stack, purpose, present.organisation));
    };
    if let Some(version) = purpose.version.filter(|version| !alerts::is_supported(*version)) {
        return Err(Error::usage(
            format!(
                "alert rules are not exported for Grafana {version}, which supports them from {} on",
                alerts::FIRST_VERSION
            ),
            "omit --alerts",
        ));
    }
    let shown = present.dashboards.first().and_then(Option::as_ref);
    let shown = shown.and_then(|found| dashboard::stored(found).objective);
    let rules = AlertRule::ALL.into_iter().zip(&present.rules);
    let rules =
        rules.map(|(rule, found)| alerts::provisioned(stack, rule, settings, shown, purpose.source, found.as_ref()));
    let rules = rules.map(|mut rule| {
        // Grafana does not expand variables in annotations and queries.
        let fields = rule.as_object_mut().into_iter().flatten();
        fields
            .filter(|(name, _)| !matches!(name.as_str(), "annotations" | "data"))
            .for_each(|(_, field)| expandable(field));
        rule
    });
    let mut group = json!({
        "orgId": present.organisation, "name": stack.instance, "folder": alerts::folder_title(&stack.instance),
        "interval": format!("{}s", alerts::INTERVAL),
    });
    expandable(&mut group);
    group["rules"] = rules.collect();
    let mut file = json!({"apiVersion": 1, "groups": [group]});
    let deleted = rules_in(stack, earlier_organisations(purpose, present.organisation));
    if !deleted.is_empty() {
        file["deleteRules"] = json!(deleted);
    }
    Ok(Some(file))
}

/// The file that deletes the instance's provisioned rules; harmless if there are none.
fn deleted_rules(stack: &Stack, purpose: &ProvisioningTarget<'_>, organisation: u64) -> Option<Value> {
    if !purpose.deletes_rules || purpose.version.is_some_and(|version| !alerts::is_supported(version)) {
        return None;
    }
    let organisations = [organisation].into_iter().chain(earlier_organisations(purpose, organisation));
    Some(json!({"apiVersion": 1, "deleteRules": rules_in(stack, organisations)}))
}

/// The organisations in which an earlier export created rules, except the current one. Grafana keeps such rules, and
/// its API cannot delete them.
fn earlier_organisations(purpose: &ProvisioningTarget<'_>, organisation: u64) -> impl Iterator<Item = u64> {
    purpose.earlier_organisations.iter().copied().filter(move |earlier| *earlier != organisation)
}

/// References to the instance's rules in some organisations.
fn rules_in(stack: &Stack, organisations: impl Iterator<Item = u64>) -> Vec<Value> {
    let of = |organisation| {
        AlertRule::ALL.map(|rule| json!({"orgId": organisation, "uid": alerts::uid(&stack.instance, rule)}))
    };
    organisations.flat_map(of).collect()
}

/// Escapes `$` so that Grafana does not expand variables in values.
fn expandable(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::Array(items) => items.iter_mut().for_each(expandable),
        Value::Object(fields) => fields.values_mut().for_each(expandable),
        _ => {}
    }
}
