//! Grafana's double: answers like the recorded exchanges, stores its state, and has Grafana's two
//! caches and its lockout. It is stricter than the real server: a request that was neither recorded
//! nor documented is answered with 501.
//!
//! Every answer is a recorded one with the current state filled in, so the versions differ here
//! only in their behaviour. It does not depend on the program under test.

mod accounts;
mod alerting;
mod dashboards;
pub mod program;
mod provisioning;
mod query;
mod sources;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::query::{Source, influxql};
use super::server::{Request, Response, unescaped};

/// The version of Grafana.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V7,
    V9,
    /// 12.2, whose recordings represent all versions from 12.0 to 12.3.
    V12,
    V12_4,
    /// 12.4 with the changes that Grafana documents for 13; `tests/servers/contract.rs` lists them.
    V13,
}

impl Version {
    pub const ALL: [Self; 5] = [Self::V7, Self::V9, Self::V12, Self::V12_4, Self::V13];

    pub fn parse(text: &str) -> Self {
        let mut numbers = text.split('.');
        match (numbers.next(), numbers.next()) {
            (Some("7"), _) => Self::V7,
            (Some("9"), _) => Self::V9,
            (Some("12"), Some("2")) => Self::V12,
            (Some("12"), Some("4")) => Self::V12_4,
            (Some("13"), _) => Self::V13,
            _ => panic!("the double cannot be Grafana {text:?}"),
        }
    }

    /// The name of its recordings.
    const fn recorded_as(self) -> &'static str {
        match self {
            Self::V7 => "grafana-7.5.5",
            Self::V9 => "grafana-9.4.0-pre",
            Self::V12 => "grafana-12.2.0",
            Self::V12_4 | Self::V13 => "grafana-12.4.3",
        }
    }

    /// Its version number.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V7 => "7.5.5",
            Self::V9 => "9.4.0-pre",
            Self::V12 => "12.2.0",
            Self::V12_4 => "12.4.3",
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

/// All recordings, by file name.
static RECORDINGS: include_dir::Dir<'_> = include_dir::include_dir!("$CARGO_MANIFEST_DIR/tests/recordings");

/// The exchanges of one recording in order: daily use, or conflicts.
pub fn recording(version: Version, part: &str) -> Vec<Exchange> {
    let name = format!("{}{part}.json", version.recorded_as());
    let file = RECORDINGS.get_file(&name).unwrap_or_else(|| panic!("the recording {name} does not exist"));
    serde_json::from_slice(file.contents()).unwrap()
}

/// A token that the double issues and accepts.
pub const TOKEN: &str = "glsa_of_the_double";
/// How long a data source's settings are cached.
const SETTINGS_CACHE: Duration = Duration::from_secs(5);
/// The number of wrong passwords before a user is locked out.
const ATTEMPTS: usize = 5;

