//! What an admin sees of the database's state: reasons, logs, metrics; and that connections which lead nowhere are given up.

use std::fmt::Write;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::Connection;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use volumeviz::config::database::Role;
use volumeviz::maintain;
use volumeviz::store::volumes::{self, NewVolume};
use volumeviz::store::{Error, Labels, Store};

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn open(database: &Database, login: &str, more: &[&str]) -> Store {
    Store::connect_lazy(&database::args(login, &database.name, more), Role::Controller).unwrap()
}

/// A small write as the controller.
async fn write(store: &Store) -> Result<(), Error> {
    store
        .run("write", DEADLINE, async |conn| {
            store::audit::record(conn, store::audit::Action::RunPlanned, "run/0", json!({})).await
        })
        .await
}

#[tokio::test]
async fn a_demoted_primary_is_read_only_and_its_connections_are_discarded() {
    let database = Database::new().await;
    let store = open(&database, database::CONTROLLER, &["--db-max-open-conns", "1"]);
    write(&store).await.unwrap();
    let mut superuser = database.superuser().await;
    let read_only = async |conn: &mut sqlx::PgConnection, on: &str| {
        database::execute(conn, format!("ALTER DATABASE {} SET default_transaction_read_only = {on}", database.name))
            .await;
        database::execute(conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'vv_controller' AND datname = current_database()".to_owned()).await;
    };
    read_only(&mut superuser, "on").await;
    // The first call may meet the connection that was cut.
    drop(write(&store).await);
    let refused = write(&store).await.unwrap_err();
    assert_eq!(refused.reason(), "ReadOnly", "{refused}");
    assert_eq!(store.pool_figures().open, 0, "a connection to a server that was demoted leads nowhere");
    let probed = store::health::probe(&mut *database.controller().await, "cluster").await.unwrap();
    assert_eq!(probed.problem.map(|(reason, _)| reason.as_str()), Some("ReadOnly"));
    let reset = format!("ALTER DATABASE {} RESET default_transaction_read_only", database.name);
    database::execute(&mut superuser, format!("SET default_transaction_read_only = off; {reset}")).await;
    write(&store).await.unwrap();
}

#[tokio::test]
async fn a_terminated_connection_is_replaced() {
    let database = Database::new().await;
    let store = open(&database, database::CONTROLLER, &["--db-max-open-conns", "2"]);
    for _ in 0..3 {
        write(&store).await.unwrap();
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'vv_controller' AND datname = current_database()";
        assert!(database.number(kill).await > 0);
        if let Err(error) = write(&store).await {
            assert_eq!(error.reason(), "Unreachable", "{error}");
        }
        write(&store).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_without_connections_left_says_so() {
    let database = Database::new().await;
    database::execute(
        &mut **database.superuser().await,
        format!("ALTER DATABASE {} CONNECTION LIMIT 1", database.name),
    )
    .await;
    let _taken = database.controller().await;
    // As the health task connects: the pool itself tries again until its deadline.
    let store = open(&database, database::CONTROLLER, &[]);
    let mut slot = None;
    let probed =
        store.run_apart(&mut slot, "probe", DEADLINE, async |conn| store::health::probe(conn, "cluster").await);
    let error = probed.await.unwrap_err();
    assert_eq!(error.reason(), "TooManyConnections", "{error}");
}

#[tokio::test]
async fn a_wait_that_the_server_gives_up_is_a_timeout() {
    let database = Database::new().await;
    let store = open(&database, database::CONTROLLER, &[]);
    let mut superuser = database.superuser().await;
    let mut lock = superuser.begin().await.unwrap();
    sqlx::query("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let error = store
        .transaction("write", DEADLINE, async |conn| {
            sqlx::query("SET LOCAL lock_timeout = '100ms'").execute(&mut *conn).await?;
            store::audit::record(conn, store::audit::Action::RunPlanned, "run/0", json!({})).await
        })
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "Timeout", "{error}");
    assert_eq!(store.pool_figures().open, 1, "the connection is as good as before");
}

/// A file system of two megabytes.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", path]).status().unwrap();
        assert!(mounted.success());
        assert!(Command::new("chown").args(["postgres:postgres", path]).status().unwrap().success());
        Self(folder)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0.path()).status());
    }
}

/// Text that does not compress to nothing.
fn filler(seed: usize) -> String {
    let mut text = String::new();
    for i in 0..6000 {
        write!(text, "{:x}", i * 7919 + seed).unwrap();
    }
    text
}

