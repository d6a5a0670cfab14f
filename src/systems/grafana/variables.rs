//! The variables of a dashboard, and how a browser fills them into queries.
//!
//! Knows the syntax of Grafana's templates. Must not know how a query is asked.

use regex_lite::Regex;
use serde_json::{Map, Value, json};

/// The value of "All" in a variable.
const ALL: &str = "$__all";

/// A variable with what is chosen in it when the dashboard is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) name: String,
    /// Several where it may have several, or "All" is chosen.
    pub(super) chosen: Chosen,
}

/// What is chosen in a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chosen {
    /// One value of a variable that has one.
    One(String),
    /// Values of a variable that may have several.
    Several(Vec<String>),
    /// A text that stands for "All" as it is.
    Raw(String),
}

/// All variables, in the dashboard's order.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables(Vec<Filled>);

impl Variables {
    pub(super) fn set(&mut self, name: &str, chosen: Chosen) {
        self.0.retain(|one| one.name != name);
        self.0.push(Filled { name: name.into(), chosen });
    }

    pub(super) fn get(&self, name: &str) -> Option<&Chosen> {
        self.0.iter().find(|one| one.name == name).map(|one| &one.chosen)
    }

    /// A text with every known variable filled in. What is not known stays as it is: `$timeFilter` and
    /// the like are Grafana's server's.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['$', '[']) {
            out.push_str(&rest[..at]);
            let (name, format, length) = reference(&rest[at..]);
            let value = name.and_then(|name| self.get(name)).map(|chosen| written(chosen, format));
            match value {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[at..at + length]),
            }
            rest = &rest[at + length..];
        }
        out.push_str(rest);
        out
    }

    /// The same in every text of a document.
    pub(super) fn fill_all(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.fill(text)),
            Value::Array(items) => items.iter().map(|item| self.fill_all(item)).collect(),
            Value::Object(fields) => {
                let filled: Map<String, Value> =
                    fields.iter().map(|(name, value)| (name.clone(), self.fill_all(value))).collect();
                Value::Object(filled)
            }
            other => other.clone(),
        }
    }
}

/// The variable that a text begins with, its format, and how long that is: `$name`, `${name}`,
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
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        (end > 0).then(|| (&rest[..end], None, end + 1))
    } else {
        None
    };
    found.map_or((None, None, 1), |(name, format, length)| (Some(name), format, length))
}

/// The variables that a text refers to.
pub(super) fn names_in(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['$', '[']) {
        let (name, _, length) = reference(&rest[at..]);
        names.extend(name.map(String::from));
        rest = &rest[at + length..];
    }
    names
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// A choice as it is written into a query of InfluxDB's data source.
fn written(chosen: &Chosen, format: Option<&str>) -> String {
    let (values, is_list): (Vec<&str>, bool) = match chosen {
        Chosen::Raw(text) => return text.clone(),
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
    match format {
        Some("regex") => alternatives(values.len() > 1),
        Some("pipe") => values.join("|"),
        Some("glob") if values.len() > 1 => format!("{{{}}}", values.join(",")),
        Some("csv" | "raw" | "text" | "glob") => values.join(","),
        Some("singlequote" | "sqlstring") => each(&|value| format!("'{}'", value.replace('\'', "\\'")), ","),
        Some("doublequote") => each(&|value| format!("\"{}\"", value.replace('"', "\\\"")), ","),
        Some("json") if is_list => json!(values).to_string(),
        Some("json") => json!(values.first()).to_string(),
        Some("percentencode") => each(&|value| crate::systems::http::escaped(value), ","),
        // InfluxDB's data source writes what may have several values as a regular expression.
        _ if is_list => alternatives(true),
        _ => values.join(","),
    }
}

/// Escaped for a regular expression of InfluxQL.
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

/// What a variable offers, and what is chosen of it when the dashboard is opened. `offered` is what the
/// query of a variable has found.
pub(super) fn choose(variable: &Value, offered: &[String]) -> Chosen {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };

    let current: Vec<String> = match &variable["current"]["value"] {
        Value::Array(values) => values.iter().map(text).collect(),
        Value::Null => Vec::new(),
        value => vec![text(value)],
    };
    let may_have_several = variable["multi"] == true || variable["includeAll"] == true;
    if current.iter().any(|value| value == ALL) || (current.is_empty() && variable["includeAll"] == true) {
        let stands_for_all = variable["allValue"].as_str().filter(|value| !value.is_empty());
        return stands_for_all.map_or_else(|| Chosen::Several(offered.to_vec()), |all| Chosen::Raw(all.into()));
    }
    // What is offered no more cannot be chosen: the browser takes the first.
    let mut chosen: Vec<String> =
        current.into_iter().filter(|value| offered.is_empty() || offered.contains(value)).collect();
    if chosen.is_empty() {
        chosen.extend(offered.first().cloned());
    }
    if may_have_several { Chosen::Several(chosen) } else { Chosen::One(chosen.into_iter().next().unwrap_or_default()) }
}

