//! The parts of a dashboard that a browser's queries depend on.
//!
//! Dashboards may come from any source, so no content causes an error here.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::json::{Elements, lenient, read};

lenient! {
    /// A dashboard, in any classic schema.
    pub(super) struct DashboardModel {
        pub(super) title: String,
        pub(super) schema_version: Option<u64>,
        pub(super) timezone: String,
        pub(super) week_start: String,
        pub(super) fiscal_year_start_month: Option<i64>,
        pub(super) timepicker: Timepicker,
        pub(super) time: Time,
        pub(super) templating: Templating,
        /// Rows of panels, before Grafana 5.
        pub(super) rows: Elements<PanelModel>,
        pub(super) panels: Elements<PanelModel>,
    }

    pub(super) struct Timepicker {
        pub(super) now_delay: String,
    }

    /// The start and the end of the time range: texts or milliseconds.
    pub(super) struct Time {
        pub(super) from: Value,
        pub(super) to: Value,
    }

    pub(super) struct Templating {
        pub(super) list: Elements<Variable>,
    }

    pub(super) struct Variable {
        pub(super) name: String,
        #[serde(rename = "type")]
        pub(super) kind: String,
        pub(super) query: VariableQuery,
        pub(super) regex: String,
        pub(super) datasource: Option<DataSourceRef>,
        pub(super) multi: bool,
        pub(super) include_all: bool,
        /// A custom text for "All".
        pub(super) all_value: String,
        pub(super) current: CurrentValue,
        pub(super) options: Elements<VariableOption>,
    }

    /// The stored choice: one value or a list, with the text that a browser shows for it.
    pub(super) struct CurrentValue {
        pub(super) value: Choices,
        pub(super) text: Choices,
    }

    pub(super) struct VariableOption {
        pub(super) value: Choices,
    }

    struct WrappedQuery {
        query: String,
    }

    /// A panel, or a row, which may contain panels.
    pub(super) struct PanelModel {
        pub(super) id: u64,
        pub(super) title: String,
        #[serde(rename = "type")]
        pub(super) kind: String,
        /// The variable for which it is repeated.
        pub(super) repeat: String,
        /// Whether a row of Grafana 4 is collapsed.
        pub(super) collapse: bool,
        pub(super) datasource: Option<DataSourceRef>,
        pub(super) targets: Option<Elements<Option<Target>>>,
        pub(super) panels: Option<Elements<PanelModel>>,
        pub(super) library_panel: Option<Value>,
        pub(super) time_from: String,
        pub(super) time_shift: String,
    }

    /// The parts of a query that decide how it is sent.
    pub(super) struct TargetParts {
        pub(super) datasource: Option<DataSourceRef>,
        pub(super) hide: bool,
        /// Whether it is written as text rather than built with the editor.
        pub(super) raw_query: Option<bool>,
        pub(super) query: Option<String>,
        pub(super) policy: String,
        pub(super) measurement: Option<String>,
        pub(super) select: Option<Elements<Elements<SelectPart>>>,
        pub(super) tags: Elements<Tag>,
    }

    pub(super) struct SelectPart {
        #[serde(rename = "type")]
        pub(super) kind: String,
        pub(super) params: Elements<Value>,
    }

    /// A condition of a query built with the editor.
    pub(super) struct Tag {
        pub(super) operator: String,
        pub(super) value: Option<String>,
    }

    struct ReferenceObject {
        uid: String,
        #[serde(rename = "type")]
        kind: String,
    }
}

impl TargetParts {
    /// Whether the editor's parts are sent; a text beside them is left over.
    pub(super) fn is_built(&self) -> bool {
        self.raw_query != Some(true) && self.measurement.as_ref().is_some_and(|name| !name.is_empty())
    }

    /// The text that is sent as the query.
    pub(super) fn written(&self) -> Option<&str> {
        self.query.as_deref().filter(|_| !self.is_built())
    }
}

/// A query of a panel.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub(super) struct Target {
    pub(super) parts: TargetParts,
    /// All fields, which are sent to Grafana.
    pub(super) fields: Map<String, Value>,
}

impl From<Map<String, Value>> for Target {
    fn from(fields: Map<String, Value>) -> Self {
        Self { parts: TargetParts::deserialize(&fields).unwrap_or_default(), fields }
    }
}

/// The query of a variable, which newer dashboards write as an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Value")]
pub(super) struct VariableQuery(pub(super) String);

impl From<Value> for VariableQuery {
    fn from(written: Value) -> Self {
        match written {
            Value::String(query) => Self(query),
            other => Self(read::<WrappedQuery>(other).query),
        }
    }
}

/// One text or a list of texts. Numbers count as texts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Value")]
pub(super) struct Choices(pub(super) Vec<String>);

impl From<Value> for Choices {
    fn from(written: Value) -> Self {
        let text = |value: Value| match value {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        };
        match written {
            Value::Array(values) => Self(values.into_iter().map(text).collect()),
            Value::Null => Self::default(),
            value => Self(vec![text(value)]),
        }
    }
}

impl Choices {
    /// The first of the texts; empty without one.
    pub(super) fn first(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }
}

/// A reference to a data source: its uid and type, or its name in old dashboards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Value")]
pub(super) struct DataSourceRef {
    /// The uid or the name.
    pub(super) uid: String,
    pub(super) kind: String,
}

impl From<Value> for DataSourceRef {
    fn from(written: Value) -> Self {
        match written {
            Value::String(uid) => Self { uid, kind: String::new() },
            other => {
                let ReferenceObject { uid, kind } = read(other);
                Self { uid, kind }
            }
        }
    }
}

impl DataSourceRef {
    /// The uid or the name of a reference; empty without one.
    pub(super) fn uid_of(reference: Option<&Self>) -> &str {
        reference.map_or("", |reference| &reference.uid)
    }
}
