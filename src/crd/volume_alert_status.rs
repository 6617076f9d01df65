//! The status of a `VolumeAlert`: a summary that always fits; the rows are in PostgreSQL.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many subjects a status lists.
pub const LISTED: usize = 20;

/// What is known of an alert.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeAlertStatus {
    /// `metadata.generation` this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for columns; programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<AlertState>,
    /// Since when it has this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_since: Option<Time>,
    /// The name of the rule that is judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub rule: Option<String>,
    /// Ready, Stalled, Firing, DataAvailable, NotificationsDelivered, DatabaseReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"], "maxItems" = 16))]
    pub conditions: Vec<Condition>,
    /// Subjects by what was found of them. Absent before the first evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<AlertCounts>,
    /// What fires, worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "maxItems" = 20))]
    pub firing: Vec<FiringSubject>,
    /// How many subjects `firing` leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firing_omitted: Option<i64>,
    /// The newest ended run whose results were judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_evaluated_run: Option<EvaluatedRun>,
    /// When a receiver was last told something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_notification_time: Option<Time>,
    /// Why a receiver that has not been told yet could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_delivery_error: Option<String>,
    /// The worst subject, for columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub worst: Option<String>,
}

/// One word for an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AlertState {
    /// Nothing is above the limit.
    Inactive,
    /// Something is above the limit, for less than `forSeconds`.
    Pending,
    /// Something fires.
    Firing,
    /// No subject has a figure.
    NoData,
    /// Something fires or is pending, and nothing is told: `silenceUntil`.
    Silenced,
    /// Nothing is judged: `suspend`.
    Suspended,
}

/// Subjects by what was found of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct AlertCounts {
    /// Subjects that were looked at.
    pub evaluated: i64,
    /// Those that fire.
    pub firing: i64,
    /// Those that are above the limit, for less than `forSeconds`.
    pub pending: i64,
    /// Those without a figure.
    pub no_data: i64,
    /// Those above the limit that are not followed, because so many others are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_followed: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &i64) -> bool {
    *count == 0
}

/// A subject that fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct FiringSubject {
    /// The node; absent for the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// The volume's name in Docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub volume: Option<String>,
    /// The last figure in the rule's unit, rounded down; absent when it fires for want of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// Since when it fires.
    pub since: Time,
    /// For people.
    #[schemars(length(max = 256))]
    pub message: String,
}

/// The run whose results were judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct EvaluatedRun {
    /// Its id.
    pub id: i64,
    /// When it ended.
    pub time: Time,
}
