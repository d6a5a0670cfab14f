//! Files of the Compose format: one for Docker Compose, which runs the instance's own volumes, and one for Docker in
//! swarm mode, which makes new ones.
//!
//! Knows that format, and what a swarm does otherwise. Must not know how an engine is asked.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    FOLDER, File, INFLUXDB_PASSWORD_FILE, Material, PASSWORD_FILE, PROVISIONING, Secrecy, database, from_file, home,
    provisioned, provisioning, provisioning_files, readme, variable, yaml,
};
use crate::digest::fingerprint;
use crate::engine::PASSWORD_PATH;
use crate::error::{Error, Result};
use crate::grafana::provisioning::INFLUXDB_PASSWORD;
use crate::model::role::Role;
use crate::model::specification::Specification;
use crate::model::stack::{ContainerSpec, Stack};

/// Where a swarm shows a secret.
const SECRETS: &str = "/run/secrets";
/// The most bytes that every swarm takes for a config.
const CONFIG_LIMIT: usize = 500_000;
/// The network of a swarm's services.
pub(super) const NETWORK: &str = "metrics";

/// For Docker Compose. The data source keeps the address that it has in the volume.
pub(super) fn compose(material: &Material<'_>) -> Result<Vec<File>> {
    let stack = material.stack;
    let files = provisioning(material, &stack.data_source.url, &variable(INFLUXDB_PASSWORD), true)?;
    let folders = ["datasources"].into_iter().chain((!files.dashboards.is_empty()).then_some("dashboards"));
    let stored = material.has_stored_password.then(|| from_file(PASSWORD_PATH));
    let mut services = Map::new();
    for spec in Role::ALL.into_iter().filter_map(|role| stack.container(role)) {
        let made = &spec.specification;
        let mut service = service(spec, &literal(material.environment(spec, stored.clone())));
        service["restart"] = json!("unless-stopped");
        // In the short form: docker-compose 1.29 knows no address in the long one.
        service["ports"] = json!([format!("{}:{}", made.publish, spec.role.port())]);
        service["security_opt"] = json!(["no-new-privileges"]);
        // A Clipper in a container knows the server by the name of its container.
        service["networks"] = json!({"default": {"aliases": [spec.name]}});
        if made.host_gateway {
            service["extra_hosts"] = json!([format!("{}:host-gateway", Specification::HOST_NAME)]);
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
        let made = json!({"external": true, "name": spec.specification.volume});
        (spec.role.name().to_string(), made)
    });
    let network = json!({"default": {"name": stack.instance}});
    let file = json!({"services": services, "networks": network, "volumes": volumes.collect::<Map<_, _>>()});
    let mut all = provisioning_files(&files, &format!("{FOLDER}/"));
    // Two exports in folders of one name are two projects.
    all.push(File::new(".env", format!("COMPOSE_PROJECT_NAME={}\n", stack.instance)));
    all.push(File::new("docker-compose.yaml", yaml(&file)));
    all.push(readme::compose(material, &files));
    Ok(all)
}

