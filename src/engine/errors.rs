//! Classifies the engine's errors by their messages, except those of pulls.

use std::path::Path;

use bollard::errors::Error as Bollard;

use super::endpoint::{ChosenBy, Endpoint, Tried};
use super::transport::TooLarge;
use super::{REQUEST_TIMEOUT, platform};
use crate::error::{Error, Refusal, chain, denied};
use crate::model::text::excerpt;

/// The reason why an engine cannot be used, with a hint.
pub(super) fn unreachable(endpoint: &Endpoint, error: &Bollard) -> Error {
    let message = match error {
        Bollard::DockerResponseServerError { status_code, message } if has_no_text(message) => {
            answer(*status_code, message)
        }
        other => chain(other),
    };
    let lower = message.to_lowercase();
    let socket = endpoint.host.trim_start_matches("unix://");
    let missing = matches!(error, Bollard::SocketNotFoundError(_))
        || (lower.contains("no such file") && endpoint.certificates.is_none());
    let mut install = None;
    let mut is_down = false;
    let (why, hint) = if let Bollard::DockerResponseServerError { status_code: FORBIDDEN, message } = error {
        (answer(FORBIDDEN, message), denied("request the engine's version"))
    } else if lower.contains("permission denied") {
        (format!("permission denied for {socket}"), platform::permission(Path::new(socket)).to_string())
    } else if missing {
        is_down = true;
        let others: Vec<String> = endpoint.tried.iter().map(Tried::to_string).collect();
        let others = match (others.is_empty(), endpoint.chosen_by == ChosenBy::Default) {
            (false, _) => format!("; also tried: {}", others.join(", ")),
            (true, true) => ", and no other engine was found".into(),
            (true, false) => String::new(),
        };
        if endpoint.chosen_by == ChosenBy::Default && start_command(endpoint).is_none() {
            install = platform::advice().install;
        }
        (format!("{socket} does not exist{others}"), start(endpoint))
    } else if let Some(found) = tls_fault(endpoint, &message) {
        found
    } else if matches!(error, Bollard::UnsupportedURISchemeError { .. }) {
        (
            "the address has an unknown scheme".to_string(),
            "use unix:///path, tcp://host:port or ssh://user@host".to_string(),
        )
    } else if lower.contains("connection refused") {
        is_down = true;
        ("no engine listens there".to_string(), start(endpoint))
    } else if lower.contains("failed to lookup address") {
        (
            "its host name has no address".to_string(),
            "check the name, or select another engine with -H or --context".to_string(),
        )
    } else if matches!(error, Bollard::JsonDataError { .. }) || lower.contains("deserialize") {
        ("the answer does not come from a Docker engine".to_string(), "select another with -H or --context".to_string())
    } else {
        (
            excerpt(&message, 300),
            format!(
                "check that `{}` works, or select another engine with -H or --context",
                endpoint.docker_command("version")
            ),
        )
    };
    Error::Engine { endpoint: endpoint.to_string(), why, hint, install, is_down }
}

