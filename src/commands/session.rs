//! Opens the session of a command: it connects to the engine, reads the remembered settings, and merges them with the
//! inputs into a stack with its clients.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::context::Context;
use super::inputs::{SettingsScope, engine_options, machine_fingerprint, read_inputs, read_inputs_of};
use crate::backup;
use crate::backup::archive::{Manifest, Verified};
use crate::engine::Docker;
use crate::engine::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::model::event::{Event, Listener};
use crate::model::image::ImageRef;
use crate::model::invocation::{shell_word, typed_option};
use crate::model::lost_settings::Lost;
use crate::model::native::System;
use crate::model::observed::{ManagedServer, StoredSettings, VolumeState};
use crate::model::plan;
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::stack::{EngineLocation, Remembered, RestoreRecord, Stack, UnfinishedRestore};
use crate::reconcile::{FileOfRun, Session, lock, native_hint, native_servers};
use crate::settings::keys::{Setting, Values, settings_of};
use crate::settings::{self, EngineFacts, Inputs, Memory, Secrets};

/// The deadline of the check of an engine that has just failed to answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a command changes the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    ReadOnly,
    /// It prints the changes that it would make, and refuses the same settings.
    Preview,
    /// It waits for other runs first, because they may change the settings.
    Change,
}

impl Access {
    /// The access of a command that may print its plan instead.
    pub(super) const fn of(dry_run: bool) -> Self {
        if dry_run { Self::Preview } else { Self::Change }
    }
}

/// Opens a session for a command that uses all settings.
pub(super) async fn open(context: &Context<'_>, access: Access) -> Result<Session> {
    open_with(&read_inputs(context, SettingsScope::Whole)?, context, access).await
}

/// The same with inputs that were read before. If no engine answers and this run names none, the hint mentions the
/// servers that run on this machine.
pub(super) async fn open_with(inputs: &Inputs, context: &Context<'_>, access: Access) -> Result<Session> {
    let explain = async |error| Err(with_native_servers(error, inputs, context).await);
    open_or(inputs, context, access, explain).await
}

/// The same, where `otherwise` follows if this run names no engine and none can be reached.
pub(super) async fn open_or(
    inputs: &Inputs,
    context: &Context<'_>,
    access: Access,
    otherwise: impl AsyncFnOnce(Error) -> Result<Session>,
) -> Result<Session> {
    if inputs.needs_no_engine() {
        let session = without_engine(inputs, context)?;
        let managed = match access {
            Access::ReadOnly => None,
            Access::Preview | Access::Change => managed_behind(&session, inputs, context).await,
        };
        return Ok(match managed {
            Some(managed) => session.with_managed_behind(managed),
            None => session,
        });
    }
    let endpoint = context.endpoint()?;
    let is_named = endpoint.chosen_by.is_this_run();
    match open_on(endpoint, inputs, context, SettingsScope::Whole, access).await {
        Err(error @ Error::Engine { .. }) if !is_named => otherwise(error).await,
        opened => opened,
    }
}

/// Opens a session for the instance's objects on the engine. If both servers are external, a missing engine is only
/// a warning, unless `needs_engine` is set.
pub(super) async fn open_for_containers(
    context: &Context<'_>,
    scope: SettingsScope,
    access: Access,
    needs_engine: bool,
) -> Result<Session> {
    let inputs = read_inputs(context, scope)?;
    let (opened, may_be_missing) = match context.endpoint() {
        Ok(endpoint) => {
            let opened = open_on(endpoint, &inputs, context, scope, access).await;
            let is_unreachable = matches!(opened, Err(Error::Engine { .. }));
            (opened, is_unreachable)
        }
        // Docker's own configuration may name an engine that does not exist. An engine in an option must exist.
        Err(error) => (Err(error), context.options.host().is_none() && context.options.context().is_none()),
    };
    match opened {
        Err(error) if may_be_missing && inputs.needs_no_engine() && !needs_engine => {
            let name = inputs.instance()?;
            let session = without_engine(&inputs, context)?;
            let left = format!("{error}; containers of {name} on that engine, if there are any, are left alone");
            session.listener().on(Event::Warning(&left));
            Ok(session)
        }
        opened => opened,
    }
}

/// Opens a session without an engine, and therefore without remembered settings.
pub(super) fn without_engine(inputs: &Inputs, context: &Context<'_>) -> Result<Session> {
    let (stack, credentials) = settings::merge(inputs, &unreached(context), &Memory::default())?;
    Session::new(stack, None, credentials, context.listener())
}

