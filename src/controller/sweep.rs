//! What nobody tells: runs of VolumeScans and states of VolumeAlerts that are gone are ended (there are no finalizers), and nodes that left
//! are noted.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::SCANS;
use super::alert;
use super::context::Context;
use super::live;
use super::scan::apply;
use super::scan::plan::SETTLED_AFTER;
use crate::crd::VolumeScan;
use crate::domain::run::{CancelReason, RunResult};
use crate::store;
use crate::store::runs::UnderWay;

/// A deleted scan's agents stop within this and one heartbeat.
const PERIOD: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(3);

/// How often the runs of deleted scans are noted, which are kept only for a time.
const ORPHANS_EVERY: Duration = Duration::from_secs(3600);

/// A sweep that could not be made; the next one comes anyway.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("unable to read active runs: {0}")]
    ReadRuns(#[source] store::Error),
    #[error(transparent)]
    List(#[from] live::Error),
    #[error("unable to note which nodes are in the cluster: {0}")]
    NoteNodes(#[source] store::Error),
    #[error(transparent)]
    EndAbandoned(Box<apply::Error>),
    #[error("unable to note the runs of deleted volumescans: {0}")]
    NoteOrphans(#[source] store::Error),
    #[error(transparent)]
    Alerts(#[from] alert::sweep::Error),
    #[error("unable to cancel the runs of deleted volumescans: {0}")]
    Cancel(#[source] store::Error),
}

/// Sweeps for ever.
pub async fn run(context: Arc<Context>) -> std::convert::Infallible {
    let mut last_problem = None;
    let mut noted = Vec::new();
    let mut orphans_noted: Option<Instant> = None;
    loop {
        tokio::time::sleep(PERIOD).await;
        let mut outcome = alert::sweep::sweep_outages(&context).await.map_err(Error::from);
        if context.health().problem.is_some() {
            // It may come back as it was at an earlier time.
            noted.clear();
        } else {
            // What stops agents comes first; what is only noted must not be in its way.
            outcome = outcome.and(sweep(&context).await).and(note_nodes(&context, &mut noted).await);
            outcome = outcome.and(alert::sweep::sweep(&context).await.map_err(Error::from));
            if orphans_noted.is_none_or(|at| at.elapsed() >= ORPHANS_EVERY) {
                let noted = note_orphans(&context).await;
                orphans_noted = noted.is_ok().then(Instant::now).or(orphans_noted);
                outcome = outcome.and(noted);
            }
        }
        let problem = outcome.err().map(|error| error.to_string());
        if problem != last_problem
            && let Some(problem) = &problem
        {
            tracing::warn!("{problem}");
        }
        last_problem = problem;
    }
}

/// Tells the database which nodes are in the cluster, when that has changed.
async fn note_nodes(context: &Context, noted: &mut Vec<String>) -> Result<(), Error> {
    let present: Vec<String> = context.fleet().nodes.keys().cloned().collect();
    // No node at all: they are not listed yet.
    if present.is_empty() || present == *noted {
        return Ok(());
    }
    let changed = context
        .store
        .run("note nodes", DEADLINE, async |conn| store::nodes::note_present(conn, &present).await)
        .await
        .map_err(Error::NoteNodes)?;
    if changed > 0 {
        tracing::info!(nodes = changed, "nodes came to the cluster or left it");
    }
    *noted = present;
    Ok(())
}

/// Tells the database whose VolumeScan is gone.
async fn note_orphans(context: &Context) -> Result<(), Error> {
    let live = live::uids::<VolumeScan>(context).await?;
    context
        .store
        .run("note orphaned runs", DEADLINE, async |conn| store::runs::note_orphans(conn, &live).await)
        .await
        .map(|_| ())
        .map_err(Error::NoteOrphans)
}

/// Ends runs long past their deadline: their scan is not reconciled, because it does not fit this version's schema.
async fn end_abandoned(context: &Context, active: &[UnderWay]) -> Result<(), Error> {
    if context.health().contact_for < SETTLED_AFTER {
        return Ok(());
    }
    for run in active.iter().filter(|run| run.abandoned) {
        apply::judge_run(context, run.id, true).await.map_err(|source| Error::EndAbandoned(Box::new(source)))?;
    }
    Ok(())
}

/// Asks the API server only while a run is active, and then for a fresh list: a cache that is behind must not cancel a new scan's run.
async fn sweep(context: &Context) -> Result<(), Error> {
    let (active, queue) = context
        .store
        .run("read active runs", DEADLINE, async |conn| {
            Ok((store::runs::under_way(conn).await?, store::runs::queue(conn).await?))
        })
        .await
        .map_err(Error::ReadRuns)?;
    context.metrics.queued(&queue);
    let runs: Vec<i64> = active.iter().map(|run| run.id).collect();
    context.dispatcher.keep_runs(&runs);
    if active.is_empty() {
        return Ok(());
    }
    end_abandoned(context, &active).await?;
    let live = live::uids::<VolumeScan>(context).await?;
    context.retain(SCANS, &live);
    let gone: Vec<i64> = active.iter().filter(|run| !live.contains(&run.scan_uid)).map(|run| run.id).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let reason = CancelReason::VolumeScanDeleted;
    let cancelled = context
        .store
        .run("cancel runs", DEADLINE, async |conn| store::runs::cancel(conn, &gone, reason).await)
        .await
        .map_err(Error::Cancel)?;
    for run in cancelled {
        tracing::info!(run.id = run, "cancelled the run of a deleted volumescan");
        context.run_ended(RunResult::Cancelled);
    }
    Ok(())
}
