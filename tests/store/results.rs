//! What is stored of measurements, and what a scan's figures are.

use super::*;
use volumeviz::domain::measurement::{VolumeCounts, VolumeReason};
use volumeviz::domain::run::RunResult;
use volumeviz::store::figures::{self, View};

async fn read(database: &Database, nodes: &[&str]) -> Option<figures::Figures> {
    let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
    let view = View { scan_uid: "scan-uid", nodes: &nodes, unused_after_days: 30 };
    figures::read(&mut *database.controller().await, view, 2).await.unwrap()
}

async fn finish(database: &Database, run: i64) {
    assert!(
        store::runs::finish(&mut *database.controller().await, run, RunResult::Succeeded, "RunSucceeded")
            .await
            .unwrap()
    );
}

fn partial(name: &str, bytes: u64) -> VolumeResult {
    VolumeResult { completeness: Completeness::Partial, reason: Some(VolumeReason::ReadErrors), ..result(name, bytes) }
}

#[tokio::test]
async fn nothing_measured_is_not_zero() {
    let database = Database::new().await;
    assert_eq!(read(&database, &["n1"]).await, None);
}

#[tokio::test]
async fn totals_are_what_a_hand_would_sum_up() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    let anonymous = InventoryVolume { kind: VolumeKind::Anonymous, ..volume("anonymous") };
    let unselected = InventoryVolume { selected: false, ..volume("unselected") };
    let volumes = [volume("big"), volume("part"), anonymous, volume("nfs"), volume("slow"), volume("gone"), unselected];
    let containers = [
        container("r", "running", &["big"]),
        container("r2", "running", &["big"]),
        container("e", "exited", &["big", "part"]),
    ];
    agent.inventory(ticket, &volumes, &containers).await;
    let results = [
        result("big", 1000),
        partial("part", 500),
        result("anonymous", 10),
        VolumeResult::unknown("nfs", VolumeReason::NetworkFilesystem),
        VolumeResult::unknown("slow", VolumeReason::VolumeTimeout),
        VolumeResult::unknown("gone", VolumeReason::Vanished),
    ];
    agent.report(ticket, &results).await;
    assert_eq!(agent.complete(ticket, 6).await, Reply::Ok);
    let found = read(&database, &["n1"]).await.unwrap();
    let expected =
        VolumeCounts { volumes: 5, measured: 2, partial: 1, failed: 1, unknown: 1, anonymous: 1, in_use: 1, unused: 4 };
    assert_eq!(found.counts, expected);
    assert_eq!((found.allocated_bytes, found.apparent_bytes, found.files), (1510, 755, 9));
    let top: Vec<_> =
        found.top.iter().map(|v| (v.name.as_str(), v.completeness, v.used_by_running, v.used_by_stopped)).collect();
    assert_eq!(top, [("big", Completeness::Complete, 2, 1), ("part", Completeness::Partial, 0, 1)]);
}

#[tokio::test]
async fn the_biggest_files_and_directories_are_those_of_all_volumes() {
    let database = Database::new().await;
    let (run, ticket_held, agent) = claimed(&database).await;
    agent.inventory(ticket_held, &[volume("a"), volume("b"), volume("empty"), volume("unasked")], &[]).await;
    let with = |name, files: &[(&str, u64)], directories: &[(&str, u64)]| VolumeResult {
        top_files: Some(entries(files)),
        top_directories: Some(entries(directories)),
        ..result(name, 100)
    };
    let results = [
        with("a", &[("log/x", 50), ("y", 40)], &[(".", 60), ("log", 5)]),
        with("b", &[("z", 45), ("w", 1)], &[("d", 70), (".", 65)]),
        with("empty", &[], &[(".", 1)]),
        result("unasked", 1000),
    ];
    agent.report(ticket_held, &results).await;
    assert_eq!(agent.complete(ticket_held, 4).await, Reply::Ok);
    let found = read(&database, &["n1"]).await.unwrap();
    let told = |list: &[figures::EntryRow]| -> Vec<(String, String, i64)> {
        list.iter().map(|entry| (entry.name.clone(), entry.path.clone(), entry.allocated_bytes)).collect()
    };
    let entry = |name: &str, path: &str, bytes| (name.to_owned(), path.to_owned(), bytes);
    assert_eq!(told(&found.top_files), [entry("a", "log/x", 50), entry("b", "z", 45)]);
    assert_eq!(told(&found.top_directories), [entry("b", "d", 70), entry("b", ".", 65)], "both of one volume");
    let rows = store::results::of_run(&mut *database.controller().await, run, 0, 10).await.unwrap();
    let files: Vec<_> = rows.iter().map(|row| row.top_files.clone()).collect();
    let expected = json!([{"path": "log/x", "allocated_bytes": 50}, {"path": "y", "allocated_bytes": 40}]);
    assert_eq!((&files[0], &files[2], &files[3]), (&Some(expected), &Some(json!([])), &None));

    let later = plan(&database, "2", &["n1"]).await;
    agent.measure(ticket(&database, later, "n1").await, &[("a", 100)]).await;
    let found = read(&database, &["n1"]).await.unwrap();
    assert_eq!((found.top_files, found.top_directories), (vec![], vec![]), "the last run was not asked for them");

    let last = plan(&database, "3", &["n1"]).await;
    let held = ticket(&database, last, "n1").await;
    agent.claimed(held).await;
    agent.inventory(held, &[volume("a")], &[]).await;
    agent.report(held, &[with("a", &[("nothing", 0)], &[(".", 60)])]).await;
    assert_eq!(agent.complete(held, 1).await, Reply::Ok);
    let found = read(&database, &["n1"]).await.unwrap();
    assert_eq!((found.top_files.len(), found.top_directories.len()), (0, 1), "what takes nothing is not big");
}

