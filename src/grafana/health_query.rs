//! The query that shows whether panels work: sent through the data source like theirs, but
//! bypassing Grafana's caches.

use std::time::{Duration, Instant};

use super::{Api, Grafana, QueryAnswer, numeric_id};
use crate::error::{Error, Result};
use crate::model::container_config::ContainerConfig;
use crate::model::observed::Query;
use crate::model::stack::{DesiredDataSource, EngineLocation, Secret, Stack};
use crate::model::text::excerpt;

/// A query that fails for a missing database; most others succeed with an empty result.
pub(super) const HEALTH_QUERY: &str = "SHOW RETENTION POLICIES";
/// Grafana distinguishes saves by whole seconds; after two within one second, the old settings stay in force.
const BETWEEN_SAVES: Duration = Duration::from_millis(1_100);
/// How long an InfluxDB that answers here may refuse Grafana, whose caches last 5 s.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(10);
/// How often correct settings are saved again.
const MAX_SAVES: usize = 3;

impl Grafana {
    /// Sends the health query through the data source as panels do, bypassing Grafana's cache.
    pub(super) async fn run_health_query(&self, source: &DesiredDataSource, id: Option<u64>) -> Result<Query> {
        let DesiredDataSource { uid, database, .. } = source;
        let answer = match self.send_statement(uid, id, database, ["now-5m", "now"], HEALTH_QUERY).await {
            // Grafana waits longer for InfluxDB than this program waits for Grafana.
            Err(Error::Http { why, .. }) => return Ok(Query::Failing(format!("Grafana's query got {why}"))),
            answer => answer?,
        };
        Ok(classify(self.api(), answer.status, answer.json(), || answer.message()))
    }

    /// Repeats a query through the data source until its answer is correct. If the answer
    /// contradicts correct settings, they are saved again in a later second.
    ///
    /// # Errors
    /// [`Error::NotConverged`] with Grafana's reason if the answer is still wrong at the deadline,
    /// or at once if waiting cannot help.
    pub(crate) async fn verify_query(&self, stack: &Stack, password: Option<&Secret>, deadline: Instant) -> Result<()> {
        let desired = &stack.data_source;
        let started = Instant::now();
        let mut saved = started;
        let mut saves = 0;
        let mut refused_since = None;
        let mut backoff = Duration::from_millis(50);
        loop {
            let id = match self.api() {
                Api::Numeric => numeric_id(&self.data_sources().await?, &desired.uid),
                Api::Uid => None,
            };
            let why = match self.run_health_query(desired, id).await? {
                Query::Ok => return Ok(()),
                Query::Failing(why) => why,
                Query::Unasked => "the data source does not exist".into(),
            };
            refused_since = is_refused(&why).then(|| refused_since.unwrap_or_else(Instant::now));
            let is_shut =
                refused_since.is_some_and(|since| is_on_their_machine(desired) && since.elapsed() > REFUSED_TIMEOUT);
            let hopeless = saves > 0 && (is_permanent(&why) || is_shut);
            if hopeless || Instant::now() >= deadline {
                let reaches_loopback = cfg!(target_os = "macos") && stack.engine == EngineLocation::Here;
                let hint = way_to_influxdb(desired, &why, reaches_loopback);
                return Err(Error::NotConverged {
                    rest: format!("Grafana cannot query database {} at {}: {why}", desired.database, desired.url),
                    after: Some(started.elapsed()),
                    hint,
                });
            }
            if saved.elapsed() > BETWEEN_SAVES && saves < MAX_SAVES {
                self.save_data_source(stack, password, false).await?;
                saved = Instant::now();
                saves += 1;
            }
            crate::backoff::pause(&mut backoff).await;
        }
    }
}

/// Whether waiting cannot help: the name of InfluxDB's host is unknown, or its login is rejected.
/// Grafana's answers contain the reason only as text.
fn is_permanent(why: &str) -> bool {
    let why = why.to_lowercase();
    ["no such host", "server misbehaving", "authorization failed", "unable to parse authentication"]
        .iter()
        .any(|phrase| why.contains(phrase))
}

