//! Answers as text: tables, addresses, plans and errors.
//!
//! Must not know where the text goes, nor whether it will be redrawn.

use std::fmt::Write as _;

use console::Style;

use super::{Output, words};
use crate::core::event::{Event, ExecutedStep};
use crate::core::plan::{Finding, Plan};
use crate::core::reports::{Reports, span};
use crate::core::specification::Difference;
use crate::core::status::{ClipperSettings, Mode, Object, ObjectState, QueryState, ServerState, ServerStatus, Status};
use crate::core::text::{printable, printable_line};
use crate::error::Error;

/// Width of the first column.
const LABEL: usize = 13;

/// The few colours that are used, or none.
#[derive(Clone, Copy)]
pub(crate) struct Paint {
    color: bool,
}

impl Paint {
    /// Colours, or none.
    #[must_use]
    pub(crate) const fn new(color: bool) -> Self {
        Self { color }
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.color { style.force_styling(true).apply_to(text).to_string() } else { text.to_string() }
    }

    fn good(self, text: &str) -> String {
        self.with(Style::new().green(), text)
    }

    fn bad(self, text: &str) -> String {
        self.with(Style::new().red(), text)
    }

    fn odd(self, text: &str) -> String {
        self.with(Style::new().yellow(), text)
    }

    fn faint(self, text: &str) -> String {
        self.with(Style::new().dim(), text)
    }

    fn strong(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    fn server_state(self, state: ServerState) -> String {
        let word = column(words::server_state(state));
        match state {
            ServerState::Answering => self.good(&word),
            ServerState::Starting | ServerState::Unknown => self.odd(&word),
            ServerState::Absent | ServerState::Stopped | ServerState::Refusing | ServerState::Foreign => {
                self.bad(&word)
            }
        }
    }

    fn object_state(self, state: ObjectState) -> String {
        let word = column(words::object_state(state));
        match state {
            ObjectState::InSync => self.good(&word),
            ObjectState::Edited | ObjectState::Unknown => self.odd(&word),
            ObjectState::Missing | ObjectState::Differs | ObjectState::Foreign => self.bad(&word),
        }
    }
}

/// A state as people read it, padded before it is coloured: colours have no width.
fn column(word: &str) -> String {
    format!("{:<11}", word.replace('_', " "))
}

/// Output as text, with a line end at its end.
#[must_use]
pub(crate) fn output(output: &Output<'_>, paint: Paint) -> String {
    match output {
        Output::Up { status, executed } => up(status, executed, paint),
        Output::Down { status, executed } => down(status, executed),
        Output::Planned { plan, .. } => plan_text(plan),
        Output::Status(told) => status(told, paint),
        Output::Sent { points, reports, models, time, database, dashboard_url, clear } => printable(&format!(
            "sent {points} points in {reports} reports of {models} models to database {database} in {:.1} s\n\
             See them at {dashboard_url}; `{clear}` removes them.\n",
            time.as_secs_f64(),
        )),
        Output::Cleared { series: 0, database } => {
            printable(&format!("there is no demo data in database {database}\n"))
        }
        Output::Cleared { series, database } => {
            printable(&format!("removed all demo data from database {database} ({series} series)\n"))
        }
        Output::Error(failure) => error(failure, paint),
    }
}

/// An error with its hint.
#[must_use]
pub(crate) fn error(error: &Error, paint: Paint) -> String {
    let mut text = format!("{} {}\n", paint.bad("error:"), printable(&error.to_string()));
    let hint = error.hint();
    if !hint.is_empty() {
        let _ = writeln!(text, "{} {}", paint.strong("hint:"), printable(&hint));
    }
    text
}

/// An event as one plain line, if it is worth one.
#[must_use]
pub(crate) fn event(event: &Event<'_>, verbose: bool) -> Option<String> {
    match event {
        Event::Started(step) => {
            let is_long = matches!(step.action(), "pull_image" | "await_answer");
            (is_long || verbose).then(|| format!("{step} …"))
        }
        Event::Done(step, time) => Some(format!("{step}: done in {:.1} s", time.as_secs_f64())),
        Event::Pulling { .. } => None,
        Event::Waiting(what) | Event::Note(what) => Some(format!("note: {}", printable(what))),
        Event::Warning(what) => Some(format!("warning: {}", printable(what))),
        Event::Request { system, request, outcome, time } => verbose.then(|| {
            format!("{system}: {} -> {} in {:.1} ms", printable(request), printable(outcome), time.as_secs_f64() * 1e3)
        }),
    }
}

/// Bytes in the unit that people read.
#[must_use]
pub(crate) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mega = count as f64 / 1e6;
    if mega < 1000.0 { format!("{mega:.1} MB") } else { format!("{:.2} GB", mega / 1e3) }
}

