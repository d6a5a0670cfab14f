//! Answers as text: tables, addresses, plans and errors.

use std::time::Duration;

use console::measure_text_width;

use super::layout::Layout;
use super::palette::{Palette, RenderOptions};
use super::{Output, table};
use crate::model::clipper_file::ClipperSettings;
use crate::model::diagnosis::{CheckState, Diagnosis, PanelCount};
use crate::model::event::Event;
use crate::model::instances::{Instance, Member, MemberState};
use crate::model::plan::{BlockReason, Blocker, Finding, Plan, Resource, Step};
use crate::model::results::{Document, ErrorDocument, Failed};
use crate::model::role::Role;
use crate::model::schema::Seconds;
use crate::model::server_status::{Mode, ServerStatus};
use crate::model::stack::DashboardId;
use crate::model::status::{ObjectState, Status, StepStatus, UserDashboardStatus};
use crate::model::text::{listed, printable, printable_line, volumes};

/// A shorter step has no duration in the output.
pub(super) const WORTH_A_TIME: Duration = Duration::from_millis(50);

/// Output as text that ends with a line break.
pub(super) fn output(output: Output<'_>, options: RenderOptions) -> String {
    match output {
        Output::Up(status) => up(status, options),
        Output::Down(status) => down(status, options),
        Output::Planned { status, plan } => planned(status, plan, options),
        Output::Result(Document::State(status)) => table::status(status, options),
        Output::Result(Document::Instances(found)) => instances(&found.instances, options),
        Output::Result(Document::Diagnosed(found)) => diagnosis(found, options),
        Output::Result(Document::Failure(failure)) => error(failure, options.palette),
        Output::Result(document) => sentence(&document.sentence().unwrap_or_default(), options),
    }
}

fn sentence(text: &str, options: RenderOptions) -> String {
    let mut layout = Layout::new(options.width);
    layout.line(&printable(text));
    layout.done()
}

/// An error with its hint.
fn error(failure: &ErrorDocument, palette: Palette) -> String {
    let Failed { message, hint, .. } = &failure.error;
    let mut text = format!("{} {}\n", palette.bad("error:"), printable(message));
    if !hint.is_empty() {
        text.push_str(&format!("{} {}\n", palette.strong("hint:"), printable(hint)));
    }
    text
}

/// An event as one plain line, if it took time or changed something that a user knows.
pub(super) fn event(event: &Event<'_>, verbose: bool) -> Option<String> {
    match event {
        Event::Started(step) => {
            let is_long = matches!(step, Step::PullImage(_) | Step::AwaitAnswer(_));
            (is_long || verbose).then(|| format!("{step} …"))
        }
        Event::Done(step, time) if *time >= WORTH_A_TIME || verbose => {
            Some(format!("{step}: done in {}", Seconds(*time)))
        }
        Event::Done(step, _) => (!step.is_routine()).then(|| format!("{step}: done")),
        Event::Pulling { .. } => None,
        Event::Waiting(what) | Event::Note(what) => Some(format!("note: {}", printable(what))),
        Event::Slow { role, url } => Some(format!("note: waiting for {} at {}", role.title(), printable(url))),
        Event::Warning(what) => Some(format!("warning: {}", printable(what))),
        Event::Request { system, request, outcome, time } => verbose.then(|| {
            format!("{system}: {} -> {} in {:.1}ms", printable(request), printable(outcome), time.as_secs_f64() * 1e3)
        }),
    }
}

/// The steps of a finished run.
fn executed(status: &Status) -> &[StepStatus] {
    status.steps.as_deref().unwrap_or_default()
}

