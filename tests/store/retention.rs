//! What is kept, and what goes.

use volumeviz::maintain;

use super::history::maintain_args;
use super::*;

/// Partition `name` of `parent` from `from` until before `to`.
async fn partition(database: &Database, parent: &str, name: &str, from: &str, to: &str) {
    let sql = format!("CREATE TABLE {name} PARTITION OF {parent} FOR VALUES FROM ('{from}') TO ('{to}')");
    database::execute(&mut database.owner().await, sql).await;
}

#[tokio::test]
async fn partitions_are_made_ahead_and_dropped_after_their_time() {
    let database = Database::new().await;
    for parent in ["volume_sizes", "system_metrics"] {
        partition(&database, parent, &format!("{parent}_20200101"), "2020-01-01 00:00:00+00", "2020-01-02 00:00:00+00")
            .await;
    }
    partition(&database, "volume_sizes_daily", "volume_sizes_daily_202001", "2020-01-01", "2020-02-01").await;
    maintain::round(&maintain_args(&database)).await.unwrap();
    assert_eq!(
        database.number("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE '%\\_2020%'").await,
        0
    );
    for parent in ["volume_sizes", "system_metrics"] {
        let days: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ ('^' || $1 || '_[0-9]{8}$')",
        )
        .bind(parent)
        .fetch_one(&mut **database.superuser().await)
        .await
        .unwrap();
        assert_eq!(days, 16, "{parent}: yesterday, today and 14 days");
    }
    assert_eq!(database.number("SELECT count(*) FROM audit_events WHERE action = 'RetentionDropped'").await, 3);
}

#[tokio::test]
async fn after_a_week_asleep_everything_is_there_again() {
    let database = Database::new().await;
    // As if maintain had not run for a week: days are missing at the end, and one in the middle for good measure.
    database::execute(
        &mut database.owner().await,
        "DO $$ DECLARE part text; BEGIN FOR part IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^volume_sizes_[0-9]{8}$'
             AND to_date(right(relname, 8), 'YYYYMMDD') NOT BETWEEN current_date + 1 AND current_date + 5 LOOP EXECUTE 'DROP TABLE ' || part; END LOOP; END $$"
            .to_owned(),
    )
    .await;
    maintain::round(&maintain_args(&database)).await.unwrap();
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^volume_sizes_[0-9]{8}$'")
            .await,
        16
    );
    maintain::round(&maintain_args(&database)).await.unwrap();
}

/// Scan `uid` with ended runs, oldest first; node `n1` succeeds in those whose number is given.
async fn runs(database: &Database, uid: &str, count: i32, succeeded: &[i32]) {
    for number in 1..=count {
        let status = if succeeded.contains(&number) { "succeeded" } else { "failed" };
        let sql = format!(
            "WITH run AS (INSERT INTO scan_runs (scan_uid, scan_name, run_key, work, deadline, completed_at, result)
                 VALUES ('{uid}', '{uid}', 't:{number}', '{{}}', now(), now(), 'Succeeded') RETURNING id)
             INSERT INTO scan_jobs (run_id, node, node_uid, status) SELECT id, 'n1', 'u', '{status}' FROM run"
        );
        database::execute(&mut **database.superuser().await, sql).await;
    }
}

