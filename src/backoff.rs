//! Pauses between two looks at a condition.

use std::future::Future;
use std::time::Duration;

/// The longest pause between two looks: a look costs about a millisecond.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Waits a little, longer each time: for polling only, between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "the one place that pauses between two looks")]
pub(crate) async fn pause(backoff: &mut Duration) {
    tokio::time::sleep((*backoff).min(LONGEST_PAUSE)).await;
    *backoff = (*backoff * 2).min(LONGEST_PAUSE);
}

/// The next connection to a listener. What fails passes, as where files run out.
pub(crate) async fn accepted<T, F: Future<Output = std::io::Result<T>>>(accept: impl Fn() -> F) -> T {
    let mut backoff = LONGEST_PAUSE;
    loop {
        if let Ok(connection) = accept().await {
            return connection;
        }
        pause(&mut backoff).await;
    }
}
