//! What an agent counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The agent's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    jobs: Family<Ended, Counter>,
    fenced: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

impl Metrics {
    /// Makes the metrics and registers them under the prefix `volumeviz_agent`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { jobs: Family::default(), fenced: Counter::default() };
        let registry = registry.sub_registry_with_prefix("volumeviz_agent");
        registry.register(
            "jobs",
            "Jobs that ended on this node, by outcome: Completed, HandedBack, Fenced, NodeTimeout, NoDockerEngine, \
             DockerUnreachable, DataRootMismatch or Failed",
            metrics.jobs.clone(),
        );
        registry.register(
            "fenced",
            "Calls that the database refused: the job was another's by then",
            metrics.fenced.clone(),
        );
        metrics
    }

    /// Counts a call that the database refused.
    pub fn fenced(&self) {
        self.fenced.inc();
    }

    /// Counts a job that ended so.
    pub fn job_ended(&self, outcome: &'static str) {
        self.jobs.get_or_create(&Ended { outcome }).inc();
    }
}
