//! The stack and the observed state of an instance `x`, which tests change. Unit tests of the library include this file
//! as well, so that a new field touches one literal.

#![allow(dead_code, reason = "unit tests and integration tests use different parts")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use clipper_metrics::model::alerts::Alerts;
use clipper_metrics::model::container_config::{ContainerConfig, PasswordSource};
use clipper_metrics::model::image::ImageRef;
use clipper_metrics::model::invocation::Invocation;
use clipper_metrics::model::login::LoginState;
use clipper_metrics::model::observed::{
    ActualDashboard, AlertRulesState, ContainerState, DashboardState, DataSourceState, FolderState, GrafanaState,
    Network, Observed, ObservedServer, OrganisationState, OurContainer, Query, RunState, ServerResponse,
    StoredSettings, StoredVersion, VolumeState,
};
use clipper_metrics::model::role::{PerRole, Role};
use clipper_metrics::model::stack::{
    DesiredContainer, DesiredDashboard, DesiredDataSource, EngineLocation, Login, Pull, Service, Settings, Stack,
};

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
        refused_image: None,
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
        provisioned: false,
        content_hash: Some(content_hash.into()),
        objective: None,
        models: vec![],
        made_for: None,
    }
}
