//! Single decisions of the planner.

use std::collections::BTreeMap;

use clipper_metrics::model::address::ServerUrl;
use clipper_metrics::model::alerts::{AlertRule, Alerts};
use clipper_metrics::model::image::ImageRef;
use clipper_metrics::model::login::{Credential, DefaultLogin, LoginState, SignedInAccount};
use clipper_metrics::model::lost_settings::{Loss, Lost, UnknownSetting};
use clipper_metrics::model::observed::{
    ActualAlerts, ActualDashboard, ActualRule, AlertRulesState, ContainerState, DashboardState, DataSourceState,
    GrafanaState, Image, ManagedServer, Network, Observed, OrganisationState, OurContainer, PortHolder, Query,
    RunState, ServerContent, ServerResponse, StoredSettings, StoredVersion, Unreadable, VolumeState,
};
use clipper_metrics::model::plan::{
    self, BlockReason, ContainerUse, FailureCause, Finding, Phase, Plan, Resource, Step, UpOptions,
};
use clipper_metrics::model::role::Role;
use clipper_metrics::model::stack::{
    DashboardId, DesiredDashboard, DesiredDataSource, EngineLocation, MadeFor, Pull, Remembered, Service, Settings,
    Stack,
};
use clipper_metrics::model::upgrade::UpgradeState;
use clipper_metrics::model::version::Version;
use clipper_metrics::model::volume_content::{RanVersion, VolumeContent, VolumeFiles};

use crate::support::model::grafana_state;
use crate::world::*;

#[test]
fn foreign_objects_are_blockers_and_never_changed() {
    let desired = stack(Case::default());
    let seen = empty_world().observe(&desired, Case::default());
    let foreign: [fn(&mut Observed); 6] = [
        |seen| seen.network = Network::Foreign,
        |seen| seen.influxdb.container = ContainerState::Foreign,
        |seen| seen.grafana.volume = VolumeState::Foreign,
        |seen| seen.grafana.port_holder = Some(PortHolder::Container("somebody".into())),
        |seen| seen.influxdb.volume_user = Some("somebody".into()),
        |seen| seen.grafana.container = ContainerState::Duplicated(vec!["a".into(), "b".into()]),
    ];
    for change in foreign {
        let mut seen = seen.clone();
        change(&mut seen);
        let plan = plan::up(&desired, &seen, UpOptions::default());
        assert!(plan.blocker().is_some(), "{plan:?}");
        assert!(plan::down(&desired, &seen, true).is_idle());
    }
}

#[test]
fn a_port_published_by_the_container_itself_is_not_a_conflict() {
    let desired = stack(Case::default());
    let publish = desired.container(Role::Grafana).unwrap().config.publish;
    let with_holder = |published| {
        plan_with(&desired, |seen| {
            seen.grafana.port_holder = Some(PortHolder::Container("somebody".into()));
            if let ContainerState::Ours(actual) = &mut seen.grafana.container {
                actual.published = published;
            }
        })
    };
    assert!(with_holder(Some(publish)).blocker().is_none());
    assert!(with_holder(None).blocker().is_some());
    assert!(with_holder(Some((publish.ip(), publish.port() + 1).into())).blocker().is_some());
}

#[test]
fn with_pull_never_only_work_that_needs_a_missing_image_is_blocked() {
    let mut desired = stack(Case::default());
    desired.pull = Pull::Never;
    let in_sync = plan_with(&desired, |seen| seen.influxdb.image = None);
    assert!(in_sync.blocker().is_none() && in_sync.is_idle(), "{in_sync:?}");
    let stopped = plan_with(&desired, |seen| {
        seen.influxdb.image = None;
        if let ContainerState::Ours(actual) = &mut seen.influxdb.container {
            actual.run = RunState::Exited(0);
        }
    });
    assert!(stopped.blocker().is_none() && !stopped.is_idle(), "{stopped:?}");
    let changes: [fn(&mut Observed); 2] = [
        |seen| seen.influxdb.container = ContainerState::Absent,
        |seen| {
            if let ContainerState::Ours(actual) = &mut seen.influxdb.container {
                actual.on_network = false;
            }
        },
    ];
    for change in changes {
        let plan = plan_with(&desired, |seen| {
            seen.influxdb.image = None;
            change(seen);
        });
        let (_, blocker) = plan.blocker().unwrap();
        assert!(blocker.why.contains("--pull never"), "{}", blocker.why);
    }
}

#[test]
fn no_image_is_pulled_for_a_blocked_server() {
    let desired = stack(Case::default());
    let mut seen = whole_world().observe(&desired, Case::default());
    let ContainerState::Ours(actual) = &mut seen.influxdb.container else { panic!("it is ours") };
    (actual.name_taken, actual.on_network) = (true, false);
    let plan = plan::up(&desired, &seen, UpOptions { pull: true, ..UpOptions::default() });
    assert_eq!(plan.blocker().map(|(resource, _)| resource), Some(Resource::Server(Role::Influxdb)));
    assert!(!plan.steps().any(|(step, _)| *step == Step::PullImage(Role::Influxdb)), "{plan}");
}

