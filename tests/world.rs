//! A model of engine, InfluxDB and Grafana: a world is the real state. It is observed as the program observes it, and
//! executes one step as the real systems do. A violated precondition is a failure.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clipper_metrics::model::address::collide;
use clipper_metrics::model::alerts::{AlertRule, AlertSettings, Alerts};
use clipper_metrics::model::container_config::{ContainerConfig, PasswordSource};
use clipper_metrics::model::image::ImageRef;
use clipper_metrics::model::last_run::image_to_look_up;
use clipper_metrics::model::login::{
    Attempt, Credential, DefaultLogin, LoginAttempts, LoginState, NextLogin, next_login,
};
use clipper_metrics::model::observed::{
    ActualAlerts, ActualDashboard, ActualRule, AddressCheck, AlertFolder, AlertRulesState, ContainerState,
    DashboardState, DataSourceState, GrafanaState, Image, InfluxdbState, Network, Observed, ObservedServer,
    OurContainer, PortHolder, Query, RunState, ServerContent, ServerResponse, StoredSettings, VolumeState,
};
use clipper_metrics::model::plan::{self, ContainerUse, NewContainer, Phase, Plan, Step};
use clipper_metrics::model::retention::Retention;
use clipper_metrics::model::role::{PerRole, Role};
use clipper_metrics::model::stack::{
    DashboardId, DesiredContainer, DesiredDashboard, DesiredUserDashboard, Login, MadeFor, Remembered, Secret, Service,
    Settings, Stack, UnfinishedRestore,
};
use clipper_metrics::model::upgrade::{NamedImage, Upgrade, UpgradeState};
use clipper_metrics::model::version::Version;
use clipper_metrics::model::volume_content::{RanVersion, VolumeContent, VolumeFiles};

use crate::support::model;
pub(crate) use crate::support::model::steps;

pub const RUNS: [RunState; 6] =
    [RunState::Created, RunState::Running, RunState::Paused, RunState::Restarting, RunState::Exited(1), RunState::Dead];

/// Passwords by number: Grafana's default, the one of an earlier run, the one that an earlier run was setting when it
/// died, the supplied one, and the generated one.
pub type Password = u8;
pub const DEFAULT: Password = 0;
pub const OLD: Password = 1;
pub const PENDING: Password = 2;
pub const GIVEN: Password = 3;
pub const NEW: Password = 4;

/// A container's configuration, compared with the desired one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spec {
    Right,
    Wrong,
    Unreadable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelContainer {
    pub spec: Spec,
    /// Whether it is attached to the network that is kept.
    pub on_network: bool,
    pub run: RunState,
    pub password: PasswordSource,
    /// Whether it is published off loopback.
    pub open: bool,
    /// The published port; 0 means a port chosen by the engine, where only the run that created the
    /// container looks.
    pub port: u16,
    /// The version of its image.
    pub version: u64,
    /// Whether it was created in this round.
    pub is_new: bool,
}

impl ModelContainer {
    /// The container of a first `up`.
    pub const fn running(role: Role) -> Self {
        let (spec, run, password) = (Spec::Right, RunState::Running, PasswordSource::Default);
        Self { spec, on_network: true, run, password, open: false, port: role.port(), version: LABEL, is_new: false }
    }

    const fn address(self) -> SocketAddr {
        let ip = if self.open { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        SocketAddr::new(IpAddr::V4(ip), self.port)
    }

    /// Whether it holds its published port.
    const fn is_up(self) -> bool {
        matches!(self.run, RunState::Running | RunState::Paused | RunState::Restarting)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelServer {
    pub image: bool,
    pub volume: bool,
    pub container: Option<ModelContainer>,
}

impl ModelServer {
    fn runs(&self) -> bool {
        self.container.is_some_and(|actual| actual.run == RunState::Running)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectState {
    Missing,
    Wrong,
    Right,
    /// A right dashboard whose content Grafana changed when it was saved.
    Unrecorded,
}

/// The alert rules, each as desired, unfinished, or missing, and their folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelRules {
    pub latency: ObjectState,
    pub silence: ObjectState,
    pub folder: bool,
}

impl From<ObjectState> for ModelRules {
    /// Both rules in one state.
    fn from(state: ObjectState) -> Self {
        Self { latency: state, silence: state, folder: state != ObjectState::Missing }
    }
}

impl ModelRules {
    fn rule(&mut self, rule: AlertRule) -> &mut ObjectState {
        match rule {
            AlertRule::Latency => &mut self.latency,
            AlertRule::Silence => &mut self.silence,
        }
    }
}

/// The account that signs in to Grafana.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Account {
    #[default]
    Admin,
    /// Another one, as remembered.
    Other,
    /// Another one, named for the first time.
    New,
}

/// How Grafana's image is named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Naming {
    #[default]
    Version,
    /// By a tag that moves to newer versions.
    Latest,
    Digest,
}

/// Grafana's database and the files in its volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Data {
    /// The account's password in the database; `None` before the first start.
    pub db: Option<Password>,
    /// The password in the file, and the pending one.
    pub file: Option<Password>,
    pub pending: Option<Password>,
    /// The newest version that has run on the database.
    pub ran: u64,
    /// The recorded version, and the intended one.
    pub recorded: Option<u64>,
    pub intended: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The number of networks with the instance's name and label. The first one is kept.
    pub networks: usize,
    /// Whether a foreign container is attached to them.
    pub network_is_used: bool,
    /// Another owner's container mounts the volume of this role.
    pub used_volume: Option<Role>,
    /// Whether an interrupted run left a container that checked an address.
    pub address_checks: bool,
    pub influxdb: ModelServer,
    pub grafana: ModelServer,
    pub database: bool,
    /// The database's retention period.
    pub keeps: Retention,
    /// Whether this run has requested confirmation of a shorter retention period.
    pub asked: bool,
    pub data: Data,
    /// Whether admin/admin is accepted although another account signs in.
    pub accepts_admin: bool,
    /// Whether the version is intended for the current container.
    pub intends_container: bool,
    pub upgrade: Option<Upgrade>,
    /// The copy of Grafana's data, and whether it belongs to the recorded upgrade.
    pub copy: Option<(Data, bool)>,
    /// Whether the database is restored only in part.
    pub is_damaged: bool,
    pub dashboard: ObjectState,
    /// The user's dashboard.
    pub own: ObjectState,
    pub source: ObjectState,
    pub rules: ModelRules,
    /// Whether Grafana answers with outdated settings.
    pub stale: bool,
    /// Whether a running Grafana does not answer yet.
    pub slow: bool,
    pub settings: ObjectState,
    /// Whether the remembered settings include this run's retention period.
    pub remembers: bool,
    /// The run whose restore is recorded.
    pub restore: Option<u32>,
}

/// The input of this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Case {
    /// Grafana is to be published off loopback.
    pub open: bool,
    pub account: Account,
    /// A supplied password.
    pub given: Option<Password>,
    /// Whether a new password is requested.
    pub reset: bool,
    /// Whether the image is newer than before.
    pub upgrade: bool,
    pub naming: Naming,
    /// Whether the newer one migrates the database but never answers.
    pub broken: bool,
    /// The desired retention period.
    pub retention: Option<Retention>,
    /// Whether the user has a dashboard.
    pub own: bool,
    /// Whether alert rules are turned on or off.
    pub alerts: Option<bool>,
    /// The desired ports of InfluxDB and Grafana.
    pub ports: Option<[u16; 2]>,
    /// Whether the engine's host lacks Grafana's address.
    pub no_address: bool,
    /// Whether an earlier run ended while it reset the password.
    pub after_reset: bool,
}

