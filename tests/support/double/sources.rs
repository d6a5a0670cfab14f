//! Data sources, and Grafana's two caches of their settings.

use std::time::Instant;

use serde_json::{Value, json};

use super::query::Source;
use super::{
    Ask, Asking, Cached, Double, Reply, SETTINGS_CACHE, StoredSource, Version, Who, answer, complete, merge, text,
};
use crate::support::server::{Request, Response};

impl Double {
    pub(super) fn source(&self, organisation: usize, matches: impl Fn(&StoredSource) -> bool) -> Option<StoredSource> {
        self.state.organisations[organisation].sources.iter().find(|source| matches(source)).cloned()
    }

    pub(super) fn no_source(&self) -> Response {
        self.as_recorded("data source by uid, absent")
    }

    pub(super) fn uid_of(&self, organisation: usize, id: &str) -> Result<String, Response> {
        let found = self.source(organisation, |source| source.id.to_string() == id);
        found.map(|source| text(&source.body["uid"])).ok_or_else(|| self.no_source())
    }

    pub(super) fn source_fields(source: &StoredSource, org: u64) -> Vec<(&'static str, Value)> {
        let body = &source.body;
        let mut fields = vec![("id", json!(source.id)), ("orgId", json!(org))];
        for name in ["uid", "name", "type", "access", "url", "user", "database", "isDefault", "jsonData"] {
            fields.push((name, body[name].clone()));
        }
        fields.push(("basicAuth", json!(body["basicAuth"] == true)));
        fields.push(("readOnly", json!(source.provisioned)));
        fields
    }

    pub(super) fn source_answer(&self, step: &str, source: &StoredSource, organisation: usize) -> Response {
        let org = self.state.organisations[organisation].id;
        let mut fields = Self::source_fields(source, org);
        // The list omits these.
        fields.push(("basicAuthUser", json!(text(&source.body["basicAuthUser"]))));
        fields.push(("withCredentials", json!(source.body["withCredentials"] == true)));
        self.with(step, &fields)
    }

    pub(super) fn data_sources(&self, who: &Who, organisation: usize) -> Response {
        if !who.may_administer() {
            let role = if who.role == "Editor" { "an editor" } else { "a viewer" };
            let recorded = self.like(&format!("data sources as {role}"));
            if recorded.status != 200 {
                return answer(recorded.status, &recorded.body);
            }
        }
        let org = &self.state.organisations[organisation];
        let template = self.like("data sources: one is provisioned").body[0].clone();
        let mut sources: Vec<&StoredSource> = org.sources.iter().collect();
        sources.sort_by_key(|source| text(&source.body["name"]).to_lowercase());
        let list: Vec<Value> = sources
            .into_iter()
            .map(|source| {
                let mut item = template.clone();
                merge(&mut item, &Self::source_fields(source, org.id));
                item
            })
            .collect();
        Response::json(200, &json!(list))
    }

