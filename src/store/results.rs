//! What runs found: the figures of a scan (for each selected node, the results of the last job that this scan completed there), and the
//! results of one run.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, Row};

use super::containers::holders;
use crate::domain::measurement::{Completeness, VolumeCounts};

/// How many volumes a status lists.
pub const TOP_VOLUMES: i64 = 10;

/// The figures of a scan.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// Volumes by kind.
    pub counts: VolumeCounts,
    /// Disk space of all measured volumes in bytes.
    pub allocated_bytes: i64,
    /// Sum of file sizes in bytes.
    pub apparent_bytes: i64,
    /// Files.
    pub files: i64,
    /// Nodes whose figures are from an earlier run than the last one.
    pub stale_nodes: i64,
    /// When the oldest of these figures was taken.
    pub oldest_data_time: Option<DateTime<Utc>>,
    /// The biggest volumes, biggest first.
    pub top: Vec<VolumeRow>,
}

/// One measured volume.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeRow {
    /// Its node.
    pub node: String,
    /// Docker's name.
    pub name: String,
    /// Disk space in bytes.
    pub allocated_bytes: i64,
    /// Sum of file sizes in bytes, where it is known.
    pub apparent_bytes: Option<i64>,
    /// Complete or Partial.
    pub completeness: Completeness,
    /// Running containers that mount it.
    pub used_by_running: i64,
    /// Stopped containers that mount it.
    pub used_by_stopped: i64,
    /// When it was measured.
    pub measured_at: DateTime<Utc>,
}

/// What one run found of one volume.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow, utoipa::ToSchema)]
pub struct RunResultRow {
    /// `scan_results.id`.
    pub id: i64,
    /// `volumes.id`.
    pub volume_id: i64,
    /// Its node.
    pub node: String,
    /// Docker's name.
    pub name: String,
    /// When it was measured.
    pub measured_at: DateTime<Utc>,
    /// `Complete`, `Partial` or `Unknown`.
    pub completeness: String,
    /// Why it is not complete.
    pub reason: Option<String>,
    /// `Walk` or `Statvfs`.
    pub method: Option<String>,
    /// Disk space in bytes.
    pub allocated_bytes: Option<i64>,
    /// Sum of file sizes in bytes.
    pub apparent_bytes: Option<i64>,
    /// Files.
    pub files: Option<i64>,
    /// Directories.
    pub directories: Option<i64>,
    /// A figure was larger than can be stored, and stands at its maximum.
    pub saturated: bool,
    /// Failures by kind: `[{"kind", "count"}]`.
    pub errors: serde_json::Value,
    /// Mounts inside the volume that were not entered.
    pub skipped_mounts: serde_json::Value,
    /// How long measuring took, in milliseconds.
    pub duration_ms: i64,
}

/// What a run found, after the result `after`, in the order in which it was reported.
pub async fn of_run(conn: &mut PgConnection, run: i64, after: i64, limit: i64) -> sqlx::Result<Vec<RunResultRow>> {
    sqlx::query_as(
        "SELECT result.id, result.volume_id, volume.node, volume.name, result.measured_at, result.completeness, result.reason, result.method,
             result.allocated_bytes, result.apparent_bytes, result.files, result.directories, result.saturated, result.errors,
             result.skipped_mounts, result.duration_ms
         FROM scan_jobs AS job JOIN scan_results AS result ON result.scan_job_id = job.id JOIN volumes AS volume ON volume.id = result.volume_id
         WHERE job.run_id = $1 AND result.id > $2 ORDER BY result.id LIMIT $3",
    )
    .bind(run)
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await
}

/// For each given node its last completed job of this scan; beside it whether a later run has ended since.
macro_rules! with_latest_jobs {
    ($($query:tt)*) => {
        concat!(
            "WITH latest AS (
                 SELECT job.id, job.run_id < (
                     SELECT max(id) FROM scan_runs WHERE scan_uid = $1 AND completed_at IS NOT NULL AND result <> 'Cancelled'
                 ) AS stale
                 FROM unnest($2::text[]) AS node (name) CROSS JOIN LATERAL (
                     SELECT scan_jobs.id, scan_jobs.run_id FROM scan_jobs JOIN scan_runs ON scan_runs.id = scan_jobs.run_id
                     WHERE scan_jobs.node = node.name AND scan_jobs.status = 'succeeded' AND scan_runs.scan_uid = $1
                     ORDER BY scan_jobs.run_id DESC LIMIT 1
                 ) AS job
             ) ",
            $($query)*
        )
    };
}

