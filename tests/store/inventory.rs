//! What is on a node, and what is gone from it.

use super::*;

fn named(inode: i64, birth: i64) -> InventoryVolume {
    InventoryVolume { inode: Some(inode), birth_time_ns: Some(birth), ..volume("a") }
}

/// A new run over n1 with a fresh agent that holds its ticket.
async fn next_run<'a>(database: &'a Database, key: &str) -> (Uuid, Agent<'a>) {
    let run = plan(database, key, &["n1"]).await;
    let ticket = ticket(database, run, "n1").await;
    let agent = Agent::on(database, "n1");
    agent.claimed(ticket).await;
    (ticket, agent)
}

#[tokio::test]
async fn only_a_complete_inventory_marks_what_is_gone() {
    let database = Database::new().await;
    let other = plan(&database, "other", &["n2"]).await;
    Agent::on(&database, "n2").measure(ticket(&database, other, "n2").await, &[("a", 1)]).await;
    let (first, agent) = next_run(&database, "1").await;
    agent.inventory(first, &[volume("a"), volume("b")], &[container("c", "running", &["a"])]).await;

    let (second, agent) = next_run(&database, "2").await;
    let one_of_two = InventoryTotals { volumes: 2, containers: 0 };
    assert_eq!(agent.chunk(second, &[volume("a")], &[], None).await, Reply::Ok);
    assert!(matches!(agent.chunk(second, &[], &[], Some(one_of_two)).await, Reply::Incomplete { .. }));
    assert_eq!(database.number("SELECT count(*) FROM volumes WHERE node = 'n1' AND deleted_at IS NULL").await, 2);

    assert_eq!(agent.chunk(second, &[], &[], Some(InventoryTotals { volumes: 1, containers: 0 })).await, Reply::Ok);
    assert_eq!(
        database.number("SELECT count(*) FROM volumes WHERE name = 'b' AND status = 'removed' AND NOT is_active").await,
        1
    );
    assert_eq!(database.number("SELECT count(*) FROM containers WHERE deleted_at IS NULL").await, 0);
    assert_eq!(
        database.number("SELECT count(*) FROM volumes WHERE node = 'n2' AND deleted_at IS NULL").await,
        1,
        "another node's are untouched"
    );
}

#[tokio::test]
async fn a_volume_made_anew_under_its_name_is_another_row() {
    let database = Database::new().await;
    let (first, agent) = next_run(&database, "1").await;
    agent.inventory(first, &[named(7, 100)], &[]).await;
    agent.report(first, &[result("a", 100)]).await;
    let (second, agent) = next_run(&database, "2").await;
    agent.inventory(second, &[named(7, 100)], &[]).await;
    assert_eq!(database.number("SELECT count(*) FROM volumes").await, 1, "the same volume");
    agent.inventory(second, &[volume("a")], &[]).await;
    assert_eq!(database.number("SELECT count(*) FROM volumes").await, 1, "not known is not different");
    agent.inventory(second, &[named(7, 200)], &[]).await;
    assert_eq!(
        database.number("SELECT count(*) FROM volumes").await,
        2,
        "an inode that is used again has another birth time"
    );
    assert_eq!(database.number("SELECT count(*) FROM volumes WHERE deleted_at IS NULL").await, 1);
    assert_eq!(
        database
            .number(
                "SELECT count(*) FROM volume_sizes JOIN volumes ON volumes.id = volume_sizes.volume_id WHERE volumes.deleted_at IS NOT NULL"
            )
            .await,
        1
    );
}

#[tokio::test]
async fn use_is_told_by_what_containers_do() {
    let database = Database::new().await;
    let (ticket, agent) = next_run(&database, "1").await;
    let containers = [
        container("r", "running", &["busy", "both"]),
        container("p", "paused", &["paused"]),
        container("e", "exited", &["idle", "both"]),
    ];
    let volumes = ["busy", "both", "paused", "idle", "free"].map(volume);
    agent.inventory(ticket, &volumes, &containers).await;
    let active: Vec<String> =
        sqlx::query_scalar("SELECT name FROM volumes WHERE is_active AND last_used_at IS NOT NULL ORDER BY name")
            .fetch_all(&mut **database.superuser().await)
            .await
            .unwrap();
    assert_eq!(active, ["both", "busy", "paused"]);
    let (ticket, agent) = next_run(&database, "2").await;
    agent.inventory(ticket, &volumes, &[container("r", "exited", &["busy"])]).await;
    assert_eq!(database.number("SELECT count(*) FROM volumes WHERE is_active").await, 0);
    assert_eq!(
        database.number("SELECT count(*) FROM volumes WHERE last_used_at IS NOT NULL").await,
        3,
        "when it was used last is kept"
    );
}

