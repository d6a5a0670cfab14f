//! The client of Grafana's HTTP API, 7.5 to 13: data source, dashboards, alert rules, organisation,
//! folder and home page, and the queries of panels.

mod alert_changes;
pub(crate) mod alert_template;
mod alerts;
mod catalogue;
pub mod dashboard;
mod dashboard_model;
mod data_source;
mod field_names;
mod health_query;
mod json;
mod layout;
mod organisation;
mod panel_queries;
pub(crate) mod panels;
pub(crate) mod provisioning;
mod queries;
mod schema_v2;
mod store;
mod time_range;
pub(crate) mod user_dashboard;
mod variable_queries;
mod variables;
mod versions;

use std::time::Duration;

use futures_util::future::try_join5;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use self::data_source::{numeric_id, state_in};
pub use self::health_query::classify;
use self::json::{Elements, lenient};
pub(crate) use self::organisation::Choice;
use self::organisation::Membership;
pub(crate) use self::queries::QueryAnswer;
pub use self::versions::Api;
use self::versions::Capability;
use crate::error::{Error, ForeignObject, Result};
use crate::http::{Body, Http, Request, Response, escaped};
use crate::model::observed::{
    DashboardState, DataSourceState, FolderState, GrafanaState, OrganisationState, Query, ServerResponse, Unreadable,
};
use crate::model::role::Role;
use crate::model::stack::{MadeFor, Secret, Stack};
use crate::model::text::printable;
use crate::model::version::Version;

/// Whether the server is ready, and its version.
const HEALTH: &str = "/api/health";
/// The organisation's preferences.
const PREFERENCES: &str = "/api/org/preferences";

/// The type of InfluxDB's data source.
const INFLUXDB: &str = "influxdb";
/// The type of expressions, which Grafana computes from other queries.
const EXPRESSION: &str = "__expr__";

/// A Grafana server.
pub(crate) struct Grafana {
    http: Http,
    choice: Choice,
    version: Option<Version>,
    /// The organisation that every request names, once it was entered.
    organisation: Option<u64>,
    /// The organisation of the token, if it was looked up. No request names it.
    token_organisation: Option<u64>,
    /// The account's organisations, if one of them was chosen because no setting names one.
    memberships: Vec<Membership>,
}

lenient! {
    /// The answer about the server's health.
    struct Health {
        version: Option<String>,
        database: Option<Value>,
    }


    /// The preferences of an organisation, which are saved as a whole.
    #[derive(Serialize)]
    struct Preferences {
        #[serde(rename = "homeDashboardUID", skip_serializing_if = "Option::is_none")]
        home_uid: Option<String>,
        #[serde(rename = "homeDashboardId")]
        home_id: Option<u64>,
        #[serde(flatten)]
        rest: Map<String, Value>,
    }
}

impl Preferences {
    fn has_home(&self) -> bool {
        self.home_uid.as_ref().is_some_and(|uid| !uid.is_empty()) || self.home_id.is_some_and(|id| id > 0)
    }
}

impl Grafana {
    /// A client for the server behind `http`, which has the credentials. An unknown version counts as the newest one.
    #[must_use]
    pub(crate) const fn new(http: Http, choice: Choice, version: Option<Version>) -> Self {
        Self { http, choice, version, organisation: None, token_organisation: None, memberships: Vec::new() }
    }

    /// Whether the server is ready, and its version. The request is sent without credentials.
    pub(crate) async fn health(&self, within: Duration) -> (ServerResponse<()>, Option<String>) {
        let request = Request { within: Some(within), ..Request::new("GET", HEALTH) };
        let answer = match self.http.anonymous().send(request).await {
            Ok(answer) => answer,
            Err(Error::Http { why, .. }) => return (ServerResponse::Silent(why), None),
            Err(Error::Answer { why, .. }) => {
                return (ServerResponse::Unusable(format!("a server that is not Grafana ({why})")), None);
            }
            Err(error) => return (ServerResponse::Silent(error.to_string()), None),
        };
        let Health { version, database } = answer.json();
        let version = version.as_deref().map(printable);
        if matches!(answer.status, 502..=504) {
            let why = format!("still starting (status {}){}", answer.status, answer.through);
            return (ServerResponse::Starting(why), version);
        }
        if let Some(place) = answer.redirects_to() {
            return (ServerResponse::Unusable(format!("a redirect to {place}")), None);
        }
        if answer.status != 200 || database.is_none() {
            let what = format!("a server that is not Grafana (status {}){}", answer.status, answer.through);
            return (ServerResponse::Unusable(what), None);
        }
        (ServerResponse::Answering(()), version)
    }

