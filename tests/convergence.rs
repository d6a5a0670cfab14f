//! The planner against a model of engine, InfluxDB and Grafana: from every world, and after a crash
//! after any step, `up` reaches the desired state, violates no precondition on the way, and never
//! publishes a Grafana that accepts admin/admin or deletes data without confirmation.
//!
//! The model defines success itself, without the planner.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{LazyLock, Mutex};
use std::time::Instant;

use clipper_metrics::model::container_config::PasswordSource;
use clipper_metrics::model::observed::{Observed, RunState, ServerResponse};
use clipper_metrics::model::plan::{
    self, BlockReason, Blocker, FailureCause, Phase, Plan, Question, Resource, Rollback, Step, UpOptions,
};
use clipper_metrics::model::retention::Retention;
use clipper_metrics::model::role::Role;
use clipper_metrics::model::stack::{RestoreRecord, Stack};
use clipper_metrics::model::upgrade::UpgradeState;

use crate::world::*;

/// Asserts that nothing is removed or stopped before every pull, check and login has succeeded. A
/// trial may replace Grafana's container by a private one; InfluxDB's stays.
fn assert_kept(before: &World, now: &World, phase: Phase) {
    let is_same = |before: &ModelServer, now: &ModelServer| {
        before.container.is_none_or(|had| {
            let is_it = |actual: ModelContainer| actual == ModelContainer { run: actual.run, ..had };
            now.container.is_some_and(|actual| is_it(actual) && [had.run, RunState::Running].contains(&actual.run))
        })
    };
    assert!(is_same(&before.influxdb, &now.influxdb), "InfluxDB is gone: {before:?}\n{now:?}");
    assert!(phase == Phase::Trial || is_same(&before.grafana, &now.grafana), "Grafana is gone: {before:?}\n{now:?}");
}

/// The situations that were checked, and the rounds that a run takes from each. Many worlds lead to the same one, which
/// all tests need to visit only once.
static KNOWN: LazyLock<Mutex<HashMap<u64, usize>>> = LazyLock::new(Mutex::default);

