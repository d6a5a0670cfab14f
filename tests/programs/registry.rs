//! The test registry as a program, for trying clipper-metrics without access to images: InfluxDB is
//! this machine's real one, Grafana is a double that shows no dashboard. Never installed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a program for tests may panic and print"
)]

#[path = "../support/mod.rs"]
mod support;

use support::image;
use support::registry::Registry;
use support::server::serve;

fn main() {
    let port = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5000_u16);
    let registry = Registry::new(&image::all(&image::double_program()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = match tokio::net::TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => listener,
            Err(why) => {
                eprintln!("cannot listen on 127.0.0.1:{port}: {why}");
                std::process::exit(1);
            }
        };
        let port = listener.local_addr().unwrap().port();
        println!("the test registry listens on 127.0.0.1:{port}; Ctrl-C ends it");
        println!("in another terminal: cargo run --release -- up --registry 127.0.0.1:{port}");
        let serving = serve(listener, move |request| {
            let registry = registry.clone();
            async move { registry.respond(request).await }
        });
        tokio::select! {
            () = serving => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    });
}
