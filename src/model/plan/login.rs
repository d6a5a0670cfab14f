//! Grafana's passwords in the plan: what must be proven before Grafana is published, where that is
//! done, and which password a new container starts with.
//!
//! Must not know how a password is tried or set.

use super::container::{Context, differences, guard_database, start};
use super::{Blocked, NewPassword, Obstacle, Step};
use crate::model::observed::{Account, OurContainer, PasswordFile, Probe, RunState, Volume};
use crate::model::role::Role;
use crate::model::specification::PasswordSource;
use crate::model::stack::Stack;

/// Grafana accepted a password that its volume's file does not hold.
pub(super) fn must_store<S>(context: &Context<'_, S>) -> bool {
    let login = context.seen.login;
    login.file == PasswordFile::Outdated
        || (login.file == PasswordFile::Missing && matches!(login.account, Account::OwnPassword | Account::Other))
}

/// Which password the container is to start with. A password in the volume stays: no option need
/// be repeated for it.
pub(super) fn password<S>(context: &Context<'_, S>, have: Option<&OurContainer>) -> PasswordSource {
    let made_with_file = have.is_some_and(OurContainer::is_made_with_file);
    let login = context.seen.login;
    let is_stored = matches!(login.file, PasswordFile::Accepted | PasswordFile::Outdated | PasswordFile::Missing);
    match login.account {
        _ if made_with_file => PasswordSource::File,
        Account::OwnPassword | Account::Other if is_stored => PasswordSource::File,
        // Whatever the file would hold, this account does not sign in with it.
        Account::Other => PasswordSource::Default,
        _ => first_password(context),
    }
}

/// Which password a Grafana that has never run starts with: a new one where a reset was requested.
fn first_password<S>(context: &Context<'_, S>) -> PasswordSource {
    let is_requested = context.options.reset_password && context.spec.role == Role::Grafana && is_fresh(context);
    if is_requested { PasswordSource::File } else { context.spec.specification.password }
}

/// No Grafana has ever run on the volume: whatever its password is to be, it is set.
pub(super) fn is_fresh<S>(context: &Context<'_, S>) -> bool {
    context.seen.volume == Volume::Absent || context.seen.container.ours().is_some_and(OurContainer::is_fresh)
}

/// What must be done on a Grafana that nobody else reaches, before the one that is specified is
/// made.
pub(super) fn task<S>(context: &Context<'_, S>, have: Option<&OurContainer>) -> Option<Step> {
    let Context { stack, spec, seen, options, .. } = context;
    if spec.role != Role::Grafana || is_fresh(context) {
        return None;
    }
    let signed_in = matches!(seen.probe, Probe::Answering(_));
    // One that is started again as it is was proven when it was made.
    let made = have.is_none_or(|have| {
        let as_it_is = matches!(have.run, RunState::Created | RunState::Exited(_));
        !(as_it_is && differences(context, have).is_empty())
    });
    if options.reset_password {
        Some(Step::ResetPassword)
    } else if spec.specification.is_open()
        && (made || (stack.login.given && !stack.login.is_admin()))
        && !(signed_in && seen.login.account == Account::OwnPassword)
    {
        Some(Step::SecurePassword)
    } else if stack.login.given && !signed_in {
        Some(Step::TryPassword)
    } else {
        None
    }
}

/// The task can be done on the container that runs.
pub(super) fn is_in_place<S>(context: &Context<'_, S>, have: Option<&OurContainer>, task: Step) -> bool {
    let answers = matches!(context.seen.probe, Probe::Answering(_));
    let refuses = matches!(context.seen.probe, Probe::Refusing(_));
    have.is_some_and(|have| {
        have.run == RunState::Running
            && match task {
                // What is published for everybody is never given the default password, not even on its
                // way to loopback.
                Step::ResetPassword => {
                    (answers || refuses) && (have.is_on_loopback() || context.spec.specification.is_open())
                }
                // Another account can only be judged where the lockout is off.
                _ => answers && have.is_on_loopback() && context.stack.login.is_admin(),
            }
    })
}

/// The steps to a Grafana that nobody else reaches.
pub(super) fn private_start<S>(context: &Context<'_, S>, have: Option<&OurContainer>, task: Step) -> Vec<Step> {
    let grafana = Role::Grafana;
    if is_in_place(context, have, task) {
        return vec![];
    }
    let can_start = |have: &OurContainer| {
        let was_started = matches!(have.run, RunState::Exited(_));
        let has_password = have.run == RunState::Created && have.is_made_with_file();
        // The port of one that moves may be taken by now, and the other role's container goes only later.
        let is_free = context.seen.port_holder.is_none();
        let stays = have.specification.as_ref().is_some_and(|made| {
            made.publish.port() == 0 || (made.publish == context.spec.specification.publish && is_free)
        });
        (was_started || has_password)
            && task != Step::SecurePassword
            && have.on_network
            && have.is_on_loopback()
            && stays
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
            // The image that ran last may not be known for sure.
            let starts = [Step::ProtectDatabase, Step::StartContainer(grafana), Step::AwaitAnswer(grafana)];
            steps.push(Step::CreateOnLoopback);
            steps.extend(starts);
            steps
        }
    }
}

/// The engine's loopback cannot be reached, so nobody can sign in where nobody else does.
pub(super) fn unverifiable(stack: &Stack, host: &str, task: Step) -> Blocked {
    let what = match task {
        Step::TryPassword => "the given login can only be tried",
        Step::ResetPassword => "its password can only be reset",
        _ => "whether its account admin still has the password admin can only be seen",
    };
    Blocked {
        kind: Obstacle::Unverifiable,
        why: format!(
            "Grafana on {host} has data, and {what} through {host}'s loopback, which is out of reach from here"
        ),
        hint: format!(
            "run the same command on {host} itself, without -H and --context: `{}`",
            stack.invocation.command_there("up")
        ),
    }
}

/// Which password the new container starts with, as far as that is known.
pub(super) fn new_password<S>(
    context: &Context<'_, S>,
    have: Option<&OurContainer>,
    task: Option<Step>,
) -> NewPassword {
    let Context { spec, seen, .. } = context;
    let known = |source| NewPassword::Known(source);
    if spec.role != Role::Grafana {
        return known(PasswordSource::Default);
    }
    match task {
        _ if is_fresh(context) => known(first_password(context)),
        // Another account's password may be in the file, or nowhere.
        Some(Step::SecurePassword) if !context.stack.login.is_admin() => NewPassword::AsVolume,
        Some(Step::SecurePassword | Step::ResetPassword) => known(PasswordSource::File),
        Some(_) => NewPassword::AsVolume,
        None => match have {
            _ if must_store(context) => known(PasswordSource::File),
            // Only who has just signed in knows what the volume holds.
            Some(have) if matches!(seen.probe, Probe::Answering(_)) => known(password(context, Some(have))),
            _ => NewPassword::AsVolume,
        },
    }
}
