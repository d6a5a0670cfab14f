//! Runs commands inside containers to completion, and keeps their last output.

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

/// The minimum number of characters kept from the end of a command's output.
const LIMIT: usize = 64 << 10;
/// The number of characters shown in a message.
const SHOWN: usize = 300;

impl Docker {
    /// Runs a command as the container's user, with an optional secret on standard input; returns
    /// its exit code and output.
    ///
    /// # Errors
    /// [`crate::error::Error::Docker`] if the engine returns an error or the program does not exist.
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
                // A program that does not exist reads nothing; the exit code shows that.
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

/// The end of a failed command's output, where the error usually is.
pub(super) fn last_words(printed: &str) -> String {
    excerpt(&printed[end_of(printed, SHOWN)..], SHOWN)
}

/// The start index of the last characters.
fn end_of(text: &str, characters: usize) -> usize {
    text.char_indices().rev().nth(characters).map_or(0, |(at, _)| at)
}
