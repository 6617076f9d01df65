//! `plan` by table and by law, on objects built by named steps; what follows for the status is in the modules beside it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

mod any;
mod calendar;
mod events;
mod figures;
mod laws;
mod restored;
mod told;

use super::observe::{ActiveRun, Observed, OpenJob, Runs};
use super::plan::{Finish, Plan, SETTLED_AFTER, Step, plan};
use super::status;
use crate::controller::dispatch::{Problem, Standing};
use crate::controller::fleet::{Agent, Fleet, Node};
use crate::controller::health::{DatabaseHealth, DatabaseProblem};
use crate::crd::{State, VolumeScan, VolumeScanSpec, VolumeScanStatus};
use crate::domain::measurement::{Completeness, VolumeCounts};
use crate::domain::run::{Ending, JobReason, NodeCounts, RunResult};
use crate::domain::selector::{LabelSelector, LabelValue, NameGlob, VolumeSelector};
use crate::domain::work::{Limits, NodeLimit, WorkOrder};
use crate::store::figures::{CandidateRow, EntryRow, Figures, GrowingRow, Growth, VolumeRow};
use crate::store::jobs::{FailedNode, FailedNodes};
use crate::store::runs::{Run, RunProgress};

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

fn newest_first(times: impl IntoIterator<Item = DateTime<Utc>>) -> Vec<DateTime<Utc>> {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times
}

fn scan() -> VolumeScan {
    let mut scan = VolumeScan::new("nightly", VolumeScanSpec::default());
    scan.metadata.uid = Some("scan-uid".to_owned());
    scan.metadata.generation = Some(1);
    scan
}

fn node(name: &str) -> (String, Node) {
    let agent =
        Agent { pod_uid: format!("{name}-pod"), address: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7))), ready: true };
    let labels = [("kubernetes.io/hostname".to_owned(), name.to_owned())].into();
    (name.to_owned(), Node { uid: format!("{name}-uid"), labels, agent: Some(agent) })
}

fn run() -> Run {
    Run {
        scan_name: "scan".to_owned(),
        key: "once".to_owned(),
        id: 7,
        created_at: at(1000),
        deadline: at(8200),
        overdue: false,
        completed_at: None,
        result: None,
        reason: None,
        work: WorkOrder::default(),
        nodes: NodeCounts { total: 3, pending: 3, ..NodeCounts::default() },
    }
}

fn ended(result: RunResult, reason: &str) -> Run {
    Run {
        completed_at: Some(at(1010)),
        result: Some(result),
        reason: Some(reason.to_owned()),
        nodes: NodeCounts { total: 3, succeeded: 3, ..NodeCounts::default() },
        ..run()
    }
}

fn job(number: u8) -> OpenJob {
    OpenJob {
        id: i64::from(number),
        node: format!("node-{number}"),
        node_uid: format!("node-{number}-uid"),
        running: false,
        ticket: Uuid::from_u128(u128::from(number)),
        due: true,
        lease_expired: false,
        node_overdue: false,
    }
}

fn active(jobs: Vec<OpenJob>) -> ActiveRun {
    ActiveRun {
        run: run(),
        overdue: false,
        free_slots: 50,
        jobs,
        progress: RunProgress::default(),
        standings: HashMap::new(),
    }
}

fn at_most(active: &mut ActiveRun, nodes: NodeLimit) {
    active.run.work.limits.max_parallel_nodes = nodes;
}

fn healthy() -> DatabaseHealth {
    let mut health = DatabaseHealth::unknown(Timestamp::from_second(900).unwrap());
    (health.problem, health.contact_for) = (None, SETTLED_AFTER);
    health
}

fn observed(runs: Runs) -> Observed {
    Observed {
        now: Timestamp::from_second(2000).unwrap(),
        database: healthy(),
        fleet: Arc::new(Fleet { nodes: (1..=3).map(|n| node(&format!("node-{n}"))).collect(), forbidden: None }),
        runs: Some(runs),
    }
}

fn with_active(active: ActiveRun) -> Observed {
    observed(Runs { asked: Some(active.run.id), active: Some(active), ..Runs::default() })
}

fn at_rest(last: Run) -> Observed {
    observed(Runs { asked: Some(last.id), finished: vec![last], figures_read: true, ..Runs::default() })
}

fn edit_fleet(observed: &mut Observed, edit: impl FnOnce(&mut Fleet)) {
    edit(Arc::make_mut(&mut observed.fleet));
}

fn steps(observed: &Observed) -> Vec<Step> {
    plan(&scan(), observed).steps
}

fn offered(steps: &[Step]) -> Vec<i64> {
    steps.iter().filter_map(|step| if let Step::Offer { job, .. } = step { Some(job.id) } else { None }).collect()
}

#[test]
fn a_fresh_scan_starts_one_run_over_every_node() {
    let start = plan(&scan(), &observed(Runs::default())).start.unwrap();
    assert_eq!(start.key.to_string(), "once");
    assert_eq!(start.nodes.len(), 3);
    assert_eq!(start.nodes[0], ("node-1".to_owned(), "node-1-uid".to_owned()));
}

