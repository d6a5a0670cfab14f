//! Resolves the variables of a dashboard, with the queries that a browser sends for them.

use super::dashboard_model::{DataSourceRef, Variable};
use super::data_source::DataSource;
use super::layout::{is_built_in, is_flux_text};
use super::panel_queries::{PanelContext, find, reference};
use super::panels::Answered;
use super::queries::interval;
use super::variables::{ALL, Arity, Chosen, Pattern, Variables, choose, matching};
use super::{Grafana, INFLUXDB};
use crate::error::Result;
use crate::model::diagnosis::VariableContent;

impl Grafana {
    /// Resolves a variable; returns the result of its query, if it has one.
    pub(super) async fn fill_variable(
        &self,
        context: &PanelContext<'_>,
        variable: &Variable,
        variables: &mut Variables,
    ) -> Result<Option<Answered<VariableContent>>> {
        let (name, arity) = (&variable.name, Arity::of(variable));
        let current = variable.current.value.first();
        match variable.kind.as_str() {
            "query" => {}
            "datasource" => {
                let pattern = variables.fill_regex(&variable.regex);
                variables.set(name, chosen_source(context.sources, variable, &pattern));
                return Ok(None);
            }
            // An interval that follows the time range.
            "interval" if current.starts_with("$__auto") => {
                variables.set(name, Chosen::One(format!("{}s", interval(context.range) / 1000)));
                return Ok(None);
            }
            // Their values are not filled into texts.
            "adhoc" | "groupby" => return Ok(None),
            _ => {
                variables.set_of(arity, name, choose_stored(variable));
                return Ok(None);
            }
        }
        if let Some(unknown) = variables.unknown_in(DataSourceRef::uid_of(variable.datasource.as_ref())) {
            variables.set_of(arity, name, choose(variable, None));
            return Ok(Some(Answered::well(VariableContent::Unchecked(format!("its data source is ${unknown}")))));
        }
        let reference = reference(variable.datasource.as_ref(), variables);
        let kind = variable.datasource.as_ref().map_or("", |source| &source.kind);
        let Some(found) = find(context.sources, kind, &reference) else {
            let is_own = is_built_in(&reference);
            variables.set(name, if is_own { Chosen::Unknown } else { choose(variable, Some(&[])) });
            let content = VariableContent::NoDataSource(reference);
            return Ok((!is_own).then(|| Answered::well(content)));
        };
        if found.kind != INFLUXDB || found.other_language().is_some() {
            variables.set(name, Chosen::Unknown);
            return Ok(None);
        }
        self.list_options(context, found, variable, variables).await.map(Some)
    }

    /// Resolves a variable by its query in InfluxQL.
    async fn list_options(
        &self,
        context: &PanelContext<'_>,
        source: &DataSource,
        variable: &Variable,
        variables: &mut Variables,
    ) -> Result<Answered<VariableContent>> {
        let (name, arity, query) = (&variable.name, Arity::of(variable), &variable.query.0);
        if is_flux_text(query) {
            variables.set_of(arity, name, choose(variable, Some(&[])));
            let why = "it is written in Flux, but its data source uses InfluxQL";
            return Ok(Answered::well(VariableContent::Failed(why.into())));
        }
        for (text, part) in [(query, "query"), (&variable.regex, "pattern")] {
            if let Some(unknown) = variables.unknown_in(text) {
                variables.set_of(arity, name, choose(variable, None));
                return Ok(Answered::well(VariableContent::Unchecked(format!("its {part} names ${unknown}"))));
            }
        }
        let answer = self.list_values(source, &variables.fill_query(context.dialect, query), context.range).await?;
        let (content, values, failure) = match answer {
            Ok(found) => match matching(&variables.fill_regex(&variable.regex), found) {
                Ok(values) => (VariableContent::Values(values.len()), Some(values), None),
                Err(why) => (VariableContent::Unchecked(why), None, None),
            },
            Err(why) => {
                let failure = Some((source.uid.clone(), why.clone()));
                (VariableContent::Failed(why.into_words()), Some(Vec::new()), failure)
            }
        };
        variables.set_of(arity, name, choose(variable, values.as_deref()));
        Ok(Answered { content, failure })
    }
}

