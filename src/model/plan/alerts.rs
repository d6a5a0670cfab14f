//! Plans the alert rules in Grafana, if a setting turns them on or off.

use super::grafana::{conflict, elsewhere, made_for_difference, moves, provided, provisioned, taken};
use super::{BlockReason, Blocker, Finding, Item, Resource, Step, UpOptions};
use crate::model::alerts::{AlertRule, AlertSettings, Alerts};
use crate::model::container_config::Difference;
use crate::model::observed::{ActualAlerts, ActualRule, AlertRulesState, DashboardState, GrafanaState};
use crate::model::stack::{DesiredDashboard, MadeFor, Stack};

/// Plans the alert rules.
pub(super) fn alerts(stack: &Stack, stored: Option<&GrafanaState>, options: UpOptions) -> Option<Item> {
    let seen = stored.map(|grafana| &grafana.alerts);
    let moves = moves(stack, options);
    let settings = match (&stack.alerts, seen) {
        (Alerts::NotManaged, _) | (Alerts::Off, Some(AlertRulesState::NotRead | AlertRulesState::Unavailable(_))) => {
            return None;
        }
        (Alerts::Off, Some(AlertRulesState::Seen(seen))) => {
            return unwanted(stack, seen, moves, |what, other| conflict(stack, what, other).into());
        }
        (Alerts::Off, Some(AlertRulesState::Unreadable(why))) => {
            return Some(Item::new(Resource::Alerts, Finding::Unreadable(why.clone()), vec![]));
        }
        (Alerts::Off, None) => {
            return Some(Item::with_step(Resource::Alerts, Finding::Unknown, Step::DeleteAlertRules { moves }));
        }
        (Alerts::On(settings), _) => settings,
    };
    let shown = match stored.map(|grafana| &grafana.dashboard) {
        Some(DashboardState::Present(actual)) => actual.objective,
        _ => None,
    };
    let objective = stack.dashboard.objective;
    let finding = match seen {
        None | Some(AlertRulesState::NotRead) => Finding::Unknown,
        Some(AlertRulesState::Unreadable(why)) => Finding::Unreadable(why.clone()),
        Some(AlertRulesState::Unavailable(why)) => Finding::Blocked(Blocker {
            kind: BlockReason::Server,
            why: format!("no alerts: {why}"),
            hint: format!("use another Grafana, or `{}`", stack.command("up --alerts=false")),
        }),
        Some(AlertRulesState::Seen(seen)) => {
            compare(stack, seen, settings, objective.or(shown), options).unwrap_or_else(Finding::Blocked)
        }
    };
    let save = Step::SaveAlertRules { objective, overwrite: options.overwrite_dashboard, moves };
    Some(Item::with_step(Resource::Alerts, finding, save))
}

/// Compares the rules with the settings.
fn compare(
    stack: &Stack,
    seen: &ActualAlerts,
    settings: &AlertSettings,
    objective: Option<u64>,
    options: UpOptions,
) -> Result<Finding, Blocker> {
    let (overwrite, moves) = (options.overwrite_dashboard, moves(stack, options));
    let (mut differences, mut has_edited, mut missing) = (Vec::new(), false, 0);
    for rule in AlertRule::ALL {
        match seen.rule(rule) {
            ActualRule::Clash(what) => return Err(taken(what, "create", "rename or delete it in Grafana".into())),
            ActualRule::Missing => {
                missing += 1;
                let (field, desired) = (format!("rule {:?}", rule.title()), "present".into());
                differences.push(Difference { field, actual: String::new(), desired });
            }
            ActualRule::Present { edited: true, provisioned: true, .. } => return Err(from_file(stack, rule)),
            ActualRule::Present { edited: true, made_for, .. } => {
                has_edited = true;
                if let Some(other) = made_for.as_ref().and_then(|made_for| elsewhere(stack, made_for))
                    && overwrite
                    && !moves
                {
                    return Err(conflict(stack, &rule_name(rule), other));
                }
            }
            ActualRule::Present { provisioned, fields, made_for, .. } => {
                // Only a supplied file changes the objective of an existing rule.
                let own = AlertSettings::objective(fields).filter(|_| stack.dashboard.objective.is_none());
                let objective = own.or(objective).unwrap_or(DesiredDashboard::DEFAULT_OBJECTIVE);
                let mut found = Difference::between(fields, &settings.fields(rule, objective));
                let other = made_for.as_ref().and_then(|made_for| elsewhere(stack, made_for));
                found.extend(other.map(|other| made_for_difference(stack, other)));
                if *provisioned && !found.is_empty() {
                    return Err(from_file(stack, rule));
                }
                if let (Some(other), false) = (other, moves) {
                    return Err(conflict(stack, &rule_name(rule), other));
                }
                let named = |difference: Difference| Difference {
                    field: format!("{} of {:?}", difference.field, rule.title()),
                    ..difference
                };
                differences.extend(found.into_iter().map(named));
            }
        }
    }
    Ok(match (missing, differences.is_empty()) {
        _ if has_edited && overwrite => Finding::Requested("they were edited and are to be overwritten"),
        (2, _) => Finding::Missing,
        (_, false) => Finding::Differs(differences),
        (_, true) if has_edited => Finding::Edited,
        (_, true) => Finding::InSync,
    })
}

fn rule_name(rule: AlertRule) -> String {
    format!("alert rule {:?}", rule.title())
}

fn from_file(stack: &Stack, rule: AlertRule) -> Blocker {
    provisioned(stack, format!("Grafana's alert rule {} is provisioned from a file and differs", rule.title()))
}

/// Plans the removal of rules that are turned off. Edited rules are kept, and rules from a file or
/// for another database are reported.
pub(super) fn unwanted(
    stack: &Stack,
    seen: &ActualAlerts,
    moves: bool,
    conflict: impl Fn(&str, &MadeFor) -> Finding,
) -> Option<Item> {
    let (mut is_removed, mut is_edited, mut from_file) = (false, false, None);
    for rule in AlertRule::ALL {
        let ActualRule::Present { edited, provisioned, made_for, .. } = seen.rule(rule) else { continue };
        let other = made_for.as_ref().and_then(|made_for| elsewhere(stack, made_for));
        match other {
            _ if *provisioned => from_file = Some(rule),
            _ if *edited => is_edited = true,
            Some(other) if !moves => {
                return Some(Item::new(Resource::Alerts, conflict(&rule_name(rule), other), vec![]));
            }
            _ => is_removed = true,
        }
    }
    if is_removed {
        let steps = vec![Step::DeleteAlertRules { moves }];
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
