//! Prints events while a command runs, and its answer at the end.

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
    /// `up` has finished.
    Up {
        /// The new status.
        status: &'a Status,
        /// The executed steps.
        executed: &'a [ExecutedStep],
    },
    /// `down` has finished.
    Down {
        /// The new status.
        status: &'a Status,
        /// The executed steps.
        executed: &'a [ExecutedStep],
    },
    /// The plan of a dry run.
    Planned {
        /// The current status.
        status: &'a Status,
        /// The plan.
        plan: &'a Plan,
        /// The questions that must be confirmed first.
        questions: &'a [String],
    },
    /// The answer of `status`.
    Status(&'a Status),
    /// The answer of `status --all`.
    Instances(&'a [Instance]),
    /// `backup` has written a file.
    BackedUp {
        /// The file.
        file: &'a str,
        /// Its size.
        bytes: u64,
        /// The duration.
        time: Duration,
        /// The instance.
        instance: &'a str,
        /// The versions of InfluxDB and Grafana.
        versions: [&'a str; 2],
        /// The command that creates an instance from it.
        restore: &'a str,
    },
    /// `export` has written a directory.
    Exported(&'a Exported),
    /// `doctor` has finished its checks.
    Diagnosed(&'a Diagnosis),
    /// `demo` has sent points.
    Sent {
        /// The number of points.
        points: usize,
        /// The number of reports, one for each point in time.
        reports: usize,
        /// The number of models.
        models: usize,
        /// The duration.
        time: Duration,
        /// The database.
        database: &'a str,
        /// The dashboard that shows them.
        dashboard_url: &'a str,
        /// The command that removes them.
        clear: &'a str,
    },
    /// `demo --clear` has removed points.
    Cleared {
        /// The number of series.
        series: usize,
        /// The database.
        database: &'a str,
    },
    /// The command failed. The invocation completes suggested commands.
    Error(&'a Error, &'a Invocation),
}

/// Prints events and output. A closed standard output is an error only for commands that continue to write.
pub trait Report: Listener {
    /// Prints output: errors on standard error, everything else on standard output.
    ///
    /// # Errors
    /// If standard output is closed.
    fn answer(&self, output: &Output<'_>) -> std::io::Result<()>;
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

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
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
pub enum OutputFormat {
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

/// The report for a style.
#[must_use]
pub fn choose(style: Style) -> Rc<dyn Report> {
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
pub fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a line of a server's log, with the server's name if there are several logs.
///
/// # Errors
/// If standard output is closed.
pub fn print_log_line(format: OutputFormat, role: Role, is_alone: bool, line: &str) -> std::io::Result<()> {
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
