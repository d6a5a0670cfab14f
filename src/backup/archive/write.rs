//! The file that `backup` writes and `restore` reads: a compressed tar archive that ends with a
//! manifest, which contains the digests of all other files.
//!
//! All content is streamed: memory use grows neither with the data nor with the claims of a crafted archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::engine::files::{DATABASE_FILES, OWN_FILES};
use crate::engine::tar_stream::{BLOCK, Entries, Entry, Kind, NotRegular, not_regular};
use crate::error::{Error, Refusal, Result};
use crate::model::stack::Remembered;
use crate::model::text::excerpt;

/// The version of this format.
const FORMAT: u64 = 1;
/// The last entry.
const MANIFEST: &str = "manifest.json";
/// The size limit of a manifest and of InfluxDB's own list, which are held in memory.
const MANIFEST_LIMIT: u64 = 16 << 20;
/// The maximum number of files in an archive. InfluxDB's backup has one per shard.
const MOST_FILES: usize = 50_000;
/// The size limit of a file that clipper-metrics keeps next to Grafana's database.
const OWN_LIMIT: u64 = 64 << 10;
/// The expanded size that every archive may have; beyond it, the limit is a multiple of the archive's size.
const EXPANDED: u64 = 1 << 30;
const EXPANSION: u64 = 100;
/// The maximum padding after the last entry.
const END_LIMIT: u64 = 64 << 10;
/// The size of one chunk.
const CHUNK: usize = 64 << 10;
/// The suffixes of InfluxDB's files; the first is the list of the others.
const INFLUXDB_FILES: [&str; 3] = [INDEX, ".meta", ".tar.gz"];
const INDEX: &str = ".manifest";

/// A folder of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// InfluxDB's portable backup.
    Influxdb,
    /// Grafana's database.
    Grafana,
    /// The files that clipper-metrics keeps next to the database.
    Own,
}

impl Folder {
    const ALL: [Self; 3] = [Self::Influxdb, Self::Grafana, Self::Own];

    /// Its name in the archive.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Influxdb => "influxdb",
            Self::Grafana => "grafana",
            Self::Own => "grafana-own",
        }
    }

    /// Whether the folder may contain a file with that name.
    fn admits(self, name: &str) -> bool {
        match self {
            Self::Influxdb => is_plain(name) && INFLUXDB_FILES.iter().any(|ending| name.ends_with(ending)),
            Self::Grafana => DATABASE_FILES.contains(&name),
            Self::Own => OWN_FILES.contains(&name),
        }
    }

    /// The size limit of a file in it.
    fn limit(self, name: &str) -> u64 {
        match self {
            Self::Own => OWN_LIMIT,
            Self::Influxdb if name.ends_with(INDEX) => MANIFEST_LIMIT,
            _ => u64::MAX,
        }
    }
}

/// Whether a file name contains no path.
fn is_plain(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.chars().all(is_plain) && !name.starts_with('.')
}

/// The description of an instance in its archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The instance's name.
    pub instance: String,
    /// When the archive was created, in milliseconds since 1970.
    pub made_at: i64,
    /// The remembered settings.
    #[serde(with = "settings")]
    pub settings: BTreeMap<String, Remembered>,
    /// The database that Clipper writes to.
    pub database: String,
    /// Every database except InfluxDB's own, and whether it contains data.
    pub databases: BTreeMap<String, bool>,
    /// InfluxDB's version.
    pub influxdb: String,
    /// Grafana's version.
    pub grafana: String,
}

/// The last entry of an archive.
#[derive(Serialize, Deserialize)]
struct Document {
    format: u64,
    #[serde(flatten)]
    manifest: Manifest,
    files: Files,
}

/// The only field that all formats share.
#[derive(Deserialize)]
struct Format {
    format: serde_json::Value,
}

type Files = BTreeMap<String, Facts>;

/// Size and digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    size: u64,
    sha256: String,
}

/// The JSON form of remembered settings.
mod settings {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::stack::Remembered;

    #[derive(Serialize, Deserialize)]
    struct Stored {
        value: String,
        #[serde(rename = "of_file")]
        from_file: bool,
    }

