//! Finds a dashboard's panels, in every layout since Grafana 4, and their queries.
//!
//! Dashboards may come from any source, so no content causes an error here.

use super::EXPRESSION;
use super::dashboard_model::{DashboardModel, DataSourceRef, PanelModel, Target, TargetParts};

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
    pub(super) model: &'a PanelModel,
    pub(super) repeated_for: Option<&'a str>,
    /// It belongs to a collapsed row.
    pub(super) is_collapsed: bool,
}

/// All panels except rows, including those inside rows.
pub(super) fn panels(dashboard: &DashboardModel) -> Vec<Panel<'_>> {
    let mut found = Vec::new();
    if dashboard.schema_version < Some(PANELS_FROM) {
        for row in dashboard.rows.iter() {
            add(row.panels.as_deref().unwrap_or_default(), repeat(row), row.collapse, &mut found);
        }
    }
    add(&dashboard.panels, None, false, &mut found);
    found
}

fn add<'a>(panels: &'a [PanelModel], mut row_repeats: Option<&'a str>, is_collapsed: bool, found: &mut Vec<Panel<'a>>) {
    for model in panels {
        if model.kind == "row" || model.panels.is_some() {
            // The panels of an open row follow it; a collapsed row contains them.
            row_repeats = repeat(model);
            add(model.panels.as_deref().unwrap_or_default(), row_repeats, true, found);
        } else {
            found.push(Panel { model, repeated_for: repeat(model).or(row_repeats), is_collapsed });
        }
    }
}

fn repeat(panel: &PanelModel) -> Option<&str> {
    Some(panel.repeat.as_str()).filter(|name| !name.is_empty())
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
        let has_range = |target: &TargetParts| {
            let query = target.query.as_ref().filter(|_| target.raw_query == Some(true));
            query.is_none_or(|query| ["$timeFilter", "$__timeFilter"].iter().any(|filter| query.contains(filter)))
        };
        !self.is_collapsed && self.queries().iter().any(|(target, _)| has_range(&target.parts))
    }

    /// The id of its plugin.
    pub(super) fn kind(&self) -> &'a str {
        &self.model.kind
    }

    /// The queries that a browser sends for it, each with its data source; empty for a text panel.
    /// A query's own data source counts only in mixed panels and for expressions.
    pub(super) fn queries(&self) -> Vec<(&'a Target, Option<&'a DataSourceRef>)> {
        let own = self.model.datasource.as_ref();
        let is_mixed = DataSourceRef::uid_of(own) == MIXED;
        let targets = || {
            let targets = self.model.targets.as_deref().unwrap_or_default().iter().flatten();
            targets.filter(|_| !is_silent(self.kind()))
        };
        let of_panel = own.or_else(|| targets().find_map(|target| target.parts.datasource.as_ref()));
        let shown = targets().filter(|target| !target.parts.hide);
        shown
            .map(|target| {
                let source = target.parts.datasource.as_ref();
                let is_own = is_mixed || is_expression(DataSourceRef::uid_of(source));
                (target, if is_own { source } else { of_panel })
            })
            .collect()
    }
}

/// Whether a query is written in Flux, the language of InfluxDB 2.
pub(super) fn is_flux(target: &Target) -> bool {
    target.parts.written().is_some_and(is_flux_text)
}

pub(super) fn is_flux_text(query: &str) -> bool {
    let lines = query.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let code: String = lines.flat_map(|line| line.chars().chain(['\n'])).collect();
    let squeezed: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let is_select = squeezed.get(..6).is_some_and(|begin| begin.eq_ignore_ascii_case("select"));
    !is_select && (squeezed.starts_with("from(") || squeezed.starts_with("import\"") || squeezed.contains("|>"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::json::read;
    use super::*;

    fn titles(dashboard: Value) -> Vec<(String, Option<String>)> {
        let dashboard = read(dashboard);
        let found = panels(&dashboard).into_iter();
        found.map(|panel| (panel.model.title.clone(), panel.repeated_for.map(String::from))).collect()
    }

    #[test]
    fn panels_are_found_in_every_layout() {
        let named = |title: &str| json!({"title": title, "type": "graph"});
        let own = json!({"title": "own", "type": "graph", "repeat": "w"});
        // Grafana 4: rows of panels, which may be collapsed or repeated.
        let rows = json!([{"panels": [named("a")]}, {"collapse": true, "repeat": "v", "panels": [named("b"), own]}]);
        let expected = [("a".into(), None), ("b".into(), Some("v".into())), ("own".into(), Some("w".into()))];
        for version in [json!(null), json!(4), json!(14)] {
            assert_eq!(titles(json!({"schemaVersion": version, "rows": rows})), expected, "{version}");
        }
        // Later versions: an open row precedes its panels, a collapsed row contains them.
        let closed = json!({"type": "row", "collapsed": true, "repeat": "v", "panels": [named("b"), own]});
        let open = json!({"type": "row", "repeat": "", "panels": []});
        for version in [16, 27, 42] {
            let panels = json!([named("a"), closed, open, named("c")]);
            let found = json!({"schemaVersion": version, "panels": panels, "rows": rows});
            let expected = [&expected[..], &[("c".into(), None)]].concat();
            assert_eq!(titles(found), expected, "{version}");
        }
    }

    #[test]
    fn every_query_has_its_own_data_source_or_the_one_of_its_panel() {
        let panel = |source: &Value, targets: &Value| json!({"panels": [{"datasource": source, "targets": targets}]});
        let sources = |dashboard: &Value| -> Vec<Option<DataSourceRef>> {
            let dashboard = read(dashboard.clone());
            panels(&dashboard)[0].queries().into_iter().map(|(_, source)| source.cloned()).collect()
        };
        let references = |written: [&Value; 3]| written.map(|written| read::<Option<DataSourceRef>>(written.clone()));
        let (b, computed) = (json!({"uid": "b"}), json!({"uid": "__expr__"}));
        let targets =
            json!([{"datasource": null}, {"datasource": b}, {"hide": true}, "x", 7, {"datasource": computed}]);
        assert_eq!(sources(&panel(&json!("a"), &targets)), references([&json!("a"), &json!("a"), &computed]));
        assert_eq!(sources(&panel(&json!(null), &targets)), references([&b, &b, &computed]));
        assert_eq!(sources(&panel(&json!(null), &json!([{}]))), [None]);
        for mixed in [json!({"type": "datasource", "uid": MIXED}), json!(MIXED)] {
            assert_eq!(sources(&panel(&mixed, &targets)), references([&json!(null), &b, &computed]));
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
            assert_eq!(is_flux(&read(json!({"query": query}))), expected, "{query}");
        }
        let flux = "from(bucket: \"b\")";
        assert!(!is_flux(&read(json!({"query": flux, "measurement": "m"}))), "the text is left over");
        assert!(is_flux(&read(json!({"query": flux, "measurement": "m", "rawQuery": true}))));
        assert!(is_flux(&read(json!({"query": flux, "measurement": ""}))));
        assert!(!is_flux(&read(json!({}))) && !is_flux(&read(json!({"query": 3}))));
    }

    proptest::proptest! {
        #[test]
        fn no_dashboard_causes_a_panic(json in crate::arbitrary::json(&[
            "panels", "rows", "targets", "type", "repeat", "title", "query", "datasource", "uid", "schemaVersion",
        ])) {
            for panel in panels(&read(json)) {
                let _ = (panel.kind(), panel.queries().into_iter().filter(|(target, _)| is_flux(target)).count());
            }
        }
    }
}
