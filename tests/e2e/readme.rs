//! Runs the commands in the README and in other pages as a reader would.

use std::process::Command;

use super::instance::{Instance, docker};
use crate::servers::user_dashboards::export;
use crate::support::registry;
use crate::support::run::{program, ran};

/// The pages in an order in which their commands work in sequence: README ends without an instance,
/// and a new one gets a supplied password.
const PAGES: [&str; 6] =
    ["README.md", "docs/passwords.md", "docs/alerts.md", "docs/dashboards.md", "docs/exports.md", "docs/scripts.md"];

/// The commands in a page's shell blocks.
fn commands(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{}/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut commands = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside && !line.is_empty() && !line.starts_with('#') => commands.push(line.to_string()),
            _ => {}
        }
    }
    commands
}

#[test]
fn every_command_of_the_documentation_works_as_printed() {
    let it = Instance::with_grafana("readme", "grafana/grafana:12.4.10");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("conf")).unwrap();
    let file = format!(
        "name = \"clipper-test\"\ninflux_dbname = \"clipper-test\"\ninflux_port = {}\n[metrics]\ngrafana_port = {}\n",
        it.influxdb_port, it.grafana_port
    );
    std::fs::write(folder.path().join("conf/test.toml"), file).unwrap();
    for (name, uid) in [("models.json", "models"), ("team.json", "team")] {
        std::fs::write(folder.path().join(name), export(uid, name).to_string()).unwrap();
    }
    std::fs::write(folder.path().join("password"), "of-my-own-choice\n").unwrap();
    // The names that a user with internet access would use.
    let mut tagged = Vec::new();
    for image in ["influxdb:1.12.4", "grafana/grafana:12.4.10"] {
        if docker(&["image", "inspect", image]).is_err() {
            docker(&["pull", &format!("{}/{image}", registry::address())]).unwrap();
            docker(&["tag", &format!("{}/{image}", registry::address()), image]).unwrap();
            tagged.push(image);
        }
    }
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(program(), bin.join("clipper-metrics")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut checked = 0;
    for command in PAGES.iter().flat_map(|page| commands(page)) {
        // `tests/run` builds, and runs these itself.
        if command.starts_with("tests/run") || command.starts_with("cargo install") {
            continue;
        }
        let output = Command::new("timeout")
            .args(["--signal", "INT", "60", "bash", "-c", &command])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("HOME", folder.path())
            .env("CLIPPER_METRICS_NAME", &it.name)
            .env("CLIPPER_METRICS_INFLUXDB_PORT", it.influxdb_port.to_string())
            .env("CLIPPER_METRICS_GRAFANA_PORT", it.grafana_port.to_string())
            .output()
            .unwrap();
        let ran = ran(&output);
        // No Clipper reports to this instance, and `doctor` reports that.
        let may_differ = command.contains("dry-run") || command == "clipper-metrics doctor";
        let fine = ran.code == 0 || (ran.code == 3 && may_differ);
        assert!(fine, "{command}\n{ran:?}");
        assert!(!ran.err.contains("panicked"), "{command}\n{ran:?}");
        checked += 1;
    }
    assert!(checked >= 30, "{checked} commands were run");
    it.run(&["down", "--volumes", "--yes"]).expect(0);
    for image in tagged {
        docker(&["rmi", image]).unwrap();
    }
}
