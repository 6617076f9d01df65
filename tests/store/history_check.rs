//! Agents, leaders and failures at once: every call is recorded with its answer, and afterwards the record and the rows must agree.
//!
//! What happens follows from a seed, but for the order in which the database takes the calls; a failure names the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use volumeviz::domain::run::{CancelReason, Ending, RunResult};

use super::*;

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VOLUMES: [&str; 4] = ["a", "b", "c", "d"];
/// After how many of its rounds a leader plans the next run.
const ROUNDS_A_RUN: usize = 10;
const AGENTS_A_NODE: u64 = 2;
const MOST: Duration = Duration::from_secs(10);

/// A call that was acknowledged: begun before `asked`, over after `answered`, in microseconds of the history.
#[derive(Debug, Clone, PartialEq)]
struct Acknowledged {
    asked: u128,
    answered: u128,
    ticket: Uuid,
    what: What,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Claimed,
    Listed,
    /// These sizes of these volumes; final for the run unless they were already.
    Reported(Vec<(String, i64)>),
    Completed,
    /// `fail`: whatever came before, the ticket ends here.
    GaveUp,
    /// By a leader: re-ticketed, ended or cancelled.
    Replaced,
}

/// What the rows say in the end.
#[derive(Debug, Clone, Default)]
struct Rows {
    /// Every ticket that a job ever had, as far as anybody saw, with the job.
    jobs: BTreeMap<Uuid, i64>,
    /// Run, node and state of each job.
    ended: BTreeMap<i64, (i64, String, String)>,
    /// Size of each result, by job and volume; more than one: doubled.
    results: Vec<(i64, String, i64)>,
    /// Selected volumes of each job that succeeded which have no result.
    missing: i64,
    /// Results without exactly one size, and days whose samples do not add up.
    miscounted: i64,
    /// Runs that ended, and how often that was acknowledged.
    run_ends: BTreeMap<i64, (bool, usize)>,
}

/// What is wrong with a history; nothing when it holds.
fn check(history: &[Acknowledged], rows: &Rows) -> Vec<String> {
    let mut wrong = Vec::new();
    let job_of = |call: &Acknowledged| rows.jobs.get(&call.ticket).copied();
    let mut reported: BTreeMap<(i64, &str), Vec<i64>> = BTreeMap::new();
    for call in history {
        let Some(job) = job_of(call) else {
            wrong.push(format!("a ticket that no job had: {call:?}"));
            continue;
        };
        if let What::Reported(results) = &call.what {
            for (volume, bytes) in results {
                reported.entry((job, volume)).or_default().push(*bytes);
            }
        }
        if call.what == What::Completed && rows.ended.get(&job).is_none_or(|(_, _, state)| state != "succeeded") {
            wrong.push(format!("a completion was acknowledged and lost: {call:?}"));
        }
    }
    for ((job, volume), bytes) in &reported {
        match rows.results.iter().find(|(of, name, _)| (of, name.as_str()) == (job, *volume)) {
            None => wrong.push(format!("job {job}: the result of {volume} was acknowledged and is lost")),
            Some((_, _, kept)) if !bytes.contains(kept) => {
                wrong.push(format!("job {job}: {volume} is {kept}, and nobody reported that"));
            }
            Some(_) => {}
        }
    }
    let once: BTreeSet<_> = rows.results.iter().map(|(job, volume, _)| (job, volume)).collect();
    if once.len() < rows.results.len() {
        wrong.push("a volume has two results in one job".to_owned());
    }
    wrong.extend(after_replacement(history));
    let mut succeeded = BTreeSet::new();
    for (run, node, state) in rows.ended.values() {
        if state == "succeeded" && !succeeded.insert((run, node)) {
            wrong.push(format!("run {run} has two successes on {node}"));
        }
    }
    if rows.missing > 0 {
        wrong.push(format!("{} volumes of completed jobs have no result", rows.missing));
    }
    if rows.miscounted > 0 {
        wrong.push(format!("{} results or days are counted otherwise in the sizes", rows.miscounted));
    }
    for (run, (ended, acknowledged)) in &rows.run_ends {
        if *acknowledged > 1 || (*acknowledged == 1 && !ended) {
            wrong.push(format!("the end of run {run} was acknowledged {acknowledged} times; it has ended: {ended}"));
        }
    }
    wrong
}

