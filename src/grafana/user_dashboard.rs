//! A user's dashboard: which files are accepted, and how they are changed for the import.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::dashboard::{MARK, OWNER, add_mark, refer_by_name};
use super::dashboard_model::{DashboardModel, DataSourceRef, Templating};
use super::json::{Elements, for_each_text, for_each_value, lenient, read};
use super::layout::{self, is_flux, is_flux_text};
use super::{Api, EXPRESSION, INFLUXDB};
use crate::digest::fingerprint;
use crate::model::stack::{DesiredDataSource, DesiredUserDashboard, Need, NeededObject};

/// Fields that Grafana counts or adds itself, and fields that an export adds for its importer.
const NOT_CONTENT: [&str; 7] = ["id", "version", "iteration", "__inputs", "__requires", "__elements", MARK];
/// A placeholder for Clipper's data source until it is known how the server's version refers to it.
const PLACEHOLDER: &str = "${DS_CLIPPER_METRICS}";
/// The start of a placeholder that is kept.
const KEPT: &str = "\u{0}kept:";
/// The longest uid that Grafana accepts.
const UID_LENGTH: usize = 40;

lenient! {
    /// A placeholder that an export declares.
    struct Input {
        name: String,
        #[serde(rename = "type")]
        kind: String,
        plugin_id: String,
        value: Value,
    }

    /// A library panel, as an export contains it.
    struct LibraryPanel {
        uid: String,
        model: Value,
    }

    /// A panel's reference to a library panel.
    struct LibraryReference {
        uid: String,
        name: String,
    }
}

/// The reason why a file cannot be used, with a hint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// The reason, with the file as its subject.
    pub(crate) message: String,
    /// How to fix it.
    pub(crate) hint: String,
}

fn unusable(message: impl Into<String>, hint: impl Into<String>) -> Unusable {
    Unusable { message: message.into(), hint: hint.into() }
}

/// Parses an export: the dashboard alone, wrapped by the API, or as a resource of Grafana 12.
///
/// # Errors
/// With the reason if it is not a dashboard or cannot work with Clipper's data source.
pub(crate) fn parse(path: &str, instance: &str, file: &str) -> Result<DesiredUserDashboard, Unusable> {
    let export = "export the dashboard from Grafana as JSON, and use that file";
    let text_of_file = file.strip_prefix('\u{feff}').unwrap_or(file);
    let mut json: Value =
        serde_json::from_str(text_of_file).map_err(|why| unusable(format!("is not JSON: {why}"), export))?;
    let name = json.pointer("/metadata/name").and_then(Value::as_str).map(String::from);
    for wrapper in ["dashboard", "spec"] {
        if json.get("panels").is_none() && json[wrapper].is_object() {
            json = json[wrapper].take();
        }
    }
    // The document is kept as it is, so its fields are read by their names.
    let text = |key: &str| json[key].as_str().unwrap_or_default();
    let has = |key: &str, is_expected: fn(&Value) -> bool| json.get(key).is_some_and(is_expected);
    if has("elements", Value::is_object) && has("layout", Value::is_object) {
        return Err(unusable(
            "is a dashboard of the new schema (v2), which Grafana before 13 cannot import",
            "export it with the classic model",
        ));
    }
    // Grafana trims a title when it stores it.
    let title = text("title").trim().to_string();
    if title.is_empty() || !(has("panels", Value::is_array) || has("rows", Value::is_array)) {
        return Err(unusable("is not a dashboard: it needs a title and panels", export));
    }
    let uid = [text("uid").to_string(), name.unwrap_or_default()].into_iter().find(|uid| !uid.is_empty());
    let uid = valid_uid(uid.unwrap_or_else(|| derived_uid(instance, &title)))?;
    let mut notes = Vec::new();
    let library = library(json["__elements"].take());
    include_library_panels(&mut json, &library, &mut notes);
    let inputs = inputs(&read(json["__inputs"].take()), &mut notes);
    fill_placeholders(&mut json, &inputs, &mut notes);
    (json["uid"], json["title"]) = (json!(uid), json!(title));
    if let Some(fields) = json.as_object_mut() {
        for key in NOT_CONTENT {
            fields.remove(key);
        }
    }
    let content = json.to_string();
    let needs = needs(&read(json), &mut notes);
    Ok(DesiredUserDashboard {
        path: path.into(),
        uid,
        title,
        content_hash: fingerprint(file.as_bytes()),
        content,
        needs,
        notes,
    })
}

