//! Exports on a Kubernetes cluster that `tests/run kubernetes` starts. They are ignored otherwise, because the cluster
//! has to be built first.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::e2e::answers::{Answers, Range, answers};
use crate::e2e::instance::Instance;
use crate::support::run::{Ran, Run, basic, http_with, program, ran};
use crate::support::{eventually, free_port, influxd, registry};

/// The time limit for a rollout on a slow machine.
const SOON: Duration = Duration::from_secs(180);

/// A namespace that enforces the level "restricted", which `kubectl` uses by default. Removed with its content when
/// dropped.
struct Namespace {
    name: String,
    /// Its own configuration of `kubectl`.
    config: tempfile::NamedTempFile,
}

impl Namespace {
    fn new(name: &str) -> Self {
        let config = tempfile::NamedTempFile::new().unwrap();
        let shared = std::env::var("KUBECONFIG").expect("tests/run kubernetes starts a cluster and sets KUBECONFIG");
        std::fs::copy(shared, config.path()).unwrap();
        let it = Self { name: format!("{name}-{}", std::process::id()), config };
        let labels =
            ["enforce", "warn"].map(|mode| (format!("pod-security.kubernetes.io/{mode}"), json!("restricted")));
        let labels: serde_json::Map<String, Value> = labels.into_iter().collect();
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": it.name, "labels": labels}});
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), object.to_string()).unwrap();
        it.kubectl(&["create", "--filename", &file.path().to_string_lossy()]).expect(0);
        it.kubectl(&["config", "set-context", "--current", "--namespace", &it.name]).expect(0);
        eventually("its service account exists", SOON, || it.kubectl(&["get", "serviceaccount", "default"]).code == 0);
        it
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.config.path()).stdin(Stdio::null());
        command
    }

    fn kubectl(&self, words: &[&str]) -> Ran {
        ran(&self.command("kubectl").args(words).output().unwrap())
    }

    fn get(&self, words: &[&str]) -> Value {
        let words = [&["get", "--output", "json"][..], words].concat();
        serde_json::from_str(&self.kubectl(&words).expect(0).out).unwrap()
    }

    /// The names of all objects of these kinds, except those that every namespace has.
    fn names(&self, kinds: &str) -> Vec<String> {
        let out = self.kubectl(&["get", kinds, "--output", "name"]).expect(0).out;
        let own = out.lines().filter(|name| !name.contains("kube-root-ca.crt"));
        own.map(|name| name.split('/').next_back().unwrap().to_string()).collect()
    }

    /// Pastes the commands of a README; the API server must accept them without a warning.
    fn shell(&self, directory: &Path, commands: &str) -> Ran {
        let ran = self.try_shell(directory, commands).expect(0);
        assert!(!ran.err.contains("Warning"), "{}", ran.err);
        ran
    }

    fn try_shell(&self, directory: &Path, commands: &str) -> Ran {
        ran(&self.command("sh").args(["-xc", commands]).current_dir(directory).output().unwrap())
    }

    /// Leads a free local port to a Service.
    fn forward(&self, service: &str, port: u16) -> Forward {
        let local = free_port();
        let mut command = self.command("kubectl");
        let ports = format!("{local}:{port}");
        command.args(["port-forward", &format!("service/{service}"), &ports]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let forward = Forward { port: local, process };
        eventually("the port is forwarded", SOON, || std::net::TcpStream::connect(("127.0.0.1", local)).is_ok());
        forward
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::env::var_os("E2E_KEEP_FAILED").is_none() || !std::thread::panicking() {
            self.kubectl(&["delete", "namespace", &self.name, "--timeout", "120s"]);
        }
    }
}

struct Forward {
    port: u16,
    process: Child,
}

impl Forward {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An exported directory.
struct Exported<'a> {
    namespace: &'a Namespace,
    folder: tempfile::TempDir,
    name: String,
}

