//! `demo`: sends demo data to the instance's database, to see the dashboard without Clipper.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;

use super::context::Context;
use super::session::{self, Access};
use super::terminal::interrupted;
use crate::clipper::load::{Batch, Load, STEP};
use crate::error::{Error, Exit, Result};
use crate::influxdb::Influxdb;
use crate::influxql::quoted;
use crate::model::event::{Event, Listener};
use crate::model::observed::{Observed, ServerResponse};
use crate::model::plan::{self, Finding, Resource, UpOptions, not_the_container};
use crate::model::reports::{Activity, DEMO_TAG, is_unreportable, written_name};
use crate::model::results::{Cleared, Document, Sent};
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::schema::{SchemaVersion, Seconds};
use crate::model::stack::Stack;
use crate::model::status;
use crate::model::text::count;
use crate::output::Output;
use crate::reconcile::{Depth, Session};
use crate::settings;

/// Points per request.
const BATCH: usize = 5_000;

/// Measurements per request that removes demo data.
const CLEARED: usize = 300;

/// The deadline of one request to InfluxDB.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Args)]
pub(crate) struct DemoArguments {
    /// Model names, or a number of models named m1, m2, … [default: m1,m2]
    #[arg(long, value_name = "M1,M2|COUNT", value_delimiter = ',')]
    pub(crate) models: Option<Vec<String>>,
    /// Predictions per second for each model [default: 8]
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<f64>,
    /// Stop after this time, such as 10m [default: run until Ctrl-C]
    #[arg(long, value_name = "DURATION")]
    pub(crate) duration: Option<String>,
    /// Send this much past data first, such as 6h; then stop unless --duration is given
    #[arg(long, value_name = "DURATION")]
    pub(crate) backfill: Option<String>,
    /// Seed: the same number produces the same data [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Write demo data even if a real Clipper reports to the database
    #[arg(long)]
    pub(crate) mix: bool,
    /// Remove all demo data and nothing else, then stop
    #[arg(long, conflicts_with_all = ["models", "rate", "duration", "backfill", "seed", "mix"])]
    pub(crate) clear: bool,
}

pub(crate) async fn run(context: &Context<'_>, arguments: &DemoArguments) -> Result<Exit> {
    let demo_options = demo_options(arguments)?;
    let session = session::open(context, Access::ReadOnly).await?;
    let stack = session.stack();
    let database = stack.database.clone();
    if arguments.clear {
        context.print(Output::Result(Document::Cleared(&Cleared {
            schema: SchemaVersion,
            removed_series: clear(&session).await?,
            database,
        })))?;
        return Ok(Exit::Done);
    }
    let sent = send_until(&session, &demo_options, interrupted()).await?;
    context.printer.clear();
    context.print(Output::Result(Document::Sent(&Sent {
        schema: SchemaVersion,
        points: sent.points,
        reports: sent.reports,
        seconds: Seconds(sent.time),
        database,
        models: demo_options.load.models.len(),
        dashboard_url: sent.dashboard_url,
        clear: stack.command("demo --clear"),
    })))?;
    Ok(Exit::Done)
}

/// The largest number of models: ten times as many as were measured.
const DEMO_MODELS: usize = 50_000;

/// The models that `--models` names or counts.
fn demo_models(given: Option<&[String]>) -> Result<Vec<String>> {
    let numbered = |count: usize| (1..=count).map(|number| format!("m{number}")).collect();
    match given {
        None => Ok(numbered(2)),
        Some([count]) if !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()) => match count.parse() {
            Ok(count @ 1..=DEMO_MODELS) => Ok(numbered(count)),
            _ => Err(Error::usage(
                format!("--models is {count}, but the number of models must be from 1 to {DEMO_MODELS}"),
                "use a number such as 100, or names",
            )),
        },
        // `--models 1000,` is the name of one model.
        Some([name, end]) if end.is_empty() => Ok(vec![name.clone()]),
        Some(names) => Ok(names.to_vec()),
    }
}

