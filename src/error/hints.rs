//! The hints of errors: the next command to type, specific to the cause.

use super::{Error, ForeignObject, PullFailure, Refusal, is_disk_full};
use crate::model::hints::{REDIRECTED, UNUSABLE_CONTENT};
use crate::model::image::ImageRef;
use crate::model::invocation::Invocation;
use crate::model::publish;
use crate::model::role::Role;
use crate::model::text::listed;
use crate::model::upgrade::UpgradeState;

impl Error {
    /// The next command to type; `invocation` makes suggested commands reach the same instance.
    #[must_use]
    pub fn hint(&self, invocation: &Invocation) -> String {
        match self {
            Self::Usage { hint, .. }
            | Self::File { hint, .. }
            | Self::Engine { hint, .. }
            | Self::Interrupted { hint }
            | Self::NotReady { hint, .. }
            | Self::Absent { hint, .. }
            | Self::NotConverged { hint, .. }
            | Self::NotConfirmed { hint, .. } => hint.clone(),
            Self::UpgradeUndone { upgrade, undone: Ok(()), again, .. } if upgrade.state != UpgradeState::Postponed => {
                format!("`up` does not try that image again automatically; `{again}` does")
            }
            Self::UpgradeUndone { undone: Ok(()), again, source, .. }
                if matches!(**source, Self::Docker { refusal: Refusal::Disk, .. }) =>
            {
                let usage = invocation.docker("system df");
                format!(
                    "free space on the engine's disk (`{usage}` shows what uses it); `{again}` tries that image again"
                )
            }
            Self::UpgradeUndone { undone: Ok(()), again, .. } => {
                format!("remove the cause; `{again}` tries that image again")
            }
            Self::UpgradeUndone { rest, .. } => format!("`{rest}` continues the rollback"),
            Self::Blocked { blocker, .. } => blocker.hint.clone(),
            Self::Foreign { object, .. } => object.hint(invocation),
            Self::Docker { refusal: Refusal::Denied, doing, .. } => denied(doing),
            Self::Docker { refusal, .. } => refusal.hint(invocation),
            Self::Raced { .. } => {
                "another process works on the same objects: wait until it has ended, then run the same command again"
                    .into()
            }
            Self::Contradicted { .. } => format!("`{}` saves them again", invocation.command("up")),
            Self::Publish { role, address, holder, answers, free } => {
                let another = invocation.another_port(*role, *free);
                publish::hint(*role, *address, holder, answers.as_ref(), &another, invocation)
            }
            Self::Pull { failure, image, .. } => failure.hint(image, invocation),
            Self::Http { .. } => "check that the server runs, then try again; -v shows every request".into(),
            Self::Refused { role: Role::Grafana, .. } => {
                "check --grafana-user and --grafana-password-file, or --grafana-token-file; Grafana locks a user out \
                 for 5 minutes after 5 wrong passwords"
                    .into()
            }
            Self::Forbidden { statements, .. } if !statements.is_empty() => {
                let statements: Vec<String> = statements.iter().map(|statement| format!("`{statement}`")).collect();
                format!(
                    "use the account of an administrator of InfluxDB, or ask one to execute {}",
                    listed(&statements)
                )
            }
            Self::Refused { .. } | Self::Forbidden { .. } => "use --influxdb-user and --influxdb-password-file".into(),
            Self::Answer { status: 403, .. } => {
                "use an administrator's account; after its first `up`, an editor's account is enough for the \
                 dashboard, from Grafana 9 on"
                    .into()
            }
            Self::Answer { status: 409, .. } => {
                "-v shows the request; if an object that this account may not see has that name, rename it in Grafana as \
                 an administrator, or choose another --name"
                    .into()
            }
            Self::Answer { status: 0, .. } => UNUSABLE_CONTENT.into(),
            Self::Answer { status: 300..400, .. } => REDIRECTED.into(),
            Self::Answer { why, .. } if is_disk_full(why) => {
                "free space on the disk with that server's data, then run the same command again".into()
            }
            Self::Answer { .. } => "-v shows every request, and the server's log may show the cause".into(),
            Self::Io { source, .. } => io_hint(source.kind()).into(),
            Self::Output(_) => format!(
                "print it elsewhere; changes by the command stay, and `{}` shows the state of the instance",
                invocation.command("status")
            ),
        }
    }
}

