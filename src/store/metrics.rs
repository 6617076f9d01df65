//! The pool's figures.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use sqlx::PgPool;

#[derive(Debug)]
struct PoolCollector {
    pool: PgPool,
}

pub(super) fn register(registry: &mut Registry, pool: PgPool) {
    registry.register_collector(Box::new(PoolCollector { pool }));
}

impl Collector for PoolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let open = i64::from(self.pool.size());
        let idle = i64::try_from(self.pool.num_idle()).unwrap_or(i64::MAX);
        let figures = [
            ("volumeviz_database_connections_open", "Connections of the pool", open),
            ("volumeviz_database_connections_idle", "Connections of the pool that nothing uses", idle),
            ("volumeviz_database_connections_in_use", "Connections of the pool in use", open.saturating_sub(idle)),
        ];
        for (name, help, value) in figures {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None::<&Unit>, EncodeMetric::metric_type(&gauge))?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
