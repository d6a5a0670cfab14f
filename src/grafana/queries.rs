//! Sends queries through a data source as panels do, and reads the answers.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::Index;
use serde_json::{Map, Value};

use super::data_source::DataSource;
use super::json::{Elements, lenient, read};
use super::time_range::Range;
use super::{Api, Grafana, INFLUXDB};
use crate::error::{Error, Result};
use crate::http::{Body, REQUEST, Request, Response, escaped};
use crate::model::text::excerpt;

/// Bypasses the cache in which Grafana keeps a data source's settings for 5 s.
const PAST_THE_CACHE: (&str, &str) = ("X-Grafana-NoCache", "true");
/// The number of points requested per series: enough to see whether there are any.
const MAX_POINTS: u64 = 100;
/// Clipper's report interval, the shortest useful query interval, in milliseconds.
const SHORTEST_INTERVAL: u64 = 15_000;
/// The fields of a query that [`DataQuery`] sets.
const ADDRESS: [&str; 4] = ["datasource", "datasourceId", "intervalMs", "maxDataPoints"];

/// A query with its data source.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DataQuery<'a, Q> {
    datasource: SourceReference<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datasource_id: Option<u64>,
    interval_ms: u64,
    max_data_points: u64,
    #[serde(flatten)]
    query: Q,
}

#[derive(Serialize)]
struct SourceReference<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    uid: &'a str,
}

impl<'a, Q> DataQuery<'a, Q> {
    fn new(uid: &'a str, datasource_id: Option<u64>, interval_ms: u64, query: Q) -> Self {
        let datasource = SourceReference { kind: INFLUXDB, uid };
        Self { datasource, datasource_id, interval_ms, max_data_points: MAX_POINTS, query }
    }
}

impl<'a> DataQuery<'a, Map<String, Value>> {
    /// The query of a panel, sent to this data source instead of its own.
    fn of_target(uid: &'a str, datasource_id: Option<u64>, interval_ms: u64, mut target: Map<String, Value>) -> Self {
        target.retain(|name, _| !ADDRESS.contains(&name.as_str()));
        Self::new(uid, datasource_id, interval_ms, target)
    }
}

/// A statement that lists something.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    ref_id: &'static str,
    raw_query: bool,
    result_format: &'static str,
    query: &'a str,
}

#[derive(Serialize)]
struct QueryRequest<'a, Q> {
    from: &'a str,
    to: &'a str,
    queries: &'a [DataQuery<'a, Q>],
}

lenient! {
    pub struct QueryAnswer {
        /// By name; from the proxy, in order.
        results: Value,
    }

    /// The result of one query; only versions before 9 and the proxy return series.
    pub(super) struct QueryResult {
        pub(super) error: Option<String>,
        pub(super) frames: Elements<Frame>,
        pub(super) series: Elements<ResultSeries>,
    }

    pub(super) struct Frame {
        schema: Schema,
        data: FrameData,
    }

    struct Schema {
        fields: Elements<Field>,
    }

    struct Field {
        name: String,
    }

    struct FrameData {
        /// One list for each field.
        values: Elements<Elements<Value>>,
    }

    pub(super) struct ResultSeries {
        columns: Elements<String>,
        /// The rows of InfluxDB's own answer.
        values: Elements<Elements<Value>>,
        /// The points of Grafana's answer.
        points: Elements<Value>,
    }
}

impl QueryAnswer {
    /// The result of the only query.
    pub(super) fn only(mut self, api: Api) -> QueryResult {
        match api {
            Api::Uid => self.take("A"),
            Api::Numeric => self.take(0),
        }
    }

    fn take(&mut self, query: impl Index) -> QueryResult {
        self.results.get_mut(query).map(|result| read(result.take())).unwrap_or_default()
    }
}

impl QueryResult {
    /// The number of points.
    fn points(&self) -> usize {
        let in_frames = self.frames.iter().map(|frame| frame.data.values.first().map_or(0, |values| values.len()));
        in_frames.chain(self.series.iter().map(|series| series.points.len())).sum()
    }

    /// One text for each row.
    fn listed(&self) -> Vec<String> {
        let of_series = self.series.iter().flat_map(ResultSeries::listed);
        self.frames.iter().flat_map(Frame::listed).chain(of_series).collect()
    }
}

impl ResultSeries {
    fn listed(&self) -> Vec<String> {
        let column = listed_column(&self.columns.iter().map(String::as_str).collect::<Vec<_>>());
        self.values.iter().filter_map(|row| row.get(column)).map(shown).collect()
    }
}

