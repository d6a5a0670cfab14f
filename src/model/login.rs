//! Grafana's logins by name: which one is tried next, and what an accepted one proves.

use std::time::{Duration, Instant};

use super::observed::OurContainer;
use super::role::Role;
use super::stack::{Login, Secret, Stack};
use super::volume_content::VolumeFiles;

/// A login to Grafana. Facts and steps name it; only the client of Grafana gets its secret.
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

/// A login with its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub credential: Credential,
    pub secret: Secret,
}

impl Attempt {
    /// Whether Grafana would give both the same answer.
    fn is_same(&self, other: &Self) -> bool {
        let is_token = |attempt: &Self| attempt.credential == Credential::Token;
        self.secret == other.secret && is_token(self) == is_token(other)
    }
}

/// The interval at which the stored password is read again after a rejected login.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// How long Grafana locks a user out, counted from the wrong password.
const LOCKOUT: Duration = Duration::from_secs(300);

/// The logins that were tried at the current Grafana.
#[derive(Debug, Clone, Default)]
pub struct LoginAttempts {
    accepted: Option<Attempt>,
    /// Not tried again: Grafana locks a user out after five wrong passwords.
    rejected: Vec<Attempt>,
    /// Set when no login is left to try.
    given_up: Option<GivenUp>,
}

/// Why and when the attempts ended.
#[derive(Debug, Clone)]
struct GivenUp {
    /// Grafana's message.
    message: String,
    at: Instant,
    /// The files at that time, if they were read.
    files: Option<VolumeFiles>,
    /// Set if Grafana rejects every login of the account, whatever the password: when that was found.
    locked_out: Option<Instant>,
}

impl LoginAttempts {
    #[must_use]
    pub fn accepted(&self) -> Option<&Attempt> {
        self.accepted.as_ref()
    }

    #[must_use]
    pub fn is_rejected(&self, attempt: &Attempt) -> bool {
        self.rejected.iter().any(|rejected| rejected.is_same(attempt))
    }

    pub fn accept(&mut self, attempt: Attempt) {
        // It may have been rejected before it became the password.
        self.rejected.retain(|rejected| !rejected.is_same(&attempt));
        (self.accepted, self.given_up) = (Some(attempt), None);
    }

    pub fn reject(&mut self, attempt: Attempt) {
        if self.accepted.as_ref().is_some_and(|accepted| accepted.is_same(&attempt)) {
            self.accepted = None;
        }
        self.rejected.push(attempt);
    }

    /// Ends the attempts with Grafana's message.
    pub(crate) fn give_up(&mut self, message: &str, files: Option<&VolumeFiles>, now: Instant) {
        self.accepted = None;
        self.given_up = Some(GivenUp { message: message.into(), at: now, files: files.cloned(), locked_out: None });
    }

    /// Notes that Grafana rejects every login of the account for now.
    pub(crate) fn lock_out(&mut self, now: Instant) {
        if let Some(ended) = &mut self.given_up {
            ended.locked_out = Some(now);
        }
    }

    /// Allows every login again once a lockout is over.
    pub(crate) fn end_lockout(&mut self, now: Instant) {
        let locked_out = self.given_up.as_ref().and_then(|ended| ended.locked_out);
        if locked_out.is_some_and(|since| now.duration_since(since) >= LOCKOUT) {
            *self = Self::default();
        }
    }

    #[must_use]
    pub(crate) fn is_locked_out(&self) -> bool {
        self.given_up.as_ref().is_some_and(|ended| ended.locked_out.is_some())
    }

    /// Grafana's message, if no login is left to try.
    #[must_use]
    pub(crate) fn rejection(&self) -> Option<&str> {
        self.given_up.as_ref().map(|ended| ended.message.as_str())
    }

    /// Whether the files are worth reading again, because another process may have stored a password.
    #[must_use]
    pub(crate) fn reads_again(&self, now: Instant) -> bool {
        self.given_up.as_ref().is_some_and(|ended| now.duration_since(ended.at) >= READ_AGAIN)
    }

