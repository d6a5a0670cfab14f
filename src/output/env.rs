//! The status as shell variables: one quoted assignment per line. Their names differ from those of settings.

use super::plain::Plain;
use super::{Output, Report, Style, print, state_names};
use crate::model::event::{Event, Listener};
use crate::model::invocation::shell_word;
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

impl Report for Env {
    fn answer(&self, output: &Output<'_>) -> std::io::Result<()> {
        match output {
            Output::Status(status) => print(&assignments(status)),
            output => self.plain.answer(output),
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
    let pairs = [
        ("INSTANCE", status.instance.clone()),
        ("IN_SYNC", truth(status.in_sync)),
        ("ENGINE", status.engine.as_ref().map(|engine| engine.endpoint.clone()).unwrap_or_default()),
        ("INFLUXDB_STATE", state_names::server_state(status.influxdb.state).into()),
        ("INFLUXDB_URL", status.influxdb.url.clone()),
        ("INFLUXDB_VERSION", status.influxdb.version.clone().unwrap_or_default()),
        ("GRAFANA_STATE", state_names::server_state(status.grafana.state).into()),
        ("GRAFANA_URL", status.grafana.url.clone()),
        ("GRAFANA_VERSION", status.grafana.version.clone().unwrap_or_default()),
        ("GRAFANA_USER", status.account.user.clone()),
        ("DATABASE", status.database.name.clone()),
        ("DATABASE_STATE", state_names::object_state(status.database.state).into()),
        ("DATA_SOURCE_UID", status.data_source.name.clone()),
        ("DATA_SOURCE_STATE", state_names::object_state(status.data_source.state).into()),
        ("DASHBOARD_URL", status.dashboard_url.clone()),
        ("DASHBOARD_STATE", state_names::object_state(status.dashboard.state).into()),
        ("CLIPPER_REPORTING", status.reports.reporting.map(truth).unwrap_or_default()),
    ];
    let mut text: String =
        pairs.iter().map(|(name, value)| format!("CLIPPER_STATUS_{name}={}\n", shell_word(value))).collect();
    if let Some(password) = &status.account.password {
        text.push_str(&format!("CLIPPER_STATUS_GRAFANA_PASSWORD={}\n", shell_word(Secret::reveal(password))));
    }
    text
}
