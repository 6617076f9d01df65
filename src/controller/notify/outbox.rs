//! Empties the outbox: what is due is told, and how that went is noted. A process that ends in between tells it again under the same id.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::changes::Changes;
use super::courier::Courier;
use super::metrics::Metrics;
use super::retry::{KEEP, MAX_UNDER_WAY, SHARE, backoff};
use crate::controller::health::DatabaseHealth;
use crate::domain::alert::notification::{Notification, Receiver};
use crate::store::notifications::{self, Due};
use crate::store::{self, Store};

const PERIOD: Duration = Duration::from_secs(1);
const COUNT_EVERY: Duration = Duration::from_secs(15);
const DATABASE_DEADLINE: Duration = Duration::from_secs(5);
const MAX_NOTE_BACKOFF: Duration = Duration::from_secs(15);

/// What a delivery needs.
#[derive(Clone)]
pub(super) struct Outbox {
    pub(super) store: Store,
    pub(super) courier: Arc<Courier>,
    pub(super) changes: Changes,
    pub(super) metrics: Metrics,
}

/// How telling one went.
enum Outcome {
    Delivered,
    Failed(String, Duration),
    GivenUp(String),
}

impl Outbox {
    /// Tells for ever, while the database can be used.
    pub(super) async fn run(self, health: watch::Receiver<DatabaseHealth>, wake: &Notify) -> Infallible {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut deliveries, mut under_way) = (JoinSet::new(), HashMap::<Id, Uuid>::new());
        let (mut counted, mut last_problem): (Option<Instant>, Option<String>) = (None, None);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = wake.notified() => {}
                Some(ended) = deliveries.join_next_with_id() => {
                    forget(&mut under_way, &ended);
                    while let Some(ended) = deliveries.try_join_next_with_id() {
                        forget(&mut under_way, &ended);
                    }
                }
            }
            if health.borrow().problem.is_some() {
                continue;
            }
            let due = self.due(under_way.values().copied().collect()).await;
            let problem = due.as_ref().err().map(ToString::to_string);
            if problem.is_some() && problem != last_problem {
                tracing::warn!("{}", problem.as_deref().unwrap_or_default());
            }
            last_problem = problem;
            for due in due.unwrap_or_default() {
                let id = due.notification_id;
                let task = deliveries.spawn(self.clone().deliver(due));
                under_way.insert(task.id(), id);
            }
            if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                counted = Some(Instant::now());
                self.count().await;
            }
        }
    }

    async fn due(&self, under_way: Vec<Uuid>) -> Result<Vec<Due>, store::Error> {
        let free = MAX_UNDER_WAY.saturating_sub(under_way.len());
        if free == 0 {
            return Ok(Vec::new());
        }
        let (share, free) = (as_count(SHARE), as_count(free));
        self.store
            .run("read the notifications that are due", DATABASE_DEADLINE, async |conn| {
                notifications::due(conn, &under_way, share, free, KEEP).await
            })
            .await
    }

    async fn count(&self) {
        let counted = async |conn: &mut _| notifications::queue(conn).await;
        match self.store.run("count the notifications that wait", DATABASE_DEADLINE, counted).await {
            Ok(pending) => self.metrics.pending(pending),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    async fn deliver(self, due: Due) {
        let (id, alert) = (due.notification_id, due.alert_name.clone());
        let outcome = self.tell(due).await;
        self.note(id, &alert, outcome).await;
        self.changes.note(&alert);
    }

    async fn tell(&self, due: Due) -> Outcome {
        let told = serde_json::from_value::<Receiver>(due.receiver)
            .and_then(|receiver| Ok((receiver, serde_json::from_value::<Notification>(due.payload)?)));
        let (receiver, notification) = match told {
            Ok(told) => told,
            Err(error) => {
                let problem =
                    format!("another version of this program put it down, and this one cannot read it: {error}");
                self.courier.gave_up(&due.alert_name, None, &problem);
                return Outcome::GivenUp(problem);
            }
        };
        match self.courier.deliver(&receiver, &notification).await {
            Ok(()) => Outcome::Delivered,
            Err(failure) if due.overdue => {
                self.courier.gave_up(&due.alert_name, Some(&receiver), &failure);
                Outcome::GivenUp(failure.of(&receiver))
            }
            Err(failure) => Outcome::Failed(failure.of(&receiver), backoff(u32::try_from(due.attempts).unwrap_or(0))),
        }
    }

    /// Notes an outcome, as soon as the database can: what was told must not be told again if that can be helped.
    async fn note(&self, id: Uuid, alert: &str, outcome: Outcome) {
        let mut wait = PERIOD;
        loop {
            let noted =
                self.store.run("note how a notification went", DATABASE_DEADLINE, async |conn| match &outcome {
                    Outcome::Delivered => notifications::delivered(conn, id).await,
                    Outcome::Failed(error, wait) => notifications::failed(conn, id, error, *wait).await,
                    Outcome::GivenUp(error) => notifications::give_up(conn, id, error).await,
                });
            match noted.await {
                Ok(_) => return,
                Err(error) => tracing::warn!(alert.name = alert, notification.id = %id, "{error}, trying again"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(MAX_NOTE_BACKOFF);
        }
    }
}

fn as_count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn forget(under_way: &mut HashMap<Id, Uuid>, ended: &Result<(Id, ()), JoinError>) {
    match ended {
        Ok((task, ())) => under_way.remove(task),
        Err(error) => under_way.remove(&error.id()),
    };
}
