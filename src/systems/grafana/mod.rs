//! Grafana over HTTP, 7.5 to 13: data source, dashboard, organisation, folder, home page, and the
//! question that tells whether panels will work.
//!
//! Knows the API and its traps. Must not know the engine, nor decide what is wanted.

pub mod dashboard;
mod question;

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join3;
use serde_json::{Map, Value, json};

pub use self::question::understand;

use super::http::{Answer as HttpAnswer, Body, Http, escaped};
use crate::core::observed::{Answer, Dashboard, DataSource, Grafana as Seen, Query};
use crate::core::plan;
use crate::core::stack::{self, Role, Secret, Stack};
use crate::error::{Error, Result, printable};

/// The key in a data source's `jsonData` that says whose it is; a person's save keeps it.
const MARK: &str = "clipperMetrics";

/// How a version of Grafana names things in its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Up to 8: by number; panels query through the proxy.
    Numeric,
    /// From 9 on: by uid; panels query through `/api/ds/query`. 13 knows no numbers any more.
    Uid,
}

/// A Grafana server.
pub struct Grafana {
    http: Http,
    api: Cell<Api>,
    organisation: Cell<Option<u64>>,
}

impl Grafana {
    /// The server behind `http`, which knows how to sign in.
    #[must_use]
    pub const fn new(http: Http) -> Self {
        Self { http, api: Cell::new(Api::Uid), organisation: Cell::new(None) }
    }

    /// Whether the server is ready, with its version. Nobody signs in for this.
    pub async fn health(&self, within: Duration) -> (Answer<()>, Option<String>) {
        let answer = match self.http.anonymous().send("GET", "/api/health", &[], Body::Empty, Some(within)).await {
            Ok(answer) => answer,
            Err(Error::Http { why, .. }) => return (Answer::Silent(why), None),
            Err(error) => return (Answer::Silent(error.to_string()), None),
        };
        let json = answer.json();
        let version = json.get("version").and_then(Value::as_str).map(printable);
        if matches!(answer.status, 502..=504) {
            return (Answer::Silent(format!("still starting (status {})", answer.status)), version);
        }
        if answer.status != 200 || json.get("database").is_none() {
            return (Answer::Unusable(format!("something that is no Grafana (status {})", answer.status)), None);
        }
        let old = version.as_deref().and_then(plan::version).is_some_and(|(major, _)| major < 9);
        self.api.set(if old { Api::Numeric } else { Api::Uid });
        (Answer::Answering(()), version)
    }

    /// What the server says and stores, with its version. Where credentials are refused, that was
    /// the only request with them.
    pub async fn observe(&self, want: &Stack, within: Duration) -> (Answer<Seen>, Option<String>) {
        let (health, version) = self.health(within).await;
        let answer = match health {
            Answer::Answering(()) => match self.stored(want).await {
                Ok(seen) => Answer::Answering(seen),
                Err(Error::Refused { words, .. }) => Answer::Refusing(words),
                Err(Error::Answer { status: 403, why, .. }) => Answer::Refusing(why),
                Err(error) => Answer::Silent(error.to_string()),
            },
            health => health.of_nothing(),
        };
        (answer, version)
    }

    async fn stored(&self, want: &Stack) -> Result<Seen> {
        if !self.enter(want.organisation.as_deref()).await? {
            return Ok(Seen {
                has_organisation: false,
                has_folder: false,
                data_source: DataSource::Missing,
                dashboard: Dashboard::Missing,
                query: Query::Unasked,
            });
        }
        let sources = self.data_sources().await?;
        let data_source = seen_data_source(&sources, &want.data_source);
        let (dashboard, folder, query) = join3(
            self.dashboard(&want.dashboard.uid),
            async {
                match &want.folder {
                    Some(title) => Ok(self.folder(title).await?.is_some()),
                    None => Ok(true),
                }
            },
            async {
                match &data_source {
                    DataSource::Ours(_) => {
                        self.ask(&want.data_source, numeric_id(&sources, &want.data_source.uid)).await
                    }
                    _ => Ok(Query::Unasked),
                }
            },
        )
        .await;
        let dashboard =
            dashboard?.map_or(Dashboard::Missing, |json| Dashboard::Present(dashboard::read(&json["dashboard"])));
        Ok(Seen { has_organisation: true, has_folder: folder?, data_source, dashboard, query: query? })
    }

    /// Signs in once, to see whether that is allowed at all.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not.
    pub async fn try_to_sign_in(&self) -> Result<()> {
        self.get("see whether we may sign in", "/api/org").await?.map(drop).ok_or_else(|| self.odd("see who we are"))
    }

