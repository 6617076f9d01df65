//! A VolumeScan in whatever JSON, and what follows: a line of its spec, a line of its status, then bytes from which an observation is made.

#![no_main]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::jiff::Timestamp;
use libfuzzer_sys::arbitrary::{self, Unstructured};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use uuid::Uuid;
use volumeviz::controller::dispatch::{Problem, Standing};
use volumeviz::controller::fleet::{Agent, Fleet, Node};
use volumeviz::controller::health::{DatabaseHealth, DatabaseProblem};
use volumeviz::controller::scan::observe::{ActiveRun, Observed, OpenJob, Runs};
use volumeviz::controller::scan::plan::{Finish, Plan, Step, asked_key, plan};
use volumeviz::controller::scan::status;
use volumeviz::crd::{VolumeScan, VolumeScanStatus};
use volumeviz::domain::run::{JobReason, NodeCounts, RunKey, RunResult};
use volumeviz::domain::work::WorkOrder;
use volumeviz::store::jobs::FailedNodes;
use volumeviz::store::runs::{Run, RunProgress};

/// When observations are from.
const NOW: i64 = 1_790_000_000;
/// Up to so many bytes of JSON no text is longer than the schema lets it be, escapes and all.
const SHORT: usize = 2000;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (spec, before) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let Ok(spec) = serde_json::from_slice::<Value>(spec) else { return };
    let before = serde_json::from_slice::<Value>(before).unwrap_or_default();
    let metadata =
        json!({"name": "nightly", "uid": "uid", "generation": 1, "creationTimestamp": "2026-09-21T00:00:00Z"});
    let scan = json!({"apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeScan", "metadata": metadata, "spec": spec, "status": before});
    let Ok(scan) = serde_json::from_value::<VolumeScan>(scan) else { return };
    let mut choices = Unstructured::new(lines.next().unwrap_or_default());
    let Ok(observed) = observed(&scan, &mut choices) else { return };
    let planned = plan(&scan, &observed);
    assert_eq!(planned, plan(&scan, &observed), "the same observation gives the same plan");
    starts(&scan, &observed, &planned);
    offers(&observed, &planned);
    told(&scan, &observed, &planned);
});

/// A run starts only where none is, once a key, and on the machines that are there.
fn starts(scan: &VolumeScan, observed: &Observed, planned: &Plan) {
    let Some(runs) = &observed.runs else {
        assert!(planned.start.is_none() && planned.steps.is_empty() && planned.finish.is_none() && !planned.delete);
        return;
    };
    assert!(runs.active.is_some() || (planned.finish.is_none() && planned.steps.is_empty()), "nothing is under way");
    if planned.delete {
        assert!(planned.start.is_none() && runs.active.is_none() && scan.spec.ttl_seconds_after_finished.is_some());
        assert!(scan.spec.schedule.is_none(), "what has a schedule is never over");
    }
    let Some(start) = &planned.start else { return };
    assert!(!scan.spec.suspend && planned.invalid.is_none());
    assert!(runs.active.is_none() || matches!(planned.finish, Some(Finish::Cancel(_))), "two runs at a time");
    for (name, uid) in &start.nodes {
        assert_eq!(observed.fleet.nodes.get(name).map(|node| &node.uid), Some(uid));
    }
    match &start.key {
        RunKey::Scheduled(due) => assert!(runs.due_times.first().is_none_or(|last| last < due), "made before: {due}"),
        asked => assert!(asked_key(scan).as_ref() == Some(asked) && runs.asked.is_none()),
    }
    let again = plan(scan, &carried_out(observed, start.key.clone(), scan)).start;
    assert!(again.is_none_or(|again| again.key != start.key), "the key is used twice");
}

/// The same when the run was made.
fn carried_out(observed: &Observed, key: RunKey, scan: &VolumeScan) -> Observed {
    let mut next = observed.clone();
    if let Some(runs) = next.runs.as_mut() {
        if asked_key(scan).as_ref() == Some(&key) {
            runs.asked = Some(99);
        }
        if let RunKey::Scheduled(due) = key {
            runs.due_times.insert(0, due);
        }
        runs.active = Some(active(99, scan.spec.work_order()));
    }
    next
}

/// Tickets go to the machines of the run, and no more than there is room for.
fn offers(observed: &Observed, planned: &Plan) {
    let Some(active) = observed.runs.as_ref().and_then(|runs| runs.active.as_ref()) else { return };
    assert!(planned.finish.is_none() || planned.steps.is_empty());
    let mut offered = 0;
    for step in &planned.steps {
        let Step::Offer { job, pod_uid, address } = step else { continue };
        offered += 1;
        assert!(active.jobs.contains(job) && !job.running && job.due);
        let node = &observed.fleet.nodes[&job.node];
        assert_eq!(node.uid, job.node_uid, "another machine");
        let agent = node.agent.as_ref().unwrap();
        assert_eq!((&agent.pod_uid, agent.address), (pod_uid, Some(*address)));
    }
    let busy = active.jobs.iter().filter(|job| job.running || active.standing(job).in_flight).count();
    let nodes = usize::try_from(active.run.nodes.total).unwrap_or(0);
    let slots = active.run.work.limits.max_parallel_nodes.of(nodes).unwrap_or(1);
    assert!(
        offered == 0 || (offered + busy <= slots && offered <= active.free_slots),
        "{offered} beside {busy} of {slots}"
    );
}

