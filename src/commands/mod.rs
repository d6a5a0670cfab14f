//! The verbs, each a short story: observe, plan, apply, observe again.
//!
//! Must not know how anything is shown, nor what an option is called in clap.

pub mod demo;
pub mod logs;

use std::time::{Duration, Instant, SystemTime};

use crate::core::event::{Event, Listener, Taken};
use crate::core::observed::Observed;
use crate::core::plan::{self, Plan, Step, Wishes};
use crate::core::reports::{self, Reports};
use crate::core::stack::{Pull, Role, Stack};
use crate::core::status::{self, Account, Status};
use crate::error::{Error, Refusal, Result};
use crate::systems::{Systems, pause};

/// How often a plan is made anew because somebody else changed the engine meanwhile.
const ROUNDS: usize = 6;

/// What a verb that changes things has to tell.
#[derive(Debug)]
pub struct Outcome {
    /// What would be done; `None` if it was done.
    pub planned: Option<Plan>,
    /// What was done.
    pub taken: Vec<Taken>,
    /// How things are now.
    pub status: Status,
}

/// Makes the world as wanted and verifies it.
///
/// # Errors
/// When something blocks, fails, or remains to be done afterwards.
pub async fn up(
    stack: &Stack,
    systems: &Systems,
    wishes: Wishes,
    dry_run: bool,
    listener: &dyn Listener,
) -> Result<Outcome> {
    let started = Instant::now();
    warn_of_open_doors(stack, listener);
    if stack.pull == Pull::Always && !dry_run {
        pull_always(stack, systems).await?;
    }
    let mut wishes = wishes;
    let mut length = Duration::from_millis(50);
    let mut refused = false;
    let mut round = 0;
    loop {
        round += 1;
        let seen = systems.observe(stack).await?;
        let plan = plan::up(stack, &seen, wishes);
        if dry_run {
            let status = tell(stack, systems, &seen, &plan, false).await?;
            return Ok(Outcome { planned: Some(plan), taken: Vec::new(), status });
        }
        if let Some((resource, blocked)) = plan.blocked() {
            return Err(Error::Blocked { resource, blocked: blocked.clone() });
        }
        if plan.in_sync() {
            let status = tell(stack, systems, &seen, &plan, false).await?;
            return Ok(Outcome { planned: None, taken: systems.taken(), status });
        }
        let failure = match systems.apply(stack, &plan, wishes).await {
            Ok(()) => {
                wishes = Wishes::default();
                Error::NotConverged {
                    rest: plan
                        .steps()
                        .map(|(step, finding)| format!("{step} ({finding})"))
                        .collect::<Vec<_>>()
                        .join(", "),
                    after: started.elapsed(),
                    hint:
                        "`clipper-metrics status` tells what differs; something else may be changing the same objects"
                            .into(),
                }
            }
            Err(error) if is_race(&error) => {
                listener.on(Event::Note(&format!("{error}; looking once more")));
                pause(&mut length).await;
                error
            }
            // A run that ended half-way may have left another password in the volume. Grafana is
            // not asked again with this one: what it said is remembered.
            Err(error @ Error::Refused { role: Role::Grafana, .. }) if !refused => {
                refused = true;
                error
            }
            Err(error) => return Err(error),
        };
        if round == ROUNDS {
            return Err(failure);
        }
    }
}

/// Somebody else was faster with the same object: what remains to be done must be looked up anew.
const fn is_race(error: &Error) -> bool {
    matches!(
        error,
        Error::Docker { refusal: Refusal::Conflict | Refusal::NotFound, .. } | Error::Answer { status: 409 | 412, .. }
    )
}

/// InfluxDB asks nobody for a password.
fn warn_of_open_doors(stack: &Stack, listener: &dyn Listener) {
    if let Some(spec) = stack.container(Role::Influxdb)
        && !spec.address.is_loopback()
    {
        listener.on(Event::Warning(&format!(
            "InfluxDB listens on {} without authentication: whoever reaches that address can read and write metrics",
            spec.publish()
        )));
    }
}

/// Fetches the images whether they are here or not, side by side.
async fn pull_always(stack: &Stack, systems: &Systems) -> Result<()> {
    let ours = Role::ALL.into_iter().filter(|role| stack.container(*role).is_some());
    let items = ours.map(|role| plan::Item {
        resource: plan::Resource::Server(role),
        finding: plan::Finding::Asked("--pull always"),
        steps: vec![Step::PullImage(role)],
    });
    systems.apply(stack, &Plan(items.collect()), Wishes::default()).await
}