async fn open_on(
    endpoint: Endpoint,
    inputs: &Inputs,
    context: &Context<'_>,
    scope: SettingsScope,
    access: Access,
) -> Result<Session> {
    let name = inputs.instance()?;
    let (docker, mut engine) = connect(endpoint, context).await?;
    let lock = if access == Access::Change { Some(acquire(&docker, &name, context).await?) } else { None };
    let memory = match remembered(&docker, &name, inputs).await {
        Ok(memory) => memory,
        Err(error) => {
            // The check says more if the server is not an engine. One that does not answer is not waited for twice.
            return Err(match tokio::time::timeout(CHECK_TIMEOUT, docker.check()).await {
                Ok(Err(no_engine)) => no_engine,
                _ => error,
            });
        }
    };
    if scope == SettingsScope::NameOnly {
        // A command that needs only the name may never observe, which checks the engine as well.
        docker.check().await?;
    } else if has_external_grafana(inputs, &memory) {
        engine.machine = docker.identity().await?.map(|(kind, id)| machine_fingerprint(kind, &id));
    }
    for (setting, host) in memory.hosts_without_address() {
        let option = setting.option();
        context.printer.on(Event::Warning(&format!(
            "the remembered {option} {host} has no address at the moment: the address of the existing container is used"
        )));
    }
    let stored = memory.stored.clone();
    // With both URLs, `up` ignores remembered settings, so its objects are found without them, too.
    let memory = if inputs.needs_no_engine() && scope == SettingsScope::Removal { Memory::default() } else { memory };
    let merged = match settings::merge(inputs, &engine, &memory) {
        // Invalid settings prevent neither removing an instance nor reading its logs.
        Err(_) if scope == SettingsScope::NameOnly => {
            let engine = EngineFacts::unreached(engine.options);
            settings::merge(&by_name(name, inputs), &engine, &Memory::default())
        }
        merged => merged,
    };
    let (stack, credentials) = merged?;
    if scope == SettingsScope::Whole {
        warn_about_dropped_url(inputs, stored.as_ref(), &stack, context);
    }
    let session = Session::new(stack, Some(Rc::new(docker)), credentials, context.listener())?;
    Ok(session.with_lock(lock).with_stored(stored))
}

/// Opens a session for an instance that is created from an archive. Its remembered settings come from the archive,
/// except the addresses: only this run can publish a server. Also returns the record of the restore, and the images that
/// only the archive names.
pub(super) async fn open_restored(
    context: &Context<'_>,
    file: &Path,
    verified: &Verified,
) -> Result<(Session, RestoreRecord, Vec<(Role, ImageRef)>)> {
    let manifest = &verified.manifest;
    let mut inputs = read_inputs_of(context, SettingsScope::Whole, Some(&manifest.instance))?;
    let name = inputs.instance()?;
    let (docker, engine) = connect(context.endpoint()?, context).await?;
    if let EngineLocation::Elsewhere(host) = &engine.location {
        return Err(Error::usage(
            format!("the engine runs on {host}, and restored servers are verified on that machine's loopback first"),
            format!("copy the file to {host} and restore it there, or reach the engine with -H ssh://{host}"),
        ));
    }
    let lock = acquire(&docker, &name, context).await?;
    docker.check().await?;
    let archive = std::path::absolute(file).unwrap_or_else(|_| file.into()).to_string_lossy().into_owned();
    let mut restore = backup::new_restore(archive, verified.digest.clone());
    let noted = docker.stored_settings(&name).await?;
    // A restore that starts again after an interruption keeps the options of the first run, which were confirmed.
    let again = interrupted_settings(&noted, &restore);
    let is_confirmed = again.is_some();
    let mut values = restored_settings(manifest, again);
    // The restored Grafana contains them with their uids, and the mark of the other instance.
    if manifest.instance != name && values.remove(Setting::Dashboard.key().option).is_some() {
        inputs.forget(Setting::Dashboard);
        context.printer.on(Event::Warning(&format!(
            "the dashboards imported with --dashboard belong to {}: they stay in the restored Grafana, and this restore \
             imports none for {name}",
            manifest.instance
        )));
    }
    let stored = StoredSettings { values: Some(values), ..StoredSettings::default() };
    let memory = Memory { stored: Some(stored), ..Memory::default() };
    let (mut stack, credentials) = settings::merge(&inputs, &engine, &memory)?;
    warn_about_dropped_url(&inputs, memory.stored.as_ref(), &stack, context);
    if let Some(unknown) = plan::unknown_settings(&stack) {
        return Err(Error::usage(
            format!("the archive contains settings that cannot be used: {}", unknown.why),
            "add those that `restore` accepts as options, or use the version of clipper-metrics that wrote the archive",
        ));
    }
    let mut values = stack.settings.as_ref().map(|settings| settings.values.clone()).unwrap_or_default();
    restore.retention = values.remove(Retention::SETTING);
    stack = backup::restoring(stack, restore.clone());
    let record = RestoreRecord { values, restore, replaced: noted.restore };
    let images =
        if is_confirmed { Vec::new() } else { settings::remembered_images(&inputs, &engine, &memory, &stack)? };
    let session = Session::new(stack, Some(Rc::new(docker)), credentials, context.listener())?;
    Ok((session.with_lock(Some(lock)).waiting(), record, images))
}