/// The TLS problem, if that is the cause of an error. Variables do not change a context.
fn tls_fault(endpoint: &Endpoint, message: &str) -> Option<(String, String)> {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    let command = endpoint.certificates_command();
    let add = command.map(|command| format!("`{command}` adds certificates to the context"));
    let Some(folder) = &endpoint.certificates else {
        let is_tcp = ["tcp://", "http://"].iter().any(|scheme| endpoint.host.starts_with(scheme));
        // A TLS server answers plain HTTP with bytes that are not HTTP, or by closing the connection.
        let is_no_http = says(&["invalid HTTP", "connection closed before", "HTTPS server", "IncompleteMessage"]);
        let by_variables =
            "set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to a folder with ca.pem, cert.pem and key.pem";
        let why = "it does not answer in plain HTTP, so it may require TLS".to_string();
        return (is_tcp && is_no_http).then(|| (why, add.unwrap_or_else(|| by_variables.into())));
    };
    let has_authority = endpoint.chosen_by.context().is_none() || folder.join("ca.pem").exists();
    let folder = folder.display();
    let certificate = message.split("invalid peer certificate: ").nth(1);
    if let Some(why) = certificate {
        let why = format!("its certificate is not accepted ({})", excerpt(why, 120));
        let hint = match add.filter(|_| !has_authority) {
            Some(add) => format!("the context has no CA certificate, so the system's are used: {add}"),
            None => format!("check {folder}/ca.pem, and the certificate's dates and names"),
        };
        return Some((why, hint));
    }
    if says(&["received fatal alert"]) {
        let why = "it rejected the client certificate".to_string();
        return Some((why, format!("check {folder}/cert.pem and {folder}/key.pem")));
    }
    if says(&["corrupt message", "InvalidContentType", "InvalidMessage"]) {
        let hint = match endpoint.chosen_by.context() {
            Some(name) => {
                format!("use its TLS port, or remove the context's certificates: `{}`", endpoint.update_command(name))
            }
            None => "unset DOCKER_TLS_VERIFY, or use its TLS port".into(),
        };
        return Some(("it does not use TLS".to_string(), hint));
    }
    says(&["ca.pem", "cert.pem", "key.pem", "CertPath", "ertificate"]).then(|| {
        (
            format!("the certificates in {folder} cannot be used: {}", excerpt(message, 200)),
            add.unwrap_or_else(|| "set DOCKER_CERT_PATH to a folder with ca.pem, cert.pem and key.pem".into()),
        )
    })
}

/// The hint if no engine answers; on this machine, a command that installs or starts one.
fn start(endpoint: &Endpoint) -> String {
    let advice = match start_command(endpoint) {
        Some(command) => format!("start it: `{command}`"),
        None if endpoint.is_default() => platform::advice().text,
        None => "check that address, or start the engine there".into(),
    };
    format!("{advice}; -H or --context selects another")
}

/// The command that starts the engine of one of the endpoint's sockets.
fn start_command(endpoint: &Endpoint) -> Option<String> {
    endpoint.sockets().iter().find_map(|socket| platform::start_command(socket, cfg!(target_os = "macos")))
}

/// Classifies an engine's error.
pub(super) fn translate(doing: &str, error: &Bollard) -> Error {
    let (refusal, why) = match error {
        Bollard::DockerResponseServerError { status_code, message } => {
            (refusal(*status_code, &message.to_lowercase()), answer(*status_code, message))
        }
        Bollard::JsonDataError { .. } | Bollard::JsonSerdeError { .. } => {
            (Refusal::Other, "the engine's answer is invalid".into())
        }
        Bollard::RequestTimeoutError => {
            (Refusal::Gone, format!("no answer from the engine for {}s", REQUEST_TIMEOUT.as_secs()))
        }
        other if TooLarge::caused(other) => (Refusal::TooLarge, excerpt(&chain(other), 300)),
        other => (Refusal::Gone, excerpt(&chain(other), 300)),
    };
    Error::Docker { doing: doing.into(), why, refusal }
}

/// The status with which proxies and authorization plugins deny a request.
const FORBIDDEN: u16 = 403;

/// Phrases in denials of the engine itself: a name on a network, and the networks that every engine has.
const OWN_DENIALS: &[&str] = &["already exists in network", "predefined", "swarm"];

/// Whether a proxy or an authorization plugin denied a pull: a registry's denial says more.
pub(super) fn is_denied(error: &Bollard) -> bool {
    let Bollard::DockerResponseServerError { status_code: FORBIDDEN, message } = error else { return false };
    has_no_text(message)
        || message.contains("authorization denied by plugin")
        || message.trim().eq_ignore_ascii_case("forbidden")
}

/// The engine's message, or the status if a proxy sent a web page or nothing.
fn answer(status: u16, message: &str) -> String {
    if !has_no_text(message) {
        return excerpt(message, 400);
    }
    format!("the answer has status {status} and no message")
}

/// Whether an answer is a web page or empty.
fn has_no_text(message: &str) -> bool {
    matches!(message.trim_start().chars().next(), None | Some('<'))
}

