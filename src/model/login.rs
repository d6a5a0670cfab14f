//! Grafana's logins by name. Facts and steps name a login; only the client of Grafana gets its secret.

/// A login to Grafana.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// The supplied token.
    Token,
    /// The supplied password.
    Supplied,
    /// Grafana's default password.
    Default,
    /// The password in the volume that an interrupted run was setting.
    Pending,
    /// The password in the volume.
    Stored,
    /// The new password of this run.
    Generated,
}

/// Whether `admin` with Grafana's default password is rejected, as tried on a Grafana that no other host can reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DefaultLogin {
    /// Not tried: a rejected attempt would count towards the lockout.
    #[default]
    NotTried,
    /// Rejected by every way to sign in.
    Rejected,
    /// Accepted by one of them.
    Accepted,
    /// Rejected, but no way to sign in with a password is offered that could accept it.
    Unverifiable,
}
