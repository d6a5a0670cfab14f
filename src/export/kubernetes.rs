//! Manifests for Kubernetes, with a kustomization.
//!
//! No cluster is contacted.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    File, INFLUXDB_PASSWORD_FILE, Material, PASSWORD_FILE, PROVISIONING, ProvisionedFile, Secrecy, database, from_file,
    home, provisioned, provisioning, readme, variable, yaml,
};
use crate::digest::fingerprint;
use crate::error::{Error, Result};
use crate::grafana::provisioning::INFLUXDB_PASSWORD;
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, Secret, Stack};

/// The file with the passwords.
pub(super) const SECRET: &str = "secret.yaml";
/// The line before the values in it.
const VALUES: &str = "stringData:\n";
/// The directory in which Grafana's container finds them.
const SECRETS: &str = "/etc/clipper-metrics";
/// The label of ConfigMaps and Jobs that names their export.
const EDITION: &str = "clipper-metrics/export";
/// The label of all objects.
const PART_OF: &str = "clipper-metrics";
/// The time in seconds for which a completed Job is kept.
const JOB_STAYS: u32 = 86_400;
/// The size limit of a ConfigMap.
const CONFIG_MAP_LIMIT: usize = 1 << 20;

/// The label selector for objects of other exports of the instance.
pub(super) fn outdated(stack: &Stack, content_hash: &str) -> String {
    format!(
        "app.kubernetes.io/part-of={PART_OF},app.kubernetes.io/instance={},{EDITION}!={content_hash}",
        stack.instance
    )
}

/// The name of a role's objects.
pub(super) fn object(stack: &Stack, role: Role) -> String {
    role.object_name(&stack.instance)
}

/// Checks the name: a Service's name begins with a letter, and no name ends with a dash.
pub(super) fn check_name(instance: &str) -> Result<()> {
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

pub(super) fn manifests(material: &Material<'_>) -> Result<Vec<File>> {
    let stack = material.stack;
    let influxdb = stack.container(Role::Influxdb);
    let url = material.influxdb_url(&object(stack, Role::Influxdb));
    let files = provisioning(material, &url, &variable(INFLUXDB_PASSWORD), false)?;
    let provisioned = provisioned(&files);
    let (mut maps, sources) = config_maps(stack, &provisioned)?;
    let mut jobs: Vec<Value> = influxdb.map(|spec| database_job(stack, spec)).into_iter().collect();
    let content_hash: String = maps.iter().chain(&jobs).map(Value::to_string).collect();
    let content_hash = fingerprint(content_hash.as_bytes());
    // The cluster keeps such objects of earlier exports, so these carry the hash of their content.
    for object in maps.iter_mut().chain(&mut jobs) {
        object["metadata"]["labels"][EDITION] = json!(content_hash);
    }
    let mut all: Vec<(String, Vec<Value>)> = Vec::new();
    if let Some(spec) = influxdb {
        all.push(("influxdb.yaml".into(), self::influxdb(material, spec)));
        all.push(("database.yaml".into(), jobs));
    }
    if let Some(spec) = stack.container(Role::Grafana) {
        let digest: String = provisioned.iter().map(|file| format!("{}\n{}", file.path, file.content)).collect();
        all.push(("grafana.yaml".into(), grafana(material, spec, &sources, &fingerprint(digest.as_bytes()))));
    }
    all.push(("provisioning.yaml".into(), maps));
    let mut resources: Vec<&str> = all.iter().map(|(path, _)| path.as_str()).chain([SECRET]).collect();
    resources.sort_unstable();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources,
    });
    let mut files = vec![File::new("kustomization.yaml", yaml(&kustomization))];
    files.push(File::with_secret(SECRET, secret(stack, &material.secrets()), Secrecy::Values));
    files.push(readme::kubernetes(material, &content_hash));
    for (path, objects) in all {
        let text: Vec<String> = objects.iter().map(yaml).collect();
        files.push(File::new(path, text.join("---\n")));
    }
    Ok(files)
}

/// Written line by line, so that [`password`] can parse it.
fn secret(stack: &Stack, secrets: &[(&str, &Secret)]) -> String {
    let head = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata(stack, &object(stack, Role::Grafana), Role::Grafana),
        "type": "Opaque",
    });
    let lines = secrets.iter().map(|(name, secret)| format!("  {name}: {}\n", json!(secret.reveal())));
    format!("{}{VALUES}{}", yaml(&head), lines.collect::<String>())
}

