//! The variables of a dashboard, and how a browser fills them into queries.

use std::collections::BTreeSet;

use regex_lite::Regex;
use serde_json::{Map, Value, json};

use super::dashboard_model::{DataSourceRef, Target, Variable};
use super::json::for_each_text;

/// The value of "All" in a variable.
pub(super) const ALL: &str = "$__all";

/// A variable with its values when the dashboard is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filled {
    name: String,
    chosen: Chosen,
    arity: Arity,
}

/// How many values a variable may have, according to its definition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Arity {
    /// Whether it may have several values.
    multi: bool,
    /// Whether it offers "All".
    include_all: bool,
}

impl Arity {
    /// The arity of a dashboard's variable.
    pub(super) fn of(variable: &Variable) -> Self {
        Self { multi: variable.multi, include_all: variable.include_all }
    }
}

/// The chosen value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chosen {
    /// One value.
    One(String),
    /// A list of values.
    Several(Vec<String>),
    /// A custom text for "All", which is inserted unchanged.
    Raw(String),
    /// Its values come from a data source that is not queried here.
    Unknown,
}

/// How a version's InfluxDB data source inserts variables into a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Up to 10.2: values of a variable that may have several are escaped.
    ByKind,
    /// From 10.3 on: a single value is escaped as well, if it is in a regular expression. Numbers never are.
    ByUse,
}

/// The place into which a value is inserted.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    /// A text without rules, such as an alias.
    Text,
    /// A regular expression.
    Regex,
    Query(Dialect, &'a str),
}

/// All variables, in the dashboard's order.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables(Vec<Filled>);

/// How deeply a custom text for "All" may refer to other variables.
const DEPTH: usize = 3;

impl Variables {
    /// Sets a variable that belongs to the browser.
    pub(super) fn set(&mut self, name: &str, chosen: Chosen) {
        self.set_of(Arity::default(), name, chosen);
    }

    /// Sets a variable of the dashboard.
    pub(super) fn set_of(&mut self, arity: Arity, name: &str, chosen: Chosen) {
        self.0.retain(|one| one.name != name);
        self.0.push(Filled { name: name.into(), chosen, arity });
    }

    /// The same variables with a single value for one of them, as in a repeated panel.
    pub(super) fn with_one(&self, name: &str, value: &str) -> Self {
        let mut own = self.clone();
        let found = own.0.iter_mut().filter(|one| one.name == name);
        found.for_each(|one| one.chosen = Chosen::One(value.into()));
        own
    }

    pub(super) fn get(&self, name: &str) -> Option<&Chosen> {
        self.find(name).map(|one| &one.chosen)
    }

    fn find(&self, name: &str) -> Option<&Filled> {
        self.0.iter().find(|one| one.name == name)
    }

    /// A text with every known variable filled in. Others are kept: Grafana's server fills in
    /// `$timeFilter` and similar macros.
    pub(super) fn fill(&self, text: &str) -> String {
        self.fill_at(Place::Text, text, DEPTH)
    }

    /// The same for a query.
    pub(super) fn fill_query(&self, dialect: Dialect, query: &str) -> String {
        self.fill_at(Place::Query(dialect, query), query, DEPTH)
    }

    /// The same for a regular expression.
    pub(super) fn fill_regex(&self, pattern: &str) -> String {
        self.fill_at(Place::Regex, pattern, DEPTH)
    }

    fn fill_at(&self, place: Place<'_>, text: &str, depth: usize) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['$', '[']) {
            out.push_str(&rest[..at]);
            let (name, format, length) = reference(&rest[at..]);
            match name.and_then(|name| self.find(name)) {
                Some(Filled { chosen: Chosen::Raw(all), .. }) if depth > 0 => {
                    out.push_str(&self.fill_at(place, all, depth - 1));
                }
                Some(filled) if filled.chosen != Chosen::Unknown => out.push_str(&written(filled, format, place)),
                _ => out.push_str(&rest[at..at + length]),
            }
            rest = &rest[at + length..];
        }
        out.push_str(rest);
        out
    }

