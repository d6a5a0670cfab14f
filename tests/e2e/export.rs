//! Exports on real systems: Grafana, docker-compose and a swarm accept the files, the files match
//! the schemas of Kubernetes, and the commands in their READMEs work.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::answers::{Answers, Range, answers};
use super::engine::OwnEngine;
use super::instance::{Instance, Removed, SOON, assert_log_limit, assert_no_capability, docker, is_podman};
use crate::support::run::{Ran, program, ran, without_inherited_host};
use crate::support::{eventually, free_port, registry};

/// The Compose project of an export, removed when the test ends.
struct Project<'a> {
    it: &'a Instance,
    folder: tempfile::TempDir,
}

impl<'a> Project<'a> {
    fn export(it: &'a Instance) -> Self {
        let folder = tempfile::tempdir().unwrap();
        it.run(&["export", "compose", &folder.path().to_string_lossy()]).expect(0);
        Self { it, folder }
    }

    fn readme(&self) -> String {
        without_inherited_host(&std::fs::read_to_string(self.folder.path().join("README.md")).unwrap())
    }

    /// The commands in the README's code blocks, block by block.
    fn commands(&self) -> Vec<Vec<String>> {
        let text = self.readme();
        let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        blocks.map(|block| block.replace("|\n", "| ").lines().map(String::from).collect()).collect()
    }

    /// Runs a command from the README with this program and this docker-compose.
    fn shell(&self, command: &str) -> Ran {
        let command =
            command.replace("docker compose", "docker-compose").replace("clipper-metrics ", &format!("{} ", program()));
        ran(&Command::new("sh").args(["-c", &command]).current_dir(self.folder.path()).output().unwrap())
    }

    fn container(&self, service: &str) -> Value {
        let filter = format!("label=com.docker.compose.project={}", self.it.name);
        let service = format!("label=com.docker.compose.service={service}");
        let id = docker(&["ps", "--quiet", "--filter", &filter, "--filter", &service]).unwrap();
        serde_json::from_str::<Value>(&docker(&["inspect", &id]).unwrap()).unwrap()[0].clone()
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        self.shell("docker compose down");
    }
}

/// Runs `down`, `docker compose up -d`, and `status` until it reports no difference.
fn start(project: &Project<'_>) {
    let [down, up, status] = project.commands()[0].clone().try_into().unwrap();
    project.shell(&down).expect(0);
    project.shell(&up).expect(0);
    eventually("the exported stack is in sync", SOON * 2, || project.shell(&status).code == 0);
    assert!(project.shell(&status).out.contains("in sync"));
}

