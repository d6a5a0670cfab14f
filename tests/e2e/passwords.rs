//! Grafana's administrator: a supplied password is tried before anything is changed for it, and a
//! Grafana published off loopback was verified to reject admin/admin.

use std::io::Write as _;
use std::process::Stdio;

use super::instance::{Instance, SOON, bridge, docker};
use crate::support::eventually;
use crate::support::run::{Ran, basic, http_with, ran};

fn with_password(it: &Instance, words: &[&str], password: &str) -> Ran {
    it.command(words).env("CLIPPER_METRICS_GRAFANA_PASSWORD", password).run()
}

/// Grafana's answer to a login from another host.
fn sign_in(address: &str, port: u16, user: &str, password: &str) -> u16 {
    let url = format!("http://{address}:{port}/api/org");
    http_with("GET", &url, None, &[("authorization", &basic(user, password))]).unwrap().0
}

fn change_password(it: &Instance, old: &str, new: &str) {
    let body = format!(r#"{{"oldPassword":"{old}","newPassword":"{new}","confirmNew":"{new}"}}"#);
    assert_eq!(it.grafana_as("admin", old, "PUT", "/api/user/password", Some(&body)).0, 200);
}

#[test]
fn a_wrong_password_changes_nothing() {
    let it = Instance::new("wrong");
    it.first_up(&[]).expect(0);
    let id = it.id("grafana");
    let up = with_password(&it, &["up"], "any-other-word").expect(1);
    assert!(up.err.contains("rejected the login"), "{}", up.err);
    assert_eq!(id, it.id("grafana"), "no container is replaced");
    it.run(&["up"]).expect(0);
    it.assert_whole();
    // The same for another user.
    it.run(&["up", "--grafana-user", "nobody"]).expect(1);
    it.run(&["up"]).expect(0);
    assert_eq!(id, it.id("grafana"));
    // The same while Grafana does not run.
    for stop in [&["stop", "--time", "5"][..], &["rm", "--force"]] {
        docker(&[stop, &[&it.container("grafana")]].concat()).unwrap();
        with_password(&it, &["up", "--grafana-port", "1"], "any-other-word").expect(1);
        it.run(&["up"]).expect(0);
        it.assert_whole();
        assert_eq!(sign_in("127.0.0.1", it.grafana_port, "admin", "admin"), 200, "the password is the old one");
    }
    // While moving off loopback, the password is replaced before Grafana is published.
    let bridge = bridge();
    it.run(&["up", "--grafana-ip", &bridge]).expect(0);
    assert_eq!(sign_in(&bridge, it.grafana_port, "admin", "admin"), 401);
}

#[test]
fn a_locked_account_is_named_and_its_password_is_not_reset() {
    let it = Instance::new("locked-out");
    it.first_up(&[]).expect(0);
    let id = it.id("grafana");
    let wrong = || assert_eq!(it.grafana_as("admin", "wrong", "GET", "/api/org", None).0, 401);
    (0..4).for_each(|_| wrong());
    it.run(&["up"]).expect(0);
    wrong();
    for words in [&["up"][..], &["up", "--reset-grafana-password"]] {
        let up = it.run(words).expect(1);
        let again = format!("then run `clipper-metrics {}", words.join(" "));
        assert!(up.err.contains("because of 5 wrong passwords") && up.err.contains(&again), "{}", up.err);
    }
    let status = it.run(&["status"]).expect(3);
    assert!(status.out.contains("5 wrong passwords"), "{}", status.out);
    assert_eq!(it.grafana("POST", "/_double/forgive", None).0, 200);
    it.run(&["up"]).expect(0);
    assert_eq!(id, it.id("grafana"));
    it.run(&["up", "--reset-grafana-password"]).expect(0);
    it.assert_whole();
}

#[test]
fn a_right_password_is_stored_and_found_again() {
    let it = Instance::new("right");
    it.first_up(&[]).expect(0);
    change_password(&it, "admin", "of-my-own");
    with_password(&it, &["up"], "of-my-own").expect(0);
    it.run(&["status"]).expect(0);
    it.run(&["down"]).expect(0);
    it.run(&["up"]).expect(0);
    // The password changed again while Grafana was stopped: it is tried in private and stored.
    change_password(&it, "of-my-own", "another-one");
    it.run(&["down"]).expect(0);
    with_password(&it, &["up"], "another-one").expect(0);
    it.run(&["up"]).expect(0);
    it.assert_whole();
}

#[test]
fn a_supplied_password_admin_does_not_prove_that_admin_admin_is_rejected() {
    let it = Instance::new("proof");
    it.first_up(&[]).expect(0);
    with_password(&it, &["up", "--reset-grafana-password"], "admin").expect(0);
    let bridge = bridge();
    it.run(&["up", "--grafana-ip", &bridge]).expect(0);
    assert_eq!(sign_in(&bridge, it.grafana_port, "admin", "admin"), 401, "admin/admin is rejected");
    let shown = it.run(&["status", "--show-secrets", "--output", "json"]).expect(0).json();
    let password = shown["account"]["password"].as_str().unwrap();
    assert_eq!(sign_in(&bridge, it.grafana_port, "admin", password), 200);
}

#[test]
fn moving_off_loopback_sets_a_supplied_password_while_grafana_is_stopped() {
    let it = Instance::new("still");
    it.first_up(&[]).expect(0);
    let bridge = bridge();
    docker(&["stop", "--time", "5", &it.container("grafana")]).unwrap();
    // Another process listens where the private container might have been published.
    let holder = std::net::TcpListener::bind(("127.0.0.1", it.grafana_port)).unwrap();
    with_password(&it, &["up", "--grafana-ip", &bridge], "of-my-own").expect(0);
    drop(holder);
    assert_eq!(sign_in(&bridge, it.grafana_port, "admin", "of-my-own"), 200);
    assert_eq!(sign_in(&bridge, it.grafana_port, "admin", "admin"), 401);
    it.run(&["up"]).expect(0);
}

#[test]
fn another_account_does_not_hide_admin_admin() {
    let it = Instance::new("account");
    it.first_up(&[]).expect(0);
    let user = r#"{"login":"me","password":"me-me-me-me","email":"me@localhost","name":"me"}"#;
    let (code, made) = it.grafana("POST", "/api/admin/users", Some(user));
    assert_eq!(code, 200, "{made}");
    let path = format!("/api/org/users/{}", made["id"]);
    assert_eq!(it.grafana("PATCH", &path, Some(r#"{"role":"Admin"}"#)).0, 200);
    let bridge = bridge();
    let words = ["up", "--grafana-user", "me", "--grafana-ip", &bridge];
    let up = with_password(&it, &words, "me-me-me-me");
    assert_ne!(up.code, 0, "{}", up.out);
    assert!(up.err.contains("admin still has the password admin"), "{}", up.err);
    let published =
        docker(&["ps", "--filter", &format!("name=^{}$", it.container("grafana")), "--format", "{{.Ports}}"]);
    assert!(!published.unwrap().contains(&bridge), "it is not published");
    it.run(&["up"]).expect(0);
    it.assert_whole();
    // On loopback the account signs in, and the password is stored and found again.
    let words = ["up", "--grafana-user", "me"];
    with_password(&it, &words, "me-me-me-me").expect(0);
    it.run(&["up"]).expect(0);
    it.run(&["down"]).expect(0);
    it.run(&["up"]).expect(0);
    it.assert_whole();
    let reset = it.run(&["up", "--reset-grafana-password"]).expect(2);
    assert!(reset.err.contains("--grafana-user"), "{}", reset.err);
    it.run(&["up", "--grafana-user", ""]).expect(1);
    with_password(&it, &["up", "--grafana-user", ""], "admin").expect(0);
    it.assert_whole();
}

/// The answer of Grafana's login form to another host.
fn log_in(address: &str, port: u16, user: &str, password: &str) -> u16 {
    let url = format!("http://{address}:{port}/login");
    let body = serde_json::json!({"user": user, "password": password}).to_string();
    http_with("POST", &url, Some(&body), &[("content-type", "application/json")]).unwrap().0
}

/// A file with a token for the instance's Grafana.
fn token(it: &Instance, password: &str) -> tempfile::NamedTempFile {
    let body = r#"{"name":"t","role":"Admin"}"#;
    let (_, account) = it.grafana_as("admin", password, "POST", "/api/serviceaccounts", Some(body));
    let path = format!("/api/serviceaccounts/{}/tokens", account["id"]);
    let (code, made) = it.grafana_as("admin", password, "POST", &path, Some(r#"{"name":"t"}"#));
    assert_eq!(code, 200, "{made}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), made["key"].as_str().unwrap()).unwrap();
    file
}

#[test]
fn no_other_administrator_with_the_default_password_is_published() {
    let it = Instance::new("boss");
    it.first_up(&["--grafana-user", "boss"]).expect(0);
    assert_eq!(sign_in("127.0.0.1", it.grafana_port, "boss", "admin"), 200);
    let bridge = bridge();
    let up = it.run(&["up", "--grafana-ip", &bridge]).expect(2);
    assert!(up.err.contains("account boss still has the password admin"), "{}", up.err);
    let ports = docker(&["ps", "--filter", &format!("name=^{}$", it.container("grafana")), "--format", "{{.Ports}}"]);
    assert!(!ports.unwrap().contains(&bridge), "it is not published");
    it.run(&["up"]).expect(0);
    it.assert_whole();
}

#[test]
fn the_login_form_is_checked_if_basic_authentication_is_off() {
    let it = Instance::with_grafana("form", "grafana/grafana:12.4.10");
    it.first_up(&[]).expect(0);
    let token = token(&it, "admin");
    let token = token.path().to_str().unwrap();
    let (bridge, registry) = (bridge(), crate::support::registry::address());
    let image = format!("{registry}/odd:no-basic");
    // A token signs in where passwords do not.
    it.run(&["up", "--grafana-image", &image, "--grafana-token-file", token]).expect(0);
    assert_eq!(sign_in("127.0.0.1", it.grafana_port, "admin", "admin"), 401);
    assert_eq!(log_in("127.0.0.1", it.grafana_port, "admin", "admin"), 200);
    let up = it.run(&["up", "--grafana-ip", &bridge, "--grafana-token-file", token]).expect(2);
    assert!(up.err.contains("admin still has the password admin"), "{}", up.err);
    let ports = docker(&["ps", "--filter", &format!("name=^{}$", it.container("grafana")), "--format", "{{.Ports}}"]);
    assert!(!ports.unwrap().contains(&bridge), "it is not published");
    // With another password, it is published, and admin/admin is rejected.
    it.run(&["up", "--grafana-token-file", token]).expect(0);
    let new = format!("{registry}/grafana/grafana:12.4.10");
    it.run(&["up", "--grafana-image", &new, "--grafana-token-file", token]).expect(0);
    change_password(&it, "admin", "of-my-own");
    it.run(&["up", "--grafana-image", &image, "--grafana-token-file", token, "--grafana-ip", &bridge]).expect(0);
    assert_eq!(log_in(&bridge, it.grafana_port, "admin", "admin"), 401);
    assert_eq!(log_in(&bridge, it.grafana_port, "admin", "of-my-own"), 200);
}

#[test]
fn a_visitor_without_a_login_is_neither_a_user_nor_an_administrator() {
    let it = Instance::with_grafana("anonymous", "odd:anonymous");
    it.first_up(&[]).expect(0);
    // Grafana ignores a wrong password if anonymous access is enabled.
    let up = with_password(&it, &["up"], "any-other-word").expect(1);
    assert!(up.err.contains("rejected the login"), "{}", up.err);
    it.run(&["up"]).expect(0);
    let bridge = bridge();
    it.run(&["up", "--grafana-ip", &bridge]).expect(0);
    assert_eq!(log_in(&bridge, it.grafana_port, "admin", "admin"), 401);
    let url = format!("http://{bridge}:{}/api/datasources", it.grafana_port);
    let body = Some(r#"{"name":"n","type":"influxdb","access":"proxy","url":"http://x"}"#);
    assert_eq!(http_with("POST", &url, body, &[("content-type", "application/json")]).unwrap().0, 403);
}

#[test]
fn a_reset_of_a_new_instance_sets_a_password() {
    let it = Instance::new("new-reset");
    it.first_up(&["--reset-grafana-password"]).expect(0);
    assert_eq!(sign_in("127.0.0.1", it.grafana_port, "admin", "admin"), 401);
    let shown = it.run(&["status", "--show-secrets", "--output", "json"]).expect(0).json();
    let password = shown["account"]["password"].as_str().unwrap();
    assert_eq!(sign_in("127.0.0.1", it.grafana_port, "admin", password), 200);
    // A rejected password is not shown.
    change_password(&it, password, "of-my-own");
    let rejected = it.run(&["status", "--show-secrets", "--output", "json"]).expect(3).json();
    assert_eq!(
        (&rejected["grafana"]["state"], &rejected["account"]["password"]),
        (&"refusing".into(), &serde_json::Value::Null)
    );
}

/// A Grafana that records the credentials it receives: its URL, and the `Authorization` headers.
fn listening_grafana() -> (String, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use std::sync::{Arc, Mutex};

    use crate::support::double::{Double, Version, handle};
    use crate::support::server::in_background;
    let headers = Arc::new(Mutex::new(Vec::new()));
    let double = Arc::new(Mutex::new(Double::new(Version::V12, "theirs", None)));
    let heard = Arc::clone(&headers);
    let port = in_background(move |request| {
        let double = Arc::clone(&double);
        heard.lock().unwrap().extend(request.headers.get("authorization").cloned());
        async move { handle(&double, request).await }
    });
    (format!("http://127.0.0.1:{port}"), headers)
}

#[test]
fn a_stored_password_is_never_sent_to_another_grafana() {
    let it = Instance::new("elsewhere");
    it.first_up(&[]).expect(0);
    with_password(&it, &["up", "--reset-grafana-password"], "our-secret").expect(0);
    let (url, headers) = listening_grafana();
    for words in [["status", "--grafana-url", &url], ["up", "--grafana-url", &url]] {
        assert_ne!(it.run(&words).code, 0);
    }
    let headers = headers.lock().unwrap();
    assert!(!headers.is_empty() && headers.iter().all(|header| *header == basic("admin", "admin")), "{headers:?}");
}

#[test]
fn an_export_without_an_account_does_not_sign_in_even_if_the_container_has_another_user() {
    let it = Instance::new("export-user");
    it.first_up(&["--grafana-user", "bob"]).expect(0);
    let (url, headers) = listening_grafana();
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files");
    it.run(&["export", "provisioning", files.to_str().unwrap(), "--grafana-url", &url]).expect(0);
    assert!(headers.lock().unwrap().is_empty(), "{:?}", headers.lock().unwrap());
}

#[test]
fn secrets_are_read_from_pipes_as_grafana_reads_them() {
    let it = Instance::new("pipe");
    let words = it.first(&["--grafana-password-file", "/dev/stdin"]);
    let mut command = it.command(&words).command();
    let mut up = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    up.stdin.take().unwrap().write_all(b"  through a pipe \n").unwrap();
    let up = ran(&up.wait_with_output().unwrap()).expect(0);
    assert!(!up.out.contains("through a pipe") && !up.err.contains("through a pipe"));
    assert_eq!(sign_in("127.0.0.1", it.grafana_port, "admin", "through a pipe"), 200);
    it.run(&["up"]).expect(0);
    with_password(&it, &["up"], " through a pipe\n").expect(0);
    it.assert_whole();
}

#[test]
fn an_interrupted_reset_is_completed_by_the_next_run() {
    let it = Instance::new("pending");
    it.first_up(&[]).expect(0);
    with_password(&it, &["up", "--reset-grafana-password"], "the-first").expect(0);
    // The state of a run that died between setting Grafana's password and storing it.
    change_password(&it, "the-first", "the-second");
    let folder = tempfile::tempdir().unwrap();
    let pending = folder.path().join("admin_password.new");
    std::fs::write(&pending, "the-second").unwrap();
    let to = format!("{}:/var/lib/grafana/clipper-metrics/admin_password.new", it.container("grafana"));
    docker(&["cp", pending.to_str().unwrap(), &to]).unwrap();
    it.run(&["up"]).expect(0);
    let shown = it.run(&["status", "--show-secrets", "--output", "json"]).expect(0).json();
    assert_eq!(shown["account"]["password"], "the-second");
    it.assert_whole();
}

#[test]
fn an_older_grafana_never_starts_on_a_newer_ones_database() {
    let it = Instance::with_grafana("older", "grafana/grafana:12.4.10");
    it.first_up(&[]).expect(0);
    let older = format!("{}/grafana/grafana:9.4.0", crate::support::registry::address());
    docker(&["pull", &older]).unwrap();
    let refused = |it: &Instance, image: &str| {
        let up = it.run(&["up", "--grafana-image", image]).expect(1);
        assert!(up.err.contains("older"), "{}", up.err);
    };
    refused(&it, &older);
    it.assert_whole();
    it.run(&["down"]).expect(0);
    refused(&it, &older);
    it.run(&["up"]).expect(0);
    it.assert_whole();
    // A newer version records itself in the volume, which the label does not show.
    let newer = format!("{}/grafana/grafana:13.2.3", crate::support::registry::address());
    it.run(&["up", "--grafana-image", &newer]).expect(0);
    it.run(&["down"]).expect(0);
    let before = format!("{}/grafana/grafana:12.4.10", crate::support::registry::address());
    refused(&it, &before);
    it.run(&["up"]).expect(0);
    it.assert_whole();
}

#[test]
fn a_watch_outlives_a_password_that_is_reset_elsewhere() {
    let it = Instance::new("watch-reset");
    let first = it.first(&[]);
    it.command(&first).env("CLIPPER_METRICS_GRAFANA_PASSWORD", "of-before").run().expect(0);
    let out = tempfile::NamedTempFile::new().unwrap();
    let run = it.command(&["status", "--watch"]);
    let mut watch = run.command().stdout(out.reopen().unwrap()).stderr(Stdio::null()).spawn().unwrap();
    let last = || std::fs::read_to_string(out.path()).unwrap().lines().last().map(String::from).unwrap_or_default();
    eventually("it is in sync", SOON, || last().contains(" in sync"));
    it.run(&["up", "--reset-grafana-password"]).expect(0);
    // The watch finds the new password where it is stored, and sees what changes in Grafana.
    let shown = it.run(&["status", "--show-secrets", "--output", "json"]).expect(0).json();
    let new = shown["account"]["password"].as_str().unwrap().to_string();
    let dashboard = format!("/api/dashboards/uid/{}", it.name);
    assert_eq!(it.grafana_as("admin", &new, "DELETE", &dashboard, None).0, 200);
    eventually("the deleted dashboard is noticed", 3 * SOON, || last().contains("dashboard"));
    it.run(&["up"]).expect(0);
    eventually("it is in sync again", 3 * SOON, || last().contains(" in sync"));
    super::lifecycle::interrupt(watch.id());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}
