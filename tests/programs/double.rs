//! Grafana's double as a program for images. Never installed.

#[path = "../support/mod.rs"]
mod support;

fn main() {
    support::double::program::run();
}
