//! What is in the volumes now, whichever scan measured them: by node, and of the biggest volumes one by one.

use sqlx::{FromRow, PgConnection};

/// What is known of the nodes that are in the cluster and have a Docker Engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// By name.
    pub nodes: Vec<NodeContents>,
    /// The biggest measured volumes, biggest first.
    pub volumes: Vec<VolumeContents>,
}

/// The volumes of one node, summed up. Sums are of what was measured; a sum over nothing known is absent.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct NodeContents {
    /// Its name.
    pub node: String,
    /// Volumes measured completely when they were looked at last.
    pub measured: i64,
    /// Volumes measured in part: their figures are lower bounds.
    pub partial: i64,
    /// Volumes without figures: the last look found none, or there was none yet.
    pub unknown: i64,
    /// Disk space in bytes.
    pub allocated_bytes: Option<i64>,
    /// Sum of file sizes in bytes.
    pub apparent_bytes: Option<i64>,
    /// Files.
    pub files: Option<i64>,
}

/// One measured volume.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct VolumeContents {
    /// Its node.
    pub node: String,
    /// Docker's name.
    pub name: String,
    /// Whether it was measured in part only: then its figures are lower bounds.
    pub partial: bool,
    /// Disk space in bytes.
    pub allocated_bytes: i64,
    /// Files.
    pub files: Option<i64>,
    /// Growth in bytes a day; absent below five daily samples.
    pub growth_bytes_per_day: Option<i64>,
}

impl Contents {
    /// Measured volumes that `volumes` leaves out.
    pub fn omitted(&self) -> i64 {
        let measured: i64 = self.nodes.iter().map(|node| node.measured.saturating_add(node.partial)).sum();
        measured.saturating_sub(i64::try_from(self.volumes.len()).unwrap_or(i64::MAX)).max(0)
    }
}

/// Nodes that are counted: others tell nothing of what is there now.
macro_rules! is_there {
    () => {
        "node.deleted_at IS NULL AND node.absent_since IS NULL AND node.has_engine"
    };
}

/// The sum of a figure as far as it is known. `least` passes over a NULL.
macro_rules! sum {
    ($figure:literal) => {
        concat!(
            "CASE WHEN count(volume.id) = 0 THEN 0 WHEN count(latest.",
            $figure,
            ") > 0 THEN least(sum(latest.",
            $figure,
            "), 9223372036854775807)::bigint END AS ",
            $figure
        )
    };
}

/// Reads all nodes and the `volumes` biggest volumes, in a transaction: the server gives up what takes too long.
pub async fn read(conn: &mut PgConnection, volumes: i64) -> sqlx::Result<Contents> {
    sqlx::query("SET LOCAL statement_timeout = '4s'").execute(&mut *conn).await?;
    let nodes = nodes(conn).await?;
    Ok(Contents { nodes, volumes: biggest(conn, volumes).await? })
}

async fn nodes(conn: &mut PgConnection) -> sqlx::Result<Vec<NodeContents>> {
    sqlx::query_as(concat!(
        "SELECT node.name AS node,
             count(*) FILTER (WHERE latest.completeness = 'Complete') AS measured,
             count(*) FILTER (WHERE latest.completeness = 'Partial') AS partial,
             count(volume.id) FILTER (WHERE latest.completeness IS NULL OR latest.completeness = 'Unknown') AS unknown,
             ",
        sum!("allocated_bytes"),
        ", ",
        sum!("apparent_bytes"),
        ", ",
        sum!("files"),
        "
         FROM nodes AS node
         LEFT JOIN volumes AS volume ON volume.node = node.name AND volume.deleted_at IS NULL
         LEFT JOIN volume_latest AS latest ON latest.volume_id = volume.id
         WHERE ",
        is_there!(),
        " GROUP BY node.name ORDER BY node.name"
    ))
    .fetch_all(conn)
    .await
}

async fn biggest(conn: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<VolumeContents>> {
    sqlx::query_as(concat!(
        "SELECT volume.node, volume.name, latest.completeness = 'Partial' AS partial, latest.allocated_bytes, latest.files,
             latest.growth_bytes_per_day
         FROM volume_rankings AS ranking
         JOIN volumes AS volume ON volume.id = ranking.volume_id AND volume.deleted_at IS NULL
         JOIN volume_latest AS latest ON latest.volume_id = ranking.volume_id AND latest.allocated_bytes IS NOT NULL
         JOIN nodes AS node ON node.name = volume.node AND ",
        is_there!(),
        " ORDER BY coalesce(ranking.allocated_bytes, -1) DESC, ranking.volume_id DESC LIMIT $1"
    ))
    .bind(limit)
    .fetch_all(conn)
    .await
}
