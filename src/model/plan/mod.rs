//! Compares the stack with the observed state: findings for `status` and steps for `up` come from
//! one comparison.
//!
//! A step stays in the plan while its need is unknown; steps after [`Plan::until`] are a prediction. A step whose object
//! has changed since the snapshot ends with a race, and the next plan decides.

mod alerts;
mod blockers;
mod container;
mod dashboards;
mod deregister;
mod down;
mod grafana;
mod login;
mod made_for;
mod network;
mod obstacles;
mod questions;
mod rebuild;
mod restore;
mod rollback;
mod running;
mod server;
mod settings;
mod step;
mod up;
mod upgrade;

use std::fmt;
use std::time::Instant;

pub(crate) use self::blockers::{not_the_container, refused, unusable_server};
pub use self::container::needs_content;
pub use self::down::{deregister, down};
pub use self::questions::{Question, questions};
pub use self::restore::{
    begin_restore, finish_restore, make_for_restore, remove_restored_grafana, remove_unfinished, start_private_influxdb,
};
pub(crate) use self::restore::{correct_version, unfinished, without_instance};
pub use self::rollback::{FailureCause, Rollback, roll_back};
pub(crate) use self::rollback::{RollbackNeeds, verdict};
pub(crate) use self::settings::unknown_settings;
pub use self::step::{ContainerUse, NewContainer, Phase, Step};
pub use self::up::up;
pub(crate) use self::up::{clear_intended_version, may_leave_intended_version, withdraw};
use super::container_config::Difference;
use super::observed::Unreadable;
use super::role::Role;
use super::stack::DashboardId;

/// Options of `up` beyond the stack itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct UpOptions {
    /// Replace edited dashboards and alert rules.
    pub overwrite_dashboard: bool,
    /// Move the instance's objects in an external Grafana to another InfluxDB or database.
    pub move_data_source: bool,
    /// Set the administrator's password inside Grafana's container.
    pub reset_password: bool,
    /// Pull images even if they are on the engine.
    pub pull: bool,
    pub contradictions: Contradictions,
}

/// The verifications of a run that ended because Grafana's answer contradicted its data source, which is then saved
/// again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Contradictions {
    pub(crate) count: u8,
    /// The start of the first one, with which the time limit of all of them begins.
    pub(crate) since: Option<Instant>,
}

/// One item per resource, in display order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(crate) items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) resource: Resource,
    /// The comparison's result.
    pub(crate) finding: Finding,
    /// The steps that bring it in sync, by phase; empty if none are needed or possible.
    pub(crate) steps: Vec<(Phase, Step)>,
    /// The last phase before the next observation, which its later steps depend on.
    until: Phase,
}

/// The resources of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The network of the containers.
    Network,
    /// The remembered settings.
    Settings,
    /// A server: its image, volume and container, or an external server.
    Server(Role),
    /// A data volume, listed separately only in `down`.
    Volume(Role),
    /// The InfluxDB database.
    Database,
    /// The database's retention period.
    Retention,
    /// Grafana's organisation.
    Organisation,
    /// Grafana's folder.
    Folder,
    /// A dashboard in Grafana.
    Dashboard(DashboardId),
    /// Grafana's data source.
    DataSource,
    /// The alert rules.
    Alerts,
    /// A query through the data source.
    Query,
    /// A pending change of Grafana's image.
    Upgrade,
}

/// The state of a resource compared with the stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Nothing to do.
    InSync,
    /// Edited by a user, and therefore kept.
    Edited,
    /// Not needed, but kept because something else uses it.
    Kept(Kept),
    /// It does not exist.
    Missing,
    /// It exists and differs.
    Differs(Vec<Difference>),
    /// It matches but does not run; its state.
    Stopped(String),
    /// It runs but does not answer; the reason.
    Silent(String),
    /// It answers, but its content could not be read.
    Failing(Unreadable),
    /// The settings are correct, but the answer contradicts them; the reason.
    Contradicts(String),
    /// Unknown until an earlier step has run.
    Unknown,
    /// Its server answers but failed to return it.
    Unreadable(Unreadable),
    /// The user has to act first.
    Blocked(Blocker),
    /// The user asked for a change or a removal.
    Requested(&'static str),
}

/// The reason why the user has to act, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    pub kind: BlockReason,
    /// The reason, with the object's name.
    pub(crate) why: String,
    /// The next command to type.
    pub hint: String,
}

