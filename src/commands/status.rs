//! `status`: shows the current state, any differences from the settings, and whether Clipper is sending metrics.

use clap::Args;

use super::context::{Context, written};
use super::inputs::{SettingsScope, read_inputs};
use super::session::{self, Access};
use super::terminal::{interrupted, reader_gone};
use crate::error::{Exit, Result};
use crate::model::instances::Instances;
use crate::model::results::Document;
use crate::model::schema::SchemaVersion;
use crate::model::status::Status;
use crate::output::{self, Output, OutputFormat};
use crate::reconcile::{self, WatchEnd};

#[derive(Debug, Default, Args)]
pub(crate) struct StatusArguments {
    /// Keep watching: redraw on a terminal, print one line per change elsewhere
    #[arg(long)]
    pub(crate) watch: bool,
    /// List all instances on the engine without contacting their servers
    #[arg(long, conflicts_with_all = ["watch", "show_secrets"])]
    pub(crate) all: bool,
    /// Show Grafana's password
    #[arg(long)]
    pub(crate) show_secrets: bool,
}

pub(crate) async fn run(context: &Context<'_>, arguments: &StatusArguments) -> Result<Exit> {
    if arguments.watch {
        let watching = async {
            // An engine that cannot be reached now may become available later.
            let inputs = read_inputs(context, SettingsScope::Whole)?;
            let open = || session::open_with(&inputs, context, Access::ReadOnly);
            let mut session = open().await?;
            let mut connections = session.connect();
            loop {
                let mut shown = Ok(());
                let show = |status: &Status| {
                    shown = context.printer.again(status);
                    shown.is_ok()
                };
                let opened = match reconcile::watch(&session, &mut connections, arguments.show_secrets, show).await {
                    Ok(WatchEnd::Closed) => return written(shown),
                    Ok(WatchEnd::SettingsChanged) => open().await,
                    Err(error) => Err(error),
                };
                session = match opened {
                    Ok(session) => session,
                    Err(error) => reconcile::reopen(error, open, |error| context.printer.trouble(error)).await?,
                };
                let earlier = std::mem::replace(&mut connections, session.connect());
                connections.grafana.continue_from(earlier.grafana);
            }
        };
        tokio::select! {
            result = watching => result?,
            () = reader_gone() => {}
            () = interrupted() => {}
        }
        return Ok(Exit::Done);
    }
    if context.format() == OutputFormat::JsonSchema {
        written(output::print(output::JSON_SCHEMA))?;
        return Ok(Exit::Done);
    }
    if arguments.all {
        let docker = session::engine(context).await?;
        context.print(Output::Result(Document::Instances(&Instances {
            schema: SchemaVersion,
            instances: docker.instances().await?,
        })))?;
        return Ok(Exit::Done);
    }
    // A pipe can be read only once.
    let inputs = read_inputs(context, SettingsScope::Whole)?;
    let status = loop {
        let session = session::open_with(&inputs, context, Access::ReadOnly).await?;
        if let Some(status) = reconcile::status(&session, &mut session.connect(), arguments.show_secrets).await? {
            break status;
        }
    };
    context.print(Output::Result(Document::State(&status)))?;
    Ok(if status.in_sync { Exit::Done } else { Exit::Differs })
}