/// A long retention period, and a short one.
pub const DAYS_90: Retention = Retention::For(Duration::from_secs(90 * 86_400));
pub const DAYS_2: Retention = Retention::For(Duration::from_secs(2 * 86_400));

/// The version that volumes were created for, according to their label.
pub const LABEL: u64 = 2;

/// The time of each observation, which identifies an upgrade that is recorded after it.
const NOW: u128 = 9;
/// The id of an upgrade from an earlier observation, and of one before that.
const EARLIER: [&str; 2] = ["2", "1"];

impl Case {
    /// The version of the specified image.
    pub const fn version(self) -> u64 {
        if self.upgrade { LABEL + 1 } else { LABEL }
    }

    /// The desired port of a role.
    pub fn port(self, role: Role) -> u16 {
        self.ports.map_or(role.port(), |ports| ports[role as usize])
    }

    /// The image of a version.
    pub fn image(self, role: Role, version: u64) -> ImageRef {
        let name = match (role, self.naming) {
            (Role::Influxdb, _) => format!("influxdb:1.{version}.0"),
            (Role::Grafana, Naming::Version) => format!("grafana/grafana:1.{version}.0"),
            (Role::Grafana, Naming::Latest) => "grafana/grafana:latest".to_string(),
            (Role::Grafana, Naming::Digest) => format!("grafana/grafana@sha256:{version}"),
        };
        ImageRef::parse(&name).unwrap()
    }

    /// The desired address of a role.
    fn publish(self, role: Role) -> SocketAddr {
        let ip = match self {
            _ if role == Role::Influxdb => Ipv4Addr::LOCALHOST,
            Self { no_address: true, .. } => Ipv4Addr::new(192, 0, 2, 7),
            Self { open: true, .. } => Ipv4Addr::UNSPECIFIED,
            Self { open: false, .. } => Ipv4Addr::LOCALHOST,
        };
        (ip, self.port(role)).into()
    }

    /// The settings to remember.
    fn values(self) -> BTreeMap<String, Remembered> {
        let retention = self.retention.map(|time| (Retention::SETTING, time.to_string()));
        let all = [("database", "d".to_string())].into_iter().chain(retention);
        all.map(|(name, value)| (name.to_string(), Remembered { value, from_file: false })).collect()
    }

    pub fn named_image(self, version: u64) -> NamedImage {
        NamedImage { name: self.image(Role::Grafana, version), id: Some(version.to_string()) }
    }

    /// The version in the label of Grafana's volume, if the image names one.
    fn label(self) -> Option<Version> {
        (self.naming == Naming::Version).then_some(Version(1, LABEL))
    }

    /// A change from the labelled version to the next one.
    pub fn recorded_upgrade(self, state: UpgradeState) -> Upgrade {
        Upgrade { id: EARLIER[0].into(), from: self.named_image(LABEL), to: self.named_image(LABEL + 1), state }
    }
}

fn secret(password: Password) -> Secret {
    let text = if password == DEFAULT { Login::PUBLIC_PASSWORD.to_string() } else { password.to_string() };
    Secret::new(text)
}

/// The desired state of a run that begins in this world.
pub fn stack(case: Case, world: &World) -> Stack {
    let own_password = case.given.is_some_and(|given| given != DEFAULT);
    let spec = |role: Role, version, with_file: bool| {
        let config = ContainerConfig {
            image: case.image(role, version),
            publish: case.publish(role),
            password: if with_file { PasswordSource::File } else { PasswordSource::Default },
            ..model::container_config(role)
        };
        Service::Container(Box::new(DesiredContainer { config, ..model::desired_container(role) }))
    };
    Stack {
        services: PerRole {
            influxdb: spec(Role::Influxdb, LABEL, false),
            grafana: spec(Role::Grafana, case.version(), case.open || own_password),
        },
        retention: case.retention,
        user_dashboards: case.own.then(own_dashboard).into_iter().collect(),
        alerts: match case.alerts {
            None => Alerts::NotManaged,
            Some(false) => Alerts::Off,
            Some(true) => Alerts::On(alert_settings()),
        },
        login: Login {
            user: if case.account == Account::Admin { Login::ADMIN } else { "me" }.into(),
            uses_token: false,
            supplies_password: case.given.is_some(),
            is_untried: case.given.is_some() || case.account == Account::New,
        },
        settings: Some(Settings { values: case.values(), merged_from: world.stored_values(case), lost: None }),
        ..model::stack()
    }
}

