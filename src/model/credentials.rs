//! How to sign in to the servers, and which certificates to trust.

use std::path::PathBuf;

use super::stack::Secret;

/// How to sign in, and whom to trust.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Grafana's user.
    pub grafana_user: String,
    /// The password that was given for it.
    pub grafana_password: Option<Secret>,
    /// The password in force where nothing else is known: Grafana's own default.
    pub default_password: Secret,
    /// A token for Grafana, instead of user and password.
    pub grafana_token: Option<Secret>,
    /// For an InfluxDB that is not ours.
    pub influxdb: Option<InfluxdbLogin>,
    /// Certificates to trust.
    pub ca_file: Option<CaFile>,
}

/// How to sign in to an InfluxDB that wants it.
#[derive(Debug, Clone)]
pub struct InfluxdbLogin {
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// Certificates to trust, already read.
#[derive(Debug, Clone)]
pub struct CaFile {
    /// Where they were read.
    pub path: PathBuf,
    /// The file's content, PEM.
    pub pem: Vec<u8>,
}