    /// Allows every login again if the files have changed since the attempts ended.
    pub(crate) fn retry_with(&mut self, files: &VolumeFiles, now: Instant) {
        let Some(ended) = &mut self.given_up else { return };
        // Without an earlier copy, a change cannot be detected.
        if ended.files.as_ref().is_none_or(|earlier| earlier == files) {
            (ended.at, ended.files) = (now, Some(files.clone()));
        } else {
            *self = Self::default();
        }
    }
}

/// The next action of an observation that signs in to Grafana.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextLogin {
    Try(Credential),
    /// Read the files in the volume, and choose again.
    ReadFiles,
    GiveUp,
}

/// Chooses the login to try next. `files` are those in Grafana's volume, once read; `is_untried` returns whether a login
/// has a secret that Grafana has not rejected.
#[must_use]
pub fn next_login(
    stack: &Stack,
    actual: Option<&OurContainer>,
    files: Option<&VolumeFiles>,
    is_untried: impl Fn(Credential) -> bool,
) -> NextLogin {
    use Credential::{Default, Pending, Stored, Supplied, Token};
    let may_move = stack.login.is_admin() && is_to_be_open(stack) && actual.is_some_and(OurContainer::is_on_loopback);
    let has_no_password = || files.is_some_and(|files| files.pending.is_none() && files.password.is_none());
    let candidates: &[Credential] = match actual {
        _ if stack.login.uses_token => &[Token],
        // A Grafana that moves off loopback may still have the default password.
        _ if stack.login.supplies_password && may_move => &[Supplied, Default],
        _ if stack.login.supplies_password => &[Supplied],
        None => &[Default],
        // The pending password comes first, so that one attempt completes the change of an interrupted run. A private
        // Grafana locks no account.
        Some(actual) if actual.has_password_file() && (actual.is_private() || has_no_password()) => {
            &[Pending, Stored, Default]
        }
        Some(actual) if actual.has_password_file() => &[Pending, Stored],
        // An interrupted run may have stored a password that no label mentions.
        Some(_) => &[Default, Pending, Stored],
    };
    for &credential in candidates {
        if files.is_none() && matches!(credential, Pending | Stored) {
            return NextLogin::ReadFiles;
        }
        if is_untried(credential) {
            return NextLogin::Try(credential);
        }
    }
    NextLogin::GiveUp
}

/// Whether other hosts will be able to reach Grafana's container.
fn is_to_be_open(stack: &Stack) -> bool {
    stack.container(Role::Grafana).is_some_and(|spec| spec.config.is_open())
}

/// The observed login to Grafana.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoginState {
    pub accepted: Option<Credential>,
    pub account: SignedInAccount,
    /// The password file compared with the accepted password.
    pub file: PasswordFile,
    /// Whether the accepted password is Grafana's default.
    pub has_default_password: bool,
    /// Whether admin/admin is rejected.
    pub default_login: DefaultLogin,
    /// Whether a managed Grafana rejects every login of the account for some minutes, because of wrong passwords.
    pub is_locked_out: bool,
}

impl LoginState {
    /// The facts that follow from an accepted login. `actual` is the container that answered, if it is managed; `files`
    /// are those in its volume, if [`Self::needs_files`].
    #[must_use]
    pub fn new(login: &Login, accepted: &Attempt, actual: Option<&OurContainer>, files: Option<&VolumeFiles>) -> Self {
        let has_default_password = is_default(accepted);
        let account = match accepted.credential {
            Credential::Token => SignedInAccount::Other,
            _ if login.user != Login::ADMIN => SignedInAccount::Other,
            _ if has_default_password => SignedInAccount::DefaultPassword,
            _ => SignedInAccount::OwnPassword,
        };
        let file = match files.filter(|_| Self::needs_files(accepted, actual)) {
            Some(files) => PasswordFile::new(files, &accepted.secret),
            None => PasswordFile::NotNeeded,
        };
        let accepted = Some(accepted.credential);
        Self { accepted, account, file, has_default_password, ..Self::default() }
    }

