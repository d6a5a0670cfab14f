//! Manifests for Kubernetes, with a kustomization.
//!
//! No cluster is contacted.

mod readme;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::readme::readme;
use super::{
    ExportFile, ExportFormat, ExportServers, INFLUXDB_PASSWORD_FILE, KeptSecret, Material, PASSWORD_FILE, PROVISIONING,
    ProvisionedFile, RESTORE_SCRIPTS, Secrecy, accept, database, directory, from_file, home, missing, provisioned,
    provisioning, variable, yaml,
};
use crate::digest::fingerprint;
use crate::error::{Error, Result};
use crate::grafana::provisioning::INFLUXDB_PASSWORD;
use crate::model::role::{Resources, Role};
use crate::model::stack::{DesiredContainer, Secret, Stack};

pub(super) static FORMAT: ExportFormat = ExportFormat {
    name: "kubernetes",
    target: "Kubernetes",
    help: "Manifests and a kustomization",
    servers: ExportServers::New,
    check: |stack| check_name(&stack.instance),
    kept_secret,
    files: manifests,
};

/// The file with the passwords.
const SECRET: &str = "secret.yaml";
/// The file that lists the objects, and the file with the passwords unless another source provides them.
const KUSTOMIZATION: &str = "kustomization.yaml";
/// The line before the values in a Secret.
const VALUES: &str = "stringData:\n";
/// The directory in which Grafana's container finds them.
const SECRETS: &str = "/etc/clipper-metrics";
/// The label that names an object's export, for all objects but the Secret, which another tool may manage.
const EDITION: &str = "clipper-metrics/export";
/// The kinds of the objects with that label.
const KINDS: &str = "configmap,job,networkpolicy,service,statefulset";
/// The value of labels of all objects.
const PART_OF: &str = "clipper-metrics";
/// The folder of the pods that restore a backup.
const RESTORE: &str = "restore";
/// The directory in which they find their scripts.
const SCRIPTS: &str = "/restore";
/// The time in seconds after which a forgotten pod ends.
const RESTORE_STAYS: u32 = 86_400;
/// The time in seconds for which a completed Job is kept.
const JOB_STAYS: u32 = 86_400;
/// The file with Grafana's files.
const CONFIG_MAPS: &str = "provisioning.yaml";
/// The size limit of a ConfigMap.
const CONFIG_MAP_LIMIT: usize = 1 << 20;

/// The command's arguments that delete the objects of other exports of the instance.
fn outdated(stack: &Stack, content_hash: &str) -> String {
    format!(
        "{KINDS} --selector 'app.kubernetes.io/part-of={PART_OF},app.kubernetes.io/instance={},{EDITION}!={content_hash}'",
        stack.instance
    )
}

/// The selector of the Jobs that create the database.
fn database_jobs(stack: &Stack) -> String {
    format!(
        "app.kubernetes.io/part-of={PART_OF},app.kubernetes.io/instance={},app.kubernetes.io/name=database",
        stack.instance
    )
}

/// The name of a role's objects.
fn object(stack: &Stack, role: Role) -> String {
    role.object_name(&stack.instance)
}

/// Checks the name: a Service's name begins with a letter, and no name ends with a dash.
fn check_name(instance: &str) -> Result<()> {
    if instance.starts_with(|c: char| c.is_ascii_digit()) || instance.ends_with('-') {
        return Err(Error::usage(
            format!(
                "{instance:?} is not a valid name in Kubernetes: names begin with a letter and do not end with a dash"
            ),
            "choose another --name",
        ));
    }
    Ok(())
}