async fn kept(database: &Database, uid: &str) -> Vec<String> {
    sqlx::query_scalar("SELECT run_key FROM scan_runs WHERE scan_uid = $1 ORDER BY id")
        .bind(uid)
        .fetch_all(&mut **database.superuser().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_newest_runs_stay_and_the_one_a_node_succeeded_in_last() {
    let database = Database::new().await;
    runs(&database, "a", 54, &[1, 2, 3]).await;
    runs(&database, "b", 3, &[]).await;
    maintain::round(&maintain_args(&database)).await.unwrap();
    let a = kept(&database, "a").await;
    assert_eq!(
        (a.len(), a[0].as_str(), a[1].as_str()),
        (51, "t:3", "t:5"),
        "the last success of n1, and the newest 50"
    );
    assert_eq!(kept(&database, "b").await.len(), 3);
    assert_eq!(database.number("SELECT count(*) FROM scan_jobs").await, 54, "jobs go with their runs");
    assert_eq!(
        database
            .number("SELECT (detail ->> 'scan_runs')::bigint FROM audit_events WHERE action = 'RetentionDropped'")
            .await,
        3
    );
}

#[tokio::test]
async fn what_has_been_gone_for_long_is_deleted() {
    let database = Database::new().await;
    database::execute(
        &mut **database.superuser().await,
        "INSERT INTO volumes (volume_id, node, name, deleted_at) VALUES ('n/old', 'n', 'old', now() - interval '731 days'),
             ('n/young', 'n', 'young', now() - interval '729 days'), ('n/there', 'n', 'there', NULL);
         INSERT INTO containers (container_id, node, name, image, state, deleted_at) VALUES ('1', 'n', 'old', 'i', 'exited', now() - interval '31 days'),
             ('2', 'n', 'young', 'i', 'exited', now() - interval '29 days');
         INSERT INTO audit_events (created_at, action, subject) VALUES (now() - interval '731 days', 'old', 'x');
         INSERT INTO alerts (alert_uid, alert_name, scope, subject, state, severity, resolved_at)
             VALUES ('u', 'a', 'Cluster', '', 'Resolved', 'Info', now() - interval '731 days'), ('u', 'a', 'Cluster', '', 'Resolved', 'Info', now())"
            .to_owned(),
    )
    .await;
    maintain::round(&maintain_args(&database)).await.unwrap();
    let names = async |sql: &'static str| -> Vec<String> {
        sqlx::query_scalar(sql).fetch_all(&mut **database.superuser().await).await.unwrap()
    };
    assert_eq!(names("SELECT name FROM volumes ORDER BY name").await, ["there", "young"]);
    assert_eq!(names("SELECT name FROM containers").await, ["young"]);
    assert_eq!(database.number("SELECT count(*) FROM audit_events WHERE action = 'old'").await, 0);
    assert_eq!(database.number("SELECT count(*) FROM alerts").await, 1);
}

#[tokio::test]
async fn nodes_that_left_are_given_up_after_their_time() {
    let database = Database::new().await;
    let nodes = "INSERT INTO nodes (name, uid) VALUES ('left', 'u'), ('here', 'u'), ('back', 'u');
         INSERT INTO volumes (volume_id, node, name) VALUES ('left/a', 'left', 'a'), ('here/a', 'here', 'a'), ('back/a', 'back', 'a')";
    database::execute(&mut **database.superuser().await, nodes.to_owned()).await;
    let mut controller = database.controller().await;
    let mut present = async |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        store::nodes::note_present(&mut controller, &names).await.unwrap()
    };
    assert_eq!(present(&["here", "new"]).await, 2, "two are absent");
    assert_eq!(present(&["here", "new"]).await, 0, "which is nothing new");
    let age = "UPDATE nodes SET absent_since = absent_since - interval '31 days' WHERE absent_since IS NOT NULL";
    database::execute(&mut **database.superuser().await, age.to_owned()).await;
    assert_eq!(present(&["here", "back"]).await, 1, "one came back");
    maintain::round(&maintain_args(&database)).await.unwrap();
    let gone: Vec<String> = sqlx::query_scalar("SELECT volume_id FROM volumes WHERE deleted_at IS NOT NULL")
        .fetch_all(&mut **database.superuser().await)
        .await
        .unwrap();
    assert_eq!(gone, ["left/a"]);
    assert_eq!(
        database
            .number("SELECT count(*) FROM audit_events WHERE action = 'NodeRetired' AND subject = 'node/left'")
            .await,
        1
    );
}

#[tokio::test]
async fn each_round_writes_down_the_databases_figures() {
    let database = Database::new().await;
    maintain::round(&maintain_args(&database)).await.unwrap();
    let mut conn = database.readonly().await;
    let since = chrono::Utc::now() - chrono::Duration::hours(1);
    let size = store::system_metrics::history(&mut conn, "database_bytes", "", since).await.unwrap();
    assert!(size.len() == 1 && size[0].value > 1_000_000.0);
    let table = store::system_metrics::history(&mut conn, "table_bytes", "volume_sizes", since).await.unwrap();
    assert_eq!(table.len(), 1, "partitions are summed up under their parent");
    let tables = store::system_metrics::tables(&mut conn).await.unwrap();
    let sizes = tables.iter().find(|table| table.name == "volume_sizes").unwrap();
    assert!(sizes.partitions == 16 && sizes.total_bytes > sizes.index_bytes);
    assert!(store::system_metrics::database(&mut conn).await.unwrap().total_bytes > 1_000_000);
}
