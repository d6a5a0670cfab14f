//! Decides how long a failing query through Grafana's data source is repeated.

use std::time::{Duration, Instant};

use super::observed::QueryFault;

/// Grafana distinguishes saves by whole seconds; after two within one second, the old settings stay in force.
const BETWEEN_SAVES: Duration = Duration::from_millis(1_100);
/// How long an InfluxDB that answers here may refuse Grafana, whose caches last 5 s.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(10);
/// How often correct settings are saved again.
const MAX_SAVES: usize = 3;

/// The next action after a failed query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextCheck {
    Repeat,
    /// Save the data source again, because the answer contradicts its settings.
    SaveAgain,
    /// Waiting cannot help, or the time is over.
    GiveUp,
}

/// The failed queries of one step.
#[derive(Debug)]
pub(crate) struct QueryChecks {
    /// Whether the data source is on the engine's host, where a refused connection is final.
    is_on_engines_host: bool,
    deadline: Instant,
    last_save: Instant,
    saves: usize,
    refused_since: Option<Instant>,
}

impl QueryChecks {
    pub(crate) const fn new(is_on_engines_host: bool, now: Instant, deadline: Instant) -> Self {
        Self { is_on_engines_host, deadline, last_save: now, saves: 0, refused_since: None }
    }

    /// Counts a failure.
    pub(crate) fn next(&mut self, fault: QueryFault, now: Instant) -> NextCheck {
        self.refused_since = (fault == QueryFault::Refused).then(|| self.refused_since.unwrap_or(now));
        let is_shut = self.is_on_engines_host
            && self.refused_since.is_some_and(|since| now.duration_since(since) > REFUSED_TIMEOUT);
        let is_hopeless = self.saves > 0 && (fault == QueryFault::Permanent || is_shut);
        if is_hopeless || now >= self.deadline {
            return NextCheck::GiveUp;
        }
        if now.duration_since(self.last_save) <= BETWEEN_SAVES || self.saves == MAX_SAVES {
            return NextCheck::Repeat;
        }
        NextCheck::SaveAgain
    }

    /// Counts a save that has just ended.
    pub(crate) const fn saved(&mut self, now: Instant) {
        (self.last_save, self.saves) = (now, self.saves + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::NextCheck::{GiveUp, Repeat, SaveAgain};
    use super::*;

    /// The actions after failures with one fault, at these milliseconds.
    fn actions<const N: usize>(is_on_engines_host: bool, fault: QueryFault, times: [u64; N]) -> [NextCheck; N] {
        let start = Instant::now();
        let mut checks = QueryChecks::new(is_on_engines_host, start, start + Duration::from_secs(60));
        times.map(|time| {
            let now = start + Duration::from_millis(time);
            let next = checks.next(fault, now);
            if next == SaveAgain {
                // A save takes some time.
                checks.saved(now + Duration::from_millis(100));
            }
            next
        })
    }

    #[test]
    fn settings_are_saved_again_at_most_three_times_and_never_twice_within_a_second() {
        let other = |times| actions(false, QueryFault::Other, times);
        assert_eq!(other([0, 1_000, 1_200, 2_400, 2_401]), [Repeat, Repeat, SaveAgain, Repeat, SaveAgain]);
        assert_eq!(other([2_000, 4_000, 6_000, 8_000, 59_999]), [SaveAgain, SaveAgain, SaveAgain, Repeat, Repeat]);
        assert_eq!(other([60_000, 60_001, 60_002, 60_003, 60_004]), [GiveUp; 5]);
    }

    #[test]
    fn waiting_ends_early_only_after_a_save_and_if_it_cannot_help() {
        assert_eq!(actions(false, QueryFault::Permanent, [1_000, 2_000, 2_001]), [Repeat, SaveAgain, GiveUp]);
        let refused = |is_on_engines_host| actions(is_on_engines_host, QueryFault::Refused, [2_000, 12_000, 12_001]);
        assert_eq!(refused(true), [SaveAgain, SaveAgain, GiveUp]);
        assert_eq!(refused(false), [SaveAgain, SaveAgain, Repeat]);
    }
}
