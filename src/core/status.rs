//! What is told of a stack: states by name, made of one plan and the snapshot behind it.
//!
//! Knows the words of the JSON. Must not know how they are laid out.

use super::observed::{Answer, Container, DataSource, Engine, Observed, Query, Run, Server, Volume};
use super::plan::{Blocked, Finding, Obstacle, Plan, Resource};
use super::reports::Reports;
use super::stack::{Difference, Role, Secret, Service, Stack, bracketed};

/// Everything that `status` tells.
#[derive(Debug, Clone)]
pub struct Status {
    /// The instance.
    pub instance: String,
    /// Nothing to do and nothing in the way.
    pub in_sync: bool,
    /// The engine, where there is one.
    pub engine: Option<Engine>,
    /// InfluxDB.
    pub influxdb: ServerStatus,
    /// Grafana.
    pub grafana: ServerStatus,
    /// The database.
    pub database: Object,
    /// Grafana's organisation, if one is wanted.
    pub organisation: Option<Object>,
    /// The data source.
    pub data_source: Object,
    /// What a query through the data source says: `ok`, `failing`, or unknown.
    pub query: Option<&'static str>,
    /// Why it fails.
    pub query_error: Option<String>,
    /// The dashboard.
    pub dashboard: Object,
    /// Where the dashboard is opened.
    pub dashboard_url: String,
    /// What Clipper reports.
    pub reports: Reports,
    /// The latency objective that the dashboard shows, in microseconds.
    pub objective: Option<u64>,
    /// Grafana's account, with the password only where it was asked for.
    pub account: Account,
    /// The lines that Clipper's file must hold, if it does not.
    pub clipper_lines: Vec<String>,
    /// Everything that does not match, a line each.
    pub findings: Vec<String>,
    /// What the user can do.
    pub hints: Vec<String>,
    /// Other instances on this engine.
    pub others: Vec<String>,
}

/// How to sign in to Grafana.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user.
    pub user: String,
    /// The password, if it may be shown.
    pub password: Option<Secret>,
    /// It is Grafana's own default.
    pub is_default: bool,
    /// The server is ours, so the account is known.
    pub is_known: bool,
}

/// One server.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// Which.
    pub role: Role,
    /// `container` or `external`.
    pub mode: &'static str,
    /// `absent`, `stopped`, `starting`, `answering`, `refusing`, `foreign` or `unknown`.
    pub state: &'static str,
    /// Why it is in that state, where that is worth a word.
    pub detail: Option<String>,
    /// The address to use.
    pub url: String,
    /// Its version.
    pub version: Option<String>,
    /// The image of the container that is there, else the wanted one.
    pub image: Option<String>,
    /// The container that is there.
    pub container: Option<ContainerStatus>,
    /// The volume with its data, and whether it is there.
    pub volume: Option<(String, bool)>,
    /// How it differs from what is wanted.
    pub differences: Vec<Difference>,
}

/// A container that is there.
#[derive(Debug, Clone)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// The engine's id of it.
    pub id: String,
    /// When it was started last, RFC 3339.
    pub started_at: Option<String>,
}

/// One thing inside a server.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its name or uid.
    pub name: String,
    /// `missing`, `in_sync`, `differs`, `edited`, `foreign` or `unknown`.
    pub state: &'static str,
    /// How it differs from what is wanted.
    pub differences: Vec<Difference>,
}

/// What is told of a stack.
#[must_use]
pub fn tell(want: &Stack, seen: &Observed, plan: &Plan, reports: Reports, account: Account) -> Status {
    let object = |resource, name: &str| {
        let finding = plan.finding(resource).unwrap_or(&Finding::Unknown);
        Object { name: name.to_string(), state: object_state(finding), differences: differences(finding) }
    };
    let influxdb = server(want, Role::Influxdb, &seen.influxdb, plan);
    let grafana = server(want, Role::Grafana, &seen.grafana, plan);
    let (query, query_error) = match seen.grafana.answer.stored().map(|grafana| &grafana.query) {
        Some(Query::Ok) => (Some("ok"), None),
        Some(Query::Failing(why)) => (Some("failing"), Some(why.clone())),
        _ => (None, None),
    };
    let mut data_source = object(Resource::DataSource, &want.data_source.uid);
    if matches!(seen.grafana.answer.stored().map(|grafana| &grafana.data_source), Some(DataSource::Foreign(_))) {
        data_source.state = "foreign";
    }
    let dashboard_url = format!("{}/d/{}", grafana.url, want.dashboard.uid);
    let mut hints: Vec<String> = plan.0.iter().filter_map(|item| hint(&item.finding)).collect();
    if hints.is_empty() && !plan.in_sync() {
        hints.push("`clipper-metrics up` puts this right".into());
    }
    if plan.0.iter().any(|item| item.finding == Finding::Edited) {
        hints.push("the dashboard was edited and is left alone; `up --overwrite-dashboard` replaces it".into());
    }
    hints.extend(reports.hints.iter().cloned());
    hints.dedup();
    Status {
        instance: want.instance.clone(),
        in_sync: plan.in_sync(),
        engine: seen.engine.clone(),
        database: object(Resource::Database, &want.database),
        organisation: want.organisation.as_ref().map(|name| object(Resource::Organisation, name)),
        data_source,
        query,
        query_error,
        dashboard: object(Resource::Dashboard, &want.dashboard.uid),
        dashboard_url,
        reports,
        objective: objective(want, seen),
        account,
        clipper_lines: clipper_lines(want, &influxdb.url),
        findings: findings(plan),
        hints,
        others: seen.others.clone(),
        influxdb,
        grafana,
    }
}

