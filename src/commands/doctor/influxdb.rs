//! The first half of `doctor`: from Clipper's settings to a point in the database.

use std::time::{Duration, Instant};

use super::{Examination, WriteTarget, log_hint};
use crate::engine::Forward;
use crate::error::{Error, Result};
use crate::influxdb::Influxdb;
use crate::influxql::quoted;
use crate::model::diagnosis::{Check, CheckOutcome, WriteFailure};
use crate::model::hints::NoInstance;
use crate::model::invocation::shell_word;
use crate::model::observed::ServerResponse;
use crate::model::reports::{SKEW, span};
use crate::model::role::Role;
use crate::model::server_status::ServerState;
use crate::model::stack::{EngineLocation, Stack};
use crate::model::status::{ObjectState, Status};

pub(super) const INFLUXDB: Check = Check::new("influxdb", "InfluxDB");
const DATABASE: Check = Check::new("database", "database");
const WRITE: Check = Check::new("write", "write");
const READ_BACK: Check = Check::new("read_back", "read back");
const CLOCKS: Check = Check::new("clocks", "clocks");
pub(super) const FIELD_TYPES: Check = Check::new("field_types", "field types");

impl Examination<'_> {
    /// Checks the way from Clipper to the database, and returns whether the database contains the probe.
    pub(super) async fn follow_to_influxdb(&mut self, target: &WriteTarget, status: &Status) -> Result<bool> {
        let stack = self.session.stack();
        let is_far = target.url.is_loopback() && stack.container(Role::Influxdb).is_some();
        if let (EngineLocation::Elsewhere(host), true, None) = (&stack.engine, is_far, self.from) {
            let why = format!(
                "{} is the loopback of {host}: run this command there, or name a container of that engine with --from",
                target.address()
            );
            self.note(INFLUXDB, CheckOutcome::Skipped(why), Duration::ZERO);
            return Ok(false);
        }
        let influxdb = match self.from {
            Some(container) => self.ask_from_inside(container, target).await?,
            None if target.from_file => self.session.influxdb_at(&target.url)?,
            None => self.session.influxdb(&self.connections.influxdb),
        };
        let Some(has_database) = self.greet(&influxdb, target, status).await? else { return Ok(false) };
        let outcome = self.database(has_database, target, status, &influxdb).await;
        if !self.timed(DATABASE, std::future::ready(outcome)).await {
            return Ok(false);
        }
        let started = Instant::now();
        let now = crate::clock::now();
        self.written = Some((influxdb.clone(), target.database.clone()));
        let written = influxdb.write_probe(&target.database, &self.id, now).await;
        let is_written = written.is_ok();
        let outcome = match written {
            Ok(()) => CheckOutcome::Passed("a point in Clipper's format is accepted".into()),
            Err((failure, why)) => refused_write(failure, &why, target, stack, &influxdb).await,
        };
        self.note(WRITE, outcome, started.elapsed());
        let mut is_stored = false;
        if is_written {
            let outcome = self.read_back(&influxdb, target, status).await;
            is_stored = self.timed(READ_BACK, std::future::ready(outcome)).await;
        }
        let clocks = self.clocks(&influxdb, status);
        let (started, outcome) = (Instant::now(), clocks.await);
        self.note(CLOCKS, outcome, started.elapsed());
        Ok(is_stored)
    }

    /// Checks that InfluxDB answers, and returns whether it has the database.
    async fn greet(&mut self, influxdb: &Influxdb, target: &WriteTarget, status: &Status) -> Result<Option<bool>> {
        let started = Instant::now();
        let within = self.session.probe_limit(&self.connections.influxdb);
        let (response, version) = influxdb.observe(&target.database, within).await;
        let has_database = response.state().map(|stored| stored.has_database);
        let outcome = match response {
            ServerResponse::Answering(_) => CheckOutcome::Passed(format!(
                "version {} answers at {}",
                version.unwrap_or_default(),
                self.place(target)
            )),
            ServerResponse::Refusing(message) => CheckOutcome::failed(
                format!("InfluxDB at {} requires a login ({message}), and Clipper sends none", target.address()),
                "turn off authentication there, or use a proxy that adds the credentials",
            ),
            ServerResponse::Unusable(what) => CheckOutcome::failed(
                format!("{what} answers at {}", self.place(target)),
                self.correct_address(target, status, "run InfluxDB 1.x there"),
            ),
            ServerResponse::Failing(why) => CheckOutcome::failed(
                format!("InfluxDB at {} answers, but clipper-metrics {why}", self.place(target)),
                "check InfluxDB's log; -v shows every request",
            ),
            ServerResponse::Silent(why) | ServerResponse::Starting(why) => {
                if let Some(why) = self.forward.as_ref().and_then(Forward::fault) {
                    return Err(Error::Absent {
                        what: format!("--from cannot send requests from inside a container: {why}"),
                        hint: "InfluxDB's image must contain bash and sleep, as the official image does".into(),
                    });
                }
                self.silent(target, status, &why)
            }
            ServerResponse::Unasked | ServerResponse::NotTheContainer => {
                CheckOutcome::Skipped("no request was sent".into())
            }
        };
        self.note(INFLUXDB, outcome, started.elapsed());
        Ok(has_database)
    }

    /// InfluxDB, reached from inside a container's network.
    async fn ask_from_inside(&mut self, container: &str, target: &WriteTarget) -> Result<Influxdb> {
        let stack = self.session.stack();
        let docker = self.session.docker()?;
        let image = match stack.container(Role::Influxdb) {
            Some(spec) => docker.image(spec).await?.map(|image| image.id),
            None => None,
        };
        let image = image.ok_or_else(|| Error::Absent {
            what: "--from starts a container from this instance's InfluxDB image, which that engine does not have"
                .into(),
            hint: "omit --from, or use it with an InfluxDB container of clipper-metrics".into(),
        })?;
        let (host, port) = (target.url.host.as_str(), target.url.port);
        let forward = docker.forward(&stack.instance, &self.helper, &image, container, host, port).await?;
        let influxdb = self.session.influxdb_through(Some(forward.port()), &target.url);
        self.forward = Some(forward);
        influxdb
    }

    /// The address of the requests, and the container that they come from.
    fn place(&self, target: &WriteTarget) -> String {
        match self.from {
            Some(container) => format!("{}, seen from container {container}", target.address()),
            None => target.address(),
        }
    }

    /// The outcome if no server answers.
    fn silent(&self, target: &WriteTarget, status: &Status, why: &str) -> CheckOutcome {
        let stack = self.session.stack();
        if let Some(container) = self.from {
            let inside = self.forward.as_ref().and_then(Forward::failure).unwrap_or_else(|| why.to_string());
            let itself =
                if target.url.is_loopback() { ": inside the container, that is the container itself" } else { "" };
            return CheckOutcome::failed(
                format!("nothing answers at {} in container {container} ({inside}){itself}", target.address()),
                self.attach(container),
            );
        }
        if let Some(NoInstance { what, hint }) = &status.no_instance {
            return CheckOutcome::failed(what, hint);
        }
        let state = match status.servers.influxdb.state {
            ServerState::Absent => Some("is not running".to_string()),
            ServerState::Stopped => {
                let detail = status.servers.influxdb.detail.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                Some(format!("is stopped{detail}"))
            }
            _ => None,
        };
        if let Some(state) = state {
            return CheckOutcome::failed(format!("InfluxDB {state}"), format!("`{}` starts it", stack.command("up")));
        }
        let logs = log_hint(stack, Role::Influxdb);
        if status.servers.influxdb.state == ServerState::Crashing {
            return CheckOutcome::failed("InfluxDB's container keeps crashing", logs);
        }
        CheckOutcome::failed(
            format!("nothing answers at {} ({why})", self.place(target)),
            self.correct_address(target, status, &logs),
        )
    }

    /// Checks that the database exists.
    async fn database(
        &self,
        is_there: bool,
        target: &WriteTarget,
        status: &Status,
        influxdb: &Influxdb,
    ) -> CheckOutcome {
        let stack = self.session.stack();
        if is_there {
            return CheckOutcome::Passed(format!("{} exists", target.database));
        }
        let misses = stack.clipper.as_ref().is_some_and(|file| !file.reaches(stack));
        if misses && status.database.state == ObjectState::InSync {
            return self.another_influxdb(target, status);
        }
        let elsewhere = influxdb.elsewhere(&target.database).await.unwrap_or_default();
        let what = format!("database {} does not exist at {}", target.database, target.address());
        if elsewhere.is_empty() {
            return CheckOutcome::failed(what, format!("`{}` creates it", stack.command("up")));
        }
        let names = elsewhere.join(", ");
        CheckOutcome::failed(
            format!("{what}; Clipper's reports are in {names}"),
            format!(
                "set influx_dbname in Clipper's file to {}, or create {} with `{}`",
                elsewhere[0],
                target.database,
                stack.command("up")
            ),
        )
    }

    fn another_influxdb(&self, target: &WriteTarget, status: &Status) -> CheckOutcome {
        let hint = self.from.map_or_else(
            || "set influx_ip and influx_port in Clipper's file to the server that Grafana reads".into(),
            |container| self.attach(container),
        );
        CheckOutcome::failed(
            format!(
                "Clipper writes to another InfluxDB: the server at {} is not the one that Grafana reads, at {}",
                target.address(),
                status.servers.influxdb.url
            ),
            hint,
        )
    }

    /// The hint that lets Clipper in a container reach InfluxDB, whose published address leads elsewhere from there.
    fn attach(&self, container: &str) -> String {
        let stack = self.session.stack();
        let Some(spec) = stack.container(Role::Influxdb) else {
            return "set influx_ip to an address that the container can reach".into();
        };
        let connect = format!("network connect {} {}", stack.instance, shell_word(container));
        format!(
            "attach it with `{}` and set influx_ip = \"{}\", influx_port = {}",
            stack.invocation.docker(&connect),
            spec.name,
            Role::Influxdb.port()
        )
    }

    /// The hint if the address in Clipper's file leads to no server, or to another one.
    fn correct_address(&self, target: &WriteTarget, status: &Status, otherwise: &str) -> String {
        let stack = self.session.stack();
        if let Some(container) = self.from {
            return self.attach(container);
        }
        let real = stack.url(Role::Influxdb);
        let answers = status.servers.influxdb.state == ServerState::Answering;
        if target.from_file && answers && status.servers.influxdb.url != target.url.to_string() {
            return format!(
                "InfluxDB answers at {}: set influx_ip and influx_port in Clipper's file to that address",
                status.servers.influxdb.url
            );
        }
        if target.from_file && target.url.to_string() != real.to_string() {
            return format!(
                "set influx_ip and influx_port in Clipper's file to {}:{}",
                real.host_for_clipper(),
                real.port
            );
        }
        otherwise.into()
    }

    /// Checks that the database of the dashboard contains the probe.
    async fn read_back(&self, influxdb: &Influxdb, target: &WriteTarget, status: &Status) -> CheckOutcome {
        let found = |influxdb: Influxdb| async move { influxdb.has_probe(&target.database, &self.id).await };
        let own = if status.servers.influxdb.state == ServerState::Answering {
            found(self.session.influxdb(&self.connections.influxdb)).await
        } else {
            found(influxdb.clone()).await
        };
        match own {
            Ok(true) => return CheckOutcome::Passed("the point is stored".into()),
            // Another InfluxDB need not have that database.
            Ok(false) | Err(Error::Answer { .. }) => {}
            Err(error) => return CheckOutcome::failed(error.to_string(), "-v shows every request"),
        }
        match found(influxdb.clone()).await {
            Ok(true) => self.another_influxdb(target, status),
            Ok(false) => dropped(influxdb, target).await,
            Err(error) => CheckOutcome::failed(error.to_string(), "-v shows every request"),
        }
    }

    /// Checks that this machine, InfluxDB and Grafana agree on the time.
    async fn clocks(&mut self, influxdb: &Influxdb, status: &Status) -> CheckOutcome {
        let here = crate::clock::now();
        let mut clocks = vec![("InfluxDB", influxdb.clock().await.ok().flatten())];
        if status.servers.grafana.state == ServerState::Answering
            && let Ok(grafana) = self.session.grafana(&mut self.connections.grafana).await
        {
            clocks.push(("Grafana", grafana.clock().await.ok().flatten()));
        }
        for (name, clock) in &clocks {
            let Some(clock) = clock else { continue };
            let apart = clock - here;
            if apart.abs() > SKEW {
                let (place, distance) = (if apart > 0 { "ahead of" } else { "behind" }, span(apart.abs()));
                return CheckOutcome::failed(
                    format!("{name}'s clock is {distance} {place} this machine's"),
                    "set both clocks: Clipper dates its reports, and panels use the clocks of InfluxDB and of the browser",
                );
            }
        }
        if clocks.iter().all(|(_, clock)| clock.is_none()) {
            return CheckOutcome::Skipped("no server reports its time".into());
        }
        CheckOutcome::Passed("the clocks agree".into())
    }
}

