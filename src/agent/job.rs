//! The life of one job: list what Docker has, measure what is selected, report as volumes finish, complete.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use super::docker::{self, Inventory, Weight};
use super::measure::{Measurer, Target};
use super::session::{Error as SessionError, Session};
use super::{Agent, Slot};
use crate::domain::contract::{
    Claim, FailureClass, InventoryBody, InventoryContainer, InventoryTotals, InventoryVolume, MAX_BATCH_ROWS, Progress,
};
use crate::domain::measurement::VolumeResult;
use crate::domain::run::JobReason;
use crate::domain::selector::{InvalidGlob, VolumeFacts, VolumeMatcher, VolumeUsage};
use crate::domain::work::Mode;

/// How long a Docker Engine that does not answer is waited for: it restarts in less.
const DOCKER_PATIENCE: Duration = Duration::from_secs(60);
const DOCKER_RETRY: Duration = Duration::from_secs(2);
/// Memory of the rows of one call for the inventory, of which copies are made on the way to the database.
const MAX_BATCH_WEIGHT: usize = 4 << 20;
/// Results held while the database is away, in KiB; when they are full, measuring waits.
const HELD_KIB: usize = 8 * 1024;

/// Why a job ended without being complete.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("nodeTimeoutSeconds passed with {left_out} volumes not yet measured")]
    NodeTimeout { left_out: usize },
    #[error("{0}")]
    NoDockerEngine(String),
    #[error("{0}")]
    DockerUnreachable(String),
    #[error("Docker keeps its volumes in {engine}, and the agent is given {agent}")]
    DataRootMismatch { engine: String, agent: String },
    #[error(transparent)]
    Selector(#[from] InvalidGlob),
}

/// How far a job is; shared by its parts.
struct Tracker {
    measurer: Measurer,
    volumes_total: AtomicI64,
    volumes_done: AtomicI64,
}

impl Tracker {
    fn progress(&self) -> Progress {
        Progress {
            volumes_total: self.volumes_total.load(Ordering::Relaxed),
            volumes_done: self.volumes_done.load(Ordering::Relaxed),
            entries: self.measurer.entries(),
            bytes: self.measurer.bytes(),
        }
    }
}

/// Works on a claimed job until it is complete, failed, fenced or handed back. `slot` is free again afterwards.
pub async fn work(agent: Arc<Agent>, session: Session, claim: Claim, slot: Slot) {
    let job = claim.job;
    let tracker = Arc::new(Tracker {
        measurer: Measurer::new(agent.walker.clone(), &claim.work, session.deadline().into_std()),
        volumes_total: AtomicI64::new(0),
        volumes_done: AtomicI64::new(0),
    });
    let beating = Arc::clone(&tracker);
    let outcome = tokio::select! {
        outcome = measure_node(&agent, &session, &claim, &tracker) => outcome,
        never = session.beat(move || beating.progress()) => match never {},
        error = session.over() => Err(Error::Session(error)),
    };
    tracker.measurer.cancel();
    if let Err(Error::Session(SessionError::Fenced)) = &outcome {
        agent.metrics.fenced();
    }
    agent.metrics.job_ended(outcome.as_ref().err().map_or("Completed", Error::name));
    match outcome {
        Ok(volumes) => tracing::info!(job.id = job, volumes, "completed the job"),
        Err(error) => end(&session, job, error).await,
    }
    drop(slot);
}

async fn end(session: &Session, job: i64, error: Error) {
    let message = error.to_string();
    let Some((class, reason)) = error.verdict() else {
        tracing::info!(job.id = job, "stopped the job: {message}");
        return;
    };
    tracing::warn!(job.id = job, reason = reason.as_str(), class = ?class, "the job ended: {message}");
    session.fail(class, reason, message).await;
}

impl Error {
    /// What the database is told; nothing when the ticket is no longer ours.
    fn verdict(&self) -> Option<(FailureClass, JobReason)> {
        match self {
            Self::Session(SessionError::Fenced) => None,
            Self::Session(SessionError::Stopped) => Some((FailureClass::HandedBack, JobReason::AgentError)),
            Self::Session(SessionError::Deadline) | Self::NodeTimeout { .. } => {
                Some((FailureClass::Permanent, JobReason::NodeTimeout))
            }
            Self::Session(SessionError::Refused(_) | SessionError::Incomplete(_)) => {
                Some((FailureClass::Retryable, JobReason::AgentError))
            }
            Self::NoDockerEngine(_) => Some((FailureClass::Permanent, JobReason::NoDockerEngine)),
            Self::DockerUnreachable(_) => Some((FailureClass::Retryable, JobReason::DockerUnreachable)),
            Self::DataRootMismatch { .. } => Some((FailureClass::Permanent, JobReason::DataRootMismatch)),
            Self::Selector(_) => Some((FailureClass::Permanent, JobReason::AgentError)),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Session(SessionError::Fenced) => "Fenced",
            Self::Session(SessionError::Stopped) => "HandedBack",
            Self::Session(SessionError::Deadline) | Self::NodeTimeout { .. } => "NodeTimeout",
            Self::Session(SessionError::Refused(_) | SessionError::Incomplete(_)) | Self::Selector(_) => "Failed",
            Self::NoDockerEngine(_) => "NoDockerEngine",
            Self::DockerUnreachable(_) => "DockerUnreachable",
            Self::DataRootMismatch { .. } => "DataRootMismatch",
        }
    }
}

