//! Wanted against observed: findings for `status`, steps for `up`, both from one comparison.
//!
//! Every step is idempotent, so a plan made on a stale or partial snapshot is safe: what cannot be
//! known yet keeps its step. Must not know how a step is carried out.

use std::fmt;

use super::observed::{
    Answer, Container, Dashboard, DataSource, Grafana, Image, Influxdb, KeptPassword, Network, Observed, OurContainer,
    Query, Run, Server, Volume,
};
use super::stack::{self, ContainerSpec, Difference, Password, Pull, Role, Service, Stack};

/// What the user asked for beyond the stack itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Replace a dashboard that somebody edited.
    pub overwrite_dashboard: bool,
    /// Set Grafana's administrator's password inside the container.
    pub reset_password: bool,
}

/// One line per resource, in the order in which they are reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(pub Vec<Item>);

/// What was found about one resource and what would be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The resource.
    pub resource: Resource,
    /// How it compares.
    pub finding: Finding,
    /// What brings it in sync; empty if nothing is needed or nothing can be done.
    pub steps: Vec<Step>,
}

/// Things that a stack consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The network of the containers.
    Network,
    /// A server: its image, volume and container, or a server that is already there.
    Server(Role),
    /// A data volume, on its own only in `down`.
    Volume(Role),
    /// The InfluxDB database.
    Database,
    /// Grafana's organisation.
    Organisation,
    /// Grafana's folder.
    Folder,
    /// Grafana's dashboard.
    Dashboard,
    /// Grafana's data source.
    DataSource,
    /// A question asked through the data source.
    Query,
}

/// How a resource compares with what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As wanted.
    InSync,
    /// As a person made it, and left alone for that.
    Edited,
    /// Not there.
    Missing,
    /// There, but not as wanted.
    Differs(Vec<Difference>),
    /// As wanted, but not running; what state it is in.
    Stopped(String),
    /// Running, but not answering (yet); why.
    Silent(String),
    /// Settings are right, yet the answer contradicts them; why.
    Contradicts(String),
    /// Cannot be told before an earlier step has run.
    Unknown,
    /// Somebody has to act; we never do.
    Blocked(Blocked),
    /// The user wants it removed or changed.
    Asked(&'static str),
}

/// Why nothing can be done without the user, and what the user can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// What kind of obstacle it is.
    pub kind: Obstacle,
    /// Why, with the object's name.
    pub why: String,
    /// What to type next.
    pub hint: String,
}

/// Kinds of obstacles, so that reports need not read sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Something with our name that is not ours.
    Foreign,
    /// Credentials are refused.
    Refused,
    /// The published address is taken.
    PortTaken,
    /// The image cannot be had or cannot use the volume.
    Image,
    /// A server that we cannot use, or that does not answer and is not ours to start.
    Server,
}

/// One idempotent action; each is one arm of `apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Fetch the wanted image.
    PullImage(Role),
    /// Make sure that the image can use the volume, before anything is removed for it.
    CheckImage(Role),
    /// Make the network.
    CreateNetwork,
    /// Remove every network of the instance.
    RemoveNetwork,
    /// Remove the networks of the instance except the one that is kept.
    RemoveSpareNetworks,
    /// Make the volume.
    CreateVolume(Role),
    /// Remove the volume and all data in it.
    RemoveVolume(Role),
    /// Make the container as specified.
    CreateContainer(Role, Password),
    /// Make Grafana's container on loopback, whatever the specification says, since its password
    /// may still be the default.
    CreateGuarded,
    /// Look for a password in the volume that a container was made for, and make the container
    /// anew if there is one.
    AdoptPassword,
    /// See to it that the password file exists before Grafana starts.
    EnsurePassword,
    /// Keep the given password, which Grafana has accepted.
    StorePassword,
    /// Replace the default password, while Grafana is on loopback.
    SecurePassword,
    /// Set the password with Grafana's own command inside the container.
    ResetPassword,
    /// Stop and remove the container.
    RemoveContainer(Role),
    /// Thaw the container.
    UnpauseContainer(Role),
    /// Start the container.
    StartContainer(Role),
    /// Wait until the server answers, or its container has exited.
    AwaitAnswer(Role),
    /// Make the database.
    CreateDatabase,
    /// Make the organisation.
    CreateOrganisation,
    /// Make the folder.
    CreateFolder,
    /// Create or update the data source.
    SaveDataSource,
    /// Create or update the dashboard.
    SaveDashboard,
    /// Make the dashboard the organisation's home page, if it has none.
    SetHome,
    /// Ask through the data source until the answer is right, saving it again where Grafana
    /// contradicts its own settings.
    AwaitQuery,
}

