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
    /// Ready, Reconciling, Stalled, Scheduled, Complete, Failed, LastRunSucceeded, DatabaseReady, AgentsReady.
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
    /// The schedule that is followed; absent without one, and while the scan is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<FollowedSchedule>,
    /// The last time at which a run was due, whether it started or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When the next run is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// Runs that were due and did not start: another was under way, or the controller or the database was away for too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_runs: Option<i64>,
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
    /// The biggest files of all volumes, biggest first: of each volume the `measurement.topEntries` biggest are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "maxItems" = 10))]
    pub top_files: Vec<TopEntry>,
    /// The directories of all volumes with most in the files directly in them: of each volume the `measurement.topEntries` biggest are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "maxItems" = 10))]
    pub top_directories: Vec<TopEntry>,
    /// How the volumes grow together. Absent until one was measured on five days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// The volumes that grow fastest, fastest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "maxItems" = 10))]
    pub fastest_growing: Vec<GrowingVolume>,
    /// How many growing volumes `fastestGrowing` leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fastest_growing_omitted: Option<i64>,
    /// Volumes that were unused for `unusedAfterDays`: those that nothing holds first, biggest first. Nothing is ever removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "maxItems" = 10))]
    pub candidates: Vec<Candidate>,
    /// How many `candidates` leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates_omitted: Option<i64>,
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
    /// No new run starts.
    Suspended,
    /// The schedule's next time is waited for.
    Waiting,
}

/// The schedule that is followed. A change of it takes effect from `since` on: no earlier time is due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct FollowedSchedule {
    /// `spec.schedule`.
    #[schemars(length(max = 128))]
    pub expression: String,
    /// `spec.timeZone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
    /// Since when.
    pub since: Time,
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
    /// Volumes unused for `unusedAfterDays` that no container holds.
    pub candidates: i64,
    /// Disk space of those in bytes, as far as it is known.
    pub candidate_bytes: i64,
    /// Volumes unused for as long that stopped containers hold: Docker removes them only after these.
    pub candidates_held_by_stopped: i64,
    /// Nodes whose figures are from an earlier run than the last one.
    pub stale_nodes: i64,
    /// When the oldest of these figures was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_data_time: Option<Time>,
}

impl Totals {
    /// Whether the sums say anything: of volumes that were only listed they are 0, which is not their size.
    pub const fn are_known(&self) -> bool {
        self.counts.volumes == 0 || self.counts.measured + self.counts.partial > 0
    }
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

/// One big file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct TopEntry {
    /// The node of its volume.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Docker's name of its volume, cut to 255 characters.
    #[schemars(length(max = 255))]
    pub name: String,
    /// Its path in the volume, control characters escaped; of a long one the end, behind `…`.
    #[schemars(length(max = 256))]
    pub path: String,
    /// Disk space in bytes; of a directory its own and that of the files directly in it.
    pub allocated_bytes: i64,
    /// Disk space for people.
    #[schemars(length(max = 16))]
    pub size: String,
}

/// How the volumes of a scan grow together: the sum of what is known of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Growth {
    /// Bytes a day; negative when they shrink.
    pub bytes_per_day: i64,
    /// Days between the first and the last sample of the volume looked at for longest, rounded.
    pub window_days: i32,
    /// Daily samples of the volume that has most.
    pub samples: i32,
    /// Volumes whose growth is known.
    pub volumes: i64,
}

/// One volume that grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct GrowingVolume {
    /// Its node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Docker's name of it, cut to 255 characters.
    #[schemars(length(max = 255))]
    pub name: String,
    /// Bytes a day.
    pub bytes_per_day: i64,
    /// Disk space in bytes.
    pub allocated_bytes: i64,
    /// Days until its file system is full, if nothing else changes there; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_in_days: Option<i64>,
}

/// One volume that could be removed, and what is known for and against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Candidate {
    /// Its node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Docker's name of it, cut to 255 characters.
    #[schemars(length(max = 255))]
    pub name: String,
    /// The first of our looks that have found no running container on it since. What was before is not known.
    pub unused_since: Time,
    /// Whether a running container was ever seen to mount it.
    pub seen_used: bool,
    /// Stopped containers that hold it.
    pub held_by_stopped: i64,
    /// Who used it last, where known: container, image, compose project or pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub origin: Option<String>,
    /// Disk space in bytes when it was measured last; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<i64>,
    /// Disk space for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub size: Option<String>,
    /// When it was looked at last.
    pub seen_time: Time,
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
    /// Disk space of all measured volumes, `≥` before it when some were measured only in part. Absent when none was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,
    /// Growth a day, e.g. `+1.20 GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub growth: Option<String>,
    /// Candidates for removal and their size, e.g. `3 (1.20 GiB)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 48))]
    pub removable: Option<String>,
}