/// Calls that began after the end of their ticket was acknowledged, and were acknowledged all the same.
fn after_replacement(history: &[Acknowledged]) -> Vec<String> {
    let ends = history.iter().filter(|call| matches!(call.what, What::Replaced | What::GaveUp));
    let ends: BTreeMap<Uuid, u128> = ends.map(|call| (call.ticket, call.answered)).collect();
    let late = |call: &&Acknowledged| ends.get(&call.ticket).is_some_and(|end| call.asked > *end);
    history.iter().filter(late).map(|call| format!("acknowledged under a ticket that was replaced: {call:?}")).collect()
}

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
    while record.began.elapsed() < MOST {
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
        let over = record.began.elapsed() >= MOST;
        let key = format!("t:{}", number / ROUNDS_A_RUN);
        let nodes = NODES.map(|node| (node.to_owned(), format!("{node}-uid"))).into();
        let work = serde_json::from_value(json!({"maxAttempts": 5})).unwrap();
        let run = NewRun { scan_uid: "scan-uid".to_owned(), scan_name: "scan".to_owned(), key, work, nodes };
        if !over {
            store::runs::plan(conn, &run).await.unwrap();
        }
        for (run, _) in store::runs::under_way(conn).await.unwrap() {
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
    while record.began.elapsed() < MOST {
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

/// A small history that holds, to be forged.
fn sound() -> (Vec<Acknowledged>, Rows) {
    let [first, second] = [1, 2].map(Uuid::from_u128);
    let call = |at, ticket, what| Acknowledged { asked: at, answered: at + 5, ticket, what };
    let reported = |volume: &str, bytes| What::Reported(vec![(volume.to_owned(), bytes)]);
    let history = vec![
        call(0, first, What::Claimed),
        call(10, first, What::Listed),
        call(20, first, reported("a", 1)),
        call(30, first, What::Replaced),
        // Under way while the ticket was replaced: it may have come first.
        call(33, first, reported("a", 1)),
        call(40, second, What::Claimed),
        call(50, second, What::Listed),
        call(60, second, reported("b", 2)),
        call(70, second, What::Completed),
    ];
    let rows = Rows {
        jobs: [(first, 7), (second, 7)].into(),
        ended: [(7, (1, "n1".to_owned(), "succeeded".to_owned()))].into(),
        results: vec![(7, "a".to_owned(), 1), (7, "b".to_owned(), 2)],
        run_ends: [(1, (true, 1))].into(),
        ..Rows::default()
    };
    (history, rows)
}

type Forgery = (&'static str, fn(&mut Vec<Acknowledged>, &mut Rows));

#[test]
fn a_forged_history_is_rejected() {
    let (history, rows) = sound();
    assert_eq!(check(&history, &rows), [""; 0]);
    let forgeries: [Forgery; 9] = [
        ("is lost", |_, rows| _ = rows.results.pop()),
        ("nobody reported that", |_, rows| rows.results[0].2 = 9),
        ("two results", |_, rows| rows.results.push((7, "a".to_owned(), 1))),
        ("was replaced", |history, _| history[4].asked = 36),
        ("a completion was acknowledged and lost", |_, rows| {
            rows.ended.get_mut(&7).unwrap().2 = "cancelled".to_owned();
        }),
        ("two successes", |_, rows| _ = rows.ended.insert(8, rows.ended[&7].clone())),
        ("have no result", |_, rows| rows.missing = 1),
        ("acknowledged 2 times", |_, rows| rows.run_ends.get_mut(&1).unwrap().1 = 2),
        ("a ticket that no job had", |history, _| history[0].ticket = Uuid::nil()),
    ];
    for (expected, forge) in forgeries {
        let (mut history, mut rows) = sound();
        forge(&mut history, &mut rows);
        let wrong = check(&history, &rows);
        assert!(wrong.iter().any(|wrong| wrong.contains(expected)), "{expected}: {wrong:?}");
    }
}
