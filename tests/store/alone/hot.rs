//! Measuring must not touch an index: updates stay heap-only (HOT), so that tables and indexes do not bloat.

use crate::*;

#[tokio::test]
async fn measuring_makes_hot_updates() {
    let database = Database::new().await;
    let names: Vec<String> = (0..100).map(|n| format!("v{n}")).collect();
    let volumes: Vec<_> = names.iter().map(|name| volume(name)).collect();
    // A vacuumed page has room; without autovacuum's help the first rounds would fill the pages with dead rows.
    for round in 0..20_u64 {
        let run = plan(&database, &format!("t:{round}"), &["n1"]).await;
        let ticket = ticket(&database, run, "n1").await;
        let agent = Agent::on(&database, "n1");
        agent.claimed(ticket).await;
        agent.inventory(ticket, &volumes, &[container("c", "running", &["v1", "v2"])]).await;
        let results: Vec<_> =
            names.iter().zip(0..).map(|(name, n)| result(name, if n < 5 { n + round * 4096 } else { n })).collect();
        agent.report(ticket, &results).await;
        for _ in 0..5 {
            agent.heartbeat(ticket).await;
        }
        assert_eq!(agent.complete(ticket, names.len()).await, Reply::Ok);
        database::execute(
            &mut **database.superuser().await,
            "UPDATE scan_runs SET completed_at = now(), result = 'Succeeded' WHERE completed_at IS NULL".to_owned(),
        )
        .await;
    }
    // A backend tells its counts when it ends.
    let ratio = "SELECT coalesce(min(100 * n_tup_hot_upd / nullif(n_tup_upd, 0)), 0)::bigint FROM pg_stat_user_tables
        WHERE relname IN ('volume_latest', 'volumes') OR relname LIKE 'volume_sizes_daily_%'";
    let updates = "SELECT coalesce(sum(n_tup_upd), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'volume_latest'";
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while database.number(updates).await < 19 * 100 && std::time::Instant::now() < until {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(database.number(updates).await >= 19 * 100, "the statistics are there");
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT relname::text, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE n_tup_upd > 0 ORDER BY 1",
    )
    .fetch_all(&mut **database.superuser().await)
    .await
    .unwrap();
    println!("{rows:?}");
    assert!(database.number(ratio).await > 95, "{rows:?}");
}
