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

async fn refused(conn: &mut sqlx::PgConnection, sql: &'static str) -> String {
    let error = sqlx::query(sql).execute(conn).await.expect_err(sql);
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned()
}

#[tokio::test]
async fn agents_can_execute_six_functions_and_read_no_table() {
    let database = Database::new().await;
    let mut agent = database.agent().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
         AND (CASE relkind WHEN 'S' THEN has_sequence_privilege(oid, 'USAGE, SELECT, UPDATE')
              ELSE has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') END)",
    )
    .fetch_all(&mut **agent)
    .await
    .unwrap();
    assert_eq!(tables, [""; 0]);
    let functions: Vec<String> = sqlx::query_scalar(
        "SELECT format('%s.%s', pronamespace::regnamespace, proname) FROM pg_proc
         WHERE pronamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')
         AND has_schema_privilege(pronamespace, 'USAGE') AND has_function_privilege(oid, 'EXECUTE') ORDER BY 1",
    )
    .fetch_all(&mut **agent)
    .await
    .unwrap();
    let contract =
        ["claim", "complete", "fail", "heartbeat", "inventory", "report"].map(|name| format!("agent_v1.{name}"));
    assert_eq!(functions, contract);
    assert_eq!(refused(&mut agent, "SELECT * FROM volumes").await, "42501");
    assert_eq!(refused(&mut agent, "CREATE TABLE mine (id bigint)").await, "42501");
}

#[tokio::test]
async fn the_controller_changes_runs_and_jobs_only() {
    let database = Database::new().await;
    let mut controller = database.controller().await;
    for sql in [
        "CREATE TABLE mine (id bigint)",
        "DROP TABLE volumes",
        "UPDATE scan_results SET allocated_bytes = 0",
        "DELETE FROM scan_runs",
        "UPDATE installation SET cluster_uid = 'mine'",
        "SELECT maintain.make_partitions(1)",
        "SELECT agent_v1.claim(gen_random_uuid(), '{}')",
    ] {
        assert_eq!(refused(&mut controller, sql).await, "42501", "{sql}");
    }
}

#[tokio::test]
async fn partitions_are_made_ahead_and_dropped_after_their_time() {
    let database = Database::new().await;
    let mut owner = migrate::connect(&database::args(database::OWNER, &database.name, &[])).await.unwrap();
    let ahead = "SELECT count(*) FROM pg_class WHERE relname = 'volume_sizes_' || to_char(clock_timestamp() AT TIME ZONE 'UTC' + interval '14 days', 'YYYYMMDD')";
    assert_eq!(database.number(ahead).await, 1);
    sqlx::query("CREATE TABLE volume_sizes_20200101 PARTITION OF volume_sizes FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-01-02 00:00:00+00')")
        .execute(&mut owner)
        .await
        .unwrap();
    let expired = "SELECT maintain.expired_partition(30, 730)";
    let name: Option<String> = sqlx::query_scalar(expired).fetch_one(&mut owner).await.unwrap();
    assert_eq!(name.as_deref(), Some("volume_sizes_20200101"));
    sqlx::query("SELECT maintain.drop_partition($1)").bind(name).execute(&mut owner).await.unwrap();
    let none: Option<String> = sqlx::query_scalar(expired).fetch_one(&mut owner).await.unwrap();
    assert_eq!(none, None, "yesterday's partition is kept");
}
