//! The agents' contract with the database: the JSON that goes into and comes out of the six functions of schema `agent_v1`,
//! each `(ticket uuid, body jsonb) returns jsonb`.
//!
//! Rules, for every function:
//! * It begins by locking the job row of its ticket. No such row: `fenced`, and nothing is written.
//! * Apart from `claim`, the job must be running under the caller's `instance`; else `fenced`.
//! * It renews the lease ([`LEASE_SECONDS`]); a call with the current ticket is accepted even past its lease.
//! * Repeating a call whose reply was lost gives the same answer and writes nothing twice; a repeated `fail` whose ticket was replaced by
//!   the first one is answered `fenced`, which is how an agent learns the same.
//! * Fields are only ever added; both sides ignore those they do not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{measurement::VolumeResult, selector::VolumeKind, work::WorkOrder};

/// How long a claim or any later call keeps the job from being given to another, in seconds of the database's clock.
pub const LEASE_SECONDS: i32 = 30;

/// The most rows an agent sends in one `inventory` or `report`.
pub const MAX_BATCH_ROWS: usize = 500;

/// Body of `claim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimBody {
    /// Random, new for every start of an agent process: the same instance may repeat a claim, another is fenced.
    pub instance: Uuid,
    /// Version of the agent's binary.
    pub agent_version: String,
    /// The agent's node; must be the job's.
    pub node_name: String,
    /// The uid from the offer; must be the job's.
    pub node_uid: String,
}

/// Reply of `claim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ClaimReply {
    /// The job is this instance's.
    Claimed(Box<Claim>),
    /// The ticket is unknown, replaced, finished, or held by another instance.
    Fenced,
}

/// What a claimed job is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// `scan_jobs.id`.
    pub job: i64,
    /// `scan_runs.id`.
    pub run: i64,
    /// 1 for the first attempt.
    pub attempt: i32,
    /// Milliseconds left until the node's deadline, by the database's clock: `nodeTimeoutSeconds` after the **first** claim of this
    /// attempt, and never past the run's own deadline.
    pub remaining_ms: i64,
    /// The work.
    pub work: WorkOrder,
    /// Names of volumes already final in this run: they are not measured again.
    pub final_volumes: Vec<String>,
}

/// Reply of every function but `claim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Reply {
    /// Done, or done before.
    Ok,
    /// `inventory` (final chunk) or `complete`: the database does not hold what the agent counted; nothing was finished.
    Incomplete {
        /// What disagrees, with both numbers.
        detail: String,
    },
    /// The ticket is no longer this instance's: stop at once.
    Fenced,
}

/// Reply of `inventory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryReply {
    /// As of every function.
    #[serde(flatten)]
    pub reply: Reply,
    /// With the last chunk: names of all volumes that need no measuring in this run: [`Claim::final_volumes`], and by `minIntervalSeconds`.
    #[serde(default)]
    pub final_volumes: Vec<String>,
}

/// Body of `heartbeat`, sent every 10 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatBody {
    /// As in [`ClaimBody`].
    pub instance: Uuid,
    /// How far the job is.
    pub progress: Progress,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Selected volumes of this node.
    pub volumes_total: i64,
    /// Selected volumes that are final.
    pub volumes_done: i64,
    /// Entries seen so far, over all volumes of this job.
    pub entries: i64,
    /// Bytes allocated to them.
    pub bytes: i64,
}

/// Body of `inventory`: one chunk of at most [`MAX_BATCH_ROWS`] rows in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryBody {
    /// As in [`ClaimBody`].
    pub instance: Uuid,
    /// The node's engine.
    pub engine: Engine,
    /// Volumes of this chunk.
    pub volumes: Vec<InventoryVolume>,
    /// Containers of this chunk; the volumes they mount must have come in this or an earlier chunk, else the mount is not recorded.
    pub containers: Vec<InventoryContainer>,
    /// Present in the last chunk only: how many there were over all chunks. When they agree, what was not listed is marked gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<InventoryTotals>,
}

/// The Docker Engine of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Docker's own id of the engine.
    pub id: String,
    /// Version, e.g. `28.2.2`.
    pub version: String,
    /// `DockerRootDir`.
    pub data_root: String,
}

/// How many volumes and containers an inventory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryTotals {
    /// Volumes, selected or not.
    pub volumes: i64,
    /// Containers, running or not.
    pub containers: i64,
}

/// One volume as Docker lists it. Text is already escaped so that PostgreSQL can store it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryVolume {
    /// Docker's name, unique on its node.
    pub name: String,
    /// Docker's driver.
    pub driver: String,
    /// Path on the node.
    pub mountpoint: String,
    /// `local` or `global`.
    pub scope: String,
    /// Docker labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Named or anonymous.
    pub kind: VolumeKind,
    /// Whether the scan selects it.
    pub selected: bool,
    /// Docker's `CreatedAt`, for display only: it is the directory's ctime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// Inode of the mountpoint, when it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<i64>,
    /// Birth time of the mountpoint in nanoseconds since 1970, when the file system records it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth_time_ns: Option<i64>,
}

/// One container as Docker lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryContainer {
    /// Docker's 64-digit id.
    pub container_id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Image reference as given at creation.
    pub image: String,
    /// Docker's state: `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: String,
    /// Docker labels.
    pub labels: BTreeMap<String, String>,
    /// Volumes it mounts.
    pub mounts: Vec<InventoryMount>,
}

impl InventoryContainer {
    /// Whether its processes exist, paused or between two starts as they may be: the volumes it mounts are in use.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }
}

/// One volume mounted by one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryMount {
    /// The volume's name.
    pub volume: String,
    /// Path inside the container.
    pub destination: String,
    /// Whether the container may write.
    pub read_write: bool,
}

/// Body of `report`: at most [`MAX_BATCH_ROWS`] results. A volume already final in the run is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportBody {
    /// As in [`ClaimBody`].
    pub instance: Uuid,
    /// The results.
    pub results: Vec<VolumeResult>,
    /// How far the job is.
    pub progress: Progress,
}

/// Body of `complete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteBody {
    /// As in [`ClaimBody`].
    pub instance: Uuid,
    /// The agent's own count of volumes final in this run.
    pub results: i64,
    /// How far the job came.
    pub progress: Progress,
}

/// Body of `fail`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailBody {
    /// As in [`ClaimBody`].
    pub instance: Uuid,
    /// What happens to the job.
    pub class: FailureClass,
    /// Name of a [`super::run::JobReason`].
    pub reason: String,
    /// One line for people.
    pub message: String,
}

/// What a failure means for the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureClass {
    /// Another attempt may succeed: new ticket, next attempt, or failed when there is none left.
    Retryable,
    /// No attempt will succeed: failed, or skipped when the reason is `NoDockerEngine`.
    Permanent,
    /// The agent is stopping: new ticket, same attempt.
    HandedBack,
}
