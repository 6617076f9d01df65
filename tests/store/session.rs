//! An agent's conversation with the database, over its own store.

use super::*;
use tokio_util::sync::CancellationToken;
use volumeviz::agent::session::{Error, Session};
use volumeviz::config::database::Role;
use volumeviz::store::Store;

/// A session of an agent that holds a job over these volumes.
async fn session(database: &Database, names: &[&str]) -> (Session, i64, Uuid) {
    let run = plan(database, "once", &["n1"]).await;
    let ticket = ticket(database, run, "n1").await;
    let agent = Agent::on(database, "n1");
    let claim = agent.claimed(ticket).await;
    let volumes: Vec<_> = names.iter().map(|name| volume(name)).collect();
    assert_eq!(agent.inventory(ticket, &volumes, &[]).await, Reply::Ok);
    let store = Store::connect_lazy(&database::args(database::AGENT, &database.name, &[]), Role::Agent).unwrap();
    (Session::new(store, ticket, agent.instance, &claim, CancellationToken::new()), claim.job, ticket)
}

#[tokio::test]
async fn a_row_that_postgresql_refuses_spoils_no_other() {
    let database = Database::new().await;
    let names = ["a", "b", "c", "d", "e"];
    let (session, _, _) = session(&database, &names).await;
    let mut results: Vec<_> = names.iter().map(|name| result(name, 10)).collect();
    results[3].skipped_mounts = vec!["a NUL \0 that slipped through".to_owned()];
    session.report(results, progress(5)).await.unwrap();
    session.complete(5, progress(5)).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM scan_results WHERE completeness = 'Complete'").await, 4);
    let unstorable = "SELECT count(*) FROM scan_results JOIN volumes ON volumes.id = scan_results.volume_id
        WHERE reason = 'Unstorable' AND completeness = 'Unknown' AND name = 'd'";
    assert_eq!(database.number(unstorable).await, 1);
}

/// Text that no index takes: it does not compress, and is longer than a key may be.
fn too_long_for_a_key() -> String {
    (0..400).map(|_| Uuid::new_v4().simple().to_string()).collect()
}

#[tokio::test]
async fn a_listed_row_that_postgresql_refuses_spoils_no_other_and_stays_listed() {
    let database = Database::new().await;
    let (session, _, _) = session(&database, &[]).await;
    let names = ["a", "b", "c", "d", "e"];
    let mut volumes = names.map(volume);
    volumes[2].labels.insert("nul".to_owned(), "\0 that slipped through".to_owned());
    let mut containers = names.map(|name| container(&format!("{name}-container"), "running", &[name]));
    containers[3].mounts[0].destination = too_long_for_a_key();
    let body = InventoryBody {
        instance: session.instance(),
        engine: Engine { id: "e".to_owned(), version: "28".to_owned(), data_root: "/d".to_owned() },
        volumes: volumes.to_vec(),
        containers: containers.to_vec(),
        totals: Some(InventoryTotals { volumes: 5, containers: 5 }),
    };
    session.inventory(body).await.unwrap();
    session.report(names.iter().map(|name| result(name, 10)).collect(), progress(5)).await.unwrap();
    session.complete(5, progress(5)).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM volumes WHERE is_active AND deleted_at IS NULL").await, 5);
    let flagged: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM volumes WHERE labels ? 'volumeviz.io/unstorable'
         UNION ALL SELECT containers.name || ' ' || mount_path FROM containers JOIN container_volumes ON container_volumes.container_id = containers.id
         WHERE containers.labels ? 'volumeviz.io/unstorable'",
    )
    .fetch_all(&mut **database.superuser().await)
    .await
    .unwrap();
    assert_eq!(flagged, ["c", "d-container-name (unstorable)"]);
}

#[tokio::test]
async fn a_replaced_ticket_ends_the_session_at_its_next_call() {
    let database = Database::new().await;
    let (session, job, ticket) = session(&database, &["a"]).await;
    database.expire_leases().await;
    assert!(store::jobs::re_ticket(&mut *database.controller().await, job, ticket, 3).await.unwrap());
    assert!(matches!(session.report(vec![result("a", 1)], progress(1)).await, Err(Error::Fenced)));
    assert!(matches!(session.over().await, Error::Fenced));
    assert_eq!(database.number("SELECT count(*) FROM scan_results").await, 0);
}
