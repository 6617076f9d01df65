//! A database of its own for a test, copied from a template that is migrated once.

use std::env;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use clap::Parser;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::OnceCell;
use uuid::Uuid;
use volumeviz::config::database::DatabaseArgs;
use volumeviz::migrate;

/// The four logins, each a member of one group; the password is the superuser's.
pub(crate) const OWNER: &str = "vv_owner";
pub(crate) const CONTROLLER: &str = "vv_controller";
pub(crate) const AGENT: &str = "vv_agent";
pub(crate) const READONLY: &str = "vv_readonly";

const TEMPLATE: &str = "volumeviz_template";
const BOOTSTRAP: &str = include_str!("../../deploy/bootstrap.sql");

pub(crate) struct Database {
    pub name: String,
}

/// A connection as one of the logins.
pub(crate) struct Conn(PgConnection);

impl Deref for Conn {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run by tests/with-postgres"))
}

pub(crate) fn port() -> u16 {
    variable("TEST_PG_PORT").parse().unwrap()
}

pub(crate) fn ca() -> PathBuf {
    variable("TEST_PG_CA").into()
}

/// The product's own settings for a login; `more` are options as on the command line.
pub(crate) fn args(user: &str, database: &str, more: &[&str]) -> DatabaseArgs {
    let (port, password) = (port().to_string(), variable("TEST_PG_PASSWORD"));
    let fixed = ["volumeviz", "--db-host=127.0.0.1", "--db-port", &port, "--db-user", user, "--db-name", database];
    let password: &[&str] =
        if more.iter().any(|option| option.starts_with("--db-password")) { &[] } else { &["--db-password", &password] };
    Cli::try_parse_from(fixed.iter().chain(password).chain(more)).unwrap_or_else(|error| panic!("{error}")).database
}

async fn connect(user: &str, database: &str) -> PgConnection {
    try_connect(user, database).await.unwrap_or_else(|error| panic!("{user}@{database}: {error}"))
}

async fn try_connect(user: &str, database: &str) -> sqlx::Result<PgConnection> {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port())
        .username(user)
        .password(&variable("TEST_PG_PASSWORD"))
        .database(database)
        // A TLS handshake takes 90 ms of delayed acknowledgements; that connections are encrypted is tested in connection.rs.
        .ssl_mode(PgSslMode::Disable);
    PgConnection::connect_with(&options).await
}

/// Runs a fixture's own SQL; names in it are the fixture's, never input.
pub(crate) async fn execute(conn: &mut PgConnection, sql: String) {
    conn.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
}

async fn template() {
    static MADE: OnceCell<()> = OnceCell::const_new();
    MADE.get_or_init(|| async {
        let mut postgres = connect("postgres", "postgres").await;
        execute(&mut postgres, format!("CREATE DATABASE {TEMPLATE}")).await;
        bootstrap(TEMPLATE).await;
        for (login, group) in [
            (OWNER, "volumeviz_owner"),
            (CONTROLLER, "volumeviz_controller"),
            (AGENT, "volumeviz_agent"),
            (READONLY, "volumeviz_readonly"),
        ] {
            let password = variable("TEST_PG_PASSWORD");
            execute(&mut postgres, format!("CREATE ROLE {login} LOGIN PASSWORD '{password}' IN ROLE {group}")).await;
        }
        let mut owner = migrate::connect(&args(OWNER, TEMPLATE, &[])).await.unwrap();
        migrate::up(&mut owner).await.unwrap();
        owner.close().await.unwrap();
    })
    .await;
}

/// Runs `deploy/bootstrap.sql` in a database.
pub(crate) async fn bootstrap(database: &str) {
    execute(&mut connect("postgres", database).await, BOOTSTRAP.to_owned()).await;
}

impl Database {
    /// Migrated and empty.
    pub(crate) async fn new() -> Self {
        template().await;
        let name = format!("test_{}", Uuid::new_v4().simple());
        let mut postgres = connect("postgres", "postgres").await;
        execute(&mut postgres, format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
        bootstrap(&name).await;
        Self { name }
    }

    /// Bootstrapped and not migrated.
    pub(crate) async fn bare() -> Self {
        template().await;
        let name = format!("test_{}", Uuid::new_v4().simple());
        execute(&mut connect("postgres", "postgres").await, format!("CREATE DATABASE {name}")).await;
        bootstrap(&name).await;
        Self { name }
    }

    pub(crate) async fn controller(&self) -> Box<Conn> {
        Box::new(Conn(connect(CONTROLLER, &self.name).await))
    }

    pub(crate) async fn agent(&self) -> Box<Conn> {
        Box::new(Conn(connect(AGENT, &self.name).await))
    }

    pub(crate) async fn readonly(&self) -> Box<Conn> {
        Box::new(Conn(connect(READONLY, &self.name).await))
    }

    /// As maintain and migrate connect.
    pub(crate) async fn owner(&self) -> PgConnection {
        migrate::connect(&args(OWNER, &self.name, &[])).await.unwrap()
    }

    /// A connection that somebody may cut while it is made.
    pub(crate) async fn try_connect(&self, login: &str) -> sqlx::Result<Box<Conn>> {
        Ok(Box::new(Conn(try_connect(login, &self.name).await?)))
    }

    pub(crate) async fn superuser(&self) -> Box<Conn> {
        Box::new(Conn(connect("postgres", &self.name).await))
    }

    /// Lets every lease expire and every back-off pass, as if time had.
    pub(crate) async fn expire_leases(&self) {
        let expire = "UPDATE scan_jobs SET not_before = clock_timestamp(),
                      lease_expires_at = CASE WHEN status = 'running' THEN clock_timestamp() - interval '1 second' END";
        sqlx::query(expire).execute(&mut **self.superuser().await).await.unwrap();
    }

    /// One number.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut **self.superuser().await).await.unwrap()
    }
}
