//! What a user is told when the database cannot be used, and that no connection is lost over it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use super::*;
use sqlx::Connection;
use tokio::time::Instant;
use volumeviz::config::database::{DatabaseArgs, Role};
use volumeviz::store::{Error, Store};

const DEADLINE: Duration = Duration::from_secs(3);

fn open(args: &DatabaseArgs) -> Store {
    Store::connect_lazy(args, Role::Controller).unwrap()
}

async fn ping(store: &Store) -> Result<i32, Error> {
    store.run("ping", DEADLINE, async |conn| sqlx::query_scalar("SELECT 1").fetch_one(conn).await).await
}

async fn why(args: &DatabaseArgs) -> (&'static str, String) {
    let error =
        open(args).run_apart(&mut None, "ping", DEADLINE, async |conn| conn.ping().await).await.expect_err("a failure");
    (error.reason(), error.to_string())
}

#[tokio::test]
async fn each_way_to_fail_has_its_reason() {
    let database = Database::new().await;
    let with = |more: &[&str]| database::args(database::CONTROLLER, &database.name, more);
    let ca = database::ca();
    let ca = ca.to_str().unwrap();
    assert!(
        open(&with(&["--db-sslrootcert", ca]))
            .run_apart(&mut None, "ping", DEADLINE, async |conn| conn.ping().await)
            .await
            .is_ok()
    );
    assert_eq!(why(&with(&["--db-password", "wrong"])).await.0, "AuthFailed");
    assert_eq!(why(&with(&["--db-password-file", "/does/not/exist"])).await.0, "AuthFailed");
    let (reason, message) = why(&DatabaseArgs { port: 1, ..with(&[]) }).await;
    assert!(reason == "Unreachable" && message.contains("refused"), "{reason} {message}");
    let mut another = tempfile::NamedTempFile::new().unwrap();
    another.write_all(include_bytes!("another-ca.crt")).unwrap();
    let another = another.path().to_str().unwrap();
    let (reason, message) = why(&with(&["--db-sslrootcert", another])).await;
    assert!(reason == "TlsFailed", "{reason} {message}");
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_by_full_verification_only() {
    let database = Database::new().await;
    let ca = database::ca();
    let ca = ca.to_str().unwrap();
    let with = |mode: &str| DatabaseArgs {
        host: "127.0.0.2".to_owned(),
        ..database::args(database::CONTROLLER, &database.name, &["--db-sslrootcert", ca, "--db-sslmode", mode])
    };
    // The server listens on 127.0.0.1 only: a forwarder makes it answer under a name its certificate does not have.
    let forwarder = forward("127.0.0.2").await;
    assert_eq!(why(&DatabaseArgs { port: forwarder, ..with("verify-full") }).await.0, "TlsFailed");
    let args = DatabaseArgs { port: forwarder, ..with("verify-ca") };
    assert!(open(&args).run_apart(&mut None, "ping", DEADLINE, async |conn| conn.ping().await).await.is_ok());
}

/// Forwards connections on another loopback address to the server.
async fn forward(address: &str) -> u16 {
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut inbound, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut outbound = tokio::net::TcpStream::connect(("127.0.0.1", database::port())).await?;
                tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await
            });
        }
    });
    port
}

#[tokio::test]
async fn a_password_file_that_changed_is_read_again() {
    let database = Database::new().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old\n").unwrap();
    let path = file.path().to_str().unwrap();
    let store = open(&database::args(database::CONTROLLER, &database.name, &["--db-password-file", path]));
    assert_eq!(ping(&store).await.unwrap_err().reason(), "AuthFailed");
    std::fs::write(file.path(), format!("{}\n", database::variable("TEST_PG_PASSWORD"))).unwrap();
    assert_eq!(ping(&store).await.unwrap_err().reason(), "AuthFailed", "the refusal makes it read the file");
    assert_eq!(ping(&store).await.unwrap(), 1);
}

/// A server that takes connections and never says a word: every operation ends in time, and afterwards the pool is as large as before.
#[tokio::test]
async fn a_silent_server_costs_time_but_no_connection() {
    let database = Database::new().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let args = database::args(database::CONTROLLER, &database.name, &["--db-max-open-conns", "2"]);
    let store = open(&DatabaseArgs { port: silent.local_addr().unwrap().port(), ..args.clone() });
    for _ in 0..4 {
        let started = Instant::now();
        let short = Duration::from_millis(300);
        let error = store.run("ping", short, async |conn| conn.ping().await).await.unwrap_err();
        assert_eq!(error.reason(), "Unreachable");
        assert!(started.elapsed() < DEADLINE);
    }
    let store = open(&args);
    for _ in 0..4 {
        let stuck = store
            .run("wait", Duration::from_millis(1500), async |conn| {
                sqlx::query("SELECT pg_sleep(60)").execute(conn).await
            })
            .await;
        assert_eq!(stuck.unwrap_err().reason(), "Timeout", "connected, and no answer");
    }
    assert_eq!(ping(&store).await.unwrap(), 1, "a connection is free although four operations were given up");
}

