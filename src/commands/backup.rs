//! `backup`: saves a running instance to one file.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Context;
use super::session;
use super::terminal::{interrupted, unless_interrupted};
use crate::backup;
use crate::error::{Exit, Result};
use crate::model::results::Document;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// File to create
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

pub(crate) async fn run(context: &Context<'_>, arguments: &BackupArguments) -> Result<Exit> {
    let session = unless_interrupted(session::open(context, true)).await?;
    context.print(Output::Result(Document::BackedUp(&backup::backup(&session, &arguments.file, interrupted()).await?)));
    Ok(Exit::Done)
}
