//! Whose database this is: two clusters that write into one would mix their nodes.

use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::audit::{self, Action};

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

/// Gives the database to a cluster, as its owner; returns whose it was.
pub async fn adopt(conn: &mut PgConnection, cluster_uid: &str) -> sqlx::Result<Option<String>> {
    let mut transaction = conn.begin().await?;
    let before: Option<String> =
        sqlx::query_scalar("SELECT cluster_uid FROM installation FOR UPDATE").fetch_optional(&mut *transaction).await?;
    sqlx::query("INSERT INTO installation (cluster_uid) VALUES ($1) ON CONFLICT (id) DO UPDATE SET cluster_uid = excluded.cluster_uid")
        .bind(cluster_uid)
        .execute(&mut *transaction)
        .await?;
    let detail = json!({"from": before, "to": cluster_uid});
    audit::record(&mut transaction, Action::Adopted, "installation", detail).await?;
    transaction.commit().await?;
    Ok(before)
}
