//! Files in the Compose format: for Docker Compose, which uses the instance's own volumes, and for
//! Docker in swarm mode, which creates new ones.
//!
//! Comments note where a swarm behaves differently.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    ExportFile, FOLDER, INFLUXDB_PASSWORD_FILE, Material, PASSWORD_FILE, PROVISIONING, ProvisionedFile,
    RESTORE_SCRIPTS, Secrecy, database, from_file, home, provisioned, provisioning, provisioning_files, readme,
    variable, yaml,
};
use crate::digest::fingerprint;
use crate::engine::password_path;
use crate::error::{Error, Result};
use crate::grafana::provisioning::INFLUXDB_PASSWORD;
use crate::model::container_config::ContainerConfig;
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, Secret, Stack};

/// The directory in which a swarm mounts secrets.
const SECRETS: &str = "/run/secrets";
/// The size limit of a config that every swarm accepts, in bytes.
const CONFIG_LIMIT: usize = 500_000;
/// The file for `docker stack deploy`.
pub(super) const STACK: &str = "stack.yaml";
/// The network of a swarm's services.
pub(super) const NETWORK: &str = "metrics";

/// For Docker Compose. The data source keeps the address from the volume.
pub(super) fn compose(material: &Material<'_>) -> Result<Vec<ExportFile>> {
    let stack = material.stack;
    let files = provisioning(material, &stack.data_source.url, &variable(INFLUXDB_PASSWORD), true)?;
    let folders = ["datasources"].into_iter().chain((!files.dashboards.is_empty()).then_some("dashboards"));
    let stored = material.has_stored_password.then(|| from_file(&password_path()));
    let mut services = Map::new();
    for spec in Role::ALL.into_iter().filter_map(|role| stack.container(role)) {
        let made = &spec.config;
        let mut service = service(spec, &literal(material.environment(spec, stored.clone())));
        service["restart"] = json!("unless-stopped");
        // In the short form, because docker-compose 1.29 does not support addresses in the long form.
        service["ports"] = json!([format!("{}:{}", made.publish, spec.role.port())]);
        service["security_opt"] = json!(["no-new-privileges"]);
        // A Clipper in a container reaches the server by its container's name.
        service["networks"] = json!({"default": {"aliases": [spec.name]}});
        if let (true, Some(address)) = (made.host_gateway, material.host_address) {
            service["extra_hosts"] = json!([format!("{}:{address}", ContainerConfig::HOST_NAME)]);
        }
        if spec.role == Role::Grafana {
            let mounts = folders.clone().map(|folder| {
                json!({
                    "type": "bind", "source": format!("./{FOLDER}/{folder}"), "read_only": true,
                    "target": format!("{PROVISIONING}/{folder}"),
                })
            });
            if let Some(volumes) = service["volumes"].as_array_mut() {
                volumes.extend(mounts);
            }
            if !stack.data_source.user.is_empty() {
                service["environment"][INFLUXDB_PASSWORD] =
                    json!(format!("${{{INFLUXDB_PASSWORD}:?the password of InfluxDB's user}}"));
            }
        }
        services.insert(spec.role.name().into(), service);
    }
    let volumes = Role::ALL.into_iter().filter_map(|role| stack.container(role)).map(|spec| {
        let made = json!({"external": true, "name": spec.config.volume});
        (spec.role.name().to_string(), made)
    });
    let network = json!({"default": {"name": stack.instance}});
    let file = json!({"services": services, "networks": network, "volumes": volumes.collect::<Map<_, _>>()});
    let mut all = provisioning_files(&files, &format!("{FOLDER}/"));
    // Otherwise two exports in folders with the same name would be the same project.
    all.push(ExportFile::new(".env", format!("COMPOSE_PROJECT_NAME={}\n", stack.instance)));
    all.push(ExportFile::new("docker-compose.yaml", yaml(&file)));
    all.push(readme::compose(material, &files));
    Ok(all)
}

