//! The stored alert rules of an instance: their ownership, and a user's edits.
//!
//! Where notifications go is up to the user.

use std::collections::BTreeMap;

use futures_util::future::try_join;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::json::{Elements, Texts, lenient, read};
use super::store::{GrafanaFolder, is_own};
use super::versions::Capability;
use super::{Grafana, dashboard, or_unreadable, path};
use crate::digest::fingerprint;
use crate::error::{Error, Result};
use crate::model::alerts::{AlertRule, AlertSettings, Alerts};
use crate::model::observed::{ActualAlerts, ActualRule, AlertFolder, AlertRulesState, OtherObject};
use crate::model::stack::{DesiredDataSource, MadeFor, Stack};

/// The title of the folder, followed by the instance's name.
const FOLDER: &str = "Clipper Metrics alerts";
/// The annotation that marks a rule as sent by clipper-metrics. Grafana does not show annotations
/// of this form, and keeps them when a user saves the rule.
const MARK: &str = "__clipper_metrics__";
/// The provenance of rules created through the API.
const FROM_API: &str = "api";
/// The list of all rules.
pub(super) const ALL_RULES: &str = "/api/v1/provisioning/alert-rules";
/// The evaluation interval in seconds; Grafana accepts multiples of 10.
pub(super) const INTERVAL: u64 = 10;
/// The fields in which a user's edit is detected.
const CONTENT: [&str; 11] = [
    "title",
    "condition",
    "for",
    "data",
    "noDataState",
    "execErrState",
    "annotations",
    "labels",
    "isPaused",
    "keep_firing_for",
    "notification_settings",
];

lenient! {
    /// An alert rule, which is saved as a whole.
    #[derive(Serialize)]
    pub(super) struct Rule {
        #[serde(skip_serializing_if = "String::is_empty")]
        pub(super) uid: String,
        title: String,
        #[serde(rename = "folderUID", skip_serializing_if = "String::is_empty")]
        pub(super) folder_uid: String,
        #[serde(rename = "ruleGroup", skip_serializing_if = "String::is_empty")]
        pub(super) group: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        provenance: String,
        #[serde(skip_serializing_if = "Map::is_empty")]
        annotations: Map<String, Value>,
        #[serde(flatten)]
        pub(super) rest: Map<String, Value>,
    }

    /// The rules that are evaluated together, which are saved as a whole.
    #[derive(Serialize)]
    pub(super) struct RuleGroup {
        pub(super) rules: Elements<Rule>,
        #[serde(flatten)]
        pub(super) rest: Map<String, Value>,
    }

    /// The mark of a rule.
    #[derive(Serialize)]
    struct RuleMark {
        /// The fingerprint of the content.
        content: String,
        /// The settings that it was created with.
        fields: Texts,
        made_for: Option<MadeFor>,
    }
}

/// A title for an instance; the default instance needs no name in it.
pub(super) fn titled(title: &str, instance: &str) -> String {
    if instance == dashboard::DEFAULT_NAME { title.into() } else { format!("{title} ({instance})") }
}

/// The uid of an instance's rule.
pub(super) fn uid(instance: &str, rule: AlertRule) -> String {
    format!("alert-{}", fingerprint(format!("{instance} {}", rule.name()).as_bytes()))
}

/// The path of the rule with that uid.
pub(super) fn rule_path(uid: &str) -> String {
    path(&["api", "v1", "provisioning", "alert-rules", uid])
}

/// The title of the folder for an instance's rules.
pub(super) fn folder_title(instance: &str) -> String {
    titled(FOLDER, instance)
}

pub(super) fn in_folder<'a>(all: &'a [Rule], folder: &'a GrafanaFolder) -> impl Iterator<Item = &'a Rule> {
    all.iter().filter(|rule| rule.folder_uid == folder.uid)
}

