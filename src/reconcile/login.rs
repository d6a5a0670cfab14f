//! Signs in to Grafana: finds the accepted login during an observation, and carries out the steps that set passwords.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Session;
use super::connection::Connection;
use crate::error::{Error, Result};
use crate::grafana::{FormLogin, Grafana};
use crate::http::Auth;
use crate::model::login::{Credential, DefaultLogin};
use crate::model::observed::{self, LoginState, OurContainer, PasswordFile, ServerResponse, SignedInAccount};
use crate::model::role::Role;
use crate::model::stack::{Login, Secret};
use crate::model::volume_content::VolumeFiles;

/// The interval at which the stored password is read again after a rejected login; Grafana locks a
/// user out after five wrong passwords.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The logins that this run has tried at the current container of Grafana.
#[derive(Default)]
pub(super) struct Logins {
    /// The files of clipper-metrics in the volume, once read.
    pub(super) files: Option<VolumeFiles>,
    accepted: Option<Attempt>,
    /// Rejected logins, which are not tried again.
    rejected: Vec<Auth>,
    /// Set when no login is left to try.
    gave_up: Option<Rejection>,
    /// The result for admin/admin, once tried.
    default_login: Option<DefaultLogin>,
    /// A client that is signed in.
    client: Option<Rc<Grafana>>,
}

/// A login, by name and with its secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    credential: Credential,
    auth: Auth,
}

#[derive(Clone)]
struct Rejection {
    message: String,
    at: Instant,
    files: Option<VolumeFiles>,
}

impl Logins {
    /// Forgets what each observation reads again.
    pub(super) fn forget_facts(&mut self) {
        (self.files, self.default_login) = (None, None);
    }

    fn accept(&mut self, attempt: Attempt) {
        (self.client, self.gave_up) = (None, None);
        // It may have been rejected before it became the password.
        self.rejected.retain(|rejected| *rejected != attempt.auth);
        self.accepted = Some(attempt);
    }

    fn refuse(&mut self, auth: Auth) {
        if self.accepted.as_ref().is_some_and(|accepted| accepted.auth == auth) {
            (self.accepted, self.client) = (None, None);
        }
        self.rejected.push(auth);
    }

    /// Records that Grafana rejected the login: another attempt would count as another wrong password.
    pub(super) fn give_up(&mut self, message: &str) {
        (self.accepted, self.client) = (None, None);
        self.gave_up = Some(Rejection { message: message.into(), at: Instant::now(), files: self.files.clone() });
    }
}

impl Session {
    fn basic(&self, password: &Secret) -> Auth {
        Auth::Basic(self.credentials.grafana_user.clone(), password.clone())
    }

    /// The secret behind the name of a login; `None` if there is none.
    fn secret(&self, credential: Credential, files: &VolumeFiles) -> Option<Secret> {
        let credentials = &self.credentials;
        match credential {
            Credential::Token => credentials.grafana_token.clone(),
            Credential::Supplied => credentials.grafana_password.clone(),
            Credential::Default => Some(credentials.default_password.clone()),
            Credential::Pending => files.pending.clone(),
            Credential::Stored => files.password.clone(),
            Credential::Generated => Some(self.generated.clone()),
        }
    }

    fn attempt(&self, credential: Credential, files: &VolumeFiles) -> Option<Attempt> {
        let secret = self.secret(credential, files)?;
        let auth = if credential == Credential::Token { Auth::Bearer(secret) } else { self.basic(&secret) };
        Some(Attempt { credential, auth })
    }

    /// Like [`Self::attempt`], but for a step, whose login existed when it was planned.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process removed the file that contains it.
    async fn planned(&self, connection: &mut Connection, credential: Credential) -> Result<Attempt> {
        let files = match credential {
            Credential::Pending | Credential::Stored => self.files(connection).await?,
            _ => VolumeFiles::default(),
        };
        self.attempt(credential, &files).ok_or_else(|| Error::Raced {
            doing: "sign in to Grafana".into(),
            why: "another process removed the password in its volume".into(),
        })
    }

    async fn planned_password(&self, connection: &mut Connection, credential: Credential) -> Result<Secret> {
        match self.planned(connection, credential).await?.auth {
            Auth::Basic(_, password) | Auth::Bearer(password) => Ok(password),
            Auth::None => Ok(Secret::new("")),
        }
    }

