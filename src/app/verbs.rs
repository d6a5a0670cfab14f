//! The commands of the command line as calls of the library, and their answers as output.
//!
//! Must not decide anything about a stack, nor lay anything out.

use std::rc::Rc;
use std::sync::Arc;

use clap::CommandFactory as _;

use super::session::{self, Purpose, Session, read_inputs};
use super::terminal::{self, confirm, interrupted, reader_gone, style};
use crate::cli::{self, Cli, Command, Options};
use crate::clipper::load::Load;
use crate::commands::{self, DownOptions, backup, demo, doctor, export, logs};
use crate::core::event::Event;
use crate::core::export::Format as ExportFormat;
use crate::core::image::ImageRef;
use crate::core::invocation::{shell_path, shell_word};
use crate::core::plan::UpOptions;
use crate::core::role::Role;
use crate::core::stack::Pull;
use crate::core::status::Status;
use crate::error::{Error, Exit, Result};
use crate::report::{self, Format, Output, Report};
use crate::settings;
use crate::settings::keys::Setting;
use crate::systems::archive::Verified;
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
        Command::Man(man) => print_manual(man.command.as_deref()),
        Command::Up(up) => bring_up(options, up, environment, report).await,
        Command::Down(down) => take_down(options, down, environment, report).await,
        Command::Status(status) => show_status(options, status, environment, report).await,
        Command::Doctor(doctor) => run_doctor(options, doctor, environment, report).await,
        Command::Backup(backup) => run_backup(options, backup, environment, report).await,
        Command::Restore(restore) => run_restore(options, restore, environment, report).await,
        Command::Export(export) => run_export(options, export, environment, report).await,
        Command::Logs(logs) => show_logs(options, logs, environment, report).await,
        Command::Demo(demo) => run_demo(options, demo, environment, report).await,
    }
}

/// The manual page of the program, or of one command.
fn print_manual(command: Option<&str>) -> Result<Exit> {
    let mut root = Cli::command();
    // Options that every command has are known to each only then.
    root.build();
    let page = match command {
        None => root,
        Some(name) => {
            let found = root.get_subcommands().find(|one| one.get_name() == name).cloned();
            let unknown =
                || Error::usage(format!("there is no command {name:?}"), "`clipper-metrics --help` lists them");
            let title = format!("clipper-metrics-{name}");
            found.ok_or_else(unknown)?.name(title.clone()).display_name(title)
        }
    };
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(page).render(&mut text);
    rendered.map_err(|source| Error::Io { doing: "write the manual page".into(), source })?;
    let _ = report::print(&String::from_utf8_lossy(&text));
    Ok(Exit::Done)
}

/// Asks before `up` deletes something that people have stored.
async fn confirm_loss(report: &Rc<dyn Report>, yes: bool, what: &str) -> Result<()> {
    // What is going on on the terminal must not run over the question.
    report.clear();
    let hint = "add --yes to go on without a question, or give another --retention or --grafana-image";
    terminal::ask(&format!("{what}. Go on?"), yes, what, hint).await
}

async fn bring_up(options: &Options, up: &cli::Up, environment: &Environment, report: &Rc<dyn Report>) -> Result<Exit> {
    let session = Session::open(options, environment, report, Purpose::Whole, !up.dry_run).await?;
    let options = UpOptions {
        overwrite_dashboard: up.overwrite_dashboard,
        move_data_source: up.move_data_source,
        reset_password: up.reset_grafana_password,
        pull: session.systems.stack().pull == Pull::Always,
    };
    if up.dry_run {
        let preview = commands::plan_up(&session.systems, options, session.listener.as_ref()).await?;
        let questions = if up.yes { &[][..] } else { &preview.questions };
        let _ = report.answer(&Output::Planned { status: &preview.status, plan: &preview.plan, questions });
        return Ok(if preview.plan.in_sync() { Exit::Done } else { Exit::Differs });
    }
    let confirm = async |what: &str| confirm_loss(report, up.yes, what).await;
    let outcome = commands::up(&session.systems, options, confirm, session.listener.as_ref()).await?;
    let _ = report.answer(&Output::Up { status: &outcome.status, executed: &outcome.executed });
    if up.open {
        let url = &outcome.status.dashboard_url;
        if let Some(command) = &outcome.status.forward_command {
            session.listener.on(Event::Note(&format!("run `{command}` first, then open {url}")));
        } else if !terminal::open_browser(url, environment) {
            session.listener.on(Event::Note(&format!("there is no browser here: open {url}")));
        }
    }
    Ok(Exit::Done)
}

