//! The data source: its stored form, its ownership, and how it is saved and deleted.

use serde::{Deserialize as _, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::json::lenient;
use super::versions::Capability;
use super::{Api, Grafana, INFLUXDB, changed, foreign, moved, path};
use crate::error::{Error, ForeignObject, Result};
use crate::http::Body;
use crate::model::observed::{DataSourceState, OtherObject};
use crate::model::stack::{DesiredDataSource, MadeFor, Secret, Stack};
use crate::objects_only::ObjectsOnly;

/// The key in `jsonData` that names the owner; it survives a user's save.
const MARK: &str = "clipperMetrics";
/// The key next to it that names the target. Older versions of this program expect a string in the mark itself.
const MADE_FOR_MARK: &str = "clipperMetricsMadeFor";
/// The option for the certificate of an authority, which Grafana stores with its secrets. It is no secret, and stays.
const AUTHORITY: &str = "tlsAuthWithCACert";
/// Options in `jsonData` that change the connection to InfluxDB.
const OTHER_SWITCHES: [&str; 5] = ["tlsAuth", "tlsSkipVerify", "oauthPassThru", "sigV4Auth", "enableSecureSocksProxy"];
/// Those of them that need a secret.
const SECRET_SWITCHES: [&str; 2] = ["tlsAuth", "sigV4Auth"];
/// The prefix of a header's number in `jsonData`.
const OTHER_HEADER: &str = "httpHeaderName";

lenient! {
    /// A data source, as it is read and saved.
    #[derive(Serialize)]
    pub(super) struct DataSource {
        /// The number that versions before 9 expect in addresses.
        #[serde(skip_serializing)]
        pub(super) id: Option<u64>,
        pub(super) uid: String,
        pub(super) name: String,
        #[serde(rename = "type")]
        pub(super) kind: String,
        access: String,
        pub(super) url: String,
        database: String,
        user: String,
        pub(super) is_default: bool,
        /// Whether a file provides it.
        #[serde(skip_serializing)]
        read_only: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        basic_auth: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        basic_auth_user: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        with_credentials: Option<bool>,
        json_data: Map<String, Value>,
    }
}

/// A data source with its password, which Grafana never returns.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DataSourceSave<'a> {
    #[serde(flatten)]
    source: &'a DataSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    secure_json_data: Option<Value>,
}

impl DataSource {
    /// The fields that clipper-metrics sets.
    pub(super) fn new(desired: &DesiredDataSource) -> Self {
        let settings = [
            (MARK, json!(desired.uid)),
            (MADE_FOR_MARK, json!(desired.made_for())),
            ("dbName", json!(desired.database)),
            ("version", json!(DesiredDataSource::LANGUAGE)),
            ("httpMode", json!("POST")),
            ("timeInterval", json!(DesiredDataSource::INTERVAL)),
        ];
        Self {
            name: desired.name.clone(),
            uid: desired.uid.clone(),
            kind: INFLUXDB.into(),
            access: "proxy".into(),
            url: desired.url.clone(),
            database: desired.database.clone(),
            user: desired.user.clone(),
            json_data: settings.map(|(name, value)| (name.to_string(), value)).into_iter().collect(),
            ..Self::default()
        }
    }

    /// Keeps the settings of a stored data source that clipper-metrics does not set. Those that change
    /// the connection to InfluxDB are kept only on request: Grafana keeps their secrets, too.
    pub(super) fn keep_settings(&mut self, present: Self, keeps_others: bool) {
        for (name, value) in present.json_data {
            if keeps_others || !is_other_setting(&name) {
                self.json_data.entry(name).or_insert(value);
            }
        }
        if keeps_others {
            (self.basic_auth, self.basic_auth_user) = (present.basic_auth, present.basic_auth_user);
            self.with_credentials = present.with_credentials;
        }
    }