/// Two transactions that wait for each other: the server gives one up, whose connection is as good as before.
#[tokio::test]
async fn a_deadlock_is_worth_another_try_and_costs_no_connection() {
    let database = Database::new().await;
    let store = open(&database::args(database::OWNER, &database.name, &[]));
    let (first, second) = (tokio::sync::Barrier::new(2), tokio::sync::Barrier::new(2));
    let locking = async |one: &'static str, other: &'static str| {
        let (first, second) = (&first, &second);
        let locked = store.transaction("lock", Duration::from_secs(20), async |conn| {
            sqlx::query(one).execute(&mut *conn).await?;
            first.wait().await;
            sqlx::query(other).execute(&mut *conn).await
        });
        let outcome = locked.await;
        second.wait().await;
        outcome
    };
    let (nodes, alerts) = ("LOCK TABLE nodes IN ACCESS EXCLUSIVE MODE", "LOCK TABLE alerts IN ACCESS EXCLUSIVE MODE");
    let (a, b) = tokio::join!(locking(nodes, alerts), locking(alerts, nodes));
    let errors: Vec<Error> = [a, b].into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "one of them has what it wants");
    let error = &errors[0];
    assert!(error.reason() == "Interrupted" && error.is_transient() && !error.is_invalid_data(), "{error}");
    assert!(error.to_string().contains("deadlock detected"), "{error}");
    assert_eq!(store.pool_figures().open, 2, "both connections are kept");
}

#[tokio::test]
async fn a_dropped_store_closes_its_connections() {
    let database = Database::new().await;
    let store = open(&database::args(database::CONTROLLER, &database.name, &[]));
    let hold = async || {
        store.run("hold", DEADLINE, async |conn| sqlx::query("SELECT pg_sleep(0.2)").execute(conn).await).await.unwrap()
    };
    tokio::join!(hold(), hold(), hold());
    let connections =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'vv_controller' AND datname = current_database()";
    assert_eq!(database.number(connections).await, 3, "at rest a controller keeps them");
    drop(store);
    let until = Instant::now() + Duration::from_secs(20);
    while database.number(connections).await > 0 {
        assert!(Instant::now() < until, "connections outlive their store");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_is_read_together_is_of_one_moment() {
    let database = Database::new().await;
    let store = open(&database::args(database::CONTROLLER, &database.name, &[]));
    one_moment(&database, &store).await;
    let written = store.snapshot("write", DEADLINE, async |conn| {
        store::audit::record(conn, store::audit::Action::RunPlanned, "run/0", json!({})).await
    });
    assert_eq!(written.await.unwrap_err().reason(), "ReadOnly");
}

#[tokio::test]
async fn what_is_read_together_is_not_compiled_first() {
    let database = Database::new().await;
    let store = open(&database::args(database::CONTROLLER, &database.name, &[]));
    let jit = async |conn: &mut sqlx::PgConnection| sqlx::query_scalar::<_, String>("SHOW jit").fetch_one(conn).await;
    assert_eq!(store.snapshot("ask", DEADLINE, jit).await.unwrap(), "off");
    assert_eq!(store.run("ask", DEADLINE, jit).await.unwrap(), "on", "the setting ends with the snapshot");
}

/// Counts, lets somebody else add, and counts again.
pub(crate) async fn one_moment(database: &Database, store: &Store) {
    let count = "SELECT count(*) FROM nodes";
    let counted = store.snapshot("count", DEADLINE, async |conn| {
        let before: i64 = sqlx::query_scalar(count).fetch_one(&mut *conn).await?;
        let add = format!("INSERT INTO nodes (name, uid) VALUES ('{}', 'u')", Uuid::new_v4());
        database::execute(&mut **database.superuser().await, add).await;
        let after: i64 = sqlx::query_scalar(count).fetch_one(conn).await?;
        Ok((before, after))
    });
    let (before, after) = counted.await.unwrap();
    assert_eq!(before, after);
    assert_eq!(database.number(count).await, before + 1);
}

#[tokio::test]
async fn at_rest_an_agent_has_no_connection() {
    let database = Database::new().await;
    let args = database::args(
        database::AGENT,
        &database.name,
        &["--db-conn-max-idle-time", "1s", "--db-max-open-conns", "25"],
    );
    let store = Store::connect_lazy(&args, Role::Agent).unwrap();
    let hold = async || {
        store.run("hold", DEADLINE, async |conn| sqlx::query("SELECT pg_sleep(0.5)").execute(conn).await).await.unwrap()
    };
    let connections =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'vv_agent' AND datname = current_database()";
    let (goes_on, most) = (AtomicBool::new(true), AtomicI64::new(0));
    let watch = async {
        while goes_on.load(Ordering::Relaxed) {
            most.fetch_max(database.number(connections).await, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let holds = async {
        tokio::join!(hold(), hold(), hold(), hold());
        goes_on.store(false, Ordering::Relaxed);
    };
    tokio::join!(watch, holds);
    assert_eq!(most.into_inner(), 2, "an agent has two connections, whatever DB_MAX_OPEN_CONNS says");
    let until = Instant::now() + Duration::from_secs(20);
    while database.number(connections).await > 0 {
        assert!(Instant::now() < until, "connections are kept at rest");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