fn manifests(material: &Material<'_>) -> Result<Vec<ExportFile>> {
    let stack = material.stack;
    let influxdb = stack.container(Role::Influxdb);
    let url = material.influxdb_url(&object(stack, Role::Influxdb));
    let files = provisioning(material, &url, &variable(INFLUXDB_PASSWORD), false)?;
    let provisioned = provisioned(&files);
    let (maps, sources) = config_maps(stack, &provisioned)?;
    let mut all: Vec<(&str, Vec<Value>)> = Vec::new();
    if let Some(spec) = influxdb {
        all.push(("influxdb.yaml", self::influxdb(material, spec)));
        all.push(("database.yaml", vec![database_job(stack, spec)]));
    }
    if let Some(spec) = stack.container(Role::Grafana) {
        let digest: String = provisioned.iter().map(|file| format!("{}\n{}", file.path, file.content)).collect();
        all.push(("grafana.yaml", grafana(material, spec, &sources, &fingerprint(digest.as_bytes()))));
    }
    all.push((CONFIG_MAPS, maps));
    // The cluster keeps objects of earlier exports, so all carry the hash of their export.
    let content: String = all.iter().flat_map(|(_, objects)| objects).map(Value::to_string).collect();
    let content_hash = fingerprint(content.as_bytes());
    for object in all.iter_mut().flat_map(|(_, objects)| objects) {
        object["metadata"]["labels"][EDITION] = json!(content_hash);
    }
    let mut resources: Vec<&str> = all.iter().map(|(path, _)| *path).collect();
    let secret = match material.own_secret {
        None => Some(ExportFile::with_secret(SECRET, secret(stack, &material.secrets()), Secrecy::Values)),
        Some(OwnSecret::File(text)) => Some(ExportFile::with_secret(SECRET, text, Secrecy::Whole)),
        Some(OwnSecret::Elsewhere) => None,
    };
    resources.extend(secret.iter().map(|_| SECRET));
    resources.sort_unstable();
    let mut files = vec![ExportFile::new(KUSTOMIZATION, yaml(&kustomization(&resources)))];
    files.extend(secret);
    files.push(readme(material, &content_hash));
    if let (Some(influxdb), Some(grafana)) = (stack.container(Role::Influxdb), stack.container(Role::Grafana)) {
        files.push(ExportFile::new(format!("{RESTORE}/{KUSTOMIZATION}"), yaml(&kustomization(&["pods.yaml"]))));
        files.push(ExportFile::new(format!("{RESTORE}/pods.yaml"), documents(&restore(stack, influxdb, grafana))));
    }
    files.extend(all.into_iter().map(|(path, objects)| ExportFile::new(path, documents(&objects))));
    Ok(files)
}

fn kustomization(resources: &[&str]) -> Value {
    json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources})
}

fn documents(objects: &[Value]) -> String {
    objects.iter().map(yaml).collect::<Vec<_>>().join("---\n")
}

/// Written line by line, so that [`without_values`] recognizes it.
fn secret(stack: &Stack, secrets: &[(&str, &Secret)]) -> String {
    let head = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata(stack, &object(stack, Role::Grafana), Role::Grafana),
        "type": "Opaque",
    });
    let lines = secrets.iter().map(|(name, secret)| format!("  {name}: {}\n", json!(secret.reveal())));
    format!("{}{VALUES}{}", yaml(&head), lines.collect::<String>())
}

#[derive(Deserialize)]
struct EarlierKustomization {
    #[serde(default)]
    resources: Vec<String>,
}

/// Whether a kustomization lists the export's Secret.
fn lists_secret(kustomization: &str) -> bool {
    let kustomization = serde_saphyr::from_str::<EarlierKustomization>(kustomization);
    kustomization.is_ok_and(|kustomization| kustomization.resources.iter().any(|path| path == SECRET))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KubernetesSecret {
    string_data: BTreeMap<String, Value>,
}

/// Grafana's password in a Secret that an export wrote, even if a user has replaced it without quotes.
fn password(secret: &str) -> Option<String> {
    let secret: KubernetesSecret = serde_saphyr::from_str(secret).ok()?;
    secret.string_data.get(PASSWORD_FILE)?.as_str().map(Into::into)
}

/// A Secret that is not from the export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnSecret {
    /// The user's file in place of the exported one, such as an encrypted one; its content is kept.
    File(String),
    /// The file and its line in the kustomization were removed: the cluster has the Secret from another source.
    Elsewhere,
}

impl OwnSecret {
    /// The export does not write a supplied password to a file that a user has replaced.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is such a file.
    pub(crate) fn expect_replaceable(&self) -> Result<()> {
        match self {
            Self::File(_) => Err(Error::usage(
                "secret.yaml was replaced after the last export, so the export does not write a password to it",
                "write the password to your own file, or remove secret.yaml to have it exported again",
            )),
            Self::Elsewhere => Ok(()),
        }
    }

    /// What the user provides if the export contains no Secret.
    pub(crate) fn note(&self, stack: &Stack) -> Option<String> {
        (*self == Self::Elsewhere).then(|| {
            format!(
                "the export contains no Secret, because kustomization.yaml does not list secret.yaml: the cluster \
                 needs the Secret {} from another source; --grafana-password-file writes the file again",
                object(stack, Role::Grafana)
            )
        })
    }
}

