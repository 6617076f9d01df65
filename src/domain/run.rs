//! Runs and the jobs they are made of: names of states and reasons, and the rule that ends a run.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// What makes a run unique within its VolumeScan, so that planning it twice makes one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RunKey {
    /// The only run of a VolumeScan without trigger.
    Once,
    /// The run asked for by this value of `spec.trigger`.
    Trigger(String),
    /// The run of the schedule that was due at this time.
    Scheduled(DateTime<Utc>),
}

/// What the keys of scheduled runs begin with.
pub const SCHEDULED_PREFIX: &str = "s:";

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once => f.write_str("once"),
            Self::Trigger(token) => write!(f, "t:{token}"),
            Self::Scheduled(due) => {
                write!(f, "{SCHEDULED_PREFIX}{}", due.to_rfc3339_opts(SecondsFormat::Secs, true))
            }
        }
    }
}

impl RunKey {
    /// When the scheduled run with this key was due; `None` for the key of another run.
    pub fn due_time(key: &str) -> Option<DateTime<Utc>> {
        key.strip_prefix(SCHEDULED_PREFIX)?.parse().ok()
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub enum RunResult {
    /// Every node that has a Docker Engine was measured.
    Succeeded,
    /// Some nodes were measured, others not.
    Partial,
    /// No node was measured.
    Failed,
    /// Stopped on request.
    Cancelled,
}

impl RunResult {
    /// The name stored in the database and shown to users.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Partial => "Partial",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Succeeded, Self::Partial, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|result| result.as_str() == name)
    }
}

/// Why a run was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// `spec.cancelRunID` names it.
    CancelRequested,
    /// Another run took its place (`concurrencyPolicy: Replace`).
    Replaced,
    /// Its VolumeScan is gone.
    VolumeScanDeleted,
}

impl CancelReason {
    /// The name stored in `scan_runs.reason` and shown in status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CancelRequested => "CancelRequested",
            Self::Replaced => "Replaced",
            Self::VolumeScanDeleted => "VolumeScanDeleted",
        }
    }
}

/// How a job ends without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It was claimed, and given up.
    Failed,
    /// It was never claimed.
    Skipped,
}

/// Why a node has no result in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobReason {
    /// The node has no Docker Engine: nothing to measure.
    NoDockerEngine,
    /// The node's Docker Engine does not answer.
    DockerUnreachable,
    /// The engine's data root is not the directory mounted into the agent.
    DataRootMismatch,
    /// No agent pod runs on the node.
    AgentMissing,
    /// The agent pod does not answer.
    AgentUnreachable,
    /// The agent answers, but cannot reach the database.
    AgentCannotReachDatabase,
    /// The agent was busy with another job all the time.
    AgentBusy,
    /// The agent stopped renewing its lease, more often than attempts allow.
    AgentLost,
    /// The agent's version and the database's schema do not fit.
    SchemaMismatch,
    /// The node left the cluster, or came back as another machine.
    NodeGone,
    /// `nodeTimeoutSeconds` passed.
    NodeTimeout,
    /// `runTimeoutSeconds` passed.
    RunTimeout,
    /// The agent could not finish for a reason its message tells.
    AgentError,
}

impl JobReason {
    /// The name stored in `scan_jobs.reason` and shown in status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoDockerEngine => "NoDockerEngine",
            Self::DockerUnreachable => "DockerUnreachable",
            Self::DataRootMismatch => "DataRootMismatch",
            Self::AgentMissing => "AgentMissing",
            Self::AgentUnreachable => "AgentUnreachable",
            Self::AgentCannotReachDatabase => "AgentCannotReachDatabase",
            Self::AgentBusy => "AgentBusy",
            Self::AgentLost => "AgentLost",
            Self::SchemaMismatch => "SchemaMismatch",
            Self::NodeGone => "NodeGone",
            Self::NodeTimeout => "NodeTimeout",
            Self::RunTimeout => "RunTimeout",
            Self::AgentError => "AgentError",
        }
    }
}

/// How many of a run's jobs are in each state.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[schemars(inline)]
pub struct NodeCounts {
    /// Nodes of the run.
    pub total: i32,
    /// Not yet started.
    pub pending: i32,
    /// Being measured now.
    pub running: i32,
    /// Measured.
    pub succeeded: i32,
    /// Given up.
    pub failed: i32,
    /// Never started, or without a Docker Engine.
    pub skipped: i32,
}

/// The result of a run whose jobs have all ended, and the reason to show beside it.
///
/// A node without a Docker Engine has nothing to measure, so it takes nothing from a success; but when no node has one, nothing was
/// measured and the run failed.
pub fn conclude(counts: NodeCounts, without_docker: i32, deadline_passed: bool) -> (RunResult, &'static str) {
    let NodeCounts { total, succeeded, .. } = counts;
    match succeeded {
        0 if total == 0 => (RunResult::Failed, "NoMatchingNodes"),
        0 if without_docker == total => (RunResult::Failed, JobReason::NoDockerEngine.as_str()),
        0 if deadline_passed => (RunResult::Failed, "DeadlineExceeded"),
        0 => (RunResult::Failed, "NoNodeSucceeded"),
        n if n + without_docker >= total => (RunResult::Succeeded, "RunSucceeded"),
        _ if deadline_passed => (RunResult::Partial, "DeadlineExceeded"),
        _ => (RunResult::Partial, "SomeNodesMissing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: i32, succeeded: i32) -> NodeCounts {
        NodeCounts { total, succeeded, ..NodeCounts::default() }
    }

    #[test]
    fn the_key_of_a_scheduled_run_tells_when_it_was_due() {
        let due = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
        let key = RunKey::Scheduled(due).to_string();
        assert_eq!((key.as_str(), RunKey::due_time(&key)), ("s:2026-01-01T00:00:00Z", Some(due)));
        assert_eq!(RunKey::due_time(&RunKey::Trigger("s:2026-01-01T00:00:00Z".to_owned()).to_string()), None);
    }

    #[test]
    fn a_run_is_judged_by_the_nodes_that_have_an_engine() {
        let cases = [
            (counts(3, 3), 0, false, (RunResult::Succeeded, "RunSucceeded")),
            (counts(3, 2), 1, false, (RunResult::Succeeded, "RunSucceeded")),
            (counts(3, 2), 0, false, (RunResult::Partial, "SomeNodesMissing")),
            (counts(3, 2), 0, true, (RunResult::Partial, "DeadlineExceeded")),
            (counts(3, 0), 3, false, (RunResult::Failed, "NoDockerEngine")),
            (counts(3, 0), 2, false, (RunResult::Failed, "NoNodeSucceeded")),
            (counts(3, 0), 0, true, (RunResult::Failed, "DeadlineExceeded")),
            (counts(0, 0), 0, false, (RunResult::Failed, "NoMatchingNodes")),
        ];
        for (counts, without_docker, deadline_passed, expected) in cases {
            assert_eq!(conclude(counts, without_docker, deadline_passed), expected, "{counts:?} {without_docker}");
        }
    }
}
