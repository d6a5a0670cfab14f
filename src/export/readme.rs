//! The README of an export: what it was made from, how it is used and reached, and what it opens to whom.
//!
//! Knows texts. Must not know the formats' fields.

use std::time::Duration;

use super::compose::NETWORK;
use super::{FOLDER, File, Material, is_known_to_containers_only, kubernetes};
use crate::engine::PASSWORD_PATH;
use crate::grafana::provisioning::{INFLUXDB_PASSWORD, Provisioning};
use crate::model::invocation::typed_option;
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::stack::{EngineLocation, Login, Stack};

/// The name of the file.
const NAME: &str = "README.md";

pub(super) fn provisioning(material: &Material<'_>, files: &Provisioning) -> File {
    let stack = material.stack;
    let rules = if files.alert_rules.is_some() { " and the alert rules" } else { "" };
    let text = include_str!("../../assets/export/provisioning.md");
    let alerts = format!(
        " `sidecar.alerts` takes `alerting/{}.yaml` from one with the label `grafana_alert: \"1\"`.",
        stack.instance
    );
    let url = &stack.data_source.url;
    let unknown = format!(
        " **Only containers of the instance know that name**: give the address that this Grafana uses with `{}`.",
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

pub(super) fn compose(material: &Material<'_>, files: &Provisioning) -> File {
    let stack = material.stack;
    let text = include_str!("../../assets/export/compose.md");
    let volumes = Role::ALL.into_iter().filter_map(|role| stack.container(role));
    let volumes: Vec<String> = volumes.map(|spec| format!("`{}`", spec.specification.volume)).collect();
    let mut status = status(stack);
    if material.has_stored_password {
        let password = docker(stack, &format!("compose exec -T grafana cat {PASSWORD_PATH}"));
        status = format!("{password} |\n  {status} --grafana-password-file /dev/stdin");
    }
    let there = match &stack.engine {
        EngineLocation::Here => String::new(),
        EngineLocation::Elsewhere(host) | EngineLocation::OverSsh { host, .. } => {
            format!(
                "\nCompose reads these files on the engine's machine: copy them to {host}, and type the commands there.\n"
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

/// How a Clipper in the instance's network keeps its way to InfluxDB.
fn containerized_clipper(stack: &Stack) -> String {
    let Some(spec) = stack.container(Role::Influxdb) else { return String::new() };
    let network = |verb: &str| docker(stack, &format!("network {verb} {} CLIPPER", stack.instance));
    format!(
        "\nA Clipper in a container of the network `{}` finds InfluxDB as `influx_ip = \"{}\"` before and after. A network \
         is replaced only while no container uses it: take Clipper out before (`{}`), and put it back after (`{}`); so \
         on the way back, too.\n",
        stack.instance,
        spec.name,
        network("disconnect"),
        network("connect")
    )
}

/// A command of this program, where the engine is.
fn command(stack: &Stack, arguments: &str) -> String {
    // Whoever reads it is in another directory, where a relative path of Clipper's file leads nowhere.
    let invocation = stack.invocation.by_name(&stack.instance);
    if stack.engine == EngineLocation::Here {
        invocation.command(arguments)
    } else {
        invocation.command_there(arguments)
    }
}

/// A command of the engine's own client, where the engine is.
fn docker(stack: &Stack, arguments: &str) -> String {
    if stack.engine == EngineLocation::Here {
        stack.invocation.docker(arguments)
    } else {
        format!("docker {arguments}")
    }
}

pub(super) fn swarm(material: &Material<'_>) -> File {
    let stack = material.stack;
    let text = include_str!("../../assets/export/swarm.md");
    let is_ours = stack.container(Role::Influxdb).is_some();
    let service = "The service `database` makes Clipper's database and ends: it is complete with 0 of 1 tasks. ";
    let network = format!("{}_{NETWORK}", stack.instance);
    let secret = if material.influxdb_password.is_some() {
        " The password of its user is in `influxdb-password`, which only you may read."
    } else {
        ""
    };
    let influxdb = format!(
        "\nInfluxDB asks nobody for a password, so it is **not published**. Clipper joins the network `{network}` \
         (`docker run --network {network} …`, or `docker service create --network {network} …`), which only containers \
         of this swarm can do, and finds it as `influx_ip = \"influxdb\"`, `influx_port = 8086` in its file. What is in \
         that network gets in.\n"
    );
    fill(
        text,
        material,
        &[
            ("database_service", if is_ours { service.into() } else { String::new() }),
            ("influxdb", if is_ours { influxdb } else { format!("{}{secret}\n", external(stack).trim_end()) }),
        ],
    )
}

pub(super) fn kubernetes(material: &Material<'_>, edition: &str) -> File {
    let stack = material.stack;
    let text = include_str!("../../assets/export/kubernetes.md");
    let is_ours = stack.container(Role::Influxdb).is_some();
    let influxdb = format!(
        "\nInfluxDB asks nobody for a password. A NetworkPolicy lets only pods of the same namespace in; the cluster's \
         network must support that. Clipper runs there and finds it as `influx_ip = \"{}\"`, `influx_port = 8086` in its \
         file.\n",
        Role::Influxdb.object_name(&stack.instance)
    );
    let read_only = Role::ALL.into_iter().filter_map(|role| stack.container(role));
    let read_only = read_only.into_iter().all(|spec| spec.specification.read_only);
    let claims = if is_ours {
        "The volume claims, 10 GiB for InfluxDB and 1 GiB for Grafana, use the cluster's default StorageClass and stay \
         when the StatefulSets are deleted."
    } else {
        "The volume claim, 1 GiB for Grafana, uses the cluster's default StorageClass and stays when the StatefulSet is \
         deleted."
    };
    fill(
        text,
        material,
        &[
            ("claims", claims.into()),
            ("outdated", kubernetes::outdated(stack, edition)),
            ("uid", stack.dashboard.uid.clone()),
            ("influxdb", if is_ours { influxdb } else { external(stack) }),
            ("read_only", if read_only { " and with a read-only root".into() } else { String::new() }),
        ],
    )
}

/// Puts values in the place of their names.
fn fill(text: &str, material: &Material<'_>, values: &[(&str, String)]) -> File {
    let stack = material.stack;
    let grafana = stack.container(Role::Grafana).map(|spec| spec.specification.publish.port());
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
    // Where nothing was put in, no empty lines are left.
    while text.contains("\n\n\n") {
        text = text.replace("\n\n\n", "\n\n");
    }
    File::new(NAME, format!("{}\n", text.trim_end()))
}

/// What it was made from.
fn table(stack: &Stack) -> String {
    let server = |role: Role| match stack.container(role) {
        Some(spec) => format!("`{}`", spec.specification.image),
        None => stack.url(role).to_string(),
    };
    let mut rows = vec![
        ("instance", stack.instance.clone()),
        ("InfluxDB", server(Role::Influxdb)),
        ("Grafana", server(Role::Grafana)),
        ("database", stack.database.clone()),
    ];
    if let Some(retention) = stack.retention {
        rows.push(("points are kept", retention.to_string()));
    }
    if let Some(folder) = &stack.folder {
        rows.push(("folder", folder.clone()));
    }
    let titles = stack.dashboards().map(|id| stack.dashboard_identity(id).1.to_string());
    rows.push(("dashboards", titles.collect::<Vec<_>>().join(", ")));
    let rows = rows
        .into_iter()
        .map(|(name, value)| format!("| {name} | {} |", value.replace('|', "\\|").replace(['\n', '\r'], " ")));
    format!("| made from | |\n|---|---|\n{}", rows.collect::<Vec<_>>().join("\n"))
}

/// Whether somebody's changes are in it.
fn edited(material: &Material<'_>) -> String {
    let mut titles = material.present.edited_dashboards(material.stack);
    let elsewhere = material.present.dashboards_in_schema_v2(material.stack);
    titles.retain(|title| !elsewhere.contains(title));
    if titles.is_empty() {
        return String::new();
    }
    let have = if titles.len() == 1 { "has" } else { "have" };
    format!("\nSomebody {have} edited in Grafana, and the export is as they left it: {}.\n", titles.join(", "))
}

/// What is not in the files of Compose, since it is in the volume.
fn kept(material: &Material<'_>) -> String {
    let titles = material.present.edited_dashboards(material.stack);
    let what = if titles.is_empty() { String::new() } else { format!(" That is so of: {}.", titles.join(", ")) };
    format!(
        "\nWhat somebody edited in Grafana, and alert rules, stay in its volume as they are and are in no file here.{what}\n"
    )
}

/// How the instance goes back to clipper-metrics. Grafana must notice that a file is gone, else the dashboard stays as
/// one that a file provides.
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

/// How a variable comes to a Grafana that is a service.
const IN_A_SERVICE: &str = "in `/etc/default/grafana-server` (Debian) or `/etc/sysconfig/grafana-server` (RPM), with \
                            `envValueFrom` or `envFromSecret` of Grafana's Helm chart, or with `--env` for a container";
/// How a variable comes to Compose.
const IN_A_SHELL: &str = "export it in the shell; a file such as `.env` in this directory is part of the export";

fn influxdb_password(stack: &Stack, how: &str) -> String {
    if stack.data_source.user.is_empty() {
        return String::new();
    }
    format!(
        "\nThe password of InfluxDB's user is in no file. Grafana's server reads it from the variable `{INFLUXDB_PASSWORD}`, \
         which must be set whenever the server is started: {how}.\n"
    )
}

/// Where Clipper finds an InfluxDB that runs elsewhere.
fn external(stack: &Stack) -> String {
    format!("\nInfluxDB runs elsewhere, and Grafana must reach it at `{}`.\n", stack.data_source.url)
}

/// Who can use what Compose publishes.
fn opens(stack: &Stack) -> String {
    let open = |role: Role, how: &str| {
        let at = stack.container(role)?.specification.publish;
        let who = if at.ip().is_loopback() { "only this machine reaches it".to_string() } else { format!("**{how}**") };
        Some(format!("* {} listens on {at}: {who}.", role.title()))
    };
    let lines = [
        open(
            Role::Influxdb,
            "it asks nobody for a password, and whoever reaches that address can read and write metrics",
        ),
        open(Role::Grafana, "it speaks plain http, and passwords can be read on the way there"),
    ];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// The command that compares all of it from outside, where nothing is remembered.
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
    // Both servers are named, so that no engine is asked.
    stack.invocation.by_name(&stack.instance).command_there(&arguments)
}
