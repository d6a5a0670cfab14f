//! The alert rules of an instance: their queries, their ownership, and how they are saved and removed.
//!
//! Where notifications go is up to the user.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::json::{Elements, Texts, lenient, read};
use super::store::GrafanaFolder;
use super::{EXPRESSION, Grafana, INFLUXDB, dashboard, foreign, moved, path, unreadable};
use crate::digest::fingerprint;
use crate::error::{Error, Result};
use crate::http::{Body, Request, Response};
use crate::model::alerts::{AlertRule, AlertSettings, Alerts};
use crate::model::observed::{ActualAlerts, ActualRule, AlertRulesState};
use crate::model::reports::{COUNTER, LATENCY};
use crate::model::stack::{DesiredDashboard, DesiredDataSource, MadeFor, Stack};
use crate::model::version::Version;

/// The first version whose API creates alert rules that users can edit.
pub(super) const FIRST_VERSION: Version = Version(9, 3);
/// The title of the folder, followed by the instance's name.
const FOLDER: &str = "Clipper Metrics alerts";
/// The annotation that marks a rule as sent by clipper-metrics. Grafana does not show annotations
/// of this form, and keeps them when a user saves the rule.
const MARK: &str = "__clipper_metrics__";
/// Lets users edit rules created through the API.
const EDITABLE: (&str, &str) = ("X-Disable-Provenance", "true");
/// The data source of Grafana's own expressions, by the uid that every version accepts (recorded on
/// 9.4 and 12.2).
const EXPRESSION_UID: &str = "-100";
/// The list of all rules.
const ALL_RULES: &str = "/api/v1/provisioning/alert-rules";
/// The evaluation interval in seconds; Grafana accepts multiples of 10.
pub(super) const INTERVAL: u64 = 10;
/// The period searched for a model's newest report, in seconds: four of its intervals.
const LATENCY_RANGE: u64 = 60;
/// The largest number of models for which an alert links to each.
const MODELS_LINKED: usize = 25;
/// A model that has been silent for longer no longer raises an alert, in seconds.
const SILENCE_RANGE: u64 = 86_400;
/// The panel for the latency rule.
const LATENCY_PANEL: &str = "p99 latency by model";
/// The panel for the silence rule.
const SILENCE_PANEL: &str = "Predictions per report";
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
        uid: String,
        title: String,
        #[serde(rename = "folderUID", skip_serializing_if = "String::is_empty")]
        folder_uid: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        provenance: String,
        #[serde(skip_serializing_if = "Map::is_empty")]
        annotations: Map<String, Value>,
        #[serde(flatten)]
        rest: Map<String, Value>,
    }

    /// The rules that are evaluated together, which are saved as a whole.
    #[derive(Serialize)]
    struct RuleGroup {
        rules: Elements<Rule>,
        #[serde(flatten)]
        rest: Map<String, Value>,
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

/// Fingerprint of the rules written by this program.
#[must_use]
pub(crate) fn content_hash() -> String {
    let settings = AlertSettings {
        latency_after: Duration::from_secs(1),
        silence_after: Duration::from_secs(1),
        content_hash: String::new(),
    };
    let rules = AlertRule::ALL.map(|rule| render(rule, &settings, 0, "", ""));
    fingerprint(json!(rules).to_string().as_bytes())
}

/// A rule without its mark: its query, its condition and its texts.
fn render(rule: AlertRule, settings: &AlertSettings, objective: u64, instance: &str, source: &str) -> Rule {
    let after = settings.after(rule).as_secs();
    let (range, query, evaluator, holds, suffix, shows_value, summary) = match rule {
        AlertRule::Latency => (
            LATENCY_RANGE,
            // In milliseconds, because Grafana writes large numbers with an exponent.
            format!("SELECT last(\"p99\") / 1000 FROM /{LATENCY}$/ WHERE $timeFilter AND \"size\" > 0"),
            json!({"type": "gt", "params": [millis(objective)]}),
            go_duration(after),
            LATENCY,
            true,
            format!("The p99 latency of a model is above the objective of {} ms", millis(objective)),
        ),
        AlertRule::Silence => (
            SILENCE_RANGE,
            // A zero for each model that reported within the range, plus the number of its current reports. InfluxDB
            // reads only the newest points, whatever the length of the range. Without the outer bound, it would open
            // every shard of the database; points of a clock that was ahead do not count as reports.
            format!(
                "SELECT sum(\"n\") FROM \
                 (SELECT last(\"value\") * 0 AS \"n\" FROM /{COUNTER}$/ \
                 WHERE time > now() - {SILENCE_RANGE}s AND time <= now()), \
                 (SELECT count(\"value\") AS \"n\" FROM /{COUNTER}$/ \
                 WHERE time > now() - {after}s AND time <= now()) \
                 WHERE time > now() - {SILENCE_RANGE}s"
            ),
            json!({"type": "lt", "params": [1]}),
            go_duration(0),
            COUNTER,
            false,
            format!("A model has not reported for {after} s"),
        ),
    };
    let expression = json!({"type": EXPRESSION, "uid": EXPRESSION_UID});
    let panel = dashboard::panel_id(match rule {
        AlertRule::Latency => LATENCY_PANEL,
        AlertRule::Silence => SILENCE_PANEL,
    });
    read(json!({
        "title": titled(rule.title(), instance),
        "condition": "C",
        "for": holds,
        "noDataState": "OK",
        "execErrState": if rule == AlertRule::Silence { "Error" } else { "OK" },
        "isPaused": false,
        "labels": {"clipper_metrics": instance},
        "annotations": {
            "summary": summary,
            "description": description(suffix, shows_value),
            "links": links(suffix, instance, if rule == AlertRule::Silence { "&from=now-24h&to=now" } else { "" }),
            "__dashboardUid__": instance,
            "__panelId__": panel.to_string(),
        },
        "data": [
            {
                "refId": "A", "queryType": "", "datasourceUid": source, "relativeTimeRange": {"from": range, "to": 0},
                "model": {
                    "refId": "A", "datasource": {"type": INFLUXDB, "uid": source}, "rawQuery": true,
                    "resultFormat": "time_series", "query": query, "intervalMs": 1000, "maxDataPoints": 43_200,
                },
            },
            {
                "refId": "C", "queryType": "", "datasourceUid": EXPRESSION_UID, "relativeTimeRange": {"from": 0, "to": 0},
                // The only kind of condition that accepts series that differ only in their names.
                "model": {
                    "refId": "C", "datasource": expression, "type": "classic_conditions", "expression": "",
                    "intervalMs": 1000, "maxDataPoints": 43_200,
                    "conditions": [{
                        "type": "query", "evaluator": evaluator, "operator": {"type": "and"},
                        "query": {"params": ["A"]}, "reducer": {"type": "last", "params": []},
                    }],
                },
            },
        ],
    }))
}

/// A template that lists the models of an alert, with their values if `shows_value` is set.
///
/// From 12.4 on, each entry of `$values` carries the name of its series as a label. Earlier versions leave the labels
/// empty and name the series only in `$value`, which is a string.
fn description(suffix: &str, shows_value: bool) -> String {
    let (value, replacement) = if shows_value { (" ({{ . }} ms)", "`$1 ($2 ms)`") } else { ("", "`$1`") };
    each_model(suffix, &format!("{{{{ {} }}}}{value}", model(suffix)), replacement)
}

/// A template of the addresses that show the dashboard with each model of an alert alone, or of the dashboard's address
/// if the alert has many models. The link that Grafana adds to an alert shows the models that the dashboard lists by
/// default.
fn links(suffix: &str, instance: &str, range: &str) -> String {
    let address = format!("d/{instance}?var-search=MODEL{COUNTER}&var-model=MODEL{range}");
    let one = format!("{{{{ $model := {} | urlquery }}}}{{{{ externalURL }}}}", model(suffix));
    let replacement = format!("(print externalURL `{}`)", address.replace("MODEL", "${1}"));
    let each = each_model(suffix, &format!("{one}{}", address.replace("MODEL", "{{ $model }}")), &replacement);
    format!(
        "{{{{ if gt (len $values) {MODELS_LINKED} }}}}{{{{ externalURL }}}}d/{instance}{{{{ else }}}}{each}{{{{ end }}}}"
    )
}

/// The expression for a model's name in the name of a series.
fn model(suffix: &str) -> String {
    format!(r"reReplaceAll `^(.*){suffix}\.[^.]*$` `$1` $series")
}

/// A template that writes `one` for each model of an alert, or replaces its entry in `$value`.
fn each_model(suffix: &str, one: &str, replacement: &str) -> String {
    let text =
        format!(r"\[ var='[^']*' metric='(.*?){suffix}\.[^']*' labels=\{{.*?\}} (?:type='[^']*' )?value=(\S+) \]");
    [
        r#"{{ $named := false }}{{ range $values }}{{ $series := index .Labels "__name__" }}{{ if $series }}"#,
        "{{ if $named }}, {{ end }}{{ $named = true }}",
        one,
        "{{ end }}{{ end }}{{ if not $named }}",
        &format!("{{{{ reReplaceAll `{text}` {replacement} $value }}}}{{{{ end }}}}"),
    ]
    .concat()
}

/// Converts microseconds to milliseconds.
fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1e3
}

