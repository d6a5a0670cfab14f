//! The logs of containers.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::{Stream, StreamExt as _, stream};

use super::Docker;
use super::errors::translate;
use super::transport::for_stream;
use crate::error::{Error, Refusal, Result};
use crate::model::text::{excerpt, printable};

/// The number of log lines shown with an error.
const LOG_LINES: usize = 20;
/// The number of log lines that are searched for a text; other requests may be logged in between.
const LINES_SEARCHED: usize = 500;
/// A longer line is split, in bytes.
const LONGEST_LINE: usize = 1 << 20;
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
        let output = bounded(client.logs(name, Some(options))).map(Some).chain(stream::iter([None]));
        let mut lines = LogLines::default();
        output.flat_map(move |output| {
            stream::iter(match output {
                Some(Ok(output)) => lines.add(output).into_iter().map(Ok).collect(),
                Some(Err(error)) => vec![Err(translate(doing, &error))],
                None => lines.unfinished().into_iter().map(Ok).collect(),
            })
        })
    }
}

/// The output of a container, from which lines are made: the engine splits a line of more than 16 KiB.
#[derive(Default)]
struct LogLines {
    /// The beginnings of lines on standard output and standard error.
    begun: [Vec<u8>; 2],
}

impl LogLines {
    /// Adds output, and returns the lines that it completes.
    fn add(&mut self, output: LogOutput) -> Vec<String> {
        let (begun, message) = match output {
            LogOutput::StdErr { message } => (&mut self.begun[1], message),
            LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                (&mut self.begun[0], message)
            }
        };
        let mut lines = Vec::new();
        for part in message.split_inclusive(|byte| *byte == b'\n') {
            begun.extend(part);
            if part.ends_with(b"\n") || begun.len() >= LONGEST_LINE {
                lines.push(line(&std::mem::take(begun)));
            }
        }
        lines
    }

    /// The last lines, if they have no end.
    fn unfinished(&mut self) -> Vec<String> {
        self.begun.iter_mut().map(std::mem::take).filter(|begun| !begun.is_empty()).map(|begun| line(&begun)).collect()
    }
}

fn line(bytes: &[u8]) -> String {
    printable(String::from_utf8_lossy(bytes).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_the_engine_splits_is_one_line() {
        let mut lines = LogLines::default();
        let out = |text: &str| LogOutput::StdOut { message: text.to_string().into() };
        assert_eq!(lines.add(out("a long ")), Vec::<String>::new());
        assert_eq!(lines.add(LogOutput::StdErr { message: "error\nlast".into() }), ["error"]);
        assert_eq!(lines.add(out("line\r\nnext\n")), ["a long line", "next"]);
        assert_eq!(lines.add(out("\n")), [""]);
        assert_eq!(lines.unfinished(), ["last"]);
        assert_eq!(lines.add(out(&"x".repeat(LONGEST_LINE + 1)))[0].len(), LONGEST_LINE + 1);
        assert_eq!(lines.unfinished(), Vec::<String>::new());
    }
}
