//! The program: reads the command line, the environment and files, builds the stack, chooses a
//! report, runs the verb, and turns its result into an exit code.
//!
//! The only place that reads the environment. Must not decide anything about a stack.

mod session;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::rc::Rc;

use clap::{CommandFactory as _, Parser as _};
use clipper_metrics::cli::{self, Cli, Color, Command, Format, Options};
use clipper_metrics::commands::{self, demo, logs};
use clipper_metrics::core::plan::Wishes;
use clipper_metrics::core::stack::Role;
use clipper_metrics::error::{Error, Exit, Result, printable};
use clipper_metrics::report::{self, Answer, Field, Report, Style};
use clipper_metrics::settings;
use clipper_metrics::systems::docker::endpoint::Environment;
use clipper_metrics::systems::http;
use clipper_metrics::systems::load::Load;

use self::session::{Purpose, Session};

fn main() -> ExitCode {
    // A killed reader such as `head` is no reason to die with a trace; errors of printing are
    // ignored where they happen.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    http::choose_cryptography();
    let environment = environment();
    let report = report::choose(style(&cli.options, &environment));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            report.answer(&Answer::Error(&Error::Io { doing: "start".into(), source }));
            return code(Exit::Failed);
        }
    };
    let exit = runtime.block_on(async {
        match run(&cli, &environment, &report).await {
            Ok(exit) => exit,
            Err(error) => {
                report.clear();
                report.answer(&Answer::Error(&error));
                error.exit()
            }
        }
    });
    // Whatever still runs in the background must not hold up the end.
    runtime.shutdown_background();
    code(exit)
}

/// A command line that makes no sense, or a wish for help: told by clap, in JSON where that was asked
/// for.
fn usage(error: &clap::Error) -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let json = words.iter().any(|word| word == "--output=json")
        || words.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    if !error.use_stderr() || !json {
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let style = Style { json: true, quiet: true, verbose: false, live: false, terminal: false, color: false };
    let failure = Error::usage(message, "`clipper-metrics --help` lists commands and options");
    report::choose(style).answer(&Answer::Error(&failure));
    code(Exit::Usage)
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}

/// Runs the command, unless a signal comes first.
async fn run(cli: &Cli, environment: &Environment, report: &Rc<dyn Report>) -> Result<Exit> {
    tokio::select! {
        // In this order: where Ctrl-C is the normal end, the command takes it first.
        biased;
        result = command(cli, environment, report) => result,
        () = interrupted() => {
            report.clear();
            let left = match &cli.command {
                Command::Up(_) => "interrupted; what is done stays: run `up` again to finish it, or `down` to take it away",
                Command::Down(_) => "interrupted; run `down` again to finish it",
                Command::Logs(logs) if logs.follow => return Ok(Exit::Done),
                Command::Status(status) if status.watch => return Ok(Exit::Done),
                Command::Demo(_) => return Ok(Exit::Done),
                _ => "interrupted",
            };
            // The shell's own ^C stands on the line.
            let _ = writeln!(std::io::stderr(), "\n{left}");
            Ok(Exit::Interrupted)
        }
    }
}

/// Comes with Ctrl-C or SIGTERM.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// One command, from settings to its answer.
async fn command(cli: &Cli, environment: &Environment, report: &Rc<dyn Report>) -> Result<Exit> {
    let options = &cli.options;
    match &cli.command {
        Command::Completions(wanted) => {
            clap_complete::generate(wanted.shell, &mut Cli::command(), "clipper-metrics", &mut std::io::stdout());
            Ok(Exit::Done)
        }
        Command::Up(up) => {
            let wishes =
                Wishes { overwrite_dashboard: up.overwrite_dashboard, reset_password: up.reset_grafana_password };
            let purpose = Purpose::Whole { reset: wishes.reset_password };
            let session = Session::open(options, environment, report, purpose, !up.dry_run).await?;
            let listener = session.listener.as_ref();
            let outcome = commands::up(&session.stack, &session.systems, wishes, up.dry_run, listener).await?;
            if let Some(plan) = &outcome.planned {
                report.answer(&Answer::Planned { status: &outcome.status, plan });
                Ok(if plan.in_sync() { Exit::Done } else { Exit::Differs })
            } else {
                report.answer(&Answer::Up { status: &outcome.status, taken: &outcome.taken });
                Ok(Exit::Done)
            }
        }
        Command::Down(down) => take_down(options, down, environment, report).await,
        Command::Status(wanted) => {
            let session = Session::open(options, environment, report, Purpose::Whole { reset: false }, false).await?;
            if wanted.watch {
                let show = |status: &clipper_metrics::core::status::Status| report.again(status);
                let watching = commands::watch(&session.stack, &session.systems, wanted.show_secrets, show);
                tokio::select! {
                    result = watching => result?,
                    () = interrupted() => {}
                }
                return Ok(Exit::Done);
            }
            let status = commands::status(&session.stack, &session.systems, wanted.show_secrets).await?;
            report.answer(&Answer::Status(&status));
            Ok(if status.in_sync { Exit::Done } else { Exit::Differs })
        }
        Command::Logs(wanted) => show_logs(options, wanted, environment, report).await,
        Command::Demo(wanted) => run_demo(options, wanted, environment, report).await,
    }
}

