//! The bundled dashboard: fills in its values, and reads a stored one.
//!
//! A document that is sent is changed by the names of its fields, here and for users' dashboards: a type would have to
//! carry along all the others.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Api;
use super::dashboard_model::{DashboardModel, Templating};
use super::json::{for_each_text, for_each_value, lenient};
use crate::digest::fingerprint;
use crate::model::observed::{ActualDashboard, OtherObject, StoredVersion};
use crate::model::stack::{DesiredDashboard, DesiredDataSource, MadeFor};
use crate::objects_only::ObjectsOnly;

/// The bundled dashboard from the repository.
const BUNDLED: &str = include_str!("../../assets/dashboard.json");
/// The key that marks a dashboard as sent by clipper-metrics; Grafana drops it when a user saves.
pub(super) const MARK: &str = "clipperMetrics";
/// The longest time between the note of a save and the save itself. It includes the time limit of a slow server, and a
/// difference of the clocks if a proxy sets the header `Date`.
const SAVED_WITHIN: std::time::Duration = std::time::Duration::from_secs(600);
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
/// The hidden variable of a user's dashboard that names the instance it was imported for; it survives a user's save.
pub(super) const OWNER: &str = "clipper_metrics";

lenient! {
    /// Facts about a stored dashboard that Grafana adds.
    pub(super) struct Meta {
        pub(super) is_folder: bool,
        pub(super) provisioned: bool,
        pub(super) version: Option<u64>,
        pub(super) folder_uid: Option<String>,
        pub(super) folder_id: Option<u64>,
        pub(super) folder_title: String,
        pub(super) updated: String,
    }

    struct DashboardAnswer {
        meta: Meta,
        dashboard: Value,
    }

    /// The parts of a dashboard that show its origin.
    pub(super) struct Head {
        pub(super) id: Option<u64>,
        pub(super) title: String,
        pub(super) version: Option<u64>,
        #[serde(rename = "clipperMetrics")]
        mark: Option<DashboardMark>,
        templating: Templating,
    }

    /// The mark of a dashboard that clipper-metrics sent.
    #[derive(Serialize)]
    struct DashboardMark {
        /// The version of the file.
        edition: Option<String>,
        /// The fingerprint of the content.
        content: Option<String>,
        /// The instance that a user's dashboard was imported for.
        #[serde(skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        made_for: Option<MadeFor>,
        #[serde(skip_serializing_if = "Option::is_none")]
        save: Option<PendingSave>,
    }

    /// The save that is about to happen.
    #[derive(Serialize)]
    struct PendingSave {
        version: Option<u64>,
        at: String,
    }
}

/// A dashboard as Grafana returns it.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "DashboardAnswer")]
pub(super) struct StoredDashboard {
    pub(super) meta: Meta,
    pub(super) head: Head,
    pub(super) content: Value,
    /// Whether it was saved in schema v2.
    pub(super) is_v2: bool,
}

impl From<DashboardAnswer> for StoredDashboard {
    fn from(DashboardAnswer { meta, dashboard }: DashboardAnswer) -> Self {
        Self::new(meta, dashboard)
    }
}

impl StoredDashboard {
    pub(super) fn new(meta: Meta, content: Value) -> Self {
        Self { meta, head: Head::of(&content), content, is_v2: false }
    }

    pub(super) fn state(&self) -> ActualDashboard {
        let Meta { provisioned, version, ref folder_uid, folder_id, .. } = self.meta;
        let stored = StoredVersion { id: self.head.id, version, folder_uid: folder_uid.clone(), folder_id };
        let seen = ActualDashboard { stored, provisioned, ..self.head.state(&self.content) };
        let unrecorded = seen.edited && !provisioned && self.is_noted_save();
        ActualDashboard { edited: seen.edited && !unrecorded, unrecorded, ..seen }
    }

    /// The dashboard with that uid in the place of another one. The uid of a bundled dashboard is its instance's name.
    pub(super) fn as_other(&self, what: String, uid: &str) -> OtherObject {
        let bundled = self.head.is_bundled().then_some(uid);
        let owner = self.head.owner().or(bundled).map(String::from);
        OtherObject { what, provisioned: self.meta.provisioned, owner }
    }

    /// Whether the last save is the one that clipper-metrics noted, so that only Grafana can have changed its content.
    /// A copy that was created later can have the same version.
    fn is_noted_save(&self) -> bool {
        let Some(save) = self.head.mark.as_ref().and_then(|mark| mark.save.as_ref()) else { return false };
        let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
        let is_time = time(&save.at)
            .zip(time(&self.meta.updated))
            .is_some_and(|(at, updated)| updated.duration_since(at).unsigned_abs() < SAVED_WITHIN);
        save.version.is_some() && save.version == self.head.version && is_time
    }
}

