//! The connections of a run: how each server is reached, and which logins were tried.

use super::login::Logins;
use crate::error::{Error, Result};
use crate::grafana::{Choice, Grafana};
use crate::http::{Http, PROBE};
use crate::influxdb::Influxdb;
use crate::model::address::ServerUrl;
use crate::model::observed::ServerResponse;
use crate::model::role::{PerRole, Role};

pub(crate) type Connections = PerRole<Connection>;

/// The connection to one server. An observation moves it to the server's actual address, and so does a step that
/// creates or starts a container.
pub(crate) struct Connection {
    pub(super) role: Role,
    /// A client without credentials.
    pub(super) http: Http,
    /// The engine's id of the container.
    container: Option<String>,
    /// The logins to Grafana.
    pub(super) logins: Logins,
}

/// Whether a server of that role answers, and its version; requested without credentials.
pub(super) async fn health(role: Role, http: Http) -> (ServerResponse<()>, Option<String>) {
    match role {
        Role::Influxdb => Influxdb::new(http).version(PROBE).await,
        Role::Grafana => Grafana::new(http, Choice::First).health(PROBE).await,
    }
}

impl Connection {
    pub(super) fn new(role: Role, http: Http) -> Self {
        Self { role, http, container: None, logins: Logins::default() }
    }

    pub(super) fn move_to(&mut self, way: &ServerUrl, shown: &str) {
        let way = way.to_string();
        if !self.http.is_at(&way, shown) {
            self.http = self.http.at(&way, shown);
        }
    }

    /// Sets the container; another container may have another login.
    pub(super) fn hold(&mut self, container: Option<String>) {
        if self.container != container {
            self.container = container;
            self.logins = Logins::default();
        }
    }

    /// The engine's id of the container, if it is managed.
    pub(super) fn held(&self) -> Option<&String> {
        self.container.as_ref()
    }

    /// The engine's id of the container, as last observed or created by this run.
    ///
    /// # Errors
    /// [`Error::Raced`] if there is none.
    pub(crate) fn container(&self) -> Result<&str> {
        self.container.as_deref().ok_or_else(|| Error::Raced {
            doing: format!("work on the container of {}", self.role.title()),
            why: "another process removed it".into(),
        })
    }
}
