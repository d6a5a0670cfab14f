//! `backup` and `restore`: saves an instance to one file, and creates one from such a file.
//!
//! InfluxDB is copied with its own portable backup, and Grafana's database and password while its container is
//! paused. An interrupted backup leaves nothing behind.

pub mod archive;
mod restore;

use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::error::Elapsed;

use self::archive::{ArchiveFolder, Manifest, Part};
pub(crate) use self::restore::{new_restore, restore, restoring};
use crate::clock::{micros_since_1970, now};
use crate::engine::Docker;
use crate::engine::files::{DATABASE_FILES, OWN_FOLDER, VOLUME};
use crate::error::{Error, Refusal, Result};
use crate::influxdb::activity::INTERNAL;
use crate::model::event::Event;
use crate::model::image::ImageRef;
use crate::model::invocation::shell_path;
use crate::model::last_run::LastRun;
use crate::model::native::{System, package};
use crate::model::observed::{Observed, RunState};
use crate::model::results::BackedUp;
use crate::model::role::Role;
use crate::model::schema::{SchemaVersion, Seconds};
use crate::model::stack::{DesiredContainer, Remembered, Stack};
use crate::model::text::printable;
use crate::model::upgrade::Upgrade;
use crate::reconcile::{Connections, Depth, Session, expect_instance, expect_known_settings, expect_restored};

/// The prefix of the directory for InfluxDB's own backup while it is copied. Every run has its own
/// in the data directory, because the root is read-only.
const INFLUXDB_BACKUP: &str = "clipper-metrics-backup";
/// How often a run updates the time of its directory.
const TOUCHED_EVERY: Duration = Duration::from_secs(60);
/// A directory that is older than this was left by a killed run: in minutes, for `find -mmin`.
const LEFT_AFTER: &str = "+10";
const INFLUXDB_DATA: &str = Role::Influxdb.data_path();
/// The address of the server for `influxd backup` and `influxd restore`.
const INFLUXDB_HOST: &str = "127.0.0.1:8088";
/// The number of chunks waiting to be written.
const WAITING: usize = 8;
/// The time limit of each cleanup action.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(20);

/// Saves a running instance to a file.
///
/// # Errors
/// [`Error::Usage`] if a server is external, [`Error::Absent`] if one does not run,
/// [`Error::Interrupted`] if `stop` completes first, otherwise the error that occurred. After an
/// error, the file does not exist.
pub(crate) async fn backup(session: &Session, file: &Path, stop: impl Future<Output = ()>) -> Result<BackedUp> {
    let started = Instant::now();
    let mut begun = Begun::default();
    let result = tokio::select! {
        biased;
        result = make(session, file, &mut begun) => result,
        () = stop => Err(Error::Interrupted { hint: "nothing was written: run the same command again".into() }),
    };
    let Begun { paused, copy, writing, manifest } = begun;
    // Before the file is finished: its disk may hang, and Grafana must not wait for it.
    clean_up(session, paused, copy).await;
    let written = match writing {
        Some(writing) => tokio::time::timeout(CLEAN_UP_TIMEOUT, writing).await,
        None => Ok(Ok(Err(Error::Interrupted { hint: String::new() }))),
    };
    let (bytes, manifest) = match (result, written, manifest) {
        (Ok(done), ..) => done,
        // The interruption came after everything was sent.
        (Err(Error::Interrupted { .. }), Ok(Ok(Ok(bytes))), Some(manifest)) => (bytes, manifest),
        (Err(error), written, _) => {
            if written.is_err() {
                let file = file.display();
                session
                    .listener()
                    .on(Event::Warning(&format!("{file}, or a file next to it that ends in .partial, may remain")));
            }
            return Err(error);
        }
    };
    Ok(BackedUp {
        schema: SchemaVersion,
        file: file.to_string_lossy().into_owned(),
        bytes,
        seconds: Seconds(started.elapsed()),
        instance: manifest.instance,
        influxdb: manifest.influxdb,
        grafana: manifest.grafana,
        restore: session.stack().command(&format!(
            "restore {} --name {:.38}-2",
            shell_path(file),
            session.stack().instance
        )),
    })
}

/// Resources to release, however a backup ends.
#[derive(Default)]
struct Begun {
    /// Grafana's container, from the request to pause it until it runs again.
    paused: Option<String>,
    /// InfluxDB's container, and this run's directory in it.
    copy: Option<(String, String)>,
    writing: Option<JoinHandle<Result<u64>>>,
    manifest: Option<Manifest>,
}

