//! The connections of a run: how each server is reached, and which logins were tried.

use std::rc::Rc;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::grafana::Grafana;
use crate::http::Http;
use crate::model::address::ServerUrl;
use crate::model::login::{Attempt, LoginAttempts};
use crate::model::role::{PerRole, Role};
use crate::model::version::Version;
use crate::model::volume_content::VolumeFiles;

pub(crate) type Connections = PerRole<Connection>;

/// The connection to one server. An observation moves it to the server's actual address, and so does a step that
/// creates or starts a container.
pub(crate) struct Connection {
    pub(super) role: Role,
    /// A client without credentials.
    pub(super) http: Http,
    /// The engine's id of the container.
    container: Option<String>,
    /// The logins tried at the current Grafana.
    pub(super) attempts: LoginAttempts,
    /// The server's version, once observed.
    pub(super) version: Option<Version>,
    /// A client that is signed in with the accepted login.
    pub(super) client: Option<Rc<Grafana>>,
}

impl Connection {
    pub(super) fn new(role: Role, http: Http) -> Self {
        Self { role, http, container: None, attempts: LoginAttempts::default(), version: None, client: None }
    }

    /// Continues an earlier connection to the same address, so that no rejected login is sent again.
    pub(crate) fn continue_from(&mut self, earlier: Self) {
        if earlier.http.address() == self.http.address() {
            (self.container, self.attempts) = (earlier.container, earlier.attempts);
        }
    }

    pub(super) fn move_to(&mut self, way: &ServerUrl, shown: &str) {
        let way = way.to_string();
        if !self.http.is_at(&way, shown) {
            self.http = self.http.at(&way, shown);
        }
    }

    /// Sets the container; another container that serves the role may have another login.
    pub(super) fn hold(&mut self, container: Option<String>, serves: bool) {
        if self.container != container && serves {
            (self.attempts, self.version, self.client) = (LoginAttempts::default(), None, None);
        }
        self.container = container;
    }

    pub(super) fn accept(&mut self, attempt: Attempt) {
        self.client = None;
        self.attempts.accept(attempt);
    }

    pub(super) fn reject(&mut self, attempt: Attempt) {
        self.client = None;
        self.attempts.reject(attempt);
    }

    /// Records that no login is left: another attempt would count as another wrong password.
    pub(super) fn give_up(&mut self, message: &str, files: Option<&VolumeFiles>) {
        self.client = None;
        self.attempts.give_up(message, files, Instant::now());
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