/// Takes away what is the instance's. `confirm` is asked before volumes go.
///
/// # Errors
/// When something fails or is not confirmed.
pub async fn down(
    stack: &Stack,
    systems: &Systems,
    volumes: bool,
    dry_run: bool,
    confirm: impl AsyncFnOnce(&[String]) -> Result<()>,
    listener: &dyn Listener,
) -> Result<Outcome> {
    let mut seen = systems.observe(stack).await?;
    let mut plan = plan::down(stack, &seen, volumes);
    if dry_run {
        let up = plan::up(stack, &seen, Wishes::default());
        let status = tell(stack, systems, &seen, &up, false).await?;
        return Ok(Outcome { planned: Some(plan), taken: Vec::new(), status });
    }
    let doomed: Vec<String> = plan
        .steps()
        .filter_map(|(step, _)| match step {
            Step::RemoveVolume(role) => stack.container(role).map(|spec| spec.name.clone()),
            _ => None,
        })
        .collect();
    if !doomed.is_empty() {
        confirm(&doomed).await?;
    }
    let mut length = Duration::from_millis(50);
    for _ in 0..ROUNDS {
        if plan.steps().next().is_none() {
            break;
        }
        match systems.apply(stack, &plan, Wishes::default()).await {
            Err(error) if is_race(&error) => {
                listener.on(Event::Note(&format!("{error}; looking once more")));
                pause(&mut length).await;
            }
            result => result?,
        }
        seen = systems.observe(stack).await?;
        plan = plan::down(stack, &seen, volumes);
    }
    if plan.steps().next().is_some() {
        let rest = plan.steps().map(|(step, _)| step.to_string()).collect::<Vec<_>>().join(", ");
        return Err(Error::NotConverged {
            rest,
            after: Duration::ZERO,
            hint: "something else uses them: `docker ps -a` and `docker network inspect` tell what".into(),
        });
    }
    let up = plan::up(stack, &seen, Wishes::default());
    let status = tell(stack, systems, &seen, &up, false).await?;
    Ok(Outcome { planned: None, taken: systems.taken(), status })
}

/// Tells what is there and how it differs.
///
/// # Errors
/// When the engine does not answer.
pub async fn status(stack: &Stack, systems: &Systems, show_secrets: bool) -> Result<Status> {
    let seen = systems.observe(stack).await?;
    let plan = plan::up(stack, &seen, Wishes::default());
    tell(stack, systems, &seen, &plan, show_secrets).await
}

/// How often `status --watch` looks.
const WATCH: Duration = Duration::from_secs(3);

/// Looks again and again and shows each status, until `show` has had enough.
///
/// # Errors
/// When the engine does not answer.
pub async fn watch(stack: &Stack, systems: &Systems, show_secrets: bool, mut show: impl FnMut(&Status)) -> Result<()> {
    let mut ticks = tokio::time::interval(WATCH);
    loop {
        ticks.tick().await;
        show(&status(stack, systems, show_secrets).await?);
    }
}

async fn tell(stack: &Stack, systems: &Systems, seen: &Observed, plan: &Plan, show_secrets: bool) -> Result<Status> {
    let reports = reports(stack, systems, seen).await;
    let account = account(stack, systems, seen, show_secrets).await?;
    Ok(status::tell(stack, seen, plan, reports, account))
}

/// What Clipper reports, as far as InfluxDB can be asked. A failure here is no failure of the stack.
async fn reports(stack: &Stack, systems: &Systems, seen: &Observed) -> Reports {
    if seen.influxdb.answer.stored().is_none_or(|influxdb| !influxdb.has_database) {
        return Reports::default();
    }
    let activity = match systems.influxdb(stack) {
        Ok(influxdb) => influxdb.activity(&stack.database).await,
        Err(error) => Err(error),
    };
    match activity {
        Ok(activity) => {
            let (objective, named) = (status::objective(stack, seen), status::named_models(stack, seen));
            reports::analyse(&activity, stack, objective, &named, now())
        }
        Err(error) => Reports { hints: vec![error.to_string()], ..Reports::default() },
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

async fn account(stack: &Stack, systems: &Systems, seen: &Observed, show_secrets: bool) -> Result<Account> {
    let have = seen.grafana.container.ours();
    let is_default = have.is_none_or(|have| !have.has_password_file());
    let password = if show_secrets && have.is_some() { Some(systems.grafana_password(have).await?) } else { None };
    let is_known = stack.container(Role::Grafana).is_some();
    Ok(Account { user: systems.grafana_user().into(), password, is_default, is_known })
}
