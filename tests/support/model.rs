//! The stack and the observed state of an instance `x`, which tests change. Unit tests of the library include this file
//! as well, so that a new field touches one literal.

#![allow(dead_code, reason = "unit tests and integration tests use different parts")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use clipper_metrics::model::address::ServerUrl;
use clipper_metrics::model::alerts::{AlertSettings, Alerts};
use clipper_metrics::model::container_config::{ContainerConfig, PasswordSource};
use clipper_metrics::model::image::ImageRef;
use clipper_metrics::model::invocation::Invocation;
use clipper_metrics::model::login::{Attempt, Credential, LoginState};
use clipper_metrics::model::observed::{
    ActualDashboard, AlertRulesState, ContainerState, DashboardState, DataSourceState, FolderState, GrafanaState,
    Image, InfluxdbState, Network, Observed, ObservedServer, OrganisationState, OurContainer, Query, RunState,
    ServerContent, ServerResponse, StoredSettings, StoredVersion, Unreadable, VolumeState,
};
use clipper_metrics::model::plan::{self, Plan, Step, UpOptions};
use clipper_metrics::model::retention::Retention;
use clipper_metrics::model::role::{PerRole, Role};
use clipper_metrics::model::stack::{
    DesiredContainer, DesiredDashboard, DesiredDataSource, EngineLocation, Login, Pull, Remembered, Secret, Service,
    Settings, Stack,
};
use clipper_metrics::model::version::Version;
use clipper_metrics::model::volume_content::{RanVersion, VolumeContent, VolumeFiles};

/// Two containers on loopback, with all defaults and no settings to remember.
pub(crate) fn stack() -> Stack {
    Stack {
        instance: "x".into(),
        services: PerRole::from_fn(|role| Service::Container(Box::new(desired_container(role)))),
        database: "d".into(),
        retention: None,
        organisation: None,
        folder: None,
        data_source: data_source(),
        dashboard: dashboard(),
        user_dashboards: vec![],
        unreadable_dashboards: vec![],
        default_image: "grafana:1".into(),
        restore: None,
        failed_image: None,
        alerts: Alerts::NotManaged,
        login: Login { user: "admin".into(), uses_token: false, supplies_password: false, is_untried: false },
        settings: Some(Settings::default()),
        pull: Pull::Missing,
        timeout: Duration::from_secs(1),
        engine: EngineLocation::Here,
        clipper: None,
        invocation: Invocation::default(),
        own_address: None,
    }
}

/// Remembered settings that no file supplied.
pub(crate) fn remembered(all: &[(&str, &str)]) -> BTreeMap<String, Remembered> {
    let remembered = |value: &str| Remembered { value: value.into(), from_file: false };
    all.iter().map(|(name, value)| ((*name).to_string(), remembered(value))).collect()
}

/// The stack with Grafana published off loopback.
pub(crate) fn stack_off_loopback() -> Stack {
    let mut stack = stack();
    let config = config_of(&mut stack, Role::Grafana);
    config.publish.set_ip(Ipv4Addr::UNSPECIFIED.into());
    config.password = PasswordSource::File;
    stack
}

pub(crate) fn external(host: &str, port: u16) -> Service {
    Service::External { url: ServerUrl::http(host, port) }
}

/// The configuration of the role's container.
pub(crate) fn config_of(stack: &mut Stack, role: Role) -> &mut ContainerConfig {
    let service = match role {
        Role::Influxdb => &mut stack.services.influxdb,
        Role::Grafana => &mut stack.services.grafana,
    };
    match service {
        Service::Container(spec) => &mut spec.config,
        Service::External { .. } => panic!("{role} is external"),
    }
}

pub(crate) fn desired_container(role: Role) -> DesiredContainer {
    let config = container_config(role);
    DesiredContainer { role, name: role.object_name("x"), config, engine_host: None, pinned_image: None }
}

pub(crate) fn container_config(role: Role) -> ContainerConfig {
    let image = match role {
        Role::Influxdb => "influxdb:1.2.0",
        Role::Grafana => "grafana/grafana:1.2.0",
    };
    ContainerConfig {
        image: ImageRef::parse(image).unwrap(),
        publish: (Ipv4Addr::LOCALHOST, role.port()).into(),
        network: "x".into(),
        volume: role.object_name("x"),
        read_only: true,
        password: PasswordSource::Default,
        host_gateway: false,
        environment: BTreeMap::new(),
    }
}

pub(crate) fn data_source() -> DesiredDataSource {
    DesiredDataSource {
        uid: "x".into(),
        name: "X".into(),
        url: "http://influxdb:8086".into(),
        is_url_chosen: false,
        database: "d".into(),
        user: String::new(),
        machine: None,
    }
}

pub(crate) fn dashboard() -> DesiredDashboard {
    DesiredDashboard { uid: "x".into(), title: "X".into(), content_hash: "new".into(), objective: None, models: None }
}

/// An engine without the instance.
pub(crate) fn observed() -> Observed {
    Observed {
        time: 1,
        engine: None,
        network: Network::Free,
        network_users: vec![],
        settings: StoredSettings::default(),
        influxdb: observed_server(),
        grafana: observed_server(),
        others: vec![],
        lookalikes: vec![],
        address_checks: vec![],
    }
}

