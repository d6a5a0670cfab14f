//! The desired state of one instance, built from its settings.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::{ServerUrl, bracketed, reachable};
use super::alerts::Alerts;
use super::clipper_file::ClipperTarget;
use super::container_config::ContainerConfig;
use super::image::ImageRef;
use super::invocation::Invocation;
use super::lost_settings::Lost;
use super::retention::Retention;
use super::role::{PerRole, Role};
use super::upgrade::{Upgrade, UpgradeState};

/// A password or token, which `Debug` hides so that it cannot slip into a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text of a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one request or file that needs it.
    #[must_use]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The desired state that `up` establishes and `status` compares with.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The instance's name.
    pub instance: String,
    pub services: PerRole<Service>,
    /// The database that Clipper writes to, named by Clipper's rule.
    pub database: String,
    /// Its retention period; `None` leaves the current one unchanged.
    pub retention: Option<Retention>,
    /// Grafana's organisation; `None` means the main one.
    pub organisation: Option<String>,
    /// Title of the folder for new dashboards, if any.
    pub folder: Option<String>,
    /// Grafana's connection to the database.
    pub data_source: DesiredDataSource,
    /// The bundled dashboard.
    pub dashboard: DesiredDashboard,
    pub user_dashboards: Vec<DesiredUserDashboard>,
    /// Remembered dashboard files that cannot be used now, with the reason; their dashboards in
    /// Grafana stay unchanged.
    pub unreadable_dashboards: Vec<String>,
    /// The alert rules.
    pub alerts: Alerts,
    /// The login to Grafana.
    pub login: Login,
    /// The settings to remember with the instance; `None` without an engine.
    pub settings: Option<Settings>,
    /// The restore that this run carries out.
    pub restore: Option<UnfinishedRestore>,
    /// The default image of Grafana.
    pub default_image: String,
    /// The desired image of Grafana that is not used because it failed.
    pub failed_image: Option<ImageRef>,
    /// When images are pulled.
    pub pull: Pull,
    /// The limit for waiting on servers, after the pulls.
    pub timeout: Duration,
    pub engine: EngineLocation,
    /// The address in Clipper's file, if one was supplied.
    pub clipper: Option<ClipperTarget>,
    /// Builds suggested commands that reach this instance.
    pub invocation: Invocation,
    /// This machine's address for other hosts, if a server is published at a wildcard.
    pub own_address: Option<IpAddr>,
}

impl Stack {
    /// A complete command to suggest, which reaches the same instance as typed.
    #[must_use]
    pub(crate) fn command(&self, arguments: &str) -> String {
        self.invocation.command(arguments)
    }

    /// The server in the role `role`.
    #[must_use]
    pub(crate) const fn service(&self, role: Role) -> &Service {
        self.services.get(role)
    }

    /// The container of `role`, unless an external server has that role.
    #[must_use]
    pub const fn container(&self, role: Role) -> Option<&DesiredContainer> {
        self.service(role).container()
    }

    /// Whether the data source at `actual_url` keeps its settings for a proxy, which only the user knows: there may be
    /// one between Grafana and InfluxDB, and no other server gets its credentials.
    #[must_use]
    pub(crate) fn keeps_proxy_settings(&self, actual_url: &str) -> bool {
        let may_have_proxy = self.container(Role::Influxdb).is_none() || self.data_source.is_url_chosen;
        may_have_proxy && server_of(actual_url).eq_ignore_ascii_case(server_of(&self.data_source.url))
    }

    /// The address at which a browser or Clipper reaches `role`.
    #[must_use]
    pub(crate) fn url(&self, role: Role) -> ServerUrl {
        match self.service(role) {
            Service::Container(spec) => spec.url(),
            Service::External { url } => url.clone(),
        }
    }

    /// The address at which other hosts reach `role`; `None` if they cannot.
    #[must_use]
    pub(crate) fn public_url(&self, role: Role) -> Option<ServerUrl> {
        let spec = self.container(role)?;
        let publish = spec.config.publish;
        if publish.ip().is_loopback() {
            return None;
        }
        if spec.engine_host.is_some() || !publish.ip().is_unspecified() {
            return Some(spec.url());
        }
        let own = self.own_address.filter(|own| own.is_ipv4() == publish.ip().is_ipv4())?;
        Some(ServerUrl::http(own.to_string(), publish.port()))
    }

