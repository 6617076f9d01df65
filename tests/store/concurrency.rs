//! Many writers of the same rows.

use futures::future::join_all;
use volumeviz::store::volumes::{self, NewVolume};

use super::*;

#[tokio::test]
async fn fifty_writers_of_one_volume_lose_nothing_and_do_not_deadlock() {
    let database = Database::new().await;
    let writers = join_all((0..50).map(|n| {
        let database = &database;
        async move {
            let mut conn = database.owner().await;
            let volume = NewVolume {
                node: "n1".to_owned(),
                name: "v".to_owned(),
                driver: "local".to_owned(),
                mountpoint: format!("/{n}"),
                ..NewVolume::default()
            };
            let id = volumes::upsert(&mut conn, &volume).await.unwrap();
            // Each reads and writes in one statement: none may be lost.
            sqlx::query(
                "UPDATE volume_rankings SET allocated_bytes = coalesce(allocated_bytes, 0) + 1 WHERE volume_id = $1",
            )
            .bind(id)
            .execute(&mut conn)
            .await
            .unwrap();
            id
        }
    }));
    let ids = tokio::time::timeout(std::time::Duration::from_secs(60), writers).await.expect("no deadlock");
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(database.number("SELECT count(*) FROM volumes").await, 1);
    assert_eq!(database.number("SELECT allocated_bytes FROM volume_rankings").await, 50);
}

/// Fifty scans measure the same volumes of one node at once, each listing them in another order.
#[tokio::test]
async fn fifty_agents_report_the_same_volumes_at_once() {
    let database = Database::new().await;
    let names: Vec<String> = (0..20).map(|n| format!("v{n}")).collect();
    let agents = join_all((0..50_usize).map(|n| {
        let (database, names) = (&database, &names);
        async move {
            let run = NewRun {
                scan_uid: format!("scan-{n}"),
                scan_name: format!("scan-{n}"),
                key: "once".to_owned(),
                work: serde_json::from_value::<WorkOrder>(json!({})).unwrap(),
                nodes: vec![("n1".to_owned(), "n1-uid".to_owned())],
            };
            let run = store::runs::plan(&mut *database.controller().await, &run).await.unwrap().id;
            let ticket = ticket(database, run, "n1").await;
            let agent = Agent::on(database, "n1");
            agent.claimed(ticket).await;
            let mut turned = names.clone();
            turned.rotate_left(n % names.len());
            let volumes: Vec<_> = turned.iter().map(|name| volume(name)).collect();
            let holders = [container("c1", "running", &turned.iter().map(String::as_str).collect::<Vec<_>>())];
            agent.inventory(ticket, &volumes, &holders).await;
            let results: Vec<_> = turned.iter().map(|name| result(name, n as u64)).collect();
            agent.report(ticket, &results).await
        }
    }));
    let replies = tokio::time::timeout(std::time::Duration::from_secs(120), agents).await.expect("no deadlock");
    assert!(replies.iter().all(|reply| *reply == Reply::Ok), "{replies:?}");
    assert_eq!(database.number("SELECT count(*) FROM volumes").await, 20);
    assert_eq!(database.number("SELECT count(*) FROM scan_results").await, 1000);
    assert_eq!(database.number("SELECT count(*) FROM volume_sizes").await, 1000);
    assert_eq!(database.number("SELECT sum(samples)::bigint FROM volume_sizes_daily").await, 1000, "no lost update");
}
