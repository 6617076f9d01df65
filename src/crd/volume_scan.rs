//! `VolumeScan`: what is in the Docker volumes of the selected nodes.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::volume_scan_status::VolumeScanStatus;
use crate::domain::selector::{LabelSelector, VolumeSelector};
use crate::domain::work::{Limits, Mode, WorkOrder};

/// Measures the Docker volumes of the selected nodes once, and again for every new value of `trigger`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "volumeviz.io",
    version = "v1alpha1",
    kind = "VolumeScan",
    plural = "volumescans",
    shortname = "vscan",
    category = "volumeviz",
    status = "VolumeScanStatus",
    derive = "PartialEq",
    doc = "VolumeScan measures the Docker volumes of the selected nodes: how big they are, and who uses them.",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastRun.completionTime"),
    printcolumn(name = "Result", type_ = "string", json_path = ".status.lastRun.result"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.display.nodes"),
    printcolumn(name = "Volumes", type_ = "integer", json_path = ".status.totals.volumes"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.display.size"),
    printcolumn(name = "DB", type_ = "string", json_path = ".status.conditions[?(@.type==\"DatabaseReady\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.measurement == oldSelf.measurement", "fieldPath": ".measurement",
     "message": "a scan cannot be changed once it exists; create another one, or set trigger to run this one again"},
    {"rule": "self.limits == oldSelf.limits", "fieldPath": ".limits",
     "message": "a scan cannot be changed once it exists; create another one, or set trigger to run this one again"},
    {"rule": "has(self.nodeSelector) == has(oldSelf.nodeSelector) && (!has(self.nodeSelector) || self.nodeSelector == oldSelf.nodeSelector)",
     "message": "nodeSelector cannot be changed once the scan exists; create another one, or set trigger to run this one again"},
    {"rule": "has(self.volumeSelector) == has(oldSelf.volumeSelector) && (!has(self.volumeSelector) || self.volumeSelector == oldSelf.volumeSelector)",
     "message": "volumeSelector cannot be changed once the scan exists; create another one, or set trigger to run this one again"}
]))]
pub struct VolumeScanSpec {
    /// An opaque token: a new value starts a run. It waits for a run that is under way; a value used before is acknowledged without a run.
    /// `status.lastHandledTrigger` repeats the last value that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub trigger: Option<String>,
    /// Nodes to measure. Absent: every Linux node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Volumes to measure and count. Absent: all. The inventory of volumes and their users is always of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_selector: Option<VolumeSelector>,
    /// How volumes are measured.
    #[serde(default)]
    pub measurement: Measurement,
    /// What the scan may cost, and how long it may take.
    #[serde(default)]
    pub limits: Limits,
}

/// How volumes are measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Measurement {
    /// `Walk` reads every entry; `Fast` asks the file system where a volume is a whole one, and walks the others; `Inventory` only lists.
    #[serde(default)]
    pub mode: Mode,
}

impl VolumeScanSpec {
    /// The snapshot of this spec that a run keeps.
    pub fn work_order(&self) -> WorkOrder {
        WorkOrder {
            mode: self.measurement.mode,
            volume_selector: self.volume_selector.clone().unwrap_or_default(),
            limits: self.limits,
        }
    }
}
