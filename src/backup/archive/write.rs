//! Writes an archive under a temporary name, from the copies that the engine sends.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;
use tokio::sync::mpsc::Receiver;

use super::content::Content;
use super::format::{
    ArchiveFolder, FORMAT, LastEntry, MANIFEST, MANIFEST_LIMIT, Manifest, expect_size, header, invalid,
};
use crate::engine::tar_stream::{BLOCK, Entries, Entry, Kind, NotRegular, not_regular};
use crate::error::{Error, Refusal, Result};
use crate::model::invocation::shell_path;
use crate::model::text::excerpt;

/// A part of an archive being written.
pub(crate) enum Part {
    /// The following bytes are a tar archive whose files go into this folder.
    Below(ArchiveFolder),
    /// Bytes of that tar archive.
    Bytes(Vec<u8>),
    /// Everything was sent; without this part, the archive is incomplete.
    End,
}

/// A new archive under a temporary name until it is complete; removed when dropped.
pub(crate) struct New {
    path: PathBuf,
    file: NamedTempFile,
}

impl New {
    /// Creates the file next to the archive's future path, readable by its owner alone.
    ///
    /// # Errors
    /// [`Error::File`] if the archive already exists, [`Error::Io`] if the file cannot be created.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        expect_free(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(".partial").tempfile_in(folder);
        Ok(Self { path: path.into(), file: file.map_err(writing(path))? })
    }

    /// Writes the parts to the file, gives it its name, and returns its size. InfluxDB's copy
    /// determines which databases contain data.
    ///
    /// # Errors
    /// [`Error::File`] if a file with that name was created meanwhile, [`Error::Docker`] if a
    /// container contains something other than the files of a backup, [`Error::Io`] if writing
    /// fails or the source is incomplete.
    pub(crate) fn write(self, manifest: &Manifest, parts: Receiver<Part>) -> Result<u64> {
        let Self { path, file } = self;
        let io = writing(&path);
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
        let mut content = Content::default();
        let mut parts = Parts { received: parts, bytes: Vec::new(), at: 0, next: None, is_whole: false, zeros: 0 };
        while let Some(folder) = parts.begin() {
            copy_below(folder, &mut parts, &mut archive, &mut content).map_err(&io)?;
        }
        if !parts.is_whole {
            return Err(io(io::Error::other("the data ended early")));
        }
        let mut manifest = manifest.clone();
        let holding = content.databases().map_err(&io)?;
        manifest.databases = manifest.databases.into_keys().map(|name| (name, false)).collect();
        manifest.databases.extend(holding.into_iter().map(|name| (name, true)));
        let document = LastEntry { format: FORMAT, manifest, files: content.files };
        let text = serde_json::to_vec(&document).map_err(|why| io(why.into()))?;
        let size = text.len() as u64;
        expect_size(MANIFEST, size, MANIFEST_LIMIT).map_err(&io)?;
        archive.append(&header(MANIFEST, size).map_err(&io)?, &text[..]).map_err(&io)?;
        let file = archive.into_inner().and_then(GzEncoder::finish).map_err(&io)?;
        file.as_file().sync_all().map_err(&io)?;
        let length = file.as_file().metadata().map_err(&io)?.len();
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(length),
            // Another process created the file, or the file system cannot rename without
            // overwriting; check again.
            Err(failed) => {
                expect_free(&path)?;
                failed.file.persist(&path).map_err(|failed| io(failed.error))?;
                Ok(length)
            }
        }
    }
}

fn writing(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| {
        let doing = format!("write {}", path.display());
        match source.kind() {
            // The source of the file ended early, not the file.
            io::ErrorKind::UnexpectedEof => Error::Raced { doing, why: "the copy ended inside a file".into() },
            io::ErrorKind::Other => Error::Raced { doing, why: source.to_string() },
            io::ErrorKind::InvalidData => {
                let refusal = match source.get_ref() {
                    Some(why) if why.is::<NotRegular>() => Refusal::UnexpectedFile,
                    _ => Refusal::Other,
                };
                Error::Docker { doing, why: source.to_string(), refusal }
            }
            _ => Error::Io { doing, source },
        }
    }
}

/// The error for the path of a directory.
pub(crate) fn directory(path: &Path) -> Error {
    Error::File {
        path: path.into(),
        line: None,
        message: "names a directory, but a backup is one file".into(),
        hint: format!("name a file in it, such as {}", shell_path(&path.join("clipper.backup"))),
    }
}

/// Checks that the path of a new archive is free.
///
/// # Errors
/// [`Error::File`] if it is not.
pub(crate) fn expect_free(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(writing(path)(why)),
        Ok(found) if found.is_dir() => Err(directory(path)),
        Ok(_) => Err(Error::File {
            path: path.into(),
            line: None,
            message: "already exists".into(),
            hint: "choose another name, or remove that file".into(),
        }),
    }
}

