//! `backup` and `restore`: an instance as one file, and one made from such a file.
//!
//! InfluxDB is copied by its own portable backup, Grafana's database while its container is paused. Nothing
//! of an interrupted backup is left. Must not know the format of the file, nor how a result is shown.

pub mod archive;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::error::Elapsed;

use self::archive::{Folder, Manifest, Part, Target, Verified};
use crate::engine::Docker;
use crate::engine::files::{FOLDER_NAME as OWN_FOLDER, GRAFANA_FILES, VOLUME as GRAFANA_VOLUME};
use crate::error::{Error, Refusal, Result};
use crate::influxdb::activity::INTERNAL;
use crate::model::event::{Event, ExecutedStep, Listener};
use crate::model::image::ImageRef;
use crate::model::observed::{ContainerState, Network, Observed, RunState, Volume};
use crate::model::plan::{self, Finding, Item, Plan, Resource, Step, UpOptions};
use crate::model::role::Role;
use crate::model::stack::{Pull, Remembered, Restore, Stack};
use crate::model::text::printable;
use crate::model::upgrade::Upgrade;
use crate::model::version::Version;
use crate::reconcile::upgrade::micros_since_1970;
use crate::reconcile::{Depth, Outcome, Systems, expect_known_settings, expect_restored, now, up};

/// How the directory begins that holds InfluxDB's own backup while it is copied. Each run has its own, in the data
/// directory: the root cannot be written.
const INFLUXDB_BACKUP: &str = "clipper-metrics-backup";
/// How often a run touches its directory.
const TOUCHED_EVERY: Duration = Duration::from_secs(60);
/// A directory that was not touched for so many minutes was left by a run that was killed.
const LEFT_AFTER: &str = "+10";
/// Where it lies while it is read back.
const INFLUXDB_RESTORE: &str = "/var/lib/influxdb/clipper-metrics-restore";
/// InfluxDB's data.
const INFLUXDB_DATA: &str = "/var/lib/influxdb";
/// Where `influxd backup` and `influxd restore` find their server.
const INFLUXDB_HOST: &str = "127.0.0.1:8088";
/// Chunks that wait to be written.
const WAITING: usize = 8;
/// How long each thing that cleans up may take.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(20);

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// The file.
    pub file: PathBuf,
    /// How many bytes it has.
    pub bytes: u64,
    /// How long it took.
    pub time: Duration,
    /// What it says of the instance.
    pub manifest: Manifest,
}

/// Writes a running instance into a file.
///
/// # Errors
/// [`Error::Usage`] where a server is not a container, [`Error::Absent`] where one does not run,
/// [`Error::Interrupted`] when `stop` comes first, else what failed; the file is then not there.
pub async fn backup(
    systems: &Systems,
    file: &Path,
    listener: &dyn Listener,
    stop: impl Future<Output = ()>,
) -> Result<BackedUp> {
    let started = Instant::now();
    let mut begun = Begun::default();
    let result = tokio::select! {
        biased;
        result = make(systems, file, &mut begun) => result,
        () = stop => Err(Error::Interrupted { hint: "nothing was written: run the same command again".into() }),
    };
    let Begun { paused, copy, writing, manifest } = begun;
    // Before the file: its disk may hang, and Grafana is not to wait for it.
    clean_up(systems, paused, copy, listener).await;
    let written = match writing {
        Some(writing) => tokio::time::timeout(CLEAN_UP_TIMEOUT, writing).await,
        None => Ok(Ok(Err(Error::Interrupted { hint: String::new() }))),
    };
    let (bytes, manifest) = match (result, written, manifest) {
        (Ok(done), ..) => done,
        // The interruption came when everything was handed over.
        (Err(Error::Interrupted { .. }), Ok(Ok(Ok(bytes))), Some(manifest)) => (bytes, manifest),
        (Err(error), written, _) => {
            if written.is_err() {
                let file = file.display();
                listener.on(Event::Warning(&format!("{file}, or one beside it that ends in .partial, may be left")));
            }
            return Err(error);
        }
    };
    Ok(BackedUp { file: file.into(), bytes, time: started.elapsed(), manifest })
}