fn kept_secret(folder: &Path) -> Result<KeptSecret> {
    if !directory::is_export(folder, FORMAT.name)? {
        return Ok(KeptSecret::Nothing);
    }
    match (directory::read(folder, SECRET)?, directory::read(folder, KUSTOMIZATION)?) {
        (Some(text), _) => {
            let digest = fingerprint(without_values(&text).as_bytes());
            let is_exported = directory::lists_digest(folder, SECRET, &digest)?;
            match password(&text).filter(|_| is_exported) {
                Some(password) => accept(folder, SECRET, &password),
                None => Ok(KeptSecret::Own(OwnSecret::File(text))),
            }
        }
        (None, None) if directory::has_exported_files(folder)? => {
            let hint = "restore it, or supply the password with --grafana-password-file; if the Secret comes from another \
                        source, restore kustomization.yaml without its line";
            Err(missing(folder, SECRET, hint))
        }
        (None, None) => Ok(KeptSecret::Nothing),
        (None, Some(listing)) if lists_secret(&listing) => {
            let hint = "restore it, supply the password with --grafana-password-file, or remove its line from \
                        kustomization.yaml if the Secret comes from another source";
            Err(missing(folder, SECRET, hint))
        }
        (None, Some(_)) => Ok(KeptSecret::Own(OwnSecret::Elsewhere)),
    }
}

/// A Secret without its values, for comparing.
pub(super) fn without_values(secret: &str) -> String {
    let (head, values) = secret.split_once(VALUES).unwrap_or((secret, ""));
    let keys = values.lines().map(|line| line.split(": ").next().unwrap_or_default().to_string() + "\n");
    format!("{head}{VALUES}{}", keys.collect::<String>())
}

fn labels(stack: &Stack, role: Role) -> Value {
    json!({"app.kubernetes.io/name": role.name(), "app.kubernetes.io/instance": stack.instance})
}

fn metadata(stack: &Stack, name: &str, role: Role) -> Value {
    let mut all = labels(stack, role);
    all["app.kubernetes.io/part-of"] = json!(PART_OF);
    all["app.kubernetes.io/managed-by"] = json!(PART_OF);
    json!({"name": name, "labels": all})
}

/// The key of a file in a ConfigMap.
fn key(path: &str) -> String {
    path.replace('/', ".")
}

/// The file of the data source in an earlier export.
pub(super) fn earlier_source(stack: &Stack, folder: &Path) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Map {
        #[serde(default)]
        data: BTreeMap<String, String>,
    }
    let text = directory::read(folder, CONFIG_MAPS)?.unwrap_or_default();
    let maps = text.split("\n---\n").filter_map(|map| serde_saphyr::from_str::<Map>(map).ok());
    Ok(maps.flat_map(|map| map.data).find_map(|(name, text)| (name == key(&super::source_file(stack))).then_some(text)))
}

/// Grafana's files: one ConfigMap for provisioning, one for each dashboard, and the mount of every file.
fn config_maps(stack: &Stack, files: &[ProvisionedFile]) -> Result<(Vec<Value>, Vec<Value>)> {
    let name = format!("{}-provisioning", object(stack, Role::Grafana));
    let mut maps: Vec<(String, Map<String, Value>, Vec<Value>)> = vec![(name.clone(), Map::new(), Vec::new())];
    for ProvisionedFile { path, content, is_dashboard } in files {
        if content.len() > CONFIG_MAP_LIMIT - 1024 {
            return Err(Error::usage(
                format!("{path} is too large for a ConfigMap of Kubernetes"),
                "split that dashboard",
            ));
        }
        let key = key(path);
        let at = if *is_dashboard {
            maps.push((format!("{}-dashboard-{}", object(stack, Role::Grafana), maps.len()), Map::new(), Vec::new()));
            maps.len() - 1
        } else {
            0
        };
        maps[at].1.insert(key.clone(), json!(content));
        maps[at].2.push(json!({"key": key, "path": path}));
    }
    let sources = maps.iter().map(|(name, _, items)| json!({"configMap": {"name": name, "items": items}})).collect();
    let maps = maps.iter().map(|(name, data, _)| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(stack, name, Role::Grafana), "data": data})
    });
    Ok((maps.collect(), sources))
}

fn influxdb(material: &Material<'_>, spec: &DesiredContainer) -> Vec<Value> {
    let (stack, role) = (material.stack, Role::Influxdb);
    let pod = json!({
        "containers": [server(spec, &environment(material.environment(spec, None)), &[json!({"name": "data", "mountPath": role.data_path()})])],
        "volumes": temporary(),
    });
    // InfluxDB requires no password, so only pods in the same namespace may connect.
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": metadata(stack, &object(stack, role), role),
        "spec": {
            "podSelector": {"matchLabels": labels(stack, role)},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": role.port()}]}],
        },
    });
    vec![service(stack, role), stateful_set(stack, role, pod, &json!({})), policy]
}

