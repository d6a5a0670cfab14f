//! Runs the queries of the stored dashboard as a browser does: first the variables, then every
//! panel with the variables filled in.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use super::layout::{Panel, is_built_in, is_expression, is_flux, is_silent, panels};
use super::question::{PAST_THE_CACHE, QUESTION};
use super::time_range::{Calendar, Range};
use super::variables::{Chosen, Dialect, Kind, Variables, choose, matching, refers_to};
use super::{Api, Grafana, INFLUXDB, numeric_id, text};
use crate::error::{Error, Result};
use crate::http::{Body, escaped};
use crate::influxql::{quoted, references};
use crate::model::diagnosis::{PanelAnswer, PanelContent, SourceFault, VariableAnswer, VariableContent};
use crate::model::text::excerpt;
use crate::model::version::Version;

/// The number of panels queried at the same time.
const AT_ONCE: usize = 6;
/// The number of values for which a repeated panel is queried.
const REPEATS: usize = 10;
/// The number of points requested per series: enough to see whether there are any.
const MAX_POINTS: u64 = 100;
/// Clipper's report interval, the shortest useful query interval, in milliseconds.
const SHORTEST_INTERVAL: u64 = 15_000;

/// The results of opening the stored dashboard.
#[derive(Debug)]
pub struct Opened {
    /// The start and the end of its time range, in milliseconds since 1970.
    pub range: (i64, i64),
    /// Data sources that answer no query.
    pub sources: Vec<SourceFault>,
    /// Every variable with a query.
    pub variables: Vec<VariableAnswer>,
    /// Every panel.
    pub panels: Vec<PanelAnswer>,
}

/// Names of fields and tags by data source and measurement, so that panels with the same ones share a query. Patterns
/// share the known names of all measurements, with an empty text as the measurement.
type KnownNames = Mutex<BTreeMap<(String, String), Vec<String>>>;
/// Stands for a measurement if the names of all are known.
const ALL: &str = "*";

/// The number of points of queries, once they are answered.
type Points = OnceCell<Result<usize, Failure>>;

/// Answers that several panels share.
#[derive(Default)]
struct Shared {
    names: KnownNames,
    /// By time range, data source and queries.
    points: Mutex<BTreeMap<String, Rc<Points>>>,
}

/// The context of the dashboard's queries.
struct Asked<'a> {
    dashboard: &'a Value,
    sources: &'a [Value],
    calendar: Calendar,
    /// The dashboard's time range.
    range: Range,
    dialect: Dialect,
    /// The panel plugins, and whether each sends queries; `None` if unknown.
    plugins: Option<BTreeMap<String, bool>>,
}

/// The result of the queries of a panel or a variable.
struct Answered<T> {
    content: T,
    /// The data source that failed, and its failure.
    failure: Option<(String, Failure)>,
}

impl<T> Answered<T> {
    const fn well(content: T) -> Self {
        Self { content, failure: None }
    }
}

/// The reason why a query has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// InfluxDB did not answer.
    Transport(String),
    /// InfluxDB or Grafana rejected the query.
    Query(String),
}

impl Failure {
    /// Classifies Grafana's error about one query, which consists of the server's message alone.
    fn of(why: String) -> Self {
        if is_transport(&why) { Self::Transport(why) } else { Self::Query(why) }
    }

    /// Classifies Grafana's error about a whole request.
    fn of_status(status: u16, why: String) -> Self {
        if matches!(status, 502 | 504) { Self::Transport(why) } else { Self::of(why) }
    }