fn alert_settings() -> AlertSettings {
    model::alert_settings("new")
}

pub fn own_dashboard() -> DesiredUserDashboard {
    let (path, uid, title) = ("/a.json".into(), "a".into(), "A".into());
    DesiredUserDashboard {
        path,
        uid,
        title,
        content_hash: "new".into(),
        content: String::new(),
        needs: vec![],
        notes: vec![],
    }
}

fn seen_dashboard(thing: ObjectState) -> DashboardState {
    let content_hash = match thing {
        ObjectState::Missing => return DashboardState::Missing,
        ObjectState::Wrong => "old",
        ObjectState::Right | ObjectState::Unrecorded => "new",
    };
    let unrecorded = thing == ObjectState::Unrecorded;
    DashboardState::Present(ActualDashboard { unrecorded, ..model::actual_dashboard(content_hash) })
}

fn seen_source(thing: ObjectState) -> DataSourceState {
    let desired = model::data_source();
    let (fields, made_for) = match thing {
        ObjectState::Missing => return DataSourceState::Missing,
        ObjectState::Right => (desired.fields(), desired.made_for()),
        _ => (BTreeMap::new(), MadeFor { url: String::new(), database: String::new(), machine: None }),
    };
    DataSourceState::Ours { fields, made_for, provisioned: false }
}

fn seen_rule(thing: ObjectState, rule: AlertRule) -> ActualRule {
    let fields = match thing {
        ObjectState::Missing => return ActualRule::Missing,
        ObjectState::Right => alert_settings().fields(rule, DesiredDashboard::DEFAULT_OBJECTIVE),
        _ => BTreeMap::new(),
    };
    let (folder_uid, group) = (FOLDER.into(), model::stack().instance);
    ActualRule::Present { edited: false, provisioned: false, fields, made_for: None, folder_uid, group }
}

/// The id of the container that checked an address.
const CHECK: &str = "check";

/// The uid of the alert rules' folder.
const FOLDER: &str = "f";

impl World {
    fn server(&mut self, role: Role) -> &mut ModelServer {
        match role {
            Role::Influxdb => &mut self.influxdb,
            Role::Grafana => &mut self.grafana,
        }
    }

    fn dashboard(&mut self, id: DashboardId, case: Case) -> &mut ObjectState {
        assert!(id == DashboardId::Bundled || case.own && id == DashboardId::User(0));
        if id == DashboardId::Bundled { &mut self.dashboard } else { &mut self.own }
    }

    /// The password behind the name of a login.
    fn password(&self, credential: Credential, case: Case) -> Option<Password> {
        match credential {
            Credential::Token => None,
            Credential::Supplied => case.given,
            Credential::Default => Some(DEFAULT),
            Credential::Pending => self.data.pending,
            Credential::Stored => self.data.file,
            Credential::Generated => Some(NEW),
        }
    }

    /// The login that an observation finds. Files that it reads are added to `files`.
    fn signed_in(
        &self,
        desired: &Stack,
        case: Case,
        actual: &OurContainer,
        files: &mut Option<VolumeFiles>,
    ) -> Option<LoginState> {
        let (mut attempts, mut rejected) = (LoginAttempts::default(), 0);
        let accepted = loop {
            let untried = |credential| {
                let secret = secret(self.password(credential, case)?);
                Some(Attempt { credential, secret }).filter(|attempt| !attempts.is_rejected(attempt))
            };
            match next_login(desired, Some(actual), files.as_ref(), |credential| untried(credential).is_some()) {
                NextLogin::ReadFiles => *files = Some(self.files(case)),
                NextLogin::GiveUp => return None,
                NextLogin::Try(credential) => {
                    let attempt = untried(credential).unwrap();
                    if self.data.db == self.password(credential, case) {
                        break attempt;
                    }
                    attempts.reject(attempt);
                    rejected += 1;
                    let is_private = self.grafana.container.is_some_and(|actual| actual.port == 0);
                    assert!(rejected <= 3 || is_private, "Grafana locks the user out");
                }
            }
        };
        if LoginState::needs_files(&accepted, Some(actual)) {
            files.get_or_insert_with(|| self.files(case));
        }
        let login = LoginState::new(&desired.login, &accepted, Some(actual), files.as_ref());
        let default_login = match login.tries_default(desired, Some(actual)) {
            true if self.accepts_admin => DefaultLogin::Accepted,
            true => DefaultLogin::Rejected,
            false => DefaultLogin::NotTried,
        };
        Some(LoginState { default_login, ..login })
    }

    /// The files in Grafana's volume.
    fn files(&self, case: Case) -> VolumeFiles {
        let version = |version: u64, container: Option<bool>| RanVersion {
            version: Version(1, version),
            image: Some(case.image(Role::Grafana, version).to_string()),
            container: container
                .map(|is_current| if is_current { model::our_container(Role::Grafana).id } else { "gone".into() }),
        };
        VolumeFiles {
            password: self.data.file.map(secret),
            pending: self.data.pending.map(secret),
            ran: self.data.recorded.map(|recorded| version(recorded, None)),
            intended: self.data.intended.map(|intended| version(intended, Some(self.intends_container))),
        }
    }

