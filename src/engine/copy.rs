//! Streams files in and out of containers, and runs commands inside them.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use super::exec::last_words;
use super::transport::for_stream;
use super::{Docker, files};
use crate::error::{Error, Refusal, Result, is_disk_full};
use crate::model::role::Role;

/// The time limit of a command inside a container, which may copy a whole database.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// The longest pause while files are transferred: unpacking the last one may take long.
const STALL_TIMEOUT: Duration = Duration::from_secs(600);

impl Docker {
    /// Runs a command inside a container, as the container's user.
    ///
    /// # Errors
    /// [`Error::Docker`] if it fails, with its last output.
    pub(crate) async fn run_inside(&self, doing: &str, container: &str, command: &[&str]) -> Result<()> {
        self.read_inside(doing, container, command).await.map(drop)
    }

    /// The same, returning the command's output.
    ///
    /// # Errors
    /// [`Error::Docker`] if it fails, with its last output.
    pub(crate) async fn read_inside(&self, doing: &str, container: &str, command: &[&str]) -> Result<String> {
        let failed = |why: String| Error::Docker { doing: doing.into(), why, refusal: Refusal::Other };
        let run = self.exec(doing, container, command, None);
        let (code, printed) = match tokio::time::timeout(COMMAND_TIMEOUT, run).await {
            Ok(result) => result?,
            Err(_) => return Err(failed("its command did not finish in time".into())),
        };
        if code == 0 {
            return Ok(printed);
        }
        let words = last_words(&printed);
        let refusal = if is_disk_full(&words) { Refusal::Disk } else { Refusal::Other };
        Err(Error::Docker {
            doing: doing.into(),
            why: format!("its command exited with code {code}: {words}"),
            refusal,
        })
    }

    /// Passes a path of a container to `sink` as a tar archive, in chunks, until `sink` returns
    /// `false`. Returns `false` if the path does not exist.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error or sends nothing for too long.
    pub(crate) async fn download(
        &self,
        doing: &str,
        container: &str,
        path: &str,
        mut sink: impl AsyncFnMut(Vec<u8>) -> bool,
    ) -> Result<bool> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let (client, bounded) = for_stream(&self.client);
        let mut chunks = bounded(client.download_from_container(container, Some(options)));
        let first = self.find(doing, async { chunks.next().await.transpose() }).await?;
        let Some(mut chunk) = first else { return Ok(false) };
        while let Some(bytes) = chunk {
            if !sink(bytes.to_vec()).await {
                break;
            }
            chunk = match tokio::time::timeout(STALL_TIMEOUT, chunks.next()).await {
                Ok(next) => next.transpose().map_err(|error| super::errors::translate(doing, &error))?,
                Err(_) => return Err(stalled(doing)),
            };
        }
        Ok(true)
    }

    /// Unpacks a tar archive below a path of a container.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error or accepts nothing for too long.
    pub(crate) async fn upload(
        &self,
        doing: &str,
        container: &str,
        path: &str,
        chunks: Receiver<io::Result<Vec<u8>>>,
    ) -> Result<()> {
        let options = UploadToContainerOptionsBuilder::default().path(path).copy_uidgid("false").build();
        let (beat, mut beats) = watch::channel(());
        let body = stream::unfold((chunks, beat), |(mut chunks, beat)| async {
            let chunk = chunks.recv().await?;
            beat.send_replace(());
            Some((chunk.map(Into::into), (chunks, beat)))
        });
        // The engine answers after unpacking everything, so its answer may take longer than others.
        let client = self.client.clone().with_timeout(COMMAND_TIMEOUT);
        let mut upload = pin!(client.upload_to_container(container, Some(options), bollard::body_try_stream(body)));
        let mut is_sent = false;
        loop {
            let moves = async {
                tokio::select! {
                    result = &mut upload => Some(result),
                    beat = beats.changed(), if !is_sent => {
                        is_sent = beat.is_err();
                        None
                    }
                }
            };
            match tokio::time::timeout(STALL_TIMEOUT, moves).await {
                Ok(Some(result)) => return result.map_err(|error| super::errors::translate(doing, &error)),
                Ok(None) => {}
                Err(_) => return Err(stalled(doing)),
            }
        }
    }

    /// The user and group that read the container's files.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer.
    pub(crate) async fn owner(&self, doing: &str, container: &str) -> Result<(u64, u64)> {
        let found = self.inspect(doing, container).await?;
        Ok(files::owner(&found.config.and_then(|config| config.user).unwrap_or_default()))
    }

    /// Pauses a container.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn pause_container(&self, role: Role, id: &str) -> Result<()> {
        let (doing, id) = (format!("pause the container of {}", role.title()), id.to_string());
        self.change(&doing, |client| async move { client.pause_container(&id).await }).await
    }
}

fn stalled(doing: &str) -> Error {
    let why = format!("no data was transferred for {}s", STALL_TIMEOUT.as_secs());
    Error::Docker { doing: doing.into(), why, refusal: Refusal::Gone }
}
