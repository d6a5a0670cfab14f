//! Answers as text: tables, addresses, plans and errors.

use std::time::Duration;

use console::{Style, measure_text_width};

use super::layout::Layout;
use super::{Output, state_names};
use crate::error::Error;
use crate::model::container_config::Difference;
use crate::model::diagnosis::{Check, CheckOutcome, CheckResult, Diagnosis};
use crate::model::event::{Event, ExecutedStep};
use crate::model::export::{Exported, FileChange};
use crate::model::instances::{Instance, Member, MemberState};
use crate::model::invocation::{Invocation, shell_word};
use crate::model::plan::{Finding, Plan, Step};
use crate::model::reports::{ModelReport, Reports, span, written_name};
use crate::model::status::{
    ClipperSettings, Mode, Object, ObjectState, QueryState, ServerState, ServerStatus, Status, UserDashboardStatus,
};
use crate::model::text::{count, printable, printable_line};

/// The largest number of models for which `status` lists each.
const MODELS_LISTED: usize = 12;

/// A shorter step has no duration in the output.
pub(super) const WORTH_A_TIME: Duration = Duration::from_millis(50);

/// How a text looks.
#[derive(Clone, Copy)]
pub(crate) struct RenderOptions {
    /// The colours.
    pub(crate) paint: Palette,
    /// The columns of the terminal, if the text is for a terminal.
    pub(crate) width: Option<usize>,
}

/// The colours, or none.
#[derive(Clone, Copy)]
pub(crate) struct Palette {
    color: bool,
}

impl Palette {
    #[must_use]
    pub(crate) const fn new(color: bool) -> Self {
        Self { color }
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.color { style.force_styling(true).apply_to(text).to_string() } else { text.to_string() }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with(Style::new().green(), text)
    }

    fn bad(self, text: &str) -> String {
        self.with(Style::new().red(), text)
    }

