//! Finds, saves and deletes dashboards and folders without replacing objects of other owners.

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::{Api, Grafana, dashboard, foreign, moved, or_unreadable, path, text, user_dashboard};
use crate::digest::fingerprint;
use crate::error::{Error, Result};
use crate::http::escaped;
use crate::model::observed::{DashboardState, FolderState};
use crate::model::stack::{DashboardId, Stack};

/// Before this version, a folder and its dashboards must have different titles; for untested
/// versions in between, the answer to a save decides.
const TITLES_CLASH_BEFORE: u64 = 10;

/// From this version on, the content of a folder is listed by the folder's uid.
const FOLDERS_BY_UID: u64 = 11;
/// The first version with library panels.
const LIBRARY_PANELS_FROM: u64 = 8;

impl Grafana {
    /// The states of the stack's dashboards.
    pub(super) async fn seen_dashboards(&self, stack: &Stack) -> Result<Vec<DashboardState>> {
        let look = async |id| or_unreadable(self.seen_dashboard(stack, id).await, DashboardState::Unreadable);
        try_join_all(stack.dashboards().map(look)).await
    }

    pub(crate) async fn seen_dashboard(&self, stack: &Stack, id: DashboardId) -> Result<DashboardState> {
        let (uid, ..) = stack.dashboard_identity(id);
        let found = self.dashboard(uid).await?;
        self.judge_dashboard(stack, id, found.as_ref()).await
    }

    /// The state of a dashboard: the object with its uid or, if there is none, another object in its place.
    pub(super) async fn judge_dashboard(
        &self,
        stack: &Stack,
        id: DashboardId,
        found: Option<&Value>,
    ) -> Result<DashboardState> {
        let (uid, ..) = stack.dashboard_identity(id);
        let Some(found) = found else {
            let clash = self.clash(stack, id).await?;
            return Ok(clash.map_or(DashboardState::Missing, |(what, has_uid)| DashboardState::Clash { what, has_uid }));
        };
        if found["meta"]["isFolder"] == true {
            let what = folder_with_uid(&text(&found["dashboard"]["title"]), uid);
            return Ok(DashboardState::Clash { what, has_uid: true });
        }
        let is_ours = match id {
            DashboardId::Bundled => dashboard::is_ours(&found["dashboard"]),
            DashboardId::User(_) => user_dashboard::owner(&found["dashboard"]) == Some(&stack.instance),
        };
        if !is_ours {
            let what = format!("a dashboard called {:?} with the uid {uid:?}", text(&found["dashboard"]["title"]));
            let provisioned = if found["meta"]["provisioned"] == true { ", which a file provides" } else { "" };
            return Ok(DashboardState::Clash { what: format!("{what}{provisioned}"), has_uid: true });
        }
        Ok(DashboardState::Present(dashboard::stored(found)))
    }

    /// An object that has the uid or the title of a missing dashboard, and whether it has the uid.
    async fn clash(&self, stack: &Stack, id: DashboardId) -> Result<Option<(String, bool)>> {
        let (uid, title, _) = stack.dashboard_identity(id);
        if !self.is_before(TITLES_CLASH_BEFORE) {
            let folder = self.get("look for a folder of that uid", &path(&["api", "folders", uid])).await?;
            return Ok(folder.map(|folder| (folder_with_uid(&text(&folder["title"]), uid), true)));
        }
        let folder = match &stack.folder {
            Some(title) => self.folder(title).await?,
            None => None,
        };
        if stack.folder.is_some() && folder.is_none() {
            // A new folder is empty.
            return Ok(None);
        }
        let folder = folder.map(|folder| text(&folder["uid"]));
        let found = self.search().await?;
        let slug = slug(title);
        let namesake = found.iter().find(|entry| {
            let is_folder = entry["type"] == "dash-folder";
            let in_folder = entry["folderUid"].as_str().filter(|uid| !uid.is_empty()).map(String::from);
            let clashes = if is_folder { folder.is_none() } else { in_folder == folder };
            clashes && entry["uid"] != uid && self::slug(&text(&entry["title"])) == slug
        });
        Ok(namesake.map(|entry| {
            let kind = if entry["type"] == "dash-folder" { "folder" } else { "dashboard" };
            (format!("a {kind} called {:?} with the uid {:?}", text(&entry["title"]), text(&entry["uid"])), false)
        }))
    }

