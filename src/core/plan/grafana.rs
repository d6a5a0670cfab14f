//! What is inside Grafana: organisation, folder, dashboard, data source, and the query that tells
//! whether panels work.
//!
//! Must not know how Grafana is started or signed in to.

use super::{Blocked, Finding, Item, Obstacle, Resource, Step, UpOptions};
use crate::core::alerts::{AlertRule, AlertSettings, Alerts};
use crate::core::observed::{
    AlertRules, Dashboard, DataSource, Folder, Grafana, Organisation, Query, SeenAlerts, SeenDashboard, SeenRule,
};
use crate::core::specification::Difference;
use crate::core::stack::{self, DashboardId, Stack};

/// The things inside Grafana; nobody but this plan makes a `fresh` one. The data source comes last: that it exists
/// tells that everything before it, the home page too, was once done.
pub(super) fn inside(stack: &Stack, stored: Option<&Grafana>, options: UpOptions, fresh: bool) -> Vec<Item> {
    let mut items = Vec::new();
    items.extend(organisation(stack, stored));
    // Where nobody knows in which organisation to look, nothing was looked at.
    let stored = stored.filter(|grafana| !matches!(grafana.organisation, Organisation::Ambiguous(_)));
    let dashboards: Vec<Item> = stack.dashboards().map(|id| dashboard(stack, stored, id, options, fresh)).collect();
    let is_new = |item: &Item| matches!(item.finding, Finding::Missing | Finding::Unknown);
    if stack.folder.is_some() && dashboards.iter().any(is_new) {
        items.push(folder(stack, stored));
    }
    items.extend(dashboards);
    items.push(data_source(stack, stored));
    items.extend(alerts(stack, stored, options));
    items
}

fn organisation(stack: &Stack, stored: Option<&Grafana>) -> Option<Item> {
    let finding = match stored.map(|grafana| &grafana.organisation) {
        Some(Organisation::Ambiguous(names)) => Finding::Blocked(Blocked {
            kind: Obstacle::Settings,
            why: if names.is_empty() {
                "the account belongs to no organisation of Grafana".into()
            } else {
                format!("the account belongs to several organisations of Grafana: {}", names.join(", "))
            },
            hint: format!("name one with `{}`", stack.command("up --grafana-org NAME")),
        }),
        _ if stack.organisation.is_none() => return None,
        None => Finding::Unknown,
        Some(Organisation::Present) => Finding::InSync,
        Some(Organisation::Missing) => Finding::Missing,
    };
    Some(Item::with_step(Resource::Organisation, finding, Step::CreateOrganisation))
}

fn folder(stack: &Stack, stored: Option<&Grafana>) -> Item {
    let finding = match stored.map(|grafana| grafana.folder.clone()) {
        None => Finding::Unknown,
        Some(Folder::Present | Folder::NotWanted) => Finding::InSync,
        Some(Folder::Missing) => Finding::Missing,
        Some(Folder::TitleTaken) => {
            let title = stack.folder.as_deref().unwrap_or_default();
            Finding::Blocked(Blocked {
                kind: Obstacle::Foreign,
                why: format!(
                    "Grafana has a dashboard called {title:?}, and this version lets no folder have that name too"
                ),
                hint: "choose another --grafana-folder, or rename that dashboard in Grafana".into(),
            })
        }
    };
    Item::with_step(Resource::Folder, finding, Step::CreateFolder)
}