    /// A query of a panel with every known variable filled in, each field as the data source does it.
    pub(super) fn fill_target(&self, dialect: Dialect, target: &Target) -> Map<String, Value> {
        let mut filled = target.fields.clone();
        filled.values_mut().for_each(|field| for_each_text(field, &mut |text| *text = self.fill(text)));
        let parts = &target.parts;
        if let Some(query) = &parts.query {
            filled.insert("query".into(), json!(self.fill_query(dialect, query)));
        }
        if let Some(measurement) = &parts.measurement {
            let measurement = self.fill_built(dialect, measurement, is_regex(measurement));
            filled.insert("measurement".into(), json!(measurement));
        }
        let filled_tags = filled.get_mut("tags").and_then(Value::as_array_mut);
        for (tag, filled) in parts.tags.iter().zip(filled_tags.into_iter().flatten()) {
            let Some(value) = tag.value.as_deref() else { continue };
            let operator = tag.operator.as_str();
            let compares_regex = matches!(operator, "=~" | "!~") || operator.is_empty() && is_regex(value);
            let whole = value.strip_prefix("/^").and_then(|value| value.strip_suffix("$/"));
            // With other operators, the browser removes the delimiters of the regular expression.
            let value = whole.filter(|_| !compares_regex && dialect == Dialect::ByUse).unwrap_or(value);
            if let Some(filled) = filled.as_object_mut() {
                filled.insert("value".into(), json!(self.fill_built(dialect, value, compares_regex)));
            }
        }
        filled
    }

    /// A part of a query built with the editor.
    fn fill_built(&self, dialect: Dialect, part: &str, is_regex: bool) -> String {
        match dialect {
            Dialect::ByKind if is_regex => self.fill_regex(part),
            Dialect::ByKind => self.fill(part),
            Dialect::ByUse => self.fill_query(dialect, part),
        }
    }

    /// A variable in a query that only a browser can fill in. Unknown variables are sent unchanged.
    pub(super) fn unknown_in(&self, query: &str) -> Option<String> {
        let is_unknown = |(name, format): &(String, Option<String>)| {
            let is_custom_date =
                format.as_deref().is_some_and(|format| format.starts_with("date:") && date(format, "0").is_none());
            match self.get(name) {
                None => name.starts_with("__") && !MACROS.contains(&name.as_str()),
                Some(chosen) => *chosen == Chosen::Unknown || is_custom_date,
            }
        };
        references(query).into_iter().find(is_unknown).map(|(name, _)| name)
    }

    /// The same in the parts of a panel's query that are sent.
    pub(super) fn unknown_in_target(&self, target: &Target) -> Option<String> {
        if target.parts.is_built() {
            let parts = BUILT.iter().filter_map(|name| target.fields.get(*name));
            return parts.map(Value::to_string).find_map(|part| self.unknown_in(&part));
        }
        self.unknown_in(target.parts.query.as_deref()?)
    }
}

/// Macros that Grafana's server fills in.
const MACROS: [&str; 3] = ["__timeFilter", "__interval", "__interval_ms"];

/// The fields of a query built with the editor that become part of its text.
const BUILT: [&str; 8] = ["policy", "measurement", "tags", "select", "groupBy", "limit", "slimit", "tz"];

/// The variable at the start of a text, its format, and its length: `$name`, `${name}`,
/// `${name.field:format}` or `[[name:format]]`.
fn reference(text: &str) -> (Option<&str>, Option<&str>, usize) {
    let within = |inner: &'static str, open: usize| -> Option<(&str, Option<&str>, usize)> {
        let length = text.find(inner)?;
        let body = &text[open..length];
        let (name, format) = body.split_once(':').map_or((body, None), |(name, format)| (name, Some(format)));
        let name = name.split('.').next().unwrap_or(name);
        is_name(name).then_some((name, format, length + inner.len()))
    };
    let found = if text.starts_with("${") {
        within("}", 2)
    } else if text.starts_with("[[") {
        within("]]", 2)
    } else if let Some(rest) = text.strip_prefix('$') {
        let end = rest.find(|c: char| !is_letter(c)).unwrap_or(rest.len());
        (end > 0).then(|| (&rest[..end], None, end + 1))
    } else {
        None
    };
    found.map_or((None, None, 1), |(name, format, length)| (Some(name), format, length))
}

/// The variables that a text refers to, with their formats.
fn references(text: &str) -> Vec<(String, Option<String>)> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['$', '[']) {
        let (name, format, length) = reference(&rest[at..]);
        names.extend(name.map(|name| (name.to_string(), format.map(String::from))));
        rest = &rest[at + length..];
    }
    names
}

