//! The hottest statements use their indexes, and touch only the partitions they need, with 100,000 volumes and a million sizes.
//!
//! The server itself tells which plans it used (auto_explain), also of the statements inside functions; nothing is copied here.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use sqlx::PgConnection;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use volumeviz::domain::alert::rule::Rule;
use volumeviz::store::figures::{self, View};
use volumeviz::store::filter::VolumeFilter;
use volumeviz::store::page::{Direction, Page, VolumeList, VolumeSort};
use volumeviz::store::samples::{self, Query, Selected};
use volumeviz::store::sizes::{self, Range, Resolution};
use volumeviz::store::{Labels, alerts, jobs, nodes, notifications, runs, volumes};

use crate::*;

/// Everything the server says while this is the subscriber.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Notices {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

impl Visit for Notices {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(format!("{value:?}").replace("\\n", "\n"));
        }
    }
}

impl Notices {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

const SEED: &str = "
    SELECT maintain.make_partitions(1);
    DO $$ DECLARE day date; BEGIN FOR day IN SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date - n FROM generate_series(2, 30) AS n LOOP
        EXECUTE format('CREATE TABLE volume_sizes_%s PARTITION OF volume_sizes FOR VALUES FROM (%L) TO (%L)', to_char(day, 'YYYYMMDD'),
            day || ' 00:00:00+00', day + 1 || ' 00:00:00+00'); END LOOP;
        FOR day IN SELECT date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date - make_interval(months => n) FROM generate_series(1, 8) AS n LOOP
            IF to_regclass('volume_sizes_daily_' || to_char(day, 'YYYYMM')) IS NULL THEN
                EXECUTE format('CREATE TABLE volume_sizes_daily_%s PARTITION OF volume_sizes_daily FOR VALUES FROM (%L) TO (%L)', to_char(day, 'YYYYMM'),
                    day, (day + interval '1 month')::date);
            END IF; END LOOP; END $$;
    INSERT INTO nodes (name, uid) SELECT 'n' || n, 'n' || n || '-uid' FROM generate_series(1, 100) AS n;
    INSERT INTO volumes (volume_id, node, name, is_active, is_anonymous, labels, last_scanned)
        SELECT 'n' || 1 + n % 100 || '/v' || n, 'n' || 1 + n % 100, 'v' || n, n % 2 = 0, n % 10 = 0, jsonb_build_object('app', 'a' || n), clock_timestamp()
        FROM generate_series(1, 100000) AS n;
    UPDATE volume_rankings SET allocated_bytes = volume_id * 7919 % 1000003, growth_bytes_per_day = volume_id * 104729 % 1009;
    INSERT INTO scan_runs (scan_uid, scan_name, run_key, work, deadline, completed_at, result)
        SELECT 'scan-uid', 'scan', 'old-' || n, '{}', clock_timestamp(), clock_timestamp() - make_interval(hours => 30 - n), 'Succeeded' FROM generate_series(1, 30) AS n;
    INSERT INTO scan_jobs (run_id, node, node_uid, status) SELECT scan_runs.id, nodes.name, nodes.uid, 'succeeded' FROM scan_runs, nodes;
    INSERT INTO scan_runs (scan_uid, scan_name, run_key, work, deadline, completed_at, result)
        SELECT 'other-' || n / 50, 'other', 't:' || n, '{}', clock_timestamp(), clock_timestamp(), 'Succeeded' FROM generate_series(1, 5000) AS n;
    INSERT INTO scan_results (scan_job_id, volume_id, measured_at, completeness, method, allocated_bytes, files)
        SELECT scan_jobs.id, volumes.id, clock_timestamp(), 'Complete', 'Walk', volumes.id, 1 FROM scan_jobs JOIN scan_runs ON scan_runs.id = run_id AND run_key IN ('old-29', 'old-30')
        JOIN volumes ON volumes.node = scan_jobs.node;
    INSERT INTO volume_latest (volume_id, scan_result_id, measured_at, completeness) SELECT id, 1, clock_timestamp(), 'Complete' FROM volumes;
    INSERT INTO containers (container_id, node, name, image, state) SELECT n::text, 'n' || 1 + n % 100, 'c' || n, 'i', 'running' FROM generate_series(1, 50000) AS n;
    INSERT INTO container_volumes (container_id, volume_id, mount_path, read_write) SELECT id, id * 2, '/d', true FROM containers;
    INSERT INTO volume_sizes (created_at, volume_id, scan_result_id, completeness, method, allocated_bytes, files)
        SELECT clock_timestamp() - make_interval(days => (n + id % 3)::integer), id, 1, 'Complete', 'Walk', 1, 1 FROM volumes, generate_series(0, 27, 3) AS n;
    INSERT INTO volume_sizes_daily SELECT id, (clock_timestamp() AT TIME ZONE 'UTC')::date - n, 'Walk', 1, 1, 1, 1, 1, 1, clock_timestamp() - make_interval(days => n)
        FROM volumes, generate_series(0, 5) AS n;
    INSERT INTO alert_notifications (notification_id, alert_uid, alert_name, receiver, receiver_name, event, payload, delivered_at)
        SELECT gen_random_uuid(), 'a' || n % 1000, 'a', '{}', 'r' || n % 5, 'Firing', '{}', CASE WHEN n % 10 > 0 THEN clock_timestamp() END
        FROM generate_series(1, 100000) AS n;
    INSERT INTO alerts (alert_uid, alert_name, rule, scope, severity, threshold, subject, volume_id, state, value, fired_at, resolved_at)
        SELECT 'a' || n % 99, 'a' || n % 99, 'sizeAbove', 'Volume', 'Warning', 1, 'n1/v' || n, n, CASE WHEN n % 50 = 7 THEN 'Firing' ELSE 'Resolved' END, 1,
            clock_timestamp(), CASE WHEN n % 50 <> 7 THEN clock_timestamp() END FROM generate_series(1, 100000) AS n;
    ANALYZE;
    LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; SET auto_explain.log_level = notice;
    SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off; SET client_min_messages = notice;";

/// Tables of which no hot statement may read every row.
const BIG: [&str; 12] = [
    "volumes",
    "volume_sizes",
    "volume_sizes_daily",
    "volume_latest",
    "volume_rankings",
    "scan_results",
    "scan_runs",
    "scan_jobs",
    "containers",
    "container_volumes",
    "alerts",
    "alert_notifications",
];

struct Server {
    conn: Box<database::Conn>,
    notices: Notices,
}

impl Server {
    /// The plans of what `act` makes the server do, those of foreign keys left out; none reads all of a big table.
    async fn plans<T>(
        &mut self,
        name: &str,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> (T, String) {
        self.notices.take();
        let done = act(&mut self.conn).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        // The next answer comes after every notice of the last one.
        sqlx::query("SELECT 1").execute(&mut **self.conn).await.unwrap();
        let plans: Vec<String> =
            self.notices.take().into_iter().filter(|plan| !plan.contains("FOR KEY SHARE OF x")).collect();
        assert!(plans.len() > 1, "{name}: the server told no plan");
        for plan in &plans {
            let all = |table: &&&str| {
                plan.contains(&format!("Seq Scan on {table} ")) || plan.contains(&format!("Seq Scan on {table}_2"))
            };
            assert_eq!(BIG.iter().find(all), None, "{name} reads all of it:\n{plan}");
        }
        (done, plans.join("\n"))
    }

    async fn uses<T>(
        &mut self,
        name: &str,
        indexes: &[&str],
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> (T, String) {
        let (done, plans) = self.plans(name, act).await;
        for index in indexes {
            let scanned = |line: &str| {
                (line.contains("Index") && line.contains(&format!("using {index} ")))
                    || line.contains(&format!("Bitmap Index Scan on {index} "))
                    || line.contains(&format!("Conflict Arbiter Indexes: {index}"))
            };
            assert!(plans.lines().any(scanned), "{name} does not use {index}:\n{plans}");
        }
        (done, plans)
    }
}

/// The partitions that were read, whose names begin so; each by an index.
fn read_partitions(plans: &str, parent: &str) -> BTreeSet<String> {
    let named = format!(" on {parent}_2");
    let scans =
        plans.lines().filter(|line| line.contains("Scan") && line.contains(&named) && !line.contains("never executed"));
    scans
        .map(|line| {
            assert!(!line.contains("Seq Scan"), "{line}");
            let name = line.split(" on ").last().unwrap_or_default();
            name.split([' ', '_']).filter(|part| part.starts_with('2')).collect()
        })
        .collect()
}

fn sorted(sort: VolumeSort, direction: Direction, filter: VolumeFilter) -> VolumeList {
    VolumeList { filter, sort, direction }
}

#[tokio::test]
async fn hot_statements_use_their_indexes_and_prune_partitions() {
    let database = Database::new().await;
    let mut conn = database.superuser().await;
    database::execute(&mut conn, SEED.to_owned()).await;
    assert_eq!(database.number("SELECT count(*) FROM volume_sizes").await, 1_000_000);
    assert_eq!(database.number("SELECT count(*) FROM volumes").await, 100_000);
    let (run, ticket, agent) = claimed(&database).await;
    let notices = Notices::default();
    let _listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(notices.clone()));
    let mut server = Server { conn, notices };

    agents_statements(&mut server, ticket, agent.instance).await;
    leaders_statements(&mut server, run).await;
    readers_statements(&mut server).await;
}

/// A whole job over a node of 1001 volumes, half of which are selected.
async fn agents_statements(server: &mut Server, ticket: Uuid, instance: Uuid) {
    let body = ClaimBody {
        instance,
        agent_version: "1".to_owned(),
        node_name: "n1".to_owned(),
        node_uid: "n1-uid".to_owned(),
    };
    let indexes = ["idx_scan_jobs_ticket", "scan_runs_pkey", "idx_scan_results_job_volume"];
    let (claimed, _) =
        server.uses("claim", &indexes, async |conn| store::agent::claim(conn, ticket, &body).await).await;
    assert!(matches!(claimed, ClaimReply::Claimed(_)));
    let beat = HeartbeatBody { instance, progress: progress(0) };
    let indexes = ["idx_scan_jobs_ticket", "scan_jobs_pkey"];
    let (beaten, _) =
        server.uses("heartbeat", &indexes, async |conn| store::agent::heartbeat(conn, ticket, &beat).await).await;
    assert_eq!(beaten, Reply::Ok);
    let names: Vec<String> = (0..1001).map(|n| format!("v{}", n * 100)).collect();
    inventory_statements(server, ticket, instance, &names).await;

    let results = names[..500].iter().map(|name| result(name, 1)).collect();
    let body = ReportBody { instance, results, progress: progress(500) };
    let indexes = [
        "idx_scan_jobs_ticket",
        "idx_volumes_volume_id",
        "idx_scan_results_job_volume",
        "scan_results_pkey",
        "volumes_pkey",
        "volume_latest_pkey",
        "volume_rankings_pkey",
        "volume_sizes_daily_pkey",
    ];
    let (reported, plans) =
        server.uses("report", &indexes, async |conn| store::agent::report(conn, ticket, &body).await).await;
    assert_eq!(reported, Reply::Ok);
    let days = read_partitions(&plans, "volume_sizes_daily");
    assert!((1..=2).contains(&days.len()), "growth reads the months of its 14 days: {days:?}\n{plans}");

    let body = CompleteBody { instance, results: 500, progress: progress(500) };
    let indexes = ["idx_scan_jobs_ticket", "idx_scan_results_job_volume", "idx_volumes_node", "scan_jobs_pkey"];
    let (completed, _) =
        server.uses("complete", &indexes, async |conn| store::agent::complete(conn, ticket, &body).await).await;
    assert_eq!(completed, Reply::Ok);
}

/// Two chunks, and the last call, which says what is gone and what is in use.
async fn inventory_statements(server: &mut Server, ticket: Uuid, instance: Uuid, names: &[String]) {
    let listed: Vec<_> =
        names.iter().zip(0..).map(|(name, n)| InventoryVolume { selected: n < 500, ..volume(name) }).collect();
    let body = |volumes: &[InventoryVolume], containers: Vec<InventoryContainer>| InventoryBody {
        instance,
        engine: Engine { id: "e".to_owned(), version: "28".to_owned(), data_root: "/d".to_owned() },
        volumes: volumes.to_vec(),
        containers,
        totals: None,
    };
    for chunk in listed.chunks(501) {
        let body = body(chunk, vec![container("c1", "running", &["v100"])]);
        let indexes = ["idx_scan_jobs_ticket", "idx_volumes_volume_id", "idx_containers_container_id"];
        let (listed, _) =
            server.uses("inventory", &indexes, async |conn| store::agent::inventory(conn, ticket, &body).await).await;
        assert_eq!(listed.reply, Reply::Ok);
    }
    let totals = Some(InventoryTotals { volumes: count(names.len()), containers: 1 });
    let body = InventoryBody { totals, ..body(&[], Vec::new()) };
    // Its helpers are close_inventory and keep_origin.
    let indexes =
        ["idx_volumes_node", "idx_containers_node", "container_volumes_container_id_volume_id_mount_path_key"];
    let (closed, plans) =
        server.uses("close", &indexes, async |conn| store::agent::inventory(conn, ticket, &body).await).await;
    assert_eq!(closed.reply, Reply::Ok);
    for helper in ["SET is_active = used.volume_id IS NOT NULL", "SET origin = found.origin"] {
        assert!(plans.contains(helper), "{helper} was not explained:\n{plans}");
    }
}

async fn leaders_statements(server: &mut Server, run: i64) {
    server.uses("open jobs", &["scan_jobs_run_id_node_key"], async |conn| jobs::open(conn, run).await).await;
    server.uses("progress", &["scan_jobs_run_id_node_key"], async |conn| runs::progress(conn, run).await).await;
    let indexes = ["idx_scan_runs_active", "scan_jobs_run_id_node_key"];
    server.uses("active run", &indexes, async |conn| runs::active(conn, "scan-uid").await).await;
    let indexes = ["idx_scan_runs_completed", "scan_jobs_run_id_node_key"];
    server.uses("history of runs", &indexes, async |conn| runs::history(conn, "scan-uid", 5).await).await;
    let one = vec!["n7".to_owned()];
    let view = View { scan_uid: "scan-uid", nodes: &one, unused_after_days: 30 };
    let indexes = ["idx_scan_jobs_node", "idx_scan_results_job_volume"];
    server.uses("totals of a scan", &indexes, async |conn| figures::read(conn, view, 10).await).await;
    notifications_statements(server).await;
    samples_statements(server).await;
    alerts_statements(server).await;
}

/// What an alert judges, on one node of a hundred.
async fn samples_statements(server: &mut Server) {
    let node = |scan: &str| [Selected { scan: scan.to_owned(), node: "n7".to_owned(), unused_after_days: 30 }];
    let (of_scan, of_job) = ("idx_scan_runs_scan", "idx_scan_results_job_volume");
    let one = node("scan-uid");
    let (view, _) = server.uses("jobs of an alert", &[of_scan], async |conn| samples::view(conn, &one).await).await;
    let other = node("other-7");
    server.uses("jobs of a scan without", &[of_scan], async |conn| samples::view(conn, &other).await).await;
    let scans = ["scan-uid".to_owned(), "other-7".to_owned()];
    let indexes = [of_scan, "idx_scan_runs_completed", "scan_jobs_run_id_node_key"];
    server.uses("runs of an alert", &indexes, async |conn| samples::runs(conn, &scans).await).await;
    let age = async |conn: &mut PgConnection| samples::last_completed(conn, &view).await;
    server.uses("ages of results", &["scan_jobs_pkey"], age).await;
    let facts = async |conn: &mut PgConnection| samples::facts(conn, &view).await;
    let (facts, _) = server.uses("what a selector looks at", &[of_job, "volumes_pkey"], facts).await;
    let chosen: Vec<i64> = facts.iter().map(|facts| facts.id).take(500).collect();
    let query = Query { volumes: Some(&chosen), open: &chosen[..100], min_bytes: 1, beyond: 1000, missing: 3 };
    for rule in [
        Rule::SizeAbove { bytes: 1 },
        Rule::PercentOfCapacityAbove { percent: 1 },
        Rule::GrowthAbove { bytes_per_day: 1 },
        Rule::FullWithin { days: 1 },
        Rule::FilesAbove { files: 1 },
        Rule::UnusedLongerThan { days: 1 },
    ] {
        let read = async |conn: &mut PgConnection| samples::of_volumes(conn, &view, rule, query).await;
        let name = format!("volumes by {}", rule.name());
        let indexes = [of_job, "volumes_pkey", "idx_container_volumes_volume"];
        let (read, _) = server.uses(&name, &indexes, read).await;
        assert_eq!(read.unwrap().evaluated, 500, "{name}");
    }
    for rule in [
        Rule::SizeAbove { bytes: 1 },
        Rule::GrowthAbove { bytes_per_day: 1 },
        Rule::FilesAbove { files: 1 },
        Rule::CandidateBytesAbove { bytes: 1 },
    ] {
        let read = async |conn: &mut PgConnection| samples::of_nodes(conn, &view, rule, None, 1).await;
        let name = format!("nodes by {}", rule.name());
        let (_, plans) = server.uses(&name, &[of_job, "volumes_pkey"], read).await;
        let asks = matches!(rule, Rule::CandidateBytesAbove { .. });
        assert_eq!(plans.contains("container_volumes"), asks, "{name}: only candidates are asked for containers");
    }
}

async fn alerts_statements(server: &mut Server) {
    let indexes = ["idx_alerts_open", "volumes_pkey"];
    server.uses("open states of an alert", &indexes, async |conn| alerts::open(conn, "a7").await).await;
    server.uses("alerts with open states", &["idx_alerts_open"], async |conn| alerts::with_open(conn).await).await;
    for (alert, open, index) in [
        (None, None, "alerts_pkey"),
        (None, Some(true), "idx_alerts_open_id"),
        (None, Some(false), "alerts_pkey"),
        (Some("a7"), None, "idx_alerts_name"),
        (Some("a7"), Some(true), "idx_alerts_open_name"),
        (Some("a7"), Some(false), "idx_alerts_name"),
    ] {
        let name = format!("list of alerts {alert:?} {open:?}");
        let list = async |conn: &mut PgConnection| alerts::list(conn, alert, open, i64::MAX, 101).await;
        let (listed, _) = server.uses(&name, &[index], list).await;
        assert!(!listed.is_empty(), "{name}");
    }
}

async fn notifications_statements(server: &mut Server) {
    let (day, open, of_receiver) =
        (std::time::Duration::from_secs(86_400), "idx_alert_notifications_open", "idx_alert_notifications_receiver");
    let due = async |conn: &mut PgConnection| notifications::due(conn, &[], 4, 100, day).await;
    let (heads, plans) = server.uses("notifications that are due", &[open, "alert_notifications_pkey"], due).await;
    assert_eq!(heads.len(), 4, "the share of the one target that all of these lead to");
    let reads = plans.split("->").filter(|node| node.contains("on alert_notifications"));
    let in_vain = reads.filter(|node| node.contains("Rows Removed by Filter")).count();
    assert_eq!(in_vain, 0, "what waits behind a head is read:\n{plans}");
    server.uses("notifications in the queue", &[open], async |conn| notifications::queue(conn).await).await;
    let (uid, names) = ("a7", ["r1", "r2", "r3"]);
    let summary = async |conn: &mut PgConnection| notifications::summary(conn, uid, &names).await;
    server.uses("notifications of an alert", &[of_receiver], summary).await;
    let told = async |conn: &mut PgConnection| notifications::last_told(conn, uid, &names).await;
    server.uses("who was last told", &[of_receiver], told).await;
    let id = Uuid::new_v4();
    let noted = async |conn: &mut PgConnection| notifications::delivered(conn, id).await;
    server.uses("outcome of a notification", &["alert_notifications_notification_id_key"], noted).await;
}

async fn readers_statements(server: &mut Server) {
    let none = VolumeFilter::default;
    for (list, index) in [
        (sorted(VolumeSort::Name, Direction::Asc, none()), "idx_volumes_name"),
        (sorted(VolumeSort::Node, Direction::Desc, none()), "idx_volumes_node"),
        (sorted(VolumeSort::FirstSeen, Direction::Desc, none()), "idx_volumes_first_seen"),
        (sorted(VolumeSort::Size, Direction::Desc, none()), "idx_volume_rankings_biggest"),
        (sorted(VolumeSort::Size, Direction::Asc, none()), "idx_volume_rankings_smallest"),
        (sorted(VolumeSort::Growth, Direction::Desc, none()), "idx_volume_rankings_fastest"),
        (sorted(VolumeSort::Growth, Direction::Asc, none()), "idx_volume_rankings_slowest"),
        (
            sorted(VolumeSort::Name, Direction::Asc, VolumeFilter { labels: Labels::from([("app", "a7")]), ..none() }),
            "idx_volumes_labels",
        ),
    ] {
        let name = format!("list {list:?}");
        let first = volumes::list(&mut server.conn, &list, &Page::first(100)).await.unwrap();
        let Some(next) = first.next else {
            server.uses(&name, &[index], async |conn| volumes::list(conn, &list, &Page::first(100)).await).await;
            continue;
        };
        let second = Page::after(100, list.decode(&next).unwrap());
        server.uses(&name, &[index], async |conn| volumes::list(conn, &list, &second).await).await;
    }
    let indexes = ["idx_volumes_node", "volume_rankings_pkey"];
    server.uses("nodes", &indexes, async |conn| nodes::list(conn, "n5", 10).await).await;
    let to = chrono::Utc::now();
    let range = |resolution| Range { from: to - chrono::Duration::days(3), to, resolution, after: None };
    let raw = range(Resolution::Raw);
    let (history, plans) = server.plans("raw history", async |conn| sizes::history(conn, 77, &raw, 500).await).await;
    let read = read_partitions(&plans, "volume_sizes");
    assert!(!history.points.is_empty() && (1..=4).contains(&read.len()), "of 32 partitions, {read:?}:\n{plans}");
    let daily = range(Resolution::Daily);
    let (history, plans) =
        server.plans("daily history", async |conn| sizes::history(conn, 77, &daily, 500).await).await;
    let read = read_partitions(&plans, "volume_sizes_daily");
    assert!(!history.points.is_empty() && (1..=2).contains(&read.len()), "of 9 partitions, {read:?}:\n{plans}");
}