fn demo_options(arguments: &DemoArguments) -> Result<DemoOptions> {
    let rate = arguments.rate.unwrap_or(8.0);
    if !rate.is_finite() || !(0.0..=1e6).contains(&rate) {
        return Err(Error::usage(
            format!("--rate is {rate}, but it must be from 0 to 1000000"),
            "use a number such as 8",
        ));
    }
    let length =
        |text: &Option<String>, option| text.as_deref().map(|text| settings::duration(text, option)).transpose();
    Ok(DemoOptions {
        load: Load { models: demo_models(arguments.models.as_deref())?, rate, seed: arguments.seed.unwrap_or(1) },
        duration: length(&arguments.duration, "--duration")?,
        backfill: length(&arguments.backfill, "--backfill")?,
        mix: arguments.mix,
    })
}

/// The demo data to send.
#[derive(Debug, Clone)]
struct DemoOptions {
    /// The models and their predictions.
    load: Load,
    /// How long to send current data; `None` means until interrupted.
    duration: Option<Duration>,
    /// How much past data to send first.
    backfill: Option<Duration>,
    /// Write to a database with real reports.
    mix: bool,
}

impl DemoOptions {
    /// The result of an interruption, which is the normal end only if nothing else ends the demo.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if data is missing.
    fn after_interruption(&self, stack: &Stack, sent: &SentSoFar) -> Result<()> {
        if self.duration.is_none() && self.backfill.is_none() {
            return Ok(());
        }
        let (points, clear) = (count(sent.points, "point"), stack.command("demo --clear"));
        let hint = if sent.has_begun {
            format!("at least {points} were sent, not all of them: `{clear}` removes them")
        } else {
            "nothing was sent: run the same command again".into()
        };
        Err(Error::Interrupted { hint })
    }
}

/// The demo data that was sent.
#[derive(Debug, Clone, Default)]
struct SentSoFar {
    /// Reports, one for each point in time.
    reports: usize,
    /// Points, three for each model and report.
    points: usize,
    /// A request with points was sent.
    has_begun: bool,
    time: Duration,
    dashboard_url: String,
}

/// Sends past data, then current data, until the time is up or `stop` completes.
///
/// # Errors
/// If InfluxDB rejects the data, or the database contains real reports.
async fn send_until(session: &Session, options: &DemoOptions, stop: impl Future<Output = ()>) -> Result<SentSoFar> {
    let started = Instant::now();
    let mut sent = SentSoFar { dashboard_url: dashboard_url(session.stack(), None), ..SentSoFar::default() };
    let result = tokio::select! {
        result = send(session, options, &mut sent) => result,
        () = stop => options.after_interruption(session.stack(), &sent),
    };
    sent.time = started.elapsed();
    result.map(|()| sent)
}

async fn send(session: &Session, options: &DemoOptions, sent: &mut SentSoFar) -> Result<()> {
    check_models(&options.load.models)?;
    let stack = session.stack();
    let (influxdb, seen) = reachable(session).await?;
    sent.dashboard_url = dashboard_url(stack, Some(&seen));
    if !options.mix {
        expect_no_reports(stack, &influxdb.activity(&stack.database).await?)?;
    }
    let mut first = crate::clock::now();
    if let Some(past) = options.backfill {
        first = backfill(session, &influxdb, &options.load, past, sent).await?;
        if options.duration.is_none() {
            return Ok(());
        }
    }
    session
        .listener()
        .on(Event::Note(&format!("sending demo data to database {} every 15s; press Ctrl-C to stop", stack.database)));
    let wait = Duration::from_millis(first.saturating_sub(crate::clock::now()).max(0).unsigned_abs());
    let deadline = options.duration.map(|duration| Instant::now() + wait + duration);
    let step = Duration::from_millis(STEP.unsigned_abs());
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + wait, step);
    // Reports that a suspended process missed are not made up for.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        match deadline {
            Some(deadline) => {
                if tokio::time::timeout_at(deadline.into(), ticks.tick()).await.is_err() {
                    return Ok(());
                }
            }
            None => drop(ticks.tick().await),
        }
        let mut batch = Batch::default();
        options.load.report(crate::clock::now(), &mut batch);
        write(session, &influxdb, batch, sent).await?;
        sent.reports += 1;
    }
}