/// The outcome of a write that InfluxDB rejected.
async fn refused_write(
    failure: WriteFailure,
    why: &str,
    target: &WriteTarget,
    stack: &Stack,
    influxdb: &Influxdb,
) -> CheckOutcome {
    let database = &target.database;
    match failure {
        WriteFailure::NoDatabase => CheckOutcome::failed(
            format!("database {database} does not exist at {}: {why}", target.address()),
            format!("`{}` creates it", stack.command("up")),
        ),
        WriteFailure::DiskFull => CheckOutcome::failed(
            format!("InfluxDB's disk is full, so it rejects every report: {why}"),
            format!(
                "free disk space there (`{}` shows its use), or set a shorter --retention",
                stack.invocation.docker("system df")
            ),
        ),
        WriteFailure::Limit(limit) => CheckOutcome::failed(
            format!("InfluxDB rejects new series in database {database}, because its limit {limit} is reached: {why}"),
            format!(
                "raise {limit} in the section [data] of InfluxDB's configuration (0 means no limit), or drop series that are not needed"
            ),
        ),
        WriteFailure::BeyondRetention => retention(influxdb, target, Some(why)).await,
        WriteFailure::FieldType => CheckOutcome::failed(
            format!("database {database} contains a field whose type differs from Clipper's: {why}"),
            "drop the measurement that InfluxDB names, with its points",
        ),
        WriteFailure::Login => CheckOutcome::failed(
            format!("InfluxDB at {} requires a login, and Clipper sends none: {why}", target.address()),
            "turn off authentication there, or use a proxy that adds the credentials",
        ),
        WriteFailure::Unreachable | WriteFailure::Other => {
            CheckOutcome::failed(format!("InfluxDB rejects a point: {why}"), log_hint(stack, Role::Influxdb))
        }
    }
}

