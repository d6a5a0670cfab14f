//! `export`: the stack as files for what runs it elsewhere.
//!
//! What somebody edited in Grafana goes along. Nothing is changed but the directory. Must not know a format.

use std::path::Path;

use crate::core::event::{Event, Listener};
use crate::core::export::{Exported, Format};
use crate::core::observed::{Observed, Probe, Volume};
use crate::core::plan::{self, Finding, Obstacle, Resource, UpOptions};
use crate::core::role::Role;
use crate::core::stack::Stack;
use crate::core::version::Version;
use crate::error::{Error, Result};
use crate::systems::export::{self, Material, directory};
use crate::systems::grafana::provisioning::Present;
use crate::systems::{Depth, Systems};

/// Writes an export of the stack into a directory.
///
/// # Errors
/// [`Error::Usage`] when the stack cannot be exported like this, [`Error::Absent`] when something has to run for it,
/// [`Error::File`] when the directory holds something else, else what failed.
pub async fn export(systems: &Systems, format: Format, directory: &Path, listener: &dyn Listener) -> Result<Exported> {
    let stack = systems.stack();
    export::check(format, stack)?;
    let (present, version) = present(systems, format, listener).await?;
    let password = if format.makes_servers() {
        Some(systems.new_password(export::kept_password(format, directory)?)?)
    } else {
        None
    };
    let material = Material {
        stack,
        present: &present,
        version,
        password: password.as_ref(),
        influxdb_password: systems.influxdb_password(),
    };
    let files = export::files(format, &material)?;
    let files = directory::write(directory, &files)?;
    Ok(Exported { instance: stack.instance.clone(), format, directory: directory.display().to_string(), files })
}

/// What the stack's Grafana has, and its version.
async fn present(systems: &Systems, format: Format, listener: &dyn Listener) -> Result<(Present, Option<Version>)> {
    let stack = systems.stack();
    let container = stack.container(Role::Grafana);
    if container.is_none() && !stack.login.token && !stack.login.given {
        // An account that nobody gave would be a failed login in somebody's Grafana.
        let version = systems.grafana_version().await;
        listener.on(Event::Note(
            "nobody signs in to Grafana without --grafana-token-file or --grafana-password-file: what it has already is \
             not looked at",
        ));
        return Ok((Present::unknown(stack), version));
    }
    let seen = systems.observe(Depth::Servers).await?;
    expect_usable(stack, &seen, format)?;
    let runs = seen.grafana.version.as_deref().and_then(Version::parse);
    let named = container.and_then(|spec| spec.specification.image.version());
    let version = if format.makes_servers() { named.or(runs) } else { runs.or(named) };
    let present = if matches!(seen.grafana.probe, Probe::Answering(_)) {
        systems.grafana().await?.present(stack).await?
    } else {
        if container.is_none() || matches!(seen.grafana.volume, Volume::Ours { .. }) {
            listener.on(Event::Warning(
                "Grafana does not answer: dashboards are exported as clipper-metrics would import them, without what \
                 somebody edited",
            ));
        }
        if container.is_some() { Present::new_server(stack) } else { Present::unknown(stack) }
    };
    Ok((if format.makes_servers() { present.on_new_server() } else { present }, version))
}

/// Nothing of other people is in the way of what the files would make, and what the format goes on with is there.
fn expect_usable(stack: &Stack, seen: &Observed, format: Format) -> Result<()> {
    if let Probe::Refusing(message) = &seen.grafana.probe {
        let url = stack.url(Role::Grafana).to_string();
        return Err(Error::Refused { role: Role::Grafana, url, message: message.clone() });
    }
    let plan = plan::up(stack, seen, UpOptions::default());
    let clash = plan.0.iter().find_map(|item| match &item.finding {
        Finding::Blocked(blocked) if is_in_grafana(item.resource) && blocked.kind != Obstacle::Server => {
            Some((item.resource, blocked.clone()))
        }
        _ => None,
    });
    if let Some((resource, blocked)) = clash.filter(|_| !format.makes_servers()) {
        return Err(Error::Blocked { resource, blocked });
    }
    if format == Format::Compose && !plan.in_sync() {
        return Err(Error::Absent {
            what: format!(
                "instance {} is not in sync, and what Compose goes on with are its volumes and what is in them",
                stack.instance
            ),
            hint: format!("bring it up with `{}`, then export it", stack.command("up")),
        });
    }
    Ok(())
}

const fn is_in_grafana(resource: Resource) -> bool {
    matches!(
        resource,
        Resource::Organisation | Resource::Folder | Resource::DataSource | Resource::Dashboard(_) | Resource::Alerts
    )
}
