//! Answers as one JSON document each, as the types of the model define them.

use super::plain::Plain;
use super::{Output, Printer, Style, print};
use crate::model::event::{Event, Listener};
use crate::model::results::{Document, LogLine};
use crate::model::role::Role;
use crate::model::schema::SchemaVersion;
use crate::model::status::Status;
use crate::model::text::printable_json;

/// Prints answers on standard output, and progress as plain lines on standard error.
pub(super) struct Json {
    progress: Plain,
}

impl Json {
    pub(super) const fn new(style: Style) -> Self {
        Self { progress: Plain::new(style) }
    }
}

impl Listener for Json {
    fn on(&self, event: Event<'_>) {
        self.progress.on(event);
    }
}

impl Printer for Json {
    fn print(&self, output: Output<'_>) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(&Document::from(output)).unwrap_or_default();
        print(&format!("{}\n", printable_json(&text)))
    }

    fn again(&self, status: &Status) -> std::io::Result<()> {
        let text = serde_json::to_string(&Document::State(status)).unwrap_or_default();
        print(&format!("{}\n", printable_json(&text)))
    }

    fn clear(&self) {}
}

impl<'a> From<Output<'a>> for Document<'a> {
    fn from(output: Output<'a>) -> Self {
        match output {
            Output::Up(status) | Output::Down(status) | Output::Planned { status, .. } => Self::State(status),
            Output::Result(document) => document,
        }
    }
}

/// A line of a server's log, as a document on one line.
pub(super) fn log_line(role: Role, line: &str) -> String {
    let text = serde_json::to_string(&Document::LogLine(&LogLine { schema: SchemaVersion, server: role.name(), line }))
        .unwrap_or_default();
    format!("{}\n", printable_json(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema and its page in the repository. To change them with the types:
    /// `UPDATE_SCHEMA=1 cargo test --lib schema`.
    #[test]
    fn the_schema_in_the_repository_is_the_one_of_these_types() {
        let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
        let schema = settings.into_generator().into_root_schema_for::<Document<'_>>();
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        for (path, text) in [("assets/output.schema.json", &text), ("docs/json.md", &page(schema.as_value()))] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            #[expect(clippy::disallowed_methods, reason = "a test that updates these files on request")]
            if std::env::var_os("UPDATE_SCHEMA").is_some() {
                std::fs::write(&path, text).unwrap();
            }
            assert_eq!(&std::fs::read_to_string(&path).unwrap(), text, "UPDATE_SCHEMA=1 cargo test --lib schema");
        }
    }

    fn page(schema: &serde_json::Value) -> String {
        let mut page = String::from(
            "# JSON\n\n`--output json` prints one document; `logs --output json` prints one per line. Fields may be added but \
             never renamed, and unknown values are `null`. This page is generated from the schema that \
             `clipper-metrics status --output json-schema` prints.\n",
        );
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().replace('\n', " ");
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            page.push_str(&format!(
                "\n## {name}\n\n{}\n\n| field | type | |\n|---|---|---|\n",
                text(&definition["description"])
            ));
            for (field, property) in definition["properties"].as_object().unwrap() {
                let kind = kind(property);
                page.push_str(&format!("| `{field}` | {kind} | {} |\n", text(&property["description"])));
            }
        }
        page
    }

    /// The type of a value.
    fn kind(property: &serde_json::Value) -> String {
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
        if let Some(names) = property["enum"].as_array() {
            return names.iter().map(|one| format!("`{}`", word(one))).collect::<Vec<_>>().join(", ");
        }
        if let Some(reference) = property["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return format!("[{name}](#{})", name.to_lowercase());
        }
        if let Some(any) = property["anyOf"].as_array() {
            return any.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
        match &property["type"] {
            serde_json::Value::Array(types) => types.iter().map(word).collect::<Vec<_>>().join(" or "),
            one if one == "array" => format!("list of {}", kind(&property["items"])),
            one => word(one),
        }
    }
}