    /// The files of clipper-metrics in the volume of Grafana's container.
    pub(super) async fn files(&self, connection: &mut Connection) -> Result<VolumeFiles> {
        if let Some(files) = &connection.logins.files {
            return Ok(files.clone());
        }
        let files = self.docker()?.read_files(connection.container()?).await?;
        connection.logins.files = Some(files.clone());
        Ok(files)
    }

    /// The logins to try before reading any file, in order. A supplied password is tried alone,
    /// unless Grafana moves off loopback and may still have the default one.
    fn first_candidates(&self, actual: Option<&OurContainer>) -> Vec<Credential> {
        if self.credentials.grafana_token.is_some() {
            return vec![Credential::Token];
        }
        if self.credentials.grafana_password.is_none() {
            return if actual.is_some_and(OurContainer::is_made_with_file) {
                vec![]
            } else {
                vec![Credential::Default]
            };
        }
        let moves = self.stack.container(Role::Grafana).is_some_and(|spec| spec.config.is_open())
            && actual.is_some_and(OurContainer::is_on_loopback);
        let default = (moves && self.stack.login.is_admin()).then_some(Credential::Default);
        [Credential::Supplied].into_iter().chain(default).collect()
    }

    /// The logins to try, in order. A pending password comes first, so that one attempt completes the change of an
    /// interrupted run.
    async fn candidates(&self, connection: &mut Connection, actual: Option<&OurContainer>) -> Result<Vec<Attempt>> {
        let mut names = self.first_candidates(actual);
        let mut files = VolumeFiles::default();
        if names.is_empty() {
            files = self.files(connection).await?;
            names.extend([Credential::Pending, Credential::Stored]);
            // A private Grafana locks no account.
            let is_empty = files.pending.is_none() && files.password.is_none();
            if is_empty || actual.is_some_and(OurContainer::is_private) {
                names.push(Credential::Default);
            }
        }
        Ok(self.attempts(&names, &files))
    }

    fn attempts(&self, names: &[Credential], files: &VolumeFiles) -> Vec<Attempt> {
        names.iter().filter_map(|credential| self.attempt(*credential, files)).collect()
    }

    /// Signs in and reads Grafana's content. `health` has just answered. A Grafana with anonymous
    /// access answers requests even if the password is wrong.
    pub(super) async fn observe_signed_in(
        &self,
        connection: &mut Connection,
        health: Grafana,
        is_anonymous: bool,
        actual: Option<&OurContainer>,
        influxdb_runs: bool,
    ) -> Result<(ServerResponse<observed::GrafanaState>, LoginState)> {
        if let Some(rejection) = self.still_rejected(connection, actual).await? {
            return Ok((ServerResponse::Refusing(rejection), LoginState::default()));
        }
        let mut candidates = match connection.logins.accepted.clone() {
            Some(accepted) => vec![accepted],
            None => self.candidates(connection, actual).await?,
        };
        let mut rejection = "the login was already rejected".to_string();
        loop {
            let is_untried = |attempt: &&Attempt| !connection.logins.rejected.contains(&attempt.auth);
            let Some(attempt) = candidates.iter().find(is_untried).cloned() else {
                // An interrupted run may have left a password that no label mentions.
                let has_supplied =
                    self.credentials.grafana_token.is_some() || self.credentials.grafana_password.is_some();
                if actual.is_some() && !has_supplied {
                    let files = self.files(connection).await?;
                    let stored = self.attempts(&[Credential::Pending, Credential::Stored], &files);
                    if stored.iter().any(|attempt| !connection.logins.rejected.contains(&attempt.auth)) {
                        candidates = stored;
                        continue;
                    }
                }
                connection.logins.give_up(&rejection);
                return Ok((ServerResponse::Refusing(rejection), LoginState::default()));
            };
            let client = self.grafana_client(connection, attempt.auth.clone());
            client.same_version_as(&health);
            let signed_in = if is_anonymous { client.try_to_sign_in().await } else { Ok(()) };
            let response = match signed_in {
                Ok(()) => client.observe(&self.stack, influxdb_runs).await,
                Err(Error::Refused { message, .. }) => ServerResponse::Refusing(message),
                Err(error) => ServerResponse::Silent(error.to_string()),
            };
            match response {
                ServerResponse::Refusing(message) => {
                    connection.logins.refuse(attempt.auth);
                    rejection = message;
                }
                response => {
                    if !matches!(response, ServerResponse::Answering(_)) {
                        return Ok((response, LoginState::default()));
                    }
                    connection.logins.accept(attempt.clone());
                    let login = self.seen_login(connection, &attempt, actual).await?;
                    return Ok(match self.default_login(connection, &login, actual).await {
                        Ok(default_login) => (response, LoginState { default_login, ..login }),
                        Err(error) => (ServerResponse::Silent(error.to_string()), LoginState::default()),
                    });
                }
            }
        }
    }

