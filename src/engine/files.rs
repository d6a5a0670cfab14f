//! The files of clipper-metrics next to Grafana's database in its volume, which store the password
//! and the last version; and Grafana's own command that sets a password.
//!
//! Files are written and read through the engine, even in containers that were never started.

use std::io::{Cursor, Read};
use std::time::{Duration, Instant};

use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures_util::StreamExt;
use tokio::sync::mpsc::{self, Receiver};

use super::exec::last_words;
use super::transport::for_stream;
use super::{Docker, REQUEST_TIMEOUT};
use crate::engine::tar_stream::{Entries, Kind};
use crate::error::{Error, Refusal, Result};
use crate::model::image::ImageRef;
use crate::model::role::Role;
use crate::model::stack::Secret;
use crate::model::version::Version;
use crate::model::volume_content::{RanVersion, VolumeFiles};

/// Grafana's database, and its journal files while it is open.
pub(crate) const DATABASE_FILES: [&str; 4] = ["grafana.db", "grafana.db-wal", "grafana.db-shm", "grafana.db-journal"];
/// The files that clipper-metrics keeps next to it.
pub(crate) const OWN_FILES: [&str; 4] = ["admin_password", "admin_password.new", "version", "version.new"];

/// The folder's name in the volume.
pub(crate) const OWN_FOLDER: &str = "clipper-metrics";
const PASSWORD: &str = OWN_FILES[0];
/// A new password while Grafana is being changed to it.
const PENDING: &str = OWN_FILES[1];
/// The last version of Grafana that ran, and its image.
const VERSION: &str = OWN_FILES[2];
/// The version about to run, according to its image's tag.
const INTENDED: &str = OWN_FILES[3];
/// The volume's root, where archives are unpacked.
pub(crate) const VOLUME: &str = Role::Grafana.data_path();
/// The mode of these files: their owner can read them, and only clipper-metrics writes them.
pub(super) const PRIVATE: u32 = 0o400;
/// The user and group of Grafana's image, if the image names its user instead of giving a number.
const OWNER: (u64, u64) = (472, 0);
/// The size limit for reading: a password is one line.
const LIMIT: usize = 64 << 10;
/// The time limit for reading the files.
const READ_TIMEOUT: Duration = Duration::from_secs(2 * REQUEST_TIMEOUT.as_secs());

/// The path of the password in the container. It is stored next to the database that it opens, and
/// is deleted together with it.
#[must_use]
pub(crate) fn password_path() -> String {
    format!("{VOLUME}/{OWN_FOLDER}/{PASSWORD}")
}

