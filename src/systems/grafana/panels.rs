//! The queries of the stored dashboard, asked as a browser asks them: variables first, then every panel
//! with the variables filled in.
//!
//! Knows Grafana's panels and the shapes of its answers. Must not decide what an answer means.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::question::PAST_THE_CACHE;
use super::variables::{Chosen, Variables, choose, matching, names_in};
use super::{Api, EXPRESSION, Grafana, INFLUXDB, numeric_id, text};
use crate::core::diagnosis::{PanelAnswer, PanelContent, VariableAnswer, VariableContent};
use crate::core::text::excerpt;
use crate::error::{Error, Result};
use crate::systems::http::{Body, escaped};
use crate::systems::influxql::{quoted, references};

/// Panels that are asked at the same time.
const AT_ONCE: usize = 6;
/// A panel that is repeated for each value of a variable is asked for so many of them.
const REPEATS: usize = 10;
/// The points of one series that are asked for: enough to tell whether there are any.
const MAX_POINTS: u64 = 100;
/// Clipper's report interval, below which asking makes no sense, in milliseconds.
const SHORTEST_INTERVAL: u64 = 15_000;

/// What the stored dashboard gives when it is opened.
#[derive(Debug)]
pub struct Opened {
    /// Every variable that is filled by a query.
    pub variables: Vec<VariableAnswer>,
    /// Every panel.
    pub panels: Vec<PanelAnswer>,
}

/// Names of fields and tags by data source and measurements: panels of the same ones ask once.
type KnownNames = Mutex<BTreeMap<(String, String), Vec<String>>>;

/// A panel, with what is chosen in the variables that it is repeated for.
struct Panel<'a> {
    title: String,
    json: &'a Value,
    repeated_for: Option<&'a str>,
}

/// The dashboard as it is asked.
struct Asked<'a> {
    sources: &'a [Value],
    /// Milliseconds since 1970, as a browser sends them: 7.5 reads no other times here.
    from: i64,
    to: i64,
    /// Milliseconds.
    interval: u64,
}

impl Grafana {
    /// Grafana has its plugin for InfluxDB; `None` where the account may not know.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
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
    /// With Grafana's words when it cannot tell.
    pub async fn finds_probe(&self, source: &str, question: &str, now: i64) -> Result<bool> {
        let sources = self.data_sources().await?;
        let asked = Asked { sources: &sources, from: now - 300_000, to: now, interval: SHORTEST_INTERVAL };
        let target = json!({"refId": "A", "rawQuery": true, "resultFormat": "time_series", "query": question});
        let points = self.ask_targets(&asked, source, vec![target]).await?;
        points.map(|points| points > 0).map_err(|why| self.answered("query the data source", 0, why))
    }

