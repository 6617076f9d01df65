//! Keeps the database's schema, partitions and retention in order: the only long-running process with the owner's credential.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::config::database::DatabaseArgs;
use crate::http::{self, Check};
use crate::migrate;

/// Partitions are made this far ahead: maintenance may be away for two weeks.
const DAYS_AHEAD: i32 = 14;
const PERIOD: Duration = Duration::from_secs(3600);
const FIRST_RETRY: Duration = Duration::from_secs(2);
const MAX_RETRY: Duration = Duration::from_secs(10);

/// Runs of each scan that stay.
const RUNS_KEPT: i32 = 50;
/// Rows deleted at a time: a transaction stays short, and vacuum keeps up.
const PURGE_BATCH: i32 = 200;

/// Options of `volumeviz maintain`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "VOLUMEVIZ_LISTEN", default_value = "0.0.0.0:8082", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Days for which every measured size is kept
    #[arg(long, env = "VOLUMEVIZ_RAW_RETENTION_DAYS", default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(i32).range(1..=36_500))]
    pub raw_retention_days: i32,
    /// Days for which daily minimum, maximum and last size are kept
    #[arg(long, env = "VOLUMEVIZ_DAILY_RETENTION_DAYS", default_value_t = 730, value_name = "DAYS", value_parser = clap::value_parser!(i32).range(1..=36_500))]
    pub daily_retention_days: i32,
    /// The database, in the name of a member of volumeviz_owner
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// One round of maintenance failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The schema could not be brought up to date.
    #[error(transparent)]
    Migrate(#[from] migrate::Error),
    /// Partitions could not be made.
    #[error("unable to make partitions: {0}")]
    MakePartitions(#[source] sqlx::Error),
    /// Expired partitions could not be told.
    #[error("unable to look for expired partitions: {0}")]
    Expired(#[source] sqlx::Error),
    /// A partition could not be dropped.
    #[error("unable to drop partition {name}: {source}")]
    Drop {
        /// The partition.
        name: String,
        /// Why.
        source: sqlx::Error,
    },
    /// Nodes could not be retired.
    #[error("unable to retire nodes that left: {0}")]
    Retire(#[source] sqlx::Error),
    /// Rows could not be deleted.
    #[error("unable to delete rows past their retention: {0}")]
    Purge(#[source] sqlx::Error),
    /// Figures could not be recorded.
    #[error("unable to record the database's figures: {0}")]
    Record(#[source] sqlx::Error),
}

/// Maintains until `stop`.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), http::Error> {
    let problem: Arc<Mutex<Option<String>>> = Arc::new(Mutex::new(Some("the first round is not over".to_owned())));
    let listener = http::listen(args.listen).await?;
    let serving = http::serve(listener, http::router(checks(Arc::clone(&problem)), Arc::new(Registry::default())));
    tokio::select! {
        served = serving => served,
        never = maintain(&args, &problem) => match never {},
        () = stop.cancelled() => Ok(()),
    }
}

fn checks(problem: Arc<Mutex<Option<String>>>) -> http::Checks {
    Arc::new(move || {
        let problem = problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        vec![Check { name: "maintenance", problem, required: false }]
    })
}

async fn maintain(args: &Args, problem: &Mutex<Option<String>>) -> std::convert::Infallible {
    let mut retry = FIRST_RETRY;
    loop {
        let outcome = round(args).await.err().map(|error| error.to_string());
        tell(problem, outcome.as_ref());
        let wait = if outcome.is_some() { retry } else { PERIOD };
        retry = if outcome.is_some() { (retry * 2).min(MAX_RETRY) } else { FIRST_RETRY };
        tokio::time::sleep(wait).await;
    }
}

/// Logs what is new.
fn tell(problem: &Mutex<Option<String>>, outcome: Option<&String>) {
    let mut told = problem.lock().unwrap_or_else(PoisonError::into_inner);
    if told.as_ref() == outcome {
        return;
    }
    if let Some(message) = outcome {
        tracing::warn!("maintenance failed, trying again: {message}");
    } else {
        tracing::info!("the database is in order");
    }
    *told = outcome.cloned();
}

/// One round, on a connection of its own that is closed with it.
pub async fn round(args: &Args) -> Result<(), Error> {
    let mut conn = migrate::connect(&args.database).await?;
    let applied = migrate::up(&mut conn).await?;
    if applied > 0 {
        tracing::info!(migrations = applied, "migrated the schema");
    }
    let made: i32 = sqlx::query_scalar("SELECT maintain.make_partitions($1)")
        .bind(DAYS_AHEAD)
        .fetch_one(&mut conn)
        .await
        .map_err(Error::MakePartitions)?;
    if made > 0 {
        tracing::info!(partitions = made, "made partitions");
    }
    while let Some(name) = expired(&mut conn, args).await.map_err(Error::Expired)? {
        drop_partition(&mut conn, &name).await.map_err(|source| Error::Drop { name: name.clone(), source })?;
        tracing::info!(partition = name, "dropped a partition past its retention");
    }
    clear(&mut conn, args).await?;
    sqlx::query("SELECT maintain.record_metrics()").execute(&mut conn).await.map(|_| ()).map_err(Error::Record)
}

/// What is past its retention in the tables without partitions.
async fn clear(conn: &mut PgConnection, args: &Args) -> Result<(), Error> {
    let retired: i32 = sqlx::query_scalar("SELECT maintain.retire_nodes($1)")
        .bind(args.raw_retention_days)
        .fetch_one(&mut *conn)
        .await
        .map_err(Error::Retire)?;
    if retired > 0 {
        tracing::info!(nodes = retired, "retired nodes that have not been seen for long");
    }
    loop {
        let deleted: i64 = sqlx::query_scalar("SELECT maintain.purge($1, $2, $3, $4)")
            .bind(args.raw_retention_days)
            .bind(args.daily_retention_days)
            .bind(RUNS_KEPT)
            .bind(PURGE_BATCH)
            .fetch_one(&mut *conn)
            .await
            .map_err(Error::Purge)?;
        if deleted == 0 {
            return Ok(());
        }
        tracing::info!(rows = deleted, "deleted rows past their retention");
    }
}

async fn expired(conn: &mut PgConnection, args: &Args) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT maintain.expired_partition($1, $2)")
        .bind(args.raw_retention_days)
        .bind(args.daily_retention_days)
        .fetch_one(conn)
        .await
}

/// Waits for its lock for 2 s at most: every writer would wait behind it.
async fn drop_partition(conn: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let mut transaction = sqlx::Connection::begin(conn).await?;
    sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *transaction).await?;
    sqlx::query("SELECT maintain.drop_partition($1)").bind(name).execute(&mut *transaction).await?;
    transaction.commit().await
}
