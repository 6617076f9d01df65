//! What a request may cost.

use std::time::Instant;

use futures::future::join_all;
use sqlx::Connection;

use super::*;

/// Backends of the API's pool.
async fn backends(database: &Database) -> Vec<i32> {
    sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE usename = 'vv_controller' AND datname = current_database() ORDER BY pid",
    )
    .fetch_all(&mut **database.superuser().await)
    .await
    .unwrap()
}

async fn waiting(database: &Database) -> i64 {
    database
        .number("SELECT count(*) FROM pg_stat_activity WHERE usename = 'vv_controller' AND datname = current_database() AND wait_event_type = 'Lock'")
        .await
}

async fn until_waiting(database: &Database, count: i64) {
    let until = Instant::now() + Duration::from_secs(20);
    while waiting(database).await != count {
        assert!(Instant::now() < until, "{count} requests should wait for the lock, {} do", waiting(database).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_kills_no_connection() {
    let database = Database::new().await;
    let served = Served::over(&database, &["--db-max-open-conns", "1"]).await;
    served.ok("/api/v1/volumes").await;
    let before = backends(&database).await;
    assert_eq!(before.len(), 1);
    let mut superuser = database.superuser().await;
    let mut lock = superuser.begin().await.unwrap();
    sqlx::query("LOCK TABLE volumes IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let request = served.get("/api/v1/volumes");
    tokio::select! {
        answer = request => panic!("answered beside a lock: {answer:?}"),
        () = until_waiting(&database, 1) => {}
    }
    lock.rollback().await.unwrap();
    until_waiting(&database, 0).await;
    served.ok("/api/v1/volumes").await;
    assert_eq!(backends(&database).await, before, "the same connection");
}

#[tokio::test]
async fn the_server_gives_a_long_query_up_and_the_connection_stays() {
    let database = Database::new().await;
    let served = Served::over(&database, &["--db-max-open-conns", "1"]).await;
    served.ok("/api/v1/volumes").await;
    let before = backends(&database).await;
    let mut superuser = database.superuser().await;
    let mut lock = superuser.begin().await.unwrap();
    sqlx::query("LOCK TABLE volumes IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let answer = served.get("/api/v1/volumes").await;
    assert_eq!((answer.status, answer.body["reason"].as_str()), (504, Some("Timeout")), "{answer:?}");
    lock.rollback().await.unwrap();
    served.ok("/api/v1/volumes").await;
    assert_eq!(backends(&database).await, before, "the same connection");
}

/// A row that is added between the count and the page is in neither.
#[tokio::test]
async fn a_total_and_its_rows_are_of_one_moment() {
    let database = Database::new().await;
    let served = Served::over(&database, &[]).await;
    let add = "INSERT INTO volumes (volume_id, node, name) VALUES ('n/a', 'n', 'a')";
    let mut superuser = database.superuser().await;
    let mut lock = superuser.begin().await.unwrap();
    // The count does not look there, the page does.
    sqlx::query("LOCK TABLE volume_latest IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let (page, ()) = tokio::join!(served.ok("/api/v1/volumes?count=true"), async {
        until_waiting(&database, 1).await;
        database::execute(&mut **database.superuser().await, add.to_owned()).await;
        lock.rollback().await.unwrap();
    });
    assert_eq!((&page["total"], page["items"].as_array().unwrap().len()), (&serde_json::json!(0), 0));
    assert_eq!(served.ok("/api/v1/volumes?count=true").await["total"], 1);
}

#[tokio::test]
async fn only_so_many_requests_are_answered_at_a_time() {
    let database = Database::new().await;
    let served = Served::over(&database, &[]).await;
    served.ok("/api/v1/volumes").await;
    let mut superuser = database.superuser().await;
    let mut lock = superuser.begin().await.unwrap();
    sqlx::query("LOCK TABLE volumes IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let requests = join_all((0..20).map(|_| served.get("/api/v1/volumes")));
    let (answers, ()) = tokio::join!(requests, async {
        until_waiting(&database, 8).await;
    });
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(504), count(429)), (8, 12), "those that wait are given up by the server, the others get no turn");
    lock.rollback().await.unwrap();
    served.ok("/api/v1/volumes").await;
}

#[tokio::test]
async fn nothing_is_written() {
    let database = Database::new().await;
    let served = Served::over(&database, &[]).await;
    for path in ["/api/v1/volumes", "/api/v1/nodes", "/api/v1/database/stats"] {
        let response = reqwest::Client::new()
            .post(format!("{}{path}", served.url))
            .bearer_auth(&served.token)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 405, "{path}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["reason"], "MethodNotAllowed");
    }
}
