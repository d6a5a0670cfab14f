//! A lock that allows one run at a time per engine and instance, for one user on one machine.
//!
//! The lock is a file in a directory that only this user can write to: elsewhere, another user
//! could hold the lock or replace it with a link. Runs of different users are kept apart by the
//! engine itself, whose error "already exists" leads to a new plan.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::engine::environment::Environment;
use crate::error::{Error, Result};
use crate::model::event::{Event, Listener};

/// The lock is held until it is dropped; the operating system releases it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Option<File>,
}

/// How long another run may hold the lock: pulls can be slow.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const DIRECTORY: &str = "clipper-metrics";

/// Waits until no other run works on the same instance of the same engine. If no directory belongs
/// to this user alone, there is no lock, and the engine still keeps two runs apart.
///
/// # Errors
/// [`Error::Raced`] if the other run does not end.
pub(crate) async fn acquire(
    engine: &str,
    instance: &str,
    environment: &Environment,
    listener: &dyn Listener,
) -> Result<Lock> {
    acquire_within(LOCK_TIMEOUT, engine, instance, environment, listener).await
}

async fn acquire_within(
    timeout: Duration,
    engine: &str,
    instance: &str,
    environment: &Environment,
    listener: &dyn Listener,
) -> Result<Lock> {
    let engine: String = engine.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = format!("{engine}-{instance}.lock");
    let parents = parents(environment, private::runtime_directory());
    let Some(file) = parents.iter().find_map(|parent| private::open(parent, &name).ok()) else {
        listener.on(Event::Note("no directory belongs to this user alone, so only the engine keeps two runs apart"));
        return Ok(Lock { _file: None });
    };
    let deadline = Instant::now() + timeout;
    let mut is_announced = false;
    let mut pause = Duration::from_millis(10);
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                if !is_announced {
                    listener
                        .on(Event::Waiting(&format!("another clipper-metrics works on {instance}; waiting for it")));
                    is_announced = true;
                }
                if Instant::now() >= deadline {
                    let waited = humantime::format_duration(timeout);
                    let why = format!("another clipper-metrics has been working on it for {waited}");
                    return Err(Error::Raced { doing: format!("work on {instance}"), why });
                }
                crate::backoff::pause(&mut pause).await;
            }
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(Lock { _file: Some(file) }),
        }
    }
}

