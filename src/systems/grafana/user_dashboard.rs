//! A dashboard of the user's own: what a file must be to be one, and what is made of it before it is sent.
//!
//! Knows Grafana's exports. Must not know how a dashboard is sent, nor how a file is read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::dashboard::{MARK, content_fingerprint, refer_by_name};
use super::{Api, EXPRESSION, INFLUXDB, text};
use crate::core::stack::{DataSource, UserDashboard};
use crate::systems::digest::fingerprint;

/// The hidden variable that says which instance a dashboard was imported for; a person's save keeps it.
const OWNER: &str = "clipper_metrics";
/// What Grafana counts or adds itself, and what an export adds for the one who imports it.
const NOT_CONTENT: [&str; 7] = ["id", "version", "iteration", "__inputs", "__requires", "__elements", MARK];
/// Stands for our data source until it is known how the server's version refers to one.
const PLACEHOLDER: &str = "${DS_CLIPPER_METRICS}";
/// The longest uid that Grafana takes.
const UID_LENGTH: usize = 40;

/// Why a file cannot be used, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Unusable {
    /// What is wrong, with the file as its subject.
    pub message: String,
    /// What to do.
    pub hint: String,
}

fn unusable(message: impl Into<String>, hint: impl Into<String>) -> Unusable {
    Unusable { message: message.into(), hint: hint.into() }
}

/// Reads an export: the dashboard alone, as the API wraps it, or as a resource of Grafana 12.
///
/// # Errors
/// With the reason, when it is no dashboard, or one that cannot work with our data source.
pub fn parse(path: &str, instance: &str, file: &str) -> Result<UserDashboard, Unusable> {
    let export = "export the dashboard from Grafana as JSON, and give that file";
    let mut json: Value = serde_json::from_str(file).map_err(|why| unusable(format!("is not JSON: {why}"), export))?;
    let name = text(&json["metadata"]["name"]);
    for wrapper in ["dashboard", "spec"] {
        if json.get("panels").is_none() && json[wrapper].is_object() {
            json = json[wrapper].take();
        }
    }
    if json["elements"].is_object() && json["layout"].is_object() {
        return Err(unusable(
            "is a dashboard of the new schema (v2), which Grafana before 13 does not import",
            "export it with the classic model",
        ));
    }
    let is_list = |key: &str| json[key].is_array();
    // Grafana cuts the ends of a title when it stores one.
    let title = text(&json["title"]).trim().to_string();
    if title.is_empty() || !(is_list("panels") || is_list("rows")) {
        return Err(unusable("is not a dashboard: it needs a title and panels", export));
    }
    let library_panels = &json["__elements"];
    if library_panels.as_array().is_some_and(|list| !list.is_empty())
        || library_panels.as_object().is_some_and(|map| !map.is_empty())
        || has_library_panel(&json["panels"])
    {
        return Err(unusable(
            "holds library panels, which are kept outside of dashboards",
            "unlink them in Grafana, and export the dashboard again",
        ));
    }
    let uid = [text(&json["uid"]), name].into_iter().find(|uid| !uid.is_empty());
    // One that was exported without a uid has the same one in every run.
    let uid = uid.unwrap_or_else(|| {
        let named = fingerprint(title.as_bytes());
        let room = UID_LENGTH - named.len() - 1;
        format!("{}-{named}", instance.get(..room).unwrap_or(instance))
    });
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if uid.len() > UID_LENGTH || !uid.chars().all(letters) {
        return Err(unusable(
            format!("has the uid {uid:?}, which Grafana does not take"),
            format!("use up to {UID_LENGTH} letters, digits, dashes and underscores, or remove it from the file"),
        ));
    }
    let inputs = inputs(&json)?;
    let variables = json["templating"]["list"].as_array().into_iter().flatten();
    let variables: Vec<String> = variables.map(|variable| format!("${{{}}}", text(&variable["name"]))).collect();
    for_each_text(&mut json, &mut |text| {
        if text.starts_with("${DS_") && text.ends_with('}') && !inputs.contains_key(text) && !variables.contains(text) {
            // A placeholder that nothing declares: its declaration was cut off.
            PLACEHOLDER.clone_into(text);
        }
        for (placeholder, value) in &inputs {
            if text.contains(placeholder) {
                *text = text.replace(placeholder, value);
            }
        }
    });
    (json["uid"], json["title"]) = (json!(uid), json!(title));
    if let Some(fields) = json.as_object_mut() {
        for key in NOT_CONTENT {
            fields.remove(key);
        }
    }
    Ok(UserDashboard {
        path: path.into(),
        uid,
        title,
        edition: fingerprint(file.as_bytes()),
        content: json.to_string(),
    })
}