    fn odd(self, text: &str) -> String {
        self.with(Style::new().yellow(), text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.with(Style::new().dim(), text)
    }

    fn strong(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    fn server_state(self, state: ServerState) -> String {
        let word = column(state_names::server_state(state));
        match state {
            ServerState::Answering => self.good(&word),
            ServerState::Starting | ServerState::Unknown => self.odd(&word),
            ServerState::Absent
            | ServerState::Stopped
            | ServerState::Crashing
            | ServerState::Refusing
            | ServerState::Foreign => self.bad(&word),
        }
    }

    fn object_state(self, state: ObjectState) -> String {
        let word = column(state_names::object_state(state));
        match state {
            ObjectState::InSync => self.good(&word),
            ObjectState::Edited | ObjectState::Unknown => self.odd(&word),
            ObjectState::Missing | ObjectState::Differs | ObjectState::Foreign => self.bad(&word),
        }
    }
}

/// A state, padded before it is coloured, because colours have no width.
fn column(word: &str) -> String {
    format!("{:<11}", word.replace('_', " "))
}

/// Output as text that ends with a line break.
#[must_use]
pub(crate) fn output(output: &Output<'_>, look: RenderOptions) -> String {
    let sentence = |text: &str| {
        let mut page = Layout::new(look.width);
        page.line(&printable(text));
        page.done()
    };
    match output {
        Output::Up { status, executed } => up(status, executed, look),
        Output::Down { status, executed } => down(status, executed, look),
        Output::Planned { plan, questions, .. } => plan_text(plan, questions, look),
        Output::Status(current) => status(current, look),
        Output::BackedUp { file, bytes, time, instance, restore, .. } => sentence(&format!(
            "saved {instance} to {file}: {:.1} MB in {}\n\
             It contains Grafana's users and passwords: keep it private. `{restore}` creates an instance from it, under a \
             name that is not in use.",
            megabytes(*bytes),
            seconds(*time),
        )),
        Output::Exported(exported) => sentence(&self::exported(exported)),
        Output::Instances(found) => instances(found, look),
        Output::Diagnosed(found) => diagnosis(found, look),
        Output::Sent { points, reports, models, time, database, dashboard_url, clear } => sentence(&format!(
            "sent {} in {} from {} to database {database} in {}\n\
             Dashboard: {dashboard_url}\n`{clear}` removes the demo data.",
            count(*points, "point"),
            count(*reports, "report"),
            count(*models, "model"),
            seconds(*time),
        )),
        Output::Cleared { series: 0, database } => sentence(&format!("database {database} contains no demo data")),
        Output::Cleared { series, database } => {
            sentence(&format!("removed all demo data from database {database} ({series} series)"))
        }
        Output::Error(failure, invocation) => error(failure, invocation, look.paint),
    }
}

/// A duration with one decimal.
fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

fn exported(exported: &Exported) -> String {
    let Exported { instance, format, directory, files } = exported;
    let readme = shell_word(&format!("{}/README.md", directory.trim_end_matches('/')));
    if exported.is_unchanged() {
        return format!("{directory} is up to date: nothing was written\nSee {readme} for instructions.");
    }
    let count = |change: FileChange| files.iter().filter(|(_, became)| *became == change).count();
    let all = [FileChange::Created, FileChange::Updated, FileChange::Removed, FileChange::Unchanged];
    let parts = all.into_iter().filter(|change| count(*change) > 0);
    let parts: Vec<String> =
        parts.map(|change| format!("{} {}", count(change), state_names::file_change(change))).collect();
    format!(
        "exported {instance} for {format} to {directory} (files: {})\nSee {readme} for instructions and network access.",
        parts.join(", ")
    )
}

/// An error with its hint.
#[must_use]
pub(crate) fn error(error: &Error, invocation: &Invocation, paint: Palette) -> String {
    let mut text = format!("{} {}\n", paint.bad("error:"), printable(&error.to_string()));
    let hint = error.hint(invocation);
    if !hint.is_empty() {
        text.push_str(&format!("{} {}\n", paint.strong("hint:"), printable(&hint)));
    }
    text
}

/// An event as one plain line, if it took time or changed something that a user knows.
#[must_use]
pub(crate) fn event(event: &Event<'_>, verbose: bool) -> Option<String> {
    match event {
        Event::Started(step) => {
            let is_long = matches!(step.action(), "pull_image" | "await_answer");
            (is_long || verbose).then(|| format!("{step} …"))
        }
        Event::Done(step, time) if *time >= WORTH_A_TIME || verbose => {
            Some(format!("{step}: done in {}", seconds(*time)))
        }
        Event::Done(step, _) => (!step.is_routine()).then(|| format!("{step}: done")),
        Event::Pulling { .. } => None,
        Event::Waiting(what) | Event::Note(what) => Some(format!("note: {}", printable(what))),
        Event::Warning(what) => Some(format!("warning: {}", printable(what))),
        Event::Request { system, request, outcome, time } => verbose.then(|| {
            format!("{system}: {} -> {} in {:.1}ms", printable(request), printable(outcome), time.as_secs_f64() * 1e3)
        }),
    }
}

fn up(status: &Status, executed: &[ExecutedStep], look: RenderOptions) -> String {
    let RenderOptions { paint, width } = look;
    let mut page = Layout::new(width);
    let headline = if executed.is_empty() {
        format!("{} is in sync: nothing to do", status.instance)
    } else {
        format!("{} is up and verified", status.instance)
    };
    page.line(&paint.good(&headline));
    page.gap();
    page.row("Dashboard", &[paint.strong(&status.dashboard_url)]);
    for own in &status.user_dashboards {
        page.row("", &[paint.strong(&own.url), paint.faint(&printable_line(&own.title))]);
    }
    page.row("Grafana", &[status.grafana.url.clone(), account(status)]);
    let database = format!("database {}", printable_line(&status.database.name));
    page.row("InfluxDB", &[status.influxdb.url.clone(), database]);
    let other_hosts: Vec<String> = [&status.grafana, &status.influxdb]
        .into_iter()
        .filter_map(|server| Some(format!("{} {}", server.role.title(), server.public_url.as_ref()?)))
        .collect();
    page.row("other hosts", &other_hosts);
    match &status.clipper_file {
        ClipperSettings::Agree => {}
        ClipperSettings::Defaults { address, database } => {
            page.gap();
            page.line(&format!("Clipper must write to {address}, database {database} (its defaults)"));
        }
        ClipperSettings::Lines(lines) => {
            page.gap();
            page.line("Clipper's configuration file must contain:");
            for line in lines {
                page.indented(2, &printable_line(line));
            }
        }
        ClipperSettings::Impossible(why) => {
            page.gap();
            page.line(&format!("{} {}", paint.odd("note:"), printable_line(why)));
        }
    }
    let mut notes = Vec::new();
    if status.account.is_known && status.account.is_default && !executed.is_empty() {
        notes.push(format!(
            "at the first sign-in, Grafana asks for a new password: skip this, or set one and supply it with `{}`",
            status.commands.give_password
        ));
    }
    if executed.iter().any(|executed| matches!(executed.step, Step::SaveAlertRules { .. })) {
        notes.push(format!(
            "Grafana's notification policies choose who receives alerts: add a contact point at {}/alerting/notifications",
            status.grafana.url
        ));
    }
    if status.alerts.as_ref().is_some_and(|alerts| alerts.state == ObjectState::Edited) {
        notes.push("alert rules were edited and are kept".into());
    }
    let replace = format!("`{} --overwrite-dashboard` replaces it", status.commands.up);
    notes.extend(status.edited_dashboards().into_iter().map(|(title, _)| {
        format!("the dashboard {} was edited and is kept; {replace}", printable_line(&format!("{title:?}")))
    }));
    let remarks = status.user_dashboards.iter().flat_map(UserDashboardStatus::remarks);
    notes.extend(remarks.map(|remark| printable_line(&remark)));
    for note in notes {
        page.gap();
        page.line(&format!("{} {note}", paint.odd("note:")));
    }
    forward_command(&mut page, status);
    page.done()
}

/// The command that forwards the dashboard of an engine behind ssh to this machine.
fn forward_command(page: &mut Layout, status: &Status) {
    if let Some(command) = &status.forward_command {
        page.gap();
        page.line("These addresses are on the engine's host. To open the dashboard here, run");
        page.command(2, command);
    }
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

/// The existing volumes with data.
fn kept(status: &Status) -> Vec<&str> {
    let servers = [&status.influxdb, &status.grafana].into_iter();
    let volumes = servers.filter_map(|server| server.volume.as_ref());
    volumes.filter(|(_, exists)| *exists).map(|(name, _)| name.as_str()).collect()
}

fn down(status: &Status, executed: &[ExecutedStep], look: RenderOptions) -> String {
    let mut page = Layout::new(look.width);
    let removed: Vec<String> = executed
        .iter()
        .filter_map(|executed| match &executed.step {
            step @ (Step::DeleteDashboard(_) | Step::DeleteDataSource | Step::DeleteAlertRules { .. }) => {
                Some(format!("the {}", step.resource()))
            }
            _ => None,
        })
        .collect();
    let is_elsewhere = [&status.influxdb, &status.grafana].iter().all(|server| server.mode == Mode::External);
    page.line(&if !removed.is_empty() {
        format!("removed {} from the Grafana at {}", removed.join(" and "), status.grafana.url)
    } else if executed.is_empty() && is_elsewhere {
        format!("{}: nothing to stop, because both servers are external", status.instance)
    } else if executed.is_empty() {
        format!("{}: nothing to remove", status.instance)
    } else {
        format!("{} is down", status.instance)
    });
    // This is known only if Grafana was read.
    for (_, url) in status.edited_dashboards() {
        page.line(&format!("The dashboard {url} was edited and is kept. Delete it in Grafana if you do not need it."));
    }
    for line in &status.lookalikes {
        page.line(&printable_line(line));
    }
    let kept = kept(status);
    if !kept.is_empty() {
        page.line(&format!(
            "The data is kept in the volumes {}. `{up}` uses them again; `{down} --volumes` deletes them.",
            kept.join(" and "),
            up = status.commands.up,
            down = status.commands.down,
        ));
    }
    page.done()
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// A line for each instance, in columns.
fn instances(found: &[Instance], look: RenderOptions) -> String {
    let mut page = Layout::new(look.width);
    if found.is_empty() {
        page.line("no instances on this engine");
        return page.done();
    }
    let place = |member: &Member| match (&member.url, member.state) {
        (None, state) => state_names::member_state(state).to_string(),
        (Some(url), MemberState::Running) => printable_line(url),
        (Some(url), state) => format!("{} ({})", printable_line(url), state_names::member_state(state)),
    };
    let rows: Vec<[String; 4]> = found
        .iter()
        .map(|one| {
            let state = state_names::instance_state(one.state()).replace('_', " ");
            [printable_line(&one.name), state, place(&one.influxdb), place(&one.grafana)]
        })
        .collect();
    let heads = ["NAME", "STATE", "INFLUXDB", "GRAFANA"].map(String::from);
    let width = |column: usize| {
        let cells = rows.iter().chain([&heads]).map(|row| measure_text_width(&row[column]));
        cells.max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    for row in [&heads].into_iter().chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell}{:gap$}", "", gap = width + 3 - measure_text_width(cell)));
        }
        line.push_str(&row[3]);
        page.line(line.trim_end());
    }
    page.done()
}

/// The first failure with its hint, then every check with its result and its duration.
fn diagnosis(found: &Diagnosis, look: RenderOptions) -> String {
    let RenderOptions { paint, width } = look;
    let mut page = Layout::new(width);
    if let Some((_, fault)) = found.first_failure() {
        let (why, hint) = (printable_line(&fault.why), printable_line(&fault.hint));
        page.line(&format!("{} {why}: {hint}", paint.bad("first failure:")));
    } else {
        let (answering, all) = found.panels();
        page.line(&format!("{} {answering} of {all} panels answer", paint.good("no failures:")));
    }
    page.gap();
    for CheckResult { check, outcome, time } in &found.results {
        let (mark, text) = match outcome {
            CheckOutcome::Passed(what) => (paint.good("✔"), what),
            CheckOutcome::Failed(fault) => (paint.bad("✘"), &fault.why),
            CheckOutcome::Skipped(why) => (paint.faint("-"), why),
        };
        let title = printable_line(&check_title(check));
        let millis = time.as_secs_f64() * 1e3;
        let time = if millis < 0.5 { String::new() } else { paint.faint(&format!(" ({millis:.0}ms)")) };
        page.indented(2, &format!("{mark} {title}: {}{time}", printable_line(text)));
    }
    page.done()
}

fn check_title(check: &Check) -> String {
    let title = match check {
        Check::ClipperSettings => "Clipper's settings",
        Check::Influxdb => "InfluxDB",
        Check::Database => "database",
        Check::Write => "write",
        Check::ReadBack => "read back",
        Check::Clocks => "clocks",
        Check::FieldTypes => "field types",
        Check::Grafana => "Grafana",
        Check::Plugin => "plugin",
        Check::DataSource => "data source",
        Check::Query => "query",
        Check::Dashboard => "dashboard",
        Check::Variable(name) => return format!("variable {name}"),
        Check::Panel(title) => return format!("panel {title}"),
        Check::Reports => "Clipper's reports",
    };
    title.into()
}

/// A plan: a line per step with its reason, and the questions that it asks.
#[must_use]
pub(crate) fn plan_text(plan: &Plan, questions: &[String], look: RenderOptions) -> String {
    let mut page = Layout::new(look.width);
    for item in &plan.items {
        match &item.finding {
            Finding::Blocked(blocked) => {
                page.line(&format!("blocked: {}", printable_line(&blocked.why)));
                page.line(&format!("hint: {}", printable_line(&blocked.hint)));
            }
            Finding::Kept(kept) => {
                page.line(&format!("keep the {}: {}; {}", item.resource, kept.why, kept.hint));
            }
            Finding::Edited => page.line(&format!("keep the {}: edited", item.resource)),
            Finding::Unreadable(why) => page.line(&printable_line(&format!("{}: {why}", item.resource))),
            _ => {}
        }
    }
    for (step, finding) in plan.steps() {
        page.line(&format!("{step} ({})", printable_line(&finding.to_string())));
    }
    for question in questions {
        page.line(&format!("needs confirmation: {} (--yes confirms it)", printable_line(question)));
    }
    let text = page.done();
    if text.is_empty() { "nothing to do\n".into() } else { text }
}

/// The table of `status`.
#[must_use]
pub(crate) fn status(status: &Status, look: RenderOptions) -> String {
    let RenderOptions { paint, width } = look;
    let mut page = Layout::new(width);
    let servers = [&status.influxdb, &status.grafana];
    if servers.iter().all(|server| server.mode == Mode::Container && server.state == ServerState::Absent) {
        absent(&mut page, status, paint);
        return page.done();
    }
    let headline = if status.in_sync { paint.good("in sync") } else { paint.bad("out of sync") };
    page.line(&format!("{} is {headline}", paint.strong(&status.instance)));
    page.gap();
    for server in servers {
        page.row(server.role.title(), &server_parts(server, paint));
        for difference in &server.differences {
            page.row("", &[printable_line(&difference.to_string())]);
        }
    }
    let mut database = object_parts(&status.database, paint);
    database.extend(status.retention.map(|retention| format!("retention {retention}")));
    page.row("database", &database);
    if let Some(organisation) = &status.organisation {
        page.row("organisation", &object_parts(organisation, paint));
    }
    let query = match &status.query {
        QueryState::Ok => paint.faint("queries reach the database"),
        QueryState::Failing(why) => paint.bad(&format!("queries fail: {}", printable_line(why))),
        QueryState::Unknown => String::new(),
    };
    page.row("data source", &[object_parts(&status.data_source, paint), vec![query]].concat());
    page.row("dashboard", &[object_parts(&status.dashboard, paint), vec![paint.faint(&status.dashboard_url)]].concat());
    for own in &status.user_dashboards {
        page.row("", &[object_parts(&own.object, paint), vec![paint.faint(&own.url)]].concat());
    }
    if let Some(alerts) = &status.alerts {
        page.row("alerts", &object_parts(alerts, paint));
    }
    if let Some(password) = &status.account.password {
        let account = format!("{} / {}", printable_line(&status.account.user), printable(password.reveal()));
        page.row("account", &[account]);
    }
    if let Some(engine) = &status.engine {
        let version = format!("version {}", engine.version);
        page.row("engine", &[engine.endpoint.clone(), paint.faint(&version), paint.faint(&engine.chosen_by)]);
    }
    clipper(&mut page, &status.reports, &status.configured_models, paint);
    forward_command(&mut page, status);
    // The row of a server already contains its own finding.
    let is_new = |line: &&String| {
        !servers
            .iter()
            .any(|server| server.detail.as_ref().is_some_and(|why| **line == format!("{}: {why}", server.role.name())))
    };
    let findings: Vec<&String> = status.findings.iter().filter(is_new).collect();
    if !findings.is_empty() {
        page.gap();
        page.line("Differences:");
        for line in findings {
            page.indented(2, &printable_line(line));
        }
    }
    if !status.hints.is_empty() {
        page.gap();
        for line in &status.hints {
            page.line(&format!("{} {}", paint.strong("hint:"), printable_line(line)));
        }
    }
    others(&mut page, status);
    page.done()
}

/// The status of an instance without containers.
fn absent(page: &mut Layout, status: &Status, paint: Palette) {
    match &status.obstacle {
        None => page.line(&format!("{} is not running: start it with `{}`", status.instance, status.commands.up)),
        Some((why, hint)) => {
            page.line(&format!("{} is not running and cannot start: {}", status.instance, printable_line(why)));
            page.line(&format!("{} {}", paint.strong("hint:"), printable_line(hint)));
        }
    }
    let kept = kept(status);
    if !kept.is_empty() {
        page.line(&format!("Its data is kept in the volumes {}.", kept.join(" and ")));
    }
    if let Some(engine) = &status.engine {
        page.line(&paint.faint(&format!("engine: {} ({})", engine.endpoint, engine.chosen_by)));
    }
    others(page, status);
}

fn others(page: &mut Layout, status: &Status) {
    if !status.others.is_empty() {
        page.line(&format!("Other instances on this engine: {} (choose one with --name)", status.others.join(", ")));
    }
}

fn server_parts(server: &ServerStatus, paint: Palette) -> Vec<String> {
    let image = server.image.as_ref().filter(|_| server.mode == Mode::Container);
    vec![
        format!("{}{}", paint.server_state(server.state), server.url),
        server.version.clone().unwrap_or_default(),
        image.map(|image| paint.faint(&printable_line(image))).unwrap_or_default(),
        server.detail.as_ref().map(|detail| format!("({})", printable_line(detail))).unwrap_or_default(),
    ]
}

fn object_parts(object: &Object, paint: Palette) -> Vec<String> {
    let differences: Vec<String> = object.differences.iter().map(Difference::to_string).collect();
    vec![
        format!("{}{}", paint.object_state(object.state), printable_line(&object.name)),
        printable_line(&differences.join(", ")),
    ]
}

fn clipper(page: &mut Layout, reports: &Reports, configured: &[String], paint: Palette) {
    let age = |at: i64| {
        if at > reports.at {
            format!("{} ahead", span(at - reports.at))
        } else {
            format!("{} ago", span(reports.at - at))
        }
    };
    let mut parts = match (reports.reporting, reports.last_report) {
        (None, _) => vec![paint.odd("unknown")],
        (Some(true), Some(at)) => vec![paint.good("reporting"), format!("last report {}", age(at))],
        (Some(_), Some(at)) => vec![paint.bad("not reporting"), format!("last report {}", age(at))],
        (Some(_), None) => vec![paint.odd("has never reported")],
    };
    if let (Some(_), false) = (reports.reporting, configured.is_empty()) {
        let is_reporting = |name: &&String| {
            let written = written_name(name);
            reports.models.iter().any(|model| model.reporting && model.name == written)
        };
        let reporting = configured.iter().filter(is_reporting).count();
        parts.push(format!("{reporting} of {}", count(configured.len(), "configured model")));
    }
    if reports.demo {
        parts.push(paint.faint("(with demo data)"));
    }
    page.row("Clipper", &parts);
    let model = |model: &ModelReport| {
        let mut line = match model.last_report {
            Some(at) if model.reporting => format!("last report {}", age(at)),
            Some(at) => paint.bad(&format!("last report {}", age(at))),
            None => paint.faint("demo data only"),
        };
        if let Some(rate) = model.predictions_per_second {
            line.push_str(&format!(", {rate:.1} predictions/s"));
        }
        if let Some(p99) = model.p99_micros {
            line.push_str(&format!(", p99 {:.1}ms", p99 / 1e3));
        }
        if model.above_objective == Some(true) {
            line.push_str(&format!(" {}", paint.bad("above the objective")));
        }
        format!("{}: {line}", printable_line(&model.name))
    };
    let (shown, hidden) = listed_models(&reports.models);
    for one in shown {
        page.row("", &[model(one)]);
    }
    if !hidden.is_empty() {
        page.row("", &[paint.faint(&format!("{}; --output json lists all", hidden_models(&hidden)))]);
    }
}

/// The models that are listed, and the others: all models, or if there are many, those that need attention.
pub(super) fn listed_models(models: &[ModelReport]) -> (Vec<&ModelReport>, Vec<&ModelReport>) {
    if models.len() <= MODELS_LISTED {
        return (models.iter().collect(), Vec::new());
    }
    let needs_attention =
        |model: &&ModelReport| model.above_objective == Some(true) || (!model.reporting && model.last_report.is_some());
    let (mut shown, mut hidden): (Vec<_>, Vec<_>) = models.iter().partition(needs_attention);
    let overflow = shown.split_off(shown.len().min(MODELS_LISTED));
    hidden.extend(overflow);
    (shown, hidden)
}

/// A text that counts the other models.
pub(super) fn hidden_models(hidden: &[&ModelReport]) -> String {
    let count = |is: fn(&ModelReport) -> bool| hidden.iter().filter(|model| is(model)).count();
    let parts = [
        (count(|model| model.reporting), "reporting"),
        (count(|model| !model.reporting && model.last_report.is_some()), "not reporting"),
        (count(|model| model.above_objective == Some(true)), "above the objective"),
        (count(|model| model.demo), "demo data only"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    format!("{} more models: {}", hidden.len(), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, reporting: bool, above: bool) -> ModelReport {
        ModelReport { above_objective: Some(above), ..ModelReport::sample(name, reporting) }
    }

    #[test]
    fn progress_names_the_duration_of_long_steps_and_omits_short_routine_steps() {
        let done = |step: &Step, millis, verbose| event(&Event::Done(step, Duration::from_millis(millis)), verbose);
        let (routine, other) = (Step::SetHome, Step::CreateDatabase);
        assert!(routine.is_routine() && !other.is_routine());
        assert_eq!(done(&other, 1_240, false).unwrap(), format!("{other}: done in 1.2s"));
        assert_eq!(done(&other, 3, false).unwrap(), format!("{other}: done"));
        assert_eq!(done(&routine, 60, false).unwrap(), format!("{routine}: done in 0.1s"));
        assert_eq!(done(&routine, 3, false), None);
        assert_eq!(done(&routine, 3, true).unwrap(), format!("{routine}: done in 0.0s"));
    }

    #[test]
    fn a_few_models_are_all_listed() {
        let models: Vec<ModelReport> = (0..MODELS_LISTED).map(|n| model(&n.to_string(), true, false)).collect();
        let (shown, hidden) = listed_models(&models);
        assert_eq!((shown.len(), hidden.len()), (MODELS_LISTED, 0));
    }

    #[test]
    fn of_many_models_those_that_need_attention_are_listed_and_the_rest_counted() {
        let mut models: Vec<ModelReport> = (0..1_000).map(|n| model(&n.to_string(), true, false)).collect();
        models[17] = model("silent", false, false);
        models[500] = model("slow", true, true);
        let (shown, hidden) = listed_models(&models);
        assert_eq!(shown.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["silent", "slow"]);
        assert_eq!(hidden_models(&hidden), "998 more models: 998 reporting");
    }

    #[test]
    fn the_list_stays_short_where_every_model_needs_attention() {
        let models: Vec<ModelReport> = (0..1_000).map(|n| model(&n.to_string(), false, n == 999)).collect();
        let (shown, hidden) = listed_models(&models);
        assert_eq!(shown.len(), MODELS_LISTED);
        let line = hidden_models(&hidden);
        assert_eq!(line, "988 more models: 988 not reporting, 1 above the objective");
    }
}
