//! Plans the objects inside Grafana: organisation, folder, data source, and the query that verifies panels, with the
//! dashboards and alert rules in their order.

use std::collections::BTreeMap;

use super::dashboards::dashboard;
use super::made_for::{conflict, elsewhere, made_for_difference, moves};
use super::obstacles::{other_name, provisioned, taken};
use super::{BlockReason, Blocker, Contradictions, Finding, Item, Phase, Resource, Step, UpOptions};
use crate::model::container_config::Difference;
use crate::model::invocation::typed_option;
use crate::model::observed::{DataSourceState, FolderState, GrafanaState, OrganisationState, Query};
use crate::model::query_checks::MAX_SAVES;
use crate::model::stack::{DesiredDataSource, Stack};

/// Plans the objects inside Grafana. As long as its content is unknown, the steps are a prediction. The data source
/// comes last: its existence shows that all objects before it, including the home page, were once created.
pub(super) fn inside(stack: &Stack, known: Option<&GrafanaState>, options: UpOptions) -> Vec<Item> {
    let mut items = Vec::new();
    items.extend(organisation(stack, known, "up"));
    // If the organisation is ambiguous, nothing was read.
    let observed = known;
    let is_seen = |grafana: &&GrafanaState| {
        !matches!(
            grafana.organisation,
            OrganisationState::Ambiguous(_) | OrganisationState::OfToken(_) | OrganisationState::Unreadable(_)
        )
    };
    let known = known.filter(is_seen);
    let dashboards: Vec<Item> = stack.dashboards().map(|id| dashboard(stack, known, id, options)).collect();
    let is_new = |item: &Item| matches!(item.finding, Finding::Missing | Finding::Unknown);
    // Existing dashboards stay where they are.
    if stack.folder.is_some() && dashboards.iter().any(is_new) {
        items.push(folder(stack, known));
    }
    items.extend(dashboards);
    items.push(data_source(stack, known, options));
    items.extend(super::alerts::alerts(stack, known, options));
    let is_unreadable = is_undecidable(observed, &items);
    for item in &mut items {
        if is_unreadable {
            item.steps.clear();
        }
        if observed.is_none() {
            item.until = Phase::Changes;
        }
    }
    items
}

/// Whether a fact that decides the owner or the place of these objects is unreadable, so that nothing is written.
pub(super) fn is_undecidable(known: Option<&GrafanaState>, inside: &[Item]) -> bool {
    let hides_owner = |grafana: &GrafanaState| {
        matches!(grafana.organisation, OrganisationState::Unreadable(_))
            || matches!(grafana.data_source, DataSourceState::Unreadable(_))
    };
    let is_unreadable_folder =
        |item: &Item| item.resource == Resource::Folder && matches!(item.finding, Finding::Unreadable(_));
    known.is_some_and(hides_owner) || inside.iter().any(is_unreadable_folder)
}

pub(super) fn data_source_name(stack: &Stack) -> String {
    format!("data source {:?}", stack.data_source.name)
}

pub(super) fn organisation(stack: &Stack, known: Option<&GrafanaState>, verb: &str) -> Option<Item> {
    let finding = match known.map(|grafana| &grafana.organisation) {
        Some(OrganisationState::Ambiguous(names)) => Finding::Blocked(Blocker {
            kind: BlockReason::Settings,
            why: if names.is_empty() {
                "the account belongs to no organisation of Grafana".into()
            } else {
                format!("the account belongs to several organisations of Grafana: {}", names.join(", "))
            },
            hint: format!("choose one with `{}`", stack.command(&format!("{verb} --grafana-org NAME"))),
        }),
        Some(OrganisationState::OfToken(own)) => Finding::Blocked(Blocker {
            kind: BlockReason::Refused,
            why: format!(
                "the token belongs to Grafana's organisation {own:?}, not to {:?}",
                stack.organisation.as_deref().unwrap_or_default()
            ),
            hint: format!(
                "supply a token of that organisation (--grafana-token-file), or use the token's own with `{}`",
                stack.command(&format!("{verb}{}", typed_option("--grafana-org", own)))
            ),
        }),
        _ if stack.organisation.is_none() => return None,
        None => Finding::Unknown,
        Some(OrganisationState::Present) => Finding::InSync,
        Some(OrganisationState::Missing) => Finding::Missing,
        Some(OrganisationState::Unreadable(why)) => Finding::Unreadable(why.clone()),
    };
    Some(match &stack.organisation {
        Some(name) => Item::with_step(Resource::Organisation, finding, Step::CreateOrganisation(name.clone())),
        None => Item::new(Resource::Organisation, finding, vec![]),
    })
}

