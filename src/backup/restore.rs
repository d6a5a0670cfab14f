//! Creates an instance from a verified archive.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::archive::{ArchiveFolder, Manifest, RestoreTarget, Verified};
use super::{CLEAN_UP_TIMEOUT, INFLUXDB_DATA, INFLUXDB_HOST, WAITING, expect_containers, machine};
use crate::clock::micros_since_1970;
use crate::engine::Docker;
use crate::engine::files::{OWN_FOLDER, VOLUME};
use crate::error::{Error, Result, Unready};
use crate::model::event::{Event, ExecutedStep};
use crate::model::image::ImageRef;
use crate::model::invocation::typed_option;
use crate::model::observed::{ContainerState, Observed, VolumeState};
use crate::model::plan::{self, BlockReason, Blocker, Question, Resource, Step, UpOptions};
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::stack::{Pull, RestoreRecord, Stack, UnfinishedRestore};
use crate::model::version::Version;
use crate::reconcile::{Connections, Depth, Outcome, Session, up};

/// The directory from which InfluxDB restores its backup, in the data directory.
const INFLUXDB_RESTORE: &str = "clipper-metrics-restore";

/// A restore that this process starts.
#[must_use]
pub(crate) fn new_restore(archive: String, digest: String) -> UnfinishedRestore {
    let process = std::process::id();
    UnfinishedRestore {
        id: format!("{}-{process}", micros_since_1970()),
        archive,
        digest,
        machine: machine(),
        process,
        process_space: process_space(),
        retention: None,
    }
}

/// The stack of an instance that this restore creates. An unconfirmed period is not remembered, so that an `up` that
/// finishes the restore needs the archive's.
#[must_use]
pub(crate) fn restoring(mut stack: Stack, restore: UnfinishedRestore) -> Stack {
    let remembered = stack.settings.as_ref().and_then(|settings| settings.values.get(Retention::SETTING));
    // Without Clipper's file, a value that an earlier file supplied is the archive's.
    let is_in_file = stack.clipper.is_some() && remembered.is_some_and(|one| one.from_file);
    if let Some(retention) = stack.retention.filter(|_| !is_in_file) {
        stack.invocation = stack.invocation.with_setting_for_up(Retention::SETTING, &retention.typed());
    }
    stack.restore = Some(restore);
    if let Some(settings) = &mut stack.settings {
        // The end of the restore stores them.
        settings.merged_from = Some(settings.keep_retention(None));
    }
    stack
}

/// Whether a restore may still be running: it was started on another machine or in another container, or its process is
/// alive.
fn may_run(restore: &UnfinishedRestore) -> bool {
    let own = machine();
    own.is_empty()
        || restore.machine != own
        || (!restore.process_space.is_empty() && restore.process_space != process_space())
        || (restore.process != std::process::id() && process_lives(restore.process))
}

/// The kernel's name for the space of this process's id: containers of one machine can have its name. Empty on systems
/// without such spaces.
fn process_space() -> String {
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    space.to_string_lossy().into_owned()
}

/// Whether a process exists on this machine, possibly of another user. Its id may have been reused.
#[cfg(unix)]
fn process_lives(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let tested = process.map(rustix::process::test_kill_process);
    matches!(tested, Some(Ok(()) | Err(rustix::io::Errno::PERM)))
}

/// Processes are not checked on other systems; the lock keeps this user's runs apart.
#[cfg(not(unix))]
fn process_lives(_: u32) -> bool {
    true
}

/// A sentence about an unfinished restore that may still be running.
fn running_restore(stack: &Stack, record: &RestoreRecord) -> Option<String> {
    let UnfinishedRestore { archive, machine, process, .. } =
        record.replaced.as_ref().filter(|restore| may_run(restore))?;
    let run = if machine.is_empty() {
        "another run of clipper-metrics".into()
    } else {
        format!("process {process} on {machine}")
    };
    Some(format!("the restore of {archive} into {}, started by {run}, may still be running", stack.instance))
}

