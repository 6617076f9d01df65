//! What `/metrics` tells, and that `docs/metrics.md` describes all of it and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use kube::core::DeserializeGuard;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::time::Instant;
use volumeviz::config::database::{DatabaseArgs, Role};
use volumeviz::controller::certificates::plan::Expiry;
use volumeviz::controller::contents::Contents;
use volumeviz::crd::{VolumeAlert, VolumeScan};
use volumeviz::domain::alert::notification::Channel;
use volumeviz::domain::run::{NodeCounts, RunKey, RunResult};
use volumeviz::store::Store;
use volumeviz::store::contents::{self, NodeContents, VolumeContents};
use volumeviz::store::runs::Queue;
use volumeviz::{agent, controller};

use crate::generated::is_committed;

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    database: DatabaseArgs,
}

/// A metric as Prometheus has it.
#[derive(Debug, Default)]
pub(crate) struct Metric {
    pub(crate) name: String,
    type_: String,
    help: String,
    /// Their names; of a histogram without `le`.
    pub(crate) labels: BTreeSet<String>,
    has_series: bool,
}

/// All of the controller's `/metrics`.
pub(crate) fn controllers() -> Vec<Metric> {
    let mut registry = Registry::default();
    let metrics = controller::metrics::Metrics::register(&mut registry);
    // What has labels is told once it has happened.
    metrics.reconciled("volumescans", Instant::now(), "Ok");
    metrics.failed("Timeout");
    metrics.run_started(&RunKey::Once);
    metrics.run_ended(RunResult::Succeeded);
    metrics.queued(&Queue { nodes: NodeCounts::default(), oldest_pending_seconds: 0.0 });
    metrics.dispatched(Duration::ZERO);
    let now = chrono::Utc::now();
    metrics.certificates_expire(&Expiry { authority: now, agent: now, controller: now });
    metrics.notifications.tried(Channel::Event, true, Duration::ZERO);
    fill(metrics.contents());
    with_the_databases(registry, Role::Controller)
}

/// Has it tell of a node, a volume, a scan and an alert of which everything is known.
fn fill(shown: &Contents) {
    let node = NodeContents {
        node: "n".to_owned(),
        measured: 1,
        partial: 1,
        unknown: 0,
        allocated_bytes: Some(1),
        apparent_bytes: Some(1),
        files: Some(1),
    };
    let volume = VolumeContents {
        node: "n".to_owned(),
        name: "v".to_owned(),
        partial: true,
        allocated_bytes: 1,
        files: Some(1),
        growth_bytes_per_day: Some(1),
    };
    shown.tell(Some(contents::Contents { nodes: vec![node], volumes: vec![volume] }));
    let (scans, mut writer) = reflector::store::<DeserializeGuard<VolumeScan>>();
    let now = "2026-01-01T00:00:00Z";
    let nodes = json!({"total": 1, "pending": 0, "running": 0, "succeeded": 1, "failed": 0, "skipped": 0});
    let status = json!({
        "lastSuccessfulTime": now,
        "lastRun": {"id": 1, "result": "Succeeded", "reason": "", "startTime": now, "completionTime": now, "durationSeconds": 0, "nodes": nodes},
        "growth": {"bytesPerDay": 1, "windowDays": 5, "samples": 5, "volumes": 1},
        "totals": {"volumes": 1, "measured": 1, "partial": 0, "failed": 0, "unknown": 0, "anonymous": 0, "inUse": 0, "unused": 1,
            "allocatedBytes": 1, "apparentBytes": 1, "files": 1, "candidates": 1, "candidateBytes": 1, "candidatesHeldByStopped": 0,
            "staleNodes": 0},
        "database": {"connected": true, "reason": "", "since": now},
    });
    let scan = json!({"apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeScan", "metadata": {"name": "s"}, "spec": {}, "status": status});
    writer.apply_watcher_event(&Event::Apply(serde_json::from_value(scan).unwrap()));
    shown.follow(scans);
    let (alerts, mut writer) = reflector::store::<DeserializeGuard<VolumeAlert>>();
    let counts = json!({"evaluated": 1, "firing": 1, "pending": 0, "noData": 0});
    let alert = json!({"apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeAlert", "metadata": {"name": "a"},
        "spec": {"scope": "Volume", "rule": {"sizeAbove": {"bytes": 1}}}, "status": {"counts": counts}});
    writer.apply_watcher_event(&Event::Apply(serde_json::from_value(alert).unwrap()));
    shown.follow_alerts(alerts);
}

/// The same of an agent's.
pub(crate) fn agents() -> Vec<Metric> {
    let mut registry = Registry::default();
    agent::metrics::Metrics::register(&mut registry).job_ended("Completed");
    with_the_databases(registry, Role::Agent)
}

