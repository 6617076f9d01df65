//! Keeps the database's schema, partitions and retention in order: the only long-running process with the owner's credential.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
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
/// While somebody holds a table for long: at each try every writer waits behind us.
const MAX_LOCK_RETRY: Duration = Duration::from_secs(300);

/// Second half of the key of the lock under which a round works. Not the migrations', which tells everybody that the schema is being changed.
pub const LOCK_OBJECT: i32 = 2;

/// Runs of each scan that stay, unless it says otherwise itself.
const RUNS_KEPT: i32 = 50;
/// Rows deleted at a time: a transaction stays short, and vacuum keeps up.
const PURGE_BATCH: i32 = 200;
/// Runs deleted at a time: each takes up to a million results along.
const PURGE_RUNS: i32 = 2;

/// Options of `volumeviz maintain`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "VOLUMEVIZ_LISTEN", default_value = "[::]:8082", value_name = "ADDRESS")]
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
    /// Whether another process maintains could not be asked.
    #[error("unable to lock maintenance: {0}")]
    Lock(#[source] sqlx::Error),
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

/// What maintenance tells in `/metrics`.
#[derive(Debug, Clone)]
pub struct Metrics {
    last_success: Gauge,
}

impl Metrics {
    /// Makes the metrics and registers them under the prefix `volumeviz_maintenance`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { last_success: Gauge::default() };
        registry.sub_registry_with_prefix("volumeviz_maintenance").register(
            "last_success_timestamp_seconds",
            "When this process last maintained the database and nothing failed; 0 when it has not yet",
            metrics.last_success.clone(),
        );
        metrics
    }

    /// A round that left the work to another process is no success: that one may hang.
    fn round_ended(&self, outcome: &Result<bool, Error>) {
        if matches!(outcome, Ok(true)) {
            self.last_success.set(chrono::Utc::now().timestamp());
        }
    }
}

/// Maintains until `stop`.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), http::Error> {
    let problem: Arc<Mutex<Option<String>>> = Arc::new(Mutex::new(Some("the first round is not over".to_owned())));
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let listener = http::listen(args.listen).await?;
    let serving = http::serve(listener, http::router(checks(Arc::clone(&problem)), Arc::new(registry)));
    tokio::select! {
        served = serving => served,
        never = maintain(&args, &problem, &metrics) => match never {},
        () = stop.cancelled() => Ok(()),
    }
}

fn checks(problem: Arc<Mutex<Option<String>>>) -> http::Checks {
    Arc::new(move || {
        let problem = problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        vec![Check { name: "maintenance", problem, required: false }]
    })
}

async fn maintain(args: &Args, problem: &Mutex<Option<String>>, metrics: &Metrics) -> std::convert::Infallible {
    let mut retry = FIRST_RETRY;
    loop {
        let outcome = round(args).await;
        metrics.round_ended(&outcome);
        let outcome = outcome.err();
        tell(problem, outcome.as_ref().map(Error::to_string).as_ref());
        let wait = if outcome.is_some() { retry } else { PERIOD };
        retry = outcome.as_ref().map_or(FIRST_RETRY, |error| next_retry(retry, error.is_lock_timeout()));
        tokio::time::sleep(wait).await;
    }
}

fn next_retry(retry: Duration, lock_timeout: bool) -> Duration {
    (retry * 2).min(if lock_timeout { MAX_LOCK_RETRY } else { MAX_RETRY })
}