/// Where a step runs: the two roles are worked on side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Before the others.
    First,
    /// Beside the other role.
    Beside(Role),
    /// After the others.
    Last,
}

impl Step {
    /// Where the step runs.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            // No container can start where two networks have one name.
            Self::CreateNetwork | Self::RemoveSpareNetworks => Lane::First,
            Self::RemoveNetwork | Self::AwaitQuery => Lane::Last,
            Self::PullImage(role)
            | Self::CheckImage(role)
            | Self::CreateVolume(role)
            | Self::RemoveVolume(role)
            | Self::CreateContainer(role, _)
            | Self::RemoveContainer(role)
            | Self::UnpauseContainer(role)
            | Self::StartContainer(role)
            | Self::AwaitAnswer(role) => Lane::Beside(*role),
            Self::CreateDatabase => Lane::Beside(Role::Influxdb),
            Self::CreateGuarded
            | Self::AdoptPassword
            | Self::EnsurePassword
            | Self::StorePassword
            | Self::SecurePassword
            | Self::ResetPassword
            | Self::CreateOrganisation
            | Self::CreateFolder
            | Self::SaveDataSource
            | Self::SaveDashboard
            | Self::SetHome => Lane::Beside(Role::Grafana),
        }
    }

    /// The resource that the step works on.
    #[must_use]
    pub const fn resource(&self) -> Resource {
        match self {
            Self::CreateNetwork | Self::RemoveNetwork | Self::RemoveSpareNetworks => Resource::Network,
            Self::RemoveVolume(role) => Resource::Volume(*role),
            Self::PullImage(role)
            | Self::CheckImage(role)
            | Self::CreateVolume(role)
            | Self::CreateContainer(role, _)
            | Self::RemoveContainer(role)
            | Self::UnpauseContainer(role)
            | Self::StartContainer(role)
            | Self::AwaitAnswer(role) => Resource::Server(*role),
            Self::CreateGuarded
            | Self::AdoptPassword
            | Self::EnsurePassword
            | Self::StorePassword
            | Self::SecurePassword
            | Self::ResetPassword => Resource::Server(Role::Grafana),
            Self::CreateDatabase => Resource::Database,
            Self::CreateOrganisation => Resource::Organisation,
            Self::CreateFolder => Resource::Folder,
            Self::SaveDataSource => Resource::DataSource,
            Self::SaveDashboard | Self::SetHome => Resource::Dashboard,
            Self::AwaitQuery => Resource::Query,
        }
    }

    /// The action in one word, for machines.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::PullImage(_) => "pull_image",
            Self::CheckImage(_) => "check_image",
            Self::CreateNetwork => "create_network",
            Self::RemoveNetwork => "remove_network",
            Self::RemoveSpareNetworks => "remove_spare_networks",
            Self::CreateVolume(_) => "create_volume",
            Self::RemoveVolume(_) => "remove_volume",
            Self::CreateContainer(..) => "create_container",
            Self::CreateGuarded => "create_container_on_loopback",
            Self::AdoptPassword => "adopt_password",
            Self::EnsurePassword => "ensure_password",
            Self::StorePassword => "store_password",
            Self::SecurePassword => "secure_password",
            Self::ResetPassword => "reset_password",
            Self::RemoveContainer(_) => "remove_container",
            Self::UnpauseContainer(_) => "unpause_container",
            Self::StartContainer(_) => "start_container",
            Self::AwaitAnswer(_) => "await_answer",
            Self::CreateDatabase => "create_database",
            Self::CreateOrganisation => "create_organisation",
            Self::CreateFolder => "create_folder",
            Self::SaveDataSource => "save_data_source",
            Self::SaveDashboard => "save_dashboard",
            Self::SetHome => "set_home",
            Self::AwaitQuery => "await_query",
        }
    }
}

