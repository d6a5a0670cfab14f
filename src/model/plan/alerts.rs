//! Plans the alert rules in Grafana, if a setting turns them on or off.

use std::collections::BTreeMap;

use super::made_for::{conflict, elsewhere, made_for_difference, moves};
use super::obstacles::{other_name, provided, provisioned, taken};
use super::{BlockReason, Blocker, Finding, Item, Kept, Resource, Step, UpOptions};
use crate::model::alerts::{AlertRule, AlertSettings, Alerts, NewRule};
use crate::model::container_config::Difference;
use crate::model::observed::{ActualAlerts, ActualRule, AlertRulesState, DashboardState, GrafanaState, Unreadable};
use crate::model::stack::{DesiredDashboard, MadeFor, Stack};

/// Plans the alert rules.
pub(super) fn alerts(stack: &Stack, known: Option<&GrafanaState>, options: UpOptions) -> Option<Item> {
    let seen = known.map(|grafana| &grafana.alerts);
    let settings = match (&stack.alerts, seen) {
        (Alerts::NotManaged, _) | (Alerts::Off, Some(AlertRulesState::NotRead | AlertRulesState::Unavailable(_))) => {
            return None;
        }
        (Alerts::Off, Some(AlertRulesState::Seen(seen))) => {
            let conflict = |what: &str, other: &MadeFor| conflict(stack, what, other).into();
            let mut rules = unwanted(stack, seen, moves(stack, options), conflict)?;
            if !rules.steps.is_empty() {
                rules.steps.extend(unwanted_folder(seen).into_iter().flat_map(|folder| folder.steps));
            }
            return Some(rules);
        }
        (Alerts::Off, Some(AlertRulesState::Unreadable(why))) => return Some(unreadable(why)),
        (Alerts::Off, None) => {
            let steps = AlertRule::ALL.map(|rule| deletion(rule, &ActualRule::Missing)).into();
            return Some(Item::new(Resource::Alerts, Finding::Unknown, steps));
        }
        (Alerts::On(settings), _) => settings,
    };
    let dashboard = known.map(|grafana| &grafana.dashboard);
    let shown = match dashboard {
        Some(DashboardState::Present(actual)) => actual.objective,
        _ => None,
    };
    let objective = stack.dashboard.objective.or(shown);
    let is_objective_unknown = objective.is_none() && matches!(dashboard, Some(DashboardState::Unreadable(_)));
    let objective = objective.unwrap_or(DesiredDashboard::DEFAULT_OBJECTIVE);
    let missing = |rule| NewRule { rule, settings: settings.clone(), objective, replaces: ActualRule::Missing };
    let (finding, rules) = match seen {
        None | Some(AlertRulesState::NotRead) => (Finding::Unknown, AlertRule::ALL.map(missing).into()),
        Some(AlertRulesState::Unreadable(why)) if why.status == 403 => {
            let why = format!("no alerts: clipper-metrics {why}");
            let hint = "sign in to Grafana with an account that may manage alert rules, such as an administrator's";
            (Blocker { kind: BlockReason::Server, why, hint: hint.into() }.into(), vec![])
        }
        Some(AlertRulesState::Unreadable(why)) => (Finding::Unreadable(why.clone()), vec![]),
        Some(AlertRulesState::Unavailable(why)) => {
            let blocker = Blocker {
                kind: BlockReason::Server,
                why: format!("no alerts: {why}"),
                hint: format!("use another Grafana, or `{}`", stack.command("up --alerts=false")),
            };
            (blocker.into(), vec![])
        }
        Some(AlertRulesState::Seen(seen)) => compare(stack, seen, settings, objective, options)
            .unwrap_or_else(|blocker| (Finding::Blocked(blocker), vec![])),
    };
    let steps = if is_objective_unknown { vec![] } else { saves(stack, seen, rules) };
    Some(Item::new(Resource::Alerts, finding, steps))
}

