//! The file that `backup` writes and `restore` reads: a compressed tar archive with a manifest at its end,
//! which holds the digest of every file before it.
//!
//! Knows the format. Everything streams: memory does not grow with the data. Must not know where the data
//! comes from or goes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
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
/// What InfluxDB calls the list of a portable backup's files.
const INDEX: &str = ".manifest";
/// Two blocks of zeros end a tar archive.
const BLOCK: usize = 512;

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

/// A new archive under a name of its own until it is whole; dropped, it leaves nothing.
pub struct New {
    path: PathBuf,
    file: NamedTempFile,
}

impl New {
    /// Makes the file beside the place where the archive will be, readable for its owner alone.
    ///
    /// # Errors
    /// [`Error::File`] when there is a file of that name, [`Error::Io`] when none can be made there.
    pub fn create(path: &Path) -> Result<Self> {
        expect_free(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(".partial").tempfile_in(folder);
        Ok(Self { path: path.into(), file: file.map_err(writing(path))? })
    }

    /// Fills it from parts and gives it its name; how many bytes it has. Which databases hold anything is
    /// told by InfluxDB's copy.
    ///
    /// # Errors
    /// [`Error::File`] when a file of that name was made meanwhile, [`Error::Io`] when it cannot be written or
    /// what it is made of is not whole.
    pub fn write(self, manifest: &Manifest, parts: Receiver<Part>) -> Result<u64> {
        let Self { path, file } = self;
        let io = writing(&path);
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
        let mut copied = Copied::default();
        let mut parts = Parts { received: parts, bytes: Vec::new(), at: 0, next: None, is_whole: false, zeros: 0 };
        while let Some(folder) = parts.begin() {
            copy_below(folder, &mut parts, &mut archive, &mut copied).map_err(&io)?;
        }
        if !parts.is_whole {
            return Err(io(io::Error::other("what it is made of broke off")));
        }
        let mut manifest = manifest.clone();
        let holding = copied.databases().map_err(&io)?;
        manifest.databases = manifest.databases.into_keys().map(|name| (name, false)).collect();
        manifest.databases.extend(holding.into_iter().map(|name| (name, true)));
        let text = manifest.json(&copied.files).to_string();
        archive.append(&header(MANIFEST, text.len() as u64).map_err(&io)?, text.as_bytes()).map_err(&io)?;
        let file = archive.into_inner().and_then(GzEncoder::finish).map_err(&io)?;
        file.as_file().sync_all().map_err(&io)?;
        let length = file.as_file().metadata().map_err(&io)?.len();
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(length),
            // Somebody was faster, or the disk knows no way that spares an existing file: one more look.
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
            // What the file is made of, not the file.
            io::ErrorKind::Other => Error::Raced { doing, why: source.to_string() },
            _ => Error::Io { doing, source },
        }
    }
}

/// Nothing is in the place of a new archive.
///
/// # Errors
/// [`Error::File`] when something is.
pub fn expect_free(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(writing(path)(why)),
        Ok(_) => Err(Error::File {
            path: path.into(),
            line: None,
            message: "exists already".into(),
            hint: "give another name, or remove that file".into(),
        }),
    }
}

/// What an archive got so far.
#[derive(Default)]
struct Copied {
    /// Size and digest of every file.
    files: serde_json::Map<String, Value>,
    /// What InfluxDB's portable backup says of itself, with the folder that it stands in.
    indexes: Vec<(String, Value)>,
}

impl Copied {
    /// The databases in InfluxDB's backup, but for its own.
    ///
    /// # Errors
    /// When its list is missing, or a file that the list names.
    fn databases(&self) -> io::Result<BTreeSet<String>> {
        let missing =
            |what: &str| io::Error::other(format!("{what} is missing; another backup may have run at that time"));
        if self.indexes.is_empty() {
            return Err(missing("the list of InfluxDB's files"));
        }
        let mut found = BTreeSet::new();
        for (folder, index) in &self.indexes {
            // It holds none where every database is empty.
            for entry in index["files"].as_array().into_iter().flatten().chain([&index["meta"]]) {
                let name = format!("{folder}/{}", entry["fileName"].as_str().unwrap_or_default());
                if !self.files.contains_key(&name) {
                    return Err(missing(&name));
                }
                found.extend(entry["database"].as_str().filter(|name| *name != "_internal").map(String::from));
            }
        }
        Ok(found)
    }
}

