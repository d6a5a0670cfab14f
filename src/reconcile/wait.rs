//! Waits for servers, and explains why one does not answer: it exited, or another process replaced it.

use std::time::{Duration, Instant};

use super::Session;
use super::cause::Cause;
use super::connection::Connection;
use super::observe::health;
use crate::backoff::{LONGEST_PAUSE, pause, ticks};
use crate::engine::RunInfo;
use crate::error::{Error, Result, Unready};
use crate::grafana::Grafana;
use crate::http::PROBE;
use crate::influxdb::grant;
use crate::model::hints;
use crate::model::invocation::typed_option;
use crate::model::observed::{OurContainer, Query, QueryFault, RunState, ServerResponse};
use crate::model::plan::{self, Resource};
use crate::model::query_checks::{NextCheck, QueryChecks};
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, EngineLocation};
use crate::model::text::excerpt;

/// The shortest pause between two polls of a starting server.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// The interval at which a stopped container is looked for.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

impl Session {
    /// Waits until the container `id`, whose log has ended, runs or was started again since `started_at`, or another one
    /// replaces it; `None` if that takes too long. An engine that restarts meanwhile is waited for.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine does not answer at the end.
    pub(crate) async fn restarted(
        &self,
        role: Role,
        id: &str,
        started_at: Option<&str>,
        within: Duration,
    ) -> Result<Option<OurContainer>> {
        let deadline = Instant::now() + within;
        let mut ticks = ticks(BETWEEN_LOOKS);
        // The first one completes at once, and a log that ends again and again must not be read without a pause.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let is_next = |actual: &OurContainer| {
                let is_other = actual.id != id || actual.started_at.as_deref() != started_at;
                actual.run == RunState::Running || (is_other && actual.started_at.is_some())
            };
            let actual = self.docker()?.only_container(&self.stack.instance, role).await;
            match actual.map(|actual| actual.filter(is_next)) {
                Ok(Some(next)) => return Ok(Some(next)),
                Ok(None) | Err(_) if Instant::now() < deadline => {}
                ended => return ended,
            }
        }
    }

    /// Waits briefly to see whether the container behind a broken connection exits or answers again.
    ///
    /// # Errors
    /// [`Error::Raced`] if the container is gone or its server answers after all,
    /// [`Error::NotReady`] if it exited by itself.
    pub(super) async fn lost_container(&self, connection: &Connection, doing: &str, why: &str) -> Result<()> {
        let role = connection.role;
        let Some((id, first)) = self.run_info(connection).await? else { return Ok(()) };
        let deadline = Instant::now() + PROBE;
        let mut backoff = Duration::from_millis(10);
        while Instant::now() < deadline {
            if let Some(why) = self.ended(role, &id, &first).await? {
                return Err(self.has_ended(connection, why).await);
            }
            if matches!(self.probe(connection, PROBE).await, ServerResponse::Answering(())) {
                return Err(Error::Raced { doing: doing.into(), why: format!("the connection broke ({why})") });
            }
            pause(&mut backoff).await;
        }
        Ok(())
    }

    /// Repeats a query through the data source until its answer is correct. `since` is the start of an earlier
    /// verification.
    ///
    /// # Errors
    /// [`Error::Contradicted`] if correct settings should be saved again, [`Error::NotConverged`] with Grafana's reason if
    /// the answer is still wrong at the deadline, or at once if waiting cannot help.
    pub(super) async fn verify_query(
        &self,
        grafana: &Grafana,
        saves_left: u8,
        since: Option<Instant>,
        deadline: Instant,
    ) -> Result<()> {
        let desired = &self.stack.data_source;
        let now = Instant::now();
        let started = since.unwrap_or(now);
        let mut checks = QueryChecks::new(desired.is_on_engines_host(), saves_left, now, deadline);
        let mut backoff = Duration::from_millis(50);
        loop {
            let why = match grafana.query_database(desired).await? {
                Query::Ok => return Ok(()),
                Query::Failing(why) => why,
                Query::Unasked => "the data source does not exist".into(),
            };
            let fault = QueryFault::of(&why);
            match checks.next(fault, Instant::now()) {
                NextCheck::GiveUp => {
                    let reaches_loopback = cfg!(target_os = "macos") && self.stack.engine == EngineLocation::Here;
                    return Err(Error::NotConverged {
                        rest: format!("Grafana cannot query database {} at {}: {why}", desired.database, desired.url),
                        after: Some(started.elapsed()),
                        hint: match fault {
                            QueryFault::Rights if !desired.user.is_empty() => {
                                let may = |right| grant(right, &desired.database, &desired.user);
                                format!(
                                    "ask an administrator of InfluxDB to execute `{}`, or `{}` if that user also \
                                     writes: a grant replaces the earlier one",
                                    may("READ"),
                                    may("ALL")
                                )
                            }
                            fault => hints::way_to_influxdb(desired, fault, reaches_loopback),
                        },
                    });
                }
                NextCheck::SaveAgain => return Err(Error::Contradicted { why, since: started }),
                NextCheck::Repeat => {}
            }
            pause(&mut backoff).await;
        }
    }

    /// Polls until the server answers; fails at once if its container has exited or waiting cannot help.
    pub(super) async fn await_answer(&self, connection: &Connection, deadline: Instant) -> Result<()> {
        let role = connection.role;
        let first = self.run_info(connection).await?;
        let started = Instant::now();
        let mut looked = started;
        loop {
            let base = || connection.http.address().to_string();
            let left = deadline.saturating_duration_since(Instant::now()).max(PROBE);
            let why = match self.probe(connection, self.probe_limit(connection).min(left)).await {
                ServerResponse::Answering(()) => match self.expect_the_container(connection).await {
                    // A server that has just started may be too slow for the verification.
                    Err(Error::Http { why, .. } | Error::Answer { why, .. } | Error::Docker { why, .. }) => why,
                    result => return result,
                },
                ServerResponse::Silent(why) | ServerResponse::Starting(why) => why,
                ServerResponse::Failing(why) => why.to_string(),
                ServerResponse::Unusable(what) => {
                    let blocker = plan::unusable_server(&self.stack, role, &base(), &what);
                    return Err(Error::Blocked { resource: Resource::Server(role), blocker });
                }
                ServerResponse::Refusing(message) => return Err(Error::Refused { role, url: base(), message }),
                ServerResponse::Unasked | ServerResponse::NotTheContainer => "it was not probed".into(),
            };
            if let Some((id, first)) = &first
                && looked.elapsed() >= LONGEST_PAUSE
            {
                looked = Instant::now();
                if let Some(why) = self.ended(role, id, first).await? {
                    return Err(self.has_ended(connection, why).await);
                }
            }
            if Instant::now() >= deadline {
                let waited = humantime::format_duration(self.stack.timeout);
                return Err(self.not_ready(connection, format!("no answer within {waited} ({why})")).await);
            }
            // The pause grows with the waiting time, so a run waits at most about 1 % longer than
            // the server needs.
            pause(&mut (started.elapsed() / 100).max(SHORTEST_PAUSE)).await;
        }
    }

    /// The state of the role's container, if it is managed.
    async fn run_info(&self, connection: &Connection) -> Result<Option<(String, RunInfo)>> {
        let role = connection.role;
        if self.stack.container(role).is_none() {
            return Ok(None);
        }
        let id = connection.container()?.to_string();
        match self.docker()?.run_info(role, &id).await? {
            Some(info) => Ok(Some((id, info))),
            None => Err(replaced(role)),
        }
    }

    /// The reason why the container will not answer any more. If another process replaces the
    /// container, it exits and is removed a moment later, which is not a failure of its server.
    async fn ended(&self, role: Role, id: &str, first: &RunInfo) -> Result<Option<String>> {
        let mut backoff = Duration::from_millis(10);
        let looks = 10;
        for look in 1..=looks {
            let Some(now) = self.docker()?.run_info(role, id).await? else { return Err(replaced(role)) };
            let why = match now.run {
                RunState::Exited(code) => format!("its container exited with code {code}"),
                RunState::Restarting => "its container keeps crashing".into(),
                RunState::Dead => "the engine failed to remove its container".into(),
                _ if now.restarts > first.restarts => "its container crashed and was restarted".into(),
                _ => return Ok(None),
            };
            if look == looks {
                return Ok(Some(why));
            }
            pause(&mut backoff).await;
        }
        Ok(None)
    }

    async fn probe(&self, connection: &Connection, within: Duration) -> ServerResponse<()> {
        if connection.role != Role::Influxdb {
            return health(connection.role, connection.http.clone(), within).await.0;
        }
        // InfluxDB answers pings before it answers queries.
        self.influxdb(connection).observe(&self.stack.database, within).await.0.map(drop)
    }

    /// The error for a server that may become ready later, with its last log lines.
    pub(super) async fn not_ready(&self, connection: &Connection, why: String) -> Error {
        let role = connection.role;
        // Quoted, because the duration of a year and a day has a space.
        let longer = humantime::format_duration(self.stack.longer_timeout()).to_string();
        let longer = format!("up{}", typed_option("--timeout", &longer));
        let [logs, longer, down, up] =
            [&format!("logs {role}"), &longer, "down", "up"].map(|verb| self.stack.command(verb));
        let hint = format!(
            "`{logs}` shows more; `{longer}` waits longer; `{down}`, then `{up}` replaces it and keeps its data"
        );
        self.unready(connection, why, Unready::Late, hint).await
    }

    /// The error for a server that has exited, which waiting does not change.
    async fn has_ended(&self, connection: &Connection, why: String) -> Error {
        let [logs, down, up] =
            [&format!("logs {}", connection.role), "down", "up"].map(|verb| self.stack.command(verb));
        let hint = format!("`{logs}` shows more; `{down}`, then `{up}` replaces it and keeps its data");
        self.unready(connection, why, Unready::Failed, hint).await
    }

    /// The error for a server that is not ready. A known cause in its log has its own hint.
    async fn unready(&self, connection: &Connection, why: String, cause: Unready, hint: String) -> Error {
        let (role, id) = (connection.role, connection.held());
        let log = match (&self.docker, id) {
            (Some(docker), Some(id)) => docker.last_lines(id).await,
            _ => Vec::new(),
        };
        let known = Cause::of(role, &log).zip(self.stack.container(role));
        let (cause, hint) = match (id, known) {
            (None, _) => (cause, format!("check that {} runs, and that --{role}-url leads to it", role.title())),
            (Some(_), None) => (cause, hint),
            (Some(_), Some((known, spec))) => {
                (known.unready(), known.hint(&self.stack, spec, &self.image_user(spec).await))
            }
        };
        let log = log.iter().map(|line| excerpt(line, 400)).collect();
        Error::NotReady { role, why, cause, log, hint }
    }

    /// The user of an image; empty for root and for a missing image.
    async fn image_user(&self, spec: &DesiredContainer) -> String {
        let Some(docker) = &self.docker else { return String::new() };
        docker.image(spec).await.ok().flatten().map(|image| image.user).unwrap_or_default()
    }
}

/// The error if another process removed the container that a step works on.
fn replaced(role: Role) -> Error {
    Error::Raced { doing: format!("wait for {}", role.title()), why: "another process replaced its container".into() }
}
