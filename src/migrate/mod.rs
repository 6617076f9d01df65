//! Brings the database's schema to the version this binary needs, and tells which it has.
//!
//! Works on a connection of its own, as the group `volumeviz_owner`, under a lock that is polled: sqlx's own lock stays behind on a
//! connection when a migration fails.

mod verify;

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::Instant;

use crate::config::database::DatabaseArgs;
use crate::config::database::PasswordFile;
use crate::output;
use crate::store::installation;

pub use self::verify::{Verified, describe, verify};

/// The migration that this version cannot do without.
pub const REQUIRED_VERSION: i64 = 6;
/// First half of the keys of our advisory locks ("volu").
pub const LOCK_CLASS: i32 = 0x766f_6c75;
/// Second half of the key of the lock under which the schema is changed.
pub const LOCK_OBJECT: i32 = 1;

/// The embedded migrations. A database that a later version migrated further is fine: migrations only ever add what the previous version
/// can live with.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.set_locking(false).set_ignore_missing(true);
    migrator
}

/// Every right of the groups that own nothing; may be run again.
const GRANTS: &str = include_str!("../../migrations/0006_grants.up.sql");
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
    /// Take back migrations, newest first; what they made is lost with its data
    Down {
        /// The last migration to keep; 0 takes back all
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
        to: i64,
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
    /// Compare the schema with the one this version makes, and say what differs; exit code 1 when something does
    Verify {
        /// Print the schema as it is, a line an object, instead
        #[arg(long)]
        print: bool,
        /// The database, in the name of a member of volumeviz_owner
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Give the database to another cluster, e.g. after a restore into a new one
    Adopt {
        /// The uid of the namespace kube-system: kubectl get namespace kube-system -o jsonpath={.metadata.uid}
        #[arg(long, value_name = "UID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        cluster_uid: String,
        /// The database, in the name of a member of volumeviz_owner
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Give the groups volumeviz_controller, volumeviz_agent and volumeviz_readonly their rights again
    Grants {
        /// Print the SQL instead of running it
        #[arg(long)]
        print: bool,
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
    /// A version that was given is none of this binary's.
    #[error("there is no migration {0}; `volumeviz migrate status` lists them")]
    NoSuchVersion(i64),
    /// A later version's migrations would be in the way.
    #[error("migration {0} is of a later version of volumeviz, which alone can take it back")]
    OfLaterVersion(i64),
    /// The schema could not be described.
    #[error("failed to describe the schema: {0}")]
    Describe(#[source] sqlx::Error),
    /// `verify` found differences.
    #[error("the schema differs in {0} places from what this version makes")]
    Differs(usize),
    /// The database could not be given to another cluster.
    #[error("failed to adopt the database: {0}")]
    Adopt(#[source] sqlx::Error),
    /// The rights could not be given.
    #[error("failed to grant: {0}")]
    Grant(#[source] sqlx::Error),
    /// `status` found migrations that are not applied.
    #[error("{0} migrations are not applied; apply them with `volumeviz migrate up`")]
    Pending(usize),
    /// Nobody takes what is printed.
    #[error(transparent)]
    Print(#[from] output::Error),
}

/// Runs `volumeviz migrate`.
pub async fn run(Args { action }: Args) -> Result<(), Error> {
    match action {
        Action::Up { database } => {
            let applied = up(&mut connect_to_migrate(&database).await?).await?;
            report(applied, "applied")?;
        }
        Action::Down { to, database } => {
            let reverted = down(&mut connect_to_migrate(&database).await?, to).await?;
            report(reverted, "took back")?;
        }
        Action::Status { database } => status(&mut connect(&database).await?).await?,
        Action::Verify { print: true, database } => {
            output::print(describe(&mut connect(&database).await?).await?)?;
        }
        Action::Verify { print: false, database } => {
            let Verified { missing, unexpected } = verify(&mut connect(&database).await?).await?;
            let differing = missing.iter().map(|line| ("-", line)).chain(unexpected.iter().map(|line| ("+", line)));
            output::print(differing.map(|(sign, line)| format!("{sign} {line}")))?;
            let differences = missing.len() + unexpected.len();
            if differences > 0 {
                return Err(Error::Differs(differences));
            }
            output::print([format!("the schema is what version {REQUIRED_VERSION} makes")])?;
        }
        Action::Adopt { cluster_uid, database } => {
            let before = adopt(&mut connect(&database).await?, &cluster_uid).await?;
            let before = before.map_or_else(|| "to no cluster".to_owned(), |uid| format!("to the cluster {uid}"));
            output::print([format!(
                "the database belongs to the cluster {cluster_uid}; before, it belonged {before}"
            )])?;
        }
        Action::Grants { print: true, .. } => output::print(GRANTS.lines())?,
        Action::Grants { print: false, database } => {
            grant(&mut connect(&database).await?).await?;
            output::print(["granted"])?;
        }
    }
    Ok(())
}

fn report(migrations: usize, what: &str) -> Result<(), output::Error> {
    output::print([match migrations {
        0 => "nothing to do".to_owned(),
        1 => format!("{what} 1 migration"),
        more => format!("{what} {more} migrations"),
    }])
}

/// A connection that acts as the group that owns the schema, so that every login that is a member owns the same objects.
pub async fn connect(database: &DatabaseArgs) -> Result<PgConnection, Error> {
    connect_with(database, database.connect_options()?).await
}

/// The same to migrate on: a migration takes as long as it takes, and its whole text in the log of slow statements helps nobody.
pub async fn connect_to_migrate(database: &DatabaseArgs) -> Result<PgConnection, Error> {
    let options = database.connect_options()?.log_slow_statements(log::LevelFilter::Off, Duration::ZERO);
    connect_with(database, options).await
}

async fn connect_with(database: &DatabaseArgs, options: PgConnectOptions) -> Result<PgConnection, Error> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options));
    let mut conn = connecting.await.map_err(|_| Error::ConnectTimeout)?.map_err(Error::Connect)?;
    // Notices tell what is there already: nothing to bother an admin with.
    sqlx::query("SET client_min_messages = warning").execute(&mut conn).await.map_err(Error::Connect)?;
    sqlx::query("SET ROLE volumeviz_owner")
        .execute(&mut conn)
        .await
        .map_err(|source| Error::Owner { user: database.user.clone(), source })?;
    Ok(conn)
}

/// Applies what is missing; returns how many migrations that were.
pub async fn up(conn: &mut PgConnection) -> Result<usize, Error> {
    let before = applied_under_lock(conn).await?.len();
    let migrated = migrator().run(&mut *conn).await;
    let unlocked = unlock(conn).await;
    migrated?;
    unlocked?;
    Ok(applied(conn).await?.len().saturating_sub(before))
}

/// Takes back every migration after `to`; returns how many that were.
pub async fn down(conn: &mut PgConnection, to: i64) -> Result<usize, Error> {
    let migrator = migrator();
    if to != 0 && !migrator.version_exists(to) {
        return Err(Error::NoSuchVersion(to));
    }
    let before = applied_under_lock(conn).await?;
    let later = before.iter().find(|applied| !migrator.version_exists(applied.version));
    let reverted = match later {
        Some(later) => Err(Error::OfLaterVersion(later.version)),
        None => migrator.undo(&mut *conn, to).await.map_err(Error::from),
    };
    let unlocked = unlock(conn).await;
    reverted?;
    unlocked?;
    Ok(before.len().saturating_sub(applied(conn).await?.len()))
}

/// Gives the database to a cluster; returns whose it was.
pub async fn adopt(conn: &mut PgConnection, cluster_uid: &str) -> Result<Option<String>, Error> {
    installation::adopt(conn, cluster_uid).await.map_err(Error::Adopt)
}

/// Gives the groups their rights again.
pub async fn grant(conn: &mut PgConnection) -> Result<(), Error> {
    let mut transaction = conn.begin().await.map_err(Error::Grant)?;
    sqlx::raw_sql(GRANTS).execute(&mut *transaction).await.map_err(Error::Grant)?;
    transaction.commit().await.map_err(Error::Grant)
}

/// Takes the lock and reads what is applied; without the lock when that fails.
async fn applied_under_lock(conn: &mut PgConnection) -> Result<Vec<Applied>, Error> {
    lock(conn).await?;
    match applied(conn).await {
        Ok(applied) => Ok(applied),
        Err(error) => {
            // Why it could not be read says more than that it could not be unlocked either.
            let _ = unlock(conn).await;
            Err(error)
        }
    }
}

async fn unlock(conn: &mut PgConnection) -> Result<(), Error> {
    let unlock = sqlx::query("SELECT pg_advisory_unlock($1, $2)").bind(LOCK_CLASS).bind(LOCK_OBJECT);
    unlock.execute(conn).await.map(|_| ()).map_err(Error::Lock)
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

/// A migration that this binary or the database knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// What it does.
    pub name: String,
    /// When it was applied; absent when it was not.
    pub applied_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct Applied {
    version: i64,
    description: String,
    installed_on: DateTime<Utc>,
}

/// Every migration by number: this binary's, and those of later versions that the database has.
pub async fn list(conn: &mut PgConnection) -> sqlx::Result<Vec<Migration>> {
    let applied = read_applied(conn).await?;
    let migrator = migrator();
    let ours =
        migrator.iter().filter(|migration| migration.migration_type.is_up_migration()).map(|migration| Migration {
            version: migration.version,
            name: migration.description.replace(' ', "_"),
            applied_at: applied
                .iter()
                .find(|applied| applied.version == migration.version)
                .map(|applied| applied.installed_on),
        });
    let later = applied.iter().filter(|applied| !migrator.version_exists(applied.version)).map(|applied| Migration {
        version: applied.version,
        name: applied.description.replace(' ', "_"),
        applied_at: Some(applied.installed_on),
    });
    Ok(ours.chain(later).collect())
}

async fn applied(conn: &mut PgConnection) -> Result<Vec<Applied>, Error> {
    read_applied(conn).await.map_err(Error::Read)
}

async fn read_applied(conn: &mut PgConnection) -> sqlx::Result<Vec<Applied>> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('public.migrations') IS NOT NULL").fetch_one(&mut *conn).await?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_as("SELECT version, description, installed_on FROM migrations WHERE success ORDER BY version")
        .fetch_all(conn)
        .await
}

async fn status(conn: &mut PgConnection) -> Result<(), Error> {
    let listed = list(conn).await.map_err(Error::Read)?;
    let known = migrator();
    output::print(listed.iter().map(|Migration { version, name, applied_at }| {
        let when = applied_at.map_or_else(|| "pending".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        let whose = if known.version_exists(*version) { "" } else { "  (of a later version)" };
        format!("{version:04}  {name:<24}  {when}{whose}")
    }))?;
    match listed.iter().filter(|migration| migration.applied_at.is_none()).count() {
        0 => Ok(()),
        pending => Err(Error::Pending(pending)),
    }
}
