//! What a scan's spec says about its runs: attempts, intervals, candidates for removal, growth, schedules.

use chrono::Timelike;
use volumeviz::domain::run::{CancelReason, RunKey};
use volumeviz::store::figures::{self, View};

use super::*;

async fn read(database: &Database, unused_after_days: i32) -> figures::Figures {
    let nodes = ["n1".to_owned()];
    let view = View { scan_uid: "scan-uid", nodes: &nodes, unused_after_days };
    figures::read(&mut *database.controller().await, view, 10).await.unwrap().unwrap()
}

/// Moves what is known of a volume's past back in time.
async fn age(database: &Database, name: &str, first_seen_days: i32, last_used_days: Option<i32>) {
    let aged = "UPDATE volumes SET first_seen_at = clock_timestamp() - make_interval(days => $2),
        last_used_at = clock_timestamp() - make_interval(days => $3),
        unused_since = CASE WHEN NOT is_active THEN clock_timestamp() - make_interval(days => coalesce($3, $2)) END WHERE name = $1";
    let aged = sqlx::query(aged).bind(name).bind(first_seen_days).bind(last_used_days);
    assert_eq!(aged.execute(&mut **database.superuser().await).await.unwrap().rows_affected(), 1);
}

#[tokio::test]
async fn attempts_end_where_the_scan_says() {
    let database = Database::new().await;
    for (max_attempts, key) in [(1, "t:1"), (2, "t:2")] {
        let run = plan_work(&database, key, &["n1"], json!({"maxAttempts": max_attempts})).await;
        for attempt in 1..=max_attempts {
            let held = ticket(&database, run, "n1").await;
            let agent = Agent::on(&database, "n1");
            assert_eq!(agent.claimed(held).await.attempt, attempt);
            assert_eq!(agent.fail(held, FailureClass::Retryable, "DockerUnreachable").await, Reply::Ok);
        }
        let job = &store::jobs::of_run(&mut *database.controller().await, run, "", 10).await.unwrap()[0];
        assert_eq!((job.status.as_str(), job.attempt), ("failed", max_attempts));
    }
}

#[tokio::test]
async fn an_expired_lease_ends_the_last_attempt() {
    let database = Database::new().await;
    let (run, held, _) = claimed(&database).await;
    let mut conn = database.controller().await;
    let job = store::jobs::open(&mut conn, run).await.unwrap()[0].id;
    database.expire_leases().await;
    assert!(store::jobs::re_ticket(&mut conn, job, held, 1).await.unwrap());
    let job = &store::jobs::of_run(&mut conn, run, "", 10).await.unwrap()[0];
    assert_eq!((job.status.as_str(), job.reason.as_deref()), ("failed", Some("AgentLost")));
}

#[tokio::test]
async fn what_was_measured_a_short_time_ago_counts_and_is_not_measured_again() {
    let database = Database::new().await;
    let first = plan(&database, "once", &["n1"]).await;
    let agent = Agent::on(&database, "n1");
    agent.measure(ticket(&database, first, "n1").await, &[("fresh", 100), ("old", 200)]).await;
    execute(
        &database,
        "UPDATE volume_latest SET measured_at = clock_timestamp() - interval '2 hours'
         WHERE volume_id = (SELECT id FROM volumes WHERE name = 'old')",
    )
    .await;
    let sizes = database.number("SELECT count(*) FROM volume_sizes").await;
    let limits = json!({"limits": {"minIntervalSeconds": 3600}});
    let run = plan_work(&database, "t:again", &["n1"], limits.clone()).await;
    let held = ticket(&database, run, "n1").await;
    assert_eq!(agent.claimed(held).await.final_volumes, [""; 0]);
    let listed = |volumes: &[&str]| InventoryBody {
        instance: agent.instance,
        engine: Engine { id: "engine".to_owned(), version: "28".to_owned(), data_root: "/".to_owned() },
        volumes: volumes.iter().map(|name| volume(name)).collect(),
        containers: Vec::new(),
        totals: Some(InventoryTotals { volumes: count(volumes.len()), containers: 0 }),
    };
    let reply = agent.list(held, &listed(&["fresh", "new", "old"])).await;
    assert_eq!((reply.reply, reply.final_volumes), (Reply::Ok, vec!["fresh".to_owned()]));
    agent.report(held, &[result("new", 1), result("old", 250)]).await;
    assert_eq!(agent.complete(held, 3).await, Reply::Ok);
    assert_eq!(database.number("SELECT count(*) FROM volume_sizes").await, sizes + 2, "no size is kept twice");
    assert_eq!(read(&database, 30).await.allocated_bytes, 351);

    // A file system's own word is no walk, and without an interval everything is measured.
    execute(&database, "UPDATE scan_results SET method = 'Statvfs'").await;
    for (key, work, expected) in [("t:walk", limits, vec![]), ("t:always", json!({}), vec![])] {
        let run = plan_work(&database, key, &["n1"], work).await;
        let held = ticket(&database, run, "n1").await;
        agent.claimed(held).await;
        assert_eq!(agent.list(held, &listed(&["fresh", "new", "old"])).await.final_volumes, expected as Vec<String>);
        agent.fail(held, FailureClass::Permanent, "AgentError").await;
    }
    let fast = json!({"mode": "Fast", "limits": {"minIntervalSeconds": 3600}});
    let run = plan_work(&database, "t:fast", &["n1"], fast).await;
    let held = ticket(&database, run, "n1").await;
    agent.claimed(held).await;
    assert_eq!(agent.list(held, &listed(&["fresh", "new", "old"])).await.final_volumes.len(), 3);
}

