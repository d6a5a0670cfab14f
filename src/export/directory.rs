//! A directory that contains one export and nothing else: all its files must come from exports of
//! the same kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ExportFile;
use crate::digest::fingerprint;
use crate::error::{Error, Result};
use crate::model::export::{ExportedFile, FileChange};

/// The file that lists exported files, so that edits are detected: the first line names the export,
/// every other line has a digest and a path.
const LIST: &str = ".clipper-metrics-export";
/// The suffix of an incomplete file.
const PARTIAL: &str = ".clipper-metrics-partial";
/// An incomplete file of this age is no longer being written.
const ABANDONED: Duration = Duration::from_secs(60);

/// The identity of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub format: &'static str,
    pub instance: String,
    /// Whether a running Grafana and the remembered settings were read, so that no edit is missing.
    pub is_complete: bool,
}

impl Subject {
    /// The first line of the list.
    fn line(&self) -> String {
        let extent = if self.is_complete { "complete" } else { "partial" };
        format!("{} {} {extent}\n", self.format, self.instance)
    }
}

/// The exported files as digests and paths. A run that died may have listed two digests for one path.
type ListedFiles = BTreeSet<(String, String)>;

/// Whether an earlier export wrote a file to the directory.
///
/// # Errors
/// [`Error::Io`] if the list cannot be read.
pub(crate) fn lists(directory: &Path, path: &str) -> Result<bool> {
    let (_, listed) = listed(directory)?;
    Ok(listed.iter().any(|(listed, _)| listed == path))
}

/// Whether an export died while it replaced a file.
///
/// # Errors
/// The same as [`lists`].
pub(crate) fn is_interrupted(directory: &Path, path: &str) -> Result<bool> {
    let (_, listed) = listed(directory)?;
    Ok(listed.iter().filter(|(listed, _)| listed == path).count() > 1)
}

/// Whether an earlier export wrote a file with that digest to the directory.
///
/// # Errors
/// The same as [`lists`].
pub(crate) fn lists_digest(directory: &Path, path: &str, digest: &str) -> Result<bool> {
    let (_, listed) = listed(directory)?;
    Ok(listed.contains(&(path.to_string(), digest.to_string())))
}

/// Whether any file of an earlier export exists: the export was not interrupted before it had written one.
///
/// # Errors
/// The same as [`lists`].
pub(crate) fn has_exported_files(directory: &Path) -> Result<bool> {
    let (_, listed) = listed(directory)?;
    Ok(listed.iter().any(|(path, _)| directory.join(path).exists()))
}

/// Whether the directory contains an export in that format.
///
/// # Errors
/// The same as [`lists`].
pub(crate) fn is_export(directory: &Path, format: &str) -> Result<bool> {
    Ok(listed(directory)?.0.is_some_and(|head| head.starts_with(&format!("{format} "))))
}

/// The content of a file in the directory; `None` if there is none.
///
/// # Errors
/// [`Error::Io`] if the file system returns an error.
pub(crate) fn read(directory: &Path, path: &str) -> Result<Option<String>> {
    let file = directory.join(path);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(failed("read", &file, why)),
    }
}

