//! Runs: one per (scan, key).

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::types::Json;
use sqlx::{Connection, FromRow, PgConnection, Row};

use super::audit::{self, Action};
use super::jobs;
use crate::domain::run::{CancelReason, NodeCounts, RunKey, RunResult};
use crate::domain::work::WorkOrder;

/// A run to make.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// `metadata.uid` of the VolumeScan.
    pub scan_uid: String,
    /// Its name, for people.
    pub scan_name: String,
    /// Makes it unique within the scan.
    pub key: String,
    /// The snapshot of the spec.
    pub work: WorkOrder,
    /// Names and uids of its nodes.
    pub nodes: Vec<(String, String)>,
}

/// What planning a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The run.
    pub id: i64,
    /// Whether it was made now; otherwise it was there.
    pub inserted: bool,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    /// `scan_runs.id`.
    pub id: i64,
    /// The scan's name.
    pub scan_name: String,
    /// What made it, unique within the scan.
    pub key: String,
    /// When it was planned.
    pub created_at: DateTime<Utc>,
    /// When it ends whatever has been measured.
    pub deadline: DateTime<Utc>,
    /// The deadline passed more than 30 s ago by the database's clock: agents had time to hand in what they had.
    pub overdue: bool,
    /// When it ended.
    pub completed_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub result: Option<RunResult>,
    /// Why it ended so.
    pub reason: Option<String>,
    /// The snapshot of the spec.
    pub work: WorkOrder,
    /// Its nodes by state.
    pub nodes: NodeCounts,
}

/// Sums over the jobs of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunProgress {
    /// Nodes by state.
    pub nodes: NodeCounts,
    /// Skipped because they have no Docker Engine.
    pub without_docker: i32,
    /// Volumes final so far.
    pub volumes_done: i64,
    /// Entries seen.
    pub entries: i64,
    /// Bytes allocated to them.
    pub bytes: i64,
}

/// Makes a run and its jobs, or finds the one that has this key.
pub async fn plan(conn: &mut PgConnection, run: &NewRun) -> sqlx::Result<Planned> {
    let mut transaction = conn.begin().await?;
    let inserted: Option<i64> = sqlx::query_scalar(
        "INSERT INTO scan_runs (scan_uid, scan_name, run_key, work, deadline)
         VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
         ON CONFLICT (scan_uid, run_key) DO NOTHING RETURNING id",
    )
    .bind(&run.scan_uid)
    .bind(&run.scan_name)
    .bind(&run.key)
    .bind(Json(&run.work))
    .bind(f64::from(run.work.limits.run_timeout_seconds))
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(id) = inserted else {
        let id = sqlx::query_scalar("SELECT id FROM scan_runs WHERE scan_uid = $1 AND run_key = $2")
            .bind(&run.scan_uid)
            .bind(&run.key)
            .fetch_one(&mut *transaction)
            .await?;
        return Ok(Planned { id, inserted: false });
    };
    jobs::create(&mut transaction, id, &run.nodes).await?;
    let detail =
        json!({"scan": run.scan_name, "uid": run.scan_uid, "key": run.key, "nodes": run.nodes.len(), "work": run.work});
    audit::record(&mut transaction, Action::RunPlanned, &format!("run/{id}"), detail).await?;
    transaction.commit().await?;
    Ok(Planned { id, inserted: true })
}

/// The columns that [`counts`] reads, over rows of `scan_jobs`.
macro_rules! job_counts {
    () => {
        "count(*) AS total,
             count(*) FILTER (WHERE status = 'pending') AS pending,
             count(*) FILTER (WHERE status = 'running') AS running,
             count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
             count(*) FILTER (WHERE status = 'failed') AS failed,
             count(*) FILTER (WHERE status IN ('skipped', 'cancelled')) AS skipped"
    };
}

/// Selects runs with the counts of their jobs; the clause after it is the caller's.
macro_rules! select_runs {
    ($clause:literal) => {
        concat!(
            "SELECT run.id, run.scan_name, run.run_key, run.created_at, run.deadline, run.completed_at, run.result, run.reason, run.work,
                    run.deadline + interval '30 seconds' < clock_timestamp() AS overdue, job.*
             FROM scan_runs AS run CROSS JOIN LATERAL (
                 SELECT ",
            job_counts!(),
            "
                 FROM scan_jobs WHERE run_id = run.id
             ) AS job ",
            $clause
        )
    };
}