async fn take_down(
    options: &Options,
    down: &cli::Down,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    // Who signs in somewhere needs to know how.
    let purpose = if down.deregister { Purpose::Removal } else { Purpose::NameOnly };
    let mut environment = environment.clone();
    if down.deregister {
        // Rules that are left are found only where somebody speaks of them.
        environment.insert(Setting::Alerts.key().variable.into(), "false".into());
    }
    let changes = !down.dry_run;
    // Volumes are nowhere else than on the engine.
    let session = Session::open_for_containers(options, &environment, report, purpose, changes, down.volumes).await?;
    let options = DownOptions { volumes: down.volumes, deregister: down.deregister };
    if down.dry_run {
        let preview = commands::plan_down(&session.systems, options).await?;
        let plan = &preview.plan;
        let questions = if down.yes { &[][..] } else { &preview.questions };
        let _ = report.answer(&Output::Planned { status: &preview.status, plan, questions });
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
            let inputs = read_inputs(options, environment, Purpose::Whole)?;
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
    if report_format(options, environment) == Format::JsonSchema {
        let _ = report::print(report::JSON_SCHEMA);
        return Ok(Exit::Done);
    }
    if verb.all {
        let docker = session::engine(options, environment, report).await?;
        let _ = report.answer(&Output::Instances(&docker.instances().await?));
        return Ok(Exit::Done);
    }
    let session = Session::open(options, environment, report, Purpose::Whole, false).await?;
    let status = commands::status(&session.systems, verb.show_secrets).await?;
    let _ = report.answer(&Output::Status(&status));
    Ok(if status.in_sync { Exit::Done } else { Exit::Differs })
}

fn report_format(options: &Options, environment: &Environment) -> Format {
    style(options, environment).format
}

async fn show_logs(
    options: &Options,
    verb: &cli::Logs,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let session = Session::open_for_containers(options, environment, report, Purpose::NameOnly, false, false).await?;
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
    let format = report_format(options, environment);
    let show = |server: Role, line: &str| report::print_log_line(format, server, role.is_some(), line).is_ok();
    let showing = logs::logs(&session.systems, selection, session.listener.as_ref(), show);
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

/// A future that ends when it does, or with an interruption.
async fn unless_interrupted<T>(doing: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = doing => result,
        () = interrupted() => Err(Error::Interrupted { hint: "nothing was changed: run the same command again".into() }),
    }
}

async fn run_backup(
    options: &Options,
    verb: &cli::Backup,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let session = unless_interrupted(Session::open(options, environment, report, Purpose::Whole, true)).await?;
    let listener = session.listener.as_ref();
    let written = backup::backup(&session.systems, &verb.file, listener, interrupted()).await?;
    let restore = format!("restore {}", shell_path(&verb.file));
    let restore = session.systems.stack().command(&restore);
    let _ = report.answer(&Output::BackedUp {
        file: &written.file.to_string_lossy(),
        bytes: written.bytes,
        time: written.time,
        instance: &written.manifest.instance,
        versions: [&written.manifest.influxdb, &written.manifest.grafana],
        restore: &restore,
    });
    Ok(Exit::Done)
}

async fn run_restore(
    options: &Options,
    verb: &cli::Restore,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let file = verb.file.clone();
    let verifying = async {
        let verified = tokio::task::spawn_blocking(move || Verified::open(&file)).await;
        verified.unwrap_or_else(|why| {
            Err(Error::Io { doing: "read the archive".into(), source: std::io::Error::other(why.to_string()) })
        })
    };
    let archive = Arc::new(unless_interrupted(verifying).await?);
    let opening = Session::open_restored(options, environment, report, &verb.file, &archive);
    let (session, images) = unless_interrupted(opening).await?;
    let listener = session.listener.as_ref();
    let trust = async || confirm_images(&session, verb, &images, report).await;
    let take_over = async |what: &str| confirm_taking_over(&session, verb, what, report).await;
    let confirm = async |what: &str| confirm_loss(report, verb.yes, what).await;
    let outcome =
        backup::restore(&session.systems, &archive, take_over, trust, confirm, listener, interrupted()).await?;
    let _ = report.answer(&Output::Up { status: &outcome.status, executed: &outcome.executed });
    Ok(Exit::Done)
}

/// Asks before this run removes what another restore, which may still run, has made.
async fn confirm_taking_over(
    session: &Session,
    verb: &cli::Restore,
    what: &str,
    report: &Rc<dyn Report>,
) -> Result<()> {
    report.clear();
    let file = shell_path(&verb.file);
    let command = session.systems.stack().invocation.again(&format!("restore {file} --yes"));
    let question = format!("{what}. Remove what it has made and restore {file}?");
    let hint = format!("wait until that run ends; if it was killed: `{command}`");
    terminal::ask(&question, verb.yes, what, &hint).await
}

/// Asks before an image runs that only the archive names: an archive can come from anywhere.
async fn confirm_images(
    session: &Session,
    verb: &cli::Restore,
    images: &[(Role, ImageRef)],
    report: &Rc<dyn Report>,
) -> Result<()> {
    if images.is_empty() {
        return Ok(());
    }
    report.clear();
    let list =
        |text: fn(&(Role, ImageRef)) -> String, separator| images.iter().map(text).collect::<Vec<_>>().join(separator);
    let options = list(|(role, image)| format!("--{role}-image {}", shell_word(&image.to_string())), " ");
    let file = shell_path(&verb.file);
    let command = session.systems.stack().invocation.again(&format!("restore {file} {options}"));
    let what = format!("the archive names {}", list(|(role, image)| format!("{image} for {}", role.title()), " and "));
    let question = format!("{what}. Run {}?", if images.len() == 1 { "that image" } else { "these images" });
    let hint = format!("if you trust them: `{command}`; --yes omits the question");
    terminal::ask(&question, verb.yes, &what, &hint).await
}

async fn run_export(
    options: &Options,
    verb: &cli::Export,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let format = match verb.format {
        cli::ExportFormat::Provisioning => ExportFormat::Provisioning,
        cli::ExportFormat::Compose => ExportFormat::Compose,
        cli::ExportFormat::Swarm => ExportFormat::Swarm,
        cli::ExportFormat::Kubernetes => ExportFormat::Kubernetes,
    };
    let mut inputs = read_inputs(options, environment, Purpose::Whole)?;
    // That of a Grafana which is yet to be made opens none that there is.
    let password = if format.makes_servers() { inputs.secrets.grafana_password.take() } else { None };
    let opened = Session::open_with(inputs.clone(), options, environment, report, Purpose::Whole, false).await;
    let session = match opened {
        // New servers elsewhere need no engine here.
        Err(error @ Error::Engine { .. })
            if format != ExportFormat::Compose && !session::names_engine(options, environment) =>
        {
            let session = Session::without_engine(&inputs, report)?;
            let why = format!("{error}; what an instance remembers or somebody edited is not in the export");
            session.listener.on(Event::Warning(&why));
            session
        }
        opened => opened?,
    };
    let exported =
        export::export(&session.systems, format, &verb.directory, password, session.listener.as_ref()).await?;
    let _ = report.answer(&Output::Exported(&exported));
    Ok(Exit::Done)
}

async fn run_doctor(
    options: &Options,
    verb: &cli::Doctor,
    environment: &Environment,
    report: &Rc<dyn Report>,
) -> Result<Exit> {
    let session = unless_interrupted(Session::open(options, environment, report, Purpose::Whole, false)).await?;
    let doctor_options = doctor::DoctorOptions { from: verb.from.clone() };
    let listener = session.listener.as_ref();
    let diagnosis = doctor::doctor(&session.systems, &doctor_options, listener, interrupted()).await?;
    let _ = report.answer(&Output::Diagnosed(&diagnosis));
    Ok(if diagnosis.culprit().is_none() { Exit::Done } else { Exit::Differs })
}

/// The most models of one demo: ten times as many as were measured.
const DEMO_MODELS: usize = 50_000;

/// The models that `--models` names or counts.
fn demo_models(given: Option<&[String]>) -> Result<Vec<String>> {
    let numbered = |count: usize| (1..=count).map(|number| format!("m{number}")).collect();
    match given {
        None => Ok(numbered(2)),
        Some([count]) if !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()) => match count.parse() {
            Ok(count @ 1..=DEMO_MODELS) => Ok(numbered(count)),
            _ => Err(Error::usage(format!("--models is {count}"), format!("give a number from 1 to {DEMO_MODELS}"))),
        },
        Some(names) => Ok(names.to_vec()),
    }
}

fn demo_options(verb: &cli::Demo) -> Result<demo::DemoOptions> {
    let rate = verb.rate.unwrap_or(8.0);
    if !rate.is_finite() || !(0.0..=1e6).contains(&rate) {
        return Err(Error::usage(format!("--rate is {rate}"), "give a number from 0 to 1000000"));
    }
    let length =
        |text: &Option<String>, option| text.as_deref().map(|text| settings::duration(text, option)).transpose();
    Ok(demo::DemoOptions {
        load: Load { models: demo_models(verb.models.as_deref())?, rate, seed: verb.seed.unwrap_or(1) },
        duration: length(&verb.duration, "--duration")?,
        backfill: length(&verb.backfill, "--backfill")?,
        mix: verb.mix,
    })
}
