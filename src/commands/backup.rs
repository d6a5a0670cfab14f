//! `backup`: saves a running instance to one file.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Context;
use super::session::{self, SettingsScope};
use super::terminal::{interrupted, unless_interrupted};
use crate::backup;
use crate::error::{Exit, Result};
use crate::model::invocation::shell_path;
use crate::output::Output;

/// Options of `backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// File to create
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// Runs `backup`.
pub(crate) async fn run(context: &Context<'_>, verb: &Backup) -> Result<Exit> {
    let session = unless_interrupted(session::open(context, SettingsScope::Whole, true)).await?;
    let written = backup::backup(&session, &verb.file, interrupted()).await?;
    let restore = format!("restore {}", shell_path(&verb.file));
    let restore = session.stack().command(&restore);
    let _ = context.report.answer(&Output::BackedUp {
        file: &written.file.to_string_lossy(),
        bytes: written.bytes,
        time: written.time,
        instance: &written.manifest.instance,
        versions: [&written.manifest.influxdb, &written.manifest.grafana],
        restore: &restore,
    });
    Ok(Exit::Done)
}
