//! The agent: takes a ticket, lists this node's volumes and their users, measures them, writes what it finds to the database.
//!
//! It holds no Kubernetes credential, and its database role can execute six functions and read no table. It works on one job at a time.

pub mod docker;
pub mod endpoint;
pub mod job;
pub mod measure;
pub mod metrics;
mod refused;
pub mod session;
pub mod tickets;
pub mod walk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::docker::Docker;
use self::metrics::Metrics;
use self::session::Session;
use self::walk::{Threads, Walker};
use crate::config::database::{DatabaseArgs, Role};
use crate::domain::contract::{ClaimBody, ClaimReply};
use crate::domain::dispatch::{Offer, Refusal};
use crate::http::{self, Check};
use crate::store::{self, Store};

/// Threads of one walk, when they pay: a cold disk answers many requests at a time as fast as one.
const WALK_THREADS: Threads = Threads::UpTo(8);
/// Well within the 5 s that the controller waits for an answer.
const CLAIM_DEADLINE: Duration = Duration::from_secs(3);

/// How an agent runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "VOLUMEVIZ_LISTEN", default_value = "[::]:8081", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Address of /v1/jobs, over TLS for the controller alone.
    #[arg(long, env = "VOLUMEVIZ_TICKETS_LISTEN", default_value = "[::]:8443", value_name = "ADDRESS")]
    pub tickets_listen: SocketAddr,
    /// Directory with tls.crt, tls.key and ca.crt: this agent's certificate, and the authority of the controller's.
    #[arg(
        long,
        env = "VOLUMEVIZ_TICKETS_TLS_DIRECTORY",
        default_value = "/etc/volumeviz/tickets",
        value_name = "DIRECTORY"
    )]
    pub tickets_tls_directory: PathBuf,
    /// Name of this node.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,
    /// Uid of this pod: an offer for another pod that had the same address is refused.
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pub pod_uid: String,
    /// The socket of docker-proxy. Its directory must be shared, not the file: the proxy makes a new one when it starts.
    #[arg(long, env = "VOLUMEVIZ_DOCKER_SOCKET", default_value = docker::PROXY_SOCKET, value_name = "PATH")]
    pub docker_socket: PathBuf,
    /// Docker's data root, mounted at the same path as on the node.
    #[arg(long, env = "VOLUMEVIZ_DATA_ROOT", default_value = docker::DEFAULT_DATA_ROOT, value_name = "PATH")]
    pub data_root: PathBuf,
    /// The database, in the name of the agents' role.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// The agent ended for a reason of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database's settings cannot be used.
    #[error(transparent)]
    Database(#[from] store::Error),
    /// The endpoints could not be served.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// Tickets are not served.
    #[error(transparent)]
    Tickets(#[from] tickets::Error),
}

/// One agent process.
pub struct Agent {
    node_name: String,
    pod_uid: String,
    /// New for every start of the process: what a claim is held under.
    instance: Uuid,
    store: Store,
    docker: Docker,
    walker: Walker,
    metrics: Metrics,
    problems: Problems,
    /// The ticket being claimed or worked on.
    current: Mutex<Option<Uuid>>,
    stop: CancellationToken,
    jobs: TaskTracker,
}

/// What became of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The job is this agent's, and under way.
    Claimed,
    /// The database refused the ticket.
    Fenced,
    /// The offer is for another pod or node.
    WrongPod {
        /// Which one.
        message: String,
    },
    /// Another job is under way.
    Busy,
    /// The ticket could not be claimed now.
    Refused {
        /// Why.
        refusal: Refusal,
        /// For people.
        message: String,
    },
}

/// Runs until `stop`, then hands the job under way back.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let Args { listen, tickets_listen, tickets_tls_directory, node_name, pod_uid, docker_socket, data_root, database } =
        args;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let store = Store::connect_lazy(&database, Role::Agent)?;
    store.register_metrics(&mut registry);
    let agent = Arc::new(Agent {
        node_name,
        pod_uid,
        instance: Uuid::new_v4(),
        store,
        docker: Docker::behind_proxy(docker_socket, data_root),
        walker: walker(),
        metrics,
        problems: Problems::default(),
        current: Mutex::default(),
        stop: stop.clone(),
        jobs: TaskTracker::new(),
    });
    let listener = http::listen(listen).await?;
    let router = http::router(checks(Arc::clone(&agent)), Arc::new(registry));
    let tickets_listener = http::listen(tickets_listen).await?;
    let taking = tickets::serve(tickets_listener, &tickets_tls_directory, endpoint::router(Arc::clone(&agent)));
    tracing::info!(node.name = agent.node_name, agent.instance = %agent.instance, "waiting for jobs");
    tokio::select! {
        served = http::serve(listener, router) => served.map_err(Error::from),
        served = taking => served.map_err(Error::from),
        () = agent.stopped() => Ok(()),
    }
}

