//! The program changes nothing else, fails with clear errors, and opens no access.

use std::net::TcpListener;

use serde_json::Value;

use super::instance::{Instance, assert_log_limit, assert_no_capability, bridge, docker, is_podman};
use crate::support::registry;
use crate::support::run::{Ran, Run, basic, http_with};

/// Checks an error: the right code, a hint, no panic, no control characters.
fn failed(ran: Ran, words: &[&str]) -> Ran {
    let ran = ran.expect(1);
    for word in words {
        assert!(ran.err.contains(word), "{word:?} is not in {}", ran.err);
    }
    assert!(ran.err.contains("\nhint: "), "{}", ran.err);
    assert!(!ran.err.contains("panicked") && !ran.err.contains('\u{1b}'), "{}", ran.err);
    ran
}

#[test]
fn objects_with_the_name_but_without_the_label_are_never_changed() {
    let it = Instance::new("foreign");
    let image = format!("{}/odd:silent", registry::address());
    docker(&["pull", &image]).unwrap();
    let name = it.container("influxdb");
    docker(&["create", "--name", &name, &image]).unwrap();
    let id = it.id("influxdb");
    failed(it.first_up(&[]), &[&name, "did not create it"]);
    assert_eq!(it.run(&["status", "--output", "json"]).expect(3).json()["influxdb"]["state"], "foreign");
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    assert_eq!(id, it.id("influxdb"));
    docker(&["rm", &name]).unwrap();

    docker(&["volume", "create", &name]).unwrap();
    failed(it.first_up(&[]), &["volume", &name]);
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    assert!(docker(&["volume", "inspect", &name]).is_ok());
    docker(&["volume", "rm", &name]).unwrap();

    docker(&["network", "create", &it.name]).unwrap();
    failed(it.first_up(&[]), &["network", &it.name]);
    it.run(&["down"]).expect(0);
    assert!(docker(&["network", "inspect", &it.name]).is_ok());
    docker(&["network", "rm", &it.name]).unwrap();
}

#[test]
fn a_port_that_is_taken_is_reported_with_its_holder() {
    let it = Instance::new("taken");
    let other = Instance::new("holder");
    other.first_up(&[]).expect(0);
    let port = other.influxdb_port.to_string();
    failed(it.first_up(&["--influxdb-port", &port]), &[&other.container("influxdb"), &port]);
    other.assert_whole();
    // A process outside any container.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    failed(it.first_up(&["--grafana-port", &port]), &["another process", &port, "--grafana-port"]);
    // Nothing was created for it, and a dry run reports it, too.
    assert!(it.id("influxdb").is_empty() && it.id("grafana").is_empty());
    let words = it.first(&["--grafana-port", &port, "--dry-run"]);
    let preview = it.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).expect(3);
    assert!(preview.out.contains("another process on the engine's host holds that port"), "{}", preview.out);
    // An InfluxDB outside any container: the hint suggests using it.
    let influxd = crate::support::influxd::Influxd::start();
    let ran = failed(it.first_up(&["--influxdb-port", &influxd.port.to_string()]), &["InfluxDB"]);
    assert!(ran.err.contains(&format!("--influxdb-url http://127.0.0.1:{}", influxd.port)), "{}", ran.err);
    // An address that this machine does not have, in the network of the engine's own bridge.
    let absent = format!("{}.254", bridge().rsplit_once('.').unwrap().0);
    failed(it.first_up(&["--influxdb-ip", &absent]), &["does not have that address", "--influxdb-url"]);
    // None of this prevents a correct address. A server at the same port of [::1] is no conflict.
    let beside = TcpListener::bind(("::1", it.influxdb_port));
    let up = it.first_up(&["--influxdb-ip", "127.0.0.1"]).expect(0);
    let warning = format!("another server answers at [::1]:{}", it.influxdb_port);
    assert_eq!(up.err.contains(&warning), beside.is_ok(), "{}", up.err);
    it.assert_whole();
}