    fn into_words(self) -> String {
        match self {
            Self::Transport(why) | Self::Query(why) => why,
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

/// A panel before its queries are sent.
enum Prepared {
    /// Its result is known without a query.
    Settled(PanelContent),
    /// Queries by the uid of their data source, and the kind of other sources that it queries.
    Ask(BTreeMap<String, Vec<Value>>, Option<String>),
}

impl Grafana {
    /// Whether Grafana has its InfluxDB plugin; `None` if the account may not read that.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub async fn has_plugin(&self) -> Result<Option<bool>> {
        let answer = self.send("look for the InfluxDB plugin", "GET", "/api/plugins/influxdb/settings", None).await?;
        match answer.status {
            200 => Ok(Some(true)),
            404 => Ok(Some(false)),
            _ => Ok(None),
        }
    }

    /// Whether the data source finds a probe with this query.
    ///
    /// # Errors
    /// With Grafana's message if the query fails.
    pub async fn finds_probe(&self, source: &str, question: &str, now: i64) -> Result<bool> {
        let sources = self.data_sources().await?;
        let target = json!({"refId": "A", "rawQuery": true, "resultFormat": "time_series", "query": question});
        let range = Range { from: now - 300_000, to: now };
        let points = self.ask_targets(&sources, range, source, vec![target]).await?;
        points.map(|points| points > 0).map_err(|why| self.answered("query the data source", 0, why.into_words()))
    }

    /// Opens the stored dashboard as a browser does; `None` if it does not exist.
    ///
    /// # Errors
    /// If the server returns an error or does not answer. Failed queries are part of the result.
    pub async fn open_dashboard(&self, uid: &str, now: i64) -> Result<Option<Opened>> {
        let (Some(found), sources) = (self.dashboard(uid).await?, self.data_sources().await?) else { return Ok(None) };
        let dashboard = &found["dashboard"];
        let calendar = Calendar::of(dashboard, now, jiff::tz::TimeZone::system());
        let range = calendar.range(dashboard);
        let plugins = self.panel_plugins().await?;
        let asked = Asked { dashboard, sources: &sources, calendar, range, dialect: self.dialect(), plugins };
        let mut variables = built_in(dashboard, range);
        let mut answers = Vec::new();
        let mut waiting: Vec<&Value> = dashboard["templating"]["list"].as_array().into_iter().flatten().collect();
        // A variable that refers to another one is resolved after it; cyclic references are
        // resolved in order.
        while !waiting.is_empty() {
            let names: Vec<String> = waiting.iter().map(|one| text(&one["name"])).collect();
            let is_ready = |one: &&Value| {
                let own = text(&one["name"]);
                !names.iter().any(|name| *name != own && refers(one, name))
            };
            let index = waiting.iter().position(is_ready).unwrap_or(0);
            let variable = waiting.remove(index);
            let started = Instant::now();
            let answered = self.fill_variable(&asked, variable, &mut variables).await?;
            answers.extend(answered.map(|answered| (text(&variable["name"]), answered, started.elapsed())));
        }
        let found: Vec<Panel<'_>> = panels(dashboard).into_iter().filter(|panel| asked.concerns(panel)).collect();
        let (variables, shared) = (&variables, &Shared::default());
        let (asked, found) = (&asked, &found);
        let asking = stream::iter(0..found.len())
            .map(|index| async move {
                let started = Instant::now();
                self.ask_panel(asked, &found[index], variables, shared)
                    .await
                    .map(|answered| (answered, started.elapsed()))
            })
            .buffered(AT_ONCE);
        let asked_panels = asking.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<_>>>()?;
        let failures = answers.iter().filter_map(|(_, answered, _)| answered.failure.as_ref());
        let failures = failures.chain(asked_panels.iter().filter_map(|(answered, _)| answered.failure.as_ref()));
        let failing = self.failing_sources(asked, failures).await?;
        let is_failing = |uid: &str| failing.iter().any(|fault| fault.uid == uid);
        let variables = answers.into_iter().map(|(name, Answered { content, failure }, time)| {
            let content = match failure {
                Some((uid, _)) if is_failing(&uid) => VariableContent::SourceFails,
                Some((_, Failure::Transport(why))) => VariableContent::Unanswered(why),
                _ => content,
            };
            VariableAnswer { name, content, time }
        });
        let panels = asked_panels.into_iter().zip(found).map(|((Answered { content, failure }, time), panel)| {
            let content = match failure {
                Some((uid, _)) if is_failing(&uid) => PanelContent::SourceFails,
                Some((_, Failure::Transport(why))) => PanelContent::Unanswered(why),
                _ => content,
            };
            PanelAnswer { title: panel.title.clone(), shows_range: panel.shows_range(), content, time }
        });
        let (variables, panels) = (variables.collect(), panels.collect());
        Ok(Some(Opened { range: (range.from, range.to), sources: failing, variables, panels }))
    }

    /// How this version's data source writes variables.
    fn dialect(&self) -> Dialect {
        if self.version.get().is_some_and(|version| version < BACKEND_FROM) { Dialect::ByKind } else { Dialect::ByUse }
    }

    /// The failing data sources among those with failed queries: those that do not answer the simplest query either. A
    /// data source that answers it works, however long it takes for an expensive panel.
    async fn failing_sources<'a>(
        &self,
        asked: &Asked<'_>,
        failures: impl Iterator<Item = &'a (String, Failure)>,
    ) -> Result<Vec<SourceFault>> {
        let mut by_source: BTreeMap<&str, &Failure> = BTreeMap::new();
        for (uid, failure) in failures {
            let first = by_source.entry(uid).or_insert(failure);
            if matches!(failure, Failure::Transport(_)) {
                *first = failure;
            }
        }
        let mut faults = Vec::new();
        for (uid, failure) in by_source {
            let Some(source) = asked.sources.iter().find(|source| source["uid"] == uid) else { continue };
            let Err(simplest) = self.list(source, QUESTION, asked.range).await? else { continue };
            let why = match failure {
                Failure::Transport(why) => why.clone(),
                Failure::Query(_) => simplest.into_words(),
            };
            let (name, url) = (text(&source["name"]), text(&source["url"]));
            faults.push(SourceFault { uid: uid.into(), name, url, why });
        }
        Ok(faults)
    }

    /// Resolves a variable; returns the result of its query, if it has one.
    async fn fill_variable(
        &self,
        asked: &Asked<'_>,
        variable: &Value,
        variables: &mut Variables,
    ) -> Result<Option<Answered<VariableContent>>> {
        let (name, kind) = (text(&variable["name"]), Kind::of(variable));
        match variable["type"].as_str() {
            Some("query") => {}
            Some("datasource") => {
                let chosen = text(&variable["current"]["value"]);
                let is_there = find(asked.sources, &json!(chosen), &chosen).is_some();
                let first =
                    || asked.sources.iter().find(|source| source["type"] == variable["query"]).map(|s| text(&s["uid"]));
                // A missing data source is no longer offered, so the browser uses the first one.
                let chosen = if chosen.is_empty() || !is_there { first().unwrap_or(chosen) } else { chosen };
                variables.set(&name, Chosen::One(chosen));
                return Ok(None);
            }
            // An interval that follows the time range.
            Some("interval") if text(&variable["current"]["value"]).starts_with("$__auto") => {
                variables.set(&name, Chosen::One(format!("{}s", interval(asked.range) / 1000)));
                return Ok(None);
            }
            Some("constant" | "textbox") => {
                let current = text(&variable["current"]["value"]);
                let value = if current.is_empty() { text(&variable["query"]) } else { current };
                variables.set(&name, Chosen::One(value));
                return Ok(None);
            }
            // Their values are not filled into texts.
            Some("adhoc" | "groupby") => return Ok(None),
            _ => {
                let offered: Vec<String> = variable["options"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|option| text(&option["value"]))
                    .filter(|value| value != "$__all")
                    .collect();
                let offered = if offered.is_empty() { listed(&text(&variable["query"])) } else { offered };
                variables.set_of(kind, &name, choose(variable, &offered));
                return Ok(None);
            }
        }
        let query = variable["query"].as_str().or_else(|| variable["query"]["query"].as_str()).unwrap_or_default();
        let reference = reference(&variable["datasource"], variables);
        let Some(found) = find(asked.sources, &variable["datasource"], &reference) else {
            let is_own = is_built_in(&reference);
            variables.set(&name, if is_own { Chosen::Unknown } else { choose(variable, &[]) });
            let content = VariableContent::NoDataSource(reference);
            return Ok((!is_own).then(|| Answered::well(content)));
        };
        if found["type"] != INFLUXDB || other_language(found).is_some() {
            variables.set(&name, Chosen::Unknown);
            return Ok(None);
        }
        if let Some(unknown) = variables.unknown_in(query) {
            variables.set_of(kind, &name, choose(variable, &[]));
            return Ok(Some(Answered::well(VariableContent::Unchecked(format!("its query names ${unknown}")))));
        }
        let answer = self.list(found, &variables.fill_query(asked.dialect, query), asked.range).await?;
        let mut failure = None;
        let (content, values) = match answer {
            Ok(found) => match matching(&variables.fill_regex(&text(&variable["regex"])), found) {
                Ok(values) => (VariableContent::Values(values.len()), values),
                Err(why) => (VariableContent::Unchecked(why), Vec::new()),
            },
            Err(why) => {
                failure = Some((text(&found["uid"]), why.clone()));
                (VariableContent::Failed(why.into_words()), Vec::new())
            }
        };
        variables.set_of(kind, &name, choose(variable, &values));
        Ok(Some(Answered { content, failure }))
    }

    /// Queries a panel, once for each value of the variable it is repeated for.
    async fn ask_panel(
        &self,
        asked: &Asked<'_>,
        panel: &Panel<'_>,
        variables: &Variables,
        shared: &Shared,
    ) -> Result<Answered<PanelContent>> {
        let range = asked.calendar.range_of_panel(asked.dashboard, panel.json);
        let mut content = PanelContent::Empty;
        for variables in repeats(panel, variables) {
            let one = match asked.prepare(panel, &variables) {
                Prepared::Settled(content) => Answered::well(content),
                Prepared::Ask(queries, elsewhere) => self.ask_queries(asked, range, queries, elsewhere, shared).await?,
            };
            if one.failure.is_some() {
                return Ok(one);
            }
            content = match (content, one.content) {
                (PanelContent::Points(one), PanelContent::Points(more)) => PanelContent::Points(one + more),
                (PanelContent::Points(points), PanelContent::Empty) => PanelContent::Points(points),
                (_, other) => other,
            };
            if !matches!(content, PanelContent::Points(_) | PanelContent::Empty) {
                break;
            }
        }
        Ok(Answered::well(content))
    }

    async fn ask_queries(
        &self,
        asked: &Asked<'_>,
        range: Range,
        queries: BTreeMap<String, Vec<Value>>,
        elsewhere: Option<String>,
        shared: &Shared,
    ) -> Result<Answered<PanelContent>> {
        let mut points = 0;
        let asks = !queries.is_empty();
        for (uid, targets) in queries {
            let Some(found) = asked.sources.iter().find(|source| source["uid"] == uid.as_str()) else { continue };
            for target in &targets {
                if let Some(unknown) = self.unknown_field(found, target, range, &shared.names).await? {
                    return Ok(Answered::well(unknown));
                }
            }
            let key = json!([range.from, range.to, uid, targets]).to_string();
            let answer = Rc::clone(shared.points.lock().await.entry(key).or_default());
            match answer.get_or_try_init(|| self.ask_targets(asked.sources, range, &uid, targets)).await? {
                Ok(found) => points += found,
                Err(why) => {
                    let content = PanelContent::Failed(why.clone().into_words());
                    return Ok(Answered { content, failure: Some((uid, why.clone())) });
                }
            }
        }
        Ok(Answered::well(match elsewhere {
            Some(elsewhere) if !asks => PanelContent::Elsewhere(elsewhere),
            _ if points > 0 => PanelContent::Points(points),
            _ => PanelContent::Empty,
        }))
    }

    /// Sends queries to one data source in one request; returns the number of points or Grafana's error.
    async fn ask_targets(
        &self,
        sources: &[Value],
        range: Range,
        uid: &str,
        targets: Vec<Value>,
    ) -> Result<Result<usize, Failure>> {
        let number = numeric_id(sources, uid);
        let queries: Vec<Value> = targets
            .into_iter()
            .map(|mut target| {
                target["datasource"] = json!({"type": INFLUXDB, "uid": uid});
                target["datasourceId"] = json!(number);
                target["intervalMs"] = json!(interval(range));
                target["maxDataPoints"] = json!(MAX_POINTS);
                target
            })
            .collect();
        let names: Vec<String> = queries.iter().map(|query| text(&query["refId"])).collect();
        let body = json!({"from": range.from.to_string(), "to": range.to.to_string(), "queries": queries});
        let answer = match self.exchange("POST", "/api/ds/query", &[PAST_THE_CACHE], Body::Json(&body)).await {
            Err(Error::Http { why, .. }) => return Ok(Err(Failure::Transport(format!("Grafana's answer: {why}")))),
            answer => answer?,
        };
        let results = &answer.json()["results"];
        let mut points = 0;
        for name in &names {
            let result = &results[name];
            if let Some(why) = result["error"].as_str() {
                return Ok(Err(Failure::of(excerpt(why, 300))));
            }
            points += frames_length(result) + series_length(result);
        }
        Ok(if answer.is_success() { Ok(points) } else { Err(Failure::of_status(answer.status, answer.message())) })
    }

    /// A field in a query that no measurement has; `None` if the measurements of the query do not exist.
    async fn unknown_field(
        &self,
        source: &Value,
        target: &Value,
        range: Range,
        known: &KnownNames,
    ) -> Result<Option<PanelContent>> {
        let Some((measurements, names)) = named(target) else { return Ok(None) };
        let uid = text(&source["uid"]);
        // Held during the queries.
        let mut known = known.lock().await;
        // A failure says nothing about names.
        let list = async |statement: &str| Ok::<_, Error>(self.list(source, statement, range).await?.ok());
        let keys_of = async |from: &str| {
            let Some(mut keys) = list(&format!("SHOW FIELD KEYS{from}")).await? else { return Ok(None) };
            if !keys.is_empty() {
                let Some(tags) = list(&format!("SHOW TAG KEYS{from}")).await? else { return Ok(None) };
                keys.extend(tags);
            }
            Ok::<_, Error>(Some(keys))
        };
        let Some(pattern) = pattern(&measurements) else {
            let key = (uid, measurements.clone());
            if !known.contains_key(&key) {
                let Some(keys) = keys_of(&format!(" FROM {measurements}")).await? else { return Ok(None) };
                known.insert(key.clone(), keys);
            }
            let keys = &known[&key];
            let missing = names.into_iter().find(|name| !keys.is_empty() && !keys.contains(name));
            return Ok(missing.map(|field| PanelContent::UnknownField { field, source: measurements }));
        };
        // The cost of `SHOW FIELD KEYS FROM /pattern/` grows with the square of the number of measurements. If the
        // pattern matches a measurement, the keys of all measurements are used instead. They are many, so one
        // measurement is read first, which usually has the names.
        let (key, complete) = ((uid.clone(), String::new()), (uid, ALL.to_string()));
        let is_unknown =
            |known: &BTreeMap<_, Vec<String>>, name: &String| known.get(&key).is_none_or(|keys| !keys.contains(name));
        let has_unknown = |known: &_| names.iter().any(|name| is_unknown(known, name));
        if !has_unknown(&known) {
            return Ok(None);
        }
        let example = list(&format!("SHOW MEASUREMENTS WITH MEASUREMENT =~ {pattern} LIMIT 1")).await?;
        let Some(example) = example.as_deref().and_then(<[String]>::first) else { return Ok(None) };
        let Some(keys) = keys_of(&format!(" FROM {}", quoted(example))).await? else { return Ok(None) };
        known.entry(key.clone()).or_default().extend(keys);
        if has_unknown(&known) && !known.contains_key(&complete) {
            let Some(keys) = keys_of("").await? else { return Ok(None) };
            known.entry(key.clone()).or_default().extend(keys);
            known.insert(complete, Vec::new());
        }
        let missing = names.into_iter().find(|name| is_unknown(&known, name));
        Ok(missing.map(|field| PanelContent::UnknownField { field, source: measurements }))
    }

    /// The result of a listing statement, as a variable's query returns it: one text per row.
    async fn list(&self, source: &Value, question: &str, range: Range) -> Result<Result<Vec<String>, Failure>> {
        let is_proxied = self.api() == Api::Numeric;
        let answer = if is_proxied {
            let database = source["database"].as_str().filter(|name| !name.is_empty());
            let database = database.or_else(|| source["jsonData"]["dbName"].as_str()).unwrap_or_default();
            // Here, the browser fills in the time range.
            let time = format!("time >= {}ms and time <= {}ms", range.from, range.to);
            let question = question.replace("$timeFilter", &time);
            let query = format!("db={}&q={}", escaped(database), escaped(&question));
            let path = format!("/api/datasources/proxy/{}/query?{query}", source["id"]);
            self.exchange("GET", &path, &[PAST_THE_CACHE], Body::Empty).await
        } else {
            let (from, to) = (range.from.to_string(), range.to.to_string());
            let body = json!({"from": from, "to": to, "queries": [{
                "refId": "A", "datasource": {"type": INFLUXDB, "uid": source["uid"]}, "rawQuery": true,
                "resultFormat": "table", "intervalMs": SHORTEST_INTERVAL, "maxDataPoints": MAX_POINTS,
                "query": question,
            }]});
            self.exchange("POST", "/api/ds/query", &[PAST_THE_CACHE], Body::Json(&body)).await
        };
        let answer = match answer {
            Err(Error::Http { why, .. }) => return Ok(Err(Failure::Transport(why))),
            answer => answer?,
        };
        let json = answer.json();
        let result = if is_proxied { &json["results"][0] } else { &json["results"]["A"] };
        if let Some(why) = result["error"].as_str() {
            return Ok(Err(Failure::of(excerpt(why, 300))));
        }
        if !answer.is_success() {
            return Ok(Err(Failure::of_status(answer.status, answer.message())));
        }
        let list = result[if is_proxied { "series" } else { "frames" }].as_array();
        let read = if is_proxied { listed_series } else { listed_frame };
        let rows = list.into_iter().flatten().flat_map(read);
        Ok(Ok(rows.collect()))
    }
}

/// From this version on, the server sends panels' queries to InfluxDB; before, browsers sent them
/// through Grafana's proxy.
const BACKEND_FROM: Version = Version(10, 3);

impl Asked<'_> {
    /// Whether the panel sends queries or cannot be shown; text panels do neither.
    fn concerns(&self, panel: &Panel<'_>) -> bool {
        let sends_queries = self.plugins.as_ref().and_then(|plugins| plugins.get(panel.kind())).copied();
        let is_empty = panel.json["targets"].as_array().is_none_or(Vec::is_empty);
        let is_silent = is_silent(panel.kind()) || sends_queries == Some(false);
        self.lacks_plugin(panel) || !panel.json["libraryPanel"].is_null() || !(is_empty || is_silent)
    }