#[test]
fn compose_continues_with_the_volumes_and_back_again() {
    let it = Instance::new("compose");
    it.first_up(&[]).expect(0);
    it.run(&["demo", "--backfill", "5m"]).expect(0);
    let points = "SELECT count(\"value\") FROM /_prediction_counter$/";
    let before = it.query("clipper", points);
    assert!(before.contains("m1_prediction_counter"), "{before}");
    // A Clipper in a container, which finds InfluxDB by its container's name.
    let clipper = format!("{}-clipper", it.name);
    let image = format!("{}/influxdb:1.12.4", registry::address());
    docker(&["run", "--detach", "--name", &clipper, "--network", &it.name, "--entrypoint", "sleep", &image, "600"])
        .unwrap();
    let _removed = Removed(clipper.clone());
    let (host, statement) = (it.container("influxdb"), "SHOW DATABASES");
    let asks = || docker(&["exec", &clipper, "influx", "-host", &host, "-execute", statement]);
    assert!(asks().unwrap().contains("clipper"));
    let project = Project::export(&it);
    let readme = project.readme();
    let moves = |verb: &str| {
        let start = readme.find(&format!("docker network {verb} ")).unwrap();
        let command = readme[start..].split('`').next().unwrap().replace("CLIPPER", &clipper);
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    };
    moves("disconnect");
    start(&project);
    moves("connect");
    assert!(asks().unwrap().contains("clipper"), "the name is still InfluxDB's");
    moves("disconnect");
    assert_eq!(it.query("clipper", points), before, "the data is there");
    let (_, dashboard) = it.grafana("GET", &format!("/api/dashboards/uid/{}", it.name), None);
    assert_eq!(dashboard["meta"]["provisioned"], true, "{}", dashboard["meta"]);

    for (service, port, inside) in
        [("influxdb", it.influxdb_port, "8086/tcp"), ("grafana", it.grafana_port, "3000/tcp")]
    {
        let made = project.container(service);
        let bound = &made["HostConfig"]["PortBindings"][inside];
        assert_eq!(*bound, json!([{"HostIp": "127.0.0.1", "HostPort": port.to_string()}]));
        assert_eq!(made["HostConfig"]["RestartPolicy"]["Name"], "unless-stopped");
        assert_no_capability(&made["HostConfig"]);
        assert_eq!(made["HostConfig"]["SecurityOpt"], json!(["no-new-privileges"]));
        assert_log_limit(&made["HostConfig"]);
        let mounts = made["Mounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["Name"] == it.container(service)), "{mounts:?}");
        // Podman leaves health checks to systemd.
        eventually("its health check passes", SOON * 2, || {
            is_podman() || project.container(service)["State"]["Health"]["Status"] == "healthy"
        });
    }

    // Two servers on one volume would corrupt it, whatever their ports.
    let other = free_port().to_string();
    let refused = it.run(&["up", "--influxdb-port", &other]).expect(1);
    assert!(refused.err.contains("runs and mounts InfluxDB's data"), "{}", refused.err);
    assert!(refused.err.contains("docker stop "), "{}", refused.err);

    for command in &project.commands()[1] {
        project.shell(command).expect(0);
    }
    let (_, dashboard) = it.grafana("GET", &format!("/api/dashboards/uid/{}", it.name), None);
    assert_eq!(dashboard["meta"]["provisioned"], false, "Grafana has let go of it");
    it.assert_whole();
    moves("connect");
    assert!(asks().unwrap().contains("clipper"), "and on the way back");
    assert_eq!(it.query("clipper", points), before);
    assert!(it.run(&["up"]).expect(0).out.contains("nothing to do"));
}

#[test]
fn edits_and_the_password_stay_in_the_volume_used_by_compose() {
    let it = Instance::new("compose-own");
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "another password").unwrap();
    it.first_up(&["--grafana-password-file", &password.to_string_lossy()]).expect(0);
    let get = || it.grafana_as("admin", "another password", "GET", &format!("/api/dashboards/uid/{}", it.name), None).1;
    let mut dashboard = get()["dashboard"].clone();
    dashboard["title"] = json!("Mine");
    let body = json!({"dashboard": dashboard, "overwrite": true}).to_string();
    assert_eq!(it.grafana_as("admin", "another password", "POST", "/api/dashboards/db", Some(&body)).0, 200);
    // Files cannot contain the certificate that belongs to this setting.
    let path = format!("/api/datasources/uid/{}", it.name);
    let source = || it.grafana_as("admin", "another password", "GET", &path, None).1;
    let mut changed = source();
    changed["jsonData"]["tlsAuthWithCACert"] = json!(true);
    let numbered = format!("/api/datasources/{}", changed["id"]);
    let path = if it.grafana_major() < 9 { &numbered } else { &path };
    assert_eq!(it.grafana_as("admin", "another password", "PUT", path, Some(&changed.to_string())).0, 200);
    let project = Project::export(&it);
    assert!(!project.folder.path().join("provisioning").exists());
    start(&project);
    assert_eq!(source()["jsonData"]["tlsAuthWithCACert"], true);
    let found = get();
    assert_eq!((&found["dashboard"]["title"], &found["meta"]["provisioned"]), (&json!("Mine"), &json!(false)));
    assert_eq!(it.grafana("GET", "/api/org", None).0, 401, "admin / admin");
    project.shell("docker compose down").expect(0);
    it.run(&["up"]).expect(0);
    assert_eq!(get()["dashboard"]["title"], "Mine");
}

