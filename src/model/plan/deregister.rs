//! Plans the removal of this instance's objects from an external Grafana.

use std::collections::BTreeMap;

use super::alerts::{unwanted, unwanted_folder};
use super::dashboards::dashboard_name;
use super::grafana::{data_source_differences, data_source_name, organisation};
use super::made_for::{conflict, elsewhere, options_for};
use super::obstacles::provided;
use super::{BlockReason, Blocker, Finding, Item, Kept, Resource, Step};
use crate::model::observed::{
    ActualDashboard, AlertRulesState, DashboardState, DataSourceState, FolderState, GrafanaState, OrganisationState,
    Unreadable,
};
use crate::model::stack::{DashboardId, MadeFor, Stack};

/// Plans the removal of this instance's objects: only objects with its mark, and no edited dashboard.
pub(super) fn deregistration(stack: &Stack, grafana: &GrafanaState) -> Vec<Item> {
    match &grafana.organisation {
        OrganisationState::Present => {}
        // Nothing was read.
        OrganisationState::Ambiguous(_) | OrganisationState::OfToken(_) | OrganisationState::Unreadable(_) => {
            return organisation(stack, Some(grafana), "down --deregister").into_iter().collect();
        }
        OrganisationState::Missing => {
            let name = stack.organisation.as_deref().unwrap_or_default();
            let blocker = Blocker {
                kind: BlockReason::Settings,
                why: format!("Grafana has no organisation {name:?}, so it holds none of this instance's objects"),
                hint: "choose the one that holds the dashboard with --grafana-org".into(),
            };
            return vec![Item::new(Resource::Organisation, blocker.into(), vec![])];
        }
    }
    let mut items: Vec<Item> = stack.dashboards().map(|id| dashboard(stack, grafana, id)).collect();
    let is_gone = |item: &Item| matches!(item.finding, Finding::Requested(_) | Finding::Missing);
    // Rules that cannot be read may be in the folder.
    let hides_rules = matches!(grafana.alerts, AlertRulesState::Unreadable(_));
    let is_kept = hides_rules || !items.iter().all(is_gone);
    items.push(data_source(stack, grafana));
    match &grafana.alerts {
        AlertRulesState::Seen(seen) => {
            items.extend(unwanted(stack, seen, false, |what, other| removal_conflict(stack, what, other)));
        }
        AlertRulesState::Unreadable(why) => items.push(super::alerts::unreadable(why)),
        AlertRulesState::NotRead | AlertRulesState::Unavailable(_) => {}
    }
    // Folders come last: Grafana refuses to delete one with hidden content, and no other step depends on it.
    if let FolderState::Unreadable(why) = &grafana.folder {
        items.push(unreadable(Resource::Folder, why));
    }
    if let Some(title) = stack.folder.clone().filter(|_| grafana.folder == FolderState::Present { is_own: true }) {
        items.push(if is_kept {
            let why = format!("Grafana's folder {title:?} is not empty");
            let hint = "delete it in Grafana if you do not need it".into();
            Item::new(Resource::Folder, Finding::Kept(Kept { why, hint }), vec![])
        } else {
            removal(Resource::Folder, Step::DeleteFolder { title })
        });
    }
    if let AlertRulesState::Seen(seen) = &grafana.alerts {
        items.extend(unwanted_folder(seen));
    }
    items
}

fn dashboard(stack: &Stack, grafana: &GrafanaState, id: DashboardId) -> Item {
    let resource = Resource::Dashboard(id);
    match grafana.dashboard(id) {
        DashboardState::Present(actual) if actual.provisioned => {
            let (uid, ..) = stack.dashboard_identity(id);
            Item::new(resource, from_file(&format!("dashboard {uid}")), vec![])
        }
        DashboardState::Present(actual) if actual.edited => Item::new(resource, Finding::Edited, vec![]),
        DashboardState::Present(ActualDashboard { made_for: Some(made_for), .. })
            if elsewhere(stack, made_for).is_some() =>
        {
            Item::new(resource, removal_conflict(stack, &dashboard_name(stack, id), made_for), vec![])
        }
        DashboardState::Present(actual) => {
            let title = stack.dashboard_identity(id).1.to_string();
            removal(resource, Step::DeleteDashboard { id, title, observed: Box::new(actual.clone()) })
        }
        DashboardState::Unreadable(why) => unreadable(resource, why),
        // An object with this uid that clipper-metrics did not create stays unchanged.
        DashboardState::Missing | DashboardState::Clash { .. } => Item::new(resource, Finding::Missing, vec![]),
    }
}

fn data_source(stack: &Stack, grafana: &GrafanaState) -> Item {
    let resource = Resource::DataSource;
    match &grafana.data_source {
        DataSourceState::Ours { provisioned: true, .. } => {
            Item::new(resource, from_file(&format!("data source {}", stack.data_source.uid)), vec![])
        }
        DataSourceState::Ours { made_for, .. } if elsewhere(stack, made_for).is_some() => {
            Item::new(resource, removal_conflict(stack, &data_source_name(stack), made_for), vec![])
        }
        DataSourceState::Ours { fields, .. } if is_edited(stack, fields) => {
            Item::new(resource, Finding::Edited, vec![])
        }
        DataSourceState::Ours { fields, .. } => removal(resource, Step::DeleteDataSource { fields: fields.clone() }),
        DataSourceState::Unreadable(why) => unreadable(resource, why),
        DataSourceState::Missing | DataSourceState::Foreign(_) => Item::new(resource, Finding::Missing, vec![]),
    }
}

fn removal(resource: Resource, step: Step) -> Item {
    Item::new(resource, Finding::Requested("to be removed"), vec![step])
}

fn from_file(what: &str) -> Finding {
    provided(what, "remove it from the provisioning files".into())
}

fn unreadable(resource: Resource, why: &Unreadable) -> Item {
    Item::new(resource, Finding::Unreadable(why.clone()), vec![])
}

/// Whether a user changed the data source. InfluxDB's user is not remembered, so a difference there
/// is not a change.
fn is_edited(stack: &Stack, fields: &BTreeMap<String, String>) -> bool {
    data_source_differences(stack, fields).iter().any(|difference| difference.field != "user")
}

/// The same conflict while removing objects: those for another address or database may belong to
/// another instance.
fn removal_conflict(stack: &Stack, what: &str, made_for: &MadeFor) -> Finding {
    let own = if made_for.is_on_another_machine(&stack.data_source.made_for()) {
        format!(
            "`{}` and then `{}` remove it",
            stack.command("up --move-data-source"),
            stack.command("down --deregister")
        )
    } else {
        format!("`{}` removes it", stack.command(&format!("down --deregister{}", options_for(stack, made_for))))
    };
    Finding::Blocked(Blocker {
        hint: format!("if it still belongs to this instance, {own}; otherwise omit --deregister"),
        ..conflict(stack, what, made_for)
    })
}
