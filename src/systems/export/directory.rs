//! A directory that holds an export and nothing else: what is in it must be what an export wrote there.
//!
//! Must not know what the files mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::File;
use crate::core::export::FileChange;
use crate::error::{Error, Result};
use crate::systems::digest::fingerprint;

/// The file that says what exports wrote, so that an edit shows: on each line a digest and a path.
const LIST: &str = ".clipper-metrics-export";
/// Stands for the digest of a secret, of which nothing is written down.
const ANY: &str = "any";
/// How the name of a file ends that is not whole yet.
const PARTIAL: &str = ".clipper-metrics-partial";

/// What exports wrote: the digests by path. A run that died in the middle leaves two of a path.
type Listed = BTreeSet<(String, String)>;

/// The secret that an earlier export wrote to a file.
///
/// # Errors
/// [`Error::Io`] when there is one that cannot be read.
pub fn secret(directory: &Path, path: &str) -> Result<Option<String>> {
    if !listed(directory)?.contains(&(path.into(), ANY.into())) {
        return Ok(None);
    }
    let file = directory.join(path);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(failed("read", &file, why)),
    }
}

/// Writes an export. Each file is there as a whole or not at all at every moment, and what a run wrote that died is
/// known to the next.
///
/// # Errors
/// [`Error::File`] when the directory holds something that no export wrote, or that somebody changed: then nothing is
/// written. [`Error::Io`] when the machine does not let us.
pub fn write(directory: &Path, files: &[File]) -> Result<Vec<(String, FileChange)>> {
    let mut found = Vec::new();
    match fs::metadata(directory) {
        Ok(about) if !about.is_dir() => return Err(in_the_way(directory, "is no directory")),
        Ok(_) => walk(directory, "", &mut found).map_err(|why| failed("read", directory, why))?,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(failed("read", directory, why)),
    }
    let before = listed(directory)?;
    let mut changes: BTreeMap<String, FileChange> =
        files.iter().map(|file| (file.path.clone(), FileChange::Created)).collect();
    for path in found {
        let change = change(directory, &path, files, &before)?;
        changes.insert(path, change);
    }
    let wanted: Listed = files.iter().map(|file| (file.path.clone(), digest(file))).collect();
    if wanted != before || changes.values().any(|change| *change != FileChange::Unchanged) {
        fs::create_dir_all(directory).map_err(|why| failed("make", directory, why))?;
        replace(directory, &list(before.union(&wanted)))?;
        for file in files.iter().filter(|file| changes[&file.path] != FileChange::Unchanged) {
            replace(directory, file)?;
        }
        for (path, _) in changes.iter().filter(|(_, change)| **change == FileChange::Removed) {
            let file = directory.join(path);
            fs::remove_file(&file).map_err(|why| failed("remove", &file, why))?;
        }
        replace(directory, &list(wanted.iter()))?;
    }
    Ok(changes.into_iter().collect())
}

/// What becomes of a file that is there.
fn change(directory: &Path, path: &str, files: &[File], before: &Listed) -> Result<FileChange> {
    let strange = || {
        Err(in_the_way(directory, &format!("holds {path}, which no export wrote, or which somebody has changed since")))
    };
    let file = directory.join(path);
    let about = fs::symlink_metadata(&file).map_err(|why| failed("read", &file, why))?;
    if !about.is_file() {
        return strange();
    }
    let bytes = fs::read(&file).map_err(|why| failed("read", &file, why))?;
    let known = |digest: &str| before.contains(&(path.to_string(), digest.to_string()));
    let as_written = known(ANY) || known(&fingerprint(&bytes));
    match files.iter().find(|file| file.path == path) {
        Some(file) if file.content.as_bytes() == bytes => Ok(FileChange::Unchanged),
        Some(_) if as_written => Ok(FileChange::Updated),
        None if as_written => Ok(FileChange::Removed),
        _ => strange(),
    }
}

/// The paths of everything below a directory that is no directory itself, but for what is ours.
fn walk(root: &Path, folder: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_string();
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            walk(root, &path, found)?;
        } else if path.ends_with(PARTIAL) {
            // A run died there.
            fs::remove_file(entry.path())?;
        } else if path != LIST {
            found.push(path);
        }
    }
    Ok(())
}

fn digest(file: &File) -> String {
    if file.is_secret { ANY.into() } else { fingerprint(file.content.as_bytes()) }
}

fn list<'a>(entries: impl Iterator<Item = &'a (String, String)>) -> File {
    let lines = entries.map(|(path, digest)| format!("{digest} {path}\n"));
    File { path: LIST.into(), content: lines.collect(), is_secret: false }
}

fn listed(directory: &Path) -> Result<Listed> {
    let file = directory.join(LIST);
    match fs::read_to_string(&file) {
        Ok(text) => {
            let pairs = text.lines().filter_map(|line| line.split_once(' '));
            Ok(pairs.map(|(digest, path)| (path.to_string(), digest.to_string())).collect())
        }
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Listed::new()),
        Err(why) => Err(failed("read", &file, why)),
    }
}