/// Candidates for the parent of the lock directory, the best first. A cron job lacks the variable of a user's sessions,
/// and after `su` it names another user's directory, but both must use the directory `of_sessions`.
fn parents(environment: &Environment, of_sessions: Option<PathBuf>) -> Vec<PathBuf> {
    let home = environment.path("HOME").map(|home| Path::new(home).join(".cache"));
    let runtime = environment.path("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime.into_iter().chain(of_sessions).chain(home).chain([std::env::temp_dir()]).collect()
}

#[cfg(unix)]
mod private {
    use super::{DIRECTORY, File, Path, PathBuf, io};
    use rustix::fd::OwnedFd;
    use rustix::fs::{FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, open as open_path, openat};
    use rustix::process::geteuid;

    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    const OWNER_ONLY: Mode = Mode::RWXU;

    /// The directory that systemd creates for the sessions of this user, and to which it sets `XDG_RUNTIME_DIR`.
    pub(super) fn runtime_directory() -> Option<PathBuf> {
        Some(PathBuf::from(format!("/run/user/{}", geteuid().as_raw()))).filter(|directory| directory.is_dir())
    }

    /// Opens a file of this user in a directory that no other user can enter. The parent belongs to
    /// this user, or is shared and protects each user's entries. Links below it are not followed.
    pub(super) fn open(parent: &Path, name: &str) -> io::Result<File> {
        let parent = below(parent)?;
        // A shared parent needs a directory name per user.
        let (directory, is_shared) = match fstat(&parent)? {
            stat if is_protected(&stat) => (format!("{DIRECTORY}-{}", geteuid().as_raw()), true),
            stat if is_own(&stat) => (DIRECTORY.to_string(), false),
            _ => return Err(io::ErrorKind::PermissionDenied.into()),
        };
        let directory = own_directory(&parent, &directory, is_shared)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_own(&stat) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(file.into())
    }

    /// Opens the directory; its last part is created if missing, such as `.cache` in a home directory.
    fn below(path: &Path) -> io::Result<OwnedFd> {
        match open_path(path, FOLDER, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                let (Some(above), Some(last)) = (path.parent(), path.file_name()) else {
                    return Err(io::ErrorKind::NotFound.into());
                };
                let above = open_path(above, FOLDER, Mode::empty())?;
                if !is_own(&fstat(&above)?) {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                made(&above, last)
            }
            result => Ok(result?),
        }
    }

    /// Opens or creates a directory that this user owns and no other user can enter.
    fn own_directory(parent: &OwnedFd, name: &str, is_shared: bool) -> io::Result<OwnedFd> {
        let directory = made(parent, name)?;
        let stat = fstat(&directory)?;
        if !is_own(&stat) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mode = Mode::from_raw_mode(stat.st_mode);
        if mode.intersects(Mode::RWXG | Mode::RWXO) {
            // A directory that was writable for others may contain their files.
            if is_shared || mode.intersects(Mode::WGRP | Mode::WOTH) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            fchmod(&directory, OWNER_ONLY)?;
        }
        Ok(directory)
    }

    fn made(parent: &OwnedFd, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
        match mkdirat(parent, name, OWNER_ONLY) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(openat(parent, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?)
    }

    fn is_own(stat: &Stat) -> bool {
        stat.st_uid == geteuid().as_raw()
    }

    /// Whether every user may write there but only owners and root may remove, as in `/tmp`.
    fn is_protected(stat: &Stat) -> bool {
        stat.st_uid == 0 && Mode::from_raw_mode(stat.st_mode).contains(Mode::SVTX)
    }

    #[cfg(test)]
    mod tests {
        use std::fs::{Permissions, create_dir, set_permissions, symlink_metadata};
        use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

        use super::*;

        const NAME: &str = "x.lock";

        fn mode(path: &Path) -> u32 {
            symlink_metadata(path).unwrap().permissions().mode() & 0o777
        }

        #[test]
        fn the_file_is_in_a_directory_that_only_this_user_can_enter() {
            let home = tempfile::tempdir().unwrap();
            open(&home.path().join(".cache"), NAME).unwrap();
            let directory = home.path().join(".cache").join(DIRECTORY);
            assert_eq!((mode(&directory), mode(&directory.join(NAME))), (0o700, 0o600));
            // A directory that others can read is closed; one that others can write to is not trusted.
            set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
            open(&home.path().join(".cache"), NAME).unwrap();
            assert_eq!(mode(&directory), 0o700);
            set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
            assert!(open(&home.path().join(".cache"), NAME).is_err());
        }

        #[test]
        fn links_are_not_followed() {
            let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let target = elsewhere.path().join("target");
            create_dir(home.path().join(DIRECTORY)).unwrap();
            symlink(&target, home.path().join(DIRECTORY).join(NAME)).unwrap();
            assert!(open(home.path(), NAME).is_err() && !target.exists());
            let other = tempfile::tempdir().unwrap();
            symlink(elsewhere.path(), other.path().join(DIRECTORY)).unwrap();
            assert!(open(other.path(), NAME).is_err());
            assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0);
        }

        #[test]
        fn directories_of_another_user_are_not_used() {
            if !geteuid().is_root() {
                return;
            }
            // A directory like /tmp in which another user came first.
            let shared = tempfile::tempdir().unwrap();
            set_permissions(shared.path(), Permissions::from_mode(0o1777)).unwrap();
            let other = tempfile::tempdir().unwrap();
            chown(other.path(), Some(12345), None).unwrap();
            assert!(open(other.path(), NAME).is_err() && other.path().read_dir().unwrap().count() == 0);
            assert!(open(&other.path().join(".cache"), NAME).is_err());
            // The shared parent's owner runs this program, but the directory in it belongs to the other user.
            let theirs = shared.path().join(format!("{DIRECTORY}-0"));
            create_dir(&theirs).unwrap();
            chown(&theirs, Some(12345), None).unwrap();
            assert!(open(shared.path(), NAME).is_err() && theirs.read_dir().unwrap().count() == 0);
            std::fs::remove_dir(&theirs).unwrap();
            open(shared.path(), NAME).unwrap();
            assert_eq!(mode(&theirs), 0o700);
        }
    }
}

#[cfg(not(unix))]
mod private {
    use super::{DIRECTORY, File, Path, PathBuf, io};

    pub(super) fn runtime_directory() -> Option<PathBuf> {
        None
    }

    /// Opens a file in a directory of the user's profile.
    pub(super) fn open(parent: &Path, name: &str) -> io::Result<File> {
        let directory = parent.join(DIRECTORY);
        std::fs::create_dir_all(&directory)?;
        File::options().create(true).write(true).truncate(false).open(directory.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Silent;

    #[test]
    fn without_the_variable_of_a_session_the_lock_is_still_where_sessions_put_it() {
        let first = |name: &str, of_sessions: Option<&str>| {
            let environment = Environment::from([(name.to_string(), "/x".to_string())]);
            parents(&environment, of_sessions.map(PathBuf::from)).remove(0)
        };
        let run = Path::new("/run/user/7");
        assert_eq!(first("HOME", run.to_str()), run);
        assert_eq!(first("XDG_RUNTIME_DIR", run.to_str()), Path::new("/x"));
        assert_eq!(first("HOME", None), Path::new("/x/.cache"));
    }

    #[test]
    fn a_run_that_holds_the_lock_too_long_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment::from([("XDG_RUNTIME_DIR".into(), home.path().to_str().unwrap().into())]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let acquire = |name| acquire_within(Duration::from_millis(1), "unix:///x", name, &environment, &Silent);
            let held = acquire("a").await.unwrap();
            assert!(matches!(acquire("a").await, Err(Error::Raced { .. })));
            assert!(acquire("b").await.is_ok(), "another instance is free");
            drop(held);
            assert!(acquire("a").await.is_ok());
        });
    }
}
