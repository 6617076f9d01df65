//! The schema's life, and what each role may do with it.

use std::process::Command;

use super::*;
use sqlx::Connection;
use sqlx::migrate::Migrator;
use volumeviz::migrate;

fn dump(database: &str) -> String {
    let bin = database::variable("TEST_PG_BIN");
    let output = Command::new(format!("{bin}/pg_dump"))
        .args([
            "--schema-only",
            "--host=127.0.0.1",
            "--username=postgres",
            "--port",
            &database::port().to_string(),
            database,
        ])
        .env("PGPASSWORD", database::variable("TEST_PG_PASSWORD"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // A random key of pg_dump's own.
    text.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn up_down_up_gives_the_same_schema() {
    let database = Database::bare().await;
    let mut owner = migrate::connect(&database::args(database::OWNER, &database.name, &[])).await.unwrap();
    let empty = dump(&database.name);
    let applied = migrate::up(&mut owner).await.unwrap();
    assert_eq!(i64::try_from(applied).unwrap(), migrate::REQUIRED_VERSION);
    let first = dump(&database.name);
    let mut migrator: Migrator = sqlx::migrate!("./migrations");
    migrator.set_locking(false);
    migrator.undo(&mut owner, 0).await.unwrap();
    sqlx::query("DROP TABLE migrations").execute(&mut owner).await.unwrap();
    assert!(dump(&database.name) == empty, "something is left behind after going down to nothing");
    migrate::up(&mut owner).await.unwrap();
    assert!(dump(&database.name) == first, "the second time up gives another schema");
    assert_eq!(migrate::up(&mut owner).await.unwrap(), 0);
}

#[tokio::test]
async fn two_processes_at_once_migrate_once() {
    let database = Database::bare().await;
    let args = database::args(database::OWNER, &database.name, &[]);
    let up = async || migrate::up(&mut migrate::connect(&args).await.unwrap()).await.unwrap();
    let (a, b) = tokio::join!(up(), up());
    assert_eq!(i64::try_from(a + b).unwrap(), migrate::REQUIRED_VERSION);
    assert!(a == 0 || b == 0);
}

#[tokio::test]
async fn a_schema_of_a_later_version_is_fine() {
    let database = Database::new().await;
    let mut owner = migrate::connect(&database::args(database::OWNER, &database.name, &[])).await.unwrap();
    sqlx::query("INSERT INTO migrations SELECT 99, 'of a later version', now(), true, '', 0")
        .execute(&mut owner)
        .await
        .unwrap();
    assert_eq!(migrate::up(&mut owner).await.unwrap(), 0);
    owner.close().await.unwrap();
    let health = store::health::probe(&mut *database.controller().await, "cluster").await.unwrap();
    assert_eq!((health.problem, health.schema_version), (None, Some(99)));
}

#[tokio::test]
async fn a_missing_group_is_named_with_the_sql_that_makes_it() {
    let database = Database::new().await;
    let error = migrate::connect(&database::args(database::AGENT, &database.name, &[])).await.unwrap_err().to_string();
    assert!(error.contains("GRANT volumeviz_owner TO vv_agent"), "{error}");
}

#[tokio::test]
async fn a_failed_migration_leaves_no_lock_and_no_half_state() {
    let database = Database::bare().await;
    let args = database::args(database::OWNER, &database.name, &[]);
    // In the way of the second half of the first migration.
    database::execute(&mut database.owner().await, "CREATE TABLE audit_events (id bigint)".to_owned()).await;
    let before = dump(&database.name);
    let mut owner = migrate::connect(&args).await.unwrap();
    let error = migrate::up(&mut owner).await.unwrap_err().to_string();
    assert!(error.contains("audit_events") && error.contains("already exists"), "{error}");
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(database.number(locks).await, 0, "the connection is open, and holds no lock");
    assert_eq!(database.number("SELECT count(*) FROM migrations").await, 0);
    database::execute(&mut database.owner().await, "DROP TABLE migrations".to_owned()).await;
    assert!(dump(&database.name) == before, "something of the first half is left");
    database::execute(&mut database.owner().await, "DROP TABLE audit_events".to_owned()).await;
    assert_eq!(i64::try_from(migrate::up(&mut owner).await.unwrap()).unwrap(), migrate::REQUIRED_VERSION);
}

/// A connection that breaks in the middle of a migration cannot give its lock back either: what the migration says is what is told.
#[tokio::test]
async fn a_failed_migration_is_told_even_if_its_lock_cannot_be_given_back() {
    let database = Database::bare().await;
    let args = database::args(database::OWNER, &database.name, &[]);
    let mut holder = database.owner().await;
    let mut holding = holder.begin().await.unwrap();
    // The first migration waits for whoever makes a table of the same name.
    sqlx::query("CREATE TABLE audit_events (id bigint)").execute(&mut *holding).await.unwrap();
    let mut owner = migrate::connect(&args).await.unwrap();
    let cut = async {
        let waiting = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while database.number(waiting).await == 0 {
            assert!(std::time::Instant::now() < until, "the migration does not wait");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let (migrated, ()) = tokio::join!(migrate::up(&mut owner), cut);
    let error = migrated.unwrap_err();
    assert!(matches!(error, migrate::Error::Migrate(_)), "{error}");
    assert!(error.to_string().contains("terminating connection"), "{error}");
}

/// The columns that every table of the product has.
#[tokio::test]
async fn every_table_has_its_base_columns() {
    let database = Database::new().await;
    for table in [
        "volumes",
        "volume_sizes",
        "containers",
        "container_volumes",
        "scan_jobs",
        "scan_results",
        "system_metrics",
        "alerts",
    ] {
        let columns: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = ('public.' || $1)::regclass AND attname IN ('id', 'created_at', 'updated_at', 'deleted_at')",
        )
        .bind(table)
        .fetch_one(&mut **database.superuser().await)
        .await
        .unwrap();
        assert_eq!(columns, 4, "{table}");
    }
}