fn dashboard(stack: &Stack, stored: Option<&Grafana>, id: DashboardId, options: UpOptions, fresh: bool) -> Item {
    let resource = Resource::Dashboard(id);
    let (uid, ..) = stack.dashboard_identity(id);
    let save = Step::SaveDashboard { id, overwrite: options.overwrite_dashboard, fresh };
    let (finding, mut steps) = match stored.map(|grafana| grafana.dashboard(id)) {
        None => (Finding::Unknown, vec![save]),
        Some(Dashboard::Missing) => (Finding::Missing, vec![save]),
        Some(Dashboard::Clash { what, has_uid }) => {
            return Item::new(resource, clash(stack, id, what, *has_uid), vec![]);
        }
        Some(Dashboard::Present(have)) if have.edited => {
            if have.provisioned {
                let why = format!("Grafana provides the dashboard {uid} from a file, not as it is here");
                return Item::new(resource, provisioned(stack, why), vec![]);
            }
            if options.overwrite_dashboard {
                (Finding::Requested("edited, and to be overwritten"), vec![save])
            } else {
                (Finding::Edited, vec![])
            }
        }
        Some(Dashboard::Present(have)) => {
            let differences = dashboard_differences(stack, id, have);
            if differences.is_empty() {
                (Finding::InSync, vec![])
            } else if have.provisioned {
                let why = format!("Grafana provides the dashboard {uid} from a file, of another edition");
                return Item::new(resource, provisioned(stack, why), vec![]);
            } else {
                (Finding::Differs(differences), vec![save])
            }
        }
    };
    let never_finished = stored.is_none_or(|grafana| grafana.data_source == DataSource::Missing);
    if id == DashboardId::Bundled && (never_finished || matches!(finding, Finding::Missing | Finding::Unknown)) {
        steps.push(Step::SetHome);
    }
    Item::new(resource, finding, steps)
}

fn clash(stack: &Stack, id: DashboardId, what: &str, has_uid: bool) -> Finding {
    let (whence, change) = match id {
        DashboardId::Bundled => ("make".to_string(), format!("choose another --name than {}", stack.instance)),
        DashboardId::User(index) => {
            let path = &stack.user_dashboards[index].path;
            let what = if has_uid { "uid" } else { "title" };
            (format!("import from {path}"), format!("give the one in {path} another {what}"))
        }
    };
    let folder = if has_uid { "" } else { "put the dashboard into a folder with --grafana-folder, " };
    Finding::Blocked(Blocked {
        kind: Obstacle::Foreign,
        why: format!("Grafana already has {what}, which clipper-metrics did not {whence}"),
        hint: format!("{folder}{change}, or rename or delete the other one in Grafana"),
    })
}

fn provisioned(stack: &Stack, why: String) -> Finding {
    Finding::Blocked(Blocked {
        kind: Obstacle::Foreign,
        why,
        hint: format!("update the provisioning file, or choose another --name than {}", stack.instance),
    })
}

fn dashboard_differences(stack: &Stack, id: DashboardId, have: &SeenDashboard) -> Vec<Difference> {
    let (_, _, edition) = stack.dashboard_identity(id);
    let mut differences = Vec::new();
    let mut compare = |field: &str, have: String, want: String| {
        if have != want {
            differences.push(Difference { field: field.into(), have, want });
        }
    };
    compare("edition", have.edition.clone().unwrap_or_default(), edition.to_string());
    if id != DashboardId::Bundled {
        return differences;
    }
    let want = &stack.dashboard;
    if let Some(objective) = want.objective {
        compare(
            "objective",
            have.objective.map(|micros| format!("{micros} µs")).unwrap_or_default(),
            format!("{objective} µs"),
        );
    }
    if let Some(models) = &want.models {
        compare("models", have.models.join(", "), models.join(", "));
    }
    differences
}

fn data_source(stack: &Stack, stored: Option<&Grafana>) -> Item {
    let finding = match stored.map(|grafana| &grafana.data_source) {
        None => Finding::Unknown,
        Some(DataSource::Missing) => Finding::Missing,
        Some(DataSource::Foreign(what)) => Finding::Blocked(Blocked {
            kind: Obstacle::Foreign,
            why: format!("Grafana already has {what}, which clipper-metrics did not make"),
            hint: "rename or delete it in Grafana, or start a second instance with --name".into(),
        }),
        Some(DataSource::Ours { fields, provisioned: is_provisioned }) => {
            let differences = Difference::between(fields, &stack.data_source.fields());
            if differences.is_empty() {
                Finding::InSync
            } else if *is_provisioned {
                let list: Vec<String> = differences.iter().map(Difference::to_string).collect();
                let why = format!(
                    "Grafana provides the data source {} from a file, and it differs: {}",
                    stack.data_source.uid,
                    list.join(", ")
                );
                provisioned(stack, why)
            } else {
                Finding::Differs(differences)
            }
        }
    };
    Item::with_step(Resource::DataSource, finding, Step::SaveDataSource)
}

