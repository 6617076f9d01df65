//! How long it takes to hold 50 VolumeAlerts against 100,000 volumes: what one pass of the controller over each does in the database, beside two
//! simpler ways to ask the same. Run by `tests/with-postgres cargo bench --bench alerts`.
//!
//! The simpler ways only look for what is above the limit: they follow no states, know no selected scans, and tell no stale results.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    clippy::cast_precision_loss,
    reason = "a measurement fails by panicking, and needs no last digit"
)]

#[allow(dead_code, unreachable_pub, reason = "the store's tests use all of it")]
#[path = "../tests/store/database.rs"]
mod database;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use database::Database;
use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tracing_subscriber::layer::{Context, SubscriberExt};
use volumeviz::config::database::Role;
use volumeviz::controller::alert::apply;
use volumeviz::controller::alert::observe::{Observed, Reader, Scans};
use volumeviz::controller::alert::plan::plan;
use volumeviz::controller::alert::status::{self, Judged};
use volumeviz::controller::alert::tell::Author;
use volumeviz::controller::fleet::{Fleet, Node};
use volumeviz::controller::health::DatabaseHealth;
use volumeviz::crd::VolumeAlert;
use volumeviz::domain::alert::Scope;
use volumeviz::domain::alert::notification::Receiver;
use volumeviz::domain::alert::rule::Rule;
use volumeviz::domain::selector::{VolumeFacts, VolumeKind, VolumeMatcher, VolumeUsage};
use volumeviz::store::samples::Selected;
use volumeviz::store::{Labels, Store};

const ALERTS: usize = 50;
const NODES: usize = 100;
/// Passes at a time: as the controller makes them over alerts, and as over scans.
const AT_A_TIME: [usize; 2] = [2, 8];
/// Volumes that are asked for one by one; the time for all is extrapolated.
const ASKED_ONE_BY_ONE: i64 = 2000;
/// Far more than a pass may take: what takes longer is to be seen, not cut off.
const DEADLINE: Duration = Duration::from_secs(120);

/// 100,000 volumes on 100 nodes, half of them used; one scan of all nodes and one of ten, each with a history and two runs with results.
const SEED: &str = "
    INSERT INTO nodes (name, uid, has_engine) SELECT 'n' || n, 'n' || n || '-uid', true FROM generate_series(1, 100) AS n;
    INSERT INTO volumes (volume_id, node, name, driver, is_active, is_anonymous, labels, unused_since, last_scanned)
        SELECT 'n' || 1 + n % 100 || '/v' || n, 'n' || 1 + n % 100, CASE n % 3 WHEN 0 THEN 'db-' WHEN 1 THEN 'cache-' ELSE 'v' END || n, 'local',
            n % 2 = 0 AND n % 20 > 0, n % 10 = 0, jsonb_build_object('app', 'a' || n % 50, 'com.docker.compose.project', 'p' || n % 1000),
            CASE WHEN n % 2 = 1 OR n % 20 = 0 THEN clock_timestamp() - make_interval(days => n % 100) END, clock_timestamp()
        FROM generate_series(1, 100000) AS n;
    INSERT INTO scan_runs (scan_uid, scan_name, run_key, work, deadline, completed_at, result)
        SELECT scan, scan, 's:' || n, '{}', clock_timestamp(), clock_timestamp() - make_interval(hours => 90 - n), 'Succeeded'
        FROM generate_series(1, 90) AS n, unnest(ARRAY['all', 'few']) AS scan;
    INSERT INTO scan_jobs (run_id, node, node_uid, status, completed_at) SELECT scan_runs.id, nodes.name, nodes.uid, 'succeeded', scan_runs.completed_at
        FROM scan_runs, nodes WHERE scan_uid = 'all' OR nodes.id <= 10;
    INSERT INTO scan_results (scan_job_id, volume_id, measured_at, completeness, reason, method, allocated_bytes, files, capacity_bytes, available_bytes)
        SELECT scan_jobs.id, volumes.id, scan_jobs.completed_at,
            CASE WHEN volumes.id % 97 = 0 THEN 'Unknown' WHEN volumes.id % 89 = 0 THEN 'Partial' ELSE 'Complete' END,
            CASE WHEN volumes.id % 97 = 0 THEN 'VolumeTimeout' WHEN volumes.id % 89 = 0 THEN 'ReadErrors' END, CASE WHEN volumes.id % 97 > 0 THEN 'Walk' END,
            CASE WHEN volumes.id % 97 > 0 THEN volumes.id * 7919 % 1000003 * 1000 END, volumes.id * 31 % 100003, 1000000000000, 400000000000
        FROM scan_jobs JOIN scan_runs ON scan_runs.id = run_id AND run_key IN ('s:89', 's:90') JOIN volumes ON volumes.node = scan_jobs.node;
    INSERT INTO volume_latest (volume_id, scan_result_id, measured_at, completeness, method, allocated_bytes, files, capacity_bytes, available_bytes,
            growth_bytes_per_day)
        SELECT DISTINCT ON (volume_id) volume_id, id, measured_at, completeness, method, allocated_bytes, files, capacity_bytes, available_bytes,
            volume_id * 104729 % 1000003 * 100 - 10000000 FROM scan_results ORDER BY volume_id, id DESC;
    INSERT INTO containers (container_id, node, name, image, state)
        SELECT n::text, 'n' || 1 + n * 2 % 100, 'c' || n, 'i', CASE WHEN n % 10 = 0 THEN 'exited' ELSE 'running' END FROM generate_series(1, 50000) AS n;
    INSERT INTO container_volumes (container_id, volume_id, mount_path, read_write) SELECT id, id * 2, '/d', true FROM containers;
    VACUUM ANALYZE";

