//! Which nodes and which volumes a scan is about.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A label selector with the meaning of Kubernetes' `metav1.LabelSelector`; all requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.matchLabels) || has(self.matchExpressions)",
    "message": "must have matchLabels or matchExpressions, e.g. {matchLabels: {disk: ssd}}"
}]))]
pub struct LabelSelector {
    /// Labels that must be present with exactly these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32))]
    pub match_labels: Option<BTreeMap<String, LabelValue>>,
    /// Requirements on single labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Option<Vec<LabelRequirement>>,
}

/// The value of a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct LabelValue(#[schemars(length(max = 1024))] pub String);

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
    "message": "values must be given for In and NotIn, and only for these"
}]))]
pub struct LabelRequirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label is compared with `values`.
    pub operator: LabelOperator,
    /// Values for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<LabelValue>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum LabelOperator {
    /// Present with one of the values.
    In,
    /// Absent, or present with none of the values.
    NotIn,
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = self.match_labels.iter().flatten().all(|(key, LabelValue(value))| labels.get(key) == Some(value));
        equal && self.match_expressions.iter().flatten().all(|requirement| requirement.matches(labels))
    }
}

impl LabelRequirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = || value.is_some_and(|value| self.values.iter().any(|LabelValue(wanted)| wanted == value));
        match self.operator {
            LabelOperator::In => listed(),
            LabelOperator::NotIn => !listed(),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

/// Whether Docker or a person named a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum VolumeKind {
    /// Named by a person or a tool.
    Named,
    /// Named by Docker: 64 hexadecimal digits and, since Engine 23, the label `com.docker.volume.anonymous`.
    Anonymous,
}

/// Whether a volume is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum VolumeUsage {
    /// A running container mounts it.
    InUse,
    /// No container mounts it, or stopped ones only.
    Unused,
}

/// Which volumes are measured and counted. Every part that is present must hold; the inventory is always of all volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSelector {
    /// Globs (`*`, `?`, `[a-z]`, `{a,b}`); a volume is selected when one matches its whole name. Empty: every name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub names: Vec<NameGlob>,
    /// Globs of names that are never selected; wins over `names`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub exclude_names: Vec<NameGlob>,
    /// Docker volume drivers, e.g. `local`. Empty: every driver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub drivers: Vec<DriverName>,
    /// Selector over the volume's Docker labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelSelector>,
    /// Named or anonymous volumes. Empty: both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub kinds: Vec<VolumeKind>,
    /// `InUse` (a running container mounts it) or `Unused`, as of when the run lists them. Empty: both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub usage: Vec<VolumeUsage>,
}

/// A glob over volume names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct NameGlob(#[schemars(length(min = 1, max = 255))] pub String);

/// The name of a Docker volume driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct DriverName(#[schemars(length(min = 1, max = 255))] pub String);

/// What the selector looks at in a volume.
#[derive(Debug, Clone, Copy)]
pub struct VolumeFacts<'a> {
    /// Docker's name.
    pub name: &'a str,
    /// Docker's driver.
    pub driver: &'a str,
    /// Docker's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Named or anonymous.
    pub kind: VolumeKind,
    /// Whether a running container mounts it.
    pub usage: VolumeUsage,
}

/// A [`VolumeSelector`] ready to match.
#[derive(Debug, Clone)]
pub struct VolumeMatcher {
    names: Option<globset::GlobSet>,
    exclude_names: globset::GlobSet,
    selector: VolumeSelector,
}

/// A glob that cannot be parsed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("spec.volumeSelector.{field}[{index}]: {glob:?} is not a glob: {problem}")]
pub struct InvalidGlob {
    /// `names` or `excludeNames`.
    pub field: &'static str,
    /// Position in the list, from 0.
    pub index: usize,
    /// The text as given.
    pub glob: String,
    /// What is wrong with it.
    pub problem: String,
}

impl VolumeMatcher {
    /// Parses the selector's globs.
    pub fn new(selector: &VolumeSelector) -> Result<Self, InvalidGlob> {
        let names = match selector.names.as_slice() {
            [] => None,
            names => Some(glob_set("names", names)?),
        };
        Ok(Self {
            names,
            exclude_names: glob_set("excludeNames", &selector.exclude_names)?,
            selector: selector.clone(),
        })
    }

    /// Whether the volume is measured and counted.
    pub fn matches(&self, volume: VolumeFacts<'_>) -> bool {
        let VolumeSelector { names: _, exclude_names: _, drivers, labels, kinds, usage } = &self.selector;
        self.names.as_ref().is_none_or(|names| names.is_match(volume.name))
            && !self.exclude_names.is_match(volume.name)
            && (drivers.is_empty() || drivers.iter().any(|DriverName(driver)| driver == volume.driver))
            && labels.as_ref().is_none_or(|labels| labels.matches(volume.labels))
            && (kinds.is_empty() || kinds.contains(&volume.kind))
            && (usage.is_empty() || usage.contains(&volume.usage))
    }
}