impl fmt::Display for Step {
    /// The step as a person reads it, in the imperative.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullImage(role) => write!(f, "pull {}'s image", role.title()),
            Self::CheckImage(role) => write!(f, "check {}'s image against its volume", role.title()),
            Self::CreateNetwork => f.write_str("create the network"),
            Self::RemoveNetwork => f.write_str("remove the network"),
            Self::RemoveSpareNetworks => f.write_str("remove a second network of that name"),
            Self::CreateVolume(role) => write!(f, "create {}'s volume", role.title()),
            Self::RemoveVolume(role) => write!(f, "delete {}'s volume", role.title()),
            Self::CreateContainer(role, _) => write!(f, "create {}'s container", role.title()),
            Self::CreateGuarded => f.write_str("create Grafana's container on loopback only"),
            Self::AdoptPassword => f.write_str("look for Grafana's password in its volume"),
            Self::EnsurePassword => f.write_str("put Grafana's password into its volume"),
            Self::StorePassword => f.write_str("keep Grafana's new password in its volume"),
            Self::SecurePassword => f.write_str("replace Grafana's default password"),
            Self::ResetPassword => f.write_str("reset Grafana's password"),
            Self::RemoveContainer(role) => write!(f, "remove {}'s container", role.title()),
            Self::UnpauseContainer(role) => write!(f, "unpause {}'s container", role.title()),
            Self::StartContainer(role) => write!(f, "start {}", role.title()),
            Self::AwaitAnswer(role) => write!(f, "wait for {}", role.title()),
            Self::CreateDatabase => f.write_str("create the database"),
            Self::CreateOrganisation => f.write_str("create Grafana's organisation"),
            Self::CreateFolder => f.write_str("create Grafana's folder"),
            Self::SaveDataSource => f.write_str("save the data source"),
            Self::SaveDashboard => f.write_str("save the dashboard"),
            Self::SetHome => f.write_str("make the dashboard the home page if there is none"),
            Self::AwaitQuery => f.write_str("verify that Grafana reaches the database"),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network => f.write_str("network"),
            Self::Server(role) => f.write_str(role.name()),
            Self::Volume(role) => write!(f, "volume of {role}"),
            Self::Database => f.write_str("database"),
            Self::Organisation => f.write_str("organisation"),
            Self::Folder => f.write_str("folder"),
            Self::Dashboard => f.write_str("dashboard"),
            Self::DataSource => f.write_str("data source"),
            Self::Query => f.write_str("query"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InSync => f.write_str("in sync"),
            Self::Edited => f.write_str("edited"),
            Self::Missing => f.write_str("missing"),
            Self::Differs(differences) => {
                for (index, difference) in differences.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{difference}")?;
                }
                Ok(())
            }
            Self::Stopped(state) => f.write_str(state),
            Self::Silent(why) => write!(f, "not answering: {why}"),
            Self::Contradicts(why) => write!(f, "fails although its settings are right: {why}"),
            Self::Unknown => f.write_str("not known yet"),
            Self::Blocked(blocked) => f.write_str(&blocked.why),
            Self::Asked(what) => f.write_str(what),
        }
    }
}

impl Plan {
    /// The steps of all items with the reason for each, in order.
    pub fn steps(&self) -> impl Iterator<Item = (Step, &Finding)> + '_ {
        self.0.iter().flat_map(|item| item.steps.iter().map(|step| (*step, &item.finding)))
    }

    /// Nothing to do and nothing in the way.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.0.iter().all(|item| matches!(item.finding, Finding::InSync | Finding::Edited) && item.steps.is_empty())
    }

    /// The first item that needs a human; `up` refuses to start while there is one.
    #[must_use]
    pub fn blocked(&self) -> Option<(Resource, &Blocked)> {
        self.0.iter().find_map(|item| match &item.finding {
            Finding::Blocked(blocked) => Some((item.resource, blocked)),
            _ => None,
        })
    }

    /// What was found about `resource`, if the plan speaks of it.
    #[must_use]
    pub fn finding(&self, resource: Resource) -> Option<&Finding> {
        self.0.iter().find(|item| item.resource == resource).map(|item| &item.finding)
    }
}

