//! Image references.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::version::Version;

/// Official images of Docker Hub, which have no organisation in their name.
const OFFICIAL: [&str; 1] = ["influxdb"];

/// Repositories, by their Docker Hub names, whose tags are the version of the server.
const VERSIONED: [&str; 4] =
    ["grafana/grafana", "grafana/grafana-oss", "grafana/grafana-enterprise", "library/influxdb"];

/// A reference such as `grafana/grafana:12.4.10`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageRef {
    /// Registry and repository.
    name: String,
    /// Tag and digest, with their separators.
    tag: Option<String>,
    digest: Option<String>,
}

/// Checks a registry and repository as engines do (the grammar of `distribution/reference`).
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.contains("://") {
        return Err("an image name has no scheme such as https://");
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (Some(first), rest),
        _ => (None, name),
    };
    let is_host = |host: &str| {
        let (host, port) = host.rsplit_once(':').filter(|_| !host.ends_with(']')).unwrap_or((host, "0"));
        let is_in_host = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
        !host.is_empty() && host.chars().all(is_in_host) && port.parse::<u16>().is_ok()
    };
    if registry.is_some_and(|host| !is_host(host)) {
        return Err("the registry is no host or host:port");
    }
    let is_component = |part: &str| {
        let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(is_end) && part.ends_with(is_end) && part.chars().all(|c| is_end(c) || "._-".contains(c))
    };
    if repository.split('/').all(is_component) {
        Ok(())
    } else {
        Err("the repository in an image name consists of lower-case letters, digits and single . _ - /")
    }
}

/// Whether the first part of a name is a registry's host.
fn is_registry(first: &str) -> bool {
    first.contains(|c: char| c == '.' || c == ':' || c.is_ascii_uppercase()) || first == "localhost"
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(is_word) && tag.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

fn is_digest(digest: &str) -> bool {
    let is_hex = |hex: &str| !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit());
    digest.split_once(':').is_some_and(|(algorithm, hex)| !algorithm.is_empty() && is_hex(hex))
}