/// What must be ended or removed, however a backup ends.
#[derive(Default)]
struct Begun {
    /// Grafana's container, from the request to pause it until it runs again.
    paused: Option<String>,
    /// InfluxDB's container, and this run's directory in it.
    copy: Option<(String, String)>,
    writing: Option<JoinHandle<Result<u64>>>,
    manifest: Option<Manifest>,
}

async fn make(systems: &Systems, file: &Path, begun: &mut Begun) -> Result<(u64, Manifest)> {
    let stack = systems.stack();
    expect_known_settings(stack)?;
    expect_containers(stack, "backup")?;
    archive::expect_free(file)?;
    let seen = systems.observe(Depth::Servers).await?;
    expect_restored(stack, &seen)?;
    let influxdb = running(stack, &seen, Role::Influxdb)?;
    if let Some(have) = seen.grafana.container.ours().filter(|have| have.run == RunState::Paused) {
        return Err(paused_by_another(systems, &influxdb, &have.name).await);
    }
    let ids = [influxdb, running(stack, &seen, Role::Grafana)?];
    let version = |version: &Option<String>| version.clone().unwrap_or_default();
    let databases = systems.influxdb().databases().await?;
    // Where they are lost, what stands in for them.
    let known = stack.settings.as_ref().map(|settings| &settings.values);
    let mut settings = seen.settings.values.as_ref().or(known).cloned().unwrap_or_default();
    if let (Some(spec), Some(_)) = (stack.container(Role::Grafana), &stack.refused_image) {
        // What is restored runs what this one runs, not what failed here.
        let image = Remembered { value: spec.specification.image.to_string(), of_file: false };
        settings.insert(Upgrade::SETTING.into(), image);
    }
    let manifest = Manifest {
        instance: stack.instance.clone(),
        made_at: now(),
        settings,
        database: stack.database.clone(),
        databases: databases.into_iter().filter(|name| name != INTERNAL).map(|name| (name, false)).collect(),
        influxdb: version(&seen.influxdb.version),
        grafana: version(&seen.grafana.version.clone().or(seen.grafana.recorded.map(|ran| ran.to_string()))),
    };
    // A file that cannot be made is found before a server has any work with it.
    let new = archive::New::create(file)?;
    let directory = format!("{INFLUXDB_DATA}/{}", own_directory());
    begun.copy = Some((ids[0].clone(), directory.clone()));
    begun.manifest = Some(manifest.clone());
    let (parts, received) = mpsc::channel(WAITING);
    let writing = {
        let manifest = manifest.clone();
        tokio::task::spawn_blocking(move || new.write(&manifest, received))
    };
    let writing = begun.writing.insert(writing);
    let failed = |why: JoinError| Error::Io {
        doing: format!("write {}", file.display()),
        source: std::io::Error::other(why.to_string()),
    };
    let copied = tokio::select! {
        // It ends before everything was handed over only where it failed.
        written = &mut *writing => {
            begun.writing = None;
            let bytes = written.unwrap_or_else(|why| Err(failed(why)))?;
            return Ok((bytes, manifest));
        }
        copied = copy(systems, &ids, &directory, &mut begun.paused, &parts) => copied,
        never = keep_touching(systems.docker()?, &ids[0], &directory) => match never {},
    };
    // Without its end, the file is removed again.
    drop(parts);
    copied?;
    let written = writing.await;
    begun.writing = None;
    Ok((written.unwrap_or_else(|why| Err(failed(why)))?, manifest))
}

fn expect_containers(stack: &Stack, verb: &str) -> Result<()> {
    for role in Role::ALL {
        if stack.container(role).is_none() {
            return Err(Error::usage(
                format!("{verb} is for containers of clipper-metrics, and {} already runs elsewhere", role.title()),
                format!("use {}'s own way to copy its data", role.title()),
            ));
        }
    }
    Ok(())
}