    /// Whether the files in the volume must be read: the password file may contain another password than the accepted
    /// one.
    #[must_use]
    pub fn needs_files(accepted: &Attempt, actual: Option<&OurContainer>) -> bool {
        let may_differ = |actual: &OurContainer| !is_default(accepted) || actual.has_password_file();
        accepted.credential != Credential::Token && actual.is_some_and(may_differ)
    }

    /// Whether admin/admin is tried: on a private Grafana that is to be published. It offers all ways to sign in and
    /// locks no account, so a rejection is due to the password.
    #[must_use]
    pub fn tries_default(&self, stack: &Stack, actual: Option<&OurContainer>) -> bool {
        let is_private = actual.is_some_and(OurContainer::is_private);
        self.account != SignedInAccount::DefaultPassword && is_private && is_to_be_open(stack)
    }
}

fn is_default(attempt: &Attempt) -> bool {
    attempt.credential != Credential::Token && attempt.secret.reveal() == Login::PUBLIC_PASSWORD
}

/// The account that signed in to Grafana.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignedInAccount {
    /// No account.
    #[default]
    SignedOut,
    /// `admin` with Grafana's default password, which anyone can use.
    DefaultPassword,
    /// `admin` with another password, so admin/admin is rejected.
    OwnPassword,
    /// Another account, which proves nothing about admin/admin.
    Other,
}

/// The password file in Grafana's volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PasswordFile {
    /// No decision depends on it.
    #[default]
    NotNeeded,
    /// It does not exist.
    Missing,
    /// It contains the password that Grafana accepted.
    Accepted,
    /// It contains another password than the one that Grafana accepted.
    Outdated,
}

impl PasswordFile {
    fn new(files: &VolumeFiles, accepted: &Secret) -> Self {
        let is_complete = files.pending.as_ref().is_none_or(|pending| pending == accepted);
        match &files.password {
            // The first password needs no file.
            None if is_complete && accepted.reveal() == Login::PUBLIC_PASSWORD => Self::NotNeeded,
            None => Self::Missing,
            Some(stored) if stored == accepted && is_complete => Self::Accepted,
            Some(_) => Self::Outdated,
        }
    }
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

impl DefaultLogin {
    /// The result of both ways to sign in: whether basic authentication accepted admin/admin, and the login form's
    /// answer. `accepted` is the login in use.
    #[must_use]
    pub(crate) fn new(is_accepted: bool, form: FormLogin, accepted: Option<Credential>) -> Self {
        match form {
            FormLogin::Accepted => Self::Accepted,
            _ if is_accepted => Self::Accepted,
            // A rejection proves something only if a correct password could be accepted.
            FormLogin::NotOffered if accepted == Some(Credential::Token) => Self::Unverifiable,
            FormLogin::Rejected | FormLogin::NotOffered => Self::Rejected,
        }
    }
}

/// The answer of Grafana's login form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormLogin {
    Accepted,
    /// The password is wrong.
    Rejected,
    /// The form does not exist.
    NotOffered,
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::Credential::{Default as Public, Pending, Stored, Supplied, Token};
    use super::*;
    use crate::model::container_config::PasswordSource;
    use crate::model::stack::Service;
    use crate::samples;

    fn stack(login: Login, is_open: bool) -> Stack {
        let mut stack = Stack { login, ..samples::stack() };
        if let (Service::Container(spec), true) = (&mut stack.services.grafana, is_open) {
            spec.config.publish.set_ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        }
        stack
    }

    fn supplied(user: &str, token: bool, password: bool) -> Login {
        Login { user: user.into(), uses_token: token, supplies_password: password, is_untried: password }
    }

    fn container(password: PasswordSource, port: u16) -> OurContainer {
        let mut actual = samples::our_container(Role::Grafana);
        let config = actual.config.as_mut().unwrap();
        config.password = password;
        config.publish.set_port(port);
        actual
    }

