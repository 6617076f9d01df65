//! Laws that hold for every scan the schema lets pass, whatever its status says and whatever is observed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use prop::bool::weighted;
use prop::collection::{btree_map, vec};
use prop::option;
use prop::sample::select;

use super::super::plan::{asked_key, is_handled};
use super::any::{any_limit, any_schedule, any_spec, any_text, any_trigger, any_zone};
use super::told::{biggest_figures, some_figures};
use super::*;
use crate::crd::{self, FollowedSchedule};
use crate::domain::run::RunKey;

/// Seconds from year -9999 to year 9999: what a status can hold.
const TIMES: std::ops::Range<i64> = -377_700_000_000..253_400_000_000;
/// Around the days that observations are from.
const NOW: std::ops::Range<i64> = 1_767_000_000..1_767_700_000;

fn any_time() -> impl Strategy<Value = Time> {
    prop_oneof![4 => NOW, 1 => TIMES].prop_map(|second| Time(Timestamp::from_second(second).unwrap()))
}

prop_compose! {
    fn any_finished()(
        id in 1..9_i64,
        result in select(vec![RunResult::Succeeded, RunResult::Partial, RunResult::Failed, RunResult::Cancelled]),
        (created, completed) in (NOW, NOW),
        reason in option::of(any_text(64)),
        numbers in any::<[i32; 3]>(),
    ) -> Run {
        let [total, succeeded, failed] = numbers;
        let nodes = NodeCounts { total, succeeded, failed, ..NodeCounts::default() };
        Run { id, result: Some(result), created_at: at(created), completed_at: Some(at(completed)), reason, nodes, ..run() }
    }
}

prop_compose! {
    /// Whatever an earlier version, or somebody with rights on the status, may have left there.
    fn any_status()(
        observed_generation in option::of(any::<i64>()),
        followed in option::of((any_schedule(), option::of(any_zone()), any_time())),
        (last_schedule_time, next_schedule_time) in (option::of(any_time()), option::of(any_time())),
        (skipped_runs, active) in (option::of(any::<i64>()), any::<bool>()),
        last_handled_trigger in option::of(any_trigger()),
        runs in vec(any_finished(), 0..6),
        conditions in vec(("[A-Z][a-z]{1,9}|Ready|DatabaseReady|Complete", any_text(256), any_time()), 0..16),
        figures in any::<bool>(),
    ) -> VolumeScanStatus {
        let full = status::next(&scan(), &some_observation(runs, figures), None);
        let followed = followed.map(|(expression, time_zone, since)| FollowedSchedule { expression, time_zone, since });
        let condition = |(type_, message, last_transition_time): (String, String, Time)| {
            let (status, reason) = ("Maybe".to_owned(), String::new());
            Condition { type_, message, last_transition_time, status, reason, observed_generation: None }
        };
        let active_run = crd::ActiveRun {
            id: 3, start_time: Time(Timestamp::MIN), deadline: Time(Timestamp::MAX), nodes: NodeCounts::default(),
            volumes: i64::MIN, entries: i64::MAX, bytes: -1,
        };
        VolumeScanStatus {
            observed_generation, schedule: followed, last_schedule_time, next_schedule_time, skipped_runs, last_handled_trigger,
            active_run: active.then_some(active_run),
            conditions: conditions.into_iter().map(condition).collect(),
            ..full
        }
    }
}

/// An observation at rest after these runs.
fn some_observation(finished: Vec<Run>, figures: bool) -> Observed {
    let figures = figures.then(some_figures);
    observed(Runs { asked: Some(7), finished, figures, figures_read: true, ..Runs::default() })
}

prop_compose! {
    fn any_scan()(spec in any_spec(), status in option::of(any_status()), created in option::of(any_time()), generation in 1..9_i64) -> VolumeScan {
        let mut scan = VolumeScan { spec, status, ..scan() };
        (scan.metadata.creation_timestamp, scan.metadata.generation) = (created, Some(generation));
        scan
    }
}

prop_compose! {
    /// One that may be offered, if its node is still the same machine.
    fn ready_job()(number in 1_u8..=5, same_node in weighted(0.8)) -> OpenJob {
        let node_uid = if same_node { job(number).node_uid } else { "other".to_owned() };
        OpenJob { node_uid, ..job(number) }
    }
}

prop_compose! {
    fn any_active()(
        jobs in btree_map(1_u8..=5, prop_oneof![any_job(), ready_job()], 0..5),
        standings in vec(prop_oneof![any_standing(), Just(Standing::default())], 6),
        (overdue, id) in (weighted(0.2), 1..9_i64),
        free_slots in prop_oneof![3 => 0..4_usize, 1 => Just(usize::MAX)],
        limit in any_limit(),
        total in prop_oneof![0..6_i32, any::<i32>()],
    ) -> ActiveRun {
        let standings = (1..=5).map(|number| (job(number).ticket, standings[usize::from(number)].clone())).collect();
        let mut active = ActiveRun { overdue, free_slots, standings, ..active(jobs.into_iter().map(|(number, wild)| numbered(number, wild)).collect()) };
        (active.run.id, active.run.nodes.total) = (id, total);
        at_most(&mut active, limit);
        active
    }
}

