//! The conditions that follow from what was observed.
//!
//! | situation | Ready | Reconciling | Stalled |
//! |---|---|---|---|
//! | invalid spec | False | – | True |
//! | suspended | True `Suspended` | – | – |
//! | database away | False | True | – |
//! | no schedule: ended with figures (the reason tells Succeeded from Partial) | True | – | – |
//! | no schedule: ended without figures | False | – | True |
//! | every agent away | False | True | – |
//! | schedule: accepted, also while a run is under way or after one that failed | True | – | – |
//! | no schedule: run under way, or about to start | False `RunActive`, `RunPending` | True | – |

use super::observe::Observed;
use super::plan::{Invalid, is_handled};
use super::status::{missing_run, suspended};
use crate::crd::conditions::{self as kind, Statement, reason};
use crate::crd::{Agents, FinishedRun, VolumeScan, VolumeScanStatus};
use crate::domain::run::RunResult;

/// How one scan stands, in the order in which it matters.
enum Situation<'a> {
    Invalid(&'a Invalid),
    Suspended,
    DatabaseAway { message: &'a str },
    Ended(&'a FinishedRun),
    AgentsAway,
    Scheduled { active: bool },
    Active,
    Starting,
}

/// Every condition of the scan. `status` is the next status but for its conditions.
pub(super) fn statements(
    scan: &VolumeScan,
    observed: &Observed,
    invalid: Option<&Invalid>,
    status: &VolumeScanStatus,
) -> Vec<Statement> {
    let situation = situation(scan, observed, invalid, status);
    let mut statements = progress(&situation);
    statements.extend(scheduled(scan, invalid));
    statements.extend(outcome(scan, status));
    statements.push(database_ready(observed, status));
    statements.push(agents_ready(scan, observed, status.agents));
    statements
}

fn situation<'a>(
    scan: &VolumeScan,
    observed: &'a Observed,
    invalid: Option<&'a Invalid>,
    status: &'a VolumeScanStatus,
) -> Situation<'a> {
    if let Some(invalid) = invalid {
        return Situation::Invalid(invalid);
    }
    if suspended(scan, status) {
        return Situation::Suspended;
    }
    if let Some(problem) = &observed.database.problem {
        return Situation::DatabaseAway { message: &problem.message };
    }
    let one_shot = scan.spec.schedule.is_none();
    let handled =
        one_shot && observed.runs.as_ref().is_some_and(|runs| runs.active.is_none() && is_handled(scan, runs));
    let active = status.active_run.is_some();
    match &status.last_run {
        Some(run) if handled => Situation::Ended(run),
        _ if all_agents_away(scan, observed) => Situation::AgentsAway,
        _ if !one_shot => Situation::Scheduled { active },
        _ if active => Situation::Active,
        _ => Situation::Starting,
    }
}

fn all_agents_away(scan: &VolumeScan, observed: &Observed) -> bool {
    let mut nodes = observed.fleet.select(scan.spec.node_selector.as_ref()).peekable();
    nodes.peek().is_some() && nodes.all(|(_, node)| node.agent.as_ref().is_none_or(|agent| !agent.ready))
}

