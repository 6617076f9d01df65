//! All SQL of the product: a file a table, functions named by intent that take a connection, so that everything composes in a transaction.
//!
//! [`Store::run`] is the only way to a connection. It bounds every operation in time, and drops a connection that may be broken instead of
//! giving it back: sqlx would wait for it without bound (transact-rs/sqlx#4349).

pub mod agent;
pub mod alerts;
pub mod audit;
pub mod containers;
pub mod contents;
mod error;
pub mod figures;
pub mod filter;
pub mod health;
pub mod installation;
pub mod jobs;
mod labels;
mod metrics;
pub mod nodes;
pub mod notifications;
pub mod page;
pub mod results;
pub mod runs;
pub mod samples;
pub mod sizes;
pub mod system_metrics;
pub mod volumes;

use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool, Postgres};
use tokio::time::{Instant, timeout_at};

pub use self::error::{Error, Kind};
pub use self::labels::Labels;
pub use self::metrics::PoolFigures;
use self::metrics::PoolMetrics;
use crate::config::database::{DatabaseArgs, Pooler, Role};

const AGENT_CONNECTIONS: u32 = 2;
/// Long enough that an agent's burst of reports shares a connection, short enough that it has none at rest.
const AGENT_IDLE: Duration = Duration::from_secs(15);

/// The way to the database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Arc<PgPool>,
    args: Arc<DatabaseArgs>,
    metrics: PoolMetrics,
}

/// A connection that is dropped, not given back, unless it is known to be well.
struct Borrowed(Option<PoolConnection<Postgres>>);

impl Borrowed {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

impl Store {
    /// A store that connects when it is used first; fails only when the settings cannot be used.
    pub fn connect_lazy(args: &DatabaseArgs, role: Role) -> Result<Self, Error> {
        let options = args.connect_options().map_err(|error| Error { operation: "connect", kind: error.into() });
        // A password file that is missing now may be there later: it is read again when the login is refused.
        let options = match options {
            Ok(options) => options,
            Err(error) => {
                tracing::warn!("{error}");
                DatabaseArgs { password_file: None, ..args.clone() }
                    .connect_options()
                    .map_err(|error| Error { operation: "connect", kind: error.into() })?
            }
        };
        let (most, idle, idle_time) = match role {
            Role::Agent => (AGENT_CONNECTIONS, AGENT_CONNECTIONS, AGENT_IDLE.min(args.conn_max_idle_time)),
            Role::Owner | Role::Controller => (args.max_open_conns, args.max_idle_conns, args.conn_max_idle_time),
        };
        // The pool owns this hook: by a strong reference it would keep itself alive, with its connections, when the store is dropped.
        let pool = Arc::new_cyclic(|this: &Weak<PgPool>| {
            let this = Weak::clone(this);
            PgPoolOptions::new()
                .max_connections(most)
                .max_lifetime(args.conn_max_lifetime)
                .idle_timeout(idle_time)
                .after_release(move |_, _| {
                    let enough = this.upgrade().is_none_or(|pool| pool.num_idle() >= idle as usize);
                    Box::pin(async move { Ok(!enough) })
                })
                .connect_lazy_with(options)
        });
        Ok(Self { pool, args: Arc::new(args.clone()), metrics: PoolMetrics::default() })
    }