/// Creates an instance from a verified file. `take_over` is called before an unfinished restore
/// that may still be running is replaced, `trust` before anything is created, and `confirm` as in
/// [`up`].
///
/// # Errors
/// [`Error::Blocked`] or [`Error::Usage`] if an instance of that name exists or something else
/// blocks it. After a failure or interruption before all data is restored, everything created is
/// removed again; afterwards the instance stays, and [`up`] finishes it. A killed run leaves
/// a record, with which only another restore can continue.
pub(crate) async fn restore(
    session: &Session,
    archive: &Arc<Verified>,
    record: &RestoreRecord,
    take_over: impl AsyncFnOnce(&str) -> Result<()>,
    trust: impl AsyncFnOnce() -> Result<()>,
    confirm: impl AsyncFn(&Question) -> Result<()>,
    stop: impl Future<Output = ()>,
) -> Result<Outcome> {
    let stack = session.stack();
    let mut executed = Vec::new();
    let mut progress = RestoreProgress::Nothing;
    let mut connections = session.connect();
    let making = async {
        expect_containers(stack, "restore")?;
        let seen = session.observe(&mut connections, Depth::EngineOnly).await?;
        expect_nothing(stack, &seen)?;
        expect_new_enough(stack, &archive.manifest)?;
        let options = UpOptions { pull: stack.pull == Pull::Always, ..UpOptions::default() };
        let plan = plan::up(&before_restore(stack), &plan::without_instance(&seen), options);
        if let Some((resource, blocker)) = plan.blocker() {
            return Err(Error::Blocked { resource, blocker: blocker.clone() });
        }
        if let Some(run) = running_restore(stack, record) {
            take_over(&run).await?;
        }
        trust().await?;
        session.apply(&plan.only(is_fetched), &mut connections, &mut executed).await?;
        // The verification may have taken long.
        expect_nothing(stack, &session.observe(&mut connections, Depth::EngineOnly).await?)?;
        progress = RestoreProgress::Something;
        session.apply(&plan::begin_restore(record), &mut connections, &mut executed).await?;
        let left = session.observe(&mut connections, Depth::EngineOnly).await?;
        let removal = plan::remove_unfinished(stack, &left);
        if let Some((resource, blocker)) = removal.blocker() {
            return Err(Error::Blocked { resource, blocker: blocker.clone() });
        }
        session.apply(&removal, &mut connections, &mut executed).await?;
        session.apply(&plan::make_for_restore(stack, &left), &mut connections, &mut executed).await?;
        fill(session, archive, &mut connections, &mut executed).await?;
        progress = RestoreProgress::Data;
        session.apply(&plan::finish_restore(record), &mut connections, &mut executed).await?;
        progress = RestoreProgress::Everything;
        let mut outcome = Box::pin(up(session, UpOptions::default(), confirm)).await?;
        executed.append(&mut outcome.executed);
        Ok(outcome.status)
    };
    let result = tokio::select! {
        biased;
        result = making => result,
        () = stop => Err(Error::Interrupted { hint: String::new() }),
    };
    match result {
        Ok(status) => Ok(Outcome { executed, status }),
        Err(error) => Err(after_failure(session, progress, error).await),
    }
}

/// Undoes a failed restore, and adds to its error what is left.
async fn after_failure(session: &Session, progress: RestoreProgress, error: Error) -> Error {
    let left = match progress {
        RestoreProgress::Nothing => Left::Nothing,
        RestoreProgress::Something | RestoreProgress::Data => match undo(session).await {
            Undone::All => Left::Removed,
            Undone::NoRecord if matches!(progress, RestoreProgress::Data) => Left::AllData,
            Undone::NoRecord | Undone::OfAnotherRun => Left::OfAnotherRun,
            Undone::NotAll => Left::Parts,
        },
        RestoreProgress::Everything => {
            // The abandoned step may have been checking an address.
            let _ = tokio::time::timeout(CLEAN_UP_TIMEOUT, session.finish_changes()).await;
            Left::AllData
        }
    };
    let (error, warning) = explained(session.stack(), left, error);
    if let Some(warning) = warning {
        session.listener().on(Event::Warning(&warning));
    }
    error
}

