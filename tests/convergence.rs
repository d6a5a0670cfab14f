//! The planner against a model of engine, InfluxDB and Grafana: from every world, and after a crash
//! behind any step, `up` reaches the desired state, violates no precondition on the way, and never
//! publishes a Grafana that accepts admin/admin or deletes data without confirmation.
//!
//! The model defines success itself, without the planner.

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use clipper_metrics::model::address::{ServerUrl, collide};
use clipper_metrics::model::alerts::{AlertRule, AlertSettings, Alerts};
use clipper_metrics::model::container_config::{ContainerConfig, PasswordSource};
use clipper_metrics::model::image::ImageRef;
use clipper_metrics::model::invocation::Invocation;
use clipper_metrics::model::observed::{
    Account, AlertRules, ContainerState, Dashboard as SeenDashboardState, DataSource as SeenSource, Folder, Grafana,
    Image, Influxdb, ManagedServer, Network, Observed, Organisation, OurContainer, PasswordFile, PortHolder, Query,
    RunState, SeenAlerts, SeenDashboard, SeenLogin, SeenRule, Server, ServerResponse, StoredSettings, Unreadable,
    Volume,
};
use clipper_metrics::model::plan::{self, BlockReason, Finding, NewPassword, Phase, Plan, Resource, Step, UpOptions};
use clipper_metrics::model::retention::Retention;
use clipper_metrics::model::role::Role;
use clipper_metrics::model::stack::{
    Dashboard, DashboardId, DataSource, DesiredContainer, EngineLocation, Login, Loss, Lost, MadeFor, Pull, Remembered,
    Restore, Service, Settings, Stack, UnknownSetting, UserDashboard,
};
use clipper_metrics::model::upgrade::{NamedImage, Upgrade, UpgradeState};
use clipper_metrics::model::version::Version;

const RUNS: [RunState; 6] =
    [RunState::Created, RunState::Running, RunState::Paused, RunState::Restarting, RunState::Exited(1), RunState::Dead];

