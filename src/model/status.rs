//! The status of an instance: the state of each resource, derived from one plan and its snapshot.

use std::net::IpAddr;

use super::address::ServerUrl;
use super::alerts::{AlertRule, Alerts};
use super::container_config::Difference;
use super::invocation::{shell_word, typed_option};
use super::observed::{
    Catalogue, ContainerState, DataSourceState, EngineInfo, Observed, ObservedServer, Query, RunState, ServerResponse,
    Unreadable, VolumeState,
};
use super::plan::{BlockReason, Blocker, Finding, Plan, Resource};
use super::reports::Reports;
use super::retention::Retention;
use super::role::Role;
use super::stack::{ClipperTarget, DashboardId, DesiredUserDashboard, Need, NeededObject, Secret, Service, Stack};
use super::upgrade::UpgradeState;

/// Everything that `status` reports.
#[derive(Debug, Clone)]
pub struct Status {
    /// The instance.
    pub instance: String,
    /// Whether there is nothing to do and no blocker.
    pub in_sync: bool,
    /// The engine, if one is used.
    pub engine: Option<EngineInfo>,
    /// InfluxDB.
    pub influxdb: ServerStatus,
    /// Grafana.
    pub grafana: ServerStatus,
    /// The database.
    pub database: Object,
    /// Its retention period, if known.
    pub retention: Option<Retention>,
    /// Grafana's organisation, if one is configured.
    pub organisation: Option<Object>,
    /// The data source.
    pub data_source: Object,
    /// The result of a query through the data source.
    pub query: QueryState,
    /// The bundled dashboard.
    pub dashboard: Object,
    /// Its title.
    pub dashboard_title: String,
    /// The address of the dashboard.
    pub dashboard_url: String,
    /// The command that forwards it to this machine, if the engine is behind ssh.
    pub forward_command: Option<String>,
    /// The user's dashboards.
    pub user_dashboards: Vec<UserDashboardStatus>,
    /// The alert rules, if a setting turns them on or off.
    pub alerts: Option<Object>,
    /// Clipper's reports.
    pub reports: Reports,
    /// The models that Clipper's file names.
    pub configured_models: Vec<String>,
    /// The latency objective that the dashboard shows, in microseconds.
    pub objective: Option<u64>,
    /// Grafana's account, with the password only if it was requested.
    pub account: AccountStatus,
    /// What Clipper's file must contain for its reports to arrive.
    pub clipper_file: ClipperSettings,
    /// Every difference, one per line.
    pub findings: Vec<String>,
    /// Advice for the user.
    pub hints: Vec<String>,
    /// Other instances on this engine.
    pub others: Vec<String>,
    /// Hints about containers that carry the instance's labels but do not belong to it; also
    /// contained in `hints`.
    pub lookalikes: Vec<String>,
    /// Warnings about external servers on loopback that other hosts can reach; also contained in `hints`.
    pub exposures: Vec<String>,
    /// The reason why `up` cannot proceed, and the remedy.
    pub obstacle: Option<(String, String)>,
    /// Commands to suggest.
    pub commands: Commands,
}

/// Complete commands to suggest; as typed, they reach the same instance.
#[derive(Debug, Clone)]
pub struct Commands {
    /// `up`.
    pub up: String,
    /// `down`.
    pub down: String,
    /// `status`.
    pub status: String,
    /// `up` with an option for the password set in Grafana.
    pub give_password: String,
}

/// What Clipper's file must contain for its reports to arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClipperSettings {
    /// The supplied file already does.
    Agree,
    /// No file was supplied, and Clipper's own defaults lead to this address and this database.
    Defaults {
        /// Host and port.
        address: String,
        /// The database.
        database: String,
    },
    /// These lines, which the supplied file does not contain.
    Lines(Vec<String>),
    /// No lines help: Clipper uses plain HTTP to a host and port, without credentials; the reason
    /// why that is not enough.
    Impossible(String),
}

