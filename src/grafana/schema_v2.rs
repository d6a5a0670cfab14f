//! Dashboards saved by a browser in Grafana's schema v2, for which the classic API answers 406.
//!
//! Only the facts that show the owner are read. All content is a user's edit, because this program
//! saves the classic schema.

use serde_json::{Value, json};

use super::{Grafana, path, text};
use crate::error::Result;

/// The API versions that return them; Grafana 12 has the first, 13 has both.
const VERSIONS: [&str; 2] = ["v2beta1", "v2"];
/// The annotation with a dashboard's number.
const NUMBER: &str = "grafana.app/deprecatedInternalID";

impl Grafana {
    /// The dashboard as the classic API would return it, as far as possible; `None` if it cannot be read.
    pub(super) async fn dashboard_v2(&self, uid: &str) -> Result<Option<Value>> {
        let namespace = match self.organisation().await? {
            1 => "default".to_string(),
            id => format!("org-{id}"),
        };
        for version in VERSIONS {
            let place = ["apis", "dashboard.grafana.app", version, "namespaces", &namespace, "dashboards", uid];
            if let Some(found) = self.get("read the dashboard in schema v2", &path(&place)).await? {
                return Ok(Some(classic(&found)));
            }
        }
        Ok(None)
    }

    /// The id of the organisation that requests go to.
    async fn organisation(&self) -> Result<u64> {
        if let Some(id) = self.organisation.get() {
            return Ok(id);
        }
        let doing = "look up the organisation";
        let own = self.get(doing, "/api/org").await?.unwrap_or_default();
        own["id"].as_u64().ok_or_else(|| self.odd(doing))
    }
}

fn classic(found: &Value) -> Value {
    let (metadata, spec) = (&found["metadata"], &found["spec"]);
    let annotations = &metadata["annotations"];
    let constants = spec["variables"].as_array().into_iter().flatten();
    let constants = constants.filter(|variable| variable["kind"] == "ConstantVariable").map(
        |variable| json!({"type": "constant", "name": variable["spec"]["name"], "query": variable["spec"]["query"]}),
    );
    let id: Option<u64> = text(&metadata["labels"][NUMBER]).parse().ok();
    json!({
        "dashboard": {
            "id": id, "uid": metadata["name"], "title": spec["title"],
            "templating": {"list": constants.collect::<Vec<_>>()},
        },
        "meta": {
            "version": metadata["generation"], "folderUid": text(&annotations["grafana.app/folder"]),
            "provisioned": annotations["grafana.app/managedBy"].is_string(), "isSchemaV2": true,
        },
    })
}

/// Whether a dashboard was saved in schema v2.
pub(super) fn is_v2(found: &Value) -> bool {
    found["meta"]["isSchemaV2"] == true
}