/// Puts a file in its place as a whole.
fn replace(directory: &Path, file: &File) -> Result<()> {
    let path = directory.join(&file.path);
    let made = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let partial = PathBuf::from(format!("{}.{}{PARTIAL}", path.display(), std::process::id()));
        let mut open = fs::OpenOptions::new();
        open.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut open, if file.is_secret { 0o600 } else { 0o644 });
        let mut new = open.open(&partial)?;
        let written = new.write_all(file.content.as_bytes()).and_then(|()| new.sync_all());
        let placed = written.and_then(|()| fs::rename(&partial, &path));
        if placed.is_err() {
            let _ = fs::remove_file(&partial);
        }
        placed
    };
    made().map_err(|why| failed("write", &path, why))
}

fn in_the_way(directory: &Path, message: &str) -> Error {
    Error::File {
        path: directory.into(),
        line: None,
        message: message.into(),
        hint: "name a directory that does not exist, or remove what is in this one".into(),
    }
}

fn failed(verb: &str, path: &Path, source: io::Error) -> Error {
    Error::Io { doing: format!("{verb} {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &str) -> File {
        File { path: path.into(), content: content.into(), is_secret: false }
    }

    fn changes(directory: &Path, files: &[File]) -> Vec<FileChange> {
        write(directory, files).unwrap().into_iter().map(|(_, change)| change).collect()
    }

    #[test]
    fn twice_changes_nothing_and_what_changed_follows() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("a/b");
        let first = [file("x/y.yaml", "1"), file("z", "2")];
        assert_eq!(changes(&directory, &first), [FileChange::Created, FileChange::Created]);
        let when = fs::metadata(directory.join(LIST)).unwrap().modified().unwrap();
        assert_eq!(changes(&directory, &first), [FileChange::Unchanged, FileChange::Unchanged]);
        assert_eq!(fs::metadata(directory.join(LIST)).unwrap().modified().unwrap(), when);
        let second = [file("x/y.yaml", "3"), file("w", "4")];
        assert_eq!(changes(&directory, &second), [FileChange::Created, FileChange::Updated, FileChange::Removed]);
        assert!(!directory.join("z").exists());
    }

    #[test]
    fn what_is_there_and_is_no_export_or_was_changed_is_refused_and_left() {
        let home = tempfile::tempdir().unwrap();
        let mine = home.path().join("mine");
        fs::write(&mine, "m").unwrap();
        let wanted = [file("a", "1"), file("b", "2")];
        assert!(write(home.path(), &wanted).unwrap_err().to_string().contains("mine"));
        assert!(write(&mine, &wanted).unwrap_err().to_string().contains("no directory"));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        fs::remove_file(&mine).unwrap();
        write(home.path(), &wanted).unwrap();
        fs::write(home.path().join("b"), "edited").unwrap();
        let other = [file("a", "3"), file("b", "2")];
        assert!(write(home.path(), &other).unwrap_err().to_string().contains("holds b,"));
        assert_eq!(fs::read_to_string(home.path().join("a")).unwrap(), "1");
        // What is as it is to be needs no list.
        fs::write(home.path().join("b"), "2").unwrap();
        fs::remove_file(home.path().join(LIST)).unwrap();
        assert_eq!(changes(home.path(), &wanted), [FileChange::Unchanged, FileChange::Unchanged]);
    }

    #[test]
    fn a_run_that_died_is_finished_by_the_next_also_with_other_content() {
        let home = tempfile::tempdir().unwrap();
        let (old, new) = ([file("a", "1"), file("b", "1")], [file("a", "2"), file("b", "2")]);
        write(home.path(), &old).unwrap();
        // It has replaced one of two.
        let both: Listed = old.iter().chain(&new).map(|file| (file.path.clone(), digest(file))).collect();
        replace(home.path(), &list(both.iter())).unwrap();
        replace(home.path(), &new[0]).unwrap();
        fs::write(home.path().join(format!("b.7{PARTIAL}")), "ha").unwrap();
        let third = [file("a", "3"), file("b", "3")];
        assert_eq!(changes(home.path(), &third), [FileChange::Updated, FileChange::Updated]);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_is_the_owners_alone_and_nothing_of_it_is_in_the_list() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        assert_eq!(secret(home.path(), "p").unwrap(), None);
        write(home.path(), &[File { is_secret: true, ..file("p", "geheim") }]).unwrap();
        assert_eq!(fs::metadata(home.path().join("p")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(home.path().join(LIST)).unwrap(), "any p\n");
        // Somebody's own is kept.
        fs::write(home.path().join("p"), "own").unwrap();
        assert_eq!(secret(home.path(), "p").unwrap().as_deref(), Some("own"));
    }
}
