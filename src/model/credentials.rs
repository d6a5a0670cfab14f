//! Credentials for the servers, and trusted certificates.

use std::path::PathBuf;

use super::stack::Secret;

/// Credentials for the servers, and the certificates to trust.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    pub(crate) grafana_user: String,
    /// The supplied password for that user.
    pub(crate) grafana_password: Option<Secret>,
    /// A token for Grafana, instead of user and password.
    pub(crate) grafana_token: Option<Secret>,
    /// For an external InfluxDB.
    pub(crate) influxdb: Option<InfluxdbLogin>,
    /// Additional certificates to trust.
    pub(crate) ca_file: Option<CaFile>,
}

/// Credentials for an InfluxDB that requires a login.
#[derive(Debug, Clone)]
pub(crate) struct InfluxdbLogin {
    pub(crate) user: String,
    pub(crate) password: Secret,
}

/// Certificates to trust, already loaded.
#[derive(Debug, Clone)]
pub(crate) struct CaFile {
    /// The file that they were read from.
    pub(crate) path: PathBuf,
    /// The file's content in PEM format.
    pub(crate) pem: Vec<u8>,
}
