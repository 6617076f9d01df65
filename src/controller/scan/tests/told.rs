//! The next status by table and by law.

use super::*;

pub(super) fn truth(status: &VolumeScanStatus, type_: &str) -> Option<(String, String)> {
    status.conditions.iter().find(|c| c.type_ == type_).map(|c| (c.status.clone(), c.reason.clone()))
}

pub(super) fn says(status: &VolumeScanStatus, type_: &str, truth_is: &str, reason: &str) {
    assert_eq!(truth(status, type_), Some((truth_is.to_owned(), reason.to_owned())), "{type_}");
}

#[test]
fn conditions_of_a_scan_through_its_life() {
    let running = status::next(&scan(), &with_active(active(vec![job(1)])), None);
    says(&running, "Ready", "False", "RunActive");
    says(&running, "Reconciling", "True", "RunActive");
    assert_eq!((truth(&running, "Stalled"), running.state), (None, Some(State::Running)));

    let done = status::next(&scan(), &at_rest(ended(RunResult::Partial, "SomeNodesMissing")), None);
    says(&done, "Ready", "True", "SomeNodesMissing");
    says(&done, "Complete", "True", "SomeNodesMissing");
    says(&done, "LastRunSucceeded", "False", "SomeNodesMissing");
    assert_eq!((truth(&done, "Reconciling"), truth(&done, "Stalled"), done.state), (None, None, Some(State::Complete)));

    let failed = status::next(&scan(), &at_rest(ended(RunResult::Failed, "NoDockerEngine")), None);
    says(&failed, "Ready", "False", "NoDockerEngine");
    says(&failed, "Stalled", "True", "NoDockerEngine");
    says(&failed, "Failed", "True", "NoDockerEngine");
    assert_eq!((failed.totals, failed.state), (None, Some(State::Failed)));
}

#[test]
fn while_the_database_is_away_the_last_results_stay() {
    let mut scan = scan();
    let mut results = at_rest(ended(RunResult::Succeeded, "RunSucceeded"));
    results.runs.as_mut().unwrap().figures = Some(some_figures());
    scan.status = Some(status::next(&scan, &results, None));
    let problem = DatabaseProblem { reason: "Unreachable", message: "connection refused".to_owned() };
    let away = Observed { runs: None, database: healthy().with_problem(problem, results.now), ..results };
    let next = status::next(&scan, &away, None);
    let before = scan.status.unwrap();
    assert_eq!(
        (&next.totals, &next.top_volumes, &next.last_run),
        (&before.totals, &before.top_volumes, &before.last_run)
    );
    says(&next, "DatabaseReady", "False", "Unreachable");
    says(&next, "Ready", "False", "DatabaseNotReady");
    says(&next, "Complete", "True", "RunSucceeded");
}

#[test]
fn the_same_observation_gives_the_same_status() {
    let mut scan = scan();
    let observed = at_rest(ended(RunResult::Succeeded, "RunSucceeded"));
    let first = status::next(&scan, &observed, None);
    scan.status = Some(first.clone());
    let later = Observed { now: Timestamp::from_second(9999).unwrap(), ..observed };
    assert_eq!(status::next(&scan, &later, None), first, "at rest there is nothing to write");
}

#[test]
fn a_partial_sum_is_shown_as_a_lower_bound() {
    let mut observed = at_rest(ended(RunResult::Succeeded, "RunSucceeded"));
    let mut figures = biggest_figures();
    figures.allocated_bytes = 2048;
    observed.runs.as_mut().unwrap().figures = Some(figures);
    let display = status::next(&scan(), &observed, None).display.unwrap();
    assert_eq!(display.size.unwrap(), "≥2.00 KiB");
}

#[test]
fn the_size_of_volumes_that_were_only_listed_is_unknown_and_of_none_is_zero() {
    let size = |volumes, measured| {
        let mut observed = at_rest(ended(RunResult::Succeeded, "RunSucceeded"));
        let mut figures = biggest_figures();
        (figures.counts.volumes, figures.counts.measured, figures.counts.partial) = (volumes, measured, 0);
        figures.allocated_bytes = 0;
        observed.runs.as_mut().unwrap().figures = Some(figures);
        status::next(&scan(), &observed, None).display.unwrap().size
    };
    assert_eq!([size(6, 0), size(0, 0), size(6, 1)].map(Option::unwrap_or_default), ["", "0 B", "0 B"]);
}

/// Figures that leave room in a status.
pub(super) fn some_figures() -> Figures {
    let mut figures = biggest_figures();
    figures.top.truncate(2);
    figures.fastest.truncate(2);
    figures.removable.truncate(2);
    figures.top_files.truncate(2);
    figures.top_directories.truncate(2);
    figures
}

pub(super) fn biggest_figures() -> Figures {
    let name: String = "ü".repeat(300);
    let row = VolumeRow {
        node: "n".repeat(253),
        name,
        allocated_bytes: i64::MAX,
        apparent_bytes: Some(i64::MAX),
        completeness: Completeness::Partial,
        used_by_running: i64::MAX,
        used_by_stopped: i64::MAX,
        measured_at: at(1005),
    };
    let growing = GrowingRow {
        node: "n".repeat(253),
        name: "\u{1}".repeat(300),
        bytes_per_day: i64::MAX,
        allocated_bytes: i64::MAX,
        available_bytes: Some(i64::MAX),
    };
    let candidate = CandidateRow {
        node: "n".repeat(253),
        name: "\"".repeat(300),
        unused_since: at(5),
        seen_used: true,
        held_by_stopped: i64::MAX,
        origin: serde_json::json!({"container": "c".repeat(500), "image": "i".repeat(500)}),
        allocated_bytes: Some(i64::MAX),
        last_seen_at: at(1005),
    };
    let million = 1_000_000;
    Figures {
        counts: VolumeCounts {
            volumes: million,
            measured: million / 2,
            partial: million / 2,
            failed: million,
            unknown: million,
            anonymous: million,
            in_use: million,
            unused: million,
        },
        allocated_bytes: i64::MAX,
        apparent_bytes: i64::MAX,
        files: i64::MAX,
        stale_nodes: 10_000,
        oldest_data_time: Some(at(1) + TimeDelta::days(1)),
        candidates: million,
        candidate_bytes: i64::MAX,
        candidates_held: million,
        growth: Some(Growth { bytes_per_day: i64::MAX, window_days: 14, samples: 14, volumes: million }),
        growing: million,
        top: vec![row; 10],
        fastest: vec![growing; 10],
        removable: vec![candidate; 10],
        top_files: vec![biggest_entry(); 10],
        top_directories: vec![biggest_entry(); 10],
    }
}