fn copy_below<W: Write>(
    folder: ArchiveFolder,
    from: &mut Parts,
    archive: &mut tar::Builder<W>,
    content: &mut Content,
) -> io::Result<()> {
    {
        let mut entries = Entries::new(&mut *from);
        while let Some(entry) = entries.next()? {
            if !is_wanted(folder, &entry)? {
                continue;
            }
            let size = entry.size;
            content.add(folder, entry.name(), size, &mut entries, |path, content| {
                archive.append(&header(path, size)?, content)
            })?;
        }
    }
    // Data after the end of the tar archive.
    io::copy(from, &mut io::sink())?;
    // An engine that cannot continue reading closes the stream as if it were complete.
    if from.zeros < 2 * BLOCK {
        return Err(io::Error::other(format!("the copy of {} ended early", folder.name())));
    }
    Ok(())
}

/// Whether an entry from a container belongs in the archive. A link instead of a file contains no data.
fn is_wanted(folder: ArchiveFolder, entry: &Entry) -> io::Result<bool> {
    let is_top = entry.is_top();
    match folder {
        ArchiveFolder::Influxdb | ArchiveFolder::Own if is_top => match &entry.kind {
            Kind::Folder => Ok(false),
            Kind::File => Err(invalid(format!("{} is a file, not a directory", entry.path))),
            Kind::Other(what) => Err(invalid(format!("{} is {what}, not a directory", entry.path))),
        },
        // The directory belongs to the instance, and stray files in it are not part of a backup.
        ArchiveFolder::Own if entry.is_nested() || !folder.admits(entry.name()) => Ok(false),
        _ if folder.admits(entry.name()) => entry.expect_file().map(|()| true),
        // Podman follows links, and returns a link's target under its own name.
        ArchiveFolder::Grafana if is_top => {
            Err(not_regular("a file of Grafana's database", &format!("a link to {}", excerpt(&entry.path, 100))))
        }
        _ => Err(invalid(format!("{} is not part of a backup", excerpt(&entry.path, 100)))),
    }
}

/// Reads the bytes of one part up to the next one.
struct Parts {
    received: Receiver<Part>,
    bytes: Vec<u8>,
    at: usize,
    next: Option<ArchiveFolder>,
    is_whole: bool,
    /// The number of zeros at the end of the bytes read so far.
    zeros: usize,
}