/// The settings of an interrupted restore of the same archive.
fn interrupted_settings(noted: &StoredSettings, restore: &UnfinishedRestore) -> Option<BTreeMap<String, Remembered>> {
    let interrupted = noted.restore.as_ref().filter(|interrupted| interrupted.is_of_same(restore))?;
    let mut values = noted.values.clone()?;
    values.extend(interrupted.retention.clone().map(|retention| (Retention::SETTING.to_string(), retention)));
    Some(values)
}

/// The settings that a restored instance remembers: those of an interrupted restore, otherwise the archive's.
fn restored_settings(
    manifest: &Manifest,
    interrupted: Option<BTreeMap<String, Remembered>>,
) -> BTreeMap<String, Remembered> {
    let mut values = interrupted.unwrap_or_else(|| {
        let mut values = manifest.settings.clone();
        for setting in Role::ALL.map(|role| settings_of(role).ip).into_iter().chain([Setting::DataSourceUrl]) {
            values.remove(setting.key().option);
        }
        values
    });
    let database = Remembered { value: manifest.database.clone(), from_file: false };
    values.entry(Setting::Database.key().option.into()).or_insert(database);
    values
}

async fn connect(endpoint: Endpoint, context: &Context<'_>) -> Result<(Docker, EngineFacts)> {
    context.uses(&endpoint);
    let options = engine_options(context.options, Some(&endpoint));
    let docker = Docker::connect(endpoint, context.listener()).await?;
    let location = docker.location();
    Ok((docker, EngineFacts { location, options, machine: None }))
}

/// The facts without a connection: the engine that was chosen on the command line.
fn unreached(context: &Context<'_>) -> EngineFacts {
    EngineFacts::unreached(engine_options(context.options, None))
}

async fn acquire(docker: &Docker, name: &str, context: &Context<'_>) -> Result<lock::Lock> {
    let listener: Rc<dyn Listener> = context.listener();
    let lock = lock::acquire(docker.host(), name, context.environment, listener.as_ref()).await?;
    // It no longer waits.
    context.printer.clear();
    Ok(lock)
}

/// The managed container that a URL on this machine leads to, as far as an engine that answers at once shows it. A
/// request with a random number, sent to the URL, must arrive in the container: the engine's socket may be forwarded.
async fn managed_behind(session: &Session, inputs: &Inputs, context: &Context<'_>) -> Option<(Role, ManagedServer)> {
    let stack = session.stack();
    let is_here = |role| {
        inputs.addresses(&stack.url(role).host).into_iter().any(|ip| ip.is_loopback() || (inputs.has_address)(ip))
    };
    let endpoint = context.endpoint().ok()?;
    if endpoint.is_ssh() || !Role::ALL.into_iter().any(is_here) {
        return None;
    }
    let found = async {
        let docker = Docker::connect(endpoint, context.listener()).await?;
        let Some((role, managed)) = docker.managed_at(stack).await? else { return Ok(None) };
        let is_behind = session.is_behind(&docker, role, &managed.container).await?;
        Ok::<_, Error>(is_behind.then_some((role, managed)))
    };
    tokio::time::timeout(CHECK_TIMEOUT, found).await.ok()?.ok()?
}

/// Warns if this run does not use the remembered address of the data source, because its servers are others.
fn warn_about_dropped_url(inputs: &Inputs, stored: Option<&StoredSettings>, stack: &Stack, context: &Context<'_>) {
    let Some(url) = dropped_data_source_url(inputs, stored, stack) else { return };
    context.printer.on(Event::Warning(&format!(
        "the remembered --data-source-url {url} was chosen for another InfluxDB or Grafana and is not used; `{}` keeps it",
        stack.command(&format!("up{}", typed_option("--data-source-url", &url)))
    )));
}