/// The engine's id of a role's container, which runs.
fn running(stack: &Stack, seen: &Observed, role: Role) -> Result<String> {
    let (container, answers) = match role {
        Role::Influxdb => (&seen.influxdb.container, seen.influxdb.probe.stored().is_some()),
        // It may reject our login and is copied all the same.
        Role::Grafana => (&seen.grafana.container, true),
    };
    match container.ours() {
        Some(have) if have.run == RunState::Running && answers => Ok(have.id.clone()),
        _ => Err(Error::Absent {
            what: format!("{} is not running, and a backup is made of what runs", role.title()),
            hint: format!("start it with `{}`", stack.command("up")),
        }),
    }
}

/// The name of a run's directory: it tells other runs which machine and process made it.
fn own_directory() -> String {
    let host: String = machine().chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    format!("{INFLUXDB_BACKUP}-{host}-{}-{}", std::process::id(), micros_since_1970())
}

/// The run that made a directory, in words.
fn run_of(directory: &str) -> Option<String> {
    let name = directory.rsplit('/').next()?.strip_prefix(INFLUXDB_BACKUP)?.strip_prefix('-')?;
    let [host, process, _] = name.split('-').collect::<Vec<_>>()[..] else { return None };
    Some(format!("process {process} on {host}"))
}

/// Touches the directory of a backup, so that no other run takes it for one that was left.
async fn keep_touching(docker: &Docker, influxdb: &str, directory: &str) -> Infallible {
    let mut ticks = tokio::time::interval(TOUCHED_EVERY);
    loop {
        ticks.tick().await;
        // If it fails, the copy does, too, and says why.
        let _ = docker.run_inside("touch the copy of InfluxDB's data", influxdb, &["touch", "-c", directory]).await;
    }
}

/// The error where Grafana is paused, but not by this run.
async fn paused_by_another(systems: &Systems, influxdb: &str, grafana: &str) -> Error {
    let (stack, doing) = (systems.stack(), "look for other backups");
    let name = format!("{INFLUXDB_BACKUP}-*");
    let find = ["find", INFLUXDB_DATA, "-maxdepth", "1", "-name", &name];
    let found = match systems.docker() {
        Ok(docker) => docker.read_inside(doing, influxdb, &find).await.unwrap_or_default(),
        Err(_) => String::new(),
    };
    let runs: Vec<String> = found.lines().filter_map(|path| run_of(&printable(path))).collect();
    let up = stack.command("up");
    let (by, hint) = if runs.is_empty() {
        (String::new(), format!("wake it with `{up}`, then run the same command again"))
    } else {
        let by = format!(", and there is another backup of {}: {}", stack.instance, runs.join(", "));
        (
            by,
            format!("run the same command again when that has ended; if it was killed, wake Grafana with `{up}` first"),
        )
    };
    Error::Absent { what: format!("container {grafana} is paused{by}"), hint }
}