/// Passwords by number.
type Password = u8;
/// Grafana's default.
const DEFAULT: Password = 0;
/// Set by an earlier run.
const OLD: Password = 1;
/// Being set by an earlier run when it died.
const PENDING: Password = 2;
/// Supplied to this run.
const GIVEN: Password = 3;
/// Generated.
const NEW: Password = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Spec {
    Right,
    Wrong,
    Unreadable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Cont {
    spec: Spec,
    /// The network that it was created on; ids only grow.
    network: u32,
    run: RunState,
    password: PasswordSource,
    /// Whether it is published off loopback.
    open: bool,
    /// The published port; 0 means a port chosen by the engine, where only the run that created the
    /// container looks.
    port: u16,
    /// The version of its image.
    version: u64,
    /// The engine's id for it.
    id: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Srv {
    image: bool,
    volume: bool,
    container: Option<Cont>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Thing {
    Missing,
    Wrong,
    Right,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// Ids of networks with the instance's name and label.
    networks: Vec<u32>,
    /// Whether a foreign container is attached to them.
    network_is_used: bool,
    /// The next id of a network or container.
    next_id: u32,
    influxdb: Srv,
    grafana: Srv,
    database: bool,
    /// The database's retention period.
    keeps: Retention,
    /// Whether this run has requested confirmation of a shorter retention period.
    asked: bool,
    /// The password in Grafana's database; `None` before the first start.
    db: Option<Password>,
    /// The password in the volume's file.
    file: Option<Password>,
    /// The pending password of a run that died while setting it.
    pending: Option<Password>,
    /// The newest version that has run on Grafana's database.
    ran: u64,
    /// The version recorded in a file in the volume, and the announced one.
    recorded: Option<u64>,
    promised: Option<u64>,
    /// The container of the announced version.
    promised_for: u32,
    /// The recorded upgrade, by number.
    upgrade: Option<(UpgradeState, u32)>,
    /// The copy of the database.
    copy: Option<Copied>,
    dashboard: Thing,
    /// The user's dashboard.
    own: Thing,
    source: Thing,
    /// The alert rules: as desired, unfinished, or missing.
    rules: Thing,
    home: bool,
    /// Whether Grafana answers with outdated settings.
    stale: bool,
    /// Whether a running Grafana does not answer yet.
    slow: bool,
    settings: Thing,
    /// Whether the remembered settings include this run's retention period.
    remembers: bool,
    /// The run whose restore is recorded, and the restoring run.
    restore: Option<u32>,
    restoring: u32,
}

/// A copy of Grafana's database: its upgrade, and the state at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Copied {
    id: u32,
    ran: u64,
    recorded: Option<u64>,
    promised: Option<u64>,
    db: Option<Password>,
    file: Option<Password>,
    pending: Option<Password>,
}

/// The input of this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Case {
    /// Grafana is to be published off loopback.
    open: bool,
    /// A supplied password.
    given: Option<Password>,
    /// Whether a new password is requested.
    reset: bool,
    /// Whether the image is newer than before.
    upgrade: bool,
    /// Whether the newer one migrates the database but never answers.
    broken: bool,
    /// The desired retention period.
    retention: Option<Retention>,
    /// Whether the user has a dashboard.
    own: bool,
    /// Whether alert rules are turned on or off.
    alerts: Option<bool>,
    /// The desired ports of InfluxDB and Grafana.
    ports: Option<[u16; 2]>,
    /// Whether the engine's host lacks Grafana's address.
    no_address: bool,
}

/// A long retention period, and a short one.
const DAYS_90: Retention = Retention::For(Duration::from_secs(90 * 86_400));
const DAYS_2: Retention = Retention::For(Duration::from_secs(2 * 86_400));

/// The version that volumes were created for, according to their label.
const LABEL: u64 = 2;

impl Case {
    /// The version of the specified image.
    const fn version(self) -> u64 {
        if self.upgrade { LABEL + 1 } else { LABEL }
    }

    /// The desired port of a role.
    fn port(self, role: Role) -> u16 {
        self.ports.map_or(role.port(), |ports| ports[role as usize])
    }
}

fn image_of(role: Role, version: u64) -> ImageRef {
    let repository = match role {
        Role::Influxdb => "influxdb",
        Role::Grafana => "grafana/grafana",
    };
    ImageRef::parse(&format!("{repository}:1.{version}")).unwrap()
}

fn stack(case: Case) -> Stack {
    let spec = |role: Role, address: &str| {
        let own = case.given.is_some_and(|given| given != DEFAULT);
        let file = role == Role::Grafana && (case.open || own);
        DesiredContainer {
            role,
            name: role.object_name("x"),
            specification: ContainerConfig {
                image: image_of(role, if role == Role::Grafana { case.version() } else { LABEL }),
                publish: SocketAddr::new(address.parse().unwrap(), case.port(role)),
                network: "x".into(),
                volume: role.object_name("x"),
                read_only: true,
                password: if file { PasswordSource::File } else { PasswordSource::Default },
                host_gateway: false,
                environment: BTreeMap::new(),
            },
            engine_host: None,
            pinned_image: None,
        }
    };
    let address = match case {
        Case { no_address: true, .. } => "192.0.2.7",
        Case { open: true, .. } => "0.0.0.0",
        Case { open: false, .. } => "127.0.0.1",
    };
    let remembered = |value: String| Remembered { value, of_file: false };
    let mut values = BTreeMap::from([("database".to_string(), remembered("d".into()))]);
    values.extend(case.retention.map(|time| (Retention::SETTING.to_string(), remembered(time.to_string()))));
    Stack {
        instance: "x".into(),
        influxdb: Service::Container(Box::new(spec(Role::Influxdb, "127.0.0.1"))),
        grafana: Service::Container(Box::new(spec(Role::Grafana, address))),
        database: "d".into(),
        retention: case.retention,
        organisation: None,
        folder: None,
        data_source: DataSource {
            uid: "x".into(),
            name: "X".into(),
            url: "http://influxdb:8086".into(),
            is_url_chosen: false,
            database: "d".into(),
            user: String::new(),
            machine: None,
        },
        dashboard: Dashboard {
            uid: "x".into(),
            title: "X".into(),
            content_hash: "new".into(),
            objective: None,
            models: None,
        },
        user_dashboards: case.own.then(own_dashboard).into_iter().collect(),
        unreadable_dashboards: vec![],
        default_image: "grafana:1".into(),
        restore: None,
        replaced_restore: None,
        refused_image: None,
        alerts: match case.alerts {
            None => Alerts::NotManaged,
            Some(false) => Alerts::Off,
            Some(true) => Alerts::On(alert_settings()),
        },
        login: Login { user: "admin".into(), token: false, given: case.given.is_some() },
        settings: Some(Settings { values, lost: None }),
        pull: Pull::Missing,
        timeout: Duration::from_secs(1),
        engine: EngineLocation::Here,
        clipper: None,
        invocation: Invocation::default(),
        own_address: None,
    }
}

fn alert_settings() -> AlertSettings {
    let (latency_after, silence_after) = (Duration::from_secs(30), Duration::from_secs(60));
    AlertSettings { latency_after, silence_after, content_hash: "new".into() }
}

fn own_dashboard() -> UserDashboard {
    UserDashboard {
        path: "/a.json".into(),
        uid: "a".into(),
        title: "A".into(),
        content_hash: "new".into(),
        content: String::new(),
        needs: vec![],
        notes: vec![],
    }
}

fn seen_dashboard(thing: Thing) -> SeenDashboardState {
    match thing {
        Thing::Missing => SeenDashboardState::Missing,
        other => SeenDashboardState::Present(SeenDashboard {
            edited: false,
            provisioned: false,
            content_hash: Some(if other == Thing::Right { "new" } else { "old" }.into()),
            objective: None,
            models: vec![],
            made_for: None,
        }),
    }
}

fn seen_source(fields: BTreeMap<String, String>, made_for: MadeFor) -> SeenSource {
    SeenSource::Ours { fields, made_for, provisioned: false }
}

fn seen_alerts(thing: Thing, case: Case) -> AlertRules {
    if case.alerts.is_none() {
        return AlertRules::NotLookedAt;
    }
    let rule = |rule| match thing {
        Thing::Missing => SeenRule::Missing,
        Thing::Wrong => {
            SeenRule::Present { edited: false, provisioned: false, fields: BTreeMap::new(), made_for: None }
        }
        Thing::Right => SeenRule::Present {
            edited: false,
            provisioned: false,
            fields: alert_settings().fields(rule, Dashboard::DEFAULT_OBJECTIVE),
            made_for: None,
        },
    };
    AlertRules::Seen(SeenAlerts { latency: rule(AlertRule::Latency), silence: rule(AlertRule::Silence) })
}

fn named_image(version: u64) -> NamedImage {
    NamedImage { name: image_of(Role::Grafana, version), id: Some(version.to_string()) }
}

impl World {
    fn server(&mut self, role: Role) -> &mut Srv {
        match role {
            Role::Influxdb => &mut self.influxdb,
            Role::Grafana => &mut self.grafana,
        }
    }

    fn kept(&self) -> Option<u32> {
        self.networks.first().copied()
    }

    /// The passwords to try, in order, derived from the files and labels only.
    fn candidates(&self, case: Case) -> Vec<Password> {
        let have = self.grafana.container.unwrap();
        let files: Vec<Password> = self.pending.into_iter().chain(self.file).collect();
        let labelled = have.password == PasswordSource::File && have.spec != Spec::Unreadable;
        match case.given {
            // While moving off loopback, the default password may still be in force.
            Some(given) if case.open && !have.open && have.spec != Spec::Unreadable => vec![given, DEFAULT],
            Some(given) => vec![given],
            None if labelled && !files.is_empty() => files,
            None => [vec![DEFAULT], files].concat(),
        }
    }

    fn signed_in(&self, case: Case) -> Option<Password> {
        self.candidates(case).into_iter().find(|password| Some(*password) == self.db)
    }

    fn seen_login(&self, password: Password) -> SeenLogin {
        let have = self.grafana.container.unwrap();
        let account = if password == DEFAULT { Account::DefaultPassword } else { Account::OwnPassword };
        let labelled = have.password == PasswordSource::File && have.spec != Spec::Unreadable;
        let settled = self.pending.is_none_or(|pending| pending == password);
        let file = match self.file {
            _ if password == DEFAULT && !labelled => PasswordFile::NotRead,
            None if password == DEFAULT && settled => PasswordFile::NotRead,
            None => PasswordFile::Missing,
            Some(file) if file == password && settled => PasswordFile::Accepted,
            Some(_) => PasswordFile::Outdated,
        };
        SeenLogin { account, file }
    }

    /// The observed state of this world.
    fn observe(&self, want: &Stack, case: Case) -> Observed {
        let network = match self.networks.as_slice() {
            [] => Network::Free,
            ids => Network::Ours(ids.iter().map(ToString::to_string).collect()),
        };
        let container = |srv: &Srv, spec: &DesiredContainer| match srv.container {
            None => ContainerState::Absent,
            Some(have) => {
                let mut specification = ContainerConfig { password: have.password, ..spec.specification.clone() };
                let host = if have.open { "0.0.0.0" } else { "127.0.0.1" };
                specification.image = image_of(spec.role, have.version);
                specification.publish = SocketAddr::new(host.parse().unwrap(), have.port);
                if have.spec == Spec::Wrong {
                    specification.environment.insert("OLD".into(), "1".into());
                }
                ContainerState::Ours(Box::new(OurContainer {
                    id: "c".into(),
                    name: spec.name.clone(),
                    name_taken: false,
                    specification: (have.spec != Spec::Unreadable).then_some(specification),
                    image_id: have.version.to_string(),
                    on_network: self.kept() == Some(have.network),
                    run: have.run,
                    crashes_repeatedly: false,
                    has_just_started: self.slow,
                    started_at: None,
                    published: self.slow.then(|| SocketAddr::from(([127, 0, 0, 1], have.port))),
                    has_data: (spec.role == Role::Grafana).then_some(self.db.is_some()),
                }))
            }
        };
        let runs = |srv: &Srv| srv.container.is_some_and(|have| have.run == RunState::Running);
        let port_holder = |role: Role, other: &Srv, other_role: Role| {
            let holds = other.container.is_some_and(|have| is_up(have.run) && have.port == case.port(role));
            holds.then_some(PortHolder::OtherRole(other_role))
        };
        let image = |srv: &Srv, version: u64| srv.image.then(|| Image { id: version.to_string(), user: String::new() });
        let is_broken = |have: &Cont| case.broken && have.version > LABEL;
        let answers = self.grafana.container.filter(|have| runs(&self.grafana) && !is_broken(have));
        let runs_version = answers.map(|have| have.version);
        let volume = |srv: &Srv| {
            if srv.volume {
                Volume::Ours { user: Some(String::new()), version: Some(Version(1, 2)), image: None }
            } else {
                Volume::Absent
            }
        };
        let query = match self.source {
            Thing::Missing => Query::Unasked,
            Thing::Right if self.database && runs(&self.influxdb) && !self.stale => Query::Ok,
            _ => Query::Failing("no".into()),
        };
        let is_dumb = self.grafana.container.is_some_and(|have| is_broken(&have));
        let signed_in = if runs(&self.grafana) && !is_dumb { self.signed_in(case) } else { None };
        let probe = match signed_in {
            _ if !runs(&self.grafana) => ServerResponse::Unasked,
            _ if is_dumb || self.slow => ServerResponse::Silent("it was made so".into()),
            None => ServerResponse::Refusing("wrong password".into()),
            Some(_) => ServerResponse::Answering(Grafana {
                organisation: Organisation::Present,
                folder: Folder::NotWanted,
                data_source: match self.source {
                    Thing::Missing => SeenSource::Missing,
                    Thing::Right => seen_source(want.data_source.fields(), want.data_source.made_for()),
                    Thing::Wrong => seen_source(
                        BTreeMap::new(),
                        MadeFor { url: String::new(), database: String::new(), machine: None },
                    ),
                },
                dashboard: seen_dashboard(self.dashboard),
                user_dashboards: want.user_dashboards.iter().map(|_| seen_dashboard(self.own)).collect(),
                alerts: seen_alerts(self.rules, case),
                query,
                catalogue: None,
            }),
        };
        let values = match self.settings {
            Thing::Missing => None,
            Thing::Wrong => Some(BTreeMap::new()),
            Thing::Right => {
                let mut values = want.settings.as_ref().unwrap().values.clone();
                if !self.remembers {
                    values.remove(Retention::SETTING);
                }
                Some(values)
            }
        };
        Observed {
            engine: None,
            network,
            network_users: self.network_is_used.then(|| "somebody".to_string()).into_iter().collect(),
            settings: StoredSettings {
                numbers: values.iter().map(|_| 1).collect(),
                values,
                upgrade: self.upgrade.map(|(state, id)| Upgrade {
                    id: id.to_string(),
                    from: named_image(LABEL),
                    to: named_image(LABEL + 1),
                    state,
                }),
                restore: self.restore.map(restore),
            },
            influxdb: Server {
                image: image(&self.influxdb, LABEL),
                volume: volume(&self.influxdb),
                container: container(&self.influxdb, want.container(Role::Influxdb).unwrap()),
                port_holder: port_holder(Role::Influxdb, &self.grafana, Role::Grafana),
                volume_user: None,
                free_port: None,
                managed_behind: None,
                probe: if runs(&self.influxdb) {
                    ServerResponse::Answering(Influxdb {
                        has_database: self.database,
                        retention: Some(self.keeps).filter(|_| self.database),
                    })
                } else {
                    ServerResponse::Unasked
                },
                version: None,
                login: SeenLogin::default(),
                recorded: None,
            },
            grafana: Server {
                image: image(&self.grafana, case.version()),
                volume: volume(&self.grafana),
                container: container(&self.grafana, want.container(Role::Grafana).unwrap()),
                port_holder: port_holder(Role::Grafana, &self.influxdb, Role::Influxdb),
                volume_user: None,
                free_port: None,
                managed_behind: None,
                probe,
                version: runs_version.map(|version| format!("1.{version}.0")),
                login: signed_in.map(|password| self.seen_login(password)).unwrap_or_default(),
                recorded: match runs_version {
                    _ if !self.grafana.volume => None,
                    Some(version) if version != LABEL => self.recorded,
                    _ => Some(LABEL),
                }
                .map(|version| Version(1, version)),
            },
            others: vec![],
            lookalikes: vec![],
        }
    }

    /// Executes one step as the real systems would; a violated precondition is a failure. Returns
    /// `false` if Grafana rejects the known passwords, which ends the run.
    #[must_use]
    fn execute(&mut self, case: Case, step: &Step) -> bool {
        match *step {
            Step::PullImage(role) => self.server(role).image = true,
            Step::CheckImage { role, restores } => {
                assert!(self.server(role).image);
                assert_eq!(restores, role == Role::Grafana && self.restores(case));
                let waits = self
                    .grafana
                    .container
                    .is_some_and(|have| have.run == RunState::Created && have.id == self.promised_for);
                let promised = self.promised.filter(|_| !waits);
                if role == Role::Grafana && case.version() < self.newest(promised) && !restores {
                    assert!(self.ran > case.version(), "refused for nothing");
                    return false;
                }
            }
            Step::CheckAddress(role, publish) => {
                assert!(self.server(role).image && self.kept().is_some(), "there is nothing to check it with");
                let is_held = |srv: &Srv| {
                    srv.container.is_some_and(|have| {
                        let ip = if have.open { "0.0.0.0" } else { "127.0.0.1" };
                        is_up(have.run) && collide(SocketAddr::new(ip.parse().unwrap(), have.port), publish)
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
            Step::RemoveSpareNetworks => self.networks.truncate(1),
            Step::RemoveNetwork => {
                let attached = |srv: &Srv| srv.container.is_some_and(|have| have.run == RunState::Running);
                assert!(!attached(&self.influxdb) && !attached(&self.grafana), "the network is in use");
                assert!(!self.network_is_used, "another container uses the network");
                self.networks.clear();
            }
            Step::SaveSettings { keeps_retention } => {
                self.settings = Thing::Right;
                if let Some(want) = case.retention.filter(|_| !keeps_retention && !self.remembers) {
                    let deletes = self.database && want.is_shorter_than(self.keeps);
                    assert!(self.asked || !deletes, "an unconfirmed retention is remembered");
                    self.remembers = true;
                }
            }
            Step::RemoveSettings => {
                (self.settings, self.remembers, self.restore) = (Thing::Missing, false, None);
            }
            Step::BeginRestore => {
                assert!(self.settings == Thing::Missing || self.restore.is_some(), "an instance is overwritten");
                (self.settings, self.restore) = (Thing::Right, Some(self.restoring));
            }
            Step::FinishRestore => {
                assert_eq!(self.restore, Some(self.restoring), "another run took it over");
                self.restore = None;
            }
            Step::CreateVolume(role) => self.server(role).volume = true,
            Step::RemoveVolume(role) => {
                assert!(self.server(role).container.is_none(), "the volume is in use");
                self.server(role).volume = false;
                self.empty(role);
            }
            Step::CreateContainer(role, password) => {
                let source = match password {
                    NewPassword::Known(source) => source,
                    NewPassword::AsVolume if self.file.is_some() => PasswordSource::File,
                    NewPassword::AsVolume => PasswordSource::Default,
                };
                if role == Role::Grafana
                    && password == NewPassword::AsVolume
                    && case.version() < self.newest(self.promised)
                {
                    assert!(self.ran > case.version(), "refused for nothing");
                    return false;
                }
                let version = if role == Role::Grafana { case.version() } else { LABEL };
                self.create(role, source, role == Role::Grafana && case.open, case.port(role), version);
            }
            Step::CreatePrivateContainer { ref last } => {
                if self.db.is_none() && case.given.is_some() {
                    self.file = case.given;
                }
                let source = if self.file.is_some() { PasswordSource::File } else { PasswordSource::Default };
                // From the last image that ran.
                let last = self.last_version(last.as_ref());
                let version = if self.db.is_some() { last } else { case.version() };
                self.create(Role::Grafana, source, false, 0, version);
                if self.db.is_none() && version > self.newest(self.promised) {
                    (self.promised, self.promised_for) = (Some(version), self.grafana.container.unwrap().id);
                }
            }
            Step::WritePassword => {
                assert!(
                    self.db.is_none() || self.file.is_some(),
                    "written before the first start, else after Grafana accepted it"
                );
                self.file = self.file.or(Some(case.given.unwrap_or(NEW)));
            }
            Step::TryPassword => {
                assert_eq!(self.grafana.container.unwrap().run, RunState::Running);
                if self.db != case.given {
                    return false;
                }
            }
            Step::StorePassword => {
                assert!(self.grafana.container.is_some());
                let accepted = if case.given == self.db { case.given } else { self.signed_in(case) };
                assert_eq!(accepted, self.db, "only what Grafana accepted is stored");
                if self.file.is_some() || self.pending.is_some() || accepted != Some(DEFAULT) {
                    self.file = accepted;
                    self.pending = self.pending.and(accepted);
                }
            }
            Step::SecurePassword => {
                let have = self.grafana.container.unwrap();
                assert!(have.run == RunState::Running && !have.open, "only on loopback");
                let known: Vec<Password> = match case.given {
                    Some(given) => vec![given],
                    None => self.pending.into_iter().chain(self.file).collect(),
                };
                let accepted = known.into_iter().find(|one| *one != DEFAULT && Some(*one) == self.db);
                let new = match accepted {
                    Some(accepted) => accepted,
                    None if self.db == Some(DEFAULT) => case.given.unwrap_or(NEW),
                    None => return false,
                };
                (self.db, self.file, self.pending) = (Some(new), Some(new), Some(new));
            }
            Step::ResetPassword => {
                assert_eq!(self.grafana.container.unwrap().run, RunState::Running);
                let new = Some(case.given.unwrap_or(NEW));
                (self.db, self.file, self.pending) = (new, new, new);
            }
            Step::ProtectDatabase { ref last } => {
                let have = self.grafana.container.unwrap();
                assert_eq!(have.run, RunState::Created, "nothing may have the database open");
                let of_this = |id| self.copy.is_some_and(|copy| copy.id == id);
                let is_kept = matches!(self.upgrade, Some((UpgradeState::Unproven, id)) if of_this(id));
                let last = self.last_version(last.as_ref());
                // If the new version had run, that would be recorded.
                let is_kept = is_kept && self.newest(self.promised) > LABEL;
                if self.db.is_some() && !is_kept && have.version > last {
                    assert_eq!((last, self.ran), (LABEL, LABEL), "what is copied is what ran before");
                    assert_ne!(self.settings, Thing::Missing, "it is noted beside the settings");
                    self.next_id += 1;
                    self.upgrade = Some((UpgradeState::Unproven, self.next_id));
                    self.copy = Some(Copied {
                        id: self.next_id,
                        ran: self.ran,
                        recorded: self.recorded,
                        promised: self.promised,
                        db: self.db,
                        file: self.file,
                        pending: self.pending,
                    });
                }
            }
            Step::CreateForRestore(role) => {
                let version = if role == Role::Grafana { case.version() } else { LABEL };
                self.create(role, PasswordSource::Default, false, 0, version);
            }
            Step::RestoreDatabase => {
                let have = self.grafana.container.unwrap();
                assert_eq!(have.run, RunState::Created, "nothing may have the database open");
                if let (
                    Some((UpgradeState::Unproven | UpgradeState::Refused | UpgradeState::Postponed, id)),
                    Some(copy),
                ) = (self.upgrade, self.copy)
                    && id == copy.id
                {
                    (self.ran, self.recorded, self.promised) = (copy.ran, copy.recorded, copy.promised);
                    (self.db, self.file, self.pending) = (copy.db, copy.file, copy.pending);
                }
                self.upgrade = match self.upgrade {
                    Some((UpgradeState::Refused | UpgradeState::Undone, id)) => Some((UpgradeState::Undone, id)),
                    Some((UpgradeState::Postponed | UpgradeState::Ended, id)) => Some((UpgradeState::Ended, id)),
                    _ => None,
                };
                self.copy = None;
            }
            Step::FinishUpgrade => {
                let have = self.grafana.container.unwrap();
                assert_eq!(have.run, RunState::Running, "it proves what runs");
                if case.upgrade && matches!(self.upgrade, Some((UpgradeState::Unproven, _))) {
                    assert!(have.version > LABEL && !case.broken, "what proves itself is the new one");
                    (self.upgrade, self.copy) = (None, None);
                    (self.recorded, self.promised) = (Some(have.version), None);
                }
            }
            Step::RecordVersion => {
                let have = self.grafana.container.unwrap();
                if have.run == RunState::Running {
                    (self.recorded, self.promised) = (Some(have.version), None);
                } else if have.version < self.newest(self.promised) {
                    assert!(self.ran > have.version, "refused for nothing");
                    return false;
                } else if have.version > self.newest(self.promised) {
                    (self.promised, self.promised_for) = (Some(have.version), have.id);
                }
            }
            Step::RemoveContainer(role) => {
                let had = self.server(role).container.take();
                if role == Role::Grafana {
                    // A container that was never started has migrated nothing.
                    let waits = had.is_some_and(|had| had.run == RunState::Created && had.id == self.promised_for);
                    self.promised = self.promised.filter(|_| !waits);
                }
            }
            Step::UnpauseContainer(role) => self.server(role).container.as_mut().unwrap().run = RunState::Running,
            Step::StartContainer(role) => self.start(role, case.no_address),
            Step::AwaitAnswer(role) => {
                let have = self.server(role).container.unwrap();
                assert_eq!(have.run, RunState::Running, "{role} must run to answer");
                if role == Role::Grafana && case.broken && have.version > LABEL {
                    return false;
                }
                self.slow &= role != Role::Grafana;
            }
            Step::CreateDatabase => {
                assert_eq!(self.influxdb.container.unwrap().run, RunState::Running);
                if !self.database {
                    self.keeps = case.retention.unwrap_or(Retention::Forever);
                }
                self.database = true;
            }
            Step::SaveDashboard { .. }
            | Step::SetHome
            | Step::SaveDataSource { .. }
            | Step::SaveAlertRules { .. }
            | Step::DeleteAlertRules { .. }
            | Step::VerifyQuery
                if self.signed_in(case).is_none() =>
            {
                return false;
            }
            Step::SaveDashboard { id: DashboardId::Bundled, .. } => self.dashboard = Thing::Right,
            Step::SaveDashboard { id: DashboardId::User(0), .. } if case.own => self.own = Thing::Right,
            Step::SetRetention { from } => {
                let want = case.retention.unwrap();
                assert_eq!((self.database, from), (true, Some(self.keeps)), "the altered period was read before");
                assert!(self.asked || !want.is_shorter_than(self.keeps), "points are dropped without a question");
                self.keeps = want;
            }
            // `down --deregister` is for external servers, but the model has containers.
            Step::DeleteDashboard(_) | Step::DeleteFolder | Step::DeleteDataSource => unreachable!("{step}"),
            Step::SaveDashboard { .. } => unreachable!("the dashboard does not exist"),
            Step::SetHome => {
                assert_ne!(self.dashboard, Thing::Missing, "a home page must exist");
                self.home = true;
            }
            Step::SaveDataSource { .. } => self.source = Thing::Right,
            Step::SaveAlertRules { .. } => {
                assert_eq!((case.alerts, self.source), (Some(true), Thing::Right), "rules ask the data source");
                assert_ne!(self.dashboard, Thing::Missing, "the objective is the dashboard's");
                self.rules = Thing::Right;
            }
            Step::DeleteAlertRules { .. } => {
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
            Step::CreateOrganisation | Step::CreateFolder => unreachable!("not specified"),
        }
        let exposed = self.grafana.container.is_some_and(|have| have.open && have.run == RunState::Running);
        assert!(!exposed || self.db != Some(DEFAULT), "admin/admin is accepted off loopback after {step:?}");
        true
    }

    /// The last version that ran, by the container that shows it or else by the files in the volume.
    fn last_version(&self, shown: Option<&NamedImage>) -> u64 {
        let shown = shown.map(|image| image.id.as_ref().unwrap().parse().unwrap());
        shown.or(self.promised).or(self.recorded).unwrap_or(LABEL)
    }

    fn is_pending(&self) -> bool {
        self.upgrade.is_some_and(|(state, _)| !matches!(state, UpgradeState::Undone | UpgradeState::Ended))
    }

    /// Whether the previous database is restored before the desired image starts.
    fn restores(&self, case: Case) -> bool {
        match self.upgrade {
            Some((UpgradeState::Unproven, _)) => !case.upgrade,
            Some((UpgradeState::Refused | UpgradeState::Postponed, _)) => true,
            _ => false,
        }
    }

    fn empty(&mut self, role: Role) {
        match role {
            Role::Influxdb => self.database = false,
            Role::Grafana => {
                (self.db, self.file, self.pending) = (None, None, None);
                (self.ran, self.recorded, self.promised, self.copy) = (0, None, None, None);
                (self.home, self.stale) = (false, false);
                (self.dashboard, self.own, self.source) = (Thing::Missing, Thing::Missing, Thing::Missing);
                self.rules = Thing::Missing;
            }
        }
    }

    /// The newest version that may have run on Grafana's database.
    fn newest(&self, promised: Option<u64>) -> u64 {
        self.recorded.unwrap_or(LABEL).max(promised.unwrap_or_default())
    }

    fn create(&mut self, role: Role, password: PasswordSource, open: bool, port: u16, version: u64) {
        let network = self.kept().expect("the network does not exist");
        let id = self.next_id;
        self.next_id += 1;
        let srv = self.server(role);
        assert!(srv.container.is_none(), "the name is taken");
        assert!(srv.image, "the image does not exist");
        assert!(srv.volume, "the volume does not exist");
        let (spec, run) = (Spec::Right, RunState::Created);
        srv.container = Some(Cont { spec, network, run, password, open, port, version, id });
    }

    fn start(&mut self, role: Role, no_address: bool) {
        let kept = self.kept();
        let file = self.file;
        let other = if role == Role::Grafana { self.influxdb } else { self.grafana };
        let have = self.server(role).container.as_mut().expect("nothing to start");
        let is_taken = other.container.is_some_and(|other| is_up(other.run) && other.port == have.port);
        assert!(!is_taken, "{role} starts at a port that the other role holds");
        assert_eq!(Some(have.network), kept, "attached to a network that is gone");
        have.run = RunState::Running;
        let (password, version) = (have.password, have.version);
        assert!(!no_address || !have.open || role != Role::Grafana, "it starts at an address that was not checked");
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
    fn is_done(&self, case: Case) -> bool {
        let fine = |role: Role, srv: &Srv| {
            srv.container.is_some_and(|have| {
                have.spec == Spec::Right
                    && have.port == case.port(role)
                    && have.run == RunState::Running
                    && Some(have.network) == self.kept()
            })
        };
        let door = self.grafana.container.is_some_and(|have| {
            let own = self.db != Some(DEFAULT);
            let labelled = have.password == PasswordSource::File;
            // If Grafana has its own password, the label leads the next run to the file.
            let found = if own { labelled && self.file == self.db } else { !labelled || self.file == self.db };
            have.open == case.open && found && (own || !case.open)
        });
        let version = case.version();
        let is_version = self.grafana.container.is_some_and(|have| have.version == version)
            && (version == LABEL || (self.recorded == Some(version) && self.promised.is_none()));
        let left_over = self.pending.is_some_and(|pending| Some(pending) != self.db);
        let labelled = self.grafana.container.is_some_and(|have| have.password == PasswordSource::File);
        let settled = !left_over || (self.db == Some(DEFAULT) && !labelled);
        let keeps = case.retention.is_none_or(|want| want == self.keeps);
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
fn is_up(run: RunState) -> bool {
    matches!(run, RunState::Running | RunState::Paused | RunState::Restarting)
}

/// Steps with their phases, in possible orders: the roles run in parallel, so one lane before the
/// other and vice versa.
fn orders(plan: &Plan) -> [Vec<(Phase, Step)>; 2] {
    let order = |roles: [Role; 2]| {
        let lanes = Phase::ALL.into_iter().flat_map(|phase| roles.map(|role| (phase, role)));
        lanes.flat_map(|(phase, role)| plan.lane(phase, role).map(move |(step, _)| (phase, step))).collect()
    };
    [order([Role::Influxdb, Role::Grafana]), order([Role::Grafana, Role::Influxdb])]
}

/// Asserts that nothing is removed or stopped before every pull, check and login has succeeded. A
/// trial may replace Grafana's container by a private one; InfluxDB's stays.
fn assert_kept(before: &World, now: &World, phase: Phase) {
    let is_same = |before: &Srv, now: &Srv| {
        before.container.is_none_or(|had| {
            now.container
                .is_some_and(|have| have.id == had.id && (had.run == have.run || have.run == RunState::Running))
        })
    };
    assert!(is_same(&before.influxdb, &now.influxdb), "InfluxDB is gone: {before:?}\n{now:?}");
    assert!(phase == Phase::Trial || is_same(&before.grafana, &now.grafana), "Grafana is gone: {before:?}\n{now:?}");
}

/// The worlds from which runs are known to converge, and the rounds that it takes from each. Many worlds
/// lead to the same one, which all tests need to visit only once.
static CONVERGING: LazyLock<Mutex<HashMap<u128, usize>>> = LazyLock::new(Mutex::default);

/// The worlds from which every run after a crash is known to converge.
static RECOVERING: LazyLock<Mutex<HashSet<u128>>> = LazyLock::new(Mutex::default);

/// The rounds within which a run must converge.
const ROUNDS: usize = 6;

impl World {
    /// The same world with other ids. Steps compare ids only with each other, and each new one differs
    /// from all previous ones.
    fn renumbered(&self) -> World {
        let network = |id| (1..).zip(&self.networks).find(|(_, one)| **one == id).map_or(0, |(number, _)| number);
        let server = |srv: Srv| {
            let container = srv.container.map(|have| Cont { network: network(have.network), id: 1, ..have });
            Srv { container, ..srv }
        };
        let copied = self.copy.map(|copy| copy.id);
        let upgraded = |id| if Some(id) == copied { 1 } else { 2 };
        World {
            networks: (1..).take(self.networks.len()).collect(),
            next_id: 0,
            influxdb: server(self.influxdb),
            grafana: server(self.grafana),
            promised_for: self.grafana.container.is_some_and(|have| have.id == self.promised_for).into(),
            upgrade: self.upgrade.map(|(state, id)| (state, upgraded(id))),
            copy: self.copy.map(|copy| Copied { id: 1, ..copy }),
            ..self.clone()
        }
    }
}

/// Identifies everything that a run depends on.
fn digest(key: &impl Hash) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, key).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Runs until nothing remains. If the supplied password is rejected, the next run supplies none, as
/// a user would.
fn finish(world: World, case: Case) {
    let mut visited = Vec::new();
    let rounds = run_rounds(world, case, &mut visited);
    let mut converging = CONVERGING.lock().unwrap();
    converging.extend(visited.into_iter().enumerate().map(|(round, key)| (key, rounds - round)));
}

/// Returns the number of rounds, and passes on the world before each new one.
fn run_rounds(mut world: World, case: Case, visited: &mut Vec<u128>) -> usize {
    let want = LazyCell::new(|| stack(case));
    let mut options = UpOptions { reset_password: case.reset, ..UpOptions::default() };
    // A file written by an earlier run for a Grafana that never ran contains an unknown password.
    let was_fresh = world.db.is_none() && case.given.is_none();
    world.asked = false;
    for round in 1..=ROUNDS {
        // The reset is the only option of these runs, and the only reader of `was_fresh`.
        let key = digest(&(world.renumbered(), case, options.reset_password, was_fresh && case.reset));
        let known = CONVERGING.lock().unwrap().get(&key).copied();
        if let Some(more) = known.filter(|more| round + more <= ROUNDS + 1) {
            return round - 1 + more;
        }
        visited.push(key);
        let seen = world.observe(&want, case);
        let plan = plan::up(&want, &seen, options);
        world.asked |= plan::shortened_retention(&want, &plan).is_some();
        if let Some((_, blocked)) = plan.blocked() {
            let migrated =
                blocked.kind == plan::BlockReason::Image && world.ran > case.version() && world.upgrade.is_none();
            let refused = case.given.is_some() && blocked.kind == plan::BlockReason::Refused;
            assert!(migrated || refused, "blocked: {blocked:?}\nin {world:?}");
            return round;
        }
        if plan.in_sync() {
            assert!(world.is_done(case), "called done, but is not: {world:?}");
            let is_reset = world.db == Some(case.given.unwrap_or(NEW)) || world.db == Some(OLD) && was_fresh;
            assert!(!case.reset || is_reset, "a reset was ignored: {world:?}");
            return round;
        }
        let mut ended = false;
        let first = world.clone();
        for (phase, step) in orders(&plan)[0].clone() {
            let before = world.clone();
            if matches!(phase, Phase::Network | Phase::Preparation | Phase::Trial) {
                assert_kept(&first, &world, phase);
            }
            if !world.execute(case, &step) {
                ended = true;
                if matches!(step, Step::CheckAddress(..)) {
                    assert_kept(&first, &world, phase);
                    let kept = |world: &World| (world.db, world.file, world.settings);
                    assert_eq!(kept(&first), kept(&world), "something was changed for an address that is not there");
                    return round;
                }
                if step == Step::TryPassword {
                    let answered = matches!(first.observe(&want, case).grafana.probe, ServerResponse::Answering(_));
                    assert_kept(&first, &world, if answered { Phase::Preparation } else { phase });
                    assert_eq!(
                        (before.file, before.settings),
                        (world.file, world.settings),
                        "nothing was changed for it"
                    );
                    return round;
                }
                break;
            }
        }
        let tried = world.grafana.container.is_some_and(|have| have.version > LABEL && have.run == RunState::Running);
        if ended && case.broken && tried {
            let back = Case { upgrade: false, given: None, reset: false, ..case };
            match world.upgrade {
                // Nothing ran before, so there is nothing to roll back to.
                None => assert!(world.ran != LABEL, "the database is gone: {world:?}"),
                Some((UpgradeState::Unproven, id)) => {
                    world.upgrade = Some((UpgradeState::Refused, id));
                    finish(world, back);
                }
                Some(other) => panic!("{other:?} is started: {world:?}"),
            }
            return round;
        }
        if !ended && !plan.restores() {
            options = UpOptions::default();
        } else if ended && case.given.is_some() || world.ran > case.version() {
            return round;
        }
    }
    panic!("does not converge: {world:?}");
}

/// Runs again after a crash: with the same options, without any, and with the previous image.
fn recover(world: &World, case: Case) {
    let world = World { asked: false, ..world.clone() };
    let key = digest(&(world.renumbered(), case));
    if RECOVERING.lock().unwrap().contains(&key) {
        return;
    }
    let bare = Case { given: None, reset: false, ..case };
    finish(world.clone(), case);
    finish(world.clone(), bare);
    if case.upgrade {
        finish(world, Case { upgrade: false, ..bare });
    }
    RECOVERING.lock().unwrap().insert(key);
}

/// Runs to the end, and from every crash behind any step.
fn check(world: &World, want: &Stack, case: Case) -> usize {
    let options = UpOptions { reset_password: case.reset, ..UpOptions::default() };
    let seen = world.observe(want, case);
    let plan = plan::up(want, &seen, options);
    if plan.blocked().is_some() {
        return 0;
    }
    let asked = plan::shortened_retention(want, &plan).is_some();
    if !case.reset {
        assert_eq!(plan.in_sync(), world.is_done(case), "{world:?}\n{plan:?}");
    }
    let mut runs = 0;
    for (index, order) in orders(&plan).into_iter().enumerate() {
        let mut crashed = World { asked, ..world.clone() };
        let mut proceeds = true;
        for interrupted in 0..=order.len() {
            let run = || {
                if let Some((_, step)) = order[..interrupted].last().filter(|_| proceeds) {
                    proceeds = crashed.execute(case, step);
                }
                // The other order of lanes is tried as a whole: its intermediate states are worlds of their own.
                let is_tried = index == 0 || interrupted == order.len();
                if is_tried {
                    recover(&crashed, case);
                }
                is_tried
            };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            assert!(outcome.is_ok(), "{case:?} from {world:?}\nwith {order:?}\ninterrupted after {interrupted}");
            runs += usize::from(outcome.unwrap_or_default());
        }
    }
    runs
}

fn containers(passwords: &[PasswordSource], opens: &[bool], port: u16) -> Vec<Option<Cont>> {
    let mut all = vec![None];
    for spec in [Spec::Right, Spec::Wrong, Spec::Unreadable] {
        for network in [1, 9] {
            for run in RUNS {
                for password in passwords {
                    for open in opens {
                        let (open, password) = (*open, *password);
                        all.push(Some(Cont { spec, network, run, password, open, port, version: LABEL, id: 0 }));
                    }
                    if opens.len() > 1 && spec == Spec::Right {
                        let (open, password, port) = (false, *password, 0);
                        all.push(Some(Cont { spec, network, run, password, open, port, version: LABEL, id: 0 }));
                    }
                }
            }
        }
    }
    all
}

fn influxdbs() -> Vec<Srv> {
    servers(&[PasswordSource::Default], &[false], Role::Influxdb.port())
}

fn grafanas() -> Vec<Srv> {
    servers(&[PasswordSource::Default, PasswordSource::File], &[false, true], Role::Grafana.port())
}

fn servers(passwords: &[PasswordSource], opens: &[bool], port: u16) -> Vec<Srv> {
    let mut all = Vec::new();
    for container in containers(passwords, opens, port) {
        for (image, volume) in [(false, false), (false, true), (true, false), (true, true)] {
            // A container keeps its image and its volume in use.
            if container.is_none() || (image && volume) {
                all.push(Srv { image, volume, container });
            }
        }
    }
    all
}

fn networks() -> [Vec<u32>; 3] {
    [vec![], vec![1], vec![1, 2]]
}

fn some(all: &[Srv]) -> Vec<Srv> {
    all.iter().step_by(all.len().div_ceil(2)).copied().chain(all.last().copied()).collect()
}

/// Passwords in Grafana's database, in its file, and pending.
type Door = (Option<Password>, Option<Password>, Option<Password>);

/// The possible combinations.
const DOORS: [Door; 9] = [
    (None, None, None),
    (None, Some(OLD), None),
    (Some(DEFAULT), None, None),
    (Some(DEFAULT), None, Some(PENDING)),
    // A user has reset the password to the default.
    (Some(DEFAULT), Some(DEFAULT), Some(DEFAULT)),
    (Some(PENDING), None, Some(PENDING)),
    (Some(PENDING), Some(OLD), Some(PENDING)),
    (Some(OLD), Some(OLD), Some(PENDING)),
    (Some(OLD), Some(OLD), None),
];

/// Passes on possible worlds: nothing is stored without a volume.
fn worlds(networks: &[Vec<u32>], influxdbs: &[Srv], grafanas: &[Srv], doors: &[Door], mut each: impl FnMut(World)) {
    let things = [Thing::Missing, Thing::Wrong, Thing::Right];
    for networks in networks {
        for influxdb in influxdbs {
            for grafana in grafanas {
                for database in [false, true] {
                    for (door, (db, file, pending)) in doors.iter().copied().enumerate() {
                        for (index, dashboard) in things.into_iter().enumerate() {
                            // Without a database, nothing is stored: one such world is enough.
                            if (db.is_none() || !grafana.volume) && index > 0 {
                                continue;
                            }
                            let source = things[(index + usize::from(database)) % 3];
                            let stored = grafana.volume && db.is_some();
                            let world = World {
                                networks: networks.clone(),
                                network_is_used: false,
                                next_id: 20,
                                influxdb: *influxdb,
                                grafana: *grafana,
                                database: database && influxdb.volume,
                                keeps: [Retention::Forever, DAYS_90, DAYS_2][(index + door) % 3],
                                asked: false,
                                db: if grafana.volume { db } else { None },
                                file: if grafana.volume { file } else { None },
                                pending: if grafana.volume { pending } else { None },
                                ran: if grafana.volume && db.is_some() { LABEL } else { 0 },
                                recorded: None,
                                promised: None,
                                promised_for: 0,
                                upgrade: None,
                                copy: None,
                                dashboard: if stored { dashboard } else { Thing::Missing },
                                own: if stored { things[(index + door) % 3] } else { Thing::Missing },
                                source: if stored { source } else { Thing::Missing },
                                rules: if stored { things[(index + door + 1) % 3] } else { Thing::Missing },
                                home: false,
                                stale: database && source == Thing::Right,
                                settings: things[(index + door) % 3],
                                remembers: things[(index + door) % 3] == Thing::Right && door % 2 == 0,
                                restore: None,
                                restoring: 0,
                                slow: false,
                            };
                            if can_be(&world) {
                                each(world);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Excludes states that neither our runs nor users can cause without losing a password.
fn can_be(world: &World) -> bool {
    let Some(have) = world.grafana.container else { return true };
    let labelled = have.password == PasswordSource::File;
    // Only a container that was never started has an empty database, and it is created with the
    // file only if the file exists or the database is empty.
    let started = have.run != RunState::Created;
    let ran = !started || world.db.is_some();
    let with_file = !labelled || world.file.is_some() || (!started && world.db.is_none());
    // No run has published admin/admin.
    let safe = !have.open || (labelled && world.db != Some(DEFAULT));
    ran && with_file && safe
}

fn everywhere(case: Case) -> (usize, usize) {
    let want = stack(case);
    let influxdbs = influxdbs();
    let grafanas = grafanas();
    let (mut worlds_seen, mut runs) = (0, 0);
    let mut each = |world: World| {
        worlds_seen += 1;
        runs += check(&world, &want, case);
    };
    if case.ports.is_some() {
        // Only the holder of a port matters here.
        let may_start = |srv: &&Srv| srv.container.is_none_or(|have| have.spec == Spec::Right && have.network == 1);
        let influxdbs: Vec<Srv> = influxdbs.iter().filter(may_start).copied().collect();
        worlds(&[vec![1]], &influxdbs, &grafanas, &DOORS[if case.open { 8..9 } else { 2..3 }], &mut each);
    } else if case.given.is_some() || case.reset || case.upgrade {
        // Only the passwords matter here; other states were tried without them.
        worlds(&[vec![], vec![1]], &influxdbs[influxdbs.len() - 1..], &grafanas, &DOORS, &mut each);
    } else {
        worlds(&networks(), &some(&influxdbs)[2..], &grafanas, &DOORS, &mut each);
        worlds(&networks(), &influxdbs, &some(&grafanas), &DOORS[1..3], &mut each);
    }
    (worlds_seen, runs)
}

fn check_everywhere(case: Case) {
    let (worlds, runs) = everywhere(case);
    assert!(worlds > 2_000 && runs > 20_000, "{worlds} worlds, {runs} runs");
}

#[test]
fn on_loopback_every_world_and_every_crash_converges() {
    check_everywhere(Case::default());
}

#[test]
fn every_retention_is_set_and_shortened_only_after_confirmation() {
    for retention in [DAYS_2, DAYS_90, Retention::Forever] {
        check_everywhere(Case { retention: Some(retention), ..Case::default() });
    }
}

#[test]
fn a_declined_retention_is_never_remembered() {
    let influxdbs = influxdbs();
    let grafanas = servers(&[PasswordSource::Default], &[false], Role::Grafana.port());
    for retention in [DAYS_2, DAYS_90] {
        let case = Case { retention: Some(retention), ..Case::default() };
        let want = stack(case);
        let mut declined = 0;
        worlds(&networks(), &influxdbs, &some(&grafanas), &DOORS[1..4], |found| {
            let mut world = found.clone();
            for _ in 0..6 {
                let plan = plan::up(&want, &world.observe(&want, case), UpOptions::default());
                if plan::shortened_retention(&want, &plan).is_some() {
                    assert_eq!(world.remembers, found.remembers, "{found:?}");
                    declined += 1;
                    return;
                }
                if plan.in_sync() || plan.blocked().is_some() {
                    return;
                }
                let [order, _] = orders(&plan);
                if !order.into_iter().all(|(_, step)| world.execute(case, &step)) {
                    return;
                }
            }
            panic!("does not end: {found:?}");
        });
        assert!(declined > 100, "{declined}");
    }
}

#[test]
fn a_users_dashboard_is_imported_from_every_world() {
    check_everywhere(Case { own: true, ..Case::default() });
}

#[test]
fn alert_rules_are_created_and_removed_from_every_world() {
    for alerts in [true, false] {
        check_everywhere(Case { alerts: Some(alerts), ..Case::default() });
    }
}

#[test]
fn off_loopback_every_world_and_every_crash_converges_and_admin_admin_is_always_rejected() {
    check_everywhere(Case { open: true, ..Case::default() });
}

#[test]
fn a_supplied_password_is_tried_first_and_nothing_changes_if_it_is_rejected() {
    for given in [GIVEN, OLD, DEFAULT] {
        check_everywhere(Case { given: Some(given), ..Case::default() });
    }
}

#[test]
fn with_a_supplied_password_admin_admin_is_always_rejected() {
    for given in [GIVEN, OLD] {
        check_everywhere(Case { open: true, given: Some(given), ..Case::default() });
    }
}

#[test]
fn swapping_ports_loses_nothing_if_a_pull_or_a_login_fails() {
    let (influxdb, grafana) = (Role::Influxdb.port(), Role::Grafana.port());
    for ports in [[grafana, influxdb], [grafana, 4000], [4000, influxdb]] {
        for (open, given) in [(false, None), (false, Some(GIVEN)), (true, None)] {
            check_everywhere(Case { ports: Some(ports), open, given, ..Case::default() });
        }
    }
}

#[test]
fn an_unavailable_address_loses_neither_a_container_nor_a_password() {
    let mut checked = 0;
    let case = Case { open: true, no_address: true, ..Case::default() };
    let want = stack(case);
    let grafanas = servers(&[PasswordSource::Default, PasswordSource::File], &[false], Role::Grafana.port());
    let influxdbs = influxdbs();
    worlds(&[vec![], vec![1]], &influxdbs[influxdbs.len() - 1..], &grafanas, &DOORS, |world| {
        let seen = world.observe(&want, case);
        let plan = plan::up(&want, &seen, UpOptions::default());
        if plan.blocked().is_some() {
            return;
        }
        let moves = plan.steps().any(|(step, _)| matches!(step, Step::CreateContainer(Role::Grafana, _)));
        assert!(moves, "Grafana is to move: {plan:?}");
        finish(world, case);
        checked += 1;
    });
    assert!(checked > 500, "{checked}");
}

#[test]
fn a_supplied_password_is_tried_before_a_grafana_that_is_still_starting_is_removed() {
    let mut checked = 0;
    let grafanas = servers(&[PasswordSource::Default, PasswordSource::File], &[false, true], Role::Grafana.port());
    for (open, given) in [(false, GIVEN), (true, GIVEN), (false, OLD)] {
        let case = Case { open, given: Some(given), ..Case::default() };
        let want = stack(case);
        worlds(&[vec![1]], &influxdbs(), &grafanas, &DOORS, |world| {
            let runs = |have: Cont| matches!(have.run, RunState::Running | RunState::Paused);
            if !world.grafana.container.is_some_and(runs) || world.db.is_none() {
                return;
            }
            let world = World { slow: true, ..world };
            let plan = plan::up(&want, &world.observe(&want, case), UpOptions::default());
            let loses = |step: Step| {
                matches!(
                    step,
                    Step::RemoveContainer(_) | Step::CreatePrivateContainer { .. } | Step::SaveSettings { .. }
                )
            };
            let tries = plan.steps().position(|(step, _)| step == Step::TryPassword);
            let mut before = plan.steps().take(tries.unwrap_or(usize::MAX)).map(|(step, _)| step);
            assert!(!before.any(loses), "{world:?}: {plan:?}");
            finish(world, case);
            checked += 1;
        });
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn a_reset_converges_from_every_world() {
    for (open, given) in [(false, None), (false, Some(DEFAULT)), (true, None), (true, Some(GIVEN))] {
        check_everywhere(Case { open, given, reset: true, ..Case::default() });
    }
}

#[test]
fn no_older_grafana_ever_starts_on_a_migrated_database() {
    for (open, given) in [(false, None), (true, None), (false, Some(GIVEN)), (false, Some(OLD)), (true, Some(OLD))] {
        check_everywhere(Case { open, given, upgrade: true, ..Case::default() });
    }
}

#[test]
fn a_failing_new_image_is_rolled_back_after_every_crash() {
    for (open, given) in [(false, None), (true, None), (false, Some(OLD))] {
        check_everywhere(Case { open, given, upgrade: true, broken: true, ..Case::default() });
    }
}

/// The same world with a pending upgrade or a rolled back one. An existing container that may have
/// run belongs to the new image.
fn with_upgrades(world: &World) -> Vec<World> {
    if world.db.is_none() {
        return vec![];
    }
    let new = LABEL + 1;
    let over = |state| World { upgrade: Some((state, 15)), ..world.clone() };
    let mut all = vec![over(UpgradeState::Undone), over(UpgradeState::Ended)];
    for state in [UpgradeState::Unproven, UpgradeState::Refused, UpgradeState::Postponed] {
        let mut pending = world.clone();
        pending.upgrade = Some((state, 15));
        pending.copy = Some(Copied {
            id: 15,
            ran: LABEL,
            recorded: None,
            promised: None,
            db: world.db,
            file: world.file,
            pending: world.pending,
        });
        let ran = pending.grafana.container.is_none_or(|have| have.run != RunState::Created);
        if let Some(have) = &mut pending.grafana.container {
            have.version = new;
        }
        if ran {
            (pending.ran, pending.promised) = (new, Some(new));
        }
        all.push(pending);
    }
    all
}

#[test]
fn every_pending_failed_or_rolled_back_upgrade_ends_well_with_any_image() {
    let influxdbs = influxdbs();
    let grafanas = grafanas();
    let mut runs = 0;
    for (open, upgrade, broken) in
        [(false, true, false), (false, true, true), (false, false, false), (true, true, true), (true, false, false)]
    {
        let case = Case { open, upgrade, broken, ..Case::default() };
        let want = stack(case);
        let doors = [DOORS[2], DOORS[8]];
        worlds(&[vec![1]], &influxdbs[influxdbs.len() - 1..], &grafanas, &doors, |world| {
            for world in with_upgrades(&world) {
                runs += check(&world, &want, case);
            }
        });
    }
    assert!(runs > 10_000, "{runs} runs");
}

#[test]
fn down_removes_everything_except_data_and_settings_unless_requested() {
    let case = Case::default();
    let want = stack(case);
    let mut checked = 0;
    let grafanas = servers(&[PasswordSource::Default], &[false], Role::Grafana.port());
    worlds(&networks(), &some(&influxdbs()), &grafanas, &DOORS[1..3], |world| {
        for volumes in [false, true] {
            let plan = plan::down(&want, &world.observe(&want, case), volumes);
            let used = World { network_is_used: true, ..world.clone() };
            let around = plan::down(&want, &used.observe(&want, case), volumes);
            let kept: Vec<Step> = steps(&plan).into_iter().filter(|step| *step != Step::RemoveNetwork).collect();
            assert_eq!(steps(&around), kept, "only the network stays where another container uses it");
            assert_eq!(around.kept().count(), world.networks.len().min(1));
            for order in orders(&plan) {
                let mut world = world.clone();
                for (_, step) in order {
                    assert!(world.execute(case, &step));
                }
                assert!(world.influxdb.container.is_none() && world.grafana.container.is_none());
                assert!(world.networks.is_empty());
                assert!(!volumes || !(world.influxdb.volume || world.grafana.volume));
                assert!(!volumes || world.settings == Thing::Missing);
                assert!(plan::down(&want, &world.observe(&want, case), volumes).is_idle());
                checked += 1;
            }
            if !volumes {
                let deletes = |step| matches!(step, Step::RemoveVolume(_) | Step::RemoveSettings);
                assert!(!plan.steps().any(|(step, _)| deletes(step)));
            }
        }
    });
    assert!(checked > 1_000);
}

fn restore(run: u32) -> Restore {
    Restore { id: run.to_string(), archive: "/saved".into(), digest: "d1".into(), machine: "box".into(), process: run }
}

/// Performs a restore with the planner's steps, as the command does; returns the world after each
/// step, the last one with all data.
fn restored(mut world: World, run: u32) -> Vec<World> {
    let case = Case::default();
    let want = Stack { restore: Some(restore(run)), ..stack(case) };
    world.restoring = run;
    let mut worlds = Vec::new();
    let mut apply = |world: &mut World, plan: &Plan| {
        for (_, step) in orders(plan)[0].clone() {
            assert!(world.execute(case, &step));
            worlds.push(world.clone());
        }
    };
    apply(&mut world, &plan::begin_restore());
    let left = world.observe(&want, case);
    apply(&mut world, &plan::remove_unfinished(&want, &left));
    apply(&mut world, &plan::make_for_restore(&left));
    // Its data is restored.
    (world.db, world.ran) = (Some(DEFAULT), LABEL);
    assert!(world.execute(case, &Step::RemoveContainer(Role::Grafana)));
    assert!(world.execute(case, &Step::StartContainer(Role::Influxdb)));
    let published =
        world.observe(&want, case).influxdb.container.ours().unwrap().specification.clone().unwrap().publish;
    let clipper = want.container(Role::Influxdb).unwrap().specification.publish;
    assert_ne!(published, clipper, "Clipper finds it before its data is in");
    worlds.push(world.clone());
    world.database = true;
    worlds.push(world.clone());
    assert!(
        plan::up(&want, &world.observe(&want, case), UpOptions::default()).blocked().is_none(),
        "its own run continues"
    );
    assert!(world.execute(case, &Step::FinishRestore));
    worlds.push(world);
    worlds
}

#[test]
fn a_restore_killed_behind_any_step_can_only_be_restarted_or_removed() {
    let case = Case::default();
    let want = stack(case);
    let worlds = restored(empty_world(), 1);
    let (whole, unfinished) = worlds.split_last().unwrap();
    assert!(unfinished.len() > 6);
    for world in unfinished {
        let seen = world.observe(&want, case);
        let plan = plan::up(&want, &seen, UpOptions::default());
        let (resource, blocked) = plan.blocked().expect("`up` would complete it without its data");
        assert_eq!((resource, blocked.kind), (Resource::Settings, plan::BlockReason::Unfinished), "{world:?}");
        assert!(blocked.hint.contains("restore /saved") && blocked.hint.contains("down --volumes"), "{}", blocked.hint);
        // Its record is removed last.
        let mut removed = world.clone();
        for (_, step) in orders(&plan::down(&want, &seen, true))[0].clone() {
            assert!(removed.restore.is_some(), "{step:?} after the note");
            assert!(removed.execute(case, &step));
        }
        assert!(removed.restore.is_none() && removed.settings == Thing::Missing);
        assert!(!removed.influxdb.volume && !removed.grafana.volume && removed.networks.is_empty());
        // Without `--volumes`, the record stays.
        assert!(!plan::down(&want, &seen, false).steps().any(|(step, _)| step == Step::RemoveSettings));
        // Started again, it completes, even after another kill.
        for again in restored(world.clone(), 2).into_iter().rev().skip(1) {
            assert_eq!(again.restore, Some(2), "the other run cannot finish: {again:?}");
            let whole = restored(again, 3).pop().unwrap();
            finish(whole, case);
        }
        // Another container may use the network in the meantime.
        if !world.networks.is_empty() {
            let used = World { network_is_used: true, ..world.clone() };
            finish(restored(used, 2).pop().unwrap(), case);
        }
    }
    // With all data restored, `up` completes it, even after a kill behind any of its steps.
    check(whole, &want, case);
}

#[test]
fn a_private_container_indicates_a_restore_whose_record_is_lost() {
    let case = Case::default();
    let want = stack(case);
    let worlds = restored(empty_world(), 1);
    let started = &worlds[worlds.len() - 3];
    let lost = World { settings: Thing::Missing, restore: None, ..started.clone() };
    let plan = plan::up(&want, &lost.observe(&want, case), UpOptions::default());
    let (_, blocked) = plan.blocked().unwrap();
    assert_eq!(blocked.kind, plan::BlockReason::Unfinished);
    assert!(blocked.hint.contains("down --volumes"), "{}", blocked.hint);
}

fn empty_world() -> World {
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
        file: None,
        pending: None,
        ran: 0,
        recorded: None,
        promised: None,
        promised_for: 0,
        upgrade: None,
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
        restoring: 0,
        slow: false,
    }
}

/// The state after a first `up`.
fn whole_world() -> World {
    let srv = |role: Role| {
        let have = Cont {
            spec: Spec::Right,
            network: 1,
            run: RunState::Running,
            password: PasswordSource::Default,
            open: false,
            port: role.port(),
            version: LABEL,
            id: 0,
        };
        Srv { image: true, volume: true, container: Some(have) }
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
fn plan_with(stack: &Stack, change: impl FnOnce(&mut Observed)) -> Plan {
    let mut seen = whole_world().observe(&self::stack(Case::default()), Case::default());
    change(&mut seen);
    plan::up(stack, &seen, UpOptions::default())
}

fn steps(plan: &Plan) -> Vec<Step> {
    plan.steps().map(|(step, _)| step).collect()
}

#[test]
fn foreign_objects_are_blockers_and_never_changed() {
    let want = stack(Case::default());
    let seen = empty_world().observe(&want, Case::default());
    let foreign: [fn(&mut Observed); 6] = [
        |seen| seen.network = Network::Foreign,
        |seen| seen.influxdb.container = ContainerState::Foreign,
        |seen| seen.grafana.volume = Volume::Foreign,
        |seen| seen.grafana.port_holder = Some(PortHolder::Container("somebody".into())),
        |seen| seen.influxdb.volume_user = Some("somebody".into()),
        |seen| seen.grafana.container = ContainerState::Duplicated(vec!["a".into(), "b".into()]),
    ];
    for change in foreign {
        let mut seen = seen.clone();
        change(&mut seen);
        let plan = plan::up(&want, &seen, UpOptions::default());
        assert!(plan.blocked().is_some(), "{plan:?}");
        assert!(plan::down(&want, &seen, true).is_idle());
    }
}

#[test]
fn a_port_published_by_the_container_itself_is_not_a_conflict() {
    let want = stack(Case::default());
    let publish = want.container(Role::Grafana).unwrap().specification.publish;
    let with_holder = |published| {
        plan_with(&want, |seen| {
            seen.grafana.port_holder = Some(PortHolder::Container("somebody".into()));
            if let ContainerState::Ours(have) = &mut seen.grafana.container {
                have.published = published;
            }
        })
    };
    assert!(with_holder(Some(publish)).blocked().is_none());
    assert!(with_holder(None).blocked().is_some());
    assert!(with_holder(Some((publish.ip(), publish.port() + 1).into())).blocked().is_some());
}

#[test]
fn with_pull_never_only_work_that_needs_a_missing_image_is_blocked() {
    let mut want = stack(Case::default());
    want.pull = Pull::Never;
    let in_sync = plan_with(&want, |seen| seen.influxdb.image = None);
    assert!(in_sync.blocked().is_none() && in_sync.is_idle(), "{in_sync:?}");
    let stopped = plan_with(&want, |seen| {
        seen.influxdb.image = None;
        if let ContainerState::Ours(have) = &mut seen.influxdb.container {
            have.run = RunState::Exited(0);
        }
    });
    assert!(stopped.blocked().is_none() && !stopped.is_idle(), "{stopped:?}");
    let changes: [fn(&mut Observed); 2] = [
        |seen| seen.influxdb.container = ContainerState::Absent,
        |seen| {
            if let ContainerState::Ours(have) = &mut seen.influxdb.container {
                have.on_network = false;
            }
        },
    ];
    for change in changes {
        let plan = plan_with(&want, |seen| {
            seen.influxdb.image = None;
            change(seen);
        });
        let (_, blocked) = plan.blocked().unwrap();
        assert!(blocked.why.contains("--pull never"), "{}", blocked.why);
    }
}

#[test]
fn foreign_objects_in_grafana_are_blockers_before_anything_is_written() {
    let want = stack(Case::default());
    let clashes: [fn(&mut Grafana); 5] = [
        |grafana| grafana.data_source = SeenSource::Foreign("a data source".into()),
        |grafana| grafana.dashboard = SeenDashboardState::Clash { what: "a folder".into(), has_uid: true },
        |grafana| grafana.organisation = Organisation::Ambiguous(vec!["a".into(), "b".into()]),
        |grafana| {
            let made_for = MadeFor { url: "http://other:8086".into(), database: "d".into(), machine: None };
            grafana.data_source = SeenSource::Ours { fields: BTreeMap::new(), made_for, provisioned: true };
        },
        |grafana| {
            if let SeenDashboardState::Present(dashboard) = &mut grafana.dashboard {
                (dashboard.provisioned, dashboard.content_hash) = (true, None);
            }
        },
    ];
    for clash in clashes {
        let plan = plan_with(&want, |seen| {
            let ServerResponse::Answering(grafana) = &mut seen.grafana.probe else { panic!("it answers") };
            clash(grafana);
        });
        assert!(plan.blocked().is_some(), "{plan:?}");
    }
    // A provisioned object with the desired content is in sync.
    let plan = plan_with(&want, |seen| {
        let ServerResponse::Answering(grafana) = &mut seen.grafana.probe else { panic!("it answers") };
        let SeenSource::Ours { provisioned, .. } = &mut grafana.data_source else { panic!("it is ours") };
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

    fn made_for(self, want: &Stack, another: &MadeFor) -> Option<MadeFor> {
        match self {
            Self::Own => Some(want.data_source.made_for()),
            Self::Other | Self::EditedOther => Some(another.clone()),
            Self::Absent | Self::Unnoted | Self::Unreadable => None,
        }
    }
}

/// Other databases: at another address, and at the same address on the loopback of another machine.
fn others(want: &Stack) -> [MadeFor; 3] {
    let elsewhere = MadeFor { url: "http://other:8086".into(), database: "other".into(), machine: None };
    let there = Some("another".to_string());
    let same_address = MadeFor { machine: there.clone(), ..want.data_source.made_for() };
    [MadeFor { machine: there, ..elsewhere.clone() }, elsewhere, same_address]
}

fn unreadable() -> Unreadable {
    Unreadable { doing: "read it".into(), status: 500, why: "broken".into() }
}

/// An external Grafana with objects of these origins.
fn shared_grafana(want: &Stack, another: &MadeFor, source: Origin, dashboard: Origin, rules: Origin) -> Grafana {
    let mut fields = want.data_source.fields();
    if matches!(source, Origin::Other | Origin::EditedOther) {
        fields.insert("url".into(), another.url.clone());
        fields.insert("database".into(), another.database.clone());
    }
    let rule = |rule| match rules {
        Origin::Absent | Origin::Unreadable => SeenRule::Missing,
        origin => SeenRule::Present {
            edited: origin == Origin::EditedOther,
            provisioned: false,
            fields: alert_settings().fields(rule, Dashboard::DEFAULT_OBJECTIVE),
            made_for: origin.made_for(want, another),
        },
    };
    Grafana {
        organisation: Organisation::Present,
        folder: Folder::NotWanted,
        data_source: match source {
            Origin::Absent => SeenSource::Missing,
            Origin::Unreadable => SeenSource::Unreadable(unreadable()),
            // If the mark does not name the target, the stored fields do.
            origin => {
                seen_source(fields, origin.made_for(want, another).unwrap_or_else(|| want.data_source.made_for()))
            }
        },
        dashboard: match (dashboard, seen_dashboard(Thing::Right)) {
            (Origin::Absent, _) => SeenDashboardState::Missing,
            (Origin::Unreadable, _) => SeenDashboardState::Unreadable(unreadable()),
            (origin, SeenDashboardState::Present(seen)) => SeenDashboardState::Present(SeenDashboard {
                edited: origin == Origin::EditedOther,
                made_for: origin.made_for(want, another),
                ..seen
            }),
            (_, other) => other,
        },
        user_dashboards: vec![],
        alerts: match rules {
            Origin::Unreadable => AlertRules::Unreadable(unreadable()),
            _ => AlertRules::Seen(SeenAlerts { latency: rule(AlertRule::Latency), silence: rule(AlertRule::Silence) }),
        },
        query: Query::Ok,
        catalogue: None,
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
    external.grafana = Service::External { url: ServerUrl::http("g", 3000) };
    external.data_source.machine = Some("this".into());
    let mut off = external.clone();
    off.alerts = Alerts::Off;
    let own = stack(Case { alerts: Some(true), ..Case::default() });
    let all = || Origin::ALL.into_iter();
    let origins = || all().flat_map(|a| all().flat_map(move |b| all().map(move |c| (a, b, c))));
    let others = others(&external);
    for (another, (source, dashboard, rules)) in others.iter().flat_map(|one| origins().map(move |all| (one, all))) {
        let origins = [source, dashboard, rules];
        let seen = |want: &Stack| {
            let mut seen = whole_world().observe(&own, Case { alerts: Some(true), ..Case::default() });
            seen.grafana.probe = ServerResponse::Answering(shared_grafana(want, another, source, dashboard, rules));
            seen
        };
        let is_other = |origin: Origin| origin == Origin::Other;
        for overwrite_dashboard in [false, true] {
            let options = UpOptions { overwrite_dashboard, ..UpOptions::default() };
            let touches_edited =
                overwrite_dashboard && (dashboard == Origin::EditedOther || rules == Origin::EditedOther);
            let has_conflict = origins.into_iter().any(is_other) || source == Origin::EditedOther || touches_edited;
            let plan = plan::up(&external, &seen(&external), options);
            let conflict = plan.blocked().is_some_and(|(_, blocked)| blocked.kind == BlockReason::Conflict);
            assert_eq!(conflict, has_conflict, "{origins:?} {overwrite_dashboard}: {plan:?}");
            // A conflict never suggests that `up` resolves it, and names both targets.
            for item in &plan.0 {
                let Finding::Blocked(blocked) = &item.finding else { continue };
                let names = |text: &str| blocked.why.contains(text);
                let both = names(&another.url) && (names("http://influxdb:8086") || names("another machine"));
                assert!(both && blocked.hint.contains("--move-data-source"), "{blocked:?}");
                // A command for the address of another machine would take its objects over.
                let takes_over =
                    blocked.hint.contains("up --data-source-url") || blocked.hint.contains("up --database");
                assert!(!takes_over || another.machine.is_none(), "{blocked:?}");
                assert!(item.steps.is_empty());
            }
            let moved = plan::up(&external, &seen(&external), UpOptions { move_data_source: true, ..options });
            assert_eq!(moved.blocked(), None, "{origins:?}: {moved:?}");
            // In the instance's own container, the settings decide.
            let plan = plan::up(&own, &seen(&own), options);
            assert_eq!(plan.blocked(), None, "{origins:?}: {plan:?}");
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
            assert!(!changes(&plan, |step| matches!(step, Step::DeleteAlertRules { .. })), "{origins:?}: {plan:?}");
        }
        // Removed objects were all created for the stack's own database and not edited.
        let down = plan::deregister(&off, &seen(&off)).unwrap();
        let has_conflict = origins.into_iter().any(is_other) || source == Origin::EditedOther;
        assert_eq!(down.blocked().is_some(), has_conflict, "{origins:?}: {down:?}");
        let goes = |origin: Origin| matches!(origin, Origin::Own | Origin::Unnoted);
        let removes: [(Origin, IsStep); 3] = [
            (source, |step| *step == Step::DeleteDataSource),
            (dashboard, |step| matches!(step, Step::DeleteDashboard(_))),
            (rules, |step| matches!(step, Step::DeleteAlertRules { .. })),
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
    external.influxdb = Service::External { url: ServerUrl::http("influxdb", 8086) };
    let mut behind_proxy = own.clone();
    behind_proxy.data_source.is_url_chosen = true;
    let with_header = |seen: &mut Observed| {
        let ServerResponse::Answering(grafana) = &mut seen.grafana.probe else { panic!("it answers") };
        let SeenSource::Ours { fields, .. } = &mut grafana.data_source else { panic!("it is ours") };
        fields.insert(DataSource::OTHER_SETTINGS.into(), "httpHeaderName1".into());
    };
    let finding = |want: &Stack| plan_with(want, with_header).finding(Resource::DataSource).cloned();
    assert!(matches!(finding(&own), Some(Finding::Differs(_))));
    assert_eq!(finding(&external), Some(Finding::InSync));
    assert_eq!(finding(&behind_proxy), Some(Finding::InSync));
}

#[test]
fn an_edited_dashboard_is_kept_unless_overwriting_is_requested() {
    let want = stack(Case::default());
    let mut seen = whole_world().observe(&want, Case::default());
    if let ServerResponse::Answering(grafana) = &mut seen.grafana.probe
        && let SeenDashboardState::Present(dashboard) = &mut grafana.dashboard
    {
        dashboard.edited = true;
    }
    let kept = plan::up(&want, &seen, UpOptions::default());
    assert!(kept.in_sync() && kept.finding(Resource::Dashboard(DashboardId::Bundled)) == Some(&Finding::Edited));
    let options = UpOptions { overwrite_dashboard: true, ..UpOptions::default() };
    let replaced = plan::up(&want, &seen, options);
    assert_eq!(
        steps(&replaced),
        [Step::SaveDashboard { id: DashboardId::Bundled, overwrite: true, fresh: false, moves: true }]
    );
}

#[test]
fn an_older_grafana_never_starts_on_the_volume_of_a_newer_one() {
    let mut want = stack(Case::default());
    if let Service::Container(spec) = &mut want.grafana {
        spec.specification.image = ImageRef::parse("grafana/grafana:1.1").unwrap();
    }
    // The volume's label, the running version, and the image of the existing container each show the version.
    let made_before = plan_with(&want, |_| {});
    assert!(made_before.blocked().is_some(), "{made_before:?}");
    let after_down = plan_with(&want, |seen| seen.grafana.container = ContainerState::Absent);
    assert!(after_down.blocked().is_some(), "{after_down:?}");
    let running = plan_with(&want, |seen| {
        seen.grafana.recorded = None;
        seen.grafana.volume = Volume::Ours { user: None, version: None, image: None };
        seen.grafana.version = Some("1.2.3".into());
    });
    assert!(running.blocked().is_some(), "{running:?}");
    // If none of them does, the volume's files are read before the container is removed.
    let unknown = plan_with(&want, |seen| {
        (seen.grafana.recorded, seen.grafana.version) = (None, None);
        seen.grafana.volume = Volume::Ours { user: None, version: None, image: None };
        let ContainerState::Ours(have) = &mut seen.grafana.container else { panic!("it is ours") };
        have.specification = None;
        seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
    });
    let checked = steps(&unknown).iter().position(|step| matches!(step, Step::CheckImage { role: Role::Grafana, .. }));
    let removed = steps(&unknown).iter().position(|step| *step == Step::RemoveContainer(Role::Grafana));
    assert!(checked.is_some() && checked < removed, "{unknown:?}");
}

/// Whether a plan is blocked for a stack with this image and a container created from another one.
fn blocked_on(image: &str, made_from: &str, change: impl FnOnce(&mut Observed)) -> bool {
    let mut want = stack(Case::default());
    if let Service::Container(spec) = &mut want.grafana {
        spec.specification.image = ImageRef::parse(image).unwrap();
    }
    let plan = plan_with(&want, |seen| {
        seen.grafana.volume = Volume::Ours { user: None, version: None, image: Some(made_from.into()) };
        seen.grafana.recorded = None;
        seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
        let ContainerState::Ours(have) = &mut seen.grafana.container else { panic!("it is ours") };
        have.specification.as_mut().unwrap().image = ImageRef::parse(made_from).unwrap();
        change(seen);
    });
    plan.blocked().is_some()
}

#[test]
fn a_tag_names_a_version_only_for_official_images_and_only_if_the_server_does_not() {
    let stopped = |seen: &mut Observed| {
        seen.grafana.version = None;
        seen.grafana.probe = ServerResponse::Unasked;
        let ContainerState::Ours(have) = &mut seen.grafana.container else { panic!("it is ours") };
        have.run = RunState::Exited(0);
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
    let mut want = stack(Case::default());
    if let Service::Container(spec) = &mut want.grafana {
        spec.specification.image = ImageRef::parse("grafana/grafana:1.3").unwrap();
    }
    let plan = steps(&plan_with(&want, |seen| {
        seen.grafana.image = Some(Image { id: "another".into(), user: String::new() });
    }));
    let at = |step: Step| plan.iter().positions_of(step);
    let (recorded, started) = (at(Step::RecordVersion), at(Step::StartContainer(Role::Grafana)));
    assert_eq!((recorded.len(), started.len()), (2, 1), "{plan:?}");
    assert!(recorded[0] < started[0] && started[0] < recorded[1], "{plan:?}");
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
    let mut want = stack(Case::default());
    for (service, port) in [(&mut want.influxdb, 3000), (&mut want.grafana, 8086)] {
        if let Service::Container(spec) = service {
            spec.specification.publish.set_port(port);
        }
    }
    let plan = plan_with(&want, |seen| {
        seen.influxdb.port_holder = Some(PortHolder::OtherRole(Role::Grafana));
        seen.grafana.port_holder = Some(PortHolder::OtherRole(Role::Influxdb));
    });
    assert!(plan.blocked().is_none(), "{plan:?}");
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
    let mut want = stack(Case::default());
    want.influxdb = Service::External { url: clipper_metrics::model::address::ServerUrl::http("db", 8086) };
    let answering = plan_with(&want, |_| {});
    assert_eq!(steps(&answering), [Step::RemoveContainer(Role::Influxdb)]);
    let silent = plan_with(&want, |seen| seen.influxdb.probe = ServerResponse::Silent("down".into()));
    assert!(silent.blocked().is_some() && !steps(&silent).contains(&Step::RemoveContainer(Role::Influxdb)));
    // If both servers are external, the network is removed as well.
    want.grafana = want.influxdb.clone();
    let both = steps(&plan_with(&want, |_| {}));
    assert!(both.contains(&Step::RemoveNetwork) && both.contains(&Step::RemoveContainer(Role::Grafana)), "{both:?}");
    let used = plan_with(&want, |seen| seen.network_users = vec!["a".into(), "b".into()]);
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
    let mut want = stack(Case::default());
    want.influxdb = Service::External { url: clipper_metrics::model::address::ServerUrl::http("db", 8086) };
    want.grafana = Service::External { url: clipper_metrics::model::address::ServerUrl::http("g", 3000) };
    let seen = whole_world().observe(&stack(Case::default()), Case::default());
    let influxdb = [
        seen.influxdb.probe.clone(),
        ServerResponse::Unasked,
        ServerResponse::Starting("soon".into()),
        ServerResponse::Silent("down".into()),
        ServerResponse::Refusing("no".into()),
    ];
    let all = influxdb.into_iter().map(|probe| {
        let mut seen = seen.clone();
        seen.grafana.probe =
            if matches!(probe, ServerResponse::Answering(_)) { seen.grafana.probe } else { ServerResponse::Unasked };
        seen.influxdb.probe = probe;
        seen
    });
    (want, all.collect())
}

#[test]
fn a_managed_container_is_not_an_external_server_and_nothing_is_changed() {
    let (want, worlds) = said_to_be_external();
    for seen in worlds {
        for (role, is_own, runs) in Role::ALL
            .into_iter()
            .flat_map(|role| [(role, true, true), (role, false, true), (role, true, false), (role, false, false)])
        {
            let (instance, container) = (if is_own { "x" } else { "y" }.to_string(), "c".to_string());
            let managed = Some(ManagedServer { container, instance, is_own, runs });
            let mut seen = seen.clone();
            let is_silent = match role {
                Role::Influxdb => matches!(seen.influxdb.probe, ServerResponse::Silent(_)),
                Role::Grafana => matches!(seen.grafana.probe, ServerResponse::Silent(_)),
            };
            match role {
                Role::Influxdb => seen.influxdb.managed_behind = managed,
                Role::Grafana => seen.grafana.managed_behind = managed,
            }
            let plan = plan::up(&want, &seen, UpOptions::default());
            let blocked = plan.0.iter().find(|item| item.resource == Resource::Server(role)).map(|item| &item.finding);
            let expected = match (is_own, runs) {
                (_, true) => true,
                // Another server may have the address of a stopped container.
                (true, false) => is_silent,
                (false, false) => false,
            };
            let is_refused =
                matches!(blocked, Some(Finding::Blocked(blocked)) if blocked.kind == plan::BlockReason::Settings);
            assert_eq!(is_refused, expected, "{role} {is_own} {runs}: {plan:?}");
            for volumes in [false, true] {
                let down = plan::down(&want, &seen, volumes);
                assert_eq!(down.blocked().is_some(), is_own && runs, "{role} {is_own} {runs}: {down:?}");
            }
        }
    }
}

#[test]
fn lost_settings_must_be_supplied_if_they_cannot_be_derived() {
    let mut want = stack(Case::default());
    let settings = want.settings.as_mut().unwrap();
    settings.lost = Some(lost(&["database"]));
    let plan = plan_with(&want, |seen| seen.settings = StoredSettings::default());
    let (resource, blocked) = plan.blocked().unwrap();
    assert_eq!((resource, blocked.kind), (Resource::Settings, plan::BlockReason::Settings));
    assert!(blocked.hint.contains("up --database NAME"), "{}", blocked.hint);
    want.settings.as_mut().unwrap().lost = Some(lost(&[]));
    let plan = plan_with(&want, |seen| seen.settings = StoredSettings::default());
    assert_eq!(steps(&plan), [Step::SaveSettings { keeps_retention: false }]);
}

#[test]
fn settings_are_saved_after_preparations_and_before_container_changes() {
    let mut want = stack(Case { given: Some(GIVEN), ..Case::default() });
    want.settings = Some(Settings::default());
    let stopped = |seen: &mut Observed| {
        seen.settings.values.as_mut().unwrap().clear();
        seen.settings
            .values
            .as_mut()
            .unwrap()
            .insert("registry".into(), Remembered { value: "r".into(), of_file: true });
        let ContainerState::Ours(have) = &mut seen.grafana.container else { panic!("it is ours") };
        have.run = RunState::Exited(0);
        seen.grafana.probe = ServerResponse::Unasked;
    };
    let plan = plan_with(&want, stopped);
    let [order, _] = orders(&plan);
    let at = |step| order.iter().position(|(_, one)| *one == step).unwrap();
    let saved = at(Step::SaveSettings { keeps_retention: false });
    assert!(at(Step::TryPassword) < saved, "{order:?}");
    assert!(saved < at(Step::RemoveContainer(Role::Grafana)), "{order:?}");
}

#[test]
fn without_the_engines_loopback_nothing_unverified_is_published() {
    let mut want = stack(Case { open: true, ..Case::default() });
    want.engine = EngineLocation::Elsewhere("far".into());
    // A container that is not started is used to see whether the volume contains data.
    let plan = plan_with(&want, |seen| seen.grafana.container = ContainerState::Absent);
    let steps = steps(&plan);
    assert!(steps.iter().any(|step| matches!(step, Step::CreatePrivateContainer { .. })), "{plan:?}");
    let asks =
        |step: &Step| matches!(step, Step::SaveDashboard { .. } | Step::SaveDataSource { .. } | Step::VerifyQuery);
    assert!(!steps.iter().any(asks), "no confirmation is requested in this round: {plan:?}");
    assert!(!steps.contains(&Step::StartContainer(Role::Grafana)), "{plan:?}");
    let made = |has_data: bool| {
        plan_with(&want, |seen| {
            let ContainerState::Ours(have) = &mut seen.grafana.container else { panic!("it is ours") };
            (have.run, have.has_data) = (RunState::Created, Some(has_data));
            seen.grafana.probe = ServerResponse::Unasked;
        })
    };
    assert_eq!(made(true).blocked().map(|(_, blocked)| blocked.kind), Some(plan::BlockReason::Unverifiable));
    let empty = made(false);
    assert!(empty.blocked().is_none(), "{empty:?}");
    assert!(self::steps(&empty).contains(&Step::WritePassword), "{empty:?}");
    // A stopped container that was verified when it was created is started unchanged, and the login
    // is tried on it.
    want.login.given = true;
    let stopped = plan_with(&want, |seen| {
        let ContainerState::Ours(have) = &mut seen.grafana.container else { panic!("it is ours") };
        have.run = RunState::Exited(0);
        have.specification = Some(want.container(Role::Grafana).unwrap().specification.clone());
        seen.grafana.probe = ServerResponse::Unasked;
    });
    let order = self::steps(&stopped);
    let at = |step| order.iter().position(|one| *one == step);
    assert!(at(Step::StartContainer(Role::Grafana)) < at(Step::TryPassword), "{stopped:?}");
    assert!(at(Step::TryPassword).is_some() && stopped.blocked().is_none(), "{stopped:?}");
    want.login.given = false;
    // On a new volume, there is nothing to verify.
    let plan = plan_with(&want, |seen| {
        seen.grafana.container = ContainerState::Absent;
        seen.grafana.volume = Volume::Absent;
    });
    assert!(plan.blocked().is_none(), "{plan:?}");
}
