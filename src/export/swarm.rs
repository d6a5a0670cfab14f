//! Files for Docker in swarm mode, with new volumes. Comments note where a swarm differs from Docker Compose.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::compose::{escaped, literal, service};
use super::readme::{backup, external, fill};
use super::{
    ExportFile, ExportFormat, ExportServers, FOLDER, INFLUXDB_PASSWORD_FILE, KeptSecret, Material, PASSWORD_FILE,
    PROVISIONING, ProvisionedFile, RESTORE_SCRIPTS, Secrecy, accept, database, directory, from_file, home, missing,
    provisioned, provisioning, provisioning_files, yaml,
};
use crate::digest::fingerprint;
use crate::error::{Error, Result};
use crate::model::invocation::shell_word;
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, Secret, Stack};

pub(super) static FORMAT: ExportFormat = ExportFormat {
    name: "swarm",
    target: "Swarm",
    help: "A stack file for `docker stack deploy`",
    servers: ExportServers::New,
    check: |_| Ok(()),
    kept_secret,
    files,
};

/// The directory in which a swarm mounts secrets.
const SECRETS: &str = "/run/secrets";
/// The size limit of a config that every swarm accepts, in bytes.
const CONFIG_LIMIT: usize = 500_000;
/// The file for `docker stack deploy`.
const STACK: &str = "stack.yaml";
/// The field of the stack file, ignored by a swarm, with the versions of secrets that are no longer exported.
const REMOVED_SECRETS: &str = "x-removed-secrets";
/// The network of a swarm's services.
const NETWORK: &str = "metrics";

