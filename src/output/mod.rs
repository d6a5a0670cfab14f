//! Shows: events while a command runs, and its answer at the end.
//!
//! Knows words and layouts. Must not know anything that acts.

mod env;
mod human;
mod json;
mod layout;
mod plain;
mod schema;
mod state_names;
mod text;

use std::rc::Rc;
use std::time::Duration;

use crate::error::Error;
use crate::model::diagnosis::Diagnosis;
use crate::model::event::{ExecutedStep, Listener};
use crate::model::export::Exported;
use crate::model::instances::Instance;
use crate::model::invocation::Invocation;
use crate::model::plan::Plan;
use crate::model::role::Role;
use crate::model::status::Status;
use crate::model::text::printable;

/// What a command reports at its end.
pub enum Output<'a> {
    /// `up` has done its work.
    Up {
        /// How things are now.
        status: &'a Status,
        /// What was done.
        executed: &'a [ExecutedStep],
    },
    /// `down` has done its work.
    Down {
        /// How things are now.
        status: &'a Status,
        /// What was done.
        executed: &'a [ExecutedStep],
    },
    /// What would be done.
    Planned {
        /// How things are.
        status: &'a Status,
        /// The plan.
        plan: &'a Plan,
        /// What must be confirmed before.
        questions: &'a [String],
    },
    /// `status` tells.
    Status(&'a Status),
    /// `status --all` lists.
    Instances(&'a [Instance]),
    /// `backup` has written a file.
    BackedUp {
        /// The file.
        file: &'a str,
        /// How many bytes it has.
        bytes: u64,
        /// How long it took.
        time: Duration,
        /// The instance.
        instance: &'a str,
        /// The versions of InfluxDB and Grafana.
        versions: [&'a str; 2],
        /// The command that makes an instance of it.
        restore: &'a str,
    },
    /// `export` has written a directory.
    Exported(&'a Exported),
    /// `doctor` has made its checks.
    Diagnosed(&'a Diagnosis),
    /// `demo` has sent points.
    Sent {
        /// How many.
        points: usize,
        /// In how many reports, one for each time.
        reports: usize,
        /// Of how many models.
        models: usize,
        /// How long it took.
        time: Duration,
        /// To which database.
        database: &'a str,
        /// Where they can be seen.
        dashboard_url: &'a str,
        /// The command that removes them.
        clear: &'a str,
    },
    /// `demo --clear` has removed points.
    Cleared {
        /// How many series.
        series: usize,
        /// From which database.
        database: &'a str,
    },
    /// It failed; suggested commands are completed by the invocation.
    Error(&'a Error, &'a Invocation),
}

/// Shows events and output. That standard output cannot be written to is an error only for who goes
/// on writing: nobody reads any more.
pub trait Report: Listener {
    /// Shows output: errors on standard error, all else on standard output.
    ///
    /// # Errors
    /// When nobody reads it.
    fn answer(&self, output: &Output<'_>) -> std::io::Result<()>;
    /// Shows the status once more, in place of the last one where that can be done.
    ///
    /// # Errors
    /// When nobody reads it.
    fn again(&self, status: &Status) -> std::io::Result<()>;
    /// Shows an error that does not end the command. What is shown next counts as new.
    fn trouble(&self, error: &Error) {
        print_error(&format!("note: {}; trying again\n", printable(&error.to_string())));
    }
    /// Takes everything transient off the terminal.
    fn clear(&self);
}

/// How to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// In which form the answer is given.
    pub format: Format,
    /// Errors only.
    pub quiet: bool,
    /// Every request.
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

/// In which form an answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text for people.
    Human,
    /// One JSON document.
    Json,
    /// Variables for a shell.
    Env,
    /// The schema of the JSON documents.
    JsonSchema,
}

/// The JSON Schema of every document that [`Format::Json`] gives.
pub const JSON_SCHEMA: &str = include_str!("../../assets/output.schema.json");

/// The report for a style.
#[must_use]
pub fn choose(style: Style) -> Rc<dyn Report> {
    if style.format == Format::Json {
        Rc::new(json::Json::new(style))
    } else if style.format == Format::Env {
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
/// When nobody reads it.
pub fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a line of a server's log: for people with the server's name where several are shown.
///
/// # Errors
/// When nobody reads it.
pub fn print_log_line(format: Format, role: Role, is_alone: bool, line: &str) -> std::io::Result<()> {
    match format {
        Format::Json => print(&json::log_line(role, line)),
        _ if is_alone => print(&format!("{line}\n")),
        _ => print(&format!("{:<9}| {line}\n", role.name())),
    }
}

/// Writes to standard error.
pub(crate) fn print_error(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
