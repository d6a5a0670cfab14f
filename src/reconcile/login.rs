//! Signs in to Grafana: finds the accepted password, and tries, stores, replaces and resets
//! passwords in an order that loses no password and never publishes the default one.
//!

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Systems;
use crate::engine::VolumeFiles;
use crate::error::{Error, Result};
use crate::grafana::{FormLogin, Grafana};
use crate::http::Auth;
use crate::model::observed::{self, Account, OurContainer, PasswordFile, SeenLogin, ServerResponse};
use crate::model::plan::{BlockReason, Blocker, Resource};
use crate::model::role::Role;
use crate::model::stack::{Login, Secret};

/// The interval at which the stored password is read again after a rejected login; Grafana locks a
/// user out after five wrong passwords.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The login to the current Grafana container; discarded together with the container.
#[derive(Default)]
pub(super) struct LoginState {
    known: RefCell<Known>,
}

#[derive(Default)]
struct Known {
    /// The files of clipper-metrics in the volume, once read.
    files: Option<VolumeFiles>,
    /// The accepted login.
    accepted: Option<Auth>,
    /// Rejected logins, which are not tried again.
    refused: Vec<Auth>,
    /// Set when no login is left to try.
    rejected: Option<Rejected>,
    /// A client that is signed in.
    client: Option<Rc<Grafana>>,
}

#[derive(Clone)]
struct Rejected {
    message: String,
    at: Instant,
    files: Option<VolumeFiles>,
}

impl LoginState {
    /// Discards everything, because the container changes.
    pub(super) fn forget(&self) {
        *self.known.borrow_mut() = Known::default();
    }

    /// Discards the files, because they have changed.
    pub(super) fn forget_files(&self) {
        self.known.borrow_mut().files = None;
    }

    fn accept(&self, auth: Auth) {
        let mut known = self.known.borrow_mut();
        known.client = None;
        known.rejected = None;
        known.accepted = Some(auth);
    }

    fn refuse(&self, auth: Auth) {
        let mut known = self.known.borrow_mut();
        if known.accepted.as_ref() == Some(&auth) {
            (known.accepted, known.client) = (None, None);
        }
        known.refused.push(auth);
    }

    fn was_refused(&self, auth: &Auth) -> bool {
        self.known.borrow().refused.contains(auth)
    }

    /// Records that Grafana rejected the login: another attempt would count as another wrong password.
    pub(super) fn reject(&self, message: &str) {
        let mut known = self.known.borrow_mut();
        let files = known.files.take();
        *known = Known {
            refused: std::mem::take(&mut known.refused),
            rejected: Some(Rejected { message: message.into(), at: Instant::now(), files: files.clone() }),
            files,
            ..Known::default()
        };
    }
}

impl Systems {
    fn basic(&self, password: &Secret) -> Auth {
        Auth::Basic(self.credentials.grafana_user.clone(), password.clone())
    }

    /// The files of clipper-metrics in the volume of Grafana's container.
    pub(super) async fn files(&self) -> Result<VolumeFiles> {
        if let Some(files) = self.login.known.borrow().files.clone() {
            return Ok(files);
        }
        let files = self.docker()?.read_files(&self.container_of(Role::Grafana)?).await?;
        self.login.known.borrow_mut().files = Some(files.clone());
        Ok(files)
    }

    /// The logins to try before reading any file, in order. A supplied password is tried alone,
    /// unless Grafana moves off loopback and may still have the default one.
    fn first_candidates(&self, have: Option<&OurContainer>) -> Vec<Auth> {
        let credentials = &self.credentials;
        if let Some(token) = &credentials.grafana_token {
            return vec![Auth::Bearer(token.clone())];
        }
        let default = self.basic(&credentials.default_password);
        let Some(given) = &credentials.grafana_password else {
            return if have.is_some_and(OurContainer::is_made_with_file) { vec![] } else { vec![default] };
        };
        let moves = self.stack.container(Role::Grafana).is_some_and(|spec| spec.specification.is_open())
            && have.is_some_and(OurContainer::is_on_loopback);
        let mut candidates = vec![self.basic(given)];
        if moves && self.stack.login.is_admin() && !candidates.contains(&default) {
            candidates.push(default);
        }
        candidates
    }

