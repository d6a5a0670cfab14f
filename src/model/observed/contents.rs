//! The contents of answering servers: the database, and the objects in Grafana.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::alerts::{AlertRule, AlertSettings};
use crate::model::retention::Retention;
use crate::model::stack::{DashboardId, MadeFor, Stack};

/// The content of InfluxDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfluxdbState {
    /// The stack's database exists.
    pub has_database: bool,
    /// The retention period of its default policy, if known.
    pub retention: Option<Retention>,
}

/// The content of Grafana.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrafanaState {
    /// The organisation for all objects.
    pub organisation: OrganisationState,
    /// The organisation's number, if known.
    pub organisation_id: Option<u64>,
    /// The choice among the account's organisations, if it has several and no setting names one.
    pub chosen: Option<ChosenOrganisation>,
    pub folder: FolderState,
    pub data_source: DataSourceState,
    /// A data source of the organisation is its default.
    pub has_default_source: bool,
    /// The bundled dashboard.
    pub dashboard: DashboardState,
    /// The organisation has a home page; read only if the dashboard would become it.
    pub has_home: bool,
    /// The user's dashboards, in the stack's order; empty if they could not be read.
    pub user_dashboards: Vec<DashboardState>,
    /// The instance's alert rules.
    pub alerts: AlertRulesState,
    /// The result of a query through the data source.
    pub query: Query,
    /// What Grafana offers to users' dashboards; read only if the stack has any.
    pub catalogue: Option<Catalogue>,
}

/// The data sources and panel types that dashboards can use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Its data sources.
    pub sources: Vec<CatalogueSource>,
    /// The panel types that a browser can show; `None` if Grafana does not report them.
    pub panel_types: Option<BTreeSet<String>>,
}

impl Catalogue {
    /// Whether a data source with that uid or name exists.
    #[must_use]
    pub(crate) fn has_source(&self, reference: &str) -> bool {
        self.sources.iter().any(|source| source.uid == reference || source.name == reference)
    }

    /// Whether the panel type is known to be missing.
    #[must_use]
    pub(crate) fn lacks_panel_type(&self, kind: &str) -> bool {
        self.panel_types.as_ref().is_some_and(|types| !types.contains(kind))
    }
}

/// A data source, as dashboards refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueSource {
    pub uid: String,
    pub name: String,
}

impl GrafanaState {
    /// One of the stack's dashboards.
    #[must_use]
    pub(crate) fn dashboard(&self, id: DashboardId) -> &DashboardState {
        match id {
            DashboardId::Bundled => &self.dashboard,
            DashboardId::User(index) => self.user_dashboards.get(index).unwrap_or(&DashboardState::Missing),
        }
    }
}

/// A resource that an answering server failed to return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The attempt, in the imperative.
    pub doing: String,
    /// The HTTP status; 0 if the content of the answer was the problem.
    pub status: u16,
    /// The server's message.
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.why)
    }
}

/// Grafana's organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrganisationState {
    /// It exists, and the account belongs to it.
    Present,
    /// No organisation has that name.
    Missing,
    /// It could not be read.
    Unreadable(Unreadable),
    /// The token belongs to this organisation, and another one is specified.
    OfToken(String),
    /// Several organisations match; those that the account belongs to.
    Ambiguous(Vec<String>),
}

impl OrganisationState {
    /// The number of the organisation that Grafana creates at its first start.
    pub(crate) const FIRST: u64 = 1;

    /// The number that the address of a page names, without which a browser opens the page in the account's active
    /// organisation. New users sign in to the first one, and its addresses name none.
    #[must_use]
    pub(crate) fn in_address(id: Option<u64>) -> Option<u64> {
        id.filter(|id| *id != Self::FIRST)
    }
}

/// The organisation that is used because no setting names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenOrganisation {
    pub name: String,
    /// The account's other ones.
    pub others: Vec<String>,
}

/// Grafana's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderState {
    /// None is specified.
    NotConfigured,
    /// It exists.
    Present {
        /// Whether it was created for the instance.
        is_own: bool,
    },
    /// No folder has that title.
    Missing,
    /// It could not be read.
    Unreadable(Unreadable),
    /// A dashboard has that title, which prevents a folder of the same title in this version.
    TitleTaken {
        /// Whether it is one of the stack's dashboards.
        is_own: bool,
    },
}

/// An object of another owner in the place of one of the instance's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OtherObject {
    /// Its kind, title and uid.
    pub what: String,
    /// Whether it is provisioned from a file, so that Grafana neither renames nor deletes it.
    pub provisioned: bool,
    /// The instance that it was created for, as far as a mark names one.
    pub owner: Option<String>,
}

impl<T: Into<String>> From<T> for OtherObject {
    /// An object that users can change in Grafana.
    fn from(what: T) -> Self {
        Self { what: what.into(), provisioned: false, owner: None }
    }
}

/// The data source with the specified uid or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSourceState {
    /// It does not exist.
    Missing,
    /// It could not be read.
    Unreadable(Unreadable),
    /// A data source that clipper-metrics did not create.
    Foreign(OtherObject),
    /// A data source with the mark of clipper-metrics.
    Ours {
        /// The stored fields that clipper-metrics sets, as one text each.
        fields: BTreeMap<String, String>,
        /// The target it was created for, from its mark, otherwise from its stored fields.
        made_for: MadeFor,
        /// Whether it is provisioned from a file and cannot be saved.
        provisioned: bool,
    },
}

/// The dashboard with the specified uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DashboardState {
    /// It does not exist, and nothing prevents its creation.
    Missing,
    /// It could not be read.
    Unreadable(Unreadable),
    /// It does not exist, and another object takes its place.
    Clash { what: OtherObject, shares: SharedName },
    /// It exists.
    Present(ActualDashboard),
}