/// What an export asks of the one who imports it, by placeholder.
fn inputs(json: &Value) -> Result<BTreeMap<String, String>, Unusable> {
    let mut inputs = BTreeMap::new();
    for input in json["__inputs"].as_array().into_iter().flatten() {
        let (name, kind) = (text(&input["name"]), text(&input["type"]));
        match kind.as_str() {
            "datasource" => {
                let wants = text(&input["pluginId"]);
                if wants == EXPRESSION {
                    inputs.insert(format!("${{{name}}}"), EXPRESSION.to_string());
                    continue;
                }
                if wants != INFLUXDB {
                    return Err(unusable(
                        format!("asks for a data source of type {wants:?}, and Clipper's is an InfluxDB"),
                        "give a dashboard whose panels ask an InfluxDB",
                    ));
                }
                inputs.insert(format!("${{{name}}}"), PLACEHOLDER.to_string());
            }
            "constant" => {
                inputs.insert(format!("${{{name}}}"), text(&input["value"]));
            }
            _ => {
                return Err(unusable(
                    format!("asks for {name:?} of type {kind:?}, which is not known here"),
                    "import it in Grafana, and export it again without sharing it externally",
                ));
            }
        }
    }
    Ok(inputs)
}

/// A panel, or one in a row, is kept outside of the dashboard.
fn has_library_panel(panels: &Value) -> bool {
    let mut panels = panels.as_array().into_iter().flatten();
    panels.any(|panel| panel["libraryPanel"].is_object() || has_library_panel(&panel["panels"]))
}

/// The dashboard to send, for an instance.
#[must_use]
pub fn render(want: &UserDashboard, instance: &str, source: &DataSource, api: Api) -> Value {
    let mut dashboard: Value = serde_json::from_str(&want.content).unwrap_or(Value::Null);
    let reference = api.reference(source);
    for_each_text(&mut dashboard, &mut |text| {
        if text.contains(PLACEHOLDER) {
            *text = text.replace(PLACEHOLDER, reference);
        }
    });
    if api == Api::Numeric {
        refer_by_name(&mut dashboard);
    }
    if !dashboard["templating"]["list"].is_array() {
        dashboard["templating"] = json!({"list": []});
    }
    if let Some(variables) = dashboard["templating"]["list"].as_array_mut() {
        variables.retain(|variable| variable["name"] != OWNER);
        variables.push(json!({
            "type": "constant", "name": OWNER, "label": "Imported by clipper-metrics for", "query": instance, "hide": 2,
            "skipUrlSync": true, "options": [], "current": {"selected": false, "text": instance, "value": instance},
        }));
    }
    dashboard["id"] = Value::Null;
    let content = content_fingerprint(&dashboard);
    dashboard[MARK] = json!({"edition": want.edition, "content": content, "instance": instance});
    dashboard
}

/// The instance that a dashboard of somebody's own was imported for, if it was.
#[must_use]
pub fn owner(dashboard: &Value) -> Option<&str> {
    let list = dashboard["templating"]["list"].as_array().into_iter().flatten();
    let kept = list.into_iter().find(|variable| variable["name"] == OWNER).map(|variable| &variable["query"]);
    dashboard[MARK]["instance"].as_str().or_else(|| kept?.as_str())
}