fn up(status: &Status, options: RenderOptions) -> String {
    let RenderOptions { palette, width } = options;
    let mut layout = Layout::new(width);
    let headline = if executed(status).is_empty() {
        format!("{} is in sync: nothing to do", status.instance)
    } else {
        format!("{} is up and verified", status.instance)
    };
    layout.line(&palette.good(&headline));
    layout.gap();
    layout.row("Dashboard", &[palette.strong(&status.dashboard.url)]);
    for own in &status.user_dashboards {
        layout.row("", &[palette.strong(&own.url), palette.faint(&printable_line(&own.title))]);
    }
    for server in status.servers.iter().rev() {
        let mut parts = vec![server.url.clone()];
        if server.role == Role::Influxdb {
            parts.push(format!("database {}", printable_line(&status.database.name)));
        } else if server.role == Role::Grafana {
            parts.push(account(status));
        }
        layout.row(server.role.title(), &parts);
    }
    let public = |server: &ServerStatus| Some(format!("{} {}", server.role.title(), server.public_url.as_ref()?));
    let other_hosts: Vec<String> = status.servers.iter().rev().filter_map(public).collect();
    layout.row("other hosts", &other_hosts);
    clipper_file(&mut layout, &status.clipper_file, palette);
    for note in notes(status) {
        layout.gap();
        layout.line(&format!("{} {note}", palette.odd("note:")));
    }
    table::forward_command(&mut layout, status);
    layout.done()
}

/// What Clipper's file must contain, unless it already does.
fn clipper_file(layout: &mut Layout, settings: &ClipperSettings, palette: Palette) {
    match settings {
        ClipperSettings::Agree => {}
        ClipperSettings::Defaults { address, database } => {
            layout.gap();
            layout.line(&format!("Clipper must write to {address}, database {database} (its defaults)"));
        }
        ClipperSettings::Lines(lines) => {
            layout.gap();
            layout.line("Clipper's configuration file must contain:");
            for line in lines {
                layout.indented(2, &printable_line(line));
            }
        }
        ClipperSettings::Impossible(why) => {
            layout.gap();
            layout.line(&format!("{} {}", palette.odd("note:"), printable_line(why)));
        }
    }
}

/// The notes of a finished `up`.
fn notes(status: &Status) -> Vec<String> {
    let executed = executed(status);
    let mut notes = Vec::new();
    if status.account.is_known && status.account.is_default && !executed.is_empty() {
        notes.push(format!(
            "at the first sign-in, Grafana asks for a new password: skip this, or set one and supply it with `{}`",
            status.invocation.command("up --grafana-password-file FILE")
        ));
    }
    let saves_rules =
        |done: &StepStatus| matches!(done.step, Step::SaveAlertRules { .. } | Step::SaveMovedAlertRule(_));
    notes.extend(status.alerts.iter().filter(|_| executed.iter().any(saves_rules)).map(|alerts| {
        format!(
            "Grafana's notification policies choose who receives alerts: add a contact point at {}",
            alerts.contact_points
        )
    }));
    if status.alerts.as_ref().is_some_and(|alerts| alerts.state == ObjectState::Edited) {
        notes.push("alert rules were edited and are kept".into());
    }
    let replace = format!("`{} --overwrite-dashboard` replaces it", status.invocation.command("up"));
    notes.extend(status.edited_dashboards().map(|(title, _)| {
        format!("the dashboard {} was edited and is kept; {replace}", printable_line(&format!("{title:?}")))
    }));
    let remarks = status.user_dashboards.iter().flat_map(UserDashboardStatus::remarks);
    notes.extend(remarks.map(|remark| printable_line(&remark)));
    notes
}

fn account(status: &Status) -> String {
    let account = &status.account;
    let user = printable_line(&account.user);
    match &account.password {
        _ if !account.is_known => format!("sign in as {user}"),
        Some(password) => format!("sign in as {user} / {}", printable(password.reveal())),
        None if account.is_default => format!("sign in as {user} / admin"),
        None => {
            format!("sign in as {user}; `{} --show-secrets` shows the password", status.invocation.command("status"))
        }
    }
}