    /// A text in `jsonData`.
    fn setting(&self, name: &str) -> &str {
        self.json_data.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The settings that change the connection to InfluxDB and are not set by clipper-metrics.
    fn other_settings(&self) -> String {
        self.settings_in_use(is_other_setting).join(", ")
    }

    /// The settings in use whose certificates, keys, passwords and other values Grafana never returns.
    pub(super) fn settings_with_secrets(&self) -> Vec<&str> {
        self.settings_in_use(|name| {
            name == AUTHORITY || SECRET_SWITCHES.contains(&name) || name.starts_with(OTHER_HEADER)
        })
    }

    /// The settings in use that belong to the connection of one Grafana.
    pub(super) fn connection_settings(&self) -> Vec<&str> {
        self.settings_in_use(|name| name == AUTHORITY || is_other_setting(name))
    }

    /// The settings that a file can contain.
    pub(super) fn for_file(mut self) -> Self {
        let secret: Vec<String> = self.settings_with_secrets().into_iter().map(String::from).collect();
        self.json_data.retain(|name, _| !secret.contains(name));
        let with_credentials = self.with_credentials.filter(|is_on| *is_on);
        Self { basic_auth: None, basic_auth_user: None, with_credentials, ..self }
    }

    /// Without those settings.
    pub(super) fn without_connection(mut self) -> Self {
        self.json_data.retain(|name, _| !is_other_setting(name) && name != AUTHORITY);
        Self { basic_auth: None, basic_auth_user: None, with_credentials: None, ..self }
    }

    fn settings_in_use(&self, is_one: impl Fn(&str) -> bool) -> Vec<&str> {
        let is_on = |value: &Value| *value == true || value.as_str().is_some_and(|text| !text.is_empty());
        let inner = self.json_data.iter().filter(|(name, value)| is_one(name) && is_on(value));
        let outer = (self.basic_auth == Some(true)).then_some("basicAuth");
        inner.map(|(name, _)| name.as_str()).chain(outer).collect()
    }

    /// The database that panels query: newer versions use the one in `jsonData`, older ones know only the outer one.
    pub(super) fn database(&self) -> &str {
        Some(self.setting("dbName")).filter(|name| !name.is_empty()).unwrap_or(&self.database)
    }

    /// The database in requests to Grafana's proxy.
    pub(super) fn outer_database(&self) -> &str {
        if self.database.is_empty() { self.setting("dbName") } else { &self.database }
    }

    /// The query language, unless it is InfluxQL, which is Grafana's default.
    pub(super) fn other_language(&self) -> Option<&str> {
        Some(self.setting("version")).filter(|language| !["", DesiredDataSource::LANGUAGE].contains(language))
    }

    fn state(&self, desired: &DesiredDataSource) -> DataSourceState {
        if self.setting(MARK) != desired.uid {
            return DataSourceState::Foreign(self.described());
        }
        let (inner, outer) = (self.setting("dbName"), self.database.as_str());
        let database = if inner == outer { inner.to_string() } else { format!("{inner:?} and {outer:?}") };
        let fields = [
            ("name", self.name.clone()),
            ("type", self.kind.clone()),
            ("access", self.access.clone()),
            ("url", self.url.clone()),
            ("database", database),
            ("user", self.user.clone()),
            ("interval", self.setting("timeInterval").into()),
            ("language", self.other_language().unwrap_or(DesiredDataSource::LANGUAGE).into()),
            ("HTTP method", self.setting("httpMode").into()),
            (DesiredDataSource::OTHER_SETTINGS, self.other_settings()),
        ];
        let stored = self.json_data.get(MADE_FOR_MARK).and_then(|mark| MadeFor::deserialize(ObjectsOnly(mark)).ok());
        let made_for = stored.unwrap_or_else(|| MadeFor {
            url: self.url.clone(),
            database: self.database().into(),
            machine: None,
        });
        let fields = fields.map(|(name, value)| (name.to_string(), value)).into();
        DataSourceState::Ours { fields, made_for, provisioned: self.read_only }
    }

    fn described(&self) -> OtherObject {
        let what = format!("a data source called {:?} with the uid {:?}", self.name, self.uid);
        OtherObject { provisioned: self.read_only, ..what.into() }
    }
}

/// Whether a key of `jsonData` changes the connection to InfluxDB and is not set by clipper-metrics.
fn is_other_setting(name: &str) -> bool {
    OTHER_SWITCHES.contains(&name) || name.starts_with(OTHER_HEADER)
}

fn uid_path(source: &DesiredDataSource) -> String {
    path(&["api", "datasources", "uid", &source.uid])
}

/// The number that versions before 9 expect in addresses.
pub(super) fn numeric_id(sources: &[DataSource], uid: &str) -> Option<u64> {
    sources.iter().find(|source| source.uid == uid)?.id
}

/// The state of the data source with the desired uid or name.
pub(super) fn state_in(sources: &[DataSource], desired: &DesiredDataSource) -> DataSourceState {
    let own = sources.iter().find(|source| source.uid == desired.uid);
    let namesake = sources.iter().find(|source| source.name == desired.name && source.uid != desired.uid);
    match (own.map(|own| own.state(desired)), namesake) {
        (Some(foreign @ DataSourceState::Foreign(_)), _) => foreign,
        (_, Some(other)) => DataSourceState::Foreign(other.described()),
        (own, None) => own.unwrap_or(DataSourceState::Missing),
    }
}

/// Whether a data source still has the target that was observed. An earlier version of this program recorded no machine,
/// so another machine may have taken it over since.
fn is_still(actual: &MadeFor, observed: &MadeFor, desired: &MadeFor) -> bool {
    let is_elsewhere = |target: &MadeFor| target.is_on_another_machine(desired);
    actual.is_same(observed) && (is_elsewhere(observed) || !is_elsewhere(actual))
}

impl Grafana {
    pub(super) async fn data_sources(&self) -> Result<Vec<DataSource>> {
        let doing = "list the data sources";
        match self.get_list(doing, "/api/datasources").await {
            Err(Error::Answer { status: 403, why, .. }) if !self.has(Capability::SourcesForEditors) => {
                Err(self.answered(doing, 403, format!("{why} (before Grafana 9, only an administrator may)")))
            }
            list => list,
        }
    }

