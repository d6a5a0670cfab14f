//! The logs of containers.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::{Stream, StreamExt as _, stream};

use super::Docker;
use super::errors::translate;
use super::inspection::nanoseconds_of;
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
/// In nanoseconds.
const SECOND: i64 = 1_000_000_000;

/// A line of a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimedLine {
    /// When the engine received it, in nanoseconds since 1970; 0 if unknown.
    pub(crate) at: i64,
    pub(crate) text: String,
}

impl Docker {
    /// The last lines of a container's log, to show with an error.
    pub(crate) async fn last_lines(&self, name: &str) -> Vec<String> {
        self.lines_of(name, LOG_LINES).await
    }

    /// More of its last lines: those of other requests may be in between.
    pub(crate) async fn recent_lines(&self, name: &str) -> Vec<String> {
        self.lines_of(name, LINES_SEARCHED).await
    }

    async fn lines_of(&self, name: &str, count: usize) -> Vec<String> {
        let stream = self.logs(name, false, Some(count), 0, 0);
        // An engine may send more lines than requested.
        let read = stream.take(count).filter_map(async |line| Some(excerpt(&line.ok()?.text, 400))).collect();
        tokio::time::timeout(LOG_TIMEOUT, read).await.unwrap_or_default()
    }

    /// Whether a text is in the last lines of a container's log.
    ///
    /// # Errors
    /// [`Error::Docker`] if the log cannot be read.
    pub(crate) async fn has_logged(&self, name: &str, text: &str) -> Result<bool> {
        let mut lines = std::pin::pin!(self.logs(name, false, Some(LINES_SEARCHED), 0, 0));
        let search = async {
            while let Some(line) = lines.next().await {
                if line?.text.contains(text) {
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

    /// The lines of a container's log from `since` on, in nanoseconds since 1970, without the first `shown` ones of exactly
    /// that time; 0 means everything.
    pub(crate) fn logs(
        &self,
        name: &str,
        follow: bool,
        tail: Option<usize>,
        since: i64,
        shown: usize,
    ) -> impl Stream<Item = Result<TimedLine>> + use<> {
        let tail = tail.map_or_else(|| "all".to_string(), |lines| lines.to_string());
        let options = LogsOptionsBuilder::default().follow(follow).stdout(true).stderr(true).tail(&tail);
        let options = options.timestamps(true).since(i32::try_from(since / SECOND).unwrap_or(i32::MAX)).build();
        // The engine selects by second, and some engines stamp lines with whole seconds.
        let mut to_skip = shown;
        let mut is_new = move |line: &TimedLine| {
            let is_shown = line.at == since && to_skip > 0;
            to_skip -= usize::from(is_shown);
            (line.at >= since || line.at == 0) && !is_shown
        };
        let doing = "read the log of a container";
        let (client, bounded) = for_stream(&self.client);
        let output = bounded(client.logs(name, Some(options))).map(Some).chain(stream::iter([None]));
        let mut lines = LogLines::default();
        output.flat_map(move |output| {
            stream::iter(match output {
                Some(Ok(output)) => lines.add(output).into_iter().filter(&mut is_new).map(Ok).collect(),
                Some(Err(error)) => vec![Err(translate(doing, &error))],
                None => lines.unfinished().into_iter().filter(&mut is_new).map(Ok).collect(),
            })
        })
    }
}

/// The output of a container, from which lines are made: the engine splits a line of more than 16 KiB, and precedes each
/// part with its time.
#[derive(Default)]
struct LogLines {
    /// The beginnings of lines on standard output and standard error.
    begun: [Vec<u8>; 2],
    /// The time of the last part.
    at: i64,
}

impl LogLines {
    /// Adds output, and returns the lines that it completes.
    fn add(&mut self, output: LogOutput) -> Vec<TimedLine> {
        let (begun, message) = match output {
            LogOutput::StdErr { message } => (&mut self.begun[1], message),
            LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                (&mut self.begun[0], message)
            }
        };
        let (at, text) = timed(&message);
        self.at = at;
        let mut lines = Vec::new();
        for part in text.split_inclusive(|byte| *byte == b'\n') {
            begun.extend(part);
            if part.ends_with(b"\n") || begun.len() >= LONGEST_LINE {
                lines.push(line(at, &std::mem::take(begun)));
            }
        }
        lines
    }

    /// The last lines, if they have no end.
    fn unfinished(&mut self) -> Vec<TimedLine> {
        let begun = self.begun.iter_mut().map(std::mem::take).filter(|begun| !begun.is_empty());
        begun.map(|begun| line(self.at, &begun)).collect()
    }
}

/// The time that precedes a message, and the rest.
fn timed(message: &[u8]) -> (i64, &[u8]) {
    let end = message.iter().position(|byte| *byte == b' ').unwrap_or_default();
    let time = std::str::from_utf8(&message[..end]).ok().and_then(nanoseconds_of);
    time.map_or((0, message), |at| (at, &message[end + 1..]))
}

fn line(at: i64, bytes: &[u8]) -> TimedLine {
    TimedLine { at, text: printable(String::from_utf8_lossy(bytes).trim_end()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_the_engine_splits_is_one_line() {
        let mut lines = LogLines::default();
        let out = |text: &str| LogOutput::StdOut { message: format!("1970-01-01T01:00:02.5+01:00 {text}").into() };
        let texts = |lines: Vec<TimedLine>| lines.into_iter().map(|line| line.text).collect::<Vec<_>>();
        assert_eq!(lines.add(out("a long ")), []);
        let error = LogOutput::StdErr { message: "1970-01-01T00:00:01Z error\nlast".into() };
        assert_eq!(lines.add(error), [TimedLine { at: SECOND, text: "error".into() }]);
        let added = lines.add(out("line\r\nnext\n"));
        assert!(added.iter().all(|line| line.at == 5 * SECOND / 2), "{added:?}");
        assert_eq!(texts(added), ["a long line", "next"]);
        assert_eq!(texts(lines.add(out("\n"))), [""]);
        assert_eq!(texts(lines.unfinished()), ["last"]);
        assert_eq!(texts(lines.add(out(&"x".repeat(LONGEST_LINE + 1))))[0].len(), LONGEST_LINE + 1);
        assert_eq!(lines.unfinished(), []);
        let untimed = LogOutput::StdOut { message: "level=info msg=x\n".into() };
        assert_eq!(lines.add(untimed), [TimedLine { at: 0, text: "level=info msg=x".into() }]);
    }
}
