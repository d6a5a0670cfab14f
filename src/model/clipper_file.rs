//! The address and the database that Clipper's own file must contain for its reports to arrive.

use std::net::{IpAddr, Ipv6Addr};

use super::address::unbracketed;
use super::role::Role;
use super::stack::Stack;

/// What Clipper's file must contain for its reports to arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClipperSettings {
    /// The supplied file already does.
    Agree,
    /// No file was supplied, and Clipper's own defaults lead to this address and this database.
    Defaults {
        /// Host and port.
        address: String,
        database: String,
    },
    /// These lines, which the supplied file does not contain.
    Lines(Vec<String>),
    /// No lines help: Clipper uses plain HTTP to a host and port, without credentials; the reason
    /// why that is not enough.
    Impossible(String),
}

/// The host and the database that Clipper writes to without a configuration file.
const CLIPPER_DEFAULTS: (&str, &str) = ("127.0.0.1", "clipper");

/// What Clipper's file must contain, compared with the supplied file.
pub(crate) fn clipper_file(stack: &Stack) -> ClipperSettings {
    if let Some(why) = beyond_clipper(stack) {
        return ClipperSettings::Impossible(why);
    }
    let url = stack.url(Role::Influxdb);
    let clipper = stack.clipper.as_ref();
    if clipper.is_some_and(|target| target.agrees(stack)) {
        return ClipperSettings::Agree;
    }
    let (default_host, default_database) = CLIPPER_DEFAULTS;
    let is_default = url.host_for_clipper() == default_host
        && url.port == Role::Influxdb.port()
        && stack.database == default_database;
    if clipper.is_none() && is_default {
        let address = format!("{default_host}:{}", url.port);
        return ClipperSettings::Defaults { address, database: stack.database.clone() };
    }
    let is_reached = clipper.is_some_and(|target| target.reaches(stack));
    let lines = [
        (
            clipper.is_some_and(|target| target.database == stack.database),
            format!("influx_dbname = {}", toml_string(&stack.database)),
        ),
        (
            is_reached || clipper.is_some_and(|target| target.names(&url.host)),
            format!("influx_ip = {}", toml_string(&url.host_for_clipper())),
        ),
        (is_reached || clipper.is_some_and(|target| target.port == url.port), format!("influx_port = {}", url.port)),
    ];
    ClipperSettings::Lines(lines.into_iter().filter(|(is_there, _)| !is_there).map(|(_, line)| line).collect())
}

/// The reason why Clipper cannot write to the stack's InfluxDB, if there is one.
pub(crate) fn beyond_clipper(stack: &Stack) -> Option<String> {
    let url = stack.url(Role::Influxdb);
    let what = if url.tls {
        "https"
    } else if !url.path.is_empty() {
        "a path"
    } else if !stack.data_source.user.is_empty() {
        "a user and password"
    } else {
        return None;
    };
    Some(format!(
        "InfluxDB at {url} needs {what}, but Clipper sends its reports over plain HTTP to a host and port, without \
         credentials: put a proxy that Clipper can reach in front of it, or use an InfluxDB without that requirement"
    ))
}

/// The address in Clipper's own file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipperTarget {
    /// Host name or address, as written.
    pub host: String,
    /// The addresses that the host resolves to here; empty if it does not resolve.
    pub addresses: Vec<IpAddr>,
    /// Those addresses that the engine's host has.
    pub on_engine: Vec<IpAddr>,
    /// Those addresses that the host of an external InfluxDB resolves to as well.
    pub on_influxdb: Vec<IpAddr>,
    pub port: u16,
    /// The database, after Clipper's rule for white space.
    pub database: String,
}

impl ClipperTarget {
    /// Whether Clipper's reports arrive in the stack's database.
    pub(crate) fn agrees(&self, stack: &Stack) -> bool {
        self.reaches(stack) && self.database == stack.database
    }

    /// Whether the host is InfluxDB's container, which is reached by its name inside the instance's network.
    pub(crate) fn names_container(&self, stack: &Stack) -> bool {
        stack.container(Role::Influxdb).is_some_and(|spec| self.host == spec.name)
    }

    /// Whether the file names this host, in a form that Clipper can insert into a URL.
    fn names(&self, host: &str) -> bool {
        self.unusable_host().is_none() && unbracketed(&self.host).eq_ignore_ascii_case(host)
    }

    /// The host if Clipper cannot insert it into a URL, which requires brackets around an IPv6 address.
    pub(crate) fn unusable_host(&self) -> Option<&str> {
        Some(self.host.as_str()).filter(|host| host.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()))
    }

    /// Whether the address in Clipper's file is the stack's InfluxDB.
    pub(crate) fn reaches(&self, stack: &Stack) -> bool {
        if self.unusable_host().is_some() {
            return false;
        }
        if self.names_container(stack) {
            return self.port == Role::Influxdb.port();
        }
        let url = stack.url(Role::Influxdb);
        let published = stack.container(Role::Influxdb).map(|spec| spec.config.publish.ip());
        let same_host = self.names(&url.host)
            || !self.on_influxdb.is_empty()
            || self.addresses.iter().any(|ip| {
                published.is_some_and(|published| {
                    published == *ip
                        || (published.is_unspecified() && self.is_open_at(published, *ip))
                        || (ip.is_unspecified() && published.is_loopback())
                }) || url.host.parse() == Ok(*ip)
                    || (url.host.parse::<IpAddr>().is_err() && url.is_loopback() && ip.is_loopback())
            });
        same_host && self.port == url.port
    }

    /// Whether a port published at the wildcard is reachable at this address of the engine's host.
    fn is_open_at(&self, wildcard: IpAddr, ip: IpAddr) -> bool {
        self.on_engine.contains(&ip) && (wildcard.is_ipv6() || ip.is_ipv4())
    }
}

/// A basic string of TOML. The names passed here contain no control characters.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
