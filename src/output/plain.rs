//! Output without a terminal: one plain line per event on standard error, and answers as text.

use std::cell::RefCell;

use super::palette::{Palette, RenderOptions};
use super::text;
use super::{Output, Printer, Said, Style, print, print_error, table};
use crate::error::Error;
use crate::model::event::{Event, Listener};
use crate::model::reports::ModelReport;
use crate::model::results::Document;
use crate::model::status::Status;
use crate::model::text::printable_line;

/// Prints plain lines, or only errors.
pub(super) struct Plain {
    style: Style,
    last: RefCell<String>,
    said: Said,
}

impl Plain {
    #[must_use]
    pub(super) const fn new(style: Style) -> Self {
        Self { style, last: RefCell::new(String::new()), said: Said::new() }
    }
}

/// The states of the models that the table lists, and a count of the others.
fn models(models: &[ModelReport]) -> String {
    let (listed, hidden) = table::listed_models(models);
    let mut line = String::new();
    for model in listed {
        let state = match (model.reporting, model.above_objective) {
            (false, _) => "silent",
            (true, Some(true)) => "above the objective",
            (true, _) => "reporting",
        };
        line.push_str(&format!(", {} {state}", model.name));
    }
    if !hidden.is_empty() {
        line.push_str(&format!(", {}", table::hidden_models(&hidden)));
    }
    line
}

impl Listener for Plain {
    fn on(&self, event: Event<'_>) {
        if self.style.quiet {
            return;
        }
        if let Some(line) = self.said.line(&event, self.style.verbose) {
            print_error(&format!("{line}\n"));
        }
    }
}

impl Printer for Plain {
    fn print(&self, output: Output<'_>) -> std::io::Result<()> {
        let options = |color| RenderOptions { palette: Palette::new(color), width: None };
        match output {
            Output::Result(Document::Failure(_)) => {
                print_error(&text::output(output, options(self.style.color_of_errors)));
                Ok(())
            }
            _ if self.style.quiet => Ok(()),
            _ => print(&text::output(output, options(self.style.color))),
        }
    }

    /// Prints a summary line if it differs from the last one.
    fn again(&self, status: &Status) -> std::io::Result<()> {
        let servers = status.servers.iter().map(|server| format!("{} {}", server.role, server.state.name()));
        let clipper = match status.reports.reporting {
            Some(true) => "clipper reporting",
            Some(false) => "clipper not reporting",
            None => "clipper unknown",
        };
        let sync = if status.in_sync { "in sync" } else { "out of sync" };
        let mut line = format!("{} {sync}: {}, {clipper}", status.instance, servers.collect::<Vec<_>>().join(", "));
        line.push_str(&models(&status.reports.models));
        for finding in &status.findings {
            line.push_str(&format!("; {finding}"));
        }
        let line = printable_line(&line);
        if *self.last.borrow() == line || self.style.quiet {
            return Ok(());
        }
        let result = print(&format!("{line}\n"));
        *self.last.borrow_mut() = line;
        result
    }

    fn trouble(&self, error: &Error) {
        self.last.borrow_mut().clear();
        print_error(&format!("note: {}; retrying\n", printable_line(&error.to_string())));
    }

    fn clear(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_lists_the_same_models_as_the_table() {
        assert_eq!(
            models(&[ModelReport::sample("a", true), ModelReport::sample("b", false)]),
            ", a reporting, b silent"
        );
        let mut many: Vec<ModelReport> =
            (0..1_000).map(|number| ModelReport::sample(&number.to_string(), true)).collect();
        many[7] = ModelReport::sample("stopped", false);
        assert_eq!(models(&many), ", stopped silent, 999 more models: 999 reporting");
    }
}
