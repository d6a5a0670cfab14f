//! Golden plans for the situations that people meet: a change of the planner shows in them.

use clipper_metrics::model::container_config::PasswordSource;
use clipper_metrics::model::observed::{Observed, PortHolder, RunState, ServerResponse};
use clipper_metrics::model::plan::{self, UpOptions};
use clipper_metrics::model::role::Role;
use clipper_metrics::model::stack::{Service, Stack};
use clipper_metrics::model::upgrade::UpgradeState;

use crate::support::golden;
use crate::world::*;

/// One situation: the actual state, the desired one, and the options of `up`.
struct Situation {
    name: &'static str,
    world: World,
    case: Case,
    options: UpOptions,
    change: fn(&mut Stack, &mut Observed),
}

fn situation(name: &'static str, world: World, case: Case) -> Situation {
    Situation { name, world, case, options: UpOptions::default(), change: |_, _| {} }
}

/// The state after a first `up`, changed.
fn after(change: impl FnOnce(&mut World)) -> World {
    let mut world = whole_world();
    change(&mut world);
    world
}

fn grafana(change: impl FnOnce(&mut ModelContainer)) -> World {
    after(|world| change(world.grafana.container.as_mut().unwrap()))
}

/// The state after a first `up` with a password of its own.
fn with_password(change: impl FnOnce(&mut World)) -> World {
    after(|world| {
        (world.data.db, world.data.file) = (Some(OLD), Some(OLD));
        world.grafana.container.as_mut().unwrap().password = PasswordSource::File;
        change(world);
    })
}

/// A new image that was started and has not been accepted.
fn tried(state: UpgradeState) -> World {
    after(|world| {
        world.upgrade = Some(Case::default().recorded_upgrade(state));
        world.copy = Some((world.data, true));
        (world.data.ran, world.data.intended) = (LABEL + 1, Some(LABEL + 1));
        world.grafana.container.as_mut().unwrap().version = LABEL + 1;
    })
}

fn first_and_later_runs() -> Vec<Situation> {
    let loopback = Case::default();
    let open = Case { open: true, ..loopback };
    let no_images = |world: &mut World| (world.influxdb.image, world.grafana.image) = (false, false);
    let removed = |world: &mut World| (world.influxdb.container, world.grafana.container) = (None, None);
    let run = |run: RunState| grafana(|actual| actual.run = run);
    vec![
        situation("a first up", empty_world(), loopback),
        situation(
            "a first up that pulls",
            {
                let mut world = empty_world();
                no_images(&mut world);
                world
            },
            loopback,
        ),
        situation("a first up off loopback", empty_world(), open),
        situation("a first up with a password", empty_world(), Case { given: Some(GIVEN), ..loopback }),
        situation("a second up", whole_world(), loopback),
        situation("up after down", after(removed), loopback),
        situation("up after down, with a stored password", with_password(removed), loopback),
        situation("up after down, moving off loopback", after(removed), open),
        situation("Grafana is stopped", run(RunState::Exited(0)), loopback),
        situation("Grafana is paused", run(RunState::Paused), loopback),
        situation("Grafana is dead", run(RunState::Dead), loopback),
        situation("Grafana keeps crashing", run(RunState::Restarting), loopback),
        situation("Grafana was created, but never started", run(RunState::Created), loopback),
        situation("the network was removed", after(World::lose_network), loopback),
        situation("a second network exists", after(|world| world.networks = 2), loopback),
        situation("an interrupted run left an address check", after(|world| world.address_checks = true), loopback),
        situation("the settings are lost", after(|world| world.settings = ObjectState::Missing), loopback),
        situation("Grafana's configuration changed", grafana(|actual| actual.spec = Spec::Wrong), loopback),
        situation("the database is missing", after(|world| world.database = false), loopback),
        situation("a shorter retention", whole_world(), Case { retention: Some(DAYS_2), ..loopback }),
        situation("the data source differs", after(|world| world.source = ObjectState::Wrong), loopback),
        situation("the data source is outdated in Grafana", after(|world| world.stale = true), loopback),
        situation("alert rules are turned on", whole_world(), Case { alerts: Some(true), ..loopback }),
        situation("a dashboard of the user", whole_world(), Case { own: true, ..loopback }),
        situation(
            "both servers swap ports",
            whole_world(),
            Case { ports: Some([Role::Grafana.port(), Role::Influxdb.port()]), ..loopback },
        ),
    ]
}

