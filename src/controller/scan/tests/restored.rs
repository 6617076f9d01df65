//! A database that was restored to an earlier time knows less than the status does.

use super::told::some_figures;
use super::*;
use crate::crd::conditions;

/// A scan whose status tells of run 7, with these figures.
fn told() -> VolumeScan {
    let mut scan = scan();
    let mut observed = at_rest(ended(RunResult::Succeeded, "AllNodesSucceeded"));
    observed.runs.as_mut().unwrap().figures = Some(some_figures());
    scan.status = Some(status::next(&scan, &observed, None));
    scan
}

fn database_ready(status: &VolumeScanStatus) -> (String, String) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == conditions::DATABASE_READY).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

fn missing() -> (String, String) {
    ("True".to_owned(), "ResultsMissing".to_owned())
}

#[test]
fn figures_stay_and_the_status_says_that_results_are_missing() {
    let scan = told();
    let before = scan.status.clone().unwrap();
    assert_eq!(database_ready(&before).1, "Connected");
    let older = Run { id: 3, completed_at: Some(at(500)), ..ended(RunResult::Succeeded, "AllNodesSucceeded") };
    let nothing = observed(Runs { figures_read: true, ..Runs::default() });
    let less = observed(Runs { finished: vec![older], figures_read: true, ..Runs::default() });
    let replanned = with_active(active(vec![job(1)]));
    for observed in [nothing, less, replanned] {
        let status = status::next(&scan, &observed, None);
        assert_eq!(database_ready(&status), missing());
        assert_eq!((&status.totals, &status.top_volumes), (&before.totals, &before.top_volumes));
        assert_eq!((&status.last_run, &status.history), (&before.last_run, &before.history));
    }
}

fn failed_on(node: &str) -> FailedNodes {
    let failed =
        FailedNode { node: node.to_owned(), reason: "AgentLost".to_owned(), message: "lost three times".to_owned() };
    FailedNodes { nodes: vec![failed], total: 3 }
}

#[test]
fn failed_nodes_are_of_the_run_that_the_status_tells_of_until_another_is_under_way() {
    let failed = |runs: Runs, node: &str| observed(Runs { failed_nodes: failed_on(node), ..runs });
    let told_of = |status: &VolumeScanStatus| (status.failed_nodes[0].node.clone(), status.failed_nodes_omitted);
    let mut scan = told();
    let told = Runs { finished: vec![ended(RunResult::Partial, "SomeNodesFailed")], ..Runs::default() };
    scan.status = Some(status::next(&scan, &failed(told, "of-run-7"), None));
    let older = Run { id: 3, completed_at: Some(at(500)), ..ended(RunResult::Partial, "SomeNodesFailed") };
    for less in [Runs::default(), Runs { finished: vec![older.clone()], ..Runs::default() }] {
        assert_eq!(told_of(&status::next(&scan, &failed(less, "of-run-3"), None)), ("of-run-7".to_owned(), Some(2)));
    }
    let again = Runs {
        finished: vec![older],
        active: with_active(active(vec![job(1)])).runs.unwrap().active,
        ..Runs::default()
    };
    assert_eq!(told_of(&status::next(&scan, &failed(again, "of-run-8"), None)), ("of-run-8".to_owned(), Some(2)));
}

#[test]
fn the_run_is_planned_again_from_the_resource() {
    let plan = plan(&told(), &observed(Runs { figures_read: true, ..Runs::default() }));
    assert_eq!(plan.start.unwrap().key.to_string(), "once");
}

#[test]
fn a_newer_run_ends_it_even_under_a_number_used_before() {
    let scan = told();
    let newer =
        Run { created_at: at(2000), completed_at: Some(at(2010)), ..ended(RunResult::Partial, "SomeNodesFailed") };
    let status = status::next(&scan, &at_rest(newer), None);
    assert_eq!(database_ready(&status).1, "Connected");
    assert_eq!(status.last_run.unwrap().result, RunResult::Partial);
    assert_eq!(status.totals, None, "what the database holds now");
}
