//! Grafana's handling of provisioning files at its start: data sources, dashboards and alert rules.
//! Measured on 12.2.0. Stricter than the real server: an undocumented key is an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Double, Folder, StoredDashboard, StoredSource, Version, complete, text};

const SOURCE_KEYS: [&str; 12] = [
    "name",
    "uid",
    "type",
    "access",
    "orgId",
    "url",
    "user",
    "database",
    "isDefault",
    "editable",
    "jsonData",
    "secureJsonData",
];
const PROVIDER_KEYS: [&str; 9] = [
    "name",
    "orgId",
    "type",
    "folder",
    "folderUid",
    "disableDeletion",
    "allowUiUpdates",
    "updateIntervalSeconds",
    "options",
];
const RULE_KEYS: [&str; 12] = [
    "uid",
    "title",
    "condition",
    "data",
    "noDataState",
    "execErrState",
    "for",
    "keepFiringFor",
    "annotations",
    "labels",
    "isPaused",
    "notification_settings",
];

/// Parses the `.yaml` files of a folder.
fn documents(folder: &Path) -> Vec<Value> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    let yaml = files.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    yaml.map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        let document: Value = serde_saphyr::from_str(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        assert_eq!(document["apiVersion"], 1, "{}", path.display());
        document
    })
    .collect()
}

fn expect_keys(value: &Value, known: &[&str]) {
    for key in value.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "{key} is not a key of {value}");
    }
}

/// Expands variables and files after a `$`.
fn expanded(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(expanded_text(text)),
        Value::Array(items) => items.iter().map(expanded).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), expanded(value))).collect(),
        other => other.clone(),
    }
}

fn expanded_text(text: &str) -> String {
    let inside = |kind: &str| text.strip_prefix(kind).and_then(|rest| rest.strip_suffix('}'));
    // The results are expanded once more.
    if let Some(name) = inside("$__env{") {
        return expanded_text(&std::env::var(name).unwrap_or_default());
    }
    if let Some(path) = inside("$__file{") {
        return expanded_text(std::fs::read_to_string(path).unwrap().trim());
    }
    let parts: Vec<String> = text
        .split("$$")
        .map(|part| match part.split_once('$') {
            None => part.to_string(),
            Some((before, rest)) => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                format!("{before}{}{}", std::env::var(&rest[..end]).unwrap_or_default(), &rest[end..])
            }
        })
        .collect();
    parts.join("$")
}

impl Double {
    /// Reads the files in a provisioning folder.
    pub fn provision_from(&mut self, folder: &Path) {
        self.provision_sources(&documents(&folder.join("datasources")));
        self.provision_rules(&documents(&folder.join("alerting")));
        self.provision_dashboards(&documents(&folder.join("dashboards")), folder);
        self.write();
    }

    fn provision_sources(&mut self, files: &[Value]) {
        let mut kept = Vec::new();
        for file in files {
            expect_keys(file, &["apiVersion", "prune", "datasources"]);
            for source in file["datasources"].as_array().unwrap() {
                expect_keys(source, &SOURCE_KEYS);
                let mut body = expanded(source);
                let organisation = self.number_of(&body["orgId"]);
                complete(&mut body);
                let saved = self.second();
                let sources = &mut self.state.organisations[organisation].sources;
                let before = sources.iter().position(|source| source.body["name"] == body["name"]);
                let id = before.map_or(self.state.next_source, |index| sources.remove(index).id);
                self.state.next_source = self.state.next_source.max(id + 1);
                // Older versions do not know this key.
                let pruned = file["prune"] == true && self.version >= Version::V12;
                let new = StoredSource { id, saved, provisioned: body["editable"] != true, pruned, body };
                self.only_default(organisation, &new);
                kept.push(id);
                self.state.organisations[organisation].sources.push(new);
            }
        }
        for organisation in &mut self.state.organisations {
            organisation.sources.retain(|source| !source.pruned || kept.contains(&source.id));
        }
    }

