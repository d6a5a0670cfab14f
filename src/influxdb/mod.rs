//! The client of InfluxDB 1.x: databases, queries and writes.
//!
//! InfluxDB reports errors of statements with status 200.

pub(crate) mod activity;
pub(crate) mod probe;

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::http::{Body, Http, Request, Response, escaped};
use crate::influxql::quoted;
use crate::model::observed::{InfluxdbState, ServerResponse, Unreadable};
use crate::model::retention::Retention;
use crate::model::role::Role;
use crate::model::text::excerpt;
use crate::model::version::Version;

const DAY: u64 = 86_400;
/// The time limit of an answer that costs the server nothing.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// InfluxDB's message for an existing database with another retention policy.
const POLICY_CONFLICT: &str = "conflicts with an existing policy";

/// An InfluxDB server.
#[derive(Clone)]
pub(crate) struct Influxdb {
    http: Http,
}

/// One series in the result of a query.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Series {
    /// The measurement; empty in results without one.
    #[serde(default)]
    pub(crate) name: String,
    /// Names of the columns.
    #[serde(default)]
    pub(crate) columns: Vec<String>,
    /// One row per point, with as many cells as columns.
    #[serde(default, rename = "values")]
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// One value in the result of a query.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    /// No value in this row.
    Null,
    /// A boolean field, or a flag of a `SHOW` statement.
    Flag(bool),
    /// A whole number, such as a time in milliseconds since 1970.
    Whole(i64),
    /// Any other number.
    Number(f64),
    /// A string field, a tag or a name.
    Text(String),
}

impl Cell {
    /// The text, unless it is another kind of value.
    #[must_use]
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, whole or not.
    #[must_use]
    pub(crate) const fn number(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "fields of Clipper are floats in InfluxDB")]
            Self::Whole(number) => Some(*number as f64),
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl Series {
    /// The cell of a row by its column's name.
    #[must_use]
    pub(crate) fn cell<'a>(&self, row: &'a [Cell], column: &str) -> Option<&'a Cell> {
        let index = self.columns.iter().position(|name| name == column)?;
        row.get(index)
    }
}

impl Influxdb {
    /// A client for the server behind `http`.
    #[must_use]
    pub(crate) const fn new(http: Http) -> Self {
        Self { http }
    }

    /// The server's state and content, with its version.
    pub(crate) async fn observe(
        &self,
        database: &str,
        within: Duration,
    ) -> (ServerResponse<InfluxdbState>, Option<String>) {
        let version = match self.version(within).await {
            (ServerResponse::Answering(()), Some(version)) => version,
            (answer, version) => return (answer.discard(), version),
        };
        let answer = match self.databases().await {
            Ok(names) => {
                let has_database = names.iter().any(|name| name == database);
                // A policy that may not be read stays unknown, which is not an error.
                let policy = if has_database { self.default_retention(database).await.ok().flatten() } else { None };
                let retention = policy.and_then(|policy| Retention::parse(&policy.duration));
                ServerResponse::Answering(InfluxdbState { has_database, retention })
            }
            Err(Error::Refused { message: why, .. } | Error::Forbidden { why, .. }) => ServerResponse::Refusing(why),
            Err(Error::Answer { doing, status, why, .. }) => ServerResponse::Failing(Unreadable { doing, status, why }),
            Err(error) => ServerResponse::Silent(error.to_string()),
        };
        (answer, Some(version))
    }

    /// Whether Clipper can use the server, with its version if known. Credentials are sent only if the server, or a
    /// proxy in front of it, requires them for this request.
    pub(crate) async fn version(&self, within: Duration) -> (ServerResponse<()>, Option<String>) {
        match self.ping(Some(within)).await {
            Ok(ping) => usable_version(&ping),
            Err(Error::Http { why, .. }) => (ServerResponse::Silent(why), None),
            Err(Error::Answer { why, .. }) => {
                (ServerResponse::Unusable(format!("a server that is not InfluxDB ({why})")), None)
            }
            Err(error) => (ServerResponse::Silent(error.to_string()), None),
        }
    }

    async fn ping(&self, within: Option<Duration>) -> Result<Response> {
        let request = || Request { within, ..Request::new("GET", "/ping") };
        let ping = self.http.anonymous().send(request()).await?;
        if requires_login(&ping) && self.http.has_credentials() { self.http.send(request()).await } else { Ok(ping) }
    }