    fn lacks_plugin(&self, panel: &Panel<'_>) -> bool {
        let lacks = |plugins: &BTreeMap<String, bool>| !panel.kind().is_empty() && !plugins.contains_key(panel.kind());
        self.plugins.as_ref().is_some_and(lacks)
    }

    /// The queries of a panel with these variables, or its result if no query is needed.
    fn prepare(&self, panel: &Panel<'_>, variables: &Variables) -> Prepared {
        if self.lacks_plugin(panel) {
            return Prepared::Settled(PanelContent::NoPlugin(panel.kind().into()));
        }
        if !panel.json["libraryPanel"].is_null() && panel.json["targets"].is_null() {
            return Prepared::Settled(PanelContent::Elsewhere("a library panel's queries".into()));
        }
        let (mut by_source, mut elsewhere): (BTreeMap<String, Vec<Value>>, _) = (BTreeMap::new(), None);
        for (target, source) in panel.queries() {
            let reference = reference(source, variables);
            if is_expression(&reference) {
                // It computes with the results of other queries.
                continue;
            }
            let Some(found) = find(self.sources, source, &reference) else {
                if is_built_in(&reference) {
                    elsewhere = Some(format!("Grafana's own data source {reference:?}"));
                    continue;
                }
                return Prepared::Settled(PanelContent::NoDataSource(reference));
            };
            if found["type"] != INFLUXDB {
                elsewhere = Some(format!("a data source of type {}", found["type"]));
                continue;
            }
            if other_language(found).is_some() {
                elsewhere = Some("in another query language".into());
                continue;
            }
            if is_flux(target) {
                return Prepared::Settled(PanelContent::Flux);
            }
            if let Some(unknown) = target["query"].as_str().and_then(|query| variables.unknown_in(query)) {
                return Prepared::Settled(PanelContent::Elsewhere(format!(
                    "with ${unknown}, which only a browser knows"
                )));
            }
            let mut target = variables.fill_target(self.dialect, target);
            if target["refId"].as_str().is_none_or(str::is_empty) {
                target["refId"] = json!("A");
            }
            by_source.entry(text(&found["uid"])).or_default().push(target);
        }
        if by_source.is_empty() && elsewhere.is_none() {
            return Prepared::Settled(PanelContent::Elsewhere(format!(
                "a panel of type {:?} without a query",
                panel.kind()
            )));
        }
        Prepared::Ask(by_source, elsewhere)
    }
}