/// What would make the observed state the wanted one.
#[must_use]
pub fn up(want: &Stack, seen: &Observed, wishes: Wishes) -> Plan {
    let mut items = Vec::new();
    if want.needs_engine() {
        items.push(network(want, &seen.network));
    }
    let influxdb = server(want, Role::Influxdb, &seen.influxdb, wishes);
    let grafana = server(want, Role::Grafana, &seen.grafana, wishes);
    let database = database(stored(&influxdb, &seen.influxdb));
    let inside = inside_grafana(want, stored(&grafana, &seen.grafana), wishes);
    let query = query(stored(&grafana, &seen.grafana), &database, &inside);
    items.extend([influxdb, grafana, database]);
    items.extend(inside);
    items.push(query);
    Plan(items)
}

fn network(want: &Stack, seen: &Network) -> Item {
    let (finding, steps) = match seen {
        Network::Ours(ids) if ids.len() > 1 => {
            let difference = Difference { field: "networks".into(), have: ids.len().to_string(), want: "1".into() };
            (Finding::Differs(vec![difference]), vec![Step::RemoveSpareNetworks])
        }
        Network::Ours(_) => (Finding::InSync, vec![]),
        Network::Free => (Finding::Missing, vec![Step::CreateNetwork]),
        Network::Foreign => (foreign("network", &want.instance, &want.instance), vec![]),
    };
    Item { resource: Resource::Network, finding, steps }
}

fn server<S>(want: &Stack, role: Role, seen: &Server<S>, wishes: Wishes) -> Item {
    let (finding, steps) = match want.service(role) {
        Service::External { url } => external(role, url, &seen.answer),
        Service::Container(spec) => container(want, spec, seen, wishes),
    };
    Item { resource: Resource::Server(role), finding, steps }
}

fn external<S>(role: Role, url: &str, answer: &Answer<S>) -> (Finding, Vec<Step>) {
    let title = role.title();
    let blocked = |kind, why, hint| (Finding::Blocked(Blocked { kind, why, hint }), vec![]);
    match answer {
        Answer::Answering(_) => (Finding::InSync, vec![]),
        Answer::Unasked => (Finding::Unknown, vec![Step::AwaitAnswer(role)]),
        Answer::Silent(why) => blocked(
            Obstacle::Server,
            format!("{title} at {url} does not answer: {why}"),
            format!("start it, or leave --{role}-url away to have a container started"),
        ),
        Answer::Unusable(what) => unusable(role, url, what),
        Answer::Refusing(words) => refused(role, url, words, false),
    }
}

fn unusable(role: Role, url: &str, what: &str) -> (Finding, Vec<Step>) {
    (Finding::Blocked(unusable_server(role, url, what)), vec![])
}

/// Something else than the wanted server answers.
#[must_use]
pub fn unusable_server(role: Role, url: &str, what: &str) -> Blocked {
    let hint = match role {
        Role::Influxdb => "Clipper needs InfluxDB 1.x: use --influxdb-image influxdb:1.12.4, or another --influxdb-url",
        Role::Grafana => "give Grafana's address, up to but without /api, with --grafana-url",
    };
    let why = format!("{} is wanted at {url}, but {what} answers there", role.title());
    Blocked { kind: Obstacle::Server, why, hint: hint.into() }
}

fn refused(role: Role, url: &str, words: &str, ours: bool) -> (Finding, Vec<Step>) {
    let hint = match role {
        Role::Influxdb => "give --influxdb-user and --influxdb-password-file",
        Role::Grafana if ours => {
            "give the password with --grafana-password-file FILE, or set a new one with \
             `clipper-metrics up --reset-grafana-password`"
        }
        Role::Grafana => "give --grafana-user and --grafana-password-file, or --grafana-token-file",
    };
    let why = format!("{} at {url} refuses us: {words}", role.title());
    (Finding::Blocked(Blocked { kind: Obstacle::Refused, why, hint: hint.into() }), vec![])
}