    /// The server's clock in milliseconds since 1970, to the second.
    ///
    /// # Errors
    /// If the server does not answer.
    pub(crate) async fn clock(&self) -> Result<Option<i64>> {
        Ok(self.ping(None).await?.date())
    }

    /// All databases, including InfluxDB's own.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub(crate) async fn databases(&self) -> Result<Vec<String>> {
        let series = self.query(None, "SHOW DATABASES").await?;
        let names = series.iter().flat_map(|series| &series.rows).filter_map(|row| row.first()?.text());
        Ok(names.map(String::from).collect())
    }

    /// Creates a database with a retention period. An existing one is kept with its current period.
    ///
    /// # Errors
    /// If the server returns an error.
    pub(crate) async fn create_database(&self, name: &str, retention: Option<Retention>) -> Result<()> {
        let mut statement = format!("CREATE DATABASE {}", quoted(name));
        if let Some(retention) = retention {
            statement.push_str(&format!(" WITH DURATION {} SHARD DURATION {}", retention.influxql(), shard(retention)));
        }
        match self.query(None, &statement).await {
            // Another process created it, with another period.
            Err(Error::Answer { why, .. }) if why.contains(POLICY_CONFLICT) => Ok(()),
            result => {
                // A new database has no grants that this one could replace.
                let read = self.http.user().map(|user| grant("READ", name, user));
                let statements = std::iter::once(statement).chain(read).collect();
                result.map(drop).map_err(|error| requiring(error, format!("create database {name}"), statements))
            }
        }
    }

    /// The error for an answer with status 401 or 403. `grant` allows the attempt.
    fn rejected(&self, doing: String, grant: Option<String>, answer: &Response) -> Error {
        let (url, why) = (self.http.address().into(), answer.message());
        if lacks_right(answer) {
            return Error::Forbidden { doing, url, why, statements: grant.into_iter().collect() };
        }
        Error::Refused { role: Role::Influxdb, url, message: why }
    }

    /// Sets the retention period of the database's default policy, unless it has changed since it
    /// was read. Shard groups are dropped as a whole, so their duration is set as InfluxDB itself
    /// would choose it. A database whose default policy was dropped rejects points until it has one again.
    ///
    /// # Errors
    /// [`Error::Raced`] if it has changed, [`Error::Absent`] if there is no default policy, otherwise if the server
    /// returns an error.
    pub(crate) async fn set_retention(&self, database: &str, from: Option<Retention>, to: Retention) -> Result<()> {
        let policy = self.default_retention(database).await?;
        if from.is_some() && policy.as_ref().and_then(|policy| Retention::parse(&policy.duration)) != from {
            return Err(Error::Raced {
                doing: format!("set the retention period of database {database}"),
                why: "another process has just set it".into(),
            });
        }
        let Some(policy) = policy else { return Err(no_default_policy(database, to)) };
        let statement = format!(
            "ALTER RETENTION POLICY {} ON {} DURATION {} SHARD DURATION {}",
            quoted(&policy.name),
            quoted(database),
            to.influxql(),
            shard(to)
        );
        let result = self.query(None, &statement).await.map(drop);
        let doing = format!("set the retention period of database {database}");
        result.map_err(|error| requiring(error, doing, vec![statement]))
    }

    /// Runs one statement. Times are returned in milliseconds since 1970.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub(crate) async fn query(&self, database: Option<&str>, statement: &str) -> Result<Vec<Series>> {
        self.query_within(database, statement, None).await
    }

    /// [`Self::query`] with another time limit.
    ///
    /// # Errors
    /// The same as [`Self::query`].
    pub(crate) async fn query_within(
        &self,
        database: Option<&str>,
        statement: &str,
        within: Option<Duration>,
    ) -> Result<Vec<Series>> {
        Ok(self.query_all(database, &[statement], within).await?.into_iter().next().unwrap_or_default())
    }

    /// Runs several statements in one request; returns their results in order.
    ///
    /// # Errors
    /// The same as [`Self::query`], for the first statement that fails.
    pub(crate) async fn query_all(
        &self,
        database: Option<&str>,
        statements: &[&str],
        within: Option<Duration>,
    ) -> Result<Vec<Vec<Series>>> {
        self.results(database, statements, within).await
    }

    /// [`Self::query_all`] for series of another type: [`Series`] takes several allocations for each row.
    async fn results<S: DeserializeOwned>(
        &self,
        database: Option<&str>,
        statements: &[&str],
        within: Option<Duration>,
    ) -> Result<Vec<Vec<S>>> {
        let statement = statements.join("; ");
        let path = match database {
            Some(name) => format!("/query?epoch=ms&db={}", escaped(name)),
            None => "/query?epoch=ms".into(),
        };
        let body = Body::Form(&[("q", &statement)]);
        let answer = self.http.send(Request { body, within, ..Request::new("POST", &path) }).await?;
        let doing = format!("query InfluxDB: {}", excerpt(&statement, 80));
        if answer.status == 401 || answer.status == 403 {
            let grant = match (database, self.http.user()) {
                // A grant of READ would replace one of WRITE.
                (Some(name), Some(user)) if lacks_right(&answer) => Some(grant("ALL", name, user)),
                _ => None,
            };
            return Err(self.rejected(doing, grant, &answer));
        }
        let failed = |why: String| Error::Answer {
            doing: doing.clone(),
            url: self.http.address().into(),
            status: answer.status,
            why,
        };
        if !answer.is_success() {
            return Err(failed(answer.message()));
        }
        read(&answer.body).map_err(|error| failed(error.unwrap_or_else(|| answer.message())))
    }

    /// Writes lines in the line protocol, with times in nanoseconds since 1970.
    ///
    /// # Errors
    /// If the server rejects any of them.
    pub(crate) async fn write(&self, database: &str, lines: String, within: Duration) -> Result<()> {
        let path = format!("/write?db={}", escaped(database));
        let (body, within) = (Body::Text(lines), Some(within));
        let answer = self.http.send(Request { body, within, ..Request::new("POST", &path) }).await?;
        let doing = format!("write to database {database}");
        match answer.status {
            204 => Ok(()),
            401 | 403 => {
                // The account may already read, and a grant of WRITE would replace that right.
                let grant = self.http.user().map(|user| grant("ALL", database, user));
                Err(self.rejected(doing, grant, &answer))
            }
            status => Err(Error::Answer { doing, url: self.http.address().into(), status, why: answer.message() }),
        }
    }
}

