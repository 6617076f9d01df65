//! The figures that alerts judge.

use volumeviz::domain::alert::judge::Sample;
use volumeviz::domain::alert::rule::Rule;
use volumeviz::domain::measurement::VolumeReason as Reason;
use volumeviz::store::samples::{self, NodeSample, NodeVolumes, Query, Selected, View, Volumes};

use super::*;

const SIZE: Rule = Rule::SizeAbove { bytes: 1000 };
const ALL: Query<'_> = Query { volumes: None, open: &[], min_bytes: 0, beyond: 100, missing: 100 };

fn selected(scan: &str, node: &str) -> Selected {
    Selected { scan: scan.to_owned(), node: node.to_owned(), unused_after_days: 30 }
}

async fn view(database: &Database, nodes: &[&str]) -> View {
    let selected: Vec<Selected> = nodes.iter().map(|node| selected("scan-uid", node)).collect();
    samples::view(&mut *database.controller().await, &selected).await.unwrap()
}

async fn volumes(database: &Database, rule: Rule, query: Query<'_>) -> Volumes {
    let view = view(database, &["n1", "n2"]).await;
    samples::of_volumes(&mut *database.controller().await, &view, rule, query).await.unwrap().unwrap()
}

async fn nodes(database: &Database, rule: Rule, min_bytes: i64) -> Vec<NodeSample> {
    let view = view(database, &["n1", "n2"]).await;
    let mut found =
        samples::of_nodes(&mut *database.controller().await, &view, rule, None, min_bytes).await.unwrap().unwrap();
    found.sort_by(|a, b| a.node.cmp(&b.node));
    found
}

fn found(volumes: &Volumes) -> Vec<(&str, Sample)> {
    let mut found: Vec<_> = volumes.rows.iter().map(|row| (row.name.as_str(), row.sample)).collect();
    found.sort_by_key(|(name, _)| *name);
    found
}

async fn scan(database: &Database, key: &str, measured: &[(&str, &[(&str, u64)])]) -> i64 {
    let names: Vec<&str> = measured.iter().map(|(node, _)| *node).collect();
    let run = plan(database, key, &names).await;
    for (node, volumes) in measured {
        Agent::on(database, node).measure(ticket(database, run, node).await, volumes).await;
    }
    finish(database, run).await;
    run
}

/// A run over n1 that found these.
async fn reported(database: &Database, results: &[VolumeResult]) {
    let (run, ticket, agent) = claimed(database).await;
    let listed: Vec<_> = results.iter().map(|result| volume(&result.volume)).collect();
    agent.inventory(ticket, &listed, &[]).await;
    agent.report(ticket, results).await;
    agent.complete(ticket, results.len()).await;
    finish(database, run).await;
}

async fn finish(database: &Database, run: i64) {
    let mut conn = database.controller().await;
    store::jobs::end_open(&mut conn, run).await.unwrap();
    assert!(store::runs::finish(&mut conn, run, volumeviz::domain::run::RunResult::Succeeded, "test").await.unwrap());
}

async fn id(database: &Database, name: &str) -> i64 {
    let sql = "SELECT id FROM volumes WHERE name = $1 ORDER BY id DESC LIMIT 1";
    sqlx::query_scalar(sql).bind(name).fetch_one(&mut **database.controller().await).await.unwrap()
}

fn unmeasured(name: &str, reason: Reason) -> VolumeResult {
    VolumeResult {
        completeness: Completeness::Unknown,
        reason: Some(reason),
        method: None,
        figures: None,
        ..result(name, 0)
    }
}

#[tokio::test]
async fn only_what_is_beyond_the_limit_or_open_or_unknown_is_returned_and_all_is_counted() {
    let database = Database::new().await;
    scan(&database, "once", &[("n1", &[("big", 2000), ("bigger", 3000), ("small", 10), ("limit", 1000)])]).await;
    let found_all = volumes(&database, SIZE, ALL).await;
    assert_eq!(found(&found_all), [("big", Sample::Exactly(2000.0)), ("bigger", Sample::Exactly(3000.0))]);
    assert_eq!((found_all.evaluated, found_all.missing, found_all.beyond), (4, 0, 2));
    let worst = volumes(&database, SIZE, Query { beyond: 1, ..ALL }).await;
    assert_eq!((found(&worst), worst.beyond), (vec![("bigger", Sample::Exactly(3000.0))], 2), "the worst come first");
    let small = [id(&database, "small").await];
    let open = volumes(&database, SIZE, Query { beyond: 0, open: &small, ..ALL }).await;
    assert_eq!(found(&open), [("small", Sample::Exactly(10.0))]);
    let chosen = volumes(&database, SIZE, Query { volumes: Some(&small), ..ALL }).await;
    assert_eq!((chosen.evaluated, chosen.rows.len()), (1, 0));
    let none = volumes(&database, SIZE, Query { volumes: Some(&[]), ..ALL }).await;
    assert_eq!(none.evaluated, 0);
}