/// Phrases of engines in lower case, with their cause. The first that a message contains decides.
const PHRASES: &[(Refusal, &[&str])] = &[
    // Linux, macOS and Windows.
    (
        Refusal::NoSuchAddress,
        &["cannot assign requested address", "can't assign requested address", "address is not valid in its context"],
    ),
    (Refusal::PortTaken, &["port is already allocated", "address already in use"]),
    (Refusal::Disk, &["no space left"]),
    (Refusal::AddressPools, &["available, non-overlapping", "fully subnetted", "could not find free subnet"]),
    (Refusal::PrivilegedPort, &["privileged port", "bind: permission denied", "vmnetd"]),
    (Refusal::Firewall, &["iptables", "nftables", "no chain/target/match by that name"]),
    (Refusal::Cgroups, &["cgroup mountpoint does not exist", "no cgroup mount found", "cgroup controller"]),
    (Refusal::Architecture, &["exec format error"]),
    // A program of the engine itself, so the image is not the cause.
    (Refusal::Other, &["docker-proxy", "userland proxy", "rootlessport", "fork/exec", "apparmor_parser"]),
    (Refusal::NoSuchProgram, &["executable file not found", "open executable: no such file"]),
    (Refusal::Unrunnable, &["unable to find user", "no command specified"]),
    // crun, with the system's message, in the last one for a directory.
    (
        Refusal::Unrunnable,
        &[
            "exists but it is not executable",
            "open executable: permission denied",
            "open executable: operation not permitted",
        ],
    ),
    // Docker Desktop and OrbStack begin every message about publishing in this way. Without a known cause, the port is
    // in use or reserved, unless Docker Desktop could not check that.
    (Refusal::Other, &["unable to list exposed ports"]),
    (Refusal::PortTaken, &["ports are not available"]),
];

/// The cause of an engine's error message in lower case.
fn refusal(status: u16, text: &str) -> Refusal {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if let Some((refusal, _)) = PHRASES.iter().find(|(_, phrases)| says(phrases)) {
        return *refusal;
    }
    if let Some(refusal) = refusal_of_program(says) {
        refusal
    } else if says(&["not paused"]) {
        Refusal::NotPaused
    } else if says(&["copier: put"]) && says(&["no such file or directory", "file exists"]) {
        // Podman, if two requests write one file at the same time.
        Refusal::Overwritten
    } else if says(&["already in progress"]) {
        Refusal::BeingRemoved
    } else if status == 500
        && (says(&["no such process", "container not known"])
            || (says(&["could not be stopped"]) && says(&["state improper"])))
    {
        // Podman, if a container exits while it is inspected or removed.
        Refusal::Ending
    } else if status == 404 || (status == 500 && says(&["no such container", "no container with name"])) {
        Refusal::NotFound
    } else if status == 409
        || says(&["has active endpoints", "is in use", "already in use", "is ambiguous"])
        // Podman, with status 500.
        || says(&["network already exists", "network is being used", "is already paused"])
    {
        Refusal::Conflict
    } else if status == FORBIDDEN && !says(OWN_DENIALS) {
        Refusal::Denied
    } else {
        Refusal::Other
    }
}

