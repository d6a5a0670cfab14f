//! The planner against a model of engine, InfluxDB and Grafana: from every world, and after a crash
//! behind any step, `up` reaches the desired state, violates no precondition on the way, and never
//! publishes a Grafana that accepts admin/admin or deletes data without confirmation.
//!
//! The model defines success itself, without the planner.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{LazyLock, Mutex};

use clipper_metrics::model::container_config::PasswordSource;
use clipper_metrics::model::observed::{RunState, ServerResponse};
use clipper_metrics::model::plan::{self, FailureCause, Phase, Plan, Resource, Rollback, Step, UpOptions};
use clipper_metrics::model::retention::Retention;
use clipper_metrics::model::role::Role;
use clipper_metrics::model::stack::{RestoreRecord, Stack};
use clipper_metrics::model::upgrade::UpgradeState;

use crate::world::*;

/// Asserts that nothing is removed or stopped before every pull, check and login has succeeded. A
/// trial may replace Grafana's container by a private one; InfluxDB's stays.
fn assert_kept(before: &World, now: &World, phase: Phase) {
    let is_same = |before: &Srv, now: &Srv| {
        before.container.is_none_or(|had| {
            now.container
                .is_some_and(|actual| actual.id == had.id && (had.run == actual.run || actual.run == RunState::Running))
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
const ROUNDS: usize = 9;

impl World {
    /// The same world with other ids. Steps compare ids only with each other, and each new one differs
    /// from all previous ones.
    fn renumbered(&self) -> World {
        let network = |id| (1..).zip(&self.networks).find(|(_, one)| **one == id).map_or(0, |(number, _)| number);
        let server = |srv: Srv| {
            let container = srv.container.map(|actual| Cont { network: network(actual.network), id: 1, ..actual });
            Srv { container, ..srv }
        };
        let copied = self.copy.map(|copy| copy.id);
        let upgraded = |id| if Some(id) == copied { 1 } else { 2 };
        World {
            networks: (1..).take(self.networks.len()).collect(),
            next_id: 0,
            influxdb: server(self.influxdb),
            grafana: server(self.grafana),
            intended_for: self.grafana.container.is_some_and(|actual| actual.id == self.intended_for).into(),
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
    let desired = LazyCell::new(|| stack(case));
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
        let seen = world.observe(&desired, case);
        let plan = plan::up(&desired, &seen, options);
        world.asked |= plan::shortened_retention(&plan).is_some();
        if let Some((_, blocker)) = plan.blocker() {
            let migrated =
                blocker.kind == plan::BlockReason::Image && world.ran > case.version() && world.upgrade.is_none();
            let refused = case.given.is_some() && blocker.kind == plan::BlockReason::Refused;
            // A password that is being replaced may be unknown.
            let is_unknown = case.after_reset && blocker.kind == plan::BlockReason::Refused && world.pending.is_some();
            // Only a user can change the password of another account, and of admin beside it.
            let is_unsafe = case.account != Account::Admin && case.open && world.is_open_to_all();
            let is_unsafe = is_unsafe && blocker.kind == plan::BlockReason::Settings;
            assert!(migrated || refused || is_unknown || is_unsafe, "blocked: {blocker:?}\nin {world:?}");
            return round;
        }
        if plan.in_sync() {
            assert!(world.is_done(case), "called done, but is not: {world:?}");
            let is_reset = world.db == Some(case.given.unwrap_or(NEW)) || world.db == Some(OLD) && was_fresh;
            assert!(!case.reset || is_reset, "a reset was ignored: {world:?}");
            return round;
        }
        let mut failed = None;
        let first = world.clone();
        for (phase, step) in orders(&plan)[0].clone() {
            let before = world.clone();
            if matches!(phase, Phase::Network | Phase::Preparation | Phase::Trial) {
                assert_kept(&first, &world, phase);
            }
            if !world.execute(case, plan.login, &step) {
                if matches!(step, Step::CheckAddress(..)) {
                    assert_kept(&first, &world, phase);
                    let kept = |world: &World| (world.db, world.file, world.settings);
                    assert_eq!(kept(&first), kept(&world), "something was changed for an address that is not there");
                    return round;
                }
                if matches!(step, Step::TryLogin(_)) && !case.reset {
                    let answered =
                        matches!(first.observe(&desired, case).grafana.response, ServerResponse::Answering(_));
                    assert_kept(&first, &world, if answered { Phase::Preparation } else { phase });
                    assert_eq!(
                        (before.file, before.settings),
                        (world.file, world.settings),
                        "nothing was changed for it"
                    );
                    return round;
                }
                failed = Some(step);
                break;
            }
        }
        let ended = failed.is_some();
        if let Some(step @ Step::AwaitAnswer(_)) = failed {
            let back = Case { upgrade: false, given: None, reset: false, ..case };
            let seen = world.observe(&desired, case);
            match plan::roll_back(&desired, &seen, Some(&step), FailureCause::NotReady) {
                // Nothing ran before, so there is nothing to roll back to.
                None => assert!(world.ran != LABEL && world.upgrade.is_none(), "the database is gone: {world:?}"),
                Some(Rollback { plan, .. }) => {
                    assert!(plan.executable().all(|step| world.execute(case, None, step)));
                    finish(world, back);
                }
            }
            return round;
        }
        if !ended {
            options = options.after(&plan);
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
    let account = if case.account == Account::New { Account::Other } else { case.account };
    let bare = Case { account, given: None, reset: false, after_reset: case.after_reset || case.reset, ..case };
    finish(world.clone(), case);
    finish(world.clone(), bare);
    // Without a version in the image's name, nothing shows that an image is older than a database which was migrated
    // before, and a moved tag does not move back.
    let shows_age = match case.naming {
        Naming::Version => true,
        Naming::Digest => world.is_pending() || world.ran == LABEL,
        Naming::Latest => false,
    };
    if case.upgrade && shows_age {
        finish(world, Case { upgrade: false, ..bare });
    }
    RECOVERING.lock().unwrap().insert(key);
}

/// The worlds that were checked between two plans of a run.
static CHECKED: LazyLock<Mutex<HashSet<u128>>> = LazyLock::new(Mutex::default);

/// The same as [`check`], unless it was done for such a world.
fn check_once(world: &World, desired: &Stack, case: Case) -> usize {
    let is_new = CHECKED.lock().unwrap().insert(digest(&(world.renumbered(), case, world.asked)));
    if is_new { check(world, desired, case) } else { 0 }
}

/// Runs to the end, and from every crash behind any step.
fn check(world: &World, desired: &Stack, case: Case) -> usize {
    let options = UpOptions { reset_password: case.reset, ..UpOptions::default() };
    let seen = world.observe(desired, case);
    let plan = plan::up(desired, &seen, options);
    if plan.blocker().is_some() {
        return 0;
    }
    let asked = world.asked || plan::shortened_retention(&plan).is_some();
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
                    proceeds = crashed.execute(case, plan.login, step);
                }
                // The other order of lanes is tried as a whole: its intermediate states are worlds of their own.
                let is_tried = index == 0 || interrupted == order.len();
                if is_tried {
                    recover(&crashed, case);
                }
                // The next plan is interrupted, too.
                if interrupted == order.len() && proceeds && plan.until() != Phase::End {
                    return 1 + check_once(
                        &crashed,
                        desired,
                        Case {
                            reset: options.after(&plan).reset_password,
                            after_reset: case.after_reset || case.reset,
                            ..case
                        },
                    );
                }
                is_tried.into()
            };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            assert!(outcome.is_ok(), "{case:?} from {world:?}\nwith {order:?}\ninterrupted after {interrupted}");
            runs += outcome.unwrap_or_default();
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
                                accepts_admin: false,
                                file: if grafana.volume { file } else { None },
                                pending: if grafana.volume { pending } else { None },
                                ran: if grafana.volume && db.is_some() { LABEL } else { 0 },
                                recorded: None,
                                intended: None,
                                intended_for: 0,
                                upgrade: None,
                                upgraded: (LABEL, LABEL + 1),
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
    let Some(actual) = world.grafana.container else { return true };
    let labelled = actual.password == PasswordSource::File;
    // Only a container that was never started has an empty database, and it is created with the
    // file only if the file exists or the database is empty.
    let started = actual.run != RunState::Created;
    let ran = !started || world.db.is_some();
    let with_file = !labelled || world.file.is_some() || (!started && world.db.is_none());
    // No run has published admin/admin.
    let safe = !actual.open || (labelled && world.db != Some(DEFAULT));
    ran && with_file && safe
}

fn everywhere(case: Case) -> (usize, usize) {
    let desired = stack(case);
    let influxdbs = influxdbs();
    let grafanas = grafanas();
    let (mut worlds_seen, mut runs) = (0, 0);
    let mut each = |world: World| {
        worlds_seen += 1;
        if case.account != Account::Admin
            && case.open
            && world.db.is_some()
            && !world.grafana.container.is_some_and(|actual| actual.open)
        {
            runs += check(&World { accepts_admin: true, ..world.clone() }, &desired, case);
        }
        runs += check(&world, &desired, case);
    };
    if case.ports.is_some() {
        // Only the holder of a port matters here.
        let may_start =
            |srv: &&Srv| srv.container.is_none_or(|actual| actual.spec == Spec::Right && actual.network == 1);
        let influxdbs: Vec<Srv> = influxdbs.iter().filter(may_start).copied().collect();
        worlds(&[vec![1]], &influxdbs, &grafanas, &DOORS[if case.open { 8..9 } else { 2..3 }], &mut each);
    } else if case.given.is_some() || case.reset || case.upgrade || case.account != Account::Admin {
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
    assert!(worlds > 2_000 && runs > 15_000, "{worlds} worlds, {runs} runs");
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
        let desired = stack(case);
        let mut declined = 0;
        worlds(&networks(), &influxdbs, &some(&grafanas), &DOORS[1..4], |found| {
            let mut world = found.clone();
            for _ in 0..6 {
                let plan = plan::up(&desired, &world.observe(&desired, case), UpOptions::default());
                if plan::shortened_retention(&plan).is_some() {
                    assert_eq!(world.remembers, found.remembers, "{found:?}");
                    declined += 1;
                    return;
                }
                if plan.in_sync() || plan.blocker().is_some() {
                    return;
                }
                let [order, _] = orders(&plan);
                if !order.into_iter().all(|(_, step)| world.execute(case, plan.login, &step)) {
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
fn another_account_signs_in_and_no_default_password_is_published() {
    let cases = [(Account::New, false, None), (Account::Other, true, None), (Account::New, true, Some(GIVEN))];
    for (account, open, given) in cases {
        check_everywhere(Case { open, account, given, ..Case::default() });
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
    let desired = stack(case);
    let grafanas = servers(&[PasswordSource::Default, PasswordSource::File], &[false], Role::Grafana.port());
    let influxdbs = influxdbs();
    worlds(&[vec![], vec![1]], &influxdbs[influxdbs.len() - 1..], &grafanas, &DOORS, |world| {
        let seen = world.observe(&desired, case);
        let plan = plan::up(&desired, &seen, UpOptions::default());
        if plan.blocker().is_some() {
            return;
        }
        let moves =
            plan.steps().any(|(step, _)| matches!(step, Step::CreateContainer(new) if new.role == Role::Grafana));
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
        let desired = stack(case);
        worlds(&[vec![1]], &influxdbs(), &grafanas, &DOORS, |world| {
            // A paused one without its network cannot answer.
            let runs = |actual: Cont| {
                actual.run == RunState::Running || (actual.run == RunState::Paused && actual.network == 1)
            };
            if !world.grafana.container.is_some_and(runs) || world.db.is_none() {
                return;
            }
            let world = World { slow: true, ..world };
            let plan = plan::up(&desired, &world.observe(&desired, case), UpOptions::default());
            let loses = |step: &Step| {
                matches!(step, Step::RemoveContainer(_) | Step::CreateContainer(_) | Step::SaveSettings { .. })
            };
            let tries = |step: &Step| matches!(step, Step::TryLogin(_));
            let mut before = plan.executable().take_while(|step| !tries(step));
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
fn an_image_without_a_version_in_its_name_never_migrates_a_database_without_a_copy() {
    for naming in [Naming::Latest, Naming::Digest] {
        check_everywhere(Case { naming, upgrade: true, ..Case::default() });
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
        (pending.upgrade, pending.copy) = (Some((state, 15)), Some(world.copied(15)));
        let ran = pending.grafana.container.is_none_or(|actual| actual.run != RunState::Created);
        if let Some(actual) = &mut pending.grafana.container {
            actual.version = new;
        }
        if ran {
            (pending.ran, pending.intended) = (new, Some(new));
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
        let desired = stack(case);
        let doors = [DOORS[2], DOORS[8]];
        worlds(&[vec![1]], &influxdbs[influxdbs.len() - 1..], &grafanas, &doors, |world| {
            for world in with_upgrades(&world) {
                runs += check(&world, &desired, case);
            }
        });
    }
    assert!(runs > 10_000, "{runs} runs");
}

#[test]
fn down_removes_everything_except_data_and_settings_unless_requested() {
    let case = Case::default();
    let desired = stack(case);
    let mut checked = 0;
    let grafanas = servers(&[PasswordSource::Default], &[false], Role::Grafana.port());
    worlds(&networks(), &some(&influxdbs()), &grafanas, &DOORS[1..3], |world| {
        for volumes in [false, true] {
            let plan = plan::down(&desired, &world.observe(&desired, case), volumes);
            let used = World { network_is_used: true, ..world.clone() };
            let around = plan::down(&desired, &used.observe(&desired, case), volumes);
            let kept: Vec<Step> = steps(&plan).into_iter().filter(|step| *step != Step::RemoveNetwork).collect();
            assert_eq!(steps(&around), kept, "only the network stays where another container uses it");
            assert_eq!(around.kept().count(), world.networks.len().min(1));
            for order in orders(&plan) {
                let mut world = world.clone();
                for (_, step) in order {
                    assert!(world.execute(case, None, &step));
                }
                assert!(world.influxdb.container.is_none() && world.grafana.container.is_none());
                assert!(world.networks.is_empty());
                assert!(!volumes || !(world.influxdb.volume || world.grafana.volume));
                assert!(!volumes || world.settings == Thing::Missing);
                assert!(plan::down(&desired, &world.observe(&desired, case), volumes).is_idle());
                checked += 1;
            }
            if !volumes {
                let deletes = |step: &Step| matches!(step, Step::RemoveVolume(_) | Step::RemoveSettings);
                assert!(!plan.steps().any(|(step, _)| deletes(step)));
            }
        }
    });
    assert!(checked > 1_000);
}

/// Performs a restore with the planner's steps, as the command does; returns the world after each
/// step, the last one with all data.
fn restored(mut world: World, run: u32) -> Vec<World> {
    let case = Case::default();
    let desired = Stack { restore: Some(restore(run)), ..stack(case) };
    let apply = |world: &mut World, plan: &Plan| {
        let [order, _] = orders(plan);
        let run = |(_, step): (Phase, Step)| {
            assert!(world.execute(case, None, &step));
            world.clone()
        };
        order.into_iter().map(run).collect::<Vec<World>>()
    };
    let values = desired.settings.clone().unwrap().values;
    let record = RestoreRecord { values, restore: restore(run), replaced: world.restore.map(restore) };
    let mut worlds = apply(&mut world, &plan::begin_restore(&record));
    let left = world.observe(&desired, case);
    worlds.extend(apply(&mut world, &plan::remove_unfinished(&desired, &left)));
    worlds.extend(apply(&mut world, &plan::make_for_restore(&desired, &left)));
    // Its data is restored.
    (world.db, world.ran) = (Some(DEFAULT), LABEL);
    assert!(world.execute(case, None, &Step::RemoveContainer(Role::Grafana)));
    assert!(world.execute(case, None, &Step::StartContainer(Role::Influxdb)));
    let published = world.observe(&desired, case).influxdb.container.ours().unwrap().config.clone().unwrap().publish;
    let clipper = desired.container(Role::Influxdb).unwrap().config.publish;
    assert_ne!(published, clipper, "Clipper finds it before its data is in");
    worlds.push(world.clone());
    world.database = true;
    worlds.push(world.clone());
    assert!(
        plan::up(&desired, &world.observe(&desired, case), UpOptions::default()).blocker().is_none(),
        "its own run continues"
    );
    worlds.extend(apply(&mut world, &plan::finish_restore(&record)));
    worlds
}

#[test]
fn a_restore_killed_behind_any_step_can_only_be_restarted_or_removed() {
    let case = Case::default();
    let desired = stack(case);
    let worlds = restored(empty_world(), 1);
    let (whole, unfinished) = worlds.split_last().unwrap();
    assert!(unfinished.len() > 6);
    for world in unfinished {
        let seen = world.observe(&desired, case);
        let plan = plan::up(&desired, &seen, UpOptions::default());
        let (resource, blocker) = plan.blocker().expect("`up` would complete it without its data");
        assert_eq!((resource, blocker.kind), (Resource::Settings, plan::BlockReason::Unfinished), "{world:?}");
        assert!(blocker.hint.contains("restore /saved") && blocker.hint.contains("down --volumes"), "{}", blocker.hint);
        // Its record is removed last.
        let mut removed = world.clone();
        for (_, step) in orders(&plan::down(&desired, &seen, true))[0].clone() {
            assert!(removed.restore.is_some(), "{step:?} after the note");
            assert!(removed.execute(case, None, &step));
        }
        assert!(removed.restore.is_none() && removed.settings == Thing::Missing);
        assert!(!removed.influxdb.volume && !removed.grafana.volume && removed.networks.is_empty());
        // Without `--volumes`, the record stays.
        assert!(!plan::down(&desired, &seen, false).steps().any(|(step, _)| *step == Step::RemoveSettings));
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
    check(whole, &desired, case);
}

#[test]
fn a_private_container_indicates_a_restore_whose_record_is_lost() {
    let case = Case::default();
    let desired = stack(case);
    let worlds = restored(empty_world(), 1);
    let started = &worlds[worlds.len() - 3];
    let lost = World { settings: Thing::Missing, restore: None, ..started.clone() };
    let plan = plan::up(&desired, &lost.observe(&desired, case), UpOptions::default());
    let (_, blocker) = plan.blocker().unwrap();
    assert_eq!(blocker.kind, plan::BlockReason::Unfinished);
    assert!(blocker.hint.contains("down --volumes"), "{}", blocker.hint);
}
