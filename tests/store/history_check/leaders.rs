//! Processes that all take themselves for the leader, and act on what they saw a while ago.

use volumeviz::domain::run::{CancelReason, Ending, RunResult};

use super::*;
use store::jobs::OpenJob;

/// After how many of its rounds a leader plans the next run.
const ROUNDS_A_RUN: usize = 10;
const ATTEMPTS: i32 = 5;

/// One of them, for the whole history; a round that is cut is begun anew.
pub(super) async fn lead(database: &Database, record: &Recorder, mut rng: StdRng) {
    let mut line = Line::new(database, database::CONTROLLER);
    for number in 0.. {
        if round(&mut line, record, number, &mut rng).await.is_ok_and(|is_last| is_last) {
            return;
        }
    }
}

/// Plans, and looks after each run; whether nothing is left to do.
async fn round(line: &mut Line<'_>, record: &Recorder, number: usize, rng: &mut StdRng) -> Result<bool, Cut> {
    let over = record.is_over();
    let nodes = NODES.map(|node| (node.to_owned(), format!("{node}-uid"))).into();
    let work = serde_json::from_value(json!({"maxAttempts": ATTEMPTS})).unwrap();
    let key = format!("t:{}", number / ROUNDS_A_RUN);
    let run = NewRun { scan_uid: "scan-uid".to_owned(), scan_name: "scan".to_owned(), key, work, nodes };
    if !over {
        line.call(async |conn| store::runs::plan(conn, &run).await).await?;
    }
    let under_way = line.call(async |conn| store::runs::under_way(conn).await).await?;
    for store::runs::UnderWay { id: run, .. } in &under_way {
        let jobs = line.call(async |conn| store::jobs::open(conn, *run).await).await?;
        record.seen(&jobs);
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..50))).await;
        if jobs.is_empty() {
            let finished =
                line.call(async |conn| store::runs::finish(conn, *run, RunResult::Succeeded, "RunSucceeded").await);
            ended(record, *run, finished.await?);
        } else if over || rng.random_bool(0.002) {
            cancel(line, record, *run, &jobs).await?;
        }
        for job in jobs {
            judge(line, record, job, rng).await?;
        }
    }
    Ok(over && under_way.is_empty())
}

fn ended(record: &Recorder, run: i64, won: bool) {
    if won {
        *record.run_ends.lock().unwrap().entry(run).or_default() += 1;
    }
}

async fn cancel(line: &mut Line<'_>, record: &Recorder, run: i64, jobs: &[OpenJob]) -> Result<(), Cut> {
    let asked = record.now();
    let cancelled = line.call(async |conn| store::runs::cancel(conn, &[run], CancelReason::Replaced).await).await;
    if cancelled.is_err() {
        for job in jobs {
            record.cut(asked, job.ticket, What::Replaced);
        }
    }
    let cancelled = !cancelled?.is_empty();
    ended(record, run, cancelled);
    // Those that were completed meanwhile are none of the cancelled.
    for job in jobs.iter().filter(|_| cancelled) {
        let state = "SELECT status FROM scan_jobs WHERE id = $1";
        let state: String =
            line.call(async |conn| sqlx::query_scalar(state).bind(job.id).fetch_one(conn).await).await?;
        if state == "cancelled" {
            record.note(asked, job.ticket, What::Replaced);
        }
    }
    Ok(())
}

/// Gives a job a new ticket whose lease has expired; ends another now and then.
async fn judge(line: &mut Line<'_>, record: &Recorder, job: OpenJob, rng: &mut StdRng) -> Result<(), Cut> {
    let asked = record.now();
    let replaced = if job.lease_expired {
        line.call(async |conn| store::jobs::re_ticket(conn, job.id, job.ticket, ATTEMPTS).await).await
    } else if rng.random_bool(0.002) {
        let ending = if job.running { Ending::Failed } else { Ending::Skipped };
        line.call(async |conn| store::jobs::end(conn, job.id, job.ticket, ending, "NodeGone", "").await).await
    } else {
        return Ok(());
    };
    match replaced {
        Ok(true) => record.note(asked, job.ticket, What::Replaced),
        Ok(false) => {}
        Err(Cut) => record.cut(asked, job.ticket, What::Replaced),
    }
    replaced.map(drop)
}