#[test]
fn images_that_cannot_be_pulled_are_one_error_each() {
    let it = Instance::new("images");
    let registry = registry::address();
    let with = |image: &str| it.first_up(&["--influxdb-image", image]);
    failed(with(&format!("{registry}/no/such:1")), &["cannot pull", "no/such"]);
    failed(with("127.0.0.1:1/no/registry:1"), &["cannot pull", "refused", "check that a registry runs at 127.0.0.1:1"]);
    let limited = failed(with(&format!("{registry}/limited/influxdb:1.12.4")), &["cannot pull"]);
    // Podman retries by itself, longer than the test waits.
    let says = if is_podman() { "no progress" } else { "hours" };
    assert!(limited.err.contains(says), "{}", limited.err);
    failed(
        it.first_up(&["--influxdb-image", "never/there:1", "--pull", "never"]),
        &["not on the engine", "docker load"],
    );
    // Interrupted once: the second attempt succeeds. No other image contains its layer.
    let cut = format!("{registry}/cut/influxdb:own-layer");
    let up = it.first_up(&["--influxdb-image", &cut]).expect(0);
    assert!(up.err.contains("was interrupted; retrying"), "{}", up.err);
    it.assert_whole();
    it.run(&["down"]).expect(0);
    docker(&["rmi", "--force", &cut]).unwrap();
}

#[test]
fn a_silent_registry_times_out() {
    let it = Instance::new("silence");
    let started = std::time::Instant::now();
    let ran = it.first_up(&["--influxdb-image", &format!("{}/silent/influxdb:1.12.4", registry::address())]);
    failed(ran, &["cannot pull", "silent"]);
    assert!(started.elapsed() < std::time::Duration::from_secs(100), "within its minute");
}

#[test]
fn a_stalled_pull_fails_even_if_the_image_exists() {
    let it = Instance::new("stall");
    // The name of an image whose registry never answers, given to an existing image.
    let here = format!("{}/influxdb:1.12.4", registry::address());
    let silent = format!("{}/silent/another:1", registry::address());
    docker(&["pull", &here]).unwrap();
    docker(&["tag", &here, &silent]).unwrap();
    it.first_up(&["--influxdb-image", &silent]).expect(0);
    failed(it.run(&["up", "--pull", "always"]), &["cannot pull", "silent", "no progress"]);
    it.run(&["status"]).expect(0);
    docker(&["rmi", "--force", &silent]).unwrap();
}

#[test]
fn a_full_disk_during_a_pull_is_reported() {
    // InfluxDB's image fits, but Grafana's does not.
    let engine = super::engine::OwnEngine::start_on_a_small_disk(40);
    let registry = super::engine::OwnEngine::registry();
    let up = engine.program(&["up", "--registry", &registry]).output().unwrap();
    let ran = failed(crate::support::run::ran(&up), &["cannot pull", "no space left", "system df"]);
    assert!(!ran.err.contains("cannot remove"), "{}", ran.err);
    engine.program(&["down", "--volumes", "--yes"]).output().unwrap();
}

#[test]
fn engines_that_cannot_be_used_are_one_error_each() {
    let fake = |answer: &'static str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
                let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
            }
        });
        let ran = Run::new(["up", "-H", &format!("unix://{}", path.display())]).run();
        drop(folder);
        ran
    };
    let http = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    let old = Box::leak(format!("{http}{{\"Version\":\"1.12.6\",\"ApiVersion\":\"1.24\"}}").into_boxed_str());
    failed(fake(old), &["API 1.24", "19.03"]);
    let odd = Box::leak(format!("{http}<html>\u{1b}[31m no engine").into_boxed_str());
    failed(fake(odd), &["not come from a Docker engine"]);
    failed(fake("SSH-2.0-OpenSSH\r\n"), &["cannot reach the Docker engine"]);
    let large = Box::leak(format!("{http}[{}", "{\"Name\":\"x\"},".repeat(3 << 20)).into_boxed_str());
    failed(fake(large), &["larger than 32 MiB"]);
}

