//! The steps of a plan, their texts and their order.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::Resource;
use crate::model::alerts::{AlertRule, NewRule};
use crate::model::container_config::ContainerConfig;
use crate::model::image::ImageRef;
use crate::model::login::Credential;
use crate::model::observed::{ActualDashboard, ActualRule};
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::stack::{DashboardId, MadeFor, Remembered, RestoreRecord};
use crate::model::upgrade::Upgrade;
use crate::model::version::Version;

/// One idempotent action; each is one arm of `apply`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    PullImage(Role),
    /// Verify that the engine can publish a server there, before anything is replaced for it. Port
    /// 0 stands for a port held by a container of the instance.
    CheckAddress(Role, SocketAddr),
    CreateNetwork,
    /// Remove every network of the instance.
    RemoveNetwork,
    /// Remove all networks of the instance except the current one.
    RemoveDuplicateNetworks,
    /// Remove the containers with these ids, with which an interrupted run checked an address.
    RemoveAddressChecks(Vec<String>),
    /// Write the settings as a whole, and remove earlier copies.
    SaveSettings {
        /// By the option's name.
        values: BTreeMap<String, Remembered>,
        /// The values that they replace, as read; `None` if they are missing or cannot be read.
        replaces: Option<BTreeMap<String, Remembered>>,
    },
    /// Remove the remembered settings.
    RemoveSettings,
    /// Write the settings with a record of the started restore.
    BeginRestore(Box<RestoreRecord>),
    /// Write the settings without that record, after all data is restored.
    FinishRestore(Box<RestoreRecord>),
    CreateVolume(Role),
    /// Remove the volume and all data in it.
    RemoveVolume(Role),
    CreateContainer(Box<NewContainer>),
    /// Write the password to the volume before Grafana's first start.
    WriteFirstPassword(Credential),
    /// Sign in once, before anything is changed for the login.
    TryLogin(Credential),
    /// Store the password that Grafana accepted.
    StorePassword {
        /// The accepted login.
        login: Credential,
        /// Also replace the pending password.
        replaces_pending: bool,
    },
    /// Store the password that Grafana is about to get, in case the run ends before it is accepted.
    WritePendingPassword(Credential),
    /// Replace Grafana's default password through its API.
    ChangePassword(Credential),
    /// Verify that the login form rejects admin/admin.
    CheckLoginForm,
    /// Set the password with Grafana's command-line tool inside the container.
    ResetPassword(Credential),
    /// Record the running version in the volume.
    WriteVersion {
        /// The version that the server reports.
        version: Version,
        /// The image of its container; `None` if it is unknown or not trusted.
        image: Option<ImageRef>,
    },
    /// Record the version that is about to run.
    WriteIntendedVersion {
        /// The version in the image's tag.
        version: Version,
        image: ImageRef,
    },
    /// Withdraw the record of a start that did not happen.
    ClearIntendedVersion,
    /// Write the record of an upgrade next to the settings, which exist.
    RecordUpgrade(Box<Upgrade>),
    /// Copy Grafana's database inside its volume.
    CopyGrafanaDatabase {
        /// The upgrade that the copy belongs to.
        upgrade: String,
    },
    /// Replace Grafana's database with the copy.
    RollBackDatabase,
    /// Write the last record of an upgrade, or remove its record.
    EndUpgrade(Option<Box<Upgrade>>),
    /// Delete the copy of Grafana's database, which is needed as long as an upgrade is recorded as pending.
    DeleteDatabaseCopy,
    /// Repeat the dashboard's queries until they succeed.
    ProveDashboard {
        /// A user edited the dashboard.
        edited: bool,
    },
    /// Stop and remove the container.
    RemoveContainer(Role),
    UnpauseContainer(Role),
    StartContainer(Role),
    /// Wait until the server answers, or its container has exited.
    AwaitAnswer(Role),
    CreateDatabase {
        name: String,
        /// InfluxDB's own default if none is set.
        retention: Option<Retention>,
    },
    /// Set the database's retention period, if it has not changed since it was read.
    SetRetention {
        database: String,
        /// The retention period as read; `None` if unknown.
        from: Option<Retention>,
        to: Retention,
    },
    CreateOrganisation(String),
    CreateFolder {
        title: String,
    },
    /// Create or replace the data source.
    SaveDataSource {
        /// The target of the one that it replaces, which keeps its role; `None` creates one.
        replaces: Option<MadeFor>,
        /// A new one becomes the default.
        becomes_default: bool,
    },
    /// Create or replace a dashboard.
    SaveDashboard {
        id: DashboardId,
        title: String,
        /// The dashboard that it replaces, as observed; `None` creates one.
        replaces: Option<Box<ActualDashboard>>,
    },
    /// Record the content as Grafana stored it, so that its difference from the saved one does not count as an edit.
    RecordDashboard {
        id: DashboardId,
        title: String,
        /// Its observed state.
        observed: Box<ActualDashboard>,
    },
    /// Make the dashboard with that uid the organisation's home page, if it has none.
    SetHome {
        uid: String,
    },
    /// Delete an unedited dashboard.
    DeleteDashboard {
        id: DashboardId,
        title: String,
        /// Its observed state.
        observed: Box<ActualDashboard>,
    },
    /// Delete the folder if it was created for the dashboard and is empty.
    DeleteFolder {
        title: String,
    },
    /// Delete the unedited data source.
    DeleteDataSource {
        /// Its observed fields.
        fields: BTreeMap<String, String>,
    },
    CreateAlertFolder,
    /// Create an alert rule, which counts as unfinished until its group is saved.
    CreateAlertRule(Box<NewRule>),
    /// Save the group of the alert rules, in which these were created or are still as observed.
    SaveAlertRules {
        rules: Vec<NewRule>,
        /// Set the evaluation interval, which belongs to the user later.
        sets_interval: bool,
    },
    /// Save an alert rule that a user has moved, and that is still as observed.
    SaveMovedAlertRule(Box<NewRule>),
    /// Delete an alert rule that is still as observed.
    DeleteAlertRule {
        rule: AlertRule,
        observed: Box<ActualRule>,
    },
    /// Delete the folder that was created for the alert rules and is empty.
    DeleteAlertFolder,
    /// Repeat a query through the data source until its answer is correct.
    VerifyQuery {
        /// How often the data source can still be saved again if the answer contradicts its settings.
        saves_left: u8,
        /// The start of the first verification of this run, if an earlier one was contradicted.
        since: Option<Instant>,
    },
}

