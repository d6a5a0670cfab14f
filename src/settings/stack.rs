//! Builds the stack and the credentials for it from resolved values.

use std::net::IpAddr;

use super::containers::{LoopbackOwner, container, data_source_url, default_image, keep_image, loopback_owner};
use super::contents::{alerts, user_dashboards};
use super::keys::{Setting, settings_of};
use super::resolve::{Origin, Resolved};
use super::{EngineFacts, Inputs, invocation, values};
use crate::clipper::file::ClipperFile;
use crate::error::{Error, Result};
use crate::model::address::{collide, unbracketed};
use crate::model::clipper_file::ClipperTarget;
use crate::model::credentials::{Credentials, InfluxdbLogin};
use crate::model::image::ImageRef;
use crate::model::role::{PerRole, Role};
use crate::model::stack::{
    DesiredDashboard, DesiredDataSource, EngineLocation, Login, MadeFor, Secret, Service, Stack,
};

pub(super) fn build(resolved: Resolved<'_>) -> Result<(Stack, Credentials)> {
    let Resolved { inputs, engine, .. } = resolved;
    let instance = inputs.instance()?;
    let title = title(&instance);
    let default_image = default_image(&resolved, Setting::GrafanaImage);
    let (mut services, failed_image) = services(&resolved, &instance, &default_image)?;
    let is_external = |service: &Service| matches!(service, Service::External { .. });
    let database = resolved.parsed_or_default(Setting::Database, values::database)?;
    let login = login(&resolved, !is_external(&services.grafana));
    let credentials = credentials(&resolved, &login, is_external(&services.influxdb))?;
    let data_source = data_source(&resolved, &mut services, (&instance, &title, &database))?;
    let (user_dashboards, unreadable_dashboards) = user_dashboards(&resolved, &instance, &title)?;
    let clipper = inputs.file.as_ref().map(|file| target(file, inputs, engine, &services.influxdb));
    let publishes_everywhere = services.iter().any(publishes_everywhere);
    let stack = Stack {
        invocation: invocation(&inputs.options, &inputs.environment, &engine.options, is_external(&services.grafana)),
        services,
        data_source,
        dashboard: DesiredDashboard {
            uid: instance.clone(),
            title,
            content_hash: inputs.content_hash.clone(),
            objective: inputs.file.as_ref().and_then(|file| file.slo_micros),
            models: inputs.file.as_ref().map(|file| file.models.clone()),
        },
        user_dashboards,
        unreadable_dashboards,
        alerts: alerts(&resolved)?,
        instance,
        database,
        organisation: resolved.text(Setting::GrafanaOrg),
        folder: resolved.text(Setting::GrafanaFolder),
        restore: None,
        failed_image,
        default_image,
        pull: resolved.parsed_or_default(Setting::Pull, values::pull)?,
        retention: resolved.parsed(Setting::Retention, values::retention)?,
        timeout: resolved.parsed_or_default(Setting::Timeout, values::duration)?,
        engine: engine.location.clone(),
        clipper,
        own_address: publishes_everywhere.then(inputs.own_address).flatten(),
        settings: resolved.settings,
        login,
    };
    Ok((stack, credentials))
}

/// The servers, and the image of Grafana that is not used because it failed.
fn services(
    resolved: &Resolved<'_>,
    instance: &str,
    default_image: &str,
) -> Result<(PerRole<Service>, Option<ImageRef>)> {
    let service = |role| match resolved.parsed(settings_of(role).url, values::server_url)? {
        Some(url) => Ok(Service::External { url }),
        None => Ok::<_, Error>(Service::Container(Box::new(container(resolved, role, instance)?))),
    };
    let mut services = PerRole::try_from_fn(service)?;
    let failed_image = keep_image(resolved, default_image, &mut services.grafana);
    let containers: Vec<_> = services.iter().filter_map(Service::container).collect();
    let pairs = containers
        .iter()
        .enumerate()
        .flat_map(|(index, one)| containers[..index].iter().map(move |other| (other, one)));
    // Without the remembered settings, the other port may differ.
    if let Some((one, other)) = pairs
        .filter(|_| resolved.settings.is_some())
        .find(|(one, other)| collide(one.config.publish, other.config.publish))
    {
        return Err(Error::usage(
            format!(
                "{} and {} cannot both be published at port {}",
                one.role.title(),
                other.role.title(),
                one.config.publish.port()
            ),
            format!(
                "choose another port with {} or {}",
                resolved.place(settings_of(one.role).port),
                resolved.place(settings_of(other.role).port)
            ),
        ));
    }
    Ok((services, failed_image))
}

/// The data source. A container that reaches InfluxDB through the host gets a name for the host.
fn data_source(
    resolved: &Resolved<'_>,
    services: &mut PerRole<Service>,
    (instance, title, database): (&str, &str, &str),
) -> Result<DesiredDataSource> {
    let PerRole { influxdb, grafana, .. } = services;
    let chosen = resolved.parsed(Setting::DataSourceUrl, values::server_url)?;
    let is_url_chosen = chosen.is_some();
    let (derived, needs_host) = data_source_url(influxdb, grafana);
    let owner = loopback_owner(influxdb, grafana, &resolved.engine.location).filter(|_| !is_url_chosen);
    if let (Service::Container(spec), true) = (grafana, needs_host && !is_url_chosen) {
        expect_same_machine(&resolved.engine.location)?;
        spec.config.host_gateway = true;
    }
    Ok(DesiredDataSource {
        uid: instance.into(),
        name: title.into(),
        url: chosen.map_or(derived, |url| url.to_string()),
        is_url_chosen,
        database: database.into(),
        user: influxdb_user(resolved, influxdb.container().is_none()).unwrap_or_default(),
        machine: owner.map(|owner| fingerprint_of(owner, resolved)),
    })
}