async fn make(session: &Session, file: &Path, begun: &mut Begun) -> Result<(u64, Manifest)> {
    let stack = session.stack();
    expect_known_settings(stack)?;
    expect_containers(stack, "backup")?;
    archive::expect_free(file)?;
    let mut connections = session.connect();
    let seen = session.observe(&mut connections, Depth::Servers).await?;
    expect_restored(stack, &seen)?;
    expect_instance(stack, &seen)?;
    let influxdb = running(stack, &seen, Role::Influxdb)?;
    if let Some(actual) = seen.grafana.container.ours().filter(|actual| actual.run == RunState::Paused) {
        return Err(paused_by_another(session, &influxdb, &actual.name).await);
    }
    let ids = [influxdb, running(stack, &seen, Role::Grafana)?];
    let manifest = describe(session, &connections, &seen).await?;
    // A file that cannot be created is detected before any work on the servers.
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
        // It ends before everything was sent only if it fails.
        written = &mut *writing => {
            begun.writing = None;
            let bytes = written.unwrap_or_else(|why| Err(failed(why)))?;
            return Ok((bytes, manifest));
        }
        copied = copy(session, &ids, &directory, &mut begun.paused, &parts) => copied,
        never = keep_touching(session.docker()?, &ids[0], &directory) => match never {},
    };
    // Without its end, the file is removed again.
    drop(parts);
    copied?;
    let written = writing.await;
    begun.writing = None;
    Ok((written.unwrap_or_else(|why| Err(failed(why)))?, manifest))
}

/// The archive's description of the instance.
async fn describe(session: &Session, connections: &Connections, seen: &Observed) -> Result<Manifest> {
    let stack = session.stack();
    let databases = session.influxdb(&connections.influxdb).databases().await?;
    // If the settings are lost, their substitutes from the containers.
    let known = stack.settings.as_ref().map(|settings| &settings.values);
    let mut settings = seen.settings.values.as_ref().or(known).cloned().unwrap_or_default();
    if let (Some(spec), Some(_)) = (stack.container(Role::Grafana), &stack.failed_image) {
        let image = archived_image(spec, seen.grafana.version.as_deref()).unwrap_or_else(|| {
            session.listener().on(Event::Warning(&format!(
                "a newer image called {} failed here, and the archive names it: choose an image with --grafana-image \
                 when you restore it",
                spec.config.image
            )));
            spec.config.image.clone()
        });
        let image = Remembered { value: image.to_string(), from_file: false };
        settings.insert(Upgrade::SETTING.into(), image);
    }
    let grafana = seen.grafana.version.clone();
    Ok(Manifest {
        instance: stack.instance.clone(),
        made_at: now(),
        settings,
        database: stack.database.clone(),
        databases: databases.into_iter().filter(|name| name != INTERNAL).map(|name| (name, false)).collect(),
        influxdb: seen.influxdb.version.clone().unwrap_or_default(),
        grafana: grafana.or(LastRun::of(&seen.grafana, None).recorded.map(|ran| ran.to_string())).unwrap_or_default(),
    })
}

/// The image that the restored instance runs: the current one, not one that failed here. A pinned image has the same
/// name as that one, so only its version can name it.
fn archived_image(spec: &DesiredContainer, version: Option<&str>) -> Option<ImageRef> {
    let image = &spec.config.image;
    if spec.pinned_image.is_some() { image.of_version(version?) } else { Some(image.clone()) }
}

fn expect_containers(stack: &Stack, verb: &str) -> Result<()> {
    for role in Role::ALL {
        if stack.container(role).is_none() {
            return Err(Error::usage(
                format!("{verb} is for managed containers, but {} is external", role.title()),
                package(role, System::HERE).backup_advice,
            ));
        }
    }
    Ok(())
}

/// The engine's id of a role's running container.
fn running(stack: &Stack, seen: &Observed, role: Role) -> Result<String> {
    let seen = seen.server(role);
    // Grafana is copied even if it rejects the login.
    let answers = role == Role::Grafana || seen.response.state().is_some();
    match seen.container.ours() {
        Some(actual) if actual.run == RunState::Running && answers => Ok(actual.id.clone()),
        Some(actual) if actual.run == RunState::Running => Err(Error::Absent {
            what: format!("{} runs, but clipper-metrics cannot read from it, which a backup needs", role.title()),
            hint: format!("`{}` shows the cause", stack.command("status")),
        }),
        _ => Err(Error::Absent {
            what: format!("{} is not running, but a backup needs both servers to run", role.title()),
            hint: format!("start it with `{}`", stack.command("up")),
        }),
    }
}

