//! What a run does: the snapshot of a VolumeScan's spec that the run keeps for its whole life.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::selector::VolumeSelector;

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

/// A number of nodes, or a share of a run's nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NodeLimit {
    /// So many.
    Count(i32),
    /// Percent, such as `25%`, rounded up.
    Share(String),
}

impl NodeLimit {
    /// How many of `total` nodes, at least one. `None`: neither a positive number nor a percentage from 1 to 100.
    pub fn of(&self, total: usize) -> Option<usize> {
        match self {
            Self::Count(count) => usize::try_from(*count).ok().filter(|count| *count > 0),
            Self::Share(share) => {
                let percent: usize = share.strip_suffix('%')?.parse().ok()?;
                (1..=100).contains(&percent).then(|| total.saturating_mul(percent).div_ceil(100).max(1))
            }
        }
    }
}

impl fmt::Display for NodeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Share(share) => write!(f, "{share:?}"),
        }
    }
}

impl JsonSchema for NodeLimit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NodeLimit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "x-kubernetes-validations": [{
                "rule": "type(self) == int ? self >= 1 && self <= 10000 : self.matches('^([1-9][0-9]?|100)%$')",
                "message": "must be a number from 1 to 10000, or a share from \"1%\" to \"100%\"",
            }],
        })
    }
}

/// Bounds on what a run may cost, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    {"rule": "self.volumeTimeoutSeconds <= self.nodeTimeoutSeconds",
     "message": "must not be over nodeTimeoutSeconds", "fieldPath": ".volumeTimeoutSeconds"},
    {"rule": "self.nodeTimeoutSeconds <= self.runTimeoutSeconds",
     "message": "must not be over runTimeoutSeconds", "fieldPath": ".nodeTimeoutSeconds"}
]))]
pub struct Limits {
    /// Nodes measured at the same time: a number, or a share of the run's nodes such as `25%`, rounded up.
    pub max_parallel_nodes: NodeLimit,
    /// Volumes measured at the same time on one node.
    #[schemars(range(min = 1, max = 16))]
    pub parallel_volumes: i32,
    /// Files and directories looked at a second on one node, over all its volumes. Absent: as fast as it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 10_000_000))]
    pub entries_per_second: Option<i32>,
    /// Seconds after which a volume's walk is cut off and its figures count as partial.
    #[schemars(range(min = 10, max = 86_400))]
    pub volume_timeout_seconds: i32,
    /// Seconds a node may take, counted from when its agent takes the job.
    #[schemars(range(min = 10, max = 172_800))]
    pub node_timeout_seconds: i32,
    /// Seconds the whole run may take.
    #[schemars(range(min = 10, max = 604_800))]
    pub run_timeout_seconds: i32,
    /// A volume that any scan measured completely within so many seconds is not measured again: its last result counts. 0: always measure.
    #[schemars(range(min = 0, max = 604_800))]
    pub min_interval_seconds: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_parallel_nodes: NodeLimit::Count(20),
            parallel_volumes: 1,
            entries_per_second: None,
            volume_timeout_seconds: 600,
            node_timeout_seconds: 3600,
            run_timeout_seconds: 7200,
            min_interval_seconds: 0,
        }
    }
}

/// The snapshot: stored with the run as JSON, handed to each agent when it claims its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkOrder {
    /// How volumes are measured.
    #[serde(default)]
    pub mode: Mode,
    /// How many of each volume's biggest files, and of its biggest directories, are told.
    #[serde(default)]
    pub top_entries: i32,
    /// Which volumes are measured and counted.
    #[serde(default)]
    pub volume_selector: VolumeSelector,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// How often one node may be tried.
    #[serde(default = "default_max_attempts")]
    pub max_attempts: i32,
    /// Runs of the scan that are kept in the database.
    #[serde(default = "default_run_history_limit")]
    pub run_history_limit: i32,
}

impl Default for WorkOrder {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            top_entries: 0,
            volume_selector: VolumeSelector::default(),
            limits: Limits::default(),
            max_attempts: default_max_attempts(),
            run_history_limit: default_run_history_limit(),
        }
    }
}

/// Attempts a node has unless the scan says otherwise.
pub const fn default_max_attempts() -> i32 {
    3
}

/// Runs that are kept unless the scan says otherwise.
pub const fn default_run_history_limit() -> i32 {
    50
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_nodes_is_rounded_up_and_never_none() {
        let share = |text: &str, total| NodeLimit::Share(text.to_owned()).of(total);
        assert_eq!(
            [share("25%", 10), share("1%", 3), share("100%", 7), share("50%", 0)],
            [Some(3), Some(1), Some(7), Some(1)]
        );
        assert_eq!([share("0%", 10), share("101%", 10), share("25", 10), share("-1%", 10), share("", 1)], [None; 5]);
        assert_eq!(
            [NodeLimit::Count(4).of(1), NodeLimit::Count(0).of(9), NodeLimit::Count(-1).of(9)],
            [Some(4), None, None]
        );
    }
}
