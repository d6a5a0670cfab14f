//! Plans the remembered settings.

use super::{BlockReason, Blocker, Finding, Item, Resource, Step};
use crate::model::container_config::Difference;
use crate::model::lost_settings::{Loss, UnknownSetting};
use crate::model::observed::Observed;
use crate::model::role::Role;
use crate::model::stack::{Settings, Stack, texts};

pub(super) fn settings(stack: &Stack, seen: &Observed, keeps_retention: bool) -> Option<Item> {
    let (settings, stored) = (stack.settings.as_ref()?, &seen.settings);
    if let Some(blocker) = changed_meanwhile(stack, settings, seen) {
        return Some(Item::new(Resource::Settings, blocker.into(), vec![]));
    }
    let finding = match (&settings.lost, &stored.values) {
        (_, Some(values)) if *values == settings.values && stored.numbers.len() == 1 => Finding::InSync,
        (Some(lost), _) => match unknown_settings(stack) {
            Some(blocker) => blocker.into(),
            None => Finding::Stopped(lost.cause.to_string()),
        },
        (None, None) => Finding::Missing,
        (None, Some(values)) => {
            let differences = Difference::between(&texts(values), &texts(&settings.values));
            if !differences.is_empty() {
                Finding::Differs(differences)
            } else if *values != settings.values {
                Finding::Requested("they now come from another source")
            } else {
                Finding::Requested("an older copy exists")
            }
        }
    };
    let kept = keeps_retention.then(|| settings.keep_retention(stored.values.as_ref()));
    if kept.is_some() && kept == stored.values && stored.numbers.len() == 1 {
        // Only the retention period is left, which a later plan saves.
        return Some(Item::new(Resource::Settings, finding, vec![]));
    }
    let (values, replaces) = (kept.unwrap_or_else(|| settings.values.clone()), stored.values.clone());
    Some(Item::with_step(Resource::Settings, finding, Step::SaveSettings { values, replaces }))
}

/// Replaces missing or unreadable settings before the record of an upgrade is written next to them. The retention
/// period is not confirmed yet. Settings that another run removed stay removed.
pub(super) fn before_record(stack: &Stack, seen: &Observed) -> Option<Step> {
    let settings = stack.settings.as_ref().filter(|settings| changed_meanwhile(stack, settings, seen).is_none())?;
    let values = settings.keep_retention(None);
    seen.settings.values.is_none().then_some(Step::SaveSettings { values, replaces: None })
}

/// The blocker after another run changed the stored settings: this run's values would bring back what that one removed.
/// Settings that are gone although the instance exists were lost, and this run's values replace them.
fn changed_meanwhile(stack: &Stack, settings: &Settings, seen: &Observed) -> Option<Blocker> {
    let stored = &seen.settings;
    let has_container = Role::ALL.into_iter().any(|role| seen.server(role).container.ours().is_some());
    let are_lost = stored.numbers.is_empty() && has_container;
    if are_lost || !settings.are_outdated(stored.values.as_ref()) {
        return None;
    }
    let before = settings.merged_from.as_ref().map(texts).unwrap_or_default();
    let (how, changes) = match &stored.values {
        None if stored.numbers.is_empty() => ("were removed", vec![]),
        None => ("became unreadable", vec![]),
        Some(now) => ("changed", Difference::between(&before, &texts(now))),
    };
    let changes = if changes.is_empty() { String::new() } else { format!(": {}", Difference::list(&changes)) };
    Some(Blocker {
        kind: BlockReason::Changed,
        why: format!("the settings of {} {how} while this command ran{changes}", stack.instance),
        hint: "run the same command again: it continues with the current settings".into(),
    })
}

impl Stack {
    /// The same stack after its run has executed these steps: settings that it stored or removed are its own.
    #[must_use]
    pub(crate) fn after<'a>(&self, executed: impl DoubleEndedIterator<Item = &'a Step>) -> Self {
        let mut stack = self.clone();
        let own = executed.rev().find_map(|step| match step {
            Step::SaveSettings { values, .. } => Some(Some(values)),
            Step::RemoveSettings => Some(None),
            _ => None,
        });
        if let (Some(settings), Some(own)) = (&mut stack.settings, own) {
            settings.merged_from = own.cloned();
        }
        stack
    }
}

