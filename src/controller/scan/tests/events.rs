//! Which Events a change of the status is worth: each transition once, and one for all nodes of a run.

use super::super::publish::notices;
use super::*;

/// What is told when the status becomes what follows from `observed`, and that status.
fn told(scan: &VolumeScan, observed: &Observed) -> (Vec<(&'static str, String)>, VolumeScanStatus) {
    let before = scan.status.clone().unwrap_or_default();
    let next = status::next(scan, observed, None);
    let notices = notices(scan, &before, &next, observed);
    (notices.into_iter().map(|notice| (notice.reason, notice.note)).collect(), next)
}

fn reasons(scan: &VolumeScan, observed: &Observed) -> Vec<&'static str> {
    told(scan, observed).0.into_iter().map(|(reason, _)| reason).collect()
}

#[test]
fn each_result_of_a_run_has_its_event_which_is_told_once() {
    let results = [
        (RunResult::Succeeded, "RunCompleted"),
        (RunResult::Partial, "RunPartiallyCompleted"),
        (RunResult::Failed, "RunFailed"),
        (RunResult::Cancelled, "RunCancelled"),
    ];
    for (result, reason) in results {
        let mut scan = scan();
        let observed = at_rest(ended(result, "Why"));
        assert_eq!(reasons(&scan, &observed), [reason]);
        scan.status = Some(told(&scan, &observed).1);
        assert_eq!(reasons(&scan, &observed), [""; 0], "{reason} again");
    }
}

#[test]
fn a_run_that_starts_is_told_once_however_far_it_is() {
    let mut scan = scan();
    let mut observed = with_active(active(vec![job(1), job(2)]));
    assert_eq!(reasons(&scan, &observed), ["RunStarted"]);
    scan.status = Some(told(&scan, &observed).1);
    let active = observed.runs.as_mut().unwrap().active.as_mut().unwrap();
    (active.progress.nodes.running, active.progress.bytes) = (2, 4096);
    assert_eq!(reasons(&scan, &observed), [""; 0]);
    // After a database was restored to an earlier time, another run may have its number.
    observed.runs.as_mut().unwrap().active.as_mut().unwrap().run.created_at = at(1500);
    assert_eq!(reasons(&scan, &observed), ["RunStarted"]);
}

#[test]
fn a_run_that_starts_says_on_how_many_nodes() {
    for (total, expected) in
        [(0, "run 7 started: no node is selected"), (1, "run 7 started on 1 node"), (2, "run 7 started on 2 nodes")]
    {
        let mut run = active(vec![]);
        run.progress.nodes.total = total;
        assert_eq!(told(&scan(), &with_active(run)).0[0].1, expected);
    }
}

#[test]
fn all_nodes_that_failed_are_told_by_one_event() {
    let nodes = NodeCounts { total: 5, succeeded: 2, failed: 2, skipped: 1, ..NodeCounts::default() };
    let mut observed = at_rest(Run { nodes, ..ended(RunResult::Partial, "SomeNodesMissing") });
    let failed = |node: &str| FailedNode {
        node: node.to_owned(),
        reason: "AgentLost".to_owned(),
        message: "lost three times".to_owned(),
    };
    let failed = FailedNodes { nodes: vec![failed("node-1"), failed("node-2"), failed("node-3")], total: 3 };
    observed.runs.as_mut().unwrap().failed_nodes = failed;
    let [(reason, note)] = &told(&scan(), &observed).0[..] else { panic!("one event") };
    let expected = "run 7: 2 of 5 nodes measured in 10 s (SomeNodesMissing)";
    assert_eq!((*reason, note.as_str()), ("RunPartiallyCompleted", expected));
}

#[test]
fn runs_that_were_skipped_are_told_by_one_event_with_how_many_and_why() {
    let mut scan = scan();
    scan.spec.schedule = Some("*/10 * * * *".to_owned());
    let idle = |now: i64| Observed {
        now: Timestamp::from_second(now).unwrap(),
        ..observed(Runs { figures_read: true, ..Runs::default() })
    };
    scan.status = Some(told(&scan, &idle(600)).1);
    let late = idle(1801 + 300);
    let note = "2 scheduled runs did not start, the last one due at 1970-01-01T00:30:00Z: startingDeadlineSeconds passed before it could";
    assert_eq!(told(&scan, &late).0, [("RunSkipped", note.to_owned())]);
    scan.status = Some(told(&scan, &late).1);
    assert_eq!(told(&scan, &late).0, []);
}

#[test]
fn a_trigger_that_was_used_before_is_told() {
    let mut scan = scan();
    scan.status = Some(told(&scan, &at_rest(ended(RunResult::Succeeded, "RunSucceeded"))).1);
    scan.spec.trigger = Some("again".to_owned());
    let used = at_rest(ended(RunResult::Succeeded, "RunSucceeded"));
    assert_eq!(reasons(&scan, &used), ["TriggerAlreadyHandled"]);
}
