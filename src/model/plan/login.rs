//! Plans Grafana's passwords: what must be verified before Grafana is published, on which
//! container, and the password of a new container.

use super::blockers::needs_last_image;
use super::container::differences;
use super::rebuild::private;
use super::running::start;
use super::server::ServerContext;
use super::{BlockReason, Blocker, ContainerUse, NewContainer, Step, upgrade};
use crate::model::container_config::{ContainerConfig, PasswordSource};
use crate::model::login::{Credential, DefaultLogin, PasswordFile, SignedInAccount};
use crate::model::observed::{OurContainer, RunState, ServerResponse, VolumeState};
use crate::model::role::Role;
use crate::model::stack::{Login, Stack};
use crate::model::upgrade::NamedImage;

/// The step that stores the accepted password, if the file in the volume does not contain it.
pub(super) fn store(context: &ServerContext<'_>) -> Option<Step> {
    let seen = context.seen;
    let is_new = seen.login.file == PasswordFile::Outdated
        || (seen.login.file == PasswordFile::Missing
            && matches!(seen.login.account, SignedInAccount::OwnPassword | SignedInAccount::Other));
    let replaces_pending = seen.content.as_ref().is_some_and(|content| content.files.pending.is_some());
    let login = seen.login.accepted.filter(|_| is_new)?;
    Some(Step::StorePassword { login, replaces_pending })
}

/// The password source of the container. A password in the volume stays in force without repeating an option.
pub(super) fn source_in_force(context: &ServerContext<'_>, actual: Option<&OurContainer>) -> PasswordSource {
    let made_with_file = actual.is_some_and(OurContainer::has_password_file);
    let login = context.seen.login;
    let is_stored = matches!(login.file, PasswordFile::Accepted | PasswordFile::Outdated | PasswordFile::Missing);
    // Before a start, only the file shows which password is in force.
    let is_new = actual.is_some_and(|actual| actual.run == RunState::Created) && !is_fresh(context);
    match login.account {
        _ if is_new && has_stored_password(context) => PasswordSource::File,
        _ if is_new => PasswordSource::Default,
        _ if made_with_file => PasswordSource::File,
        SignedInAccount::OwnPassword | SignedInAccount::Other if is_stored => PasswordSource::File,
        // This account does not sign in with the password in the file.
        SignedInAccount::Other => PasswordSource::Default,
        _ => first_source(context),
    }
}

fn has_stored_password(context: &ServerContext<'_>) -> bool {
    context.seen.content.as_ref().is_some_and(|content| content.files.password.is_some())
}

/// The password source of a Grafana that has never run: a new password if a reset was requested.
fn first_source(context: &ServerContext<'_>) -> PasswordSource {
    let is_requested = context.options.reset_password && context.spec.role == Role::Grafana && is_fresh(context);
    if is_requested { PasswordSource::File } else { context.spec.config.password }
}

/// Whether no Grafana has ever run on the volume, so that its password can still be chosen.
pub(super) fn is_fresh(context: &ServerContext<'_>) -> bool {
    context.seen.volume == VolumeState::Absent || context.seen.container.ours().is_some_and(OurContainer::is_fresh)
}

/// The step that writes the first password, unless it is in the volume already.
pub(super) fn write_first_password(context: &ServerContext<'_>, source: PasswordSource) -> Option<Step> {
    let supplied = context.stack.login.supplies_password;
    let is_needed = context.spec.role == Role::Grafana && source == PasswordSource::File && is_fresh(context);
    let is_stored = !supplied && has_stored_password(context);
    let password = if supplied { Credential::Supplied } else { Credential::Generated };
    (is_needed && !is_stored).then_some(Step::WriteFirstPassword(password))
}

/// The work on Grafana's login before the desired container is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginTask {
    /// Try the supplied login.
    Try,
    /// Verify that admin/admin is rejected, and replace it if it is in force.
    Secure,
    /// Set a new password.
    Reset,
}

impl LoginTask {
    /// The steps on a running Grafana. After the first one that reveals a fact, the next plan decides.
    pub(super) fn steps(self, context: &ServerContext<'_>) -> Vec<Step> {
        match self {
            Self::Try => vec![try_login(context)],
            Self::Secure => change_default(context),
            Self::Reset => reset(context),
        }
    }
}