/// What a variable's pattern makes of what its query has found: the first group where it has one.
///
/// # Errors
/// When it is none that can be read here.
pub(super) fn matching(pattern: &str, found: Vec<String>) -> Result<Vec<String>, String> {
    if pattern.is_empty() {
        return Ok(found);
    }
    let (inner, flags) = match pattern.strip_prefix('/').and_then(|rest| rest.rsplit_once('/')) {
        Some((inner, flags)) => (inner, flags),
        None => (pattern, ""),
    };
    let inner = if flags.contains('i') { format!("(?i){inner}") } else { inner.to_string() };
    let regex = Regex::new(&inner).map_err(|why| format!("its pattern {pattern} cannot be checked here: {why}"))?;
    let mut values: Vec<String> = Vec::new();
    for one in &found {
        let Some(captures) = regex.captures(one) else { continue };
        let group = captures.name("value").or_else(|| captures.get(1)).or_else(|| captures.get(0));
        let group = group.map(|group| group.as_str().to_string());
        values.extend(group.filter(|value| !values.contains(value)));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let mut variables = Variables::default();
        variables.set("model", Chosen::Several(vec!["a.b".into(), "c/d".into()]));
        variables.set("one", Chosen::One("x.y".into()));
        variables
    }

    #[test]
    fn every_way_to_write_a_variable_is_filled_in_and_macros_stay() {
        let variables = variables();
        for (text, filled) in [
            ("/^(${model:regex})_x$/", r"/^((a\.b|c\/d))_x$/"),
            ("/^$model$/ [[model:csv]]", r"/^(a\.b|c\/d)$/ a.b,c/d"),
            ("${one} $one [[one]] ${one:regex}", r"x.y x.y x.y x\.y"),
            ("${model:singlequote} ${model:pipe}", "'a.b','c/d' a.b|c/d"),
            ("$timeFilter time($__interval) $/ [0] ${nobody} $", "$timeFilter time($__interval) $/ [0] ${nobody} $"),
            ("ü$one", "üx.y"),
        ] {
            assert_eq!(variables.fill(text), filled, "{text}");
        }
        assert_eq!(variables.fill_all(&json!({"a": ["$one", 3]})), json!({"a": ["x.y", 3]}));
    }

    #[test]
    fn what_is_chosen_is_what_a_browser_would_choose() {
        let offered = ["a".to_string(), "b".to_string()];
        let all = json!({"multi": true, "includeAll": true, "current": {"value": ["$__all"]}});
        assert_eq!(choose(&all, &offered), Chosen::Several(offered.to_vec()));
        let raw = json!({"includeAll": true, "allValue": ".*", "current": {"value": "$__all"}});
        assert_eq!(choose(&raw, &offered), Chosen::Raw(".*".into()));
        assert_eq!(choose(&json!({"current": {"value": "b"}}), &offered), Chosen::One("b".into()));
        assert_eq!(choose(&json!({"current": {"value": "gone"}}), &offered), Chosen::One("a".into()));
        assert_eq!(choose(&json!({}), &[]), Chosen::One(String::new()));
    }

    #[test]
    fn a_pattern_takes_the_first_group() {
        let found = || vec!["m1_counter".to_string(), "other".into(), "m1_counter".into()];
        assert_eq!(matching("/(.*)_counter$/", found()).unwrap(), ["m1"]);
        assert_eq!(matching("", found()).unwrap().len(), 3);
        assert!(matching("/(?<=a)b/", found()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_text_holds_it_is_filled_in(text in ".{0,40}", more in "[$\\[\\]{}:a-z.]{0,20}") {
            let variables = variables();
            let _ = variables.fill(&text);
            let _ = variables.fill(&more);
        }
    }
}