/// Formats seconds as Grafana returns them.
fn go_duration(mut seconds: u64) -> String {
    if seconds == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            out.push_str(&format!("{}{unit}", seconds / length));
            seconds %= length;
        }
    }
    out
}

/// A title for an instance; the default instance needs no name in it.
fn titled(title: &str, instance: &str) -> String {
    if instance == dashboard::DEFAULT_NAME { title.into() } else { format!("{title} ({instance})") }
}

/// The uid of an instance's rule.
pub(super) fn uid(instance: &str, rule: AlertRule) -> String {
    format!("alert-{}", fingerprint(format!("{instance} {}", rule.name()).as_bytes()))
}

/// Whether a version of Grafana has rules that users can edit.
pub(super) fn is_supported(version: Version) -> bool {
    version >= FIRST_VERSION
}

/// The title of the folder for an instance's rules.
pub(super) fn folder_title(instance: &str) -> String {
    titled(FOLDER, instance)
}

/// A rule in the format of a provisioned file; an edited rule stays as edited. The objective is the
/// desired one, otherwise the rule's, otherwise `shown`, the dashboard's.
pub(super) fn provisioned(
    stack: &Stack,
    rule: AlertRule,
    settings: &AlertSettings,
    shown: Option<u64>,
    source: &DesiredDataSource,
    found: Option<&Rule>,
) -> Value {
    let uid = uid(&stack.instance, rule);
    if let Some(found) = found.filter(|found| found.is_edited()) {
        let mut file = json!(found);
        if let Some(fields) = file.as_object_mut() {
            fields.retain(|name, value| (CONTENT.contains(&name.as_str()) || name == "uid") && !value.is_null());
            // One field has a different name in files.
            let time = fields.remove("keep_firing_for");
            fields.extend(time.map(|time| ("keepFiringFor".into(), time)));
        }
        return file;
    }
    let fields = found.map(|found| found.mark().fields).unwrap_or_default();
    let objective = stack.dashboard.objective.or_else(|| AlertSettings::objective(&fields)).or(shown);
    let objective = objective.unwrap_or(DesiredDashboard::DEFAULT_OBJECTIVE);
    let mut new = render(rule, settings, objective, &stack.instance, &source.uid);
    new.add_mark(settings.fields(rule, objective), source);
    new.uid = uid;
    json!(new)
}