fn dashboard_url(stack: &Stack, seen: Option<&Observed>) -> String {
    status::dashboard_url(&stack.url(Role::Grafana).to_string(), &stack.dashboard.uid, seen)
}

/// Writes a batch in requests of a limited size.
async fn write(session: &Session, influxdb: &Influxdb, batch: Batch, sent: &mut SentSoFar) -> Result<()> {
    let stack = session.stack();
    let lines: Vec<&str> = batch.lines.lines().collect();
    for part in lines.chunks(BATCH) {
        sent.has_begun = true;
        if let Err(error) = influxdb.write(&stack.database, part.join("\n"), WRITE_TIMEOUT).await {
            if sent.points > 0 || !matches!(error, Error::Refused { .. } | Error::Forbidden { .. }) {
                let clear = stack.command("demo --clear");
                session.listener().on(Event::Warning(&format!("some demo data may remain: `{clear}` removes it")));
            }
            return Err(error);
        }
        sent.points += part.len();
    }
    Ok(())
}

fn check_models(models: &[String]) -> Result<()> {
    if let Some(model) =
        models.iter().find(|model| model.is_empty() || is_unreportable(model) || model.starts_with('#'))
    {
        return Err(Error::usage(
            format!("--models contains {model:?}, a name that Clipper cannot report"),
            "use names without commas that do not begin with #",
        ));
    }
    let mut written = HashMap::new();
    for model in models {
        if let Some(other) = written.insert(written_name(model), model) {
            return Err(Error::usage(
                format!("--models contains {other:?} and {model:?}, which Clipper reports under one name"),
                "use each name once",
            ));
        }
    }
    Ok(())
}

fn expect_no_reports(stack: &Stack, activity: &Activity) -> Result<()> {
    let Some(model) = activity.models.iter().find(|model| model.last_report.is_some()) else { return Ok(()) };
    Err(Error::NotConfirmed {
        message: format!(
            "database {} contains reports from a real Clipper (model {}), and demo data would mix with them",
            stack.database, model.name
        ),
        hint: format!("add --mix to send it anyway; `{}` removes demo data later", stack.command("demo --clear")),
    })
}

/// Sends data of the past in batches, and returns when the next report is due.
async fn backfill(
    session: &Session,
    influxdb: &Influxdb,
    load: &Load,
    past: Duration,
    sent: &mut SentSoFar,
) -> Result<i64> {
    let database = &session.stack().database;
    let now = crate::clock::now();
    let first = first_report(influxdb, database, past, now, session.listener()).await?;
    // All backfills use the same times, so that a second one replaces the points of the first.
    let aligned = first.div_euclid(STEP).saturating_add(1).saturating_mul(STEP);
    let mut at = aligned.min(now);
    let mut batch = Batch::default();
    while at <= now {
        load.report(at, &mut batch);
        sent.reports += 1;
        at += STEP;
        if batch.points >= BATCH || at > now {
            write(session, influxdb, std::mem::take(&mut batch), sent).await?;
        }
    }
    Ok(at)
}