    /// Works in the organisation of that name from now on; `false` if there is none.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn enter(&self, name: Option<&str>) -> Result<bool> {
        self.organisation.set(None);
        let Some(name) = name else { return Ok(true) };
        // Only the server's administrator may look organisations up; others belong to one.
        match self.get("look up the organisation", &format!("/api/orgs/name/{}", escaped(name))).await {
            Ok(found) => {
                self.organisation.set(found.as_ref().and_then(|org| org["id"].as_u64()));
                Ok(found.is_some())
            }
            Err(Error::Answer { status: 403, why, .. }) => {
                let own = self.get("look up our organisation", "/api/org").await?.unwrap_or_default();
                if own["name"] == name {
                    return Ok(true);
                }
                Err(self.answered("look up the organisation", 403, why))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the organisation and works in it from now on; one that exists is fine.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_organisation(&self, name: &str) -> Result<()> {
        if self.enter(Some(name)).await? {
            return Ok(());
        }
        let answer = self.send("create the organisation", "POST", "/api/orgs", Some(&json!({"name": name}))).await?;
        match answer.status {
            200 => self.organisation.set(answer.json()["orgId"].as_u64()),
            409 => drop(self.enter(Some(name)).await?),
            status => return Err(self.answered("create the organisation", status, answer.words())),
        }
        Ok(())
    }

    /// Makes the folder; one that exists is fine.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_folder(&self, title: &str, uid: &str) -> Result<()> {
        if self.folder(title).await?.is_some() {
            return Ok(());
        }
        let doing = "create the folder";
        let body = json!({"title": title, "uid": uid});
        let mut answer = self.send(doing, "POST", "/api/folders", Some(&body)).await?;
        if matches!(answer.status, 409 | 412) && self.folder(title).await?.is_none() {
            // The uid belongs to another folder: let Grafana choose one.
            answer = self.send(doing, "POST", "/api/folders", Some(&json!({"title": title}))).await?;
        }
        match answer.status {
            200 | 201 | 409 | 412 => Ok(()),
            status => Err(self.answered(doing, status, answer.words())),
        }
    }

    /// The folder with that title.
    async fn folder(&self, title: &str) -> Result<Option<Value>> {
        let folders = self.get("list the folders", "/api/folders?limit=1000").await?.unwrap_or_default();
        Ok(folders.as_array().into_iter().flatten().find(|folder| folder["title"] == title).cloned())
    }

    async fn data_sources(&self) -> Result<Vec<Value>> {
        let list = self.get("list the data sources", "/api/datasources").await?;
        list.and_then(|list| list.as_array().cloned()).ok_or_else(|| self.odd("list the data sources"))
    }

    /// Creates or updates the data source; on creation it becomes the default where there is none.
    ///
    /// # Errors
    /// When the server refuses, or has one of that name or uid which is not ours.
    pub async fn save_data_source(&self, want: &stack::DataSource, password: Option<&Secret>) -> Result<()> {
        let sources = self.data_sources().await?;
        let answer = self.put_data_source(&sources, want, password).await?;
        if answer.status == 409 {
            // Somebody made it at the same time: it can be updated now.
            let sources = self.data_sources().await?;
            let answer = self.put_data_source(&sources, want, password).await?;
            return self.expect_success("save the data source", &answer);
        }
        self.expect_success("save the data source", &answer)
    }

    async fn put_data_source(
        &self,
        sources: &[Value],
        want: &stack::DataSource,
        password: Option<&Secret>,
    ) -> Result<HttpAnswer> {
        let present = match seen_data_source(sources, want) {
            DataSource::Foreign(what) => {
                return Err(self.answered("save the data source", 409, format!("there is {what}, which is not ours")));
            }
            DataSource::Ours(_) => sources.iter().find(|source| source["uid"] == want.uid.as_str()),
            DataSource::Missing => None,
        };
        let mut settings: Map<String, Value> =
            present.and_then(|source| source["jsonData"].as_object().cloned()).unwrap_or_default();
        settings.insert(MARK.into(), json!(want.uid));
        settings.insert("dbName".into(), json!(want.database));
        settings.insert("httpMode".into(), json!("POST"));
        settings.insert("timeInterval".into(), json!(stack::DataSource::INTERVAL));
        let is_default = present.map_or_else(
            || !sources.iter().any(|source| source["isDefault"] == true),
            |source| source["isDefault"] == true,
        );
        let mut body = json!({
            "name": want.name, "uid": want.uid, "type": "influxdb", "access": "proxy", "url": want.url,
            "database": want.database, "user": want.user, "isDefault": is_default, "jsonData": settings,
        });
        if let Some(password) = password {
            body["secureJsonData"] = json!({"password": password.reveal()});
        }
        let (method, path) = match (present, self.api.get()) {
            (None, _) => ("POST", "/api/datasources".to_string()),
            (Some(_), Api::Uid) => ("PUT", format!("/api/datasources/uid/{}", escaped(&want.uid))),
            (Some(source), Api::Numeric) => ("PUT", format!("/api/datasources/{}", source["id"])),
        };
        self.send("save the data source", method, &path, Some(&body)).await
    }

    /// The dashboard with that uid, with what Grafana knows about it.
    async fn dashboard(&self, uid: &str) -> Result<Option<Value>> {
        self.get("read the dashboard", &format!("/api/dashboards/uid/{}", escaped(uid))).await
    }

    /// Creates or updates the dashboard. One that is there stays in its folder, and is only
    /// replaced as it was observed unless `overwrite` is set.
    ///
    /// # Errors
    /// When the server refuses, or somebody changed it meanwhile.
    pub async fn save_dashboard(&self, want: &Stack, overwrite: bool) -> Result<()> {
        let present = self.dashboard(&want.dashboard.uid).await?;
        let carried = present.as_ref().map(|json| dashboard::read(&json["dashboard"]));
        if carried.as_ref().is_some_and(|seen| seen.edited) && !overwrite {
            // Somebody saved it after we looked.
            return Ok(());
        }
        let mut content = dashboard::render(&want.dashboard, &want.data_source, carried.as_ref(), self.api.get());
        let mut body = json!({"overwrite": overwrite, "message": "clipper-metrics"});
        match (&present, &want.folder) {
            (Some(json), _) => {
                content["version"] = json["meta"]["version"].clone();
                content["id"] = json["dashboard"]["id"].clone();
                match self.api.get() {
                    Api::Uid => body["folderUid"] = json["meta"]["folderUid"].clone(),
                    Api::Numeric => body["folderId"] = json["meta"]["folderId"].clone(),
                }
            }
            (None, Some(title)) => {
                if let Some(folder) = self.folder(title).await? {
                    match self.api.get() {
                        Api::Uid => body["folderUid"] = folder["uid"].clone(),
                        Api::Numeric => body["folderId"] = folder["id"].clone(),
                    }
                }
            }
            (None, None) => {}
        }
        body["dashboard"] = content;
        let answer = self.send("save the dashboard", "POST", "/api/dashboards/db", Some(&body)).await?;
        self.expect_success("save the dashboard", &answer)
    }

    /// Makes the dashboard the organisation's home page, unless it has one. Where the account may
    /// not do that, it is told and let be.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn set_home(&self, uid: &str) -> Result<()> {
        let path = "/api/org/preferences";
        let mut preferences = match self.get("read the preferences", path).await {
            Ok(found) => found.unwrap_or_default(),
            Err(Error::Answer { status: 403, .. }) => {
                return {
                    self.may_not_set_home();
                    Ok(())
                };
            }
            Err(error) => return Err(error),
        };
        let has_home = preferences["homeDashboardUID"].as_str().is_some_and(|uid| !uid.is_empty())
            || preferences["homeDashboardId"].as_u64().is_some_and(|id| id > 0);
        if has_home {
            return Ok(());
        }
        let answer = match self.api.get() {
            Api::Uid => self.send("set the home page", "PATCH", path, Some(&json!({"homeDashboardUID": uid}))).await?,
            Api::Numeric => {
                let id = self.dashboard(uid).await?.map(|json| json["dashboard"]["id"].clone());
                preferences["homeDashboardId"] = id.unwrap_or_default();
                self.send("set the home page", "PUT", path, Some(&preferences)).await?
            }
        };
        if answer.status == 403 {
            return {
                self.may_not_set_home();
                Ok(())
            };
        }
        self.expect_success("set the home page", &answer)
    }

