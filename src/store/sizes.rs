//! Sizes over time.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};

/// Longer ranges are answered by day unless asked otherwise.
const RAW_RANGE: Duration = Duration::days(7);

/// How fine a history is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// `raw` for a range of up to 7 days of which every measurement is kept, else `daily`.
    #[default]
    Auto,
    /// Every measurement.
    Raw,
    /// One point a day.
    Daily,
}

/// A size at a time. A raw point has one value in all three fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, utoipa::ToSchema)]
pub struct SizePoint {
    /// When it was measured; of a day, its last measurement.
    pub at: DateTime<Utc>,
    /// `Complete`, or `Partial`: a lower bound. Days hold complete measurements only.
    pub completeness: String,
    /// `Walk` or `Statvfs`; never to be drawn as one line.
    pub method: String,
    /// Disk space in bytes.
    pub allocated_bytes: i64,
    /// The smallest of the day.
    pub min_allocated_bytes: i64,
    /// The biggest of the day.
    pub max_allocated_bytes: i64,
    /// Sum of file sizes in bytes.
    pub apparent_bytes: Option<i64>,
    /// Files.
    pub files: i64,
    /// Measurements behind this point.
    pub samples: i64,
}

/// A history, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// `Raw` or `Daily`.
    pub resolution: Resolution,
    /// The points.
    pub points: Vec<SizePoint>,
    /// Where to go on from when there are more.
    pub next: Option<DateTime<Utc>>,
}

/// Sizes of a volume from `from` until before `to`, at most `limit` of them.
pub async fn history(
    conn: &mut PgConnection,
    volume: i64,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    resolution: Resolution,
    limit: i64,
) -> sqlx::Result<History> {
    let resolution = match resolution {
        Resolution::Auto if to - from <= RAW_RANGE && raw_reaches(conn, volume, from).await? => Resolution::Raw,
        Resolution::Auto => Resolution::Daily,
        asked => asked,
    };
    let sql = if resolution == Resolution::Raw { RAW } else { DAILY };
    let mut points: Vec<SizePoint> =
        sqlx::query_as(sql).bind(volume).bind(from).bind(to).bind(limit.saturating_add(1)).fetch_all(conn).await?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let next = points.get(limit).map(|point| point.at);
    points.truncate(limit);
    Ok(History { resolution, points, next })
}

const RAW: &str =
    "SELECT created_at AS at, completeness, method, allocated_bytes, allocated_bytes AS min_allocated_bytes,
     allocated_bytes AS max_allocated_bytes, apparent_bytes, files, 1::bigint AS samples
 FROM volume_sizes WHERE volume_id = $1 AND created_at >= $2 AND created_at < $3 ORDER BY created_at LIMIT $4";

const DAILY: &str = "SELECT last_at AS at, 'Complete' AS completeness, method, last_allocated_bytes AS allocated_bytes, min_allocated_bytes,
     max_allocated_bytes, last_apparent_bytes AS apparent_bytes, last_files AS files, samples
 FROM volume_sizes_daily
 WHERE volume_id = $1 AND day >= ($2 AT TIME ZONE 'UTC')::date AND day <= ($3 AT TIME ZONE 'UTC')::date AND last_at >= $2 AND last_at < $3
 ORDER BY day, method LIMIT $4";

/// Whether every measurement of a volume since `from` is kept: its partition is, or the volume is younger.
async fn raw_reaches(conn: &mut PgConnection, volume: i64, from: DateTime<Utc>) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT coalesce(min(to_date(right(relname, 8), 'YYYYMMDD'))::timestamp AT TIME ZONE 'UTC'
             <= greatest($2, (SELECT first_seen_at FROM volumes WHERE id = $1)), false)
         FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'public.volume_sizes'::regclass",
    )
    .bind(volume)
    .bind(from)
    .fetch_one(conn)
    .await
}
