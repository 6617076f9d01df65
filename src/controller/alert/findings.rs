//! From figures to findings, a subject each: pure.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::observe::Scans;
use super::plan::Finding;
use crate::controller::fleet::Fleet;
use crate::domain::alert::judge::Sample;
use crate::domain::alert::rule::{Limit, Rule};
use crate::store::alerts::Open;
use crate::store::samples::{NodeSample, NodeVolumes, Runs, Volumes};

/// What was found, and how much of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    /// Of the subjects that matter.
    pub findings: Vec<Finding>,
    /// Subjects that were looked at.
    pub evaluated: i64,
    /// Those without a figure.
    pub missing: i64,
    /// The first of these, by name.
    pub without_figure: Vec<String>,
    /// Those beyond the limit, as the database counted them where not all are among the findings.
    counted_beyond: Option<i64>,
}

fn finding(node: Option<&str>, sample: Sample) -> Finding {
    Finding {
        subject: node.unwrap_or_default().to_owned(),
        volume_id: None,
        node: node.map(str::to_owned),
        volume: None,
        sample,
        remark: None,
    }
}

impl Figures {
    /// Where the findings are all there is.
    fn of(findings: Vec<Finding>) -> Self {
        let without_figure = without_figure(&findings);
        Self {
            evaluated: count(findings.len()),
            missing: count(without_figure.len()),
            counted_beyond: None,
            without_figure,
            findings,
        }
    }

    /// How many are beyond the limit.
    pub(super) fn beyond(&self, limit: &Limit) -> i64 {
        let beyond = || self.findings.iter().filter(|finding| finding.sample.exceeds(limit)).count();
        self.counted_beyond.unwrap_or_else(|| count(beyond()))
    }
}

fn without_figure<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Vec<String> {
    let missing = findings.into_iter().filter(|finding| finding.sample == Sample::Missing);
    missing.map(|finding| finding.subject.clone()).collect()
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Findings of volumes.
pub(super) fn volumes(volumes: Volumes) -> Figures {
    let Volumes { evaluated, missing, beyond, rows } = volumes;
    let findings: Vec<Finding> = rows
        .into_iter()
        .map(|row| Finding {
            subject: format!("{}/{}", row.node, row.name),
            volume_id: Some(row.id),
            node: Some(row.node),
            volume: Some(row.name),
            sample: row.sample,
            remark: match row.held_by_stopped {
                0 => None,
                1 => Some("a stopped container holds it".to_owned()),
                held => Some(format!("{held} stopped containers hold it")),
            },
        })
        .collect();
    Figures { evaluated, missing, counted_beyond: Some(beyond), without_figure: without_figure(&findings), findings }
}

/// Findings of nodes; those without any result have no figure.
pub(super) fn nodes(selected: &BTreeSet<&str>, samples: &[NodeSample]) -> Figures {
    let found: BTreeMap<&str, Sample> = samples.iter().map(|row| (row.node.as_str(), row.sample)).collect();
    let of = |node: &&str| finding(Some(node), found.get(node).copied().unwrap_or(Sample::Missing));
    Figures::of(selected.iter().map(of).collect())
}

/// The finding of the cluster: the sum over its nodes, a lower bound when one is missing. A part of the growth bounds nothing, since it may be
/// negative; volumes whose growth is not known yet are no part of it, as in the sum of a node, unless there are no others.
pub(super) fn cluster(nodes: &Figures, samples: &[NodeSample], rule: Rule) -> Figures {
    let is_growth = matches!(rule, Rule::GrowthAbove { .. });
    let volumes: BTreeMap<&str, NodeVolumes> = samples.iter().map(|row| (row.node.as_str(), row.volumes)).collect();
    let of = |node: &str| volumes.get(node).copied().unwrap_or(NodeVolumes::Some);
    let (young, parts): (Vec<_>, Vec<_>) =
        nodes.findings.iter().partition(|finding| of(&finding.subject) == NodeVolumes::Young);
    let is_known = |finding: &&Finding| {
        finding.sample != Sample::Missing && (young.is_empty() || of(&finding.subject) != NodeVolumes::None)
    };
    let is_partial = |finding: &&Finding| matches!(finding.sample, Sample::Missing | Sample::AtLeast(_));
    let sum: f64 = parts
        .iter()
        .filter_map(|finding| match finding.sample {
            Sample::Exactly(value) | Sample::AtLeast(value) => Some(value),
            Sample::Missing | Sample::Gone => None,
        })
        .sum();
    let (known, partial) = (parts.iter().any(is_known), parts.iter().any(is_partial));
    let sample = match (known, partial) {
        (false, _) => Sample::Missing,
        (true, true) if is_growth => Sample::Missing,
        (true, true) => Sample::AtLeast(sum),
        (true, false) => Sample::Exactly(sum),
    };
    let missing = without_figure(parts);
    let without_figure = if missing.is_empty() { nodes.without_figure.clone() } else { missing };
    Figures { without_figure, ..Figures::of(vec![finding(None, sample)]) }
}

/// How old the newest results of each node are.
pub(super) fn ages(selected: &BTreeSet<&str>, completed: &[(String, DateTime<Utc>)], now: DateTime<Utc>) -> Figures {
    let completed: BTreeMap<&str, DateTime<Utc>> = completed.iter().map(|(node, at)| (node.as_str(), *at)).collect();
    let of = |node: &&str| finding(Some(node), seconds(completed.get(node).copied(), now));
    Figures::of(selected.iter().map(of).collect())
}

/// How long there were no new results.
pub(super) fn age(since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Figures {
    Figures::of(vec![finding(None, seconds(since, now))])
}

fn seconds(since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Sample {
    #[expect(clippy::cast_precision_loss, reason = "an age in seconds")]
    since.map_or(Sample::Missing, |since| Sample::Exactly((now - since).num_seconds().max(0) as f64))
}

/// Nodes without a result in the last run.
pub(super) fn failed_nodes(runs: &Runs) -> Figures {
    #[expect(clippy::cast_precision_loss, reason = "a number of nodes")]
    let sample = runs.failed_nodes.map_or(Sample::Missing, |nodes| Sample::Exactly(nodes as f64));
    Figures::of(vec![finding(None, sample)])
}

/// What became of open subjects that no figure was found of: it is over only where somebody looked and did not find them, or where nobody is
/// to look any more.
pub(super) fn of_others(
    open: &[Open],
    found: &[Finding],
    fleet: &Fleet,
    fresh: &BTreeSet<&str>,
    scans: &Scans,
) -> Vec<Finding> {
    let others = open.iter().filter(|open| !found.iter().any(|finding| finding.is_of(open)));
    others
        .map(|open| {
            let subject = super::plan::subject(open);
            let node = subject.node.as_deref();
            let gone = if open.volume_gone {
                Some("the volume was removed")
            } else if node.is_some_and(|node| !fleet.nodes.contains_key(node)) {
                Some("its node left the cluster")
            } else if scans.uids.is_empty() {
                Some("no VolumeScan looks at it any more")
            } else if node.is_some_and(|node| !scans.selected.iter().any(|of| of.node == node)) {
                Some("no VolumeScan looks at its node any more")
            } else if node.is_some_and(|node| fresh.contains(node)) {
                Some("it does not count any more: removed, not selected, smaller than minBytes, or without data on its node")
            } else {
                None
            };
            Finding {
                subject: open.subject.clone(),
                volume_id: open.volume_id,
                node: subject.node,
                volume: subject.volume,
                sample: if gone.is_some() { Sample::Gone } else { Sample::Missing },
                remark: gone.map(str::to_owned),
            }
        })
        .collect()
}
