//! The steps that a plan is made of: what each does, on what, and beside what.
//!
//! Must not know when a step is needed, nor how it is carried out.

use std::fmt;

use super::Resource;
use crate::core::stack::{Password, Role};

/// One idempotent action; each is one arm of `apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Fetch the wanted image.
    PullImage(Role),
    /// Make sure that the image can use the volume, before anything is removed for it.
    CheckImage(Role),
    /// Make the network.
    CreateNetwork,
    /// Remove every network of the instance.
    RemoveNetwork,
    /// Remove the networks of the instance except the one that is kept.
    RemoveSpareNetworks,
    /// Make the volume.
    CreateVolume(Role),
    /// Remove the volume and all data in it.
    RemoveVolume(Role),
    /// Make the container as specified.
    CreateContainer(Role, Password),
    /// Make Grafana's container on loopback, whatever the specification says, since its password
    /// may still be the default.
    CreateGuarded,
    /// Look for a password in the volume that a container was made for, and make the container
    /// anew if there is one.
    AdoptPassword,
    /// See to it that the password file exists before Grafana starts.
    EnsurePassword,
    /// Keep the given password, which Grafana has accepted.
    StorePassword,
    /// Replace the default password, while Grafana is on loopback.
    SecurePassword,
    /// Set the password with Grafana's own command inside the container.
    ResetPassword,
    /// Stop and remove the container.
    RemoveContainer(Role),
    /// Thaw the container.
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
    SaveDashboard,
    /// Make the dashboard the organisation's home page, if it has none.
    SetHome,
    /// Ask through the data source until the answer is right, saving it again where Grafana
    /// contradicts its own settings.
    AwaitQuery,
}

/// Where a step runs: the two roles are worked on side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Before the others.
    First,
    /// Beside the other role.
    Beside(Role),
    /// After the others.
    Last,
}

impl Step {
    /// Where the step runs.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            // No container can start where two networks have one name.
            Self::CreateNetwork | Self::RemoveSpareNetworks => Lane::First,
            Self::RemoveNetwork | Self::AwaitQuery => Lane::Last,
            Self::PullImage(role)
            | Self::CheckImage(role)
            | Self::CreateVolume(role)
            | Self::RemoveVolume(role)
            | Self::CreateContainer(role, _)
            | Self::RemoveContainer(role)
            | Self::UnpauseContainer(role)
            | Self::StartContainer(role)
            | Self::AwaitAnswer(role) => Lane::Beside(*role),
            Self::CreateDatabase => Lane::Beside(Role::Influxdb),
            Self::CreateGuarded
            | Self::AdoptPassword
            | Self::EnsurePassword
            | Self::StorePassword
            | Self::SecurePassword
            | Self::ResetPassword
            | Self::CreateOrganisation
            | Self::CreateFolder
            | Self::SaveDataSource
            | Self::SaveDashboard
            | Self::SetHome => Lane::Beside(Role::Grafana),
        }
    }

    /// The resource that the step works on.
    #[must_use]
    pub const fn resource(&self) -> Resource {
        match self {
            Self::CreateNetwork | Self::RemoveNetwork | Self::RemoveSpareNetworks => Resource::Network,
            Self::RemoveVolume(role) => Resource::Volume(*role),
            Self::PullImage(role)
            | Self::CheckImage(role)
            | Self::CreateVolume(role)
            | Self::CreateContainer(role, _)
            | Self::RemoveContainer(role)
            | Self::UnpauseContainer(role)
            | Self::StartContainer(role)
            | Self::AwaitAnswer(role) => Resource::Server(*role),
            Self::CreateGuarded
            | Self::AdoptPassword
            | Self::EnsurePassword
            | Self::StorePassword
            | Self::SecurePassword
            | Self::ResetPassword => Resource::Server(Role::Grafana),
            Self::CreateDatabase => Resource::Database,
            Self::CreateOrganisation => Resource::Organisation,
            Self::CreateFolder => Resource::Folder,
            Self::SaveDataSource => Resource::DataSource,
            Self::SaveDashboard | Self::SetHome => Resource::Dashboard,
            Self::AwaitQuery => Resource::Query,
        }
    }

    /// The action in one word, for machines.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::PullImage(_) => "pull_image",
            Self::CheckImage(_) => "check_image",
            Self::CreateNetwork => "create_network",
            Self::RemoveNetwork => "remove_network",
            Self::RemoveSpareNetworks => "remove_spare_networks",
            Self::CreateVolume(_) => "create_volume",
            Self::RemoveVolume(_) => "remove_volume",
            Self::CreateContainer(..) => "create_container",
            Self::CreateGuarded => "create_container_on_loopback",
            Self::AdoptPassword => "adopt_password",
            Self::EnsurePassword => "ensure_password",
            Self::StorePassword => "store_password",
            Self::SecurePassword => "secure_password",
            Self::ResetPassword => "reset_password",
            Self::RemoveContainer(_) => "remove_container",
            Self::UnpauseContainer(_) => "unpause_container",
            Self::StartContainer(_) => "start_container",
            Self::AwaitAnswer(_) => "await_answer",
            Self::CreateDatabase => "create_database",
            Self::CreateOrganisation => "create_organisation",
            Self::CreateFolder => "create_folder",
            Self::SaveDataSource => "save_data_source",
            Self::SaveDashboard => "save_dashboard",
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
            Self::CreateVolume(role) => write!(f, "create {}'s volume", role.title()),
            Self::RemoveVolume(role) => write!(f, "delete {}'s volume", role.title()),
            Self::CreateContainer(role, _) => write!(f, "create {}'s container", role.title()),
            Self::CreateGuarded => f.write_str("create Grafana's container on loopback only"),
            Self::AdoptPassword => f.write_str("look for Grafana's password in its volume"),
            Self::EnsurePassword => f.write_str("put Grafana's password into its volume"),
            Self::StorePassword => f.write_str("keep Grafana's new password in its volume"),
            Self::SecurePassword => f.write_str("replace Grafana's default password"),
            Self::ResetPassword => f.write_str("reset Grafana's password"),
            Self::RemoveContainer(role) => write!(f, "remove {}'s container", role.title()),
            Self::UnpauseContainer(role) => write!(f, "unpause {}'s container", role.title()),
            Self::StartContainer(role) => write!(f, "start {}", role.title()),
            Self::AwaitAnswer(role) => write!(f, "wait for {}", role.title()),
            Self::CreateDatabase => f.write_str("create the database"),
            Self::CreateOrganisation => f.write_str("create Grafana's organisation"),
            Self::CreateFolder => f.write_str("create Grafana's folder"),
            Self::SaveDataSource => f.write_str("save the data source"),
            Self::SaveDashboard => f.write_str("save the dashboard"),
            Self::SetHome => f.write_str("make the dashboard the home page if there is none"),
            Self::AwaitQuery => f.write_str("verify that Grafana reaches the database"),
        }
    }
}