/// The reason why an unneeded object is kept, and how to remove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The reason, with the object's name.
    pub(crate) why: String,
    /// The command that removes it.
    pub(crate) hint: String,
}

impl From<Blocker> for Finding {
    fn from(blocker: Blocker) -> Self {
        Self::Blocked(blocker)
    }
}

/// Kinds of blockers, so that reports do not depend on sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockReason {
    /// An object with this instance's name that clipper-metrics did not create.
    Foreign,
    /// An object of an instance with this name, created for another InfluxDB or database.
    Conflict,
    /// The login is rejected.
    Refused,
    /// The published address is taken.
    PortTaken,
    /// The image is unavailable or cannot use the volume.
    Image,
    /// The server cannot be used, or it is external and does not answer.
    Server,
    /// A required setting is missing.
    Settings,
    /// Another run changed the remembered settings meanwhile.
    Changed,
    /// A login cannot be verified from here, or the server at the container's address is another one.
    Unverifiable,
    /// A restore is incomplete.
    Unfinished,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network => f.write_str("network"),
            Self::Settings => f.write_str("settings"),
            Self::Server(role) => f.write_str(role.name()),
            Self::Volume(role) => write!(f, "volume of {role}"),
            Self::Database => f.write_str("database"),
            Self::Retention => f.write_str("retention"),
            Self::Organisation => f.write_str("organisation"),
            Self::Folder => f.write_str("folder"),
            Self::Dashboard(DashboardId::Bundled) => f.write_str("dashboard"),
            Self::Dashboard(DashboardId::User(index)) => write!(f, "user dashboard {}", index + 1),
            Self::DataSource => f.write_str("data source"),
            Self::Alerts => f.write_str("alerts"),
            Self::Query => f.write_str("query"),
            Self::Upgrade => f.write_str("upgrade"),
        }
    }
}

impl Finding {
    /// The differences from the stack; empty unless they are all that was found.
    #[must_use]
    pub(crate) fn differences(&self) -> &[Difference] {
        match self {
            Self::Differs(differences) => differences,
            _ => &[],
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InSync => f.write_str("in sync"),
            Self::Edited => f.write_str("edited"),
            Self::Kept(kept) => f.write_str(&kept.why),
            Self::Missing => f.write_str("missing"),
            Self::Differs(differences) => f.write_str(&Difference::list(differences)),
            Self::Stopped(state) => f.write_str(state),
            Self::Silent(why) => write!(f, "not answering: {why}"),
            Self::Failing(why) => write!(f, "answering, but clipper-metrics {why}"),
            Self::Contradicts(why) => write!(f, "fails although its settings are correct: {why}"),
            Self::Unknown => f.write_str("not known yet"),
            Self::Unreadable(unreadable) => unreadable.fmt(f),
            Self::Blocked(blocker) => f.write_str(&blocker.why),
            Self::Requested(what) => f.write_str(what),
        }
    }
}

impl Item {
    /// An item whose steps run in their own phases.
    #[must_use]
    pub(crate) fn new(resource: Resource, finding: Finding, steps: Vec<Step>) -> Self {
        let steps = steps.into_iter().map(|step| (step.phase(), step)).collect();
        Self { resource, finding, steps, until: Phase::End }
    }

    /// An item with one step, which is needed unless the resource is in sync, kept, blocked or unreadable.
    fn with_step(resource: Resource, finding: Finding, step: Step) -> Self {
        let steps = match finding {
            Finding::InSync | Finding::Edited | Finding::Kept(_) | Finding::Blocked(_) | Finding::Unreadable(_) => {
                vec![]
            }
            _ => vec![step],
        };
        Self::new(resource, finding, steps)
    }

    /// The last phase of its steps that can be executed without another observation.
    fn until(&self) -> Phase {
        let reveals = |(phase, step): &(Phase, Step)| match phase {
            Phase::Preparation => !matches!(step, Step::CheckAddress(..)),
            Phase::Trial => true,
            _ => false,
        };
        let revealing = self.steps.iter().filter(|step| reveals(step)).map(|(phase, _)| *phase);
        revealing.min().unwrap_or(Phase::End).min(self.until)
    }
}

impl Plan {
    /// A plan whose steps all depend on known facts.
    #[must_use]
    pub(crate) const fn new(items: Vec<Item>) -> Self {
        Self { items }
    }