    pub(super) fn serialize<S: Serializer>(
        settings: &BTreeMap<String, Remembered>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let stored = |one: &Remembered| Stored { value: one.value.clone(), from_file: one.from_file };
        serializer.collect_map(settings.iter().map(|(name, one)| (name, stored(one))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Remembered>, D::Error> {
        let stored = BTreeMap::<String, Stored>::deserialize(deserializer)?;
        let remembered = |one: Stored| Remembered { value: one.value, from_file: one.from_file };
        Ok(stored.into_iter().map(|(name, one)| (name, remembered(one))).collect())
    }
}

/// InfluxDB's own list of its backup's files.
#[derive(Deserialize)]
struct Index {
    meta: Listed,
    /// Missing or null if every database is empty.
    #[serde(default, deserialize_with = "bounded")]
    files: Option<Vec<Listed>>,
}

/// Reads a list with at most as many entries as an archive has files: parsed entries take several times the memory of
/// their text.
fn bounded<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Vec<Listed>>, D::Error> {
    struct Bounded;
    impl<'de> serde::de::Visitor<'de> for Bounded {
        type Value = Option<Vec<Listed>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {MOST_FILES} files")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut files = Vec::new();
            while let Some(file) = list.next_element()? {
                if files.len() == MOST_FILES {
                    return Err(serde::de::Error::invalid_length(files.len() + 1, &self));
                }
                files.push(file);
            }
            Ok(Some(files))
        }
    }
    from.deserialize_any(Bounded)
}

/// A file in it.
#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    database: String,
    #[serde(rename = "fileName")]
    file_name: String,
}

/// A part of an archive being written.
pub enum Part {
    /// The following bytes are a tar archive whose files go into this folder.
    Below(Folder),
    /// Bytes of that tar archive.
    Bytes(Vec<u8>),
    /// Everything was sent; without this part, the archive is incomplete.
    End,
}

/// A new archive under a temporary name until it is complete; removed when dropped.
pub struct New {
    path: PathBuf,
    file: NamedTempFile,
}

impl New {
    /// Creates the file next to the archive's future path, readable by its owner alone.
    ///
    /// # Errors
    /// [`Error::File`] if the archive already exists, [`Error::Io`] if the file cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
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
    pub fn write(self, manifest: &Manifest, parts: Receiver<Part>) -> Result<u64> {
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
        let document = Document { format: FORMAT, manifest, files: content.files };
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

/// Checks that the path of a new archive is free.
///
/// # Errors
/// [`Error::File`] if it is not.
pub fn expect_free(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(writing(path)(why)),
        Ok(_) => Err(Error::File {
            path: path.into(),
            line: None,
            message: "already exists".into(),
            hint: "choose another name, or remove that file".into(),
        }),
    }
}

/// The content of an archive.
#[derive(Default)]
struct Content {
    files: Files,
    /// InfluxDB's own list, of which a backup has one.
    index: Option<Index>,
}

impl Content {
    /// Records a file, and parses it if it is InfluxDB's own list. `copy` passes its content on.
    fn add(
        &mut self,
        folder: Folder,
        name: &str,
        size: u64,
        content: &mut impl Read,
        copy: impl FnOnce(&str, &mut dyn Read) -> io::Result<()>,
    ) -> io::Result<()> {
        expect_size(name, size, folder.limit(name))?;
        let path = format!("{}/{name}", folder.name());
        if self.files.len() == MOST_FILES {
            return Err(invalid(format!("there are more than {MOST_FILES} files")));
        }
        if self.files.contains_key(&path) {
            return Err(invalid(format!("there are two files {path}")));
        }
        let mut hashing = Hashing::new(content);
        if folder == Folder::Influxdb && name.ends_with(INDEX) {
            let mut text = Vec::new();
            hashing.read_to_end(&mut text)?;
            let index =
                serde_json::from_slice(&text).map_err(|why| invalid(format!("{path} is not a valid list: {why}")))?;
            if self.index.replace(index).is_some() {
                return Err(invalid(format!("{path} is a second list of InfluxDB's files")));
            }
            copy(&path, &mut &text[..])?;
        } else {
            copy(&path, &mut hashing)?;
        }
        if hashing.length != size {
            return Err(io::Error::other(format!("{path} has only {} of {size} bytes", hashing.length)));
        }
        self.files.insert(path, Facts { size, sha256: hashing.digest() });
        Ok(())
    }

