//! Everything one pass looks at, read once at its beginning. That the database is away is a value here, not an error.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use uuid::Uuid;

use super::plan::asked_key;
use crate::controller::context::Context;
use crate::controller::dispatch::Standing;
use crate::controller::fleet::Fleet;
use crate::controller::health::DatabaseHealth;
use crate::crd::VolumeScan;
use crate::store;
use crate::store::figures::{self, Figures, View};
use crate::store::runs::{Run, RunProgress};

/// All reads of one pass share one connection and end within this time, so that a pass never lasts over 5 s.
const READ_DEADLINE: Duration = Duration::from_secs(3);
/// Runs listed in status.
const HISTORY: i64 = 5;
/// Due times that are remembered of runs: of a schedule that is due each minute, well over an hour's.
const DUE_TIMES: i64 = 100;
/// Nodes listed in status.
pub const FAILED_NODES: i64 = 10;

/// What one pass knows.
#[derive(Debug, Clone)]
pub struct Observed {
    /// When the pass began, by the controller's clock.
    pub now: Timestamp,
    /// The database.
    pub database: DatabaseHealth,
    /// Nodes and agents.
    pub fleet: Arc<Fleet>,
    /// Runs of this scan; absent while the database cannot be used.
    pub runs: Option<Runs>,
}

/// Runs of one scan.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    /// The run under way.
    pub active: Option<ActiveRun>,
    /// The run that the spec asks for beside any schedule, when it was ever made.
    pub asked: Option<i64>,
    /// When the newest scheduled runs were due, newest first, at most [`DUE_TIMES`]: those of earlier ones count as skipped.
    pub due_times: Vec<DateTime<Utc>>,
    /// Ended runs, newest first.
    pub finished: Vec<Run>,
    /// Nodes without a result in the active run, else in the last one.
    pub failed_nodes: store::jobs::FailedNodes,
    /// The figures; absent while a run is under way (they are read when it ends), and before any node reported.
    pub figures: Option<Figures>,
    /// Whether `figures` was read in this pass.
    pub figures_read: bool,
    /// Selected nodes on which the agent found no Docker Engine.
    pub without_docker: i32,
}

/// The run under way.
#[derive(Debug, Clone)]
pub struct ActiveRun {
    /// Its row.
    pub run: Run,
    /// Its deadline has passed by more than the time agents get to hand in what they have.
    pub overdue: bool,
    /// Jobs that may be dispatched now, over all scans.
    pub free_slots: usize,
    /// Jobs that have not ended.
    pub jobs: Vec<OpenJob>,
    /// Sums over all jobs.
    pub progress: RunProgress,
    /// How offering their tickets stands.
    pub standings: HashMap<Uuid, Standing>,
}

pub use crate::store::jobs::OpenJob;

impl ActiveRun {
    /// How offering a job's ticket stands.
    pub fn standing(&self, job: &OpenJob) -> Standing {
        self.standings.get(&job.ticket).cloned().unwrap_or_default()
    }
}

impl Observed {
    /// The same when the database refused what was to be written: what it holds then is not what this pass read.
    pub fn refused_by(&mut self, error: Option<&store::Error>) {
        let Some(error) = error else { return };
        self.database = self.database.clone().with_problem(error.into(), self.now);
        self.runs = None;
    }
}

/// Reads everything.
pub async fn observe(context: &Context, scan: &VolumeScan) -> Observed {
    let now = Timestamp::now();
    let fleet = context.fleet();
    let database = context.health();
    if database.problem.is_some() {
        return Observed { now, database, fleet, runs: None };
    }
    match read_runs(context, scan, &fleet).await {
        Ok(runs) => Observed { now, database, fleet, runs: Some(runs) },
        Err(error) => Observed { now, database: database.with_problem((&error).into(), now), fleet, runs: None },
    }
}

async fn read_runs(context: &Context, scan: &VolumeScan, fleet: &Fleet) -> Result<Runs, store::Error> {
    let uid = scan.uid().unwrap_or_default();
    let key = asked_key(scan).map(|key| key.to_string());
    let nodes: Vec<String> = fleet.select(scan.spec.node_selector.as_ref()).map(|(name, _)| name.clone()).collect();
    let dispatcher = &context.dispatcher;
    let mut runs = context
        .store
        .run("read the runs of a scan", READ_DEADLINE, async |conn| {
            let finished = store::runs::history(conn, &uid, HISTORY).await?;
            let asked = match &key {
                Some(key) => store::runs::find(conn, &uid, key).await?.map(|run| run.id),
                None => None,
            };
            let due_times = store::runs::due_times(conn, &uid, DUE_TIMES).await?;
            let without_docker = store::nodes::without_engine(conn, &nodes).await?;
            let active = match store::runs::active(conn, &uid).await? {
                None => None,
                Some(run) => {
                    let jobs = store::jobs::open(conn, run.id).await?;
                    let running = jobs.iter().filter(|job| job.running).map(|job| job.ticket);
                    dispatcher.hold(run.id, running);
                    Some(ActiveRun {
                        overdue: run.overdue,
                        free_slots: dispatcher.free_slots(store::jobs::running(conn).await?),
                        progress: store::runs::progress(conn, run.id).await?,
                        standings: dispatcher.standing(run.id),
                        jobs,
                        run,
                    })
                }
            };
            let told_about = active.as_ref().map(|active| active.run.id).or_else(|| finished.first().map(|run| run.id));
            let failed_nodes = match told_about {
                Some(run) => store::jobs::failed_nodes(conn, run, FAILED_NODES).await?,
                None => store::jobs::FailedNodes::default(),
            };
            Ok(Runs { active, asked, due_times, finished, failed_nodes, without_docker, ..Runs::default() })
        })
        .await?;
    if runs.active.is_none() {
        let view = View { scan_uid: &uid, nodes: &nodes, unused_after_days: scan.spec.unused_after_days };
        read_figures(context, scan, view, &mut runs).await;
    }
    Ok(runs)
}

/// Apart from the runs: figures of a huge fleet that take too long must not keep the next run from starting.
async fn read_figures(context: &Context, scan: &VolumeScan, view: View<'_>, runs: &mut Runs) {
    let read = context.store.run("read the figures of a scan", READ_DEADLINE, async |conn| {
        figures::read(conn, view, figures::LISTED).await
    });
    match read.await {
        Ok(figures) => (runs.figures, runs.figures_read) = (figures, true),
        Err(error) => tracing::warn!(scan.name = scan.name_any(), "the status keeps the figures it has: {error}"),
    }
}
