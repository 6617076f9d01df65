//! What the chart's alerts and dashboards ask Prometheus: each expression is parsed, asks for what is told, and gives what it ought to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde::Deserialize;
use tempfile::NamedTempFile;

use crate::chart::{set, template, tool};
use crate::metrics::{agents, controllers, maintenances};

/// What of kube-state-metrics is used. It is not ours: it is there or is not.
const KUBE_STATE_METRICS: [&str; 4] = [
    "kube_cronjob_next_schedule_time",
    "kube_cronjob_spec_suspend",
    "kube_cronjob_status_last_schedule_time",
    "kube_cronjob_status_last_successful_time",
];

/// The labels that an expression needs of a metric.
#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "where")]
    place: String,
    metric: String,
    labels: Option<BTreeSet<String>>,
}

/// A release with all alerts and dashboards.
fn rendered() -> NamedTempFile {
    let mut arguments = set(&["prometheusRule.enabled=true", "dashboards.enabled=true"]);
    arguments.extend(["--namespace", "volumeviz"].map(str::to_owned));
    let output = template(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), output.stdout).unwrap();
    file
}

fn promql(command: &str, more: &[&Path]) -> Output {
    let rendered = rendered();
    let mut promql = Command::new(tool("promql"));
    promql.arg(command).arg(rendered.path()).args(more);
    let output = promql.output().expect("promql: `make setup` builds it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn asked() -> Vec<Asked> {
    let output = promql("labels", &[]);
    serde_json::Deserializer::from_slice(&output.stdout).into_iter().map(Result::unwrap).collect()
}

/// The labels of every metric: its own, and those that whoever scrapes as the chart says gives it. `cluster` is for who has several in one place.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::new();
    for (told, scraped) in [
        (controllers(), ["cluster", "namespace", "pod"].as_slice()),
        (agents(), ["cluster", "namespace", "pod", "node"].as_slice()),
        (maintenances(), ["cluster", "namespace", "pod", "node"].as_slice()),
    ] {
        for metric in told {
            let more = scraped.iter().map(|label| (*label).to_owned());
            let labels: BTreeSet<String> = metric.labels.iter().cloned().chain(more).collect();
            let buckets = labels.iter().cloned().chain(["le".to_owned()]).collect();
            // What several tell is as whoever tells least has it.
            known.entry(format!("{}_bucket", metric.name)).or_insert(buckets);
            known.entry(metric.name).or_insert(labels);
        }
    }
    let foreign = ["namespace", "cronjob"].map(str::to_owned);
    known.extend(KUBE_STATE_METRICS.map(|name| (name.to_owned(), BTreeSet::from(foreign.clone()))));
    known
}

#[tokio::test]
async fn every_expression_asks_for_metrics_and_labels_that_there_are() {
    let known = known();
    for Asked { place, metric, labels } in asked() {
        let Some(known) = known.get(&metric) else { panic!("{place}: nobody tells {metric}") };
        let unknown: Vec<String> = labels.unwrap_or_default().difference(known).cloned().collect();
        assert!(unknown.is_empty(), "{place}: {metric} has no {unknown:?}");
    }
}

#[test]
fn every_panel_can_be_of_one_cluster_and_namespace() {
    for Asked { place, metric, labels } in asked() {
        let chosen = ["cluster", "namespace"].iter().all(|label| labels.iter().flatten().any(|asked| asked == label));
        let is_choice = place.ends_with(" $cluster") || place.ends_with(" $namespace");
        assert!(chosen || is_choice || place.starts_with("VolumeViz"), "{place}: {metric}");
    }
}

/// The cases are in `tests/chart/rules`.
#[test]
fn alerts_fire_when_they_should_and_every_panel_shows_something() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart/rules");
    promql("test", &[&folder.join("alerts.yaml"), &folder.join("panels.yaml")]);
}
