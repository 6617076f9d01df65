//! Whether the database can be used by this version, in the name of this role, for this cluster.

use sqlx::{Connection, PgConnection};

use super::installation;
use crate::migrate::REQUIRED_VERSION;

/// What a probe found on a server that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Why it cannot be used all the same.
    pub problem: Option<(Reason, String)>,
    /// `server_version`, e.g. `15.18`.
    pub server_version: String,
    /// Number of the last applied migration.
    pub schema_version: Option<i64>,
    /// Migrations this version needs that are not applied.
    pub pending_migrations: i32,
}

/// Why a server that answers cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The schema is not there yet, or is being changed now.
    Migrating,
    /// The schema is older than this version needs and nobody changes it, or a migration is recorded as begun and not finished.
    SchemaMismatch,
    /// The role may not read or write what it must.
    GrantsMissing,
    /// The database belongs to another cluster.
    ForeignDatabase,
    /// The server takes no writes.
    ReadOnly,
}

impl Reason {
    /// The name in conditions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Migrating => "Migrating",
            Self::SchemaMismatch => "SchemaMismatch",
            Self::GrantsMissing => "GrantsMissing",
            Self::ForeignDatabase => "ForeignDatabase",
            Self::ReadOnly => "ReadOnly",
        }
    }
}

/// What can be learnt without touching a table.
#[derive(sqlx::FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "a row of independent facts")]
struct Server {
    version: String,
    read_only: bool,
    migrations: bool,
    may_read: bool,
    may_write: bool,
    maintaining: bool,
}

async fn server(conn: &mut PgConnection) -> sqlx::Result<Server> {
    sqlx::query_as(
        "SELECT current_setting('server_version') AS version,
             pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only,
             to_regclass('public.migrations') IS NOT NULL AS migrations,
             coalesce(has_table_privilege(to_regclass('public.migrations'), 'SELECT'), false) AS may_read,
             -- A list of privileges asks for any one of them.
             coalesce(has_table_privilege(to_regclass('public.scan_runs'), 'INSERT')
                 AND has_table_privilege(to_regclass('public.scan_runs'), 'UPDATE')
                 AND has_table_privilege(to_regclass('public.scan_jobs'), 'INSERT')
                 AND has_table_privilege(to_regclass('public.scan_jobs'), 'UPDATE')
                 AND has_table_privilege(to_regclass('public.audit_events'), 'INSERT')
                 AND has_column_privilege(to_regclass('public.nodes'), 'absent_since', 'UPDATE')
                 AND has_table_privilege(to_regclass('public.scan_results'), 'SELECT'), false) AS may_write,
             EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2 AND granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS maintaining",
    )
    .bind(crate::migrate::LOCK_CLASS)
    .bind(crate::migrate::LOCK_OBJECT)
    .fetch_one(conn)
    .await
}

/// Fails when the server's disk is full, which reading does not tell: a sort that does not fit into memory is written to disk. It leaves
/// nothing behind.
async fn spill(conn: &mut PgConnection) -> sqlx::Result<()> {
    let mut transaction = conn.begin().await?;
    sqlx::query("SET LOCAL work_mem = '64kB'").execute(&mut *transaction).await?;
    sqlx::query("SELECT count(*) FROM (SELECT repeat(md5(n::text), 8) FROM generate_series(1, 2000) AS n ORDER BY 1 OFFSET 1) AS sorted")
        .execute(&mut *transaction)
        .await?;
    transaction.rollback().await
}

/// Probes the database as the controller's role; takes it for this cluster when it belongs to none.
pub async fn probe(conn: &mut PgConnection, cluster_uid: &str) -> sqlx::Result<Health> {
    let server = server(&mut *conn).await?;
    let mut health = Health {
        problem: None,
        server_version: server.version,
        schema_version: None,
        pending_migrations: i32::try_from(REQUIRED_VERSION).unwrap_or(i32::MAX),
    };
    if server.read_only {
        health.problem =
            Some((Reason::ReadOnly, "the server takes no writes: it is a standby, or was demoted".to_owned()));
        return Ok(health);
    }
    spill(&mut *conn).await?;
    if !server.migrations || (!server.may_read && server.maintaining) {
        health.problem =
            Some((Reason::Migrating, "the schema is not there yet; `volumeviz maintain` makes it".to_owned()));
        return Ok(health);
    }
    if !server.may_read {
        health.problem = Some((Reason::GrantsMissing, grants_message("SELECT on migrations")));
        return Ok(health);
    }
    let (applied, failed): (Option<i64>, i64) = sqlx::query_as(
        "SELECT max(version) FILTER (WHERE success), count(*) FILTER (WHERE NOT success) FROM migrations",
    )
    .fetch_one(&mut *conn)
    .await?;
    let applied = applied.unwrap_or(0);
    health.schema_version = Some(applied);
    health.pending_migrations = i32::try_from((REQUIRED_VERSION - applied).max(0)).unwrap_or(i32::MAX);
    health.problem = match () {
        () if failed > 0 => Some((
            Reason::SchemaMismatch,
            format!("{failed} migrations were begun and not finished; see `volumeviz migrate status`"),
        )),
        () if applied < REQUIRED_VERSION => {
            let reason = if server.maintaining { Reason::Migrating } else { Reason::SchemaMismatch };
            let message = format!(
                "the schema is at version {applied}, this version needs {REQUIRED_VERSION}; `volumeviz maintain` brings it there"
            );
            Some((reason, message))
        }
        () if !server.may_write => Some((Reason::GrantsMissing, grants_message("its tables"))),
        () => foreign(conn, cluster_uid).await?,
    };
    Ok(health)
}

fn grants_message(what: &str) -> String {
    format!(
        "the role lacks rights on {what}: make it a member of volumeviz_controller (GRANT volumeviz_controller TO the user)"
    )
}

async fn foreign(conn: &mut PgConnection, cluster_uid: &str) -> sqlx::Result<Option<(Reason, String)>> {
    let owner = installation::claim_or_read(conn, cluster_uid).await?;
    let foreign = owner != cluster_uid;
    Ok(foreign.then(|| {
        (Reason::ForeignDatabase, format!("the database belongs to the cluster {owner}, this is {cluster_uid}"))
    }))
}