    /// The command that forwards the dashboard to this machine, if Grafana listens on the loopback
    /// of an engine behind ssh.
    #[must_use]
    pub(crate) fn forward_command(&self) -> Option<String> {
        let EngineLocation::OverSsh { forward, .. } = &self.engine else { return None };
        let publish = self.container(Role::Grafana)?.config.publish;
        publish.ip().is_loopback().then(|| forward.command(publish))
    }

    /// All dashboards, the bundled one first.
    pub(crate) fn dashboards(&self) -> impl Iterator<Item = DashboardId> + use<> {
        std::iter::once(DashboardId::Bundled).chain((0..self.user_dashboards.len()).map(DashboardId::User))
    }

    /// The uid, title and file fingerprint of a dashboard.
    #[must_use]
    pub(crate) fn dashboard_identity(&self, id: DashboardId) -> (&str, &str, &str) {
        match id {
            DashboardId::Bundled => (&self.dashboard.uid, &self.dashboard.title, &self.dashboard.content_hash),
            DashboardId::User(index) => {
                let own = &self.user_dashboards[index];
                (&own.uid, &own.title, &own.content_hash)
            }
        }
    }

    /// A longer time limit than that of this run, to suggest.
    #[must_use]
    pub(crate) fn longer_timeout(&self) -> Duration {
        Duration::from_secs(600).max(self.timeout.saturating_mul(2))
    }

    /// The same stack with the previous image of an upgrade that is given up.
    #[must_use]
    pub(crate) fn with_previous_image(&self, upgrade: &Upgrade) -> Self {
        let mut stack = self.clone();
        if let Service::Container(spec) = &mut stack.services.grafana {
            spec.config.image = upgrade.from.name.clone();
            spec.config.read_only = upgrade.from.name.to_string() == stack.default_image;
            spec.pinned_image = upgrade.pinned().cloned();
        }
        // The supplied password was tried and stored before, and is restored with the database.
        (stack.login.is_untried, stack.login.supplies_password) = (false, false);
        stack.failed_image = (upgrade.state == UpgradeState::Failed).then(|| upgrade.to.name.clone());
        stack
    }

    /// Whether a container serves at least one role.
    #[must_use]
    pub(crate) fn needs_engine(&self) -> bool {
        Role::ALL.iter().any(|role| self.container(*role).is_some())
    }
}

/// The scheme, host and port of a URL.
fn server_of(url: &str) -> &str {
    let path = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
    &url[..path]
}

/// The server of one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// A managed container.
    Container(Box<DesiredContainer>),
    /// An external server, which is configured but never started or stopped.
    External {
        /// Its base address.
        url: ServerUrl,
    },
}

impl Service {
    /// The managed container, unless the server is external.
    pub(crate) const fn container(&self) -> Option<&DesiredContainer> {
        match self {
            Self::Container(spec) => Some(spec),
            Self::External { .. } => None,
        }
    }
}

/// The location of the engine's published ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineLocation {
    /// On this machine.
    Here,
    /// On another machine with this name, whose loopback is not this machine's.
    Elsewhere(String),
    /// On another machine, whose addresses, including loopback, are reached through ssh.
    OverSsh {
        /// Its name.
        host: String,
        /// Forwards Grafana's port to this machine.
        forward: SshForward,
    },
}

/// Builds the command that forwards a port of the engine's loopback to this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshForward {
    /// The part after the ports: options and host.
    pub destination: String,
}

impl SshForward {
    /// The command that forwards an address there to the same port here.
    #[must_use]
    pub(crate) fn command(&self, there: SocketAddr) -> String {
        let port = there.port();
        format!("ssh -N -L {port}:{}:{port} {}", bracketed(&there.ip().to_string()), self.destination)
    }
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Only when the engine does not have it.
    Missing,
    /// On every run; a changed image replaces the container.
    Always,
    /// Never; a missing image is an error.
    Never,
}

/// The desired container of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredContainer {
    /// The server that runs in it.
    pub role: Role,
    pub name: String,
    pub config: ContainerConfig,
    /// The engine's host, unless it is this machine.
    pub engine_host: Option<String>,
    /// The engine's id of the image, if the image's name now belongs to another image.
    pub pinned_image: Option<String>,
}

