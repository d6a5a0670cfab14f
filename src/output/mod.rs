//! Prints events while a command runs, and its answer at the end.

mod env;
mod human;
mod json;
mod layout;
mod palette;
mod plain;
mod table;
mod text;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::error::Error;
use crate::model::event::{Event, Listener};
use crate::model::plan::Plan;
use crate::model::results::Document;
use crate::model::role::Role;
use crate::model::status::Status;
use crate::model::text::printable;

/// The result of a command.
#[derive(Clone, Copy)]
pub(crate) enum Output<'a> {
    /// `up` or `restore` has finished.
    Up(&'a Status),
    /// `down` has finished.
    Down(&'a Status),
    /// A dry run.
    Planned { status: &'a Status, plan: &'a Plan },
    /// The result of any other command, or its failure.
    Result(Document<'a>),
}

/// Prints events and output. A closed standard output is an error only for commands that continue to write.
pub(crate) trait Printer: Listener {
    /// Prints output: errors on standard error, everything else on standard output.
    ///
    /// # Errors
    /// If standard output is closed.
    fn print(&self, output: Output<'_>) -> std::io::Result<()>;
    /// Prints the status again, in place of the last one on a terminal.
    ///
    /// # Errors
    /// If standard output is closed.
    fn again(&self, status: &Status) -> std::io::Result<()>;
    /// Prints an error that does not end the command. The next status is printed even if it is unchanged.
    fn trouble(&self, error: &Error) {
        print_error(&format!("note: {}; retrying\n", printable(&error.to_string())));
    }
    /// Clears live lines from the terminal.
    fn clear(&self);
}

/// The lines that a run does not repeat.
struct Said(RefCell<BTreeSet<String>>);

impl Said {
    const fn new() -> Self {
        Self(RefCell::new(BTreeSet::new()))
    }

    /// The line for an event, unless it only names a slow server again.
    fn line(&self, event: &Event<'_>, verbose: bool) -> Option<String> {
        let line = text::event(event, verbose)?;
        let is_news = !matches!(event, Event::Slow { .. }) || self.0.borrow_mut().insert(line.clone());
        is_news.then_some(line)
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// The format of the answer.
    pub format: OutputFormat,
    /// Print errors only.
    pub quiet: bool,
    /// Print every request.
    pub verbose: bool,
    /// Standard error is a terminal that can redraw lines.
    pub live: bool,
    /// Standard output is a terminal.
    pub terminal: bool,
    /// Colours on standard output.
    pub color: bool,
    /// Colours on standard error.
    pub color_of_errors: bool,
}

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// Text for people.
    Human,
    /// One JSON document.
    Json,
    /// Variables for a shell.
    Env,
    /// The schema of the JSON documents.
    JsonSchema,
}

/// The JSON Schema of every document that [`OutputFormat::Json`] gives.
pub const JSON_SCHEMA: &str = include_str!("../../assets/output.schema.json");

#[must_use]
pub(crate) fn choose(style: Style) -> Rc<dyn Printer> {
    if style.format == OutputFormat::Json {
        Rc::new(json::Json::new(style))
    } else if style.format == OutputFormat::Env {
        Rc::new(env::Env::new(style))
    } else if style.live && !style.quiet && !style.verbose {
        Rc::new(human::Human::new(style))
    } else {
        Rc::new(plain::Plain::new(style))
    }
}

/// Writes to standard output.
///
/// # Errors
/// If standard output is closed.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a line of a server's log, with the server's name if there are several logs.
///
/// # Errors
/// If standard output is closed.
pub(crate) fn print_log_line(format: OutputFormat, role: Role, is_alone: bool, line: &str) -> std::io::Result<()> {
    match format {
        OutputFormat::Json => print(&json::log_line(role, line)),
        _ if is_alone => print(&format!("{line}\n")),
        _ => print(&format!("{:<9}| {line}\n", role.name())),
    }
}

/// Writes to standard error.
pub(crate) fn print_error(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