/// The outcome if the default retention policy drops current points.
async fn retention(influxdb: &Influxdb, target: &WriteTarget, why: Option<&str>) -> CheckOutcome {
    let (database, statement) = (&target.database, quoted(&target.database));
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    match influxdb.default_retention(database).await.ok().flatten() {
        Some(policy) => CheckOutcome::failed(
            format!(
                "the retention policy {} of database {database} keeps points for {} and drops current points{why}",
                policy.name, policy.duration
            ),
            format!(
                "lengthen it (`ALTER RETENTION POLICY {} ON {statement} DURATION INF`), and check the clocks",
                quoted(&policy.name)
            ),
        ),
        None => CheckOutcome::failed(
            format!("the default retention policy of database {database} drops current points{why}"),
            format!("lengthen it (`SHOW RETENTION POLICIES ON {statement}` lists it), and check the clocks"),
        ),
    }
}

/// The outcome if InfluxDB accepted a point and does not return it.
async fn dropped(influxdb: &Influxdb, target: &WriteTarget) -> CheckOutcome {
    match influxdb.default_retention(&target.database).await {
        Ok(Some(policy)) if policy.duration != "0s" => retention(influxdb, target, None).await,
        _ => CheckOutcome::failed(
            format!("InfluxDB at {} accepted a point but does not return it", target.address()),
            "check its log, and whether a proxy in between drops writes",
        ),
    }
}

pub(super) async fn field_types(influxdb: &Influxdb, stack: &Stack) -> CheckOutcome {
    let database = &stack.database;
    match influxdb.conflicting_field(database).await {
        Ok((Some((measurement, field, kind)), _)) => CheckOutcome::failed(
            format!(
                "the field {field:?} of {measurement} is of type {kind}, so InfluxDB rejects Clipper's numbers (field type \
                 conflict)"
            ),
            format!(
                "drop the measurement with its points: `DROP MEASUREMENT {}` in database {database}",
                quoted(&measurement)
            ),
        ),
        Ok((None, true)) => CheckOutcome::Passed("numbers, as Clipper writes them".into()),
        Ok((None, false)) => CheckOutcome::Passed("no fields yet".into()),
        Err(error) => CheckOutcome::failed(error.to_string(), "-v shows every request"),
    }
}
