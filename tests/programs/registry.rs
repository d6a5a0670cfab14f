//! The test registry as a program, for trying clipper-metrics without access to images: InfluxDB is
//! this machine's real one, Grafana is a double that shows no dashboard. Never installed.

#[path = "../support/mod.rs"]
mod support;

fn main() {
    support::registry::run();
}