fn row(text: &mut String, label: &str, value: &str) {
    let _ = writeln!(text, "  {label:LABEL$}{value}");
}

fn up(status: &Status, executed: &[ExecutedStep], paint: Paint) -> String {
    let mut text = String::new();
    let headline = if executed.is_empty() {
        format!("{} is in sync: nothing to do", status.instance)
    } else {
        format!("{} is up and verified", status.instance)
    };
    let _ = writeln!(text, "{}\n", paint.good(&headline));
    row(&mut text, "Dashboard", &paint.strong(&status.dashboard_url));
    row(&mut text, "Grafana", &format!("{}   {}", status.grafana.url, account(status)));
    row(
        &mut text,
        "InfluxDB",
        &format!("{}   database {}", status.influxdb.url, printable_line(&status.database.name)),
    );
    match &status.clipper_file {
        ClipperSettings::Agree => {}
        ClipperSettings::Lines(lines) => {
            text.push_str("\nClipper's configuration file must hold:\n");
            for line in lines {
                let _ = writeln!(text, "  {}", printable_line(line));
            }
        }
        ClipperSettings::Impossible(why) => {
            let _ = writeln!(text, "\n{} {}", paint.odd("note:"), printable_line(why));
        }
    }
    if status.dashboard.state == ObjectState::Edited {
        let _ = writeln!(
            text,
            "\n{} the dashboard was edited and is left alone; --overwrite-dashboard replaces it",
            paint.odd("note:")
        );
    }
    text
}

fn account(status: &Status) -> String {
    let account = &status.account;
    let user = printable_line(&account.user);
    match &account.password {
        _ if !account.is_known => format!("sign in as {user}"),
        Some(password) => format!("sign in as {user} / {}", printable(password.reveal())),
        None if account.is_default => format!("sign in as {user} / admin"),
        None => format!("sign in as {user}; `{} --show-secrets` shows the password", status.commands.status),
    }
}

fn down(status: &Status, executed: &[ExecutedStep]) -> String {
    let mut text = if executed.is_empty() {
        format!("{}: nothing to remove\n", status.instance)
    } else {
        format!("{} is down\n", status.instance)
    };
    let kept: Vec<&str> = [&status.influxdb, &status.grafana]
        .into_iter()
        .filter_map(|server| server.volume.as_ref())
        .filter(|(_, exists)| *exists)
        .map(|(name, _)| name.as_str())
        .collect();
    if !kept.is_empty() {
        let _ = writeln!(
            text,
            "The data stays in the volumes {}; `{up}` uses them again, `{down} --volumes` deletes them.",
            kept.join(" and "),
            up = status.commands.up,
            down = status.commands.down,
        );
    }
    text
}

/// A plan, a line per step with its reason.
#[must_use]
pub(crate) fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    for item in &plan.0 {
        match &item.finding {
            Finding::Blocked(blocked) => {
                let _ = writeln!(
                    text,
                    "blocked: {}\nhint: {}",
                    printable_line(&blocked.why),
                    printable_line(&blocked.hint)
                );
            }
            Finding::Edited => text.push_str("leave the dashboard alone: edited\n"),
            _ => {}
        }
    }
    for (step, finding) in plan.steps() {
        let _ = writeln!(text, "{step} ({})", printable_line(&finding.to_string()));
    }
    if text.is_empty() {
        text.push_str("nothing to do\n");
    }
    text
}