/// The name of a run's directory, which contains its machine and process.
fn own_directory() -> String {
    let host: String = machine().chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    format!("{INFLUXDB_BACKUP}-{host}-{}-{}", std::process::id(), micros_since_1970())
}

/// The run that created a directory, in words.
fn run_of(directory: &str) -> Option<String> {
    let name = directory.rsplit('/').next()?.strip_prefix(INFLUXDB_BACKUP)?.strip_prefix('-')?;
    let [host, process, _] = name.split('-').collect::<Vec<_>>()[..] else { return None };
    Some(format!("process {process} on {host}"))
}

/// Keeps updating a directory's time, so that other runs do not remove it as a leftover.
async fn keep_touching(docker: &Docker, influxdb: &str, directory: &str) -> Infallible {
    let mut ticks = tokio::time::interval(TOUCHED_EVERY);
    loop {
        ticks.tick().await;
        // If this fails, the copy fails as well, with a reason.
        let _ = docker.run_inside("touch the copy of InfluxDB's data", influxdb, &["touch", "-c", directory]).await;
    }
}

/// The error if Grafana is paused, but not by this run.
async fn paused_by_another(session: &Session, influxdb: &str, grafana: &str) -> Error {
    let (stack, doing) = (session.stack(), "look for other backups");
    let name = format!("{INFLUXDB_BACKUP}-*");
    let find = ["find", INFLUXDB_DATA, "-maxdepth", "1", "-name", &name, "!", "-mmin", LEFT_AFTER];
    let found = match session.docker() {
        Ok(docker) => docker.read_inside(doing, influxdb, &find).await.unwrap_or_default(),
        Err(_) => String::new(),
    };
    let runs: Vec<String> = found.lines().filter_map(|path| run_of(&printable(path))).collect();
    let up = stack.command("up");
    let (by, hint) = if runs.is_empty() {
        (String::new(), format!("unpause it with `{up}`, then run the same command again"))
    } else {
        let by = format!(", and another backup of {} is running: {}", stack.instance, runs.join(", "));
        (
            by,
            format!(
                "run the same command again after it has ended; if it was killed, unpause Grafana with `{up}` first"
            ),
        )
    };
    Error::Absent { what: format!("container {grafana} is paused{by}"), hint }
}

/// Sends all data.
async fn copy(
    session: &Session,
    [influxdb, grafana]: &[String; 2],
    directory: &str,
    paused: &mut Option<String>,
    parts: &mpsc::Sender<Part>,
) -> Result<()> {
    let docker = session.docker()?;
    let doing = "copy InfluxDB's data";
    // Removes leftovers of killed runs. A failure here does not affect the backup.
    let left = format!("{INFLUXDB_BACKUP}*");
    let find = ["find", INFLUXDB_DATA, "-maxdepth", "1", "-name", &left, "-mmin", LEFT_AFTER];
    let _ = docker.run_inside(doing, influxdb, &[&find[..], &["-exec", "rm", "-rf", "{}", "+"]].concat()).await;
    docker.run_inside(doing, influxdb, &["mkdir", "-m", "0700", directory]).await?;
    // A backup that a busy engine starts only after the cleanup finds no directory, and fails.
    let run = "cd \"$0\" && exec influxd backup -portable -host \"$1\" .";
    docker.run_inside(doing, influxdb, &["sh", "-c", run, directory, INFLUXDB_HOST]).await?;
    if !download(docker, doing, influxdb, directory, ArchiveFolder::Influxdb, parts).await? {
        return Err(changed(doing, "another process removed the copy or its container"));
    }
    let doing = "copy Grafana's data";
    pause(session, [influxdb, grafana], doing, paused).await?;
    // Together with the database, because another run may change the password in both.
    download(docker, doing, grafana, &format!("{VOLUME}/{OWN_FOLDER}"), ArchiveFolder::Own, parts).await?;
    for name in DATABASE_FILES {
        let is_there =
            download(docker, doing, grafana, &format!("{VOLUME}/{name}"), ArchiveFolder::Grafana, parts).await?;
        if !is_there && name == DATABASE_FILES[0] {
            return Err(changed(doing, "its volume contains no grafana.db, or another process removed its container"));
        }
    }
    // The copy of a database is inconsistent if Grafana writes in the meantime.
    if !is_paused(docker, grafana).await? {
        return Err(changed(doing, "another process unpaused its container in the meantime"));
    }
    docker.unpause_container(Role::Grafana, grafana).await?;
    *paused = None;
    let _ = parts.send(Part::End).await;
    Ok(())
}