/// The uid for a dashboard without one, which is the same in every run.
fn derived_uid(instance: &str, title: &str) -> String {
    let named = fingerprint(title.as_bytes());
    let room = UID_LENGTH - named.len() - 1;
    format!("{}-{named}", instance.get(..room).unwrap_or(instance))
}

fn valid_uid(uid: String) -> Result<String, Unusable> {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if uid.len() <= UID_LENGTH && uid.chars().all(letters) {
        return Ok(uid);
    }
    Err(unusable(
        format!("has the uid {uid:?}, which Grafana does not accept"),
        format!("use up to {UID_LENGTH} letters, digits, dashes and underscores, or remove it from the file"),
    ))
}

/// The models of library panels by uid: a list in Grafana 8, a map later.
fn library(elements: Value) -> BTreeMap<String, Value> {
    let elements: Vec<(String, LibraryPanel)> = match elements {
        Value::Array(list) => {
            list.into_iter().map(read).map(|panel: LibraryPanel| (panel.uid.clone(), panel)).collect()
        }
        Value::Object(map) => map.into_iter().map(|(uid, panel)| (uid, read(panel))).collect(),
        _ => Vec::new(),
    };
    elements.into_iter().map(|(uid, panel)| (uid, panel.model)).filter(|(_, model)| model.is_object()).collect()
}

/// Inserts library panels into the dashboard: an export for sharing contains their models, the answer of an API
/// contains them in their places, and Grafana before 8 has no library.
fn include_library_panels(dashboard: &mut Value, library: &BTreeMap<String, Value>, notes: &mut Vec<String>) {
    let Some(fields) = dashboard.as_object_mut() else { return };
    for list in ["panels", "rows"] {
        for panel in fields.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            include_library_panels(panel, library, notes);
            if panel.get("libraryPanel").is_some_and(Value::is_object) {
                include_library_panel(panel, library, notes);
            }
        }
    }
}

fn include_library_panel(panel: &mut Value, library: &BTreeMap<String, Value>, notes: &mut Vec<String>) {
    let LibraryReference { uid, name } = read(panel["libraryPanel"].take());
    let own = library.get(&uid).cloned().or_else(|| is_complete(panel).then(|| panel.clone()));
    let mut own = if let Some(model) = own {
        notes.push(format!("the library panel {name:?} is imported as an ordinary panel"));
        model
    } else {
        notes.push(format!(
            "the library panel {name:?} is not in the file: export the dashboard for sharing externally to include it"
        ));
        let content = format!("The library panel {name:?} was not exported with this dashboard.");
        json!({"type": "text", "title": name, "options": {"mode": "markdown", "content": content}})
    };
    for place in ["id", "gridPos", "repeat", "repeatDirection", "maxPerRow"] {
        if let Some(value) = panel.get(place) {
            own[place] = value.clone();
        }
    }
    if let Some(fields) = own.as_object_mut() {
        fields.remove("libraryPanel");
    }
    *panel = own;
}

/// Whether a panel has content of its own beside its reference to a library panel.
fn is_complete(panel: &Value) -> bool {
    let is_filled = |field: &Value| match field {
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => false,
    };
    panel["type"] != "library-panel-ref" && ["targets", "options"].iter().any(|key| is_filled(&panel[key]))
}

/// The values of placeholders that an export declares. Placeholders without a value are kept.
fn inputs(declared: &Elements<Input>, notes: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut inputs = BTreeMap::new();
    for Input { name, kind, plugin_id, value } in declared.iter() {
        let placeholder = format!("${{{name}}}");
        let value = match (kind.as_str(), plugin_id.as_str()) {
            ("datasource", INFLUXDB) => PLACEHOLDER.to_string(),
            ("datasource", EXPRESSION) => EXPRESSION.to_string(),
            ("datasource", wants) => {
                notes.push(another_source(name, wants));
                placeholder.clone()
            }
            ("constant", _) => constant(value).unwrap_or_else(|| {
                notes.push(format!(
                    "its input {name:?} has no value and is not filled in: set \"value\" of {name:?} in the file's \
                     \"__inputs\""
                ));
                placeholder.clone()
            }),
            _ => {
                notes.push(format!("its input {name:?} has the unknown type {kind:?} and is not filled in"));
                placeholder.clone()
            }
        };
        inputs.insert(placeholder, value);
    }
    inputs
}

