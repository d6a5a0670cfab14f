//! Supplied settings are remembered with their instance: as a whole, in one place, and only until
//! the user removes them.

use std::process::Stdio;

use super::instance::{Instance, SOON, bridge, docker, settings_volumes};
use crate::servers::user_dashboards::export;
use crate::support::influxd::{self, Influxd};
use crate::support::run::ran;
use crate::support::{eventually, free_port, registry};

#[test]
fn after_down_an_up_without_options_is_the_same_stack() {
    let it = Instance::new("after-down");
    it.first_up(&["--database", "d"]).expect(0);
    influxd::write(&it.influxdb(), "d", "m1_prediction_counter value=7");
    it.run(&["down"]).expect(0);
    let up = it.run(&["up", "--output", "json"]).expect(0).json();
    assert_eq!(up["influxdb"]["url"], it.influxdb());
    assert_eq!(up["grafana"]["url"], format!("http://127.0.0.1:{}", it.grafana_port));
    assert_eq!(up["database"]["name"], "d");
    assert!(it.query("d", "SELECT value FROM m1_prediction_counter").contains(",7]"));
    // After any number of changes, one copy exists.
    for database in ["e", "f", "d"] {
        it.run(&["up", "--database", database]).expect(0);
        assert_eq!(settings_volumes(&it.name).len(), 1, "{database}");
    }
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    assert!(settings_volumes(&it.name).is_empty());
}

#[test]
fn a_removed_address_is_never_published_again() {
    let it = Instance::new("taken-back");
    let bridge = bridge();
    it.first_up(&["--influxdb-ip", &bridge]).expect(0);
    it.run(&["up", "--influxdb-ip", ""]).expect(0);
    let published = |it: &Instance| it.inspect("influxdb")["NetworkSettings"]["Ports"]["8086/tcp"][0]["HostIp"].clone();
    assert_eq!(published(&it), "127.0.0.1");
    for lost in ["influxdb", "grafana"] {
        docker(&["rm", "--force", &it.container(lost)]).unwrap();
        it.run(&["up"]).expect(0);
        assert_eq!(published(&it), "127.0.0.1", "after the loss of {lost}");
    }
    it.run(&["down"]).expect(0);
    it.run(&["up"]).expect(0);
    assert_eq!(published(&it), "127.0.0.1", "after down");
}

#[test]
fn from_a_container_to_another_server_and_back() {
    let it = Instance::new("there-and-back");
    it.first_up(&["--database", "d"]).expect(0);
    influxd::write(&it.influxdb(), "d", "m1_prediction_counter value=7");
    // An external server that does not answer changes nothing.
    let id = it.id("influxdb");
    it.run(&["up", "--influxdb-url", "http://127.0.0.1:1"]).expect(1);
    assert_eq!(id, it.id("influxdb"));
    assert_eq!(it.status()["influxdb"]["mode"], "container");
    let influxd = Influxd::start();
    // Grafana's container cannot reach this machine's loopback; its own address suffices here.
    let source = format!("http://127.0.0.1:{}", influxd.port);
    let url = influxd.url();
    let plan = it.run(&["up", "--influxdb-url", &url, "--dry-run"]).expect(3);
    assert!(plan.out.contains("remove InfluxDB's container"), "{}", plan.out);
    let up = it.run(&["up", "--influxdb-url", &url, "--data-source-url", &source, "--timeout", "20s"]);
    assert!(up.code == 1 && up.err.contains("--data-source-url"), "it cannot be queried from there: {}", up.err);
    assert!(it.id("influxdb").is_empty(), "the container is taken down");
    assert!(docker(&["volume", "inspect", &it.container("influxdb")]).is_ok(), "its volume stays");
    assert_eq!(it.status()["influxdb"]["url"], url.as_str(), "a bare command means the same");
    it.run(&["up", "--influxdb-url", "", "--data-source-url", ""]).expect(0);
    assert!(it.query("d", "SELECT value FROM m1_prediction_counter").contains(",7]"), "the data is back");
    it.assert_whole();
}

