//! What a VolumeAlert says of its subjects: pure rules, without I/O or clock.
//!
//! A subject is a volume, a node, or the cluster. [`rule`] has what is asked of it and in which unit, [`judge`] what follows from a figure,
//! [`notification`] what people are told.

pub mod judge;
pub mod notification;
pub mod rule;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What each subject of an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Scope {
    /// Each volume.
    Volume,
    /// Each node, with its volumes summed up.
    Node,
    /// All of them together.
    Cluster,
}

impl Scope {
    /// The name in specs and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volume => "Volume",
            Self::Node => "Node",
            Self::Cluster => "Cluster",
        }
    }
}

/// How much an alert matters to people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look within days.
    #[default]
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// The name in specs and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Critical => "Critical",
        }
    }
}

/// What a subject without a figure means. It is never taken for zero, and never resolves anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum NoData {
    /// It stays what it was, and `DataAvailable` says that figures are missing.
    #[default]
    Keep,
    /// It fires as if it were above the limit.
    Alert,
    /// It stays what it was, and nothing is said.
    Ignore,
}

/// Where an open state stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// Above the limit, for less than `forSeconds`.
    Pending,
    /// People are told.
    Firing,
}

impl Standing {
    /// The name in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Firing => "Firing",
        }
    }
}
