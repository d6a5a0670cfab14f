//! Signs in to Grafana: sends the logins that [`next_login`] chooses, and carries out the steps that set passwords.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Session;
use super::cause::is_locked_out;
use super::connection::Connection;
use crate::backoff::ticks;
use crate::error::{Error, Result};
use crate::grafana::{Grafana, response_to};
use crate::http::Auth;
use crate::model::login::{
    Attempt, Credential, DefaultLogin, FormLogin, LoginAttempts, LoginState, NextLogin, SignedInAccount, next_login,
};
use crate::model::observed::{self, ObservedServer, OurContainer, ServerResponse};
use crate::model::role::Role;
use crate::model::stack::{Login, Secret};
use crate::model::volume_content::VolumeFiles;

/// A line of Grafana's log may reach the engine later than its response does: the log is read after each of these delays.
const LOG_DELAY: Duration = Duration::from_millis(500);
const READS_OF_LOG: usize = 4;

impl Session {
    fn basic(&self, password: Secret) -> Auth {
        Auth::Basic(self.credentials.grafana_user.clone(), password)
    }

    fn auth(&self, attempt: &Attempt) -> Auth {
        match attempt.credential {
            Credential::Token => Auth::Bearer(attempt.secret.clone()),
            _ => self.basic(attempt.secret.clone()),
        }
    }

    /// The login with its secret; `None` if there is none.
    fn attempt(&self, credential: Credential, files: Option<&VolumeFiles>) -> Option<Attempt> {
        let credentials = &self.credentials;
        let secret = match credential {
            Credential::Token => credentials.grafana_token.clone(),
            Credential::Supplied => credentials.grafana_password.clone(),
            Credential::Default => Some(Secret::new(Login::PUBLIC_PASSWORD)),
            Credential::Pending => files?.pending.clone(),
            Credential::Stored => files?.password.clone(),
            Credential::Generated => Some(self.generated.clone()),
        }?;
        Some(Attempt { credential, secret })
    }

    /// Like [`Self::attempt`], but for a step, whose login existed when it was planned.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process removed the file that contains it.
    async fn planned_attempt(&self, connection: &Connection, credential: Credential) -> Result<Attempt> {
        let files = match credential {
            Credential::Pending | Credential::Stored => Some(self.read_files(connection).await?),
            _ => None,
        };
        self.attempt(credential, files.as_ref()).ok_or_else(|| Error::Raced {
            doing: "sign in to Grafana".into(),
            why: "another process removed the password in its volume".into(),
        })
    }

    /// Reads the files of clipper-metrics in the volume of Grafana's container.
    pub(super) async fn read_files(&self, connection: &Connection) -> Result<VolumeFiles> {
        self.docker()?.read_files(connection.container()?).await
    }

    /// Signs in and reads the content of a Grafana that has just answered. A Grafana with anonymous
    /// access answers requests even if the password is wrong. Sets `files` to the files in the volume whenever it
    /// reads them.
    pub(super) async fn observe_signed_in(
        &self,
        connection: &mut Connection,
        is_anonymous: bool,
        actual: Option<&OurContainer>,
        files: &mut Option<VolumeFiles>,
        influxdb_runs: bool,
    ) -> Result<(ServerResponse<observed::GrafanaState>, LoginState)> {
        connection.attempts.end_lockout(Instant::now());
        if actual.is_some() && connection.attempts.reads_again(Instant::now()) {
            let read = self.read_files(connection).await?;
            connection.attempts.retry_with(&read, Instant::now());
            *files = Some(read);
        }
        if let Some(message) = connection.attempts.rejection() {
            return Ok((ServerResponse::Refusing(message.to_string()), rejected_login(connection)));
        }
        let mut rejection = "the login was already rejected".to_string();
        loop {
            let Some(attempt) = self.next_attempt(connection, actual, files).await? else {
                connection.give_up(&rejection, files.as_ref());
                if self.is_locked_out(actual).await {
                    connection.attempts.lock_out(Instant::now());
                }
                return Ok((ServerResponse::Refusing(rejection), rejected_login(connection)));
            };
            let mut client = self.grafana_client(connection, self.auth(&attempt));
            let signed_in = if is_anonymous { client.try_to_sign_in().await } else { Ok(()) };
            let response = match signed_in {
                Ok(()) => client.observe(&self.stack, influxdb_runs).await,
                Err(error) => response_to(error),
            };
            match response {
                ServerResponse::Refusing(message) => {
                    connection.reject(attempt);
                    rejection = message;
                }
                ServerResponse::Answering(_) => {
                    connection.accept(attempt.clone());
                    return Ok(match self.login_state(connection, &attempt, actual, files).await? {
                        Ok(login) => (response, login),
                        // This login was accepted.
                        Err(Error::Refused { message, .. }) => (ServerResponse::Silent(message), LoginState::default()),
                        Err(error) => (response_to(error), LoginState::default()),
                    });
                }
                response => return Ok((response, LoginState::default())),
            }
        }
    }