#[test]
fn two_concurrent_saves_leave_one_copy() {
    let it = Instance::new("two-memories");
    it.first_up(&["--database", "a"]).expect(0);
    for round in 0..4 {
        // Different homes, as with different users: no lock keeps the runs apart.
        let start = |database: &str| {
            let run = it.command(&["up", "--database", database]);
            run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let both = [start(&format!("b{round}")), start(&format!("c{round}"))];
        for process in both {
            let ran = ran(&process.wait_with_output().unwrap());
            // The slower run reports the conflict, or both run one after the other.
            assert!(ran.code == 0 || ran.err.contains("hint: "), "{ran:?}");
        }
        assert_eq!(settings_volumes(&it.name).len(), 1, "round {round}");
        it.run(&["up"]).expect(0);
        it.assert_whole();
    }
}

#[test]
fn lost_settings_are_reported_and_must_be_supplied() {
    let it = Instance::new("lost-settings");
    it.first_up(&["--database", "d"]).expect(0);
    let ids = [it.id("influxdb"), it.id("grafana")];
    for corrupt in [false, true] {
        for name in settings_volumes(&it.name) {
            docker(&["volume", "rm", &name]).unwrap();
            if corrupt {
                let labels = [format!("clipper-metrics.instance={}", it.name), "clipper-metrics.settings={{".into()];
                let words = ["volume", "create", "--label", &labels[0], "--label", &labels[1], &name];
                docker(&words).unwrap();
            }
        }
        let status = it.run(&["status"]).expect(3);
        let word = if corrupt { "unreadable" } else { "lost" };
        assert!(status.out.contains(word), "{}", status.out);
        let up = it.run(&["up"]).expect(2);
        let hint = format!("clipper-metrics up --database NAME --name {}", it.name);
        assert!(up.err.contains(&hint), "{}", up.err);
        it.run(&["up", "--database", "d"]).expect(0);
        assert_eq!(ids, [it.id("influxdb"), it.id("grafana")], "ports and images came from the containers");
        it.assert_whole();
    }
}

#[test]
fn no_command_guesses_lost_settings() {
    let it = Instance::new("no-guess");
    it.first_up(&["--database", "d"]).expect(0);
    for name in settings_volumes(&it.name) {
        docker(&["volume", "rm", &name]).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (archive, directory) = (path("archive"), path("export"));
    let again = format!("`clipper-metrics up --database NAME --name {}`", it.name);
    for words in [
        &["up"][..],
        &["up", "--yes"],
        &["backup", &archive],
        &["export", "provisioning", &directory],
        &["export", "compose", &directory],
        &["export", "swarm", &directory],
        &["export", "kubernetes", &directory],
        &["doctor"],
        &["demo", "--backfill", "1m"],
        &["demo", "--clear"],
        &["down", "--deregister"],
    ] {
        let ran = it.run(words).expect(2);
        assert!(ran.err.contains("are lost") && ran.err.contains(&again), "{words:?}: {}", ran.err);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
    assert!(settings_volumes(&it.name).is_empty(), "nothing was stored");
    for words in [&["status"][..], &["up", "--dry-run"]] {
        let ran = it.run(words).expect(3);
        assert!(ran.out.contains("are lost") && ran.out.contains(&again), "{words:?}: {}", ran.out);
    }
    // Commands that need only the containers still work.
    it.run(&["logs", "--tail", "1"]).expect(0);
    // A role without a container may be external: the database alone is not enough.
    let again = format!("`clipper-metrics up --database NAME --influxdb-url URL --name {}`", it.name);
    docker(&["rm", "--force", &it.container("influxdb")]).unwrap();
    let up = it.run(&["up"]).expect(2);
    assert!(up.err.contains(&again), "{}", up.err);
    let up = it.run(&["up", "--database", "d"]).expect(2);
    assert!(up.err.contains("`clipper-metrics up --influxdb-url URL"), "{}", up.err);
    assert!(it.id("influxdb").is_empty(), "no container takes the place of a server that may run elsewhere");
    let port = it.influxdb_port.to_string();
    let words = ["up", "--database", "d", "--influxdb-url", "", "--influxdb-port", &port];
    it.run(&words).expect(0);
    it.assert_whole();
    it.run(&["down"]).expect(0);
    for name in settings_volumes(&it.name) {
        docker(&["volume", "rm", &name]).unwrap();
    }
    // Data alone also counts as an instance.
    let up = it.run(&["up"]).expect(2);
    let again = format!("`clipper-metrics up --database NAME --influxdb-url URL --grafana-url URL --name {}`", it.name);
    assert!(up.err.contains(&again), "{}", up.err);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
}

#[test]
fn an_invalid_remembered_value_does_not_affect_others() {
    let it = Instance::new("unreadable");
    it.first_up(&["--database", "d"]).expect(0);
    let ids = [it.id("influxdb"), it.id("grafana")];
    let replace = |label: &str| {
        let names = settings_volumes(&it.name);
        docker(&["volume", "rm", &names[0]]).unwrap();
        let labels = [format!("clipper-metrics.instance={}", it.name), format!("clipper-metrics.settings={label}")];
        docker(&["volume", "create", "--label", &labels[0], "--label", &labels[1], &names[0]]).unwrap();
    };
    let value = |name: &str, value: &str| format!(r#""{name}":{{"value":"{value}","from":"user"}}"#);
    let registry = value("registry", registry::address());
    // Ports are known from the containers; one value has an unknown format.
    let odd = r#""influxdb-port":{"value":5,"from":"user"}"#;
    replace(&format!("{{{},{registry},{},{odd}}}", value("database", "d"), value("grafana-port", "30o0")));
    let status = it.run(&["status"]).expect(3);
    assert!(status.out.contains(&format!("grafana-port: 30o0 -> {}", it.grafana_port)), "{}", status.out);
    it.run(&["up"]).expect(0);
    assert_eq!((ids, it.status()["database"]["name"].as_str()), ([it.id("influxdb"), it.id("grafana")], Some("d")));
    it.assert_whole();
    // The retention period is known from nowhere else.
    replace(&format!("{{{},{registry},{}}}", value("database", "d"), value("retention", "soon")));
    for words in [&["up"][..], &["doctor"], &["demo", "--clear"]] {
        let ran = it.run(words).expect(2);
        assert!(ran.err.contains("--retention is \"soon\""), "{words:?}: {}", ran.err);
        assert!(ran.err.contains("`clipper-metrics up --retention ''"), "{words:?}: {}", ran.err);
    }
    let status = it.run(&["status"]).expect(3);
    assert!(status.out.contains("--retention is \"soon\""), "{}", status.out);
    it.run(&["up", "--retention", ""]).expect(0);
    assert_eq!(it.status()["database"]["name"], "d");
}

#[test]
fn a_file_removes_values_that_a_file_supplied() {
    let it = Instance::new("of-file");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    let file = |folder: &str| std::fs::write(&path, format!("influx_dbname = \"d\"\n[metrics]\n{folder}")).unwrap();
    let config = ["--config", path.to_str().unwrap()];
    file("grafana_folder = \"Ours\"\n");
    it.first_up(&config).expect(0);
    let (_, dashboard) = it.grafana("GET", &format!("/api/dashboards/uid/{}", it.name), None);
    assert_eq!(dashboard["meta"]["folderTitle"], "Ours");
    it.run(&["status"]).expect(0);
    file("");
    let differs = it.run(&["status", config[0], config[1]]).expect(3);
    assert!(differs.out.contains("grafana-folder: Ours -> (none)"), "{}", differs.out);
    it.run(&["up", config[0], config[1]]).expect(0);
    it.run(&["status", config[0], config[1]]).expect(0);
}

#[test]
fn a_registry_that_needs_library_gets_a_hint() {
    let it = Instance::new("library");
    let prefix = format!("{}/hub", registry::address());
    let up = it.first_up(&["--registry", &prefix]).expect(1);
    let image = format!("{prefix}/library/influxdb:1.12.4");
    assert!(up.err.contains(&format!("--influxdb-image {image}")), "{}", up.err);
    it.first_up(&["--registry", &prefix, "--influxdb-image", &image]).expect(0);
}

#[test]
fn users_dashboards_are_remembered_and_a_missing_file_changes_nothing() {
    let it = Instance::new("own-dashboards");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    std::fs::write(&file, export("own", "Own").to_string()).unwrap();
    // Relative to the folder of this run, in which the next run need not be.
    let run = it.command(&it.first(&["--dashboard", "a.json"]));
    let mut command = run.command();
    ran(&command.current_dir(folder.path()).output().unwrap()).expect(0);
    assert!(it.run(&["up"]).expect(0).out.contains("nothing to do"));
    assert_eq!(it.status()["user_dashboards"][0]["state"], "in_sync");
    // Content lost by the servers is restored from the file.
    it.run(&["down"]).expect(0);
    docker(&["volume", "rm", &it.container("grafana")]).unwrap();
    it.run(&["up"]).expect(0);
    assert_eq!(it.grafana("GET", "/api/dashboards/uid/own", None).0, 200);
    std::fs::remove_file(&file).unwrap();
    let status = it.run(&["status"]).expect(0);
    assert!(status.out.contains("a.json: cannot be read"), "{}", status.out);
    let up = it.run(&["up"]).expect(0);
    assert!(up.err.contains("stays unchanged") && up.out.contains("nothing to do"), "{}{}", up.err, up.out);
    assert_eq!(it.grafana("GET", "/api/dashboards/uid/own", None).0, 200);
    // After its removal it is no longer mentioned.
    let up = it.run(&["up", "--dashboard", ""]).expect(0);
    assert!(!up.err.contains("a.json") && !it.run(&["up"]).expect(0).err.contains("a.json"), "{}", up.err);
    assert_eq!(it.grafana("GET", "/api/dashboards/uid/own", None).0, 200, "it is the user's own");
}

#[test]
fn a_list_of_dashboards_in_clippers_file_is_relative_to_it() {
    let it = Instance::new("listed-dashboards");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a.json"), export("a", "A").to_string()).unwrap();
    std::fs::write(path("b.json"), export("b", "B").to_string()).unwrap();
    std::fs::write(path("clipper.toml"), "[metrics]\ndashboards = [\"a.json\", \"b.json\"]\n").unwrap();
    let config = path("clipper.toml");
    let config = config.to_str().unwrap();
    // The file names it in its own folder; it is remembered for every other folder.
    let run = it.command(&it.first(&["--config", "clipper.toml"]));
    let mut command = run.command();
    ran(&command.current_dir(folder.path()).output().unwrap()).expect(0);
    let found = |it: &Instance| it.status()["user_dashboards"].as_array().unwrap().len();
    assert_eq!(found(&it), 2);
    // The file drops the value that it supplied.
    std::fs::write(path("clipper.toml"), "[metrics]\ndashboards = [\"b.json\"]\n").unwrap();
    it.run(&["up", "--config", config]).expect(0);
    assert_eq!(found(&it), 1);
    std::fs::write(path("clipper.toml"), "").unwrap();
    it.run(&["up", "--config", config]).expect(0);
    assert_eq!(found(&it), 0);
}

#[test]
fn a_watch_follows_settings_that_are_changed_elsewhere() {
    let it = Instance::new("watch-settings");
    let out = tempfile::NamedTempFile::new().unwrap();
    let last = || std::fs::read_to_string(out.path()).unwrap().lines().last().map(String::from).unwrap_or_default();
    let run = it.command(&["status", "--watch"]);
    let mut watch = run.command().stdout(out.reopen().unwrap()).stderr(Stdio::null()).spawn().unwrap();
    eventually("there is no instance yet", SOON, || last().contains("absent"));
    // The watch knows none of these settings when it starts.
    it.first_up(&["--database", "other"]).expect(0);
    eventually("it is in sync", SOON, || last().contains(" in sync"));
    let port = free_port().to_string();
    it.run(&["up", "--grafana-port", &port]).expect(0);
    docker(&["stop", &it.container("grafana")]).unwrap();
    eventually("it is not in sync", SOON, || !last().contains(" in sync"));
    it.run(&["up"]).expect(0);
    eventually("it is in sync with the new port", SOON, || last().contains(" in sync"));
    super::lifecycle::interrupt(watch.id());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}
