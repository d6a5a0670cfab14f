//! Output on a terminal: a live line for each server while steps run, and a summary of the steps at the end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::layout::{lines_on_screen, stderr_width, terminal_width};
use super::palette::{Palette, RenderOptions};
use super::plain::Plain;
use super::text::{self, WORTH_A_TIME};
use super::{Output, Printer, Said, Style, print, print_error, table};
use crate::error::Error;
use crate::model::event::{Event, Listener};
use crate::model::plan::{Phase, Step};
use crate::model::results::Document;
use crate::model::role::Role;
use crate::model::status::Status;
use crate::model::text::excerpt;

/// The width of a step in the summary, in front of its duration.
const STEP_WIDTH: usize = 46;
/// The columns on both sides of it.
const AROUND_A_STEP: usize = 20;

/// Live lines on standard error.
pub(super) struct Human {
    style: Style,
    lines: MultiProgress,
    running: RefCell<HashMap<&'static str, ProgressBar>>,
    done: RefCell<Vec<(Step, Duration)>>,
    drawn: RefCell<usize>,
    said: Said,
    /// Prints one line per change if standard output is not a terminal.
    lines_of_changes: Plain,
}

impl Human {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            lines: MultiProgress::new(),
            running: RefCell::default(),
            done: RefCell::default(),
            drawn: RefCell::new(0),
            said: Said::new(),
            lines_of_changes: Plain::new(style),
        }
    }

    fn options(&self) -> RenderOptions {
        let width = if self.style.terminal { terminal_width() } else { None };
        RenderOptions { palette: Palette::new(self.style.color), width }
    }

    /// The live line of a lane, which is created when it is first needed.
    fn line(&self, lane: &'static str) -> ProgressBar {
        let mut running = self.running.borrow_mut();
        let line = running.entry(lane).or_insert_with(|| {
            let line = self.lines.add(ProgressBar::new_spinner());
            line.set_style(spinner("{spinner} {prefix:8} {wide_msg} {elapsed:>4}"));
            line.set_prefix(lane);
            line.enable_steady_tick(Duration::from_millis(100));
            line
        });
        line.clone()
    }

    fn pulling(&self, role: Role, (layers, all_layers): (usize, usize), (bytes, all_bytes): (u64, u64)) {
        let line = self.line(lane(&Step::PullImage(role)));
        if all_bytes > 0 && line.length() != Some(all_bytes) {
            if line.length().is_none() {
                // A narrow terminal cuts off only the end.
                let counts = "{decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
                line.set_style(spinner(&format!("{{spinner}} {{prefix:8}} pull {counts}{{wide_msg}}")));
            }
            line.set_length(all_bytes);
        }
        line.set_position(bytes);
        let layer = format!("layer {} of {all_layers}", (layers + 1).min(all_layers));
        let begin = if line.length().is_some() { ", " } else { "pull the image, " };
        line.set_message(format!("{begin}{layer}"));
    }

    fn finished(&self, step: &Step, time: Duration) {
        let lane = lane(step);
        if let Some(line) = self.running.borrow_mut().remove(lane) {
            line.finish_and_clear();
            self.lines.remove(&line);
        }
        self.done.borrow_mut().push((step.clone(), time));
    }

    /// Prints a permanent line above the live lines.
    fn say(&self, line: &str) {
        // `println` prints nothing while the live lines are hidden.
        self.lines.suspend(|| print_error(&format!("{line}\n")));
    }

    /// The finished steps, grouped by server, with the durations in one column.
    fn picture(&self) -> String {
        let palette = Palette::new(self.style.color_of_errors);
        let mut done = std::mem::take(&mut *self.done.borrow_mut());
        done.sort_by_key(|(step, _)| group(step));
        let step_width = stderr_width().map_or(STEP_WIDTH, |width| width.saturating_sub(AROUND_A_STEP).min(STEP_WIDTH));
        let mut text = String::new();
        let worth = |(step, time): &&(Step, Duration)| *time >= WORTH_A_TIME || !step.is_routine();
        let mut previous = None;
        for (step, time) in done.iter().filter(worth) {
            let time = if *time < WORTH_A_TIME {
                String::new()
            } else {
                palette.faint(&format!("{:>5.1}s", time.as_secs_f64()))
            };
            let group = group(step);
            let name = if previous.replace(group) == Some(group) { "" } else { lane(step) };
            let step = excerpt(&step.to_string(), step_width.saturating_sub(1));
            let line = format!("{} {name:8} {step:step_width$}{time}", palette.good("✔"));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn spinner(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The group of a step in the summary: before the servers, one of them, or after them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StepGroup {
    Before,
    Server(Role),
    After,
}

fn group(step: &Step) -> StepGroup {
    match step.phase() {
        Phase::Network | Phase::Settings => StepGroup::Before,
        Phase::End => StepGroup::After,
        _ => StepGroup::Server(step.role()),
    }
}

fn lane(step: &Step) -> &'static str {
    match group(step) {
        StepGroup::Server(role) => role.title(),
        StepGroup::Before | StepGroup::After => "",
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
            Event::Done(step, time) => self.finished(step, *time),
            Event::Pulling { role, layers, bytes } => self.pulling(*role, *layers, *bytes),
            Event::Waiting(what) => self.line("").set_message((*what).to_string()),
            Event::Slow { .. } | Event::Note(_) | Event::Warning(_) | Event::Request { .. } => {
                if let Some(line) = self.said.line(&event, false) {
                    self.say(&line);
                }
            }
        }
    }
}

impl Printer for Human {
    fn print(&self, output: Output<'_>) -> std::io::Result<()> {
        self.clear();
        match output {
            Output::Result(Document::Failure(_)) => {
                let palette = Palette::new(self.style.color_of_errors);
                print_error(&text::output(output, RenderOptions { palette, width: None }));
                Ok(())
            }
            _ => print(&text::output(output, self.options())),
        }
    }

    fn again(&self, status: &Status) -> std::io::Result<()> {
        self.clear();
        if !self.style.terminal {
            return self.lines_of_changes.again(status);
        }
        let options = self.options();
        let text = table::status(status, options);
        let up = self.drawn.replace(lines_on_screen(&text, options.width));
        // Move up over the last table, then clear to the end of the screen.
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
        let picture = self.picture();
        if !picture.is_empty() {
            print_error(&picture);
        }
    }
}
