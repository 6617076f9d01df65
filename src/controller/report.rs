//! The one place that turns what reconcilers did into logs, Events and metrics.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::Resource;
use kube::runtime::controller::{Action, Error as ControllerError};
use kube::runtime::events::{Event, EventType, Recorder, Reporter as KubeReporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

const EVENT_TIMEOUT: Duration = Duration::from_secs(3);
/// Events carry at most 1 KiB of text.
const MAX_NOTE_CHARS: usize = 512;
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// How one pass of a reconciler ended.
pub type Outcome<K, E> = Result<(ObjectRef<K>, Action), ControllerError<E, watcher::Error>>;

/// Something worth an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Normal or Warning.
    pub type_: EventType,
    /// CamelCase.
    pub reason: &'static str,
    /// For people.
    pub note: String,
}

/// Writes Events, and remembers how often each object failed in a row.
pub struct Reporter {
    client: Client,
    source: KubeReporter,
    failures: Mutex<HashMap<(&'static str, String), u32>>,
}

impl Reporter {
    /// Events are reported in the name of this pod.
    pub fn new(client: Client, pod_name: &str) -> Self {
        let source =
            KubeReporter { controller: "volumeviz.io/controller".to_owned(), instance: Some(pod_name.to_owned()) };
        Self { client, source, failures: Mutex::default() }
    }

    /// Writes an Event. One that cannot be written is logged: what it tells is in the status as well.
    pub async fn tell(&self, object: &ObjectReference, notice: Notice) {
        let Notice { type_, reason, note } = notice;
        let note = crate::crd::conditions::shorten(&note, MAX_NOTE_CHARS);
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // A recorder that remembers takes a later run's event for the earlier one's, and repeats what that said.
        let recorder = Recorder::new(self.client.clone(), self.source.clone());
        match tokio::time::timeout(EVENT_TIMEOUT, recorder.publish(&event, object)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(event.reason = reason, "unable to write an event: {error}"),
            Err(_) => tracing::warn!(event.reason = reason, "unable to write an event within {EVENT_TIMEOUT:?}"),
        }
    }

    /// When to try an object of this kind again whose pass just failed: 1 s, doubling to 15 s.
    pub fn failed(&self, kind: &'static str, object: &str) -> Action {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry((kind, object.to_owned())).or_default();
        let wait = FIRST_BACKOFF.saturating_mul(1 << (*count).min(4)).min(MAX_BACKOFF);
        *count = count.saturating_add(1);
        Action::requeue(wait)
    }

    /// Forgets the failures of an object that is well again.
    pub fn recovered(&self, kind: &'static str, object: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&(kind, object.to_owned()));
    }

    /// Logs one outcome of the stream of the reconciler of this kind.
    pub fn outcome<K, E>(&self, kind: &'static str, outcome: Outcome<K, E>)
    where
        K: Resource,
        E: std::error::Error,
    {
        match outcome {
            Ok((object, _)) => self.recovered(kind, &object.name),
            // The object was deleted while it was queued.
            Err(ControllerError::ObjectNotFound(_)) => {}
            Err(ControllerError::ReconcilerFailed(error, object)) => {
                tracing::warn!(object.kind = kind, object.name = object.name, "{error}");
            }
            Err(error) => tracing::warn!("unable to watch {kind}, trying again: {error}"),
        }
    }
}
