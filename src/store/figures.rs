//! The figures of a scan: for each selected node, the results of the last job that this scan completed there.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, Row};

use super::containers::holders;
use crate::domain::measurement::{Completeness, VolumeCounts};

/// How many volumes each list of a status has.
pub const LISTED: i64 = 10;

/// What the figures are of.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// `metadata.uid` of the VolumeScan.
    pub scan_uid: &'a str,
    /// Names of the selected nodes.
    pub nodes: &'a [String],
    /// Days without a running container that make a candidate for removal.
    pub unused_after_days: i32,
}

/// The figures of a scan.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
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
    /// Candidates for removal that no container holds.
    pub candidates: i64,
    /// Their disk space in bytes, as far as it is known.
    pub candidate_bytes: i64,
    /// Candidates for removal that stopped containers hold.
    pub candidates_held: i64,
    /// Growth of all volumes; absent when that of none is known.
    pub growth: Option<Growth>,
    /// Volumes that grow.
    pub growing: i64,
    /// The biggest volumes, biggest first.
    pub top: Vec<VolumeRow>,
    /// The fastest growing volumes, fastest first.
    pub fastest: Vec<GrowingRow>,
    /// Candidates for removal, those that no container holds first, then biggest first.
    pub removable: Vec<CandidateRow>,
    /// The biggest files, biggest first, of those that are known of each volume.
    pub top_files: Vec<EntryRow>,
    /// The biggest directories, likewise.
    pub top_directories: Vec<EntryRow>,
}

/// Growth of the volumes of a scan, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// Bytes a day.
    pub bytes_per_day: i64,
    /// Days between the first and the last sample of the volume looked at for longest.
    pub window_days: i32,
    /// Daily samples of the volume that has most.
    pub samples: i32,
    /// Volumes whose growth is known.
    pub volumes: i64,
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

/// One file or directory.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct EntryRow {
    /// Its node.
    pub node: String,
    /// Docker's name of its volume.
    pub name: String,
    /// Its path below the volume's root.
    pub path: String,
    /// Disk space in bytes.
    pub allocated_bytes: i64,
}

/// One volume that grows.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct GrowingRow {
    /// Its node.
    pub node: String,
    /// Docker's name.
    pub name: String,
    /// Bytes a day.
    pub bytes_per_day: i64,
    /// Disk space in bytes.
    pub allocated_bytes: i64,
    /// What its file system has left, in bytes.
    pub available_bytes: Option<i64>,
}

/// One candidate for removal.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct CandidateRow {
    /// Its node.
    pub node: String,
    /// Docker's name.
    pub name: String,
    /// The first of the looks that have found no running container on it since.
    pub unused_since: DateTime<Utc>,
    /// Whether one ever was.
    pub seen_used: bool,
    /// Stopped containers that mount it.
    pub held_by_stopped: i64,
    /// Who used it last.
    pub origin: serde_json::Value,
    /// Disk space in bytes when it was measured last.
    pub allocated_bytes: Option<i64>,
    /// When it was looked at last.
    pub last_seen_at: DateTime<Utc>,
}

/// For each given node its last completed job of this scan; beside it whether a later run has ended since. `$1` scan, `$2` nodes.
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

/// Whether the row `volume` was unused for `$3` days, from the first look that found it so to the last.
macro_rules! unused_for_long {
    () => {
        "volume.deleted_at IS NULL AND volume.last_seen_at - volume.unused_since >= make_interval(days => $3)"
    };
}

/// Reads the figures. `None` when no node ever completed a job of this scan: there is nothing to sum up, which is not zero.
pub async fn read(conn: &mut PgConnection, view: View<'_>, listed: i64) -> sqlx::Result<Option<Figures>> {
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
             min(result.measured_at) AS oldest_data_time,
             count(*) FILTER (WHERE candidate.holders = 0) AS candidates,
             least(coalesce(sum(result.allocated_bytes) FILTER (WHERE candidate.holders = 0), 0), 9223372036854775807)::bigint AS candidate_bytes,
             count(*) FILTER (WHERE candidate.holders > 0) AS candidates_held,
             CASE WHEN count(latest_of.growth_bytes_per_day) > 0
                 THEN greatest(least(sum(latest_of.growth_bytes_per_day), 9223372036854775807), -9223372036854775807)::bigint END AS bytes_per_day,
             round(max(latest_of.growth_window_days))::integer AS window_days,
             max(latest_of.growth_samples) AS samples,
             count(latest_of.growth_bytes_per_day) AS known_growth,
             count(*) FILTER (WHERE latest_of.growth_bytes_per_day > 0 AND result.completeness <> 'Unknown') AS growing,
             count(result.top_files) AS with_entries
         FROM latest
         JOIN scan_results AS result ON result.scan_job_id = latest.id AND result.reason IS DISTINCT FROM 'Vanished'
         JOIN volumes AS volume ON volume.id = result.volume_id
         LEFT JOIN volume_latest AS latest_of ON latest_of.volume_id = volume.id
         LEFT JOIN LATERAL (SELECT used.stopped AS holders FROM (",
        holders!(),
        ") AS used) AS candidate ON ",
        unused_for_long!()
    ))
    .bind(view.scan_uid)
    .bind(view.nodes)
    .bind(view.unused_after_days)
    .fetch_one(&mut *conn)
    .await?;
    if sums.try_get::<i64, _>("nodes")? == 0 {
        return Ok(None);
    }
    let mut figures = Figures::from_row(&sums)?;
    figures.top = biggest(conn, view, listed).await?;
    figures.fastest = fastest(conn, view, listed).await?;
    figures.removable = removable(&mut *conn, view, listed).await?;
    if sums.try_get::<i64, _>("with_entries")? > 0 {
        figures.top_files = top_entries(conn, view, TOP_FILES, listed).await?;
        figures.top_directories = top_entries(conn, view, TOP_DIRECTORIES, listed).await?;
    }
    Ok(Some(figures))
}