    fn provision_dashboards(&mut self, files: &[Value], root: &Path) {
        for provider in files.iter().flat_map(|file| file["providers"].as_array().unwrap()) {
            expect_keys(provider, &PROVIDER_KEYS);
            let provider = &expanded(provider);
            assert_eq!(provider["type"], "file");
            let name = text(&provider["name"]);
            let organisation = self.number_of(&provider["orgId"]);
            let folder =
                self.provisioned_folder(organisation, &text(&provider["folder"]), &text(&provider["folderUid"]));
            let mut found = BTreeMap::new();
            // The path of the files for this double.
            let path = text(&provider["options"]["path"]);
            let path =
                path.strip_prefix("/etc/grafana/provisioning/").map_or_else(|| path.clone().into(), |p| root.join(p));
            for file in std::fs::read_dir(path).into_iter().flatten().flatten() {
                if file.path().extension().is_some_and(|ending| ending == "json") {
                    let content: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
                    found.insert(text(&content["uid"]), content);
                }
            }
            let keeps = provider["disableDeletion"] == true;
            let dashboards = &mut self.state.organisations[organisation].dashboards;
            let is_lost = |dashboard: &StoredDashboard| {
                dashboard.provider.as_ref() == Some(&name) && !found.contains_key(&dashboard.uid)
            };
            if keeps {
                for dashboard in dashboards.iter_mut().filter(|dashboard| is_lost(dashboard)) {
                    (dashboard.provisioned, dashboard.provider) = (false, None);
                }
            } else {
                dashboards.retain(|dashboard| !is_lost(dashboard));
            }
            for (uid, content) in found {
                let id = self.new_id();
                let dashboards = &mut self.state.organisations[organisation].dashboards;
                let before = dashboards.iter().position(|dashboard| dashboard.uid == uid);
                let before = before.map(|index| dashboards.remove(index));
                let mut messages = before.as_ref().map(|before| before.messages.clone()).unwrap_or_default();
                messages.push(String::new());
                dashboards.push(StoredDashboard {
                    id: before.map_or(id, |before| before.id),
                    uid,
                    content,
                    folder: folder.clone(),
                    messages,
                    updated: 0,
                    provisioned: true,
                    provider: Some(name.clone()),
                    v2: None,
                });
            }
        }
    }

    fn provision_rules(&mut self, files: &[Value]) {
        for file in files {
            expect_keys(file, &["apiVersion", "groups", "deleteRules"]);
            for delete in file["deleteRules"].as_array().into_iter().flatten() {
                expect_keys(delete, &["orgId", "uid"]);
                let organisation = self.number_of(&delete["orgId"]);
                let is_it = |rule: &Value| rule["uid"] == delete["uid"];
                let rules = &mut self.state.organisations[organisation].rules;
                // With a rule of another origin, Grafana would not start.
                let found = rules.iter().find(|rule| is_it(rule)).map(|rule| text(&rule["provenance"]));
                assert!(found.is_none_or(|origin| matches!(origin.as_str(), "" | "file")), "{delete}");
                rules.retain(|rule| !is_it(rule));
            }
        }
        for group in files.iter().flat_map(|file| file["groups"].as_array().into_iter().flatten()) {
            expect_keys(group, &["orgId", "name", "folder", "interval", "rules"]);
            let organisation = self.number_of(&group["orgId"]);
            let folder = self.provisioned_folder(organisation, &text(&group["folder"]), "");
            for rule in group["rules"].as_array().unwrap() {
                expect_keys(rule, &RULE_KEYS);
                let mut body = json!({
                    "folderUID": folder, "ruleGroup": group["name"], "orgID": group["orgId"], "provenance": "file",
                });
                for (name, value) in rule.as_object().unwrap() {
                    let raw = matches!(name.as_str(), "annotations" | "data");
                    body[name] = if raw { value.clone() } else { expanded(value) };
                }
                self.state.organisations[organisation].rules.retain(|rule| rule["uid"] != body["uid"]);
                self.state.organisations[organisation].rules.push(body);
            }
        }
    }

    /// The index of an organisation in the list.
    fn number_of(&self, id: &Value) -> usize {
        let found = self.state.organisations.iter().position(|organisation| json!(organisation.id) == *id);
        found.unwrap_or_else(|| panic!("organisation {id} does not exist"))
    }

    fn provisioned_folder(&mut self, organisation: usize, title: &str, uid: &str) -> Option<String> {
        if title.is_empty() {
            return None;
        }
        let known = |folder: &&Folder| if uid.is_empty() { folder.title == title } else { folder.uid == uid };
        if let Some(folder) = self.state.organisations[organisation].folders.iter().find(known) {
            return Some(folder.uid.clone());
        }
        let id = self.new_id();
        let uid = if uid.is_empty() { format!("generated{id}") } else { uid.to_string() };
        let new = Folder { id, uid: uid.clone(), title: title.into(), nested: false };
        self.state.organisations[organisation].folders.push(new);
        Some(uid)
    }
}