/// How to sign in to Grafana.
#[derive(Debug, Clone)]
pub struct AccountStatus {
    /// The user.
    pub user: String,
    /// The password, if it may be shown.
    pub password: Option<Secret>,
    /// Whether it is Grafana's default.
    pub is_default: bool,
    /// Whether the account is known, because clipper-metrics manages the server.
    pub is_known: bool,
}

/// How a role is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By a managed container.
    Container,
    /// By an external server.
    External,
}

/// The state of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// The container does not exist.
    Absent,
    /// The container does not run.
    Stopped,
    /// It runs but does not answer yet.
    Starting,
    /// It keeps crashing.
    Crashing,
    /// It answers.
    Answering,
    /// It rejects the login.
    Refusing,
    /// Another object is in its place.
    Foreign,
    /// It was not probed, or an external server does not answer.
    Unknown,
}

/// The state of an object inside a server, compared with the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectState {
    /// It does not exist.
    Missing,
    /// It is as specified.
    InSync,
    /// It exists and differs.
    Differs,
    /// A user edited it, so it is kept.
    Edited,
    /// Another object is in its place.
    Foreign,
    /// It could not be read.
    Unknown,
}

/// The result of a query through the data source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryState {
    /// It was not sent.
    Unknown,
    /// It returned the database's data.
    Ok,
    /// It failed; the reason.
    Failing(String),
}

/// One server.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// The role.
    pub role: Role,
    /// How the role is served.
    pub mode: Mode,
    /// Its state.
    pub state: ServerState,
    /// An explanation of that state, if useful.
    pub detail: Option<String>,
    /// The address to use.
    pub url: String,
    /// The address for other hosts, if they can reach it.
    pub public_url: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The image of the existing container, otherwise the stack one.
    pub image: Option<String>,
    /// The existing container.
    pub container: Option<ContainerStatus>,
    /// The data volume, and whether it exists.
    pub volume: Option<(String, bool)>,
    /// Its differences from the stack.
    pub differences: Vec<Difference>,
}

/// An existing container.
#[derive(Debug, Clone)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// The engine's id for it.
    pub id: String,
    /// When it was last started, in RFC 3339 format.
    pub started_at: Option<String>,
}

/// An object inside a server.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its name or uid.
    pub name: String,
    /// Its state.
    pub state: ObjectState,
    /// Its differences from the stack.
    pub differences: Vec<Difference>,
}

/// A user's dashboard.
#[derive(Debug, Clone)]
pub struct UserDashboardStatus {
    /// Its file.
    pub path: String,
    /// Its title.
    pub title: String,
    /// Its uid, and its state compared with the file.
    pub object: Object,
    /// Its address.
    pub url: String,
    /// Parts that cannot work, and changes made for the import.
    pub limitations: Vec<String>,
}

impl UserDashboardStatus {
    /// Its limitations, each with the dashboard's title.
    pub fn remarks(&self) -> impl Iterator<Item = String> + '_ {
        self.limitations.iter().map(|why| format!("dashboard {:?}: {why}", self.title))
    }
}

impl Status {
    /// Titles and addresses of the dashboards that users edited.
    #[must_use]
    pub fn edited_dashboards(&self) -> Vec<(&str, &str)> {
        let bundled = (&self.dashboard, self.dashboard_title.as_str(), self.dashboard_url.as_str());
        let own = self.user_dashboards.iter().map(|own| (&own.object, own.title.as_str(), own.url.as_str()));
        let all = std::iter::once(bundled).chain(own);
        all.filter(|(object, ..)| object.state == ObjectState::Edited).map(|(_, title, url)| (title, url)).collect()
    }
}

