//! Files for a Grafana that is provisioned from them.

use super::readme::{IN_A_SERVICE, fill, influxdb_password};
use super::{
    ExportFile, ExportFormat, ExportServers, KeptSecret, Material, provisioning, provisioning_files, variable,
};
use crate::error::{Error, Result};
use crate::grafana::provisioning::{INFLUXDB_PASSWORD, Provisioning};
use crate::model::address::ServerUrl;
use crate::model::role::Role;
use crate::model::stack::Stack;

pub(super) static FORMAT: ExportFormat = ExportFormat {
    name: "provisioning",
    target: "Grafana's provisioning",
    help: "Data source and dashboards for a Grafana that is provisioned from files",
    servers: ExportServers::Existing,
    check,
    kept_secret: |_| Ok(KeptSecret::Nothing),
    files,
};

/// Provisioning files identify an organisation by its number, which only the target Grafana knows.
fn check(stack: &Stack) -> Result<()> {
    let Some(organisation) = &stack.organisation else { return Ok(()) };
    let is_external = stack.container(Role::Grafana).is_none();
    if is_external && (stack.login.uses_token || stack.login.is_untried) {
        return Ok(());
    }
    let missing = if is_external { "" } else { "--grafana-url and " };
    Err(Error::usage(
        format!(
            "provisioning files identify an organisation by its number, and the number of {organisation:?} is unknown"
        ),
        format!(
            "name the target Grafana with {missing}--grafana-token-file or --grafana-password-file, or omit \
             --grafana-org (--grafana-org '' removes a remembered one)"
        ),
    ))
}

/// Whether the data source's address is a name that only the instance's containers can resolve.
#[must_use]
pub(crate) fn is_known_to_containers_only(stack: &Stack) -> bool {
    let grafana = stack.container(Role::Grafana);
    let own = ServerUrl::http(Role::Influxdb.name(), Role::Influxdb.port()).to_string();
    grafana.is_some_and(|spec| spec.config.host_gateway || stack.data_source.url == own)
}

fn files(material: &Material<'_>) -> Result<Vec<ExportFile>> {
    let url = &material.stack.data_source.url;
    let provisioning = provisioning(material, url, &variable(INFLUXDB_PASSWORD), false)?;
    let mut files = provisioning_files(&provisioning, "");
    files.push(readme(material, &provisioning));
    Ok(files)
}

fn readme(material: &Material<'_>, files: &Provisioning) -> ExportFile {
    let stack = material.stack;
    let source = if files.data_source.is_some() {
        format!(
            " `sidecar.datasources` reads `datasources/{}.yaml` from a ConfigMap or Secret with the label \
             `grafana_datasource: \"1\"`.",
            stack.instance
        )
    } else {
        " The data source is not in these files, because they cannot contain all its settings: it stays as it is in \
         Grafana."
            .into()
    };
    let rules = if files.alert_rules.is_some() { " and the alert rules" } else { "" };
    let text = include_str!("../../assets/export/provisioning.md");
    let alerts = format!(
        " `sidecar.alerts` takes `alerting/{}.yaml` from one with the label `grafana_alert: \"1\"`.",
        stack.instance
    );
    let url = &stack.data_source.url;
    let unknown = format!(
        " **Only containers of the instance know that name**: set the address that this Grafana uses with `{}`.",
        stack.command("export provisioning DIRECTORY --data-source-url URL")
    );
    let unknown = if is_known_to_containers_only(stack) { unknown } else { String::new() };
    fill(
        text,
        material,
        &[
            ("and_rules", rules.into()),
            ("alerts", if rules.is_empty() { String::new() } else { alerts }),
            ("source", source),
            (
                "password",
                files.data_source.as_ref().map(|_| influxdb_password(stack, IN_A_SERVICE)).unwrap_or_default(),
            ),
            ("url", format!("`{url}`.{unknown}")),
        ],
    )
}