#[tokio::test]
async fn a_part_is_a_lower_bound_and_unknown_is_no_figure() {
    let database = Database::new().await;
    let part =
        VolumeResult { completeness: Completeness::Partial, reason: Some(Reason::ReadErrors), ..result("part", 2000) };
    reported(&database, &[part, unmeasured("nfs", Reason::NotMounted), unmeasured("late", Reason::VolumeTimeout)])
        .await;
    let read = volumes(&database, SIZE, ALL).await;
    let expected = [("late", Sample::Missing), ("nfs", Sample::Missing), ("part", Sample::AtLeast(2000.0))];
    assert_eq!((found(&read).as_slice(), read.missing), (&expected[..], 2));
    assert_eq!(volumes(&database, SIZE, Query { missing: 1, ..ALL }).await.rows.len(), 2);
    let files = volumes(&database, Rule::FilesAbove { files: 2 }, Query { missing: 0, ..ALL }).await;
    assert_eq!(found(&files), [("part", Sample::AtLeast(3.0))]);
    assert_eq!(nodes(&database, SIZE, 0).await[0].sample, Sample::AtLeast(2000.0));
}

#[tokio::test]
async fn what_was_not_to_be_measured_is_no_part_of_a_sum() {
    let database = Database::new().await;
    reported(&database, &[result("db", 500), unmeasured("nfs", Reason::NotMounted)]).await;
    assert_eq!(nodes(&database, SIZE, 0).await[0].sample, Sample::Exactly(500.0));
}

#[tokio::test]
async fn a_volume_without_data_on_its_node_is_asked_only_what_needs_no_measuring() {
    let database = Database::new().await;
    let elsewhere = [unmeasured("nfs", Reason::NetworkFilesystem), unmeasured("plugin", Reason::DriverNotLocal)];
    reported(&database, &[&[result("db", 500), unmeasured("late", Reason::VolumeTimeout)], &elsewhere[..]].concat())
        .await;
    execute(&database, "UPDATE volumes SET unused_since = last_seen_at - interval '9 days'").await;
    let counts = async |rule, min_bytes| {
        let volumes = volumes(&database, rule, Query { min_bytes, ..ALL }).await;
        (volumes.evaluated, volumes.missing)
    };
    assert_eq!(counts(Rule::SizeAbove { bytes: 1 }, 0).await, (2, 1));
    assert_eq!(counts(Rule::GrowthAbove { bytes_per_day: 1 }, 0).await, (2, 2));
    assert_eq!(counts(Rule::UnusedLongerThan { days: 7 }, 0).await, (4, 0));
    assert_eq!(counts(Rule::UnusedLongerThan { days: 7 }, 100).await, (2, 1), "nobody knows how big they are");
}

#[tokio::test]
async fn what_the_last_run_did_not_measure_is_no_figure() {
    let database = Database::new().await;
    scan(&database, "t:1", &[("n1", &[("a", 2000)]), ("n2", &[("b", 3000)])]).await;
    assert_eq!(nodes(&database, SIZE, 0).await.len(), 2);
    let run = plan(&database, "t:2", &["n1", "n2"]).await;
    Agent::on(&database, "n1").measure(ticket(&database, run, "n1").await, &[("a", 2500)]).await;
    finish(&database, run).await;
    let read = volumes(&database, SIZE, ALL).await;
    assert_eq!(found(&read), [("a", Sample::Exactly(2500.0)), ("b", Sample::Missing)]);
    let expected = [("n1", Sample::Exactly(2500.0)), ("n2", Sample::Missing)];
    assert_eq!(
        nodes(&database, SIZE, 0).await.iter().map(|row| (row.node.as_str(), row.sample)).collect::<Vec<_>>(),
        expected
    );
    let view = view(&database, &["n1", "n2"]).await;
    assert_eq!(view.fresh_nodes().into_iter().collect::<Vec<_>>(), ["n1"]);
}

