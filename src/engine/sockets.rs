//! The sockets of engines, which are tried if no engine was chosen and the default socket does not exist.

use std::path::{Path, PathBuf};

use super::endpoint::{ChosenBy, DEFAULT, Endpoint, Tried};
use super::environment::Environment;

/// The engine to use without a choice: the default socket or, only if that does not exist, the
/// first of the others that answers. A socket that denies access counts as an answer.
pub(super) fn usual(socket: &Path, environment: &Environment) -> Endpoint {
    let mut endpoint = Endpoint::new(DEFAULT, ChosenBy::Default);
    // A link without a target, such as one left by Docker Desktop, is no socket.
    if !matches!(std::fs::metadata(socket), Err(why) if why.kind() == std::io::ErrorKind::NotFound) {
        return endpoint;
    }
    for (engine, path) in candidates(environment) {
        let result = match path.to_str() {
            None if path.exists() => Err("its path is not UTF-8 text".into()),
            None => continue,
            Some(name) => connect(&path).map(|()| format!("unix://{name}")),
        };
        match result {
            Ok(host) => {
                return Endpoint { tried: endpoint.tried, ..Endpoint::new(&host, ChosenBy::Found(engine)) };
            }
            Err(why) if std::fs::symlink_metadata(&path).is_ok() => endpoint.tried.push(Tried { engine, path, why }),
            Err(_) => {}
        }
    }
    endpoint
}

/// The sockets of engines that run without Docker's own service.
fn candidates(environment: &Environment) -> Vec<(&'static str, PathBuf)> {
    let (runtime, home) = (environment.path("XDG_RUNTIME_DIR"), environment.path("HOME"));
    // Elsewhere, the folder for temporary files may be one in which every user can create a socket.
    let temporary = environment.path("TMPDIR").filter(|_| cfg!(target_os = "macos"));
    let colima = environment.path("COLIMA_HOME");
    let places = [
        ("rootless Docker", runtime, "docker.sock"),
        ("Docker Desktop", home, ".docker/run/docker.sock"),
        ("Docker Desktop", home, ".docker/desktop/docker.sock"),
        ("colima", colima, "default/docker.sock"),
        ("colima", home, ".colima/default/docker.sock"),
        ("colima", home, ".config/colima/default/docker.sock"),
        ("OrbStack", home, ".orbstack/run/docker.sock"),
        ("Rancher Desktop", home, ".rd/docker.sock"),
        ("Podman", runtime, "podman/podman.sock"),
        ("Podman", Some(Path::new("/run/podman")), "podman.sock"),
        // The machine of Podman 5, of Podman 4 with Apple's hypervisor, and with QEMU.
        ("Podman machine", temporary, "podman/podman-machine-default-api.sock"),
        ("Podman machine", home, ".local/share/containers/podman/machine/podman.sock"),
        ("Podman machine", home, ".local/share/containers/podman/machine/podman-machine-default/podman.sock"),
        ("Podman machine", home, ".local/share/containers/podman/machine/qemu/podman.sock"),
    ];
    places.into_iter().filter_map(|(engine, folder, path)| Some((engine, folder?.join(path)))).collect()
}

/// Connects to a socket, to see whether an engine listens on it.
#[cfg(unix)]
fn connect(path: &Path) -> Result<(), String> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Ok(()),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Err("does not exist".into()),
        Err(why) => {
            let why = why.to_string().to_lowercase();
            Err(why.split(" (os error").next().unwrap_or(&why).to_string())
        }
    }
}

#[cfg(not(unix))]
fn connect(_: &Path) -> Result<(), String> {
    Err("not supported on this system".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn without_a_choice_the_first_answering_socket_is_used_and_each_failure_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let all: Environment = ["HOME", "XDG_RUNTIME_DIR"].map(|name| (name.to_string(), home.to_string())).into();
        let usual_socket = folder.path().join("usual.sock");
        // A socket that exists and refuses connections.
        std::fs::create_dir_all(folder.path().join(".colima/default")).unwrap();
        let dead = folder.path().join(".colima/default/docker.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let none = usual(&usual_socket, &all);
        assert_eq!(none.host, DEFAULT);
        // Sockets that do not exist are not listed.
        let tried: Vec<String> = none.tried.iter().map(Tried::to_string).collect();
        assert_eq!(tried, [format!("{} (colima): connection refused", dead.display())]);
        assert_eq!(none.sockets(), [Path::new("/var/run/docker.sock"), &dead]);
        // A socket that answers.
        std::fs::create_dir_all(folder.path().join(".orbstack/run")).unwrap();
        let alive = folder.path().join(".orbstack/run/docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&alive).unwrap();
        let found = usual(&usual_socket, &all);
        assert_eq!(found.host, format!("unix://{}", alive.display()));
        assert_eq!(found.to_string(), format!("unix://{} (found, OrbStack)", alive.display()));
        // A link without a target is no socket.
        std::os::unix::fs::symlink(folder.path().join("gone.sock"), &usual_socket).unwrap();
        assert_eq!(usual(&usual_socket, &all), found);
        std::fs::remove_file(&usual_socket).unwrap();
        // The default socket is used as soon as it exists, even if it does not answer.
        std::fs::write(&usual_socket, "").unwrap();
        assert_eq!(usual(&usual_socket, &all), Endpoint::new(DEFAULT, ChosenBy::Default));
    }
}
