//! What each role may do, and nothing else.

use super::*;

/// The SQLSTATE a statement is refused with.
pub(crate) async fn refused(conn: &mut sqlx::PgConnection, sql: &str) -> String {
    let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.expect_err(sql);
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned()
}

async fn names(database: &Database, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(&mut **database.superuser().await).await.unwrap()
}

/// Every table and view of ours, partitions too.
async fn tables(database: &Database) -> Vec<String> {
    names(
        database,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') ORDER BY 1",
    )
    .await
}

/// A call of every function of ours, with NULLs for arguments.
async fn calls(database: &Database) -> Vec<(String, String)> {
    sqlx::query_as(
        "SELECT format('%s.%s', pronamespace::regnamespace, proname), format('SELECT %s.%I(%s)', pronamespace::regnamespace, proname, (
             SELECT coalesce(string_agg(format('NULL::%s', format_type(type, NULL)), ', '), '') FROM unnest(proargtypes) AS type))
         FROM pg_proc WHERE pronamespace::regnamespace::text IN ('public', 'agent_v1', 'maintain') AND prorettype <> 'trigger'::regtype ORDER BY 1",
    )
    .fetch_all(&mut **database.superuser().await)
    .await
    .unwrap()
}

const CONTRACT: [&str; 6] = [
    "agent_v1.claim",
    "agent_v1.complete",
    "agent_v1.fail",
    "agent_v1.heartbeat",
    "agent_v1.inventory",
    "agent_v1.report",
];

const CHANGES: [&str; 4] = ["INSERT INTO {} DEFAULT VALUES", "DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}"];

async fn denied_everything(database: &Database, conn: &mut sqlx::PgConnection, may_read: bool) {
    for table in tables(database).await {
        for change in CHANGES {
            // A view takes no rows and is no table: another refusal says so before rights are looked at.
            if table == "table_figures" {
                continue;
            }
            assert_eq!(refused(conn, &change.replace("{}", &table)).await, "42501", "{change} {table}");
        }
        let column: String = sqlx::query_scalar(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = ('public.' || $1)::regclass AND attnum = 1",
        )
        .bind(&table)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        let update = format!("UPDATE {table} SET {column} = DEFAULT");
        if table != "table_figures" {
            assert_eq!(refused(conn, &update).await, "42501", "{update}");
        }
        let read = format!("SELECT * FROM {table} LIMIT 1");
        if may_read {
            sqlx::raw_sql(sqlx::AssertSqlSafe(read)).execute(&mut *conn).await.unwrap();
        } else {
            assert_eq!(refused(conn, &read).await, "42501", "{read}");
        }
    }
    for ddl in [
        "CREATE TABLE mine (id bigint)",
        "CREATE TABLE agent_v1.mine (id bigint)",
        "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "ALTER TABLE volumes ADD COLUMN mine bigint",
        "CREATE INDEX mine ON volumes (name)",
        "SELECT nextval('volume_sizes_id_seq')",
    ] {
        assert_eq!(refused(conn, ddl).await, "42501", "{ddl}");
    }
}

#[tokio::test]
async fn agents_may_execute_six_functions_and_nothing_else() {
    let database = Database::new().await;
    let mut agent = database.agent().await;
    // What a table's columns are called is in the catalogue for all to see; what is in it is not.
    denied_everything(&database, &mut agent, false).await;
    let calls = calls(&database).await;
    assert!(calls.len() > CONTRACT.len() + 5, "helpers and maintenance are among them");
    for (name, call) in calls {
        if CONTRACT.contains(&name.as_str()) {
            sqlx::raw_sql(sqlx::AssertSqlSafe(call)).execute(&mut **agent).await.unwrap();
        } else {
            assert_eq!(refused(&mut agent, &call).await, "42501", "{name}");
        }
    }
}

#[tokio::test]
async fn readers_may_read_every_table_and_nothing_else() {
    let database = Database::new().await;
    let mut readonly = database.readonly().await;
    denied_everything(&database, &mut readonly, true).await;
    for (name, call) in calls(&database).await {
        assert_eq!(refused(&mut readonly, &call).await, "42501", "{name}");
    }
}

#[tokio::test]
async fn the_controller_changes_runs_jobs_and_alerts_and_adds_to_the_audit() {
    let database = Database::new().await;
    let mut controller = database.controller().await;
    for sql in [
        "CREATE TABLE mine (id bigint)",
        "DROP TABLE volumes",
        "UPDATE scan_results SET allocated_bytes = 0",
        "INSERT INTO volumes (volume_id, node, name) VALUES ('n/a', 'n', 'a')",
        "DELETE FROM scan_runs",
        "DELETE FROM alerts",
        "UPDATE installation SET cluster_uid = 'mine'",
        "UPDATE nodes SET name = 'mine'",
        "UPDATE audit_events SET action = 'mine'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "INSERT INTO system_metrics (name, value) VALUES ('mine', 1)",
        "DELETE FROM migrations",
    ] {
        assert_eq!(refused(&mut controller, sql).await, "42501", "{sql}");
    }
    for (name, call) in calls(&database).await {
        assert_eq!(refused(&mut controller, &call).await, "42501", "{name}");
    }
}

/// Written out, so that a right that is given by mistake is seen.
#[tokio::test]
async fn every_function_is_listed_with_who_may_execute_it() {
    let database = Database::new().await;
    let granted = names(
        &database,
        "SELECT format('%s.%s %s', pronamespace::regnamespace, proname, coalesce((
             SELECT string_agg(CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, ' ' ORDER BY grantee::regrole::text)
             FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))), ''))
         FROM pg_proc WHERE pronamespace::regnamespace::text IN ('public', 'agent_v1', 'maintain') ORDER BY 1",
    )
    .await;
    let expected = [
        "agent_v1.biggest volumeviz_owner",
        "agent_v1.claim volumeviz_agent volumeviz_owner",
        "agent_v1.close_inventory volumeviz_owner",
        "agent_v1.complete volumeviz_agent volumeviz_owner",
        "agent_v1.fail volumeviz_agent volumeviz_owner",
        "agent_v1.growth volumeviz_owner",
        "agent_v1.heartbeat volumeviz_agent volumeviz_owner",
        "agent_v1.held_job volumeviz_owner",
        "agent_v1.inventory volumeviz_agent volumeviz_owner",
        "agent_v1.keep_daily_sizes volumeviz_owner",
        "agent_v1.keep_latest volumeviz_owner",
        "agent_v1.keep_origin volumeviz_owner",
        "agent_v1.keep_rankings volumeviz_owner",
        "agent_v1.keep_sizes volumeviz_owner",
        "agent_v1.list_containers volumeviz_owner",
        "agent_v1.list_volumes volumeviz_owner",
        "agent_v1.report volumeviz_agent volumeviz_owner",
        "agent_v1.reuse_results volumeviz_owner",
        "agent_v1.saturated volumeviz_owner",
        "maintain.drop_partition volumeviz_owner",
        "maintain.expired_partitions volumeviz_owner",
        "maintain.make_partitions volumeviz_owner",
        "maintain.partitioned volumeviz_owner",
        "maintain.purge volumeviz_owner",
        "maintain.record_metrics volumeviz_owner",
        "maintain.retire_nodes volumeviz_owner",
        "public.audit_migration volumeviz_owner",
        "public.rank_volume volumeviz_owner",
        "public.touch_updated_at volumeviz_owner",
    ];
    assert_eq!(granted, expected);
}
