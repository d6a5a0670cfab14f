//! The bundled dashboard: fills in its values, and reads a stored one.

use serde_json::{Value, json};

use super::{Api, made_for, user_dashboard};
use crate::digest::fingerprint;
use crate::model::observed::ActualDashboard;
use crate::model::stack::{DesiredDashboard, DesiredDataSource};

/// The bundled dashboard from the repository.
const BUNDLED: &str = include_str!("../../assets/dashboard.json");
/// The key that marks a dashboard as sent by clipper-metrics; Grafana drops it when a user saves.
pub(super) const MARK: &str = "clipperMetrics";
/// The field of the mark about the save that is about to happen.
const SAVE: &str = "save";
/// The longest time between the note of a save and the save itself, including a difference of the clocks.
const SAVED_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);
/// Fields that Grafana counts itself.
pub(super) const COUNTED: [&str; 3] = ["id", "version", "iteration"];
/// The placeholder after commands in the dashboard's texts.
const NAME_OPTION: &str = "NAME_OPTION";
/// The instance that commands reach without `--name`.
pub(super) const DEFAULT_NAME: &str = "clipper-metrics";
/// The hidden variable with the latency objective; it survives a user's save.
const OBJECTIVE: &str = "objective";
/// The hidden variable with the models in Clipper's file; it survives a user's save.
const MODELS: &str = "configured_models";

/// Fingerprint of the bundled dashboard; every version has its own.
#[must_use]
pub fn content_hash() -> String {
    fingerprint(BUNDLED.as_bytes())
}

/// The id of a panel in the bundled dashboard, by its title.
pub(super) fn panel_id(title: &str) -> u64 {
    let dashboard: Value = serde_json::from_str(BUNDLED).unwrap_or(Value::Null);
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    panels.into_iter().find(|panel| panel["title"] == title).and_then(|panel| panel["id"].as_u64()).unwrap_or_default()
}

/// The dashboard to send. If Clipper's file does not set a value, the stored dashboard's value is kept.
#[must_use]
pub fn render(
    desired: &DesiredDashboard,
    source: &DesiredDataSource,
    carried: Option<&ActualDashboard>,
    api: Api,
) -> Value {
    let objective = desired
        .objective
        .or_else(|| carried.and_then(|seen| seen.objective))
        .unwrap_or(DesiredDashboard::DEFAULT_OBJECTIVE);
    let models = desired.models.clone().or_else(|| carried.map(|seen| seen.models.clone())).unwrap_or_default();
    let mut dashboard: Value = serde_json::from_str(BUNDLED).unwrap_or(Value::Null);
    dashboard["uid"] = json!(desired.uid);
    dashboard["title"] = json!(desired.title);
    dashboard["id"] = Value::Null;
    let current = api.reference(source);
    for variable in dashboard["templating"]["list"].as_array_mut().into_iter().flatten() {
        let (text, value) = match variable["name"].as_str() {
            Some("datasource") => (source.name.clone(), current.to_string()),
            Some(OBJECTIVE) => (objective.to_string(), objective.to_string()),
            Some(MODELS) => (json!(models).to_string(), json!(models).to_string()),
            _ => continue,
        };
        if variable["type"] == "constant" {
            variable["query"] = json!(value);
        }
        variable["current"] = json!({"selected": true, "text": text, "value": value});
    }
    // The dashboard's uid is the instance's name.
    let option = if desired.uid == DEFAULT_NAME { String::new() } else { format!(" --name {}", desired.uid) };
    fill(&mut dashboard, objective, &option);
    if api == Api::Numeric {
        refer_by_name(&mut dashboard);
    }
    let content = content_fingerprint(&dashboard);
    dashboard[MARK] = json!({
        "edition": desired.content_hash, "content": content, made_for::KEY: made_for::written(source.made_for()),
    });
    dashboard
}

/// Replaces placeholders for the objective by numbers, and completes commands in texts.
fn fill(value: &mut Value, objective: u64, option: &str) {
    match value {
        Value::String(text) if text == "OBJECTIVE_MICROS" => *value = json!(objective),
        Value::String(text) if text.contains(NAME_OPTION) => *text = text.replace(NAME_OPTION, option),
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, objective, option)),
        Value::Object(fields) => fields.values_mut().for_each(|field| fill(field, objective, option)),
        _ => {}
    }
}

