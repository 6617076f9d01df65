//! What every pass of every reconciler shares.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::core::object::HasStatus;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::alert::outage::Outages;
use super::dispatch::Dispatcher;
use super::fleet::Fleet;
use super::health::DatabaseHealth;
use super::metrics::Metrics;
use super::notify::Notifier;
use super::report::Reporter;
use crate::domain::run::RunResult;
use crate::store::Store;

/// Owner of the status fields in server-side apply.
pub const FIELD_MANAGER: &str = "volumeviz-controller";

/// What every pass shares.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// The database.
    pub store: Store,
    /// Offers tickets to agents.
    pub dispatcher: Dispatcher,
    /// Logs, Events.
    pub reporter: Reporter,
    /// Tells people of alerts.
    pub notifier: Notifier,
    /// Outages of the database that receivers were told of.
    pub outages: Outages,
    /// Counters.
    pub metrics: Metrics,
    health: watch::Receiver<DatabaseHealth>,
    fleet: watch::Receiver<Option<Arc<Fleet>>>,
    runs_ended: watch::Sender<()>,
    written: Mutex<HashMap<String, Written>>,
    audited: Mutex<HashMap<String, i64>>,
}

/// The status that this process wrote last for one object.
struct Written {
    kind: &'static str,
    at: Instant,
    /// The version of the object that came of it.
    version: Option<u64>,
    status: Box<dyn Any + Send>,
}

/// The parts of a [`Context`] by which passes reach others.
pub struct Outlets {
    /// Offers tickets to agents.
    pub dispatcher: Dispatcher,
    /// Logs, Events.
    pub reporter: Reporter,
    /// Tells receivers of alerts.
    pub notifier: Notifier,
}

/// The parts of a [`Context`] that other tasks feed.
pub struct Feeds {
    /// From the health task.
    pub health: watch::Receiver<DatabaseHealth>,
    /// From the fleet's watches.
    pub fleet: watch::Receiver<Option<Arc<Fleet>>>,
}

impl Context {
    /// Puts the parts together.
    pub fn new(client: Client, store: Store, outlets: Outlets, metrics: Metrics, feeds: Feeds) -> Self {
        let Outlets { dispatcher, reporter, notifier } = outlets;
        let Feeds { health, fleet } = feeds;
        Self {
            client,
            store,
            dispatcher,
            reporter,
            notifier,
            outages: Outages::default(),
            metrics,
            health,
            fleet,
            runs_ended: watch::Sender::new(()),
            written: Mutex::default(),
            audited: Mutex::default(),
        }
    }

    /// The database as the health task last saw it.
    pub fn health(&self) -> DatabaseHealth {
        self.health.borrow().clone().as_of_now()
    }

    /// Where changes of the database's health come from.
    pub fn health_changes(&self) -> watch::Receiver<DatabaseHealth> {
        self.health.clone()
    }

    /// Where changes of the fleet come from.
    pub fn fleet_changes(&self) -> watch::Receiver<Option<Arc<Fleet>>> {
        self.fleet.clone()
    }

    /// The fleet; reconcilers start only once it is known.
    pub fn fleet(&self) -> Arc<Fleet> {
        self.fleet.borrow().clone().unwrap_or_default()
    }

    /// Counts a run that ended, and tells whoever waits for new results.
    pub fn run_ended(&self, result: RunResult) {
        self.metrics.run_ended(result);
        self.runs_ended.send_replace(());
    }

    /// Where ends of runs come from.
    pub fn ends_of_runs(&self) -> watch::Receiver<()> {
        self.runs_ended.subscribe()
    }

    /// How long until the status of the object with this uid was written `period` ago; `None` when that is over.
    pub fn until_written(&self, uid: &str, period: Duration) -> Option<Duration> {
        let elapsed = self.written().get(uid)?.at.elapsed();
        period.checked_sub(elapsed).filter(|left| !left.is_zero())
    }

    /// Remembers the status written for the object with this uid, and the object's version that came of it.
    pub fn wrote(&self, kind: &'static str, uid: String, version: Option<&str>, status: impl Any + Send) {
        let version = version.and_then(|version| version.parse().ok());
        self.written().insert(uid, Written { kind, at: Instant::now(), version, status: Box::new(status) });
    }

    /// The object with the status that this process wrote last, when the watch has not brought it yet: else what is new would be told twice.
    /// Versions are numbers that grow; of any others nothing is taken for old.
    pub fn with_own_status<K>(&self, object: Arc<K>) -> Arc<K>
    where
        K: Resource + HasStatus + Clone,
        K::Status: Any + Clone,
    {
        let version: Option<u64> = object.resource_version().and_then(|version| version.parse().ok());
        let written = self.written();
        let newer =
            object.uid().and_then(|uid| written.get(&uid)).filter(|last| version.is_some() && version < last.version);
        match newer.and_then(|last| last.status.downcast_ref::<K::Status>()) {
            Some(status) => {
                let mut object = K::clone(&object);
                *object.status_mut() = Some(status.clone());
                Arc::new(object)
            }
            None => object,
        }
    }

    /// Whether this process has seen to it that this generation of the object with this uid is in the audit.
    pub fn is_audited(&self, uid: &str, generation: i64) -> bool {
        self.audited().get(uid) == Some(&generation)
    }

    /// Remembers that it is.
    pub fn audited_now(&self, uid: String, generation: i64) {
        self.audited().insert(uid, generation);
    }

    /// Forgets objects of a kind that are gone.
    pub fn retain(&self, kind: &'static str, uids: &[String]) {
        self.written().retain(|uid, written| written.kind != kind || uids.contains(uid));
        self.audited().retain(|uid, _| uids.contains(uid));
    }

    fn audited(&self) -> std::sync::MutexGuard<'_, HashMap<String, i64>> {
        self.audited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> std::sync::MutexGuard<'_, HashMap<String, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