    pub(super) fn create_data_source(&mut self, who: &Who, organisation: usize, body: Option<Value>) -> Response {
        if !who.may_administer() {
            let role = if who.role == "Editor" { "an editor" } else { "a viewer" };
            return self.as_recorded(&format!("create data source as {role}"));
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
        let source =
            StoredSource { id: self.state.next_source, body, saved: self.second(), provisioned: false, pruned: false };
        self.state.next_source += 1;
        self.only_default(organisation, &source);
        self.state.organisations[organisation].sources.push(source.clone());
        self.saved_source("create data source", &source, organisation)
    }

    pub(super) fn saved_source(&self, step: &str, source: &StoredSource, organisation: usize) -> Response {
        let mut recorded = self.like(step);
        let org = self.state.organisations[organisation].id;
        merge(&mut recorded.body["datasource"], &Self::source_fields(source, org));
        merge(&mut recorded.body, &[("id", json!(source.id)), ("name", source.body["name"].clone())]);
        answer(recorded.status, &recorded.body)
    }

    pub(super) fn only_default(&mut self, organisation: usize, new: &StoredSource) {
        if new.body["isDefault"] == true {
            for source in &mut self.state.organisations[organisation].sources {
                source.body["isDefault"] = json!(false);
            }
        }
    }

    pub(super) fn update_by_uid(&mut self, who: &Who, organisation: usize, uid: &str, body: Option<Value>) -> Response {
        if self.version == Version::V7 {
            return self.as_recorded("update data source by uid");
        }
        if self.source(organisation, |source| source.body["uid"] == uid).is_none() {
            return self.as_recorded("update an absent data source by uid");
        }
        let names_another = body.as_ref().is_some_and(|body| body["uid"].as_str().is_some_and(|named| named != uid));
        if self.version == Version::V13 && names_another {
            return Response::json(400, &json!({"message": "the uid of the body is not the uid of the address"}));
        }
        self.update_source(who, organisation, uid, body, "update data source by uid")
    }

    pub(super) fn update_source(
        &mut self,
        who: &Who,
        organisation: usize,
        uid: &str,
        body: Option<Value>,
        step: &str,
    ) -> Response {
        if !who.may_administer() {
            return self.as_recorded("create data source as an editor");
        }
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
        let actual = &self.state.organisations[organisation].sources[index];
        // 7.5 allows overwriting a provisioned one until its next start.
        if actual.provisioned && self.version > Version::V7 {
            return self.as_recorded("update the provisioned data source by numeric id");
        }
        let source = StoredSource { id: actual.id, body, saved: now, provisioned: false, pruned: false };
        self.only_default(organisation, &source);
        self.state.organisations[organisation].sources[index] = source.clone();
        self.saved_source(step, &source, organisation)
    }

    pub(super) fn delete_source(&mut self, organisation: usize, key: &str, value: &str) -> Response {
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

    /// The settings of a data source for Grafana's own queries: through the cache of 5 s, and
    /// through a plugin instance that may be outdated.
    pub(super) fn settings_for(
        &mut self,
        organisation: usize,
        uid: &str,
        request: &Request,
    ) -> Result<Source, Response> {
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
            // Before 10, Grafana uses only the top-level field.
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

    pub(super) fn health(&mut self, organisation: usize, uid: &str, request: &Request) -> Result<Reply, Response> {
        if self.version == Version::V7 {
            return Ok(Reply::Now(self.as_recorded("data source health by uid")));
        }
        let source = self.settings_for(organisation, uid, request)?;
        Ok(Reply::Ask(Ask { source, version: self.version, kind: Asking::Health }))
    }

    pub(super) fn proxy_by_uid(
        &mut self,
        organisation: usize,
        uid: &str,
        query: &str,
        request: &Request,
    ) -> Result<Reply, Response> {
        match self.version {
            Version::V7 => Ok(Reply::Now(self.as_recorded("SHOW DATABASES through the proxy by uid"))),
            // It garbles the path, which InfluxDB, if reachable, does not know.
            Version::V9 => {
                let source = self.settings_for(organisation, uid, request)?;
                let kind = Asking::Proxy { query: String::new() };
                Ok(Reply::Ask(Ask { source, version: self.version, kind }))
            }
            Version::V12 | Version::V12_4 | Version::V13 => {
                let source = self.settings_for(organisation, uid, request)?;
                let kind = Asking::Proxy { query: query.to_string() };
                Ok(Reply::Ask(Ask { source, version: self.version, kind }))
            }
        }
    }

    pub(super) fn ds_query(
        &mut self,
        organisation: usize,
        body: Option<Value>,
        request: &Request,
    ) -> Result<Reply, Response> {
        let body = body.unwrap_or_default();
        let query = &body["queries"][0];
        let uid = match (self.version, &query["datasource"]["uid"]) {
            (Version::V7, _) => {
                if query["datasourceId"].is_null() {
                    return Err(self.as_recorded("ask through a data source of the first by header"));
                }
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
}