    /// The message of an earlier rejection, if nothing has changed since then that could help.
    async fn still_rejected(
        &self,
        connection: &mut Connection,
        actual: Option<&OurContainer>,
    ) -> Result<Option<String>> {
        let Some(rejection) = connection.logins.gave_up.clone() else { return Ok(None) };
        if actual.is_none() || rejection.at.elapsed() < LOOK_AGAIN {
            return Ok(Some(rejection.message));
        }
        connection.logins.files = None;
        let files = self.files(connection).await?;
        // If the files had not been read before, they cannot have changed.
        if rejection.files.is_none() || rejection.files.as_ref() == Some(&files) {
            connection.logins.give_up(&rejection.message);
            return Ok(Some(rejection.message));
        }
        connection.logins.gave_up = None;
        connection.logins.rejected.clear();
        Ok(None)
    }

    /// The facts that follow from an accepted login. The password file is read only if it may
    /// differ from the accepted password.
    async fn seen_login(
        &self,
        connection: &mut Connection,
        attempt: &Attempt,
        actual: Option<&OurContainer>,
    ) -> Result<LoginState> {
        let default = &self.credentials.default_password;
        let is_default = matches!(&attempt.auth, Auth::Basic(_, password) if password == default);
        let seen = |account, file| LoginState {
            accepted: Some(attempt.credential),
            account,
            file,
            has_default_password: is_default,
            default_login: DefaultLogin::NotTried,
        };
        let Auth::Basic(user, password) = &attempt.auth else {
            return Ok(seen(SignedInAccount::Other, PasswordFile::NotRead));
        };
        let account = match (user == Login::ADMIN, is_default) {
            (false, _) => SignedInAccount::Other,
            (true, true) => SignedInAccount::DefaultPassword,
            (true, false) => SignedInAccount::OwnPassword,
        };
        let Some(actual) = actual else { return Ok(seen(account, PasswordFile::NotRead)) };
        if is_default && !actual.is_made_with_file() {
            return Ok(seen(account, PasswordFile::NotRead));
        }
        let files = self.files(connection).await?;
        let settled = files.pending.as_ref().is_none_or(|pending| pending == password);
        let file = match &files.password {
            None if is_default && settled => PasswordFile::NotRead,
            None => PasswordFile::Missing,
            Some(stored) if stored == password && settled => PasswordFile::Accepted,
            Some(_) => PasswordFile::Outdated,
        };
        Ok(seen(account, file))
    }

    /// Whether admin/admin is rejected, tried on a private Grafana that is to be published: it offers all ways to sign
    /// in and locks no account, so a rejection is due to the password.
    async fn default_login(
        &self,
        connection: &mut Connection,
        login: &LoginState,
        actual: Option<&OurContainer>,
    ) -> Result<DefaultLogin> {
        let is_open = self.stack.container(Role::Grafana).is_some_and(|spec| spec.config.is_open());
        let is_tried = is_open && actual.is_some_and(OurContainer::is_private);
        if !is_tried || login.account == SignedInAccount::DefaultPassword {
            return Ok(DefaultLogin::NotTried);
        }
        if let Some(known) = connection.logins.default_login {
            return Ok(known);
        }
        let default = &self.credentials.default_password;
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
        let result = match admin.try_login_form(Login::ADMIN, default).await? {
            _ if signs_in => DefaultLogin::Accepted,
            FormLogin::Accepted => DefaultLogin::Accepted,
            // A rejection proves something only if a correct password could be accepted.
            FormLogin::NotOffered if login.accepted == Some(Credential::Token) => DefaultLogin::Unverifiable,
            FormLogin::Rejected | FormLogin::NotOffered => DefaultLogin::Rejected,
        };
        connection.logins.default_login = Some(result);
        Ok(result)
    }

