//! The VolumeScan reconciler: observe, plan, apply, publish.

pub mod apply;
mod conditions;
pub mod observe;
pub mod plan;
pub mod publish;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use kube::Resource;
use kube::runtime::controller::Action;

use observe::{Observed, Runs};
use plan::plan;

use super::context::Context;
use crate::crd::VolumeScan;

/// While a run is under way: how far it is, which tickets are due, which leases have expired.
const WHILE_ACTIVE: Duration = Duration::from_secs(1);
/// While the database is away; its return wakes every scan anyway.
const WHILE_AWAY: Duration = Duration::from_secs(30);
/// At rest, against whatever no watch told of.
const AT_REST: Duration = Duration::from_secs(300);

/// A pass failed; the next one begins from what is true then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of the plan failed.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The status could not be written.
    #[error(transparent)]
    Publish(#[from] publish::Error),
    /// The database or the API server was too slow.
    #[error("the pass was not over within {0:?}")]
    Timeout(Duration),
}

impl Error {
    /// For metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Apply(_) => "Apply",
            Self::Publish(_) => "Publish",
            Self::Timeout(_) => "Timeout",
        }
    }
}

/// One pass over one scan.
pub async fn reconcile(scan: Arc<VolumeScan>, context: Arc<Context>) -> Result<Action, Error> {
    if scan.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let mut observed = observe::observe(&context, &scan).await;
    let plan = plan(&scan, &observed);
    let invalid = plan.invalid.clone();
    let applied = apply::apply(&context, &scan, &observed, plan).await?;
    if applied.runs_changed {
        observed = observe::observe(&context, &scan).await;
    }
    publish::publish(&context, &scan, &observed, invalid.as_ref()).await?;
    Ok(next_pass(&observed))
}

fn next_pass(observed: &Observed) -> Action {
    let wait = match &observed.runs {
        None => WHILE_AWAY,
        Some(Runs { active: Some(_), .. }) => WHILE_ACTIVE,
        Some(Runs { active: None, .. }) => AT_REST,
    };
    let jitter = if wait == WHILE_ACTIVE { 1.0 } else { rand::random_range(0.8..=1.2) };
    Action::requeue(wait.mul_f64(jitter))
}
