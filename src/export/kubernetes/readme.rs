//! The README of an export for Kubernetes.

use super::super::readme::{backup, external, fill};
use super::super::{ExportFile, Material};
use super::{database_jobs, object, outdated};
use crate::model::role::Role;
use crate::model::stack::Stack;

pub(super) fn readme(material: &Material<'_>, content_hash: &str) -> ExportFile {
    let stack = material.stack;
    let is_ours = stack.container(Role::Influxdb).is_some();
    let mut servers = Role::ALL.into_iter().filter_map(|role| stack.container(role));
    let pods: Vec<String> = servers.clone().map(|spec| format!("{}-0", object(stack, spec.role))).collect();
    let is_read_only = servers.all(|spec| spec.config.read_only);
    let only_if_ours = |text: &str| if is_ours { text.to_string() } else { String::new() };
    fill(
        include_str!("../../../assets/export/kubernetes.md"),
        material,
        &[
            ("move", only_if_ours(include_str!("../../../assets/export/kubernetes-move.md"))),
            ("backup", backup(stack)),
            ("password", grafana_password(material)),
            ("secret", secret(material)),
            ("claims", claims(is_ours).into()),
            ("job", database_jobs(stack)),
            ("pods", pods.join("` or `kubectl delete pod ")),
            ("database", only_if_ours(&database(stack))),
            ("overlay", only_if_ours(JOB_OVERLAY)),
            ("restore_overlay", only_if_ours(RESTORE_OVERLAY)),
            ("restore_use", only_if_ours(", and `--kustomize ../overlay/restore` in place of `--kustomize restore`")),
            ("claim_size", only_if_ours(&claim_size_overlay(stack))),
            ("job_change", only_if_ours(&job_change(stack))),
            ("outdated", outdated(stack, content_hash)),
            ("uid", stack.dashboard.uid.clone()),
            ("influxdb", if is_ours { influxdb(stack) } else { external(stack) }),
            ("read_only", if is_read_only { " and with a read-only root".into() } else { String::new() }),
        ],
    )
}

/// How Clipper reaches InfluxDB in the cluster.
fn influxdb(stack: &Stack) -> String {
    format!(
        "\nInfluxDB has no password. A NetworkPolicy admits only pods of the same namespace; the cluster's network \
         must support that. Clipper runs there and finds it as `influx_ip = \"{}\"`, `influx_port = 8086` in its \
         file.\n",
        object(stack, Role::Influxdb)
    )
}

const fn claims(has_influxdb: bool) -> &'static str {
    if has_influxdb {
        "The volume claims, 10 GiB for InfluxDB and 1 GiB for Grafana, use the cluster's default StorageClass and stay \
         when the StatefulSets are deleted."
    } else {
        "The volume claim, 1 GiB for Grafana, uses the cluster's default StorageClass and stays when the StatefulSet \
         is deleted."
    }
}

fn database(stack: &Stack) -> String {
    let again = if stack.retention.is_some() {
        "sets the retention period of this export again"
    } else {
        "leaves the retention period as it is"
    };
    format!(
        " The Job `database` waits for InfluxDB, however long its image takes to be pulled. It is deleted a day after it \
         has created the database. Applying the files again repeats it, which {again}."
    )
}

fn job_change(stack: &Stack) -> String {
    let job = database_jobs(stack);
    format!(
        "\nA Job cannot change. After the first start, run `kubectl delete job --selector {job}` before you apply an \
         overlay that changes it.\n"
    )
}

const JOB_OVERLAY: &str = "  - target: {kind: Job}\n    patch: |\n      - {op: add, path: \
                           /spec/template/spec/imagePullSecrets, value: [{name: registry}]}\n";

fn claim_size_overlay(stack: &Stack) -> String {
    format!(
        "  - target: {{kind: StatefulSet, name: {}}}\n    patch: |\n      - {{op: replace, path: \
         /spec/volumeClaimTemplates/0/spec/resources/requests/storage, value: 100Gi}}\n",
        object(stack, Role::Influxdb)
    )
}

/// The overlay for the pods that restore a backup, which need the same nodes and registries as the servers.
const RESTORE_OVERLAY: &str = r"
```yaml
# overlay/restore/kustomization.yaml
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../kubernetes/restore]
patches:
  - target: {kind: Pod}
    patch: |
      - {op: add, path: /spec/nodeSelector, value: {disktype: ssd}}
      - {op: add, path: /spec/imagePullSecrets, value: [{name: registry}]}
```
";

/// The source of the password for a Grafana in a cluster.
fn grafana_password(material: &Material<'_>) -> String {
    let secret = object(material.stack, Role::Grafana);
    let restart = format!(
        "Grafana uses the password only when its volume is new: to change it later, first change it in Grafana, then \
         in the Secret. Grafana reads secrets when it starts; to restart it, run `kubectl rollout restart \
         statefulset/{secret}`."
    );
    match material.own_secret {
        None => format!(
            "The password is in `secret.yaml`, which only you can read: do not commit that file as it is. Before the \
             first start, you can write another password into it, in double quotes. {restart}"
        ),
        Some(_) => format!("The password is in the Secret `{secret}`, which is not from this export. {restart}"),
    }
}

/// How another source can provide the Secret.
fn secret(material: &Material<'_>) -> String {
    let stack = material.stack;
    let influxdb = if stack.data_source.user.is_empty() { "" } else { " and `influxdb-password`" };
    format!(
        "The Secret `{}` can come from another source, such as sops, Sealed Secrets or an external operator. It needs \
         the key `grafana-password`{influxdb}. Either replace the content of `secret.yaml`, which later exports then \
         keep, or remove that file and its line in `kustomization.yaml`, and have an overlay or an operator provide the \
         Secret. An export with `--grafana-password-file` writes a removed file again.",
        object(stack, Role::Grafana)
    )
}