impl Exported<'_> {
    fn directory(&self) -> std::path::PathBuf {
        self.folder.path().join("kubernetes")
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.directory().join(path)).unwrap()
    }

    /// The blocks of the README in a language, of the section with that heading.
    fn blocks(&self, heading: &str, language: &str) -> Vec<String> {
        let readme = self.read("README.md");
        let section = readme.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        let fence = format!("```{language}\n");
        section.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_string()).collect()
    }

    fn start(&self) {
        self.namespace.shell(&self.directory(), &self.blocks("Start", "sh")[0]);
    }

    fn password(&self) -> String {
        let secret: Value = serde_saphyr::from_str(&self.read("secret.yaml")).unwrap();
        secret["stringData"]["grafana-password"].as_str().unwrap().to_string()
    }

    fn object(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    /// `status` or `doctor` through forwarded ports.
    fn run(&self, words: &[&str]) -> Ran {
        let influxdb = self.namespace.forward(&self.object("influxdb"), 8086);
        let grafana = self.namespace.forward(&self.object("grafana"), 3000);
        let password = self.folder.path().join("password");
        std::fs::write(&password, self.password()).unwrap();
        let source = format!("http://{}:8086", self.object("influxdb"));
        let (password, at) = (password.display().to_string(), [influxdb.url(), grafana.url()]);
        let options = [
            ("--name", self.name.as_str()),
            ("--influxdb-url", &at[0]),
            ("--grafana-url", &at[1]),
            ("--data-source-url", &source),
            ("--grafana-password-file", &password),
        ];
        Run::new(words.iter().copied().chain(options.into_iter().flat_map(|(name, value)| [name, value]))).run()
    }

    fn is_in_sync(&self, more: &[&str]) -> bool {
        self.run(&[&["status"], more].concat()).code == 0
    }

    fn grafana(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let grafana = self.namespace.forward(&self.object("grafana"), 3000);
        let header = basic("admin", &self.password());
        let (status, text) =
            http_with(method, &format!("{}{path}", grafana.url()), body, &[("authorization", &header)]).unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    fn query(&self, statement: &str) -> String {
        let influxdb = self.namespace.forward(&self.object("influxdb"), 8086);
        influxd::query(&influxdb.url(), "clipper", statement)
    }

    fn answers(&self, range: Range) -> Answers {
        let grafana = self.namespace.forward(&self.object("grafana"), 3000);
        panels(&grafana.url(), &self.password(), &self.name, range)
    }

    /// The identity of a role's pod.
    fn pod(&self, role: &str) -> String {
        let pod = self.namespace.get(&["pod", &format!("{}-0", self.object(role))]);
        pod["metadata"]["uid"].as_str().unwrap().to_string()
    }
}

/// Grafana's answers for every panel.
fn panels(url: &str, password: &str, uid: &str, range: Range) -> Answers {
    let header = basic("admin", password);
    answers(uid, "(m1|big_one)", range, |body| {
        let url = format!("{url}/api/ds/query");
        let (status, text) = http_with("POST", &url, Some(body), &[("authorization", &header)]).unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    })
}

/// Writes the overlay of the README beside the export and returns its directory.
fn overlay(it: &Exported<'_>) -> std::path::PathBuf {
    let folder = it.folder.path().join("overlay");
    std::fs::create_dir_all(&folder).unwrap();
    for block in it.blocks("Adapt", "yaml") {
        let place = block.lines().next().unwrap().strip_prefix("# overlay/").unwrap();
        let path = folder.join(place.trim_end_matches(", at its end"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, before + &block).unwrap();
    }
    folder
}

/// The overlay of the README is built and accepted, with the export's own Secret and with another one.
fn the_overlay_is_accepted(it: &Exported<'_>) {
    let folder = overlay(it);
    let path = folder.display().to_string();
    let built = it.namespace.kubectl(&["kustomize", &path]).expect(0).out;
    let objects: Vec<Value> = built.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect();
    let sets: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "StatefulSet").collect();
    assert_eq!(sets.len(), 2);
    for set in sets {
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["priorityClassName"], "monitoring");
        assert_eq!(pod["nodeSelector"]["disktype"], "ssd");
        assert_eq!(pod["imagePullSecrets"][0]["name"], "registry");
        let claim = &set["spec"]["volumeClaimTemplates"][0]["spec"];
        assert_eq!(claim["storageClassName"], "fast");
        let is_influxdb = set["metadata"]["name"] == it.object("influxdb").as_str();
        let size = if is_influxdb { "100Gi" } else { "1Gi" };
        assert_eq!(claim["resources"]["requests"]["storage"], size);
    }
    assert!(objects.iter().any(|object| object["kind"] == "Ingress"));
    // Where nothing exists yet, because a claim's class cannot change.
    let elsewhere = Namespace::new("overlay");
    let apply = ["apply", "--server-side", "--dry-run=server", "--kustomize"];
    let accepted = elsewhere.kubectl(&[&apply[..], &[path.as_str()]].concat()).expect(0);
    assert!(!accepted.err.contains("Warning"), "{}", accepted.err);
    for restore in [it.directory().join("restore"), folder.join("restore")].map(|path| path.display().to_string()) {
        let accepted = elsewhere.kubectl(&[&apply[..], &[restore.as_str()]].concat()).expect(0);
        assert!(!accepted.err.contains("Warning"), "{}", accepted.err);
    }
    let built = it.namespace.kubectl(&["kustomize", &folder.join("restore").display().to_string()]).expect(0).out;
    assert_eq!(built.matches("disktype: ssd").count(), 2, "{built}");
    assert_eq!(built.matches("name: registry").count(), 2, "{built}");
}