/// Hands everything over.
async fn copy(
    systems: &Systems,
    [influxdb, grafana]: &[String; 2],
    directory: &str,
    paused: &mut Option<String>,
    parts: &mpsc::Sender<Part>,
) -> Result<()> {
    let docker = systems.docker()?;
    let doing = "copy InfluxDB's data";
    let changed = |doing: &str, why: &str| Error::Raced { doing: doing.into(), why: why.into() };
    // Space that runs have left which were killed. Where that fails, the backup does not.
    let left = format!("{INFLUXDB_BACKUP}*");
    let find = ["find", INFLUXDB_DATA, "-maxdepth", "1", "-name", &left, "-mmin", LEFT_AFTER];
    let _ = docker.run_inside(doing, influxdb, &[&find[..], &["-exec", "rm", "-rf", "{}", "+"]].concat()).await;
    docker.run_inside(doing, influxdb, &["influxd", "backup", "-portable", "-host", INFLUXDB_HOST, directory]).await?;
    if !download(docker, doing, influxdb, directory, Folder::Influxdb, parts).await? {
        return Err(changed(doing, "another process removed the copy or its container"));
    }
    let doing = "copy Grafana's data";
    download(docker, doing, grafana, &format!("{GRAFANA_VOLUME}/{OWN_FOLDER}"), Folder::Own, parts).await?;
    // Before the answer, which an interruption may overtake.
    *paused = Some(grafana.clone());
    let is_paused = async || {
        let info = docker.run_info(Role::Grafana, grafana).await?;
        Ok::<_, Error>(info.is_some_and(|info| info.run == RunState::Paused))
    };
    match docker.pause_container(Role::Grafana, grafana).await {
        // The engine answered that it did not pause it.
        Err(error @ Error::Docker { refusal, .. }) if refusal != Refusal::Gone => {
            *paused = None;
            if is_paused().await? {
                let name = Role::Grafana.object_name(&systems.stack().instance);
                return Err(paused_by_another(systems, influxdb, &name).await);
            }
            let was_paused = refusal == Refusal::Conflict;
            return Err(if was_paused {
                changed(doing, "another process paused its container meanwhile")
            } else {
                error
            });
        }
        result => result?,
    }
    for name in GRAFANA_FILES {
        let is_there =
            download(docker, doing, grafana, &format!("{GRAFANA_VOLUME}/{name}"), Folder::Grafana, parts).await?;
        if !is_there && name == GRAFANA_FILES[0] {
            return Err(changed(doing, "its volume holds no grafana.db, or another process removed its container"));
        }
    }
    // A database is torn if Grafana writes while it is copied.
    if !is_paused().await? {
        return Err(changed(doing, "another process unpaused its container meanwhile"));
    }
    docker.unpause_container(Role::Grafana, grafana).await?;
    *paused = None;
    let _ = parts.send(Part::End).await;
    Ok(())
}

/// Hands over the files below a path of a container; `false` if there is no such path. Ends early where the archive is
/// not written any more.
async fn download(
    docker: &Docker,
    doing: &str,
    container: &str,
    path: &str,
    below: Folder,
    parts: &mpsc::Sender<Part>,
) -> Result<bool> {
    let mut begun = false;
    let hand_over = async |bytes| {
        let begins = begun || parts.send(Part::Below(below)).await.is_ok();
        begun = true;
        begins && parts.send(Part::Bytes(bytes)).await.is_ok()
    };
    let found = docker.download(doing, container, path, hand_over).await?;
    if found && !begun {
        let _ = parts.send(Part::Below(below)).await;
    }
    Ok(found)
}

/// Leaves nothing of this run paused, and no copy inside. Containers that were removed meanwhile hold nothing.
async fn clean_up(systems: &Systems, paused: Option<String>, copy: Option<(String, String)>, listener: &dyn Listener) {
    let Ok(docker) = systems.docker() else { return };
    let is_done = |result: std::result::Result<Result<()>, Elapsed>| {
        matches!(result, Ok(Ok(()) | Err(Error::Docker { refusal: Refusal::NotFound, .. })))
    };
    if let Some(grafana) = paused {
        let waking = docker.unpause_container(Role::Grafana, &grafana);
        if !is_done(tokio::time::timeout(CLEAN_UP_TIMEOUT, waking).await) {
            let up = systems.stack().command("up");
            listener.on(Event::Warning(&format!("Grafana's container may still be paused; `{up}` wakes it")));
        }
    }
    if let Some((influxdb, directory)) = copy {
        let remove = ["rm", "-rf", &directory];
        let removing = docker.run_inside("remove the copy", &influxdb, &remove);
        if !is_done(tokio::time::timeout(CLEAN_UP_TIMEOUT, removing).await) {
            let why = "a copy may be left in InfluxDB's volume; a backup after ten minutes removes it";
            listener.on(Event::Warning(why));
        }
    }
}

/// The name of this machine; empty where the system does not tell it.
fn machine() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// A restore that this process begins.
#[must_use]
pub fn new_restore(archive: String, digest: String) -> Restore {
    let process = std::process::id();
    Restore { id: format!("{}-{process}", micros_since_1970()), archive, digest, machine: machine(), process }
}