/// Counts what sqlx says it executed.
#[derive(Clone, Default)]
struct Statements(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Statements {
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Every rule about results in each of its scopes, with limits that few volumes are above, in turn with each kind of selection.
fn specs() -> Vec<Value> {
    let rules = [
        ("Volume", json!({"sizeAbove": {"bytes": 998_000_000}})),
        ("Volume", json!({"percentOfCapacityAbove": {"percent": 0}})),
        ("Volume", json!({"growthAbove": {"bytesPerDay": 89_800_000}})),
        ("Volume", json!({"fullWithin": {"days": 4460}})),
        ("Volume", json!({"filesAbove": {"files": 99_800}})),
        ("Volume", json!({"unusedLongerThan": {"days": 98}})),
        ("Node", json!({"sizeAbove": {"bytes": 500_000_000_000_i64}})),
        ("Node", json!({"growthAbove": {"bytesPerDay": 40_000_000_000_i64}})),
        ("Node", json!({"filesAbove": {"files": 50_000_000}})),
        ("Node", json!({"candidateBytesAbove": {"bytes": 150_000_000_000_i64}})),
        ("Node", json!({"scanOlderThan": {"seconds": 86_400}})),
        ("Cluster", json!({"sizeAbove": {"bytes": 1}})),
        ("Cluster", json!({"growthAbove": {"bytesPerDay": 1}})),
        ("Cluster", json!({"filesAbove": {"files": 1}})),
        ("Cluster", json!({"candidateBytesAbove": {"bytes": 1}})),
        ("Cluster", json!({"failedNodesAbove": {"nodes": 0}})),
    ];
    let selections = [
        json!({}),
        json!({"volumeSelector": {"names": ["db-*", "v*7"], "excludeNames": ["*-1?"]}}),
        json!({"volumeSelector": {"labels": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a1", "a2"]}]}}}),
        json!({"minBytes": 500_000_000}),
        json!({"volumeSelector": {"kinds": ["Named"], "usage": ["Unused"]}, "noData": "Alert"}),
    ];
    (0..ALERTS)
        .map(|n| {
            let (scope, rule) = &rules[n % rules.len()];
            let mut spec = json!({"scope": scope, "rule": rule});
            let of_volumes = !["scanOlderThan", "failedNodesAbove"].iter().any(|name| rule.get(name).is_some());
            if of_volumes {
                spec.as_object_mut().unwrap().extend(selections[n % selections.len()].as_object().unwrap().clone());
            }
            spec
        })
        .collect()
}

/// An alert, ready to be judged.
struct Prepared {
    alert: VolumeAlert,
    rule: Rule,
    matcher: Option<VolumeMatcher>,
    receivers: Vec<Receiver>,
}

impl Prepared {
    fn new(n: usize, spec: &Value) -> Self {
        let object = json!({"apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeAlert", "spec": spec,
            "metadata": {"name": format!("alert-{n}"), "uid": format!("alert-{n}"), "generation": 1}});
        let alert: VolumeAlert = serde_json::from_value(object).unwrap();
        let rule = alert.spec.rule.rule().unwrap();
        let matcher = alert.spec.volume_selector.as_ref().map(|selector| VolumeMatcher::new(selector).unwrap());
        let receivers = alert.spec.receivers();
        Self { alert, rule, matcher, receivers }
    }

    fn author(&self) -> Author<'_> {
        Author {
            name: self.alert.metadata.name.as_deref().unwrap(),
            uid: self.alert.metadata.uid.as_deref().unwrap(),
            rule: self.rule.name(),
            threshold: self.rule.threshold(),
            scope: self.alert.spec.scope,
            severity: self.alert.spec.severity,
            receivers: &self.receivers,
        }
    }
}

/// What one pass over an alert took.
struct Took {
    read: Duration,
    all: Duration,
    states: usize,
    status_bytes: usize,
}

/// The scans of [`SEED`] and its nodes.
struct World {
    store: Store,
    scans: Scans,
    fleet: Fleet,
}

impl World {
    fn new(database: &Database) -> Self {
        let args = database::args(database::CONTROLLER, &database.name, &["--db-log-queries=true"]);
        let nodes = |count| (1..=count).map(|n| format!("n{n}"));
        let by = |scan: &'static str| move |node| Selected { scan: scan.to_owned(), node, unused_after_days: 30 };
        let scans = Scans {
            uids: vec!["all".to_owned(), "few".to_owned()],
            oldest: None,
            selected: nodes(NODES).map(by("all")).chain(nodes(10).map(by("few"))).collect(),
            ..Scans::default()
        };
        let of_fleet = |name| (name, Node { uid: "uid".to_owned(), labels: BTreeMap::new(), agent: None });
        let fleet = Fleet { nodes: nodes(NODES).map(of_fleet).collect(), forbidden: None };
        Self { store: Store::connect_lazy(&args, Role::Controller).unwrap(), scans, fleet }
    }

    /// What the controller does about one alert, but for the API server.
    async fn pass(&self, of: &Prepared) -> Took {
        let started = Instant::now();
        let Prepared { alert, rule, matcher, .. } = of;
        let reader = Reader { alert, rule: *rule, matcher: matcher.as_ref(), scans: &self.scans, fleet: &self.fleet };
        let read = self.store.snapshot("read what an alert judges", DEADLINE, async |conn| reader.read(conn).await);
        let mut read = read.await.unwrap();
        let read_in = started.elapsed();
        let (author, now) = (of.author(), read.evaluation.now);
        let plan = plan(&alert.spec, *rule, &author, &read.evaluation, false);
        if !plan.is_empty() {
            let written =
                self.store.run("write", DEADLINE, async |conn| apply::write(conn, &author, &plan, now).await).await;
            read.evaluation.open = written.unwrap().expect("nobody else judges");
        }
        let now = Timestamp::now();
        let observed = Observed { now, database: DatabaseHealth::reached_for(DEADLINE, now), read: Some(read) };
        let status = status::next(alert, &Judged::results(&observed, None, false));
        let status_bytes = serde_json::to_vec(&status).unwrap().len();
        assert!(status_bytes <= status::MAX_BYTES, "{author:?}: {status_bytes}");
        Took { read: read_in, all: started.elapsed(), states: plan.states.len() + plan.ends.len(), status_bytes }
    }

    async fn passes(&self, alerts: &[Prepared], at_a_time: usize) -> (Duration, Vec<Took>) {
        let started = Instant::now();
        let took = stream::iter(alerts).map(|alert| self.pass(alert)).buffer_unordered(at_a_time).collect().await;
        (started.elapsed(), took)
    }
}

/// What the simpler ways read of volumes.
const LATEST: &str = "
    SELECT volumes.node, volumes.name, volumes.driver, volumes.labels, volumes.is_anonymous, volumes.is_active,
        extract(epoch FROM volumes.last_seen_at - volumes.unused_since)::double precision / 86400 AS unused_days,
        latest.allocated_bytes, latest.files, latest.capacity_bytes, latest.available_bytes, latest.growth_bytes_per_day
    FROM volumes JOIN volume_latest AS latest ON latest.volume_id = volumes.id
    WHERE volumes.deleted_at IS NULL AND ($1::bigint IS NULL OR volumes.id = $1)";

/// The volume's figure, where the alert counts the volume and there is one.
fn figure(of: &Prepared, row: &PgRow) -> Option<f64> {
    let number = |name| row.get::<Option<i64>, _>(name).map(|value| value as f64);
    let labels: Labels = row.get("labels");
    let facts = VolumeFacts {
        name: row.get("name"),
        driver: row.get("driver"),
        labels: &labels.0,
        kind: if row.get("is_anonymous") { VolumeKind::Anonymous } else { VolumeKind::Named },
        usage: if row.get("is_active") { VolumeUsage::InUse } else { VolumeUsage::Unused },
    };
    let counts = of.matcher.as_ref().is_none_or(|matcher| matcher.matches(facts));
    let size = number("allocated_bytes")?;
    if !counts || size < of.alert.spec.min_bytes as f64 {
        return None;
    }
    let unused_days = row.get::<Option<f64>, _>("unused_days").unwrap_or_default();
    match of.rule {
        Rule::SizeAbove { .. } => Some(size),
        Rule::PercentOfCapacityAbove { .. } => Some(size * 100.0 / number("capacity_bytes")?),
        Rule::GrowthAbove { .. } => number("growth_bytes_per_day"),
        Rule::FullWithin { .. } => {
            let growth = number("growth_bytes_per_day").filter(|growth| *growth > 0.0)?;
            Some(number("available_bytes")? / growth)
        }
        Rule::FilesAbove { .. } => number("files"),
        Rule::UnusedLongerThan { .. } => Some(unused_days),
        Rule::CandidateBytesAbove { .. } => Some(if unused_days >= 30.0 { size } else { 0.0 }),
        Rule::ScanOlderThan { .. } | Rule::FailedNodesAbove { .. } | Rule::DatabaseDown => None,
    }
}

/// Fetches every volume, and sums up or compares here; how many subjects are above the limit.
async fn fetch_all(store: &Store, of: &Prepared) -> usize {
    let fetch = async |conn: &mut PgConnection| sqlx::query(LATEST).bind(None::<i64>).fetch_all(conn).await;
    let rows = store.snapshot("fetch every volume", DEADLINE, fetch).await.unwrap();
    let limit = of.rule.limit(None);
    let mut sums: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for row in &rows {
        let subject = match of.author().scope {
            Scope::Volume => (row.get("node"), row.get("name")),
            Scope::Node => (row.get("node"), ""),
            Scope::Cluster => ("", ""),
        };
        if let Some(figure) = figure(of, row) {
            *sums.entry(subject).or_default() += figure;
        }
    }
    sums.values().filter(|sum| limit.is_exceeded_by(**sum)).count()
}

/// Asks for so many volumes one after the other; how many have a figure.
async fn one_by_one(store: &Store, of: &Prepared, volumes: i64) -> usize {
    let asked = store.snapshot("ask for volumes", DEADLINE, async |conn| {
        let mut figures = 0;
        for id in 1..=volumes {
            let row = sqlx::query(LATEST).bind(Some(id)).fetch_one(&mut *conn).await?;
            figures += usize::from(figure(of, &row).is_some());
        }
        Ok(figures)
    });
    asked.await.unwrap()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn row(way: &str, total: Duration, took: &[Took], statements: usize) {
    let slowest = |pick: fn(&Took) -> Duration| took.iter().map(pick).max().unwrap().as_millis();
    let (read, all) = (slowest(|took| took.read), slowest(|took| took.all));
    let median = median(took.iter().map(|took| took.all).collect()).as_millis();
    let states: usize = took.iter().map(|took| took.states).sum();
    println!("| {way} | {total:.1?} | {median} ms | {read} ms | {all} ms | {statements} | {states} |");
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let database = Database::new().await;
    let mut superuser = database.superuser().await;
    for statement in SEED.split(';') {
        database::execute(&mut superuser, statement.to_owned()).await;
    }
    let world = World::new(&database);
    let alerts: Vec<Prepared> = specs().iter().enumerate().map(|(n, spec)| Prepared::new(n, spec)).collect();
    let statements = Statements::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(statements.clone())).unwrap();

    println!(
        "| pass | {ALERTS} alerts | median | slowest read | slowest | statements | states written |\n|---|---|---|---|---|---|---|"
    );
    let (total, first) = world.passes(&alerts, 1).await;
    row("first: states are opened", total, &first, statements.take());
    let (total, second) = world.passes(&alerts, 1).await;
    row("second: nothing changed", total, &second, statements.take());
    let mut all: Vec<Took> = first.into_iter().chain(second).collect();
    let unchanged = all.len() - ALERTS;
    for at_a_time in AT_A_TIME {
        let (total, took) = world.passes(&alerts, at_a_time).await;
        row(&format!("the same, {at_a_time} at a time"), total, &took, statements.take());
        all.extend(took);
    }
    assert!(all[unchanged..].iter().all(|took| took.states == 0), "where nothing changed nothing is written");
    let biggest = all.iter().map(|took| took.status_bytes).max().unwrap();
    println!(
        "\nThe biggest status has {biggest} bytes. This process took {} of memory at most until here.",
        peak_memory()
    );

    let of_volumes: Vec<&Prepared> = alerts
        .iter()
        .filter(|alert| !matches!(alert.rule, Rule::ScanOlderThan { .. } | Rule::FailedNodesAbove { .. }))
        .collect();
    println!("\n| {} of them, about volumes | all | median |\n|---|---|---|", of_volumes.len());
    let mut times = Vec::new();
    for alert in &of_volumes {
        let started = Instant::now();
        std::hint::black_box(fetch_all(&world.store, alert).await);
        times.push(started.elapsed());
    }
    let all: Duration = times.iter().sum();
    println!("| every volume fetched, judged here | {all:.1?} | {} ms |", median(times).as_millis());
    let started = Instant::now();
    std::hint::black_box(one_by_one(&world.store, of_volumes[0], ASKED_ONE_BY_ONE).await);
    let of_one = started.elapsed().mul_f64(100_000.0 / ASKED_ONE_BY_ONE as f64);
    let of_all = of_one.mul_f64(of_volumes.len() as f64);
    println!(
        "| one statement a volume, extrapolated from {ASKED_ONE_BY_ONE} | {:.1} h | {:.0} s |",
        of_all.as_secs_f64() / 3600.0,
        of_one.as_secs_f64()
    );
    println!("\nAt most {} of memory with every volume fetched.", peak_memory());
}