/// The value of a constant, which may be empty.
fn constant(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn another_source(name: &str, kind: &str) -> String {
    format!("it needs a data source of type {kind:?} ({name}), but Clipper's is an InfluxDB: choose one in Grafana")
}

/// Replaces placeholders by values. An undeclared data source becomes Clipper's, unless it has another type.
fn fill_placeholders(json: &mut Value, inputs: &BTreeMap<String, String>, notes: &mut Vec<String>) {
    let templating: Templating = json.get("templating").cloned().map(read).unwrap_or_default();
    let variables: Vec<String> = templating.list.iter().map(|variable| format!("${{{}}}", variable.name)).collect();
    let is_undeclared = |text: &str| {
        let is_placeholder = text.starts_with("${DS_") && text.ends_with('}');
        is_placeholder && !inputs.contains_key(text) && !variables.iter().any(|variable| variable == text)
    };
    for_each_value(json, &mut |value| {
        let Some(reference) = value.get_mut("datasource").filter(|reference| reference.is_object()) else { return };
        let DataSourceRef { uid, kind } = DataSourceRef::deserialize(&*reference).unwrap_or_default();
        if !is_undeclared(&uid) || ["", INFLUXDB].contains(&kind.as_str()) {
            return;
        }
        if kind == EXPRESSION {
            reference["uid"] = json!(EXPRESSION);
            return;
        }
        let name = uid.trim_start_matches("${").trim_end_matches('}').to_string();
        notes.push(another_source(&name, &kind));
        // Protected from the replacement in all texts that follows.
        reference["uid"] = json!(format!("{KEPT}{name}"));
    });
    for_each_text(json, &mut |text| {
        if is_undeclared(text) {
            PLACEHOLDER.clone_into(text);
        }
        for (placeholder, value) in inputs {
            if text.contains(placeholder) {
                *text = text.replace(placeholder, value);
            }
        }
        if let Some(name) = text.strip_prefix(KEPT) {
            *text = format!("${{{name}}}");
        }
    });
    notes.sort();
    notes.dedup();
}

/// Objects that a Grafana may lack, each listed once; parts that no Grafana can show are noted.
fn needs(dashboard: &DashboardModel, notes: &mut Vec<String>) -> Vec<Need> {
    let mut needs: Vec<Need> = Vec::new();
    let mut add = |by: &str, object: NeededObject| {
        if !needs.iter().any(|need| need.object == object) {
            needs.push(Need { by: by.into(), object });
        }
    };
    for panel in layout::panels(dashboard) {
        let by = format!("panel {:?}", panel.model.title);
        if !panel.kind().is_empty() {
            add(&by, NeededObject::PanelType(panel.kind().into()));
        }
        for (target, source) in panel.queries() {
            if is_flux(target) {
                notes.extend(flux_note(&by, source));
            }
            if let Some(source) = fixed_source(source) {
                add(&by, source);
            }
        }
    }
    for variable in dashboard.templating.list.iter() {
        let by = format!("variable {:?}", variable.name);
        if variable.kind == "query" && is_flux_text(&variable.query.0) {
            notes.extend(flux_note(&by, variable.datasource.as_ref()));
        }
        if let Some(source) = fixed_source(variable.datasource.as_ref()) {
            add(&by, source);
        }
    }
    needs
}

/// A note about a query in Flux that is sent to Clipper's data source.
fn flux_note(by: &str, source: Option<&DataSourceRef>) -> Option<String> {
    (DataSourceRef::uid_of(source) == PLACEHOLDER).then(|| {
        format!(
            "{by} is written in Flux, which InfluxDB 1 does not support for Clipper's data source: rewrite its query \
             in InfluxQL"
        )
    })
}

/// A data source that is referred to directly, rather than the default one, a built-in one, or one
/// chosen by a variable.
fn fixed_source(source: Option<&DataSourceRef>) -> Option<NeededObject> {
    let name = DataSourceRef::uid_of(source);
    let is_fixed = !["", "default"].contains(&name) && !name.contains(['$', '[']) && !layout::is_built_in(name);
    is_fixed.then(|| NeededObject::DataSource(name.into()))
}

/// The dashboard to send for an instance.
#[must_use]
pub(crate) fn render(desired: &DesiredUserDashboard, instance: &str, source: &DesiredDataSource, api: Api) -> Value {
    let mut dashboard: Value = serde_json::from_str(&desired.content).unwrap_or(Value::Null);
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
    add_mark(&mut dashboard, &desired.content_hash, Some(instance), source);
    dashboard
}

#[cfg(test)]
mod tests {
    use super::super::dashboard::{self, Head};
    use super::*;
    use crate::samples;

    fn source() -> DesiredDataSource {
        DesiredDataSource { name: "Clipper Metrics (x)".into(), ..samples::data_source() }
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

    fn parsed(json: &Value) -> Result<DesiredUserDashboard, Unusable> {
        parse("a.json", "x", &json.to_string())
    }

    #[test]
    fn an_export_gets_clippers_data_source_by_uid_or_by_name() {
        let desired = parsed(&export()).unwrap();
        assert_eq!((desired.uid.as_str(), desired.title.as_str()), ("mine", "Mine"));
        let sent = render(&desired, "x", &source(), Api::Uid);
        assert_eq!(sent["panels"][0]["datasource"], "x");
        assert_eq!(sent["panels"][0]["title"], "clipper");
        assert_eq!(sent["panels"][1]["datasource"]["uid"], "x");
        assert_eq!(sent["panels"][2]["datasource"]["uid"], "${DS_CHOSEN}", "a variable stays a variable");
        assert_eq!(sent["templating"]["list"][1]["datasource"]["uid"], "x");
        for key in ["__inputs", "__requires", "__elements", "version"] {
            assert!(sent.get(key).is_none(), "{key}");
        }
        let sent = render(&desired, "x", &source(), Api::Numeric);
        assert_eq!(sent["panels"][0]["datasource"], "Clipper Metrics (x)");
        assert_eq!(sent["panels"][1]["datasource"], "Clipper Metrics (x)");
        assert_eq!(sent["panels"][2]["datasource"], "${DS_CHOSEN}");
    }

    #[test]
    fn a_sent_dashboard_is_recognised_and_an_edit_is_detected_and_keeps_the_owner() {
        let mut sent = render(&parsed(&export()).unwrap(), "x", &source(), Api::Uid);
        (sent["id"], sent["version"]) = (json!(3), json!(9));
        // Go writes such a number without its fraction.
        sent["panels"][1]["gridPos"]["h"] = json!(8);
        assert!(!dashboard::read(&sent).edited);
        assert_eq!(Head::of(&sent).owner(), Some("x"));
        assert!(!Head::of(&sent).is_bundled(), "it is not the bundled dashboard");
        sent["panels"][0]["title"] = json!("changed");
        sent.as_object_mut().unwrap().remove(MARK);
        assert!(dashboard::read(&sent).edited);
        assert_eq!(Head::of(&sent).owner(), Some("x"));
        // Exported and imported again, it is the same dashboard of the same instance.
        let again = render(&parsed(&sent).unwrap(), "x", &source(), Api::Uid);
        let owners = again["templating"]["list"].as_array().unwrap().iter().filter(|one| one["name"] == OWNER);
        assert_eq!(owners.count(), 1);
    }

    #[test]
    fn wrappers_of_the_api_and_of_grafana_12_are_accepted() {
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
    fn unusable_files_are_refused_with_a_reason() {
        let with = |key: &str, value: Value| {
            let mut json = export();
            json[key] = value;
            json
        };
        for (json, why) in [
            (json!([]), "not a dashboard"),
            (json!({"title": "T"}), "not a dashboard"),
            (with("title", json!(" ")), "not a dashboard"),
            (with("uid", json!("a b")), "uid"),
            (with("uid", json!("a".repeat(41))), "uid"),
            (json!({"spec": {"title": "T", "elements": {}, "layout": {}}}), "v2"),
        ] {
            let error = parsed(&json).unwrap_err();
            assert!(error.message.contains(why), "{json}: {}", error.message);
        }
        assert!(parse("a.json", "x", "{").unwrap_err().message.contains("JSON"));
    }

    #[test]
    fn foreign_data_sources_are_kept_and_reported() {
        let json = json!({
            "title": "T", "__inputs": [
                {"name": "DS_MINE", "type": "datasource", "pluginId": "influxdb"},
                {"name": "DS_SUN", "type": "datasource", "pluginId": "sun"}, {"name": "X", "type": "odd"},
            ],
            "templating": {"list": [
                {"type": "query", "name": "v", "datasource": "${DS_MINE}", "query": {"query": "import \"x\"\nx.y()"}},
                {"type": "query", "name": "w", "datasource": "${DS_SUN}", "query": "from(bucket: \"b\")"},
            ]},
            "panels": [
                {"type": "stat", "title": "mine", "datasource": "${DS_MINE}", "targets": [{"query": "SELECT 1"}]},
                {"type": "stat", "title": "sun", "datasource": {"type": "sun", "uid": "${DS_SUN}"}, "targets": [{}]},
                {"type": "table", "title": "p", "datasource": {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}, "targets": [
                    {"datasource": {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}},
                    {"datasource": {"type": "__expr__", "uid": "${DS_EXPRESSION}"}},
                ]},
                {"type": "odd", "title": "theirs", "datasource": "theirs", "targets": [{"query": "SELECT 1"}, {"query": "SELECT 2"}]},
                {"type": "stat", "title": "flux", "datasource": {"uid": "${DS_ANY}"}, "targets": [{"query": "from(bucket: \"b\")"}]},
            ],
        });
        let desired = parsed(&json).unwrap();
        let sent = render(&desired, "x", &source(), Api::Uid);
        let uid = |index: usize| sent["panels"][index]["datasource"]["uid"].as_str();
        assert_eq!(
            (sent["panels"][0]["datasource"].as_str(), uid(1), uid(2)),
            (Some("x"), Some("${DS_SUN}"), Some("${DS_PROMETHEUS}"))
        );
        assert_eq!(sent["panels"][2]["targets"][1]["datasource"]["uid"], "__expr__");
        assert_eq!(sent["panels"][3]["datasource"], "theirs");
        let notes = desired.notes.join("\n");
        for named in
            ["\"sun\" (DS_SUN)", "\"prometheus\" (DS_PROMETHEUS)", "input \"X\"", "\"flux\" is written in Flux"]
        {
            assert_eq!(notes.matches(named).count(), 1, "{named}: {notes}");
        }
        assert!(notes.contains("variable \"v\" is written in Flux") && !notes.contains("variable \"w\""), "{notes}");
        let theirs = Need { by: "panel \"theirs\"".into(), object: NeededObject::DataSource("theirs".into()) };
        assert_eq!(
            desired.needs.iter().filter(|need| matches!(need.object, NeededObject::DataSource(_))).collect::<Vec<_>>(),
            [&theirs]
        );
        let types = ["stat", "table", "odd"].map(|kind| NeededObject::PanelType(kind.into()));
        assert!(types.iter().all(|kind| desired.needs.iter().any(|need| need.object == *kind)), "{:?}", desired.needs);
    }

    #[test]
    fn a_constant_without_a_value_is_kept_and_reported() {
        for (value, filled) in
            [(json!("v"), "v"), (json!(5), "5"), (json!(""), ""), (json!(null), "${VAR_A}"), (json!([]), "${VAR_A}")]
        {
            let inputs = json!([{"name": "VAR_A", "type": "constant", "value": value}]);
            let panels = json!([{"type": "stat", "title": "${VAR_A}"}]);
            let desired = parsed(&json!({"title": "T", "__inputs": inputs, "panels": panels})).unwrap();
            let sent = render(&desired, "x", &source(), Api::Uid);
            assert_eq!(sent["panels"][0]["title"], filled, "{value}");
            assert_eq!(desired.notes.iter().any(|note| note.contains("\"__inputs\"")), filled == "${VAR_A}", "{value}");
        }
    }

    #[test]
    fn library_panels_are_inserted_where_they_are_used() {
        let model = json!({"type": "stat", "title": "L", "datasource": {"type": "influxdb", "uid": "${DS_X}"}, "id": 9, "libraryPanel": {}});
        let place = json!({"h": 4, "w": 4, "x": 0, "y": 0});
        let linked = |uid: &str| json!({"id": 1, "gridPos": place, "libraryPanel": {"uid": uid, "name": uid}});
        for elements in [json!({"l1": {"uid": "l1", "model": model}}), json!([{"uid": "l1", "model": model}])] {
            let json = json!({
                "title": "T", "__elements": elements,
                "panels": [linked("l1"), {"type": "row", "panels": [linked("l1")]}, linked("gone")],
            });
            let desired = parsed(&json).unwrap();
            let sent = render(&desired, "x", &source(), Api::Uid);
            for panel in [&sent["panels"][0], &sent["panels"][1]["panels"][0]] {
                assert_eq!(
                    (panel["type"].as_str(), &panel["id"], &panel["gridPos"]),
                    (Some("stat"), &json!(1), &place)
                );
                assert_eq!(panel["datasource"]["uid"], "x");
            }
            assert_eq!(sent["panels"][2]["type"], "text");
            assert!(!sent.to_string().contains("libraryPanel"));
            let notes = desired.notes.join("\n");
            assert!(
                notes.contains("\"l1\" is imported as an ordinary panel")
                    && notes.contains("\"gone\" is not in the file"),
                "{notes}"
            );
        }
    }

    #[test]
    fn a_library_panel_with_content_of_its_own_is_kept() {
        let linked = |more: Value| {
            let mut panel = json!({"id": 1, "libraryPanel": {"uid": "l1", "name": "L"}});
            for (key, value) in more.as_object().unwrap() {
                panel[key] = value.clone();
            }
            panel
        };
        let kept = json!({"type": "stat", "title": "own", "targets": [{"query": "SELECT 1"}]});
        let missing = json!({"type": "Name: \"L\", UID: \"l1\""});
        let referring = json!({"type": "library-panel-ref", "options": {"a": 1}});
        for (more, kind, note) in [
            (kept, "stat", "imported as an ordinary panel"),
            (json!({"type": "text", "options": {"content": "c"}}), "text", "imported as an ordinary panel"),
            (missing, "text", "is not in the file"),
            (referring, "text", "is not in the file"),
            (
                json!({"type": "stat", "targets": [], "options": {}, "fieldConfig": {"defaults": {}}}),
                "text",
                "is not in the file",
            ),
        ] {
            let desired = parsed(&json!({"title": "T", "panels": [linked(more.clone())]})).unwrap();
            let sent = render(&desired, "x", &source(), Api::Uid);
            let panel = &sent["panels"][0];
            assert!(panel.get("libraryPanel").is_none());
            assert_eq!((panel["type"].as_str(), &panel["id"]), (Some(kind), &json!(1)), "{more}");
            assert_eq!(panel["title"] == "L", note == "is not in the file", "{more}");
            assert!(desired.notes.iter().any(|one| one.contains(note)), "{:?}", desired.notes);
        }
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        let desired = parse("a.json", "x", include_str!("../../tests/dashboards/bom.json")).unwrap();
        assert_eq!(desired.title, "With a byte-order mark");
    }

    proptest::proptest! {
        #[test]
        fn no_file_causes_a_panic(
            json in crate::arbitrary::json(&[
                "title", "panels", "rows", "uid", "__inputs", "name", "type", "templating", "list", "dashboard", "spec",
                "__elements", "libraryPanel", "model", "datasource", "targets", "query",
            ]),
            title in "\\PC{0,5}",
        ) {
            if let Ok(desired) = parsed(&json) {
                let _ = render(&desired, "x", &source(), Api::Numeric);
            }
            let mut whole = json;
            if let Some(fields) = whole.as_object_mut() {
                fields.insert("title".into(), json!(title));
                fields.insert("panels".into(), json!([]));
            }
            if let Ok(desired) = parsed(&whole) {
                for api in [Api::Numeric, Api::Uid] {
                    let sent = render(&desired, "x", &source(), api);
                    let head = Head::of(&sent);
                    proptest::prop_assert_eq!(head.owner(), Some("x"));
                    proptest::prop_assert!(!dashboard::read(&sent).edited);
                }
            }
        }
    }
}