/// Exports an instance of that name without an engine.
fn export_alone(it: &Exported<'_>, more: &[&str]) -> Ran {
    let directory = it.directory().display().to_string();
    let words = ["export", "kubernetes", &directory, "--name", &it.name, "--registry", registry::address()];
    Run::new(words.iter().chain(more)).run()
}

/// The export, the overlay and the pods that restore a backup pass admission on a real API server.
#[test]
#[ignore = "needs an API server, which `tests/run kubernetes` starts"]
fn on_an_api_server() {
    let namespace = Namespace::new("accepted");
    let it = Exported { namespace: &namespace, folder: tempfile::tempdir().unwrap(), name: "team-a".into() };
    let directory = it.directory().display().to_string();
    let apply = ["apply", "--server-side", "--dry-run=server", "--kustomize", &directory];
    for more in [&[][..], &["--alerts", "--retention", "7d"]] {
        export_alone(&it, more).expect(0);
        let accepted = namespace.kubectl(&apply).expect(0);
        assert!(!accepted.err.contains("Warning"), "{}", accepted.err);
        for kind in ["statefulset.apps/team-a-influxdb", "secret/team-a-grafana", "job.batch/team-a-database"] {
            assert!(accepted.out.contains(kind), "{kind}: {}", accepted.out);
        }
    }
    the_overlay_is_accepted(&it);
    // The Secret comes from another source.
    std::fs::remove_file(it.directory().join("secret.yaml")).unwrap();
    let listing = it.read("kustomization.yaml").replace("- secret.yaml\n", "");
    std::fs::write(it.directory().join("kustomization.yaml"), listing).unwrap();
    export_alone(&it, &[]).expect(0);
    let accepted = namespace.kubectl(&apply).expect(0);
    assert!(!accepted.out.contains("secret/"), "{}", accepted.out);
}

