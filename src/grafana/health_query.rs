//! The query that shows whether panels work: sent through the data source like theirs, but
//! bypassing Grafana's caches.

use super::{Api, Grafana, QueryAnswer, numeric_id};
use crate::error::{Error, Result};
use crate::model::observed::{Query, QueryFault};
use crate::model::stack::DesiredDataSource;
use crate::model::text::excerpt;

/// A query that fails for a missing database; most others succeed with an empty result.
pub(super) const HEALTH_QUERY: &str = "SHOW RETENTION POLICIES";

impl Grafana {
    /// Sends the health query through the data source as panels do, bypassing Grafana's cache.
    pub(super) async fn run_health_query(&self, source: &DesiredDataSource, id: Option<u64>) -> Result<Query> {
        let DesiredDataSource { uid, database, .. } = source;
        let answer = match self.send_statement(uid, id, database, ["now-5m", "now"], HEALTH_QUERY).await {
            // Grafana waits longer for InfluxDB than this program waits for Grafana.
            Err(Error::Http { why, .. }) => return Ok(Query::Failing(format!("Grafana's query got {why}"))),
            Err(Error::Answer { why, .. }) => return Ok(Query::Failing(why)),
            answer => answer?,
        };
        Ok(classify(self.api(), answer.status, answer.json(), || answer.message()))
    }

    /// Sends the health query through the desired data source.
    ///
    /// # Errors
    /// If Grafana does not answer.
    pub(crate) async fn query_database(&self, desired: &DesiredDataSource) -> Result<Query> {
        let id = match self.api() {
            Api::Numeric => numeric_id(&self.data_sources().await?, &desired.uid),
            Api::Uid => None,
        };
        self.run_health_query(desired, id).await
    }
}

impl QueryFault {
    /// Grafana's answers contain the reason only as text. Grafana before 10 uses other words for a refused connection.
    #[must_use]
    pub(crate) fn of(why: &str) -> Self {
        let why = why.to_lowercase();
        let has = |phrases: &[&str]| phrases.iter().any(|phrase| why.contains(phrase));
        if has(&["no such host", "server misbehaving"]) {
            Self::Host
        } else if has(&["authorization failed", "unable to parse authentication", "401 unauthorized"]) {
            Self::Login
        } else if has(&["error authorizing query", "not authorized to"]) {
            Self::Rights
        } else if has(&["x509: certificate signed by unknown authority"]) {
            Self::Authority
        } else if has(&["x509: "]) {
            Self::Certificate
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
            ("authorization failed", QueryFault::Login),
            ("dial tcp: lookup influxdb: no such host", QueryFault::Host),
            (
                "error authorizing query: me not authorized to execute statement 'x', requires READ on d",
                QueryFault::Rights,
            ),
            ("InfluxDB returned error status: 403 Forbidden", QueryFault::Other),
            ("tls: failed to verify certificate: x509: certificate signed by unknown authority", QueryFault::Authority),
            ("x509: certificate has expired or is not yet valid: current time …", QueryFault::Certificate),
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