fn folder(stack: &Stack, known: Option<&GrafanaState>) -> Item {
    let finding = match known.map(|grafana| grafana.folder.clone()) {
        None => Finding::Unknown,
        Some(FolderState::Present { .. } | FolderState::NotConfigured) => Finding::InSync,
        Some(FolderState::Missing) => Finding::Missing,
        Some(FolderState::Unreadable(why)) => Finding::Unreadable(why),
        Some(FolderState::TitleTaken { is_own }) => {
            let title = stack.folder.as_deref().unwrap_or_default();
            let (whose, rename) = if is_own {
                ("one of the dashboards to import", "")
            } else {
                ("a dashboard", ", or rename that dashboard in Grafana")
            };
            Finding::Blocked(Blocker {
                kind: BlockReason::Foreign,
                why: format!(
                    "{whose} is called {title:?}, and in this version of Grafana no folder can have the same title"
                ),
                hint: format!("choose another --grafana-folder{rename}"),
            })
        }
    };
    let title = stack.folder.clone().unwrap_or_default();
    Item::with_step(Resource::Folder, finding, Step::CreateFolder { title })
}

fn data_source(stack: &Stack, known: Option<&GrafanaState>, options: UpOptions) -> Item {
    let mut replaces = None;
    let finding = match known.map(|grafana| &grafana.data_source) {
        None => Finding::Unknown,
        Some(DataSourceState::Missing) => Finding::Missing,
        Some(DataSourceState::Unreadable(why)) => Finding::Unreadable(why.clone()),
        Some(DataSourceState::Foreign(other)) => taken(other, "create", &format!("{}, or ", other_name(stack))).into(),
        Some(DataSourceState::Ours { fields, made_for, provisioned: is_provisioned }) => {
            replaces = Some(made_for.clone());
            let other = elsewhere(stack, made_for);
            let mut differences = data_source_differences(stack, fields);
            if let (Some(other), true) = (other, differences.is_empty()) {
                differences.push(made_for_difference(stack, other));
            }
            if differences.is_empty() {
                Finding::InSync
            } else if *is_provisioned {
                let why = format!(
                    "Grafana's data source {} is provisioned from a file and differs: {}",
                    stack.data_source.uid,
                    Difference::list(&differences)
                );
                provisioned(why, &other_name(stack)).into()
            } else if let (Some(other), false) = (other, moves(stack, options)) {
                conflict(stack, &data_source_name(stack), other).into()
            } else {
                Finding::Differs(differences)
            }
        }
    };
    // Grafana would make another one lose that role silently.
    let becomes_default = replaces.is_none() && known.is_some_and(|grafana| !grafana.has_default_source);
    Item::with_step(Resource::DataSource, finding, Step::SaveDataSource { replaces, becomes_default })
}

/// The differences of the stored data source. Settings for a proxy that are kept are none.
pub(super) fn data_source_differences(stack: &Stack, fields: &BTreeMap<String, String>) -> Vec<Difference> {
    let mut differences = Difference::between(fields, &stack.data_source.fields());
    if stack.keeps_proxy_settings(fields.get("url").map_or("", String::as_str)) {
        differences.retain(|difference| difference.field != DesiredDataSource::OTHER_SETTINGS);
    }
    differences
}

