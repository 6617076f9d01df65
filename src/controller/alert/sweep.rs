//! What nobody tells: the states of VolumeAlerts that are gone are over (there are no finalizers), and their receivers hear of it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::apply;
use super::plan;
use super::tell::Author;
use crate::controller::ALERTS;
use crate::controller::context::Context;
use crate::controller::live;
use crate::crd::VolumeAlert;
use crate::store;
use crate::store::alerts;

const DEADLINE: Duration = Duration::from_secs(3);

/// A sweep that could not be made; the next one comes anyway.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows could not be read.
    #[error("unable to read open alerts: {0}")]
    Read(#[source] store::Error),
    /// It is not known which alerts there are.
    #[error(transparent)]
    List(#[from] live::Error),
    /// The rows could not be ended.
    #[error("unable to end the alerts of a deleted volumealert: {0}")]
    End(#[source] store::Error),
}

/// Asks the API server only while something is open, and then for a fresh list: a cache that is behind must not end a new alert's states.
pub async fn sweep(context: &Context) -> Result<(), Error> {
    let open = context.store.run("read open alerts", DEADLINE, async |conn| alerts::with_open(conn).await);
    let open = open.await.map_err(Error::Read)?;
    if open.is_empty() {
        return Ok(());
    }
    let live = live::uids::<VolumeAlert>(context).await?;
    for uid in open.iter().filter(|uid| !live.contains(uid)) {
        end(context, uid).await.map_err(Error::End)?;
    }
    context.notifier.forget(&live);
    context.retain(ALERTS, &live);
    Ok(())
}

/// The same of the database's outages, whose states are not in the database.
pub async fn sweep_outages(context: &Context) -> Result<(), Error> {
    if context.outages.is_empty() {
        return Ok(());
    }
    let live = live::uids::<VolumeAlert>(context).await?;
    for (receiver, notification) in context.outages.take_gone(&live, Timestamp::now()) {
        context.notifier.tell_apart(receiver, notification);
    }
    context.notifier.forget(&live);
    Ok(())
}

async fn end(context: &Context, uid: &str) -> Result<(), store::Error> {
    let read = context.store.run("read the states of a deleted volumealert", DEADLINE, async |conn| {
        let now = store::samples::now(conn).await?;
        Ok((alerts::open(conn, uid).await?, now))
    });
    let (open, now) = read.await?;
    let Some(first) = open.first() else { return Ok(()) };
    let author = Author {
        name: &first.alert_name,
        uid,
        rule: &first.rule,
        threshold: first.threshold,
        scope: first.scope,
        severity: first.severity,
        receivers: &first.receivers,
    };
    let plan = plan::end_all(&author, &open.iter().collect::<Vec<_>>(), "the VolumeAlert was deleted", now);
    apply::apply(context, &author, &plan, now).await.map_err(|error| error.0)?;
    tracing::info!(alert.name = first.alert_name, subjects = open.len(), "ended the states of a deleted volumealert");
    Ok(())
}
