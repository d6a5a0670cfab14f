//! The configuration of a container: the fields whose change requires a new container, and their
//! form in a label.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Serialize, Serializer};

use super::image::ImageRef;

/// The source of the first password of Grafana's administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PasswordSource {
    /// Grafana's default, `admin`; on loopback only.
    Default,
    /// A file in the data volume.
    File,
}

impl PasswordSource {
    const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
        }
    }
}

/// All fields whose change requires a new container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerConfig {
    pub image: ImageRef,
    /// The published address and port; with port 0 the engine chooses the port.
    pub publish: SocketAddr,
    /// The network that both containers share.
    pub network: String,
    /// The data volume.
    pub volume: String,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// The source of Grafana's first password.
    pub password: PasswordSource,
    /// Whether the container resolves a name for the engine's host.
    pub host_gateway: bool,
    /// Environment variables, without secrets.
    pub environment: BTreeMap<String, String>,
}

impl ContainerConfig {
    /// The name that `host_gateway` gives to the engine's host.
    pub(crate) const HOST_NAME: &str = "host.docker.internal";
    /// The environment variable for the role of Grafana's anonymous visitors. On loopback, the image decides; where
    /// other hosts reach Grafana, they may only view.
    pub(crate) const ANONYMOUS_ROLE: (&str, &str) = ("GF_AUTH_ANONYMOUS_ORG_ROLE", "Viewer");
    /// Limits of a container's log, as log driver options.
    pub(crate) const LOG_LIMIT: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];
    /// The prefix of an environment variable's field.
    const VARIABLE: &str = "env ";

    /// Whether other hosts can reach the published address.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.publish.ip().is_loopback()
    }

    /// One text for each field, for the label.
    #[must_use]
    pub(crate) fn fields(&self) -> BTreeMap<String, String> {
        let mut fields: BTreeMap<String, String> = [
            ("image", self.image.to_string()),
            ("publish", self.publish.to_string()),
            ("network", self.network.clone()),
            ("volume", self.volume.clone()),
            ("read-only", self.read_only.to_string()),
            ("password", self.password.name().to_string()),
            ("host-gateway", self.host_gateway.to_string()),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into();
        let variables = self.environment.iter();
        fields.extend(variables.map(|(name, value)| (format!("{}{name}", Self::VARIABLE), value.clone())));
        fields
    }

    /// Parses the output of [`Self::fields`]; `None` for any other content.
    #[must_use]
    pub(crate) fn from_fields(fields: &BTreeMap<String, String>) -> Option<Self> {
        let get = |name: &str| fields.get(name);
        let variable = |name: &str| name.strip_prefix(Self::VARIABLE).map(String::from);
        Some(Self {
            image: ImageRef::parse(get("image")?).ok()?,
            publish: get("publish")?.parse().ok()?,
            network: get("network")?.clone(),
            volume: get("volume")?.clone(),
            read_only: get("read-only")?.parse().ok()?,
            password: match get("password")?.as_str() {
                "default" => PasswordSource::Default,
                "file" => PasswordSource::File,
                _ => return None,
            },
            host_gateway: get("host-gateway")?.parse().ok()?,
            environment: fields.iter().filter_map(|(name, value)| Some((variable(name)?, value.clone()))).collect(),
        })
    }
}

/// A field that differs; a missing value is `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Difference {
    // The name as users know it.
    pub field: String,
    #[serde(rename = "have", serialize_with = "unless_empty")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub actual: String,
    #[serde(rename = "want", serialize_with = "unless_empty")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub desired: String,
}

fn unless_empty<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    Some(text).filter(|text| !text.is_empty()).serialize(serializer)
}

impl Difference {
    /// The field with the fingerprint of the bundled content that an object was created from.
    pub(crate) const EDITION: &str = "edition";
    /// The field with the engine's id of an image.
    pub(crate) const IMAGE_ID: &str = "image id";
    /// The field with the database that an object was created for.
    pub(crate) const MADE_FOR: &str = "made for";

    /// Compares two descriptions field by field.
    #[must_use]
    pub(crate) fn between(actual: &BTreeMap<String, String>, desired: &BTreeMap<String, String>) -> Vec<Self> {
        let names: std::collections::BTreeSet<&String> = actual.keys().chain(desired.keys()).collect();
        names
            .into_iter()
            .map(|name| Self {
                field: name.clone(),
                actual: actual.get(name).cloned().unwrap_or_default(),
                desired: desired.get(name).cloned().unwrap_or_default(),
            })
            .filter(|difference| difference.actual != difference.desired)
            .collect()
    }

    pub(crate) fn list(differences: &[Self]) -> String {
        differences.iter().map(Self::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &str| if text.is_empty() { "(none)".to_string() } else { text.to_string() };
        let (actual, desired) = (or_none(&self.actual), or_none(&self.desired));
        // The field of one of several objects ends with its name.
        if let Some(of) = self.field.strip_prefix(Self::EDITION) {
            write!(f, "created from another version{of}")
        } else if let Some(of) = self.field.strip_prefix(Self::MADE_FOR) {
            write!(f, "target{of}: {actual} -> {desired}")
        } else if self.field == Self::IMAGE_ID {
            write!(f, "another image now has its name: {actual} -> {desired}")
        } else {
            write!(f, "{}: {actual} -> {desired}", self.field)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::role::Role;

    #[test]
    fn a_difference_is_readable_without_its_fingerprints() {
        let difference =
            |field: &str| Difference { field: field.into(), actual: "a".into(), desired: String::new() }.to_string();
        assert_eq!(difference("url"), "url: a -> (none)");
        assert_eq!(difference(Difference::EDITION), "created from another version");
        assert_eq!(difference("edition of \"p99\""), "created from another version of \"p99\"");
        assert_eq!(difference("made for of \"p99\""), "target of \"p99\": a -> (none)");
    }

    #[test]
    fn a_configuration_survives_its_label() {
        let config = ContainerConfig {
            image: ImageRef::parse("m:5000/grafana/grafana:12.4.10").unwrap(),
            publish: "[::1]:3000".parse().unwrap(),
            password: PasswordSource::File,
            environment: [("GF_A".to_string(), "b=c".to_string())].into(),
            ..crate::samples::container_config(Role::Grafana)
        };
        assert_eq!(ContainerConfig::from_fields(&config.fields()), Some(config.clone()));
        for name in config.fields().keys().filter(|name| !name.starts_with(ContainerConfig::VARIABLE)) {
            let mut broken = config.fields();
            broken.remove(name);
            assert_eq!(ContainerConfig::from_fields(&broken), None, "{name}");
        }
    }
}