    /// Creates the data source, or replaces the one that was created for `replaces`.
    ///
    /// # Errors
    /// [`Error::Foreign`] if another owner's data source is in its place, [`Error::Raced`] if another process created
    /// or changed it meanwhile, otherwise an error from the server.
    pub(crate) async fn save_data_source(
        &self,
        stack: &Stack,
        password: Option<&Secret>,
        replaces: Option<&MadeFor>,
        becomes_default: bool,
    ) -> Result<()> {
        let doing = "save the data source";
        let mut source = DataSource::new(&stack.data_source);
        let mut before = DataSourceState::Missing;
        let (method, path) = match replaces {
            None => {
                source.is_default = becomes_default;
                if becomes_default && self.data_sources().await?.iter().any(|other| other.is_default) {
                    let why = "another data source has become the default".into();
                    return Err(Error::Raced { doing: doing.into(), why });
                }
                ("POST", "/api/datasources".to_string())
            }
            Some(made_for) => {
                let present = self.replaced_data_source(doing, &stack.data_source, made_for).await?;
                let path = match self.api() {
                    Api::Uid => uid_path(&stack.data_source),
                    Api::Numeric => format!("/api/datasources/{}", present.id.unwrap_or_default()),
                };
                source.is_default = present.is_default;
                before = present.state(&stack.data_source);
                let keeps_others = stack.keeps_proxy_settings(&present.url);
                source.keep_settings(present, keeps_others);
                ("PUT", path)
            }
        };
        let secure_json_data = password.map(|password| json!({"password": password.reveal()}));
        let body = Body::json(&DataSourceSave { source: &source, secure_json_data });
        let answer = self.send(doing, method, &path, body).await?;
        let is_race = answer.status == 409 && state_in(&self.data_sources().await?, &stack.data_source) != before;
        if is_race {
            return Err(Error::Raced { doing: doing.into(), why: answer.message() });
        }
        // A conflict that no other process has caused stays.
        self.expect_success(doing, &answer)
    }

