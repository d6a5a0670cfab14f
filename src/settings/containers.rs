//! The settings of the containers: images, environment, addresses, and the source of Grafana's first password.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::keys::{ServerSettings, Setting, settings_of};
use super::resolve::{Origin, Resolved};
use super::values;
use crate::error::{Error, Result};
use crate::model::address::{ServerUrl, unbracketed};
use crate::model::container_config::{ContainerConfig, PasswordSource};
use crate::model::image::ImageRef;
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, EngineLocation, Login, Service};

/// The configuration of one container, as far as it does not depend on the other role.
pub(super) fn container(resolved: &Resolved<'_>, role: Role, instance: &str) -> Result<DesiredContainer> {
    let ServerSettings { ip, port, image, .. } = settings_of(role);
    let address = resolved.parsed_or_default(ip, |host, _| address(resolved, role, ip, host))?;
    let port = resolved.parsed_or_default(port, values::port)?;
    let named = resolved.parsed(image, values::image)?;
    let is_default = named.is_none();
    let image = named.map_or_else(|| values::image(&default_image(resolved, image), &image.option()), Ok)?;
    let password = if role == Role::Grafana { password(resolved, address)? } else { PasswordSource::Default };
    let name = role.object_name(instance);
    Ok(DesiredContainer {
        role,
        config: ContainerConfig {
            image,
            publish: SocketAddr::new(address, port),
            network: instance.into(),
            volume: name.clone(),
            read_only: is_default,
            password,
            host_gateway: false,
            environment: environment(role, address.is_loopback()),
        },
        name,
        engine_host: engine_host(role, address, &resolved.engine.location)?,
        pinned_image: None,
    })
}

/// Keeps the previous image if the new one failed, unless this run names the new one. Returns the failed image.
pub(super) fn keep_image(resolved: &Resolved<'_>, default: &str, grafana: &mut Service) -> Option<ImageRef> {
    let Service::Container(spec) = grafana else { return None };
    // Lost settings do not show an upgrade.
    let stored = resolved.memory.stored.as_ref().filter(|stored| stored.values.is_some())?;
    let made = &mut spec.config;
    let upgrade = stored.upgrade.as_ref().filter(|upgrade| upgrade.has_failed(&made.image))?;
    if matches!(resolved.origin(Setting::GrafanaImage), Some(Origin::Option | Origin::Environment)) {
        return None;
    }
    made.read_only = upgrade.from.name.to_string() == default;
    spec.pinned_image = upgrade.pinned().cloned();
    Some(std::mem::replace(&mut made.image, upgrade.from.name.clone()))
}

/// Resolves the address to publish at to one IP address.
fn address(resolved: &Resolved<'_>, role: Role, setting: Setting, text: &str) -> Result<IpAddr> {
    let memory = resolved.memory;
    let found = if resolved.is_remembered(setting) {
        let known = memory.addresses.get(&setting).cloned();
        let known = known.unwrap_or_else(|| resolved.inputs.addresses(unbracketed(text)));
        // The container keeps the address that it was created with, unless the name has other ones now.
        let current = memory.address_of(role);
        current.filter(|ip| known.contains(ip)).or(known.first().copied()).or(current)
    } else {
        resolved.inputs.addresses(unbracketed(text)).first().copied()
    };
    found.ok_or_else(|| {
        Error::usage(
            format!("cannot publish {} at {text}: the name has no address", role.title()),
            format!(
                "choose an address of this machine with {}, or use the server there with --{role}-url",
                resolved.place(setting)
            ),
        )
    })
}

/// The image that is used if none is set.
pub(super) fn default_image(resolved: &Resolved<'_>, setting: Setting) -> String {
    let default = setting.key().default;
    match resolved.get(Setting::Registry) {
        Some(prefix) => format!("{}/{default}", prefix.trim_end_matches('/')),
        None => default.into(),
    }
}

/// The source of Grafana's first password. The default password is accepted on loopback only.
fn password(resolved: &Resolved<'_>, address: IpAddr) -> Result<PasswordSource> {
    let given = resolved.inputs.secrets.grafana_password.as_ref();
    if given.is_some_and(|secret| !Login::is_password(secret.reveal())) {
        return Err(Error::usage(
            "the supplied password for Grafana is too short, or contains a line break or another control character",
            format!("supply a password of at least {} characters on one line", Login::SHORTEST_PASSWORD),
        ));
    }
    let is_default = given.is_some_and(|secret| secret.reveal() == Login::PUBLIC_PASSWORD);
    if !address.is_loopback() && is_default {
        return Err(Error::usage(
            format!(
                "the password {:?} is Grafana's public default, and Grafana would listen on {address}",
                Login::PUBLIC_PASSWORD
            ),
            "supply another password, or omit it to have one generated",
        ));
    }
    let in_file = !address.is_loopback() || (given.is_some() && !is_default);
    Ok(if in_file { PasswordSource::File } else { PasswordSource::Default })
}

/// The engine's host, unless it is this machine.
fn engine_host(role: Role, address: IpAddr, engine: &EngineLocation) -> Result<Option<String>> {
    match engine {
        EngineLocation::Elsewhere(host) if address.is_loopback() => Err(Error::usage(
            format!(
                "the engine runs on {host}, and {} would listen on that machine's loopback {address}, which cannot be \
                 reached from here",
                role.title()
            ),
            format!("publish it on an address of {host} with --{role}-ip, or use another engine with -H or --context"),
        )),
        EngineLocation::OverSsh { .. } if address.is_loopback() => Ok(None),
        EngineLocation::Elsewhere(host) | EngineLocation::OverSsh { host, .. } => Ok(Some(host.clone())),
        EngineLocation::Here => Ok(None),
    }
}

/// The environment of a server. Off loopback, Grafana has no anonymous administrator.
fn environment(role: Role, is_on_loopback: bool) -> BTreeMap<String, String> {
    let is_open_grafana = role == Role::Grafana && !is_on_loopback;
    let pairs = role.facts().environment.iter().chain(is_open_grafana.then_some(&ContainerConfig::ANONYMOUS_ROLE));
    pairs.map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
}

/// InfluxDB's address for Grafana's server, and whether that needs a name for the host.
pub(super) fn data_source_url(influxdb: &Service, grafana: &Service) -> (String, bool) {
    let grafana_is_ours = matches!(grafana, Service::Container(_));
    match influxdb {
        Service::External { url } if grafana_is_ours && url.is_loopback() => {
            let there = ServerUrl { host: ContainerConfig::HOST_NAME.into(), ..url.clone() };
            (there.to_string(), true)
        }
        Service::External { url } => (url.to_string(), false),
        Service::Container(_) if grafana_is_ours => {
            (ServerUrl::http(Role::Influxdb.name(), Role::Influxdb.port()).to_string(), false)
        }
        Service::Container(spec) => (spec.url().to_string(), false),
    }
}

/// The machine whose loopback address is sent to an external Grafana.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoopbackOwner {
    ThisMachine,
    Engine,
}

/// The owner of the loopback that the derived URL is on; `None` for other URLs, and if Grafana is a container.
pub(super) fn loopback_owner(influxdb: &Service, grafana: &Service, engine: &EngineLocation) -> Option<LoopbackOwner> {
    let Service::External { .. } = grafana else { return None };
    match influxdb {
        Service::External { url } => url.is_loopback().then_some(LoopbackOwner::ThisMachine),
        Service::Container(spec) => {
            let is_reached = !matches!(engine, EngineLocation::Elsewhere(_));
            (is_reached && spec.url().is_loopback()).then_some(LoopbackOwner::Engine)
        }
    }
}