/// The steps that create and save rules: those in the instance's group together with the group, moved ones alone.
/// Grafana sets the interval only of a whole group, and an unfinished rule lacks it.
fn saves(stack: &Stack, seen: Option<&AlertRulesState>, rules: Vec<NewRule>) -> Vec<Step> {
    let folder = match seen {
        Some(AlertRulesState::Seen(seen)) => seen.folder.as_ref(),
        _ => None,
    };
    let is_in_group = |new: &NewRule| match &new.replaces {
        ActualRule::Present { folder_uid, group, .. } => {
            *group == stack.instance && folder.is_some_and(|folder| folder.uid == *folder_uid)
        }
        ActualRule::Missing | ActualRule::Clash(_) => true,
    };
    let created: Vec<_> = rules.iter().filter(|new| new.replaces == ActualRule::Missing).cloned().collect();
    let (grouped, moved): (Vec<_>, Vec<_>) = rules.into_iter().partition(is_in_group);
    let mut steps = Vec::new();
    if !created.is_empty() && folder.is_none() {
        steps.push(Step::CreateAlertFolder);
    }
    steps.extend(created.into_iter().map(|new| Step::CreateAlertRule(Box::new(new))));
    if !grouped.is_empty() {
        let sets_interval = grouped.iter().any(|new| new.replaces.is_unfinished());
        steps.push(Step::SaveAlertRules { rules: grouped, sets_interval });
    }
    steps.extend(moved.into_iter().map(|new| Step::SaveMovedAlertRule(Box::new(new))));
    steps
}

fn deletion(rule: AlertRule, observed: &ActualRule) -> Step {
    Step::DeleteAlertRule { rule, observed: Box::new(observed.clone()) }
}

/// Rules to remove that Grafana does not return. An account that may not read them cannot remove them either.
pub(super) fn unreadable(why: &Unreadable) -> Item {
    let finding = if why.status == 403 {
        let hint = "if there are any, remove them with an account that may manage alert rules".into();
        Finding::Kept(Kept { why: format!("alert rules stay: clipper-metrics {why}"), hint })
    } else {
        Finding::Unreadable(why.clone())
    };
    Item::new(Resource::Alerts, finding, vec![])
}

/// Compares the rules with the settings; also returns the rules to save. `objective` applies to rules without one.
fn compare(
    stack: &Stack,
    seen: &ActualAlerts,
    settings: &AlertSettings,
    objective: u64,
    options: UpOptions,
) -> Result<(Finding, Vec<NewRule>), Blocker> {
    let (mut differences, mut has_edited, mut rules) = (Vec::new(), false, Vec::new());
    for rule in AlertRule::ALL {
        let replaces = seen.rule(rule);
        let objective = replaces.kept_objective(stack).unwrap_or(objective);
        let found = match replaces {
            ActualRule::Clash(what) => return Err(taken(what, "create", "")),
            ActualRule::Missing => {
                let (field, desired) = (format!("rule {:?}", rule.title()), "present".into());
                vec![Difference { field, actual: String::new(), desired }]
            }
            ActualRule::Present { edited: true, provisioned: true, .. } => return Err(from_file(stack, rule)),
            ActualRule::Present { edited: true, made_for, .. } => {
                has_edited = true;
                if !options.overwrite_dashboard {
                    continue;
                }
                expect_own(stack, rule, made_for.as_ref(), options)?;
                vec![]
            }
            ActualRule::Present { provisioned, fields, made_for, .. } => {
                let found = rule_differences(stack, rule, fields, &settings.fields(rule, objective), made_for.as_ref());
                if *provisioned && !found.is_empty() {
                    return Err(from_file(stack, rule));
                }
                expect_own(stack, rule, made_for.as_ref(), options)?;
                if found.is_empty() {
                    continue;
                }
                found
            }
        };
        differences.extend(found);
        rules.push(NewRule { rule, settings: settings.clone(), objective, replaces: replaces.clone() });
    }
    let missing = rules.iter().filter(|new| new.replaces == ActualRule::Missing).count();
    let finding = match (missing, differences.is_empty()) {
        _ if has_edited && options.overwrite_dashboard => {
            Finding::Requested("they were edited and are to be overwritten")
        }
        (2, _) => Finding::Missing,
        (_, false) => Finding::Differs(differences),
        (_, true) if has_edited => Finding::Edited,
        (_, true) => Finding::InSync,
    };
    Ok((finding, rules))
}