#[test]
fn foreign_objects_in_grafana_are_blockers_before_anything_is_written() {
    let desired = stack(Case::default());
    let clashes: [fn(&mut GrafanaState); 5] = [
        |grafana| grafana.data_source = DataSourceState::Foreign("a data source".into()),
        |grafana| grafana.dashboard = DashboardState::Clash { what: "a folder".into(), has_uid: true },
        |grafana| grafana.organisation = OrganisationState::Ambiguous(vec!["a".into(), "b".into()]),
        |grafana| {
            let made_for = MadeFor { url: "http://other:8086".into(), database: "d".into(), machine: None };
            grafana.data_source = DataSourceState::Ours { fields: BTreeMap::new(), made_for, provisioned: true };
        },
        |grafana| {
            if let DashboardState::Present(dashboard) = &mut grafana.dashboard {
                (dashboard.provisioned, dashboard.content_hash) = (true, None);
            }
        },
    ];
    for clash in clashes {
        let plan = plan_with(&desired, |seen| {
            let ServerResponse::Answering(ServerContent::Grafana(grafana)) = &mut seen.grafana.response else {
                panic!("it answers")
            };
            clash(grafana);
        });
        assert!(plan.blocker().is_some(), "{plan:?}");
    }
    // A provisioned object with the desired content is in sync.
    let plan = plan_with(&desired, |seen| {
        let ServerResponse::Answering(ServerContent::Grafana(grafana)) = &mut seen.grafana.response else {
            panic!("it answers")
        };
        let DataSourceState::Ours { provisioned, .. } = &mut grafana.data_source else { panic!("it is ours") };
        *provisioned = true;
    });
    assert!(plan.in_sync(), "{plan:?}");
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
    const ALL: [Self; 6] = [Self::Absent, Self::Own, Self::Other, Self::Unnoted, Self::EditedOther, Self::Unreadable];

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

fn unreadable() -> Unreadable {
    Unreadable { doing: "read it".into(), status: 500, why: "broken".into() }
}

/// An external Grafana with objects of these origins.
fn shared_grafana(
    desired: &Stack,
    another: &MadeFor,
    source: Origin,
    dashboard: Origin,
    rules: Origin,
) -> GrafanaState {
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
            fields: alert_settings().fields(rule, DesiredDashboard::DEFAULT_OBJECTIVE),
            made_for: origin.made_for(desired, another),
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
        dashboard: match (dashboard, seen_dashboard(ObjectState::Right)) {
            (Origin::Absent, _) => DashboardState::Missing,
            (Origin::Unreadable, _) => DashboardState::Unreadable(unreadable()),
            (origin, DashboardState::Present(seen)) => DashboardState::Present(ActualDashboard {
                edited: origin == Origin::EditedOther,
                made_for: origin.made_for(desired, another),
                ..seen
            }),
            (_, other) => other,
        },
        alerts: match rules {
            Origin::Unreadable => AlertRulesState::Unreadable(unreadable()),
            _ => AlertRulesState::Seen(ActualAlerts {
                latency: rule(AlertRule::Latency),
                silence: rule(AlertRule::Silence),
            }),
        },
        query: Query::Ok,
        ..grafana_state()
    }
}

type IsStep = fn(&Step) -> bool;

/// Whether the plan contains a step of this kind.
fn changes(plan: &Plan, step_is: IsStep) -> bool {
    steps(plan).iter().any(step_is)
}