prop_compose! {
    fn any_runs()(
        active in option::weighted(0.7, any_active()),
        asked in option::of(1..9_i64),
        due_times in vec(NOW, 0..4),
        finished in vec(any_finished(), 0..6),
        failed in (0..11_usize, any::<i64>(), any_text(1024)),
        (figures, figures_read, without_docker) in (0..3_u8, any::<bool>(), any::<i32>()),
    ) -> Runs {
        let node = FailedNode { node: "n".repeat(253), reason: "AgentLost".to_owned(), message: failed.2 };
        Runs {
            active, asked, finished, figures_read, without_docker,
            due_times: newest_first(due_times.into_iter().map(at)),
            failed_nodes: FailedNodes { nodes: vec![node; failed.0], total: failed.1 },
            figures: match figures { 0 => None, 1 => Some(some_figures()), _ => Some(biggest_figures()) },
        }
    }
}

prop_compose! {
    fn any_observation()(
        runs in option::weighted(0.9, any_runs()),
        now in NOW,
        contact in 0..100_u64,
        problem in option::weighted(0.2, any_text(2000)),
        nodes in btree_map(1_u8..=5, (weighted(0.7), weighted(0.9), weighted(0.9)), 2..6),
        forbidden in option::of(any_text(2000)),
    ) -> Observed {
        let mut observed = Observed { runs, now: Timestamp::from_second(now).unwrap(), ..observed(Runs::default()) };
        observed.database.contact_for = Duration::from_secs(contact);
        if let Some(message) = problem {
            observed.database = observed.database.with_problem(DatabaseProblem { reason: "Unreachable", message }, observed.now);
            observed.runs = None;
        }
        let made = nodes.into_iter().map(|(number, (same, has_agent, has_address))| {
            let (name, mut node) = node(&format!("node-{number}"));
            if !same { node.uid = "another".to_owned() }
            node.agent = node.agent.filter(|_| has_agent).map(|agent| Agent { address: agent.address.filter(|_| has_address), ..agent });
            (name, node)
        });
        edit_fleet(&mut observed, |fleet| *fleet = Fleet { nodes: made.collect(), forbidden });
        observed
    }
}

/// What is observed once this plan was carried out and nothing else has happened.
fn carried_out(observed: &Observed, plan: &Plan, scan: &VolumeScan) -> Observed {
    let mut next = observed.clone();
    let Some(runs) = next.runs.as_mut() else { return next };
    if let Some(active) = runs.active.as_mut() {
        plan.steps.iter().for_each(|step| take(active, step));
    }
    if plan.finish.is_some()
        && let Some(ActiveRun { run, .. }) = runs.active.take()
    {
        let completed_at = Some(at(observed.now.as_second()));
        runs.finished.insert(0, Run { completed_at, result: Some(RunResult::Cancelled), ..run });
    }
    if let Some(start) = &plan.start {
        let id = 1 + runs.finished.iter().map(|run| run.id).fold(99, i64::max);
        if asked_key(scan).as_ref() == Some(&start.key) {
            runs.asked = Some(id);
        }
        if let RunKey::Scheduled(due) = start.key {
            runs.due_times = newest_first(runs.due_times.drain(..).chain([due]));
        }
        let mut active = active(vec![OpenJob { ticket: Uuid::from_u128(u128::from(id.unsigned_abs())), ..job(1) }]);
        (active.run.id, active.run.created_at) = (id, at(observed.now.as_second()));
        runs.active = Some(active);
    }
    next
}

/// What becomes of the job of a step: its agent takes it, it is put off, it gets a new ticket, or it is over.
fn take(active: &mut ActiveRun, step: &Step) {
    let seen = ticket(step);
    let put_off = |problem| Standing { backing_off: true, failures: 1, problem, ..Standing::default() };
    match step {
        Step::Offer { .. } => {
            active.standings.insert(seen, put_off(None));
            for job in active.jobs.iter_mut().filter(|job| job.ticket == seen) {
                (job.running, job.lease_expired, job.node_overdue) = (true, false, false);
            }
        }
        Step::Miss { problem, .. } => _ = active.standings.insert(seen, put_off(Some(problem.clone()))),
        Step::Retire { .. } => {
            for job in active.jobs.iter_mut().filter(|job| job.ticket == seen) {
                (job.running, job.due, job.ticket) = (false, true, Uuid::from_u128(seen.as_u128() + 10_000));
            }
        }
        Step::End { .. } => active.jobs.retain(|job| job.ticket != seen),
    }
}

