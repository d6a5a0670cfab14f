//! The copy of Grafana's database beside it in its volume: made, put back, emptied. Works on containers that never
//! ran.
//!
//! Must not know why a copy is made.

use std::io::{self, Read as _, Seek as _, Write as _};

use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use futures_util::StreamExt as _;
use futures_util::future::join;

use super::Docker;
use super::files::{self, PROMISED, VERSION, VOLUME};
use crate::error::{Error, Result};
use crate::systems::archive::Part;

/// The folder of the copy, in the volume.
const FOLDER: &str = "clipper-metrics-upgrade";
/// Says that the copy is whole, to which upgrade it belongs, and which version the volume had.
const MARKER: &str = "complete";
/// The files of an SQLite database; which of them are there depends on how it was closed.
const DATABASE_FILES: [&str; 4] = ["grafana.db", "grafana.db-wal", "grafana.db-shm", "grafana.db-journal"];
/// The mode of Grafana's own files.
const WRITABLE: u32 = 0o640;
/// The most bytes that are read of the marker.
const LIMIT: usize = 64 << 10;
/// How many bytes go to the engine at once.
const CHUNK: usize = 256 << 10;
/// How many chunks wait between the two ends of a copy.
const CHUNKS: usize = 4;

/// A copy that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseCopy {
    /// The upgrade that it was made for.
    pub upgrade: String,
    /// What was noted of the version that ran then.
    version: String,
}

impl Docker {
    /// The copy that is there, if it is whole.
    ///
    /// # Errors
    /// [`Error::Docker`] when the engine does not answer.
    pub async fn database_copy(&self, container: &str) -> Result<Option<DatabaseCopy>> {
        let text = self.read_small(container, &format!("{VOLUME}/{FOLDER}/{MARKER}")).await?;
        Ok(text.and_then(|text| {
            let (upgrade, version) = text.split_once('\n')?;
            Some(DatabaseCopy { upgrade: upgrade.into(), version: version.into() })
        }))
    }

    /// Copies the database. Nothing may have it open.
    ///
    /// # Errors
    /// [`Error::Docker`] when the engine refuses, or the volume is full.
    pub async fn copy_database(&self, container: &str, upgrade: &str) -> Result<()> {
        let doing = "copy Grafana's database inside its volume";
        // One that is there is none any more.
        self.discard_database_copy(container).await?;
        for name in DATABASE_FILES {
            let (from, to) = (format!("{VOLUME}/{name}"), format!("{VOLUME}/{FOLDER}"));
            self.transfer(doing, container, &from, &to).await?;
        }
        let version = self.read_small(container, &format!("{VOLUME}/{}/{VERSION}", files::FOLDER_NAME)).await?;
        let marker = format!("{upgrade}\n{}", version.unwrap_or_default());
        self.write_into(doing, container, Some(FOLDER), &[(MARKER, &marker)]).await
    }

    /// Puts a copy in the place of the database, with what was noted of the version that it belongs to. Nothing may
    /// have the database open.
    ///
    /// # Errors
    /// [`Error::Docker`] when the engine refuses.
    pub async fn put_database_back(&self, container: &str, copy: &DatabaseCopy) -> Result<()> {
        let doing = "put the copy of Grafana's database back";
        // What a newer version left beside its database must not be replayed into an older one.
        let beside: Vec<(&str, &str)> = DATABASE_FILES[1..].iter().map(|name| (*name, "")).collect();
        self.write_into(doing, container, None, &beside).await?;
        for name in DATABASE_FILES {
            self.transfer(doing, container, &format!("{VOLUME}/{FOLDER}/{name}"), VOLUME).await?;
        }
        let notes = [(VERSION, copy.version.as_str()), (PROMISED, "")];
        self.write_into(doing, container, Some(files::FOLDER_NAME), &notes).await?;
        // It is put back once: from now on, the database is the newer one of the two.
        self.write_into(doing, container, Some(FOLDER), &[(MARKER, "")]).await
    }

    /// Empties the copy: the engine can put files into a volume, and take none out.
    ///
    /// # Errors
    /// [`Error::Docker`] when the engine refuses.
    pub async fn discard_database_copy(&self, container: &str) -> Result<()> {
        let doing = "empty the copy of Grafana's database";
        // First of all it is not whole any more.
        self.write_into(doing, container, Some(FOLDER), &[(MARKER, "")]).await?;
        let empty: Vec<(&str, &str)> = DATABASE_FILES.iter().map(|name| (*name, "")).collect();
        self.write_into(doing, container, Some(FOLDER), &empty).await
    }

    async fn write_into(
        &self,
        doing: &str,
        container: &str,
        folder: Option<&str>,
        contents: &[(&str, &str)],
    ) -> Result<()> {
        // What Grafana has open, it writes.
        let mode = if folder == Some(files::FOLDER_NAME) { files::PRIVATE } else { WRITABLE };
        let archive = files::packed(self.owner(doing, container).await?, folder, mode, contents)
            .map_err(|source| Error::Io { doing: doing.into(), source })?;
        let options = UploadToContainerOptionsBuilder::default().path(VOLUME).copy_uidgid("false").build();
        let upload = self.client.upload_to_container(container, Some(options), bollard::body_full(archive.into()));
        self.call(doing, upload).await
    }

    /// Copies one file of a container into a folder of it; one that is not there is fine.
    async fn transfer(&self, doing: &str, container: &str, from: &str, folder: &str) -> Result<()> {
        if !self.exists(container, from).await? {
            return Ok(());
        }
        // An engine works on one archive of a container at a time, so the file is here in between: nameless, and
        // gone with this run.
        let failed = |source| Error::Io { doing: doing.into(), source };
        let mut between = tempfile::tempfile().map_err(failed)?;
        let (parts, mut received) = tokio::sync::mpsc::channel(CHUNKS);
        let download = async {
            let result = self.download(doing, container, from, "", &parts).await;
            drop(parts);
            result
        };
        let store = async {
            while let Some(part) = received.recv().await {
                if let Part::Bytes(bytes) = part {
                    between.write_all(&bytes)?;
                }
            }
            between.rewind()
        };
        let (downloaded, stored) = join(download, store).await;
        downloaded?;
        stored.map_err(failed)?;
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
        let ((), uploaded) = join(read, self.upload(doing, container, folder, to_engine)).await;
        uploaded
    }

    async fn exists(&self, container: &str, path: &str) -> Result<bool> {
        let options = bollard::query_parameters::ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        let request = self.client.get_container_archive_info(container, Some(options));
        Ok(self.find("look for a file in Grafana's volume", request).await?.is_some())
    }

    /// A small file of a container; nothing where there is none or it is empty.
    async fn read_small(&self, container: &str, path: &str) -> Result<Option<String>> {
        let doing = "read a file of Grafana's volume";
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let read = async {
            let mut stream = self.client.download_from_container(container, Some(options));
            let mut archive = Vec::new();
            while let Some(chunk) = stream.next().await {
                archive.extend_from_slice(&chunk?);
                if archive.len() > LIMIT {
                    break;
                }
            }
            Ok(archive)
        };
        let Some(archive) = self.find(doing, read).await? else { return Ok(None) };
        let text = files::only_file(&archive).map_err(|source| Error::Io { doing: doing.into(), source })?;
        Ok(text.filter(|text| !text.is_empty()))
    }
}