#[test]
fn credentials_of_docker_login_reach_the_registry() {
    let it = Instance::new("private");
    let config = tempfile::tempdir().unwrap();
    let private = registry::private();
    // A password whose encoding differs between the two base64 alphabets.
    let auth = registry::PRIVATE.trim_start_matches("Basic ");
    let text = format!("{{\"auths\":{{\"{private}\":{{\"auth\":\"{auth}\"}}}}}}");
    std::fs::write(config.path().join("config.json"), text).unwrap();
    let image = format!("{private}/influxdb:1.12.4");
    let words = it.first(&["--influxdb-image", &image]);
    failed(it.run(&words), &["cannot pull", "docker login"]);
    it.command(&words).env("DOCKER_CONFIG", config.path().to_str().unwrap()).run().expect(0);
}

#[test]
fn an_image_that_cannot_use_the_volume_is_refused_before_anything_is_removed() {
    let it = Instance::with_grafana("volume", "grafana/grafana:12.4.10");
    it.first_up(&["--database", "d"]).expect(0);
    let ids = [it.id("influxdb"), it.id("grafana")];
    let image = format!("{}/influxdb:as-root", registry::address());
    failed(it.run(&["up", "--influxdb-image", &image]), &["root", &it.container("influxdb")]);
    let older = format!("{}/grafana/grafana:9.4.0", registry::address());
    failed(it.run(&["up", "--grafana-image", &older]), &["older"]);
    assert_eq!(ids, [it.id("influxdb"), it.id("grafana")]);
    it.assert_whole();
}

#[test]
fn servers_that_do_not_start_show_their_last_log_lines() {
    let fail = |image: &str, limit: &str, words: &[&str]| {
        let it = Instance::with_grafana(&image.replace(':', "-"), image);
        failed(it.first_up(&["--timeout", limit]), words);
        it.run(&["down", "--volumes", "--yes"]).expect(0);
    };
    fail("odd:exits", "60s", &["did not become ready", "made to fail"]);
    fail("odd:crashes", "60s", &["did not become ready", "made to fail"]);
    fail("odd:silent", "10s", &["no answer within 10s", "double"]);
    let it = Instance::new("influxdb2");
    let image = format!("{}/odd:influxdb2", registry::address());
    failed(it.first_up(&["--influxdb-image", &image]), &["InfluxDB v2.7.12", "influxdb:1.12.4"]);
}

#[test]
fn everything_is_on_loopback_and_containers_have_few_privileges() {
    let it = Instance::new("loopback");
    it.first_up(&[]).expect(0);
    for role in ["influxdb", "grafana"] {
        let inspect = it.inspect(role);
        let ports = inspect["NetworkSettings"]["Ports"].as_object().unwrap();
        let bindings: Vec<&Value> = ports.values().flat_map(|list| list.as_array().into_iter().flatten()).collect();
        assert_eq!(bindings.len(), 1, "{role}: {ports:?}");
        assert_eq!(bindings[0]["HostIp"], "127.0.0.1");
        let host = &inspect["HostConfig"];
        assert_no_capability(host);
        assert_eq!(host["SecurityOpt"][0], "no-new-privileges");
        assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped");
        assert_log_limit(host);
        assert_eq!(host["Privileged"], false);
    }
    assert_eq!(it.inspect("influxdb")["HostConfig"]["ReadonlyRootfs"], true);
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let open = |port: u16| sockets.lines().filter(|line| line.contains(&format!("00000000:{port:04X} "))).count();
    assert_eq!(open(it.influxdb_port) + open(it.grafana_port), 0, "nothing listens off loopback");
}