/// A container of ours: what differs, and the steps in the order that loses nothing.
fn container<S>(want: &Stack, spec: &ContainerSpec, seen: &Server<S>, wishes: Wishes) -> (Finding, Vec<Step>) {
    if let Some(blocked) = obstacle(want, spec, seen) {
        return (Finding::Blocked(blocked), vec![]);
    }
    let (finding, mut steps) = match &seen.container {
        Container::Foreign => (foreign("container", &spec.name, &want.instance), vec![]),
        Container::Absent => (Finding::Missing, create(spec, seen)),
        Container::Ours(have) => {
            let differences = differences(want, spec, seen, have);
            match have.run {
                _ if !differences.is_empty() => (Finding::Differs(differences), replace(spec, seen, have)),
                Run::Running => running(spec, seen, wishes),
                Run::Restarting => (Finding::Stopped("restarting again and again".into()), replace(spec, seen, have)),
                Run::Dead => (Finding::Stopped("dead".into()), replace(spec, seen, have)),
                Run::Paused => (
                    Finding::Stopped("paused".into()),
                    vec![Step::UnpauseContainer(spec.role), Step::AwaitAnswer(spec.role)],
                ),
                Run::Created => (Finding::Stopped("created but never started".into()), start(spec, have)),
                Run::Exited(code) => (Finding::Stopped(format!("stopped (exit code {code})")), start(spec, have)),
            }
        }
    };
    if spec.role == Role::Grafana && wishes.reset_password && !matches!(finding, Finding::Blocked(_)) {
        steps.push(Step::ResetPassword);
    }
    (finding, steps)
}

fn running<S>(spec: &ContainerSpec, seen: &Server<S>, wishes: Wishes) -> (Finding, Vec<Step>) {
    let role = spec.role;
    if role == Role::Grafana && wishes.reset_password {
        return (Finding::Asked("a new password is asked for"), vec![Step::AwaitAnswer(role)]);
    }
    match &seen.answer {
        Answer::Answering(_) if seen.kept_password == KeptPassword::NotAsGiven => {
            (Finding::Asked("the given password is not the one that is kept"), vec![Step::StorePassword])
        }
        Answer::Answering(_) => (Finding::InSync, vec![]),
        Answer::Unasked => (Finding::Unknown, vec![Step::AwaitAnswer(role)]),
        Answer::Silent(why) => (Finding::Silent(why.clone()), vec![Step::AwaitAnswer(role)]),
        Answer::Refusing(words) => refused(role, &spec.url(), words, true),
        Answer::Unusable(what) => unusable(role, &spec.url(), what),
    }
}

/// What stands in the way of working on the container at all.
fn obstacle<S>(want: &Stack, spec: &ContainerSpec, seen: &Server<S>) -> Option<Blocked> {
    if seen.volume == Volume::Foreign
        && let Finding::Blocked(blocked) = foreign("volume", &spec.name, &want.instance)
    {
        return Some(blocked);
    }
    if let Some(holder) = &seen.port_holder {
        let (role, port) = (spec.role, spec.publish());
        return Some(Blocked {
            kind: Obstacle::PortTaken,
            why: format!("cannot publish {} at {port}: container {holder} holds that port", role.title()),
            hint: format!("stop it (docker stop {holder}), or choose another port with --{role}-port"),
        });
    }
    if seen.image.is_none() && want.pull == Pull::Never {
        return Some(Blocked {
            kind: Obstacle::Image,
            why: format!("image {} is not on the engine, and --pull never forbids to fetch it", spec.image),
            hint: format!("load it with `docker load`, or leave --pull away (image of {})", spec.role.title()),
        });
    }
    if let (Some(image), Volume::Ours { user: Some(owner) }) = (&seen.image, &seen.volume) {
        return volume_of_another_user(spec, image, owner);
    }
    older_grafana(spec, seen)
}

/// An image that runs as another user cannot use what the first one wrote: no container of ours
/// may override file permissions.
#[must_use]
pub fn volume_of_another_user(spec: &ContainerSpec, image: &Image, owner: &str) -> Option<Blocked> {
    let name = |user: &str| if user.is_empty() { "root".to_string() } else { format!("user {user}") };
    (image.user != owner).then(|| Blocked {
        kind: Obstacle::Image,
        why: format!(
            "image {} runs as {}, but volume {} was made for {}",
            spec.image,
            name(&image.user),
            spec.name,
            name(owner)
        ),
        hint: format!(
            "use an image that runs as {}, start a second instance with --name, or delete the data with \
             `clipper-metrics down --volumes`",
            name(owner)
        ),
    })
}