#[test]
fn the_node_selector_freezes_the_nodes_of_the_run() {
    let mut scan = scan();
    let labels = [("kubernetes.io/hostname".to_owned(), LabelValue("node-2".to_owned()))].into();
    scan.spec.node_selector = Some(LabelSelector { match_labels: Some(labels), match_expressions: None });
    let start = plan(&scan, &observed(Runs::default())).start.unwrap();
    assert_eq!(start.nodes, [("node-2".to_owned(), "node-2-uid".to_owned())]);
}

#[test]
fn a_new_trigger_starts_a_run_and_a_used_one_does_not() {
    let mut scan = scan();
    scan.spec.trigger = Some("again".to_owned());
    let unknown_key =
        observed(Runs { asked: None, finished: vec![ended(RunResult::Succeeded, "RunSucceeded")], ..Runs::default() });
    assert_eq!(plan(&scan, &unknown_key).start.unwrap().key.to_string(), "t:again");
    assert_eq!(plan(&scan, &at_rest(ended(RunResult::Succeeded, "RunSucceeded"))), Plan::default());
}

#[test]
fn a_trigger_waits_for_the_active_run() {
    let mut scan = scan();
    scan.spec.trigger = Some("again".to_owned());
    let mut busy = with_active(active(vec![job(1)]));
    busy.runs.as_mut().unwrap().asked = None;
    assert_eq!(plan(&scan, &busy).start, None);
}

#[test]
fn nothing_is_planned_while_the_database_is_away() {
    let away = Observed { runs: None, ..observed(Runs::default()) };
    assert_eq!(plan(&scan(), &away), Plan::default());
}

#[test]
fn an_invalid_glob_stalls_and_plans_nothing() {
    let mut scan = scan();
    scan.spec.volume_selector =
        Some(VolumeSelector { names: vec![NameGlob("[".to_owned())], ..VolumeSelector::default() });
    let plan = plan(&scan, &observed(Runs::default()));
    assert!(plan.invalid.as_ref().unwrap().message.contains("spec.volumeSelector.names[0]"));
    assert_eq!(plan.start, None);
}

#[test]
fn no_more_nodes_at_a_time_than_allowed() {
    let mut busy = active(vec![OpenJob { running: true, ..job(1) }, job(2), job(3)]);
    at_most(&mut busy, NodeLimit::Count(2));
    assert_eq!(offered(&steps(&with_active(busy.clone()))), [2]);
    busy.standings.insert(job(2).ticket, Standing { in_flight: true, ..Standing::default() });
    assert_eq!(offered(&steps(&with_active(busy))), [0_i64; 0], "a post in flight holds a slot");
}

#[test]
fn a_share_of_the_runs_nodes_is_rounded_up() {
    let mut waiting = active(vec![job(1), job(2), job(3)]);
    at_most(&mut waiting, NodeLimit::Share("34%".to_owned()));
    assert_eq!(offered(&steps(&with_active(waiting))), [1, 2], "34 % of three nodes");
}

#[test]
fn all_scans_together_keep_to_the_installations_slots() {
    let waiting = ActiveRun { free_slots: 1, ..active(vec![job(1), job(2)]) };
    assert_eq!(offered(&steps(&with_active(waiting))), [1]);
    let none = ActiveRun { free_slots: 0, ..active(vec![OpenJob { running: true, ..job(1) }, job(2)]) };
    assert_eq!(steps(&with_active(none)), [], "what runs goes on");
}

#[test]
fn a_node_that_was_tried_in_vain_lets_the_others_go_first() {
    let mut waiting = active(vec![job(1), job(2)]);
    at_most(&mut waiting, NodeLimit::Count(1));
    waiting.standings.insert(job(1).ticket, Standing { failures: 3, ..Standing::default() });
    assert_eq!(offered(&steps(&with_active(waiting))), [2]);
}

#[test]
fn a_node_without_agent_takes_no_slot_and_is_missed() {
    let mut waiting = active(vec![job(1), job(2)]);
    at_most(&mut waiting, NodeLimit::Count(1));
    let mut observed = with_active(waiting);
    edit_fleet(&mut observed, |fleet| fleet.nodes.get_mut("node-1").unwrap().agent = None);
    let steps = steps(&observed);
    assert_eq!(offered(&steps), [2]);
    assert!(
        steps
            .iter()
            .any(|step| matches!(step, Step::Miss { problem, .. } if problem.reason == JobReason::AgentMissing))
    );
}

#[test]
fn an_overdue_ticket_is_skipped_with_what_was_missing() {
    let problem = Problem { reason: JobReason::AgentCannotReachDatabase, message: "refused".to_owned() };
    let mut waiting = active(vec![job(1)]);
    waiting
        .standings
        .insert(job(1).ticket, Standing { overdue: true, problem: Some(problem.clone()), ..Standing::default() });
    let expected = Step::End { job: 1, ticket: job(1).ticket, ending: Ending::Skipped, problem };
    assert_eq!(steps(&with_active(waiting)), [expected]);
}