    /// Opens the stored dashboard as a browser does; nothing if it is not there.
    ///
    /// # Errors
    /// When the server refuses or does not answer. What a query gives is part of the answer.
    pub async fn open_dashboard(&self, uid: &str, now: i64) -> Result<Option<Opened>> {
        let (Some(found), sources) = (self.dashboard(uid).await?, self.data_sources().await?) else { return Ok(None) };
        let dashboard = &found["dashboard"];
        let time = |name: &str, default: &str| {
            let written = text(&dashboard["time"][name]);
            moment(&written, now).or_else(|| moment(default, now)).unwrap_or(now)
        };
        let (from, to) = (time("from", "now-30m"), time("to", "now"));
        let interval = u64::try_from(to.saturating_sub(from)).unwrap_or_default() / MAX_POINTS;
        let asked = Asked { sources: &sources, from, to, interval: interval.max(SHORTEST_INTERVAL) };
        let mut variables = built_in(dashboard, &asked);
        let mut answers = Vec::new();
        let mut waiting: Vec<&Value> = dashboard["templating"]["list"].as_array().into_iter().flatten().collect();
        // One that refers to another comes after it; those that refer to each other come as they are.
        while !waiting.is_empty() {
            let names: Vec<String> = waiting.iter().map(|one| text(&one["name"])).collect();
            let is_ready = |one: &&Value| {
                let own = text(&one["name"]);
                !names.iter().any(|name| *name != own && refers(one, name))
            };
            let index = waiting.iter().position(is_ready).unwrap_or(0);
            let variable = waiting.remove(index);
            answers.extend(self.fill_variable(&asked, variable, &mut variables).await?);
        }
        let panels = panels(dashboard);
        let (shared, fields) = (&variables, &KnownNames::default());
        let (asked, panels) = (&asked, &panels);
        let asking = stream::iter(0..panels.len())
            .map(|index| async move { self.ask_panel(asked, &panels[index], shared, fields).await })
            .buffered(AT_ONCE);
        let panels = asking.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Some(Opened { variables: answers, panels }))
    }

    /// Sets a variable; what was asked for it, if anything was.
    async fn fill_variable(
        &self,
        asked: &Asked<'_>,
        variable: &Value,
        variables: &mut Variables,
    ) -> Result<Option<VariableAnswer>> {
        let name = text(&variable["name"]);
        let started = Instant::now();
        match variable["type"].as_str() {
            Some("query") => {}
            Some("datasource") => {
                let chosen = text(&variable["current"]["value"]);
                let is_there = find(asked.sources, &chosen).is_some();
                let first =
                    || asked.sources.iter().find(|source| source["type"] == variable["query"]).map(|s| text(&s["uid"]));
                // One that is gone is not offered any more: the browser takes the first.
                let chosen = if chosen.is_empty() || !is_there { first().unwrap_or(chosen) } else { chosen };
                variables.set(&name, Chosen::One(chosen));
                return Ok(None);
            }
            // One that follows the time range.
            Some("interval") if text(&variable["current"]["value"]).starts_with("$__auto") => {
                variables.set(&name, Chosen::One(format!("{}s", asked.interval / 1000)));
                return Ok(None);
            }
            Some("constant" | "textbox") => {
                let current = text(&variable["current"]["value"]);
                let value = if current.is_empty() { text(&variable["query"]) } else { current };
                variables.set(&name, Chosen::One(value));
                return Ok(None);
            }
            _ => {
                let offered: Vec<String> = variable["options"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|option| text(&option["value"]))
                    .filter(|value| value != "$__all")
                    .collect();
                let offered = if offered.is_empty() { listed(&text(&variable["query"])) } else { offered };
                variables.set(&name, choose(variable, &offered));
                return Ok(None);
            }
        }
        let query = variable["query"].as_str().or_else(|| variable["query"]["query"].as_str()).unwrap_or_default();
        let source = reference(&variable["datasource"], variables);
        let (content, values) = match find(asked.sources, &source) {
            Some(found) if found["type"] != INFLUXDB => return Ok(None),
            None => (VariableContent::Failed(format!("there is no data source {source}")), Vec::new()),
            Some(found) => match self.list(found, &variables.fill(query)).await? {
                Ok(found) => match matching(&variables.fill(&text(&variable["regex"])), found) {
                    Ok(values) => (VariableContent::Values(values.len()), values),
                    Err(why) => (VariableContent::Unchecked(why), Vec::new()),
                },
                Err(why) => (VariableContent::Failed(why), Vec::new()),
            },
        };
        variables.set(&name, choose(variable, &values));
        Ok(Some(VariableAnswer { name, content, time: started.elapsed() }))
    }

    /// Asks a panel, once for each value of the variable that it is repeated for.
    async fn ask_panel(
        &self,
        asked: &Asked<'_>,
        panel: &Panel<'_>,
        variables: &Variables,
        fields: &KnownNames,
    ) -> Result<PanelAnswer> {
        let started = Instant::now();
        let mut content = PanelContent::Empty;
        for variables in repeats(panel, variables) {
            let one = self.ask_repeat(asked, panel, &variables, fields).await?;
            content = match (content, one) {
                (PanelContent::Points(one), PanelContent::Points(more)) => PanelContent::Points(one + more),
                (PanelContent::Points(points), PanelContent::Empty) => PanelContent::Points(points),
                (_, other) => other,
            };
            if !matches!(content, PanelContent::Points(_) | PanelContent::Empty) {
                break;
            }
        }
        Ok(PanelAnswer { title: panel.title.clone(), content, time: started.elapsed() })
    }

    async fn ask_repeat(
        &self,
        asked: &Asked<'_>,
        panel: &Panel<'_>,
        variables: &Variables,
        fields: &KnownNames,
    ) -> Result<PanelContent> {
        if !panel.json["libraryPanel"].is_null() && panel.json["targets"].is_null() {
            return Ok(PanelContent::Elsewhere("what a library panel says".into()));
        }
        let own = reference(&panel.json["datasource"], variables);
        let mut by_source: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for target in panel.json["targets"].as_array().into_iter().flatten().filter(|target| target["hide"] != true) {
            let source = reference(&target["datasource"], variables);
            let source =
                if source.is_empty() || own != MIXED && target["datasource"].is_null() { own.clone() } else { source };
            if source == EXPRESSION {
                // It computes with the answers of the others.
                continue;
            }
            let mut target = variables.fill_all(target);
            if let Some(unknown) = target["query"].as_str().and_then(left_over) {
                return Ok(PanelContent::Elsewhere(format!("with ${unknown}, which only a browser knows")));
            }
            if target["refId"].as_str().is_none_or(str::is_empty) {
                target["refId"] = json!("A");
            }
            by_source.entry(source).or_default().push(target);
        }
        if by_source.is_empty() {
            let kind = panel.json["type"].as_str().unwrap_or_default();
            return Ok(PanelContent::Elsewhere(format!("a panel of type {kind:?} without a query")));
        }
        let (mut points, mut asks, mut elsewhere) = (0, false, None);
        for (source, targets) in by_source {
            match find(asked.sources, &source) {
                None if source.starts_with("-- ") || source == "grafana" => {
                    elsewhere = Some(format!("Grafana's own data source {source:?}"));
                }
                None => return Ok(PanelContent::Failed(format!("there is no data source {source:?}"))),
                Some(found) if found["type"] != INFLUXDB => {
                    elsewhere = Some(format!("a data source of type {}", found["type"]));
                }
                Some(found) if found["jsonData"]["version"].as_str().is_some_and(|language| language != "InfluxQL") => {
                    elsewhere = Some("in another query language".into());
                }
                Some(found) => {
                    asks = true;
                    let uid = text(&found["uid"]);
                    for target in &targets {
                        if let Some(unknown) = self.unknown_field(found, target, fields).await? {
                            return Ok(unknown);
                        }
                    }
                    match self.ask_targets(asked, &uid, targets).await? {
                        Ok(found) => points += found,
                        Err(why) => return Ok(PanelContent::Failed(why)),
                    }
                }
            }
        }
        Ok(match elsewhere {
            Some(elsewhere) if !asks => PanelContent::Elsewhere(elsewhere),
            _ if points > 0 => PanelContent::Points(points),
            _ => PanelContent::Empty,
        })
    }

    /// Asks queries of one data source in one request; how many points came back, or Grafana's words.
    async fn ask_targets(&self, asked: &Asked<'_>, uid: &str, targets: Vec<Value>) -> Result<Result<usize, String>> {
        let number = numeric_id(asked.sources, uid);
        let queries: Vec<Value> = targets
            .into_iter()
            .map(|mut target| {
                target["datasource"] = json!({"type": INFLUXDB, "uid": uid});
                target["datasourceId"] = json!(number);
                target["intervalMs"] = json!(asked.interval);
                target["maxDataPoints"] = json!(MAX_POINTS);
                target
            })
            .collect();
        let names: Vec<String> = queries.iter().map(|query| text(&query["refId"])).collect();
        let body = json!({"from": asked.from.to_string(), "to": asked.to.to_string(), "queries": queries});
        let answer = match self.exchange("POST", "/api/ds/query", &[PAST_THE_CACHE], Body::Json(&body)).await {
            Err(Error::Http { why, .. }) => return Ok(Err(format!("Grafana's answer: {why}"))),
            answer => answer?,
        };
        let results = &answer.json()["results"];
        let mut points = 0;
        for name in &names {
            let result = &results[name];
            if let Some(why) = result["error"].as_str() {
                return Ok(Err(excerpt(why, 300)));
            }
            points += frames_length(result) + series_length(result);
        }
        Ok(if answer.is_success() { Ok(points) } else { Err(answer.message()) })
    }

    /// A field that a query names and none of its measurements has. Where there is no such measurement
    /// at all, nothing can be said.
    async fn unknown_field(&self, source: &Value, target: &Value, known: &KnownNames) -> Result<Option<PanelContent>> {
        let Some((measurements, names)) = named(target) else { return Ok(None) };
        let key = (text(&source["uid"]), measurements.clone());
        // Held while asking.
        let mut known = known.lock().await;
        let keys = if let Some(keys) = known.get(&key) {
            keys.clone()
        } else {
            let list = async |what: &str| {
                let statement = format!("SHOW {what} KEYS FROM {measurements}");
                Ok::<_, Error>(self.list(source, &statement).await?.unwrap_or_default())
            };
            let mut keys = list("FIELD").await?;
            if !keys.is_empty() {
                keys.extend(list("TAG").await?);
            }
            known.insert(key, keys.clone());
            keys
        };
        let missing = names.into_iter().find(|name| !keys.is_empty() && !keys.contains(name));
        Ok(missing.map(|field| PanelContent::UnknownField { field, source: measurements }))
    }

    /// What a statement lists, as a variable's query does: one text for each row.
    async fn list(&self, source: &Value, question: &str) -> Result<Result<Vec<String>, String>> {
        let is_proxied = self.api() == Api::Numeric;
        let answer = if is_proxied {
            let database = source["database"].as_str().filter(|name| !name.is_empty());
            let database = database.or_else(|| source["jsonData"]["dbName"].as_str()).unwrap_or_default();
            let query = format!("db={}&q={}", escaped(database), escaped(question));
            let path = format!("/api/datasources/proxy/{}/query?{query}", source["id"]);
            self.exchange("GET", &path, &[PAST_THE_CACHE], Body::Empty).await
        } else {
            let body = json!({"from": "now-30m", "to": "now", "queries": [{
                "refId": "A", "datasource": {"type": INFLUXDB, "uid": source["uid"]}, "rawQuery": true,
                "resultFormat": "table", "intervalMs": SHORTEST_INTERVAL, "maxDataPoints": MAX_POINTS,
                "query": question,
            }]});
            self.exchange("POST", "/api/ds/query", &[PAST_THE_CACHE], Body::Json(&body)).await
        };
        let answer = match answer {
            Err(Error::Http { why, .. }) => return Ok(Err(why)),
            answer => answer?,
        };
        let json = answer.json();
        let result = if is_proxied { &json["results"][0] } else { &json["results"]["A"] };
        if let Some(why) = result["error"].as_str() {
            return Ok(Err(excerpt(why, 300)));
        }
        if !answer.is_success() {
            return Ok(Err(answer.message()));
        }
        let list = result[if is_proxied { "series" } else { "frames" }].as_array();
        let read = if is_proxied { listed_series } else { listed_frame };
        let rows = list.into_iter().flatten().flat_map(read);
        Ok(Ok(rows.collect()))
    }
}

