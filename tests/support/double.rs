//! Grafana's double: answers like the recorded exchanges, keeps what it is told, has Grafana's two
//! caches and its lockout, and is stricter than the real one: what nobody recorded or documented is
//! 501.
//!
//! Every answer is a recorded one with the state at hand filled in, so the versions differ here
//! only where their behaviour does. It must not know the program that it is used to test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::query::{Source, influxql};
use super::server::{Request, Response, unescaped};

/// Which Grafana to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V7,
    V9,
    V12,
    /// As 12, but without numbers in addresses, and with another word for conflicts. Documented,
    /// not recorded.
    V13,
}

impl Version {
    pub fn parse(text: &str) -> Self {
        match text.split('.').next() {
            Some("7") => Self::V7,
            Some("9") => Self::V9,
            Some("13") => Self::V13,
            _ => Self::V12,
        }
    }

    fn recording(self) -> &'static str {
        match self {
            Self::V7 => include_str!("../recordings/grafana-7.5.5.json"),
            Self::V9 => include_str!("../recordings/grafana-9.4.0-pre.json"),
            Self::V12 | Self::V13 => include_str!("../recordings/grafana-12.2.0.json"),
        }
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V7 => "7.5.5",
            Self::V9 => "9.4.0-pre",
            Self::V12 => "12.2.0",
            Self::V13 => "13.2.3",
        }
    }
}

/// One recorded exchange.
#[derive(Debug, Clone, Deserialize)]
pub struct Exchange {
    pub step: String,
    pub request: RecordedRequest,
    pub response: RecordedResponse,
}