/// The query language of an InfluxDB data source, unless it is InfluxQL.
fn other_language(source: &Value) -> Option<&str> {
    source["jsonData"]["version"].as_str().filter(|language| !["", "InfluxQL"].contains(language))
}

/// The interval between two points of a query, in milliseconds.
fn interval(range: Range) -> u64 {
    let millis = u64::try_from(range.millis()).unwrap_or_default();
    (millis / MAX_POINTS).max(SHORTEST_INTERVAL)
}

/// Variables that a browser sets itself.
fn built_in(dashboard: &Value, range: Range) -> Variables {
    let mut variables = Variables::default();
    let millis = range.millis();
    for (name, value) in [
        ("__from", range.from.to_string()),
        ("__to", range.to.to_string()),
        ("__range", format!("{}s", millis / 1000)),
        ("__range_s", (millis / 1000).to_string()),
        ("__range_ms", millis.to_string()),
        ("__dashboard", text(&dashboard["title"])),
    ] {
        variables.set(name, Chosen::One(value));
    }

    variables
}

/// Whether a variable refers to another one by name.
fn refers(variable: &Value, name: &str) -> bool {
    let query = variable["query"].as_str().or_else(|| variable["query"]["query"].as_str()).unwrap_or_default();
    let source = variable["datasource"].as_str().or_else(|| variable["datasource"]["uid"].as_str()).unwrap_or_default();
    [query, source, variable["regex"].as_str().unwrap_or_default()].iter().any(|text| refers_to(text, name))
}

