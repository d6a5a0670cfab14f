//! Reads and rewrites JSON of any origin: a part of an unexpected type counts as missing, and never hides the rest.

use std::ops::Deref;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Defines types of documents whose fields may be missing or have any type.
macro_rules! lenient {
    ($($(#[$attribute:meta])* $visible:vis struct $name:ident {
        $($(#[$of_field:meta])* $field_visible:vis $field:ident: $type:ty,)*
    })*) => {$(
        #[derive(Debug, Clone, Default, serde::Deserialize)]
        $(#[$attribute])*
        #[serde(default, rename_all = "camelCase")]
        $visible struct $name {
            $($(#[$of_field])* #[serde(deserialize_with = "crate::grafana::json::or_default")] $field_visible $field: $type,)*
        }
    )*};
}
pub(super) use lenient;

pub(super) fn read<T: DeserializeOwned + Default>(document: Value) -> T {
    T::deserialize(document).unwrap_or_default()
}

/// Deserializes a field, which may have any type.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(field: D) -> Result<T, D::Error> {
    Value::deserialize(field).map(read)
}

/// A list whose elements may have any type.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Elements<T>(pub(super) Vec<T>);

impl<T> Default for Elements<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Elements<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: DeserializeOwned + Default> Deserialize<'de> for Elements<T> {
    fn deserialize<D: Deserializer<'de>>(list: D) -> Result<Self, D::Error> {
        Vec::<Value>::deserialize(list).map(|elements| Self(elements.into_iter().map(read).collect()))
    }
}

/// Applies `change` to a document and then to all its parts.
pub(super) fn for_each_value(document: &mut Value, change: &mut impl FnMut(&mut Value)) {
    change(document);
    match document {
        Value::Array(elements) => elements.iter_mut().for_each(|element| for_each_value(element, change)),
        Value::Object(fields) => fields.values_mut().for_each(|field| for_each_value(field, change)),
        _ => {}
    }
}

/// Applies `change` to all texts of a document.
pub(super) fn for_each_text(document: &mut Value, change: &mut impl FnMut(&mut String)) {
    for_each_value(document, &mut |value| {
        if let Value::String(text) = value {
            change(text);
        }
    });
}