#[tokio::test]
async fn a_result_without_the_biggest_files_is_not_reused_by_who_asks_for_them() {
    let database = Database::new().await;
    let agent = Agent::on(&database, "n1");
    let volumes = ["none", "two", "all", "files"].map(volume);
    let with_directory = |name: &str| VolumeResult { top_directories: Some(entries(&[(".", 1)])), ..result(name, 1) };
    let first = plan(&database, "1", &["n1"]).await;
    let held = ticket(&database, first, "n1").await;
    agent.claimed(held).await;
    agent.inventory(held, &volumes, &[]).await;
    let two = VolumeResult { top_files: Some(entries(&[("a", 2), ("b", 1)])), ..with_directory("two") };
    let all = VolumeResult { top_files: Some(entries(&[("a", 3), ("b", 2), ("c", 1)])), ..with_directory("all") };
    let files = VolumeResult { top_directories: Some(entries(&[])), volume: "files".to_owned(), ..all.clone() };
    agent.report(held, &[result("none", 1), two, all, files]).await;
    assert_eq!(agent.complete(held, 4).await, Reply::Ok);
    // Each has three files and a directory.
    for (top_entries, expected) in
        [(0, vec!["all", "files", "none", "two"]), (2, vec!["all", "two"]), (20, vec!["all"])]
    {
        let work = json!({"topEntries": top_entries, "limits": {"minIntervalSeconds": 3600}});
        let run = plan_work(&database, &format!("t:{top_entries}"), &["n1"], work).await;
        let held = ticket(&database, run, "n1").await;
        agent.claimed(held).await;
        let body = InventoryBody {
            instance: agent.instance,
            engine: Engine { id: "engine".to_owned(), version: "28".to_owned(), data_root: "/".to_owned() },
            volumes: volumes.to_vec(),
            containers: Vec::new(),
            totals: Some(InventoryTotals { volumes: 4, containers: 0 }),
        };
        assert_eq!(agent.list(held, &body).await.final_volumes, expected, "topEntries: {top_entries}");
        agent.fail(held, FailureClass::Permanent, "AgentError").await;
    }
    let kept = database.number("SELECT count(*) FROM scan_results WHERE jsonb_array_length(top_files) = 3").await;
    assert_eq!(kept, 2 + 1 + 1, "what is reused keeps its lists where they are asked for");
}