/// The variables for each repetition of a panel.
fn repeats(panel: &Panel<'_>, variables: &Variables) -> Vec<Variables> {
    let values = panel.repeated_for.and_then(|name| Some((name, variables.get(name)?)));
    match values {
        Some((name, Chosen::Several(values))) if !values.is_empty() => {
            values.iter().take(REPEATS).map(|value| variables.with_one(name, value)).collect()
        }
        _ => vec![variables.clone()],
    }
}

/// The value of a reference to a data source, with variables filled in: a uid, or a name before version 9.
fn reference(value: &Value, variables: &Variables) -> String {
    let written = value.as_str().or_else(|| value["uid"].as_str()).unwrap_or_default();
    variables.fill(written)
}

/// The data source that a reference means. A reference without a uid means the default one, or one
/// of its type.
fn find<'a>(sources: &'a [Value], value: &Value, reference: &str) -> Option<&'a Value> {
    if !reference.is_empty() && reference != "default" {
        return sources.iter().find(|source| source["uid"] == reference || source["name"] == reference);
    }
    let kind = value["type"].as_str();
    let of_kind = || sources.iter().filter(|source| kind.is_some_and(|kind| source["type"] == kind));
    let is_default = |source: &&Value| source["isDefault"] == true;
    let found = of_kind().find(is_default).or_else(|| of_kind().next());
    found.or_else(|| sources.iter().find(is_default))
}