    /// Whether a managed Grafana, which has just rejected a password, would reject the right one, too. Only its log shows
    /// it, and an engine may receive the line after the response.
    async fn is_locked_out(&self, actual: Option<&OurContainer>) -> bool {
        let (Some(docker), Some(actual), false) = (&self.docker, actual, self.stack.login.uses_token) else {
            return false;
        };
        // The first tick is at once, when an earlier line might be the last one.
        let mut ticks = ticks(LOG_DELAY);
        ticks.tick().await;
        for _ in 0..READS_OF_LOG {
            ticks.tick().await;
            if is_locked_out(&docker.recent_lines(&actual.id).await) {
                return true;
            }
        }
        false
    }

    /// The login to send next: the accepted one, otherwise the one that [`next_login`] chooses. If Grafana rejects an
    /// accepted one, the others are tried: at most four in all, and Grafana locks a user out after five.
    async fn next_attempt(
        &self,
        connection: &Connection,
        actual: Option<&OurContainer>,
        files: &mut Option<VolumeFiles>,
    ) -> Result<Option<Attempt>> {
        if let Some(accepted) = connection.attempts.accepted() {
            return Ok(Some(accepted.clone()));
        }
        loop {
            let untried = |credential| {
                let attempt = self.attempt(credential, files.as_ref());
                attempt.filter(|attempt| !connection.attempts.is_rejected(attempt))
            };
            match next_login(&self.stack, actual, files.as_ref(), |credential| untried(credential).is_some()) {
                NextLogin::Try(credential) => return Ok(untried(credential)),
                NextLogin::ReadFiles => *files = Some(self.read_files(connection).await?),
                NextLogin::GiveUp => return Ok(None),
            }
        }
    }

    /// The facts that follow from an accepted login; the inner error is Grafana's.
    async fn login_state(
        &self,
        connection: &Connection,
        accepted: &Attempt,
        actual: Option<&OurContainer>,
        files: &mut Option<VolumeFiles>,
    ) -> Result<Result<LoginState>> {
        if files.is_none() && LoginState::needs_files(accepted, actual) {
            *files = Some(self.read_files(connection).await?);
        }
        let login = LoginState::new(&self.stack.login, accepted, actual, files.as_ref());
        if !login.tries_default(&self.stack, actual) {
            return Ok(Ok(login));
        }
        let default_login = self.default_login(connection, login).await;
        Ok(default_login.map(|default_login| LoginState { default_login, ..login }))
    }

    /// Checks whether every way to sign in rejects admin/admin.
    async fn default_login(&self, connection: &Connection, login: LoginState) -> Result<DefaultLogin> {
        let default = Secret::new(Login::PUBLIC_PASSWORD);
        let admin = self.grafana_client(connection, Auth::Basic(Login::ADMIN.into(), default.clone()));
        // The account admin has the accepted password for every way to sign in.
        let signs_in = match login.account {
            SignedInAccount::OwnPassword => false,
            _ => match admin.try_to_sign_in().await {
                Ok(()) => true,
                Err(Error::Refused { .. }) => false,
                Err(error) => return Err(error),
            },
        };
        let form = admin.try_login_form(Login::ADMIN, &default).await?;
        Ok(DefaultLogin::new(signs_in, form, login.accepted))
    }