impl DesiredContainer {
    /// The address to open or to write to.
    #[must_use]
    pub(crate) fn url(&self) -> ServerUrl {
        let publish = self.config.publish;
        self.url_at(publish.ip(), publish.port())
    }

    /// The address at which a container published at `ip` is reached from here. It may be published
    /// elsewhere than this configuration says.
    #[must_use]
    pub(crate) fn url_at(&self, ip: IpAddr, port: u16) -> ServerUrl {
        match &self.engine_host {
            Some(host) if ip.is_unspecified() => ServerUrl::http(host, port),
            _ => ServerUrl::http(reachable(ip).to_string(), port),
        }
    }
}

/// The login to Grafana, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user, unless a token is used.
    pub user: String,
    /// Whether a token is used.
    pub uses_token: bool,
    /// Whether this run was given a password.
    pub supplies_password: bool,
    /// Whether this run was given a password or a different user. Such a login is tried before
    /// anything is changed for it.
    pub is_untried: bool,
}

impl Login {
    /// Grafana's default administrator.
    pub const ADMIN: &str = "admin";
    /// That administrator's initial password, which is public.
    pub const PUBLIC_PASSWORD: &str = "admin";
    /// The shortest password that Grafana accepts, in characters.
    pub(crate) const SHORTEST_PASSWORD: usize = 4;

    /// Whether Grafana accepts the password and a file can hold it on one line.
    #[must_use]
    pub(crate) fn is_password(text: &str) -> bool {
        text.chars().count() >= Self::SHORTEST_PASSWORD && !text.contains(char::is_control)
    }

    /// Whether signing in shows that admin/admin is rejected.
    #[must_use]
    pub(crate) fn is_admin(&self) -> bool {
        !self.uses_token && self.user == Self::ADMIN
    }
}

/// The settings supplied to this instance, to be remembered with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// By the option's name.
    pub values: BTreeMap<String, Remembered>,
    /// The stored values that they were merged from; `None` if none could be read.
    pub merged_from: Option<BTreeMap<String, Remembered>>,
    /// Set if remembered settings were lost although the instance exists.
    pub lost: Option<Lost>,
}

impl Settings {
    /// The values to store before this run's retention period is confirmed: the stored one is kept.
    #[must_use]
    pub(crate) fn keep_retention(&self, stored: Option<&BTreeMap<String, Remembered>>) -> BTreeMap<String, Remembered> {
        let mut values = self.values.clone();
        values.remove(Retention::SETTING);
        let kept = stored.and_then(|stored| stored.get_key_value(Retention::SETTING));
        values.extend(kept.map(|(name, retention)| (name.clone(), retention.clone())));
        values
    }

    /// Whether another run stored or removed values meanwhile: the stored ones are neither those that these were merged
    /// from nor those that this run stores.
    #[must_use]
    pub(crate) fn are_outdated(&self, stored: Option<&BTreeMap<String, Remembered>>) -> bool {
        // The source of a value alone is not a change.
        let before = self.merged_from.as_ref();
        let own = [&self.values, &self.keep_retention(before)].map(|values| Some(texts(values)));
        let stored = stored.map(texts);
        stored != before.map(texts) && !own.contains(&stored)
    }
}

/// The texts of remembered settings, without their sources.
#[must_use]
pub(crate) fn texts(values: &BTreeMap<String, Remembered>) -> BTreeMap<String, String> {
    values.iter().map(|(name, remembered)| (name.clone(), remembered.value.clone())).collect()
}

/// A remembered setting.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Remembered {
    /// The value as supplied.
    pub value: String,
    /// Whether a file supplied it. A later run with a file that does not contain it drops it.
    pub from_file: bool,
}

/// A restore, from its start until all its data is restored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct UnfinishedRestore {
    /// The run that performs it.
    pub id: String,
    /// The path of the archive.
    pub archive: String,
    /// The digest of the archive's manifest, which holds the digests of its files.
    pub digest: String,
    /// The machine on which that run was started.
    pub machine: String,
    /// Its process id there.
    pub process: u32,
    /// The kernel's name of the system or container in which that id is valid; empty if unknown.
    pub process_space: String,
    /// The retention period to set, which is not confirmed yet.
    pub retention: Option<Remembered>,
}

