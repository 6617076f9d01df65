//! Agents, leaders and failures at once: every call is recorded with its answer, and afterwards the record and the rows must agree.
//!
//! What happens follows from a seed, but for the order in which the database takes the calls; a failure names the seed.

mod sound;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use volumeviz::domain::run::{CancelReason, Ending, RunResult};

use super::*;
use sound::{Acknowledged, Rows, What, check};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VOLUMES: [&str; 4] = ["a", "b", "c", "d"];
/// After how many of its rounds a leader plans the next run.
const ROUNDS_A_RUN: usize = 10;
const AGENTS_A_NODE: u64 = 2;
/// How long it goes on, and for how long at most until everything has happened once.
const LEAST: Duration = Duration::from_secs(8);
const MOST: Duration = Duration::from_secs(25);

/// The record, as it grows.
struct Recorder {
    began: Instant,
    history: Mutex<Vec<Acknowledged>>,
    jobs: Mutex<BTreeMap<Uuid, i64>>,
    run_ends: Mutex<BTreeMap<i64, usize>>,
}

impl Recorder {
    fn new() -> Self {
        Self { began: Instant::now(), history: Mutex::default(), jobs: Mutex::default(), run_ends: Mutex::default() }
    }

    fn now(&self) -> u128 {
        self.began.elapsed().as_micros()
    }

    /// Whether nothing new is to begin.
    fn is_over(&self) -> bool {
        let history = self.history.lock().unwrap();
        let kinds = [What::Completed, What::Replaced, What::GaveUp];
        let repeated = |n: usize, call: &Acknowledged| {
            history[n + 1..].iter().any(|other| (other.ticket, &other.what) == (call.ticket, &call.what))
        };
        let repeats = history.iter().enumerate().any(|(n, call)| call.what == What::Claimed && repeated(n, call));
        let all = repeats && kinds.iter().all(|kind| history.iter().any(|call| call.what == *kind));
        self.began.elapsed() >= if all { LEAST } else { MOST }
    }

    /// Records a call that was acknowledged.
    fn note(&self, asked: u128, ticket: Uuid, what: What) {
        let answered = self.now();
        self.history.lock().unwrap().push(Acknowledged { asked, answered, ticket, what });
    }

    fn seen(&self, jobs: &[store::jobs::OpenJob]) {
        self.jobs.lock().unwrap().extend(jobs.iter().map(|job| (job.ticket, job.id)));
    }
}

/// What an agent does when it has claimed a job.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Stops in the middle for longer than its lease, and goes on with the old ticket.
    Paused,
    /// Never hears the first answer, and repeats each call.
    Deaf,
    /// Dies in the middle; a new process comes for the next job.
    Crashing,
    GivingUp,
}

/// One node's agent for the whole history; two of them make an old process and a new one.
async fn agent(database: &Database, record: &Recorder, node: &str, mut rng: StdRng) {
    let manners = [Manner::Honest, Manner::Honest, Manner::Paused, Manner::Deaf, Manner::Crashing, Manner::GivingUp];
    while !record.is_over() {
        let agent = Agent::on(database, node);
        let open: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT ticket, id FROM scan_jobs WHERE node = $1 AND status IN ('pending', 'running') ORDER BY id",
        )
        .bind(node)
        .fetch_all(&mut **database.superuser().await)
        .await
        .unwrap();
        record.jobs.lock().unwrap().extend(open.iter().copied());
        for (ticket, _) in open {
            let manner = manners[rng.random_range(0..manners.len())];
            work(&agent, record, ticket, manner, &mut rng).await;
            if manner == Manner::Crashing {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..20))).await;
    }
}

