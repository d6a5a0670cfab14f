//! Streams files in and out of containers, and runs commands inside them.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
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
        // The engine answers after unpacking everything, so its answer may take longer than others.
        let client = self.client.clone().with_timeout(COMMAND_TIMEOUT);
        let upload = async |body: ChunkStream| {
            let body = bollard::body_try_stream(body.map_ok(Into::into));
            client.upload_to_container(container, Some(options), body).await
        };
        let result = pass(chunks, upload).await.ok_or_else(|| stalled(doing))?;
        result.map_err(|error| super::errors::translate(doing, &error))
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

type ChunkStream = BoxStream<'static, io::Result<Vec<u8>>>;

/// Passes chunks to `upload` as a stream; `None` if it neither ends nor takes a chunk for too long. It begins with the
/// first chunk, for which the reader may have to skip most of an archive.
async fn pass<T>(mut chunks: Receiver<io::Result<Vec<u8>>>, upload: impl AsyncFnOnce(ChunkStream) -> T) -> Option<T> {
    let first = tokio::time::timeout(COMMAND_TIMEOUT, chunks.recv()).await.ok()?;
    let (beat, mut beats) = watch::channel(());
    let rest = stream::unfold((chunks, beat), |(mut chunks, beat)| async {
        let chunk = chunks.recv().await?;
        beat.send_replace(());
        Some((chunk, (chunks, beat)))
    });
    let mut upload = pin!(upload(stream::iter(first).chain(rest).boxed()));
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
        if let Some(result) = tokio::time::timeout(STALL_TIMEOUT, moves).await.ok()? {
            return Some(result);
        }
    }
}

fn stalled(doing: &str) -> Error {
    let why = format!("no data was transferred for {}s", STALL_TIMEOUT.as_secs());
    Error::Docker { doing: doing.into(), why, refusal: Refusal::Gone }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn elapse(time: Duration) {
        let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
    }

    /// The bytes that an upload gets in two chunks, each after a pause.
    async fn passed(pauses: [Duration; 2]) -> Option<usize> {
        let (sink, chunks) = tokio::sync::mpsc::channel(1);
        let reading = async move {
            for pause in pauses {
                elapse(pause).await;
                if sink.send(Ok(vec![0; 3])).await.is_err() {
                    break;
                }
            }
        };
        let upload = async |body: ChunkStream| body.try_concat().await.unwrap().len();
        tokio::join!(pass(chunks, upload), reading).0
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_waits_for_its_first_chunk_and_then_stalls_without_another() {
        let (soon, late) = (Duration::from_secs(1), 5 * STALL_TIMEOUT);
        assert_eq!(passed([late, soon]).await, Some(6));
        assert_eq!(passed([soon, late]).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_begins_after_its_first_chunk() {
        let (sink, chunks) = tokio::sync::mpsc::channel(1);
        let begun = tokio::time::Instant::now();
        let upload = async |_: ChunkStream| begun.elapsed();
        let reading = async {
            elapse(STALL_TIMEOUT / 2).await;
            sink.send(Ok(vec![])).await.unwrap();
        };
        assert_eq!(tokio::join!(pass(chunks, upload), reading).0, Some(STALL_TIMEOUT / 2));
    }
}
