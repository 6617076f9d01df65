//! Who may write under which ticket.

use super::*;

async fn lose_ticket(database: &Database, run: i64, job: i64, seen: Uuid) -> Uuid {
    database.expire_leases().await;
    assert!(store::jobs::re_ticket(&mut *database.controller().await, job, seen, 3).await.unwrap());
    ticket(database, run, "n1").await
}

async fn job_id(database: &Database, run: i64) -> i64 {
    store::jobs::open(&mut *database.controller().await, run).await.unwrap()[0].id
}

#[tokio::test]
async fn a_repeated_claim_gets_the_same_answer_and_another_instance_is_fenced() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    let again = agent.claimed(ticket).await;
    assert_eq!(again.attempt, 1);
    assert_eq!(Agent::on(&database, "n1").claim(ticket).await, ClaimReply::Fenced, "two holders of one ticket");
}

/// A ticket that two processes know: only the one that claimed it may use it.
#[tokio::test]
async fn a_ticket_works_for_the_instance_that_claimed_it_only() {
    let database = Database::new().await;
    let (_, ticket, _holder) = claimed(&database).await;
    let other = Agent::on(&database, "n1");
    assert_eq!(other.heartbeat(ticket).await, Reply::Fenced);
    assert_eq!(other.inventory(ticket, &[volume("a")], &[]).await, Reply::Fenced);
    assert_eq!(other.report(ticket, &[result("a", 1)]).await, Reply::Fenced);
    assert_eq!(other.complete(ticket, 0).await, Reply::Fenced);
    assert_eq!(other.fail(ticket, FailureClass::Permanent, "AgentError").await, Reply::Fenced);
    assert_eq!(database.number("SELECT count(*) FROM scan_jobs WHERE status = 'running'").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM volumes").await, 0);
}

#[tokio::test]
async fn a_ticket_is_for_its_node_and_machine_only() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1", "n2"]).await;
    let ticket = ticket(&database, run, "n1").await;
    assert_eq!(Agent::on(&database, "n2").claim(ticket).await, ClaimReply::Fenced);
    assert_eq!(Agent::on(&database, "n1").claim(Uuid::new_v4()).await, ClaimReply::Fenced);
    sqlx::query("UPDATE scan_jobs SET node_uid = 'another machine'")
        .execute(&mut **database.superuser().await)
        .await
        .unwrap();
    assert_eq!(Agent::on(&database, "n1").claim(ticket).await, ClaimReply::Fenced);
}