async fn take_down(
    options: &Options,
    down: &cli::Down,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let session = Session::open(options, environment, report, Purpose::NameOnly, !down.dry_run).await?;
    let confirm = async |volumes: &[String]| confirm(volumes, down.yes).await;
    let outcome = commands::down(
        &session.stack,
        &session.systems,
        down.volumes,
        down.dry_run,
        confirm,
        session.listener.as_ref(),
    )
    .await?;
    if let Some(plan) = &outcome.planned {
        report.answer(&Answer::Planned { status: &outcome.status, plan });
        Ok(if plan.steps().next().is_none() { Exit::Done } else { Exit::Differs })
    } else {
        report.answer(&Answer::Down { status: &outcome.status, taken: &outcome.taken });
        Ok(Exit::Done)
    }
}

async fn show_logs(
    options: &Options,
    wanted: &cli::Logs,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let session = Session::open(options, environment, report, Purpose::NameOnly, false).await?;
    let role = wanted.server.map(|server| match server {
        cli::Server::Influxdb => Role::Influxdb,
        cli::Server::Grafana => Role::Grafana,
    });
    let what = logs::Selection {
        role,
        follow: wanted.follow,
        tail: wanted.tail.map(|lines| lines as usize),
        since: wanted.since.as_deref().map(|text| settings::duration(text, "--since")).transpose()?,
    };
    let show = |line_of: Role, line: &str| {
        let mut out = std::io::stdout().lock();
        let _ = match role {
            Some(_) => writeln!(out, "{line}"),
            None => writeln!(out, "{:<9}| {line}", line_of.name()),
        };
    };
    let showing = logs::logs(&session.stack, &session.systems, what, show);
    tokio::select! {
        result = showing => result?,
        () = interrupted(), if wanted.follow => {}
    }
    Ok(Exit::Done)
}

async fn run_demo(
    options: &Options,
    wanted: &cli::Demo,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let rate = wanted.rate.unwrap_or(8.0);
    if !rate.is_finite() || !(0.0..=1e6).contains(&rate) {
        return Err(Error::usage(format!("--rate is {rate}"), "give a number from 0 to 1000000"));
    }
    let length =
        |text: &Option<String>, option| text.as_deref().map(|text| settings::duration(text, option)).transpose();
    let load = Load {
        models: wanted.models.clone().unwrap_or_else(|| vec!["m1".into(), "m2".into()]),
        rate,
        seed: wanted.seed.unwrap_or(1),
    };
    let demo_wanted = demo::Wanted {
        load,
        duration: length(&wanted.duration, "--duration")?,
        backfill: length(&wanted.backfill, "--backfill")?,
        mix: wanted.mix,
    };
    let session = Session::open(options, environment, report, Purpose::Whole { reset: false }, false).await?;
    let (stack, systems) = (&session.stack, &session.systems);
    if wanted.clear {
        let series = demo::clear(stack, systems).await?;
        let sentence = match series {
            0 => format!("there is no demo data in database {}", stack.database),
            _ => format!("removed all demo data from database {} ({series} series)", stack.database),
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of series")]
        let fields =
            [("removed_series", Field::Number(series as f64)), ("database", Field::Text(stack.database.clone()))];
        report.answer(&Answer::Summary { sentence: &sentence, fields: &fields });
        return Ok(Exit::Done);
    }
    let sent = demo::run(stack, systems, &demo_wanted, session.listener.as_ref(), interrupted()).await?;
    report.clear();
    let dashboard = format!("{}/d/{}", stack.url(Role::Grafana), stack.dashboard.uid);
    let sentence = format!(
        "sent {} points in {} reports of {} models to database {} in {:.1} s\nSee them at {dashboard}; `clipper-metrics \
         demo --clear` removes them.",
        sent.points,
        sent.reports,
        demo_wanted.load.models.len(),
        stack.database,
        sent.time.as_secs_f64()
    );
    #[expect(clippy::cast_precision_loss, reason = "a count of points")]
    let fields = [
        ("points", Field::Number(sent.points as f64)),
        ("reports", Field::Number(sent.reports as f64)),
        ("seconds", Field::Number(sent.time.as_secs_f64())),
        ("database", Field::Text(stack.database.clone())),
    ];
    report.answer(&Answer::Summary { sentence: &sentence, fields: &fields });
    Ok(Exit::Done)
}

/// The environment, as far as it is text.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect::<BTreeMap<_, _>>()
}

/// How to show things, by options, environment and terminals.
fn style(options: &Options, environment: &Environment) -> Style {
    let set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
    let forced = environment.get("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
    let smart = environment.get("TERM").is_none_or(|term| term != "dumb");
    let terminal = std::io::stdout().is_terminal();
    let color = match options.color {
        Some(Color::Always) => true,
        Some(Color::Never) => false,
        Some(Color::Auto) | None => forced || (terminal && smart && !set("NO_COLOR")),
    };
    Style {
        json: options.output == Some(Format::Json),
        quiet: options.quiet,
        verbose: options.verbose,
        live: std::io::stderr().is_terminal() && smart,
        terminal: terminal && smart,
        color,
    }
}

/// Asks before data is deleted; where nobody can answer, only `--yes` will do.
async fn confirm(volumes: &[String], yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    let what = volumes.join(" and ");
    let hint = "add --yes to delete them without a question, or leave --volumes away to keep them".to_string();
    if !std::io::stdin().is_terminal() {
        return Err(Error::NotConfirmed {
            message: format!("the volumes {what} were not deleted: nobody said yes"),
            hint,
        });
    }
    let question = format!("Delete the volumes {what}, with all metrics, users and dashboards in them? [y/N] ");
    let _ = write!(std::io::stderr(), "{}", printable(&question));
    // In the background, so that Ctrl-C is heard meanwhile.
    let read = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        let _ = std::io::stdin().read_line(&mut answer);
        answer
    });
    let answer = read.await.unwrap_or_default();
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Error::NotConfirmed { message: "nothing was taken away".into(), hint })
}
