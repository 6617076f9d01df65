//! One volume: adding, changing, removing; transactions within transactions.

use sqlx::{Connection, PgConnection};
use volumeviz::store::volumes::{self, NewVolume};
use volumeviz::store::{Error, Kind, Labels, Store};

use super::*;

fn new(name: &str) -> NewVolume {
    NewVolume {
        node: "n1".to_owned(),
        name: name.to_owned(),
        driver: "local".to_owned(),
        mountpoint: format!("/v/{name}"),
        labels: Labels::from([("app", "db"), ("quote", "it's \"so\"")]),
        options: Labels::from([("o", "bind")]),
        scope: "local".to_owned(),
        is_anonymous: false,
    }
}

/// The kind of error as callers of the store see it.
async fn kind<T>(database: &Database, act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>) -> Result<T, Error> {
    let args = database::args(database::OWNER, &database.name, &[]);
    let store = Store::connect_lazy(&args, volumeviz::config::database::Role::Owner).unwrap();
    store.run("act", std::time::Duration::from_secs(10), act).await
}

#[tokio::test]
async fn what_is_created_is_read_back() {
    let database = Database::new().await;
    let mut conn = database.owner().await;
    let id = volumes::create(&mut conn, &new("a")).await.unwrap();
    let volume = volumes::get(&mut conn, id).await.unwrap();
    assert_eq!((volume.volume_id.as_str(), volume.node.as_str(), volume.name.as_str()), ("n1/a", "n1", "a"));
    assert_eq!(volume.labels, new("a").labels);
    assert_eq!(volume.options, new("a").options);
    assert_eq!((volume.status.as_str(), volume.allocated_bytes, volume.completeness), ("active", None, None));
    assert_eq!(volumes::find(&mut conn, "n1/a").await.unwrap().map(|volume| volume.id), Some(id));
}

#[tokio::test]
async fn errors_are_typed_and_name_the_operation() {
    let database = Database::new().await;
    let error = kind(&database, async |conn| volumes::get(conn, 4711).await).await.unwrap_err();
    assert!(matches!(error.kind, Kind::NotFound), "{error}");
    assert_eq!(error.to_string(), "unable to act: there is none");
    for change in ["update", "delete"] {
        let error = kind(&database, async |conn| match change {
            "update" => volumes::update(conn, &new("a")).await.map(|_| ()),
            _ => volumes::delete(conn, 4711).await,
        });
        assert!(matches!(error.await.unwrap_err().kind, Kind::NotFound), "{change}");
    }
    kind(&database, async |conn| volumes::create(conn, &new("a")).await).await.unwrap();
    let error = kind(&database, async |conn| volumes::create(conn, &new("a")).await).await.unwrap_err();
    assert!(matches!(error.kind, Kind::Conflict(_)), "{error}");
    assert!(!error.is_transient());
    let error = kind(&database, async |conn| volumes::create(conn, &new("nul\0")).await).await.unwrap_err();
    assert!(matches!(error.kind, Kind::InvalidData(_)), "{error}");
    let error = kind(&database, async |conn| {
        sqlx::raw_sql("SET LOCAL statement_timeout = '10ms'; SELECT pg_sleep(5)").execute(conn).await
    });
    let error = error.await.unwrap_err();
    assert!(matches!(error.kind, Kind::GivenUp(_)) && error.reason() == "Timeout", "{error}");
}

#[tokio::test]
async fn update_and_upsert_change_what_docker_says_and_keep_the_rest() {
    let database = Database::new().await;
    let mut conn = database.owner().await;
    let id = volumes::create(&mut conn, &new("a")).await.unwrap();
    let changed = NewVolume { driver: "rclone".to_owned(), labels: Labels::default(), ..new("a") };
    assert_eq!(volumes::update(&mut conn, &changed).await.unwrap(), id);
    let volume = volumes::get(&mut conn, id).await.unwrap();
    assert_eq!((volume.driver.as_str(), volume.labels), ("rclone", Labels::default()));
    assert_eq!(volumes::upsert(&mut conn, &new("a")).await.unwrap(), id, "the same row");
    let other = volumes::upsert(&mut conn, &new("b")).await.unwrap();
    assert_ne!(other, id);
}

