//! The settings of the servers' content: the user's dashboards and alert rules.

use std::env::split_paths;

use super::keys::Setting;
use super::resolve::Resolved;
use super::values;
use crate::error::{Error, Result};
use crate::model::alerts::{AlertSettings, Alerts};
use crate::model::stack::DesiredUserDashboard;

/// The user's dashboards. A file that this run supplies must be a dashboard that does not clash with the others. A
/// remembered file may be missing, on another machine, or clash.
pub(super) fn user_dashboards(
    resolved: &Resolved<'_>,
    instance: &str,
    bundled_title: &str,
) -> Result<(Vec<DesiredUserDashboard>, Vec<String>)> {
    let inputs = resolved.inputs;
    let Some(paths) = resolved.get(Setting::Dashboard) else { return Ok((Vec::new(), Vec::new())) };
    let (mut found, mut unreadable): (Vec<DesiredUserDashboard>, Vec<String>) = (Vec::new(), Vec::new());
    for path in split_paths(paths) {
        let path = path.to_string_lossy();
        let read = (inputs.read_dashboard)(&path, instance)
            .and_then(|own| clash(&own, &found, instance, bundled_title).map_or(Ok(own), Err));
        match read {
            Ok(dashboard) => found.push(dashboard),
            Err(error) if !resolved.is_remembered(Setting::Dashboard) => return Err(error),
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    Ok((found, unreadable))
}

/// The clash of a dashboard with the bundled one or an earlier one.
fn clash(
    own: &DesiredUserDashboard,
    others: &[DesiredUserDashboard],
    instance: &str,
    bundled_title: &str,
) -> Option<Error> {
    let DesiredUserDashboard { path, uid, title, .. } = own;
    let (message, what) = if uid == instance {
        (format!("{path} has the uid {uid:?} of the bundled dashboard"), "uid")
    } else if title == bundled_title {
        (format!("{path} has the title {title:?} of the bundled dashboard"), "title")
    } else if others.iter().any(|other| other.path == *path) {
        return Some(Error::usage(format!("the dashboard {path} is named twice"), "name it once"));
    } else if let Some(other) = others.iter().find(|other| other.uid == *uid) {
        (format!("{} and {path} have the same uid {uid:?}", other.path), "uid")
    } else if let Some(other) = others.iter().find(|other| other.title == *title) {
        (format!("{} and {path} have the same title {title:?}", other.path), "title")
    } else {
        return None;
    };
    Some(Error::usage(message, format!("give each dashboard its own {what}")))
}

pub(super) fn alerts(resolved: &Resolved<'_>) -> Result<Alerts> {
    let time = |setting| resolved.parsed_or_default(setting, |text, name| values::alert_time(text, setting, name));
    let (latency_after, silence_after) = (time(Setting::AlertLatencyAfter)?, time(Setting::AlertSilenceAfter)?);
    Ok(match resolved.parsed(Setting::Alerts, values::flag)? {
        Some(true) => {
            let content_hash = resolved.inputs.alerts_hash.clone();
            Alerts::On(AlertSettings { latency_after, silence_after, content_hash })
        }
        Some(false) => Alerts::Off,
        None => Alerts::NotManaged,
    })
}