/// Writes an export. Every file is always either complete or missing, and the next run recognizes
/// the files of a run that died.
///
/// # Errors
/// [`Error::File`] if the directory contains another export, a file that was not exported or was
/// edited, or more data than is available now: then nothing is written. [`Error::Io`] if the file
/// system returns an error.
pub(crate) fn write(directory: &Path, subject: &Subject, files: &[ExportFile]) -> Result<Vec<ExportedFile>> {
    let mut found = FoundFiles::default();
    match fs::metadata(directory) {
        Ok(about) if !about.is_dir() => return Err(in_the_way(directory, "is not a directory", ELSEWHERE)),
        Ok(_) => {}
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(failed("read", directory, why)),
    }
    let (head, before) = listed(directory)?;
    expect_same(directory, subject, head.as_deref(), files)?;
    let known =
        |path: &str| files.iter().any(|file| file.path == path) || before.iter().any(|(listed, _)| listed == path);
    if directory.exists() {
        walk(directory, "", &known, &mut found)?;
    }
    if let Some(path) = found.strange {
        return Err(strange(directory, &path, head.is_some()));
    }
    let mut changes: BTreeMap<String, FileChange> =
        files.iter().map(|file| (file.path.clone(), FileChange::Created)).collect();
    for path in found.files {
        let change = change(directory, &path, files, &before)?;
        changes.insert(path.clone(), change.ok_or_else(|| strange(directory, &path, head.is_some()))?);
    }
    let wanted: ListedFiles = files.iter().map(|file| (file.path.clone(), file.digest())).collect();
    let is_listed = wanted == before && head.is_some_and(|head| head == subject.line());
    if !is_listed || changes.values().any(|change| *change != FileChange::Unchanged) {
        make_folder(directory).map_err(|why| failed("make", directory, why))?;
        replace(directory, &list(subject, before.union(&wanted)))?;
        // Secrets come first: no other file of an interrupted run refers to one that does not exist.
        let (secrets, others): (Vec<&ExportFile>, _) = files.iter().partition(|file| file.secret.is_some());
        for file in secrets.into_iter().chain(others) {
            if changes[&file.path] != FileChange::Unchanged {
                replace(directory, file)?;
            }
        }
        for (path, _) in changes.iter().filter(|(_, change)| **change == FileChange::Removed) {
            let file = directory.join(path);
            fs::remove_file(&file).map_err(|why| failed("remove", &file, why))?;
        }
        replace(directory, &list(subject, wanted.iter()))?;
    }
    found.abandoned.into_iter().for_each(|file| drop(fs::remove_file(file)));
    Ok(changes.into_iter().map(|(path, change)| ExportedFile { path, change }).collect())
}

/// A directory keeps its kind of export, and data that is unavailable now is not removed from it.
fn expect_same(directory: &Path, subject: &Subject, head: Option<&str>, files: &[ExportFile]) -> Result<()> {
    let Some(head) = head else { return Ok(()) };
    let complete = Subject { is_complete: true, ..subject.clone() }.line();
    let partial = Subject { is_complete: false, ..subject.clone() }.line();
    if head != complete && head != partial {
        let mut words = head.split_whitespace();
        let (format, instance) = (words.next().unwrap_or("?"), words.next().unwrap_or("?"));
        return Err(in_the_way(directory, &format!("contains an export of {instance} for {format}"), ELSEWHERE));
    }
    if head == complete && !subject.is_complete {
        let has_password = files.iter().any(|file| file.secret.is_some());
        let elsewhere = if has_password {
            "export to a directory that does not exist with the password of the existing Grafana \
             (--grafana-password-file)"
        } else {
            ELSEWHERE
        };
        return Err(in_the_way(
            directory,
            "contains an export with more data than is available now: remembered settings or edits in Grafana",
            &format!("start the instance and check that Grafana answers, or {elsewhere}"),
        ));
    }
    Ok(())
}

/// The change to an existing file that is exported or listed; `None` if its content is not from an export.
fn change(directory: &Path, path: &str, files: &[ExportFile], before: &ListedFiles) -> Result<Option<FileChange>> {
    let file = directory.join(path);
    let bytes = fs::read(&file).map_err(|why| failed("read", &file, why))?;
    let wanted = files.iter().find(|file| file.path == path);
    if let Some(wanted) = wanted.filter(|wanted| wanted.content.as_bytes() == bytes) {
        return Ok(Some(if has_mode(&file, wanted) { FileChange::Unchanged } else { FileChange::Updated }));
    }
    // In a file with a secret, only the rest is compared.
    let digest = match wanted {
        Some(wanted) => ExportFile { content: String::from_utf8_lossy(&bytes).into(), ..wanted.clone() }.digest(),
        None => fingerprint(&bytes),
    };
    let was_written = before.contains(&(path.to_string(), digest));
    let was_secret = wanted.is_none() && before.contains(&(path.to_string(), fingerprint(b"")));
    Ok(match wanted {
        Some(_) if was_written => Some(FileChange::Updated),
        None if was_written || was_secret => Some(FileChange::Removed),
        _ => None,
    })
}

/// The files in a directory.
#[derive(Default)]
struct FoundFiles {
    /// Paths of files.
    files: Vec<String>,
    /// Incomplete files of runs that died.
    abandoned: Vec<PathBuf>,
    /// A file that no export wrote.
    strange: Option<String>,
}

