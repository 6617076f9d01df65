//! Volumes: what agents listed, with what is known of each.
//!
//! Agents write them through `agent_v1`; the writing functions here need the owner's rights.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection};

use super::containers::holders;
use super::filter::Sql;
use super::labels::Labels;
use super::page::{Key, Page, VolumeList, VolumeSort};

/// A volume, as of its last inventory and measurement.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow, utoipa::ToSchema)]
pub struct Volume {
    /// `volumes.id`; not used again, unless the database is restored to an earlier time.
    pub id: i64,
    /// `node/name`; used again when a volume is made anew under its name.
    pub volume_id: String,
    /// The node it is on.
    pub node: String,
    /// Docker's name.
    pub name: String,
    /// Docker's driver.
    pub driver: String,
    /// Path on the node.
    pub mountpoint: String,
    /// Docker labels.
    pub labels: Labels,
    /// Driver options.
    pub options: Labels,
    /// `local` or `global`.
    pub scope: String,
    /// `active`, or `removed` when it was no longer listed.
    pub status: String,
    /// Mounted by a running container when last listed.
    pub is_active: bool,
    /// Named by Docker, not by a person.
    pub is_anonymous: bool,
    /// Who used it last, kept when that container is gone: `container`, `image`, `compose_project`, `compose_service`, `pod`.
    pub origin: Labels,
    /// When it was listed first.
    pub first_seen_at: DateTime<Utc>,
    /// When it was listed last.
    pub last_seen_at: DateTime<Utc>,
    /// When a running container was last seen to mount it; absent: never since `first_seen_at`.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was measured last.
    pub last_scanned: Option<DateTime<Utc>>,
    /// When it was found to be gone.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Running containers that mount it.
    pub running_containers: i64,
    /// Stopped containers that hold it.
    pub stopped_containers: i64,
    /// The last outcome: `Complete`, `Partial` or `Unknown`; absent before the first.
    pub completeness: Option<String>,
    /// How it was measured: `Walk` or `Statvfs`.
    pub method: Option<String>,
    /// Disk space in bytes by the last measurement that found any; what it is worth is told by `completeness`.
    pub allocated_bytes: Option<i64>,
    /// Sum of file sizes in bytes.
    pub apparent_bytes: Option<i64>,
    /// Files.
    pub files: Option<i64>,
    /// Size of the file system it is on, in bytes.
    pub capacity_bytes: Option<i64>,
    /// What is left there, in bytes.
    pub available_bytes: Option<i64>,
    /// Growth in bytes a day; absent below five daily samples.
    pub growth_bytes_per_day: Option<i64>,
    /// Days between the first and the last of these samples.
    pub growth_window_days: Option<f64>,
    /// How many samples.
    pub growth_samples: Option<i32>,
}

/// A page of volumes.
#[derive(Debug, Clone, PartialEq)]
pub struct Volumes {
    /// The rows.
    pub rows: Vec<Volume>,
    /// Rows on all pages, where it was asked for.
    pub total: Option<i64>,
    /// Where the next page begins; absent on the last.
    pub next: Option<String>,
}

/// What Docker says of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// The node it is on.
    pub node: String,
    /// Docker's name.
    pub name: String,
    /// Docker's driver.
    pub driver: String,
    /// Path on the node.
    pub mountpoint: String,
    /// Docker labels.
    pub labels: Labels,
    /// Driver options.
    pub options: Labels,
    /// `local` or `global`.
    pub scope: String,
    /// Named by Docker, not by a person.
    pub is_anonymous: bool,
}

