//! Leader election over a `Lease`, by client-go's algorithm.
//!
//! Every write is a replace with the `resourceVersion` just read, so two candidates cannot both win. No clock of another machine is
//! trusted: a foreign lease has expired when its record did not change for [`LEASE`] of **our** monotonic clock. A leader that could not
//! renew for [`RENEW_DEADLINE`] must exit the process: that is before any other candidate may take over.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long a foreign record must stand still before it counts as abandoned (client-go's default).
const LEASE: Duration = Duration::from_secs(15);
/// How long a leader may fail to renew; below [`LEASE`] by more than one period and one timeout.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two tries, and the bound on one.
const PERIOD: Duration = Duration::from_secs(2);

/// One candidate.
pub struct Elector {
    leases: Api<Lease>,
    name: String,
    identity: String,
    observed: Option<Observed>,
}

/// The last record seen, and since when it has stood still.
struct Observed {
    spec: Option<LeaseSpec>,
    at: Instant,
}

/// What one try found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// The lease is ours, and renewed.
    Leading,
    /// Another candidate holds it.
    HeldByOther,
    /// Somebody wrote the lease between our read and our write.
    Overtaken,
}

/// A try that ended without an answer, or with a refusal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or failed.
    #[error("unable to {operation} lease {name}: {source}")]
    Api {
        /// `read`, `create` or `replace`.
        operation: &'static str,
        /// The lease.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("unable to update lease {name} within {PERIOD:?}")]
    Timeout {
        /// The lease.
        name: String,
    },
}

/// Leadership is lost: another process may lead by now, so this one must end.
#[derive(Debug, thiserror::Error)]
#[error("lost leadership: lease {name} was not renewed for {RENEW_DEADLINE:?}: {reason}")]
pub struct Lost {
    name: String,
    reason: String,
}

impl Elector {
    /// A candidate for the lease `name`; `identity` must differ between processes, also between restarts of one pod.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { leases: Api::namespaced(client, namespace), name: name.to_owned(), identity, observed: None }
    }

    /// Waits until this candidate leads; `false` when stopped before.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        let mut last_problem = String::new();
        loop {
            match self.try_once().await {
                Ok(Attempt::Leading) => return true,
                Ok(Attempt::HeldByOther | Attempt::Overtaken) => last_problem.clear(),
                Err(error) => {
                    let problem = error.to_string();
                    if problem != last_problem {
                        tracing::warn!("{problem}");
                        last_problem = problem;
                    }
                }
            }
            tokio::select! {
                () = sleep(PERIOD) => {}
                () = stop.cancelled() => return false,
            }
        }
    }

    /// Keeps the lease until `stop`, then gives it up so that the next leader need not wait.
    pub async fn keep(&mut self, stop: &CancellationToken) -> Result<(), Lost> {
        let mut renewed = Instant::now();
        let mut reason = String::new();
        loop {
            tokio::select! {
                () = sleep(PERIOD) => {}
                () = stop.cancelled() => {
                    self.release().await;
                    return Ok(());
                }
            }
            let started = Instant::now();
            match self.try_once().await {
                Ok(Attempt::Leading) => renewed = started,
                Ok(Attempt::HeldByOther) => return Err(self.lost("another process holds it".to_owned())),
                Ok(Attempt::Overtaken) => "it was changed by another writer".clone_into(&mut reason),
                Err(error) => reason = error.to_string(),
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                return Err(self.lost(reason));
            }
        }
    }

    fn lost(&self, reason: String) -> Lost {
        Lost { name: self.name.clone(), reason }
    }

    async fn try_once(&mut self) -> Result<Attempt, Error> {
        let name = self.name.clone();
        timeout(PERIOD, self.acquire_or_renew()).await.unwrap_or(Err(Error::Timeout { name }))
    }

    async fn acquire_or_renew(&mut self) -> Result<Attempt, Error> {
        let current = self.leases.get_opt(&self.name).await.map_err(|source| self.failed("read", source))?;
        let Some(current) = current else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.record(None)),
            };
            let created = self.leases.create(&PostParams::default(), &lease).await;
            return self.written("create", created);
        };
        if !self.may_take(current.spec.as_ref()) {
            return Ok(Attempt::HeldByOther);
        }
        let lease = Lease { metadata: current.metadata, spec: Some(self.record(current.spec.as_ref())) };
        let replaced = self.leases.replace(&self.name, &PostParams::default(), &lease).await;
        self.written("replace", replaced)
    }

    /// Whether the lease is ours, free, or has stood still for long enough.
    fn may_take(&mut self, spec: Option<&LeaseSpec>) -> bool {
        if self.observed.as_ref().is_none_or(|observed| observed.spec.as_ref() != spec) {
            self.observed = Some(Observed { spec: spec.cloned(), at: Instant::now() });
        }
        match holder(spec) {
            None => true,
            Some(holder) if *holder == self.identity => true,
            Some(_) => self.observed.as_ref().is_some_and(|observed| observed.at.elapsed() >= LEASE),
        }
    }

    fn record(&self, previous: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = holder(previous) == Some(&self.identity);
        let transitions = previous.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: previous.filter(|_| ours).map_or_else(|| Some(now.clone()), |spec| spec.acquire_time.clone()),
            renew_time: Some(now),
            lease_transitions: Some(if ours || previous.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    fn written(&self, operation: &'static str, result: kube::Result<Lease>) -> Result<Attempt, Error> {
        match result {
            Ok(_) => Ok(Attempt::Leading),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(Attempt::Overtaken)
            }
            Err(source) => Err(self.failed(operation, source)),
        }
    }

    fn failed(&self, operation: &'static str, source: kube::Error) -> Error {
        Error::Api { operation, name: self.name.clone(), source: Box::new(source) }
    }

    /// Best effort: when it fails, the next leader waits for [`LEASE`].
    async fn release(&self) {
        let give_up = async {
            let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
            if holder(lease.spec.as_ref()) == Some(&self.identity) {
                if let Some(spec) = lease.spec.as_mut() {
                    spec.holder_identity = None;
                    spec.lease_duration_seconds = Some(1);
                }
                self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match timeout(PERIOD, give_up).await {
            Ok(Ok(())) => tracing::info!(lease.name = self.name, "gave up the lease"),
            Ok(Err(error)) => tracing::warn!(lease.name = self.name, "unable to give up the lease: {error}"),
            Err(_) => tracing::warn!(lease.name = self.name, "unable to give up the lease within {PERIOD:?}"),
        }
    }
}

fn holder(spec: Option<&LeaseSpec>) -> Option<&String> {
    spec.and_then(|spec| spec.holder_identity.as_ref()).filter(|holder| !holder.is_empty())
}