    /// The password to show to the user: the accepted one, otherwise the stored one or Grafana's
    /// default. A rejected password is not shown.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn grafana_password(
        &self,
        connection: &Connection,
        seen: &ObservedServer,
    ) -> Result<Option<Secret>> {
        if let Some(accepted) = connection.attempts.accepted()
            && accepted.credential != Credential::Token
        {
            return Ok(Some(accepted.secret.clone()));
        }
        let is_stored = seen.container.ours().is_some_and(OurContainer::has_password_file);
        if is_stored && seen.unreadable.is_some() {
            return Ok(None);
        }
        let files = match &seen.content {
            _ if !is_stored => None,
            Some(content) => Some(content.files.clone()),
            None => Some(self.read_files(connection).await?),
        };
        let stored = self.attempt(Credential::Stored, files.as_ref());
        let shown = stored.or_else(|| self.attempt(Credential::Default, None));
        Ok(shown.filter(|shown| !connection.attempts.is_rejected(shown)).map(|shown| shown.secret))
    }

    /// A signed-in client for the running Grafana and its organisation, after an observation.
    ///
    /// # Errors
    /// [`Error::Refused`] if no login was accepted, [`Error::Raced`] if the organisation cannot be used any more, otherwise
    /// if the server does not answer.
    pub(crate) async fn grafana(&self, connection: &mut Connection) -> Result<Rc<Grafana>> {
        if let Some(client) = &connection.client {
            return Ok(Rc::clone(client));
        }
        let mut client = self.signed_in(connection)?;
        // Without it, requests would go to the account's active organisation.
        if client.enter(self.stack.organisation.as_deref()).await? != observed::OrganisationState::Present {
            let doing = "use Grafana's organisation".into();
            return Err(Error::Raced { doing, why: "another process has changed it".into() });
        }
        let client = Rc::new(client);
        connection.client = Some(Rc::clone(&client));
        Ok(client)
    }

    /// A client with the accepted login that names no organisation.
    pub(super) fn signed_in(&self, connection: &Connection) -> Result<Grafana> {
        let Some(accepted) = connection.attempts.accepted() else {
            let rejection = connection.attempts.rejection();
            return Err(Error::Refused {
                role: Role::Grafana,
                url: connection.http.address().to_string(),
                message: rejection.unwrap_or("no password is known").into(),
            });
        };
        Ok(self.grafana_client(connection, self.auth(accepted)))
    }

    /// Signs in once. Nothing is sent before the server is known to be the container.
    pub(super) async fn try_login(&self, connection: &mut Connection, credential: Credential) -> Result<()> {
        self.expect_the_container(connection).await?;
        let attempt = self.planned_attempt(connection, credential).await?;
        if connection.attempts.is_rejected(&attempt) {
            let url = connection.http.address().to_string();
            return Err(Error::Refused { role: Role::Grafana, url, message: "the login was already rejected".into() });
        }
        self.send_login(connection, attempt).await
    }

    /// Sends a login, and records the result.
    async fn send_login(&self, connection: &mut Connection, attempt: Attempt) -> Result<()> {
        let result = self.grafana_client(connection, self.auth(&attempt)).try_to_sign_in().await;
        match &result {
            Ok(()) => connection.accept(attempt),
            Err(Error::Refused { .. }) => connection.reject(attempt),
            Err(_) => {}
        }
        result
    }

    pub(super) async fn write_first_password(&self, connection: &Connection, password: Credential) -> Result<()> {
        let password = self.planned_attempt(connection, password).await?.secret;
        self.docker()?.write_first_password(connection.container()?, &password).await
    }

    /// Stores the password of an accepted login, once Grafana has confirmed it: another process may have changed it.
    ///
    /// # Errors
    /// [`Error::Raced`] if Grafana does not accept this login any more, otherwise an error from Grafana or the engine.
    pub(super) async fn store_password(
        &self,
        connection: &mut Connection,
        login: Credential,
        replaces_pending: bool,
    ) -> Result<()> {
        let raced = |why: String| Error::Raced { doing: "store Grafana's password".into(), why };
        let accepted = connection.attempts.accepted().filter(|accepted| accepted.credential == login).cloned();
        let accepted = accepted.ok_or_else(|| raced("another login was accepted meanwhile".into()))?;
        self.expect_the_container(connection).await?;
        self.send_login(connection, accepted.clone()).await.map_err(|error| match error {
            Error::Refused { message, .. } => raced(message),
            error => error,
        })?;
        self.docker()?.write_password(connection.container()?, &accepted.secret, replaces_pending).await
    }

    pub(super) async fn write_pending_password(&self, connection: &Connection, password: Credential) -> Result<()> {
        let password = self.planned_attempt(connection, password).await?.secret;
        self.docker()?.write_pending_password(connection.container()?, &password).await
    }

    /// Replaces the default password, with which Grafana was just observed.
    pub(super) async fn change_password(&self, connection: &mut Connection, new: Credential) -> Result<()> {
        self.expect_the_container(connection).await?;
        let new = self.planned_attempt(connection, new).await?;
        let default = Secret::new(Login::PUBLIC_PASSWORD);
        let client = self.grafana_client(connection, self.basic(default.clone()));
        client.change_password(&default, &new.secret).await?;
        connection.accept(new);
        Ok(())
    }

    /// Verifies that the login form rejects admin/admin.
    pub(super) async fn check_login_form(&self, connection: &Connection) -> Result<()> {
        let default = Secret::new(Login::PUBLIC_PASSWORD);
        match self.grafana_client(connection, Auth::None).try_login_form(Login::ADMIN, &default).await? {
            FormLogin::Rejected | FormLogin::NotOffered => Ok(()),
            FormLogin::Accepted => Err(Error::NotConfirmed {
                message: "Grafana's login form accepts admin/admin although the password of admin was replaced".into(),
                hint: format!("check the ways to sign in at {}", connection.http.address()),
            }),
        }
    }

    /// Sets the password with Grafana's own command.
    pub(super) async fn reset_password(
        &self,
        connection: &mut Connection,
        new: Credential,
        deadline: Instant,
    ) -> Result<()> {
        let password = self.planned_attempt(connection, new).await?.secret;
        self.docker()?.reset_password(connection.container()?, &password, deadline).await?;
        // Earlier results belong to the previous password.
        (connection.attempts, connection.client) = (LoginAttempts::default(), None);
        Ok(())
    }
}

/// The facts about a rejected login.
fn rejected_login(connection: &Connection) -> LoginState {
    LoginState { is_locked_out: connection.attempts.is_locked_out(), ..LoginState::default() }
}

/// A new password of 128 bits.
///
/// # Errors
/// [`Error::Io`] if the system provides no random numbers.
pub(crate) fn generate_password() -> Result<Secret> {
    random_hex().map(Secret::new)
}

/// 128 random bits in 32 digits.
pub(super) fn random_hex() -> Result<String> {
    let mut bytes = [0_u8; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).map_err(|_| Error::Io {
        doing: "generate a random number".into(),
        source: std::io::Error::other("the system provides no random numbers"),
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
