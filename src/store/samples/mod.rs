//! The figures that alerts judge: one statement a rule, whatever the number of volumes, over the same results as the figures of scans.

mod nodes;
mod volumes;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};

pub use self::nodes::{NodeSample, NodeVolumes, of_nodes};
pub use self::volumes::{Query, VolumeSample, Volumes, of_volumes};

/// A node that a scan selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// `metadata.uid` of the VolumeScan.
    pub scan: String,
    /// The node.
    pub node: String,
    /// The scan's `unusedAfterDays`.
    pub unused_after_days: i32,
}

/// The last completed jobs of each (scan, node), as parallel lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    jobs: Vec<i64>,
    nodes: Vec<String>,
    /// A later run of the scan has ended without this node.
    stale: Vec<bool>,
    unused_after_days: Vec<i32>,
}

/// What runs tell, without their results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Runs {
    /// By the database's clock.
    pub now: DateTime<Utc>,
    /// The newest ended run.
    pub last_id: Option<i64>,
    /// When it ended.
    pub last_completed_at: Option<DateTime<Utc>>,
    /// When a run last ended with results.
    pub last_useful_at: Option<DateTime<Utc>>,
    /// Nodes with a Docker Engine and without a result in the last run of a scan; the most of any scan.
    pub failed_nodes: Option<i64>,
}

/// What a selector over volumes looks at.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Facts {
    /// `volumes.id`.
    pub id: i64,
    /// Docker's name.
    pub name: String,
    /// Docker's driver.
    pub driver: String,
    /// Docker's labels.
    pub labels: super::Labels,
    /// Named by Docker.
    pub is_anonymous: bool,
    /// Mounted by a running container.
    pub is_active: bool,
}

impl View {
    /// The nodes whose results are those of a scan's last run.
    pub fn fresh_nodes(&self) -> BTreeSet<&str> {
        self.nodes.iter().zip(&self.stale).filter(|(_, stale)| !**stale).map(|(node, _)| node.as_str()).collect()
    }
}

/// The last ended run of each scan. `$1` the scans' uids.
macro_rules! with_newest_runs {
    ($query:literal) => {
        concat!(
            "WITH newest AS (
                 SELECT scan.uid, run.id, run.completed_at FROM (SELECT DISTINCT unnest($1::text[])) AS scan (uid)
                 CROSS JOIN LATERAL (
                     SELECT id, completed_at FROM scan_runs
                     WHERE scan_uid = scan.uid AND completed_at IS NOT NULL AND result <> 'Cancelled' ORDER BY id DESC LIMIT 1
                 ) AS run
             ) ",
            $query
        )
    };
}

/// The jobs whose results count.
pub async fn view(conn: &mut PgConnection, selected: &[Selected]) -> sqlx::Result<View> {
    let jobs: Vec<(i64, String, bool, i32)> = sqlx::query_as(with_newest_runs!(
        "SELECT job.id, pair.node, coalesce(job.run_id < newest.id, false), pair.unused_after_days
         FROM unnest($1::text[], $2::text[], $3::integer[]) AS pair (scan_uid, node, unused_after_days)
         CROSS JOIN LATERAL (
             SELECT scan_jobs.id, scan_jobs.run_id FROM scan_runs JOIN scan_jobs ON scan_jobs.run_id = scan_runs.id
             WHERE scan_runs.scan_uid = pair.scan_uid AND scan_jobs.node = pair.node AND scan_jobs.status = 'succeeded'
             ORDER BY scan_runs.id DESC LIMIT 1
         ) AS job
         LEFT JOIN newest ON newest.uid = pair.scan_uid"
    ))
    .bind(selected.iter().map(|of| of.scan.as_str()).collect::<Vec<_>>())
    .bind(selected.iter().map(|of| of.node.as_str()).collect::<Vec<_>>())
    .bind(selected.iter().map(|of| of.unused_after_days).collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;
    let mut view = View::default();
    for (job, node, stale, unused_after_days) in jobs {
        view.jobs.push(job);
        view.nodes.push(node);
        view.stale.push(stale);
        view.unused_after_days.push(unused_after_days);
    }
    Ok(view)
}

/// Reads what runs of these scans tell.
pub async fn runs(conn: &mut PgConnection, scans: &[String]) -> sqlx::Result<Runs> {
    sqlx::query_as(with_newest_runs!(
        "SELECT clock_timestamp() AS now, last.id AS last_id, last.completed_at AS last_completed_at,
             (SELECT max(useful.completed_at) FROM unnest($1) AS scan (uid) CROSS JOIN LATERAL (
                 SELECT completed_at FROM scan_runs WHERE scan_uid = scan.uid AND result IN ('Succeeded', 'Partial')
                 ORDER BY completed_at DESC LIMIT 1) AS useful) AS last_useful_at,
             (SELECT max(failed.nodes) FROM newest CROSS JOIN LATERAL (
                 SELECT count(*) AS nodes FROM scan_jobs WHERE run_id = newest.id AND status IN ('failed', 'skipped')
                     AND reason IS DISTINCT FROM 'NoDockerEngine') AS failed) AS failed_nodes
         FROM (VALUES (1)) AS one LEFT JOIN LATERAL (SELECT * FROM newest ORDER BY id DESC LIMIT 1) AS last ON true"
    ))
    .bind(scans)
    .fetch_one(conn)
    .await
}

/// The database's time.
pub async fn now(conn: &mut PgConnection) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(conn).await
}