/// The differences of an unedited rule.
fn rule_differences(
    stack: &Stack,
    rule: AlertRule,
    actual: &BTreeMap<String, String>,
    desired: &BTreeMap<String, String>,
    made_for: Option<&MadeFor>,
) -> Vec<Difference> {
    let other = made_for.and_then(|made_for| elsewhere(stack, made_for));
    let differences = Difference::between(actual, desired).into_iter();
    let differences = differences.chain(other.map(|other| made_for_difference(stack, other)));
    let named = |difference: Difference| Difference {
        field: format!("{} of {:?}", difference.field, rule.title()),
        ..difference
    };
    differences.map(named).collect()
}

/// Blocks the replacement of a rule that was created for another address or database, unless it moves.
fn expect_own(stack: &Stack, rule: AlertRule, made_for: Option<&MadeFor>, options: UpOptions) -> Result<(), Blocker> {
    match made_for.and_then(|made_for| elsewhere(stack, made_for)) {
        Some(other) if !moves(stack, options) => Err(conflict(stack, &rule_name(rule), other)),
        _ => Ok(()),
    }
}

fn rule_name(rule: AlertRule) -> String {
    format!("alert rule {:?}", rule.title())
}

fn from_file(stack: &Stack, rule: AlertRule) -> Blocker {
    let why = format!("Grafana's alert rule {} is provisioned from a file and differs", rule.title());
    provisioned(why, &other_name(stack))
}

/// Plans the removal of rules that are turned off. Edited rules are kept, and rules from a file or for another database
/// are reported.
pub(super) fn unwanted(
    stack: &Stack,
    seen: &ActualAlerts,
    moves: bool,
    conflict: impl Fn(&str, &MadeFor) -> Finding,
) -> Option<Item> {
    let (mut steps, mut is_edited, mut from_file) = (Vec::new(), false, None);
    for rule in AlertRule::ALL {
        let actual = seen.rule(rule);
        let ActualRule::Present { edited, provisioned, made_for, .. } = actual else { continue };
        let other = made_for.as_ref().and_then(|made_for| elsewhere(stack, made_for));
        match other {
            _ if *provisioned => from_file = Some(rule),
            _ if *edited => is_edited = true,
            Some(other) if !moves => {
                return Some(Item::new(Resource::Alerts, conflict(&rule_name(rule), other), vec![]));
            }
            _ => steps.push(deletion(rule, actual)),
        }
    }
    if !steps.is_empty() {
        return Some(Item::new(Resource::Alerts, Finding::Requested("to be removed"), steps));
    }
    let from_file = from_file.map(|rule| {
        provided(&rule_name(rule), {
            let export = stack.command("export provisioning DIRECTORY --alerts=false");
            format!("`{export}` updates the directory of the earlier export with files that delete it")
        })
    });
    from_file.or(is_edited.then_some(Finding::Edited)).map(|finding| Item::new(Resource::Alerts, finding, vec![]))
}