impl Head {
    pub(super) fn of(dashboard: &Value) -> Self {
        Self::deserialize(ObjectsOnly(dashboard)).unwrap_or_default()
    }

    /// The value of a constant.
    fn constant(&self, name: &str) -> Option<&str> {
        self.templating.list.iter().find(|variable| variable.name == name).map(|variable| variable.query.0.as_str())
    }

    /// Whether the dashboard was derived from the bundled one: it carries the mark, or the hidden
    /// variables that survive a user's save.
    pub(super) fn is_bundled(&self) -> bool {
        self.owner().is_none() && (self.mark.is_some() || self.constant(MODELS).is_some())
    }

    /// The instance that a user's dashboard was imported for, if any.
    pub(super) fn owner(&self) -> Option<&str> {
        let marked = self.mark.as_ref().and_then(|mark| mark.instance.as_deref());
        marked.or_else(|| self.constant(OWNER).filter(|instance| !instance.is_empty()))
    }

    /// Whether the stored dashboard differs from the sent one, except for Grafana's own counts.
    fn differs(&self, dashboard: &Value) -> bool {
        let sent = self.mark.as_ref().and_then(|mark| mark.content.as_ref());
        sent != Some(&content_fingerprint(dashboard))
    }

    fn state(&self, dashboard: &Value) -> ActualDashboard {
        ActualDashboard {
            stored: StoredVersion::default(),
            provisioned: false,
            edited: self.differs(dashboard),
            unrecorded: false,
            content_hash: self.mark.as_ref().and_then(|mark| mark.edition.clone()),
            objective: self.constant(OBJECTIVE).and_then(|text| text.parse().ok()),
            models: self.constant(MODELS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
            made_for: self.mark.as_ref().and_then(|mark| mark.made_for.clone()),
        }
    }
}

/// Fingerprint of the bundled dashboard; every version has its own.
#[must_use]
pub(crate) fn content_hash() -> String {
    fingerprint(BUNDLED.as_bytes())
}

/// The id of a panel in the bundled dashboard, by its title.
pub(super) fn panel_id(title: &str) -> u64 {
    let dashboard: DashboardModel = serde_json::from_str(BUNDLED).unwrap_or_default();
    dashboard.panels.iter().find(|panel| panel.title == title).map_or(0, |panel| panel.id)
}

/// The dashboard to send. If Clipper's file does not set a value, the stored dashboard's value is kept.
#[must_use]
pub(crate) fn render(
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
    add_mark(&mut dashboard, &desired.content_hash, None, source);
    dashboard
}

/// Marks a dashboard as sent for an instance's data source.
pub(super) fn add_mark(dashboard: &mut Value, content_hash: &str, instance: Option<&str>, source: &DesiredDataSource) {
    dashboard[MARK] = json!(DashboardMark {
        edition: Some(content_hash.into()),
        content: Some(content_fingerprint(dashboard)),
        instance: instance.map(String::from),
        made_for: Some(source.made_for()),
        save: None,
    });
}

/// Replaces placeholders for the objective by numbers, and completes commands in texts.
fn fill(dashboard: &mut Value, objective: u64, option: &str) {
    for_each_value(dashboard, &mut |value| {
        if *value == "OBJECTIVE_MICROS" {
            *value = json!(objective);
        }
    });
    for_each_text(dashboard, &mut |text| {
        if text.contains(NAME_OPTION) {
            *text = text.replace(NAME_OPTION, option);
        }
    });
}

/// Rewrites references to data sources for versions before uids: by name.
pub(super) fn refer_by_name(dashboard: &mut Value) {
    for_each_value(dashboard, &mut |value| {
        if let Some(reference) = value.get_mut("datasource")
            && let Some(name) = reference.get_mut("uid").map(Value::take)
        {
            *reference = name;
        }
    });
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
pub(super) fn whole_numbers(document: &mut Value) {
    for_each_value(document, &mut |value| {
        let float = value.as_f64().filter(|float| value.is_f64() && float.fract() == 0.0);
        // A float without a fraction prints as an integer.
        if let Some(whole) = float.and_then(|float| format!("{float}").parse::<i64>().ok()) {
            *value = json!(whole);
        }
    });
}

/// Notes the version under which Grafana will store a dashboard, and Grafana's time. If Grafana changes values while
/// storing it, the note shows that no other save followed, until the fingerprint of the stored content is recorded.
pub(super) fn note_save(sent: &mut Value, replaced: Option<u64>, now: jiff::Timestamp) {
    let version = Some(replaced.unwrap_or_default() + 1);
    change_mark(sent, |mark| mark.save = Some(PendingSave { version, at: now.to_string() }));
}

/// Raises a refresh interval below Grafana's minimum, which is a duration such as `5s`.
pub(super) fn raise_refresh(sent: &mut Value, least: &str) {
    let duration = |text: &str| humantime::parse_duration(text).ok();
    let is_below =
        sent["refresh"].as_str().and_then(duration).zip(duration(least)).is_some_and(|(own, least)| own < least);
    if is_below {
        sent["refresh"] = json!(least);
        let content = Some(content_fingerprint(sent));
        change_mark(sent, |mark| mark.content = content);
    }
}

/// Notes the fingerprint of the content as Grafana stored it: Grafana changes some values, such as a refresh interval
/// below its minimum, and such a change is not an edit. It is noted only once, so that a Grafana that changes even the
/// content that it returned causes no endless saves; such a dashboard counts as edited.
pub(super) fn note_stored(stored: &mut Value) {
    let content = Some(content_fingerprint(stored));
    change_mark(stored, |mark| (mark.content, mark.save) = (content, None));
}

fn change_mark(dashboard: &mut Value, change: impl FnOnce(&mut DashboardMark)) {
    let mut mark = DashboardMark::deserialize(ObjectsOnly(&dashboard[MARK])).unwrap_or_default();
    change(&mut mark);
    dashboard[MARK] = json!(mark);
}

/// Reads an existing dashboard.
#[must_use]
pub fn read(dashboard: &Value) -> ActualDashboard {
    Head::of(dashboard).state(dashboard)
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
    fn a_refresh_interval_below_the_minimum_is_raised_before_it_is_sent() {
        let (dashboard, source) = desired();
        for (own, least, expected) in [
            (json!("10s"), "1m", json!("1m")),
            (json!("1m"), "10s", json!("1m")),
            (json!("5s"), "5s", json!("5s")),
            (json!(""), "5s", json!("")),
            (json!("auto"), "5s", json!("auto")),
            (json!(false), "5s", json!(false)),
            (json!("1s"), "", json!("1s")),
        ] {
            let mut sent = render(&dashboard, &source, None, Api::Uid);
            sent["refresh"] = own;
            add_mark(&mut sent, &dashboard.content_hash, None, &source);
            raise_refresh(&mut sent, least);
            assert_eq!((&sent["refresh"], read(&sent).edited), (&expected, false));
        }
    }

    #[test]
    fn a_value_changed_by_grafana_is_recorded_and_no_edit() {
        let (dashboard, source) = desired();
        let mut sent = render(&dashboard, &source, None, Api::Uid);
        note_save(&mut sent, Some(4), "2026-01-02T00:00:00Z".parse().unwrap());
        let state = |content: &Value, version: u64, updated: &str, provisioned: bool| {
            let mut found = json!({"dashboard": content, "meta": {"updated": updated, "provisioned": provisioned}});
            found["dashboard"]["version"] = json!(version);
            let seen = super::super::json::read::<StoredDashboard>(found).state();
            assert_eq!(seen.content_hash, Some(content_hash()));
            (seen.edited, seen.unrecorded)
        };
        let [saved, later] = ["2026-01-02T00:00:01Z", "2026-01-03T00:00:00Z"];
        assert_eq!(state(&sent, 5, saved, false), (false, false), "it is stored unchanged");
        let mut stored = sent.clone();
        stored["refresh"] = json!("1m");
        assert_eq!(state(&stored, 5, saved, false), (false, true));
        assert_eq!(state(&stored, 6, saved, false), (true, false), "another save followed");
        assert_eq!(state(&stored, 5, later, false), (true, false), "a copy was created later");
        assert_eq!(state(&stored, 5, "", false), (true, false));
        assert_eq!(state(&stored, 5, saved, true), (true, false), "no save can record it");
        note_stored(&mut stored);
        assert_eq!(state(&stored, 6, saved, false), (false, false));
        // It is recorded only once.
        stored["refresh"] = json!("2m");
        assert_eq!(state(&stored, 6, saved, false), (true, false));
        stored.as_object_mut().unwrap().remove(MARK);
        assert!(read(&stored).edited, "a save in the browser drops the mark");
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
