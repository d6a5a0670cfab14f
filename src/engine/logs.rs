//! The logs of containers.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::{Stream, StreamExt};

use super::Docker;
use super::errors::translate;
use super::transport::for_stream;
use crate::error::{Error, Refusal, Result};
use crate::model::text::{excerpt, printable};

/// The number of log lines shown with an error.
const LOG_LINES: usize = 20;
/// The number of log lines that are searched for a text; other requests may be logged in between.
const LINES_SEARCHED: usize = 500;
/// The time limit for reading them.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);

impl Docker {
    /// The last lines of a container's log.
    pub(crate) async fn last_lines(&self, name: &str) -> Vec<String> {
        let stream = self.logs(name, false, Some(LOG_LINES), 0);
        // An engine may send more lines than requested.
        let read = stream.take(LOG_LINES).filter_map(async |line| Some(excerpt(&line.ok()?, 400))).collect();
        tokio::time::timeout(LOG_TIMEOUT, read).await.unwrap_or_default()
    }

    /// Whether a text is in the last lines of a container's log.
    ///
    /// # Errors
    /// [`Error::Docker`] if the log cannot be read.
    pub(crate) async fn has_logged(&self, name: &str, text: &str) -> Result<bool> {
        let mut lines = std::pin::pin!(self.logs(name, false, Some(LINES_SEARCHED), 0));
        let search = async {
            while let Some(line) = lines.next().await {
                if line?.contains(text) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        tokio::time::timeout(LOG_TIMEOUT, search).await.unwrap_or_else(|_| {
            Err(Error::Docker {
                doing: "read the log of a container".into(),
                why: format!("no answer from the engine for {}s", LOG_TIMEOUT.as_secs()),
                refusal: Refusal::Gone,
            })
        })
    }

    /// A container's log, line by line; `since` is in seconds since 1970, 0 means everything.
    pub(crate) fn logs(
        &self,
        name: &str,
        follow: bool,
        tail: Option<usize>,
        since: i32,
    ) -> impl Stream<Item = Result<String>> + use<> {
        let tail = tail.map_or_else(|| "all".to_string(), |lines| lines.to_string());
        let options =
            LogsOptionsBuilder::default().follow(follow).stdout(true).stderr(true).tail(&tail).since(since).build();
        let doing = "read the log of a container";
        let (client, bounded) = for_stream(&self.client);
        bounded(client.logs(name, Some(options))).map(move |output| match output {
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::StdErr { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message },
            ) => Ok(printable(String::from_utf8_lossy(&message).trim_end())),
            Err(error) => Err(translate(doing, &error)),
        })
    }
}
