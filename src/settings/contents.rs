//! Settings that act inside the servers: how long points are kept, the user's own dashboards, alert rules.
//!
//! Must not know precedence: each is picked where all are.

use std::env::split_paths;
use std::time::Duration;

use super::keys::Setting;
use super::{Resolved, duration};
use crate::core::alerts::{AlertSettings, Alerts};
use crate::core::retention::Retention;
use crate::core::stack::{Remembered, UserDashboard};
use crate::error::{Error, Result};

pub(super) fn retention(resolved: &mut Resolved<'_>) -> Result<Option<Retention>> {
    let Some(text) = resolved.pick(Setting::Retention) else { return Ok(None) };
    if ["inf", "INF"].contains(&text.as_str()) {
        return Ok(Some(Retention::Forever));
    }
    let time = duration(&text, "--retention")?;
    if time < Retention::SHORTEST || time.subsec_nanos() > 0 {
        return Err(Error::usage(
            format!("--retention is {text:?}, and InfluxDB keeps points for an hour or longer, in whole seconds"),
            "write it as 90d or 12h, or inf for ever",
        ));
    }
    Ok(Some(Retention::For(time)))
}

/// The dashboards of the user's own. A file that this run is given must be one; one that is only remembered may
/// be gone, or on another machine.
pub(super) fn user_dashboards(
    resolved: &mut Resolved<'_>,
    instance: &str,
    bundled_title: &str,
) -> Result<(Vec<UserDashboard>, Vec<String>)> {
    let inputs = resolved.inputs;
    let is_given = inputs.given(Setting::Dashboard).is_some();
    let Some(paths) = resolved.pick(Setting::Dashboard) else { return Ok((Vec::new(), Vec::new())) };
    let (mut found, mut unreadable): (Vec<UserDashboard>, Vec<String>) = (Vec::new(), Vec::new());
    for path in split_paths(&paths) {
        let path = path.to_string_lossy();
        match (inputs.read_dashboard)(&path, instance) {
            Ok(dashboard) => found.push(dashboard),
            Err(error) if is_given => return Err(error),
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    let hint = |what: &str| format!("give each dashboard a {what} of its own");
    for (index, one) in found.iter().enumerate() {
        let (path, uid, title) = (&one.path, &one.uid, &one.title);
        if uid == instance {
            return Err(Error::usage(format!("{path} has the uid {uid:?} of the bundled dashboard"), hint("uid")));
        }
        if title == bundled_title {
            return Err(Error::usage(
                format!("{path} has the title {title:?} of the bundled dashboard"),
                hint("title"),
            ));
        }
        for other in &found[..index] {
            if other.uid == *uid {
                let message = format!("{} and {path} have the same uid {uid:?}", other.path);
                return Err(Error::usage(message, hint("uid")));
            }
            if other.title == *title {
                let message = format!("{} and {path} have the same title {title:?}", other.path);
                return Err(Error::usage(message, hint("title")));
            }
        }
    }
    Ok((found, unreadable))
}

/// Once somebody has spoken of alerts, that there are to be none is remembered: rules that are left are found.
pub(super) fn alerts(resolved: &mut Resolved<'_>) -> Result<Alerts> {
    let name = Setting::Alerts.key().option;
    let was_managed = resolved.remembered.contains_key(name);
    let wanted = resolved.pick(Setting::Alerts);
    let mut time = |setting: Setting| {
        let text = resolved.pick(setting).unwrap_or_else(|| setting.key().default.into());
        alert_time(&text, setting)
    };
    let (latency_after, silence_after) = (time(Setting::AlertLatencyAfter)?, time(Setting::AlertSilenceAfter)?);
    match wanted.as_deref() {
        Some("true") => {
            let edition = resolved.inputs.alerts_edition.clone();
            Ok(Alerts::On(AlertSettings { latency_after, silence_after, edition }))
        }
        Some("false") => Ok(Alerts::Off),
        Some(other) => Err(Error::usage(format!("--alerts is {other:?}"), "give true or false")),
        None if was_managed => {
            resolved.values.insert(name.to_string(), Remembered { value: "false".into(), of_file: false });
            Ok(Alerts::Off)
        }
        None => Ok(Alerts::NotManaged),
    }
}

pub(super) fn alert_time(text: &str, setting: Setting) -> Result<Duration> {
    let time = duration(text, &setting.option())?;
    let (shortest, longest) = match setting {
        // A single report is late by a few seconds at times.
        Setting::AlertSilenceAfter => (Duration::from_secs(30), Duration::from_secs(12 * 3600)),
        _ => (Duration::from_secs(1), Duration::from_secs(24 * 3600)),
    };
    if time < shortest || time > longest || time.subsec_nanos() > 0 {
        let (from, to) = (humantime::format_duration(shortest), humantime::format_duration(longest));
        return Err(Error::usage(
            format!("{} is {text:?}, and it must be from {from} to {to}, in whole seconds", setting.option()),
            "write it as 90s or 2m",
        ));
    }
    Ok(time)
}
