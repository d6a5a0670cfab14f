//! The steps that a plan is made of: what each does, on what, and beside what.
//!
//! Must not know when a step is needed, nor how it is carried out.

use std::fmt;

use super::Resource;
use crate::core::role::Role;
use crate::core::specification::PasswordSource;

/// One idempotent action; each is one arm of `apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Fetch the image.
    PullImage(Role),
    /// Make sure that the image can use the volume, before anything is removed for it.
    CheckImage(Role),
    /// Make the network.
    CreateNetwork,
    /// Remove every network of the instance.
    RemoveNetwork,
    /// Remove the networks of the instance except the one that is kept.
    RemoveSpareNetworks,
    /// Write the given settings as a whole, and remove what was remembered before.
    SaveSettings,
    /// Remove the remembered settings.
    RemoveSettings,
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
    /// Make the organisation.
    CreateOrganisation,
    /// Make the folder.
    CreateFolder,
    /// Create or update the data source.
    SaveDataSource,
    /// Create or update the dashboard.
    SaveDashboard {
        /// Replace one that somebody edited.
        overwrite: bool,
    },
    /// Make the dashboard the organisation's home page, if it has none.
    SetHome,
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
            Self::SaveSettings => Lane::Settings,
            Self::RemoveNetwork | Self::RemoveSettings | Self::AwaitQuery => Lane::Last,
            _ => Lane::Beside(self.role()),
        }
    }

    /// The server that the step has to do with; what belongs to neither counts as Grafana's.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self.resource() {
            Resource::Server(role) | Resource::Volume(role) => role,
            Resource::Database => Role::Influxdb,
            _ => Role::Grafana,
        }
    }

    /// The resource that the step works on.
    #[must_use]
    pub const fn resource(&self) -> Resource {
        match self {
            Self::CreateNetwork | Self::RemoveNetwork | Self::RemoveSpareNetworks => Resource::Network,
            Self::SaveSettings | Self::RemoveSettings => Resource::Settings,
            Self::RemoveVolume(role) => Resource::Volume(*role),
            Self::PullImage(role)
            | Self::CheckImage(role)
            | Self::CreateVolume(role)
            | Self::CreateContainer(role, _)
            | Self::RemoveContainer(role)
            | Self::UnpauseContainer(role)
            | Self::StartContainer(role)
            | Self::AwaitAnswer(role) => Resource::Server(*role),
            Self::CreateOnLoopback
            | Self::WritePassword
            | Self::TryPassword
            | Self::StorePassword
            | Self::SecurePassword
            | Self::ResetPassword
            | Self::RecordVersion => Resource::Server(Role::Grafana),
            Self::CreateDatabase => Resource::Database,
            Self::CreateOrganisation => Resource::Organisation,
            Self::CreateFolder => Resource::Folder,
            Self::SaveDataSource => Resource::DataSource,
            Self::SaveDashboard { .. } | Self::SetHome => Resource::Dashboard,
            Self::AwaitQuery => Resource::Query,
        }
    }

    /// The action in one word, for machines; never renamed.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::PullImage(_) => "pull_image",
            Self::CheckImage(_) => "check_image",
            Self::CreateNetwork => "create_network",
            Self::RemoveNetwork => "remove_network",
            Self::RemoveSpareNetworks => "remove_spare_networks",
            Self::SaveSettings => "save_settings",
            Self::RemoveSettings => "remove_settings",
            Self::CreateVolume(_) => "create_volume",
            Self::RemoveVolume(_) => "remove_volume",
            Self::CreateContainer(..) => "create_container",
            Self::CreateOnLoopback => "create_container_on_loopback",
            Self::WritePassword => "ensure_password",
            Self::TryPassword => "try_password",
            Self::StorePassword => "store_password",
            Self::SecurePassword => "secure_password",
            Self::ResetPassword => "reset_password",
            Self::RecordVersion => "record_version",
            Self::RemoveContainer(_) => "remove_container",
            Self::UnpauseContainer(_) => "unpause_container",
            Self::StartContainer(_) => "start_container",
            Self::AwaitAnswer(_) => "await_answer",
            Self::CreateDatabase => "create_database",
            Self::CreateOrganisation => "create_organisation",
            Self::CreateFolder => "create_folder",
            Self::SaveDataSource => "save_data_source",
            Self::SaveDashboard { .. } => "save_dashboard",
            Self::SetHome => "set_home",
            Self::AwaitQuery => "await_query",
        }
    }
}

impl fmt::Display for Step {
    /// The step as a person reads it, in the imperative.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullImage(role) => write!(f, "pull {}'s image", role.title()),
            Self::CheckImage(role) => write!(f, "check {}'s image against its volume", role.title()),
            Self::CreateNetwork => f.write_str("create the network"),
            Self::RemoveNetwork => f.write_str("remove the network"),
            Self::RemoveSpareNetworks => f.write_str("remove a second network of that name"),
            Self::SaveSettings => f.write_str("save the settings"),
            Self::RemoveSettings => f.write_str("delete the settings"),
            Self::CreateVolume(role) => write!(f, "create {}'s volume", role.title()),
            Self::RemoveVolume(role) => write!(f, "delete {}'s volume", role.title()),
            Self::CreateContainer(role, _) => write!(f, "create {}'s container", role.title()),
            Self::CreateOnLoopback => f.write_str("create Grafana's container on loopback only"),
            Self::WritePassword => f.write_str("put Grafana's password into its volume"),
            Self::TryPassword => f.write_str("try the given login"),
            Self::StorePassword => f.write_str("store Grafana's password in its volume"),
            Self::SecurePassword => f.write_str("replace Grafana's default password"),
            Self::ResetPassword => f.write_str("reset Grafana's password"),
            Self::RecordVersion => f.write_str("record Grafana's version in its volume"),
            Self::RemoveContainer(role) => write!(f, "remove {}'s container", role.title()),
            Self::UnpauseContainer(role) => write!(f, "unpause {}'s container", role.title()),
            Self::StartContainer(role) => write!(f, "start {}", role.title()),
            Self::AwaitAnswer(role) => write!(f, "wait for {}", role.title()),
            Self::CreateDatabase => f.write_str("create the database"),
            Self::CreateOrganisation => f.write_str("create Grafana's organisation"),
            Self::CreateFolder => f.write_str("create Grafana's folder"),
            Self::SaveDataSource => f.write_str("save the data source"),
            Self::SaveDashboard { .. } => f.write_str("save the dashboard"),
            Self::SetHome => f.write_str("make the dashboard the home page if there is none"),
            Self::AwaitQuery => f.write_str("verify that Grafana reaches the database"),
        }
    }
}