impl ForeignObject {
    fn hint(&self, invocation: &Invocation) -> String {
        match self {
            Self::DataSource { provisioned: true } => {
                "choose another --name, or remove it from Grafana's provisioning files".into()
            }
            Self::DataSource { provisioned: false } => {
                "choose another --name, or rename or delete it in Grafana".into()
            }
            Self::Dashboard => {
                "rename or delete it in Grafana, use a folder with --grafana-folder, or choose another --name".into()
            }
            Self::Attached { network, container } => {
                let command = invocation.docker(&format!("network disconnect {network} {container}"));
                format!("`{command}`, then run the same command again")
            }
            Self::VolumeUser { container } => {
                let command = invocation.docker(&format!("rm --force {container}"));
                format!("remove it with `{command}`, then run the same command again")
            }
        }
    }
}

impl Refusal {
    /// The remedy for this kind of error.
    pub(crate) fn hint(self, invocation: &Invocation) -> String {
        match self {
            Self::Gone => {
                format!(
                    "check that the engine still runs (`{}`), then run the same command again",
                    invocation.docker("version")
                )
            }
            Self::Disk => full_disk(invocation),
            Self::TooLarge => format!(
                "check that `{}` works, or select another engine with -H or --context",
                invocation.docker("version")
            ),
            Self::AddressPools => {
                format!(
                    "remove networks that no container uses (`{}`), or add ranges to `default-address-pools` in the \
                     engine's daemon.json and restart it; then run the same command again",
                    invocation.docker("network prune")
                )
            }
            Self::Denied => denied("send such requests"),
            other => other.advice().map_or_else(
                || {
                    format!(
                        "`{}` and the engine's log may show the cause; then run the same command again",
                        invocation.docker("info")
                    )
                },
                Into::into,
            ),
        }
    }

    /// A remedy that is the same for every engine.
    const fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::NotFound => "the object was removed in the meantime: run the same command again",
            Self::Conflict | Self::BeingRemoved | Self::Overwritten => {
                "another process changed the same objects: run the same command again"
            }
            Self::PortTaken | Self::NoSuchAddress => {
                "choose another address with --influxdb-ip/--influxdb-port or --grafana-ip/--grafana-port"
            }
            Self::UnexpectedFile => "put a regular file in its place in the volume, then run the same command again",
            Self::Firewall => {
                "a restart of the firewall removes the engine's rules: restart the engine as well (`sudo systemctl \
                 restart docker`; Podman: `podman network reload --all`), then run the same command again"
            }
            Self::PrivilegedPort => {
                "choose ports of at least 1024 with --influxdb-port or --grafana-port, or let the engine open lower \
                 ones (`sudo sysctl net.ipv4.ip_unprivileged_port_start=0`)"
            }
            Self::Cgroups => {
                "mount control groups on the engine's host (/sys/fs/cgroup) and restart the engine, then run the same \
                 command again"
            }
            Self::Architecture => OTHER_PROCESSOR,
            Self::Unrunnable | Self::NoSuchProgram => {
                "check that the image contains InfluxDB or Grafana, or choose another with --influxdb-image or \
                 --grafana-image"
            }
            Self::Gone
            | Self::Disk
            | Self::TooLarge
            | Self::AddressPools
            | Self::Denied
            | Self::Other
            | Self::NotPaused
            | Self::Ending => return None,
        })
    }
}

impl PullFailure {
    fn hint(self, image: &ImageRef, invocation: &Invocation) -> String {
        match self {
            Self::NotFound => {
                let library = image.library_form().map(|form| {
                    format!(", or, for a mirror of Docker Hub with full names, use --influxdb-image {form}")
                });
                format!(
                    "check the name, sign in with `docker login`, or choose another image or registry (--registry){}; \
                     without internet: run `docker save {image} -o image.tar` elsewhere and `{}` here, then use \
                     --pull never",
                    library.unwrap_or_default(),
                    invocation.docker("load -i image.tar")
                )
            }
            Self::RateLimited => {
                "the registry's limit lasts hours: sign in with `docker login`, or use a mirror with --registry".into()
            }
            Self::Unreachable => format!(
                "{}; without internet: load the images with `{}`, then use --pull never",
                unreachable_registry(image.registry()),
                invocation.docker("load -i images.tar")
            ),
            Self::Silent | Self::Cut => "run the same command again: complete layers are kept".into(),
            Self::Disk => full_disk(invocation),
            Self::Certificate => unknown_authority(image.registry()),
            Self::Clock => {
                "check the clock of the engine's host (`timedatectl`); if it is right, the registry's certificate must \
                 be renewed"
                    .into()
            }
            Self::PlainHttp => {
                let registry = image.registry().unwrap_or("HOST:PORT");
                format!(
                    "if you trust the network to {registry}, add `\"insecure-registries\": [\"{registry}\"]` to the \
                     engine's daemon.json (Podman: `insecure = true` in registries.conf) and restart it; otherwise \
                     enable TLS on the registry"
                )
            }
            Self::ProxyLogin => {
                "configure the proxy's user and password in the engine (`https-proxy` under `proxies` in daemon.json, \
                 as http://USER:PASSWORD@HOST:PORT) and restart it, or use a mirror with --registry"
                    .into()
            }
            Self::Platform => OTHER_PROCESSOR.into(),
            Self::Other => {
                let pull = invocation.docker(&format!("pull {image}"));
                format!("run the same command again, or try `{pull}` by hand")
            }
        }
    }
}