    fn files(password: Option<&str>, pending: Option<&str>) -> VolumeFiles {
        let secret = |text: Option<&str>| text.map(Secret::new);
        VolumeFiles { password: secret(password), pending: secret(pending), ..VolumeFiles::default() }
    }

    fn attempt(credential: Credential, secret: &str) -> Attempt {
        Attempt { credential, secret: Secret::new(secret) }
    }

    /// The logins that are tried if Grafana rejects each of them.
    fn order(stack: &Stack, actual: Option<&OurContainer>, files: &VolumeFiles) -> Vec<Credential> {
        let (mut read, mut tried) = (None, Vec::new());
        loop {
            let exists = |credential| match credential {
                Pending => files.pending.is_some(),
                Stored => files.password.is_some(),
                _ => true,
            };
            match next_login(stack, actual, read, |one| exists(one) && !tried.contains(&one)) {
                NextLogin::Try(credential) => tried.push(credential),
                NextLogin::ReadFiles => {
                    assert!(read.is_none());
                    read = Some(files);
                }
                NextLogin::GiveUp => return tried,
            }
        }
    }

    #[test]
    fn a_supplied_login_is_tried_alone() {
        let (made, full) = (container(PasswordSource::File, 3000), files(Some("a"), Some("b")));
        for actual in [None, Some(&made)] {
            assert_eq!(order(&stack(supplied("admin", true, false), true), actual, &full), [Token]);
            assert_eq!(order(&stack(supplied("admin", false, true), false), actual, &full), [Supplied]);
            assert_eq!(order(&stack(supplied("me", false, true), true), actual, &full), [Supplied]);
        }
        let moves = stack(supplied("admin", false, true), true);
        assert_eq!(order(&moves, Some(&made), &full), [Supplied, Public], "it moves off loopback");
        assert_eq!(order(&moves, None, &full), [Supplied]);
    }

    #[test]
    fn without_a_supplied_login_the_volume_is_read_only_where_it_can_contain_the_password() {
        let stack = stack(supplied("admin", false, false), false);
        let (none, full) = (files(None, None), files(Some("a"), Some("b")));
        assert_eq!(order(&stack, None, &full), [Public], "an external Grafana has no volume");
        let default = container(PasswordSource::Default, 3000);
        assert_eq!(order(&stack, Some(&default), &full), [Public, Pending, Stored]);
        assert_eq!(order(&stack, Some(&default), &none), [Public]);
        let with_file = container(PasswordSource::File, 3000);
        assert_eq!(order(&stack, Some(&with_file), &full), [Pending, Stored]);
        assert_eq!(order(&stack, Some(&with_file), &none), [Public]);
        let private = container(PasswordSource::File, 0);
        assert_eq!(order(&stack, Some(&private), &full), [Pending, Stored, Public]);
        let unread = |actual: &OurContainer| next_login(&stack, Some(actual), None, |_| true);
        assert_eq!((unread(&default), unread(&with_file)), (NextLogin::Try(Public), NextLogin::ReadFiles));
    }

