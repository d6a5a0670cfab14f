//! `down`: removes what the instance has on the engine, and on request in an external Grafana.

use std::rc::Rc;

use clap::Args;

use super::Context;
use super::session::{Purpose, Session};
use super::terminal::confirm;
use crate::error::{Exit, Result};
use crate::output::Output;
use crate::reconcile::{self, DownOptions};
use crate::settings::keys::Setting;

/// Options of `down`.
#[derive(Debug, Default, Args)]
pub struct Down {
    /// Delete the volumes too, and with them all metrics, users and dashboards
    #[arg(long)]
    pub volumes: bool,
    /// Do not ask before deleting volumes
    #[arg(long)]
    pub yes: bool,
    /// Remove the data source, the dashboard and its empty folder from the Grafana at --grafana-url
    #[arg(long)]
    pub deregister: bool,
    /// Only print what would be done (exit code 3 if there is anything)
    #[arg(long)]
    pub dry_run: bool,
}

impl Down {
    /// The command with its own options, as they are typed.
    #[must_use]
    pub fn arguments(&self) -> String {
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

/// Runs `down`.
pub(crate) async fn run(context: &Context<'_>, down: &Down) -> Result<Exit> {
    // Who signs in somewhere needs to know how.
    let purpose = if down.deregister { Purpose::Removal } else { Purpose::NameOnly };
    let mut environment = context.environment.clone();
    if down.deregister {
        // Rules that are left are found only where somebody speaks of them.
        environment.insert(Setting::Alerts.key().variable.into(), "false".into());
    }
    let context = Context { options: context.options, environment: &environment, report: Rc::clone(&context.report) };
    let changes = !down.dry_run;
    // Volumes are nowhere else than on the engine.
    let session = Session::open_for_containers(&context, purpose, changes, down.volumes).await?;
    let options = DownOptions { volumes: down.volumes, deregister: down.deregister };
    if down.dry_run {
        let preview = reconcile::plan_down(&session.systems, options).await?;
        let plan = &preview.plan;
        let questions = if down.yes { &[][..] } else { &preview.questions };
        let _ = context.report.answer(&Output::Planned { status: &preview.status, plan, questions });
        return Ok(if plan.is_idle() && plan.blocked().is_none() { Exit::Done } else { Exit::Differs });
    }
    let confirm = async |volumes: &[String]| confirm(volumes, down.yes).await;
    let outcome = reconcile::down(&session.systems, options, confirm, session.listener.as_ref()).await?;
    let _ = context.report.answer(&Output::Down { status: &outcome.status, executed: &outcome.executed });
    Ok(Exit::Done)
}