fn in_folder<'a>(all: &'a [Rule], folder: &'a GrafanaFolder) -> impl Iterator<Item = &'a Rule> {
    all.iter().filter(|rule| rule.folder_uid == folder.uid)
}

impl Rule {
    fn state(&self) -> ActualRule {
        let RuleMark { content, fields, made_for } = self.mark();
        // Rules created through the API are managed.
        let provisioned = !matches!(self.provenance.as_str(), "" | "api");
        ActualRule::Present { edited: content != self.content_fingerprint(), provisioned, fields: fields.0, made_for }
    }

    /// Whether a user edited it.
    pub(super) fn is_edited(&self) -> bool {
        matches!(self.state(), ActualRule::Present { edited: true, .. })
    }

    fn mark(&self) -> RuleMark {
        let written = self.annotations.get(MARK).and_then(Value::as_str);
        written.and_then(|written| serde_json::from_str(written).ok()).map(read).unwrap_or_default()
    }

    fn add_mark(&mut self, fields: BTreeMap<String, String>, source: &DesiredDataSource) {
        let mark =
            RuleMark { content: self.content_fingerprint(), fields: Texts(fields), made_for: Some(source.made_for()) };
        self.annotations.insert(MARK.into(), json!(json!(mark).to_string()));
    }

    /// Replaces the fields that clipper-metrics sets.
    fn replace_content(&mut self, new: Self) {
        (self.title, self.annotations) = (new.title, new.annotations);
        self.rest.extend(new.rest);
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
        if stack.alerts == Alerts::NotManaged {
            return Ok(AlertRulesState::NotRead);
        }
        if self.version.get().is_some_and(|version| !is_supported(version)) {
            let why =
                format!("this Grafana has no API for alert rules that users can edit; {FIRST_VERSION} introduced it");
            return Ok(AlertRulesState::Unavailable(why));
        }
        let rules = try_join(self.alert_rule(stack, AlertRule::Latency), self.alert_rule(stack, AlertRule::Silence));
        let seen = match rules.await {
            Ok((Some(latency), Some(silence))) => Ok(Some([latency.state(), silence.state()])),
            Ok((latency, silence)) => self.seen_and_missing(stack, [latency, silence]).await,
            Err(error) => Err(error),
        };
        match seen {
            Ok(Some([latency, silence])) => Ok(AlertRulesState::Seen(ActualAlerts { latency, silence })),
            Ok(None) => Ok(AlertRulesState::Unavailable("alerting is switched off in this Grafana".into())),
            Err(Error::Answer { status: 403, .. }) => {
                Ok(AlertRulesState::Unavailable("this account may not read Grafana's alert rules".into()))
            }
            Err(error) => unreadable(error).map(AlertRulesState::Unreadable),
        }
    }

