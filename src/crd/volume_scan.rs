//! `VolumeScan`: what is in the Docker volumes of the selected nodes.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::volume_scan_status::VolumeScanStatus;
use crate::domain::schedule;
use crate::domain::selector::{LabelSelector, VolumeSelector};
use crate::domain::work::{Limits, Mode, WorkOrder, default_max_attempts, default_run_history_limit};

/// Measures the Docker volumes of the selected nodes once or on a schedule, and again for every new value of `trigger`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
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
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastRun.completionTime"),
    printcolumn(name = "Result", type_ = "string", json_path = ".status.lastRun.result"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.display.nodes"),
    printcolumn(name = "Volumes", type_ = "integer", json_path = ".status.totals.volumes"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.display.size"),
    printcolumn(name = "Growth/Day", type_ = "string", json_path = ".status.display.growth"),
    printcolumn(name = "DB", type_ = "string", json_path = ".status.conditions[?(@.type==\"DatabaseReady\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime", priority = 1),
    printcolumn(name = "Removable", type_ = "string", json_path = ".status.display.removable", priority = 1),
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
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct VolumeScanSpec {
    /// When to measure: five cron fields (minute, hour, day of month, month, day of week). Absent: once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 128), extend("x-kubernetes-validations" = schedule_rules()))]
    pub schedule: Option<String>,
    /// IANA time zone of `schedule`, such as Europe/Berlin. Absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// Starts no new runs; a run that is under way finishes. Times that pass meanwhile are not made up for.
    #[serde(default)]
    pub suspend: bool,
    /// An opaque token: a new value starts a run, beside any schedule. It waits for a run that is under way, or replaces it; a value used
    /// before is acknowledged without a run. `status.lastHandledTrigger` repeats the last value that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub trigger: Option<String>,
    /// Cancels the run under way, when this is its id (`status.activeRun.id`).
    #[serde(default, rename = "cancelRunID", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub cancel_run_id: Option<i64>,
    /// What happens to a run that is due while another is under way: `Forbid` skips it and counts it (a trigger waits instead), `Replace`
    /// cancels the other.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// How many seconds late a scheduled run may start, when it could not start in time. Of several such runs only the last is made up for.
    #[serde(default = "default_starting_deadline_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub starting_deadline_seconds: i32,
    /// Nodes to measure. Absent: every Linux node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Volumes to measure and count. Absent: all. The inventory of volumes and their users is always of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_selector: Option<VolumeSelector>,
    /// How volumes are measured.
    #[serde(default)]
    pub measurement: Measurement,
    /// What a run may cost, and how long it may take.
    #[serde(default)]
    pub limits: Limits,
    /// How often one node may be tried in a run.
    #[serde(default = "default_max_attempts")]
    #[schemars(range(min = 1, max = 5))]
    pub max_attempts: i32,
    /// Days without a running container after which a volume is told as a candidate for removal. Nothing is ever removed.
    #[serde(default = "default_unused_after_days")]
    #[schemars(range(min = 1, max = 3650))]
    pub unused_after_days: i32,
    /// Runs that are kept in the database.
    #[serde(default = "default_run_history_limit")]
    #[schemars(range(min = 1, max = 1000))]
    pub run_history_limit: i32,
    /// Seconds after which a scan without schedule is deleted, counted from when its run ended. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,
}

/// What happens to a run that is due while another is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ConcurrencyPolicy {
    /// It is skipped and counted; a trigger waits.
    #[default]
    Forbid,
    /// It cancels the other.
    Replace,
}

/// How volumes are measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Measurement {
    /// `Walk` reads every entry; `Fast` asks the file system where a volume is a whole one, and walks the others; `Inventory` only lists.
    #[serde(default)]
    pub mode: Mode,
    /// How many of each volume's biggest files and directories are kept in the database, at most 20; status has the biggest of all.
    #[serde(default)]
    #[schemars(range(min = 0, max = 20))]
    pub top_entries: i32,
}

impl Default for VolumeScanSpec {
    /// What the API server makes of an empty spec.
    fn default() -> Self {
        Self {
            schedule: None,
            time_zone: None,
            suspend: false,
            trigger: None,
            cancel_run_id: None,
            concurrency_policy: ConcurrencyPolicy::default(),
            starting_deadline_seconds: default_starting_deadline_seconds(),
            node_selector: None,
            volume_selector: None,
            measurement: Measurement::default(),
            limits: Limits::default(),
            max_attempts: default_max_attempts(),
            unused_after_days: default_unused_after_days(),
            run_history_limit: default_run_history_limit(),
            ttl_seconds_after_finished: None,
        }
    }
}

impl VolumeScanSpec {
    /// The snapshot of this spec that a run keeps.
    pub fn work_order(&self) -> WorkOrder {
        WorkOrder {
            mode: self.measurement.mode,
            top_entries: self.measurement.top_entries,
            volume_selector: self.volume_selector.clone().unwrap_or_default(),
            limits: self.limits.clone(),
            max_attempts: self.max_attempts,
            run_history_limit: self.run_history_limit,
        }
    }
}

const fn default_starting_deadline_seconds() -> i32 {
    300
}

const fn default_unused_after_days() -> i32 {
    30
}

/// By itself, so that a schedule that was let in under another rule keeps nobody from changing other fields.
fn schedule_rules() -> Value {
    json!([{
        "rule": format!("self.matches(r'{}')", schedule::pattern()),
        "message": format!("must be five cron fields: {}", schedule::FIELDS),
    }])
}

/// What the schema cannot say field by field: a scan with a schedule may be edited, each run keeps what it began with; one without is one
/// measurement, and stays the one that was asked for.
fn rules() -> Value {
    let fixed = |field: &str| {
        json!({
            "rule": format!(
                "has(self.schedule) || (has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field}))"
            ),
            "message": format!(
                "{field} of a scan without schedule cannot be changed; create another scan, or set trigger to run this one again"
            ),
        })
    };
    let fixed_fields = [
        "concurrencyPolicy",
        "startingDeadlineSeconds",
        "nodeSelector",
        "volumeSelector",
        "measurement",
        "limits",
        "maxAttempts",
        "unusedAfterDays",
        "runHistoryLimit",
    ];
    let always = [
        json!({
            "rule": "has(self.schedule) == has(oldSelf.schedule)",
            "message": "schedule cannot be added to a scan or taken from it; create another scan",
        }),
        json!({
            "rule": "has(self.schedule) || !has(self.timeZone)", "fieldPath": ".timeZone",
            "message": "timeZone needs a schedule",
        }),
        json!({
            "rule": "!has(self.schedule) || !has(self.ttlSecondsAfterFinished)", "fieldPath": ".ttlSecondsAfterFinished",
            "message": "ttlSecondsAfterFinished is for scans without schedule",
        }),
    ];
    always.into_iter().chain(fixed_fields.map(fixed)).collect()
}