/// The restore may still run: it was begun on another machine, or its process lives.
fn may_run(restore: &Restore) -> bool {
    let own = machine();
    own.is_empty()
        || restore.machine != own
        || (restore.process != std::process::id() && process_lives(restore.process))
}

/// A process of this machine lives, perhaps another user's. The number may belong to a later process.
#[cfg(unix)]
fn process_lives(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let tested = process.map(rustix::process::test_kill_process);
    matches!(tested, Some(Ok(()) | Err(rustix::io::Errno::PERM)))
}

/// Other systems are not asked; the lock keeps this user's runs apart.
#[cfg(not(unix))]
fn process_lives(_: u32) -> bool {
    true
}

/// The run of an unfinished restore that may still run, in words.
fn running_restore(stack: &Stack) -> Option<String> {
    let Restore { archive, machine, process, .. } =
        stack.replaced_restore.as_ref().filter(|restore| may_run(restore))?;
    let run =
        if machine.is_empty() { "a run of clipper-metrics".into() } else { format!("process {process} on {machine}") };
    Some(format!("the restore of {archive} into {}, begun by {run}, may still run", stack.instance))
}

/// Makes an instance from a file that was verified. `take_over` is asked before an unfinished restore is replaced that
/// may still run, `trust` before anything is made, `confirm` as [`super::up`] asks it.
///
/// # Errors
/// [`Error::Blocked`] or [`Error::Usage`] where there is one of that name or something in the way. What fails
/// before all data is there, or when `stop` comes first, removes again what was made; afterwards the instance
/// stays, and [`super::up`] finishes it. A run that was killed before leaves a note, with which nothing but another
/// restore goes on.
pub async fn restore(
    systems: &Systems,
    archive: &Arc<Verified>,
    take_over: impl AsyncFnOnce(&str) -> Result<()>,
    trust: impl AsyncFnOnce() -> Result<()>,
    confirm: impl AsyncFn(&str) -> Result<()>,
    listener: &dyn Listener,
    stop: impl Future<Output = ()>,
) -> Result<Outcome> {
    let stack = systems.stack();
    let mut executed = Vec::new();
    let mut progress = Progress::Nothing;
    let making = async {
        expect_containers(stack, "restore")?;
        let seen = systems.observe(Depth::EngineOnly).await?;
        expect_nothing(stack, &seen)?;
        expect_new_enough(stack, &archive.manifest)?;
        let options = UpOptions { pull: stack.pull == Pull::Always, ..UpOptions::default() };
        let plan = plan::up(stack, &plan::without_instance(&seen), options);
        if let Some((resource, blocked)) = plan.blocked() {
            return Err(Error::Blocked { resource, blocked: blocked.clone() });
        }
        if let Some(run) = running_restore(stack) {
            take_over(&run).await?;
        }
        trust().await?;
        systems.apply(&plan.only(is_fetched), &mut executed).await?;
        // That may have taken long.
        expect_nothing(stack, &systems.observe(Depth::EngineOnly).await?)?;
        progress = Progress::Something;
        systems.apply(&plan::begin_restore(), &mut executed).await?;
        let left = systems.observe(Depth::EngineOnly).await?;
        systems.apply(&plan::remove_unfinished(stack, &left), &mut executed).await?;
        systems.apply(&plan::make_for_restore(&left), &mut executed).await?;
        fill(systems, archive, &mut executed).await?;
        systems.apply(&plan::finish_restore(), &mut executed).await?;
        progress = Progress::Everything;
        let mut outcome = Box::pin(up(systems, UpOptions::default(), confirm, listener)).await?;
        executed.append(&mut outcome.executed);
        Ok(outcome.status)
    };
    let result = tokio::select! {
        biased;
        result = making => result,
        () = stop => Err(Error::Interrupted { hint: String::new() }),
    };
    let mut error = match result {
        Ok(status) => return Ok(Outcome { executed, status }),
        Err(error) => error,
    };
    let left = match progress {
        Progress::Nothing => "nothing was made: run the same command again".into(),
        Progress::Something => match undo(systems).await {
            Undone::All => "what was made was removed again".into(),
            Undone::OfAnotherRun => {
                format!("another run works on {}: `{}` shows its state", stack.instance, stack.command("status"))
            }
            Undone::NotAll => format!("a part of it is left: `{}` removes it", stack.command("down --volumes")),
        },
        Progress::Everything => format!("all data is there: `{}` finishes it", stack.command("up")),
    };
    match &mut error {
        Error::Interrupted { hint } => *hint = left,
        _ if matches!(progress, Progress::Nothing) => {}
        _ => listener.on(Event::Warning(&left)),
    }
    Err(error)
}