/// The whole job; returns how many volumes are final.
async fn measure_node(agent: &Agent, session: &Session, claim: &Claim, tracker: &Arc<Tracker>) -> Result<usize, Error> {
    let matcher = VolumeMatcher::new(&claim.work.volume_selector)?;
    let mut inventory = list(agent, session.deadline()).await?;
    select(&mut inventory, &matcher);
    let fresh = send_inventory(session, &inventory).await?;
    let selected: Vec<Target> = inventory.volumes.iter().filter(|volume| volume.selected).map(Target::new).collect();
    if claim.work.mode != Mode::Inventory {
        can_see(agent.docker.data_root(), &inventory.engine.data_root, &selected)?;
    }
    let done: HashSet<&String> = fresh.iter().collect();
    let open: Vec<Target> = selected.into_iter().filter(|target| !done.contains(&target.volume)).collect();
    // What an earlier attempt made final counts even when the volume is gone by now, or was made anew under its name.
    let earlier: HashSet<&String> = claim.final_volumes.iter().collect();
    let already = claim.final_volumes.len() + done.difference(&earlier).count();
    let total = already + open.len();
    tracker.volumes_total.store(to_i64(total), Ordering::Relaxed);
    tracker.volumes_done.store(to_i64(already), Ordering::Relaxed);
    measure_all(session, open, tracker).await?;
    session.complete(to_i64(total), tracker.progress()).await?;
    Ok(total)
}

/// Waits for an engine that restarts; one that was never there, or that says what cannot be used, is told at once.
async fn list(agent: &Agent, deadline: Instant) -> Result<Inventory, Error> {
    let until = deadline.min(Instant::now() + DOCKER_PATIENCE);
    loop {
        let listed = match agent.docker.connect().await {
            Ok(connection) => agent.docker.inventory(&connection).await,
            Err(error) => Err(error),
        };
        agent.problems.docker.set(listed.as_ref().err());
        let message = match listed {
            Ok(inventory) => return Ok(inventory),
            Err(error @ docker::Error::Absent { .. }) => return Err(Error::NoDockerEngine(error.to_string())),
            Err(error) if error.is_final() => return Err(Error::DockerUnreachable(error.to_string())),
            Err(error) => error.to_string(),
        };
        if timeout_at(until, sleep(DOCKER_RETRY)).await.is_err() {
            return Err(Error::DockerUnreachable(message));
        }
    }
}

fn select(inventory: &mut Inventory, matcher: &VolumeMatcher) {
    let running = inventory.containers.iter().filter(|container| container.is_running());
    let in_use: HashSet<&str> = running.flat_map(|c| c.mounts.iter().map(|mount| mount.volume.as_str())).collect();
    for volume in &mut inventory.volumes {
        let usage = if in_use.contains(volume.name.as_str()) { VolumeUsage::InUse } else { VolumeUsage::Unused };
        volume.selected = matcher.matches(facts(volume, usage));
    }
}

/// Where Docker keeps its volumes elsewhere than the agent looks, a job that measured none of them must not look like a success.
fn can_see(data_root: &Path, engine: &str, selected: &[Target]) -> Result<(), Error> {
    if Path::new(engine) != data_root && selected.iter().any(Target::is_in_data_root) {
        return Err(Error::DataRootMismatch { engine: engine.to_owned(), agent: data_root.display().to_string() });
    }
    Ok(())
}

/// Volumes first: a container's mounts are recorded only for volumes that are known. Returns the names of those that need no measuring.
async fn send_inventory(session: &Session, inventory: &Inventory) -> Result<Vec<String>, Error> {
    let chunk = |volumes: &[InventoryVolume], containers: &[InventoryContainer]| InventoryBody {
        instance: session.instance(),
        engine: inventory.engine.clone(),
        volumes: volumes.to_vec(),
        containers: containers.to_vec(),
        totals: None,
    };
    for volumes in batches(&inventory.volumes) {
        session.inventory(chunk(volumes, &[])).await?;
    }
    for containers in batches(&inventory.containers) {
        session.inventory(chunk(&[], containers)).await?;
    }
    let totals =
        InventoryTotals { volumes: to_i64(inventory.volumes.len()), containers: to_i64(inventory.containers.len()) };
    Ok(session.inventory(InventoryBody { totals: Some(totals), ..chunk(&[], &[]) }).await?)
}