impl Rule {
    pub(super) fn state(&self) -> ActualRule {
        let RuleMark { content, fields: Texts(fields), made_for } = self.mark();
        let (edited, provisioned) = (content != self.content_fingerprint(), self.is_provisioned());
        let (folder_uid, group) = (self.folder_uid.clone(), self.group.clone());
        ActualRule::Present { edited, provisioned, fields, made_for, folder_uid, group }
    }

    /// Whether a file provides it. Rules created through the API can be changed.
    fn is_provisioned(&self) -> bool {
        !matches!(self.provenance.as_str(), "" | FROM_API)
    }

    /// Whether Grafana marked it as created through the API, so that only the API can change it.
    pub(super) fn is_from_api(&self) -> bool {
        self.provenance == FROM_API
    }

    /// Whether a user edited it.
    pub(super) fn is_edited(&self) -> bool {
        matches!(self.state(), ActualRule::Present { edited: true, .. })
    }

    fn mark(&self) -> RuleMark {
        let written = self.annotations.get(MARK).and_then(Value::as_str);
        written.and_then(|written| serde_json::from_str(written).ok()).map(read).unwrap_or_default()
    }

    pub(super) fn add_mark(&mut self, fields: BTreeMap<String, String>, source: &DesiredDataSource) {
        let mark =
            RuleMark { content: self.content_fingerprint(), fields: Texts(fields), made_for: Some(source.made_for()) };
        self.annotations.insert(MARK.into(), json!(json!(mark).to_string()));
    }

    /// Replaces the fields that clipper-metrics sets.
    pub(super) fn replace_content(&mut self, new: Self) {
        (self.title, self.annotations) = (new.title, new.annotations);
        self.rest.extend(new.rest);
    }

    /// The rule as edited, in the format of a provisioned file.
    pub(super) fn edited_file(&self) -> Value {
        let mut file = json!(self);
        if let Some(fields) = file.as_object_mut() {
            fields.retain(|name, value| (CONTENT.contains(&name.as_str()) || name == "uid") && !value.is_null());
            // One field has a different name in files.
            let time = fields.remove("keep_firing_for");
            fields.extend(time.map(|time| ("keepFiringFor".into(), time)));
        }
        file
    }

    /// The latency objective that it was created with.
    pub(super) fn objective(&self) -> Option<u64> {
        AlertSettings::objective(&self.mark().fields)
    }

    /// Removes the contact point that a user chose.
    pub(super) fn remove_notifications(&mut self) {
        self.rest.remove("notification_settings");
    }

    /// Fingerprint of the fields that a user could change.
    fn content_fingerprint(&self) -> String {
        let field = |name| self.rest.get(name).cloned().unwrap_or_default();
        let mut content: BTreeMap<&str, Value> = CONTENT.map(|name| (name, field(name))).into();
        let mut annotations = self.annotations.clone();
        annotations.remove(MARK);
        content.insert("title", json!(self.title));
        content.insert("annotations", json!(annotations));
        // Versions that cannot pause a rule omit the field.
        content.entry("isPaused").and_modify(|paused| *paused = json!(*paused == true));
        content
            .entry("keep_firing_for")
            .and_modify(|time| *time = json!(time.as_str().is_some_and(|time| time != "0s")));
        let mut content = json!(content);
        dashboard::whole_numbers(&mut content);
        fingerprint(content.to_string().as_bytes())
    }
}

impl Grafana {
    /// The instance's rules, if a setting turns them on or off.
    pub(super) async fn seen_alerts(&self, stack: &Stack) -> Result<AlertRulesState> {
        if stack.alerts == Alerts::NotManaged || !self.has(Capability::AlertRules) {
            return Ok(self.unread_alerts(stack));
        }
        or_unreadable(self.read_alerts(stack).await, AlertRulesState::Unreadable)
    }