#[tokio::test]
async fn hostile_names_and_labels_come_back_as_they_went_in() {
    let database = Database::new().await;
    let (ticket, agent) = next_run(&database, "1").await;
    let names = [
        "a'; DROP TABLE volumes; --",
        "\"quoted\"",
        "back\\slash",
        "{\"json\": null}",
        "new\nline",
        "\u{1b}[31mred",
        "ü🦀\u{202e}",
        "\\u{0}",
    ];
    let volumes: Vec<_> = names
        .iter()
        .map(|name| InventoryVolume { labels: [((*name).to_owned(), (*name).to_owned())].into(), ..volume(name) })
        .collect();
    assert_eq!(agent.inventory(ticket, &volumes, &[container("c'\"\\", "running", &names)]).await, Reply::Ok);
    let results: Vec<_> = names.iter().map(|name| result(name, 1)).collect();
    agent.report(ticket, &results).await;
    assert_eq!(agent.complete(ticket, names.len()).await, Reply::Ok);
    let stored: Vec<String> = sqlx::query_scalar("SELECT name FROM volumes WHERE is_active AND labels ->> name = name")
        .fetch_all(&mut **database.superuser().await)
        .await
        .unwrap();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(stored), sorted(names.map(str::to_owned).to_vec()));
}

#[tokio::test]
async fn a_name_listed_twice_is_one_volume() {
    let database = Database::new().await;
    let (ticket, agent) = next_run(&database, "1").await;
    agent
        .chunk(
            ticket,
            &[volume("a"), volume("a")],
            &[container("c", "running", &["a"]), container("c", "running", &["a"])],
            None,
        )
        .await;
    assert_eq!(database.number("SELECT count(*) FROM volumes").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM container_volumes").await, 1);
}

/// Who used a volume is told when the container, its labels and its mounts are long gone.
#[tokio::test]
async fn where_a_volume_comes_from_is_kept_when_its_container_is_gone() {
    let database = Database::new().await;
    let (first, agent) = next_run(&database, "1").await;
    let labelled = |id: &str, state: &str, volume: &str, labels: &[(&str, &str)]| InventoryContainer {
        image: format!("{id}:17"),
        labels: labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
        ..container(id, state, &[volume])
    };
    let compose = [("com.docker.compose.project", "shop"), ("com.docker.compose.service", "db")];
    let pod = [("io.kubernetes.pod.namespace", "prod"), ("io.kubernetes.pod.name", "db-0")];
    let containers = [
        labelled("web", "running", "compose", &compose),
        // A newer one that is stopped tells less than one that runs.
        labelled("zombie", "exited", "compose", &[]),
        labelled("kube", "exited", "pod", &pod),
    ];
    let only_labelled = InventoryVolume {
        labels: [("com.docker.compose.project".to_owned(), "idle".to_owned())].into(),
        ..volume("labelled")
    };
    let volumes = [volume("compose"), volume("pod"), only_labelled, volume("nobody")];
    assert_eq!(agent.inventory(first, &volumes, &containers).await, Reply::Ok);
    let (second, agent) = next_run(&database, "2").await;
    assert_eq!(agent.inventory(second, &volumes, &[]).await, Reply::Ok);
    database::execute(&mut **database.superuser().await, "DELETE FROM containers".to_owned()).await;
    let mut conn = database.controller().await;
    for (name, origin) in [
        (
            "compose",
            json!({"container": "web-name", "image": "web:17", "compose_project": "shop", "compose_service": "db"}),
        ),
        ("pod", json!({"container": "kube-name", "image": "kube:17", "pod": "prod/db-0"})),
        ("labelled", json!({"compose_project": "idle"})),
        ("nobody", json!({})),
    ] {
        let volume = store::volumes::find(&mut conn, &format!("n1/{name}")).await.unwrap().unwrap();
        assert_eq!(json!(volume.origin), origin, "{name}");
    }
}

#[tokio::test]
async fn who_held_a_volume_is_read_page_by_page_with_those_that_are_gone_last() {
    let database = Database::new().await;
    let (first, agent) = next_run(&database, "1").await;
    let all: Vec<_> = (0..7).map(|n| container(&format!("c{n}"), "running", &["a"])).collect();
    agent.inventory(first, &[volume("a"), volume("b")], &all).await;
    let (second, agent) = next_run(&database, "2").await;
    let there = InventoryContainer {
        mounts: ["/data", "/again"]
            .map(|path| InventoryMount { volume: "a".to_owned(), destination: path.to_owned(), read_write: false })
            .to_vec(),
        ..container("c3", "running", &[])
    };
    agent.inventory(second, &[volume("a"), volume("b")], &[there]).await;
    let mut conn = database.controller().await;
    let id = store::volumes::find(&mut conn, "n1/a").await.unwrap().unwrap().id;
    let whole = store::containers::of_volume(&mut conn, id, None, 500).await.unwrap();
    assert_eq!(whole.len(), 8, "one has it twice");
    assert!(whole[..2].iter().all(|held| held.container_id == "c3" && held.deleted_at.is_none()));
    assert!(whole[2..].iter().all(|held| held.container_id != "c3" && held.deleted_at.is_some()));
    for limit in 1..=3 {
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let page = store::containers::of_volume(&mut conn, id, after.as_ref(), limit).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(store::containers::Cursor::decode(&last.cursor(id), id).unwrap());
            read.extend(page);
            assert!(read.len() <= whole.len(), "pages without end");
        }
        assert_eq!(read, whole, "pages of {limit}");
    }
    assert!(store::containers::Cursor::decode(&whole[0].cursor(id), id + 1).is_err(), "of another volume");
}