/// How far a restore got.
#[derive(Clone, Copy)]
enum Progress {
    Nothing,
    Something,
    Everything,
}

/// Refuses to restore over an instance. The parts of an unfinished restore are none.
fn expect_nothing(stack: &Stack, seen: &Observed) -> Result<()> {
    let has =
        |container: &ContainerState, volume: &Volume| *container != ContainerState::Absent || *volume != Volume::Absent;
    let is_there = has(&seen.influxdb.container, &seen.influxdb.volume)
        || has(&seen.grafana.container, &seen.grafana.volume)
        || seen.network != Network::Free
        || !seen.settings.numbers.is_empty();
    if !is_there || seen.settings.restore.is_some() {
        return Ok(());
    }
    Err(Error::usage(
        format!("there is something of an instance {} on this engine already", stack.instance),
        format!(
            "give another name with --name and other ports, or remove that one with `{}`",
            stack.command("down --volumes")
        ),
    ))
}

/// No older Grafana starts on what a newer one has migrated, and no older InfluxDB reads a newer one's copy.
fn expect_new_enough(stack: &Stack, manifest: &Manifest) -> Result<()> {
    for (role, made_of) in [(Role::Grafana, &manifest.grafana), (Role::Influxdb, &manifest.influxdb)] {
        let image = stack.container(role).map(|spec| &spec.specification.image);
        let (have, need) = (image.and_then(ImageRef::version), Version::parse(made_of));
        if let (Some(image), Some(have), Some(need)) = (image, have, need)
            && have < need
        {
            return Err(Error::usage(
                format!("the archive was made of {} {made_of}, which {image} is too old for", role.title()),
                format!("give a newer one with --{role}-image"),
            ));
        }
    }
    Ok(())
}

/// What is fetched, and touches nothing of the instance.
const fn is_fetched(step: &Step) -> bool {
    matches!(step, Step::PullImage(_) | Step::CheckImage(_))
}

/// Steps of one resource, in this order.
fn steps_of(resource: Resource, steps: Vec<Step>) -> Plan {
    Plan(vec![Item::new(resource, Finding::Requested("to be restored"), steps)])
}