/// The state that survives restarts.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    users: Vec<User>,
    organisations: Vec<Organisation>,
    next_id: u64,
    next_source: u64,
    service_account: bool,
    tokens: usize,
    /// Wrong passwords by user: in Grafana's database, so that they survive a restart.
    failures: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct User {
    login: String,
    password: String,
    /// Whether the user is the server's administrator, who may use every organisation.
    is_admin: bool,
    /// The role in an organisation: `Admin`, `Editor` or `Viewer`.
    role: String,
    /// Ids of the user's organisations.
    organisations: Vec<u64>,
    /// The organisation of requests without a header.
    active: u64,
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
    rules: Vec<Value>,
    /// Seconds between evaluations of a rule group.
    intervals: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredSource {
    id: u64,
    body: Value,
    /// The second of the last save, which distinguishes plugin instances.
    saved: u64,
    /// Whether it is provisioned from a file.
    provisioned: bool,
    /// Whether it is deleted together with its file.
    #[serde(default)]
    pruned: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredDashboard {
    id: u64,
    uid: String,
    content: Value,
    folder: Option<String>,
    /// Messages of all saves, one per version.
    messages: Vec<String>,
    /// The time of the last save, in seconds since 1970; 0 for the recorded one.
    #[serde(default)]
    updated: u64,
    /// Whether it is provisioned from a file.
    provisioned: bool,
    /// The provider of that file.
    #[serde(default)]
    provider: Option<String>,
    /// Its resource, if it was saved in schema v2.
    #[serde(default)]
    v2: Option<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Folder {
    id: u64,
    uid: String,
    title: String,
    /// Whether it is inside another folder.
    #[serde(default)]
    nested: bool,
}

/// A cached copy of settings, temporary or permanent.
#[derive(Debug, Clone)]
struct Cached {
    settings: Value,
    saved: u64,
    at: Instant,
}

/// A recorded request, for assertions.
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
    /// Whether it locks a user out after wrong passwords.
    locks_out: bool,
    /// The reason for the last rejected login.
    rejection: &'static str,
    settings: BTreeMap<(u64, String), Cached>,
    instances: BTreeMap<(u64, String), Cached>,
    seen: Vec<Seen>,
    /// Addresses for host names in data sources: tests have no name server.
    hosts: BTreeMap<String, String>,
    /// Seconds by which its clock is ahead.
    ahead: u64,
    /// Whether it lacks the InfluxDB plugin.
    without_plugin: bool,
    /// The number of library panels in every folder.
    library_panels: usize,
    /// `min_refresh_interval` in its configuration, in seconds.
    min_refresh: u64,
    /// Paths whose GET fails, with the status.
    broken: BTreeMap<String, u16>,
    /// The organisation of the token, unless it is the first one.
    token_organisation: Option<u64>,
    /// The status of every answer to the deletion of a folder, if Grafana refuses it.
    folder_refusal: Option<u16>,
    /// The interval that a user gives every data source directly after the next deletion of another object.
    interval_after_deletion: Option<&'static str>,
    pub doors: Doors,
}

/// The enabled ways to sign in, and the rights of anonymous visitors.
#[derive(Debug, Clone, Default)]
pub struct Doors {
    /// Whether `auth.basic` is off.
    pub without_basic: bool,
    /// Whether `auth.disable_login_form` is on.
    pub without_form: bool,
    /// The role of anonymous visitors, if allowed.
    pub anonymous: Option<String>,
}

/// The outcome of a request: an answer, or a query to InfluxDB whose result becomes the answer.
pub enum Reply {
    Now(Response),
    Ask(Ask),
}

/// A query to InfluxDB for a request.
pub struct Ask {
    pub source: Source,
    pub version: Version,
    pub kind: Asking,
}

/// The way of the query.
pub enum Asking {
    /// Through the proxy, unchanged.
    Proxy { query: String },
    /// Through `/api/ds/query`.
    Query { body: Value },
    /// Through "Save & Test".
    Health,
}

/// The account of a request.
struct Who {
    login: String,
    is_admin: bool,
    is_token: bool,
    role: String,
}

impl Who {
    /// Whether it may change data sources and preferences.
    fn may_administer(&self) -> bool {
        self.is_admin || self.is_token || self.role == "Admin"
    }

    /// Whether it may change dashboards and folders.
    fn may_edit(&self) -> bool {
        self.may_administer() || self.role == "Editor"
    }
}

impl Double {
    /// An empty Grafana with this administrator password. With a file, the state is stored there,
    /// and existing state is loaded.
    pub fn new(version: Version, password: &str, file: Option<PathBuf>) -> Self {
        let main = Organisation { id: 1, name: "Main Org.".into(), ..Organisation::default() };
        let state = State {
            users: vec![User {
                login: "admin".into(),
                password: password.into(),
                is_admin: true,
                role: "Admin".into(),
                organisations: vec![1],
                active: 1,
            }],
            organisations: vec![main],
            next_id: 1,
            next_source: 1,
            service_account: false,
            tokens: 0,
            failures: BTreeMap::new(),
        };
        let mut double = Self {
            version,
            recording: [recording(version, ""), recording(version, "-clashes")].concat(),
            state,
            file,
            read_at: None,
            locks_out: true,
            rejection: "",
            settings: BTreeMap::new(),
            instances: BTreeMap::new(),
            seen: Vec::new(),
            hosts: BTreeMap::new(),
            ahead: 0,
            without_plugin: false,
            library_panels: 0,
            min_refresh: 5,
            broken: BTreeMap::new(),
            token_organisation: None,
            folder_refusal: None,
            interval_after_deletion: None,
            doors: Doors::default(),
        };
        double.read();
        double.write();
        double
    }

    pub const fn version(&self) -> Version {
        self.version
    }

    /// Maps a host and port in a data source's address to another one.
    pub fn map_host(&mut self, from: &str, to: &str) {
        self.hosts.insert(from.into(), to.into());
    }

    /// All requests so far.
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

    /// Provisions a data source from a file, as an operator does.
    pub fn provision_data_source(&mut self, body: &Value) {
        let mut body = body.clone();
        complete(&mut body);
        let source =
            StoredSource { id: self.state.next_source, body, saved: self.second(), provisioned: true, pruned: false };
        self.state.next_source += 1;
        self.state.organisations[0].sources.push(source);
        self.write();
    }

    /// Provisions a dashboard from a file, as an operator does.
    pub fn provision_dashboard(&mut self, content: &Value) {
        let id = self.new_id();
        let (uid, content, messages, updated) = (text(&content["uid"]), content.clone(), vec![String::new()], 0);
        let new = StoredDashboard {
            id,
            uid,
            content,
            folder: None,
            messages,
            updated,
            provisioned: true,
            provider: None,
            v2: None,
        };
        self.state.organisations[0].dashboards.push(new);
        self.write();
    }

    /// Simulates that five minutes have passed since the last wrong password.
    pub fn forgive(&mut self) {
        self.state.failures.clear();
    }

    /// Renames the first administrator, as long as no user has signed in.
    pub fn name_administrator(&mut self, login: &str) {
        if self.state.next_id == 1 && self.state.next_source == 1 && self.state.users.len() == 1 {
            self.state.users[0].login = login.into();
            self.write();
        }
    }

    /// Disables the lockout.
    pub fn never_lock_out(&mut self) {
        self.locks_out = false;
    }

    /// Answers every GET of a path with a status, as if a row of its database were unreadable.
    pub fn break_path(&mut self, path: &str, status: u16) {
        self.broken.insert(path.into(), status);
    }

    /// Answers every GET of a path with more than a client reads.
    pub fn flood_path(&mut self, path: &str) {
        self.broken.insert(path.into(), 200);
    }

    /// Moves the token to another organisation.
    pub fn give_token_to(&mut self, organisation: u64) {
        self.token_organisation = Some(organisation);
    }

    /// Refuses to delete folders: with 403, the account lacks the right and folders say so; with 400, they hold
    /// something that it does not see.
    pub fn refuse_folder_deletion(&mut self, status: u16) {
        self.folder_refusal = Some(status);
    }

    /// Lets a user change every data source directly after the next deletion of another object.
    pub fn change_interval_after_deletion(&mut self, interval: &'static str) {
        self.interval_after_deletion = Some(interval);
    }

    /// Saves a dashboard as a browser does in schema v2: variables and title stay, unknown keys are removed.
    pub fn save_in_schema_v2(&mut self, uid: &str) {
        self.save_v2(uid);
        self.write();
    }

    /// Marks all alert rules as created through the API, as 9.4 does, and moves one of them to another group.
    pub fn mark_rules_as_from_api(&mut self, moved: &str) {
        for rule in &mut self.state.organisations[0].rules {
            rule["provenance"] = json!("api");
            if rule["title"] == moved {
                rule["ruleGroup"] = json!("theirs");
            }
        }
        self.write();
    }

    /// Creates many folders, whose titles precede all letters.
    pub fn create_folders(&mut self, count: usize) {
        for number in 0..count {
            let (uid, title) = (format!("many{number}"), format!("0 {number:05}"));
            let folder = Folder { id: self.new_id(), uid, title, nested: false };
            self.state.organisations[0].folders.push(folder);
        }
        self.write();
    }

    /// Moves a folder into another one, as versions from 11 on allow.
    pub fn nest_folder(&mut self, title: &str) {
        let folders = &mut self.state.organisations[0].folders;
        folders.iter_mut().find(|folder| folder.title == title).unwrap().nested = true;
        self.write();
    }

    /// Lists another folder of the same title first, as versions from 11.3 on allow.
    pub fn precede_folder(&mut self, title: &str) {
        let id = self.new_id();
        let folder = Folder { id, uid: format!("theirs{id}"), title: title.into(), nested: false };
        self.state.organisations[0].folders.insert(0, folder);
        self.write();
    }

    /// Simulates a library panel in every folder.
    pub fn put_library_panel(&mut self) {
        self.library_panels += 1;
    }

    /// Sets `min_refresh_interval`, in seconds.
    pub fn refresh_at_most_every(&mut self, seconds: u64) {
        self.min_refresh = seconds;
    }

    /// Simulates that the InfluxDB plugin was removed.
    pub fn remove_plugin(&mut self) {
        self.without_plugin = true;
    }

    /// Simulates that the next save happens in a later second.
    pub fn next_second(&mut self) {
        self.ahead += 1;
    }

    /// Moves its clock ahead, with its `Date` header.
    pub fn move_clock(&mut self, seconds: u64) {
        self.ahead += seconds;
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
        // Through a link, as SQLite writes.
        let file = &std::fs::canonicalize(file).unwrap_or_else(|_| file.clone());
        let new = file.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, file).unwrap();
        self.read_at = std::fs::metadata(file).and_then(|meta| meta.modified()).ok();
    }

    /// Answers one request, or returns the query to send to InfluxDB for it.
    pub fn respond(&mut self, request: &Request) -> Reply {
        self.read();
        let path = request.path.clone();
        if request.method == "GET" && path == "/_double/requests" {
            return Reply::Now(Response::json(200, &json!(self.seen)));
        }
        if path == "/_double/forgive" {
            self.forgive();
            self.write();
            return Reply::Now(Response::json(200, &json!({})));
        }
        let signed_in = request.headers.contains_key("authorization");
        let failures = self.state.failures.clone();
        let mut reply = match self.route(request) {
            Ok(reply) => reply,
            Err(response) => Reply::Now(response),
        };
        if request.method == "DELETE"
            && let Some(interval) = self.interval_after_deletion.take()
        {
            for source in &mut self.state.organisations[0].sources {
                source.body["jsonData"]["timeInterval"] = json!(interval);
            }
        }
        if request.method != "GET" || self.state.failures != failures {
            self.write();
        }
        let date = UNIX_EPOCH + Duration::from_secs(self.second());
        let status = match &mut reply {
            Reply::Now(response) => {
                response.headers.push(("date".into(), httpdate::fmt_http_date(date)));
                response.status
            }
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

    /// A recorded answer with some fields of its body replaced.
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
            return Ok(Reply::Now(self.with("health", &[("version", json!(self.version.name()))])));
        }
        if (request.method.as_str(), segments.as_slice()) == ("POST", &["login"]) {
            return Ok(Reply::Now(self.log_in(&request.body)));
        }
        let who = self.who(request)?;
        if who.login.is_empty() && segments.starts_with(&["api", "user"]) {
            return Err(self.as_recorded("org without credentials"));
        }
        let organisation = self.organisation(request, &who)?;
        if let Some(status) = self.broken.get(path).filter(|_| request.method == "GET") {
            let message = if *status == 200 { " ".repeat(20 << 20) } else { "it is broken".into() };
            return Ok(Reply::Now(Response::json(*status, &json!({"message": message}))));
        }
        let body = if request.body.is_empty() { None } else { serde_json::from_slice::<Value>(&request.body).ok() };
        let method = request.method.as_str();
        let numbers = self.version < Version::V13;
        let reply = match (method, segments.as_slice()) {
            ("GET", ["api", "org"]) => {
                let org = &self.state.organisations[organisation];
                self.with("org", &[("id", json!(org.id)), ("name", json!(org.name))])
            }
            ("GET", ["api", "user"]) => self.user(&who),
            ("GET", ["api", "user", "orgs"]) => self.own_organisations(&who),
            ("GET", ["api", "no-such-route"]) => self.as_recorded("unknown route"),
            ("GET", ["api", "orgs"]) => {
                let list: Vec<Value> =
                    self.state.organisations.iter().map(|org| json!({"id": org.id, "name": org.name})).collect();
                Response::json(200, &json!(list))
            }
            ("GET", ["api", "orgs", "name", name]) => self.organisation_by_name(&who, name),
            ("POST", ["api", "orgs"]) => self.create_organisation(&who, body.as_ref()),
            ("GET", ["api", "orgs", id]) => self.organisation_by_id(id),
            ("POST", ["api", "user", "using", id]) => self.switch_organisation(&who, id),
            ("GET", ["api", "users", "lookup"]) => self.look_up_user(query),
            ("PATCH", ["api", "org", "users", id]) => self.change_role(id, body.as_ref()),
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
            ("PUT", ["api", "datasources", "uid", uid]) => self.update_by_uid(&who, organisation, uid, body),
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
                self.update_source(&who, organisation, &uid, body, "update data source by numeric id")
            }
            ("GET" | "PUT" | "DELETE", ["api", "datasources", ..]) if !numbers => {
                Response::json(404, &json!({"message": "Not found"}))
            }
            ("POST", ["api", "ds", "query"]) => return self.ds_query(organisation, body, request),
            // From Grafana's API documentation about a plugin that is not installed.
            ("GET", ["api", "plugins", "influxdb", "settings"]) if self.without_plugin => {
                answer(404, &json!({"message": "Plugin not found, no installed plugin with that id"}))
            }
            ("GET", ["api", "plugins", "influxdb", "settings"]) => self.as_recorded("influxdb plugin settings"),
            // From the source of each version.
            ("GET", ["api", "frontend", "settings"]) => self.frontend_settings(),
            // As documented from version 8 on.
            ("GET", ["api", "library-elements"]) if self.version > Version::V7 => {
                let result = json!({"totalCount": self.library_panels, "elements": [], "page": 1, "perPage": 1});
                answer(200, &json!({"result": result}))
            }
            ("POST", ["api", "dashboards", "db"]) => self.save_dashboard(&who, organisation, body),
            ("POST", ["api", "dashboards", "import"]) => self.import(organisation, body),
            ("GET", ["api", "dashboards", "home"]) => self.as_recorded("home dashboard"),
            ("GET", ["api", "dashboards", "uid", uid]) => self.dashboard(organisation, uid),
            ("DELETE", ["api", "dashboards", "uid", uid]) => self.delete_dashboard(organisation, uid),
            ("GET", ["api", "dashboards", "uid", uid, "versions"]) => {
                self.versions(organisation, uid, "dashboard versions by uid")
            }
            ("GET", ["api", "dashboards", "id", id, "versions"]) => {
                let uid = self.state.organisations[organisation].dashboards.iter().find(|d| d.id.to_string() == *id);
                let uid = uid.map(|dashboard| dashboard.uid.clone()).unwrap_or_default();
                self.versions(organisation, &uid, "dashboard versions by numeric id")
            }
            ("GET", ["apis", "dashboard.grafana.app", "v2beta1", "namespaces", namespace, "dashboards", uid]) => {
                self.dashboard_v2(organisation, namespace, uid)
            }
            ("GET", ["apis", "dashboard.grafana.app", "v1beta1", "namespaces", _, "dashboards", uid]) => {
                self.dashboard_v1(organisation, uid)
            }
            ("GET", ["api", "search"]) => self.search(organisation, query),
            ("POST", ["api", "user", "stars", "dashboard", "uid", uid]) => self.star(&who, organisation, uid),
            ("POST", ["api", "user", "stars", "dashboard", _]) => self.as_recorded("star by numeric id"),
            ("GET", ["api", "user", "stars"]) => self.as_recorded("stars of the user"),
            ("GET", ["api", "org", "preferences"]) => self.preferences(&who, organisation),
            ("PATCH" | "PUT", ["api", "org", "preferences"]) => self.set_preferences(&who, method, organisation, body),
            ("GET", ["api", "folders"]) => self.folders(organisation, query),
            ("GET", ["api", "folders", uid]) => {
                let found = self.state.organisations[organisation].folders.iter().find(|folder| folder.uid == *uid);
                match found {
                    Some(folder) => self.folder_answer("folder by uid", folder),
                    // Reported for 10 to 13 (grafana/grafana#109608).
                    None if self.version >= Version::V12 && !who.may_administer() => {
                        let message = "You'll need additional permissions to perform this action. Permissions needed: \
                                       folders:read";
                        answer(403, &json!({"message": message}))
                    }
                    None => self.as_recorded("folder by uid, absent"),
                }
            }
            ("POST", ["api", "folders"]) => self.create_folder(&who, organisation, body),
            // The statuses are those of Grafana, the texts are not.
            ("DELETE", ["api", "folders", _]) if self.folder_refusal.is_some() => {
                let (status, message) = match self.folder_refusal {
                    Some(403) => (403, "You'll need additional permissions. Permissions needed: folders:delete"),
                    _ => (400, "Folder cannot be deleted: folder is not empty"),
                };
                answer(status, &json!({"message": message}))
            }
            ("DELETE", ["api", "folders", uid]) => self.delete_folder(organisation, uid),
            ("POST", ["api", "annotations"]) => self.as_recorded("annotation on a dashboard"),
            (_, ["api", "v1", "provisioning", ..] | ["api", "ruler" | "prometheus", ..]) => {
                let keeps_editable = request.headers.contains_key("x-disable-provenance");
                self.alerting(&who, organisation, method, &segments, body.as_ref(), keeps_editable)
            }
            _ => {
                let message = format!("{method} {path} is neither recorded nor documented");
                Response::json(501, &json!({"message": message}))
            }
        };
        Ok(Reply::Now(reply))
    }

    /// The part of the frontend settings about panel plugins.
    fn frontend_settings(&self) -> Response {
        const EVERYWHERE: [&str; 13] = [
            "bargauge",
            "gauge",
            "heatmap",
            "histogram",
            "logs",
            "nodeGraph",
            "piechart",
            "stat",
            "state-timeline",
            "status-history",
            "table",
            "timeseries",
            "barchart",
        ];
        const SILENT: [&str; 8] =
            ["alertlist", "annolist", "dashlist", "gettingstarted", "live", "news", "text", "welcome"];
        const BEFORE_11: [&str; 3] = ["graph", "table-old", "singlestat"];
        let later = ["candlestick", "canvas", "datagrid", "flamegraph", "geomap", "traces", "trend", "xychart"];
        let old = BEFORE_11.iter().filter(|_| self.version < Version::V12);
        let new = later.iter().filter(|_| self.version >= Version::V12);
        let asking = EVERYWHERE.iter().chain(old).chain(new).map(|id| (*id, false));
        let panels: Map<String, Value> = asking
            .chain(SILENT.iter().map(|id| (*id, true)))
            .map(|(id, skips)| (id.to_string(), json!({"id": id, "skipDataQuery": skips})))
            .collect();
        answer(200, &json!({"panels": panels, "minRefreshInterval": format!("{}s", self.min_refresh)}))
    }

    fn second(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + self.ahead
    }

    fn new_id(&mut self) -> u64 {
        self.state.next_id += 1;
        self.state.next_id - 1
    }
}

/// Answers a request completely, querying InfluxDB if needed.
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

/// Adds the fields that Grafana adds to a new data source.
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