/// The statement that grants a user a right on a database.
#[must_use]
pub(crate) fn grant(right: &str, database: &str, user: &str) -> String {
    format!("GRANT {right} ON {} TO {}", quoted(database), quoted(user))
}

/// Whether InfluxDB itself, not a proxy in front of it, denies a right.
fn lacks_right(answer: &Response) -> bool {
    answer.status == 403 && influxdb_version(answer).is_some()
}

/// Adds to a missing right the statements of an administrator that make the attempt unnecessary.
fn requiring(error: Error, doing: String, statements: Vec<String>) -> Error {
    match error {
        Error::Forbidden { url, why, .. } => Error::Forbidden { doing, url, why, statements },
        error => error,
    }
}

/// Statements that create a database with a retention period, or set the period of an existing one;
/// safe to repeat.
#[must_use]
pub(crate) fn database_statements(name: &str, retention: Option<Retention>) -> Vec<String> {
    let create = format!("CREATE DATABASE {}", quoted(name));
    let keep = retention.map(|retention| {
        // The default policy of a new database. A user may have chosen another one in a database that is restored.
        let (database, duration, shard) = (quoted(name), retention.influxql(), shard(retention));
        format!("ALTER RETENTION POLICY autogen ON {database} DURATION {duration} SHARD DURATION {shard}")
    });
    std::iter::once(create).chain(keep).collect()
}

/// The error for a database whose default policy was dropped. Only a user knows whether another one should replace it.
fn no_default_policy(database: &str, period: Retention) -> Error {
    let on = quoted(database);
    Error::Absent {
        what: format!(
            "database {database} has no default retention policy, so it has no period to set and InfluxDB rejects new \
             points"
        ),
        hint: format!(
            "make one of its policies the default with `ALTER RETENTION POLICY NAME ON {on} DEFAULT` in InfluxDB, or \
             create one with `CREATE RETENTION POLICY autogen ON {on} DURATION {} REPLICATION 1 SHARD DURATION {} \
             DEFAULT`",
            period.influxql(),
            shard(period)
        ),
    }
}

/// The duration of a shard group that InfluxDB chooses for a retention period.
fn shard(retention: Retention) -> &'static str {
    match retention {
        Retention::For(time) if time < Duration::from_secs(2 * DAY) => "1h",
        Retention::For(time) if time <= Duration::from_secs(180 * DAY) => "1d",
        _ => "7d",
    }
}