/// Derives the status.
#[must_use]
pub fn summarize(stack: &Stack, seen: &Observed, plan: &Plan, reports: Reports, account: AccountStatus) -> Status {
    let object = |resource, name: &str| {
        let finding = plan.finding(resource).unwrap_or(&Finding::Unknown);
        Object { name: name.to_string(), state: object_state(finding), differences: differences(finding) }
    };
    let influxdb = server(stack, Role::Influxdb, &seen.influxdb, plan);
    let grafana = server(stack, Role::Grafana, &seen.grafana, plan);
    let query = match seen.grafana.probe.state().map(|grafana| &grafana.query) {
        Some(Query::Ok) => QueryState::Ok,
        Some(Query::Failing(why)) => QueryState::Failing(why.clone()),
        Some(Query::Unasked) | None => QueryState::Unknown,
    };
    let mut data_source = object(Resource::DataSource, &stack.data_source.uid);
    if matches!(seen.grafana.probe.state().map(|grafana| &grafana.data_source), Some(DataSourceState::Foreign(_))) {
        data_source.state = ObjectState::Foreign;
    }
    let dashboard_url = format!("{}/d/{}", grafana.url, stack.dashboard.uid);
    let user_dashboards = stack.user_dashboards.iter().enumerate().map(|(index, own)| UserDashboardStatus {
        path: own.path.clone(),
        title: own.title.clone(),
        object: object(Resource::Dashboard(DashboardId::User(index)), &own.uid),
        url: format!("{}/d/{}", grafana.url, own.uid),
        limitations: limitations(own, seen.grafana.probe.state().and_then(|grafana| grafana.catalogue.as_ref())),
    });
    let user_dashboards: Vec<UserDashboardStatus> = user_dashboards.collect();
    // Remembered settings need not be typed again.
    let is_saved = plan.finding(Resource::Settings) == Some(&Finding::InSync);
    let invocation = if is_saved { stack.invocation.saved() } else { stack.invocation.clone() };
    let command = |arguments: &str| invocation.command(arguments);
    let mut hints: Vec<String> = plan.items.iter().filter_map(|item| hint(stack, &item.finding)).collect();
    if hints.is_empty() && !plan.in_sync() {
        hints.push(format!("`{}` repairs this", command("up")));
    }
    for item in plan.items.iter().filter(|item| item.finding == Finding::Edited) {
        let replace = command("up --overwrite-dashboard");
        hints.push(match item.resource {
            Resource::Dashboard(id) => {
                let (_, title, _) = stack.dashboard_identity(id);
                format!("the dashboard {title:?} was edited and is kept; `{replace}` replaces it")
            }
            _ if stack.alerts == Alerts::Off => "edited alert rules are kept: delete them in Grafana".into(),
            _ => format!("alert rules were edited and are kept; `{replace}` replaces them"),
        });
    }
    hints.extend(lookalikes(seen));
    hints.extend(kept(plan));
    hints.extend(unreadable_dashboards(stack));
    hints.extend(user_dashboards.iter().flat_map(UserDashboardStatus::remarks));
    hints.extend(refused_image(stack));
    if let Some(upgrade) = seen.settings.upgrade.as_ref().filter(|upgrade| upgrade.state == UpgradeState::Unproven) {
        let back = command(&format!("up --grafana-image {}", upgrade.from.name));
        hints.push(format!("`{back}` restores the previous Grafana with its database"));
    }
    hints.extend(reports.hints.iter().cloned());
    hints.dedup();
    Status {
        instance: stack.instance.clone(),
        in_sync: plan.in_sync(),
        engine: seen.engine.clone(),
        database: object(Resource::Database, &stack.database),
        retention: seen.influxdb.probe.state().and_then(|influxdb| influxdb.retention),
        organisation: stack.organisation.as_ref().map(|name| object(Resource::Organisation, name)),
        data_source,
        query,
        dashboard: object(Resource::Dashboard(DashboardId::Bundled), &stack.dashboard.uid),
        dashboard_title: stack.dashboard.title.clone(),
        dashboard_url,
        user_dashboards,
        alerts: plan.finding(Resource::Alerts).map(|_| object(Resource::Alerts, &alert_times(stack))),
        forward_command: stack.forward_command(),
        reports,
        objective: objective(stack, seen),
        account,
        configured_models: named_models(stack, seen),
        clipper_file: clipper_file(stack),
        findings: findings(stack, plan),
        hints,
        others: seen.others.clone(),
        lookalikes: lookalikes(seen).collect(),
        exposures: Vec::new(),
        obstacle: plan.blocked().map(|(_, blocked)| (blocked.why.clone(), blocked.hint.clone())),
        commands: Commands {
            up: command("up"),
            down: command("down"),
            status: command("status"),
            give_password: command("up --grafana-password-file FILE"),
        },
        influxdb,
        grafana,
    }
}

