//! The file that `backup` writes and `restore` reads: a compressed tar archive with a manifest at its end,
//! which holds the digest of every file before it.
//!
//! Knows the format. Everything streams: memory does not grow with the data. Must not know where the data
//! comes from or goes to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender};

use crate::core::stack::Remembered;
use crate::error::{Error, Result};

/// The number of this format.
const FORMAT: u64 = 1;
/// The last entry.
const MANIFEST: &str = "manifest.json";
/// A manifest is some kilobytes; more is none.
const MANIFEST_LIMIT: u64 = 16 << 20;
/// What is handed on at once.
const CHUNK: usize = 64 << 10;

/// What an archive says of the instance that it was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The instance's name.
    pub instance: String,
    /// When it was made, in milliseconds since 1970.
    pub made_at: i64,
    /// The remembered settings.
    pub settings: BTreeMap<String, Remembered>,
    /// The database that Clipper writes to.
    pub database: String,
    /// Every database but InfluxDB's own, and whether it holds anything.
    pub databases: BTreeMap<String, bool>,
    /// InfluxDB's version.
    pub influxdb: String,
    /// Grafana's version.
    pub grafana: String,
}

/// A part of an archive that is being written.
pub enum Part {
    /// What follows is a tar archive, whose files go below this folder.
    Below(&'static str),
    /// Bytes of it.
    Bytes(Vec<u8>),
    /// Everything was handed over; without it, the archive is not finished.
    End,
}

/// Writes an archive from parts, under another name until it is whole; how many bytes it has. What was
/// begun and not finished is removed.
///
/// # Errors
/// [`Error::File`] when there is a file of that name, [`Error::Io`] when it cannot be written.
pub fn write(path: &Path, manifest: &Manifest, parts: Receiver<Part>) -> Result<u64> {
    let partial = partial(path);
    let result = write_partial(path, &partial, manifest, parts);
    if result.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    result
}

/// The name of an archive until it is whole.
#[must_use]
pub fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    path.with_file_name(name)
}

/// Nothing is in the place of a new archive.
///
/// # Errors
/// [`Error::File`] when something is.
pub fn expect_free(path: &Path) -> Result<()> {
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    Err(Error::File {
        path: path.into(),
        line: None,
        message: "exists already".into(),
        hint: "give another name, or remove that file".into(),
    })
}

fn write_partial(path: &Path, partial: &Path, manifest: &Manifest, parts: Receiver<Part>) -> Result<u64> {
    let io = |source| Error::Io { doing: format!("write {}", path.display()), source };
    expect_free(path)?;
    let file = create(partial).map_err(io)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
    let mut files = serde_json::Map::new();
    let mut parts = Parts { received: parts, bytes: Vec::new(), at: 0, next: None, is_whole: false };
    while let Some(folder) = parts.begin() {
        copy_below(folder, &mut parts, &mut archive, &mut files).map_err(io)?;
    }
    if !parts.is_whole {
        return Err(io(io::Error::other("what it is made of broke off")));
    }
    let text = manifest.json(&files).to_string();
    archive.append(&header(MANIFEST, text.len() as u64).map_err(io)?, text.as_bytes()).map_err(io)?;
    let file = archive.into_inner().and_then(GzEncoder::finish).map_err(io)?;
    file.sync_all().map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    // Not over a file that somebody made meanwhile; where the disk knows no links, after one more look.
    if std::fs::hard_link(partial, path).is_ok() {
        std::fs::remove_file(partial).map_err(io)?;
    } else {
        expect_free(path)?;
        std::fs::rename(partial, path).map_err(io)?;
    }
    Ok(length)
}