    /// Reads the rules, and their folder if a step may change it or a rule.
    async fn read_alerts(&self, stack: &Stack) -> Result<AlertRulesState> {
        let state = async |rule| {
            let found = self.alert_rule(stack, rule).await?;
            Ok(found.map_or(ActualRule::Missing, |found| found.state()))
        };
        let (latency, silence) = try_join(state(AlertRule::Latency), state(AlertRule::Silence)).await?;
        let mut alerts = ActualAlerts { latency, silence, folder: None };
        let Some(settings) = stack.alerts.settings() else {
            alerts.folder = self.folder_to_remove(stack).await?;
            return Ok(AlertRulesState::Seen(Box::new(alerts)));
        };
        let is_in_sync = |rule: AlertRule| alerts.rule(rule).is_in_sync(stack, settings, rule);
        if AlertRule::ALL.into_iter().all(is_in_sync) {
            return Ok(AlertRulesState::Seen(Box::new(alerts)));
        }
        let title = folder_title(&stack.instance);
        let found = self.folder(&stack.instance, &title).await;
        let needs_folder = [&alerts.latency, &alerts.silence].into_iter().any(ActualRule::is_unfinished);
        // A finished rule can be saved alone.
        let folder = if needs_folder { found? } else { if_readable(found)?.flatten() };
        let is_missing = |rule: &AlertRule| *alerts.rule(*rule) == ActualRule::Missing;
        let missing: Vec<AlertRule> = AlertRule::ALL.into_iter().filter(is_missing).collect();
        if !missing.is_empty() {
            let Some(Elements(all)) = self.get("list the alert rules", ALL_RULES).await? else {
                return Ok(AlertRulesState::Unavailable("alerting is switched off in this Grafana".into()));
            };
            let is_title_taken = folder.is_none() && self.is_title_taken(&title).await?;
            for rule in missing {
                *alerts.rule_mut(rule) = match &folder {
                    Some(folder) => in_place_of(stack, rule, in_folder(&all, folder)),
                    None if is_title_taken => ActualRule::Clash(format!("a dashboard called {title:?}").into()),
                    None => ActualRule::Missing,
                };
            }
        }
        alerts.folder = folder.map(|folder| AlertFolder { uid: folder.uid, holds_only_rules: false });
        Ok(AlertRulesState::Seen(Box::new(alerts)))
    }

    /// The folder of rules that are off. Whatever the account cannot read counts as something else in it.
    async fn folder_to_remove(&self, stack: &Stack) -> Result<Option<AlertFolder>> {
        let title = folder_title(&stack.instance);
        let Some(folder) = if_readable(self.folder(&stack.instance, &title).await)?.flatten() else { return Ok(None) };
        let is_own = is_own(&folder, &stack.instance, &title);
        let holds_only_rules = is_own && if_readable(self.holds_only_rules(stack, &folder).await)?.unwrap_or_default();
        Ok(Some(AlertFolder { uid: folder.uid, holds_only_rules }))
    }

    /// Whether a folder holds nothing but the instance's unedited rules.
    async fn holds_only_rules(&self, stack: &Stack, folder: &GrafanaFolder) -> Result<bool> {
        let Some(Elements(all)) = self.get("list the alert rules", ALL_RULES).await? else { return Ok(false) };
        let uids = AlertRule::ALL.map(|rule| uid(&stack.instance, rule));
        let is_other = |rule: &Rule| !uids.contains(&rule.uid) || rule.is_edited();
        Ok(!in_folder(&all, folder).any(is_other) && self.is_empty_folder(folder).await?)
    }

    /// The state of the instance's rules as far as it is known without a request.
    pub(super) fn unread_alerts(&self, stack: &Stack) -> AlertRulesState {
        if stack.alerts == Alerts::NotManaged || self.has(Capability::AlertRules) {
            return AlertRulesState::NotRead;
        }
        let first = Capability::AlertRules.since();
        let why = format!("this Grafana has no API for alert rules that users can edit; {first} introduced it");
        AlertRulesState::Unavailable(why)
    }

