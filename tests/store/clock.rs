//! Clocks of nodes decide nothing: agents tell ages, never times, and the database's clock alone decides leases, deadlines and when
//! something was measured.

use super::*;

const TEN_MINUTES: i64 = 600;

/// How many seconds ago something was, by the database's clock.
macro_rules! seconds_ago {
    ($database:expr, $time:literal) => {
        $database.number(concat!("SELECT extract(epoch FROM clock_timestamp() - (", $time, "))::bigint")).await
    };
}

#[tokio::test]
async fn a_nodes_clock_ten_minutes_off_changes_no_lease_and_no_age() {
    let database = Database::new().await;
    let (run, ticket, agent) = claimed(&database).await;
    for (name, hours) in [("ahead", "2126-01-01T00:00:00Z"), ("behind", "1990-01-01T00:00:00Z")] {
        let volume = InventoryVolume { created_at: Some(hours.to_owned()), ..volume(name) };
        agent.chunk(ticket, &[volume], &[], None).await;
    }
    let totals = InventoryTotals { volumes: 2, containers: 0 };
    assert_eq!(agent.chunk(ticket, &[], &[], Some(totals)).await, Reply::Ok);
    let aged = |name: &str, age_ms: u64| VolumeResult { age_ms, ..result(name, 1) };
    let ten_minutes_ms = u64::try_from(TEN_MINUTES).unwrap() * 1000;
    assert_eq!(agent.report(ticket, &[aged("ahead", 0), aged("behind", ten_minutes_ms)]).await, Reply::Ok);

    let fresh = seconds_ago!(
        database,
        "SELECT measured_at FROM scan_results JOIN volumes ON volumes.id = scan_results.volume_id WHERE name = 'ahead'"
    );
    assert!((0..60).contains(&fresh), "{fresh}");
    let held = seconds_ago!(
        database,
        "SELECT measured_at FROM scan_results JOIN volumes ON volumes.id = scan_results.volume_id WHERE name = 'behind'"
    );
    assert!((TEN_MINUTES..TEN_MINUTES + 60).contains(&held), "{held}");
    let lease = seconds_ago!(database, "SELECT lease_expires_at FROM scan_jobs");
    assert!((-30..-25).contains(&lease), "{lease}");
    let seen = seconds_ago!(database, "SELECT last_seen_at FROM nodes");
    assert!((0..60).contains(&seen), "{seen}");
    let first_seen = seconds_ago!(database, "SELECT min(first_seen_at) FROM volumes");
    assert!((0..60).contains(&first_seen), "Docker's own date is for people only: {first_seen}");
    let job = &store::jobs::open(&mut *database.controller().await, run).await.unwrap()[0];
    assert!(!job.lease_expired && !job.node_overdue);
}
