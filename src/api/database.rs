//! `/api/v1/database`: health, migrations and sizes.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Api;
use super::problem::Problem;
use crate::migrate::{self, Migration};
use crate::store::system_metrics;

/// Whether the database can be used.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    /// How long the database took to answer, in milliseconds; absent when it did not.
    latency_ms: Option<f64>,
    /// This replica's pool.
    connections: Connections,
    /// Why it is unhealthy, as in the condition `DatabaseReady`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Connections of this replica's pool.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Connections {
    /// All of them.
    open: u32,
    /// Those that something uses.
    in_use: u32,
    /// Those that nothing uses.
    idle: u32,
}

/// The schema's version.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[expect(clippy::struct_field_names, reason = "the names of the API")]
pub(super) struct Migrations {
    /// Number of the last applied migration; 0 when there is none.
    current_version: i64,
    /// Those that are applied, oldest first.
    applied_migrations: Vec<AppliedMigration>,
    /// Those that this version has and the database has not.
    pending_migrations: Vec<PendingMigration>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct AppliedMigration {
    version: i64,
    name: String,
    applied_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct PendingMigration {
    version: i64,
    name: String,
}

/// How big the database is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Stats {
    /// Our tables by name; partitions are summed up.
    tables: BTreeMap<String, Table>,
    /// The whole database, for people.
    total_size: String,
    /// The indexes of our tables, for people.
    index_size: String,
    /// The whole database, in bytes.
    total_bytes: i64,
    /// The indexes of our tables, in bytes.
    index_bytes: i64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Table {
    /// Rows: counted in a small table, else as estimated by the server's statistics.
    count: i64,
    /// With its indexes, for people.
    size: String,
    /// With its indexes, in bytes.
    bytes: i64,
    /// Partitions; 0 for a plain table.
    partitions: i32,
}

/// Whether the database can be used now.
#[utoipa::path(get, path = "/api/v1/database/health", tag = "database",
    responses((status = 200, body = Health), (status = 503, body = Health), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn health(State(api): State<Api>) -> Result<(StatusCode, Json<Health>), Problem> {
    let started = Instant::now();
    let answered =
        api.read("ask the database", async |conn| sqlx::query("SELECT 1").execute(conn).await.map(|_| ())).await;
    let latency_ms = answered.is_ok().then(|| started.elapsed().as_secs_f64() * 1000.0);
    let problem = match answered {
        Ok(()) => (api.problem)(),
        // That this replica is busy says nothing of the database.
        Err(problem) if problem.is_too_many() => return Err(problem),
        Err(problem) => Some((problem.reason(), problem.into_detail())),
    };
    let figures = api.store.pool_figures();
    let connections = Connections { open: figures.open, in_use: figures.in_use, idle: figures.idle };
    let (status, code) = match problem {
        None => ("healthy", StatusCode::OK),
        Some(_) => ("unhealthy", StatusCode::SERVICE_UNAVAILABLE),
    };
    let (reason, message) = problem.unzip();
    Ok((code, Json(Health { status, latency_ms, connections, reason, message })))
}

/// Which migrations are applied.
#[utoipa::path(get, path = "/api/v1/database/migrations", tag = "database",
    responses((status = 200, body = Migrations), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn migrations(State(api): State<Api>) -> Result<Json<Migrations>, Problem> {
    let listed = api.read("list migrations", async |conn| migrate::list(conn).await).await?;
    let mut applied_migrations = Vec::new();
    let mut pending_migrations = Vec::new();
    for Migration { version, name, applied_at } in listed {
        match applied_at {
            Some(applied_at) => applied_migrations.push(AppliedMigration { version, name, applied_at }),
            None => pending_migrations.push(PendingMigration { version, name }),
        }
    }
    let current_version = applied_migrations.last().map_or(0, |last| last.version);
    Ok(Json(Migrations { current_version, applied_migrations, pending_migrations }))
}

/// How big the database and its tables are.
#[utoipa::path(get, path = "/api/v1/database/stats", tag = "database",
    responses((status = 200, body = Stats), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn stats(State(api): State<Api>) -> Result<Json<Stats>, Problem> {
    let read = api.read("read the database's sizes", async |conn| {
        Ok((system_metrics::tables(conn).await?, system_metrics::database(conn).await?))
    });
    let (tables, database) = read.await?;
    let tables = tables.into_iter().map(|table| {
        let figures =
            Table { count: table.rows, size: table.total_size, bytes: table.total_bytes, partitions: table.partitions };
        (table.name, figures)
    });
    Ok(Json(Stats {
        tables: tables.collect(),
        total_size: database.total_size,
        index_size: database.index_size,
        total_bytes: database.total_bytes,
        index_bytes: database.index_bytes,
    }))
}