    /// The existing rules, and the objects in the place of missing ones; `None` if Grafana has no alerting.
    async fn seen_and_missing(&self, stack: &Stack, found: [Option<Rule>; 2]) -> Result<Option<[ActualRule; 2]>> {
        let Some(Elements(all)) = self.get("list the alert rules", ALL_RULES).await? else { return Ok(None) };
        let mut seen = Vec::new();
        for (rule, found) in AlertRule::ALL.into_iter().zip(found) {
            seen.push(match found {
                Some(found) => found.state(),
                None if stack.alerts == Alerts::Off => ActualRule::Missing,
                None => self.in_place_of(stack, rule, &all).await?,
            });
        }
        Ok(seen.try_into().ok())
    }

    pub(super) async fn alert_rule(&self, stack: &Stack, rule: AlertRule) -> Result<Option<Rule>> {
        let uid = uid(&stack.instance, rule);
        self.get("read an alert rule", &path(&["api", "v1", "provisioning", "alert-rules", &uid])).await
    }

    /// The object that has the title of a missing rule or of its folder.
    async fn in_place_of(&self, stack: &Stack, rule: AlertRule, all: &[Rule]) -> Result<ActualRule> {
        let title = folder_title(&stack.instance);
        let Some(folder) = self.folder(&title).await? else {
            return Ok(if self.is_title_taken(&title).await? {
                ActualRule::Clash(format!("a dashboard called {title:?}"))
            } else {
                ActualRule::Missing
            });
        };
        let wanted = titled(rule.title(), &stack.instance);
        let taken = in_folder(all, &folder).any(|rule| rule.title == wanted);
        Ok(if taken {
            ActualRule::Clash(format!("an alert rule called {wanted:?} in the folder {title:?}"))
        } else {
            ActualRule::Missing
        })
    }