impl Frame {
    fn listed(&self) -> Vec<String> {
        let column = listed_column(&self.schema.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>());
        self.data.values.get(column).into_iter().flat_map(|values| values.iter()).map(shown).collect()
    }
}

/// The column to list: the values of a tag, otherwise the first that is not a time.
fn listed_column(names: &[&str]) -> usize {
    let named = names.iter().position(|name| ["value", "Value"].contains(name));
    named.unwrap_or_else(|| usize::from(names.first().is_some_and(|name| name.eq_ignore_ascii_case("time"))))
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

/// The reason why a query has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QueryFailure {
    /// InfluxDB did not answer.
    Transport(String),
    /// InfluxDB or Grafana rejected the query, or its result is too large.
    Rejected(String),
}

impl QueryFailure {
    /// Classifies Grafana's error about one query, which consists of the server's message alone.
    fn of(why: &str) -> Self {
        let why = excerpt(why, 300);
        if is_transport(&why) { Self::Transport(why) } else { Self::Rejected(why) }
    }

    /// Classifies Grafana's error about a whole request.
    fn of_status(status: u16, why: String) -> Self {
        if matches!(status, 502 | 504) || is_transport(&why) { Self::Transport(why) } else { Self::Rejected(why) }
    }

    pub(super) fn into_words(self) -> String {
        match self {
            Self::Transport(why) | Self::Rejected(why) => why,
        }
    }
}

/// Whether a message comes from Go's network library. InfluxDB's own messages about a query can
/// contain "EOF" as well.
fn is_transport(why: &str) -> bool {
    const WORDS: [&str; 14] = [
        "dial tcp",
        "no such host",
        "server misbehaving",
        "connection refused",
        "connection reset",
        "broken pipe",
        "no route to host",
        "network is unreachable",
        "i/o timeout",
        "client.timeout",
        "context deadline exceeded",
        "bad gateway",
        "gateway timeout",
        "tls: ",
    ];
    let why = why.to_lowercase();
    WORDS.iter().any(|word| why.contains(word)) || why.ends_with(": eof") || why.ends_with(": unexpected eof")
}

/// The interval between two points of a query, in milliseconds.
pub(super) fn interval(range: Range) -> u64 {
    let millis = u64::try_from(range.millis()).unwrap_or_default();
    (millis / MAX_POINTS).max(SHORTEST_INTERVAL)
}

impl Grafana {
    /// Sends a statement on the route of this version's panels: with a number through the proxy.
    pub(super) async fn send_statement(
        &self,
        uid: &str,
        id: Option<u64>,
        database: &str,
        range: [&str; 2],
        statement: &str,
    ) -> Result<Response> {
        if self.api() == Api::Numeric {
            // Without a number, Grafana returns an error.
            let id = id.map_or_else(|| "null".into(), |id| id.to_string());
            let query = format!("db={}&q={}", escaped(database), escaped(statement));
            let path = format!("/api/datasources/proxy/{id}/query?{query}");
            let request = Request { headers: &[PAST_THE_CACHE], within: Some(REQUEST), ..Request::new("GET", &path) };
            return self.send_to_organisation(request).await;
        }
        let query = Statement { ref_id: "A", raw_query: true, result_format: "table", query: statement };
        self.send_queries(range, &[DataQuery::new(uid, None, SHORTEST_INTERVAL, query)]).await
    }