    /// The logins from the volume's files. A pending password comes first, so that one attempt
    /// completes the change of an interrupted run.
    fn stored_candidates(&self, files: &VolumeFiles) -> Vec<Auth> {
        let mut candidates: Vec<Auth> =
            [&files.pending, &files.password].into_iter().flatten().map(|password| self.basic(password)).collect();
        candidates.dedup();
        candidates
    }

    /// The logins to try, in order.
    async fn candidates(&self, have: Option<&OurContainer>) -> Result<Vec<Auth>> {
        let mut candidates = self.first_candidates(have);
        if candidates.is_empty() {
            candidates = self.stored_candidates(&self.files().await?);
            if candidates.is_empty() {
                candidates.push(self.basic(&self.credentials.default_password));
            }
        }
        Ok(candidates)
    }

    /// Signs in and reads Grafana's content. `health` has just answered. A Grafana with anonymous
    /// access answers requests even if the password is wrong.
    pub(super) async fn observe_signed_in(
        &self,
        health: Grafana,
        is_anonymous: bool,
        have: Option<&OurContainer>,
        influxdb_runs: bool,
    ) -> Result<(ServerResponse<observed::Grafana>, SeenLogin)> {
        if let Some(rejected) = self.still_rejected(have).await? {
            return Ok((ServerResponse::Refusing(rejected), SeenLogin::default()));
        }
        let accepted = self.login.known.borrow().accepted.clone();
        let mut candidates = match accepted {
            Some(auth) => vec![auth],
            None => self.candidates(have).await?,
        };
        let mut rejected = "the login was already rejected".to_string();
        loop {
            let untried = candidates.iter().find(|auth| !self.login.was_refused(auth)).cloned();
            let Some(auth) = untried else {
                // An interrupted run may have left a password that no label mentions.
                if have.is_some()
                    && self.credentials.grafana_token.is_none()
                    && self.credentials.grafana_password.is_none()
                    && self.login.known.borrow().files.is_none()
                {
                    candidates = self.stored_candidates(&self.files().await?);
                    continue;
                }
                self.login.reject(&rejected);
                return Ok((ServerResponse::Refusing(rejected), SeenLogin::default()));
            };
            let client = self.grafana_client(auth.clone());
            client.same_version_as(&health);
            let signed_in = if is_anonymous { client.try_to_sign_in().await } else { Ok(()) };
            let probe = match signed_in {
                Ok(()) => client.observe(&self.stack, influxdb_runs).await,
                Err(Error::Refused { message, .. }) => ServerResponse::Refusing(message),
                Err(error) => ServerResponse::Silent(error.to_string()),
            };
            match probe {
                ServerResponse::Refusing(message) => {
                    self.login.refuse(auth);
                    rejected = message;
                }
                probe => {
                    if !matches!(probe, ServerResponse::Answering(_)) {
                        return Ok((probe, SeenLogin::default()));
                    }
                    self.login.accept(auth.clone());
                    return Ok((probe, self.seen_login(&auth, have).await?));
                }
            }
        }
    }

    /// The message of an earlier rejection, if nothing has changed since then that could help.
    async fn still_rejected(&self, have: Option<&OurContainer>) -> Result<Option<String>> {
        let rejected = self.login.known.borrow().rejected.clone();
        let Some(rejected) = rejected else { return Ok(None) };
        if have.is_none() || rejected.at.elapsed() < LOOK_AGAIN {
            return Ok(Some(rejected.message));
        }
        self.login.known.borrow_mut().files = None;
        let files = self.files().await?;
        let mut known = self.login.known.borrow_mut();
        // If the files had not been read before, they cannot have changed.
        if rejected.files.is_none() || rejected.files.as_ref() == Some(&files) {
            known.rejected =
                Some(Rejected { at: Instant::now(), files: Some(files), message: rejected.message.clone() });
            return Ok(Some(rejected.message));
        }
        known.rejected = None;
        known.refused.clear();
        Ok(None)
    }

