//! Plans the bundled dashboard and the user's dashboards.

use super::made_for::{conflict, elsewhere, made_for_difference, moves};
use super::obstacles::{other_name, provisioned, taken};
use super::{BlockReason, Blocker, Finding, Item, Resource, Step, UpOptions};
use crate::model::container_config::Difference;
use crate::model::observed::{ActualDashboard, DashboardState, DataSourceState, GrafanaState, OtherObject, SharedName};
use crate::model::stack::{DashboardId, Stack};

pub(super) fn dashboard_name(stack: &Stack, id: DashboardId) -> String {
    format!("dashboard {:?}", stack.dashboard_identity(id).1)
}

pub(super) fn dashboard(stack: &Stack, known: Option<&GrafanaState>, id: DashboardId, options: UpOptions) -> Item {
    let resource = Resource::Dashboard(id);
    let (uid, title, _) = stack.dashboard_identity(id);
    let moves = moves(stack, options);
    let save = |replaces: Option<&ActualDashboard>| {
        let replaces = replaces.map(|actual| Box::new(actual.clone()));
        vec![Step::SaveDashboard { id, title: title.to_string(), replaces }]
    };
    let other = |actual: &ActualDashboard| {
        let made_for = actual.made_for.as_ref().filter(|_| !moves)?;
        Some(conflict(stack, &dashboard_name(stack, id), elsewhere(stack, made_for)?))
    };
    let (finding, mut steps) = match known.map(|grafana| grafana.dashboard(id)) {
        None => (Finding::Unknown, save(None)),
        Some(DashboardState::Missing) => (Finding::Missing, save(None)),
        Some(DashboardState::Unreadable(why)) => (Finding::Unreadable(why.clone()), vec![]),
        Some(DashboardState::Clash { what, shares }) => (clash(stack, id, what, *shares), vec![]),
        Some(DashboardState::Present(actual)) if actual.edited => {
            match other(actual) {
                _ if actual.provisioned => {
                    let why = format!("Grafana's dashboard {uid} is provisioned from a file and differs");
                    (provisioned(why, &give_way(stack, id, "uid")).into(), vec![])
                }
                // A dashboard that is kept needs no decision about its owner.
                _ if !options.overwrite_dashboard => (Finding::Edited, vec![]),
                Some(conflict) => (conflict.into(), vec![]),
                None => (Finding::Requested("it was edited and is to be overwritten"), save(Some(actual))),
            }
        }
        Some(DashboardState::Present(actual)) => {
            let differences = dashboard_differences(stack, id, actual);
            if differences.is_empty() && actual.unrecorded {
                let record = Step::RecordDashboard { id, title: title.into(), observed: Box::new(actual.clone()) };
                (Finding::Requested("Grafana changed its content"), vec![record])
            } else if differences.is_empty() {
                (Finding::InSync, vec![])
            } else if actual.provisioned {
                let why = format!("Grafana's dashboard {uid} is provisioned from a file, in another version");
                (provisioned(why, &give_way(stack, id, "uid")).into(), vec![])
            } else if let Some(conflict) = other(actual) {
                (conflict.into(), vec![])
            } else {
                (Finding::Differs(differences), save(Some(actual)))
            }
        }
    };
    // Grafana would replace a home page silently.
    let may_become_home = known.is_none_or(|grafana| !grafana.has_home);
    let never_finished = known.is_none_or(|grafana| grafana.data_source == DataSourceState::Missing);
    if matches!(finding, Finding::Blocked(_) | Finding::Unreadable(_)) {
        return Item::new(resource, finding, vec![]);
    }
    let is_new = never_finished || matches!(finding, Finding::Missing | Finding::Unknown);
    if id == DashboardId::Bundled && is_new && may_become_home {
        steps.push(Step::SetHome { uid: uid.to_string() });
    }
    Item::new(resource, finding, steps)
}

fn clash(stack: &Stack, id: DashboardId, other: &OtherObject, shares: SharedName) -> Finding {
    let whence = match id {
        DashboardId::Bundled => "create".to_string(),
        DashboardId::User(index) => format!("import from {}", stack.user_dashboards[index].path),
    };
    let (folder, name) = match shares {
        SharedName::SpecifiedFolderTitle => {
            let (_, title, _) = stack.dashboard_identity(id);
            return Finding::Blocked(Blocker {
                kind: BlockReason::Foreign,
                why: format!("dashboard {title:?} has the title of its folder, which this version of Grafana refuses"),
                hint: format!("choose another --grafana-folder, or {}", give_way(stack, id, "title")),
            });
        }
        SharedName::Uid => ("", "uid"),
        SharedName::Title => ("put the dashboard into a folder with --grafana-folder", "title"),
        SharedName::FolderTitle => ("", "title"),
    };
    let change = give_way(stack, id, name);
    let remedies = |or: &str| if folder.is_empty() { change.clone() } else { format!("{folder}, {or}{change}") };
    match &other.owner {
        Some(owner) if !other.provisioned => of_instance(stack, id, &other.what, owner, &remedies("or ")),
        _ => taken(other, &whence, &format!("{}, or ", remedies(""))),
    }
    .into()
}

/// A dashboard of an instance is in the place of this one: another instance's, or another one of this instance, such as
/// an earlier import of a file that has another uid now.
fn of_instance(stack: &Stack, id: DashboardId, what: &str, owner: &str, give_way: &str) -> Blocker {
    let (whose, hint) = if owner == stack.instance {
        let restore = match id {
            DashboardId::Bundled => String::new(),
            DashboardId::User(index) => {
                format!(", or restore that uid in {} if it comes from there", stack.user_dashboards[index].path)
            }
        };
        ("this instance imported".into(), format!("{give_way}, or delete it in Grafana if you do not need it{restore}"))
    } else {
        (format!("the instance {owner} created"), give_way.into())
    };
    Blocker { kind: BlockReason::Foreign, why: format!("Grafana already has {what}, which {whose}"), hint }
}

/// The advice to give up the uid or title of a dashboard that another one has.
fn give_way(stack: &Stack, id: DashboardId, what: &str) -> String {
    match id {
        DashboardId::Bundled => other_name(stack),
        DashboardId::User(index) => {
            format!("give the dashboard in {} another {what}", stack.user_dashboards[index].path)
        }
    }
}

fn dashboard_differences(stack: &Stack, id: DashboardId, actual: &ActualDashboard) -> Vec<Difference> {
    let (_, _, content_hash) = stack.dashboard_identity(id);
    let other = actual.made_for.as_ref().and_then(|made_for| elsewhere(stack, made_for));
    let mut differences: Vec<Difference> = other.map(|other| made_for_difference(stack, other)).into_iter().collect();
    let mut compare = |field: &str, actual: String, desired: String| {
        if actual != desired {
            differences.push(Difference { field: field.into(), actual, desired });
        }
    };
    compare(Difference::EDITION, actual.content_hash.clone().unwrap_or_default(), content_hash.to_string());
    if id != DashboardId::Bundled {
        return differences;
    }
    let desired = &stack.dashboard;
    if let Some(objective) = desired.objective {
        compare(
            "objective",
            actual.objective.map(|micros| format!("{micros} µs")).unwrap_or_default(),
            format!("{objective} µs"),
        );
    }
    if let Some(models) = &desired.models {
        compare("models", actual.models.join(", "), models.join(", "));
    }
    differences
}