    /// The server's clock in milliseconds since 1970, to the second.
    ///
    /// # Errors
    /// If the server does not answer.
    pub(crate) async fn clock(&self) -> Result<Option<i64>> {
        Ok(self.http.anonymous().send(Request::new("GET", HEALTH)).await?.date())
    }

    fn api(&self) -> Api {
        Api::of(self.version)
    }

    fn has(&self, capability: Capability) -> bool {
        capability.is_in(self.version)
    }

    /// Reads the server's content. If the login is rejected, no second request is sent with it.
    /// While InfluxDB does not run, no query is sent: its host name does not resolve then, and a
    /// name server can take long to answer that.
    pub(crate) async fn observe(&mut self, stack: &Stack, influxdb_runs: bool) -> ServerResponse<GrafanaState> {
        self.state(stack, influxdb_runs).await.map_or_else(response_to, ServerResponse::Answering)
    }

    async fn state(&mut self, stack: &Stack, influxdb_runs: bool) -> Result<GrafanaState> {
        let organisation = self.enter(stack.organisation.as_deref()).await?;
        if organisation != OrganisationState::Present {
            return Ok(GrafanaState {
                organisation,
                organisation_id: None,
                chosen: None,
                folder: FolderState::Missing,
                data_source: DataSourceState::Missing,
                has_default_source: false,
                dashboard: DashboardState::Missing,
                has_home: false,
                user_dashboards: Vec::new(),
                alerts: self.unread_alerts(stack),
                query: Query::Unasked,
                catalogue: None,
            });
        }
        let (sources, data_source) = match self.data_sources().await {
            Ok(sources) => {
                let seen = state_in(&sources, &stack.data_source);
                (sources, seen)
            }
            Err(error) => (Vec::new(), DataSourceState::Unreadable(unreadable(error)?)),
        };
        let query = async {
            match &data_source {
                DataSourceState::Ours { .. } if influxdb_runs => {
                    self.run_health_query(&stack.data_source, numeric_id(&sources, &stack.data_source.uid)).await
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
        let becomes_home = data_source == DataSourceState::Missing || dashboard == DashboardState::Missing;
        Ok(GrafanaState {
            has_home: becomes_home && self.has_home().await?,
            organisation,
            organisation_id: self.entered(),
            chosen: self.chosen(),
            folder,
            data_source,
            has_default_source: sources.iter().any(|source| source.is_default),
            dashboard,
            user_dashboards,
            alerts,
            query,
            catalogue,
        })
    }

    /// Whether the organisation is known to have a home page.
    async fn has_home(&self) -> Result<bool> {
        match self.preferences().await {
            // No panel depends on it.
            Err(Error::Answer { .. }) => Ok(false),
            read => Ok(read?.has_home()),
        }
    }

    async fn preferences(&self) -> Result<Preferences> {
        Ok(self.get("read the preferences", PREFERENCES).await?.unwrap_or_default())
    }

    /// Makes the dashboard the organisation's home page. If the account may not do that, a note says so and nothing
    /// changes.
    ///
    /// # Errors
    /// [`Error::Raced`] if the organisation has one by now: Grafana would replace it silently. [`Error::Http`] or
    /// [`Error::Answer`] if it fails for another reason.
    pub(crate) async fn set_home(&self, uid: &str) -> Result<()> {
        let doing = "set the home page";
        let not_allowed = "this account may not set Grafana's home page, so it stays unchanged";
        let preferences = match self.preferences().await {
            Err(Error::Answer { status: 403, .. }) => {
                self.http.note(not_allowed);
                return Ok(());
            }
            // It is unknown whether there is one, and no panel depends on it.
            Err(Error::Answer { doing, why, .. }) => {
                self.http.note(&format!("cannot {doing}: {why}; Grafana's home page stays unchanged"));
                return Ok(());
            }
            read => read?,
        };
        if preferences.has_home() {
            return Err(Error::Raced { doing: doing.into(), why: "another process has just set one".into() });
        }
        match self.save_home(doing, preferences, uid).await {
            Err(Error::Answer { status: 403, .. }) => {
                self.http.note(not_allowed);
                Ok(())
            }
            result => result,
        }
    }

    async fn save_home(&self, doing: &str, mut preferences: Preferences, uid: &str) -> Result<()> {
        let (method, body) = match self.api() {
            Api::Uid => ("PATCH", Body::json(&json!({"homeDashboardUID": uid}))),
            Api::Numeric => {
                preferences.home_id = self.dashboard(uid).await?.and_then(|found| found.head.id);
                ("PUT", Body::json(&preferences))
            }
        };
        let answer = self.send(doing, method, PREFERENCES, body).await?;
        self.expect_success(doing, &answer)
    }

    /// Changes the password of the signed-in user.
    ///
    /// # Errors
    /// [`Error::Answer`] if the server rejects the change.
    pub(crate) async fn change_password(&self, old: &Secret, new: &Secret) -> Result<()> {
        let body = json!({"oldPassword": old.reveal(), "newPassword": new.reveal(), "confirmNew": new.reveal()});
        let answer = self.send("change the password", "PUT", "/api/user/password", Body::json(&body)).await?;
        self.expect_success("change the password", &answer)
    }

    /// A GET request; `None` if the resource does not exist.
    async fn get<T: DeserializeOwned + Default>(&self, doing: &str, path: &str) -> Result<Option<T>> {
        let answer = self.send(doing, "GET", path, Body::Empty).await?;
        match answer.status {
            200 => Ok(Some(answer.json())),
            404 => Ok(None),
            status => Err(self.answered(doing, status, answer.message())),
        }
    }

    /// A GET request for a list.
    async fn get_list<T: DeserializeOwned + Default>(&self, doing: &str, path: &str) -> Result<Vec<T>> {
        let list: Option<Elements<T>> = self.get(doing, path).await?.flatten();
        list.map(|Elements(list)| list).ok_or_else(|| self.odd(doing))
    }

    /// A DELETE request; a missing resource is not an error.
    async fn delete(&self, doing: &str, path: &str) -> Result<()> {
        let answer = self.send(doing, "DELETE", path, Body::Empty).await?;
        if answer.status == 404 { Ok(()) } else { self.expect_success(doing, &answer) }
    }

    async fn send(&self, doing: &str, method: &str, path: &str, body: Body<'_>) -> Result<Response> {
        let answer = self.send_to_organisation(Request { body, ..Request::new(method, path) }).await;
        answer.map_err(|error| match error {
            Error::Http { url, why, is_late, .. } => Error::Http { doing: doing.into(), url, why, is_late },
            Error::Answer { url, status, why, .. } => Error::Answer { doing: doing.into(), url, status, why },
            error => error,
        })
    }

    /// A request to the chosen organisation. A 401 is final, because Grafana counts rejected logins.
    async fn send_to_organisation(&self, request: Request<'_>) -> Result<Response> {
        let organisation = self.organisation.map(|id| id.to_string());
        let mut headers = request.headers.to_vec();
        if let Some(id) = &organisation {
            headers.push(("X-Grafana-Org-Id", id));
        }
        let answer = self.http.send(Request { headers: &headers, ..request }).await?;
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

/// The state of a server that answered with this error.
pub(crate) fn response_to<S>(error: Error) -> ServerResponse<S> {
    match error {
        Error::Refused { message, .. } => ServerResponse::Refusing(message),
        Error::Answer { status: 403, why, doing, .. } => {
            ServerResponse::Refusing(format!("{why}: this account may not {doing}"))
        }
        Error::Answer { doing, status, why, .. } => ServerResponse::Failing(Unreadable { doing, status, why }),
        error => ServerResponse::Silent(error.to_string()),
    }
}

/// The error for another owner's object that was detected only now.
fn foreign(what: &str, object: ForeignObject) -> Error {
    Error::Foreign { why: format!("Grafana already has {what}, which clipper-metrics did not create"), object }
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

/// The error for an object that is no longer as observed.
fn changed(doing: &str) -> Error {
    Error::Raced { doing: doing.into(), why: "another process has changed it".into() }
}

/// The error for an object that was created for another address or database since it was read.
fn moved(doing: &str, made_for: &MadeFor) -> Error {
    Error::Raced { doing: doing.into(), why: format!("another run has created it for {made_for} in the meantime") }
}

#[cfg(test)]
mod tests {
    use super::data_source::DataSource;
    use super::json::read;
    use super::*;
    use crate::samples;

    #[test]
    fn preferences_are_saved_with_all_fields_that_they_had() {
        let preferences = json!({"theme": "dark", "homeDashboardId": 3, "navbar": {"savedItems": null}});
        assert_eq!(json!(read::<Preferences>(preferences.clone())), preferences);
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
                let _ = classify(api, status, read(json.clone()), String::new);
            }
            let list: Elements<DataSource> = read(json.as_array().map_or_else(|| json!([json]), |list| json!(list)));
            let _ = state_in(&list, &samples::data_source());
            let _ = dashboard::read(&json);
        }
    }
}
