//! The custom resources of `volumeviz.io/v1alpha1` as Rust types; their CRDs are generated from here into `crds/` and the chart.
//!
//! Nothing here talks to a cluster. Bounds and rules stand beside the fields they are about, so that the API server refuses what the
//! controller could not use.

pub mod conditions;
mod volume_alert;
mod volume_alert_status;
mod volume_scan;
mod volume_scan_status;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation, JSON, JSONSchemaProps, ValidationRule,
};
use kube::CustomResourceExt;

pub use volume_alert::{ScanName, ScanSelector, VolumeAlert, VolumeAlertSpec};
pub use volume_alert_status::{AlertCounts, AlertState, EvaluatedRun, FiringSubject, LISTED, VolumeAlertStatus};
pub use volume_scan::{ConcurrencyPolicy, Measurement, VolumeScan, VolumeScanSpec};
pub use volume_scan_status::{
    ActiveRun, Agents, Candidate, Database, Display, FailedNode, FinishedRun, FollowedSchedule, GrowingVolume, Growth,
    State, TopEntry, TopVolume, Totals, VolumeScanStatus,
};

/// A generated CRD and the name of its file in `crds/`.
#[derive(Debug)]
pub struct Manifest {
    /// File name, e.g. `volumescans.volumeviz.io.yaml`.
    pub file_name: String,
    /// The whole manifest.
    pub yaml: String,
}

/// Every CRD of this version.
pub fn manifests() -> Result<Vec<Manifest>, serde_yaml::Error> {
    [VolumeScan::crd(), VolumeAlert::crd()]
        .into_iter()
        .map(|crd| {
            let crd = without_nulls(with_name_limit(with_pending_status(crd)));
            let name = crd.metadata.name.clone().unwrap_or_default();
            Ok(Manifest { file_name: format!("{name}.yaml"), yaml: serde_yaml::to_string(&crd)? })
        })
        .collect()
}

/// Gives a fresh object the condition `Ready=Unknown`, so that no client takes "no conditions" for ready before the controller has seen it.
fn with_pending_status(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let default = serde_json::json!({"conditions": [{
        "type": conditions::READY,
        "status": "Unknown",
        "reason": conditions::reason::PENDING,
        "message": "waiting for the controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]});
    for version in &mut crd.spec.versions {
        if let Some(status) = version.schema.as_mut().and_then(status_schema) {
            status.default = Some(JSON(default.clone()));
        }
    }
    crd
}

/// Names become labels and parts of other names, which Kubernetes limits to 63 characters.
fn with_name_limit(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let rule = ValidationRule {
        rule: "self.metadata.name.size() <= 63".to_owned(),
        message: Some("metadata.name must be at most 63 characters".to_owned()),
        ..ValidationRule::default()
    };
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            schema.x_kubernetes_validations.get_or_insert_default().push(rule.clone());
        }
    }
    crd
}

/// kube takes every number-or-text that has a default for an optional one and lets null pass, which then could not be read. Without that the
/// API server puts the default in the place of null.
fn without_nulls(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    fn strip(schema: &mut JSONSchemaProps) {
        if schema.x_kubernetes_int_or_string == Some(true) && schema.default.is_some() {
            schema.nullable = None;
        }
        schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(strip);
    }
    for version in &mut crd.spec.versions {
        version.schema.iter_mut().filter_map(|schema| schema.open_api_v3_schema.as_mut()).for_each(strip);
    }
    crd
}

fn status_schema(validation: &mut CustomResourceValidation) -> Option<&mut JSONSchemaProps> {
    validation.open_api_v3_schema.as_mut()?.properties.as_mut()?.get_mut("status")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_object_is_ready_unknown() {
        let crd = with_pending_status(VolumeScan::crd());
        let mut schema = crd.spec.versions[0].schema.clone().unwrap();
        let default = status_schema(&mut schema).unwrap().default.clone().unwrap().0;
        assert_eq!(default["conditions"][0]["type"], "Ready");
        assert_eq!(default["conditions"][0]["status"], "Unknown");
    }
}
