//! The program: reads the command line, the environment and files, builds the stack, chooses a
//! report, runs the verb, and turns its result into an exit code.
//!
//! The only place that reads the environment. Must not decide anything about a stack.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use clap::{CommandFactory as _, Parser as _};
use clipper_metrics::cli::{self, Cli, Color, Command, Format, Options};
use clipper_metrics::commands::{self, demo, logs};
use clipper_metrics::core::event::Listener;
use clipper_metrics::core::plan::Wishes;
use clipper_metrics::core::stack::{Role, Secret, Stack};
use clipper_metrics::error::{Error, Exit, Result, printable};
use clipper_metrics::report::{self, Answer, Field, Report, Style};
use clipper_metrics::settings::{self, Access, Given, Inputs, Secrets, Site};
use clipper_metrics::systems::clipper::{self, ClipperFile};
use clipper_metrics::systems::docker::Docker;
use clipper_metrics::systems::docker::endpoint::{self, Environment};
use clipper_metrics::systems::load::Load;
use clipper_metrics::systems::{Credentials, Systems, grafana, http, lock};

/// The most that is read of Clipper's file or of a secret's.
const FILE_LIMIT: u64 = 1 << 20;

fn main() -> ExitCode {
    // A killed reader such as `head` is no reason to die with a trace; errors of printing are
    // ignored where they happen.
    let cli = Cli::parse();
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
            let session =
                Session::open(options, environment, report, Purpose::Whole { reset: wishes.reset_password }).await?;
            let _lock = session.lock(environment, !up.dry_run).await;
            let session = session.again(options, environment, report, wishes.reset_password).await?;
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
            let session = Session::open(options, environment, report, Purpose::Whole { reset: false }).await?;
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
    let session = Session::open(options, environment, report, Purpose::NameOnly).await?;
    let _lock = session.lock(environment, !down.dry_run).await;
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
    let session = Session::open(options, environment, report, Purpose::NameOnly).await?;
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
    let session = Session::open(options, environment, report, Purpose::Whole { reset: false }).await?;
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

/// What a command needs to know of the stack.
#[derive(Clone, Copy)]
enum Purpose {
    /// All settings.
    Whole { reset: bool },
    /// The instance's name is enough.
    NameOnly,
}

/// A stack and the systems that it lives in.
struct Session {
    stack: Stack,
    systems: Systems,
    listener: Rc<dyn Listener>,
}

impl Session {
    /// Reads files, finds the engine, asks what the instance was given before, and merges.
    async fn open(
        options: &Options,
        environment: &Environment,
        report: &Rc<dyn Report>,
        purpose: Purpose,
    ) -> Result<Self> {
        let listener: Rc<dyn Listener> = Rc::<dyn Report>::clone(report);
        let file = options.config.as_deref().map(read_clipper_file).transpose()?;
        let name = settings::instance(options, file.as_ref())?;
        let needs_engine = matches!(purpose, Purpose::NameOnly) || !settings::all_external(options, file.as_ref());
        if let Purpose::Whole { reset } = purpose {
            // What is wrong with the settings themselves is told before anything is touched.
            merge(options, file.as_ref(), &Given::new(), Site::Here, environment, reset)?;
        }
        let docker = if needs_engine {
            let endpoint = endpoint::resolve(options.host.as_deref(), options.context.as_deref(), environment)?;
            Some(Docker::connect(endpoint, Rc::clone(&listener)).await?)
        } else {
            None
        };
        let site = docker.as_ref().and_then(Docker::other_machine).map_or(Site::Here, Site::Elsewhere);
        let (stack, access) = match purpose {
            Purpose::Whole { reset } => {
                let given = match &docker {
                    Some(docker) => docker.given(&name).await?,
                    None => Given::new(),
                };
                merge(options, file.as_ref(), &given, site, environment, reset)?
            }
            Purpose::NameOnly => {
                let only_name = Options { name: Some(name), ..Options::default() };
                merge(&only_name, None, &Given::new(), Site::Here, &Environment::new(), false)?
            }
        };
        let systems = Systems::new(docker, credentials(access)?, Rc::clone(&listener));
        Ok(Self { stack, systems, listener })
    }

    /// Keeps other runs of this user off the same instance.
    async fn lock(&self, environment: &Environment, wanted: bool) -> Option<lock::Lock> {
        let docker = self.systems.docker().ok().filter(|_| wanted)?;
        Some(lock::acquire(&docker.engine().endpoint, &self.stack.instance, environment, self.listener.as_ref()).await)
    }

    /// The same session after waiting for the lock: whoever held it may have given the instance
    /// other settings.
    async fn again(
        self,
        options: &Options,
        environment: &Environment,
        report: &Rc<dyn Report>,
        reset: bool,
    ) -> Result<Self> {
        let Ok(docker) = self.systems.docker() else { return Ok(self) };
        let remembered = docker.given(&self.stack.instance).await?;
        let known: Given = Role::ALL
            .into_iter()
            .filter_map(|role| self.stack.container(role))
            .flat_map(|spec| spec.given.clone())
            .collect();
        if remembered.iter().all(|(name, value)| known.get(name) == Some(value)) {
            return Ok(self);
        }
        Self::open(options, environment, report, Purpose::Whole { reset }).await
    }
}

fn merge(
    options: &Options,
    file: Option<&ClipperFile>,
    given: &Given,
    site: Site,
    environment: &Environment,
    reset_password: bool,
) -> Result<(Stack, Access)> {
    settings::merge(&Inputs {
        options,
        file,
        given,
        site,
        edition: &grafana::dashboard::edition(),
        secrets: secrets(options, file, environment)?,
        reset_password,
        resolve: &resolve,
    })
}

fn credentials(access: Access) -> Result<Credentials> {
    let influxdb = match (access.influxdb_user, access.secrets.influxdb_password) {
        (Some(user), password) => Some((user, password.unwrap_or_else(|| Secret::new("")))),
        (None, Some(_)) => {
            return Err(Error::usage("a password for InfluxDB is given, but no user", "give --influxdb-user too"));
        }
        (None, None) => None,
    };
    Ok(Credentials {
        grafana_user: access.grafana_user,
        grafana_password: access.secrets.grafana_password,
        default_password: Access::default_password(),
        grafana_token: access.secrets.grafana_token,
        influxdb,
        ca_file: access.ca_file,
    })
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

fn read(path: &Path, what: &str) -> Result<String> {
    let failed = |message: String| Error::File {
        path: path.to_path_buf(),
        line: None,
        message,
        hint: format!("give the path of {what}"),
    };
    let file = std::fs::File::open(path).map_err(|why| failed(format!("cannot be read: {why}")))?;
    let mut text = String::new();
    let mut limited = std::io::Read::take(file, FILE_LIMIT + 1);
    std::io::Read::read_to_string(&mut limited, &mut text).map_err(|why| failed(format!("cannot be read: {why}")))?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(failed("is larger than 1 MiB".into()));
    }
    Ok(text)
}

fn read_clipper_file(path: &Path) -> Result<ClipperFile> {
    clipper::parse(path, &read(path, "Clipper's configuration file with --config")?)
}

/// Secrets come from files or variables, never from options: those show in process lists.
fn secrets(options: &Options, file: Option<&ClipperFile>, environment: &Environment) -> Result<Secrets> {
    let one = |option: Option<&std::path::PathBuf>, key: &str, variable: &str| -> Result<Option<Secret>> {
        if let Some(path) = settings::secret_file(option, file, key) {
            let text = read(&path, "a file that holds the secret alone")?;
            let text = text.trim_end_matches(['\n', '\r']);
            if text.is_empty() {
                return Err(Error::File {
                    path,
                    line: None,
                    message: "is empty".into(),
                    hint: "put the secret into it, alone on one line".into(),
                });
            }
            return Ok(Some(Secret::new(text)));
        }
        Ok(environment.get(variable).filter(|text| !text.is_empty()).map(Secret::new))
    };
    Ok(Secrets {
        grafana_password: one(
            options.grafana_password_file.as_ref(),
            "grafana_password_file",
            "CLIPPER_METRICS_GRAFANA_PASSWORD",
        )?,
        grafana_token: one(options.grafana_token_file.as_ref(), "grafana_token_file", "CLIPPER_METRICS_GRAFANA_TOKEN")?,
        influxdb_password: one(
            options.influxdb_password_file.as_ref(),
            "influxdb_password_file",
            "CLIPPER_METRICS_INFLUXDB_PASSWORD",
        )?,
    })
}

/// One address for a host name; the engine would open everything for the name itself.
fn resolve(host: &str) -> std::result::Result<IpAddr, String> {
    let addresses = (host, 0).to_socket_addrs().map_err(|_| "that name is not known".to_string())?;
    let mut addresses: Vec<IpAddr> = addresses.map(|address| address.ip()).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.into_iter().next().ok_or_else(|| "that name has no address".to_string())
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