    /// Runs an operation on a connection of the pool, within `deadline` in all.
    pub async fn run<T>(
        &self,
        operation: &'static str,
        deadline: Duration,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, Error> {
        self.run_in(None, operation, deadline, act).await
    }

    /// The same for an operation that only reads: all its statements see the database as of the first one. None is compiled by the server, which
    /// does so for what it takes to be long: for seconds, to save milliseconds.
    pub async fn snapshot<T>(
        &self,
        operation: &'static str,
        deadline: Duration,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, Error> {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL jit = off";
        self.run_in(Some(BEGIN), operation, deadline, act).await
    }

    async fn run_in<T>(
        &self,
        begin: Option<&'static str>,
        operation: &'static str,
        deadline: Duration,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, Error> {
        let until = Instant::now() + deadline;
        let mut borrowed = self.borrow(operation, until, deadline).await?;
        let late = |_| Error { operation, kind: Kind::Timeout(deadline) };
        let Some(conn) = borrowed.0.as_deref_mut() else { return Err(Error::new(operation, sqlx::Error::PoolClosed)) };
        let done = timeout_at(until, self.act(begin, conn, act)).await.map_err(late)?;
        match done {
            Ok(value) => {
                borrowed.give_back();
                Ok(value)
            }
            Err(error) => {
                let error = Error::new(operation, error);
                if !error.poisons_connection() {
                    borrowed.give_back();
                }
                Err(error)
            }
        }
    }

    async fn borrow(&self, operation: &'static str, until: Instant, deadline: Duration) -> Result<Borrowed, Error> {
        let asked = Instant::now();
        let acquired = timeout_at(until, self.pool.acquire()).await;
        self.metrics.waited(asked.elapsed(), acquired.is_ok());
        let acquired = acquired.map_err(|_| Error { operation, kind: Kind::ConnectTimeout(deadline) })?;
        acquired.map(|conn| Borrowed(Some(conn))).map_err(|error| self.refused(Error::new(operation, error)))
    }

    /// Acts in a transaction that begins as `begin` says. Behind a transaction pooler everything happens in one, and the statements prepared in
    /// it are closed with it: the next transaction may find itself on another server connection, and this one serve somebody whose statements
    /// have the same names.
    async fn act<T>(
        &self,
        begin: Option<&'static str>,
        conn: &mut PgConnection,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let pooled = self.args.pooler == Pooler::Transaction;
        let mut transaction = match begin {
            Some(begin) => conn.begin_with(begin).await?,
            None if pooled => conn.begin().await?,
            None => return act(conn).await,
        };
        let outcome = act(&mut transaction).await;
        if pooled {
            transaction.clear_cached_statements().await?;
        }
        match outcome {
            Ok(value) => transaction.commit().await.map(|()| value),
            Err(error) => transaction.rollback().await.and(Err(error)),
        }
    }

    /// The same in one transaction, rolled back when the operation fails.
    pub async fn transaction<T>(
        &self,
        operation: &'static str,
        deadline: Duration,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, Error> {
        self.run(operation, deadline, async |conn| {
            let mut transaction = conn.begin().await?;
            let value = act(&mut transaction).await?;
            transaction.commit().await?;
            Ok(value)
        })
        .await
    }

    /// Runs an operation on a connection outside the pool that is kept in `slot` from call to call, so that a pool in full use does not
    /// look like a database that is away.
    pub async fn run_apart<T>(
        &self,
        slot: &mut Option<PgConnection>,
        operation: &'static str,
        deadline: Duration,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, Error> {
        let until = Instant::now() + deadline;
        let late = |_| Error { operation, kind: Kind::Timeout(deadline) };
        let not_connected = |_| Error { operation, kind: Kind::ConnectTimeout(deadline) };
        let mut conn = if let Some(conn) = slot.take() {
            conn
        } else {
            let options = self.args.connect_options().map_err(|error| Error { operation, kind: error.into() })?;
            let connected = timeout_at(until, PgConnection::connect_with(&options)).await;
            let connected = connected.map_err(not_connected)?;
            // What was read for this connection serves the pool's next ones as well.
            self.pool.set_connect_options(options);
            connected.map_err(|error| Error::new(operation, error))?
        };
        let value = timeout_at(until, self.act(None, &mut conn, act))
            .await
            .map_err(late)?
            .map_err(|error| Error::new(operation, error))?;
        *slot = Some(conn);
        Ok(value)
    }

    /// A refused login may mean that the password file was changed: the next connection reads it again.
    fn refused(&self, error: Error) -> Error {
        if matches!(error.kind, Kind::AuthFailed(_))
            && let Ok(options) = self.args.connect_options()
        {
            self.pool.set_connect_options(options);
        }
        error
    }

    /// How many connections the pool may have.
    pub fn most_connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// The pool as it is now.
    pub fn pool_figures(&self) -> PoolFigures {
        PoolFigures::of(&self.pool)
    }

    /// Adds the pool's figures to `/metrics`, unless `DB_ENABLE_METRICS` is false.
    pub fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        if self.args.enable_metrics {
            self.metrics.register(registry, Arc::clone(&self.pool));
        }
    }
}