/// A container to create.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NewContainer {
    /// The server that runs in it.
    pub role: Role,
    pub config: ContainerConfig,
    /// The engine's id of the image, if the image's name may belong to another one.
    pub image_id: Option<String>,
    pub usage: ContainerUse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerUse {
    /// It serves users and Clipper.
    Service,
    /// Only this run reaches it, to sign in to Grafana or to read its volume. Grafana offers every way to sign in and
    /// locks no account.
    Login,
    /// Only this run reaches it, to restore data through it.
    Restore,
}

impl ContainerUse {
    /// The name of its creation in JSON, and the step's text.
    const fn creation(self) -> (&'static str, &'static str) {
        match self {
            Self::Service => ("create_container", "create {}'s container"),
            Self::Login => ("create_container_on_loopback", "create {}'s container on loopback only"),
            Self::Restore => ("create_container_for_restore", "create {}'s container for its data"),
        }
    }
}

/// When a step runs. A phase begins once the previous one has succeeded for both roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// What prevents every container from starting: the network, and leftovers on it.
    Network,
    /// Pulls, checks, and logins to a running Grafana. Nothing is removed or stopped.
    Preparation,
    /// A login that can be tried only on a private container, which may replace Grafana's own.
    Trial,
    /// The settings, after every supplied value has been checked.
    Settings,
    /// Removal of containers whose port the other role needs.
    Release,
    /// The servers, with both roles in parallel.
    Changes,
    /// The objects in Grafana.
    Contents,
    /// Steps that need both servers or neither.
    End,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 8] = [
        Self::Network,
        Self::Preparation,
        Self::Trial,
        Self::Settings,
        Self::Release,
        Self::Changes,
        Self::Contents,
        Self::End,
    ];

    /// Whether the steps of the other servers continue after a failure, so that none is left in an intermediate state.
    pub(crate) const fn completes_every_lane(self) -> bool {
        matches!(self, Self::Release | Self::Changes | Self::Contents)
    }
}

impl Step {
    /// The phase in which the step runs unless its plan says otherwise.
    #[must_use]
    pub(crate) const fn phase(&self) -> Phase {
        match self {
            // A container cannot start while two networks have the same name, or another one holds its address.
            Self::CreateNetwork | Self::RemoveDuplicateNetworks | Self::RemoveAddressChecks(_) => Phase::Network,
            Self::SaveSettings { .. } | Self::BeginRestore(_) | Self::FinishRestore(_) => Phase::Settings,
            Self::RemoveNetwork | Self::RemoveSettings | Self::VerifyQuery { .. } | Self::ProveDashboard { .. } => {
                Phase::End
            }
            _ => match self.resource() {
                Resource::Organisation
                | Resource::Folder
                | Resource::Dashboard(_)
                | Resource::DataSource
                | Resource::Alerts => Phase::Contents,
                _ => Phase::Changes,
            },
        }
    }

