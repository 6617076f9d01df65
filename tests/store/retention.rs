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

/// Scan `uid` with ended runs, oldest first, of which the newest has this snapshot; node `n1` succeeds in those whose number is given.
async fn runs(database: &Database, uid: &str, count: i32, succeeded: &[i32], newest_work: &str) {
    for number in 1..=count {
        let work = if number == count { newest_work } else { "{}" };
        let status = if succeeded.contains(&number) { "succeeded" } else { "failed" };
        let sql = format!(
            "WITH run AS (INSERT INTO scan_runs (scan_uid, scan_name, run_key, work, deadline, completed_at, result)
                 VALUES ('{uid}', '{uid}', 't:{number}', '{work}', now(), now(), 'Succeeded') RETURNING id)
             , node AS (INSERT INTO nodes (name, uid) VALUES ('n1', 'u') ON CONFLICT DO NOTHING)
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
    runs(&database, "a", 54, &[1, 2, 3], "{}").await;
    runs(&database, "b", 3, &[], "{}").await;
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
            .number("SELECT sum((detail ->> 'scan_runs')::bigint)::bigint FROM audit_events WHERE action = 'RetentionDropped'")
            .await,
        3
    );
}

#[tokio::test]
async fn a_scan_says_itself_how_many_of_its_runs_stay() {
    let database = Database::new().await;
    runs(&database, "few", 5, &[], r#"{"runHistoryLimit": 2}"#).await;
    runs(&database, "none", 5, &[], r#"{"runHistoryLimit": 0}"#).await;
    runs(&database, "many", 53, &[], r#"{"runHistoryLimit": 52}"#).await;
    maintain::round(&maintain_args(&database)).await.unwrap();
    assert_eq!(kept(&database, "few").await, ["t:4", "t:5"]);
    assert_eq!(kept(&database, "none").await, ["t:5"], "without its newest run it would run again");
    assert_eq!(kept(&database, "many").await.len(), 52);
}

/// A one-shot that ended two years ago must not be taken for one that never ran.
#[tokio::test]
async fn at_any_age_the_newest_run_stays_and_what_totals_are_made_of() {
    let database = Database::new().await;
    runs(&database, "once", 1, &[], "{}").await;
    runs(&database, "a", 4, &[2], "{}").await;
    let age = "UPDATE scan_runs SET completed_at = now() - interval '800 days'";
    database::execute(&mut **database.superuser().await, age.to_owned()).await;
    maintain::round(&maintain_args(&database)).await.unwrap();
    assert_eq!(kept(&database, "once").await, ["t:1"]);
    assert_eq!(kept(&database, "a").await, ["t:2", "t:4"], "the last success of n1, and the newest");
    let given_up = "UPDATE nodes SET deleted_at = now()";
    database::execute(&mut **database.superuser().await, given_up.to_owned()).await;
    maintain::round(&maintain_args(&database)).await.unwrap();
    assert_eq!(kept(&database, "a").await, ["t:4"], "what a node that was given up succeeded in tells nobody anything");
}

#[tokio::test]
async fn runs_of_scans_that_are_gone_go_after_their_time() {
    let database = Database::new().await;
    runs(&database, "gone", 2, &[2], "{}").await;
    runs(&database, "live", 2, &[2], "{}").await;
    let live = ["live".to_owned()];
    let note =
        async |live: &[String]| store::runs::note_orphans(&mut *database.controller().await, live).await.unwrap();
    assert_eq!((note(&live).await, note(&live).await), (2, 0), "noted once");
    maintain::round(&maintain_args(&database)).await.unwrap();
    assert_eq!(kept(&database, "gone").await.len(), 2, "not before their time");
    let age = "UPDATE scan_runs SET completed_at = now() - interval '800 days', orphaned_at = orphaned_at - interval '800 days'";
    database::execute(&mut **database.superuser().await, age.to_owned()).await;
    maintain::round(&maintain_args(&database)).await.unwrap();
    assert_eq!((kept(&database, "gone").await.len(), kept(&database, "live").await.len()), (0, 1));
    assert_eq!(note(&[]).await, 1);
    assert_eq!(note(&live).await, 1, "one that is back is no orphan");
    assert_eq!(database.number("SELECT count(orphaned_at) FROM scan_runs").await, 0);
}

#[tokio::test]
async fn runs_are_deleted_a_few_at_a_time() {
    let database = Database::new().await;
    runs(&database, "a", 57, &[], "{}").await;
    maintain::round(&maintain_args(&database)).await.unwrap();
    let most = "SELECT max((detail ->> 'scan_runs')::bigint) FROM audit_events WHERE action = 'RetentionDropped'";
    assert_eq!((kept(&database, "a").await.len(), database.number(most).await), (50, 2));
}

/// Two replicas maintain one database: here both have much to do.
#[tokio::test]
async fn two_rounds_at_once_do_the_work_once() {
    let database = Database::new().await;
    for day in 1..=9 {
        for parent in ["volume_sizes", "system_metrics"] {
            let (name, from, to) = (
                format!("{parent}_2020010{day}"),
                format!("2020-01-0{day} 00:00:00+00"),
                format!("2020-01-{:02} 00:00:00+00", day + 1),
            );
            partition(&database, parent, &name, &from, &to).await;
        }
    }
    let missing = "DO $$ DECLARE part text; BEGIN FOR part IN SELECT relname FROM pg_class WHERE relkind = 'r'
             AND relname ~ '^(volume_sizes|system_metrics)_[0-9]{8}$' AND to_date(right(relname, 8), 'YYYYMMDD') > current_date
         LOOP EXECUTE 'DROP TABLE ' || part; END LOOP; END $$";
    database::execute(&mut database.owner().await, missing.to_owned()).await;
    // Who works waits here, for nodes to retire, so that all three meet.
    let mut holder = database.superuser().await;
    let mut holding = sqlx::Connection::begin(&mut **holder).await.unwrap();
    sqlx::query("LOCK TABLE nodes IN ACCESS EXCLUSIVE MODE").execute(&mut *holding).await.unwrap();
    let args = maintain_args(&database);
    let over = std::cell::Cell::new(0);
    let round = async || {
        let outcome = maintain::round(&args).await;
        over.set(over.get() + 1);
        outcome
    };
    let meet = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'vv_owner' AND datname = current_database() AND wait_event_type = 'Lock'";
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while database.number(waiting).await + over.get() < 3 {
            assert!(std::time::Instant::now() < until, "a round neither works nor leaves it to another");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(over.get(), 2, "two leave it to the third");
        holding.rollback().await.unwrap();
    };
    let (a, b, c, ()) = tokio::join!(round(), round(), round(), meet);
    let maintained = [a, b, c].map(Result::unwrap);
    assert_eq!(maintained.iter().filter(|maintained| **maintained).count(), 1, "{maintained:?}");
    assert_eq!(database.number("SELECT count(*) FROM audit_events WHERE action = 'RetentionDropped'").await, 18);
    assert_eq!(database.number("SELECT count(*) FROM system_metrics WHERE name = 'database_bytes'").await, 1);
}

#[tokio::test]
async fn who_does_not_get_the_lock_leaves_the_work_to_who_has_it() {
    let database = Database::new().await;
    partition(&database, "volume_sizes", "volume_sizes_20200101", "2020-01-01 00:00:00+00", "2020-01-02 00:00:00+00")
        .await;
    let there = "SELECT count(*) FROM pg_class WHERE relname = 'volume_sizes_20200101'";
    let mut holder = database.owner().await;
    sqlx::query("SELECT pg_advisory_lock($1, $2)")
        .bind(volumeviz::migrate::LOCK_CLASS)
        .bind(maintain::LOCK_OBJECT)
        .execute(&mut holder)
        .await
        .unwrap();
    maintain::round(&maintain_args(&database)).await.unwrap();
    assert_eq!((database.number(there).await, database.number("SELECT count(*) FROM system_metrics").await), (1, 0));
    let health = store::health::probe(&mut *database.controller().await, "cluster").await.unwrap();
    assert_eq!(health.problem, None, "nobody takes it for a migration");
    sqlx::Connection::close(holder).await.unwrap();
    maintain::round(&maintain_args(&database)).await.unwrap();
    assert_eq!(database.number(there).await, 0);
}

/// Without the partitions of the days to come.
async fn without_ahead(database: &Database) {
    let missing = "DO $$ DECLARE part text; BEGIN FOR part IN SELECT relname FROM pg_class WHERE relkind = 'r'
             AND relname ~ '^(volume_sizes|system_metrics)_[0-9]{8}$' AND to_date(right(relname, 8), 'YYYYMMDD') > current_date + 1
         LOOP EXECUTE 'DROP TABLE ' || part; END LOOP; END $$";
    database::execute(&mut database.owner().await, missing.to_owned()).await;
}

const DAYS: &str = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^volume_sizes_[0-9]{8}$'";

#[tokio::test]
async fn a_long_reader_keeps_no_partition_from_being_made_and_no_report_waits() {
    let database = Database::new().await;
    without_ahead(&database).await;
    let (_, ticket, agent) = claimed(&database).await;
    agent.inventory(ticket, &[volume("v")], &[]).await;
    let mut reader = database.readonly().await;
    let mut reading = sqlx::Connection::begin(&mut **reader).await.unwrap();
    for table in ["volume_sizes", "volume_sizes_daily", "system_metrics"] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .execute(&mut *reading)
            .await
            .unwrap();
    }
    let args = maintain_args(&database);
    let started = std::time::Instant::now();
    let results = [result("v", 1)];
    let (round, reported) = tokio::join!(maintain::round(&args), agent.report(ticket, &results));
    round.unwrap();
    assert_eq!(reported, Reply::Ok);
    assert_eq!(database.number(DAYS).await, 16);
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    reading.rollback().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_done_now_keeps_nothing_else_from_being_done() {
    let database = Database::new().await;
    without_ahead(&database).await;
    runs(&database, "a", 52, &[], "{}").await;
    for (name, from, to) in
        [("volume_sizes_20200101", "2020-01-01", "2020-01-02"), ("volume_sizes_20200102", "2020-01-02", "2020-01-03")]
    {
        partition(&database, "volume_sizes", name, &format!("{from} 00:00:00+00"), &format!("{to} 00:00:00+00")).await;
    }
    let view = "CREATE VIEW in_the_way AS SELECT * FROM volume_sizes_20200101";
    database::execute(&mut **database.superuser().await, view.to_owned()).await;
    let error = maintain::round(&maintain_args(&database)).await.unwrap_err().to_string();
    assert!(error.contains("volume_sizes_20200101") && error.contains("depend"), "{error}");
    assert_eq!(database.number("SELECT count(*) FROM pg_class WHERE relname = 'volume_sizes_20200102'").await, 0);
    assert_eq!(database.number(DAYS).await, 17);
    assert_eq!(kept(&database, "a").await.len(), 50);
    assert_eq!(database.number("SELECT count(*) FROM system_metrics WHERE name = 'database_bytes'").await, 1);

    // Who alters a table for long is waited for briefly.
    without_ahead(&database).await;
    let mut holder = database.superuser().await;
    let mut holding = sqlx::Connection::begin(&mut **holder).await.unwrap();
    sqlx::query("LOCK TABLE volume_sizes IN SHARE UPDATE EXCLUSIVE MODE").execute(&mut *holding).await.unwrap();
    let args = maintain_args(&database);
    let round = tokio::time::timeout(std::time::Duration::from_secs(30), maintain::round(&args));
    let error = round.await.expect("no wait without bound").unwrap_err().to_string();
    assert!(error.starts_with("unable to make partitions") && error.contains("lock timeout"), "{error}");
    holding.rollback().await.unwrap();
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
         INSERT INTO alerts (alert_uid, alert_name, rule, scope, subject, state, severity, threshold, fired_at, resolved_at)
             VALUES ('u', 'old', 'r', 'Cluster', '', 'Resolved', 'Info', 1, now(), now() - interval '731 days'),
             ('u', 'young', 'r', 'Cluster', '', 'Resolved', 'Info', 1, now(), now() - interval '729 days'),
             ('u', 'old, never fired', 'r', 'Cluster', '', 'Resolved', 'Info', 1, NULL, now() - interval '31 days'),
             ('u', 'young, never fired', 'r', 'Cluster', '', 'Resolved', 'Info', 1, NULL, now() - interval '29 days');
         INSERT INTO alert_notifications (created_at, notification_id, alert_uid, alert_name, receiver, receiver_name, event, payload)
             VALUES (now() - interval '31 days', gen_random_uuid(), 'u', 'old', '{}', 'r', 'Firing', '{}'),
             (now() - interval '29 days', gen_random_uuid(), 'u', 'young', '{}', 'r', 'Firing', '{}')"
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
    assert_eq!(names("SELECT alert_name FROM alerts ORDER BY 1").await, ["young", "young, never fired"]);
    assert_eq!(names("SELECT alert_name FROM alert_notifications").await, ["young"]);
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

/// A table that is forgotten there would be estimated where the others are counted.
#[tokio::test]
async fn every_table_is_counted() {
    let database = Database::new().await;
    let mut there: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition",
    )
    .fetch_all(&mut **database.superuser().await)
    .await
    .unwrap();
    let mut counted = store::system_metrics::COUNTS.map(|(table, _)| table.to_owned()).to_vec();
    there.sort();
    counted.sort();
    assert_eq!(there, counted);
    let mut told: Vec<String> = store::system_metrics::tables(&mut *database.readonly().await)
        .await
        .unwrap()
        .into_iter()
        .map(|table| table.name)
        .collect();
    told.sort();
    assert_eq!(told, there);
}