async fn biggest(conn: &mut PgConnection, view: View<'_>, limit: i64) -> sqlx::Result<Vec<VolumeRow>> {
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
    .bind(view.scan_uid)
    .bind(view.nodes)
    .bind(limit)
    .fetch_all(conn)
    .await
}

async fn fastest(conn: &mut PgConnection, view: View<'_>, limit: i64) -> sqlx::Result<Vec<GrowingRow>> {
    sqlx::query_as(with_latest_jobs!(
        "SELECT volume.node, volume.name, latest_of.growth_bytes_per_day AS bytes_per_day, result.allocated_bytes, latest_of.available_bytes
         FROM latest
         JOIN scan_results AS result ON result.scan_job_id = latest.id AND result.completeness <> 'Unknown'
         JOIN volume_latest AS latest_of ON latest_of.volume_id = result.volume_id AND latest_of.growth_bytes_per_day > 0
         JOIN volumes AS volume ON volume.id = result.volume_id
         ORDER BY latest_of.growth_bytes_per_day DESC, volume.id LIMIT $3"
    ))
    .bind(view.scan_uid)
    .bind(view.nodes)
    .bind(limit)
    .fetch_all(conn)
    .await
}

async fn removable(conn: &mut PgConnection, view: View<'_>, limit: i64) -> sqlx::Result<Vec<CandidateRow>> {
    sqlx::query_as(with_latest_jobs!(
        "SELECT volume.node, volume.name, volume.unused_since,
             volume.last_used_at IS NOT NULL AS seen_used, used.stopped AS held_by_stopped, volume.origin, result.allocated_bytes,
             volume.last_seen_at
         FROM latest
         JOIN scan_results AS result ON result.scan_job_id = latest.id AND result.reason IS DISTINCT FROM 'Vanished'
         JOIN volumes AS volume ON volume.id = result.volume_id
         CROSS JOIN LATERAL (",
        holders!(),
        ") AS used
         WHERE ",
        unused_for_long!(),
        " ORDER BY used.stopped > 0, result.allocated_bytes DESC NULLS LAST, volume.id LIMIT $4"
    ))
    .bind(view.scan_uid)
    .bind(view.nodes)
    .bind(view.unused_after_days)
    .bind(limit)
    .fetch_all(conn)
    .await
}

/// The biggest entries are in as many volumes at most: those whose biggest are.
macro_rules! select_top_entries {
    ($list:literal) => {
        with_latest_jobs!(
            ", holding AS (
                 SELECT result.volume_id, result.",
            $list,
            " AS entries FROM latest JOIN scan_results AS result ON result.scan_job_id = latest.id
                 ORDER BY (result.",
            $list,
            " -> 0 ->> 'allocated_bytes')::bigint DESC NULLS LAST, result.id LIMIT $3
             )
             SELECT volume.node, volume.name, entry.path, entry.allocated_bytes
             FROM holding
             CROSS JOIN LATERAL jsonb_to_recordset(holding.entries) AS entry (path text, allocated_bytes bigint)
             JOIN volumes AS volume ON volume.id = holding.volume_id
             WHERE entry.allocated_bytes > 0
             ORDER BY entry.allocated_bytes DESC, volume.id, entry.path LIMIT $3"
        )
    };
}
const TOP_FILES: &str = select_top_entries!("top_files");
const TOP_DIRECTORIES: &str = select_top_entries!("top_directories");

async fn top_entries(
    conn: &mut PgConnection,
    view: View<'_>,
    sql: &'static str,
    limit: i64,
) -> sqlx::Result<Vec<EntryRow>> {
    sqlx::query_as(sql).bind(view.scan_uid).bind(view.nodes).bind(limit).fetch_all(conn).await
}

impl FromRow<'_, sqlx::postgres::PgRow> for Figures {
    /// The sums; the lists are read apart.
    fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            counts: VolumeCounts {
                volumes: row.try_get("volumes")?,
                measured: row.try_get("measured")?,
                partial: row.try_get("partial")?,
                failed: row.try_get("failed")?,
                unknown: row.try_get("unknown")?,
                anonymous: row.try_get("anonymous")?,
                in_use: row.try_get("in_use")?,
                unused: row.try_get("unused")?,
            },
            allocated_bytes: row.try_get("allocated_bytes")?,
            apparent_bytes: row.try_get("apparent_bytes")?,
            files: row.try_get("files")?,
            stale_nodes: row.try_get("stale_nodes")?,
            oldest_data_time: row.try_get("oldest_data_time")?,
            candidates: row.try_get("candidates")?,
            candidate_bytes: row.try_get("candidate_bytes")?,
            candidates_held: row.try_get("candidates_held")?,
            growth: match row.try_get("bytes_per_day")? {
                None => None,
                Some(bytes_per_day) => Some(Growth {
                    bytes_per_day,
                    window_days: row.try_get("window_days")?,
                    samples: row.try_get("samples")?,
                    volumes: row.try_get("known_growth")?,
                }),
            },
            growing: row.try_get("growing")?,
            top: Vec::new(),
            fastest: Vec::new(),
            removable: Vec::new(),
            top_files: Vec::new(),
            top_directories: Vec::new(),
        })
    }
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
