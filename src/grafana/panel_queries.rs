//! The queries that a browser sends for a panel, with the variables filled in.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::INFLUXDB;
use super::dashboard_model::{DashboardModel, DataSourceRef, Target};
use super::data_source::DataSource;
use super::layout::{Panel, is_built_in, is_expression, is_flux, is_silent};
use super::time_range::{Calendar, Range};
use super::variables::{Chosen, Dialect, Variables};
use crate::model::diagnosis::PanelContent;

/// The number of values for which a repeated panel is queried.
const REPEATS: usize = 10;

/// The context of the dashboard's queries.
pub(super) struct PanelContext<'a> {
    pub(super) dashboard: &'a DashboardModel,
    pub(super) sources: &'a [DataSource],
    pub(super) calendar: Calendar,
    /// The dashboard's time range.
    pub(super) range: Range,
    pub(super) dialect: Dialect,
    /// The panel plugins, and whether each sends queries; `None` if unknown.
    pub(super) plugins: Option<BTreeMap<String, bool>>,
}

/// A panel before its queries are sent.
pub(super) enum Prepared {
    /// Its result is known without a query.
    Settled(PanelContent),
    /// Queries by the uid of their data source, and a sentence about other sources.
    Send(BTreeMap<String, Vec<Target>>, Option<String>),
}

impl PanelContext<'_> {
    /// Whether the panel sends queries or cannot be shown; text panels do neither.
    pub(super) fn concerns(&self, panel: &Panel<'_>) -> bool {
        let sends_queries = self.plugins.as_ref().and_then(|plugins| plugins.get(panel.kind())).copied();
        let is_empty = panel.model.targets.as_ref().is_none_or(|targets| targets.is_empty());
        let is_silent = is_silent(panel.kind()) || sends_queries == Some(false);
        self.lacks_plugin(panel) || panel.model.library_panel.is_some() || !(is_empty || is_silent)
    }

    fn lacks_plugin(&self, panel: &Panel<'_>) -> bool {
        let lacks = |plugins: &BTreeMap<String, bool>| !panel.kind().is_empty() && !plugins.contains_key(panel.kind());
        self.plugins.as_ref().is_some_and(lacks)
    }

    /// The queries of a panel with these variables, or its result if no query is needed.
    pub(super) fn prepare(&self, panel: &Panel<'_>, variables: &Variables) -> Prepared {
        if self.lacks_plugin(panel) {
            return Prepared::Settled(PanelContent::NoPlugin(panel.kind().into()));
        }
        if panel.model.library_panel.is_some() && panel.model.targets.is_none() {
            return Prepared::Settled(PanelContent::Elsewhere(
                "it shows a library panel, whose queries are not read".into(),
            ));
        }
        let (mut by_source, mut elsewhere): (BTreeMap<String, Vec<Target>>, _) = (BTreeMap::new(), None);
        for (target, source) in panel.queries() {
            if let Some(unknown) = variables.unknown_in(DataSourceRef::uid_of(source)) {
                return Prepared::Settled(only_a_browser_knows(&unknown));
            }
            let reference = reference(source, variables);
            if is_expression(&reference) {
                // It computes with the results of other queries.
                continue;
            }
            let kind = source.map_or("", |source| &source.kind);
            let Some(found) = find(self.sources, kind, &reference) else {
                if is_built_in(&reference) {
                    elsewhere = Some(format!("it queries Grafana's own data source {reference:?}"));
                    continue;
                }
                return Prepared::Settled(PanelContent::NoDataSource(reference));
            };
            if found.kind != INFLUXDB {
                elsewhere = Some(format!("it queries a data source of type {:?}", found.kind));
                continue;
            }
            if found.other_language().is_some() {
                elsewhere = Some("its data source uses another query language".into());
                continue;
            }
            if is_flux(target) {
                return Prepared::Settled(PanelContent::Flux);
            }
            if let Some(unknown) = variables.unknown_in_target(target) {
                return Prepared::Settled(only_a_browser_knows(&unknown));
            }
            let mut target = variables.fill_target(self.dialect, target);
            if target.get("refId").and_then(Value::as_str).is_none_or(str::is_empty) {
                target.insert("refId".into(), json!("A"));
            }
            by_source.entry(found.uid.clone()).or_default().push(target.into());
        }
        if by_source.is_empty() && elsewhere.is_none() {
            return Prepared::Settled(PanelContent::Elsewhere("it sends no query to a data source".into()));
        }
        Prepared::Send(by_source, elsewhere)
    }
}