    /// The engine's answer about a role.
    fn seen_server(&self, role: Role, desired: &Stack, case: Case) -> ObservedServer {
        let (srv, other, other_role, version) = match role {
            Role::Influxdb => (&self.influxdb, &self.grafana, Role::Grafana, LABEL),
            Role::Grafana => (&self.grafana, &self.influxdb, Role::Influxdb, case.version()),
        };
        let container = srv.container.map(|actual| {
            let made = desired.container(role).unwrap().config.clone();
            let (image, publish) = (case.image(role, actual.version), actual.address());
            let mut config = ContainerConfig { password: actual.password, image, publish, ..made };
            if actual.spec == Spec::Wrong {
                config.environment.insert("OLD".into(), "1".into());
            }
            ContainerState::Ours(Box::new(OurContainer {
                config: (actual.spec != Spec::Unreadable).then_some(config),
                image_id: actual.version.to_string(),
                on_network: actual.on_network,
                run: actual.run,
                has_just_started: self.slow,
                published: self.slow.then(|| SocketAddr::from(([127, 0, 0, 1], actual.port))),
                has_data: (role == Role::Grafana).then_some(self.data.db.is_some()),
                ..model::our_container(role)
            }))
        });
        let holds = |actual: &ModelContainer| actual.is_up() && actual.port == case.port(role);
        let made_for = Some(case.image(Role::Grafana, LABEL).to_string());
        let volume = VolumeState::Ours { user: Some(String::new()), version: case.label(), image: made_for };
        ObservedServer {
            image: srv.image.then(|| Image { id: version.to_string(), user: String::new() }),
            volume: if srv.volume { volume } else { VolumeState::Absent },
            container: container.unwrap_or(ContainerState::Absent),
            port_holder: other.container.filter(holds).map(|_| PortHolder::OtherRole(other_role)),
            volume_users: (self.used_volume == Some(role)).then(|| "other".to_string()).into_iter().collect(),
            ..model::observed_server()
        }
    }

    fn seen_grafana(&self, desired: &Stack, case: Case) -> ObservedServer {
        let mut seen = self.seen_server(Role::Grafana, desired, case);
        let container = seen.container.clone();
        let actual = container.ours().filter(|actual| actual.run != RunState::Dead);
        let needs_content =
            |actual: &&OurContainer| plan::needs_content(desired, actual, seen.image.as_ref(), self.upgrade.as_ref());
        let mut files = actual.filter(needs_content).map(|_| self.files(case));
        let is_broken = |actual: &ModelContainer| case.broken && actual.version > LABEL;
        let running = self.grafana.container.filter(|actual| self.grafana.runs() && !is_broken(actual));
        seen.version = running.map(|actual| format!("1.{}.0", actual.version));
        let answering = actual.filter(|_| running.is_some() && !self.slow);
        let login = answering.and_then(|actual| self.signed_in(desired, case, actual, &mut files));
        seen.response = match login {
            _ if !self.grafana.runs() => ServerResponse::Unasked,
            _ if answering.is_none() => ServerResponse::Silent("it was made so".into()),
            None => ServerResponse::Refusing("wrong password".into()),
            Some(_) => ServerResponse::Answering(ServerContent::from(GrafanaState {
                data_source: seen_source(self.source),
                dashboard: seen_dashboard(self.dashboard),
                user_dashboards: desired.user_dashboards.iter().map(|_| seen_dashboard(self.own)).collect(),
                alerts: match case.alerts {
                    None => AlertRulesState::NotRead,
                    Some(_) => AlertRulesState::Seen(Box::new(ActualAlerts {
                        latency: seen_rule(self.rules.latency, AlertRule::Latency),
                        silence: seen_rule(self.rules.silence, AlertRule::Silence),
                        folder: self
                            .rules
                            .folder
                            .then(|| AlertFolder { uid: FOLDER.into(), holds_only_rules: case.alerts == Some(false) }),
                    })),
                },
                query: match self.source {
                    ObjectState::Missing => Query::Unasked,
                    ObjectState::Right if self.database && self.influxdb.runs() && !self.stale => Query::Ok,
                    _ => Query::Failing("no".into()),
                },
                ..model::grafana_state()
            })),
        };
        seen.login = login.unwrap_or_default();
        if actual.is_some() && seen.runs_unlabelled_version() {
            files.get_or_insert_with(|| self.files(case));
        }
        let copy = self.copy.filter(|_| self.is_pending());
        let copy = copy.map(|(_, is_current)| EARLIER[usize::from(!is_current)].to_string());
        seen.content = files.map(|files| VolumeContent { files, copy });
        let last = image_to_look_up(&seen, &case.image(Role::Grafana, case.version()));
        let versions = [LABEL, LABEL + 1].map(|version| case.named_image(version));
        seen.last_image = versions.into_iter().find(|image| Some(&image.name) == last.as_ref());
        seen
    }

    /// The observed state of this world.
    pub fn observe(&self, desired: &Stack, case: Case) -> Observed {
        let influxdb =
            InfluxdbState { has_database: self.database, retention: Some(self.keeps).filter(|_| self.database) };
        let values = self.stored_values(case);
        Observed {
            time: NOW,
            network: match self.networks {
                0 => Network::Free,
                count => Network::Ours((1..=count).map(|id| id.to_string()).collect()),
            },
            address_checks: self
                .address_checks
                .then(|| AddressCheck { id: CHECK.into(), created: -600 })
                .into_iter()
                .collect(),
            network_users: self.network_is_used.then(|| "other".to_string()).into_iter().collect(),
            settings: StoredSettings {
                numbers: values.iter().map(|_| 1).collect(),
                values,
                upgrade: self.upgrade.clone(),
                restore: self.restore.map(restore),
            },
            influxdb: ObservedServer {
                response: if self.influxdb.runs() {
                    ServerResponse::Answering(influxdb.into())
                } else {
                    ServerResponse::Unasked
                },
                ..self.seen_server(Role::Influxdb, desired, case)
            },
            grafana: self.seen_grafana(desired, case),
            ..model::observed()
        }
    }