#[tokio::test]
async fn small_volumes_do_not_count_and_those_of_unknown_size_are_no_figure() {
    let database = Database::new().await;
    reported(&database, &[result("big", 2000), result("small", 100), unmeasured("nfs", Reason::NotMounted)]).await;
    execute(&database, "UPDATE volumes SET unused_since = clock_timestamp() - interval '9 days'").await;
    let unused = Rule::UnusedLongerThan { days: 7 };
    let read = volumes(&database, unused, Query { min_bytes: 1000, ..ALL }).await;
    let names: Vec<_> = found(&read).into_iter().map(|(name, sample)| (name, sample == Sample::Missing)).collect();
    assert_eq!((names, read.evaluated), (vec![("big", false), ("nfs", true)], 2));
    assert_eq!(volumes(&database, unused, ALL).await.beyond, 3, "without a minimum nobody asks for the size");
    let node = nodes(&database, Rule::FilesAbove { files: 1 }, 1000).await;
    assert_eq!(node[0].sample, Sample::AtLeast(3.0), "nobody can say whether nfs counts");
}

#[tokio::test]
async fn every_rule_has_its_figure() {
    let database = Database::new().await;
    let (run, ticket, agent) = claimed(&database).await;
    agent.inventory(ticket, &["db", "held"].map(volume), &[container("c", "exited", &["held"])]).await;
    let half_full = Filesystem { capacity_bytes: 4000, available_bytes: 1500 };
    agent
        .report(ticket, &[VolumeResult { filesystem: Some(half_full), ..result("db", 2000) }, result("held", 700)])
        .await;
    agent.complete(ticket, 2).await;
    finish(&database, run).await;
    execute(&database, "UPDATE volume_latest SET growth_bytes_per_day = 500 FROM volumes WHERE volumes.id = volume_latest.volume_id AND name = 'db'").await;
    execute(&database, "UPDATE volumes SET unused_since = last_seen_at - interval '40 days'").await;
    let db = [id(&database, "db").await];
    let of_db = Query { volumes: Some(&db), ..ALL };
    for (rule, figure) in [
        (SIZE, 2000.0),
        (Rule::PercentOfCapacityAbove { percent: 40 }, 50.0),
        (Rule::GrowthAbove { bytes_per_day: 100 }, 500.0),
        (Rule::FullWithin { days: 7 }, 3.0),
        (Rule::FilesAbove { files: 1 }, 3.0),
        (Rule::UnusedLongerThan { days: 30 }, 40.0),
    ] {
        let read = volumes(&database, rule, of_db).await;
        assert_eq!(found(&read), [("db", Sample::Exactly(figure))], "{rule:?}");
    }
    let held = volumes(&database, Rule::UnusedLongerThan { days: 30 }, ALL).await;
    let held = held.rows.iter().find(|row| row.name == "held").unwrap();
    assert_eq!(held.held_by_stopped, 1, "a volume that a stopped container holds is told with it");
    for (rule, figure) in [
        (SIZE, 2700.0),
        (Rule::FilesAbove { files: 1 }, 6.0),
        (Rule::GrowthAbove { bytes_per_day: 1 }, 500.0),
        (Rule::CandidateBytesAbove { bytes: 1 }, 2000.0),
    ] {
        assert_eq!(nodes(&database, rule, 0).await[0].sample, Sample::Exactly(figure), "{rule:?}");
    }
}

#[tokio::test]
async fn a_volume_that_does_not_grow_is_never_full_and_one_of_unknown_growth_has_no_figure() {
    let database = Database::new().await;
    scan(&database, "once", &[("n1", &[("shrinking", 10), ("new", 10)])]).await;
    execute(&database, "UPDATE volume_latest SET growth_bytes_per_day = -5 FROM volumes WHERE volumes.id = volume_latest.volume_id AND name = 'shrinking'").await;
    let shrinking = [id(&database, "shrinking").await];
    let read = volumes(&database, Rule::FullWithin { days: 7 }, Query { open: &shrinking, ..ALL }).await;
    assert_eq!(found(&read), [("new", Sample::Missing), ("shrinking", Sample::Exactly(f64::INFINITY))]);
}