/// One job; whatever is answered `fenced` ends it.
async fn work(agent: &Agent<'_>, record: &Recorder, ticket: Uuid, manner: Manner, rng: &mut StdRng) -> Option<()> {
    let times = if manner == Manner::Deaf { 2 } else { 1 };
    let mut claim = None;
    for _ in 0..times {
        let asked = record.now();
        let ClaimReply::Claimed(claimed) = agent.claim(ticket).await else { return None };
        record.note(asked, ticket, What::Claimed);
        claim = Some(claimed);
    }
    let done: BTreeSet<String> = claim?.final_volumes.into_iter().collect();
    for _ in 0..times {
        let asked = record.now();
        let listed: Vec<_> = VOLUMES.iter().map(|name| volume(name)).collect();
        acknowledged(&agent.inventory(ticket, &listed, &[]).await)?;
        record.note(asked, ticket, What::Listed);
    }
    for name in VOLUMES.iter().filter(|name| !done.contains(**name)) {
        pause(manner, rng).await?;
        let bytes = rng.random_range(1..1_000_000_u32);
        for _ in 0..times {
            let asked = record.now();
            acknowledged(&agent.report(ticket, &[result(name, bytes.into())]).await)?;
            record.note(asked, ticket, What::Reported(vec![((*name).to_owned(), bytes.into())]));
        }
    }
    if manner == Manner::GivingUp {
        let classes = [FailureClass::Retryable, FailureClass::HandedBack];
        let asked = record.now();
        acknowledged(&agent.fail(ticket, classes[rng.random_range(0..2)], "AgentError").await)?;
        record.note(asked, ticket, What::GaveUp);
        return None;
    }
    for _ in 0..times {
        let asked = record.now();
        acknowledged(&agent.complete(ticket, VOLUMES.len()).await)?;
        record.note(asked, ticket, What::Completed);
    }
    Some(())
}

fn acknowledged(reply: &Reply) -> Option<()> {
    assert!(!matches!(reply, Reply::Incomplete { .. }), "an agent that counts right: {reply:?}");
    (*reply == Reply::Ok).then_some(())
}

async fn pause(manner: Manner, rng: &mut StdRng) -> Option<()> {
    match manner {
        Manner::Crashing if rng.random_bool(0.3) => None,
        Manner::Paused => {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..800))).await;
            Some(())
        }
        _ => Some(()),
    }
}

/// One of two processes that both take themselves for the leader; it acts on what it saw a while ago.
async fn leader(database: &Database, record: &Recorder, mut rng: StdRng) {
    let mut conn = database.controller().await;
    let conn = &mut **conn;
    for number in 0.. {
        let over = record.is_over();
        let key = format!("t:{}", number / ROUNDS_A_RUN);
        let nodes = NODES.map(|node| (node.to_owned(), format!("{node}-uid"))).into();
        let work = serde_json::from_value(json!({"maxAttempts": 5})).unwrap();
        let run = NewRun { scan_uid: "scan-uid".to_owned(), scan_name: "scan".to_owned(), key, work, nodes };
        if !over {
            store::runs::plan(conn, &run).await.unwrap();
        }
        for store::runs::UnderWay { id: run, .. } in store::runs::under_way(conn).await.unwrap() {
            let jobs = store::jobs::open(conn, run).await.unwrap();
            record.seen(&jobs);
            tokio::time::sleep(Duration::from_millis(rng.random_range(5..50))).await;
            judge(conn, record, run, jobs, over, &mut rng).await;
        }
        if over && store::runs::under_way(conn).await.unwrap().is_empty() {
            return;
        }
    }
}

async fn judge(
    conn: &mut sqlx::PgConnection,
    record: &Recorder,
    run: i64,
    jobs: Vec<store::jobs::OpenJob>,
    over: bool,
    rng: &mut StdRng,
) {
    let asked = record.now();
    let ended = match jobs.is_empty() {
        true => store::runs::finish(conn, run, RunResult::Succeeded, "RunSucceeded").await.unwrap(),
        false if over || rng.random_bool(0.002) => {
            let cancelled = store::runs::cancel(conn, &[run], CancelReason::Replaced).await.unwrap();
            // Those that were completed meanwhile are none of the cancelled.
            for job in jobs.iter().filter(|_| !cancelled.is_empty()) {
                let state: String = sqlx::query_scalar("SELECT status FROM scan_jobs WHERE id = $1")
                    .bind(job.id)
                    .fetch_one(&mut *conn)
                    .await
                    .unwrap();
                if state == "cancelled" {
                    record.note(asked, job.ticket, What::Replaced);
                }
            }
            !cancelled.is_empty()
        }
        false => false,
    };
    if ended {
        *record.run_ends.lock().unwrap().entry(run).or_default() += 1;
    }
    for job in jobs {
        let asked = record.now();
        let replaced = match job {
            _ if job.lease_expired => store::jobs::re_ticket(conn, job.id, job.ticket, 5).await.unwrap(),
            _ if rng.random_bool(0.002) => {
                let ending = if job.running { Ending::Failed } else { Ending::Skipped };
                store::jobs::end(conn, job.id, job.ticket, ending, "NodeGone", "").await.unwrap()
            }
            _ => false,
        };
        if replaced {
            record.note(asked, job.ticket, What::Replaced);
        }
    }
}

