//! The status of a `VolumeScan`: a summary that always fits; the rows are in PostgreSQL.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::measurement::{Completeness, VolumeCounts};
use crate::domain::run::{NodeCounts, RunResult};

/// What is known of a scan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeScanStatus {
    /// `metadata.generation` this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for columns; programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Ready, Reconciling, Stalled, Complete, Failed, LastRunSucceeded, DatabaseReady, AgentsReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"], "maxItems" = 16))]
    pub conditions: Vec<Condition>,
    /// The run that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_run: Option<ActiveRun>,
    /// The run that ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<FinishedRun>,
    /// The last runs, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "maxItems" = 5))]
    pub history: Vec<FinishedRun>,
    /// When a run last ended with every node measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// The last value of `spec.trigger` that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub last_handled_trigger: Option<String>,
    /// Sums over the selected volumes of the selected nodes, from each node's latest result of this scan. Absent before the first result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// The biggest volumes, biggest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "maxItems" = 10))]
    pub top_volumes: Vec<TopVolume>,
    /// How many measured volumes `topVolumes` leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_volumes_omitted: Option<i64>,
    /// Nodes without a result in the last run, or in the active one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "maxItems" = 10))]
    pub failed_nodes: Vec<FailedNode>,
    /// How many nodes `failedNodes` leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_nodes_omitted: Option<i64>,
    /// The database as the controller sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// The agents of the selected nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<Agents>,
    /// Texts for columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<Display>,
}

/// One word for a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum State {
    /// No run has started.
    Pending,
    /// A run is under way.
    Running,
    /// The last run ended with figures.
    Complete,
    /// The last run ended without figures, or the spec cannot be used.
    Failed,
}

/// A run under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ActiveRun {
    /// `scan_runs.id`.
    pub id: i64,
    /// When it was planned.
    pub start_time: Time,
    /// When it ends whatever has been measured by then.
    pub deadline: Time,
    /// Its nodes by state.
    pub nodes: NodeCounts,
    /// Volumes final so far, over all nodes.
    pub volumes: i64,
    /// Entries seen so far.
    pub entries: i64,
    /// Bytes allocated to them.
    pub bytes: i64,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FinishedRun {
    /// `scan_runs.id`.
    pub id: i64,
    /// How it ended.
    pub result: RunResult,
    /// Why it ended so.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// When it was planned.
    pub start_time: Time,
    /// When it ended.
    pub completion_time: Time,
    /// Seconds between the two.
    pub duration_seconds: i64,
    /// Its nodes by state.
    pub nodes: NodeCounts,
}

/// Sums over the volumes of a scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Totals {
    /// How many of which kind.
    #[serde(flatten)]
    pub counts: VolumeCounts,
    /// Disk space of all measured volumes in bytes.
    pub allocated_bytes: i64,
    /// Sum of file sizes of all measured volumes in bytes.
    pub apparent_bytes: i64,
    /// Files of all measured volumes.
    pub files: i64,
    /// Nodes whose figures are from an earlier run than the last one.
    pub stale_nodes: i64,
    /// When the oldest of these figures was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_data_time: Option<Time>,
}

/// One big volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct TopVolume {
    /// Its node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Docker's name of it, cut to 255 characters.
    #[schemars(length(max = 255))]
    pub name: String,
    /// Disk space in bytes.
    pub allocated_bytes: i64,
    /// Sum of file sizes in bytes, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparent_bytes: Option<i64>,
    /// Disk space for people.
    #[schemars(length(max = 16))]
    pub size: String,
    /// `Partial`: the figures are a lower bound.
    pub completeness: Completeness,
    /// Running containers that mount it.
    pub used_by_running: i64,
    /// Stopped containers that mount it.
    pub used_by_stopped: i64,
    /// When it was measured.
    pub measured_time: Time,
}

/// A node without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct FailedNode {
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// CamelCase.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// For people.
    #[schemars(length(max = 256))]
    pub message: String,
}

/// The database as the controller sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Database {
    /// Whether the controller can use it.
    pub connected: bool,
    /// `Connected`, or why not.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// PostgreSQL's version when it was last reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub server_version: Option<String>,
    /// Number of the last applied migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// Migrations this version needs that are not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_migrations: Option<i32>,
    /// Since when `reason` holds.
    pub since: Time,
}

/// Agents of the selected nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Agents {
    /// Selected nodes.
    pub desired: i32,
    /// Nodes whose agent is ready.
    pub ready: i32,
    /// Nodes on which the agent found no Docker Engine.
    pub without_docker: i32,
}

/// Texts for columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Display {
    /// Succeeded of all nodes, e.g. `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub nodes: Option<String>,
    /// Disk space of all measured volumes, `≥` before it when some were measured only in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,
}