#[test]
fn exposed_loopback_ports_are_reported_once_and_the_command_closes_them() {
    let engine = super::engine::OwnEngine::start_with_rules();
    let version = engine.docker(&["version", "--format", "{{.Server.Version}}"]).out;
    let major: u32 = version.split('.').next().unwrap().trim().parse().unwrap();
    let registry = super::engine::OwnEngine::registry();
    let run = |words: &[&str]| crate::support::run::ran(&engine.program(words).output().unwrap());
    let up = run(&["up", "--registry", &registry]).expect(0);
    let exposes = run(&["status", "--output", "json"]).expect(0).json()["engine"]["exposes_loopback"].clone();
    assert_eq!((exposes, up.err.contains("DOCKER-USER")), (Value::Bool(major < 28), major < 28), "{}", up.err);
    let neighbour = engine.neighbour();
    let ip = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let reached = |role: &str, port: u16, path: &str| {
        let ip = engine.docker(&["inspect", "--format", ip, &format!("clipper-metrics-{role}")]).out;
        neighbour.reaches(&format!("{}:{port}", ip.trim()), path)
    };
    let both = || [reached("influxdb", 8086, "/query?q=SHOW%20DATABASES"), reached("grafana", 3000, "/api/health")];
    if major < 28 {
        assert!(both().iter().all(Option::is_some), "a neighbour reaches both");
        let command = up.err.split('`').find(|text| text.starts_with("sudo iptables ")).unwrap();
        let words: Vec<&str> = command.split(' ').skip(2).collect();
        assert!(engine.inside("iptables").args(words).status().unwrap().success(), "{command}");
    }
    assert_eq!(both(), [None, None], "closed");
    // The host itself still reaches them, and Grafana reaches InfluxDB.
    let again = run(&["up"]).expect(0);
    assert!(again.out.contains("nothing to do") && !again.err.contains("DOCKER-USER"), "said once: {}", again.err);
    run(&["status"]).expect(0);
    run(&["down", "--volumes", "--yes"]).expect(0);
}

#[test]
fn off_loopback_a_password_is_generated_and_shown_only_on_request() {
    let it = Instance::new("secret");
    let bridge = bridge();
    let up = it.first_up(&["--grafana-ip", &bridge, "--influxdb-ip", &bridge, "-v"]).expect(0);
    assert!(up.err.contains("without authentication"), "{}", up.err);
    let shown = it.run(&["status", "--show-secrets", "--output", "json"]).expect(0).json();
    let password = shown["account"]["password"].as_str().unwrap().to_string();
    assert!(password.len() >= 32 && password.chars().all(|c| c.is_ascii_hexdigit()), "128 bits");
    let url = format!("http://{bridge}:{}/api/org", it.grafana_port);
    let sign_in =
        |password: &str| http_with("GET", &url, None, &[("authorization", &basic("admin", password))]).unwrap().0;
    assert_eq!((sign_in(&password), sign_in("admin")), (200, 401));

    // It is in none of these.
    for role in ["influxdb", "grafana"] {
        assert!(!it.inspect(role).to_string().contains(&password), "inspect of {role}");
    }
    let image = it.inspect("grafana")["Image"].as_str().unwrap().to_string();
    assert!(!docker(&["history", "--no-trunc", &image]).unwrap().contains(&password));
    for role in ["influxdb", "grafana"] {
        assert!(!super::instance::both_streams(&["logs", &it.container(role)]).contains(&password), "log of {role}");
    }
    let outputs = [up, it.run(&["up", "-v"]), it.run(&["status", "-v"]), it.run(&["status", "--output", "json"])];
    for ran in outputs {
        assert!(!ran.out.contains(&password) && !ran.err.contains(&password), "{ran:?}");
    }
    // Only Grafana can read the file with it.
    let copy = tempfile::tempdir().unwrap();
    let from = format!("{}:/var/lib/grafana/clipper-metrics/admin_password", it.container("grafana"));
    docker(&["cp", "--archive", &from, copy.path().to_str().unwrap()]).unwrap();
    let kept = std::fs::metadata(copy.path().join("admin_password")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&kept.permissions()) & 0o777, 0o400);

    // After `down` and `up`: the same password, with no option repeated except the addresses.
    it.run(&["down"]).expect(0);
    it.first_up(&["--grafana-ip", &bridge]).expect(0);
    assert_eq!(sign_in(&password), 200);
    let again = it.run(&["status", "--show-secrets", "--output", "json"]).expect(0).json();
    assert_eq!(again["account"]["password"], password.as_str());
}