fn grafana(material: &Material<'_>, spec: &DesiredContainer, sources: &[Value], digest: &str) -> Vec<Value> {
    let stack = material.stack;
    let role = Role::Grafana;
    let mut variables = material.open_environment(spec, Some(from_file(&format!("{SECRETS}/{PASSWORD_FILE}"))));
    variables.insert("GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH".into(), home(stack));
    let mounts = [
        json!({"name": "data", "mountPath": role.data_path()}),
        json!({"name": "provisioning", "mountPath": PROVISIONING, "readOnly": true}),
        json!({"name": "secrets", "mountPath": SECRETS, "readOnly": true}),
    ];
    let mut volumes = temporary();
    volumes.extend([json!({"name": "provisioning", "projected": {"sources": sources}}), secrets_volume(stack)]);
    let mut environment = environment(variables);
    if !stack.data_source.user.is_empty() {
        let from = json!({"secretKeyRef": {"name": object(stack, role), "key": INFLUXDB_PASSWORD_FILE}});
        environment.push(json!({"name": INFLUXDB_PASSWORD, "valueFrom": from}));
    }
    let pod = json!({
        "containers": [server(spec, &environment, &mounts)],
        "volumes": volumes,
    });
    // Grafana reads the data source only at its start.
    let annotations = json!({"clipper-metrics/provisioning": digest});
    vec![service(stack, role), stateful_set(stack, role, pod, &annotations)]
}

fn secrets_volume(stack: &Stack) -> Value {
    json!({"name": "secrets", "secret": {"secretName": object(stack, Role::Grafana), "defaultMode": 0o440}})
}

/// The metadata of an object that only restores a backup.
fn restore_metadata(stack: &Stack, suffix: &str, role: Role) -> Value {
    let mut about = metadata(stack, &format!("{}-restore{suffix}", stack.instance), role);
    // A Service selects servers by this label.
    about["labels"]["app.kubernetes.io/name"] = json!("restore");
    about
}

/// Pods that fill the servers' volumes from a backup, and their scripts. There are two, because the volumes may be
/// on different nodes.
fn restore(stack: &Stack, influxdb: &DesiredContainer, grafana: &DesiredContainer) -> Vec<Value> {
    let scripts: Map<String, Value> =
        RESTORE_SCRIPTS.into_iter().map(|(role, script)| (role.name().into(), json!(script))).collect();
    let about = restore_metadata(stack, "", Role::Influxdb);
    let scripts = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": scripts});
    let secrets = json!({"name": "secrets", "mountPath": SECRETS, "readOnly": true});
    vec![
        scripts,
        restore_pod(stack, influxdb, Vec::new(), Vec::new()),
        restore_pod(stack, grafana, vec![secrets], vec![secrets_volume(stack)]),
    ]
}

fn restore_pod(stack: &Stack, spec: &DesiredContainer, mut mounts: Vec<Value>, more: Vec<Value>) -> Value {
    let role = spec.role;
    mounts.extend([
        json!({"name": "data", "mountPath": role.data_path()}),
        json!({"name": "scripts", "mountPath": SCRIPTS, "readOnly": true}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
    ]);
    let mut volumes = temporary();
    volumes.extend([
        json!({"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{}-0", object(stack, role))}}),
        json!({"name": "scripts", "configMap": {"name": format!("{}-restore", stack.instance)}}),
    ]);
    volumes.extend(more);
    let mut environment = environment(spec.config.environment.clone());
    environment.push(json!({"name": "HOME", "value": "/tmp"}));
    let server = json!({
        "labelSelector": {"matchLabels": labels(stack, role)}, "topologyKey": "kubernetes.io/hostname",
    });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": restore_metadata(stack, &format!("-{role}"), role),
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": RESTORE_STAYS,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": pod_security(role),
            // Neither pod starts beside the other: two servers on one volume would corrupt it.
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [server]}},
            "containers": [{
                "name": role.name(),
                "image": spec.config.image.to_string(),
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", format!("sleep {RESTORE_STAYS} & wait")],
                "env": environment,
                "resources": resources(role),
                "securityContext": container_security(spec.config.read_only),
                "volumeMounts": mounts,
            }],
            "volumes": volumes,
        },
    })
}

