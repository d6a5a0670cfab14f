//! Checks the text of one setting, independently of the others.
//!
//! Every check takes the setting's name in its source, so that an error names the option, the variable or the remembered
//! value.

use std::time::Duration;

use super::keys::Setting;
use crate::clipper::file::{ValueKind, database_name};
use crate::error::{Error, Result};
use crate::model::address::ServerUrl;
use crate::model::image::ImageRef;
use crate::model::retention::Retention;
use crate::model::stack::Pull;

/// The longest accepted duration. Longer ones would overflow the clock.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Checks a value that is not empty.
pub(super) fn check(setting: Setting, text: &str, name: &str) -> Result<()> {
    match setting.key().kind {
        ValueKind::Host => host(text, name),
        ValueKind::Port => port(text, name).map(drop),
        ValueKind::Url => server_url(text, name).map(drop),
        ValueKind::Image => image(text, name).map(drop),
        ValueKind::Flag => flag(text, name).map(drop),
        // The file is checked when it is read.
        ValueKind::Path | ValueKind::Paths => Ok(()),
        ValueKind::Text | ValueKind::Word(_) => match setting {
            Setting::Name => instance_name(text),
            Setting::Database => database(text, name).map(drop),
            Setting::Retention => retention(text, name).map(drop),
            Setting::Registry => registry(text, name),
            Setting::Pull => pull(text, name).map(drop),
            Setting::AlertLatencyAfter | Setting::AlertSilenceAfter => alert_time(text, setting, name).map(drop),
            Setting::Timeout => duration(text, name).map(drop),
            Setting::GrafanaUser | Setting::InfluxdbUser => user(text, name),
            // A test lists the settings that accept any text.
            _ => Ok(()),
        },
    }
}

/// Checks that the name of an instance is valid for a container.
pub(super) fn instance_name(text: &str) -> Result<()> {
    let is_allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    let why = if text.is_empty() {
        "it is empty".to_string()
    } else if let Some(other) = text.chars().find(|c| !is_allowed(c)) {
        format!("it contains {other:?}")
    } else if text.starts_with('-') {
        "it begins with a dash".to_string()
    } else if text.len() > 40 {
        "it is longer than 40 characters".to_string()
    } else {
        return Ok(());
    };
    Err(Error::usage(
        format!("{text:?} cannot be the name of an instance: {why}"),
        "use up to 40 lowercase letters, digits and dashes, beginning with a letter or digit",
    ))
}

/// HTTP's basic authentication separates user and password by a colon.
fn user(text: &str, name: &str) -> Result<()> {
    if text.contains(':') || text.chars().any(char::is_control) {
        return Err(Error::usage(
            format!("{name} is {text:?}, but the name of a user contains neither a colon nor control characters"),
            "name the user alone, and supply the password in a file",
        ));
    }
    Ok(())
}

pub(super) fn database(text: &str, name: &str) -> Result<String> {
    database_name(text).map_err(|why| {
        Error::usage(format!("{name} is {text:?}: {why}"), "choose another name, and use it in Clipper's file")
    })
}

pub(super) fn retention(text: &str, name: &str) -> Result<Retention> {
    if ["inf", "INF"].contains(&text) {
        return Ok(Retention::Forever);
    }
    let hint = "write it as 90d or 12h, or as inf to keep data forever";
    let time = parse_duration(text, name, hint)?;
    if time < Retention::SHORTEST || time.subsec_nanos() > 0 {
        return Err(Error::usage(
            format!("{name} is {text:?}, but InfluxDB's shortest retention period is 1h, in whole seconds"),
            hint,
        ));
    }
    Ok(Retention::For(time))
}

/// An address or a host name, which need not resolve now.
fn host(text: &str, name: &str) -> Result<()> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/') {
        return Err(Error::usage(
            format!("{name} is {text:?}, which is neither an address nor a host name"),
            "write an address such as 127.0.0.1",
        ));
    }
    Ok(())
}

pub(super) fn port(text: &str, name: &str) -> Result<u16> {
    let number = text.parse().ok().filter(|port| *port != 0);
    number
        .ok_or_else(|| Error::usage(format!("{name} is {text:?}, which is not a port"), "use a number from 1 to 65535"))
}