impl UnfinishedRestore {
    /// Whether both restore the same archive. Another archive may have been copied to the same path.
    #[must_use]
    pub(crate) fn is_of_same(&self, other: &Self) -> bool {
        (&self.archive, &self.digest) == (&other.archive, &other.digest)
    }
}

/// A restore with the settings that it writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RestoreRecord {
    /// The settings to remember, by the option's name, without the retention period, which `up` has to confirm first.
    pub values: BTreeMap<String, Remembered>,
    pub restore: UnfinishedRestore,
    /// The unfinished restore that it takes over.
    pub replaced: Option<UnfinishedRestore>,
}

/// The data source, reduced to the fields that clipper-metrics sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredDataSource {
    /// Its stable uid, which panels refer to.
    pub uid: String,
    /// The name shown in Grafana.
    pub name: String,
    /// InfluxDB's address as Grafana's server sees it.
    pub url: String,
    /// Whether the user supplied that address, so that it may belong to a proxy.
    pub is_url_chosen: bool,
    pub database: String,
    /// InfluxDB's user, if it requires a login.
    pub user: String,
    /// The fingerprints of the machine whose loopback `url` is on, each with its kind and separated by spaces, if that
    /// address was derived: the same address on another machine is another InfluxDB.
    pub machine: Option<String>,
}

/// The InfluxDB and database that an object in Grafana was created for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct MadeFor {
    /// InfluxDB's address as Grafana's server reaches it.
    pub url: String,
    pub database: String,
    /// The machine whose loopback the address is on, as in [`DesiredDataSource::machine`]; `None` if it does not matter, or in
    /// the mark of an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

impl MadeFor {
    /// The fingerprint of a machine that has none. Two such machines cannot be distinguished.
    pub(crate) const UNKNOWN_MACHINE: &str = "unknown";
    /// The kinds of fingerprints: of machine-id(5), of Docker's number for an engine, and of the name of an engine's host.
    pub(crate) const MACHINE_ID: &str = "machine";
    pub(crate) const ENGINE_ID: &str = "engine";
    pub(crate) const HOST_NAME: &str = "host";

    /// Whether both are the same database, as far as both machines are known.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.url == other.url && self.database == other.database && !self.is_on_another_machine(other)
    }

    /// Whether the addresses are on the loopback of two machines: a fingerprint of a kind that both have differs, or they
    /// have no kind in common. A host name decides only without a better kind.
    #[must_use]
    pub(crate) fn is_on_another_machine(&self, other: &Self) -> bool {
        let (Some(one), Some(other)) = (&self.machine, &other.machine) else { return false };
        let of = |all: &'_ str, kind: &str| {
            all.split(' ').find_map(|print| print.strip_prefix(kind)?.strip_prefix(':').map(String::from))
        };
        let differs = |kind: &str| Some(of(one, kind)? != of(other, kind)?);
        let better: Vec<bool> = [Self::MACHINE_ID, Self::ENGINE_ID].into_iter().filter_map(differs).collect();
        if better.is_empty() { differs(Self::HOST_NAME).unwrap_or(one != other) } else { better.contains(&true) }
    }
}

impl fmt::Display for MadeFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database {} at {}", self.database, self.url)
    }
}

impl DesiredDataSource {
    /// The field for settings made by users, such as a client certificate for a proxy in front of InfluxDB.
    pub(crate) const OTHER_SETTINGS: &'static str = "other settings";
    /// The query language of the dashboard.
    pub(crate) const LANGUAGE: &'static str = "InfluxQL";

    /// The target of the data source and of everything that queries it.
    #[must_use]
    pub fn made_for(&self) -> MadeFor {
        MadeFor { url: self.url.clone(), database: self.database.clone(), machine: self.machine.clone() }
    }

    /// Whether its address is the name of the engine's host inside containers.
    #[must_use]
    pub(crate) fn is_on_engines_host(&self) -> bool {
        let authority = self.url.split_once("://").map_or("", |(_, rest)| rest);
        authority.split([':', '/']).next() == Some(ContainerConfig::HOST_NAME)
    }

