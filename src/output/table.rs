//! The table of `status`, with Clipper's models.

use super::layout::Layout;
use super::palette::{Palette, RenderOptions};
use crate::model::container_config::Difference;
use crate::model::plan::{Blocker, Resource};
use crate::model::reports::{ModelReport, Reports, span, written_name};
use crate::model::server_status::{Mode, ServerState, ServerStatus};
use crate::model::stack::DashboardId;
use crate::model::status::{Note, ResourceRow, Status};
use crate::model::text::{count, printable, printable_line, volumes};

/// The largest number of models for which `status` lists each.
const MODELS_LISTED: usize = 12;

pub(super) fn status(status: &Status, options: RenderOptions) -> String {
    let RenderOptions { palette, width } = options;
    let mut layout = Layout::new(width);
    let is_absent = |server: &ServerStatus| server.mode == Mode::Container && server.state == ServerState::Absent;
    if status.servers.iter().all(is_absent) {
        absent(&mut layout, status, palette);
        return layout.done();
    }
    let headline = if status.in_sync { palette.good("in sync") } else { palette.bad("out of sync") };
    layout.line(&format!("{} is {headline}", palette.strong(&status.instance)));
    layout.gap();
    for server in status.servers.iter() {
        layout.row(server.role.title(), &server_parts(server, palette));
        for difference in &server.differences {
            layout.row("", &[printable_line(&difference.to_string())]);
        }
    }
    for row in status.resources() {
        resource(&mut layout, &row, palette);
    }
    if let Some(password) = &status.account.password {
        let account = format!("{} / {}", printable_line(&status.account.user), printable(password.reveal()));
        layout.row("account", &[account]);
    }
    if let Some(engine) = &status.engine {
        let version = format!("version {}", engine.version);
        layout.row("engine", &[engine.endpoint.clone(), palette.faint(&version), palette.faint(&engine.chosen_by)]);
    }
    clipper(&mut layout, &status.reports, &status.configured_models, palette);
    forward_command(&mut layout, status);
    findings(&mut layout, status);
    if !status.hints.is_empty() {
        layout.gap();
        for line in &status.hints {
            layout.line(&format!("{} {}", palette.strong("hint:"), printable_line(line)));
        }
    }
    others(&mut layout, status);
    layout.done()
}

fn resource(layout: &mut Layout, row: &ResourceRow<'_>, palette: Palette) {
    let label = match row.resource {
        Resource::Dashboard(DashboardId::User(_)) => String::new(),
        resource => resource.to_string(),
    };
    let name = format!("{}{}", palette.object_state(row.state), printable_line(row.name));
    let differences = printable_line(&Difference::list(row.differences));
    let note = match &row.note {
        Note::None => String::new(),
        Note::Fact(text) => text.clone(),
        Note::Success(text) | Note::Dashboard(_, text) => palette.faint(text),
        Note::Failure(why) => palette.bad(&printable_line(why)),
    };
    layout.row(&label, &[name, differences, note]);
}

/// The differences that no row shows: the row of a server already contains its own finding.
fn findings(layout: &mut Layout, status: &Status) {
    let is_shown = |line: &str| {
        let shown = |server: &ServerStatus| Some(format!("{}: {}", server.role.name(), server.detail.as_ref()?));
        status.servers.iter().filter_map(shown).any(|shown| shown == line)
    };
    let mut findings = status.findings.iter().filter(|line| !is_shown(line)).peekable();
    if findings.peek().is_some() {
        layout.gap();
        layout.line("Differences:");
        findings.for_each(|line| layout.indented(2, &printable_line(line)));
    }
}