/// The current latency objective: from the file, otherwise from the dashboard.
#[must_use]
pub fn objective(stack: &Stack, seen: &Observed) -> Option<u64> {
    stack.dashboard.objective.or_else(|| carried(seen)?.objective)
}

/// The models in Clipper's file: from the file, otherwise from the dashboard.
#[must_use]
pub fn named_models(stack: &Stack, seen: &Observed) -> Vec<String> {
    let models = stack.dashboard.models.clone();
    models.or_else(|| Some(carried(seen)?.models.clone())).unwrap_or_default()
}

fn carried(seen: &Observed) -> Option<&super::observed::ActualDashboard> {
    match &seen.grafana.probe.state()?.dashboard {
        super::observed::DashboardState::Present(dashboard) => Some(dashboard),
        super::observed::DashboardState::Missing
        | super::observed::DashboardState::Unreadable(_)
        | super::observed::DashboardState::Clash { .. } => None,
    }
}

/// The conditions of the alerts, in short form.
fn alert_times(stack: &Stack) -> String {
    let Some(settings) = stack.alerts.settings() else { return String::new() };
    let seconds = |rule| settings.after(rule).as_secs();
    format!(
        "p99 above the objective for {}s, no report for {}s",
        seconds(AlertRule::Latency),
        seconds(AlertRule::Silence)
    )
}

/// The warning that other hosts on the engine's network can reach ports published on loopback, with
/// the command that prevents it. The command's rule drops new connections forwarded to the
/// instance's network, so the engine's host can still connect.
#[must_use]
pub fn exposed_loopback(stack: &Stack, seen: &Observed) -> Option<String> {
    let engine = seen.engine.as_ref().filter(|engine| engine.exposes_loopback() == Some(true))?;
    let on_loopback = |role: &Role| stack.container(*role).is_some_and(|spec| !spec.config.is_open());
    let roles: Vec<Role> = Role::ALL.into_iter().filter(on_loopback).collect();
    let bridge = format!("br-{}", seen.network.id()?.chars().take(12).collect::<String>());
    let ports: Vec<String> = roles.iter().map(|role| role.port().to_string()).collect();
    let titles: Vec<&str> = roles.iter().map(|role| role.title()).collect();
    (!roles.is_empty()).then(|| {
        format!(
            "other hosts on the engine's network can reach {} on loopback: this is Docker {}, and Docker 28.0 closes \
             that; until the next `down`, `sudo iptables --insert DOCKER-USER ! --in-interface {bridge} \
             --out-interface {bridge} --protocol tcp --match multiport --destination-ports {} --match conntrack \
             --ctstate NEW --jump DROP` on the engine's host closes it as well (docs/security.md)",
            titles.join(" and "),
            engine.version,
            ports.join(","),
        )
    })
}

/// A hint for each container that carries the instance's labels but does not belong to it.
fn lookalikes(seen: &Observed) -> impl Iterator<Item = String> + '_ {
    seen.lookalikes.iter().map(|name| {
        format!(
            "container {name} carries this instance's labels but was not created by clipper-metrics; it is left alone"
        )
    })
}

/// Parts of a user's dashboard that cannot work in this Grafana, and changes made for its import.
fn limitations(own: &DesiredUserDashboard, catalogue: Option<&Catalogue>) -> Vec<String> {
    let mut found = own.notes.clone();
    for Need { by, object } in &own.needs {
        let why = match (object, catalogue) {
            (NeededObject::DataSource(name), Some(catalogue)) if !catalogue.has_source(name) => {
                format!("{by} uses the data source {name:?}, which Grafana does not have: create it there")
            }
            (NeededObject::PanelType(kind), Some(catalogue)) if catalogue.lacks_panel_type(kind) => {
                format!("{by} needs {}", missing_plugin(kind))
            }
            _ => continue,
        };
        found.push(why);
    }
    found
}

