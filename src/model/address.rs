//! Server addresses and how they are printed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a server is reached over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Over TLS.
    pub tls: bool,
    /// Host name or IP address, without brackets.
    pub host: String,
    pub port: u16,
    /// The path under which the server is served, without a trailing slash; usually empty.
    pub path: String,
}

impl ServerUrl {
    /// Plain HTTP at a host and port.
    #[must_use]
    pub fn http(host: impl Into<String>, port: u16) -> Self {
        Self { tls: false, host: host.into(), port, path: String::new() }
    }

    /// The host to write into Clipper's file. Some systems resolve `localhost` to `::1` first, where a server need not
    /// listen, and Clipper inserts the host into a URL, which requires brackets around an IPv6 address.
    #[must_use]
    pub(crate) fn host_for_clipper(&self) -> String {
        if self.host == "localhost" { "127.0.0.1".into() } else { bracketed(&self.host) }
    }

    /// Whether the host is the machine that reads the address.
    #[must_use]
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = if self.tls { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", bracketed(&self.host))?;
        if self.port != default {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

/// A host without the brackets of an IPv6 address.
#[must_use]
pub(crate) fn unbracketed(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Encloses an IPv6 address in the brackets that a URL requires.
#[must_use]
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_string() }
}

/// The address at which this machine reaches a published address, which may be a wildcard.
#[must_use]
pub(crate) const fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    }
}

/// Whether two published addresses exclude each other. Engines publish each address family separately.
#[must_use]
pub const fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let meet = match (one.ip(), other.ip()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            one.to_bits() == other.to_bits() || one.is_unspecified() || other.is_unspecified()
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            one.to_bits() == other.to_bits() || one.is_unspecified() || other.is_unspecified()
        }
        _ => false,
    };
    meet && one.port() == other.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_printed_as_it_is_typed() {
        assert_eq!(ServerUrl::http("::1", 3000).to_string(), "http://[::1]:3000");
        assert_eq!(ServerUrl::http("db", 80).to_string(), "http://db");
        let below = ServerUrl { tls: true, path: "/grafana".into(), ..ServerUrl::http("g", 443) };
        assert_eq!(below.to_string(), "https://g/grafana");
    }

    #[test]
    fn only_addresses_of_one_family_collide() {
        let collide = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| text.parse().unwrap());
            assert_eq!(collide(one, other), collide(other, one));
            collide(one, other)
        };
        assert!(collide("0.0.0.0:1", "127.0.0.1:1") && collide("127.0.0.1:1", "127.0.0.1:1"));
        assert!(collide("[::]:1", "[::1]:1") && collide("[::1]:1", "[::1]:1"));
        assert!(!collide("[::]:1", "127.0.0.1:1") && !collide("[::]:1", "0.0.0.0:1"));
        assert!(!collide("0.0.0.0:1", "[::1]:1"));
        assert!(!collide("127.0.0.1:1", "127.0.0.2:1") && !collide("127.0.0.1:1", "127.0.0.1:2"));
    }
}