/// The table of `status`.
#[must_use]
pub(crate) fn status(status: &Status, paint: Paint) -> String {
    let mut text = String::new();
    let servers = [&status.influxdb, &status.grafana];
    if servers.iter().all(|server| server.mode == Mode::Container && server.state == ServerState::Absent) {
        match &status.obstacle {
            None => {
                let _ = writeln!(text, "{} is not running: `{}` brings it up", status.instance, status.commands.up);
            }
            Some((why, hint)) => {
                let _ = writeln!(
                    text,
                    "{} is not running, and cannot be brought up: {}",
                    status.instance,
                    printable_line(why)
                );
                let _ = writeln!(text, "{} {}", paint.strong("hint:"), printable_line(hint));
            }
        }
        let kept: Vec<&str> = servers
            .into_iter()
            .filter_map(|server| server.volume.as_ref().filter(|(_, exists)| *exists))
            .map(|(name, _)| name.as_str())
            .collect();
        if !kept.is_empty() {
            let _ = writeln!(text, "Its data is kept in the volumes {}.", kept.join(" and "));
        }
        others(&mut text, status);
        return text;
    }
    let headline = if status.in_sync { paint.good("in sync") } else { paint.bad("out of sync") };
    let _ = writeln!(text, "{} is {headline}\n", paint.strong(&status.instance));
    for server in servers {
        row(&mut text, server.role.title(), &server_line(server, paint));
    }
    row(&mut text, "database", &object_line(&status.database, paint));
    if let Some(organisation) = &status.organisation {
        row(&mut text, "organisation", &object_line(organisation, paint));
    }
    let query = match &status.query {
        QueryState::Ok => paint.faint("   queries reach the database"),
        QueryState::Failing(why) => format!("   {}", paint.bad(&format!("queries fail: {}", printable_line(why)))),
        QueryState::Unknown => String::new(),
    };
    row(&mut text, "data source", &format!("{}{query}", object_line(&status.data_source, paint)));
    let address = paint.faint(&format!("   {}", status.dashboard_url));
    row(&mut text, "dashboard", &format!("{}{address}", object_line(&status.dashboard, paint)));
    if let Some(password) = &status.account.password {
        row(
            &mut text,
            "account",
            &format!("{} / {}", printable_line(&status.account.user), printable(password.reveal())),
        );
    }
    clipper(&mut text, &status.reports, paint);
    if !status.findings.is_empty() {
        text.push_str("\nWhat differs:\n");
        for line in &status.findings {
            let _ = writeln!(text, "  {}", printable_line(line));
        }
    }
    if !status.hints.is_empty() {
        text.push('\n');
        for line in &status.hints {
            let _ = writeln!(text, "{} {}", paint.strong("hint:"), printable_line(line));
        }
    }
    others(&mut text, status);
    text
}

fn others(text: &mut String, status: &Status) {
    if !status.others.is_empty() {
        let _ = writeln!(text, "Other instances here: {} (--name)", status.others.join(", "));
    }
}

fn server_line(server: &ServerStatus, paint: Paint) -> String {
    let mut line = format!("{}{}", paint.server_state(server.state), server.url);
    if let Some(version) = &server.version {
        let _ = write!(line, "   {version}");
    }
    if let Some(image) = server.image.as_ref().filter(|_| server.mode == Mode::Container) {
        let _ = write!(line, "{}", paint.faint(&format!("   {}", printable_line(image))));
    }
    if let Some(detail) = &server.detail {
        let _ = write!(line, "   ({})", printable_line(detail));
    }
    for difference in &server.differences {
        let _ = write!(line, "\n{:width$}{}", "", printable_line(&difference.to_string()), width = LABEL + 2);
    }
    line
}

fn object_line(object: &Object, paint: Paint) -> String {
    let differences: Vec<String> = object.differences.iter().map(Difference::to_string).collect();
    let differences = if differences.is_empty() { String::new() } else { format!("   {}", differences.join(", ")) };
    format!("{}{}{}", paint.object_state(object.state), printable_line(&object.name), printable_line(&differences))
}

fn clipper(text: &mut String, reports: &Reports, paint: Paint) {
    let age = |at: i64| {
        if at > reports.at {
            format!("{} ahead", span(at - reports.at))
        } else {
            format!("{} ago", span(reports.at - at))
        }
    };
    let headline = match (reports.reporting, reports.last_report) {
        (None, _) => paint.odd("unknown"),
        (Some(true), Some(at)) => format!("{}   last report {}", paint.good("reporting"), age(at)),
        (Some(_), Some(at)) => format!("{}   last report {}", paint.bad("not reporting"), age(at)),
        (Some(_), None) => paint.odd("has never reported"),
    };
    let demo = if reports.demo { paint.faint("   (there is demo data)") } else { String::new() };
    row(text, "Clipper", &format!("{headline}{demo}"));
    for model in &reports.models {
        let mut line = match model.last_report {
            Some(at) if model.reporting => format!("last report {}", age(at)),
            Some(at) => paint.bad(&format!("last report {}", age(at))),
            None => paint.faint("demo data only"),
        };
        if let Some(rate) = model.predictions_per_second {
            let _ = write!(line, ", {rate:.1} predictions/s");
        }
        if let Some(p99) = model.p99_micros {
            let _ = write!(line, ", p99 {:.1} ms", p99 / 1e3);
        }
        if model.above_objective == Some(true) {
            let _ = write!(line, " {}", paint.bad("above the objective"));
        }
        row(text, "", &format!("{}: {line}", printable_line(&model.name)));
    }
}
