//! The steps that a plan is made of: what each does, on what, and beside what.
//!
//! Must not know when a step is needed, nor how it is carried out.

use std::fmt;
use std::net::SocketAddr;

use super::Resource;
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::specification::PasswordSource;
use crate::model::stack::DashboardId;

/// One idempotent action; each is one arm of `apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Fetch the image.
    PullImage(Role),
    /// Make sure that the image can use the volume, before anything is removed for it.
    CheckImage(Role),
    /// Verify that the engine can publish a server there, before anything is replaced for it. Port 0 stands for a port
    /// that a container of the instance holds.
    CheckAddress(Role, SocketAddr),
    /// Make the network.
    CreateNetwork,
    /// Remove every network of the instance.
    RemoveNetwork,
    /// Remove the networks of the instance except the one that is kept.
    RemoveSpareNetworks,
    /// Write the given settings as a whole, and remove what was remembered before.
    SaveSettings {
        /// The stored retention stays: whether the new one deletes points is not known yet.
        keeps_retention: bool,
    },
    /// Remove the remembered settings.
    RemoveSettings,
    /// Write the settings with a note that a restore has begun.
    BeginRestore,
    /// Write the settings without the note: all data is in.
    FinishRestore,
    /// Make the volume.
    CreateVolume(Role),
    /// Remove the volume and all data in it.
    RemoveVolume(Role),
    /// Make the container as specified.
    CreateContainer(Role, NewPassword),
    /// Make Grafana's container on a loopback port that the engine chooses, with Grafana's lockout
    /// switched off, since nobody else reaches it there.
    CreateOnLoopback,
    /// Write the given password, else a generated one, before Grafana's first start.
    WritePassword,
    /// Sign in once with what was given, before anything is changed for it.
    TryPassword,
    /// Keep the password that Grafana has accepted.
    StorePassword,
    /// Sign in as `admin` with another password than Grafana's default, which is replaced if it is
    /// in force; or, for another account, check that admin/admin is rejected.
    SecurePassword,
    /// Set the password with Grafana's own command inside the container.
    ResetPassword,
    /// Note the server's version in its volume.
    RecordVersion,
    /// Copy Grafana's database inside its volume if another version than before is about to start, and note
    /// what that is.
    ProtectDatabase,
    /// Create a container on a port that the engine chooses: data is put in through it.
    CreateForRestore(Role),
    /// Put the copy back, where there is one of the version that did not prove itself; that is the end of it.
    RestoreDatabase,
    /// Run the dashboard's queries on a new version; that it answers them is the proof, and the copy goes.
    FinishUpgrade,
    /// Stop and remove the container.
    RemoveContainer(Role),
    /// Unpause the container.
    UnpauseContainer(Role),
    /// Start the container.
    StartContainer(Role),
    /// Wait until the server answers, or its container has exited.
    AwaitAnswer(Role),
    /// Make the database.
    CreateDatabase,
    /// Set how long the database keeps points, if that is still as it was when it was looked at.
    SetRetention {
        /// How long it kept them; `None` where that was not known.
        from: Option<Retention>,
    },
    /// Make the organisation.
    CreateOrganisation,
    /// Make the folder.
    CreateFolder,
    /// Create or update the data source.
    SaveDataSource {
        /// Take one over that was made for another address or database.
        moves: bool,
    },
    /// Create or update a dashboard.
    SaveDashboard {
        /// Which.
        id: DashboardId,
        /// Replace one that somebody edited.
        overwrite: bool,
        /// The server has been made a moment ago: it holds nothing that is to be looked at first.
        fresh: bool,
        /// Take one over that was made for another address or database.
        moves: bool,
    },
    /// Make the dashboard the organisation's home page, if it has none.
    SetHome,
    /// Delete a dashboard, unless somebody has edited it.
    DeleteDashboard(DashboardId),
    /// Delete the folder, if it was made for the dashboard and holds nothing.
    DeleteFolder,
    /// Delete the data source.
    DeleteDataSource,
    /// Create or update the alert rules, in their folder and group.
    SaveAlertRules {
        /// The latency objective in microseconds; `None` is the dashboard's.
        objective: Option<u64>,
        /// Replace those that somebody edited.
        overwrite: bool,
        /// Take those over that were made for another address or database.
        moves: bool,
    },
    /// Delete the alert rules that nobody has edited, and their folder if it holds nothing else.
    DeleteAlertRules {
        /// Also those that were made for another address or database.
        moves: bool,
    },
    /// Ask through the data source until the answer is right, saving it again where Grafana
    /// contradicts its own settings.
    AwaitQuery,
}

/// Which password a new container of Grafana starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NewPassword {
    /// As the specification says.
    Known(PasswordSource),
    /// The volume's file where there is one, else Grafana's default: the volume was kept, and no
    /// container is left that says so.
    AsVolume,
}

/// When a step is executed. A phase begins when the one before it has succeeded for both roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The network, without which no container can start.
    Network,
    /// Pulls, checks, and logins at a Grafana that runs as it is. Nothing is removed or stopped.
    Preparation,
    /// A login that can be tried only on a private container: Grafana's own may be replaced by that.
    Trial,
    /// The settings, once everything that was supplied has been checked.
    Settings,
    /// Containers whose port the other role gets are removed.
    Release,
    /// Everything else that is done for one role.
    Changes,
    /// What needs both servers, or neither.
    End,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 7] =
        [Self::Network, Self::Preparation, Self::Trial, Self::Settings, Self::Release, Self::Changes, Self::End];
}

