//! Alert rules and their groups, as far as they were recorded. 7.5 has none.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Double, Version, Who, answer, merge, text};
use crate::support::server::Response;

/// The field as Grafana stores it: it adds defaults to every query.
fn completed(name: &str, value: &Value) -> Value {
    let mut value = value.clone();
    if name == "data" {
        for query in value.as_array_mut().into_iter().flatten() {
            let model = &mut query["model"];
            for (field, assumed) in [("intervalMs", 1_000), ("maxDataPoints", 43_200)] {
                if model[field].is_null() {
                    model[field] = json!(assumed);
                }
            }
        }
    }
    value
}

/// The result of a rule's description template when the rule fired. Examples marked `recorded` were
/// read from a server. The others were expanded by Grafana 12.2's own code from the `$value` and
/// `$values` of a version that was not run here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluated {
    /// The version.
    pub grafana: String,
    /// The origin of the example.
    pub how: String,
    pub template: String,
    /// `$value`.
    pub value: String,
    /// `$values`.
    pub values: BTreeMap<String, Value>,
    pub description: String,
    /// Fields of the alert.
    pub alert: BTreeMap<String, Value>,
}

/// Every example of a version.
fn evaluated(version: Version) -> impl Iterator<Item = Evaluated> {
    let all: Vec<Evaluated> = serde_json::from_str(include_str!("../../recordings/alerts.json")).unwrap();
    all.into_iter().filter(move |one| version.recorded_as() == format!("grafana-{}", one.grafana))
}

/// A group's interval is a multiple of this number of seconds.
const INTERVAL: u64 = 10;

impl Double {
    pub(super) fn alerting(
        &mut self,
        who: &Who,
        organisation: usize,
        method: &str,
        segments: &[&str],
        body: Option<&Value>,
        keeps_editable: bool,
    ) -> Response {
        if self.version == Version::V7 {
            // Its ruler belongs to a plugin, which was not inspected.
            return match segments {
                ["api", "ruler", ..] => self.as_recorded("alert rule as somebody edits it in the browser"),
                ["api", "prometheus", ..] => self.as_recorded("state of the rules"),
                _ => self.as_recorded("alert rules"),
            };
        }
        // From the source of 10 to 12.3; 9 ignores the header.
        let is_from_api = |uid: &str| {
            let mut rules = self.state.organisations[organisation].rules.iter();
            rules.any(|rule| rule["uid"] == uid && rule["provenance"] == "api")
        };
        if let ("PUT" | "DELETE", ["provisioning", "alert-rules", uid]) = (method, &segments[2..])
            && keeps_editable
            && self.version >= Version::V12
            && is_from_api(uid)
        {
            return Response::json(409, &json!({"message": "cannot change provenance from 'api' to ''"}));
        }
        match (method, &segments[2..]) {
            ("GET", ["provisioning", "alert-rules"]) => self.alert_rules(who, organisation),
            ("POST", ["provisioning", "alert-rules"]) => self.create_rule(organisation, body),
            ("GET", ["provisioning", "alert-rules", uid]) => self.rule(organisation, uid),
            ("PUT", ["provisioning", "alert-rules", uid]) => self.update_rule(organisation, uid, body),
            ("DELETE", ["provisioning", "alert-rules", uid]) => {
                self.state.organisations[organisation].rules.retain(|rule| rule["uid"] != *uid);
                self.as_recorded("delete alert rule")
            }
            ("GET", ["provisioning", "folder", folder, "rule-groups", name]) => self.group(organisation, folder, name),
            ("PUT", ["provisioning", "folder", folder, "rule-groups", name]) => {
                self.set_group(organisation, folder, name, body)
            }
            ("GET", ["provisioning", "contact-points"]) => self.as_recorded("contact points"),
            ("GET", ["grafana", "api", "v1", "rules"]) => self.states(organisation),
            ("GET", ["grafana", "api", "v1", "rules", _, _]) => {
                self.as_recorded("alert rule as somebody edits it in the browser")
            }
            _ => Response::json(501, &json!({"message": "neither recorded nor documented"})),
        }
    }

    /// Rules whose templates were evaluated are firing; the others have the recorded state.
    fn states(&self, organisation: usize) -> Response {
        let mut recorded = self.like("state of the rules");
        let examples: Vec<Evaluated> = evaluated(self.version).collect();
        let stored = &self.state.organisations[organisation].rules;
        let fired: Vec<Value> = stored
            .iter()
            .filter_map(|rule| {
                let template = &rule["annotations"]["description"];
                let example = examples.iter().find(|example| *template == example.template.as_str())?;
                let mut alert = json!(example.alert);
                (alert["labels"], alert["annotations"]) = (rule["labels"].clone(), rule["annotations"].clone());
                alert["annotations"]["description"] = json!(example.description);
                let mut state = recorded.body["data"]["groups"][0]["rules"][0].clone();
                let fields = [("name", rule["title"].clone()), ("state", json!("firing")), ("alerts", json!([alert]))];
                merge(&mut state, &fields);
                merge(&mut state, &[("annotations", rule["annotations"].clone()), ("labels", rule["labels"].clone())]);
                Some(state)
            })
            .collect();
        if !fired.is_empty() {
            recorded.body["data"]["groups"][0]["rules"] = json!(fired);
        }
        answer(recorded.status, &recorded.body)
    }

