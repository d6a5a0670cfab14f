//! Finds, saves and deletes dashboards and folders without replacing objects of other owners.

use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::{Value, json};

use super::dashboard::StoredDashboard;
use super::json::{Elements, lenient};
use super::versions::Capability;
use super::{Api, Grafana, changed, dashboard, foreign, or_unreadable, path, user_dashboard};
use crate::digest::fingerprint;
use crate::error::{Error, ForeignObject, Result};
use crate::http::{Body, escaped};
use crate::model::observed::{ActualDashboard, DashboardState, FolderState, OtherObject, SharedName, StoredVersion};
use crate::model::stack::{DashboardId, Stack};

lenient! {
    /// A folder of dashboards.
    pub(super) struct GrafanaFolder {
        id: Option<u64>,
        pub(super) uid: String,
        pub(super) title: String,
    }

    /// A folder or dashboard in a list.
    struct SearchHit {
        #[serde(rename = "type")]
        kind: String,
        uid: String,
        title: String,
        folder_uid: String,
    }

    struct LibraryPanels {
        result: LibraryPanelCount,
    }

    struct LibraryPanelCount {
        total_count: Option<u64>,
    }

    /// The answer to a save.
    struct SaveResult {
        /// The reason for a rejection.
        status: String,
    }
}

impl SearchHit {
    const FOLDER: &str = "dash-folder";
    const DASHBOARD: &str = "dash-db";
}

/// The number of folders in one answer, and of such answers.
const FOLDERS: usize = 1000;
const FOLDER_PAGES: usize = 100;
const SAVE_DASHBOARD: &str = "/api/dashboards/db";

