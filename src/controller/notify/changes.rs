//! Names of VolumeAlerts whose delivery stands differently now: each is kept, once, until somebody takes it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use tokio::sync::Notify;

/// The names that nobody has taken yet.
#[derive(Clone, Default)]
pub(super) struct Changes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    names: Mutex<BTreeSet<String>>,
    changed: Notify,
}

impl Changes {
    /// Adds one.
    pub(super) fn note(&self, alert_name: &str) {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner).insert(alert_name.to_owned());
        self.0.changed.notify_one();
    }

    /// Takes them as they come. What one stream took, another does not see.
    pub(super) fn stream(&self) -> impl Stream<Item = String> + Send + use<> {
        futures::stream::unfold(self.clone(), async |changes| {
            loop {
                let next = changes.0.names.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
                if let Some(name) = next {
                    return Some((name, changes));
                }
                changes.0.changed.notified().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[tokio::test]
    async fn every_name_comes_once_also_what_changed_before_anybody_looked() {
        let changes = Changes::default();
        for name in ["b", "a", "b"] {
            changes.note(name);
        }
        let mut stream = std::pin::pin!(changes.stream());
        assert_eq!(stream.next().await.as_deref(), Some("a"));
        assert_eq!(stream.next().await.as_deref(), Some("b"));
        assert!(stream.next().now_or_never().is_none());
        changes.note("a");
        assert_eq!(stream.next().await.as_deref(), Some("a"));
    }
}
