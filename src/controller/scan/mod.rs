//! The VolumeScan reconciler: observe, plan, apply, publish.

pub mod agenda;
pub mod apply;
mod conditions;
mod figures;
pub mod observe;
pub mod plan;
pub mod publish;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;

use agenda::agenda;
use apply::Applied;
use observe::{Observed, Runs};
use plan::{expiry, plan};

use super::context::Context;
use super::pass::{self, Fault};
use super::unreadable;
use crate::crd::{State, VolumeScan};

/// While a run is under way: how far it is, which tickets are due, which leases have expired.
const WHILE_ACTIVE: Duration = Duration::from_secs(1);
/// While the database is away; its return wakes every scan anyway.
const WHILE_AWAY: Duration = Duration::from_secs(30);
/// At rest, against whatever no watch told of.
const AT_REST: Duration = Duration::from_secs(300);

/// A pass over a scan failed.
pub type Error = pass::Error<apply::Error>;

/// One pass over one scan, or over what is no scan of this version.
pub async fn reconcile_any(scan: Arc<DeserializeGuard<VolumeScan>>, context: Arc<Context>) -> Result<Action, Error> {
    match &scan.0 {
        Ok(scan) => reconcile(Arc::new(scan.clone()), context).await,
        Err(invalid) => {
            unreadable::tell::<VolumeScan>(&context, invalid, Some(State::Failed)).await?;
            Ok(Action::requeue(AT_REST))
        }
    }
}

/// One pass over one scan.
pub async fn reconcile(scan: Arc<VolumeScan>, context: Arc<Context>) -> Result<Action, Error> {
    if scan.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let scan = context.with_own_status(scan);
    let mut observed = observe::observe(&context, &scan).await;
    let plan = plan(&scan, &observed);
    let invalid = plan.invalid.clone();
    let applied = apply::apply(&context, &scan, &observed, plan).await;
    match &applied {
        Ok(Applied { runs_changed: true }) => {
            observed = observe::observe(&context, &scan).await;
        }
        Ok(Applied { runs_changed: false }) => {}
        // A database that answers and refuses a write: the status says so, for all that the probe found.
        Err(error) => observed.refused_by(error.of_database()),
    }
    let held_back = publish::publish(&context, &scan, &observed, invalid.as_ref()).await?;
    applied.map_err(Error::Apply)?;
    let next = next_pass(&scan, &observed);
    Ok(Action::requeue(held_back.map_or(next, |left| next.min(left))))
}

fn next_pass(scan: &VolumeScan, observed: &Observed) -> Duration {
    let wait = match &observed.runs {
        Some(Runs { active: Some(_), .. }) => return WHILE_ACTIVE,
        None => WHILE_AWAY,
        Some(Runs { active: None, .. }) => AT_REST,
    };
    let wait = wait.mul_f64(rand::random_range(0.8..=1.2));
    let next = agenda(scan, observed).ok().and_then(|agenda| agenda.next).map(|due| due.timestamp_millis());
    let expiry = observed.runs.as_ref().and_then(|runs| expiry(scan, runs)).map(Timestamp::as_millisecond);
    // What is over was dealt with in this pass: a scan whose time is over was deleted, and the watch tells what became of it.
    let left = |at: i64| u64::try_from(at.saturating_sub(observed.now.as_millisecond())).ok().filter(|left| *left > 0);
    // A moment later, so that the time has come by then.
    let until = |left: u64| Duration::from_millis(left.saturating_add(10));
    [next, expiry].into_iter().flatten().filter_map(left).map(until).fold(wait, Duration::min)
}
