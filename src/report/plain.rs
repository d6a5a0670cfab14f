//! Where nothing can be redrawn: one plain line per change of state on standard error, and answers
//! as text.

use std::cell::RefCell;

use super::text::{self, Paint};
use super::{Answer, Report, Style, print, print_error};
use crate::core::event::{Event, Listener};
use crate::core::status::Status;

/// Plain lines, or errors only.
pub(super) struct Plain {
    style: Style,
    last: RefCell<String>,
}

impl Plain {
    /// A report of this style.
    #[must_use]
    pub(super) const fn new(style: Style) -> Self {
        Self { style, last: RefCell::new(String::new()) }
    }
}

impl Listener for Plain {
    fn on(&self, event: Event<'_>) {
        if self.style.quiet {
            return;
        }
        if let Some(line) = text::event(&event, self.style.verbose) {
            print_error(&format!("{line}\n"));
        }
    }
}

impl Report for Plain {
    fn answer(&self, answer: &Answer<'_>) {
        let text = text::answer(answer, Paint::new(self.style.color));
        match answer {
            Answer::Error(_) => print_error(&text),
            _ if self.style.quiet => {}
            _ => print(&text),
        }
    }

    /// One line per change: what is worth knowing at a glance.
    fn again(&self, status: &Status) {
        let servers = [&status.influxdb, &status.grafana].map(|server| format!("{} {}", server.role, server.state));
        let clipper = match status.reports.reporting {
            Some(true) => "clipper reporting",
            Some(false) => "clipper not reporting",
            None => "clipper unknown",
        };
        let sync = if status.in_sync { "as wanted" } else { "not as wanted" };
        let mut line = format!("{} {sync}: {}, {clipper}", status.instance, servers.join(", "));
        for model in &status.reports.models {
            let state = match (model.reporting, model.above_objective) {
                (false, _) => "silent",
                (true, Some(true)) => "above the objective",
                (true, _) => "reporting",
            };
            line.push_str(&format!(", {} {state}", model.name));
        }
        for finding in &status.findings {
            line.push_str(&format!("; {finding}"));
        }
        if *self.last.borrow() != line && !self.style.quiet {
            print(&format!("{line}\n"));
            *self.last.borrow_mut() = line;
        }
    }

    fn clear(&self) {}
}