/// Whether a variable refers to another one by name.
pub(super) fn refers(variable: &Variable, name: &str) -> bool {
    let source = DataSourceRef::uid_of(variable.datasource.as_ref());
    [&variable.query.0, source, &variable.regex].iter().any(|text| refers_to(text, name))
}

/// Whether a text refers to a variable.
fn refers_to(text: &str, name: &str) -> bool {
    references(text).iter().any(|(one, _)| one == name)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_letter)
}

/// Whether a character may be part of a variable's name: JavaScript's `\w`.
const fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_regex(text: &str) -> bool {
    text.len() > 1 && text.starts_with('/') && text.ends_with('/')
}

/// The text that replaces a reference.
fn written(filled: &Filled, format: Option<&str>, place: Place<'_>) -> String {
    let (values, is_list): (Vec<&str>, bool) = match &filled.chosen {
        Chosen::Raw(text) => return text.clone(),
        Chosen::Unknown => return String::new(),
        Chosen::One(value) => (vec![value], false),
        Chosen::Several(values) => (values.iter().map(String::as_str).collect(), true),
    };
    let each = |change: &dyn Fn(&str) -> String, separator: &str| {
        values.iter().map(|value| change(value)).collect::<Vec<_>>().join(separator)
    };
    let alternatives = |list: bool| {
        let escaped = each(&escaped, "|");
        if list { format!("({escaped})") } else { escaped }
    };
    let glob = || if values.len() > 1 { format!("{{{}}}", values.join(",")) } else { values.join(",") };
    match format {
        Some("regex") => alternatives(values.len() > 1),
        Some("pipe") => values.join("|"),
        Some("csv" | "raw" | "text") => values.join(","),
        Some("singlequote") => each(&|value| format!("'{}'", value.replace('\'', "\\'")), ","),
        Some("sqlstring") => each(&|value| format!("'{}'", value.replace('\'', "''")), ","),
        Some("doublequote") => each(&|value| format!("\"{}\"", value.replace('"', "\\\"")), ","),
        Some("json") if is_list => json!(values).to_string(),
        Some("json") => json!(values.first()).to_string(),
        Some("percentencode") => each(&|value| crate::http::escaped(value), ","),
        // An unknown format counts as `glob`.
        Some(format) => values.first().and_then(|value| date(format, value)).unwrap_or_else(glob),
        None => match place {
            Place::Text => glob(),
            Place::Regex => alternatives(values.len() > 1),
            Place::Query(dialect, query) => {
                let Arity { multi, include_all } = filled.arity;
                let is_escaped = match dialect {
                    Dialect::ByKind => multi || include_all,
                    Dialect::ByUse if !is_list && is_number(values[0]) => false,
                    Dialect::ByUse => multi || is_in_regex(query, &filled.name),
                };
                if is_escaped { alternatives(is_list) } else { values.join(",") }
            }
        },
    }
}

/// A time in milliseconds in a date format; `None` for a custom pattern.
fn date(format: &str, millis: &str) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(millis.parse().ok()?).ok()?;
    match format {
        "date" | "date:iso" => Some(format!("{at:.3}")),
        "date:seconds" => Some(at.as_second().to_string()),
        _ => None,
    }
}

/// Whether JavaScript parses a number at the start of the text.
fn is_number(text: &str) -> bool {
    let text = text.trim_start().trim_start_matches(['+', '-']);
    let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    begins(text) || text.strip_prefix('.').is_some_and(begins) || text.starts_with("Infinity")
}

/// Whether a query compares with a regular expression that contains the variable as `$name`.
fn is_in_regex(query: &str, name: &str) -> bool {
    let reference = format!("${name}");
    let comparisons = query.match_indices("=~").chain(query.match_indices("!~"));
    let behind = comparisons.filter_map(|(at, _)| query[at + 2..].trim_start().strip_prefix('/'));
    behind.filter_map(regex_body).any(|body| body.contains(&reference))
}