fn service(stack: &Stack, role: Role) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(stack, &object(stack, role), role),
        "spec": {
            "type": "ClusterIP", "selector": labels(stack, role),
            "ports": [{"name": "http", "port": role.port(), "targetPort": "http", "protocol": "TCP"}],
        },
    })
}

fn stateful_set(stack: &Stack, role: Role, mut pod: Value, annotations: &Value) -> Value {
    let storage = role.facts().resources.storage;
    pod["securityContext"] = pod_security(role);
    pod["automountServiceAccountToken"] = json!(false);
    pod["enableServiceLinks"] = json!(false);
    pod["terminationGracePeriodSeconds"] = json!(60);
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata(stack, &object(stack, role), role),
        "spec": {
            "serviceName": object(stack, role), "replicas": 1,
            "selector": {"matchLabels": labels(stack, role)},
            "template": {"metadata": {"labels": labels(stack, role), "annotations": annotations}, "spec": pod},
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}},
            }],
        },
    })
}

/// The parts of a server's container that do not depend on its role.
fn server(spec: &DesiredContainer, environment: &[Value], mounts: &[Value]) -> Value {
    let role = spec.role;
    let path = role.facts().health_path;
    let mut mounts = mounts.to_vec();
    mounts.push(json!({"name": "tmp", "mountPath": "/tmp"}));
    let probe = |period: u32, failures: u32| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures});
    json!({
        "name": role.name(),
        "image": spec.config.image.to_string(),
        "imagePullPolicy": "IfNotPresent",
        "env": environment,
        "ports": [{"name": "http", "containerPort": role.port(), "protocol": "TCP"}],
        // A new version migrates its database before it answers, and InfluxDB opens all its data:
        // half an hour.
        "startupProbe": probe(2, 900),
        "readinessProbe": probe(10, 3),
        "livenessProbe": probe(20, 6),
        "resources": resources(role),
        "securityContext": container_security(spec.config.read_only),
        "volumeMounts": mounts,
    })
}

fn resources(role: Role) -> Value {
    let Resources { processor, memory, memory_limit, .. } = role.facts().resources;
    json!({"requests": {"cpu": processor, "memory": memory}, "limits": {"memory": memory_limit}})
}

fn pod_security(role: Role) -> Value {
    let user = role.facts().user;
    json!({
        "runAsNonRoot": true, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    })
}

fn container_security(read_only: bool) -> Value {
    json!({
        "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"]},
    })
}

fn temporary() -> Vec<Value> {
    vec![json!({"name": "tmp", "emptyDir": {}})]
}

fn environment(variables: BTreeMap<String, String>) -> Vec<Value> {
    let variables = variables.into_iter();
    variables.map(|(name, value)| json!({"name": name, "value": literally(&value)})).collect()
}

/// A text that Kubernetes does not change in a variable or an argument: there, `$(` begins a variable, and `$$` is one
/// dollar sign.
fn literally(text: &str) -> String {
    text.replace('$', "$$")
}

/// A Job that creates Clipper's database before Clipper does, so that Grafana can query it. A Job
/// cannot change, so another one needs another name.
fn database_job(stack: &Stack, spec: &DesiredContainer) -> Value {
    let host = object(stack, Role::Influxdb);
    let labels = json!({"app.kubernetes.io/name": "database", "app.kubernetes.io/instance": stack.instance});
    let container = |name: &str, command: Value| {
        json!({
            "name": name,
            "image": spec.config.image.to_string(),
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
            "securityContext": container_security(true),
            // The directory in which influx would store a history.
            "env": [{"name": "HOME", "value": "/tmp"}],
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        })
    };
    // The server may take any time to start, because its image is pulled or its data is opened. Attempts of the Job
    // are limited, and are left for the statements.
    let wait = json!([
        "sh",
        "-c",
        "until influx -host \"$0\" -execute 'SHOW DATABASES' >/dev/null 2>&1; do sleep 1; done",
        host,
    ]);
    let job = json!({
        "ttlSecondsAfterFinished": JOB_STAYS,
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "restartPolicy": "OnFailure",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "securityContext": pod_security(Role::Influxdb),
                "initContainers": [container("wait", wait)],
                "containers": [container(
                    "database",
                    json!(["influx", "-host", host, "-execute", literally(&database(stack))]),
                )],
                "volumes": temporary(),
            },
        },
    });
    let name = format!("{}-database-{}", stack.instance, fingerprint(job.to_string().as_bytes()));
    let mut about = metadata(stack, &name, Role::Influxdb);
    about["labels"]["app.kubernetes.io/name"] = json!("database");
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": job})
}
