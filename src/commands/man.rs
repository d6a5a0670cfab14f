//! `completions` and `man`: print the files that packages ship with the binary.

use clap::Args;

use super::context::written;
use crate::error::{Error, Exit, Result};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// Shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Command to describe; without it, clipper-metrics itself
    pub(crate) command: Option<String>,
}

/// Prints the completion script of a shell.
///
/// # Errors
/// [`Error::Output`] if standard output cannot be written to.
pub(crate) fn print_completions(shell: clap_complete::Shell, mut root: clap::Command) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut root, "clipper-metrics", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if shell == clap_complete::Shell::Bash {
        // clap_complete 4.6 spells the program's name in two ways, and no option of a command is completed
        // (clap-rs/clap#6421).
        script = script.replace("clipper__subcmd__metrics", "clipper__metrics");
    }
    written(output::print(&script))?;
    Ok(Exit::Done)
}

/// Describes the options, too, that the short help omits. The manual page has one help only.
fn with_all_options(command: clap::Command) -> clap::Command {
    command.mut_args(|option| option.hide_short_help(false)).mut_subcommands(with_all_options)
}

/// The manual page of the program, or of one command.
pub(crate) fn print_manual(mut root: clap::Command, command: Option<&str>) -> Result<Exit> {
    // Building adds the global options to each command.
    root.build();
    let root = with_all_options(root);
    let page = match command {
        None => root,
        Some(name) => {
            let found = root.get_subcommands().find(|one| one.get_name() == name).cloned();
            let unknown = || {
                Error::usage(format!("clipper-metrics has no command {name:?}"), "`clipper-metrics --help` lists them")
            };
            let title = format!("clipper-metrics-{name}");
            found.ok_or_else(unknown)?.name(title.clone()).display_name(title)
        }
    };
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(page).render(&mut text);
    rendered.map_err(|source| Error::Io { doing: "write the manual page".into(), source })?;
    written(output::print(&String::from_utf8_lossy(&text)))?;
    Ok(Exit::Done)
}
