//! Agents, leaders and failures at once, while their connections are cut: every call is recorded with its answer, or as one whose answer is not
//! known, and afterwards the record and the rows must agree.
//!
//! What happens follows from a seed, but for the order in which the database takes the calls; a failure names the seed.

mod leaders;
mod line;
mod sound;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use line::{Cut, Line};
use sound::{Call, Outcome, Rows, What, check};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VOLUMES: [&str; 4] = ["a", "b", "c", "d"];
const AGENTS_A_NODE: u64 = 2;
/// How often a call whose connection is cut is made in all.
const TRIES: usize = 3;
/// How long it goes on, and for how long at most until everything has happened once.
const LEAST: Duration = Duration::from_secs(8);
const MOST: Duration = Duration::from_secs(25);

/// The record, as it grows.
struct Recorder {
    began: Instant,
    history: Mutex<Vec<Call>>,
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
        let repeated = |n: usize, call: &Call| {
            history[n + 1..].iter().any(|other| (other.ticket, &other.what) == (call.ticket, &call.what))
        };
        let repeats = history.iter().enumerate().any(|(n, call)| call.what == What::Claimed && repeated(n, call));
        let known = |call: &&Call| call.outcome == Outcome::Acknowledged;
        let all = repeats && kinds.iter().all(|kind| history.iter().filter(known).any(|call| call.what == *kind));
        self.began.elapsed() >= if all { LEAST } else { MOST }
    }

    /// Records a call that was acknowledged.
    fn note(&self, asked: u128, ticket: Uuid, what: What) {
        self.push(asked, ticket, what, Outcome::Acknowledged);
    }

    /// Records a call that was cut.
    fn cut(&self, asked: u128, ticket: Uuid, what: What) {
        self.push(asked, ticket, what, Outcome::Unknown);
    }

    fn push(&self, asked: u128, ticket: Uuid, what: What, outcome: Outcome) {
        let answered = self.now();
        self.history.lock().unwrap().push(Call { asked, answered, ticket, what, outcome });
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
        let mut process =
            Process { agent: Agent::on(database, node), line: Line::new(database, database::AGENT), record };
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
            work(&mut process, ticket, manner, &mut rng).await;
            if manner == Manner::Crashing {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..20))).await;
    }
}

/// An agent's process, with the connection it has.
struct Process<'a> {
    agent: Agent<'a>,
    line: Line<'a>,
    record: &'a Recorder,
}

impl Process<'_> {
    /// Makes a call until it is answered, and records it: as acknowledged when `is_taken`. `None`: it was not, or it was cut too often.
    async fn call<R>(
        &mut self,
        ticket: Uuid,
        what: What,
        act: impl AsyncFn(&mut sqlx::PgConnection) -> sqlx::Result<R>,
        is_taken: fn(&R) -> bool,
    ) -> Option<R> {
        for _ in 0..TRIES {
            let asked = self.record.now();
            match self.line.call(&act).await {
                Ok(reply) if is_taken(&reply) => {
                    self.record.note(asked, ticket, what);
                    return Some(reply);
                }
                Ok(_) => return None,
                Err(Cut) => self.record.cut(asked, ticket, what.clone()),
            }
        }
        None
    }

    async fn claim(&mut self, ticket: Uuid) -> Option<Box<Claim>> {
        let body = self.agent.claim_body();
        let act = async |conn: &mut sqlx::PgConnection| store::agent::claim(conn, ticket, &body).await;
        let is_taken = |reply: &ClaimReply| matches!(reply, ClaimReply::Claimed(_));
        match self.call(ticket, What::Claimed, act, is_taken).await? {
            ClaimReply::Claimed(claim) => Some(claim),
            ClaimReply::Fenced => None,
        }
    }

    async fn list(&mut self, ticket: Uuid) -> Option<()> {
        let listed: Vec<_> = VOLUMES.iter().map(|name| volume(name)).collect();
        let totals = InventoryTotals { volumes: count(listed.len()), containers: 0 };
        let body = self.agent.inventory_body(&listed, &[], Some(totals));
        let act = async |conn: &mut sqlx::PgConnection| store::agent::inventory(conn, ticket, &body).await;
        self.call(ticket, What::Listed, act, |reply| is_ok(&reply.reply)).await.map(drop)
    }

    async fn report(&mut self, ticket: Uuid, name: &str, bytes: u32) -> Option<()> {
        let body = self.agent.report_body(&[result(name, bytes.into())]);
        let act = async |conn: &mut sqlx::PgConnection| store::agent::report(conn, ticket, &body).await;
        self.call(ticket, What::Reported(vec![(name.to_owned(), bytes.into())]), act, is_ok).await.map(drop)
    }

    async fn give_up(&mut self, ticket: Uuid, class: FailureClass) -> Option<()> {
        let body = self.agent.fail_body(class, "AgentError");
        let act = async |conn: &mut sqlx::PgConnection| store::agent::fail(conn, ticket, &body).await;
        self.call(ticket, What::GaveUp, act, is_ok).await.map(drop)
    }

    async fn complete(&mut self, ticket: Uuid) -> Option<()> {
        let body = self.agent.complete_body(VOLUMES.len());
        let act = async |conn: &mut sqlx::PgConnection| store::agent::complete(conn, ticket, &body).await;
        self.call(ticket, What::Completed, act, is_ok).await.map(drop)
    }
}

