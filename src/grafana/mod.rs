//! The client of Grafana's HTTP API, 7.5 to 13: data source, dashboards, alert rules, organisation,
//! folder and home page, and the queries of panels.

pub mod alerts;
mod catalogue;
pub mod dashboard;
mod layout;
mod made_for;
mod organisation;
pub mod panels;
pub mod provisioning;
mod question;
mod schema_v2;
mod store;
mod time_range;
pub mod user_dashboard;
mod variables;

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::{try_join, try_join_all, try_join5};
use serde_json::{Value, json};

pub use self::organisation::{Choice, FormLogin};
pub use self::question::classify;
use crate::error::{Error, ForeignObject, Result};
use crate::http::{Body, Http, Response, escaped};
use crate::model::observed::{
    AlertRulesState, DashboardState, DataSourceState, FolderState, GrafanaState, OrganisationState, Query,
    ServerResponse, Unreadable,
};
use crate::model::role::Role;
use crate::model::stack::{DashboardId, DesiredDataSource, MadeFor, Secret, Stack};
use crate::model::text::printable;
use crate::model::version::Version;

/// The key in a data source's `jsonData` that names its owner; it survives a user's save.
const MARK: &str = "clipperMetrics";
/// The key next to it that names the target of the data source. Older versions of this program
/// expect a string in the mark itself.
const MADE_FOR_MARK: &str = "clipperMetricsMadeFor";
/// Options in `jsonData` that change the connection to InfluxDB.
const OTHER_SWITCHES: [&str; 6] =
    ["tlsAuth", "tlsAuthWithCACert", "tlsSkipVerify", "oauthPassThru", "sigV4Auth", "enableSecureSocksProxy"];
/// An attempt whose failure does not matter.
const READ_PREFERENCES: &str = "read the preferences";
/// The prefix of a header's number in `jsonData`.
const OTHER_HEADER: &str = "httpHeaderName";

/// How a version of Grafana addresses resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Up to 8: by number; panels query through the proxy.
    Numeric,
    /// From 9 on: by uid; panels query through `/api/ds/query`. Version 13 no longer has numbers.
    Uid,
}

impl Api {
    /// The API of a version, or the newest one if the version is unknown.
    fn of(version: Option<Version>) -> Self {
        if version.is_some_and(|version| version < Version(9, 0)) { Self::Numeric } else { Self::Uid }
    }

    /// The value with which a dashboard refers to a data source.
    fn reference(self, source: &DesiredDataSource) -> &str {
        match self {
            Self::Numeric => &source.name,
            Self::Uid => &source.uid,
        }
    }
}

/// The type of InfluxDB's data source.
const INFLUXDB: &str = "influxdb";
/// The type of expressions, which Grafana computes from other queries.
const EXPRESSION: &str = "__expr__";

/// A Grafana server.
pub struct Grafana {
    http: Http,
    choice: Choice,
    version: Cell<Option<Version>>,
    organisation: Cell<Option<u64>>,
}

impl Grafana {
    /// A client for the server behind `http`, which has the credentials.
    #[must_use]
    pub const fn new(http: Http, choice: Choice) -> Self {
        Self { http, choice, version: Cell::new(None), organisation: Cell::new(None) }
    }

    /// Whether the server is ready, and its version. The request is sent without credentials.
    pub async fn health(&self, within: Duration) -> (ServerResponse<()>, Option<String>) {
        let answer = match self.http.anonymous().send("GET", "/api/health", &[], Body::Empty, Some(within)).await {
            Ok(answer) => answer,
            Err(Error::Http { why, .. }) => return (ServerResponse::Silent(why), None),
            Err(error) => return (ServerResponse::Silent(error.to_string()), None),
        };
        let json = answer.json();
        let version = json.get("version").and_then(Value::as_str).map(printable);
        if matches!(answer.status, 502..=504) {
            return (ServerResponse::Starting(format!("still starting (status {})", answer.status)), version);
        }
        if let Some(place) = answer.redirects_to() {
            return (ServerResponse::Unusable(format!("a redirect to {place}")), None);
        }
        if answer.status != 200 || json.get("database").is_none() {
            return (
                ServerResponse::Unusable(format!("a server that is not Grafana (status {})", answer.status)),
                None,
            );
        }
        self.version.set(version.as_deref().and_then(Version::parse));
        (ServerResponse::Answering(()), version)
    }