/// The message about a missing panel plugin, with instructions to install it.
#[must_use]
pub fn missing_plugin(kind: &str) -> String {
    format!(
        "the panel plugin {kind:?}, which Grafana does not have: install it (grafana cli plugins install {}) and \
         restart Grafana, or choose another visualization",
        shell_word(kind)
    )
}

/// A sentence for each object that is kept although it is not needed.
pub fn kept(plan: &Plan) -> impl Iterator<Item = String> + '_ {
    plan.kept().map(|kept| format!("{}; {}", kept.why, kept.hint))
}

/// A hint for each remembered file that cannot be used.
#[must_use]
pub fn unreadable_dashboards(stack: &Stack) -> Vec<String> {
    let unreadable = stack.unreadable_dashboards.iter();
    let mut left: String = stack.user_dashboards.iter().map(|own| typed_option("--dashboard", &own.path)).collect();
    if left.is_empty() {
        left = " --dashboard ''".into();
    }
    let take_back = stack.command(&format!("up{left}"));
    unreadable
        .map(|why| format!("{why}; its dashboard in Grafana stays unchanged; `{take_back}` removes the file"))
        .collect()
}

/// The hint that an image failed, with the command that tries it again.
#[must_use]
pub fn refused_image(stack: &Stack) -> Option<String> {
    let refused = stack.refused_image.as_ref()?;
    let again = stack.command(&format!("up --grafana-image {refused}"));
    Some(format!("Grafana's image {refused} failed and is not used; `{again}` tries it again"))
}

fn findings(stack: &Stack, plan: &Plan) -> Vec<String> {
    let matters =
        |finding: &Finding| !matches!(finding, Finding::InSync | Finding::Edited | Finding::Kept(_) | Finding::Unknown);
    plan.items
        .iter()
        .filter(|item| matters(&item.finding))
        .map(|item| match item.resource {
            Resource::Dashboard(id @ DashboardId::User(_)) => {
                format!("dashboard {:?}: {}", stack.dashboard_identity(id).1, item.finding)
            }
            resource => format!("{resource}: {}", item.finding),
        })
        .collect()
}

fn hint(stack: &Stack, finding: &Finding) -> Option<String> {
    match finding {
        Finding::Blocked(Blocker { hint, .. }) => Some(hint.clone()),
        Finding::Unreadable(Unreadable { status: 403, .. }) => {
            Some("sign in to Grafana with an account that can read it, such as an administrator's".into())
        }
        Finding::Unreadable(_) if stack.container(Role::Grafana).is_some() => {
            Some(format!("check the log with `{}`", stack.command("logs grafana")))
        }
        Finding::Unreadable(_) => Some("check Grafana's log".into()),
        _ => None,
    }
}

const fn object_state(finding: &Finding) -> ObjectState {
    match finding {
        Finding::InSync => ObjectState::InSync,
        Finding::Edited => ObjectState::Edited,
        Finding::Missing => ObjectState::Missing,
        Finding::Differs(_) | Finding::Contradicts(_) | Finding::Requested(_) => ObjectState::Differs,
        Finding::Blocked(Blocker { kind: BlockReason::Foreign | BlockReason::Conflict, .. }) => ObjectState::Foreign,
        Finding::Stopped(_)
        | Finding::Silent(_)
        | Finding::Unknown
        | Finding::Kept(_)
        | Finding::Unreadable(_)
        | Finding::Blocked(_) => ObjectState::Unknown,
    }
}

fn differences(finding: &Finding) -> Vec<Difference> {
    match finding {
        Finding::Differs(differences) => differences.clone(),
        _ => Vec::new(),
    }
}

