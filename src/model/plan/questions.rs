//! The confirmations that `up` requests before it deletes data.

use std::fmt;

use super::{Plan, Step};
use crate::model::observed::Observed;
use crate::model::retention::Retention;
use crate::model::stack::Stack;
use crate::model::upgrade::UpgradeState;

/// A confirmation that `up` requests before it deletes data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A shorter retention period deletes data.
    Retention { database: String, from: Option<Retention>, to: Retention },
    /// Grafana's database from before this upgrade replaces the current one.
    Restore {
        tried: String,
        /// Whether it does so before any image starts, not only before the desired one.
        precedes_every_image: bool,
    },
}

impl Question {
    /// Whether confirming this question confirms the other, too.
    #[must_use]
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Retention { from: None, .. }, Self::Retention { .. }) => true,
            (Self::Restore { tried, .. }, Self::Restore { tried: other, .. }) => tried == other,
            _ => self == other,
        }
    }

    /// How to confirm, or to avoid the loss.
    #[must_use]
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::Retention { .. } => "add --yes to confirm, or choose another value for the setting",
            Self::Restore { precedes_every_image: true, .. } => {
                "add --yes to confirm: no image of Grafana starts before its database is restored"
            }
            Self::Restore { precedes_every_image: false, .. } => {
                "add --yes to confirm, or keep the database with another --grafana-image"
            }
        }
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
            Self::Restore { tried, .. } => write!(
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
    let restore = upgrade.map(|upgrade| Question::Restore {
        tried: upgrade.to.name.to_string(),
        precedes_every_image: upgrade.state != UpgradeState::Unproven,
    });
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
    use crate::model::image::ImageRef;
    use crate::model::plan::{self, UpOptions};
    use crate::model::role::Role;
    use crate::model::upgrade::{NamedImage, Upgrade};
    use crate::model::volume_content::{VolumeContent, VolumeFiles};
    use crate::samples::{self, container_of};

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
        let restore = Question::Restore { tried: "grafana/grafana:13.0.0".into(), precedes_every_image: false };
        assert!(!unknown.covers(&restore) && !restore.covers(&known) && restore.covers(&restore));
    }

    #[test]
    fn only_an_unproven_image_can_be_replaced_instead_of_rolled_back() {
        for (state, offers_image) in
            [(UpgradeState::Unproven, true), (UpgradeState::Failed, false), (UpgradeState::Postponed, false)]
        {
            let named = |tag: &str| {
                let name = ImageRef::parse(&format!("grafana/grafana:{tag}")).unwrap();
                NamedImage { name, id: None }
            };
            let (id, from, to) = ("1".to_string(), named("1.2.0"), named("1.3.0"));
            let mut seen = samples::in_sync();
            seen.time = 1_000_000_000_000;
            container_of(&mut seen, Role::Grafana).config.as_mut().unwrap().image = to.name.clone();
            let files = VolumeFiles::default();
            seen.grafana.content = Some(VolumeContent { files, copy: Some(id.clone()) });
            seen.settings.upgrade = Some(Upgrade { id, from, to, state });
            let stack = samples::stack();
            let plan = plan::up(&stack, &seen, UpOptions::default());
            let questions = questions(&stack, &seen, &plan);
            let [question] = &questions[..] else { panic!("{questions:?} {plan:?}") };
            assert_eq!(question.hint().contains("--grafana-image"), offers_image, "{state:?}");
        }
    }
}