    /// The data source with all its fields: the list omits some that a save without them would reset. Grafana compares
    /// no version, so its owner is checked again.
    async fn replaced_data_source(
        &self,
        doing: &str,
        desired: &DesiredDataSource,
        made_for: &MadeFor,
    ) -> Result<DataSource> {
        let raced = |why: &str| Error::Raced { doing: doing.into(), why: why.into() };
        let present: DataSource = self
            .get("read the data source", &uid_path(desired))
            .await?
            .ok_or_else(|| raced("another process has deleted it"))?;
        match present.state(desired) {
            DataSourceState::Foreign(OtherObject { what, provisioned, .. }) => {
                Err(foreign(&what, ForeignObject::DataSource { provisioned }))
            }
            DataSourceState::Ours { provisioned: true, .. } => Err(raced("a file provides it now")),
            DataSourceState::Ours { made_for: other, .. } if !is_still(&other, made_for, &desired.made_for()) => {
                Err(moved(doing, &other))
            }
            _ => Ok(present),
        }
    }

    /// Deletes the data source if its fields are still as observed. Grafana compares no version, so it is read again.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process has changed it, otherwise an error from the server.
    pub(crate) async fn delete_data_source(
        &self,
        desired: &DesiredDataSource,
        observed: &BTreeMap<String, String>,
    ) -> Result<()> {
        let doing = "delete the data source";
        match state_in(&self.data_sources().await?, desired) {
            DataSourceState::Missing => Ok(()),
            DataSourceState::Ours { provisioned: false, made_for, fields }
                if made_for.is_same(&desired.made_for()) && fields == *observed =>
            {
                self.delete(doing, &uid_path(desired)).await
            }
            _ => Err(changed(doing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::{Elements, read};
    use super::*;
    use crate::samples;

    #[test]
    fn proxy_settings_are_listed_and_kept_only_if_there_may_be_a_proxy() {
        let present: DataSource = read(json!({
            "uid": "x", "name": "X", "basicAuth": true, "basicAuthUser": "me", "jsonData": {
                MARK: "x", "version": "Flux", "tlsAuth": true, "tlsSkipVerify": false, "httpHeaderName1": "X-Tenant",
                "serverName": "", "maxSeries": 1000,
            },
        }));
        assert_eq!(present.other_settings(), "httpHeaderName1, tlsAuth, basicAuth");
        for keeps in [false, true] {
            let mut source = DataSource::new(&samples::data_source());
            source.keep_settings(present.clone(), keeps);
            assert_eq!(source.other_settings().is_empty(), !keeps);
            let body = json!(source);
            assert_eq!(body["basicAuthUser"].is_null(), !keeps);
            assert_eq!(
                (&body["jsonData"]["maxSeries"], &body["jsonData"]["version"]),
                (&json!(1000), &json!("InfluxQL"))
            );
        }
    }

    #[test]
    fn a_managed_data_source_is_identified_by_its_mark_and_others_by_name_or_uid() {
        let state = |list: Value| {
            let list: Vec<DataSource> = read(list);
            state_in(&list, &samples::data_source())
        };
        let ours = json!({"uid": "x", "name": "renamed", "jsonData": {"clipperMetrics": "x"}});
        assert!(matches!(state(json!([ours])), DataSourceState::Ours { .. }));
        for theirs in [json!({"uid": "x", "name": "Y", "jsonData": {}}), json!({"uid": "y", "name": "X"})] {
            assert!(matches!(state(json!([theirs])), DataSourceState::Foreign(_)));
        }
        assert_eq!(state(json!([])), DataSourceState::Missing);
        // The instance's data source was renamed, and another one has its old name.
        let theirs = json!({"uid": "y", "name": "X"});
        assert!(matches!(state(json!([ours, theirs])), DataSourceState::Foreign(_)));
    }

    #[test]
    fn an_odd_part_hides_neither_its_data_source_nor_the_others() {
        let odd = json!([
            7, null, {"uid": "y", "name": 3, "jsonData": null},
            {"id": "1", "uid": "x", "name": null, "readOnly": "no", "jsonData": {MARK: "x", "dbName": null}},
        ]);
        let Elements(sources): Elements<DataSource> = read(odd);
        let DataSourceState::Ours { fields, provisioned, .. } = state_in(&sources, &samples::data_source()) else {
            panic!("{sources:?}");
        };
        assert_eq!((fields["name"].as_str(), provisioned), ("", false));
    }
}