#[tokio::test]
async fn a_volume_in_use_is_not_unused() {
    let database = Database::new().await;
    let (run, ticket, agent) = claimed(&database).await;
    agent.inventory(ticket, &[volume("db")], &[container("c", "running", &["db"])]).await;
    agent.report(ticket, &[result("db", 1)]).await;
    agent.complete(ticket, 1).await;
    finish(&database, run).await;
    let open = [id(&database, "db").await];
    let read = volumes(&database, Rule::UnusedLongerThan { days: 1 }, Query { open: &open, ..ALL }).await;
    assert_eq!(found(&read), [("db", Sample::Exactly(0.0))]);
}

#[tokio::test]
async fn what_was_unused_for_too_short_a_time_is_no_candidate() {
    let database = Database::new().await;
    scan(&database, "once", &[("n1", &[("old", 2000), ("young", 700)])]).await;
    execute(&database, "UPDATE volumes SET unused_since = last_seen_at - make_interval(days => CASE name WHEN 'old' THEN 31 ELSE 29 END)").await;
    let read = nodes(&database, Rule::CandidateBytesAbove { bytes: 1 }, 0).await;
    assert_eq!(read[0].sample, Sample::Exactly(2000.0));
}

#[tokio::test]
async fn a_removed_volume_has_no_figure_and_is_told_to_be_gone() {
    let database = Database::new().await;
    scan(&database, "t:1", &[("n1", &[("kept", 2000), ("removed", 2000)])]).await;
    let gone = id(&database, "removed").await;
    let mut conn = database.controller().await;
    let alert = store::alerts::Alert {
        uid: "uid",
        name: "big",
        rule: "sizeAbove",
        scope: "Volume",
        severity: volumeviz::domain::alert::Severity::Info,
        threshold: 1.0,
        receivers: &[],
    };
    let state = store::alerts::State {
        subject: "n1/removed".to_owned(),
        volume_id: Some(gone),
        standing: volumeviz::domain::alert::Standing::Firing,
        value: Some(1.0),
        message: String::new(),
        told: false,
        seen: None,
    };
    store::alerts::note(&mut conn, alert, &[state], chrono::Utc::now()).await.unwrap();
    assert!(!store::alerts::open(&mut conn, "uid").await.unwrap()[0].volume_gone);
    scan(&database, "t:2", &[("n1", &[("kept", 2000)])]).await;
    let read = volumes(&database, SIZE, Query { open: &[gone], ..ALL }).await;
    assert_eq!(found(&read), [("kept", Sample::Exactly(2000.0))]);
    let open = &store::alerts::open(&mut conn, "uid").await.unwrap()[0];
    assert!(open.volume_gone);
    assert_eq!(open.volume, Some(("n1".to_owned(), "removed".to_owned())));
}

#[tokio::test]
async fn a_node_without_volumes_has_the_figure_zero_and_one_without_an_engine_is_named() {
    let database = Database::new().await;
    scan(&database, "once", &[("n1", &[]), ("n2", &[("a", 5)])]).await;
    let none = NodeSample { node: "n1".to_owned(), sample: Sample::Exactly(0.0), volumes: NodeVolumes::None };
    let growth = Rule::GrowthAbove { bytes_per_day: 1 };
    let young = NodeSample { node: "n2".to_owned(), sample: Sample::Missing, volumes: NodeVolumes::Young };
    assert_eq!(nodes(&database, SIZE, 0).await[0], none);
    assert_eq!(nodes(&database, growth, 0).await, [none, young]);
    execute(&database, "UPDATE volume_latest SET growth_bytes_per_day = 7").await;
    assert_eq!(nodes(&database, growth, 0).await[1].sample, Sample::Exactly(7.0));
    execute(&database, "UPDATE nodes SET has_engine = false WHERE name = 'n2'").await;
    assert_eq!(samples::without_engine(&mut *database.controller().await).await.unwrap(), ["n2"]);
}