/// What Grafana's server itself puts into a query.
const MACROS: [&str; 5] = ["timeFilter", "__timeFilter", "interval", "__interval", "__interval_ms"];
/// Grafana's name for a panel whose queries each name their own data source.
const MIXED: &str = "-- Mixed --";

/// What a browser fills in by itself.
fn built_in(dashboard: &Value, asked: &Asked<'_>) -> Variables {
    let mut variables = Variables::default();
    let millis = asked.to.saturating_sub(asked.from).max(0);
    for (name, value) in [
        ("__from", asked.from.to_string()),
        ("__to", asked.to.to_string()),
        ("__range", format!("{}s", millis / 1000)),
        ("__range_s", (millis / 1000).to_string()),
        ("__range_ms", millis.to_string()),
        ("__dashboard", text(&dashboard["title"])),
    ] {
        variables.set(name, Chosen::One(value));
    }

    variables
}

/// A variable refers to another one by its name.
fn refers(variable: &Value, name: &str) -> bool {
    let mut probe = Variables::default();
    probe.set(name, Chosen::One(String::new()));
    let query = variable["query"].as_str().or_else(|| variable["query"]["query"].as_str()).unwrap_or_default();
    let source = variable["datasource"].as_str().or_else(|| variable["datasource"]["uid"].as_str()).unwrap_or_default();
    [query, source, variable["regex"].as_str().unwrap_or_default()].iter().any(|text| probe.fill(text) != *text)
}