/// Grafana migrates its database upwards only.
fn older_grafana<S>(spec: &ContainerSpec, seen: &Server<S>) -> Option<Blocked> {
    let Container::Ours(have) = &seen.container else { return None };
    if spec.role != Role::Grafana {
        return None;
    }
    let have_image = have.fields.as_ref().and_then(|fields| fields.get("image"));
    let old = seen.version.as_deref().and_then(version).or_else(|| have_image.and_then(|image| tag_version(image)))?;
    let new = tag_version(&spec.image)?;
    (new < old).then(|| Blocked {
        kind: Obstacle::Image,
        why: format!(
            "image {} is older than Grafana {}.{}, which has already migrated the database in volume {}",
            spec.image, old.0, old.1, spec.name
        ),
        hint: "keep the newer --grafana-image, or start a second instance with --name".into(),
    })
}

/// Major and minor of an image's tag.
fn tag_version(image: &str) -> Option<(u64, u64)> {
    let (_, tag) = image.split('@').next()?.rsplit_once(':')?;
    version(tag)
}

/// Major and minor of a version such as `12.4.10` or `v9.4.0-pre`.
#[must_use]
pub fn version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.trim_start_matches('v').split(['.', '-', '~', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What the container was made from against what it should be made from.
fn differences<S>(want: &Stack, spec: &ContainerSpec, seen: &Server<S>, have: &OurContainer) -> Vec<Difference> {
    let Some(fields) = &have.fields else {
        return vec![Difference {
            field: "specification".into(),
            have: "unreadable".into(),
            want: "this version's".into(),
        }];
    };
    let mut wanted = spec.fields();
    if password(spec, seen) == Password::File {
        // A password in the volume stays: no option need be repeated for it.
        wanted.insert("password".into(), Password::File.name().into());
    }
    let mut differences = Difference::between(fields, &wanted);
    if !have.on_network {
        differences.push(Difference {
            field: "network".into(),
            have: "a removed network".into(),
            want: want.instance.clone(),
        });
    }
    if let Some(image) = &seen.image
        && image.id != have.image_id
        && differences.iter().all(|difference| difference.field != "image")
    {
        differences.push(Difference { field: "image id".into(), have: short(&have.image_id), want: short(&image.id) });
    }
    differences
}

/// The twelve characters by which people know an id.
fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// Which password the new container starts with.
fn password<S>(spec: &ContainerSpec, seen: &Server<S>) -> Password {
    match &seen.container {
        Container::Ours(have) if have.has_password_file() => Password::File,
        _ if seen.kept_password == KeptPassword::Unlabelled => Password::File,
        _ => spec.password,
    }
}

/// Grafana is to be reachable from elsewhere, and its password may be the default one: only a new
/// volume, or one whose container was made with a password file, is known to be safe.
fn needs_guard<S>(spec: &ContainerSpec, seen: &Server<S>) -> bool {
    let known = match &seen.container {
        Container::Ours(have) => have.has_password_file() || seen.volume == Volume::Absent,
        _ => seen.volume == Volume::Absent,
    };
    spec.role == Role::Grafana && !spec.address.is_loopback() && !known
}

fn pull<S>(spec: &ContainerSpec, seen: &Server<S>) -> Vec<Step> {
    if seen.image.is_some() {
        return vec![];
    }
    let mut steps = vec![Step::PullImage(spec.role)];
    if matches!(seen.volume, Volume::Ours { .. }) {
        steps.push(Step::CheckImage(spec.role));
    }
    steps
}

fn create<S>(spec: &ContainerSpec, seen: &Server<S>) -> Vec<Step> {
    let role = spec.role;
    let mut steps = pull(spec, seen);
    if seen.volume == Volume::Absent {
        steps.push(Step::CreateVolume(role));
    }
    if needs_guard(spec, seen) {
        steps.extend([Step::CreateGuarded, Step::StartContainer(role), Step::AwaitAnswer(role)]);
        steps.extend([Step::SecurePassword, Step::RemoveContainer(role)]);
    }
    steps.extend(create_and_start(spec, seen));
    steps
}

fn create_and_start<S>(spec: &ContainerSpec, seen: &Server<S>) -> Vec<Step> {
    let role = spec.role;
    let password = password(spec, seen);
    let mut steps = vec![Step::CreateContainer(role, password)];
    if role == Role::Grafana {
        match password {
            Password::File => steps.push(Step::EnsurePassword),
            Password::Default if seen.volume != Volume::Absent => steps.push(Step::AdoptPassword),
            Password::Default => {}
        }
    }
    steps.extend([Step::StartContainer(role), Step::AwaitAnswer(role)]);
    steps
}

fn replace<S>(spec: &ContainerSpec, seen: &Server<S>, have: &OurContainer) -> Vec<Step> {
    let role = spec.role;
    let mut steps = pull(spec, seen);
    if seen.volume == Volume::Absent {
        steps.push(Step::CreateVolume(role));
    }
    if needs_guard(spec, seen) {
        let on_loopback = have.publish().is_some_and(|publish| publish.ip().is_loopback());
        match have.run {
            Run::Running if on_loopback => {}
            Run::Created | Run::Exited(_) if on_loopback && have.on_network => {
                steps.push(Step::StartContainer(role));
            }
            _ => steps.extend([Step::RemoveContainer(role), Step::CreateGuarded, Step::StartContainer(role)]),
        }
        steps.extend([Step::AwaitAnswer(role), Step::SecurePassword]);
    }
    steps.push(Step::RemoveContainer(role));
    steps.extend(create_and_start(spec, seen));
    steps
}

fn start(spec: &ContainerSpec, have: &OurContainer) -> Vec<Step> {
    let role = spec.role;
    let mut steps = Vec::new();
    if have.run == Run::Created && role == Role::Grafana {
        // The run that made it may have died before it saw to the password.
        steps.push(if have.has_password_file() { Step::EnsurePassword } else { Step::AdoptPassword });
    }
    steps.extend([Step::StartContainer(role), Step::AwaitAnswer(role)]);
    steps
}

/// What the server stores, if that is known and will still hold when its turn comes: a server that
/// is about to be started or replaced may come back empty.
fn stored<'a, S>(server: &Item, seen: &'a Server<S>) -> Option<&'a S> {
    if server.steps.is_empty() { seen.answer.stored() } else { None }
}

