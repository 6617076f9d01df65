//! One pass of a reconciler: bounded in time, counted, and how it can fail.

use std::time::Duration;

use kube::runtime::controller::Action;
use tokio::time::{Instant, timeout};

use super::metrics::Metrics;
use super::patch;
use crate::store;

/// A pass that takes longer is given up: the next one begins from what is true then.
const DEADLINE: Duration = Duration::from_secs(5);

/// A pass failed; the next one begins from what is true then.
#[derive(Debug, thiserror::Error)]
pub enum Error<A: std::error::Error + 'static> {
    /// What was planned could not be done.
    #[error(transparent)]
    Apply(A),
    /// The status could not be written.
    #[error(transparent)]
    Publish(#[from] patch::Error),
    /// The database or the API server was too slow.
    #[error("the pass was not over within {DEADLINE:?}")]
    Timeout,
}

/// What can go wrong with what was planned.
pub trait Fault: std::error::Error + 'static {
    /// What the database did wrong; `None` when it was not the database.
    fn of_database(&self) -> Option<&store::Error>;
}

impl<A: Fault> Error<A> {
    /// The step that failed, for metrics.
    const fn step(&self) -> &'static str {
        match self {
            Self::Apply(_) => "Apply",
            Self::Publish(_) => "Publish",
            Self::Timeout => "Timeout",
        }
    }

    /// What was at fault, for metrics: a reason of `DatabaseReady`, or the API server, or time.
    fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.of_database().map_or("KubernetesAPI", store::Error::reason),
            Self::Publish(_) => "KubernetesAPI",
            Self::Timeout => "Timeout",
        }
    }
}

/// Makes a pass over an object of this kind, within its time.
pub(super) async fn timed<A: Fault>(
    kind: &'static str,
    metrics: &Metrics,
    pass: impl Future<Output = Result<Action, Error<A>>>,
) -> Result<Action, Error<A>> {
    let started = Instant::now();
    let outcome = timeout(DEADLINE, pass).await.unwrap_or(Err(Error::Timeout));
    metrics.reconciled(kind, started, outcome.as_ref().map_or_else(Error::step, |_| "Ok"));
    if let Err(error) = &outcome {
        metrics.failed(error.reason());
    }
    outcome
}
