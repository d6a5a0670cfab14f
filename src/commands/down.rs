//! `down`: removes the instance from the engine and, on request, from an external Grafana.

use clap::Args;

use super::context::Context;
use super::inputs::SettingsScope;
use super::session::{self, Access};
use super::terminal::confirm;
use crate::error::{Exit, Result};
use crate::output::Output;
use crate::reconcile::{self, DownOptions};

#[derive(Debug, Default, Args)]
pub(crate) struct DownArguments {
    /// Also delete the volumes, with all metrics, users and dashboards
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Skip confirmation before deleting data
    #[arg(long)]
    pub(crate) yes: bool,
    /// Remove this instance's unedited objects from the Grafana at --grafana-url
    #[arg(long)]
    pub(crate) deregister: bool,
    /// Print the plan without executing it (exit code 3 if it is not empty)
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl DownArguments {
    /// The command with its own options, as they are typed.
    #[must_use]
    pub(crate) fn typed(&self) -> String {
        let options = [
            (self.volumes, " --volumes"),
            (self.yes, " --yes"),
            (self.deregister, " --deregister"),
            (self.dry_run, " --dry-run"),
        ];
        let given = options.into_iter().filter(|(is_given, _)| *is_given).map(|(_, option)| option);
        format!("down{}", given.collect::<String>())
    }
}

pub(crate) async fn run(context: &Context<'_>, arguments: &DownArguments) -> Result<Exit> {
    // Deregistering signs in to Grafana, so it needs all settings.
    let scope = if arguments.deregister { SettingsScope::Removal } else { SettingsScope::NameOnly };
    // Deleting volumes needs the engine.
    let session =
        session::open_for_containers(context, scope, Access::of(arguments.dry_run), arguments.volumes).await?;
    let options = DownOptions { volumes: arguments.volumes, deregister: arguments.deregister };
    if arguments.dry_run {
        let preview = reconcile::plan_down(&session, options).await?;
        let plan = &preview.plan;
        let questions = if arguments.yes { Vec::new() } else { preview.questions };
        context.print(Output::Planned { status: &preview.status.planned(plan, questions), plan })?;
        return Ok(if plan.is_idle() && plan.blocker().is_none() { Exit::Done } else { Exit::Differs });
    }
    let confirm = async |volumes: &[String]| confirm(context, volumes, arguments.yes).await;
    let outcome = reconcile::down(&session, options, confirm).await?;
    context.print(Output::Down(&outcome.status.executed(&outcome.executed)))?;
    Ok(Exit::Done)
}