#[test]
fn objects_created_for_another_database_change_only_with_the_users_confirmation() {
    let mut external = stack(Case { alerts: Some(true), ..Case::default() });
    external.services.grafana = Service::External { url: ServerUrl::http("g", 3000) };
    external.data_source.machine = Some("this".into());
    let mut off = external.clone();
    off.alerts = Alerts::Off;
    let own = stack(Case { alerts: Some(true), ..Case::default() });
    let all = || Origin::ALL.into_iter();
    let origins = || all().flat_map(|a| all().flat_map(move |b| all().map(move |c| (a, b, c))));
    let others = others(&external);
    for (another, (source, dashboard, rules)) in others.iter().flat_map(|one| origins().map(move |all| (one, all))) {
        let origins = [source, dashboard, rules];
        let seen = |desired: &Stack| {
            let mut seen = whole_world().observe(&own, Case { alerts: Some(true), ..Case::default() });
            seen.grafana.response =
                ServerResponse::Answering(shared_grafana(desired, another, source, dashboard, rules).into());
            seen
        };
        let is_other = |origin: Origin| origin == Origin::Other;
        for overwrite_dashboard in [false, true] {
            let options = UpOptions { overwrite_dashboard, ..UpOptions::default() };
            let touches_edited =
                overwrite_dashboard && (dashboard == Origin::EditedOther || rules == Origin::EditedOther);
            let has_conflict = origins.into_iter().any(is_other) || source == Origin::EditedOther || touches_edited;
            let plan = plan::up(&external, &seen(&external), options);
            let conflict = plan.blocker().is_some_and(|(_, blocker)| blocker.kind == BlockReason::Conflict);
            assert_eq!(conflict, has_conflict, "{origins:?} {overwrite_dashboard}: {plan:?}");
            // A conflict never suggests that `up` resolves it, and names both targets.
            for item in &plan.items {
                let Finding::Blocked(blocker) = &item.finding else { continue };
                let names = |text: &str| blocker.why.contains(text);
                let both = names(&another.url) && (names("http://influxdb:8086") || names("another machine"));
                assert!(both && blocker.hint.contains("--move-data-source"), "{blocker:?}");
                // A command for the address of another machine would take its objects over.
                let takes_over =
                    blocker.hint.contains("up --data-source-url") || blocker.hint.contains("up --database");
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
                let is_unreadable = origins.contains(&Origin::Unreadable);
                assert_eq!(plan.unreadable().is_some(), is_unreadable, "{origins:?}: {plan:?}");
                assert!(!(is_unreadable && plan.in_sync()), "{origins:?}: {plan:?}");
                if source == Origin::Unreadable {
                    let writes = |step: &Step| {
                        matches!(step.resource(), Resource::Dashboard(_) | Resource::DataSource | Resource::Alerts)
                    };
                    assert!(!changes(plan, writes), "{origins:?}: {plan:?}");
                }
            }
        }
        if rules == Origin::Other {
            let plan = plan::up(&off, &seen(&off), UpOptions::default());
            assert!(!changes(&plan, |step| matches!(step, Step::DeleteAlertRules(_))), "{origins:?}: {plan:?}");
        }
        // Removed objects were all created for the stack's own database and not edited.
        let down = plan::deregister(&off, &seen(&off)).unwrap();
        let has_conflict = origins.into_iter().any(is_other) || source == Origin::EditedOther;
        assert_eq!(down.blocker().is_some(), has_conflict, "{origins:?}: {down:?}");
        let goes = |origin: Origin| matches!(origin, Origin::Own | Origin::Unnoted);
        let removes: [(Origin, IsStep); 3] = [
            (source, |step| matches!(step, Step::DeleteDataSource { .. })),
            (dashboard, |step| matches!(step, Step::DeleteDashboard { .. })),
            (rules, |step| matches!(step, Step::DeleteAlertRules(_))),
        ];
        for (origin, step_is) in removes {
            assert_eq!(changes(&down, step_is), goes(origin), "{origins:?}: {down:?}");
        }
    }
}

#[test]
fn proxy_settings_are_removed_only_if_grafana_reaches_the_container_directly() {
    let own = stack(Case::default());
    let mut external = own.clone();
    external.services.influxdb = Service::External { url: ServerUrl::http("influxdb", 8086) };
    let mut behind_proxy = own.clone();
    behind_proxy.data_source.is_url_chosen = true;
    let with_header = |seen: &mut Observed| {
        let ServerResponse::Answering(ServerContent::Grafana(grafana)) = &mut seen.grafana.response else {
            panic!("it answers")
        };
        let DataSourceState::Ours { fields, .. } = &mut grafana.data_source else { panic!("it is ours") };
        fields.insert(DesiredDataSource::OTHER_SETTINGS.into(), "httpHeaderName1".into());
    };
    let finding = |desired: &Stack| plan_with(desired, with_header).finding(Resource::DataSource).cloned();
    assert!(matches!(finding(&own), Some(Finding::Differs(_))));
    assert_eq!(finding(&external), Some(Finding::InSync));
    assert_eq!(finding(&behind_proxy), Some(Finding::InSync));
}

#[test]
fn an_edited_dashboard_is_kept_unless_overwriting_is_requested() {
    let desired = stack(Case::default());
    let mut seen = whole_world().observe(&desired, Case::default());
    let ServerResponse::Answering(ServerContent::Grafana(grafana)) = &mut seen.grafana.response else {
        panic!("it answers")
    };
    let DashboardState::Present(dashboard) = &mut grafana.dashboard else { panic!("it exists") };
    dashboard.edited = true;
    dashboard.stored = StoredVersion { id: Some(7), version: Some(3), ..StoredVersion::default() };
    let replaces = Some(Box::new(dashboard.clone()));
    let kept = plan::up(&desired, &seen, UpOptions::default());
    assert!(kept.in_sync() && kept.finding(Resource::Dashboard(DashboardId::Bundled)) == Some(&Finding::Edited));
    let options = UpOptions { overwrite_dashboard: true, ..UpOptions::default() };
    let replaced = plan::up(&desired, &seen, options);
    assert_eq!(
        steps(&replaced),
        [Step::SaveDashboard { id: DashboardId::Bundled, title: desired.dashboard.title.clone(), replaces }],
        "Grafana compares the version with its own"
    );
}