/// The state after a failed restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing was created.
    Nothing,
    /// Everything created was removed.
    Removed,
    Parts,
    OfAnotherRun,
    /// The instance, with all data.
    AllData,
}

impl Left {
    fn describe(self, stack: &Stack) -> String {
        match self {
            Self::Nothing => "nothing was created: run the same command again".into(),
            Self::Removed => "everything created was removed".into(),
            Self::Parts => format!("parts of it remain: `{}` removes them", stack.command("down --volumes")),
            Self::OfAnotherRun => {
                format!("another run is working on {}: `{}` shows its state", stack.instance, stack.command("status"))
            }
            Self::AllData => format!("all data is restored: `{}` finishes it", stack.command("up")),
        }
    }
}

/// The error of a failed restore with a hint that fits what is left, and a warning about it.
fn explained(stack: &Stack, left: Left, error: Error) -> (Error, Option<String>) {
    let description = left.describe(stack);
    match error {
        Error::Interrupted { .. } => (Error::Interrupted { hint: description }, None),
        // The restore cannot be repeated, as its own hint would say.
        Error::Blocked { resource, blocker } if left == Left::AllData && blocker.kind == BlockReason::Changed => {
            let [status, up] = ["status", "up"].map(|verb| stack.command(verb));
            let hint = format!("`{status}` shows what is left; if that is the instance, `{up}` continues with it");
            (Error::Blocked { resource, blocker: Blocker { hint, ..blocker } }, None)
        }
        Error::NotConfirmed { message, .. } if left == Left::AllData => {
            let hint = format!("all data is restored: `{}` confirms it", stack.command("up --yes"));
            (Error::NotConfirmed { message, hint }, None)
        }
        error => (with_fitting_hint(stack, left, error), (left != Left::Nothing).then_some(description)),
    }
}

fn with_fitting_hint(stack: &Stack, left: Left, error: Error) -> Error {
    // With its record, parts of it do not prevent the same restore.
    let is_undone = matches!(left, Left::Removed | Left::Parts);
    let invocation = if is_undone { before_restore(stack).invocation } else { stack.invocation.clone() };
    match error {
        // Its hint needs the instance's name, which the archive may have supplied.
        Error::Publish { role, .. } => {
            let blocker =
                Blocker { kind: BlockReason::PortTaken, why: error.to_string(), hint: error.hint(&invocation) };
            Error::Blocked { resource: Resource::Server(role), blocker }
        }
        Error::NotReady { role, why, cause, log, .. } if is_undone => {
            let hint = match cause {
                Unready::Late => {
                    let longer = humantime::format_duration(stack.longer_timeout()).to_string();
                    format!("`{}` waits longer", invocation.create(&typed_option("--timeout", &longer)))
                }
                Unready::Failed => format!(
                    "remove the cause, or choose another image with --{role}-image, then run `{}`",
                    invocation.create("")
                ),
                Unready::Engine(refusal) => refusal.hint(&invocation),
            };
            Error::NotReady { role, why, cause, log, hint }
        }
        Error::Blocked { resource, blocker: Blocker { kind: BlockReason::Unverifiable, why, .. } } if is_undone => {
            let hint = format!(
                "if the engine runs on this machine, run `{}`; otherwise copy the file to the engine's host and \
                 restore it there",
                invocation.create("")
            );
            Error::Blocked { resource, blocker: Blocker { kind: BlockReason::Unverifiable, why, hint } }
        }
        error => error,
    }
}

