//! The session of a command: it reads the inputs once, connects to the engine, reads the remembered settings, and merges
//! all of them into a stack with its clients.

use std::env::split_paths;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::Context;
use super::options::Options;
use crate::backup;
use crate::backup::archive::Verified;
use crate::clipper::file::{self, ClipperFile};
use crate::digest::fingerprint;
use crate::engine::endpoint::{self, Endpoint, Environment};
use crate::engine::{Docker, address_of_this_machine, is_of_this_machine};
use crate::error::{Error, Result};
use crate::grafana;
use crate::model::credentials::CaFile;
use crate::model::event::{Event, Listener};
use crate::model::image::ImageRef;
use crate::model::invocation::{Invocation, shell_word, typed_option};
use crate::model::native::{self, System};
use crate::model::observed::{StoredSettings, VolumeState};
use crate::model::plan::{self, Resource};
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::stack::{DesiredUserDashboard, EngineLocation, Remembered, Secret};
use crate::reconcile::{Session, lock, native_servers};
use crate::settings::keys::{Setting, Values, file_keys, from_environment};
use crate::settings::{self, Inputs, Memory, Secrets};

/// The deadline of the check of an engine that has just failed to answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest file that is read.
const FILE_LIMIT: u64 = 1 << 20;

/// The settings that a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SettingsScope {
    /// All settings.
    Whole,
    /// All settings, and the instance's objects on the engine even if its servers are external.
    Removal,
    /// The instance's name. Remembered settings only affect the output.
    NameOnly,
}

/// Reads the inputs, connects to the engine, reads the remembered settings and merges everything. With `changes`,
/// it waits for other runs first, because they may change the settings.
pub(super) async fn open(context: &Context<'_>, purpose: SettingsScope, changes: bool) -> Result<Session> {
    let inputs = read_inputs(context, purpose)?;
    open_with(inputs, context, purpose, changes).await
}

/// Opens a session with inputs that were read before. If no engine answers and this run names none, the hint
/// mentions the servers that run on this machine.
pub(super) async fn open_with(
    inputs: Inputs,
    context: &Context<'_>,
    purpose: SettingsScope,
    changes: bool,
) -> Result<Session> {
    match open_on_engine(inputs.clone(), context, purpose, changes).await {
        Err(error @ Error::Engine { is_down: true, .. })
            if purpose == SettingsScope::Whole && !names_engine(context) =>
        {
            Err(with_native_servers(error, &inputs, context).await)
        }
        opened => opened,
    }
}

async fn open_on_engine(
    mut inputs: Inputs,
    context: &Context<'_>,
    purpose: SettingsScope,
    changes: bool,
) -> Result<Session> {
    let listener = context.listener();
    let name = inputs.instance()?;
    // Invalid values are reported before any request to the engine.
    settings::check_values(&inputs)?;
    if purpose != SettingsScope::NameOnly {
        settings::check(&inputs)?;
    }
    if inputs.needs_no_engine() && purpose == SettingsScope::Whole {
        let session = without_engine(&inputs, context)?;
        if changes {
            expect_external(&session, &inputs, context, &listener).await?;
        }
        return Ok(session);
    }
    let docker = connect(&mut inputs, context, &listener).await?;
    let lock = if changes {
        Some(lock::acquire(&docker.engine().endpoint, &name, context.environment, listener.as_ref()).await?)
    } else {
        None
    };
    let memory = match remembered(&docker, &name, &inputs).await {
        Ok(memory) => memory,
        Err(error) => {
            // The check says more if the server is not an engine. One that does not answer is not waited for twice.
            return Err(match tokio::time::timeout(CHECK_TIMEOUT, docker.check()).await {
                Ok(Err(no_engine)) => no_engine,
                _ => error,
            });
        }
    };
    if purpose == SettingsScope::NameOnly {
        // A command that needs only the name may never observe, which checks the engine as well.
        docker.check().await?;
    }
    if purpose != SettingsScope::NameOnly && has_external_grafana(&inputs, &memory) {
        inputs.engine_machine = docker.identity().await?.map(|identity| machine_fingerprint(&identity));
    }
    if !memory.containers.is_empty() {
        let names = memory.stored.iter().flat_map(|stored| settings::names_without_address(&inputs, stored));
        for (setting, host) in names.filter(|(setting, _)| memory.has_address_for(*setting)) {
            let option = setting.option();
            listener.on(Event::Warning(&format!(
                "the remembered {option} {host} has no address at the moment: the address of the existing container is used"
            )));
        }
    }
    // With both URLs, `up` ignores remembered settings, so its objects are found without them, too.
    let memory = if inputs.needs_no_engine() && purpose == SettingsScope::Removal { Memory::default() } else { memory };
    let merged = settings::merge(&inputs, &memory);
    let (stack, credentials) = match (merged, purpose) {
        (Ok(merged), _) => merged,
        (Err(error), SettingsScope::Whole | SettingsScope::Removal) => return Err(error),
        // Invalid settings prevent neither removing an instance nor reading its logs.
        (Err(_), SettingsScope::NameOnly) => settings::merge(&by_name(name, &inputs), &Memory::default())?,
    };
    Ok(Session::new(stack, Some(Rc::new(docker)), credentials, listener)?.with_lock(lock))
}