    /// The facts that follow from an accepted login. The password file is read only if it may
    /// differ from the accepted password.
    async fn seen_login(&self, auth: &Auth, have: Option<&OurContainer>) -> Result<SeenLogin> {
        let Auth::Basic(user, password) = auth else {
            return Ok(SeenLogin { account: Account::Other, file: PasswordFile::NotRead });
        };
        let is_default = *password == self.credentials.default_password;
        let account = match (user == Login::ADMIN, is_default) {
            (false, _) => Account::Other,
            (true, true) => Account::DefaultPassword,
            (true, false) => Account::OwnPassword,
        };
        let Some(have) = have else { return Ok(SeenLogin { account, file: PasswordFile::NotRead }) };
        if is_default && !have.is_made_with_file() && self.login.known.borrow().files.is_none() {
            return Ok(SeenLogin { account, file: PasswordFile::NotRead });
        }
        let files = self.files().await?;
        let settled = files.pending.as_ref().is_none_or(|pending| pending == password);
        let file = match &files.password {
            None if is_default && settled => PasswordFile::NotRead,
            None => PasswordFile::Missing,
            Some(stored) if stored == password && settled => PasswordFile::Accepted,
            Some(_) => PasswordFile::Outdated,
        };
        Ok(SeenLogin { account, file })
    }