fn database(stored: Option<&Influxdb>) -> Item {
    let finding = match stored {
        None => Finding::Unknown,
        Some(influxdb) if influxdb.has_database => Finding::InSync,
        Some(_) => Finding::Missing,
    };
    with_step(Resource::Database, finding, Step::CreateDatabase)
}

/// The things inside Grafana. The data source comes last: that it exists tells that everything
/// before it, the home page too, was once done.
fn inside_grafana(want: &Stack, stored: Option<&Grafana>, wishes: Wishes) -> Vec<Item> {
    let mut items = Vec::new();
    let dashboard = dashboard(want, stored, wishes);
    let exists = |known: Option<bool>| match known {
        None => Finding::Unknown,
        Some(true) => Finding::InSync,
        Some(false) => Finding::Missing,
    };
    if want.organisation.is_some() {
        let finding = exists(stored.map(|grafana| grafana.has_organisation));
        items.push(with_step(Resource::Organisation, finding, Step::CreateOrganisation));
    }
    if want.folder.is_some() && matches!(dashboard.finding, Finding::Missing | Finding::Unknown) {
        let finding = exists(stored.map(|grafana| grafana.has_folder));
        items.push(with_step(Resource::Folder, finding, Step::CreateFolder));
    }
    items.push(dashboard);
    items.push(data_source(want, stored));
    items
}

fn dashboard(want: &Stack, stored: Option<&Grafana>, wishes: Wishes) -> Item {
    let never_finished = stored.is_some_and(|grafana| grafana.data_source == DataSource::Missing);
    let (finding, mut steps) = match stored.map(|grafana| &grafana.dashboard) {
        None => (Finding::Unknown, vec![Step::SaveDashboard, Step::SetHome]),
        Some(Dashboard::Missing) => (Finding::Missing, vec![Step::SaveDashboard, Step::SetHome]),
        Some(Dashboard::Present(have)) if have.edited => {
            if wishes.overwrite_dashboard {
                (Finding::Asked("edited, and to be overwritten"), vec![Step::SaveDashboard])
            } else {
                (Finding::Edited, vec![])
            }
        }
        Some(Dashboard::Present(have)) => {
            let differences = dashboard_differences(&want.dashboard, have);
            if differences.is_empty() {
                (Finding::InSync, vec![])
            } else {
                (Finding::Differs(differences), vec![Step::SaveDashboard])
            }
        }
    };
    if never_finished && !steps.contains(&Step::SetHome) {
        steps.push(Step::SetHome);
    }
    Item { resource: Resource::Dashboard, finding, steps }
}