    /// The server's clock in milliseconds since 1970, to the second.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn clock(&self) -> Result<Option<i64>> {
        Ok(self.http.anonymous().send("GET", "/api/health", &[], Body::Empty, None).await?.date())
    }

    /// Takes over the version from a client of the same server.
    pub fn same_version_as(&self, other: &Self) {
        self.version.set(other.version.get());
    }

    fn api(&self) -> Api {
        Api::of(self.version.get())
    }

    fn is_before(&self, major: u64) -> bool {
        self.version.get().is_some_and(|version| version < Version(major, 0))
    }

    /// Reads the server's content. If the login is rejected, no second request is sent with it.
    /// While InfluxDB does not run, no query is sent: its host name does not resolve then, and a
    /// name server can take long to answer that.
    pub async fn observe(&self, stack: &Stack, influxdb_runs: bool) -> ServerResponse<GrafanaState> {
        match self.stored(stack, influxdb_runs).await {
            Ok(seen) => ServerResponse::Answering(seen),
            Err(Error::Refused { message, .. }) => ServerResponse::Refusing(message),
            Err(Error::Answer { status: 403, why, doing, .. }) => ServerResponse::Refusing(format!(
                "{why}: this account may not {doing}; before Grafana 9, only an administrator may"
            )),
            Err(error) => ServerResponse::Silent(error.to_string()),
        }
    }

    async fn stored(&self, stack: &Stack, influxdb_runs: bool) -> Result<GrafanaState> {
        let organisation = self.enter(stack.organisation.as_deref()).await?;
        if organisation != OrganisationState::Present {
            return Ok(GrafanaState {
                organisation,
                folder: FolderState::Missing,
                data_source: DataSourceState::Missing,
                dashboard: DashboardState::Missing,
                user_dashboards: Vec::new(),
                alerts: AlertRulesState::NotLookedAt,
                query: Query::Unasked,
                catalogue: None,
            });
        }
        let (sources, data_source) = match self.data_sources().await {
            Ok(sources) => {
                let seen = seen_data_source(&sources, &stack.data_source);
                (sources, seen)
            }
            Err(error) => (Vec::new(), DataSourceState::Unreadable(unreadable(error)?)),
        };
        let query = async {
            match &data_source {
                DataSourceState::Ours { .. } if influxdb_runs => {
                    self.ask(&stack.data_source, numeric_id(&sources, &stack.data_source.uid)).await
                }
                _ => Ok(Query::Unasked),
            }
        };
        let catalogue = async {
            let is_unknown = matches!(data_source, DataSourceState::Unreadable(_));
            if stack.user_dashboards.is_empty() || is_unknown {
                return Ok(None);
            }
            self.catalogue(&sources).await.map(Some)
        };
        let (mut dashboards, folder, alerts, query, catalogue) =
            try_join5(self.seen_dashboards(stack), self.seen_folder(stack), self.seen_alerts(stack), query, catalogue)
                .await?;
        if let DataSourceState::Unreadable(why) = &data_source
            && dashboards.iter().all(|dashboard| matches!(dashboard, DashboardState::Unreadable(_)))
        {
            // The login was not accepted by any answer.
            return Err(self.answered(&why.doing, why.status, why.why.clone()));
        }
        let user_dashboards = dashboards.split_off(1);
        let dashboard = dashboards.pop().unwrap_or(DashboardState::Missing);
        Ok(GrafanaState { organisation, folder, data_source, dashboard, user_dashboards, alerts, query, catalogue })
    }

    /// Detects other owners' objects in the place of the data source or a dashboard before anything
    /// is written; returns the existing dashboard. The first save checks all places.
    async fn expect_no_clash(&self, stack: &Stack, id: DashboardId) -> Result<Option<Value>> {
        let looks_at = |other: &DashboardId| id == DashboardId::Bundled || *other == id;
        let dashboards = try_join_all(stack.dashboards().filter(looks_at).map(async |other| {
            let (uid, ..) = stack.dashboard_identity(other);
            let found = async {
                let found = self.dashboard(uid).await?;
                let seen = self.judge_dashboard(stack, other, found.as_ref()).await?;
                Ok((other, found, seen))
            };
            match found.await {
                // A different dashboard that cannot be read does not prevent this save.
                Err(Error::Answer { .. }) if other != id => Ok((other, None, DashboardState::Missing)),
                found => found,
            }
        }));
        let (sources, dashboards) = try_join(self.data_sources(), dashboards).await?;
        if let DataSourceState::Foreign(what) = seen_data_source(&sources, &stack.data_source) {
            return Err(foreign(&what));
        }
        let clash = dashboards.iter().find_map(|(_, _, seen)| match seen {
            DashboardState::Clash { what, .. } => Some(what),
            _ => None,
        });
        if let Some(what) = clash {
            return Err(foreign(what));
        }
        Ok(dashboards.into_iter().find(|(other, ..)| *other == id).and_then(|(_, found, _)| found))
    }

    async fn data_sources(&self) -> Result<Vec<Value>> {
        let doing = "list the data sources";
        let list = match self.get(doing, "/api/datasources").await {
            Err(Error::Answer { status: 403, why, .. }) if self.is_before(9) => {
                let why = format!("{why} (before Grafana 9, only an administrator may)");
                return Err(self.answered(doing, 403, why));
            }
            list => list?,
        };
        list.and_then(|list| list.as_array().cloned()).ok_or_else(|| self.odd(doing))
    }

    /// Creates or updates the data source. A new one becomes the default if there is none.
    ///
    /// # Errors
    /// [`Error::Foreign`] if a data source with that name or uid was not created by this instance
    /// or is provisioned from a file, [`Error::Raced`] if another process created it meanwhile, or
    /// if it was created for another address or database and `moves` is not set, otherwise an error
    /// from the server.
    pub async fn save_data_source(&self, stack: &Stack, password: Option<&Secret>, moves: bool) -> Result<()> {
        let (desired, doing) = (&stack.data_source, "save the data source");
        let sources = self.data_sources().await?;
        let listed = match seen_data_source(&sources, desired) {
            DataSourceState::Foreign(what) => return Err(foreign(&what)),
            DataSourceState::Ours { provisioned: true, .. } => return Ok(()),
            DataSourceState::Ours { made_for, .. } if !made_for.is_same(&desired.made_for()) && !moves => {
                return Err(moved(doing, &made_for));
            }
            DataSourceState::Ours { .. } => true,
            DataSourceState::Missing | DataSourceState::Unreadable(_) => false,
        };
        let by_uid = path(&["api", "datasources", "uid", &desired.uid]);
        // The list omits fields that a save without them would reset.
        let present = if listed { self.get("read the data source", &by_uid).await? } else { None };
        let present = present.as_ref();
        let mut body = data_source_body(desired);
        let keeps_others = stack.may_have_proxy();
        if let Some(present) = present {
            keep_settings(&mut body, present, keeps_others);
        }
        let is_default = present.map_or_else(
            || !sources.iter().any(|source| source["isDefault"] == true),
            |source| source["isDefault"] == true,
        );
        body["isDefault"] = json!(is_default);
        if let Some(password) = password {
            body["secureJsonData"] = json!({"password": password.reveal()});
        }
        let (method, path) = match (present, self.api()) {
            (None, _) => ("POST", "/api/datasources".to_string()),
            (Some(_), Api::Uid) => ("PUT", by_uid),
            (Some(source), Api::Numeric) => ("PUT", format!("/api/datasources/{}", source["id"])),
        };
        let answer = self.send(doing, method, &path, Some(&body)).await?;
        match answer.status {
            409 => Err(Error::Raced { doing: doing.into(), why: answer.message() }),
            _ => self.expect_success(doing, &answer),
        }
    }

    /// Deletes the data source, if this instance created it for the stack's address and database.
    ///
    /// # Errors
    /// An error from the server.
    pub async fn delete_data_source(&self, desired: &DesiredDataSource) -> Result<()> {
        match seen_data_source(&self.data_sources().await?, desired) {
            DataSourceState::Ours { provisioned: false, made_for, .. } if made_for.is_same(&desired.made_for()) => {
                self.delete("delete the data source", &path(&["api", "datasources", "uid", &desired.uid])).await
            }
            _ => Ok(()),
        }
    }

    /// Makes the dashboard the organisation's home page, unless it has one. If the account may not
    /// do that, a note says so and nothing changes.
    ///
    /// # Errors
    /// [`Error::Http`] or [`Error::Answer`] if it fails for another reason.
    pub async fn set_home(&self, uid: &str) -> Result<()> {
        match self.try_to_set_home(uid).await {
            Err(Error::Answer { status: 403, .. }) => {
                self.http.note("this account may not set Grafana's home page, so it stays unchanged");
                Ok(())
            }
            // It is unknown whether there is one, and no panel depends on it.
            Err(Error::Answer { doing, why, .. }) if doing == READ_PREFERENCES => {
                self.http.note(&format!("cannot {doing}: {why}; Grafana's home page stays unchanged"));
                Ok(())
            }
            result => result,
        }
    }

    async fn try_to_set_home(&self, uid: &str) -> Result<()> {
        let path = "/api/org/preferences";
        let mut preferences = self.get(READ_PREFERENCES, path).await?.unwrap_or_default();
        let has_home = preferences["homeDashboardUID"].as_str().is_some_and(|uid| !uid.is_empty())
            || preferences["homeDashboardId"].as_u64().is_some_and(|id| id > 0);
        if has_home {
            return Ok(());
        }
        let answer = match self.api() {
            Api::Uid => self.send("set the home page", "PATCH", path, Some(&json!({"homeDashboardUID": uid}))).await?,
            Api::Numeric => {
                let id = self.dashboard(uid).await?.map(|json| json["dashboard"]["id"].clone());
                preferences["homeDashboardId"] = id.unwrap_or_default();
                self.send("set the home page", "PUT", path, Some(&preferences)).await?
            }
        };
        self.expect_success("set the home page", &answer)
    }

    /// Changes the password of the signed-in user.
    ///
    /// # Errors
    /// [`Error::Answer`] if the server rejects the change.
    pub async fn change_password(&self, old: &Secret, new: &Secret) -> Result<()> {
        let body = json!({"oldPassword": old.reveal(), "newPassword": new.reveal(), "confirmNew": new.reveal()});
        let answer = self.send("change the password", "PUT", "/api/user/password", Some(&body)).await?;
        self.expect_success("change the password", &answer)
    }

    /// A GET request; `None` if the resource does not exist.
    async fn get(&self, doing: &str, path: &str) -> Result<Option<Value>> {
        let answer = self.send(doing, "GET", path, None).await?;
        match answer.status {
            200 => Ok(Some(answer.json())),
            404 => Ok(None),
            status => Err(self.answered(doing, status, answer.message())),
        }
    }

    /// A DELETE request; a missing resource is not an error.
    async fn delete(&self, doing: &str, path: &str) -> Result<()> {
        let answer = self.send(doing, "DELETE", path, None).await?;
        if answer.status == 404 { Ok(()) } else { self.expect_success(doing, &answer) }
    }

    async fn send(&self, doing: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        self.exchange(method, path, &[], body.map_or(Body::Empty, Body::Json)).await.map_err(|error| match error {
            Error::Http { url, why, is_late, .. } => Error::Http { doing: doing.into(), url, why, is_late },
            error => error,
        })
    }

    /// A request in the chosen organisation. A 401 is final, because Grafana counts rejected logins.
    async fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body<'_>) -> Result<Response> {
        let organisation = self.organisation.get().map(|id| id.to_string());
        let mut all = headers.to_vec();
        if let Some(id) = &organisation {
            all.push(("X-Grafana-Org-Id", id));
        }
        let answer = self.http.send(method, path, &all, body, None).await?;
        if answer.status == 401 {
            let (url, message) = (self.http.address().into(), answer.message());
            return Err(Error::Refused { role: Role::Grafana, url, message });
        }
        Ok(answer)
    }

    fn expect_success(&self, doing: &str, answer: &Response) -> Result<()> {
        if answer.is_success() { Ok(()) } else { Err(self.answered(doing, answer.status, answer.message())) }
    }

    fn answered(&self, doing: &str, status: u16, why: String) -> Error {
        Error::Answer { doing: doing.into(), url: self.http.address().into(), status, why }
    }

    fn odd(&self, doing: &str) -> Error {
        self.answered(doing, 0, "the answer does not come from Grafana".into())
    }
}