/// The same of maintenance's.
pub(crate) fn maintenances() -> Vec<Metric> {
    let mut registry = Registry::default();
    volumeviz::maintain::Metrics::register(&mut registry);
    told(&registry)
}

fn with_the_databases(mut registry: Registry, role: Role) -> Vec<Metric> {
    let database = Options::parse_from(["volumeviz"]).database;
    let store = Store::connect_lazy(&DatabaseArgs { enable_metrics: true, ..database }, role).unwrap();
    store.register_metrics(&mut registry);
    told(&registry)
}

/// In the order in which it is told.
fn told(registry: &Registry) -> Vec<Metric> {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let mut all: Vec<Metric> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            all.push(Metric { name: name.to_owned(), help: help.to_owned(), ..Metric::default() });
        } else if let Some((_, type_)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let metric = all.last_mut().unwrap();
            type_.clone_into(&mut metric.type_);
            if type_ == "counter" {
                metric.name.push_str("_total");
            }
        } else if !line.starts_with('#') {
            let metric = all.last_mut().unwrap();
            metric.labels.extend(labels(line));
            metric.labels.remove("le");
            metric.has_series = true;
        }
    }
    for metric in &all {
        assert!(metric.has_series, "nothing has happened here that {} tells", metric.name);
    }
    all
}

/// The names of a series' labels, in whose values nothing is quoted.
fn labels(series: &str) -> impl Iterator<Item = String> {
    let labels = series.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
    labels.split(',').filter_map(|label| Some(label.split_once("=\"")?.0.to_owned()))
}

fn unit(metric: &Metric) -> &'static str {
    let name = metric.name.trim_end_matches("_total");
    let known = [
        ("_timestamp_seconds", "Unix time"),
        ("_seconds", "seconds"),
        ("_bytes_per_day", "bytes a day"),
        ("_bytes", "bytes"),
    ];
    known.into_iter().find(|(end, _)| name.ends_with(end)).map_or("count", |(_, unit)| unit)
}

fn table(of: &[&Metric]) -> String {
    let mut text = "| metric | type | unit | labels | |\n|---|---|---|---|---|\n".to_owned();
    for metric in of {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        let Metric { name, type_, help, .. } = metric;
        writeln!(text, "| `{name}` | {type_} | {} | {labels} | {} |", unit(metric), help.trim_end_matches('.'))
            .unwrap();
    }
    text
}

/// Before each table of the page: whose metrics it has, and how their names begin.
const MARK: &str = "<!-- made by `make metrics`: ";

/// The page with the tables that it ought to have.
fn page(committed: &str, processes: &BTreeMap<&str, Vec<Metric>>) -> String {
    let marks: Vec<(&str, &str)> =
        committed.lines().filter_map(|line| line.strip_prefix(MARK)?.strip_suffix(" -->")?.split_once(' ')).collect();
    let mut text = String::new();
    let mut lines = committed.lines().peekable();
    while let Some(line) = lines.next() {
        writeln!(text, "{line}").unwrap();
        let mark = line.strip_prefix(MARK).and_then(|mark| mark.strip_suffix(" -->")?.split_once(' '));
        let Some((process, begins)) = mark else { continue };
        let in_another = |name: &str| {
            marks.iter().any(|(of, longer)| *of == process && longer.len() > begins.len() && name.starts_with(longer))
        };
        let all = processes.get(process).unwrap_or_else(|| panic!("{process} is no process"));
        let here = all.iter().filter(|metric| metric.name.starts_with(begins) && !in_another(&metric.name));
        text.push_str(&table(&here.collect::<Vec<_>>()));
        while lines.next_if(|line| line.starts_with('|')).is_some() {}
    }
    text
}

#[tokio::test]
async fn the_page_describes_what_is_told_and_nothing_else() {
    let processes =
        BTreeMap::from([("controller", controllers()), ("agent", agents()), ("maintenance", maintenances())]);
    let of_the_pool = |process: &str| -> BTreeSet<&str> {
        let names = processes[process].iter().map(|metric| metric.name.as_str());
        names.filter(|name| name.contains("_database_connection")).collect()
    };
    assert!(of_the_pool("agent").len() == 5 && of_the_pool("agent") == of_the_pool("controller"));
    let file = "docs/metrics.md";
    let committed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let page = page(&committed, &processes);
    for metric in processes.values().flatten() {
        let rows = page.matches(&format!("\n| `{}` |", metric.name)).count();
        assert_eq!(rows, 1, "{}: each metric is in one table", metric.name);
        assert!(metric.help.ends_with('.') && !metric.help.contains('|'), "{metric:?}");
    }
    is_committed(file, &page, "make metrics");
}
