//! Verifies an archive completely, and then extracts its folders from the same open file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use tokio::sync::mpsc::Sender;

use super::content::{Content, Hashing};
use super::format::{
    ArchiveFolder, FORMAT, Files, Format, LastEntry, MANIFEST, MANIFEST_LIMIT, Manifest, begins_archive, expect_size,
    header, invalid, is_plain,
};
use crate::engine::tar_stream::{Entries, Entry};
use crate::error::{Error, Result};
use crate::model::text::excerpt;

/// The expanded size that every archive may have; beyond it, the limit is a multiple of the archive's size.
const EXPANDED: u64 = 1 << 30;
const EXPANSION: u64 = 100;
/// The maximum padding after the last entry.
const END_LIMIT: u64 = 64 << 10;
/// The size of one chunk.
const CHUNK: usize = 64 << 10;

/// A verified archive. Its file stays open, so that the restored bytes are the verified ones.
#[derive(Debug)]
pub struct Verified {
    path: PathBuf,
    file: File,
    /// The archive's description of its instance.
    pub(crate) manifest: Manifest,
    /// The digest of its manifest, which contains the digests of its files.
    pub(crate) digest: String,
    pub(super) files: Files,
}

impl Verified {
    /// Reads the whole archive and compares every file with its digest.
    ///
    /// # Errors
    /// [`Error::File`] if it is not an archive, is truncated, altered or in another format, or
    /// contains anything that `backup` does not write.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |message: String| unusable(path, message, "use an archive that clipper-metrics wrote");
        let unreadable = |why: io::Error| bad(format!("cannot be read: {why}"));
        // Opening a pipe would wait for its other end.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(bad("is not a regular file".into()));
        }
        let file = File::open(path).map_err(unreadable)?;
        let mut document = None;
        let content = verify(&file, &mut document);
        if let Some(document) = &document {
            expect_format(path, document)?;
        }
        let content = content.map_err(|why| bad(format!("is damaged or not an archive of clipper-metrics: {why}")))?;
        let document = document.ok_or_else(|| bad("has no manifest: it is truncated".into()))?;
        let LastEntry { manifest, files, .. } = serde_json::from_slice(&document)
            .map_err(|why| bad(format!("has a manifest that cannot be read: {why}")))?;
        if files != content.files {
            return Err(bad("was altered: its files do not match its manifest".into()));
        }
        let holding = content.databases().map_err(|why| bad(format!("cannot be restored: {why}")))?;
        if let Some(name) = holding.iter().find(|name| manifest.databases.get(*name) != Some(&true)) {
            return Err(bad(format!("was altered: its manifest does not name database {}", excerpt(name, 60))));
        }
        let mut hashing = Hashing::new(&document[..]);
        io::copy(&mut hashing, &mut io::sink()).map_err(unreadable)?;
        Ok(Self { path: path.into(), file, manifest, digest: hashing.digest(), files })
    }

    /// Sends the files of a folder as a separate tar archive, all in `into`. Stops if a file no
    /// longer matches its digest.
    ///
    /// # Errors
    /// [`Error::Io`] if the archive cannot be read. A closed receiver is not an error.
    pub(crate) fn extract(
        &self,
        folder: ArchiveFolder,
        into: &RestoreTarget,
        sink: Sender<io::Result<Vec<u8>>>,
    ) -> Result<()> {
        let mut out = tar::Builder::new(Chunks { sink, bytes: Vec::with_capacity(CHUNK), is_broken: false });
        let result = self.extract_into(&mut out, folder, into);
        match result {
            Ok(()) => {
                let _ = out.into_inner().and_then(|mut chunks| chunks.flush());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(source) => {
                out.get_mut().break_off();
                Err(Error::Io { doing: format!("read {}", self.path.display()), source })
            }
        }
    }

    fn extract_into(
        &self,
        out: &mut tar::Builder<Chunks>,
        folder: ArchiveFolder,
        into: &RestoreTarget,
    ) -> io::Result<()> {
        let mut entries = Entries::new(expanded(&self.file)?);
        let place = |mut header: tar::Header, mode: u32| {
            header.set_mode(mode);
            header.set_uid(into.owner.0);
            header.set_gid(into.owner.1);
            header.set_cksum();
            header
        };
        if let Some(name) = into.folder {
            let mut folder = header(&format!("{name}/"), 0)?;
            folder.set_entry_type(tar::EntryType::Directory);
            out.append(&place(folder, into.folder_mode), io::empty())?;
        }
        let is_inside = |path: &&str| split(path).is_some_and(|(of, name)| of == folder && folder.admits(name));
        let mut left: BTreeSet<&str> = self.files.keys().map(String::as_str).filter(is_inside).collect();
        while !left.is_empty() {
            let changed = || invalid("it changed after it was verified".into());
            let entry = entries.next()?.ok_or_else(changed)?;
            let Some((_, name)) = split(&entry.path).filter(|(of, name)| *of == folder && of.admits(name)) else {
                continue;
            };
            let facts = self.files.get(&entry.path).filter(|facts| facts.size == entry.size).ok_or_else(changed)?;
            let name = into.folder.map_or_else(|| name.to_string(), |folder| format!("{folder}/{name}"));
            let mut hashing = Hashing::new(&mut entries);
            out.append(&place(header(&name, entry.size)?, into.file_mode), &mut hashing)?;
            if hashing.digest() != facts.sha256 {
                return Err(changed());
            }
            left.remove(entry.path.as_str());
        }
        Ok(())
    }
}

