//! Reads and rewrites JSON of any origin: a part of an unexpected type counts as missing, and never hides the rest.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::objects_only::ObjectsOnly;

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
    T::deserialize(ObjectsOnly(document)).unwrap_or_default()
}

/// Deserializes a field, which may have any type.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(field: D) -> Result<T, D::Error> {
    Value::deserialize(field).map(read)
}

/// Texts by their names; a value of another type is an empty text.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Texts(pub(super) BTreeMap<String, String>);

impl Deref for Texts {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(map: D) -> Result<Self, D::Error> {
        let texts = BTreeMap::<String, Value>::deserialize(map)?;
        Ok(Self(texts.into_iter().map(|(name, text)| (name, read(text))).collect()))
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    lenient! {
        struct Sample {
            name: String,
            texts: Texts,
            parts: Elements<Sample>,
            inner: Option<Inner>,
        }

        struct Inner {
            name: String,
        }
    }

    #[test]
    fn a_list_is_no_object() {
        let sample: Sample = read(json!(["name", {"a": "b"}]));
        assert_eq!(sample.name, "");
        assert!(read::<Sample>(json!({"inner": ["name"]})).inner.is_none());
        assert_eq!(read::<Sample>(json!({"inner": {"name": "x"}})).inner.unwrap().name, "x");
        let sample: Sample = read(json!({"name": "outer", "parts": [["inner"], {"name": "inner"}]}));
        let names: Vec<&str> = sample.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!((sample.name.as_str(), names), ("outer", vec!["", "inner"]));
    }

    #[test]
    fn an_odd_text_hides_no_other() {
        let sample: Sample = read(json!({"name": 7, "texts": {"a": "x", "b": 3, "c": null}}));
        let texts: Vec<(&str, &str)> = sample.texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(texts, [("a", "x"), ("b", ""), ("c", "")]);
        assert!(read::<Sample>(json!({"texts": ["x"]})).texts.is_empty());
    }
}
