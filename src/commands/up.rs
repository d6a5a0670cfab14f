//! `up`: starts and configures both servers, and verifies the result.

use std::time::Duration;

use clap::Args;

use super::context::Context;
use super::inputs;
use super::session::{self, Access};
use super::terminal::{self, confirm_loss, interrupted, unless_interrupted};
use crate::error::{Error, Exit, Result};
use crate::model::event::Event;
use crate::model::invocation::Invocation;
use crate::model::plan::{Question, UpOptions};
use crate::model::stack::Pull;
use crate::output::Output;
use crate::reconcile;

#[derive(Debug, Default, Args)]
pub(crate) struct UpArguments {
    /// Print the plan without executing it (exit code 3 if it is not empty)
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Replace edited dashboards and alert rules
    #[arg(long, hide_short_help = true)]
    pub(crate) overwrite_dashboard: bool,
    /// Update this instance's objects in an external Grafana after InfluxDB or its database has moved
    #[arg(long, hide_short_help = true)]
    pub(crate) move_data_source: bool,
    /// Set a new administrator password in Grafana's container (supplied, otherwise generated)
    #[arg(long, hide_short_help = true)]
    pub(crate) reset_grafana_password: bool,
    /// Skip confirmation before deleting data
    #[arg(long, hide_short_help = true)]
    pub(crate) yes: bool,
    /// Open the dashboard in a browser, if one is available
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) open: bool,
}

/// How long an interrupted run waits for the engine to remove a container that checks an address.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn run(context: &Context<'_>, arguments: &UpArguments) -> Result<Exit> {
    let session = unless_interrupted(session::open(context, Access::of(arguments.dry_run))).await?;
    let session = if arguments.dry_run { session } else { session.waiting() };
    let options = UpOptions {
        overwrite_dashboard: arguments.overwrite_dashboard,
        move_data_source: arguments.move_data_source,
        reset_password: arguments.reset_grafana_password,
        pull: session.stack().pull == Pull::Always,
        ..UpOptions::default()
    };
    if arguments.dry_run {
        let preview = unless_interrupted(reconcile::plan_up(&session, options)).await?;
        let questions = if arguments.yes { Vec::new() } else { preview.questions };
        context.print(Output::Planned {
            status: &preview.status.planned(&preview.plan, questions),
            plan: &preview.plan,
        })?;
        return Ok(if preview.plan.in_sync() { Exit::Done } else { Exit::Differs });
    }
    let confirm = async |question: &Question| confirm_loss(context, arguments.yes, question).await;
    let result = tokio::select! {
        biased;
        result = reconcile::up(&session, options, confirm) => result,
        () = interrupted() => {
            Err(Error::Interrupted { hint: hint_after_interruption(&inputs::invocation(context)) })
        }
    };
    if matches!(result, Err(Error::Interrupted { .. })) {
        let _ = tokio::time::timeout(CLEAN_UP_TIMEOUT, session.finish_changes()).await;
    }
    let outcome = result?;
    let status = outcome.status.executed(&outcome.executed);
    context.print(Output::Up(&status))?;
    if arguments.open {
        let url = &status.dashboard.url;
        if let Some(command) = &status.dashboard.forward_command {
            session.listener().on(Event::Note(&format!("run `{command}` first, then open {url}")));
        } else if !terminal::open_browser(url, context.environment) {
            session.listener().on(Event::Note(&format!("no browser found: open {url}")));
        }
    }
    Ok(Exit::Done)
}

pub(super) fn hint_after_interruption(invocation: &Invocation) -> String {
    format!(
        "completed steps are kept: run the same command again to continue; `{}` removes the instance",
        invocation.command("down")
    )
}