/// The fingerprints of the machine that owns a loopback address. An engine on this machine has both.
fn fingerprint_of(owner: LoopbackOwner, resolved: &Resolved<'_>) -> String {
    let is_here = owner == LoopbackOwner::ThisMachine || resolved.engine.location == EngineLocation::Here;
    let own = resolved.inputs.machine.as_deref().filter(|_| is_here);
    let engines = resolved.engine.machine.as_deref().filter(|_| owner == LoopbackOwner::Engine);
    let known: Vec<&str> = own.into_iter().chain(engines).collect();
    if known.is_empty() { MadeFor::UNKNOWN_MACHINE.to_string() } else { known.join(" ") }
}

/// The title of the data source and the dashboard.
fn title(name: &str) -> String {
    if name == Setting::Name.key().default { "Clipper Metrics".into() } else { format!("Clipper Metrics ({name})") }
}

/// Grafana's container reaches a loopback address of this machine only if it runs on this machine.
fn expect_same_machine(engine: &EngineLocation) -> Result<()> {
    let (EngineLocation::Elsewhere(host) | EngineLocation::OverSsh { host, .. }) = engine else { return Ok(()) };
    Err(Error::usage(
        format!("InfluxDB's address is a loopback address of this machine, where Grafana on {host} cannot reach it"),
        "set the address at which Grafana's server reaches InfluxDB with --data-source-url",
    ))
}

/// Whether a managed container is published at every address of its machine.
fn publishes_everywhere(service: &Service) -> bool {
    service.container().is_some_and(|spec| spec.config.publish.ip().is_unspecified())
}

/// The account that signs in.
fn login(resolved: &Resolved<'_>, is_ours: bool) -> Login {
    let user = resolved.get(Setting::GrafanaUser).unwrap_or(Login::ADMIN);
    // An external Grafana does not have the container's account, so only a supplied password counts there.
    let is_new = is_ours && user != resolved.previous_user.as_deref().unwrap_or(Login::ADMIN);
    let secrets = &resolved.inputs.secrets;
    let uses_token = secrets.grafana_token.is_some();
    let supplies_password = !uses_token && secrets.grafana_password.is_some();
    let is_untried = supplies_password || (!uses_token && is_new);
    Login { user: user.into(), uses_token, supplies_password, is_untried }
}

/// The account of an external InfluxDB; a container has none.
fn influxdb_user(resolved: &Resolved<'_>, is_external: bool) -> Option<String> {
    resolved.text(Setting::InfluxdbUser).filter(|_| is_external)
}

fn credentials(resolved: &Resolved<'_>, login: &Login, influxdb_is_external: bool) -> Result<Credentials> {
    let secrets = resolved.inputs.secrets.clone();
    let user = influxdb_user(resolved, influxdb_is_external);
    // A variable may be meant for another instance.
    let is_named = |setting| {
        let supplied = resolved.inputs.supplied(setting);
        matches!(supplied, Some((text, Origin::Option | Origin::File)) if !text.is_empty())
    };
    let has_password = secrets.influxdb_password.is_some() && is_named(Setting::InfluxdbPasswordFile);
    if !influxdb_is_external && (has_password || is_named(Setting::InfluxdbUser)) {
        return Err(Error::usage(
            "--influxdb-user and its password are for an external InfluxDB",
            "add --influxdb-url, or omit them: Clipper writes to the container without credentials",
        ));
    }
    let influxdb = match (user, secrets.influxdb_password.filter(|_| influxdb_is_external)) {
        (Some(user), password) => Some(InfluxdbLogin { user, password: password.unwrap_or_else(|| Secret::new("")) }),
        (None, Some(_)) => {
            return Err(Error::usage("a password for InfluxDB was supplied, but no user", "add --influxdb-user"));
        }
        (None, None) => None,
    };
    Ok(Credentials {
        grafana_user: login.user.clone(),
        grafana_password: secrets.grafana_password,
        grafana_token: secrets.grafana_token,
        influxdb,
        ca_file: resolved.inputs.ca_file.clone(),
    })
}

/// Where Clipper writes, by its file and its defaults.
fn target(file: &ClipperFile, inputs: &Inputs, engine: &EngineFacts, influxdb: &Service) -> ClipperTarget {
    let host = file.influx_ip.clone().unwrap_or_else(|| "127.0.0.1".into());
    let addresses = inputs.addresses(unbracketed(&host));
    let of_influxdb = match influxdb {
        Service::External { url } => inputs.addresses(&url.host),
        Service::Container(_) => Vec::new(),
    };
    let is_on_engine = |ip: &IpAddr| match &engine.location {
        EngineLocation::Here => ip.is_unspecified() || (inputs.has_address)(*ip),
        EngineLocation::Elsewhere(engine) => (inputs.resolve)(engine).contains(ip),
        // Clipper runs on that machine, where the loopback is the engine's.
        EngineLocation::OverSsh { host, .. } => {
            ip.is_loopback() || ip.is_unspecified() || (inputs.resolve)(host).contains(ip)
        }
    };
    ClipperTarget {
        on_engine: addresses.iter().copied().filter(is_on_engine).collect(),
        on_influxdb: addresses.iter().copied().filter(|ip| of_influxdb.contains(ip)).collect(),
        addresses,
        host,
        port: file.influx_port.as_ref().and_then(|port| port.parse().ok()).unwrap_or(Role::Influxdb.port()),
        database: file.database.clone().unwrap_or_default(),
    }
}
