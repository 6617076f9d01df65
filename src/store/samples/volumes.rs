//! Figures of volumes.

use sqlx::{FromRow, PgConnection};

use super::{View, big_enough, elsewhere, from_results, with_results};
use crate::domain::alert::judge::Sample;
use crate::domain::alert::rule::Rule;
use crate::store::containers::holders;

/// Which volumes are looked at, and which are returned.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// `volumes.id` of the selected ones, each once; `None`: all.
    pub volumes: Option<&'a [i64]>,
    /// Those with an open state, each once, which are returned whatever their figure.
    pub open: &'a [i64],
    /// Volumes with less disk space do not count.
    pub min_bytes: i64,
    /// Volumes beyond the limit to return, at most; the worst.
    pub beyond: i64,
    /// Volumes without a figure to return, at most.
    pub missing: i64,
}

/// The figures of volumes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volumes {
    /// How many were looked at.
    pub evaluated: i64,
    /// How many of them have no figure.
    pub missing: i64,
    /// How many are beyond the limit.
    pub beyond: i64,
    /// Those that were asked for.
    pub rows: Vec<VolumeSample>,
}

/// The figure of one volume.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeSample {
    /// `volumes.id`.
    pub id: i64,
    /// Its node.
    pub node: String,
    /// Docker's name.
    pub name: String,
    /// Its figure in the rule's unit.
    pub sample: Sample,
    /// Stopped containers that mount it.
    pub held_by_stopped: i64,
}

/// Figures of volumes: the expression of the figure over `result`, `volume` and `latest`, whether a part of it may be missing, and whether it
/// is measured; where it is not, volumes without data on their node count as well, but for `minBytes`.
/// `$6` open, `$7` limit, `$8` whether low is bad, `$9` and `$10` how many are returned.
macro_rules! volume_figures {
    ($value:literal, $lower_bound:literal) => {
        volume_figures!($value, $lower_bound, "true")
    };
    ($value:literal, $lower_bound:literal, $measured:literal) => {
        with_results!(
            ", judged AS (
                 SELECT result.volume_id, CASE WHEN result.stale OR ",
            big_enough!(),
            " IS NULL THEN NULL ELSE (",
            $value,
            ")::double precision END AS value, ",
            $lower_bound,
            " AS lower_bound",
            from_results!(),
            " AND NOT (",
            elsewhere!(),
            " AND (",
            $measured,
            " OR $5 > 0))
             ), sample AS MATERIALIZED (
                 SELECT judged.*, CASE WHEN $8 THEN value < $7 AND NOT lower_bound ELSE value > $7 END AS beyond, open.id IS NOT NULL AS open
                 FROM judged LEFT JOIN unnest($6::bigint[]) AS open (id) ON open.id = judged.volume_id
             ), counted AS (
                 SELECT count(*) AS evaluated, count(*) FILTER (WHERE value IS NULL) AS missing, count(*) FILTER (WHERE beyond) AS beyond FROM sample
             ), picked AS MATERIALIZED (
                 (SELECT * FROM sample WHERE open LIMIT cardinality($6))
                 UNION ALL (SELECT * FROM sample WHERE beyond AND NOT open ORDER BY CASE WHEN $8 THEN value ELSE -value END, volume_id LIMIT $9)
                 UNION ALL (SELECT * FROM sample WHERE value IS NULL AND NOT open ORDER BY volume_id LIMIT $10)
             )
             SELECT counted.evaluated, counted.missing, counted.beyond, volume.id, volume.node, volume.name, picked.value, picked.lower_bound,
                 used.stopped
             FROM counted LEFT JOIN picked ON true
             LEFT JOIN volumes AS volume ON volume.id = picked.volume_id
             LEFT JOIN LATERAL (",
            holders!(),
            ") AS used ON true"
        )
    };
}

/// The figures of the volumes of a view by one rule; `None`: the rule is not about volumes.
pub async fn of_volumes(
    conn: &mut PgConnection,
    view: &View,
    rule: Rule,
    query: Query<'_>,
) -> sqlx::Result<Option<Volumes>> {
    let sql = match rule {
        Rule::SizeAbove { .. } => volume_figures!("result.allocated_bytes", "result.completeness = 'Partial'"),
        Rule::PercentOfCapacityAbove { .. } => volume_figures!(
            "result.allocated_bytes * 100.0 / nullif(result.capacity_bytes, 0)",
            "result.completeness = 'Partial'"
        ),
        Rule::GrowthAbove { .. } => {
            volume_figures!("CASE WHEN result.completeness <> 'Unknown' THEN latest.growth_bytes_per_day END", "false")
        },
        // A volume that does not grow is never full.
        Rule::FullWithin { .. } => volume_figures!(
            "CASE WHEN result.completeness = 'Unknown' THEN NULL WHEN latest.growth_bytes_per_day > 0 THEN result.available_bytes / latest.growth_bytes_per_day::double precision
                  WHEN latest.growth_bytes_per_day <= 0 THEN 'Infinity' END",
            "false"
        ),
        Rule::FilesAbove { .. } => volume_figures!("result.files", "result.completeness = 'Partial'"),
        Rule::UnusedLongerThan { .. } => volume_figures!(
            "CASE WHEN volume.unused_since IS NULL THEN 0 ELSE extract(epoch FROM volume.last_seen_at - volume.unused_since) / 86400.0 END",
            "false",
            "false"
        ),
        Rule::CandidateBytesAbove { .. }
        | Rule::ScanOlderThan { .. }
        | Rule::FailedNodesAbove { .. }
        | Rule::DatabaseDown => return Ok(None),
    };
    let limit = rule.limit(None);
    let rows: Vec<VolumeRow> = sqlx::query_as(sql)
        .bind(&view.jobs)
        .bind(&view.stale)
        .bind(&view.unused_after_days)
        .bind(query.volumes)
        .bind(query.min_bytes)
        .bind(query.open)
        .bind(limit.threshold)
        .bind(limit.below)
        .bind(query.beyond)
        .bind(query.missing)
        .fetch_all(conn)
        .await?;
    let counted = rows.first().map_or((0, 0, 0), |row| (row.evaluated, row.missing, row.beyond));
    let (evaluated, missing, beyond) = counted;
    Ok(Some(Volumes { evaluated, missing, beyond, rows: rows.into_iter().filter_map(VolumeRow::sample).collect() }))
}

#[derive(FromRow)]
struct VolumeRow {
    evaluated: i64,
    missing: i64,
    beyond: i64,
    id: Option<i64>,
    node: Option<String>,
    name: Option<String>,
    value: Option<f64>,
    lower_bound: Option<bool>,
    stopped: Option<i64>,
}

impl VolumeRow {
    fn sample(self) -> Option<VolumeSample> {
        let sample = match (self.value, self.lower_bound) {
            (Some(value), Some(true)) => Sample::AtLeast(value),
            (Some(value), _) => Sample::Exactly(value),
            (None, _) => Sample::Missing,
        };
        let held_by_stopped = self.stopped.unwrap_or_default();
        Some(VolumeSample { id: self.id?, node: self.node?, name: self.name?, sample, held_by_stopped })
    }
}