impl Parts {
    /// The folder of the next part, if there is one.
    fn begin(&mut self) -> Option<ArchiveFolder> {
        if self.is_whole {
            return None;
        }
        self.zeros = 0;
        if let Some(folder) = self.next.take() {
            return Some(folder);
        }
        loop {
            match self.received.blocking_recv()? {
                Part::Below(folder) => return Some(folder),
                Part::Bytes(_) => {}
                Part::End => {
                    self.is_whole = true;
                    return None;
                }
            }
        }
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.bytes.len() {
            if self.next.is_some() || self.is_whole {
                return Ok(0);
            }
            match self.received.blocking_recv() {
                Some(Part::Bytes(bytes)) => (self.bytes, self.at) = (bytes, 0),
                Some(Part::Below(folder)) => self.next = Some(folder),
                Some(Part::End) => {
                    self.is_whole = true;
                    return Ok(0);
                }
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.bytes.len() - self.at);
        buffer[..length].copy_from_slice(&self.bytes[self.at..self.at + length]);
        self.at += length;
        let zeros = buffer[..length].iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros = if zeros == length { self.zeros + zeros } else { zeros };
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tar::EntryType;

    use super::super::Verified;
    use super::super::samples::*;
    use super::*;

    #[test]
    fn an_interrupted_write_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (sender, parts) = tokio::sync::mpsc::channel(64);
        sender.blocking_send(Part::Below(ArchiveFolder::Grafana)).unwrap();
        sender.blocking_send(Part::Bytes(tar_of(&[("grafana.db", b"db")]))).unwrap();
        drop(sender);
        assert!(New::create(&path).unwrap().write(&manifest(), parts).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_incomplete_copy_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        // The engine closed the stream between two files or inside one.
        let whole = tar_of(&[("d/a.tar.gz", b"aa"), ("d/b.meta", b"b"), ("d/c.manifest", INDEX_OF_A)]);
        for cut in [512, 700, 1024, 1536, 2048, 2560, 3072] {
            let error = written_beside(folder.path(), &whole[..cut]).unwrap_err();
            assert!(matches!(error, Error::Raced { .. }), "cut off after {cut}: {error}");
        }
        // InfluxDB's own list names a file that is missing or empty.
        for (files, missing) in [
            (&[("d/c.manifest", INDEX_OF_A), ("d/a.tar.gz", b"a")][..], "influxdb/b.meta is missing"),
            (&[("d/c.manifest", INDEX_OF_A), ("d/a.tar.gz", b"a"), ("d/b.meta", b"")], "influxdb/b.meta is empty"),
            (&[("d/c.manifest", INDEX_OF_A), ("d/b.meta", b"b")], "influxdb/a.tar.gz is missing"),
            (&[("d/a.tar.gz", b"a"), ("d/b.meta", b"b")], "the list of InfluxDB's files is missing"),
            (&[("d/a.tar.gz", b"a"), ("d/c.manifest", b"{}")], "influxdb/c.manifest is not a valid list"),
        ] {
            let error = written_beside(folder.path(), &tar_of(files)).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
            let is_of_kind = matches!(error, Error::Docker { refusal: Refusal::UnexpectedFile, .. });
            assert!(!is_of_kind, "the file is regular: {error}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        written_beside(folder.path(), &whole).unwrap();
    }

    #[test]
    fn a_database_that_is_not_a_regular_file_is_refused_and_leaves_no_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let influxdb = tar_of(&[("d/b.meta", b"b"), ("d/c.manifest", EMPTY)]);
        for (grafana, why) in [
            (tar_with("grafana.db", EntryType::Symlink), "grafana.db is a symbolic link to /etc/grafana.db"),
            (tar_with("grafana.db", EntryType::Link), "grafana.db is a hard link"),
            (tar_with("grafana.db", EntryType::GNUSparse), "grafana.db is a sparse file"),
            (tar_with("grafana.db/", EntryType::Directory), "grafana.db is a directory"),
            (tar_of(&[("grafana.db", b"")]), "grafana/grafana.db is empty"),
            (tar_of(&[("grafana.db-wal", b"w")]), "grafana/grafana.db is missing"),
        ] {
            let error = written_of(&path, &influxdb, &grafana).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        let link = tar_with("d/a.tar.gz", EntryType::Symlink);
        let error = written_of(&path, &link, &tar_of(&[("grafana.db", b"db")])).unwrap_err();
        assert!(error.to_string().contains("a.tar.gz is a symbolic link"), "{error}");
        assert!(matches!(error, Error::Docker { refusal: Refusal::UnexpectedFile, .. }), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_among_own_files_are_refused_and_stray_files_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let written = |own: &[u8]| {
            let path = folder.path().join("a");
            let (sender, parts) = tokio::sync::mpsc::channel(64);
            let influxdb = tar_of(&[("d/b.meta", b"b"), ("d/c.manifest", EMPTY)]);
            let grafana = tar_of(&[("grafana.db", b"db")]);
            for (folder, bytes) in [
                (ArchiveFolder::Influxdb, &influxdb[..]),
                (ArchiveFolder::Grafana, &grafana),
                (ArchiveFolder::Own, own),
            ] {
                sender.blocking_send(Part::Below(folder)).unwrap();
                sender.blocking_send(Part::Bytes(bytes.to_vec())).unwrap();
            }
            sender.blocking_send(Part::End).unwrap();
            New::create(&path)?.write(&Manifest { databases: BTreeMap::new(), ..manifest() }, parts)?;
            let files: Vec<String> = Verified::open(&path)?.files.into_keys().collect();
            std::fs::remove_file(&path).unwrap();
            Ok::<_, Error>(files)
        };
        for path in ["clipper-metrics/admin_password", "clipper-metrics"] {
            let error = written(&tar_with(path, EntryType::Symlink)).unwrap_err();
            assert!(error.to_string().contains("is a symbolic link"), "{path}: {error}");
        }
        let own = tar_of(&[("clipper-metrics/version", b"1"), ("clipper-metrics/stray", b"s")]);
        let files = written(&own).unwrap();
        assert_eq!(files.iter().filter(|path| path.starts_with("grafana-own/")).count(), 1, "{files:?}");
    }

    #[test]
    fn two_writers_to_one_name_do_not_interfere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let slow = New::create(&path).unwrap();
        written(&path).unwrap();
        let (sender, parts) = tokio::sync::mpsc::channel(8);
        let influxdb = tar_of(&[("d/b.meta", b"b"), ("d/c.manifest", EMPTY)]);
        for (folder, bytes) in
            [(ArchiveFolder::Influxdb, influxdb), (ArchiveFolder::Grafana, tar_of(&[("grafana.db", b"db")]))]
        {
            sender.blocking_send(Part::Below(folder)).unwrap();
            sender.blocking_send(Part::Bytes(bytes)).unwrap();
        }
        sender.blocking_send(Part::End).unwrap();
        let error = slow.write(&manifest(), parts).unwrap_err();
        assert!(error.to_string().contains("already exists"), "{error}");
        assert_eq!(opened(&path).unwrap(), manifest());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