/// A dashboard to save.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DashboardSave {
    overwrite: bool,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder_id: Option<u64>,
    dashboard: Value,
}

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
        found: Option<&StoredDashboard>,
    ) -> Result<DashboardState> {
        let (uid, ..) = stack.dashboard_identity(id);
        let Some(found) = found else {
            let clash = self.clash(stack, id).await?;
            return Ok(clash.map_or(DashboardState::Missing, |(what, shares)| DashboardState::Clash { what, shares }));
        };
        let (meta, head) = (&found.meta, &found.head);
        if meta.is_folder {
            let what = folder_with_uid(&head.title, uid);
            return Ok(DashboardState::Clash { what: what.into(), shares: SharedName::Uid });
        }
        let is_ours = match id {
            DashboardId::Bundled => head.is_bundled(),
            DashboardId::User(_) => head.owner() == Some(&stack.instance),
        };
        if !is_ours {
            let what = format!("a dashboard called {:?} with the uid {uid:?}", head.title);
            let what = found.as_other(what, uid);
            return Ok(DashboardState::Clash { what, shares: SharedName::Uid });
        }
        Ok(DashboardState::Present(found.state()))
    }

    /// An object that has the uid or the title of a missing dashboard.
    async fn clash(&self, stack: &Stack, id: DashboardId) -> Result<Option<(OtherObject, SharedName)>> {
        let (uid, title, _) = stack.dashboard_identity(id);
        let doing = "look for a folder of that uid";
        match self.get::<GrafanaFolder>(doing, &path(&["api", "folders", uid])).await {
            // From version 10 on, an account without rights on all folders gets this answer for an absent one, too. If
            // there is one, Grafana refuses the save.
            Ok(None) | Err(Error::Answer { status: 403, .. }) => {}
            found => return Ok(found?.map(|folder| (folder_with_uid(&folder.title, uid).into(), SharedName::Uid))),
        }
        if self.has(Capability::EqualTitles) {
            return Ok(None);
        }
        // `None` for a new folder, which is empty.
        let within = match &stack.folder {
            Some(title) => self.folder(&stack.instance, title).await?.map(|folder| folder.uid),
            None => Some(String::new()),
        };
        let found = self.search().await?;
        let namesake = found.iter().find(|hit| {
            let is_beside = within.as_ref() == Some(&hit.folder_uid);
            let is_compared = is_beside || (hit.kind == SearchHit::FOLDER && !self.has(Capability::TitlesPerFolder));
            is_compared && hit.uid != uid && self.is_same_title(&hit.title, title)
        });
        let Some(SearchHit { kind, uid, title, .. }) = namesake else { return Ok(None) };
        let named = |kind: &str| format!("a {kind} called {title:?} with the uid {uid:?}");
        Ok(Some(if kind == SearchHit::FOLDER {
            let is_specified = within.as_ref() == Some(uid);
            let shares = if is_specified { SharedName::SpecifiedFolderTitle } else { SharedName::FolderTitle };
            (named("folder").into(), shares)
        } else {
            let found = self.dashboard(uid).await?.unwrap_or_default();
            (found.as_other(named("dashboard"), uid), SharedName::Title)
        }))
    }

    /// Folders and dashboards of the organisation.
    async fn search(&self) -> Result<Vec<SearchHit>> {
        self.get_list("look for dashboards of that title", "/api/search?limit=5000").await
    }

    /// The dashboard with that uid, with Grafana's metadata.
    pub(super) async fn dashboard(&self, uid: &str) -> Result<Option<StoredDashboard>> {
        match self.get("read the dashboard", &path(&["api", "dashboards", "uid", uid])).await {
            Err(refused @ Error::Answer { status: 406, .. }) => self.dashboard_v2(uid).await?.map(Some).ok_or(refused),
            found => found,
        }
    }

    /// Creates a dashboard, or replaces an observed one, which stays in its folder. Grafana rejects the save if another
    /// one came first: with Grafana's `overwrite`, even a dashboard of the same title could be replaced.
    ///
    /// # Errors
    /// [`Error::Foreign`] if another owner's object is in its place, [`Error::Raced`] if another
    /// process changed it meanwhile, otherwise an error from the server.
    pub(crate) async fn save_dashboard(
        &self,
        stack: &Stack,
        id: DashboardId,
        replaces: Option<&ActualDashboard>,
    ) -> Result<()> {
        let doing = "save the dashboard";
        let body = self.dashboard_save(doing, stack, id, replaces).await?;
        let answer = self.send(doing, "POST", SAVE_DASHBOARD, Body::json(&body)).await?;
        match answer.status {
            // A title that is taken stays taken. If an observation finds its owner, the next plan names it.
            412 if answer.json::<SaveResult>().status == "name-exists"
                && (replaces.is_some() || self.clash(stack, id).await?.is_none()) =>
            {
                let (_, title, _) = stack.dashboard_identity(id);
                let what = format!("another dashboard called {title:?} in the same folder");
                Err(foreign(&what, ForeignObject::Dashboard))
            }
            // Another process saved it, or deleted it.
            404 if replaces.is_none() => self.expect_success(doing, &answer),
            404 | 409 | 412 => Err(Error::Raced { doing: doing.into(), why: answer.message() }),
            _ => self.expect_success(doing, &answer),
        }
    }

    /// Saves the stored content of a dashboard again with its fingerprint, because Grafana changed it during the last
    /// save.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process has changed it, otherwise an error from the server.
    pub(crate) async fn record_dashboard(
        &self,
        stack: &Stack,
        id: DashboardId,
        observed: &ActualDashboard,
    ) -> Result<()> {
        let doing = "record Grafana's changes to the dashboard";
        let (uid, ..) = stack.dashboard_identity(id);
        let found = self.dashboard(uid).await?.filter(|found| found.state() == *observed);
        let mut content = found.ok_or_else(|| changed(doing))?.content;
        self.allow_refresh(&mut content).await?;
        dashboard::note_stored(&mut content);
        let body = self.replacement(content, &observed.stored);
        let answer = self.send(doing, "POST", SAVE_DASHBOARD, Body::json(&body)).await?;
        match answer.status {
            404 | 409 | 412 => Err(Error::Raced { doing: doing.into(), why: answer.message() }),
            _ => self.expect_success(doing, &answer),
        }
    }

    /// The document to save, with the version that it replaces. The number of a new folder is known only after its
    /// creation.
    async fn dashboard_save(
        &self,
        doing: &str,
        stack: &Stack,
        id: DashboardId,
        replaces: Option<&ActualDashboard>,
    ) -> Result<DashboardSave> {
        let source = &stack.data_source;
        let mut dashboard = match id {
            DashboardId::Bundled => dashboard::render(&stack.dashboard, source, replaces, self.api()),
            DashboardId::User(index) => {
                user_dashboard::render(&stack.user_dashboards[index], &stack.instance, source, self.api())
            }
        };
        self.allow_refresh(&mut dashboard).await?;
        // Grafana's clock, with which the next observation compares.
        let now = self.clock().await?.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        let replaced = replaces.and_then(|actual| actual.stored.version);
        dashboard::note_save(&mut dashboard, replaced, now.unwrap_or_else(jiff::Timestamp::now));
        match (replaces, &stack.folder) {
            (Some(actual), _) => Ok(self.replacement(dashboard, &actual.stored)),
            (None, Some(title)) => {
                // Without it, Grafana would save the dashboard outside any folder.
                let gone = || Error::Raced { doing: doing.into(), why: format!("folder {title:?} is gone") };
                let folder = self.folder(&stack.instance, title).await?.ok_or_else(gone)?;
                Ok(self.save_into(dashboard, Some(folder.uid), folder.id))
            }
            (None, None) => Ok(self.save_into(dashboard, None, None)),
        }
    }

    /// Raises a refresh interval that this version would refuse.
    async fn allow_refresh(&self, dashboard: &mut Value) -> Result<()> {
        if self.has(Capability::RefusedRefresh)
            && let Some(least) = self.least_refresh().await?
        {
            dashboard::raise_refresh(dashboard, &least);
        }
        Ok(())
    }

    /// A document that replaces this version, in its folder.
    fn replacement(&self, mut dashboard: Value, stored: &StoredVersion) -> DashboardSave {
        (dashboard["id"], dashboard["version"]) = (json!(stored.id), json!(stored.version));
        self.save_into(dashboard, stored.folder_uid.clone(), stored.folder_id)
    }

    fn save_into(&self, dashboard: Value, folder_uid: Option<String>, folder_id: Option<u64>) -> DashboardSave {
        let is_numeric = self.api() == Api::Numeric;
        DashboardSave {
            overwrite: false,
            message: "clipper-metrics",
            folder_uid: folder_uid.filter(|_| !is_numeric),
            folder_id: folder_id.filter(|_| is_numeric),
            dashboard,
        }
    }

    /// The state of the stack's folder.
    pub(super) async fn seen_folder(&self, stack: &Stack) -> Result<FolderState> {
        let Some(title) = &stack.folder else { return Ok(FolderState::NotConfigured) };
        let look = async {
            if let Some(folder) = self.folder(&stack.instance, title).await? {
                return Ok(FolderState::Present { is_own: is_own(&folder, &stack.instance, title) });
            }
            let is_own = self.is_own_dashboards_title(stack, title);
            let is_taken = is_own || self.is_title_taken(title).await?;
            Ok(if is_taken { FolderState::TitleTaken { is_own } } else { FolderState::Missing })
        };
        or_unreadable(look.await, FolderState::Unreadable)
    }

    /// Whether one of the stack's dashboards has the title, and this version allows no folder with the same title, not
    /// even for dashboards in it.
    fn is_own_dashboards_title(&self, stack: &Stack, title: &str) -> bool {
        let is_equal = |id| self.is_same_title(stack.dashboard_identity(id).1, title);
        !self.has(Capability::TitlesPerFolder) && stack.dashboards().any(is_equal)
    }

    /// Whether this version considers two titles equal.
    fn is_same_title(&self, one: &str, other: &str) -> bool {
        if self.has(Capability::ExactTitles) { one == other } else { slug(one) == slug(other) }
    }

    /// Whether a dashboard outside any folder has the title, and this version allows no folder with the same title.
    pub(super) async fn is_title_taken(&self, title: &str) -> Result<bool> {
        if self.has(Capability::EqualTitles) {
            return Ok(false);
        }
        let is_outside = |hit: &SearchHit| hit.kind == SearchHit::DASHBOARD && hit.folder_uid.is_empty();
        Ok(self.search().await?.iter().any(|hit| is_outside(hit) && self.is_same_title(&hit.title, title)))
    }

    /// Creates a folder. Grafana 11.3 and later would create a second one with the same title, so the titles are read
    /// again.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process has created it, otherwise an error from the server.
    pub(crate) async fn create_folder(&self, instance: &str, title: &str) -> Result<()> {
        let doing = "create the folder";
        let raced = || Error::Raced { doing: doing.into(), why: "another process has created it".into() };
        if self.folder(instance, title).await?.is_some() {
            return Err(raced());
        }
        let own = folder_uid(instance, title);
        // A uid of its own, because the instance's name is the dashboard's.
        let body = Body::json(&json!({"title": title, "uid": own}));
        let mut answer = self.send(doing, "POST", "/api/folders", body).await?;
        if matches!(answer.status, 409 | 412) {
            if self.folder(instance, title).await?.is_some() {
                return Err(raced());
            }
            let earlier: Option<GrafanaFolder> = self.get(doing, &path(&["api", "folders", &own])).await?;
            // A user renamed it.
            if earlier.is_some_and(|earlier| earlier.title != title) {
                answer = self.send(doing, "POST", "/api/folders", Body::json(&json!({"title": title}))).await?;
            }
        }
        self.expect_success(doing, &answer)?;
        if answer.json::<GrafanaFolder>().uid.is_empty() { Err(self.odd(doing)) } else { Ok(()) }
    }

    /// Deletes a dashboard that is still as observed. Grafana compares no version, so it is read again.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process has changed it, otherwise an error from the server.
    pub(crate) async fn delete_dashboard(
        &self,
        stack: &Stack,
        id: DashboardId,
        observed: &ActualDashboard,
    ) -> Result<()> {
        let doing = "delete the dashboard";
        match self.seen_dashboard(stack, id).await? {
            DashboardState::Missing => return Ok(()),
            DashboardState::Present(actual) if actual == *observed => {}
            _ => return Err(changed(doing)),
        }
        let (uid, ..) = stack.dashboard_identity(id);
        self.delete(doing, &path(&["api", "dashboards", "uid", uid])).await
    }

    /// Deletes the folder that was created for the dashboard, if it is empty.
    ///
    /// # Errors
    /// An error from the server.
    pub(crate) async fn delete_folder(&self, instance: &str, title: &str) -> Result<()> {
        match self.own_folder(instance, title).await? {
            Some(folder) if self.is_empty_folder(&folder).await? => {
                self.delete("delete the folder", &path(&["api", "folders", &folder.uid])).await
            }
            _ => Ok(()),
        }
    }

    /// The folder with that title, if it was created for the instance.
    pub(super) async fn own_folder(&self, instance: &str, title: &str) -> Result<Option<GrafanaFolder>> {
        Ok(self.folder(instance, title).await?.filter(|folder| is_own(folder, instance, title)))
    }

    /// Whether the folder contains neither dashboards nor library panels; if that cannot be read,
    /// it counts as not empty. Grafana itself keeps folders with alert rules.
    pub(super) async fn is_empty_folder(&self, folder: &GrafanaFolder) -> Result<bool> {
        let uid = escaped(&folder.uid);
        let (of_dashboards, of_panels) = match folder.id {
            _ if self.has(Capability::FolderContentByUid) => {
                (format!("folderUIDs={uid}"), format!("folderFilterUIDs={uid}"))
            }
            Some(id) => (format!("folderIds={id}"), format!("folderFilter={id}")),
            // Grafana would look into the folder General.
            None => return Ok(false),
        };
        let doing = "look into the folder";
        let inside: Option<Elements<SearchHit>> =
            self.get(doing, &format!("/api/search?limit=1&{of_dashboards}")).await?.flatten();
        if inside.is_none_or(|inside| !inside.is_empty()) {
            return Ok(false);
        }
        if !self.has(Capability::LibraryPanels) {
            return Ok(true);
        }
        let library: Option<LibraryPanels> =
            self.get(doing, &format!("/api/library-elements?perPage=1&{of_panels}")).await?;
        Ok(library.is_some_and(|library| library.result.total_count == Some(0)))
    }

    /// The folder that was created for the instance, wherever a user moved it, unless it was renamed; otherwise the first
    /// one with that title outside other folders. Grafana 11 and later list only those outside, 11.3 and later allow
    /// equal titles.
    pub(super) async fn folder(&self, instance: &str, title: &str) -> Result<Option<GrafanaFolder>> {
        let own = path(&["api", "folders", &folder_uid(instance, title)]);
        match self.get::<GrafanaFolder>("read the folder", &own).await {
            Ok(Some(own)) if own.title == title => return Ok(Some(own)),
            // From version 10 on, an account without rights on all folders gets this answer for an absent one, too.
            Ok(_) | Err(Error::Answer { status: 403, .. }) => {}
            Err(error) => return Err(error),
        }
        for page in 1..=FOLDER_PAGES {
            let page = if page == 1 { String::new() } else { format!("&page={page}") };
            let path = format!("/api/folders?limit={FOLDERS}{page}");
            let Elements(folders) = self.get("list the folders", &path).await?.unwrap_or_default();
            let is_last = folders.len() < FOLDERS;
            let found = folders.into_iter().find(|folder: &GrafanaFolder| folder.title == title);
            if is_last || found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// The uid of a folder created for an instance's dashboard.
fn folder_uid(instance: &str, title: &str) -> String {
    format!("folder-{}", fingerprint(format!("{instance} {title}").as_bytes()))
}

/// Whether the folder with that title was created for the instance.
pub(super) fn is_own(folder: &GrafanaFolder, instance: &str, title: &str) -> bool {
    folder.uid == folder_uid(instance, title)
}

fn folder_with_uid(title: &str, uid: &str) -> String {
    format!("a folder called {title:?} with the dashboard's uid {uid:?}")
}

/// The form in which versions that compare titles store one.
fn slug(title: &str) -> String {
    let lower = title.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}