/// Plans the removal of the folder of rules that are turned off. Grafana may refuse it, so only rules that go at the same
/// time, or the end of the instance, are a reason.
pub(super) fn unwanted_folder(seen: &ActualAlerts) -> Option<Item> {
    let is_from_file = |rule| matches!(seen.rule(rule), ActualRule::Present { provisioned: true, .. });
    seen.folder.as_ref().filter(|folder| folder.holds_only_rules && !AlertRule::ALL.into_iter().any(is_from_file))?;
    Some(Item::new(Resource::Alerts, Finding::Requested("to be removed"), vec![Step::DeleteAlertFolder]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::AlertFolder;
    use crate::samples::{self, alert_settings};

    /// A rule of this version in the instance's group.
    fn actual(rule: AlertRule, content_hash: &str) -> ActualRule {
        let fields = alert_settings(content_hash).fields(rule, 7_000);
        let (folder_uid, group) = ("f".into(), samples::stack().instance);
        ActualRule::Present { edited: false, provisioned: false, fields, made_for: None, folder_uid, group }
    }

    fn moved_to(folder: &str, in_group: &str, mut rule: ActualRule) -> ActualRule {
        let ActualRule::Present { folder_uid, group, .. } = &mut rule else { panic!("{rule:?}") };
        (*folder_uid, *group) = (folder.into(), in_group.into());
        rule
    }

    fn edited(mut rule: ActualRule) -> ActualRule {
        let ActualRule::Present { edited, .. } = &mut rule else { panic!("{rule:?}") };
        *edited = true;
        rule
    }

    /// The plan for these rules, which are turned on or off.
    fn item(is_on: bool, rules: [ActualRule; 2], folder: Option<bool>) -> Option<Item> {
        let alerts = if is_on { Alerts::On(alert_settings("new")) } else { Alerts::Off };
        let ([latency, silence], stack) = (rules, Stack { alerts, ..samples::stack() });
        let folder = folder.map(|holds_only_rules| AlertFolder { uid: "f".into(), holds_only_rules });
        let alerts = AlertRulesState::Seen(Box::new(ActualAlerts { latency, silence, folder }));
        let grafana = GrafanaState { alerts, ..samples::grafana_state() };
        super::alerts(&stack, Some(&grafana), UpOptions::default())
    }

    fn steps(item: Option<Item>) -> Vec<Step> {
        item.into_iter().flat_map(|item| item.steps).map(|(_, step)| step).collect()
    }

    fn new(rule: AlertRule, objective: u64, replaces: ActualRule) -> NewRule {
        NewRule { rule, settings: alert_settings("new"), objective, replaces }
    }

    /// The plan for rules of these versions.
    fn plan(latency: &str, silence: &str, dashboard: DashboardState) -> Item {
        let stack = Stack { alerts: Alerts::On(alert_settings("new")), ..samples::stack() };
        let (latency, silence) = (actual(AlertRule::Latency, latency), actual(AlertRule::Silence, silence));
        let folder = Some(AlertFolder { uid: "f".into(), holds_only_rules: false });
        let alerts = AlertRulesState::Seen(Box::new(ActualAlerts { latency, silence, folder }));
        let grafana = GrafanaState { dashboard, alerts, ..samples::grafana_state() };
        super::alerts(&stack, Some(&grafana), UpOptions::default()).unwrap()
    }

    #[test]
    fn an_account_that_may_not_read_rules_neither_creates_nor_removes_any() {
        let finding = |alerts: Alerts, status| {
            let alerts_state = AlertRulesState::Unreadable(Unreadable { status, ..samples::unreadable() });
            let grafana = GrafanaState { alerts: alerts_state, ..samples::grafana_state() };
            super::alerts(&Stack { alerts, ..samples::stack() }, Some(&grafana), UpOptions::default()).unwrap().finding
        };
        let on = || Alerts::On(alert_settings("new"));
        assert!(matches!(finding(on(), 403), Finding::Blocked(_)));
        assert!(matches!(finding(on(), 500), Finding::Unreadable(_)));
        assert!(matches!(finding(Alerts::Off, 500), Finding::Unreadable(_)));
        assert!(matches!(finding(Alerts::Off, 403), Finding::Kept(_)));
    }

    #[test]
    fn only_a_rule_that_differs_is_saved_and_keeps_its_own_objective() {
        let rules = vec![new(AlertRule::Latency, 7_000, actual(AlertRule::Latency, "old"))];
        let save = Step::SaveAlertRules { rules, sets_interval: false };
        assert_eq!(steps(Some(plan("old", "new", DashboardState::Missing))), [save]);
        assert_eq!(plan("new", "new", DashboardState::Missing).finding, Finding::InSync);
    }

    #[test]
    fn no_step_saves_a_rule_that_is_in_sync() {
        let right = || {
            let mut rule = actual(AlertRule::Latency, "new");
            if let ActualRule::Present { made_for, .. } = &mut rule {
                *made_for = Some(samples::data_source().made_for());
            }
            rule
        };
        let silence = actual(AlertRule::Silence, "new");
        let rules = [(right(), true), (actual(AlertRule::Latency, "old"), false), (ActualRule::Missing, false)];
        for (rule, in_sync) in rules {
            let kept = Stack { alerts: Alerts::On(alert_settings("new")), ..samples::stack() };
            let dashboard = DesiredDashboard { objective: Some(8_000), ..kept.dashboard.clone() };
            let supplied = Stack { dashboard, ..kept.clone() };
            assert_eq!(rule.is_in_sync(&kept, &alert_settings("new"), AlertRule::Latency), in_sync, "{rule:?}");
            assert!(!rule.is_in_sync(&supplied, &alert_settings("new"), AlertRule::Latency), "another objective");
            assert_eq!(steps(item(true, [rule, silence.clone()], Some(false))).is_empty(), in_sync);
        }
        assert!(!edited(right()).is_in_sync(&samples::stack(), &alert_settings("new"), AlertRule::Latency), "edited");
    }

    #[test]
    fn no_rule_is_saved_while_the_dashboard_with_the_objective_is_unreadable() {
        let item = plan("old", "new", DashboardState::Unreadable(samples::unreadable()));
        assert!(matches!(item.finding, Finding::Differs(_)) && item.steps.is_empty(), "{item:?}");
    }

    #[test]
    fn a_missing_rule_is_created_before_its_group_is_saved_with_an_interval() {
        let created = |rule| new(rule, DesiredDashboard::DEFAULT_OBJECTIVE, ActualRule::Missing);
        let create = |rule| Step::CreateAlertRule(Box::new(created(rule)));
        let (latency, silence) = (AlertRule::Latency, AlertRule::Silence);
        let both = || [ActualRule::Missing, ActualRule::Missing];
        let rules = AlertRule::ALL.map(created).into();
        let all = [create(latency), create(silence), Step::SaveAlertRules { rules, sets_interval: true }];
        assert_eq!(steps(item(true, both(), Some(false))), all);
        let with_folder: Vec<Step> = [Step::CreateAlertFolder].into_iter().chain(all).collect();
        assert_eq!(steps(item(true, both(), None)), with_folder);
        // The other one was created by a run that ended then.
        let unfinished = {
            let mut rule = actual(latency, "");
            if let ActualRule::Present { fields, .. } = &mut rule {
                fields.clear();
            }
            rule
        };
        let rules = vec![new(latency, DesiredDashboard::DEFAULT_OBJECTIVE, unfinished.clone()), created(silence)];
        let expected = [create(silence), Step::SaveAlertRules { rules, sets_interval: true }];
        assert_eq!(steps(item(true, [unfinished, ActualRule::Missing], Some(false))), expected);
    }

    #[test]
    fn a_rule_that_a_user_moved_is_saved_alone() {
        let instance = samples::stack().instance;
        let (latency, silence) = (AlertRule::Latency, AlertRule::Silence);
        let grouped = actual(silence, "old");
        for (folder, group) in [("theirs", instance.as_str()), ("f", "theirs")] {
            let moved = moved_to(folder, group, actual(latency, "old"));
            let rules = vec![new(silence, DesiredDashboard::DEFAULT_OBJECTIVE, grouped.clone())];
            let save = Step::SaveAlertRules { rules, sets_interval: false };
            let save_moved = Step::SaveMovedAlertRule(Box::new(new(latency, 7_000, moved.clone())));
            assert_eq!(steps(item(true, [moved, grouped.clone()], Some(false))), [save, save_moved]);
        }
        // The folder is gone or renamed.
        let rule = actual(latency, "old");
        let save_moved = Step::SaveMovedAlertRule(Box::new(new(latency, 7_000, rule.clone())));
        assert_eq!(steps(item(true, [rule, actual(silence, "new")], None)), [save_moved]);
    }

    #[test]
    fn the_folder_goes_with_the_rules_if_it_holds_nothing_else() {
        let [latency, silence] = AlertRule::ALL.map(|rule| actual(rule, "new"));
        let delete_latency = || Step::DeleteAlertRule { rule: AlertRule::Latency, observed: Box::new(latency.clone()) };
        let delete_silence = || Step::DeleteAlertRule { rule: AlertRule::Silence, observed: Box::new(silence.clone()) };
        let both = || [latency.clone(), silence.clone()];
        let all = [delete_latency(), delete_silence(), Step::DeleteAlertFolder];
        assert_eq!(steps(item(false, both(), Some(true))), all);
        assert_eq!(steps(item(false, both(), Some(false))), all[..2]);
        assert_eq!(steps(item(false, both(), None)), all[..2]);
        // Grafana may have refused to delete it.
        assert_eq!(item(false, [ActualRule::Missing, ActualRule::Missing], Some(true)), None);
        let elsewhere = moved_to("theirs", "theirs", edited(silence.clone()));
        let expected = [delete_latency(), Step::DeleteAlertFolder];
        assert_eq!(steps(item(false, [latency.clone(), elsewhere], Some(true))), expected);
        let mut from_file = latency.clone();
        if let ActualRule::Present { provisioned, .. } = &mut from_file {
            *provisioned = true;
        }
        assert_eq!(steps(item(false, [from_file, silence.clone()], Some(true))), [delete_silence()]);
    }
}