/// Puts the data into the containers that were made.
async fn fill(systems: &Systems, archive: &Arc<Verified>, executed: &mut Vec<ExecutedStep>) -> Result<()> {
    let docker = systems.docker()?;
    // Those that this run made: another run may take the restore over and make its own.
    let (influxdb, grafana) = (systems.container_of(Role::Influxdb)?, systems.container_of(Role::Grafana)?);
    let owner = docker.owner("inspect the container of Grafana", &grafana).await?;
    let database = Target { folder: None, owner, folder_mode: 0o755, file_mode: 0o640 };
    send(docker, &grafana, GRAFANA_VOLUME, archive, Folder::Grafana, database).await?;
    let own = Target { folder: Some(OWN_FOLDER), owner, folder_mode: 0o700, file_mode: 0o400 };
    send(docker, &grafana, GRAFANA_VOLUME, archive, Folder::Own, own).await?;
    if docker.container_id(&systems.stack().instance, Role::Grafana).await?.as_ref() != Some(&grafana) {
        let why = "another run replaced its container".into();
        return Err(Error::Raced { doing: "restore Grafana".into(), why });
    }
    // Which container Grafana gets, and what must be proven before it is published, is decided by what the
    // volume holds now.
    systems
        .apply(&steps_of(Resource::Server(Role::Grafana), vec![Step::RemoveContainer(Role::Grafana)]), executed)
        .await?;
    // Clipper looks for InfluxDB at another port: it would make its database before the data is in.
    let start = vec![Step::StartContainer(Role::Influxdb), Step::AwaitAnswer(Role::Influxdb)];
    systems.apply(&steps_of(Resource::Server(Role::Influxdb), start), executed).await?;
    // Its own user reads and removes what the engine puts there as another.
    let backup =
        Target { folder: Some("clipper-metrics-restore"), owner: (0, 0), folder_mode: 0o777, file_mode: 0o644 };
    send(docker, &influxdb, INFLUXDB_DATA, archive, Folder::Influxdb, backup).await?;
    let doing = "restore InfluxDB's data";
    for (name, holds) in &archive.manifest.databases {
        let command = ["influxd", "restore", "-portable", "-host", INFLUXDB_HOST, "-db", name, INFLUXDB_RESTORE];
        let restored = docker.run_inside(doing, &influxdb, &command).await;
        // InfluxDB counts it as a failure that an empty database brings nothing, and makes it or not.
        if *holds {
            restored?;
        } else {
            systems.influxdb().create_database(name, None).await?;
        }
    }
    docker.run_inside(doing, &influxdb, &["rm", "-rf", INFLUXDB_RESTORE]).await
}

/// Sends a folder of the archive into a container.
async fn send(
    docker: &Docker,
    container: &str,
    path: &str,
    archive: &Arc<Verified>,
    folder: Folder,
    into: Target,
) -> Result<()> {
    let (sink, chunks) = mpsc::channel(WAITING);
    let archive = Arc::clone(archive);
    let reading = tokio::task::spawn_blocking(move || archive.extract(folder, &into, sink));
    let sent = docker.upload(&format!("restore {}", folder.name()), container, path, chunks).await;
    // Why it could not be read says more than that it ended.
    let read = reading.await.map_err(|why| Error::Io {
        doing: "read the archive".into(),
        source: std::io::Error::other(why.to_string()),
    })?;
    read.and(sent)
}

/// What became of a restore that failed.
enum Undone {
    All,
    NotAll,
    /// Another run has begun a restore, or made an instance.
    OfAnotherRun,
}

/// Removes what a restore that failed has made. The note about it, which goes last, is the proof that nothing of the
/// instance belongs to another run.
async fn undo(systems: &Systems) -> Undone {
    let removing = async {
        let seen = systems.observe(Depth::EngineOnly).await?;
        if seen.settings.restore != systems.stack().restore {
            let is_gone = seen.settings.numbers.is_empty() && seen.influxdb.container == ContainerState::Absent;
            return Ok(if is_gone { Undone::All } else { Undone::OfAnotherRun });
        }
        let plan = plan::down(systems.stack(), &seen, true);
        systems.apply(&plan, &mut Vec::new()).await.map(|()| Undone::All)
    };
    match tokio::time::timeout(3 * CLEAN_UP_TIMEOUT, removing).await {
        Ok(Ok(undone)) => undone,
        Ok(Err(_)) | Err(_) => Undone::NotAll,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_names_the_run_that_made_it() {
        let own = format!("{INFLUXDB_DATA}/{}", own_directory());
        let run = run_of(&own).unwrap();
        assert!(run.starts_with(&format!("process {} on ", std::process::id())), "{run}");
        assert_ne!(own_directory(), own_directory(), "each run has its own");
        assert_eq!(run_of("/var/lib/influxdb/clipper-metrics-backup-box-7-8").as_deref(), Some("process 7 on box"));
        for other in ["/var/lib/influxdb/clipper-metrics-backup", "/var/lib/influxdb/data", ""] {
            assert_eq!(run_of(other), None, "{other}");
        }
    }
}