/// Opens a session for the instance's objects on the engine. If both servers are external, a missing engine is only
/// a warning, unless `needs_engine` is set.
pub(super) async fn open_for_containers(
    context: &Context<'_>,
    purpose: SettingsScope,
    changes: bool,
    needs_engine: bool,
) -> Result<Session> {
    let inputs = read_inputs(context, purpose)?;
    match open_with(inputs.clone(), context, purpose, changes).await {
        Err(error) if inputs.needs_no_engine() && !needs_engine && is_without_engine(context, &inputs, &error) => {
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
    let listener = context.listener();
    let (stack, credentials) = settings::merge(inputs, &Memory::default())?;
    Session::new(stack, None, credentials, listener)
}

/// Opens a session for an instance that is created from an archive. Its remembered settings come from the archive,
/// except the addresses: only this run can publish a server. Also returns the images that only the archive names.
pub(super) async fn open_restored(
    context: &Context<'_>,
    file: &Path,
    verified: &Verified,
) -> Result<(Session, Vec<(Role, ImageRef)>)> {
    let listener = context.listener();
    let manifest = &verified.manifest;
    let mut inputs = read_inputs(context, SettingsScope::Whole)?;
    if inputs.given(Setting::Name).is_none() {
        inputs.options.insert(Setting::Name, manifest.instance.clone());
    }
    let name = inputs.instance()?;
    settings::check_values(&inputs)?;
    settings::check(&inputs)?;
    let docker = connect(&mut inputs, context, &listener).await?;
    let lock = lock::acquire(&docker.engine().endpoint, &name, context.environment, listener.as_ref()).await?;
    docker.check().await?;
    let archive = std::path::absolute(file).unwrap_or_else(|_| file.into()).to_string_lossy().into_owned();
    let restore = backup::new_restore(archive, verified.digest.clone());
    let noted = docker.stored_settings(&name).await?;
    // A restore that starts again after an interruption keeps the options of the first run.
    let again = noted.values.filter(|_| noted.restore.as_ref().is_some_and(|noted| noted.is_of_same(&restore)));
    let mut values = again.unwrap_or_else(|| {
        let mut values = manifest.settings.clone();
        for setting in [Setting::InfluxdbIp, Setting::GrafanaIp, Setting::DataSourceUrl] {
            values.remove(setting.key().option);
        }
        values
    });
    // Retention is stored only after its confirmation.
    if let Some((name, retention)) = manifest.settings.get_key_value(Retention::SETTING) {
        values.entry(name.clone()).or_insert_with(|| retention.clone());
    }
    let database = Remembered { value: manifest.database.clone(), from_file: false };
    values.entry(Setting::Database.key().option.into()).or_insert(database);
    let stored = StoredSettings { values: Some(values), ..StoredSettings::default() };
    let memory = Memory { stored: Some(stored), ..Memory::default() };
    let (mut stack, credentials) = settings::merge(&inputs, &memory)?;
    if let Some(unknown) = plan::unknown_settings(&stack) {
        return Err(Error::usage(
            format!("the archive contains settings that cannot be used: {}", unknown.why),
            "add those that `restore` accepts as options, or use the version of clipper-metrics that wrote the archive",
        ));
    }
    (stack.restore, stack.replaced_restore) = (Some(restore), noted.restore);
    let images = settings::remembered_images(&inputs, &memory, &stack)?;
    let session = Session::new(stack, Some(Rc::new(docker)), credentials, listener)?;
    Ok((session.with_lock(Some(lock)), images))
}

/// The engine that options, environment and Docker's own configuration choose.
fn endpoint(context: &Context<'_>) -> Result<Endpoint> {
    let options = context.options;
    endpoint::resolve(options.host.as_deref(), options.context.as_deref(), context.environment)
}

/// Connects to the engine, and records its location and its options for suggested commands.
async fn connect(inputs: &mut Inputs, context: &Context<'_>, listener: &Rc<dyn Listener>) -> Result<Docker> {
    let endpoint = endpoint(context)?;
    if endpoint.was_found() {
        inputs.engine_options = endpoint.options();
    }
    let docker = Docker::connect(endpoint, Rc::clone(listener)).await?;
    inputs.engine = docker.location();
    Ok(docker)
}

/// Refuses URLs on this machine that lead to managed containers, as far as an engine that answers at once shows it. A
/// request with a random number, sent to the URL, must arrive in the container: the engine's socket may be forwarded.
async fn expect_external(
    session: &Session,
    inputs: &Inputs,
    context: &Context<'_>,
    listener: &Rc<dyn Listener>,
) -> Result<()> {
    let stack = session.stack();
    let is_here = |role| {
        inputs.addresses(&stack.url(role).host).into_iter().any(|ip| ip.is_loopback() || (inputs.has_address)(ip))
    };
    let Ok(endpoint) = endpoint(context) else { return Ok(()) };
    if endpoint.is_ssh() || !Role::ALL.into_iter().any(is_here) {
        return Ok(());
    }
    let found = async {
        let docker = Docker::connect(endpoint, Rc::clone(listener)).await?;
        let Some((role, managed)) = docker.managed_at(stack).await? else { return Ok(None) };
        let is_behind = session.is_behind(&docker, role, &managed.container).await?;
        Ok::<_, Error>(is_behind.then_some((role, managed)))
    };
    match tokio::time::timeout(CHECK_TIMEOUT, found).await {
        Ok(Ok(Some((role, managed)))) => Err(Error::Blocked {
            resource: Resource::Server(role),
            blocked: plan::managed_server(stack, role, &stack.url(role).to_string(), &managed, "up"),
        }),
        _ => Ok(()),
    }
}

/// The error of an engine that does not answer, with a hint about the servers that run on this machine.
async fn with_native_servers(error: Error, inputs: &Inputs, context: &Context<'_>) -> Error {
    let Error::Engine { endpoint, why, hint, install, is_down } = error else { return error };
    let listener = context.listener();
    let ways = async {
        let (stack, _) = settings::merge(inputs, &Memory::default())?;
        let found = native_servers(&stack, &listener).await?;
        let file = inputs.given(Setting::Config).filter(|path| !path.is_empty());
        let file = file.map(|path| shell_word(path));
        let has_table = inputs.file.as_ref().is_some_and(|file| !file.metrics.is_empty());
        let file = file.as_deref().map(|path| (path, has_table));
        Ok(native::hint(&found, &stack.invocation, &hint, install.as_deref(), file, System::HERE))
    };
    let hint = ways.await.unwrap_or_else(|_: Error| hint.clone());
    Error::Engine { endpoint, why, hint, install, is_down }
}

/// Whether the engine does not answer, or Docker's own configuration names an engine that does not exist. An engine in an
/// option must exist.
fn is_without_engine(context: &Context<'_>, inputs: &Inputs, error: &Error) -> bool {
    let is_named = context.options.host.is_some() || context.options.context.is_some();
    let is_valid = || settings::check_values(inputs).is_ok() && settings::check(inputs).is_ok();
    matches!(error, Error::Engine { .. }) || (!is_named && endpoint(context).is_err() && is_valid())
}

/// Whether this run names the engine.
pub(super) fn names_engine(context: &Context<'_>) -> bool {
    endpoint(context).is_ok_and(|endpoint| endpoint.chosen_by.is_this_run())
}

/// Connects to the engine for a command that concerns no single instance.
pub(super) async fn engine(context: &Context<'_>) -> Result<Docker> {
    let docker = Docker::connect(endpoint(context)?, context.listener()).await?;
    docker.check().await?;
    Ok(docker)
}

/// An instance's remembered settings. Containers and volumes are read only if some settings are lost or have no
/// address.
async fn remembered(docker: &Docker, name: &str, inputs: &Inputs) -> Result<Memory> {
    let stored = docker.stored_settings(name).await?;
    if !settings::needs_containers(inputs, &stored) {
        return Ok(Memory { stored: Some(stored), ..Memory::default() });
    }
    docker.check().await?;
    let containers = docker.specifications(name).await?;
    let mut has_data = false;
    for role in Role::ALL {
        has_data |= matches!(docker.volume(name, role).await?, VolumeState::Ours { .. });
    }
    // Another run may have created all of them in the meantime; it stores settings first.
    let exists = has_data || !containers.is_empty();
    let stored = if exists { docker.stored_settings(name).await? } else { stored };
    Ok(Memory { stored: Some(stored), containers, has_data })
}

/// Inputs that contain only the name of an instance.
fn by_name(name: String, inputs: &Inputs) -> Inputs {
    Inputs {
        options: [(Setting::Name, name)].into(),
        environment: Values::new(),
        file: None,
        secrets: Secrets::default(),
        ca_file: None,
        content_hash: inputs.content_hash.clone(),
        alerts_hash: inputs.alerts_hash.clone(),
        engine: EngineLocation::Here,
        engine_options: inputs.engine_options.clone(),
        resolve: inputs.resolve,
        own_address: inputs.own_address,
        machine: inputs.machine.clone(),
        engine_machine: None,
        has_address: inputs.has_address,
        read_dashboard: inputs.read_dashboard,
    }
}

/// Reads all inputs of this run, each once, because a secret may come from a pipe.
pub(super) fn read_inputs(context: &Context<'_>, purpose: SettingsScope) -> Result<Inputs> {
    let Context { options, environment, .. } = context;
    let (mut given, mut variables) =
        (options.settings.0.clone(), from_environment(|name| environment.get(name).map(String::from)));
    // Paths are remembered, and the next run may start in another directory.
    for paths in [&mut given, &mut variables].into_iter().filter_map(|values| values.get_mut(&Setting::Dashboard)) {
        *paths = absolute(paths)?;
    }
    variables.retain(|_, value| !value.is_empty());
    let path =
        |setting: Setting| given.get(&setting).or_else(|| variables.get(&setting)).filter(|path| !path.is_empty());
    let file = path(Setting::Config).map(|path| read_clipper_file(Path::new(path))).transpose()?;
    let from_file = |setting: Setting| file.as_ref()?.metrics.get(setting.key().key?);
    let (mut secrets, mut ca_file) = (Secrets::default(), None);
    if purpose != SettingsScope::NameOnly {
        let secret = |setting| secret(setting, &given, &variables, from_file(setting), environment);
        secrets = Secrets {
            grafana_password: secret(Setting::GrafanaPasswordFile)?,
            grafana_token: secret(Setting::GrafanaTokenFile)?,
            // Removing objects needs no login to InfluxDB.
            influxdb_password: if purpose == SettingsScope::Whole {
                secret(Setting::InfluxdbPasswordFile)?
            } else {
                None
            },
        };
        let from_file = || from_file(Setting::CaFile).filter(|_| !given.contains_key(&Setting::CaFile));
        ca_file = path(Setting::CaFile).or_else(from_file).map(|path| read_ca_file(path)).transpose()?;
    }
    Ok(Inputs {
        options: given,
        environment: variables,
        file,
        secrets,
        ca_file,
        content_hash: grafana::dashboard::content_hash(),
        alerts_hash: grafana::alerts::content_hash(),
        engine: EngineLocation::Here,
        engine_options: engine_options(options),
        resolve,
        own_address: address_of_this_machine,
        machine: machine(),
        engine_machine: None,
        has_address: is_of_this_machine,
        read_dashboard,
    })
}

/// The options of suggested commands, before any file is read.
pub(crate) fn invocation(options: &Options, environment: &Environment) -> Invocation {
    let variables = from_environment(|name| environment.get(name).map(String::from));
    let endpoint = endpoint::resolve(options.host.as_deref(), options.context.as_deref(), environment);
    let engine = endpoint.map_or_else(|_| engine_options(options), |endpoint| endpoint.options());
    settings::invocation(&options.settings.0, &variables, &engine, false)
}

/// The engine that was chosen on the command line, for suggested commands.
fn engine_options(options: &Options) -> String {
    match (&options.host, &options.context) {
        (Some(host), _) => typed_option("-H", host),
        (None, Some(context)) => typed_option("--context", context),
        (None, None) => String::new(),
    }
}

/// Reads a secret from a file or a variable, never from an option, which process lists show. Precedence is that of every
/// setting; within the environment, the file's variable takes precedence over the secret's.
fn secret(
    setting: Setting,
    options: &Values,
    variables: &Values,
    from_file: Option<&String>,
    environment: &Environment,
) -> Result<Option<Secret>> {
    let of_grafana = setting != Setting::InfluxdbPasswordFile;
    if let Some(path) = options.get(&setting) {
        return if path.is_empty() { Ok(None) } else { read_secret(path, of_grafana).map(Some) };
    }
    if let Some(path) = variables.get(&setting) {
        return read_secret(path, of_grafana).map(Some);
    }
    let direct =
        setting.key().secret_variable.and_then(|name| environment.get(name)).map(|text| trimmed(text, of_grafana));
    if let Some(text) = direct.filter(|text| !text.is_empty()) {
        return Ok(Some(Secret::new(text)));
    }
    from_file.map(|path| read_secret(path, of_grafana)).transpose()
}

fn read_secret(path: &str, of_grafana: bool) -> Result<Secret> {
    let text = read(Path::new(path), "a file that contains only the secret")?;
    let text = trimmed(&text, of_grafana);
    if text.is_empty() {
        return Err(Error::File {
            path: path.into(),
            line: None,
            message: "is empty".into(),
            hint: "write the secret to it, alone on one line".into(),
        });
    }
    Ok(Secret::new(text))
}

/// Grafana's file provider trims secrets, so both ends of a secret for Grafana are trimmed. Of other secrets, only the
/// line break at the end is removed.
fn trimmed(text: &str, of_grafana: bool) -> &str {
    if of_grafana { text.trim() } else { text.trim_end_matches(['\n', '\r']) }
}

fn read(path: &Path, what: &str) -> Result<String> {
    String::from_utf8(read_bytes(path, what)?).map_err(|_| Error::File {
        path: path.to_path_buf(),
        line: None,
        message: "is not text".into(),
        hint: format!("use the path of {what}"),
    })
}

fn read_bytes(path: &Path, what: &str) -> Result<Vec<u8>> {
    let failed = |message: String| Error::File {
        path: path.to_path_buf(),
        line: None,
        message,
        hint: format!("use the path of {what}"),
    };
    let file = std::fs::File::open(path).map_err(|why| failed(format!("cannot be read: {why}")))?;
    let mut bytes = Vec::new();
    let mut limited = std::io::Read::take(file, FILE_LIMIT + 1);
    std::io::Read::read_to_end(&mut limited, &mut bytes).map_err(|why| failed(format!("cannot be read: {why}")))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(failed("is larger than 1 MiB".into()));
    }
    Ok(bytes)
}

fn read_clipper_file(path: &Path) -> Result<ClipperFile> {
    let mut found = file::parse(path, &read(path, "Clipper's configuration file with --config")?, &file_keys())?;
    // The path of the file may be relative to the current directory.
    if let Some(paths) = Setting::Dashboard.key().key.and_then(|key| found.metrics.get_mut(key)) {
        *paths = absolute(paths)?;
    }
    Ok(found)
}

fn read_ca_file(path: &str) -> Result<CaFile> {
    let pem = read_bytes(Path::new(path), "certificates in PEM format with --ca-file")?;
    Ok(CaFile { path: path.into(), pem })
}

/// The same paths, made absolute.
fn absolute(paths: &str) -> Result<String> {
    let failed =
        |why: String| Error::usage(format!("{} cannot be used: {why}", Setting::Dashboard.option()), "rename the file");
    let complete = split_paths(paths)
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| {
            Ok(std::path::absolute(&path).map_err(|why| failed(why.to_string()))?.to_string_lossy().into_owned())
        })
        .collect::<Result<Vec<_>>>()?;
    file::join_paths(&complete).map_err(failed)
}

