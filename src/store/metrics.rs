//! The pool's figures.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sqlx::PgPool;

/// Connections of a pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolFigures {
    /// All of them.
    pub open: u32,
    /// Those that something uses.
    pub in_use: u32,
    /// Those that nothing uses.
    pub idle: u32,
}

impl PoolFigures {
    pub(super) fn of(pool: &PgPool) -> Self {
        let open = pool.size();
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX).min(open);
        Self { open, in_use: open - idle, idle }
    }
}

/// How long operations wait for a connection.
#[derive(Debug, Clone)]
pub(super) struct PoolMetrics {
    wait: Histogram,
    timeouts: Counter,
}

impl Default for PoolMetrics {
    fn default() -> Self {
        Self { wait: Histogram::new(exponential_buckets(0.000_1, 4.0, 9)), timeouts: Counter::default() }
    }
}

impl PoolMetrics {
    pub(super) fn waited(&self, time: Duration, acquired: bool) {
        self.wait.observe(time.as_secs_f64());
        if !acquired {
            self.timeouts.inc();
        }
    }

    pub(super) fn register(&self, registry: &mut Registry, pool: Arc<PgPool>) {
        registry.register_with_unit(
            "volumeviz_database_connection_wait",
            "How long operations waited for a connection of the pool",
            Unit::Seconds,
            self.wait.clone(),
        );
        registry.register(
            "volumeviz_database_connection_timeouts",
            "Operations that got no connection in time",
            self.timeouts.clone(),
        );
        registry.register_collector(Box::new(PoolCollector { pool }));
    }
}

#[derive(Debug)]
struct PoolCollector {
    pool: Arc<PgPool>,
}

impl Collector for PoolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let PoolFigures { open, in_use, idle } = PoolFigures::of(&self.pool);
        let figures = [
            ("volumeviz_database_connections_open", "Connections of the pool.", open),
            ("volumeviz_database_connections_idle", "Connections of the pool that nothing uses.", idle),
            ("volumeviz_database_connections_in_use", "Connections of the pool in use.", in_use),
        ];
        for (name, help, value) in figures {
            let gauge = ConstGauge::new(i64::from(value));
            let metric = encoder.encode_descriptor(name, help, None::<&Unit>, EncodeMetric::metric_type(&gauge))?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