    fn alert_rules(&self, who: &Who, organisation: usize) -> Response {
        if who.role == "Editor" {
            let recorded = self.like("alert rules as an editor");
            if recorded.status != 200 {
                return answer(recorded.status, &recorded.body);
            }
        }
        Response::json(200, &json!(self.state.organisations[organisation].rules))
    }

    fn create_rule(&mut self, organisation: usize, body: Option<&Value>) -> Response {
        let body = body.cloned().unwrap_or_default();
        let org = &self.state.organisations[organisation];
        if org.rules.iter().any(|rule| rule["uid"] == body["uid"]) {
            return self.as_recorded("create alert rule again");
        }
        let has_folder = org.folders.iter().any(|folder| body["folderUID"] == folder.uid.as_str());
        if !has_folder && self.version >= Version::V12 {
            return self.as_recorded("alert rule into an absent folder");
        }
        let mut recorded = self.like(if has_folder { "create alert rule" } else { "alert rule into an absent folder" });
        let id = json!(self.state.organisations[organisation].rules.len() + 1);
        let fields = body.as_object().cloned().unwrap_or_default();
        let known: Vec<(&str, Value)> = fields
            .iter()
            .filter(|(name, _)| recorded.body.get(name.as_str()).is_some())
            .map(|(name, value)| (name.as_str(), completed(name, value)))
            .collect();
        merge(&mut recorded.body, &known);
        // Omitted fields are removed.
        for absent in ["annotations", "labels"] {
            recorded.body[absent] = body[absent].clone();
        }
        merge(&mut recorded.body, &[("id", id)]);
        self.state.organisations[organisation].rules.push(recorded.body.clone());
        answer(recorded.status, &recorded.body)
    }

    fn rule(&self, organisation: usize, uid: &str) -> Response {
        let rules = &self.state.organisations[organisation].rules;
        match rules.iter().find(|rule| rule["uid"] == uid) {
            Some(rule) => Response::json(200, rule),
            None => Response::json(404, &json!({"message": "not found"})),
        }
    }

    fn update_rule(&mut self, organisation: usize, uid: &str, body: Option<&Value>) -> Response {
        let body = body.cloned().unwrap_or_default();
        let rules = &mut self.state.organisations[organisation].rules;
        let Some(rule) = rules.iter_mut().find(|rule| rule["uid"] == uid) else {
            return Response::json(404, &json!({"message": "not found"}));
        };
        let fields = body.as_object().cloned().unwrap_or_default();
        for (name, value) in fields {
            if rule.get(&name).is_some() {
                rule[&name] = completed(&name, &value);
            }
        }
        Response::json(200, rule)
    }

    fn group(&self, organisation: usize, folder: &str, name: &str) -> Response {
        let org = &self.state.organisations[organisation];
        let is_inside = |rule: &Value| rule["folderUID"] == folder && rule["ruleGroup"] == name;
        if !org.rules.iter().any(is_inside) {
            return Response::json(404, &json!({"message": "rule group not found"}));
        }
        let rules: Vec<&Value> =
            org.rules.iter().filter(|rule| is_inside(rule) && text(&rule["uid"]) != "lost").collect();
        let interval = org.intervals.get(name).copied().unwrap_or(60);
        self.with("group", &[("interval", json!(interval)), ("rules", json!(rules))])
    }

    fn set_group(&mut self, organisation: usize, folder: &str, name: &str, body: Option<&Value>) -> Response {
        let interval = body.and_then(|body| body["interval"].as_u64()).unwrap_or_default();
        if interval == 0 || !interval.is_multiple_of(INTERVAL) {
            return self.as_recorded("set the interval of the group");
        }
        let org = &mut self.state.organisations[organisation];
        org.intervals.insert(name.into(), interval);
        let given: Vec<Value> = body.and_then(|body| body["rules"].as_array().cloned()).unwrap_or_default();
        // A group is saved as a whole.
        org.rules.retain(|rule| {
            rule["folderUID"] != folder
                || rule["ruleGroup"] != name
                || text(&rule["uid"]) == "lost"
                || given.iter().any(|one| one["uid"] == rule["uid"])
        });
        for rule in given {
            self.update_rule(organisation, &text(&rule["uid"]), Some(&rule));
        }
        self.with("set the interval of the group to 10 s", &[("interval", json!(interval))])
    }
}