fn unusable(path: &Path, message: String, hint: &str) -> Error {
    let hint = format!("{hint}; nothing was restored from this file");
    Error::File { path: path.into(), line: None, message, hint }
}

/// Checks the format that a manifest names. A manifest without one is invalid, which its parser reports.
fn expect_format(path: &Path, document: &[u8]) -> Result<()> {
    let Ok(Format { format }) = serde_json::from_slice(document) else { return Ok(()) };
    if format == FORMAT {
        return Ok(());
    }
    let is_newer = format.as_u64().is_some_and(|format| format > FORMAT);
    let hint = if is_newer { "use a newer clipper-metrics" } else { "use an archive that clipper-metrics wrote" };
    let format = excerpt(&format.to_string(), 20);
    Err(unusable(path, format!("has format {format}, but this program reads format {FORMAT}"), hint))
}

/// Reads an archive completely, unless its first entry shows that `backup` did not write it; returns its content. The
/// manifest is stored in `document` even if the content is no backup in this format, because another format may contain
/// anything after its first entry.
fn verify(file: &File, document: &mut Option<Vec<u8>>) -> io::Result<Content> {
    let mut entries = Entries::new(expanded(file)?);
    let mut content = Ok(Content::default());
    let mut is_first = true;
    loop {
        let entry = match entries.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(why) => return content.and(Err(why)),
        };
        if std::mem::take(&mut is_first) && !begins_archive(&entry.path) {
            return Err(stray(&entry));
        }
        let added = match &mut content {
            _ if entry.path == MANIFEST && document.is_none() => read_manifest(&entry, &mut entries, document),
            Ok(_) if document.is_some() => Err(invalid("it contains data after its manifest".into())),
            Ok(content) => add(&entry, &mut entries, content),
            Err(_) => Ok(()),
        };
        // The first error explains the others.
        content = content.and_then(|content| added.map(|()| content));
    }
    let content = content?;
    expect_end(entries)?;
    Ok(content)
}

fn read_manifest(entry: &Entry, entries: &mut Entries<impl Read>, document: &mut Option<Vec<u8>>) -> io::Result<()> {
    entry.expect_file()?;
    expect_size(MANIFEST, entry.size, MANIFEST_LIMIT)?;
    let mut text = Vec::new();
    entries.read_to_end(&mut text)?;
    *document = Some(text);
    Ok(())
}