#[tokio::test]
async fn a_deleted_volume_is_kept_and_its_name_is_free() {
    let database = Database::new().await;
    let mut conn = database.owner().await;
    let old = volumes::create(&mut conn, &new("a")).await.unwrap();
    volumes::delete(&mut conn, old).await.unwrap();
    let volume = volumes::get(&mut conn, old).await.unwrap();
    assert_eq!(volume.status, "removed");
    assert!(volume.deleted_at.is_some());
    assert_eq!(volumes::find(&mut conn, "n1/a").await.unwrap(), None);
    let new = volumes::create(&mut conn, &new("a")).await.unwrap();
    assert_ne!(new, old);
}

#[tokio::test]
async fn a_transaction_that_fails_leaves_nothing() {
    let database = Database::new().await;
    let outcome = kind(&database, async |conn| {
        let mut transaction = conn.begin().await?;
        volumes::create(&mut transaction, &new("a")).await?;
        volumes::create(&mut transaction, &new("a")).await?;
        transaction.commit().await
    });
    assert!(matches!(outcome.await.unwrap_err().kind, Kind::Conflict(_)));
    assert_eq!(database.number("SELECT count(*) FROM volumes").await, 0);
}

#[tokio::test]
async fn a_savepoint_takes_back_only_its_own_work() {
    let database = Database::new().await;
    let mut conn = database.owner().await;
    let mut outer = conn.begin().await.unwrap();
    volumes::create(&mut outer, &new("kept")).await.unwrap();
    let mut inner = outer.begin().await.unwrap();
    volumes::create(&mut inner, &new("lost")).await.unwrap();
    volumes::create(&mut inner, &new("kept")).await.expect_err("it is there");
    inner.rollback().await.unwrap();
    volumes::create(&mut outer, &new("too")).await.unwrap();
    outer.commit().await.unwrap();
    let names: Vec<String> =
        sqlx::query_scalar("SELECT name FROM volumes ORDER BY name").fetch_all(&mut conn).await.unwrap();
    assert_eq!(names, ["kept", "too"]);
}

/// Of each constraint and unique index, a statement that only it refuses.
const BROKEN: [(&str, &str); 33] = [
    ("alert_notifications_event_check", "UPDATE alert_notifications SET event = 'Odd'"),
    (
        "alert_notifications_notification_id_key",
        "INSERT INTO alert_notifications (notification_id, alert_uid, alert_name, receiver, receiver_name, event, payload)
             SELECT notification_id, alert_uid, alert_name, receiver, receiver_name, event, payload FROM alert_notifications",
    ),
    ("alerts_check", "UPDATE alerts SET state = 'Resolved'"),
    ("alerts_check1", "UPDATE alerts SET state = 'Firing'"),
    ("alerts_scope_check", "UPDATE alerts SET scope = 'Planet'"),
    ("alerts_severity_check", "UPDATE alerts SET severity = 'Odd'"),
    ("alerts_state_check", "UPDATE alerts SET state = 'Odd'"),
    ("alerts_volume_id_fkey", "UPDATE alerts SET volume_id = -1"),
    ("container_volumes_container_id_fkey", "UPDATE container_volumes SET container_id = -1"),
    (
        "container_volumes_container_id_volume_id_mount_path_key",
        "INSERT INTO container_volumes (container_id, volume_id, mount_path, read_write) SELECT container_id, volume_id, mount_path, false FROM container_volumes",
    ),
    ("container_volumes_volume_id_fkey", "UPDATE container_volumes SET volume_id = -1"),
    (
        "idx_alerts_open",
        "INSERT INTO alerts (alert_uid, alert_name, rule, scope, subject, state, severity, threshold)
             SELECT alert_uid, 'b', rule, scope, subject, state, severity, threshold FROM alerts",
    ),
    (
        "idx_containers_container_id",
        "INSERT INTO containers (container_id, node, name, image, state) SELECT container_id, node, 'b', 'i', 'exited' FROM containers",
    ),
    (
        "idx_scan_jobs_ticket",
        "INSERT INTO scan_jobs (run_id, node, node_uid, ticket) SELECT run_id, 'n2', 'u', ticket FROM scan_jobs",
    ),
    (
        "idx_scan_results_job_volume",
        "INSERT INTO scan_results (scan_job_id, volume_id, measured_at, completeness) SELECT scan_job_id, volume_id, now(), 'Unknown' FROM scan_results",
    ),
    ("idx_volumes_volume_id", "INSERT INTO volumes (volume_id, node, name) SELECT volume_id, node, name FROM volumes"),
    ("installation_id_check", "INSERT INTO installation (id, cluster_uid) VALUES (2, 'x')"),
    ("nodes_name_key", "INSERT INTO nodes (name, uid) SELECT name, 'u' FROM nodes"),
    ("scan_jobs_check", "UPDATE scan_jobs SET status = 'running'"),
    ("scan_jobs_run_id_fkey", "UPDATE scan_jobs SET run_id = -1"),
    (
        "scan_jobs_run_id_node_key",
        "INSERT INTO scan_jobs (run_id, node, node_uid) SELECT run_id, node, 'u' FROM scan_jobs",
    ),
    ("scan_jobs_status_check", "UPDATE scan_jobs SET status = 'odd'"),
    ("scan_results_check", "UPDATE scan_results SET completeness = 'Complete'"),
    ("scan_results_completeness_check", "UPDATE scan_results SET completeness = 'Odd', allocated_bytes = 1"),
    ("scan_results_method_check", "UPDATE scan_results SET method = 'Odd'"),
    ("scan_results_scan_job_id_fkey", "UPDATE scan_results SET scan_job_id = -1"),
    ("scan_results_volume_id_fkey", "UPDATE scan_results SET volume_id = -1"),
    ("scan_runs_check", "UPDATE scan_runs SET result = 'Succeeded'"),
    ("scan_runs_result_check", "UPDATE scan_runs SET result = 'odd', completed_at = now()"),
    (
        "scan_runs_scan_uid_run_key_key",
        "INSERT INTO scan_runs (scan_uid, scan_name, run_key, work, deadline) SELECT scan_uid, 's', run_key, '{}', now() FROM scan_runs",
    ),
    (
        "volume_latest_volume_id_fkey",
        "INSERT INTO volume_latest (volume_id, scan_result_id, measured_at, completeness) VALUES (-1, 1, now(), 'Complete')",
    ),
    ("volume_rankings_volume_id_fkey", "INSERT INTO volume_rankings (volume_id) VALUES (-1)"),
    ("volumes_status_check", "UPDATE volumes SET status = 'odd'"),
];

