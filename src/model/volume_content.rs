//! Grafana's volume as read through its container: the files of clipper-metrics, and the copy of the database.

use super::image::ImageRef;
use super::stack::Secret;
use super::version::Version;

/// The content of Grafana's volume that decisions depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeContent {
    /// The files of clipper-metrics.
    pub files: VolumeFiles,
    /// The upgrade that the copy of the database was made for, if there is a complete copy.
    pub copy: Option<String>,
}

/// The files of clipper-metrics in Grafana's volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeFiles {
    /// The password that Grafana accepts.
    pub password: Option<Secret>,
    /// The password that was being set when a run ended. Once it has been accepted, it equals the password.
    pub pending: Option<Secret>,
    /// The last version that ran, if it differs from the version that the volume was created for.
    pub ran: Option<RanVersion>,
    /// The version that was about to run, according to its image's tag; its server has not reported
    /// its version yet.
    pub intended: Option<RanVersion>,
}

/// A version of Grafana, with its image and container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RanVersion {
    pub version: Version,
    /// The image, if recorded.
    pub image: Option<String>,
    /// The engine's id of the container, if recorded.
    pub container: Option<String>,
}

impl RanVersion {
    /// Parses the text of a version file: version, image and container.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split_whitespace();
        let version = Version::parse(parts.next()?)?;
        Some(Self { version, image: parts.next().map(String::from), container: parts.next().map(String::from) })
    }

    /// The image, if recorded.
    pub(crate) fn image(&self) -> Option<ImageRef> {
        self.image.as_deref().and_then(|image| ImageRef::parse(image).ok())
    }

    /// The version, if the image's tag names it. Earlier versions of clipper-metrics used the tag
    /// of any image.
    pub(crate) fn of_tag(&self) -> Option<Version> {
        Some(self.version).filter(|_| self.image().is_none_or(|image| image.version().is_some()))
    }
}

impl VolumeFiles {
    /// Whether a start of this container is intended.
    #[must_use]
    pub(crate) fn is_intended_for(&self, container: &str) -> bool {
        self.intended.as_ref().is_some_and(|intended| intended.container.as_deref() == Some(container))
    }
}
