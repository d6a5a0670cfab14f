//! The differences between Grafana's versions.

use crate::model::stack::DesiredDataSource;
use crate::model::version::Version;

/// The versions of the API that returns dashboards in schema v2; Grafana 12 has the first, 13 has both.
pub(super) const DASHBOARD_API_V2: [&str; 2] = ["v2beta1", "v2"];
/// A version of the same API in the classic schema; Grafana 12 and 13 have it.
pub(super) const DASHBOARD_API_V1: &str = "v1beta1";

/// A capability that only later versions have. Requests ask for the capability, never for a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capability {
    LibraryPanels,
    /// Resources are addressed by uid; see [`Api`].
    Uids,
    /// Editors may list the data sources.
    SourcesForEditors,
    /// The API creates alert rules that users can edit.
    AlertRules,
    /// Titles are compared exactly (grafana/grafana#70936); before, by their slugs.
    ExactTitles,
    /// Titles are compared within one folder; before, with those of all folders, too.
    TitlesPerFolder,
    /// Titles need not be unique in a folder, nor differ from those of folders (grafana/grafana#90687).
    EqualTitles,
    /// The server sends panels' queries to InfluxDB; before, browsers sent them through Grafana's proxy.
    ServerSideQueries,
    /// The content of a folder is listed by the folder's uid.
    FolderContentByUid,
    /// Browsers show panels of first-generation plugins with their successors.
    ReplacedPanels,
    /// The classic API converts dashboards in schema v2 instead of answering 406 (grafana/grafana#114812).
    ConvertedDashboards,
    /// A refresh interval below the minimum is refused instead of raised (grafana/grafana#122027).
    RefusedRefresh,
}

impl Capability {
    /// The first version that has it.
    pub(super) const fn since(self) -> Version {
        match self {
            Self::LibraryPanels => Version(8, 0),
            Self::Uids | Self::SourcesForEditors => Version(9, 0),
            Self::AlertRules => Version(9, 3),
            Self::ExactTitles => Version(10, 0),
            Self::EqualTitles => Version(11, 3),
            Self::ServerSideQueries => Version(10, 3),
            Self::FolderContentByUid | Self::ReplacedPanels | Self::TitlesPerFolder => Version(11, 0),
            Self::ConvertedDashboards => Version(12, 4),
            Self::RefusedRefresh => Version(13, 1),
        }
    }

    /// Whether a version has it. An unknown version counts as the newest one.
    pub(super) fn is_in(self, version: Option<Version>) -> bool {
        version.is_none_or(|version| version >= self.since())
    }
}

/// How a version of Grafana addresses resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// By number; panels query through the proxy.
    Numeric,
    /// By uid; panels query through `/api/ds/query`. Version 13 no longer has numbers.
    Uid,
}

impl Api {
    pub(super) fn of(version: Option<Version>) -> Self {
        if Capability::Uids.is_in(version) { Self::Uid } else { Self::Numeric }
    }

    /// The value with which a dashboard refers to a data source.
    pub(super) fn reference(self, source: &DesiredDataSource) -> &str {
        match self {
            Self::Numeric => &source.name,
            Self::Uid => &source.uid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_version_has_every_capability() {
        assert!(Capability::AlertRules.is_in(Some(Version(9, 3))));
        assert!(!Capability::AlertRules.is_in(Some(Version(9, 2))));
        assert!(!Capability::EqualTitles.is_in(Some(Version(11, 2))));
        assert!(Capability::FolderContentByUid.is_in(None));
        assert_eq!((Api::of(Some(Version(8, 5))), Api::of(None)), (Api::Numeric, Api::Uid));
    }
}