fn passwords() -> Vec<Situation> {
    let loopback = Case::default();
    let open = Case { open: true, ..loopback };
    let given = Case { given: Some(GIVEN), ..loopback };
    let reset = UpOptions { reset_password: true, ..UpOptions::default() };
    let private = |actual: &mut ModelContainer| actual.port = 0;
    let all = [
        situation("moving off loopback with admin/admin", whole_world(), open),
        situation("moving off loopback with a stored password", with_password(|_| {}), open),
        situation(
            "moving off loopback while Grafana is stopped",
            grafana(|actual| actual.run = RunState::Exited(0)),
            open,
        ),
        situation("a private Grafana has admin/admin", grafana(private), open),
        situation(
            "a private Grafana has a password of its own",
            with_password(|world| private(world.grafana.container.as_mut().unwrap())),
            open,
        ),
        situation("a supplied password is the one in force", after(|world| world.data.db = Some(GIVEN)), given),
        situation("a supplied password is rejected", whole_world(), given),
        situation("a supplied password while Grafana starts", after(|world| world.slow = true), given),
        situation(
            "a supplied password while Grafana is stopped",
            grafana(|actual| actual.run = RunState::Exited(0)),
            given,
        ),
        situation(
            "a run ended while it set a password",
            after(|world| (world.data.db, world.data.pending) = (Some(PENDING), Some(PENDING))),
            loopback,
        ),
        Situation { options: reset, ..situation("a new password is requested", whole_world(), loopback) },
        Situation {
            options: reset,
            ..situation(
                "a new password is requested while Grafana is stopped",
                grafana(|actual| actual.run = RunState::Exited(0)),
                loopback,
            )
        },
    ];
    all.into()
}

fn upgrades_and_others() -> Vec<Situation> {
    let loopback = Case::default();
    let upgrade = Case { upgrade: true, ..loopback };
    let no_image = after(|world| world.grafana.image = false);
    vec![
        situation("a newer image of Grafana", whole_world(), upgrade),
        situation("a newer image of Grafana that is not on the engine", no_image, upgrade),
        situation("a new image that has answered", tried(UpgradeState::Unproven), upgrade),
        situation("a new image that failed", tried(UpgradeState::Failed), loopback),
        situation(
            "a new image that failed, without a container",
            {
                let mut world = tried(UpgradeState::Failed);
                world.grafana.container = None;
                world
            },
            loopback,
        ),
        situation(
            "an older image",
            after(|world| {
                (world.data.ran, world.data.recorded) = (LABEL + 1, Some(LABEL + 1));
                world.grafana.container.as_mut().unwrap().version = LABEL + 1;
            }),
            loopback,
        ),
        Situation {
            options: UpOptions { pull: true, ..UpOptions::default() },
            ..situation("--pull always", whole_world(), loopback)
        },
        Situation {
            change: |stack, _| {
                stack.services.influxdb =
                    Service::External { url: clipper_metrics::model::address::ServerUrl::http("db", 8086) };
            },
            ..situation("an external InfluxDB replaces the container", whole_world(), loopback)
        },
        Situation {
            change: |_, seen| seen.influxdb.response = ServerResponse::Silent("connection refused".into()),
            ..situation("InfluxDB does not answer", whole_world(), loopback)
        },
        Situation {
            change: |_, seen| seen.grafana.port_holder = Some(PortHolder::Container("other".into())),
            ..situation("Grafana's port is taken", grafana(|actual| actual.run = RunState::Exited(0)), loopback)
        },
    ]
}

#[test]
fn the_plans_of_common_situations_are_these() {
    let all = [first_and_later_runs(), passwords(), upgrades_and_others()];
    let mut text = String::new();
    for Situation { name, world, case, options, change } in all.into_iter().flatten() {
        let mut desired = stack(case, &world);
        let mut seen = world.observe(&desired, case);
        change(&mut desired, &mut seen);
        text.push_str(&format!("# {name}\n{}\n", plan::up(&desired, &seen, options)));
    }
    golden("plans.txt", &text);
}