/// The values in the list of a custom variable: `a, b` or `text : value`.
fn listed(query: &str) -> Vec<String> {
    let value = |item: &str| item.split_once(" : ").map_or(item, |(_, value)| value).trim().to_string();
    query.split(',').map(value).filter(|value| !value.is_empty()).collect()
}

/// The measurements and fields in a query, whether it is written as text or built with the editor.
fn named(target: &Value) -> Option<(String, Vec<String>)> {
    // Without the flag, a query with a text counts as written.
    let is_written = target["rawQuery"].as_bool().unwrap_or(target["measurement"].as_str().is_none());
    if is_written {
        let found = references(target["query"].as_str()?)?;
        return Some((found.source, found.names));
    }
    let measurement = target["measurement"].as_str().filter(|name| !name.is_empty())?;
    let source = if measurement.starts_with('/') { measurement.to_string() } else { quoted(measurement) };
    let policy = target["policy"].as_str().filter(|name| !["", "default"].contains(name));
    let source = policy.map_or_else(|| source.clone(), |policy| format!("{}.{source}", quoted(policy)));
    let parts = target["select"].as_array()?.iter().flat_map(|column| column.as_array().into_iter().flatten());
    let fields = parts.filter(|part| part["type"] == "field").filter_map(|part| part["params"][0].as_str());
    let is_one = |field: &str| field != "*" && !field.starts_with('/');
    // `field::type` is a field, but `tag::tag` is not.
    let name = |field: &str| field.split_once("::").map_or(field, |(name, _)| name).to_string();
    Some((source, fields.filter(|field| is_one(field)).map(name).collect()))
}

