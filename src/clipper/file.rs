//! Clipper's TOML file, and its rule for the database's name.
//!
//! The caller defines the keys that `[metrics]` may contain.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};
use crate::model::text::excerpt;

/// The parts of Clipper's file that concern metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClipperFile {
    /// The file's path.
    pub path: PathBuf,
    /// The database that Clipper will write to.
    pub database: Option<String>,
    /// The host that Clipper will write to.
    pub influx_ip: Option<String>,
    /// The port that Clipper will write to.
    pub influx_port: Option<String>,
    /// Clipper's latency objective in microseconds.
    pub slo_micros: Option<u64>,
    /// The models that Clipper will report; empty if the file names none.
    pub models: Vec<String>,
    /// The table of clipper-metrics: values as text by key.
    pub metrics: BTreeMap<String, String>,
    /// Whether the file contains that table, which may be empty.
    pub has_metrics: bool,
}

/// The type of a value in `[metrics]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A string.
    Text,
    /// The address of a server.
    Url,
    /// A reference to an image.
    Image,
    /// An integer from 1 to 65535.
    Port,
    /// An address or a host name.
    Host,
    /// A path relative to the file.
    Path,
    /// Several paths relative to the file, joined as in `PATH`.
    Paths,
    /// True or false.
    Flag,
    /// One of these choices.
    Word(&'static [&'static str]),
}

/// Characters that Clipper does not escape in a request, so that nothing it writes to such a
/// database arrives (each was tried).
const UNWRITABLE: [char; 6] = ['&', '#', '+', '%', ';', '"'];

/// Parses Clipper's file.
///
/// # Errors
/// [`Error::File`] with the line, if the file is not TOML, a relevant value has the wrong type or
/// cannot work, or `[metrics]` contains an unknown key.
pub fn parse(path: &Path, text: &str, keys: &[(String, ValueKind)]) -> Result<ClipperFile> {
    let file = SourceFile { path, text, keys };
    let table = DeTable::parse(text).map_err(|error| {
        file.error(error.span(), format!("is not valid TOML: {}", excerpt(error.message(), 200)), "correct that line")
    })?;
    let table = table.into_inner();
    let mut found = ClipperFile { path: path.to_path_buf(), ..ClipperFile::default() };

    let name_key = if table.contains_key("influx_dbname") { "influx_dbname" } else { "name" };
    if let Some(value) = table.get(name_key) {
        let name = file.string(name_key, value)?;
        let database = database_name(&name)
            .map_err(|why| file.error(Some(value.span()), format!("{name_key} = {name:?}: {why}"), RENAME))?;
        found.database = Some(database);
    }
    if let Some(value) = table.get("influx_ip") {
        found.influx_ip = Some(file.host("influx_ip", value)?);
    }
    if let Some(value) = table.get("influx_port") {
        found.influx_port = Some(file.port("influx_port", value)?.to_string());
    }
    if let Some(value) = table.get("slo_micros") {
        found.slo_micros = Some(file.positive("slo_micros", value)?);
    }
    if let Some(value) = table.get("models") {
        found.models = file.models(value)?;
    }
    if let Some(value) = table.get("metrics") {
        (found.metrics, found.has_metrics) = (file.metrics(value)?, true);
    }
    Ok(found)
}

/// Joins paths as in `PATH`.
///
/// # Errors
/// With the reason, if a path contains the separator.
pub fn join_paths(paths: &[String]) -> Result<String, String> {
    let joined = std::env::join_paths(paths).map_err(|why| why.to_string())?;
    Ok(joined.to_string_lossy().into_owned())
}

/// The hint about a database's name.
const RENAME: &str = "choose another name, also in Clipper's file";

/// The database that Clipper derives from a name: every white-space character becomes a dash.
///
/// # Errors
/// With the reason, if InfluxDB rejects the name or Clipper cannot write to it.
pub fn database_name(name: &str) -> Result<String, String> {
    let name: String = name.chars().map(|c| if c.is_whitespace() { '-' } else { c }).collect();
    if name.is_empty() {
        return Err("the name is empty".into());
    }
    if name == "." || name == ".." || name.contains(['/', '\\']) || name.chars().any(char::is_control) {
        return Err("InfluxDB rejects this name (no `/`, no `\\`, no control characters, not `.` or `..`)".into());
    }
    if name.len() > 255 {
        return Err("InfluxDB rejects names longer than 255 bytes".into());
    }
    if let Some(bad) = name.chars().find(|c| UNWRITABLE.contains(c)) {
        return Err(format!(
            "Clipper does not escape `{bad}` in a database name, so its reports would never arrive there"
        ));
    }
    Ok(name)
}

