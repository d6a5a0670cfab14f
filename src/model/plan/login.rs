//! Plans Grafana's passwords: what must be verified before Grafana is published, on which
//! container, and the password of a new container.

use super::container::{Context, differences, guard_database, start};
use super::{BlockReason, Blocker, NewPassword, Step};
use crate::model::container_config::PasswordSource;
use crate::model::observed::{Account, OurContainer, PasswordFile, RunState, ServerResponse, Volume};
use crate::model::role::Role;
use crate::model::stack::Stack;

/// Whether Grafana accepted a password that its volume's file does not contain.
pub(super) fn must_store<S>(context: &Context<'_, S>) -> bool {
    let login = context.seen.login;
    login.file == PasswordFile::Outdated
        || (login.file == PasswordFile::Missing && matches!(login.account, Account::OwnPassword | Account::Other))
}

/// The password source of the container. A password in the volume stays in force without repeating an option.
pub(super) fn password<S>(context: &Context<'_, S>, have: Option<&OurContainer>) -> PasswordSource {
    let made_with_file = have.is_some_and(OurContainer::is_made_with_file);
    let login = context.seen.login;
    let is_stored = matches!(login.file, PasswordFile::Accepted | PasswordFile::Outdated | PasswordFile::Missing);
    match login.account {
        _ if made_with_file => PasswordSource::File,
        Account::OwnPassword | Account::Other if is_stored => PasswordSource::File,
        // This account does not sign in with the password in the file.
        Account::Other => PasswordSource::Default,
        _ => first_password(context),
    }
}

/// The password source of a Grafana that has never run: a new password if a reset was requested.
fn first_password<S>(context: &Context<'_, S>) -> PasswordSource {
    let is_requested = context.options.reset_password && context.spec.role == Role::Grafana && is_fresh(context);
    if is_requested { PasswordSource::File } else { context.spec.specification.password }
}

/// Whether no Grafana has ever run on the volume, so that its password can still be chosen.
pub(super) fn is_fresh<S>(context: &Context<'_, S>) -> bool {
    context.seen.volume == Volume::Absent || context.seen.container.ours().is_some_and(OurContainer::is_fresh)
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
    pub(super) const fn step(self) -> Step {
        match self {
            Self::Try => Step::TryPassword,
            Self::Secure => Step::SecurePassword,
            Self::Reset => Step::ResetPassword,
        }
    }
}

/// The work that is needed on a Grafana that no other host can reach, if any.
pub(super) fn task<S>(context: &Context<'_, S>, have: Option<&OurContainer>) -> Option<LoginTask> {
    let Context { stack, spec, seen, options, .. } = context;
    if spec.role != Role::Grafana || is_fresh(context) {
        return None;
    }
    let signed_in = matches!(seen.probe, ServerResponse::Answering(_));
    // A container that is only restarted was verified when it was created.
    let made = have.is_none_or(|have| {
        let as_it_is = matches!(have.run, RunState::Created | RunState::Exited(_));
        !(as_it_is && differences(context, have).is_empty())
    });
    if options.reset_password {
        Some(LoginTask::Reset)
    } else if spec.specification.is_open()
        && (made || (stack.login.given && !stack.login.is_admin()))
        && !(signed_in && seen.login.account == Account::OwnPassword)
    {
        Some(LoginTask::Secure)
    } else if stack.login.given && !signed_in {
        Some(LoginTask::Try)
    } else {
        None
    }
}

/// Whether the step can be performed on the running container.
pub(super) fn is_in_place<S>(context: &Context<'_, S>, have: Option<&OurContainer>, task: LoginTask) -> bool {
    let answers = matches!(context.seen.probe, ServerResponse::Answering(_));
    let refuses = matches!(context.seen.probe, ServerResponse::Refusing(_));
    have.is_some_and(|have| {
        have.run == RunState::Running
            && match task {
                // A published Grafana never gets the default password, not even on its way to loopback.
                LoginTask::Reset => {
                    (answers || refuses) && (have.is_on_loopback() || context.spec.specification.is_open())
                }
                // For another account, admin/admin can be checked only where the lockout is off.
                _ => answers && have.is_on_loopback() && context.stack.login.is_admin(),
            }
    })
}

/// The steps to a Grafana that no other host can reach.
pub(super) fn private_start<S>(context: &Context<'_, S>, have: Option<&OurContainer>, task: LoginTask) -> Vec<Step> {
    let grafana = Role::Grafana;
    if is_in_place(context, have, task) {
        return vec![];
    }
    let can_start = |have: &OurContainer| {
        let was_started = matches!(have.run, RunState::Exited(_));
        let has_password = have.run == RunState::Created && have.is_made_with_file();
        // The port of a moved container may be taken, and the other role's container is removed only later.
        let is_free = context.seen.port_holder.is_none();
        let stays = have.specification.as_ref().is_some_and(|made| {
            made.publish.port() == 0 || (made.publish == context.spec.specification.publish && is_free)
        });
        (was_started || has_password) && task != LoginTask::Secure && have.on_network && have.is_on_loopback() && stays
    };
    match have {
        Some(have) if can_start(have) && context.stack.login.is_admin() => {
            [guard_database(context, have), start(have, grafana)].concat()
        }
        _ => {
            let mut steps = vec![];
            if have.is_some() {
                steps.push(Step::RemoveContainer(grafana));
            }
            // The last image that ran may be uncertain.
            let starts = [context.protect_database(), Step::StartContainer(grafana), Step::AwaitAnswer(grafana)];
            steps.push(Step::CreatePrivateContainer { last: context.last_image() });
            steps.extend(starts);
            steps
        }
    }
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

/// The password source of the new container, as far as it is known.
pub(super) fn new_password<S>(
    context: &Context<'_, S>,
    have: Option<&OurContainer>,
    task: Option<LoginTask>,
) -> NewPassword {
    let Context { spec, seen, .. } = context;
    let known = |source| NewPassword::Known(source);
    if spec.role != Role::Grafana {
        return known(PasswordSource::Default);
    }
    match task {
        _ if is_fresh(context) => known(first_password(context)),
        // Another account's password may be in the file or nowhere.
        Some(LoginTask::Secure) if !context.stack.login.is_admin() => NewPassword::AsVolume,
        Some(LoginTask::Secure | LoginTask::Reset) => known(PasswordSource::File),
        Some(_) => NewPassword::AsVolume,
        None => match have {
            _ if must_store(context) => known(PasswordSource::File),
            // Only a login reveals the password on the volume.
            Some(have) if matches!(seen.probe, ServerResponse::Answering(_)) => known(password(context, Some(have))),
            _ => NewPassword::AsVolume,
        },
    }
}
