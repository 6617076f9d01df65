//! Carries out a plan: states and what is to be told about them, in one transaction, or none of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Connection;

use super::plan::Plan;
use super::tell::Author;
use crate::controller::context::Context;
use crate::domain::alert::notification::{Notification, Receiver};
use crate::store;
use crate::store::alerts::{self, Open};
use crate::store::notifications::{self, Queued};

const WRITE_DEADLINE: Duration = Duration::from_secs(3);

/// Writes what was judged; returns what is open then. `None`: another process has judged a subject meanwhile, and nothing was written.
pub async fn apply(
    context: &Context,
    author: &Author<'_>,
    plan: &Plan,
    now: DateTime<Utc>,
) -> Result<Option<Vec<Open>>, store::Error> {
    let alert = author.row();
    let Plan { states, ends, notifications } = plan;
    let queued = queued(notifications);
    let written = context.store.run("write down what an alert judged", WRITE_DEADLINE, async |conn| {
        let mut transaction = conn.begin().await?;
        let ended = alerts::end(&mut transaction, ends, now).await?;
        let noted = alerts::note(&mut transaction, alert, states, now).await?;
        if (ended, noted) != (ends.len(), states.len()) {
            transaction.rollback().await?;
            return Ok(None);
        }
        notifications::put(&mut transaction, &queued).await?;
        let open = alerts::open(&mut transaction, alert.uid).await?;
        transaction.commit().await?;
        Ok(Some(open))
    });
    let written = written.await?;
    context.notifier.wake();
    Ok(written)
}

/// Writes down that the database was away, and that this is over.
pub async fn note_outage(
    context: &Context,
    author: &Author<'_>,
    fired_at: DateTime<Utc>,
    told: &[(Receiver, Notification)],
) -> Result<(), store::Error> {
    let alert = author.row();
    let queued = queued(told);
    let written = context.store.transaction("write down an outage of the database", WRITE_DEADLINE, async |conn| {
        alerts::note_past(conn, alert, fired_at, "the database could not be used").await?;
        notifications::put(conn, &queued).await
    });
    written.await?;
    context.notifier.wake();
    Ok(())
}

fn queued(notifications: &[(Receiver, Notification)]) -> Vec<Queued<'_>> {
    notifications.iter().map(|(receiver, notification)| Queued { receiver, notification }).collect()
}