    fn stored_values(&self, case: Case) -> Option<BTreeMap<String, Remembered>> {
        let mut values = case.values();
        values.retain(|name, _| self.settings == ObjectState::Right && (self.remembers || name != Retention::SETTING));
        (self.settings != ObjectState::Missing).then_some(values)
    }

    fn write_record(&mut self, upgrade: Option<Upgrade>) {
        assert_ne!(self.settings, ObjectState::Missing, "it is recorded beside the settings");
        self.upgrade = upgrade;
    }

    /// Time passes between two observations.
    pub fn begin_round(&mut self) {
        let containers = [&mut self.influxdb, &mut self.grafana].into_iter().filter_map(|srv| srv.container.as_mut());
        containers.for_each(|actual| actual.is_new = false);
        if let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| upgrade.id == NOW.to_string()) {
            upgrade.id = EARLIER[0].into();
        }
    }

    /// Removes all networks; a container cannot return to one.
    pub fn lose_network(&mut self) {
        self.networks = 0;
        for srv in [&mut self.influxdb, &mut self.grafana] {
            srv.container.iter_mut().for_each(|actual| actual.on_network = false);
        }
    }

    /// Grafana's container, which must be in this state.
    fn grafana_is(&self, run: RunState) -> ModelContainer {
        let actual = self.grafana.container.expect("no container");
        assert_eq!(actual.run, run);
        actual
    }

    /// Executes one step as the real systems would; a violated precondition is a failure. Returns
    /// `false` if the step fails, which ends the run.
    #[must_use]
    pub fn execute(&mut self, case: Case, login: Option<Credential>, step: &Step) -> bool {
        let image_of = |actual: ModelContainer| case.image(Role::Grafana, actual.version);
        match step {
            Step::PullImage(role) => self.server(*role).image = true,
            Step::CheckAddress(role, publish) => {
                assert!(self.server(*role).image && self.networks > 0, "there is nothing to check it with");
                assert!(!self.address_checks, "its name is taken");
                let holds = |srv: &ModelServer| {
                    srv.container.is_some_and(|one| one.is_up() && collide(one.address(), *publish))
                };
                assert!(!holds(&self.influxdb) && !holds(&self.grafana), "a managed container holds it");
                return !(case.no_address && *role == Role::Grafana);
            }
            Step::CreateNetwork => {
                assert_eq!(self.networks, 0, "newer engines refuse a second network of one name");
                self.networks = 1;
            }
            Step::RemoveDuplicateNetworks => self.networks = self.networks.min(1),
            Step::RemoveAddressChecks(ids) => {
                assert_eq!(ids, &[CHECK]);
                assert!(std::mem::take(&mut self.address_checks));
            }
            Step::RemoveNetwork => {
                assert!(!self.address_checks, "a container is attached to it");
                assert!(!self.influxdb.runs() && !self.grafana.runs() && !self.network_is_used, "it is in use");
                self.lose_network();
            }
            Step::SaveSettings { values, replaces } => {
                assert_eq!(*replaces, self.stored_values(case), "the replaced settings were read before");
                let remembered = std::mem::replace(&mut self.remembers, values.contains_key(Retention::SETTING));
                self.settings = ObjectState::Right;
                assert_eq!(Some(values), self.stored_values(case).as_ref());
                if let Some(desired) = case.retention.filter(|_| self.remembers && !remembered) {
                    let deletes = self.database && desired.is_shorter_than(self.keeps);
                    assert!(self.asked || !deletes, "an unconfirmed retention is remembered");
                }
            }
            Step::RemoveSettings => (self.settings, self.remembers, self.restore) = (ObjectState::Missing, false, None),
            Step::BeginRestore(record) => {
                assert!(self.settings == ObjectState::Missing || self.restore.is_some(), "an instance is overwritten");
                assert_eq!((&record.values, &record.replaced), (&case.values(), &self.restore.map(restore)));
                (self.settings, self.restore) = (ObjectState::Right, Some(record.restore.process));
            }
            Step::FinishRestore(record) => {
                assert_eq!(self.restore.take(), Some(record.restore.process), "another run took it over");
                assert_eq!(record.values, case.values());
            }
            Step::CreateVolume(role) => self.server(*role).volume = true,
            Step::RemoveVolume(role) => {
                let is_used = self.used_volume == Some(*role);
                assert!(self.server(*role).container.is_none() && !is_used, "the volume is in use");
                self.server(*role).volume = false;
                self.empty(*role);
            }
            Step::CreateContainer(new) => self.create(new, case),
            Step::WriteFirstPassword(password) => {
                assert_eq!(self.data.db, None, "a password is written before the first start");
                self.data.file = Some(self.password(*password, case).unwrap());
            }
            Step::TryLogin(login) => {
                self.grafana_is(RunState::Running);
                return self.data.db == self.password(*login, case);
            }
            Step::StorePassword { login, replaces_pending } => {
                let accepted = self.password(*login, case);
                assert!(self.grafana.container.is_some() && accepted == self.data.db, "it was not accepted");
                self.data.file = accepted;
                self.data.pending = if *replaces_pending { accepted } else { self.data.pending };
            }
            Step::WritePendingPassword(new) => self.data.pending = self.password(*new, case),
            Step::ChangePassword(new) => {
                assert!(!self.grafana_is(RunState::Running).open, "only on loopback");
                assert_eq!(self.data.db, Some(DEFAULT), "the default password is replaced");
                self.data.db = self.password(*new, case);
                assert!(self.data.db.is_some_and(|new| new != DEFAULT) && self.data.pending == self.data.db);
            }
            Step::CheckLoginForm => assert_ne!(self.data.db, Some(DEFAULT)),
            Step::ResetPassword(new) => {
                self.grafana_is(RunState::Running);
                self.data.db = self.password(*new, case);
                assert_eq!(self.data.db, self.data.pending, "a run that ends now loses the password");
            }
            Step::WriteVersion { version, image } => {
                let actual = self.grafana_is(RunState::Running);
                assert_eq!((Version(1, actual.version), Some(image_of(actual))), (*version, image.clone()));
                (self.data.recorded, self.data.intended) = (Some(actual.version), None);
            }
            Step::WriteIntendedVersion { version, image } => {
                let actual = self.grafana_is(RunState::Created);
                assert_eq!((Version(1, actual.version), &image_of(actual)), (*version, image));
                (self.data.intended, self.intends_container) = (Some(actual.version), true);
            }
            Step::ClearIntendedVersion => {
                self.grafana_is(RunState::Created);
                assert!(self.intends_container, "the version is intended for another container");
                self.data.intended = None;
            }
            Step::RecordUpgrade(upgrade) => {
                let is_new = upgrade.id == NOW.to_string();
                assert!(is_new || self.upgrade.as_ref().is_some_and(|current| current.id == upgrade.id), "{upgrade:?}");
                self.copy = self.copy.map(|(data, is_current)| (data, is_current && !is_new));
                self.write_record(Some(upgrade.as_ref().clone()));
            }
            Step::EndUpgrade(end) => self.write_record(end.as_deref().cloned()),
            Step::DeleteDatabaseCopy => {
                assert!(self.grafana.container.is_some(), "a copy is deleted through a container");
                let is_current = self.copy.is_some_and(|(_, is_current)| is_current);
                assert!(!is_current || !self.is_pending(), "the copy may be needed as long as it is recorded");
                self.copy = None;
            }
            Step::CopyGrafanaDatabase { upgrade } => {
                self.grafana_is(RunState::Created);
                assert_eq!(self.data.ran, LABEL, "the copy is the database of the previous version");
                let recorded = self.upgrade.as_ref().filter(|recorded| recorded.id == *upgrade);
                assert!(recorded.is_some() && self.is_unproven(), "the record comes first");
                self.copy = Some((self.data, true));
            }
            Step::RollBackDatabase => {
                self.grafana_is(RunState::Created);
                let (data, is_current) = self.copy.take().unwrap();
                assert!(is_current && self.upgrade.is_some(), "another upgrade's copy");
                (self.data, self.is_damaged) = (data, false);
            }
            Step::ProveDashboard { .. } => {
                let actual = self.grafana_is(RunState::Running);
                assert!(actual.version > LABEL && !case.broken, "the new version proves itself");
                assert_eq!((self.data.recorded, self.data.intended), (Some(actual.version), None));
            }
            Step::RemoveContainer(role) => {
                self.server(*role).container = None;
                self.intends_container &= *role != Role::Grafana;
            }
            Step::UnpauseContainer(role) => {
                let actual = self.server(*role).container.as_mut().unwrap();
                assert_eq!(std::mem::replace(&mut actual.run, RunState::Running), RunState::Paused);
            }
            Step::StartContainer(role) => self.start(*role, case.no_address),
            Step::AwaitAnswer(role) => {
                let actual = self.server(*role).container.unwrap();
                assert_eq!(actual.run, RunState::Running, "{role} must run to answer");
                if *role == Role::Grafana && case.broken && actual.version > LABEL {
                    return false;
                }
                self.slow &= *role != Role::Grafana;
            }
            Step::CreateDatabase { name, retention } => {
                assert!(self.influxdb.runs());
                assert_eq!((name.as_str(), *retention), ("d", case.retention));
                if !self.database {
                    self.keeps = retention.unwrap_or(Retention::Forever);
                }
                self.database = true;
            }
            Step::SetRetention { database, from, to } => {
                assert_eq!((database.as_str(), Some(*to)), ("d", case.retention));
                assert_eq!((self.database, *from), (true, Some(self.keeps)), "the altered period was read before");
                assert!(self.asked || !to.is_shorter_than(self.keeps), "points are dropped without a question");
                self.keeps = *to;
            }
            content => {
                let accepted = login.and_then(|login| self.password(login, case));
                assert!(accepted.is_some() && accepted == self.data.db, "nothing is signed in with {login:?}");
                if !self.execute_in_grafana(case, content) {
                    return false;
                }
            }
        }
        let exposed = self.grafana.container.is_some_and(|actual| actual.open) && self.grafana.runs();
        assert!(!exposed || !self.is_open_to_all(), "a default password is accepted off loopback after {step:?}");
        true
    }

    /// Executes a step on an object in Grafana; returns whether it succeeds.
    fn execute_in_grafana(&mut self, case: Case, step: &Step) -> bool {
        match step {
            Step::SaveDashboard { id, replaces, .. } => {
                let read = replaces.clone().map_or(DashboardState::Missing, |one| DashboardState::Present(*one));
                let saved = self.dashboard(*id, case);
                assert_eq!(read, seen_dashboard(*saved));
                // Grafana changes some dashboards when it stores them: here, older ones and a user's first one.
                *saved = match (*saved, id) {
                    (ObjectState::Wrong, _) | (ObjectState::Missing, DashboardId::User(_)) => ObjectState::Unrecorded,
                    _ => ObjectState::Right,
                };
            }
            Step::RecordDashboard { id, observed, .. } => {
                let recorded = std::mem::replace(self.dashboard(*id, case), ObjectState::Right);
                assert_eq!(recorded, ObjectState::Unrecorded);
                assert_eq!(DashboardState::Present(observed.as_ref().clone()), seen_dashboard(recorded));
            }
            Step::SetHome { uid } => {
                assert_eq!(*uid, model::dashboard().uid);
                assert_ne!(self.dashboard, ObjectState::Missing, "a home page must exist");
            }
            Step::SaveDataSource { replaces, becomes_default } => {
                assert_eq!(*becomes_default, self.source == ObjectState::Missing, "there is no other data source");
                let actual = match seen_source(std::mem::replace(&mut self.source, ObjectState::Right)) {
                    DataSourceState::Ours { made_for, .. } => Some(made_for),
                    _ => None,
                };
                assert_eq!(*replaces, actual, "the replaced data source was read before");
                self.stale = false;
            }
            Step::CreateAlertFolder => {
                assert!(case.alerts == Some(true) && !std::mem::replace(&mut self.rules.folder, true));
            }
            Step::CreateAlertRule(new) => {
                assert_eq!((case.alerts, self.source), (Some(true), ObjectState::Right), "rules ask the data source");
                assert_ne!(self.dashboard, ObjectState::Missing, "the objective is the dashboard's");
                assert!(self.rules.folder && new.replaces == ActualRule::Missing);
                let created = std::mem::replace(self.rules.rule(new.rule), ObjectState::Wrong);
                assert_eq!(created, ObjectState::Missing);
            }
            Step::SaveAlertRules { rules, sets_interval } => {
                assert!(case.alerts == Some(true) && self.rules.folder && *sets_interval, "{rules:?}");
                for new in rules {
                    assert_eq!(
                        (&new.settings, new.objective),
                        (&alert_settings(), DesiredDashboard::DEFAULT_OBJECTIVE)
                    );
                    // A rule that this plan created is unfinished.
                    let saved = std::mem::replace(self.rules.rule(new.rule), ObjectState::Right);
                    assert_eq!(saved, ObjectState::Wrong);
                    assert!([seen_rule(saved, new.rule), ActualRule::Missing].contains(&new.replaces));
                }
            }
            Step::DeleteAlertRule { rule, observed } => {
                assert_eq!(case.alerts, Some(false));
                let deleted = std::mem::replace(self.rules.rule(*rule), ObjectState::Missing);
                assert!(deleted != ObjectState::Missing && **observed == seen_rule(deleted, *rule), "{observed:?}");
            }
            Step::DeleteAlertFolder => {
                assert_eq!(case.alerts, Some(false));
                let deleted = std::mem::replace(&mut self.rules, ObjectState::Missing.into());
                assert_eq!(deleted, ModelRules { folder: true, ..self.rules }, "it is empty");
            }
            Step::VerifyQuery { saves_left, .. } => {
                assert!(self.database && self.influxdb.runs() && self.source == ObjectState::Right);
                assert!(!self.stale || *saves_left > 0, "the data source was saved again");
                return !self.stale;
            }
            // `down --deregister` is for external servers, and no organisation or folder is desired.
            _ => unreachable!("{step}"),
        }
        true
    }

    /// Whether everyone knows the password of an administrator.
    pub fn is_open_to_all(&self) -> bool {
        self.data.db == Some(DEFAULT) || self.accepts_admin
    }

    pub fn is_pending(&self) -> bool {
        use UpgradeState::{Failed, Postponed, Unproven};
        self.upgrade.as_ref().is_some_and(|one| matches!(one.state, Unproven | Failed | Postponed))
    }

    /// Whether a record names the image that ran before the new one.
    pub fn names_previous(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|one| one.state != UpgradeState::Accepted)
    }

    fn is_unproven(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.state == UpgradeState::Unproven)
    }

    fn empty(&mut self, role: Role) {
        if role == Role::Influxdb {
            self.database = false;
            return;
        }
        let World { data, accepts_admin, copy, is_damaged, dashboard, own, source, rules, stale, .. } = empty_world();
        *self = World { data, accepts_admin, copy, is_damaged, dashboard, own, source, rules, stale, ..self.clone() };
    }

    fn create(&mut self, new: &NewContainer, case: Case) {
        let NewContainer { role, config, image_id, usage } = new;
        let desired = if *role == Role::Grafana { case.version() } else { LABEL };
        let (image, publish) = match usage {
            ContainerUse::Service => (case.image(*role, desired), case.publish(*role)),
            ContainerUse::Login | ContainerUse::Restore => (config.image.clone(), (Ipv4Addr::LOCALHOST, 0).into()),
        };
        // An image that is not the default one may write to its root.
        let (password, read_only) = (config.password, config.read_only || *usage == ContainerUse::Service);
        assert_eq!(*config, ContainerConfig { image, publish, password, read_only, ..model::container_config(*role) });
        assert!(self.networks > 0, "the network does not exist");
        // The engine resolves a moving tag to the desired version.
        let named =
            || [case.version(), LABEL, LABEL + 1].into_iter().find(|one| case.image(*role, *one) == config.image);
        let id = image_id.as_ref().and_then(|id| id.parse().ok()).filter(|_| *role == Role::Grafana);
        let srv = self.server(*role);
        assert!(srv.container.is_none() && srv.image && srv.volume, "{role}: {srv:?}");
        srv.container = Some(ModelContainer {
            run: RunState::Created,
            password: config.password,
            open: config.is_open(),
            port: config.publish.port(),
            version: id.or_else(named).unwrap_or(LABEL),
            is_new: true,
            ..ModelContainer::running(*role)
        });
    }

    fn start(&mut self, role: Role, no_address: bool) {
        assert!(self.networks == 1 && !self.address_checks, "a network's name is ambiguous, or an address is taken");
        let other = if role == Role::Grafana { self.influxdb } else { self.grafana };
        let actual = self.server(role).container.as_mut().expect("nothing to start");
        let is_taken = other.container.is_some_and(|other| other.is_up() && other.port == actual.port);
        assert!(!is_taken, "{role} starts at a port that the other role holds");
        assert!(actual.on_network, "attached to a network that is gone");
        actual.run = RunState::Running;
        let actual = *actual;
        if role == Role::Influxdb {
            return;
        }
        assert!(!no_address || !actual.open, "it starts at an address that was not checked");
        assert!(!self.is_damaged, "Grafana starts on a database that is restored only in part");
        let with_file = actual.password == PasswordSource::File;
        assert!(!with_file || self.data.file.is_some(), "Grafana ends when its password's file is missing");
        if self.data.db.is_none() {
            self.data.db = if with_file { self.data.file } else { Some(DEFAULT) };
        }
        let ran = self.data.ran;
        assert!(actual.version >= ran, "an older Grafana starts on a migrated database");
        let is_safe = self.is_unproven() && self.copy.is_some_and(|(_, is_current)| is_current);
        assert!(ran == 0 || actual.version == ran || is_safe, "a database is migrated without a copy");
        self.data.ran = actual.version;
    }

    /// The model's own definition of success.
    pub fn is_done(&self, case: Case) -> bool {
        let serves = |role: Role, srv: &ModelServer| {
            let is_right = |actual: ModelContainer| actual.spec == Spec::Right && actual.port == case.port(role);
            srv.runs() && srv.container.is_some_and(|actual| actual.on_network && is_right(actual))
        };
        let (Some(actual), data, version) = (self.grafana.container, self.data, case.version()) else { return false };
        let labelled = actual.password == PasswordSource::File;
        let own = data.db != Some(DEFAULT);
        // If Grafana has its own password, the label leads the next run to the file.
        let is_stored = data.file == data.db;
        let finds_password = if own { labelled && is_stored } else { !labelled || is_stored };
        let is_safe = actual.open == case.open && !(case.open && self.is_open_to_all());
        let is_settled = (!own && !labelled) || data.pending.is_none_or(|pending| Some(pending) == data.db);
        let is_recorded = data.recorded == Some(version) && data.intended.is_none();
        let is_version = actual.version == version && (is_recorded || case.label() == Some(Version(1, version)));
        let dashboards = self.dashboard == ObjectState::Right && (!case.own || self.own == ObjectState::Right);
        let alerts = match case.alerts {
            None => true,
            Some(true) => self.rules == ObjectState::Right.into(),
            // Its folder may stay.
            Some(false) => self.rules == ModelRules { folder: self.rules.folder, ..ObjectState::Missing.into() },
        };
        let keeps = case.retention.is_none_or(|desired| desired == self.keeps && self.remembers);
        (self.networks == 1 && !self.address_checks)
            && serves(Role::Influxdb, &self.influxdb)
            && serves(Role::Grafana, &self.grafana)
            && (self.copy.is_none() && !self.is_pending() && (self.upgrade.is_none() || self.names_previous()))
            && (is_version && finds_password && is_safe && is_settled)
            && (self.database && self.source == ObjectState::Right && dashboards && alerts && !self.stale)
            && (keeps && self.settings == ObjectState::Right)
    }
}

