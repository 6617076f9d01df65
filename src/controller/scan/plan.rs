//! What to do next about one VolumeScan: a pure function of what was observed.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use uuid::Uuid;

use super::agenda::{Agenda, agenda};
use super::observe::{ActiveRun, Observed, OpenJob, Runs};
use super::status::missing_run;
use crate::controller::dispatch::{Problem, Standing};
use crate::controller::fleet::{Fleet, Node};
use crate::crd::conditions::reason;
use crate::crd::{ConcurrencyPolicy, VolumeScan};
use crate::domain::run::{CancelReason, Ending, JobReason, RunKey};
use crate::domain::selector::VolumeMatcher;

/// How long the leader must have been in unbroken contact with the database before it judges leases and deadlines: agents renew every
/// 10 s, so whoever is alive has by then renewed a lease that only looked abandoned because the database was away.
pub const SETTLED_AFTER: Duration = Duration::from_secs(45);

/// Steps of one pass, in the order in which they are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Why the spec cannot be used; nothing else is planned then.
    pub invalid: Option<Invalid>,
    /// A run to make.
    pub start: Option<Start>,
    /// Steps on the jobs of the active run.
    pub steps: Vec<Step>,
    /// The active run is over; this goes before any `start`.
    pub finish: Option<Finish>,
    /// The scan has outlived `ttlSecondsAfterFinished`.
    pub delete: bool,
}

/// A spec that the schema lets pass but nothing can be done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Condition reason.
    pub reason: &'static str,
    /// Names the field.
    pub message: String,
}

/// A run to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Makes it unique within the scan.
    pub key: RunKey,
    /// Names and uids of the nodes it is about, by name.
    pub nodes: Vec<(String, String)>,
}

/// A step on one job; the last two are a compare-and-set on the ticket seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Offer the ticket to the node's agent.
    Offer {
        /// The job.
        job: OpenJob,
        /// The pod the offer is meant for.
        pod_uid: String,
        /// Where that pod is.
        address: IpAddr,
    },
    /// There is no agent to offer it to.
    Miss {
        /// The job's ticket.
        ticket: Uuid,
        /// What is missing.
        problem: Problem,
    },
    /// Give the job a new ticket: its holder is gone.
    Retire {
        /// The job.
        job: i64,
        /// Its ticket.
        ticket: Uuid,
        /// Attempts that a node of this run has.
        max_attempts: i32,
    },
    /// End the job without a result.
    End {
        /// The job.
        job: i64,
        /// Its ticket.
        ticket: Uuid,
        /// How.
        ending: Ending,
        /// Why.
        problem: Problem,
    },
}

/// Why a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// All its jobs have ended.
    AllEnded,
    /// Its deadline has passed: what is still open ends with it.
    Deadline,
    /// It is not wanted any more: what is still open ends with it.
    Cancel(CancelReason),
}

/// Decides. `observed.runs` is absent while the database cannot be used: then there is nothing to plan, only to tell.
pub fn plan(scan: &VolumeScan, observed: &Observed) -> Plan {
    let accepted = accept(scan, observed);
    let Some(runs) = &observed.runs else { return Plan { invalid: accepted.err(), ..Plan::default() } };
    // A spec that became unusable must not leave the run under way alone.
    let conducted = runs.active.as_ref().map_or_else(Plan::default, |active| conduct(active, observed));
    let wanted = match accepted {
        Ok(agenda) => wanted(scan, runs, &agenda),
        Err(invalid) => {
            let named = runs.active.as_ref().is_some_and(|active| scan.spec.cancel_run_id == Some(active.run.id));
            let finish = Some(Finish::Cancel(CancelReason::CancelRequested));
            let conducted = if named { Plan { finish, ..Plan::default() } } else { conducted };
            return Plan { invalid: Some(invalid), ..conducted };
        }
    };
    match (&runs.active, wanted) {
        (Some(active), wanted) if scan.spec.cancel_run_id == Some(active.run.id) => {
            let start = wanted.map(|key| start(scan, &observed.fleet, key));
            Plan { finish: Some(Finish::Cancel(CancelReason::CancelRequested)), start, ..Plan::default() }
        }
        (Some(_), Some(key)) if scan.spec.concurrency_policy == ConcurrencyPolicy::Replace => {
            let start = Some(start(scan, &observed.fleet, key));
            Plan { finish: Some(Finish::Cancel(CancelReason::Replaced)), start, ..Plan::default() }
        }
        (Some(_), _) => conducted,
        (None, Some(key)) => Plan { start: Some(start(scan, &observed.fleet, key)), ..Plan::default() },
        (None, None) => Plan { delete: expiry(scan, runs).is_some_and(|at| at <= observed.now), ..Plan::default() },
    }
}

/// What of the spec the schema could not check.
fn accept(scan: &VolumeScan, observed: &Observed) -> Result<Agenda, Invalid> {
    let invalid = |reason, message| Invalid { reason, message };
    if let Some(selector) = &scan.spec.volume_selector {
        VolumeMatcher::new(selector).map_err(|error| invalid(reason::INVALID_SELECTOR, error.to_string()))?;
    }
    let limit = &scan.spec.limits.max_parallel_nodes;
    if limit.of(1).is_none() {
        let message = format!("spec.limits.maxParallelNodes: {limit} is neither a number of nodes nor a share of them");
        return Err(invalid(reason::INVALID_SPEC, message));
    }
    agenda(scan, observed).map_err(|error| invalid(reason::INVALID_SCHEDULE, error.to_string()))
}

/// The run that ought to be under way, or next. What was asked for goes before what is scheduled: it is never skipped.
fn wanted(scan: &VolumeScan, runs: &Runs, agenda: &Agenda) -> Option<RunKey> {
    if scan.spec.suspend {
        return None;
    }
    asked_key(scan).filter(|_| !is_handled(scan, runs)).or_else(|| agenda.due.map(RunKey::Scheduled))
}

