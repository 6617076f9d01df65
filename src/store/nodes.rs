//! What agents told about their nodes.

use sqlx::PgConnection;

/// How many of these nodes have no Docker Engine, as far as their agents told.
pub async fn without_engine(conn: &mut PgConnection, nodes: &[String]) -> sqlx::Result<i32> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM nodes WHERE name = ANY ($1) AND NOT has_engine AND deleted_at IS NULL",
    )
    .bind(nodes)
    .fetch_one(conn)
    .await?;
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}
