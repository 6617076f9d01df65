//! What is in the volumes, and what alerts say of them, for `/metrics` of the leader. What is not known now has no series: it is neither zero nor what it once was.

mod series;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::context::Context;
use super::health::DatabaseHealth;
use crate::crd::{VolumeAlert, VolumeScan};
use crate::store::contents;

/// How often the database is read at rest.
const EVERY: Duration = Duration::from_secs(60);
/// How often it is read when runs end one after the other.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(10);

/// Which volumes have series of their own in `/metrics`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct VolumeSeries {
    /// So many of the biggest volumes have series of their own in /metrics.
    #[arg(long = "metrics-top-volumes", env = "VOLUMEVIZ_METRICS_TOP_VOLUMES", default_value_t = 20, value_name = "N")]
    pub top: u32,
    /// Every measured volume has series of its own in /metrics, up to --metrics-max-volumes.
    #[arg(long = "metrics-all-volumes", env = "VOLUMEVIZ_METRICS_ALL_VOLUMES", default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub all: bool,
    /// Volumes that may have series of their own in /metrics, the biggest first; the others are counted.
    #[arg(
        long = "metrics-max-volumes",
        env = "VOLUMEVIZ_METRICS_MAX_VOLUMES",
        default_value_t = 5000,
        value_name = "N"
    )]
    pub max: u32,
}

impl VolumeSeries {
    /// How many.
    fn limit(self) -> i64 {
        i64::from(if self.all { self.max } else { self.top.min(self.max) })
    }
}

/// What `/metrics` tells of the contents of volumes; cheap to clone. Empty in a replica that does not lead.
#[derive(Debug, Clone, Default)]
pub struct Contents(Arc<Mutex<Known>>);

#[derive(Debug, Clone, Default)]
struct Known {
    /// As the database told last; absent while it cannot be asked.
    contents: Option<Arc<contents::Contents>>,
    /// All scans, with their statuses.
    scans: Option<Store<DeserializeGuard<VolumeScan>>>,
    /// The same of all alerts.
    alerts: Option<Store<DeserializeGuard<VolumeAlert>>>,
}

impl Contents {
    /// Tells the figures of these scans' statuses from now on.
    pub fn follow(&self, scans: Store<DeserializeGuard<VolumeScan>>) {
        self.known().scans = Some(scans);
    }

    /// Tells the counts of these alerts' statuses from now on.
    pub fn follow_alerts(&self, alerts: Store<DeserializeGuard<VolumeAlert>>) {
        self.known().alerts = Some(alerts);
    }

    /// Tells this of nodes and volumes from now on; nothing, where it is not known.
    pub fn tell(&self, contents: Option<contents::Contents>) {
        self.known().contents = contents.map(Arc::new);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a minute after the last reading, or soon after a run's end.
async fn due(ends_of_runs: &mut watch::Receiver<()>) {
    sleep(AT_MOST_EVERY).await;
    // No run ended for that long: a minute is over.
    drop(timeout(EVERY.saturating_sub(AT_MOST_EVERY), ends_of_runs.changed()).await);
}

/// Reads the database for ever, while it can be used; the caller leads.
pub async fn watch(context: Arc<Context>, series: VolumeSeries) -> std::convert::Infallible {
    let (shown, mut health) = (context.metrics.contents(), context.health_changes());
    let (mut ends_of_runs, mut last_problem) = (context.ends_of_runs(), None);
    loop {
        until(&mut health, |health| health.problem.is_none()).await;
        let read = context
            .store
            .snapshot("read what is in the volumes", DEADLINE, async |conn| contents::read(conn, series.limit()).await);
        let (contents, problem) = match read.await {
            Ok(contents) => (Some(contents), None),
            Err(error) => (None, Some(error.to_string())),
        };
        shown.tell(contents);
        if problem != last_problem
            && let Some(problem) = &problem
        {
            tracing::warn!("/metrics tells nothing of nodes and volumes: {problem}");
        }
        last_problem = problem;
        tokio::select! {
            () = due(&mut ends_of_runs) => {}
            () = until(&mut health, |health| health.problem.is_some()) => shown.tell(None),
        }
    }
}

/// Waits for the database to be so; for ever once nobody probes it any more.
async fn until(health: &mut watch::Receiver<DatabaseHealth>, so: impl FnMut(&DatabaseHealth) -> bool) {
    if health.wait_for(so).await.is_err() {
        std::future::pending::<()>().await;
    }
}
