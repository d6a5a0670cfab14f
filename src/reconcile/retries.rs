//! Decides after a failed step whether a run observes and plans again.

use std::time::Duration;

use crate::backoff::pause;
use crate::error::{Error, Refusal, Result};
use crate::model::event::{Event, Listener};
use crate::model::role::Role;

/// The number of plans made because another process changed the engine meanwhile.
const MAX_ATTEMPTS: usize = 6;

/// Decides whether to plan again.
pub(super) struct Retries<'a> {
    listener: &'a dyn Listener,
    left: usize,
    pub(super) backoff: Duration,
    refused: bool,
    /// The last note, which is not repeated.
    noted: String,
}

impl<'a> Retries<'a> {
    pub(super) const fn new(listener: &'a dyn Listener) -> Self {
        Self { listener, left: MAX_ATTEMPTS, backoff: Duration::from_millis(50), refused: false, noted: String::new() }
    }

    /// Uses up one attempt; returns the error if none is left.
    pub(super) fn spend(&mut self, error: Error) -> Result<()> {
        self.left -= 1;
        if self.left == 0 { Err(error) } else { Ok(()) }
    }

    /// Continues after a race, and once after a rejected login, which is not sent again: the next plan reports it with
    /// its way out.
    pub(super) async fn after(&mut self, error: Error) -> Result<()> {
        let is_login = matches!(error, Error::Refused { role: Role::Grafana, .. });
        if is_race(&error) {
            let note = format!("{error}; retrying");
            if note != self.noted {
                self.listener.on(Event::Note(&note));
                self.noted = note;
            }
            pause(&mut self.backoff).await;
        } else if is_login && !self.refused {
            self.refused = true;
        } else {
            return Err(error);
        }
        self.spend(error)
    }
}

/// Whether another process changed the same object, so that a new plan is needed. Grafana 7.5
/// answers 500 to one of two simultaneous saves of the same object.
const fn is_race(error: &Error) -> bool {
    matches!(
        error,
        Error::Raced { .. }
            | Error::Docker { refusal: Refusal::Conflict | Refusal::NotFound | Refusal::Overwritten, .. }
            | Error::Answer { status: 500..=599, .. }
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[derive(Default)]
    struct Notes(RefCell<Vec<String>>);

    impl Listener for Notes {
        fn on(&self, event: Event<'_>) {
            if let Event::Note(text) = event {
                self.0.borrow_mut().push(text.into());
            }
        }
    }

    #[tokio::test]
    async fn one_cause_is_noted_once() {
        let notes = Notes::default();
        let mut retries = Retries { backoff: Duration::ZERO, ..Retries::new(&notes) };
        let raced = |why: &str| Error::Raced { doing: "save the dashboard".into(), why: why.into() };
        for why in ["a", "a", "b", "b"] {
            retries.after(raced(why)).await.unwrap();
        }
        let expected = ["cannot save the dashboard: a; retrying", "cannot save the dashboard: b; retrying"];
        assert_eq!(*notes.0.borrow(), expected);
    }
}
