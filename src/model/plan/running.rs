//! Plans a container that matches its configuration: a running one, one that is paused, and one to start.

use super::blockers::{migrated, not_the_container, refused, unusable_server};
use super::login::{change_default, reset, store, try_login, write_first_password};
use super::server::{ServerContext, ServerPlan};
use super::{BlockReason, Blocker, Finding, Phase, Step, upgrade};
use crate::model::container_config::Difference;
use crate::model::login::SignedInAccount;
use crate::model::observed::{OurContainer, RunState, ServerResponse};
use crate::model::role::Role;
use crate::model::upgrade::UpgradeState;

/// Plans a paused container.
pub(super) fn paused(context: &ServerContext<'_>) -> ServerPlan {
    let ServerContext { stack, spec, .. } = context;
    let finding = Finding::Stopped("paused".into());
    let unpause = vec![Step::UnpauseContainer(spec.role), Step::AwaitAnswer(spec.role)];
    if spec.role == Role::Grafana && stack.login.is_untried {
        ServerPlan::new(finding).with(Phase::Preparation, unpause)
    } else {
        ServerPlan::changing(finding, unpause)
    }
}

/// Starts an existing container.
pub(super) fn start_again(context: &ServerContext<'_>, finding: Finding, actual: &OurContainer) -> ServerPlan {
    ServerPlan::new(finding).with(Phase::Changes, start(context, actual))
}

/// The steps that start an existing container. The run that created it may have ended before it
/// wrote the password or copied the database.
pub(super) fn start(context: &ServerContext<'_>, actual: &OurContainer) -> Vec<Step> {
    let role = context.spec.role;
    let mut steps = Vec::new();
    if actual.run == RunState::Created {
        steps.extend(write_first_password(context, actual.password_source()));
        steps.extend(upgrade::before_start(context, &upgrade::desired_image(context)));
    }
    steps.extend([Step::StartContainer(role), Step::AwaitAnswer(role)]);
    steps
}

/// Plans a running container.
pub(super) fn running(context: &ServerContext<'_>) -> Result<ServerPlan, Blocker> {
    let ServerContext { stack, spec, seen, options, .. } = context;
    let role = spec.role;
    if role == Role::Grafana && options.reset_password {
        let plan = ServerPlan::changing(Finding::Requested("a new password was requested"), reset(context));
        let is_known = matches!(seen.response, ServerResponse::Answering(_) | ServerResponse::Refusing(_));
        return Ok(if is_known { plan } else { plan.with(Phase::Preparation, [Step::AwaitAnswer(role)]) });
    }
    let finding = match &seen.response {
        ServerResponse::Answering(_) => return answering(context),
        ServerResponse::Unusable(what) => return Err(unusable_server(stack, role, &spec.url().to_string(), what)),
        ServerResponse::Silent(why) | ServerResponse::Starting(why) => Finding::Silent(why.clone()),
        ServerResponse::Failing(why) => Finding::Failing(why.clone()),
        // Both have been reported before; nothing may be planned against such a server.
        ServerResponse::Refusing(message) => return Err(refused(stack, role, &spec.url().to_string(), message)),
        ServerResponse::NotTheContainer => return Err(not_the_container(stack, role, &spec.url().to_string())),
        ServerResponse::Unasked => Finding::Unknown,
    };
    Ok(if stack.login.is_untried && role == Role::Grafana {
        ServerPlan::new(finding).with(Phase::Preparation, [Step::AwaitAnswer(role), try_login(context)])
    } else {
        ServerPlan::changing(finding, vec![Step::AwaitAnswer(role)])
    })
}

fn answering(context: &ServerContext<'_>) -> Result<ServerPlan, Blocker> {
    let ServerContext { stack, spec, seen, .. } = context;
    if spec.role != Role::Grafana {
        return Ok(ServerPlan::new(Finding::InSync));
    }
    if let (Some(runs), Some(recorded)) = (seen.running_version(), context.last.recorded)
        && runs < recorded
    {
        return Err(Blocker { kind: BlockReason::Server, ..migrated(spec, &format!("Grafana {runs}"), recorded) });
    }
    if spec.config.is_open() && seen.login.account == SignedInAccount::Other && seen.login.has_default_password {
        return Err(Blocker {
            kind: BlockReason::Settings,
            why: format!("Grafana's account {} has the password admin, and other hosts can use it", stack.login.user),
            hint: format!(
                "change that password in Grafana, then supply it with `{}`",
                stack.command("up --grafana-password-file FILE")
            ),
        });
    }
    let record = unrecorded_version(context);
    let (finding, mut steps) = if spec.config.is_open() && seen.login.account == SignedInAccount::DefaultPassword {
        let difference = Difference {
            field: "password".into(),
            actual: "Grafana's default".into(),
            desired: "another password".into(),
        };
        (Finding::Differs(vec![difference]), change_default(context))
    } else if let Some(store) = store(context) {
        (Finding::Requested("Grafana accepted a password that is not stored"), vec![store])
    } else if record.is_some() {
        (Finding::Requested("its version is not recorded yet"), vec![])
    } else {
        (Finding::InSync, vec![])
    };
    steps.extend(record);
    Ok(ServerPlan::changing(finding, steps))
}

/// Records the running version and its image, from which the next upgrade starts.
fn unrecorded_version(context: &ServerContext<'_>) -> Option<Step> {
    let ServerContext { spec, seen, upgrade, last, .. } = context;
    let made = seen.container.ours().and_then(|actual| actual.config.as_ref()).map(|made| &made.image);
    let image = made.unwrap_or(&spec.config.image);
    let runs = seen.running_version();
    let is_tried = upgrade.is_some_and(|upgrade| upgrade.state == UpgradeState::Unproven);
    let is_unrecorded = runs != last.recorded || (is_tried && !last.is_recorded(image));
    runs.filter(|_| is_unrecorded).map(|version| Step::WriteVersion { version, image: Some(image.clone()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::VolumeState;
    use crate::model::version::Version;
    use crate::model::volume_content::{RanVersion, VolumeContent, VolumeFiles};
    use crate::samples::{self, plan_with};

    #[test]
    fn a_server_that_is_older_than_its_database_is_a_failed_server() {
        // The label names the running version: a later upgrade is recorded in the file only.
        for label in [2, 1] {
            let plan = plan_with(&samples::stack(), |seen| {
                let ran = Some(RanVersion { version: Version(1, 3), image: None, container: None });
                let files = VolumeFiles { ran, ..VolumeFiles::default() };
                seen.grafana.content = Some(VolumeContent { files, copy: None });
                seen.grafana.volume = VolumeState::Ours { user: None, version: Some(Version(1, label)), image: None };
            });
            let (_, blocker) = plan.blocker().unwrap();
            assert_eq!(blocker.kind, BlockReason::Server, "the rollback depends on it: {blocker:?}");
        }
    }
}