impl Error {
    /// Whether somebody else held a table for longer than we wait.
    fn is_lock_timeout(&self) -> bool {
        match self {
            Self::Migrate(_) => false,
            Self::Lock(source)
            | Self::MakePartitions(source)
            | Self::Expired(source)
            | Self::Drop { source, .. }
            | Self::Retire(source)
            | Self::Purge(source)
            | Self::Record(source) => is_lock_timeout(source),
        }
    }
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55P03")
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

/// One round: migrates, then maintains unless another process does. What fails keeps nothing else from being done; the first failure is returned,
/// else whether this process maintained.
pub async fn round(args: &Args) -> Result<bool, Error> {
    migrate(args).await?;
    // Closed with the round, and with it the lock is gone.
    let mut conn = migrate::connect(&args.database).await?;
    if !lock(&mut conn).await.map_err(Error::Lock)? {
        tracing::debug!("another process maintains the database");
        return Ok(false);
    }
    let steps = [
        make_partitions(&mut conn).await,
        drop_partitions(&mut conn, args).await,
        retire_nodes(&mut conn, args).await,
        purge(&mut conn, args).await,
        record_metrics(&mut conn).await,
    ];
    steps.into_iter().collect::<Result<(), Error>>().map(|()| true)
}

async fn migrate(args: &Args) -> Result<(), Error> {
    let mut conn = migrate::connect_to_migrate(&args.database).await?;
    let applied = migrate::up(&mut conn).await?;
    if applied > 0 {
        tracing::info!(migrations = applied, "migrated the schema");
    }
    Ok(())
}

/// `false`: another process has it.
async fn lock(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
        .bind(migrate::LOCK_CLASS)
        .bind(LOCK_OBJECT)
        .fetch_one(conn)
        .await
}

async fn make_partitions(conn: &mut PgConnection) -> Result<(), Error> {
    let mut made = 0;
    while make_partition(conn).await.map_err(Error::MakePartitions)? {
        made += 1;
    }
    if made > 0 {
        tracing::info!(partitions = made, "made partitions");
    }
    Ok(())
}

/// Makes one that is missing, so that no lock is kept for the next; `false` when none is.
async fn make_partition(conn: &mut PgConnection) -> sqlx::Result<bool> {
    let mut transaction = begin_briefly(conn).await?;
    let made: i32 = sqlx::query_scalar("SELECT maintain.make_partitions($1, 1)")
        .bind(DAYS_AHEAD)
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(made > 0)
}

async fn drop_partitions(conn: &mut PgConnection, args: &Args) -> Result<(), Error> {
    let expired: Vec<String> = sqlx::query_scalar("SELECT maintain.expired_partitions($1, $2)")
        .bind(args.raw_retention_days)
        .bind(args.daily_retention_days)
        .fetch_all(&mut *conn)
        .await
        .map_err(Error::Expired)?;
    let mut outcome = Ok(());
    for name in expired {
        match drop_partition(conn, &name).await {
            Ok(()) => tracing::info!(partition = name, "dropped a partition past its retention"),
            Err(source) => {
                // Who holds this one holds the others as well.
                let held = is_lock_timeout(&source);
                outcome = outcome.and(Err(Error::Drop { name, source }));
                if held {
                    break;
                }
            }
        }
    }
    outcome
}

async fn drop_partition(conn: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let mut transaction = begin_briefly(conn).await?;
    sqlx::query("SELECT maintain.drop_partition($1)").bind(name).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// A transaction that waits for a lock for 2 s at most: every writer would wait behind it.
async fn begin_briefly(conn: &mut PgConnection) -> sqlx::Result<sqlx::Transaction<'_, sqlx::Postgres>> {
    let mut transaction = sqlx::Connection::begin(conn).await?;
    sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *transaction).await?;
    Ok(transaction)
}

async fn retire_nodes(conn: &mut PgConnection, args: &Args) -> Result<(), Error> {
    let retired: i32 = sqlx::query_scalar("SELECT maintain.retire_nodes($1)")
        .bind(args.raw_retention_days)
        .fetch_one(conn)
        .await
        .map_err(Error::Retire)?;
    if retired > 0 {
        tracing::info!(nodes = retired, "retired nodes that have not been seen for long");
    }
    Ok(())
}

/// Deletes what is past its retention in the tables without partitions.
async fn purge(conn: &mut PgConnection, args: &Args) -> Result<(), Error> {
    loop {
        let deleted: i64 = sqlx::query_scalar("SELECT maintain.purge($1, $2, $3, $4, $5)")
            .bind(args.raw_retention_days)
            .bind(args.daily_retention_days)
            .bind(RUNS_KEPT)
            .bind(PURGE_RUNS)
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

async fn record_metrics(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query("SELECT maintain.record_metrics()").execute(conn).await.map(|_| ()).map_err(Error::Record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_is_told_by_the_process_that_had_it() {
        let metrics = Metrics::register(&mut Registry::default());
        for outcome in [Ok(false), Err(Error::Purge(sqlx::Error::PoolTimedOut))] {
            metrics.round_ended(&outcome);
            assert_eq!(metrics.last_success.get(), 0, "{outcome:?}");
        }
        metrics.round_ended(&Ok(true));
        assert!((chrono::Utc::now().timestamp() - metrics.last_success.get()).abs() < 60);
    }

    #[test]
    fn a_table_that_is_held_for_long_is_tried_for_less_and_less_often() {
        let after = |tries: usize, lock_timeout| {
            std::iter::successors(Some(FIRST_RETRY), |retry| Some(next_retry(*retry, lock_timeout))).nth(tries)
        };
        assert_eq!((after(9, false), after(9, true)), (Some(MAX_RETRY), Some(MAX_LOCK_RETRY)));
        assert_eq!(after(1, true), Some(FIRST_RETRY * 2));
    }
}
