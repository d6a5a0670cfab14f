//! The part of a mark that names the InfluxDB and database an object was created for.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::stack::MadeFor;

/// Its key next to or in the rest of a mark.
pub(super) const KEY: &str = "madeFor";

#[derive(Serialize, Deserialize)]
struct Mark {
    url: String,
    database: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<String>,
}

/// Writes the stored form.
pub(super) fn written(made_for: MadeFor) -> Value {
    let MadeFor { url, database, machine } = made_for;
    serde_json::to_value(Mark { url, database, machine }).unwrap_or_default()
}

/// Reads the stored form; `None` for objects of versions that did not store it.
pub(super) fn read(value: &Value) -> Option<MadeFor> {
    let Mark { url, database, machine } = Mark::deserialize(value).ok()?;
    Some(MadeFor { url, database, machine })
}
