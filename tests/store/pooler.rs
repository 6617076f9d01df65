//! Behind PgBouncer in transaction mode: every operation works, though two transactions of one connection run on two of the server's.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use volumeviz::config::database::Role;
use volumeviz::store::page::{Page, VolumeList};
use volumeviz::store::{Error, Store, volumes};

use super::bouncer::Bouncer;
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// With fewer connections to the server than it has clients.
async fn before(database: &Database) -> Bouncer {
    let certificates = Path::new(&database::variable("TEST_PG_CA")).parent().unwrap().to_owned();
    let password = database::variable("TEST_PG_PASSWORD");
    let bouncer = Bouncer::start(
        "127.0.0.1",
        &format!("{} = host=127.0.0.1 port={}", database.name, database::port()),
        &[database::CONTROLLER, database::AGENT].map(|login| (login, password.as_str())),
        &format!(
            "default_pool_size = 3\nserver_tls_sslmode = require\nclient_tls_sslmode = require\n\
             client_tls_cert_file = {certificates}/server.crt\nclient_tls_key_file = {certificates}/server.key\n",
            certificates = certificates.display(),
        ),
    );
    listening(&bouncer).await;
    bouncer
}

async fn listening(bouncer: &Bouncer) {
    let until = Instant::now() + DEADLINE;
    while !bouncer.is_listening() {
        assert!(Instant::now() < until, "pgbouncer does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The database through it.
fn behind(bouncer: &Bouncer, database: &Database, login: &str, role: Role, pooler: &str) -> Store {
    let mut args = database::args(login, &database.name, &["--db-pooler", pooler, "--db-max-open-conns", "8"]);
    args.port = bouncer.address.port();
    Store::connect_lazy(&args, role).unwrap()
}

/// Operations of several connections at once, again and again, so that they meet on the server's.
async fn crowd(store: &Store) -> Result<(), Error> {
    let list = VolumeList::default();
    for _ in 0..10 {
        let operations = (0..8).map(|n| {
            let list = &list;
            async move {
                store
                    .run("list volumes", DEADLINE, async |conn| {
                        volumes::list(conn, list, &Page::first(n + 1)).await.map(|_| ())
                    })
                    .await?;
                store
                    .run("list runs", DEADLINE, async |conn| {
                        store::runs::of_name(conn, "scan", i64::MAX, n).await.map(|_| ())
                    })
                    .await
            }
        });
        join_all(operations).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    }
    Ok(())
}

#[tokio::test]
async fn the_controller_works_and_would_not_without_saying_so() {
    let database = Database::new().await;
    plan(&database, "once", &["n1"]).await;
    let bouncer = before(&database).await;
    crowd(&behind(&bouncer, &database, database::CONTROLLER, Role::Controller, "transaction")).await.unwrap();
    let unaware = behind(&bouncer, &database, database::CONTROLLER, Role::Controller, "none");
    let until = Instant::now() + DEADLINE;
    while crowd(&unaware).await.is_ok() {
        assert!(Instant::now() < until, "prepared statements get mixed up: else this test proves nothing");
    }
    // What the unaware one left on the server's connections are statements under names of its own; after it is gone they are closed.
    drop(unaware);
}

#[tokio::test]
async fn what_is_read_together_is_of_one_moment_here_as_well() {
    let database = Database::new().await;
    let bouncer = before(&database).await;
    let store = behind(&bouncer, &database, database::CONTROLLER, Role::Controller, "transaction");
    for _ in 0..3 {
        connection::one_moment(&database, &store).await;
        crowd(&store).await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_operation_leaves_nothing_on_the_servers_connection() {
    let database = Database::new().await;
    let bouncer = before(&database).await;
    let store = behind(&bouncer, &database, database::CONTROLLER, Role::Controller, "transaction");
    for _ in 0..5 {
        let failed = store.run("fail", DEADLINE, async |conn| {
            sqlx::query("SELECT $1::bigint").bind(1_i64).execute(&mut *conn).await?;
            sqlx::query("SELECT 1 / $1::bigint").bind(0_i64).execute(conn).await
        });
        assert!(failed.await.unwrap_err().is_invalid_data());
        crowd(&store).await.unwrap();
    }
    let planned = NewRun {
        scan_uid: "u".to_owned(),
        scan_name: "scan".to_owned(),
        key: "once".to_owned(),
        work: serde_json::from_value::<WorkOrder>(json!({})).unwrap(),
        nodes: vec![("n1".to_owned(), "n1-uid".to_owned())],
    };
    let plan =
        async || store.run("plan", DEADLINE, async |conn| store::runs::plan(conn, &planned).await).await.unwrap();
    assert!(plan().await.inserted);
    assert!(!plan().await.inserted, "a transaction within a transaction is a savepoint");
}

/// The server's clock, in microseconds.
async fn now(database: &Database) -> i64 {
    database.number("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").await
}

/// Until an operation that began after `since` is in the middle of it.
async fn asleep(database: &Database, since: i64) {
    let until = Instant::now() + DEADLINE;
    let latest = "SELECT coalesce(max(extract(epoch FROM query_start) * 1000000), 0)::bigint
        FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while database.number(latest).await <= since {
        assert!(Instant::now() < until, "no operation begins");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Killed while eight operations are in it, twice as often as the pool has connections: not one of them is lost to it.
#[tokio::test]
async fn a_restarted_bouncer_costs_no_connection_of_the_pool() {
    let database = Database::new().await;
    let mut bouncer = before(&database).await;
    let store = behind(&bouncer, &database, database::CONTROLLER, Role::Controller, "transaction");
    for _ in 0..16 {
        let since = now(&database).await;
        let sleeping = join_all((0..8).map(|_| {
            store.run("sleep", DEADLINE, async |conn| sqlx::query("SELECT pg_sleep(1)").execute(conn).await.map(|_| ()))
        }));
        let killed = async {
            asleep(&database, since).await;
            bouncer.kill();
        };
        let (slept, ()) = tokio::join!(sleeping, killed);
        for failed in slept {
            assert_eq!(failed.unwrap_err().reason(), "Unreachable");
        }
        bouncer.start_anew();
        listening(&bouncer).await;
    }
    crowd(&store).await.unwrap();
}

#[tokio::test]
async fn agents_do_a_whole_job() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    let ticket = ticket(&database, run, "n1").await;
    let bouncer = before(&database).await;
    let store = behind(&bouncer, &database, database::AGENT, Role::Agent, "transaction");
    let instance = Uuid::new_v4();
    let body = ClaimBody {
        instance,
        agent_version: "1".to_owned(),
        node_name: "n1".to_owned(),
        node_uid: "n1-uid".to_owned(),
    };
    let claimed =
        store.run("claim", DEADLINE, async |conn| store::agent::claim(conn, ticket, &body).await).await.unwrap();
    assert!(matches!(claimed, ClaimReply::Claimed(_)));
    let engine = Engine { id: "e".to_owned(), version: "28".to_owned(), data_root: "/d".to_owned() };
    let totals = Some(InventoryTotals { volumes: 1, containers: 0 });
    let body = InventoryBody { instance, engine, volumes: vec![volume("v")], containers: Vec::new(), totals };
    let listed =
        store.run("inventory", DEADLINE, async |conn| store::agent::inventory(conn, ticket, &body).await).await;
    assert_eq!(listed.unwrap().reply, Reply::Ok);
    let body = ReportBody { instance, results: vec![result("v", 7)], progress: progress(1) };
    let reported = store.run("report", DEADLINE, async |conn| store::agent::report(conn, ticket, &body).await).await;
    assert_eq!(reported.unwrap(), Reply::Ok);
    let body = CompleteBody { instance, results: 1, progress: progress(1) };
    let done = store.run("complete", DEADLINE, async |conn| store::agent::complete(conn, ticket, &body).await).await;
    assert_eq!(done.unwrap(), Reply::Ok);
    assert_eq!(database.number("SELECT allocated_bytes FROM volume_sizes").await, 7);
}

/// The health task's own connection as well.
#[tokio::test]
async fn the_database_is_probed() {
    let database = Database::new().await;
    let bouncer = before(&database).await;
    let store = behind(&bouncer, &database, database::CONTROLLER, Role::Controller, "transaction");
    let mut slot = None;
    for _ in 0..3 {
        let health = store
            .run_apart(&mut slot, "probe", DEADLINE, async |conn| store::health::probe(conn, "cluster").await)
            .await
            .unwrap();
        assert_eq!(health.problem, None);
    }
}
