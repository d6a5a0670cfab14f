//! Files for Docker Compose, with the instance's own volumes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::readme::{command, docker, elsewhere, fill, influxdb_password};
use super::{
    DATA_SOURCES, ExportFile, ExportFormat, ExportServers, FOLDER, KeptSecret, Material, PROVISIONING, from_file,
    provisioning, provisioning_files, variable, yaml,
};
use crate::engine::password_path;
use crate::error::Result;
use crate::grafana::provisioning::{INFLUXDB_PASSWORD, Provisioning};
use crate::model::container_config::ContainerConfig;
use crate::model::invocation::typed_option;
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, EngineLocation, Login, Stack};

pub(super) static FORMAT: ExportFormat = ExportFormat {
    name: "compose",
    target: "Docker Compose",
    help: "A Compose file that uses this instance's volumes",
    servers: ExportServers::Instance,
    check: |_| Ok(()),
    kept_secret: |_| Ok(KeptSecret::Nothing),
    files,
};

/// The data source keeps the address from the volume.
fn files(material: &Material<'_>) -> Result<Vec<ExportFile>> {
    let stack = material.stack;
    let files = provisioning(material, &stack.data_source.url, &variable(INFLUXDB_PASSWORD), true)?;
    let mut services = Map::new();
    let mut volumes = Map::new();
    for spec in Role::ALL.into_iter().filter_map(|role| stack.container(role)) {
        let mut service = compose_service(material, spec);
        if spec.role == Role::Grafana {
            serve_grafana(&mut service, stack, &files);
        }
        services.insert(spec.role.name().into(), service);
        volumes.insert(spec.role.name().into(), json!({"external": true, "name": spec.config.volume}));
    }
    let file = json!({"services": services, "networks": {"default": {"name": stack.instance}}, "volumes": volumes});
    let mut all = provisioning_files(&files, &format!("{FOLDER}/"));
    // Otherwise two exports in folders with the same name would be the same project.
    all.push(ExportFile::new(".env", format!("COMPOSE_PROJECT_NAME={}\n", stack.instance)));
    all.push(ExportFile::new("docker-compose.yaml", yaml(&file)));
    all.push(readme(material, &files));
    Ok(all)
}

/// The service of a server.
fn compose_service(material: &Material<'_>, spec: &DesiredContainer) -> Value {
    let made = &spec.config;
    let stored = material.has_stored_password.then(|| from_file(&password_path()));
    let mut service = service(spec, &literal(material.environment(spec, stored)));
    if let Some(id) = &spec.pinned_image {
        // The name belongs to a newer image, which failed.
        service["image"] = json!(id);
    }
    service["restart"] = json!("unless-stopped");
    // In the short form, because docker-compose 1.29 does not support addresses in the long form.
    service["ports"] = json!([format!("{}:{}", made.publish, spec.role.port())]);
    service["security_opt"] = json!(["no-new-privileges"]);
    // A Clipper in a container reaches the server by its container's name.
    service["networks"] = json!({"default": {"aliases": [spec.name]}});
    if let (true, Some(address)) = (made.host_gateway, material.host_address) {
        service["extra_hosts"] = json!([format!("{}:{address}", ContainerConfig::HOST_NAME)]);
    }
    service
}

/// Mounts Grafana's files, and passes the password of InfluxDB's user.
fn serve_grafana(service: &mut Value, stack: &Stack, files: &Provisioning) {
    let folders = [(DATA_SOURCES, files.data_source.is_some()), ("dashboards", !files.dashboards.is_empty())];
    let mounts = folders.into_iter().filter(|(_, exists)| *exists).map(|(folder, _)| {
        json!({
            "type": "bind", "source": format!("./{FOLDER}/{folder}"), "read_only": true,
            "target": format!("{PROVISIONING}/{folder}"),
        })
    });
    if let Some(volumes) = service["volumes"].as_array_mut() {
        volumes.extend(mounts);
    }
    if files.data_source.is_some() && !stack.data_source.user.is_empty() {
        service["environment"][INFLUXDB_PASSWORD] =
            json!(format!("${{{INFLUXDB_PASSWORD}:?the password of InfluxDB's user}}"));
    }
}