/// The actual address of a server, while it differs from the stack one.
#[must_use]
pub fn actual_url<S>(stack: &Stack, role: Role, seen: &ObservedServer<S>) -> ServerUrl {
    let actual = seen.container.ours();
    let published = actual.and_then(|actual| actual.published.or(Some(actual.config.as_ref()?.publish)));
    match (stack.container(role), published) {
        (Some(spec), Some(at)) if at != spec.config.publish => spec.url_at(at.ip(), at.port()),
        _ => stack.url(role),
    }
}

fn server<S>(stack: &Stack, role: Role, seen: &ObservedServer<S>, plan: &Plan) -> ServerStatus {
    let finding = plan.finding(Resource::Server(role)).unwrap_or(&Finding::Unknown);
    let (state, detail) = server_state(stack, role, seen);
    let spec = stack.container(role);
    let actual = seen.container.ours();
    let url = actual_url(stack, role, seen);
    let image = actual.and_then(|actual| Some(actual.config.as_ref()?.image.to_string()));
    ServerStatus {
        role,
        mode: if spec.is_some() { Mode::Container } else { Mode::External },
        state,
        detail: match finding {
            Finding::Blocked(blocked) => Some(blocked.why.clone()),
            _ => detail,
        },
        url: url.to_string(),
        public_url: stack.public_url(role).map(|url| url.to_string()),
        version: seen.version.clone(),
        image: image.or_else(|| spec.map(|spec| spec.config.image.to_string())),
        container: actual.map(|actual| ContainerStatus {
            name: actual.name.clone(),
            id: actual.id.clone(),
            started_at: actual.started_at.clone(),
        }),
        volume: (spec.is_some() || seen.volume != VolumeState::Absent)
            .then(|| (role.object_name(&stack.instance), matches!(seen.volume, VolumeState::Ours { .. }))),
        differences: differences(finding),
    }
}

fn server_state<S>(stack: &Stack, role: Role, seen: &ObservedServer<S>) -> (ServerState, Option<String>) {
    let service = stack.service(role);
    let crashing = || {
        let logs = stack.command(&format!("logs {role}"));
        (ServerState::Crashing, Some(format!("its container keeps crashing; `{logs}` shows why")))
    };
    if let (Service::Container(_), container) = (service, &seen.container) {
        match container {
            ContainerState::Absent => return (ServerState::Absent, None),
            ContainerState::Foreign => return (ServerState::Foreign, None),
            ContainerState::Duplicated(names) => return (ServerState::Foreign, Some(names.join(", "))),
            ContainerState::Ours(actual) => match actual.run {
                RunState::Running => {}
                RunState::Created => return (ServerState::Stopped, Some("never started".into())),
                RunState::Paused => return (ServerState::Stopped, Some("paused".into())),
                RunState::Restarting => return crashing(),
                RunState::Exited(code) => return (ServerState::Stopped, Some(format!("exit code {code}"))),
                RunState::Dead => return (ServerState::Stopped, Some("dead".into())),
            },
        }
    }
    let is_container = matches!(service, Service::Container(_));
    match &seen.probe {
        ServerResponse::Answering(_) => (ServerState::Answering, None),
        ServerResponse::Refusing(message) => (ServerState::Refusing, Some(message.clone())),
        ServerResponse::Unusable(what) => (ServerState::Foreign, Some(what.clone())),
        ServerResponse::NotTheContainer => (ServerState::Foreign, Some("another server answers at its address".into())),
        ServerResponse::Starting(why) => (ServerState::Starting, Some(why.clone())),
        // A crashing server runs for a moment between two crashes.
        ServerResponse::Silent(_)
            if is_container && seen.container.ours().is_some_and(|actual| actual.crashes_repeatedly) =>
        {
            crashing()
        }
        ServerResponse::Silent(why) if is_container => (ServerState::Starting, Some(why.clone())),
        ServerResponse::Silent(why) => (ServerState::Unknown, Some(why.clone())),
        ServerResponse::Unasked => (ServerState::Unknown, None),
    }
}