    pub(super) async fn alert_rule(&self, stack: &Stack, rule: AlertRule) -> Result<Option<Rule>> {
        self.get("read an alert rule", &rule_path(&uid(&stack.instance, rule))).await
    }
}

/// The result of a read; `None` if Grafana answered with an error.
fn if_readable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(Error::Answer { .. }) => Ok(None),
        read => read.map(Some),
    }
}

/// The rule of the folder that has the title of a missing one.
fn in_place_of<'a>(stack: &Stack, rule: AlertRule, mut present: impl Iterator<Item = &'a Rule>) -> ActualRule {
    let wanted = titled(rule.title(), &stack.instance);
    present.find(|rule| rule.title == wanted).map_or(ActualRule::Missing, |rule| {
        let what = format!("an alert rule called {wanted:?} in the folder {:?}", folder_title(&stack.instance));
        ActualRule::Clash(OtherObject { provisioned: rule.is_provisioned(), ..what.into() })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::alert_template::{content_hash, render};
    use super::*;
    use crate::samples;

    fn settings() -> AlertSettings {
        AlertSettings {
            latency_after: Duration::from_secs(30),
            silence_after: Duration::from_secs(100),
            content_hash: content_hash(),
        }
    }

    fn state(rule: &Value) -> ActualRule {
        read::<Rule>(rule.clone()).state()
    }

    #[test]
    fn a_sent_rule_is_recognised_with_fields_added_by_grafana() {
        for rule in AlertRule::ALL {
            let fields = settings().fields(rule, 20_000);
            let mut sent = render(rule, &settings(), 20_000, "x", "x", None);
            sent.add_mark(fields.clone(), &samples::data_source());
            let mut sent = json!(sent);
            (sent["id"], sent["updated"], sent["record"]) = (json!(3), json!("now"), Value::Null);
            sent.as_object_mut().unwrap().remove("isPaused");
            (sent["folderUID"], sent["ruleGroup"]) = (json!("f"), json!("g"));
            let (made_for, folder_uid, group) = (Some(samples::data_source().made_for()), "f".into(), "g".into());
            let expected =
                ActualRule::Present { edited: false, provisioned: false, fields, made_for, folder_uid, group };
            assert_eq!(state(&sent), expected);
            sent["keep_firing_for"] = json!("0s");
            sent["data"][1]["model"]["conditions"][0]["evaluator"]["params"] = match rule {
                AlertRule::Latency => json!([20]),
                AlertRule::Silence => json!([1.0]),
            };
            assert!(matches!(state(&sent), ActualRule::Present { edited: false, .. }), "20 and 20.0 are the same");
            for (field, value) in [
                ("for", json!("1h")),
                ("isPaused", json!(true)),
                ("labels", json!({"a": "b"})),
                ("keep_firing_for", json!("5m")),
                ("notification_settings", json!({"receiver": "me"})),
            ] {
                let mut edited = sent.clone();
                edited[field] = value;
                assert!(matches!(state(&edited), ActualRule::Present { edited: true, .. }), "{field}");
            }
        }
    }

    #[test]
    fn a_group_is_saved_with_all_fields_that_it_had() {
        let group = json!({
            "title": "g", "folderUid": "f", "interval": 30, "rules": [
                {"uid": "u", "title": "t", "folderUID": "f", "orgID": 1, "annotations": {"a": "b"}, "record": null},
                {"uid": "v", "title": "w", "folderUID": "f", "provenance": "file", "data": [{"model": {"x": 1.5}}]},
            ],
        });
        assert_eq!(json!(read::<RuleGroup>(group.clone())), group);
    }

    #[test]
    fn invalid_content_counts_as_edited() {
        for garbage in [json!(null), json!([]), json!({"annotations": {MARK: "{"}}), json!({"annotations": {MARK: 3}})]
        {
            assert!(matches!(state(&garbage), ActualRule::Present { edited: true, .. }));
        }
    }
}
