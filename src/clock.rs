//! This machine's clock, which may be wrong.

use std::time::{Duration, SystemTime};

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX)
}

/// Microseconds since 1970.
pub(crate) fn micros_since_1970() -> u128 {
    since_1970().as_micros()
}
