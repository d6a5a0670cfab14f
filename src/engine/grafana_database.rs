//! The copy of Grafana's database next to it in its volume: creates, restores and empties it,
//! through containers that were never started.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};

use futures_util::future::join;

use super::files::{self, DATABASE_FILES, OWN_FILES, VOLUME};
use super::{Docker, RunInfo};
use crate::engine::tar_stream::Entries;
use crate::error::{Error, Result};
use crate::model::observed::RunState;
use crate::model::role::Role;

/// The folder of the copy in the volume.
const FOLDER: &str = "clipper-metrics-upgrade";
/// Marks a complete copy, and names the upgrade that it belongs to.
const MARKER: &str = "complete";
/// The mode of Grafana's own files, which Grafana writes to.
const WRITABLE: u32 = 0o640;
/// The number of bytes sent to the engine at once.
const CHUNK: usize = 256 << 10;
/// The number of chunks buffered between the two ends of a copy.
const CHUNKS: usize = 4;

impl Docker {
    /// The upgrade that the copy was made for, if there is a complete copy.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn database_copy(&self, container: &str) -> Result<Option<String>> {
        self.read_small(container, &format!("{VOLUME}/{FOLDER}/{MARKER}")).await
    }

    /// Copies the database together with the files of clipper-metrics that belong to it: the
    /// password and the version.
    ///
    /// # Errors
    /// [`Error::Raced`] if the container was started meanwhile, [`Error::Docker`] if the engine
    /// returns an error or the volume is full.
    pub(crate) async fn copy_database(&self, container: &str, upgrade: &str) -> Result<()> {
        let doing = "copy Grafana's database inside its volume";
        // An existing copy becomes invalid.
        self.delete_database_copy(container).await?;
        let to = format!("{VOLUME}/{FOLDER}");
        for name in DATABASE_FILES {
            self.transfer(doing, container, VOLUME, name, &to).await?;
        }
        self.copy_own_files(doing, container, files::OWN_FOLDER, FOLDER).await?;
        self.expect_closed(doing, container).await?;
        self.write_into(doing, container, Some(FOLDER), &[(MARKER, upgrade)]).await
    }

    /// Replaces the database with the copy, together with the files of clipper-metrics that belong to it.
    ///
    /// # Errors
    /// [`Error::Raced`] if the container was started meanwhile, [`Error::Docker`] if the engine
    /// returns an error.
    pub(crate) async fn put_database_back(&self, container: &str) -> Result<()> {
        let doing = "restore the copy of Grafana's database";
        self.expect_closed(doing, container).await?;
        // Journal files of a newer version must not be replayed into an older database.
        let beside: Vec<(&str, &str)> = DATABASE_FILES[1..].iter().map(|name| (*name, "")).collect();
        self.write_into(doing, container, None, &beside).await?;
        for name in DATABASE_FILES {
            self.transfer(doing, container, &format!("{VOLUME}/{FOLDER}"), name, VOLUME).await?;
        }
        self.copy_own_files(doing, container, FOLDER, files::OWN_FOLDER).await?;
        // The copy is restored only once: from now on, the database is the newer one.
        self.write_into(doing, container, Some(FOLDER), &[(MARKER, "")]).await
    }

    /// Empties the copy: the engine can add files to a volume but cannot remove them.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn delete_database_copy(&self, container: &str) -> Result<()> {
        let doing = "empty the copy of Grafana's database";
        // First, the copy is marked as incomplete.
        self.write_into(doing, container, Some(FOLDER), &[(MARKER, "")]).await?;
        let all = DATABASE_FILES.iter().chain(&OWN_FILES);
        let empty: Vec<(&str, &str)> = all.map(|name| (*name, "")).collect();
        self.write_into(doing, container, Some(FOLDER), &empty).await
    }

    /// Copies the files of clipper-metrics; a missing file becomes an empty one, which means the same.
    async fn copy_own_files(&self, doing: &str, container: &str, from: &str, to: &str) -> Result<()> {
        let mut contents = Vec::new();
        for name in OWN_FILES {
            let text = self.read_small(container, &format!("{VOLUME}/{from}/{name}")).await?;
            contents.push((name, text.unwrap_or_default()));
        }
        let contents: Vec<(&str, &str)> = contents.iter().map(|(name, text)| (*name, text.as_str())).collect();
        self.write_into(doing, container, Some(to), &contents).await
    }

    /// Ensures that the database is not open, because the container was never started.
    async fn expect_closed(&self, doing: &str, container: &str) -> Result<()> {
        match self.run_info(Role::Grafana, container).await? {
            Some(RunInfo { run: RunState::Created, .. }) => Ok(()),
            _ => Err(Error::Raced { doing: doing.into(), why: "another process started its container".into() }),
        }
    }

    async fn write_into(
        &self,
        doing: &str,
        container: &str,
        folder: Option<&str>,
        contents: &[(&str, &str)],
    ) -> Result<()> {
        let mode = |name: &str| if DATABASE_FILES.contains(&name) { WRITABLE } else { files::PRIVATE };
        self.put_files(doing, container, folder, mode, contents).await
    }

    /// Copies one file from one folder of a container to another; a missing file is skipped.
    async fn transfer(&self, doing: &str, container: &str, from: &str, name: &str, to: &str) -> Result<()> {
        let path = format!("{from}/{name}");
        if !self.has_path(doing, container, &path).await? {
            return Ok(());
        }
        self.expect_closed(doing, container).await?;
        // An engine works on one archive of a container at a time, so the file is buffered here in
        // an unnamed temporary file.
        let failed = |source| Error::Io { doing: doing.into(), source };
        let mut between = tempfile::tempfile().map_err(failed)?;
        let mut stored = Ok(());
        let store = async |bytes: Vec<u8>| {
            stored = between.write_all(&bytes);
            stored.is_ok()
        };
        self.download(doing, container, &path, store).await?;
        stored.map_err(failed)?;
        expect_file(&between, name).map_err(files::unexpected(doing))?;
        between.rewind().map_err(failed)?;
        let (chunks, to_engine) = tokio::sync::mpsc::channel::<io::Result<Vec<u8>>>(CHUNKS);
        let read = async {
            loop {
                let mut chunk = vec![0; CHUNK];
                let next = between.read(&mut chunk).map(|length| {
                    chunk.truncate(length);
                    chunk
                });
                let is_last = next.is_err();
                if next.as_ref().is_ok_and(Vec::is_empty) || chunks.send(next).await.is_err() || is_last {
                    break;
                }
            }
            drop(chunks);
        };
        let ((), uploaded) = join(read, self.upload(doing, container, to, to_engine)).await;
        uploaded
    }

    /// The text of a small file in a container; `None` if it is missing or empty.
    async fn read_small(&self, container: &str, path: &str) -> Result<Option<String>> {
        let doing = "read a file of Grafana's volume";
        let Some(archive) = self.read_archive(doing, container, path).await? else { return Ok(None) };
        let name = path.rsplit('/').next().unwrap_or(path);
        let text = files::only_file(&archive, name).map_err(files::unexpected(doing))?;
        Ok(text.filter(|text| !text.is_empty()))
    }
}