/// Tries the supplied login: a supplied password, or another user with the password in force.
pub(super) fn try_login(context: &ServerContext<'_>) -> Step {
    Step::TryLogin(match context.stack.login.supplies_password {
        true => Credential::Supplied,
        false if has_stored_password(context) => Credential::Stored,
        false => Credential::Default,
    })
}

/// Replaces Grafana's default password.
pub(super) fn change_default(context: &ServerContext<'_>) -> Vec<Step> {
    let pending = context.seen.content.as_ref().and_then(|content| content.files.pending.as_ref());
    let is_being_set = pending.is_some_and(|pending| pending.reveal() != Login::PUBLIC_PASSWORD);
    let new = match context.stack.login.supplies_password {
        true => Credential::Supplied,
        false if is_being_set => Credential::Pending,
        false => Credential::Generated,
    };
    vec![
        Step::WritePendingPassword(new),
        Step::ChangePassword(new),
        Step::StorePassword { login: new, replaces_pending: false },
        Step::CheckLoginForm,
    ]
}

/// Sets a password with Grafana's own command. The password in force is stored first, in case the run ends before.
pub(super) fn reset(context: &ServerContext<'_>) -> Vec<Step> {
    let new = if context.stack.login.supplies_password { Credential::Supplied } else { Credential::Generated };
    let steps = [
        Step::WritePendingPassword(new),
        Step::ResetPassword(new),
        Step::TryLogin(new),
        Step::StorePassword { login: new, replaces_pending: false },
    ];
    store(context).into_iter().chain(steps).collect()
}

/// Whether it is known that admin/admin is rejected.
fn rejects_default(context: &ServerContext<'_>) -> bool {
    let login = context.seen.login;
    match login.account {
        // An account has the same password for every way to sign in.
        SignedInAccount::OwnPassword => login.default_login != DefaultLogin::Accepted,
        SignedInAccount::Other => !login.has_default_password && login.default_login == DefaultLogin::Rejected,
        SignedInAccount::SignedOut | SignedInAccount::DefaultPassword => false,
    }
}

/// The work that is needed on a Grafana that no other host can reach, if any.
pub(super) fn task(context: &ServerContext<'_>, actual: Option<&OurContainer>) -> Option<LoginTask> {
    let ServerContext { stack, spec, seen, options, .. } = context;
    if spec.role != Role::Grafana || is_fresh(context) {
        return None;
    }
    let signed_in = matches!(seen.response, ServerResponse::Answering(_));
    // A container that is only restarted was verified when it was created.
    let made = actual.is_none_or(|actual| {
        let as_it_is = matches!(actual.run, RunState::Created | RunState::Exited(_));
        !(as_it_is && differences(context, actual).is_empty())
    });
    if options.reset_password {
        Some(LoginTask::Reset)
    } else if spec.config.is_open()
        && (made || (stack.login.is_untried && !stack.login.is_admin()))
        && !(signed_in && rejects_default(context))
    {
        Some(LoginTask::Secure)
    } else if stack.login.is_untried && !signed_in {
        Some(LoginTask::Try)
    } else {
        None
    }
}

/// The reason why a verified fact prevents the publication, on a private Grafana.
pub(super) fn unsafe_default(context: &ServerContext<'_>, actual: &OurContainer, task: LoginTask) -> Option<Blocker> {
    if task != LoginTask::Secure || !actual.is_private() {
        return None;
    }
    let stack = context.stack;
    let at = actual.published.map_or_else(String::new, |at| format!(", at http://{at}"));
    let login = context.seen.login;
    let (kind, why, hint) = match login.default_login {
        _ if login.account == SignedInAccount::Other && login.has_default_password => (
            BlockReason::Settings,
            format!(
                "Grafana's account {} still has the password admin, and other hosts would be able to use it; Grafana \
                 stays on loopback{at}",
                stack.login.user
            ),
            format!(
                "change that password there, then supply it with `{}`",
                stack.command("up --grafana-password-file FILE")
            ),
        ),
        DefaultLogin::Accepted => (
            BlockReason::Settings,
            format!(
                "Grafana's account admin still has the password admin, and other hosts would be able to use it; Grafana \
                 stays on loopback{at}"
            ),
            "change that password there, or let clipper-metrics replace it by signing in as admin: omit --grafana-user \
             and the token"
                .to_string(),
        ),
        DefaultLogin::Unverifiable => (
            BlockReason::Unverifiable,
            "whether admin / admin is rejected cannot be verified: the image of Grafana switches off basic \
             authentication and the login form, regardless of the environment"
                .to_string(),
            format!(
                "publish it on loopback: `{}`, or use an image that leaves these settings to the environment",
                stack.command("up --grafana-ip 127.0.0.1")
            ),
        ),
        DefaultLogin::NotTried | DefaultLogin::Rejected => return None,
    };
    Some(Blocker { kind, why, hint })
}