/// The host and the database that Clipper writes to without a configuration file.
const CLIPPER_DEFAULTS: (&str, &str) = ("127.0.0.1", "clipper");

/// What Clipper's file must contain, compared with the supplied file.
pub(crate) fn clipper_file(stack: &Stack) -> ClipperSettings {
    if let Some(why) = beyond_clipper(stack) {
        return ClipperSettings::Impossible(why);
    }
    let url = stack.url(Role::Influxdb);
    let clipper = stack.clipper.as_ref();
    if clipper.is_some_and(|target| target.agrees(stack)) {
        return ClipperSettings::Agree;
    }
    let (default_host, default_database) = CLIPPER_DEFAULTS;
    let is_default = url.host_for_clipper() == default_host
        && url.port == Role::Influxdb.port()
        && stack.database == default_database;
    if clipper.is_none() && is_default {
        let address = format!("{default_host}:{}", url.port);
        return ClipperSettings::Defaults { address, database: stack.database.clone() };
    }
    let is_reached = clipper.is_some_and(|target| target.reaches(stack));
    let lines = [
        (
            clipper.is_some_and(|target| target.database == stack.database),
            format!("influx_dbname = {}", toml_string(&stack.database)),
        ),
        (
            is_reached || clipper.is_some_and(|target| target.host == url.host),
            format!("influx_ip = {}", toml_string(url.host_for_clipper())),
        ),
        (is_reached || clipper.is_some_and(|target| target.port == url.port), format!("influx_port = {}", url.port)),
    ];
    ClipperSettings::Lines(lines.into_iter().filter(|(is_there, _)| !is_there).map(|(_, line)| line).collect())
}

/// The reason why Clipper cannot write to the stack's InfluxDB, if there is one.
#[must_use]
pub fn beyond_clipper(stack: &Stack) -> Option<String> {
    let url = stack.url(Role::Influxdb);
    let what = if url.tls {
        "https"
    } else if !url.path.is_empty() {
        "a path"
    } else if !stack.data_source.user.is_empty() {
        "a user and password"
    } else {
        return None;
    };
    Some(format!(
        "InfluxDB at {url} needs {what}, but Clipper sends its reports over plain HTTP to a host and port, without \
         credentials: put a proxy that Clipper can reach in front of it, or use an InfluxDB without that requirement"
    ))
}

impl ClipperTarget {
    /// Whether Clipper's reports arrive in the stack's database.
    #[must_use]
    pub fn agrees(&self, stack: &Stack) -> bool {
        self.reaches(stack) && self.database == stack.database
    }

    /// Whether the address in Clipper's file is the stack's InfluxDB.
    #[must_use]
    pub fn reaches(&self, stack: &Stack) -> bool {
        // Inside the instance's network, a container is reached by its name.
        if let Some(spec) = stack.container(Role::Influxdb)
            && self.host == spec.name
        {
            return self.port == Role::Influxdb.port();
        }
        let url = stack.url(Role::Influxdb);
        let published = stack.container(Role::Influxdb).map(|spec| spec.config.publish.ip());
        let same_host = self.host == url.host
            || self.addresses.iter().any(|ip| {
                published.is_some_and(|published| {
                    published == *ip
                        || (published.is_unspecified() && self.is_open_at(published, *ip))
                        || (ip.is_unspecified() && published.is_loopback())
                }) || url.host.parse() == Ok(*ip)
                    || (url.host.parse::<IpAddr>().is_err() && url.is_loopback() && ip.is_loopback())
            });
        same_host && self.port == url.port
    }
}

impl ClipperTarget {
    /// Whether a port published at the wildcard is reachable at this address of the engine's host.
    fn is_open_at(&self, wildcard: IpAddr, ip: IpAddr) -> bool {
        self.on_engine.contains(&ip) && (wildcard.is_ipv6() || ip.is_ipv4())
    }
}

/// A basic string of TOML. The names passed here contain no control characters.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