    /// The shortest useful interval of a query: Clipper reports every 15 s.
    pub(crate) const INTERVAL: &'static str = "15s";

    /// The desired fields in Grafana, as one text each.
    #[must_use]
    pub fn fields(&self) -> BTreeMap<String, String> {
        [
            ("name", self.name.as_str()),
            ("type", "influxdb"),
            ("access", "proxy"),
            ("url", &self.url),
            ("database", &self.database),
            ("user", &self.user),
            ("interval", Self::INTERVAL),
            ("language", Self::LANGUAGE),
            ("HTTP method", "POST"),
            (Self::OTHER_SETTINGS, ""),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DashboardId {
    /// The dashboard bundled with clipper-metrics.
    Bundled,
    /// A user's dashboard, by its index in the stack.
    User(usize),
}

/// A user's dashboard from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredUserDashboard {
    /// The file.
    pub path: String,
    /// Its stable uid: from the file, otherwise derived from the title.
    pub uid: String,
    /// The title shown in Grafana.
    pub title: String,
    /// Fingerprint of the file; every version has its own.
    pub content_hash: String,
    /// The dashboard as JSON, without fields that Grafana's export adds and fields that Grafana
    /// counts itself.
    pub content: String,
    /// The objects that it needs and a Grafana may lack.
    pub needs: Vec<Need>,
    /// Sentences about changes made for the import, and about parts that cannot work in any Grafana.
    pub notes: Vec<String>,
}

/// An object that a dashboard needs and a Grafana may lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The panel or variable that needs it, such as `panel "Latency"`.
    pub by: String,
    pub object: NeededObject,
}

/// An object in Grafana that a dashboard refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeededObject {
    /// A user's data source, by uid or name.
    DataSource(String),
    /// A panel plugin, by its id.
    PanelType(String),
}

/// The bundled dashboard and the values filled into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredDashboard {
    /// Its stable uid, so that a second import replaces the first.
    pub uid: String,
    /// The title shown in Grafana.
    pub title: String,
    /// Fingerprint of the bundled file; every version has its own.
    pub content_hash: String,
    /// Clipper's latency objective in microseconds, if a file contains it.
    pub objective: Option<u64>,
    /// The models in Clipper's file, if one was supplied.
    pub models: Option<Vec<String>>,
}

impl DesiredDashboard {
    /// Clipper's own default for `slo_micros`, in microseconds.
    pub const DEFAULT_OBJECTIVE: u64 = 20_000;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::upgrade::NamedImage;
    use crate::samples;

    fn upgrade(from: &str, to: &str, state: UpgradeState) -> Upgrade {
        let image = |name, id: &str| NamedImage { name: ImageRef::parse(name).unwrap(), id: Some(id.into()) };
        Upgrade { id: "1".into(), from: image(from, "a"), to: image(to, "b"), state }
    }

    #[test]
    fn a_rolled_back_stack_differs_in_grafanas_image_and_login() {
        let stack = Stack {
            default_image: "grafana/grafana:12".into(),
            login: Login { user: "me".into(), uses_token: false, supplies_password: true, is_untried: true },
            ..samples::stack()
        };
        for (from, to, state, pinned, read_only, failed) in [
            ("grafana/grafana:12", "grafana/grafana:13", UpgradeState::Failed, None, true, true),
            ("grafana/grafana:11", "grafana/grafana:13", UpgradeState::Postponed, None, false, false),
            ("grafana/grafana:latest", "grafana/grafana:latest", UpgradeState::Failed, Some("a"), false, true),
        ] {
            let upgrade = upgrade(from, to, state);
            let back = stack.with_previous_image(&upgrade);
            let before = stack.container(Role::Grafana).unwrap();
            let config = ContainerConfig { image: upgrade.from.name.clone(), read_only, ..before.config.clone() };
            let pinned_image = pinned.map(String::from);
            assert_eq!(
                back.container(Role::Grafana),
                Some(&DesiredContainer { config, pinned_image, ..before.clone() })
            );
            assert_eq!(back.login, Login { supplies_password: false, is_untried: false, ..stack.login.clone() });
            assert_eq!(back.failed_image, failed.then_some(upgrade.to.name));
            assert_eq!(back.services.influxdb, stack.services.influxdb);
        }
    }
}
