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

#[tokio::test]
async fn every_constraint_holds() {
    let database = Database::new().await;
    let mut conn = database.owner().await;
    let volume = volumes::create(&mut conn, &new("a")).await.unwrap();
    let run = plan(&database, "once", &["n1"]).await;
    for (sql, state) in [
        ("UPDATE volumes SET status = 'odd'", "23514"),
        ("UPDATE scan_jobs SET status = 'odd'", "23514"),
        ("UPDATE scan_jobs SET status = 'running'", "23514"),
        ("UPDATE scan_runs SET result = 'Succeeded'", "23514"),
        ("UPDATE scan_runs SET result = 'odd', completed_at = now()", "23514"),
        ("INSERT INTO scan_jobs (run_id, node, node_uid) SELECT id, 'n1', 'u' FROM scan_runs", "23505"),
        ("INSERT INTO scan_jobs (run_id, node, node_uid) VALUES (-1, 'n1', 'u')", "23503"),
        (
            "INSERT INTO scan_runs (scan_uid, scan_name, run_key, work, deadline) VALUES ('scan-uid', 's', 'once', '{}', now())",
            "23505",
        ),
        (
            "INSERT INTO scan_results (scan_job_id, volume_id, measured_at, completeness) SELECT scan_jobs.id, volumes.id, now(), 'Complete' FROM scan_jobs, volumes",
            "23514",
        ),
        (
            "INSERT INTO scan_results (scan_job_id, volume_id, measured_at, completeness) SELECT id, -1, now(), 'Unknown' FROM scan_jobs",
            "23503",
        ),
        (
            "INSERT INTO volume_sizes (created_at, volume_id, scan_result_id, completeness, method, allocated_bytes, files) VALUES ('1999-01-01', 1, 1, 'Complete', 'Walk', 1, 1)",
            "23514",
        ),
        ("INSERT INTO installation (id, cluster_uid) VALUES (2, 'x')", "23514"),
        (
            "INSERT INTO alerts (alert_uid, alert_name, scope, subject, state, severity) VALUES ('u', 'a', 'Volume', 's', 'Resolved', 'Info')",
            "23514",
        ),
        (
            "INSERT INTO alerts (alert_uid, alert_name, scope, subject, state, severity) VALUES ('u', 'a', 'Volume', 's', 'Firing', 'Info')",
            "23514",
        ),
        (
            "INSERT INTO alerts (alert_uid, alert_name, scope, subject, state, severity) VALUES ('u', 'a', 'Planet', 's', 'Pending', 'Info')",
            "23514",
        ),
    ] {
        assert_eq!(grants::refused(&mut conn, sql).await, state, "{sql}");
    }
    assert!(volume > 0 && run > 0);
}
