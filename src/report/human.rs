//! On a terminal: one live line per role, with layers and bytes while pulling and the elapsed time
//! of each step.
//!
//! The only file that knows `indicatif`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::plain::Plain;
use super::text::{self, Paint, bytes};
use super::{Output, Report, Style, print, print_error};
use crate::core::event::{Event, Listener};
use crate::core::plan::{Lane, Step};
use crate::core::role::Role;
use crate::core::status::Status;
use crate::error::Error;

/// Live lines on standard error.
pub(super) struct Human {
    style: Style,
    lines: MultiProgress,
    running: RefCell<HashMap<&'static str, ProgressBar>>,
    drawn: RefCell<usize>,
    /// Where standard output is no terminal, a watch is one line per change.
    lines_of_changes: Plain,
}

impl Human {
    /// A report of this style.
    #[must_use]
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            lines: MultiProgress::new(),
            running: RefCell::default(),
            drawn: RefCell::new(0),
            lines_of_changes: Plain::new(style),
        }
    }

    /// The live line of a lane, made when it is first needed.
    fn line(&self, lane: &'static str) -> ProgressBar {
        let mut running = self.running.borrow_mut();
        let line = running.entry(lane).or_insert_with(|| {
            let line = self.lines.add(ProgressBar::new_spinner());
            let template = "{spinner:.cyan} {prefix:9} {wide_msg} {elapsed:>4}";
            line.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()));
            line.set_prefix(lane);
            line.enable_steady_tick(Duration::from_millis(100));
            line
        });
        line.clone()
    }

    fn done(&self, step: &Step, time: Duration) {
        let lane = lane(step);
        if let Some(line) = self.running.borrow_mut().remove(lane) {
            line.finish_and_clear();
            self.lines.remove(&line);
        }
        let mark = console::style("✔").green().for_stderr();
        self.say(&format!(
            "{mark} {step} {}",
            console::style(format!("{:.1} s", time.as_secs_f64())).dim().for_stderr()
        ));
    }

    /// A line that stays, above the live ones.
    fn say(&self, line: &str) {
        // Not `println`: that says nothing where the live lines are hidden.
        self.lines.suspend(|| print_error(&format!("{line}\n")));
    }
}

fn lane(step: &Step) -> &'static str {
    match step.lane() {
        Lane::First | Lane::Settings | Lane::Last => "",
        Lane::Beside(Role::Influxdb) => "InfluxDB",
        Lane::Beside(Role::Grafana) => "Grafana",
    }
}

impl Listener for Human {
    fn on(&self, event: Event<'_>) {
        match &event {
            Event::Started(step) => {
                let line = self.line(lane(step));
                line.reset_elapsed();
                line.set_message(step.to_string());
            }
            Event::Done(step, time) => self.done(step, *time),
            Event::Pulling { role, layers, bytes: (have, all) } => {
                let message =
                    format!("pulling, layer {} of {}, {} of {}", layers.0, layers.1, bytes(*have), bytes(*all));
                self.line(lane(&Step::PullImage(*role))).set_message(message);
            }
            Event::Waiting(what) => self.line("").set_message((*what).to_string()),
            Event::Note(_) | Event::Warning(_) | Event::Request { .. } => {
                if let Some(line) = text::event(&event, false) {
                    self.say(&line);
                }
            }
        }
    }
}

impl Report for Human {
    fn answer(&self, output: &Output<'_>) -> std::io::Result<()> {
        self.clear();
        let text = text::output(output, Paint::new(self.style.color));
        match output {
            Output::Error(_) => {
                print_error(&text);
                Ok(())
            }
            _ => print(&text),
        }
    }

    fn again(&self, status: &Status) -> std::io::Result<()> {
        self.clear();
        if !self.style.terminal {
            return self.lines_of_changes.again(status);
        }
        let text = text::status(status, Paint::new(self.style.color));
        let up = self.drawn.replace(text.lines().count());
        // Up over the last table, then clear from there to the end of the screen.
        let back = if up > 0 { format!("\x1b[{up}A\x1b[J") } else { String::new() };
        print(&format!("{back}{text}"))
    }

    fn trouble(&self, error: &Error) {
        self.lines_of_changes.trouble(error);
        *self.drawn.borrow_mut() = 0;
    }

    fn clear(&self) {
        for (_, line) in self.running.borrow_mut().drain() {
            line.finish_and_clear();
        }
        let _ = self.lines.clear();
    }
}
