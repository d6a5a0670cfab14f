//! Answers as one JSON document each, with the fields that `schema` defines.

use super::plain::Plain;
use super::schema::Document;
use super::{Output, Report, Style, print};
use crate::model::event::{Event, Listener};
use crate::model::role::Role;
use crate::model::status::Status;
use crate::model::text::printable_json;

/// Prints answers on standard output, and progress as plain lines on standard error.
pub(super) struct Json {
    progress: Plain,
}

impl Json {
    pub(super) const fn new(style: Style) -> Self {
        Self { progress: Plain::new(style) }
    }
}

impl Listener for Json {
    fn on(&self, event: Event<'_>) {
        self.progress.on(event);
    }
}

impl Report for Json {
    fn answer(&self, output: &Output<'_>) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(&document(output)).unwrap_or_default();
        print(&format!("{}\n", printable_json(&text)))
    }

    fn again(&self, status: &Status) -> std::io::Result<()> {
        let text = serde_json::to_string(&Document::status(status)).unwrap_or_default();
        print(&format!("{}\n", printable_json(&text)))
    }

    fn clear(&self) {}
}

fn document<'a>(output: &'a Output<'_>) -> Document<'a> {
    match output {
        Output::Up { status, executed } | Output::Down { status, executed } => Document::executed(status, executed),
        Output::Planned { status, plan, questions } => Document::planned(status, plan, questions),
        Output::Status(status) => Document::status(status),
        Output::Exported(exported) => Document::exported(exported),
        Output::Instances(found) => Document::instances(found),
        Output::BackedUp { file, bytes, time, instance, versions, .. } => {
            Document::backed_up(file, *bytes, *time, instance, *versions)
        }
        Output::Diagnosed(diagnosis) => Document::diagnosed(diagnosis),
        Output::Sent { points, reports, time, database, .. } => Document::sent(*points, *reports, *time, database),
        Output::Cleared { series, database } => Document::cleared(*series, database),
        Output::Error(error, invocation) => Document::failure(error, invocation),
    }
}

/// A line of a server's log, as a document on one line.
pub(super) fn log_line(role: Role, line: &str) -> String {
    let text = serde_json::to_string(&Document::log_line(role, line)).unwrap_or_default();
    format!("{}\n", printable_json(&text))
}
