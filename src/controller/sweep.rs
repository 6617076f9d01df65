//! What nobody tells: runs of VolumeScans that are gone are cancelled (there are no finalizers), and nodes that left are noted.

use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::context::Context;
use crate::crd::VolumeScan;
use crate::domain::run::{CancelReason, RunResult};
use crate::store;

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
    #[error("unable to list volumescans: {0}")]
    List(#[source] kube::Error),
    #[error("unable to list volumescans within {DEADLINE:?}")]
    ListTimeout,
    #[error("unable to note which nodes are in the cluster: {0}")]
    NoteNodes(#[source] store::Error),
    #[error("unable to note the runs of deleted volumescans: {0}")]
    NoteOrphans(#[source] store::Error),
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
        if context.health().problem.is_some() {
            continue;
        }
        let swept = async {
            note_nodes(&context, &mut noted).await?;
            if orphans_noted.is_none_or(|at| at.elapsed() >= ORPHANS_EVERY) {
                note_orphans(&context).await?;
                orphans_noted = Some(Instant::now());
            }
            sweep(&context).await
        };
        let problem = swept.await.err().map(|error| error.to_string());
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
    let live = live_scans(context).await?;
    context
        .store
        .run("note orphaned runs", DEADLINE, async |conn| store::runs::note_orphans(conn, &live).await)
        .await
        .map(|_| ())
        .map_err(Error::NoteOrphans)
}

/// Uids of all scans, as the API server tells now.
async fn live_scans(context: &Context) -> Result<Vec<String>, Error> {
    let scans: Api<VolumeScan> = Api::all(context.client.clone());
    let params = ListParams::default();
    let listing = tokio::time::timeout(DEADLINE, scans.list_metadata(&params)).await;
    let live = listing.map_err(|_| Error::ListTimeout)?.map_err(Error::List)?;
    Ok(live.iter().filter_map(ResourceExt::uid).collect())
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
    if active.is_empty() {
        return Ok(());
    }
    let live = live_scans(context).await?;
    context.retain(&live);
    let gone: Vec<i64> = active.into_iter().filter(|(_, uid)| !live.contains(uid)).map(|(run, _)| run).collect();
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
        context.metrics.run_ended(RunResult::Cancelled);
    }
    // Whoever cancelled them: nobody reconciles these any more.
    for run in gone {
        context.dispatcher.retain(run, &[]);
    }
    Ok(())
}
