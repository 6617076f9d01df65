//! What is counted of notifications.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::domain::alert::notification::Channel;
use crate::store::notifications::Pending;

/// The metrics of notifications.
#[derive(Debug, Clone)]
pub struct Metrics {
    told: Family<Told, Counter>,
    given_up: Family<By, Counter>,
    pending: Gauge,
    oldest_pending_seconds: Gauge<f64, AtomicU64>,
    seconds: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    channel: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    channel: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            told: Family::default(),
            given_up: Family::default(),
            pending: Gauge::default(),
            oldest_pending_seconds: Gauge::default(),
            seconds: Histogram::new(exponential_buckets(0.01, 4.0, 6)),
        }
    }
}

impl Metrics {
    /// Adds them to `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        // There from the beginning: a counter that appears with its first event is not seen to grow.
        for channel in [Channel::Event, Channel::Webhook, Channel::Alertmanager] {
            drop(self.given_up.get_or_create(&By { channel: channel.as_str() }));
        }
        let text = "Tries to tell a receiver, by channel (Event, Webhook, Alertmanager) and outcome (delivered, failed); \
                    Alertmanager is told again each minute";
        registry.register("notifications", text, self.told.clone());
        registry.register(
            "notifications_given_up",
            "Notifications that nobody will be told, by channel; Unknown: one that cannot be read",
            self.given_up.clone(),
        );
        registry.register("notifications_pending", "Notifications in the outbox", self.pending.clone());
        registry.register(
            "notifications_oldest_pending_seconds",
            "How long the oldest notification in the outbox has waited",
            self.oldest_pending_seconds.clone(),
        );
        registry.register("notification_duration_seconds", "Time to tell a receiver, or to fail", self.seconds.clone());
    }

    /// Counts a try that took so long.
    pub fn tried(&self, channel: Channel, delivered: bool, took: Duration) {
        let outcome = if delivered { "delivered" } else { "failed" };
        self.told.get_or_create(&Told { channel: channel.as_str(), outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts a notification that nobody will be told; without a channel: it cannot be read.
    pub fn gave_up(&self, channel: Option<Channel>) {
        self.given_up.get_or_create(&By { channel: channel.map_or("Unknown", Channel::as_str) }).inc();
    }

    /// Tells what is in the outbox.
    pub fn pending(&self, Pending { open, oldest_seconds }: Pending) {
        self.pending.set(open);
        self.oldest_pending_seconds.set(oldest_seconds);
    }
}