    /// Folders and dashboards of the organisation.
    async fn search(&self) -> Result<Vec<Value>> {
        let doing = "look for dashboards of that title";
        let list = self.get(doing, "/api/search?limit=5000").await?;
        list.and_then(|list| list.as_array().cloned()).ok_or_else(|| self.odd(doing))
    }

    /// The dashboard with that uid, with Grafana's metadata.
    pub(super) async fn dashboard(&self, uid: &str) -> Result<Option<Value>> {
        match self.get("read the dashboard", &path(&["api", "dashboards", "uid", uid])).await {
            Err(refused @ Error::Answer { status: 406, .. }) => self.dashboard_v2(uid).await?.map(Some).ok_or(refused),
            found => found,
        }
    }

    /// Creates or updates a dashboard. An existing one stays in its folder, and is replaced only if
    /// it has not changed since it was read: with Grafana's `overwrite`, a dashboard of the same
    /// title could be replaced. On a `fresh` server nothing is read first, and Grafana itself
    /// refuses to replace existing objects.
    ///
    /// # Errors
    /// [`Error::Foreign`] if another owner's object is in its place, [`Error::Raced`] if another
    /// process changed it meanwhile, otherwise an error from the server.
    pub async fn save_dashboard(
        &self,
        stack: &Stack,
        id: DashboardId,
        overwrite: bool,
        fresh: bool,
        moves: bool,
    ) -> Result<()> {
        let doing = "save the dashboard";
        let present = if fresh { None } else { self.expect_no_clash(stack, id).await? };
        let carried = present.as_ref().map(dashboard::stored);
        if carried.as_ref().is_some_and(|seen| seen.provisioned || (seen.edited && !overwrite)) {
            // Another process saved or provisioned it in the meantime.
            return Ok(());
        }
        let made_for = carried.as_ref().and_then(|seen| seen.made_for.as_ref());
        if let Some(other) = made_for.filter(|made_for| !made_for.is_same(&stack.data_source.made_for()) && !moves) {
            return Err(moved(doing, other));
        }
        let source = &stack.data_source;
        let mut content = match id {
            DashboardId::Bundled => dashboard::render(&stack.dashboard, source, carried.as_ref(), self.api()),
            DashboardId::User(index) => {
                user_dashboard::render(&stack.user_dashboards[index], &stack.instance, source, self.api())
            }
        };
        let mut body = json!({"overwrite": false, "message": "clipper-metrics"});
        match (&present, &stack.folder) {
            (Some(json), _) => {
                content["version"] = json["meta"]["version"].clone();
                content["id"] = json["dashboard"]["id"].clone();
                match self.api() {
                    Api::Uid => body["folderUid"] = json["meta"]["folderUid"].clone(),
                    Api::Numeric => body["folderId"] = json["meta"]["folderId"].clone(),
                }
            }
            (None, Some(title)) => {
                if let Some(folder) = self.folder(title).await? {
                    match self.api() {
                        Api::Uid => body["folderUid"] = folder["uid"].clone(),
                        Api::Numeric => body["folderId"] = folder["id"].clone(),
                    }
                }
            }
            (None, None) => {}
        }
        let replaced = present.as_ref().map(|json| &json["meta"]["version"]);
        dashboard::note_save(&mut content, replaced, jiff::Timestamp::now());
        body["dashboard"] = content;
        let answer = self.send(doing, "POST", "/api/dashboards/db", Some(&body)).await?;
        match answer.status {
            // A title that is taken stays taken.
            412 if !fresh && answer.json()["status"] == "name-exists" => {
                let (_, title, _) = stack.dashboard_identity(id);
                Err(foreign(&format!("another dashboard called {title:?} in the same folder")))
            }
            // On a new server nothing was read first, so the next observation finds the conflicting object.
            400..=499 if fresh && answer.status != 403 => {
                Err(Error::Raced { doing: doing.into(), why: answer.message() })
            }
            409 | 412 => Err(Error::Raced { doing: doing.into(), why: answer.message() }),
            _ => {
                self.expect_success(doing, &answer)?;
                self.note_what_was_stored(doing, body, &answer.json()).await
            }
        }
    }