/// The alert rules, where somebody says whether there are to be any.
fn alerts(stack: &Stack, stored: Option<&Grafana>, options: UpOptions) -> Option<Item> {
    let item = |finding, step| Some(Item::with_step(Resource::Alerts, finding, step));
    let seen = stored.map(|grafana| &grafana.alerts);
    let settings = match &stack.alerts {
        Alerts::NotManaged => return None,
        Alerts::Off => {
            return match seen {
                None => item(Finding::Unknown, Step::DeleteAlertRules),
                Some(AlertRules::Seen(seen)) => removed_alerts(seen),
                Some(AlertRules::NotLookedAt | AlertRules::Unavailable(_)) => None,
            };
        }
        Alerts::On(settings) => settings,
    };
    let shown = match stored.map(|grafana| &grafana.dashboard) {
        Some(Dashboard::Present(have)) => have.objective,
        _ => None,
    };
    let objective = stack.dashboard.objective.or(shown);
    let save = Step::SaveAlertRules { objective: stack.dashboard.objective, overwrite: options.overwrite_dashboard };
    let seen = match seen {
        None | Some(AlertRules::NotLookedAt) => return item(Finding::Unknown, save),
        Some(AlertRules::Unavailable(why)) => {
            let hint = format!("use another Grafana, or `{}`", stack.command("up --alerts=false"));
            let blocked = Blocked { kind: Obstacle::Server, why: format!("no alerts: {why}"), hint };
            return item(blocked.into(), save);
        }
        Some(AlertRules::Seen(seen)) => seen,
    };
    let (mut differences, mut has_edited, mut missing) = (Vec::new(), false, 0);
    let from_file = |why: &str| {
        let why = format!("Grafana provides the alert rule {why} from a file, not as it is here");
        Some(Item::new(Resource::Alerts, provisioned(stack, why), vec![]))
    };
    for rule in AlertRule::ALL {
        match seen.rule(rule) {
            SeenRule::Clash(what) => {
                let blocked = Blocked {
                    kind: Obstacle::Foreign,
                    why: format!("Grafana already has {what}, which clipper-metrics did not make"),
                    hint: "rename or delete it in Grafana".into(),
                };
                return item(blocked.into(), save);
            }
            SeenRule::Missing => {
                missing += 1;
                let (field, want) = (format!("rule {:?}", rule.title()), "present".into());
                differences.push(Difference { field, have: String::new(), want });
            }
            SeenRule::Present { edited: true, provisioned: true, .. } => return from_file(rule.title()),
            SeenRule::Present { edited: true, .. } => has_edited = true,
            SeenRule::Present { provisioned, fields, .. } => {
                // Only a file that was given changes the objective of a rule that is there.
                let own = AlertSettings::objective(fields).filter(|_| stack.dashboard.objective.is_none());
                let objective = own.or(objective).unwrap_or(stack::Dashboard::DEFAULT_OBJECTIVE);
                let found = Difference::between(fields, &settings.fields(rule, objective));
                if *provisioned && !found.is_empty() {
                    return from_file(rule.title());
                }
                let named = |difference: Difference| Difference {
                    field: format!("{} of {:?}", difference.field, rule.title()),
                    ..difference
                };
                differences.extend(found.into_iter().map(named));
            }
        }
    }
    if has_edited && options.overwrite_dashboard {
        return item(Finding::Requested("edited, and to be overwritten"), save);
    }
    match (missing, differences.is_empty()) {
        (2, _) => item(Finding::Missing, save),
        (_, false) => item(Finding::Differs(differences), save),
        (_, true) if has_edited => Some(Item::new(Resource::Alerts, Finding::Edited, vec![])),
        (_, true) => item(Finding::InSync, save),
    }
}