/// The blocker of commands that depend on remembered settings that were lost and cannot be derived.
#[must_use]
pub(crate) fn unknown_settings(stack: &Stack) -> Option<Blocker> {
    let lost = stack.settings.as_ref()?.lost.as_ref().filter(|lost| !lost.unknown.is_empty())?;
    let options = |value: fn(&UnknownSetting) -> &str| -> String {
        let typed = |one: &UnknownSetting| {
            if one.is_flag { format!(" --{}=false", one.option) } else { format!(" --{} {}", one.option, value(one)) }
        };
        lost.unknown.iter().map(typed).collect()
    };
    let again = stack.command(&format!("up{}", options(|one| one.value_name)));
    let instance = &stack.instance;
    let (why, hint) = if lost.cause == Loss::Values {
        let values = lost
            .unknown
            .iter()
            .map(|one| format!("--{} is {:?}", one.option, one.stored.as_deref().unwrap_or_default()));
        let none = stack.command(&format!("up{}", options(|_| "''")));
        (
            format!("remembered settings of {instance} cannot be used: {}", values.collect::<Vec<_>>().join(", ")),
            format!("supply them again with `{again}`, or remove them with `{none}`"),
        )
    } else {
        let is_server = lost.unknown.iter().any(|one| one.is_server);
        let names: Vec<String> = lost.unknown.iter().map(|one| format!("--{}", one.option)).collect();
        let empty = if is_server { " (an empty URL, '', stands for a container)" } else { "" };
        (
            format!("the settings of {instance} are {}, and {} cannot be determined", lost.cause, names.join(", ")),
            format!(
                "supply them again: `{again}`{empty}; after a restore that was killed, run `{}` and restore again",
                stack.command("down --volumes")
            ),
        )
    };
    Some(Blocker { kind: BlockReason::Settings, why, hint })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::container_config::PasswordSource;
    use crate::model::login::Credential;
    use crate::model::lost_settings::Lost;
    use crate::model::observed::{RunState, ServerResponse, StoredSettings};
    use crate::model::plan::Phase;
    use crate::model::retention::Retention;
    use crate::model::stack::{Login, Remembered};
    use crate::model::volume_content::VolumeContent;
    use crate::samples::{self, config_of, container_of, plan_with, remembered, steps};

    fn stored(numbers: &[u64], values: BTreeMap<String, Remembered>) -> StoredSettings {
        StoredSettings { numbers: numbers.to_vec(), values: Some(values), ..StoredSettings::default() }
    }

    /// The plan without containers.
    fn settings(stack: &Stack, stored: &StoredSettings, keeps_retention: bool) -> Option<Item> {
        super::settings(stack, &seen_with(stored), keeps_retention)
    }

    fn seen_with(stored: &StoredSettings) -> Observed {
        Observed { settings: stored.clone(), ..samples::observed() }
    }

    fn finding(desired: &[(&str, &str)], lost: Option<Lost>, stored: &StoredSettings) -> Finding {
        let merged = Settings { values: remembered(desired), merged_from: stored.values.clone(), lost };
        settings(&Stack { settings: Some(merged), ..samples::stack() }, stored, false).unwrap().finding
    }

    #[test]
    fn settings_are_in_sync_only_with_one_copy_of_the_same_values_from_the_same_source() {
        let one = [("database", "d")];
        assert_eq!(finding(&one, None, &stored(&[3], remembered(&one))), Finding::InSync);
        assert_eq!(finding(&one, None, &StoredSettings::default()), Finding::Missing);
        let older = Finding::Requested("an older copy exists");
        assert_eq!(finding(&one, None, &stored(&[3, 4], remembered(&one))), older);
        let mut from_file = remembered(&one);
        from_file.get_mut("database").unwrap().from_file = true;
        let source = Finding::Requested("they now come from another source");
        assert_eq!(finding(&one, None, &stored(&[3], from_file)), source);
        let derived = Some(Lost { cause: Loss::Gone, unknown: vec![] });
        assert_eq!(finding(&one, derived, &StoredSettings::default()), Finding::Stopped("lost".into()));
        let Finding::Differs(differences) = finding(&one, None, &stored(&[3], remembered(&[("pull", "never")]))) else {
            panic!("they differ")
        };
        let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["database: (none) -> d", "pull: never -> (none)"]);
    }

    #[test]
    fn an_unconfirmed_retention_is_left_to_a_later_plan() {
        let values_of_run = remembered(&[("database", "d"), (Retention::SETTING, "2d")]);
        let stack_from = |before: &StoredSettings| {
            let (values, merged_from) = (values_of_run.clone(), before.values.clone());
            let merged = Settings { values, merged_from, ..Settings::default() };
            Stack { settings: Some(merged), ..samples::stack() }
        };
        let saved = |before: &StoredSettings| {
            let steps = settings(&stack_from(before), before, true).unwrap().steps;
            steps.into_iter().map(|(_, step)| step).collect::<Vec<_>>()
        };
        let kept = (Retention::SETTING, "90d");
        assert_eq!(saved(&stored(&[1], remembered(&[("database", "d")]))), []);
        assert_eq!(saved(&stored(&[1], remembered(&[("database", "d"), kept]))), []);
        for retention in [&[][..], &[kept]] {
            let [before, after] = ["other", "d"].map(|name| remembered(&[&[("database", name)], retention].concat()));
            let save = Step::SaveSettings { values: after, replaces: Some(before.clone()) };
            assert_eq!(saved(&stored(&[1], before)), [save]);
        }
        // Settings that cannot be read are replaced before the record of an upgrade.
        let save = Step::SaveSettings { values: remembered(&[("database", "d")]), replaces: None };
        let unreadable = StoredSettings { numbers: vec![1], ..StoredSettings::default() };
        assert_eq!(saved(&unreadable), std::slice::from_ref(&save));
        assert_eq!(before_record(&stack_from(&unreadable), &seen_with(&unreadable)), Some(save));
        let readable = stored(&[1], remembered(&[]));
        assert_eq!(before_record(&stack_from(&readable), &seen_with(&readable)), None);
        assert_eq!(before_record(&stack_from(&readable), &seen_with(&unreadable)), None, "another run removed them");
    }

    #[test]
    fn a_value_that_another_run_removes_meanwhile_does_not_come_back() {
        let (database, ip) = (("database", "d"), ("grafana-ip", "::1"));
        let kept = (Retention::SETTING, "90d");
        let [before, other] = [remembered(&[database, ip, kept]), remembered(&[database, kept])];
        // This run sets a port and a shorter retention period.
        let port = ("grafana-port", "3001");
        let desired = remembered(&[database, ip, port, (Retention::SETTING, "2d")]);
        let unconfirmed = remembered(&[database, ip, port, kept]);
        let merged = Settings { values: desired.clone(), merged_from: Some(before.clone()), ..Settings::default() };
        let stack = Stack { settings: Some(merged), ..samples::stack() };
        let planned = |stack: &Stack, values: Option<&BTreeMap<_, _>>, keeps_retention| {
            let stored = StoredSettings { numbers: vec![1], values: values.cloned(), ..StoredSettings::default() };
            settings(stack, &stored, keeps_retention).unwrap()
        };
        let is_blocked = |stack: &Stack, values: Option<&BTreeMap<_, _>>| {
            let both = [true, false].map(|keeps_retention| match planned(stack, values, keeps_retention) {
                Item { finding: Finding::Blocked(Blocker { kind, .. }), steps, .. } => {
                    assert_eq!((kind, steps), (BlockReason::Changed, vec![]));
                    true
                }
                _ => false,
            });
            assert_eq!(both[0], both[1]);
            both[0]
        };
        // Whether the run continues before it has saved anything, after its first save, and after the last one.
        let saves =
            [&unconfirmed, &desired].map(|values| Step::SaveSettings { values: values.clone(), replaces: None });
        let stacks = [stack.after([].iter()), stack.after(saves[..1].iter()), stack.after(saves.iter())];
        for (stored, continues) in [
            (Some(&before), [true, false, false]),
            (Some(&unconfirmed), [true, true, false]),
            (Some(&desired), [true, true, true]),
            (Some(&other), [false, false, false]),
            (None, [false, false, false]),
        ] {
            assert_eq!(stacks.each_ref().map(|stack| !is_blocked(stack, stored)), continues, "{stored:?}");
        }
        let texts = |values| match planned(&stack, values, false).finding {
            Finding::Blocked(Blocker { why, hint, .. }) => (why, hint),
            other => panic!("{other:?}"),
        };
        let (why, hint) = texts(Some(&other));
        assert_eq!(why, "the settings of x changed while this command ran: grafana-ip: ::1 -> (none)");
        assert_eq!(hint, "run the same command again: it continues with the current settings");
        assert_eq!(texts(None).0, "the settings of x became unreadable while this command ran");
        let removed = settings(&stack, &StoredSettings::default(), false).unwrap().finding;
        assert_eq!(removed.to_string(), "the settings of x were removed while this command ran");
        // No run removes the settings of an instance that has containers.
        let lost = Observed { settings: StoredSettings::default(), ..samples::in_sync() };
        assert_eq!(super::settings(&stack, &lost, false).unwrap().finding, Finding::Missing);
        let mut from_file = before.clone();
        for one in from_file.values_mut() {
            one.from_file = true;
        }
        assert!(!is_blocked(&stack, Some(&from_file)), "only the source changed");
        // Its own `down --volumes` removes them on purpose.
        let after_down = stack.after([Step::RemoveSettings].iter());
        assert_eq!(settings(&after_down, &StoredSettings::default(), false).unwrap().finding, Finding::Missing);
    }

    #[test]
    fn the_slower_of_two_first_runs_continues_only_with_the_same_settings() {
        let first = |name| {
            let merged = Settings { values: remembered(&[("database", name)]), ..Settings::default() };
            Stack { settings: Some(merged), ..samples::stack() }
        };
        let saved = stored(&[1], remembered(&[("database", "d")]));
        assert_eq!(settings(&first("d"), &saved, false).unwrap().finding, Finding::InSync);
        assert!(matches!(settings(&first("e"), &saved, false).unwrap().finding, Finding::Blocked(_)));
        // A restore stores the archive's settings without the retention period, and `up` adds it.
        let values = remembered(&[("database", "d"), (Retention::SETTING, "2d")]);
        let restored = Stack { settings: Some(Settings { values, ..Settings::default() }), ..samples::stack() };
        assert!(matches!(settings(&restored, &saved, false).unwrap().finding, Finding::Differs(_)));
    }

    #[test]
    fn the_command_for_lost_settings_contains_all_of_them() {
        let unknown = |option, value_name, is_server, is_flag, stored: Option<&str>| UnknownSetting {
            option,
            value_name,
            is_server,
            is_flag,
            stored: stored.map(String::from),
        };
        let blocker = |cause, unknown| {
            let settings = Settings { lost: Some(Lost { cause, unknown }), ..Settings::default() };
            unknown_settings(&Stack { settings: Some(settings), ..samples::stack() })
        };
        let url = unknown("grafana-url", "URL", true, false, None);
        let lost = blocker(Loss::Gone, vec![url, unknown("alerts", "", false, true, None)]).unwrap();
        assert_eq!(lost.why, "the settings of x are lost, and --grafana-url, --alerts cannot be determined");
        let command = "supply them again: `clipper-metrics up --grafana-url URL --alerts=false` (an empty URL, '', \
                       stands for a container); after a restore that was killed, run `clipper-metrics down --volumes` \
                       and restore again";
        assert_eq!(lost.hint, command);
        let invalid = blocker(Loss::Values, vec![unknown("pull", "WHEN", false, false, Some("soon"))]).unwrap();
        assert_eq!(invalid.why, "remembered settings of x cannot be used: --pull is \"soon\"");
        let command = "supply them again with `clipper-metrics up --pull WHEN`, or remove them with `clipper-metrics up \
                       --pull ''`";
        assert_eq!(invalid.hint, command);
        assert_eq!(blocker(Loss::Gone, vec![]), None);
    }

    #[test]
    fn lost_settings_must_be_supplied_if_they_cannot_be_derived() {
        let values = remembered(&[("database", "d")]);
        let plan = |unknown| {
            let lost = Some(Lost { cause: Loss::Gone, unknown });
            let desired = Settings { values: values.clone(), merged_from: None, lost };
            let desired = Stack { settings: Some(desired), ..samples::stack() };
            plan_with(&desired, |seen| seen.settings = StoredSettings::default())
        };
        let (option, value_name) = ("database", "NAME");
        let database = UnknownSetting { option, value_name, is_server: false, is_flag: false, stored: None };
        let unknown = plan(vec![database]);
        let (resource, blocker) = unknown.blocker().unwrap();
        assert_eq!((resource, blocker.kind), (Resource::Settings, BlockReason::Settings));
        assert!(blocker.hint.contains("up --database NAME"), "{}", blocker.hint);
        let derived = plan(vec![]);
        assert_eq!(steps(&derived), [Step::SaveSettings { values: values.clone(), replaces: None }]);
    }

    #[test]
    fn settings_are_saved_after_preparations_and_before_container_changes() {
        let login = Login { supplies_password: true, is_untried: true, ..samples::stack().login };
        let mut desired = Stack { login, ..samples::stack() };
        config_of(&mut desired, Role::Grafana).password = PasswordSource::File;
        let registry = Remembered { value: "r".into(), from_file: true };
        let replaces: Option<BTreeMap<_, _>> = Some([("registry".into(), registry)].into());
        desired.settings = Some(Settings { merged_from: replaces.clone(), ..Settings::default() });
        let plan = plan_with(&desired, |seen| {
            seen.settings.values.clone_from(&replaces);
            container_of(seen, Role::Grafana).run = RunState::Exited(0);
            seen.grafana.response = ServerResponse::Unasked;
            seen.grafana.content = Some(VolumeContent::default());
        });
        assert_eq!(plan.until(), Phase::Trial, "the answer decides the next plan");
        let order = steps(&plan);
        let at = |step| order.iter().position(|one| *one == step).unwrap();
        let saved = at(Step::SaveSettings { values: BTreeMap::new(), replaces });
        assert!(at(Step::TryLogin(Credential::Supplied)) < saved, "{order:?}");
        assert!(saved < at(Step::RemoveContainer(Role::Grafana)), "{order:?}");
    }
}