macro_rules! select_volumes {
    ($head:literal) => {
        concat!(
            $head,
            " volume.id, volume.volume_id, volume.node, volume.name, volume.driver, volume.mountpoint, volume.labels, volume.options,
                 volume.scope, volume.status, volume.is_active, volume.is_anonymous, volume.origin, volume.first_seen_at, volume.last_seen_at,
                 volume.last_used_at, volume.last_scanned, volume.deleted_at, used.running AS running_containers,
                 used.stopped AS stopped_containers, latest.completeness, latest.method, ranking.allocated_bytes, latest.apparent_bytes,
                 latest.files, latest.capacity_bytes, latest.available_bytes, latest.growth_bytes_per_day, latest.growth_window_days,
                 latest.growth_samples
             FROM volumes AS volume
             JOIN volume_rankings AS ranking ON ranking.volume_id = volume.id
             LEFT JOIN volume_latest AS latest ON latest.volume_id = volume.id
             CROSS JOIN LATERAL (",
            holders!(),
            ") AS used "
        )
    };
}

/// One volume, also one that is gone; [`sqlx::Error::RowNotFound`] when there is none.
pub async fn get(conn: &mut PgConnection, id: i64) -> sqlx::Result<Volume> {
    sqlx::query_as(concat!(select_volumes!("SELECT"), "WHERE volume.id = $1")).bind(id).fetch_one(conn).await
}

/// The volume that has this `node/name` now.
pub async fn find(conn: &mut PgConnection, volume_id: &str) -> sqlx::Result<Option<Volume>> {
    let sql = concat!(select_volumes!("SELECT"), "WHERE volume.volume_id = $1 AND volume.deleted_at IS NULL");
    sqlx::query_as(sql).bind(volume_id).fetch_optional(conn).await
}

/// A page of the volumes that are there.
pub async fn list(conn: &mut PgConnection, list: &VolumeList, page: &Page) -> sqlx::Result<Volumes> {
    let (limit, count) = match *page {
        Page::Offset { limit, .. } => (limit, true),
        Page::After { limit, count, .. } => (limit, count),
    };
    let total = if count { Some(total(conn, list).await?) } else { None };
    // The page first, by the narrow tables alone; what is told of its volumes is joined to those few.
    let mut sql = Sql::new("WITH page AS MATERIALIZED (SELECT volume.id");
    from(&mut sql, list.is_ranked());
    list.filter.restrict(&mut sql);
    if let Page::After { cursor: Some(cursor), .. } = page {
        list.seek(&mut sql, cursor);
    }
    // One row more tells whether there is a next page.
    sql.push(" ORDER BY ").push(list.order()).push(" LIMIT ").bind(limit.saturating_add(1));
    if let Page::Offset { offset, .. } = *page {
        sql.push(" OFFSET ").bind(offset);
    }
    sql.push(select_volumes!(") SELECT")).push(" JOIN page ON page.id = volume.id ORDER BY ").push(list.order());
    let mut rows: Vec<Volume> = sql.query_as().fetch_all(conn).await?;
    let more = i64::try_from(rows.len()).is_ok_and(|read| read > limit);
    rows.truncate(usize::try_from(limit).unwrap_or_default());
    let next = if more { rows.last().map(|last| list.encode(key(list, last), last.id)) } else { None };
    Ok(Volumes { rows, total, next })
}

/// The tables that a list is found by; the order of sizes only where it is asked for.
fn from(sql: &mut Sql, ranked: bool) {
    sql.push(" FROM volumes AS volume");
    if ranked {
        sql.push(" JOIN volume_rankings AS ranking ON ranking.volume_id = volume.id");
    }
    sql.push(" WHERE volume.deleted_at IS NULL");
}

async fn total(conn: &mut PgConnection, list: &VolumeList) -> sqlx::Result<i64> {
    let mut sql = Sql::new("SELECT count(*)");
    from(&mut sql, list.filter.is_ranked());
    list.filter.restrict(&mut sql);
    sql.query_as().fetch_one(conn).await.map(|(total,)| total)
}

fn key(list: &VolumeList, volume: &Volume) -> Key {
    let unknown = |lowest: i64| match list.direction {
        super::page::Direction::Asc => i64::MAX,
        super::page::Direction::Desc => lowest,
    };
    match list.sort {
        VolumeSort::Name => Key::Text(volume.name.clone()),
        VolumeSort::Node => Key::Text(volume.node.clone()),
        VolumeSort::FirstSeen => Key::Time(volume.first_seen_at),
        VolumeSort::Size => Key::Number(volume.allocated_bytes.unwrap_or_else(|| unknown(-1))),
        VolumeSort::Growth => Key::Number(volume.growth_bytes_per_day.unwrap_or_else(|| unknown(i64::MIN))),
    }
}

/// Adds a volume and returns its id; a violated unique key when there is one of this name on this node.
pub async fn create(conn: &mut PgConnection, volume: &NewVolume) -> sqlx::Result<i64> {
    write(
        conn,
        volume,
        "INSERT INTO volumes (volume_id, node, name, driver, mountpoint, labels, options, scope, is_anonymous)
         VALUES ($1 || '/' || $2, $1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
    )
    .await
}

/// Changes what Docker says of the volume that has this name on this node, and returns its id; [`sqlx::Error::RowNotFound`] when there is
/// none.
pub async fn update(conn: &mut PgConnection, volume: &NewVolume) -> sqlx::Result<i64> {
    write(conn, volume, "UPDATE volumes SET driver = $3, mountpoint = $4, labels = $5, options = $6, scope = $7, is_anonymous = $8, last_seen_at = clock_timestamp()
         WHERE volume_id = $1 || '/' || $2 AND deleted_at IS NULL RETURNING id").await
}

/// Adds or changes it, whichever it takes, and returns its id.
pub async fn upsert(conn: &mut PgConnection, volume: &NewVolume) -> sqlx::Result<i64> {
    write(conn, volume, "INSERT INTO volumes (volume_id, node, name, driver, mountpoint, labels, options, scope, is_anonymous)
         VALUES ($1 || '/' || $2, $1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (volume_id) WHERE deleted_at IS NULL DO UPDATE SET
             driver = excluded.driver, mountpoint = excluded.mountpoint, labels = excluded.labels, options = excluded.options,
             scope = excluded.scope, is_anonymous = excluded.is_anonymous, last_seen_at = clock_timestamp()
         RETURNING id").await
}

async fn write(conn: &mut PgConnection, volume: &NewVolume, sql: &'static str) -> sqlx::Result<i64> {
    sqlx::query_scalar(sql)
        .bind(&volume.node)
        .bind(&volume.name)
        .bind(&volume.driver)
        .bind(&volume.mountpoint)
        .bind(&volume.labels)
        .bind(&volume.options)
        .bind(&volume.scope)
        .bind(volume.is_anonymous)
        .fetch_one(conn)
        .await
}

/// Marks a volume as gone; its history stays. [`sqlx::Error::RowNotFound`] when there is none, or it is gone already.
pub async fn delete(conn: &mut PgConnection, id: i64) -> sqlx::Result<()> {
    sqlx::query_scalar(
        "UPDATE volumes SET deleted_at = clock_timestamp(), status = 'removed', is_active = false
         WHERE id = $1 AND deleted_at IS NULL RETURNING id",
    )
    .bind(id)
    .fetch_one(conn)
    .await
    .map(|_: i64| ())
}
