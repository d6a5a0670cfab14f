//! `backup`: saves a running instance to one file.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use super::context::Context;
use super::inputs;
use super::session::{self, Access};
use super::terminal::{interrupted, unless_interrupted};
use crate::backup;
use crate::backup::archive::directory;
use crate::error::{Error, Exit, Result};
use crate::model::invocation::{Invocation, shell_path};
use crate::model::results::Document;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// File to create
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

pub(crate) async fn run(context: &Context<'_>, arguments: &BackupArguments) -> Result<Exit> {
    let file = &arguments.file;
    expect_no_stream("backup", "output", file, &inputs::invocation(context))?;
    expect_file_name(file)?;
    let session = unless_interrupted(session::open(context, Access::Change)).await?;
    context.print(Output::Result(Document::BackedUp(&backup::backup(&session, file, interrupted()).await?)))?;
    Ok(Exit::Done)
}

/// Refuses `-`, by which other programs mean a standard stream.
pub(super) fn expect_no_stream(command: &str, stream: &str, file: &Path, invocation: &Invocation) -> Result<()> {
    if file != Path::new("-") {
        return Ok(());
    }
    let named = invocation.again(&format!("{command} {}", shell_path(file)));
    Err(Error::usage(
        format!("`{command}` does not support standard {stream}"),
        format!("name a file; for a file that is called -: `{named}`"),
    ))
}

/// Refuses the path of a directory before any work: the archive gets its name last.
fn expect_file_name(file: &Path) -> Result<()> {
    let path = file.as_os_str().as_encoded_bytes();
    let last = path.rsplit(|byte| std::path::is_separator(char::from(*byte))).next().unwrap_or_default();
    if matches!(last, b"" | b"." | b"..") { Err(directory(file)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standard_stream_is_no_file() {
        let invocation = Invocation::new(Vec::new(), " -H tcp://far:2375");
        for (command, stream) in [("backup", "output"), ("restore", "input")] {
            let check = |file| expect_no_stream(command, stream, Path::new(file), &invocation);
            let error = check("-").unwrap_err();
            assert_eq!(error.exit(), Exit::Usage);
            assert_eq!(error.to_string(), format!("`{command}` does not support standard {stream}"));
            let hint = error.hint(&invocation);
            assert!(hint.ends_with(&format!("`clipper-metrics {command} ./- -H tcp://far:2375`")), "{hint}");
            assert!(check("./-").is_ok() && check("-x").is_ok());
        }
    }

    #[test]
    fn a_backup_is_not_a_directory() {
        for file in ["a/", "/a/b//", "a/.", "a/..", "."] {
            let error = expect_file_name(Path::new(file)).expect_err(file);
            assert_eq!(error.exit(), Exit::Usage, "{error}");
        }
        for file in ["a", "./a", "../a.b", "/a/b", "a.", ".a", "..."] {
            assert!(expect_file_name(Path::new(file)).is_ok(), "{file}");
        }
    }
}
