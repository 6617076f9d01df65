//! Everything one pass looks at, read once at its beginning. That the database is away is a value here, not an error.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use uuid::Uuid;

use super::plan::wanted_key;
use crate::controller::context::Context;
use crate::controller::dispatch::Standing;
use crate::controller::fleet::Fleet;
use crate::controller::health::{DatabaseHealth, DatabaseProblem};
use crate::crd::VolumeScan;
use crate::store;
use crate::store::results::{Results, TOP_VOLUMES};
use crate::store::runs::{Run, RunProgress};

/// All reads of one pass share one connection and end within this time, so that a pass never lasts over 5 s.
const READ_DEADLINE: Duration = Duration::from_secs(3);
/// Runs listed in status.
const HISTORY: i64 = 5;
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
    /// The run the spec asks for, when it was ever made.
    pub wanted: Option<i64>,
    /// Ended runs, newest first.
    pub finished: Vec<Run>,
    /// Nodes without a result in the active run, else in the last one.
    pub failed_nodes: store::jobs::FailedNodes,
    /// The figures; absent while a run is under way (they are read when it ends), and before any node reported.
    pub results: Option<Results>,
    /// Whether `results` was read in this pass.
    pub results_read: bool,
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
    /// From its snapshot of the spec.
    pub max_parallel_nodes: usize,
    /// Jobs that have not ended.
    pub jobs: Vec<OpenJob>,
    /// Sums over all jobs.
    pub progress: RunProgress,
    /// How offering their tickets stands.
    pub standings: HashMap<Uuid, Standing>,
}

pub use crate::store::jobs::OpenJob;

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
        Err(error) => {
            let problem = DatabaseProblem { reason: error.reason(), message: error.to_string() };
            Observed { now, database: database.with_problem(problem, now), fleet, runs: None }
        }
    }
}

async fn read_runs(context: &Context, scan: &VolumeScan, fleet: &Fleet) -> Result<Runs, store::Error> {
    let uid = scan.uid().unwrap_or_default();
    let key = wanted_key(scan).to_string();
    let nodes: Vec<String> = fleet.select(scan.spec.node_selector.as_ref()).map(|(name, _)| name.clone()).collect();
    let dispatcher = &context.dispatcher;
    context
        .store
        .run("read the runs of a scan", READ_DEADLINE, async |conn| {
            let finished = store::runs::history(conn, &uid, HISTORY).await?;
            let wanted = store::runs::find(conn, &uid, &key).await?.map(|run| run.id);
            let without_docker = store::nodes::without_engine(conn, &nodes).await?;
            let active = match store::runs::active(conn, &uid).await? {
                None => None,
                Some(run) => Some(ActiveRun {
                    overdue: run.overdue,
                    max_parallel_nodes: usize::try_from(run.work.limits.max_parallel_nodes).unwrap_or(1),
                    jobs: store::jobs::open(conn, run.id).await?,
                    progress: store::runs::progress(conn, run.id).await?,
                    standings: dispatcher.standing(run.id),
                    run,
                }),
            };
            let told_about = active.as_ref().map(|active| active.run.id).or_else(|| finished.first().map(|run| run.id));
            let failed_nodes = match told_about {
                Some(run) => store::jobs::failed_nodes(conn, run, FAILED_NODES).await?,
                None => store::jobs::FailedNodes::default(),
            };
            let results_read = active.is_none();
            let results =
                if results_read { store::results::read(conn, &uid, &nodes, TOP_VOLUMES).await? } else { None };
            Ok(Runs { active, wanted, finished, failed_nodes, results, results_read, without_docker })
        })
        .await
}