fn without_lists(status: &VolumeScanStatus) -> VolumeScanStatus {
    let mut status = status.clone();
    (status.top_volumes, status.fastest_growing, status.candidates) = Default::default();
    (status.failed_nodes, status.history) = Default::default();
    (status.top_volumes_omitted, status.fastest_growing_omitted) = Default::default();
    (status.candidates_omitted, status.failed_nodes_omitted) = Default::default();
    status
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn runs_start_only_when_they_may(scan in any_scan(), observed in any_observation()) {
        let planned = plan(&scan, &observed);
        prop_assert_eq!(&planned, &plan(&scan, &observed), "the same observation gives the same plan");
        let Some(runs) = &observed.runs else {
            prop_assert_eq!(planned, Plan { invalid: plan(&scan, &observed).invalid, ..Plan::default() }, "nothing is done without the database");
            return Ok(());
        };
        if let Some(start) = &planned.start {
            prop_assert!(!scan.spec.suspend && planned.invalid.is_none() && !planned.delete);
            prop_assert!(runs.active.is_none() || matches!(planned.finish, Some(Finish::Cancel(_))), "two runs at a time");
            for (name, uid) in &start.nodes {
                prop_assert_eq!(observed.fleet.nodes.get(name).map(|node| &node.uid), Some(uid));
            }
            match &start.key {
                RunKey::Scheduled(due) => prop_assert!(runs.due_times.first().is_none_or(|last| last < due), "made before: {due}"),
                asked => prop_assert!(asked_key(&scan).as_ref() == Some(asked) && runs.asked.is_none()),
            }
            let again = plan(&scan, &carried_out(&observed, &planned, &scan)).start;
            prop_assert!(again.is_none_or(|again| again.key != start.key), "the key is used twice");
        }
        if planned.delete {
            prop_assert!(scan.spec.schedule.is_none() && scan.spec.ttl_seconds_after_finished.is_some());
            prop_assert!(runs.active.is_none() && is_handled(&scan, runs));
        }
    }

    #[test]
    fn offers_go_to_the_machines_of_the_run_and_are_no_more_than_slots(scan in any_scan(), observed in any_observation()) {
        let planned = plan(&scan, &observed);
        let active = observed.runs.as_ref().and_then(|runs| runs.active.as_ref());
        let Some(active) = active else {
            prop_assert!(planned.steps.is_empty() && planned.finish.is_none());
            return Ok(());
        };
        prop_assert!(planned.finish.is_none() || planned.steps.is_empty());
        let mut offers = 0;
        for step in &planned.steps {
            let Step::Offer { job, pod_uid, address } = step else { continue };
            offers += 1;
            prop_assert!(active.jobs.contains(job) && !job.running && job.due);
            let node = &observed.fleet.nodes[&job.node];
            prop_assert_eq!(&node.uid, &job.node_uid, "another machine");
            let agent = node.agent.as_ref().unwrap();
            prop_assert_eq!((&agent.pod_uid, agent.address), (pod_uid, Some(*address)));
        }
        let busy = active.jobs.iter().filter(|job| job.running || active.standing(job).in_flight).count();
        let total = usize::try_from(active.run.nodes.total).unwrap_or(0);
        let slots = active.run.work.limits.max_parallel_nodes.of(total).unwrap();
        prop_assert!(offers == 0 || (offers + busy <= slots && offers <= active.free_slots));
    }

    /// Of two plans in a row, the second never has a step of the first; and when nothing else happens there is soon nothing left to do.
    #[test]
    fn what_was_done_is_not_planned_again(scan in any_scan(), observed in any_observation()) {
        let (mut now, mut done) = (observed, Vec::new());
        for pass in 0.. {
            let planned = plan(&scan, &now);
            if (&planned.steps[..], &planned.start, &planned.finish) == (&[], &None, &None) {
                break;
            }
            prop_assert!(pass < 20, "without end: {planned:?}");
            for step in &planned.steps {
                let step = (std::mem::discriminant(step), ticket(step));
                prop_assert!(!done.contains(&step), "twice: {step:?}");
                done.push(step);
            }
            now = carried_out(&now, &planned, &scan);
        }
    }

    #[test]
    fn every_status_fits_and_is_written_once(scan in any_scan(), observed in any_observation()) {
        let planned = plan(&scan, &observed);
        let status = status::next(&scan, &observed, planned.invalid.as_ref());
        let size = serde_json::to_vec(&status).unwrap().len();
        prop_assert!(size <= status::MAX_BYTES, "{size} bytes");
        let next = |status: VolumeScanStatus| {
            status::next(&VolumeScan { status: Some(status), ..scan.clone() }, &observed, planned.invalid.as_ref())
        };
        let again = next(status.clone());
        prop_assert!(without_lists(&again) == without_lists(&status), "written twice");
        if again == status {
            return Ok(());
        }
        // Lists that are kept were cut beside those that are made anew each time.
        let settled = (0..4).fold(again, |status, _| next(status));
        prop_assert!(next(settled.clone()) == settled, "written for ever");
    }
}
