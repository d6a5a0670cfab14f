//! Plans the alert rules in Grafana, if a setting turns them on or off.

use std::collections::BTreeMap;

use super::made_for::{conflict, elsewhere, made_for_difference, moves};
use super::obstacles::{other_name, provided, provisioned, taken};
use super::{BlockReason, Blocker, Finding, Item, Kept, Resource, Step, UpOptions};
use crate::model::alerts::{AlertRule, AlertRules, AlertSettings, Alerts, NewRule};
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
            return unwanted(stack, seen, moves(stack, options), |what, other| conflict(stack, what, other).into());
        }
        (Alerts::Off, Some(AlertRulesState::Unreadable(why))) => return Some(unreadable(why)),
        (Alerts::Off, None) => {
            return Some(Item::with_step(Resource::Alerts, Finding::Unknown, Step::DeleteAlertRules(vec![])));
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
    let missing = |rule| NewRule { rule, objective, replaces: ActualRule::Missing };
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
    if is_objective_unknown {
        return Some(Item::new(Resource::Alerts, finding, vec![]));
    }
    let save = Step::SaveAlertRules(Box::new(AlertRules { settings: settings.clone(), rules }));
    Some(Item::with_step(Resource::Alerts, finding, save))
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
        let objective = own_objective(stack, replaces).unwrap_or(objective);
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
        rules.push(NewRule { rule, objective, replaces: replaces.clone() });
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

/// The objective of an existing rule, which only a supplied file changes.
fn own_objective(stack: &Stack, actual: &ActualRule) -> Option<u64> {
    match actual {
        ActualRule::Present { fields, .. } if stack.dashboard.objective.is_none() => AlertSettings::objective(fields),
        _ => None,
    }
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

/// Plans the removal of rules that are turned off. Edited rules are kept, and rules from a file or
/// for another database are reported.
pub(super) fn unwanted(
    stack: &Stack,
    seen: &ActualAlerts,
    moves: bool,
    conflict: impl Fn(&str, &MadeFor) -> Finding,
) -> Option<Item> {
    let (mut removed, mut is_edited, mut from_file) = (Vec::new(), false, None);
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
            _ => removed.push((rule, actual.clone())),
        }
    }
    if !removed.is_empty() {
        let steps = vec![Step::DeleteAlertRules(removed)];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, alert_settings};

    fn actual(rule: AlertRule, content_hash: &str) -> ActualRule {
        let fields = alert_settings(content_hash).fields(rule, 7_000);
        ActualRule::Present { edited: false, provisioned: false, fields, made_for: None }
    }

    /// The plan for rules of these versions.
    fn plan(latency: &str, silence: &str, dashboard: DashboardState) -> Item {
        let stack = Stack { alerts: Alerts::On(alert_settings("new")), ..samples::stack() };
        let (latency, silence) = (actual(AlertRule::Latency, latency), actual(AlertRule::Silence, silence));
        let alerts = AlertRulesState::Seen(ActualAlerts { latency, silence });
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
        let item = plan("old", "new", DashboardState::Missing);
        let [(_, Step::SaveAlertRules(save))] = item.steps.as_slice() else { panic!("{item:?}") };
        let (rule, replaces) = (AlertRule::Latency, actual(AlertRule::Latency, "old"));
        assert_eq!(save.rules, [NewRule { rule, objective: 7_000, replaces }]);
        assert_eq!(plan("new", "new", DashboardState::Missing).finding, Finding::InSync);
    }

    #[test]
    fn no_rule_is_saved_while_the_dashboard_with_the_objective_is_unreadable() {
        let item = plan("old", "new", DashboardState::Unreadable(samples::unreadable()));
        assert!(matches!(item.finding, Finding::Differs(_)) && item.steps.is_empty(), "{item:?}");
    }
}