/// The address of a server.
pub(super) fn server_url(text: &str, name: &str) -> Result<ServerUrl> {
    let with_login = || {
        Error::usage(
            format!("{name} contains a user or password"),
            "use --grafana-user, --influxdb-user and the password files, so that credentials are not visible",
        )
    };
    // The text before an @ may be a password, wherever the URL ends.
    let bad = |why: &str| {
        if text.contains('@') {
            return with_login();
        }
        Error::usage(format!("{name} is {text:?}: {why}"), "write it as http://host:port")
    };
    let url = url::Url::parse(text).map_err(|_| bad("it is not the URL of a server"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(with_login());
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it does not begin with http:// or https://"));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("it has no host"))?;
    if url.query().is_some() || url.fragment().is_some() || text.chars().any(char::is_whitespace) {
        return Err(bad("it is not the URL of a server"));
    }
    Ok(ServerUrl {
        tls: url.scheme() == "https",
        host: host.trim_start_matches('[').trim_end_matches(']').to_string(),
        port: url.port_or_known_default().filter(|port| *port != 0).ok_or_else(|| bad("it has no port"))?,
        path: url.path().trim_end_matches('/').to_string(),
    })
}

pub(super) fn image(text: &str, name: &str) -> Result<ImageRef> {
    ImageRef::parse(text).map_err(|why| Error::usage(format!("{name} is {text:?}: {why}"), "write it as name:tag"))
}

/// A prefix of the default images.
fn registry(text: &str, name: &str) -> Result<()> {
    let prefix = text.trim_end_matches('/');
    let whole = ImageRef::parse(&format!("{prefix}/x")).map(drop);
    let checked = if prefix.is_empty() { Err("it has no host") } else { whole };
    checked.map_err(|why| Error::usage(format!("{name} is {text:?}: {why}"), "write it as registry.example:5000"))
}

pub(super) fn pull(text: &str, name: &str) -> Result<Pull> {
    match text {
        "missing" => Ok(Pull::Missing),
        "always" => Ok(Pull::Always),
        "never" => Ok(Pull::Never),
        _ => {
            let message = format!("{name} is {text:?}, but must be missing, always or never");
            Err(Error::usage(message, "use missing, always or never"))
        }
    }
}

pub(super) fn flag(text: &str, name: &str) -> Result<bool> {
    text.parse()
        .map_err(|_| Error::usage(format!("{name} is {text:?}, which is neither true nor false"), "use true or false"))
}

pub(super) fn alert_time(text: &str, setting: Setting, name: &str) -> Result<Duration> {
    let hint = "write it as 90s or 2m";
    let time = parse_duration(text, name, hint)?;
    let (shortest, longest) = match setting {
        // A single report can be late by a few seconds.
        Setting::AlertSilenceAfter => (Duration::from_secs(30), Duration::from_secs(12 * 3600)),
        _ => (Duration::from_secs(1), Duration::from_secs(24 * 3600)),
    };
    if time < shortest || time > longest || time.subsec_nanos() > 0 {
        let (from, to) = (humantime::format_duration(shortest), humantime::format_duration(longest));
        return Err(Error::usage(
            format!("{name} is {text:?}, but it must be from {from} to {to}, in whole seconds"),
            hint,
        ));
    }
    Ok(time)
}

/// A duration as users type it.
///
/// # Errors
/// [`Error::Usage`] if it is not a duration, is zero, or is longer than 100 years.
pub(crate) fn duration(text: &str, name: &str) -> Result<Duration> {
    parse_duration(text, name, "write it as 90s, 10m, 6h or 1d")
}

fn parse_duration(text: &str, name: &str, hint: &str) -> Result<Duration> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| Error::usage(format!("{name} is {text:?}, which is not a duration"), hint))?;
    if duration.is_zero() {
        return Err(Error::usage(format!("{name} is {text:?}, but a duration must be longer than zero"), hint));
    }
    if duration > LONGEST {
        return Err(Error::usage(format!("{name} is {text:?}, which is longer than 100 years"), hint));
    }
    Ok(duration)
}