/// The query that verifies panels. If this run has already found that its answer contradicts the settings of the data
/// source, the same settings are saved again: Grafana may use old ones.
pub(super) fn query(known: Option<&GrafanaState>, database: &Item, inside: &[Item], options: UpOptions) -> Item {
    let settled = database.steps.is_empty()
        && database.finding == Finding::InSync
        && inside.iter().all(|item| item.resource != Resource::DataSource || item.finding == Finding::InSync);
    if is_undecidable(known, inside) {
        return Item::new(Resource::Query, Finding::Unknown, vec![]);
    }
    let finding = match known.map(|grafana| &grafana.query) {
        Some(Query::Ok) if settled => Finding::InSync,
        Some(Query::Failing(why)) if settled => Finding::Contradicts(why.clone()),
        _ => Finding::Unknown,
    };
    let Contradictions { count, since } = options.contradictions;
    let (replaces, saves_left) = match known.map(|grafana| &grafana.data_source) {
        Some(DataSourceState::Ours { provisioned: true, .. }) => (None, 0),
        Some(DataSourceState::Ours { made_for, .. }) => (Some(made_for), MAX_SAVES - count),
        _ => (None, MAX_SAVES - count),
    };
    let saves_again = matches!(finding, Finding::Contradicts(_)) && count > 0;
    let mut item = Item::with_step(Resource::Query, finding, Step::VerifyQuery { saves_left, since });
    if let Some(made_for) = replaces.filter(|_| saves_again) {
        let save = Step::SaveDataSource { replaces: Some(made_for.clone()), becomes_default: false };
        item.steps.insert(0, (save.phase(), save));
    }
    item
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::model::alerts::{AlertRule, Alerts};
    use crate::model::observed::{
        ActualAlerts, ActualDashboard, ActualRule, AlertFolder, AlertRulesState, ContainerState, DashboardState,
        Observed, SharedName,
    };
    use crate::model::plan::{self, Plan};
    use crate::model::role::PerRole;
    use crate::model::stack::{DashboardId, DesiredDashboard, MadeFor};
    use crate::samples::{self, content_of, external, plan_with, steps, unreadable};

    /// The fields of the data source, which must be managed, and whether a file provides it.
    fn source_of(grafana: &mut GrafanaState) -> (&mut BTreeMap<String, String>, &mut bool) {
        match &mut grafana.data_source {
            DataSourceState::Ours { fields, provisioned, .. } => (fields, provisioned),
            other => panic!("{other:?}"),
        }
    }

    fn dashboard_of(grafana: &mut GrafanaState) -> &mut ActualDashboard {
        match &mut grafana.dashboard {
            DashboardState::Present(actual) => actual,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn foreign_objects_are_blockers_before_anything_is_written() {
        let desired = samples::stack();
        let clashes: [fn(&mut GrafanaState); 5] = [
            |grafana| grafana.data_source = DataSourceState::Foreign("a data source".into()),
            |grafana| grafana.dashboard = DashboardState::Clash { what: "a folder".into(), shares: SharedName::Uid },
            |grafana| grafana.organisation = OrganisationState::Ambiguous(vec!["a".into(), "b".into()]),
            |grafana| {
                let made_for = MadeFor { url: "http://other:8086".into(), database: "d".into(), machine: None };
                grafana.data_source = DataSourceState::Ours { fields: BTreeMap::new(), made_for, provisioned: true };
            },
            |grafana| {
                let dashboard = dashboard_of(grafana);
                (dashboard.provisioned, dashboard.content_hash) = (true, None);
            },
        ];
        for clash in clashes {
            let plan = plan_with(&desired, |seen| clash(content_of(seen)));
            assert!(plan.blocker().is_some(), "{plan:?}");
        }
        // A provisioned object with the desired content is in sync.
        let plan = plan_with(&desired, |seen| *source_of(content_of(seen)).1 = true);
        assert!(plan.in_sync(), "{plan:?}");
    }

    #[test]
    fn an_unreadable_folder_matters_only_to_a_dashboard_that_goes_into_it() {
        let desired = Stack { folder: Some("F".into()), ..samples::stack() };
        for dashboard in [DashboardState::Missing, DashboardState::Present(samples::actual_dashboard("new"))] {
            let is_missing = dashboard == DashboardState::Missing;
            let plan = plan_with(&desired, |seen| {
                let grafana = content_of(seen);
                (grafana.folder, grafana.dashboard) = (FolderState::Unreadable(unreadable()), dashboard.clone());
            });
            assert_eq!((plan.in_sync(), plan.unreadable().is_some()), (!is_missing, is_missing), "{plan}");
            assert!(plan.is_idle(), "{plan}");
        }
    }

    #[test]
    fn a_data_source_that_answers_contradict_is_saved_again_unless_a_file_provides_it() {
        let desired = samples::stack();
        let replaces = Some(desired.data_source.made_for());
        let save = Step::SaveDataSource { replaces, becomes_default: false };
        let start = Instant::now();
        let planned = |count: u8, provisioned, query: Query| {
            let mut seen = samples::in_sync();
            let grafana = content_of(&mut seen);
            *source_of(grafana).1 = provisioned;
            grafana.query = query;
            let contradictions = Contradictions { count, since: (count > 0).then_some(start) };
            steps(&plan::up(&desired, &seen, UpOptions { contradictions, ..UpOptions::default() }))
        };
        let failing = || Query::Failing("empty".into());
        assert_eq!(planned(0, false, failing()), [Step::VerifyQuery { saves_left: MAX_SAVES, since: None }]);
        for count in 1..=MAX_SAVES {
            let verify = |saves_left| Step::VerifyQuery { saves_left, since: Some(start) };
            assert_eq!(planned(count, false, failing()), [save.clone(), verify(MAX_SAVES - count)]);
            assert_eq!(planned(count, true, failing()), [verify(0)]);
            assert_eq!(planned(count, false, Query::Ok), []);
        }
    }

    #[test]
    fn proxy_settings_are_kept_only_for_the_same_server_and_never_for_the_container_itself() {
        let own = samples::stack();
        let (mut external, mut behind_proxy) = (own.clone(), own.clone());
        external.services.influxdb = samples::external("influxdb", 8086);
        behind_proxy.data_source.is_url_chosen = true;
        let mut moved = external.clone();
        moved.data_source.url = "http://other:8086".into();
        let with_header = |seen: &mut Observed| {
            let (fields, _) = source_of(content_of(seen));
            fields.insert(DesiredDataSource::OTHER_SETTINGS.into(), "httpHeaderName1".into());
        };
        let finding = |desired: &Stack| plan_with(desired, with_header).finding(Resource::DataSource).cloned();
        assert!(matches!(finding(&own), Some(Finding::Differs(_))));
        assert_eq!(finding(&external), Some(Finding::InSync));
        assert_eq!(finding(&behind_proxy), Some(Finding::InSync));
        let dropped = |plan: &Plan| match plan.finding(Resource::DataSource) {
            Some(Finding::Differs(differences)) => Difference::list(differences),
            other => panic!("{other:?}"),
        };
        let mut seen = samples::in_sync();
        with_header(&mut seen);
        let confirmed = UpOptions { move_data_source: true, ..UpOptions::default() };
        assert_eq!(
            dropped(&plan::up(&moved, &seen, confirmed)),
            "other settings: httpHeaderName1 -> (none), url: http://influxdb:8086 -> http://other:8086",
            "the new server gets no credentials of the earlier one"
        );
        source_of(content_of(&mut seen)).0.insert("url".into(), "HTTP://influxdb:8086/metrics/".into());
        assert_eq!(
            dropped(&plan::up(&external, &seen, UpOptions::default())),
            "url: HTTP://influxdb:8086/metrics/ -> http://influxdb:8086",
            "another path on the same server"
        );
    }

    #[test]
    fn an_edited_dashboard_is_kept_unless_overwriting_is_requested() {
        let (desired, mut seen, id) = (samples::stack(), samples::in_sync(), DashboardId::Bundled);
        let dashboard = dashboard_of(content_of(&mut seen));
        (dashboard.edited, dashboard.stored.id, dashboard.stored.version) = (true, Some(7), Some(3));
        let replaces = Some(Box::new(dashboard.clone()));
        let kept = plan::up(&desired, &seen, UpOptions::default());
        assert!(kept.in_sync() && kept.finding(Resource::Dashboard(id)) == Some(&Finding::Edited));
        let options = UpOptions { overwrite_dashboard: true, ..UpOptions::default() };
        let replaced = steps(&plan::up(&desired, &seen, options));
        let title = desired.dashboard.title.clone();
        let save = Step::SaveDashboard { id, title, replaces };
        assert_eq!(replaced, [save], "Grafana compares the version with its own");
    }

    #[test]
    fn an_unreadable_organisation_ends_no_plan_early() {
        let services = PerRole { influxdb: external("i", 8086), grafana: external("g", 3000) };
        let desired = Stack { services, organisation: Some("Team".into()), ..samples::stack() };
        let plan = plan_with(&desired, |seen| {
            seen.influxdb.container = ContainerState::Absent;
            seen.grafana.container = ContainerState::Absent;
            let organisation = OrganisationState::Unreadable(unreadable());
            *content_of(seen) = GrafanaState { organisation, ..samples::grafana_state() };
        });
        assert!(plan.executable().any(|step| *step == Step::RemoveNetwork), "{plan}");
    }

    /// The origin of an object in a shared Grafana.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Origin {
        Absent,
        /// Created for the stack's address and database.
        Own,
        /// Created for another one.
        Other,
        /// Created by a version that did not store the target.
        Unnoted,
        /// Created for another one and then edited.
        EditedOther,
        /// Grafana fails to return it.
        Unreadable,
    }

    impl Origin {
        const ALL: [Self; 6] =
            [Self::Absent, Self::Own, Self::Other, Self::Unnoted, Self::EditedOther, Self::Unreadable];

        fn made_for(self, desired: &Stack, another: &MadeFor) -> Option<MadeFor> {
            match self {
                Self::Own => Some(desired.data_source.made_for()),
                Self::Other | Self::EditedOther => Some(another.clone()),
                Self::Absent | Self::Unnoted | Self::Unreadable => None,
            }
        }
    }

    /// Other databases: at another address, and at the same address on the loopback of another machine.
    fn others(desired: &Stack) -> [MadeFor; 3] {
        let elsewhere = MadeFor { url: "http://other:8086".into(), database: "other".into(), machine: None };
        let there = Some("another".to_string());
        let same_address = MadeFor { machine: there.clone(), ..desired.data_source.made_for() };
        [MadeFor { machine: there, ..elsewhere.clone() }, elsewhere, same_address]
    }

    #[test]
    fn content_that_grafana_changed_is_recorded_unless_another_version_is_saved() {
        let [record, save, keep]: [IsStep; 3] = [
            |step| matches!(step, Step::RecordDashboard { observed, .. } if observed.unrecorded),
            |step| matches!(step, Step::SaveDashboard { replaces: Some(actual), .. } if actual.unrecorded),
            |_| false,
        ];
        let unrecorded = ActualDashboard { unrecorded: true, ..samples::actual_dashboard("new") };
        let older = ActualDashboard { content_hash: Some("old".into()), ..unrecorded.clone() };
        // A later save by a user counts as an edit.
        let edited = ActualDashboard { edited: true, unrecorded: false, ..unrecorded.clone() };
        for (actual, expected, count) in [(unrecorded, record, 1), (older, save, 1), (edited, keep, 0)] {
            let plan = plan_with(&samples::stack(), |seen| *dashboard_of(content_of(seen)) = actual.clone());
            assert_eq!(steps(&plan).len(), count, "{plan}");
            assert!(steps(&plan).iter().all(expected) && plan.in_sync() == (count == 0), "{plan}");
        }
    }

    /// A Grafana whose data source, dashboard and alert rules have these origins.
    fn shared(desired: &Stack, another: &MadeFor, [source, dashboard, rules]: [Origin; 3]) -> GrafanaState {
        let mut fields = desired.data_source.fields();
        if matches!(source, Origin::Other | Origin::EditedOther) {
            fields.insert("url".into(), another.url.clone());
            fields.insert("database".into(), another.database.clone());
        }
        let rule = |rule| match rules {
            Origin::Absent | Origin::Unreadable => ActualRule::Missing,
            origin => ActualRule::Present {
                edited: origin == Origin::EditedOther,
                provisioned: false,
                fields: samples::alert_settings("new").fields(rule, DesiredDashboard::DEFAULT_OBJECTIVE),
                made_for: origin.made_for(desired, another),
                folder_uid: String::new(),
                group: desired.instance.clone(),
            },
        };
        GrafanaState {
            data_source: match source {
                Origin::Absent => DataSourceState::Missing,
                Origin::Unreadable => DataSourceState::Unreadable(unreadable()),
                // If the mark does not name the target, the stored fields do.
                origin => {
                    let made_for = origin.made_for(desired, another).unwrap_or_else(|| desired.data_source.made_for());
                    DataSourceState::Ours { fields, made_for, provisioned: false }
                }
            },
            dashboard: match dashboard {
                Origin::Absent => DashboardState::Missing,
                Origin::Unreadable => DashboardState::Unreadable(unreadable()),
                origin => DashboardState::Present(ActualDashboard {
                    edited: origin == Origin::EditedOther,
                    made_for: origin.made_for(desired, another),
                    ..samples::actual_dashboard("new")
                }),
            },
            alerts: match rules {
                Origin::Unreadable => AlertRulesState::Unreadable(unreadable()),
                _ => AlertRulesState::Seen(Box::new(ActualAlerts {
                    latency: rule(AlertRule::Latency),
                    silence: rule(AlertRule::Silence),
                    folder: Some(AlertFolder { uid: String::new(), holds_only_rules: false }),
                })),
            },
            query: Query::Ok,
            ..samples::grafana_state()
        }
    }

    type IsStep = fn(&Step) -> bool;

    fn has_step(plan: &Plan, step_is: IsStep) -> bool {
        steps(plan).iter().any(step_is)
    }

    #[test]
    fn objects_created_for_another_database_change_only_with_the_users_confirmation() {
        let own = Stack { alerts: Alerts::On(samples::alert_settings("new")), ..samples::stack() };
        let mut external = own.clone();
        external.services.grafana = samples::external("g", 3000);
        external.data_source.machine = Some("this".into());
        let off = Stack { alerts: Alerts::Off, ..external.clone() };
        let all = || Origin::ALL.into_iter();
        let origins = || all().flat_map(|a| all().flat_map(move |b| all().map(move |c| [a, b, c])));
        for (another, origins) in others(&external).iter().flat_map(|one| origins().map(move |all| (one, all))) {
            let [source, dashboard, rules] = origins;
            let seen = |desired: &Stack| {
                let mut seen = samples::in_sync();
                *content_of(&mut seen) = shared(desired, another, origins);
                seen
            };
            let has_other = origins.contains(&Origin::Other) || source == Origin::EditedOther;
            for overwrite_dashboard in [false, true] {
                let options = UpOptions { overwrite_dashboard, ..UpOptions::default() };
                let touches_edited = overwrite_dashboard && [dashboard, rules].contains(&Origin::EditedOther);
                let plan = plan::up(&external, &seen(&external), options);
                let conflict = plan.blocker().is_some_and(|(_, blocker)| blocker.kind == BlockReason::Conflict);
                assert_eq!(conflict, has_other || touches_edited, "{origins:?} {overwrite_dashboard}: {plan:?}");
                // A conflict never suggests that `up` resolves it, and names both targets.
                for item in &plan.items {
                    let Finding::Blocked(blocker) = &item.finding else { continue };
                    let names = |text: &str| blocker.why.contains(text);
                    let both = names(&another.url) && (names("http://influxdb:8086") || names("another machine"));
                    assert!(both && blocker.hint.contains("--move-data-source"), "{blocker:?}");
                    // A command for the address of another machine would take its objects over.
                    let commands = ["up --data-source-url", "up --database"];
                    let takes_over = commands.iter().any(|command| blocker.hint.contains(command));
                    assert!(!takes_over || another.machine.is_none(), "{blocker:?}");
                    assert!(item.steps.is_empty());
                }
                let moved = plan::up(&external, &seen(&external), UpOptions { move_data_source: true, ..options });
                assert_eq!(moved.blocker(), None, "{origins:?}: {moved:?}");
                // In the instance's own container, the settings decide.
                let plan = plan::up(&own, &seen(&own), options);
                assert_eq!(plan.blocker(), None, "{origins:?}: {plan:?}");
                // An unreadable object is never written and never in sync.
                for plan in [&plan, &moved] {
                    use Resource::{Alerts, Dashboard, DataSource};
                    let is_unreadable = origins.contains(&Origin::Unreadable);
                    assert_eq!(plan.unreadable().is_some(), is_unreadable, "{origins:?}: {plan:?}");
                    assert!(!(is_unreadable && plan.in_sync()), "{origins:?}: {plan:?}");
                    let writes: IsStep = |step| matches!(step.resource(), Dashboard(_) | DataSource | Alerts);
                    assert!(source != Origin::Unreadable || !has_step(plan, writes), "{origins:?}: {plan:?}");
                }
            }
            if rules == Origin::Other {
                let plan = plan::up(&off, &seen(&off), UpOptions::default());
                assert!(!has_step(&plan, |step| matches!(step, Step::DeleteAlertRule { .. })), "{origins:?}: {plan:?}");
            }
            // Removed objects were all created for the stack's own database and not edited.
            let down = plan::deregister(&off, &seen(&off)).unwrap();
            assert_eq!(down.blocker().is_some(), has_other, "{origins:?}: {down:?}");
            let removes: [(Origin, IsStep); 3] = [
                (source, |step| matches!(step, Step::DeleteDataSource { .. })),
                (dashboard, |step| matches!(step, Step::DeleteDashboard { .. })),
                (rules, |step| matches!(step, Step::DeleteAlertRule { .. })),
            ];
            for (origin, step_is) in removes {
                let goes = matches!(origin, Origin::Own | Origin::Unnoted);
                assert_eq!(has_step(&down, step_is), goes, "{origins:?}: {down:?}");
            }
        }
    }
}