/// The file being parsed, for messages with a line.
struct SourceFile<'a> {
    path: &'a Path,
    text: &'a str,
    /// The keys that `[metrics]` may contain.
    keys: &'a [(String, ValueKind)],
}

impl SourceFile<'_> {
    fn error(&self, span: Option<Range<usize>>, message: impl Into<String>, hint: &str) -> Error {
        let line = span.map(|span| {
            let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
            before.iter().filter(|byte| **byte == b'\n').count() + 1
        });
        Error::File { path: self.path.to_path_buf(), line, message: message.into(), hint: hint.into() }
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) -> Error {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        let message = format!("{key} must be {expected}, but is {article} {found}");
        self.error(Some(value.span()), message, "correct that line")
    }

    fn string(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            _ => Err(self.wrong_type(key, value, "a string")),
        }
    }

    fn host(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String> {
        let host = self.string(key, value)?;
        if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/') {
            let message = format!("{key} = {host:?} is neither an address nor a host name");
            return Err(self.error(Some(value.span()), message, "use a value such as \"127.0.0.1\""));
        }
        Ok(host)
    }

    fn integer(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<i64> {
        match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| self.wrong_type(key, value, "a smaller number")),
            _ => Err(self.wrong_type(key, value, "an integer")),
        }
    }

    fn port(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<u16> {
        let number = self.integer(key, value)?;
        u16::try_from(number).ok().filter(|port| *port != 0).ok_or_else(|| {
            self.error(
                Some(value.span()),
                format!("{key} = {number}: a port is a number from 1 to 65535"),
                "correct that line",
            )
        })
    }

    fn positive(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<u64> {
        let number = self.integer(key, value)?;
        u64::try_from(number).ok().filter(|number| *number != 0).ok_or_else(|| {
            self.error(Some(value.span()), format!("{key} = {number} must be positive"), "correct that line")
        })
    }

    fn models(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>> {
        let DeValue::Array(entries) = value.get_ref() else {
            return Err(self.wrong_type("models", value, "tables [[models]]"));
        };
        let mut names = Vec::new();
        for entry in entries {
            let DeValue::Table(model) = entry.get_ref() else {
                return Err(self.wrong_type("models", entry, "tables [[models]]"));
            };
            if let Some(name) = model.get("name") {
                names.push(self.string("name of a model", name)?);
            }
        }
        Ok(names)
    }

    fn metrics(&self, value: &Spanned<DeValue<'_>>) -> Result<BTreeMap<String, String>> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong_type("metrics", value, "a table [metrics]"));
        };
        let mut found = BTreeMap::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let Some((_, kind)) = self.keys.iter().find(|(known, _)| *known == name) else {
                let hint = if let Some(known) = self.nearest(name) {
                    format!("did you mean `{known}`?")
                } else {
                    let known: Vec<&str> = self.keys.iter().map(|(known, _)| known.as_str()).collect();
                    format!("known keys: {}", known.join(", "))
                };
                let message = format!("unknown key `{}` in [metrics]", excerpt(name, 60));
                return Err(self.error(Some(key.span()), message, &hint));
            };
            let text = match kind {
                ValueKind::Port => self.port(name, value)?.to_string(),
                ValueKind::Host => self.host(name, value)?,
                ValueKind::Text | ValueKind::Url | ValueKind::Image => self.string(name, value)?,
                ValueKind::Path => {
                    let path = self.string(name, value)?;
                    if path.is_empty() {
                        continue;
                    }
                    self.beside(&path)
                }
                ValueKind::Paths => self.paths(name, value)?,
                ValueKind::Flag => match value.get_ref() {
                    DeValue::Boolean(flag) => flag.to_string(),
                    _ => return Err(self.wrong_type(name, value, "true or false")),
                },
                ValueKind::Word(choices) => {
                    let word = self.string(name, value)?;
                    if !choices.contains(&word.as_str()) {
                        let message = format!("{name} = {word:?} is not a value of this key");
                        let hint = format!("use one of {}", choices.join(", "));
                        return Err(self.error(Some(value.span()), message, &hint));
                    }
                    word
                }
            };
            found.insert(name.to_string(), text);
        }
        Ok(found)
    }

    /// A path relative to the file's folder.
    fn beside(&self, path: &str) -> String {
        self.path.parent().map_or(path.into(), |folder| folder.join(path).to_string_lossy().into_owned())
    }

    fn paths(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String> {
        let DeValue::Array(entries) = value.get_ref() else {
            return Err(self.wrong_type(key, value, "a list of files"));
        };
        let paths = entries.iter().map(|entry| self.string(key, entry)).collect::<Result<Vec<_>>>()?;
        let paths: Vec<String> = paths.iter().filter(|path| !path.is_empty()).map(|path| self.beside(path)).collect();
        join_paths(&paths).map_err(|why| self.error(Some(value.span()), format!("{key}: {why}"), "rename the file"))
    }

    /// The known key that was probably meant.
    fn nearest(&self, key: &str) -> Option<&str> {
        self.keys
            .iter()
            .map(|(known, _)| (strsim::jaro_winkler(known, key), known.as_str()))
            .filter(|(likeness, _)| *likeness > 0.7)
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .map(|(_, known)| known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::invocation::Invocation;

    fn read(text: &str) -> Result<ClipperFile> {
        parse(
            Path::new("test.toml"),
            text,
            &[("name".into(), ValueKind::Text), ("grafana_port".into(), ValueKind::Port)],
        )
    }

    #[test]
    fn the_database_is_influx_dbname_or_otherwise_the_name() {
        assert_eq!(read("name = \"a\"\ninflux_dbname = \"b\"").unwrap().database.as_deref(), Some("b"));
        assert_eq!(read("name = \"a\"").unwrap().database.as_deref(), Some("a"));
        assert_eq!(read("").unwrap().database, None);
    }

    #[test]
    fn white_space_becomes_a_dash_as_in_clipper() {
        assert_eq!(database_name("clipper test").unwrap(), "clipper-test");
        assert_eq!(database_name("a\u{a0}b\tc").unwrap(), "a-b-c");
    }

    #[test]
    fn names_that_cannot_work_are_refused() {
        for name in ["", ".", "..", "a/b", "a\\b", "a&b", "a#b", "a+b", "a%b", "a;b", "a\"b", "a\u{7}b"] {
            assert!(database_name(name).is_err(), "{name:?}");
        }
        for name in ["it's", "why?", "a.b", "größe", "a=b"] {
            assert_eq!(database_name(name).unwrap(), name);
        }
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [
            ("a = 1\ninflux_port = \"x\"", 2),
            ("influx_port = 0", 1),
            ("\n\ninflux_port = 70000", 3),
            ("x = ", 1),
            ("[metrics]\nnmae = \"x\"", 2),
            ("influx_dbname = \"..\"", 1),
            ("models = 3", 1),
        ] {
            match read(text) {
                Err(Error::File { line: found, .. }) => assert_eq!(found, Some(line), "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let error = read("[metrics]\ngrafana_prot = 3000").unwrap_err();
        assert_eq!(error.hint(&Invocation::default()), "did you mean `grafana_port`?");
    }

    proptest::proptest! {
        #[test]
        fn no_file_causes_a_panic(text in ".*", key in "[a-z_]{1,14}", value in ".{0,20}") {
            let _ = read(&text);
            let _ = read(&format!("{key} = {value}\n[metrics]\n{key} = {value}"));
        }

        #[test]
        fn a_name_that_is_accepted_can_be_written_to(name in ".*") {
            if let Ok(name) = database_name(&name) {
                proptest::prop_assert!(!name.is_empty() && !name.contains(['/', '\\', '"', '&', '#', '+', '%', ';']));
                proptest::prop_assert!(!name.chars().any(|c| c.is_whitespace() || c.is_control()));
            }
        }
    }

    #[test]
    fn unknown_keys_in_other_tables_are_ignored() {
        let file = read("cache_size = 1\n[whatever]\nx = 1\n[[models]]\nname = \"m 1\"\naddresses = []").unwrap();
        assert_eq!(file.models, ["m 1"]);
    }
}