fn only_a_browser_knows(name: &str) -> PanelContent {
    PanelContent::Elsewhere(format!("it uses ${name}, which only a browser knows"))
}

/// Variables that a browser sets itself.
pub(super) fn built_in(dashboard: &DashboardModel, range: Range) -> Variables {
    let mut variables = Variables::default();
    let millis = range.millis();
    for (name, value) in [
        ("__from", range.from.to_string()),
        ("__to", range.to.to_string()),
        ("__range", format!("{}s", millis / 1000)),
        ("__range_s", (millis / 1000).to_string()),
        ("__range_ms", millis.to_string()),
        ("__dashboard", dashboard.title.clone()),
    ] {
        variables.set(name, Chosen::One(value));
    }
    variables
}

/// The variables for each repetition of a panel.
pub(super) fn repeats(panel: &Panel<'_>, variables: &Variables) -> Vec<Variables> {
    let values = panel.repeated_for.and_then(|name| Some((name, variables.get(name)?)));
    match values {
        Some((name, Chosen::Several(values))) if !values.is_empty() => {
            values.iter().take(REPEATS).map(|value| variables.with_one(name, value)).collect()
        }
        _ => vec![variables.clone()],
    }
}

/// The value of a reference to a data source, with variables filled in: a uid, or a name before version 9.
pub(super) fn reference(written: Option<&DataSourceRef>, variables: &Variables) -> String {
    variables.fill(DataSourceRef::uid_of(written))
}

/// The data source that a reference means. A reference without a uid means the default one, or one
/// of its type.
pub(super) fn find<'a>(sources: &'a [DataSource], kind: &str, reference: &str) -> Option<&'a DataSource> {
    if !reference.is_empty() && reference != "default" {
        return sources.iter().find(|source| source.uid == reference || source.name == reference);
    }
    let of_kind = || sources.iter().filter(|source| !kind.is_empty() && source.kind == kind);
    let is_default = |source: &&DataSource| source.is_default;
    let found = of_kind().find(is_default).or_else(|| of_kind().next());
    found.or_else(|| sources.iter().find(is_default))
}

#[cfg(test)]
mod tests {
    use super::super::json::{Elements, read};
    use super::super::layout::panels;
    use super::*;

    #[test]
    fn every_panel_of_the_bundled_dashboard_repeats_as_its_row_does() {
        let dashboard: DashboardModel = serde_json::from_str(include_str!("../../assets/dashboard.json")).unwrap();
        let found: Vec<Panel<'_>> =
            panels(&dashboard).into_iter().filter(|panel| !panel.queries().is_empty()).collect();
        assert_eq!(found.len(), 21);
        let of = |title: &str| found.iter().find(|panel| panel.model.title == title).unwrap();
        assert_eq!(of("Latency of $model").repeated_for, Some("model"));
        assert_eq!(of("Predictions").repeated_for, None);
        let mut variables = Variables::default();
        variables.set("model", Chosen::Several(vec!["a".into(), "b".into()]));
        assert_eq!(repeats(of("Latency of $model"), &variables).len(), 2);
        assert_eq!(repeats(of("Predictions"), &variables).len(), 1);
    }

