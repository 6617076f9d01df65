//! Planning, ending and cancelling runs, as the controller's role.

use super::*;
use volumeviz::domain::run::{CancelReason, Ending, RunResult};
use volumeviz::store::health::{Reason, probe};
use volumeviz::store::runs::UnderWay;

#[tokio::test]
async fn planning_twice_makes_one_run() {
    let database = Database::new().await;
    let first = plan(&database, "t:now", &["n1", "n2"]).await;
    assert_eq!(plan(&database, "t:now", &["n3"]).await, first);
    assert_eq!(database.number("SELECT count(*) FROM scan_jobs").await, 2);
    assert_ne!(plan(&database, "t:later", &["n1"]).await, first);
}

#[tokio::test]
async fn two_leaders_planning_at_once_make_one_run() {
    let database = Database::new().await;
    let (a, b) = tokio::join!(plan(&database, "once", &["n1"]), plan(&database, "once", &["n1"]));
    assert_eq!(a, b);
    assert_eq!(database.number("SELECT count(*) FROM scan_runs").await, 1);
}

#[tokio::test]
async fn a_run_ends_once() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    let mut conn = database.controller().await;
    assert!(store::runs::finish(&mut conn, run, RunResult::Partial, "DeadlineExceeded").await.unwrap());
    assert!(!store::runs::finish(&mut conn, run, RunResult::Succeeded, "RunSucceeded").await.unwrap());
    let history = store::runs::history(&mut conn, "scan-uid", 5).await.unwrap();
    assert_eq!(history[0].result, Some(RunResult::Partial));
    assert!(store::runs::active(&mut conn, "scan-uid").await.unwrap().is_none());
}

#[tokio::test]
async fn a_passed_deadline_ends_what_is_open_and_keeps_what_went_wrong() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1", "n2", "n3"]).await;
    Agent::on(&database, "n1").measure(ticket(&database, run, "n1").await, &[("a", 1)]).await;
    let held = ticket(&database, run, "n2").await;
    let agent = Agent::on(&database, "n2");
    agent.claimed(held).await;
    let mut conn = database.controller().await;
    assert_eq!(store::jobs::end_open(&mut conn, run).await.unwrap(), 2);
    assert_eq!(agent.heartbeat(held).await, Reply::Fenced);
    let nodes = store::runs::progress(&mut conn, run).await.unwrap().nodes;
    assert_eq!((nodes.succeeded, nodes.failed, nodes.skipped), (1, 1, 1));
}

#[tokio::test]
async fn a_job_ends_only_as_it_was_seen() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    let seen = ticket(&database, run, "n1").await;
    let mut conn = database.controller().await;
    let job = store::jobs::open(&mut conn, run).await.unwrap()[0].id;
    Agent::on(&database, "n1").claimed(seen).await;
    assert!(
        !store::jobs::end(&mut conn, job, seen, Ending::Skipped, "AgentMissing", "").await.unwrap(),
        "it was claimed a moment ago"
    );
    assert!(!store::jobs::end(&mut conn, job, Uuid::new_v4(), Ending::Failed, "NodeGone", "").await.unwrap());
    assert!(store::jobs::end(&mut conn, job, seen, Ending::Failed, "NodeGone", "").await.unwrap());
}

#[tokio::test]
async fn runs_are_cancelled_once_and_their_agents_fenced() {
    let database = Database::new().await;
    let (run, ticket, agent) = claimed(&database).await;
    let mut conn = database.controller().await;
    let under_way = UnderWay { id: run, scan_uid: "scan-uid".to_owned(), abandoned: false };
    assert_eq!(store::runs::under_way(&mut conn).await.unwrap(), std::slice::from_ref(&under_way));
    let late = "UPDATE scan_runs SET deadline = clock_timestamp() - interval '91 seconds'";
    sqlx::query(late).execute(&mut **database.superuser().await).await.unwrap();
    assert_eq!(store::runs::under_way(&mut conn).await.unwrap(), [UnderWay { abandoned: true, ..under_way }]);
    assert_eq!(store::runs::cancel(&mut conn, &[run], CancelReason::VolumeScanDeleted).await.unwrap(), [run]);
    assert_eq!(store::runs::cancel(&mut conn, &[run], CancelReason::Replaced).await.unwrap(), [0_i64; 0], "once");
    assert_eq!(agent.heartbeat(ticket).await, Reply::Fenced);
    assert!(store::jobs::open(&mut conn, run).await.unwrap().is_empty());
}