/// Lists everything in a directory except metadata of Git and macOS; ends at the first file that no export wrote.
fn walk(root: &Path, folder: &str, known: &impl Fn(&str) -> bool, found: &mut FoundFiles) -> Result<()> {
    let here = root.join(folder);
    let io = |why| failed("read", &here, why);
    for entry in fs::read_dir(&here).map_err(io)? {
        if found.strange.is_some() {
            break;
        }
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().to_string();
        if name.starts_with(".git") || name == ".DS_Store" {
            continue;
        }
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let kind = entry.file_type().map_err(io)?;
        if kind.is_dir() {
            walk(root, &path, known, found)?;
        } else if path.ends_with(PARTIAL) {
            let written = entry.metadata().and_then(|about| about.modified()).map_err(io)?;
            if written.elapsed().is_ok_and(|age| age > ABANDONED) {
                found.abandoned.push(entry.path());
            }
        } else if path != LIST {
            if kind.is_file() && known(&path) {
                found.files.push(path);
            } else {
                found.strange = Some(path);
            }
        }
    }
    Ok(())
}

/// The error for a file whose content is not from an export. Removing the other files of one would lose its password.
fn strange(directory: &Path, path: &str, is_export: bool) -> Error {
    let message = format!("contains {path}, which was not written by an export or was changed afterwards");
    let hint = if is_export {
        format!("move {path} out of that directory, then run the same command again")
    } else {
        ELSEWHERE.to_string()
    };
    in_the_way(directory, &message, &hint)
}

fn list<'a>(subject: &Subject, entries: impl Iterator<Item = &'a (String, String)>) -> ExportFile {
    let lines = entries.map(|(path, digest)| format!("{digest} {path}\n"));
    ExportFile::new(LIST, format!("{}{}", subject.line(), lines.collect::<String>()))
}

/// Parses the list: the identity of the export, and its files.
fn listed(directory: &Path) -> Result<(Option<String>, ListedFiles)> {
    let file = directory.join(LIST);
    match fs::read_to_string(&file) {
        Ok(text) => {
            let mut lines = text.lines();
            let head = lines.next().map(|line| format!("{line}\n"));
            let pairs = lines.filter_map(|line| line.split_once(' '));
            Ok((head, pairs.map(|(digest, path)| (path.to_string(), digest.to_string())).collect()))
        }
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok((None, ListedFiles::new()))
        }
        Err(why) => Err(failed("read", &file, why)),
    }
}

/// Writes a file completely and moves it into place.
fn replace(directory: &Path, file: &ExportFile) -> Result<()> {
    let path = directory.join(&file.path);
    let made = || -> io::Result<()> {
        if let Some(folder) = path.parent().filter(|folder| *folder != directory) {
            make_folder(folder)?;
        }
        let mut partial = path.clone().into_os_string();
        partial.push(format!(".{}{PARTIAL}", std::process::id()));
        let partial = PathBuf::from(partial);
        let _ = fs::remove_file(&partial);
        let mut open = fs::OpenOptions::new();
        open.write(true).create_new(true);
        // A secret is private from its first byte on.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
        let mut new = open.open(&partial)?;
        let written = new.write_all(file.content.as_bytes()).and_then(|()| set_mode(&partial, mode(file)));
        let placed = written.and_then(|()| new.sync_all()).and_then(|()| fs::rename(&partial, &path));
        if placed.is_err() {
            let _ = fs::remove_file(&partial);
        }
        placed
    };
    made().map_err(|why| failed("write", &path, why))
}

/// The mode is independent of the user's umask, because a server in a container runs as another user.
fn mode(file: &ExportFile) -> u32 {
    if file.secret.is_some() { 0o600 } else { 0o644 }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    folder.parent().map_or(Ok(()), make_folder)?;
    match fs::create_dir(folder) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(why),
        _ => set_mode(folder, 0o755),
    }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

/// Whether a file has its mode, so that no other user can read a secret.
#[cfg(unix)]
fn has_mode(path: &Path, file: &ExportFile) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.secret.is_none() || fs::metadata(path).is_ok_and(|about| (about.permissions().mode() & 0o777) == mode(file))
}

