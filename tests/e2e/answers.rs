//! What the panels of the bundled dashboard show: Grafana's answers, compared before and after data is moved.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The answers for each query of the dashboard.
pub(crate) type Answers = BTreeMap<String, Value>;

/// A range of time that does not change, so that equal data gives equal answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    from: u128,
    to: u128,
}

impl Range {
    /// Until now.
    pub(crate) fn of_the_last(time: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        Self { from: now - time.as_millis(), to: now }
    }
}

/// Asks Grafana as its panels do, for these models; `ask` posts a body to `/api/ds/query`.
///
/// # Panics
/// If fewer than half of the queries return points, because the comparison would then show nothing.
pub(crate) fn answers(uid: &str, models: &str, range: Range, ask: impl Fn(&str) -> Value) -> Answers {
    let dashboard: Value = serde_json::from_str(include_str!("../../assets/dashboard.json")).unwrap();
    let top = dashboard["panels"].as_array().unwrap();
    let inner = top.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    let mut all = Answers::new();
    for panel in top.iter().chain(inner) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["query"].as_str().unwrap();
            let query =
                query.replace("${model:regex}", models).replace("now() - 1m", &format!("{}ms", range.to - 600_000));
            let body = json!({
                "from": range.from.to_string(),
                "to": range.to.to_string(),
                "queries": [{
                    "refId": "A", "datasource": {"uid": uid, "type": "influxdb"}, "query": query, "rawQuery": true,
                    "resultFormat": "time_series", "intervalMs": 15_000, "maxDataPoints": 1000,
                }],
            });
            let answer = ask(&body.to_string())["results"]["A"].clone();
            assert!(answer["frames"].is_array(), "{}: {answer}", panel["title"]);
            all.insert(format!("{}: {query}", panel["title"]), answer["frames"].clone());
        }
    }
    let full = all.values().filter(|frames| frames.as_array().is_some_and(|frames| !frames.is_empty())).count();
    assert!(full * 2 > all.len() && all.len() > 15, "only {full} of {} queries return points", all.len());
    all
}