/// Reads the figures. `None` when no node ever completed a job of this scan: there is nothing to sum up, which is not zero.
pub async fn read(
    conn: &mut PgConnection,
    scan_uid: &str,
    nodes: &[String],
    top: i64,
) -> sqlx::Result<Option<Results>> {
    let sums = sqlx::query(with_latest_jobs!(
        "SELECT (SELECT count(*) FROM latest) AS nodes,
             (SELECT count(*) FROM latest WHERE stale) AS stale_nodes,
             count(volume.id) AS volumes,
             count(*) FILTER (WHERE result.completeness = 'Complete') AS measured,
             count(*) FILTER (WHERE result.completeness = 'Partial') AS partial,
             count(*) FILTER (WHERE result.completeness = 'Unknown' AND result.reason IN ('VolumeTimeout', 'DeviceHung', 'Unreadable', 'Unstorable'))
                 AS failed,
             count(*) FILTER (WHERE result.completeness = 'Unknown'
                 AND result.reason NOT IN ('VolumeTimeout', 'DeviceHung', 'Unreadable', 'Unstorable')) AS unknown,
             count(*) FILTER (WHERE volume.is_anonymous) AS anonymous,
             count(*) FILTER (WHERE volume.is_active) AS in_use,
             count(*) FILTER (WHERE NOT volume.is_active) AS unused,
             least(coalesce(sum(result.allocated_bytes), 0), 9223372036854775807)::bigint AS allocated_bytes,
             least(coalesce(sum(result.apparent_bytes), 0), 9223372036854775807)::bigint AS apparent_bytes,
             least(coalesce(sum(result.files), 0), 9223372036854775807)::bigint AS files,
             min(result.measured_at) AS oldest_data_time
         FROM latest
         JOIN scan_results AS result ON result.scan_job_id = latest.id AND result.reason IS DISTINCT FROM 'Vanished'
         JOIN volumes AS volume ON volume.id = result.volume_id"
    ))
    .bind(scan_uid)
    .bind(nodes)
    .fetch_one(&mut *conn)
    .await?;
    if sums.try_get::<i64, _>("nodes")? == 0 {
        return Ok(None);
    }
    let top = biggest(conn, scan_uid, nodes, top).await?;
    Ok(Some(Results {
        counts: VolumeCounts {
            volumes: sums.try_get("volumes")?,
            measured: sums.try_get("measured")?,
            partial: sums.try_get("partial")?,
            failed: sums.try_get("failed")?,
            unknown: sums.try_get("unknown")?,
            anonymous: sums.try_get("anonymous")?,
            in_use: sums.try_get("in_use")?,
            unused: sums.try_get("unused")?,
        },
        allocated_bytes: sums.try_get("allocated_bytes")?,
        apparent_bytes: sums.try_get("apparent_bytes")?,
        files: sums.try_get("files")?,
        stale_nodes: sums.try_get("stale_nodes")?,
        oldest_data_time: sums.try_get("oldest_data_time")?,
        top,
    }))
}

async fn biggest(
    conn: &mut PgConnection,
    scan_uid: &str,
    nodes: &[String],
    limit: i64,
) -> sqlx::Result<Vec<VolumeRow>> {
    sqlx::query_as(with_latest_jobs!(
        ", biggest AS (
             SELECT result.* FROM latest
             JOIN scan_results AS result ON result.scan_job_id = latest.id AND result.completeness <> 'Unknown'
             ORDER BY result.allocated_bytes DESC, result.id LIMIT $3
         )
         SELECT volume.node, volume.name, biggest.allocated_bytes, biggest.apparent_bytes, biggest.completeness, biggest.measured_at,
             used.running, used.stopped
         FROM biggest
         JOIN volumes AS volume ON volume.id = biggest.volume_id
         CROSS JOIN LATERAL (",
        holders!(),
        ") AS used
         ORDER BY biggest.allocated_bytes DESC, biggest.id"
    ))
    .bind(scan_uid)
    .bind(nodes)
    .bind(limit)
    .fetch_all(conn)
    .await
}

impl FromRow<'_, sqlx::postgres::PgRow> for VolumeRow {
    fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
        let completeness: String = row.try_get("completeness")?;
        Ok(Self {
            node: row.try_get("node")?,
            name: row.try_get("name")?,
            allocated_bytes: row.try_get("allocated_bytes")?,
            apparent_bytes: row.try_get("apparent_bytes")?,
            completeness: if completeness == Completeness::Complete.as_str() {
                Completeness::Complete
            } else {
                Completeness::Partial
            },
            used_by_running: row.try_get("running")?,
            used_by_stopped: row.try_get("stopped")?,
            measured_at: row.try_get("measured_at")?,
        })
    }
}