#[tokio::test]
async fn nothing_is_written_under_a_replaced_ticket() {
    let database = Database::new().await;
    let (run, old, agent) = claimed(&database).await;
    assert_eq!(agent.inventory(old, &[volume("a"), volume("b")], &[]).await, Reply::Ok);
    assert_eq!(agent.report(old, &[result("a", 100)]).await, Reply::Ok);
    let new = lose_ticket(&database, run, job_id(&database, run).await, old).await;
    assert_ne!(new, old);
    assert_eq!(agent.claim(old).await, ClaimReply::Fenced);
    assert_eq!(agent.heartbeat(old).await, Reply::Fenced);
    assert_eq!(agent.inventory(old, &[], &[]).await, Reply::Fenced);
    assert_eq!(agent.report(old, &[result("b", 200)]).await, Reply::Fenced);
    assert_eq!(agent.complete(old, 2).await, Reply::Fenced);
    assert_eq!(agent.fail(old, FailureClass::Permanent, "AgentError").await, Reply::Fenced);
    assert_eq!(database.number("SELECT count(*) FROM scan_results").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM volumes WHERE deleted_at IS NULL").await, 2);
    assert_eq!(database.number("SELECT count(*) FROM scan_jobs WHERE status = 'pending' AND attempt = 2").await, 1);
}

#[tokio::test]
async fn a_call_past_its_lease_is_accepted_and_renews_it() {
    let database = Database::new().await;
    let (run, ticket, agent) = claimed(&database).await;
    database.expire_leases().await;
    assert_eq!(agent.heartbeat(ticket).await, Reply::Ok);
    let job = &store::jobs::open(&mut *database.controller().await, run).await.unwrap()[0];
    assert!(!job.lease_expired);
    let too_late = store::jobs::re_ticket(&mut *database.controller().await, job.id, ticket, 3).await.unwrap();
    assert!(!too_late, "a renewed lease was taken away");
}

#[tokio::test]
async fn two_leaders_give_one_new_ticket() {
    let database = Database::new().await;
    let (run, seen, _) = claimed(&database).await;
    let job = job_id(&database, run).await;
    database.expire_leases().await;
    let (mut a, mut b) = (database.controller().await, database.controller().await);
    let (a, b) =
        tokio::join!(store::jobs::re_ticket(&mut a, job, seen, 3), store::jobs::re_ticket(&mut b, job, seen, 3));
    assert_eq!([a.unwrap(), b.unwrap()].iter().filter(|won| **won).count(), 1);
    assert_eq!(database.number("SELECT attempt::bigint FROM scan_jobs").await, 2);
}

#[tokio::test]
async fn finished_volumes_are_not_measured_again() {
    let database = Database::new().await;
    let (run, old, agent) = claimed(&database).await;
    agent.inventory(old, &[volume("a"), volume("b")], &[]).await;
    agent.report(old, &[result("a", 100)]).await;
    let new = lose_ticket(&database, run, job_id(&database, run).await, old).await;
    let second = Agent::on(&database, "n1");
    let claim = second.claimed(new).await;
    assert_eq!((claim.attempt, claim.final_volumes), (2, vec!["a".to_owned()]));
    second.inventory(new, &[volume("a"), volume("b")], &[]).await;
    assert_eq!(second.report(new, &[result("a", 999), result("b", 200)]).await, Reply::Ok);
    assert_eq!(second.complete(new, 2).await, Reply::Ok);
    let kept = database
        .number("SELECT allocated_bytes FROM scan_results JOIN volumes ON volumes.id = scan_results.volume_id WHERE name = 'a'")
        .await;
    assert_eq!(kept, 100, "a reported outcome is final for the run");
    assert_eq!(database.number("SELECT count(*) FROM volume_sizes").await, 2, "one size a volume and run");
}

#[tokio::test]
async fn repeated_calls_write_nothing_twice() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    for _ in 0..2 {
        assert_eq!(agent.inventory(ticket, &[volume("a")], &[container("c", "running", &["a"])]).await, Reply::Ok);
    }
    for _ in 0..2 {
        assert_eq!(agent.report(ticket, &[result("a", 100)]).await, Reply::Ok);
    }
    for _ in 0..2 {
        assert_eq!(agent.complete(ticket, 1).await, Reply::Ok, "the reply to the first complete was lost");
    }
    assert_eq!(Agent::on(&database, "n1").complete(ticket, 1).await, Reply::Fenced, "only the winner may repeat");
    for table in [
        "SELECT count(*) FROM volumes",
        "SELECT count(*) FROM containers",
        "SELECT count(*) FROM container_volumes",
        "SELECT count(*) FROM scan_results",
        "SELECT count(*) FROM volume_sizes",
        "SELECT sum(samples)::bigint FROM volume_sizes_daily",
    ] {
        assert_eq!(database.number(table).await, 1, "{table}");
    }
}

#[tokio::test]
async fn a_completed_job_takes_nothing_more() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    agent.inventory(ticket, &[volume("a")], &[]).await;
    agent.report(ticket, &[result("a", 100)]).await;
    agent.complete(ticket, 1).await;
    assert_eq!(agent.heartbeat(ticket).await, Reply::Fenced);
    assert_eq!(agent.report(ticket, &[result("a", 5)]).await, Reply::Fenced);
    assert_eq!(agent.fail(ticket, FailureClass::Retryable, "AgentError").await, Reply::Fenced);
    assert_eq!(agent.claim(ticket).await, ClaimReply::Fenced);
    assert_eq!(database.number("SELECT count(*) FROM scan_jobs WHERE status = 'succeeded'").await, 1);
}

#[tokio::test]
async fn complete_demands_that_all_counts_agree() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    let incomplete = |reply: Reply| matches!(reply, Reply::Incomplete { .. });
    assert!(incomplete(agent.complete(ticket, 0).await), "without inventory");
    agent.inventory(ticket, &[volume("a"), volume("b")], &[]).await;
    agent.report(ticket, &[result("a", 100)]).await;
    assert!(incomplete(agent.complete(ticket, 1).await), "a selected volume has no result");
    assert!(incomplete(agent.complete(ticket, 2).await), "the agent counts one that never came");
    agent.report(ticket, &[result("b", 100)]).await;
    assert!(incomplete(agent.complete(ticket, 3).await));
    assert_eq!(agent.complete(ticket, 2).await, Reply::Ok);
}