impl Docker {
    /// Reads the files; the container need not have been started.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn read_files(&self, container: &str) -> Result<VolumeFiles> {
        let doing = "read clipper-metrics's files in Grafana's volume";
        // A stray file in their folder may have any size.
        let (sink, chunks) = mpsc::channel::<Vec<u8>>(1);
        let unpacking = tokio::task::spawn_blocking(move || unpacked(Received { chunks, chunk: Cursor::default() }));
        let path = format!("{VOLUME}/{OWN_FOLDER}");
        let receiving = self.download(doing, container, &path, async |bytes| sink.send(bytes).await.is_ok());
        let is_found = tokio::time::timeout(READ_TIMEOUT, receiving).await.unwrap_or_else(|_| {
            let why = format!("the folder {OWN_FOLDER} could not be read within {}s", READ_TIMEOUT.as_secs());
            Err(Error::Docker { doing: doing.into(), why, refusal: Refusal::Gone })
        })?;
        drop(sink);
        if is_found {
            return unpacking.await.unwrap_or_else(|why| Err(std::io::Error::other(why))).map_err(unexpected(doing));
        }
        // The engine answers in the same way if the container does not exist.
        match self.find_by_id(doing, container).await? {
            Some(_) => Ok(VolumeFiles::default()),
            None => Err(Error::Raced { doing: doing.into(), why: "another process removed the container".into() }),
        }
    }

    /// Small files of a container as an archive; `None` if the path does not exist.
    pub(super) async fn read_archive(&self, doing: &str, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let read = async {
            let (client, bounded) = for_stream(&self.client);
            let mut stream = bounded(client.download_from_container(container, Some(options)));
            let mut archive = Vec::new();
            while let Some(chunk) = stream.next().await {
                archive.extend_from_slice(&chunk?);
                if archive.len() > LIMIT {
                    break;
                }
            }
            Ok(archive)
        };
        self.find(doing, read).await
    }

    /// Whether Grafana has run on the container's volume: its database then exists.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn has_database(&self, container: &str) -> Result<bool> {
        self.has_path("check for Grafana's database", container, &format!("{VOLUME}/{}", DATABASE_FILES[0])).await
    }

    pub(super) async fn has_path(&self, doing: &str, container: &str, path: &str) -> Result<bool> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        let request = self.client.get_container_archive_info(container, Some(options));
        Ok(self.find(doing, request).await?.is_some())
    }

    /// Writes the password that Grafana gets at its first start.
    ///
    /// # Errors
    /// [`Error::Raced`] if a Grafana has run on the volume meanwhile, [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn write_first_password(&self, container: &str, password: &Secret) -> Result<()> {
        if self.has_database(container).await? {
            let why = "Grafana has run on its volume in the meantime".into();
            return Err(Error::Raced { doing: "write Grafana's password".into(), why });
        }
        self.write_password(container, password, false).await
    }

    /// Writes the accepted password to the volume, readable by Grafana alone. With `replace_pending`, it
    /// also replaces a pending password.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn write_password(&self, container: &str, password: &Secret, replace_pending: bool) -> Result<()> {
        let text = password.reveal();
        let files = [(PASSWORD, text), (PENDING, text)];
        self.write_files(container, if replace_pending { &files } else { &files[..1] }).await
    }

    /// Writes a pending password next to the current one.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn write_pending_password(&self, container: &str, password: &Secret) -> Result<()> {
        self.write_files(container, &[(PENDING, password.reveal())]).await
    }

    /// Records the version that runs on the volume, and its image; this clears any intended version.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn write_version(
        &self,
        container: &str,
        version: Version,
        image: Option<&ImageRef>,
    ) -> Result<()> {
        let ran = image.map_or_else(|| version.to_string(), |image| format!("{version} {image} {container}"));
        self.write_files(container, &[(VERSION, &ran), (INTENDED, "")]).await
    }

    /// Records the version that is about to run on the volume, and its image.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn write_intended_version(
        &self,
        container: &str,
        version: Version,
        image: &ImageRef,
    ) -> Result<()> {
        self.write_files(container, &[(INTENDED, &format!("{version} {image} {container}"))]).await
    }

    /// Clears the intended version.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn clear_intended_version(&self, container: &str) -> Result<()> {
        self.write_files(container, &[(INTENDED, "")]).await
    }

    async fn write_files(&self, container: &str, files: &[(&str, &str)]) -> Result<()> {
        let doing = "write clipper-metrics's files to Grafana's volume";
        self.put_files(doing, container, Some(OWN_FOLDER), |_| PRIVATE, files).await
    }

    /// Writes small files with their modes to a folder of Grafana's volume, or to its root.
    pub(super) async fn put_files(
        &self,
        doing: &str,
        container: &str,
        folder: Option<&str>,
        mode: impl Fn(&str) -> u32,
        files: &[(&str, &str)],
    ) -> Result<()> {
        let archive = packed(self.owner(doing, container).await?, folder, mode, files)
            .map_err(|source| Error::Io { doing: doing.into(), source })?;
        let options = UploadToContainerOptionsBuilder::default().path(VOLUME).copy_uidgid("false").build();
        let upload = self.client.upload_to_container(container, Some(options), bollard::body_full(archive.into()));
        self.call(doing, upload).await
    }

    /// Sets the password with Grafana's own command in the running container. The password is
    /// passed on standard input, so that it does not appear in process lists.
    ///
    /// # Errors
    /// [`Error::Docker`] if the command fails or does not finish before the deadline.
    pub(crate) async fn reset_password(&self, container: &str, password: &Secret, deadline: Instant) -> Result<()> {
        let common = ["--homepath", "/usr/share/grafana", "--config", "/etc/grafana/grafana.ini"];
        let action = ["admin", "reset-admin-password", "--password-from-stdin"];
        let new = [&["grafana", "cli"][..], &common, &action].concat();
        // Up to version 8, the command was a separate program.
        let old = [&["grafana-cli"][..], &common, &action].concat();
        let doing = format!("reset the password of {} in its container", Role::Grafana.title());
        let failed = |why: String| Error::Docker { doing: doing.clone(), why, refusal: Refusal::Other };
        let exec = async |command: &[&str]| {
            let doing = "run Grafana's command in its container";
            match self.exec(doing, container, command, Some(password)).await {
                Err(Error::Docker { refusal: Refusal::NoSuchProgram, why, .. }) => Ok((127, why)),
                result => result,
            }
        };
        let run = async {
            match exec(&new).await? {
                (126 | 127, _) => exec(&old).await,
                result => Ok(result),
            }
        };
        let (code, output) = match tokio::time::timeout_at(deadline.into(), run).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(failed("its own command did not finish in time; --timeout sets a longer limit".into()));
            }
        };
        if code == 0 {
            return Ok(());
        }
        let output = output.replace(password.reveal(), "…");
        Err(failed(format!("its own command exited with code {code}: {}", last_words(&output))))
    }

    /// The time limit of a request to the engine other than a pull.
    pub(super) async fn bounded<T, E>(
        request: impl Future<Output = Result<T, E>>,
        late: impl FnOnce() -> E,
    ) -> Result<T, E> {
        tokio::time::timeout(REQUEST_TIMEOUT, request).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The error for a file of a container that is not a regular file or not text.
pub(super) fn unexpected(doing: &str) -> impl Fn(std::io::Error) -> Error {
    move |why| Error::Docker { doing: doing.into(), why: why.to_string(), refusal: Refusal::UnexpectedFile }
}

/// Received chunks as one source, read in a blocking thread.
struct Received {
    chunks: Receiver<Vec<u8>>,
    chunk: Cursor<Vec<u8>>,
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let length = self.chunk.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            let Some(chunk) = self.chunks.blocking_recv() else { return Ok(0) };
            self.chunk = Cursor::new(chunk);
        }
    }
}