#[test]
fn a_grafana_is_provisioned_from_the_files() {
    let it = Instance::new("provisioning");
    it.first_up(&[]).expect(0);
    let is_old = it.grafana_major() < 9;
    let own = tempfile::tempdir().unwrap();
    let mine = own.path().join("mine.json");
    let content = json!({"title": "Mine", "uid": format!("{}-mine", it.name), "panels": []});
    std::fs::write(&mine, content.to_string()).unwrap();
    let mut more = vec!["--dashboard".to_string(), mine.display().to_string()];
    if !is_old {
        more.push("--alerts".into());
    }
    let with = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(ToString::to_string).chain(more.clone()).collect();
        it.run(&words)
    };
    let folder = tempfile::tempdir().unwrap();
    with(&["export", "provisioning", &folder.path().to_string_lossy()]).expect(0);
    // Another Grafana without any state, in the same network.
    let image = it.inspect("grafana")["Config"]["Image"].as_str().unwrap().to_string();
    let port = free_port();
    let other = format!("{}-other", it.name);
    let (publish, mount) =
        (format!("127.0.0.1:{port}:3000"), format!("{}:/etc/grafana/provisioning:ro", folder.path().display()));
    open_to_all(folder.path());
    let run =
        ["run", "--detach", "--name", &other, "--network", &it.name, "--publish", &publish, "--volume", &mount, &image];
    docker(&run).unwrap();
    let (influxdb, grafana) = (it.influxdb(), format!("http://127.0.0.1:{port}"));
    let words = [
        "status",
        "--influxdb-url",
        &influxdb,
        "--grafana-url",
        &grafana,
        "--data-source-url",
        "http://influxdb:8086",
        "--output",
        "json",
    ];
    eventually("that Grafana is in sync", SOON * 2, || with(&words).code == 0);
    let status = with(&words).json();
    let _ = docker(&["rm", "--force", "--volumes", &other]);
    assert_eq!(status["data_source"]["query"], "ok", "{status}");
    assert_eq!(status["dashboard"]["state"], "in_sync");
    assert_eq!(status["user_dashboards"][0]["state"], "in_sync");
    if !is_old {
        assert_eq!(status["alerts"]["state"], "in_sync");
    }
}