/// Parts of at most [`MAX_BATCH_ROWS`] rows, and of at most [`MAX_BATCH_WEIGHT`] where they have more than one.
fn batches<T: Weight>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut weight = 0_usize;
        let fits = |row: &&T| {
            weight = weight.saturating_add(row.weight());
            weight <= MAX_BATCH_WEIGHT
        };
        let count = rows.iter().take(MAX_BATCH_ROWS).take_while(fits).count().max(1);
        let (batch, rest) = rows.split_at_checked(count)?;
        rows = rest;
        Some(batch)
    })
}

/// A result that waits to be sent, and the share of [`HELD_KIB`] it takes.
struct Held {
    result: VolumeResult,
    measured: Instant,
    _share: OwnedSemaphorePermit,
}

/// Measures `parallelVolumes` at a time and reports whatever is ready, in as few calls as the database's pace allows. Volumes whose turn
/// comes after the node's deadline are left out: the job ends without them, which must not look like a success.
async fn measure_all(session: &Session, targets: Vec<Target>, tracker: &Arc<Tracker>) -> Result<(), Error> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(HELD_KIB));
    let deadline = session.deadline();
    let measuring = async move {
        let measure = |target| {
            let tracker = Arc::clone(tracker);
            async move { if Instant::now() < deadline { Some(tracker.measurer.measure(target).await) } else { None } }
        };
        let mut left_out = 0;
        let mut results = stream::iter(targets).map(measure).buffer_unordered(tracker.measurer.parallel_volumes());
        while let Some(result) = results.next().await {
            let Some(result) = result else {
                left_out += 1;
                continue;
            };
            let measured = Instant::now();
            let size = serde_json::to_vec(&result).map_or(1, |json| json.len() / 1024 + 1);
            let share = u32::try_from(size.min(HELD_KIB)).unwrap_or(u32::MAX);
            let Ok(share) = Arc::clone(&room).acquire_many_owned(share).await else { break };
            if sender.send(Held { result, measured, _share: share }).is_err() {
                break;
            }
        }
        Ok::<usize, SessionError>(left_out)
    };
    let reporting = async {
        let mut ready = Vec::new();
        while receiver.recv_many(&mut ready, MAX_BATCH_ROWS).await > 0 {
            let count = ready.len();
            let results = ready.iter().map(Held::aged).collect();
            session.report(results, tracker.progress()).await?;
            ready.clear();
            tracker.volumes_done.fetch_add(to_i64(count), Ordering::Relaxed);
        }
        Ok(())
    };
    let (left_out, ()) = tokio::try_join!(measuring, reporting)?;
    if left_out == 0 { Ok(()) } else { Err(Error::NodeTimeout { left_out }) }
}

impl Held {
    /// The result with its age as of now; a repeated call sends the same age, which errs by seconds only.
    fn aged(&self) -> VolumeResult {
        let age_ms = u64::try_from(self.measured.elapsed().as_millis()).unwrap_or(u64::MAX);
        VolumeResult { age_ms, ..self.result.clone() }
    }
}

fn facts(volume: &InventoryVolume, usage: VolumeUsage) -> VolumeFacts<'_> {
    VolumeFacts { name: &volume.name, driver: &volume.driver, labels: &volume.labels, kind: volume.kind, usage }
}

fn to_i64(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_that_are_kept_where_the_agent_does_not_look_are_no_success() {
        let target = |driver: &str, options: serde_json::Value| {
            let volume = json!({"name": "v", "driver": driver, "mountpoint": "", "scope": "local", "labels": {}, "options": options,
                "kind": "Named", "selected": true});
            vec![Target::new(&serde_json::from_value(volume).unwrap())]
        };
        let seen = |root: &str, targets: &[Target]| can_see(Path::new(root), "/data/docker", targets).is_ok();
        let local = target("local", json!({}));
        assert!(seen("/data/docker", &local) && seen("/data/docker/", &local) && !seen("/var/lib/docker", &local));
        assert!(!seen("/var/lib/docker", &target("local", json!({"type": "none", "device": "/srv"}))));
        // What is measured nowhere is not missed.
        for elsewhere in [vec![], target("rclone", json!({})), target("local", json!({"type": "nfs"}))] {
            assert!(seen("/var/lib/docker", &elsewhere));
        }
    }

    impl Weight for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    #[test]
    fn batches_have_no_more_rows_or_weight_than_they_may_and_leave_nothing_out() {
        let sizes = |rows: &[usize]| batches(rows).map(<[usize]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[1; 1001]), [MAX_BATCH_ROWS, MAX_BATCH_ROWS, 1]);
        assert_eq!(sizes(&[MAX_BATCH_WEIGHT / 2; 5]), [2, 2, 1]);
        let heavy = [1, usize::MAX, MAX_BATCH_WEIGHT, 1];
        assert_eq!(sizes(&heavy), [1, 1, 1, 1], "one that is heavier goes alone");
        assert_eq!(batches(&heavy).flatten().copied().collect::<Vec<_>>(), heavy);
    }
}