/// The name that another object shares with a dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedName {
    Uid,
    /// The title of a dashboard in the same folder.
    Title,
    /// The title of a folder.
    FolderTitle,
    /// The title of the folder for new dashboards.
    SpecifiedFolderTitle,
}

/// An existing dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActualDashboard {
    pub stored: StoredVersion,
    /// Whether its content differs from the saved version, or it lacks the mark.
    pub edited: bool,
    /// Whether only Grafana changed its content, and no save has recorded that yet.
    pub unrecorded: bool,
    /// Whether it is provisioned from a file and cannot be saved.
    pub provisioned: bool,
    /// Fingerprint of the bundled file it was created from.
    pub content_hash: Option<String>,
    /// The latency objective that it shows, in microseconds.
    pub objective: Option<u64>,
    /// The models listed in it.
    pub models: Vec<String>,
    /// The target it was created for; unknown if an older version of this program created it or a
    /// user saved it.
    pub made_for: Option<MadeFor>,
}

/// The version of a dashboard that was read, and its folder. A save names them, so that Grafana rejects it if another
/// save came first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StoredVersion {
    pub(crate) id: Option<u64>,
    pub(crate) version: Option<u64>,
    pub(crate) folder_uid: Option<String>,
    pub(crate) folder_id: Option<u64>,
}

/// The instance's alert rules in Grafana.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertRulesState {
    /// No setting mentions them, so they were not read.
    NotRead,
    /// This server has no alerting; the reason.
    Unavailable(String),
    /// They could not be read.
    Unreadable(Unreadable),
    /// They were read.
    Seen(Box<ActualAlerts>),
}

/// Both rules as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActualAlerts {
    pub latency: ActualRule,
    pub silence: ActualRule,
    /// The folder with the title of the rules' folder. Read only if the rules are off or one of them is not in sync.
    pub folder: Option<AlertFolder>,
}

/// The folder of the alert rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertFolder {
    pub uid: String,
    /// Whether it was created for the instance and is known to hold nothing but its unedited rules. Read only if the
    /// rules are off.
    pub holds_only_rules: bool,
}

impl ActualAlerts {
    /// One of the two rules.
    #[must_use]
    pub(crate) const fn rule(&self, rule: AlertRule) -> &ActualRule {
        match rule {
            AlertRule::Latency => &self.latency,
            AlertRule::Silence => &self.silence,
        }
    }

    /// The same to change it.
    pub(crate) const fn rule_mut(&mut self, rule: AlertRule) -> &mut ActualRule {
        match rule {
            AlertRule::Latency => &mut self.latency,
            AlertRule::Silence => &mut self.silence,
        }
    }
}

/// One alert rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ActualRule {
    /// It does not exist, and nothing prevents its creation.
    Missing,
    /// It does not exist, and another object has its title or its folder's.
    Clash(OtherObject),
    /// It exists.
    Present {
        /// Whether it differs from the saved version.
        edited: bool,
        /// Whether it is provisioned from a file and cannot be saved.
        provisioned: bool,
        /// The configuration it was created from; empty if its creation was interrupted.
        fields: BTreeMap<String, String>,
        /// The target it was created for; unknown if an older version of this program created it.
        made_for: Option<MadeFor>,
        /// Its folder, and its evaluation group there.
        folder_uid: String,
        group: String,
    },
}

impl ActualRule {
    /// Whether it is missing, or an earlier run ended before it saved the group.
    #[must_use]
    pub(crate) fn is_unfinished(&self) -> bool {
        match self {
            Self::Present { edited, fields, .. } => !edited && fields.is_empty(),
            Self::Missing => true,
            Self::Clash(_) => false,
        }
    }

    /// The objective of an existing rule, which only a supplied file changes.
    #[must_use]
    pub(crate) fn kept_objective(&self, stack: &Stack) -> Option<u64> {
        match self {
            Self::Present { fields, .. } if stack.dashboard.objective.is_none() => AlertSettings::objective(fields),
            _ => None,
        }
    }

    /// Whether it is certain, without a look at any other object, that the plan does not save the rule.
    #[must_use]
    pub(crate) fn is_in_sync(&self, stack: &Stack, settings: &AlertSettings, rule: AlertRule) -> bool {
        let Self::Present { edited: false, fields, made_for, .. } = self else { return false };
        let objective = stack.dashboard.objective.or(self.kept_objective(stack)).unwrap_or_default();
        *fields == settings.fields(rule, objective) && made_for.as_ref() == Some(&stack.data_source.made_for())
    }
}

/// The reason why Grafana cannot query InfluxDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryFault {
    /// The name of InfluxDB's host is unknown.
    Host,
    /// InfluxDB rejects the login.
    Login,
    /// InfluxDB's user may not read the database.
    Rights,
    /// Grafana's server does not know the authority that signed InfluxDB's certificate.
    Authority,
    /// InfluxDB's certificate is not valid, or is for another name.
    Certificate,
    /// InfluxDB's host refuses the connection.
    Refused,
    Other,
}

impl QueryFault {
    /// Whether waiting cannot help.
    #[must_use]
    pub(crate) const fn is_permanent(self) -> bool {
        match self {
            Self::Host | Self::Login | Self::Rights | Self::Authority | Self::Certificate => true,
            Self::Refused | Self::Other => false,
        }
    }
}

/// The result of a query through Grafana's data source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Not sent: the data source is missing, or InfluxDB does not run.
    Unasked,
    /// It returned the database's data.
    Ok,
    /// It failed; the reason.
    Failing(String),
}