/// The steps that are executed, with their phases, in possible orders: the roles run in parallel, so one lane before
/// the other and vice versa.
pub fn orders(plan: &Plan) -> [Vec<(Phase, Step)>; 2] {
    let order = |roles: [Role; 2]| {
        let phases = Phase::ALL.into_iter().filter(|phase| *phase <= plan.until());
        let lanes = phases.flat_map(|phase| roles.map(|role| (phase, role)));
        lanes.flat_map(|(phase, role)| plan.lane(phase, role).map(move |(step, _)| (phase, step.clone()))).collect()
    };
    [order([Role::Influxdb, Role::Grafana]), order([Role::Grafana, Role::Influxdb])]
}

pub fn empty_world() -> World {
    let empty = ModelServer { image: true, volume: false, container: None };
    World {
        networks: 0,
        network_is_used: false,
        used_volume: None,
        address_checks: false,
        influxdb: empty,
        grafana: empty,
        database: false,
        keeps: Retention::Forever,
        asked: false,
        data: Data::default(),
        accepts_admin: false,
        intends_container: false,
        upgrade: None,
        copy: None,
        is_damaged: false,
        dashboard: ObjectState::Missing,
        own: ObjectState::Missing,
        source: ObjectState::Missing,
        rules: ObjectState::Missing.into(),
        stale: false,
        slow: false,
        settings: ObjectState::Missing,
        remembers: false,
        restore: None,
    }
}

/// The state after a first `up`.
pub fn whole_world() -> World {
    let srv = |role| ModelServer { image: true, volume: true, container: Some(ModelContainer::running(role)) };
    World {
        networks: 1,
        influxdb: srv(Role::Influxdb),
        grafana: srv(Role::Grafana),
        database: true,
        data: Data { db: Some(DEFAULT), ran: LABEL, ..Data::default() },
        dashboard: ObjectState::Right,
        source: ObjectState::Right,
        settings: ObjectState::Right,
        ..empty_world()
    }
}

pub fn restore(run: u32) -> UnfinishedRestore {
    let (id, machine) = (run.to_string(), "box".into());
    UnfinishedRestore {
        id,
        archive: "/saved".into(),
        digest: "d1".into(),
        machine,
        process: run,
        ..UnfinishedRestore::default()
    }
}
