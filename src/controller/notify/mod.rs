//! Tells receivers what fires and what is over: Kubernetes Events, webhooks, Alertmanager.
//!
//! What is to be told is a row in the outbox, put down with the state that it tells about; the leader takes it to its receiver, at least once
//! and under a stable id. A receiver that is dead holds up nobody but itself.

mod address;
pub mod alertmanager;
mod apart;
mod changes;
mod courier;
mod event;
pub mod filler;
pub mod guard;
#[cfg(test)]
mod hostile;
mod metrics;
mod outbox;
pub mod post;
mod repeats;
mod retry;
pub mod sample;
pub mod secret;
pub mod template;
pub mod webhook;

use std::convert::Infallible;
use std::sync::Arc;

use futures::Stream;
use kube::Client;
use tokio::sync::{Notify, watch};

pub use self::apart::Apart;
use self::apart::Lines;
use self::changes::Changes;
use self::courier::Courier;
pub use self::courier::Problem;
use self::filler::Filler;
use self::guard::{Endpoint, Target};
pub use self::metrics::Metrics;
use self::outbox::Outbox;
use super::health::DatabaseHealth;
use crate::domain::alert::notification::{Notification, Receiver};
use crate::store::Store;

/// Where notifications may go.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Settings {
    /// URL of the Alertmanager that receivers without a Secret mean; its host and port are allowed.
    #[arg(long, env = "VOLUMEVIZ_ALERTMANAGER_URL", value_name = "URL")]
    pub alertmanager_url: Option<Target>,
    /// Receivers that may be on private addresses, as HOST:PORT.
    #[arg(long, env = "VOLUMEVIZ_NOTIFY_ALLOW", value_name = "HOST:PORT", value_delimiter = ',')]
    pub notify_allow: Vec<Endpoint>,
}

/// In whose name notifications are told.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Of the operator, where receivers' Secrets are.
    pub namespace: String,
    /// Reports the Events.
    pub pod_name: String,
}

/// Tells receivers; cheap to clone.
#[derive(Clone)]
pub struct Notifier {
    courier: Arc<Courier>,
    lines: Arc<Lines>,
    changes: Changes,
    woken: Arc<Notify>,
    metrics: Metrics,
}

impl Notifier {
    /// One that tells nobody until it [runs](Self::run).
    pub fn new(client: Client, identity: Identity, settings: Settings, filler: Filler, metrics: Metrics) -> Self {
        Self {
            courier: Arc::new(Courier::new(client, identity, settings, filler, metrics.clone())),
            lines: Arc::default(),
            changes: Changes::default(),
            woken: Arc::default(),
            metrics,
        }
    }

    /// What is wrong with those of these receivers that cannot be told anything, as far as can be known without telling them.
    pub async fn check(&self, receivers: &[Receiver]) -> Option<Problem> {
        self.courier.check(receivers).await
    }

    /// Tells a receiver from memory, without the database: in the order handed in, tried again as from the outbox. What was handed in before
    /// is known by its id.
    pub fn tell_apart(&self, receiver: Receiver, notification: Notification) {
        self.lines.add(receiver, notification);
    }

    /// Takes back what waits to be told from memory: the outbox has it now.
    pub fn withdraw(&self, alert_uid: &str) {
        self.lines.withdraw(alert_uid);
    }

    /// Whether this one was told from memory, by this process.
    pub fn was_told_apart(&self, receiver: &Receiver, notification: &Notification) -> bool {
        self.lines.was_delivered(receiver, notification)
    }

    /// How telling an alert's receivers from memory stands.
    pub fn apart(&self, alert_uid: &str) -> Apart {
        self.lines.standing(alert_uid)
    }

    /// Has those of `receivers` that are Alertmanagers told again each minute what fires of an alert, until it is called with something else.
    pub fn keep_telling(&self, alert_uid: &str, receivers: Vec<Receiver>, firing: Vec<Notification>) {
        self.courier.kept.set(alert_uid, receivers, firing);
    }

    /// Forgets all alerts but these.
    pub fn forget(&self, live_uids: &[String]) {
        self.lines.forget(live_uids);
        self.courier.kept.forget(live_uids);
        self.courier.forget(live_uids);
    }

    /// Has the outbox looked at now.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Names of VolumeAlerts whose delivery stands differently now, for one reader.
    pub fn changes(&self) -> impl Stream<Item = String> + Send + use<> {
        self.changes.stream()
    }

    /// Tells for ever; only the leader does.
    pub async fn run(&self, store: Store, health: watch::Receiver<DatabaseHealth>) -> Infallible {
        let outbox = Outbox {
            store,
            courier: Arc::clone(&self.courier),
            changes: self.changes.clone(),
            metrics: self.metrics.clone(),
        };
        tokio::select! {
            never = outbox.run(health, &self.woken) => never,
            never = apart::run(Arc::clone(&self.courier), Arc::clone(&self.lines), self.changes.clone()) => never,
            never = repeats::run(Arc::clone(&self.courier)) => never,
        }
    }
}