    /// The password to show to the user: the accepted one, otherwise the stored one or Grafana's
    /// default. A rejected password is not shown.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub async fn grafana_password(&self, have: Option<&OurContainer>) -> Result<Option<Secret>> {
        let accepted = self.login.known.borrow().accepted.clone();
        if let Some(Auth::Basic(_, password)) = accepted {
            return Ok(Some(password));
        }
        let stored = match have {
            Some(have) if have.is_made_with_file() => self.files().await?.password,
            _ => None,
        };
        let password = stored.unwrap_or_else(|| self.credentials.default_password.clone());
        Ok(Some(password).filter(|password| !self.login.was_refused(&self.basic(password))))
    }

    /// A signed-in client for the running Grafana.
    ///
    /// # Errors
    /// [`Error::Refused`] if no login is accepted, otherwise if the server does not answer.
    pub async fn grafana(&self) -> Result<Rc<Grafana>> {
        let (client, accepted) = {
            let known = self.login.known.borrow();
            (known.client.clone(), known.accepted.clone())
        };
        if let Some(client) = client {
            return Ok(client);
        }
        let auth = match accepted {
            Some(auth) => auth,
            None => self.sign_in().await?,
        };
        let client = self.grafana_client(auth);
        client.health(super::PROBE).await;
        client.enter(self.stack.organisation.as_deref()).await?;
        let client = Rc::new(client);
        self.login.known.borrow_mut().client = Some(Rc::clone(&client));
        Ok(client)
    }

    /// The first login that Grafana accepts. No other request is sent until it is known.
    async fn sign_in(&self) -> Result<Auth> {
        let have = match (&self.docker, self.stack.container(Role::Grafana)) {
            (Some(docker), Some(_)) => docker.ours(Role::Grafana, &self.container_of(Role::Grafana)?).await?,
            _ => None,
        };
        self.first_accepted(&self.candidates(have.as_ref()).await?).await
    }

    async fn first_accepted(&self, candidates: &[Auth]) -> Result<Auth> {
        self.expect_the_container(Role::Grafana).await?;
        let mut rejected = None;
        for auth in candidates.iter().filter(|auth| !self.login.was_refused(auth)) {
            match self.grafana_client(auth.clone()).try_to_sign_in().await {
                Ok(()) => {
                    self.login.accept(auth.clone());
                    return Ok(auth.clone());
                }
                Err(error @ Error::Refused { .. }) => {
                    self.login.refuse(auth.clone());
                    rejected = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let url = self.http(Role::Grafana, Auth::None).address().to_string();
        let message = "no other password is known".into();
        Err(rejected.unwrap_or(Error::Refused { role: Role::Grafana, url, message }))
    }

    /// Ensures that a password file exists before Grafana's first start: with the supplied
    /// password, otherwise the one of an earlier run, otherwise a new one.
    pub(super) async fn write_password(&self) -> Result<()> {
        let container = self.container_of(Role::Grafana)?;
        let stored = self.files().await?.password;
        let given = self.credentials.grafana_password.as_ref();
        if stored.is_none() || given.is_some_and(|given| stored.as_ref() != Some(given)) {
            if self.docker()?.has_database(&container).await? {
                // A Grafana has run here, so its password must be found out.
                if stored.is_some() {
                    return Ok(());
                }
                self.docker()?.remove_container(&self.stack.instance, Role::Grafana).await?;
                self.set_container(Role::Grafana, None);
                let why = "Grafana has run on its volume in the meantime".into();
                return Err(Error::Raced { doing: "write Grafana's password".into(), why });
            }
            let password = match given {
                Some(given) => given.clone(),
                None => generate_password()?,
            };
            self.keep(&password, false).await?;
            self.login.accept(self.basic(&password));
        } else if let Some(stored) = stored {
            self.login.accept(self.basic(&stored));
        }
        Ok(())
    }

    /// Signs in once with the supplied login.
    pub(super) async fn try_password(&self) -> Result<()> {
        let auth = match &self.credentials.grafana_password {
            Some(given) => self.basic(given),
            // A different user with the known password.
            None => match self.files().await?.password {
                Some(stored) => self.basic(&stored),
                None => self.basic(&self.credentials.default_password),
            },
        };
        self.first_accepted(&[auth]).await.map(drop)
    }

    /// Stores the accepted password, unless it is Grafana's default.
    pub(super) async fn store_password(&self) -> Result<()> {
        let accepted = self.login.known.borrow().accepted.clone();
        let password = match accepted {
            Some(Auth::Basic(_, password)) => password,
            Some(_) => return Ok(()),
            None => {
                let why = "the session has ended".into();
                return Err(Error::Raced { doing: "store Grafana's password".into(), why });
            }
        };
        let files = self.files().await?;
        if files.password.is_none() && files.pending.is_none() && password == self.credentials.default_password {
            return Ok(());
        }
        self.keep(&password, files.pending.is_some()).await
    }

    /// Verifies that admin/admin is rejected, on a Grafana that no other host can reach.
    pub(super) async fn secure_password(&self) -> Result<()> {
        let files = self.files().await?;
        let default = &self.credentials.default_password;
        let given = &self.credentials.grafana_password;
        if !self.stack.login.is_admin() {
            return self.secure_other_account(&files).await;
        }
        let mut candidates = match given {
            Some(given) => vec![self.basic(given)],
            None => self.stored_candidates(&files),
        };
        candidates.retain(|candidate| *candidate != self.basic(default));
        let accepted = match self.first_accepted(&candidates).await {
            Ok(auth) => Some(auth),
            Err(Error::Refused { .. }) => None,
            Err(error) => return Err(error),
        };
        if accepted.is_some() {
            self.store_password().await?;
        } else {
            let grafana = self.grafana_client(self.basic(default));
            grafana.try_to_sign_in().await?;
            let new = given
                .clone()
                .or(files.pending)
                .filter(|secret| secret != default)
                .map_or_else(generate_password, Ok)?;
            self.docker()?.write_pending_password(&self.container_of(Role::Grafana)?, &new).await?;
            grafana.change_password(default, &new).await?;
            self.login.accept(self.basic(&new));
            self.keep(&new, false).await?;
        }
        // An account has the same password for both ways, and basic authentication has just
        // accepted another one.
        self.expect_form_rejects_default().await.map(drop)
    }

    /// Tries admin/admin in the login form; returns whether Grafana has one.
    async fn expect_form_rejects_default(&self) -> Result<FormLogin> {
        let default = &self.credentials.default_password;
        match self.grafana_client(Auth::None).try_login_form(Login::ADMIN, default).await? {
            FormLogin::Accepted => Err(self.default_password_opens()),
            other => Ok(other),
        }
    }

    fn default_password_opens(&self) -> Error {
        Error::NotConfirmed {
            message: format!(
                "Grafana's account admin still has the password admin, and other hosts would be able to use it; \
                 Grafana stays on loopback, at {}",
                self.http(Role::Grafana, Auth::None).address()
            ),
            hint: "change that password there, or let clipper-metrics replace it by signing in as admin: omit \
                   --grafana-user and the token"
                .into(),
        }
    }

    /// Signs in with another account, and verifies that admin/admin is rejected by every way to
    /// sign in. The private Grafana offers all of them and locks no account, so a rejection is due
    /// to the password.
    async fn secure_other_account(&self, files: &VolumeFiles) -> Result<()> {
        let candidates = match (&self.credentials.grafana_token, &self.credentials.grafana_password) {
            (Some(token), _) => vec![Auth::Bearer(token.clone())],
            (None, Some(given)) => vec![self.basic(given)],
            (None, None) => self.stored_candidates(files),
        };
        let accepted = self.first_accepted(&candidates).await?;
        let admin = Auth::Basic(Login::ADMIN.into(), self.credentials.default_password.clone());
        match self.grafana_client(admin).try_to_sign_in().await {
            Err(Error::Refused { .. }) => {}
            Err(error) => return Err(error),
            Ok(()) => return Err(self.default_password_opens()),
        }
        let form = self.expect_form_rejects_default().await?;
        // A rejection proves something only if a correct password could be accepted.
        if matches!(accepted, Auth::Basic(..)) || form == FormLogin::Rejected {
            return self.store_password().await;
        }
        let blocked = Blocker {
            kind: BlockReason::Unverifiable,
            why: "whether admin / admin is rejected cannot be verified: the image of Grafana switches off basic \
                  authentication and the login form, regardless of the environment"
                .into(),
            hint: format!(
                "publish it on loopback: `{}`, or use an image that leaves these settings to the environment",
                self.stack.command("up --grafana-ip 127.0.0.1")
            ),
        };
        Err(Error::Blocked { resource: Resource::Server(Role::Grafana), blocked })
    }

    /// Sets the supplied or a new password with Grafana's own command, and signs in with it.
    pub(super) async fn reset_password(&self, deadline: Instant) -> Result<()> {
        let new = self.given_or_new()?;
        let container = self.container_of(Role::Grafana)?;
        let docker = self.docker()?;
        docker.write_pending_password(&container, &new).await?;
        docker.reset_password(&container, &new, deadline).await?;
        self.login.forget();
        self.first_accepted(&[self.basic(&new)]).await?;
        self.keep(&new, false).await
    }

    async fn keep(&self, password: &Secret, clear_pending: bool) -> Result<()> {
        self.docker()?.write_password(&self.container_of(Role::Grafana)?, password, clear_pending).await?;
        // The signed-in client stays valid; only the files have changed.
        self.login.known.borrow_mut().files = None;
        Ok(())
    }

    fn given_or_new(&self) -> Result<Secret> {
        self.credentials.grafana_password.clone().map_or_else(generate_password, Ok)
    }
}

/// A new password of 128 bits.
///
/// # Errors
/// [`Error::Io`] if the system provides no random numbers.
pub fn generate_password() -> Result<Secret> {
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
