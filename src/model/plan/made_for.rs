//! Objects in Grafana that were made for another address or database: whether they move, and the conflict otherwise.

use std::net::IpAddr;

use super::{BlockReason, Blocker, UpOptions};
use crate::model::address::{ServerUrl, unbracketed};
use crate::model::container_config::Difference;
use crate::model::invocation::typed_option;
use crate::model::role::Role;
use crate::model::stack::{MadeFor, Service, Stack};

/// Whether objects created for another address or database move to the stack's. In the instance's
/// own container they do: no other instance keeps objects there, so the settings decide. An
/// external Grafana may hold objects of another instance with the same name, so the user has to
/// confirm it.
pub(super) fn moves(stack: &Stack, options: UpOptions) -> bool {
    options.move_data_source || stack.container(Role::Grafana).is_some()
}

/// The target of an object, if it differs from the stack's database.
pub(super) fn elsewhere<'a>(stack: &Stack, made_for: &'a MadeFor) -> Option<&'a MadeFor> {
    (!made_for.is_same(&stack.data_source.made_for())).then_some(made_for)
}

pub(super) fn made_for_difference(stack: &Stack, actual: &MadeFor) -> Difference {
    let desired = stack.data_source.made_for();
    let other = if actual.is_on_another_machine(&desired) { " on another machine" } else { "" };
    Difference { field: Difference::MADE_FOR.into(), actual: format!("{actual}{other}"), desired: desired.to_string() }
}

/// The options with which `down --deregister` matches an object's target.
pub(super) fn options_for(stack: &Stack, made_for: &MadeFor) -> String {
    let is_there = made_for.url == stack.data_source.url;
    let address = if is_there { String::new() } else { typed_option("--data-source-url", &made_for.url) };
    address + &database_option(stack, made_for)
}

/// The options with which `up` matches an object's target. If the data source's address follows from InfluxDB's, both
/// move together: otherwise panels would query another InfluxDB than the one that the instance configures. `None` if no
/// option names that InfluxDB.
fn options_for_both(stack: &Stack, made_for: &MadeFor) -> Option<String> {
    let url = &made_for.url;
    let address = match stack.service(Role::Influxdb) {
        _ if url.is_empty() => return None,
        _ if *url == stack.data_source.url => String::new(),
        _ if stack.data_source.is_url_chosen => typed_option("--data-source-url", url),
        // An address on a loopback whose machine is unknown was chosen: here, it leads to another server.
        Service::External { .. } if made_for.machine.is_none() && is_on_loopback(url) => {
            typed_option("--data-source-url", url)
        }
        Service::External { .. } => typed_option("--influxdb-url", url),
        Service::Container(spec) => {
            let port = url.rsplit(':').next()?.parse().ok()?;
            let is_there = *url == ServerUrl { port, ..spec.url() }.to_string();
            is_there.then(|| format!(" --influxdb-port {port}"))?
        }
    };
    Some(address + &database_option(stack, made_for))
}

/// Whether only the machine of Grafana's server reaches an address.
fn is_on_loopback(url: &str) -> bool {
    let server = url.split('/').nth(2).unwrap_or_default();
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    host == "localhost" || unbracketed(host).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn database_option(stack: &Stack, made_for: &MadeFor) -> String {
    if made_for.database == stack.database { String::new() } else { typed_option("--database", &made_for.database) }
}

/// An object with the instance's mark was created for another address or database: by this instance
/// before InfluxDB moved, or by another instance with the same name.
pub(super) fn conflict(stack: &Stack, what: &str, made_for: &MadeFor) -> Blocker {
    let desired = stack.data_source.made_for();
    let moved = stack.command("up --move-data-source");
    if made_for.is_on_another_machine(&desired) {
        let distinguish = if made_for.url == desired.url {
            "both machines use that address: set --data-source-url to the address at which Grafana reaches this \
             InfluxDB; "
        } else {
            ""
        };
        return Blocker {
            kind: BlockReason::Conflict,
            why: format!("Grafana's {what} was created for {made_for} on another machine"),
            hint: format!(
                "{distinguish}if the object belongs to another instance, choose a --name other than {}; if it belongs to \
                 this one, `{moved}` updates it",
                stack.instance
            ),
        };
    }
    let keep = |options: String| format!("`{}` keeps the earlier target; ", stack.command(&format!("up{options}")));
    Blocker {
        kind: BlockReason::Conflict,
        why: format!("Grafana's {what} was created for {made_for}, not for {desired}"),
        hint: format!(
            "if InfluxDB or its database has moved, `{moved}` updates Grafana's objects; {}for a second instance, choose a \
             --name other than {}",
            options_for_both(stack, made_for).map(keep).unwrap_or_default(),
            stack.instance
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, external};

    #[test]
    fn the_earlier_target_is_kept_by_options_that_move_influxdb_and_the_data_source_together() {
        let mut stack = samples::stack();
        stack.services.grafana = external("grafana", 3000);
        stack.data_source.url = "http://127.0.0.1:8087".into();
        samples::config_of(&mut stack, Role::Influxdb).publish.set_port(8087);
        let made_for =
            |url: &str, database: &str| MadeFor { url: url.into(), database: database.into(), machine: None };
        let kept = |stack: &Stack, url: &str, database| options_for_both(stack, &made_for(url, database));

        assert_eq!(kept(&stack, "http://127.0.0.1:8086", "d").as_deref(), Some(" --influxdb-port 8086"));
        let both = kept(&stack, "http://127.0.0.1:8086", "e");
        assert_eq!(both.as_deref(), Some(" --influxdb-port 8086 --database e"));
        assert_eq!(kept(&stack, "http://127.0.0.1:8087", "e").as_deref(), Some(" --database e"));
        // No port of the container leads there.
        for url in ["http://other:8086", "https://127.0.0.1:8086", "http://127.0.0.1:8086/path", ""] {
            assert_eq!(kept(&stack, url, "d"), None, "{url}");
            let hint = conflict(&stack, "dashboard", &made_for(url, "d")).hint;
            assert!(!hint.contains("earlier target") && hint.contains("--move-data-source"), "{hint}");
        }

        stack.services.influxdb = external("127.0.0.1", 8087);
        let here = MadeFor { machine: Some("here".into()), ..made_for("http://127.0.0.1:8086", "d") };
        let external = options_for_both(&stack, &here);
        assert_eq!(external.as_deref(), Some(" --influxdb-url http://127.0.0.1:8086"));
        assert_eq!(kept(&stack, "http://db:8086", "d").as_deref(), Some(" --influxdb-url http://db:8086"));
        assert_eq!(kept(&stack, "", "d"), None, "an empty URL stands for a container");
        let elsewhere = kept(&stack, "http://localhost:8086", "d");
        assert_eq!(
            elsewhere.as_deref(),
            Some(" --data-source-url http://localhost:8086"),
            "on the loopback of Grafana"
        );
        stack.data_source.is_url_chosen = true;
        let chosen = kept(&stack, "http://127.0.0.1:8086", "d");
        assert_eq!(chosen.as_deref(), Some(" --data-source-url http://127.0.0.1:8086"));
    }
}