/// Parses an archive of the folder. Other files in it are skipped.
///
/// # Errors
/// If the folder or a file is something else, such as a link, whose content is not in the volume, or if a file is too
/// large.
fn unpacked(archive: impl Read) -> std::io::Result<VolumeFiles> {
    let mut found = VolumeFiles::default();
    let mut entries = Entries::new(archive);
    while let Some(entry) = entries.next()? {
        let is_folder = entry.is_top() && entry.name() == OWN_FOLDER;
        // A user may have copied the folder into itself.
        let is_file = OWN_FILES.contains(&entry.name()) && !entry.is_nested();
        if !(is_file || is_folder) || (is_folder && entry.kind == Kind::Folder) {
            continue;
        }
        entry.expect_file()?;
        if entry.size > LIMIT as u64 {
            let why = format!("{} has {} bytes, more than {LIMIT}", entry.name(), entry.size);
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
        }
        let mut text = String::new();
        if entries.read_to_string(&mut text).is_err() {
            continue;
        }
        let secret = || {
            let text = text.trim_end_matches(['\n', '\r']);
            (!text.is_empty()).then(|| Secret::new(text))
        };
        match entry.name() {
            PASSWORD => found.password = secret(),
            PENDING => found.pending = secret(),
            VERSION => found.ran = RanVersion::parse(&text),
            INTENDED => found.intended = RanVersion::parse(&text),
            _ => {}
        }
    }
    Ok(found)
}

/// The user and group from an image's `USER`.
pub(super) fn owner(user: &str) -> (u64, u64) {
    let (user, group) = user.split_once(':').unwrap_or((user, "0"));
    match user {
        "" | "root" => (0, 0),
        user => user.parse().map_or(OWNER, |user| (user, group.parse().unwrap_or(0))),
    }
}

/// The text of the only file in an archive.
pub(super) fn only_file(archive: &[u8], name: &str) -> std::io::Result<Option<String>> {
    let mut entries = Entries::new(archive);
    let Some(entry) = entries.next()? else { return Ok(None) };
    entry.expect_file_named(name)?;
    let mut text = String::new();
    entries.read_to_string(&mut text)?;
    Ok(Some(text))
}