/// A container's user is not the user who wrote the files.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_swarm_runs_it_and_restarts_a_killed_task_with_its_data() {
    let engine = OwnEngine::start();
    let expect = |words: &[&str]| engine.docker(words).expect(0).out.trim().to_string();
    expect(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
    let node = expect(&["info", "--format", "{{.Swarm.NodeID}}"]);
    expect(&["node", "update", "--label-add", "clipper-metrics=true", &node]);
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().display().to_string();
    let registry = OwnEngine::registry();
    let export = ["export", "swarm", &directory, "--registry", &registry, "--retention", "30d"];
    ran(&engine.program(&export).output().unwrap()).expect(0);
    let again = ran(&engine.program(&export).output().unwrap()).expect(0);
    assert!(again.out.contains("nothing was written"), "{}", again.out);
    let stack = format!("{directory}/stack.yaml");
    expect(&["stack", "deploy", "--compose-file", &stack, "clipper-metrics"]);

    let task = |service: &str| {
        let filter = format!("name=clipper-metrics_{service}.1");
        engine.docker(&["ps", "--quiet", "--filter", &filter, "--filter", "health=healthy"]).out.trim().to_string()
    };
    let password = format!("{directory}/grafana-password");
    let status = || {
        let words = [
            "status",
            "--grafana-url",
            "http://127.0.0.1:3000",
            "--influxdb-url",
            "http://127.0.0.1:1",
            "--data-source-url",
            "http://influxdb:8086",
            "--grafana-password-file",
            &password,
            "--output",
            "json",
        ];
        serde_json::from_str::<Value>(&ran(&engine.program(&words).output().unwrap()).out).unwrap_or_default()
    };
    let works = || {
        let now = status();
        now["data_source"]["query"] == "ok" && now["dashboard"]["state"] == "in_sync"
    };
    eventually("the data source answers", SOON * 4, works);
    let published = expect(&["service", "inspect", "clipper-metrics_influxdb", "--format", "{{json .Endpoint.Ports}}"]);
    assert_eq!(published, "null", "InfluxDB is published nowhere");

    let influx = |statement: &str| {
        expect(&["exec", &task("influxdb"), "influx", "-database", "clipper", "-format", "json", "-execute", statement])
    };
    influx("INSERT kept value=7");
    assert!(influx("SHOW RETENTION POLICIES").contains("720h"));
    for service in ["influxdb", "grafana"] {
        let killed = task(service);
        expect(&["kill", &killed]);
        eventually("another task runs", SOON * 4, || {
            let now = task(service);
            !now.is_empty() && now != killed
        });
    }
    assert!(influx("SELECT * FROM kept").contains('7'));
    eventually("the data source answers again", SOON * 4, works);

    // Changed objects are replaced, and the data stays.
    let mine = folder.path().with_extension("json");
    std::fs::write(&mine, json!({"title": "Mine", "uid": "mine", "panels": []}).to_string()).unwrap();
    let mine_path = mine.display().to_string();
    let more: Vec<&str> = export.into_iter().chain(["--dashboard", &mine_path]).collect();
    ran(&engine.program(&more).output().unwrap()).expect(0);
    std::fs::remove_file(&mine).unwrap();
    let before = task("grafana");
    expect(&["stack", "deploy", "--compose-file", &stack, "clipper-metrics"]);
    eventually("another Grafana runs", SOON * 4, || {
        let now = task("grafana");
        !now.is_empty() && now != before
    });
    expect(&["exec", &task("grafana"), "wget", "-q", "-O", "/tmp/writable", "http://127.0.0.1:3000/api/health"]);
    eventually("the data source answers after the change", SOON * 4, works);
    assert!(influx("SELECT * FROM kept").contains('7'));

    // A changed secret replaces the task as well, without removing the stack.
    let other = folder.path().with_extension("password");
    std::fs::write(&other, "another password").unwrap();
    let other_path = other.display().to_string();
    let with_password = [export.as_slice(), &["--grafana-password-file", &other_path]].concat();
    ran(&engine.program(&with_password).output().unwrap()).expect(0);
    std::fs::remove_file(&other).unwrap();
    let before = task("grafana");
    expect(&["stack", "deploy", "--prune", "--compose-file", &stack, "clipper-metrics"]);
    eventually("a Grafana with the changed secret runs", SOON * 4, || {
        let now = task("grafana");
        !now.is_empty() && now != before
    });
    let secret = ["exec", &task("grafana"), "cat", "/run/secrets/grafana-password"];
    assert_eq!(expect(&secret), "another password");

    // A server that fails is rolled back to the previous one, with its configs and secrets.
    let broken = format!("{registry}/odd:crashes");
    let breaks = [export.as_slice(), &["--grafana-image", &broken, "--alerts"]].concat();
    ran(&engine.program(&breaks).output().unwrap()).expect(0);
    expect(&["stack", "deploy", "--prune", "--compose-file", &stack, "clipper-metrics"]);
    // The README's commands that remove unused objects wait until the rollback has used them.
    let readme = std::fs::read_to_string(format!("{directory}/README.md")).unwrap();
    let clean = readme.split("```sh\n").nth(2).unwrap().split("```").next().unwrap();
    let update = ["service", "inspect", "clipper-metrics_grafana", "--format", "{{.UpdateStatus.State}}"];
    let cleaned = engine.shell(folder.path(), clean);
    assert_eq!(expect(&update), "rollback_completed", "they do not wait: {}{}", cleaned.out, cleaned.err);
    assert!(cleaned.err.contains("in use"), "{}{}", cleaned.out, cleaned.err);
    eventually("the previous Grafana runs", SOON * 4, || !task("grafana").is_empty());
    assert_eq!(expect(&["exec", &task("grafana"), "cat", "/run/secrets/grafana-password"]), "another password");
    let image =
        ["service", "inspect", "clipper-metrics_grafana", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}}"];
    assert!(!expect(&image).contains("odd"), "{}", expect(&image));

    let secrets = expect(&["secret", "ls", "--format", "{{.Name}}"]);
    assert_eq!(secrets, "clipper-metrics-grafana-password-2");

    expect(&["stack", "rm", "clipper-metrics"]);
    eventually("its containers are gone", SOON * 2, || engine.docker(&["ps", "--quiet"]).out.trim().is_empty());
    expect(&["swarm", "leave", "--force"]);
}

