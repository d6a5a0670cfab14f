//! The steps of a plan, their texts and their order.

use std::fmt;
use std::net::SocketAddr;

use super::Resource;
use crate::model::container_config::PasswordSource;
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::stack::DashboardId;
use crate::model::upgrade::NamedImage;

/// One idempotent action; each is one arm of `apply`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Pull the image.
    PullImage(Role),
    /// Check that the image can use the volume, before anything is removed for it.
    CheckImage {
        /// The server.
        role: Role,
        /// The previous database is restored before the image starts, so the version on the volume does not matter.
        restores: bool,
    },
    /// Verify that the engine can publish a server there, before anything is replaced for it. Port
    /// 0 stands for a port held by a container of the instance.
    CheckAddress(Role, SocketAddr),
    /// Create the network.
    CreateNetwork,
    /// Remove every network of the instance.
    RemoveNetwork,
    /// Remove all networks of the instance except the current one.
    RemoveSpareNetworks,
    /// Write the settings as a whole, and remove earlier copies.
    SaveSettings {
        /// Keep the stored retention period, because it is unknown whether the new one deletes points.
        keeps_retention: bool,
    },
    /// Remove the remembered settings.
    RemoveSettings,
    /// Write the settings with a record of the started restore.
    BeginRestore,
    /// Write the settings without that record, after all data is restored.
    FinishRestore,
    /// Create the volume.
    CreateVolume(Role),
    /// Remove the volume and all data in it.
    RemoveVolume(Role),
    /// Create the container as specified.
    CreateContainer(Role, NewPassword),
    /// Create Grafana's container on a loopback port chosen by the engine, with Grafana's lockout
    /// switched off, because no other host can reach it there.
    CreatePrivateContainer {
        /// The image that ran last, if a container shows it.
        last: Option<NamedImage>,
    },
    /// Write the supplied or generated password before Grafana's first start.
    WritePassword,
    /// Sign in once with the supplied login, before anything is changed for it.
    TryPassword,
    /// Store the password that Grafana accepted.
    StorePassword,
    /// Sign in as `admin` with a password other than Grafana's default, and replace the default if
    /// it is in force; for another account, check that admin/admin is rejected.
    SecurePassword,
    /// Set the password with Grafana's command-line tool inside the container.
    ResetPassword,
    /// Record the server's version in its volume.
    RecordVersion,
    /// If another version than the last one is about to start, copy Grafana's database inside its
    /// volume and record the version.
    ProtectDatabase {
        /// The image that ran last, if a container shows it.
        last: Option<NamedImage>,
    },
    /// Create a container on a port chosen by the engine, for restoring data through it.
    CreateForRestore(Role),
    /// Restore the copy of the database that belongs to a failed version, and delete the copy.
    RestoreDatabase,
    /// Run the dashboard's queries on the new version; if they succeed, accept the version and
    /// delete the copy.
    FinishUpgrade,
    /// Stop and remove the container.
    RemoveContainer(Role),
    /// Unpause the container.
    UnpauseContainer(Role),
    /// Start the container.
    StartContainer(Role),
    /// Wait until the server answers, or its container has exited.
    AwaitAnswer(Role),
    /// Create the database.
    CreateDatabase,
    /// Set the database's retention period, if it has not changed since it was read.
    SetRetention {
        /// The retention period as read; `None` if unknown.
        from: Option<Retention>,
    },
    /// Create the organisation.
    CreateOrganisation,
    /// Create the folder.
    CreateFolder,
    /// Create or update the data source.
    SaveDataSource {
        /// Take over one that was created for another address or database.
        moves: bool,
    },
    /// Create or update a dashboard.
    SaveDashboard {
        /// The dashboard.
        id: DashboardId,
        /// Replace an edited one.
        overwrite: bool,
        /// The server was just created, so there is no earlier version to read.
        fresh: bool,
        /// Take over one that was created for another address or database.
        moves: bool,
    },
    /// Make the dashboard the organisation's home page, if it has none.
    SetHome,
    /// Delete a dashboard unless it was edited.
    DeleteDashboard(DashboardId),
    /// Delete the folder if it was created for the dashboard and is empty.
    DeleteFolder,
    /// Delete the data source.
    DeleteDataSource,
    /// Create or update the alert rules, in their folder and group.
    SaveAlertRules {
        /// The latency objective in microseconds; `None` means the dashboard's.
        objective: Option<u64>,
        /// Replace edited rules.
        overwrite: bool,
        /// Take over rules that were created for another address or database.
        moves: bool,
    },
    /// Delete the unedited alert rules, and their folder if it is then empty.
    DeleteAlertRules {
        /// Also delete rules that were created for another address or database.
        moves: bool,
    },
    /// Repeat a query through the data source until its answer is correct; save the data source
    /// again if Grafana contradicts its own settings.
    VerifyQuery,
}