/// A new file that only this user may read: it holds passwords.
fn create(path: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn copy_below(
    folder: &str,
    from: &mut Parts,
    archive: &mut tar::Builder<GzEncoder<File>>,
    files: &mut serde_json::Map<String, Value>,
) -> io::Result<()> {
    {
        let mut inner = tar::Archive::new(&mut *from);
        for entry in inner.entries()? {
            let entry = entry?;
            let Some(name) = name_of(&entry)? else { continue };
            let name = format!("{folder}/{name}");
            let size = entry.header().size()?;
            let mut hashing = Hashing::new(entry);
            archive.append(&header(&name, size)?, &mut hashing)?;
            files.insert(name, json!({"size": size, "sha256": hashing.digest()}));
        }
    }
    // What a tar archive has behind its end.
    io::copy(from, &mut io::sink()).map(drop)
}

/// A regular file's name without folders; nothing for anything else.
fn name_of<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<Option<String>> {
    if !entry.header().entry_type().is_file() {
        return Ok(None);
    }
    let path = entry.path()?;
    Ok(path.file_name().and_then(|name| name.to_str()).map(String::from))
}

fn header(path: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

/// Reads the whole archive and compares every file with its digest; what it says of itself.
///
/// # Errors
/// [`Error::File`] when it is none, was cut off or altered, or is of another format.
pub fn verify(path: &Path) -> Result<Manifest> {
    let bad = |message: String| Error::File {
        path: path.into(),
        line: None,
        message,
        hint: "give an archive that clipper-metrics wrote; nothing was made of this one".into(),
    };
    let broken = |why: io::Error| bad(format!("is damaged or no such archive: {why}"));
    let mut archive = tar::Archive::new(open(path).map_err(|why| bad(format!("cannot be read: {why}")))?);
    let mut found = serde_json::Map::new();
    let mut manifest = None;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.to_string_lossy().into_owned();
        if manifest.is_some() {
            return Err(bad("holds something behind its manifest".into()));
        }
        if name == MANIFEST {
            let mut text = String::new();
            (&mut entry).take(MANIFEST_LIMIT).read_to_string(&mut text).map_err(broken)?;
            manifest =
                Some(serde_json::from_str::<Value>(&text).map_err(|why| bad(format!("has no manifest: {why}")))?);
            continue;
        }
        let size = entry.header().size().map_err(broken)?;
        let mut hashing = Hashing::new(entry);
        io::copy(&mut hashing, &mut io::sink()).map_err(broken)?;
        found.insert(name, json!({"size": size, "sha256": hashing.digest()}));
    }
    // The checksum of the compression stands at the very end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    let manifest = manifest.ok_or_else(|| bad("has no manifest: it was cut off".into()))?;
    if manifest["format"] != FORMAT {
        return Err(bad(format!("is of format {}, and this program reads {FORMAT}", manifest["format"])));
    }
    if manifest["files"] != Value::Object(found) {
        return Err(bad("was altered: its files are not those of its manifest".into()));
    }
    Manifest::read(&manifest).ok_or_else(|| bad("has a manifest that cannot be read".into()))
}

/// Hands on the files below a folder as a tar archive of their own, all in `into`.
///
/// # Errors
/// [`Error::Io`] when the archive cannot be read; where nobody takes it any more, that is the end.
pub fn extract(path: &Path, folder: &str, into: &Target, sink: Sender<Vec<u8>>) -> Result<()> {
    let io = |source| Error::Io { doing: format!("read {}", path.display()), source };
    let mut archive = tar::Archive::new(open(path).map_err(io)?);
    let mut out = tar::Builder::new(Chunks { sink, bytes: Vec::with_capacity(CHUNK) });
    let place = |mut header: tar::Header, mode: u32| {
        header.set_mode(mode);
        header.set_uid(into.owner.0);
        header.set_gid(into.owner.1);
        header.set_cksum();
        header
    };
    if let Some(name) = into.folder {
        let mut folder = header(&format!("{name}/"), 0).map_err(io)?;
        folder.set_entry_type(tar::EntryType::Directory);
        out.append(&place(folder, into.folder_mode), io::empty()).map_err(io)?;
    }
    for entry in archive.entries().map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.path().map_err(io)?.to_string_lossy().into_owned();
        let Some(name) = name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else { continue };
        let name = into.folder.map_or_else(|| name.to_string(), |folder| format!("{folder}/{name}"));
        let size = entry.header().size().map_err(io)?;
        let file = place(header(&name, size).map_err(io)?, into.file_mode);
        if out.append(&file, entry).is_err() {
            return Ok(());
        }
    }
    let _ = out.into_inner().and_then(|mut chunks| chunks.flush());
    Ok(())
}

/// Where extracted files go.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// A folder that is made for them.
    pub folder: Option<&'static str>,
    /// User and group.
    pub owner: (u64, u64),
    /// The mode of the folder.
    pub folder_mode: u32,
    /// The mode of every file.
    pub file_mode: u32,
}

fn open(path: &Path) -> io::Result<MultiGzDecoder<io::BufReader<File>>> {
    Ok(MultiGzDecoder::new(io::BufReader::new(File::open(path)?)))
}

impl Manifest {
    fn json(&self, files: &serde_json::Map<String, Value>) -> Value {
        let settings: serde_json::Map<String, Value> = self
            .settings
            .iter()
            .map(|(name, one)| (name.clone(), json!({"value": one.value, "of_file": one.of_file})))
            .collect();
        json!({
            "format": FORMAT, "instance": self.instance, "made_at": self.made_at, "settings": settings,
            "database": self.database, "databases": self.databases, "influxdb": self.influxdb, "grafana": self.grafana, "files": files,
        })
    }