/// Rules that are not to be there: those that somebody edited stay.
fn removed_alerts(seen: &SeenAlerts) -> Option<Item> {
    let rules = || AlertRule::ALL.iter().map(|rule| seen.rule(*rule));
    if rules().any(|rule| matches!(rule, SeenRule::Present { edited: false, provisioned: false, .. })) {
        let steps = vec![Step::DeleteAlertRules];
        return Some(Item::new(Resource::Alerts, Finding::Requested("to be removed"), steps));
    }
    let is_kept = rules().any(|rule| matches!(rule, SeenRule::Present { .. }));
    is_kept.then(|| Item::new(Resource::Alerts, Finding::Edited, vec![]))
}

/// What takes our things out of a Grafana that stays: only what carries our mark, and no dashboard that
/// somebody has edited.
pub(super) fn deregistration(stack: &Stack, stored: &Grafana) -> Vec<Item> {
    let mut items = Vec::new();
    match &stored.organisation {
        Organisation::Present => {}
        // Nothing was looked at.
        Organisation::Ambiguous(_) => return organisation(stack, Some(stored)).into_iter().collect(),
        Organisation::Missing => {
            let name = stack.organisation.as_deref().unwrap_or_default();
            let blocked = Blocked {
                kind: Obstacle::Settings,
                why: format!("Grafana has no organisation {name:?}, so nothing of ours is in it"),
                hint: "name the one that holds the dashboard with --grafana-org".into(),
            };
            return vec![Item::new(Resource::Organisation, blocked.into(), vec![])];
        }
    }
    let removal = |resource, step| Item::new(resource, Finding::Requested("to be removed"), vec![step]);
    let missing = |resource| Item::new(resource, Finding::Missing, vec![]);
    let provided = |what: &str, uid: &str| {
        Finding::Blocked(Blocked {
            kind: Obstacle::Foreign,
            why: format!("Grafana provides the {what} {uid} from a file, so it cannot be removed here"),
            hint: "remove it from the provisioning files".into(),
        })
    };
    let mut is_kept = false;
    for id in stack.dashboards() {
        let (uid, ..) = stack.dashboard_identity(id);
        let resource = Resource::Dashboard(id);
        items.push(match stored.dashboard(id) {
            Dashboard::Present(have) if have.provisioned => {
                is_kept = true;
                Item::new(resource, provided("dashboard", uid), vec![])
            }
            Dashboard::Present(have) if have.edited => {
                is_kept = true;
                Item::new(resource, Finding::Edited, vec![])
            }
            Dashboard::Present(_) => removal(resource, Step::DeleteDashboard(id)),
            // What has our uid and is not ours stays as it is.
            Dashboard::Missing | Dashboard::Clash { .. } => missing(resource),
        });
    }
    items.push(match &stored.data_source {
        DataSource::Ours { provisioned: true, .. } => {
            Item::new(Resource::DataSource, provided("data source", &stack.data_source.uid), vec![])
        }
        DataSource::Ours { .. } => removal(Resource::DataSource, Step::DeleteDataSource),
        DataSource::Missing | DataSource::Foreign(_) => missing(Resource::DataSource),
    });
    if let AlertRules::Seen(seen) = &stored.alerts {
        items.extend(removed_alerts(seen));
    }
    // Last: Grafana refuses to delete one that holds what does not show, and nothing else waits for that.
    if stored.folder == Folder::Present && !is_kept {
        items.push(removal(Resource::Folder, Step::DeleteFolder));
    }
    items
}

pub(super) fn query(stored: Option<&Grafana>, database: &Item, inside: &[Item]) -> Item {
    let settled = database.steps.is_empty()
        && database.finding == Finding::InSync
        && inside.iter().all(|item| item.resource != Resource::DataSource || item.finding == Finding::InSync);
    let finding = match stored.map(|grafana| &grafana.query) {
        Some(Query::Ok) if settled => Finding::InSync,
        Some(Query::Failing(why)) if settled => Finding::Contradicts(why.clone()),
        _ => Finding::Unknown,
    };
    Item::with_step(Resource::Query, finding, Step::AwaitQuery)
}
