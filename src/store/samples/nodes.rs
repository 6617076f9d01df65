//! Figures of nodes: sums over their volumes.

use std::collections::BTreeSet;

use sqlx::{FromRow, PgConnection};

use super::{View, big_enough, elsewhere, from_results, with_results};
use crate::domain::alert::judge::Sample;
use crate::domain::alert::rule::Rule;
use crate::store::containers::holders;

/// The figures of one node, summed up.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSample {
    /// Its name.
    pub node: String,
    /// Its figure in the rule's unit.
    pub sample: Sample,
    /// What there is to sum up.
    pub volumes: NodeVolumes,
}

/// What there is to sum up on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeVolumes {
    /// No volume that is selected.
    None,
    /// Volumes, and the growth of none of them is known yet: nothing of them is part of a sum.
    Young,
    /// Volumes with figures, or without results of the last run.
    Some,
}

/// Sums over the volumes of each node: the expression of the figure, and which volumes count. What has no data on its node (a driver that is
/// not local, a network file system, not mounted) is no part of a sum; whatever else could not be measured leaves it a lower bound.
macro_rules! node_figures {
    ($value:literal) => {
        node_figures!($value, "true")
    };
    ($value:literal, $counts:expr) => {
        with_results!(
            ", judged AS (
                 SELECT volume.node, result.stale, CASE WHEN ",
            $counts,
            " THEN (",
            $value,
            ")::double precision END AS value,
                     result.stale OR ((result.completeness = 'Partial' OR ",
            big_enough!(),
            " IS NULL OR (result.completeness = 'Unknown' AND NOT ",
            elsewhere!(),
            " AND result.reason <> 'NotMounted'))
                         AND ",
            $counts,
            ") AS lower_bound",
            from_results!(),
            "
             )
             SELECT node, coalesce(sum(value) FILTER (WHERE NOT stale), 0)::double precision AS value, bool_or(lower_bound) AS lower_bound,
                 bool_or(stale) AS stale, count(value) FILTER (WHERE NOT stale) AS known, count(*) FILTER (WHERE NOT stale) AS fresh
             FROM judged GROUP BY node"
        )
    };
}

#[derive(FromRow)]
struct NodeRow {
    node: String,
    value: f64,
    lower_bound: bool,
    stale: bool,
    known: i64,
    fresh: i64,
}

/// The figures of the nodes of a view by one rule, the sums over their volumes; `None`: the rule is not about volumes. A node without
/// volumes has the figure 0, one without fresh results none.
pub async fn of_nodes(
    conn: &mut PgConnection,
    view: &View,
    rule: Rule,
    volumes: Option<&[i64]>,
    min_bytes: i64,
) -> sqlx::Result<Option<Vec<NodeSample>>> {
    let sql = match rule {
        Rule::SizeAbove { .. } => node_figures!("result.allocated_bytes"),
        Rule::GrowthAbove { .. } => {
            node_figures!("CASE WHEN result.completeness <> 'Unknown' THEN latest.growth_bytes_per_day END")
        }
        Rule::FilesAbove { .. } => node_figures!("result.files"),
        Rule::CandidateBytesAbove { .. } => {
            node_figures!(
                "result.allocated_bytes",
                concat!(
                    "coalesce(volume.last_seen_at - volume.unused_since >= make_interval(days => result.unused_after_days)
                         AND (SELECT used.stopped FROM (",
                    holders!(),
                    ") AS used) = 0, false)"
                )
            )
        }
        Rule::PercentOfCapacityAbove { .. }
        | Rule::FullWithin { .. }
        | Rule::UnusedLongerThan { .. }
        | Rule::ScanOlderThan { .. }
        | Rule::FailedNodesAbove { .. }
        | Rule::DatabaseDown => return Ok(None),
    };
    let rows: Vec<NodeRow> = sqlx::query_as(sql)
        .bind(&view.jobs)
        .bind(&view.stale)
        .bind(&view.unused_after_days)
        .bind(volumes)
        .bind(min_bytes)
        .fetch_all(conn)
        .await?;
    let is_growth = matches!(rule, Rule::GrowthAbove { .. });
    let sample = |row: &NodeRow| match row {
        // Growth may be negative: a part of it bounds nothing.
        NodeRow { stale, known, .. } if is_growth && (*stale || *known == 0) => Sample::Missing,
        NodeRow { fresh: 0, .. } => Sample::Missing,
        NodeRow { lower_bound: true, value, .. } if !is_growth => Sample::AtLeast(*value),
        NodeRow { value, .. } => Sample::Exactly(*value),
    };
    let of_row = |row: &NodeRow| NodeSample {
        node: row.node.clone(),
        sample: sample(row),
        volumes: if is_growth && !row.stale && row.known == 0 { NodeVolumes::Young } else { NodeVolumes::Some },
    };
    let mut samples: Vec<NodeSample> = rows.iter().map(of_row).collect();
    let with_volumes: BTreeSet<&str> = rows.iter().map(|row| row.node.as_str()).collect();
    let fresh = view.fresh_nodes();
    let empty = fresh.difference(&with_volumes);
    samples.extend(empty.map(|node| NodeSample {
        node: (*node).to_owned(),
        sample: Sample::Exactly(0.0),
        volumes: NodeVolumes::None,
    }));
    Ok(Some(samples))
}