/// Whether the connection was refused. Grafana before 10 uses other words, so the wait lasts until
/// the deadline.
fn is_refused(why: &str) -> bool {
    why.to_lowercase().contains("connection refused")
}

/// Whether the data source's address is the name of the engine's host inside containers.
fn is_on_their_machine(source: &DesiredDataSource) -> bool {
    let authority = source.url.split_once("://").map_or("", |(_, rest)| rest);
    authority.split([':', '/']).next() == Some(ContainerConfig::HOST_NAME)
}

/// The hint if Grafana cannot query InfluxDB. `reaches_loopback` is set where containers reach servers on the loopback of
/// the engine's host: the engines of macOS forward the host's name to it.
fn way_to_influxdb(source: &DesiredDataSource, why: &str, reaches_loopback: bool) -> String {
    let give = "set --data-source-url to InfluxDB's address as Grafana's server sees it";
    if !is_on_their_machine(source) || is_permanent(why) {
        return give.into();
    }
    if is_refused(why) && reaches_loopback {
        return format!("check that InfluxDB runs on this machine and listens on that port of 127.0.0.1, or {give}");
    }
    if is_refused(why) {
        return format!(
            "a container cannot reach a server that listens on loopback only: let InfluxDB listen on another address \
             (bind-address under [http] in influxdb.conf), where every host that reaches that address can read and \
             write metrics, or {give}"
        );
    }
    format!("check that no firewall blocks containers from this machine's ports, or {give}")
}

/// The meaning of an answer to the query.
#[must_use]
pub fn classify(api: Api, status: u16, answer: QueryAnswer, message: impl FnOnce() -> String) -> Query {
    let result = answer.only(api);
    let has_rows = match api {
        Api::Uid => !result.frames.is_empty(),
        Api::Numeric => !result.series.is_empty(),
    };
    if status == 200 && has_rows {
        return Query::Ok;
    }
    let why = match result.error {
        Some(error) => excerpt(&error, 300),
        None if status == 502 => "Grafana cannot reach InfluxDB".into(),
        None if status == 200 => "the answer is empty".into(),
        None => message(),
    };
    Query::Failing(why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::json::read;
    use super::*;
    use crate::samples;

    #[test]
    fn the_hint_depends_on_the_failure() {
        let source = |url: &str| DesiredDataSource { url: url.into(), ..samples::data_source() };
        let theirs = source("http://host.docker.internal:8086");
        let refused = "dial tcp 172.17.0.1:8086: connect: Connection refused";
        assert!(is_refused(refused) && !is_refused("i/o timeout"));
        assert!(way_to_influxdb(&theirs, refused, false).contains("bind-address"));
        assert!(way_to_influxdb(&theirs, refused, true).contains("runs on this machine and listens"));
        assert!(way_to_influxdb(&theirs, "i/o timeout", false).contains("firewall"));
        for (url, why) in [
            ("http://host.docker.internal:8086", "authorization failed"),
            ("http://influxdb:8086", refused),
            ("http://my.host.docker.internal.example:8086", refused),
        ] {
            assert!(way_to_influxdb(&source(url), why, false).starts_with("set --data-source-url"), "{url} {why}");
        }
    }

    #[test]
    fn an_empty_answer_is_a_failure() {
        let words = || "words".to_string();
        let empty = json!({"results": {"A": {"status": 200, "frames": []}}});
        assert!(matches!(classify(Api::Uid, 200, read(empty), words), Query::Failing(_)));
        let full = json!({"results": {"A": {"frames": [{}]}}});
        assert_eq!(classify(Api::Uid, 200, read(full), words), Query::Ok);
        let error = json!({"results": {"A": {"error": "database not found: d"}}});
        assert_eq!(classify(Api::Uid, 400, read(error), words), Query::Failing("database not found: d".into()));
    }
}