/// The initial password of a new Grafana container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NewPassword {
    /// According to the specification.
    Known(PasswordSource),
    /// From the volume's file if it exists, otherwise Grafana's default. The volume was kept, and
    /// no container is left to show which.
    AsVolume,
}

/// When a step runs. A phase begins once the previous one has succeeded for both roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The network, without which no container can start.
    Network,
    /// Pulls, checks, and logins to a running Grafana. Nothing is removed or stopped.
    Preparation,
    /// A login that can be tried only on a private container, which may replace Grafana's own.
    Trial,
    /// The settings, after every supplied value has been checked.
    Settings,
    /// Removal of containers whose port the other role needs.
    Release,
    /// All other steps for one role.
    Changes,
    /// Steps that need both servers or neither.
    End,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 7] =
        [Self::Network, Self::Preparation, Self::Trial, Self::Settings, Self::Release, Self::Changes, Self::End];
}

/// Where a step runs; the lanes of the two roles run in parallel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Before both roles.
    First,
    /// After both roles are prepared, before a container changes.
    Settings,
    /// In parallel with the other role.
    Beside(Role),
    /// After both roles.
    Last,
}

impl Step {
    /// Where the step runs.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            // A container cannot start while two networks have the same name.
            Self::CreateNetwork | Self::RemoveSpareNetworks => Lane::First,
            Self::SaveSettings { .. } | Self::BeginRestore | Self::FinishRestore => Lane::Settings,
            Self::RemoveNetwork | Self::RemoveSettings | Self::VerifyQuery | Self::FinishUpgrade => Lane::Last,
            _ => Lane::Beside(self.role()),
        }
    }

    /// The server that the step belongs to; steps for neither count as Grafana's.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self.resource() {
            Resource::Server(role) | Resource::Volume(role) => role,
            Resource::Database | Resource::Retention => Role::Influxdb,
            _ => Role::Grafana,
        }
    }

    /// The resource that the step changes.
    #[must_use]
    pub const fn resource(&self) -> Resource {
        self.facts().0
    }

    /// The action's name in JSON; never changes.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        self.facts().1
    }

    /// Hidden from progress output when it finishes at once, because it only prepares or completes
    /// another step.
    #[must_use]
    pub const fn is_routine(&self) -> bool {
        matches!(
            self,
            Self::CheckImage { .. }
                | Self::CheckAddress(..)
                | Self::CreateNetwork
                | Self::RemoveNetwork
                | Self::RemoveSpareNetworks
                | Self::SaveSettings { .. }
                | Self::BeginRestore
                | Self::FinishRestore
                | Self::CreateVolume(_)
                | Self::CreateContainer(..)
                | Self::CreatePrivateContainer { .. }
                | Self::WritePassword
                | Self::StorePassword
                | Self::RecordVersion
                | Self::ProtectDatabase { .. }
                | Self::CreateForRestore(_)
                | Self::AwaitAnswer(_)
                | Self::SetHome
        )
    }

    /// Resource, action, and the step's text in the imperative; `{}` becomes the server,
    /// `{dashboard}` the dashboard.
    const fn facts(&self) -> (Resource, &'static str, &'static str) {
        use Resource::{
            Dashboard, DataSource, Database, Folder, Network, Organisation, Query, Server, Settings, Volume,
        };
        let grafana = Server(Role::Grafana);
        match *self {
            Self::PullImage(role) => (Server(role), "pull_image", "pull {}'s image"),
            Self::CheckImage { role, .. } => (Server(role), "check_image", "check {}'s image against its volume"),
            Self::CheckAddress(role, _) => (Server(role), "check_address", "check that {}'s address is available"),
            Self::CreateNetwork => (Network, "create_network", "create the network"),
            Self::RemoveNetwork => (Network, "remove_network", "remove the network"),
            Self::RemoveSpareNetworks => (Network, "remove_spare_networks", "remove duplicate networks"),
            Self::SaveSettings { .. } => (Settings, "save_settings", "save the settings"),
            Self::BeginRestore => (Settings, "begin_restore", "record the start of the restore"),
            Self::FinishRestore => (Settings, "finish_restore", "record the end of the restore"),
            Self::RemoveSettings => (Settings, "remove_settings", "delete the settings"),
            Self::CreateVolume(role) => (Server(role), "create_volume", "create {}'s volume"),
            Self::RemoveVolume(role) => (Volume(role), "remove_volume", "delete {}'s volume"),
            Self::CreateContainer(role, _) => (Server(role), "create_container", "create {}'s container"),
            Self::CreatePrivateContainer { .. } => {
                (grafana, "create_container_on_loopback", "create {}'s container on loopback only")
            }
            Self::WritePassword => (grafana, "ensure_password", "write {}'s password to its volume"),
            Self::TryPassword => (grafana, "try_password", "try the supplied login"),
            Self::StorePassword => (grafana, "store_password", "store {}'s password in its volume"),
            Self::SecurePassword => (grafana, "secure_password", "replace {}'s default password"),
            Self::ResetPassword => (grafana, "reset_password", "reset {}'s password"),
            Self::RecordVersion => (grafana, "record_version", "record {}'s version in its volume"),
            Self::ProtectDatabase { .. } => (grafana, "protect_database", "copy {}'s database if its version changes"),
            Self::CreateForRestore(role) => {
                (Server(role), "create_container_for_restore", "create {}'s container for its data")
            }
            Self::RestoreDatabase => (grafana, "restore_database", "restore the copy of {}'s database"),
            Self::FinishUpgrade => (Resource::Upgrade, "finish_upgrade", "verify the dashboard's queries"),
            Self::RemoveContainer(role) => (Server(role), "remove_container", "remove {}'s container"),
            Self::UnpauseContainer(role) => (Server(role), "unpause_container", "unpause {}'s container"),
            Self::StartContainer(role) => (Server(role), "start_container", "start {}"),
            Self::AwaitAnswer(role) => (Server(role), "await_answer", "wait for {}"),
            Self::SetRetention { .. } => (Resource::Retention, "set_retention", "set the retention period"),
            Self::CreateDatabase => (Database, "create_database", "create the database"),
            Self::CreateOrganisation => (Organisation, "create_organisation", "create Grafana's organisation"),
            Self::CreateFolder => (Folder, "create_folder", "create Grafana's folder"),
            Self::SaveDataSource { .. } => (DataSource, "save_data_source", "save the data source"),
            Self::SaveDashboard { id, .. } => (Dashboard(id), "save_dashboard", "save the {dashboard}"),
            Self::SetHome => {
                (Dashboard(DashboardId::Bundled), "set_home", "make the dashboard the home page if there is none")
            }
            Self::DeleteDashboard(id) => (Dashboard(id), "delete_dashboard", "delete the {dashboard}"),
            Self::DeleteFolder => (Folder, "delete_folder", "delete Grafana's folder if it is empty"),
            Self::DeleteDataSource => (DataSource, "delete_data_source", "delete the data source"),
            Self::SaveAlertRules { .. } => (Resource::Alerts, "save_alert_rules", "save the alert rules"),
            Self::DeleteAlertRules { .. } => (Resource::Alerts, "delete_alert_rules", "delete the alert rules"),
            Self::VerifyQuery => (Query, "await_query", "verify that Grafana reaches the database"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resource, _, text) = self.facts();
        f.write_str(&text.replace("{}", self.role().title()).replace("{dashboard}", &resource.to_string()))
    }
}