fn files(material: &Material<'_>) -> Result<Vec<ExportFile>> {
    let stack = material.stack;
    let url = material.influxdb_url(Role::Influxdb.name());
    let influxdb_secret = from_file(&format!("{SECRETS}/{INFLUXDB_PASSWORD_FILE}"));
    let files = provisioning(material, &url, &influxdb_secret, false)?;
    if material.influxdb_password.is_some_and(|password| password.reveal().contains('$')) {
        return Err(Error::usage(
            "Grafana misreads a password with a $ in a swarm's secret",
            "give InfluxDB's user a password without $",
        ));
    }
    if material.influxdb_password.is_some_and(|password| password.reveal().trim() != password.reveal()) {
        return Err(Error::usage(
            "Grafana removes white space around a password in a swarm's secret",
            "give InfluxDB's user a password that neither begins nor ends with white space",
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
    let file = stack_file(material, &configs, &secrets, &secret_versions(material.directory, &secrets)?);
    let mut all = provisioning_files(&files, &format!("{FOLDER}/"));
    all.extend(
        secrets.into_iter().map(|(name, secret)| ExportFile::with_secret(name, secret.reveal(), Secrecy::Whole)),
    );
    if stack.container(Role::Influxdb).is_some() {
        let scripts = RESTORE_SCRIPTS.into_iter();
        all.extend(scripts.map(|(role, script)| ExportFile::new(format!("restore/{role}.sh"), script)));
    }
    all.push(ExportFile::new(STACK, yaml(&file)));
    all.push(readme(material));
    Ok(all)
}

fn stack_file(
    material: &Material<'_>,
    configs: &[ProvisionedFile],
    secrets: &[(&'static str, &Secret)],
    versions: &SecretVersions,
) -> Value {
    let stack = material.stack;
    let mut services = Map::new();
    let mut volumes = Map::new();
    for spec in Role::ALL.into_iter().filter_map(|role| stack.container(role)) {
        let mut service = swarm_service(material, spec);
        if spec.role == Role::Grafana {
            serve_grafana(&mut service, stack, spec, configs, secrets);
        }
        services.insert(spec.role.name().into(), service);
        volumes.insert(spec.role.name().into(), json!({}));
    }
    if let Some(spec) = stack.container(Role::Influxdb) {
        services.insert("database".into(), database_service(stack, spec));
    }
    // A config's content cannot change, so other content needs another name.
    let config = |(index, file): (usize, &ProvisionedFile)| {
        let name = format!("{}-{}", stack.instance, fingerprint(file.content.as_bytes()));
        (format!("config-{index}"), json!({"name": name, "file": format!("./{FOLDER}/{}", file.path)}))
    };
    let secret = |(name, _): &(&'static str, &Secret)| {
        let version = versions.get(*name).copied().unwrap_or(1);
        let named = format!("{}-{name}-{version}", stack.instance);
        ((*name).to_string(), json!({"name": named, "file": format!("./{name}")}))
    };
    let removed = versions.iter().filter(|(name, _)| !secrets.iter().any(|(own, _)| own == name));
    let mut file = json!({
        "version": "3.8",
        "services": services,
        "networks": {NETWORK: {"driver": "overlay", "attachable": true}},
        "volumes": volumes,
        "configs": configs.iter().enumerate().map(config).collect::<Map<_, _>>(),
        "secrets": secrets.iter().map(secret).collect::<Map<_, _>>(),
    });
    let removed: Map<String, Value> = removed.map(|(name, version)| (name.clone(), json!(version))).collect();
    if !removed.is_empty() {
        file[REMOVED_SECRETS] = json!(removed);
    }
    file
}

/// The service of a server.
fn swarm_service(material: &Material<'_>, spec: &DesiredContainer) -> Value {
    let from_secret = from_file(&format!("{SECRETS}/{PASSWORD_FILE}"));
    let mut service = service(spec, &literal(material.open_environment(spec, Some(from_secret))));
    service["networks"] = json!([NETWORK]);
    // A swarm kills unhealthy tasks, and InfluxDB is unhealthy while it opens much data,
    // Grafana while it migrates its database.
    service["healthcheck"]["start_period"] = json!("30m");
    service["deploy"] = json!({
        "replicas": 1,
        // A volume exists on one node, and two servers must never use it at the same time.
        "placement": {"constraints": [format!("node.labels.{} == true", material.stack.instance)]},
        // A single task needs no virtual address, which would drop idle connections.
        "endpoint_mode": "dnsrr",
        // The previous task, with its configs and secrets, returns if the new one fails within a minute.
        "update_config": {"order": "stop-first", "failure_action": "rollback", "monitor": "60s"},
        "rollback_config": {"order": "stop-first"},
        "restart_policy": {"condition": "any", "delay": "2s"},
    });
    service
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

/// The version of each secret by its file's name, also of secrets that are no longer exported: a swarm may still have
/// them. A swarm's secret cannot change, so a changed one needs another name. That name is public, so it contains a
/// counter and no digest of the secret.
type SecretVersions = BTreeMap<String, u32>;

/// The parts of an exported stack file that the next export continues.
#[derive(Default, Deserialize)]
#[serde(default)]
struct EarlierStack {
    secrets: BTreeMap<String, SwarmSecret>,
    #[serde(rename = "x-removed-secrets")]
    removed: SecretVersions,
}

#[derive(Deserialize)]
struct SwarmSecret {
    name: String,
}

/// The versions of these secrets in a directory that may contain an earlier export.
fn secret_versions(folder: &Path, secrets: &[(&'static str, &Secret)]) -> Result<SecretVersions> {
    let earlier = directory::read(folder, STACK)?;
    // Without the stack file that listed them, no number in use is known; a time in seconds is greater than all.
    let is_lost = earlier.is_none() && directory::lists(folder, STACK)?;
    let first = if is_lost { seconds() } else { 1 };
    let earlier: EarlierStack = earlier.and_then(|text| serde_saphyr::from_str(&text).ok()).unwrap_or_default();
    let version = |secret: &SwarmSecret| secret.name.rsplit_once('-')?.1.parse().ok();
    let mut versions = earlier.removed;
    versions.extend(earlier.secrets.iter().filter_map(|(name, secret)| Some((name.clone(), version(secret)?))));
    // A run that died may have replaced a secret and not the stack file.
    let is_interrupted = directory::is_interrupted(folder, STACK)?;
    for (name, secret) in secrets {
        let is_same = directory::read(folder, name)?.as_deref() == Some(secret.reveal()) && !is_interrupted;
        let next = |last: u32| if is_same { last } else { last.saturating_add(1) };
        let new = versions.get(*name).copied().map_or(first, next);
        versions.insert((*name).to_string(), new);
    }
    Ok(versions)
}

/// The time in seconds since 1970.
fn seconds() -> u32 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn kept_secret(folder: &Path) -> Result<KeptSecret> {
    if !directory::lists(folder, PASSWORD_FILE)? {
        return Ok(KeptSecret::Nothing);
    }
    match (directory::read(folder, PASSWORD_FILE)?, directory::read(folder, STACK)?) {
        (Some(text), _) => accept(folder, PASSWORD_FILE, text.trim()),
        // The export was interrupted before it could be deployed: secrets are written first.
        (None, None) if !directory::has_exported_files(folder)? => Ok(KeptSecret::Nothing),
        (None, _) => {
            let hint = "restore it, or supply the password with --grafana-password-file";
            Err(missing(folder, PASSWORD_FILE, hint))
        }
    }
}

fn readme(material: &Material<'_>) -> ExportFile {
    let stack = material.stack;
    let text = include_str!("../../assets/export/swarm.md");
    let is_ours = stack.container(Role::Influxdb).is_some();
    let service = format!(
        "The service `database` creates Clipper's database{} and exits: it is complete with 0 of 1 tasks. ",
        if stack.retention.is_some() { " with its retention period" } else { "" }
    );
    let network = format!("{}_{NETWORK}", stack.instance);
    let secret = if material.influxdb_password.is_some() {
        " The password of its user is in `influxdb-password`, which only you can read."
    } else {
        ""
    };
    let influxdb = format!(
        "\nInfluxDB has no password, so it is **not published**. Clipper joins the network `{network}` \
         (`docker run --network {network} …`, or `docker service create --network {network} …`), which only containers \
         of this swarm can do, and finds it as `influx_ip = \"influxdb\"`, `influx_port = 8086` in its file. Every \
         container in that network has access.\n"
    );
    let change = if stack.data_source.user.is_empty() {
        String::new()
    } else {
        let command = stack.command("export swarm DIRECTORY --influxdb-password-file FILE");
        format!("To change the password of InfluxDB's user, supply it with the next export: `{command}`. ")
    };
    fill(
        text,
        material,
        &[
            ("move", if is_ours { include_str!("../../assets/export/swarm-move.md").into() } else { String::new() }),
            ("backup", backup(stack)),
            ("influxdb_image", image(stack, Role::Influxdb)),
            ("grafana_image", image(stack, Role::Grafana)),
            ("change", change),
            ("database_service", if is_ours { service } else { String::new() }),
            ("influxdb", if is_ours { influxdb } else { format!("{}{secret}\n", external(stack).trim_end()) }),
        ],
    )
}

fn image(stack: &Stack, role: Role) -> String {
    let image = stack.container(role).map(|spec| spec.config.image.to_string());
    shell_word(&image.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Secrecy;
    use crate::export::directory::Subject;

    const NAME: &str = INFLUXDB_PASSWORD_FILE;

    /// The files of an export with this password.
    fn files(folder: &Path, password: Option<&str>) -> (u32, Vec<ExportFile>) {
        let secret = password.map(|password| Secret::new(password.to_string()));
        let secrets: Vec<_> = secret.iter().map(|secret| (NAME, secret)).collect();
        let versions = secret_versions(folder, &secrets).unwrap();
        let version = versions[NAME];
        let stack = match &secret {
            Some(_) => json!({"secrets": {NAME: {"name": format!("x-{NAME}-{version}")}}}),
            None => json!({REMOVED_SECRETS: versions}),
        };
        let secrets =
            secrets.iter().map(|(name, secret)| ExportFile::with_secret(*name, secret.reveal(), Secrecy::Whole));
        (version, secrets.chain([ExportFile::new(STACK, yaml(&stack))]).collect())
    }

    fn export(folder: &Path, password: Option<&str>) -> u32 {
        let subject = Subject { format: "swarm", instance: "x".into(), is_complete: true };
        let (version, files) = files(folder, password);
        directory::write(folder, &subject, &files).unwrap();
        version
    }

    #[test]
    fn a_secret_gets_another_name_whenever_its_content_may_differ() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!([Some("a"), Some("a"), Some("b")].map(|password| export(folder, password)), [1, 1, 2]);
        // A swarm may still have a secret that is no longer exported.
        assert_eq!([None, None, Some("b"), Some("b")].map(|password| export(folder, password)), [2, 2, 3, 3]);
        // An export that died after it had replaced the secret.
        let list = folder.join(".clipper-metrics-export");
        let before = std::fs::read_to_string(&list).unwrap();
        let stack = std::fs::read(folder.join(STACK)).unwrap();
        assert_eq!(export(folder, Some("c")), 4);
        let after = std::fs::read_to_string(&list).unwrap();
        std::fs::write(&list, before + after.split_once('\n').unwrap().1).unwrap();
        std::fs::write(folder.join(STACK), stack).unwrap();
        assert_eq!([export(folder, Some("c")), export(folder, Some("c"))], [4, 4]);
        // A user has moved the stack file away: the numbers in use are unknown.
        std::fs::remove_file(folder.join(STACK)).unwrap();
        let next = export(folder, Some("c"));
        assert!(next > 1_000_000_000, "{next}");
        assert_eq!([export(folder, Some("c")), export(folder, Some("d"))], [next, next + 1]);
    }
}