/// The version that InfluxDB names in every answer.
fn influxdb_version(answer: &Response) -> Option<String> {
    answer.header("x-influxdb-version").map(|version| excerpt(&version, 40))
}

/// Whether Clipper can use this version.
fn is_supported(version: &str) -> bool {
    matches!(Version::parse(version), Some(Version(1, _)))
}

/// Whether InfluxDB, or a proxy that does not name the server behind it, requires a login for a ping. Other servers
/// answer unknown paths with the same status.
fn requires_login(ping: &Response) -> bool {
    let is_basic = |challenge: &str| {
        challenge.split_whitespace().next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))
    };
    let offers_basic = || ping.headers("www-authenticate").any(|challenges| challenges.split(',').any(is_basic));
    ping.status == 401 && influxdb_version(ping).map_or_else(offers_basic, |version| is_supported(&version))
}

/// Whether Clipper can use the server that answered a ping, and its version if it can.
fn usable_version(ping: &Response) -> (ServerResponse<()>, Option<String>) {
    let version = influxdb_version(ping);
    let response = match &version {
        _ if requires_login(ping) => ServerResponse::Refusing(ping.message()),
        Some(version) if is_supported(version) => ServerResponse::Answering(()),
        Some(version) => {
            ServerResponse::Unusable(format!("InfluxDB {version}, which does not support Clipper's protocol,"))
        }
        // The engine's proxy accepts connections before the server behind it listens.
        None if matches!(ping.status, 502..=504) => {
            ServerResponse::Starting(format!("still starting (status {}){}", ping.status, ping.through))
        }
        None => ServerResponse::Unusable(match ping.redirects_to() {
            Some(place) => format!("a redirect to {place}"),
            None => format!("a server that is not InfluxDB{}", ping.through),
        }),
    };
    let is_known = matches!(response, ServerResponse::Answering(()) | ServerResponse::Refusing(_));
    let version = version.filter(|_| is_known).map(|version| version.trim_start_matches('v').to_string());
    (response, version)
}

/// The body of an answer. InfluxDB reports a statement's error in its result, with status 200.
#[derive(Deserialize)]
struct InfluxdbAnswer<S> {
    results: Vec<StatementResult<S>>,
}

#[derive(Deserialize)]
struct StatementResult<S> {
    error: Option<String>,
    #[serde(default = "Vec::new")]
    series: Vec<S>,
}

/// Parses the results of several statements, one list of series each.
///
/// # Errors
/// InfluxDB's error for the first statement that failed; `None` if the body has another format.
pub fn read<S: DeserializeOwned>(body: &[u8]) -> Result<Vec<Vec<S>>, Option<String>> {
    let answer: InfluxdbAnswer<S> = serde_json::from_slice(body).map_err(|_| None)?;
    let read = |result: StatementResult<S>| match result.error {
        Some(error) => Err(Some(excerpt(&error, 300))),
        None => Ok(result.series),
    };
    answer.results.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_answer_causes_a_panic(json in crate::arbitrary::json(&["results", "series", "error", "name", "columns", "values"])) {
            let _ = read::<Series>(json.to_string().as_bytes());
        }
    }

    #[test]
    fn every_kind_of_cell_is_read() {
        let body = br#"{"results": [{"statement_id": 0, "series": [
            {"name": "m", "columns": ["time", "a", "b", "c", "d"], "values": [[1732000000000, null, true, 1.5, "x"]]}
        ]}, {"statement_id": 1}]}"#;
        let answers = read::<Series>(body).unwrap();
        let row =
            [Cell::Whole(1_732_000_000_000), Cell::Null, Cell::Flag(true), Cell::Number(1.5), Cell::Text("x".into())];
        assert_eq!(answers[0][0].rows, [row]);
        assert_eq!(answers[1], []);
    }

    #[test]
    fn an_error_in_an_answer_with_status_200_is_an_error() {
        let body = br#"{"results": [{"statement_id": 0}, {"statement_id": 1, "error": "database not found: x"}]}"#;
        assert_eq!(read::<Series>(body), Err(Some("database not found: x".into())));
    }

    #[test]
    fn an_answer_in_another_format_is_rejected() {
        for body in [r#"{"results": [{"series": [{"values": [1, [2], null]}]}]}"#, "[]", "", r#"{"error": "timeout"}"#]
        {
            assert_eq!(read::<Series>(body.as_bytes()), Err(None), "{body}");
        }
    }
}
