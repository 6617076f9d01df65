//! Figures about the database itself: as they are now, and as `volumeviz maintain` wrote them down over time.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};

/// Below this size rows are counted: it takes milliseconds, and the statistics of a young table know nothing yet.
const SMALL_BYTES: i64 = 16 << 20;

macro_rules! counts {
    ($($table:literal)*) => { [$(($table, concat!("SELECT count(*) FROM ", $table))),*] };
}

/// The statement that counts each of our tables.
pub const COUNTS: [(&str, &str); 17] = counts!(
    "installation" "nodes" "volumes" "volume_latest" "volume_rankings" "containers" "container_volumes" "scan_runs" "scan_jobs" "scan_results"
    "volume_sizes" "volume_sizes_daily" "alerts" "alert_notifications" "system_metrics" "audit_events" "migrations"
);

/// One of our tables, its partitions summed up.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct TableFigures {
    /// Its name.
    pub name: String,
    /// Rows: counted in a small table, else as estimated by the server's statistics.
    pub rows: i64,
    /// With its indexes, in bytes.
    pub total_bytes: i64,
    /// Its indexes, in bytes.
    pub index_bytes: i64,
    /// Partitions; 0 for a plain table.
    pub partitions: i32,
    /// `total_bytes` for people.
    pub total_size: String,
}

/// The whole database.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DatabaseFigures {
    /// In bytes.
    pub total_bytes: i64,
    /// All indexes of our tables, in bytes.
    pub index_bytes: i64,
    /// `total_bytes` for people.
    pub total_size: String,
    /// `index_bytes` for people.
    pub index_size: String,
}

/// A figure at a time.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Sample {
    /// When.
    pub created_at: DateTime<Utc>,
    /// How much.
    pub value: f64,
}

/// Our tables by name.
pub async fn tables(conn: &mut PgConnection) -> sqlx::Result<Vec<TableFigures>> {
    let mut tables: Vec<TableFigures> = sqlx::query_as(
        "SELECT name, estimated_rows AS rows, total_bytes, index_bytes, partitions, replace(pg_size_pretty(total_bytes), ' ', '') AS total_size
         FROM table_figures ORDER BY name",
    )
    .fetch_all(&mut *conn)
    .await?;
    for table in tables.iter_mut().filter(|table| table.total_bytes < SMALL_BYTES) {
        if let Some((_, count)) = COUNTS.iter().find(|(name, _)| *name == table.name) {
            table.rows = sqlx::query_scalar(*count).fetch_one(&mut *conn).await?;
        }
    }
    Ok(tables)
}

/// The database as a whole.
pub async fn database(conn: &mut PgConnection) -> sqlx::Result<DatabaseFigures> {
    sqlx::query_as(
        "SELECT total_bytes, index_bytes, replace(pg_size_pretty(total_bytes), ' ', '') AS total_size,
             replace(pg_size_pretty(index_bytes), ' ', '') AS index_size
         FROM (SELECT pg_database_size(current_database()) AS total_bytes, (SELECT coalesce(sum(index_bytes), 0)::bigint FROM table_figures) AS index_bytes) AS size",
    )
    .fetch_one(conn)
    .await
}

/// A figure since a time, oldest first: `database_bytes` and `connections` (subject ``), `table_bytes`, `table_rows` and `table_dead_rows`
/// (subject: the table).
pub async fn history(
    conn: &mut PgConnection,
    name: &str,
    subject: &str,
    since: DateTime<Utc>,
) -> sqlx::Result<Vec<Sample>> {
    sqlx::query_as(
        "SELECT created_at, value FROM system_metrics WHERE name = $1 AND subject = $2 AND created_at >= $3 ORDER BY created_at",
    )
    .bind(name)
    .bind(subject)
    .bind(since)
    .fetch_all(conn)
    .await
}
