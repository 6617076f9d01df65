//! What to do next about one VolumeScan: a pure function of what was observed.

use std::net::IpAddr;
use std::time::Duration;

use uuid::Uuid;

use super::observe::{ActiveRun, Observed, OpenJob, Runs};
use crate::controller::dispatch::{Problem, Standing};
use crate::controller::fleet::{Fleet, Node};
use crate::crd::VolumeScan;
use crate::crd::conditions::reason;
use crate::domain::run::{Ending, JobReason, RunKey};
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
    /// The active run is over.
    pub finish: Option<Finish>,
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
}

/// Decides. `observed.runs` is absent while the database cannot be used: then there is nothing to plan, only to tell.
pub fn plan(scan: &VolumeScan, observed: &Observed) -> Plan {
    if let Some(selector) = &scan.spec.volume_selector
        && let Err(invalid) = VolumeMatcher::new(selector)
    {
        let invalid = Invalid { reason: reason::INVALID_SELECTOR, message: invalid.to_string() };
        return Plan { invalid: Some(invalid), ..Plan::default() };
    }
    match &observed.runs {
        None | Some(Runs { active: None, wanted: Some(_), .. }) => Plan::default(),
        Some(Runs { active: Some(active), .. }) => conduct(active, observed),
        Some(Runs { active: None, wanted: None, .. }) => {
            Plan { start: Some(start(scan, &observed.fleet)), ..Plan::default() }
        }
    }
}

/// The run this spec asks for.
pub fn wanted_key(scan: &VolumeScan) -> RunKey {
    scan.spec.trigger.clone().map_or(RunKey::Once, RunKey::Trigger)
}

fn start(scan: &VolumeScan, fleet: &Fleet) -> Start {
    let selected = fleet.select(scan.spec.node_selector.as_ref());
    Start { key: wanted_key(scan), nodes: selected.map(|(name, node)| (name.clone(), node.uid.clone())).collect() }
}

fn conduct(active: &ActiveRun, observed: &Observed) -> Plan {
    let settled = observed.database.contact_for >= SETTLED_AFTER;
    if active.jobs.is_empty() {
        return Plan { finish: Some(Finish::AllEnded), ..Plan::default() };
    }
    if active.overdue && settled {
        return Plan { finish: Some(Finish::Deadline), ..Plan::default() };
    }
    let mut steps = Vec::new();
    let mut waiting: Vec<(&OpenJob, &Node, Standing)> = Vec::new();
    let mut slots = active.max_parallel_nodes;
    for job in &active.jobs {
        let standing = active.standings.get(&job.ticket).cloned().unwrap_or_default();
        let same_node = observed.fleet.nodes.get(&job.node).filter(|node| node.uid == job.node_uid);
        if job.running || standing.in_flight {
            slots = slots.saturating_sub(1);
        }
        match same_node {
            None => steps.push(end(
                job,
                JobReason::NodeGone,
                format!("node {} is no longer the machine the run began with", job.node),
            )),
            Some(_) if job.running => steps.extend(watch_over(job, settled)),
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
    Plan { steps, ..Plan::default() }
}

fn watch_over(job: &OpenJob, settled: bool) -> Option<Step> {
    match job {
        _ if !settled => None,
        job if job.node_overdue => Some(end(
            job,
            JobReason::NodeTimeout,
            "nodeTimeoutSeconds passed and the agent did not end the job".to_owned(),
        )),
        job if job.lease_expired => Some(Step::Retire { job: job.id, ticket: job.ticket }),
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
