//! Decides how long a failing query through Grafana's data source is repeated, and when the data source is saved again.

use std::time::{Duration, Instant};

use super::observed::QueryFault;

/// Grafana distinguishes saves by whole seconds; after two within one second, the old settings stay in force.
const BETWEEN_SAVES: Duration = Duration::from_millis(1_100);
/// How long an InfluxDB that answers here may refuse Grafana, whose caches last 5 s.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a run saves correct settings again.
pub(crate) const MAX_SAVES: u8 = 3;

/// The next action after a failed query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextCheck {
    Repeat,
    /// Plan another save of the data source, because the answer contradicts its settings.
    SaveAgain,
    /// Waiting cannot help, or the time is over.
    GiveUp,
}

/// The failed queries of one step, which starts at least as late as the last save has ended.
#[derive(Debug)]
pub(crate) struct QueryChecks {
    /// Whether the data source is on the engine's host, where a refused connection is final.
    is_on_engines_host: bool,
    /// How often the data source can still be saved again; 0 if a file provides it.
    saves_left: u8,
    started: Instant,
    deadline: Instant,
    refused_since: Option<Instant>,
}

impl QueryChecks {
    pub(crate) const fn new(is_on_engines_host: bool, saves_left: u8, now: Instant, deadline: Instant) -> Self {
        Self { is_on_engines_host, saves_left, started: now, deadline, refused_since: None }
    }

    /// Counts a failure.
    pub(crate) fn next(&mut self, fault: QueryFault, now: Instant) -> NextCheck {
        self.refused_since = (fault == QueryFault::Refused).then(|| self.refused_since.unwrap_or(now));
        let is_shut = self.is_on_engines_host
            && self.refused_since.is_some_and(|since| now.duration_since(since) > REFUSED_TIMEOUT);
        if now >= self.deadline {
            return NextCheck::GiveUp;
        }
        if now.duration_since(self.started) <= BETWEEN_SAVES {
            return NextCheck::Repeat;
        }
        let is_saved = self.saves_left < MAX_SAVES;
        match self.saves_left {
            _ if is_saved && (fault.is_permanent() || is_shut) => NextCheck::GiveUp,
            0 => NextCheck::Repeat,
            _ => NextCheck::SaveAgain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::NextCheck::{GiveUp, Repeat, SaveAgain};
    use super::*;

    /// The actions after failures with one fault, at these milliseconds.
    fn actions<const N: usize>(checks: (bool, u8), fault: QueryFault, times: [u64; N]) -> [NextCheck; N] {
        let start = Instant::now();
        let (is_on_engines_host, saves_left) = checks;
        let mut checks = QueryChecks::new(is_on_engines_host, saves_left, start, start + Duration::from_secs(60));
        times.map(|time| checks.next(fault, start + Duration::from_millis(time)))
    }

    #[test]
    fn settings_are_saved_again_while_saves_are_left_and_never_twice_within_a_second() {
        for saves_left in 1..=MAX_SAVES {
            let other = actions((false, saves_left), QueryFault::Other, [0, 1_000, 1_101, 60_000]);
            assert_eq!(other, [Repeat, Repeat, SaveAgain, GiveUp]);
        }
        let saved = actions((false, 0), QueryFault::Other, [0, 1_101, 59_999, 60_000]);
        assert_eq!(saved, [Repeat, Repeat, Repeat, GiveUp]);
    }

    #[test]
    fn waiting_ends_early_only_after_a_save_and_if_it_cannot_help() {
        let permanent = |saves_left| actions((false, saves_left), QueryFault::Host, [1_000, 1_101]);
        assert_eq!(permanent(MAX_SAVES), [Repeat, SaveAgain]);
        assert_eq!([permanent(MAX_SAVES - 1), permanent(0)], [[Repeat, GiveUp]; 2]);
        let refused = |is_on_engines_host| actions((is_on_engines_host, 0), QueryFault::Refused, [0, 10_000, 10_001]);
        assert_eq!(refused(true), [Repeat, Repeat, GiveUp]);
        assert_eq!(refused(false), [Repeat, Repeat, Repeat]);
    }
}