#[tokio::test]
async fn a_node_not_heard_in_the_last_run_keeps_its_figures_and_is_stale() {
    let database = Database::new().await;
    let first = plan(&database, "1", &["n1", "n2"]).await;
    Agent::on(&database, "n1").measure(ticket(&database, first, "n1").await, &[("a", 100)]).await;
    Agent::on(&database, "n2").measure(ticket(&database, first, "n2").await, &[("a", 10)]).await;
    finish(&database, first).await;
    let second = plan(&database, "2", &["n1", "n2"]).await;
    Agent::on(&database, "n1").measure(ticket(&database, second, "n1").await, &[("a", 200), ("b", 1)]).await;
    finish(&database, second).await;
    let both = read(&database, &["n1", "n2"]).await.unwrap();
    assert_eq!((both.allocated_bytes, both.counts.volumes, both.stale_nodes), (211, 3, 1));
    let left = read(&database, &["n1"]).await.unwrap();
    assert_eq!(
        (left.allocated_bytes, left.stale_nodes),
        (201, 0),
        "a node that left the cluster takes its figures along"
    );
}

#[tokio::test]
async fn unknown_never_replaces_what_is_known() {
    let database = Database::new().await;
    let (run, ticket_1, agent) = claimed(&database).await;
    agent.inventory(ticket_1, &[volume("a")], &[]).await;
    agent.report(ticket_1, &[result("a", 100)]).await;
    agent.complete(ticket_1, 1).await;
    finish(&database, run).await;
    let second = plan(&database, "2", &["n1"]).await;
    let held = ticket(&database, second, "n1").await;
    agent.claimed(held).await;
    agent.inventory(held, &[volume("a")], &[]).await;
    agent.report(held, &[VolumeResult::unknown("a", VolumeReason::VolumeTimeout)]).await;
    assert_eq!(database.number("SELECT count(*) FROM volume_sizes").await, 1, "no size is made up");
    assert_eq!(
        database.number("SELECT complete_allocated_bytes FROM volume_latest WHERE completeness = 'Unknown'").await,
        100
    );
}

#[tokio::test]
async fn a_sum_beyond_bigint_stands_at_its_maximum() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    agent.inventory(ticket, &[volume("a"), volume("b")], &[]).await;
    assert_eq!(agent.report(ticket, &[result("a", u64::MAX), result("b", u64::MAX)]).await, Reply::Ok);
    agent.complete(ticket, 2).await;
    assert_eq!(read(&database, &["n1"]).await.unwrap().allocated_bytes, i64::MAX);
}

#[tokio::test]
async fn the_age_of_a_result_is_counted_back_from_the_database_clock() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    agent.inventory(ticket, &[volume("a")], &[]).await;
    agent.report(ticket, &[VolumeResult { age_ms: 60_000, ..result("a", 1) }]).await;
    let age =
        database.number("SELECT extract(epoch FROM clock_timestamp() - measured_at)::bigint FROM scan_results").await;
    assert!((59..=70).contains(&age), "{age}");
}

#[tokio::test]
async fn heartbeats_touch_no_index() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    for _ in 0..20 {
        assert_eq!(agent.heartbeat(ticket).await, Reply::Ok);
    }
    // A backend tells its counts a moment later.
    let updates = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'scan_jobs'";
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while database.number(updates).await < 20 {
        assert!(std::time::Instant::now() < until, "the statistics are not there");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let cold = "SELECT n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'scan_jobs'";
    let cold = database.number(cold).await;
    assert!(cold <= 2, "{cold} of 20 heartbeats were not HOT");
}