/// An object that a step removed from Grafana.
fn removed_object(step: &Step) -> Option<String> {
    match step {
        Step::DeleteDashboard { title, .. } => Some(format!("the dashboard {}", printable_line(&format!("{title:?}")))),
        Step::DeleteDataSource { .. } => Some("the data source".into()),
        Step::DeleteAlertRule { .. } => Some("the alert rules".into()),
        _ => None,
    }
}

fn down(status: &Status, options: RenderOptions) -> String {
    let executed = executed(status);
    let mut layout = Layout::new(options.width);
    let folder = executed.iter().find_map(|done| match &done.step {
        Step::DeleteFolder { title } => Some(format!("the folder {}", printable_line(&format!("{title:?}")))),
        _ => None,
    });
    let removed = executed.iter().filter_map(|done| removed_object(&done.step));
    let mut removed: Vec<String> = removed.chain(folder.clone().filter(|_| status.has_folder == Some(false))).collect();
    // Both alert rules count as one.
    removed.dedup();
    let deletes = |kind: fn(&Step) -> bool| executed.iter().any(|done| kind(&done.step));
    // Their folder goes without saying unless it is the last that was left of them.
    if deletes(|step| *step == Step::DeleteAlertFolder)
        && !deletes(|step| matches!(step, Step::DeleteAlertRule { .. }))
        && status.has_alert_folder == Some(false)
    {
        removed.push("the alert rules' folder".into());
    }
    let is_elsewhere = status.servers.iter().all(|server| server.mode == Mode::External);
    layout.line(&if !removed.is_empty() {
        format!("removed {} from the Grafana at {}", listed(&removed), status.servers.grafana.url)
    } else if executed.is_empty() && is_elsewhere {
        format!("{}: nothing to stop, because both servers are external", status.instance)
    } else if executed.is_empty() {
        format!("{}: nothing to remove", status.instance)
    } else {
        format!("{} is down", status.instance)
    });
    // This is known only if Grafana was read.
    for (title, url) in status.edited_dashboards() {
        let title = printable_line(&format!("{title:?}"));
        layout.line(&format!(
            "The dashboard {title} ({url}) was edited and is kept. Delete it in Grafana if you do not need it."
        ));
    }
    if let Some(folder) = folder.filter(|_| status.has_folder == Some(true)) {
        layout.line(&format!("Grafana keeps {folder}: it is not empty."));
    }
    for line in &status.lookalikes {
        layout.line(&printable_line(line));
    }
    let kept = table::kept(status);
    if !kept.is_empty() {
        let kept = volumes(&kept);
        layout.line(&match &status.blocker {
            // The hint of an unfinished restore contains its commands.
            Some(Blocker { kind: BlockReason::Unfinished, hint, .. }) => {
                format!("The data of the unfinished restore is kept in {kept}: {}.", printable_line(hint))
            }
            _ => format!(
                "The data is kept in {kept}. `{up}` uses it again; `{down} --volumes` deletes it.",
                up = status.invocation.command("up"),
                down = status.invocation.command("down"),
            ),
        });
    }
    layout.done()
}

/// A line for each instance, in columns.
fn instances(found: &[Instance], options: RenderOptions) -> String {
    let mut layout = Layout::new(options.width);
    if found.is_empty() {
        layout.line("no instances on this engine");
        return layout.done();
    }
    let place = |member: &Member| match (&member.url, member.state) {
        (None, state) => state.name().to_string(),
        (Some(url), MemberState::Running) => printable_line(url),
        (Some(url), state) => format!("{} ({})", printable_line(url), state.name()),
    };
    let mut heads = vec!["NAME".to_string(), "STATE".to_string()];
    heads.extend(Role::ALL.map(|role| role.name().to_uppercase()));
    let mut rows = vec![heads];
    rows.extend(found.iter().map(|one| {
        let state = one.state.name().replace('_', " ");
        [printable_line(&one.name), state].into_iter().chain(one.servers.iter().map(place)).collect()
    }));
    let width = |column: usize| rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell}{:gap$}", "", gap = width + 3 - measure_text_width(cell)));
        }
        layout.line(line.trim_end());
    }
    layout.done()
}

