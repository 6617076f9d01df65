//! What `/metrics` tells of nodes and volumes.

use std::time::Duration;

use volumeviz::config::database::Role;
use volumeviz::domain::measurement::VolumeReason;
use volumeviz::store::Store;
use volumeviz::store::contents::{self, Contents};

use super::*;

async fn read(database: &Database, volumes: i64) -> Contents {
    let args = database::args(database::CONTROLLER, &database.name, &[]);
    let store = Store::connect_lazy(&args, Role::Controller).unwrap();
    store.snapshot("read", Duration::from_secs(10), async |conn| contents::read(conn, volumes).await).await.unwrap()
}

fn partial(name: &str, bytes: u64) -> VolumeResult {
    VolumeResult { completeness: Completeness::Partial, reason: Some(VolumeReason::ReadErrors), ..result(name, bytes) }
}

/// A job on this node that finds these volumes.
async fn found(database: &Database, key: &str, node: &str, results: &[VolumeResult]) {
    let run = plan(database, key, &[node]).await;
    let (agent, ticket) = (Agent::on(database, node), ticket(database, run, node).await);
    agent.claimed(ticket).await;
    let listed: Vec<_> = results.iter().map(|result| volume(&result.volume)).collect();
    assert_eq!(agent.inventory(ticket, &listed, &[]).await, Reply::Ok);
    assert_eq!(agent.report(ticket, results).await, Reply::Ok);
    assert_eq!(agent.complete(ticket, results.len()).await, Reply::Ok);
}

#[tokio::test]
async fn sums_are_of_what_was_measured() {
    let database = Database::new().await;
    let unknown = |name: &str| VolumeResult::unknown(name, VolumeReason::VolumeTimeout);
    found(&database, "t:1", "a", &[result("v", 10), result("lost", 1000), unknown("u"), result("gone", 5)]).await;
    found(&database, "t:2", "a", &[result("v", 20), unknown("lost"), unknown("u"), partial("p", 8)]).await;
    found(&database, "t:3", "b", &[unknown("only")]).await;
    found(&database, "t:4", "c", &[]).await;
    let run = plan(&database, "t:5", &["d"]).await;
    let (agent, ticket) = (Agent::on(&database, "d"), ticket(&database, run, "d").await);
    agent.claimed(ticket).await;
    let never = InventoryVolume { selected: false, ..volume("never") };
    assert_eq!(agent.inventory(ticket, &[never], &[]).await, Reply::Ok);
    let told = read(&database, 9).await.nodes;
    let counts = |node: &contents::NodeContents| (node.node.clone(), node.measured, node.partial, node.unknown);
    let named = |name: &str, measured, partial, unknown| (name.to_owned(), measured, partial, unknown);
    assert_eq!(
        told.iter().map(counts).collect::<Vec<_>>(),
        [named("a", 1, 1, 2), named("b", 0, 0, 1), named("c", 0, 0, 0), named("d", 0, 0, 1)]
    );
    let sums: Vec<_> = told.iter().map(|node| (node.allocated_bytes, node.apparent_bytes, node.files)).collect();
    assert_eq!(
        sums,
        [(Some(28), Some(14), Some(6)), (None, None, None), (Some(0), Some(0), Some(0)), (None, None, None)],
        "unknown is not zero, and nothing is"
    );
}

#[tokio::test]
async fn the_biggest_volumes_are_told_and_the_others_counted() {
    let database = Database::new().await;
    let unknown = VolumeResult::unknown("huge", VolumeReason::VolumeTimeout);
    found(&database, "t:1", "a", &[result("huge", 9000), result("v", 10), result("w", 30)]).await;
    found(&database, "t:2", "a", &[unknown, result("v", 10), partial("w", 30)]).await;
    found(&database, "t:3", "b", &[result("v", 20)]).await;
    let told = read(&database, 2).await;
    let sizes: Vec<_> =
        told.volumes.iter().map(|of| (of.node.as_str(), of.name.as_str(), of.allocated_bytes, of.partial)).collect();
    assert_eq!(sizes, [("a", "w", 30, true), ("b", "v", 20, false)], "one whose size is not known now is none of them");
    assert_eq!(told.omitted(), 1);
    assert_eq!((read(&database, 9).await.omitted(), read(&database, 0).await.omitted()), (0, 3));
}

#[tokio::test]
async fn only_nodes_that_are_there_and_have_an_engine_tell() {
    let database = Database::new().await;
    for node in ["a", "left", "engineless", "retired"] {
        found(&database, &format!("t:{node}"), node, &[result("v", 10)]).await;
    }
    let changes = [
        "UPDATE nodes SET absent_since = clock_timestamp() WHERE name = 'left'",
        "UPDATE nodes SET has_engine = false WHERE name = 'engineless'",
        "UPDATE nodes SET deleted_at = clock_timestamp() WHERE name = 'retired'",
        "INSERT INTO nodes (name, uid) VALUES ('new', 'new-uid')",
    ];
    for change in changes {
        database::execute(&mut *database.superuser().await, change.to_owned()).await;
    }
    let told = read(&database, 9).await;
    assert_eq!(told.nodes.iter().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(told.volumes.iter().map(|volume| volume.node.as_str()).collect::<Vec<_>>(), ["a"]);
}