fn glob_set(field: &'static str, globs: &[NameGlob]) -> Result<globset::GlobSet, InvalidGlob> {
    let invalid = |index: usize, glob: &str, error: &globset::Error| InvalidGlob {
        field,
        index,
        glob: glob.to_owned(),
        problem: error.kind().to_string(),
    };
    let mut set = globset::GlobSetBuilder::new();
    for (index, NameGlob(text)) in globs.iter().enumerate() {
        // A volume name is no path: `*` must also match a name with a slash in it.
        let glob = globset::GlobBuilder::new(text)
            .literal_separator(false)
            .build()
            .map_err(|error| invalid(index, text, &error))?;
        set.add(glob);
    }
    set.build().map_err(|error| invalid(0, "", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn requirement(operator: LabelOperator, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(|&value| LabelValue(value.to_owned())).collect();
        LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![LabelRequirement { key: "disk".to_owned(), operator, values }]),
        }
    }

    #[test]
    fn label_requirements_mean_what_kubernetes_says() {
        let (ssd, none) = (labels(&[("disk", "ssd")]), labels(&[]));
        assert!(requirement(LabelOperator::In, &["ssd", "nvme"]).matches(&ssd));
        assert!(!requirement(LabelOperator::In, &["hdd"]).matches(&ssd));
        assert!(!requirement(LabelOperator::In, &["ssd"]).matches(&none));
        assert!(!requirement(LabelOperator::NotIn, &["ssd"]).matches(&ssd));
        assert!(requirement(LabelOperator::NotIn, &["ssd"]).matches(&none), "NotIn selects objects without the label");
        assert!(requirement(LabelOperator::Exists, &[]).matches(&ssd));
        assert!(!requirement(LabelOperator::Exists, &[]).matches(&none));
        assert!(requirement(LabelOperator::DoesNotExist, &[]).matches(&none));
        assert!(!requirement(LabelOperator::DoesNotExist, &[]).matches(&ssd));
    }

    fn facts<'a>(name: &'a str, labels: &'a BTreeMap<String, String>) -> VolumeFacts<'a> {
        VolumeFacts { name, driver: "local", labels, kind: VolumeKind::Named, usage: VolumeUsage::Unused }
    }

    fn selector(json: serde_json::Value) -> VolumeMatcher {
        VolumeMatcher::new(&serde_json::from_value(json).unwrap()).unwrap()
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(selector(serde_json::json!({})).matches(facts("anything/at all", &labels(&[]))));
    }

    #[test]
    fn exclude_names_wins_over_names() {
        let matcher = selector(serde_json::json!({"names": ["db-*"], "excludeNames": ["db-tmp*"]}));
        let none = labels(&[]);
        assert!(matcher.matches(facts("db-main", &none)));
        assert!(matcher.matches(facts("db-a/b", &none)), "a star crosses slashes");
        assert!(!matcher.matches(facts("db-tmp1", &none)));
        assert!(!matcher.matches(facts("web", &none)));
    }

    #[test]
    fn driver_kind_usage_and_labels_must_all_hold() {
        let matcher = selector(serde_json::json!({
            "drivers": ["local"], "kinds": ["Anonymous"], "usage": ["InUse"], "labels": {"matchLabels": {"app": "db"}}
        }));
        let (db, none) = (labels(&[("app", "db")]), labels(&[]));
        let wanted = VolumeFacts { kind: VolumeKind::Anonymous, usage: VolumeUsage::InUse, ..facts("x", &db) };
        assert!(matcher.matches(wanted));
        assert!(!matcher.matches(VolumeFacts { driver: "nfs", ..wanted }));
        assert!(!matcher.matches(VolumeFacts { kind: VolumeKind::Named, ..wanted }));
        assert!(!matcher.matches(VolumeFacts { labels: &none, ..wanted }));
        assert!(!matcher.matches(VolumeFacts { usage: VolumeUsage::Unused, ..wanted }));
    }

    #[test]
    fn a_bad_glob_is_named_by_field_and_position() {
        let bad = VolumeSelector {
            exclude_names: vec![NameGlob("ok".to_owned()), NameGlob("[".to_owned())],
            ..VolumeSelector::default()
        };
        let error = VolumeMatcher::new(&bad).unwrap_err();
        assert_eq!((error.field, error.index, error.glob.as_str()), ("excludeNames", 1, "["));
    }
}