    /// Creates or updates the rules. An edited rule is kept unless `overwrite` is set, and a moved
    /// rule stays in its folder. Without a given objective, the dashboard's applies.
    ///
    /// # Errors
    /// [`Error::Foreign`] if another owner's object is in their place, otherwise an error from the server.
    pub(crate) async fn save_alert_rules(
        &self,
        stack: &Stack,
        objective: Option<u64>,
        overwrite: bool,
        moves: bool,
    ) -> Result<()> {
        let Some(settings) = stack.alerts.settings() else { return Ok(()) };
        let shown = match objective {
            Some(objective) => objective,
            None => self.shown_objective(stack).await?,
        };
        let title = folder_title(&stack.instance);
        let mut is_new = false;
        for rule in AlertRule::ALL {
            if self.alert_rule(stack, rule).await?.is_some() {
                continue;
            }
            let Elements(all) = self.get("list the alert rules", ALL_RULES).await?.unwrap_or_default();
            if let ActualRule::Clash(what) = self.in_place_of(stack, rule, &all).await? {
                return Err(foreign(&what));
            }
            self.ensure_folder(&stack.instance, &title).await?;
            let folder = self.folder(&title).await?.ok_or_else(|| self.odd("create the folder"))?;
            let mut new = render(rule, settings, shown, &stack.instance, &stack.data_source.uid);
            // The mark of a finished rule is set together with the group's interval.
            new.add_mark(BTreeMap::new(), &stack.data_source);
            (new.uid, new.folder_uid) = (uid(&stack.instance, rule), folder.uid);
            new.rest.insert("ruleGroup".into(), json!(stack.instance));
            new.rest.insert("orgID".into(), json!(self.organisation.get().unwrap_or(1)));
            self.send_rule("create an alert rule", "POST", ALL_RULES, &new).await?;
            is_new = true;
        }
        let folder = self.folder(&title).await?.unwrap_or_default().uid;
        let group_path = path(&["api", "v1", "provisioning", "folder", &folder, "rule-groups", &stack.instance]);
        let mut group: RuleGroup = match folder.as_str() {
            // A user moved both rules.
            "" => RuleGroup::default(),
            _ => self.get("read the alert rules' group", &group_path).await?.unwrap_or_default(),
        };
        let mut changes = false;
        for rule in AlertRule::ALL {
            let own = uid(&stack.instance, rule);
            let in_group = group.rules.0.iter_mut().find(|rule| rule.uid == own);
            let mut elsewhere = match in_group {
                Some(_) => None,
                None => self.alert_rule(stack, rule).await?,
            };
            let Some(present) = in_group.or(elsewhere.as_mut()) else { continue };
            let ActualRule::Present { edited, provisioned, fields, made_for } = present.state() else { continue };
            let objective = objective.or_else(|| AlertSettings::objective(&fields)).unwrap_or(shown);
            let desired = settings.fields(rule, objective);
            let other = made_for.filter(|made_for| !made_for.is_same(&stack.data_source.made_for()));
            if provisioned || (edited && !overwrite) || (!edited && fields == desired && other.is_none()) {
                continue;
            }
            if let Some(other) = other.filter(|_| !moves) {
                return Err(moved("save the alert rules", &other));
            }
            is_new |= !edited && fields.is_empty();
            present.replace_content(render(rule, settings, objective, &stack.instance, &stack.data_source.uid));
            present.add_mark(desired, &stack.data_source);
            if let Some(moved) = elsewhere {
                let place = path(&["api", "v1", "provisioning", "alert-rules", &own]);
                self.send_rule("update an alert rule", "PUT", &place, &moved).await?;
            } else {
                changes = true;
            }
        }
        if changes {
            if is_new {
                group.rest.insert("interval".into(), json!(INTERVAL));
            }
            self.send_rule("save the alert rules' group", "PUT", &group_path, &group).await?;
        }
        Ok(())
    }

