//! Behind PgBouncer in transaction mode: every operation works, though two transactions of one connection run on two of the server's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tempfile::TempDir;
use volumeviz::config::database::Role;
use volumeviz::store::page::{Page, VolumeList};
use volumeviz::store::{Error, Store, volumes};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// PgBouncer with fewer connections to the server than it has clients.
struct Bouncer {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Bouncer {
    async fn before(database: &Database) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let certificates = Path::new(&database::variable("TEST_PG_CA")).parent().unwrap().to_owned();
        let users: String = [database::CONTROLLER, database::AGENT]
            .map(|login| format!("\"{login}\" \"{}\"\n", database::variable("TEST_PG_PASSWORD")))
            .concat();
        let settings = format!(
            "[databases]\n{name} = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {users}\npool_mode = transaction\ndefault_pool_size = 3\nserver_tls_sslmode = require\n\
             client_tls_sslmode = require\nclient_tls_cert_file = {certificates}/server.crt\nclient_tls_key_file = {certificates}/server.key\n",
            name = database.name,
            server = database::port(),
            users = folder.path().join("users").display(),
            certificates = certificates.display(),
        );
        fs::write(folder.path().join("users"), users).unwrap();
        fs::write(folder.path().join("pgbouncer.ini"), settings).unwrap();
        for file in [folder.path().to_owned(), folder.path().join("users"), folder.path().join("pgbouncer.ini")] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let process = start(&folder, port).await;
        Self { process, port, folder }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn store(&self, database: &Database, login: &str, role: Role, pooler: &str) -> Store {
        let mut args = database::args(login, &database.name, &["--db-pooler", pooler, "--db-max-open-conns", "8"]);
        args.port = self.port;
        Store::connect_lazy(&args, role).unwrap()
    }
}

async fn start(folder: &TempDir, port: u16) -> Child {
    // It refuses to run as root.
    let process = Command::new("setpriv")
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "pgbouncer", "--quiet"])
        .arg(folder.path().join("pgbouncer.ini"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("pgbouncer is installed by `make setup`");
    let until = Instant::now() + DEADLINE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "pgbouncer does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    process
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
    let bouncer = Bouncer::before(&database).await;
    crowd(&bouncer.store(&database, database::CONTROLLER, Role::Controller, "transaction")).await.unwrap();
    let unaware = bouncer.store(&database, database::CONTROLLER, Role::Controller, "none");
    crowd(&unaware).await.expect_err("prepared statements get mixed up: else this test proves nothing");
    // What the unaware one left on the server's connections are statements under names of its own; after it is gone they are closed.
    drop(unaware);
}

#[tokio::test]
async fn what_is_read_together_is_of_one_moment_here_as_well() {
    let database = Database::new().await;
    let bouncer = Bouncer::before(&database).await;
    let store = bouncer.store(&database, database::CONTROLLER, Role::Controller, "transaction");
    for _ in 0..3 {
        connection::one_moment(&database, &store).await;
        crowd(&store).await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_operation_leaves_nothing_on_the_servers_connection() {
    let database = Database::new().await;
    let bouncer = Bouncer::before(&database).await;
    let store = bouncer.store(&database, database::CONTROLLER, Role::Controller, "transaction");
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

/// Killed while eight operations are in it, twice as often as the pool has connections: not one of them is lost to it.
#[tokio::test]
async fn a_restarted_bouncer_costs_no_connection_of_the_pool() {
    let database = Database::new().await;
    let mut bouncer = Bouncer::before(&database).await;
    let store = bouncer.store(&database, database::CONTROLLER, Role::Controller, "transaction");
    for _ in 0..16 {
        let sleeping = join_all((0..8).map(|_| {
            store.run("sleep", DEADLINE, async |conn| {
                sqlx::query("SELECT pg_sleep(0.3)").execute(conn).await.map(|_| ())
            })
        }));
        let killed = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            bouncer.kill();
        };
        let (slept, ()) = tokio::join!(sleeping, killed);
        for failed in slept {
            assert_eq!(failed.unwrap_err().reason(), "Unreachable");
        }
        bouncer.process = start(&bouncer.folder, bouncer.port).await;
    }
    crowd(&store).await.unwrap();
}

#[tokio::test]
async fn agents_do_a_whole_job() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    let ticket = ticket(&database, run, "n1").await;
    let bouncer = Bouncer::before(&database).await;
    let store = bouncer.store(&database, database::AGENT, Role::Agent, "transaction");
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
    let bouncer = Bouncer::before(&database).await;
    let store = bouncer.store(&database, database::CONTROLLER, Role::Controller, "transaction");
    let mut slot = None;
    for _ in 0..3 {
        let health = store
            .run_apart(&mut slot, "probe", DEADLINE, async |conn| store::health::probe(conn, "cluster").await)
            .await
            .unwrap();
        assert_eq!(health.problem, None);
    }
}
