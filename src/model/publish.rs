//! Why an address cannot be published, and the remedy.

use std::net::SocketAddr;

use super::address::{ServerUrl, reachable};
use super::invocation::Invocation;
use super::native::System;
use super::observed::PortHolder;
use super::role::Role;

/// Describes the holder of an address.
#[must_use]
pub(crate) fn describe(holder: &PortHolder, role: Role, answers: Option<&ServerUrl>) -> String {
    match holder {
        PortHolder::Container(name) => format!("container {name} holds that port"),
        PortHolder::OtherRole(other) => format!("this instance's {} holds that port", other.title()),
        PortHolder::Native => format!("{}; {} answers there", describe(&PortHolder::Process, role, None), role.title()),
        PortHolder::Process => {
            let answers = answers.map(|_| format!("; {} answers there", role.title())).unwrap_or_default();
            format!("another process on the engine's host holds that port{answers}")
        }
        PortHolder::NoSuchAddress => "the engine's host does not have that address".into(),
        PortHolder::VirtualMachine => {
            "the engine runs in a virtual machine, which does not have that address of this machine".into()
        }
    }
}

/// The remedy; `another` is the advice to choose another port.
#[must_use]
pub(crate) fn hint(
    role: Role,
    address: SocketAddr,
    holder: &PortHolder,
    answers: Option<&ServerUrl>,
    another: &str,
    invocation: &Invocation,
) -> String {
    match (holder, answers) {
        (PortHolder::Container(name), _) => {
            let stop = invocation.docker(&format!("stop {name}"));
            format!("stop it with `{stop}`, or {another}")
        }
        (PortHolder::Process, Some(url)) => {
            format!("use it with --{role}-url {url}, or {another}")
        }
        (PortHolder::Native, _) => {
            let url = ServerUrl::http(reachable(address.ip()).to_string(), address.port());
            format!("use it with --{role}-url {url}, or {another}")
        }
        (PortHolder::Process, None) => {
            format!("{another}, or find the process with `{}`", listeners(address.port(), System::HERE))
        }
        (PortHolder::OtherRole(_), _) => another.into(),
        (PortHolder::VirtualMachine, _) => format!(
            "publish it at all addresses with `{}`, which the virtual machine forwards, or only locally with `{}`",
            invocation.create(&format!(" --{role}-ip 0.0.0.0")),
            invocation.create(&format!(" --{role}-ip 127.0.0.1")),
        ),
        (PortHolder::NoSuchAddress, _) => format!(
            "choose an address of that host: `{}` for local access only, `{}` for all hosts that can reach it; if {} \
             already runs at {address}, use --{role}-url {}; to run the containers there, select that host's engine \
             with -H",
            invocation.create(&format!(" --{role}-ip 127.0.0.1")),
            invocation.create(&format!(" --{role}-ip 0.0.0.0")),
            role.title(),
            ServerUrl::http(address.ip().to_string(), address.port())
        ),
    }
}

/// The command that lists the process at a port.
fn listeners(port: u16, system: System) -> String {
    match system {
        System::MacOs => format!("sudo lsof -nP -iTCP:{port} -sTCP:LISTEN"),
        System::Linux => "ss -ltnp".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_holder_has_its_own_remedy() {
        let invocation = Invocation::default();
        let address = "0.0.0.0:3000".parse().unwrap();
        let hint = |holder| hint(Role::Grafana, address, holder, None, "ANOTHER", &invocation);
        assert!(hint(&PortHolder::Native).starts_with("use it with --grafana-url http://127.0.0.1:3000, or ANOTHER"));
        assert!(hint(&PortHolder::VirtualMachine).contains("`clipper-metrics up --grafana-ip 0.0.0.0`"));
        assert!(hint(&PortHolder::Process).contains("ANOTHER, or find the process"));
        assert_eq!(listeners(3000, System::MacOs), "sudo lsof -nP -iTCP:3000 -sTCP:LISTEN");
        let native = describe(&PortHolder::Native, Role::Influxdb, None);
        assert_eq!(native, "another process on the engine's host holds that port; InfluxDB answers there");
    }
}
