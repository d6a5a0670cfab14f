//! The confirmations that `up` requests before it deletes data.

use std::fmt;

use super::{Plan, Step};
use crate::model::observed::Observed;
use crate::model::retention::Retention;
use crate::model::stack::Stack;

/// A confirmation that `up` requests before it deletes data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A shorter retention period deletes data.
    Retention { database: String, from: Option<Retention>, to: Retention },
    /// Grafana's database from before this upgrade replaces the current one.
    Restore { tried: String },
}

impl Question {
    /// Whether confirming this question confirms the other, too.
    #[must_use]
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let is_open = |question: &Self| matches!(question, Self::Retention { from: None, .. });
        self == other || (is_open(self) && matches!(other, Self::Retention { .. }))
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retention { database, from: Some(from), to } => {
                write!(f, "changing the retention period of database {database} ({from}) to {to} deletes older data")
            }
            Self::Retention { database, from: None, to } => {
                write!(
                    f,
                    "changing the retention period of database {database} (unknown) to {to} may delete older data"
                )
            }
            Self::Restore { tried } => write!(
                f,
                "restoring the database that precedes the upgrade to {tried} loses all data stored in Grafana \
                 since then"
            ),
        }
    }
}

/// The confirmations needed before a plan is executed. A database that was copied just now is
/// restored without one.
#[must_use]
pub fn questions(stack: &Stack, seen: &Observed, plan: &Plan) -> Vec<Question> {
    let upgrade = seen.settings.upgrade.as_ref().filter(|_| plan.rolls_back());
    let upgrade = upgrade.filter(|upgrade| !upgrade.is_recent(seen.time, stack.timeout));
    let restore = upgrade.map(|upgrade| Question::Restore { tried: upgrade.to.name.to_string() });
    plan.steps().filter_map(|(step, _)| shorter_retention(step)).chain(restore).collect()
}

/// The question about a step that shortens the retention period, or may do so because the actual one is unknown.
fn shorter_retention(step: &Step) -> Option<Question> {
    match step {
        &Step::SetRetention { ref database, from, to } if from.is_none_or(|from| to.is_shorter_than(from)) => {
            Some(Question::Retention { database: database.clone(), from, to })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn days(days: u64) -> Retention {
        Retention::For(Duration::from_secs(days * 86_400))
    }

    fn question(from: Option<Retention>, to: Retention) -> Option<Question> {
        shorter_retention(&Step::SetRetention { database: "d".into(), from, to })
    }

    #[test]
    fn a_retention_is_shortened_unless_the_actual_period_is_known_to_be_no_longer() {
        for from in [Some(days(90)), Some(Retention::Forever), None] {
            let expected = Question::Retention { database: "d".into(), from, to: days(2) };
            assert_eq!(question(from, days(2)), Some(expected));
        }
        for (to, from) in [(days(90), days(2)), (days(2), days(2)), (Retention::Forever, days(2))] {
            assert_eq!(question(Some(from), to), None, "{to:?} {from:?}");
        }
    }

    #[test]
    fn a_question_about_an_unknown_period_covers_the_same_one_about_a_known_period() {
        let (unknown, known) = (question(None, days(2)).unwrap(), question(Some(days(90)), days(2)).unwrap());
        assert!(unknown.covers(&known) && known.covers(&known) && !known.covers(&unknown));
        let restore = Question::Restore { tried: "grafana/grafana:13.0.0".into() };
        assert!(!unknown.covers(&restore) && !restore.covers(&known) && restore.covers(&restore));
    }
}
