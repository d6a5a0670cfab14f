//! The query that shows whether panels work: sent through the data source like theirs, but
//! bypassing Grafana's caches.

use std::time::{Duration, Instant};

use super::{Api, Grafana, QueryAnswer, numeric_id};
use crate::error::{Error, Result};
use crate::model::hints;
use crate::model::observed::{Query, QueryFault};
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
    /// contradicts correct settings, they are saved again in a later second, if `may_save` is set.
    ///
    /// # Errors
    /// [`Error::NotConverged`] with Grafana's reason if the answer is still wrong at the deadline,
    /// or at once if waiting cannot help.
    pub(crate) async fn verify_query(
        &self,
        stack: &Stack,
        password: Option<&Secret>,
        may_save: bool,
        deadline: Instant,
    ) -> Result<()> {
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
            let fault = QueryFault::of(&why);
            refused_since = (fault == QueryFault::Refused).then(|| refused_since.unwrap_or_else(Instant::now));
            let is_shut =
                refused_since.is_some_and(|since| desired.is_on_engines_host() && since.elapsed() > REFUSED_TIMEOUT);
            let hopeless = saves > 0 && (fault == QueryFault::Permanent || is_shut);
            if hopeless || Instant::now() >= deadline {
                let reaches_loopback = cfg!(target_os = "macos") && stack.engine == EngineLocation::Here;
                return Err(Error::NotConverged {
                    rest: format!("Grafana cannot query database {} at {}: {why}", desired.database, desired.url),
                    after: Some(started.elapsed()),
                    hint: hints::way_to_influxdb(desired, fault, reaches_loopback),
                });
            }
            if saved.elapsed() > BETWEEN_SAVES && saves < MAX_SAVES {
                if may_save {
                    self.save_data_source(stack, password, Some(&desired.made_for())).await?;
                }
                saved = Instant::now();
                saves += 1;
            }
            crate::backoff::pause(&mut backoff).await;
        }
    }
}

impl QueryFault {
    /// Grafana's answers contain the reason only as text. Grafana before 10 uses other words for a refused connection.
    fn of(why: &str) -> Self {
        let why = why.to_lowercase();
        let has = |phrases: &[&str]| phrases.iter().any(|phrase| why.contains(phrase));
        if has(&["no such host", "server misbehaving", "authorization failed", "unable to parse authentication"]) {
            Self::Permanent
        } else if has(&["connection refused"]) {
            Self::Refused
        } else {
            Self::Other
        }
    }
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

    #[test]
    fn the_cause_is_recognized_by_grafanas_words() {
        for (why, fault) in [
            ("dial tcp 172.17.0.1:8086: connect: Connection refused", QueryFault::Refused),
            ("authorization failed", QueryFault::Permanent),
            ("dial tcp: lookup influxdb: no such host", QueryFault::Permanent),
            ("i/o timeout", QueryFault::Other),
        ] {
            assert_eq!(QueryFault::of(why), fault, "{why}");
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