/// The first failure with its hint, then every check with its result and its duration.
fn diagnosis(found: &Diagnosis, options: RenderOptions) -> String {
    let RenderOptions { palette, width } = options;
    let mut layout = Layout::new(width);
    if let Some(failure) = &found.first_failure {
        let (why, hint) = (printable_line(&failure.message), printable_line(&failure.hint));
        layout.line(&format!("{} {why}: {hint}", palette.bad("first failure:")));
    } else {
        let PanelCount { answering, total } = found.panels;
        layout.line(&format!("{} {answering} of {total} panels answer", palette.good("no failures:")));
    }
    layout.gap();
    for result in &found.checks {
        let mark = match result.state {
            CheckState::Passed => palette.good("✔"),
            CheckState::Failed => palette.bad("✘"),
            CheckState::Skipped => palette.faint("-"),
        };
        let millis = result.seconds.0.as_secs_f64() * 1e3;
        let time = if millis < 0.5 { String::new() } else { palette.faint(&format!(" ({millis:.0}ms)")) };
        let (title, message) = (printable_line(&result.title), printable_line(&result.message));
        layout.indented(2, &format!("{mark} {title}: {message}{time}"));
    }
    layout.done()
}

/// A plan: a line per step with its reason, and the questions that it asks.
fn planned(status: &Status, plan: &Plan, options: RenderOptions) -> String {
    let questions = status.confirmations.as_deref().unwrap_or_default();
    let mut layout = Layout::new(options.width);
    let mut hints: Vec<&str> = Vec::new();
    for item in &plan.items {
        let resource = match item.resource {
            Resource::Dashboard(DashboardId::User(index)) => {
                format!("dashboard {:?}", status.user_dashboards[index].title)
            }
            resource => resource.to_string(),
        };
        match &item.finding {
            Finding::Blocked(Blocker { why, hint, .. }) => {
                layout.line(&format!("blocked: {}", printable_line(why)));
                // Objects with the same conflict have the same remedy.
                if !hints.contains(&hint.as_str()) {
                    layout.line(&format!("hint: {}", printable_line(hint)));
                    hints.push(hint);
                }
            }
            Finding::Kept(kept) => {
                layout.line(&printable_line(&format!("{}; {}", kept.why, kept.hint)));
            }
            Finding::Edited => layout.line(&printable_line(&format!("keep the {resource}: edited"))),
            Finding::Unreadable(why) => layout.line(&printable_line(&format!("{resource}: {why}"))),
            _ => {}
        }
    }
    for (step, finding) in plan.steps() {
        layout.line(&printable_line(&format!("{step} ({finding})")));
    }
    for question in questions {
        layout.line(&format!("needs confirmation: {} (--yes confirms it)", printable_line(question)));
    }
    let text = layout.done();
    if text.is_empty() { "nothing to do\n".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_the_duration_of_long_steps_and_omits_short_routine_steps() {
        let done = |step: &Step, millis, verbose| event(&Event::Done(step, Duration::from_millis(millis)), verbose);
        let (routine, other) = (Step::SetHome { uid: "x".into() }, Step::CreateOrganisation("o".into()));
        assert!(routine.is_routine() && !other.is_routine());
        assert_eq!(done(&other, 1_240, false).unwrap(), format!("{other}: done in 1.2s"));
        assert_eq!(done(&other, 3, false).unwrap(), format!("{other}: done"));
        assert_eq!(done(&routine, 60, false).unwrap(), format!("{routine}: done in 0.1s"));
        assert_eq!(done(&routine, 3, false), None);
        assert_eq!(done(&routine, 3, true).unwrap(), format!("{routine}: done in 0.0s"));
    }
}