/// The status fits, and what was written once is not written again.
fn told(scan: &VolumeScan, observed: &Observed, planned: &Plan) {
    let next = |before: Option<VolumeScanStatus>| {
        let scan = VolumeScan { status: before, ..scan.clone() };
        status::next(&scan, observed, planned.invalid.as_ref())
    };
    let short = |value: Vec<u8>| value.len() <= SHORT;
    let said = next(scan.status.clone());
    if short(serde_json::to_vec(&scan.spec).unwrap()) && short(serde_json::to_vec(&scan.status).unwrap()) {
        let size = serde_json::to_vec(&said).unwrap().len();
        assert!(size <= status::MAX_BYTES, "{size} bytes");
    }
    let settled = (0..3).fold(said, |status, _| next(Some(status)));
    assert!(next(Some(settled.clone())) == settled, "it is written for ever");
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

/// A moment of the last two days.
fn lately(choices: &mut Unstructured) -> arbitrary::Result<DateTime<Utc>> {
    Ok(at(NOW - choices.int_in_range(0..=172_800)?))
}

fn observed(scan: &VolumeScan, choices: &mut Unstructured) -> arbitrary::Result<Observed> {
    let now = Timestamp::from_second(NOW).unwrap();
    let contact = Duration::from_secs(choices.int_in_range(0..=90)?);
    let database = DatabaseHealth::reached_for(contact, now);
    let mut nodes = HashMap::new();
    for number in 1..=choices.int_in_range(0..=5_u8)? {
        let address = choices.arbitrary::<bool>()?.then_some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)));
        let agent = Agent { pod_uid: format!("pod-{number}"), address, ready: choices.arbitrary()? };
        let labels = [("kubernetes.io/hostname".to_owned(), format!("node-{number}"))].into();
        let node =
            Node { uid: format!("uid-{}", choices.int_in_range(number..=number + 1)?), labels, agent: Some(agent) };
        nodes.insert(format!("node-{number}"), Node { agent: node.agent.clone().filter(|_| number != 4), ..node });
    }
    let fleet = Arc::new(Fleet { nodes: nodes.into_iter().collect(), forbidden: None });
    if choices.ratio(1, 10)? {
        let problem = DatabaseProblem { reason: "Unreachable", message: choices.arbitrary()? };
        return Ok(Observed { now, database: database.with_problem(problem, now), fleet, runs: None });
    }
    let mut finished = Vec::new();
    for id in 1..=choices.int_in_range(0..=5)? {
        finished.push(ended(6 - id, choices)?);
    }
    let runs = Runs {
        active: if choices.arbitrary()? { Some(under_way(scan, choices)?) } else { None },
        asked: choices.arbitrary::<bool>()?.then_some(7),
        due_times: if choices.arbitrary()? { vec![lately(choices)?] } else { vec![] },
        finished,
        failed_nodes: FailedNodes::default(),
        figures_read: choices.arbitrary()?,
        without_docker: choices.int_in_range(0..=5)?,
        ..Runs::default()
    };
    Ok(Observed { now, database, fleet, runs: Some(runs) })
}

fn run(id: i64, work: WorkOrder) -> Run {
    Run {
        id,
        scan_name: "nightly".to_owned(),
        key: "once".to_owned(),
        created_at: at(NOW - 60),
        deadline: at(NOW + 7200),
        overdue: false,
        completed_at: None,
        result: None,
        reason: None,
        work,
        nodes: NodeCounts { total: 3, pending: 3, ..NodeCounts::default() },
    }
}

fn ended(id: i64, choices: &mut Unstructured) -> arbitrary::Result<Run> {
    let results = [RunResult::Succeeded, RunResult::Partial, RunResult::Failed, RunResult::Cancelled];
    let completed_at = Some(lately(choices)?);
    Ok(Run {
        result: Some(*choices.choose(&results)?),
        reason: Some("SomeNodesFailed".to_owned()),
        completed_at,
        created_at: lately(choices)?,
        ..run(id, WorkOrder::default())
    })
}

fn active(id: i64, work: WorkOrder) -> ActiveRun {
    let (jobs, standings) = (Vec::new(), HashMap::new());
    ActiveRun { run: run(id, work), overdue: false, free_slots: 3, jobs, progress: RunProgress::default(), standings }
}

fn under_way(scan: &VolumeScan, choices: &mut Unstructured) -> arbitrary::Result<ActiveRun> {
    let mut active = active(choices.int_in_range(1..=9)?, scan.spec.work_order());
    active.run.created_at = lately(choices)?;
    active.run.nodes.total = choices.int_in_range(0..=6)?;
    active.overdue = choices.ratio(1, 8)?;
    active.free_slots = choices.int_in_range(0..=4)?;
    for number in 1..=choices.int_in_range(0..=5_u8)? {
        let [running, due, lease_expired, node_overdue] = choices.arbitrary()?;
        let ticket = Uuid::from_u128(number.into());
        let [in_flight, backing_off, overdue] = choices.arbitrary()?;
        let problem = Problem { reason: JobReason::AgentUnreachable, message: "no answer".to_owned() };
        let problem = Some(problem).filter(|_| overdue || number == 2);
        let standing = Standing { in_flight, backing_off, overdue, failures: number.into(), problem };
        active.standings.insert(ticket, standing);
        let (node, node_uid) = (format!("node-{number}"), format!("uid-{number}"));
        active.jobs.push(OpenJob {
            id: number.into(),
            node,
            node_uid,
            running,
            ticket,
            due,
            lease_expired,
            node_overdue,
        });
    }
    Ok(active)
}