/// Grafana's password in an earlier Secret.
pub(super) fn password(secret: &str) -> Option<String> {
    let prefix = format!("  {PASSWORD_FILE}: ");
    let line = secret.lines().find_map(|line| line.strip_prefix(&prefix))?;
    serde_json::from_str(line).ok()
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
    json!({"name": name, "labels": all})
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
        let key = path.replace('/', ".");
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
        "containers": [server(spec, &environment(material.environment(spec, None)), "/ping", &[json!({"name": "data", "mountPath": role.data_path()})])],
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
    vec![service(stack, role), stateful_set(stack, role, pod, &json!({}), "10Gi"), policy]
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
    volumes.extend([
        json!({"name": "provisioning", "projected": {"sources": sources}}),
        json!({"name": "secrets", "secret": {"secretName": object(stack, role), "defaultMode": 0o440}}),
    ]);
    let mut environment = environment(variables);
    if material.influxdb_password.is_some() {
        let from = json!({"secretKeyRef": {"name": object(stack, role), "key": INFLUXDB_PASSWORD_FILE}});
        environment.push(json!({"name": INFLUXDB_PASSWORD, "valueFrom": from}));
    }
    let pod = json!({
        "containers": [server(spec, &environment, "/api/health", &mounts)],
        "volumes": volumes,
    });
    // Grafana reads the data source only at its start.
    let annotations = json!({"clipper-metrics/provisioning": digest});
    vec![service(stack, role), stateful_set(stack, role, pod, &annotations, "1Gi")]
}

/// The user of the role's images, which must own the volume.
const fn user(role: Role) -> u32 {
    match role {
        Role::Influxdb => 1500,
        Role::Grafana => 472,
    }
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

fn stateful_set(stack: &Stack, role: Role, mut pod: Value, annotations: &Value, storage: &str) -> Value {
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
fn server(spec: &DesiredContainer, environment: &[Value], path: &str, mounts: &[Value]) -> Value {
    let role = spec.role;
    let mut mounts = mounts.to_vec();
    mounts.push(json!({"name": "tmp", "mountPath": "/tmp"}));
    let probe = |period: u32, failures: u32| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures});
    let memory = match role {
        Role::Influxdb => "2Gi",
        Role::Grafana => "1Gi",
    };
    json!({
        "name": role.name(),
        "image": spec.specification.image.to_string(),
        "imagePullPolicy": "IfNotPresent",
        "env": environment,
        "ports": [{"name": "http", "containerPort": role.port(), "protocol": "TCP"}],
        // A new version migrates its database before it answers, and InfluxDB opens all its data:
        // half an hour.
        "startupProbe": probe(2, 900),
        "readinessProbe": probe(10, 3),
        "livenessProbe": probe(20, 6),
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": memory}},
        "securityContext": container_security(spec.specification.read_only),
        "volumeMounts": mounts,
    })
}

fn pod_security(role: Role) -> Value {
    let user = user(role);
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
    // A `$` before a parenthesis would begin a variable.
    let variables = variables.into_iter();
    variables.map(|(name, value)| json!({"name": name, "value": value.replace("$(", "$$(")})).collect()
}

/// A Job that creates Clipper's database before Clipper does, so that Grafana can query it. A Job
/// cannot change, so another one needs another name.
fn database_job(stack: &Stack, spec: &DesiredContainer) -> Value {
    let host = object(stack, Role::Influxdb);
    let labels = json!({"app.kubernetes.io/name": "database", "app.kubernetes.io/instance": stack.instance});
    let job = json!({
        "backoffLimit": 20,
        "ttlSecondsAfterFinished": JOB_STAYS,
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "restartPolicy": "OnFailure",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "securityContext": pod_security(Role::Influxdb),
                "containers": [{
                    "name": "database",
                    "image": spec.specification.image.to_string(),
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["influx", "-host", host, "-execute", database(stack).replace("$(", "$$(")],
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
                    "securityContext": container_security(true),
                    // The directory in which influx would store a history.
                    "env": [{"name": "HOME", "value": "/tmp"}],
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }],
                "volumes": temporary(),
            },
        },
    });
    let name = format!("{}-database-{}", stack.instance, fingerprint(job.to_string().as_bytes()));
    let mut about = metadata(stack, &name, Role::Influxdb);
    about["labels"]["app.kubernetes.io/name"] = json!("database");
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": job})
}
