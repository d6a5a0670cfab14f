//! Queries that Grafana's double sends to a real InfluxDB, and their results in the format of each version.

use serde_json::{Value, json};

use super::{Ask, Asking, Version};
use crate::support::server::Response;

/// The settings of a data source in use.
#[derive(Debug, Clone)]
pub struct Source {
    /// The actual address of InfluxDB.
    pub url: String,
    /// The address in the settings.
    pub shown_url: String,
    pub database: String,
    pub user: String,
    pub password: String,
    pub method: String,
}

/// Sends a query to InfluxDB.
pub async fn influxql(ask: Ask) -> Response {
    let Ask { source, version, kind } = ask;
    match kind {
        Asking::Proxy { query } => proxy(&source, version, &query).await,
        Asking::Health => health(&source, version).await,
        Asking::Query { body } => panels(&source, version, &body).await,
    }
}

fn client() -> reqwest::Client {
    clipper_metrics::http::install_crypto_provider();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(std::time::Duration::from_secs(5)).build().unwrap()
}

async fn send(source: &Source, path: &str) -> Result<(u16, Vec<u8>), String> {
    let mut request = client().get(format!("{}{path}", source.url));
    if !source.user.is_empty() {
        request = request.basic_auth(&source.user, Some(&source.password));
    }
    let response = request.send().await.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        cause.to_string()
    })?;
    let status = response.status().as_u16();
    Ok((status, response.bytes().await.map(|body| body.to_vec()).unwrap_or_default()))
}

async fn proxy(source: &Source, version: Version, query: &str) -> Response {
    if query.is_empty() && version == Version::V9 {
        // The path that 9.4 builds for an address with a uid.
        return match send(source, "/uid/garbled").await {
            Ok((status, body)) => Response::bytes(status, "text/plain; charset=utf-8", body),
            Err(_) => Response::bytes(502, "", Vec::new()),
        };
    }
    match send(source, &format!("/query?{query}")).await {
        Ok((status, body)) => Response::bytes(status, "application/json", body),
        Err(_) => Response::bytes(502, "", Vec::new()),
    }
}

/// Grafana's message that InfluxDB cannot be reached.
fn unreachable(source: &Source, why: &str) -> String {
    let address = source.shown_url.trim_start_matches("http://");
    let host = address.split(':').next().unwrap_or_default();
    let reason = if why.contains("lookup") {
        format!("dial tcp: lookup {host}: no such host")
    } else if why.contains("timed out") {
        format!("dial tcp {address}: i/o timeout")
    } else {
        format!("dial tcp {address}: connect: connection refused")
    };
    format!("Post \"{}/query?db={}&epoch=ms\": {reason}", source.shown_url, source.database)
}

async fn ask(source: &Source, question: &str) -> Result<Value, String> {
    let escape = clipper_metrics::http::escaped;
    let path = format!("/query?epoch=ms&db={}&q={}", escape(&source.database), escape(question));
    let (_, body) = send(source, &path).await?;
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    match json["error"].as_str() {
        Some(error) => Ok(json!({"error": error})),
        None => Ok(json["results"][0].clone()),
    }
}

async fn health(source: &Source, version: Version) -> Response {
    match ask(source, "SHOW MEASUREMENTS").await {
        Ok(result) => {
            let count = result["series"][0]["values"].as_array().map_or(0, Vec::len);
            let message = format!("datasource is working. {count} measurements found");
            Response::json(200, &json!({"status": "OK", "message": message}))
        }
        Err(why) => {
            let doing =
                if version == Version::V9 { "error performing influxQL query" } else { "error reading influxDB" };
            let message = format!("{} {doing}", unreachable(source, &why));
            Response::json(400, &json!({"status": "ERROR", "message": message}))
        }
    }
}

/// `/api/ds/query`: fills in macros and sends the first query.
async fn panels(source: &Source, version: Version, body: &Value) -> Response {
    let query = &body["queries"][0];
    let question = filled(body, query);
    let is_relative = |name: &str| body[name].as_str().is_some_and(|text| text.starts_with("now"));
    if version == Version::V7 && question != query["query"] && (is_relative("from") || is_relative("to")) {
        // Measured: with relative times, its $timeFilter matches nothing.
        return old_answer(&Ok(json!({})));
    }
    let result = ask(source, &question).await;
    if version == Version::V7 {
        return old_answer(&result);
    }
    let plugin_error = || {
        let message = "An error occurred within the plugin";
        let body = json!({"message": message, "messageId": "plugin.downstreamError", "statusCode": 500, "traceID": ""});
        Response::json(500, &body)
    };
    let failed = |error: String, status: u16| {
        let mut result = json!({"error": error, "status": status});
        if version >= Version::V12 {
            result["errorSource"] = json!("downstream");
        }
        Response::json(400, &json!({"results": {"A": result}}))
    };
    match result {
        Err(_) if version == Version::V9 => plugin_error(),
        Err(why) => failed(unreachable(source, &why), 502),
        Ok(result) => match result["error"].as_str() {
            // An invalid query is a different error than a missing database.
            Some(error) if error.starts_with("error parsing") && version == Version::V9 => plugin_error(),
            Some(error) if error.starts_with("error parsing") => {
                failed(format!("InfluxDB returned error: {error}"), 500)
            }
            Some(error) => failed(error.to_string(), 500),
            None => {
                let frames = frames(version, &result, &question, query["resultFormat"] == "table");
                Response::json(200, &json!({"results": {"A": {"status": 200, "frames": frames}}}))
            }
        },
    }
}