/// Where a step runs: the two roles are worked on side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Before the roles.
    First,
    /// When both roles are prepared, before a container changes.
    Settings,
    /// Beside the other role.
    Beside(Role),
    /// After the roles.
    Last,
}

impl Step {
    /// Where the step runs.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            // No container can start where two networks have one name.
            Self::CreateNetwork | Self::RemoveSpareNetworks => Lane::First,
            Self::SaveSettings { .. } | Self::BeginRestore | Self::FinishRestore => Lane::Settings,
            Self::RemoveNetwork | Self::RemoveSettings | Self::AwaitQuery | Self::FinishUpgrade => Lane::Last,
            _ => Lane::Beside(self.role()),
        }
    }

    /// The server that the step has to do with; what belongs to neither counts as Grafana's.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self.resource() {
            Resource::Server(role) | Resource::Volume(role) => role,
            Resource::Database | Resource::Retention => Role::Influxdb,
            _ => Role::Grafana,
        }
    }

    /// The resource that the step works on.
    #[must_use]
    pub const fn resource(&self) -> Resource {
        self.facts().0
    }

    /// The action in one word, for machines; never renamed.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        self.facts().1
    }

    /// Nobody would miss a word about it that took no time: it only prepares or ends something else.
    #[must_use]
    pub const fn is_routine(&self) -> bool {
        matches!(
            self,
            Self::CheckImage(_)
                | Self::CheckAddress(..)
                | Self::CreateNetwork
                | Self::RemoveNetwork
                | Self::RemoveSpareNetworks
                | Self::SaveSettings { .. }
                | Self::BeginRestore
                | Self::FinishRestore
                | Self::CreateVolume(_)
                | Self::CreateContainer(..)
                | Self::CreateOnLoopback
                | Self::WritePassword
                | Self::StorePassword
                | Self::RecordVersion
                | Self::ProtectDatabase
                | Self::CreateForRestore(_)
                | Self::AwaitAnswer(_)
                | Self::SetHome
        )
    }

    /// Resource, action, and the step as a person reads it, in the imperative; `{}` is the server, and
    /// `{dashboard}` says which.
    const fn facts(&self) -> (Resource, &'static str, &'static str) {
        use Resource::{
            Dashboard, DataSource, Database, Folder, Network, Organisation, Query, Server, Settings, Volume,
        };
        let grafana = Server(Role::Grafana);
        match *self {
            Self::PullImage(role) => (Server(role), "pull_image", "pull {}'s image"),
            Self::CheckImage(role) => (Server(role), "check_image", "check {}'s image against its volume"),
            Self::CheckAddress(role, _) => (Server(role), "check_address", "check that {}'s address is available"),
            Self::CreateNetwork => (Network, "create_network", "create the network"),
            Self::RemoveNetwork => (Network, "remove_network", "remove the network"),
            Self::RemoveSpareNetworks => (Network, "remove_spare_networks", "remove a second network of that name"),
            Self::SaveSettings { .. } => (Settings, "save_settings", "save the settings"),
            Self::BeginRestore => (Settings, "begin_restore", "note that a restore has begun"),
            Self::FinishRestore => (Settings, "finish_restore", "note that all data is in"),
            Self::RemoveSettings => (Settings, "remove_settings", "delete the settings"),
            Self::CreateVolume(role) => (Server(role), "create_volume", "create {}'s volume"),
            Self::RemoveVolume(role) => (Volume(role), "remove_volume", "delete {}'s volume"),
            Self::CreateContainer(role, _) => (Server(role), "create_container", "create {}'s container"),
            Self::CreateOnLoopback => {
                (grafana, "create_container_on_loopback", "create {}'s container on loopback only")
            }
            Self::WritePassword => (grafana, "ensure_password", "put {}'s password into its volume"),
            Self::TryPassword => (grafana, "try_password", "try the given login"),
            Self::StorePassword => (grafana, "store_password", "store {}'s password in its volume"),
            Self::SecurePassword => (grafana, "secure_password", "replace {}'s default password"),
            Self::ResetPassword => (grafana, "reset_password", "reset {}'s password"),
            Self::RecordVersion => (grafana, "record_version", "record {}'s version in its volume"),
            Self::ProtectDatabase => (grafana, "protect_database", "copy {}'s database if its version changes"),
            Self::CreateForRestore(role) => {
                (Server(role), "create_container_for_restore", "create {}'s container for its data")
            }
            Self::RestoreDatabase => (grafana, "restore_database", "put the copy of {}'s database back"),
            Self::FinishUpgrade => (Resource::Upgrade, "finish_upgrade", "verify the dashboard's queries"),
            Self::RemoveContainer(role) => (Server(role), "remove_container", "remove {}'s container"),
            Self::UnpauseContainer(role) => (Server(role), "unpause_container", "unpause {}'s container"),
            Self::StartContainer(role) => (Server(role), "start_container", "start {}"),
            Self::AwaitAnswer(role) => (Server(role), "await_answer", "wait for {}"),
            Self::SetRetention { .. } => {
                (Resource::Retention, "set_retention", "set how long the database keeps points")
            }
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
            Self::AwaitQuery => (Query, "await_query", "verify that Grafana reaches the database"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resource, _, text) = self.facts();
        f.write_str(&text.replace("{}", self.role().title()).replace("{dashboard}", &resource.to_string()))
    }
}
