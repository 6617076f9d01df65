//! Carries out a plan: states and what is to be told about them, in one transaction, or none of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use super::plan::Plan;
use super::tell::Author;
use crate::controller::context::Context;
use crate::controller::pass::Fault;
use crate::domain::alert::notification::{Notification, Receiver};
use crate::store;
use crate::store::alerts::{self, Open};
use crate::store::notifications::{self, Queued};

const WRITE_DEADLINE: Duration = Duration::from_secs(3);

/// What was judged could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to judge: {0}")]
pub struct Error(#[from] pub store::Error);

impl Fault for Error {
    fn of_database(&self) -> Option<&store::Error> {
        Some(&self.0)
    }
}

/// Writes what was judged; returns what is open then. `None`: another process has judged a subject meanwhile, and nothing was written.
pub async fn apply(
    context: &Context,
    author: &Author<'_>,
    plan: &Plan,
    now: DateTime<Utc>,
) -> Result<Option<Vec<Open>>, Error> {
    let written = context
        .store
        .run("write down what an alert judged", WRITE_DEADLINE, async |conn| write(conn, author, plan, now).await);
    let written = written.await?;
    context.notifier.wake();
    Ok(written)
}

/// The same on a connection.
pub async fn write(
    conn: &mut PgConnection,
    author: &Author<'_>,
    plan: &Plan,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<Vec<Open>>> {
    let Plan { states, ends, notifications } = plan;
    let mut transaction = conn.begin().await?;
    let ended = alerts::end(&mut transaction, ends, now).await?;
    let noted = alerts::note(&mut transaction, author.row(), states, now).await?;
    if (ended, noted) != (ends.len(), states.len()) {
        transaction.rollback().await?;
        return Ok(None);
    }
    notifications::put(&mut transaction, &queued(notifications)).await?;
    let open = alerts::open(&mut transaction, author.uid).await?;
    transaction.commit().await?;
    Ok(Some(open))
}

/// Writes down that the database was away, and that this is over.
pub async fn note_outage(
    context: &Context,
    author: &Author<'_>,
    fired_at: DateTime<Utc>,
    told: &[(Receiver, Notification)],
) -> Result<(), Error> {
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