    /// If Grafana changed a dashboard while storing it, saves it again with the fingerprint of the stored content. Changes
    /// by another save in the meantime are kept, and count as an edit.
    async fn note_what_was_stored(&self, doing: &str, mut body: Value, saved: &Value) -> Result<()> {
        let uid = text(&body["dashboard"]["uid"]);
        let Some(found) = self.dashboard(&uid).await? else { return Ok(()) };
        let is_same = found["dashboard"]["version"] == saved["version"];
        if !is_same || !dashboard::note_changes(&found["dashboard"], &mut body["dashboard"]) {
            return Ok(());
        }
        (body["dashboard"]["id"], body["dashboard"]["version"]) = (saved["id"].clone(), saved["version"].clone());
        let answer = self.send(doing, "POST", "/api/dashboards/db", Some(&body)).await?;
        if matches!(answer.status, 409 | 412) { Ok(()) } else { self.expect_success(doing, &answer) }
    }

    /// The state of the stack's folder.
    pub(super) async fn seen_folder(&self, stack: &Stack) -> Result<FolderState> {
        let Some(title) = &stack.folder else { return Ok(FolderState::NotWanted) };
        let look = async {
            if self.folder(title).await?.is_some() {
                return Ok(FolderState::Present);
            }
            Ok(if self.is_title_taken(title).await? { FolderState::TitleTaken } else { FolderState::Missing })
        };
        or_unreadable(look.await, FolderState::Unreadable)
    }

    /// Whether a dashboard has the title, and this version allows no folder with the same title.
    pub(super) async fn is_title_taken(&self, title: &str) -> Result<bool> {
        if !self.is_before(TITLES_CLASH_BEFORE) {
            return Ok(false);
        }
        let slug = slug(title);
        Ok(self.search().await?.iter().any(|entry| {
            entry["type"] == "dash-db"
                && entry["folderUid"].as_str().is_none_or(str::is_empty)
                && self::slug(&text(&entry["title"])) == slug
        }))
    }

    /// Creates the folder unless it exists, under a uid of its own: the instance's name is the dashboard's uid.
    ///
    /// # Errors
    /// [`Error::Foreign`] if another owner's object is in the place of a later step, otherwise an
    /// error from the server.
    pub async fn create_folder(&self, stack: &Stack) -> Result<()> {
        let title = stack.folder.as_deref().unwrap_or_default();
        if self.folder(title).await?.is_some() {
            return Ok(());
        }
        self.expect_no_clash(stack, DashboardId::Bundled).await?;
        self.ensure_folder(&stack.instance, title).await
    }

    /// Creates a folder with that title unless it exists.
    pub(super) async fn ensure_folder(&self, instance: &str, title: &str) -> Result<()> {
        if self.folder(title).await?.is_some() {
            return Ok(());
        }
        let doing = "create the folder";
        let body = json!({"title": title, "uid": folder_uid(instance, title)});
        let answer = self.send(doing, "POST", "/api/folders", Some(&body)).await?;
        match answer.status {
            // Another process created it at the same time, or a user renamed the earlier one.
            409 | 412 if self.folder(title).await?.is_some() => Ok(()),
            409 | 412 => {
                let answer = self.send(doing, "POST", "/api/folders", Some(&json!({"title": title}))).await?;
                self.expect_success(doing, &answer)
            }
            _ => self.expect_success(doing, &answer),
        }
    }