/// A path from these segments.
fn path(segments: &[&str]) -> String {
    segments.iter().map(|segment| format!("/{}", escaped(segment))).collect()
}

/// The error for another owner's object that was detected only now.
fn foreign(what: &str) -> Error {
    let why = format!("Grafana already has {what}, which clipper-metrics did not create");
    Error::Foreign { why, object: ForeignObject::InGrafana }
}

/// Turns an unexpected status into a finding about one resource. A rejected login or a broken
/// connection concerns all of them.
fn unreadable(error: Error) -> Result<Unreadable> {
    match error {
        Error::Answer { doing, status, why, .. } => Ok(Unreadable { doing, status, why }),
        error => Err(error),
    }
}

/// The result of a read, in which an unexpected status becomes a finding about the resource.
fn or_unreadable<T>(result: Result<T>, as_seen: impl FnOnce(Unreadable) -> T) -> Result<T> {
    result.or_else(|error| unreadable(error).map(as_seen))
}

/// The error for an object that was created for another address or database since it was read.
fn moved(doing: &str, made_for: &MadeFor) -> Error {
    Error::Raced { doing: doing.into(), why: format!("another run has created it for {made_for} in the meantime") }
}

/// Keeps the settings of a stored data source that clipper-metrics does not set. Those that change
/// the connection to InfluxDB are kept only if a user may need them.
fn keep_settings(body: &mut Value, present: &Value, keeps_others: bool) {
    let kept = present["jsonData"].as_object().into_iter().flatten();
    for (name, value) in kept.filter(|(name, _)| keeps_others || !is_other_setting(name)) {
        body["jsonData"].as_object_mut().map(|ours| ours.entry(name).or_insert_with(|| value.clone()));
    }
    for name in ["basicAuth", "basicAuthUser", "withCredentials"] {
        if keeps_others && !present[name].is_null() {
            body[name] = present[name].clone();
        }
    }
}

