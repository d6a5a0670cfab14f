//! The status as shell variables: one quoted assignment per line. Their names differ from those of settings.

use super::plain::Plain;
use super::{Output, Printer, Style, print};
use crate::model::event::{Event, Listener};
use crate::model::invocation::shell_word;
use crate::model::results::Document;
use crate::model::stack::Secret;
use crate::model::status::Status;

/// Prints assignments on standard output and everything else as plain lines.
pub(super) struct Env {
    plain: Plain,
}

impl Env {
    pub(super) const fn new(style: Style) -> Self {
        Self { plain: Plain::new(style) }
    }
}

impl Listener for Env {
    fn on(&self, event: Event<'_>) {
        self.plain.on(event);
    }
}

impl Printer for Env {
    fn print(&self, output: Output<'_>) -> std::io::Result<()> {
        match output {
            Output::Result(Document::State(status)) => print(&assignments(status)),
            output => self.plain.print(output),
        }
    }

    fn again(&self, status: &Status) -> std::io::Result<()> {
        print(&assignments(status))
    }

    fn clear(&self) {}
}

/// An unknown value is empty.
fn assignments(status: &Status) -> String {
    let truth = |value: bool| value.to_string();
    let mut pairs = vec![
        ("INSTANCE".to_string(), status.instance.clone()),
        ("IN_SYNC".into(), truth(status.in_sync)),
        ("ENGINE".into(), status.engine.as_ref().map(|engine| engine.endpoint.clone()).unwrap_or_default()),
    ];
    for server in status.servers.iter() {
        let name = server.role.name().to_uppercase();
        pairs.extend([
            (format!("{name}_STATE"), server.state.name().into()),
            (format!("{name}_URL"), server.url.clone()),
            (format!("{name}_VERSION"), server.version.clone().unwrap_or_default()),
        ]);
    }
    pairs.push(("GRAFANA_USER".into(), status.account.user.clone()));
    for row in status.resources() {
        let Some((kind, suffix, value)) = row.variable else { continue };
        pairs.extend([(format!("{kind}{suffix}"), value.into()), (format!("{kind}_STATE"), row.state.name().into())]);
    }
    pairs.push(("CLIPPER_REPORTING".into(), status.reports.reporting.map(truth).unwrap_or_default()));
    let mut text: String =
        pairs.iter().map(|(name, value)| format!("CLIPPER_STATUS_{name}={}\n", shell_word(value))).collect();
    if let Some(password) = &status.account.password {
        text.push_str(&format!("CLIPPER_STATUS_GRAFANA_PASSWORD={}\n", shell_word(Secret::reveal(password))));
    }
    text
}