fn copy_below<W: Write>(
    folder: &str,
    from: &mut Parts,
    archive: &mut tar::Builder<W>,
    copied: &mut Copied,
) -> io::Result<()> {
    {
        let mut inner = tar::Archive::new(&mut *from);
        for entry in inner.entries()? {
            let mut entry = entry?;
            let Some(file) = name_of(&entry)? else { continue };
            let name = format!("{folder}/{file}");
            // Not the header's: more than 8 GiB stand in an extension.
            let size = entry.size();
            let digest = if file.ends_with(INDEX) && size <= MANIFEST_LIMIT {
                let mut text = Vec::new();
                entry.read_to_end(&mut text)?;
                copied.indexes.push((folder.into(), serde_json::from_slice(&text)?));
                append(archive, &name, size, &text[..])?
            } else {
                append(archive, &name, size, entry)?
            };
            copied.files.insert(name, json!({"size": size, "sha256": digest}));
        }
    }
    // What a tar archive has behind its end.
    io::copy(from, &mut io::sink())?;
    // An engine that cannot read on closes the stream as if that were all.
    if from.zeros < 2 * BLOCK { Err(io::Error::other(format!("the copy of {folder} broke off"))) } else { Ok(()) }
}

/// Appends a file; its digest.
fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, size: u64, content: impl Read) -> io::Result<String> {
    let mut hashing = Hashing::new(content);
    archive.append(&header(name, size)?, &mut hashing)?;
    if hashing.length != size {
        return Err(io::Error::other(format!("{name} has {} bytes of {size}", hashing.length)));
    }
    Ok(hashing.digest())
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
        let size = entry.size();
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

/// Hands on the files below a folder as a tar archive of their own, all in `into`. What takes them learns
/// when that broke off.
///
/// # Errors
/// [`Error::Io`] when the archive cannot be read; where nobody takes it any more, that is the end.
pub fn extract(path: &Path, folder: &str, into: &Target, sink: Sender<io::Result<Vec<u8>>>) -> Result<()> {
    let mut out = tar::Builder::new(Chunks { sink, bytes: Vec::with_capacity(CHUNK), is_broken: false });
    let result = extract_into(&mut out, path, folder, into);
    match result {
        Ok(()) => {
            let _ = out.into_inner().and_then(|mut chunks| chunks.flush());
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => {
            out.get_mut().break_off();
            Err(Error::Io { doing: format!("read {}", path.display()), source })
        }
    }
}

fn extract_into(out: &mut tar::Builder<Chunks>, path: &Path, folder: &str, into: &Target) -> io::Result<()> {
    let mut archive = tar::Archive::new(open(path)?);
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
    for entry in archive.entries()? {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let Some(name) = name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else { continue };
        let name = into.folder.map_or_else(|| name.to_string(), |folder| format!("{folder}/{name}"));
        let file = place(header(&name, entry.size())?, into.file_mode);
        out.append(&file, entry)?;
    }
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
    /// How many zeros were read last.
    zeros: usize,
}

impl Parts {
    /// The folder of the next part, if there is one.
    fn begin(&mut self) -> Option<&'static str> {
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

/// Hands on what is written, in chunks.
struct Chunks {
    sink: Sender<io::Result<Vec<u8>>>,
    bytes: Vec<u8>,
    is_broken: bool,
}

impl Chunks {
    /// Nothing more comes, and what came is not all.
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

/// Reads and digests.
struct Hashing<R> {
    inner: R,
    context: Context,
    length: u64,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, context: Context::new(&SHA256), length: 0 }
    }

    fn digest(self) -> String {
        self.context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.context.update(&buffer[..length]);
        self.length += length as u64;
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

    const INDEX_OF_A: &[u8] = br#"{"files": [{"database": "d", "fileName": "a"}], "meta": {"fileName": "b"}}"#;

    fn written(path: &Path) -> Result<u64> {
        let (sender, parts) = tokio::sync::mpsc::channel(64);
        let big = vec![7; 300_000];
        for (folder, files) in [
            ("influxdb", vec![("dir/a", &big[..]), ("dir/b", b"bb"), ("dir/c.manifest", INDEX_OF_A)]),
            ("grafana", vec![("grafana.db", b"db")]),
        ] {
            sender.blocking_send(Part::Below(folder)).unwrap();
            for chunk in tar_of(&files).chunks(50_000) {
                sender.blocking_send(Part::Bytes(chunk.to_vec())).unwrap();
            }
        }
        sender.blocking_send(Part::End).unwrap();
        New::create(path)?.write(&manifest(), parts)
    }

    #[test]
    fn what_was_written_is_verified_and_extracted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(written(&path).unwrap() < 10_000, "compressed");
        assert_eq!(verify(&path).unwrap(), manifest());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
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
            bytes.extend(chunk.unwrap());
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
        let index = INDEX_OF_A.len() as u64;
        let want = [("r/", 0), ("r/a", 300_000), ("r/b", 2), ("r/c.manifest", index)];
        assert_eq!(found, want.map(|(name, size)| (name.to_string(), size, 5)));
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
        assert!(New::create(&path).unwrap().write(&manifest(), parts).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// One part with everything behind it, as an engine sends it.
    fn written_of(folder: &Path, part: &[u8]) -> Result<u64> {
        let (sender, parts) = tokio::sync::mpsc::channel(64);
        sender.blocking_send(Part::Below("influxdb")).unwrap();
        sender.blocking_send(Part::Bytes(part.to_vec())).unwrap();
        sender.blocking_send(Part::End).unwrap();
        New::create(&folder.join("a"))?.write(&manifest(), parts)
    }

    #[test]
    fn a_copy_that_is_not_whole_is_none() {
        let folder = tempfile::tempdir().unwrap();
        // The engine closed the stream between two files, and in one.
        let whole = tar_of(&[("a", b"aa"), ("b", b""), ("c.manifest", INDEX_OF_A)]);
        for cut in [512, 700, 1024, 1536, 2048, 2560, 3072] {
            let error = written_of(folder.path(), &whole[..cut]).unwrap_err();
            assert!(format!("{error}").contains("write "), "cut off after {cut}: {error}");
        }
        // InfluxDB's own list names a file that is not there.
        for (files, missing) in [
            (&[("c.manifest", INDEX_OF_A), ("a", b"")][..], "influxdb/b is missing"),
            (&[("c.manifest", INDEX_OF_A), ("b", b"")], "influxdb/a is missing"),
            (&[("a", b""), ("b", b"")], "the list of InfluxDB's files is missing"),
            (&[("a", b""), ("c.manifest", b"{}")], "influxdb/ is missing"),
        ] {
            let error = written_of(folder.path(), &tar_of(files)).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        written_of(folder.path(), &whole).unwrap();
    }

    #[test]
    fn two_that_write_to_one_name_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let slow = New::create(&path).unwrap();
        written(&path).unwrap();
        let (sender, parts) = tokio::sync::mpsc::channel(8);
        sender.blocking_send(Part::Below("influxdb")).unwrap();
        let bytes = tar_of(&[("a", b""), ("b", b""), ("c.manifest", INDEX_OF_A)]);
        sender.blocking_send(Part::Bytes(bytes)).unwrap();
        sender.blocking_send(Part::End).unwrap();
        let error = slow.write(&manifest(), parts).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
        assert_eq!(verify(&path).unwrap(), manifest());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn sizes_beyond_what_a_header_holds_are_read_from_its_extension() {
        // What Go's writer makes of them, with a size that fits a test: the header says 0.
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in [("b", &b""[..]), ("c.manifest", INDEX_OF_A)] {
            builder.append(&header(name, content.len() as u64).unwrap(), content).unwrap();
        }
        builder.append_pax_extensions([("size", b"3".as_slice())]).unwrap();
        builder.append(&header("a", 0).unwrap(), io::empty()).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        let end = bytes.len() - 2 * BLOCK;
        let mut content = vec![0; BLOCK];
        content[..3].copy_from_slice(b"aaa");
        bytes.splice(end..end, content);
        let folder = tempfile::tempdir().unwrap();
        written_of(folder.path(), &bytes).unwrap();
        let path = folder.path().join("a");
        verify(&path).unwrap();
        let (sink, mut chunks) = tokio::sync::mpsc::channel(64);
        let into = Target { folder: None, owner: (0, 0), folder_mode: 0, file_mode: 0 };
        extract(&path, "influxdb", &into, sink).unwrap();
        let mut found = Vec::new();
        while let Some(chunk) = chunks.blocking_recv() {
            found.extend(chunk.unwrap());
        }
        let mut archive = tar::Archive::new(&found[..]);
        let mut text = String::new();
        archive.entries().unwrap().nth(2).unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "aaa");
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
