//! The commands of the command line as calls of the library, and their answers as output.
//!
//! Must not decide anything about a stack, nor lay anything out.

use std::rc::Rc;

use clap::CommandFactory as _;

use super::session::{Purpose, Session, read_inputs};
use super::terminal::{confirm, interrupted, reader_gone};
use crate::cli::{self, Cli, Command, Options};
use crate::clipper::load::Load;
use crate::commands::{self, DownOptions, demo, logs};
use crate::core::plan::UpOptions;
use crate::core::role::Role;
use crate::core::stack::Pull;
use crate::core::status::Status;
use crate::error::{Error, Exit, Result};
use crate::report::{self, Output, Report};
use crate::settings;
use crate::systems::docker::endpoint::Environment;

/// One command, from settings to its answer. A reader that has gone away ends it quietly.
pub(super) async fn run(cli: &Cli, environment: &Environment, report: &Rc<dyn Report>) -> Result<Exit> {
    let options = &cli.options;
    match &cli.command {
        Command::Completions(completions) => {
            let mut script = Vec::new();
            clap_complete::generate(completions.shell, &mut Cli::command(), "clipper-metrics", &mut script);
            let _ = report::print(&String::from_utf8_lossy(&script));
            Ok(Exit::Done)
        }
        Command::Up(up) => bring_up(options, up, environment, report).await,
        Command::Down(down) => take_down(options, down, environment, report).await,
        Command::Status(status) => show_status(options, status, environment, report).await,
        Command::Logs(logs) => show_logs(options, logs, environment, report).await,
        Command::Demo(demo) => run_demo(options, demo, environment, report).await,
    }
}

async fn bring_up(options: &Options, up: &cli::Up, environment: &Environment, report: &Rc<dyn Report>) -> Result<Exit> {
    let session = Session::open(options, environment, report, Purpose::Whole, !up.dry_run).await?;
    let options = UpOptions {
        overwrite_dashboard: up.overwrite_dashboard,
        reset_password: up.reset_grafana_password,
        pull: session.systems.stack().pull == Pull::Always,
    };
    if up.dry_run {
        let (plan, status) = commands::plan_up(&session.systems, options).await?;
        let _ = report.answer(&Output::Planned { status: &status, plan: &plan });
        return Ok(if plan.in_sync() { Exit::Done } else { Exit::Differs });
    }
    let outcome = commands::up(&session.systems, options, session.listener.as_ref()).await?;
    let _ = report.answer(&Output::Up { status: &outcome.status, executed: &outcome.executed });
    Ok(Exit::Done)
}

async fn take_down(
    options: &Options,
    down: &cli::Down,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let session = Session::open(options, environment, report, Purpose::NameOnly, !down.dry_run).await?;
    let options = DownOptions { volumes: down.volumes };
    if down.dry_run {
        let (plan, status) = commands::plan_down(&session.systems, options).await?;
        let _ = report.answer(&Output::Planned { status: &status, plan: &plan });
        return Ok(if plan.is_idle() && plan.blocked().is_none() { Exit::Done } else { Exit::Differs });
    }
    let confirm = async |volumes: &[String]| confirm(volumes, down.yes).await;
    let outcome = commands::down(&session.systems, options, confirm, session.listener.as_ref()).await?;
    let _ = report.answer(&Output::Down { status: &outcome.status, executed: &outcome.executed });
    Ok(Exit::Done)
}

async fn show_status(
    options: &Options,
    verb: &cli::Status,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    if verb.watch {
        let watching = async {
            // An engine that cannot be reached now may be there later.
            let inputs = read_inputs(options, environment, Purpose::Whole, false)?;
            let open = || Session::open_with(inputs.clone(), options, environment, report, Purpose::Whole, false);
            let mut session = open().await?;
            loop {
                let show = |status: &Status| report.again(status).is_ok();
                match commands::watch(&session.systems, verb.show_secrets, show).await {
                    Ok(()) => return Ok(()),
                    Err(error) => session = commands::reopen(error, open, |error| report.trouble(error)).await?,
                }
            }
        };
        tokio::select! {
            result = watching => result?,
            () = reader_gone() => {}
            () = interrupted() => {}
        }
        return Ok(Exit::Done);
    }
    let session = Session::open(options, environment, report, Purpose::Whole, false).await?;
    let status = commands::status(&session.systems, verb.show_secrets).await?;
    let _ = report.answer(&Output::Status(&status));
    Ok(if status.in_sync { Exit::Done } else { Exit::Differs })
}

async fn show_logs(
    options: &Options,
    verb: &cli::Logs,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let session = Session::open(options, environment, report, Purpose::NameOnly, false).await?;
    let role = verb.server.map(|server| match server {
        cli::Server::Influxdb => Role::Influxdb,
        cli::Server::Grafana => Role::Grafana,
    });
    let selection = logs::LogOptions {
        role,
        follow: verb.follow,
        tail: verb.tail.map(|lines| lines as usize),
        since: verb.since.as_deref().map(|text| settings::duration(text, "--since")).transpose()?,
    };
    let show = |line_of: Role, line: &str| report::print_log_line(role.is_none().then_some(line_of), line).is_ok();
    let showing = logs::logs(&session.systems, selection, show);
    tokio::select! {
        result = showing => result?,
        () = reader_gone() => {}
        () = interrupted(), if verb.follow => {}
    }
    Ok(Exit::Done)
}

async fn run_demo(
    options: &Options,
    verb: &cli::Demo,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let demo_options = demo_options(verb)?;
    let session = Session::open(options, environment, report, Purpose::Whole, false).await?;
    let stack = session.systems.stack();
    let database = &stack.database;
    if verb.clear {
        let series = demo::clear(&session.systems).await?;
        let _ = report.answer(&Output::Cleared { series, database });
        return Ok(Exit::Done);
    }
    let sent = demo::run(&session.systems, &demo_options, session.listener.as_ref(), interrupted()).await?;
    report.clear();
    let _ = report.answer(&Output::Sent {
        points: sent.points,
        reports: sent.reports,
        models: demo_options.load.models.len(),
        time: sent.time,
        database,
        dashboard_url: &stack.dashboard_url(),
        clear: &stack.command("demo --clear"),
    });
    Ok(Exit::Done)
}

fn demo_options(verb: &cli::Demo) -> Result<demo::DemoOptions> {
    let rate = verb.rate.unwrap_or(8.0);
    if !rate.is_finite() || !(0.0..=1e6).contains(&rate) {
        return Err(Error::usage(format!("--rate is {rate}"), "give a number from 0 to 1000000"));
    }
    let length =
        |text: &Option<String>, option| text.as_deref().map(|text| settings::duration(text, option)).transpose();
    Ok(demo::DemoOptions {
        load: Load {
            models: verb.models.clone().unwrap_or_else(|| vec!["m1".into(), "m2".into()]),
            rate,
            seed: verb.seed.unwrap_or(1),
        },
        duration: length(&verb.duration, "--duration")?,
        backfill: length(&verb.backfill, "--backfill")?,
        mix: verb.mix,
    })
}