/// Whether what was asked for beside any schedule was done, or is under way. Its run may be past `runHistoryLimit` by now: then the status
/// remembers it, unless the database lost it with the runs after it.
pub(super) fn is_handled(scan: &VolumeScan, runs: &Runs) -> bool {
    let status = scan.status.clone().unwrap_or_default();
    let others = status.last_run.is_some() || runs.finished.iter().any(|run| run.result.is_some());
    let was_there = scan.spec.schedule.is_some() || (others && missing_run(&status, runs).is_none());
    runs.asked.is_some() || (was_there && status.last_handled_trigger == scan.spec.trigger)
}

/// The run this spec asks for beside any schedule.
pub fn asked_key(scan: &VolumeScan) -> Option<RunKey> {
    match (&scan.spec.trigger, &scan.spec.schedule) {
        (Some(trigger), _) => Some(RunKey::Trigger(trigger.clone())),
        (None, None) => Some(RunKey::Once),
        (None, Some(_)) => None,
    }
}

/// When a scan without schedule is to be deleted; `None` while it has work, and without `ttlSecondsAfterFinished`.
pub fn expiry(scan: &VolumeScan, runs: &Runs) -> Option<Timestamp> {
    let ttl = scan.spec.ttl_seconds_after_finished.filter(|_| scan.spec.schedule.is_none())?;
    if runs.active.is_some() || !is_handled(scan, runs) {
        return None;
    }
    let ended = runs.finished.first()?.completed_at?.timestamp();
    Timestamp::from_second(ended.saturating_add(ttl.into())).ok()
}

fn start(scan: &VolumeScan, fleet: &Fleet, key: RunKey) -> Start {
    let selected = fleet.select(scan.spec.node_selector.as_ref());
    Start { key, nodes: selected.map(|(name, node)| (name.clone(), node.uid.clone())).collect() }
}

fn conduct(active: &ActiveRun, observed: &Observed) -> Plan {
    let settled = observed.database.contact_for >= SETTLED_AFTER;
    if active.jobs.is_empty() {
        return Plan { finish: Some(Finish::AllEnded), ..Plan::default() };
    }
    if active.overdue && settled {
        return Plan { finish: Some(Finish::Deadline), ..Plan::default() };
    }
    let total = usize::try_from(active.run.nodes.total).unwrap_or(0);
    let work = &active.run.work;
    let busy = active.jobs.iter().filter(|job| job.running || active.standing(job).in_flight).count();
    // The snapshot was accepted when the run began.
    let own_slots = work.limits.max_parallel_nodes.of(total).unwrap_or(1).saturating_sub(busy);
    let slots = own_slots.min(active.free_slots);
    Plan { steps: dispatch(active, observed, settled, slots), ..Plan::default() }
}

/// A step for each job that needs one; at most `slots` of them are offers.
fn dispatch(active: &ActiveRun, observed: &Observed, settled: bool, mut slots: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut waiting: Vec<(&OpenJob, &Node, Standing)> = Vec::new();
    for job in &active.jobs {
        let standing = active.standing(job);
        let same_node = observed.fleet.nodes.get(&job.node).filter(|node| node.uid == job.node_uid);
        match same_node {
            None => steps.push(end(
                job,
                JobReason::NodeGone,
                format!("node {} is no longer the machine the run began with", job.node),
            )),
            Some(_) if job.running => steps.extend(watch_over(job, active.run.work.max_attempts, settled)),
            Some(node) => match standing {
                Standing { in_flight: true, .. } => {}
                Standing { overdue: true, problem: Some(problem), .. } => {
                    steps.push(Step::End { job: job.id, ticket: job.ticket, ending: Ending::Skipped, problem });
                }
                Standing { backing_off: true, .. } => {}
                standing if job.due => waiting.push((job, node, standing)),
                _ => {}
            },
        }
    }
    // Who was offered least often goes first, so that one node that cannot be reached never holds up the others.
    waiting.sort_by_key(|(job, _, standing)| (standing.failures, job.id));
    for (job, node, _) in waiting {
        let step = deliver(job, node);
        if matches!(step, Step::Offer { .. }) {
            if slots == 0 {
                continue;
            }
            slots -= 1;
        }
        steps.push(step);
    }
    steps
}

fn watch_over(job: &OpenJob, max_attempts: i32, settled: bool) -> Option<Step> {
    match job {
        _ if !settled => None,
        job if job.node_overdue => Some(end(
            job,
            JobReason::NodeTimeout,
            "nodeTimeoutSeconds passed and the agent did not end the job".to_owned(),
        )),
        job if job.lease_expired => Some(Step::Retire { job: job.id, ticket: job.ticket, max_attempts }),
        _ => None,
    }
}

fn end(job: &OpenJob, reason: JobReason, message: String) -> Step {
    let ending = if job.running { Ending::Failed } else { Ending::Skipped };
    Step::End { job: job.id, ticket: job.ticket, ending, problem: Problem { reason, message } }
}

fn deliver(job: &OpenJob, node: &Node) -> Step {
    let miss = |reason, message| Step::Miss { ticket: job.ticket, problem: Problem { reason, message } };
    match &node.agent {
        None => miss(JobReason::AgentMissing, format!("no agent pod runs on node {}", job.node)),
        Some(agent) => match agent.address {
            None => miss(JobReason::AgentUnreachable, format!("the agent pod of node {} has no address", job.node)),
            Some(address) => Step::Offer { job: job.clone(), pod_uid: agent.pod_uid.clone(), address },
        },
    }
}