    fn may_not_set_home(&self) {
        self.http.note("this account may not set Grafana's home page, so it stays as it is");
    }

    /// Changes the password of the user who signs in.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn change_password(&self, old: &Secret, new: &Secret) -> Result<()> {
        let body = json!({"oldPassword": old.reveal(), "newPassword": new.reveal(), "confirmNew": new.reveal()});
        let answer = self.send("change the password", "PUT", "/api/user/password", Some(&body)).await?;
        self.expect_success("change the password", &answer)
    }

    /// A GET that finds something, or nothing.
    async fn get(&self, doing: &str, path: &str) -> Result<Option<Value>> {
        let answer = self.send(doing, "GET", path, None).await?;
        match answer.status {
            200 => Ok(Some(answer.json())),
            404 => Ok(None),
            status => Err(self.answered(doing, status, answer.words())),
        }
    }

    async fn send(&self, doing: &str, method: &str, path: &str, body: Option<&Value>) -> Result<HttpAnswer> {
        self.exchange(method, path, &[], body.map_or(Body::Empty, Body::Json)).await.map_err(|error| match error {
            Error::Http { url, why, .. } => Error::Http { doing: doing.into(), url, why },
            error => error,
        })
    }

    /// One request in the organisation that we work in. A 401 is final: Grafana counts them.
    async fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body<'_>) -> Result<HttpAnswer> {
        let organisation = self.organisation.get().map(|id| id.to_string());
        let mut all = headers.to_vec();
        if let Some(id) = &organisation {
            all.push(("X-Grafana-Org-Id", id));
        }
        let answer = self.http.send(method, path, &all, body, None).await?;
        if answer.status == 401 {
            return Err(Error::Refused { role: Role::Grafana, url: self.http.base().into(), words: answer.words() });
        }
        Ok(answer)
    }

    fn expect_success(&self, doing: &str, answer: &HttpAnswer) -> Result<()> {
        if answer.is_success() { Ok(()) } else { Err(self.answered(doing, answer.status, answer.words())) }
    }

    fn answered(&self, doing: &str, status: u16, why: String) -> Error {
        Error::Answer { doing: doing.into(), url: self.http.base().into(), status, why }
    }

    fn odd(&self, doing: &str) -> Error {
        self.answered(doing, 0, "the answer is not Grafana's".into())
    }
}