/// The fields of a service that both formats share.
pub(super) fn service(spec: &DesiredContainer, environment: &Map<String, Value>) -> Value {
    let made = &spec.config;
    let mut service = json!({
        "image": made.image.to_string(),
        "environment": environment,
        "volumes": [{"type": "volume", "source": spec.role.name(), "target": spec.role.data_path()}],
        "cap_drop": ["ALL"],
        "read_only": made.read_only,
        "logging": {"driver": "json-file", "options": BTreeMap::from(ContainerConfig::LOG_LIMIT)},
        "healthcheck": {
            "test": spec.role.facts().health_command, "interval": "5s", "timeout": "5s", "retries": 12, "start_period": "2m",
        },
        "stop_grace_period": "30s",
    });
    // In the long form, because a swarm ignores the short one.
    if let Some(volumes) = service["volumes"].as_array_mut().filter(|_| made.read_only) {
        volumes.push(json!({"type": "tmpfs", "target": "/tmp"}));
    }
    service
}

/// Escapes an environment so that Compose expands no variables in it.
pub(super) fn literal(environment: BTreeMap<String, String>) -> Map<String, Value> {
    environment.into_iter().map(|(name, value)| (name, json!(escaped(&value)))).collect()
}

/// Escapes a text so that Compose expands no variables in it.
pub(super) fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

fn readme(material: &Material<'_>, files: &Provisioning) -> ExportFile {
    let stack = material.stack;
    let text = include_str!("../../assets/export/compose.md");
    let volumes = Role::ALL.into_iter().filter_map(|role| stack.container(role));
    let volumes: Vec<String> = volumes.map(|spec| format!("`{}`", spec.config.volume)).collect();
    let mut status = status(stack);
    if material.has_stored_password {
        let password = docker(stack, &format!("compose exec -T grafana cat {}", password_path()));
        status = format!("{password} |\n  {status} --grafana-password-file /dev/stdin");
    }
    let there = match &stack.engine {
        EngineLocation::Here => String::new(),
        EngineLocation::Elsewhere(host) | EngineLocation::OverSsh { host, .. } => {
            format!(
                "\nCompose reads these files on the engine's host: copy them to {host}, and run the commands there.\n"
            )
        }
    };
    fill(
        text,
        material,
        &[
            ("there", there),
            ("down", command(stack, "down")),
            ("compose_up", docker(stack, "compose up -d")),
            ("status", status),
            ("clipper", containerized_clipper(stack)),
            ("password", files.data_source.as_ref().map(|_| influxdb_password(stack, IN_A_SHELL)).unwrap_or_default()),
            ("opens", opens(stack)),
            ("back", back(stack, files)),
            ("edited", kept(material, files.data_source.is_some())),
            ("volumes", format!(" {}", volumes.join(" and "))),
        ],
    )
}

/// How a Clipper in the instance's network keeps its connection to InfluxDB.
fn containerized_clipper(stack: &Stack) -> String {
    let Some(spec) = stack.container(Role::Influxdb) else { return String::new() };
    let network = |verb: &str| docker(stack, &format!("network {verb} {} CLIPPER", stack.instance));
    format!(
        "\nA Clipper in a container on the network `{}` finds InfluxDB as `influx_ip = \"{}\"` before and after the \
         switch. A network can be replaced only while no container uses it: disconnect Clipper first (`{}`) and \
         reconnect it afterwards (`{}`), also when you switch back.\n",
        stack.instance,
        spec.name,
        network("disconnect"),
        network("connect")
    )
}

/// How to set a variable for Compose.
const IN_A_SHELL: &str =
    "export it in the shell, because a file such as `.env` in this directory is part of the export";

/// The sentence about content that is in the volume but not in Compose's files.
fn kept(material: &Material<'_>, has_source: bool) -> String {
    let titles = material.present.edited_dashboards(material.stack);
    let what = if titles.is_empty() { String::new() } else { format!(" This applies to: {}.", titles.join(", ")) };
    let source = if has_source {
        ""
    } else {
        " The data source stays in the volume, too, because files cannot contain all its settings."
    };
    format!("\nEdits made in Grafana and alert rules stay in its volume and are not in these files.{what}{source}\n")
}

