//! The planner against a model of engine, InfluxDB and Grafana: from every world, and from every
//! crash behind any step, `up` ends in the wanted state, breaks no precondition on its way, and never
//! opens a door that nobody locked.
//!
//! The model has its own idea of "wanted": it does not ask the planner.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use clipper_metrics::core::observed::{
    Answer, Container, Dashboard as SeenDashboardState, DataSource as SeenSource, Grafana, Image, Influxdb,
    KeptPassword, Network, Observed, OurContainer, Query, Run, SeenDashboard, Server, Volume,
};
use clipper_metrics::core::plan::{self, Finding, Lane, Plan, Step, Wishes};
use clipper_metrics::core::stack::{ContainerSpec, Dashboard, DataSource, Password, Pull, Role, Service, Stack};

const RUNS: [Run; 6] = [Run::Created, Run::Running, Run::Paused, Run::Restarting, Run::Exited(1), Run::Dead];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    Right,
    Wrong,
    Unreadable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cont {
    spec: Spec,
    /// The network that it was made on; ids only grow.
    network: u32,
    run: Run,
    password: Password,
    /// Published for everybody.
    open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Srv {
    image: bool,
    volume: bool,
    container: Option<Cont>,
}

/// Grafana's database: nothing is in it before the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Db {
    Empty,
    DefaultPassword,
    OwnPassword,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Missing,
    Wrong,
    Right,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct World {
    /// Ids of networks with our name and label.
    networks: Vec<u32>,
    next_network: u32,
    influxdb: Srv,
    grafana: Srv,
    database: bool,
    db: Db,
    /// The password's file lies in the volume.
    file: bool,
    /// A new password lies there, of which Grafana was being told when a run ended.
    pending: bool,
    dashboard: Thing,
    source: Thing,
    home: bool,
    /// Grafana answers with settings that it no longer has.
    stale: bool,
}

fn stack(open: bool) -> Stack {
    let spec = |role: Role, address: &str| ContainerSpec {
        role,
        name: format!("x-{role}"),
        network: "x".into(),
        image: format!("{role}:1"),
        env: BTreeMap::new(),
        address: address.parse::<IpAddr>().unwrap(),
        port: role.port(),
        reach: "127.0.0.1".into(),
        read_only: true,
        password: if open && role == Role::Grafana { Password::File } else { Password::Default },
        settings: BTreeMap::new(),
        given: BTreeMap::new(),
    };
    Stack {
        instance: "x".into(),
        influxdb: Service::Container(spec(Role::Influxdb, "127.0.0.1")),
        grafana: Service::Container(spec(Role::Grafana, if open { "0.0.0.0" } else { "127.0.0.1" })),
        database: "d".into(),
        organisation: None,
        folder: None,
        data_source: DataSource {
            uid: "x".into(),
            name: "X".into(),
            url: "http://influxdb:8086".into(),
            database: "d".into(),
            user: String::new(),
        },
        dashboard: Dashboard {
            uid: "x".into(),
            title: "X".into(),
            edition: "new".into(),
            objective: None,
            models: None,
        },
        pull: Pull::Missing,
        timeout: Duration::from_secs(1),
        clipper: None,
    }
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

    /// What the systems would see.
    fn observe(&self, want: &Stack) -> Observed {
        let network = match self.networks.as_slice() {
            [] => Network::Free,
            ids => Network::Ours(ids.iter().map(ToString::to_string).collect()),
        };
        let container = |srv: &Srv, spec: &ContainerSpec| match srv.container {
            None => Container::Absent,
            Some(have) => {
                let mut fields = spec.fields();
                fields.insert("password".into(), have.password.name().into());
                let host = if have.open { "0.0.0.0" } else { "127.0.0.1" };
                fields.insert("publish".into(), format!("{host}:{}", spec.port));
                if have.spec == Spec::Wrong {
                    fields.insert("env OLD".into(), "1".into());
                }
                Container::Ours(OurContainer {
                    id: "c".into(),
                    fields: (have.spec != Spec::Unreadable).then_some(fields),
                    image_id: "i".into(),
                    on_network: self.kept() == Some(have.network),
                    run: have.run,
                    started_at: None,
                    published: None,
                })
            }
        };
        let runs = |srv: &Srv| srv.container.is_some_and(|have| have.run == Run::Running);
        let image = |srv: &Srv| srv.image.then(|| Image { id: "i".into(), user: String::new() });
        let volume = |srv: &Srv| if srv.volume { Volume::Ours { user: Some(String::new()) } } else { Volume::Absent };
        let labelled = self.grafana.container.is_some_and(|have| have.password == Password::File);
        let unreadable = self.grafana.container.is_some_and(|have| have.spec == Spec::Unreadable);
        // The known password is the file's where the label says so, else the default one.
        let opens = if labelled && !unreadable { self.db == Db::OwnPassword } else { self.db == Db::DefaultPassword };
        let query = match self.source {
            Thing::Missing => Query::Unasked,
            Thing::Right if self.database && runs(&self.influxdb) && !self.stale => Query::Ok,
            _ => Query::Failing("no".into()),
        };
        let answer = if !runs(&self.grafana) {
            Answer::Unasked
        } else if opens {
            Answer::Answering(Grafana {
                has_organisation: true,
                has_folder: true,
                data_source: match self.source {
                    Thing::Missing => SeenSource::Missing,
                    Thing::Right => SeenSource::Ours(want.data_source.fields()),
                    Thing::Wrong => SeenSource::Ours(BTreeMap::new()),
                },
                dashboard: match self.dashboard {
                    Thing::Missing => SeenDashboardState::Missing,
                    other => SeenDashboardState::Present(SeenDashboard {
                        edited: false,
                        edition: Some(if other == Thing::Right { "new" } else { "old" }.into()),
                        objective: None,
                        models: vec![],
                    }),
                },
                query,
            })
        } else {
            Answer::Refusing("wrong password".into())
        };
        let kept = self.file || self.pending;
        let refused_with_file = matches!(answer, Answer::Refusing(_)) && kept && (!labelled || unreadable);
        Observed {
            engine: None,
            network,
            influxdb: Server {
                image: image(&self.influxdb),
                volume: volume(&self.influxdb),
                container: container(&self.influxdb, want.container(Role::Influxdb).unwrap()),
                port_holder: None,
                answer: if runs(&self.influxdb) {
                    Answer::Answering(Influxdb { has_database: self.database })
                } else {
                    Answer::Unasked
                },
                version: None,
                kept_password: KeptPassword::NotAsked,
            },
            grafana: Server {
                image: image(&self.grafana),
                volume: volume(&self.grafana),
                container: container(&self.grafana, want.container(Role::Grafana).unwrap()),
                port_holder: None,
                answer,
                version: None,
                kept_password: if refused_with_file { KeptPassword::Unlabelled } else { KeptPassword::NotAsked },
            },
            others: vec![],
        }
    }

    /// One step, as the real systems would take it; a broken precondition is a failure. `false` if
    /// Grafana refuses the password that we know, which ends the run.
    #[must_use]
    fn take(&mut self, want: &Stack, step: Step) -> bool {
        match step {
            Step::PullImage(role) => self.server(role).image = true,
            Step::CheckImage(role) => assert!(self.server(role).image),
            Step::CreateNetwork => {
                self.networks.push(self.next_network);
                self.next_network += 1;
            }
            Step::RemoveSpareNetworks => self.networks.truncate(1),
            Step::RemoveNetwork => {
                let attached = |srv: &Srv| srv.container.is_some_and(|have| have.run == Run::Running);
                assert!(!attached(&self.influxdb) && !attached(&self.grafana), "the network is in use");
                self.networks.clear();
            }
            Step::CreateVolume(role) => self.server(role).volume = true,
            Step::RemoveVolume(role) => {
                assert!(self.server(role).container.is_none(), "the volume is in use");
                self.server(role).volume = false;
                self.empty(role);
            }
            Step::CreateContainer(role, password) => {
                let open = !want.container(role).unwrap().address.is_loopback();
                self.create(role, password, open);
            }
            Step::CreateGuarded => {
                self.create(Role::Grafana, Password::Default, false);
                self.adopt();
            }
            Step::AdoptPassword => self.adopt(),
            Step::EnsurePassword | Step::StorePassword | Step::ResetPassword => {
                assert!(self.grafana.container.is_some());
                self.file = true;
            }
            Step::SecurePassword => {
                let have = self.grafana.container.unwrap();
                assert!(have.run == Run::Running && !have.open, "only on loopback");
                self.file = true;
                self.db = Db::OwnPassword;
            }
            Step::RemoveContainer(role) => self.server(role).container = None,
            Step::UnpauseContainer(role) => self.server(role).container.as_mut().unwrap().run = Run::Running,
            Step::StartContainer(role) => self.start(role),
            Step::AwaitAnswer(role) => {
                assert_eq!(self.server(role).container.unwrap().run, Run::Running, "{role} must run to answer");
            }
            Step::CreateDatabase => {
                assert_eq!(self.influxdb.container.unwrap().run, Run::Running);
                self.database = true;
            }
            Step::SaveDashboard | Step::SetHome | Step::SaveDataSource | Step::AwaitQuery if !self.signed_in() => {
                return false;
            }
            Step::SaveDashboard => {
                self.dashboard = Thing::Right;
            }
            Step::SetHome => {
                assert_ne!(self.dashboard, Thing::Missing, "a home page must exist");
                self.home = true;
            }
            Step::SaveDataSource => self.source = Thing::Right,
            Step::AwaitQuery => {
                assert!(
                    self.database
                        && self.influxdb.container.unwrap().run == Run::Running
                        && self.source == Thing::Right
                );
                self.stale = false;
            }
            Step::CreateOrganisation | Step::CreateFolder => unreachable!("not wanted"),
        }
        let exposed = self.grafana.container.is_some_and(|have| have.open && have.run == Run::Running);
        assert!(!exposed || self.db == Db::OwnPassword, "admin/admin is open to everybody after {step:?}");
        true
    }

    /// Grafana takes the password that we know: the file's where the label says so.
    fn signed_in(&self) -> bool {
        let have = self.grafana.container.unwrap();
        assert_eq!(have.run, Run::Running);
        let known = if have.password == Password::File { Db::OwnPassword } else { Db::DefaultPassword };
        self.db == known
    }

    fn empty(&mut self, role: Role) {
        match role {
            Role::Influxdb => self.database = false,
            Role::Grafana => {
                (self.db, self.file, self.pending) = (Db::Empty, false, false);
                (self.home, self.stale) = (false, false);
                (self.dashboard, self.source) = (Thing::Missing, Thing::Missing);
            }
        }
    }

    fn create(&mut self, role: Role, password: Password, open: bool) {
        let network = self.kept().expect("there is no network to attach to");
        let srv = self.server(role);
        assert!(srv.container.is_none(), "the name is taken");
        assert!(srv.image, "there is no image");
        assert!(srv.volume, "there is no volume");
        srv.container = Some(Cont { spec: Spec::Right, network, run: Run::Created, password, open });
    }

    fn adopt(&mut self) {
        if self.file
            && let Some(have) = &mut self.grafana.container
        {
            have.password = Password::File;
        }
    }

    fn start(&mut self, role: Role) {
        let kept = self.kept();
        let file = self.file;
        let have = self.server(role).container.as_mut().expect("nothing to start");
        assert_eq!(Some(have.network), kept, "attached to a network that is gone");
        have.run = Run::Running;
        let password = have.password;
        if role == Role::Grafana && self.db == Db::Empty {
            if password == Password::File {
                assert!(file, "Grafana ends when its password's file is missing");
            }
            self.db = if password == Password::File { Db::OwnPassword } else { Db::DefaultPassword };
        }
    }

    /// The model's own idea of done.
    fn is_wanted(&self, open: bool) -> bool {
        let fine = |srv: &Srv| {
            srv.container.is_some_and(|have| {
                have.spec == Spec::Right && have.run == Run::Running && Some(have.network) == self.kept()
            })
        };
        let have = self.grafana.container;
        let door = have
            .is_some_and(|have| have.open == open && (have.password == Password::File) == (self.db == Db::OwnPassword));
        let inside = self.database && self.source == Thing::Right && self.dashboard == Thing::Right && !self.stale;
        self.networks.len() == 1 && fine(&self.influxdb) && fine(&self.grafana) && door && inside
    }
}

/// Steps in an order in which they may happen: the two roles side by side, so one lane after the
/// other and the other way round.
fn orders(plan: &Plan) -> [Vec<Step>; 2] {
    let of =
        |lane: Lane| plan.steps().map(|(step, _)| step).filter(move |step| step.lane() == lane).collect::<Vec<_>>();
    let (one, other) = (of(Lane::Beside(Role::Influxdb)), of(Lane::Beside(Role::Grafana)));
    [
        [of(Lane::First), one.clone(), other.clone(), of(Lane::Last)].concat(),
        [of(Lane::First), other, one, of(Lane::Last)].concat(),
    ]
}

fn finish(mut world: World, want: &Stack, open: bool) {
    for _ in 0..3 {
        let plan = plan::up(want, &world.observe(want), Wishes::default());
        assert!(plan.blocked().is_none(), "blocked: {:?}\nin {world:?}", plan.blocked());
        if plan.in_sync() {
            assert!(world.is_wanted(open), "called done, but is not: {world:?}");
            return;
        }
        for step in orders(&plan)[0].clone() {
            if !world.take(want, step) {
                break;
            }
        }
    }
    panic!("does not converge: {world:?}");
}

/// Runs to the end, and from every crash behind any step.
fn check(world: &World, want: &Stack, open: bool) -> usize {
    let plan = plan::up(want, &world.observe(want), Wishes::default());
    if plan.blocked().is_some() {
        return 0;
    }
    assert_eq!(plan.in_sync(), world.is_wanted(open), "{world:?}\n{plan:?}");
    let mut runs = 0;
    for (index, order) in orders(&plan).into_iter().enumerate() {
        // The other order of the lanes is tried whole: what it leaves half-way is a world of its own.
        for interrupted in (index * order.len())..=order.len() {
            let run = || {
                let mut world = world.clone();
                for step in &order[..interrupted] {
                    if !world.take(want, *step) {
                        break;
                    }
                }
                finish(world, want, open);
            };
            assert!(
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok(),
                "from {world:?}\nwith {order:?}\ninterrupted after {interrupted}"
            );
            runs += 1;
        }
    }
    runs
}

fn containers(passwords: &[Password], opens: &[bool]) -> Vec<Option<Cont>> {
    let mut all = vec![None];
    for spec in [Spec::Right, Spec::Wrong, Spec::Unreadable] {
        for network in [1, 9] {
            for run in RUNS {
                for password in passwords {
                    for open in opens {
                        all.push(Some(Cont { spec, network, run, password: *password, open: *open }));
                    }
                }
            }
        }
    }
    all
}

fn servers(passwords: &[Password], opens: &[bool]) -> Vec<Srv> {
    let mut all = Vec::new();
    for container in containers(passwords, opens) {
        for (image, volume) in [(false, false), (false, true), (true, false), (true, true)] {
            // A container holds its image and its volume.
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

/// A world that can be: nothing is stored without a volume.
fn worlds(influxdbs: &[Srv], grafanas: &[Srv], mut each: impl FnMut(World)) {
    let things = [Thing::Missing, Thing::Wrong, Thing::Right];
    for networks in networks() {
        for influxdb in influxdbs {
            for grafana in grafanas {
                for database in [false, true] {
                    for (db, file, pending) in [
                        (Db::Empty, false, false),
                        (Db::Empty, true, false),
                        (Db::DefaultPassword, false, false),
                        (Db::DefaultPassword, false, true),
                        (Db::OwnPassword, false, true),
                        (Db::OwnPassword, true, true),
                    ] {
                        for (index, dashboard) in things.into_iter().enumerate() {
                            // Nothing is stored where no database is: one such world is enough.
                            if (db == Db::Empty || !grafana.volume) && index > 0 {
                                continue;
                            }
                            let source = things[(index + usize::from(database)) % 3];
                            let world = World {
                                networks: networks.clone(),
                                next_network: 20,
                                influxdb: *influxdb,
                                grafana: *grafana,
                                database: database && influxdb.volume,
                                db: if grafana.volume { db } else { Db::Empty },
                                file: file && grafana.volume,
                                pending: pending && grafana.volume,
                                dashboard: if grafana.volume && db != Db::Empty { dashboard } else { Thing::Missing },
                                source: if grafana.volume && db != Db::Empty { source } else { Thing::Missing },
                                home: false,
                                stale: database && source == Thing::Right,
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

/// Leaves out what no run of ours and no user can bring about without losing a password.
fn can_be(world: &World) -> bool {
    let Some(have) = world.grafana.container else { return true };
    let labelled = have.password == Password::File;
    let safe = !have.open || labelled;
    // Only a container that was never started has an empty database beside it, and a running one
    // that was made with the file has the file's password.
    let started = have.run != Run::Created;
    let db = match world.db {
        Db::Empty => !started,
        Db::DefaultPassword => !labelled,
        Db::OwnPassword => true,
    };
    safe && db
}

fn everywhere(open: bool) -> (usize, usize) {
    let want = stack(open);
    let influxdbs = servers(&[Password::Default], &[false]);
    let grafanas = servers(&[Password::Default, Password::File], &[false, true]);
    let (mut worlds_seen, mut runs) = (0, 0);
    let mut each = |world: World| {
        worlds_seen += 1;
        runs += check(&world, &want, open);
    };
    worlds(&some(&influxdbs), &grafanas, &mut each);
    worlds(&influxdbs, &some(&grafanas), &mut each);
    (worlds_seen, runs)
}

#[test]
fn on_loopback_every_world_and_every_crash_converges() {
    let (worlds, runs) = everywhere(false);
    assert!(worlds > 10_000 && runs > 100_000, "{worlds} worlds, {runs} runs");
}

#[test]
fn for_everybody_every_world_and_every_crash_converges_and_no_door_is_ever_open() {
    let (worlds, runs) = everywhere(true);
    assert!(worlds > 10_000 && runs > 100_000, "{worlds} worlds, {runs} runs");
}

#[test]
fn down_leaves_nothing_of_ours_and_keeps_the_data_unless_told_otherwise() {
    let want = stack(false);
    let mut checked = 0;
    let servers = servers(&[Password::Default], &[false]);
    worlds(&some(&servers), &servers, |world| {
        for volumes in [false, true] {
            let plan = plan::down(&want, &world.observe(&want), volumes);
            for order in orders(&plan) {
                let mut world = world.clone();
                for step in order {
                    assert!(world.take(&want, step));
                }
                assert!(world.influxdb.container.is_none() && world.grafana.container.is_none());
                assert!(world.networks.is_empty());
                assert!(!volumes || !(world.influxdb.volume || world.grafana.volume));
                assert!(plan::down(&want, &world.observe(&want), volumes).steps().next().is_none());
                checked += 1;
            }
            if !volumes {
                assert!(!plan.steps().any(|(step, _)| matches!(step, Step::RemoveVolume(_))));
            }
        }
    });
    assert!(checked > 1_000);
}

#[test]
fn what_is_not_ours_blocks_and_is_never_touched() {
    let want = stack(false);
    let empty = Srv { image: true, volume: false, container: None };
    let world = World {
        networks: vec![],
        next_network: 1,
        influxdb: empty,
        grafana: empty,
        database: false,
        db: Db::Empty,
        file: false,
        pending: false,
        dashboard: Thing::Missing,
        source: Thing::Missing,
        home: false,
        stale: false,
    };
    let seen = world.observe(&want);
    let foreign: [fn(&mut Observed); 4] = [
        |seen| seen.network = Network::Foreign,
        |seen| seen.influxdb.container = Container::Foreign,
        |seen| seen.grafana.volume = Volume::Foreign,
        |seen| seen.grafana.port_holder = Some("somebody".into()),
    ];
    for change in foreign {
        let mut seen = seen.clone();
        change(&mut seen);
        let plan = plan::up(&want, &seen, Wishes::default());
        assert!(plan.blocked().is_some(), "{plan:?}");
        let down = plan::down(&want, &seen, true);
        assert!(down.steps().next().is_none(), "{down:?}");
    }
}

#[test]
fn an_edited_dashboard_is_left_alone_unless_it_is_to_be_overwritten() {
    let want = stack(false);
    let have = Cont { spec: Spec::Right, network: 1, run: Run::Running, password: Password::Default, open: false };
    let srv = Srv { image: true, volume: true, container: Some(have) };
    let world = World {
        networks: vec![1],
        next_network: 2,
        influxdb: srv,
        grafana: srv,
        database: true,
        db: Db::DefaultPassword,
        file: false,
        pending: false,
        dashboard: Thing::Wrong,
        source: Thing::Right,
        home: true,
        stale: false,
    };
    let mut seen = world.observe(&want);
    if let Answer::Answering(grafana) = &mut seen.grafana.answer
        && let SeenDashboardState::Present(dashboard) = &mut grafana.dashboard
    {
        dashboard.edited = true;
    }
    let kept = plan::up(&want, &seen, Wishes::default());
    assert!(kept.in_sync() && kept.finding(plan::Resource::Dashboard) == Some(&Finding::Edited));
    let wishes = Wishes { overwrite_dashboard: true, ..Wishes::default() };
    let replaced = plan::up(&want, &seen, wishes);
    assert_eq!(replaced.steps().map(|(step, _)| step).collect::<Vec<_>>(), [Step::SaveDashboard]);
}