fn digest(key: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Whether a plan requests a confirmation of a shorter retention period.
fn shortens_retention(desired: &Stack, seen: &Observed, plan: &Plan) -> bool {
    plan::questions(desired, seen, plan).iter().any(|question| matches!(question, Question::Retention { .. }))
}

/// Whether the situation was not checked before.
fn is_new(key: &impl Hash) -> bool {
    KNOWN.lock().unwrap().insert(digest(key), 0).is_none()
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The rounds within which a run must converge.
const ROUNDS: usize = 9;

/// Runs until nothing remains. If the supplied password is rejected, the next run supplies none, as
/// a user would.
fn finish(world: World, case: Case) {
    let mut world = World { asked: false, ..world };
    let begin = world.clone();
    let desired = LazyCell::new(|| stack(case, &begin));
    let mut options = UpOptions { reset_password: case.reset, ..UpOptions::default() };
    // A file written by an earlier run for a Grafana that never ran contains an unknown password.
    let was_fresh = case.reset && world.data.db.is_none() && case.given.is_none();
    let mut visited = Vec::new();
    let more = loop {
        world.begin_round();
        let key = digest(&("run", &world, begin.settings, begin.remembers, case, options, was_fresh));
        let known = KNOWN.lock().unwrap().get(&key).copied();
        if let Some(more) = known.filter(|more| visited.len() + more <= ROUNDS) {
            break more;
        }
        visited.push(key);
        assert!(visited.len() <= ROUNDS, "does not converge: {world:?}");
        if ends_in_round(&mut world, &desired, case, &mut options, was_fresh) {
            break 0;
        }
    };
    let rounds = visited.len();
    KNOWN.lock().unwrap().extend(visited.into_iter().enumerate().map(|(round, key)| (key, rounds - round + more)));
}

/// Observes, plans and executes once. Returns whether the run has ended.
fn ends_in_round(world: &mut World, desired: &Stack, case: Case, options: &mut UpOptions, was_fresh: bool) -> bool {
    let seen = world.observe(desired, case);
    let plan = plan::up(desired, &seen, *options);
    world.asked |= shortens_retention(desired, &seen, &plan);
    if let Some((_, blocker)) = plan.blocker() {
        assert!(may_block(world, case, blocker), "blocked: {blocker:?}\nin {world:?}");
        return true;
    }
    if plan.in_sync() {
        assert!(world.is_done(case), "called done, but is not: {world:?}");
        let db = world.data.db;
        let is_reset = db == Some(case.given.unwrap_or(NEW)) || db == Some(OLD) && was_fresh;
        assert!(!case.reset || is_reset, "a reset was ignored: {world:?}");
        return true;
    }
    let first = world.clone();
    for (phase, step) in orders(&plan)[0].clone() {
        if matches!(phase, Phase::Network | Phase::Preparation | Phase::Trial) {
            assert_kept(&first, world, phase);
        }
        if world.execute(case, seen.grafana.login.accepted, &step) {
            continue;
        }
        let answered = matches!(seen.grafana.response, ServerResponse::Answering(_));
        match step {
            Step::CheckAddress(..) => {
                assert_kept(&first, world, phase);
                assert_eq!((first.data, first.settings), (world.data, world.settings), "an unavailable address");
                return true;
            }
            Step::TryLogin(_) if !case.reset => {
                assert_kept(&first, world, if answered { Phase::Preparation } else { phase });
                assert_eq!((first.data.file, first.settings), (world.data.file, world.settings), "a rejected login");
                return true;
            }
            Step::VerifyQuery { .. } => {
                *options = options.after_contradiction(&plan, *START);
                return false;
            }
            _ => return ends_after_failure(world, desired, case, &step),
        }
    }
    *options = options.after(&plan);
    false
}

/// Whether a blocker is the right end of a run.
fn may_block(world: &World, case: Case, blocker: &Blocker) -> bool {
    match blocker.kind {
        BlockReason::Image => world.data.ran > case.version() && !world.names_previous(),
        // A password that is being replaced may be unknown.
        BlockReason::Refused => case.given.is_some() || (case.after_reset && world.data.pending.is_some()),
        // Only a user can change the password of another account, and of admin beside it.
        BlockReason::Settings => case.account != Account::Admin && case.open && world.is_open_to_all(),
        _ => false,
    }
}

/// Continues after a failed step: the previous image returns if the new one failed, and a run with a supplied password or
/// on a database that a newer version migrated ends. Any other run continues.
fn ends_after_failure(world: &mut World, desired: &Stack, case: Case, step: &Step) -> bool {
    if !matches!(step, Step::AwaitAnswer(_)) {
        return case.given.is_some() || world.data.ran > case.version();
    }
    world.begin_round();
    let seen = world.observe(desired, case);
    match plan::roll_back(desired, &seen, Some(step), FailureCause::NotReady) {
        // Nothing ran before, so there is nothing to roll back to.
        None => assert!(world.data.ran != LABEL && !world.names_previous(), "the database is gone: {world:?}"),
        Some(Rollback { plan, upgrade }) => {
            assert_eq!(upgrade.state, UpgradeState::Failed);
            assert!(plan.executable().all(|step| world.execute(case, None, step)));
            finish(world.clone(), Case { upgrade: false, given: None, reset: false, ..case });
        }
    }
    true
}

/// Runs again after a crash: with the same options, without any, and with the previous image.
fn recover(world: &World, case: Case) {
    let mut world = World { asked: false, ..world.clone() };
    world.begin_round();
    if !is_new(&("recover", &world, case)) {
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
        Naming::Digest => world.is_pending() || world.data.ran == LABEL,
        Naming::Latest => false,
    };
    if case.upgrade && shows_age {
        finish(world, Case { upgrade: false, ..bare });
    }
}

/// Runs to the end, and from every crash after any step. Returns the number of runs.
fn check(world: &World, desired: &Stack, case: Case) -> usize {
    let options = UpOptions { reset_password: case.reset, ..UpOptions::default() };
    let seen = world.observe(desired, case);
    let plan = plan::up(desired, &seen, options);
    if plan.blocker().is_some() {
        return 0;
    }
    let asked = world.asked || shortens_retention(desired, &seen, &plan);
    if !case.reset {
        assert_eq!(plan.in_sync(), world.is_done(case), "{world:?}\n{plan:?}");
    }
    let next = Case { reset: options.after(&plan).reset_password, after_reset: case.after_reset || case.reset, ..case };
    let mut runs = 0;
    for (index, order) in orders(&plan).into_iter().enumerate() {
        let mut crashed = World { asked, ..world.clone() };
        let mut proceeds = true;
        for interrupted in 0..=order.len() {
            let is_end = interrupted == order.len();
            let run = || {
                if let Some((_, step)) = order[..interrupted].last().filter(|_| proceeds) {
                    if *step == Step::RollBackDatabase {
                        recover(&World { is_damaged: true, ..crashed.clone() }, case);
                    }
                    proceeds = crashed.execute(case, seen.grafana.login.accepted, step);
                }
                // The other order of lanes is tried as a whole: its intermediate states are worlds of their own.
                let is_tried = index == 0 || is_end;
                if is_tried {
                    recover(&crashed, case);
                }
                // The next plan is interrupted, too.
                let continues = is_end && proceeds && plan.until() != Phase::End;
                if continues {
                    crashed.begin_round();
                }
                let is_unchecked = continues && is_new(&("check", &crashed, next));
                usize::from(is_tried) + if is_unchecked { check(&crashed, desired, next) } else { 0 }
            };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            assert!(outcome.is_ok(), "{case:?} from {world:?}\nwith {order:?}\ninterrupted after {interrupted}");
            runs += outcome.unwrap_or_default();
        }
    }
    runs
}

/// Servers in every state: their containers with these passwords and addresses.
fn servers(role: Role, passwords: &[PasswordSource], opens: &[bool]) -> Vec<ModelServer> {
    // A container keeps its image and its volume in use.
    let unused = [(false, false), (false, true), (true, false), (true, true)];
    let mut all: Vec<ModelServer> = unused.map(|(image, volume)| ModelServer { image, volume, container: None }).into();
    let mut add = |actual: ModelContainer| all.push(ModelServer { image: true, volume: true, container: Some(actual) });
    for spec in [Spec::Right, Spec::Wrong, Spec::Unreadable] {
        for on_network in [true, false] {
            for run in RUNS {
                for &password in passwords {
                    let actual = ModelContainer { spec, on_network, run, password, ..ModelContainer::running(role) };
                    for &open in opens {
                        add(ModelContainer { open, ..actual });
                    }
                    if opens.len() > 1 && spec == Spec::Right {
                        add(ModelContainer { port: 0, ..actual });
                    }
                }
            }
        }
    }
    all
}

fn influxdbs() -> Vec<ModelServer> {
    servers(Role::Influxdb, &[PasswordSource::Default], &[false])
}

fn grafanas(opens: &[bool]) -> Vec<ModelServer> {
    servers(Role::Grafana, &[PasswordSource::Default, PasswordSource::File], opens)
}

fn some(all: &[ModelServer]) -> Vec<ModelServer> {
    all.iter().step_by(all.len().div_ceil(2)).copied().chain(all.last().copied()).collect()
}

/// Passwords in Grafana's database, in its file, and pending.
type Passwords = (Option<Password>, Option<Password>, Option<Password>);

/// The possible combinations.
const PASSWORDS: [Passwords; 9] = [
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

/// The state of other objects, in three variants for each combination, with and without InfluxDB's database.
fn objects(database: bool, combination: usize, variant: usize) -> World {
    let thing = |shift| [ObjectState::Missing, ObjectState::Wrong, ObjectState::Right][(variant + shift) % 3];
    let (source, settings) = (thing(usize::from(database)), thing(combination));
    let is_recorded = combination % 2 == usize::from(database);
    let dashboard = |thing| if thing == ObjectState::Right && !is_recorded { ObjectState::Unrecorded } else { thing };
    World {
        database,
        keeps: [Retention::Forever, DAYS_90, DAYS_2][(variant + combination) % 3],
        dashboard: dashboard(thing(0)),
        own: dashboard(thing(combination)),
        source,
        rules: thing(combination + 1).into(),
        stale: database && source == ObjectState::Right,
        settings,
        remembers: settings == ObjectState::Right && combination.is_multiple_of(2),
        ..empty_world()
    }
}

/// Calls `each` with every possible world: nothing is stored without a volume.
fn worlds(
    networks: &[usize],
    influxdbs: &[ModelServer],
    grafanas: &[ModelServer],
    passwords: &[Passwords],
    mut each: impl FnMut(World),
) {
    for (index, (db, file, pending)) in passwords.iter().copied().enumerate() {
        for (database, variant) in [false, true].into_iter().flat_map(|database| [0, 1, 2].map(|one| (database, one))) {
            let objects = objects(database, index, variant);
            for &grafana in grafanas {
                let stored = grafana.volume && db.is_some();
                // Without a database, nothing is stored: one such world is enough.
                if !stored && variant > 0 {
                    continue;
                }
                let data = Data { db, file, pending, ran: if stored { LABEL } else { 0 }, ..Data::default() };
                let World { dashboard, own, source, rules, .. } = if stored { objects.clone() } else { empty_world() };
                for &influxdb in influxdbs {
                    for &networks in networks {
                        let world = World {
                            networks,
                            address_checks: database && networks > 0,
                            influxdb,
                            grafana,
                            database: database && influxdb.volume,
                            data: if grafana.volume { data } else { Data::default() },
                            dashboard,
                            own,
                            source,
                            rules,
                            ..objects.clone()
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

/// Excludes states that neither our runs nor users can cause without losing a password.
fn can_be(world: &World) -> bool {
    let is_attached = |srv: &ModelServer| srv.container.is_some_and(|actual| actual.on_network);
    if world.networks == 0 && (is_attached(&world.influxdb) || is_attached(&world.grafana)) {
        return false;
    }
    let Some(actual) = world.grafana.container else { return true };
    let labelled = actual.password == PasswordSource::File;
    // Only a container that was never started has an empty database, and it is created with the
    // file only if the file exists or the database is empty.
    let (started, data) = (actual.run != RunState::Created, world.data);
    let ran = !started || data.db.is_some();
    let with_file = !labelled || data.file.is_some() || (!started && data.db.is_none());
    // No run has published admin/admin.
    let safe = !actual.open || (labelled && data.db != Some(DEFAULT));
    ran && with_file && safe
}

fn check_everywhere(case: Case) {
    let (influxdbs, grafanas) = (influxdbs(), grafanas(&[false, true]));
    let (mut worlds_seen, mut runs) = (0, 0);
    let mut each = |world: World| {
        worlds_seen += 1;
        let is_published = world.grafana.container.is_some_and(|actual| actual.open);
        if case.account != Account::Admin && case.open && world.data.db.is_some() && !is_published {
            runs += check(&World { accepts_admin: true, ..world.clone() }, &stack(case, &world), case);
        }
        runs += check(&world, &stack(case, &world), case);
    };
    if case.ports.is_some() {
        // Only the holder of a port matters here.
        let may_start =
            |srv: &&ModelServer| srv.container.is_none_or(|actual| actual.spec == Spec::Right && actual.on_network);
        let influxdbs: Vec<ModelServer> = influxdbs.iter().filter(may_start).copied().collect();
        worlds(&[1], &influxdbs, &grafanas, &PASSWORDS[if case.open { 8..9 } else { 2..3 }], &mut each);
    } else if case.given.is_some() || case.reset || case.upgrade || case.account != Account::Admin {
        // Only the passwords matter here; other states were tried without them.
        worlds(&[0, 1], &influxdbs[influxdbs.len() - 1..], &grafanas, &PASSWORDS, &mut each);
    } else {
        worlds(&[0, 1, 2], &some(&influxdbs)[2..], &grafanas, &PASSWORDS, &mut each);
        worlds(&[0, 1, 2], &influxdbs, &some(&grafanas), &PASSWORDS[1..3], &mut each);
    }
    assert!(worlds_seen > 2_000 && runs > 15_000, "{worlds_seen} worlds, {runs} runs");
}

/// Tests that check every world with each of some cases.
macro_rules! everywhere {
    ($(fn $name:ident(): $({ $($field:ident: $value:expr),* }),+;)*) => { $(
        #[test]
        fn $name() {
            [$(Case { $($field: $value,)* ..Case::default() }),+].into_iter().for_each(check_everywhere);
        }
    )* };
}

everywhere! {
    fn on_loopback_every_world_and_every_crash_converges(): {};
    fn every_retention_is_set_and_shortened_only_after_confirmation():
        { retention: Some(DAYS_2) }, { retention: Some(DAYS_90) }, { retention: Some(Retention::Forever) };
    fn a_users_dashboard_is_imported_from_every_world(): { own: true };
    fn alert_rules_are_created_and_removed_from_every_world(): { alerts: Some(true) }, { alerts: Some(false) };
    fn off_loopback_every_world_and_every_crash_converges_and_admin_admin_is_always_rejected(): { open: true };
    fn a_supplied_password_is_tried_first_and_nothing_changes_if_it_is_rejected():
        { given: Some(GIVEN) }, { given: Some(OLD) }, { given: Some(DEFAULT) };
    fn with_a_supplied_password_admin_admin_is_always_rejected():
        { open: true, given: Some(GIVEN) }, { open: true, given: Some(OLD) };
    fn another_account_signs_in_and_no_default_password_is_published():
        { account: Account::New },
        { account: Account::Other, open: true },
        { account: Account::New, open: true, given: Some(GIVEN) };
    fn swapping_ports_loses_nothing_if_a_pull_or_a_login_fails():
        { ports: Some([3000, 8086]) }, { ports: Some([3000, 8086]), given: Some(GIVEN) },
        { ports: Some([3000, 4000]) }, { ports: Some([3000, 4000]), given: Some(GIVEN) },
        { ports: Some([4000, 8086]) }, { ports: Some([4000, 8086]), given: Some(GIVEN) },
        { ports: Some([3000, 8086]), open: true },
        { ports: Some([3000, 4000]), open: true },
        { ports: Some([4000, 8086]), open: true };
    fn a_reset_converges_from_every_world():
        { reset: true },
        { reset: true, given: Some(DEFAULT) },
        { reset: true, open: true },
        { reset: true, open: true, given: Some(GIVEN) };
    fn no_older_grafana_ever_starts_on_a_migrated_database():
        { upgrade: true },
        { upgrade: true, open: true },
        { upgrade: true, given: Some(GIVEN) },
        { upgrade: true, given: Some(OLD) },
        { upgrade: true, open: true, given: Some(OLD) };
    fn an_image_without_a_version_in_its_name_never_migrates_a_database_without_a_copy():
        { upgrade: true, naming: Naming::Latest }, { upgrade: true, naming: Naming::Digest };
    fn a_failing_new_image_is_rolled_back_after_every_crash():
        { upgrade: true, broken: true },
        { upgrade: true, broken: true, open: true },
        { upgrade: true, broken: true, given: Some(OLD) };
}

#[test]
fn a_declined_retention_is_never_remembered() {
    let grafanas = servers(Role::Grafana, &[PasswordSource::Default], &[false]);
    for retention in [DAYS_2, DAYS_90] {
        let case = Case { retention: Some(retention), ..Case::default() };
        let mut declined = 0;
        worlds(&[0, 1, 2], &influxdbs(), &some(&grafanas), &PASSWORDS[1..4], |found| {
            let (mut world, desired) = (found.clone(), stack(case, &found));
            for _ in 0..ROUNDS {
                let seen = world.observe(&desired, case);
                let plan = plan::up(&desired, &seen, UpOptions::default());
                if shortens_retention(&desired, &seen, &plan) {
                    assert_eq!(world.remembers, found.remembers, "{found:?}");
                    declined += 1;
                    return;
                }
                if plan.in_sync() || plan.blocker().is_some() {
                    return;
                }
                let [order, _] = orders(&plan);
                if !order.into_iter().all(|(_, step)| world.execute(case, seen.grafana.login.accepted, &step)) {
                    return;
                }
            }
            panic!("does not end: {found:?}");
        });
        assert!(declined > 100, "{declined}");
    }
}

#[test]
fn an_unavailable_address_loses_neither_a_container_nor_a_password() {
    let mut checked = 0;
    let case = Case { open: true, no_address: true, ..Case::default() };
    let influxdbs = influxdbs();
    worlds(&[0, 1], &influxdbs[influxdbs.len() - 1..], &grafanas(&[false]), &PASSWORDS, |world| {
        let desired = stack(case, &world);
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
    for (open, given) in [(false, GIVEN), (true, GIVEN), (false, OLD)] {
        let case = Case { open, given: Some(given), ..Case::default() };
        worlds(&[1], &influxdbs(), &grafanas(&[false, true]), &PASSWORDS, |world| {
            // A paused one without its network cannot answer.
            let runs = |actual: ModelContainer| {
                actual.run == RunState::Running || (actual.run == RunState::Paused && actual.on_network)
            };
            if !world.grafana.container.is_some_and(runs) || world.data.db.is_none() {
                return;
            }
            let world = World { slow: true, ..world };
            let desired = stack(case, &world);
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

/// The same world with a pending upgrade, an accepted or a rolled back one. An existing container that may have
/// run belongs to the new image.
fn with_upgrades(world: &World) -> Vec<World> {
    if world.data.db.is_none() {
        return vec![];
    }
    let new = LABEL + 1;
    let with = |state| World { upgrade: Some(Case::default().recorded_upgrade(state)), ..world.clone() };
    let mut all = vec![with(UpgradeState::Undone), with(UpgradeState::Ended)];
    for state in [UpgradeState::Unproven, UpgradeState::Failed, UpgradeState::Postponed, UpgradeState::Accepted] {
        let mut pending = World { copy: Some((world.data, true)), ..with(state) };
        let waits = pending.grafana.container.is_some_and(|actual| actual.run == RunState::Created);
        if let Some(actual) = &mut pending.grafana.container {
            actual.version = new;
        }
        if !waits || state == UpgradeState::Accepted {
            (pending.data.ran, pending.data.intended) = (new, Some(new));
        }
        all.push(pending);
    }
    all
}

#[test]
fn every_pending_failed_or_rolled_back_upgrade_ends_well_with_any_image() {
    let influxdbs = influxdbs();
    let mut runs = 0;
    for (open, upgrade, broken) in
        [(false, true, false), (false, true, true), (false, false, false), (true, true, true), (true, false, false)]
    {
        let case = Case { open, upgrade, broken, ..Case::default() };
        let passwords = [PASSWORDS[2], PASSWORDS[8]];
        worlds(&[1], &influxdbs[influxdbs.len() - 1..], &grafanas(&[false, true]), &passwords, |world| {
            for world in with_upgrades(&world) {
                runs += check(&world, &stack(case, &world), case);
            }
        });
    }
    assert!(runs > 10_000, "{runs} runs");
}

#[test]
fn down_removes_everything_except_data_and_settings_unless_requested() {
    let case = Case::default();
    let desired = stack(case, &whole_world());
    let mut checked = 0;
    let grafanas = servers(Role::Grafana, &[PasswordSource::Default], &[false]);
    worlds(&[0, 1, 2], &some(&influxdbs()), &grafanas, &PASSWORDS[1..3], |world| {
        for volumes in [false, true] {
            let plan = plan::down(&desired, &world.observe(&desired, case), volumes);
            let used = World { network_is_used: true, ..world.clone() };
            let around = plan::down(&desired, &used.observe(&desired, case), volumes);
            let kept: Vec<Step> = steps(&plan).into_iter().filter(|step| *step != Step::RemoveNetwork).collect();
            assert_eq!(steps(&around), kept, "only the network stays where another container uses it");
            assert_eq!(around.kept().count(), world.networks.min(1));
            for role in Role::ALL {
                let used = World { used_volume: Some(role), ..world.clone() };
                let has_volume = if role == Role::Influxdb { used.influxdb.volume } else { used.grafana.volume };
                let blocked = plan::down(&desired, &used.observe(&desired, case), volumes);
                assert_eq!(
                    blocked.blocker().is_some(),
                    volumes && has_volume,
                    "a used volume is named before any step"
                );
            }
            for order in orders(&plan) {
                let mut world = world.clone();
                for (_, step) in order {
                    assert!(world.execute(case, None, &step));
                }
                assert!(world.influxdb.container.is_none() && world.grafana.container.is_none());
                assert_eq!(world.networks, 0);
                assert!(!volumes || !(world.influxdb.volume || world.grafana.volume));
                assert!(!volumes || world.settings == ObjectState::Missing);
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
    // The archive's settings are not stored yet.
    let desired = Stack { restore: Some(restore(run)), ..stack(case, &empty_world()) };
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
    (world.data.db, world.data.ran) = (Some(DEFAULT), LABEL);
    worlds.extend(apply(&mut world, &plan::remove_restored_grafana()));
    worlds.extend(apply(&mut world, &plan::start_private_influxdb()));
    let published = world.observe(&desired, case).influxdb.container.ours().unwrap().config.clone().unwrap().publish;
    let clipper = desired.container(Role::Influxdb).unwrap().config.publish;
    assert_ne!(published, clipper, "Clipper finds it before its data is in");
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
fn a_restore_killed_after_any_step_can_only_be_restarted_or_removed() {
    let case = Case::default();
    let worlds = restored(empty_world(), 1);
    let (whole, unfinished) = worlds.split_last().unwrap();
    assert!(unfinished.len() > 6);
    for world in unfinished {
        let desired = stack(case, world);
        let seen = world.observe(&desired, case);
        let plan = plan::up(&desired, &seen, UpOptions::default());
        let (resource, blocker) = plan.blocker().expect("`up` would complete it without its data");
        assert_eq!((resource, blocker.kind), (Resource::Settings, plan::BlockReason::Unfinished), "{world:?}");
        assert!(blocker.hint.contains("restore /saved") && blocker.hint.contains("down --volumes"), "{}", blocker.hint);
        // Its record is removed last.
        let mut removed = world.clone();
        for (_, step) in orders(&plan::down(&desired, &seen, true))[0].clone() {
            assert!(removed.restore.is_some(), "{step:?} after the record");
            assert!(removed.execute(case, None, &step));
        }
        assert!(removed.restore.is_none() && removed.settings == ObjectState::Missing);
        assert!(!removed.influxdb.volume && !removed.grafana.volume && removed.networks == 0);
        // Without `--volumes`, the record stays.
        assert!(!plan::down(&desired, &seen, false).steps().any(|(step, _)| *step == Step::RemoveSettings));
        // Started again, it completes, even after another kill.
        for again in restored(world.clone(), 2).into_iter().rev().skip(1) {
            assert_eq!(again.restore, Some(2), "the other run cannot finish: {again:?}");
            let whole = restored(again, 3).pop().unwrap();
            finish(whole, case);
        }
        // Another container may use the network in the meantime.
        if world.networks > 0 {
            let used = World { network_is_used: true, ..world.clone() };
            finish(restored(used, 2).pop().unwrap(), case);
        }
    }
    // With all data restored, `up` completes it, even after a kill after any of its steps.
    check(whole, &stack(case, whole), case);
}

#[test]
fn a_private_container_indicates_a_restore_whose_record_is_lost() {
    let case = Case::default();
    let worlds = restored(empty_world(), 1);
    let started = &worlds[worlds.len() - 3];
    let lost = World { settings: ObjectState::Missing, restore: None, ..started.clone() };
    let desired = stack(case, &lost);
    let plan = plan::up(&desired, &lost.observe(&desired, case), UpOptions::default());
    let (_, blocker) = plan.blocker().unwrap();
    assert_eq!(blocker.kind, plan::BlockReason::Unfinished);
    assert!(blocker.hint.contains("down --volumes"), "{}", blocker.hint);
}