    /// The databases in InfluxDB's backup, except its own.
    ///
    /// # Errors
    /// If a file needed for the restore is missing or empty.
    fn databases(&self) -> io::Result<Vec<String>> {
        let expect = |path: String| match self.files.get(&path) {
            Some(Facts { size: 0, .. }) => Err(invalid(format!("{path} is empty"))),
            Some(_) => Ok(()),
            None => Err(io::Error::other(format!("{path} is missing"))),
        };
        expect(format!("{}/{}", Folder::Grafana.name(), DATABASE_FILES[0]))?;
        let Some(index) = &self.index else {
            return Err(io::Error::other("the list of InfluxDB's files is missing"));
        };
        let mut found = Vec::new();
        for entry in index.files.iter().flatten().chain([&index.meta]) {
            expect(format!("{}/{}", Folder::Influxdb.name(), entry.file_name))?;
            found.extend(Some(&entry.database).filter(|name| !matches!(name.as_str(), "" | "_internal")).cloned());
        }
        Ok(found)
    }
}

fn copy_below<W: Write>(
    folder: Folder,
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
fn is_wanted(folder: Folder, entry: &Entry) -> io::Result<bool> {
    let is_top = !entry.path.contains('/');
    match folder {
        Folder::Influxdb | Folder::Own if is_top => match &entry.kind {
            Kind::Folder => Ok(false),
            Kind::File => Err(invalid(format!("{} is a file, not a directory", entry.path))),
            Kind::Other(what) => Err(invalid(format!("{} is {what}, not a directory", entry.path))),
        },
        // The directory belongs to the instance, and stray files in it are not part of a backup.
        Folder::Own if !folder.admits(entry.name()) => Ok(false),
        _ if folder.admits(entry.name()) => entry.expect_file().map(|()| true),
        // Podman follows links, and returns a link's target under its own name.
        Folder::Grafana if is_top => {
            Err(not_regular("a file of Grafana's database", &format!("a link to {}", excerpt(&entry.path, 100))))
        }
        _ => Err(invalid(format!("{} is not part of a backup", excerpt(&entry.path, 100)))),
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn expect_size(name: &str, size: u64, most: u64) -> io::Result<()> {
    if size > most { Err(invalid(format!("{name} has {size} bytes, more than {most}"))) } else { Ok(()) }
}

fn header(path: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

/// A verified archive. Its file stays open, so that the restored bytes are the verified ones.
#[derive(Debug)]
pub struct Verified {
    path: PathBuf,
    file: File,
    /// The archive's description of its instance.
    pub manifest: Manifest,
    /// The digest of its manifest, which contains the digests of its files.
    pub digest: String,
    files: Files,
}

impl Verified {
    /// Reads the whole archive and compares every file with its digest.
    ///
    /// # Errors
    /// [`Error::File`] if it is not an archive, is truncated, altered or in another format, or
    /// contains anything that `backup` does not write.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |message: String| Error::File {
            path: path.into(),
            line: None,
            message,
            hint: "use an archive that clipper-metrics wrote; nothing was restored from this one".into(),
        };
        let unreadable = |why: io::Error| bad(format!("cannot be read: {why}"));
        // Opening a pipe would wait for its other end.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(bad("is not a regular file".into()));
        }
        let file = File::open(path).map_err(unreadable)?;
        let broken = |why: io::Error| bad(format!("is damaged or not an archive of clipper-metrics: {why}"));
        let (content, document) = verify(&file).map_err(broken)?;
        let document = document.ok_or_else(|| bad("has no manifest: it is truncated".into()))?;
        let unknown = |why: serde_json::Error| bad(format!("has a manifest that cannot be read: {why}"));
        let Format { format } = serde_json::from_slice(&document).map_err(unknown)?;
        if format != FORMAT {
            return Err(bad(format!(
                "has format {}, but this program reads format {FORMAT}",
                excerpt(&format.to_string(), 20)
            )));
        }
        let Document { manifest, files, .. } = serde_json::from_slice(&document).map_err(unknown)?;
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
    pub fn extract(&self, folder: Folder, into: &Target, sink: Sender<io::Result<Vec<u8>>>) -> Result<()> {
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

    fn extract_into(&self, out: &mut tar::Builder<Chunks>, folder: Folder, into: &Target) -> io::Result<()> {
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

/// Reads an archive completely; returns its content and its last entry.
fn verify(file: &File) -> io::Result<(Content, Option<Vec<u8>>)> {
    let mut entries = Entries::new(expanded(file)?);
    let mut content = Content::default();
    let mut document = None;
    while let Some(entry) = entries.next()? {
        entry.expect_file()?;
        if document.is_some() {
            return Err(invalid("it contains data after its manifest".into()));
        }
        if entry.path == MANIFEST {
            expect_size(MANIFEST, entry.size, MANIFEST_LIMIT)?;
            let mut text = Vec::new();
            entries.read_to_end(&mut text)?;
            document = Some(text);
            continue;
        }
        let (folder, name) = split(&entry.path).ok_or_else(|| {
            invalid(format!("it contains {}, which is not part of a backup", excerpt(&entry.path, 100)))
        })?;
        content
            .add(folder, name, entry.size, &mut entries, |_, content| io::copy(content, &mut io::sink()).map(drop))?;
    }
    // The checksum of the compression follows the padding.
    let mut source = entries.into_inner();
    if io::copy(&mut (&mut source).take(END_LIMIT), &mut io::sink())? == END_LIMIT {
        return Err(invalid("it contains data after its end".into()));
    }
    let mut file = source.inner.into_inner();
    if file.read(&mut [0])? > 0 {
        return Err(invalid("it contains data after its end".into()));
    }
    Ok((content, document))
}

/// The folder and name of a file in an archive. Earlier versions also packed stray files next to
/// those of clipper-metrics, which are verified but not extracted.
fn split(path: &str) -> Option<(Folder, &str)> {
    let (folder, name) = path.split_once('/')?;
    let folder = Folder::ALL.into_iter().find(|one| one.name() == folder)?;
    let is_stray = folder == Folder::Own && is_plain(name);
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
pub struct Target {
    /// The folder to create for them.
    pub folder: Option<&'static str>,
    /// User and group.
    pub owner: (u64, u64),
    /// The mode of the folder.
    pub folder_mode: u32,
    /// The mode of every file.
    pub file_mode: u32,
}

/// Reads the bytes of one part up to the next one.
struct Parts {
    received: Receiver<Part>,
    bytes: Vec<u8>,
    at: usize,
    next: Option<Folder>,
    is_whole: bool,
    /// The number of zeros at the end of the bytes read so far.
    zeros: usize,
}

impl Parts {
    /// The folder of the next part, if there is one.
    fn begin(&mut self) -> Option<Folder> {
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

/// Reads and hashes.
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
    use tar::EntryType;

    use super::*;

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            builder.append(&header(name, content.len() as u64).unwrap(), *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn manifest() -> Manifest {
        let settings = [("database".to_string(), Remembered { value: "d".into(), from_file: true })].into();
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

    const INDEX_OF_A: &[u8] =
        br#"{"files": [{"database": "d", "fileName": "a.tar.gz"}], "meta": {"fileName": "b.meta"}}"#;

    fn opened(path: &Path) -> Result<Manifest> {
        Verified::open(path).map(|verified| verified.manifest)
    }

    fn written(path: &Path) -> Result<u64> {
        let big = vec![7; 300_000];
        let files = [("dir/a.tar.gz", &big[..]), ("dir/b.meta", b"bb"), ("dir/c.manifest", INDEX_OF_A)];
        written_of(path, &tar_of(&files), &tar_of(&[("grafana.db", b"db")]))
    }

    /// Two parts followed by padding, as an engine sends them.
    fn written_of(path: &Path, influxdb: &[u8], grafana: &[u8]) -> Result<u64> {
        let (sender, parts) = tokio::sync::mpsc::channel(64);
        for (folder, bytes) in [(Folder::Influxdb, influxdb), (Folder::Grafana, grafana)] {
            sender.blocking_send(Part::Below(folder)).unwrap();
            for chunk in bytes.chunks(50_000) {
                sender.blocking_send(Part::Bytes(chunk.to_vec())).unwrap();
            }
        }
        sender.blocking_send(Part::End).unwrap();
        New::create(path)?.write(&manifest(), parts)
    }

    fn extracted(archive: &Verified, folder: Folder, into: Target) -> Result<Vec<u8>> {
        let (sink, mut chunks) = tokio::sync::mpsc::channel(64);
        archive.extract(folder, &into, sink)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.blocking_recv() {
            bytes.extend(chunk.unwrap());
        }
        Ok(bytes)
    }

    const PLAIN: Target = Target { folder: None, owner: (0, 0), folder_mode: 0, file_mode: 0 };

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
        let into = Target { folder: Some("r"), owner: (5, 6), folder_mode: 0o777, file_mode: 0o644 };
        let bytes = extracted(&Verified::open(&path).unwrap(), Folder::Influxdb, into).unwrap();
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
        let bytes = extracted(&verified, Folder::Grafana, PLAIN).unwrap();
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
        let error = extracted(&verified, Folder::Grafana, PLAIN).unwrap_err();
        assert!(error.to_string().contains("changed after it was verified"), "{error}");
    }

    /// InfluxDB's list if every database is empty.
    const EMPTY: &[u8] = br#"{"files": null, "meta": {"fileName": "b.meta"}}"#;

    #[test]
    fn an_interrupted_write_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (sender, parts) = tokio::sync::mpsc::channel(64);
        sender.blocking_send(Part::Below(Folder::Grafana)).unwrap();
        sender.blocking_send(Part::Bytes(tar_of(&[("grafana.db", b"db")]))).unwrap();
        drop(sender);
        assert!(New::create(&path).unwrap().write(&manifest(), parts).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// An archive with the given files as InfluxDB's part, and Grafana's database.
    fn written_beside(folder: &Path, influxdb: &[u8]) -> Result<u64> {
        written_of(&folder.join("a"), influxdb, &tar_of(&[("grafana.db", b"db")]))
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

    /// A tar archive with one entry of any kind.
    fn tar_with(path: &str, kind: EntryType) -> Vec<u8> {
        let mut entry = header(path, 0).unwrap();
        entry.set_entry_type(kind);
        entry.set_link_name("/etc/grafana.db").unwrap();
        entry.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&entry, io::empty()).unwrap();
        builder.into_inner().unwrap()
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
            for (folder, bytes) in [(Folder::Influxdb, &influxdb[..]), (Folder::Grafana, &grafana), (Folder::Own, own)]
            {
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
        for (folder, bytes) in [(Folder::Influxdb, influxdb), (Folder::Grafana, tar_of(&[("grafana.db", b"db")]))] {
            sender.blocking_send(Part::Below(folder)).unwrap();
            sender.blocking_send(Part::Bytes(bytes)).unwrap();
        }
        sender.blocking_send(Part::End).unwrap();
        let error = slow.write(&manifest(), parts).unwrap_err();
        assert!(error.to_string().contains("already exists"), "{error}");
        assert_eq!(opened(&path).unwrap(), manifest());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
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
        let found = extracted(&verified, Folder::Influxdb, PLAIN).unwrap();
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

    fn compressed(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// An archive whose manifest lists every one of its files, whatever they are.
    fn crafted(entries: &[(&str, EntryType, &[u8])], behind: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut files = Files::new();
        for (path, kind, content) in entries {
            let mut header = header("x", content.len() as u64).unwrap();
            // Written directly, because `set_path` rejects names that a crafted archive may contain.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
            let mut hashing = Hashing::new(*content);
            io::copy(&mut hashing, &mut io::sink()).unwrap();
            let facts = Facts { size: content.len() as u64, sha256: hashing.digest() };
            files.insert((*path).to_string(), facts);
        }
        let document = Document { format: FORMAT, manifest: manifest(), files };
        let text = serde_json::to_vec(&document).unwrap();
        builder.append(&header(MANIFEST, text.len() as u64).unwrap(), &text[..]).unwrap();
        let mut plain = builder.into_inner().unwrap();
        plain.extend(behind);
        compressed(&plain)
    }

    const WHOLE: [(&str, EntryType, &[u8]); 4] = [
        ("influxdb/a.tar.gz", EntryType::Regular, b"a"),
        ("influxdb/b.meta", EntryType::Regular, b"b"),
        ("influxdb/c.manifest", EntryType::Regular, INDEX_OF_A),
        ("grafana/grafana.db", EntryType::Regular, b"db"),
    ];

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
    fn stray_files_that_earlier_versions_packed_are_verified_and_not_extracted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let own = [
            ("grafana-own/notes.txt", EntryType::Regular, &b"n"[..]),
            ("grafana-own/version", EntryType::Regular, b"12.4.10"),
        ];
        std::fs::write(file.path(), crafted(&[&WHOLE[..], &own].concat(), b"")).unwrap();
        let bytes = extracted(&Verified::open(file.path()).unwrap(), Folder::Own, PLAIN).unwrap();
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