fn is_ok(reply: &Reply) -> bool {
    assert!(!matches!(reply, Reply::Incomplete { .. }), "an agent that counts right: {reply:?}");
    *reply == Reply::Ok
}

/// One job; whatever is answered `fenced` ends it.
async fn work(process: &mut Process<'_>, ticket: Uuid, manner: Manner, rng: &mut StdRng) -> Option<()> {
    let times = if manner == Manner::Deaf { 2 } else { 1 };
    let mut claim = None;
    for _ in 0..times {
        claim = Some(process.claim(ticket).await?);
    }
    let done: BTreeSet<String> = claim?.final_volumes.into_iter().collect();
    for _ in 0..times {
        process.list(ticket).await?;
    }
    for name in VOLUMES.iter().filter(|name| !done.contains(**name)) {
        pause(manner, rng).await?;
        let bytes = rng.random_range(1..1_000_000_u32);
        for _ in 0..times {
            process.report(ticket, name, bytes).await?;
        }
    }
    if manner == Manner::GivingUp {
        let classes = [FailureClass::Retryable, FailureClass::HandedBack];
        return process.give_up(ticket, classes[rng.random_range(0..2)]).await;
    }
    for _ in 0..times {
        process.complete(ticket).await?;
    }
    Some(())
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
    let leaders = join_all((100..102).map(|number| leaders::lead(&database, &record, rng(number))));
    let (_, _, (), cuts) =
        tokio::join!(agents, leaders, time(&database, &record), line::cut(&database, &record, rng(200)));
    let history = record.history.lock().unwrap().clone();
    let wrong = check(&history, &rows(&database, &record).await);
    assert!(wrong.is_empty(), "HISTORY_SEED={seed}: {wrong:#?}");
    let (known, unknown): (Vec<_>, Vec<_>) = history.iter().partition(|call| call.outcome == Outcome::Acknowledged);
    let count = |what: fn(&What) -> bool| known.iter().filter(|call| what(&call.what)).count();
    let claimed: BTreeSet<_> = known.iter().filter(|call| call.what == What::Claimed).map(|call| call.ticket).collect();
    let claims = count(|what| *what == What::Claimed);
    let (completions, replaced) = (count(|what| *what == What::Completed), count(|what| *what == What::Replaced));
    let gave_up = count(|what| *what == What::GaveUp);
    println!(
        "{} calls: {claims} claims of {} tickets, {completions} completions, {replaced} replaced, {gave_up} given up; {cuts} connections cut, in {} calls",
        known.len(),
        claimed.len(),
        unknown.len()
    );
    assert!(
        completions > 0 && replaced > 0 && gave_up > 0 && claims > claimed.len() && !unknown.is_empty(),
        "HISTORY_SEED={seed}: too little happened"
    );
}