/// The cause if a program cannot be run. Podman's own words, such as "OCI permission denied", follow from any failed
/// access on the host as well, so the runtime's words decide.
fn refusal_of_program(says: impl Fn(&[&str]) -> bool) -> Option<Refusal> {
    // crun quotes the name of the program.
    if says(&["executable file `"]) && says(&["` not found"]) {
        Some(Refusal::NoSuchProgram)
    } else if (says(&["exec: \"", "exec /", "exec container process"])
        && says(&["permission denied", "is a directory", "no such file"]))
        || (says(&["the path `"]) && says(&["` is not a regular file"]))
    {
        Some(Refusal::Unrunnable)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::invocation::Invocation;

    fn expect(expected: Refusal, messages: &[&str]) {
        for message in messages {
            let error = Bollard::DockerResponseServerError { status_code: 500, message: (*message).into() };
            let Error::Docker { refusal, .. } = translate("start", &error) else { panic!("{message}") };
            assert_eq!(refusal, expected, "{message}");
        }
    }

    #[test]
    fn a_host_without_an_address_is_named() {
        let endpoint = Endpoint::new("tcp://foo:2375", ChosenBy::Option);
        let err = std::io::Error::other("failed to lookup address information: Name or service not known");
        let error = unreachable(&endpoint, &Bollard::IOError { err });
        assert!(error.to_string().ends_with(": its host name has no address"), "{error}");
    }

    #[test]
    fn no_variable_is_suggested_for_the_certificates_of_a_context() {
        let folder = tempfile::tempdir().unwrap();
        let hint = |chosen_by, has_certificates: bool, message: &str| {
            let certificates = has_certificates.then(|| folder.path().to_path_buf());
            let endpoint = Endpoint { certificates, ..Endpoint::new("tcp://far:2376", chosen_by) };
            tls_fault(&endpoint, message).unwrap().1
        };
        let update = "`docker context update far --docker host=tcp://far:2376";
        for (has_certificates, message) in [
            (false, "invalid HTTP version parsed"),
            (true, "invalid peer certificate: UnknownIssuer"),
            (true, "received corrupt message of type InvalidContentType"),
            (true, "Could not find cert.pem"),
        ] {
            let of_context = hint(ChosenBy::CurrentContext("far".into()), has_certificates, message);
            assert!(of_context.contains(update) && !of_context.contains("DOCKER_"), "{message}: {of_context}");
            let of_variable = hint(ChosenBy::Variable, has_certificates, message);
            assert!(!of_variable.contains("context"), "{message}: {of_variable}");
        }
    }

    #[test]
    fn messages_about_addresses_and_ports_are_classified() {
        expect(
            Refusal::PortTaken,
            &[
                "driver failed programming external connectivity on endpoint x (1): Bind for 127.0.0.1:1 failed: port is \
                 already allocated",
                "failed to set up container networking: driver failed programming external connectivity: Bind for \
                 0.0.0.0:1 failed: port is already allocated",
                "Error starting userland proxy: listen tcp4 127.0.0.1:1: bind: address already in use",
                "Ports are not available: exposing port TCP 127.0.0.1:1: forbidden by its access permissions",
                "ports are not available: exposing port TCP 0.0.0.0:3001 -> 127.0.0.1:0: /forwards/expose returned \
                 unexpected status: 500",
                "Ports are not available: exposing port TCP 0.0.0.0:3000 -> 0.0.0.0:0: listen tcp4 0.0.0.0:3000: bind: \
                 address already in use",
            ],
        );
        expect(
            Refusal::NoSuchAddress,
            &[
                "listen tcp4 10.0.0.7:1: bind: cannot assign requested address",
                "ports are not available: exposing port TCP 10.200.0.1:10015 -> 127.0.0.1:0: listen tcp4 \
                 10.200.0.1:10015: bind: can't assign requested address",
                "Ports are not available: exposing port TCP 10.0.0.7:1 -> 127.0.0.1:0: listen tcp4 10.0.0.7:1: bind: The \
                 requested address is not valid in its context.",
            ],
        );
        expect(
            Refusal::PrivilegedPort,
            &[
                "Error starting userland proxy: error while calling PortManager.AddPort(): cannot expose privileged \
                 port 80",
                "listen tcp4 127.0.0.1:80: bind: permission denied",
                "Ports are not available: exposing port TCP 127.0.0.1:80 -> 0.0.0.0:0: failed to connect to \
                 /var/run/com.docker.vmnetd.sock: is vmnetd running?: connect: connection refused",
            ],
        );
        expect(
            Refusal::AddressPools,
            &[
                "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the \
                 network",
                "all predefined address pools have been fully subnetted",
                "could not find free subnet from subnet pools",
            ],
        );
        expect(
            Refusal::Firewall,
            &["driver failed programming external connectivity on endpoint x (1): (iptables failed: iptables --wait \
                 -t nat -A DOCKER -p tcp -d 127.0.0.1 --dport 3000 -j DNAT: iptables: No chain/target/match by that \
                 name.\n (exit status 1))"],
        );
    }

    #[test]
    fn messages_about_objects_in_use_are_classified() {
        expect(
            Refusal::Conflict,
            &[
                "network name x already used: network already exists",
                "\"x\" has associated containers with it: network is being used",
                "\"02f6\" is already paused: container state improper",
            ],
        );
        expect(
            Refusal::Ending,
            &[
                "cannot remove container 1f as it could not be stopped: sending SIGKILL to container 1f: container \
                 state improper: stopped",
                "getting container from store \"6b7f\": container not known",
                "read /proc/27684/cgroup: no such process",
            ],
        );
        expect(
            Refusal::Overwritten,
            &["copier: put: error setting permissions on \"/x/version\" to 0400: chmod /x/version: no such \
                 file or directory"],
        );
    }

    #[test]
    fn a_request_that_a_proxy_or_plugin_denies_is_named() {
        let page = "<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>";
        let forbidden = |text: &str| Bollard::DockerResponseServerError { status_code: 403, message: text.into() };
        for text in [page, "", "Forbidden\n", "authorization denied by plugin opa: no", "RBAC: access denied"] {
            let error = translate("create volume x", &forbidden(text));
            assert!(matches!(error, Error::Docker { refusal: Refusal::Denied, .. }), "{text}");
            let (message, hint) = (error.to_string(), error.hint(&Invocation::default()));
            assert!(hint.contains("proxy") && hint.contains("plugin") && hint.contains("create volume x"), "{hint}");
            assert!(!message.contains('<') && is_denied(&forbidden(text)) != text.starts_with("RBAC"), "{message}");
        }
        let message = translate("create volume x", &forbidden(page)).to_string();
        assert_eq!(message, "cannot create volume x: the answer has status 403 and no message");
        let active = translate("remove network x", &forbidden("network x has active endpoints"));
        assert!(matches!(active, Error::Docker { refusal: Refusal::Conflict, .. }));
        for own in [
            "endpoint with name x-grafana already exists in network x",
            "operation is not permitted on predefined default network",
        ] {
            let error = translate("start the container of Grafana", &forbidden(own));
            assert!(matches!(error, Error::Docker { refusal: Refusal::Other, .. }), "{own}");
        }
        assert!(!is_denied(&forbidden("pulling from host r failed with status code [manifests 1]: 403 Forbidden")));
        let endpoint = Endpoint::new("tcp://box:2375", ChosenBy::Option);
        let Error::Engine { why, hint, .. } = unreachable(&endpoint, &forbidden(page)) else { panic!("it answers") };
        assert!(
            why == "the answer has status 403 and no message" && hint.contains("docker-socket-proxy"),
            "{why}: {hint}"
        );
    }

    #[test]
    fn messages_about_the_host_and_the_image_are_classified() {
        expect(Refusal::Cgroups, &["OCI runtime create failed: cgroups: cgroup mountpoint does not exist: unknown"]);
        expect(
            Refusal::Architecture,
            &["failed to create task for container: exec /run.sh: exec format error: unknown"],
        );
        expect(
            Refusal::Unrunnable,
            &[
                "unable to find user grafana: no matching entries in passwd file",
                "OCI runtime create failed: exec: \"/run.sh\": permission denied: unknown",
                "crun: the path `/run.sh` exists but it is not executable: Permission denied: OCI permission denied",
                "crun: the path `/run.sh` is not a regular file: OCI runtime error",
                "crun: open executable: Permission denied: OCI permission denied",
                "crun: open executable: Operation not permitted: OCI permission denied",
                "crun: exec container process (missing dynamic library?) `/run.sh`: No such file or directory: OCI runtime \
                 attempted to invoke a command that was not found",
            ],
        );
        expect(
            Refusal::NoSuchProgram,
            &[
                "exec: \"/run.sh\": executable file not found in $PATH",
                "crun: executable file `/run.sh` not found: No such file or directory: OCI runtime attempted to invoke a \
                 command that was not found",
                "OCI runtime create failed: executable file `run.sh` not found in $PATH: unknown",
            ],
        );
        expect(Refusal::Disk, &["write /x: no space left on device"]);
        expect(
            Refusal::Other,
            &[
                "exec: \"docker-proxy\": executable file not found in $PATH",
                "fork/exec /usr/bin/docker-proxy: no such file or directory",
                // Podman's words about the host.
                "crun: cannot stat `/run/x`: No such file or directory: OCI runtime attempted to invoke a command that was \
                 not found",
                "crun: make `/x/merged` private: Permission denied: OCI permission denied",
                "Ports are not available: unable to list exposed ports: Get \"http://unix/forwards/list\": context \
                 deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                "something else",
            ],
        );
    }
}