/// A regular expression up to its closing slash; slashes in character classes and after backslashes
/// do not close it.
fn regex_body(text: &str) -> Option<&str> {
    let (mut in_class, mut is_hidden) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '\r' | '\n' => return None,
            '*' | '+' | '?' if at == 0 => return None,
            _ if is_hidden => is_hidden = false,
            '\\' => is_hidden = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '/' if !in_class => return (at > 0).then(|| &text[..at]),
            _ => {}
        }
    }
    None
}

/// Escapes a text for a regular expression of InfluxQL.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if "\\^$*+?.()|[]{}/".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The chosen value of a variable when the dashboard is opened. `offered` is the result of its query; `None` if only a
/// browser knows it.
pub(super) fn choose(variable: &Variable, offered: Option<&[String]>) -> Chosen {
    let Variable { multi, include_all, all_value, .. } = variable;
    let current = &variable.current.value.0;
    let chosen_of = |values: Vec<String>| {
        if *multi { Chosen::Several(values) } else { Chosen::One(values.into_iter().next().unwrap_or_default()) }
    };
    let all = || match offered {
        _ if !all_value.is_empty() => Chosen::Raw(all_value.clone()),
        Some(offered) => Chosen::Several(offered.to_vec()),
        None => Chosen::Unknown,
    };
    if current.iter().any(|value| value == ALL) || (current.is_empty() && *include_all) {
        return all();
    }
    let Some(offered) = offered else {
        let is_chosen = current.iter().any(|value| !value.is_empty());
        return if is_chosen { chosen_of(current.clone()) } else { Chosen::Unknown };
    };
    let is_offered = |value: &&String| offered.is_empty() || offered.contains(value);
    let chosen: Vec<String> = current.iter().filter(is_offered).cloned().collect();
    // A value that is no longer offered cannot be chosen, so the browser uses "All", or else the first.
    if chosen.is_empty() && *include_all {
        all()
    } else if chosen.is_empty() {
        chosen_of(offered.first().cloned().into_iter().collect())
    } else {
        chosen_of(chosen)
    }
}

/// The values that a variable offers: the result of its query after its pattern, each value once.
///
/// # Errors
/// If the pattern cannot be parsed here.
pub(super) fn matching(pattern: &str, found: Vec<String>) -> Result<Vec<String>, String> {
    let mut values = found;
    if !pattern.is_empty() {
        let pattern = Pattern::parse(pattern)?;
        values = values.iter().flat_map(|value| pattern.select(value)).collect();
    }
    let mut seen = BTreeSet::new();
    values.retain(|value| seen.insert(value.clone()));
    Ok(values)
}

/// The pattern of a variable, which selects values.
pub(super) struct Pattern {
    regex: Regex,
    /// Every match in a value counts, not only the first.
    is_global: bool,
}