/// The regular expression in a query's source, with its slashes, with or without a retention policy before it.
fn pattern(measurements: &str) -> Option<&str> {
    if !measurements.ends_with('/') {
        return None;
    }
    let start = if measurements.starts_with('/') { 0 } else { measurements.find("./")? + 1 };
    Some(&measurements[start..])
}

/// The number of points in data frames.
fn frames_length(result: &Value) -> usize {
    let length = |frame: &Value| frame["data"]["values"][0].as_array().map_or(0, Vec::len);
    result["frames"].as_array().map_or(0, |frames| frames.iter().map(length).sum())
}

/// The number of points in series of versions before 9.
fn series_length(result: &Value) -> usize {
    let length = |series: &Value| series["points"].as_array().map_or(0, Vec::len);
    result["series"].as_array().map_or(0, |series| series.iter().map(length).sum())
}

/// The column to list: the values of a tag, otherwise the first that is not a time.
fn interesting(columns: &[String]) -> usize {
    let named = columns.iter().position(|name| name == "value" || name == "Value");
    named.unwrap_or_else(|| usize::from(columns.first().is_some_and(|name| name.eq_ignore_ascii_case("time"))))
}

fn listed_series(series: &Value) -> Vec<String> {
    let columns: Vec<String> = series["columns"].as_array().into_iter().flatten().map(text).collect();
    let column = interesting(&columns);
    let rows = series["values"].as_array().into_iter().flatten();
    rows.filter_map(|row| row.get(column)).map(shown).collect()
}