#[test]
fn an_expired_lease_is_judged_only_after_unbroken_contact() {
    let mut observed = with_active(active(vec![OpenJob { running: true, lease_expired: true, ..job(1) }]));
    assert_eq!(steps(&observed), [Step::Retire { job: 1, ticket: job(1).ticket, max_attempts: 3 }]);
    observed.database.contact_for = Duration::from_secs(44);
    assert_eq!(steps(&observed), []);
}

#[test]
fn a_node_that_left_or_came_back_as_another_machine_ends_its_job() {
    for (running, state) in [(true, Ending::Failed), (false, Ending::Skipped)] {
        let mut observed = with_active(active(vec![OpenJob { running, ..job(1) }]));
        edit_fleet(&mut observed, |fleet| fleet.nodes.get_mut("node-1").unwrap().uid = "another".to_owned());
        let [Step::End { ending: ended, problem, .. }] = &steps(&observed)[..] else { panic!("not ended") };
        assert_eq!((*ended, problem.reason), (state, JobReason::NodeGone));
    }
}

#[test]
fn a_run_ends_when_its_jobs_have_or_its_deadline_has_passed() {
    assert_eq!(plan(&scan(), &with_active(active(vec![]))).finish, Some(Finish::AllEnded));
    let overdue = ActiveRun { overdue: true, ..active(vec![OpenJob { running: true, ..job(1) }]) };
    let mut observed = with_active(overdue);
    assert_eq!(plan(&scan(), &observed).finish, Some(Finish::Deadline));
    observed.database.contact_for = Duration::ZERO;
    assert_eq!(
        plan(&scan(), &observed).finish,
        None,
        "agents get time to hand in what they held while the database was away"
    );
}

/// This job under another number.
fn numbered(number: u8, wild: OpenJob) -> OpenJob {
    let OpenJob { id, node, node_uid, ticket, .. } = job(number);
    let node_uid = if wild.node_uid == "other" { wild.node_uid } else { node_uid };
    OpenJob { id, node, node_uid, ticket, ..wild }
}

prop_compose! {
    fn any_job()(number in 1_u8..=5, flags in any::<[bool; 4]>(), same_node in any::<bool>()) -> OpenJob {
        let [running, due, lease_expired, node_overdue] = flags;
        let node_uid = if same_node { job(number).node_uid } else { "other".to_owned() };
        OpenJob { node_uid, running, due, lease_expired, node_overdue, ..job(number) }
    }
}

prop_compose! {
    fn any_standing()(in_flight in any::<bool>(), backing_off in any::<bool>(), overdue in any::<bool>(), failures in 0_u32..5) -> Standing {
        let problem = overdue.then(|| Problem { reason: JobReason::AgentUnreachable, message: String::new() });
        Standing { in_flight, backing_off, overdue, failures, problem }
    }
}

proptest! {
    /// Laws of dispatch: never more slots than allowed, at most one step a job, and no offer to a job that runs or is in flight.
    #[test]
    fn dispatch_keeps_its_laws(
        jobs in prop::collection::btree_map(1_u8..=5, any_job(), 0..5),
        standings in prop::collection::vec(any_standing(), 6),
        max in 1_i32..4,
        contact in 0_u64..100,
    ) {
        let jobs: Vec<OpenJob> = jobs.into_iter().map(|(n, wild)| numbered(n, wild)).collect();
        let standings: HashMap<Uuid, Standing> = (1_u8..=5).map(|n| (job(n).ticket, standings[usize::from(n)].clone())).collect();
        let held = jobs.iter().filter(|job| job.running || standings[&job.ticket].in_flight).count();
        let mut observed = with_active(ActiveRun { standings: standings.clone(), ..active(jobs.clone()) });
        at_most(observed.runs.as_mut().unwrap().active.as_mut().unwrap(), NodeLimit::Count(max));
        observed.database.contact_for = Duration::from_secs(contact);
        let first = plan(&scan(), &observed);
        prop_assert_eq!(&first, &plan(&scan(), &observed), "the same observation gives the same plan");
        let offers = offered(&first.steps);
        prop_assert!(offers.is_empty() || i32::try_from(offers.len() + held).unwrap() <= max);
        let mut touched: Vec<Uuid> = first.steps.iter().map(ticket).collect();
        let count = touched.len();
        touched.sort_unstable();
        touched.dedup();
        prop_assert_eq!(touched.len(), count);
        for id in offers {
            let job = jobs.iter().find(|job| job.id == id).unwrap();
            let standing = &standings[&job.ticket];
            prop_assert!(!job.running && !standing.in_flight && !standing.backing_off);
        }
    }
}

fn ticket(step: &Step) -> Uuid {
    match step {
        Step::Offer { job, .. } => job.ticket,
        Step::Miss { ticket, .. } | Step::Retire { ticket, .. } | Step::End { ticket, .. } => *ticket,
    }
}
