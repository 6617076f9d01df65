//! What the controller counts. Labels come from closed sets; no object's name is one, but in [`Contents`].

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::certificates::plan::Expiry;
use super::contents::Contents;
use super::notify;
use crate::domain::run::{NodeCounts, RunKey, RunResult};
use crate::store::runs::Queue;

/// The controller's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    errors: Family<Reason, Counter>,
    runs_started: Family<Kind, Counter>,
    runs: Family<Ended, Counter>,
    runs_skipped: Counter,
    jobs: Family<Status, Gauge>,
    oldest_pending_seconds: Gauge<f64, AtomicU64>,
    dispatch_seconds: Histogram,
    leases_expired: Counter,
    status_writes: Counter,
    leading: Gauge,
    database_ready: Gauge,
    probe_seconds: Gauge<f64, AtomicU64>,
    certificates_expire: Family<Certificate, Gauge>,
    contents: Contents,
    /// Of notifications.
    pub notifications: notify::Metrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Certificate {
    certificate: &'static str,
}

impl Metrics {
    /// Makes the metrics and registers them under the prefix `volumeviz`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 7)),
            errors: Family::default(),
            runs_started: Family::default(),
            runs: Family::default(),
            runs_skipped: Counter::default(),
            jobs: Family::default(),
            oldest_pending_seconds: Gauge::default(),
            dispatch_seconds: Histogram::new(exponential_buckets(0.01, 4.0, 8)),
            leases_expired: Counter::default(),
            status_writes: Counter::default(),
            leading: Gauge::default(),
            database_ready: Gauge::default(),
            probe_seconds: Gauge::default(),
            certificates_expire: Family::default(),
            contents: Contents::default(),
            notifications: notify::Metrics::default(),
        };
        let registry = registry.sub_registry_with_prefix("volumeviz");
        metrics.register_replica(registry);
        metrics.register_passes(registry);
        metrics.register_runs(registry);
        metrics.notifications.register(registry);
        registry.register_collector(Box::new(metrics.contents.clone()));
        metrics.begin();
        metrics
    }

    fn register_replica(&self, registry: &mut Registry) {
        registry.register("leader", "1 while this replica leads, else 0", self.leading.clone());
        registry.register(
            "database_ready",
            "1 while this replica can use the database, else 0",
            self.database_ready.clone(),
        );
        registry.register("database_probe_seconds", "Duration of the last database probe", self.probe_seconds.clone());
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When a certificate by which controller and agents know each other runs out (leader): authority, agent or controller",
            self.certificates_expire.clone(),
        );
    }

    fn register_passes(&self, registry: &mut Registry) {
        registry.register(
            "reconciles",
            "Passes over volumescans and volumealerts, by outcome: Ok, or the step that failed (Apply, Publish, Timeout)",
            self.reconciles.clone(),
        );
        registry.register("reconcile_duration_seconds", "Duration of a pass", self.reconcile_seconds.clone());
        registry.register(
            "errors",
            "Passes that failed, by reason: KubernetesAPI, Timeout, or one of the condition DatabaseReady",
            self.errors.clone(),
        );
        registry.register("status_writes", "Writes of a custom resource's status", self.status_writes.clone());
    }

    fn register_runs(&self, registry: &mut Registry) {
        registry.register(
            "runs_started",
            "Runs that started, by what asked for them: once, trigger or schedule",
            self.runs_started.clone(),
        );
        registry.register(
            "runs_ended",
            "Runs that ended, by result: Succeeded, Partial, Failed or Cancelled",
            self.runs.clone(),
        );
        registry.register("runs_skipped", "Scheduled runs that did not start", self.runs_skipped.clone());
        registry.register(
            "jobs",
            "Jobs (nodes) of the runs under way, by status: pending, running, succeeded, failed or skipped",
            self.jobs.clone(),
        );
        registry.register(
            "oldest_pending_job_seconds",
            "How long the oldest job that nobody has claimed has waited",
            self.oldest_pending_seconds.clone(),
        );
        registry.register(
            "dispatch_duration_seconds",
            "Time from a job's first offer to its claim",
            self.dispatch_seconds.clone(),
        );
        registry.register(
            "leases_expired",
            "Jobs taken from an agent that stopped renewing its lease",
            self.leases_expired.clone(),
        );
    }

    /// A series that begins with its first event hides it from `increase`.
    fn begin(&self) {
        for result in [RunResult::Succeeded, RunResult::Partial, RunResult::Failed, RunResult::Cancelled] {
            drop(self.runs.get_or_create(&Ended { result: result.as_str() }));
        }
    }

    /// Counts a pass over an object of this kind that began at `started`.
    pub fn reconciled(&self, kind: &'static str, started: Instant, outcome: &'static str) {
        self.reconciles.get_or_create(&Outcome { kind, outcome }).inc();
        self.reconcile_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Counts a pass that failed.
    pub fn failed(&self, reason: &'static str) {
        self.errors.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a started run.
    pub fn run_started(&self, key: &RunKey) {
        let kind = match key {
            RunKey::Once => "once",
            RunKey::Trigger(_) => "trigger",
            RunKey::Scheduled(_) => "schedule",
        };
        self.runs_started.get_or_create(&Kind { kind }).inc();
    }

    /// Counts scheduled runs that did not start.
    pub fn runs_skipped(&self, count: i64) {
        self.runs_skipped.inc_by(u64::try_from(count).unwrap_or(0));
    }

    /// Tells the jobs of all runs under way.
    pub fn queued(&self, queue: &Queue) {
        let Queue { nodes, oldest_pending_seconds } = queue;
        let NodeCounts { total: _, pending, running, succeeded, failed, skipped } = *nodes;
        for (status, count) in [
            ("pending", pending),
            ("running", running),
            ("succeeded", succeeded),
            ("failed", failed),
            ("skipped", skipped),
        ] {
            self.jobs.get_or_create(&Status { status }).set(count.into());
        }
        self.oldest_pending_seconds.set(*oldest_pending_seconds);
    }

    /// Counts a job that was claimed so long after its first offer.
    pub fn dispatched(&self, after: Duration) {
        self.dispatch_seconds.observe(after.as_secs_f64());
    }

    /// Counts a job that was taken from its agent.
    pub fn lease_expired(&self) {
        self.leases_expired.inc();
    }

    /// Counts an ended run.
    pub fn run_ended(&self, result: RunResult) {
        self.runs.get_or_create(&Ended { result: result.as_str() }).inc();
    }

    /// Counts a written status.
    pub fn status_written(&self) {
        self.status_writes.inc();
    }

    /// Says when certificates run out.
    pub fn certificates_expire(&self, expiry: &Expiry) {
        let Expiry { authority, agent, controller } = expiry;
        for (certificate, date) in [("authority", authority), ("agent", agent), ("controller", controller)] {
            self.certificates_expire.get_or_create(&Certificate { certificate }).set(date.timestamp());
        }
    }

    /// What is in the volumes.
    pub const fn contents(&self) -> &Contents {
        &self.contents
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
