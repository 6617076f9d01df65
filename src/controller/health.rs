//! Watches the database: one probe each [`PERIOD`], its result for everyone.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::metrics::Metrics;
use crate::store::health::{Health, probe};
use crate::store::{self, Store};

const PERIOD: Duration = Duration::from_secs(5);
/// With [`PERIOD`], a database that goes away is told within 10 s.
const PROBE_DEADLINE: Duration = Duration::from_secs(4);

/// The database as last probed.
#[derive(Debug, Clone)]
pub struct DatabaseHealth {
    /// It was probed at least once.
    pub is_known: bool,
    /// Why it cannot be used.
    pub problem: Option<DatabaseProblem>,
    /// Since when the reason holds.
    pub since: Timestamp,
    /// How long it has been reached without a break.
    pub contact_for: Duration,
    /// PostgreSQL's version when last reached.
    pub server_version: Option<String>,
    /// Number of the last applied migration.
    pub schema_version: Option<i64>,
    /// Migrations this binary needs that are not applied.
    pub pending_migrations: Option<i32>,
    contact_since: Option<Instant>,
}

/// Why the database cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseProblem {
    /// CamelCase, from a closed set.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl From<&store::Error> for DatabaseProblem {
    fn from(error: &store::Error) -> Self {
        Self { reason: error.reason(), message: error.to_string() }
    }
}

impl DatabaseHealth {
    /// Before the first probe.
    pub fn unknown(now: Timestamp) -> Self {
        let problem = DatabaseProblem { reason: "Unreachable", message: "the database was not reached yet".to_owned() };
        Self {
            is_known: false,
            problem: Some(problem),
            since: now,
            contact_for: Duration::ZERO,
            server_version: None,
            schema_version: None,
            pending_migrations: None,
            contact_since: None,
        }
    }

    /// A database that has been reached without a break for `contact`.
    pub fn reached_for(contact: Duration, now: Timestamp) -> Self {
        let started = Instant::now();
        let contact_since = Some(started.checked_sub(contact).unwrap_or(started));
        Self { is_known: true, problem: None, contact_for: contact, contact_since, ..Self::unknown(now) }
    }

    /// The same with the time in contact as of now.
    pub fn as_of_now(mut self) -> Self {
        self.contact_for = self.contact_since.map_or(Duration::ZERO, |since| since.elapsed());
        self
    }

    /// The same with a problem that somebody else met.
    pub fn with_problem(mut self, problem: DatabaseProblem, now: Timestamp) -> Self {
        self.update(Some(problem), now);
        self
    }

    fn update(&mut self, problem: Option<DatabaseProblem>, now: Timestamp) {
        if reason(self.problem.as_ref()) != reason(problem.as_ref()) {
            self.since = now;
        }
        self.contact_since = match problem {
            Some(_) => None,
            None => Some(self.contact_since.unwrap_or_else(Instant::now)),
        };
        self.problem = problem;
    }
}

fn reason(problem: Option<&DatabaseProblem>) -> Option<&'static str> {
    problem.map(|problem| problem.reason)
}

/// Probes for ever. Receivers see every probe; [`changes`] tells those that matter to reconcilers.
pub async fn watch(
    store: Store,
    cluster_uid: String,
    metrics: Metrics,
    health: watch::Sender<DatabaseHealth>,
) -> std::convert::Infallible {
    let mut conn = None;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let started = Instant::now();
        let probed = store
            .run_apart(&mut conn, "probe the database", PROBE_DEADLINE, async |conn| probe(conn, &cluster_uid).await)
            .await;
        let next = judge(health.borrow().clone(), probed, Timestamp::now());
        metrics.probed(next.problem.is_none(), started.elapsed().as_secs_f64());
        log_change(&health.borrow(), &next);
        health.send_replace(next);
    }
}

fn judge(mut health: DatabaseHealth, probed: Result<Health, store::Error>, now: Timestamp) -> DatabaseHealth {
    let problem = match probed {
        Err(error) => Some((&error).into()),
        Ok(Health { problem, server_version, schema_version, pending_migrations }) => {
            health.server_version = Some(server_version);
            health.schema_version = schema_version;
            health.pending_migrations = Some(pending_migrations);
            problem.map(|(reason, message)| DatabaseProblem { reason: reason.as_str(), message })
        }
    };
    health.is_known = true;
    health.update(problem, now);
    health
}

fn log_change(before: &DatabaseHealth, next: &DatabaseHealth) {
    if reason(before.problem.as_ref()) == reason(next.problem.as_ref()) {
        return;
    }
    match &next.problem {
        None => tracing::info!("the database can be used"),
        Some(problem) => tracing::warn!(reason = problem.reason, "the database cannot be used: {}", problem.message),
    }
}

/// An item for each change of the reason.
pub fn changes(receiver: watch::Receiver<DatabaseHealth>) -> impl futures::Stream<Item = ()> + Send {
    futures::stream::unfold((receiver, None), async |(mut receiver, seen)| {
        loop {
            let current = reason(receiver.borrow_and_update().problem.as_ref());
            if seen != Some(current) {
                return Some(((), (receiver, Some(current))));
            }
            receiver.changed().await.ok()?;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn away(reason: &'static str) -> DatabaseProblem {
        DatabaseProblem { reason, message: String::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn contact_begins_anew_after_every_break() {
        let mut health = DatabaseHealth::unknown(at(0));
        health.update(None, at(1));
        tokio::time::advance(Duration::from_secs(50)).await;
        health.update(None, at(51));
        assert_eq!(health.clone().as_of_now().contact_for, Duration::from_secs(50));
        health.update(Some(away("Unreachable")), at(52));
        assert_eq!(health.clone().as_of_now().contact_for, Duration::ZERO);
        health.update(None, at(53));
        assert_eq!(health.as_of_now().contact_for, Duration::ZERO);
    }

    #[test]
    fn since_moves_with_the_reason_only() {
        let mut health = DatabaseHealth::unknown(at(0));
        health.update(Some(away("AuthFailed")), at(5));
        health.update(Some(away("AuthFailed")), at(9));
        assert_eq!(health.since, at(5));
    }
}