fn for_each_text(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| for_each_text(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|field| for_each_text(field, change)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::dashboard;
    use super::*;

    fn source() -> DataSource {
        DataSource {
            uid: "x".into(),
            name: "Clipper Metrics (x)".into(),
            url: "http://influxdb:8086".into(),
            database: "d".into(),
            user: String::new(),
        }
    }

    fn export() -> Value {
        json!({
            "__inputs": [
                {"name": "DS_MINE", "type": "datasource", "pluginId": "influxdb"},
                {"name": "VAR_PREFIX", "type": "constant", "value": "clipper"},
                {"name": "DS_EXPRESSION", "type": "datasource", "pluginId": "__expr__"},
            ],
            "__requires": [], "__elements": {}, "id": 7, "version": 3, "uid": "mine", "title": " Mine ",
            "templating": {"list": [
                {"name": "DS_CHOSEN", "type": "datasource"},
                {"name": "m", "type": "query", "datasource": {"type": "influxdb", "uid": "${DS_MINE}"}},
            ]},
            "panels": [
                {"title": "${VAR_PREFIX}", "datasource": "${DS_MINE}", "targets": []},
                {"title": "b", "datasource": {"type": "influxdb", "uid": "${DS_OTHER}"}, "gridPos": {"h": 8.0}},
                {"title": "c", "datasource": {"type": "influxdb", "uid": "${DS_CHOSEN}"}},
            ],
        })
    }

    fn parsed(json: &Value) -> Result<UserDashboard, Unusable> {
        parse("a.json", "x", &json.to_string())
    }

    #[test]
    fn an_export_gets_our_data_source_by_uid_or_by_name() {
        let want = parsed(&export()).unwrap();
        assert_eq!((want.uid.as_str(), want.title.as_str()), ("mine", "Mine"));
        let sent = render(&want, "x", &source(), Api::Uid);
        assert_eq!(sent["panels"][0]["datasource"], "x");
        assert_eq!(sent["panels"][0]["title"], "clipper");
        assert_eq!(sent["panels"][1]["datasource"]["uid"], "x");
        assert_eq!(sent["panels"][2]["datasource"]["uid"], "${DS_CHOSEN}", "a variable stays one");
        assert_eq!(sent["templating"]["list"][1]["datasource"]["uid"], "x");
        for key in ["__inputs", "__requires", "__elements", "version"] {
            assert!(sent.get(key).is_none(), "{key}");
        }
        let sent = render(&want, "x", &source(), Api::Numeric);
        assert_eq!(sent["panels"][0]["datasource"], "Clipper Metrics (x)");
        assert_eq!(sent["panels"][1]["datasource"], "Clipper Metrics (x)");
        assert_eq!(sent["panels"][2]["datasource"], "${DS_CHOSEN}");
    }

    #[test]
    fn what_was_sent_is_recognised_and_an_edit_shows_and_keeps_the_owner() {
        let mut sent = render(&parsed(&export()).unwrap(), "x", &source(), Api::Uid);
        (sent["id"], sent["version"]) = (json!(3), json!(9));
        // Go writes such a number without its fraction.
        sent["panels"][1]["gridPos"]["h"] = json!(8);
        assert!(!dashboard::read(&sent).edited);
        assert_eq!(owner(&sent), Some("x"));
        assert!(!dashboard::is_ours(&sent), "it is not the bundled one");
        sent["panels"][0]["title"] = json!("changed");
        sent.as_object_mut().unwrap().remove(MARK);
        assert!(dashboard::read(&sent).edited);
        assert_eq!(owner(&sent), Some("x"));
        // Exported and given again, it is the same dashboard of the same instance.
        let again = render(&parsed(&sent).unwrap(), "x", &source(), Api::Uid);
        let owners = again["templating"]["list"].as_array().unwrap().iter().filter(|one| one["name"] == OWNER);
        assert_eq!(owners.count(), 1);
    }

    #[test]
    fn wrappers_of_the_api_and_of_grafana_12_are_read() {
        let plain = json!({"title": "T", "panels": []});
        let wrapped = json!({"meta": {}, "dashboard": {"title": "T", "uid": "u", "rows": []}});
        let resource = json!({"kind": "Dashboard", "metadata": {"name": "u"}, "spec": {"title": "T", "panels": []}});
        assert!(parsed(&plain).unwrap().uid.starts_with("x-"));
        assert_eq!(parsed(&plain).unwrap().uid, parsed(&plain).unwrap().uid);
        assert_eq!(parsed(&wrapped).unwrap().uid, "u");
        assert_eq!(parsed(&resource).unwrap().uid, "u");
        let long = parse("a.json", &"n".repeat(40), &plain.to_string()).unwrap();
        assert!(long.uid.len() <= UID_LENGTH);
    }

    #[test]
    fn what_is_no_dashboard_or_cannot_work_is_refused_with_a_reason() {
        let with = |key: &str, value: Value| {
            let mut json = export();
            json[key] = value;
            json
        };
        let prometheus = json!([{"name": "DS_P", "type": "datasource", "pluginId": "prometheus"}]);
        for (json, why) in [
            (json!([]), "not a dashboard"),
            (json!({"title": "T"}), "not a dashboard"),
            (with("title", json!(" ")), "not a dashboard"),
            (with("uid", json!("a b")), "uid"),
            (with("uid", json!("a".repeat(41))), "uid"),
            (with("__inputs", prometheus), "prometheus"),
            (with("__inputs", json!([{"name": "X", "type": "panel"}])), "not known"),
            (with("__elements", json!({"a": {}})), "library panels"),
            (with("panels", json!([{"panels": [{"libraryPanel": {"uid": "l"}}]}])), "library panels"),
            (json!({"spec": {"title": "T", "elements": {}, "layout": {}}}), "v2"),
        ] {
            let error = parsed(&json).unwrap_err();
            assert!(error.message.contains(why), "{json}: {}", error.message);
        }
        assert!(parse("a.json", "x", "{").unwrap_err().message.contains("JSON"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_file_holds_it_is_read_or_refused(
            json in crate::systems::arbitrary::json(&[
                "title", "panels", "rows", "uid", "__inputs", "name", "type", "templating", "list", "dashboard", "spec",
            ]),
            title in "\\PC{0,5}",
        ) {
            if let Ok(want) = parsed(&json) {
                let _ = render(&want, "x", &source(), Api::Numeric);
            }
            let mut whole = json;
            if let Some(fields) = whole.as_object_mut() {
                fields.insert("title".into(), json!(title));
                fields.insert("panels".into(), json!([]));
            }
            if let Ok(want) = parsed(&whole) {
                for api in [Api::Numeric, Api::Uid] {
                    let sent = render(&want, "x", &source(), api);
                    proptest::prop_assert_eq!(owner(&sent), Some("x"));
                    proptest::prop_assert!(!dashboard::read(&sent).edited);
                }
            }
        }
    }
}