    fn context<'a>(
        dashboard: &'a DashboardModel,
        sources: &'a [DataSource],
        plugins: Option<&[&str]>,
    ) -> PanelContext<'a> {
        let calendar = Calendar::of(dashboard, 0, jiff::tz::TimeZone::UTC);
        let range = calendar.range(dashboard);
        let plugins = plugins.map(|names| names.iter().map(|name| ((*name).to_string(), *name != "clock")).collect());
        PanelContext { dashboard, sources, calendar, range, dialect: Dialect::ByUse, plugins }
    }

    type Sending = (BTreeMap<String, Vec<Target>>, Option<String>);

    fn prepared(panel: &Value, plugins: Option<&[&str]>) -> Result<Sending, PanelContent> {
        let sources: Vec<DataSource> = read(json!([
            json!({"uid": "i", "name": "Influx", "type": "influxdb", "isDefault": true}),
            json!({"uid": "p", "name": "Prom", "type": "prometheus"}),
            json!({"uid": "f", "name": "Flux", "type": "influxdb", "jsonData": {"version": "Flux"}}),
        ]));
        let dashboard = read(json!({"panels": [panel]}));
        let context = context(&dashboard, &sources, plugins);
        let mut variables = Variables::default();
        variables.set("unknown", Chosen::Unknown);
        match context.prepare(&panels(&dashboard)[0], &variables) {
            Prepared::Settled(content) => Err(content),
            Prepared::Send(queries, elsewhere) => Ok((queries, elsewhere)),
        }
    }

    #[test]
    fn a_data_source_is_found_in_every_form_of_reference() {
        let source_of = |source: Value| {
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
            assert_eq!(source_of(source.clone()), Ok("i".into()), "{source}");
        }
        for (source, expected) in [
            (json!("nowhere"), PanelContent::NoDataSource("nowhere".into())),
            (json!({"type": "influxdb", "uid": "${DS_X}"}), PanelContent::NoDataSource("${DS_X}".into())),
            (json!("$unknown"), only_a_browser_knows("unknown")),
            (json!({"uid": "__expr__"}), PanelContent::Elsewhere("it sends no query to a data source".into())),
        ] {
            assert_eq!(source_of(source.clone()), Err(expected), "{source}");
        }
        for source in [json!("p"), json!("-- Dashboard --"), json!({"uid": "-- Grafana --"}), json!("f")] {
            assert_eq!(source_of(source.clone()), Ok(String::new()), "{source}");
        }
    }

    #[test]
    fn panels_that_a_browser_cannot_show_are_reported() {
        let panel = |kind: &str, query: &str| json!({"type": kind, "targets": [{"query": query, "rawQuery": true}]});
        let select = "SELECT last(\"value\") FROM \"m\"";
        let plugins = ["stat", "timeseries"];
        let refused = |panel: &Value| prepared(panel, Some(&plugins)).err();
        assert_eq!(refused(&panel("odd", select)), Some(PanelContent::NoPlugin("odd".into())));
        assert!(prepared(&panel("odd", select), None).is_ok(), "unknown plugins are not a finding");
        let flux = "from(bucket: \"b\") |> range(start: v.timeRangeStart)";
        assert_eq!(refused(&panel("stat", flux)), Some(PanelContent::Flux));
        let dashboard = read(json!({"panels": [
            panel("text", ""), panel("clock", ""), panel("stat", select), {"type": "stat"}, {"type": "odd"}, {"type": "stat", "targets": ["x"]},
        ]}));
        let context = context(&dashboard, &[], Some(&["text", "clock", "stat"]));
        let concerns: Vec<bool> = panels(&dashboard).iter().map(|panel| context.concerns(panel)).collect();
        assert_eq!(concerns, [false, false, true, false, true, true]);
    }

    proptest::proptest! {
        #[test]
        fn no_dashboard_causes_a_panic(
            json in crate::arbitrary::json(&[
                "panels", "rows", "targets", "type", "repeat", "title", "query", "select", "datasource", "uid", "refId",
                "templating", "list", "name", "current", "value", "options", "time", "from", "to", "libraryPanel",
            ]),
            sources in crate::arbitrary::json(&["uid", "name", "type", "isDefault", "jsonData", "version"]),
        ) {
            let (dashboard, sources): (DashboardModel, Elements<DataSource>) = (read(json), read(sources));
            let context = context(&dashboard, &sources, None);
            let variables = built_in(&dashboard, context.range);
            for panel in panels(&dashboard).iter().filter(|panel| context.concerns(panel)) {
                for variables in repeats(panel, &variables) {
                    let _ = context.prepare(panel, &variables);
                }
                let _ = context.calendar.range_of_panel(&dashboard, panel.model);
            }
        }
    }
}