/// The commands that return the instance to clipper-metrics. Grafana must notice the removal of the
/// files, otherwise its dashboards stay provisioned.
fn back(stack: &Stack, files: &Provisioning) -> String {
    let own = (0..files.folder_count()).map(|index| format!("{FOLDER}/dashboards/{}/*.json", files.folder_name(index)));
    let own: Vec<String> = own.collect();
    let restart = docker(stack, "compose restart grafana");
    let release = if own.is_empty() {
        String::new()
    } else {
        format!(
            "rm {}\n{restart}\nuntil curl -sf {}/api/health; do sleep 1; done; sleep 5\n",
            own.join(" "),
            stack.url(Role::Grafana)
        )
    };
    format!("```sh\n{release}{}\n{}\n```", docker(stack, "compose down"), command(stack, "up"))
}

/// Who can use the published addresses of Compose.
fn opens(stack: &Stack) -> String {
    let open = |role: Role, how: &str| {
        let at = stack.container(role)?.config.publish;
        let who =
            if at.ip().is_loopback() { "only this machine can reach it".to_string() } else { format!("**{how}**") };
        Some(format!("* {} listens on {at}: {who}.", role.title()))
    };
    let lines = [
        open(Role::Influxdb, "it has no password, and every host that reaches that address can read and write metrics"),
        open(Role::Grafana, "it uses plain HTTP, and passwords can be read on the network"),
    ];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// The command that compares everything from outside, where no settings are remembered.
fn status(stack: &Stack) -> String {
    let mut arguments = String::from("status");
    let mut option = |name: &str, value: &str| {
        if !value.is_empty() {
            arguments.push_str(&typed_option(name, value));
        }
    };
    option("--name", &stack.instance);
    option("--influxdb-url", &stack.url(Role::Influxdb).to_string());
    option("--grafana-url", &stack.url(Role::Grafana).to_string());
    option("--data-source-url", &stack.data_source.url);
    option("--database", &stack.database);
    option("--grafana-org", stack.organisation.as_deref().unwrap_or_default());
    option("--grafana-folder", stack.folder.as_deref().unwrap_or_default());
    option("--grafana-user", if stack.login.user == Login::ADMIN { "" } else { &stack.login.user });
    option("--influxdb-user", &stack.data_source.user);
    option("--retention", &stack.retention.map(Retention::influxql).unwrap_or_default());
    for own in &stack.user_dashboards {
        option("--dashboard", &own.path);
    }
    if let Some(settings) = stack.alerts.settings() {
        arguments.push_str(" --alerts");
        let mut after = |name, time: Duration| arguments.push_str(&typed_option(name, &format!("{}s", time.as_secs())));
        after("--alert-latency-after", settings.latency_after);
        after("--alert-silence-after", settings.silence_after);
    }
    // Both servers are external to this command, so that no engine is used.
    elsewhere(stack).command_there(&arguments)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::grafana::provisioning::GrafanaExport;
    use crate::model::stack::Service;
    use crate::samples;

    #[test]
    fn an_image_whose_name_belongs_to_another_one_is_named_by_its_id() {
        let mut stack = samples::stack();
        let image = stack.container(Role::Grafana).unwrap().config.image.to_string();
        for (pinned_image, expected) in [(None, image.as_str()), (Some("sha256:1"), "sha256:1")] {
            if let Service::Container(spec) = &mut stack.services.grafana {
                spec.pinned_image = pinned_image.map(String::from);
            }
            let material = Material {
                stack: &stack,
                present: &GrafanaExport::new_server(&stack),
                version: None,
                host_address: None,
                password: None,
                own_secret: None,
                has_stored_password: false,
                influxdb_password: None,
                format: &FORMAT,
                directory: Path::new("d"),
            };
            let service = compose_service(&material, stack.container(Role::Grafana).unwrap());
            assert_eq!(service["image"], expected);
        }
    }
}