    /// Deletes an unedited dashboard; one that was edited meanwhile is kept.
    ///
    /// # Errors
    /// An error from the server.
    pub async fn delete_dashboard(&self, stack: &Stack, id: DashboardId) -> Result<()> {
        let DashboardState::Present(seen) = self.seen_dashboard(stack, id).await? else { return Ok(()) };
        let is_other = seen.made_for.is_some_and(|made_for| !made_for.is_same(&stack.data_source.made_for()));
        if seen.edited || seen.provisioned || is_other {
            return Ok(());
        }
        let (uid, ..) = stack.dashboard_identity(id);
        self.delete("delete the dashboard", &path(&["api", "dashboards", "uid", uid])).await
    }

    /// Deletes the folder that was created for the dashboard, if it is empty.
    ///
    /// # Errors
    /// An error from the server.
    pub async fn delete_folder(&self, stack: &Stack) -> Result<()> {
        let Some(title) = &stack.folder else { return Ok(()) };
        match self.own_folder(&stack.instance, title).await? {
            Some(folder) => self.delete_if_empty(&folder).await,
            None => Ok(()),
        }
    }

    /// The folder with that title, if it was created for the instance.
    pub(super) async fn own_folder(&self, instance: &str, title: &str) -> Result<Option<Value>> {
        let own = folder_uid(instance, title);
        Ok(self.folder(title).await?.filter(|folder| folder["uid"] == own.as_str()))
    }

    /// Deletes a folder if it is empty.
    pub(super) async fn delete_if_empty(&self, folder: &Value) -> Result<()> {
        if !self.is_empty_folder(folder).await? {
            return Ok(());
        }
        self.delete("delete the folder", &path(&["api", "folders", &text(&folder["uid"])])).await
    }

    /// Whether the folder contains neither dashboards nor library panels; if that cannot be read,
    /// it counts as not empty. Grafana itself keeps folders with alert rules.
    async fn is_empty_folder(&self, folder: &Value) -> Result<bool> {
        let (id, uid) = (folder["id"].to_string(), escaped(&text(&folder["uid"])));
        let has_uids = !self.is_before(FOLDERS_BY_UID);
        let found = if has_uids {
            format!("/api/search?limit=1&folderUIDs={uid}")
        } else {
            format!("/api/search?limit=1&folderIds={id}")
        };
        let doing = "look into the folder";
        let inside = self.get(doing, &found).await?;
        if inside.as_ref().and_then(Value::as_array).is_none_or(|list| !list.is_empty()) {
            return Ok(false);
        }
        if self.is_before(LIBRARY_PANELS_FROM) {
            return Ok(true);
        }
        let filter = if has_uids { format!("folderFilterUIDs={uid}") } else { format!("folderFilter={id}") };
        let library = self.get(doing, &format!("/api/library-elements?perPage=1&{filter}")).await?;
        Ok(library.is_some_and(|library| library["result"]["totalCount"] == 0))
    }

    /// The folder with that title.
    pub(super) async fn folder(&self, title: &str) -> Result<Option<Value>> {
        let folders = self.get("list the folders", "/api/folders?limit=1000").await?.unwrap_or_default();
        Ok(folders.as_array().into_iter().flatten().find(|folder| folder["title"] == title).cloned())
    }
}

/// The uid of a folder created for an instance's dashboard.
fn folder_uid(instance: &str, title: &str) -> String {
    format!("folder-{}", fingerprint(format!("{instance} {title}").as_bytes()))
}

fn folder_with_uid(title: &str, uid: &str) -> String {
    format!("a folder called {title:?} with the uid {uid:?}, which the dashboard needs")
}

/// The form in which versions that compare titles store one.
fn slug(title: &str) -> String {
    let lower = title.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}