#[tokio::test]
async fn each_class_of_failure_does_what_it_says() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1", "n2", "n3"]).await;
    let fail = async |node: &str, class, reason: &str| {
        let (held, agent) = (ticket(&database, run, node).await, Agent::on(&database, node));
        agent.claimed(held).await;
        assert_eq!(agent.fail(held, class, reason).await, Reply::Ok);
        assert_eq!(agent.heartbeat(held).await, Reply::Fenced);
    };
    fail("n1", FailureClass::HandedBack, "AgentError").await;
    let job = &store::jobs::open(&mut *database.controller().await, run).await.unwrap()[0];
    assert!(job.due, "a job handed back is due at once");
    assert_eq!(database.number("SELECT attempt::bigint FROM scan_jobs WHERE node = 'n1'").await, 1);
    for attempt in 1..=3 {
        assert_eq!(database.number("SELECT attempt::bigint FROM scan_jobs WHERE node = 'n1'").await, attempt);
        fail("n1", FailureClass::Retryable, "DockerUnreachable").await;
    }
    fail("n2", FailureClass::Permanent, "AgentError").await;
    fail("n3", FailureClass::Permanent, "NoDockerEngine").await;
    let progress = store::runs::progress(&mut *database.controller().await, run).await.unwrap();
    assert_eq!((progress.nodes.failed, progress.nodes.skipped, progress.without_docker), (2, 1, 1));
    let failed = store::jobs::failed_nodes(&mut *database.controller().await, run, 1).await.unwrap();
    assert_eq!((failed.total, failed.nodes[0].reason.as_str()), (2, "DockerUnreachable"));
}

#[tokio::test]
async fn a_run_says_itself_how_often_a_node_is_tried() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    let limit = "UPDATE scan_runs SET work = jsonb_set(work, '{maxAttempts}', '2')";
    database::execute(&mut **database.superuser().await, limit.to_owned()).await;
    for expected in ["pending", "failed"] {
        let (held, agent) = (ticket(&database, run, "n1").await, Agent::on(&database, "n1"));
        agent.claimed(held).await;
        agent.fail(held, FailureClass::Retryable, "DockerUnreachable").await;
        let status: String = sqlx::query_scalar("SELECT status FROM scan_jobs")
            .fetch_one(&mut **database.superuser().await)
            .await
            .unwrap();
        assert_eq!(status, expected);
    }
}

#[tokio::test]
async fn the_third_lost_lease_ends_the_job() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    for attempt in 1..=3 {
        let held = ticket(&database, run, "n1").await;
        assert_eq!(Agent::on(&database, "n1").claimed(held).await.attempt, attempt);
        database.expire_leases().await;
        let job = job_id(&database, run).await;
        assert!(store::jobs::re_ticket(&mut *database.controller().await, job, held, 3).await.unwrap());
    }
    let failed = store::jobs::failed_nodes(&mut *database.controller().await, run, 10).await.unwrap();
    assert_eq!(failed.nodes[0].reason, "AgentLost");
}

#[tokio::test]
async fn a_run_that_has_ended_gives_no_job() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    let held = ticket(&database, run, "n1").await;
    sqlx::query("UPDATE scan_runs SET deadline = clock_timestamp()")
        .execute(&mut **database.superuser().await)
        .await
        .unwrap();
    assert_eq!(Agent::on(&database, "n1").claim(held).await, ClaimReply::Fenced);
}

#[tokio::test]
async fn the_node_deadline_counts_from_the_claim_and_ends_with_the_run() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    let node = agent.claimed(ticket).await.remaining_ms;
    assert!((3_590_000..=3_600_000).contains(&node), "{node}");
    sqlx::query("UPDATE scan_jobs SET status = 'pending', lease_expires_at = NULL")
        .execute(&mut **database.superuser().await)
        .await
        .unwrap();
    sqlx::query("UPDATE scan_runs SET deadline = clock_timestamp() + interval '1 minute'")
        .execute(&mut **database.superuser().await)
        .await
        .unwrap();
    let run = agent.claimed(ticket).await.remaining_ms;
    assert!((50_000..=60_000).contains(&run), "{run}");
}
