//! What agents told about their nodes.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection};

/// A node that an agent has run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, utoipa::ToSchema)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its uid in Kubernetes when an agent last took a job there.
    pub uid: String,
    /// Whether it has a Docker Engine; absent before an agent has looked.
    pub has_engine: Option<bool>,
    /// Docker's own id of the engine.
    pub engine_id: Option<String>,
    /// Its version.
    pub engine_version: Option<String>,
    /// `DockerRootDir`.
    pub data_root: Option<String>,
    /// Version of the agent.
    pub agent_version: Option<String>,
    /// When its agent was heard last.
    pub last_seen_at: DateTime<Utc>,
    /// Since when it is not in the cluster.
    pub absent_since: Option<DateTime<Utc>>,
    /// When it was given up, having been absent for long.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Volumes there now.
    pub volumes: i64,
    /// Their last known sizes, in bytes.
    pub allocated_bytes: i64,
}

/// Notes which nodes are in the cluster now; returns how many came or went.
pub async fn note_present(conn: &mut PgConnection, present: &[String]) -> sqlx::Result<u64> {
    let changed = sqlx::query(
        "UPDATE nodes SET absent_since = CASE WHEN absent_since IS NULL THEN clock_timestamp() END
         WHERE (absent_since IS NULL) <> EXISTS (SELECT FROM unnest($1::text[]) AS present (name) WHERE present.name = nodes.name)",
    )
    .bind(present)
    .execute(conn)
    .await?;
    Ok(changed.rows_affected())
}

/// Nodes after the one with this name, by name.
pub async fn list(conn: &mut PgConnection, after: &str, limit: i64) -> sqlx::Result<Vec<Node>> {
    sqlx::query_as(
        "SELECT node.name, node.uid, node.has_engine, node.engine_id, node.engine_version, node.data_root, node.agent_version,
             node.last_seen_at, node.absent_since, node.deleted_at, volume.volumes, volume.allocated_bytes
         FROM (SELECT * FROM nodes WHERE name > $1 ORDER BY name LIMIT $2) AS node
         CROSS JOIN LATERAL (
             SELECT count(*) AS volumes, least(coalesce(sum(ranking.allocated_bytes), 0), 9223372036854775807)::bigint AS allocated_bytes
             FROM volumes
             -- OFFSET keeps a plan from reading the sizes of all nodes for each.
             CROSS JOIN LATERAL (SELECT allocated_bytes FROM volume_rankings WHERE volume_id = volumes.id OFFSET 0) AS ranking
             WHERE volumes.node = node.name AND volumes.deleted_at IS NULL
         ) AS volume
         ORDER BY node.name",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await
}

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
