//! One run at a time per engine and instance, for one user on one machine.
//!
//! Knows a file in the user's runtime directory. Others are kept apart by the engine itself, whose
//! "already exists" means to look once more.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

use super::docker::endpoint::Environment;
use crate::core::event::{Event, Listener};

/// Held until it is dropped; the system lets go of it when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

/// Waits until no other run works on the same instance of the same engine. Where no file can be
/// locked, there is no lock: the engine still keeps two runs apart.
pub async fn acquire(engine: &str, instance: &str, environment: &Environment, listener: &dyn Listener) -> Lock {
    let Ok(file) = open(engine, instance, environment) else { return Lock { _file: None } };
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
                super::pause(&mut pause).await;
            }
            Ok(()) | Err(TryLockError::Error(_)) => return Lock { _file: Some(file) },
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
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let parent = match (set("XDG_RUNTIME_DIR"), set("HOME")) {
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
