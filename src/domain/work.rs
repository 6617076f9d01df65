//! What a run does: the snapshot of a VolumeScan's spec that the run keeps for its whole life.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::VolumeSelector;

/// How often one node may be tried in one run before its job counts as failed.
pub const MAX_ATTEMPTS: i32 = 3;

/// How volumes are measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Mode {
    /// Read every entry of every selected volume.
    #[default]
    Walk,
    /// Ask the file system (`statvfs`) where a volume is a whole file system of its own; walk the others.
    Fast,
    /// List volumes and their users; measure nothing.
    Inventory,
}

/// Bounds on what a run may cost, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    {"rule": "self.volumeTimeoutSeconds <= self.nodeTimeoutSeconds",
     "message": "must not be over nodeTimeoutSeconds", "fieldPath": ".volumeTimeoutSeconds"},
    {"rule": "self.nodeTimeoutSeconds <= self.runTimeoutSeconds",
     "message": "must not be over runTimeoutSeconds", "fieldPath": ".nodeTimeoutSeconds"}
]))]
pub struct Limits {
    /// Nodes measured at the same time.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_parallel_nodes: i32,
    /// Volumes measured at the same time on one node.
    #[schemars(range(min = 1, max = 16))]
    pub parallel_volumes: i32,
    /// Seconds after which a volume's walk is cut off and its figures count as partial.
    #[schemars(range(min = 10, max = 86_400))]
    pub volume_timeout_seconds: i32,
    /// Seconds a node may take, counted from when its agent takes the job.
    #[schemars(range(min = 10, max = 172_800))]
    pub node_timeout_seconds: i32,
    /// Seconds the whole run may take.
    #[schemars(range(min = 10, max = 604_800))]
    pub run_timeout_seconds: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_parallel_nodes: 20,
            parallel_volumes: 1,
            volume_timeout_seconds: 600,
            node_timeout_seconds: 3600,
            run_timeout_seconds: 7200,
        }
    }
}

/// The snapshot: stored with the run as JSON, handed to each agent when it claims its job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkOrder {
    /// How volumes are measured.
    #[serde(default)]
    pub mode: Mode,
    /// Which volumes are measured and counted.
    #[serde(default)]
    pub volume_selector: VolumeSelector,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
}
