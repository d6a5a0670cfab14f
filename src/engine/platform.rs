//! The command that installs or starts an engine on this system.

use std::path::Path;

/// The command for this system.
pub(super) fn advice() -> String {
    if cfg!(target_os = "macos") {
        return "install one: `brew install colima docker && colima start`, or Docker Desktop".into();
    }
    if cfg!(windows) {
        return "install one: `winget install Docker.DockerDesktop`, then start it".into();
    }
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_installed = ["/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"]
        .into_iter()
        .any(|path| Path::new(path).exists());
    linux(&release, is_installed, Path::new("/run/systemd/system").exists()).into()
}

/// The command for Linux, by the content of `/etc/os-release`.
fn linux(release: &str, is_installed: bool, has_systemd: bool) -> &'static str {
    if is_installed {
        return if has_systemd {
            "start it: `sudo systemctl start docker`"
        } else {
            "start it: `sudo service docker start`"
        };
    }
    let families: Vec<&str> = release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split_whitespace())
        .collect();
    let is = |family| families.contains(&family);
    if is("debian") || is("ubuntu") {
        "install one: `sudo apt-get install docker.io`"
    } else if families.first() == Some(&"fedora") {
        "install one: `sudo dnf install moby-engine && sudo systemctl enable --now docker`"
    } else if is("suse") || is("opensuse") {
        "install one: `sudo zypper install docker && sudo systemctl enable --now docker`"
    } else if is("arch") {
        "install one: `sudo pacman -S docker && sudo systemctl enable --now docker`"
    } else if is("alpine") {
        "install one: `sudo apk add docker && sudo rc-service docker start`"
    } else {
        "install Docker Engine (https://docs.docker.com/engine/install/)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_distribution_family_has_its_command() {
        for (release, word) in [
            ("ID=debian\n", "apt-get install docker.io"),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "apt-get install docker.io"),
            ("NAME=x\nID=fedora\n", "dnf install moby-engine"),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "docs.docker.com"),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", "zypper"),
            ("ID=arch\n", "pacman"),
            ("ID=alpine\n", "apk add docker"),
            ("", "docs.docker.com"),
        ] {
            assert!(linux(release, false, true).contains(word), "{release:?}");
        }
        assert!(linux("ID=debian\n", true, true).contains("systemctl start docker"));
        assert!(linux("ID=debian\n", true, false).contains("service docker start"));
    }
}