fn add(entry: &Entry, entries: &mut Entries<impl Read>, content: &mut Content) -> io::Result<()> {
    entry.expect_file()?;
    let (folder, name) = split(&entry.path).ok_or_else(|| stray(entry))?;
    content.add(folder, name, entry.size, entries, |_, content| io::copy(content, &mut io::sink()).map(drop))
}

/// The error for an entry that `backup` does not write.
fn stray(entry: &Entry) -> io::Error {
    invalid(format!("it contains {}, which is not part of a backup", excerpt(&entry.path, 100)))
}

/// Reads the padding, which the checksum of the compression follows.
fn expect_end(entries: Entries<Limited<GzDecoder<io::BufReader<&File>>>>) -> io::Result<()> {
    let mut source = entries.into_inner();
    if io::copy(&mut (&mut source).take(END_LIMIT), &mut io::sink())? == END_LIMIT {
        return Err(invalid("it contains data after its end".into()));
    }
    let mut file = source.inner.into_inner();
    if file.read(&mut [0])? > 0 {
        return Err(invalid("it contains data after its end".into()));
    }
    Ok(())
}

/// The folder and name of a file in an archive. Earlier versions also packed stray files next to
/// those of clipper-metrics, which are verified but not extracted.
fn split(path: &str) -> Option<(ArchiveFolder, &str)> {
    let (folder, name) = path.split_once('/')?;
    let folder = ArchiveFolder::ALL.into_iter().find(|one| one.name() == folder)?;
    let is_stray = folder == ArchiveFolder::Own && is_plain(name);
    (folder.admits(name) || is_stray).then_some((folder, name))
}

/// An archive's tar stream from its start.
fn expanded(mut file: &File) -> io::Result<Limited<GzDecoder<io::BufReader<&File>>>> {
    file.rewind()?;
    let left = file.metadata()?.len().saturating_mul(EXPANSION).saturating_add(EXPANDED);
    Ok(Limited { inner: GzDecoder::new(io::BufReader::new(file)), left })
}

/// Reads at most a limit, and fails beyond it.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(length as u64)
            .ok_or_else(|| invalid(format!("it expands to more than {EXPANSION} times its size")))?;
        Ok(length)
    }
}

/// The place and attributes of extracted files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RestoreTarget {
    /// The folder to create for them.
    pub(crate) folder: Option<&'static str>,
    /// User and group.
    pub(crate) owner: (u64, u64),
    pub(crate) folder_mode: u32,
    pub(crate) file_mode: u32,
}

/// Sends written bytes in chunks.
struct Chunks {
    sink: Sender<io::Result<Vec<u8>>>,
    bytes: Vec<u8>,
    is_broken: bool,
}