#[derive(Debug, Clone, Deserialize)]
pub struct RecordedRequest {
    pub method: String,
    pub path: String,
    pub auth: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

#[derive(Debug, Clone, Deserialize)]
pub struct RecordedResponse {
    pub status: u16,
    pub content_type: Option<String>,
    pub body: Value,
}

/// The recorded exchanges of a version, in order.
pub fn recording(version: Version) -> Vec<Exchange> {
    serde_json::from_str(version.recording()).unwrap()
}

/// A token that the double issues and accepts.
pub const TOKEN: &str = "glsa_of_the_double";
/// A data source's settings are cached for so long.
const SETTINGS_CACHE: Duration = Duration::from_secs(5);
/// Wrong passwords before a user is locked out.
const ATTEMPTS: usize = 5;

/// What it keeps across restarts.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    users: Vec<User>,
    organisations: Vec<Organisation>,
    next_id: u64,
    next_source: u64,
    service_account: bool,
    tokens: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct User {
    login: String,
    password: String,
    is_admin: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Organisation {
    id: u64,
    name: String,
    sources: Vec<StoredSource>,
    dashboards: Vec<StoredDashboard>,
    folders: Vec<Folder>,
    home: Option<String>,
    stars: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredSource {
    id: u64,
    body: Value,
    /// The second of the last save, by which plugin instances are told apart.
    saved: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredDashboard {
    id: u64,
    uid: String,
    content: Value,
    folder: Option<String>,
    /// Messages of all saves; as many as versions.
    messages: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Folder {
    id: u64,
    uid: String,
    title: String,
}

/// Settings as they were, for a while or for good.
#[derive(Debug, Clone)]
struct Cached {
    settings: Value,
    saved: u64,
    at: Instant,
}

/// A request as a test may want to look at it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub signed_in: bool,
    pub status: u16,
}

/// The double.
pub struct Double {
    version: Version,
    recording: Vec<Exchange>,
    state: State,
    file: Option<PathBuf>,
    read_at: Option<SystemTime>,
    failures: BTreeMap<String, usize>,
    settings: BTreeMap<(u64, String), Cached>,
    instances: BTreeMap<(u64, String), Cached>,
    seen: Vec<Seen>,
    /// Where a host name of a data source really is: tests have no name server.
    hosts: BTreeMap<String, String>,
    /// Seconds by which its clock is ahead.
    ahead: u64,
}

/// What a request turned into: an answer, or a question to InfluxDB whose answer becomes one.
pub enum Reply {
    Now(Response),
    Ask(Ask),
}

/// A question to InfluxDB on somebody's behalf.
pub struct Ask {
    pub source: Source,
    pub version: Version,
    pub kind: Asking,
}

/// How the question came.
pub enum Asking {
    /// Through the proxy, as it is.
    Proxy { query: String },
    /// Through `/api/ds/query`.
    Query { body: Value },
    /// By "Save & Test".
    Health,
}

/// Who asks.
struct Who {
    login: String,
    is_admin: bool,
    is_token: bool,
}

impl Double {
    /// An empty Grafana whose administrator has this password. With a file, it keeps its state
    /// there, and what is already there wins.
    pub fn new(version: Version, password: &str, file: Option<PathBuf>) -> Self {
        let main = Organisation { id: 1, name: "Main Org.".into(), ..Organisation::default() };
        let state = State {
            users: vec![User { login: "admin".into(), password: password.into(), is_admin: true }],
            organisations: vec![main],
            next_id: 1,
            next_source: 1,
            service_account: false,
            tokens: 0,
        };
        let mut double = Self {
            version,
            recording: recording(version),
            state,
            file,
            read_at: None,
            failures: BTreeMap::new(),
            settings: BTreeMap::new(),
            instances: BTreeMap::new(),
            seen: Vec::new(),
            hosts: BTreeMap::new(),
            ahead: 0,
        };
        double.read();
        double.write();
        double
    }

    pub const fn version(&self) -> Version {
        self.version
    }

    /// Makes a host and port of a data source's address mean another one.
    pub fn map_host(&mut self, from: &str, to: &str) {
        self.hosts.insert(from.into(), to.into());
    }

    /// Every request so far.
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    pub fn forget_seen(&mut self) {
        self.seen.clear();
    }

    /// Changes the administrator's password as Grafana's own command does.
    pub fn reset_password(&mut self, password: &str) {
        self.read();
        self.state.users[0].password = password.into();
        self.write();
    }

    /// As if five minutes had passed since the last wrong password.
    pub fn forgive(&mut self) {
        self.failures.clear();
    }

    /// As if the next save fell into a later second.
    pub fn next_second(&mut self) {
        self.ahead += 1;
    }

    fn read(&mut self) {
        let Some(file) = &self.file else { return };
        let Ok(changed) = std::fs::metadata(file).and_then(|meta| meta.modified()) else { return };
        if self.read_at != Some(changed)
            && let Some(state) = std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok())
        {
            self.state = state;
            self.read_at = Some(changed);
        }
    }

    fn write(&mut self) {
        let Some(file) = &self.file else { return };
        let text = serde_json::to_vec(&self.state).unwrap();
        let new = file.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, file).unwrap();
        self.read_at = std::fs::metadata(file).and_then(|meta| meta.modified()).ok();
    }

    /// Answers one request, or says what InfluxDB is to be asked for it.
    pub fn respond(&mut self, request: &Request) -> Reply {
        self.read();
        let path = request.path.clone();
        if request.method == "GET" && path == "/_double/requests" {
            return Reply::Now(Response::json(200, &json!(self.seen)));
        }
        let signed_in = request.headers.contains_key("authorization");
        let reply = match self.route(request) {
            Ok(reply) => reply,
            Err(response) => Reply::Now(response),
        };
        if request.method != "GET" {
            self.write();
        }
        let status = match &reply {
            Reply::Now(response) => response.status,
            Reply::Ask(_) => 200,
        };
        self.seen.push(Seen { method: request.method.clone(), path, signed_in, status });
        reply
    }

    /// A recorded answer.
    fn like(&self, step: &str) -> RecordedResponse {
        let found = self.recording.iter().find(|exchange| exchange.step == step);
        found.unwrap_or_else(|| panic!("{step:?} is not recorded for {}", self.version.name())).response.clone()
    }

    /// A recorded answer with some of its body's fields replaced.
    fn with(&self, step: &str, fields: &[(&str, Value)]) -> Response {
        let mut recorded = self.like(step);
        merge(&mut recorded.body, fields);
        answer(recorded.status, &recorded.body)
    }

    fn as_recorded(&self, step: &str) -> Response {
        self.with(step, &[])
    }

    fn route(&mut self, request: &Request) -> Result<Reply, Response> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let segments: Vec<String> = path.trim_matches('/').split('/').map(unescaped).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        if (request.method.as_str(), segments.as_slice()) == ("GET", &["api", "health"]) {
            let version = if self.version == Version::V13 { Version::V13.name() } else { self.recorded_version() };
            return Ok(Reply::Now(self.with("health", &[("version", json!(version))])));
        }
        let who = self.who(request)?;
        let organisation = self.organisation(request)?;
        let body = if request.body.is_empty() { None } else { serde_json::from_slice::<Value>(&request.body).ok() };
        let method = request.method.as_str();
        let numbers = self.version < Version::V13;
        let reply = match (method, segments.as_slice()) {
            ("GET", ["api", "org"]) => {
                let org = &self.state.organisations[organisation];
                self.with("org", &[("id", json!(org.id)), ("name", json!(org.name))])
            }
            ("GET", ["api", "user"]) => self.user(&who),
            ("GET", ["api", "user", "orgs"]) if !who.is_admin => self.as_recorded("organisations of a viewer"),
            ("GET", ["api", "no-such-route"]) => self.as_recorded("unknown route"),
            ("GET", ["api", "orgs"]) => {
                let list: Vec<Value> =
                    self.state.organisations.iter().map(|org| json!({"id": org.id, "name": org.name})).collect();
                Response::json(200, &json!(list))
            }
            ("GET", ["api", "orgs", "name", name]) => self.organisation_by_name(&who, name),
            ("POST", ["api", "orgs"]) => self.create_organisation(&who, body.as_ref()),
            ("POST", ["api", "user", "using", _]) => self.as_recorded("switch back"),
            ("PUT", ["api", "user", "password"]) => self.change_password(&who, body.as_ref()),
            ("POST", ["api", "admin", "users"]) => self.create_user(body.as_ref()),
            ("POST", ["api", "auth", "keys"]) => self.as_recorded("create API key"),
            ("POST", ["api", "serviceaccounts"]) => {
                self.state.service_account = true;
                self.as_recorded("create service account")
            }
            ("POST", ["api", "serviceaccounts", _, "tokens"]) => {
                self.state.tokens += 1;
                let recorded = self.like("create service account token");
                let mut body = recorded.body;
                if recorded.status == 200 {
                    body["key"] = json!(TOKEN);
                }
                answer(recorded.status, &body)
            }
            ("GET", ["api", "datasources"]) => self.data_sources(&who, organisation),
            ("POST", ["api", "datasources"]) => self.create_data_source(&who, organisation, body),
            ("GET", ["api", "datasources", "name", name]) => {
                let found = self.source(organisation, |source| source.body["name"] == *name);
                found.map_or_else(
                    || self.no_source(),
                    |source| self.source_answer("data source by name", &source, organisation),
                )
            }
            ("GET", ["api", "datasources", "uid", uid]) => {
                let found = self.source(organisation, |source| source.body["uid"] == *uid);
                found.map_or_else(
                    || self.no_source(),
                    |source| self.source_answer("data source by uid", &source, organisation),
                )
            }
            ("PUT", ["api", "datasources", "uid", uid]) => self.update_by_uid(organisation, uid, body),
            ("DELETE", ["api", "datasources", "uid" | "name", key]) => {
                self.delete_source(organisation, segments[2], key)
            }
            ("GET", ["api", "datasources", "uid", uid, "health"]) => return self.health(organisation, uid, request),
            ("GET", ["api", "datasources", "proxy", "uid", uid, "query"]) => {
                return self.proxy_by_uid(organisation, uid, query, request);
            }
            ("GET", ["api", "datasources", "proxy", id, "query"]) if numbers => {
                let uid = self.uid_of(organisation, id)?;
                let source = self.settings_for(organisation, &uid, request)?;
                let kind = Asking::Proxy { query: query.to_string() };
                return Ok(Reply::Ask(Ask { source, version: self.version, kind }));
            }
            ("GET", ["api", "datasources", id, "health"]) if numbers => {
                let uid = self.uid_of(organisation, id)?;
                if self.version == Version::V7 {
                    return Ok(Reply::Now(self.as_recorded("data source health by numeric id")));
                }
                return self.health(organisation, &uid, request);
            }
            ("GET", ["api", "datasources", id]) if numbers => {
                let uid = self.uid_of(organisation, id)?;
                let found = self.source(organisation, |source| source.body["uid"] == uid.as_str());
                found.map_or_else(
                    || self.no_source(),
                    |source| self.source_answer("data source by numeric id", &source, organisation),
                )
            }
            ("PUT", ["api", "datasources", id]) if numbers => {
                let uid = self.uid_of(organisation, id)?;
                self.update_source(organisation, &uid, body, "update data source by numeric id")
            }
            ("GET" | "PUT" | "DELETE", ["api", "datasources", ..]) if !numbers => {
                Response::json(404, &json!({"message": "Not found"}))
            }
            ("POST", ["api", "ds", "query"]) => return self.ds_query(organisation, body, request),
            ("GET", ["api", "plugins", "influxdb", "settings"]) => self.as_recorded("influxdb plugin settings"),
            ("POST", ["api", "dashboards", "db"]) => self.save_dashboard(&who, organisation, body),
            ("POST", ["api", "dashboards", "import"]) => self.import(organisation, body),
            ("GET", ["api", "dashboards", "home"]) => self.as_recorded("home dashboard"),
            ("GET", ["api", "dashboards", "uid", uid]) => self.dashboard(organisation, uid),
            ("DELETE", ["api", "dashboards", "uid", uid]) => self.delete_dashboard(organisation, uid),
            ("GET", ["api", "dashboards", "uid", uid, "versions"]) => {
                self.versions(organisation, uid, "dashboard versions by uid")
            }
            ("GET", ["api", "dashboards", "id", id, "versions"]) if numbers => {
                let uid = self.state.organisations[organisation].dashboards.iter().find(|d| d.id.to_string() == *id);
                let uid = uid.map(|dashboard| dashboard.uid.clone()).unwrap_or_default();
                self.versions(organisation, &uid, "dashboard versions by numeric id")
            }
            ("GET", ["apis", "dashboard.grafana.app", "v1beta1", "namespaces", "default", "dashboards", _]) => {
                self.as_recorded("dashboard through /apis")
            }
            ("GET", ["api", "search"]) => self.search(organisation, query),
            ("POST", ["api", "user", "stars", "dashboard", "uid", uid]) => self.star(&who, organisation, uid),
            ("POST", ["api", "user", "stars", "dashboard", _]) => self.as_recorded("star by numeric id"),
            ("GET", ["api", "user", "stars"]) => self.as_recorded("stars of the user"),
            ("GET", ["api", "org", "preferences"]) => self.preferences(organisation),
            ("PATCH" | "PUT", ["api", "org", "preferences"]) => self.set_preferences(&who, method, organisation, body),
            ("GET", ["api", "folders"]) => self.folders(organisation),
            ("GET", ["api", "folders", uid]) => {
                let found = self.state.organisations[organisation].folders.iter().find(|folder| folder.uid == *uid);
                match found {
                    Some(folder) => self.folder_answer("folder by uid", folder),
                    None => self.as_recorded("folder by uid, absent"),
                }
            }
            ("POST", ["api", "folders"]) => self.create_folder(organisation, body),
            _ => {
                let message = format!("{method} {path} is neither recorded nor documented");
                Response::json(501, &json!({"message": message}))
            }
        };
        Ok(Reply::Now(reply))
    }

    fn recorded_version(&self) -> &'static str {
        self.version.name()
    }