/// The remembered address of the data source that this run does not use, although no other one was supplied.
fn dropped_data_source_url(inputs: &Inputs, stored: Option<&StoredSettings>, stack: &Stack) -> Option<String> {
    let option = Setting::DataSourceUrl.key().option;
    let remembered = stored?.values.as_ref()?.get(option).filter(|remembered| !remembered.from_file)?;
    let is_lost = |lost: &Lost| lost.unknown.iter().any(|unknown| unknown.option == option);
    let is_used = stack
        .settings
        .as_ref()
        .is_none_or(|settings| settings.values.contains_key(option) || settings.lost.as_ref().is_some_and(is_lost));
    (!is_used && inputs.given(Setting::DataSourceUrl).is_none()).then(|| remembered.value.clone())
}

/// The error of an engine that does not answer, with a hint about the servers that run on this machine.
async fn with_native_servers(error: Error, inputs: &Inputs, context: &Context<'_>) -> Error {
    let Error::Engine { endpoint, why, hint, install, is_down: true } = error else { return error };
    let ways = async {
        let (stack, _) = settings::merge(inputs, &unreached(context), &Memory::default())?;
        let found = native_servers(&stack, &context.listener()).await?;
        let file = inputs.given(Setting::Config).filter(|path| !path.is_empty());
        let file = file.map(shell_word);
        let names = |role: &Role| {
            let key = settings_of(*role).url.key().metrics_key();
            inputs.file.as_ref().zip(key).is_some_and(|(file, key)| file.metrics.contains_key(&key))
        };
        let names: Vec<Role> = Role::ALL.into_iter().filter(names).collect();
        let has_metrics = inputs.file.as_ref().is_some_and(|file| file.has_metrics);
        let file = file.as_deref().map(|path| FileOfRun { path, has_metrics, names: &names });
        Ok(native_hint(&found, &stack.invocation, &hint, install.as_deref(), file, System::HERE))
    };
    let hint = ways.await.unwrap_or_else(|_: Error| hint.clone());
    Error::Engine { endpoint, why, hint, install, is_down: true }
}

/// Connects to the engine for a command that concerns no single instance.
pub(super) async fn engine(context: &Context<'_>) -> Result<Docker> {
    let endpoint = context.endpoint()?;
    context.uses(&endpoint);
    let docker = Docker::connect(endpoint, context.listener()).await?;
    docker.check().await?;
    Ok(docker)
}

/// An instance's remembered settings. Containers and volumes are read only if some settings are lost, or a host does not
/// have exactly one address.
async fn remembered(docker: &Docker, name: &str, inputs: &Inputs) -> Result<Memory> {
    let stored = docker.stored_settings(name).await?;
    let addresses = settings::remembered_addresses(inputs, &stored);
    if !settings::needs_containers(&stored, &addresses) {
        return Ok(Memory { stored: Some(stored), addresses, ..Memory::default() });
    }
    docker.check().await?;
    let containers = docker.configs(name).await?;
    let mut has_data = false;
    for role in Role::ALL {
        has_data |= matches!(docker.volume(name, role).await?, VolumeState::Ours { .. });
    }
    if !has_data && containers.is_empty() {
        return Ok(Memory { stored: Some(stored), addresses, containers, has_data });
    }
    // Another run may have created all of them in the meantime; it stores settings first.
    let latest = docker.stored_settings(name).await?;
    let addresses = if latest == stored { addresses } else { settings::remembered_addresses(inputs, &latest) };
    Ok(Memory { stored: Some(latest), addresses, containers, has_data })
}

/// Inputs that contain only the name of an instance.
fn by_name(name: String, inputs: &Inputs) -> Inputs {
    Inputs {
        options: [(Setting::Name, name)].into(),
        environment: Values::new(),
        file: None,
        secrets: Secrets::default(),
        ca_file: None,
        ..inputs.clone()
    }
}

/// Whether Grafana is external, by this run or by the remembered settings.
fn has_external_grafana(inputs: &Inputs, memory: &Memory) -> bool {
    let option = Setting::GrafanaUrl.key().option;
    let remembered = memory.stored.iter().flat_map(|stored| &stored.values).any(|values| values.contains_key(option));
    inputs.given(Setting::GrafanaUrl).map_or(remembered, |url| !url.is_empty())
}