/// The stack while there is no instance yet that `up` could change: suggested commands repeat the restore.
fn before_restore(stack: &Stack) -> Stack {
    let mut stack = stack.clone();
    if let Some(settings) = &mut stack.settings {
        settings.merged_from = None;
    }
    if let Some(restore) = &stack.restore {
        stack.invocation = stack.invocation.restoring(Path::new(&restore.archive));
    }
    stack
}

#[derive(Clone, Copy)]
enum RestoreProgress {
    Nothing,
    Something,
    /// All data is restored; the end may be recorded.
    Data,
    Everything,
}

/// Refuses to restore over an existing instance. The parts of an unfinished restore do not count as one, nor does a
/// network that `down --volumes` kept for other containers. The plan refuses objects of other owners.
fn expect_nothing(stack: &Stack, seen: &Observed) -> Result<()> {
    let has = |role: Role| {
        let server = seen.server(role);
        server.container.ours().is_some() || matches!(server.volume, VolumeState::Ours { .. })
    };
    let is_there = Role::ALL.into_iter().any(has) || !seen.settings.numbers.is_empty();
    if !is_there || seen.settings.restore.is_some() {
        return Ok(());
    }
    Err(Error::usage(
        format!("an instance {} already exists on this engine, at least in part", stack.instance),
        format!(
            "choose another --name and other ports, or remove the existing one with `{}`",
            stack.command("down --volumes")
        ),
    ))
}

/// Refuses an older Grafana, which must not start on a migrated database, and an older InfluxDB,
/// which cannot read the copy.
fn expect_new_enough(stack: &Stack, manifest: &Manifest) -> Result<()> {
    for (role, made_of) in [(Role::Grafana, &manifest.grafana), (Role::Influxdb, &manifest.influxdb)] {
        let image = stack.container(role).map(|spec| &spec.config.image);
        let (actual, need) = (image.and_then(ImageRef::version), Version::parse(made_of));
        if let (Some(image), Some(actual), Some(need)) = (image, actual, need)
            && actual < need
        {
            return Err(Error::usage(
                format!("the archive was created from {} {made_of}, and {image} is too old for it", role.title()),
                format!("choose a newer image with --{role}-image"),
            ));
        }
    }
    Ok(())
}

/// Whether a step only fetches something and changes nothing of the instance.
const fn is_fetched(step: &Step) -> bool {
    matches!(step, Step::PullImage(_))
}

/// Restores the data into the created containers.
async fn fill(
    session: &Session,
    archive: &Arc<Verified>,
    connections: &mut Connections,
    executed: &mut Vec<ExecutedStep>,
) -> Result<()> {
    let (stack, docker) = (session.stack(), session.docker()?);
    // Only the containers of this run: another run may take over the restore and create its own.
    let influxdb = connections.influxdb.container()?.to_string();
    let grafana = connections.grafana.container()?.to_string();
    let owner = docker.owner("inspect the container of Grafana", &grafana).await?;
    let database = RestoreTarget { folder: None, owner, folder_mode: 0o755, file_mode: 0o640 };
    send(docker, &grafana, VOLUME, archive, ArchiveFolder::Grafana, database).await?;
    let own = RestoreTarget { folder: Some(OWN_FOLDER), owner, folder_mode: 0o700, file_mode: 0o400 };
    send(docker, &grafana, VOLUME, archive, ArchiveFolder::Own, own).await?;
    let seen = session.observe(connections, Depth::EngineOnly).await?;
    if seen.grafana.container.ours().is_none_or(|actual| actual.id != grafana) {
        let why = "another run replaced its container".into();
        return Err(Error::Raced { doing: "restore Grafana".into(), why });
    }
    let archived = Version::parse(&archive.manifest.grafana);
    session.apply(&plan::correct_version(stack, &seen, archived), connections, executed).await?;
    session.apply(&plan::remove_restored_grafana(), connections, executed).await?;
    session.apply(&plan::start_private_influxdb(), connections, executed).await?;
    // The server's own user reads and removes files that the engine creates as another user.
    let backup = RestoreTarget { folder: Some(INFLUXDB_RESTORE), owner: (0, 0), folder_mode: 0o777, file_mode: 0o644 };
    send(docker, &influxdb, INFLUXDB_DATA, archive, ArchiveFolder::Influxdb, backup).await?;
    let doing = "restore InfluxDB's data";
    let directory = format!("{INFLUXDB_DATA}/{INFLUXDB_RESTORE}");
    for (name, holds) in &archive.manifest.databases {
        let command = ["influxd", "restore", "-portable", "-host", INFLUXDB_HOST, "-db", name, &directory];
        let restored = docker.run_inside(doing, &influxdb, &command).await;
        // For InfluxDB, restoring an empty database is a failure, after which the database may or
        // may not exist.
        if *holds {
            restored?;
        } else {
            // An empty database loses nothing by a shorter period.
            let retention = stack.retention.filter(|_| *name == stack.database);
            session.influxdb(&connections.influxdb).create_database(name, retention).await?;
        }
    }
    docker.run_inside(doing, &influxdb, &["rm", "-rf", &directory]).await
}