fn walker() -> Walker {
    let walker = Walker::new(WALK_THREADS).kind();
    if !walker.has_brake() {
        tracing::info!("the kernel tells nothing in /proc/pressure: walks go on as fast when workloads have to wait");
    }
    walker
}

impl Agent {
    /// Claims the ticket and starts the job; safe to repeat while it runs.
    async fn take(self: Arc<Self>, offer: Offer) -> Claimed {
        if offer.pod_uid != self.pod_uid || offer.node_name != self.node_name {
            let message = format!("this is pod {} on node {}", self.pod_uid, self.node_name);
            return Claimed::WrongPod { message };
        }
        if self.stop.is_cancelled() {
            return Claimed::Refused { refusal: Refusal::Stopping, message: "the agent is stopping".to_owned() };
        }
        match self.reserve(offer.ticket) {
            Reserved::Ours => {}
            Reserved::SameTicket => return Claimed::Claimed,
            Reserved::Busy => return Claimed::Busy,
        }
        let slot = Slot { agent: Arc::clone(&self) };
        let claimed = self.claim(&offer).await;
        self.problems.database.set(claimed.as_ref().err());
        match claimed {
            Ok(ClaimReply::Claimed(claim)) => {
                tracing::info!(run.id = claim.run, job.id = claim.job, job.attempt = claim.attempt, "claimed a job");
                let session =
                    Session::new(self.store.clone(), offer.ticket, self.instance, &claim, self.stop.child_token());
                let (agent, runtime) = (Arc::clone(&self), tokio::runtime::Handle::current());
                // A thread of its own: calls lend their connection to async closures, which makes the job's future not Send.
                self.jobs.spawn_blocking(move || runtime.block_on(job::work(agent, session, *claim, slot)));
                Claimed::Claimed
            }
            Ok(ClaimReply::Fenced) => {
                self.metrics.fenced();
                Claimed::Fenced
            }
            Err(error) => {
                tracing::warn!(job.id = offer.job, "unable to claim a job: {error}");
                let refusal =
                    if error.is_schema_mismatch() { Refusal::SchemaMismatch } else { Refusal::DatabaseUnreachable };
                Claimed::Refused { refusal, message: error.to_string() }
            }
        }
    }

    async fn claim(&self, offer: &Offer) -> Result<ClaimReply, store::Error> {
        let body = ClaimBody {
            instance: self.instance,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            node_name: self.node_name.clone(),
            node_uid: offer.node_uid.clone(),
        };
        self.store
            .run("claim a job", CLAIM_DEADLINE, async |conn| store::agent::claim(conn, offer.ticket, &body).await)
            .await
    }

    fn reserve(&self, ticket: Uuid) -> Reserved {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match *current {
            None => {
                *current = Some(ticket);
                Reserved::Ours
            }
            Some(held) if held == ticket => Reserved::SameTicket,
            Some(_) => Reserved::Busy,
        }
    }

    /// Ends once `stop` was asked for and the job under way was handed back.
    async fn stopped(&self) {
        self.stop.cancelled().await;
        tracing::info!("stopping");
        self.jobs.close();
        self.jobs.wait().await;
    }
}

/// What was missing when it was needed last; nothing is tried only to know.
#[derive(Debug, Default)]
struct Problems {
    database: LastProblem,
    docker: LastProblem,
}

#[derive(Debug, Default)]
struct LastProblem(Mutex<Option<String>>);

impl LastProblem {
    fn set(&self, problem: Option<&impl std::error::Error>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem.map(ToString::to_string);
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

enum Reserved {
    Ours,
    SameTicket,
    Busy,
}

/// The agent's one place for a job; free again when dropped.
pub struct Slot {
    agent: Arc<Agent>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.agent.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn checks(agent: Arc<Agent>) -> http::Checks {
    Arc::new(move || {
        let stopping = agent.stop.is_cancelled().then(|| "the agent is stopping".to_owned());
        vec![
            Check { name: "running", problem: stopping, required: true },
            Check { name: "database", problem: agent.problems.database.get(), required: false },
            Check { name: "docker", problem: agent.problems.docker.get(), required: false },
        ]
    })
}