#[test]
fn an_older_grafana_never_starts_on_the_volume_of_a_newer_one() {
    let mut desired = stack(Case::default());
    if let Service::Container(spec) = &mut desired.services.grafana {
        spec.config.image = ImageRef::parse("grafana/grafana:1.1").unwrap();
    }
    // The volume's label, the running version, and the image of the existing container each show the version.
    let made_before = plan_with(&desired, |_| {});
    assert!(made_before.blocker().is_some(), "{made_before:?}");
    let after_down = plan_with(&desired, |seen| seen.grafana.container = ContainerState::Absent);
    assert!(after_down.blocker().is_some(), "{after_down:?}");
    let running = plan_with(&desired, |seen| {
        seen.grafana.volume = VolumeState::Ours { user: None, version: None, image: None };
        seen.grafana.version = Some("1.2.3".into());
    });
    assert!(running.blocker().is_some(), "{running:?}");
    // If none of them does, the volume's files do; without them, the container is removed to read the volume.
    let unknown = |content: Option<VolumeContent>| {
        plan_with(&desired, |seen| {
            seen.grafana.version = None;
            seen.grafana.volume = VolumeState::Ours { user: None, version: None, image: None };
            let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
            actual.config = None;
            seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
            seen.grafana.content = content;
        })
    };
    let ran = RanVersion { version: Version(1, LABEL), image: None, container: None };
    let files = VolumeFiles { ran: Some(ran), ..VolumeFiles::default() };
    assert!(unknown(Some(VolumeContent { files, copy: None })).blocker().is_some());
    let unread = unknown(None);
    assert_eq!(unread.until(), Phase::Trial, "{unread:?}");
    assert!(unread.executable().any(|step| *step == Step::RemoveContainer(Role::Grafana)), "{unread:?}");
}

/// Whether a plan is blocked for a stack with this image and a container created from another one.
fn blocked_on(image: &str, made_from: &str, change: impl FnOnce(&mut Observed)) -> bool {
    let mut desired = stack(Case::default());
    if let Service::Container(spec) = &mut desired.services.grafana {
        spec.config.image = ImageRef::parse(image).unwrap();
    }
    let plan = plan_with(&desired, |seen| {
        seen.grafana.volume = VolumeState::Ours { user: None, version: None, image: Some(made_from.into()) };
        seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
        let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
        actual.config.as_mut().unwrap().image = ImageRef::parse(made_from).unwrap();
        change(seen);
    });
    plan.blocker().is_some()
}

#[test]
fn a_tag_names_a_version_only_for_official_images_and_only_if_the_server_does_not() {
    let stopped = |seen: &mut Observed| {
        seen.grafana.version = None;
        seen.grafana.response = ServerResponse::Unasked;
        let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
        actual.run = RunState::Exited(0);
    };
    let running = |version: &'static str| move |seen: &mut Observed| seen.grafana.version = Some(version.into());
    // Tags of users' own images follow no rule.
    assert!(!blocked_on("corp/grafana:1.1", "corp/grafana:1.0", running("12.4.10")));
    assert!(!blocked_on("corp/grafana:1.0", "corp/grafana:1.1", stopped));
    assert!(!blocked_on("grafana/grafana:12.4.10", "corp/grafana:2025.11", running("12.4.10")));
    assert!(!blocked_on("grafana/grafana:12.4.10", "corp/grafana:2025.11", stopped));
    assert!(!blocked_on("corp/grafana:1.0", "grafana/grafana:12.4.10", stopped));
    // The version reported by the server counts for every image.
    assert!(blocked_on("grafana/grafana:12.4.10", "corp/grafana:1.0", running("13.2.3")));
    // A tag that the server contradicts does not count.
    assert!(!blocked_on("grafana/grafana:12.4.10", "grafana/grafana:99.0.0", running("12.4.3")));
    let own = ["m.example/team/grafana/grafana:1.1", "m.example/team/grafana/grafana:1.0"];
    assert!(!blocked_on(own[0], own[1], running("12.4.10")), "the server contradicts this repository's tags");
    // Official images in a mirror count as official.
    assert!(blocked_on("grafana/grafana:12.4.10", "m.example/hub/grafana/grafana:13.2.3", stopped));
    assert!(blocked_on("m.example/hub/grafana/grafana:12.4.10", "grafana/grafana:13.2.3", stopped));
}

#[test]
fn another_image_is_recorded_before_it_starts_and_after_its_answer() {
    let mut desired = stack(Case::default());
    if let Service::Container(spec) = &mut desired.services.grafana {
        spec.config.image = ImageRef::parse("grafana/grafana:1.3").unwrap();
    }
    let plan = steps(&plan_with(&desired, |seen| {
        seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
    }));
    let at = |step: Step| plan.iter().positions_of(step);
    let image = ImageRef::parse("grafana/grafana:1.3").unwrap();
    let recorded = at(Step::WriteIntendedVersion { version: Version(1, 3), image: image.clone() });
    let started = at(Step::StartContainer(Role::Grafana));
    assert_eq!((recorded.len(), started.len()), (1, 1), "{plan:?}");
    assert!(recorded[0] < started[0], "{plan:?}");
    let answers = steps(&plan_with(&desired, |seen| {
        seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
        seen.grafana.version = Some("1.3.0".into());
        let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
        (actual.config.as_mut().unwrap().image, actual.image_id) = (image.clone(), "another".into());
        seen.grafana.content = Some(VolumeContent::default());
    }));
    assert_eq!(answers, [Step::WriteVersion { version: Version(1, 3), image }]);
}

/// The index of a step in a list.
trait Positions<'a> {
    fn positions_of(self, step: Step) -> Vec<usize>;
}

impl<'a, I: Iterator<Item = &'a Step>> Positions<'a> for I {
    fn positions_of(self, step: Step) -> Vec<usize> {
        self.enumerate().filter(|(_, one)| **one == step).map(|(index, _)| index).collect()
    }
}