    // Signing in.

    fn who(&mut self, request: &Request) -> Result<Who, Response> {
        let Some(header) = request.headers.get("authorization") else {
            return Err(self.as_recorded("org without credentials"));
        };
        if let Some(token) = header.strip_prefix("Bearer ") {
            if token == TOKEN && self.state.tokens > 0 {
                return Ok(Who { login: "sa-1-clipper".into(), is_admin: false, is_token: true });
            }
            return Err(self.as_recorded("org with a malformed bearer token"));
        }
        let decoded = header.strip_prefix("Basic ").map(base64_decoded).unwrap_or_default();
        let (login, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
        let locked = self.failures.get(login).is_some_and(|count| *count >= ATTEMPTS);
        match self.state.users.iter().find(|user| user.login == login) {
            Some(user) if user.password == password && !locked => {
                Ok(Who { login: login.into(), is_admin: user.is_admin, is_token: false })
            }
            Some(_) => {
                *self.failures.entry(login.into()).or_default() += 1;
                let step = if password == "admin" { "org with the old password" } else { "org with a wrong password" };
                Err(self.as_recorded(step))
            }
            None => Err(self.as_recorded("org with an unknown user")),
        }
    }

    fn organisation(&self, request: &Request) -> Result<usize, Response> {
        let Some(wanted) = request.headers.get("x-grafana-org-id") else { return Ok(0) };
        let found = self.state.organisations.iter().position(|org| org.id.to_string() == *wanted);
        found.ok_or_else(|| self.as_recorded("org seen with an unknown X-Grafana-Org-Id"))
    }

    fn user(&self, who: &Who) -> Response {
        if who.is_token {
            return self.as_recorded("user with a service account token");
        }
        if who.is_admin { self.as_recorded("user") } else { self.as_recorded("user of a viewer") }
    }

    fn change_password(&mut self, who: &Who, body: Option<&Value>) -> Response {
        let (old, new) = body.map(|body| (text(&body["oldPassword"]), text(&body["newPassword"]))).unwrap_or_default();
        let user = self.state.users.iter_mut().find(|user| user.login == who.login);
        match user {
            Some(user) if user.password == old && new.len() >= 4 => {
                user.password = new;
                self.as_recorded("change the password")
            }
            _ => Response::json(401, &json!({"message": "invalid old password"})),
        }
    }

    fn create_user(&mut self, body: Option<&Value>) -> Response {
        let body = body.cloned().unwrap_or_default();
        self.state.users.push(User { login: text(&body["login"]), password: text(&body["password"]), is_admin: false });
        self.as_recorded("create user")
    }

    // Organisations.

    fn organisation_by_name(&self, who: &Who, name: &str) -> Response {
        if !who.is_admin {
            return self.as_recorded("organisation by name as a viewer");
        }
        match self.state.organisations.iter().find(|org| org.name == name) {
            Some(org) => self.with("organisation by name", &[("id", json!(org.id)), ("name", json!(org.name))]),
            None => self.as_recorded("organisation by name, absent"),
        }
    }

    fn create_organisation(&mut self, who: &Who, body: Option<&Value>) -> Response {
        if who.is_token {
            return self.as_recorded("create organisation with a service account token");
        }
        if !who.is_admin {
            return self.as_recorded("create organisation as a viewer");
        }
        let name = body.map(|body| text(&body["name"])).unwrap_or_default();
        if self.state.organisations.iter().any(|org| org.name == name) {
            return self.as_recorded("create organisation again");
        }
        let id = self.state.organisations.len() as u64 + 1;
        self.state.organisations.push(Organisation { id, name, ..Organisation::default() });
        self.with("create organisation", &[("orgId", json!(id))])
    }

    // Data sources.

    fn source(&self, organisation: usize, matches: impl Fn(&StoredSource) -> bool) -> Option<StoredSource> {
        self.state.organisations[organisation].sources.iter().find(|source| matches(source)).cloned()
    }

    fn no_source(&self) -> Response {
        self.as_recorded("data source by uid, absent")
    }

    fn uid_of(&self, organisation: usize, id: &str) -> Result<String, Response> {
        let found = self.source(organisation, |source| source.id.to_string() == id);
        found.map(|source| text(&source.body["uid"])).ok_or_else(|| self.no_source())
    }

    fn source_fields(source: &StoredSource, org: u64) -> Vec<(&'static str, Value)> {
        let body = &source.body;
        let mut fields = vec![("id", json!(source.id)), ("orgId", json!(org))];
        for name in ["uid", "name", "type", "access", "url", "user", "database", "isDefault", "jsonData"] {
            fields.push((name, body[name].clone()));
        }
        fields
    }

    fn source_answer(&self, step: &str, source: &StoredSource, organisation: usize) -> Response {
        let org = self.state.organisations[organisation].id;
        self.with(step, &Self::source_fields(source, org))
    }

    fn data_sources(&self, who: &Who, organisation: usize) -> Response {
        let recorded = self.like("data sources as a viewer");
        if !who.is_admin && !who.is_token && recorded.status != 200 {
            return answer(recorded.status, &recorded.body);
        }
        let org = &self.state.organisations[organisation];
        let template = match &recorded.body[0] {
            // 7.5 does not let viewers list them; its administrators get whole data sources.
            Value::Null => self.like("data source by uid").body,
            template => template.clone(),
        };
        let list: Vec<Value> = org
            .sources
            .iter()
            .map(|source| {
                let mut item = template.clone();
                merge(&mut item, &Self::source_fields(source, org.id));
                item
            })
            .collect();
        Response::json(200, &json!(list))
    }

    fn create_data_source(&mut self, who: &Who, organisation: usize, body: Option<Value>) -> Response {
        if !who.is_admin && !who.is_token {
            return self.as_recorded("create data source as a viewer");
        }
        let Some(mut body) = body else { return self.as_recorded("create data source, body not JSON") };
        if body["type"].is_null() || body["access"].is_null() {
            return self.as_recorded("create data source, no type");
        }
        if text(&body["url"]).contains('%') {
            return self.as_recorded("create data source, bad url");
        }
        let taken = |key: &str| {
            self.source(organisation, |source| source.body[key] == body[key] && !body[key].is_null()).is_some()
        };
        if taken("name") {
            return self.as_recorded("create data source, same name, other uid");
        }
        if taken("uid") {
            return self.as_recorded("create data source, other name, same uid");
        }
        complete(&mut body);
        let source = StoredSource { id: self.state.next_source, body, saved: self.second() };
        self.state.next_source += 1;
        self.only_default(organisation, &source);
        self.state.organisations[organisation].sources.push(source.clone());
        self.saved_source("create data source", &source, organisation)
    }

    fn saved_source(&self, step: &str, source: &StoredSource, organisation: usize) -> Response {
        let mut recorded = self.like(step);
        let org = self.state.organisations[organisation].id;
        merge(&mut recorded.body["datasource"], &Self::source_fields(source, org));
        merge(&mut recorded.body, &[("id", json!(source.id)), ("name", source.body["name"].clone())]);
        answer(recorded.status, &recorded.body)
    }

    fn only_default(&mut self, organisation: usize, new: &StoredSource) {
        if new.body["isDefault"] == true {
            for source in &mut self.state.organisations[organisation].sources {
                source.body["isDefault"] = json!(false);
            }
        }
    }

    fn update_by_uid(&mut self, organisation: usize, uid: &str, body: Option<Value>) -> Response {
        if self.version == Version::V7 {
            return self.as_recorded("update data source by uid");
        }
        if self.source(organisation, |source| source.body["uid"] == uid).is_none() {
            return self.as_recorded("update an absent data source by uid");
        }
        self.update_source(organisation, uid, body, "update data source by uid")
    }

    fn update_source(&mut self, organisation: usize, uid: &str, body: Option<Value>, step: &str) -> Response {
        let Some(mut body) = body else { return self.as_recorded("create data source, body not JSON") };
        complete(&mut body);
        let clash =
            self.source(organisation, |source| source.body["uid"] != uid && source.body["name"] == body["name"]);
        if clash.is_some() {
            return self.as_recorded("create data source, same name, other uid");
        }
        let now = self.second();
        let Some(index) = self.state.organisations[organisation].sources.iter().position(|s| s.body["uid"] == uid)
        else {
            return self.no_source();
        };
        let id = self.state.organisations[organisation].sources[index].id;
        let source = StoredSource { id, body, saved: now };
        self.only_default(organisation, &source);
        self.state.organisations[organisation].sources[index] = source.clone();
        self.saved_source(step, &source, organisation)
    }

    fn delete_source(&mut self, organisation: usize, key: &str, value: &str) -> Response {
        let step = if key == "uid" { "delete data source by uid" } else { "delete data source by name" };
        let sources = &mut self.state.organisations[organisation].sources;
        if let Some(index) = sources.iter().position(|source| source.body[key] == value) {
            let source = sources.remove(index);
            let mut recorded = self.like("delete data source by uid");
            if recorded.body.get("id").is_some() {
                recorded.body["id"] = json!(source.id);
            }
            answer(recorded.status, &recorded.body)
        } else {
            let recorded = self.like("delete data source by name, absent");
            let _ = step;
            answer(recorded.status, &recorded.body)
        }
    }

    /// A data source's settings as Grafana's own queries see them: through the cache of 5 s, and
    /// through a plugin instance that may stay behind.
    fn settings_for(&mut self, organisation: usize, uid: &str, request: &Request) -> Result<Source, Response> {
        let key = (self.state.organisations[organisation].id, uid.to_string());
        let skips_cache = request.headers.contains_key("x-grafana-nocache");
        let cached = self.settings.get(&key).filter(|cached| !skips_cache && cached.at.elapsed() < SETTINGS_CACHE);
        let current = if let Some(cached) = cached {
            cached.clone()
        } else {
            let Some(source) = self.source(organisation, |source| source.body["uid"] == uid) else {
                return Err(self.no_source());
            };
            let fresh = Cached { settings: source.body, saved: source.saved, at: Instant::now() };
            self.settings.insert(key.clone(), fresh.clone());
            fresh
        };
        let instance = match self.instances.get(&key) {
            Some(instance) if self.version > Version::V7 && instance.saved == current.saved => instance.clone(),
            _ => current,
        };
        self.instances.insert(key, instance.clone());
        let settings = &instance.settings;
        let mut url = text(&settings["url"]);
        for (from, to) in &self.hosts {
            url = url.replace(from, to);
        }
        let database = match text(&settings["jsonData"]["dbName"]) {
            // Before 10, Grafana knows only the field at the top.
            name if name.is_empty() || self.version <= Version::V9 => text(&settings["database"]),
            name => name,
        };
        Ok(Source {
            url,
            shown_url: text(&settings["url"]),
            database,
            user: text(&settings["user"]),
            password: text(&settings["secureJsonData"]["password"]),
            method: text(&settings["jsonData"]["httpMode"]),
        })
    }

    fn health(&mut self, organisation: usize, uid: &str, request: &Request) -> Result<Reply, Response> {
        if self.version == Version::V7 {
            return Ok(Reply::Now(self.as_recorded("data source health by uid")));
        }
        let source = self.settings_for(organisation, uid, request)?;
        Ok(Reply::Ask(Ask { source, version: self.version, kind: Asking::Health }))
    }

    fn proxy_by_uid(
        &mut self,
        organisation: usize,
        uid: &str,
        query: &str,
        request: &Request,
    ) -> Result<Reply, Response> {
        match self.version {
            Version::V7 => Ok(Reply::Now(self.as_recorded("SHOW DATABASES through the proxy by uid"))),
            // It garbles the path; InfluxDB, if it is there, does not know that one.
            Version::V9 => {
                let source = self.settings_for(organisation, uid, request)?;
                let kind = Asking::Proxy { query: String::new() };
                Ok(Reply::Ask(Ask { source, version: self.version, kind }))
            }
            Version::V12 | Version::V13 => {
                let source = self.settings_for(organisation, uid, request)?;
                let kind = Asking::Proxy { query: query.to_string() };
                Ok(Reply::Ask(Ask { source, version: self.version, kind }))
            }
        }
    }

    fn ds_query(&mut self, organisation: usize, body: Option<Value>, request: &Request) -> Result<Reply, Response> {
        let body = body.unwrap_or_default();
        let query = &body["queries"][0];
        let uid = match (self.version, &query["datasource"]["uid"]) {
            (Version::V7, _) => {
                let id = query["datasourceId"].to_string();
                self.uid_of(organisation, &id).map_err(|_| self.as_recorded("query with an absent data source"))?
            }
            (_, uid) => text(uid),
        };
        if self.source(organisation, |source| source.body["uid"] == uid.as_str()).is_none() {
            return Err(self.as_recorded("query with an absent data source"));
        }
        let source = self.settings_for(organisation, &uid, request)?;
        Ok(Reply::Ask(Ask { source, version: self.version, kind: Asking::Query { body } }))
    }

    // Dashboards and folders.

    fn save_dashboard(&mut self, who: &Who, organisation: usize, body: Option<Value>) -> Response {
        if !who.is_admin && !who.is_token {
            return self.as_recorded("save dashboard as a viewer");
        }
        let Some(body) = body else { return self.as_recorded("save dashboard, body not JSON") };
        let mut content = body["dashboard"].clone();
        if !content.is_object() {
            return self.as_recorded("save dashboard, empty body");
        }
        let title = text(&content["title"]);
        if title.is_empty() {
            return self.as_recorded("save dashboard, no title");
        }
        let folder = match self.folder_of(organisation, &body) {
            Ok(folder) => folder,
            Err(response) => return response,
        };
        let overwrite = body["overwrite"] == true;
        let org = &self.state.organisations[organisation];
        let uid = match text(&content["uid"]) {
            uid if uid.is_empty() => format!("generated{}", self.state.next_id),
            uid => uid,
        };
        let present = org.dashboards.iter().position(|dashboard| dashboard.uid == uid);
        if let Some(index) = present {
            let version = org.dashboards[index].messages.len() as u64;
            if !overwrite && content["version"].as_u64() != Some(version) {
                return if self.version == Version::V13 {
                    Response::json(409, &json!({"message": "Dashboard already exists. Use overwrite flag to update."}))
                } else {
                    self.as_recorded("save dashboard again without overwrite")
                };
            }
        }
        let namesake = org
            .dashboards
            .iter()
            .any(|other| other.uid != uid && other.content["title"] == title.as_str() && other.folder == folder);
        if namesake && !overwrite && self.version < Version::V12 {
            return self.as_recorded("save dashboard, other uid, same title, without overwrite");
        }
        if let Some(fields) = content.as_object_mut() {
            fields.remove("id");
            fields.remove("version");
            fields.insert("uid".into(), json!(uid));
        }
        let message = text(&body["message"]);
        let (id, version) = if let Some(index) = present {
            let dashboard = &mut self.state.organisations[organisation].dashboards[index];
            dashboard.content = content;
            dashboard.folder.clone_from(&folder);
            dashboard.messages.push(message);
            (dashboard.id, dashboard.messages.len())
        } else {
            let id = self.new_id();
            let new =
                StoredDashboard { id, uid: uid.clone(), content, folder: folder.clone(), messages: vec![message] };
            self.state.organisations[organisation].dashboards.push(new);
            (id, 1)
        };
        let slug = slug(&title);
        let mut fields = vec![
            ("id", json!(id)),
            ("uid", json!(uid)),
            ("slug", json!(slug)),
            ("url", json!(format!("/d/{uid}/{slug}"))),
            ("version", json!(version)),
        ];
        if self.version >= Version::V12 {
            fields.push(("folderUid", json!(folder.unwrap_or_default())));
        }
        self.with("save dashboard", &fields)
    }

    /// The folder that a save names: by number everywhere, by uid from 9 on.
    fn folder_of(&self, organisation: usize, body: &Value) -> Result<Option<String>, Response> {
        let folders = &self.state.organisations[organisation].folders;
        if let Some(id) = body["folderId"].as_u64().filter(|id| *id > 0) {
            return Ok(folders.iter().find(|folder| folder.id == id).map(|folder| folder.uid.clone()));
        }
        match text(&body["folderUid"]) {
            uid if uid.is_empty() || self.version == Version::V7 => Ok(None),
            uid if folders.iter().any(|folder| folder.uid == uid) => Ok(Some(uid)),
            _ => Err(self.as_recorded("save dashboard into an absent folder")),
        }
    }

    fn import(&mut self, organisation: usize, body: Option<Value>) -> Response {
        let content = body.unwrap_or_default()["dashboard"].clone();
        let (uid, title) = (text(&content["uid"]), text(&content["title"]));
        let id = self.new_id();
        let messages = vec![String::new()];
        self.state.organisations[organisation].dashboards.push(StoredDashboard {
            id,
            uid,
            content,
            folder: None,
            messages,
        });
        self.with("import dashboard with inputs", &[("dashboardId", json!(id)), ("title", json!(title))])
    }

    fn dashboard(&self, organisation: usize, uid: &str) -> Response {
        let org = &self.state.organisations[organisation];
        let Some(dashboard) = org.dashboards.iter().find(|dashboard| dashboard.uid == uid) else {
            return self.as_recorded("dashboard by uid, absent");
        };
        let folder = dashboard.folder.as_ref().and_then(|uid| org.folders.iter().find(|folder| folder.uid == *uid));
        let step = if folder.is_some() { "dashboard in a folder" } else { "dashboard by uid" };
        let mut recorded = self.like(step);
        let version = dashboard.messages.len();
        let slug = slug(&text(&dashboard.content["title"]));
        let meta = &mut recorded.body["meta"];
        merge(meta, &[("version", json!(version)), ("slug", json!(slug)), ("url", json!(format!("/d/{uid}/{slug}")))]);
        if let Some(folder) = folder {
            let url = format!("/dashboards/f/{}/{}", folder.uid, self::slug(&folder.title));
            merge(
                meta,
                &[("folderId", json!(folder.id)), ("folderTitle", json!(folder.title)), ("folderUrl", json!(url))],
            );
            if meta.get("folderUid").is_some() {
                meta["folderUid"] = json!(folder.uid);
            }
        }
        let mut content = dashboard.content.clone();
        content["id"] = json!(dashboard.id);
        content["version"] = json!(version);
        recorded.body["dashboard"] = content;
        answer(recorded.status, &recorded.body)
    }

    fn delete_dashboard(&mut self, organisation: usize, uid: &str) -> Response {
        let dashboards = &mut self.state.organisations[organisation].dashboards;
        let Some(index) = dashboards.iter().position(|dashboard| dashboard.uid == uid) else {
            return self.as_recorded("delete dashboard by uid again");
        };
        let dashboard = dashboards.remove(index);
        let org = &mut self.state.organisations[organisation];
        org.home = org.home.take().filter(|home| home != uid);
        let title = text(&dashboard.content["title"]);
        let fields = [("title", json!(title)), ("message", json!(format!("Dashboard {title} deleted")))];
        self.with("delete dashboard by uid", &fields)
    }

    fn versions(&self, organisation: usize, uid: &str, step: &str) -> Response {
        let recorded = self.like(step);
        let dashboards = &self.state.organisations[organisation].dashboards;
        let Some(dashboard) = dashboards.iter().find(|dashboard| dashboard.uid == uid) else {
            return self.as_recorded("dashboard by uid, absent");
        };
        if recorded.status != 200 {
            return answer(recorded.status, &recorded.body);
        }
        let template = match recorded.body.get("versions") {
            Some(list) => list[0].clone(),
            None => recorded.body[0].clone(),
        };
        let list: Vec<Value> = (1..=dashboard.messages.len())
            .rev()
            .map(|version| {
                let mut item = template.clone();
                let message = match (version, dashboard.messages[version - 1].as_str()) {
                    (1, _) => "Initial save",
                    (_, message) => message,
                };
                merge(
                    &mut item,
                    &[("version", json!(version)), ("parentVersion", json!(version - 1)), ("message", json!(message))],
                );
                if item["data"].get("version").is_some() {
                    item["data"]["version"] = json!(version);
                }
                item
            })
            .collect();
        match recorded.body.get("versions") {
            Some(_) => {
                let mut body = recorded.body.clone();
                body["versions"] = json!(list);
                answer(200, &body)
            }
            None => answer(200, &json!(list)),
        }
    }

    fn search(&self, organisation: usize, query: &str) -> Response {
        let org = &self.state.organisations[organisation];
        let (by_tag, by_uid) = (query.strip_prefix("tag="), query.strip_prefix("dashboardUIDs="));
        let step = if by_tag.is_some() { "search by tag" } else { "search by uid" };
        let template = self.like(step).body[0].clone();
        let mut dashboards: Vec<&StoredDashboard> = org.dashboards.iter().collect();
        dashboards.sort_by_key(|dashboard| text(&dashboard.content["title"]));
        let list: Vec<Value> = dashboards
            .into_iter()
            .filter(|dashboard| {
                let tagged =
                    |tag: &str| dashboard.content["tags"].as_array().is_some_and(|tags| tags.contains(&json!(tag)));
                by_tag.is_none_or(tagged)
                    && (self.version == Version::V7 || by_uid.is_none_or(|uid| dashboard.uid == uid))
            })
            .map(|dashboard| {
                let title = text(&dashboard.content["title"]);
                let slug = slug(&title);
                let mut item = template.clone();
                merge(
                    &mut item,
                    &[
                        ("id", json!(dashboard.id)),
                        ("uid", json!(dashboard.uid)),
                        ("title", json!(title)),
                        ("uri", json!(format!("db/{slug}"))),
                        ("url", json!(format!("/d/{}/{slug}", dashboard.uid))),
                        ("isStarred", json!(org.stars.contains(&dashboard.uid))),
                    ],
                );
                item
            })
            .collect();
        Response::json(200, &json!(list))
    }

    fn star(&mut self, who: &Who, organisation: usize, uid: &str) -> Response {
        let stars = &mut self.state.organisations[organisation].stars;
        let again = stars.iter().any(|star| star == uid);
        if !again {
            stars.push(uid.to_string());
        }
        if who.is_token {
            return self.as_recorded("star by uid with a service account token");
        }
        self.as_recorded(if again { "star by uid again" } else { "star by uid" })
    }

    fn preferences(&self, organisation: usize) -> Response {
        let org = &self.state.organisations[organisation];
        let mut recorded = self.like("org preferences");
        let id = org.home.as_ref().and_then(|uid| org.dashboards.iter().find(|d| d.uid == *uid)).map_or(0, |d| d.id);
        if let Some(fields) = recorded.body.as_object_mut() {
            match &org.home {
                Some(home) if fields.contains_key("homeDashboardUID") => {
                    fields.insert("homeDashboardUID".into(), json!(home));
                }
                None => drop(fields.remove("homeDashboardUID")),
                Some(_) => {}
            }
            if fields.contains_key("homeDashboardId") {
                fields.insert("homeDashboardId".into(), json!(id));
            }
        }
        answer(200, &recorded.body)
    }

    fn set_preferences(&mut self, who: &Who, method: &str, organisation: usize, body: Option<Value>) -> Response {
        if !who.is_admin && !who.is_token {
            return self.as_recorded("home dashboard by uid as a viewer");
        }
        if method == "PATCH" && self.version == Version::V7 {
            return self.as_recorded("home dashboard by uid");
        }
        let body = body.unwrap_or_default();
        let org = &mut self.state.organisations[organisation];
        let wanted = |dashboard: &&StoredDashboard| {
            body["homeDashboardUID"] == dashboard.uid.as_str() || body["homeDashboardId"] == dashboard.id
        };
        match org.dashboards.iter().find(wanted) {
            Some(dashboard) => org.home = Some(dashboard.uid.clone()),
            None => return self.as_recorded("dashboard by uid, absent"),
        }
        self.as_recorded(if method == "PATCH" { "home dashboard by uid" } else { "home dashboard by numeric id" })
    }

    fn folders(&self, organisation: usize) -> Response {
        let template = self.like("folders").body[0].clone();
        let list: Vec<Value> = self.state.organisations[organisation]
            .folders
            .iter()
            .map(|folder| {
                let mut item = template.clone();
                merge(
                    &mut item,
                    &[("id", json!(folder.id)), ("uid", json!(folder.uid)), ("title", json!(folder.title))],
                );
                item
            })
            .collect();
        Response::json(200, &json!(list))
    }

    fn folder_answer(&self, step: &str, folder: &Folder) -> Response {
        let url = format!("/dashboards/f/{}/{}", folder.uid, slug(&folder.title));
        self.with(
            step,
            &[
                ("id", json!(folder.id)),
                ("uid", json!(folder.uid)),
                ("title", json!(folder.title)),
                ("url", json!(url)),
            ],
        )
    }

    fn create_folder(&mut self, organisation: usize, body: Option<Value>) -> Response {
        let body = body.unwrap_or_default();
        let id = self.state.next_id;
        let uid = match text(&body["uid"]) {
            uid if uid.is_empty() => format!("folder{id}"),
            uid => uid,
        };
        if self.state.organisations[organisation].folders.iter().any(|folder| folder.uid == uid) {
            return self.as_recorded("create folder again");
        }
        let folder = Folder { id: self.new_id(), uid, title: text(&body["title"]) };
        self.state.organisations[organisation].folders.push(folder.clone());
        self.folder_answer("create folder", &folder)
    }

    fn second(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + self.ahead
    }

    fn new_id(&mut self) -> u64 {
        self.state.next_id += 1;
        self.state.next_id - 1
    }
}

/// Answers a request whole, asking InfluxDB where that is needed.
pub async fn handle(double: &std::sync::Mutex<Double>, request: Request) -> Response {
    let reply = double.lock().unwrap_or_else(std::sync::PoisonError::into_inner).respond(&request);
    match reply {
        Reply::Now(response) => response,
        Reply::Ask(ask) => influxql(ask).await,
    }
}

/// Replaces fields of a recorded body.
fn merge(body: &mut Value, fields: &[(&str, Value)]) {
    if let Some(object) = body.as_object_mut() {
        for (name, value) in fields {
            object.insert((*name).to_string(), value.clone());
        }
    }
}

/// Fields that Grafana adds to a data source which was sent without them.
fn complete(body: &mut Value) {
    let defaults: Map<String, Value> =
        [("user", json!("")), ("database", json!("")), ("isDefault", json!(false)), ("jsonData", json!({}))]
            .map(|(name, value)| (name.to_string(), value))
            .into_iter()
            .collect();
    if let Some(fields) = body.as_object_mut() {
        for (name, value) in defaults {
            fields.entry(name).or_insert(value);
        }
    }
}

fn answer(status: u16, body: &Value) -> Response {
    match body {
        Value::String(text) => Response::bytes(status, "text/plain", text.clone().into_bytes()),
        body => Response::json(status, body),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

fn slug(title: &str) -> String {
    let dashed: String = title.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    dashed.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// Enough of base64 to read a header.
pub fn base64_decoded(text: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0_u32;
    let mut count = 0;
    let mut out = Vec::new();
    for byte in text.bytes().filter_map(|byte| LETTERS.iter().position(|letter| *letter == byte)) {
        bits = (bits << 6) | u32::try_from(byte).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    String::from_utf8_lossy(&out).to_string()
}