    /// The objective shown by the dashboard.
    async fn shown_objective(&self, stack: &Stack) -> Result<u64> {
        let found = self.dashboard(&stack.dashboard.uid).await?;
        let shown = found.and_then(|found| found.state().objective);
        Ok(shown.unwrap_or(DesiredDashboard::DEFAULT_OBJECTIVE))
    }

    /// Removes this instance's unedited rules, and their folder if it was created for them and is empty.
    ///
    /// # Errors
    /// An error from the server.
    pub(crate) async fn delete_alert_rules(&self, stack: &Stack, moves: bool) -> Result<()> {
        for rule in AlertRule::ALL {
            let Some(found) = self.alert_rule(stack, rule).await? else { continue };
            let is_own = |made_for: Option<MadeFor>| {
                moves || made_for.is_none_or(|made_for| made_for.is_same(&stack.data_source.made_for()))
            };
            if let ActualRule::Present { edited: false, provisioned: false, made_for, .. } = found.state()
                && is_own(made_for)
            {
                let place = path(&["api", "v1", "provisioning", "alert-rules", &found.uid]);
                let request = Request { headers: &[EDITABLE], ..Request::new("DELETE", &place) };
                let answer = self.send_to_organisation(request).await?;
                self.expect_alerting("delete an alert rule", &answer)?;
            }
        }
        let title = folder_title(&stack.instance);
        match self.own_folder(&stack.instance, &title).await? {
            Some(folder) => {
                let Elements(all) = self.get("list the alert rules", ALL_RULES).await?.unwrap_or_default();
                if in_folder(&all, &folder).next().is_some() { Ok(()) } else { self.delete_if_empty(&folder).await }
            }
            None => Ok(()),
        }
    }

    async fn send_rule(&self, doing: &str, method: &str, path: &str, document: &impl Serialize) -> Result<()> {
        let (headers, body) = (&[EDITABLE], Body::json(document));
        let answer = self.send_to_organisation(Request { headers, body, ..Request::new(method, path) }).await?;
        self.expect_alerting(doing, &answer)
    }

    fn expect_alerting(&self, doing: &str, answer: &Response) -> Result<()> {
        match answer.status {
            404 => Err(self.answered(doing, 404, format!("{} (Grafana's alerting may be off)", answer.message()))),
            409 => Err(Error::Raced { doing: doing.into(), why: answer.message() }),
            _ => self.expect_success(doing, answer),
        }
    }
}

#[cfg(test)]
mod tests {
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
            let mut sent = render(rule, &settings(), 20_000, "x", "x");
            sent.add_mark(fields.clone(), &samples::data_source());
            let mut sent = json!(sent);
            (sent["id"], sent["updated"], sent["record"]) = (json!(3), json!("now"), Value::Null);
            sent.as_object_mut().unwrap().remove("isPaused");
            let made_for = Some(samples::data_source().made_for());
            assert_eq!(state(&sent), ActualRule::Present { edited: false, provisioned: false, fields, made_for });
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

    #[test]
    fn durations_are_written_as_grafana_returns_them() {
        for (seconds, text) in [(0, "0s"), (30, "30s"), (60, "1m"), (90, "1m30s"), (3_600, "1h"), (90_000, "1d1h")] {
            assert_eq!(go_duration(seconds), text);
        }
    }

    #[test]
    fn the_silence_rule_covers_the_configured_time() {
        let rule = json!(render(AlertRule::Silence, &settings(), 1, "x", "x"));
        let query = rule["data"][0]["model"]["query"].as_str().unwrap();
        assert!(query.contains("now() - 100s AND time <= now())"), "{query}");
        assert_ne!(uid("x", AlertRule::Silence), uid("x", AlertRule::Latency));
        assert!(dashboard::panel_id(LATENCY_PANEL) > 0 && dashboard::panel_id(SILENCE_PANEL) > 0);
    }
}
