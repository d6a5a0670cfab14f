//! Exports without servers. `e2e/export.rs` uses the files.

use std::path::Path;

use serde_json::{Value, json};

use crate::servers::user_dashboards::export as shared;
use crate::support::context::TestContext;
use crate::support::run::{NO_ENGINE, Ran, Run};

/// A home directory whose current context is an engine that does not exist.
pub(crate) fn home_without_engine() -> TestContext {
    let home = TestContext::new();
    home.write(".docker/config.json", r#"{"currentContext": "gone"}"#);
    let endpoint = json!({"Name": "gone", "Endpoints": {"docker": {"Host": NO_ENGINE}}});
    // Docker names the folder by the SHA-256 of the context's name.
    let meta = "283bb9deef02e6843abfb538efa1eca70801bd8a701c3f98191e123496339247";
    home.write(&format!(".docker/contexts/meta/{meta}/meta.json"), endpoint.to_string());
    home
}

pub(crate) fn without_engine(home: &TestContext, words: &[&str]) -> Ran {
    // An empty variable counts as unset.
    Run::new(words).env("HOME", &home.path("")).env("DOCKER_HOST", "").run()
}

/// A YAML file with one document.
pub(crate) fn yaml(home: &TestContext, path: &str) -> Value {
    serde_saphyr::from_str(&home.read(path)).unwrap()
}

#[test]
fn without_an_engine_new_servers_can_be_exported_and_missing_data_is_reported() {
    let home = home_without_engine();
    let mut record = home.record();
    for kind in ["provisioning", "swarm", "kubernetes"] {
        let directory = home.path(kind);
        record.add("no engine", without_engine(&home, &["export", kind, &directory]).expect(0));
        // An engine that the user names must be reachable.
        let named = ["export", kind, &directory, "-H", NO_ENGINE];
        record.add("the named engine does not exist", without_engine(&home, &named).expect(1));
    }
    // The target Grafana was not inspected: it may have a default data source, and does not start with two.
    let source = yaml(&home, "provisioning/datasources/clipper-metrics.yaml");
    assert_eq!(source["datasources"][0]["isDefault"], false, "{source}");
    assert!(home.read("provisioning/README.md").contains("Only containers of the instance know that name"));
    // A new Grafana has none.
    let source = yaml(&home, "swarm/provisioning/datasources/clipper-metrics.yaml");
    assert_eq!(source["datasources"][0]["isDefault"], true, "{source}");
    // An export made with more data is not replaced by one with less.
    let list = home.directory().join("swarm/.clipper-metrics-export");
    let partial = std::fs::read_to_string(&list).unwrap();
    assert!(partial.starts_with("swarm clipper-metrics partial\n"), "{partial}");
    std::fs::write(&list, partial.replace(" partial\n", " complete\n")).unwrap();
    let less = without_engine(&home, &["export", "swarm", &home.path("swarm")]).expect(2);
    record.add("an earlier export has more data", less);
    let directory = home.path("compose");
    record.add("no engine", without_engine(&home, &["export", "compose", &directory]).expect(1));
    record.section();
    assert!(!Path::new(&directory).exists());
}

#[test]
fn parts_of_a_dashboard_that_cannot_work_are_reported() {
    let home = home_without_engine();
    let dashboard = |title: &str| {
        let panel = json!({"type": "stat", "title": "sun", "datasource": {"type": "sun", "uid": "${DS_SUN}"}});
        json!({"uid": title, "title": title, "panels": [panel]}).to_string()
    };
    let paths = ["One", "Two"].map(|title| home.write(&format!("{title}.json"), dashboard(title)));
    for kind in ["provisioning", "swarm", "kubernetes"] {
        let words = ["export", kind, &home.path(kind), "--dashboard", &paths[0], "--dashboard", &paths[1]];
        let ran = without_engine(&home, &words).expect(0);
        for title in ["One", "Two"] {
            let note = format!("note: dashboard \"{title}\": it needs a data source of type \"sun\" (DS_SUN)");
            assert_eq!(ran.err.matches(&note).count(), 1, "{kind}: {}", ran.err);
        }
    }
}

#[test]
fn generated_and_custom_passwords_are_kept_and_the_public_default_is_refused() {
    let home = home_without_engine();
    let swarm = home.directory().join("swarm");
    let directory = swarm.display().to_string();
    std::fs::create_dir(&swarm).unwrap();
    std::fs::write(swarm.join(".gitignore"), "grafana-password\n").unwrap();
    let export = |more: &[&str]| {
        let words: Vec<&str> = ["export", "swarm", &directory].into_iter().chain(more.iter().copied()).collect();
        without_engine(&home, &words)
    };
    let mut record = home.record();
    export(&[]).expect(0);
    let first = home.read("swarm/grafana-password");
    assert_eq!(first.len(), 32);
    record.add("nothing changed", export(&[]).expect(0));
    export(&["--retention", "7d"]).expect(0);
    assert_eq!(home.read("swarm/grafana-password"), first, "a change elsewhere leaves it");
    std::fs::write(swarm.join("grafana-password"), "my own\n").unwrap();
    export(&[]).expect(0);
    assert_eq!(home.read("swarm/grafana-password").trim(), "my own");
    let [option, file] = home.grafana_password("admin");
    record.add("the public default in a file", export(&[&option, &file]).expect(2));
    std::fs::write(swarm.join("grafana-password"), "admin").unwrap();
    record.add("the public default in the export", export(&[]).expect(2));
    // As in a clone of a Git repository: another password would not open the existing Grafana.
    std::fs::remove_file(swarm.join("grafana-password")).unwrap();
    record.add("the password is missing", export(&[]).expect(2));
    std::fs::write(swarm.join("grafana-password"), "my own\n").unwrap();
    let kubernetes = home.directory().join("kubernetes");
    let words = ["export", "kubernetes", &kubernetes.display().to_string()].map(String::from);
    without_engine(&home, &words.each_ref().map(String::as_str)).expect(0);
    let first = home.read("kubernetes/secret.yaml");
    let again = || without_engine(&home, &words.each_ref().map(String::as_str));
    again().expect(0);
    assert_eq!(home.read("kubernetes/secret.yaml"), first);
    let with =
        |line: &str| std::fs::write(kubernetes.join("secret.yaml"), first.replace(first.lines().last().unwrap(), line));
    with("  grafana-password: \"my own\"").unwrap();
    again().expect(0);
    let last_line = || home.read("kubernetes/secret.yaml").lines().last().unwrap().to_string();
    assert_eq!(last_line(), "  grafana-password: \"my own\"");
    with("  grafana-password: my own, unquoted").unwrap();
    again().expect(0);
    assert_eq!(last_line(), "  grafana-password: \"my own, unquoted\"");
    for admin in ["admin", "\"admin\""] {
        with(&format!("  grafana-password: {admin}")).unwrap();
        record.add("the public default in the export", again().expect(2));
    }
    record.section();
}

/// The beginning of a digest in the list of an export.
fn short_digest(text: &str, length: usize) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    digest[..length].to_string()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn an_interrupted_first_export_is_repeated_with_its_secret() {
    let home = home_without_engine();
    let mut record = home.record();
    for (kind, secret, used_by) in
        [("swarm", "grafana-password", "stack.yaml"), ("kubernetes", "secret.yaml", "kustomization.yaml")]
    {
        let folder = home.directory().join(kind);
        let words = ["export", kind, &folder.display().to_string()].map(String::from);
        let export = || without_engine(&home, &words.each_ref().map(String::as_str));
        export().expect(0);
        let first = home.read(folder.join(secret));
        // It ended after the list and the secret, and then after the list.
        std::fs::remove_file(folder.join(used_by)).unwrap();
        export().expect(0);
        assert_eq!(home.read(folder.join(secret)), first);
        for path in [secret, used_by] {
            std::fs::remove_file(folder.join(path)).unwrap();
        }
        record.add("the secret and its use are missing", export().expect(2));
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                std::fs::remove_dir_all(entry.path()).unwrap();
            } else if entry.file_name() != ".clipper-metrics-export" {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        record.add("the first export was interrupted", export().expect(0));
        assert_ne!(home.read(folder.join(secret)), first);
        assert!(home.read(folder.join(used_by)).contains(secret), "{kind}");
        // A server may have been created from complete files.
        std::fs::remove_file(folder.join(secret)).unwrap();
        record.add("the secret is missing", export().expect(2));
    }
    record.section();
}

#[test]
fn a_pasted_block_that_moves_data_ends_at_its_first_failure() {
    let home = home_without_engine();
    for kind in ["swarm", "kubernetes"] {
        let folder = home.directory().join(kind);
        without_engine(&home, &["export", kind, &folder.display().to_string()]).expect(0);
        let readme = home.read(folder.join("README.md"));
        let section = readme.split("\n## Move the existing data here\n").nth(1).unwrap();
        let block = section.split("```sh\n").nth(2).unwrap().split("\n```").next().unwrap();
        let lines: Vec<&str> = block.lines().collect();
        let (last, others) = lines.split_last().unwrap();
        assert!(lines.len() > 5 && others.iter().all(|line| line.ends_with(" &&")) && !last.ends_with("&&"), "{block}");
    }
}

#[test]
fn a_readme_does_not_replace_the_only_copy_of_a_working_password() {
    let home = home_without_engine();
    let directory = home.path("swarm");
    let secret = home.write("secret", "geheim");
    let external = ["--influxdb-url", "http://127.0.0.1:8086", "--data-source-url", "http://db:8086"];
    let login = ["--influxdb-user", "me", "--influxdb-password-file", &secret];
    for more in [&[][..], &[&external[..], &login].concat()] {
        let words = [&["export", "swarm", &directory], more].concat();
        without_engine(&home, &words).expect(0);
        let readme = home.read("swarm/README.md");
        assert!(readme.contains("first change it in Grafana"), "{readme}");
        assert!(!readme.contains("DIRECTORY --grafana-password-file"), "{readme}");
        assert_eq!(readme.contains("DIRECTORY --influxdb-password-file FILE"), !more.is_empty(), "{readme}");
    }
}

#[test]
fn a_secret_that_a_user_replaced_or_removed_is_left_to_them() {
    let home = home_without_engine();
    let kubernetes = home.directory().join("kubernetes");
    let directory = kubernetes.display().to_string();
    let export = |more: &[&str]| {
        let words: Vec<&str> = ["export", "kubernetes", &directory].into_iter().chain(more.iter().copied()).collect();
        without_engine(&home, &words)
    };
    let secret = || home.read("kubernetes/secret.yaml");
    let lists_it = || {
        yaml(&home, "kubernetes/kustomization.yaml")["resources"].as_array().unwrap().contains(&json!("secret.yaml"))
    };
    let mut record = home.record();
    export(&[]).expect(0);
    let exported = secret();
    assert!(lists_it());
    let [option, file] = home.grafana_password("admin");
    std::fs::write(&file, "a new one").unwrap();
    // Files that other tools write in its place, and edits of a user.
    let encrypted = exported.replace("  grafana-password: \"", "    grafana-password: \"ENC[AES256_GCM,data:")
        + "sops:\n    version: 3.9.0\n";
    let encoded = exported.replace("stringData:", "data:");
    let a_list = exported.split("  grafana-password").next().unwrap().to_string() + "  grafana-password: [x]\n";
    let sealed = "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata:\n  name: clipper-metrics-grafana\n";
    let immutable = format!("{exported}immutable: true\n");
    for theirs in [encrypted.as_str(), &encoded, &a_list, sealed, &immutable] {
        std::fs::write(kubernetes.join("secret.yaml"), theirs).unwrap();
        open_to_all(&kubernetes.join("secret.yaml"));
        for more in [&[][..], &["--retention", "7d"], &[]] {
            export(more).expect(0);
            assert_eq!(secret(), theirs);
        }
        assert!(lists_it());
        // Any part of it may be a password: it is private, and the list has no digest of it.
        assert_eq!(mode(&kubernetes.join("secret.yaml")), 0o600);
        let list = home.read("kubernetes/.clipper-metrics-export");
        let line = list.lines().find(|line| line.ends_with(" secret.yaml")).unwrap();
        assert_eq!(line, format!("{} secret.yaml", short_digest("", line.find(' ').unwrap())));
        record.add("the Secret was replaced", export(&[]).expect(0));
        record.add("the Secret was replaced", export(&[&option, &file]).expect(2));
        assert_eq!(secret(), theirs);
    }
    // Without the file and its line, an overlay or an operator provides the Secret. A file alone may be missing because
    // this is a clone of a Git repository.
    std::fs::remove_file(kubernetes.join("secret.yaml")).unwrap();
    let listing = home.read("kubernetes/kustomization.yaml");
    record.add("the Secret is missing", export(&[]).expect(2));
    assert_eq!(home.read("kubernetes/kustomization.yaml"), listing, "nothing was changed");
    std::fs::write(kubernetes.join("kustomization.yaml"), listing.replace("- secret.yaml\n", "")).unwrap();
    assert!(!lists_it());
    for more in [&[][..], &["--retention", "7d"], &[]] {
        record.add("the Secret and its line were removed", export(more).expect(0));
        assert!(!kubernetes.join("secret.yaml").exists() && !lists_it());
    }
    let readme = home.read("kubernetes/README.md");
    assert!(readme.contains("in the Secret `clipper-metrics-grafana`, which is not from this export"), "{readme}");
    let grafana = home.read("kubernetes/grafana.yaml");
    assert!(grafana.contains("secretName: clipper-metrics-grafana"), "{grafana}");
    // The password of an external InfluxDB is then in that Secret as well.
    let external = ["--influxdb-url", "http://127.0.0.1:8086", "--data-source-url", "http://db:8086"];
    export(&[&external[..], &["--influxdb-user", "me"]].concat()).expect(0);
    assert!(home.read("kubernetes/grafana.yaml").contains("key: influxdb-password"));
    assert!(home.read("kubernetes/README.md").contains("`influxdb-password`"));
    // A supplied password brings the file back.
    export(&[&option, &file]).expect(0);
    assert!(lists_it() && secret().contains("grafana-password: \"a new one\""));
    export(&[]).expect(0);
    assert!(secret().contains("\"a new one\""));
    record.section();
}

#[test]
fn a_repeated_export_keeps_the_login_to_influxdb() {
    let home = home_without_engine();
    let mut record = home.record();
    let secret = home.write("secret", "at-influxdb");
    for format in ["swarm", "kubernetes", "provisioning"] {
        let directory = home.path(format);
        let external = ["--influxdb-url", "http://127.0.0.1:1", "--data-source-url", "http://db:8086"];
        let export = |more: &[&str]| {
            let words = [&["export", format, &directory], &external[..], more].concat();
            without_engine(&home, &words)
        };
        export(&["--influxdb-user", "$me", "--influxdb-password-file", &secret]).expect(0);
        record.add("the user is missing", export(&[]).expect(2));
        // InfluxDB moves to a container, which has no users.
        if format != "provisioning" {
            without_engine(&home, &["export", format, &directory]).expect(0);
        }
    }
    record.section();
}

#[test]
fn a_changed_secret_of_a_swarm_gets_the_next_number() {
    let home = home_without_engine();
    let swarm = home.directory().join("swarm");
    let directory = swarm.display().to_string();
    let external = ["--influxdb-url", "http://127.0.0.1:8086", "--data-source-url", "http://db:8086"];
    let export = |password: &str, more: &[&str]| {
        let login = ["--influxdb-user", "me", "--influxdb-password-file", &home.write("secret", password)];
        let words = [&["export", "swarm", &directory], &external[..], &login, more].concat();
        without_engine(&home, &words).expect(0);
        let stack: Value = serde_saphyr::from_str(&home.read("swarm/stack.yaml")).unwrap();
        let name = |name: &str| stack["secrets"][name]["name"].as_str().unwrap().to_string();
        // The path in the container does not change.
        assert!(stack["services"]["grafana"]["secrets"].to_string().contains(r#""target":"influxdb-password""#));
        [name("grafana-password"), name("influxdb-password")]
    };
    let names = |grafana: u32, influxdb: u32| {
        [format!("clipper-metrics-grafana-password-{grafana}"), format!("clipper-metrics-influxdb-password-{influxdb}")]
    };
    assert_eq!(export("one", &[]), names(1, 1));
    assert_eq!(export("one", &["--retention", "7d"]), names(1, 1), "another change leaves them");
    assert_eq!(export("two", &[]), names(1, 2));
    assert_eq!(export("one", &[]), names(1, 3), "an earlier content does not reuse its number");
    // An editor ends a file with a line break, which the deployed secret then has and the exported one has not.
    std::fs::write(swarm.join("grafana-password"), "my own\n").unwrap();
    assert_eq!(export("one", &[]), names(2, 3));
    assert_eq!(export("one", &[]), names(2, 3));
    // An export of a release without numbers.
    let stack = swarm.join("stack.yaml");
    let text = std::fs::read_to_string(&stack).unwrap();
    let old: String =
        text.lines().filter(|line| !line.contains("-password-")).map(|line| format!("{line}\n")).collect();
    assert_ne!(text, old);
    let list = swarm.join(".clipper-metrics-export");
    let listed = std::fs::read_to_string(&list).unwrap();
    let line = listed.lines().find(|line| line.ends_with(" stack.yaml")).unwrap();
    let length = line.split(' ').next().unwrap().len();
    std::fs::write(&list, listed.replace(line, &format!("{} stack.yaml", short_digest(&old, length)))).unwrap();
    std::fs::write(&stack, old).unwrap();
    assert_eq!(export("one", &[]), names(1, 1));
}

#[test]
fn names_that_a_format_does_not_accept_are_refused() {
    let home = home_without_engine();
    let directory = home.path("x");
    let mut record = home.record();
    for name in ["1st", "end-"] {
        let words = ["export", "kubernetes", &directory, "--name", name];
        record.add("a name that Kubernetes rejects", without_engine(&home, &words).expect(2));
    }
    let organisation = ["export", "swarm", &directory, "--grafana-org", "Team"];
    record.add("an organisation", without_engine(&home, &organisation).expect(2));
    let here = ["export", "swarm", &directory, "--influxdb-url", "http://127.0.0.1:8086"];
    record.add("an address on loopback", without_engine(&home, &here).expect(2));
    let elsewhere = [here.as_slice(), &["--data-source-url", "http://db:8086"]].concat();
    without_engine(&home, &elsewhere).expect(0);
    let secret = home.write("secret", "ge$heim");
    let login = ["--influxdb-user", "me", "--influxdb-password-file", &secret];
    for kind in ["swarm", "kubernetes"] {
        let words = [&["export", kind, &directory], &elsewhere[3..], &login[..2]].concat();
        record.add("a user without a password", without_engine(&home, &words).expect(2));
    }
    let with_dollar = without_engine(&home, &[elsewhere.as_slice(), &login].concat()).expect(2);
    record.add("a password with a dollar sign", with_dollar);
    record.section();
    let stack = home.read("x/stack.yaml");
    assert!(!stack.contains("influxdb:") && !stack.contains("database:"), "{stack}");
}

#[test]
fn objects_of_earlier_exports_in_a_cluster_are_found_by_their_label() {
    let home = home_without_engine();
    let (mine, directory) = (home.write("mine.json", shared("mine", "Mine").to_string()), home.path("k8s"));
    let export = |more: &[&str]| {
        let words = [&["export", "kubernetes", &directory, "--name", "team-a"], more].concat();
        without_engine(&home, &words).expect(0);
        let objects = |path: &str| -> Vec<Value> {
            let text = home.read(format!("k8s/{path}"));
            text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
        };
        let all = ["database.yaml", "grafana.yaml", "influxdb.yaml", "provisioning.yaml"].map(objects).concat();
        let readme = home.read("k8s/README.md");
        let (kinds, rest) = readme.split_once(" &&\nkubectl delete ").unwrap().1.split_once(" --selector '").unwrap();
        for object in &all {
            let kind = object["kind"].as_str().unwrap().to_lowercase();
            assert!(kinds.split(',').any(|pruned| pruned == kind), "{kind}");
            assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/managed-by"], "clipper-metrics", "{kind}");
        }
        assert!(!kinds.contains("secret") && !kinds.contains("persistentvolumeclaim"), "{kinds}");
        // Another tool may manage the Secret, which no command may delete.
        assert!(!home.read("k8s/secret.yaml").contains("clipper-metrics/export"));
        (all, rest.split('\'').next().unwrap().to_string())
    };
    // As `kubectl` interprets a selector.
    let selects = |selector: &str, object: &Value| {
        selector.split(',').all(|term| match term.split_once("!=") {
            Some((name, value)) => object["metadata"]["labels"][name] != value,
            None => term.split_once('=').is_some_and(|(name, value)| object["metadata"]["labels"][name] == value),
        })
    };
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_string();
    let (before, first) = export(&["--dashboard", &mine, "--database", "one"]);
    assert!(before.iter().any(|object| name(object) == "team-a-grafana-dashboard-2"), "{before:?}");
    assert_eq!(
        export(&["--dashboard", &mine, "--database", "one"]),
        (before.clone(), first.clone()),
        "nothing changed"
    );
    let (now, selector) = export(&["--database", "two"]);
    assert!(now.iter().all(|object| !selects(&selector, object)), "what is applied stays: {selector}");
    let kept: Vec<String> = now.iter().map(name).collect();
    let gone: Vec<String> = before.iter().map(name).filter(|name| !kept.contains(name)).collect();
    assert_eq!(gone.len(), 2, "the second dashboard and the Job of the other database: {gone:?}");
    assert!(before.iter().all(|object| selects(&selector, object)), "{selector}");
    // Objects of releases without that label are outdated, but objects of other instances are not.
    let mut other = before[0].clone();
    other["metadata"]["labels"].as_object_mut().unwrap().remove("clipper-metrics/export");
    assert!(selects(&selector, &other));
    other["metadata"]["labels"]["app.kubernetes.io/instance"] = json!("team-b");
    assert!(!selects(&selector, &other));
    let job = now.iter().find(|object| object["kind"] == "Job").unwrap();
    assert!(job["spec"]["ttlSecondsAfterFinished"].as_u64().is_some_and(|seconds| seconds > 0));
    for value in now.iter().map(|object| object["metadata"]["labels"]["clipper-metrics/export"].as_str().unwrap()) {
        assert!(value.len() <= 63 && value.chars().all(|c| c.is_ascii_alphanumeric()), "{value} is not a valid label");
    }
}

#[cfg(unix)]
#[test]
fn a_directory_whose_name_is_not_text_is_written_to() {
    use std::os::unix::ffi::OsStrExt as _;
    let home = home_without_engine();
    let directory = home.directory().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    let mut command = Run::new(["export", "provisioning"]).env("HOME", &home.path("")).env("DOCKER_HOST", "").command();
    let ended = crate::support::run::ran(&command.arg(&directory).output().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(directory.join(".clipper-metrics-export").is_file());
}

#[test]
fn kubernetes_changes_no_dollar_sign() {
    let home = home_without_engine();
    let words = ["export", "kubernetes", &home.path("k"), "--database", "a$$b$(c)"];
    without_engine(&home, &words).expect(0);
    let job = yaml(&home, "k/database.yaml");
    let command = &job["spec"]["template"]["spec"]["containers"][0]["command"];
    assert_eq!(command[4], "CREATE DATABASE \"a$$$$b$$(c)\"", "{command}");
}