/// Whether a key of `jsonData` changes the connection to InfluxDB and is not set by clipper-metrics.
fn is_other_setting(name: &str) -> bool {
    OTHER_SWITCHES.contains(&name) || name.starts_with(OTHER_HEADER)
}

/// The settings of a stored data source that change the connection to InfluxDB and are not set by
/// clipper-metrics.
fn other_settings(source: &Value) -> String {
    let is_on = |value: &Value| *value == true || value.as_str().is_some_and(|text| !text.is_empty());
    let inner = source["jsonData"].as_object().into_iter().flatten();
    let inner = inner.filter(|(name, value)| is_other_setting(name) && is_on(value)).map(|(name, _)| name.as_str());
    let outer = (source["basicAuth"] == true).then_some("basicAuth");
    inner.chain(outer).collect::<Vec<_>>().join(", ")
}

/// The fields of the data source that clipper-metrics sets.
fn data_source_body(desired: &DesiredDataSource) -> Value {
    json!({
        "name": desired.name, "uid": desired.uid, "type": INFLUXDB, "access": "proxy", "url": desired.url,
        "database": desired.database, "user": desired.user,
        "jsonData": {
            MARK: desired.uid, MADE_FOR_MARK: made_for::written(desired.made_for()), "dbName": desired.database,
            "version": DesiredDataSource::LANGUAGE, "httpMode": "POST", "timeInterval": DesiredDataSource::INTERVAL,
        },
    })
}

