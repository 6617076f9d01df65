//! Figures about the database itself: as they are now, and as `volumeviz maintain` wrote them down over time.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};

/// One of our tables, its partitions summed up.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct TableFigures {
    /// Its name.
    pub name: String,
    /// Rows, as estimated by the server's statistics.
    pub estimated_rows: i64,
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
    sqlx::query_as(
        "SELECT name, estimated_rows, total_bytes, index_bytes, partitions, replace(pg_size_pretty(total_bytes), ' ', '') AS total_size
         FROM table_figures ORDER BY name",
    )
    .fetch_all(conn)
    .await
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