fn read_dashboard(path: &str, instance: &str) -> Result<DesiredUserDashboard> {
    let what = format!("a dashboard that was exported from Grafana with {}", Setting::Dashboard.option());
    // A remembered path may lead to a pipe by now, and reading it would never end.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let message = "is not a regular file".into();
        let hint = format!("use the path of {what}");
        return Err(Error::File { path: path.into(), line: None, message, hint });
    }
    let text = read(Path::new(path), &what)?;
    grafana::user_dashboard::parse(path, instance, &text).map_err(|why| Error::File {
        path: path.into(),
        line: None,
        message: why.message,
        hint: why.hint,
    })
}

/// The addresses of a host name, IPv4 first. Given the name itself, the engine would publish at every address.
fn resolve(host: &str) -> Vec<IpAddr> {
    let found = (host, 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    let mut addresses: Vec<IpAddr> = found.into_iter().map(|address| address.ip()).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    addresses
}

/// Whether Grafana is external, by this run or by the remembered settings.
fn has_external_grafana(inputs: &Inputs, memory: &Memory) -> bool {
    let option = Setting::GrafanaUrl.key().option;
    let remembered = memory.stored.iter().flat_map(|stored| &stored.values).any(|values| values.contains_key(option));
    inputs.given(Setting::GrafanaUrl).map_or(remembered, |url| !url.is_empty())
}

/// A fingerprint of the number that identifies a Linux system (machine-id(5)).
fn machine() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = Some(id.trim()).filter(|id| !id.is_empty() && *id != "uninitialized")?;
    Some(machine_fingerprint(id))
}

/// The fingerprint of a number that must not be published itself.
fn machine_fingerprint(id: &str) -> String {
    fingerprint(format!("clipper-metrics {id}").as_bytes())
}