fn progress(situation: &Situation<'_>) -> Vec<Statement> {
    let say = |type_, holds: bool, reason: &str, message: &str| Statement {
        type_,
        holds,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    let pair = |type_, reason: &str, message: &str| {
        vec![say(kind::READY, false, reason, message), say(type_, true, reason, message)]
    };
    match situation {
        Situation::Invalid(invalid) => pair(kind::STALLED, invalid.reason, &invalid.message),
        Situation::Suspended => {
            vec![say(kind::READY, true, reason::SUSPENDED, "spec.suspend is true: no new run starts")]
        }
        Situation::DatabaseAway { message } => pair(kind::RECONCILING, reason::DATABASE_NOT_READY, message),
        Situation::AgentsAway => pair(
            kind::RECONCILING,
            reason::AGENTS_NOT_READY,
            "no selected node has a ready agent; see the condition AgentsReady",
        ),
        Situation::Scheduled { active: true } => {
            vec![say(kind::READY, true, reason::RUN_ACTIVE, "nodes are being measured")]
        }
        Situation::Scheduled { active: false } => {
            vec![say(kind::READY, true, reason::WAITING_FOR_SCHEDULE, "the schedule is followed")]
        }
        Situation::Active => pair(kind::RECONCILING, reason::RUN_ACTIVE, "nodes are being measured"),
        Situation::Starting => pair(kind::RECONCILING, reason::RUN_PENDING, "a run is about to start"),
        Situation::Ended(run) if has_figures(run) => vec![say(kind::READY, true, &run.reason, &summary(run))],
        Situation::Ended(run) => pair(kind::STALLED, &run.reason, &summary(run)),
    }
}

fn has_figures(run: &FinishedRun) -> bool {
    matches!(run.result, RunResult::Succeeded | RunResult::Partial)
}

fn summary(run: &FinishedRun) -> String {
    let nodes = run.nodes;
    match run.reason.as_str() {
        "NoMatchingNodes" => "no Linux node matches spec.nodeSelector".to_owned(),
        "NoDockerEngine" => "no selected node has a Docker Engine".to_owned(),
        "CancelRequested" => "spec.cancelRunID cancelled it".to_owned(),
        _ => format!("{} of {} nodes measured in {} s", nodes.succeeded, nodes.total, run.duration_seconds),
    }
}

/// `Scheduled`: whether the schedule is followed, whatever becomes of its runs.
fn scheduled(scan: &VolumeScan, invalid: Option<&Invalid>) -> Option<Statement> {
    let expression = scan.spec.schedule.as_ref()?;
    let (holds, reason, message) = match invalid {
        Some(invalid) => (false, invalid.reason, invalid.message.clone()),
        None if scan.spec.suspend => (false, reason::SUSPENDED, "spec.suspend is true".to_owned()),
        None => {
            let zone = scan.spec.time_zone.as_deref().unwrap_or("UTC");
            (true, reason::WAITING_FOR_SCHEDULE, format!("runs at {expression} ({zone})"))
        }
    };
    Some(Statement { type_: kind::SCHEDULED, holds, reason: reason.to_owned(), message })
}

/// `LastRunSucceeded` and, without a schedule, `Complete` and `Failed`. They tell of the last run, so they stay while the database is away;
/// while the next run is under way the latter two are false.
fn outcome(scan: &VolumeScan, status: &VolumeScanStatus) -> Vec<Statement> {
    let Some(run) = &status.last_run else { return Vec::new() };
    let say =
        |type_, holds: bool, reason: &str| Statement { type_, holds, reason: reason.to_owned(), message: summary(run) };
    let succeeded = say(kind::LAST_RUN_SUCCEEDED, run.result == RunResult::Succeeded, &run.reason);
    if scan.spec.schedule.is_some() {
        return vec![succeeded];
    }
    let (complete, failed) = match (&status.active_run, has_figures(run)) {
        (Some(_), _) => (say(kind::COMPLETE, false, reason::RUN_ACTIVE), say(kind::FAILED, false, reason::RUN_ACTIVE)),
        (None, figures) => (say(kind::COMPLETE, figures, &run.reason), say(kind::FAILED, !figures, &run.reason)),
    };
    vec![complete, failed, succeeded]
}

fn database_ready(observed: &Observed, status: &VolumeScanStatus) -> Statement {
    let missing = observed.runs.as_ref().and_then(|runs| missing_run(status, runs));
    let (holds, reason, message) = match (&observed.database.problem, missing) {
        (Some(problem), _) => (false, problem.reason, problem.message.clone()),
        (None, Some(run)) => {
            let message = format!(
                "the database does not hold run {}: it was restored to an earlier time; its figures stay here until the next run has ended",
                run.id
            );
            (true, reason::RESULTS_MISSING, message)
        }
        (None, None) => (true, reason::CONNECTED, "the database answers and its schema fits".to_owned()),
    };
    Statement { type_: kind::DATABASE_READY, holds, reason: reason.to_owned(), message }
}

fn agents_ready(scan: &VolumeScan, observed: &Observed, agents: Option<Agents>) -> Statement {
    let Agents { desired, ready, .. } = agents.unwrap_or(Agents { desired: 0, ready: 0, without_docker: 0 });
    let say = |holds: bool, reason: &str, message: String| Statement {
        type_: kind::AGENTS_READY,
        holds,
        reason: reason.to_owned(),
        message,
    };
    let mut missing = observed
        .fleet
        .select(scan.spec.node_selector.as_ref())
        .filter(|(_, node)| node.agent.as_ref().is_none_or(|agent| !agent.ready))
        .map(|(name, _)| name.as_str());
    match (desired, &observed.fleet.forbidden) {
        (0, _) => say(false, reason::NO_MATCHING_NODES, "no Linux node matches spec.nodeSelector".to_owned()),
        (_, Some(refusal)) if ready < desired => say(false, reason::PODS_FORBIDDEN, refusal.clone()),
        _ if ready == desired => {
            say(true, reason::ALL_AGENTS_READY, format!("{ready} of {desired} nodes have a ready agent"))
        }
        _ => {
            let reason = if ready == 0 { reason::AGENTS_NOT_READY } else { reason::SOME_AGENTS_NOT_READY };
            let first = missing.next().unwrap_or_default();
            say(
                false,
                reason,
                format!("{ready} of {desired} nodes have a ready agent; without one: {first}{}", more(missing.count())),
            )
        }
    }
}

fn more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" and {count} more") }
}