/// An archive with files and their modes, in a folder or at the volume's root.
fn packed(
    owner: (u64, u64),
    folder: Option<&str>,
    mode: impl Fn(&str) -> u32,
    files: &[(&str, &str)],
) -> std::io::Result<Vec<u8>> {
    let entry = |path: &str, mode: u32, size: u64| -> std::io::Result<tar::Header> {
        let mut header = tar::Header::new_gnu();
        header.set_path(path)?;
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_size(size);
        Ok(header)
    };
    let mut builder = tar::Builder::new(Vec::new());
    if let Some(folder) = folder {
        let mut folder = entry(&format!("{folder}/"), 0o700, 0)?;
        folder.set_entry_type(tar::EntryType::Directory);
        folder.set_cksum();
        builder.append(&folder, std::io::empty())?;
    }
    let before = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
    for (name, text) in files {
        let bytes = text.as_bytes();
        let mut file = entry(&format!("{before}{name}"), mode(name), bytes.len() as u64)?;
        file.set_cksum();
        builder.append(&file, bytes)?;
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_files_are_read_back() {
        let archive = packed(
            OWNER,
            Some(OWN_FOLDER),
            |_| PRIVATE,
            &[(PASSWORD, "a b "), (PENDING, "c"), (VERSION, "12.4 grafana:x")],
        )
        .unwrap();
        let files = unpacked(&archive[..]).unwrap();
        assert_eq!(files.password, Some(Secret::new("a b ")));
        assert_eq!(files.pending, Some(Secret::new("c")));
        assert_eq!(files.ran, RanVersion::parse("12.4 grafana:x"));
        assert_eq!(unpacked(&[][..]).unwrap(), VolumeFiles::default());
    }

    #[test]
    fn a_link_instead_of_a_file_is_an_error() {
        for path in ["clipper-metrics/admin_password", "clipper-metrics/version", "clipper-metrics"] {
            for kind in [tar::EntryType::Symlink, tar::EntryType::Link] {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(kind);
                header.set_size(0);
                let mut builder = tar::Builder::new(Vec::new());
                builder.append_link(&mut header, path, "/etc/passwd").unwrap();
                let archive = builder.into_inner().unwrap();
                let why = unpacked(&archive[..]).unwrap_err().to_string();
                assert!(why.contains("link to /etc/passwd, not a regular file"), "{path}: {why}");
                assert!(only_file(&archive, path).is_err(), "{path}");
            }
        }
        for stray in ["stray", "copy/admin_password"] {
            let archive = packed(OWNER, Some(OWN_FOLDER), |_| PRIVATE, &[(stray, "x")]).unwrap();
            assert_eq!(unpacked(&archive[..]).unwrap(), VolumeFiles::default(), "{stray}");
        }
    }

    #[test]
    fn stray_files_of_any_size_and_kind_are_skipped() {
        let large = "x".repeat(3 * LIMIT);
        let files = [("a dump", large.as_str()), (PASSWORD, "p"), (OWN_FOLDER, &large), (VERSION, "12.4 grafana:x")];
        let archive = packed(OWNER, Some(OWN_FOLDER), |_| PRIVATE, &files).unwrap();
        // As the engine sends it.
        let (sink, chunks) = mpsc::channel(archive.len());
        archive.chunks(1000).for_each(|chunk| sink.blocking_send(chunk.to_vec()).unwrap());
        drop(sink);
        let found = unpacked(Received { chunks, chunk: Cursor::default() }).unwrap();
        assert_eq!(found.password, Some(Secret::new("p")));
        assert_eq!(found.ran, RanVersion::parse("12.4 grafana:x"));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_link(&mut header, "clipper-metrics/clipper-metrics", "/etc/passwd").unwrap();
        assert_eq!(unpacked(&builder.into_inner().unwrap()[..]).unwrap(), VolumeFiles::default());
        // A known file of that size is not read.
        let archive = packed(OWNER, Some(OWN_FOLDER), |_| PRIVATE, &[(PASSWORD, &large)]).unwrap();
        let why = unpacked(&archive[..]).unwrap_err().to_string();
        assert_eq!(why, "admin_password has 196608 bytes, more than 65536");
    }

    #[test]
    fn files_belong_to_the_user_of_the_image() {
        for (user, expected) in [("472", (472, 0)), ("1000:7", (1000, 7)), ("", (0, 0)), ("grafana", OWNER)] {
            assert_eq!(owner(user), expected, "{user:?}");
        }
    }
}
