//! `VolumeAlert`: tells people when the volumes, the scans or the database are not as they should be.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::volume_alert_status::VolumeAlertStatus;
use crate::domain::alert::notification::Receiver;
use crate::domain::alert::rule::RuleSpec;
use crate::domain::alert::{NoData, Scope, Severity};
use crate::domain::selector::{LabelSelector, VolumeSelector};

/// Holds one rule against the latest results of the selected scans, and tells its receivers once when it begins to fire and once when that
/// is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "volumeviz.io",
    version = "v1alpha1",
    kind = "VolumeAlert",
    plural = "volumealerts",
    shortname = "valert",
    category = "volumeviz",
    status = "VolumeAlertStatus",
    derive = "PartialEq",
    doc = "VolumeAlert watches what VolumeScans found, and tells people in time, once, and never from missing data.",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Severity", type_ = "string", json_path = ".spec.severity"),
    printcolumn(name = "Rule", type_ = "string", json_path = ".status.rule"),
    printcolumn(name = "Firing", type_ = "integer", json_path = ".status.counts.firing"),
    printcolumn(name = "No-Data", type_ = "integer", json_path = ".status.counts.noData"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.stateSince"),
    printcolumn(name = "Worst", type_ = "string", json_path = ".status.worst"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Delivered",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"NotificationsDelivered\")].status",
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
pub struct VolumeAlertSpec {
    /// What each subject is: a volume, a node (its volumes summed up), or the cluster. Which of them a rule can have is said with the rule.
    pub scope: Scope,
    /// What is asked of each subject: exactly one rule.
    pub rule: RuleSpec,
    /// The VolumeScans whose results count. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan_selector: Option<ScanSelector>,
    /// The volumes that are subjects, or that are summed up. Absent: all that the scans selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_selector: Option<VolumeSelector>,
    /// Volumes that take less disk space than this many bytes do not count.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub min_bytes: i64,
    /// For how many seconds a subject must be above the limit before it fires.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub for_seconds: i32,
    /// What fires ends at this figure or below it, in the rule's unit (hysteresis); at most the limit. Absent: at 95 % of the limit, and at the
    /// limit for unusedLongerThan, scanOlderThan and failedNodesAbove. Not for fullWithin, which ends at 105 % of its limit, nor for databaseDown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub clear_below: Option<i64>,
    /// What a subject without a figure means: `Keep` it as it was and say so, `Alert`, or `Ignore` that there is none. It is never taken for
    /// zero and never ends what fires.
    #[serde(default)]
    pub no_data: NoData,
    /// How much it matters.
    #[serde(default)]
    pub severity: Severity,
    /// Judges nothing; what fires is over.
    #[serde(default)]
    pub suspend: bool,
    /// Until then nothing is told; what still fires then is told then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_until: Option<Time>,
    /// The receivers, each told by itself. Absent: a Kubernetes Event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub notify: Option<Vec<Receiver>>,
}

/// Which VolumeScans count; every part that is present must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, extend("x-kubernetes-validations" = [{
    "rule": "has(self.names) || has(self.labels)",
    "message": "must have names or labels, e.g. {names: [nightly]}"
}]))]
pub struct ScanSelector {
    /// Their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub names: Option<Vec<ScanName>>,
    /// Selector over their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelSelector>,
}

/// The name of a VolumeScan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct ScanName(#[schemars(length(min = 1, max = 63))] pub String);

impl VolumeAlertSpec {
    /// Who is told.
    pub fn receivers(&self) -> Vec<Receiver> {
        self.notify.clone().unwrap_or_else(|| vec![Receiver::event()])
    }
}

/// What the schema cannot say field by field.
fn rules() -> Value {
    let only = |rule: &str, scopes: &[&str]| {
        json!({
            "rule": format!("!has(self.rule.{rule}) || self.scope in {}", json!(scopes)), "fieldPath": ".scope",
            "message": format!("{rule} needs scope {}", scopes.join(" or ")),
        })
    };
    let of_volumes =
        "!(has(self.rule.scanOlderThan) || has(self.rule.failedNodesAbove) || has(self.rule.databaseDown))";
    let clear_below = |rule: &str, field: &str| {
        json!({
            "rule": format!("!has(self.rule.{rule}) || !has(self.clearBelow) || self.clearBelow <= self.rule.{rule}.{field}"),
            "fieldPath": ".clearBelow", "message": format!("clearBelow must not be above rule.{rule}.{field}"),
        })
    };
    json!([
        only("percentOfCapacityAbove", &["Volume"]),
        only("fullWithin", &["Volume"]),
        only("unusedLongerThan", &["Volume"]),
        only("candidateBytesAbove", &["Node", "Cluster"]),
        only("scanOlderThan", &["Node", "Cluster"]),
        only("failedNodesAbove", &["Cluster"]),
        only("databaseDown", &["Cluster"]),
        {"rule": format!("{of_volumes} || !has(self.volumeSelector)"), "fieldPath": ".volumeSelector",
         "message": "volumeSelector is for rules about volumes"},
        {"rule": format!("{of_volumes} || self.minBytes == 0"), "fieldPath": ".minBytes", "message": "minBytes is for rules about volumes"},
        {"rule": "!has(self.rule.databaseDown) || !has(self.scanSelector)", "fieldPath": ".scanSelector",
         "message": "databaseDown asks no scan"},
        {"rule": "!has(self.rule.fullWithin) || !has(self.clearBelow)", "fieldPath": ".clearBelow",
         "message": "clearBelow is not for fullWithin, whose lower figures are the bad ones"},
        {"rule": "!has(self.rule.databaseDown) || !has(self.clearBelow)", "fieldPath": ".clearBelow",
         "message": "clearBelow is not for databaseDown, which has no figure"},
        clear_below("sizeAbove", "bytes"),
        clear_below("percentOfCapacityAbove", "percent"),
        clear_below("growthAbove", "bytesPerDay"),
        clear_below("filesAbove", "files"),
        clear_below("unusedLongerThan", "days"),
        clear_below("candidateBytesAbove", "bytes"),
        clear_below("scanOlderThan", "seconds"),
        clear_below("failedNodesAbove", "nodes"),
    ])
}
