//! `backup`: saves a running instance to one file.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Context;
use super::session;
use super::terminal::{interrupted, unless_interrupted};
use crate::backup;
use crate::error::{Exit, Result};
use crate::model::invocation::shell_path;
use crate::model::results::{BackedUp, SchemaVersion, seconds};
use crate::output::Output;

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// File to create
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// Runs `backup`.
pub(crate) async fn run(context: &Context<'_>, arguments: &BackupArguments) -> Result<Exit> {
    let session = unless_interrupted(session::open(context, true)).await?;
    let written = backup::backup(&session, &arguments.file, interrupted()).await?;
    context.print(Output::BackedUp(&BackedUp {
        schema: SchemaVersion,
        file: written.file.to_string_lossy().into_owned(),
        bytes: written.bytes,
        seconds: seconds(written.time),
        instance: written.manifest.instance,
        influxdb: written.manifest.influxdb,
        grafana: written.manifest.grafana,
        restore: session.stack().command(&format!("restore {}", shell_path(&arguments.file))),
    }));
    Ok(Exit::Done)
}
