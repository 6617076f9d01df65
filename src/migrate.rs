//! Brings the database's schema to the version this binary needs, and tells which it has.
//!
//! Works on a connection of its own, as the group `volumeviz_owner`, under a lock that is polled: sqlx's own lock stays behind on a
//! connection when a migration fails.

use std::time::Duration;

use clap::Subcommand;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use crate::config::database::DatabaseArgs;
use crate::config::database::PasswordFile;

/// The migration that this version cannot do without.
pub const REQUIRED_VERSION: i64 = 6;
/// First half of the advisory lock's key ("volu").
pub const LOCK_CLASS: i32 = 0x766f_6c75;
/// Second half of the advisory lock's key.
pub const LOCK_OBJECT: i32 = 1;

/// The embedded migrations. A database that a later version migrated further is fine: migrations only ever add what the previous version
/// can live with.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.set_locking(false).set_ignore_missing(true);
    migrator
}

const LOCK_PATIENCE: Duration = Duration::from_secs(120);
const LOCK_POLL: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of `volumeviz migrate`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Apply every migration that is not applied
    Up {
        /// The database, in the name of a member of volumeviz_owner
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// List migrations and when they were applied; exit code 1 when some are not
    Status {
        /// The database, in the name of a member of volumeviz_owner
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

/// The schema could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No settings to connect with.
    #[error(transparent)]
    PasswordFile(#[from] PasswordFile),
    /// No connection.
    #[error("failed to connect to the database: {0}")]
    Connect(#[source] sqlx::Error),
    /// No connection in time.
    #[error("failed to connect to the database within {CONNECT_TIMEOUT:?}")]
    ConnectTimeout,
    /// The group is missing, or the user is no member.
    #[error(
        "failed to act as volumeviz_owner: {source}; run deploy/bootstrap.sql, or: CREATE ROLE volumeviz_owner NOLOGIN; GRANT volumeviz_owner TO {user};"
    )]
    Owner {
        /// Who connected.
        user: String,
        /// Why.
        source: sqlx::Error,
    },
    /// Another process holds the lock.
    #[error("failed to lock the schema within {LOCK_PATIENCE:?}: another process is changing it")]
    Locked,
    /// The lock could not be asked for.
    #[error("failed to lock the schema: {0}")]
    Lock(#[source] sqlx::Error),
    /// A migration failed; it left nothing behind.
    #[error("failed to migrate: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The list of migrations could not be read.
    #[error("failed to read which migrations are applied: {0}")]
    Read(#[source] sqlx::Error),
    /// `status` found migrations that are not applied.
    #[error("{0} migrations are not applied; apply them with `volumeviz migrate up`")]
    Pending(usize),
}

/// Runs `volumeviz migrate`.
pub async fn run(Args { action }: Args) -> Result<(), Error> {
    match action {
        Action::Up { database } => {
            let applied = up(&mut connect(&database).await?).await?;
            println!(
                "{}",
                if applied == 0 { "nothing to do".to_owned() } else { format!("applied {applied} migrations") }
            );
            Ok(())
        }
        Action::Status { database } => status(&mut connect(&database).await?).await,
    }
}

/// A connection that acts as the group that owns the schema, so that every login that is a member owns the same objects.
pub async fn connect(database: &DatabaseArgs) -> Result<PgConnection, Error> {
    let options = database.connect_options()?;
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options));
    let mut conn = connecting.await.map_err(|_| Error::ConnectTimeout)?.map_err(Error::Connect)?;
    sqlx::query("SET ROLE volumeviz_owner")
        .execute(&mut conn)
        .await
        .map_err(|source| Error::Owner { user: database.user.clone(), source })?;
    Ok(conn)
}

/// Applies what is missing; returns how many migrations that were.
pub async fn up(conn: &mut PgConnection) -> Result<usize, Error> {
    lock(conn).await?;
    let before = applied(conn).await?.len();
    let migrated = migrator().run(&mut *conn).await;
    let unlocked =
        sqlx::query("SELECT pg_advisory_unlock($1, $2)").bind(LOCK_CLASS).bind(LOCK_OBJECT).execute(&mut *conn).await;
    migrated?;
    unlocked.map_err(Error::Lock)?;
    Ok(applied(conn).await?.len().saturating_sub(before))
}

async fn lock(conn: &mut PgConnection) -> Result<(), Error> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(LOCK_CLASS)
            .bind(LOCK_OBJECT)
            .fetch_one(&mut *conn)
            .await
            .map_err(Error::Lock)?;
        if locked {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Error::Locked);
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

#[derive(sqlx::FromRow)]
struct Applied {
    version: i64,
    installed_on: chrono::DateTime<chrono::Utc>,
}

async fn applied(conn: &mut PgConnection) -> Result<Vec<Applied>, Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('public.migrations') IS NOT NULL")
        .fetch_one(&mut *conn)
        .await
        .map_err(Error::Read)?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_as("SELECT version, installed_on FROM migrations WHERE success ORDER BY version")
        .fetch_all(conn)
        .await
        .map_err(Error::Read)
}

async fn status(conn: &mut PgConnection) -> Result<(), Error> {
    let applied = applied(conn).await?;
    let mut pending = 0;
    let migrator = migrator();
    for migration in migrator.iter().filter(|migration| migration.migration_type.is_up_migration()) {
        let when =
            applied.iter().find(|applied| applied.version == migration.version).map(|applied| applied.installed_on);
        pending += usize::from(when.is_none());
        let when = when.map_or_else(|| "pending".to_owned(), |when| when.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        println!("{:04}  {:<24}  {when}", migration.version, migration.description);
    }
    for unknown in applied.iter().filter(|applied| !migrator.version_exists(applied.version)) {
        println!(
            "{:04}  {:<24}  {}",
            unknown.version,
            "(of a later version)",
            unknown.installed_on.format("%Y-%m-%dT%H:%M:%SZ")
        );
    }
    if pending == 0 { Ok(()) } else { Err(Error::Pending(pending)) }
}