/// Nodes on which agents found no Docker Engine: they have nothing to measure.
pub async fn without_engine(conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT name FROM nodes WHERE NOT has_engine AND deleted_at IS NULL").fetch_all(conn).await
}

/// When each of these nodes last completed a job that counts.
pub async fn last_completed(conn: &mut PgConnection, view: &View) -> sqlx::Result<Vec<(String, DateTime<Utc>)>> {
    sqlx::query_as(
        "SELECT node, max(completed_at) FROM scan_jobs WHERE id = ANY ($1) AND completed_at IS NOT NULL GROUP BY node",
    )
    .bind(&view.jobs)
    .fetch_all(conn)
    .await
}

/// What a selector looks at in every volume of the view.
pub async fn facts(conn: &mut PgConnection, view: &View) -> sqlx::Result<Vec<Facts>> {
    sqlx::query_as(
        "SELECT id, name, driver, labels, is_anonymous, is_active FROM volumes
         WHERE deleted_at IS NULL AND id IN (SELECT volume_id FROM scan_results WHERE scan_job_id = ANY ($1))",
    )
    .bind(&view.jobs)
    .fetch_all(conn)
    .await
}

/// The newest result that counts of each selected volume. `$1` jobs, `$2` stale, `$3` days, `$4` selected volumes. A volume that is gone has
/// none. Lists are joined: the server would look through an array once a row.
macro_rules! with_results {
    ($($query:tt)*) => {
        concat!(
            "WITH job AS (SELECT * FROM unnest($1::bigint[], $2::boolean[], $3::integer[]) AS job (id, stale, unused_after_days)),
             result AS (
                 SELECT DISTINCT ON (found.volume_id) found.volume_id, found.completeness, found.reason, found.allocated_bytes, found.files,
                     found.capacity_bytes, found.available_bytes, job.stale, job.unused_after_days
                 FROM job JOIN scan_results AS found ON found.scan_job_id = job.id AND found.reason IS DISTINCT FROM 'Vanished'
                 LEFT JOIN unnest($4::bigint[]) AS selected (id) ON selected.id = found.volume_id
                 WHERE $4::bigint[] IS NULL OR selected.id IS NOT NULL
                 -- A scan that only lists takes no figure away that another has measured.
                 ORDER BY found.volume_id, found.reason IS NOT DISTINCT FROM 'NotMeasured', found.measured_at DESC
             ) ",
            $($query)*
        )
    };
}

/// Whether a volume is as big as `$5` asks; NULL: nobody can say.
macro_rules! big_enough {
    () => {
        "CASE WHEN $5 = 0 OR result.allocated_bytes >= $5 THEN true WHEN result.completeness = 'Complete' THEN false END"
    };
}
/// Whether a volume's data is not on its node, so that it is never measured there.
macro_rules! elsewhere {
    () => {
        "coalesce(result.reason IN ('DriverNotLocal', 'NetworkFilesystem'), false)"
    };
}
/// The results of volumes that are there and count, with what is known of them: `result`, `volume`, `latest`.
macro_rules! from_results {
    () => {
        concat!(
            " FROM result
              JOIN volumes AS volume ON volume.id = result.volume_id AND volume.deleted_at IS NULL
              LEFT JOIN volume_latest AS latest ON latest.volume_id = result.volume_id
              WHERE coalesce(",
            big_enough!(),
            ", true)"
        )
    };
}
use {big_enough, elsewhere, from_results, with_results};