/// For `docker stack deploy`.
pub(super) fn swarm(material: &Material<'_>) -> Result<Vec<File>> {
    let stack = material.stack;
    let influxdb = stack.container(Role::Influxdb);
    let url = material.influxdb_url(Role::Influxdb.name());
    let influxdb_secret = from_file(&format!("{SECRETS}/{INFLUXDB_PASSWORD_FILE}"));
    let files = provisioning(material, &url, &influxdb_secret, false)?;
    let mut services = Map::new();
    if material.influxdb_password.is_some_and(|password| password.reveal().contains('$')) {
        return Err(Error::usage(
            "Grafana reads a password with a $ in a swarm's secret as another one",
            "give InfluxDB's user a password without $",
        ));
    }
    let secrets = material.secrets();
    let configs = provisioned(&files);
    if let Some(file) = configs.iter().find(|file| file.content.len() > CONFIG_LIMIT) {
        return Err(Error::usage(
            format!("{} has more bytes than a config of a swarm holds", file.path),
            "split that dashboard",
        ));
    }
    for spec in Role::ALL.into_iter().filter_map(|role| stack.container(role)) {
        let from_secret = from_file(&format!("{SECRETS}/{PASSWORD_FILE}"));
        let mut service = service(spec, &literal(material.environment(spec, Some(from_secret))));
        service["networks"] = json!([NETWORK]);
        // A swarm kills what is not healthy, as InfluxDB is not while it opens a lot of data, nor Grafana while it
        // migrates its database.
        service["healthcheck"]["start_period"] = json!("30m");
        service["deploy"] = json!({
            "replicas": 1,
            // A volume is on one node, and two servers never have it at once.
            "placement": {"constraints": [format!("node.labels.{} == true", stack.instance)]},
            // One task needs no virtual address, whose connections end when they are idle.
            "endpoint_mode": "dnsrr",
            "update_config": {"order": "stop-first"},
            "restart_policy": {"condition": "any", "delay": "2s"},
        });
        if spec.role == Role::Grafana {
            // On the one node that has the volume, not on all of them. A swarm ignores addresses.
            let port = spec.specification.publish.port();
            let published =
                json!({"target": Role::Grafana.port(), "published": port, "protocol": "tcp", "mode": "host"});
            service["ports"] = json!([published]);
            service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] = json!(home(stack));
            service["configs"] = configs
                .iter()
                .enumerate()
                .map(|(index, file)| {
                    json!({"source": format!("config-{index}"), "target": format!("{PROVISIONING}/{}", file.path)})
                })
                .collect();
            // Nobody else is in the container, whatever user its image has.
            service["secrets"] =
                secrets.iter().map(|(name, _)| json!({"source": name, "target": name, "mode": 0o444})).collect();
        }
        services.insert(spec.role.name().into(), service);
    }
    if let Some(spec) = influxdb {
        services.insert("database".into(), database_service(stack, spec));
    }
    // What is in a config cannot change, so that another content has another name.
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
        "secrets": secrets.iter().map(|(name, _)| ((*name).into(), json!({"file": format!("./{name}")}))).collect::<Map<_, _>>(),
    });
    let mut all = provisioning_files(&files, &format!("{FOLDER}/"));
    all.extend(secrets.into_iter().map(|(name, secret)| File::with_secret(name, secret.reveal(), Secrecy::Whole)));
    all.push(File::new("stack.yaml", yaml(&file)));
    all.push(readme::swarm(material));
    Ok(all)
}

/// Makes Clipper's database before Clipper does, so that Grafana can ask for it; ends then.
fn database_service(stack: &Stack, spec: &ContainerSpec) -> Value {
    let host = Role::Influxdb.name();
    json!({
        "image": spec.specification.image.to_string(),
        "entrypoint": ["influx", "-host", host, "-execute", escaped(&database(stack))],
        "networks": [NETWORK],
        "cap_drop": ["ALL"],
        "deploy": {"restart_policy": {"condition": "on-failure", "delay": "2s"}},
    })
}

/// What both formats say of a container.
fn service(spec: &ContainerSpec, environment: &Map<String, Value>) -> Value {
    let made = &spec.specification;
    let mut service = json!({
        "image": made.image.to_string(),
        "environment": environment,
        "volumes": [{"type": "volume", "source": spec.role.name(), "target": spec.role.data_path()}],
        "cap_drop": ["ALL"],
        "read_only": made.read_only,
        "logging": {"driver": "json-file", "options": BTreeMap::from(Specification::LOG_LIMIT)},
        "healthcheck": {
            "test": health(spec.role), "interval": "5s", "timeout": "5s", "retries": 12, "start_period": "2m",
        },
        "stop_grace_period": "30s",
    });
    // In this form, since a swarm overlooks the short one.
    if let Some(volumes) = service["volumes"].as_array_mut().filter(|_| made.read_only) {
        volumes.push(json!({"type": "tmpfs", "target": "/tmp"}));
    }
    service
}

/// Asks a server from inside its container, with what its images have.
fn health(role: Role) -> Value {
    match role {
        Role::Influxdb => json!(["CMD", "influx", "-execute", "SHOW DATABASES"]),
        Role::Grafana => {
            let url = format!("http://127.0.0.1:{}/api/health", role.port());
            json!(["CMD-SHELL", format!("wget -q -O /dev/null {url} || curl -sf -o /dev/null {url}")])
        }
    }
}

/// An environment, written so that nothing is put in the place of a variable.
fn literal(environment: BTreeMap<String, String>) -> Map<String, Value> {
    environment.into_iter().map(|(name, value)| (name, json!(escaped(&value)))).collect()
}

/// A text in which nothing is a variable.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}