#[tokio::test]
async fn runs_tell_when_they_last_had_results_and_how_many_nodes_failed() {
    let database = Database::new().await;
    let scans = ["scan-uid".to_owned()];
    let mut conn = database.controller().await;
    let none = samples::runs(&mut conn, &scans).await.unwrap();
    assert_eq!((none.last_id, none.last_useful_at, none.failed_nodes), (None, None, None));
    let run = plan(&database, "t:1", &["n1", "n2"]).await;
    Agent::on(&database, "n1").measure(ticket(&database, run, "n1").await, &[("a", 1)]).await;
    finish(&database, run).await;
    let read = samples::runs(&mut conn, &scans).await.unwrap();
    assert_eq!((read.last_id, read.failed_nodes), (Some(run), Some(1)));
    assert_eq!((read.last_useful_at, read.last_useful_at.is_some()), (read.last_completed_at, true));
    let view = view(&database, &["n1", "n2"]).await;
    let completed = samples::last_completed(&mut conn, &view).await.unwrap();
    assert_eq!(completed.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), ["n1"]);
    execute(&database, "UPDATE scan_jobs SET reason = 'NoDockerEngine' WHERE node = 'n2'").await;
    let engines = samples::runs(&mut conn, &scans).await.unwrap();
    assert_eq!(engines.failed_nodes, Some(0), "a node without an engine has nothing to tell");
    assert_eq!(samples::runs(&mut conn, &["other".to_owned()]).await.unwrap().last_id, None);
}

#[tokio::test]
async fn what_could_not_be_measured_leaves_a_sum_a_lower_bound() {
    let database = Database::new().await;
    reported(&database, &[result("db", 500), unmeasured("elsewhere", Reason::Unreadable)]).await;
    assert_eq!(nodes(&database, SIZE, 0).await[0].sample, Sample::AtLeast(500.0));
    let candidates = nodes(&database, Rule::CandidateBytesAbove { bytes: 1 }, 0).await;
    assert_eq!(candidates[0].sample, Sample::Exactly(0.0), "it is no candidate");
}

#[tokio::test]
async fn a_scan_that_only_lists_takes_no_figure_away() {
    let database = Database::new().await;
    scan(&database, "t:1", &[("n1", &[("a", 2000)])]).await;
    let listing = plan(&database, "t:2", &["n1"]).await;
    let (agent, ticket) = (Agent::on(&database, "n1"), ticket(&database, listing, "n1").await);
    agent.claimed(ticket).await;
    agent.inventory(ticket, &[volume("a")], &[]).await;
    agent.report(ticket, &[unmeasured("a", Reason::NotMeasured)]).await;
    agent.complete(ticket, 1).await;
    finish(&database, listing).await;
    execute(&database, "UPDATE scan_runs SET scan_uid = 'listing' WHERE run_key = 't:2'").await;
    let both = [selected("scan-uid", "n1"), selected("listing", "n1")];
    let mut conn = database.controller().await;
    let view = samples::view(&mut conn, &both).await.unwrap();
    let read = samples::of_volumes(&mut conn, &view, SIZE, ALL).await.unwrap().unwrap();
    assert_eq!(found(&read), [("a", Sample::Exactly(2000.0))]);
}

#[tokio::test]
async fn growth_of_what_could_not_be_measured_is_no_figure() {
    let database = Database::new().await;
    scan(&database, "t:1", &[("n1", &[("a", 2000)])]).await;
    execute(&database, "UPDATE volume_latest SET growth_bytes_per_day = 500").await;
    let run = plan(&database, "t:2", &["n1"]).await;
    let (agent, ticket) = (Agent::on(&database, "n1"), ticket(&database, run, "n1").await);
    agent.claimed(ticket).await;
    agent.inventory(ticket, &[volume("a")], &[]).await;
    agent.report(ticket, &[unmeasured("a", Reason::VolumeTimeout)]).await;
    agent.complete(ticket, 1).await;
    finish(&database, run).await;
    for rule in [Rule::GrowthAbove { bytes_per_day: 100 }, Rule::FullWithin { days: 3000 }] {
        assert_eq!(found(&volumes(&database, rule, ALL).await), [("a", Sample::Missing)], "{rule:?}");
    }
    assert_eq!(nodes(&database, Rule::GrowthAbove { bytes_per_day: 100 }, 0).await[0].sample, Sample::Missing);
}
