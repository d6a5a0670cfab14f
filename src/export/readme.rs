//! The README of an export: its source, its use, its addresses, and who can reach them.

use std::time::Duration;

use super::compose::NETWORK;
use super::{ExportFile, FOLDER, Material, is_known_to_containers_only, kubernetes};
use crate::engine::password_path;
use crate::grafana::provisioning::{INFLUXDB_PASSWORD, Provisioning};
use crate::model::invocation::{shell_word, typed_option};
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::stack::{EngineLocation, Login, Stack};

/// The file's name.
const NAME: &str = "README.md";

pub(super) fn provisioning(material: &Material<'_>, files: &Provisioning) -> ExportFile {
    let stack = material.stack;
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
            ("password", influxdb_password(stack, IN_A_SERVICE)),
            ("url", format!("`{url}`.{unknown}")),
        ],
    )
}

pub(super) fn compose(material: &Material<'_>, files: &Provisioning) -> ExportFile {
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
            ("password", influxdb_password(stack, IN_A_SHELL)),
            ("opens", opens(stack)),
            ("back", back(stack, files)),
            ("edited", kept(material)),
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

/// A command of this program, for the engine's host.
fn command(stack: &Stack, arguments: &str) -> String {
    // Without the file: the reader is in another directory, where a relative path would not be found.
    let invocation = stack.invocation.by_name(&stack.instance);
    if stack.engine == EngineLocation::Here {
        invocation.command(arguments)
    } else {
        invocation.command_there(arguments)
    }
}

/// A command of the engine's own client, for the engine's host.
fn docker(stack: &Stack, arguments: &str) -> String {
    if stack.engine == EngineLocation::Here {
        stack.invocation.docker(arguments)
    } else {
        format!("docker {arguments}")
    }
}

pub(super) fn swarm(material: &Material<'_>) -> ExportFile {
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

pub(super) fn kubernetes(material: &Material<'_>, content_hash: &str) -> ExportFile {
    let stack = material.stack;
    let text = include_str!("../../assets/export/kubernetes.md");
    let is_ours = stack.container(Role::Influxdb).is_some();
    let influxdb = format!(
        "\nInfluxDB has no password. A NetworkPolicy admits only pods of the same namespace; the cluster's network \
         must support that. Clipper runs there and finds it as `influx_ip = \"{}\"`, `influx_port = 8086` in its \
         file.\n",
        Role::Influxdb.object_name(&stack.instance)
    );
    let read_only = Role::ALL.into_iter().filter_map(|role| stack.container(role));
    let read_only = read_only.into_iter().all(|spec| spec.config.read_only);
    let claims = if is_ours {
        "The volume claims, 10 GiB for InfluxDB and 1 GiB for Grafana, use the cluster's default StorageClass and stay \
         when the StatefulSets are deleted."
    } else {
        "The volume claim, 1 GiB for Grafana, uses the cluster's default StorageClass and stays when the StatefulSet \
         is deleted."
    };
    let again = if stack.retention.is_some() {
        "sets the retention period of this export again"
    } else {
        "leaves the retention period as it is"
    };
    let database = format!(
        " The Job `database` waits for InfluxDB, however long its image takes to be pulled. It is deleted a day after it \
         has created the database. Applying the files again repeats it, which {again}."
    );
    let job = kubernetes::database_jobs(stack);
    let job_change = format!(
        "\nA Job cannot change. After the first start, run `kubectl delete job --selector {job}` before you apply an \
         overlay that changes it.\n"
    );
    let overlay = "  - target: {kind: Job}\n    patch: |\n      - {op: add, path: \
                   /spec/template/spec/imagePullSecrets, value: [{name: registry}]}\n";
    let claim_size = format!(
        "  - target: {{kind: StatefulSet, name: {}}}\n    patch: |\n      - {{op: replace, path: \
         /spec/volumeClaimTemplates/0/spec/resources/requests/storage, value: 100Gi}}\n",
        kubernetes::object(stack, Role::Influxdb)
    );
    let pods = Role::ALL.into_iter().filter_map(|role| stack.container(role));
    let pods: Vec<String> = pods.map(|spec| format!("{}-0", kubernetes::object(stack, spec.role))).collect();
    let only_if_ours = |text: &str| if is_ours { text.to_string() } else { String::new() };
    fill(
        text,
        material,
        &[
            ("move", only_if_ours(include_str!("../../assets/export/kubernetes-move.md"))),
            ("backup", backup(stack)),
            ("password", grafana_password(material)),
            ("secret", secret(material)),
            ("claims", claims.into()),
            ("job", job),
            ("pods", pods.join("` or `kubectl delete pod ")),
            ("database", only_if_ours(&database)),
            ("overlay", only_if_ours(overlay)),
            ("restore_overlay", only_if_ours(RESTORE_OVERLAY)),
            ("restore_use", only_if_ours(", and `--kustomize ../overlay/restore` in place of `--kustomize restore`")),
            ("claim_size", only_if_ours(&claim_size)),
            ("job_change", only_if_ours(&job_change)),
            ("outdated", kubernetes::outdated(stack, content_hash)),
            ("uid", stack.dashboard.uid.clone()),
            ("influxdb", if is_ours { influxdb } else { external(stack) }),
            ("read_only", if read_only { " and with a read-only root".into() } else { String::new() }),
        ],
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

/// The command that saves the existing instance.
fn backup(stack: &Stack) -> String {
    command(stack, &format!("backup {}.tar.gz", stack.instance))
}

fn image(stack: &Stack, role: Role) -> String {
    let image = stack.container(role).map(|spec| spec.config.image.to_string());
    shell_word(&image.unwrap_or_default())
}

/// The source of the password for a Grafana in a cluster.
fn grafana_password(material: &Material<'_>) -> String {
    let secret = kubernetes::object(material.stack, Role::Grafana);
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
        kubernetes::object(stack, Role::Grafana)
    )
}

/// Replaces the placeholders in a text.
fn fill(text: &str, material: &Material<'_>, values: &[(&str, String)]) -> ExportFile {
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

/// The sentence about content that is in the volume but not in Compose's files.
fn kept(material: &Material<'_>) -> String {
    let titles = material.present.edited_dashboards(material.stack);
    let what = if titles.is_empty() { String::new() } else { format!(" This applies to: {}.", titles.join(", ")) };
    format!("\nEdits made in Grafana and alert rules stay in its volume and are not in these files.{what}\n")
}

/// The commands that return the instance to clipper-metrics. Grafana must notice the removal of the
/// files, otherwise its dashboards stay provisioned.
fn back(stack: &Stack, files: &Provisioning) -> String {
    let own = (0..files.folders).map(|index| format!("{FOLDER}/dashboards/{}/*.json", files.folder_name(index)));
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

/// How to set a variable for a Grafana that runs as a service.
const IN_A_SERVICE: &str = "in `/etc/default/grafana-server` (Debian) or `/etc/sysconfig/grafana-server` (RPM), with \
                            `envValueFrom` or `envFromSecret` of Grafana's Helm chart, or with `--env` for a container";
/// How to set a variable for Compose.
const IN_A_SHELL: &str =
    "export it in the shell, because a file such as `.env` in this directory is part of the export";

fn influxdb_password(stack: &Stack, how: &str) -> String {
    if stack.data_source.user.is_empty() {
        return String::new();
    }
    format!(
        "\nThe password of InfluxDB's user is not in the files. Grafana's server reads it from the variable \
         `{INFLUXDB_PASSWORD}`, which must be set whenever the server is started: {how}.\n"
    )
}

/// The address of an external InfluxDB.
fn external(stack: &Stack) -> String {
    format!("\nInfluxDB is external, and Grafana must reach it at `{}`.\n", stack.data_source.url)
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
    stack.invocation.by_name(&stack.instance).command_there(&arguments)
}