#[test]
fn roles_that_swap_ports_release_both_before_either_uses_one() {
    let mut desired = stack(Case::default());
    for (service, port) in [(&mut desired.services.influxdb, 3000), (&mut desired.services.grafana, 8086)] {
        if let Service::Container(spec) = service {
            spec.config.publish.set_port(port);
        }
    }
    let plan = plan_with(&desired, |seen| {
        seen.influxdb.port_holder = Some(PortHolder::OtherRole(Role::Grafana));
        seen.grafana.port_holder = Some(PortHolder::OtherRole(Role::Influxdb));
        seen.grafana.content = Some(VolumeContent::default());
    });
    assert!(plan.blocker().is_none(), "{plan:?}");
    let [order, _] = orders(&plan);
    for role in Role::ALL {
        let at = |one: Step| order.iter().position(|(_, step)| *step == one).unwrap();
        assert_eq!(order[at(Step::RemoveContainer(role))].0, Phase::Release, "{plan:?}");
        for other in Role::ALL {
            assert!(at(Step::RemoveContainer(role)) < at(Step::StartContainer(other)), "{plan:?}");
        }
    }
}

#[test]
fn a_container_is_removed_once_its_external_replacement_has_answered() {
    let mut desired = stack(Case::default());
    desired.services.influxdb = Service::External { url: clipper_metrics::model::address::ServerUrl::http("db", 8086) };
    let answering = plan_with(&desired, |_| {});
    assert_eq!(steps(&answering), [Step::RemoveContainer(Role::Influxdb)]);
    let silent = plan_with(&desired, |seen| seen.influxdb.response = ServerResponse::Silent("down".into()));
    assert!(silent.blocker().is_some() && !steps(&silent).contains(&Step::RemoveContainer(Role::Influxdb)));
    // If both servers are external, the network is removed as well.
    desired.services.grafana = desired.services.influxdb.clone();
    let both = steps(&plan_with(&desired, |_| {}));
    assert!(both.contains(&Step::RemoveNetwork) && both.contains(&Step::RemoveContainer(Role::Grafana)), "{both:?}");
    let used = plan_with(&desired, |seen| seen.network_users = vec!["a".into(), "b".into()]);
    assert!(!steps(&used).contains(&Step::RemoveNetwork), "{used:?}");
    let kept = used.kept().next().unwrap();
    assert_eq!(kept.why, "network x is kept: the containers a and b are still attached to it");
    assert_eq!(
        kept.hint,
        "`docker network disconnect x a && docker network disconnect x b && docker network rm x` removes it"
    );
}

