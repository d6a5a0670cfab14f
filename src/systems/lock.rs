//! One run at a time per engine and instance, for one user on one machine.
//!
//! Knows a file in the user's runtime directory. Others are kept apart by the engine itself, whose
//! "already exists" means to look once more.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::docker::endpoint::Environment;
use crate::core::event::{Event, Listener};
use crate::error::{Error, Result};

/// Held until it is dropped; the system lets go of it when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

/// How long another run may work on the same instance: pulls can be slow.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Waits until no other run works on the same instance of the same engine. Where no file can be
/// locked, there is no lock: the engine still keeps two runs apart.
///
/// # Errors
/// [`Error::Raced`] when the other run does not end.
pub async fn acquire(engine: &str, instance: &str, environment: &Environment, listener: &dyn Listener) -> Result<Lock> {
    acquire_within(LOCK_TIMEOUT, engine, instance, environment, listener).await
}

async fn acquire_within(
    timeout: Duration,
    engine: &str,
    instance: &str,
    environment: &Environment,
    listener: &dyn Listener,
) -> Result<Lock> {
    let Ok(file) = open(engine, instance, environment) else { return Ok(Lock { _file: None }) };
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
                    let why = format!("another clipper-metrics has worked on it for {waited}");
                    return Err(Error::Raced { doing: format!("work on {instance}"), why });
                }
                super::pause(&mut pause).await;
            }
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(Lock { _file: Some(file) }),
        }
    }
}

fn open(engine: &str, instance: &str, environment: &Environment) -> std::io::Result<File> {
    let folder = folder(environment);
    create_private(&folder)?;
    let engine: String = engine.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = folder.join(format!("{engine}-{instance}.lock"));
    OpenOptions::new().create(true).write(true).truncate(false).open(path)
}

/// A folder that only this user can write to.
fn folder(environment: &Environment) -> PathBuf {
    let parent = match (environment.path("XDG_RUNTIME_DIR"), environment.path("HOME")) {
        (Some(runtime), _) => PathBuf::from(runtime),
        (None, Some(home)) => PathBuf::from(home).join(".cache"),
        (None, None) => std::env::temp_dir(),
    };
    parent.join("clipper-metrics")
}

fn create_private(folder: &std::path::Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Listener for Nobody {
        fn on(&self, _: Event<'_>) {}
    }

    #[test]
    fn another_run_that_does_not_end_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment::from([("HOME".into(), home.path().to_str().unwrap().into())]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let acquire = |name| acquire_within(Duration::from_millis(1), "unix:///x", name, &environment, &Nobody);
            let held = acquire("a").await.unwrap();
            assert!(matches!(acquire("a").await, Err(Error::Raced { .. })));
            assert!(acquire("b").await.is_ok(), "another instance is free");
            drop(held);
            assert!(acquire("a").await.is_ok());
        });
    }
}
