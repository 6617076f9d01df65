//! The agents' six functions. Nothing else in the database is open to an agent.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::domain::contract::{
    ClaimBody, ClaimReply, CompleteBody, FailBody, HeartbeatBody, InventoryBody, InventoryReply, Reply, ReportBody,
};

/// Takes a job.
pub async fn claim(conn: &mut PgConnection, ticket: Uuid, body: &ClaimBody) -> sqlx::Result<ClaimReply> {
    call(conn, "SELECT agent_v1.claim($1, $2)", ticket, body).await
}

/// Renews the lease and tells progress.
pub async fn heartbeat(conn: &mut PgConnection, ticket: Uuid, body: &HeartbeatBody) -> sqlx::Result<Reply> {
    call(conn, "SELECT agent_v1.heartbeat($1, $2)", ticket, body).await
}

/// Stores a chunk of the inventory.
pub async fn inventory(conn: &mut PgConnection, ticket: Uuid, body: &InventoryBody) -> sqlx::Result<InventoryReply> {
    call(conn, "SELECT agent_v1.inventory($1, $2)", ticket, body).await
}

/// Stores results.
pub async fn report(conn: &mut PgConnection, ticket: Uuid, body: &ReportBody) -> sqlx::Result<Reply> {
    call(conn, "SELECT agent_v1.report($1, $2)", ticket, body).await
}

/// Ends a job as done.
pub async fn complete(conn: &mut PgConnection, ticket: Uuid, body: &CompleteBody) -> sqlx::Result<Reply> {
    call(conn, "SELECT agent_v1.complete($1, $2)", ticket, body).await
}

/// Ends a job without result, or gives it back.
pub async fn fail(conn: &mut PgConnection, ticket: Uuid, body: &FailBody) -> sqlx::Result<Reply> {
    call(conn, "SELECT agent_v1.fail($1, $2)", ticket, body).await
}

async fn call<B, R>(conn: &mut PgConnection, sql: &'static str, ticket: Uuid, body: &B) -> sqlx::Result<R>
where
    B: Serialize + Sync,
    R: DeserializeOwned + Send + Unpin + 'static,
{
    let Json(reply) = sqlx::query_scalar::<_, Json<R>>(sql).bind(ticket).bind(Json(body)).fetch_one(conn).await?;
    Ok(reply)
}