/// Rewrites references to data sources for versions before uids: by name.
pub(super) fn refer_by_name(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(refer_by_name),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if name == "datasource" && field.get("uid").is_some() {
                    *field = field["uid"].clone();
                } else {
                    refer_by_name(field);
                }
            }
        }
        _ => {}
    }
}

/// Fingerprint of everything that a user could change, which excludes the fields that Grafana counts.
pub(super) fn content_fingerprint(dashboard: &Value) -> String {
    let mut content = dashboard.clone();
    whole_numbers(&mut content);
    if let Some(fields) = content.as_object_mut() {
        for key in COUNTED.into_iter().chain([MARK]) {
            fields.remove(key);
        }
    }
    fingerprint(content.to_string().as_bytes())
}

/// Removes zero fractions as Go does: it does not distinguish 8 from 8.0.
pub(super) fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
            // A float without a fraction prints as an integer.
            if let Some(whole) = whole.and_then(|float| format!("{float}").parse::<i64>().ok()) {
                *value = json!(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// Whether the dashboard was derived from the bundled one: it carries the mark, or the hidden
/// variables that survive a user's save.
#[must_use]
pub fn is_ours(dashboard: &Value) -> bool {
    let list = dashboard["templating"]["list"].as_array().into_iter().flatten();
    user_dashboard::owner(dashboard).is_none()
        && (dashboard[MARK].is_object() || list.into_iter().any(|variable| variable["name"] == MODELS))
}

/// Notes the version under which Grafana will store a dashboard, and the time. If Grafana changes values while storing
/// it, the run saves it again with the fingerprint of the stored content; until then, this note shows that no other save
/// followed.
pub(super) fn note_save(sent: &mut Value, replaced: Option<&Value>, now: jiff::Timestamp) {
    sent[MARK][SAVE] = json!({
        "version": replaced.and_then(Value::as_u64).unwrap_or_default() + 1, "at": now.to_string(),
    });
}

/// Whether a run that ended between the two saves left the dashboard as Grafana stored it. A copy that was created later
/// can have the same version.
fn is_unfinished(found: &Value) -> bool {
    let (dashboard, updated) = (&found["dashboard"], &found["meta"]["updated"]);
    let save = &dashboard[MARK][SAVE];
    let time = |value: &Value| value.as_str()?.parse::<jiff::Timestamp>().ok();
    let is_version = save["version"].is_u64() && save["version"] == dashboard["version"];
    let is_time = time(&save["at"])
        .zip(time(updated))
        .is_some_and(|(at, updated)| updated.duration_since(at).unsigned_abs() < SAVED_WITHIN);
    is_version && is_time && differs(dashboard)
}

/// Whether the stored dashboard differs from `sent`, which then gets the fingerprint of the stored one: Grafana changes
/// some values, such as a refresh interval below its minimum, and such a change is not an edit.
pub(super) fn note_changes(stored: &Value, sent: &mut Value) -> bool {
    if !differs(stored) {
        return false;
    }
    sent[MARK]["content"] = json!(content_fingerprint(stored));
    if let Some(mark) = sent[MARK].as_object_mut() {
        mark.remove(SAVE);
    }
    true
}

/// Whether the stored dashboard differs from the sent one, except for Grafana's own counts.
fn differs(dashboard: &Value) -> bool {
    dashboard[MARK]["content"].as_str() != Some(content_fingerprint(dashboard).as_str())
}

/// Reads the dashboard in Grafana's answer.
#[must_use]
pub fn stored(found: &Value) -> ActualDashboard {
    let seen = ActualDashboard { provisioned: found["meta"]["provisioned"] == true, ..read(&found["dashboard"]) };
    // An unfinished save is repeated.
    if is_unfinished(found) { ActualDashboard { edited: false, content_hash: None, ..seen } } else { seen }
}

/// Reads an existing dashboard.
#[must_use]
pub fn read(dashboard: &Value) -> ActualDashboard {
    let mark = &dashboard[MARK];
    let variable = |name: &str| {
        let list = dashboard["templating"]["list"].as_array()?;
        list.iter().find(|variable| variable["name"] == name)?["query"].as_str()
    };
    let models: Vec<String> = variable(MODELS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    ActualDashboard {
        provisioned: false,
        edited: differs(dashboard),
        content_hash: mark["edition"].as_str().map(String::from),
        objective: variable(OBJECTIVE).and_then(|text| text.parse().ok()),
        models,
        made_for: made_for::read(&mark[made_for::KEY]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn desired() -> (DesiredDashboard, DesiredDataSource) {
        let dashboard = DesiredDashboard {
            content_hash: content_hash(),
            objective: Some(10_000),
            models: Some(vec!["m1".into(), "a,\"b\"".into()]),
            ..samples::dashboard()
        };
        (dashboard, DesiredDataSource { name: "Name".into(), ..samples::data_source() })
    }

    #[test]
    fn a_sent_dashboard_is_recognised_and_carries_its_settings() {
        let (dashboard, source) = desired();
        for api in [Api::Numeric, Api::Uid] {
            let mut sent = render(&dashboard, &source, None, api);
            sent["id"] = json!(7);
            sent["version"] = json!(3);
            let seen = read(&sent);
            assert!(!seen.edited);
            assert_eq!(seen.objective, Some(10_000));
            assert_eq!(Some(seen.models), dashboard.models);
            let text = sent.to_string();
            assert!(!text.contains("OBJECTIVE_MICROS") && !text.contains(NAME_OPTION));
            assert!(text.contains("clipper-metrics doctor --name x`"));
        }
    }

    #[test]
    fn every_change_counts_as_an_edit_and_keeps_the_settings() {
        let (dashboard, source) = desired();
        let mut sent = render(&dashboard, &source, None, Api::Uid);
        sent["panels"][0]["title"] = json!("mine");
        let seen = read(&sent);
        assert!(seen.edited);
        let again =
            render(&DesiredDashboard { objective: None, models: None, ..dashboard }, &source, Some(&seen), Api::Uid);
        assert_eq!(read(&again).objective, Some(10_000));
        assert_eq!(read(&again).models, seen.models);
    }

    #[test]
    fn a_value_changed_by_grafana_is_not_an_edit() {
        let (dashboard, source) = desired();
        let mut sent = render(&dashboard, &source, None, Api::Uid);
        assert!(!note_changes(&sent.clone(), &mut sent), "it is stored unchanged");
        let change = |sent: &Value| {
            let mut stored = sent.clone();
            stored["refresh"] = json!("1m");
            stored
        };
        assert!(read(&change(&sent)).edited);
        let first = change(&sent);
        assert!(note_changes(&first, &mut sent));
        let mut second = change(&sent);
        assert!(!read(&second).edited);
        second["panels"][0]["title"] = json!("mine");
        assert!(read(&second).edited);
        second.as_object_mut().unwrap().remove(MARK);
        assert!(read(&second).edited, "a save in the browser drops the mark");
    }

    #[test]
    fn a_run_that_ends_between_both_saves_leaves_no_edit() {
        let (dashboard, source) = desired();
        let mut sent = render(&dashboard, &source, None, Api::Uid);
        note_save(&mut sent, Some(&json!(4)), "2026-01-02T00:00:00Z".parse().unwrap());
        let found = |version: u64, updated: &str| {
            let mut found = json!({"dashboard": sent, "meta": {"updated": updated}});
            (found["dashboard"]["version"], found["dashboard"]["refresh"]) = (json!(version), json!("1m"));
            found
        };
        let seen = stored(&found(5, "2026-01-02T00:00:01Z"));
        assert_eq!((seen.edited, seen.content_hash), (false, None), "it is saved again");
        assert!(stored(&found(6, "2026-01-02T00:00:02Z")).edited, "another save followed");
        assert!(stored(&found(5, "2026-01-03T00:00:00Z")).edited, "a copy was created later");
        assert!(stored(&found(5, "")).edited);
        // The second save ends that state.
        let mut again = sent.clone();
        assert!(note_changes(&found(5, "")["dashboard"], &mut again));
        again["refresh"] = json!("1m");
        let seen = read(&again);
        assert_eq!((seen.edited, seen.content_hash), (false, Some(content_hash())));
        again["refresh"] = json!("2m");
        assert!(read(&again).edited);
    }

    #[test]
    fn invalid_content_counts_as_edited() {
        for garbage in [
            json!(null),
            json!([]),
            json!({"templating": 3, "clipperMetrics": "x"}),
            json!({"templating": {"list": [1, {"name": "objective", "query": {}}]}}),
        ] {
            assert!(read(&garbage).edited);
        }
    }
}