    async fn send_queries<Q: Serialize>(
        &self,
        [from, to]: [&str; 2],
        queries: &[DataQuery<'_, Q>],
    ) -> Result<Response> {
        let body = Body::json(&QueryRequest { from, to, queries });
        // Grafana may wait for an InfluxDB that never answers.
        let within = Some(REQUEST);
        let request = Request { headers: &[PAST_THE_CACHE], body, within, ..Request::new("POST", "/api/ds/query") };
        self.send_to_organisation(request).await
    }

    /// The result of a listing statement, as a variable's query returns it: one text per row.
    pub(super) async fn list_values(
        &self,
        source: &DataSource,
        statement: &str,
        range: Range,
    ) -> Result<Result<Vec<String>, QueryFailure>> {
        let Range { from, to } = range;
        let statement = match self.api() {
            Api::Uid => statement.to_string(),
            // Here, the browser fills in the time range.
            Api::Numeric => statement.replace("$timeFilter", &format!("time >= {from}ms and time <= {to}ms")),
        };
        let (from, to) = (from.to_string(), to.to_string());
        let (uid, id, database) = (&source.uid, source.id, source.outer_database());
        let answer = match self.send_statement(uid, id, database, [&from, &to], &statement).await {
            Err(Error::Http { why, .. }) => return Ok(Err(QueryFailure::Transport(why))),
            Err(Error::Answer { why, .. }) => return Ok(Err(QueryFailure::Rejected(why))),
            answer => answer?,
        };
        let result = answer.json::<QueryAnswer>().only(self.api());
        Ok(match &result.error {
            Some(why) => Err(QueryFailure::of(why)),
            None if !answer.is_success() => Err(QueryFailure::of_status(answer.status, answer.message())),
            None => Ok(result.listed()),
        })
    }

    /// Sends queries to one data source in one request; returns the number of points or Grafana's error.
    pub(super) async fn count_points(
        &self,
        sources: &[DataSource],
        range: Range,
        uid: &str,
        targets: Vec<Map<String, Value>>,
    ) -> Result<Result<usize, QueryFailure>> {
        let id = super::numeric_id(sources, uid);
        let queries: Vec<_> =
            targets.into_iter().map(|target| DataQuery::of_target(uid, id, interval(range), target)).collect();
        let (from, to) = (range.from.to_string(), range.to.to_string());
        let answer = match self.send_queries([&from, &to], &queries).await {
            Err(Error::Http { why, .. }) => {
                return Ok(Err(QueryFailure::Transport(format!("Grafana's answer: {why}"))));
            }
            Err(Error::Answer { why, .. }) => return Ok(Err(QueryFailure::Rejected(why))),
            answer => answer?,
        };
        let mut results: QueryAnswer = answer.json();
        let (mut by_name, mut points) = (BTreeMap::new(), 0);
        for DataQuery { query, .. } in &queries {
            let name = query.get("refId").and_then(Value::as_str).unwrap_or_default();
            let result = by_name.entry(name).or_insert_with(|| results.take(name));
            if let Some(why) = &result.error {
                return Ok(Err(QueryFailure::of(why)));
            }
            points += result.points();
        }
        Ok(if answer.is_success() { Ok(points) } else { Err(QueryFailure::of_status(answer.status, answer.message())) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn listed_values_are_read_from_every_format() {
        let listed = |result: Value| read::<QueryResult>(result).listed();
        let tags = json!({"columns": ["key", "value"], "values": [["host", "a"], ["host", "b"]]});
        assert_eq!(listed(json!({"series": [7, tags]})), ["a", "b"]);
        let frame = json!({"schema": {"fields": [{"name": "name"}]}, "data": {"values": [["m1"]]}});
        assert_eq!(listed(json!({"frames": [frame, {"data": null}]})), ["m1"]);
    }

    #[test]
    fn a_query_names_its_own_data_source_only_once() {
        let mut target = Map::new();
        for name in ADDRESS.into_iter().chain(["query"]) {
            target.insert(name.into(), json!("theirs"));
        }
        let sent = json!(DataQuery::of_target("x", Some(7), 1, target));
        let expected = json!({
            "datasource": {"type": INFLUXDB, "uid": "x"}, "datasourceId": 7, "intervalMs": 1, "maxDataPoints": 100,
            "query": "theirs",
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn network_errors_are_distinguished_from_query_errors() {
        for (why, expected) in [
            ("Post \"http://a:8086/query\": dial tcp: lookup a on 10.0.0.1:53: no such host", true),
            ("Post \"http://a:8086/query\": dial tcp 10.0.0.1:8086: connect: connection refused", true),
            ("Post \"http://a:8086/query\": EOF", true),
            ("Get \"http://a\": net/http: request canceled (Client.Timeout exceeded while awaiting headers)", true),
            ("read tcp 1.2.3.4:5->6.7.8.9:8086: read: connection reset by peer", true),
            ("InfluxDB returned error: error parsing query: found EOF, expected FROM at line 1, char 9", false),
            ("query-timeout limit exceeded", false),
            ("database not found: d", false),
        ] {
            assert_eq!(is_transport(why), expected, "{why}");
        }
        let of_status = |status, why: &str| QueryFailure::of_status(status, why.into());
        assert!(matches!(of_status(504, ""), QueryFailure::Transport(_)));
        assert!(matches!(of_status(500, "An error occurred within the plugin"), QueryFailure::Rejected(_)));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_causes_a_panic(json in crate::arbitrary::json(&[
            "results", "A", "frames", "series", "error", "schema", "fields", "name", "data", "values", "columns", "points",
        ])) {
            for api in [Api::Uid, Api::Numeric] {
                let result = read::<QueryAnswer>(json.clone()).only(api);
                let _ = (result.points(), result.listed());
            }
            let result = read::<QueryResult>(json);
            let _ = (result.points(), result.listed());
        }
    }
}
