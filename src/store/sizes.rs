//! Sizes over time.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};

use super::page::{InvalidCursor, seal, unseal};

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
    /// Where the next page begins; absent on the last.
    pub next: Option<String>,
}

/// Which part of a volume's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// From when on.
    pub from: DateTime<Utc>,
    /// Until before when.
    pub to: DateTime<Utc>,
    /// How fine.
    pub resolution: Resolution,
    /// Where a page ended; its resolution holds for the pages after it.
    pub after: Option<Cursor>,
}

/// Where a page ended: the last point and, of what was measured at the same time, which it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    volume: i64,
    at: DateTime<Utc>,
    tie: Tie,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Tie {
    /// `volume_sizes.id` of a raw point.
    Raw(i64),
    /// The method of a day.
    Daily(String),
}

impl Cursor {
    /// Reads the `next` of a page of this volume's history at this resolution.
    pub fn decode(cursor: &str, volume: i64, resolution: Resolution) -> Result<Self, InvalidCursor> {
        let cursor: Self = unseal(cursor)?;
        let fits = resolution == Resolution::Auto || resolution == cursor.resolution();
        if cursor.volume == volume && fits { Ok(cursor) } else { Err(InvalidCursor::OtherList) }
    }

    const fn resolution(&self) -> Resolution {
        match self.tie {
            Tie::Raw(_) => Resolution::Raw,
            Tie::Daily(_) => Resolution::Daily,
        }
    }
}

#[derive(FromRow)]
struct RawPoint {
    id: i64,
    #[sqlx(flatten)]
    point: SizePoint,
}

/// Sizes of a volume in this range, at most `limit` of them.
pub async fn history(conn: &mut PgConnection, volume: i64, range: &Range, limit: i64) -> sqlx::Result<History> {
    let resolution = match (&range.after, range.resolution) {
        (Some(cursor), _) => cursor.resolution(),
        (None, Resolution::Auto) => {
            let raw = range.to - range.from <= RAW_RANGE && raw_reaches(conn, volume, range.from).await?;
            if raw { Resolution::Raw } else { Resolution::Daily }
        }
        (None, asked) => asked,
    };
    // One point more tells whether there is a next page.
    let mut points = match resolution {
        Resolution::Raw => raw(conn, volume, range, limit.saturating_add(1)).await?,
        Resolution::Auto | Resolution::Daily => daily(conn, volume, range, limit.saturating_add(1)).await?,
    };
    let limit = usize::try_from(limit).unwrap_or_default();
    let more = points.len() > limit;
    points.truncate(limit);
    let last = if more { points.last() } else { None };
    let next = last.map(|(point, tie)| seal(&Cursor { volume, at: point.at, tie: tie.clone() }));
    Ok(History { resolution, points: points.into_iter().map(|(point, _)| point).collect(), next })
}

async fn raw(conn: &mut PgConnection, volume: i64, range: &Range, limit: i64) -> sqlx::Result<Vec<(SizePoint, Tie)>> {
    let (at, id) = match &range.after {
        Some(Cursor { at, tie: Tie::Raw(id), .. }) => (*at, *id),
        _ => (range.from, 0),
    };
    let points: Vec<RawPoint> = sqlx::query_as(
        "SELECT id, created_at AS at, completeness, method, allocated_bytes, allocated_bytes AS min_allocated_bytes,
             allocated_bytes AS max_allocated_bytes, apparent_bytes, files, 1::bigint AS samples
         FROM volume_sizes
         WHERE volume_id = $1 AND created_at >= $2 AND created_at < $3 AND (created_at, id) > ($2, $4)
         ORDER BY created_at, id LIMIT $5",
    )
    .bind(volume)
    .bind(at)
    .bind(range.to)
    .bind(id)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(points.into_iter().map(|RawPoint { id, point }| (point, Tie::Raw(id))).collect())
}

async fn daily(conn: &mut PgConnection, volume: i64, range: &Range, limit: i64) -> sqlx::Result<Vec<(SizePoint, Tie)>> {
    let (at, method) = match &range.after {
        Some(Cursor { at, tie: Tie::Daily(method), .. }) => (*at, method.as_str()),
        _ => (range.from, ""),
    };
    // The day finds partition and index; the rest tells of which day's part.
    let points: Vec<SizePoint> = sqlx::query_as(
        "SELECT last_at AS at, 'Complete' AS completeness, method, last_allocated_bytes AS allocated_bytes, min_allocated_bytes,
             max_allocated_bytes, last_apparent_bytes AS apparent_bytes, last_files AS files, samples
         FROM volume_sizes_daily
         WHERE volume_id = $1 AND day >= ($2 AT TIME ZONE 'UTC')::date AND day <= ($3 AT TIME ZONE 'UTC')::date
             AND last_at < $3 AND (last_at, method) > ($2, $4)
         ORDER BY last_at, method LIMIT $5",
    )
    .bind(volume)
    .bind(at)
    .bind(range.to)
    .bind(method)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    let tied = |point: SizePoint| {
        let tie = Tie::Daily(point.method.clone());
        (point, tie)
    };
    Ok(points.into_iter().map(tied).collect())
}

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