/// The status of an instance without containers.
fn absent(layout: &mut Layout, status: &Status, palette: Palette) {
    match &status.blocker {
        None => {
            let up = status.invocation.command("up");
            layout.line(&format!("{} is not running: start it with `{up}`", status.instance));
        }
        Some(Blocker { why, hint, .. }) => {
            layout.line(&format!("{} is not running and cannot start: {}", status.instance, printable_line(why)));
            layout.line(&format!("{} {}", palette.strong("hint:"), printable_line(hint)));
        }
    }
    let kept = kept(status);
    if !kept.is_empty() {
        layout.line(&format!("Its data is kept in {}.", volumes(&kept)));
    }
    for line in &status.lost_volumes {
        layout.line(&format!("{} {}", palette.strong("hint:"), printable_line(line)));
    }
    if let Some(engine) = &status.engine {
        layout.line(&palette.faint(&format!("engine: {} ({})", engine.endpoint, engine.chosen_by)));
    }
    others(layout, status);
}

fn others(layout: &mut Layout, status: &Status) {
    if !status.others.is_empty() {
        layout.line(&format!("Other instances on this engine: {} (choose one with --name)", status.others.join(", ")));
    }
}

fn server_parts(server: &ServerStatus, palette: Palette) -> Vec<String> {
    let image = server.image.as_ref().filter(|_| server.mode == Mode::Container);
    vec![
        format!("{}{}", palette.server_state(server.state), server.url),
        server.version.clone().unwrap_or_default(),
        image.map(|image| palette.faint(&printable_line(image))).unwrap_or_default(),
        server.detail.as_ref().map(|detail| format!("({})", printable_line(detail))).unwrap_or_default(),
    ]
}

fn clipper(layout: &mut Layout, reports: &Reports, configured: &[String], palette: Palette) {
    let age = |at: i64| {
        if at > reports.at {
            format!("{} ahead", span(at - reports.at))
        } else {
            format!("{} ago", span(reports.at - at))
        }
    };
    let mut parts = match (reports.reporting, reports.last_report) {
        (None, _) => vec![palette.odd("unknown")],
        (Some(true), Some(at)) => vec![palette.good("reporting"), format!("last report {}", age(at))],
        (Some(_), Some(at)) => vec![palette.bad("not reporting"), format!("last report {}", age(at))],
        (Some(_), None) => vec![palette.odd("has never reported")],
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
        parts.push(palette.faint("(with demo data)"));
    }
    layout.row("Clipper", &parts);
    let model = |model: &ModelReport| {
        let mut line = match model.last_report {
            Some(at) if model.reporting => format!("last report {}", age(at)),
            Some(at) => palette.bad(&format!("last report {}", age(at))),
            None => palette.faint("demo data only"),
        };
        if let Some(rate) = model.predictions_per_second {
            line.push_str(&format!(", {rate:.1} predictions/s"));
        }
        if let Some(p99) = model.p99_micros {
            line.push_str(&format!(", p99 {:.1}ms", p99 / 1e3));
        }
        if model.above_objective == Some(true) {
            line.push_str(&format!(" {}", palette.bad("above the objective")));
        }
        format!("{}: {line}", printable_line(&model.name))
    };
    let (shown, hidden) = listed_models(&reports.models);
    for one in shown {
        layout.row("", &[model(one)]);
    }
    if !hidden.is_empty() {
        layout.row("", &[palette.faint(&format!("{}; --output json lists all", hidden_models(&hidden)))]);
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

/// The command that forwards the dashboard of an engine behind ssh to this machine.
pub(super) fn forward_command(layout: &mut Layout, status: &Status) {
    if let Some(command) = &status.dashboard.forward_command {
        layout.gap();
        layout.line("These addresses are on the engine's host. To open the dashboard here, run");
        layout.command(2, command);
    }
}

/// The existing volumes with data.
pub(super) fn kept(status: &Status) -> Vec<String> {
    let volumes = status.servers.iter().filter_map(|server| server.volume.as_ref());
    volumes.filter(|volume| volume.exists).map(|volume| volume.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, reporting: bool, above: bool) -> ModelReport {
        ModelReport { above_objective: Some(above), ..ModelReport::sample(name, reporting) }
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
