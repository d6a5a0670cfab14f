//! Finds a dashboard's panels, in every layout since Grafana 4, and their queries.
//!
//! Dashboards may come from any source, so no content causes an error here.

use serde_json::Value;

use super::{EXPRESSION, text};

/// From this schema version on, a list of panels replaces the list of rows.
const PANELS_FROM: u64 = 16;
/// Grafana's name for a panel whose queries have individual data sources.
const MIXED: &str = "-- Mixed --";
/// Panel types without queries, including those of versions before 12.
const WITHOUT_QUERIES: [&str; 11] = [
    "alertlist",
    "annolist",
    "dashlist",
    "gettingstarted",
    "homelinks",
    "live",
    "news",
    "pluginlist",
    "row",
    "text",
    "welcome",
];
/// Panel types that browsers replace by another one from Grafana 11 on.
const REPLACED: [(&str, &str); 7] = [
    ("graph", "timeseries"),
    ("table-old", "table"),
    ("singlestat", "stat"),
    ("grafana-singlestat-panel", "stat"),
    ("grafana-piechart-panel", "piechart"),
    ("grafana-worldmap-panel", "geomap"),
    ("natel-discrete-panel", "state-timeline"),
];

/// A panel, with the variable for which it or its row is repeated.
pub(super) struct Panel<'a> {
    pub(super) title: String,
    pub(super) json: &'a Value,
    pub(super) repeated_for: Option<&'a str>,
    /// It belongs to a collapsed row.
    pub(super) is_collapsed: bool,
}

/// All panels except rows, including those inside rows.
pub(super) fn panels(dashboard: &Value) -> Vec<Panel<'_>> {
    let mut found = Vec::new();
    let rows = dashboard["rows"].as_array().filter(|_| dashboard["schemaVersion"].as_u64() < Some(PANELS_FROM));
    for row in rows.into_iter().flatten() {
        add(&row["panels"], repeat(row), row["collapse"] == true, &mut found);
    }
    add(&dashboard["panels"], None, false, &mut found);
    found
}

fn add<'a>(panels: &'a Value, mut row_repeats: Option<&'a str>, is_collapsed: bool, found: &mut Vec<Panel<'a>>) {
    for json in panels.as_array().into_iter().flatten().filter(|panel| panel.is_object()) {
        if json["type"] == "row" || json["panels"].is_array() {
            // The panels of an open row follow it; a collapsed row contains them.
            row_repeats = repeat(json);
            add(&json["panels"], row_repeats, true, found);
        } else {
            let repeated_for = repeat(json).or(row_repeats);
            found.push(Panel { title: text(&json["title"]), json, repeated_for, is_collapsed });
        }
    }
}

fn repeat(panel: &Value) -> Option<&str> {
    panel["repeat"].as_str().filter(|name| !name.is_empty())
}

/// Whether panels of this type send no queries.
pub(super) fn is_silent(kind: &str) -> bool {
    WITHOUT_QUERIES.contains(&kind)
}

/// Whether a data source is built into Grafana: its own data, another panel's results, or expressions.
pub(super) fn is_built_in(reference: &str) -> bool {
    is_expression(reference) || reference.starts_with("-- ") || reference == "grafana"
}

/// Whether Grafana computes the result from other queries. Before version 9, the uid of expressions
/// was a number.
pub(super) fn is_expression(reference: &str) -> bool {
    [EXPRESSION, "-100"].contains(&reference)
}

/// Panel types that browsers replace from Grafana 11 on, with their replacements.
pub(super) fn replacements() -> impl Iterator<Item = (&'static str, &'static str)> {
    REPLACED.into_iter()
}

impl<'a> Panel<'a> {
    /// Whether it is open when the dashboard opens, and has a query over the dashboard's time range.
    pub(super) fn shows_range(&self) -> bool {
        let has_range = |target: &Value| {
            let query = target["query"].as_str().filter(|_| target["rawQuery"] == true);
            query.is_none_or(|query| ["$timeFilter", "$__timeFilter"].iter().any(|filter| query.contains(filter)))
        };
        !self.is_collapsed && self.queries().iter().any(|(target, _)| has_range(target))
    }

    /// The id of its plugin.
    pub(super) fn kind(&self) -> &'a str {
        self.json["type"].as_str().unwrap_or_default()
    }

    /// The queries that a browser sends for it, each with its data source; empty for a text panel.
    /// A query's own data source counts only in mixed panels and for expressions.
    pub(super) fn queries(&self) -> Vec<(&'a Value, &'a Value)> {
        let own = &self.json["datasource"];
        let is_mixed = uid(own) == Some(MIXED);
        let targets = self.json["targets"].as_array().into_iter().flatten();
        let targets = targets.filter(|target| target.is_object() && !is_silent(self.kind()));
        let targets: Vec<&Value> = targets.collect();
        let first = targets.iter().map(|target| &target["datasource"]).find(|source| !source.is_null());
        let of_panel = if own.is_null() { first.unwrap_or(own) } else { own };
        let shown = targets.into_iter().filter(|target| target["hide"] != true);
        shown
            .map(|target| {
                let source = &target["datasource"];
                let is_own = is_mixed || uid(source).is_some_and(is_expression);
                (target, if is_own { source } else { of_panel })
            })
            .collect()
    }
}