/// The number that a version before 9 wants in addresses.
fn numeric_id(sources: &[Value], uid: &str) -> Option<u64> {
    sources.iter().find(|source| source["uid"] == uid)?["id"].as_u64()
}

/// The data source with the wanted uid or name, as far as we set it.
fn seen_data_source(sources: &[Value], want: &stack::DataSource) -> DataSource {
    let text = |value: &Value| value.as_str().map(printable).unwrap_or_default();
    let describe = |source: &Value| {
        format!("a data source called {:?} with the uid {:?}", text(&source["name"]), text(&source["uid"]))
    };
    if let Some(source) = sources.iter().find(|source| source["uid"] == want.uid.as_str()) {
        let settings = &source["jsonData"];
        if settings[MARK] != want.uid.as_str() {
            return DataSource::Foreign(describe(source));
        }
        let (inner, outer) = (text(&settings["dbName"]), text(&source["database"]));
        let database = if inner == outer { inner } else { format!("{inner} and {outer}") };
        let fields = [
            ("name", text(&source["name"])),
            ("type", text(&source["type"])),
            ("access", text(&source["access"])),
            ("url", text(&source["url"])),
            ("database", database),
            ("user", text(&source["user"])),
            ("interval", text(&settings["timeInterval"])),
        ];
        return DataSource::Ours(fields.map(|(name, value)| (name.to_string(), value)).into());
    }
    match sources.iter().find(|source| source["name"] == want.name.as_str()) {
        Some(source) => DataSource::Foreign(describe(source)),
        None => DataSource::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want() -> stack::DataSource {
        stack::DataSource {
            uid: "x".into(),
            name: "X".into(),
            url: "http://influxdb:8086".into(),
            database: "d".into(),
            user: String::new(),
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_grafana_answers_it_is_understood_or_refused(
            json in crate::systems::arbitrary::json(&[
                "results", "A", "frames", "series", "error", "uid", "name", "jsonData", "clipperMetrics", "templating",
                "list", "query", "content", "edition",
            ]),
            status in 100_u16..600,
        ) {
            for api in [Api::Uid, Api::Numeric] {
                let _ = understand(api, status, &json, String::new);
            }
            let list: Vec<Value> = json.as_array().cloned().unwrap_or_else(|| vec![json.clone()]);
            let _ = seen_data_source(&list, &want());
            let _ = dashboard::read(&json);
        }
    }

    #[test]
    fn a_data_source_of_ours_is_known_by_its_mark_and_others_by_name_or_uid() {
        let ours = json!({"uid": "x", "name": "renamed", "jsonData": {"clipperMetrics": "x"}});
        assert!(matches!(seen_data_source(&[ours], &want()), DataSource::Ours(_)));
        for theirs in [json!({"uid": "x", "name": "Y", "jsonData": {}}), json!({"uid": "y", "name": "X"})] {
            assert!(matches!(seen_data_source(&[theirs], &want()), DataSource::Foreign(_)));
        }
        assert_eq!(seen_data_source(&[], &want()), DataSource::Missing);
    }
}