#[cfg(not(unix))]
fn has_mode(_: &Path, _: &ExportFile) -> bool {
    true
}

/// The way out if the directory belongs to something else.
const ELSEWHERE: &str = "choose a directory that does not exist";

fn in_the_way(directory: &Path, message: &str, hint: &str) -> Error {
    Error::File { path: directory.into(), line: None, message: message.into(), hint: hint.into() }
}

fn failed(verb: &str, path: &Path, source: io::Error) -> Error {
    Error::Io { doing: format!("{verb} {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::super::Secrecy;
    use super::*;

    fn file(path: &str, content: &str) -> ExportFile {
        ExportFile::new(path, content)
    }

    fn subject() -> Subject {
        Subject { format: "swarm", instance: "x".into(), is_complete: true }
    }

    fn changes(directory: &Path, files: &[ExportFile]) -> Vec<FileChange> {
        write(directory, &subject(), files).unwrap().into_iter().map(|file| file.change).collect()
    }

    fn refused(directory: &Path, files: &[ExportFile]) -> String {
        hint(directory, &subject(), files).0
    }

    /// The message and the hint of a refused export.
    fn hint(directory: &Path, subject: &Subject, files: &[ExportFile]) -> (String, String) {
        match write(directory, subject, files).unwrap_err() {
            Error::File { message, hint, .. } => (message, hint),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn no_suggestion_loses_the_password_of_an_earlier_export() {
        let home = tempfile::tempdir().unwrap();
        let password = ExportFile::with_secret("grafana-password", "secret", Secrecy::Whole);
        let wanted = [file("a", "1"), password];
        fs::write(home.path().join("theirs"), "t").unwrap();
        assert_eq!(hint(home.path(), &subject(), &wanted).1, ELSEWHERE, "this is no export");
        fs::remove_file(home.path().join("theirs")).unwrap();
        write(home.path(), &subject(), &wanted).unwrap();
        for name in ["a", "theirs"] {
            fs::write(home.path().join(name), "edited").unwrap();
            let suggested = hint(home.path(), &subject(), &wanted).1;
            assert!(suggested.starts_with(&format!("move {name} out of that directory")), "{suggested}");
            fs::remove_file(home.path().join(name)).unwrap();
            write(home.path(), &subject(), &wanted).unwrap();
        }
        let partial = Subject { is_complete: false, ..subject() };
        assert!(hint(home.path(), &partial, &wanted).1.contains("--grafana-password-file"));
        assert!(!hint(home.path(), &partial, &wanted[..1]).1.contains("--grafana-password-file"));
    }

    #[test]
    fn a_second_export_changes_only_files_that_differ() {
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
    fn unknown_and_edited_files_are_refused_and_kept() {
        let home = tempfile::tempdir().unwrap();
        let mine = home.path().join(format!("mine{PARTIAL}"));
        fs::write(&mine, "m").unwrap();
        let theirs = home.path().join("theirs");
        fs::write(&theirs, "t").unwrap();
        let wanted = [file("a", "1"), file("b", "2")];
        assert!(refused(home.path(), &wanted).contains("contains theirs,"));
        assert!(refused(&theirs, &wanted).contains("not a directory"));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
        fs::remove_file(&theirs).unwrap();
        write(home.path(), &subject(), &wanted).unwrap();
        fs::write(home.path().join("b"), "edited").unwrap();
        let other = [file("a", "3"), file("b", "2")];
        assert!(refused(home.path(), &other).contains("contains b,"));
        assert_eq!(fs::read_to_string(home.path().join("a")).unwrap(), "1");
        // Unchanged files need no list.
        fs::write(home.path().join("b"), "2").unwrap();
        fs::remove_file(home.path().join(LIST)).unwrap();
        assert_eq!(changes(home.path(), &wanted), [FileChange::Unchanged, FileChange::Unchanged]);
    }

    #[test]
    fn a_directory_keeps_its_export_and_loses_no_data_that_is_unavailable_now() {
        let home = tempfile::tempdir().unwrap();
        let wanted = [file("a", "1")];
        write(home.path(), &subject(), &wanted).unwrap();
        for other in [Subject { format: "provisioning", ..subject() }, Subject { instance: "y".into(), ..subject() }] {
            let why = write(home.path(), &other, &wanted).unwrap_err().to_string();
            assert!(why.contains("contains an export of x for swarm"), "{why}");
        }
        let partial = Subject { is_complete: false, ..subject() };
        let why = write(home.path(), &partial, &[file("a", "2")]).unwrap_err().to_string();
        assert!(why.contains("more data than is available now"), "{why}");
        assert_eq!(fs::read_to_string(home.path().join("a")).unwrap(), "1");
        let fresh = home.path().join("fresh");
        write(&fresh, &partial, &wanted).unwrap();
        assert_eq!(changes(&fresh, &wanted), [FileChange::Unchanged], "more data is available now");
        write(&fresh, &partial, &wanted).unwrap_err();
    }

    #[test]
    fn an_interrupted_export_is_completed_by_the_next_even_with_other_content() {
        let home = tempfile::tempdir().unwrap();
        let (old, new) = ([file("a", "1"), file("b", "1")], [file("a", "2"), file("b", "2")]);
        write(home.path(), &subject(), &old).unwrap();
        // It has replaced one of two.
        let both: ListedFiles = old.iter().chain(&new).map(|file| (file.path.clone(), file.digest())).collect();
        replace(home.path(), &list(&subject(), both.iter())).unwrap();
        replace(home.path(), &new[0]).unwrap();
        let partial = home.path().join(format!("b.7{PARTIAL}"));
        fs::write(&partial, "ha").unwrap();
        let third = [file("a", "3"), file("b", "3")];
        assert_eq!(changes(home.path(), &third), [FileChange::Updated, FileChange::Updated]);
        assert!(partial.exists(), "another process may be writing it");
        let long_ago = std::time::SystemTime::now() - ABANDONED * 2;
        fs::File::open(&partial).unwrap().set_modified(long_ago).unwrap();
        changes(home.path(), &third);
        assert!(!partial.exists());
    }

    #[test]
    fn an_interrupted_export_has_its_secrets() {
        let home = tempfile::tempdir().unwrap();
        let secret = ExportFile { secret: Some(Secrecy::Whole), ..file("p", "geheim") };
        // A folder cannot be replaced, so the run ends there.
        fs::create_dir(home.path().join("a")).unwrap();
        write(home.path(), &subject(), &[file("a", "1"), secret]).unwrap_err();
        assert_eq!(fs::read_to_string(home.path().join("p")).unwrap(), "geheim");
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_is_private_and_not_in_the_list() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("p");
        let whole = |content: &str| ExportFile { secret: Some(Secrecy::Whole), ..file("p", content) };
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        write(home.path(), &subject(), &[whole("geheim")]).unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(
            fs::read_to_string(home.path().join(LIST)).unwrap(),
            format!("swarm x complete\n{} p\n", fingerprint(b""))
        );
        // A user's own secret is kept, and becomes private.
        fs::write(&path, "own").unwrap();
        set_mode(&path, 0o644).unwrap();
        assert_eq!(changes(home.path(), &[whole("own")]), [FileChange::Updated]);
        assert_eq!(mode(), 0o600);
        assert_eq!(changes(home.path(), &[file("q", "")]), [FileChange::Removed, FileChange::Created]);
    }

    #[test]
    fn in_a_file_with_a_secret_only_the_rest_is_compared() {
        let home = tempfile::tempdir().unwrap();
        let lines = |content: &str| ExportFile { secret: Some(Secrecy::Values), ..file("s.yaml", content) };
        let text =
            |password: &str, label: &str| format!("label: {label}\nstringData:\n  grafana-password: {password}\n");
        write(home.path(), &subject(), &[lines(&text("\"a\"", "x"))]).unwrap();
        fs::write(home.path().join("s.yaml"), text("\"b\"", "x")).unwrap();
        assert_eq!(changes(home.path(), &[lines(&text("\"b\"", "x"))]), [FileChange::Unchanged]);
        fs::write(home.path().join("s.yaml"), text("\"b\"", "mine")).unwrap();
        assert!(refused(home.path(), &[lines(&text("\"b\"", "x"))]).contains("contains s.yaml"));
    }
}