fn lost(unknown: &[&'static str]) -> Lost {
    let unknown = unknown.iter().map(|option| UnknownSetting {
        option,
        value_name: "NAME",
        is_server: *option != "database",
        is_flag: false,
        stored: None,
    });
    Lost { cause: Loss::Gone, unknown: unknown.collect() }
}

/// A complete world whose settings call both servers external, with every kind of answer.
fn said_to_be_external() -> (Stack, Vec<Observed>) {
    let mut desired = stack(Case::default());
    desired.services.influxdb = Service::External { url: clipper_metrics::model::address::ServerUrl::http("db", 8086) };
    desired.services.grafana = Service::External { url: clipper_metrics::model::address::ServerUrl::http("g", 3000) };
    let seen = whole_world().observe(&stack(Case::default()), Case::default());
    let influxdb = [
        seen.influxdb.response.clone(),
        ServerResponse::Unasked,
        ServerResponse::Starting("soon".into()),
        ServerResponse::Silent("down".into()),
        ServerResponse::Refusing("no".into()),
    ];
    let all = influxdb.into_iter().map(|response| {
        let mut seen = seen.clone();
        seen.grafana.response = if matches!(response, ServerResponse::Answering(_)) {
            seen.grafana.response
        } else {
            ServerResponse::Unasked
        };
        seen.influxdb.response = response;
        seen
    });
    (desired, all.collect())
}

#[test]
fn a_managed_container_is_not_an_external_server_and_nothing_is_changed() {
    let (desired, worlds) = said_to_be_external();
    for seen in worlds {
        for (role, is_own, runs) in Role::ALL
            .into_iter()
            .flat_map(|role| [(role, true, true), (role, false, true), (role, true, false), (role, false, false)])
        {
            let (instance, container) = (if is_own { "x" } else { "y" }.to_string(), "c".to_string());
            let managed = Some(ManagedServer { container, instance, is_own, runs });
            let mut seen = seen.clone();
            let is_silent = matches!(seen.server(role).response, ServerResponse::Silent(_));
            seen.server_mut(role).managed_behind = managed;
            let plan = plan::up(&desired, &seen, UpOptions::default());
            let blocker =
                plan.items.iter().find(|item| item.resource == Resource::Server(role)).map(|item| &item.finding);
            let expected = match (is_own, runs) {
                (_, true) => true,
                // Another server may have the address of a stopped container.
                (true, false) => is_silent,
                (false, false) => false,
            };
            let is_refused =
                matches!(blocker, Some(Finding::Blocked(blocker)) if blocker.kind == plan::BlockReason::Settings);
            assert_eq!(is_refused, expected, "{role} {is_own} {runs}: {plan:?}");
            for volumes in [false, true] {
                let down = plan::down(&desired, &seen, volumes);
                assert_eq!(down.blocker().is_some(), is_own && runs, "{role} {is_own} {runs}: {down:?}");
            }
        }
    }
}

#[test]
fn lost_settings_must_be_supplied_if_they_cannot_be_derived() {
    let mut desired = stack(Case::default());
    let settings = desired.settings.as_mut().unwrap();
    settings.lost = Some(lost(&["database"]));
    let plan = plan_with(&desired, |seen| seen.settings = StoredSettings::default());
    let (resource, blocker) = plan.blocker().unwrap();
    assert_eq!((resource, blocker.kind), (Resource::Settings, plan::BlockReason::Settings));
    assert!(blocker.hint.contains("up --database NAME"), "{}", blocker.hint);
    desired.settings.as_mut().unwrap().lost = Some(lost(&[]));
    let plan = plan_with(&desired, |seen| seen.settings = StoredSettings::default());
    let values = desired.settings.unwrap().values;
    assert_eq!(steps(&plan), [Step::SaveSettings { values, keeps_retention: false }]);
}

#[test]
fn settings_are_saved_after_preparations_and_before_container_changes() {
    let mut desired = stack(Case { given: Some(GIVEN), ..Case::default() });
    desired.settings = Some(Settings::default());
    let stopped = |seen: &mut Observed| {
        seen.settings.values.as_mut().unwrap().clear();
        seen.settings
            .values
            .as_mut()
            .unwrap()
            .insert("registry".into(), Remembered { value: "r".into(), from_file: true });
        let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
        actual.run = RunState::Exited(0);
        seen.grafana.response = ServerResponse::Unasked;
        seen.grafana.content = Some(VolumeContent::default());
    };
    let plan = plan_with(&desired, stopped);
    assert_eq!(plan.until(), Phase::Trial, "the answer decides the next plan");
    let order = steps(&plan);
    let at = |step| order.iter().position(|one| *one == step).unwrap();
    let saved = at(Step::SaveSettings { values: BTreeMap::new(), keeps_retention: false });
    assert!(at(Step::TryLogin(Credential::Supplied)) < saved, "{order:?}");
    assert!(saved < at(Step::RemoveContainer(Role::Grafana)), "{order:?}");
}

#[test]
fn without_the_engines_loopback_nothing_unverified_is_published() {
    let mut desired = stack(Case { open: true, ..Case::default() });
    desired.engine = EngineLocation::Elsewhere("far".into());
    // A container that is not started is used to see whether the volume contains data.
    let plan = plan_with(&desired, |seen| seen.grafana.container = ContainerState::Absent);
    let is_private = |step: &Step| matches!(step, Step::CreateContainer(new) if new.usage == ContainerUse::Login);
    assert!(plan.executable().any(is_private), "{plan:?}");
    assert!(!plan.executable().any(|step| *step == Step::StartContainer(Role::Grafana)), "{plan:?}");
    let made = |has_data: bool| {
        plan_with(&desired, |seen| {
            let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
            (actual.run, actual.has_data) = (RunState::Created, Some(has_data));
            seen.grafana.response = ServerResponse::Unasked;
        })
    };
    assert_eq!(made(true).blocker().map(|(_, blocker)| blocker.kind), Some(plan::BlockReason::Unverifiable));
    let empty = made(false);
    assert!(empty.blocker().is_none(), "{empty:?}");
    assert!(self::steps(&empty).contains(&Step::WriteFirstPassword(Credential::Generated)), "{empty:?}");
    // A stopped container that was verified when it was created is started unchanged, and the login
    // is tried on it.
    (desired.login.is_untried, desired.login.supplies_password) = (true, true);
    let stopped = plan_with(&desired, |seen| {
        let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
        actual.run = RunState::Exited(0);
        actual.config = Some(desired.container(Role::Grafana).unwrap().config.clone());
        seen.grafana.response = ServerResponse::Unasked;
    });
    let order = self::steps(&stopped);
    let at = |step| order.iter().position(|one| *one == step);
    assert!(at(Step::StartContainer(Role::Grafana)) < at(Step::TryLogin(Credential::Supplied)), "{stopped:?}");
    assert!(at(Step::TryLogin(Credential::Supplied)).is_some() && stopped.blocker().is_none(), "{stopped:?}");
    (desired.login.is_untried, desired.login.supplies_password) = (false, false);
    // On a new volume, there is nothing to verify.
    let plan = plan_with(&desired, |seen| {
        seen.grafana.container = ContainerState::Absent;
        seen.grafana.volume = VolumeState::Absent;
    });
    assert!(plan.blocker().is_none(), "{plan:?}");
}

/// A running private Grafana, to be published off loopback.
fn private_plan(user: &str, change: impl FnOnce(&mut Observed)) -> Plan {
    let mut desired = stack(Case { open: true, ..Case::default() });
    desired.login.user = user.into();
    plan_with(&desired, |seen| {
        let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
        actual.config.as_mut().unwrap().publish.set_port(0);
        actual.published = Some(([127, 0, 0, 1], 32_000).into());
        seen.grafana.content = Some(VolumeContent::default());
        change(seen);
    })
}

#[test]
fn no_account_with_the_default_password_is_published() {
    let login = |account, has_default_password, default_login| LoginState {
        accepted: Some(Credential::Default),
        account,
        has_default_password,
        default_login,
        ..LoginState::default()
    };
    // The account boss was created instead of admin, so admin/admin is rejected.
    let boss =
        private_plan("boss", |seen| seen.grafana.login = login(SignedInAccount::Other, true, DefaultLogin::Rejected));
    let (_, blocker) = boss.blocker().expect("anyone can sign in as boss");
    assert!(blocker.kind == BlockReason::Settings && blocker.why.contains("account boss"), "{blocker:?}");
    let own =
        private_plan("boss", |seen| seen.grafana.login = login(SignedInAccount::Other, false, DefaultLogin::Rejected));
    assert!(own.blocker().is_none() && changes(&own, |step| matches!(step, Step::CreateContainer(_))), "{own:?}");
    for (default_login, kind) in
        [(DefaultLogin::Accepted, BlockReason::Settings), (DefaultLogin::Unverifiable, BlockReason::Unverifiable)]
    {
        let plan =
            private_plan("boss", |seen| seen.grafana.login = login(SignedInAccount::Other, false, default_login));
        assert_eq!(plan.blocker().map(|(_, blocker)| blocker.kind), Some(kind), "{plan:?}");
    }
    // A private Grafana that is slow to answer is not created again.
    let slow = private_plan("admin", |seen| {
        seen.grafana.response = ServerResponse::Silent("slow".into());
        let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
        actual.has_just_started = true;
    });
    assert_eq!(slow.executable().collect::<Vec<_>>(), [&Step::AwaitAnswer(Role::Grafana)], "{slow:?}");
}

#[test]
fn a_server_that_is_older_than_its_database_is_a_failed_server() {
    let desired = stack(Case::default());
    let ran = |version| Some(RanVersion { version: Version(1, version), image: None, container: None });
    // The label names the running version: a later upgrade is recorded in the file only.
    for label in [LABEL, LABEL - 1] {
        let plan = plan_with(&desired, |seen| {
            let files = VolumeFiles { ran: ran(LABEL + 1), ..VolumeFiles::default() };
            seen.grafana.content = Some(VolumeContent { files, copy: None });
            seen.grafana.volume = VolumeState::Ours { user: None, version: Some(Version(1, label)), image: None };
        });
        let (_, blocker) = plan.blocker().unwrap();
        assert_eq!(blocker.kind, BlockReason::Server, "the rollback depends on it: {blocker:?}");
    }
}

#[test]
fn options_survive_a_plan_that_prepares_the_next_one() {
    let desired = stack(Case { given: Some(GIVEN), ports: Some([8086, 4000]), ..Case::default() });
    let options = UpOptions { pull: true, overwrite_dashboard: true, reset_password: true, ..UpOptions::default() };
    let plan = |change: &dyn Fn(&mut OurContainer)| {
        let mut seen = whole_world().observe(&self::stack(Case::default()), Case::default());
        let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
        change(actual);
        seen.grafana.response = ServerResponse::Silent("starting".into());
        plan::up(&desired, &seen, options)
    };
    let paused = plan(&|actual| actual.run = RunState::Paused);
    assert!(paused.executable().any(|step| *step == Step::PullImage(Role::Grafana)), "{paused:?}");
    let next = options.after(&paused);
    assert!(!next.pull && next.overwrite_dashboard && next.reset_password, "{next:?}");
}

#[test]
fn a_start_that_did_not_happen_is_withdrawn_with_its_container() {
    let desired = stack(Case::default());
    let unstarted = |seen: &mut Observed| {
        let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
        actual.run = RunState::Created;
        let container = Some(actual.id.clone());
        let intended = Some(RanVersion { version: Version(1, LABEL + 1), image: None, container });
        let files = VolumeFiles { intended, ..VolumeFiles::default() };
        seen.grafana.content = Some(VolumeContent { files, copy: None });
    };
    let both = [Step::ClearIntendedVersion, Step::RemoveContainer(Role::Grafana)];
    let mut seen = whole_world().observe(&desired, Case::default());
    unstarted(&mut seen);
    assert!(steps(&plan::down(&desired, &seen, false)).starts_with(&both));
    let create = plan_with(&desired, |seen| seen.grafana.container = ContainerState::Absent);
    let created = steps(&create).into_iter().take_while(|step| *step != Step::StartContainer(Role::Grafana));
    let created: Vec<Step> = created.collect();
    assert_eq!(steps(&plan::withdraw(&seen, created.iter()).unwrap()), both);
    let started = [created, vec![Step::StartContainer(Role::Grafana)]].concat();
    assert!(plan::withdraw(&seen, started.iter()).is_none() && plan::withdraw(&seen, [].iter()).is_none());
    let mut external = desired.clone();
    external.services.grafana = Service::External { url: ServerUrl::http("g", 3000) };
    let replaced = plan_with(&external, unstarted);
    assert!(steps(&replaced).windows(2).any(|pair| pair == both), "{replaced:?}");
}

#[test]
fn an_unreadable_volume_is_a_finding_and_nothing_is_removed() {
    let desired = stack(Case { open: true, ..Case::default() });
    let plan = plan_with(&desired, |seen| seen.grafana.unreadable = Some("it is a link".into()));
    let (resource, blocker) = plan.blocker().unwrap();
    assert_eq!(resource, Resource::Server(Role::Grafana));
    assert!(blocker.why.contains("x-grafana: it is a link"), "{blocker:?}");
}

#[test]
fn a_start_that_may_have_happened_is_recorded_before_another_is_announced() {
    let case = Case { upgrade: true, ..Case::default() };
    let desired = stack(case);
    let image = |version| case.image(Role::Grafana, version);
    let ran = |version, container: &str| RanVersion {
        version: Version(1, version),
        image: Some(image(version).to_string()),
        container: Some(container.into()),
    };
    let start = |announced: &dyn Fn(&OurContainer) -> RanVersion| {
        let plan = plan_with(&desired, |seen| {
            let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
            actual.run = RunState::Created;
            actual.config.as_mut().unwrap().image = image(LABEL + 1);
            let intended = Some(announced(actual));
            let files = VolumeFiles { ran: Some(ran(LABEL - 1, "gone")), intended, ..VolumeFiles::default() };
            seen.grafana.content = Some(VolumeContent { files, copy: None });
        });
        let steps = steps(&plan).into_iter();
        steps.filter(|step| matches!(step, Step::WriteVersion { .. } | Step::WriteIntendedVersion { .. })).collect()
    };
    let announce = Step::WriteIntendedVersion { version: Version(1, LABEL + 1), image: image(LABEL + 1) };
    let record = Step::WriteVersion { version: Version(1, LABEL), image: image(LABEL) };
    let steps: Vec<Step> = start(&|_| ran(LABEL, "gone"));
    assert_eq!(steps, [record, announce.clone()]);
    let steps: Vec<Step> = start(&|actual| ran(LABEL, &actual.id));
    assert_eq!(steps, std::slice::from_ref(&announce), "the waiting container was not started");
    let untagged =
        RanVersion { version: Version(99, 0), image: Some("grafana/grafana:latest".into()), container: None };
    let steps: Vec<Step> = start(&|_| untagged.clone());
    assert_eq!(steps, [announce], "the tag of that image names no version");
}

#[test]
fn only_a_start_that_failed_before_grafana_ran_withdraws_its_announcement() {
    let start = Step::StartContainer(Role::Grafana);
    let withdrawn = |step: &Step, cause| plan::withdraw_announcement(Some(step), cause).map(|plan| steps(&plan));
    assert_eq!(withdrawn(&start, FailureCause::Unpublished), Some(vec![Step::ClearIntendedVersion]));
    assert_eq!(withdrawn(&start, FailureCause::NotReady), None);
    assert_eq!(withdrawn(&Step::StartContainer(Role::Influxdb), FailureCause::Unpublished), None);
    assert_eq!(withdrawn(&Step::AwaitAnswer(Role::Grafana), FailureCause::Unpublished), None);
}

#[test]
fn a_new_image_is_not_judged_while_the_organisation_is_unreadable() {
    let case = Case { upgrade: true, ..Case::default() };
    let desired = Stack { organisation: Some("Team".into()), ..stack(case) };
    let proves = |organisation: OrganisationState| {
        let plan = plan_with(&desired, |seen| {
            let ContainerState::Ours(actual) = &mut seen.grafana.container else { panic!("it is ours") };
            actual.config.as_mut().unwrap().image = case.image(Role::Grafana, LABEL + 1);
            seen.settings.upgrade = Some(case.recorded_upgrade(UpgradeState::Unproven));
            let state = GrafanaState { organisation, ..grafana_state() };
            seen.grafana.response = ServerResponse::Answering(ServerContent::from(state));
        });
        plan.steps().any(|(step, _)| matches!(step, Step::ProveDashboard { .. } | Step::DeleteDatabaseCopy))
    };
    let unreadable = Unreadable { doing: "look it up".into(), status: 403, why: "it belongs to others".into() };
    assert!(!proves(OrganisationState::Unreadable(unreadable)));
    assert!(proves(OrganisationState::Present));
}

#[test]
fn what_cannot_be_read_in_grafana_ends_no_plan_early() {
    let mut desired = stack(Case::default());
    desired.services.grafana = Service::External { url: ServerUrl::http("g", 3000) };
    desired.services.influxdb = Service::External { url: ServerUrl::http("i", 8086) };
    desired.organisation = Some("Team".into());
    let plan = plan_with(&desired, |seen| {
        seen.influxdb.container = ContainerState::Absent;
        seen.grafana.container = ContainerState::Absent;
        let unreadable = Unreadable { doing: "look it up".into(), status: 500, why: "it is broken".into() };
        let organisation = OrganisationState::Unreadable(unreadable);
        seen.grafana.response =
            ServerResponse::Answering(ServerContent::from(GrafanaState { organisation, ..grafana_state() }));
    });
    assert!(plan.executable().any(|step| *step == Step::RemoveNetwork), "{plan}");
}
