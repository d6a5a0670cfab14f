//! The parts of an export's README that several formats share: its source, and the commands of the instance.

use super::{ExportFile, Material};
use crate::grafana::provisioning::INFLUXDB_PASSWORD;
use crate::model::invocation::Invocation;
use crate::model::role::Role;
use crate::model::stack::{EngineLocation, Stack};

/// The file's name.
const NAME: &str = "README.md";

/// A command of this program, for the engine's host.
pub(super) fn command(stack: &Stack, arguments: &str) -> String {
    let invocation = elsewhere(stack);
    if stack.engine == EngineLocation::Here {
        invocation.command(arguments)
    } else {
        invocation.command_there(arguments)
    }
}

/// The invocation for a reader in another directory, where a relative path would not be found.
pub(super) fn elsewhere(stack: &Stack) -> Invocation {
    let absolute = |path: &str| match std::path::absolute(path) {
        Ok(absolute) => absolute.to_string_lossy().into_owned(),
        Err(_) => path.into(),
    };
    stack.invocation.by_name(&stack.instance, absolute)
}

/// A command of the engine's own client, for the engine's host.
pub(super) fn docker(stack: &Stack, arguments: &str) -> String {
    if stack.engine == EngineLocation::Here {
        stack.invocation.docker(arguments)
    } else {
        format!("docker {arguments}")
    }
}

/// The command that saves the existing instance.
pub(super) fn backup(stack: &Stack) -> String {
    command(stack, &format!("backup {}.tar.gz", stack.instance))
}

/// Replaces the placeholders in a text.
pub(super) fn fill(text: &str, material: &Material<'_>, values: &[(&str, String)]) -> ExportFile {
    let stack = material.stack;
    let grafana = stack.container(Role::Grafana).map(|spec| spec.config.publish.port());
    let common = [
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        ("table", table(stack)),
        ("instance", stack.instance.clone()),
        ("user", stack.login.user.clone()),
        ("grafana_port", grafana.unwrap_or(Role::Grafana.port()).to_string()),
        ("edited", edited(material)),
    ];
    let mut text = text.to_string();
    for (name, value) in values.iter().chain(&common) {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    // Removes the empty lines left by empty values.
    while text.contains("\n\n\n") {
        text = text.replace("\n\n\n", "\n\n");
    }
    ExportFile::new(NAME, format!("{}\n", text.trim_end()))
}

/// The table of the export's source.
fn table(stack: &Stack) -> String {
    let server = |role: Role| match stack.container(role) {
        Some(spec) => format!("`{}`", spec.config.image),
        None => stack.url(role).to_string(),
    };
    let mut rows = vec![
        ("instance", stack.instance.clone()),
        ("InfluxDB", server(Role::Influxdb)),
        ("Grafana", server(Role::Grafana)),
        ("database", stack.database.clone()),
    ];
    if let Some(retention) = stack.retention {
        rows.push(("retention", retention.to_string()));
    }
    if let Some(folder) = &stack.folder {
        rows.push(("folder", folder.clone()));
    }
    let titles = stack.dashboards().map(|id| stack.dashboard_identity(id).1.to_string());
    rows.push(("dashboards", titles.collect::<Vec<_>>().join(", ")));
    let rows = rows
        .into_iter()
        .map(|(name, value)| format!("| {name} | {} |", value.replace('|', "\\|").replace(['\n', '\r'], " ")));
    format!("| source | |\n|---|---|\n{}", rows.collect::<Vec<_>>().join("\n"))
}

/// The sentence about edited dashboards in the export, if any.
fn edited(material: &Material<'_>) -> String {
    let mut titles = material.present.edited_dashboards(material.stack);
    let elsewhere = material.present.dashboards_in_schema_v2(material.stack);
    titles.retain(|title| !elsewhere.contains(title));
    if titles.is_empty() {
        return String::new();
    }
    format!("\nThese dashboards were edited in Grafana and are exported with the edits: {}.\n", titles.join(", "))
}

/// How to set a variable for a Grafana that runs as a service.
pub(super) const IN_A_SERVICE: &str = "in `/etc/default/grafana-server` (Debian) or `/etc/sysconfig/grafana-server` (RPM), with \
                            `envValueFrom` or `envFromSecret` of Grafana's Helm chart, or with `--env` for a container";

pub(super) fn influxdb_password(stack: &Stack, how: &str) -> String {
    if stack.data_source.user.is_empty() {
        return String::new();
    }
    format!(
        "\nThe password of InfluxDB's user is not in the files. Grafana's server reads it from the variable \
         `{INFLUXDB_PASSWORD}`, which must be set whenever the server is started: {how}.\n"
    )
}

/// The address of an external InfluxDB.
pub(super) fn external(stack: &Stack) -> String {
    format!("\nInfluxDB is external, and Grafana must reach it at `{}`.\n", stack.data_source.url)
}
