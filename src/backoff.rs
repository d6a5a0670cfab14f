//! Pauses between polls of a condition, and intervals.

use std::future::Future;
use std::time::Duration;

/// The longest pause; a poll costs about a millisecond.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Pauses before the next poll of a condition, longer each time.
#[expect(clippy::disallowed_methods, reason = "the one place that pauses between polls")]
pub(crate) async fn pause(backoff: &mut Duration) {
    tokio::time::sleep((*backoff).min(LONGEST_PAUSE)).await;
    *backoff = (*backoff * 2).min(LONGEST_PAUSE);
}

/// Times at this interval, the first one at once. Those that a slow server or a suspended process missed are not made
/// up for.
pub(crate) fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Accepts the next connection. Errors, such as too many open files, are temporary.
pub(crate) async fn accepted<T, F: Future<Output = std::io::Result<T>>>(accept: impl Fn() -> F) -> T {
    let mut backoff = LONGEST_PAUSE;
    loop {
        if let Ok(connection) = accept().await {
            return connection;
        }
        pause(&mut backoff).await;
    }
}
