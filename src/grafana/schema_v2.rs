//! Dashboards saved by a browser in Grafana's schema v2, for which the classic API answers 406.
//!
//! Only the facts that show the owner are read. All content is a user's edit, because this program
//! saves the classic schema.

use serde_json::json;

use super::dashboard::{Meta, StoredDashboard};
use super::json::{Elements, Texts, lenient};
use super::organisation::Organisation;
use super::versions::DASHBOARD_API_V2;
use super::{Grafana, path};
use crate::error::Result;

/// The annotation with a dashboard's number.
const NUMBER: &str = "grafana.app/deprecatedInternalID";
/// The annotation with the uid of its folder.
const FOLDER: &str = "grafana.app/folder";
/// The annotation of dashboards that another program manages.
const MANAGER: &str = "grafana.app/managedBy";

lenient! {
    struct V2Dashboard {
        metadata: Metadata,
        spec: Spec,
    }

    struct Metadata {
        name: String,
        generation: Option<u64>,
        labels: Texts,
        annotations: Texts,
    }

    struct Spec {
        title: String,
        variables: Elements<V2Variable>,
    }

    struct V2Variable {
        kind: String,
        spec: Constant,
    }

    struct Constant {
        name: String,
        query: String,
    }
}

impl Grafana {
    /// The dashboard as the classic API would return it, as far as possible; `None` if it cannot be read.
    pub(super) async fn dashboard_v2(&self, uid: &str) -> Result<Option<StoredDashboard>> {
        let namespace = match self.organisation().await? {
            1 => "default".to_string(),
            id => format!("org-{id}"),
        };
        for version in DASHBOARD_API_V2 {
            let place = ["apis", "dashboard.grafana.app", version, "namespaces", &namespace, "dashboards", uid];
            if let Some(found) = self.get::<V2Dashboard>("read the dashboard in schema v2", &path(&place)).await? {
                return Ok(Some(found.into()));
            }
        }
        Ok(None)
    }

    /// The id of the organisation that requests go to.
    async fn organisation(&self) -> Result<u64> {
        if let Some(id) = self.organisation {
            return Ok(id);
        }
        let doing = "look up the organisation";
        let own: Organisation = self.get(doing, "/api/org").await?.unwrap_or_default();
        own.id.ok_or_else(|| self.odd(doing))
    }
}

impl From<V2Dashboard> for StoredDashboard {
    fn from(V2Dashboard { metadata, spec }: V2Dashboard) -> Self {
        let constants = spec.variables.iter().filter(|variable| variable.kind == "ConstantVariable");
        let constants = constants.map(
            |V2Variable { spec: Constant { name, query }, .. }| json!({"type": "constant", "name": name, "query": query}),
        );
        let id: Option<u64> = metadata.labels.get(NUMBER).and_then(|number| number.parse().ok());
        let content = json!({
            "id": id, "uid": metadata.name, "title": spec.title,
            "templating": {"list": constants.collect::<Vec<_>>()},
        });
        let meta = Meta {
            version: metadata.generation,
            folder_uid: Some(metadata.annotations.get(FOLDER).cloned().unwrap_or_default()),
            provisioned: metadata.annotations.get(MANAGER).is_some_and(|manager| !manager.is_empty()),
            ..Meta::default()
        };
        Self { is_v2: true, ..Self::new(meta, content) }
    }
}
