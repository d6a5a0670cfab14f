//! The commands that install or start an engine on this system.

use std::path::Path;

use crate::model::invocation::shell_word;

/// The advice if no engine answers and no socket names one.
pub(super) struct Advice {
    /// The sentence with the command.
    pub(super) text: String,
    /// The command that installs an engine, if none is installed.
    pub(super) install: Option<String>,
}

/// The advice for this system.
pub(super) fn advice() -> Advice {
    if cfg!(target_os = "macos") {
        return install("`brew install colima docker && colima start`, or Docker Desktop");
    }
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_installed = ["/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"]
        .into_iter()
        .any(|path| Path::new(path).exists());
    linux(&release, is_installed, Path::new("/run/systemd/system").exists())
}

fn install(command: &str) -> Advice {
    Advice { text: format!("install an engine: {command}"), install: Some(command.into()) }
}

/// The advice for Linux, by the content of `/etc/os-release`.
fn linux(release: &str, is_installed: bool, has_systemd: bool) -> Advice {
    if is_installed {
        let command = if has_systemd { "sudo systemctl start docker" } else { "sudo service docker start" };
        return Advice { text: format!("start Docker: `{command}`"), install: None };
    }
    let families: Vec<&str> = release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split_whitespace())
        .collect();
    let is = |family| families.contains(&family);
    install(if is("debian") || is("ubuntu") {
        "`sudo apt-get install docker.io`"
    } else if families.first() == Some(&"fedora") {
        "`sudo dnf install moby-engine && sudo systemctl enable --now docker`"
    } else if is("suse") || is("opensuse") {
        "`sudo zypper install docker && sudo systemctl enable --now docker`"
    } else if is("arch") {
        "`sudo pacman -S docker && sudo systemctl enable --now docker`"
    } else if is("alpine") {
        "`sudo apk add docker && sudo rc-service docker start`"
    } else {
        "Docker Engine (https://docs.docker.com/engine/install/)"
    })
}

/// The command that starts the engine behind a socket of this machine, if the path identifies the engine.
pub(super) fn start_command(socket: &Path, is_macos: bool) -> Option<String> {
    let parts: Vec<&str> = socket.to_str()?.split('/').collect();
    let has = |part: &str| parts.contains(&part);
    // The directory below another one, which names a profile or a machine.
    let below = |part: &str| parts.iter().position(|one| *one == part).and_then(|at| parts.get(at + 1)).copied();
    let named = |command: &str, name: &str, default: &str| match name {
        name if name == default => command.to_string(),
        name => format!("{command} {}", shell_word(name)),
    };
    let file = *parts.last()?;
    let user = if has("user") { "systemctl --user" } else { "sudo systemctl" };
    Some(if let Some(profile) = below(".colima").or_else(|| below("colima")) {
        named("colima start", profile, "default")
    } else if has(".orbstack") {
        "orb start".into()
    } else if has(".rd") {
        "rdctl start".into()
    } else if let Some(machine) = below(".lima") {
        named("limactl start", machine, "default")
    } else if has(".docker") {
        if is_macos { "open -a Docker".into() } else { "systemctl --user start docker-desktop".into() }
    } else if let Some(machine) = file.strip_suffix("-api.sock").filter(|_| has("podman")) {
        named("podman machine start", machine, "podman-machine-default")
    } else if has("machine") && has("podman") {
        "podman machine start".into()
    } else if has("podman") && file == "podman.sock" {
        format!("{user} start podman.socket")
    } else if has("user") && file == "docker.sock" {
        "systemctl --user start docker".into()
    } else {
        return None;
    })
}

/// The hint if this user may not use a socket.
pub(super) fn permission(socket: &Path) -> &'static str {
    let is_podman = socket.file_name().is_some_and(|name| name == "podman.sock");
    match (cfg!(target_os = "linux"), is_podman) {
        (true, false) => {
            "join the group docker (sudo usermod -aG docker $USER, then sign in again), or use a rootless engine with \
             -H"
        }
        (true, true) => {
            "start this user's own Podman (`systemctl --user start podman.socket`), and select it with -H \
             unix://$XDG_RUNTIME_DIR/podman/podman.sock"
        }
        (false, _) => {
            "the socket belongs to another user: start an engine as this user, or select it with -H or --context"
        }
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
            let advice = linux(release, false, true);
            assert!(advice.text.contains(word) && advice.install.is_some(), "{release:?}");
        }
        let installed = linux("ID=debian\n", true, true);
        assert!(installed.text.contains("systemctl start docker") && installed.install.is_none());
        assert!(linux("ID=debian\n", true, false).text.contains("service docker start"));
    }

    #[test]
    fn the_path_of_a_socket_identifies_its_engine() {
        let machine = "/Users/me/.local/share/containers/podman/machine";
        for (socket, macos, linux) in [
            ("/Users/me/.docker/run/docker.sock", "open -a Docker", "systemctl --user start docker-desktop"),
            ("/Users/me/.colima/default/docker.sock", "colima start", "colima start"),
            ("/Users/me/.colima/big/docker.sock", "colima start big", "colima start big"),
            ("/Users/me/.config/colima/default/docker.sock", "colima start", "colima start"),
            ("/Users/me/.orbstack/run/docker.sock", "orb start", "orb start"),
            ("/Users/me/.rd/docker.sock", "rdctl start", "rdctl start"),
            ("/Users/me/.lima/docker/sock/docker.sock", "limactl start docker", "limactl start docker"),
            ("/var/folders/x/T/podman/podman-machine-default-api.sock", "podman machine start", "podman machine start"),
            ("/var/folders/x/T/podman/big-api.sock", "podman machine start big", "podman machine start big"),
            (&format!("{machine}/podman.sock"), "podman machine start", "podman machine start"),
            (&format!("{machine}/qemu/podman.sock"), "podman machine start", "podman machine start"),
            ("/run/podman/podman.sock", "sudo systemctl start podman.socket", "sudo systemctl start podman.socket"),
            (
                "/run/user/1000/podman/podman.sock",
                "systemctl --user start podman.socket",
                "systemctl --user start podman.socket",
            ),
            ("/run/user/1000/docker.sock", "systemctl --user start docker", "systemctl --user start docker"),
        ] {
            assert_eq!(start_command(Path::new(socket), true).as_deref(), Some(macos), "{socket}");
            assert_eq!(start_command(Path::new(socket), false).as_deref(), Some(linux), "{socket}");
        }
        for socket in ["/var/run/docker.sock", "/nonexistent/docker.sock", "docker.sock", ""] {
            assert_eq!(start_command(Path::new(socket), true), None, "{socket}");
        }
    }
}
