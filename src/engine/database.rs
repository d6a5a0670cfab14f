//! The copy of Grafana's database beside it in its volume: made, put back, emptied. Works on containers that never
//! ran.
//!
//! Must not know why a copy is made.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};

use futures_util::future::join;

use super::files::{self, GRAFANA_FILES as DATABASE_FILES, OWN_FILES, VOLUME};
use super::{Docker, RunInfo};
use crate::engine::tar_stream::Entries;
use crate::error::{Error, Result};
use crate::model::observed::RunState;
use crate::model::role::Role;

/// The folder of the copy, in the volume.
const FOLDER: &str = "clipper-metrics-upgrade";
/// Says that the copy is whole, and to which upgrade it belongs.
const MARKER: &str = "complete";
/// The mode of Grafana's own files: it writes what it has open.
const WRITABLE: u32 = 0o640;
/// How many bytes go to the engine at once.
const CHUNK: usize = 256 << 10;
/// How many chunks wait between the two ends of a copy.
const CHUNKS: usize = 4;

impl Docker {
    /// The upgrade that the copy was made for, if there is one that is whole.
    ///
    /// # Errors
    /// [`Error::Docker`] when the engine does not answer.
    pub async fn database_copy(&self, container: &str) -> Result<Option<String>> {
        self.read_small(container, &format!("{VOLUME}/{FOLDER}/{MARKER}")).await
    }

    /// Copies the database, and our files that belong to it: the password that opens it, and the version.
    ///
    /// # Errors
    /// [`Error::Raced`] where somebody has started the container, [`Error::Docker`] when the engine refuses, or the
    /// volume is full.
    pub async fn copy_database(&self, container: &str, upgrade: &str) -> Result<()> {
        let doing = "copy Grafana's database inside its volume";
        // One that is there is none any more.
        self.discard_database_copy(container).await?;
        let to = format!("{VOLUME}/{FOLDER}");
        for name in DATABASE_FILES {
            self.transfer(doing, container, VOLUME, name, &to).await?;
        }
        self.copy_own_files(doing, container, files::FOLDER_NAME, FOLDER).await?;
        self.expect_closed(doing, container).await?;
        self.write_into(doing, container, Some(FOLDER), &[(MARKER, upgrade)]).await
    }

    /// Puts a copy in the place of the database, with our files that belong to it.
    ///
    /// # Errors
    /// [`Error::Raced`] where somebody has started the container, [`Error::Docker`] when the engine refuses.
    pub async fn put_database_back(&self, container: &str) -> Result<()> {
        let doing = "put the copy of Grafana's database back";
        self.expect_closed(doing, container).await?;
        // What a newer version left beside its database must not be replayed into an older one.
        let beside: Vec<(&str, &str)> = DATABASE_FILES[1..].iter().map(|name| (*name, "")).collect();
        self.write_into(doing, container, None, &beside).await?;
        for name in DATABASE_FILES {
            self.transfer(doing, container, &format!("{VOLUME}/{FOLDER}"), name, VOLUME).await?;
        }
        self.copy_own_files(doing, container, FOLDER, files::FOLDER_NAME).await?;
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
        let all = DATABASE_FILES.iter().chain(&OWN_FILES);
        let empty: Vec<(&str, &str)> = all.map(|name| (*name, "")).collect();
        self.write_into(doing, container, Some(FOLDER), &empty).await
    }

    /// One that is not there in the one folder is empty in the other, which is the same.
    async fn copy_own_files(&self, doing: &str, container: &str, from: &str, to: &str) -> Result<()> {
        let mut contents = Vec::new();
        for name in OWN_FILES {
            let text = self.read_small(container, &format!("{VOLUME}/{from}/{name}")).await?;
            contents.push((name, text.unwrap_or_default()));
        }
        let contents: Vec<(&str, &str)> = contents.iter().map(|(name, text)| (*name, text.as_str())).collect();
        self.write_into(doing, container, Some(to), &contents).await
    }

    /// Nobody has the database open: the container was never started.
    async fn expect_closed(&self, doing: &str, container: &str) -> Result<()> {
        match self.run_info(Role::Grafana, container).await? {
            Some(RunInfo { run: RunState::Created, .. }) => Ok(()),
            _ => Err(Error::Raced { doing: doing.into(), why: "somebody else started its container".into() }),
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

    /// Copies one file of a container from one folder into another; one that is not there is fine.
    async fn transfer(&self, doing: &str, container: &str, from: &str, name: &str, to: &str) -> Result<()> {
        let path = format!("{from}/{name}");
        if !self.has_path(doing, container, &path).await? {
            return Ok(());
        }
        self.expect_closed(doing, container).await?;
        // An engine works on one archive of a container at a time, so the file is here in between: nameless, and
        // gone with this run.
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

    /// A small file of a container; nothing where there is none or it is empty.
    async fn read_small(&self, container: &str, path: &str) -> Result<Option<String>> {
        let doing = "read a file of Grafana's volume";
        let Some(archive) = self.read_archive(doing, container, path).await? else { return Ok(None) };
        let name = path.rsplit('/').next().unwrap_or(path);
        let text = files::only_file(&archive, name).map_err(files::unexpected(doing))?;
        Ok(text.filter(|text| !text.is_empty()))
    }
}

/// The archive holds one regular file of this name. A copy of a link would be a second name for the database, and no copy.
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
    fn only_a_regular_file_is_copied() {
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
