//! One job's conversation with the database, under one ticket.
//!
//! While the database is away every call but the heartbeat waits and tries again, until the job's deadline or its end: an outage costs no
//! attempt. `Fenced` is final: somebody else has the job, or nobody wants it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::refused;
use crate::domain::contract::{
    Claim, CompleteBody, FailBody, FailureClass, HeartbeatBody, InventoryBody, InventoryReply, MAX_BATCH_ROWS,
    Progress, Reply, ReportBody,
};
use crate::domain::measurement::{VolumeReason, VolumeResult};
use crate::domain::run::JobReason;
use crate::store::{self, Store};

const CALL_DEADLINE: Duration = Duration::from_secs(10);
const BEAT_EVERY: Duration = Duration::from_secs(10);
/// A beat must be over before the next one is due.
const BEAT_DEADLINE: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(10);
/// How long a job that ends tries to say so: past this its lease has expired and the controller knows without.
const FAREWELL: Duration = Duration::from_secs(20);

/// The conversation.
#[derive(Clone)]
pub struct Session {
    store: Store,
    ticket: Uuid,
    instance: Uuid,
    deadline: Instant,
    /// Cancelled when the job must end at once, for whatever reason.
    over: CancellationToken,
    fenced: Arc<AtomicBool>,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ticket was replaced.
    #[error("the job was given to another, or is wanted no more")]
    Fenced,
    /// The node's deadline passed first.
    #[error("the node's deadline passed")]
    Deadline,
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopped,
    /// The database refuses the call itself; no later try can succeed.
    #[error(transparent)]
    Refused(store::Error),
    /// The database counts otherwise.
    #[error("{0}")]
    Incomplete(String),
}

impl Session {
    /// A session for a job just claimed. `over` ends every wait in it.
    pub fn new(store: Store, ticket: Uuid, instance: Uuid, claim: &Claim, over: CancellationToken) -> Self {
        let left = Duration::from_millis(u64::try_from(claim.remaining_ms).unwrap_or(0));
        Self { store, ticket, instance, deadline: Instant::now() + left, over, fenced: Arc::default() }
    }

    /// When the node must be done, by this machine's monotonic clock.
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What this process claims under.
    pub const fn instance(&self) -> Uuid {
        self.instance
    }

    /// Waits until the job must end at once, and says why.
    pub async fn over(&self) -> Error {
        self.over.cancelled().await;
        if self.fenced.load(Ordering::Relaxed) { Error::Fenced } else { Error::Stopped }
    }