    #[test]
    fn an_accepted_login_shows_the_account_and_whether_the_file_contains_its_password() {
        use PasswordFile::{Accepted, Missing, NotNeeded, Outdated};
        use SignedInAccount::{DefaultPassword, Other, OwnPassword};
        let state = |user: &str, accepted: &Attempt, source, files: &VolumeFiles| {
            let actual = container(source, 3000);
            let login = LoginState::new(&supplied(user, false, false), accepted, Some(&actual), Some(files));
            (login.account, login.file)
        };
        let (default, own) = (attempt(Public, "admin"), attempt(Stored, "own"));
        let (file, no_file) = (PasswordSource::File, PasswordSource::Default);
        for (user, accepted, source, files, expected) in [
            ("admin", &default, no_file, files(Some("x"), None), (DefaultPassword, NotNeeded)),
            ("admin", &default, file, files(None, None), (DefaultPassword, NotNeeded)),
            ("admin", &default, file, files(None, Some("x")), (DefaultPassword, Missing)),
            ("admin", &default, file, files(Some("x"), None), (DefaultPassword, Outdated)),
            ("admin", &own, no_file, files(Some("own"), None), (OwnPassword, Accepted)),
            ("admin", &own, file, files(Some("own"), Some("own")), (OwnPassword, Accepted)),
            ("admin", &own, file, files(Some("own"), Some("x")), (OwnPassword, Outdated)),
            ("admin", &own, file, files(None, None), (OwnPassword, Missing)),
            ("me", &own, file, files(Some("x"), None), (Other, Outdated)),
            ("admin", &attempt(Token, "own"), file, files(Some("x"), None), (Other, NotNeeded)),
        ] {
            assert_eq!(state(user, accepted, source, &files), expected, "{user} {accepted:?} {source:?} {files:?}");
        }
    }

    #[test]
    fn admin_admin_is_tried_only_on_a_private_grafana_that_is_to_be_published() {
        let tries = |is_open, port, accepted: &Attempt| {
            let stack = stack(supplied("admin", false, false), is_open);
            let actual = container(PasswordSource::File, port);
            LoginState::new(&stack.login, accepted, Some(&actual), None).tries_default(&stack, Some(&actual))
        };
        let own = attempt(Stored, "own");
        assert!(tries(true, 0, &own));
        assert!(!tries(true, 3000, &own) && !tries(false, 0, &own) && !tries(true, 0, &attempt(Public, "admin")));
    }

    #[test]
    fn a_rejected_secret_is_not_tried_under_another_name() {
        let mut attempts = LoginAttempts::default();
        attempts.reject(attempt(Stored, "a"));
        assert!(attempts.is_rejected(&attempt(Pending, "a")));
        assert!(!attempts.is_rejected(&attempt(Token, "a")) && !attempts.is_rejected(&attempt(Stored, "b")));
        attempts.accept(attempt(Supplied, "a"));
        assert!(!attempts.is_rejected(&attempt(Stored, "a")), "it has become the password");
        attempts.reject(attempt(Stored, "a"));
        assert_eq!(attempts.accepted(), None);
    }

    #[test]
    fn after_a_lockout_every_login_is_allowed_again() {
        let start = Instant::now();
        let mut attempts = LoginAttempts::default();
        attempts.reject(attempt(Stored, "a"));
        attempts.give_up("wrong password", None, start);
        attempts.end_lockout(start + LOCKOUT);
        assert!(attempts.rejection().is_some() && !attempts.is_locked_out(), "it was not locked out");
        attempts.lock_out(start);
        attempts.end_lockout(start + LOCKOUT / 2);
        assert!(attempts.is_locked_out());
        attempts.end_lockout(start + LOCKOUT);
        assert_eq!((attempts.rejection(), attempts.is_rejected(&attempt(Stored, "a"))), (None, false));
    }

    #[test]
    fn after_all_logins_were_rejected_only_changed_files_allow_another_attempt() {
        let (old, new) = (files(Some("a"), None), files(Some("b"), None));
        let start = Instant::now();
        let mut attempts = LoginAttempts::default();
        attempts.reject(attempt(Stored, "a"));
        attempts.give_up("wrong password", None, start);
        assert!(!attempts.reads_again(start) && attempts.reads_again(start + READ_AGAIN));
        attempts.retry_with(&old, start + READ_AGAIN);
        assert_eq!(attempts.rejection(), Some("wrong password"), "they were not read before");
        assert!(!attempts.reads_again(start + READ_AGAIN));
        attempts.retry_with(&old, start + 2 * READ_AGAIN);
        assert!(attempts.is_rejected(&attempt(Stored, "a")));
        attempts.retry_with(&new, start + 3 * READ_AGAIN);
        assert_eq!((attempts.rejection(), attempts.is_rejected(&attempt(Stored, "a"))), (None, false));
    }
}