/// Fills in `$timeFilter` and `$__interval` as Grafana does.
pub fn filled(body: &Value, query: &Value) -> String {
    let moment = |value: &Value, default: &str| match value.as_str().unwrap_or(default) {
        text if text.chars().all(|c| c.is_ascii_digit()) => format!("{text}ms"),
        "now" => "now()".to_string(),
        text => text.replace("now", "now() "),
    };
    let filter = format!("time >= {} and time <= {}", moment(&body["from"], "now-1h"), moment(&body["to"], "now"));
    let seconds = query["intervalMs"].as_u64().unwrap_or(15_000) / 1000;
    query["query"]
        .as_str()
        .unwrap_or_default()
        .replace("$timeFilter", &filter)
        .replace("$__interval", &format!("{seconds}s"))
}

fn series(result: &Value) -> Vec<Value> {
    result["series"].as_array().cloned().unwrap_or_default()
}

fn columns(series: &Value) -> Vec<String> {
    series["columns"].as_array().into_iter().flatten().filter_map(|name| name.as_str().map(String::from)).collect()
}

fn column(series: &Value, index: usize) -> Vec<Value> {
    series["values"].as_array().into_iter().flatten().map(|row| row[index].clone()).collect()
}

/// 7.5 answers with lists of points, and does not report a missing database.
fn old_answer(result: &Result<Value, String>) -> Response {
    let result = match result {
        Err(_) => return Response::json(500, &json!({"message": "Metric request error"})),
        Ok(result) if result["error"].as_str().is_some_and(|error| error.starts_with("error parsing")) => {
            return Response::json(500, &json!({"message": "Metric request error"}));
        }
        Ok(result) => result,
    };
    let mut found = Vec::new();
    for series in series(result) {
        let name = series["name"].as_str().unwrap_or_default().to_string();
        let columns = columns(&series);
        let has_time = columns.first().is_some_and(|first| first == "time");
        for (index, label) in columns.iter().enumerate().skip(usize::from(has_time)) {
            let points: Value = if has_time {
                column(&series, index)
                    .into_iter()
                    .zip(column(&series, 0))
                    .map(|(value, time)| json!([value, time]))
                    .collect()
            } else {
                Value::Null
            };
            found.push(json!({"name": format!("{name}.{label}"), "points": points}));
        }
    }
    let answer = json!({"refId": "", "series": found, "tables": null, "dataframes": null});
    Response::json(200, &json!({"results": {"A": answer}}))
}

/// From 9 on, results are data frames.
fn frames(version: Version, result: &Value, question: &str, table: bool) -> Vec<Value> {
    let new = version >= Version::V12;
    let mut frames = Vec::new();
    for series in series(result) {
        let columns = columns(&series);
        let has_time = columns.first().is_some_and(|first| first == "time");
        let name = &series["name"];
        let schema = |fields: Vec<Value>, name: Value, look: &str, meta: bool| {
            let mut schema = json!({"refId": "A", "fields": fields});
            if !name.is_null() {
                schema["name"] = name;
            }
            if new {
                schema["meta"] = json!({
                    "typeVersion": [0, 0], "custom": null, "preferredVisualisationType": look,
                    "executedQueryString": question,
                });
            } else if meta {
                schema["meta"] = json!({"executedQueryString": question});
            }
            schema
        };
        if has_time && !table {
            for (index, label) in columns.iter().enumerate().skip(1) {
                let shown = format!("{}.{label}", name.as_str().unwrap_or_default());
                let (time, value) = if new { ("Time", "Value") } else { ("time", "value") };
                let fields = vec![
                    json!({"name": time, "type": "time", "typeInfo": {"frame": "time.Time"}}),
                    json!({"name": value, "type": "number", "typeInfo": {"frame": "float64", "nullable": true},
                           "config": {"displayNameFromDS": shown}}),
                ];
                let data = json!({"values": [column(&series, 0), column(&series, index)]});
                let mut schema = schema(fields, json!(shown), "graph", true);
                if new && !frames.is_empty() {
                    // 12 reports the executed query only once.
                    schema.as_object_mut().map(|fields| fields.remove("meta"));
                }
                frames.push(json!({"schema": schema, "data": data}));
            }
        } else if new {
            let fields = columns
                .iter()
                .enumerate()
                .map(|(index, label)| {
                    let (kind, frame) = match column(&series, index).first() {
                        Some(Value::Bool(_)) => ("boolean", "bool"),
                        Some(Value::Number(_)) => ("number", "float64"),
                        _ => ("string", "string"),
                    };
                    json!({"name": label, "type": kind, "typeInfo": {"frame": frame, "nullable": true},
                           "config": {"displayNameFromDS": label}})
                })
                .collect();
            let values: Vec<Vec<Value>> = (0..columns.len()).map(|index| column(&series, index)).collect();
            frames.push(json!({"schema": schema(fields, name.clone(), "table", true), "data": {"values": values}}));
        } else {
            let fields = vec![json!({"name": "value", "type": "string", "typeInfo": {"frame": "string"}})];
            let data = json!({"values": [column(&series, 0)]});
            frames.push(json!({"schema": schema(fields, name.clone(), "table", false), "data": data}));
        }
    }
    frames
}