/// Whether the step can be performed on the running container.
pub(super) fn is_in_place(context: &ServerContext<'_>, actual: &OurContainer, task: LoginTask) -> bool {
    let answers = matches!(context.seen.response, ServerResponse::Answering(_));
    let refuses = matches!(context.seen.response, ServerResponse::Refusing(_));
    actual.run == RunState::Running
        && match task {
            // A published Grafana never gets the default password, not even on its way to loopback.
            LoginTask::Reset => (answers || refuses) && (actual.is_on_loopback() || context.spec.config.is_open()),
            // For another account, admin/admin can be checked only where the lockout is off.
            _ => answers && actual.is_on_loopback() && context.stack.login.is_admin(),
        }
}

/// The steps to a Grafana that no other host can reach.
///
/// # Errors
/// The blocker if the image that ran last is not on the engine.
pub(super) fn private_start(
    context: &ServerContext<'_>,
    actual: &OurContainer,
    task: LoginTask,
) -> Result<Vec<Step>, Blocker> {
    let grafana = Role::Grafana;
    if is_in_place(context, actual, task) {
        return Ok(vec![]);
    }
    let was_started = matches!(actual.run, RunState::Exited(_));
    let has_password = actual.run == RunState::Created
        && actual.has_password_file()
        && has_stored_password(context)
        && !upgrade::may_migrate(context);
    // The port of a moved container may be taken, and the other role's container is removed only later.
    let is_free = context.seen.port_holder.is_none();
    let stays = actual
        .config
        .as_ref()
        .is_some_and(|made| made.publish.port() == 0 || (made.publish == context.spec.config.publish && is_free));
    let can_start = (was_started || has_password)
        && task != LoginTask::Secure
        && actual.on_network
        && actual.is_on_loopback()
        && stays;
    if can_start && context.stack.login.is_admin() {
        return Ok(start(context, actual));
    }
    let new = private_container(context)?;
    let image = NamedImage { name: new.config.image.clone(), id: new.image_id.clone() };
    // The name of the last image may belong to another one by now.
    let guard = upgrade::before_start(context, &image);
    let create = vec![Step::CreateContainer(Box::new(new))];
    let wait = vec![Step::StartContainer(grafana), Step::AwaitAnswer(grafana)];
    Ok([context.removal(actual), create, guard, wait].concat())
}

/// A private container of the image that ran last: a rejected login must not leave a migrated database behind.
fn private_container(context: &ServerContext<'_>) -> Result<NewContainer, Blocker> {
    let ServerContext { stack, spec, .. } = context;
    let password = if has_stored_password(context) { PasswordSource::File } else { PasswordSource::Default };
    let image = match &context.last.image_on_engine {
        Some(last) if last.id.is_none() => return Err(needs_last_image(stack, spec, &last.name.to_string())),
        Some(last) => last.clone(),
        None => upgrade::desired_image(context),
    };
    // Another image may write to its root, unless its container could not.
    let made = context.seen.container.ours().and_then(|actual| actual.config.as_ref());
    let as_made = made.filter(|made| made.image == image.name);
    let read_only = as_made.map_or(spec.config.read_only && image.name == spec.config.image, |made| made.read_only);
    Ok(NewContainer {
        role: Role::Grafana,
        config: ContainerConfig { read_only, image: image.name, password, ..private(spec) },
        image_id: image.id,
        usage: ContainerUse::Login,
    })
}

/// The engine's loopback is out of reach, so no login can be verified on a private Grafana.
pub(super) fn unverifiable(stack: &Stack, host: &str, task: LoginTask) -> Blocker {
    let what = match task {
        LoginTask::Try => "the supplied login can be tried only",
        LoginTask::Reset => "its password can be reset only",
        LoginTask::Secure => "whether admin / admin is rejected can be verified only",
    };
    Blocker {
        kind: BlockReason::Unverifiable,
        why: format!(
            "Grafana on {host} has data, and {what} through {host}'s loopback, which is out of reach from here"
        ),
        hint: format!(
            "run the same command on {host} itself, without -H and --context: `{}`",
            stack.invocation.command_there("up")
        ),
    }
}

