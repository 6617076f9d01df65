//! The trail of decisions.

use sqlx::Connection;
use volumeviz::domain::run::CancelReason;
use volumeviz::store::audit::{self, Action};
use volumeviz::store::jobs;

use super::*;

async fn actions(database: &Database, subject: &str) -> Vec<String> {
    let events = audit::list(&mut *database.readonly().await, Some(subject), i64::MAX, 100).await.unwrap();
    events.into_iter().map(|event| format!("{} {}", event.actor, event.action)).collect()
}

#[tokio::test]
async fn planning_retrying_and_cancelling_leave_their_trace() {
    let database = Database::new().await;
    let (run, ticket, _) = claimed(&database).await;
    assert_eq!(actions(&database, &format!("run/{run}")).await, ["vv_controller RunPlanned"]);
    let mut controller = database.controller().await;
    let job = jobs::active(&mut controller).await.unwrap()[0].id;
    assert!(!jobs::re_ticket(&mut controller, job, ticket, 3).await.unwrap(), "its lease holds");
    assert_eq!(actions(&database, &format!("job/{job}")).await, [""; 0]);
    database.expire_leases().await;
    assert!(jobs::re_ticket(&mut controller, job, ticket, 3).await.unwrap());
    assert_eq!(actions(&database, &format!("job/{job}")).await, ["vv_controller JobRetried"]);
    store::runs::cancel(&mut controller, &[run], CancelReason::VolumeScanDeleted).await.unwrap();
    assert_eq!(
        actions(&database, &format!("run/{run}")).await,
        ["vv_controller RunCancelled", "vv_controller RunPlanned"]
    );
}

#[tokio::test]
async fn a_job_that_its_agent_gives_back_is_in_the_trail_and_so_is_its_last_attempt() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1", "n2"]).await;
    let job = store::jobs::open(&mut *database.controller().await, run).await.unwrap()[0].id;
    let fail = async |node: &str, class| {
        let (held, agent) = (ticket(&database, run, node).await, Agent::on(&database, node));
        agent.claimed(held).await;
        assert_eq!(agent.fail(held, class, "AgentError").await, Reply::Ok);
    };
    fail("n1", FailureClass::HandedBack).await;
    for _ in 0..3 {
        fail("n1", FailureClass::Retryable).await;
    }
    fail("n2", FailureClass::Permanent).await;
    let trail = actions(&database, &format!("job/{job}")).await;
    assert_eq!(
        trail,
        ["vv_agent JobFailed", "vv_agent JobRetried", "vv_agent JobRetried", "vv_agent JobRetried"],
        "newest first"
    );
    let last =
        &audit::list(&mut *database.readonly().await, Some(&format!("job/{job}")), i64::MAX, 1).await.unwrap()[0];
    assert_eq!(
        last.detail,
        json!({"run": run, "node": "n1", "attempt": 3, "status": "failed", "reason": "AgentError"})
    );
    assert_eq!(actions(&database, &format!("job/{}", job + 1)).await, [""; 0], "it was never to be tried again");
}

#[tokio::test]
async fn a_lost_job_without_an_attempt_left_has_failed() {
    let database = Database::new().await;
    let (_, ticket, _) = claimed(&database).await;
    database::execute(&mut **database.superuser().await, "UPDATE scan_jobs SET attempt = 3".to_owned()).await;
    database.expire_leases().await;
    let mut controller = database.controller().await;
    let job = jobs::active(&mut controller).await.unwrap()[0].id;
    assert!(jobs::re_ticket(&mut controller, job, ticket, 3).await.unwrap());
    assert_eq!(actions(&database, &format!("job/{job}")).await, ["vv_controller JobFailed"]);
}

#[tokio::test]
async fn a_run_that_is_planned_twice_is_audited_once() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    assert_eq!(plan(&database, "once", &["n1"]).await, run);
    assert_eq!(actions(&database, &format!("run/{run}")).await.len(), 1);
}

#[tokio::test]
async fn an_event_goes_with_its_transaction() {
    let database = Database::new().await;
    let mut controller = database.controller().await;
    let before = database.number("SELECT count(*) FROM audit_events").await;
    let mut transaction = controller.begin().await.unwrap();
    audit::record(&mut transaction, Action::RunPlanned, "run/1", json!({})).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM audit_events").await, before);
}

#[tokio::test]
async fn a_spec_is_written_down_once_a_generation() {
    let database = Database::new().await;
    let mut controller = database.controller().await;
    let mut see = async |uid: &str, generation| {
        audit::spec_seen(&mut controller, "nightly", uid, generation, json!({"nodeSelector": null})).await.unwrap()
    };
    assert!(see("u1", 1).await);
    assert!(!see("u1", 1).await);
    assert!(see("u1", 2).await);
    assert!(see("u2", 1).await, "made anew under its name");
    assert_eq!(actions(&database, "volumescan/nightly").await.len(), 3);
}

#[tokio::test]
async fn migrations_are_in_the_trail() {
    let database = Database::new().await;
    for version in 1..=volumeviz::migrate::REQUIRED_VERSION {
        assert_eq!(actions(&database, &format!("migration/{version}")).await, ["vv_owner Migrated"], "{version}");
    }
    let mut owner = database.owner().await;
    volumeviz::migrate::down(&mut owner, 1).await.unwrap();
    for version in 2..=volumeviz::migrate::REQUIRED_VERSION {
        let reverted = "SELECT count(*) FROM audit_events WHERE action = 'MigrationReverted' AND subject = $1 AND actor = 'vv_owner'";
        let rows: i64 = sqlx::query_scalar(reverted)
            .bind(format!("migration/{version}"))
            .fetch_one(&mut **database.superuser().await)
            .await
            .unwrap();
        assert_eq!(rows, 1, "{version}");
    }
    volumeviz::migrate::down(&mut owner, 0).await.unwrap();
}

#[tokio::test]
async fn events_are_listed_newest_first_and_page_by_page() {
    let database = Database::new().await;
    let mut controller = database.controller().await;
    for n in 0..5 {
        audit::record(&mut controller, Action::RunPlanned, "run/1", json!({"n": n})).await.unwrap();
    }
    let first = audit::list(&mut controller, Some("run/1"), i64::MAX, 3).await.unwrap();
    let second = audit::list(&mut controller, Some("run/1"), first[2].id, 3).await.unwrap();
    let n: Vec<_> = first.iter().chain(&second).map(|event| event.detail["n"].as_i64().unwrap()).collect();
    assert_eq!(n, [4, 3, 2, 1, 0]);
}
