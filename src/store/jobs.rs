//! Jobs as the controller sees them. Every change is a compare-and-set on the ticket seen: what an agent did meanwhile wins.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::{Connection, FromRow, PgConnection};
use uuid::Uuid;

use super::audit::{self, Action};
use crate::domain::run::{Ending, JobReason};

/// A job that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, judged by the database's clock")]
pub struct OpenJob {
    /// `scan_jobs.id`.
    pub id: i64,
    /// Its node.
    pub node: String,
    /// The uid of that node when the run was planned.
    pub node_uid: String,
    /// Claimed by an agent.
    pub running: bool,
    /// Its ticket.
    pub ticket: Uuid,
    /// Its back-off has passed.
    pub due: bool,
    /// Its lease has expired by the database's clock.
    pub lease_expired: bool,
    /// Its node's deadline passed more than 30 s ago by the database's clock.
    pub node_overdue: bool,
}

/// One node's part of a run, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, utoipa::ToSchema)]
pub struct Job {
    /// `scan_jobs.id`.
    pub id: i64,
    /// Its run.
    pub run_id: i64,
    /// Its node.
    pub node: String,
    /// `pending`, `running`, `succeeded`, `failed`, `skipped` or `cancelled`.
    pub status: String,
    /// 1 for the first attempt.
    pub attempt: i32,
    /// When an agent took it.
    pub claimed_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub completed_at: Option<DateTime<Utc>>,
    /// Why it ended so, or was tried again.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
}

/// Nodes without a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedNodes {
    /// The first of them by name.
    pub nodes: Vec<FailedNode>,
    /// How many there are.
    pub total: i64,
}

/// A node without a result.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct FailedNode {
    /// The node.
    pub node: String,
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Makes a run's jobs, one a node; a second one for a node violates a unique key.
pub async fn create(conn: &mut PgConnection, run: i64, nodes: &[(String, String)]) -> sqlx::Result<()> {
    let (names, uids): (Vec<&str>, Vec<&str>) = nodes.iter().map(|(name, uid)| (name.as_str(), uid.as_str())).unzip();
    sqlx::query("INSERT INTO scan_jobs (run_id, node, node_uid) SELECT $1, name, uid FROM unnest($2::text[], $3::text[]) AS node (name, uid)")
        .bind(run)
        .bind(names)
        .bind(uids)
        .execute(conn)
        .await
        .map(|_| ())
}

/// All jobs of a run, those whose node's name comes after `after`, by node.
pub async fn of_run(conn: &mut PgConnection, run: i64, after: &str, limit: i64) -> sqlx::Result<Vec<Job>> {
    sqlx::query_as(
        "SELECT id, run_id, node, status, attempt, claimed_at, completed_at, reason, message FROM scan_jobs
         WHERE run_id = $1 AND node > $2 ORDER BY node LIMIT $3",
    )
    .bind(run)
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await
}

/// Jobs of all runs that have not ended, by id.
pub async fn active(conn: &mut PgConnection) -> sqlx::Result<Vec<Job>> {
    sqlx::query_as(
        "SELECT job.id, job.run_id, job.node, job.status, job.attempt, job.claimed_at, job.completed_at, job.reason, job.message
         FROM scan_jobs AS job JOIN scan_runs AS run ON run.id = job.run_id AND run.completed_at IS NULL
         WHERE job.status IN ('pending', 'running') ORDER BY job.id",
    )
    .fetch_all(conn)
    .await
}

/// How many jobs agents work on now, over all scans.
pub async fn running(conn: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "SELECT count(*) FROM scan_jobs AS job JOIN scan_runs AS run ON run.id = job.run_id AND run.completed_at IS NULL
         WHERE job.status = 'running'",
    )
    .fetch_one(conn)
    .await
}

/// Jobs of a run that have not ended, by id.
pub async fn open(conn: &mut PgConnection, run: i64) -> sqlx::Result<Vec<OpenJob>> {
    sqlx::query_as(
        "SELECT id, node, node_uid, ticket, status = 'running' AS running, not_before <= clock_timestamp() AS due,
             coalesce(lease_expires_at < clock_timestamp(), false) AS lease_expired,
             coalesce(node_deadline + interval '30 seconds' < clock_timestamp(), false) AS node_overdue
         FROM scan_jobs WHERE run_id = $1 AND status IN ('pending', 'running') ORDER BY id",
    )
    .bind(run)
    .fetch_all(conn)
    .await
}