/// The uid of a data source, or its name in old dashboards.
fn uid(source: &Value) -> Option<&str> {
    source.as_str().or_else(|| source["uid"].as_str())
}

/// Whether a query is written in Flux, the language of InfluxDB 2.
pub(super) fn is_flux(target: &Value) -> bool {
    let Some(query) = target["query"].as_str() else { return false };
    let lines = query.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let code: String = lines.flat_map(|line| line.chars().chain(['\n'])).collect();
    let squeezed: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let is_select = squeezed.get(..6).is_some_and(|begin| begin.eq_ignore_ascii_case("select"));
    !is_select && (squeezed.starts_with("from(") || squeezed.starts_with("import\"") || squeezed.contains("|>"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn titles(dashboard: &Value) -> Vec<(String, Option<&str>)> {
        panels(dashboard).into_iter().map(|panel| (panel.title, panel.repeated_for)).collect()
    }

    #[test]
    fn panels_are_found_in_every_layout() {
        let named = |title: &str| json!({"title": title, "type": "graph"});
        let own = json!({"title": "own", "type": "graph", "repeat": "w"});
        // Grafana 4: rows of panels, which may be collapsed or repeated.
        let rows = json!([{"panels": [named("a")]}, {"collapse": true, "repeat": "v", "panels": [named("b"), own]}]);
        let expected = [("a".into(), None), ("b".into(), Some("v")), ("own".into(), Some("w"))];
        for version in [json!(null), json!(4), json!(14)] {
            assert_eq!(titles(&json!({"schemaVersion": version, "rows": rows})), expected, "{version}");
        }
        // Later versions: an open row precedes its panels, a collapsed row contains them.
        let closed = json!({"type": "row", "collapsed": true, "repeat": "v", "panels": [named("b"), own]});
        let open = json!({"type": "row", "repeat": "", "panels": []});
        for version in [16, 27, 42] {
            let panels = json!([named("a"), closed, open, named("c")]);
            let found = json!({"schemaVersion": version, "panels": panels, "rows": rows});
            let expected = [&expected[..], &[("c".into(), None)]].concat();
            assert_eq!(titles(&found), expected, "{version}");
        }
    }

    #[test]
    fn every_query_has_its_own_data_source_or_the_one_of_its_panel() {
        let panel = |source: &Value, targets: &Value| json!({"panels": [{"datasource": source, "targets": targets}]});
        let sources = |dashboard: &Value| -> Vec<Value> {
            panels(dashboard)[0].queries().into_iter().map(|(_, source)| source.clone()).collect()
        };
        let (b, computed) = (json!({"uid": "b"}), json!({"uid": "__expr__"}));
        let targets =
            json!([{"datasource": null}, {"datasource": b}, {"hide": true}, "x", 7, {"datasource": computed}]);
        assert_eq!(sources(&panel(&json!("a"), &targets)), [json!("a"), json!("a"), computed.clone()]);
        assert_eq!(sources(&panel(&json!(null), &targets)), [b.clone(), b.clone(), computed.clone()]);
        assert_eq!(sources(&panel(&json!(null), &json!([{}]))), [json!(null)]);
        for mixed in [json!({"type": "datasource", "uid": MIXED}), json!(MIXED)] {
            assert_eq!(sources(&panel(&mixed, &targets)), [json!(null), b.clone(), computed.clone()]);
        }
        let mut leftover = panel(&json!("a"), &targets);
        leftover["panels"][0]["type"] = json!("text");
        assert!(sources(&leftover).is_empty());
    }

    #[test]
    fn flux_is_distinguished_from_influxql() {
        for (query, expected) in [
            ("from(bucket: \"b\") |> range(start: v.timeRangeStart)", true),
            ("// why\nimport \"strings\"\nfrom (bucket: \"b\")", true),
            ("data = from(bucket: \"b\")\n\t|> range(start: -1h)", true),
            ("SELECT mean(\"value\") FROM \"a|>b\" WHERE $timeFilter", false),
            ("", false),
        ] {
            assert_eq!(is_flux(&json!({"query": query})), expected, "{query}");
        }
        assert!(!is_flux(&json!({})) && !is_flux(&json!({"query": 3})));
    }

    proptest::proptest! {
        #[test]
        fn no_dashboard_causes_a_panic(json in crate::arbitrary::json(&[
            "panels", "rows", "targets", "type", "repeat", "title", "query", "datasource", "uid", "schemaVersion",
        ])) {
            for panel in panels(&json) {
                let _ = (panel.kind(), panel.queries().into_iter().filter(|(target, _)| is_flux(target)).count());
            }
        }
    }
}
