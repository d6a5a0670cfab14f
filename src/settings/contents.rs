//! The settings of the servers' content: the retention period, the user's dashboards and alert rules.

use std::env::split_paths;

use super::keys::Setting;
use super::{Resolved, values};
use crate::error::{Error, Result};
use crate::model::alerts::{AlertSettings, Alerts};
use crate::model::retention::Retention;
use crate::model::stack::{DesiredUserDashboard, Remembered};

pub(super) fn retention(resolved: &mut Resolved<'_>) -> Result<Option<Retention>> {
    let text = resolved.pick(Setting::Retention);
    text.map(|text| values::retention(&text, &Setting::Retention.option())).transpose()
}

/// The user's dashboards. A file that this run supplies must be a dashboard that does not clash with the others. A
/// remembered file may be missing, on another machine, or clash.
pub(super) fn user_dashboards(
    resolved: &mut Resolved<'_>,
    instance: &str,
    bundled_title: &str,
) -> Result<(Vec<DesiredUserDashboard>, Vec<String>)> {
    let inputs = resolved.inputs;
    let is_given = inputs.given(Setting::Dashboard).is_some();
    let Some(paths) = resolved.pick(Setting::Dashboard) else { return Ok((Vec::new(), Vec::new())) };
    let (mut found, mut unreadable): (Vec<DesiredUserDashboard>, Vec<String>) = (Vec::new(), Vec::new());
    for path in split_paths(&paths) {
        let path = path.to_string_lossy();
        let read = (inputs.read_dashboard)(&path, instance)
            .and_then(|own| clash(&own, &found, instance, bundled_title).map_or(Ok(own), Err));
        match read {
            Ok(dashboard) => found.push(dashboard),
            Err(error) if is_given => return Err(error),
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
    } else if let Some(other) = others.iter().find(|other| other.uid == *uid) {
        (format!("{} and {path} have the same uid {uid:?}", other.path), "uid")
    } else if let Some(other) = others.iter().find(|other| other.title == *title) {
        (format!("{} and {path} have the same title {title:?}", other.path), "title")
    } else {
        return None;
    };
    Some(Error::usage(message, format!("give each dashboard its own {what}")))
}

/// After alerts were set once, their absence is remembered as `false`, so that remaining rules are found.
pub(super) fn alerts(resolved: &mut Resolved<'_>) -> Result<Alerts> {
    let name = Setting::Alerts.key().option;
    let was_managed = resolved.remembered.contains_key(name);
    let wanted = resolved.pick(Setting::Alerts);
    let mut time = |setting: Setting| {
        let text = resolved.pick(setting).unwrap_or_else(|| setting.key().default.into());
        values::alert_time(&text, setting, &setting.option())
    };
    let (latency_after, silence_after) = (time(Setting::AlertLatencyAfter)?, time(Setting::AlertSilenceAfter)?);
    match wanted.map(|text| values::flag(&text, &Setting::Alerts.option())).transpose()? {
        Some(true) => {
            let content_hash = resolved.inputs.alerts_hash.clone();
            Ok(Alerts::On(AlertSettings { latency_after, silence_after, content_hash }))
        }
        Some(false) => Ok(Alerts::Off),
        None if was_managed => {
            resolved.values.insert(name.to_string(), Remembered { value: "false".into(), from_file: false });
            Ok(Alerts::Off)
        }
        None => Ok(Alerts::NotManaged),
    }
}