/// The instance in sync with [`stack`].
pub(crate) fn in_sync() -> Observed {
    let influxdb = InfluxdbState { has_database: true, retention: Some(Retention::Forever) };
    let source = data_source();
    let grafana = GrafanaState {
        data_source: DataSourceState::Ours { fields: source.fields(), made_for: source.made_for(), provisioned: false },
        dashboard: DashboardState::Present(actual_dashboard("new")),
        query: Query::Ok,
        ..grafana_state()
    };
    let accepted = Attempt { credential: Credential::Default, secret: Secret::new(Login::PUBLIC_PASSWORD) };
    let login = LoginState::new(&stack().login, &accepted, Some(&our_container(Role::Grafana)), None);
    Observed {
        network: Network::Ours(vec!["1".into()]),
        settings: StoredSettings { numbers: vec![1], values: Some(BTreeMap::new()), ..StoredSettings::default() },
        influxdb: answering_server(Role::Influxdb, influxdb.into()),
        grafana: ObservedServer { login, ..answering_server(Role::Grafana, grafana.into()) },
        ..observed()
    }
}

/// The plan for that instance after a change.
pub(crate) fn plan_with(stack: &Stack, change: impl FnOnce(&mut Observed)) -> Plan {
    let mut seen = in_sync();
    change(&mut seen);
    plan::up(stack, &seen, UpOptions::default())
}

pub(crate) fn steps(plan: &Plan) -> Vec<Step> {
    plan.steps().map(|(step, _)| step.clone()).collect()
}

/// The role's container, which must be managed.
pub(crate) fn container_of(seen: &mut Observed, role: Role) -> &mut OurContainer {
    match &mut seen.server_mut(role).container {
        ContainerState::Ours(actual) => actual,
        other => panic!("{role}: {other:?}"),
    }
}

/// Grafana's content, which must be known.
pub(crate) fn content_of(seen: &mut Observed) -> &mut GrafanaState {
    match &mut seen.grafana.response {
        ServerResponse::Answering(ServerContent::Grafana(content)) => content,
        other => panic!("{other:?}"),
    }
}

/// A run ended after it had created Grafana's container and recorded the newer version that was to start in it.
pub(crate) fn intend_start(seen: &mut Observed) {
    let actual = container_of(seen, Role::Grafana);
    actual.run = RunState::Created;
    let container = Some(actual.id.clone());
    let intended = Some(RanVersion { version: Version(1, 3), image: None, container });
    let files = VolumeFiles { intended, ..VolumeFiles::default() };
    seen.grafana.content = Some(VolumeContent { files, copy: None });
}

/// A role whose container runs and answers.
fn answering_server(role: Role, content: ServerContent) -> ObservedServer {
    let (actual, image) = (our_container(role), Some(container_config(role).image.to_string()));
    ObservedServer {
        image: Some(Image { id: actual.image_id.clone(), user: String::new() }),
        volume: VolumeState::Ours { user: Some(String::new()), version: Some(Version(1, 2)), image },
        container: ContainerState::Ours(Box::new(actual)),
        response: ServerResponse::Answering(content),
        version: Some("1.2.0".into()),
        ..observed_server()
    }
}

/// A role without image, volume and container.
pub(crate) fn observed_server() -> ObservedServer {
    ObservedServer {
        image: None,
        volume: VolumeState::Absent,
        container: ContainerState::Absent,
        port_holder: None,
        volume_user: None,
        volume_users: vec![],
        free_port: None,
        managed_behind: None,
        response: ServerResponse::Unasked,
        version: None,
        login: LoginState::default(),
        content: None,
        unreadable: None,
        last_image: None,
    }
}

/// The running container of a role.
pub(crate) fn our_container(role: Role) -> OurContainer {
    OurContainer {
        id: "1".into(),
        name: role.object_name("x"),
        name_taken: false,
        config: Some(container_config(role)),
        image_id: "2".into(),
        on_network: true,
        run: RunState::Running,
        crashes_repeatedly: false,
        has_just_started: false,
        started_at: None,
        published: None,
        has_data: None,
    }
}

/// A Grafana without the instance's objects.
pub(crate) fn grafana_state() -> GrafanaState {
    GrafanaState {
        organisation: OrganisationState::Present,
        organisation_id: None,
        chosen: None,
        folder: FolderState::NotConfigured,
        data_source: DataSourceState::Missing,
        has_default_source: false,
        has_home: false,
        dashboard: DashboardState::Missing,
        user_dashboards: vec![],
        alerts: AlertRulesState::NotRead,
        query: Query::Unasked,
        catalogue: None,
    }
}

/// An unedited dashboard that was created from this version of its file.
pub(crate) fn actual_dashboard(content_hash: &str) -> ActualDashboard {
    ActualDashboard {
        stored: StoredVersion::default(),
        edited: false,
        unrecorded: false,
        provisioned: false,
        content_hash: Some(content_hash.into()),
        objective: None,
        models: vec![],
        made_for: None,
    }
}

pub(crate) fn alert_settings(content_hash: &str) -> AlertSettings {
    let (latency_after, silence_after) = (Duration::from_secs(30), Duration::from_secs(60));
    AlertSettings { latency_after, silence_after, content_hash: content_hash.into() }
}

/// Grafana's failure to return an object.
pub(crate) fn unreadable() -> Unreadable {
    Unreadable { doing: "read it".into(), status: 500, why: "broken".into() }
}