/// The run of a scan that has this key.
pub async fn find(conn: &mut PgConnection, scan_uid: &str, key: &str) -> sqlx::Result<Option<Run>> {
    sqlx::query_as(select_runs!("WHERE run.scan_uid = $1 AND run.run_key = $2"))
        .bind(scan_uid)
        .bind(key)
        .fetch_optional(conn)
        .await
}

/// The run of a scan that is under way; the oldest, should there be several.
pub async fn active(conn: &mut PgConnection, scan_uid: &str) -> sqlx::Result<Option<Run>> {
    sqlx::query_as(select_runs!("WHERE run.scan_uid = $1 AND run.completed_at IS NULL ORDER BY run.id LIMIT 1"))
        .bind(scan_uid)
        .fetch_optional(conn)
        .await
}

/// One run; [`sqlx::Error::RowNotFound`] when there is none.
pub async fn get(conn: &mut PgConnection, id: i64) -> sqlx::Result<Run> {
    sqlx::query_as(select_runs!("WHERE run.id = $1")).bind(id).fetch_one(conn).await
}

/// Runs of the scans that had this name, those before the run `before`, newest first.
pub async fn of_name(conn: &mut PgConnection, scan_name: &str, before: i64, limit: i64) -> sqlx::Result<Vec<Run>> {
    sqlx::query_as(select_runs!("WHERE run.scan_name = $1 AND run.id < $2 ORDER BY run.id DESC LIMIT $3"))
        .bind(scan_name)
        .bind(before)
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// Ended runs of a scan, newest first.
pub async fn history(conn: &mut PgConnection, scan_uid: &str, limit: i64) -> sqlx::Result<Vec<Run>> {
    sqlx::query_as(select_runs!(
        "WHERE run.scan_uid = $1 AND run.completed_at IS NOT NULL ORDER BY run.completed_at DESC, run.id DESC LIMIT $2"
    ))
    .bind(scan_uid)
    .bind(limit)
    .fetch_all(conn)
    .await
}

/// How far a run is.
pub async fn progress(conn: &mut PgConnection, run: i64) -> sqlx::Result<RunProgress> {
    let row = sqlx::query(concat!(
        "SELECT ",
        job_counts!(),
        ",
             count(*) FILTER (WHERE status = 'skipped' AND reason = 'NoDockerEngine') AS without_docker,
             least(coalesce(sum((progress ->> 'volumes_done')::numeric), 0), 9223372036854775807)::bigint AS volumes_done,
             least(coalesce(sum((progress ->> 'entries')::numeric), 0), 9223372036854775807)::bigint AS entries,
             least(coalesce(sum((progress ->> 'bytes')::numeric), 0), 9223372036854775807)::bigint AS bytes
         FROM scan_jobs WHERE run_id = $1"
    ))
    .bind(run)
    .fetch_one(conn)
    .await?;
    Ok(RunProgress {
        nodes: counts(&row)?,
        without_docker: count(&row, "without_docker")?,
        volumes_done: row.try_get("volumes_done")?,
        entries: row.try_get("entries")?,
        bytes: row.try_get("bytes")?,
    })
}

/// The jobs of all runs under way.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Queue {
    /// By state.
    pub nodes: NodeCounts,
    /// How long the oldest of them that nobody has claimed has waited, in seconds; 0 without one.
    pub oldest_pending_seconds: f64,
}

/// Counts the jobs of all runs under way.
pub async fn queue(conn: &mut PgConnection) -> sqlx::Result<Queue> {
    let row = sqlx::query(concat!(
        "SELECT ",
        job_counts!(),
        ",
             coalesce(extract(epoch FROM clock_timestamp() - min(not_before) FILTER (WHERE status = 'pending')), 0)::float8 AS oldest
         FROM scan_jobs WHERE run_id IN (SELECT id FROM scan_runs WHERE completed_at IS NULL)"
    ))
    .fetch_one(conn)
    .await?;
    Ok(Queue { nodes: counts(&row)?, oldest_pending_seconds: f64::max(row.try_get("oldest")?, 0.0) })
}

/// Ends a run, unless somebody else has; tells whether it was this call.
pub async fn finish(conn: &mut PgConnection, run: i64, result: RunResult, reason: &str) -> sqlx::Result<bool> {
    let ended = sqlx::query(
        "UPDATE scan_runs SET completed_at = clock_timestamp(), result = $2, reason = $3 WHERE id = $1 AND completed_at IS NULL",
    )
    .bind(run)
    .bind(result.as_str())
    .bind(reason)
    .execute(conn)
    .await?;
    Ok(ended.rows_affected() == 1)
}