/// The latency objective in force: the file's, else what the dashboard carries.
#[must_use]
pub fn objective(want: &Stack, seen: &Observed) -> Option<u64> {
    want.dashboard.objective.or_else(|| carried(seen)?.objective)
}

/// The models that Clipper's file names: from the file, else from the dashboard.
#[must_use]
pub fn named_models(want: &Stack, seen: &Observed) -> Vec<String> {
    let models = want.dashboard.models.clone();
    models.or_else(|| Some(carried(seen)?.models.clone())).unwrap_or_default()
}

fn carried(seen: &Observed) -> Option<&super::observed::SeenDashboard> {
    match &seen.grafana.answer.stored()?.dashboard {
        super::observed::Dashboard::Present(dashboard) => Some(dashboard),
        super::observed::Dashboard::Missing => None,
    }
}

fn findings(plan: &Plan) -> Vec<String> {
    let told = |finding: &Finding| !matches!(finding, Finding::InSync | Finding::Edited | Finding::Unknown);
    plan.0
        .iter()
        .filter(|item| told(&item.finding))
        .map(|item| format!("{}: {}", item.resource, item.finding))
        .collect()
}

fn hint(finding: &Finding) -> Option<String> {
    match finding {
        Finding::Blocked(Blocked { hint, .. }) => Some(hint.clone()),
        _ => None,
    }
}

fn object_state(finding: &Finding) -> &'static str {
    match finding {
        Finding::InSync => "in_sync",
        Finding::Edited => "edited",
        Finding::Missing => "missing",
        Finding::Differs(_) | Finding::Contradicts(_) | Finding::Asked(_) => "differs",
        Finding::Blocked(Blocked { kind: Obstacle::Foreign, .. }) => "foreign",
        Finding::Stopped(_) | Finding::Silent(_) | Finding::Unknown | Finding::Blocked(_) => "unknown",
    }
}

fn differences(finding: &Finding) -> Vec<Difference> {
    match finding {
        Finding::Differs(differences) => differences.clone(),
        _ => Vec::new(),
    }
}

fn server<S>(want: &Stack, role: Role, seen: &Server<S>, plan: &Plan) -> ServerStatus {
    let finding = plan.finding(Resource::Server(role)).unwrap_or(&Finding::Unknown);
    let (state, detail) = server_state(want.service(role), seen);
    let spec = want.container(role);
    let have = seen.container.ours();
    let published = have.and_then(super::observed::OurContainer::publish);
    let url = match (spec, published) {
        // Where it really is, as long as it is not as wanted.
        (Some(spec), Some(at)) if at != spec.publish() => {
            let host = if at.ip().is_unspecified() { spec.reach.clone() } else { at.ip().to_string() };
            format!("http://{}:{}", bracketed(&host), at.port())
        }
        _ => want.url(role),
    };
    let image = have.and_then(|have| have.fields.as_ref()?.get("image").cloned());
    ServerStatus {
        role,
        mode: if spec.is_some() { "container" } else { "external" },
        state,
        detail: match finding {
            Finding::Blocked(blocked) => Some(blocked.why.clone()),
            _ => detail,
        },
        url,
        version: seen.version.clone(),
        image: image.or_else(|| spec.map(|spec| spec.image.clone())),
        container: have.zip(spec).map(|(have, spec)| ContainerStatus {
            name: spec.name.clone(),
            id: have.id.clone(),
            started_at: have.started_at.clone(),
        }),
        volume: spec.map(|spec| (spec.name.clone(), matches!(seen.volume, Volume::Ours { .. }))),
        differences: differences(finding),
    }
}

fn server_state<S>(service: &Service, seen: &Server<S>) -> (&'static str, Option<String>) {
    if let (Service::Container(_), container) = (service, &seen.container) {
        match container {
            Container::Absent => return ("absent", None),
            Container::Foreign => return ("foreign", None),
            Container::Ours(have) => match have.run {
                Run::Running => {}
                Run::Created => return ("stopped", Some("never started".into())),
                Run::Paused => return ("stopped", Some("paused".into())),
                Run::Restarting => return ("starting", Some("restarting again and again".into())),
                Run::Exited(code) => return ("stopped", Some(format!("exit code {code}"))),
                Run::Dead => return ("stopped", Some("dead".into())),
            },
        }
    }
    let is_container = matches!(service, Service::Container(_));
    match &seen.answer {
        Answer::Answering(_) => ("answering", None),
        Answer::Refusing(words) => ("refusing", Some(words.clone())),
        Answer::Unusable(what) => ("foreign", Some(what.clone())),
        Answer::Silent(why) if is_container => ("starting", Some(why.clone())),
        Answer::Silent(why) => ("unknown", Some(why.clone())),
        Answer::Unasked => ("unknown", None),
    }
}

/// The lines that Clipper's file must hold, unless the one that was given holds them.
fn clipper_lines(want: &Stack, url: &str) -> Vec<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "80"));
    let port = port.trim_end_matches('/');
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let agrees = want.clipper.as_ref().is_some_and(|target| {
        let same_host = target.host == host
            || (target.host == "localhost" && host == "127.0.0.1")
            || matches!(target.host.as_str(), "0.0.0.0" | "::");
        same_host && target.port.to_string() == port && target.database == want.database
    });
    if agrees {
        return Vec::new();
    }
    vec![
        format!("influx_dbname = {}", toml_string(&want.database)),
        format!("influx_ip = {}", toml_string(host)),
        format!("influx_port = {port}"),
    ]
}

/// A basic string of TOML. The names that get here hold no control characters.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