impl Chunks {
    /// Ends the stream as incomplete.
    fn break_off(&mut self) {
        let _ = self.sink.blocking_send(Err(io::ErrorKind::UnexpectedEof.into()));
        self.is_broken = true;
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let full = std::mem::replace(&mut self.bytes, Vec::with_capacity(CHUNK));
        self.sink.blocking_send(Ok(full)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::EntryType;

    use super::super::format::{MOST_FILES, OWN_LIMIT};
    use super::super::samples::*;
    use super::*;
    use crate::engine::tar_stream::BLOCK;

    #[test]
    fn a_written_archive_is_verified_and_extracted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(written(&path).unwrap() < 10_000, "compressed");
        assert_eq!(opened(&path).unwrap(), manifest());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let into = RestoreTarget { folder: Some("r"), owner: (5, 6), folder_mode: 0o777, file_mode: 0o644 };
        let bytes = extracted(&Verified::open(&path).unwrap(), ArchiveFolder::Influxdb, into).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (
                    entry.path().unwrap().display().to_string(),
                    entry.header().size().unwrap(),
                    entry.header().uid().unwrap(),
                )
            })
            .collect();
        let index = INDEX_OF_A.len() as u64;
        let desired = [("r/", 0), ("r/a.tar.gz", 300_000), ("r/b.meta", 2), ("r/c.manifest", index)];
        assert_eq!(found, desired.map(|(name, size)| (name.to_string(), size, 5)));
        // It is not overwritten.
        assert!(written(&path).is_err());
        assert_eq!(opened(&path).unwrap(), manifest());
    }

    #[test]
    fn the_verified_file_is_restored_even_if_its_name_now_leads_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        written(&path).unwrap();
        let verified = Verified::open(&path).unwrap();
        std::fs::rename(&path, folder.path().join("b")).unwrap();
        std::fs::write(&path, b"something else").unwrap();
        let bytes = extracted(&verified, ArchiveFolder::Grafana, PLAIN).unwrap();
        assert_eq!(&bytes[BLOCK..BLOCK + 2], b"db");
        // A file that is overwritten in place no longer matches its digest.
        let other = folder.path().join("other");
        written_of(
            &other,
            &tar_of(&[("dir/b.meta", b"bb"), ("dir/c.manifest", EMPTY)]),
            &tar_of(&[("grafana.db", b"xx")]),
        )
        .unwrap();
        std::fs::write(folder.path().join("b"), std::fs::read(&other).unwrap()).unwrap();
        let error = extracted(&verified, ArchiveFolder::Grafana, PLAIN).unwrap_err();
        assert!(error.to_string().contains("changed after it was verified"), "{error}");
    }

    #[test]
    fn sizes_too_large_for_a_header_are_read_from_its_extension() {
        // The result of Go's writer, with a size that fits a test: the header says 0.
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in [("d/b.meta", &b"b"[..]), ("d/c.manifest", INDEX_OF_A)] {
            builder.append(&header(name, content.len() as u64).unwrap(), content).unwrap();
        }
        builder.append_pax_extensions([("size", b"3".as_slice())]).unwrap();
        builder.append(&header("d/a.tar.gz", 0).unwrap(), io::empty()).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        let end = bytes.len() - 2 * BLOCK;
        let mut content = vec![0; BLOCK];
        content[..3].copy_from_slice(b"aaa");
        bytes.splice(end..end, content);
        let folder = tempfile::tempdir().unwrap();
        written_beside(folder.path(), &bytes).unwrap();
        let verified = Verified::open(&folder.path().join("a")).unwrap();
        let found = extracted(&verified, ArchiveFolder::Influxdb, PLAIN).unwrap();
        let mut archive = tar::Archive::new(&found[..]);
        let mut text = String::new();
        archive.entries().unwrap().nth(2).unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "aaa");
    }

    #[test]
    fn truncated_or_altered_archives_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        written(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let with = |bytes: &[u8]| {
            let path = folder.path().join("b");
            std::fs::write(&path, bytes).unwrap();
            opened(&path)
        };
        for cut in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
            assert!(with(&whole[..cut]).is_err(), "cut off after {cut}");
        }
        for at in (10..whole.len()).step_by(37) {
            let mut altered = whole.clone();
            altered[at] ^= 0x20;
            assert!(with(&altered).is_err() || with(&altered).unwrap() == manifest(), "altered at {at}");
        }
        // An archive recreated with another file and the old manifest.
        let mut plain = Vec::new();
        GzDecoder::new(&whole[..]).read_to_end(&mut plain).unwrap();
        let at = plain.windows(2).position(|pair| pair == b"bb").unwrap();
        plain[at] = b'x';
        let error = with(&compressed(&plain)).unwrap_err();
        assert!(error.to_string().contains("was altered"), "{error}");
    }

    #[test]
    fn a_crafted_archive_may_contain_only_the_files_of_a_backup() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = |bytes: &[u8], desired: &str| {
            std::fs::write(file.path(), bytes).unwrap();
            let error = Verified::open(file.path()).expect_err(desired).to_string();
            assert!(error.contains(desired), "{error}");
        };
        let own = vec![0; usize::try_from(OWN_LIMIT).unwrap() + 1];
        let none = "which is not part of a backup";
        let not_regular = "not a regular file";
        for (path, kind, content, desired) in [
            ("grafana/../../etc/cron.d/x", EntryType::Regular, &b"x"[..], none),
            ("grafana/plugins/x", EntryType::Regular, b"x", none),
            ("grafana-own/.x", EntryType::Regular, b"x", none),
            ("grafana-own/x/y", EntryType::Regular, b"x", none),
            ("grafana-own/x", EntryType::Regular, &own[..], "more than 65536"),
            ("grafana-own/x", EntryType::Symlink, b"", not_regular),
            ("influxdb/x", EntryType::Regular, b"x", none),
            ("influxdb/.meta", EntryType::Regular, b"x", none),
            ("influxdb/../x.meta", EntryType::Regular, b"x", none),
            ("/influxdb/x.meta", EntryType::Regular, b"x", none),
            ("x", EntryType::Regular, b"x", none),
            ("grafana/grafana.db-wal", EntryType::Symlink, b"", not_regular),
            ("grafana/grafana.db-wal", EntryType::Link, b"", not_regular),
            ("grafana/grafana.db-wal", EntryType::Directory, b"", not_regular),
            ("grafana/grafana.db-wal", EntryType::Fifo, b"", not_regular),
            ("grafana/grafana.db", EntryType::Regular, b"xx", "two files grafana/grafana.db"),
            ("grafana-own/admin_password", EntryType::Regular, &own[..], "more than 65536"),
        ] {
            refused(&crafted(&[&WHOLE[..], &[(path, kind, content)]].concat(), b""), desired);
        }
        for (missing, desired) in
            [(0, "influxdb/a.tar.gz is missing"), (2, "InfluxDB's files"), (3, "grafana.db is missing")]
        {
            let mut entries = WHOLE.to_vec();
            entries.remove(missing);
            refused(&crafted(&entries, b""), desired);
        }
        // Its end.
        refused(&crafted(&WHOLE, &vec![0; usize::try_from(END_LIMIT).unwrap()]), "data after its end");
        refused(&[crafted(&WHOLE, b""), compressed(b"x")].concat(), "data after its end");
        std::fs::write(file.path(), crafted(&WHOLE, b"")).unwrap();
        assert_eq!(opened(file.path()).unwrap(), manifest());
    }

    #[test]
    fn another_format_is_reported_before_anything_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = |format: &str, other: &[(&str, &[u8])]| {
            let manifest = format!(r#"{{"format": {format}}}"#);
            let files = [other, &[(MANIFEST, manifest.as_bytes())], other].concat();
            std::fs::write(file.path(), compressed(&tar_of(&files))).unwrap();
            let error = Verified::open(file.path()).unwrap_err();
            (error.to_string(), error.hint(&crate::model::invocation::Invocation::default()))
        };
        for path in ["influxdb/chunks/1", "grafana/grafana.db", "grafana-own/x/y"] {
            let (message, hint) = refused("2", &[(path, b"x"), ("prometheus/chunk", b"x")]);
            assert!(message.ends_with("has format 2, but this program reads format 1"), "{message}");
            assert!(hint.starts_with("use a newer clipper-metrics"), "{hint}");
        }
        let (message, hint) = refused("\"x\"", &[]);
        assert!(message.contains("has format") && !hint.contains("newer"), "{message} {hint}");
        // The first fault of an archive of this format is reported.
        let (message, _) = refused("1", &[("grafana/a", b"x"), ("grafana/b", b"x")]);
        assert!(message.contains("it contains grafana/a, which is not part of a backup"), "{message}");
    }

    #[test]
    fn an_archive_of_another_program_is_refused_after_its_first_entry() {
        let large = vec![0; 4 << 20];
        for first in ["photos/1.jpg", "influxdb2", "grafana-data/grafana.db", "x"] {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
            encoder.write_all(&tar_of(&[(first, &large), (MANIFEST, br#"{"format": 2}"#)])).unwrap();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&encoder.finish().unwrap()).unwrap();
            let why = verify(&file, &mut None).err().unwrap().to_string();
            assert!(why.contains(&format!("contains {first}, which is not part of a backup")), "{why}");
            let read = file.stream_position().unwrap();
            assert!(read <= 64 << 10, "{first}: {read} bytes were read");
        }
    }

    #[test]
    fn stray_files_that_earlier_versions_packed_are_verified_and_not_extracted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let own = [
            ("grafana-own/notes.txt", EntryType::Regular, &b"n"[..]),
            ("grafana-own/version", EntryType::Regular, b"12.4.10"),
        ];
        std::fs::write(file.path(), crafted(&[&WHOLE[..], &own].concat(), b"")).unwrap();
        let bytes = extracted(&Verified::open(file.path()).unwrap(), ArchiveFolder::Own, PLAIN).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let paths = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
        assert_eq!(paths.collect::<Vec<_>>(), [Path::new("version")]);
    }

    #[test]
    fn a_crafted_archive_takes_no_memory_for_names_and_no_time_for_zeros() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // The name of an entry takes 8 MiB, to which a few kilobytes expand.
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
            let name = vec![b'a'; 8 << 20];
            std::fs::write(file.path(), crafted(&[("x", kind, &name)], b"")).unwrap();
            let error = opened(file.path()).unwrap_err().to_string();
            assert!(error.contains("the name or the attributes of an entry take 8388608 bytes"), "{kind:?}: {error}");
        }
        let mut limited = Limited { inner: io::repeat(0), left: 1 << 20 };
        let error = io::copy(&mut limited, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("expands"), "{error}");
        // InfluxDB's list becomes larger when it is parsed.
        let listed = |entries: usize| {
            let files = vec![r#"{"fileName":"a.tar.gz"}"#; entries].join(",");
            format!(r#"{{"meta":{{"fileName":"b.meta"}},"files":[{files}]}}"#).into_bytes()
        };
        let many = listed(MOST_FILES + 1);
        let mut entries = WHOLE.to_vec();
        entries[2].2 = &many;
        std::fs::write(file.path(), crafted(&entries, b"")).unwrap();
        let error = opened(file.path()).unwrap_err().to_string();
        assert!(error.contains("a list of at most 50000 files"), "{error}");
        let mut entries = WHOLE.to_vec();
        entries.insert(3, ("influxdb/d.manifest", EntryType::Regular, INDEX_OF_A));
        std::fs::write(file.path(), crafted(&entries, b"")).unwrap();
        let error = opened(file.path()).unwrap_err().to_string();
        assert!(error.contains("influxdb/d.manifest is a second list"), "{error}");
        // A manifest is read only within its limit.
        let mut builder = tar::Builder::new(Vec::new());
        let text = vec![b' '; usize::try_from(MANIFEST_LIMIT).unwrap() + 1];
        builder.append(&header(MANIFEST, text.len() as u64).unwrap(), &text[..]).unwrap();
        std::fs::write(file.path(), compressed(&builder.into_inner().unwrap())).unwrap();
        assert!(opened(file.path()).unwrap_err().to_string().contains("manifest.json has 16777217 bytes"));
    }

    #[cfg(unix)]
    #[test]
    fn opening_something_other_than_a_file_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let error = opened(folder.path()).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        assert!(opened(Path::new("/dev/null")).unwrap_err().to_string().contains("not a regular file"));
    }

    proptest::proptest! {
        #[test]
        fn no_file_causes_a_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            assert!(opened(file.path()).is_err());
        }
    }
}