    /// The server that the step belongs to; steps for neither count as Grafana's.
    #[must_use]
    pub(crate) const fn role(&self) -> Role {
        match self.resource() {
            Resource::Server(role) | Resource::Volume(role) => role,
            Resource::Database | Resource::Retention => Role::Influxdb,
            _ => Role::Grafana,
        }
    }

    #[must_use]
    pub(crate) const fn resource(&self) -> Resource {
        self.facts().0
    }

    /// The action's name in JSON; never changes.
    #[must_use]
    pub(crate) const fn action(&self) -> &'static str {
        self.facts().1
    }

    /// Hidden from progress output when it finishes at once, because it only prepares or completes
    /// another step.
    #[must_use]
    pub(crate) const fn is_routine(&self) -> bool {
        matches!(
            self,
            Self::CheckAddress(..)
                | Self::CreateNetwork
                | Self::RemoveNetwork
                | Self::RemoveDuplicateNetworks
                | Self::RemoveAddressChecks(_)
                | Self::SaveSettings { .. }
                | Self::BeginRestore(_)
                | Self::FinishRestore(_)
                | Self::CreateVolume(_)
                | Self::CreateContainer(_)
                | Self::WriteFirstPassword(_)
                | Self::StorePassword { .. }
                | Self::WritePendingPassword(_)
                | Self::CheckLoginForm
                | Self::WriteVersion { .. }
                | Self::WriteIntendedVersion { .. }
                | Self::ClearIntendedVersion
                | Self::RecordUpgrade(_)
                | Self::CopyGrafanaDatabase { .. }
                | Self::EndUpgrade(_)
                | Self::DeleteDatabaseCopy
                | Self::AwaitAnswer(_)
                | Self::RecordDashboard { .. }
                | Self::SetHome { .. }
        )
    }

    /// The data that its text does not show, in parentheses.
    pub(super) fn data(&self) -> String {
        match self {
            Self::CreateContainer(new) => {
                let NewContainer { config, image_id, .. } = new.as_ref();
                let id = image_id.as_ref().map_or_else(String::new, |id| format!(" ({id})"));
                format!(" ({}{id} at {}, password: {:?})", config.image, config.publish, config.password)
            }
            Self::WriteFirstPassword(login)
            | Self::TryLogin(login)
            | Self::StorePassword { login, .. }
            | Self::WritePendingPassword(login)
            | Self::ChangePassword(login)
            | Self::ResetPassword(login) => format!(" ({login:?})"),
            Self::WriteVersion { version, image: None } => format!(" ({version})"),
            Self::WriteVersion { version, image: Some(image) } | Self::WriteIntendedVersion { version, image } => {
                format!(" ({version} of {image})")
            }
            Self::RecordUpgrade(upgrade) | Self::EndUpgrade(Some(upgrade)) => {
                format!(" ({} to {}: {:?})", upgrade.from.name, upgrade.to.name, upgrade.state)
            }
            _ => String::new(),
        }
    }

    /// The title of a user's dashboard or of an alert rule: an instance can have several.
    fn title(&self) -> Option<&str> {
        match self {
            Self::SaveDashboard { id: DashboardId::User(_), title, .. }
            | Self::RecordDashboard { id: DashboardId::User(_), title, .. }
            | Self::DeleteDashboard { id: DashboardId::User(_), title, .. } => Some(title),
            Self::CreateAlertRule(new) | Self::SaveMovedAlertRule(new) => Some(new.rule.title()),
            Self::DeleteAlertRule { rule, .. } => Some(rule.title()),
            _ => None,
        }
    }

    /// Resource, action, and the step's text in the imperative; `{}` becomes the server.
    const fn facts(&self) -> (Resource, &'static str, &'static str) {
        use Resource::{
            Alerts, Dashboard, DataSource, Database, Folder, Network, Organisation, Query, Server, Settings, Volume,
        };
        let grafana = Server(Role::Grafana);
        match self {
            &Self::PullImage(role) => (Server(role), "pull_image", "pull {}'s image"),
            &Self::CheckAddress(role, _) => (Server(role), "check_address", "check that {}'s address is available"),
            Self::CreateNetwork => (Network, "create_network", "create the network"),
            Self::RemoveNetwork => (Network, "remove_network", "remove the network"),
            Self::RemoveDuplicateNetworks => (Network, "remove_spare_networks", "remove duplicate networks"),
            Self::RemoveAddressChecks(_) => {
                (Network, "remove_address_checks", "remove containers that check an address")
            }
            Self::SaveSettings { .. } => (Settings, "save_settings", "save the settings"),
            Self::BeginRestore(_) => (Settings, "begin_restore", "record the start of the restore"),
            Self::FinishRestore(_) => (Settings, "finish_restore", "record the end of the restore"),
            Self::RemoveSettings => (Settings, "remove_settings", "delete the settings"),
            &Self::CreateVolume(role) => (Server(role), "create_volume", "create {}'s volume"),
            &Self::RemoveVolume(role) => (Volume(role), "remove_volume", "delete {}'s volume"),
            Self::CreateContainer(new) => {
                let (action, text) = new.usage.creation();
                (Server(new.role), action, text)
            }
            Self::WriteFirstPassword(_) => (grafana, "ensure_password", "write {}'s password to its volume"),
            Self::TryLogin(Credential::Supplied) => (grafana, "try_password", "try the supplied login"),
            Self::TryLogin(_) => (grafana, "try_password", "try the login"),
            Self::StorePassword { .. } => (grafana, "store_password", "store {}'s password in its volume"),
            Self::WritePendingPassword(_) => {
                (grafana, "write_pending_password", "write {}'s next password to its volume")
            }
            Self::ChangePassword(_) => (grafana, "secure_password", "replace {}'s default password"),
            Self::CheckLoginForm => (grafana, "check_login_form", "verify that {}'s login form rejects admin/admin"),
            Self::ResetPassword(_) => (grafana, "reset_password", "reset {}'s password"),
            Self::WriteVersion { .. } => (grafana, "record_version", "record {}'s version in its volume"),
            Self::WriteIntendedVersion { .. } => {
                (grafana, "record_intended_version", "record {}'s next version in its volume")
            }
            Self::ClearIntendedVersion => {
                (grafana, "clear_intended_version", "withdraw the record of {}'s next version")
            }
            Self::RecordUpgrade(_) => (grafana, "record_upgrade", "record {}'s upgrade"),
            Self::CopyGrafanaDatabase { .. } => (grafana, "protect_database", "copy {}'s database"),
            Self::RollBackDatabase => (grafana, "restore_database", "restore the copy of {}'s database"),
            Self::EndUpgrade(_) => (grafana, "end_upgrade", "record the end of {}'s upgrade"),
            Self::DeleteDatabaseCopy => (grafana, "delete_database_copy", "delete the copy of {}'s database"),
            Self::ProveDashboard { .. } => (Resource::Upgrade, "finish_upgrade", "verify the dashboard's queries"),
            &Self::RemoveContainer(role) => (Server(role), "remove_container", "remove {}'s container"),
            &Self::UnpauseContainer(role) => (Server(role), "unpause_container", "unpause {}'s container"),
            &Self::StartContainer(role) => (Server(role), "start_container", "start {}"),
            &Self::AwaitAnswer(role) => (Server(role), "await_answer", "wait for {}"),
            Self::SetRetention { .. } => (Resource::Retention, "set_retention", "set the retention period"),
            Self::CreateDatabase { .. } => (Database, "create_database", "create the database"),
            Self::CreateOrganisation(_) => (Organisation, "create_organisation", "create Grafana's organisation"),
            Self::CreateFolder { .. } => (Folder, "create_folder", "create Grafana's folder"),
            Self::SaveDataSource { .. } => (DataSource, "save_data_source", "save the data source"),
            &Self::SaveDashboard { id, .. } => (Dashboard(id), "save_dashboard", "save the dashboard"),
            &Self::RecordDashboard { id, .. } => {
                (Dashboard(id), "record_dashboard", "record {}'s changes to the dashboard")
            }
            Self::SetHome { .. } => (Dashboard(DashboardId::Bundled), "set_home", "make the dashboard the home page"),
            &Self::DeleteDashboard { id, .. } => (Dashboard(id), "delete_dashboard", "delete the dashboard"),
            Self::DeleteFolder { .. } => (Folder, "delete_folder", "delete Grafana's folder if it is empty"),
            Self::DeleteDataSource { .. } => (DataSource, "delete_data_source", "delete the data source"),
            Self::CreateAlertFolder => (Alerts, "create_alert_folder", "create the alert rules' folder"),
            Self::CreateAlertRule(_) => (Alerts, "create_alert_rule", "create the alert rule"),
            Self::SaveAlertRules { .. } => (Alerts, "save_alert_rules", "save the alert rules"),
            Self::SaveMovedAlertRule(_) => (Alerts, "save_moved_alert_rule", "save the moved alert rule"),
            Self::DeleteAlertRule { .. } => (Alerts, "delete_alert_rules", "delete the alert rule"),
            Self::DeleteAlertFolder => (Alerts, "delete_alert_folder", "delete the alert rules' folder"),
            Self::VerifyQuery { .. } => (Query, "await_query", "verify that Grafana reaches the database"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, _, text) = self.facts();
        f.write_str(&text.replace("{}", self.role().title()))?;
        self.title().map_or(Ok(()), |title| write!(f, " {title:?}"))
    }
}
