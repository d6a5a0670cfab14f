//! The data sources and panel plugins that a Grafana offers to dashboards.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::data_source::DataSource;
use super::versions::Capability;
use super::{Grafana, layout};
use crate::error::{Error, Result};
use crate::http::Body;
use crate::model::observed::{Catalogue, CatalogueSource};

/// Settings that Grafana sends to its frontend.
#[derive(Debug, Deserialize)]
struct FrontendSettings {
    panels: BTreeMap<String, PanelPlugin>,
    #[serde(default, rename = "minRefreshInterval")]
    least_refresh: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PanelPlugin {
    #[serde(default, rename = "skipDataQuery")]
    skips_queries: bool,
    /// Earlier ids of the same plugin.
    #[serde(default, rename = "aliasIds")]
    aliases: Vec<String>,
}

impl Grafana {
    /// The panel types that a browser can show, and whether each sends queries; `None` if Grafana
    /// does not report them.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub(super) async fn panel_plugins(&self) -> Result<Option<BTreeMap<String, bool>>> {
        let Some(settings) = self.frontend_settings("list the panel plugins").await? else { return Ok(None) };
        let mut plugins = BTreeMap::new();
        for (id, PanelPlugin { skips_queries, aliases }) in settings.panels {
            plugins.extend(aliases.into_iter().chain([id]).map(|id| (id, !skips_queries)));
        }
        if self.has(Capability::ReplacedPanels) {
            for (old, new) in layout::replacements() {
                if let (false, Some(sends_queries)) = (plugins.contains_key(old), plugins.get(new).copied()) {
                    plugins.insert(old.into(), sends_queries);
                }
            }
        }
        // A row is part of the dashboard itself.
        plugins.insert("row".into(), false);
        Ok(Some(plugins))
    }

    /// The shortest refresh interval of dashboards, such as `5s`, if Grafana reports it.
    pub(super) async fn least_refresh(&self) -> Result<Option<String>> {
        let settings = self.frontend_settings("read the shortest refresh interval").await?;
        Ok(settings.and_then(|settings| settings.least_refresh))
    }

    async fn frontend_settings(&self, doing: &str) -> Result<Option<FrontendSettings>> {
        match self.send(doing, "GET", "/api/frontend/settings", Body::Empty).await {
            Ok(answer) if answer.status == 200 => Ok(answer.json()),
            // A large or slow answer does not mean that Grafana fails otherwise.
            Ok(_) | Err(Error::Http { .. } | Error::Answer { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The data sources and panel types that dashboards can use.
    pub(super) async fn catalogue(&self, sources: &[DataSource]) -> Result<Catalogue> {
        let of = |source: &DataSource| CatalogueSource { uid: source.uid.clone(), name: source.name.clone() };
        let panel_types = self.panel_plugins().await?.map(|plugins| plugins.into_keys().collect());
        Ok(Catalogue { sources: sources.iter().map(of).collect(), panel_types })
    }
}
