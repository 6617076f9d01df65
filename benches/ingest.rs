//! How fast results are stored: `agent_v1.report` in batches, beside plain inserts and COPY into `scan_results` alone. Run by
//! `tests/with-postgres cargo bench --bench ingest`.
//!
//! The three do not do the same: `report` also locks the job, and keeps sizes, days, growth, the latest and the order of lists. The plain ways
//! show what the server takes at most.

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

use std::fmt::Write;
use std::time::{Duration, Instant};

use database::Database;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;
use volumeviz::domain::contract::{ClaimBody, ClaimReply, Progress, Reply, ReportBody};
use volumeviz::domain::measurement::{Completeness, Figures, Method, VolumeResult};
use volumeviz::domain::work::WorkOrder;
use volumeviz::store::{agent, jobs, runs};

const VOLUMES: usize = 5000;
const ROUNDS: usize = 5;

fn result(n: usize, round: usize) -> VolumeResult {
    let bytes = (n * 4096 + if n.is_multiple_of(20) { round * 8192 } else { 0 }) as u64;
    VolumeResult {
        completeness: Completeness::Complete,
        reason: None,
        method: Some(Method::Walk),
        figures: Some(Figures { allocated_bytes: bytes, apparent_bytes: Some(bytes), files: 10, directories: Some(2) }),
        duration_ms: 3,
        ..VolumeResult::unknown(format!("v{n}"), volumeviz::domain::measurement::VolumeReason::Vanished)
    }
}

/// A new run of node n1, claimed: its ticket, the agent's instance, the job.
async fn claimed(database: &Database) -> (Uuid, Uuid, i64) {
    let key = Uuid::new_v4().to_string();
    let run = runs::NewRun {
        scan_uid: "bench".to_owned(),
        scan_name: "bench".to_owned(),
        key,
        work: serde_json::from_value::<WorkOrder>(json!({})).unwrap(),
        nodes: vec![("n1".to_owned(), "u1".to_owned())],
    };
    let mut controller = database.controller().await;
    let run = runs::plan(&mut controller, &run).await.unwrap().id;
    let open = jobs::open(&mut controller, run).await.unwrap();
    let instance = Uuid::new_v4();
    let body = ClaimBody {
        instance,
        agent_version: "bench".to_owned(),
        node_name: "n1".to_owned(),
        node_uid: "u1".to_owned(),
    };
    let reply = agent::claim(&mut *database.agent().await, open[0].ticket, &body).await.unwrap();
    assert!(matches!(reply, ClaimReply::Claimed(_)));
    (open[0].ticket, instance, open[0].id)
}

/// Results a second through `report`.
async fn report(database: &Database, round: usize, count: usize, batch: usize) -> f64 {
    let (ticket, instance, _) = claimed(database).await;
    let results: Vec<_> = (0..count).map(|n| result(n, round)).collect();
    let mut conn = database.agent().await;
    let started = Instant::now();
    for chunk in results.chunks(batch) {
        let body = ReportBody { instance, results: chunk.to_vec(), progress: Progress::default() };
        assert_eq!(agent::report(&mut conn, ticket, &body).await.unwrap(), Reply::Ok);
    }
    rate(count, started.elapsed())
}

/// Results a second by one INSERT each, a transaction each.
async fn insert(database: &Database, volumes: &[i64], count: usize) -> f64 {
    let (_, _, job) = claimed(database).await;
    let mut conn = database.superuser().await;
    let started = Instant::now();
    for volume in &volumes[..count] {
        sqlx::query(
            "INSERT INTO scan_results (scan_job_id, volume_id, measured_at, completeness, method, allocated_bytes, apparent_bytes, files, directories)
             VALUES ($1, $2, clock_timestamp(), 'Complete', 'Walk', $3, $3, 10, 2)",
        )
        .bind(job)
        .bind(volume)
        .bind(volume * 4096)
        .execute(&mut **conn)
        .await
        .unwrap();
    }
    rate(count, started.elapsed())
}

/// Results a second by one COPY of all.
async fn copy(database: &Database, volumes: &[i64]) -> f64 {
    let (_, _, job) = claimed(database).await;
    let mut conn = database.superuser().await;
    let mut rows = String::new();
    for volume in volumes {
        writeln!(rows, "{job},{volume},2026-01-01,Complete,Walk,{0},{0},10,2", volume * 4096).unwrap();
    }
    let started = Instant::now();
    let into = "COPY scan_results (scan_job_id, volume_id, measured_at, completeness, method, allocated_bytes, apparent_bytes, files, directories)
        FROM STDIN (FORMAT csv)";
    let conn: &mut PgConnection = &mut conn;
    let mut stream = conn.copy_in_raw(into).await.unwrap();
    stream.send(rows.into_bytes()).await.unwrap();
    stream.finish().await.unwrap();
    rate(volumes.len(), started.elapsed())
}

fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let database = Database::new().await;
    let mut superuser = database.superuser().await;
    let fill = "INSERT INTO volumes (volume_id, node, name) SELECT 'n1/v' || n, 'n1', 'v' || n FROM generate_series(0, $1 - 1) AS n";
    sqlx::query(fill).bind(i32::try_from(VOLUMES).unwrap()).execute(&mut **superuser).await.unwrap();
    let volumes: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM volumes ORDER BY id").fetch_all(&mut **superuser).await.unwrap();
    let mut ways: Vec<(&str, Vec<f64>)> =
        ["report, 1 a batch", "report, 100 a batch", "report, 500 a batch", "INSERT, one each", "COPY, all at once"]
            .map(|name| (name, Vec::new()))
            .into();
    for round in 0..ROUNDS {
        ways[0].1.push(report(&database, round, 500, 1).await);
        ways[1].1.push(report(&database, round, VOLUMES, 100).await);
        ways[2].1.push(report(&database, round, VOLUMES, 500).await);
        ways[3].1.push(insert(&database, &volumes, 1000).await);
        ways[4].1.push(copy(&database, &volumes).await);
    }
    let rates: Vec<(&str, f64)> = ways.into_iter().map(|(name, rates)| (name, median(rates))).collect();
    let single = rates[3].1;
    println!("| way | results/s (median of {ROUNDS}) | beside single INSERTs |\n|---|---|---|");
    for (name, rate) in rates {
        println!("| {name} | {rate:.0} | {:.2} × |", rate / single);
    }
    println!("\n| table | rows | bytes a row, with indexes |\n|---|---|---|");
    database::execute(&mut superuser, "ANALYZE".to_owned()).await;
    for (table, sql) in [
        ("scan_results", "SELECT count(*), pg_total_relation_size('scan_results') FROM scan_results"),
        (
            "volume_sizes",
            "SELECT count(*), (SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'volume_sizes'::regclass) FROM volume_sizes",
        ),
        (
            "volume_sizes_daily",
            "SELECT count(*), (SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'volume_sizes_daily'::regclass) FROM volume_sizes_daily",
        ),
    ] {
        let (rows, bytes): (i64, i64) = sqlx::query_as(sql).fetch_one(&mut **superuser).await.unwrap();
        println!("| {table} | {rows} | {} |", bytes / rows);
    }
}