fn changed(doing: &str, why: &str) -> Error {
    Error::Raced { doing: doing.into(), why: why.into() }
}

async fn is_paused(docker: &Docker, grafana: &str) -> Result<bool> {
    let info = docker.run_info(Role::Grafana, grafana).await?;
    Ok(info.is_some_and(|info| info.run == RunState::Paused))
}

/// Pauses Grafana, unless another process has paused it.
async fn pause(
    session: &Session,
    [influxdb, grafana]: [&str; 2],
    doing: &str,
    paused: &mut Option<String>,
) -> Result<()> {
    let docker = session.docker()?;
    // Set before the answer, because an interruption may come first.
    *paused = Some(grafana.to_string());
    match docker.pause_container(Role::Grafana, grafana).await {
        // According to the engine, the container was not paused.
        Err(error @ Error::Docker { refusal, .. }) if refusal != Refusal::Gone => {
            *paused = None;
            if is_paused(docker, grafana).await? {
                let name = Role::Grafana.object_name(&session.stack().instance);
                return Err(paused_by_another(session, influxdb, &name).await);
            }
            let was_paused = refusal == Refusal::Conflict;
            Err(if was_paused { changed(doing, "another process paused its container in the meantime") } else { error })
        }
        result => result,
    }
}

/// Sends the files under a path of a container; returns `false` if the path does not exist. Stops
/// early if the archive is no longer written.
async fn download(
    docker: &Docker,
    doing: &str,
    container: &str,
    path: &str,
    below: ArchiveFolder,
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

/// Unpauses what this run paused, and removes its copy. In containers that were removed, there is
/// nothing to clean up.
async fn clean_up(session: &Session, paused: Option<String>, copy: Option<(String, String)>) {
    let Ok(docker) = session.docker() else { return };
    let is_done = |result: std::result::Result<Result<()>, Elapsed>| {
        matches!(result, Ok(Ok(()) | Err(Error::Docker { refusal: Refusal::NotFound, .. })))
    };
    if let Some(grafana) = paused {
        let waking = async {
            docker.finish_changes().await;
            docker.unpause_container(Role::Grafana, &grafana).await
        };
        if !is_done(tokio::time::timeout(CLEAN_UP_TIMEOUT, waking).await) {
            let up = session.stack().command("up");
            session
                .listener()
                .on(Event::Warning(&format!("Grafana's container may still be paused; `{up}` unpauses it")));
        }
    }
    if let Some((influxdb, directory)) = copy {
        let remove = ["rm", "-rf", &directory];
        let removing = docker.run_inside("remove the copy", &influxdb, &remove);
        if !is_done(tokio::time::timeout(CLEAN_UP_TIMEOUT, removing).await) {
            let why = "a copy may remain in InfluxDB's volume; a backup after ten minutes removes it";
            session.listener().on(Event::Warning(why));
        }
    }
}

/// The name of this machine; empty if the system does not report it.
fn machine() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_names_the_run_that_created_it() {
        let own = format!("{INFLUXDB_DATA}/{}", own_directory());
        let run = run_of(&own).unwrap();
        assert!(run.starts_with(&format!("process {} on ", std::process::id())), "{run}");
        assert_eq!(run_of("/var/lib/influxdb/clipper-metrics-backup-box-7-8").as_deref(), Some("process 7 on box"));
        for other in ["/var/lib/influxdb/clipper-metrics-backup", "/var/lib/influxdb/data", ""] {
            assert_eq!(run_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_pinned_image_is_archived_by_its_version() {
        let mut spec = crate::samples::desired_container(Role::Grafana);
        let mut archived = |image: &str, is_pinned: bool, version| {
            spec.config.image = ImageRef::parse(image).unwrap();
            spec.pinned_image = is_pinned.then(|| "id".into());
            archived_image(&spec, version).map(|image| image.to_string())
        };
        let [moving, exact] = ["grafana/grafana:latest", "grafana/grafana:12.4.10"];
        assert_eq!(archived(moving, false, Some("12.4.10")).as_deref(), Some(moving));
        assert_eq!(archived(moving, true, Some("12.4.10")).as_deref(), Some(exact));
        assert_eq!(archived(moving, true, None), None);
        assert_eq!(archived("corp/grafana:1", true, Some("12.4.10")), None);
    }
}