/// When the newest scheduled runs of a scan were due, newest first.
pub async fn due_times(conn: &mut PgConnection, scan_uid: &str, newest: i64) -> sqlx::Result<Vec<DateTime<Utc>>> {
    // Times of one form sort as text.
    let keys: Vec<String> = sqlx::query_scalar(
        "SELECT run_key FROM scan_runs WHERE scan_uid = $1 AND run_key LIKE 's:%' ORDER BY run_key DESC LIMIT $2",
    )
    .bind(scan_uid)
    .bind(newest)
    .fetch_all(conn)
    .await?;
    Ok(keys.iter().filter_map(|key| RunKey::due_time(key)).collect())
}

/// A run under way, of whatever scan.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct UnderWay {
    /// `scan_runs.id`.
    pub id: i64,
    /// `metadata.uid` of its VolumeScan.
    pub scan_uid: String,
    /// Its deadline passed so long ago that whoever reconciles its scan would have ended it.
    pub abandoned: bool,
}

/// Runs under way.
pub async fn under_way(conn: &mut PgConnection) -> sqlx::Result<Vec<UnderWay>> {
    sqlx::query_as(
        "SELECT id, scan_uid, deadline + interval '90 seconds' < clock_timestamp() AS abandoned
         FROM scan_runs WHERE completed_at IS NULL ORDER BY id",
    )
    .fetch_all(conn)
    .await
}

/// Notes which runs belong to scans that are in the cluster no more, given the uids of those that are; returns how many runs changed.
pub async fn note_orphans(conn: &mut PgConnection, live: &[String]) -> sqlx::Result<u64> {
    let changed = sqlx::query(
        "UPDATE scan_runs SET orphaned_at = CASE WHEN orphaned_at IS NULL THEN clock_timestamp() END
         WHERE (orphaned_at IS NULL) = (scan_uid <> ALL ($1))",
    )
    .bind(live)
    .execute(conn)
    .await?;
    Ok(changed.rows_affected())
}

/// Cancels these runs, those that have not ended, and replaces the tickets of their jobs, which stops their agents; returns which runs.
pub async fn cancel(conn: &mut PgConnection, runs: &[i64], reason: CancelReason) -> sqlx::Result<Vec<i64>> {
    let mut transaction = conn.begin().await?;
    let runs: Vec<i64> = sqlx::query_scalar(
        "UPDATE scan_runs SET completed_at = clock_timestamp(), result = 'Cancelled', reason = $2
         WHERE id = ANY ($1) AND completed_at IS NULL RETURNING id",
    )
    .bind(runs)
    .bind(reason.as_str())
    .fetch_all(&mut *transaction)
    .await?;
    sqlx::query(
        "UPDATE scan_jobs SET status = 'cancelled', ticket = gen_random_uuid(), lease_expires_at = NULL, completed_at = clock_timestamp()
         WHERE run_id = ANY ($1) AND status IN ('pending', 'running')",
    )
    .bind(&runs)
    .execute(&mut *transaction)
    .await?;
    for run in &runs {
        let detail = json!({"reason": reason.as_str()});
        audit::record(&mut transaction, Action::RunCancelled, &format!("run/{run}"), detail).await?;
    }
    transaction.commit().await?;
    Ok(runs)
}

impl FromRow<'_, sqlx::postgres::PgRow> for Run {
    fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
        let Json(work) = row.try_get("work")?;
        let result: Option<String> = row.try_get("result")?;
        Ok(Self {
            id: row.try_get("id")?,
            scan_name: row.try_get("scan_name")?,
            key: row.try_get("run_key")?,
            created_at: row.try_get("created_at")?,
            deadline: row.try_get("deadline")?,
            overdue: row.try_get("overdue")?,
            completed_at: row.try_get("completed_at")?,
            result: result.map(|name| parse_result(&name)).transpose()?,
            reason: row.try_get("reason")?,
            work,
            nodes: counts(row)?,
        })
    }
}

fn parse_result(name: &str) -> sqlx::Result<RunResult> {
    RunResult::parse(name).ok_or_else(|| sqlx::Error::Decode(format!("scan_runs.result is {name:?}").into()))
}

fn counts(row: &sqlx::postgres::PgRow) -> sqlx::Result<NodeCounts> {
    Ok(NodeCounts {
        total: count(row, "total")?,
        pending: count(row, "pending")?,
        running: count(row, "running")?,
        succeeded: count(row, "succeeded")?,
        failed: count(row, "failed")?,
        skipped: count(row, "skipped")?,
    })
}

fn count(row: &sqlx::postgres::PgRow, column: &str) -> sqlx::Result<i32> {
    let count: i64 = row.try_get(column)?;
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}