/// A variable that is left in a query, which neither we nor Grafana's server fill in.
fn left_over(query: &str) -> Option<String> {
    names_in(query).into_iter().find(|name| !MACROS.contains(&name.as_str()))
}

/// All panels that ask something, also those in rows.
fn panels(dashboard: &Value) -> Vec<Panel<'_>> {
    let mut found = Vec::new();
    let mut row_repeats = None;
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        if panel["type"] == "row" {
            // An open row's panels follow it, a closed one holds them.
            row_repeats = panel["repeat"].as_str();
            let inner = panel["panels"].as_array().into_iter().flatten();
            found.extend(inner.map(|panel| (panel, row_repeats)));
        } else {
            found.push((panel, row_repeats));
        }
    }
    let asks =
        |panel: &Value| !panel["libraryPanel"].is_null() || !panel["targets"].as_array().is_none_or(Vec::is_empty);
    let panels = found.into_iter().filter(|(panel, _)| asks(panel));
    panels
        .map(|(json, of_row)| Panel {
            title: text(&json["title"]),
            json,
            repeated_for: json["repeat"].as_str().filter(|name| !name.is_empty()).or(of_row),
        })
        .collect()
}

/// The variables for each time that a panel is shown.
fn repeats(panel: &Panel<'_>, variables: &Variables) -> Vec<Variables> {
    let values = panel.repeated_for.and_then(|name| Some((name, variables.get(name)?)));
    match values {
        Some((name, Chosen::Several(values))) if !values.is_empty() => values
            .iter()
            .take(REPEATS)
            .map(|value| {
                let mut own = variables.clone();
                own.set(name, Chosen::One(value.clone()));
                own
            })
            .collect(),
        _ => vec![variables.clone()],
    }
}