#[tokio::test]
async fn a_full_disk_says_so_and_works_again_with_room() {
    let database = Database::new().await;
    let disk = Disk::new();
    let mut superuser = database.superuser().await;
    let space = format!("small_{}", database.name);
    database::execute(&mut superuser, format!("CREATE TABLESPACE {space} LOCATION '{}'", disk.0.path().display()))
        .await;
    database::execute(&mut superuser, format!("ALTER TABLE volumes SET TABLESPACE {space}")).await;
    let store = open(&database, database::OWNER, &[]);
    let create = async |n: usize| {
        let labels = Labels::from([("filler", filler(n))]);
        let volume = NewVolume { node: "n".to_owned(), name: n.to_string(), labels, ..NewVolume::default() };
        store.run("create a volume", DEADLINE, async |conn| volumes::create(conn, &volume).await).await
    };
    let mut refused = None;
    for n in 0..500 {
        if let Err(error) = create(n).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("two megabytes do not hold this much");
    assert_eq!(refused.reason(), "DiskFull", "{refused}");
    let grown = Command::new("mount").args(["-o", "remount,size=16m"]).arg(disk.0.path()).status().unwrap();
    assert!(grown.success());
    create(1000).await.unwrap();
    database::execute(&mut superuser, "ALTER TABLE volumes SET TABLESPACE pg_default".to_owned()).await;
    database::execute(&mut superuser, format!("DROP TABLESPACE {space}")).await;
}

/// A login that must show a certificate besides its password.
#[tokio::test]
async fn a_client_certificate_is_shown() {
    let database = Database::new().await;
    let password = database::variable("TEST_PG_PASSWORD");
    let make = format!(
        "DO $$ BEGIN CREATE ROLE vv_certified LOGIN PASSWORD '{password}' IN ROLE volumeviz_controller; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    );
    database::execute(&mut **database.superuser().await, make).await;
    let without = write(&open(&database, "vv_certified", &[])).await.unwrap_err();
    assert!(without.to_string().contains("certificate"), "{without}");
    let folder = database::ca().parent().unwrap().to_owned();
    let file = |option: &str, name: &str| format!("{option}={}", folder.join(name).display());
    let (certificate, key) = (file("--db-sslcert", "client.crt"), file("--db-sslkey", "client.key"));
    let ca = file("--db-sslrootcert", "ca.crt");
    write(&open(&database, "vv_certified", &[&certificate, &key, &ca])).await.unwrap();
}

/// Everything that is logged while this is the subscriber: level, target and fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

/// What is logged of a quick and of a slow statement that binds a secret.
async fn logged(more: &[&str]) -> Vec<String> {
    let database = Database::new().await;
    let store = open(&database, database::CONTROLLER, more);
    let log = Log::default();
    let listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    let statements = ["SELECT 'quick', $1::text", "SELECT 'slow', $1::text, pg_sleep(0.3)"];
    for sql in statements {
        let run = store.run("ask", DEADLINE, async |conn| sqlx::query(sql).bind("canary-4711").fetch_all(conn).await);
        run.await.unwrap();
    }
    drop(listening);
    let lines = log.0.lock().unwrap().clone();
    assert!(!lines.iter().any(|line| line.contains("canary-4711")), "values are never logged: {lines:#?}");
    lines.into_iter().filter(|line| line.contains("sqlx::query")).collect()
}

#[tokio::test]
async fn slow_statements_are_logged_with_their_duration_and_rows() {
    let lines = logged(&["--db-slow-query-threshold", "100ms"]).await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    assert!(line.starts_with("WARN") && line.contains("SELECT 'slow'") && line.contains("rows_returned=1"), "{line}");
    assert!(line.contains("elapsed"), "{line}");
}

#[tokio::test]
async fn every_statement_is_logged_when_asked_for() {
    let lines = logged(&["--db-log-queries", "true", "--db-slow-query-threshold", "1h"]).await;
    let statements = |text: &str| lines.iter().filter(|line| line.starts_with("INFO") && line.contains(text)).count();
    assert_eq!((statements("SELECT 'quick'"), statements("SELECT 'slow'")), (1, 1), "{lines:#?}");
    assert_eq!(logged(&["--db-slow-query-threshold", "1h"]).await, [""; 0], "and not otherwise");
}

#[tokio::test]
async fn what_maintenance_does_slowly_is_logged_and_migrations_are_not() {
    let database = Database::bare().await;
    let log = Log::default();
    let listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    let args = maintain::Args {
        database: database::args(database::OWNER, &database.name, &["--db-slow-query-threshold", "0s"]),
        ..history::maintain_args(&database)
    };
    maintain::round(&args).await.unwrap();
    drop(listening);
    let lines = log.0.lock().unwrap().clone();
    let slow = |text: &str| lines.iter().any(|line| line.contains("sqlx::query") && line.contains(text));
    assert!(slow("SELECT maintain.purge($1"), "{lines:#?}");
    assert!(!slow("CREATE TABLE") && !slow("CREATE FUNCTION"), "{lines:#?}");
}

#[tokio::test]
async fn the_pool_is_told_in_metrics() {
    let database = Database::new().await;
    let text = async |more: &[&str]| {
        let store = open(&database, database::CONTROLLER, more);
        let mut registry = prometheus_client::registry::Registry::default();
        store.register_metrics(&mut registry);
        write(&store).await.unwrap();
        // A connection comes back to the pool on a task of its own.
        let until = std::time::Instant::now() + DEADLINE;
        while store.pool_figures().idle == 0 && std::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    let told = text(&[]).await;
    for line in [
        "volumeviz_database_connections_open 1",
        "volumeviz_database_connections_in_use 0",
        "volumeviz_database_connections_idle 1",
        "volumeviz_database_connection_wait_seconds_count 1",
        "volumeviz_database_connection_timeouts_total 0",
    ] {
        assert!(told.contains(line), "{line}:\n{told}");
    }
    assert!(!text(&["--db-enable-metrics", "false"]).await.contains("volumeviz_database"));
}
