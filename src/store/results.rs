//! What runs found of volumes, row by row.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection};

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
    /// The biggest files, where they were asked for: `[{"path", "allocated_bytes"}]`, biggest first.
    pub top_files: Option<serde_json::Value>,
    /// The biggest directories by what is directly in them, likewise.
    pub top_directories: Option<serde_json::Value>,
    /// How long measuring took, in milliseconds.
    pub duration_ms: i64,
}

/// What a run found, after the result `after`, in the order in which it was reported.
pub async fn of_run(conn: &mut PgConnection, run: i64, after: i64, limit: i64) -> sqlx::Result<Vec<RunResultRow>> {
    sqlx::query_as(
        "SELECT result.id, result.volume_id, volume.node, volume.name, result.measured_at, result.completeness, result.reason, result.method,
             result.allocated_bytes, result.apparent_bytes, result.files, result.directories, result.saturated, result.errors,
             result.skipped_mounts, result.top_files, result.top_directories, result.duration_ms
         FROM scan_jobs AS job JOIN scan_results AS result ON result.scan_job_id = job.id JOIN volumes AS volume ON volume.id = result.volume_id
         WHERE job.run_id = $1 AND result.id > $2 ORDER BY result.id LIMIT $3",
    )
    .bind(run)
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await
}