    /// All steps with their reasons, in the order of execution. Those after [`Self::until`] are a prediction.
    pub fn steps(&self) -> impl Iterator<Item = (&Step, &Finding)> + '_ {
        Phase::ALL.into_iter().flat_map(|phase| self.phase(phase))
    }

    /// The steps of one phase, in display order.
    pub(crate) fn phase(&self, phase: Phase) -> impl Iterator<Item = (&Step, &Finding)> + '_ {
        self.items.iter().flat_map(move |item| {
            let steps = item.steps.iter().filter(move |(at, _)| *at == phase);
            steps.map(move |(_, step)| (step, &item.finding))
        })
    }

    /// The steps of one phase that run in sequence, in parallel with those of the other role.
    pub fn lane(&self, phase: Phase, role: Role) -> impl Iterator<Item = (&Step, &Finding)> + '_ {
        self.phase(phase).filter(move |(step, _)| step.role() == role)
    }

    /// The last phase that is executed; then the next plan is made from what it revealed.
    #[must_use]
    pub fn until(&self) -> Phase {
        self.items.iter().map(Item::until).min().unwrap_or(Phase::End)
    }

    /// Whether it only waits for servers, so that the next plan may be the same.
    #[must_use]
    pub(crate) fn only_waits(&self) -> bool {
        let waits = |step: &Step| matches!(step, Step::AwaitAnswer(_) | Step::CheckAddress(..));
        self.executable().next().is_some() && self.executable().all(waits)
    }

    pub fn executable(&self) -> impl Iterator<Item = &Step> + '_ {
        let until = self.until();
        let phases = Phase::ALL.into_iter().filter(move |phase| *phase <= until);
        phases.flat_map(|phase| self.phase(phase)).map(|(step, _)| step)
    }

    /// The same plan reduced to the selected steps.
    #[must_use]
    pub(crate) fn only(&self, is_kept: impl Fn(&Step) -> bool) -> Self {
        let items = self.items.iter().map(|item| Item {
            steps: item.steps.iter().filter(|(_, step)| is_kept(step)).cloned().collect(),
            ..item.clone()
        });
        Self::new(items.collect())
    }

    /// Whether it restores the previous database.
    #[must_use]
    pub(crate) fn rolls_back(&self) -> bool {
        self.steps().any(|(step, _)| *step == Step::RollBackDatabase)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.items.iter().all(|item| item.steps.is_empty())
    }

    /// Whether there is nothing to do and no blocker.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        let is_left_alone = |item: &Item| matches!(item.finding, Finding::InSync | Finding::Edited | Finding::Kept(_));
        self.is_idle() && self.items.iter().all(is_left_alone)
    }

    /// The objects that are kept although they are not needed.
    pub fn kept(&self) -> impl Iterator<Item = &Kept> + '_ {
        self.items.iter().filter_map(|item| match &item.finding {
            Finding::Kept(kept) => Some(kept),
            _ => None,
        })
    }

    /// The first blocker; while there is one, nothing is done.
    #[must_use]
    pub fn blocker(&self) -> Option<(Resource, &Blocker)> {
        self.items.iter().find_map(|item| match &item.finding {
            Finding::Blocked(blocker) => Some((item.resource, blocker)),
            _ => None,
        })
    }

    /// The first item that its server failed to return, so that its needs are unknown.
    #[must_use]
    pub(crate) fn unreadable(&self) -> Option<&Unreadable> {
        self.items.iter().find_map(|item| match &item.finding {
            Finding::Unreadable(unreadable) => Some(unreadable),
            _ => None,
        })
    }

    #[must_use]
    pub(crate) fn finding(&self, resource: Resource) -> Option<&Finding> {
        self.items.iter().find(|item| item.resource == resource).map(|item| &item.finding)
    }
}

/// The findings, then the steps by phase with their data. A line separates the steps that only the next observation
/// confirms.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "{}: {}", item.resource, item.finding)?;
        }
        let until = self.until();
        for phase in Phase::ALL {
            for (step, _) in self.phase(phase) {
                writeln!(f, "  {phase:?}: {step}{}", step.data())?;
            }
            if phase == until && until != Phase::End {
                writeln!(f, "  -- observe again --")?;
            }
        }
        Ok(())
    }
}