fn listed_frame(frame: &Value) -> Vec<String> {
    let fields: Vec<String> =
        frame["schema"]["fields"].as_array().into_iter().flatten().map(|field| text(&field["name"])).collect();
    frame["data"]["values"][interesting(&fields)].as_array().into_iter().flatten().map(shown).collect()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_and_fields_are_found_in_written_and_built_queries() {
        let written = json!({"rawQuery": true, "query": "SELECT mean(\"a\") FROM /x/ WHERE $timeFilter"});
        assert_eq!(named(&written), Some(("/x/".into(), vec!["a".into()])));
        let built = json!({"measurement": "m", "select": [[{"type": "field", "params": ["b"]}, {"type": "mean"}]]});
        assert_eq!(named(&built), Some(("\"m\"".into(), vec!["b".into()])));
        assert_eq!(named(&json!({})), None);
    }

    #[test]
    fn every_panel_of_the_bundled_dashboard_repeats_as_its_row_does() {
        let dashboard: Value = serde_json::from_str(include_str!("../../assets/dashboard.json")).unwrap();
        let found: Vec<Panel<'_>> =
            panels(&dashboard).into_iter().filter(|panel| !panel.queries().is_empty()).collect();
        assert_eq!(found.len(), 21);
        let of = |title: &str| found.iter().find(|panel| panel.title == title).unwrap();
        assert_eq!(of("Latency of $model").repeated_for, Some("model"));
        assert_eq!(of("Predictions").repeated_for, None);
        let mut variables = Variables::default();
        variables.set("model", Chosen::Several(vec!["a".into(), "b".into()]));
        assert_eq!(repeats(of("Latency of $model"), &variables).len(), 2);
        assert_eq!(repeats(of("Predictions"), &variables).len(), 1);
    }

    #[test]
    fn listed_values_are_read_from_every_format() {
        assert_eq!(listed("a, b c , text : v"), ["a", "b c", "v"]);
        let tags = json!({"columns": ["key", "value"], "values": [["host", "a"], ["host", "b"]]});
        assert_eq!(listed_series(&tags), ["a", "b"]);
        let frame = json!({"schema": {"fields": [{"name": "name"}]}, "data": {"values": [["m1"]]}});
        assert_eq!(listed_frame(&frame), ["m1"]);
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
        assert!(matches!(Failure::of_status(504, String::new()), Failure::Transport(_)));
        assert!(matches!(Failure::of_status(500, "An error occurred within the plugin".into()), Failure::Query(_)));
    }

    #[test]
    fn a_source_is_a_pattern_or_a_name() {
        for (source, expected) in [
            ("/^m1_/", Some("/^m1_/")),
            ("\"autogen\"./a\\/b/", Some("/a\\/b/")),
            ("autogen./a.b/", Some("/a.b/")),
            ("\"a/b\"", None),
            ("\"rp\".\"a/b/\"", None),
            ("cpu", None),
        ] {
            assert_eq!(pattern(source), expected, "{source}");
        }
    }

    fn asked<'a>(dashboard: &'a Value, sources: &'a [Value], plugins: Option<&[&str]>) -> Asked<'a> {
        let calendar = Calendar::of(dashboard, 0, jiff::tz::TimeZone::UTC);
        let range = calendar.range(dashboard);
        let plugins = plugins.map(|names| names.iter().map(|name| ((*name).to_string(), *name != "clock")).collect());
        Asked { dashboard, sources, calendar, range, dialect: Dialect::ByUse, plugins }
    }

    type Asking = (BTreeMap<String, Vec<Value>>, Option<String>);

    fn prepared(panel: &Value, plugins: Option<&[&str]>) -> Result<Asking, PanelContent> {
        let sources = [
            json!({"uid": "i", "name": "Influx", "type": "influxdb", "isDefault": true}),
            json!({"uid": "p", "name": "Prom", "type": "prometheus"}),
            json!({"uid": "f", "name": "Flux", "type": "influxdb", "jsonData": {"version": "Flux"}}),
        ];
        let dashboard = json!({"panels": [panel]});
        let asked = asked(&dashboard, &sources, plugins);
        match asked.prepare(&panels(&dashboard)[0], &Variables::default()) {
            Prepared::Settled(content) => Err(content),
            Prepared::Ask(queries, elsewhere) => Ok((queries, elsewhere)),
        }
    }

    #[test]
    fn a_data_source_is_found_in_every_form_of_reference() {
        let asked_source = |source: Value| {
            let panel = json!({"type": "stat", "datasource": source, "targets": [{"query": "SELECT 1"}]});
            prepared(&panel, None).map(|(queries, _)| queries.into_keys().next().unwrap_or_default())
        };
        for source in [
            json!(null),
            json!("default"),
            json!("Influx"),
            json!("i"),
            json!({"uid": "i"}),
            json!({"type": "influxdb"}),
            json!({"uid": "Influx"}),
        ] {
            assert_eq!(asked_source(source.clone()), Ok("i".into()), "{source}");
        }
        for (source, expected) in [
            (json!("nowhere"), PanelContent::NoDataSource("nowhere".into())),
            (json!({"type": "influxdb", "uid": "${DS_X}"}), PanelContent::NoDataSource("${DS_X}".into())),
            (json!({"uid": "__expr__"}), PanelContent::Elsewhere("a panel of type \"stat\" without a query".into())),
        ] {
            assert_eq!(asked_source(source.clone()), Err(expected), "{source}");
        }
        for source in [json!("p"), json!("-- Dashboard --"), json!({"uid": "-- Grafana --"}), json!("f")] {
            assert_eq!(asked_source(source.clone()), Ok(String::new()), "{source}");
        }
    }

    #[test]
    fn panels_that_a_browser_cannot_show_are_reported() {
        let panel = |kind: &str, query: &str| json!({"type": kind, "targets": [{"query": query, "rawQuery": true}]});
        let select = "SELECT last(\"value\") FROM \"m\"";
        let plugins = ["stat", "timeseries"];
        assert_eq!(prepared(&panel("odd", select), Some(&plugins)), Err(PanelContent::NoPlugin("odd".into())));
        assert!(prepared(&panel("odd", select), None).is_ok(), "unknown plugins are not a finding");
        let flux = "from(bucket: \"b\") |> range(start: v.timeRangeStart)";
        assert_eq!(prepared(&panel("stat", flux), Some(&plugins)), Err(PanelContent::Flux));
        let dashboard = json!({"panels": [
            panel("text", ""), panel("clock", ""), panel("stat", select), {"type": "stat"}, {"type": "odd"}, {"type": "stat", "targets": ["x"]},
        ]});
        let asked = asked(&dashboard, &[], Some(&["text", "clock", "stat"]));
        let concerns: Vec<bool> = panels(&dashboard).iter().map(|panel| asked.concerns(panel)).collect();
        assert_eq!(concerns, [false, false, true, false, true, true]);
    }

    proptest::proptest! {
        #[test]
        fn no_dashboard_and_no_answer_causes_a_panic(
            json in crate::arbitrary::json(&[
                "panels", "rows", "targets", "type", "repeat", "title", "query", "select", "datasource", "uid", "refId",
                "templating", "list", "name", "current", "value", "options", "time", "from", "to", "libraryPanel",
            ]),
            sources in crate::arbitrary::json(&["uid", "name", "type", "isDefault", "jsonData", "version"]),
        ) {
            let sources: Vec<Value> = sources.as_array().cloned().unwrap_or_default();
            let asked = asked(&json, &sources, None);
            let variables = built_in(&json, asked.range);
            for panel in panels(&json).iter().filter(|panel| asked.concerns(panel)) {
                for variables in repeats(panel, &variables) {
                    let _ = asked.prepare(panel, &variables);
                }
                let _ = asked.calendar.range_of_panel(&json, panel.json);
            }
            let _ = (named(&json), listed_frame(&json), listed_series(&json), frames_length(&json), series_length(&json));
        }
    }
}