/// The advice if a proxy or a plugin does not allow a request; `doing` is the attempt, in the imperative.
pub(crate) fn denied(doing: &str) -> String {
    format!(
        "a proxy in front of the engine, such as docker-socket-proxy, or an authorization plugin denied the request: \
         configure it to allow clipper-metrics to {doing} (docs/remote-engines.md), or select the engine itself with -H"
    )
}

fn unreachable_registry(registry: Option<&str>) -> String {
    match registry {
        None => "check the network and the engine's proxy, or use a mirror with --registry".into(),
        Some(registry) => format!(
            "check that a registry runs at {registry} and that the engine's host can reach it (network, proxy), or \
             choose another with --registry"
        ),
    }
}

/// The advice for a certificate that the engine does not trust.
fn unknown_authority(registry: Option<&str>) -> String {
    match registry {
        None => "a proxy may replace the registry's certificate: add the proxy's CA certificate to the system \
                 certificates of the engine's host and restart the engine"
            .into(),
        Some(registry) => format!(
            "copy the CA certificate of {registry} to /etc/docker/certs.d/{registry}/ca.crt on the engine's host, then \
             run the same command again"
        ),
    }
}

/// The advice for an image of another architecture.
const OTHER_PROCESSOR: &str = "the engine's host has another architecture: choose an image built for it with \
                               --influxdb-image or --grafana-image";

fn full_disk(invocation: &Invocation) -> String {
    let usage = invocation.docker("system df");
    format!("free space on the engine's disk (`{usage}` shows what uses it), then run the same command again")
}

/// The advice for a file or directory on this machine.
const fn io_hint(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match kind {
        StorageFull | QuotaExceeded => {
            "free space on that disk, or choose a file on another one; TMPDIR sets the directory of temporary files"
        }
        ReadOnlyFilesystem => "choose a file on a writable disk",
        _ => "check the permissions of the file or directory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_hint() {
        let invocation = Invocation::new(Vec::new(), " -H tcp://far:2375");
        let docker = |refusal| Error::Docker { doing: "start".into(), why: "x".into(), refusal }.hint(&invocation);
        for (refusal, words) in [
            (Refusal::AddressPools, "`docker -H tcp://far:2375 network prune`"),
            (Refusal::Firewall, "systemctl restart docker"),
            (Refusal::PrivilegedPort, "at least 1024"),
            (Refusal::Cgroups, "/sys/fs/cgroup"),
            (Refusal::Architecture, "another architecture"),
            (Refusal::Unrunnable, "--grafana-image"),
            (Refusal::Disk, "`docker -H tcp://far:2375 system df`"),
            (Refusal::Other, "`docker -H tcp://far:2375 info`"),
        ] {
            assert!(docker(refusal).contains(words), "{refusal:?}: {}", docker(refusal));
        }
        let pull = |image: &str, failure| {
            let image = ImageRef::parse(image).unwrap();
            Error::Pull { image, why: "x".into(), failure }.hint(&invocation)
        };
        let mirror = "m.example:5000/grafana/grafana:12.4.10";
        for (image, failure, words) in [
            (mirror, PullFailure::Certificate, "/etc/docker/certs.d/m.example:5000/ca.crt"),
            ("grafana/grafana:12.4.10", PullFailure::Certificate, "CA certificate to the system"),
            (mirror, PullFailure::Clock, "timedatectl"),
            (mirror, PullFailure::ProxyLogin, "USER:PASSWORD"),
            (mirror, PullFailure::Platform, "another architecture"),
        ] {
            let hint = pull(image, failure);
            assert!(hint.contains(words), "{failure:?}: {hint}");
            assert!(failure == PullFailure::Certificate || !hint.contains("same command again"), "{failure:?}: {hint}");
        }
        let io =
            |kind: std::io::ErrorKind| Error::Io { doing: "write x".into(), source: kind.into() }.hint(&invocation);
        assert!(io(std::io::ErrorKind::StorageFull).contains("free space"));
        assert!(io(std::io::ErrorKind::PermissionDenied).contains("permissions"));
        let why = "engine: write /var/lib/influxdb/wal/x: no space left on device";
        let answer = Error::Answer { doing: "write".into(), url: "u".into(), status: 500, why: why.into() };
        assert!(answer.hint(&invocation).contains("free space"), "{}", answer.hint(&invocation));
    }
}
