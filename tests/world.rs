//! A model of engine, InfluxDB and Grafana: a world is what is really there. It is observed as the program would
//! observe it, and executes one step as the real systems would. A violated precondition is a failure.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::time::Duration;

use clipper_metrics::model::address::collide;
use clipper_metrics::model::alerts::{AlertRule, AlertSettings, Alerts};
use clipper_metrics::model::container_config::{ContainerConfig, PasswordSource};
use clipper_metrics::model::image::ImageRef;
use clipper_metrics::model::login::{
    Attempt, Credential, DefaultLogin, LoginAttempts, LoginState, NextLogin, next_login,
};
use clipper_metrics::model::observed::{
    ActualAlerts, ActualRule, AlertRulesState, ContainerState, DashboardState, DataSourceState, GrafanaState, Image,
    InfluxdbState, Network, Observed, ObservedServer, OurContainer, PortHolder, Query, RunState, ServerResponse,
    StoredSettings, VolumeState,
};
use clipper_metrics::model::plan::{self, ContainerUse, NewContainer, Phase, Plan, Step, UpOptions};
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

pub const RUNS: [RunState; 6] =
    [RunState::Created, RunState::Running, RunState::Paused, RunState::Restarting, RunState::Exited(1), RunState::Dead];

/// Passwords by number.
pub type Password = u8;
/// Grafana's default.
pub const DEFAULT: Password = 0;
/// Set by an earlier run.
pub const OLD: Password = 1;
/// Being set by an earlier run when it died.
pub const PENDING: Password = 2;
/// Supplied to this run.
pub const GIVEN: Password = 3;
/// Generated.
pub const NEW: Password = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spec {
    Right,
    Wrong,
    Unreadable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cont {
    pub spec: Spec,
    /// The network that it was created on; ids only grow.
    pub network: u32,
    pub run: RunState,
    pub password: PasswordSource,
    /// Whether it is published off loopback.
    pub open: bool,
    /// The published port; 0 means a port chosen by the engine, where only the run that created the
    /// container looks.
    pub port: u16,
    /// The version of its image.
    pub version: u64,
    /// The engine's id for it.
    pub id: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Srv {
    pub image: bool,
    pub volume: bool,
    pub container: Option<Cont>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thing {
    Missing,
    Wrong,
    Right,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// Ids of networks with the instance's name and label.
    pub networks: Vec<u32>,
    /// Whether a foreign container is attached to them.
    pub network_is_used: bool,
    /// The next id of a network or container.
    pub next_id: u32,
    pub influxdb: Srv,
    pub grafana: Srv,
    pub database: bool,
    /// The database's retention period.
    pub keeps: Retention,
    /// Whether this run has requested confirmation of a shorter retention period.
    pub asked: bool,
    /// The account's password in Grafana's database; `None` before the first start.
    pub db: Option<Password>,
    /// Whether admin/admin is accepted although another account signs in.
    pub accepts_admin: bool,
    /// The password in the volume's file.
    pub file: Option<Password>,
    /// The pending password of a run that died while setting it.
    pub pending: Option<Password>,
    /// The newest version that has run on Grafana's database.
    pub ran: u64,
    /// The version recorded in a file in the volume, and the announced one.
    pub recorded: Option<u64>,
    pub intended: Option<u64>,
    /// The container of the announced version.
    pub intended_for: u32,
    /// The recorded upgrade, by number.
    pub upgrade: Option<(UpgradeState, u32)>,
    /// The versions that it is from and to.
    pub upgraded: (u64, u64),
    /// The copy of the database.
    pub copy: Option<Copied>,
    pub dashboard: Thing,
    /// The user's dashboard.
    pub own: Thing,
    pub source: Thing,
    /// The alert rules: as desired, unfinished, or missing.
    pub rules: Thing,
    pub home: bool,
    /// Whether Grafana answers with outdated settings.
    pub stale: bool,
    /// Whether a running Grafana does not answer yet.
    pub slow: bool,
    pub settings: Thing,
    /// Whether the remembered settings include this run's retention period.
    pub remembers: bool,
    /// The run whose restore is recorded.
    pub restore: Option<u32>,
}

/// A copy of Grafana's database: its upgrade, and the state at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Copied {
    pub id: u32,
    pub ran: u64,
    pub recorded: Option<u64>,
    pub intended: Option<u64>,
    pub db: Option<Password>,
    pub file: Option<Password>,
    pub pending: Option<Password>,
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

    pub fn named_image(self, version: u64) -> NamedImage {
        NamedImage { name: self.image(Role::Grafana, version), id: Some(version.to_string()) }
    }

    /// The version in the label of Grafana's volume, if the image names one.
    pub fn label(self) -> Option<Version> {
        (self.naming == Naming::Version).then_some(Version(1, LABEL))
    }
}

fn secret(password: Password) -> Secret {
    let text = if password == DEFAULT { Login::PUBLIC_PASSWORD.to_string() } else { password.to_string() };
    Secret::new(text)
}

pub fn stack(case: Case) -> Stack {
    let spec = |role: Role, address: &str| {
        let own = case.given.is_some_and(|given| given != DEFAULT);
        let file = role == Role::Grafana && (case.open || own);
        DesiredContainer {
            config: ContainerConfig {
                image: case.image(role, if role == Role::Grafana { case.version() } else { LABEL }),
                publish: SocketAddr::new(address.parse().unwrap(), case.port(role)),
                password: if file { PasswordSource::File } else { PasswordSource::Default },
                ..model::container_config(role)
            },
            ..model::desired_container(role)
        }
    };
    let address = match case {
        Case { no_address: true, .. } => "192.0.2.7",
        Case { open: true, .. } => "0.0.0.0",
        Case { open: false, .. } => "127.0.0.1",
    };
    let remembered = |value: String| Remembered { value, from_file: false };
    let mut values = BTreeMap::from([("database".to_string(), remembered("d".into()))]);
    values.extend(case.retention.map(|time| (Retention::SETTING.to_string(), remembered(time.to_string()))));
    let base = model::stack();
    Stack {
        services: PerRole {
            influxdb: Service::Container(Box::new(spec(Role::Influxdb, "127.0.0.1"))),
            grafana: Service::Container(Box::new(spec(Role::Grafana, address))),
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
            token: false,
            password: case.given.is_some(),
            given: case.given.is_some() || case.account == Account::New,
        },
        settings: Some(Settings { values, lost: None }),
        ..base
    }
}

pub fn alert_settings() -> AlertSettings {
    let (latency_after, silence_after) = (Duration::from_secs(30), Duration::from_secs(60));
    AlertSettings { latency_after, silence_after, content_hash: "new".into() }
}

pub fn own_dashboard() -> DesiredUserDashboard {
    DesiredUserDashboard {
        path: "/a.json".into(),
        uid: "a".into(),
        title: "A".into(),
        content_hash: "new".into(),
        content: String::new(),
        needs: vec![],
        notes: vec![],
    }
}

pub fn seen_dashboard(thing: Thing) -> DashboardState {
    match thing {
        Thing::Missing => DashboardState::Missing,
        Thing::Wrong => DashboardState::Present(model::actual_dashboard("old")),
        Thing::Right => DashboardState::Present(model::actual_dashboard("new")),
    }
}

pub fn seen_source(fields: BTreeMap<String, String>, made_for: MadeFor) -> DataSourceState {
    DataSourceState::Ours { fields, made_for, provisioned: false }
}

pub fn seen_alerts(thing: Thing, case: Case) -> AlertRulesState {
    if case.alerts.is_none() {
        return AlertRulesState::NotRead;
    }
    let rule = |rule| match thing {
        Thing::Missing => ActualRule::Missing,
        Thing::Wrong => {
            ActualRule::Present { edited: false, provisioned: false, fields: BTreeMap::new(), made_for: None }
        }
        Thing::Right => ActualRule::Present {
            edited: false,
            provisioned: false,
            fields: alert_settings().fields(rule, DesiredDashboard::DEFAULT_OBJECTIVE),
            made_for: None,
        },
    };
    AlertRulesState::Seen(ActualAlerts { latency: rule(AlertRule::Latency), silence: rule(AlertRule::Silence) })
}

impl World {
    pub fn server(&mut self, role: Role) -> &mut Srv {
        match role {
            Role::Influxdb => &mut self.influxdb,
            Role::Grafana => &mut self.grafana,
        }
    }

    pub fn kept(&self) -> Option<u32> {
        self.networks.first().copied()
    }

    /// The password behind the name of a login.
    pub fn password(&self, credential: Credential, case: Case) -> Option<Password> {
        match credential {
            Credential::Token => None,
            Credential::Supplied => case.given,
            Credential::Default => Some(DEFAULT),
            Credential::Pending => self.pending,
            Credential::Stored => self.file,
            Credential::Generated => Some(NEW),
        }
    }

    /// The login that Grafana accepts from an observation, which adds the files that it reads to `files`.
    fn signed_in(
        &self,
        desired: &Stack,
        case: Case,
        actual: &OurContainer,
        files: &mut Option<VolumeFiles>,
    ) -> Option<LoginState> {
        let mut attempts = LoginAttempts::default();
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
                    if self.db == self.password(credential, case) {
                        break attempt;
                    }
                    attempts.reject(attempt);
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
        let version = |version: u64, container: Option<u32>| RanVersion {
            version: Version(1, version),
            image: Some(case.image(Role::Grafana, version).to_string()),
            container: container.map(|id| id.to_string()),
        };
        VolumeFiles {
            password: self.file.map(secret),
            pending: self.pending.map(secret),
            ran: self.recorded.map(|recorded| version(recorded, None)),
            intended: self.intended.map(|intended| version(intended, Some(self.intended_for))),
        }
    }

    /// The observed state of this world.
    pub fn observe(&self, desired: &Stack, case: Case) -> Observed {
        let network = match self.networks.as_slice() {
            [] => Network::Free,
            ids => Network::Ours(ids.iter().map(ToString::to_string).collect()),
        };
        let container = |srv: &Srv, spec: &DesiredContainer| match srv.container {
            None => ContainerState::Absent,
            Some(actual) => {
                let mut config = ContainerConfig { password: actual.password, ..spec.config.clone() };
                let host = if actual.open { "0.0.0.0" } else { "127.0.0.1" };
                config.image = case.image(spec.role, actual.version);
                config.publish = SocketAddr::new(host.parse().unwrap(), actual.port);
                if actual.spec == Spec::Wrong {
                    config.environment.insert("OLD".into(), "1".into());
                }
                ContainerState::Ours(Box::new(OurContainer {
                    id: actual.id.to_string(),
                    config: (actual.spec != Spec::Unreadable).then_some(config),
                    image_id: actual.version.to_string(),
                    on_network: self.kept() == Some(actual.network),
                    run: actual.run,
                    has_just_started: self.slow,
                    published: self.slow.then(|| SocketAddr::from(([127, 0, 0, 1], actual.port))),
                    has_data: (spec.role == Role::Grafana).then_some(self.db.is_some()),
                    ..model::our_container(spec.role)
                }))
            }
        };
        let runs = |srv: &Srv| srv.container.is_some_and(|actual| actual.run == RunState::Running);
        let port_holder = |role: Role, other: &Srv, other_role: Role| {
            let holds = other.container.is_some_and(|actual| is_up(actual.run) && actual.port == case.port(role));
            holds.then_some(PortHolder::OtherRole(other_role))
        };
        let image = |srv: &Srv, version: u64| srv.image.then(|| Image { id: version.to_string(), user: String::new() });
        let is_broken = |actual: &Cont| case.broken && actual.version > LABEL;
        let answers = self.grafana.container.filter(|actual| runs(&self.grafana) && !is_broken(actual));
        let runs_version = answers.map(|actual| actual.version);
        let volume = |srv: &Srv| {
            if srv.volume {
                let image = Some(case.image(Role::Grafana, LABEL).to_string());
                VolumeState::Ours { user: Some(String::new()), version: case.label(), image }
            } else {
                VolumeState::Absent
            }
        };
        let query = match self.source {
            Thing::Missing => Query::Unasked,
            Thing::Right if self.database && runs(&self.influxdb) && !self.stale => Query::Ok,
            _ => Query::Failing("no".into()),
        };
        let is_dumb = self.grafana.container.is_some_and(|actual| is_broken(&actual));
        let seen_container = container(&self.grafana, desired.container(Role::Grafana).unwrap());
        let seen_image = image(&self.grafana, case.version());
        let upgrade = self.upgrade.map(|(state, id)| Upgrade {
            id: id.to_string(),
            from: case.named_image(self.upgraded.0),
            to: case.named_image(self.upgraded.1),
            state,
        });
        let needs_content =
            |actual: &&OurContainer| plan::needs_content(desired, actual, seen_image.as_ref(), upgrade.as_ref());
        let actual = seen_container.ours().filter(|actual| actual.run != RunState::Dead);
        let mut files = actual.filter(needs_content).map(|_| self.files(case));
        let answers = runs(&self.grafana) && !is_dumb && !self.slow;
        let login = actual.filter(|_| answers).and_then(|actual| self.signed_in(desired, case, actual, &mut files));
        let response = match login {
            _ if !runs(&self.grafana) => ServerResponse::Unasked,
            _ if is_dumb || self.slow => ServerResponse::Silent("it was made so".into()),
            None => ServerResponse::Refusing("wrong password".into()),
            Some(_) => ServerResponse::Answering(GrafanaState {
                data_source: match self.source {
                    Thing::Missing => DataSourceState::Missing,
                    Thing::Right => seen_source(desired.data_source.fields(), desired.data_source.made_for()),
                    Thing::Wrong => seen_source(
                        BTreeMap::new(),
                        MadeFor { url: String::new(), database: String::new(), machine: None },
                    ),
                },
                dashboard: seen_dashboard(self.dashboard),
                user_dashboards: desired.user_dashboards.iter().map(|_| seen_dashboard(self.own)).collect(),
                alerts: seen_alerts(self.rules, case),
                query,
                ..model::grafana_state()
            }),
        };
        let values = match self.settings {
            Thing::Missing => None,
            Thing::Wrong => Some(BTreeMap::new()),
            Thing::Right => {
                let mut values = desired.settings.as_ref().unwrap().values.clone();
                if !self.remembers {
                    values.remove(Retention::SETTING);
                }
                Some(values)
            }
        };
        let copy = self.copy.filter(|_| self.is_pending()).map(|copy| copy.id.to_string());
        let mut grafana = ObservedServer {
            image: seen_image,
            volume: volume(&self.grafana),
            container: seen_container.clone(),
            port_holder: port_holder(Role::Grafana, &self.influxdb, Role::Influxdb),
            response,
            version: runs_version.map(|version| format!("1.{version}.0")),
            login: login.unwrap_or_default(),
            ..model::observed_server()
        };
        if actual.is_some() && grafana.runs_unlabelled_version() {
            files.get_or_insert_with(|| self.files(case));
        }
        grafana.content = files.map(|files| VolumeContent { files, copy });
        let last = grafana.files().and_then(|files| files.last_image(grafana.image_label()));
        let last = last.map(|last| ImageRef::parse(&last).unwrap());
        let last_image = [LABEL, LABEL + 1].map(|version| case.named_image(version)).into_iter();
        let last_image = last_image.filter(|image| image.name != case.image(Role::Grafana, case.version()));
        let last_image = last_image.clone().find(|image| Some(&image.name) == last.as_ref());
        Observed {
            time: self.next_id.into(),
            network,
            network_users: self.network_is_used.then(|| "somebody".to_string()).into_iter().collect(),
            settings: StoredSettings {
                numbers: values.iter().map(|_| 1).collect(),
                values,
                upgrade,
                restore: self.restore.map(restore),
            },
            influxdb: ObservedServer {
                image: image(&self.influxdb, LABEL),
                volume: volume(&self.influxdb),
                container: container(&self.influxdb, desired.container(Role::Influxdb).unwrap()),
                port_holder: port_holder(Role::Influxdb, &self.grafana, Role::Grafana),
                response: if runs(&self.influxdb) {
                    ServerResponse::Answering(InfluxdbState {
                        has_database: self.database,
                        retention: Some(self.keeps).filter(|_| self.database),
                    })
                } else {
                    ServerResponse::Unasked
                },
                ..model::observed_server()
            },
            grafana: ObservedServer { last_image, ..grafana },
            ..model::observed()
        }
    }

    /// Executes one step as the real systems would; a violated precondition is a failure. Returns
    /// `false` if Grafana rejects the known passwords, which ends the run.
    #[must_use]
    pub fn execute(&mut self, case: Case, login: Option<Credential>, step: &Step) -> bool {
        match *step {
            Step::PullImage(role) => self.server(role).image = true,
            Step::CheckAddress(role, publish) => {
                assert!(self.server(role).image && self.kept().is_some(), "there is nothing to check it with");
                let is_held = |srv: &Srv| {
                    srv.container.is_some_and(|actual| {
                        let ip = if actual.open { "0.0.0.0" } else { "127.0.0.1" };
                        is_up(actual.run) && collide(SocketAddr::new(ip.parse().unwrap(), actual.port), publish)
                    })
                };
                assert!(!is_held(&self.influxdb) && !is_held(&self.grafana), "a managed container holds it");
                return !(case.no_address && role == Role::Grafana);
            }
            Step::CreateNetwork => {
                assert!(self.networks.is_empty(), "newer engines refuse a second network of one name");
                self.networks.push(self.next_id);
                self.next_id += 1;
            }
            Step::RemoveDuplicateNetworks => self.networks.truncate(1),
            Step::RemoveNetwork => {
                let attached = |srv: &Srv| srv.container.is_some_and(|actual| actual.run == RunState::Running);
                assert!(!attached(&self.influxdb) && !attached(&self.grafana), "the network is in use");
                assert!(!self.network_is_used, "another container uses the network");
                self.networks.clear();
            }
            Step::SaveSettings { keeps_retention, .. } => {
                self.settings = Thing::Right;
                if let Some(desired) = case.retention.filter(|_| !keeps_retention && !self.remembers) {
                    let deletes = self.database && desired.is_shorter_than(self.keeps);
                    assert!(self.asked || !deletes, "an unconfirmed retention is remembered");
                    self.remembers = true;
                }
            }
            Step::RemoveSettings => {
                (self.settings, self.remembers, self.restore) = (Thing::Missing, false, None);
            }
            Step::BeginRestore(ref record) => {
                assert!(self.settings == Thing::Missing || self.restore.is_some(), "an instance is overwritten");
                (self.settings, self.restore) = (Thing::Right, Some(record.restore.process));
            }
            Step::FinishRestore(ref record) => {
                assert_eq!(self.restore, Some(record.restore.process), "another run took it over");
                self.restore = None;
            }
            Step::CreateVolume(role) => self.server(role).volume = true,
            Step::RemoveVolume(role) => {
                assert!(self.server(role).container.is_none(), "the volume is in use");
                self.server(role).volume = false;
                self.empty(role);
            }
            Step::CreateContainer(ref new) => self.create(new, case),
            Step::WriteFirstPassword(password) => {
                assert_eq!(self.db, None, "a password is written before the first start");
                self.file = self.password(password, case);
                assert_ne!(self.file, None);
            }
            Step::TryLogin(login) => {
                assert_eq!(self.grafana.container.unwrap().run, RunState::Running);
                if self.db != self.password(login, case) {
                    return false;
                }
            }
            Step::StorePassword { login, replaces_pending } => {
                assert!(self.grafana.container.is_some());
                let accepted = self.password(login, case);
                assert_eq!(accepted, self.db, "only what Grafana accepted is stored");
                self.file = accepted;
                self.pending = if replaces_pending { accepted } else { self.pending };
            }
            Step::WritePendingPassword(new) => self.pending = self.password(new, case),
            Step::ChangePassword(new) => {
                let actual = self.grafana.container.unwrap();
                assert!(actual.run == RunState::Running && !actual.open, "only on loopback");
                assert_eq!(self.db, Some(DEFAULT), "the default password is replaced");
                self.db = self.password(new, case);
                assert!(self.db.is_some_and(|new| new != DEFAULT) && self.pending == self.db);
            }
            Step::CheckLoginForm => assert_ne!(self.db, Some(DEFAULT)),
            Step::ResetPassword(new) => {
                assert_eq!(self.grafana.container.unwrap().run, RunState::Running);
                self.db = self.password(new, case);
                assert_eq!(self.db, self.pending, "a run that ends now loses the password");
            }
            Step::WriteVersion { version, .. } => {
                let actual = self.grafana.container.unwrap();
                assert_eq!((actual.run, Version(1, actual.version)), (RunState::Running, version));
                (self.recorded, self.intended) = (Some(actual.version), None);
            }
            Step::WriteIntendedVersion { version, .. } => {
                let actual = self.grafana.container.unwrap();
                assert_eq!((actual.run, Version(1, actual.version)), (RunState::Created, version));
                (self.intended, self.intended_for) = (Some(actual.version), actual.id);
            }
            Step::ClearIntendedVersion => {
                let actual = self.grafana.container.unwrap();
                assert_eq!((actual.run, actual.id), (RunState::Created, self.intended_for));
                self.intended = None;
            }
            Step::RecordUpgrade(ref upgrade) => {
                let is_new = upgrade.state == UpgradeState::Unproven;
                assert!(!is_new || self.settings != Thing::Missing, "it is noted beside the settings");
                if self.settings == Thing::Missing {
                    // If the settings cannot be read, the engine's client writes the run's beside the record.
                    self.settings = Thing::Right;
                }
                self.upgrade = Some((upgrade.state, upgrade.id.parse().unwrap()));
                let version = |image: &NamedImage| image.id.as_ref().map_or(self.ran, |id| id.parse().unwrap());
                self.upgraded = (version(&upgrade.from), version(&upgrade.to));
                // Time passes.
                self.next_id += 1;
            }
            Step::EndUpgrade(ref end) => {
                self.upgrade = end.as_ref().map(|upgrade| (upgrade.state, upgrade.id.parse().unwrap()));
                assert!(!self.is_pending(), "the copy may be needed as long as it is recorded");
                self.copy = None;
            }
            Step::CopyDatabase { ref upgrade } => {
                let actual = self.grafana.container.unwrap();
                assert_eq!(actual.run, RunState::Created, "nothing may have the database open");
                assert_eq!(self.ran, LABEL, "what is copied is what ran before");
                let id = upgrade.parse().unwrap();
                assert_eq!(self.upgrade, Some((UpgradeState::Unproven, id)), "the record comes first");
                self.copy = Some(self.copied(id));
            }
            Step::RestoreDatabase => {
                assert_eq!(
                    self.grafana.container.unwrap().run,
                    RunState::Created,
                    "nothing may have the database open"
                );
                let copy = self.copy.take().unwrap();
                assert_eq!(self.upgrade.unwrap().1, copy.id, "another upgrade's copy");
                (self.ran, self.recorded, self.intended) = (copy.ran, copy.recorded, copy.intended);
                (self.db, self.file, self.pending) = (copy.db, copy.file, copy.pending);
            }
            Step::ProveDashboard => {
                let actual = self.grafana.container.unwrap();
                assert_eq!(actual.run, RunState::Running, "it proves what runs");
                assert!(actual.version > LABEL && !case.broken, "what proves itself is the new one");
                assert_eq!((self.recorded, self.intended), (Some(actual.version), None));
            }
            Step::RemoveContainer(role) => self.server(role).container = None,
            Step::UnpauseContainer(role) => self.server(role).container.as_mut().unwrap().run = RunState::Running,
            Step::StartContainer(role) => self.start(role, case.no_address),
            Step::AwaitAnswer(role) => {
                let actual = self.server(role).container.unwrap();
                assert_eq!(actual.run, RunState::Running, "{role} must run to answer");
                if role == Role::Grafana && case.broken && actual.version > LABEL {
                    return false;
                }
                self.slow &= role != Role::Grafana;
            }
            Step::CreateDatabase { retention, .. } => {
                assert_eq!(self.influxdb.container.unwrap().run, RunState::Running);
                if !self.database {
                    self.keeps = retention.unwrap_or(Retention::Forever);
                }
                self.database = true;
            }
            Step::SaveDashboard { .. }
            | Step::SetHome { .. }
            | Step::SaveDataSource { .. }
            | Step::SaveAlertRules(_)
            | Step::DeleteAlertRules(_)
            | Step::VerifyQuery
                if login.is_none_or(|login| self.password(login, case) != self.db) =>
            {
                panic!("nothing is signed in with {login:?}");
            }
            Step::SaveDashboard { id: DashboardId::Bundled, .. } => self.dashboard = Thing::Right,
            Step::SaveDashboard { id: DashboardId::User(0), .. } if case.own => self.own = Thing::Right,
            Step::SetRetention { from, to, .. } => {
                assert_eq!((self.database, from), (true, Some(self.keeps)), "the altered period was read before");
                assert!(self.asked || !to.is_shorter_than(self.keeps), "points are dropped without a question");
                self.keeps = to;
            }
            // `down --deregister` is for external servers, but the model has containers.
            Step::DeleteDashboard(_) | Step::DeleteFolder { .. } | Step::DeleteDataSource => unreachable!("{step}"),
            Step::SaveDashboard { .. } => unreachable!("the dashboard does not exist"),
            Step::SetHome { .. } => {
                assert_ne!(self.dashboard, Thing::Missing, "a home page must exist");
                self.home = true;
            }
            Step::SaveDataSource { .. } => self.source = Thing::Right,
            Step::SaveAlertRules(_) => {
                assert_eq!((case.alerts, self.source), (Some(true), Thing::Right), "rules ask the data source");
                assert_ne!(self.dashboard, Thing::Missing, "the objective is the dashboard's");
                self.rules = Thing::Right;
            }
            Step::DeleteAlertRules(_) => {
                assert_eq!(case.alerts, Some(false));
                self.rules = Thing::Missing;
            }
            Step::VerifyQuery => {
                assert!(
                    self.database
                        && self.influxdb.container.unwrap().run == RunState::Running
                        && self.source == Thing::Right
                );
                self.stale = false;
            }
            Step::CreateOrganisation(_) | Step::CreateFolder { .. } => unreachable!("not specified"),
        }
        let exposed = self.grafana.container.is_some_and(|actual| actual.open && actual.run == RunState::Running);
        assert!(!exposed || !self.is_open_to_all(), "a default password is accepted off loopback after {step:?}");
        true
    }

    /// A copy of Grafana's database as it is now.
    pub fn copied(&self, id: u32) -> Copied {
        Copied {
            id,
            ran: self.ran,
            recorded: self.recorded,
            intended: self.intended,
            db: self.db,
            file: self.file,
            pending: self.pending,
        }
    }

    /// Whether everyone knows the password of an administrator.
    pub fn is_open_to_all(&self) -> bool {
        self.db == Some(DEFAULT) || self.accepts_admin
    }

    pub fn is_pending(&self) -> bool {
        self.upgrade.is_some_and(|(state, _)| !matches!(state, UpgradeState::Undone | UpgradeState::Ended))
    }

    pub fn empty(&mut self, role: Role) {
        match role {
            Role::Influxdb => self.database = false,
            Role::Grafana => {
                (self.db, self.file, self.pending, self.accepts_admin) = (None, None, None, false);
                (self.ran, self.recorded, self.intended, self.copy) = (0, None, None, None);
                (self.home, self.stale) = (false, false);
                (self.dashboard, self.own, self.source) = (Thing::Missing, Thing::Missing, Thing::Missing);
                self.rules = Thing::Missing;
            }
        }
    }

    pub fn create(&mut self, new: &NewContainer, case: Case) {
        let NewContainer { role, config, image_id, usage } = new;
        let (password, open, port) = (config.password, config.is_open(), config.publish.port());
        assert_eq!(*usage == ContainerUse::Service, port != 0, "{new:?}");
        let is_named = |version: &u64| case.image(*role, *version) == config.image;
        // The engine resolves a moving tag to the desired version.
        let named = || [case.version(), LABEL, LABEL + 1].into_iter().find(is_named);
        let id = image_id.as_ref().and_then(|id| id.parse().ok()).filter(|_| *role == Role::Grafana);
        let version = id.or_else(named).unwrap_or(LABEL);
        let network = self.kept().expect("the network does not exist");
        let id = self.next_id;
        self.next_id += 1;
        let srv = self.server(*role);
        assert!(srv.container.is_none(), "the name is taken");
        assert!(srv.image, "the image does not exist");
        assert!(srv.volume, "the volume does not exist");
        let (spec, run) = (Spec::Right, RunState::Created);
        srv.container = Some(Cont { spec, network, run, password, open, port, version, id });
    }

    pub fn start(&mut self, role: Role, no_address: bool) {
        let kept = self.kept();
        let file = self.file;
        let other = if role == Role::Grafana { self.influxdb } else { self.grafana };
        let actual = self.server(role).container.as_mut().expect("nothing to start");
        let is_taken = other.container.is_some_and(|other| is_up(other.run) && other.port == actual.port);
        assert!(!is_taken, "{role} starts at a port that the other role holds");
        assert_eq!(Some(actual.network), kept, "attached to a network that is gone");
        actual.run = RunState::Running;
        let (password, version) = (actual.password, actual.version);
        assert!(!no_address || !actual.open || role != Role::Grafana, "it starts at an address that was not checked");
        if role == Role::Grafana {
            let with_file = password == PasswordSource::File;
            assert!(!with_file || file.is_some(), "Grafana ends when its password's file is missing");
            if self.db.is_none() {
                self.db = if with_file { file } else { Some(DEFAULT) };
            }
            assert!(version >= self.ran, "an older Grafana starts on a migrated database");
            let is_safe =
                matches!((self.upgrade, self.copy), (Some((UpgradeState::Unproven, id)), Some(copy)) if copy.id == id);
            assert!(self.ran == 0 || version == self.ran || is_safe, "a database is migrated without a copy");
            self.ran = version;
        }
    }

    /// The model's own definition of success.
    pub fn is_done(&self, case: Case) -> bool {
        let fine = |role: Role, srv: &Srv| {
            srv.container.is_some_and(|actual| {
                actual.spec == Spec::Right
                    && actual.port == case.port(role)
                    && actual.run == RunState::Running
                    && Some(actual.network) == self.kept()
            })
        };
        let door = self.grafana.container.is_some_and(|actual| {
            let own = self.db != Some(DEFAULT);
            let labelled = actual.password == PasswordSource::File;
            // If Grafana has its own password, the label leads the next run to the file.
            let found = if own { labelled && self.file == self.db } else { !labelled || self.file == self.db };
            actual.open == case.open && found && !(case.open && self.is_open_to_all())
        });
        let version = case.version();
        let is_version = self.grafana.container.is_some_and(|actual| actual.version == version)
            && (case.label() == Some(Version(1, version))
                || (self.recorded == Some(version) && self.intended.is_none()));
        let left_over = self.pending.is_some_and(|pending| Some(pending) != self.db);
        let labelled = self.grafana.container.is_some_and(|actual| actual.password == PasswordSource::File);
        let settled = !left_over || (self.db == Some(DEFAULT) && !labelled);
        let keeps = case.retention.is_none_or(|desired| desired == self.keeps);
        let dashboards = self.dashboard == Thing::Right && (!case.own || self.own == Thing::Right);
        let alerts = match case.alerts {
            None => true,
            Some(true) => self.rules == Thing::Right,
            Some(false) => self.rules == Thing::Missing,
        };
        let inside = self.database && keeps && self.source == Thing::Right && dashboards && alerts && !self.stale;
        let servers = fine(Role::Influxdb, &self.influxdb) && fine(Role::Grafana, &self.grafana) && !self.is_pending();
        let remembered = self.settings == Thing::Right && (case.retention.is_none() || self.remembers);
        self.networks.len() == 1 && servers && is_version && door && settled && inside && remembered
    }
}

/// Whether a container in this state holds its published port.
pub fn is_up(run: RunState) -> bool {
    matches!(run, RunState::Running | RunState::Paused | RunState::Restarting)
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
    let empty = Srv { image: true, volume: false, container: None };
    World {
        networks: vec![],
        network_is_used: false,
        next_id: 1,
        influxdb: empty,
        grafana: empty,
        database: false,
        keeps: Retention::Forever,
        asked: false,
        db: None,
        accepts_admin: false,
        file: None,
        pending: None,
        ran: 0,
        recorded: None,
        intended: None,
        intended_for: 0,
        upgrade: None,
        upgraded: (LABEL, LABEL + 1),
        copy: None,
        dashboard: Thing::Missing,
        own: Thing::Missing,
        source: Thing::Missing,
        rules: Thing::Missing,
        home: false,
        stale: false,
        settings: Thing::Missing,
        remembers: false,
        restore: None,
        slow: false,
    }
}

/// The state after a first `up`.
pub fn whole_world() -> World {
    let srv = |role: Role| {
        let actual = Cont {
            spec: Spec::Right,
            network: 1,
            run: RunState::Running,
            password: PasswordSource::Default,
            open: false,
            port: role.port(),
            version: LABEL,
            id: 0,
        };
        Srv { image: true, volume: true, container: Some(actual) }
    };
    World {
        networks: vec![1],
        next_id: 2,
        influxdb: srv(Role::Influxdb),
        grafana: srv(Role::Grafana),
        database: true,
        db: Some(DEFAULT),
        ran: LABEL,
        dashboard: Thing::Right,
        source: Thing::Right,
        home: true,
        settings: Thing::Right,
        ..empty_world()
    }
}

/// The plan for a modified snapshot of that state.
pub fn plan_with(stack: &Stack, change: impl FnOnce(&mut Observed)) -> Plan {
    let mut seen = whole_world().observe(&self::stack(Case::default()), Case::default());
    change(&mut seen);
    plan::up(stack, &seen, UpOptions::default())
}

pub fn steps(plan: &Plan) -> Vec<Step> {
    plan.steps().map(|(step, _)| step.clone()).collect()
}

pub fn restore(run: u32) -> UnfinishedRestore {
    UnfinishedRestore {
        id: run.to_string(),
        archive: "/saved".into(),
        digest: "d1".into(),
        machine: "box".into(),
        process: run,
    }
}