/// The password source of the new container.
pub(super) fn new_source(
    context: &ServerContext<'_>,
    actual: Option<&OurContainer>,
    task: Option<LoginTask>,
) -> PasswordSource {
    if context.spec.role != Role::Grafana {
        return PasswordSource::Default;
    }
    let signed_in = matches!(context.seen.response, ServerResponse::Answering(_));
    let had_file = |actual: &OurContainer| actual.has_password_file() && actual.run != RunState::Created;
    let is_stored = has_stored_password(context) || actual.is_some_and(had_file);
    match task {
        _ if is_fresh(context) => first_source(context),
        Some(LoginTask::Secure) if !context.stack.login.is_admin() && !is_stored => PasswordSource::Default,
        Some(LoginTask::Secure | LoginTask::Reset) => PasswordSource::File,
        Some(LoginTask::Try) if context.stack.login.supplies_password => context.spec.config.password,
        _ if store(context).is_some() => PasswordSource::File,
        None if signed_in => source_in_force(context, actual),
        _ if is_stored => PasswordSource::File,
        _ => PasswordSource::Default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::image::ImageRef;
    use crate::model::login::LoginState;
    use crate::model::volume_content::VolumeContent;
    use crate::samples::{self, container_of, plan_with, steps};

    #[test]
    fn a_private_container_has_a_read_only_root_only_if_it_runs_the_default_image() {
        let mut desired = samples::stack();
        (desired.login.supplies_password, desired.login.is_untried) = (true, true);
        for (last, expected) in [("grafana/grafana:1.2.0", true), ("corp/grafana:1", false)] {
            let plan = plan_with(&desired, |seen| {
                container_of(seen, Role::Grafana).run = RunState::Created;
                seen.grafana.response = ServerResponse::Unasked;
                let image = Some(last.into());
                seen.grafana.volume = VolumeState::Ours { user: Some(String::new()), version: None, image };
                let id = Some("id".into());
                seen.grafana.last_image = Some(NamedImage { name: ImageRef::parse(last).unwrap(), id });
                seen.grafana.content = Some(VolumeContent::default());
            });
            let steps = steps(&plan);
            let private = steps.iter().find_map(|step| match step {
                Step::CreateContainer(new) if new.usage == ContainerUse::Login => Some(new),
                _ => None,
            });
            let private = private.unwrap_or_else(|| panic!("{plan:?}"));
            assert_eq!((private.config.image.to_string(), private.config.read_only), (last.to_string(), expected));
        }
    }

    #[test]
    fn no_account_with_the_default_password_is_published() {
        // A running private Grafana, to be published off loopback, to which boss signs in.
        let private_plan = |has_default_password, default_login| {
            let mut desired = samples::stack_off_loopback();
            desired.login.user = "boss".into();
            plan_with(&desired, |seen| {
                let actual = container_of(seen, Role::Grafana);
                actual.config.as_mut().unwrap().publish.set_port(0);
                actual.published = Some(([127, 0, 0, 1], 32_000).into());
                seen.grafana.content = Some(VolumeContent::default());
                let (accepted, account) = (Some(Credential::Default), SignedInAccount::Other);
                let found = LoginState { accepted, account, default_login, ..LoginState::default() };
                seen.grafana.login = LoginState { has_default_password, ..found };
            })
        };
        // The account boss was created instead of admin, so admin/admin is rejected.
        let boss = private_plan(true, DefaultLogin::Rejected);
        let (_, blocker) = boss.blocker().expect("anyone can sign in as boss");
        assert!(blocker.kind == BlockReason::Settings && blocker.why.contains("account boss"), "{blocker:?}");
        let own = private_plan(false, DefaultLogin::Rejected);
        let creates = steps(&own).iter().any(|step| matches!(step, Step::CreateContainer(_)));
        assert!(own.blocker().is_none() && creates, "{own:?}");
        for (default_login, kind) in
            [(DefaultLogin::Accepted, BlockReason::Settings), (DefaultLogin::Unverifiable, BlockReason::Unverifiable)]
        {
            let plan = private_plan(false, default_login);
            assert_eq!(plan.blocker().map(|(_, blocker)| blocker.kind), Some(kind), "{plan:?}");
        }
    }
}