/// Checks that the archive contains one regular file of this name. A link would be a second name
/// for the database instead of a copy.
fn expect_file(mut archive: &File, name: &str) -> io::Result<()> {
    archive.rewind()?;
    let mut entries = Entries::new(archive);
    let Some(entry) = entries.next()? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    entry.expect_file_named(name)?;
    match entries.next()? {
        None => Ok(()),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is more than one file", entry.name()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(append: impl Fn(&mut tar::Builder<&File>, &mut tar::Header)) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut builder = tar::Builder::new(&file);
        let mut header = tar::Header::new_gnu();
        append(&mut builder, &mut header);
        builder.into_inner().unwrap();
        file
    }

    #[test]
    fn only_regular_files_are_copied() {
        let append = |builder: &mut tar::Builder<&File>, header: &mut tar::Header| {
            header.set_size(2);
            builder.append_data(header, "grafana.db", &b"db"[..]).unwrap();
        };
        expect_file(&archive(append), "grafana.db").unwrap();
        let why = expect_file(&archive(append), "grafana.db-wal").unwrap_err().to_string();
        assert_eq!(why, "grafana.db-wal is a link to grafana.db, not a regular file");
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link] {
            let link = archive(|builder, header| {
                header.set_entry_type(kind);
                header.set_size(0);
                builder.append_link(header, "grafana.db", "/elsewhere").unwrap();
            });
            let why = expect_file(&link, "grafana.db").unwrap_err().to_string();
            assert!(why.starts_with("grafana.db is a"), "{why}");
        }
        let two = archive(|builder, header| {
            append(builder, header);
            append(builder, header);
        });
        assert!(expect_file(&two, "grafana.db").is_err());
        assert!(expect_file(&archive(|_, _| {}), "grafana.db").is_err());
    }
}