#[tokio::test]
async fn every_constraint_holds() {
    let database = Database::new().await;
    let mut conn = database.owner().await;
    volumes::create(&mut conn, &new("a")).await.unwrap();
    plan(&database, "once", &["n1"]).await;
    let rows = "INSERT INTO nodes (name, uid) VALUES ('n1', 'u');
         INSERT INTO containers (container_id, node, name, image, state) VALUES ('c', 'n1', 'c', 'i', 'running');
         INSERT INTO container_volumes (container_id, volume_id, mount_path, read_write) SELECT containers.id, volumes.id, '/d', true FROM containers, volumes;
         INSERT INTO scan_results (scan_job_id, volume_id, measured_at, completeness) SELECT scan_jobs.id, volumes.id, now(), 'Unknown' FROM scan_jobs, volumes;
         INSERT INTO alerts (alert_uid, alert_name, rule, scope, subject, state, severity, threshold)
             VALUES ('u', 'a', 'sizeAbove', 'Volume', 's', 'Pending', 'Info', 1);
         INSERT INTO alert_notifications (notification_id, alert_uid, alert_name, receiver, receiver_name, event, payload)
             VALUES (gen_random_uuid(), 'u', 'a', '{}', 'r', 'Firing', '{}')";
    database::execute(&mut conn, rows.to_owned()).await;
    let there: Vec<String> = sqlx::query_scalar(
        "SELECT conname::text FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
         WHERE relnamespace = 'public'::regnamespace AND NOT relispartition AND contype IN ('c', 'u', 'f')
         UNION ALL SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
         WHERE relnamespace = 'public'::regnamespace AND NOT relispartition AND indisunique AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
         ORDER BY 1",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    assert_eq!(there, BROKEN.map(|(name, _)| name), "each has its case, and each case is about one");
    for (name, sql) in BROKEN {
        let error = sqlx::query(sql).execute(&mut conn).await.expect_err(name);
        let constraint = error.as_database_error().and_then(sqlx::error::DatabaseError::constraint);
        assert_eq!(constraint, Some(name), "{error}");
    }
    let nowhere =
        "INSERT INTO volume_sizes (created_at, volume_id, scan_result_id, completeness, method, allocated_bytes, files)
         VALUES ('1999-01-01', 1, 1, 'Complete', 'Walk', 1, 1)";
    assert_eq!(grants::refused(&mut conn, nowhere).await, "23514", "no partition");
}
