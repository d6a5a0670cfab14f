//! Commands inside containers: run to their end, with what they printed last.
//!
//! Must not know what a command does, nor what a failure of it means.

use std::time::Duration;

use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::Docker;
use super::transport::for_stream;
use crate::error::Result;
use crate::model::stack::Secret;
use crate::model::text::excerpt;

/// How many characters are kept at least of what a command printed last.
const LIMIT: usize = 64 << 10;
/// How many of them a message shows.
const SHOWN: usize = 300;

impl Docker {
    /// Runs a command as the container's user, with a secret on its standard input if there is one; its exit
    /// code and what it printed.
    ///
    /// # Errors
    /// [`crate::error::Error::Docker`] when the engine refuses, or there is no such program.
    pub(super) async fn exec(
        &self,
        doing: &str,
        container: &str,
        command: &[&str],
        input: Option<&Secret>,
    ) -> Result<(i64, String)> {
        let config = ExecConfig {
            attach_stdin: input.map(|_| true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.iter().map(|word| (*word).to_string()).collect()),
            ..ExecConfig::default()
        };
        let exec = self.call(doing, self.client.create_exec(container, config)).await?;
        let (client, bounded) = for_stream(&self.client);
        let started = self.call(doing, client.start_exec(&exec.id, None)).await?;
        let mut printed = String::new();
        if let StartExecResults::Attached { output, input: mut stdin } = started {
            let mut output = bounded(output);
            if let Some(input) = input {
                let line = format!("{}\n", input.reveal());
                let sent = async {
                    stdin.write_all(line.as_bytes()).await?;
                    stdin.shutdown().await
                };
                // A command that is not there reads nothing; its exit code tells.
                let _ = sent.await;
            }
            while let Some(Ok(part)) = output.next().await {
                printed.push_str(&part.to_string());
                if printed.len() > 8 * LIMIT {
                    printed.drain(..end_of(&printed, LIMIT));
                }
            }
        }
        let mut backoff = Duration::from_millis(10);
        loop {
            let state = self.call(doing, self.client.inspect_exec(&exec.id)).await?;
            if state.running != Some(true) {
                return Ok((state.exit_code.unwrap_or(-1), printed));
            }
            crate::backoff::pause(&mut backoff).await;
        }
    }
}

/// What a command that failed said: what went wrong comes last.
pub(super) fn last_words(printed: &str) -> String {
    excerpt(&printed[end_of(printed, SHOWN)..], SHOWN)
}

/// Where the last characters begin.
fn end_of(text: &str, characters: usize) -> usize {
    text.char_indices().rev().nth(characters).map_or(0, |(at, _)| at)
}
