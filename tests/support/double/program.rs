//! Grafana's double as a program for images: the server, and Grafana's own command for resetting a
//! password. It can misbehave on purpose.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Doors, Double, Version, handle};
use crate::support::server::{Response, serve};

/// The path of the state, next to the password.
fn state() -> PathBuf {
    Path::new(&std::env::var("GF_PATHS_DATA").unwrap_or("/var/lib/grafana".into())).join("grafana.db")
}

/// Runs until it is terminated.
pub fn run() {
    let arguments: Vec<String> = std::env::args().collect();
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if arguments.iter().any(|word| word == "reset-admin-password") {
        assert!(arguments.iter().any(|word| word == "--password-from-stdin"), "the password must not be an argument");
        let mut password = String::new();
        std::io::stdin().read_to_string(&mut password).unwrap();
        if variable("GRAFANA_DOUBLE_BEHAVIOUR") == "reset-hangs" {
            loop {
                std::thread::park();
            }
        }
        let version = Version::parse(&variable("GRAFANA_DOUBLE_VERSION"));
        Double::new(version, "", Some(state())).reset_password(password.trim_end());
        println!("Admin password changed successfully ✔");
        return;
    }
    let behaviour = variable("GRAFANA_DOUBLE_BEHAVIOUR");
    if behaviour == "exits" || behaviour == "crashes" {
        eprintln!("level=error msg=\"this one was made to fail\"");
        std::process::exit(if behaviour == "exits" { 0 } else { 7 });
    }
    if behaviour == "migrates" {
        // As a newer version leaves a database that an older one cannot read, with its journal.
        for file in [state(), state().with_extension("db-wal")] {
            std::fs::write(file, "migrated by a newer version").unwrap();
        }
        eprintln!("level=error msg=\"migrated, and died of it\"");
        std::process::exit(7);
    }
    let password = match variable("GF_SECURITY_ADMIN_PASSWORD") {
        text if text.is_empty() => "admin".to_string(),
        text => match text.strip_prefix("$__file{").and_then(|rest| rest.strip_suffix('}')) {
            Some(path) => match std::fs::read_to_string(path) {
                Ok(password) => password.trim().to_string(),
                Err(why) => {
                    eprintln!("level=error msg=\"cannot read {path}: {why}\"");
                    std::process::exit(1);
                }
            },
            None => text,
        },
    };
    let version = Version::parse(&variable("GRAFANA_DOUBLE_VERSION"));
    println!("Grafana's double {} starts", version.name());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let serving = async {
            if behaviour == "silent" {
                return std::future::pending().await;
            }
            let listener = tokio::net::TcpListener::bind(match variable("GRAFANA_DOUBLE_ADDRESS") {
                address if address.is_empty() => "0.0.0.0:3000".to_string(),
                address => address,
            })
            .await
            .unwrap();
            if behaviour == "influxdb2" {
                let listener = tokio::net::TcpListener::bind("0.0.0.0:8086").await.unwrap();
                return serve(listener, |_| async { influxdb2() }).await;
            }
            let mut double = Double::new(version, &password, Some(state()));
            double.provision_from(Path::new("/etc/grafana/provisioning"));
            if variable("GF_SECURITY_DISABLE_BRUTE_FORCE_LOGIN_PROTECTION") == "true" {
                double.never_lock_out();
            }
            let is_on = |name: &str| variable(name) == "true";
            double.doors = Doors {
                without_basic: variable("GF_AUTH_BASIC_ENABLED") == "false",
                without_form: is_on("GF_AUTH_DISABLE_LOGIN_FORM"),
                anonymous: is_on("GF_AUTH_ANONYMOUS_ENABLED").then(|| variable("GF_AUTH_ANONYMOUS_ORG_ROLE")),
            };
            let user = variable("GF_SECURITY_ADMIN_USER");
            if !user.is_empty() {
                double.name_administrator(&user);
            }
            let double = Arc::new(Mutex::new(double));
            let has_no_queries = behaviour == "no-queries";
            serve(listener, move |request| {
                let double = Arc::clone(&double);
                async move {
                    let asks_a_panel = request.path.starts_with("/api/ds/query")
                        && String::from_utf8_lossy(&request.body).contains("SELECT");
                    if has_no_queries && asks_a_panel {
                        return Response::json(
                            500,
                            &serde_json::json!({"message": "this one was made to answer no panel"}),
                        );
                    }
                    let (method, path) = (request.method.clone(), request.path.clone());
                    let credentials =
                        if request.headers.contains_key("authorization") { " with credentials" } else { "" };
                    let response = handle(&double, request).await;
                    if response.status == 401 && !credentials.is_empty() {
                        let why = double.lock().unwrap().rejection();
                        println!(
                            "logger=authn.service level=info msg=\"Failed to authenticate request\" \
                             client=auth.client.basic error=\"[password-auth.failed] {why}\""
                        );
                    }
                    // As Grafana logs requests that fail; tests see whether a password was sent.
                    if response.status != 200 || !credentials.is_empty() {
                        println!(
                            "msg=\"Request Completed\" method={method} path={path} status={}{credentials}",
                            response.status
                        );
                    }
                    response
                }
            })
            .await;
        };
        tokio::select! {
            () = serving => {}
            _ = terminated.recv() => println!("Grafana's double ends"),
        }
    });
}

/// The description that InfluxDB 2 returns of itself.
fn influxdb2() -> Response {
    let mut response = Response::bytes(204, "application/json", Vec::new());
    response.headers.push(("X-Influxdb-Version".into(), "v2.7.12".into()));
    response
}