fn dashboard_differences(want: &stack::Dashboard, have: &super::observed::SeenDashboard) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut compare = |field: &str, have: String, want: String| {
        if have != want {
            differences.push(Difference { field: field.into(), have, want });
        }
    };
    compare("edition", have.edition.clone().unwrap_or_default(), want.edition.clone());
    if let Some(objective) = want.objective {
        compare(
            "objective",
            have.objective.map(|micros| format!("{micros} µs")).unwrap_or_default(),
            format!("{objective} µs"),
        );
    }
    if let Some(models) = &want.models {
        compare("models", have.models.join(", "), models.join(", "));
    }
    differences
}

fn data_source(want: &Stack, stored: Option<&Grafana>) -> Item {
    let finding = match stored.map(|grafana| &grafana.data_source) {
        None => Finding::Unknown,
        Some(DataSource::Missing) => Finding::Missing,
        Some(DataSource::Foreign(what)) => Finding::Blocked(Blocked {
            kind: Obstacle::Foreign,
            why: format!("Grafana already has {what}, which clipper-metrics did not make"),
            hint: "rename or delete it in Grafana, or start a second instance with --name".into(),
        }),
        Some(DataSource::Ours(have)) => {
            let differences = Difference::between(have, &want.data_source.fields());
            if differences.is_empty() { Finding::InSync } else { Finding::Differs(differences) }
        }
    };
    with_step(Resource::DataSource, finding, Step::SaveDataSource)
}

fn query(stored: Option<&Grafana>, database: &Item, inside: &[Item]) -> Item {
    let settled = database.steps.is_empty()
        && database.finding == Finding::InSync
        && inside.iter().all(|item| item.resource != Resource::DataSource || item.finding == Finding::InSync);
    let finding = match stored.map(|grafana| &grafana.query) {
        Some(Query::Ok) if settled => Finding::InSync,
        Some(Query::Failing(why)) if settled => Finding::Contradicts(why.clone()),
        _ => Finding::Unknown,
    };
    with_step(Resource::Query, finding, Step::AwaitQuery)
}

fn with_step(resource: Resource, finding: Finding, step: Step) -> Item {
    let steps = match finding {
        Finding::InSync | Finding::Blocked(_) => vec![],
        _ => vec![step],
    };
    Item { resource, finding, steps }
}

fn foreign(kind: &str, name: &str, instance: &str) -> Finding {
    let remove = match kind {
        "container" => format!("docker rm {name}"),
        _ => format!("docker {kind} rm {name}"),
    };
    Finding::Blocked(Blocked {
        kind: Obstacle::Foreign,
        why: format!("{kind} {name} exists, but clipper-metrics did not make it"),
        hint: format!("choose another --name than {instance}, or remove it yourself: {remove}"),
    })
}

/// What would leave nothing of ours behind, except the volumes unless asked.
#[must_use]
pub fn down(want: &Stack, seen: &Observed, volumes: bool) -> Plan {
    let mut items = Vec::new();
    for role in [Role::Grafana, Role::Influxdb] {
        if want.container(role).is_none() {
            continue;
        }
        let (container, volume) = match role {
            Role::Influxdb => (&seen.influxdb.container, &seen.influxdb.volume),
            Role::Grafana => (&seen.grafana.container, &seen.grafana.volume),
        };
        let found = matches!(container, Container::Ours(_));
        items.push(removal(Resource::Server(role), found, Step::RemoveContainer(role)));
        if volumes {
            let found = matches!(volume, Volume::Ours { .. });
            items.push(removal(Resource::Volume(role), found, Step::RemoveVolume(role)));
        }
    }
    let found = matches!(seen.network, Network::Ours(_));
    items.push(removal(Resource::Network, found, Step::RemoveNetwork));
    Plan(items)
}

fn removal(resource: Resource, found: bool, step: Step) -> Item {
    let finding = if found { Finding::Asked("to be removed") } else { Finding::Missing };
    Item { resource, finding, steps: found.then_some(step).into_iter().collect() }
}
