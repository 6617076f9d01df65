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
