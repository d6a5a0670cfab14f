//! Dashboards saved by a browser in Grafana's schema v2. The classic API answers 406 for them; later versions convert
//! them and lose content.
//!
//! Only the facts that show the owner are read. All content is a user's edit, because this program
//! saves the classic schema.

use serde::de::DeserializeOwned;
use serde_json::json;

use super::dashboard::{Meta, StoredDashboard};
use super::json::{Elements, Texts, lenient};
use super::organisation::Organisation;
use super::versions::{Capability, DASHBOARD_API_V1, DASHBOARD_API_V2};
use super::{Grafana, path};
use crate::error::{Error, Result};
use crate::model::observed::OrganisationState;

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

    struct AnyDashboard {
        status: ResourceStatus,
    }

    struct ResourceStatus {
        conversion: Conversion,
    }

    struct Conversion {
        stored_version: String,
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
        for version in DASHBOARD_API_V2 {
            if let Some(found) = self.resource::<V2Dashboard>("read the dashboard in schema v2", version, uid).await? {
                return Ok(Some(found.into()));
            }
        }
        Ok(None)
    }

    /// Whether the classic API converted the dashboard from schema v2, as far as Grafana reports it.
    pub(super) async fn is_converted(&self, uid: &str) -> Result<bool> {
        if !self.has(Capability::ConvertedDashboards) {
            return Ok(false);
        }
        match self.resource::<AnyDashboard>("read the dashboard's schema", DASHBOARD_API_V1, uid).await {
            Err(Error::Answer { .. }) => Ok(false),
            found => Ok(found?.is_some_and(|found| found.status.conversion.stored_version.starts_with("v2"))),
        }
    }

    /// A dashboard in one version of the resource API.
    async fn resource<T: DeserializeOwned + Default>(
        &self,
        doing: &str,
        version: &str,
        uid: &str,
    ) -> Result<Option<T>> {
        let namespace = match self.organisation().await? {
            OrganisationState::FIRST => "default".to_string(),
            id => format!("org-{id}"),
        };
        let place = ["apis", "dashboard.grafana.app", version, "namespaces", &namespace, "dashboards", uid];
        self.get(doing, &path(&place)).await
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