/// Takes a job from a holder whose lease has expired: a new ticket and the next attempt, or the end when `max_attempts` were made.
/// `false`: the holder or another leader was faster.
pub async fn re_ticket(conn: &mut PgConnection, job: i64, seen: Uuid, max_attempts: i32) -> sqlx::Result<bool> {
    let mut transaction = conn.begin().await?;
    let changed: Option<(String, i64, String, i32)> = sqlx::query_as(
        "UPDATE scan_jobs SET
             status = CASE WHEN attempt < $3 THEN 'pending' ELSE 'failed' END,
             completed_at = CASE WHEN attempt < $3 THEN NULL ELSE clock_timestamp() END,
             attempt = CASE WHEN attempt < $3 THEN attempt + 1 ELSE attempt END,
             ticket = gen_random_uuid(), instance = NULL, lease_expires_at = NULL, not_before = clock_timestamp(),
             reason = $4, message = 'the agent stopped renewing its lease'
         WHERE id = $1 AND ticket = $2 AND status = 'running' AND lease_expires_at < clock_timestamp()
         RETURNING status, run_id, node, attempt",
    )
    .bind(job)
    .bind(seen)
    .bind(max_attempts)
    .bind(JobReason::AgentLost.as_str())
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some((status, run, node, attempt)) = &changed {
        let detail = json!({"run": run, "node": node, "attempt": attempt, "status": status});
        let action = if status == "pending" { Action::JobRetried } else { Action::JobFailed };
        audit::record(&mut transaction, action, &format!("job/{job}"), detail).await?;
    }
    transaction.commit().await?;
    Ok(changed.is_some())
}

/// Ends a job without a result: one that nobody claimed is skipped, one that was claimed has failed and its holder is fenced. `false`: it
/// is no longer as it was seen.
pub async fn end(
    conn: &mut PgConnection,
    job: i64,
    seen: Uuid,
    ending: Ending,
    reason: &str,
    message: &str,
) -> sqlx::Result<bool> {
    let (before, after) = match ending {
        Ending::Failed => ("running", "failed"),
        Ending::Skipped => ("pending", "skipped"),
    };
    let changed = sqlx::query(
        "UPDATE scan_jobs SET status = $4, ticket = gen_random_uuid(), lease_expires_at = NULL, completed_at = clock_timestamp(),
             reason = $5, message = left($6, 1024)
         WHERE id = $1 AND ticket = $2 AND status = $3",
    )
    .bind(job)
    .bind(seen)
    .bind(before)
    .bind(after)
    .bind(reason)
    .bind(message)
    .execute(conn)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Ends every open job of a run whose deadline has passed; what went wrong before is kept as its reason.
pub async fn end_open(conn: &mut PgConnection, run: i64) -> sqlx::Result<u64> {
    let ended = sqlx::query(
        "UPDATE scan_jobs SET
             status = CASE status WHEN 'running' THEN 'failed' ELSE 'skipped' END,
             ticket = gen_random_uuid(), lease_expires_at = NULL, completed_at = clock_timestamp(),
             reason = $2, message = concat_ws('; before that: ', 'runTimeoutSeconds passed', message)
         WHERE run_id = $1 AND status IN ('pending', 'running')",
    )
    .bind(run)
    .bind(JobReason::RunTimeout.as_str())
    .execute(conn)
    .await?;
    Ok(ended.rows_affected())
}

/// Nodes of a run that ended without a result; those without a Docker Engine are none of them, they have nothing to measure.
pub async fn failed_nodes(conn: &mut PgConnection, run: i64, limit: i64) -> sqlx::Result<FailedNodes> {
    let total = sqlx::query_scalar(
        "SELECT count(*) FROM scan_jobs
         WHERE run_id = $1 AND status IN ('failed', 'skipped') AND reason IS DISTINCT FROM 'NoDockerEngine'",
    )
    .bind(run)
    .fetch_one(&mut *conn)
    .await?;
    let nodes = sqlx::query_as(
        "SELECT node, coalesce(reason, '') AS reason, coalesce(message, '') AS message FROM scan_jobs
         WHERE run_id = $1 AND status IN ('failed', 'skipped') AND reason IS DISTINCT FROM 'NoDockerEngine' ORDER BY node LIMIT $2",
    )
    .bind(run)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(FailedNodes { nodes, total })
}