/// What a reference to a data source says, variables filled in: a uid, or before 9 a name. Empty is the
/// default one.
fn reference(value: &Value, variables: &Variables) -> String {
    let written = value.as_str().or_else(|| value["uid"].as_str()).unwrap_or_default();
    variables.fill(written)
}

/// The data source with that uid or name.
fn find<'a>(sources: &'a [Value], reference: &str) -> Option<&'a Value> {
    if reference.is_empty() || reference == "default" {
        return sources.iter().find(|source| source["isDefault"] == true);
    }
    sources.iter().find(|source| source["uid"] == reference || source["name"] == reference)
}

/// The values that a custom variable lists: `a, b` or `text : value`.
fn listed(query: &str) -> Vec<String> {
    let value = |item: &str| item.split_once(" : ").map_or(item, |(_, value)| value).trim().to_string();
    query.split(',').map(value).filter(|value| !value.is_empty()).collect()
}

/// The measurements and fields that a query names, whether it is written or put together.
fn named(target: &Value) -> Option<(String, Vec<String>)> {
    // Without the mark, a query that has a text is written.
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
    // `field::type` is a field, and `tag::tag` none.
    let name = |field: &str| field.split_once("::").map_or(field, |(name, _)| name).to_string();
    Some((source, fields.filter(|field| is_one(field)).map(name).collect()))
}

