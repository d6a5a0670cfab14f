//! Dashboards, folders, stars and home pages. Before 12, folders and dashboards share uids and titles.

use serde_json::{Value, json};

use super::{Double, Folder, StoredDashboard, Version, Who, answer, merge, slug, text};
use crate::support::server::Response;

impl Double {
    pub(super) fn save_dashboard(&mut self, who: &Who, organisation: usize, body: Option<Value>) -> Response {
        if !who.may_edit() {
            return self.as_recorded("save dashboard as a viewer");
        }
        let Some(body) = body else { return self.as_recorded("save dashboard, body not JSON") };
        let mut content = body["dashboard"].clone();
        if !content.is_object() {
            return self.as_recorded("save dashboard, empty body");
        }
        if self.version == Version::V13 && content["elements"].is_object() {
            return Response::json(400, &json!({"message": "the dashboard is of another API version"}));
        }
        let title = text(&content["title"]);
        if title.is_empty() {
            if self.version == Version::V13 {
                let message = "Dashboard spec is missing required title property";
                return Response::json(400, &json!({"message": message}));
            }
            return self.as_recorded("save dashboard, no title");
        }
        let folder = match self.folder_of(organisation, &body) {
            Ok(folder) => folder,
            Err(response) => return response,
        };
        let overwrite = body["overwrite"] == true;
        let org = &self.state.organisations[organisation];
        let mut uid = match text(&content["uid"]) {
            uid if uid.is_empty() => format!("generated{}", self.state.next_id),
            uid => uid,
        };
        if self.version < Version::V12_4 && org.folders.iter().any(|folder| folder.uid == uid) {
            // Folders and dashboards share their uids.
            return self.with_uid("save a dashboard with the uid of a folder", "shared-uid", &uid);
        }
        let mut present = org.dashboards.iter().position(|dashboard| dashboard.uid == uid);
        if let Some(index) = present {
            if org.dashboards[index].provisioned {
                return self.as_recorded("save over the provisioned dashboard");
            }
            let version = org.dashboards[index].messages.len() as u64;
            if !overwrite && content["version"].as_u64() != Some(version) {
                return if self.version == Version::V13 {
                    Response::json(409, &json!({"message": "Dashboard already exists. Use overwrite flag to update."}))
                } else {
                    self.as_recorded("save dashboard again without overwrite")
                };
            }
        }
        if self.version < Version::V12 {
            let taken = |other: &str| slug(other) == slug(&title);
            // From the source of 7.5 and 9.4: of all folders, whatever folder the dashboard goes into.
            if org.folders.iter().any(|folder| taken(&folder.title)) {
                return self.as_recorded("save a dashboard with the title of a folder");
            }
            let namesake = org
                .dashboards
                .iter()
                .position(|other| other.uid != uid && taken(&text(&other.content["title"])) && other.folder == folder);
            match namesake {
                Some(_) if !overwrite => return self.as_recorded("save another with the same title"),
                // The save replaces the dashboard of that title, even of another owner.
                Some(index) => {
                    uid.clone_from(&org.dashboards[index].uid);
                    present = Some(index);
                }
                None => {}
            }
        }
        if let Some(fields) = content.as_object_mut() {
            fields.remove("id");
            fields.remove("version");
            fields.insert("uid".into(), json!(uid));
        }
        // Measured: a refresh interval below the minimum is stored as the minimum. From the source: 13.1 refuses it.
        let refresh = content["refresh"].as_str().and_then(|refresh| humantime::parse_duration(refresh).ok());
        if refresh.is_some_and(|refresh| refresh.as_secs() < self.min_refresh) {
            if self.version == Version::V13 {
                return Response::json(400, &json!({"message": "Dashboard refresh interval is too low"}));
            }
            content["refresh"] = json!(format!("{}s", self.min_refresh));
        }
        let (message, updated) = (text(&body["message"]), self.second());
        let (id, version) = if let Some(index) = present {
            let dashboard = &mut self.state.organisations[organisation].dashboards[index];
            dashboard.content = content;
            dashboard.v2 = None;
            dashboard.folder.clone_from(&folder);
            dashboard.messages.push(message);
            dashboard.updated = updated;
            (dashboard.id, dashboard.messages.len())
        } else {
            let id = self.new_id();
            let new = StoredDashboard {
                id,
                uid: uid.clone(),
                content,
                folder: folder.clone(),
                messages: vec![message],
                updated,
                provisioned: false,
                provider: None,
                v2: None,
            };
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

    /// The folder of a save: by number in every version, by uid from 9 on.
    pub(super) fn folder_of(&self, organisation: usize, body: &Value) -> Result<Option<String>, Response> {
        let folders = &self.state.organisations[organisation].folders;
        if let Some(id) = body["folderId"].as_u64().filter(|id| *id > 0) {
            return Ok(folders.iter().find(|folder| folder.id == id).map(|folder| folder.uid.clone()));
        }
        match text(&body["folderUid"]) {
            uid if uid.is_empty() || self.version == Version::V7 => Ok(None),
            uid if folders.iter().any(|folder| folder.uid == uid) || self.version == Version::V13 => Ok(Some(uid)),
            _ => Err(self.as_recorded("save dashboard into an absent folder")),
        }
    }

    pub(super) fn import(&mut self, organisation: usize, body: Option<Value>) -> Response {
        let content = body.unwrap_or_default()["dashboard"].clone();
        let (uid, title) = (text(&content["uid"]), text(&content["title"]));
        let id = self.new_id();
        let (messages, updated) = (vec![String::new()], self.second());
        self.state.organisations[organisation].dashboards.push(StoredDashboard {
            id,
            uid,
            content,
            folder: None,
            messages,
            updated,
            provisioned: false,
            provider: None,
            v2: None,
        });
        self.with("import dashboard with inputs", &[("dashboardId", json!(id)), ("title", json!(title))])
    }

    /// As `PUT /apis/dashboard.grafana.app/v2beta1/…` does.
    pub(super) fn save_v2(&mut self, uid: &str) {
        let org = &mut self.state.organisations[0];
        let dashboard = org.dashboards.iter_mut().find(|dashboard| dashboard.uid == uid).unwrap();
        dashboard.messages.push(String::new());
        let list = dashboard.content["templating"]["list"].as_array().cloned().unwrap_or_default();
        let variables = list.iter().map(|variable| {
            let kind = if variable["type"] == "constant" { "ConstantVariable" } else { "QueryVariable" };
            json!({"kind": kind, "spec": {"name": variable["name"], "query": variable["query"]}})
        });
        let spec = json!({
            "title": dashboard.content["title"], "variables": variables.collect::<Vec<_>>(), "elements": {},
            "layout": {"kind": "GridLayout", "spec": {"items": []}},
        });
        dashboard.v2 = Some(spec);
    }

    pub(super) fn dashboard_v2(&self, organisation: usize, namespace: &str, uid: &str) -> Response {
        let org = &self.state.organisations[organisation];
        let own = if org.id == 1 { "default".to_string() } else { format!("org-{}", org.id) };
        let found = org.dashboards.iter().find(|dashboard| dashboard.uid == uid && namespace == own);
        let Some((dashboard, spec)) = found.and_then(|found| Some((found, found.v2.as_ref()?))) else {
            return Response::json(404, &json!({"kind": "Status", "status": "Failure", "code": 404}));
        };
        let metadata = json!({
            "name": uid, "namespace": own, "generation": dashboard.messages.len(),
            "labels": {"grafana.app/deprecatedInternalID": dashboard.id.to_string()},
            "annotations": {"grafana.app/folder": dashboard.folder.clone().unwrap_or_default()},
        });
        let api = "dashboard.grafana.app/v2beta1";
        Response::json(200, &json!({"kind": "Dashboard", "apiVersion": api, "metadata": metadata, "spec": spec}))
    }

    /// As documented for `status.conversion` of a dashboard in the classic schema.
    pub(super) fn dashboard_v1(&self, organisation: usize, uid: &str) -> Response {
        let found = self.state.organisations[organisation].dashboards.iter().find(|dashboard| dashboard.uid == uid);
        let stored = if found.is_some_and(|found| found.v2.is_some()) { "v2beta1" } else { "v0alpha1" };
        let mut recorded = self.like("dashboard through /apis");
        if self.version < Version::V12 {
            return answer(recorded.status, &recorded.body);
        }
        recorded.body["status"] = json!({"conversion": {"failed": false, "storedVersion": stored}});
        answer(recorded.status, &recorded.body)
    }

    pub(super) fn dashboard(&self, organisation: usize, uid: &str) -> Response {
        let org = &self.state.organisations[organisation];
        let folder = org.folders.iter().find(|folder| folder.uid == uid);
        if let Some(folder) = folder.filter(|_| self.version < Version::V12) {
            return self.folder_as_dashboard(folder);
        }
        let Some(dashboard) = org.dashboards.iter().find(|dashboard| dashboard.uid == uid) else {
            return self.as_recorded("dashboard by uid, absent");
        };
        if dashboard.v2.is_some() && self.version < Version::V12_4 {
            // The wording comes from its source.
            let namespace = if org.id == 1 { "default".to_string() } else { format!("org-{}", org.id) };
            let place = format!("/apis/dashboard.grafana.app/v2beta1/namespaces/{namespace}/dashboards/{uid}");
            let message = format!("dashboard api version not supported, use {place} instead");
            return Response::json(406, &json!({"message": message}));
        }
        let folder = dashboard.folder.as_ref().and_then(|uid| org.folders.iter().find(|folder| folder.uid == *uid));
        let step = match (folder, dashboard.provisioned) {
            (_, true) => "the provisioned dashboard",
            (Some(_), false) => "dashboard in a folder",
            (None, false) => "dashboard by uid",
        };
        let mut recorded = self.like(step);
        let version = dashboard.messages.len();
        let slug = slug(&text(&dashboard.content["title"]));
        let meta = &mut recorded.body["meta"];
        if dashboard.updated > 0 {
            let updated = jiff::Timestamp::from_second(i64::try_from(dashboard.updated).unwrap()).unwrap();
            meta["updated"] = json!(updated.to_string());
        }
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
        if dashboard.v2.is_some() {
            // From the source of 12.4: it is converted, and has no unknown keys.
            let known = |key: &str| ["uid", "title", "templating", "schemaVersion"].contains(&key);
            content.as_object_mut().unwrap().retain(|key, _| known(key));
            content["panels"] = json!([]);
        }
        content["id"] = json!(dashboard.id);
        content["version"] = json!(version);
        recorded.body["dashboard"] = content;
        answer(recorded.status, &recorded.body)
    }

    /// Before 12, a folder is a kind of dashboard.
    pub(super) fn folder_as_dashboard(&self, folder: &Folder) -> Response {
        let mut recorded = self.like("dashboard by that uid: it is the folder");
        let slug = slug(&folder.title);
        let url = format!("/dashboards/f/{}/{slug}", folder.uid);
        merge(&mut recorded.body["meta"], &[("slug", json!(slug)), ("url", json!(url))]);
        let fields = [("id", json!(folder.id)), ("title", json!(folder.title)), ("uid", json!(folder.uid))];
        merge(&mut recorded.body["dashboard"], &fields);
        answer(recorded.status, &recorded.body)
    }

    /// A recorded answer with another uid in its texts.
    pub(super) fn with_uid(&self, step: &str, recorded_uid: &str, uid: &str) -> Response {
        let recorded = self.like(step);
        let message = text(&recorded.body["message"]).replace(recorded_uid, uid);
        self.with(step, &[("message", json!(message))])
    }

    pub(super) fn delete_dashboard(&mut self, organisation: usize, uid: &str) -> Response {
        let dashboards = &mut self.state.organisations[organisation].dashboards;
        let Some(index) = dashboards.iter().position(|dashboard| dashboard.uid == uid) else {
            return self.as_recorded("delete dashboard by uid again");
        };
        let dashboard = dashboards.remove(index);
        let org = &mut self.state.organisations[organisation];
        org.home = org.home.take().filter(|home| home != uid);
        let title = text(&dashboard.content["title"]);
        let mut fields = vec![("title", json!(title)), ("message", json!(format!("Dashboard {title} deleted")))];
        if self.version >= Version::V12 {
            fields.push(("uid", json!(uid)));
        }
        self.with("delete dashboard by uid", &fields)
    }

    pub(super) fn versions(&self, organisation: usize, uid: &str, step: &str) -> Response {
        let recorded = self.like(step);
        if recorded.status != 200 {
            return answer(recorded.status, &recorded.body);
        }
        let dashboards = &self.state.organisations[organisation].dashboards;
        let Some(dashboard) = dashboards.iter().find(|dashboard| dashboard.uid == uid) else {
            return self.as_recorded("dashboard by uid, absent");
        };
        let templates = recorded.body.get("versions").unwrap_or(&recorded.body).as_array().unwrap();
        let (first, later) = (templates.last().unwrap(), &templates[0]);
        let list: Vec<Value> = (1..=dashboard.messages.len())
            .rev()
            .map(|version| {
                let mut item = if version == 1 { first.clone() } else { later.clone() };
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

    pub(super) fn search(&self, organisation: usize, query: &str) -> Response {
        let org = &self.state.organisations[organisation];
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let (by_tag, by_uid, by_type) = (value("tag"), value("dashboardUIDs"), value("type"));
        let in_folder = value("folderUIDs").or_else(|| value("folderIds"));
        let is_inside = |dashboard: &StoredDashboard| {
            let folder = org.folders.iter().find(|folder| Some(&folder.uid) == dashboard.folder.as_ref());
            in_folder.is_none_or(|wanted| {
                folder.is_some_and(|folder| folder.uid == wanted || folder.id.to_string() == wanted)
            })
        };
        let step = if by_tag.is_some() { "search by tag" } else { "search by uid" };
        let dashboard_item = self.like(step).body[0].clone();
        let folder_item = self.like("search").body[0].clone();
        let mut list = Vec::new();
        let lists_folders = by_tag.is_none() && by_type != Some("dash-db") && in_folder.is_none();
        for folder in org.folders.iter().filter(|_| lists_folders) {
            let slug = slug(&folder.title);
            let url = format!("/dashboards/f/{}/{slug}", folder.uid);
            let mut item = folder_item.clone();
            merge(
                &mut item,
                &[
                    ("id", json!(folder.id)),
                    ("uid", json!(folder.uid)),
                    ("title", json!(folder.title)),
                    ("uri", json!(format!("db/{slug}"))),
                    ("url", json!(url)),
                ],
            );
            list.push(item);
        }
        let mut dashboards: Vec<&StoredDashboard> = org.dashboards.iter().collect();
        dashboards.sort_by_key(|dashboard| text(&dashboard.content["title"]));
        for dashboard in dashboards {
            let tags = dashboard.content["tags"].as_array().cloned().unwrap_or_default();
            let tagged = |tag: &str| tags.contains(&json!(tag));
            let is_it = by_uid.is_none_or(|uid| self.version == Version::V7 || dashboard.uid == uid);
            if !by_tag.is_none_or(tagged) || !is_it || !is_inside(dashboard) {
                continue;
            }
            let title = text(&dashboard.content["title"]);
            let slug = slug(&title);
            let mut item = dashboard_item.clone();
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
            if by_uid.is_none() {
                item["tags"] = json!(tags);
            }
            let description = &dashboard.content["description"];
            if self.version >= Version::V12_4 && description.is_string() {
                item["description"] = description.clone();
            }
            let folder = dashboard.folder.as_ref().and_then(|uid| org.folders.iter().find(|folder| folder.uid == *uid));
            if let Some(folder) = folder {
                let url = format!("/dashboards/f/{}/{}", folder.uid, self::slug(&folder.title));
                item["folderId"] = json!(folder.id);
                item["folderUid"] = json!(folder.uid);
                item["folderTitle"] = json!(folder.title);
                item["folderUrl"] = json!(url);
            }
            list.push(item);
        }
        Response::json(200, &json!(list))
    }

    pub(super) fn star(&mut self, who: &Who, organisation: usize, uid: &str) -> Response {
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

    pub(super) fn preferences(&self, who: &Who, organisation: usize) -> Response {
        if !who.may_administer() {
            return self.as_recorded("preferences as an editor");
        }
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

    pub(super) fn set_preferences(
        &mut self,
        who: &Who,
        method: &str,
        organisation: usize,
        body: Option<Value>,
    ) -> Response {
        if !who.may_administer() {
            let step =
                if who.role == "Editor" { "home page as an editor" } else { "home dashboard by uid as a viewer" };
            return self.as_recorded(step);
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

    pub(super) fn folders(&self, organisation: usize, query: &str) -> Response {
        let template = self.like("folders").body[0].clone();
        let number = |name: &str| {
            let fields = query.split('&').filter_map(|field| field.split_once('='));
            fields.filter(|(field, _)| *field == name).find_map(|(_, value)| value.parse::<usize>().ok())
        };
        let (limit, page) = (number("limit").unwrap_or(1_000), number("page").unwrap_or(1));
        let list: Vec<Value> = self.state.organisations[organisation]
            .folders
            .iter()
            // As documented from 11 on: without a parent, it lists the root only.
            .filter(|folder| !folder.nested)
            .skip(limit * (page - 1))
            .take(limit)
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

    pub(super) fn folder_answer(&self, step: &str, folder: &Folder) -> Response {
        let url = format!("/dashboards/f/{}/{}", folder.uid, slug(&folder.title));
        let fields = [
            ("id", json!(folder.id)),
            ("uid", json!(folder.uid)),
            ("title", json!(folder.title)),
            ("url", json!(url)),
            ("canDelete", json!(false)),
        ];
        // The last one is the recorded one unless the account lacks the right.
        let lacks_right = self.folder_refusal == Some(403);
        self.with(step, if lacks_right { &fields } else { &fields[..4] })
    }

    pub(super) fn create_folder(&mut self, who: &Who, organisation: usize, body: Option<Value>) -> Response {
        if !who.may_edit() {
            return self.as_recorded("save dashboard as a viewer");
        }
        let body = body.unwrap_or_default();
        let id = self.state.next_id;
        let uid = match text(&body["uid"]) {
            uid if uid.is_empty() => format!("folder{id}"),
            uid => uid,
        };
        if self.state.organisations[organisation].folders.iter().any(|folder| folder.uid == uid) {
            return self.as_recorded("create folder again");
        }
        let org = &self.state.organisations[organisation];
        let title = slug(&text(&body["title"]));
        let clash = |other: &StoredDashboard| other.folder.is_none() && slug(&text(&other.content["title"])) == title;
        if self.version < Version::V12 && org.dashboards.iter().any(clash) {
            return self.as_recorded("create a folder with the title of a dashboard");
        }
        if org.dashboards.iter().any(|other| other.uid == uid) {
            return self.as_recorded("create folder again");
        }
        let folder = Folder { id: self.new_id(), uid, title: text(&body["title"]), nested: false };
        self.state.organisations[organisation].folders.push(folder.clone());
        let step = if who.role == "Editor" { "create folder as an editor" } else { "create folder" };
        self.folder_answer(step, &folder)
    }

    /// Removes a folder with everything in it.
    pub(super) fn delete_folder(&mut self, organisation: usize, uid: &str) -> Response {
        let org = &mut self.state.organisations[organisation];
        let Some(index) = org.folders.iter().position(|folder| folder.uid == uid) else {
            return self.as_recorded("folder by uid, absent");
        };
        let folder = org.folders.remove(index);
        org.dashboards.retain(|dashboard| dashboard.folder.as_deref() != Some(uid));
        let recorded = self.like("delete a folder that holds nothing");
        if self.version > Version::V7 {
            return answer(recorded.status, &recorded.body);
        }
        let message = format!("Folder {} deleted", folder.title);
        let fields = [("id", json!(folder.id)), ("title", json!(folder.title)), ("message", json!(message))];
        self.with("delete a folder that holds nothing", &fields)
    }
}
