//! What became of subjects that no figure was found of, and sums over nodes.

use std::collections::BTreeSet;

use super::{Standing, finding, open};
use crate::controller::alert::findings;
use crate::controller::alert::observe::Scans;
use crate::controller::fleet::{Fleet, Node};
use crate::domain::alert::judge::Sample;
use crate::domain::alert::rule::Rule;
use crate::store::alerts::Open;
use crate::store::samples::{NodeSample, NodeVolumes, Selected};

fn fleet() -> Fleet {
    let node = Node { uid: "uid".to_owned(), labels: [].into(), agent: None };
    Fleet { nodes: [("n1".to_owned(), node)].into(), forbidden: None }
}

fn scans(nodes: &[&str]) -> Scans {
    let of = |node: &&str| Selected { scan: "scan".to_owned(), node: (*node).to_owned(), unused_after_days: 30 };
    let selected = nodes.iter().map(of).collect();
    Scans { uids: vec!["scan".to_owned()], selected, ..Scans::default() }
}

/// The sample and remark of an open volume on n1 that was not found.
fn became(open: Open, fleet: &Fleet, fresh: &[&str], scans: &Scans) -> (Sample, Option<String>) {
    let fresh: BTreeSet<&str> = fresh.iter().copied().collect();
    let finding = findings::of_others(&[open], &[], fleet, &fresh, scans).remove(0);
    (finding.sample, finding.remark)
}

#[test]
fn a_subject_is_gone_only_where_somebody_looked_or_nobody_is_to_look() {
    let known = || open("a", Standing::Firing, 0);
    assert_eq!(became(known(), &fleet(), &[], &scans(&["n1"])), (Sample::Missing, None), "its node was not heard");
    let gone = |became: (Sample, Option<String>)| {
        assert_eq!(became.0, Sample::Gone);
        became.1.unwrap()
    };
    let removed = Open { volume_gone: true, ..known() };
    assert_eq!(gone(became(removed, &fleet(), &[], &scans(&["n1"]))), "the volume was removed");
    assert_eq!(gone(became(known(), &Fleet::default(), &[], &scans(&["n1"]))), "its node left the cluster");
    assert_eq!(gone(became(known(), &fleet(), &[], &Scans::default())), "no VolumeScan looks at it any more");
    assert_eq!(gone(became(known(), &fleet(), &[], &scans(&["n2"]))), "no VolumeScan looks at its node any more");
    assert!(gone(became(known(), &fleet(), &["n1"], &scans(&["n1"]))).starts_with("it does not count any more"));
}

#[test]
fn what_was_found_is_not_judged_twice() {
    let found = [finding("a", Sample::Exactly(1.0))];
    let others =
        findings::of_others(&[open("a", Standing::Firing, 0)], &found, &fleet(), &BTreeSet::new(), &scans(&["n1"]));
    assert_eq!(others, []);
}

fn sums(samples: &[Sample], rule: Rule) -> Sample {
    let samples: Vec<_> = samples.iter().map(|sample| (*sample, NodeVolumes::Some)).collect();
    cluster(&samples, rule).0
}

/// Of the nodes `n1`, `n2`, …: the figure, and which nodes are named as the cause of its absence.
fn cluster(samples: &[(Sample, NodeVolumes)], rule: Rule) -> (Sample, String) {
    let row = |(n, (sample, volumes)): (u32, &(Sample, NodeVolumes))| NodeSample {
        node: format!("n{n}"),
        sample: *sample,
        volumes: *volumes,
    };
    let rows: Vec<NodeSample> = (1..).zip(samples).map(row).collect();
    let names: Vec<String> = rows.iter().map(|row| row.node.clone()).collect();
    let selected: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let figures = findings::cluster(&findings::nodes(&selected, &rows), &rows, rule);
    assert_eq!((figures.findings.len(), figures.evaluated), (1, 1));
    (figures.findings[0].sample, figures.without_figure.join(" "))
}

#[test]
fn the_cluster_is_the_sum_of_its_nodes_and_a_missing_one_leaves_a_lower_bound() {
    let size = Rule::SizeAbove { bytes: 1 };
    let growth = Rule::GrowthAbove { bytes_per_day: 1 };
    let (one, two) = (Sample::Exactly(1.0), Sample::Exactly(2.0));
    assert_eq!(sums(&[one, two], size), Sample::Exactly(3.0));
    assert_eq!(sums(&[one, Sample::Missing], size), Sample::AtLeast(1.0));
    assert_eq!(sums(&[one, Sample::AtLeast(4.0)], size), Sample::AtLeast(5.0));
    assert_eq!(sums(&[Sample::Missing, Sample::Missing], size), Sample::Missing);
    assert_eq!(sums(&[one, Sample::Missing], growth), Sample::Missing, "growth may be negative");
    assert_eq!(sums(&[one, two], growth), Sample::Exactly(3.0));
}

#[test]
fn young_volumes_are_no_part_of_the_clusters_growth_unless_there_are_no_others() {
    let cluster = |samples: &[(Sample, NodeVolumes)]| cluster(samples, Rule::GrowthAbove { bytes_per_day: 1 });
    let old = (Sample::Exactly(1.0), NodeVolumes::Some);
    let young = (Sample::Missing, NodeVolumes::Young);
    let empty = (Sample::Exactly(0.0), NodeVolumes::None);
    let stale = (Sample::Missing, NodeVolumes::Some);
    let missing = |nodes: &str| (Sample::Missing, nodes.to_owned());
    assert_eq!(cluster(&[old, young, empty]).0, Sample::Exactly(1.0));
    assert_eq!(cluster(&[empty, empty]).0, Sample::Exactly(0.0), "nothing grows");
    assert_eq!(cluster(&[young, young]), missing("n1 n2"));
    assert_eq!(cluster(&[young, empty]), missing("n1"), "it is not known that nothing grows");
    assert_eq!(cluster(&[young, old, stale]), missing("n3"), "the others are not why");
}

#[test]
fn a_node_without_any_result_has_no_figure() {
    let selected = BTreeSet::from(["n1", "n2"]);
    let rows = [NodeSample { node: "n1".to_owned(), sample: Sample::Exactly(1.0), volumes: NodeVolumes::Some }];
    let figures = findings::nodes(&selected, &rows);
    assert_eq!((figures.evaluated, figures.missing, figures.without_figure), (2, 1, vec!["n2".to_owned()]));
}