    /// The password to show to the user: the accepted one, otherwise the stored one or Grafana's
    /// default. A rejected password is not shown.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn grafana_password(
        &self,
        connection: &mut Connection,
        actual: Option<&OurContainer>,
    ) -> Result<Option<Secret>> {
        if let Some(Attempt { auth: Auth::Basic(_, password), .. }) = &connection.logins.accepted {
            return Ok(Some(password.clone()));
        }
        let stored = match actual {
            Some(actual) if actual.is_made_with_file() => self.files(connection).await?.password,
            _ => None,
        };
        let password = stored.unwrap_or_else(|| self.credentials.default_password.clone());
        let is_rejected = connection.logins.rejected.contains(&self.basic(&password));
        Ok(Some(password).filter(|_| !is_rejected))
    }

    /// A signed-in client for the running Grafana, after an observation.
    ///
    /// # Errors
    /// [`Error::Refused`] if no login was accepted, otherwise if the server does not answer.
    pub(crate) async fn grafana(&self, connection: &mut Connection) -> Result<Rc<Grafana>> {
        if let Some(client) = &connection.logins.client {
            return Ok(Rc::clone(client));
        }
        let Some(accepted) = connection.logins.accepted.clone() else {
            let rejection = connection.logins.gave_up.as_ref().map(|rejection| rejection.message.clone());
            return Err(Error::Refused {
                role: Role::Grafana,
                url: connection.http.address().to_string(),
                message: rejection.unwrap_or_else(|| "no password is known".into()),
            });
        };
        let client = self.grafana_client(connection, accepted.auth);
        client.health(super::PROBE).await;
        client.enter(self.stack.organisation.as_deref()).await?;
        let client = Rc::new(client);
        connection.logins.client = Some(Rc::clone(&client));
        Ok(client)
    }

    /// Like [`Self::grafana`], but signs in with the plan's login if no login was accepted yet: Grafana was just created.
    pub(super) async fn signed_in(
        &self,
        connection: &mut Connection,
        planned: Option<Credential>,
    ) -> Result<Rc<Grafana>> {
        if let (None, Some(credential)) = (&connection.logins.accepted, planned) {
            self.try_login(connection, credential).await?;
        }
        self.grafana(connection).await
    }

    /// Signs in once. Nothing is sent before the server is known to be the container.
    pub(super) async fn try_login(&self, connection: &mut Connection, credential: Credential) -> Result<()> {
        self.expect_the_container(connection).await?;
        let attempt = self.planned(connection, credential).await?;
        if connection.logins.rejected.contains(&attempt.auth) {
            let url = connection.http.address().to_string();
            return Err(Error::Refused { role: Role::Grafana, url, message: "the login was already rejected".into() });
        }
        match self.grafana_client(connection, attempt.auth.clone()).try_to_sign_in().await {
            Ok(()) => connection.logins.accept(attempt),
            Err(error) => {
                if matches!(error, Error::Refused { .. }) {
                    connection.logins.refuse(attempt.auth);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) async fn write_first_password(&self, connection: &mut Connection, password: Credential) -> Result<()> {
        let password = self.planned_password(connection, password).await?;
        self.docker()?.write_first_password(connection.container()?, &password).await
    }

    pub(super) async fn store_password(
        &self,
        connection: &mut Connection,
        login: Credential,
        replaces_pending: bool,
    ) -> Result<()> {
        let password = self.planned_password(connection, login).await?;
        self.docker()?.write_password(connection.container()?, &password, replaces_pending).await
    }

    pub(super) async fn write_pending_password(&self, connection: &mut Connection, password: Credential) -> Result<()> {
        let password = self.planned_password(connection, password).await?;
        self.docker()?.write_pending_password(connection.container()?, &password).await
    }

    /// Replaces the default password, with which Grafana was just observed.
    pub(super) async fn change_password(&self, connection: &mut Connection, new: Credential) -> Result<()> {
        self.expect_the_container(connection).await?;
        let new = self.planned(connection, new).await?;
        let Auth::Basic(_, password) = &new.auth else { return Ok(()) };
        let default = &self.credentials.default_password;
        self.grafana_client(connection, self.basic(default)).change_password(default, password).await?;
        connection.logins.accept(new);
        Ok(())
    }

    /// Verifies that the login form rejects admin/admin.
    pub(super) async fn check_login_form(&self, connection: &Connection) -> Result<()> {
        let default = &self.credentials.default_password;
        match self.grafana_client(connection, Auth::None).try_login_form(Login::ADMIN, default).await? {
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
        let password = self.planned_password(connection, new).await?;
        self.docker()?.reset_password(connection.container()?, &password, deadline).await?;
        // Earlier results belong to the previous password.
        let files = connection.logins.files.take();
        connection.logins = Logins { files, ..Logins::default() };
        Ok(())
    }
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
