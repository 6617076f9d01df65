//! What the controller counts. Labels come from closed sets; no object's name is one.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::domain::run::RunResult;

/// The controller's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    runs: Family<Ended, Counter>,
    status_writes: Counter,
    leading: Gauge,
    database_ready: Gauge,
    probe_seconds: Gauge<f64, AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

impl Metrics {
    /// Makes the metrics and registers them under the prefix `volumeviz`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 7)),
            runs: Family::default(),
            status_writes: Counter::default(),
            leading: Gauge::default(),
            database_ready: Gauge::default(),
            probe_seconds: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("volumeviz");
        registry.register("reconciles", "Passes over VolumeScans by outcome", metrics.reconciles.clone());
        registry.register("reconcile_duration_seconds", "Duration of a pass", metrics.reconcile_seconds.clone());
        registry.register("runs_ended", "Runs that ended, by result", metrics.runs.clone());
        registry.register("status_writes", "Writes of a VolumeScan's status", metrics.status_writes.clone());
        registry.register("leader", "1 while this replica leads", metrics.leading.clone());
        registry.register("database_ready", "1 while the database can be used", metrics.database_ready.clone());
        registry.register(
            "database_probe_seconds",
            "Duration of the last database probe",
            metrics.probe_seconds.clone(),
        );
        metrics
    }

    /// Counts a pass that began at `started`.
    pub fn reconciled(&self, started: Instant, outcome: &'static str) {
        self.reconciles.get_or_create(&Outcome { outcome }).inc();
        self.reconcile_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Counts an ended run.
    pub fn run_ended(&self, result: RunResult) {
        self.runs.get_or_create(&Ended { result: result.as_str() }).inc();
    }

    /// Counts a written status.
    pub fn status_written(&self) {
        self.status_writes.inc();
    }

    /// Says whether this replica leads.
    pub fn set_leading(&self, leading: bool) {
        self.leading.set(leading.into());
    }

    /// Says how the last probe of the database went.
    pub fn probed(&self, ready: bool, seconds: f64) {
        self.database_ready.set(ready.into());
        self.probe_seconds.set(seconds);
    }
}
