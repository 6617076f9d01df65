//! Whose database this is: two clusters that write into one would mix their nodes.

use sqlx::PgConnection;

/// The uid of the cluster that the database belongs to; the first cluster that asks takes it.
pub async fn claim_or_read(conn: &mut PgConnection, cluster_uid: &str) -> sqlx::Result<String> {
    let read = "SELECT cluster_uid FROM installation";
    if let Some(owner) = sqlx::query_scalar(read).fetch_optional(&mut *conn).await? {
        return Ok(owner);
    }
    sqlx::query("INSERT INTO installation (cluster_uid) VALUES ($1) ON CONFLICT (id) DO NOTHING")
        .bind(cluster_uid)
        .execute(&mut *conn)
        .await?;
    sqlx::query_scalar(read).fetch_one(conn).await
}