/// For `docker stack deploy`.
pub(super) fn swarm(material: &Material<'_>) -> Result<Vec<ExportFile>> {
    let stack = material.stack;
    let influxdb = stack.container(Role::Influxdb);
    let url = material.influxdb_url(Role::Influxdb.name());
    let influxdb_secret = from_file(&format!("{SECRETS}/{INFLUXDB_PASSWORD_FILE}"));
    let files = provisioning(material, &url, &influxdb_secret, false)?;
    let mut services = Map::new();
    if material.influxdb_password.is_some_and(|password| password.reveal().contains('$')) {
        return Err(Error::usage(
            "Grafana misreads a password with a $ in a swarm's secret",
            "give InfluxDB's user a password without $",
        ));
    }
    let secrets = material.secrets();
    let configs = provisioned(&files);
    if let Some(file) = configs.iter().find(|file| file.content.len() > CONFIG_LIMIT) {
        return Err(Error::usage(
            format!("{} is too large for a config of a swarm", file.path),
            "split that dashboard",
        ));
    }
    for spec in Role::ALL.into_iter().filter_map(|role| stack.container(role)) {
        let from_secret = from_file(&format!("{SECRETS}/{PASSWORD_FILE}"));
        let mut service = service(spec, &literal(material.open_environment(spec, Some(from_secret))));
        service["networks"] = json!([NETWORK]);
        // A swarm kills unhealthy tasks, and InfluxDB is unhealthy while it opens much data,
        // Grafana while it migrates its database.
        service["healthcheck"]["start_period"] = json!("30m");
        service["deploy"] = json!({
            "replicas": 1,
            // A volume exists on one node, and two servers must never use it at the same time.
            "placement": {"constraints": [format!("node.labels.{} == true", stack.instance)]},
            // A single task needs no virtual address, which would drop idle connections.
            "endpoint_mode": "dnsrr",
            // The previous task, with its configs and secrets, returns if the new one fails within a minute.
            "update_config": {"order": "stop-first", "failure_action": "rollback", "monitor": "60s"},
            "rollback_config": {"order": "stop-first"},
            "restart_policy": {"condition": "any", "delay": "2s"},
        });
        if spec.role == Role::Grafana {
            serve_grafana(&mut service, stack, spec, &configs, &secrets);
        }
        services.insert(spec.role.name().into(), service);
    }
    if let Some(spec) = influxdb {
        services.insert("database".into(), database_service(stack, spec));
    }
    // A config's content cannot change, so other content needs another name.
    let named = |index: usize, path: &str, content: &str| {
        let name = format!("{}-{}", stack.instance, fingerprint(content.as_bytes()));
        (format!("config-{index}"), json!({"name": name, "file": format!("./{FOLDER}/{path}")}))
    };
    let configs = configs.iter().enumerate().map(|(index, file)| named(index, &file.path, &file.content));
    let volumes =
        Role::ALL.into_iter().filter_map(|role| stack.container(role)).map(|spec| (spec.role.name(), json!({})));
    let file = json!({
        "version": "3.8",
        "services": services,
        "networks": {NETWORK: {"driver": "overlay", "attachable": true}},
        "volumes": volumes.map(|(name, made)| (name.to_string(), made)).collect::<Map<_, _>>(),
        "configs": configs.collect::<Map<_, _>>(),
        "secrets": secrets.iter().map(|(name, _)| {
            let version = material.secret_versions.get(name).copied().unwrap_or(1);
            let named = format!("{}-{name}-{version}", stack.instance);
            ((*name).to_string(), json!({"name": named, "file": format!("./{name}")}))
        }).collect::<Map<_, _>>(),
    });
    let mut all = provisioning_files(&files, &format!("{FOLDER}/"));
    all.extend(
        secrets.into_iter().map(|(name, secret)| ExportFile::with_secret(name, secret.reveal(), Secrecy::Whole)),
    );
    if influxdb.is_some() {
        let scripts = RESTORE_SCRIPTS.into_iter();
        all.extend(scripts.map(|(role, script)| ExportFile::new(format!("restore/{role}.sh"), script)));
    }
    all.push(ExportFile::new(STACK, yaml(&file)));
    all.push(readme::swarm(material));
    Ok(all)
}

/// Publishes the service of Grafana and mounts its files.
fn serve_grafana(
    service: &mut Value,
    stack: &Stack,
    spec: &DesiredContainer,
    configs: &[ProvisionedFile],
    secrets: &[(&str, &Secret)],
) {
    // On the node with the volume only, instead of all nodes. A swarm ignores addresses.
    let port = spec.config.publish.port();
    let published = json!({"target": Role::Grafana.port(), "published": port, "protocol": "tcp", "mode": "host"});
    service["ports"] = json!([published]);
    service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] = json!(home(stack));
    let config = |(index, file): (usize, &ProvisionedFile)| json!({"source": format!("config-{index}"), "target": format!("{PROVISIONING}/{}", file.path)});
    service["configs"] = configs.iter().enumerate().map(config).collect();
    // Only Grafana runs in the container, whatever user its image has.
    let secret = |(name, _): &(&str, &Secret)| json!({"source": name, "target": name, "mode": 0o444});
    service["secrets"] = secrets.iter().map(secret).collect();
}

/// A service that creates Clipper's database before Clipper does, so that Grafana can query it, and
/// then exits.
fn database_service(stack: &Stack, spec: &DesiredContainer) -> Value {
    let host = Role::Influxdb.name();
    json!({
        "image": spec.config.image.to_string(),
        "entrypoint": ["influx", "-host", host, "-execute", escaped(&database(stack))],
        "networks": [NETWORK],
        "cap_drop": ["ALL"],
        "deploy": {"restart_policy": {"condition": "on-failure", "delay": "2s"}},
    })
}

/// The fields of a service that both formats share.
fn service(spec: &DesiredContainer, environment: &Map<String, Value>) -> Value {
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
fn literal(environment: BTreeMap<String, String>) -> Map<String, Value> {
    environment.into_iter().map(|(name, value)| (name, json!(escaped(&value)))).collect()
}

/// Escapes a text so that Compose expands no variables in it.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}