#[tokio::test]
async fn health_tells_its_reasons_apart() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let reason = async |conn: &mut database::Conn, cluster: &str| {
        probe(conn, cluster).await.unwrap().problem.map(|(reason, _)| reason)
    };
    assert_eq!(reason(&mut conn, "cluster-a").await, None);
    assert_eq!(reason(&mut conn, "cluster-b").await, Some(Reason::ForeignDatabase));
    let mut superuser = database.superuser().await;
    database::execute(&mut superuser, "UPDATE migrations SET success = false WHERE version = 3".to_owned()).await;
    assert_eq!(reason(&mut conn, "cluster-a").await, Some(Reason::SchemaMismatch));
    database::execute(
        &mut superuser,
        "UPDATE migrations SET success = true; DELETE FROM migrations WHERE version = 6".to_owned(),
    )
    .await;
    assert_eq!(reason(&mut conn, "cluster-a").await, Some(Reason::SchemaMismatch));
    let mut owner = database.superuser().await;
    let (lock, unlock) = ("SELECT pg_advisory_lock($1, $2)", "SELECT pg_advisory_unlock($1, $2)");
    for statement in [lock, unlock] {
        if statement == unlock {
            assert_eq!(reason(&mut conn, "cluster-a").await, Some(Reason::Migrating));
        }
        let bound = sqlx::query(statement).bind(volumeviz::migrate::LOCK_CLASS).bind(volumeviz::migrate::LOCK_OBJECT);
        bound.execute(&mut **owner).await.unwrap();
    }
    database::execute(&mut superuser, "INSERT INTO migrations SELECT 6, 'x', now(), true, '', 0".to_owned()).await;
    for right in [
        "INSERT ON scan_runs",
        "UPDATE ON scan_runs",
        "INSERT ON scan_jobs",
        "UPDATE ON scan_jobs",
        "INSERT ON audit_events",
        "SELECT ON scan_results",
        "UPDATE (absent_since) ON nodes",
    ] {
        database::execute(&mut superuser, format!("REVOKE {right} FROM volumeviz_controller")).await;
        assert_eq!(reason(&mut conn, "cluster-a").await, Some(Reason::GrantsMissing), "{right}");
        database::execute(&mut superuser, format!("GRANT {right} TO volumeviz_controller")).await;
        assert_eq!(reason(&mut conn, "cluster-a").await, None, "{right}");
    }
    database::execute(&mut superuser, "REVOKE SELECT ON migrations FROM volumeviz_controller".to_owned()).await;
    assert_eq!(reason(&mut conn, "cluster-a").await, Some(Reason::GrantsMissing));
    database::execute(&mut superuser, format!("GRANT SELECT ON migrations TO volumeviz_controller; ALTER DATABASE {} SET default_transaction_read_only = on", database.name)).await;
    assert_eq!(reason(&mut *database.controller().await, "cluster-a").await, Some(Reason::ReadOnly));
    let bare = Database::bare().await;
    assert_eq!(reason(&mut *bare.controller().await, "cluster-a").await, Some(Reason::Migrating));
}

#[tokio::test]
async fn nodes_without_an_engine_are_counted_as_far_as_they_are_asked_for() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1", "n2", "n3", "n4"]).await;
    for node in ["n1", "n2"] {
        let (held, agent) = (ticket(&database, run, node).await, Agent::on(&database, node));
        agent.claimed(held).await;
        agent.fail(held, FailureClass::Permanent, "NoDockerEngine").await;
    }
    Agent::on(&database, "n3").measure(ticket(&database, run, "n3").await, &[("a", 1)]).await;
    Agent::on(&database, "n4").claimed(ticket(&database, run, "n4").await).await;
    let mut conn = database.controller().await;
    let mut without = async |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        store::nodes::without_engine(&mut conn, &names).await.unwrap()
    };
    assert_eq!(without(&["n1", "n2", "n3", "n4", "n5"]).await, 2, "not yet looked at is not without");
    assert_eq!(without(&["n2", "n3"]).await, 1);
    assert_eq!(without(&[]).await, 0);
    let gone = "UPDATE nodes SET deleted_at = now() WHERE name = 'n1'";
    database::execute(&mut **database.superuser().await, gone.to_owned()).await;
    assert_eq!(without(&["n1", "n2"]).await, 1, "one was given up");
}
