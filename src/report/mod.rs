//! Shows: events while a command runs, and its answer at the end.
//!
//! Knows words and layouts. Must not know anything that acts.

mod human;
mod json;
mod plain;
mod text;

use std::rc::Rc;

use crate::core::event::{Listener, Taken};
use crate::core::plan::Plan;
use crate::core::status::Status;
use crate::error::Error;

/// What a command answers.
pub enum Answer<'a> {
    /// `up` has done its work.
    Up {
        /// How things are now.
        status: &'a Status,
        /// What was done.
        taken: &'a [Taken],
    },
    /// `down` has done its work.
    Down {
        /// How things are now.
        status: &'a Status,
        /// What was done.
        taken: &'a [Taken],
    },
    /// What would be done.
    Planned {
        /// How things are.
        status: &'a Status,
        /// The plan.
        plan: &'a Plan,
    },
    /// `status` tells.
    Status(&'a Status),
    /// A sentence, such as the summary of `demo`; its fields are for machines.
    Summary {
        /// For people.
        sentence: &'a str,
        /// For machines: names and numbers.
        fields: &'a [(&'static str, Field)],
    },
    /// It failed.
    Error(&'a Error),
}

/// A value in a summary.
pub enum Field {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// Shows events and answers.
pub trait Report: Listener {
    /// Shows an answer. Answers go to standard output, errors to standard error.
    fn answer(&self, answer: &Answer<'_>);
    /// Shows the status once more, in place of the last one where that can be done.
    fn again(&self, status: &Status);
    /// Takes everything transient off the terminal.
    fn clear(&self);
}

/// How to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// One JSON document instead of text.
    pub json: bool,
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
}

/// The report for a style.
#[must_use]
pub fn choose(style: Style) -> Rc<dyn Report> {
    if style.json {
        Rc::new(json::Json::new(style))
    } else if style.live && !style.quiet && !style.verbose {
        Rc::new(human::Human::new(style))
    } else {
        Rc::new(plain::Plain::new(style))
    }
}

/// Writes to standard output. A reader that went away is no error worth a word.
pub(crate) fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard error.
pub(crate) fn print_error(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