/// The data source that a variable chooses: the stored one, by its uid, name or text, if it is offered, otherwise the
/// first one.
fn chosen_source(sources: &[DataSource], variable: &Variable, pattern: &str) -> Chosen {
    let (value, text) = (variable.current.value.first(), variable.current.text.first());
    let parsed = if pattern.is_empty() { Ok(None) } else { Pattern::parse(pattern).map(Some) };
    let is_offered = |source: &&DataSource| {
        let pattern = parsed.as_ref().ok().and_then(Option::as_ref);
        source.kind == variable.query.0 && pattern.is_none_or(|pattern| pattern.matches(&source.name))
    };
    let offered: Vec<&DataSource> = sources.iter().filter(is_offered).collect();
    let named = |name: &str| {
        let is_named = |source: &&&DataSource| match name {
            "" => false,
            "default" => source.is_default,
            name => source.uid == name || source.name == name,
        };
        offered.iter().find(is_named)
    };
    if named(value).is_some() {
        return Chosen::One(value.into());
    }
    match named(text) {
        Some(source) => Chosen::One(source.uid.clone()),
        // Without its pattern, the first one is unknown.
        None if parsed.is_err() => Chosen::Unknown,
        // A missing data source is reported by its name.
        None => Chosen::One(offered.first().map_or(value, |first| &first.uid).into()),
    }
}

/// The chosen value of a variable without a query to a data source.
fn choose_stored(variable: &Variable) -> Chosen {
    let (current, query) = (variable.current.value.first(), &variable.query.0);
    match variable.kind.as_str() {
        "constant" => Chosen::One(query.clone()),
        "textbox" => Chosen::One(if current.is_empty() { query.clone() } else { current.into() }),
        _ => {
            let options = variable.options.iter().map(|option| option.value.first().to_string());
            let offered: Vec<String> = options.filter(|value| value != ALL).collect();
            let offered = if offered.is_empty() { listed(query) } else { offered };
            choose(variable, Some(&offered))
        }
    }
}

/// The values in the list of a custom variable: `a, b` or `text : value`. A comma after a backslash is part of a value.
fn listed(query: &str) -> Vec<String> {
    const COMMA: &str = "\0";
    let value = |item: &str| item.split_once(" : ").map_or(item, |(_, value)| value).trim().replace(COMMA, ",");
    query.replace(r"\,", COMMA).split(',').map(value).filter(|value| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::json::read;
    use super::*;

    #[test]
    fn a_data_source_is_chosen_among_those_of_its_type_and_pattern() {
        let sources: Vec<DataSource> = read(json!([
            json!({"uid": "p", "name": "Alpha", "type": "prometheus"}),
            json!({"uid": "b", "name": "Beta", "type": "influxdb"}),
            json!({"uid": "t", "name": "Telegraf", "type": "influxdb", "isDefault": true}),
        ]));
        for (value, text, pattern, expected) in [
            ("t", "", "", Some("t")),
            ("Telegraf", "", "", Some("Telegraf")),
            ("", "", "", Some("b")),
            ("gone", "Gone", "", Some("b")),
            ("gone", "Telegraf", "", Some("t")),
            ("default", "default", "", Some("default")),
            ("gone", "default", "", Some("t")),
            // Another type is not offered.
            ("p", "Alpha", "", Some("b")),
            ("", "", "/^Tele/", Some("t")),
            ("b", "Beta", "/^Tele/", Some("t")),
            ("", "", "Tele", Some("")),
            ("gone", "Gone", "/^X/", Some("gone")),
            ("b", "", "/^(?!T)/", Some("b")),
            ("gone", "Beta", "/^(?!T)/", Some("b")),
            ("", "", "/^(?!T)/", None),
        ] {
            let variable = json!({"query": "influxdb", "current": {"value": value, "text": text}});
            let expected = expected.map_or(Chosen::Unknown, |uid| Chosen::One(uid.into()));
            assert_eq!(chosen_source(&sources, &read(variable), pattern), expected, "{value} {text} {pattern}");
        }
    }

    #[test]
    fn the_values_of_a_custom_variable_are_listed() {
        for (query, expected) in [
            ("a, b c , text : v", &["a", "b c", "v"][..]),
            (r"a,b\,c,d", &["a", "b,c", "d"]),
            (r"a\,b\,c : d\,e,,f", &["d,e", "f"]),
            ("", &[]),
        ] {
            assert_eq!(listed(query), expected, "{query}");
        }
    }

    #[test]
    fn a_variable_without_a_query_is_chosen_as_a_browser_does() {
        let current = json!({"text": "old", "value": "old"});
        let numbers = json!([{"text": "1", "value": 1}, {"text": "5", "value": 5}]);
        for (variable, expected) in [
            (json!({"type": "constant", "query": "real", "current": current}), "real"),
            (json!({"type": "textbox", "query": "initial", "current": current}), "old"),
            (json!({"type": "textbox", "query": "initial"}), "initial"),
            (json!({"type": "custom", "query": "1,5", "options": numbers, "current": {"value": 5}}), "5"),
            (json!({"type": "custom", "query": "1,5", "options": numbers, "current": {"value": "2"}}), "1"),
        ] {
            assert_eq!(choose_stored(&read(variable.clone())), Chosen::One(expected.into()), "{variable}");
        }
    }
}