/// The number that versions before 9 expect in addresses.
fn numeric_id(sources: &[Value], uid: &str) -> Option<u64> {
    sources.iter().find(|source| source["uid"] == uid)?["id"].as_u64()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

/// The state of the data source with the specified uid or name.
fn seen_data_source(sources: &[Value], desired: &DesiredDataSource) -> DataSourceState {
    let describe = |source: &Value| {
        let provisioned = if source["readOnly"] == true { "provisioned " } else { "" };
        format!("a {provisioned}data source called {:?} with the uid {:?}", text(&source["name"]), text(&source["uid"]))
    };
    let own = sources.iter().find(|source| source["uid"] == desired.uid.as_str());
    let namesake =
        sources.iter().find(|source| source["name"] == desired.name.as_str() && source["uid"] != desired.uid.as_str());
    match (own, namesake) {
        (Some(own), _) if own["jsonData"][MARK] != desired.uid.as_str() => DataSourceState::Foreign(describe(own)),
        (_, Some(other)) => DataSourceState::Foreign(describe(other)),
        (None, None) => DataSourceState::Missing,
        (Some(own), None) => {
            let settings = &own["jsonData"];
            let (inner, outer) = (text(&settings["dbName"]), text(&own["database"]));
            // Newer versions query the database in `jsonData`, older ones know only the outer one.
            let queried = if inner.is_empty() { outer.clone() } else { inner.clone() };
            let database = if inner == outer { inner } else { format!("{inner:?} and {outer:?}") };
            let fields = [
                ("name", text(&own["name"])),
                ("type", text(&own["type"])),
                ("access", text(&own["access"])),
                ("url", text(&own["url"])),
                ("database", database),
                ("user", text(&own["user"])),
                ("interval", text(&settings["timeInterval"])),
                // Grafana's default if the field is missing.
                (
                    "language",
                    Some(text(&settings["version"]))
                        .filter(|name| !name.is_empty())
                        .unwrap_or_else(|| DesiredDataSource::LANGUAGE.into()),
                ),
                ("HTTP method", text(&settings["httpMode"])),
                (DesiredDataSource::OTHER_SETTINGS, other_settings(own)),
            ];
            let made_for = made_for::read(&settings[MADE_FOR_MARK]).unwrap_or_else(|| MadeFor {
                url: text(&own["url"]),
                database: queried,
                machine: None,
            });
            let fields = fields.map(|(name, value)| (name.to_string(), value)).into();
            DataSourceState::Ours { fields, made_for, provisioned: own["readOnly"] == true }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn proxy_settings_are_listed_and_kept_only_if_there_may_be_a_proxy() {
        let present = json!({"uid": "x", "name": "X", "basicAuth": true, "basicAuthUser": "me", "jsonData": {
            MARK: "x", "version": "Flux", "tlsAuth": true, "tlsSkipVerify": false, "httpHeaderName1": "X-Tenant",
            "serverName": "", "maxSeries": 1000,
        }});
        assert_eq!(other_settings(&present), "httpHeaderName1, tlsAuth, basicAuth");
        for keeps in [false, true] {
            let mut body = data_source_body(&samples::data_source());
            keep_settings(&mut body, &present, keeps);
            assert_eq!(other_settings(&body).is_empty(), !keeps);
            assert_eq!(body["basicAuthUser"].is_null(), !keeps);
            assert_eq!(
                (&body["jsonData"]["maxSeries"], &body["jsonData"]["version"]),
                (&json!(1000), &json!("InfluxQL"))
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_of_grafana_causes_a_panic(
            json in crate::arbitrary::json(&[
                "results", "A", "frames", "series", "error", "uid", "name", "jsonData", "clipperMetrics", "templating",
                "list", "query", "content", "edition",
            ]),
            status in 100_u16..600,
        ) {
            for api in [Api::Uid, Api::Numeric] {
                let _ = classify(api, status, &json, String::new);
            }
            let list: Vec<Value> = json.as_array().cloned().unwrap_or_else(|| vec![json.clone()]);
            let _ = seen_data_source(&list, &samples::data_source());
            let _ = dashboard::read(&json);
        }
    }

    #[test]
    fn a_managed_data_source_is_identified_by_its_mark_and_others_by_name_or_uid() {
        let ours = json!({"uid": "x", "name": "renamed", "jsonData": {"clipperMetrics": "x"}});
        assert!(matches!(seen_data_source(&[ours], &samples::data_source()), DataSourceState::Ours { .. }));
        for theirs in [json!({"uid": "x", "name": "Y", "jsonData": {}}), json!({"uid": "y", "name": "X"})] {
            assert!(matches!(seen_data_source(&[theirs], &samples::data_source()), DataSourceState::Foreign(_)));
        }
        assert_eq!(seen_data_source(&[], &samples::data_source()), DataSourceState::Missing);
        // The instance's data source was renamed, and another one has its old name.
        let ours = json!({"uid": "x", "name": "renamed", "jsonData": {"clipperMetrics": "x"}});
        let theirs = json!({"uid": "y", "name": "X"});
        assert!(matches!(seen_data_source(&[ours, theirs], &samples::data_source()), DataSourceState::Foreign(_)));
    }
}