#[test]
fn a_swarm_takes_over_the_data_of_an_instance() {
    let engine = OwnEngine::start();
    let run = |words: &[&str]| ran(&engine.program(words).output().unwrap());
    let expect = |words: &[&str]| engine.docker(words).expect(0).out.trim().to_string();
    let registry = OwnEngine::registry();
    let ports = ["--influxdb-port", "18086", "--grafana-port", "13000"];
    run(&[&["up", "--registry", &registry], &ports[..]].concat()).expect(0);
    run(&["demo", "--backfill", "30m", "--models", "m1,big one"]).expect(0);
    // Grafana's answers, and any other request, on a port of the engine's host.
    let ask = |port: u16, password: &str, method: &str, path: &str, body: &str| -> Value {
        let url = format!("http://127.0.0.1:{port}{path}");
        let account = format!("admin:{password}");
        let words = [
            "--silent",
            "--max-time",
            "10",
            "--user",
            &account,
            "--request",
            method,
            "--header",
            "content-type: application/json",
        ];
        let output = engine.inside("curl").args(words).args(["--data", body, &url]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    let panels = |port: u16, password: &str, range: Range| -> Answers {
        let ask = |body: &str| ask(port, password, "POST", "/api/ds/query", body);
        answers("clipper-metrics", "(m1|big_one)", range, ask)
    };
    let range = Range::of_the_last(std::time::Duration::from_secs(25 * 60));
    let before = panels(13000, "admin", range);
    ask(13000, "admin", "POST", "/api/folders", &json!({"title": "Theirs", "uid": "theirs"}).to_string());

    expect(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("swarm");
    let export = ["export", "swarm", &directory.display().to_string(), "--grafana-port", "3000", "--retention", "30d"];
    run(&export).expect(0);
    let readme = std::fs::read_to_string(directory.join("README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    engine.shell(&directory, blocks[0]).expect(0);
    let password = std::fs::read_to_string(directory.join("grafana-password")).unwrap();
    let has_theirs = || ask(3000, &password, "GET", "/api/folders/theirs", "")["uid"] == "theirs";
    let is_up = || {
        ask(3000, &password, "GET", "/api/dashboards/uid/clipper-metrics", "")["dashboard"].is_object()
            && ask(3000, &password, "GET", "/api/datasources/uid/clipper-metrics/health", "")["status"] == "OK"
    };
    eventually("the new Grafana answers", SOON * 4, is_up);
    assert!(!has_theirs());

    let (backup, restore) = (blocks[2], blocks[3]);
    assert!(backup.starts_with("clipper-metrics backup ") && restore.contains("/restore/influxdb.sh"), "{readme}");
    engine.shell(folder.path(), backup).expect(0);
    let replicas = |service: &str| {
        let name = format!("clipper-metrics_{service}");
        expect(&["service", "inspect", &name, "--format", "{{.Spec.Mode.Replicated.Replicas}}"])
    };
    // The files that a restore leaves in a volume.
    let volume = |role: &str| {
        let volume = format!("clipper-metrics_{role}:/volume");
        let image = format!("{registry}/influxdb:1.12.4");
        expect(&["run", "--rm", "--entrypoint", "sh", "--volume", &volume, &image, "-c", "echo /volume/*"])
    };
    // A cut file changes nothing, and the servers do not start beside a failed restore.
    let whole = std::fs::read(folder.path().join("clipper-metrics.tar.gz")).unwrap();
    std::fs::write(folder.path().join("clipper-metrics.tar.gz"), &whole[..whole.len() - 100]).unwrap();
    let refused = engine.shell(&directory, restore);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("nothing was changed"), "{}", refused.err);
    assert_eq!(["influxdb", "grafana"].map(replicas), ["0", "0"]);
    let fills: Vec<&str> =
        restore.lines().filter(|line| line.contains("docker run")).map(|line| line.trim_end_matches("&&")).collect();
    for (line, role) in fills.iter().zip(["influxdb", "grafana"]) {
        let refused = engine.shell(&directory, line).expect(1);
        assert!(refused.err.contains("nothing was changed"), "{}", refused.err);
        assert!(!volume(role).contains("clipper-metrics-restore"), "{}", volume(role));
    }
    std::fs::write(folder.path().join("clipper-metrics.tar.gz"), &whole).unwrap();
    // The second volume failed: the repeated block leaves the first one as it is.
    engine.shell(&directory, fills[0]).expect(0);
    let moved = engine.shell(&directory, restore).expect(0);
    assert!(moved.out.contains("InfluxDB's data was restored from this file before"), "{}", moved.out);
    assert!(moved.out.contains("Grafana's database is restored"), "{}", moved.out);
    eventually("the moved Grafana answers", SOON * 4, || is_up() && has_theirs());
    assert_eq!(panels(3000, &password, range), before, "every panel shows what it showed");
    assert_eq!(ask(3000, "admin", "GET", "/api/org", "")["name"], Value::Null, "admin/admin opens nothing");
    let task = || {
        let filters = ["--filter", "name=clipper-metrics_influxdb.1", "--filter", "health=healthy"];
        engine.docker(&[&["ps", "--quiet"], &filters[..]].concat()).out.trim().to_string()
    };
    let policies = || {
        let words = ["influx", "-database", "clipper", "-execute", "SHOW RETENTION POLICIES"];
        engine.docker(&[&["exec", &task()], &words[..]].concat()).out
    };
    eventually("the export's retention applies, not the archive's", SOON * 4, || policies().contains("720h"));

    // Another time, each command leaves the newer data alone.
    std::fs::write(folder.path().join("clipper-metrics.tar.gz"), vec![0; 16 << 20]).unwrap();
    assert!(engine.shell(&directory, restore).err.contains("already contains metrics; nothing was changed"));
    for line in fills {
        let refused = engine.shell(&directory, line).expect(1);
        assert!(refused.err.contains("nothing was changed"), "{}", refused.err);
    }
    let deploy = restore.lines().find(|line| line.starts_with("docker stack deploy")).unwrap();
    engine.shell(&directory, deploy.trim_end_matches("&&")).expect(0);
    eventually("Grafana answers again", SOON * 4, || is_up() && has_theirs());
    assert_eq!(panels(3000, &password, range), before);
    expect(&["stack", "rm", "clipper-metrics"]);
    eventually("its containers are gone", SOON * 2, || {
        engine.docker(&["ps", "--quiet", "--filter", "label=com.docker.stack.namespace"]).out.trim().is_empty()
    });
    expect(&["swarm", "leave", "--force"]);
}

#[test]
fn manifests_match_the_schemas_of_kubernetes_and_need_no_privileges() {
    let it = Instance::new("kubernetes");
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().display().to_string();
    let words = ["export", "kubernetes", &directory, "--database", "it's $(HOME)", "--retention", "7d"];
    it.run(&words).expect(0);
    assert!(it.run(&words).expect(0).out.contains("nothing was written"));
    let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).unwrap();
    let kustomization: Value = serde_saphyr::from_str(&read("kustomization.yaml")).unwrap();
    let mut listed: Vec<&str> =
        kustomization["resources"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    listed.push("kustomization.yaml");
    // Applied only to restore a backup.
    listed.push("restore/kustomization.yaml");
    listed.push("restore/pods.yaml");
    let mut there: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().to_string())
        .filter(|name| name.split('.').next_back() == Some("yaml") && !name.starts_with('.'))
        .chain(["restore/kustomization.yaml", "restore/pods.yaml"].map(String::from))
        .collect();
    listed.sort_unstable();
    there.sort();
    assert_eq!(listed, there);
    let schemas: Value = serde_json::from_str(include_str!("../schemas/kubernetes.json")).unwrap();
    let mut kinds = Vec::new();
    for path in there.iter().filter(|path| !path.ends_with("kustomization.yaml")) {
        for text in read(path).split("\n---\n") {
            let object: Value = serde_saphyr::from_str(text).unwrap_or_else(|why| panic!("{path}: {why}"));
            let kind = object["kind"].as_str().unwrap().to_string();
            let definition = schemas["kinds"][&kind].as_str().unwrap_or_else(|| panic!("no schema of {kind}"));
            let schema = json!({"$ref": format!("#/definitions/{definition}"), "definitions": schemas["definitions"]});
            let validator = jsonschema::validator_for(&schema).unwrap();
            if let Err(why) = validator.validate(&object) {
                panic!("{path}, {kind}: {why} at {}", why.instance_path());
            }
            let pod = if kind == "Pod" { &object["spec"] } else { &object["spec"]["template"]["spec"] };
            if let Some(pod) = pod.as_object() {
                assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{kind}");
                assert_eq!(pod["automountServiceAccountToken"], false);
                for container in pod["containers"].as_array().unwrap() {
                    let security = &container["securityContext"];
                    assert_eq!(security["allowPrivilegeEscalation"], false);
                    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
                    assert!(container["resources"]["limits"]["memory"].is_string());
                }
            }
            kinds.push(kind);
        }
    }
    kinds.sort();
    let all = [
        "ConfigMap",
        "ConfigMap",
        "ConfigMap",
        "Job",
        "NetworkPolicy",
        "Pod",
        "Pod",
        "Secret",
        "Service",
        "Service",
        "StatefulSet",
        "StatefulSet",
    ];
    assert_eq!(kinds, all);
    let job: Value = serde_saphyr::from_str(&read("database.yaml")).unwrap();
    let pod = &job["spec"]["template"]["spec"];
    assert!(pod["initContainers"][0]["command"][2].as_str().unwrap().starts_with("until influx "), "{pod}");
    let statement = &pod["containers"][0]["command"][4];
    // White space becomes a dash, as in Clipper, and Kubernetes expands nothing.
    assert!(
        statement.as_str().unwrap().starts_with("CREATE DATABASE \"it's-$$(HOME)\"; ALTER RETENTION"),
        "{statement}"
    );
}

#[test]
fn obstacles_to_an_export_are_reported_before_anything_is_written() {
    let it = Instance::new("export-refused");
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("new");
    let path = directory.display().to_string();
    let none = it.run(&["export", "compose", &path]).expect(1);
    assert!(none.err.contains("not in sync") && none.err.contains("hint: run `clipper-metrics up"), "{}", none.err);
    assert!(!directory.exists());
    it.first_up(&[]).expect(0);
    let json = it.run(&["export", "compose", &path, "--output", "json"]).expect(0).json();
    assert!(json["files"].as_array().unwrap().iter().all(|file| file["change"] == "created"), "{json}");
    let json = it.run(&["export", "compose", &path, "--output", "json"]).expect(0).json();
    assert!(json["files"].as_array().unwrap().iter().all(|file| file["change"] == "unchanged"), "{json}");
    // Another format, another instance or foreign files are never mixed with it.
    let other = it.run(&["export", "provisioning", &path]).expect(2);
    assert!(other.err.contains(&format!("contains an export of {} for compose", it.name)), "{}", other.err);
    std::fs::write(directory.join("notes.txt"), "mine").unwrap();
    let mixed = it.run(&["export", "compose", &path]).expect(2);
    assert!(mixed.err.contains("notes.txt"), "{}", mixed.err);
    std::fs::remove_file(directory.join("notes.txt")).unwrap();
    std::fs::write(directory.join("docker-compose.yaml"), "services: {}\n").unwrap();
    let edited = it.run(&["export", "compose", &path]).expect(2);
    assert!(edited.err.contains("docker-compose.yaml"), "{}", edited.err);
}