/// Time that passes for some of the jobs: leases expire, back-offs end.
async fn time(database: &Database, record: &Recorder) {
    let mut conn = database.superuser().await;
    while !record.is_over() {
        sqlx::query(
            "UPDATE scan_jobs SET not_before = clock_timestamp(),
                lease_expires_at = CASE WHEN status = 'running' THEN clock_timestamp() - interval '1 second' END
             WHERE random() < 0.2 AND status IN ('pending', 'running')",
        )
        .execute(&mut **conn)
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn rows(database: &Database, record: &Recorder) -> Rows {
    let mut conn = database.superuser().await;
    let conn = &mut **conn;
    let ended: Vec<(i64, i64, String, String)> =
        sqlx::query_as("SELECT id, run_id, node, status FROM scan_jobs").fetch_all(&mut *conn).await.unwrap();
    let results = "SELECT scan_job_id, volumes.name, allocated_bytes FROM scan_results JOIN volumes ON volumes.id = scan_results.volume_id";
    let missing = "SELECT count(*) FROM scan_jobs JOIN volumes ON volumes.node = scan_jobs.node
        WHERE scan_jobs.status = 'succeeded' AND volumes.deleted_at IS NULL
            AND NOT EXISTS (SELECT FROM scan_results WHERE scan_job_id = scan_jobs.id AND scan_results.volume_id = volumes.id)";
    let miscounted = "SELECT (SELECT count(*) FROM scan_results WHERE 1 <> (SELECT count(*) FROM volume_sizes WHERE scan_result_id = scan_results.id))
        + abs((SELECT count(*) FROM scan_results) - (SELECT coalesce(sum(samples), 0)::bigint FROM volume_sizes_daily))";
    let runs: Vec<(i64, bool)> =
        sqlx::query_as("SELECT id, completed_at IS NOT NULL FROM scan_runs").fetch_all(&mut *conn).await.unwrap();
    let acknowledged = record.run_ends.lock().unwrap().clone();
    let jobs = record.jobs.lock().unwrap().clone();
    Rows {
        jobs,
        ended: ended.into_iter().map(|(id, run, node, state)| (id, (run, node, state))).collect(),
        results: sqlx::query_as(results).fetch_all(&mut *conn).await.unwrap(),
        missing: sqlx::query_scalar(missing).fetch_one(&mut *conn).await.unwrap(),
        miscounted: sqlx::query_scalar(miscounted).fetch_one(&mut *conn).await.unwrap(),
        run_ends: runs
            .into_iter()
            .map(|(run, ended)| (run, (ended, acknowledged.get(&run).copied().unwrap_or(0))))
            .collect(),
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_kept_once_whoever_fails() {
    let seed: u64 = std::env::var("HISTORY_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    let database = Database::new().await;
    let record = Recorder::new();
    let rng = |number: u64| StdRng::seed_from_u64(seed ^ number);
    let agents = (0..AGENTS_A_NODE).flat_map(|a| (0..).zip(NODES).map(move |(n, node): (u64, _)| (10 * a + n, node)));
    let agents = join_all(agents.map(|(number, node)| agent(&database, &record, node, rng(number))));
    let leaders = join_all((100..102).map(|number| leader(&database, &record, rng(number))));
    tokio::join!(agents, leaders, time(&database, &record));
    let history = record.history.lock().unwrap().clone();
    let wrong = check(&history, &rows(&database, &record).await);
    assert!(wrong.is_empty(), "HISTORY_SEED={seed}: {wrong:#?}");
    let count = |what: fn(&What) -> bool| history.iter().filter(|call| what(&call.what)).count();
    let claimed: BTreeSet<_> =
        history.iter().filter(|call| call.what == What::Claimed).map(|call| call.ticket).collect();
    let claims = count(|what| *what == What::Claimed);
    let (completions, replaced) = (count(|what| *what == What::Completed), count(|what| *what == What::Replaced));
    let gave_up = count(|what| *what == What::GaveUp);
    println!(
        "{} calls: {claims} claims of {} tickets, {completions} completions, {replaced} replaced, {gave_up} given up",
        history.len(),
        claimed.len()
    );
    assert!(
        completions > 0 && replaced > 0 && gave_up > 0 && claims > claimed.len(),
        "HISTORY_SEED={seed}: too little happened"
    );
}