/// Points in data frames.
fn frames_length(result: &Value) -> usize {
    let length = |frame: &Value| frame["data"]["values"][0].as_array().map_or(0, Vec::len);
    result["frames"].as_array().map_or(0, |frames| frames.iter().map(length).sum())
}

/// Points in the lists of versions before 9.
fn series_length(result: &Value) -> usize {
    let length = |series: &Value| series["points"].as_array().map_or(0, Vec::len);
    result["series"].as_array().map_or(0, |series| series.iter().map(length).sum())
}

/// The column that a list is about: the values of a tag, else the first that is no time.
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

/// A time of a dashboard's range, such as `now-30m`, in milliseconds since 1970. Rounding (`/d`) is left
/// out: it changes what is shown, not whether it can be.
fn moment(written: &str, now: i64) -> Option<i64> {
    let written = written.split('/').next()?.trim();
    if written == "now" {
        return Some(now);
    }
    if let Some(back) = written.strip_prefix("now-") {
        let back = humantime::parse_duration(back).ok()?;
        return Some(now.saturating_sub(i64::try_from(back.as_millis()).ok()?));
    }
    if let Ok(millis) = written.parse() {
        return Some(millis);
    }
    let since = humantime::parse_rfc3339_weak(written).ok()?.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_names_is_found_in_both_ways_to_write_one() {
        let written = json!({"rawQuery": true, "query": "SELECT mean(\"a\") FROM /x/ WHERE $timeFilter"});
        assert_eq!(named(&written), Some(("/x/".into(), vec!["a".into()])));
        let built = json!({"measurement": "m", "select": [[{"type": "field", "params": ["b"]}, {"type": "mean"}]]});
        assert_eq!(named(&built), Some(("\"m\"".into(), vec!["b".into()])));
        assert_eq!(named(&json!({})), None);
    }

    #[test]
    fn every_panel_is_found_and_repeats_as_its_row_does() {
        let dashboard: Value = serde_json::from_str(include_str!("../../../assets/dashboard.json")).unwrap();
        let found = panels(&dashboard);
        assert_eq!(found.len(), 16);
        let of = |title: &str| found.iter().find(|panel| panel.title == title).unwrap();
        assert_eq!(of("Latency of $model").repeated_for, Some("model"));
        assert_eq!(of("Predictions").repeated_for, None);
        let mut variables = Variables::default();
        variables.set("model", Chosen::Several(vec!["a".into(), "b".into()]));
        assert_eq!(repeats(of("Latency of $model"), &variables).len(), 2);
        assert_eq!(repeats(of("Predictions"), &variables).len(), 1);
    }

    #[test]
    fn lists_of_a_variable_are_read_from_every_shape() {
        assert_eq!(listed("a, b c , text : v"), ["a", "b c", "v"]);
        let tags = json!({"columns": ["key", "value"], "values": [["host", "a"], ["host", "b"]]});
        assert_eq!(listed_series(&tags), ["a", "b"]);
        let frame = json!({"schema": {"fields": [{"name": "name"}]}, "data": {"values": [["m1"]]}});
        assert_eq!(listed_frame(&frame), ["m1"]);
        assert_eq!(moment("now-6h/h", 30_000_000), Some(30_000_000 - 6 * 3_600_000));
        assert_eq!(moment("1970-01-01T00:00:01.000Z", 0), Some(1000));
        assert_eq!(moment("7", 0), Some(7));
        assert_eq!(moment("now-x", 0), None);
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_dashboard_holds_its_panels_are_found(json in crate::systems::arbitrary::json(&["panels", "targets", "type", "repeat", "title", "query", "select"])) {
            let found = panels(&json);
            for panel in &found {
                let _ = repeats(panel, &Variables::default());
            }
            let _ = (named(&json), listed_frame(&json), listed_series(&json), frames_length(&json), series_length(&json));
        }
    }
}