/// When a backfill begins: InfluxDB rejects points that are older than its retention period.
async fn first_report(
    influxdb: &Influxdb,
    database: &str,
    past: Duration,
    now: i64,
    listener: &dyn Listener,
) -> Result<i64> {
    let wanted = now.saturating_sub(millis(past)).max(0);
    let policy = influxdb.default_retention(database).await?;
    let Some(Retention::For(kept)) = policy.and_then(|policy| Retention::parse(&policy.duration)) else {
        return Ok(wanted);
    };
    // The server's clock decides, and the oldest points must not expire before they arrive.
    let there = influxdb.clock().await?.unwrap_or(now);
    let oldest = there.saturating_sub(millis(kept)).saturating_add(millis(WRITE_TIMEOUT));
    if wanted >= oldest {
        return Ok(wanted);
    }
    listener.on(Event::Note(&format!(
        "database {database} has a retention period of {}: the backfill begins there",
        Retention::For(kept)
    )));
    Ok(oldest)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Removes all demo data and nothing else, and returns the number of series.
///
/// # Errors
/// If InfluxDB rejects the request.
async fn clear(session: &Session) -> Result<usize> {
    let (influxdb, _) = reachable(session).await?;
    let database = Some(session.stack().database.as_str());
    // With thousands of series, InfluxDB takes longer than for other requests.
    let within = Some(session.stack().timeout);
    let condition = format!("WHERE {} != ''", quoted(DEMO_TAG));
    let found = influxdb.query_within(database, &format!("SHOW MEASUREMENTS {condition}"), within).await?;
    let rows = found.iter().flat_map(|names| &names.rows);
    let measurements: Vec<String> = rows.filter_map(|row| Some(quoted(row.first()?.text()?))).collect();
    let series = influxdb.query_within(database, &format!("SHOW SERIES {condition}"), within).await?;
    // One statement for all would exceed every time limit, and InfluxDB would continue with it after that.
    for (index, some) in measurements.chunks(CLEARED).enumerate() {
        let from = format!("FROM {} {condition}", some.join(", "));
        influxdb.query_within(database, &format!("DROP SERIES {from}"), within).await?;
        let left = measurements.len().saturating_sub((index + 1) * CLEARED);
        if index % 10 == 9 && left > 0 {
            session.listener().on(Event::Waiting(&format!("removing demo data: {left} measurements are left")));
        }
    }
    Ok(series.iter().map(|series| series.rows.len()).sum())
}

/// InfluxDB, if it answers and has the database, and the observation that shows it.
async fn reachable(session: &Session) -> Result<(Influxdb, Observed)> {
    let stack = session.stack();
    crate::reconcile::expect_known_settings(stack)?;
    let mut connections = session.connect();
    let seen = session.observe(&mut connections, Depth::Servers).await?;
    crate::reconcile::expect_restored(stack, &seen)?;
    crate::reconcile::expect_instance(stack, &seen)?;
    let url = stack.url(Role::Influxdb);
    let hint = format!("run `{}`, then try again", stack.command("up"));
    if seen.influxdb.response == ServerResponse::NotTheContainer {
        let resource = Resource::Server(Role::Influxdb);
        return Err(Error::Blocked { resource, blocker: not_the_container(stack, Role::Influxdb, &url.to_string()) });
    }
    match seen.influxdb_state() {
        Some(stored) if stored.has_database => Ok((session.influxdb(&connections.influxdb), seen)),
        Some(_) => Err(Error::Absent { what: format!("InfluxDB at {url} has no database {}", stack.database), hint }),
        None => {
            let plan = plan::up(stack, &seen, UpOptions::default());
            Err(match plan.finding(Resource::Server(Role::Influxdb)) {
                Some(Finding::Blocked(blocker)) => {
                    Error::Blocked { resource: Resource::Server(Role::Influxdb), blocker: blocker.clone() }
                }
                Some(Finding::Failing(why)) => Error::Absent {
                    what: format!("InfluxDB at {url} answers, but clipper-metrics {why}"),
                    hint: format!("check the log with `{}`", stack.command("logs influxdb")),
                },
                _ => Error::Absent { what: format!("InfluxDB at {url} does not answer"), hint },
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_count_unless_a_comma_follows_it() {
        let models = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            demo_models(Some(&given)).unwrap()
        };
        assert_eq!(models(&["3"]), ["m1", "m2", "m3"]);
        assert_eq!(models(&["1000", ""]), ["1000"]);
        assert_eq!(models(&["7", "8"]), ["7", "8"]);
    }
}
