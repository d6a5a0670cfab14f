//! Finds fields and tags in a panel's query that no measurement has.

use std::collections::BTreeMap;

use tokio::sync::Mutex;

use super::Grafana;
use super::dashboard_model::TargetParts;
use super::data_source::DataSource;
use super::time_range::Range;
use crate::error::{Error, Result};
use crate::influxql::{quoted, references};
use crate::model::diagnosis::PanelContent;

/// Names of fields and tags by data source and measurement, so that panels with the same ones share a query. Patterns
/// share the known names of all measurements, with an empty text as the measurement.
pub(super) type KnownNames = Mutex<BTreeMap<(String, String), Vec<String>>>;
/// Stands for a measurement if the names of all are known.
const ALL: &str = "*";

impl Grafana {
    /// A field in a query that no measurement has; `None` if the measurements of the query do not exist.
    pub(super) async fn unknown_field(
        &self,
        source: &DataSource,
        target: &TargetParts,
        range: Range,
        known: &KnownNames,
    ) -> Result<Option<PanelContent>> {
        let Some((measurements, names)) = named(target) else { return Ok(None) };
        let uid = source.uid.clone();
        // Held during the queries.
        let mut known = known.lock().await;
        // A failure says nothing about names.
        let list = async |statement: &str| Ok::<_, Error>(self.list_values(source, statement, range).await?.ok());
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
}

/// The measurements and fields in a query, whether it is written as text or built with the editor.
fn named(target: &TargetParts) -> Option<(String, Vec<String>)> {
    // Without the flag, a query with a text counts as written.
    let is_written = target.raw_query.unwrap_or(target.measurement.is_none());
    if is_written {
        let found = references(target.query.as_deref()?)?;
        return Some((found.source, found.names));
    }
    let measurement = target.measurement.as_ref().filter(|name| !name.is_empty())?;
    let source = if measurement.starts_with('/') { measurement.clone() } else { quoted(measurement) };
    let source = match target.policy.as_str() {
        "" | "default" => source,
        policy => format!("{}.{source}", quoted(policy)),
    };
    let parts = target.select.as_ref()?.iter().flat_map(|column| column.iter());
    let fields = parts.filter(|part| part.kind == "field").filter_map(|part| part.params.first()?.as_str());
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::json::read;
    use super::*;

    #[test]
    fn measurements_and_fields_are_found_in_written_and_built_queries() {
        let written = json!({"rawQuery": true, "query": "SELECT mean(\"a\") FROM /x/ WHERE $timeFilter"});
        assert_eq!(named(&read(written)), Some(("/x/".into(), vec!["a".into()])));
        let built = json!({"measurement": "m", "select": [[{"type": "field", "params": ["b"]}, {"type": "mean"}]]});
        assert_eq!(named(&read(built)), Some(("\"m\"".into(), vec!["b".into()])));
        assert_eq!(named(&TargetParts::default()), None);
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

    proptest::proptest! {
        #[test]
        fn no_query_causes_a_panic(json in crate::arbitrary::json(&[
            "query", "rawQuery", "measurement", "policy", "select", "type", "params",
        ])) {
            let _ = named(&read(json));
        }
    }
}