/// Servers start, keep their data, follow changes of the export, take over an instance's data, and are removed.
#[test]
#[ignore = "needs a node, which `tests/run kubernetes` starts"]
fn on_a_node() {
    let source = Instance::new("kubernetes");
    source.first_up(&[]).expect(0);
    source.run(&["demo", "--backfill", "30m", "--models", "m1,big one"]).expect(0);
    let namespace = Namespace::new("metrics");
    let it = Exported { namespace: &namespace, folder: tempfile::tempdir().unwrap(), name: source.name.clone() };
    let directory = it.directory().display().to_string();
    let export = |more: &[&str]| {
        source.run(&[&["export", "kubernetes", &directory], more].concat()).expect(0);
    };

    // The first start.
    export(&[]);
    it.start();
    eventually("the cluster is in sync", SOON, || it.is_in_sync(&[]));
    eventually("the Job completes", SOON, || namespace.get(&["job"])["items"][0]["status"]["succeeded"] == 1);
    for object in
        namespace.get(&["configmap,job,networkpolicy,secret,service,statefulset"])["items"].as_array().unwrap()
    {
        let name = &object["metadata"]["name"];
        let labels = &object["metadata"]["labels"];
        assert!(name == "kube-root-ca.crt" || labels["app.kubernetes.io/managed-by"] == "clipper-metrics", "{object}");
    }

    // Pods that are deleted come back with their data.
    influxd::write(&namespace.forward(&it.object("influxdb"), 8086).url(), "clipper", "kept value=7");
    for role in ["influxdb", "grafana"] {
        let before = it.pod(role);
        namespace.kubectl(&["delete", "pod", &format!("{}-0", it.object(role)), "--wait"]).expect(0);
        let rollout = ["rollout", "status", &format!("statefulset/{}", it.object(role))];
        namespace.kubectl(&rollout).expect(0);
        assert_ne!(it.pod(role), before);
    }
    eventually("the cluster is in sync again", SOON, || it.is_in_sync(&[]));
    assert!(it.query("SELECT value FROM kept").contains(",7]"));
    // The next export's Job creates it again, without data, because only an empty volume takes data from elsewhere.
    it.query("DROP DATABASE clipper");

    // A changed export leaves nothing of the previous one.
    let mine = it.folder.path().join("mine.json");
    std::fs::write(&mine, json!({"title": "Mine", "uid": "mine", "panels": []}).to_string()).unwrap();
    let mine = mine.display().to_string();
    let rules = || it.grafana("GET", "/api/v1/provisioning/alert-rules", None).1.as_array().map_or(0, Vec::len);
    let with = ["--dashboard", &mine, "--alerts", "--retention", "30d"];
    export(&with);
    it.start();
    eventually("the larger export is in sync", SOON, || it.is_in_sync(&with));
    assert_eq!(rules(), 2);
    assert_eq!(it.grafana("GET", "/api/dashboards/uid/mine", None).0, 200);
    let dashboard = format!("{}-grafana-dashboard-2", it.name);
    assert!(namespace.names("configmap").contains(&dashboard));
    assert_eq!(namespace.names("job").len(), 1, "the Job of the previous export is gone");
    let pods = [it.pod("influxdb"), it.pod("grafana")];
    it.start();
    assert_eq!([it.pod("influxdb"), it.pod("grafana")], pods, "applying the same files again replaces nothing");
    export(&["--retention", "30d"]);
    it.start();
    eventually("the smaller export is in sync", SOON, || it.is_in_sync(&["--alerts=false", "--retention", "30d"]));
    assert_eq!(rules(), 0, "the alert rules are gone");
    assert_eq!(it.grafana("GET", "/api/dashboards/uid/mine", None).0, 404, "the dashboard is gone");
    assert!(!namespace.names("configmap").contains(&dashboard));
    assert_eq!(namespace.names("job").len(), 1);

    // A pod that never became ready stays until it is deleted, as the README says.
    let broken = format!("{}/missing:1", registry::address());
    let set = format!("{}-grafana", it.name);
    let image = || {
        let pod = namespace.kubectl(&["get", "pod", &format!("{set}-0"), "--output", "json"]).out;
        let pod: Value = serde_json::from_str(&pod).unwrap_or_default();
        pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_string()
    };
    let apply = || {
        let start = it.blocks("Start", "sh")[0].clone();
        let commands: Vec<&str> = start.lines().take(2).collect();
        namespace.shell(&it.directory(), commands.join("\n").trim_end_matches("&&"));
        eventually("the change is observed", SOON, || {
            let set = namespace.get(&["statefulset", &set]);
            set["status"]["observedGeneration"] == set["metadata"]["generation"]
        });
    };
    export(&["--retention", "30d", "--grafana-image", &broken]);
    apply();
    eventually("the broken pod replaces the previous one", SOON, || image() == broken);
    export(&["--retention", "30d"]);
    apply();
    assert_eq!(image(), broken);
    let delete = format!("kubectl delete pod {set}-0");
    assert!(it.read("README.md").contains(&format!("`{delete}`")));
    namespace.shell(&it.directory(), &delete);
    it.start();
    assert_ne!(image(), broken);
    eventually("the repaired cluster is in sync", SOON, || it.is_in_sync(&["--alerts=false", "--retention", "30d"]));

    the_overlay_is_accepted(&it);
    moves_data(&source, &it);

    // Removed, except for the claims.
    namespace.shell(&it.directory(), "kubectl delete --kustomize .");
    let kinds = "configmap,job,networkpolicy,secret,service,statefulset,pod";
    eventually("everything is removed", SOON, || namespace.names(kinds).is_empty());
    assert_eq!(namespace.names("persistentvolumeclaim").len(), 2);
}