    /// Renews the lease until dropped; ends the job when the ticket was replaced. The database being away ends nothing: only a new ticket
    /// takes the job from us.
    pub async fn beat(&self, progress: impl Fn() -> Progress) -> std::convert::Infallible {
        let mut away = false;
        loop {
            sleep(BEAT_EVERY).await;
            let body = HeartbeatBody { instance: self.instance, progress: progress() };
            let beaten = self
                .store
                .run("renew the lease", BEAT_DEADLINE, async |conn| {
                    store::agent::heartbeat(conn, self.ticket, &body).await
                })
                .await;
            match beaten {
                Ok(Reply::Fenced) => self.fence(),
                Ok(_) => away = false,
                Err(error) if !away => {
                    tracing::warn!("unable to renew the lease, going on: {error}");
                    away = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Sends one chunk of the inventory; a row that PostgreSQL refuses is replaced by one without what may be at fault, and spoils no other.
    /// The last chunk is answered with the names of volumes that need no measuring.
    pub async fn inventory(&self, chunk: InventoryBody) -> Result<Vec<String>, Error> {
        let mut chunks = vec![chunk];
        let mut final_volumes = Vec::new();
        while let Some(chunk) = chunks.pop() {
            match self.list(&chunk).await {
                Err(Error::Refused(error)) if error.is_invalid_data() => {
                    let Some(smaller) = refused::smaller(chunk, &error) else { return Err(Error::Refused(error)) };
                    chunks.extend(smaller.into_iter().rev());
                }
                sent => final_volumes = sent?,
            }
        }
        Ok(final_volumes)
    }

    async fn list(&self, chunk: &InventoryBody) -> Result<Vec<String>, Error> {
        let InventoryReply { reply, final_volumes } = self
            .insist("store the inventory", async |conn| store::agent::inventory(conn, self.ticket, chunk).await)
            .await?;
        self.settle(reply).map(|()| final_volumes)
    }

    /// Sends results; a row that PostgreSQL refuses is replaced by one that says so, and spoils no other.
    pub async fn report(&self, results: Vec<VolumeResult>, progress: Progress) -> Result<(), Error> {
        let mut batches = vec![results];
        while let Some(mut batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            if batch.len() > MAX_BATCH_ROWS {
                batches.push(batch.split_off(MAX_BATCH_ROWS));
            }
            match self.send(&batch, progress).await {
                Err(Error::Refused(error)) if error.is_invalid_data() => match batch.as_mut_slice() {
                    [single] if single.reason == Some(VolumeReason::Unstorable) => return Err(Error::Refused(error)),
                    [single] => {
                        tracing::warn!(volume.name = single.volume, "PostgreSQL refuses the result: {error}");
                        *single = VolumeResult::unknown(std::mem::take(&mut single.volume), VolumeReason::Unstorable);
                        batches.push(batch);
                    }
                    _ => {
                        let half = batch.split_off(batch.len() / 2);
                        batches.extend([half, batch]);
                    }
                },
                sent => sent?,
            }
        }
        Ok(())
    }

    async fn send(&self, results: &[VolumeResult], progress: Progress) -> Result<(), Error> {
        let body = ReportBody { instance: self.instance, results: results.to_vec(), progress };
        let reply =
            self.insist("store results", async |conn| store::agent::report(conn, self.ticket, &body).await).await?;
        self.settle(reply)
    }

    /// Ends the job as done.
    pub async fn complete(&self, results: i64, progress: Progress) -> Result<(), Error> {
        let body = CompleteBody { instance: self.instance, results, progress };
        let reply = self
            .insist("complete the job", async |conn| store::agent::complete(conn, self.ticket, &body).await)
            .await?;
        self.settle(reply)
    }

    /// Ends the job without a result, or hands it back. Tried for [`FAREWELL`]; then the lease's expiry tells the controller the same.
    pub async fn fail(&self, class: FailureClass, reason: JobReason, message: String) {
        let body = FailBody { instance: self.instance, class, reason: reason.as_str().to_owned(), message };
        let until = Instant::now() + FAREWELL;
        let mut wait = FIRST_RETRY;
        loop {
            let failed = self
                .store
                .run("end the job", CALL_DEADLINE.min(FAREWELL), async |conn| {
                    store::agent::fail(conn, self.ticket, &body).await
                })
                .await;
            match failed {
                Ok(_) => return,
                Err(error) if error.is_transient() && Instant::now() + wait < until => sleep(wait).await,
                Err(error) => {
                    tracing::warn!("unable to tell the database that the job ended: {error}");
                    return;
                }
            }
            wait = (wait * 2).min(MAX_RETRY);
        }
    }

    fn settle(&self, reply: Reply) -> Result<(), Error> {
        match reply {
            Reply::Ok => Ok(()),
            Reply::Incomplete { detail } => Err(Error::Incomplete(detail)),
            Reply::Fenced => {
                self.fence();
                Err(Error::Fenced)
            }
        }
    }

    fn fence(&self) {
        self.fenced.store(true, Ordering::Relaxed);
        self.over.cancel();
    }

    /// Calls until there is an answer, the deadline has passed, or the job is over.
    async fn insist<R>(
        &self,
        operation: &'static str,
        call: impl AsyncFn(&mut sqlx::PgConnection) -> sqlx::Result<R>,
    ) -> Result<R, Error> {
        let mut wait = FIRST_RETRY;
        loop {
            let error = match self.store.run(operation, CALL_DEADLINE, async |conn| call(conn).await).await {
                Ok(reply) => return Ok(reply),
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(Error::Refused(error)),
            };
            if wait == FIRST_RETRY {
                tracing::warn!("trying again until the node's deadline: {error}");
            }
            tokio::select! {
                waited = timeout_at(self.deadline, sleep(wait.mul_f64(rand::random_range(0.5..=1.0)))) => {
                    waited.map_err(|_| Error::Deadline)?;
                }
                error = self.over() => return Err(error),
            }
            wait = (wait * 2).min(MAX_RETRY);
        }
    }
}