/// Sends a folder of the archive to a container.
async fn send(
    docker: &Docker,
    container: &str,
    path: &str,
    archive: &Arc<Verified>,
    folder: ArchiveFolder,
    into: RestoreTarget,
) -> Result<()> {
    let (sink, chunks) = mpsc::channel(WAITING);
    let archive = Arc::clone(archive);
    let reading = tokio::task::spawn_blocking(move || archive.extract(folder, &into, sink));
    let sent = docker.upload(&format!("restore {}", folder.name()), container, path, chunks).await;
    // A read error is more specific than the end of the stream.
    let read = reading.await.map_err(|why| Error::Io {
        doing: "read the archive".into(),
        source: std::io::Error::other(why.to_string()),
    })?;
    read.and(sent)
}

/// The result of undoing a failed restore.
enum Undone {
    All,
    NotAll,
    /// An instance exists, and no restore is recorded.
    NoRecord,
    /// Another run has started a restore.
    OfAnotherRun,
}

/// Removes everything that a failed restore created. Its record is removed last; it proves that the
/// instance's objects do not belong to another run.
async fn undo(session: &Session) -> Undone {
    let removing = async {
        session.docker()?.finish_changes().await;
        let mut connections = session.connect();
        let seen = session.observe(&mut connections, Depth::EngineOnly).await?;
        if seen.settings.restore != session.stack().restore {
            let is_gone = seen.settings.numbers.is_empty() && seen.influxdb.container == ContainerState::Absent;
            return Ok(match seen.settings.restore {
                _ if is_gone => Undone::All,
                None => Undone::NoRecord,
                Some(_) => Undone::OfAnotherRun,
            });
        }
        let plan = plan::down(session.stack(), &seen, true);
        if plan.blocker().is_some() {
            return Ok(Undone::NotAll);
        }
        session.apply(&plan, &mut connections, &mut Vec::new()).await?;
        Ok::<_, Error>(Undone::All)
    };
    match tokio::time::timeout(3 * CLEAN_UP_TIMEOUT, removing).await {
        Ok(Ok(undone)) => undone,
        Ok(Err(_)) | Err(_) => Undone::NotAll,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;
    use crate::model::observed::PortHolder;
    use crate::samples;

    fn stack() -> Stack {
        restoring(samples::stack(), new_restore("/a backup".into(), "digest".into()))
    }

    fn hint(left: Left, error: Error) -> String {
        let stack = stack();
        explained(&stack, left, error).0.hint(&stack.invocation)
    }

    fn not_ready(cause: Unready) -> Error {
        let hint = "`up`, `logs` and `down`".into();
        Error::NotReady { role: Role::Influxdb, why: "x".into(), cause, log: vec![], hint }
    }

    #[test]
    fn the_hint_after_an_undone_restore_is_the_restore_again() {
        let late = hint(Left::Removed, not_ready(Unready::Late));
        assert_eq!(late, "`clipper-metrics restore '/a backup' --timeout 10m` waits longer");
        let failed = hint(Left::Removed, not_ready(Unready::Failed));
        assert!(failed.contains("--influxdb-image, then run `clipper-metrics restore '/a backup'`"), "{failed}");
        let disk = hint(Left::Removed, not_ready(Unready::Engine(Refusal::Disk)));
        assert!(disk.contains("free space") && disk.contains("run the same command again"), "{disk}");
        let taken = |left| {
            let holder = PortHolder::Process;
            let address = ([127, 0, 0, 1], 1).into();
            hint(left, Error::Publish { role: Role::Influxdb, address, holder, answers: None, free: Some(2) })
        };
        let removed = taken(Left::Removed);
        assert!(removed.contains("`clipper-metrics restore '/a backup' --influxdb-port 2`"), "{removed}");
        assert!(taken(Left::AllData).contains("`clipper-metrics up --influxdb-port 2`"), "{}", taken(Left::AllData));
        let blocker = plan::not_the_container(&stack(), Role::Influxdb, "http://127.0.0.1:1");
        let other = hint(Left::Removed, Error::Blocked { resource: Resource::Server(Role::Influxdb), blocker });
        assert!(other.contains("run `clipper-metrics restore '/a backup'`"), "{other}");
        for hint in [late, failed, disk, removed, other] {
            let forbidden = ["metrics up", "logs", "down", "docker run"];
            assert!(!forbidden.iter().any(|word| hint.contains(word)), "{hint}");
        }
        // Data that stays is not restored again.
        assert_eq!(hint(Left::AllData, not_ready(Unready::Late)), "`up`, `logs` and `down`");
    }

    #[test]
    fn every_up_that_finishes_a_restore_repeats_its_retention() {
        let retention = Some(Retention::For(std::time::Duration::from_secs(7200)));
        let stack = restoring(Stack { retention, ..samples::stack() }, new_restore("/a".into(), String::new()));
        let holder = PortHolder::Process;
        let address = ([127, 0, 0, 1], 1).into();
        let publish = Error::Publish { role: Role::Influxdb, address, holder, answers: None, free: Some(2) };
        let (error, warning) = explained(&stack, Left::AllData, publish);
        let hint = error.hint(&stack.invocation);
        assert!(hint.contains("`clipper-metrics up --influxdb-port 2 --retention 2h`"), "{hint}");
        let finishes = "all data is restored: `clipper-metrics up --retention 2h` finishes it";
        assert_eq!(warning.as_deref(), Some(finishes));
        // A declined confirmation has one command.
        let declined = Error::NotConfirmed { message: "x".into(), hint: "y".into() };
        let (error, warning) = explained(&stack, Left::AllData, declined);
        let confirms = "all data is restored: `clipper-metrics up --yes --retention 2h` confirms it";
        assert_eq!((error.hint(&stack.invocation).as_str(), warning), (confirms, None));
        // The archive contains it.
        assert_eq!(before_restore(&stack).invocation.create(""), "clipper-metrics restore /a");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_restore_in_another_container_of_this_machine_may_still_run() {
        let own = new_restore("/a".into(), String::new());
        assert!(!may_run(&own));
        let there = UnfinishedRestore { process_space: "pid:[7]".into(), ..own.clone() };
        assert!(may_run(&there), "its process can have the same id");
        let unknown = UnfinishedRestore { process_space: String::new(), ..own };
        assert!(!may_run(&unknown));
    }

    #[test]
    fn a_retention_of_this_run_is_repeated_once() {
        let invocation = crate::model::invocation::Invocation::default();
        let invocation = invocation.with_setting_for_up("retention", "1h").with_setting_for_up("retention", "2h");
        assert_eq!(invocation.command("up"), "clipper-metrics up --retention 1h");
    }
}