/// The README's commands move the instance's data and users, and each refuses to replace newer data.
fn moves_data(source: &Instance, it: &Exported<'_>) {
    let range = Range::of_the_last(Duration::from_secs(25 * 60));
    let grafana = format!("http://127.0.0.1:{}", source.grafana_port);
    let before = panels(&grafana, "admin", &source.name, range);
    let folder = json!({"title": "Theirs", "uid": "theirs"}).to_string();
    assert_eq!(source.grafana("POST", "/api/folders", Some(&folder)).0, 200);
    let password = it.password();
    let [backup, restore] = it.blocks("Move the existing data here", "sh").try_into().unwrap();
    let backup = backup.replace("clipper-metrics backup", &format!("{} backup", program()));
    let ran = ran(&Command::new("sh").args(["-ec", &backup]).current_dir(it.folder.path()).output().unwrap());
    ran.expect(0);
    let archive = it.folder.path().join(format!("{}.tar.gz", it.name));
    let whole = std::fs::read(&archive).unwrap();
    let replicas = |role: &str| it.namespace.get(&["statefulset", &it.object(role)])["spec"]["replicas"].clone();
    let fills: Vec<&str> =
        restore.lines().filter(|line| line.contains("kubectl exec")).map(|line| line.trim_end_matches("&&")).collect();
    let refuses = |line: &str, why: &str| {
        let refused = it.namespace.try_shell(&it.directory(), line);
        assert_ne!(refused.code, 0, "{line}");
        assert!(refused.err.contains(why) && refused.err.contains("nothing was changed"), "{}", refused.err);
    };
    // A cut file changes nothing, and the servers do not start beside a failed restore.
    std::fs::write(&archive, &whole[..whole.len() - 100]).unwrap();
    refuses(&restore, "not a complete backup");
    assert_eq!(["influxdb", "grafana"].map(replicas), [json!(0), json!(0)]);
    std::fs::write(&archive, &whole).unwrap();
    // Two runs never write at once.
    let pod = format!("{}-restore-influxdb", it.name);
    let inside = |words: &[&str]| {
        it.namespace.kubectl(&[&["exec", &pod, "--"], words, &["/tmp/clipper-metrics-restore"]].concat()).expect(0);
    };
    inside(&["mkdir"]);
    refuses(fills[0], "another run is still restoring");
    inside(&["rm", "-r"]);
    // The second volume failed: the repeated block leaves the first one as it is.
    it.namespace.shell(&it.directory(), fills[0]);
    let moved = it.namespace.shell(&it.directory(), &restore);
    assert!(moved.out.contains("InfluxDB's data was restored from this file before"), "{}", moved.out);
    eventually("the cluster is in sync with the moved data", SOON, || it.is_in_sync(&["--retention", "30d"]));
    assert_eq!(it.answers(range), before, "every panel shows what it showed");
    assert_eq!(it.grafana("GET", "/api/folders/theirs", None).0, 200, "Grafana's own content is there");
    assert_eq!(it.password(), password);
    assert!(it.run(&["doctor"]).out.contains("panels"), "doctor runs");
    assert!(!it.namespace.names("pod").iter().any(|name| name.contains("restore")));
    assert!(it.query("SHOW RETENTION POLICIES").contains("720h"), "the export's retention, not the archive's");

    // Another time, each command leaves the newer data alone.
    // More than the connection buffers: `kubectl exec` would wait until its input is read.
    std::fs::write(&archive, vec![0; 16 << 20]).unwrap();
    refuses(&restore, "already contains metrics");
    for line in fills {
        refuses(line, "");
    }
    // The commands that start the servers without the data.
    let lines: Vec<&str> = restore.lines().collect();
    it.namespace.shell(&it.directory(), &lines[lines.len() - 6..].join("\n"));
    assert_eq!(it.answers(range), before);
}