impl ImageRef {
    /// Parses a reference. A reference without tag and digest means `latest`; some engines would
    /// pull all tags.
    ///
    /// # Errors
    /// The reason why no engine accepts the reference.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("an image name contains no white space");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_string())),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_string())),
            _ => (rest, None),
        };
        if name.is_empty() || tag.as_deref() == Some("") || digest.as_deref() == Some("") {
            return Err("an image reference has the form name:tag");
        }
        check_name(name)?;
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err("a tag has at most 128 letters, digits, dots, dashes and underscores");
        }
        if digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
            return Err("a digest has the form sha256:HEX");
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".into()));
        Ok(Self { name: name.into(), tag, digest })
    }

    /// The prefix before the repository of `other`, if both name the same repository.
    #[must_use]
    pub(crate) fn prefix_before(&self, other: &Self) -> Option<&str> {
        self.name.strip_suffix(&other.name)?.strip_suffix('/')
    }

    /// Registry and repository without the tag; with the digest, as the engine's API expects.
    #[must_use]
    pub(crate) fn name_for_pull(&self) -> String {
        match &self.digest {
            Some(_) => self.to_string(),
            None => self.name.clone(),
        }
    }

    /// The tag to pull; none if there is a digest.
    #[must_use]
    pub(crate) fn tag_for_pull(&self) -> Option<&str> {
        if self.digest.is_some() { None } else { self.tag.as_deref() }
    }

    /// The registry's host, if the reference names one; otherwise it is Docker Hub.
    #[must_use]
    pub(crate) fn registry(&self) -> Option<&str> {
        let (first, _) = self.name.split_once('/')?;
        is_registry(first).then_some(first)
    }

    /// Whether a server of this image, which reports the version `runs`, contradicts its tag, so that the tags of
    /// `other` from the same repository name no version either.
    #[must_use]
    pub(crate) fn is_contradicted(&self, runs: Version, other: &Self) -> bool {
        self.name == other.name && self.version().is_some_and(|named| named != runs)
    }

    /// The image's name in a mirror that keeps Docker Hub's full names, where official images are
    /// under `library/`.
    #[must_use]
    pub(crate) fn library_form(&self) -> Option<Self> {
        let (prefix, last) = self.name.rsplit_once('/')?;
        self.registry()?;
        let is_official = OFFICIAL.contains(&last) && !prefix.ends_with("/library");
        is_official.then(|| Self { name: format!("{prefix}/library/{last}"), ..self.clone() })
    }

    /// Whether the repository is an official one, on Docker Hub or in a mirror that adds a prefix.
    /// Tags of users' own images follow no rule: `corp/grafana:2025.11` names no version of
    /// Grafana.
    fn names_versions(&self) -> bool {
        let ends_with = |repository: &str| {
            self.name.strip_suffix(repository).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('/'))
        };
        let is_one_word = |name: &&str| self.name == **name || (self.registry().is_some() && ends_with(name));
        VERSIONED.into_iter().any(ends_with) || OFFICIAL.iter().any(is_one_word)
    }

    /// The tag of an official image if it names a full version. A tag such as `12.4` is moved to
    /// newer versions.
    #[must_use]
    pub(crate) fn full_version(&self) -> Option<&str> {
        let tag = self.tag.as_deref().filter(|_| self.names_versions())?;
        let numbers = tag.trim_start_matches('v').split(['.', '-', '+']).take(3);
        (numbers.filter(|number| number.parse::<u64>().is_ok()).count() == 3).then_some(tag)
    }

    /// The image of an official repository with the server's full version as its tag.
    #[must_use]
    pub(crate) fn of_version(&self, version: &str) -> Option<Self> {
        let named = Self { name: self.name.clone(), tag: Some(version.into()), digest: None };
        named.full_version().is_some().then_some(named)
    }

    /// Whether both name the same repository of the same registry.
    pub(crate) fn is_of_same_repository(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// The digest of the content, if the reference contains it.
    #[must_use]
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The server's version according to the tag of an official image.
    #[must_use]
    pub(crate) fn version(&self) -> Option<Version> {
        Version::parse(self.tag.as_deref().filter(|_| self.names_versions())?)
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(text)?).map_err(D::Error::custom)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_split_into_registry_name_and_tag() {
        let parse = |text: &str| ImageRef::parse(text).unwrap();
        assert_eq!(parse("influxdb:1.8").tag_for_pull(), Some("1.8"));
        assert_eq!(parse("127.0.0.1:5000/a/b").to_string(), "127.0.0.1:5000/a/b:latest");
        assert_eq!(parse("127.0.0.1:5000/a/b").registry(), Some("127.0.0.1:5000"));
        assert_eq!(parse("grafana/grafana:1.2").registry(), None);
        let digest = parse("a:1.2@sha256:00");
        assert_eq!((digest.to_string().as_str(), digest.tag_for_pull()), ("a:1.2@sha256:00", None));
        assert_eq!(parse("m:5000/influxdb:1.8").prefix_before(&parse("influxdb:1.12.4")), Some("m:5000"));
        assert_eq!(parse("influxdb:1.8").prefix_before(&parse("influxdb:1.12.4")), None);
        assert_eq!(parse("m:5000/influxdb:1.8").library_form().unwrap().to_string(), "m:5000/library/influxdb:1.8");
        assert_eq!(parse("influxdb:1.8").library_form(), None);
        assert_eq!(parse("m:5000/grafana/grafana:1.8").library_form(), None);
        for (image, version) in [
            ("grafana/grafana:12.4.10", Some(Version(12, 4))),
            ("grafana/grafana-oss:11.6.1", Some(Version(11, 6))),
            ("docker.io/grafana/grafana:12.4", Some(Version(12, 4))),
            ("m.example:5000/hub/grafana/grafana:12.4.10", Some(Version(12, 4))),
            ("mirror/grafana/grafana:12.4.10", Some(Version(12, 4))),
            ("influxdb:1.12.4", Some(Version(1, 12))),
            ("library/influxdb:1.12.4", Some(Version(1, 12))),
            ("m.example/influxdb:1.12.4", Some(Version(1, 12))),
            ("m.example/hub/library/influxdb:1.12.4", Some(Version(1, 12))),
            ("grafana/grafana:latest", None),
            ("corp/grafana:1.0", None),
            ("corp/grafana:2025.11", None),
            ("m.example/corp/grafana:1.0", None),
            ("m.example/mygrafana/grafana:1.0", None),
            ("corp/influxdb:2025.11", None),
            ("grafana:12.4.10", None),
        ] {
            assert_eq!(parse(image).version(), version, "{image}");
            let is_full = version.is_some() && !image.ends_with(":12.4");
            assert_eq!(parse(image).full_version().is_some(), is_full, "{image}");
        }
        let named = |image: &str| parse(image).of_version("12.4.10").map(|image| image.to_string());
        assert_eq!(named("m.example/grafana/grafana:latest").as_deref(), Some("m.example/grafana/grafana:12.4.10"));
        assert_eq!(
            [named("corp/grafana:1"), parse("grafana/grafana:1").of_version("nightly").map(|_| String::new())],
            [None, None]
        );
        for good in
            ["localhost/a:1", "[::1]:5000/a/b:1", "M.example:5000/a:1", "NAS/a:1", "a_b/c--d.e:V1_.-", "a@sha256:0aF"]
        {
            assert!(ImageRef::parse(good).is_ok(), "{good:?}");
        }
        let long = format!("a:{}", "x".repeat(129));
        let schemes = ["https://m.example/a:1", "http://a"];
        let names = ["A:1", "a/B:1", "a//b", "/a", "a/", "m.example:port/a", "m.example:70000/a", "a.:1"];
        let tails = ["", ":x", "a:", "a b", "a@", "a:-1", "a:ä", "a@sha256", "a@sha256:xyz", &long];
        for bad in schemes.iter().chain(&names).chain(&tails) {
            assert!(ImageRef::parse(bad).is_err(), "{bad:?}");
        }
    }
}