#[tokio::test]
async fn candidates_are_what_we_saw_unused_for_long_enough() {
    let database = Database::new().await;
    let (_, held, agent) = claimed(&database).await;
    let names = ["never-used", "once-used", "used-lately", "in-use", "held", "new"];
    let volumes: Vec<_> = names.iter().map(|name| volume(name)).collect();
    let containers = [container("r", "running", &["in-use"]), container("e", "exited", &["held"])];
    agent.inventory(held, &volumes, &containers).await;
    let results: Vec<_> = names.iter().zip([10, 20, 40, 80, 160, 320]).map(|(name, size)| result(name, size)).collect();
    agent.report(held, &results).await;
    assert_eq!(agent.complete(held, 6).await, Reply::Ok);
    for (name, first_seen, last_used) in [
        ("never-used", 40, None),
        ("once-used", 400, Some(31)),
        ("used-lately", 400, Some(29)),
        ("in-use", 400, Some(60)),
        ("held", 50, None),
        ("new", 29, None),
    ] {
        age(&database, name, first_seen, last_used).await;
    }
    let figures = read(&database, 30).await;
    assert_eq!((figures.candidates, figures.candidate_bytes, figures.candidates_held), (2, 30, 1));
    let listed: Vec<_> = figures
        .removable
        .iter()
        .map(|row| (row.name.as_str(), row.seen_used, row.held_by_stopped, row.allocated_bytes))
        .collect();
    let expected =
        [("once-used", true, 0, Some(20)), ("never-used", false, 0, Some(10)), ("held", false, 1, Some(160))];
    assert_eq!(listed, expected, "free ones first, then by size");
    let unused = figures.removable[0].last_seen_at - figures.removable[0].unused_since;
    assert!((unused.num_minutes() - 31 * 24 * 60).abs() <= 1, "since it was seen used last: {unused}");
    assert_eq!(read(&database, 45).await.candidates, 0);

    // A look that finds it in use begins the count anew, at the next look that does not.
    let unused_now = "SELECT count(*) FROM volumes WHERE name = 'once-used' AND unused_since > clock_timestamp() - interval '1 minute'";
    let in_use = "SELECT count(*) FROM volumes WHERE name = 'once-used' AND unused_since IS NULL";
    for (key, user, expected) in [("t:used", "running", in_use), ("t:unused", "exited", unused_now)] {
        let run = plan(&database, key, &["n1"]).await;
        let held = ticket(&database, run, "n1").await;
        agent.claimed(held).await;
        let containers = [&containers[..], &[container("u", user, &["once-used"])]].concat();
        agent.inventory(held, &volumes, &containers).await;
        assert_eq!(database.number(expected).await, 1, "{key}");
        agent.fail(held, FailureClass::Permanent, "AgentError").await;
    }
    execute(&database, "DELETE FROM containers WHERE container_id = 'u'").await;
    age(&database, "once-used", 400, Some(31)).await;

    // What nobody looked at since says nothing of the time since.
    execute(&database, "UPDATE volumes SET last_seen_at = clock_timestamp() - interval '15 days'").await;
    assert_eq!(read(&database, 30).await.candidates, 0);
    execute(
        &database,
        "UPDATE volumes SET last_seen_at = clock_timestamp(),
             deleted_at = CASE name WHEN 'once-used' THEN clock_timestamp() END",
    )
    .await;
    assert_eq!(read(&database, 30).await.candidates, 1, "what is gone is no candidate");
}

#[tokio::test]
async fn growth_of_a_scan_is_the_sum_of_what_is_known() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    let volumes = [("fast", 1000), ("slow", 900), ("shrinking", 800), ("unknown", 700)];
    Agent::on(&database, "n1").measure(ticket(&database, run, "n1").await, &volumes).await;
    assert_eq!(read(&database, 30).await.growth, None, "nothing is known before five days");
    execute(
        &database,
        "UPDATE volume_latest SET growth_bytes_per_day = grown.bytes, growth_window_days = grown.days, growth_samples = grown.samples
         FROM (VALUES ('fast', 500, 6.6, 7), ('slow', 20, 12.9, 13), ('shrinking', -100, 5, 5)) AS grown (name, bytes, days, samples)
         JOIN volumes ON volumes.name = grown.name WHERE volume_latest.volume_id = volumes.id",
    )
    .await;
    let figures = read(&database, 30).await;
    let growth = figures::Growth { bytes_per_day: 420, window_days: 13, samples: 13, volumes: 3 };
    assert_eq!((figures.growth, figures.growing), (Some(growth), 2));
    let fastest: Vec<_> = figures.fastest.iter().map(|row| (row.name.as_str(), row.bytes_per_day)).collect();
    assert_eq!(fastest, [("fast", 500), ("slow", 20)], "what shrinks does not grow fast");
}

#[tokio::test]
async fn the_newest_scheduled_runs_tell_when_they_were_due() {
    let database = Database::new().await;
    let due_times =
        async |newest| store::runs::due_times(&mut *database.controller().await, "scan-uid", newest).await.unwrap();
    plan(&database, "t:s:2027-01-01T00:00:00Z", &["n1"]).await;
    assert!(due_times(9).await.is_empty());
    for hour in [9, 11, 10] {
        let due = format!("2026-01-01T{hour:02}:00:00Z").parse().unwrap();
        plan(&database, &RunKey::Scheduled(due).to_string(), &["n1"]).await;
    }
    let hours = async |newest| due_times(newest).await.iter().map(Timelike::hour).collect::<Vec<_>>();
    assert_eq!((hours(9).await, hours(2).await), (vec![11, 10, 9], vec![11, 10]));
}

#[tokio::test]
async fn jobs_that_agents_work_on_are_counted_over_all_scans() {
    let database = Database::new().await;
    let running = async || store::jobs::running(&mut *database.controller().await).await.unwrap();
    let run = plan(&database, "once", &["n1", "n2", "n3"]).await;
    assert_eq!(running().await, 0);
    for node in ["n1", "n2"] {
        Agent::on(&database, node).claimed(ticket(&database, run, node).await).await;
    }
    assert_eq!(running().await, 2);
    let cancelled = CancelReason::CancelRequested;
    store::runs::cancel(&mut *database.controller().await, &[run], cancelled).await.unwrap();
    assert_eq!(running().await, 0);
}