fn biggest_entry() -> EntryRow {
    let (node, name) = ("n".repeat(253), "v".repeat(300));
    EntryRow { node, name, path: "\u{1}".repeat(1000), allocated_bytes: i64::MAX }
}

/// 10,000 nodes, 1 M volumes, the longest names and messages.
#[test]
fn the_biggest_status_fits_its_budget() {
    let failed = FailedNode {
        node: "n".repeat(253),
        reason: "AgentCannotReachDatabase".to_owned(),
        message: "\u{1}ü".repeat(2000),
    };
    let nodes = NodeCounts {
        total: 10_000,
        pending: 10_000,
        running: 10_000,
        succeeded: 10_000,
        failed: 10_000,
        skipped: 10_000,
    };
    let finished = vec![Run { reason: Some("R".repeat(64)), nodes, ..ended(RunResult::Partial, "") }; 5];
    let mut observed = observed(Runs {
        asked: Some(7),
        finished,
        failed_nodes: FailedNodes { nodes: vec![failed; 10], total: 10_000 },
        figures: Some(biggest_figures()),
        figures_read: true,
        ..Runs::default()
    });
    let problem = DatabaseProblem { reason: "Unreachable", message: "\"".repeat(5000) };
    observed.database = observed.database.with_problem(problem, observed.now);
    edit_fleet(&mut observed, |fleet| fleet.forbidden = Some("\u{7}".repeat(5000)));
    let mut scan = scan();
    scan.spec.trigger = Some("\u{1}".repeat(128));
    let status = status::next(&scan, &observed, None);
    let size = serde_json::to_vec(&status).unwrap().len();
    assert!(size <= status::MAX_BYTES, "{size} bytes");
    assert!(!status.top_volumes.is_empty() && !status.failed_nodes.is_empty());
    let shown = i64::try_from(status.top_volumes.len()).unwrap();
    assert_eq!(status.top_volumes_omitted, Some(1_000_000 - shown));
    let shown = i64::try_from(status.failed_nodes.len()).unwrap();
    assert_eq!(status.failed_nodes_omitted, Some(10_000 - shown));
    let shown = i64::try_from(status.candidates.len()).unwrap();
    assert_eq!(status.candidates_omitted, Some(2_000_000 - shown));
    let shown = i64::try_from(status.fastest_growing.len()).unwrap();
    assert_eq!(status.fastest_growing_omitted, Some(1_000_000 - shown));
}

/// `kubectl` prints statuses into terminals.
#[test]
fn of_no_name_in_a_status_a_terminal_obeys_anything() {
    for text in crate::hostile::TEXTS {
        let text = || (*text).to_owned();
        let mut figures = some_figures();
        figures.top.iter_mut().for_each(|row| row.name = text());
        figures.fastest.iter_mut().for_each(|row| row.name = text());
        let origin =
            serde_json::json!({"pod": text(), "container": text(), "image": text(), "compose_project": text()});
        figures.removable.iter_mut().for_each(|row| (row.name, row.origin) = (text(), origin.clone()));
        let entries = figures.top_files.iter_mut().chain(&mut figures.top_directories);
        entries.for_each(|row| (row.name, row.path) = (text(), text()));
        let failed = FailedNode { node: "n".to_owned(), reason: text(), message: text() };
        let mut observed = observed(Runs {
            asked: Some(7),
            finished: vec![ended(RunResult::Partial, &text())],
            failed_nodes: FailedNodes { nodes: vec![failed], total: 1 },
            figures: Some(figures),
            figures_read: true,
            ..Runs::default()
        });
        observed.database.server_version = Some(text());
        edit_fleet(&mut observed, |fleet| fleet.forbidden = Some(text()));
        let next = status::next(&scan(), &observed, None);
        assert_eq!(crate::hostile::harm_in(&serde_json::json!(next)), [""; 0]);
        let problem = DatabaseProblem { reason: "Unreachable", message: text() };
        let away = Observed { runs: None, database: healthy().with_problem(problem, observed.now), ..observed };
        assert_eq!(crate::hostile::harm_in(&serde_json::json!(status::next(&scan(), &away, None))), [""; 0]);
    }
}

#[test]
fn limits_have_the_documented_defaults() {
    let spec: VolumeScanSpec = serde_json::from_value(serde_json::json!({})).unwrap();
    assert_eq!(
        spec.limits,
        Limits {
            max_parallel_nodes: NodeLimit::Count(20),
            parallel_volumes: 1,
            entries_per_second: None,
            volume_timeout_seconds: 600,
            node_timeout_seconds: 3600,
            run_timeout_seconds: 7200,
            min_interval_seconds: 0
        }
    );
    assert_eq!(spec, VolumeScanSpec::default(), "an empty spec is what the code takes for one");
}