impl Pattern {
    /// Parses a pattern as a browser does: without slashes, it matches only a whole value.
    ///
    /// # Errors
    /// If it cannot be parsed here.
    pub(super) fn parse(pattern: &str) -> Result<Self, String> {
        let failed = |why: &str| format!("its pattern {pattern} cannot be checked here: {why}");
        let Some(rest) = pattern.strip_prefix('/') else {
            let regex = Regex::new(&format!("^{pattern}$")).map_err(|why| failed(&why.to_string()))?;
            return Ok(Self { regex, is_global: false });
        };
        let (inner, flags) = rest.rsplit_once('/').ok_or_else(|| failed("it has no closing slash"))?;
        // A browser expects the flags in this order.
        let mut known = "gimys".chars();
        if !flags.chars().all(|flag| known.any(|one| one == flag)) {
            return Err(failed(&format!("Grafana does not accept its flags {flags:?}")));
        }
        let inline = flags.replace(['g', 'y'], "");
        let inner = if inline.is_empty() { inner.to_string() } else { format!("(?{inline}){inner}") };
        let regex = Regex::new(&inner).map_err(|why| failed(&why.to_string()))?;
        Ok(Self { regex, is_global: flags.contains('g') })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The values that the pattern selects from one text: the group `value` or `text`, otherwise the first group,
    /// otherwise the whole text if it matches.
    fn select(&self, text: &str) -> Vec<String> {
        let mut matches = Vec::new();
        for found in self.regex.captures_iter(text) {
            let is_empty = found.get(0).is_none_or(|whole| whole.is_empty());
            matches.push(found);
            if is_empty || !self.is_global {
                break;
            }
        }
        let named = |name: &str| {
            let groups = matches.iter().filter_map(|found| found.name(name));
            groups.map(|group| group.as_str()).find(|value| !value.is_empty())
        };
        if let Some(value) = named("value").or_else(|| named("text")) {
            return vec![value.into()];
        }
        if self.regex.captures_len() == 1 {
            return if matches.is_empty() { Vec::new() } else { vec![text.into()] };
        }
        matches.iter().filter_map(|found| found.get(1)).map(|group| group.as_str().into()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::read;
    use super::*;

    fn variables() -> Variables {
        let mut variables = Variables::default();
        let multi = Arity { multi: true, include_all: false };
        variables.set_of(multi, "model", Chosen::Several(vec!["a.b".into(), "c/d".into()]));
        variables.set("one", Chosen::One("x.y".into()));
        variables
    }

    #[test]
    fn every_form_of_a_variable_is_filled_in_and_macros_stay() {
        let variables = variables();
        for (text, filled) in [
            ("/^(${model:regex})_x$/", r"/^((a\.b|c\/d))_x$/"),
            ("/^$model$/ [[model:csv]]", r"/^(a\.b|c\/d)$/ a.b,c/d"),
            ("${one} $one [[one]] ${one:regex}", r"x.y x.y x.y x\.y"),
            ("${model:singlequote} ${model:pipe}", "'a.b','c/d' a.b|c/d"),
            ("${model:json} ${one:json} ${model:glob} ${model:odd}", r#"["a.b","c/d"] "x.y" {a.b,c/d} {a.b,c/d}"#),
            ("$timeFilter time($__interval) $/ [0] ${nobody} $", "$timeFilter time($__interval) $/ [0] ${nobody} $"),
            ("ü$one $oneü", "üx.y x.yü"),
        ] {
            for dialect in [Dialect::ByKind, Dialect::ByUse] {
                assert_eq!(variables.fill_query(dialect, text), filled, "{text}");
            }
        }
        assert_eq!(variables.fill("$model $one"), "{a.b,c/d} x.y");
        let target = read(json!({"a": ["$one", 3]}));
        assert_eq!(json!(variables.fill_target(Dialect::ByUse, &target)), json!({"a": ["x.y", 3]}));
    }

    #[test]
    fn special_characters_are_escaped_as_a_browser_does() {
        let (multi, all) = (Arity { multi: true, include_all: false }, Arity { multi: false, include_all: true });
        let single = Arity::default();
        let one = |value: &str| Chosen::One(value.into());
        // The kind, the value and the query, with the results before and from 10.3.
        for (kind, chosen, query, by_kind, by_use) in [
            (multi, one("/"), "a =~ /^$v$/", r"a =~ /^\/$/", r"a =~ /^\/$/"),
            (single, one("/var/lib"), "a =~ /^$v$/", "a =~ /^/var/lib$/", r"a =~ /^\/var\/lib$/"),
            (single, one("/var/lib"), "a !~  /[/]$v/", "a !~  /[/]/var/lib/", r"a !~  /[/]\/var\/lib/"),
            (single, one("/var/lib"), "a = '$v'", "a = '/var/lib'", "a = '/var/lib'"),
            (single, one("a(b"), "a =~ /^${v}$/", "a =~ /^a(b$/", "a =~ /^a(b$/"),
            (multi, one(r"C:\x"), "a =~ /^$v$/", r"a =~ /^C:\\x$/", r"a =~ /^C:\\x$/"),
            (all, one("a|b"), "FROM /^$v$/", r"FROM /^a\|b$/", "FROM /^a|b$/"),
            (multi, one("10.5 s"), "a =~ /$v/", r"a =~ /10\.5 s/", "a =~ /10.5 s/"),
            (multi, one("$HOME"), "FROM /^$v$/", r"FROM /^\$HOME$/", r"FROM /^\$HOME$/"),
            (multi, Chosen::Several(vec!["a'b".into()]), "a = ${v:singlequote}", r"a = 'a\'b'", r"a = 'a\'b'"),
            (single, one("a'b"), "a = ${v:sqlstring}", "a = 'a''b'", "a = 'a''b'"),
            (multi, Chosen::Raw(".*".into()), "a =~ /$v/", "a =~ /.*/", "a =~ /.*/"),
            (multi, Chosen::Raw("$v".into()), "a =~ /$v/", "a =~ /$v/", "a =~ /$v/"),
        ] {
            let mut variables = Variables::default();
            variables.set_of(kind, "v", chosen.clone());
            assert_eq!(variables.fill_query(Dialect::ByKind, query), by_kind, "{chosen:?} in {query}");
            assert_eq!(variables.fill_query(Dialect::ByUse, query), by_use, "{chosen:?} in {query}");
        }
    }

    #[test]
    fn each_part_of_a_built_query_is_filled_in_by_its_own_rule() {
        let mut variables = variables();
        variables.set("path", Chosen::One("/".into()));
        let target = read(json!({
            "measurement": "/^$model$/", "alias": "$one", "limit": 3,
            "tags": [
                {"key": "$one", "operator": "=~", "value": "/^$model$/"},
                {"key": "b", "operator": "=", "value": "$path"},
                {"key": "c", "operator": "=", "value": "/^$path$/"},
                7,
            ],
        }));
        for (dialect, unwrapped) in [(Dialect::ByKind, "/^/$/"), (Dialect::ByUse, "/")] {
            let filled = variables.fill_target(dialect, &target);
            assert_eq!(filled["measurement"], r"/^(a\.b|c\/d)$/", "{dialect:?}");
            assert_eq!((&filled["alias"], &filled["limit"]), (&json!("x.y"), &json!(3)));
            assert_eq!(filled["tags"][0], json!({"key": "x.y", "operator": "=~", "value": r"/^(a\.b|c\/d)$/"}));
            assert_eq!(filled["tags"][1]["value"], "/");
            assert_eq!(filled["tags"][2]["value"], unwrapped, "{dialect:?}");
        }
    }

    #[test]
    fn browser_variables_are_reported_and_values_are_not_variables() {
        let mut variables = variables();
        variables.set("__from", Chosen::One("1500".into()));
        variables.set("model", Chosen::One("$__user".into()));
        for (query, unknown) in [
            ("$model $timeFilter $__interval $interval $nobody", None),
            ("${__user.login}", Some("__user")),
            ("[[__org]]", Some("__org")),
            ("${__from:date:YYYY}", Some("__from")),
            ("${__from:date:iso}", None),
        ] {
            assert_eq!(variables.unknown_in(query).as_deref(), unknown, "{query}");
        }
        variables.set("later", Chosen::Unknown);
        let tags = json!([{"key": "a", "operator": "=", "value": "$later"}]);
        let parameter = json!([[{"type": "field", "params": ["$later"]}]]);
        for (target, unknown) in [
            (json!({"query": "$later"}), Some("later")),
            (json!({"measurement": "m", "query": "$later", "alias": "$later"}), None),
            (json!({"measurement": "m", "query": "$later", "rawQuery": true}), Some("later")),
            (json!({"measurement": "m", "tags": tags, "query": "$model"}), Some("later")),
            (json!({"measurement": "m", "tags": tags, "query": "$model", "rawQuery": true}), None),
            (json!({"measurement": "/^${later:regex}$/"}), Some("later")),
            (json!({"measurement": "m", "select": parameter}), Some("later")),
            (json!({"measurement": "m", "policy": "[[__org]]"}), Some("__org")),
        ] {
            assert_eq!(variables.unknown_in_target(&read(target.clone())).as_deref(), unknown, "{target}");
        }
        assert_eq!(variables.fill("${__from:date:seconds} ${__from:date}"), "1 1970-01-01T00:00:01.500Z");
    }

    #[test]
    fn values_are_chosen_as_a_browser_does() {
        let offered = ["a".to_string(), "b".to_string()];
        let all = json!({"multi": true, "includeAll": true, "current": {"value": ["$__all"]}});
        assert_eq!(choose(&read(all), Some(&offered)), Chosen::Several(offered.to_vec()));
        let raw = json!({"includeAll": true, "allValue": ".*", "current": {"value": "$__all"}});
        assert_eq!(choose(&read(raw), Some(&offered)), Chosen::Raw(".*".into()));
        assert_eq!(choose(&read(json!({"current": {"value": "b"}})), Some(&offered)), Chosen::One("b".into()));
        assert_eq!(
            choose(&read(json!({"includeAll": true, "current": {"value": "b"}})), Some(&offered)),
            Chosen::One("b".into())
        );
        assert_eq!(choose(&read(json!({"current": {"value": "gone"}})), Some(&offered)), Chosen::One("a".into()));
        let gone = |more: &str| {
            let mut variable = json!({"includeAll": true, "current": {"value": ["gone"]}});
            variable["allValue"] = json!(more);
            choose(&read(variable), Some(&offered))
        };
        assert_eq!(gone(""), Chosen::Several(offered.to_vec()));
        assert_eq!(gone(".*"), Chosen::Raw(".*".into()));
        let some_gone = json!({"includeAll": true, "multi": true, "current": {"value": ["gone", "b"]}});
        assert_eq!(choose(&read(some_gone), Some(&offered)), Chosen::Several(vec!["b".into()]));
        assert_eq!(choose(&read(json!({})), Some(&[])), Chosen::One(String::new()));
        // A browser knows what it offers, but this program does not.
        let kept = json!({"multi": true, "current": {"value": ["a", "b"]}});
        for (variable, expected) in [
            (json!({}), Chosen::Unknown),
            (json!({"current": {"text": "", "value": ""}}), Chosen::Unknown),
            (json!({"includeAll": true}), Chosen::Unknown),
            (json!({"includeAll": true, "current": {"value": ["$__all"]}}), Chosen::Unknown),
            (json!({"includeAll": true, "allValue": ".*", "current": {"value": "$__all"}}), Chosen::Raw(".*".into())),
            (json!({"current": {"value": "b"}}), Chosen::One("b".into())),
            (kept, Chosen::Several(offered.to_vec())),
        ] {
            assert_eq!(choose(&read(variable.clone()), None), expected, "{variable}");
        }
    }

    #[test]
    fn a_pattern_selects_values_as_a_browser_does() {
        let found = ["m1_counter", "other", "m1_counter", "x m2_counter y", "k=1 k=2"];
        for (pattern, expected) in [
            // Without a group, the whole value stays.
            ("/m[0-9]/", &["m1_counter", "x m2_counter y"][..]),
            ("/(.*)_counter$/", &["m1"]),
            ("/M1/i", &["m1_counter"]),
            // Without slashes, the whole value must match.
            ("m[0-9]", &[]),
            ("m._counter", &["m1_counter"]),
            ("m|y", &["m1_counter", "x m2_counter y"]),
            ("(m.)_.*", &["m1"]),
            // With the flag, each match counts.
            (r"/k=(\d)/", &["1"]),
            (r"/k=(\d)/g", &["1", "2"]),
            (r"/k=\d/g", &["k=1 k=2"]),
            ("/(x*)/g", &["", "x"]),
            // Groups with a name take precedence over the first.
            (r"/(m)(?<value>\d)/", &["1", "2"]),
            (r"/(?<text>m)(?<value>\d)/", &["1", "2"]),
            (r"/(m)(?<text>\d)/", &["1", "2"]),
        ] {
            let found = found.iter().map(|value| (*value).to_string()).collect();
            assert_eq!(matching(pattern, found).unwrap(), expected, "{pattern}");
        }
        let repeated = ["b", "a", "b"].map(String::from).to_vec();
        assert_eq!(matching("", repeated).unwrap(), ["b", "a"]);
        for pattern in ["/(?<=a)b/", "(?!a).*", "/a", "/a/ig", "/a/x"] {
            assert!(matching(pattern, vec!["ab".into()]).is_err(), "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_causes_a_panic(
            text in ".{0,40}", more in "[$\\[\\]{}:a-z.=~/\\\\]{0,30}", value in ".{0,8}",
            target in crate::arbitrary::json(&["query", "measurement", "tags", "value", "operator", "key"]),
        ) {
            let _ = matching(&more, vec![text.clone()]);
            let mut variables = variables();
            variables.set("a", Chosen::Raw(more.clone()));
            variables.set("b", Chosen::One(value));
            for dialect in [Dialect::ByKind, Dialect::ByUse] {
                let _ = (variables.fill_query(dialect, &text), variables.fill_query(dialect, &more));
                let _ = variables.fill_target(dialect, &read(target.clone()));
            }
            let _ = variables.unknown_in(&more);
        }
    }
}