    fn read(json: &Value) -> Option<Self> {
        let text = |name: &str| json[name].as_str().map(String::from);
        let settings = json["settings"].as_object()?.iter().map(|(name, one)| {
            let value = one["value"].as_str()?.to_string();
            Some((name.clone(), Remembered { value, of_file: one["of_file"].as_bool()? }))
        });
        let databases =
            json["databases"].as_object()?.iter().map(|(name, holds)| Some((name.clone(), holds.as_bool()?)));
        Some(Self {
            instance: text("instance")?,
            made_at: json["made_at"].as_i64()?,
            settings: settings.collect::<Option<_>>()?,
            database: text("database")?,
            databases: databases.collect::<Option<_>>()?,
            influxdb: text("influxdb")?,
            grafana: text("grafana")?,
        })
    }
}

/// Reads the bytes of one part, up to the next.
struct Parts {
    received: Receiver<Part>,
    bytes: Vec<u8>,
    at: usize,
    next: Option<&'static str>,
    is_whole: bool,
}

impl Parts {
    /// The folder of the next part, if there is one.
    fn begin(&mut self) -> Option<&'static str> {
        if self.is_whole {
            return None;
        }
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
        Ok(length)
    }
}

/// Hands on what is written, in chunks.
struct Chunks {
    sink: Sender<Vec<u8>>,
    bytes: Vec<u8>,
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
        let full = std::mem::replace(&mut self.bytes, Vec::with_capacity(CHUNK));
        self.sink.blocking_send(full).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads and digests.
struct Hashing<R> {
    inner: R,
    context: Context,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, context: Context::new(&SHA256) }
    }

    fn digest(self) -> String {
        self.context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.context.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            builder.append(&header(name, content.len() as u64).unwrap(), *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn manifest() -> Manifest {
        let settings = [("database".to_string(), Remembered { value: "d".into(), of_file: true })].into();
        Manifest {
            instance: "x".into(),
            made_at: 7,
            settings,
            database: "d".into(),
            databases: [("d".to_string(), true), ("empty".into(), false)].into(),
            influxdb: "1.12.4".into(),
            grafana: "12.4.10".into(),
        }
    }

    fn written(path: &Path) -> Result<u64> {
        let (sender, parts) = tokio::sync::mpsc::channel(64);
        let big = vec![7; 300_000];
        for (folder, files) in
            [("influxdb", vec![("dir/a", &big[..]), ("dir/b", b"bb")]), ("grafana", vec![("grafana.db", b"db")])]
        {
            sender.blocking_send(Part::Below(folder)).unwrap();
            for chunk in tar_of(&files).chunks(50_000) {
                sender.blocking_send(Part::Bytes(chunk.to_vec())).unwrap();
            }
        }
        sender.blocking_send(Part::End).unwrap();
        write(path, &manifest(), parts)
    }

    #[test]
    fn what_was_written_is_verified_and_extracted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(written(&path).unwrap() < 10_000, "compressed");
        assert_eq!(verify(&path).unwrap(), manifest());
        assert!(!partial(&path).exists());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (sink, mut chunks) = tokio::sync::mpsc::channel(64);
        let into = Target { folder: Some("r"), owner: (5, 6), folder_mode: 0o777, file_mode: 0o644 };
        extract(&path, "influxdb", &into, sink).unwrap();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.blocking_recv() {
            bytes.extend(chunk);
        }
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
        assert_eq!(found, [("r/".into(), 0, 5), ("r/a".into(), 300_000, 5), ("r/b".into(), 2, 5)]);
        // It is not written over.
        assert!(written(&path).is_err());
        assert_eq!(verify(&path).unwrap(), manifest());
    }

    #[test]
    fn what_breaks_off_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (sender, parts) = tokio::sync::mpsc::channel(64);
        sender.blocking_send(Part::Below("grafana")).unwrap();
        sender.blocking_send(Part::Bytes(tar_of(&[("grafana.db", b"db")]))).unwrap();
        drop(sender);
        assert!(write(&path, &manifest(), parts).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_cut_off_or_altered_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        written(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let with = |bytes: &[u8]| {
            let path = folder.path().join("b");
            std::fs::write(&path, bytes).unwrap();
            verify(&path)
        };
        for cut in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
            assert!(with(&whole[..cut]).is_err(), "cut off after {cut}");
        }
        for at in (10..whole.len()).step_by(37) {
            let mut altered = whole.clone();
            altered[at] ^= 0x20;
            assert!(with(&altered).is_err() || with(&altered).unwrap() == manifest(), "altered at {at}");
        }
        // One that was made anew with another file, and the old manifest.
        let mut plain = Vec::new();
        MultiGzDecoder::new(&whole[..]).read_to_end(&mut plain).unwrap();
        let at = plain.windows(2).position(|pair| pair == b"bb").unwrap();
        plain[at] = b'x';
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain).unwrap();
        let error = with(&encoder.finish().unwrap()).unwrap_err();
        assert!(error.to_string().contains("was altered"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_file_holds_it_is_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            assert!(verify(file.path()).is_err());
        }
    }
}
