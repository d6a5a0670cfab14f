//! Everything a command works with: files and secrets read, the engine found, what the instance was
//! given before asked for, and all of it merged into a stack and its systems.
//!
//! Part of the program, not of the library. Must not decide anything about a stack.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;
use std::rc::Rc;

use clipper_metrics::cli::Options;
use clipper_metrics::core::event::Listener;
use clipper_metrics::core::stack::{Secret, Stack};
use clipper_metrics::error::{Error, Result};
use clipper_metrics::report::Report;
use clipper_metrics::settings::{self, Access, Given, Inputs, Secrets, Site};
use clipper_metrics::systems::clipper::{self, ClipperFile};
use clipper_metrics::systems::docker::Docker;
use clipper_metrics::systems::docker::endpoint::{self, Environment};
use clipper_metrics::systems::{Credentials, Systems, grafana, lock};

/// The most that is read of Clipper's file or of a secret's.
const FILE_LIMIT: u64 = 1 << 20;

/// What a command needs to know of the stack.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// All settings.
    Whole { reset: bool },
    /// The instance's name is enough.
    NameOnly,
}

/// A stack and the systems that it lives in.
pub(crate) struct Session {
    pub(crate) stack: Stack,
    pub(crate) systems: Systems,
    pub(crate) listener: Rc<dyn Listener>,
    /// Keeps other runs of this user off the same instance while this one changes it.
    _lock: Option<lock::Lock>,
}

impl Session {
    /// Reads files, finds the engine, asks what the instance was given before, and merges. A run that
    /// changes things waits for others first: they may give the instance other settings.
    pub(crate) async fn open(
        options: &Options,
        environment: &Environment,
        report: &Rc<dyn Report>,
        purpose: Purpose,
        changes: bool,
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
        let lock = match &docker {
            Some(docker) if changes => {
                Some(lock::acquire(&docker.engine().endpoint, &name, environment, listener.as_ref()).await)
            }
            _ => None,
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
        Ok(Self { stack, systems, listener, _lock: lock })
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
