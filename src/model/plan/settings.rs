//! Plans the remembered settings.

use std::collections::BTreeMap;

use super::{BlockReason, Blocker, Finding, Item, Resource, Step};
use crate::model::container_config::Difference;
use crate::model::lost_settings::{Loss, UnknownSetting};
use crate::model::observed::StoredSettings;
use crate::model::stack::{Remembered, Stack};

pub(super) fn settings(stack: &Stack, stored: &StoredSettings, keeps_retention: bool) -> Option<Item> {
    let settings = stack.settings.as_ref()?;
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
    let kept = keeps_retention.then(|| stored.keep_retention(&settings.values));
    if kept.is_some() && kept == stored.values && stored.numbers.len() == 1 {
        // Only the retention period is left, which a later plan saves.
        return Some(Item::new(Resource::Settings, finding, vec![]));
    }
    let (values, replaces) = (kept.unwrap_or_else(|| settings.values.clone()), stored.values.clone());
    Some(Item::with_step(Resource::Settings, finding, Step::SaveSettings { values, replaces }))
}

/// Replaces missing or unreadable settings before the record of an upgrade is written next to them. The retention
/// period is not confirmed yet.
pub(super) fn before_record(stack: &Stack, stored: &StoredSettings) -> Option<Step> {
    let values = stored.keep_retention(&stack.settings.as_ref()?.values);
    stored.values.is_none().then_some(Step::SaveSettings { values, replaces: None })
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

fn texts(values: &BTreeMap<String, Remembered>) -> BTreeMap<String, String> {
    values.iter().map(|(name, remembered)| (name.clone(), remembered.value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container_config::PasswordSource;
    use crate::model::login::Credential;
    use crate::model::lost_settings::Lost;
    use crate::model::observed::{RunState, ServerResponse};
    use crate::model::plan::Phase;
    use crate::model::retention::Retention;
    use crate::model::role::Role;
    use crate::model::stack::{Login, Settings};
    use crate::model::volume_content::VolumeContent;
    use crate::samples::{self, config_of, container_of, plan_with, steps};

    fn values(all: &[(&str, &str)]) -> BTreeMap<String, Remembered> {
        let remembered = |value: &str| Remembered { value: value.into(), from_file: false };
        all.iter().map(|(name, value)| (name.to_string(), remembered(value))).collect()
    }

    fn stored(numbers: &[u64], values: BTreeMap<String, Remembered>) -> StoredSettings {
        StoredSettings { numbers: numbers.to_vec(), values: Some(values), ..StoredSettings::default() }
    }

    fn finding(desired: &[(&str, &str)], lost: Option<Lost>, stored: &StoredSettings) -> Finding {
        let stack = Stack { settings: Some(Settings { values: values(desired), lost }), ..samples::stack() };
        settings(&stack, stored, false).unwrap().finding
    }

    #[test]
    fn settings_are_in_sync_only_with_one_copy_of_the_same_values_from_the_same_source() {
        let one = [("database", "d")];
        assert_eq!(finding(&one, None, &stored(&[3], values(&one))), Finding::InSync);
        assert_eq!(finding(&one, None, &StoredSettings::default()), Finding::Missing);
        let older = Finding::Requested("an older copy exists");
        assert_eq!(finding(&one, None, &stored(&[3, 4], values(&one))), older);
        let mut from_file = values(&one);
        from_file.get_mut("database").unwrap().from_file = true;
        let source = Finding::Requested("they now come from another source");
        assert_eq!(finding(&one, None, &stored(&[3], from_file)), source);
        let derived = Some(Lost { cause: Loss::Gone, unknown: vec![] });
        assert_eq!(finding(&one, derived, &StoredSettings::default()), Finding::Stopped("lost".into()));
        let Finding::Differs(differences) = finding(&one, None, &stored(&[3], values(&[("pull", "never")]))) else {
            panic!("they differ")
        };
        let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["database: (none) -> d", "pull: never -> (none)"]);
    }

    #[test]
    fn an_unconfirmed_retention_is_left_to_a_later_plan() {
        let desired = Settings { values: values(&[("database", "d"), (Retention::SETTING, "2d")]), lost: None };
        let stack = Stack { settings: Some(desired), ..samples::stack() };
        let saved = |before: &StoredSettings| {
            let steps = settings(&stack, before, true).unwrap().steps;
            steps.into_iter().map(|(_, step)| step).collect::<Vec<_>>()
        };
        let kept = (Retention::SETTING, "90d");
        assert_eq!(saved(&stored(&[1], values(&[("database", "d")]))), []);
        assert_eq!(saved(&stored(&[1], values(&[("database", "d"), kept]))), []);
        for retention in [&[][..], &[kept]] {
            let [before, after] = ["other", "d"].map(|name| values(&[&[("database", name)], retention].concat()));
            let save = Step::SaveSettings { values: after, replaces: Some(before.clone()) };
            assert_eq!(saved(&stored(&[1], before)), [save]);
        }
        // Settings that cannot be read are replaced before the record of an upgrade.
        let save = Step::SaveSettings { values: values(&[("database", "d")]), replaces: None };
        let unreadable = StoredSettings { numbers: vec![1], ..StoredSettings::default() };
        assert_eq!(saved(&unreadable), std::slice::from_ref(&save));
        assert_eq!(before_record(&stack, &unreadable), Some(save));
        assert_eq!(before_record(&stack, &stored(&[1], values(&[]))), None);
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
        let values = values(&[("database", "d")]);
        let plan = |unknown| {
            let lost = Some(Lost { cause: Loss::Gone, unknown });
            let desired = Settings { values: values.clone(), lost };
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
        let replaces = Some([("registry".into(), registry)].into());
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
