//! Exports without an engine: the objects read from an external Grafana, on its double in every
//! version, and the files if no server can be reached. `e2e/export.rs` uses the files.

use std::path::Path;

use serde_json::{Value, json};

use crate::external::Servers;
use crate::support::double::Version;
use crate::support::run::{Ran, Run};
use crate::user_dashboards::export as shared;

const DASHBOARD: &str = "/api/dashboards/uid/clipper-metrics";

fn read(folder: &Path, path: &str) -> String {
    std::fs::read_to_string(folder.join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// Options with an account.
fn account(folder: &Path) -> [String; 2] {
    let file = folder.join("password");
    std::fs::write(&file, "admin").unwrap();
    ["--grafana-password-file".into(), file.display().to_string()]
}

fn provisioning(it: &Servers, into: &Path, more: &[&str]) -> Ran {
    let directory = into.display().to_string();
    let words: Vec<&str> = ["export", "provisioning", &directory].into_iter().chain(more.iter().copied()).collect();
    it.run(&words)
}

#[test]
fn a_grafana_provisioned_from_the_files_is_in_sync_on_every_version() {
    for version in Version::ALL {
        let it = Servers::start(version);
        let home = tempfile::tempdir().unwrap();
        it.influxd.query("", "CREATE DATABASE \"it's-$HOME\"");
        let files = home.path().join("files");
        let mine = home.path().join("mine.json");
        std::fs::write(&mine, shared("mine", "Mine").to_string()).unwrap();
        let (mine, alerts) = (mine.display().to_string(), version > Version::V7);
        let mut with = vec!["--database", "it's $HOME", "--dashboard", &mine, "--grafana-folder", "Cost $HOME"];
        if alerts {
            with.push("--alerts");
        }
        let ran = provisioning(&it, &files, &with).expect(0);
        assert!(ran.err.contains("Grafana is not read without"), "{}", ran.err);
        let double = || it.double.lock().unwrap();
        assert!(double().seen().iter().all(|seen| !seen.signed_in), "{version:?}: no account was supplied");
        double().provision_from(&files);
        let status: Vec<&str> = ["status", "--output", "json"].into_iter().chain(with.clone()).collect();
        let status = it.run(&status).expect(0).json();
        assert_eq!(status["data_source"]["query"], "ok", "{version:?}");
        assert_eq!(status["user_dashboards"][0]["state"], "in_sync", "{version:?}");
        let (_, found) = it.ask("GET", DASHBOARD, None);
        assert_eq!(found["meta"]["folderTitle"], "Cost $HOME", "{version:?}");
        assert_eq!(found["meta"]["provisioned"], true, "{version:?}");
    }
}

#[test]
fn with_an_account_edited_dashboards_are_exported_with_edits_and_folders() {
    for version in Version::ALL {
        let it = Servers::start(version);
        let home = tempfile::tempdir().unwrap();
        it.run(&["up"]).expect(0);
        let (_, folder) = it.ask("POST", "/api/folders", Some(&json!({"title": "Theirs", "uid": "theirs"})));
        let (_, found) = it.ask("GET", DASHBOARD, None);
        let mut dashboard = found["dashboard"].clone();
        dashboard["panels"][0]["title"] = json!("edited");
        let body = json!({"dashboard": dashboard, "overwrite": true, "folderId": folder["id"], "folderUid": "theirs"});
        assert_eq!(it.ask("POST", "/api/dashboards/db", Some(&body)).0, 200, "{version:?}");
        let files = home.path().join("files");
        let [option, file] = account(home.path());
        provisioning(&it, &files, &[&option, &file]).expect(0);
        let exported: Value =
            serde_json::from_str(&read(&files, "dashboards/clipper-metrics/clipper-metrics.json")).unwrap();
        assert_eq!(exported["panels"][0]["title"], "edited", "{version:?}");
        assert!(exported.get("id").is_none() && exported.get("version").is_none(), "{version:?}");
        let provider = read(&files, "dashboards/clipper-metrics.yaml");
        assert!(provider.contains("folder: Theirs\n"), "{version:?}: {provider}");
        assert!(read(&files, "README.md").contains("edited in Grafana"));
        // The default data source stays the default.
        assert!(read(&files, "datasources/clipper-metrics.yaml").contains("isDefault: true"));
    }
}

#[test]
fn files_that_would_replace_objects_of_other_owners_are_not_written() {
    let it = Servers::start(Version::V12);
    let home = tempfile::tempdir().unwrap();
    let body = json!({"dashboard": {"uid": "clipper-metrics", "title": "Theirs", "panels": []}});
    it.ask("POST", "/api/dashboards/db", Some(&body));
    let [option, file] = account(home.path());
    let files = home.path().join("files");
    let refused = provisioning(&it, &files, &[&option, &file]).expect(1);
    assert!(refused.err.contains("Theirs"), "{}", refused.err);
    assert!(!files.exists());
    let wrong = home.path().join("wrong");
    std::fs::write(&wrong, "not the password").unwrap();
    let refused = provisioning(&it, &files, &[&option, &wrong.display().to_string()]).expect(1);
    assert!(refused.err.contains("rejected the login"), "{}", refused.err);
    assert!(!files.exists());
}

#[test]
fn an_external_influxdb_is_described_without_its_password() {
    let it = Servers::start(Version::V12);
    let home = tempfile::tempdir().unwrap();
    let secret = home.path().join("secret");
    std::fs::write(&secret, "ge$heim").unwrap();
    let files = home.path().join("files");
    let secret = secret.display().to_string();
    let more = ["--influxdb-user", "me", "--influxdb-password-file", &secret, "--data-source-url", "http://far:8086"];
    provisioning(&it, &files, &more).expect(0);
    let source: Value = serde_saphyr::from_str(&read(&files, "datasources/clipper-metrics.yaml")).unwrap();
    let source = &source["datasources"][0];
    assert_eq!((&source["url"], &source["user"]), (&json!("http://far:8086"), &json!("me")));
    assert_eq!(source["secureJsonData"]["password"], "$CLIPPER_METRICS_INFLUXDB_PASSWORD");
    assert!(!read(&files, "datasources/clipper-metrics.yaml").contains("heim"));
    assert!(read(&files, "README.md").contains("CLIPPER_METRICS_INFLUXDB_PASSWORD"));
    for kind in ["swarm", "kubernetes"] {
        let other = home.path().join(kind).display().to_string();
        let refused = it.run(&["export", kind, &other]).expect(2);
        assert!(refused.err.contains("export provisioning DIRECTORY"), "{}", refused.err);
    }
}

#[test]
fn files_are_written_only_for_the_named_organisation() {
    for version in Version::ALL {
        let it = Servers::start(version);
        let home = tempfile::tempdir().unwrap();
        let files = home.path().join("files");
        let [option, file] = account(home.path());
        // Without an account, its number is unknown.
        let refused = provisioning(&it, &files, &["--grafana-org", "Team"]).expect(2);
        assert!(refused.err.contains("\"Team\"") && refused.err.contains("--grafana-password-file"), "{}", refused.err);
        let absent = provisioning(&it, &files, &["--grafana-org", "Team", &option, &file]).expect(1);
        assert!(absent.err.contains("no organisation \"Team\""), "{version:?}: {}", absent.err);
        assert!(!files.exists());
        let (_, created) = it.ask("POST", "/api/orgs", Some(&json!({"name": "Team"})));
        provisioning(&it, &files, &["--grafana-org", "Team", &option, &file]).expect(0);
        for path in ["datasources/clipper-metrics.yaml", "dashboards/clipper-metrics.yaml"] {
            let file: Value = serde_saphyr::from_str(&read(&files, path)).unwrap();
            let entry = [&file["datasources"][0], &file["providers"][0]].into_iter().find(|one| one.is_object());
            assert_eq!(entry.unwrap()["orgId"], created["orgId"], "{version:?}: {path}");
        }
        it.double.lock().unwrap().provision_from(&files);
        it.run(&["status", "--grafana-org", "Team"]).expect(3);
        it.influxd.query("", "CREATE DATABASE clipper");
        it.run(&["status", "--grafana-org", "Team"]).expect(0);
    }
    // The Grafana that gets the files does not belong to this instance.
    let home = home_without_engine();
    let directory = home.path().join("x").display().to_string();
    let refused = without_engine(&home, &["export", "provisioning", &directory, "--grafana-org", "Team"]).expect(2);
    assert!(refused.err.contains("--grafana-url and --grafana-token-file"), "{}", refused.err);
}

#[test]
fn provisioned_alert_rules_are_reported_and_deleted_by_later_files() {
    for version in Version::ALL.into_iter().filter(|version| *version > Version::V7) {
        let it = Servers::start(version);
        let home = tempfile::tempdir().unwrap();
        it.influxd.query("", "CREATE DATABASE clipper");
        let files = home.path().join("files");
        let take = |more: &[&str]| {
            provisioning(&it, &files, more).expect(0);
            it.double.lock().unwrap().provision_from(&files);
        };
        let rules = || it.ask("GET", "/api/v1/provisioning/alert-rules", None).1.as_array().unwrap().len();
        take(&[]);
        assert!(!files.join("alerting").exists(), "{version:?}: none were made there");
        take(&["--alerts"]);
        assert_eq!(rules(), 2, "{version:?}");
        it.run(&["status", "--alerts"]).expect(0);
        // They do not count as a user's edit.
        let status = it.run(&["status", "--alerts=false"]).expect(0);
        assert!(status.out.contains("from a file") && !status.out.contains("edited"), "{version:?}: {}", status.out);
        // They block nothing, and every run explains how to remove them.
        let up = it.run(&["up", "--alerts=false"]).expect(0);
        assert!(up.err.contains("export provisioning DIRECTORY --alerts=false"), "{version:?}: {}", up.err);
        let down = it.run(&["down", "--deregister"]).expect(0);
        for what in ["dashboard clipper-metrics", "data source clipper-metrics", "alert rule"] {
            assert!(down.err.contains(&format!("Grafana's {what}")), "{version:?}, {what}: {}", down.err);
        }
        assert_eq!(rules(), 2, "{version:?}");
        it.run(&["status", "--alerts"]).expect(0);
        take(&[]);
        assert_eq!(rules(), 0, "{version:?}");
        it.run(&["status", "--alerts=false"]).expect(0);
        // A repeated export changes nothing, and a Grafana that never had the rules accepts the
        // files as well.
        let again = provisioning(&it, &files, &[]).expect(0);
        assert!(again.out.contains("nothing was written"), "{version:?}: {}", again.out);
        Servers::start(version).double.lock().unwrap().provision_from(&files);
        take(&["--alerts"]);
        assert_eq!(rules(), 2, "{version:?}");
    }
    // Rules in another organisation than before stay in Grafana until a file deletes them there.
    let it = Servers::start(Version::V12_4);
    let home = tempfile::tempdir().unwrap();
    let files = home.path().join("files");
    it.ask("POST", "/api/orgs", Some(&json!({"name": "Team"})));
    it.run(&["up", "--grafana-org", "Team"]).expect(0);
    provisioning(&it, &files, &["--alerts"]).expect(0);
    let [option, file] = account(home.path());
    provisioning(&it, &files, &["--alerts", "--grafana-org", "Team", &option, &file]).expect(0);
    let rules: Value = serde_saphyr::from_str(&read(&files, "alerting/clipper-metrics.yaml")).unwrap();
    assert_eq!((&rules["groups"][0]["orgId"], &rules["deleteRules"][0]["orgId"]), (&json!(2), &json!(1)), "{rules}");
    let home = home_without_engine();
    for kind in ["swarm", "kubernetes"] {
        let directory = home.path().join(kind);
        without_engine(&home, &["export", kind, &directory.display().to_string()]).expect(0);
        let file = if kind == "swarm" { "provisioning/alerting/clipper-metrics.yaml" } else { "provisioning.yaml" };
        assert!(read(&directory, file).contains("deleteRules"), "{kind}");
    }
}

/// A home directory whose current context is an engine that does not exist.
fn home_without_engine() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    // Docker names the folder by the SHA-256 of the context's name.
    let meta = "283bb9deef02e6843abfb538efa1eca70801bd8a701c3f98191e123496339247";
    let folder = home.path().join(".docker/contexts/meta").join(meta);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(home.path().join(".docker/config.json"), r#"{"currentContext": "gone"}"#).unwrap();
    let endpoint = json!({"Name": "gone", "Endpoints": {"docker": {"Host": "unix:///nonexistent/docker.sock"}}});
    std::fs::write(folder.join("meta.json"), endpoint.to_string()).unwrap();
    home
}

fn without_engine(home: &tempfile::TempDir, words: &[&str]) -> Ran {
    // An empty variable counts as unset.
    Run::new(words).env("HOME", &home.path().to_string_lossy()).env("DOCKER_HOST", "").run()
}

#[test]
fn without_an_engine_new_servers_can_be_exported_and_missing_data_is_reported() {
    let home = home_without_engine();
    for kind in ["provisioning", "swarm", "kubernetes"] {
        let directory = home.path().join(kind).display().to_string();
        let ran = without_engine(&home, &["export", kind, &directory]).expect(0);
        assert!(ran.err.contains("warning: cannot reach the Docker engine"), "{}", ran.err);
        assert!(ran.err.contains("not in the export"), "{}", ran.err);
        // An engine that the user names must be reachable.
        let named = ["export", kind, &directory, "-H", "unix:///nonexistent/docker.sock"];
        assert!(without_engine(&home, &named).expect(1).err.contains("cannot reach"));
    }
    // The target Grafana was not inspected: it may have a default data source, and does not start with two.
    let provisioned = home.path().join("provisioning");
    assert!(read(&provisioned, "datasources/clipper-metrics.yaml").contains("isDefault: false"));
    assert!(read(&provisioned, "README.md").contains("Only containers of the instance know that name"));
    // A new Grafana has none.
    let made = read(&home.path().join("swarm"), "provisioning/datasources/clipper-metrics.yaml");
    assert!(made.contains("isDefault: true"), "{made}");
    // An export made with more data is not replaced by one with less.
    let list = home.path().join("swarm/.clipper-metrics-export");
    let partial = std::fs::read_to_string(&list).unwrap();
    assert!(partial.starts_with("swarm clipper-metrics partial\n"), "{partial}");
    std::fs::write(&list, partial.replace(" partial\n", " complete\n")).unwrap();
    let less = without_engine(&home, &["export", "swarm", &home.path().join("swarm").display().to_string()]).expect(2);
    assert!(less.err.contains("more data than is available now"), "{}", less.err);
    let directory = home.path().join("compose").display().to_string();
    without_engine(&home, &["export", "compose", &directory]).expect(1);
    assert!(!Path::new(&directory).exists());
}

#[test]
fn generated_and_custom_passwords_are_kept_and_the_public_default_is_refused() {
    let home = home_without_engine();
    let swarm = home.path().join("swarm");
    let directory = swarm.display().to_string();
    std::fs::create_dir(&swarm).unwrap();
    std::fs::write(swarm.join(".gitignore"), "grafana-password\n").unwrap();
    let export = |more: &[&str]| {
        let words: Vec<&str> = ["export", "swarm", &directory].into_iter().chain(more.iter().copied()).collect();
        without_engine(&home, &words)
    };
    export(&[]).expect(0);
    let first = read(&swarm, "grafana-password");
    assert_eq!(first.len(), 32);
    assert!(export(&[]).expect(0).out.contains("nothing was written"));
    export(&["--retention", "7d"]).expect(0);
    assert_eq!(read(&swarm, "grafana-password"), first, "a change elsewhere leaves it");
    std::fs::write(swarm.join("grafana-password"), "my own\n").unwrap();
    export(&[]).expect(0);
    assert_eq!(read(&swarm, "grafana-password").trim(), "my own");
    let [option, file] = account(home.path());
    assert!(export(&[&option, &file]).expect(2).err.contains("public default"));
    std::fs::write(swarm.join("grafana-password"), "admin").unwrap();
    assert!(export(&[]).expect(2).err.contains("public default"));
    // As in a clone of a Git repository: another password would not open the existing Grafana.
    std::fs::remove_file(swarm.join("grafana-password")).unwrap();
    assert!(export(&[]).expect(2).err.contains("grafana-password: is missing"), "nothing is generated");
    std::fs::write(swarm.join("grafana-password"), "my own\n").unwrap();
    let kubernetes = home.path().join("kubernetes");
    let words = ["export", "kubernetes", &kubernetes.display().to_string()].map(String::from);
    without_engine(&home, &words.each_ref().map(String::as_str)).expect(0);
    let first = read(&kubernetes, "secret.yaml");
    let again = || without_engine(&home, &words.each_ref().map(String::as_str));
    again().expect(0);
    assert_eq!(read(&kubernetes, "secret.yaml"), first);
    let with =
        |line: &str| std::fs::write(kubernetes.join("secret.yaml"), first.replace(first.lines().last().unwrap(), line));
    with("  grafana-password: \"my own\"").unwrap();
    again().expect(0);
    assert!(read(&kubernetes, "secret.yaml").contains("\"my own\""));
    with("  grafana-password: my own, unquoted").unwrap();
    again().expect(0);
    assert!(read(&kubernetes, "secret.yaml").contains("\"my own, unquoted\""));
    for admin in ["admin", "\"admin\""] {
        with(&format!("  grafana-password: {admin}")).unwrap();
        assert!(again().expect(2).err.contains("public default"));
    }
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
    for (kind, secret, used_by) in
        [("swarm", "grafana-password", "stack.yaml"), ("kubernetes", "secret.yaml", "kustomization.yaml")]
    {
        let folder = home.path().join(kind);
        let words = ["export", kind, &folder.display().to_string()].map(String::from);
        let export = || without_engine(&home, &words.each_ref().map(String::as_str));
        export().expect(0);
        let first = read(&folder, secret);
        // It ended after the list and the secret, and then after the list.
        std::fs::remove_file(folder.join(used_by)).unwrap();
        export().expect(0);
        assert_eq!(read(&folder, secret), first);
        for path in [secret, used_by] {
            std::fs::remove_file(folder.join(path)).unwrap();
        }
        let ran = export().expect(0);
        assert!(!ran.err.contains("no Secret"), "{}", ran.err);
        assert_ne!(read(&folder, secret), first);
        assert!(read(&folder, used_by).contains(secret), "{kind}");
        // A server may have been created from complete files.
        std::fs::remove_file(folder.join(secret)).unwrap();
        assert!(export().expect(2).err.contains(&format!("{secret}: is missing")), "{kind}");
    }
}

#[test]
fn a_pasted_block_that_moves_data_ends_at_its_first_failure() {
    let home = home_without_engine();
    for kind in ["swarm", "kubernetes"] {
        let folder = home.path().join(kind);
        without_engine(&home, &["export", kind, &folder.display().to_string()]).expect(0);
        let readme = read(&folder, "README.md");
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
    let folder = home.path().join("swarm");
    let directory = folder.display().to_string();
    let secret = home.path().join("secret");
    std::fs::write(&secret, "geheim").unwrap();
    let secret = secret.display().to_string();
    let external = ["--influxdb-url", "http://127.0.0.1:8086", "--data-source-url", "http://db:8086"];
    let login = ["--influxdb-user", "me", "--influxdb-password-file", &secret];
    for more in [&[][..], &[&external[..], &login].concat()] {
        let words = [&["export", "swarm", &directory], more].concat();
        without_engine(&home, &words).expect(0);
        let readme = read(&folder, "README.md");
        assert!(readme.contains("first change it in Grafana"), "{readme}");
        assert!(!readme.contains("DIRECTORY --grafana-password-file"), "{readme}");
        assert_eq!(readme.contains("DIRECTORY --influxdb-password-file FILE"), !more.is_empty(), "{readme}");
    }
}

#[test]
fn a_secret_that_a_user_replaced_or_removed_is_left_to_them() {
    let home = home_without_engine();
    let kubernetes = home.path().join("kubernetes");
    let directory = kubernetes.display().to_string();
    let export = |more: &[&str]| {
        let words: Vec<&str> = ["export", "kubernetes", &directory].into_iter().chain(more.iter().copied()).collect();
        without_engine(&home, &words)
    };
    let secret = || read(&kubernetes, "secret.yaml");
    let lists_it = || read(&kubernetes, "kustomization.yaml").contains("secret.yaml");
    export(&[]).expect(0);
    let exported = secret();
    assert!(lists_it());
    let [option, file] = account(home.path());
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
        let list = read(&kubernetes, ".clipper-metrics-export");
        let line = list.lines().find(|line| line.ends_with(" secret.yaml")).unwrap();
        assert_eq!(line, format!("{} secret.yaml", short_digest("", line.find(' ').unwrap())));
        let again = export(&[]).expect(0);
        assert!(again.out.contains("nothing was written"), "{}", again.out);
        let refused = export(&[&option, &file]).expect(2);
        assert!(refused.err.contains("secret.yaml was replaced"), "{}", refused.err);
        assert_eq!(secret(), theirs);
    }
    // Without the file and its line, an overlay or an operator provides the Secret. A file alone may be missing because
    // this is a clone of a Git repository.
    std::fs::remove_file(kubernetes.join("secret.yaml")).unwrap();
    let listing = read(&kubernetes, "kustomization.yaml");
    let refused = export(&[]).expect(2);
    assert!(refused.err.contains("secret.yaml: is missing"), "{}", refused.err);
    assert!(refused.err.contains("remove its line from kustomization.yaml"), "{}", refused.err);
    assert_eq!(read(&kubernetes, "kustomization.yaml"), listing, "nothing was changed");
    std::fs::write(kubernetes.join("kustomization.yaml"), listing.replace("- secret.yaml\n", "")).unwrap();
    assert!(!lists_it());
    for more in [&[][..], &["--retention", "7d"], &[]] {
        let ran = export(more).expect(0);
        assert!(ran.err.contains("the cluster needs the Secret clipper-metrics-grafana"), "{}", ran.err);
        assert!(!kubernetes.join("secret.yaml").exists() && !lists_it());
    }
    let readme = read(&kubernetes, "README.md");
    assert!(readme.contains("in the Secret `clipper-metrics-grafana`, which is not from this export"), "{readme}");
    let grafana = read(&kubernetes, "grafana.yaml");
    assert!(grafana.contains("secretName: clipper-metrics-grafana"), "{grafana}");
    // The password of an external InfluxDB is then in that Secret as well.
    let external = ["--influxdb-url", "http://127.0.0.1:8086", "--data-source-url", "http://db:8086"];
    export(&[&external[..], &["--influxdb-user", "me"]].concat()).expect(0);
    assert!(read(&kubernetes, "grafana.yaml").contains("key: influxdb-password"));
    assert!(read(&kubernetes, "README.md").contains("`influxdb-password`"));
    // A supplied password brings the file back.
    export(&[&option, &file]).expect(0);
    assert!(lists_it() && secret().contains("grafana-password: \"a new one\""));
    export(&[]).expect(0);
    assert!(secret().contains("\"a new one\""));
}

#[test]
fn a_changed_secret_of_a_swarm_gets_the_next_number() {
    let home = home_without_engine();
    let swarm = home.path().join("swarm");
    let directory = swarm.display().to_string();
    let secret = home.path().join("secret");
    let secret_path = secret.display().to_string();
    let external = ["--influxdb-url", "http://127.0.0.1:8086", "--data-source-url", "http://db:8086"];
    let export = |password: &str, more: &[&str]| {
        std::fs::write(&secret, password).unwrap();
        let login = ["--influxdb-user", "me", "--influxdb-password-file", &secret_path];
        let words = [&["export", "swarm", &directory], &external[..], &login, more].concat();
        without_engine(&home, &words).expect(0);
        let stack: Value = serde_saphyr::from_str(&read(&swarm, "stack.yaml")).unwrap();
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
    let directory = home.path().join("x").display().to_string();
    for name in ["1st", "end-"] {
        let refused = without_engine(&home, &["export", "kubernetes", &directory, "--name", name]).expect(2);
        assert!(refused.err.contains("not a valid name in Kubernetes"), "{}", refused.err);
    }
    let organisation = ["export", "swarm", &directory, "--grafana-org", "Team"];
    assert!(without_engine(&home, &organisation).expect(2).err.contains("--grafana-org"));
    let here = ["export", "swarm", &directory, "--influxdb-url", "http://127.0.0.1:8086"];
    assert!(without_engine(&home, &here).expect(2).err.contains("--data-source-url"));
    let elsewhere = [here.as_slice(), &["--data-source-url", "http://db:8086"]].concat();
    without_engine(&home, &elsewhere).expect(0);
    let secret = home.path().join("secret");
    std::fs::write(&secret, "ge$heim").unwrap();
    let secret = secret.display().to_string();
    let login = ["--influxdb-user", "me", "--influxdb-password-file", &secret];
    for kind in ["swarm", "kubernetes"] {
        let words = [&["export", kind, &directory], &elsewhere[3..], &login[..2]].concat();
        let none = without_engine(&home, &words).expect(2);
        assert!(none.err.contains("use --influxdb-password-file"), "{}", none.err);
    }
    let with_dollar = without_engine(&home, &[elsewhere.as_slice(), &login].concat()).expect(2);
    assert!(with_dollar.err.contains("without $"), "{}", with_dollar.err);
    let stack = read(&home.path().join("x"), "stack.yaml");
    assert!(!stack.contains("influxdb:") && !stack.contains("database:"), "{stack}");
}

#[test]
fn objects_of_earlier_exports_in_a_cluster_are_found_by_their_label() {
    let home = home_without_engine();
    let mine = home.path().join("mine.json");
    std::fs::write(&mine, shared("mine", "Mine").to_string()).unwrap();
    let (mine, directory) = (mine.display().to_string(), home.path().join("k8s").display().to_string());
    let export = |more: &[&str]| {
        let words = [&["export", "kubernetes", &directory, "--name", "team-a"], more].concat();
        without_engine(&home, &words).expect(0);
        let objects = |path: &str| -> Vec<Value> {
            let text = read(Path::new(&directory), path);
            text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
        };
        let all = ["database.yaml", "grafana.yaml", "influxdb.yaml", "provisioning.yaml"].map(objects).concat();
        let readme = read(Path::new(&directory), "README.md");
        let (kinds, rest) = readme.split_once(" &&\nkubectl delete ").unwrap().1.split_once(" --selector '").unwrap();
        for object in &all {
            let kind = object["kind"].as_str().unwrap().to_lowercase();
            assert!(kinds.split(',').any(|pruned| pruned == kind), "{kind}");
            assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/managed-by"], "clipper-metrics", "{kind}");
        }
        assert!(!kinds.contains("secret") && !kinds.contains("persistentvolumeclaim"), "{kinds}");
        // Another tool may manage the Secret, which no command may delete.
        assert!(!read(Path::new(&directory), "secret.yaml").contains("clipper-metrics/export"));
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