#[test]
fn moving_off_loopback_changes_the_default_password_first() {
    let it = Instance::new("move");
    it.first_up(&["--database", "d"]).expect(0);
    let bridge = bridge();
    let refused = it.command(&["up", "--grafana-ip", &bridge]).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "admin").run();
    assert_eq!(refused.code, 2, "{}", refused.err);
    let up = it.run(&["up", "--grafana-ip", &bridge]).expect(0);
    let (changed, moved) =
        (up.err.find("replace Grafana's default password"), up.err.find("remove Grafana's container"));
    assert!(changed.is_some() && changed < moved, "{}", up.err);
    let url = format!("http://{bridge}:{}/api/org", it.grafana_port);
    let status = http_with("GET", &url, None, &[("authorization", &basic("admin", "admin"))]).unwrap().0;
    assert_eq!(status, 401, "admin/admin is rejected");
    it.run(&["status"]).expect(0);
    // A volume kept from loopback is also secured before it is published off loopback.
    let other = Instance::new("kept");
    other.first_up(&[]).expect(0);
    other.run(&["down"]).expect(0);
    let up = other.first_up(&["--grafana-ip", &bridge, "--verbose"]).expect(0);
    assert!(up.err.contains("on loopback only"), "{}", up.err);
    let url = format!("http://{bridge}:{}/api/org", other.grafana_port);
    let status = http_with("GET", &url, None, &[("authorization", &basic("admin", "admin"))]).unwrap().0;
    assert_eq!(status, 401);
    other.run(&["status"]).expect(0);
}

#[test]
fn a_lost_password_can_be_reset_and_a_changed_one_is_supplied_once() {
    for image in ["grafana/grafana:12.4.10", "grafana/grafana:7.5.5"] {
        let it = Instance::with_grafana("lost", image);
        it.first_up(&[]).expect(0);
        let change = r#"{"oldPassword":"admin","newPassword":"forgotten","confirmNew":"forgotten"}"#;
        assert_eq!(it.grafana("PUT", "/api/user/password", Some(change)).0, 200);
        let told = it.run(&["status"]).expect(3);
        assert!(told.out.contains("--reset-grafana-password"), "{}", told.out);
        failed(it.run(&["up"]), &["rejected the login"]);
        it.run(&["up", "--reset-grafana-password"]).expect(0);
        it.run(&["status"]).expect(0);
        let chosen =
            it.command(&["up", "--reset-grafana-password"]).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "of-my-own");
        chosen.run().expect(0);
        assert_eq!(it.grafana_as("admin", "of-my-own", "GET", "/api/org", None).0, 200);
        it.run(&["up"]).expect(0);
        it.assert_whole();
    }
}

#[test]
fn a_hanging_reset_times_out_and_changes_nothing() {
    let it = Instance::with_grafana("reset-hangs", "odd:reset-hangs");
    it.first_up(&[]).expect(0);
    failed(it.run(&["up", "--reset-grafana-password", "--timeout", "10s"]), &["did not finish in time", "--timeout"]);
    it.run(&["up"]).expect(0);
    it.assert_whole();
}

#[test]
fn another_administrator_exists_from_the_first_start() {
    let it = Instance::new("own-admin");
    it.first_up(&["--grafana-user", "boss"]).expect(0);
    it.run(&["status"]).expect(0);
    assert_eq!(it.grafana_as("boss", "admin", "GET", "/api/org", None).0, 200);
    assert!(it.run(&["up"]).expect(0).out.contains("nothing to do"));
}

#[test]
fn a_proxy_in_the_environment_is_not_used_for_loopback() {
    let it = Instance::new("proxy");
    let words = it.first(&[]);
    let mut run = Run::new(words.iter().map(String::as_str).chain(["--name", &it.name]));
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        run = run.env(name, "http://127.0.0.1:1");
    }
    run.run().expect(0);
}
