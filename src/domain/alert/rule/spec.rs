//! A rule as the spec of a VolumeAlert has it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{NAMES, Rule};

/// Exactly one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = [exactly_one()]))]
pub struct RuleSpec {
    /// Every scope: disk space of a volume, or of all volumes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_above: Option<Bytes>,
    /// Scope Volume: disk space of a volume in percent of the file system it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent_of_capacity_above: Option<Percent>,
    /// Every scope: growth by at least five daily sizes. Volumes whose growth is not known yet count for nothing in a node's or the cluster's;
    /// the cluster has no figure while a node has no results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_above: Option<BytesPerDay>,
    /// Scope Volume: at its present growth a volume fills the file system it is on before so many days have passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_within: Option<DaysLeft>,
    /// Every scope: files of a volume, or of all volumes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files_above: Option<Files>,
    /// Scope Volume: no running container has mounted a volume, by our own observations, for longer than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused_longer_than: Option<Days>,
    /// Scope Node or Cluster: disk space of all candidates for removal that no container holds (see a VolumeScan's `unusedAfterDays`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate_bytes_above: Option<Bytes>,
    /// Scope Node: the age of its newest results. Scope Cluster: the time since a run last ended with results, or since the oldest selected scan was made,
    /// when none ever did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan_older_than: Option<Seconds>,
    /// Scope Cluster: nodes without a result in the last run of a scan; of several scans the one with most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_nodes_above: Option<Nodes>,
    /// Scope Cluster: the controller cannot use the database; works without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_down: Option<DatabaseDown>,
}

macro_rules! limit {
    ($(#[$doc:meta])* $name:ident, $(#[$limit:meta])* $field:ident: $type:ty, $min:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        #[schemars(inline)]
        pub struct $name {
            $(#[$limit])*
            #[schemars(range(min = $min, max = $max))]
            pub $field: $type,
        }
    };
}

limit!(
    /// A limit in bytes.
    Bytes,
    /// The limit in bytes, a whole number: 10737418240 is 10 GiB. What equals it is not above it.
    bytes: i64, 0, 1_000_000_000_000_000_000_i64
);
limit!(
    /// A limit in percent.
    Percent,
    /// The limit in percent; what equals it is not above it.
    percent: i32, 0, 100
);
limit!(
    /// A limit in bytes a day.
    BytesPerDay,
    /// The limit in bytes a day, a whole number: 1073741824 is 1 GiB. What equals it is not above it.
    bytes_per_day: i64, 1, 1_000_000_000_000_000_000_i64
);
limit!(
    /// A limit in days.
    Days,
    /// The limit in days; what equals it is not above it.
    days: i32, 1, 3650
);
limit!(
    /// A limit in days that are left.
    DaysLeft,
    /// The limit in days; fires below it.
    days: i32, 1, 3650
);
limit!(
    /// A limit in files.
    Files,
    /// The limit in files; what equals it is not above it.
    files: i64, 0, 1_000_000_000_000_000_000_i64
);
limit!(
    /// A limit in seconds.
    Seconds,
    /// The limit in seconds; what equals it is not above it.
    seconds: i32, 60, 315_360_000
);
limit!(
    /// A limit in nodes.
    Nodes,
    /// The limit in nodes; what equals it is not above it.
    nodes: i32, 0, 100_000
);

/// Has nothing to set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct DatabaseDown {}

/// Not exactly one rule is given; the schema lets that not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.rule: must have exactly one rule, has {0}")]
pub struct NotOneRule(usize);

impl RuleSpec {
    /// The one rule.
    pub fn rule(&self) -> Result<Rule, NotOneRule> {
        let Self {
            size_above,
            percent_of_capacity_above,
            growth_above,
            full_within,
            files_above,
            unused_longer_than,
            candidate_bytes_above,
            scan_older_than,
            failed_nodes_above,
            database_down,
        } = *self;
        let given = [
            size_above.map(|Bytes { bytes }| Rule::SizeAbove { bytes }),
            percent_of_capacity_above.map(|Percent { percent }| Rule::PercentOfCapacityAbove { percent }),
            growth_above.map(|BytesPerDay { bytes_per_day }| Rule::GrowthAbove { bytes_per_day }),
            full_within.map(|DaysLeft { days }| Rule::FullWithin { days }),
            files_above.map(|Files { files }| Rule::FilesAbove { files }),
            unused_longer_than.map(|Days { days }| Rule::UnusedLongerThan { days }),
            candidate_bytes_above.map(|Bytes { bytes }| Rule::CandidateBytesAbove { bytes }),
            scan_older_than.map(|Seconds { seconds }| Rule::ScanOlderThan { seconds }),
            failed_nodes_above.map(|Nodes { nodes }| Rule::FailedNodesAbove { nodes }),
            database_down.map(|DatabaseDown {}| Rule::DatabaseDown),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.count()) {
            (Some(rule), 0) => Ok(rule),
            (first, more) => Err(NotOneRule(more + usize::from(first.is_some()))),
        }
    }
}

fn exactly_one() -> Value {
    let given = NAMES.map(|name| format!("has(self.{name})")).join(", ");
    json!({"rule": format!("[{given}].exists_one(given, given)"), "message": format!("must have exactly one of {}", NAMES.join(", "))})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::rule::unit;

    fn spec(json: Value) -> RuleSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn exactly_one_rule_is_a_rule() {
        assert_eq!(spec(json!({"sizeAbove": {"bytes": 5}})).rule(), Ok(Rule::SizeAbove { bytes: 5 }));
        assert_eq!(spec(json!({"databaseDown": {}})).rule(), Ok(Rule::DatabaseDown));
        assert_eq!(spec(json!({})).rule(), Err(NotOneRule(0)));
        assert_eq!(spec(json!({"databaseDown": {}, "filesAbove": {"files": 1}})).rule(), Err(NotOneRule(2)));
    }

    #[test]
    fn names_are_those_of_the_spec() {
        for (name, limit) in NAMES.into_iter().zip([
            json!({"bytes": 1}),
            json!({"percent": 1}),
            json!({"bytesPerDay": 1}),
            json!({"days": 1}),
            json!({"files": 1}),
            json!({"days": 1}),
            json!({"bytes": 1}),
            json!({"seconds": 60}),
            json!({"nodes": 1}),
            json!({}),
        ]) {
            let counts = limit.as_object().unwrap().keys().next().cloned().unwrap_or_default();
            assert_eq!(unit(name), counts, "the unit is the field's name");
            assert_eq!(spec(json!({name: limit})).rule().unwrap().name(), name);
        }
    }
}
